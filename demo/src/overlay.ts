/** Axes, colour bar, arrows and marks over a picture, drawn alike on the page and into a PNG. */
import { scaleLinear } from "d3-scale";
import { colourOf, type Palette } from "./colour.js";
import type { Layout, PanelPlace } from "./layout.js";
import { atPixel, toPixel, type Plane, type View } from "./plane.js";

/** Arrows of f on the plane: (a, b) and f's components along u and v. */
export type Arrows = readonly (readonly [a: number, b: number, along: number, up: number])[];

export interface OverlayOptions {
  readonly layout: Layout;
  readonly plane: Plane;
  readonly view: View;
  readonly scale: number;
  readonly palette: Palette;
  /** What the colours show, for the bar. */
  readonly name: string;
  readonly arrows: Arrows;
  readonly pin: readonly [number, number] | null;
  readonly ink: string;
  readonly paper: string;
}

const FONT = "12px system-ui, sans-serif";
const TITLES = { field: "field", truth: "truth", difference: "difference" } as const;

/** @param context scaled so that its units are CSS pixels. */
export function drawOverlay(context: CanvasRenderingContext2D, options: OverlayOptions): void {
  const { layout, ink } = options;
  context.clearRect(0, 0, layout.size.width, layout.size.height);
  context.font = FONT;
  context.fillStyle = ink;
  context.strokeStyle = ink;
  layout.panels.forEach((place, index) => {
    const below = layout.panels[index + 1];
    const isLeft = index === 0 || place.left === layout.panels[0]!.left;
    const isBottom = !below || below.left !== place.left;
    if (layout.panels.length > 1) {
      context.textAlign = "left";
      context.textBaseline = "bottom";
      context.fillText(TITLES[place.panel], place.left, place.top - 4);
    }
    if (place.panel === "field") drawArrows(context, place, options);
    drawAxes(context, place, options, { isLeft, isBottom });
    drawPin(context, place, options);
  });
  drawBar(context, options);
}

function drawAxes(
  context: CanvasRenderingContext2D,
  place: PanelPlace,
  { view, plane, ink }: OverlayOptions,
  { isLeft, isBottom }: { isLeft: boolean; isBottom: boolean },
): void {
  const { left, top, width, height } = place;
  const [a0, b1] = atPixel(view, place, 0, 0);
  const [a1, b0] = atPixel(view, place, width, height);
  context.lineWidth = 1;
  context.strokeStyle = ink;
  context.fillStyle = ink;
  context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);
  if (isBottom) {
    const across = scaleLinear([a0, a1], [left, left + width]);
    const count = Math.max(2, Math.floor(width / 70));
    const format = across.tickFormat(count);
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const tick of across.ticks(count)) {
      const x = Math.round(across(tick)) + 0.5;
      line(context, x, top + height, x, top + height + 5);
      context.fillText(format(tick), x, top + height + 8);
    }
    context.fillText(plane.names[0], left + width / 2, top + height + 26);
  }
  if (isLeft) {
    drawTicksUp(context, [b0, b1], place, left, -1);
    context.save();
    context.translate(10, top + height / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText(plane.names[1], 0, 0);
    context.restore();
  }
}

function drawBar(context: CanvasRenderingContext2D, { layout, scale, palette, name, ink }: OverlayOptions): void {
  const { left, top, width, height } = layout.bar;
  const low = palette === "diverging" ? -scale : 0;
  for (let row = 0; row < height; row++) {
    const [r, g, b] = colourOf(scale - ((row + 0.5) / height) * (scale - low), scale, palette);
    context.fillStyle = `rgb(${r} ${g} ${b})`;
    context.fillRect(left, top + row, width, 1.5);
  }
  context.strokeStyle = ink;
  context.fillStyle = ink;
  context.lineWidth = 1;
  context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);
  drawTicksUp(context, [low, scale], layout.bar, left + width, 1);
  context.textAlign = "center";
  context.textBaseline = "top";
  context.fillText(name, left + width / 2 + 8, top + height + 14);
}

/** Ticks and numbers along an upright line at x, to its left (-1) or right (1). */
function drawTicksUp(
  context: CanvasRenderingContext2D,
  domain: readonly [number, number],
  { top, height }: { readonly top: number; readonly height: number },
  x: number,
  side: -1 | 1,
): void {
  const up = scaleLinear(domain, [top + height, top]);
  const count = Math.max(3, Math.floor(height / 50));
  const format = up.tickFormat(count);
  context.textAlign = side < 0 ? "right" : "left";
  context.textBaseline = "middle";
  for (const tick of up.ticks(count)) {
    const y = Math.round(up(tick)) + 0.5;
    line(context, x, y, x + 5 * side, y);
    context.fillText(format(tick), x + 8 * side, y);
  }
}

function drawArrows(context: CanvasRenderingContext2D, place: PanelPlace, { view, arrows: all }: OverlayOptions): void {
  const arrows = all.filter(([, , along, up]) => Number.isFinite(along) && Number.isFinite(up));
  const most = Math.max(...arrows.map(([, , along, up]) => Math.hypot(along, up)), 1e-30);
  const longest = place.width / Math.max(6, Math.sqrt(arrows.length)) / 1.2;
  context.save();
  context.beginPath();
  context.rect(place.left, place.top, place.width, place.height);
  context.clip();
  // Dark with a light edge: visible on any colour.
  for (const [style, thickness] of [
    ["rgb(255 255 255 / 0.6)", 3],
    ["rgb(20 20 20 / 0.85)", 1.2],
  ] as const) {
    context.strokeStyle = style;
    context.lineWidth = thickness;
    context.beginPath();
    for (const [a, b, along, up] of arrows) {
      const [x, y] = toPixel(view, place, a, b);
      // The square root: slow places keep a direction that can be seen.
      const size = Math.hypot(along, up);
      const length = size > 0 ? longest * Math.sqrt(size / most) : 0;
      const [dx, dy] = size > 0 ? [(along / size) * length, (-up / size) * length] : [0, 0];
      const [x0, y0, x1, y1] = [place.left + x - dx / 2, place.top + y - dy / 2, place.left + x + dx / 2, place.top + y + dy / 2];
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
      for (const turn of [2.6, -2.6]) {
        const angle = Math.atan2(dy, dx) + turn;
        context.moveTo(x1, y1);
        context.lineTo(x1 + 0.32 * length * Math.cos(angle), y1 + 0.32 * length * Math.sin(angle));
      }
    }
    context.stroke();
  }
  context.restore();
}

function drawPin(context: CanvasRenderingContext2D, place: PanelPlace, { view, pin, ink, paper }: OverlayOptions): void {
  if (!pin) return;
  const [x, y] = toPixel(view, place, pin[0], pin[1]);
  if (x < 0 || y < 0 || x > place.width || y > place.height) return;
  for (const [style, thickness] of [
    [paper, 4],
    [ink, 2],
  ] as const) {
    context.strokeStyle = style;
    context.lineWidth = thickness;
    context.beginPath();
    context.arc(place.left + x, place.top + y, 6, 0, 2 * Math.PI);
    context.stroke();
  }
}

function line(context: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number): void {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}
