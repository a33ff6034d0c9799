/** What moves over the picture: a cloud with trails, the paths it takes. */
import { placeAt, shareOf, type Cloud } from "./cloud.js";
import { toPixel, type Size, type View } from "../base/plane.js";

/** Of a way, what is drawn behind a point, and in how many pieces: it has a bend or two. */
const TRAIL = 0.07;
const PIECES = 2;
const PATHS = 140;
const RADIUS = 1.5;
const GROWS = "rgb(255 165 70)";
const SHRINKS = "rgb(165 130 255)";
const GROWS_LIGHT = "rgb(179 88 6)";
const SHRINKS_LIGHT = "rgb(84 39 136)";

export interface Motion {
  readonly cloud: Cloud;
  /** See shareOf. */
  readonly time: number;
  readonly view: View;
  /** In CSS pixels. */
  readonly size: Size;
  readonly samples: boolean;
  readonly paths: boolean;
  readonly isDark: boolean;
}

/** @param context scaled so that its units are CSS pixels. */
export function drawMotion(context: CanvasRenderingContext2D, motion: Motion): void {
  if (motion.paths) drawPaths(context, motion);
  if (motion.samples) drawSamples(context, motion);
}

/** Dots: larger where the volume around one has grown, smaller where it shrank. */
function drawSamples(context: CanvasRenderingContext2D, { cloud, time, view, size, isDark }: Motion): void {
  const ink = isDark ? "255 255 255" : "20 18 30";
  const dots: [number, number, number][][] = [[], []];
  const trails = new Path2D();
  for (let i = 0; i < cloud.count; i++) {
    const share = shareOf(cloud, i, time);
    const [a, b, growth] = placeAt(cloud, i, share);
    const [x, y] = toPixel(view, size, a, b);
    if (!(x > -40 && y > -40 && x < size.width + 40 && y < size.height + 40)) continue;
    for (let piece = PIECES; piece > 0; piece--) {
      const behind = placeAt(cloud, i, share - (TRAIL * piece) / PIECES);
      const [tx, ty] = toPixel(view, size, behind[0], behind[1]);
      if (piece === PIECES) trails.moveTo(tx, ty);
      else trails.lineTo(tx, ty);
    }
    trails.lineTo(x, y);
    const radius = RADIUS * Math.min(1.8, Math.max(0.7, 2 ** (0.25 * growth)));
    // A steady point comes and goes by degrees.
    const isFaint = cloud.kind === "steady" && (share < 0.08 || share > 0.92);
    dots[isFaint ? 1 : 0]!.push([x, y, radius]);
  }
  context.lineCap = "round";
  context.lineWidth = 1;
  context.strokeStyle = `rgb(${ink} / 0.28)`;
  context.stroke(trails);
  for (const [index, some] of dots.entries()) {
    context.fillStyle = `rgb(${ink} / ${index === 0 ? 0.9 : 0.35})`;
    // One by one: a path of all of them takes a browser half as long again.
    for (const [x, y, radius] of some) {
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fill();
    }
  }
}

/** Whole ways, orange where the volume grows, purple where it shrinks. */
function drawPaths(context: CanvasRenderingContext2D, { cloud, view, size, isDark }: Motion): void {
  const stops = cloud.times.length;
  const lines = { grows: new Path2D(), shrinks: new Path2D() };
  for (let i = 0; i < Math.min(PATHS, cloud.count); i++)
    for (let stop = 0; stop + 1 < stops; stop++) {
      const [from, to] = [stop * cloud.count + i, (stop + 1) * cloud.count + i];
      const line = cloud.growth[to]! > cloud.growth[from]! ? lines.grows : lines.shrinks;
      line.moveTo(...toPixel(view, size, cloud.places[2 * from]!, cloud.places[2 * from + 1]!));
      line.lineTo(...toPixel(view, size, cloud.places[2 * to]!, cloud.places[2 * to + 1]!));
    }
  context.lineWidth = 1.2;
  context.lineCap = "round";
  context.globalAlpha = 0.75;
  context.strokeStyle = isDark ? GROWS : GROWS_LIGHT;
  context.stroke(lines.grows);
  context.strokeStyle = isDark ? SHRINKS : SHRINKS_LIGHT;
  context.stroke(lines.shrinks);
  context.globalAlpha = 1;
}
