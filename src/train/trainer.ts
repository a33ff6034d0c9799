import { DeldotError, InputError, quote } from "../errors.js";
import { internalsOf, VectorField } from "../field.js";
import { USAGE } from "../gpu/buffers.js";
import { asGpuError, checked } from "../gpu/errors.js";
import { Turns } from "../gpu/run.js";
import { checkObject, readBatch, startRun, type BatchInput, type RunOptions } from "../inputs.js";
import { mlp, type Network } from "../model/network.js";
import { parameterLayout, parametersOf, withParameters } from "../model/parameters.js";
import { mixBits } from "../mixBits.js";
import { asBits } from "../schedule/recorder.js";
import type { Chunk } from "../schedule/steps.js";
import { TrainKernels, type Dispatch } from "./kernels.js";
import { losses, readTrainerOptions, type TrainerOptions, type TrainerSettings } from "./options.js";
import { scheduleWeights } from "./weights.js";

/** Losses that are kept on the device until they are read. */
const LOSSES_KEPT = 1024;
/** Of a submission. */
const MOST_STEPS = 256;
/** A submission of steps should take about so long: short enough to be stopped, long enough to be worth it. */
const TARGET_MILLISECONDS = 100;
const NONE = 0xffffffff;
/** GPUMapMode.READ; the global itself is absent in Node. */
const MAP_READ = 1;

/** A chain of dense layers. */
export interface NetworkShape {
  /** d */
  readonly stateSize: number;
  /** Widths of the hidden layers. */
  readonly hidden: readonly number[];
  /** Of the hidden layers. Default "silu". */
  readonly activation?: string | undefined;
  /** Default 0. */
  readonly contextSize?: number | undefined;
}

/** What {@link Trainer.restore} goes on from. */
export interface TrainerState {
  /** Steps that were made. */
  readonly step: number;
  /** As `parameterLayout` has them. */
  readonly weights: Float32Array<ArrayBuffer>;
  /** Their exponential moving average. */
  readonly averaged: Float32Array<ArrayBuffer>;
  /** Two for each weight. */
  readonly moments: Float32Array<ArrayBuffer>;
  /** What the learning rate and Adam's corrections go on from. */
  readonly rates: Float32Array<ArrayBuffer>;
}

/** Data to train on. */
export interface TrainingData {
  /** The context but for time, of each point: [N, columns]. */
  readonly context?: BatchInput | undefined;
  /** What f should be, of a regression: [N, d]. */
  readonly targets?: BatchInput | undefined;
}

/** How far `train` is. */
export interface TrainProgress {
  /** Steps of this call. */
  readonly done: number;
  readonly total: number;
  /** Of the last step. */
  readonly loss: number;
}

/** How `train` reports and how it is stopped. */
export interface TrainRunOptions extends Pick<RunOptions, "signal"> {
  /** Called after each submission. */
  readonly onProgress?: ((progress: TrainProgress) => void) | undefined;
}

/**
 * Trains a network on the device: batches and noise are drawn there, weights, their moments and what is merged of them stay there, and many
 * steps go in one submission. Equal seeds give equal weights on one device.
 */
export class Trainer {
  /** By the rows that they are of. */
  private readonly cotangents = new Map<string, Dispatch>();
  private endings: readonly Dispatch[] | null = null;
  private draw: Dispatch | null = null;
  private drawnFrom: readonly GPUBuffer[] = [];
  private stepsPerSubmit = 1;
  private destroyed = false;
  private latest: TrainerState | null = null;
  /** One call of train after another, and between two submissions of it the other calls. */
  private readonly runs = new Turns();
  private readonly turns = new Turns();

  private constructor(
    private readonly device: GPUDevice,
    private readonly field: VectorField,
    private readonly settings: TrainerSettings,
    private readonly kernels: TrainKernels,
    private readonly buffers: Buffers,
    /** From the flat weights into matrices. */
    private readonly weights: Chunk,
  ) {}

  /**
   * @param given a network, whose weights are the first ones; or the shape of one, with weights by the seed.
   * @throws InputError for a bad argument; LimitError for a network that is not trained on the device; GpuError, DeviceLostError.
   */
  static async create(device: GPUDevice, given: Network | NetworkShape, options: TrainerOptions): Promise<Trainer> {
    checkObject("options", options);
    checkObject("network", given);
    const network = "operations" in given ? given : networkOf(given, options.seed ?? 0);
    const settings = readTrainerOptions(options, network.contextSize);
    const { loss, batch, label } = settings;
    const field = await VectorField.create(device, network, { label, kernels: "layers 4x4" });
    const needs = loss === "score_matching" ? (["value", "divergence"] as const) : (["value"] as const);
    await field.reserveVjp(batch, {
      wrt: ["parameters"],
      cotangents: needs,
      outputs: needs,
      contextPer: network.contextSize > 0 ? "point" : "batch",
    });
    try {
      const { planned, shared } = internalsOf(field);
      const weights = scheduleWeights(planned, shared().matrices);
      const kernels = await TrainKernels.compile(device, label);
      const buffers = await checked(device, label, () => makeBuffers(device, network, settings));
      return new Trainer(device, field, settings, kernels, buffers, weights);
    } catch (error) {
      field.destroy();
      throw asGpuError(label, error);
    }
  }

  /**
   * Goes on where another trainer's `state` was read: with the same options and data the same numbers come out as if it had never stopped.
   * @throws as {@link Trainer.create} does; InputError where the state is of another network.
   */
  static async restore(device: GPUDevice, network: Network, options: TrainerOptions, state: TrainerState): Promise<Trainer> {
    checkObject("state", state);
    if (!(Number.isInteger(state.step) && state.step >= 0 && state.step < NONE))
      throw new InputError(`the state's step is ${quote(state.step)}; expected a whole number`);
    const trainer = await Trainer.create(device, network, options);
    const { buffers } = trainer;
    const { step, weights, averaged, moments, rates } = state;
    const all = { weights, averaged, moments, rates };
    for (const [name, numbers] of Object.entries(all) as [keyof typeof all, Float32Array][])
      if (
        !(numbers instanceof Float32Array) ||
        Math.max(16, numbers.byteLength) !== buffers[name].size ||
        !numbers.every(Number.isFinite)
      ) {
        trainer.destroy();
        throw new InputError(
          `the state's ${name} are ${quote(numbers)}; expected a Float32Array of finite numbers as this network's trainer gives`,
        );
      }
    await checked(device, trainer.settings.label, () => {
      for (const [name, numbers] of Object.entries(all) as [keyof typeof all, Float32Array<ArrayBuffer>][])
        device.queue.writeBuffer(buffers[name], 0, numbers);
      device.queue.writeBuffer(buffers.progress, 0, Uint32Array.of(step, NONE));
      // The network may have had other weights.
      const encoder = device.createCommandEncoder({ label: trainer.settings.label });
      const pass = encoder.beginComputePass({ label: trainer.settings.label });
      internalsOf(trainer.field).recordChunk(pass, trainer.weights, { parameters: buffers.weights });
      pass.end();
      device.queue.submit([encoder.finish()]);
    });
    return trainer;
  }

  /** What `state` gave the last time: from there a trainer on another device can go on after this one was lost. */
  get lastState(): TrainerState | null {
    return this.latest;
  }

  /** All that later steps depend on, but for options and data. @throws GpuError, DeviceLostError. */
  async state(): Promise<TrainerState> {
    return this.inTurn(async () => {
      const { step } = await this.progress();
      const floats = async (buffer: GPUBuffer): Promise<Float32Array<ArrayBuffer>> => new Float32Array(await this.read(buffer));
      const { weights, averaged, moments, rates } = this.buffers;
      return (this.latest = {
        step,
        weights: await floats(weights),
        averaged: await floats(averaged),
        moments: await floats(moments),
        rates: await floats(rates),
      });
    });
  }

  /** Points [N, d] to draw from, kept on the device. @throws InputError, GpuError. */
  async data(points: BatchInput, given: TrainingData = {}): Promise<void> {
    checkObject("the data's options", given);
    const { stateSize: d, contextSize: c } = this.field.network;
    const { loss, timeColumn, batch, seed, noise, label } = this.settings;
    const { data, count } = readBatch(points, d, "points");
    if (count === 0) throw new InputError("points are none; expected at least one");
    const width = c - (timeColumn === null ? 0 : 1);
    const conditions = rowsOf(given.context, width, count, "context");
    const targets = rowsOf(given.targets, loss === "regression" ? d : 0, count, "targets");
    for (const [what, numbers] of Object.entries({ points: data, context: conditions, targets }))
      for (let i = 0; i < numbers.length; i++)
        if (!Number.isFinite(Math.fround(numbers[i]!)))
          throw new InputError(`${what} holds ${numbers[i]} at position ${i}; expected finite numbers`);
    const { device, buffers } = this;
    const numbers = [data, conditions, targets].map((each) => new Float32Array(each));
    await this.inTurn(() =>
      checked(device, label, () => {
        for (const buffer of this.drawnFrom) buffer.destroy();
        this.drawnFrom = numbers.map((each) => upload(device, label, each));
        const [x, context, wanted] = this.drawnFrom as [GPUBuffer, GPUBuffer, GPUBuffer];
        const parameters = {
          loss: losses.indexOf(loss),
          batch,
          width: d,
          contexts: c,
          timeColumn: timeColumn ?? NONE,
          count,
          seed,
          leastNoise: asBits(Math.log(noise[0])),
          mostNoise: asBits(Math.log(noise[1])),
        };
        this.draw = this.kernels.bind("draw", parameters, { ...buffers, data: x, conditions: context, targets: wanted }, batch);
      }),
    );
  }

  /**
   * Trains for so many steps. @returns the loss of each, of its own batch.
   * @throws InputError without data; GpuError, DeviceLostError; DeldotError where a loss is not finite, with the weights of before kept;
   * the signal's reason.
   */
  async train(count: number, options: TrainRunOptions = {}): Promise<Float32Array> {
    if (!this.draw) throw new InputError("there are no data; expected trainer.data before");
    if (!(Number.isInteger(count) && count >= 0)) throw new InputError(`count is ${quote(count)}; expected a whole number of steps`);
    startRun(options as RunOptions);
    const all = new Float32Array(count);
    const endRun = await this.runs.take();
    try {
      for (let done = 0; done < count;) {
        const losses = await this.inTurn(() => this.trainSome(count - done));
        all.set(losses, done);
        done += losses.length;
        options.onProgress?.({ done, total: count, loss: losses.at(-1)! });
        options.signal?.throwIfAborted();
      }
    } finally {
      endRun();
    }
    return all;
  }

  /** One submission of at most so many steps. @returns their losses. */
  private async trainSome(most: number): Promise<Float32Array> {
    const steps = Math.min(this.stepsPerSubmit, most);
    const begun = performance.now();
    await checked(this.device, this.settings.label, () => this.submit(steps));
    const { step, failedAt } = await this.progress();
    const kept = new Float32Array(await this.read(this.buffers.losses));
    const milliseconds = performance.now() - begun;
    if (failedAt !== NONE)
      throw new DeldotError(
        `the loss of step ${failedAt}, ${kept[failedAt % LOSSES_KEPT]}, or the norm of its gradient is not finite; the weights are those of before it`,
      );
    this.stepsPerSubmit = Math.max(1, Math.min(MOST_STEPS, Math.round(steps * Math.min(4, TARGET_MILLISECONDS / milliseconds))));
    return Float32Array.from({ length: steps }, (_, i) => kept[(step - steps + i) % LOSSES_KEPT]!);
  }

  /** Runs work while no steps are submitted. @throws DeldotError where the trainer is destroyed; DeviceLostError. */
  private async inTurn<T>(work: () => Promise<T>): Promise<T> {
    const { watch } = internalsOf(this.field).shared();
    const endTurn = await this.turns.take();
    try {
      if (this.destroyed) throw new DeldotError("the trainer was destroyed; make a new one");
      return await watch.guard(work());
    } finally {
      endTurn();
    }
  }

  /** The network with the weights as they are, or with their exponential moving average. @throws GpuError, DeviceLostError. */
  async network({ averaged = false }: { readonly averaged?: boolean | undefined } = {}): Promise<Network> {
    const { network } = this.field;
    const flat = new Float32Array(await this.inTurn(() => this.read(averaged ? this.buffers.averaged : this.buffers.weights)));
    const { tensors } = parameterLayout(network);
    const parameters = tensors.map(({ name, shape, offset }) => {
      const size = shape.reduce((product, n) => product * n, 1);
      return [name, flat.slice(offset, offset + size)] as const;
    });
    return withParameters(network, Object.fromEntries(parameters));
  }

  /** Frees the trainer's buffers; the device stays the caller's. */
  destroy(): void {
    this.destroyed = true;
    this.field.destroy();
    for (const buffer of [...this.drawnFrom, ...Object.values(this.buffers)]) buffer.destroy();
  }

  private submit(steps: number): void {
    const { device, buffers, settings, field } = this;
    const { batch, label, loss } = settings;
    const { stateSize: d, contextSize: c } = field.network;
    const { recordGradient, recordChunk } = internalsOf(field);
    const scores = loss === "score_matching";
    const end = this.ending();
    const encoder = device.createCommandEncoder({ label });
    const pass = encoder.beginComputePass({ label });
    for (let step = 0; step < steps; step++) {
      this.draw!(pass);
      recordGradient(
        pass,
        {
          points: buffers.points,
          count: batch,
          ...(c > 0 && { context: buffers.context }),
          cotangents: { value: buffers.cotangent, ...(scores && { divergence: 1 / batch }) },
          gradients: { parameters: buffers.gradient },
          value: buffers.value,
          ...(scores && { divergence: buffers.divergence }),
        },
        (own, first, count) => this.cotangent(first, count, d)(own),
      );
      for (const dispatch of end) dispatch(pass);
      recordChunk(pass, this.weights, { parameters: buffers.weights });
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
  }

  private cotangent(first: number, rows: number, width: number): Dispatch {
    const key = `${first} ${rows}`;
    let dispatch = this.cotangents.get(key);
    if (!dispatch) {
      const parameters = { first, rows, width, scale: asBits(this.scale()) };
      this.cotangents.set(key, (dispatch = this.kernels.bind("cotangent", parameters, { ...this.buffers }, rows * width)));
    }
    return dispatch;
  }

  /** Of half the squares: their mean over points and components, or, of scores, over points alone. */
  private scale(): number {
    const { loss, batch } = this.settings;
    return loss === "regression" || loss === "flow_matching" ? 2 / (batch * this.field.network.stateSize) : 1 / batch;
  }

  /** What follows the gradient of a step, but for the weights' way into matrices. */
  private ending(): readonly Dispatch[] {
    if (this.endings) return this.endings;
    const { batch, loss, averaging } = this.settings;
    const { name, learningRate, schedule, steps, warmUp, betas, epsilon, momentum, weightDecay, clip } = this.settings.optimizer;
    const { stateSize: width } = this.field.network;
    const { size } = parameterLayout(this.field.network);
    const [first, second] = name === "sgd" ? [momentum, 0] : betas;
    const rates = { firstDecay: asBits(first), secondDecay: asBits(second) };
    this.endings = [
      this.kernels.bind(
        "loss",
        {
          batch,
          width,
          size,
          losses: LOSSES_KEPT,
          scale: asBits(this.scale()),
          divergenceScale: asBits(loss === "score_matching" ? 1 / batch : 0),
          rate: asBits(learningRate),
          schedule: schedule === "cosine" ? 1 : 0,
          warmUp,
          steps,
          ...rates,
          mostNorm: asBits(clip),
        },
        { ...this.buffers },
        0,
      ),
      this.kernels.bind(
        "optimize",
        {
          size,
          optimizer: name === "sgd" ? 0 : 1,
          ...rates,
          epsilon: asBits(epsilon),
          decay: asBits(weightDecay),
          averaging: asBits(averaging),
        },
        { ...this.buffers },
        size,
      ),
    ];
    return this.endings;
  }

  private async progress(): Promise<{ step: number; failedAt: number }> {
    const [step, failedAt] = new Uint32Array(await this.read(this.buffers.progress)) as unknown as [number, number];
    return { step, failedAt };
  }

  private async read(buffer: GPUBuffer): Promise<ArrayBuffer> {
    const { device } = this;
    const { label } = this.settings;
    const staging = await checked(device, label, () => {
      const made = device.createBuffer({ label, size: buffer.size, usage: USAGE.MAP_READ | USAGE.COPY_DST });
      const encoder = device.createCommandEncoder({ label });
      encoder.copyBufferToBuffer(buffer, 0, made, 0, buffer.size);
      device.queue.submit([encoder.finish()]);
      return made;
    });
    await staging.mapAsync(MAP_READ).catch((error: unknown) => {
      throw asGpuError(label, error);
    });
    const numbers = staging.getMappedRange().slice(0);
    staging.destroy();
    return numbers;
  }
}

/** Weights and biases uniform in ±1/√inputs, as PyTorch's nn.Linear begins. */
function networkOf({ stateSize, hidden, activation = "silu", contextSize = 0 }: NetworkShape, seed: number): Network {
  if (!Array.isArray(hidden)) throw new InputError(`hidden is ${quote(hidden)}; expected the widths of the hidden layers`);
  const widths = [stateSize + contextSize, ...(hidden as number[]), stateSize];
  if (!(Number.isInteger(contextSize) && contextSize >= 0))
    throw new InputError(`contextSize is ${quote(contextSize)}; expected a whole number`);
  for (const width of [stateSize, ...(hidden as number[])])
    if (!(Number.isInteger(width) && width >= 1)) throw new InputError(`a width is ${quote(width)}; expected whole numbers from 1`);
  let place = 0;
  const uniform = (bound: number): number => bound * ((2 * (mixBits(mixBits(seed) + place++) + 0.5)) / 2 ** 32 - 1);
  const layers = widths.slice(1).map((outputs, index) => {
    const inputs = widths[index]!;
    const bound = 1 / Math.sqrt(inputs);
    const row = (count: number): number[] => Array.from({ length: count }, () => uniform(bound));
    return { weight: Array.from({ length: outputs }, () => row(inputs)), bias: row(outputs) };
  });
  return mlp({ layers, activation });
}

/** By the names that the kernels have for them. */
type Buffers = Record<
  | "points"
  | "context"
  | "wanted"
  | "value"
  | "divergence"
  | "cotangent"
  | "gradient"
  | "weights"
  | "averaged"
  | "moments"
  | "progress"
  | "rates"
  | "losses",
  GPUBuffer
>;

function makeBuffers(device: GPUDevice, network: Network, { batch, label }: TrainerSettings): Buffers {
  const { stateSize: d, contextSize: c } = network;
  const { tensors, size } = parameterLayout(network);
  const parameters = parametersOf(network);
  const flat = new Float32Array(size);
  for (const { name, offset } of tensors) flat.set(parameters[name]!.data, offset);
  const zeros = (floats: number): GPUBuffer => upload(device, label, new Float32Array(floats));
  return {
    points: zeros(batch * d),
    context: zeros(batch * c),
    wanted: zeros(batch * (d + 1)),
    value: zeros(batch * d),
    divergence: zeros(batch),
    cotangent: zeros(batch * d),
    gradient: zeros(size),
    weights: upload(device, label, flat),
    averaged: upload(device, label, flat),
    moments: zeros(2 * size),
    progress: upload(device, label, Uint32Array.of(0, NONE)),
    rates: upload(device, label, Float32Array.of(1, 1, 0, 1)),
    losses: zeros(LOSSES_KEPT),
  };
}

function upload(device: GPUDevice, label: string, numbers: Float32Array | Uint32Array): GPUBuffer {
  const usage = USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST;
  const buffer = device.createBuffer({ label, size: Math.max(16, numbers.byteLength), usage, mappedAtCreation: true });
  const range = buffer.getMappedRange();
  if (numbers instanceof Float32Array) new Float32Array(range).set(numbers);
  else new Uint32Array(range).set(numbers);
  buffer.unmap();
  return buffer;
}

/** Rows of one width for each point. @throws InputError. */
function rowsOf(given: BatchInput | undefined, width: number, count: number, what: string): ArrayLike<number> {
  if (width === 0) {
    if (given !== undefined) throw new InputError(`${what} is given; this loss and this network take none`);
    return [];
  }
  if (given === undefined) throw new InputError(`${what} is missing; expected ${count} rows of ${width} numbers`);
  const read = readBatch(given, width, what);
  if (read.count !== count) throw new InputError(`${what} has ${read.count} rows; expected ${count}, one for each point`);
  return read.data;
}
