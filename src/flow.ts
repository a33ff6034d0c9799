import { AnyFlow } from "./anyFlow.js";
import { internalsOf, VectorField } from "./field.js";
import { InputError } from "./errors.js";
import { checkTarget, Encoder } from "./gpu/encoder.js";
import { Turns } from "./turns.js";
import {
  readFlowTimes,
  readSolveOptions,
  readTimes,
  type FlowInputs,
  type FlowOptions,
  readPathBuffers,
  type EncodePathOptions,
  type FlowSettings,
  type SolveOptions,
  type SolveSettings,
} from "./flowOptions.js";
import { checkObject, startRun, type BufferRows, type RunOptions } from "./inputs.js";
import type { Network } from "./model/network.js";
import { integrate, type Integrated } from "./ode/integrate.js";
import { bytesPerPoint, scheduleFixed, sharesContext, type Integration } from "./ode/steps.js";
import { stagesOf, tableaus, type Solver } from "./ode/tableaus.js";
import type { PlanExplanation } from "./plan/explain.js";
import { runParametersOf, type PlanOptions } from "./plan/options.js";
import type { OuterName } from "./schedule/steps.js";
import type { TunedKernels } from "./tune/tuner.js";

/** What {@link Flow.encodeLogProb} reads and writes. */
export interface EncodeLogProbOptions extends EncodePathOptions {
  /** Receives log p, [count], stride 1 unless given. */
  readonly logProb: BufferRows;
}

/** What {@link Flow.encodeTransport} reads and writes. */
export interface EncodeTransportOptions extends EncodePathOptions {
  /** The time that the points have. Default noiseAt. */
  readonly from?: number | undefined;
  /** The time that they get to. Default dataAt. */
  readonly to?: number | undefined;
  /** Receives the points there, [count, d], stride d unless given. */
  readonly end?: BufferRows | undefined;
  /** Receives ∫ ∇·f dt, [count], stride 1 unless given. */
  readonly divergenceIntegral?: BufferRows | undefined;
}

/** What {@link Flow.explain} says. */
export interface FlowExplanation {
  /** By which it goes. */
  readonly solver: Solver;
  /** Of f and its divergence together. */
  readonly evaluationsPerStep: number;
  /** Of a whole path; where the error decides, the mean of the last call with these options, null before there was one. */
  readonly evaluations: number | null;
  /** Of one evaluation at one point. */
  readonly multiplyAdds: number;
  /** Memory of a point: of its path, of the plan, and of what is read back. */
  readonly bytesPerPoint: number;
  /** How f and its divergence are computed, and why. */
  readonly plan: PlanExplanation;
  /** All of it in a sentence. */
  readonly text: string;
}

/** Of a path with error control, before anything is known of it. */
const EXPECTED_EVALUATIONS = 64;

/**
 * A field as a flow: its paths carry noise to data, and by ∇·f the density along (the instantaneous change of variables, Chen et al.,
 * Neural Ordinary Differential Equations, 2018): log p(x) = log p_noise(z) - ∫ ∇·f dt along the path from z to x, exact but for the
 * solver's tolerance and float32, since the divergence is. No answer depends on the other points of a call.
 */
export class Flow extends AnyFlow<Float32Array> {
  private readonly turns = new Turns();
  /** Mean evaluations of a point in the last call, by what decides its steps. */
  private readonly evaluated = new Map<string, number>();
  private readonly encoder: Encoder;

  private constructor(
    private readonly field: VectorField,
    private readonly settings: FlowSettings,
  ) {
    super(field, settings, Float32Array);
    const { device, label } = internalsOf(field).shared();
    this.encoder = new Encoder(device, label);
  }

  /**
   * Compiles the kernels of a field on the caller's device, which is never destroyed.
   * @throws InputError for a bad argument, GpuError where a kernel does not compile, DeviceLostError.
   */
  static async create(device: GPUDevice, network: Network, options: FlowOptions = {}): Promise<Flow> {
    const settings = readFlowTimes(network, options);
    return new Flow(await VectorField.create(device, network, options), settings);
  }

  /**
   * Records log p of points in the caller's buffer into one of his, for the base "normal": `steps` steps of one size, nothing is submitted
   * or read back, and what is not finite is unspecified. As {@link VectorField.encode} otherwise.
   * @throws InputError, PlanError, LimitError, DeviceLostError at once; WebGPU's own errors go to the device's error scopes.
   */
  encodeLogProb(target: GPUCommandEncoder | GPUComputePassEncoder, options: EncodeLogProbOptions): void {
    const { noiseAt, dataAt, base } = this.settings;
    if (base !== "normal") throw new InputError('encodeLogProb is for the base "normal" alone');
    this.record(target, options, dataAt, noiseAt, { "log density": options?.logProb });
  }

  /**
   * Records where points get to, and ∫ ∇·f dt on the way, as {@link Flow.encodeLogProb} does. @throws as it does.
   */
  encodeTransport(target: GPUCommandEncoder | GPUComputePassEncoder, options: EncodeTransportOptions): void {
    checkObject("options", options);
    const { from = this.settings.noiseAt, to = this.settings.dataAt } = options;
    readTimes(from, to, undefined);
    this.record(target, options, from, to, { "end points": options.end, "divergence integral": options.divergenceIntegral });
  }

  /**
   * Measures on the device which kernels run an evaluation of about `count` points the fastest, and has paths run them from then on; see
   * {@link VectorField.tune}. Without it a call does so beforehand where the plain kernels would take more than some seconds.
   * @returns the variants, the fastest first. @throws as {@link Flow.logProb} does.
   */
  async tune(count: number, options: SolveOptions = {}): Promise<readonly TunedKernels[]> {
    const { outputs, method, probes, contextPer } = this.planOptions(readSolveOptions(options), true);
    const endTurn = await this.turns.take();
    try {
      return await this.field.tune(count, { outputs, method, probes, contextPer });
    } finally {
      endTurn();
    }
  }

  /** What a path costs, and why. @throws as {@link Flow.logProb} rejects with. */
  explain(options: SolveOptions = {}): FlowExplanation {
    const settings = readSolveOptions(options);
    const { solver, steps } = settings;
    const tableau = tableaus[solver];
    const plan = this.field.explain(this.planOptions(settings, true));
    const { multiplyAdds } = plan.candidates.find(({ chosen }) => chosen)!;
    const perStep = steps === null ? tableau.b.length - 1 : stagesOf(tableau);
    const { shared, pickCompiled } = internalsOf(this.field);
    const job = this.job(settings, this.settings.dataAt, this.settings.noiseAt, true, "divergence");
    const limits = { ...shared().limits, multiplyAddsPerSubmit: Infinity };
    const bytes = bytesPerPoint({ ...job, variant: pickCompiled(job.plan, 1) }, limits);
    const evaluations = steps === null ? (this.evaluated.get(controlOf(settings)) ?? null) : steps * perStep;
    const inAll = evaluations === null ? null : `${Number(evaluations.toPrecision(3))} in all`;
    const text =
      `${solver}: ${perStep} evaluations of f and its divergence a step, ` +
      `${steps === null ? `as many steps as the error asks for at each point${inAll ? `, ${inAll} the last time` : ""}` : inAll}; ` +
      `by ${plan.method}, ${multiplyAdds} multiply-adds each; ${bytes} bytes a point, where they are read back.`;
    return { solver, evaluationsPerStep: perStep, evaluations, multiplyAdds, bytesPerPoint: bytes, plan, text };
  }

  /** Frees the flow's buffers; the device stays the caller's. Later calls reject. */
  destroy(): void {
    this.field.destroy();
    this.encoder.destroy();
  }

  /** One call after another: they share scratch from first step to last. */
  protected async solve(
    inputs: FlowInputs,
    from: number,
    to: number,
    settings: SolveSettings,
    options: RunOptions,
    score: Float64Array | null,
  ): Promise<Integrated> {
    const { contextSize } = this.network;
    const sharesCondition = inputs.context === null || inputs.context.length === contextSize;
    const job = this.job(settings, from, to, sharesCondition, score === null ? "divergence" : "score");
    startRun(options);
    const { shared, pickFor } = internalsOf(this.field);
    shared().checkUsable();
    const endTurn = await this.turns.take();
    try {
      const expected =
        job.steps === null ? (this.evaluated.get(controlOf(settings)) ?? EXPECTED_EVALUATIONS) : job.steps * stagesOf(job.tableau);
      const variant = await pickFor(expected, job.plan, inputs.count, sharesContext(job), options.signal);
      const beginning = { ...inputs, carried: score };
      const integrated = await shared().gate.pass(() => integrate({ ...job, variant }, beginning, shared(), options));
      const { evaluations } = integrated;
      if (job.steps === null && inputs.count > 0)
        this.evaluated.set(controlOf(settings), evaluations.reduce((sum, each) => sum + each, 0) / inputs.count);
      return integrated;
    } finally {
      endTurn();
    }
  }

  private record(
    target: GPUCommandEncoder | GPUComputePassEncoder,
    options: EncodePathOptions,
    from: number,
    to: number,
    results: Partial<Record<OuterName, BufferRows | undefined>>,
  ): void {
    const { shared, pickCompiled } = internalsOf(this.field);
    shared().checkUsable();
    checkTarget(target);
    const settings = readSolveOptions(options);
    if (settings.steps === null) throw new InputError("steps is missing; expected how many steps of one size are to be recorded");
    const { rows, buffers } = readPathBuffers(this.network, this.settings.timeColumn, options, results, (name, numbers) =>
      this.encoder.upload(name, numbers),
    );
    const { count } = options;
    const job = this.job(settings, from, to, (rows.context?.stride ?? 0) === 0, "divergence");
    const limits = { ...shared().limits, multiplyAddsPerSubmit: Infinity };
    const chunks = scheduleFixed({ ...job, variant: pickCompiled(job.plan, count) }, rows, count, limits);
    this.encoder.record(target, chunks, buffers, shared());
  }

  /** What of them decides the plan of an evaluation. */
  private planOptions({ steps, divergence }: SolveSettings, sharesCondition: boolean) {
    const { contextSize } = this.network;
    const isShared = sharesContext({ contextSize, timeColumn: this.settings.timeColumn, steps, sharesCondition });
    return {
      ...(divergence === "exact" ? {} : divergence),
      outputs: ["value", "divergence"],
      contextPer: isShared ? "batch" : "point",
    } as const satisfies PlanOptions;
  }

  private job(
    settings: SolveSettings,
    from: number,
    to: number,
    sharesCondition: boolean,
    carried: Integration["carried"],
  ): Omit<Integration, "variant"> {
    const { solver, rtol, atol, steps, maxSteps, divergence } = settings;
    const { stateSize, contextSize } = this.network;
    const like = { contextSize, timeColumn: this.settings.timeColumn, steps, sharesCondition };
    const options = this.planOptions(settings, sharesCondition);
    const { planFor, gradientPlan } = internalsOf(this.field);
    const plan =
      carried === "score"
        ? gradientPlan(options, { value: true, divergence: true, outputs: ["value"], wrt: ["points"], contextPer: options.contextPer })
        : planFor(options);
    const parameters = runParametersOf(divergence === "exact" ? {} : { seed: divergence.seed });
    return { ...like, plan, parameters, carried, stateSize, from, to, tableau: tableaus[solver], rtol, atol, mostAttempts: maxSteps };
  }
}

/** What decides the steps of a path with error control. */
function controlOf({ solver, rtol, atol }: SolveSettings): string {
  return `${solver} ${rtol} ${atol}`;
}
