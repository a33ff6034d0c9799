/** Text on stdout. */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { InputError } from "../../errors.js";
import { describeSystemError } from "../files/points.js";

/**
 * Waits for a slow reader, and ends quietly when it goes away (`| head`).
 * @throws InputError where stdout cannot be written, such as a full disk.
 */
export async function print(chunks: Iterable<string>): Promise<void> {
  try {
    await pipeline(Readable.from(chunks), process.stdout, { end: false });
  } catch (error) {
    if (isGone(error)) return;
    throw new InputError(`stdout: ${describeSystemError(error)}; expected that it can be written`, { cause: error });
  }
}

/** Whether whoever read stdout has gone away. */
export function isGone(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "EPIPE";
}

/** Columns aligned: the first one left, numbers right. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  const numeric = widths.map((_, column) => rows.slice(1).every((row) => row[column] === undefined || /^[-+\d.e]*$/.test(row[column])));
  return rows
    .map((row) =>
      row
        .map((cell, column) => (numeric[column] ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
        .join("  ")
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join("");
}

/** For people: six significant digits. */
export function round(value: number): string {
  return String(Number(value.toPrecision(6)));
}

/** The largest magnitude; 0 where there are no numbers, NaN where one of them is NaN. */
export function largestOf(numbers: Float32Array | Float64Array): number {
  // By a loop: there may be more numbers than a call takes arguments.
  let largest = 0;
  for (const value of numbers) largest = Math.max(largest, Math.abs(value));
  return largest;
}

/** Of the finite ones; NaN where there are none. */
export interface Summary {
  readonly minimum: number;
  readonly minimumAt: number;
  readonly maximum: number;
  readonly maximumAt: number;
  readonly mean: number;
  readonly notFinite: number;
}

export function summarize(values: Float32Array | Float64Array): Summary {
  let [minimumAt, maximumAt, sum, finite] = [-1, -1, 0, 0];
  for (const [index, value] of values.entries()) {
    if (!Number.isFinite(value)) continue;
    if (minimumAt < 0 || value < values[minimumAt]!) minimumAt = index;
    if (maximumAt < 0 || value > values[maximumAt]!) maximumAt = index;
    sum += value;
    finite++;
  }
  return {
    minimum: values[minimumAt] ?? NaN,
    minimumAt,
    maximum: values[maximumAt] ?? NaN,
    maximumAt,
    mean: sum / finite,
    notFinite: values.length - finite,
  };
}
