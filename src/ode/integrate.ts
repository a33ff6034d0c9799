import { makeRoom, runAlone, type Shared } from "../gpu/run.js";
import type { RunOptions } from "../inputs.js";
import { copyRows, markNonFinite, type Rows } from "../rows.js";
import {
  extraOf,
  HOME,
  homeStride,
  IntegrationSteps,
  pointsPerChunk,
  POINTS,
  STATUS,
  own,
  ownAt,
  wholeChunk,
  type Integration,
} from "./steps.js";
import { stagesOf, statuses, type Status } from "./tableaus.js";
import type { Floats, Words } from "../typedArrays.js";

/** Steps that points try before the host looks how many are left. */
const SWEEPS_PER_LOOK = 4;
/** Steps of one size that are recorded at once. */
const STEPS_AT_ONCE = 64;
/** Rows of points that are done are dropped where they are at least this part. */
const WORTH_DROPPING = 0.1;

/** What comes of each point. */
export interface Integrated<A = Floats> {
  /** x at the end, [count, d]; NaN where it did not get there. */
  readonly points: A;
  /** ∫ ∇·f dt along the way, [count]; or ∇ log p, [count, d]. */
  readonly carried: A;
  /** How often f was evaluated, [count]. */
  readonly evaluations: Words;
  readonly status: Status[];
}

/** Where an integration begins. */
export interface Beginning {
  readonly count: number;
  /** [count, d] */
  readonly points: Float64Array;
  /** What is carried at the beginning, [count, d]; zeros where nothing is said. */
  readonly carried?: Float64Array | null;
  /** [1 or count, c], whatever stands where time goes; null where f takes no context. */
  readonly context: Float64Array | null;
}

/**
 * Integrates all points, chunk by chunk.
 * @throws GpuError, DeviceLostError, LimitError; the signal's reason.
 */
export async function integrate(job: Integration, beginning: Beginning, shared: Shared, options: RunOptions): Promise<Integrated> {
  const { count } = beginning;
  const { stateSize: d } = job;
  const extra = extraOf(job);
  const result: Integrated = {
    points: new Float32Array(count * d),
    carried: new Float32Array(count * extra),
    evaluations: new Uint32Array(count),
    status: Array.from<Status>({ length: count }).fill("done"),
  };
  const limits = { ...shared.limits, multiplyAddsPerSubmit: Infinity };
  const perChunk = count === 0 ? 1 : pointsPerChunk(job, limits, true);
  for (let first = 0; first < count; first += perChunk) {
    const points = Math.min(perChunk, count - first);
    // What lies at home stays there from the first submission to the last: what earlier calls left goes now, or not at all.
    await makeRoom(wholeChunk(job, first, points, limits), shared);
    const chunk = new ChunkOfPoints(job, beginning, first, points, shared, options.signal);
    const progress = (done: number): void => options.onProgress?.({ done: first + done, total: count });
    await (job.steps === null ? chunk.adapt(progress) : chunk.go());
    chunk.into(result);
    progress(chunk.count);
  }
  const nonFinite = nonFinitePoints(job, beginning);
  for (let point = 0; point < count; point++) {
    // A driver may make a number of a NaN on the way.
    if (nonFinite[point] === 1) result.status[point] = "not finite";
    if (result.status[point] === "done") continue;
    result.points.fill(NaN, point * d, (point + 1) * d);
    result.carried.fill(NaN, point * extra, (point + 1) * extra);
  }
  return result;
}

/** [count]: 1 where a point or its condition is not finite, after rounding to float32. */
function nonFinitePoints({ stateSize: d, contextSize: c }: Integration, { count, points, context }: Beginning): Uint8Array {
  const marks = new Uint8Array(count);
  markNonFinite(marks, d, { data: new Float32Array(points), at: 0, stride: d });
  if (context) markNonFinite(marks, c, { data: new Float32Array(context), at: 0, stride: context.length === c ? 0 : c });
  return marks;
}

/** Points that go through together. */
class ChunkOfPoints {
  private home: Float32Array;
  private status = new Uint32Array(0);

  constructor(
    private readonly job: Integration,
    { points, context, carried = null }: Beginning,
    private readonly first: number,
    readonly count: number,
    private readonly shared: Shared,
    private readonly signal: AbortSignal | undefined,
  ) {
    const { stateSize: d, contextSize: c } = job;
    const [stride, begin] = [homeStride(job), ownAt(job)];
    const home = new Float32Array(count * stride);
    const rows = (data: Float64Array, width: number): Rows<Float64Array> =>
      data.length === width ? { data, at: 0, stride: 0 } : { data, at: first * width, stride: width };
    copyRows(count, d, { data: home, at: 0, stride }, rows(points, d));
    if (carried) copyRows(count, d, { data: home, at: d, stride }, rows(carried, d));
    if (context) copyRows(count, c, { data: home, at: begin + own.condition, stride }, rows(context, c));
    for (let point = 0; point < count; point++) {
      home[point * stride + begin + own.left] = job.to - job.from;
      // No error before: as if it had been the tolerance.
      home[point * stride + begin + own.errorBefore] = 1;
    }
    this.home = home;
  }

  /** Steps of one size. */
  async go(): Promise<void> {
    const all = this.job.steps!;
    let uploads: readonly Upload[] = this.rowsOf(allRows(this.count));
    for (let first = 0; first < all; first += STEPS_AT_ONCE) {
      const steps = this.steps(this.count);
      if (first === 0) steps.begin();
      const end = Math.min(first + STEPS_AT_ONCE, all);
      steps.fixed(first, end);
      await this.submit(steps, end === all ? ["home"] : [], uploads);
      uploads = [];
    }
  }

  /** Steps of sizes that the error decides, until no point is on its way; `progress` hears how many are not. */
  async adapt(progress: (done: number) => void): Promise<void> {
    let left = allRows(this.count);
    let uploads: readonly Upload[] = this.rowsOf(left);
    for (let isFirst = true; left.length > 0; isFirst = false) {
      const steps = this.steps(left.length);
      if (isFirst) steps.begin();
      for (let sweep = 0; sweep < SWEEPS_PER_LOOK; sweep++) steps.sweep();
      await this.submit(steps, ["status"], uploads);
      const onTheirWay = left.filter((row) => this.status[row] === 0);
      uploads = [];
      // An estimator's probes are those of a row, so rows stay as they are.
      const isDropping =
        onTheirWay.length <= (1 - WORTH_DROPPING) * left.length && !("probesPer" in this.job.plan && this.job.plan.probesPer);
      if (onTheirWay.length === 0) break;
      progress(this.count - onTheirWay.length);
      if (isDropping) {
        left = onTheirWay;
        uploads = [[POINTS, asFloats(left)]];
      }
    }
    await this.submit(this.steps(this.count), ["home"], []);
  }

  into({ points, carried, evaluations, status }: Integrated): void {
    const { stateSize: d, steps, tableau } = this.job;
    const { home, first, count } = this;
    const [stride, extra] = [homeStride(this.job), extraOf(this.job)];
    copyRows(count, d, { data: points, at: first * d, stride: d }, { data: home, at: 0, stride });
    copyRows(count, extra, { data: carried, at: first * extra, stride: extra }, { data: home, at: d, stride });
    if (steps === null) {
      for (let point = 0; point < count; point++) {
        evaluations[first + point] = home[point * stride + ownAt(this.job) + own.evaluations]!;
        status[first + point] = statuses[this.status[point]! - 1]!;
      }
      return;
    }
    evaluations.fill(steps * stagesOf(tableau), first, first + count);
    const marks = new Uint8Array(count);
    markNonFinite(marks, d + extra, { data: home, at: 0, stride });
    for (let point = 0; point < count; point++) if (marks[point] === 1) status[first + point] = "not finite";
  }

  private steps(rows: number): IntegrationSteps {
    const { limits, pace } = this.shared;
    return new IntegrationSteps(this.job, this.first, this.count, rows, { ...limits, multiplyAddsPerSubmit: pace.multiplyAddsPerSubmit });
  }

  private rowsOf(rows: Words): Upload[] {
    return [
      [HOME, this.home as Floats],
      [POINTS, asFloats(rows)],
      [STATUS, new Float32Array(this.count)],
    ];
  }

  private async submit(steps: IntegrationSteps, reads: readonly ("home" | "status")[], uploads: readonly Upload[]): Promise<void> {
    await runAlone(
      steps.finish(reads),
      uploads,
      this.shared,
      (data) => {
        if (reads[0] === "home") this.home = data.slice();
        else this.status = new Uint32Array(data.slice().buffer);
      },
      this.signal,
    );
  }
}

type Upload = readonly [name: string, data: Floats];

/** Whole numbers where floats are uploaded. */
function asFloats(numbers: Words): Floats {
  return new Float32Array(numbers.slice().buffer);
}

function allRows(count: number): Words {
  const rows = new Uint32Array(count);
  for (let row = 0; row < count; row++) rows[row] = row;
  return rows;
}
