import type { Plan } from "../plan/plan.js";
import type { PlanParameters } from "../plan/options.js";
import { LimitError } from "../errors.js";
import { capacityOf, scheduleChunk, stagingBytes } from "../schedule/capacity.js";
import { ENTRIES } from "../plan/matrices.js";
import { fill, inRows, multiply, type Lying } from "../schedule/products.js";
import { asBits, asRows, onesRow, outerAddress, StepRecorder, type Address } from "../schedule/recorder.js";
import {
  STAGING_BUFFERS,
  type Binding,
  type Chunk,
  type OuterName,
  type OuterRows,
  type Read,
  type Route,
  type ScheduleLimits,
  type Variant,
} from "../schedule/steps.js";
import { control, LEAST_OF_SPAN, LEAST_STEP, stagesOf, timeOf, type Tableau } from "./tableaus.js";

/** An integration of points: dx/dt = f(x, t), and what is carried along the path. */
export interface Integration {
  /** Of value and divergence; for the score the gradient of Σ (s · f + ∇·f) by the points, and the value. */
  readonly plan: Plan;
  /** l = ∫ ∇·f dt, or s = ∇ log p, whose slope is -Jᵀ s - ∇(∇·f). */
  readonly carried: "divergence" | "score";
  readonly parameters: PlanParameters;
  readonly variant: Variant;
  readonly stateSize: number;
  readonly contextSize: number;
  /** Of the context, where time stands; null where f does not depend on it. */
  readonly timeColumn: number | null;
  readonly from: number;
  readonly to: number;
  readonly tableau: Tableau;
  /** How many steps of one size; null where the error decides. */
  readonly steps: number | null;
  readonly rtol: number;
  readonly atol: number;
  readonly mostAttempts: number;
  /** Whether all points have one condition. */
  readonly sharesCondition: boolean;
}

/** The scratch buffers, beside those of the plan. */
const names = {
  points: "rows of points",
  value: "slope of x",
  slope: "slope of what is carried",
  home: "home",
  stages: "stages",
  state: "stage of x",
  carried: "stage of what is carried",
  context: "stage of the context",
  status: "status",
} as const;

export const POINTS: string = names.points;
export const HOME: string = names.home;
export const STATUS: string = names.status;

/** Floats of what is carried. */
export function extraOf({ carried, stateSize }: Integration): number {
  return carried === "score" ? stateSize : 1;
}

/** Where a point's own numbers stand at home, after z and its first stage: see ode_stage.wgsl and ode_control.wgsl. */
export const own = { left: 1, errorBefore: 3, evaluations: 4, condition: 6 } as const;

/** Where they begin. */
export function ownAt(job: Integration): number {
  return 2 * (job.stateSize + extraOf(job));
}

/** Floats of a point at home: see ode_stage.wgsl. */
export function homeStride(job: Integration): number {
  return ownAt(job) + own.condition + job.contextSize;
}

/** Rows in buffers of the caller. */
type Outer = Partial<Record<OuterName, OuterRows>>;

const NONE = 0xffffffff;

/** Writes the steps of an integration of `count` points from `first`, of which `rows` are still on their way. */
export class IntegrationSteps {
  private readonly recorder: StepRecorder;
  private readonly evaluation: Chunk;

  constructor(
    private readonly job: Integration,
    private readonly first: number,
    private readonly count: number,
    private readonly rows: number,
    private readonly limits: ScheduleLimits,
  ) {
    const { plan, parameters, variant } = job;
    this.recorder = new StepRecorder(limits);
    const route = routeOf(job, first);
    // How many tangents at once, with room for the rest.
    const capacity = capacityOf(plan, { ...limits, memoryBudget: limits.memoryBudget / 2 }, route, variant);
    this.evaluation = onScratch(scheduleChunk(plan, parameters, first, rows, { ...capacity, points: rows }, limits, route, variant));
    const { stateSize: d, contextSize: c } = job;
    const extra = extraOf(job);
    const floats: Record<keyof typeof names, number> = {
      points: count,
      value: count * d,
      slope: count * extra,
      home: count * homeStride(job),
      stages: count * (d + extra) * Math.max(1, job.tableau.b.length - 1),
      state: count * d,
      carried: count * extra,
      context: Math.max(1, this.contextRows(count) * c),
      status: count,
    };
    for (const [name, size] of Object.entries(floats)) this.recorder.scratch(names[name as keyof typeof names], size);
    for (const [name, bytes] of this.evaluation.scratch) this.recorder.scratch(name, bytes / 4);
  }

  private contextRows(rows: number): number {
    return sharesContext(this.job) ? 1 : rows;
  }

  /** f at the first points, and where the error decides the first step sizes. */
  begin(): void {
    this.stage({ arrived: NONE, weights: [], time: this.job.steps === null ? 0 : this.job.from });
    if (this.job.steps !== null) return;
    this.evaluate();
    this.control(0);
  }

  /** The steps [from, to) of one size each. */
  fixed(from: number, to: number): void {
    const { tableau, from: begin, to: end, steps } = this.job;
    const h = (end - begin) / steps!;
    const stages = stagesOf(tableau);
    for (let step = from; step < to; step++)
      for (let stage = 0; stage < stages; stage++) {
        this.evaluate();
        const isLast = stage === stages - 1;
        const c = isLast ? 1 : tableau.c[stage + 1]!;
        this.stage({
          arrived: stage,
          weights: (isLast ? tableau.b : tableau.a[stage + 1]!).slice(0, stage + 1),
          endsStep: isLast,
          h,
          time: timeOf((step + c) / steps!, begin, end),
        });
      }
  }

  /** Tries a step of each point that is on its way. */
  sweep(): void {
    const { a, c, b } = this.job.tableau;
    for (let stage = 1; stage < b.length; stage++) {
      this.stage({ arrived: stage === 1 ? NONE : stage - 1, weights: a[stage]!, time: c[stage]! });
      this.evaluate();
    }
    this.control(b.length);
  }

  finish(reads: readonly ("home" | "status")[]): Chunk {
    return this.recorder.finish(
      reads.map((name): Read => ({
        what: "terms",
        scratch: names[name],
        width: name === "home" ? homeStride(this.job) : 1,
        first: 0,
        columns: 0,
      })),
      this.first,
      this.count,
    );
  }

  /** f and ∇·f of the rows as they stand. */
  private evaluate(): void {
    for (const { steps } of this.evaluation.submissions) {
      this.recorder.submitWhenFull(steps.reduce((sum, { multiplyAdds }) => sum + multiplyAdds, 0));
      for (const step of steps) this.recorder.add(step);
    }
  }

  private stage({
    arrived,
    weights,
    time,
    endsStep = false,
    h = 0,
  }: {
    arrived: number;
    weights: readonly number[];
    time: number;
    endsStep?: boolean;
    h?: number;
  }): void {
    const { stateSize: d, contextSize: c, timeColumn, steps, from, to } = this.job;
    const { rows } = this;
    const weightOf = (j: number): number => asBits(weights[j] ?? 0);
    this.recorder.add({
      label: "stage of a step",
      kernel: "ode_stage",
      parameters: {
        rows,
        ...this.widths(),
        contexts: c,
        homeStride: homeStride(this.job),
        arrived,
        known: weights.length,
        endsStep: endsStep ? 1 : 0,
        isAdaptive: steps === null ? 1 : 0,
        step: asBits(h),
        time: asBits(time),
        begin: asBits(from),
        end: asBits(to),
        timeColumn: timeColumn ?? NONE,
        contextRows: this.contextRows(rows),
        weight0: weightOf(0),
        weight1: weightOf(1),
        weight2: weightOf(2),
        weight3: weightOf(3),
        weight4: weightOf(4),
        weight5: weightOf(5),
      },
      bindings: bindingsOf("points", "value", "slope", "home", "stages", "state", "carried", "context"),
      invocations: rows * (d + extraOf(this.job)),
      multiplyAdds: rows * (d + extraOf(this.job)) * weights.length,
    });
  }

  private widths(): Record<"width" | "extra" | "slopeSign", number> {
    const { carried, stateSize } = this.job;
    return { width: stateSize, extra: extraOf(this.job), slopeSign: asBits(carried === "score" ? -1 : 1) };
  }

  /** From the caller's points, and conditions [1 or count, columns of the context but for time]. */
  load(outer: Outer): void {
    const { stateSize: d, contextSize: c, timeColumn } = this.job;
    const stride = homeStride(this.job);
    const home = { kind: "scratch", name: names.home } as const;
    fill(this.recorder, "begin at home", this.count, stride, inRows(home, stride));
    this.copy("points at home", outer, "points", d, inRows(home, stride), "in");
    // Columns before time and after it.
    const parts =
      timeColumn === null
        ? [[0, c, 0]]
        : [
            [0, timeColumn, 0],
            [timeColumn, c - 1, 1],
          ];
    for (const [first, end, moved] of parts as [number, number, number][])
      if (first < end)
        this.copy(
          "conditions at home",
          outer,
          "context",
          end - first,
          inRows(home, stride, ownAt(this.job) + own.condition + first + moved),
          "in",
          first,
        );
  }

  /** Into the caller's buffers, as far as there are some. */
  leave(outer: Outer): void {
    const { stateSize: d } = this.job;
    const stride = homeStride(this.job);
    const home = { kind: "scratch", name: names.home } as const;
    if (outer["end points"]) this.copy("leave the points", outer, "end points", d, inRows(home, stride), "out");
    if (outer["divergence integral"]) this.copy("leave the integral", outer, "divergence integral", 1, inRows(home, stride, d), "out");
    if (!outer["log density"]) return;
    const { binding, offset, stride: outStride } = this.address(outer, "log density", 1);
    this.recorder.add({
      label: "log density",
      kernel: "log_density",
      parameters: { rows: this.count, width: d, homeStride: stride, outOffset: offset, outStride },
      bindings: { home, out: binding },
      invocations: this.count,
      multiplyAdds: this.count * d,
    });
  }

  private address(outer: Outer, name: OuterName, width: number): Address {
    return outerAddress(name, outer[name]!, width, this.first, this.count, this.limits.minStorageBufferOffsetAlignment);
  }

  private copy(label: string, outer: Outer, name: OuterName, width: number, home: Lying, way: "in" | "out", column = 0): void {
    const { binding, offset, stride } = this.address(outer, name, column + width);
    const there = inRows(binding, stride, offset + column);
    const sizes = { n: 1, r: this.count, c: width, j: 1 };
    const [into, lying] = way === "in" ? [home, there] : [there, home];
    multiply(this.recorder, label, { sizes, into: ENTRIES }, into, [{ ...ENTRIES, lying }], false);
  }

  private control(stages: number): void {
    const { stateSize: d, tableau, from, to, rtol, atol, mostAttempts } = this.job;
    const { rows } = this;
    const numbered = (name: string, of: readonly number[], count: number): Record<string, number> =>
      Object.fromEntries(Array.from({ length: count }, (_, j) => [`${name}${j}`, asBits(of[j] ?? 0)]));
    this.recorder.add({
      label: "end of a step",
      kernel: "ode_control",
      parameters: {
        rows,
        ...this.widths(),
        homeStride: homeStride(this.job),
        stages,
        mostAttempts,
        exponent: asBits(1 / tableau.order),
        span: asBits(to - from),
        relative: asBits(rtol),
        absolute: asBits(atol),
        leastStep: asBits(LEAST_STEP),
        leastOfSpan: asBits(LEAST_OF_SPAN),
        safety: asBits(control.safety),
        ofError: asBits(control.ofError),
        ofErrorBefore: asBits(control.ofErrorBefore),
        least: asBits(control.least),
        most: asBits(control.most),
        ...numbered("b", tableau.b, 6),
        ...numbered("e", tableau.error ?? [], 7),
      },
      bindings: bindingsOf("points", "value", "slope", "stages", "home", "status"),
      invocations: rows,
      multiplyAdds: rows * (d + extraOf(this.job)) * 3 * stages,
    });
  }
}

/** Whether one context serves all points: with error control each has a time of its own. */
export function sharesContext({
  contextSize,
  sharesCondition,
  steps,
  timeColumn,
}: Pick<Integration, "contextSize" | "sharesCondition" | "steps" | "timeColumn">): boolean {
  return contextSize === 0 || (sharesCondition && (steps !== null || timeColumn === null));
}

/** Rows of points from `first`, which lie at the beginning of their buffers. */
function routeOf(job: Integration, first = 0): Extract<Route, { to: "device" }> {
  const { stateSize: d, contextSize: c } = job;
  const rows = (stride: number): OuterRows => ({ offset: -4 * first * stride, stride });
  const ofCarried = {
    divergence: { divergence: rows(1) },
    score: { "value cotangent": rows(d), "divergence cotangent": rows(0), "gradient of points": rows(d) },
  };
  const outer = {
    points: rows(d),
    value: rows(d),
    ...ofCarried[job.carried],
    ...(c > 0 && { context: rows(sharesContext(job) ? 0 : c) }),
  };
  return { to: "device", outer, sharesBuffers: false, marksNonFinite: true };
}

/** No steps, but all buffers that any chunk of these points takes. */
export function wholeChunk(job: Integration, first: number, count: number, limits: ScheduleLimits): Chunk {
  return new IntegrationSteps(job, first, count, count, limits).finish(["home"]);
}

/**
 * How many points go through together, at most.
 * @param isReadBack whether the host reads them.
 * @throws LimitError where not even one fits.
 */
export function pointsPerChunk(job: Integration, limits: ScheduleLimits, isReadBack: boolean): number {
  // Every buffer grows in step with the points, or not at all; over 4 points and over 8 whole vec4s do not show.
  const [four, eight] = [4, 8].map((count) => bytesOf(job, count, limits, isReadBack)) as [number[], number[]];
  const within = (limit: number, at4: number, at8: number): number => Math.floor((4 * (limit - (2 * at4 - at8))) / (at8 - at4));
  const largest = Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize);
  const ofBuffers = four.map((bytes, index) => (eight[index] === bytes ? Infinity : within(largest, bytes, eight[index]!)));
  const points = Math.min(...ofBuffers, within(limits.memoryBudget, sum(four), sum(eight)));
  if (points < 1) throw new LimitError(`one point of this flow takes more than the memory budget of ${limits.memoryBudget} bytes`);
  return points;
}

/** All buffers together, the plan's among them, for each point. */
export function bytesPerPoint(job: Integration, limits: ScheduleLimits): number {
  const [four, eight] = [4, 8].map((count) => sum(bytesOf(job, count, limits, true))) as [number, number];
  return (eight - four) / 4;
}

/** Of each buffer, those of the host among them where it reads. */
function bytesOf(job: Integration, count: number, limits: ScheduleLimits, isReadBack: boolean): number[] {
  const whole = wholeChunk(job, 0, count, limits);
  return [...whole.scratch.values(), ...Array.from({ length: isReadBack ? STAGING_BUFFERS : 0 }, () => stagingBytes(whole))];
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** The caller's buffers are scratch here. */
function onScratch(chunk: Chunk): Chunk {
  const known: Partial<Record<OuterName, string>> = {
    points: names.state,
    context: names.context,
    value: names.value,
    divergence: names.slope,
    "value cotangent": names.carried,
    "gradient of points": names.slope,
  };
  const moved = (binding: Binding): Binding => {
    if (binding.kind !== "outer") return binding;
    return binding.name === "divergence cotangent" ? asRows(onesRow(1)) : { kind: "scratch", name: known[binding.name]! };
  };
  return {
    ...chunk,
    submissions: chunk.submissions.map(({ steps, reads }) => ({
      reads,
      steps: steps.map((step) => ({
        ...step,
        bindings: Object.fromEntries(Object.entries(step.bindings).map(([name, binding]) => [name, moved(binding)])),
      })),
    })),
  };
}

function bindingsOf(...of: readonly (keyof typeof names)[]): Record<string, Binding> {
  return Object.fromEntries(of.map((name) => [name, { kind: "scratch", name: names[name] }]));
}

/** Steps of one size from the caller's buffers into his, in as few chunks as the limits allow. @throws LimitError. */
export function scheduleFixed(job: Integration, outer: Outer, count: number, limits: ScheduleLimits): Chunk[] {
  if (count === 0) return [];
  const perChunk = pointsPerChunk(job, limits, false);
  const chunks: Chunk[] = [];
  for (let first = 0; first < count; first += perChunk) {
    const points = Math.min(perChunk, count - first);
    const steps = new IntegrationSteps(job, first, points, points, limits);
    steps.load(outer);
    steps.begin();
    steps.fixed(0, job.steps!);
    steps.leave(outer);
    chunks.push(steps.finish([]));
  }
  return chunks;
}
