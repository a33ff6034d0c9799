import { readFile } from "node:fs/promises";
import { mlp, parseOnnx, parseSafetensors, type Network } from "deldot";
import { random } from "../test/random.js";

/** `length` uniform numbers in [0, 1), float32. */
export function uniformNumbers(seed: number, length: number): Float32Array {
  const uniform = random(seed);
  return Float32Array.from({ length }, () => uniform());
}

/** Standard normal points [count, size], float32 (Box and Muller). */
export function normalPoints(seed: number, count: number, size: number): Float32Array {
  const uniform = random(seed);
  return Float32Array.from({ length: count * size }, () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

/** The nodes of a grid over [-reach, reach]² with `side` of them along each axis, x fastest: [side², 2]. */
export function gridPoints(side: number, reach: number): Float32Array {
  const points = new Float32Array(2 * side * side);
  const at = (index: number): number => reach * ((2 * index) / Math.max(1, side - 1) - 1);
  for (let node = 0; node < side * side; node++) points.set([at(node % side), at(Math.floor(node / side))], 2 * node);
  return points;
}

/** d inputs, `layers` hidden layers of `width`, d outputs; weights and biases uniform in ±1/√inputs, as PyTorch's nn.Linear has them. */
export function randomMlp(d: number, width: number, layers: number, activation: string): Network {
  const uniform = random(1);
  const widths = [d, ...Array<number>(layers).fill(width), d];
  const draw = (inputs: number, length: number): Float32Array =>
    Float32Array.from({ length }, () => (2 * uniform() - 1) / Math.sqrt(inputs));
  return mlp({
    layers: widths.slice(1).map((outputs, index) => {
      const inputs = widths[index]!;
      return {
        weight: { data: draw(inputs, outputs * inputs), shape: [outputs, inputs] as [number, number] },
        bias: draw(inputs, outputs),
      };
    }),
    activation,
  });
}

/** A trained network, or an architecture with random weights, out of a file of this repository. */
export async function readNetwork(path: string): Promise<Network> {
  const bytes = await readFile(new URL(`../${path}`, import.meta.url));
  return path.endsWith(".onnx") ? parseOnnx(bytes) : parseSafetensors(bytes);
}
