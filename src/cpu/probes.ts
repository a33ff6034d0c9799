import { mixBits } from "../mixBits.js";

/** The Rademacher vector ±1 of probe `column` at a point, the same as the GPU's: a function of its arguments alone. */
export function rademacher(size: number, seed: number, point: number, column: number): Float64Array {
  const start = mixBits(mixBits(mixBits(seed) + point) + column);
  return Float64Array.from({ length: size }, (_, index) => ((mixBits(start + (index >> 2)) >>> (28 + (index & 3))) & 1 ? 1 : -1));
}
