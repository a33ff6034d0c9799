/** The same training without a GPU, in float64 on the thread that it is called on: meant for a worker. */
import { DeldotError, type Network } from "deldot";
import { mixBits } from "../../../src/mixBits.js";
import { stagesOf, tableaus } from "../../../src/ode/tableaus.js";
import { Chain } from "./chain.js";
import {
  INTEGRATION,
  LiveTraining,
  NOISE,
  optionsOf,
  type LiveLoss,
  type LiveOptions,
  type LiveTrainer,
  type Training,
} from "./trainer.js";

type Numbers = Float64Array<ArrayBuffer>;

/** Adam's, PyTorch's defaults. */
const [FIRST_DECAY, SECOND_DECAY] = [0.9, 0.999];
const EPSILON = 1e-8;
/** How often every two rows of a batch are asked whether they had better exchange their noise. */
const SWEEPS = 2;

/**
 * Trains on the CPU: the losses, batches, noise and optimizer of `Trainer` with equal options, so that both make the same steps but for
 * rounding.
 * @param points [n, 2]
 * @throws InputError for points that are none.
 */
export function trainOnCpu(points: Float32Array, options: LiveOptions = {}): Promise<LiveTrainer> {
  return LiveTraining.create(async (network, loss) => new CpuTraining(network, points, loss, options), points, options);
}

class CpuTraining implements Training {
  private readonly chain: Chain;
  private readonly settings: ReturnType<typeof optionsOf>;
  private readonly moments: readonly [Numbers, Numbers];
  private readonly averaged: Numbers;
  private step = 0;
  /**
   * Of a batch: points x and noise z, [batch, 2]; whose noise each point has; what f is evaluated at, [batch, 2 + 1] or [batch, 2]; and
   * what it should be there.
   */
  private readonly points: Numbers;
  private readonly noise: Numbers;
  private readonly pairs: Uint32Array;
  private readonly inputs: Numbers;
  private readonly wanted: Numbers;
  private readonly cotangent: Numbers;

  constructor(
    network: Network,
    private readonly data: Float32Array,
    private readonly loss: LiveLoss,
    options: LiveOptions,
  ) {
    this.settings = optionsOf(loss, options);
    const { batch } = this.settings;
    this.chain = new Chain(network, batch);
    const { weights } = this.chain;
    this.averaged = weights.slice();
    this.moments = [new Float64Array(weights.length), new Float64Array(weights.length)];
    this.inputs = new Float64Array(batch * (2 + network.contextSize));
    this.pairs = new Uint32Array(batch);
    const rows = (): Numbers => new Float64Array(2 * batch);
    [this.points, this.noise, this.wanted, this.cotangent] = [rows(), rows(), rows(), rows()];
  }

  async train(steps: number): Promise<number[]> {
    return Array.from({ length: steps }, () => {
      this.draw();
      this.chain.gradient.fill(0);
      const loss = this.evaluate();
      if (!Number.isFinite(loss) || !this.chain.gradient.every(Number.isFinite))
        throw new DeldotError(`the loss of step ${this.step}, ${loss}, or its gradient is not finite; the weights are those of before it`);
      this.descend();
      return loss;
    });
  }

  async network(): Promise<Network> {
    return this.chain.networkOf(this.averaged);
  }

  destroy(): void {
    // Memory alone.
  }

  /** The batch of a step: the twin of shaders/train/draw.wgsl. */
  private draw(): void {
    const { data, points, noise, pairs, inputs, wanted, loss } = this;
    const { seed, batch } = this.settings;
    const count = data.length / 2;
    const ofStep = mixBits(mixBits(seed) + this.step);
    const width = inputs.length / batch;
    const uniform = (row: number, place: number): number => ((mixBits(mixBits(ofStep + row) + place) >>> 8) + 0.5) / 2 ** 24;
    for (let row = 0; row < batch; row++) {
      const drawn = Math.floor((mixBits(mixBits(ofStep + row)) * count) / 2 ** 32);
      pairs[row] = row;
      for (let k = 0; k < 2; k++) {
        points[2 * row + k] = data[2 * drawn + k]!;
        noise[2 * row + k] = Math.sqrt(-2 * Math.log(uniform(row, 2 + 2 * k))) * Math.cos(2 * Math.PI * uniform(row, 3 + 2 * k));
      }
    }
    if (this.settings.pairing === "optimal_transport") this.pair();
    for (let row = 0; row < batch; row++) {
      const t = uniform(row, 1);
      for (let k = 0; k < 2; k++) {
        const [x, z] = [points[2 * row + k]!, noise[2 * pairs[row]! + k]!];
        wanted[2 * row + k] = loss === "flow_matching" ? x - z : 0;
        inputs[width * row + k] = loss === "flow_matching" ? (1 - t) * z + t * x : x + NOISE * z;
      }
      if (width > 2) inputs[width * row + 2] = t;
    }
  }

  /** Which row's noise each point has: the twin of shaders/train/pair.wgsl. */
  private pair(): void {
    const { points, noise, pairs } = this;
    const { batch } = this.settings;
    const rounds = 2 ** Math.ceil(Math.log2(batch));
    for (let sweep = 0; sweep < SWEEPS; sweep++)
      for (let mask = 1; mask < rounds; mask++)
        for (let i = 0; i < batch; i++) {
          const j = i ^ mask;
          if (j <= i || j >= batch) continue;
          const [a, b] = [pairs[i]!, pairs[j]!];
          const product =
            (points[2 * i]! - points[2 * j]!) * (noise[2 * a]! - noise[2 * b]!) +
            (points[2 * i + 1]! - points[2 * j + 1]!) * (noise[2 * a + 1]! - noise[2 * b + 1]!);
          if (product < 0) [pairs[i], pairs[j]] = [b, a];
        }
  }

  /** The loss of the batch; its gradient is added. */
  private evaluate(): number {
    const { chain, inputs, wanted, cotangent, loss } = this;
    const { batch } = this.settings;
    if (loss === "max_likelihood") return this.evaluatePaths();
    const isScore = loss === "score_matching";
    chain.forward(inputs, isScore);
    let squares = 0;
    for (let i = 0; i < cotangent.length; i++) {
      const off = chain.value[i]! - wanted[i]!;
      squares += off * off;
      cotangent[i] = off / batch;
    }
    chain.back(cotangent, isScore ? 1 / batch : 0);
    // The mean over points and their two components of (f - wanted)², or that over points of ½ |f|² + ∇·f.
    return (squares / 2 + (isScore ? sumOf(chain.divergence) : 0)) / batch;
  }

  /**
   * -log p of the batch at time 1, on the average, by Runge-Kutta steps to time 0, and back through the same steps: the twin of
   * gradientAlongPath in src/train/gradient.ts, where the formulas stand.
   */
  private evaluatePaths(): number {
    const { chain, cotangent } = this;
    const { batch } = this.settings;
    const { solver, steps } = INTEGRATION;
    const { a, b, c } = tableaus[solver];
    const stages = stagesOf(tableaus[solver]);
    const h = -1 / steps;
    const x = this.points.slice();
    const at: Numbers[] = [];
    for (let step = 0; step < steps; step++) {
      const slopes: Numbers[] = [];
      for (let stage = 0; stage < stages; stage++) {
        const place = x.slice();
        a[stage]!.forEach((factor, j) => addTo(place, slopes[j]!, h * factor));
        at.push(withTime(place, 1 + h * (step + c[stage]!)));
        chain.forward(at.at(-1)!, false);
        slopes.push(chain.value.slice());
      }
      slopes.forEach((slope, j) => addTo(x, slope, h * b[j]!));
    }
    let loss = Math.log(2 * Math.PI) + x.reduce((sum, each) => sum + each * each, 0) / (2 * batch);
    const adjoint = x.map((each) => each / batch);
    for (let step = steps - 1; step >= 0; step--) {
      const ofStages: Numbers[] = [];
      for (let stage = stages - 1; stage >= 0; stage--) {
        const share = h * b[stage]!;
        cotangent.fill(0);
        addTo(cotangent, adjoint, share);
        for (let j = stage + 1; j < stages; j++) addTo(cotangent, ofStages[j]!, h * (a[j]![stage] ?? 0));
        chain.forward(at[step * stages + stage]!, share !== 0);
        if (share !== 0) loss -= (share / batch) * sumOf(chain.divergence);
        chain.back(cotangent, -share / batch);
        ofStages[stage] = Float64Array.from({ length: 2 * batch }, (_, i) => chain.ofInputs[3 * (i >> 1) + (i % 2)]!);
      }
      for (const each of ofStages) addTo(adjoint, each, 1);
    }
    return loss;
  }

  /** A step of Adam, and of the average: the twin of shaders/train/optimize.wgsl. */
  private descend(): void {
    const { chain, averaged } = this;
    const { weights, gradient } = chain;
    const [first, second] = this.moments;
    const { averaging, optimizer } = this.settings;
    const rate = optimizer.learningRate * Math.min(1, (this.step + 1) / optimizer.warmUp);
    const t = ++this.step;
    const [firstMissing, secondMissing] = [1 - FIRST_DECAY ** t, 1 - SECOND_DECAY ** t];
    const kept = Math.min(averaging, (1 + t) / (10 + t));
    for (let i = 0; i < weights.length; i++) {
      const g = gradient[i]!;
      first[i] = FIRST_DECAY * first[i]! + (1 - FIRST_DECAY) * g;
      second[i] = SECOND_DECAY * second[i]! + (1 - SECOND_DECAY) * g * g;
      weights[i]! -= (rate * first[i]!) / firstMissing / (Math.sqrt(second[i]! / secondMissing) + EPSILON);
      averaged[i] = kept * averaged[i]! + (1 - kept) * weights[i]!;
    }
    chain.update();
  }
}

function sumOf(numbers: Numbers): number {
  return numbers.reduce((sum, each) => sum + each, 0);
}

function addTo(sum: Numbers, part: Numbers, factor: number): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += factor * part[i]!;
}

/** Rows [x, t] of points [batch, 2]. */
function withTime(points: Numbers, time: number): Numbers {
  return Float64Array.from({ length: (points.length / 2) * 3 }, (_, i) => (i % 3 === 2 ? time : points[2 * Math.floor(i / 3) + (i % 3)]!));
}
