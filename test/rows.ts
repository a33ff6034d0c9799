import { expect } from "vitest";

/** Rows out of the midst of a buffer, at a stride; all else must be 7s. */
export function rowsOf(data: Float32Array, rows: number, width: number, offset: number, stride: number): Float32Array {
  const rest = data.slice();
  const taken = Float32Array.from({ length: rows * width }, (_, i) => {
    const at = offset + Math.floor(i / width) * stride + (i % width);
    rest[at] = 7;
    return data[at]!;
  });
  expect(rest).toEqual(new Float32Array(data.length).fill(7));
  return taken;
}
