/** The numbers that colour a picture, by whatever computes them. */
import { normalBase, type EvaluateOptions } from "deldot";
import type { Engine, Ground, Numbers, Shot } from "./engine.js";
import { backFrom } from "../base/density.js";
import { pick, sourceOf, withContext, type Source } from "../base/quantity.js";

/** What is timed under one name, and how much of it a point is. */
export interface Work {
  readonly name: string;
  readonly perPoint: number;
}

export function workOf(ground: Ground, context: Shot["context"]): Work {
  if (ground.kind === "density") return { name: ground.kind, perPoint: backFrom(context).steps };
  return { name: ground.kind === "quantity" && ground.quantity !== "divergence" ? ground.quantity[0]! : ground.kind, perPoint: 1 };
}

/**
 * At points [B, d]: a quantity; the divergence less the truth's; or p(x) = N(z) exp ∫ ∇·f dt, from x at time t back to the noise z.
 * @throws what `by` throws.
 */
export async function numbersOf(
  ground: Ground,
  points: Float32Array,
  context: readonly number[],
  d: number,
  by: {
    evaluate(points: Float32Array, options: EvaluateOptions): Promise<Numbers>;
    evaluateTruth(points: Float32Array, options: EvaluateOptions): Promise<Numbers>;
    transport: Engine["transport"];
  },
): Promise<Float64Array> {
  if (ground.kind === "density") {
    const { points: ends, divergenceIntegral } = await by.transport(points, backFrom(context));
    const noise = normalBase(d, 1).logProb(ends);
    return divergenceIntegral.map((integral, index) => Math.exp(noise[index]! + integral));
  }
  const source = sourceOf(ground.kind === "quantity" ? ground.quantity : "divergence", d);
  const read = (numbers: Numbers): Float64Array => readNumbers(numbers, source, points.length / d);
  const outputs = [source.output];
  if (ground.kind === "quantity") return read(await by.evaluate(points, { outputs, ...withContext(context) }));
  const [values, truths] = await Promise.all([
    by.evaluate(points, { outputs, ...withContext(context) }),
    by.evaluateTruth(points, { outputs }),
  ]);
  const known = read(truths);
  return read(values).map((value, index) => value - known[index]!);
}

function readNumbers(numbers: Numbers, source: Source, count: number): Float64Array {
  return Float64Array.from({ length: count }, (_, index) => pick(numbers[source.output]!, source, index));
}
