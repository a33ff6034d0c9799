import type { Plan } from "../plan/plan.js";
import type { PlanParameters } from "../plan/options.js";
import { capacityOf, scheduleChunk } from "../schedule/capacity.js";
import { asBits, StepRecorder } from "../schedule/recorder.js";
import type { Binding, Chunk, OuterName, Read, Route, ScheduleLimits, Variant } from "../schedule/steps.js";
import { control, LEAST_STEP, stagesOf, type Tableau } from "./tableaus.js";

/** An integration of points, whatever they are: dx/dt = f(x, t), and l = ∫ ∇·f dt along the path. */
export interface Integration {
  /** Of value and divergence, or of the value alone where l is not wanted. */
  readonly plan: Plan;
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
  divergence: "slope of l",
  home: "home",
  stages: "stages",
  state: "stage of x",
  context: "stage of the context",
  status: "status",
} as const;

export const POINTS: string = names.points;
export const HOME: string = names.home;
export const STATUS: string = names.status;

/** Floats of a point at home: z, its first stage, and what else ode_stage.wgsl names. */
export function homeStride({ stateSize, contextSize }: Integration): number {
  return 2 * (stateSize + 1) + 5 + contextSize;
}

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
    limits: ScheduleLimits,
  ) {
    const { plan, parameters, variant } = job;
    this.recorder = new StepRecorder(limits);
    const route = routeOf(job);
    const capacity = capacityOf(plan, limits, route, variant);
    this.evaluation = onScratch(scheduleChunk(plan, parameters, first, rows, { ...capacity, points: rows }, limits, route, variant));
    const { stateSize: d, contextSize: c } = job;
    const n = d + 1;
    const floats: Record<keyof typeof names, number> = {
      points: count,
      value: count * d,
      divergence: count,
      home: count * homeStride(job),
      stages: count * n * Math.max(1, job.tableau.b.length - 1),
      state: count * d,
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
          isWhole: isLast,
          h,
          time: begin + (step + c) * h,
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

  get work(): number {
    return this.recorder.work;
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
    isWhole = false,
    h = 0,
  }: {
    arrived: number;
    weights: readonly number[];
    time: number;
    isWhole?: boolean;
    h?: number;
  }): void {
    const { stateSize: d, contextSize: c, timeColumn, steps } = this.job;
    const { rows } = this;
    const weightOf = (j: number): number => asBits(weights[j] ?? 0);
    this.recorder.add({
      label: "stage of a step",
      kernel: "ode_stage",
      parameters: {
        rows,
        width: d,
        contexts: c,
        homeStride: homeStride(this.job),
        arrived,
        known: weights.length,
        isWhole: isWhole ? 1 : 0,
        isAdaptive: steps === null ? 1 : 0,
        step: asBits(h),
        time: asBits(time),
        timeColumn: timeColumn ?? NONE,
        contextRows: this.contextRows(rows),
        weight0: weightOf(0),
        weight1: weightOf(1),
        weight2: weightOf(2),
        weight3: weightOf(3),
        weight4: weightOf(4),
        weight5: weightOf(5),
      },
      bindings: bindingsOf("points", "value", "divergence", "home", "stages", "state", "context"),
      invocations: rows * (d + 1),
      multiplyAdds: rows * (d + 1) * weights.length,
    });
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
        width: d,
        homeStride: homeStride(this.job),
        stages,
        mostAttempts,
        exponent: asBits(1 / tableau.order),
        begin: asBits(from),
        end: asBits(to),
        relative: asBits(rtol),
        absolute: asBits(atol),
        leastStep: asBits(LEAST_STEP),
        safety: asBits(control.safety),
        ofError: asBits(control.ofError),
        ofErrorBefore: asBits(control.ofErrorBefore),
        least: asBits(control.least),
        most: asBits(control.most),
        ...numbered("b", tableau.b, 6),
        ...numbered("e", tableau.error ?? [], 7),
      },
      bindings: bindingsOf("points", "value", "divergence", "stages", "home", "status"),
      invocations: rows,
      multiplyAdds: rows * (d + 1) * 3 * stages,
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

function routeOf(job: Integration): Extract<Route, { to: "device" }> {
  const { stateSize: d, contextSize: c } = job;
  const outer = {
    points: { offset: 0, stride: d },
    value: { offset: 0, stride: d },
    divergence: { offset: 0, stride: 1 },
    ...(c > 0 && { context: { offset: 0, stride: sharesContext(job) ? 0 : c } }),
  };
  return { to: "device", outer, sharesBuffers: false };
}

/** How many points fit the limits, with all that an integration keeps of them. */
export function pointsPerChunk(job: Integration, limits: ScheduleLimits): number {
  const { plan, variant, stateSize: d, tableau } = job;
  const own = 4 * (2 * homeStride(job) + (d + 1) * (tableau.b.length + 2) + job.contextSize + 4);
  const route = routeOf(job);
  const largest = Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize);
  const widest = Math.max(homeStride(job), (d + 1) * Math.max(1, tableau.b.length - 1));
  // Half the budget for each, then what one leaves the other takes: the plan's own share shows in how many points it holds.
  const ofPlan = capacityOf(
    plan,
    { ...limits, memoryBudget: limits.memoryBudget / 2, multiplyAddsPerSubmit: Infinity },
    route,
    variant,
  ).points;
  return Math.max(1, Math.min(ofPlan, Math.floor(limits.memoryBudget / 2 / own), Math.floor(largest / 4 / widest)));
}

/** The caller's buffers are scratch here. */
function onScratch(chunk: Chunk): Chunk {
  const known: Partial<Record<OuterName, string>> = {
    points: names.state,
    context: names.context,
    value: names.value,
    divergence: names.divergence,
  };
  const moved = (binding: Binding): Binding => (binding.kind === "outer" ? { kind: "scratch", name: known[binding.name]! } : binding);
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
