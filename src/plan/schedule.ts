import { LimitError } from "../errors.js";
import { buildChunk } from "./chunk.js";
import { STAGING_BUFFERS, type Capacity, type Chunk, type Route, type ScheduleLimits, type Submission } from "./steps.js";
import type { Plan } from "./trace.js";
import { PLAIN, type Variant } from "./variants.js";

/** The largest chunk within the limits; fewer tangents at once where one point alone would not fit. */
export function capacityOf(plan: Plan, limits: ScheduleLimits, route: Route, variant: Variant = PLAIN): Capacity {
  const largest = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);
  const all = plan.kind === "value" ? 1 : plan.tangentsAtOnce;
  if (plan.kind !== "value" && 4 * plan.tangents > Math.min(largest, limits.memoryBudget))
    throw new LimitError(
      `one point has ${plan.tangents} terms of 4 bytes; the device allows ${largest} bytes in one buffer, the memory budget ${limits.memoryBudget}`,
    );
  for (let tangentsAtOnce = all; ; tangentsAtOnce = Math.ceil(tangentsAtOnce / 2)) {
    const one = buildChunk({ plan, first: 0, count: 1, tangentsAtOnce, limits, route, variant });
    // Every buffer is a whole number of 16 bytes; over 4 points and over 8 that rounding does not show.
    const four = bytesOf(buildChunk({ plan, first: 0, count: 4, tangentsAtOnce, limits, route, variant }), route);
    const eight = bytesOf(buildChunk({ plan, first: 0, count: 8, tangentsAtOnce, limits, route, variant }), route);
    let points = 2 ** 24;
    let [fixed, slope] = [16 * four.size, 0];
    for (const [name, bytes] of four) {
      const grows = (eight.get(name)! - bytes) / 4;
      const constant = bytes - 4 * grows;
      fixed += constant;
      slope += grows;
      points = Math.min(points, grows > 0 ? Math.floor((largest - constant) / grows) : bytes <= largest ? points : 0);
    }
    if (route.to === "device")
      for (const { stride } of Object.values(route.outer))
        if (stride > 0)
          points = Math.min(points, Math.max(1, Math.floor((largest - limits.minStorageBufferOffsetAlignment) / (4 * stride))));
    points = slope > 0 ? Math.min(points, Math.floor((limits.memoryBudget - fixed) / slope)) : fixed <= limits.memoryBudget ? points : 0;
    const heaviest = Math.max(...one.submissions.map(workOf));
    if (points >= 1 && (tangentsAtOnce === 1 || heaviest <= limits.multiplyAddsPerSubmit)) {
      const work = one.submissions.reduce((sum, submission) => sum + workOf(submission), 0);
      return { points: Math.max(1, Math.min(points, Math.floor(limits.multiplyAddsPerSubmit / Math.max(1, work)))), tangentsAtOnce };
    }
    if (tangentsAtOnce === 1) {
      const widest = Math.max(...bytesOf(one, route).values());
      throw new LimitError(
        widest > largest
          ? `one point of this network needs a buffer of ${widest} bytes; the device allows ${largest}`
          : `one point of this network needs ${fixed + slope} bytes; the memory budget is ${limits.memoryBudget}`,
      );
    }
  }
}

/** The chunk of `count` points from `first`, cut into submissions of bounded work. */
export function scheduleChunk(
  plan: Plan,
  first: number,
  count: number,
  capacity: Capacity,
  limits: ScheduleLimits,
  route: Route,
  variant: Variant = PLAIN,
): Chunk {
  return buildChunk({ plan, first, count, tangentsAtOnce: capacity.tangentsAtOnce, limits, route, variant });
}

function workOf(submission: Submission): number {
  return submission.steps.reduce((sum, step) => sum + step.multiplyAdds, 0);
}

/** Bytes of one staging buffer: the largest that a submission of the chunk reads back, at least 4. */
export function stagingBytes({ count, submissions }: Chunk): number {
  return Math.max(4, ...submissions.map(({ reads }) => reads.reduce((sum, read) => sum + 4 * read.width * count, 0)));
}

/** Scratch and, where the host reads, staging. */
function bytesOf(chunk: Chunk, route: Route): Map<string, number> {
  const bytes = new Map(chunk.scratch);
  if (route.to === "host") {
    for (let index = 0; index < STAGING_BUFFERS; index++) bytes.set(`staging ${index}`, stagingBytes(chunk));
  }
  return bytes;
}
