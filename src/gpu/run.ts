import { GpuError } from "../errors.js";
import type { Inputs, RunOptions } from "../inputs.js";
import { kernelOf } from "../kernels/layers.js";
import type { PlanParameters } from "../plan/options.js";
import type { Plan } from "../plan/plan.js";
import { capacityOf, scheduleChunk, stagingBytes } from "../schedule/capacity.js";
import type { Chunk, Read, Route, ScheduleLimits, Variant } from "../schedule/steps.js";
import type { Turns } from "../turns.js";
import { areBound, encodeSteps, type Resources } from "./encode.js";
import { checked, type DeviceWatch } from "./errors.js";
import type { Pace } from "./pace.js";
import type { Readback } from "./readback.js";
import type { Floats } from "../typedArrays.js";

/** A piece of the results: `count` points from `first`, [count, read.width]. */
export type Take = (read: Read, first: number, count: number, data: Float32Array) => void;

/** What the calls of a field share. */
export interface Shared extends Omit<Resources, "outer"> {
  readonly readback: Readback;
  readonly turns: Turns;
  readonly gate: Gate;
  readonly watch: DeviceWatch;
  readonly pace: Pace;
  readonly label: string;
  readonly limits: Omit<ScheduleLimits, "multiplyAddsPerSubmit">;
  /** Throws where the field can run no more. */
  readonly checkUsable: () => void;
}

/** Lets calls through side by side, and closes while weights are replaced: after those that run, before those that come. */
export class Gate {
  private closed: Promise<void> = Promise.resolve();
  private readonly inside = new Set<Promise<unknown>>();

  async pass<T>(call: () => Promise<T>): Promise<T> {
    await this.closed;
    const done = call();
    this.inside.add(done);
    try {
      return await done;
    } finally {
      this.inside.delete(done);
    }
  }

  close(work: () => Promise<void>): Promise<void> {
    const done = this.closed.then(() => Promise.allSettled(this.inside)).then(work);
    // What goes wrong in it is its caller's; calls that come later go on.
    this.closed = done.catch(() => undefined);
    return done;
  }
}

/** One call: its submissions in flight and what went wrong in them. */
interface Call {
  readonly signal: AbortSignal | undefined;
  readonly take: Take;
  readonly pending: Promise<void>[];
  readonly failures: unknown[];
}

/** What runs, and by which kernels. */
export interface Job {
  readonly plan: Plan;
  readonly parameters: PlanParameters;
  readonly variant: Variant;
}

/**
 * Evaluates a plan by one variant of the kernels for all points, chunk by chunk: upload, submissions of bounded work, read back,
 * two in flight.
 * @throws GpuError, DeviceLostError, LimitError; the signal's reason.
 */
export async function run(
  { plan, parameters, variant }: Job,
  inputs: Inputs,
  shared: Shared,
  options: RunOptions & { readonly multiplyAddsPerSubmit?: number | undefined },
  take: Take,
): Promise<void> {
  const { pace, limits } = shared;
  const { count: total } = inputs;
  const runs = inputs.context ? inputs.context.runs : [0];
  const starts = runs ?? [0];
  const route: Route = { to: "host", sharedContext: runs !== null, sharedCotangent: inputs.divergenceCotangent?.shared === true };
  const call: Call = { signal: options.signal, take, pending: [], failures: [] };
  let done = 0;
  let nextRun = 0;
  await settled(call, shared, async () => {
    for (let first = 0; first < total;) {
      const paced = { ...limits, multiplyAddsPerSubmit: options.multiplyAddsPerSubmit ?? pace.multiplyAddsPerSubmit };
      const capacity = capacityOf(plan, paced, route, variant);
      while (nextRun < starts.length && starts[nextRun]! <= first) nextRun++;
      const end = starts[nextRun] ?? total;
      const count = Math.min(capacity.points, end - first);
      const chunk = scheduleChunk(plan, parameters, first, count, capacity, paced, route, variant);
      const progress = (): void => {
        done += count;
        if (!call.signal?.aborted && call.failures.length === 0) options.onProgress?.({ done, total });
      };
      await send(chunk, uploadsOf(chunk, inputs), shared, call, progress);
      first += count;
    }
  });
  pace.remember();
}

/** Runs a chunk that comes with no points. @throws as run does. */
export async function runAlone(
  chunk: Chunk,
  uploads: readonly Upload[],
  shared: Shared,
  take: (data: Float32Array) => void,
  signal?: AbortSignal,
): Promise<void> {
  const call: Call = { signal, take: (_read, _first, _count, data) => take(data), pending: [], failures: [] };
  await settled(call, shared, () => send(chunk, uploads, shared, call, () => undefined));
}

/** Multiply-adds of products that the host does sooner than it hears of a device. */
export const HOST_WORK: number = 2 ** 21;

/** Waits for all of a call, also where it fails. */
async function settled(call: Call, shared: Shared, work: () => Promise<void>): Promise<void> {
  try {
    await work();
    await Promise.all(call.pending);
    stopWhereAsked(call, shared);
  } catch (error) {
    call.failures.push(error);
    await Promise.all(call.pending);
    // What an abort or a destroyed field brings down with it is not the reason.
    stopWhereAsked({ ...call, failures: [] }, shared);
    if (error instanceof GpuError) await startAnew(shared);
    throw error;
  }
}

/** Submits a chunk when it is the call's turn. */
async function send(chunk: Chunk, uploads: readonly Upload[], shared: Shared, call: Call, progress: () => void): Promise<void> {
  // What ran before has its kernels and its room, unless another call has taken that meanwhile.
  if (!hasRun(chunk, shared)) await compileKernels(chunk, shared);
  const endTurn = await shared.watch.guard(shared.turns.take());
  try {
    stopWhereAsked(call, shared);
    if (!hasRun(chunk, shared)) await makeRoom(chunk, shared);
    await issue(chunk, uploads, shared, call, progress);
  } finally {
    endTurn();
  }
}

function hasRun({ submissions }: Chunk, shared: Shared): boolean {
  return submissions.every(({ steps }) => areBound(steps, { ...shared, outer: {} }));
}

function stopWhereAsked({ signal, failures }: Call, { checkUsable }: Shared): void {
  signal?.throwIfAborted();
  checkUsable();
  if (failures.length > 0) throw failures[0];
}

/** Kernels of other variants than the plain one are compiled when they are first needed. */
export async function compileKernels({ submissions }: Chunk, { pipelines, watch }: Shared): Promise<void> {
  const kernels = new Set(submissions.flatMap(({ steps }) => steps.map(kernelOf)));
  await watch.guard(Promise.all([...kernels].map((kernel) => pipelines.compile(kernel))));
}

/** Where this chunk and what earlier ones left behind exceed the budget together, the latter goes. */
export async function makeRoom(chunk: Chunk, { limits, scratch, readback, watch }: Shared): Promise<void> {
  if (scratch.bytesWith(chunk.scratch) + readback.bytesWith(stagingBytes(chunk)) <= limits.memoryBudget) return;
  await watch.guard(readback.idle());
  readback.destroy();
  scratch.destroy();
}

/** After an error a buffer may be one that WebGPU could not make: the next call makes its own. */
export async function startAnew({ turns, watch, readback, scratch, constants, matrices }: Shared): Promise<void> {
  const endTurn = await watch.guard(turns.take());
  try {
    await watch.guard(readback.idle());
    readback.destroy();
    for (const buffers of [scratch, constants, matrices]) buffers.forget();
  } finally {
    endTurn();
  }
}

/** Submits a chunk; what comes back is waited for by `call.pending`. */
async function issue(chunk: Chunk, uploads: readonly Upload[], shared: Shared, call: Call, progress: () => void): Promise<void> {
  const { device, scratch, readback, watch, pace, label } = shared;
  const { first, count, submissions } = chunk;
  for (const [index, { steps, reads }] of submissions.entries()) {
    await watch.guard(readback.free());
    stopWhereAsked(call, shared);
    const work = steps.reduce((sum, step) => sum + step.multiplyAdds, 0);
    const issued = checked(device, label, () => {
      if (index === 0) {
        scratch.reserve(chunk.scratch);
        for (const [name, data] of uploads) device.queue.writeBuffer(scratch.get(name), 0, data);
      }
      const encoder = device.createCommandEncoder({ label });
      const pass = encoder.beginComputePass({ label });
      encodeSteps(pass, steps, { ...shared, outer: {} });
      pass.end();
      if (reads.length > 0) readback.copy(encoder, reads, count, scratch);
      device.queue.submit([encoder.finish()]);
      return { read: readback.read(reads, count, (what, data) => call.take(what, first, count, data)), finished: pace.begin(work) };
    });
    const settled = issued.then(async ({ read, finished }) => {
      await read;
      finished();
      if (index === submissions.length - 1) progress();
    });
    call.pending.push(watch.guard(settled).catch((error: unknown) => void call.failures.push(error)));
    if (call.pending.length > 8) await call.pending.shift();
  }
}

/** Numbers for a scratch buffer. */
export type Upload = readonly [name: string, data: Floats];

/** The chunk's part of the inputs; a field whose divergence is constant reads no points. */
function uploadsOf({ first, count, scratch }: Chunk, inputs: Inputs): Upload[] {
  const { points, context, tangents, valueCotangent, divergenceCotangent, stateSize, contextSize } = inputs;
  const rows = (data: Floats, width: number, from: number, number: number): Floats => data.subarray(from * width, (from + number) * width);
  const uploads: Upload[] = [["points", rows(points, stateSize, first, count)]];
  if (context) {
    const one = context.runs !== null;
    uploads.push(["context", rows(context.data, contextSize, context.shared ? 0 : first, one ? 1 : count)]);
  }
  if (tangents) uploads.push(["tangents", rows(tangents, stateSize, first, count)]);
  if (valueCotangent) uploads.push(["value cotangent", rows(valueCotangent, stateSize, first, count)]);
  if (divergenceCotangent) {
    const { data, shared } = divergenceCotangent;
    uploads.push(["divergence cotangent", shared ? data : rows(data, 1, first, count)]);
  }
  return uploads.filter(([name]) => scratch.has(name));
}
