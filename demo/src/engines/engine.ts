/** What computes and paints: a GPU by way of WebGPU; or the CPU in a worker, by onnxruntime or the float64 reference. */
import type { EvaluateOptions, Network, Output, TransportOptions } from "deldot";
import type { Domain } from "../base/colour.js";
import type { Plane, Size, View } from "../base/plane.js";
import type { Quantity } from "../base/quantity.js";

/** What colours a picture: a quantity; the divergence less the truth's; or p, the density of a flow at the time of the context. */
export type Ground = { readonly kind: "quantity"; readonly quantity: Quantity } | { readonly kind: "error" } | { readonly kind: "density" };

/** One picture to compute and paint. */
export interface Shot {
  readonly plane: Plane;
  readonly view: View;
  readonly context: readonly number[];
  /** null: none, paper alone. */
  readonly ground: Ground | null;
  /** Of the canvas, in device pixels. */
  readonly size: Size;
  readonly contour: boolean;
  readonly domain: Domain;
  /** Of the page behind the picture, where there are no numbers. */
  readonly paper: readonly [number, number, number];
  /** 1: what is below the middle of the scale fades; -1: what is above; 0: nothing does. */
  readonly emphasis: -1 | 0 | 1;
  /** Device pixels per CSS pixel. */
  readonly ratio: number;
}

/** How a picture is coloured: what may change without its numbers being computed anew. */
export type Look = Pick<Shot, "contour" | "domain" | "paper" | "emphasis" | "ratio">;

export function isSameLook(one: Look, other: Look): boolean {
  const keyOf = ({ contour, domain, paper, emphasis, ratio }: Look): string => JSON.stringify([contour, domain, paper, emphasis, ratio]);
  return keyOf(one) === keyOf(other);
}

/** A level of detail of a picture that has been painted. */
export interface Painted {
  readonly columns: number;
  readonly rows: number;
  readonly milliseconds: number;
  /** Whether no finer one follows. */
  readonly done: boolean;
}

export type Numbers = Partial<Record<Output, Float32Array | Float64Array>> & { readonly standardError?: Float32Array | Float64Array };

export interface Moved {
  /** [B, d] */
  readonly points: Float32Array | Float64Array;
  /** ∫ ∇·f dt along each path, [B]. */
  readonly divergenceIntegral: Float64Array;
  /** With `times`, the points at each of them, [T, B, d]. */
  readonly path?: Float32Array | Float64Array;
}

export interface Engine {
  readonly kind: "webgpu" | "onnxruntime" | "reference";
  /** Which adapter, or what on the CPU, in words. */
  readonly name: string;
  /** How wide and how tall the picture's canvas is while things move, in shares of what it is at rest. */
  readonly movingScale: number;
  /** @param truth the field as it should be, for pictures of the error. */
  setNetwork(network: Network, truth: Network | null): Promise<void>;
  /** At points [B, d]. */
  evaluate(points: Float32Array, options: EvaluateOptions): Promise<Numbers>;
  /** What colours a picture, at points [B, d]. */
  numbersAt(ground: Ground, points: Float32Array, context: readonly number[]): Promise<Float64Array>;
  /** Where the field carries points [B, d], by steps of one size; time is the first number of a context. */
  transport(
    points: Float32Array,
    options: Pick<TransportOptions, "from" | "to" | "times" | "steps" | "solver" | "condition">,
  ): Promise<Moved>;
  /**
   * Paints coarse first, then finer and finer, until the next call; while things move, coarse alone.
   * @throws what the field throws: DeviceLostError, LimitError, GpuError.
   */
  paint(shot: Shot, moving: boolean, onPainted: (painted: Painted) => void): Promise<void>;
  /** Shows the numbers there are under another view, at once: the picture never lags behind what is drawn over it. */
  show(view: View, look?: Look): void;
  /** The canvas with the last picture on it, until the browser shows the next frame. */
  snapshot(): HTMLCanvasElement;
  destroy(): void;
}

/** Cells of a picture's grid are this many pixels wide, from the coarsest level to the finest. */
export const LEVELS = [16, 8, 4, 2, 1] as const;

/** The next level to compute: the finest one within `limit` milliseconds; null where none is, but for a first one, the coarsest. */
export function nextLevel(last: number, pixels: number, millisecondsPerPoint: number, limit: number): number | null {
  const left = LEVELS.filter((level) => level < last);
  const within = left.filter((level) => (pixels / level ** 2) * millisecondsPerPoint <= limit);
  if (last === Infinity) return within.at(-1) ?? LEVELS[0];
  return within.at(-1) ?? null;
}
