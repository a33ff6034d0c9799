import { fusing } from "./fusing.js";
import { STATE } from "./graph.js";
import { ForwardSteps, UNMOVED } from "./forward.js";
import { ChunkRecorder, quads, type ChunkRequest } from "./recorder.js";
import type { Chunk, Read } from "./steps.js";
import { keptOf, TangentSteps } from "./tangents.js";
import { TermSteps, termsPerPoint } from "./terms.js";
import type { DifferencePlan } from "./trace.js";

/** Writes the steps of one chunk: the forward pass, then the tangents pass by pass, then the reduction of the terms. */
export function buildChunk(request: ChunkRequest): Chunk {
  return new ChunkBuilder(request).build();
}

class ChunkBuilder {
  private readonly chunk: ChunkRecorder;
  private readonly forward: ForwardSteps;

  constructor(request: ChunkRequest) {
    this.chunk = new ChunkRecorder(request);
    this.forward = new ForwardSteps(this.chunk);
  }

  build(): Chunk {
    const { plan, graph, route } = this.chunk;
    const { variant } = this.chunk.request;
    const fused = variant.kind === "fused" ? fusing() : null;
    const form = variant.kind === "fused" ? fused?.fusedForm(plan, route, variant) : null;
    if (fused && form) return this.chunk.finish(new fused.FusedSteps(this.chunk).write(form));
    const wantsValue = plan.outputs.includes("value");
    const value = wantsValue ? this.chunk.valueAddress() : null;
    if (plan.kind === "trace") {
      const wanted = { value, ...keptOf(plan.instructions) };
      if (value || wanted.derivatives.size > 0 || wanted.values.size > 0) this.forward.run(UNMOVED, wanted);
      new TangentSteps(this.chunk, this.forward).write(plan);
    } else {
      if (value) this.forward.run(UNMOVED, { value, derivatives: new Set(), values: new Set() });
      if (plan.kind === "difference") this.differences(plan);
    }
    const reads: Read[] = [];
    if (wantsValue && route.to === "host") reads.push({ what: "value", scratch: "value", width: graph.stateSize, first: 0, columns: 0 });
    if (plan.method === "jvp") reads.push({ what: "tangent", scratch: "tangent", width: graph.stateSize, first: 0, columns: 0 });
    else if (plan.kind !== "value") reads.push(...new TermSteps(this.chunk).reduce());
    return this.chunk.finish(reads);
  }

  /** ∂f_i/∂x_i by central differences, `tangentsAtOnce` coordinates at a time. */
  private differences(plan: DifferencePlan): void {
    const d = this.chunk.graph.stateSize;
    const terms = this.chunk.scratch("terms", this.chunk.count * termsPerPoint(this.chunk));
    for (let column = 0; column < plan.tangents; column += this.chunk.request.tangentsAtOnce) {
      const columns = Math.min(this.chunk.request.tangentsAtOnce, plan.tangents - column);
      const before = this.chunk.work;
      const moved = { binding: this.chunk.scratch("moved value", this.chunk.count * 2 * columns * d), offset: 0, stride: d, width: d };
      const pass = this.forward.run(
        { copies: 2 * columns, firstCoordinate: column, step: plan.step },
        { value: moved, derivatives: new Set(), values: new Set([STATE]) },
      );
      this.chunk.add({
        label: "central differences",
        kernel: "difference",
        parameters: {
          rows: this.chunk.count * columns,
          columns,
          stateSize: d,
          inputWidth: quads(d) * 4,
          first: column,
          termsPerPoint: termsPerPoint(this.chunk),
        },
        bindings: { moved: pass.values.get(STATE)!.binding, value: moved.binding, terms },
        invocations: this.chunk.count * columns,
      });
      if (column + columns < plan.tangents) this.chunk.submitWhenFull(this.chunk.work - before);
    }
  }
}
