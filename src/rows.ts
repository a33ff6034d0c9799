import { LimitError } from "./errors.js";
import type { Floats } from "./typedArrays.js";

/** @throws LimitError where an array would be too large. */
export function allocate(name: string, count: number, size: number): Floats;
export function allocate<A extends Numbers>(name: string, count: number, size: number, type: new (length: number) => A): A;
export function allocate(name: string, count: number, size: number, type: new (length: number) => Numbers = Float32Array): Numbers {
  try {
    return new type(count * size);
  } catch (error) {
    throw new LimitError(
      `${name} has ${count} rows of ${size} numbers, more than one ${type.name} can hold; expected fewer points at once`,
      { cause: error },
    );
  }
}

/** Rows in a longer array: the first number at `at`, rows `stride` apart. */
export interface Rows<Numbers> {
  readonly data: Numbers;
  readonly at: number;
  readonly stride: number;
}

type Numbers = Float32Array | Float64Array;

/** Copies `count` rows of `width` numbers; number by number, since a subarray for each row takes ten times as long. */
export function copyRows(count: number, width: number, to: Rows<Numbers>, from: Rows<Numbers>): void {
  for (let row = 0; row < count; row++) {
    const [into, out] = [to.at + row * to.stride, from.at + row * from.stride];
    for (let k = 0; k < width; k++) to.data[into + k] = from.data[out + k]!;
  }
}

/** Marks the rows [marks.length, width] that hold a NaN or an infinity. */
export function markNonFinite(marks: Uint8Array, width: number, { data, at, stride }: Rows<Numbers>): void {
  // A number times 0 is 0, unless it is a NaN or an infinity.
  const zero = 0;
  for (let row = 0; row < marks.length; row++) {
    let sum = 0;
    for (let k = 0; k < width; k++) sum += zero * data[at + row * stride + k]!;
    if (sum !== 0) marks[row] = 1;
  }
}

/** NaN into the rows that are marked, of arrays [marks.length, width]. @returns whether any is. */
export function spoilRows(marks: Uint8Array, arrays: Iterable<readonly [data: Numbers | null, width: number]>): boolean {
  const all = [...arrays];
  let isAny = false;
  for (let row = marks.indexOf(1); row >= 0; row = marks.indexOf(1, row + 1)) {
    for (const [data, width] of all) data?.fill(NaN, row * width, (row + 1) * width);
    isAny = true;
  }
  return isAny;
}
