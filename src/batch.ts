import { InputError, quote } from "./errors.js";

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

/** One vector for all points (a number where it has one component), or one per point. */
export type ContextInput = number | BatchInput;

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
export function readContext(given: ContextInput | null | undefined, width: number, count: number): Contexts | null {
  if (width === 0) {
    if (given === undefined || given === null || (typeof given === "object" && "length" in given && given.length === 0)) return null;
    throw new InputError(`context is ${quote(given)}; the network takes none`);
  }
  const expected = `one vector of ${width} number${width > 1 ? "s" : ""} for all points, or one for each of the ${count} points`;
  if (given === undefined || given === null) throw new InputError(`context is missing; expected ${expected}`);
  if (typeof given === "number") {
    if (width !== 1) throw new InputError(`context is the number ${given}; expected ${expected}`);
    return { data: [given], shared: true, runs: [0] };
  }
  const { data, shape } = readShaped(given, "context");
  if (shape && shape.at(-1) !== width) throw new InputError(`context has the shape [${shape.join(", ")}]; expected ${expected}`);
  if (data.length === width) return { data, shared: true, runs: [0] };
  if (data.length === width * count) return { data, shared: false, runs: runsOf(data, width, count) };
  throw new InputError(`context has ${data.length} numbers; expected ${expected}`);
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
  if (!Array.isArray(data)) return data;
  const bad = data.findIndex((value) => typeof value !== "number");
  if (bad >= 0) throw new InputError(`${what} holds ${quote(data[bad])} at position ${bad}; expected numbers, flat and row-major`);
  return data;
}
