import { asBits, type Address, type ChunkRecorder } from "./recorder.js";
import { PARTIAL_SUMS, type Binding, type Read } from "./steps.js";

/**
 * A bilinear form of so many numbers is computed sooner by one kernel than by several, and summed sooner by one invocation.
 * The weights of long ones do not stay in caches where each invocation goes through those of two matrices: widths of 860 took
 * 1.3 times as long.
 */
export const SHORT_FORM: number = 64 * 64;

/** Floats of a point's terms. */
export function termsPerPoint(chunk: ChunkRecorder): number {
  const { plan } = chunk;
  if (plan.kind === "value") return 0;
  return plan.tangents * partsPerTerm(chunk);
}

/** One tangent without a diagonal (the bilinear form) is summed in parts, for more parallel work and a better sum. */
export function partsPerTerm(chunk: ChunkRecorder): number {
  const { plan } = chunk;
  if (plan.kind !== "trace" || plan.tangents > 1 || plan.diagonal || plan.probes) return 1;
  const fused = plan.instructions.find((instruction) => instruction.kind === "contract" && instruction.matrix !== null);
  if (fused?.kind !== "contract") return 1;
  const { rows, columns } = fused.matrix!;
  const isShort = chunk.mergesBilinear() && chunk.route.to === "device" && rows * columns <= SHORT_FORM;
  return isShort ? 1 : Math.min(PARTIAL_SUMS, chunk.tilesAcross(rows));
}

/** Writes what becomes of the terms. */
export class TermSteps {
  constructor(private readonly chunk: ChunkRecorder) {}

  /** Leaves the terms where they are asked for; at most PARTIAL_SUMS per point go to the host where only their sum counts. */
  reduce(): Read[] {
    const { plan } = this.chunk;
    const width = termsPerPoint(this.chunk);
    const terms = this.chunk.scratch("terms", this.chunk.count * width);
    const diagonal = plan.kind === "difference" || (plan.kind === "trace" && plan.diagonal);
    const estimates = plan.kind === "trace" && plan.probes !== null;
    if (this.chunk.route.to === "host") {
      if (!plan.outputs.includes("divergence") && !plan.outputs.includes("diagonal")) return [];
      if (diagonal || estimates || width <= PARTIAL_SUMS) return [{ what: "terms", scratch: "terms", width, first: 0, columns: 0 }];
      this.sums(terms, width, PARTIAL_SUMS, {
        binding: this.chunk.scratch("partial sums", this.chunk.count * PARTIAL_SUMS),
        offset: 0,
        stride: PARTIAL_SUMS,
        width: PARTIAL_SUMS,
      });
      return [{ what: "terms", scratch: "partial sums", width: PARTIAL_SUMS, first: 0, columns: 0 }];
    }
    if (plan.outputs.includes("diagonal")) this.sums(terms, width, width, this.chunk.outer("diagonal", width));
    if (plan.outputs.includes("divergence")) this.sums(terms, width, 1, this.chunk.outer("divergence", 1), estimates ? 1 / width : 1);
    return [];
  }

  /** out[b, g] = factor Σ terms[b, k] over k = g, g + groups, ... */
  private sums(terms: Binding, width: number, groups: number, into: Address, factor = 1): void {
    this.chunk.add({
      label: groups === width ? "copy the terms" : "sum the terms",
      kernel: "reduce",
      parameters: {
        sums: this.chunk.count * groups,
        groups,
        width,
        outOffset: into.offset,
        outStride: into.stride,
        factor: asBits(factor),
      },
      bindings: { terms, out: into.binding },
      invocations: this.chunk.count * groups,
    });
  }
}
