/**
 * Colours of numbers. ColorBrewer's purple-orange scale (by way of d3-scale-chromatic) diverges from a near-white zero, and
 * stays readable with any of the common colour blindnesses; lengths, which have no sign, take cividis, made for the same.
 */
import { interpolateCividis, interpolatePuOr } from "d3-scale-chromatic";

export type Palette = "diverging" | "sequential";

export type Colour = readonly [red: number, green: number, blue: number];

/** Colours in a palette's table: the GPU and the CPU read the same. */
export const TABLE_SIZE = 256;

const tables = new Map<Palette, readonly Colour[]>();

/** From -scale to scale, or from 0 to scale; components 0 to 255. */
export function tableOf(palette: Palette): readonly Colour[] {
  let table = tables.get(palette);
  if (!table) {
    // Orange is where volume grows, purple where it shrinks.
    const interpolate = palette === "diverging" ? interpolatePuOr : interpolateCividis;
    table = Array.from({ length: TABLE_SIZE }, (_, index) => parse(interpolate(index / (TABLE_SIZE - 1))));
    tables.set(palette, table);
  }
  return table;
}

/** The colour of a number; grey for none. */
export function colourOf(value: number, scale: number, palette: Palette): Colour {
  const [red, green, blue] = pixelsOf([value], scale, palette);
  return [red!, green!, blue!];
}

/** The colours of numbers as pixels: red, green, blue and an opaque alpha each. */
export function pixelsOf(values: ArrayLike<number>, scale: number, palette: Palette): Uint8ClampedArray<ArrayBuffer> {
  const pixels = new Uint8ClampedArray(4 * values.length).fill(128);
  const table = tableOf(palette);
  for (let index = 0; index < values.length; index++) {
    pixels[4 * index + 3] = 255;
    const value = values[index]!;
    if (!Number.isFinite(value)) continue;
    const t = palette === "diverging" ? 0.5 + (0.5 * value) / scale : value / scale;
    const at = Math.min(1, Math.max(0, t)) * (TABLE_SIZE - 1);
    const low = Math.floor(at);
    const [below, above] = [table[low]!, table[Math.min(TABLE_SIZE - 1, low + 1)]!];
    for (let c = 0; c < 3; c++) pixels[4 * index + c] = below[c]! + (at - low) * (above[c]! - below[c]!);
  }
  return pixels;
}

/** A round number that most of the values stay below: the end of the colour bar. */
export function scaleFor(values: readonly number[]): number {
  const sizes = values
    .map(Math.abs)
    .filter((value) => Number.isFinite(value))
    .sort((a, b) => a - b);
  const high = sizes[Math.floor(0.98 * (sizes.length - 1))] ?? 0;
  if (!(high > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(high));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => Number((step * power).toPrecision(2))).find((step) => step >= high)!;
}

function parse(text: string): Colour {
  const hex = /^#(..)(..)(..)$/.exec(text);
  if (hex) return hex.slice(1).map((part) => Number.parseInt(part, 16)) as unknown as Colour;
  return text.match(/[\d.]+/g)!.map(Number) as unknown as Colour;
}
