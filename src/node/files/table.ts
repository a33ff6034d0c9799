/** Numbers with a shape, row-major, as a file holds them. */
export interface NumberArray {
  readonly data: Float32Array | Float64Array;
  /** No axes where it is one number. */
  readonly shape: readonly number[];
  /** How many points they are, where the file tells: a table has one in each line. */
  readonly count?: number;
}

/** One column of a .csv file. */
export interface Column {
  readonly name: string;
  readonly data: Float32Array | Float64Array;
  /** Where row r stands in `data`: offset + r * stride. */
  readonly offset: number;
  readonly stride: number;
}

/**
 * The shortest text that reads back as the same number: of a float32, not of the float64 that JavaScript makes of it.
 * "NaN", "Infinity" and "-Infinity" where it is not finite.
 */
export function formatNumber(value: number, float32: boolean): string {
  if (!float32 || !Number.isFinite(value)) return String(value);
  for (const digits of [6, 7, 8]) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return String(Number(text));
  }
  return String(Number(value.toPrecision(9)));
}
