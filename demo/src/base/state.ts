/** All that a picture depends on, and the link that restores it. */
import { activationNames, type Activation } from "deldot";
import type { View } from "./plane.js";
import type { Quantity } from "./quantity.js";

/** A random network: PyTorch's initialisation times `gain`. */
export interface RandomNetwork {
  readonly seed: number;
  readonly dimensions: number;
  readonly width: number;
  readonly depth: number;
  readonly activation: Activation["name"];
  readonly gain: number;
}

export type PlaneChoice =
  | { readonly kind: "axes"; readonly i: number; readonly j: number; readonly rest: readonly number[] }
  | { readonly kind: "random"; readonly seed: number }
  | { readonly kind: "digits"; readonly seed: number };

/** What lies over one another on the stage, in the order of the keys 1 to 6. The grounds exclude each other: they colour all of it. */
export const layers = ["div", "density", "samples", "paths", "arrows", "error"] as const;
export type Layer = (typeof layers)[number];
export const grounds: readonly Layer[] = ["div", "density", "error"];

export interface State {
  /** The name of a field of the shelf, "random", "formula", "drawn" for one that was learned, or "file" for one that was dropped. */
  readonly field: string;
  readonly random: RandomNetwork;
  /** Of "formula": what was typed. */
  readonly formula: string;
  /** The truth that was typed, as a formula; null: the field's own, if it has one. */
  readonly truth: string | null;
  readonly context: readonly number[];
  readonly layers: readonly Layer[];
  /** What the layer "div" shows. */
  readonly quantity: Quantity;
  readonly contour: boolean;
  readonly plane: PlaneChoice;
  readonly view: View;
  /** The end of the colour bar; null: what fits. */
  readonly scale: number | null;
  /** The pinned point on the plane, (a, b). */
  readonly pin: readonly [number, number] | null;
}

/** A link names a field and part of a state; the field has its own for the rest. Of "drawn", `weights` are the field: see training/weights.ts. */
export type Link = Pick<State, "field"> & Partial<State> & { readonly weights?: string };

/** What a field and a link say nothing of. */
export const initialState: State = {
  field: "two-moons",
  random: { seed: 1, dimensions: 2, width: 64, depth: 2, activation: "tanh", gain: 2 },
  formula: "y, (1 - x*x)*y - x",
  truth: null,
  context: [],
  layers: ["div", "samples"],
  quantity: "divergence",
  contour: true,
  plane: { kind: "axes", i: 0, j: 1, rest: [] },
  view: { a: 0, b: 0, width: 6 },
  scale: null,
  pin: null,
};

/** What follows the # of a link: the field, then what there is to say of it, such as `two-moons/t=0.9/x=0,0/w=6/layers=div,samples`. */
export function toHash(link: Link): string {
  const { field, random, formula, truth, context, layers, quantity, contour, plane, view, scale, pin, weights } = link;
  const list = (numbers: readonly (number | string)[]): string =>
    numbers.map((x) => (typeof x === "number" && !Number.isInteger(x) ? Number(x.toPrecision(9)) : x)).join(",");
  const parts: (string | false | undefined | null)[] = [
    encodeURIComponent(field),
    field === "random" && random && `net=${list(Object.values(random) as (number | string)[])}`,
    field === "formula" && formula !== undefined && `f=${encodeURIComponent(formula)}`,
    weights && `n=${weights}`,
    truth && `truth=${encodeURIComponent(truth)}`,
    context && context.length > 0 && `t=${list(context)}`,
    // In two dimensions there are no others.
    plane?.kind === "axes" && (plane.i !== 0 || plane.j !== 1 || plane.rest.length > 2) && `axes=${list([plane.i, plane.j])}`,
    plane?.kind === "axes" && plane.rest.some((x) => x !== 0) && `at=${list(plane.rest)}`,
    plane && plane.kind !== "axes" && `plane=${plane.kind},${plane.seed}`,
    view && `x=${list([view.a, view.b])}`,
    view && `w=${list([view.width])}`,
    layers && `layers=${layers.join(",")}`,
    quantity && quantity !== "divergence" && `show=${quantity}`,
    contour === false && "contour=off",
    scale !== null && scale !== undefined && `scale=${list([scale])}`,
    pin && `pin=${list(pin)}`,
  ];
  return parts.filter((part) => typeof part === "string").join("/");
}

/** What a link says; null where it is none. What is unknown or damaged in it is left out. */
export function fromHash(hash: string): Link | null {
  const text = hash.replace(/^#/, "");
  if (text.startsWith("%7B") || text.startsWith("{")) return fromOldHash(text);
  const [name, ...parts] = text.split("/");
  const field = decoded(name!);
  if (!field || !/^[a-z][a-z0-9-]*$/.test(field)) return null;
  const given = new Map(
    parts.map((part) => {
      const at = part.indexOf("=");
      return at < 0 ? [part, ""] : [part.slice(0, at), part.slice(at + 1)];
    }),
  );
  const numbersOf = (key: string, count?: number): number[] | null => {
    const value = given.get(key);
    if (!value) return null;
    const numbers = value.split(",").map(Number);
    return numbers.every((x) => Number.isFinite(x)) && (count === undefined || numbers.length === count) ? numbers : null;
  };
  const [middle, width, axes] = [numbersOf("x", 2), numbersOf("w", 1), numbersOf("axes", 2)];
  const [pin, scale, context, rest] = [numbersOf("pin", 2), numbersOf("scale", 1), numbersOf("t"), numbersOf("at")];
  const plane = planeOf(given.get("plane"), axes, rest);
  const shown = given.get("layers");
  const quantity = given.get("show");
  const weights = given.get("n");
  const formula = given.has("f") ? decoded(given.get("f")!) : null;
  const truth = given.has("truth") ? decoded(given.get("truth")!) : null;
  const random = given.has("net") ? randomOf(given.get("net")!.split(",")) : null;
  return {
    field,
    ...(random && { random }),
    ...(weights && { weights }),
    ...(formula && { formula }),
    ...(truth && { truth }),
    ...(context && { context }),
    ...(plane && { plane }),
    ...(middle && width && { view: viewOf(middle[0]!, middle[1]!, width[0]!) }),
    ...(shown !== undefined && { layers: layersOf(shown.split(",")) }),
    ...(quantity !== undefined && isQuantity(quantity) && { quantity }),
    ...(given.get("contour") === "off" && { contour: false }),
    ...(scale && scale[0]! > 0 && { scale: scale[0]! }),
    ...(pin && { pin: [pin[0]!, pin[1]!] as const }),
  };
}

/** Links of the page before this one held its state as JSON. */
function fromOldHash(text: string): Link | null {
  let given: Record<string, unknown>;
  try {
    given = JSON.parse(decodeURIComponent(text)) as Record<string, unknown>;
  } catch {
    return null;
  }
  if (typeof given["field"] !== "string") return null;
  const { context, view, plane, quantity, pin, scale, random, panels } = given;
  const link: Partial<Record<string, string>> = {};
  // A link may hold whatever it likes: only numbers and words are read.
  const isPlain = (value: unknown): boolean => typeof value === "number" || typeof value === "string";
  const list = (values: unknown): string | undefined => (Array.isArray(values) && values.every(isPlain) ? values.join(",") : undefined);
  const { a, b, width } = (view ?? {}) as Record<string, unknown>;
  const { kind, i, j, rest, seed } = (plane ?? {}) as Record<string, unknown>;
  Object.assign(link, { x: list([a, b]), w: list([width]) });
  if (kind === "axes") Object.assign(link, { axes: list([i, j]), at: list(rest) });
  else link["plane"] = list([kind, seed]);
  if (typeof random === "object" && random !== null) link["net"] = list(Object.values(random));
  Object.assign(link, { t: list(context), pin: list(pin), show: list([quantity]), scale: list([scale]) });
  link["layers"] = [
    panels === "difference" ? "error" : "div",
    given["arrows"] !== false && "arrows",
    given["particles"] === true && "samples",
  ]
    .filter(Boolean)
    .join(",");
  if (given["contour"] === false) link["contour"] = "off";
  const parts = Object.entries(link).flatMap(([key, value]) => (value ? [`${key}=${value}`] : []));
  return fromHash([given["field"].replace(/-flow$/, ""), ...parts].join("/"));
}

function decoded(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

const within = (x: number, low: number, high: number): number => Math.min(high, Math.max(low, x));

function viewOf(a: number, b: number, width: number): View {
  return { a: within(a, -1e6, 1e6), b: within(b, -1e6, 1e6), width: within(width, 1e-5, 1e5) };
}

export function isQuantity(text: string): text is Quantity {
  return /^(divergence|magnitude|[fd]\d{1,3})$/.test(text);
}

/** One ground at most, in the order of the keys. */
export function layersOf(names: readonly string[]): readonly Layer[] {
  const ground = names.find((name) => (grounds as readonly string[]).includes(name));
  return layers.filter((layer) => names.includes(layer) && (!grounds.includes(layer) || layer === ground));
}

function planeOf(text: string | undefined, axes: readonly number[] | null, rest: readonly number[] | null): PlaneChoice | null {
  const [kind, seed] = text?.split(",") ?? [];
  if ((kind === "random" || kind === "digits") && /^\d{1,9}$/.test(seed ?? "")) return { kind, seed: Number(seed) };
  if (!axes && !rest) return null;
  const [i, j] = axes ?? [0, 1];
  const isAxis = (axis: number): boolean => Number.isInteger(axis) && axis >= 0;
  return isAxis(i!) && isAxis(j!) && i !== j ? { kind: "axes", i: i!, j: j!, rest: rest ?? [] } : null;
}

function randomOf(given: readonly string[]): RandomNetwork | null {
  const [seed, dimensions, width, depth, activation, gain] = given;
  const numbers = [seed, dimensions, width, depth, gain].map(Number);
  if (!numbers.every((x) => Number.isFinite(x))) return null;
  return {
    seed: Math.round(within(numbers[0]!, 0, 2 ** 32)),
    dimensions: Math.round(within(numbers[1]!, 2, 64)),
    width: Math.round(within(numbers[2]!, 1, 512)),
    depth: Math.round(within(numbers[3]!, 1, 8)),
    activation: activationNames.find((name) => name === activation) ?? initialState.random.activation,
    gain: within(numbers[4]!, 0.1, 10),
  };
}
