/** The fields that the page knows: six trained ones, a random network, and whatever is dropped onto it. */
import { mlp, parseSafetensors, type Network } from "deldot";
import checkerboard from "../models/checkerboard-flow.safetensors?url";
import digits from "../models/digits-flow.safetensors?url";
import lorenz from "../models/lorenz.safetensors?url";
import taylorGreen from "../models/taylor-green.safetensors?url";
import twoMoons from "../models/two-moons-flow.safetensors?url";
import vanDerPol from "../models/van-der-pol.safetensors?url";
import { uniforms, type View } from "./plane.js";
import type { PlaneChoice, RandomNetwork } from "./state.js";

/** The divergence as it should be: constant + square x_0². */
export interface Truth {
  readonly constant: number;
  readonly square: number;
  readonly text: string;
}

export interface ShippedField {
  readonly title: string;
  readonly about: string;
  readonly url: string;
  readonly file: string;
  readonly truth: Truth | null;
  readonly context: readonly number[];
  readonly view: View;
  readonly plane: PlaneChoice;
}

const axes = (i: number, j: number, rest: readonly number[] = []): PlaneChoice => ({ kind: "axes", i, j, rest });
const about = (width: number, a = 0, b = 0): View => ({ a, b, width });

export const shippedFields: Readonly<Record<string, ShippedField>> = {
  "two-moons-flow": {
    title: "Two moons, a flow",
    about:
      "A velocity that carries a normal distribution (t = 0) into two moons (t = 1), by flow matching. Orange spreads the samples, purple gathers them; the integral of the divergence along a path is the change of the log-density.",
    url: twoMoons,
    file: "two-moons-flow.safetensors",
    truth: null,
    context: [0.9],
    view: about(6),
    plane: axes(0, 1),
  },
  "checkerboard-flow": {
    title: "Checkerboard, a flow",
    about: "The same towards a checkerboard, by three hidden layers of 128 with GELU. The fields of the board appear as t nears 1.",
    url: checkerboard,
    file: "checkerboard-flow.safetensors",
    truth: null,
    context: [0.9],
    view: about(9),
    plane: axes(0, 1),
  },
  "digits-flow": {
    title: "Digits, a flow in 64 dimensions",
    about:
      "The same towards images of 8 x 8 handwritten digits (UCI). The plane goes through three digits that the flow itself draws from noise; every point on it is an image.",
    url: digits,
    file: "digits-flow.safetensors",
    truth: null,
    context: [0.9],
    view: about(14, 2, 2),
    plane: { kind: "digits", seed: 4 },
  },
  lorenz: {
    title: "The Lorenz system, learned",
    about:
      "Regression of the Lorenz system (σ = 10, ρ = 28, β = 8/3; coordinates divided by 10). The true divergence is -(10 + 1 + 8/3) = -13.667 everywhere: all that varies is the network's error.",
    url: lorenz,
    file: "lorenz.safetensors",
    truth: { constant: -(10 + 1 + 8 / 3), square: 0, text: "-(10 + 1 + 8/3) = -13.667" },
    context: [],
    view: about(5, 0, 2.5),
    plane: axes(0, 2, [0, 0, 0]),
  },
  "van-der-pol": {
    title: "The van der Pol oscillator, learned",
    about:
      "Regression of the oscillator with μ = 1. The true divergence is 1 - x₀²: volume grows in the middle and shrinks outside, which makes the limit cycle.",
    url: vanDerPol,
    file: "van-der-pol.safetensors",
    truth: { constant: 1, square: -1, text: "1 - x₀²" },
    context: [],
    view: about(7),
    plane: axes(0, 1),
  },
  "taylor-green": {
    title: "The Taylor-Green vortex, learned",
    about: "Regression of an incompressible flow, with sine activations. The true divergence is 0, so any colour is the error of the fit.",
    url: taylorGreen,
    file: "taylor-green.safetensors",
    truth: { constant: 0, square: 0, text: "0" },
    context: [],
    view: about(6.4),
    plane: axes(0, 1),
  },
};

/** @throws Error where the server does not have the file, ModelError where it is damaged. */
export async function loadShipped({ url, file }: ShippedField): Promise<Network> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${file} could not be loaded: ${response.status} ${response.statusText}`);
  return parseSafetensors(new Uint8Array(await response.arrayBuffer()));
}

/** Weights and biases uniform in ±gain/√inputs. */
export function randomNetwork({ seed, dimensions, width, depth, activation, gain }: RandomNetwork): Network {
  const next = uniforms(seed);
  const widths = [dimensions, ...Array<number>(depth).fill(width), dimensions];
  const layers = widths.slice(1).map((outputs, layer) => {
    const inputs = widths[layer]!;
    const draw = (count: number): Float32Array => Float32Array.from({ length: count }, () => ((2 * next() - 1) * gain) / Math.sqrt(inputs));
    return { weight: { data: draw(outputs * inputs), shape: [outputs, inputs] as const }, bias: draw(outputs) };
  });
  return mlp({ layers, activation });
}
