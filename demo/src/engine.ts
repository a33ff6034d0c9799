/** What computes and paints: a GPU by way of WebGPU; or the CPU in a worker, by onnxruntime-web or the float64 reference. */
import type { EvaluateOptions, Network, Output } from "deldot";
import type { Palette } from "./colour.js";
import type { Truth } from "./fields.js";
import type { PanelPlace } from "./layout.js";
import type { Plane, View } from "./plane.js";
import type { Quantity } from "./quantity.js";

/** One picture to paint. */
export interface Shot {
  readonly plane: Plane;
  readonly view: View;
  readonly context: readonly number[];
  readonly quantity: Quantity;
  /** In device pixels of the canvas. */
  readonly panels: readonly PanelPlace[];
  readonly truth: Truth | null;
  readonly contour: boolean;
  readonly scale: number;
  /** A typical |f|, which particles take their steps from. */
  readonly speed: number;
  readonly palette: Palette;
  /** Device pixels per CSS pixel. */
  readonly ratio: number;
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

export interface Engine {
  readonly kind: "webgpu" | "onnxruntime" | "reference";
  /** Which adapter, or what on the CPU, in words. */
  readonly name: string;
  setNetwork(network: Network): Promise<void>;
  /** At points [B, d]. */
  evaluate(points: Float32Array, options: EvaluateOptions): Promise<Numbers>;
  /**
   * Paints coarse first, then finer and finer, until the next call; while things move, coarse alone.
   * @throws what the field throws: DeviceLostError, LimitError, GpuError.
   */
  paint(shot: Shot, moving: boolean, onPainted: (painted: Painted) => void): Promise<void>;
  /** Starts or ends particles that the field carries; a paint decides where. */
  setParticles(on: boolean): void;
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
