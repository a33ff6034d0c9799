import { populationOf } from "../plan/orthogonal.js";
import { tangentsOf } from "../plan/program.js";
import { asBits, type Address, type ChunkRecorder } from "./recorder.js";
import { PARTIAL_SUMS, type Binding, type Read } from "./steps.js";
import { tilesAcross } from "./tile.js";

/** Floats of a point's terms. */
export function termsPerPoint(chunk: ChunkRecorder): number {
  const { plan } = chunk;
  if (plan.kind === "value") return 0;
  return plan.tangents * partsPerTerm(chunk);
}

/** One tangent without a diagonal (the bilinear form) is summed in parts, for more parallel work and a better sum. */
export function partsPerTerm(chunk: ChunkRecorder): number {
  const { plan } = chunk;
  if (plan.kind !== "trace" || plan.tangents > 1 || plan.diagonal || plan.probesPer) return 1;
  for (const instruction of tangentsOf(plan.instructions))
    if (instruction.kind === "contract" && instruction.matrix)
      return Math.min(PARTIAL_SUMS, tilesAcross(chunk.tileOf(instruction.matrix), instruction.matrix.rows));
  return 1;
}

/** Leaves the terms where they are asked for; at most PARTIAL_SUMS per point go to the host where only their sum counts. */
export function reduceTerms(chunk: ChunkRecorder): Read[] {
  const { plan, route, count } = chunk;
  const width = termsPerPoint(chunk);
  const terms = chunk.scratch("terms", count * width);
  const diagonal = plan.kind === "difference" || (plan.kind === "trace" && plan.diagonal);
  const estimates = plan.kind === "trace" && plan.probesPer !== null;
  const share = plan.kind === "gradient" ? plan.share : estimates ? 1 / width : 1;
  if (route.to === "host") {
    if (!plan.outputs.includes("divergence") && !plan.outputs.includes("diagonal")) return [];
    if (diagonal || estimates || width <= PARTIAL_SUMS) return [{ what: "terms", scratch: "terms", width, first: 0, columns: 0 }];
    const binding = chunk.scratch("partial sums", count * PARTIAL_SUMS);
    recordSums(chunk, terms, width, PARTIAL_SUMS, { binding, offset: 0, stride: PARTIAL_SUMS, width: PARTIAL_SUMS });
    return [{ what: "terms", scratch: "partial sums", width: PARTIAL_SUMS, first: 0, columns: 0 }];
  }
  if (plan.outputs.includes("diagonal")) recordSums(chunk, terms, width, width, chunk.outer("diagonal", width));
  if (plan.outputs.includes("divergence") && route.outer.divergence)
    recordSums(chunk, terms, width, 1, chunk.outer("divergence", 1), share);
  if (route.outer.standardError) recordSpread(chunk, terms, width, chunk.outer("standardError", 1));
  return [];
}

/** The standard error of the mean of each point's terms. */
function recordSpread(chunk: ChunkRecorder, terms: Binding, width: number, into: Address): void {
  chunk.add({
    label: "spread of the terms",
    kernel: "spread",
    parameters: {
      rows: chunk.count,
      width,
      outOffset: into.offset,
      outStride: into.stride,
      population: Math.min(populationOf(chunk.graph.stateSize, chunk.request.parameters.orthogonal), 0xffffffff),
      notANumber: asBits(NaN),
    },
    bindings: { terms, out: into.binding },
    invocations: chunk.count,
  });
}

/** out[b, g] = factor Σ terms[b, k] over k = g, g + groups, ... for each of the rows b, points unless there are others. */
export function recordSums(
  chunk: ChunkRecorder,
  terms: Binding,
  width: number,
  groups: number,
  into: Address,
  factor = 1,
  rows: number = chunk.count,
): void {
  chunk.add({
    label: groups === width ? "copy rows" : "sum the terms",
    kernel: "reduce",
    parameters: {
      sums: rows * groups,
      groups,
      width,
      outOffset: into.offset,
      outStride: into.stride,
      factor: asBits(factor),
    },
    bindings: { terms, out: into.binding },
    invocations: rows * groups,
  });
}
