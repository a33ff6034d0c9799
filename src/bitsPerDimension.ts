import { InputError, quote } from "./errors.js";

/**
 * -log p / (d ln 2): densities of points [d] in nats as bits per dimension, element by element. They are those of the points' own units:
 * of pixels of 256 levels that were scaled to [-1, 1], log2(256 / 2) = 7 more are bits per pixel and channel.
 *
 * @param logProb one log p, or any number of them.
 * @throws InputError where d is no whole number of at least 1, or logProb no numbers.
 */
export function bitsPerDimension(logProb: number, d: number): number;
export function bitsPerDimension(logProb: ArrayLike<number>, d: number): Float64Array;
export function bitsPerDimension(logProb: number | ArrayLike<number>, d: number): number | Float64Array {
  if (!(Number.isInteger(d) && d >= 1)) throw new InputError(`d is ${quote(d)}; expected a whole number of at least 1`);
  if (typeof logProb === "number") return -logProb / (d * Math.LN2);
  if (typeof logProb !== "object" || logProb === null || typeof logProb.length !== "number")
    throw new InputError(`logProb is ${quote(logProb)}; expected a number or an array of numbers`);
  return Float64Array.from(logProb, (value) => {
    if (typeof value !== "number") throw new InputError(`logProb holds ${quote(value)}; expected numbers`);
    return -value / (d * Math.LN2);
  });
}
