/** Small networks that learn points of the plane while a page watches: what all such trainers share, and the one on a GPU. */
import { DeldotError, InputError, mlp, type Network } from "deldot";
import { Trainer, type TrainerOptions } from "deldot/train";
import { mixBits } from "../../../src/mixBits.js";
import { Turns } from "../../../src/turns.js";

/** What is minimised: losses of `deldot/train`, whose documentation has their formulas. */
export type LiveLoss = "flow_matching" | "score_matching" | "max_likelihood";

/**
 * A flow: the velocity f(x, t) that carries a standard normal distribution (t = 0) to the points (t = 1), with samples and log-densities. Or
 * a score: the static field s(x) = ∇ log p of the points with noise of {@link NOISE}, without time and without samples; its divergence is
 * the Laplacian of log p.
 */
export type FieldKind = "flow" | "score";

/** What each loss trains. Flow matching and maximum likelihood go on with one network; the score has its own. */
export const FIELD_OF = {
  flow_matching: "flow",
  max_likelihood: "flow",
  score_matching: "score",
} as const satisfies Record<LiveLoss, FieldKind>;

/** How training is going. */
export interface Progress {
  /** Steps since the loss was set. */
  readonly step: number;
  /** On the average over the steps of this run. */
  readonly loss: number;
  readonly stepsPerSecond: number;
}

/** A network that learns. Its methods wait for one another; after `destroy` they reject. */
export interface LiveTrainer {
  /** What is minimised now; {@link FIELD_OF} it tells whether that makes a flow or a score. */
  readonly loss: LiveLoss;
  /** Of every step since the loss was set, each of its own batch. */
  readonly losses: readonly number[];
  /**
   * Trains for about so long, at least one step.
   * @throws DeldotError where a loss is not finite: the weights are those of before it; DeviceLostError.
   */
  run(milliseconds: number): Promise<Progress>;
  /** The exponential moving average of the weights: of a flow [2 + 1] -> 64 -> 64 -> [2], of a score without the time. */
  network(): Promise<Network>;
  /** Goes on with another loss, from the averaged weights of the last one that trained such a field, or at random ones. */
  setLoss(loss: LiveLoss): Promise<void>;
  destroy(): void;
}

export interface LiveOptions {
  /** Of first weights, batches and noise. Default 0. */
  readonly seed?: number | undefined;
  /** Points of a step, of a step of maximum likelihood a quarter of them. Default 512 on a GPU, 256 on a CPU. */
  readonly batch?: number | undefined;
}

/** Standard deviation of the noise that score matching adds to points, without which it is unbounded below. */
export const NOISE = 0.1;
/** How the paths of maximum likelihood are integrated. */
export const INTEGRATION = { solver: "rk4", steps: 4 } as const;
const HIDDEN = 64;
/**
 * After 2000 steps of flow matching on two moons the mean log-density of other points is -1.34 with it, and with "gelu", which takes half as
 * long again on a CPU; -1.45 with "silu" and "tanh"; -1.24 is that of the moons themselves.
 */
const ACTIVATION = "gelu_tanh";

/** What is set of every loss. */
interface Settings {
  readonly loss: LiveLoss;
  readonly seed: number;
  readonly batch: number;
  readonly averaging: number;
  readonly optimizer: { readonly learningRate: number; readonly warmUp: number };
}

/** How each loss is trained. Rates stay, since nobody knows when a visitor stops; the average over steps does what a falling one would. */
export function optionsOf(loss: LiveLoss, { seed = 0, batch = 256 }: LiveOptions): TrainerOptions & Settings {
  const isLikelihood = loss === "max_likelihood";
  return {
    loss,
    seed,
    batch: isLikelihood ? Math.ceil(batch / 4) : batch,
    averaging: 0.99,
    optimizer: { learningRate: isLikelihood ? 3e-3 : 2e-2, warmUp: 50 },
    ...(loss === "flow_matching" && { pairing: "optimal_transport" }),
    ...(loss === "score_matching" && { noise: [NOISE, NOISE] }),
    ...(isLikelihood && { integration: INTEGRATION }),
  };
}

/** Weights and biases uniform in ±1/√inputs, as PyTorch's nn.Linear begins. */
export function firstNetwork(kind: FieldKind, seed: number): Network {
  const widths = [kind === "flow" ? 3 : 2, HIDDEN, HIDDEN, 2];
  let place = 0;
  const layers = widths.slice(1).map((outputs, layer) => {
    const inputs = widths[layer]!;
    const uniform = (): number => (2 * (mixBits(mixBits(seed) + place++) + 0.5)) / 2 ** 32 - 1;
    const draw = (count: number): Float32Array => Float32Array.from({ length: count }, () => uniform() / Math.sqrt(inputs));
    return { weight: { data: draw(outputs * inputs), shape: [outputs, inputs] }, bias: draw(outputs) };
  });
  return mlp({ layers, activation: ACTIVATION });
}

/** What trains by one loss. */
export interface Training {
  /** @returns the loss of each of so many steps. */
  train(steps: number): Promise<Iterable<number>>;
  /** With averaged weights. */
  network(): Promise<Network>;
  destroy(): void;
}

/** Begins to train a network by a loss. */
export type Begin = (network: Network, loss: LiveLoss) => Promise<Training>;

/** What all trainers do alike, whatever computes the steps. */
export class LiveTraining implements LiveTrainer {
  losses: number[] = [];
  private millisecondsPerStep = Infinity;
  private isDestroyed = false;
  private readonly turns = new Turns();

  private constructor(
    private readonly begin: Begin,
    private readonly networks: Record<FieldKind, Network>,
    public loss: LiveLoss,
    private training: Training,
  ) {}

  /** @throws InputError for points that are none; what `begin` throws. */
  static async create(begin: Begin, points: Float32Array, { seed = 0 }: LiveOptions): Promise<LiveTraining> {
    if (points.length === 0 || points.length % 2 !== 0 || !points.every(Number.isFinite))
      throw new InputError(`points are ${points.length} numbers; expected pairs of finite ones`);
    const networks = { flow: firstNetwork("flow", seed), score: firstNetwork("score", seed) };
    const loss = "flow_matching";
    return new LiveTraining(begin, networks, loss, await begin(networks[FIELD_OF[loss]], loss));
  }

  run(milliseconds: number): Promise<Progress> {
    return this.inTurn(async () => {
      const begun = performance.now();
      const before = this.losses.length;
      let now = begun;
      do {
        const left = begun + milliseconds - now;
        const steps = Math.max(1, Math.round(left / this.millisecondsPerStep));
        for (const loss of await this.training.train(steps)) this.losses.push(loss);
        this.millisecondsPerStep = (performance.now() - now) / steps;
        now = performance.now();
      } while (now + this.millisecondsPerStep / 2 < begun + milliseconds);
      const made = this.losses.slice(before);
      const loss = made.reduce((sum, each) => sum + each, 0) / made.length;
      return { step: this.losses.length, loss, stepsPerSecond: (1000 * made.length) / (now - begun) };
    });
  }

  network(): Promise<Network> {
    return this.inTurn(() => this.training.network());
  }

  setLoss(loss: LiveLoss): Promise<void> {
    return this.inTurn(async () => {
      this.networks[FIELD_OF[this.loss]] = await this.training.network();
      const next = await this.begin(this.networks[FIELD_OF[loss]], loss);
      // While the other one began.
      if (this.isDestroyed) return next.destroy();
      this.training.destroy();
      this.training = next;
      this.loss = loss;
      this.losses = [];
      this.millisecondsPerStep = Infinity;
    });
  }

  destroy(): void {
    this.isDestroyed = true;
    this.training.destroy();
  }

  private async inTurn<T>(work: () => Promise<T>): Promise<T> {
    const endTurn = await this.turns.take();
    try {
      if (this.isDestroyed) throw new DeldotError("the trainer was destroyed; make a new one");
      return await work();
    } finally {
      endTurn();
    }
  }
}

/**
 * Trains on a GPU, by `Trainer`: its submissions stand in one queue with the page's own, and none takes longer than the milliseconds that
 * `run` is given, or than one step. The device stays the caller's.
 * @param points [n, 2]
 * @throws InputError for points that are none; GpuError, DeviceLostError.
 */
export function trainOnGpu(device: GPUDevice, points: Float32Array, options: LiveOptions = {}): Promise<LiveTrainer> {
  const begin: Begin = async (network, loss) => {
    const trainer = await Trainer.create(device, network, optionsOf(loss, { batch: 512, ...options }));
    try {
      await trainer.data(points);
    } catch (error) {
      trainer.destroy();
      throw error;
    }
    return {
      train: (steps) => trainer.train(steps),
      network: () => trainer.network({ averaged: true }),
      destroy: () => trainer.destroy(),
    };
  };
  return LiveTraining.create(begin, points, options);
}
