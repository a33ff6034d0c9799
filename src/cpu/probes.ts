/** A 32-bit integer hash with low bias (constants: C. Wellons' hash-prospector); twin of shaders/probes.wgsl. */
function mixBits(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** The Rademacher vector ±1 of probe `column` at a point, the same as the GPU's: a function of its arguments alone. */
export function rademacher(size: number, seed: number, point: number, column: number): Float64Array {
  const start = mixBits(mixBits(mixBits(seed) + point) + column);
  return Float64Array.from({ length: size }, (_, index) => ((mixBits(start + (index >> 2)) >>> (28 + (index & 3))) & 1 ? 1 : -1));
}
