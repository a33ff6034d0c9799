import type { Address, ChunkRecorder } from "./recorder.js";
import type { Binding, Fused, FusedOutput, Read } from "./steps.js";

/** Writes the one step of a fused plan. */
export function recordFused(chunk: ChunkRecorder, fused: Fused): Read[] {
  const { stateSize, contextSize } = chunk.graph;
  const addresses: Partial<Record<string, Address>> = { points: chunk.outer("points", stateSize) };
  if (contextSize > 0) addresses["context"] = chunk.outer("context", contextSize);
  for (const what of fused.outputs) addresses[what] = outputOf(chunk, what, fused.terms);

  const bindings: Record<string, Binding> = {};
  const parameters: Record<string, number> = { rows: chunk.count };
  const nowhere = { offset: 0, stride: 0 };
  for (const name of ["points", "context", "value", "divergence", "diagonal"]) {
    const address = addresses[name];
    if (address) bindings[name] = address.binding;
    parameters[`${name}Offset`] = (address ?? nowhere).offset;
    parameters[`${name}Stride`] = (address ?? nowhere).stride;
  }
  chunk.add({
    label: "all layers of a point",
    kernel: fused,
    parameters,
    bindings,
    invocations: Math.ceil(chunk.count / fused.points),
    multiplyAdds: chunk.count * fused.multiplyAdds,
  });
  if (chunk.route.to === "device") return [];
  return fused.outputs.map((what) => {
    const name = what === "value" ? "value" : "terms";
    return { what: name, scratch: name, width: addresses[what]!.width, first: 0, columns: 0 };
  });
}

function outputOf(chunk: ChunkRecorder, what: FusedOutput, terms: number): Address {
  if (what === "value") return chunk.valueAddress();
  const width = what === "diagonal" ? terms : 1;
  if (chunk.route.to === "device") return chunk.outer(what, width);
  return { binding: chunk.scratch("terms", chunk.count * width), offset: 0, stride: width, width };
}
