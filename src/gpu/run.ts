import type { Batch, Contexts } from "../batch.js";
import { capacityOf, scheduleChunk, type Chunk, type Read, type Route, type ScheduleLimits } from "../plan/schedule.js";
import type { Plan } from "../plan/trace.js";
import { Scratch } from "./buffers.js";
import { encodeSteps, type Resources } from "./encode.js";
import { checked, type DeviceWatch } from "./errors.js";
import { Readback } from "./readback.js";
import type { Pace } from "./pace.js";

/** What a run reads: rows of the caller's numbers, not yet rounded to float32. */
export interface RunInputs {
  readonly points: Batch;
  readonly context: Contexts | null;
  readonly tangents: Batch | null;
}

export interface RunOptions {
  /** Called after each chunk with the number of points done and their total. */
  readonly onProgress?: ((progress: { done: number; total: number }) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A piece of the results: `count` points from `first`, [count, read.width]. */
export type Take = (read: Read, first: number, count: number, data: Float32Array) => void;

type Shared = Omit<Resources, "outer" | "scratch"> & { readonly scratch: Scratch; readonly watch: DeviceWatch; readonly pace: Pace; readonly label: string };

/**
 * Evaluates a plan for all points, chunk by chunk: upload, submissions of bounded work, read back, two in flight.
 * @returns the points that hold a NaN or an infinity (after rounding to float32), or whose context does.
 * @throws GpuError, DeviceLostError, LimitError; the signal's reason.
 */
export async function run(plan: Plan, inputs: RunInputs, limits: Omit<ScheduleLimits, "multiplyAddsPerSubmit">, shared: Shared, options: RunOptions, take: Take): Promise<number[]> {
  const { device, scratch, watch, pace, label } = shared;
  const { count: total } = inputs.points;
  const route: Route = { to: "host", sharedContext: inputs.context?.shared ?? false };
  const readback = new Readback(device, label);
  const nonFinite = new Set<number>();
  const failures: unknown[] = [];
  const pending: Promise<void>[] = [];
  const stop = (): void => {
    options.signal?.throwIfAborted();
    watch.check();
    if (failures.length > 0) throw failures[0];
  };
  let done = 0;
  try {
    for (let first = 0; first < total; ) {
      const paced = { ...limits, multiplyAddsPerSubmit: pace.multiplyAddsPerSubmit };
      const capacity = capacityOf(plan, paced, route);
      const count = Math.min(capacity.points, total - first);
      const chunk = scheduleChunk(plan, first, count, capacity, paced, route);
      const uploads = prepare(chunk, inputs, nonFinite);
      for (const [index, submission] of chunk.submissions.entries()) {
        await watch.guard(readback.free());
        stop();
        const work = submission.steps.reduce((sum, step) => sum + step.multiplyAdds, 0);
        // From here to the submit nothing is awaited: the queue's order keeps concurrent calls apart.
        const issued = checked(device, label, () => {
          if (index === 0) {
            scratch.reserve(chunk.scratch);
            for (const [name, data] of uploads) device.queue.writeBuffer(scratch.get(name), 0, data);
          }
          const encoder = device.createCommandEncoder({ label });
          const pass = encoder.beginComputePass({ label });
          encodeSteps(pass, submission.steps, { ...shared, outer: {} });
          pass.end();
          if (submission.reads.length > 0) readback.copy(encoder, submission.reads, count, scratch);
          device.queue.submit([encoder.finish()]);
          const read = readback.read(submission.reads, count, (what, data) => take(what, chunk.first, count, data));
          return { read, finished: pace.begin(work) };
        });
        const last = index === chunk.submissions.length - 1;
        const settled = watch
          .guard(
            issued.then(async ({ read, finished }) => {
              await read;
              finished();
              if (last) options.onProgress?.({ done: (done += count), total });
            }),
          )
          .catch((error: unknown) => void failures.push(error));
        pending.push(settled);
        if (pending.length > 8) await pending.shift();
      }
      first += count;
    }
    await Promise.all(pending);
    stop();
  } finally {
    await Promise.allSettled(pending);
    // A lost device never finishes its maps; its buffers are gone anyway.
    await watch.guard(readback.destroy()).catch(() => undefined);
  }
  return [...nonFinite];
}

/** The chunk's inputs in float32, non-finite numbers as 0 so that no driver meets them; their points are noted. */
function prepare(chunk: Chunk, { points, context, tangents }: RunInputs, nonFinite: Set<number>): [string, Float32Array<ArrayBuffer>][] {
  const { first, count } = chunk;
  const uploads: [string, Float32Array<ArrayBuffer>][] = [];
  const add = (name: string, batch: { data: ArrayLike<number> }, total: number, shared: boolean): void => {
    if (!chunk.scratch.has(name)) return;
    const width = batch.data.length / total;
    const data = new Float32Array((shared ? 1 : count) * width);
    const from = shared ? 0 : first * width;
    for (let i = 0; i < data.length; i++) {
      const value = Math.fround(batch.data[from + i]!);
      if (Number.isFinite(value)) data[i] = value;
      else if (shared) for (let point = first; point < first + count; point++) nonFinite.add(point);
      else nonFinite.add(first + Math.floor(i / width));
    }
    uploads.push([name, data]);
  };
  add("points", points, points.count, false);
  if (context) add("context", context, context.shared ? 1 : points.count, context.shared);
  if (tangents) add("tangents", tangents, tangents.count, false);
  return uploads;
}
