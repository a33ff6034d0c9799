/** The fields of the page's shelf: formulas, trained networks, a random one. */
import { mlp, parseSafetensors, type Network } from "deldot";
import checkerboard from "../../models/checkerboard-flow.safetensors?url";
import digits from "../../models/digits-flow.safetensors?url";
import lorenz from "../../models/lorenz.safetensors?url";
import taylorGreen from "../../models/taylor-green.safetensors?url";
import twoMoons from "../../models/two-moons.safetensors?url";
import vanDerPol from "../../models/van-der-pol.safetensors?url";
import { parseFormula } from "./formula.js";
import { uniforms, type View } from "../base/plane.js";
import type { Layer, PlaneChoice, RandomNetwork } from "../base/state.js";

export const groups = ["Basics", "Flows", "Physics"] as const;

/** A piece of a headline; those that grow or shrink show, when pointed at, where; that of sign 0 is cut where the line is too short. */
export type Phrase = string | { readonly text: string; readonly sign: 1 | -1 | 0 };

export interface ShelfField {
  readonly title: string;
  readonly group: (typeof groups)[number];
  /** What is to be seen, in a line: of at most 92 letters, which a window of 900 pixels has room for beside the shelf. */
  readonly headline: readonly Phrase[];
  readonly about: string;
  /** A trained network's file, or a formula. */
  readonly source:
    | { readonly kind: "file"; readonly url: string; readonly file: string }
    | { readonly kind: "formula"; readonly text: string };
  /** The field as it should be, as a formula. */
  readonly truth: string | null;
  readonly context: readonly number[];
  readonly plane: PlaneChoice;
  /** What has to be in the picture: its middle, and how far it reaches to the sides, up and down. */
  readonly extent: { readonly a: number; readonly b: number; readonly across: number; readonly up: number };
  readonly layers: readonly Layer[];
}

const axes = (i: number, j: number, rest: readonly number[] = []): PlaneChoice => ({ kind: "axes", i, j, rest });
const around = (across: number, up: number, a = 0, b = 0): ShelfField["extent"] => ({ a, b, across, up });
/** What the colours mean, for fields of which no more is known. */
export const MEANING: readonly Phrase[] = [{ text: "Orange makes room", sign: 1 }, ", ", { text: "purple squeezes", sign: -1 }, "."];
/** The same where a field is beside what it should be. */
export const MEANING_OF_ERROR: readonly Phrase[] = [
  "∇·f less the truth: ",
  { text: "orange too high", sign: 1 },
  ", ",
  { text: "purple too low", sign: -1 },
  ".",
];
const grows = (text: string): Phrase => ({ text, sign: 1 });
const shrinks = (text: string): Phrase => ({ text, sign: -1 });

const GROUND: readonly Layer[] = ["div", "samples", "arrows"];
const basic = (title: string, text: string, headline: readonly Phrase[], about: string): ShelfField => ({
  title,
  group: "Basics",
  headline,
  about,
  source: { kind: "formula", text },
  truth: null,
  context: [],
  plane: axes(0, 1),
  extent: around(2, 2),
  layers: GROUND,
});

export const shelf: Readonly<Record<string, ShelfField>> = {
  source: basic("Source", "x, y", [grows("A source makes room"), " everywhere alike: ∇·f = 2."], "f = (x, y)"),
  sink: basic("Sink", "-x, -y", [shrinks("A sink squeezes"), " everywhere alike: ∇·f = -2."], "f = (-x, -y)"),
  rotation: basic("Rotation", "-y, x", ["A rotation only turns: it neither makes room nor squeezes, ∇·f = 0."], "f = (-y, x)"),
  shear: basic("Shear", "y, 0", ["A shear slants what it carries and keeps its area: ∇·f = 0."], "f = (y, 0)"),
  saddle: basic("Saddle", "x, -y", ["A saddle stretches one way as much as it squeezes the other: ∇·f = 1 - 1 = 0."], "f = (x, -y)"),
  wells: basic(
    "Wells",
    "x - x^3, -y/2",
    ["Downhill into one of two wells: ", grows("the ridge spreads"), ", ", shrinks("the wells gather"), "; ∇·f = 1/2 - 3x²."],
    "f = (x - x³, -y/2)",
  ),
  "two-moons": {
    title: "Two moons",
    group: "Flows",
    headline: ["This network turns noise into two moons. ", ...MEANING],
    about:
      "A velocity that carries a normal distribution (t = 0) into two moons (t = 1), learned by flow matching with optimal-transport pairs (npm run train): 64-64, GELU. The integral of its divergence along a path is the change of the log-density.",
    source: { kind: "file", url: twoMoons, file: "two-moons.safetensors" },
    truth: null,
    context: [0],
    plane: axes(0, 1),
    extent: around(2.6, 2.2),
    layers: ["div", "samples"],
  },
  checkerboard: {
    title: "Checkerboard",
    group: "Flows",
    headline: ["This network turns noise into a checkerboard: ", grows("orange opens gaps"), ", ", shrinks("purple fills squares"), "."],
    about: "Flow matching towards a checkerboard, by three hidden layers of 128 with GELU.",
    source: { kind: "file", url: checkerboard, file: "checkerboard-flow.safetensors" },
    truth: null,
    context: [0],
    plane: axes(0, 1),
    extent: around(4.3, 4.3),
    layers: ["div", "samples"],
  },
  digits: {
    title: "Digits, 64-d",
    group: "Flows",
    headline: ["Digits drawn from noise: a plane in 64 dimensions. ", ...MEANING],
    about:
      "Flow matching towards images of 8 x 8 handwritten digits (UCI). The plane goes through three digits that the flow itself draws; every point on it is an image.",
    source: { kind: "file", url: digits, file: "digits-flow.safetensors" },
    truth: null,
    context: [0],
    plane: { kind: "digits", seed: 4 },
    extent: around(6, 5, 2, 2),
    layers: ["div", "samples"],
  },
  lorenz: {
    title: "Lorenz",
    group: "Physics",
    headline: [
      "∇·f of the Lorenz system is -13.667; this network's is off: ",
      grows("orange too high"),
      ", ",
      shrinks("purple too low"),
      ".",
    ],
    about:
      "Regression of the Lorenz system (σ = 10, ρ = 28, β = 8/3; coordinates divided by 10). The true divergence is -(10 + 1 + 8/3) = -13.667 everywhere: all that varies is the network's error.",
    source: { kind: "file", url: lorenz, file: "lorenz.safetensors" },
    truth: "10*(y - x), x*(28 - 10*z) - y, 10*x*y - 8/3*z",
    context: [],
    plane: axes(0, 2, [0, 0, 0]),
    extent: around(2.5, 2.4, 0, 2.4),
    layers: ["samples", "error"],
  },
  "van-der-pol": {
    title: "Van der Pol",
    group: "Physics",
    headline: [
      "An oscillator: ",
      grows("the middle pushes outwards"),
      ", ",
      shrinks("the flanks squeeze"),
      ", and a cycle is what remains.",
    ],
    about:
      "Regression of the van der Pol oscillator with μ = 1. The true divergence is 1 - x₀²: volume grows in the middle and shrinks outside, which makes the limit cycle.",
    source: { kind: "file", url: vanDerPol, file: "van-der-pol.safetensors" },
    truth: "y, (1 - x*x)*y - x",
    context: [],
    plane: axes(0, 1),
    extent: around(3, 3),
    layers: ["div", "samples"],
  },
  "taylor-green": {
    title: "Taylor-Green",
    group: "Physics",
    headline: ["Vortices keep volume: ∇·f should be 0, and is off: ", grows("orange too high"), ", ", shrinks("purple too low"), "."],
    about: "Regression of the Taylor-Green vortex with sine activations, by three hidden layers of 64. The true divergence is 0.",
    source: { kind: "file", url: taylorGreen, file: "taylor-green.safetensors" },
    truth: "sin(x)*cos(y), -cos(x)*sin(y)",
    context: [],
    plane: axes(0, 1),
    extent: around(3.2, 3.2),
    layers: ["samples", "error"],
  },
};

/** The field of the shelf of that name; undefined where there is none. */
export function shelfField(name: string): ShelfField | undefined {
  return Object.hasOwn(shelf, name) ? shelf[name] : undefined;
}

/** Every formula there is on the shelf, as a field or as a truth. */
export const formulas: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries(shelf).flatMap(([name, { source, truth }]) => {
    const text = source.kind === "formula" ? source.text : truth;
    return text === null ? [] : [[name, text]];
  }),
);

/** @throws Error where the server does not have the file, ModelError where it is damaged. */
export async function loadShelf({ source }: ShelfField): Promise<Network> {
  if (source.kind === "formula") return parseFormula(source.text);
  const response = await fetch(source.url);
  if (!response.ok) throw new Error(`${source.file} could not be loaded: ${response.status} ${response.statusText}`);
  return parseSafetensors(new Uint8Array(await response.arrayBuffer()));
}

/** The part of the plane that shows all of `extent` in what is free of a window, in CSS pixels. */
export function viewOf(
  { a, b, across, up }: ShelfField["extent"],
  window: { width: number; height: number },
  free: { left: number; top: number; right: number; bottom: number },
): View {
  const [width, height] = [Math.max(80, window.width - free.left - free.right), Math.max(80, window.height - free.top - free.bottom)];
  const perPixel = Math.max((2 * across) / width, (2 * up) / height);
  return {
    a: a - ((free.left - free.right) / 2) * perPixel,
    b: b + ((free.top - free.bottom) / 2) * perPixel,
    width: window.width * perPixel,
  };
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
