/** The sum of each row of terms [count, width], in float64. */
export function sumRows(terms: ArrayLike<number>, count: number, width: number): Float64Array {
  const sums = new Float64Array(count);
  sumRowsInto(sums, terms, width);
  return sums;
}

/** The same, one row for each of the sums. */
export function sumRowsInto(sums: Float32Array | Float64Array, terms: ArrayLike<number>, width: number): void {
  let at = 0;
  for (let row = 0; row < sums.length; row++) {
    // Two sums side by side: one addition need not wait for the other.
    let [even, odd] = [0, 0];
    const end = at + width;
    for (; at + 1 < end; at += 2) {
      even += terms[at]!;
      odd += terms[at + 1]!;
    }
    if (at < end) even += terms[at++]!;
    sums[row] = even + odd;
  }
}

/**
 * Mean and standard error of each row of samples [count, width]: s / √width with s² = Σ (x - mean)² / (width - 1).
 * The error of a single sample is unknown: NaN. Where `population` samples after one another are all there are, drawn without
 * replacement, their mean is exact: s² is that of the samples around their own means, and only what is left of them, r of the width, errs,
 * by s √((1 - r / population) / r).
 */
export function meanRows(
  samples: ArrayLike<number>,
  count: number,
  width: number,
  population: number = Infinity,
): { mean: Float64Array; standardError: Float64Array } {
  const mean = sumRows(samples, count, width).map((sum) => sum / width);
  const standardError = new Float64Array(count);
  for (let row = 0; row < count; row++) {
    let squares = 0;
    let freedom = 0;
    for (let first = 0; first < width; first += population) {
      const size = Math.min(population, width - first);
      let sum = 0;
      for (let k = first; k < first + size; k++) sum += samples[row * width + k]!;
      for (let k = first; k < first + size; k++) squares += (samples[row * width + k]! - sum / size) ** 2;
      freedom += size - 1;
    }
    const rest = population < Infinity ? width % population : width;
    const share = rest / width;
    standardError[row] = rest === 0 ? 0 : freedom > 0 ? share * Math.sqrt(((squares / freedom) * (1 - rest / population)) / rest) : NaN;
  }
  return { mean, standardError };
}
