/** Random points that verify compares at. */
import type { Network } from "../../index.js";

export interface Samples {
  readonly points: Float32Array;
  /** One row per point; undefined where the network takes no context. */
  readonly context: Float32Array | undefined;
}

/** Samples, and what a gradient weighs f and its divergence with there. */
export interface WeightedSamples extends Samples {
  readonly cotangents: { readonly value: Float32Array; readonly divergence: Float32Array };
}

export function drawSamples({ stateSize, contextSize }: Network, count: number, seed: number): WeightedSamples {
  const uniform = mulberry32(seed);
  // Box and Muller: 1 - uniform() is never 0.
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const points = Float32Array.from({ length: count * stateSize }, normal);
  const context = contextSize > 0 ? Float32Array.from({ length: count * contextSize }, uniform) : undefined;
  const cotangents = {
    value: Float32Array.from({ length: count * stateSize }, normal),
    divergence: Float32Array.from({ length: count }, normal),
  };
  return { points, context, cotangents };
}

/** A small seeded generator of uniform numbers in [0, 1). */
export function mulberry32(seed: number): () => number {
  let state = Math.trunc(seed);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
