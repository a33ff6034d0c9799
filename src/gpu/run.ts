import type { Batch, Contexts } from "../batch.js";
import { GpuError } from "../errors.js";
import { capacityOf, scheduleChunk, stagingBytes } from "../plan/schedule.js";
import { type Chunk, type Read, type Route, type ScheduleLimits } from "../plan/steps.js";
import type { Plan } from "../plan/trace.js";
import type { Variant } from "../plan/variants.js";
import { encodeSteps, type Resources } from "./encode.js";
import { checked, type DeviceWatch } from "./errors.js";
import { kernelOf } from "./kernels.js";
import type { Pace } from "./pace.js";
import type { Readback } from "./readback.js";

/** What a run reads: rows of the caller's numbers, not yet rounded to float32. */
export interface RunInputs {
  readonly points: Batch;
  readonly context: Contexts | null;
  readonly tangents: Batch | null;
}

/** How a call reports and how it is stopped. */
export interface RunOptions {
  /** Called after each chunk with the number of points done and their total. */
  readonly onProgress?: ((progress: { done: number; total: number }) => void) | undefined;
  /** Stops the call between two submissions; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** A piece of the results: `count` points from `first`, [count, read.width]. */
export type Take = (read: Read, first: number, count: number, data: Float32Array) => void;

/** What the calls of a field share. */
export interface Shared extends Omit<Resources, "outer"> {
  readonly readback: Readback;
  readonly turns: Turns;
  readonly watch: DeviceWatch;
  readonly pace: Pace;
  readonly label: string;
  /** Throws where the field can run no more. */
  readonly checkUsable: () => void;
}

/** Lets the chunks of concurrent runs take turns: they share scratch and staging, and a chunk may take several submissions. */
export class Turns {
  private last: Promise<void> = Promise.resolve();

  /** Resolves when it is the caller's turn, to the function that ends it. */
  async take(): Promise<() => void> {
    const before = this.last;
    let end: () => void = () => undefined;
    this.last = new Promise<void>((resolve) => (end = resolve));
    await before;
    return end;
  }
}

/** One call: its submissions in flight and what went wrong in them. */
interface Call {
  readonly signal: AbortSignal | undefined;
  readonly take: Take;
  readonly pending: Promise<void>[];
  readonly failures: unknown[];
}

/**
 * Evaluates a plan by one variant of the kernels for all points, chunk by chunk: upload, submissions of bounded work, read back, two in flight.
 * @returns for each point, 1 where it holds a NaN or an infinity (after rounding to float32), or its context does.
 * @throws GpuError, DeviceLostError, LimitError; the signal's reason.
 */
export async function run(
  plan: Plan,
  variant: Variant,
  inputs: RunInputs,
  limits: Omit<ScheduleLimits, "multiplyAddsPerSubmit">,
  shared: Shared,
  options: RunOptions,
  take: Take,
): Promise<Uint8Array> {
  const { turns, watch, pace } = shared;
  const { count: total } = inputs.points;
  const runs = inputs.context ? inputs.context.runs : [0];
  const starts = runs ?? [0];
  const route: Route = { to: "host", sharedContext: runs !== null };
  const nonFinite = new Uint8Array(total);
  const call: Call = { signal: options.signal, take, pending: [], failures: [] };
  let done = 0;
  let nextRun = 0;
  try {
    for (let first = 0; first < total;) {
      const paced = { ...limits, multiplyAddsPerSubmit: pace.multiplyAddsPerSubmit };
      const capacity = capacityOf(plan, paced, route, variant);
      while (nextRun < starts.length && starts[nextRun]! <= first) nextRun++;
      const end = starts[nextRun] ?? total;
      const count = Math.min(capacity.points, end - first);
      const chunk = scheduleChunk(plan, first, count, capacity, paced, route, variant);
      await compileKernels(chunk, shared);
      const uploads = prepare(chunk, inputs, nonFinite);
      const progress = (): void => {
        done += count;
        if (!call.signal?.aborted && call.failures.length === 0) options.onProgress?.({ done, total });
      };
      const endTurn = await watch.guard(turns.take());
      try {
        stopWhereAsked(call, shared);
        await makeRoom(chunk, limits.memoryBudget, shared);
        await issue(chunk, uploads, shared, call, progress);
      } finally {
        endTurn();
      }
      first += count;
    }
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
  pace.remember();
  return nonFinite;
}

function stopWhereAsked({ signal, failures }: Call, { checkUsable }: Shared): void {
  signal?.throwIfAborted();
  checkUsable();
  if (failures.length > 0) throw failures[0];
}

/** Kernels of other variants than the plain one are compiled when they are first needed. */
async function compileKernels({ submissions }: Chunk, { pipelines, watch }: Shared): Promise<void> {
  const kernels = new Set(submissions.flatMap(({ steps }) => steps.map(kernelOf)));
  await watch.guard(Promise.all([...kernels].map((kernel) => pipelines.compile(kernel))));
}

/** Where this chunk and what earlier ones left behind exceed the budget together, the latter goes. */
export async function makeRoom(chunk: Chunk, memoryBudget: number, { scratch, readback, watch }: Shared): Promise<void> {
  if (scratch.bytesWith(chunk.scratch) + readback.bytesWith(stagingBytes(chunk)) <= memoryBudget) return;
  await watch.guard(readback.idle());
  readback.destroy();
  scratch.destroy();
}

/** After an error a buffer may be one that WebGPU could not make: the next call makes its own. */
async function startAnew({ turns, watch, readback, scratch, constants, matrices }: Shared): Promise<void> {
  const endTurn = await watch.guard(turns.take());
  await watch.guard(readback.idle());
  readback.destroy();
  for (const buffers of [scratch, constants, matrices]) buffers.forget();
  endTurn();
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

type Upload = readonly [name: string, data: Float32Array];

/** The chunk's inputs in float32, non-finite numbers as 0 so that no driver meets them; their points are noted. */
function prepare(chunk: Chunk, { points, context, tangents }: RunInputs, nonFinite: Uint8Array): Upload[] {
  const { first, count } = chunk;
  const uploads: Upload[] = [];
  const add = (name: string, batch: Pick<Batch, "data">, total: number, shared: boolean): void => {
    const width = batch.data.length / total;
    const from = total === 1 ? 0 : first * width;
    let data = inFloat32(batch.data, from, from + (shared ? 1 : count) * width);
    if (!areFinite(data)) {
      // The caller's own numbers stay as they are.
      data = data.slice();
      for (const [i, value] of data.entries()) {
        if (Number.isFinite(value)) continue;
        data[i] = 0;
        if (shared) nonFinite.fill(1, first, first + count);
        else nonFinite[first + Math.floor(i / width)] = 1;
      }
    }
    // A field whose divergence is constant reads no points, and yet none may be a NaN.
    if (chunk.scratch.has(name)) uploads.push([name, data]);
  };
  add("points", points, points.count, false);
  if (context) add("context", context, context.shared ? 1 : points.count, context.runs !== null);
  if (tangents) add("tangents", tangents, tangents.count, false);
  return uploads;
}

/** The numbers [from, to), without a copy where they are in float32 already and in memory of their own. */
function inFloat32(numbers: Batch["data"], from: number, to: number): Float32Array {
  // writeBuffer takes no memory that threads share.
  if (numbers instanceof Float32Array && Object.prototype.toString.call(numbers.buffer) === "[object ArrayBuffer]")
    return numbers.subarray(from, to);
  const data = new Float32Array(to - from);
  if (numbers instanceof Float64Array) data.set(numbers.subarray(from, to));
  else for (let i = 0; i < data.length; i++) data[i] = numbers[from + i]!;
  return data;
}

/** A number times 0 is 0, unless it is a NaN or an infinity; four sums at a time take less than half as long as tests. */
function areFinite(data: Float32Array): boolean {
  const zero = 0;
  let [a, b, c, d] = [0, 0, 0, 0];
  const whole = data.length - (data.length % 4);
  for (let i = 0; i < whole; i += 4) {
    a += zero * data[i]!;
    b += zero * data[i + 1]!;
    c += zero * data[i + 2]!;
    d += zero * data[i + 3]!;
  }
  for (let i = whole; i < data.length; i++) a += zero * data[i]!;
  return a + b + c + d === 0;
}
