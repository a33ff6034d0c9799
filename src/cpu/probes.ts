import { mixBits } from "../mixBits.js";
import { drawsOf, isOdd, multiplyInField } from "../plan/orthogonal.js";

/**
 * The Rademacher vector ±1 of probe `column` at a point, the same as the GPU's: a function of its arguments alone. Orthogonal ones are rows
 * of a Hadamard matrix times random signs; see plan/orthogonal.ts.
 */
export function rademacher(size: number, seed: number, point: number, column: number, isOrthogonal = false): Float64Array {
  const draws = drawsOf(size, isOrthogonal);
  const { population } = draws;
  const start = mixBits(mixBits(mixBits(seed) + point) + Math.floor(column / population));
  const factor = 1 + (mixBits(start - 1) % Math.max(1, population - 1));
  const row = multiplyInField(factor, column % population, draws);
  return Float64Array.from({ length: size }, (_, index) => {
    const isPositive = ((mixBits(start + (index >> 2)) >>> (28 + (index & 3))) & 1) === 1;
    return isPositive === isOdd(row & index) ? -1 : 1;
  });
}
