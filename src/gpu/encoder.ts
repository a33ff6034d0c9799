import { InputError, LimitError, quote } from "../errors.js";
import { kernelOf } from "../kernels/layers.js";
import type { PlanParameters } from "../plan/options.js";
import type { Plan } from "../plan/plan.js";
import { isPartOfSum } from "../schedule/adjoint.js";
import { capacityOf, scheduleChunk } from "../schedule/capacity.js";
import { matricesOf, type Chunk, type OuterName, type Route, type ScheduleLimits, type Step, type Variant } from "../schedule/steps.js";
import { Constants, Scratch, USAGE } from "./buffers.js";
import { areBound, bindSteps, encodeBound, type BoundStep } from "./encode.js";
import { asGpuError, checked, whenFailed } from "./errors.js";
import { compileKernels, type Shared } from "./run.js";
import type { Floats } from "../typedArrays.js";

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

/**
 * Records what was prepared.
 * @param between records what makes the cotangents of `count` points from `first`, once f of them is there.
 */
export type Replay = (pass: GPUComputePassEncoder, between?: (pass: GPUComputePassEncoder, first: number, count: number) => void) => void;

/** Steps after which f of so many points is there. */
interface Part {
  readonly steps: readonly BoundStep[];
  readonly first: number;
  readonly count: number;
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
  upload(name: string, numbers: Floats): GPUBuffer {
    return this.constants.get(name, numbers, USAGE.STORAGE);
  }

  /** @param chunks go on with what those before have left in scratch. */
  record(
    target: GPUCommandEncoder | GPUComputePassEncoder,
    chunks: readonly Chunk[],
    outer: Partial<Record<OuterName, GPUBuffer>>,
    shared: Shared,
  ): void {
    if (chunks.length === 0) return;
    const replay = this.prepare(chunks, outer, shared);
    const pass = "dispatchWorkgroups" in target ? target : target.beginComputePass({ label: this.label });
    try {
      replay(pass);
    } finally {
      if (pass !== target) pass.end();
    }
  }

  /** The same, to be recorded as often as wanted: what is bound once takes most of the time. */
  prepare(chunks: readonly Chunk[], outer: Partial<Record<OuterName, GPUBuffer>>, shared: Shared): Replay {
    const resources = { ...shared, scratch: this.scratch, constants: this.constants, outer };
    const isBound = chunks.every(({ submissions }) => submissions.every(({ steps }) => areBound(steps, resources)));
    // What could not be made is made anew by the next call; this one's commands fail where they are submitted.
    if (!isBound && !this.isReserved(chunks, shared))
      whenFailed(
        this.device,
        () => this.makeBuffers(chunks, shared),
        () => this.forget(shared),
      );
    const parts = chunks.flatMap(({ first, count, submissions, forwardSteps }): Part[] => {
      const steps = submissions.flatMap((submission) => bindSteps(submission.steps, resources));
      if (forwardSteps === 0) return [{ steps, first, count: 0 }];
      return [
        { steps: steps.slice(0, forwardSteps), first, count },
        { steps: steps.slice(forwardSteps), first, count: 0 },
      ];
    });
    return (pass, between) => {
      for (const { steps, first, count } of parts) {
        encodeBound(pass, steps);
        if (count > 0) between?.(pass, first, count);
      }
    };
  }

  /** Makes all that the commands will name. @throws LimitError, GpuError. */
  async reserve(chunks: readonly Chunk[], shared: Shared): Promise<void> {
    if (chunks.length === 0) return;
    for (const chunk of chunks) await compileKernels(chunk, shared);
    try {
      await shared.watch.guardUnread(checked(this.device, this.label, () => this.makeBuffers(chunks, shared)));
    } catch (error) {
      this.forget(shared);
      throw asGpuError(this.label, error);
    }
  }

  /** Scratch and matrices; where the former and what other plans left exceed the budget together, the latter goes. */
  private makeBuffers(chunks: readonly Chunk[], { limits, matrices, pipelines }: Shared): void {
    const scratch = scratchOf(chunks);
    if (this.scratch.bytesWith(scratch) > limits.memoryBudget) this.scratch.forget();
    this.scratch.reserve(scratch);
    for (const { matrix, layout } of chunks.flatMap(matricesOf)) matrices.get(matrix, layout);
    for (const step of stepsOf(chunks)) pipelines.get(kernelOf(step));
  }

  private isReserved(chunks: readonly Chunk[], { matrices, pipelines }: Shared): boolean {
    return (
      this.scratch.has(scratchOf(chunks)) &&
      chunks.flatMap(matricesOf).every(({ matrix, layout }) => matrices.has(matrix, layout)) &&
      stepsOf(chunks).every((step) => pipelines.has(kernelOf(step)))
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

/** All of a recording: later chunks go on with what earlier ones have left in scratch. @throws LimitError. */
export function chunksOf({ plan, parameters, variant, count, route, after }: Recording, shared: Shared): Chunk[] {
  // How long a submission runs is the caller's business.
  const limits = { ...shared.limits, multiplyAddsPerSubmit: Infinity };
  const last = after ? [after(limits)] : [];
  if (count === 0) return last;
  // The parts of sums are those of the chunks before, which count them.
  const own = [...scratchOf(last)].filter(([name]) => !isPartOfSum(name));
  const ownBytes = own.reduce((sum, [, bytes]) => sum + bytes, 0);
  const memoryBudget = limits.memoryBudget - ownBytes;
  if (memoryBudget <= 0)
    throw new LimitError(`what follows the points takes ${ownBytes} bytes; the memory budget is ${limits.memoryBudget}`);
  const capacity = capacityOf(plan, { ...limits, memoryBudget }, route, variant);
  const chunks: Chunk[] = [];
  for (let first = 0; first < count; first += capacity.points)
    chunks.push(scheduleChunk(plan, parameters, first, Math.min(capacity.points, count - first), capacity, limits, route, variant));
  return [...chunks, ...last];
}

/** Bytes of each scratch buffer. */
function scratchOf(chunks: readonly Chunk[]): ReadonlyMap<string, number> {
  if (chunks.length === 1) return chunks[0]!.scratch;
  const most = new Map<string, number>();
  for (const { scratch } of chunks) for (const [name, bytes] of scratch) most.set(name, Math.max(bytes, most.get(name) ?? 0));
  return most;
}

function stepsOf(chunks: readonly Chunk[]): readonly Step[] {
  return chunks.flatMap(({ submissions }) => submissions.flatMap(({ steps }) => steps));
}
