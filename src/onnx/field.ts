import { rademacher } from "../cpu/probes.js";
import { DeldotError, InputError, LimitError, quote } from "../errors.js";
import {
  contextPerOf,
  readVjpCall,
  type EvaluateOptions,
  type Evaluation,
  type Field,
  type Jvp,
  type JvpOptions,
  type Vjp,
  type VjpOptions,
} from "../evaluation.js";
import { Gradients } from "../gradients.js";
import {
  checkObject,
  ownOptions,
  readInputs,
  startRun,
  type BatchInput,
  type Cotangents,
  type Inputs,
  type RunOptions,
  type Wrt,
} from "../inputs.js";
import type { Network } from "../model/network.js";
import { makeGradientPlan, makeJvpPlan, makePlan } from "../plan/choose.js";
import { DEFAULT_PROBES } from "../plan/estimators.js";
import { explainPlan, type ExplainOptions, type PlanExplanation } from "../plan/explain.js";
import { graphOf } from "../plan/graph.js";
import { populationOf } from "../plan/orthogonal.js";
import { readPlanOptions, readRunOptions, runParametersOf, type PlanOptions, type PlanParameters } from "../plan/options.js";
import { sizeOf, type Output } from "../plan/outputs.js";
import type { DifferencePlan, GradientPlan, Plan, TracePlan, ValuePlan } from "../plan/plan.js";
import { Recent } from "../recent.js";
import { Results } from "../results.js";
import { allocate } from "../rows.js";
import { Breaks, Turns } from "../turns.js";
import { evaluationModel, gradientModel, jvpModel, sumPort, widestOf } from "./models.js";
import type { Floats } from "../typedArrays.js";

/** A tensor of onnxruntime. */
export interface OnnxTensor {
  /** Of float32: a Float32Array. */
  readonly data: unknown;
  /** Its shape. */
  readonly dims: readonly number[];
}

/** A session of onnxruntime. */
export interface OnnxSession {
  /** Inputs by name to outputs by name. */
  run(feeds: Readonly<Record<string, OnnxTensor>>): Promise<Readonly<Record<string, OnnxTensor>>>;
  /** Frees it. */
  release(): Promise<void>;
}

/** What is used of onnxruntime's JavaScript API: the module onnxruntime-node or onnxruntime-web. */
export interface OnnxRuntime {
  /** Where sessions are made. */
  readonly InferenceSession: {
    /** Of the bytes of a model. */
    create(model: Uint8Array, options?: Readonly<Record<string, unknown>>): Promise<OnnxSession>;
  };
  /** What goes into them. */
  readonly Tensor: {
    /** Of its numbers, row-major, and its shape. */
    new (type: "float32", data: Float32Array, dims: readonly number[]): OnnxTensor;
  };
}

/** What {@link OnnxField.create} takes beside runtime and network. */
export interface OnnxFieldOptions {
  /** onnxruntime's own options of a session, such as `executionProviders` and `intraOpNumThreads`. Default what it chooses by itself. */
  readonly session?: Readonly<Record<string, unknown>> | undefined;
}

/** Sessions that a field keeps, each with copies of the weights. */
const MOST_SESSIONS = 16;

/** Numbers of the widest tensor of a chunk: some tensors of a MiB, which stay in a processor's caches from operator to operator. */
const NUMBERS_AT_ONCE = 2 ** 18;

/** Those of one point, at most: a GiB. */
const MOST_NUMBERS = 2 ** 28;

/** A plan, and the model that runs it. */
interface Job<P extends Plan> {
  readonly plan: P;
  readonly model: () => Uint8Array;
  /** Made when it is first needed. */
  session: Promise<OnnxSession> | null;
  /** Calls that run it. */
  running: number;
  /** Whether it was asked for least recently, of too many: then it ends with the last of these. */
  forgotten: boolean;
}

type EvaluationJob = Job<TracePlan | ValuePlan> | Job<DifferencePlan>;

/** What a chunk is given beside its points and contexts. */
type Feeds = (first: number, count: number) => Readonly<Record<string, OnnxTensor>>;
/** What comes of it, the numbers of each output by its name. */
type Take = (results: Readonly<Record<string, Float32Array>>, first: number, count: number) => void;

/**
 * A network run by onnxruntime, on the processor or where its execution providers are: in float32, and as exact as `VectorField`.
 * It runs the models that {@link toOnnx} writes, chunk after chunk.
 *
 * Every method that returns a promise rejects with a DeldotError: InputError or PlanError for a bad argument (before any work), LimitError
 * where an array would be too large, a DeldotError that begins with "onnxruntime" where that refuses.
 */
export class OnnxField implements Field<Float32Array> {
  /** Of its results. */
  readonly precision = "float32";
  private destroyed = false;
  private readonly turns = new Turns();
  /** onnxruntime-web and onnxruntime-node 1.17 work within the call: awaiting them turns no event loop. */
  private readonly breaks = new Breaks();
  /** By what changes a plan: not the seed, nor the step. */
  private readonly jobs = new Recent<string, Job<Plan>>(MOST_SESSIONS, forget);

  private constructor(
    private readonly runtime: OnnxRuntime,
    /** The network as it was given. */
    readonly network: Network,
    private readonly session: Readonly<Record<string, unknown>>,
  ) {}

  /**
   * Makes a session for value and divergence of points with one context, and others when they are first needed.
   * @throws ModelError where it is no network; InputError for a bad argument; DeldotError where onnxruntime does not work.
   */
  static async create(runtime: OnnxRuntime, network: Network, options: OnnxFieldOptions = {}): Promise<OnnxField> {
    if (typeof runtime?.InferenceSession?.create !== "function" || typeof runtime.Tensor !== "function")
      throw new InputError("runtime has no InferenceSession and Tensor; expected the module onnxruntime-node or onnxruntime-web");
    checkObject("options", options);
    const { session = {} } = options;
    checkObject("session", session);
    graphOf(network);
    const field = new OnnxField(runtime, network, { logSeverityLevel: 3, ...session });
    await field.sessionOf(field.evaluationJob({}, "batch"));
    return field;
  }

  /**
   * f, its divergence and what else `outputs` names (default: value and divergence) at points [..., d]: as `VectorField.evaluate`,
   * whose options it takes. `chunkSize` changes nothing.
   *
   * @throws InputError, PlanError for a bad argument; LimitError, DeldotError; the signal's reason on abort.
   */
  async evaluate<O extends Output = "value" | "divergence">(points: BatchInput, given: EvaluateOptions<O> = {}): Promise<Evaluation<O>> {
    this.checkUsable();
    const options = ownOptions(given);
    readRunOptions(options);
    const inputs = readInputs(this.network, points, options.context, null);
    startRun(options);
    const job = this.evaluationJob(options, contextPerOf(inputs));
    const parameters = runParametersOf(options);
    const results = new Results(job.plan, inputs.count, populationOf(inputs.stateSize, parameters.orthogonal));
    if (isDifference(job)) await this.differences(job.plan, inputs, options, parameters.step, results);
    else await this.evaluateModel(job, inputs, options, parameters, results);
    results.spoil(inputs.nonFinite);
    return results.asEvaluation("onnxruntime", inputs.shape) as Evaluation<O>;
  }

  /** The divergence alone, [...batch shape of the points]. @throws as {@link OnnxField.evaluate} does. */
  async divergence(points: BatchInput, options: Omit<EvaluateOptions, "outputs"> = {}): Promise<Float32Array> {
    const { divergence } = await this.evaluate(points, { ...options, outputs: ["divergence"] });
    return divergence;
  }

  /** J(x) t, one tangent per point: as `VectorField.jvp`. @throws as {@link OnnxField.evaluate} does. */
  async jvp(points: BatchInput, tangents: BatchInput, options: JvpOptions & { readonly value: true }): Promise<Jvp>;
  async jvp(points: BatchInput, tangents: BatchInput, options?: JvpOptions & { readonly value?: false | undefined }): Promise<Float32Array>;
  async jvp(points: BatchInput, tangents: BatchInput, given: JvpOptions = {}): Promise<Float32Array | Jvp> {
    this.checkUsable();
    const options = ownOptions(given);
    const inputs = readInputs(this.network, points, options.context, tangents);
    startRun(options);
    const { value: wantsValue = false } = options;
    const { stateSize: d } = inputs;
    const contextPer = contextPerOf(inputs);
    const job = this.job(`jvp ${wantsValue} ${contextPer}`, () => {
      const plan = makeJvpPlan(this.network, wantsValue);
      return { plan, model: () => jvpModel(plan, contextPer) };
    });
    const results = new Results(job.plan, inputs.count);
    const feeds: Feeds = (first, rows) => ({ tangents: this.tensor(inputs.tangents!, first, [rows, d]) });
    await this.run(job, inputs, options, feeds, (found, first, rows) => {
      for (const what of ["tangent", "value"] as const)
        if (found[what]) results.take({ what, scratch: what, width: d, first: 0, columns: 0 }, first, rows, found[what]);
    });
    results.spoil(inputs.nonFinite);
    const { arrays, tangent } = results;
    return wantsValue ? { value: arrays.value!, tangent: tangent! } : tangent!;
  }

  /**
   * The gradient of L = Σ_b (e_b · f(x_b) + c_b ∇·f(x_b)): as `VectorField.vjp`. Sums over the points of a chunk are float32, those
   * over the chunks float64, and so is what becomes of them for the parameters. @throws as {@link OnnxField.evaluate} does.
   */
  async vjp<W extends Wrt = "points", O extends "value" | "divergence" = never>(
    points: BatchInput,
    cotangents: Cotangents,
    given: VjpOptions<W, O> = {},
  ): Promise<Vjp<W, O>> {
    this.checkUsable();
    const { options, inputs, wanted } = readVjpCall(this.network, points, cotangents, given);
    const { wrt } = wanted;
    const { count, stateSize: d, valueCotangent, divergenceCotangent } = inputs;
    const { method, probes, probesPer } = options;
    const job = this.job(JSON.stringify(["gradient", wanted, method, probes, probesPer]), () => {
      const plan = makeGradientPlan(this.network, { ...wanted, method, probes, probesPer });
      return { plan, model: () => gradientModel(plan, wrt, wanted.contextPer) };
    });
    const { plan } = job;
    const gradients = new Gradients(plan, this.network, count, wrt, inputs.context?.shared === true);
    const drawn = runParametersOf(options);
    const feeds: Feeds = (first, rows) => ({
      value_cotangent: this.tensor(valueCotangent ?? new Float32Array(rows * d), valueCotangent ? first : 0, [rows, d]),
      divergence_cotangent:
        divergenceCotangent?.shared === false
          ? this.tensor(divergenceCotangent.data, first, [rows, 1])
          : this.tensor(new Float32Array(rows).fill(divergenceCotangent?.data[0] ?? 0), 0, [rows, 1]),
      ...this.probes(plan, drawn, first, rows),
    });
    await this.run(job, inputs, options, feeds, (results, first, rows) => {
      const take = (what: "points" | "context" | "value" | "terms" | "sum", name: string, width: number, index = 0): void => {
        const data = results[name];
        if (data) gradients.take({ what, scratch: name, width, first: index, columns: 0 }, first, rows, data);
      };
      take("points", "points", d);
      take("context", "context_gradient", this.network.contextSize);
      take("value", "value", d);
      take("terms", "divergence", 1);
      for (const { index, matrix } of plan.adjoint.sums) take("sum", sumPort(index), matrix.columns, index);
    });
    gradients.finish(inputs.nonFinite);
    const parameters = wrt.includes("parameters")
      ? await gradients.parameters(this.network, (gradient) => Promise.resolve(gradient.build().data))
      : null;
    return gradients.asVjp(inputs.shape, parameters) as Vjp<W, O>;
  }

  /** What evaluate would choose for these options, and why. */
  explain(options: ExplainOptions = {}): PlanExplanation {
    return explainPlan(this.network, options);
  }

  /** Releases the sessions, after calls that run. Later calls reject. */
  destroy(): void {
    this.destroyed = true;
    void this.turns.take().then((endTurn) => {
      this.jobs.clear();
      endTurn();
    });
  }

  private checkUsable(): void {
    if (this.destroyed) throw new DeldotError("the field was destroyed; make a new one with OnnxField.create");
  }

  private evaluationJob(options: PlanOptions, contextPer: "point" | "batch"): EvaluationJob {
    const { outputs, method } = readPlanOptions(options);
    const { probes = DEFAULT_PROBES, probesPer = "point" } = method === "hutchinson" ? options : {};
    return this.job(JSON.stringify([outputs, method, probes, probesPer, contextPer]), () => {
      const plan = makePlan(this.network, { outputs, method, probes, probesPer, contextPer });
      return { plan, model: plan.kind === "difference" ? unneeded : () => evaluationModel(plan, contextPer) };
    }) as EvaluationJob;
  }

  private job<P extends Plan>(key: string, make: () => Pick<Job<P>, "plan" | "model">): Job<P> {
    return this.jobs.get(key, () => ({ ...make(), session: null, running: 0, forgotten: false })) as Job<P>;
  }

  private sessionOf(job: Job<Plan>): Promise<OnnxSession> {
    job.session ??= this.runtime.InferenceSession.create(job.model(), this.session).catch((error: unknown) => {
      // The next call tries anew.
      job.session = null;
      throw refusal(error);
    });
    return job.session;
  }

  private async evaluateModel(
    job: Job<TracePlan | ValuePlan>,
    inputs: Inputs,
    options: RunOptions,
    parameters: PlanParameters,
    results: Results,
  ): Promise<void> {
    const { plan } = job;
    const feeds: Feeds = (first, rows) => this.probes(plan, parameters, first, rows);
    await this.run(job, inputs, options, feeds, (outputs, first, rows) => {
      const { terms } = outputs;
      if (terms) results.take({ what: "terms", scratch: "terms", width: terms.length / rows, first: 0, columns: 0 }, first, rows, terms);
      for (const [output, array] of Object.entries(results.arrays) as [Output, Float32Array][])
        if (outputs[output]) array.set(outputs[output], first * sizeOf(output, inputs.stateSize));
    });
  }

  /** (f_i(x + h e_i) - f_i(x - h e_i)) / ((x_i + h) - (x_i - h)) with h = step max(1, |x_i|), component after component. */
  private async differences(plan: DifferencePlan, inputs: Inputs, options: RunOptions, step: number, results: Results): Promise<void> {
    const { count, stateSize: d, points } = inputs;
    const value = this.evaluationJob({ outputs: ["value"] }, contextPerOf(inputs)) as Job<ValuePlan>;
    const passes = 2 * d + (plan.outputs.includes("value") ? 1 : 0);
    let pass = 0;
    const valueAt = async (at: Floats): Promise<Float32Array> => {
      const found = allocate("value", count, d);
      const begun = pass++;
      const onProgress = ({ done, total }: { done: number; total: number }): void => {
        // Points are done when all passes over them are.
        const share = (begun * total + done) / (passes * total);
        options.onProgress?.({ done: Math.floor(share * total), total });
      };
      await this.run(
        value,
        { ...inputs, points: at },
        { signal: options.signal, onProgress },
        () => ({}),
        (outputs, first) => found.set(outputs["value"]!, first * d),
      );
      return found;
    };
    if (plan.outputs.includes("value"))
      results.take({ what: "value", scratch: "value", width: d, first: 0, columns: 0 }, 0, count, await valueAt(points));
    const terms = allocate("the differences", count, d);
    for (let i = 0; i < d; i++) {
      const [less, more] = [points.slice(), points.slice()];
      for (let at = i; at < points.length; at += d) {
        const h = step * Math.max(1, Math.abs(points[at]!));
        less[at] = points[at]! - h;
        more[at] = points[at]! + h;
      }
      const [below, above] = [await valueAt(less), await valueAt(more)];
      for (let at = i; at < points.length; at += d) terms[at] = (above[at]! - below[at]!) / (more[at]! - less[at]!);
    }
    results.take({ what: "terms", scratch: "terms", width: d, first: 0, columns: 0 }, 0, count, terms);
  }

  /** All points, chunk after chunk; between two of them others have their turn. @throws as evaluate. */
  private async run(job: Job<Plan>, inputs: Inputs, options: RunOptions, feeds: Feeds, take: Take): Promise<void> {
    job.running++;
    try {
      await this.runChunks(job, inputs, options, feeds, take);
    } finally {
      job.running--;
      if (job.forgotten) forget(job);
    }
  }

  private async runChunks(job: Job<Plan>, inputs: Inputs, options: RunOptions, feeds: Feeds, take: Take): Promise<void> {
    const { count: total, stateSize: d, contextSize: c, points, context } = inputs;
    const widest = widestOf(job.plan);
    if (widest > MOST_NUMBERS)
      throw new LimitError(`one point has ${widest} numbers at once; expected at most ${MOST_NUMBERS}: fewer probes, or another method`);
    const atOnce = Math.max(1, Math.floor(NUMBERS_AT_ONCE / widest));
    const starts = context?.runs ?? [0];
    let nextRun = 0;
    for (let first = 0; first < total;) {
      while (nextRun < starts.length && starts[nextRun]! <= first) nextRun++;
      const count = Math.min(atOnce, (starts[nextRun] ?? total) - first);
      await this.breaks.take();
      const endTurn = await this.turns.take();
      try {
        options.signal?.throwIfAborted();
        this.checkUsable();
        const session = await this.sessionOf(job);
        const given: Record<string, OnnxTensor> = { x: this.tensor(points, first, [count, d]), ...feeds(first, count) };
        if (context) {
          const isOne = context.runs !== null;
          given["context"] = this.tensor(context.data, context.shared ? 0 : first, [isOne ? 1 : count, c]);
        }
        const results = await session.run(given).catch((error: unknown) => {
          throw refusal(error);
        });
        take(Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, data as Float32Array])), first, count);
      } finally {
        endTurn();
      }
      first += count;
      options.onProgress?.({ done: first, total });
    }
    options.signal?.throwIfAborted();
    this.checkUsable();
  }

  /** Rows from `first` on. */
  private tensor(rows: Float32Array, first: number, [count, ...shape]: readonly [number, ...number[]]): OnnxTensor {
    const width = shape.reduce((product, n) => product * n, 1);
    return new this.runtime.Tensor("float32", rows.subarray(first * width, (first + count) * width), [count, ...shape]);
  }

  /** Those of an estimate, by point and seed. */
  private probes(
    plan: TracePlan | ValuePlan | GradientPlan,
    { seed, orthogonal }: PlanParameters,
    first: number,
    count: number,
  ): Readonly<Record<string, OnnxTensor>> {
    if (plan.kind === "value" || plan.probesPer === null) return {};
    const { tangents } = plan;
    const { stateSize: d } = plan.graph;
    const rows = plan.probesPer === "batch" ? 1 : count;
    const numbers = new Float32Array(rows * tangents * d);
    for (let row = 0; row < rows; row++) {
      const point = plan.probesPer === "batch" ? 0 : first + row;
      for (let k = 0; k < tangents; k++) numbers.set(rademacher(d, seed, point, k, orthogonal), (row * tangents + k) * d);
    }
    return { probes: this.tensor(numbers, 0, tangents > 1 ? [rows, tangents, d] : [rows, d]) };
  }
}

function unneeded(): never {
  throw new TypeError("differences are made of values alone");
}

function isDifference(job: EvaluationJob): job is Job<DifferencePlan> {
  return job.plan.kind === "difference";
}

/** Releases the session once no call runs it. */
function forget(job: Job<Plan>): void {
  job.forgotten = true;
  if (job.running > 0) return;
  void job.session?.then((made) => made.release()).catch(() => undefined);
  job.session = null;
}

function refusal(error: unknown): DeldotError {
  return new DeldotError(`onnxruntime: ${error instanceof Error ? error.message : quote(error)}`, { cause: error });
}
