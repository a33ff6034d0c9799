/** Images of 8 x 8 pixels that a flow draws out of noise. */
import { transportReference, type Network } from "deldot";
import { normals } from "../base/plane.js";

const STEPS = 24;

/** Carries `count` points of a standard normal from t = 0 to t = 1, by the midpoint rule, in float64. */
export function drawSamples(network: Network, count: number, seed: number): number[][] {
  const next = normals(seed);
  const d = network.stateSize;
  const noise = Float64Array.from({ length: count * d }, () => next());
  const { points } = transportReference(network, noise, { solver: "midpoint", steps: STEPS });
  return Array.from({ length: count }, (_, index) => Array.from(points.subarray(index * d, (index + 1) * d)));
}

/** -1 is paper, 1 is ink. */
export function drawDigit(canvas: HTMLCanvasElement, pixels: readonly number[]): void {
  canvas.width = 8;
  canvas.height = 8;
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  const image = context.createImageData(8, 8);
  pixels.forEach((value, index) => {
    const shade = 255 * (0.5 - 0.5 * Math.min(1, Math.max(-1, value)));
    image.data.set([shade, shade, shade, 255], 4 * index);
  });
  context.putImageData(image, 0, 0);
}
