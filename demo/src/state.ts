/** All that a picture depends on, and the link that restores it. */
import { activationNames, type Activation } from "deldot";
import type { View } from "./plane.js";
import type { Quantity } from "./quantity.js";

export type Panel = "field" | "truth" | "difference";

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

export interface State {
  /** The name of a shipped model, "random", or "file" for one that was dropped. */
  readonly field: string;
  readonly random: RandomNetwork;
  readonly context: readonly number[];
  readonly quantity: Quantity;
  readonly panels: "field" | "truth" | "difference" | "all";
  readonly contour: boolean;
  readonly arrows: boolean;
  readonly particles: boolean;
  readonly plane: PlaneChoice;
  readonly view: View;
  /** The end of the colour bar; null: what fits. */
  readonly scale: number | null;
  /** The pinned point on the plane, (a, b). */
  readonly pin: readonly [number, number] | null;
}

/** The fields that a link may name; shippedFields in fields.ts has those of them that are trained. */
const fieldNames: readonly string[] = [
  "two-moons-flow",
  "checkerboard-flow",
  "digits-flow",
  "lorenz",
  "van-der-pol",
  "taylor-green",
  "random",
];

export const initialState: State = {
  field: "two-moons-flow",
  random: { seed: 1, dimensions: 2, width: 64, depth: 2, activation: "tanh", gain: 2 },
  context: [0.9],
  quantity: "divergence",
  panels: "field",
  contour: true,
  arrows: true,
  particles: false,
  plane: { kind: "axes", i: 0, j: 1, rest: [] },
  view: { a: 0, b: 0, width: 6 },
  scale: null,
  pin: null,
};

/** What follows the # of a link. A file that was dropped stays with whoever dropped it, so it is not in it. */
export function toHash(state: State): string {
  return encodeURIComponent(
    JSON.stringify(state, (_, value: unknown) => (typeof value === "number" ? Number(value.toPrecision(6)) : value)),
  );
}

/** The state of a link; null where it is none. Unknown or damaged members keep their initial values. */
export function fromHash(hash: string): State | null {
  let given: unknown;
  try {
    given = JSON.parse(decodeURIComponent(hash.replace(/^#/, "")));
  } catch {
    return null;
  }
  if (typeof given !== "object" || given === null) return null;
  const isLike = (value: unknown, model: unknown): boolean => {
    if (Array.isArray(model)) return Array.isArray(value) && value.every((number) => Number.isFinite(number));
    if (typeof model !== "object" || model === null) return typeof value === typeof model;
    if (typeof value !== "object" || value === null) return false;
    return Object.entries(model).every(([key, inner]) => isLike((value as Record<string, unknown>)[key], inner));
  };
  const known = Object.entries(given).filter(([key, value]) => {
    if (key === "scale") return value === null || (typeof value === "number" && value > 0);
    if (key === "pin") return value === null || (isLike(value, [0]) && (value as unknown[]).length === 2);
    if (key === "plane") return isPlane(value);
    return key in initialState && isLike(value, initialState[key as keyof State]);
  });
  const read = { ...initialState, ...(Object.fromEntries(known) as Partial<State>) };
  const within = (x: number, low: number, high: number): number => Math.min(high, Math.max(low, x));
  const { random, view } = read;
  const state: State = {
    ...read,
    random: {
      seed: Math.round(within(random.seed, 0, 2 ** 32)),
      dimensions: Math.round(within(random.dimensions, 2, 64)),
      width: Math.round(within(random.width, 1, 512)),
      depth: Math.round(within(random.depth, 1, 8)),
      activation: activationNames.includes(random.activation) ? random.activation : initialState.random.activation,
      gain: within(random.gain, 0.1, 10),
    },
    view: { a: within(view.a, -1e6, 1e6), b: within(view.b, -1e6, 1e6), width: within(view.width, 1e-5, 1e5) },
  };
  if (!fieldNames.includes(state.field) || !/^(divergence|magnitude|[fd]\d+)$/.test(state.quantity)) return null;
  return ["field", "truth", "difference", "all"].includes(state.panels) ? state : null;
}

function isPlane(value: unknown): boolean {
  const { kind, i, j, rest, seed } = (value ?? {}) as Record<string, unknown>;
  if (kind !== "axes") return (kind === "random" || kind === "digits") && Number.isInteger(seed);
  return (
    [i, j].every((axis) => Number.isInteger(axis) && (axis as number) >= 0) &&
    i !== j &&
    Array.isArray(rest) &&
    rest.every((number) => Number.isFinite(number))
  );
}
