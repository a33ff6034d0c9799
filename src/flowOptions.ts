import { InputError, quote } from "./errors.js";
import type { VectorFieldOptions } from "./fieldOptions.js";
import {
  checkCount,
  checkObject,
  readBatch,
  readBuffer,
  readContext,
  readEncodeContext,
  type BatchInput,
  type BufferRows,
  type ContextInput,
  type RunOptions,
} from "./inputs.js";
import type { Network } from "./model/network.js";
import { mixBits } from "./mixBits.js";
import { allocate } from "./rows.js";
import type { Stepping } from "./ode/paths.js";
import { solvers, tableaus, type Solver, type Status } from "./ode/tableaus.js";
import type { OuterName, OuterRows } from "./schedule/steps.js";
import type { Doubles, Floats } from "./typedArrays.js";

/** The distribution at noise. */
export interface Base {
  /** log p of points [B, d], B numbers. */
  readonly logProb: (points: Float32Array | Float64Array) => ArrayLike<number>;
  /** As many points of it, [count, d], a function of the seed. */
  readonly sample: (count: number, seed: number) => Float32Array;
}

/** Between which times a field carries which distribution. */
export interface FlowTimes {
  /** The time at which points are noise. Default 0. */
  readonly noiseAt?: number | undefined;
  /** The time at which they are data. Default 1. */
  readonly dataAt?: number | undefined;
  /** Which column of the context is time, the others being a condition; null: none is. Default the only one; to be named where several are. */
  readonly timeColumn?: number | null | undefined;
  /** What noise is distributed as. Default the standard normal distribution. */
  readonly base?: "normal" | Base | undefined;
}

/** What `Flow.create` takes beside device and network. */
export interface FlowOptions extends FlowTimes, VectorFieldOptions {}

/** An estimate of the divergence along a path. */
export interface Estimate {
  /** Hutchinson's. */
  readonly method: "hutchinson";
  /** Of each point, one set for its whole path. Default 16. */
  readonly probes?: number | undefined;
  /** Any 32-bit integer. Default 0. */
  readonly seed?: number | undefined;
}

/** How a path is integrated. */
export interface SolveOptions extends RunOptions {
  /** Default "tsit5". Those without error control ("euler", "midpoint", "heun", "rk4") need `steps`. */
  readonly solver?: Solver | undefined;
  /** How large an error a step may make, beside |x| and |∫∇·f dt|. Default 1e-5; where f is computed in float64, 1e-9. */
  readonly rtol?: number | undefined;
  /** The same where they are small. Default as rtol. */
  readonly atol?: number | undefined;
  /** So many steps of one size, without error control; with `times`, from each to the next. */
  readonly steps?: number | undefined;
  /** After so many tries of a step with error control a point is given up. Default 4096. */
  readonly maxSteps?: number | undefined;
  /** The context but for time: one vector for all points, or one per point. */
  readonly condition?: ContextInput | null | undefined;
  /** "exact", the default, by the cheapest exact plan; or Hutchinson's estimate, with one set of probes for a whole path. */
  readonly divergence?: "exact" | Estimate | undefined;
}

/** How the paths of points went. */
export interface PathEnds {
  /** How often f was evaluated for each point, [...shape]. */
  readonly evaluations: Uint32Array;
  /** How the path of each point ended. */
  readonly status: readonly Status[];
}

/** What `flow.logProb` gives, and logProbReference. */
export interface LogProb<A = Float32Array> extends PathEnds {
  /** log p(x), [...shape], in nats; NaN where the path did not get to its end. */
  readonly logProb: Float64Array;
  /** Where the points come from, [...shape, d]; NaN as log p. */
  readonly base: A;
  /** The leading batch shape of the points. */
  readonly shape: readonly number[];
}

/** What `flow.transport` gives, and transportReference. */
export interface Transport<A = Float32Array> extends PathEnds {
  /** Where the points have got to, [...shape, d]; NaN where the path did not get to its end. */
  readonly points: A;
  /** ∫ ∇·f dt along the path, [...shape]; NaN as the points. */
  readonly divergenceIntegral: Float64Array;
  /** The leading batch shape of the points. */
  readonly shape: readonly number[];
  /** With `times`, the points at each of them, [T, ...shape, d]. */
  readonly path?: A;
}

/** What `flow.sample` gives. */
export interface Samples<A = Float32Array> extends PathEnds {
  /** [count, d]; NaN where the path did not get to its end. */
  readonly points: A;
  /** log p of each, [count], in nats. */
  readonly logProb: Float64Array;
}

/** What `flow.score` gives. */
export interface Score<A = Float32Array> {
  /** ∇ log p(x), [...shape, d]; NaN where the path did not get to its end. */
  readonly score: A;
  /** How the path of each point ended. */
  readonly status: readonly Status[];
  /** The leading batch shape of the points. */
  readonly shape: readonly number[];
}

/** What `flow.sample` is asked for. */
export interface SampleOptions extends SolveOptions {
  /** Of the noise; the same seed gives the same noise on every device. Default 0. */
  readonly seed?: number | undefined;
}

/** What `flow.transport` is asked for. */
export interface TransportOptions extends SolveOptions {
  /** The time that the points have. Default noiseAt. */
  readonly from?: number | undefined;
  /** The time that they get to. Default dataAt. */
  readonly to?: number | undefined;
  /** Times on the way, in its order, at which the points are wanted too. */
  readonly times?: ArrayLike<number> | undefined;
}

/** Times and base, checked. */
export interface FlowSettings {
  readonly noiseAt: number;
  readonly dataAt: number;
  readonly timeColumn: number | null;
  readonly base: "normal" | Base;
}

/** @throws InputError. */
export function readFlowTimes({ contextSize }: Network, options: FlowTimes): FlowSettings {
  checkObject("options", options);
  const { noiseAt = 0, dataAt = 1, base = "normal" } = options;
  for (const [name, time] of Object.entries({ noiseAt, dataAt }))
    if (typeof time !== "number" || !Number.isFinite(Math.fround(time)))
      throw new InputError(`${name} is ${quote(time)}; expected a finite number`);
  if (noiseAt === dataAt) throw new InputError(`noiseAt and dataAt are both ${noiseAt}; expected two times`);
  readTimes(noiseAt, dataAt, undefined);
  const timeColumn = options.timeColumn === undefined ? defaultColumn(contextSize) : options.timeColumn;
  if (timeColumn !== null && !(Number.isInteger(timeColumn) && timeColumn >= 0 && timeColumn < contextSize))
    throw new InputError(`timeColumn is ${quote(timeColumn)}; expected null or a column of the context, of which there are ${contextSize}`);
  if (base !== "normal" && (typeof base?.logProb !== "function" || typeof base.sample !== "function"))
    throw new InputError(`base is ${quote(base)}; expected "normal" or an object with logProb and sample`);
  return { noiseAt, dataAt, timeColumn, base };
}

function defaultColumn(contextSize: number): number | null {
  if (contextSize === 0) return null;
  if (contextSize === 1) return 0;
  throw new InputError(`the context has ${contextSize} columns; expected timeColumn to name the one that is time, or null`);
}

/** rtol and atol where none is given, by what f is computed in. */
export const TOLERANCE = { float32: 1e-5, float64: 1e-9 } as const;

/** How a path is integrated, checked. */
export interface SolveSettings extends Stepping {
  readonly divergence:
    | "exact"
    | { readonly method: "hutchinson"; readonly probes?: number | undefined; readonly seed?: number | undefined };
}

/**
 * @param tolerance rtol and atol where none is given.
 * @throws InputError.
 */
export function readSolveOptions(options: Omit<SolveOptions, "condition">, tolerance: number = TOLERANCE.float32): SolveSettings {
  checkObject("options", options);
  const { solver = "tsit5", rtol = tolerance, atol = tolerance, steps = null, maxSteps = 4096, divergence = "exact" } = options;
  if (!solvers.includes(solver))
    throw new InputError(`solver is ${quote(solver)}; expected one of ${solvers.map((name) => quote(name)).join(", ")}`);
  for (const [name, tolerance] of Object.entries({ rtol, atol }))
    if (!(typeof tolerance === "number" && Math.fround(tolerance) > 0 && Math.fround(tolerance) < Infinity))
      throw new InputError(`${name} is ${quote(tolerance)}; expected a positive number in float32`);
  for (const [name, number] of Object.entries({ ...(steps !== null && { steps }), maxSteps }))
    if (!(Number.isInteger(number) && number > 0 && number <= 2 ** 24))
      throw new InputError(`${name} is ${quote(number)}; expected a whole number from 1 to 2^24`);
  if (steps === null && tableaus[solver].error === null) throw new InputError(`solver "${solver}" has no error control; expected steps`);
  if (divergence !== "exact" && (typeof divergence !== "object" || divergence?.method !== "hutchinson"))
    throw new InputError(`divergence is ${quote(divergence)}; expected "exact" or { method: "hutchinson", probes, seed }`);
  const other = Object.keys(divergence === "exact" ? {} : divergence).find((key) => !["method", "probes", "seed"].includes(key));
  if (other !== undefined) throw new InputError(`divergence has ${quote(other)}; expected method, probes and seed alone`);
  return { solver, rtol, atol, steps, maxSteps, divergence: divergence === "exact" ? divergence : { ...divergence } };
}

/** The ends of the parts of a path. @throws InputError. */
export function readTimes(from: unknown, to: unknown, times: unknown): readonly number[] {
  if (times !== undefined && (typeof times !== "object" || times === null || !("length" in times)))
    throw new InputError(`times is ${quote(times)}; expected an array of numbers`);
  const isTime = (time: unknown): boolean => typeof time === "number" && Number.isFinite(Math.fround(time));
  for (const [name, time] of Object.entries({ from, to }))
    if (!isTime(time)) throw new InputError(`${name} is ${quote(time)}; expected a finite number`);
  const all = [from, ...Array.from((times ?? []) as ArrayLike<unknown>), to];
  if (!all.every(isTime)) throw new InputError(`times is ${quote(times)}; expected finite numbers`);
  const numbers = all as number[];
  const [begin, end] = [numbers[0]!, numbers.at(-1)!];
  if (numbers.some((time, i) => i > 0 && (end >= begin ? time < numbers[i - 1]! : time > numbers[i - 1]!)))
    throw new InputError(`the times from, times and to are ${numbers.join(", ")}; expected them in the order of the way`);
  if (!Number.isFinite(Math.fround(end - begin)))
    throw new InputError(`the times from and to are ${begin} and ${end}; expected them less than 3e38 apart`);
  return numbers.slice(1);
}

/** Points, and the contexts of the condition with 0 where time goes. */
export interface FlowInputs {
  readonly count: number;
  /** The leading batch shape of the points. */
  readonly shape: readonly number[];
  /** [count, d] */
  readonly points: Doubles;
  /** [1 or count, c]; null where the network takes none. */
  readonly context: Doubles | null;
}

/** @throws InputError where points or condition do not fit the network. */
export function readFlowInputs(
  { stateSize, contextSize }: Network,
  timeColumn: number | null,
  points: BatchInput,
  condition: ContextInput | null | undefined,
): FlowInputs {
  const { data, count, shape } = readBatch(points, stateSize, "points");
  const width = contextSize - (timeColumn === null ? 0 : 1);
  const conditions = readContext(condition, width, count, "condition");
  const given = { count, shape, points: new Float64Array(data) };
  if (contextSize === 0) return { ...given, context: null };
  const rows = conditions && !conditions.shared ? count : 1;
  const context = new Float64Array(rows * contextSize);
  for (let row = 0; row < rows; row++)
    for (let column = 0, from = row * width; column < contextSize; column++)
      if (column !== timeColumn) context[row * contextSize + column] = conditions!.data[from++]!;
  return { ...given, context };
}

/** log p of noise [count, d]; NaN where it is. */
export function baseLogProb(base: "normal" | Base, points: Float32Array | Float64Array, d: number): Float64Array {
  if (base !== "normal") {
    const given: ArrayLike<number> | undefined = base.logProb(points);
    if (given?.length !== points.length / d)
      throw new InputError(`base.logProb gives ${quote(given?.length)} numbers; expected ${points.length / d}, one for each point`);
    return Float64Array.from(given);
  }
  const logs = new Float64Array(points.length / d);
  for (let point = 0; point < logs.length; point++) {
    let squares = 0;
    for (let i = point * d; i < (point + 1) * d; i++) squares += points[i]! * points[i]!;
    logs[point] = -(squares + d * Math.log(2 * Math.PI)) / 2;
  }
  return logs;
}

/**
 * A normal distribution of mean 0 and a standard deviation of its own, as `base` of a flow: of variance exploding diffusion and EDM noise
 * has the largest σ of the schedule.
 * @param d how many components a point has.
 * @throws InputError where one is not positive.
 */
export function normalBase(d: number, deviation: number): Base {
  if (!(Number.isInteger(d) && d >= 1)) throw new InputError(`d is ${quote(d)}; expected a whole number of at least 1`);
  if (!(typeof deviation === "number" && deviation > 0 && deviation < Infinity))
    throw new InputError(`the standard deviation is ${quote(deviation)}; expected a positive number`);
  return {
    logProb: (points) =>
      baseLogProb(
        "normal",
        points.map((x) => x / deviation),
        d,
      ).map((log) => log - d * Math.log(deviation)),
    sample: (count, seed) => sampleBase("normal", count, d, seed).map((x) => x * deviation),
  };
}

/** The noise of samples, [count, d]. @throws InputError; LimitError where it is too much. */
export function readNoise(base: "normal" | Base, count: number, d: number, { seed = 0 }: SampleOptions): Float32Array {
  checkCount(count, 0);
  if (!Number.isInteger(seed)) throw new InputError(`seed is ${quote(seed)}; expected a whole number`);
  return sampleBase(base, count, d, seed);
}

function sampleBase(base: "normal" | Base, count: number, d: number, seed: number): Float32Array {
  if (base !== "normal") {
    const given: Float32Array | undefined = base.sample(count, seed);
    if (given?.length !== count * d)
      throw new InputError(`base.sample gives ${quote(given?.length)} numbers; expected ${count * d}, ${d} for each of ${count} points`);
    return given;
  }
  const [one, other] = [mixBits(seed), mixBits(~seed)];
  const noise = allocate("noise", count, d);
  for (let index = 0; index < noise.length; index++) {
    // Box and Muller, by two words of a counter-based generator: number `index` is a function of it and of the seed alone.
    const [a, b] = [mixBits(mixBits(one + index) ^ 0x9e3779b9), mixBits(mixBits(other + index) ^ 0x85ebca6b)];
    noise[index] = Math.sqrt(-2 * Math.log((a + 0.5) / 2 ** 32)) * Math.cos((2 * Math.PI * (b + 0.5)) / 2 ** 32);
  }
  return noise;
}

/** What a path in the caller's buffers is recorded from, all float32 with usage STORAGE. */
export interface EncodePathOptions extends Omit<SolveOptions, "condition" | "onProgress" | "signal" | "rtol" | "atol" | "maxSteps"> {
  /** [count, d], stride d unless given. */
  readonly points: BufferRows;
  /** How many points. */
  readonly count: number;
  /** How many steps of one size. */
  readonly steps: number;
  /** The context but for time: [count, columns] in a buffer (a stride of 0: one row for all), or one vector for all points. */
  readonly condition?: BufferRows | number | ArrayLike<number> | undefined;
}

/** @throws InputError where a buffer is missing, of the wrong usage or too small. */
export function readPathBuffers(
  { stateSize, contextSize }: Network,
  timeColumn: number | null,
  options: EncodePathOptions,
  results: Partial<Record<OuterName, BufferRows | undefined>>,
  upload: (name: string, numbers: Floats) => GPUBuffer,
): { readonly rows: Partial<Record<OuterName, OuterRows>>; readonly buffers: Partial<Record<OuterName, GPUBuffer>> } {
  const { count, points, condition } = options;
  checkCount(count, 0);
  const rows: Partial<Record<OuterName, OuterRows>> = {};
  const buffers: Partial<Record<OuterName, GPUBuffer>> = {};
  const add = (name: OuterName, what: string, given: BufferRows, width: number): void => {
    const { buffer, offset, stride } = readBuffer(what, given, width, count);
    rows[name] = { offset, stride };
    buffers[name] = buffer;
  };
  if (points === undefined) throw new InputError("points is missing; expected a GPUBuffer or { buffer, offset, stride }");
  add("points", "points", points, stateSize);
  const width = contextSize - (timeColumn === null ? 0 : 1);
  const read = readEncodeContext(condition, width);
  if (read && "rows" in read) add("context", "context", read.rows, width);
  else if (read) add("context", "context", { buffer: upload("condition", read.numbers), stride: 0 }, width);
  const given = Object.entries(results).filter(([, result]) => result !== undefined) as [OuterName, BufferRows][];
  if (given.length === 0)
    throw new InputError(`no result buffer was given; expected at least one for the ${Object.keys(results).join(", ")}`);
  for (const [name, result] of given) add(name, `the ${name}`, result, name === "end points" ? stateSize : 1);
  return { rows, buffers };
}
