/** Whether the pixels of a picture are those of the numbers that it shows. */
import { decode } from "fast-png";
import { expect } from "vitest";
import { colourOf } from "../../demo/src/base/colour.js";
import { evaluateReference, type Network } from "../../src/index.js";
import type { Painted } from "./site.js";

/** What no element of the page covers of it. */
export const FREE = { left: 190, top: 220, right: 230, bottom: 190 };

/** Of points [B, d]. */
export type NumbersAt = (points: Float32Array) => ArrayLike<number>;

export const divergenceOf =
  (network: Network, context: readonly number[] = []): NumbersAt =>
  (points) =>
    evaluateReference(network, points, { context: context.length > 0 ? context : null, outputs: ["divergence"] }).divergence!;

/** Compares pixels of a screenshot at the middles of the grid's cells with the colours of the float64 numbers there. */
export function expectPixels(
  screenshot: Uint8Array,
  { domain, columns, rows, plane, view }: Painted,
  { width, height }: { width: number; height: number },
  numbersAt: NumbersAt,
  count: number,
): void {
  const png = decode(screenshot);
  const tall = (view.width * height) / width;
  // The pixels in whose middle a cell's middle lies the nearest, of those that nothing covers.
  const places = Array.from({ length: count * 12 }, (_, index) => ({
    x: Math.floor(((((index * 37) % columns) + 0.5) / columns) * width),
    y: Math.floor(((((index * 53) % rows) + 0.5) / rows) * height),
  }))
    .filter(({ x, y }) => x > FREE.left && y > FREE.top && x < width - FREE.right && y < height - FREE.bottom)
    .slice(0, count);
  expect(places.length).toBe(count);
  const points = Float32Array.from(
    places.flatMap(({ x, y }) => {
      const a = view.a + ((x + 0.5) / width - 0.5) * view.width;
      const b = view.b - ((y + 0.5) / height - 0.5) * tall;
      return plane.origin.map((origin, k) => origin + a * plane.u[k]! + b * plane.v[k]!);
    }),
  );
  const numbers = numbersAt(points);
  const differences = places.map(({ x, y }, index) => {
    const at = (y * png.width + x) * png.channels;
    const expected = colourOf(numbers[index]!, domain);
    return Math.max(...[0, 1, 2].map((channel) => Math.abs(png.data[at + channel]! - expected[channel]!)));
  });
  // Between the cells' middles the picture interpolates, so steep places may be off by some shades.
  const sorted = differences.toSorted((a, b) => a - b);
  expect(sorted[Math.floor(sorted.length / 2)], `at ${columns} x ${rows}`).toBeLessThanOrEqual(2);
  expect(sorted[Math.floor(sorted.length * 0.95)], `at ${columns} x ${rows}`).toBeLessThanOrEqual(12);
  // Not one colour everywhere, unless the truth is.
  const spread = Math.max(...Array.from(numbers)) - Math.min(...Array.from(numbers));
  if (spread > 1e-3) expect(new Set(Array.from(numbers, (value) => colourOf(value, domain).join())).size).toBeGreaterThan(1);
}
