import { InputError, quote } from "../errors.js";
import { kernelOf } from "../kernels/layers.js";
import type { PlanParameters } from "../plan/options.js";
import type { Plan } from "../plan/plan.js";
import { capacityOf, scheduleChunk } from "../schedule/capacity.js";
import { matricesOf, type Chunk, type OuterName, type Route, type ScheduleLimits, type Variant } from "../schedule/steps.js";
import { Constants, Scratch, USAGE } from "./buffers.js";
import { encodeSteps } from "./encode.js";
import { asGpuError, checked, whenFailed } from "./errors.js";
import { compileKernels, type Shared } from "./run.js";

/** What is recorded: a plan, from and into buffers of the caller. */
export interface Recording {
  readonly plan: Plan;
  readonly parameters: PlanParameters;
  readonly variant: Variant;
  readonly count: number;
  readonly route: Extract<Route, { to: "device" }>;
  /** What follows the last points, where something does. */
  readonly after: ((limits: ScheduleLimits) => Chunk) | null;
}

/** Records plans into commands of the caller, which may be submitted at any time: what they name lives as long as the field. */
export class Encoder {
  private readonly scratch: Scratch;
  private readonly constants: Constants;

  constructor(
    private readonly device: GPUDevice,
    private readonly label: string,
  ) {
    this.scratch = new Scratch(device, `${label} encode`, true);
    this.constants = new Constants(device, `${label} encode`, true);
  }

  /** A buffer of these numbers, for kernels to read. */
  upload(name: string, numbers: Float32Array<ArrayBuffer>): GPUBuffer {
    return this.constants.get(name, numbers, USAGE.STORAGE);
  }

  /** @throws InputError where the target is none; LimitError. */
  record(
    target: GPUCommandEncoder | GPUComputePassEncoder,
    recording: Recording,
    outer: Partial<Record<OuterName, GPUBuffer>>,
    shared: Shared,
  ): void {
    const pass = "dispatchWorkgroups" in target ? target : target.beginComputePass({ label: this.label });
    try {
      for (const chunk of chunksOf(recording, shared)) {
        // What could not be made is made anew by the next call; this one's commands fail where they are submitted.
        if (!this.isReserved(chunk, shared))
          whenFailed(
            this.device,
            () => this.makeBuffers(chunk, shared),
            () => this.forget(shared),
          );
        const resources = { ...shared, scratch: this.scratch, constants: this.constants, outer };
        for (const { steps } of chunk.submissions) encodeSteps(pass, steps, resources);
      }
    } finally {
      if (pass !== target) pass.end();
    }
  }

  /** Makes all that the commands will name. @throws LimitError, GpuError. */
  async reserve(recording: Recording, shared: Shared): Promise<void> {
    // The largest comes first.
    const [largest] = chunksOf({ ...recording, after: null }, shared);
    const [after] = chunksOf({ ...recording, count: 0 }, shared);
    const wanted = [largest, after].filter((chunk) => chunk !== undefined);
    for (const chunk of wanted) await compileKernels(chunk, shared);
    try {
      await shared.watch.guard(checked(this.device, this.label, () => wanted.forEach((chunk) => this.makeBuffers(chunk, shared))));
    } catch (error) {
      this.forget(shared);
      throw asGpuError(this.label, error);
    }
  }

  /** Scratch and matrices of a chunk; where the former and what other plans left exceed the budget together, the latter goes. */
  private makeBuffers(chunk: Chunk, { limits, matrices, pipelines }: Shared): void {
    if (this.scratch.bytesWith(chunk.scratch) > limits.memoryBudget) this.scratch.forget();
    this.scratch.reserve(chunk.scratch);
    for (const { matrix, layout } of matricesOf(chunk)) matrices.get(matrix, layout);
    for (const { steps } of chunk.submissions) for (const step of steps) pipelines.get(kernelOf(step));
  }

  private isReserved(chunk: Chunk, { matrices, pipelines }: Shared): boolean {
    return (
      this.scratch.has(chunk.scratch) &&
      matricesOf(chunk).every(({ matrix, layout }) => matrices.has(matrix, layout)) &&
      chunk.submissions.every(({ steps }) => steps.every((step) => pipelines.has(kernelOf(step))))
    );
  }

  /** After an error a buffer may be one that WebGPU could not make. */
  private forget({ matrices, pipelines }: Shared): void {
    for (const each of [this.scratch, this.constants, matrices, pipelines]) each.forget();
  }

  destroy(): void {
    this.scratch.destroy();
    this.constants.destroy();
  }
}

/** @throws InputError. */
export function checkTarget(target: GPUCommandEncoder | GPUComputePassEncoder): void {
  if (typeof target !== "object" || target === null || !("dispatchWorkgroups" in target || "beginComputePass" in target))
    throw new InputError(`target is ${quote(target)}; expected a GPUCommandEncoder or a GPUComputePassEncoder`);
}

function* chunksOf({ plan, parameters, variant, count, route, after }: Recording, shared: Shared): Generator<Chunk> {
  // How long a submission runs is the caller's business.
  const limits = { ...shared.limits, multiplyAddsPerSubmit: Infinity };
  if (count > 0) {
    const capacity = capacityOf(plan, limits, route, variant);
    for (let first = 0; first < count; first += capacity.points)
      yield scheduleChunk(plan, parameters, first, Math.min(capacity.points, count - first), capacity, limits, route, variant);
  }
  if (after) yield after(limits);
}
