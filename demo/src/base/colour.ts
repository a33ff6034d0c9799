/**
 * Colours of numbers. By day ColorBrewer's purple-orange scale (by way of d3-scale-chromatic), which diverges from a near-white zero and
 * stays readable with any of the common colour blindnesses; by night the same hues away from black. What has no sign takes cividis.
 */
import { interpolateCividis, interpolatePuOr } from "d3-scale-chromatic";

/** Those that grow or shrink are the halves of the diverging ones. */
export type Palette = `${"diverging" | "grows" | "shrinks"}${"" | "-dark"}` | "sequential";

/** Which numbers the ends of a palette stand for. */
export interface Domain {
  readonly low: number;
  readonly high: number;
  readonly palette: Palette;
}

export type Colour = readonly [red: number, green: number, blue: number];

/** Colours in a palette's table: the GPU and the CPU read the same. */
export const TABLE_SIZE = 256;

/** From purple by way of the page's dark to orange, evenly spaced. */
const DARK: readonly Colour[] = [
  [196, 171, 255],
  [124, 84, 214],
  [66, 44, 120],
  [22, 20, 30],
  [110, 58, 16],
  [205, 110, 24],
  [255, 190, 110],
];

const tables = new Map<Palette, readonly Colour[]>();

/** From `low` to `high`; components 0 to 255. */
export function tableOf(palette: Palette): readonly Colour[] {
  let table = tables.get(palette);
  if (!table) {
    table = Array.from({ length: TABLE_SIZE }, (_, index) => colourAt(palette, index / (TABLE_SIZE - 1)));
    tables.set(palette, table);
  }
  return table;
}

/** A weak colour is left to the end of a half that is next to 0. */
const HALF = 0.42;

/** Orange is where volume grows, purple where it shrinks. */
function colourAt(palette: Palette, share: number): Colour {
  if (palette === "sequential") return parse(interpolateCividis(share));
  const t = palette.startsWith("diverging") ? share : palette.startsWith("grows") ? 1 - HALF * (1 - share) : HALF * share;
  if (!palette.endsWith("dark")) return parse(interpolatePuOr(t));
  const at = t * (DARK.length - 1);
  const low = Math.min(DARK.length - 2, Math.floor(at));
  return [0, 1, 2].map((c) => DARK[low]![c]! + (at - low) * (DARK[low + 1]![c]! - DARK[low]![c]!)) as unknown as Colour;
}

/** The colour of a number; grey for none. */
export function colourOf(value: number, domain: Domain): Colour {
  const [red, green, blue] = pixelsOf([value], domain);
  return [red!, green!, blue!];
}

/** What is above it has grown, what is below has shrunk. */
export function middleOf({ low, high, palette }: Domain): number {
  return palette.startsWith("diverging") ? (low + high) / 2 : 0;
}

/** How much of a colour is left where a picture fades. */
export const FADED = 0.22;

/** The colours of numbers as pixels: red, green, blue and an opaque alpha each. */
export function pixelsOf(
  values: ArrayLike<number>,
  { low, high, palette }: Domain,
  { emphasis, paper }: { readonly emphasis: -1 | 0 | 1; readonly paper: Colour } = { emphasis: 0, paper: [0, 0, 0] },
): Uint8ClampedArray<ArrayBuffer> {
  const pixels = new Uint8ClampedArray(4 * values.length).fill(128);
  const table = tableOf(palette);
  const middle = middleOf({ low, high, palette });
  for (let index = 0; index < values.length; index++) {
    pixels[4 * index + 3] = 255;
    const value = values[index]!;
    if (!Number.isFinite(value)) continue;
    const at = Math.min(1, Math.max(0, (value - low) / (high - low))) * (TABLE_SIZE - 1);
    const below = Math.floor(at);
    const [from, to] = [table[below]!, table[Math.min(TABLE_SIZE - 1, below + 1)]!];
    const share = (value - middle) * emphasis < 0 ? FADED : 1;
    for (let c = 0; c < 3; c++) pixels[4 * index + c] = paper[c]! + share * (from[c]! + (at - below) * (to[c]! - from[c]!) - paper[c]!);
  }
  return pixels;
}

/** Of what is drawn over a picture by day and night: where room is made, where it shrinks, lines and words, and what words stand on. */
export function marksOf(isDark: boolean): {
  readonly grows: string;
  readonly shrinks: string;
  readonly ink: string;
  readonly glass: string;
} {
  return isDark
    ? { grows: "#cd6e18", shrinks: "#7c54d6", ink: "#fff", glass: "rgb(18 16 26 / 0.88)" }
    : { grows: "#e08214", shrinks: "#8073ac", ink: "#14121e", glass: "rgb(253 252 250 / 0.92)" };
}

/** A round number that most of the sizes stay below: a window is wider than what it is about, and fields grow towards its sides. */
export function roundAbove(values: readonly number[], share = 0.95): number {
  const sizes = values
    .map(Math.abs)
    .filter((value) => Number.isFinite(value))
    .sort((a, b) => a - b);
  const high = sizes[Math.floor(share * (sizes.length - 1))] ?? 0;
  if (!(high > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(high));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => Number((step * power).toPrecision(2))).find((step) => step >= high) ?? high;
}

function parse(text: string): Colour {
  const hex = /^#(..)(..)(..)$/.exec(text);
  if (hex) return hex.slice(1).map((part) => Number.parseInt(part, 16)) as unknown as Colour;
  return text.match(/[\d.]+/g)!.map(Number) as unknown as Colour;
}
