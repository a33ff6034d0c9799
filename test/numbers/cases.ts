import {
  DeldotError,
  evaluateReference,
  explainPlan,
  InputError,
  LimitError,
  methods,
  VectorField,
  type Method,
  type Output,
  type PlanOptions,
} from "deldot";
import { check, type Asked, type Results } from "./check.js";
import { Draw } from "./draw.js";
import { submitEncodes } from "./encodes.js";
import type { Family } from "./families.js";
import { describeNetwork, hasSteps, paletteOf, type Size } from "./networks.js";
import { cut, drawPool, type Pool } from "./pool.js";

/** One call of evaluate, jvp or encode, and what came of it. */
export interface Evaluation {
  /** As the field was told. */
  readonly kernels: string;
  /** As the result says; null where the call does not say it, or was refused. */
  readonly ran: string | null;
  /** Why the device or the plan does not take the kernels, or the budget the point. */
  readonly refused: string | null;
  /** What is wrong, with the call that it is the result of; null where all is right. */
  readonly failure: string | null;
}

export interface CaseOptions {
  /** How often a field of a small network is tuned first, which takes software drivers long. */
  readonly tuned: number;
  /** How often the kernels of a small network are fused ones, which a driver compiles for it alone. */
  readonly fused: number;
}

/** What decides a plan; a field with fused kernels has few of them, since each is compiled. */
interface PlanDraw {
  readonly outputs: readonly Output[];
  readonly method: Method | "auto";
  readonly options: Pick<PlanOptions, "chunkSize" | "probes" | "seed" | "probesPer" | "orthogonal" | "step">;
}

/**
 * One network, a few fields of it by kernels of several families, and some calls of each. The seed decides all of it, so that
 * a failure comes again alone.
 */
export async function runCase(
  device: GPUDevice,
  families: readonly Family[],
  seed: number,
  { tuned, fused }: CaseOptions,
): Promise<Evaluation[]> {
  const draw = new Draw(seed);
  const isHalf = draw.chance(0.12) ? families.some(({ half }) => half) : families.every(({ half }) => half);
  const like = families.filter(({ half = false }) => half === isHalf);
  const onlyFused = like.every(({ fused }) => fused);
  const size = onlyFused
    ? "small"
    : draw.weighted<{ size: Size; weight: number }>([
        { size: "small", weight: 10 },
        { size: "middle", weight: 7 },
        { size: "wide", weight: 2 },
      ]).size;
  const isFused = onlyFused || (draw.chance(size === "small" ? fused : fused / 10) && like.some(({ fused }) => fused));
  const fits = like.filter(({ fused = false }) => fused === isFused);
  const pool = drawPool(draw, size, paletteOf(seed), isHalf);
  const done: Evaluation[] = checkReference(draw, pool, isHalf);
  for (let fields = draw.integer(1, isFused ? 2 : 3); fields > 0; fields--) {
    const family = draw.weighted(fits);
    const one = new Field(device, draw, pool, family);
    done.push(...(await one.run(size === "small" && family.kernels === "auto" && draw.chance(tuned))));
  }
  return done.map((evaluation) =>
    evaluation.failure === null ? evaluation : { ...evaluation, failure: `${evaluation.failure}; ${describeNetwork(pool.network)}` },
  );
}

/** The reference by one of its exact methods against the truth, which shares no code with it but the activations. */
function checkReference(draw: Draw, pool: Pool, isHalf: boolean): Evaluation[] {
  if (isHalf || pool.contextKind === "runs") return [];
  const { method, outputs } = drawPlan(draw, pool, ["tangent", "cyclic", "jacobian", "coordinate"], true);
  const { context, points, count } = pool;
  const result = evaluateReference(pool.network, points, { context, method, outputs });
  const results = Object.fromEntries(outputs.map((output) => [output, Float32Array.from(result[output]!)]));
  const wrong = check({ pool, first: 0, count, method }, results);
  const failure = wrong.length > 0 ? `the reference by ${method}: ${wrong.join("; ")}` : null;
  return [{ kernels: "reference", ran: null, refused: null, failure }];
}

/** Rounded weights are the same on both sides of a difference, which allowances for float16 do not know. */
const withoutDifference = methods.filter((method) => method !== "difference");
/** Whose plans can be fused. */
const fusedMethods: readonly Method[] = ["tangent", "cyclic"];

/** Outputs, and a method among these that gives them. */
function drawPlan(draw: Draw, { network }: Pool, among: readonly Method[], withJacobian: boolean): PlanDraw {
  const offered: readonly Output[] = ["value", "divergence", "diagonal", ...(withJacobian ? (["jacobian"] as const) : [])];
  const usual: readonly (readonly Output[])[] = [["divergence"], ["value", "divergence"], ["value"], ["value", "divergence", "diagonal"]];
  const drawn = draw.chance(0.5) ? draw.pick(usual) : offered.filter(() => draw.chance(0.45));
  const wanted = drawn.length > 0 ? drawn : (["divergence"] as const);
  const { candidates } = explainPlan(network, { outputs: wanted });
  const delivering = among.filter(
    (method) =>
      candidates.some((candidate) => candidate.method === method && candidate.delivers) && !(method === "difference" && hasSteps(network)),
  );
  const method = delivering.length === 0 || draw.chance(0.35) ? "auto" : draw.pick(delivering);
  return {
    outputs: draw.chance(0.2) ? wanted.toReversed() : wanted,
    method,
    options: {
      ...(draw.chance(0.3) && { chunkSize: draw.integer(1, network.stateSize + 1) }),
      ...(method === "hutchinson" && {
        probes: draw.integer(1, 9),
        seed: draw.integer(-5, 1e6),
        probesPer: draw.pick(["point", "batch"] as const),
        orthogonal: draw.chance(0.5),
      }),
      ...(method === "difference" && draw.chance(0.5) && { step: draw.pick([2 ** -5, 2 ** -9, 0.01]) }),
    },
  };
}

/** One field of the pool's network, and its calls. */
class Field {
  private readonly done: Evaluation[] = [];
  /** Of every call before, newest last: what it leaves behind is what the next one must not see. */
  private readonly history: string[] = [];
  private readonly memoryBudget: number | undefined;
  private readonly short: boolean;

  constructor(
    private readonly device: GPUDevice,
    private readonly draw: Draw,
    private readonly pool: Pool,
    private readonly family: Family,
  ) {
    this.memoryBudget = draw.chance(0.3) ? 2 ** draw.integer(13, 18) : undefined;
    this.short = draw.chance(0.15);
  }

  async run(tuned: boolean): Promise<Evaluation[]> {
    const { device, draw, family, memoryBudget, short } = this;
    // A store that holds the least amount of work a submission may have.
    const store = short ? { get: () => String(2 ** 20), set: () => undefined } : undefined;
    let field: VectorField;
    try {
      field = await VectorField.create(device, this.pool.network, {
        kernels: family.kernels,
        memoryBudget,
        store,
        ...(family.half && { weights: "float16" as const }),
      });
    } catch (error) {
      this.note("create", error, null);
      return this.done;
    }
    const plans = family.fused
      ? [true, false].map(() => drawPlan(draw, this.pool, draw.chance(0.85) ? fusedMethods : withoutDifference, false))
      : null;
    if (tuned) await this.tune(field);
    for (let calls = family.fused ? draw.integer(12, 24) : draw.integer(8, 20); calls > 0; calls--) {
      const kind = draw.between(0, 1);
      if (kind < 0.08) await Promise.all(Array.from({ length: 2 }, () => this.evaluate(field, plans ? draw.pick(plans) : this.plan(true))));
      else if (kind < 0.65) await this.evaluate(field, plans ? draw.pick(plans) : this.plan(true));
      else if (kind < 0.75) await this.jvp(field);
      else await this.encode(field, plans ? [draw.pick(plans)] : Array.from({ length: draw.integer(1, 2) }, () => this.plan(false)));
    }
    field.destroy();
    return this.done;
  }

  private plan(withJacobian: boolean): PlanDraw {
    return drawPlan(this.draw, this.pool, this.family.half ? withoutDifference : methods, withJacobian);
  }

  private async tune(field: VectorField): Promise<void> {
    const { method, outputs: wanted, options } = this.plan(true);
    try {
      const contextPer = this.pool.contextKind === "perPoint" ? ("point" as const) : ("batch" as const);
      await field.tune(this.draw.size(1, 4096), { method, outputs: wanted, ...options, contextPer });
      this.history.push("tune");
    } catch (error) {
      this.note("tune", error, null);
    }
  }

  /** A stretch of the pool; often all of it. */
  private stretch(): { first: number; count: number } {
    const { draw, pool } = this;
    const count = draw.chance(0.35) || pool.contextKind === "runs" ? pool.count : draw.size(1, pool.count);
    return { first: draw.integer(0, pool.count - count), count };
  }

  private asked({ method, options }: PlanDraw, stretch: { first: number; count: number }): Asked {
    return { pool: this.pool, ...stretch, method, ...options };
  }

  private inputs({ first, count }: { first: number; count: number }): { points: Float32Array; context: Float32Array | null } {
    const { network, points, context, contextKind } = this.pool;
    return {
      points: cut(points, network.stateSize, first, count),
      context: context && contextKind !== "shared" ? cut(context, network.contextSize, first, count) : context,
    };
  }

  private async evaluate(field: VectorField, plan: PlanDraw): Promise<void> {
    const { draw } = this;
    const stretch = this.stretch();
    let { points, context } = this.inputs(stretch);
    const d = this.pool.network.stateSize;
    const shape = [stretch.count, d];
    const nonFinite = new Set(Array.from({ length: draw.chance(0.08) ? draw.integer(1, 3) : 0 }, () => draw.integer(0, stretch.count - 1)));
    if (nonFinite.size > 0) points = points.slice();
    for (const point of nonFinite) points[point * d + draw.integer(0, d - 1)] = draw.pick([NaN, Infinity, -Infinity]);
    const given = draw.pick([points, Float64Array.from(points), { data: points, shape }] as const);
    const call = `evaluate ${describe(plan, stretch)}${nonFinite.size > 0 ? `, ${[...nonFinite].join(" and ")} not finite` : ""}`;
    try {
      const { outputs: wanted, method, options } = plan;
      const result = await field.evaluate(given, { context, outputs: wanted, method, ...options });
      const results: Results = Object.fromEntries(wanted.map((output) => [output, result[output]!]));
      if (result.standardError) results.standardError = result.standardError;
      this.note(call, null, result.kernels, check(this.asked(plan, stretch), results, undefined, nonFinite));
    } catch (error) {
      this.note(call, error, null);
    }
  }

  private async jvp(field: VectorField): Promise<void> {
    const stretch = this.stretch();
    const { points, context } = this.inputs(stretch);
    const tangents = this.draw.numbers(points.length, 1.5);
    const call = `jvp of ${stretch.count} from ${stretch.first}`;
    try {
      const jvp = await field.jvp(points, tangents, { context });
      this.note(call, null, null, check({ pool: this.pool, ...stretch, method: "tangent" }, { jvp }, tangents));
    } catch (error) {
      this.note(call, error, null);
    }
  }

  /** One or two evaluations into buffers, in one submission. */
  private async encode(field: VectorField, plans: readonly PlanDraw[]): Promise<void> {
    const { draw, pool } = this;
    const all = plans.map((plan) => {
      const stretch = this.stretch();
      return { plan, stretch, ...this.inputs(stretch) };
    });
    const call = all.map(({ plan, stretch }) => `encode ${describe(plan, stretch)}`).join(" and ");
    try {
      const contextPer = pool.contextKind === "perPoint" || pool.contextKind === "runs" ? ("point" as const) : ("batch" as const);
      for (const { plan, stretch } of all)
        if (this.family.fused || draw.chance(0.5))
          await field.reserve(stretch.count, { outputs: plan.outputs, method: plan.method, ...plan.options, contextPer });
      const requests = all.map(({ plan, stretch, points, context }) => ({
        ...plan,
        count: stretch.count,
        points,
        context,
        contextPer,
      }));
      const answers = await submitEncodes(this.device, draw, field, requests);
      answers.forEach(({ results, layout, touched }, index) => {
        const { plan, stretch } = all[index]!;
        const wrong = check(this.asked(plan, stretch), results);
        this.note(`${call} (${index + 1} of ${all.length}, ${layout})`, null, null, touched ? [touched, ...wrong] : wrong);
      });
    } catch (error) {
      this.note(call, error, null);
    }
  }

  private note(call: string, error: unknown, ran: string | null, wrong: readonly string[] = []): void {
    const { family, memoryBudget, short, history, done } = this;
    const isRefusal = error instanceof InputError || error instanceof LimitError;
    const message = error instanceof Error ? `${error.name}: ${error.message}${error instanceof DeldotError ? "" : error.stack}` : null;
    const failure = isRefusal ? null : (message ?? (wrong.length > 0 ? wrong.join("; ") : null));
    const where = [
      call,
      ran === null || ran === family.kernels ? family.kernels : `${family.kernels} (ran ${ran})`,
      ...(memoryBudget === undefined ? [] : [`a budget of ${memoryBudget}`]),
      ...(short ? ["short submissions"] : []),
      ...(history.length > 0 ? [`after ${history.at(-1)!}`] : []),
    ].join(", ");
    history.push(call);
    done.push({ kernels: family.kernels, ran, refused: isRefusal ? message : null, failure: failure && `${where}: ${failure}` });
  }
}

function describe({ outputs: wanted, method, options }: PlanDraw, { first, count }: { first: number; count: number }): string {
  const given = Object.entries(options).map(([name, value]) => `, ${name} ${value}`);
  return `${wanted.join("+")} by ${method}${given.join("")} of ${count} from ${first}`;
}
