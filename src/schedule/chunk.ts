import type { Chunk, Read } from "./steps.js";
import { kinematicsOf, sizeOf } from "../plan/outputs.js";
import type { DifferencePlan } from "../plan/plan.js";
import { forwardOf, readsOf, tangentsOf } from "../plan/program.js";
import { readsOfAdjoint } from "../plan/adjoint.js";
import { AdjointSteps } from "./adjoint.js";
import { ForwardSteps, UNMOVED } from "./forward.js";
import { recordFused } from "./fused.js";
import { ChunkRecorder, quads, type ChunkRequest } from "./recorder.js";
import { TangentSteps } from "./tangents.js";
import { reduceTerms, termsPerPoint } from "./terms.js";

/** Writes the steps of one chunk: the forward pass, then the tangents pass by pass, then the reduction of the terms. */
export function buildChunk(request: ChunkRequest): Chunk {
  const chunk = new ChunkRecorder(request);
  const { plan, graph, route } = chunk;
  const fused = request.variant.fuse?.(plan, route.to);
  if (fused) return chunk.finish(recordFused(chunk, fused));

  const wantsValue = plan.outputs.includes("value");
  const value = wantsValue ? chunk.valueAddress() : null;
  const forward = new ForwardSteps(chunk);
  const reads: Read[] = [];
  let adjointSteps: AdjointSteps | null = null;
  if (plan.kind === "gradient") {
    const { adjoint } = plan;
    forward.run(adjoint.forward, UNMOVED, value, readsOfAdjoint([...adjoint.before, ...adjoint.tangents, ...adjoint.after]).values);
    chunk.endForward();
    adjointSteps = new AdjointSteps(chunk, forward);
    reads.push(...adjointSteps.writeGradient(plan));
  } else if (plan.kind === "trace") {
    const tangents = tangentsOf(plan.instructions);
    forward.run(forwardOf(plan.instructions), UNMOVED, value, readsOf(tangents).values);
    new TangentSteps(chunk, forward).write(plan, tangents);
  } else {
    if (value) forward.run(forwardOf(plan.instructions), UNMOVED, value, new Set());
    if (plan.kind === "difference") recordDifferences(chunk, forward, plan);
  }
  if (wantsValue && route.to === "host") reads.push({ what: "value", scratch: "value", width: graph.stateSize, first: 0, columns: 0 });
  if (route.to === "host")
    for (const output of kinematicsOf(plan.outputs))
      reads.push({ what: output, scratch: output, width: sizeOf(output, graph.stateSize), first: 0, columns: 0 });
  if (plan.method === "jvp") {
    if (route.to === "host") reads.push({ what: "tangent", scratch: "jvp", width: graph.stateSize, first: 0, columns: 0 });
  } else if (plan.kind !== "value") reads.push(...reduceTerms(chunk));
  if (adjointSteps && route.to === "device" && route.marksNonFinite) for (const output of plan.outputs) adjointSteps.markOutput(output);
  return chunk.finish(reads);
}

/** ∂f_i/∂x_i by central differences, `tangentsAtOnce` coordinates at a time. */
function recordDifferences(chunk: ChunkRecorder, forward: ForwardSteps, plan: DifferencePlan): void {
  const d = chunk.graph.stateSize;
  const state = plan.graph.nodes[0]!;
  const terms = chunk.scratch("terms", chunk.count * termsPerPoint(chunk));
  for (let column = 0; column < plan.tangents; column += chunk.request.tangentsAtOnce) {
    const columns = Math.min(chunk.request.tangentsAtOnce, plan.tangents - column);
    const before = chunk.work;
    const moved = { copies: 2 * columns, firstCoordinate: column, step: chunk.request.parameters.step };
    const rows = chunk.count * moved.copies;
    const value = { binding: chunk.scratch("moved value", rows * d), offset: 0, stride: d, width: d };
    // What is moved is read again even where the velocity does not depend on it.
    const points = chunk.padded("moved points", rows, d);
    forward.gather("gather the moved points", chunk.outer("points", d), d, rows, points.binding, moved);
    forward.run(
      forwardOf(plan.instructions),
      moved,
      value,
      new Set(),
      new Map([[state.index, { binding: points.binding, perRow: quads(d) }]]),
    );
    chunk.add({
      label: "central differences",
      kernel: "difference",
      parameters: {
        rows: chunk.count * columns,
        columns,
        stateSize: d,
        inputWidth: quads(d) * 4,
        first: column,
        termsPerPoint: termsPerPoint(chunk),
      },
      bindings: { moved: points.binding, value: value.binding, terms },
      invocations: chunk.count * columns,
    });
    if (column + columns < plan.tangents) chunk.submitWhenFull(chunk.work - before);
  }
}
