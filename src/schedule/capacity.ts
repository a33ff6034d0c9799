import { LimitError } from "../errors.js";
import type { PlanParameters } from "../plan/options.js";
import type { Plan } from "../plan/plan.js";
import { Recent } from "../recent.js";
import { buildChunk } from "./chunk.js";
import { countedChunk } from "./counted.js";
import {
  floatsOf,
  STAGING_BUFFERS,
  type Capacity,
  type Chunk,
  type Route,
  type ScheduleLimits,
  type Submission,
  type Variant,
} from "./steps.js";

/** A chunk takes no more than about this many submissions, so that progress is reported, and other calls have their turn. */
const SUBMISSIONS_PER_CHUNK = 256;

/** Something that grows with the points of a chunk: fixed + slope * points. */
interface Line {
  readonly fixed: number;
  readonly slope: number;
}

/** What points take with some number of tangents at once. */
interface Footprint {
  /** How many the memory holds, of GPU and budget; 0 where not even one fits. */
  readonly points: number;
  /** Multiply-adds of each pass over the tangents, equal ones once; the first pass has the forward pass in it. */
  readonly passes: readonly Line[];
  readonly work: Line;
  /** Bytes of all scratch and staging buffers. */
  readonly bytes: Line;
}

/** Footprints of a plan by tangents at once, and by what else decides them. */
const footprints = new WeakMap<Plan, Map<string, Map<number, Footprint>>>();

/** Of no consequence for how much a chunk takes. */
const ANY: PlanParameters = { seed: 0, step: 0.5, orthogonal: false };

/** The largest chunk within the limits; fewer tangents at once where one point alone would not fit. */
export function capacityOf(plan: Plan, limits: ScheduleLimits, route: Route, variant: Variant): Capacity {
  const all = plan.kind === "value" ? 1 : plan.tangentsAtOnce;
  const largest = largestBuffer(limits);
  if (plan.kind !== "value" && 4 * plan.tangents > Math.min(largest, limits.memoryBudget))
    throw new LimitError(
      `one point has ${plan.tangents} terms of 4 bytes; the device allows ${largest} bytes in one buffer, the memory budget ${limits.memoryBudget}`,
    );
  const known = footprintsOf(plan, limits, route, variant);
  const limit = limits.multiplyAddsPerSubmit;
  for (let tangentsAtOnce = all; ; tangentsAtOnce = Math.ceil(tangentsAtOnce / 2)) {
    let footprint = known.get(tangentsAtOnce);
    if (!footprint) known.set(tangentsAtOnce, (footprint = measure(plan, tangentsAtOnce, limits, route, variant)));
    const { points, passes, work, bytes } = footprint;
    const perPass = Math.min(...passes.map((pass) => pointsWithin(limit, pass)));
    if (points >= 1 && (tangentsAtOnce === 1 || perPass >= 1))
      return { points: Math.max(1, Math.min(points, perPass, pointsWithin(SUBMISSIONS_PER_CHUNK * limit, work))), tangentsAtOnce };
    if (tangentsAtOnce > 1) continue;
    const one = buildChunk({ plan, parameters: ANY, first: 0, count: 1, tangentsAtOnce, limits, route, variant });
    const widest = Math.max(...bytesOf(one, route).values());
    throw new LimitError(
      widest > largest
        ? `one point of this network needs a buffer of ${widest} bytes; the device allows ${largest}`
        : `one point of this network needs ${bytes.fixed + bytes.slope} bytes; the memory budget is ${limits.memoryBudget}`,
    );
  }
}

/** The work that a submission may hold decides none of a footprint, and it alone changes from chunk to chunk. */
function footprintsOf(plan: Plan, limits: ScheduleLimits, route: Route, variant: Variant): Map<number, Footprint> {
  const { maxStorageBufferBindingSize, maxBufferSize, minStorageBufferOffsetAlignment, memoryBudget } = limits;
  const rows =
    route.to === "host"
      ? [route.sharedContext, route.sharedCotangent]
      : Object.entries(route.outer).map(([name, { stride }]) => `${name} ${stride}`);
  const key = [maxStorageBufferBindingSize, maxBufferSize, minStorageBufferOffsetAlignment, memoryBudget, variant.name, ...rows].join();
  let ofPlan = footprints.get(plan);
  if (!ofPlan) footprints.set(plan, (ofPlan = new Map()));
  let known = ofPlan.get(key);
  if (!known) {
    // A caller of encode may come with ever new strides.
    if (ofPlan.size >= 64) ofPlan.clear();
    ofPlan.set(key, (known = new Map()));
  }
  return known;
}

/**
 * Builds chunks of a few points, cut into the smallest submissions, to see how they grow. They are as where buffers are shared, which takes
 * the most: points are gathered, as later chunks may have to that begin elsewhere, and the Jacobian lies in scratch.
 */
function measure(plan: Plan, tangentsAtOnce: number, limits: ScheduleLimits, route: Route, variant: Variant): Footprint {
  const build = (count: number): Chunk =>
    buildChunk({
      plan,
      parameters: ANY,
      first: 0,
      count,
      tangentsAtOnce,
      limits: { ...limits, multiplyAddsPerSubmit: 0 },
      route: route.to === "device" ? { ...route, sharesBuffers: true } : route,
      variant,
    });
  // Every buffer is a whole number of 16 bytes; over 4 points and over 8 that rounding does not show.
  const [four, eight] = [build(4), build(8)];
  const line = (at4: number, at8: number): Line => ({ fixed: 2 * at4 - at8, slope: (at8 - at4) / 4 });

  const largest = largestBuffer(limits);
  const bytesOfEight = bytesOf(eight, route);
  let points = 2 ** 24;
  let [fixed, slope] = [16 * bytesOfEight.size, 0];
  for (const [name, bytes] of bytesOf(four, route)) {
    const buffer = line(bytes, bytesOfEight.get(name)!);
    fixed += buffer.fixed;
    slope += buffer.slope;
    points = Math.min(points, pointsWithin(largest, buffer));
  }
  if (route.to === "device")
    for (const { stride } of Object.values(route.outer))
      if (stride > 0) points = Math.min(points, Math.max(1, Math.floor((largest - limits.minStorageBufferOffsetAlignment) / (4 * stride))));
  points = Math.min(points, pointsWithin(limits.memoryBudget, { fixed, slope }));

  const works = four.submissions.map((submission, index) => line(workOf(submission), workOf(eight.submissions[index]!)));
  const passes = new Map(works.map((pass) => [`${pass.fixed} ${pass.slope}`, pass]));
  const work = { fixed: sumOf(works, "fixed"), slope: sumOf(works, "slope") };
  return { points, passes: [...passes.values()], work, bytes: { fixed, slope } };
}

/** How many points keep within the limit; below 1 where not even one does. */
function pointsWithin(limit: number, { fixed, slope }: Line): number {
  if (slope > 0) return Math.floor((limit - fixed) / slope);
  return fixed <= limit ? Infinity : 0;
}

function sumOf(lines: readonly Line[], part: keyof Line): number {
  return lines.reduce((sum, line) => sum + line[part], 0);
}

function largestBuffer({ maxStorageBufferBindingSize, maxBufferSize }: ScheduleLimits): number {
  return Math.min(maxStorageBufferBindingSize, maxBufferSize);
}

/** A chunk, and the work that a submission was allowed when it was built. */
interface KnownChunk {
  readonly limit: number;
  readonly chunk: Chunk;
}

/** The last chunks of each plan by what decides them: evaluate and encode are often called alike, frame by frame. */
const lastChunks = new WeakMap<Plan, Recent<string, KnownChunk>>();
const MOST_CHUNKS = 8;

/** The chunk of `count` points from `first`, cut into submissions of bounded work. */
export function scheduleChunk(
  plan: Plan,
  parameters: PlanParameters,
  first: number,
  count: number,
  capacity: Capacity,
  limits: ScheduleLimits,
  route: Route,
  variant: Variant,
): Chunk {
  const { tangentsAtOnce } = capacity;
  const { multiplyAddsPerSubmit: limit, ...lasting } = limits;
  const key = JSON.stringify([parameters, first, count, tangentsAtOnce, lasting, route, variant.name]);
  let known = lastChunks.get(plan);
  if (!known) lastChunks.set(plan, (known = new Recent(MOST_CHUNKS)));
  const last = known.find(key);
  if (last && (last.limit === limit || isWhole(last.chunk, limit))) return last.chunk;
  const build = (points: number): Chunk => buildChunk({ plan, parameters, first, count: points, tangentsAtOnce, limits, route, variant });
  const counted = route.to === "device" ? route.outer.count : undefined;
  const chunk = counted ? countedChunk(build(count), build, counted, limits.minStorageBufferOffsetAlignment) : build(count);
  known.delete(key);
  known.get(key, () => ({ limit, chunk }));
  return chunk;
}

/** Whether a chunk is one submission within the limit: the pace, which changes from call to call, decides only where they end. */
function isWhole({ submissions }: Chunk, limit: number): boolean {
  return submissions.length <= 1 && submissions.every((submission) => workOf(submission) <= limit);
}

function workOf(submission: Submission): number {
  return submission.steps.reduce((sum, step) => sum + step.multiplyAdds, 0);
}

/** Bytes of one staging buffer: the largest that a submission of the chunk reads back, at least 4. */
export function stagingBytes({ count, submissions }: Chunk): number {
  return Math.max(4, ...submissions.map(({ reads }) => reads.reduce((sum, read) => sum + 4 * floatsOf(read, count), 0)));
}

/** Scratch and, where the host reads, staging. */
function bytesOf(chunk: Chunk, route: Route): Map<string, number> {
  const bytes = new Map(chunk.scratch);
  if (route.to === "host") {
    for (let index = 0; index < STAGING_BUFFERS; index++) bytes.set(`staging ${index}`, stagingBytes(chunk));
  }
  return bytes;
}
