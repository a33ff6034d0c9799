import type { FusedForm } from "./fused.js";
import type { FusedOutput } from "./operations.js";
import type { Address, ChunkRecorder } from "./recorder.js";
import type { Binding, Read } from "./steps.js";

/** Writes the one step of a fused plan. */
export class FusedSteps {
  constructor(private readonly chunk: ChunkRecorder) {}

  write(form: FusedForm): Read[] {
    const { program } = form;
    const inputs: Record<string, Address> = { points: this.chunk.outer("points", program.stateSize) };
    if (program.contextSize > 0) inputs["context"] = this.chunk.outer("context", program.contextSize);
    const outputs = Object.fromEntries(program.outputs.map((what) => [what, this.outputOf(what, program.terms.width)]));
    this.step(form, { ...inputs, ...outputs });
    if (this.chunk.route.to === "device") return [];
    return program.outputs.map((what) => ({
      what: what === "value" ? "value" : "terms",
      scratch: what === "value" ? "value" : "terms",
      width: outputs[what]!.width,
      first: 0,
      columns: 0,
    }));
  }

  private step(form: FusedForm, addresses: Record<string, Address>): void {
    const { count } = this.chunk;
    const bindings: Record<string, Binding> = {};
    const parameters: Record<string, number> = { rows: count };
    const nowhere = { offset: 0, stride: 0 };
    for (const name of ["points", "context", "value", "divergence", "diagonal"]) {
      const address = addresses[name];
      if (address) bindings[name] = address.binding;
      parameters[`${name}Offset`] = (address ?? nowhere).offset;
      parameters[`${name}Stride`] = (address ?? nowhere).stride;
    }
    this.chunk.add({
      label: "all layers of a point",
      kernel: "fused",
      fused: form,
      parameters,
      bindings,
      invocations: Math.ceil(count / form.variant.points),
      multiplyAdds: count * form.program.multiplyAdds,
    });
  }

  private outputOf(what: FusedOutput, terms: number): Address {
    if (what === "value") return this.chunk.valueAddress();
    const width = what === "diagonal" ? terms : 1;
    if (this.chunk.route.to === "device") return this.chunk.outer(what, width);
    return { binding: this.chunk.scratch("terms", this.chunk.count * width), offset: 0, stride: width, width };
  }
}
