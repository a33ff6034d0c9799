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
 * The error of a single sample is unknown: NaN.
 */
export function meanRows(samples: ArrayLike<number>, count: number, width: number): { mean: Float64Array; standardError: Float64Array } {
  const mean = sumRows(samples, count, width).map((sum) => sum / width);
  const standardError = new Float64Array(count);
  for (let row = 0; row < count; row++) {
    let squares = 0;
    for (let k = 0; k < width; k++) squares += (samples[row * width + k]! - mean[row]!) ** 2;
    standardError[row] = width > 1 ? Math.sqrt(squares / (width - 1) / width) : NaN;
  }
  return { mean, standardError };
}
