import { LimitError } from "../errors.js";
import type { Halves } from "../typedArrays.js";

/** The number that the 16 bits of an IEEE half stand for. */
export function float16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = (bits & 0x3ff) / 1024;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -14 : sign * (1 + fraction) * 2 ** (exponent - 15);
}

/** The number that the 16 bits of a bfloat16 stand for: the upper half of a float32. */
export function bfloat16(bits: number): number {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}
const scratch = new DataView(new ArrayBuffer(4));

/** The IEEE half nearest to a number, ties to even; infinite beyond 65 519. */
export function toFloat16(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(size)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  // Halves between two powers of 2 are 2^(exponent - 10) apart; below 2^-14 the distance stays.
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  const steps = roundToEven(size / 2 ** (exponent - 10));
  // A carry into the next power of 2 carries into the exponent's bits all by itself.
  return sign | (size < 2 ** -14 ? steps : ((exponent + 14) << 10) + steps);
}

/** The bfloat16 nearest to a number, ties to even. */
export function toBfloat16(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  if (Number.isNaN(value)) return 0x7fc0;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** To the nearest integer, of two the even one. */
export function roundToEven(z: number): number {
  const rounded = Math.round(z);
  return rounded - z === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** Numbers in float16. @throws LimitError where one is too large for it. */
export function halves(numbers: Float32Array, name: string): Halves {
  const result = new Uint16Array(numbers.length);
  for (let index = 0; index < result.length; index++) {
    result[index] = toFloat16(numbers[index]!);
    if ((result[index]! & 0x7fff) >= 0x7c00) throw new LimitError(`${name} holds ${numbers[index]}; float16 ends at 65504`);
  }
  return result;
}
