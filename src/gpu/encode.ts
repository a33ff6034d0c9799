import { kernelOf } from "../kernels/layers.js";
import { WORKGROUP_SIZE, type Binding, type OuterName, type Step } from "../schedule/steps.js";
import { USAGE, type Constants, type Matrices, type Scratch } from "./buffers.js";
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

/** A step with all that it names, ready to be recorded as often as wanted. */
export interface BoundStep {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly offsets: readonly number[];
  /** In x and y; or where the device itself puts them, a buffer and an offset. */
  readonly workgroups: readonly [number, number] | readonly [GPUBuffer, number];
}

/** Records the steps into a compute pass: no submit, no choices. */
export function encodeSteps(pass: GPUComputePassEncoder, steps: readonly Step[], resources: Resources): void {
  encodeBound(pass, bindSteps(steps, resources));
}

export function encodeBound(pass: GPUComputePassEncoder, steps: readonly BoundStep[]): void {
  for (const { pipeline, group, offsets, workgroups } of steps) {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group, offsets);
    const [across, down] = workgroups;
    if (typeof across === "number") pass.dispatchWorkgroups(across, down);
    else pass.dispatchWorkgroupsIndirect(across, down);
  }
}

/** The steps with all that they name; as they were bound before, where nothing of it was replaced since. */
export function bindSteps(steps: readonly Step[], resources: Resources): readonly BoundStep[] {
  const before = placeOf(steps, resources).bound;
  if (before) return before;
  const bound = bind(steps, resources);
  // What was made may have replaced something in its turn: then this is another place.
  placeOf(steps, resources).bound = bound;
  return bound;
}

/** Whether all that the steps name is there, so that bindSteps has nothing to do. */
export function areBound(steps: readonly Step[], resources: Resources): boolean {
  return placeOf(steps, resources).bound !== null;
}

/** Steps that were bound before, found by themselves and by the caller's buffers, which are held weakly. */
class BoundSteps {
  readonly next = new WeakMap<readonly Step[] | GPUBuffer, BoundSteps>();
  bound: readonly BoundStep[] | null = null;
}

/** By the scratch that they name, as long as nothing is replaced: what is out of date keeps no buffers. */
const boundSteps = new WeakMap<Scratch, { readonly generation: number; readonly all: BoundSteps }>();

function placeOf(steps: readonly Step[], { pipelines, matrices, constants, scratch, outer }: Resources): BoundSteps {
  const generation = pipelines.generation + matrices.generation + constants.generation + scratch.generation;
  let known = boundSteps.get(scratch);
  if (known?.generation !== generation) boundSteps.set(scratch, (known = { generation, all: new BoundSteps() }));
  let place = known.all;
  for (const object of [steps, ...Object.values(outer)]) {
    let next = place.next.get(object);
    if (!next) place.next.set(object, (next = new BoundSteps()));
    place = next;
  }
  return place;
}

function bind(steps: readonly Step[], resources: Resources): BoundStep[] {
  const isCounted = steps[0]?.kernel === "count";
  const counting = isCounted ? steps[0] : undefined;
  const others = isCounted ? steps.slice(1) : steps;
  const { device, constants } = resources;
  const { minUniformBufferOffsetAlignment: alignment, maxComputeWorkgroupsPerDimension: most } = device.limits;
  const kernels = others.map(kernelOf);
  const parameters = others.map((step, index) => kernels[index]!.parameters.map((name) => known(step, step.parameters[name], name)));
  // An app may have asked for a finer alignment than its device has unasked.
  const slot = alignment * Math.ceil(Math.max(16, ...parameters.map((row) => 4 * row.length)) / alignment);
  if (!counting) {
    const uniforms = constants.rows("parameters", parameters, slot, USAGE.UNIFORM);
    return others.map((step, index) => bindStep(step, index * slot, uniforms, workgroupsOf(step, most), resources));
  }
  // Behind the parameters lie the dispatches; the device writes both, each time anew.
  const sizesAt = (index: number): number => (others.length + index) * slot;
  const usage = USAGE.UNIFORM | USAGE.STORAGE | USAGE.INDIRECT;
  const sizes = constants.rows("parameters and dispatches", [...parameters, ...others.map(() => [0, 1, 1])], slot, usage);
  const entries = others.flatMap(({ growth, tile }, index) => [
    ...growth!.parameters.map(({ name, fixed, slope }) => [index * (slot / 4) + kernels[index]!.parameters.indexOf(name), fixed, slope, 0]),
    [sizesAt(index) / 4, growth!.invocations.fixed, growth!.invocations.slope, tile?.workgroup ?? WORKGROUP_SIZE],
  ]);
  const table = constants.rows("growth", entries, 16, USAGE.STORAGE);
  const count = kernelOf(counting).parameters.map((name) => (name === "across" ? most : known(counting, counting.parameters[name], name)));
  const uniforms = constants.rows("parameters", [count], slot, USAGE.UNIFORM);
  return [
    bindStep(counting, 0, uniforms, workgroupsOf(counting, most), resources, { entries: { buffer: table }, sizes: { buffer: sizes } }),
    ...others.map((step, index) => bindStep(step, index * slot, sizes, [sizes, sizesAt(index)], resources)),
  ];
}

function bindStep(
  step: Step,
  offset: number,
  uniforms: GPUBuffer,
  workgroups: BoundStep["workgroups"],
  resources: Resources,
  own: Readonly<Record<string, GPUBufferBinding>> = {},
): BoundStep {
  const kernel = kernelOf(step);
  const pipeline = resources.pipelines.get(kernel);
  const bindings = [
    { buffer: uniforms, size: 4 * kernel.parameters.length },
    ...kernel.storage.map(({ name }) => {
      if (name === "weights") return { buffer: resources.matrices.packed(kernel.label, kernel.weights!) };
      return own[name] ?? resourceOf(known(step, step.bindings[name], name), resources);
    }),
  ];
  return { pipeline, group: bindGroupOf(resources.device, step.label, pipeline, bindings), offsets: [offset], workgroups };
}

/** Even rows: a full one and a rest would leave up to half of the workgroups without work, which is not free. */
function workgroupsOf({ invocations, tile }: Step, most: number): readonly [number, number] {
  const workgroups = Math.ceil(invocations / (tile?.workgroup ?? WORKGROUP_SIZE));
  const down = Math.ceil(workgroups / most);
  return [Math.ceil(workgroups / down), down];
}

/**
 * Bind groups that were made before, from the pipeline by way of every buffer to the ranges bound. All are held weakly, so
 * that a group is found only while each of its buffers is in use, and keeps none of them.
 */
class BindGroups {
  readonly next = new WeakMap<GPUComputePipeline | GPUBuffer, BindGroups>();
  readonly byRanges = new Map<string, GPUBindGroup>();
}
const bindGroups = new BindGroups();

/** Making one takes longer than all else of a dispatch, and a chunk often comes again. */
function bindGroupOf(device: GPUDevice, label: string, pipeline: GPUComputePipeline, bindings: readonly GPUBufferBinding[]): GPUBindGroup {
  let found = bindGroups;
  for (const object of [pipeline, ...bindings.map(({ buffer }) => buffer)]) {
    let next = found.next.get(object);
    if (!next) found.next.set(object, (next = new BindGroups()));
    found = next;
  }
  const ranges = bindings.map(({ offset = "", size = "" }) => `${offset} ${size}`).join();
  let group = found.byRanges.get(ranges);
  if (!group) {
    const entries = bindings.map((resource, binding) => ({ binding, resource }));
    group = device.createBindGroup({ label, layout: pipeline.getBindGroupLayout(0), entries });
    found.byRanges.set(ranges, group);
  }
  return group;
}

function known<T>(step: Step, value: T | undefined, name: string): T {
  if (value === undefined) throw new TypeError(`the step "${step.label}" does not give ${name} to its kernel`);
  return value;
}

function resourceOf(binding: Binding, { matrices, scratch, outer }: Resources): GPUBufferBinding {
  switch (binding.kind) {
    case "matrix":
      return { buffer: matrices.get(binding.matrix, binding.layout) };
    case "scratch":
      return { buffer: scratch.get(binding.name) };
    case "outer":
      return { buffer: outer[binding.name]!, offset: binding.offset, size: binding.size };
  }
}
