import { DeldotError, DeviceLostError, InputError, LimitError, quote } from "../errors.js";
import { internalsOf, VectorField } from "../field.js";
import { asGpuError, checked } from "../gpu/errors.js";
import { Turns } from "../turns.js";
import { checkObject, startRun, type BatchInput } from "../inputs.js";
import { mixBits } from "../mixBits.js";
import { mlp, type Network } from "../model/network.js";
import { parameterLayout, withParameters } from "../model/parameters.js";
import { stagesOf, tableaus } from "../ode/tableaus.js";
import { capabilitiesOf } from "../kernels/capabilities.js";
import type { TrainKernelName } from "../kernels/train.js";
import { allocate } from "../rows.js";
import { asBits } from "../schedule/recorder.js";
import { Batches, readData, type TrainingData } from "./batches.js";
import { largestOf, LOSSES_KEPT, makeBuffers, NONE, RATES, readBuffers, type Buffers } from "./buffers.js";
import { factorsOf, gradientOf, placesOf, evaluationOf, reserve, type Parts } from "./gradient.js";
import { TrainKernels, type Dispatch } from "./kernels.js";
import {
  optimizers,
  readTrainerOptions,
  type CustomLoss,
  type CustomLossResult,
  type TrainerOptions,
  type TrainerSettings,
} from "./options.js";
import { scheduleWeights } from "./weights.js";
import type { Floats } from "../typedArrays.js";

/** Of a submission: steps, and evaluations of f in all of them, since some drivers fail at some 60 000 dispatches. */
const MOST_STEPS = 256;
const MOST_EVALUATIONS = 1024;
/** A submission of steps should take about so long: short enough to be stopped, long enough to be worth it. */
const TARGET_MILLISECONDS = 100;
/** After so long the state is read, for {@link Trainer.lastState}. */
const STATE_MILLISECONDS = 10_000;

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
  /** Whose moments these are: another one begins with its own. */
  readonly optimizer: "adam" | "adamw" | "sgd";
  /** As `parameterLayout` has them. */
  readonly weights: Floats;
  /** Their exponential moving average. */
  readonly averaged: Floats;
  /** Two for each weight. */
  readonly moments: Floats;
  /** What the learning rate and Adam's corrections go on from. */
  readonly rates: Floats;
}

/** How far training is. */
export interface TrainProgress {
  /** Steps of this call that were made. */
  readonly done: number;
  /** Steps of this call. */
  readonly total: number;
  /** Of the last step. */
  readonly loss: number;
}

/** What `trainer.train` takes beside the number of steps. */
export interface TrainRunOptions {
  /** Called after every submission of steps. */
  readonly onProgress?: ((progress: TrainProgress) => void) | undefined;
  /** Stops between two submissions; what was made stays made, and train rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Trains a network on the device: batches and noise are drawn there, weights, their moments and what is merged of them stay there, and many
 * steps go in one submission. Equal seeds give equal weights on one device.
 */
export class Trainer {
  private readonly gradient: Dispatch;
  private readonly endings: readonly Dispatch[];
  /** f and ∇·f, for a loss of one's own. */
  private readonly evaluate: Dispatch | null;
  private batches: Batches | null = null;
  private stepsPerSubmit = 1;
  private readonly mostSteps: number;
  /** Steps that were made. */
  private step = 0;
  private last: TrainerState | null = null;
  private lastReadAt: number = performance.now();
  private hasFailed = false;
  /** Whether the device may be further than `step`. */
  private mayLag = false;
  private destroyed = false;
  /** One call of train after another, and between two submissions of it the other calls. */
  private readonly runs = new Turns();
  private readonly turns = new Turns();

  private constructor(
    private readonly parts: Parts,
    /** Writes the flat weights into matrices. */
    private readonly writeWeights: Dispatch,
  ) {
    this.gradient = gradientOf(parts);
    this.endings = endingsOf(parts);
    this.evaluate = parts.settings.customLoss ? evaluationOf(parts) : null;
    const { loss, integration } = parts.settings;
    const evaluations = loss === "max_likelihood" ? 2 * integration.steps * stagesOf(tableaus[integration.solver]) : 1;
    this.mostSteps = Math.max(1, Math.min(MOST_STEPS, Math.floor(MOST_EVALUATIONS / evaluations)));
  }

  /**
   * @param given a network, whose weights are the first ones; or the shape of one, with weights by the seed.
   * @throws InputError for a bad argument; LimitError for a network that is not trained on the device, or is too large; GpuError,
   * DeviceLostError.
   */
  static async create(device: GPUDevice, given: Network | NetworkShape, options: TrainerOptions): Promise<Trainer> {
    checkObject("options", options);
    checkObject("network", given);
    const network = "operations" in given ? given : networkOf(device, given, options.seed ?? 0);
    const settings = readTrainerOptions(options, network.contextSize);
    const { label, memoryBudget, kernels = usualKernels(device) } = settings;
    const field = await VectorField.create(device, network, { label, memoryBudget, kernels });
    let buffers: Buffers | null = null;
    let compiled: TrainKernels | null = null;
    try {
      await reserve(field, settings);
      const { planned, shared, encoder } = internalsOf(field);
      const weights = scheduleWeights(planned, shared().matrices);
      compiled = await TrainKernels.compile(device, label, kernelsOf(settings));
      buffers = await makeBuffers(device, network, settings);
      const parts = { device, field, settings, kernels: compiled, buffers };
      return await checked(
        device,
        label,
        () => new Trainer(parts, encoder.prepare([weights], { parameters: parts.buffers.weights }, shared())),
      );
    } catch (error) {
      field.destroy();
      compiled?.destroy();
      for (const buffer of Object.values(buffers ?? {})) buffer.destroy();
      throw asGpuError(label, error);
    }
  }

  /**
   * Goes on where another trainer's `state` was read: with the same options and data the same numbers come out as if it had never stopped.
   * Between sgd and the others moments begin anew.
   * @throws as {@link Trainer.create} does; InputError where the state is of another network.
   */
  static async restore(device: GPUDevice, network: Network, options: TrainerOptions, state: TrainerState): Promise<Trainer> {
    checkObject("state", state);
    if (!(Number.isInteger(state.step) && state.step >= 0 && state.step < NONE))
      throw new InputError(`the state's step is ${quote(state.step)}; expected a whole number`);
    checkObject("network", network);
    const { step, optimizer, weights, averaged, moments, rates } = state;
    if (!optimizers.includes(optimizer))
      throw new InputError(
        `the state's optimizer is ${quote(optimizer)}; expected one of ${optimizers.map((each) => quote(each)).join(", ")}`,
      );
    const sizes = sizesOf(parameterLayout(network).size);
    for (const [name, numbers] of Object.entries({ weights, averaged, moments, rates }) as [keyof typeof sizes, Float32Array][])
      if (!(numbers instanceof Float32Array) || numbers.length !== sizes[name] || !numbers.every(Number.isFinite))
        throw new InputError(
          `the state's ${name} are ${quote(numbers)}; expected a Float32Array of ${sizes[name]} finite numbers, as this network's trainer gives`,
        );
    // A copy, so that nothing done to them later is seen.
    const own = copyOf(state);
    const trainer = await Trainer.create(device, network, options);
    const { buffers, settings } = trainer.parts;
    try {
      await checked(device, settings.label, () => {
        const isSameKind = (optimizer === "sgd") === (settings.optimizer.name === "sgd");
        for (const name of isSameKind ? NUMBERS : (["weights", "averaged"] as const)) device.queue.writeBuffer(buffers[name], 0, own[name]);
        device.queue.writeBuffer(buffers.progress, 0, Uint32Array.of(step, NONE));
        // The network may have had other weights.
        submit(device, settings.label, trainer.writeWeights);
      });
    } catch (error) {
      trainer.destroy();
      throw error;
    }
    trainer.step = step;
    trainer.last = own;
    return trainer;
  }

  /** All that later steps depend on, but for options and data. @throws GpuError, DeviceLostError. */
  async state(): Promise<TrainerState> {
    return copyOf(await this.inTurn(() => this.readState()));
  }

  /**
   * The state that was read last: by `state`, and by `train` every ten seconds. It is there when the device is lost, for
   * {@link Trainer.restore} on another. Null before.
   */
  get lastState(): TrainerState | null {
    return this.last;
  }

  private async readState(): Promise<TrainerState> {
    const { weights, averaged, moments, rates } = this.parts.buffers;
    const [step, ...read] = await this.read([this.parts.buffers.progress, weights, averaged, moments, rates]);
    const sizes = sizesOf(parameterLayout(this.parts.field.network).size);
    const floats = NUMBERS.map((name, i) => [name, new Float32Array(read[i]!, 0, sizes[name]).slice()] as const);
    const { name } = this.parts.settings.optimizer;
    this.last = {
      step: new Uint32Array(step!)[0]!,
      optimizer: name,
      ...(Object.fromEntries(floats) as Record<(typeof NUMBERS)[number], Floats>),
    };
    this.lastReadAt = performance.now();
    return this.last;
  }

  /**
   * Points [N, d] to draw from, kept on the device; where they are more than the memory budget, what steps draw is sent as they go.
   * @throws InputError, GpuError.
   */
  async data(points: BatchInput, given: TrainingData = {}): Promise<void> {
    checkObject("the data's options", given);
    const { device, field, kernels, settings, buffers } = this.parts;
    const rows = readData(field.network, settings, points, given);
    const { points: place } = placesOf(this.parts);
    const { watch } = internalsOf(field).shared();
    await this.inTurn(async () => {
      let made: Batches | null = null;
      try {
        await watch.guardUnread(
          checked(device, settings.label, () => (made = new Batches(device, kernels, settings, field.network, buffers, place, rows))),
        );
      } catch (error) {
        (made as Batches | null)?.destroy();
        throw error;
      }
      this.batches?.destroy();
      this.batches = made;
    });
  }

  /**
   * Trains for so many steps. @returns the loss of each, of its own batch.
   * @throws InputError without data; GpuError, DeviceLostError; DeldotError where a loss is not finite, with the weights of before kept;
   * the signal's reason; what a loss of one's own throws.
   */
  async train(count: number, options: TrainRunOptions = {}): Promise<Float32Array> {
    if (!this.batches) throw new InputError("there are no data; expected trainer.data before");
    if (!(Number.isInteger(count) && count >= 0)) throw new InputError(`count is ${quote(count)}; expected a whole number of steps`);
    checkObject("options", options);
    const { onProgress, signal } = options;
    startRun({ signal });
    if (onProgress !== undefined && typeof onProgress !== "function")
      throw new InputError(`onProgress is ${quote(onProgress)}; expected a function`);
    const all = allocate("the losses", count, 1);
    const endRun = await this.runs.take();
    try {
      if (this.hasFailed) await this.inTurn(() => this.retry());
      for (let done = 0; done < count;) {
        const losses = await this.inTurn(async () => {
          const made = await this.trainSome(count - done);
          if (performance.now() - this.lastReadAt > STATE_MILLISECONDS) await this.readState();
          return made;
        });
        all.set(losses, done);
        done += losses.length;
        onProgress?.({ done, total: count, loss: losses.at(-1)! });
        if (done < count) signal?.throwIfAborted();
      }
    } finally {
      endRun();
    }
    return all;
  }

  /** After an error: the device may have made steps that nobody has read of. */
  private async catchUp(): Promise<void> {
    const [progress] = await this.read([this.parts.buffers.progress]);
    this.step = new Uint32Array(progress!)[0]!;
    this.mayLag = false;
  }

  /** The step that failed may do better with other data. */
  private async retry(): Promise<void> {
    const { device, settings, buffers } = this.parts;
    await checked(device, settings.label, () => device.queue.writeBuffer(buffers.progress, 4, Uint32Array.of(NONE)));
    this.hasFailed = false;
  }

  /** One submission of at most so many steps. @returns their losses. */
  private async trainSome(most: number): Promise<Float32Array> {
    const { device, settings, buffers } = this.parts;
    const { customLoss, label } = settings;
    const steps = customLoss ? 1 : Math.min(this.stepsPerSubmit, this.batches!.mostSteps, most);
    const begun = performance.now();
    if (this.mayLag) await this.catchUp();
    if (customLoss) await this.evaluateLoss(customLoss);
    this.mayLag = true;
    await checked(device, label, () => {
      if (!customLoss) this.batches!.send(this.step, steps);
      submit(device, label, (pass) => {
        for (let k = 0; k < steps; k++) {
          if (!customLoss) this.batches!.record(pass);
          this.gradient(pass);
          for (const dispatch of this.endings) dispatch(pass);
          this.writeWeights(pass);
        }
      });
    });
    const [progress, losses] = await this.read([buffers.progress, buffers.losses]);
    this.mayLag = false;
    const [step, failedAt] = new Uint32Array(progress!) as unknown as [number, number];
    const kept = new Float32Array(losses!);
    const milliseconds = performance.now() - begun;
    const before = this.step;
    this.step = step;
    this.hasFailed = failedAt !== NONE;
    if (this.hasFailed)
      throw new DeldotError(
        `the loss of step ${failedAt}, ${kept[failedAt % LOSSES_KEPT]}, or the norm of its gradient is not finite; the weights are those of before it`,
      );
    this.stepsPerSubmit = Math.max(1, Math.min(this.mostSteps, Math.round(steps * Math.min(4, TARGET_MILLISECONDS / milliseconds))));
    return Float32Array.from({ length: steps }, (_, i) => kept[(before + i) % LOSSES_KEPT]!);
  }

  /** Draws a batch and has the caller's function say what it costs. */
  private async evaluateLoss(customLoss: CustomLoss): Promise<void> {
    const { device, field, settings, buffers } = this.parts;
    const { batch, label } = settings;
    const { stateSize: d, contextSize: c } = field.network;
    await checked(device, label, () => {
      this.batches!.send(this.step, 1);
      submit(device, label, (pass) => {
        this.batches!.record(pass);
        this.evaluate!(pass);
      });
    });
    const read = await this.read([buffers.points, buffers.context, buffers.wanted, buffers.value, buffers.divergence]);
    const [points, context, wanted, value, divergence] = read.map((each) => new Float32Array(each)) as [
      Floats,
      Floats,
      Floats,
      Floats,
      Floats,
    ];
    const targets = this.batches!.hasTargets ? wanted.filter((_, i) => i % (d + 1) < d) : null;
    const result = await customLoss({
      points: points.subarray(0, batch * d),
      context: context.subarray(0, batch * c),
      targets: targets?.subarray(0, batch * d) ?? null,
      value: value.subarray(0, batch * d),
      divergence: divergence.subarray(0, batch),
      step: this.step,
    });
    const cotangents = readLoss(result, batch, d);
    await checked(device, label, () => {
      device.queue.writeBuffer(buffers.cotangent, 0, cotangents.value);
      device.queue.writeBuffer(buffers.divergenceCotangent, 0, cotangents.divergence);
      const losses = new Float32Array(batch);
      losses[0] = result.loss;
      device.queue.writeBuffer(buffers.divergence, 0, losses);
    });
  }

  /** Runs work while no steps are submitted. @throws DeldotError where the trainer is destroyed; DeviceLostError. */
  private async inTurn<T>(work: () => Promise<T>): Promise<T> {
    const { watch } = internalsOf(this.parts.field).shared();
    const endTurn = await this.turns.take();
    try {
      if (this.destroyed) throw wasDestroyed();
      return await watch.guard(work());
    } catch (error) {
      throw this.destroyed && !(error instanceof DeviceLostError) ? wasDestroyed() : error;
    } finally {
      endTurn();
    }
  }

  /** The network with the weights as they are, or with their exponential moving average. @throws GpuError, DeviceLostError. */
  async network(options: { readonly averaged?: boolean | undefined } = {}): Promise<Network> {
    checkObject("options", options);
    const { averaged = false } = options;
    const { field, buffers } = this.parts;
    const [read] = await this.inTurn(() => this.read([averaged ? buffers.averaged : buffers.weights]));
    const flat = new Float32Array(read!);
    const { tensors } = parameterLayout(field.network);
    const parameters = tensors.map(({ name, shape, offset }) => {
      const size = shape.reduce((product, n) => product * n, 1);
      return [name, flat.slice(offset, offset + size)] as const;
    });
    return withParameters(field.network, Object.fromEntries(parameters));
  }

  /** Frees the trainer's buffers; the device stays the caller's. */
  destroy(): void {
    this.destroyed = true;
    const { field, kernels, buffers } = this.parts;
    field.destroy();
    kernels.destroy();
    this.batches?.destroy();
    for (const buffer of Object.values(buffers)) buffer.destroy();
  }

  private read(buffers: readonly GPUBuffer[]): Promise<ArrayBuffer[]> {
    return readBuffers(this.parts.device, this.parts.settings.label, buffers);
  }
}

/** Of a state. */
const NUMBERS = ["weights", "averaged", "moments", "rates"] as const;

function copyOf({ step, optimizer, weights, averaged, moments, rates }: TrainerState): TrainerState {
  return { step, optimizer, weights: weights.slice(), averaged: averaged.slice(), moments: moments.slice(), rates: rates.slice() };
}

/** How many numbers a state has, of a network of so many weights. */
function sizesOf(size: number): Readonly<Record<(typeof NUMBERS)[number], number>> {
  return { weights: size, averaged: size, moments: 2 * size, rates: RATES };
}

/** The fastest of those that a step was timed by where a processor stands in for a GPU; else what keeps a GPU's many cores busy. */
function usualKernels(device: GPUDevice): string {
  const { isFallback, lanes } = capabilitiesOf(device);
  if (!isFallback) return "layers 4x4";
  return lanes >= 8 ? "layers 4x16 by 8 lanes" : "layers 8x16";
}

function wasDestroyed(): DeldotError {
  return new DeldotError("the trainer was destroyed; make a new one");
}

function kernelsOf({ loss, pairing }: TrainerSettings): readonly TrainKernelName[] {
  return [
    ...(["draw", "cotangent", "loss", "optimize"] as const),
    ...(pairing === "optimal_transport" ? (["pair"] as const) : []),
    ...(loss === "max_likelihood" ? (["combine", "time"] as const) : []),
  ];
}

function submit(device: GPUDevice, label: string, record: (pass: GPUComputePassEncoder) => void): void {
  const encoder = device.createCommandEncoder({ label });
  const pass = encoder.beginComputePass({ label });
  record(pass);
  pass.end();
  device.queue.submit([encoder.finish()]);
}

/** What follows the gradient of a step, but for the weights' way into matrices. */
function endingsOf(parts: Parts): readonly Dispatch[] {
  const { field, settings, kernels, buffers } = parts;
  const { batch, averaging } = settings;
  const { name, learningRate, schedule, steps, warmUp, betas, epsilon, momentum, weightDecay, clip } = settings.optimizer;
  const { stateSize: width } = field.network;
  const { size } = parameterLayout(field.network);
  const [first, second] = name === "sgd" ? [momentum, 0] : betas;
  const rates = { firstDecay: asBits(first), secondDecay: asBits(second) };
  const { scale, divergence, penalty, constant } = factorsOf(settings, width);
  return [
    kernels.bind(
      "loss",
      {
        batch,
        width,
        size,
        losses: LOSSES_KEPT,
        scale: asBits(scale),
        divergenceScale: asBits(divergence),
        penalty: asBits(penalty),
        constant: asBits(constant),
        rate: asBits(learningRate),
        schedule: schedule === "cosine" ? 1 : 0,
        warmUp,
        steps,
        ...rates,
        mostNorm: asBits(clip),
      },
      { ...buffers, value: placesOf(parts).value },
      0,
    ),
    kernels.bind(
      "optimize",
      {
        size,
        optimizer: name === "sgd" ? 0 : 1,
        ...rates,
        epsilon: asBits(epsilon),
        decay: asBits(weightDecay),
        averaging: asBits(averaging),
      },
      { ...buffers },
      size,
    ),
  ];
}

/** @throws InputError. */
function readLoss(result: CustomLossResult, batch: number, d: number): { readonly value: Floats; readonly divergence: Floats } {
  checkObject("what the loss gives", result);
  const { loss, value, divergence = 0 } = result;
  if (typeof loss !== "number") throw new InputError(`the loss that the function gives is ${quote(loss)}; expected a number`);
  const read = (name: string, given: ArrayLike<number>, size: number): Floats => {
    if (given?.length !== size) throw new InputError(`the loss's cotangent for the ${name} is ${quote(given)}; expected ${size} numbers`);
    return Float32Array.from(given);
  };
  return {
    value: value === undefined ? new Float32Array(batch * d) : read("value", value, batch * d),
    divergence: typeof divergence === "number" ? new Float32Array(batch).fill(divergence) : read("divergence", divergence, batch),
  };
}

/** Weights and biases uniform in ±1/√inputs, as PyTorch's nn.Linear begins. @throws LimitError where they are too many for the device. */
function networkOf(device: GPUDevice, { stateSize, hidden, activation = "silu", contextSize = 0 }: NetworkShape, seed: number): Network {
  if (!Array.isArray(hidden)) throw new InputError(`hidden is ${quote(hidden)}; expected the widths of the hidden layers`);
  const widths = [stateSize + contextSize, ...(hidden as number[]), stateSize];
  if (!(Number.isInteger(contextSize) && contextSize >= 0))
    throw new InputError(`contextSize is ${quote(contextSize)}; expected a whole number`);
  for (const width of [stateSize, ...(hidden as number[])])
    if (!(Number.isInteger(width) && width >= 1)) throw new InputError(`a width is ${quote(width)}; expected whole numbers from 1`);
  const shapes = widths.slice(1).map((outputs, index) => [outputs, widths[index]!] as const);
  const size = shapes.reduce((sum, [outputs, inputs]) => sum + outputs * (inputs + 1), 0);
  // Two moments of each in one buffer.
  if (8 * size > largestOf(device))
    throw new LimitError(
      `a network of the widths ${widths.join(", ")} has ${size} weights; the device allows ${Math.floor(largestOf(device) / 8)}`,
    );
  let place = 0;
  const uniform = (bound: number): number => bound * ((2 * (mixBits(mixBits(seed) + place++) + 0.5)) / 2 ** 32 - 1);
  const layers = shapes.map(([outputs, inputs]) => {
    const bound = 1 / Math.sqrt(inputs);
    const numbers = (count: number): Float32Array => Float32Array.from({ length: count }, () => uniform(bound));
    return { weight: { data: numbers(outputs * inputs), shape: [outputs, inputs] as const }, bias: numbers(outputs) };
  });
  return mlp({ layers, activation });
}
