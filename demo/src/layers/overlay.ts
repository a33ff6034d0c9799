/** Axes, colour bar, arrows and marks over a picture, drawn alike on the page and into a PNG. */
import { scaleLinear } from "d3-scale";
import { colourOf, type Domain } from "../base/colour.js";
import { atPixel, toPixel, type Plane, type Size, type View } from "../base/plane.js";

/** Arrows of f on the plane: (a, b) and f's components along u and v. */
export type Arrows = readonly (readonly [a: number, b: number, along: number, up: number])[];

/** What the page's own elements leave of each side of the picture, in CSS pixels. */
export interface Margins {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

export interface OverlayOptions {
  /** Of the picture, in CSS pixels. */
  readonly size: Size;
  readonly margins: Margins;
  readonly plane: Plane;
  readonly view: View;
  /** What the colours show, and its name, for the bar; null: nothing is coloured. */
  readonly bar: { readonly domain: Domain; readonly name: string } | null;
  readonly arrows: Arrows;
  readonly pin: readonly [number, number] | null;
  readonly ink: string;
  readonly paper: string;
}

const FONT = "12px system-ui, sans-serif";
const BAR = { width: 168, height: 9 } as const;
/** From what is free to the edge that it ends at, on which the ticks stand. */
export const EDGE = 12;

/** Whether there is no room for the bar beside the numbers of the axis: then it stands over them. */
function isNarrow({ size, margins }: Pick<OverlayOptions, "size" | "margins">): boolean {
  return size.width - margins.left - margins.right <= 560;
}

/** What axes and bar leave of what is free. */
export function withinAxes({ size, margins }: Pick<OverlayOptions, "size" | "margins">): Margins {
  const { left, bottom, ...others } = margins;
  return { ...others, left: left + 40, bottom: bottom + (isNarrow({ size, margins }) ? 92 : 64) };
}

/** A place of (x, y) for a box of a size that wants to be there, within what is free. */
export function withinFree(
  { left, top, right, bottom }: Margins,
  size: Size,
  [x, y]: readonly [number, number],
  box: Size,
): [number, number] {
  const between = (low: number, at: number, high: number): number => Math.max(low, Math.min(at, high));
  return [between(left, x, size.width - right - box.width), between(top, y, size.height - bottom - box.height)];
}

/** @param context scaled so that its units are CSS pixels. */
export function drawOverlay(context: CanvasRenderingContext2D, options: OverlayOptions): void {
  const { size } = options;
  context.clearRect(0, 0, size.width, size.height);
  context.font = FONT;
  drawArrows(context, options);
  drawAxes(context, options);
  drawPin(context, options);
  if (options.bar) drawBar(context, options, options.bar);
}

/** Words with an edge of paper: readable on any colour. */
function write(context: CanvasRenderingContext2D, { ink, paper }: OverlayOptions, text: string, x: number, y: number): void {
  context.lineJoin = "round";
  context.lineWidth = 3.5;
  context.strokeStyle = paper;
  context.strokeText(text, x, y);
  context.fillStyle = ink;
  context.fillText(text, x, y);
}

/** Ticks along the lower and the left edge of what the page leaves free. */
function drawAxes(context: CanvasRenderingContext2D, options: OverlayOptions): void {
  const { view, plane, ink, size, margins } = options;
  const [left, bottom] = [margins.left, size.height - margins.bottom];
  const [right, top] = [size.width - margins.right, margins.top];
  const end = options.bar && !isNarrow(options) ? right - BAR.width - 40 : right;
  const [a0, b0] = atPixel(view, size, left, bottom);
  const [a1] = atPixel(view, size, end, top);
  const [, b1] = atPixel(view, size, end, top);
  context.strokeStyle = ink;
  context.textAlign = "center";
  context.textBaseline = "bottom";
  const across = scaleLinear([a0, a1], [left, end]);
  const columns = Math.max(2, Math.floor((end - left) / 90));
  for (const tick of across.ticks(columns)) {
    const x = Math.round(across(tick)) + 0.5;
    if (x < left + 24) continue;
    line(context, x, bottom, x, bottom - 5);
    write(context, options, across.tickFormat(columns)(tick), x, bottom - 7);
  }
  context.textAlign = "left";
  write(context, options, `${plane.names[0]} →`, left + 30, bottom - 24);
  const up = scaleLinear([b0, b1], [bottom, top]);
  const rows = Math.max(2, Math.floor((bottom - top) / 80));
  context.textBaseline = "middle";
  for (const tick of up.ticks(rows)) {
    const y = Math.round(up(tick)) + 0.5;
    if (y > bottom - 60) continue;
    // Apart from the number, whose sign it is not.
    line(context, left - EDGE, y, left - EDGE + 6, y);
    write(context, options, up.tickFormat(rows)(tick), left + 2, y);
  }
  write(context, options, `↑ ${plane.names[1]}`, left + 2, bottom - 46);
}

function drawBar(context: CanvasRenderingContext2D, options: OverlayOptions, { domain, name }: NonNullable<OverlayOptions["bar"]>): void {
  const { size, margins } = options;
  const left = size.width - margins.right - BAR.width;
  const top = size.height - margins.bottom - BAR.height - (isNarrow({ size, margins }) ? 50 : 18);
  for (let column = 0; column < BAR.width; column++) {
    const value = domain.low + ((column + 0.5) / BAR.width) * (domain.high - domain.low);
    context.fillStyle = `rgb(${colourOf(value, domain).join(" ")})`;
    context.fillRect(left + column, top, 1.5, BAR.height);
  }
  context.strokeStyle = options.ink;
  context.lineWidth = 1;
  context.strokeRect(left - 0.5, top - 0.5, BAR.width + 1, BAR.height + 1);
  const scale = scaleLinear([domain.low, domain.high], [left, left + BAR.width]);
  context.textBaseline = "top";
  context.textAlign = "center";
  const format = scale.tickFormat(4);
  for (const tick of scale.ticks(4)) {
    const text = format(tick);
    // The last one ends where the picture does.
    write(context, options, text, Math.min(scale(tick), size.width - 4 - context.measureText(text).width / 2), top + BAR.height + 4);
  }
  context.textAlign = "right";
  context.textBaseline = "bottom";
  write(context, options, name, left + BAR.width, top - 5);
}

/** Those under the page's elements, or the axes' numbers and the bar, would make these hard to read. */
function drawArrows(context: CanvasRenderingContext2D, { view, size, margins, arrows: all, bar, ink, paper }: OverlayOptions): void {
  const [right, bottom] = [size.width - margins.right, size.height - margins.bottom];
  const inner = withinAxes({ size, margins });
  const arrows = all.filter(([a, b, along, up]) => {
    const [x, y] = toPixel(view, size, a, b);
    const isAtBar = bar !== null && x > right - BAR.width - 24 && y > size.height - inner.bottom;
    const isFree = x > inner.left && y > margins.top && x < right && y < bottom - 40 && !isAtBar;
    return isFree && Number.isFinite(along) && Number.isFinite(up);
  });
  if (arrows.length === 0) return;
  const most = Math.max(...arrows.map(([, , along, up]) => Math.hypot(along, up)), 1e-30);
  const longest = 34;
  const lines = new Path2D();
  for (const [a, b, along, up] of arrows) {
    const [x, y] = toPixel(view, size, a, b);
    // The square root: slow places keep a direction that can be seen.
    const speed = Math.hypot(along, up);
    const length = speed > 0 ? longest * Math.sqrt(speed / most) : 0;
    const [dx, dy] = speed > 0 ? [(along / speed) * length, (-up / speed) * length] : [0, 0];
    const [x1, y1] = [x + dx / 2, y + dy / 2];
    lines.moveTo(x - dx / 2, y - dy / 2);
    lines.lineTo(x1, y1);
    for (const turn of [2.6, -2.6]) {
      const angle = Math.atan2(dy, dx) + turn;
      lines.moveTo(x1, y1);
      lines.lineTo(x1 + 0.3 * length * Math.cos(angle), y1 + 0.3 * length * Math.sin(angle));
    }
  }
  context.lineCap = "round";
  context.globalAlpha = 0.55;
  context.strokeStyle = paper;
  context.lineWidth = 3;
  context.stroke(lines);
  context.globalAlpha = 0.8;
  context.strokeStyle = ink;
  context.lineWidth = 1.2;
  context.stroke(lines);
  context.globalAlpha = 1;
}

function drawPin(context: CanvasRenderingContext2D, { view, size, pin, ink, paper }: OverlayOptions): void {
  if (!pin) return;
  const [x, y] = toPixel(view, size, pin[0], pin[1]);
  for (const [style, thickness] of [
    [paper, 4],
    [ink, 2],
  ] as const) {
    context.strokeStyle = style;
    context.lineWidth = thickness;
    context.beginPath();
    context.arc(x, y, 6, 0, 2 * Math.PI);
    context.stroke();
  }
}

function line(context: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number): void {
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}
