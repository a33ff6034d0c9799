/** In 64 dimensions a point is an image of 8 x 8 pixels: what the flow makes of the points of a coarse grid over the plane. */
import type { Engine } from "../engines/engine.js";
import type { Margins } from "./overlay.js";
import { drawDigit } from "./digits.js";
import { atPixel, pointOn, toPixel, type Plane, type Size, type View } from "../base/plane.js";

const SPACING = 92;
const SIDE = 56;
const STEPS = 12;

export interface Image {
  /** On the plane. */
  readonly at: readonly [number, number];
  readonly pixels: HTMLCanvasElement;
}

/** Where the points of the plane get to from time t to 1, as images at the points. @throws what the engine throws. */
export async function traceImages(engine: Engine, plane: Plane, view: View, size: Size, margins: Margins, t: number): Promise<Image[]> {
  const [width, height] = [size.width - margins.left - margins.right, size.height - margins.top - margins.bottom];
  const [columns, rows] = [Math.max(2, Math.floor(width / SPACING)), Math.max(2, Math.floor(height / SPACING))];
  const places = Array.from({ length: columns * rows }, (_, index) => {
    const x = margins.left + (((index % columns) + 0.5) / columns) * width;
    const y = margins.top + ((Math.floor(index / columns) + 0.5) / rows) * height;
    return atPixel(view, size, x, y);
  });
  const d = plane.origin.length;
  const points = Float32Array.from(places.flatMap(([a, b]) => pointOn(plane, a, b)));
  const ends = t >= 1 ? points : (await engine.transport(points, { solver: "rk4", steps: STEPS, from: t, to: 1 })).points;
  return places.map((at, index) => {
    const pixels = document.createElement("canvas");
    drawDigit(pixels, Array.from(ends.subarray(index * d, (index + 1) * d)));
    return { at, pixels };
  });
}

/** @param context scaled so that its units are CSS pixels. */
export function drawImages(context: CanvasRenderingContext2D, images: readonly Image[], view: View, size: Size): void {
  context.imageSmoothingEnabled = false;
  for (const { at, pixels } of images) {
    const [x, y] = toPixel(view, size, at[0], at[1]);
    context.drawImage(pixels, x - SIDE / 2, y - SIDE / 2, SIDE, SIDE);
  }
}
