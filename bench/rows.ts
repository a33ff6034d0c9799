import {
  evaluateReference,
  PlanError,
  VectorField,
  type EncodeOptions,
  type EvaluateOptions,
  type Method,
  type Network,
  type Store,
  type Trial,
} from "deldot";
import { labelOf, type Case, type Inputs } from "./cases.js";
import { digits, interleave, readBuffer, statsOf, wallTime, type DeviceClock, type MemoryWatch, type Stats } from "./measure.js";

/** f alone, or f and its divergence by one method. */
export interface Row {
  /** "value" for f alone. */
  readonly method: Method | "value";
  /** Whether it is what `auto` takes. */
  readonly auto: boolean;
  readonly points: number;
  /** Milliseconds of the compute pass. */
  readonly device: Stats;
  /** Milliseconds of `evaluate`: upload, compute, read back. */
  readonly wall: Stats;
  /** Time per point over that of f alone, of the compute passes; measured in the same round. */
  readonly ratio: Stats;
  /** The same of `evaluate`. */
  readonly wallRatio: Stats;
  /** What the plan predicts for the ratio: multiply-adds over those of f alone. */
  readonly predictedRatio: number;
  /** Per point, f's own among them. */
  readonly multiplyAdds: number;
  /** GFLOP/s of the compute pass; a multiply-add counts as two, activations are left out. */
  readonly gflops: number;
  /** Of the compute pass. */
  readonly pointsPerSecond: number;
  /** Bytes, the most of GPU buffers that a fresh field holds at one time from create to the end of one `evaluate`. */
  readonly peakBytes: number;
  /**
   * The worst of a sample of points, of what `evaluate` and `encode` gave: |error of ∇·f| / Σ|∂f_i/∂x_i|; for f alone
   * |error of f_i| / max |f|.
   */
  readonly error: number;
  /** How many points were compared with the float64 reference. */
  readonly compared: number;
  /** The variant that ran. */
  readonly kernels: string;
  /** What the tuning found. */
  readonly trials: readonly Trial[];
  /** Seconds that the tuning took, compilation included. */
  readonly tuneSeconds: number;
}

export interface CaseResult {
  readonly name: string;
  readonly points: number;
  /** In words, as the plan describes it. */
  readonly network: string;
  /** Of f alone, per point. */
  readonly forwardMultiplyAdds: number;
  readonly rows: readonly Row[];
  /** Methods that were left out, and why. */
  readonly skipped: readonly { readonly method: string; readonly reason: string }[];
  /** Bytes of memory of the process, the most until now. */
  readonly residentBytes: number;
}

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

type Options = EvaluateOptions<"value" | "divergence">;

/** f alone, then auto before the others, so that every later one is measured beside what matters most. */
const asked = ["value", "auto", "tangent", "cyclic", "jacobian", "coordinate", "difference", "hutchinson"] as const;
const PROBES = 16;
/** Fewer points than these say nothing about a method. */
const LEAST_POINTS = 16;
/** The timed compute pass repeats the evaluation until it takes so many milliseconds: timestamps may be coarse. */
const LEAST_MILLISECONDS = 10;
const MOST_REPETITIONS = 64;
/** How much longer f alone and auto may be sampled than the others: they are what everything is compared with. */
const IMPORTANCE = 3;
/** Multiply-adds that the float64 reference may spend on one comparison. */
const REFERENCE_WORK = 3e8;

/** Tunes, checks and times f alone and every method on one case. */
export async function measureCase(chosen: Case, count: number, settings: Settings, bench: Bench): Promise<CaseResult> {
  const { device, store, kernels, progress } = bench;
  const inputs = await chosen.make(count);
  const { network, points, context } = inputs;
  const label = labelOf(chosen.name, count);
  const field = await VectorField.create(device, network, { label: "tuned", store, kernels });
  const buffers = makeBuffers(device, inputs, count);
  const skipped: CaseResult["skipped"][number][] = [];
  const measured: Measured[] = [];
  try {
    for (const name of asked) {
      const outputs: Options["outputs"] = name === "value" ? ["value"] : ["value", "divergence"];
      const contextPer = isPerPoint(context) ? "point" : "batch";
      const plan = explain(field, { outputs, contextPer, ...(name !== "value" && { method: name }), probes: PROBES });
      if ("reason" in plan) {
        if (settings.methods.test(name)) skipped.push({ method: name, reason: plan.reason });
        continue;
      }
      const wanted = name === "value" || settings.methods.test(name) || (name === "auto" && settings.methods.test(plan.method));
      if (!wanted || measured.some(({ method }) => method === plan.method)) continue;
      const f = measured[0];
      const guess = f && name !== "auto" ? affordable(count, f.secondsPerPoint * plan.predictedRatio, settings) : count;
      if (guess === 0) {
        const seconds = LEAST_POINTS * f!.secondsPerPoint * plan.predictedRatio;
        skipped.push({ method: name, reason: `${LEAST_POINTS} points would take ${digits(seconds)} s` });
        continue;
      }
      const options: Options = {
        outputs,
        context,
        ...(name !== "value" && { method: plan.method as Method }),
        ...(plan.method === "hutchinson" && { probes: PROBES }),
      };
      progress(`${label}: tuning ${plan.method}`);
      const task = { ...plan, auto: name === "auto", options, contextPer } as const;
      const tuned = await tune(field, task, guess);
      progress(`${label}: checking ${plan.method} with ${tuned.kernels}`);
      measured.push(await prepare({ ...task, ...tuned }, count, inputs, buffers, settings, bench));
    }
    progress(`${label}: timing ${measured.map(({ method }) => method).join(", ")}`);
    const budgetOf = ({ auto, method }: Measured): number =>
      1000 * settings.secondsPerMethod * (auto || method === "value" ? IMPORTANCE : 1);
    await interleave(
      measured.map((one) => ({ sample: one.sample, budget: budgetOf(one) })),
      settings.repeats,
    );
  } finally {
    for (const one of [field, ...measured.map((row) => row.field)]) one.destroy();
    for (const buffer of Object.values(buffers)) buffer?.destroy();
  }
  const explanation = field.explain();
  return {
    name: chosen.name,
    points: points.length / network.stateSize,
    network: explanation.network,
    forwardMultiplyAdds: explanation.forwardMultiplyAdds,
    rows: measured.map((one) => rowOf(one, measured[0]!)),
    skipped,
    residentBytes: process.resourceUsage().maxRSS * 1024,
  };
}

interface Planned {
  readonly method: Method | "value";
  readonly forwardMultiplyAdds: number;
  readonly multiplyAdds: number;
  readonly predictedRatio: number;
}

function explain(field: VectorField, options: Parameters<VectorField["explain"]>[0]): Planned | { readonly reason: string } {
  try {
    const { method, forwardMultiplyAdds, candidates } = field.explain(options);
    const own = candidates.find((candidate) => candidate.chosen)?.multiplyAdds ?? 0;
    const multiplyAdds = forwardMultiplyAdds + own;
    return { method, forwardMultiplyAdds, multiplyAdds, predictedRatio: multiplyAdds / Math.max(1, forwardMultiplyAdds) };
  } catch (error) {
    if (error instanceof PlanError) return { reason: error.message };
    throw error;
  }
}

/** How many of `count` points a sample may take; 0 where even the fewest take far too long. */
function affordable(count: number, secondsPerPoint: number, { secondsPerSample }: Settings): number {
  const most = Math.floor(secondsPerSample / secondsPerPoint);
  if (most >= count) return count;
  const least = Math.min(count, LEAST_POINTS);
  if (most >= least) return most >= 64 ? most - (most % 64) : most;
  return least * secondsPerPoint <= 4 * secondsPerSample ? least : 0;
}

interface Buffers {
  readonly points: GPUBuffer;
  readonly context: GPUBuffer | null;
  readonly value: GPUBuffer;
  readonly divergence: GPUBuffer;
}

function makeBuffers(device: GPUDevice, { network, points, context }: Inputs, count: number): Buffers {
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

/** One row's work. */
interface Task extends Planned {
  readonly auto: boolean;
  readonly options: Options;
  readonly contextPer: "point" | "batch";
}

interface Tuned {
  readonly kernels: string;
  readonly trials: readonly Trial[];
  readonly tuneSeconds: number;
}

/** A row that is ready to be sampled. */
interface Measured extends Task, Tuned {
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

async function tune(field: VectorField, { options, contextPer }: Task, count: number): Promise<Tuned> {
  const { outputs, method, probes } = options;
  let trials: readonly Trial[] = [];
  const milliseconds = await wallTime(async () => (trials = await field.tune(count, { outputs, method, contextPer, probes })));
  return { kernels: trials.find(({ chosen }) => chosen)!.kernels, trials, tuneSeconds: milliseconds / 1000 };
}

/** Fixes the kernels, finds out how many points a sample may have, and compares results with the reference. */
async function prepare(
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
  const reserve = (count: number): Promise<void> => field.reserve(count, { outputs, method, contextPer, probes });

  let points = most;
  if (!auto && task.method !== "value") {
    let probe = Math.min(most, LEAST_POINTS);
    for (;;) {
      await reserve(probe);
      await time(probe);
      points = affordable(most, (await time(probe)) / 1000 / probe, settings) || Math.min(most, LEAST_POINTS);
      if (points <= 4 * probe || probe === most) break;
      probe = Math.min(most, 4 * probe);
    }
  }
  await reserve(points);
  await time(points);
  const milliseconds = await time(points);
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
    new Float32Array((await readBuffer(device, buffer, 4 * length)).buffer);
  return { value: await read(buffers.value, values), divergence: await read(buffers.divergence, divergences) };
}

interface Results {
  readonly value?: Float32Array;
  readonly divergence?: Float32Array;
}

const isPerPoint = (context: Inputs["context"]): context is Float32Array => typeof context === "object" && context !== null;

/** Compares some points, spread evenly, with the float64 reference. */
function compare(
  { network, points, context }: Inputs,
  { forwardMultiplyAdds, method }: Task,
  count: number,
  results: readonly Results[],
): { error: number; compared: number } {
  const { stateSize: d, contextSize: c } = network;
  // The reference pushes d tangents through the layers.
  const cost = forwardMultiplyAdds * (method === "value" ? 1 : 1 + d);
  const compared = Math.min(count, Math.max(4, Math.min(256, Math.floor(REFERENCE_WORK / cost))));
  const picked = Array.from({ length: compared }, (_, i) => Math.round((i * (count - 1)) / Math.max(1, compared - 1)));
  const pick = (data: Float32Array, width: number): Float32Array =>
    Float32Array.from(picked.flatMap((row) => Array.from(data.subarray(row * width, (row + 1) * width))));
  const outputs = method === "value" ? (["value"] as const) : (["value", "diagonal"] as const);
  const truth = evaluateReference(network, pick(points, d), {
    outputs,
    context: isPerPoint(context) ? pick(context, c) : context,
  });
  const scale = truth.value!.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  let error = 0;
  // A NaN must not get lost in a maximum.
  const note = (value: number): void => void (error = value <= error ? error : value);
  for (const { value, divergence } of results)
    picked.forEach((row, index) => {
      const diagonal = truth.diagonal?.subarray(index * d, (index + 1) * d);
      if (!diagonal) for (let i = 0; i < d; i++) note(Math.abs(value![row * d + i]! - truth.value![index * d + i]!) / scale);
      else note(Math.abs(divergence![row]! - diagonal.reduce((a, b) => a + b, 0)) / diagonal.reduce((a, b) => a + Math.abs(b), 0));
    });
  return { error, compared };
}

function rowOf(measured: Measured, f: Measured): Row {
  const { method, auto, points, predictedRatio, multiplyAdds, peakBytes, error, compared, kernels, trials, tuneSeconds } = measured;
  const ratios = (own: readonly number[], alone: readonly number[]): Stats =>
    statsOf(own.map((milliseconds, round) => milliseconds / points / (alone[round]! / f.points)));
  const device = statsOf(measured.deviceSamples);
  return {
    method,
    auto,
    points,
    device,
    wall: statsOf(measured.wallSamples),
    ratio: ratios(measured.deviceSamples, f.deviceSamples),
    wallRatio: ratios(measured.wallSamples, f.wallSamples),
    predictedRatio,
    multiplyAdds,
    gflops: (2 * multiplyAdds * points) / device.median / 1e6,
    pointsPerSecond: (1000 * points) / device.median,
    peakBytes,
    error,
    compared,
    kernels,
    trials,
    tuneSeconds,
  };
}
