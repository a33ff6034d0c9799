/** Images of 8 x 8 pixels that a flow draws out of noise. */
import { evaluateReference, type Network } from "deldot";
import { normals } from "./plane.js";

const STEPS = 24;

/** Carries `count` points of a standard normal from t = 0 to t = 1, by the midpoint rule, in float64. */
export function drawSamples(network: Network, count: number, seed: number): number[][] {
  const next = normals(seed);
  const d = network.stateSize;
  let x = Float64Array.from({ length: count * d }, () => next());
  const velocity = (at: Float64Array, t: number): Float64Array =>
    evaluateReference(network, Float32Array.from(at), { context: [t], outputs: ["value"] }).value!;
  for (let step = 0; step < STEPS; step++) {
    const [t, dt] = [step / STEPS, 1 / STEPS];
    const first = velocity(x, t);
    const half = velocity(
      x.map((value, k) => value + (dt / 2) * first[k]!),
      t + dt / 2,
    );
    x = x.map((value, k) => value + dt * half[k]!);
  }
  return Array.from({ length: count }, (_, index) => Array.from(x.subarray(index * d, (index + 1) * d)));
}

/** -1 is paper, 1 is ink. */
export function drawDigit(canvas: HTMLCanvasElement, pixels: readonly number[]): void {
  canvas.width = 8;
  canvas.height = 8;
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(8, 8);
  pixels.forEach((value, index) => {
    const shade = 255 * (0.5 - 0.5 * Math.min(1, Math.max(-1, value)));
    image.data.set([shade, shade, shade, 255], 4 * index);
  });
  context.putImageData(image, 0, 0);
}
