import { LimitError } from "../errors.js";
import type { Network } from "../model/network.js";
import { parameterLayout } from "../model/parameters.js";
import { inOrder, type PlannedMatrix } from "../plan/matrices.js";
import { parameterGradient, sumPlaceholders } from "../plan/parameters.js";
import type { GradientPlan } from "../plan/plan.js";
import type { OuterSum } from "../plan/program.js";
import { MARK_OF_ALL, partsOf, sumName } from "./adjoint.js";
import { fill, inRows, multiply, ProductSteps, uploaded, type HasMatrix, type Lying } from "./products.js";
import { ChunkRecorder, type ChunkRequest } from "./recorder.js";
import type { Chunk, Route, ScheduleLimits, Variant } from "./steps.js";

/** The last chunk of each plan: encodeVjp is often called alike, step by step. */
const lastChunks = new WeakMap<GradientPlan, { readonly key: string; readonly chunk: Chunk }>();

/** The steps that follow the last of `count` points; to the host goes what they give, as one read. */
export function scheduleParameterGradient(
  plan: GradientPlan,
  network: Network,
  count: number,
  limits: ScheduleLimits,
  route: Route,
  variant: Variant,
  has: HasMatrix,
): Chunk {
  const key = JSON.stringify([count > 0, limits, route]);
  const last = lastChunks.get(plan);
  if (last?.key === key) return last.chunk;
  const { size } = parameterLayout(network);
  const largest = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);
  if (4 * size > largest)
    throw new LimitError(`the gradient of ${size} parameters takes ${4 * size} bytes; the device allows ${largest} in one buffer`);
  const parameters = { seed: 0, step: 0, orthogonal: false };
  const request = { plan, parameters, first: 0, count: Math.min(count, 1), tangentsAtOnce: 1, limits, route, variant };
  const chunk = buildParameterGradient(request, plan, network, has);
  lastChunks.set(plan, { key, chunk });
  return chunk;
}

/** The host has added up what it sends; on the device sums lie in parts. */
function lyingOf(sum: OuterSum, chunk: ChunkRecorder): Lying {
  const { rows } = sum.matrix;
  if (chunk.route.to === "host") return inRows(chunk.scratch(sumName(sum), rows * sum.columns), sum.columns);
  const { binding, parts } = partsOf(sum, chunk);
  return { binding, first: 0, rowStride: sum.columns * parts, columnStride: parts, parts };
}

/** What follows the last points of a gradient: that of the parameters, out of the sums over all points. */
function buildParameterGradient(request: ChunkRequest, plan: GradientPlan, network: Network, has: HasMatrix): Chunk {
  const chunk = new ChunkRecorder(request);
  const placeholders = sumPlaceholders(plan.adjoint.sums);
  const sums = new Map(plan.adjoint.sums.map((sum) => [placeholders.get(sum.matrix), sum]));
  // Without points there are no sums.
  const gradient = parameterGradient(network, request.count > 0 ? placeholders : new Map());
  const ofSums = new Set<PlannedMatrix>();
  for (const matrix of inOrder([gradient]))
    if (sums.has(matrix) || matrix.products?.some(({ operands }) => operands.some((operand) => ofSums.has(operand.matrix))))
      ofSums.add(matrix);
  const steps = new ProductSteps(chunk, (matrix) => {
    const sum = sums.get(matrix);
    if (sum) return lyingOf(sum, chunk);
    return ofSums.has(matrix) ? null : uploaded(matrix, has);
  });
  // Nor has a context that serves all another gradient than 0.
  if (request.count === 0 && request.route.to === "device" && request.route.outer["gradient of context"]?.stride === 0) {
    const { contextSize } = plan.graph;
    const { binding, offset } = chunk.outer("gradient of context", contextSize);
    fill(chunk, "gradient of context", 1, contextSize, inRows(binding, contextSize, offset));
  }
  if (gradient.columns === 0 || (request.route.to === "device" && !request.route.outer["gradient of parameters"])) return chunk.finish([]);
  const name = "gradient of parameters";
  const { binding, offset } = chunk.outer(name, gradient.columns);
  const into = inRows(binding, 0, offset);
  steps.write(gradient, into);
  if (request.route.to === "host")
    return chunk.finish([{ what: "parameters", scratch: name, width: gradient.columns, isSum: true, first: 0, columns: 0 }]);
  if (request.count > 0 && request.route.marksNonFinite) {
    const mark = { row: {}, column: {}, lying: inRows(chunk.scratch(MARK_OF_ALL, 1), 0) };
    const sizes = { n: 1, r: 1, c: gradient.columns, j: 1 };
    multiply(chunk, "mark what is not finite", { sizes, into: { row: {}, column: { c: 1 } } }, into, [mark], true);
  }
  return chunk.finish([]);
}
