import { VectorField, type EncodeOptions, type EvaluateOptions, type Method, type Network, type Store, type TunedKernels } from "deldot";
import { isPerPoint, type Inputs } from "./cases.js";
import { compare, type Results } from "./compare.js";
import { readBuffer, wallTime, type DeviceClock, type MemoryWatch } from "./measure.js";

/** How much is measured. */
export interface Settings {
  /** Which methods, by name; "auto" names what auto takes. */
  readonly methods: RegExp;
  /** Rounds of samples. */
  readonly repeats: number;
  /** Seconds that one sample of a method may take; slower ones get fewer points. f alone and auto always get all of them. */
  readonly secondsPerSample: number;
  /** Seconds of samples after which there are no more of a method; f alone and auto have three times as long. */
  readonly secondsPerMethod: number;
  /** Seconds of tuning after which a case's other methods run what was best for f or auto, untuned. */
  readonly secondsToTune: number;
}

/** What all cases share. */
export interface Bench {
  readonly device: GPUDevice;
  readonly clock: DeviceClock;
  readonly memory: MemoryWatch;
  readonly store: Store;
  /** "auto": what tuning chooses; else a variant's name, and nothing is tuned. */
  readonly kernels: string;
  /** Says where the run is. @throws Error where WebGPU has refused work: its timings mean nothing. */
  readonly progress: (text: string) => void;
}

export type Options = EvaluateOptions<"value" | "divergence">;

/** Fewer points than these say nothing about a method. */
export const LEAST_POINTS = 16;
/** The timed compute pass repeats the evaluation until it takes so many milliseconds: timestamps may be coarse. */
const LEAST_MILLISECONDS = 10;
const MOST_REPETITIONS = 64;

/** What the plan says of a row. */
export interface Planned {
  readonly method: Method | "value";
  readonly forwardMultiplyAdds: number;
  readonly multiplyAdds: number;
  readonly predictedRatio: number;
}

/** One row's work. */
export interface Task extends Planned {
  readonly auto: boolean;
  readonly options: Options;
  readonly contextPer: "point" | "batch";
}

export interface Tuned {
  readonly kernels: string;
  /** Empty where it was not tuned. */
  readonly tuned: readonly TunedKernels[];
  readonly tuneSeconds: number;
}

/** A row that is ready to be sampled. */
export interface Measured extends Task, Tuned {
  readonly field: VectorField;
  readonly points: number;
  readonly secondsPerPoint: number;
  readonly peakBytes: number;
  readonly error: number;
  readonly compared: number;
  /** Milliseconds of one evaluation, by round. */
  readonly deviceSamples: number[];
  readonly wallSamples: number[];
  /** Adds one sample to each. */
  readonly sample: () => Promise<void>;
}

/** A case's rows on the device. */
export interface Buffers {
  readonly points: GPUBuffer;
  readonly context: GPUBuffer | null;
  readonly value: GPUBuffer;
  readonly divergence: GPUBuffer;
}

export function makeBuffers(device: GPUDevice, { network, points, context }: Inputs, count: number): Buffers {
  const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
  const make = (size: number): GPUBuffer => device.createBuffer({ label: "bench rows", size, usage: STORAGE | COPY_SRC | COPY_DST });
  const upload = (data: Float32Array): GPUBuffer => {
    const buffer = make(data.byteLength);
    device.queue.writeBuffer(buffer, 0, data);
    return buffer;
  };
  return {
    points: upload(points),
    context: isPerPoint(context) ? upload(context) : null,
    value: make(4 * count * network.stateSize),
    divergence: make(4 * count),
  };
}

/** How many of `count` points a sample may take; 0 where even the fewest take far too long. */
export function affordable(count: number, secondsPerPoint: number, { secondsPerSample }: Settings): number {
  const most = Math.floor(secondsPerSample / secondsPerPoint);
  if (most >= count) return count;
  const least = Math.min(count, LEAST_POINTS);
  if (most >= least) return most >= 64 ? most - (most % 64) : most;
  return least * secondsPerPoint <= 2 * secondsPerSample ? least : 0;
}

/** The same, found by trying more and more of them: `time` gives the milliseconds of so many points. */
async function affordableBy(time: (count: number) => Promise<number>, most: number, settings: Settings): Promise<number> {
  const least = Math.min(most, LEAST_POINTS);
  for (let tried = least; ; tried = Math.min(most, 4 * tried)) {
    const points = Math.max(least, affordable(most, (await time(tried)) / 1000 / tried, settings));
    if (points <= 4 * tried || tried === most) return points;
  }
}

/** Has the device try what runs a row the fastest. */
export async function tune(field: VectorField, { options, contextPer }: Task, count: number): Promise<Tuned> {
  const { outputs, method, probes } = options;
  let tuned: readonly TunedKernels[] = [];
  const milliseconds = await wallTime(async () => (tuned = await field.tune(count, { outputs, method, contextPer, probes })));
  return { kernels: tuned.find(({ chosen }) => chosen)!.kernels, tuned, tuneSeconds: milliseconds / 1000 };
}

/** Fixes the kernels, finds out how many points a sample may have, and compares results with the reference. */
export async function prepare(
  task: Task & Tuned,
  most: number,
  inputs: Inputs,
  buffers: Buffers,
  settings: Settings,
  bench: Bench,
): Promise<Measured> {
  const { device, clock, store } = bench;
  const { options, contextPer, kernels, auto } = task;
  const { outputs, method, probes } = options;
  const { network } = inputs;
  const field = await VectorField.create(device, network, { kernels, label: "timed", store });
  const time = async (count: number, repetitions = 1): Promise<number> => {
    const encoded: EncodeOptions = {
      points: buffers.points,
      count,
      context: buffers.context ?? (inputs.context as number | null) ?? undefined,
      value: buffers.value,
      ...(outputs!.includes("divergence") && { divergence: buffers.divergence }),
      method,
      probes,
    };
    const record = (pass: GPUComputePassEncoder): void => {
      for (let repetition = 0; repetition < repetitions; repetition++) field.encode(pass, encoded);
    };
    return (await clock.time(record)) / repetitions;
  };
  const warmTime = async (count: number): Promise<number> => {
    await field.reserve(count, { outputs, method, contextPer, probes });
    await time(count);
    return time(count);
  };
  const points = auto || task.method === "value" ? most : await affordableBy(warmTime, most, settings);
  const milliseconds = await warmTime(points);
  const repetitions = Math.min(MOST_REPETITIONS, Math.max(1, Math.ceil(LEAST_MILLISECONDS / Math.max(milliseconds, 0.01))));

  const x = inputs.points.subarray(0, points * network.stateSize);
  const context = isPerPoint(inputs.context) ? inputs.context.subarray(0, points * network.contextSize) : inputs.context;
  const evaluate = (one: VectorField) => one.evaluate(x, { ...options, context });
  const deviceSamples: number[] = [];
  const wallSamples: number[] = [];
  const sample = async (): Promise<void> => {
    deviceSamples.push(await time(points, repetitions));
    wallSamples.push(await wallTime(() => evaluate(field)));
  };
  const { evaluated, peakBytes } = await evaluateAlone(task, network, evaluate, bench);
  const encoded = await readEncoded(() => time(points), points * network.stateSize, points, buffers, device);
  const compared = compare(inputs, task, points, [evaluated, encoded]);
  return {
    ...task,
    ...compared,
    field,
    points,
    secondsPerPoint: milliseconds / 1000 / points,
    peakBytes,
    deviceSamples,
    wallSamples,
    sample,
  };
}

/** A field of its own shows what the kernels need by themselves. */
async function evaluateAlone(
  { kernels }: Tuned,
  network: Network,
  evaluate: (field: VectorField) => Promise<Results>,
  { device, memory, store }: Bench,
): Promise<{ evaluated: Results; peakBytes: number }> {
  memory.start("alone");
  const field = await VectorField.create(device, network, { kernels, label: "alone", store });
  const evaluated = await evaluate(field);
  field.destroy();
  return { evaluated, peakBytes: memory.peakOf("alone") };
}

/** What `encode` leaves in the buffers, NaN where it leaves nothing. */
async function readEncoded(
  encode: () => Promise<unknown>,
  values: number,
  divergences: number,
  buffers: Buffers,
  device: GPUDevice,
): Promise<Results> {
  device.queue.writeBuffer(buffers.value, 0, new Float32Array(values).fill(NaN));
  device.queue.writeBuffer(buffers.divergence, 0, new Float32Array(divergences).fill(NaN));
  await encode();
  const read = async (buffer: GPUBuffer, length: number): Promise<Float32Array> =>
    new Float32Array(await readBuffer(device, buffer, 4 * length));
  return { value: await read(buffers.value, values), divergence: await read(buffers.divergence, divergences) };
}
