/** How well a trained network meets points that it has not seen. */
import type { Network } from "../../index.js";
import { mixBits } from "../../mixBits.js";
import { createEvaluator, createFlow, type AdapterChoice } from "./evaluator.js";
import { reportLost } from "./flowOptions.js";
import type { Progress } from "./progress.js";
import { isFlow, type TrainPlan } from "./trainSettings.js";

export interface Validation {
  readonly quantity: string;
  /** Over the points that have one. */
  readonly mean: number;
  /** Of the mean. */
  readonly standardError: number;
  readonly points: number;
}

/** Rows of points, and of what belongs to each. */
export interface Rows {
  readonly count: number;
  readonly points: Float32Array;
  readonly context: Float32Array | undefined;
  readonly targets: Float32Array | undefined;
}

/** Beside what the seed draws for weights. */
const STREAM = 0x5eed;

/** A random subset of `held` indices below `count`, by the seed alone, and the others. */
export function splitRows(count: number, held: number, seed: number): { readonly kept: number[]; readonly held: number[] } {
  const key = mixBits(mixBits(seed) ^ STREAM);
  const bits = Uint32Array.from({ length: count }, (_, index) => mixBits(key + index));
  const order = Array.from(bits.keys()).sort((a, b) => bits[a]! - bits[b]! || a - b);
  const ascending = (indices: number[]): number[] => indices.sort((a, b) => a - b);
  return { held: ascending(order.slice(0, held)), kept: ascending(order.slice(held)) };
}

export function rowsAt({ count, points, context, targets }: Rows, indices: readonly number[]): Rows {
  const at = (data: Float32Array): Float32Array => {
    const width = data.length / count;
    const taken = new Float32Array(indices.length * width);
    for (const [row, index] of indices.entries()) taken.set(data.subarray(index * width, (index + 1) * width), row * width);
    return taken;
  };
  return { count: indices.length, points: at(points), context: context && at(context), targets: targets && at(targets) };
}

/**
 * Of a flow the log-density, of a regression the squared error, of a score the exact objective of score matching on the points as they
 * are, ½ |s|² + ∇·s, where the network takes σ at the least one.
 */
export async function validate(
  network: Network,
  { loss, options: { timeColumn }, leastNoise }: TrainPlan,
  held: Rows,
  adapter: AdapterChoice,
  run: { readonly signal: AbortSignal; readonly onProgress: Progress["update"] },
): Promise<Validation> {
  const { count, points, context } = held;
  if (isFlow(loss)) {
    const runner = await createFlow(network, { timeColumn }, { adapter });
    try {
      const { logProb, status } = await runner.flow.logProb(points, { condition: context, rtol: 1e-5, atol: 1e-5, ...run });
      reportLost(status, count);
      return summary("log-density", logProb);
    } finally {
      await runner.dispose();
    }
  }
  const evaluator = await createEvaluator(network, { adapter });
  try {
    if (loss === "regression") {
      const { value } = await evaluator.field.evaluate(points, { context, outputs: ["value"], ...run });
      return summary(
        "squared error",
        overRows(count, value, (f, i) => (f - held.targets![i]!) ** 2 * (count / value.length)),
      );
    }
    const withNoise = timeColumn === null ? context : withColumn(context, count, leastNoise);
    const { value, divergence } = await evaluator.field.evaluate(points, { context: withNoise, outputs: ["value", "divergence"], ...run });
    const halves = overRows(count, value, (s) => 0.5 * s ** 2);
    return summary(
      "score-matching objective",
      halves.map((half, point) => half + divergence[point]!),
    );
  } finally {
    await evaluator.dispose();
  }
}

/** The sum over each row of what `of` makes of a number. */
function overRows(count: number, data: Float32Array | Float64Array, of: (number: number, index: number) => number): Float64Array {
  const sums = new Float64Array(count);
  for (const [index, number] of data.entries()) sums[Math.floor((index * count) / data.length)]! += of(number, index);
  return sums;
}

/** Rows with one number more, the same for all. */
function withColumn(rows: Float32Array | undefined, count: number, last: number): Float32Array {
  const width = (rows?.length ?? 0) / count + 1;
  return Float32Array.from({ length: count * width }, (_, i) =>
    i % width === width - 1 ? last : rows![Math.floor(i / width) * (width - 1) + (i % width)]!,
  );
}

function summary(quantity: string, values: Float64Array): Validation {
  const finite = values.filter((value) => Number.isFinite(value));
  const points = finite.length;
  const mean = finite.reduce((sum, value) => sum + value, 0) / points;
  const variance = finite.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (points - 1);
  return { quantity, mean, standardError: Math.sqrt(variance / points), points };
}
