/** Numbers as a reader wants them. */

/** What errors are relative to, in one piece: lines break at a bar or a slash, but not beside a word joiner. */
export const SCALE = "Σ|\u2060∂fᵢ/\u2060∂xᵢ|";

/** Five significant digits, and no more of them than a float32 has right. */
export function short(value: number, digits = 5): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(Math.min(3, digits - 1));
  return String(Number(value.toPrecision(digits)));
}

export function milliseconds(value: number): string {
  if (value >= 1000) return `${(value / 1000).toPrecision(3)} s`;
  return `${value >= 100 ? Math.round(value) : value.toPrecision(2)} ms`;
}

/** A CSV text, line by line. */
export function csv(header: readonly string[], rows: Iterable<readonly number[]>): string[] {
  return [header.join(","), ...Array.from(rows, (row) => `\n${row.join(",")}`)];
}

/**
 * NumPy's .npy, version 1.0: a magic number, the length of the header, a Python dict padded to whole 64 bytes, the numbers.
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
export function npy(data: Float32Array, shape: readonly number[]): Uint8Array<ArrayBuffer> {
  const dict = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}${shape.length === 1 ? "," : ""}), }`;
  const length = 64 * Math.ceil((10 + dict.length + 1) / 64) - 10;
  const header = new TextEncoder().encode(`\u0093NUMPY`.slice(1) + dict.padEnd(length - 1) + "\n");
  const bytes = new Uint8Array(10 + length + data.byteLength);
  bytes.set([0x93, ...header.subarray(0, 5), 1, 0, length & 255, length >> 8]);
  bytes.set(header.subarray(5), 10);
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 10 + length);
  return bytes;
}
