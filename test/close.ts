import { expect } from "vitest";

export interface CloseOptions {
  /** Times the scale; float32 arithmetic of a few layers stays below the default. */
  relative?: number;
  /** For where the scale is 0. */
  absolute?: number;
  /** What the numbers are, for the message. */
  label?: string;
}

/**
 * Expects |actual - expected| <= relative * scale + absolute everywhere. The scale is the size of the terms that were
 * summed, Σ_i |∂f_i/∂x_i| for a divergence: compared with the sum itself, a field without divergence could never pass.
 * NaN is close to NaN alone, and an infinity to itself.
 */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  scale: ArrayLike<number>,
  { relative = 2e-5, absolute = 1e-6, label = "numbers" }: CloseOptions = {},
): void {
  if (actual.length !== expected.length || scale.length !== expected.length)
    expect.fail(`${label}: ${actual.length} numbers and ${scale.length} scales; expected ${expected.length} of both`);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    const allowance = relative * scale[i]! + absolute;
    if ((error <= allowance && allowance < Infinity) || Object.is(actual[i], expected[i])) continue;
    expect.fail(`${label}[${i}] is ${actual[i]}; expected ${expected[i]}; the error ${error} is over the allowance ${allowance}`);
  }
}

/** Σ_i |∂f_i/∂x_i| of each point, of diagonals [B, d]: the scale of a divergence's errors. */
export function divergenceScale(diagonal: ArrayLike<number>, d: number): Float64Array {
  const scale = new Float64Array(diagonal.length / d);
  for (let at = 0; at < diagonal.length; at++) scale[Math.floor(at / d)]! += Math.abs(diagonal[at]!);
  return scale;
}
