/** A heatmap of a quantity, signed or not, over a plane: an SVG around a picture of the cells, rendered to PNG. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { initWasm, Resvg } from "@resvg/resvg-wasm";
import { scaleLinear, type ScaleLinear } from "d3-scale";
import { interpolateRdBu, interpolateViridis } from "d3-scale-chromatic";
import { encode as encodePng } from "fast-png";

export interface Axis {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

export interface Heatmap {
  /** Cells along each axis, and pixels of the plot: a cell is one pixel. */
  readonly size: number;
  /** [size, size]: a row for each y, from the lowest up; one number for each x, from the lowest up. */
  readonly values: Float32Array | Float64Array;
  readonly x: Axis;
  readonly y: Axis;
  readonly title: string;
  readonly subtitle?: string | undefined;
  /** Which colours stand for which values; default: diverging ones, to the largest magnitude among the values. */
  readonly colours?: Colours | undefined;
  /** Vectors at the centres of count x count equal parts of the plane, rows from the lowest y up: [count, count, 2]. */
  readonly arrows?: { readonly count: number; readonly vectors: Float32Array | Float64Array } | undefined;
  /** Whether the line where the values change sign is drawn. */
  readonly contour?: boolean | undefined;
}

/** Where the centres of `count` equal parts of an axis lie. */
export function centres({ from, to }: Axis, count: number): Float64Array {
  return Float64Array.from({ length: count }, (_, index) => from + ((index + 0.5) / count) * (to - from));
}

/** Diverging colours run from -limit to limit; sequential ones from dark at `from` to light at `to`, and stay so beyond. */
export type Colours =
  | { readonly kind: "diverging"; readonly limit: number }
  | { readonly kind: "sequential"; readonly from: number; readonly to: number };

interface Palette {
  readonly shades: Uint8Array;
  /** For what is not finite. */
  readonly missing: readonly [number, number, number];
}

/** An odd number, so that the middle one is zero's. */
const shadeCount = 511;
const palettes: Readonly<Record<Colours["kind"], Palette>> = {
  /** Blue below zero, red above, near white at zero: told apart with every common colour blindness. */
  diverging: { shades: shadesOf((share) => interpolateRdBu(1 - share)), missing: [128, 128, 128] },
  /**
   * Lightness rises evenly from dark violet to yellow, so order stays with every colour blindness and in grey print. A grey would be
   * taken for a value there; white is lighter than all of them.
   */
  sequential: { shades: shadesOf(interpolateViridis), missing: [255, 255, 255] },
};

function shadesOf(interpolate: (share: number) => string): Uint8Array {
  return Uint8Array.from(Array.from({ length: shadeCount }, (_, index) => parseColour(interpolate(index / (shadeCount - 1)))).flat());
}

/** "rgb(68, 1, 84)" or "#440154". */
function parseColour(text: string): number[] {
  return text.startsWith("#") ? text.match(/[\da-f]{2}/gi)!.map((digits) => parseInt(digits, 16)) : text.match(/\d+/g)!.map(Number);
}

function endsOf(colours: Colours): { from: number; to: number } {
  return colours.kind === "diverging" ? { from: -colours.limit, to: colours.limit } : colours;
}

/** The colour [red, green, blue], 0 to 255, of a value. */
export function colourOf(value: number, colours: Colours): readonly number[] {
  const { shades, missing } = palettes[colours.kind];
  if (!Number.isFinite(value)) return missing;
  const { from, to } = endsOf(colours);
  const share = Math.max(0, Math.min(1, (value - from) / (to - from)));
  const index = Math.round(share * (shadeCount - 1));
  return Array.from(shades.subarray(3 * index, 3 * index + 3));
}

/** The largest magnitude of the finite values, or 1 where all of them are 0. */
export function colourLimit(values: Float32Array | Float64Array): number {
  let limit = 0;
  for (const value of values) if (Number.isFinite(value)) limit = Math.max(limit, Math.abs(value));
  return limit || 1;
}

/** The figure as PNG. */
export async function renderHeatmap(heatmap: Heatmap): Promise<Uint8Array> {
  const font = await loadRenderer();
  const renderer = new Resvg(heatmapSvg(heatmap), {
    font: { fontBuffers: [font], defaultFontFamily: fontFamily, sansSerifFamily: fontFamily },
    background: "white",
  });
  try {
    return renderer.render().asPng();
  } finally {
    renderer.free();
  }
}

const fontFamily = "Noto Sans Math";
let renderer: Promise<Uint8Array> | undefined;

/** Once per process; resolves to the font. */
function loadRenderer(): Promise<Uint8Array> {
  // Put there by the build.
  const folder = join(dirname(createRequire(import.meta.url).resolve("deldot/package.json")), "dist/picture");
  renderer ??= (async () => {
    await initWasm(await readFile(join(folder, "resvg.wasm")));
    return readFile(join(folder, "NotoSansMath.ttf"));
  })();
  return renderer;
}

/** Where things stand in the figure, in pixels. */
export interface Layout {
  readonly width: number;
  readonly height: number;
  /** The plot's left upper corner; its sides are heatmap.size long. */
  readonly left: number;
  readonly top: number;
}

interface Ticks {
  readonly scale: ScaleLinear<number, number>;
  readonly marks: readonly { readonly at: number; readonly label: string }[];
  /** A power of ten that all labels are to be multiplied by. */
  readonly exponent: number;
}

interface Figure extends Layout {
  readonly heatmap: Heatmap;
  readonly colours: Colours;
  /** Font size of the labels; everything else is measured in it. */
  readonly em: number;
  readonly barLeft: number;
  readonly barWidth: number;
  readonly x: Ticks;
  readonly y: Ticks;
  readonly bar: Ticks;
}

function layOut(heatmap: Heatmap): Figure {
  const { size } = heatmap;
  const colours = heatmap.colours ?? { kind: "diverging", limit: colourLimit(heatmap.values) };
  const em = Math.round(Math.max(11, Math.min(24, size / 40)));
  // Room for the longest labels ("−1,000") on the horizontal axis; the vertical one shows the same steps.
  const x = ticks(heatmap.x, [0, size], size / (em * 5));
  const y = ticks(heatmap.y, [size, 0], size / (em * 5));
  const bar = ticks({ name: "", ...endsOf(colours) }, [size, 0], size / (em * 4));
  const widest = ({ marks }: Ticks): number => Math.max(0, ...marks.map(({ label }) => textWidth(label, em)));
  const left = Math.ceil(widest(y) + em * 3);
  const top = Math.ceil(em * (heatmap.subtitle ? 4.4 : 3) + (y.exponent || bar.exponent ? em : 0));
  const barLeft = left + size + Math.round(em * 1.4);
  const barWidth = Math.round(em * 1.3);
  const exponentWidth = bar.exponent ? textWidth("×10−00", em) : 0;
  return {
    heatmap,
    colours,
    em,
    left,
    top,
    barLeft,
    barWidth,
    width: Math.ceil(barLeft + barWidth + Math.max(widest(bar) + em * 1.6, exponentWidth)),
    height: Math.ceil(top + size + em * 3.8),
    x,
    y,
    bar,
  };
}

/** The figure's size and the plot's place in it. */
export function heatmapLayout(heatmap: Heatmap): Layout {
  const { width, height, left, top } = layOut(heatmap);
  return { width, height, left, top };
}

/** The font's digits are 0.57 em wide, its widest letters more, its narrow ones less. */
function textWidth(text: string, em: number): number {
  return text.length * em * 0.6;
}

function ticks({ from, to }: Axis, range: readonly [number, number], wanted: number): Ticks {
  const magnitude = Math.max(Math.abs(from), Math.abs(to));
  const exponent = magnitude >= 1e5 || magnitude < 1e-2 ? Math.floor(Math.log10(magnitude)) : 0;
  const factor = 10 ** exponent;
  const scale = scaleLinear([from / factor, to / factor], range);
  const count = Math.max(2, Math.min(10, Math.floor(wanted)));
  const format = scale.tickFormat(count);
  return {
    scale,
    marks: scale.ticks(count).map((value) => ({ at: scale(value), label: format(value) })),
    exponent,
  };
}

/** The figure as SVG, the cells as an embedded PNG. */
export function heatmapSvg(heatmap: Heatmap): string {
  const figure = layOut(heatmap);
  const { width, height, left, top, em, barLeft, barWidth } = figure;
  const { size } = heatmap;
  const parts = [
    image(paintCells(heatmap, figure.colours), size, size, left, top, size, size),
    heatmap.contour ? contourPath(figure) : "",
    heatmap.arrows ? arrowPaths(figure) : "",
    image(paintBar(figure.colours), 1, shadeCount, barLeft, top, barWidth, size),
    ...[
      [left, size],
      [barLeft, barWidth],
    ].map(([at, wide]) => `<rect x="${at! - 0.5}" y="${top - 0.5}" width="${wide! + 1}" height="${size + 1}" fill="none" stroke="#444"/>`),
    axisLabels(figure),
    text(fit(heatmap.title, em * 1.2, width - left - em), left, em * 1.9, { size: em * 1.2 }),
    heatmap.subtitle ? text(fit(heatmap.subtitle, em, width - left - em), left, em * 3.4, { size: em, fill: "#555" }) : "",
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="${fontFamily}" font-size="${em}" fill="#222">${parts.join("")}</svg>`;
}

function axisLabels({ heatmap, em, left, top, barLeft, barWidth, x, y, bar }: Figure): string {
  const { size } = heatmap;
  const tick = Math.round(em * 0.4);
  const line = (x1: number, y1: number, x2: number, y2: number): string =>
    `<path d="M${x1.toFixed(2)} ${y1.toFixed(2)}L${x2.toFixed(2)} ${y2.toFixed(2)}" stroke="#444"/>`;
  const bottom = top + size;
  const barRight = barLeft + barWidth;
  return [
    ...x.marks.flatMap(({ at, label }) => [
      line(left + at, bottom, left + at, bottom + tick),
      text(label, left + at, bottom + tick + em * 1.1, { anchor: "middle" }),
    ]),
    ...y.marks.flatMap(({ at, label }) => [
      line(left - tick, top + at, left, top + at),
      text(label, left - tick - em * 0.3, top + at + em * 0.35, { anchor: "end" }),
    ]),
    ...bar.marks.flatMap(({ at, label }) => [
      line(barRight, top + at, barRight + tick, top + at),
      text(label, barRight + tick + em * 0.3, top + at + em * 0.35),
    ]),
    powerOfTen(x.exponent, left + size, bottom + em * 3, "end"),
    powerOfTen(y.exponent, left, top - em * 0.6, "end"),
    powerOfTen(bar.exponent, barLeft, top - em * 0.6, "start"),
    text(heatmap.x.name, left + size / 2, bottom + em * 3, { anchor: "middle" }),
    text(heatmap.y.name, 0, 0, { anchor: "middle", transform: `translate(${em * 1.4} ${top + size / 2}) rotate(-90)` }),
  ].join("");
}

function powerOfTen(exponent: number, x: number, y: number, anchor: "start" | "end"): string {
  if (exponent === 0) return "";
  return `<text x="${x}" y="${y}" text-anchor="${anchor}">×10<tspan baseline-shift="super" font-size="75%">${String(exponent).replace("-", "−")}</tspan></text>`;
}

interface TextStyle {
  readonly anchor?: "start" | "middle" | "end";
  readonly size?: number;
  readonly fill?: string;
  readonly transform?: string;
}

function text(content: string, x: number, y: number, { anchor = "start", size, fill, transform }: TextStyle = {}): string {
  const attributes = [
    `x="${x.toFixed(2)}" y="${y.toFixed(2)}" text-anchor="${anchor}"`,
    size ? ` font-size="${size.toFixed(2)}"` : "",
    fill ? ` fill="${fill}"` : "",
    transform ? ` transform="${transform}"` : "",
  ];
  return `<text ${attributes.join("")}>${escapeXml(content)}</text>`;
}

/** XML admits no control characters and no halves of surrogate pairs, not even escaped; a file's name may hold them. */
function escapeXml(content: string): string {
  const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return content.replaceAll(/[\p{Cc}\p{Cs}\uFFFE\uFFFF]/gu, " ").replaceAll(/[&<>"]/g, (character) => entities[character]!);
}

/** Cuts a text that would run out of the figure. */
function fit(content: string, em: number, width: number): string {
  const most = Math.floor(width / (em * 0.56));
  return content.length <= most ? content : `${content.slice(0, Math.max(0, most - 3)).trimEnd()}...`;
}

function image(data: Uint8Array, width: number, height: number, x: number, y: number, wide: number, high: number): string {
  const png = Buffer.from(encodePng({ width, height, data, channels: 3 })).toString("base64");
  return `<image x="${x}" y="${y}" width="${wide}" height="${high}" preserveAspectRatio="none" image-rendering="optimizeSpeed" href="data:image/png;base64,${png}"/>`;
}

function paintCells({ size, values }: Heatmap, colours: Colours): Uint8Array {
  const pixels = new Uint8Array(size * size * 3);
  for (let row = 0; row < size; row++)
    for (let column = 0; column < size; column++)
      pixels.set(colourOf(values[(size - 1 - row) * size + column]!, colours), (row * size + column) * 3);
  return pixels;
}

/** Every shade once, the highest value's first. */
function paintBar({ kind }: Colours): Uint8Array {
  const { shades } = palettes[kind];
  const pixels = new Uint8Array(shades.length);
  for (let index = 0; index < shadeCount; index++) pixels.set(shades.subarray(3 * index, 3 * index + 3), 3 * (shadeCount - 1 - index));
  return pixels;
}

/**
 * The zero line by marching squares: where two neighbours differ in sign, the line crosses between them; the crossings of
 * a square of four neighbours are joined in the order they are met, which settles saddles one way or the other.
 */
function contourPath({ heatmap: { size, values }, left, top }: Figure): string {
  const commands: string[] = [];
  const at = (column: number, row: number): number => values[row * size + column]!;
  for (let row = 0; row + 1 < size; row++)
    for (let column = 0; column + 1 < size; column++) {
      const corners: [number, number][] = [
        [column, row],
        [column + 1, row],
        [column + 1, row + 1],
        [column, row + 1],
      ];
      const heights = corners.map(([x, y]) => at(x, y));
      if (!heights.every(Number.isFinite)) continue;
      const crossings: string[] = [];
      for (let side = 0; side < 4; side++) {
        const next = (side + 1) % 4;
        if (heights[side]! > 0 === heights[next]! > 0) continue;
        const share = heights[side]! / (heights[side]! - heights[next]!);
        const x = corners[side]![0] + share * (corners[next]![0] - corners[side]![0]);
        const y = corners[side]![1] + share * (corners[next]![1] - corners[side]![1]);
        crossings.push(`${(left + x + 0.5).toFixed(1)} ${(top + size - y - 0.5).toFixed(1)}`);
      }
      for (let pair = 0; pair + 1 < crossings.length; pair += 2) commands.push(`M${crossings[pair]}L${crossings[pair + 1]}`);
    }
  return `<path d="${commands.join("")}" fill="none" stroke="#222" stroke-width="1.2" stroke-linecap="round"/>`;
}

/** Each as long as its speed in the plot's own units, the longest a little less than the distance between two. */
function arrowPaths({ heatmap: { size, x, y, arrows }, em, left, top }: Figure): string {
  const { count, vectors } = arrows!;
  const spacing = size / count;
  const pixels = Array.from({ length: count * count }, (_, index) => {
    const dx = (vectors[2 * index]! * size) / (x.to - x.from);
    const dy = (-vectors[2 * index + 1]! * size) / (y.to - y.from);
    return { dx, dy, length: Math.hypot(dx, dy) };
  });
  const longest = Math.max(0, ...pixels.map(({ length }) => (Number.isFinite(length) ? length : 0)));
  if (longest === 0) return "";
  const commands = pixels.map(({ dx, dy, length }, index) => {
    const drawn = (length / longest) * spacing * 0.9;
    if (!Number.isFinite(length) || drawn < 0.5) return "";
    const [ux, uy] = [dx / length, dy / length];
    const centreX = left + ((index % count) + 0.5) * spacing;
    const centreY = top + size - (Math.floor(index / count) + 0.5) * spacing;
    const point = (along: number, across: number): string =>
      `${(centreX + along * ux - across * uy).toFixed(2)} ${(centreY + along * uy + across * ux).toFixed(2)}`;
    const head = Math.min(drawn * 0.4, em * 0.5);
    const tip = drawn / 2;
    return `M${point(-tip, 0)}L${point(tip, 0)}M${point(tip - head, head * 0.5)}L${point(tip, 0)}L${point(tip - head, -head * 0.5)}`;
  });
  const stroke = Math.max(0.9, em / 13).toFixed(2);
  return `<path d="${commands.join("")}" fill="none" stroke="#222" stroke-opacity="0.75" stroke-width="${stroke}" stroke-linejoin="round" stroke-linecap="round"/>`;
}
