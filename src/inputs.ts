/** All that a caller hands in, checked once, before any work is done. */
import { InputError, quote } from "./errors.js";
import type { Network } from "./model/network.js";
import type { Bytes, Floats } from "./typedArrays.js";

/** Points, tangents or contexts [B, width]: flat and row-major, or with any leading batch shape in `shape`. */
export type BatchInput =
  | Float32Array
  | Float64Array
  | readonly number[]
  | {
      /** As many numbers as the shape holds, row-major. */
      readonly data: Float32Array | Float64Array | readonly number[];
      /** Any batch shape, then the size of one vector: [..., width]. */
      readonly shape: readonly number[];
    };

/** What the results of a network are weighed with: L = Σ_b (value_b · f(x_b) + divergence_b ∇·f(x_b)). At least one is given. */
export interface Cotangents {
  /** ∂L/∂f(x_b), [B, d]. Default none. */
  readonly value?: BatchInput | null | undefined;
  /** ∂L/∂(∇·f(x_b)): [B], or one number for all points. Default none. */
  readonly divergence?: BatchInput | number | null | undefined;
}

/** What a gradient may be taken for. */
export type Wrt = "points" | "context" | "parameters";

/** @throws InputError where there is none, or one does not fit the points. */
export function readCotangents(
  given: Cotangents,
  stateSize: number,
  count: number,
): { value: Batch | null; divergence: DivergenceCotangent | null } {
  checkObject("cotangents", given);
  const value = given.value == null ? null : readBatch(given.value, stateSize, "the cotangent of value");
  if (value && value.count !== count)
    throw new InputError(`the cotangent of value has ${value.count} vectors of ${stateSize}; expected ${count}, one per point`);
  const weights = given.divergence == null ? null : given.divergence;
  if (value === null && weights === null) throw new InputError("cotangents has neither value nor divergence; expected at least one");
  if (weights === null || typeof weights === "number")
    return { value, divergence: weights === null ? null : { data: [weights], shared: true } };
  const { data } = readShaped(weights, "the cotangent of divergence");
  if (data.length !== count)
    throw new InputError(`the cotangent of divergence has ${data.length} numbers; expected ${count}, one per point, or one number`);
  return { value, divergence: { data, shared: false } };
}

/** ∂L/∂(∇·f): a number for each point, or one for all. */
export interface DivergenceCotangent {
  readonly data: Batch["data"];
  readonly shared: boolean;
}

const WRT: readonly Wrt[] = ["points", "context", "parameters"];

/** @throws InputError where something else is asked for. */
export function readWrt(given: readonly Wrt[] | undefined, contextSize: number, what = "wrt"): readonly Wrt[] {
  const wrt = given ?? ["points"];
  if (!Array.isArray(wrt) || wrt.length === 0 || !wrt.every((each) => WRT.includes(each)))
    throw new InputError(`${what} is ${quote(wrt)}; expected a list out of ${WRT.map((each) => quote(each)).join(", ")}`);
  if (contextSize === 0 && wrt.includes("context")) throw new InputError(`${what} has "context"; the network takes none`);
  return WRT.filter((each) => wrt.includes(each));
}

/** One vector for all points (a number where it has one component), or one per point. */
export type ContextInput = number | BatchInput;

/** How a call reports and how it is stopped. */
export interface RunOptions {
  /** Called after each chunk with the number of points done and their total. */
  readonly onProgress?: ((progress: { done: number; total: number }) => void) | undefined;
  /** Stops the call between two submissions; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** A buffer of the caller: rows begin at `offset` bytes (a multiple of 4) and are `stride` floats apart. */
export type BufferRows =
  | GPUBuffer
  | {
      /** On the field's device, with usage STORAGE. */
      readonly buffer: GPUBuffer;
      /** Where the first row begins, in bytes, a multiple of 4; default 0. */
      readonly offset?: number | undefined;
      /** From the start of a row to the next, in floats; default the width of a row. */
      readonly stride?: number | undefined;
    };

/** Rows of numbers as the caller gave them. */
export interface Batch {
  readonly data: Float32Array | Float64Array | readonly number[];
  readonly count: number;
  /** The leading batch shape; [count] for a flat array. */
  readonly shape: readonly number[];
}

/** A context: one row for all points, or one per point. */
export interface Contexts {
  readonly data: Float32Array | Float64Array | readonly number[];
  readonly shared: boolean;
  /**
   * Where runs of points with one context begin, the first at 0, where they are long enough to be evaluated run by run,
   * each with a shared context; null where every point stands for itself.
   */
  readonly runs: readonly number[] | null;
}

/** Everything that a call reads: a copy in float32 of what the caller gave, so that nothing done to that later is seen. */
export interface Inputs {
  readonly count: number;
  /** The leading batch shape of the points. */
  readonly shape: readonly number[];
  readonly stateSize: number;
  readonly contextSize: number;
  /** [count, d]; in all of these numbers that are not finite stand as 0, so that no driver meets them. */
  readonly points: Floats;
  /** [1 or count, c]; null where the network takes none. */
  readonly context: { readonly data: Floats; readonly shared: boolean; readonly runs: readonly number[] | null } | null;
  /** [count, d]; null where none are given. */
  readonly tangents: Floats | null;
  /** ∂L/∂f [count, d], and ∂L/∂(∇·f) [1 or count]; null where none are given. */
  readonly valueCotangent: Floats | null;
  readonly divergenceCotangent: { readonly data: Floats; readonly shared: boolean } | null;
  /** [count]: 1 where a point, its context, its tangent or a cotangent holds a NaN or an infinity, after rounding to float32. */
  readonly nonFinite: Bytes;
}

/**
 * Reads and copies points, context, tangents and cotangents.
 * @throws InputError where one does not fit the network or the others.
 */
export function readInputs(
  { stateSize, contextSize }: Network,
  points: BatchInput,
  context: ContextInput | null | undefined,
  tangents: BatchInput | null,
  cotangents: Cotangents | null = null,
): Inputs {
  const batch = readBatch(points, stateSize, "points");
  const { count, shape } = batch;
  const directions = tangents === null ? null : readBatch(tangents, stateSize, "tangents");
  if (directions && directions.count !== count)
    throw new InputError(`tangents has ${directions.count} vectors of ${stateSize}; expected ${count}, one per point`);
  const contexts = readContext(context, contextSize, count);
  const weights = cotangents && readCotangents(cotangents, stateSize, count);
  const nonFinite = new Uint8Array(count);
  return {
    count,
    shape,
    stateSize,
    contextSize,
    points: copyFinite(batch.data, count, nonFinite),
    context: contexts && { ...contexts, data: copyFinite(contexts.data, contexts.shared ? 1 : count, nonFinite) },
    tangents: directions && copyFinite(directions.data, count, nonFinite),
    valueCotangent: (weights?.value ?? null) && copyFinite(weights!.value!.data, count, nonFinite),
    divergenceCotangent: (weights?.divergence ?? null) && {
      ...weights!.divergence!,
      data: copyFinite(weights!.divergence!.data, weights!.divergence!.shared ? 1 : count, nonFinite),
    },
    nonFinite,
  };
}

/** A copy in float32 with 0 for what is not finite there; the points of such rows are marked, all of them where one row is for all. */
function copyFinite(numbers: Batch["data"], rows: number, nonFinite: Uint8Array): Floats {
  const data = new Float32Array(numbers);
  if (areFinite(data)) return data;
  const width = data.length / rows;
  for (const [index, value] of data.entries()) {
    if (Number.isFinite(value)) continue;
    data[index] = 0;
    if (rows === 1) nonFinite.fill(1);
    else nonFinite[Math.floor(index / width)] = 1;
  }
  return data;
}

/** A number times 0 is 0, unless it is a NaN or an infinity; four sums at a time take less than half as long as tests. */
function areFinite(data: Float32Array): boolean {
  const zero = 0;
  let [a, b, c, d] = [0, 0, 0, 0];
  const whole = data.length - (data.length % 4);
  for (let i = 0; i < whole; i += 4) {
    a += zero * data[i]!;
    b += zero * data[i + 1]!;
    c += zero * data[i + 2]!;
    d += zero * data[i + 3]!;
  }
  for (let i = whole; i < data.length; i++) a += zero * data[i]!;
  return a + b + c + d === 0;
}

/** Shorter runs, on the average, are not worth a chunk of their own. */
const LEAST_RUN = 4096;

/** Reads [B, width]. @throws InputError where the length is not a multiple of the width, or the shape does not fit. */
export function readBatch(given: BatchInput, width: number, what: string): Batch {
  const { data, shape } = readShaped(given, what);
  if (shape) {
    if (shape.at(-1) !== width)
      throw new InputError(`${what} has the shape [${shape.join(", ")}]; expected the last dimension to be ${width}`);
    return { data, count: data.length / width, shape: shape.slice(0, -1) };
  }
  if (data.length % width !== 0) throw new InputError(`${what} has ${data.length} numbers; expected a multiple of ${width}`);
  return { data, count: data.length / width, shape: [data.length / width] };
}

/** Reads the context of `count` points; null where the network takes none. @throws InputError where it does not fit. */
export function readContext(given: ContextInput | null | undefined, width: number, count: number, what = "context"): Contexts | null {
  if (width === 0) {
    if (given === undefined || given === null || (typeof given === "object" && "length" in given && given.length === 0)) return null;
    throw new InputError(`${what} is ${quote(given)}; the network takes none`);
  }
  const expected = `one vector of ${width} number${width > 1 ? "s" : ""} for all points, or one for each of the ${count} points`;
  if (given === undefined || given === null) throw new InputError(`${what} is missing; expected ${expected}`);
  if (typeof given === "number") {
    if (width !== 1) throw new InputError(`${what} is the number ${given}; expected ${expected}`);
    return { data: [given], shared: true, runs: [0] };
  }
  const { data, shape } = readShaped(given, what);
  if (shape && shape.at(-1) !== width) throw new InputError(`${what} has the shape [${shape.join(", ")}]; expected ${expected}`);
  if (data.length === width) return { data, shared: true, runs: [0] };
  if (data.length === width * count) return { data, shared: false, runs: runsOf(data, width, count) };
  throw new InputError(`${what} has ${data.length} numbers; expected ${expected}`);
}

function runsOf(data: Batch["data"], width: number, count: number): number[] | null {
  const starts = [0];
  for (let point = 1; point < count; point++)
    for (let i = 0; i < width; i++)
      if (data[point * width + i] !== data[(point - 1) * width + i]) {
        starts.push(point);
        if (starts.length * LEAST_RUN > count) return null;
        break;
      }
  return starts.length * LEAST_RUN <= count ? starts : null;
}

function readShaped(given: BatchInput, what: string): { data: Batch["data"]; shape: readonly number[] | null } {
  if (isNumbers(given)) return { data: checkNumbers(given, what), shape: null };
  if (
    given === null ||
    typeof given !== "object" ||
    !("data" in given) ||
    !("shape" in given) ||
    !isNumbers(given.data) ||
    !Array.isArray(given.shape)
  )
    throw new InputError(`${what} is ${quote(given)}; expected a Float32Array, a Float64Array, an array of numbers, or { data, shape }`);
  const { data, shape } = given;
  const size = shape.reduce((product: number, n: number) => product * n, 1);
  if (shape.length === 0 || !shape.every((n: number) => Number.isInteger(n) && n >= 0) || size !== data.length)
    throw new InputError(`${what} has ${data.length} numbers in the shape [${shape.join(", ")}]; expected as many as the shape holds`);
  return { data: checkNumbers(data, what), shape };
}

function isNumbers(given: unknown): given is Batch["data"] {
  return given instanceof Float32Array || given instanceof Float64Array || Array.isArray(given);
}

function checkNumbers(data: Batch["data"], what: string): Batch["data"] {
  if (!Array.isArray(data)) {
    if (isDetached(data as Float32Array | Float64Array))
      throw new InputError(`${what} lies in an ArrayBuffer that is detached, or too short for it; expected numbers`);
    return data;
  }
  const bad = data.findIndex((value) => typeof value !== "number");
  if (bad >= 0) throw new InputError(`${what} holds ${quote(data[bad])} at position ${bad}; expected numbers, flat and row-major`);
  return data;
}

/** An array in a buffer that was transferred elsewhere, or has become too short for it, looks like an empty one. */
function isDetached(data: Float32Array | Float64Array): boolean {
  if (data.length > 0) return false;
  try {
    data.at(0);
    return false;
  } catch {
    return true;
  }
}

/** @throws InputError for a bad option; the signal's reason where it is aborted already. */
export function startRun({ onProgress, signal }: RunOptions): void {
  if (onProgress !== undefined && typeof onProgress !== "function")
    throw new InputError(`onProgress is ${quote(onProgress)}; expected a function`);
  if (signal !== undefined && typeof signal?.throwIfAborted !== "function")
    throw new InputError(`signal is ${quote(signal)}; expected an AbortSignal`);
  signal?.throwIfAborted();
}

/** A copy of a call's options: what becomes of the caller's own while the call runs is not seen. */
export function ownOptions<T extends object>(options: T): T {
  checkObject("options", options);
  return { ...options };
}

export function checkObject(name: string, given: unknown): void {
  if (typeof given !== "object" || given === null) throw new InputError(`${name} is ${quote(given)}; expected an object`);
}

/** @throws InputError where it is no whole number of points, at least `least`. */
export function checkCount(count: number | undefined, least: 0 | 1, what = "count"): void {
  if (!Number.isInteger(count) || count! < least)
    throw new InputError(`${what} is ${quote(count)}; expected a whole number of points${least > 0 ? ", at least 1" : ""}`);
}

/** GPUBufferUsage.STORAGE; the global itself is absent in Node. */
const STORAGE = 0x80;

/** A caller's buffer with `count` rows of `width` floats. @throws InputError where it is none, or too small. */
export function readBuffer(
  name: string,
  given: BufferRows,
  width: number,
  count: number,
): { buffer: GPUBuffer; offset: number; stride: number } {
  if (typeof given !== "object" || given === null)
    throw new InputError(`${name} is ${quote(given)}; expected a GPUBuffer or { buffer, offset, stride }`);
  const { buffer, offset = 0, stride = width } = "buffer" in given ? given : { buffer: given };
  if (typeof buffer !== "object" || buffer === null || typeof buffer.usage !== "number")
    throw new InputError(`${name} is ${quote(buffer)}; expected a GPUBuffer or { buffer, offset, stride }`);
  if (!(buffer.usage & STORAGE))
    throw new InputError(`the buffer of ${name} has usage 0x${buffer.usage.toString(16)}; expected GPUBufferUsage.STORAGE among it`);
  if (!Number.isInteger(offset) || offset < 0 || offset % 4 !== 0)
    throw new InputError(`the offset of ${name} is ${quote(offset)} bytes; expected a multiple of 4`);
  const oneForAll = name === "context" && stride === 0;
  if (!Number.isInteger(stride) || (stride < width && !oneForAll))
    throw new InputError(`the stride of ${name} is ${quote(stride)} floats; expected at least ${width}`);
  const needed = count === 0 ? 0 : offset + 4 * ((oneForAll ? 0 : (count - 1) * stride) + width);
  if (buffer.size < needed)
    throw new InputError(`the buffer of ${name} has ${buffer.size} bytes; ${count} rows of ${width} floats need ${needed}`);
  return { buffer, offset, stride };
}

/** A context of encode: a buffer, or numbers in float32 for all points; null where the network takes none. @throws InputError. */
export function readEncodeContext(
  given: BufferRows | number | ArrayLike<number> | null | undefined,
  width: number,
): { readonly rows: BufferRows } | { readonly numbers: Floats } | null {
  if (typeof given === "object" && given !== null && ("buffer" in given ? !ArrayBuffer.isView(given) : "usage" in given)) {
    if (width === 0) throw new InputError("context is a buffer; the network takes none");
    return { rows: given as BufferRows };
  }
  const numbers = ArrayBuffer.isView(given)
    ? Array.from(given as unknown as ArrayLike<number>)
    : (given as number | readonly number[] | null);
  const read = readContext(numbers, width, 1);
  if (!read) return null;
  const data = Float32Array.from(read.data);
  if (!areFinite(data)) throw new InputError(`context is [${Array.from(read.data).join(", ")}]; expected finite numbers`);
  return { numbers: data };
}

/** What the caller gave, so that nothing done to it later is seen. */
export function copied<T extends BatchInput | ContextInput | null | undefined>(given: T): T {
  const copy = (data: unknown): unknown => (isNumbers(data) && data.length > 0 ? data.slice() : data);
  if (isNumbers(given)) return copy(given) as T;
  if (typeof given !== "object" || given === null) return given;
  return { ...(given as object), data: copy((given as { data: unknown }).data) } as T;
}
