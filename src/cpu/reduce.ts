/** The sum of each row of terms [count, width], in float64. */
export function sumRows(terms: ArrayLike<number>, count: number, width: number): Float64Array {
  const sums = new Float64Array(count);
  for (let row = 0; row < count; row++) {
    let sum = 0;
    for (let k = 0; k < width; k++) sum += terms[row * width + k]!;
    sums[row] = sum;
  }
  return sums;
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
