/** All that a picture depends on, and the link that restores it. */
import type { Activation } from "deldot";
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
    if (Array.isArray(model)) return Array.isArray(value) && value.every((number) => typeof number === "number");
    if (typeof model !== "object" || model === null) return typeof value === typeof model;
    if (typeof value !== "object" || value === null) return false;
    return Object.entries(model).every(([key, inner]) => isLike((value as Record<string, unknown>)[key], inner));
  };
  const known = Object.entries(given).filter(([key, value]) => {
    if (key === "scale") return value === null || (typeof value === "number" && value > 0);
    if (key === "pin") return value === null || isLike(value, [0]);
    if (key === "plane") return isPlane(value);
    return key in initialState && isLike(value, initialState[key as keyof State]);
  });
  const state = { ...initialState, ...(Object.fromEntries(known) as Partial<State>) };
  if (state.field === "file" || !/^(divergence|magnitude|[fd]\d+)$/.test(state.quantity)) return null;
  return state.view.width > 0 && ["field", "truth", "difference", "all"].includes(state.panels) ? state : null;
}

function isPlane(value: unknown): boolean {
  const { kind, i, j, rest, seed } = (value ?? {}) as Record<string, unknown>;
  if (kind !== "axes") return (kind === "random" || kind === "digits") && Number.isInteger(seed);
  return [i, j].every((axis) => Number.isInteger(axis) && (axis as number) >= 0) && i !== j && Array.isArray(rest);
}
