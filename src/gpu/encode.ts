import { WORKGROUP_SIZE, type Binding, type OuterName, type Step } from "../plan/steps.js";
import { USAGE, type Constants, type Matrices, type Scratch } from "./buffers.js";
import { kernelOf, type Kernel } from "./kernels.js";
import type { Pipelines } from "./pipelines.js";

/** Where the buffers and pipelines of a step are found. */
export interface Resources {
  readonly device: GPUDevice;
  readonly pipelines: Pipelines;
  readonly matrices: Matrices;
  readonly constants: Constants;
  readonly scratch: Scratch;
  readonly outer: Partial<Record<OuterName, GPUBuffer>>;
}

/** Records the steps into a compute pass: no submit, no choices. */
export function encodeSteps(pass: GPUComputePassEncoder, steps: readonly Step[], resources: Resources): void {
  const { device, pipelines, constants } = resources;
  const slot = device.limits.minUniformBufferOffsetAlignment;
  const parameters = new Uint32Array((steps.length * slot) / 4);
  const kernels = steps.map(kernelOf);
  steps.forEach((step, index) =>
    parameters.set(
      kernels[index]!.parameters.map((name) => known(step, step.parameters[name], name)),
      (index * slot) / 4,
    ),
  );
  const uniforms = constants.get("parameters", parameters, USAGE.UNIFORM);

  steps.forEach((step, index) => {
    const kernel = kernels[index]!;
    const pipeline = pipelines.get(kernel);
    const entries = [
      { binding: 0, resource: { buffer: uniforms, offset: index * slot, size: 4 * kernel.parameters.length } },
      ...kernel.storage.map(({ name }, at) => ({
        binding: at + 1,
        resource: resourceOf(known(step, step.bindings[name], name), kernel, resources),
      })),
    ];
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ label: step.label, layout: pipeline.getBindGroupLayout(0), entries }));
    const workgroups = Math.ceil(step.invocations / WORKGROUP_SIZE);
    const across = Math.min(workgroups, device.limits.maxComputeWorkgroupsPerDimension);
    pass.dispatchWorkgroups(across, Math.ceil(workgroups / across));
  });
}

function known<T>(step: Step, value: T | undefined, name: string): T {
  if (value === undefined) throw new TypeError(`the step "${step.label}" does not give ${name} to the kernel ${step.kernel}`);
  return value;
}

function resourceOf(binding: Binding, kernel: Kernel, { matrices, scratch, outer }: Resources): GPUBufferBinding {
  switch (binding.kind) {
    case "matrix":
      return { buffer: matrices.get(binding.matrix, binding.layout) };
    case "weights":
      return { buffer: matrices.packed(kernel.label, kernel.weights!) };
    case "scratch":
      return { buffer: scratch.get(binding.name) };
    case "outer":
      return { buffer: outer[binding.name]!, offset: binding.offset, size: binding.size };
  }
}
