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
} from "./evaluation.js";
import type { Cotangents, Wrt } from "./inputs.js";
import { DeldotError, InputError, quote } from "./errors.js";
import { Constants, Matrices, Scratch } from "./gpu/buffers.js";
import { checkTarget, chunksOf, Encoder, type Recording } from "./gpu/encoder.js";
import { DeviceWatch } from "./gpu/errors.js";
import { Pace } from "./gpu/pace.js";
import { Pipelines } from "./gpu/pipelines.js";
import { Readback } from "./gpu/readback.js";
import { Gate, HOST_WORK, run, runAlone, type Shared, type Take } from "./gpu/run.js";
import { Memory } from "./gpu/store.js";
import { replaceWeights } from "./gpu/update.js";
import {
  readEncodeOptions,
  readEncodeVjpOptions,
  readFieldOptions,
  readReserveVjpOptions,
  usualRows,
  type EncodeOptions,
  type EncodeVjpOptions,
  type ReserveOptions,
  type ReserveVjpOptions,
  type VectorFieldOptions,
} from "./fieldOptions.js";
import { Gradients } from "./gradients.js";
import { checkCount, checkObject, ownOptions, readInputs, startRun, type BatchInput } from "./inputs.js";
import { encodeKernels, kernelsFor } from "./kernels/layers.js";
import type { LinearOperation, Network, Numbers } from "./model/network.js";
import { numbersOf, parameterLayout, readParameters, withNumbersOf, type ParameterInput } from "./model/parameters.js";
import { makeGradientPlan, makeJvpPlan, makePlan, type WantedGradient } from "./plan/choose.js";
import { workOf, type PlannedMatrix } from "./plan/matrices.js";
import { explainPlan, type ExplainOptions, type PlanExplanation } from "./plan/explain.js";
import { graphOf } from "./plan/graph.js";
import { DEFAULT_PROBES } from "./plan/estimators.js";
import { populationOf } from "./plan/orthogonal.js";
import { runParametersOf, readPlanOptions, readRunOptions, type PlanOptions } from "./plan/options.js";
import type { Output } from "./plan/outputs.js";
import type { GradientPlan, Plan } from "./plan/plan.js";
import { Recent } from "./recent.js";
import { Results } from "./results.js";
import { sumName } from "./schedule/adjoint.js";
import { scheduleParameterGradient } from "./schedule/parameters.js";
import type { OuterName, ScheduleLimits, Variant } from "./schedule/steps.js";
import { Tuner, type TunedKernels } from "./tune/tuner.js";
import { Turns } from "./turns.js";

/** Plans that a field keeps, each with what tuning found for it. */
const MOST_PLANS = 64;

/** Multiply-adds of a submission of a gradient: a second on a slow processor, tens of milliseconds on a small GPU. */
const GRADIENT_WORK = 2 ** 29;

/** What is recorded, and the caller's buffers. */
export interface Recorded {
  readonly recording: Recording;
  readonly buffers: Partial<Record<OuterName, GPUBuffer>>;
}

/** What integrations along a field, and trainers, take of it. */
export interface FieldInternals {
  readonly shared: () => Shared;
  readonly planFor: (options: PlanOptions) => Plan;
  readonly gradientPlan: (options: PlanOptions, wanted: WantedGradient) => GradientPlan;
  /** What runs a plan so many times over, while no other call runs; see {@link Tuner.pickFor}. */
  readonly pickFor: (
    evaluations: number,
    plan: Plan,
    count: number,
    sharedContext: boolean,
    signal: AbortSignal | undefined,
  ) => Promise<Variant>;
  /** The same at once, among what is compiled. */
  readonly pickCompiled: (plan: Plan, count: number) => Variant;
  /** What {@link VectorField.encode} records, but not tuned for. */
  readonly recording: (options: EncodeOptions) => Recorded;
  /**
   * What {@link VectorField.encodeVjp} records, but that numbers are taken to be finite.
   * @param step has a whole number that is added to the seed of probes when they are drawn.
   */
  readonly recordingOfGradient: (options: EncodeVjpOptions, step?: GPUBuffer) => Recorded;
  readonly encoder: Encoder;
  /** The network that plans are made of. */
  readonly planned: Network;
}
const internals = new WeakMap<VectorField, FieldInternals>();

export function internalsOf(field: VectorField): FieldInternals {
  return internals.get(field)!;
}

/**
 * A network on a device, ready to be evaluated.
 *
 * Every method that returns a promise rejects with a DeldotError: InputError or PlanError for a bad argument (before any
 * GPU work), LimitError where one point is too large, GpuError where WebGPU refuses, DeviceLostError once the device is lost.
 */
export class VectorField implements Field<Float32Array> {
  /** Also where weights are in float16. */
  readonly precision = "float32";
  private destroyed = false;
  private current: Network;
  /** The network that plans are made of: of no other field, since update replaces its numbers. */
  private readonly own: Network;
  private readonly gate = new Gate();
  /** By what changes a plan: not the seed, nor the step, nor whether probes are orthogonal. */
  private readonly plans = new Recent<string, Plan>(MOST_PLANS);
  private readonly pipelines: Pipelines;
  private readonly matrices: Matrices;
  /** Of evaluate, jvp and vjp. */
  private readonly scratch: Scratch;
  private readonly constants: Constants;
  private readonly readback: Readback;
  private readonly turns = new Turns();
  private readonly encoder: Encoder;
  private readonly shared: Shared;

  private constructor(
    device: GPUDevice,
    network: Network,
    memoryBudget: number,
    label: string,
    private readonly watch: DeviceWatch,
    pace: Pace,
    private readonly tuner: Tuner,
  ) {
    this.current = network;
    this.own = { ...network };
    this.pipelines = new Pipelines(device);
    this.matrices = new Matrices(device, label);
    this.scratch = new Scratch(device, label, false);
    this.constants = new Constants(device, label, false);
    this.readback = new Readback(device, label);
    this.encoder = new Encoder(device, label);
    const { pipelines, matrices, constants, scratch, readback, turns, gate } = this;
    const checkUsable = (): void => this.checkUsable();
    const { maxStorageBufferBindingSize, maxBufferSize, minStorageBufferOffsetAlignment } = device.limits;
    const limits = { maxStorageBufferBindingSize, maxBufferSize, minStorageBufferOffsetAlignment, memoryBudget };
    this.shared = { device, pipelines, matrices, constants, scratch, readback, turns, gate, watch, pace, label, limits, checkUsable };
    internals.set(this, {
      shared: () => this.shared,
      planFor: (options) => this.planFor(options),
      gradientPlan: (options, wanted) => this.gradientPlan(options, wanted),
      pickFor: async (evaluations, plan, count, sharedContext, signal) => {
        if (plan.kind === "gradient" || count === 0) return this.tuner.plain;
        return await this.watch.guard(this.tuner.pickFor(evaluations, plan, count, sharedContext, this.shared, signal));
      },
      recording: (options) => this.recordings(options, false)[0]!,
      recordingOfGradient: (options, step) => this.recordingOfGradient(options, false, step),
      encoder: this.encoder,
      planned: this.own,
      pickCompiled: (plan, count) => this.tuner.pickCompiled(plan, count, this.shared),
    });
  }

  /** The network as it was given, or as it is since the last update. */
  get network(): Network {
    return this.current;
  }

  /**
   * Compiles the kernels of a network on the caller's device, which the field never destroys.
   * @throws InputError for a bad argument, GpuError where a kernel does not compile, DeviceLostError.
   */
  static async create(device: GPUDevice, network: Network, options: VectorFieldOptions = {}): Promise<VectorField> {
    if (typeof device?.createComputePipelineAsync !== "function") throw new InputError(`device is ${quote(device)}; expected a GPUDevice`);
    const { memoryBudget, label, store, kernels, weights } = readFieldOptions(options);
    const graph = graphOf(network);
    const watch = new DeviceWatch(device);
    const memory = new Memory(store);
    const [pace, tuner] = await watch.guard(
      Promise.all([Pace.for(device, memory), Tuner.for(device, memory, kernels, weights === "float16")]),
    );
    const field = new VectorField(device, network, memoryBudget, label, watch, pace, tuner);
    const activations = graph.nodes.map(({ activation }) => activation);
    const needed = tuner.layers().flatMap(({ tile }) => kernelsFor(activations, tile));
    await watch.guard(Promise.all(needed.map((kernel) => field.pipelines.keep(kernel))));
    return field;
  }

  /**
   * f, its divergence and what else `outputs` names (default: value and divergence) at points [..., d].
   *
   * Points and contexts are copied at the call, and rounded to float32. A point with a NaN or an infinity in it, or in its
   * context, gets NaN in all its outputs. What overflows float32 on the way, or is outside a function's domain, comes out as
   * an infinity or NaN.
   *
   * Errors of exact methods: float32 rounding, about 1e-6 Σ|∂f_i/∂x_i|. The final sum is float64, on the host.
   *
   * @throws InputError, PlanError for a bad argument; LimitError, GpuError, DeviceLostError; the signal's reason on abort.
   */
  async evaluate<O extends Output = "value" | "divergence">(points: BatchInput, given: EvaluateOptions<O> = {}): Promise<Evaluation<O>> {
    this.checkUsable();
    const options = ownOptions(given);
    readRunOptions(options);
    const inputs = readInputs(this.network, points, options.context, null);
    startRun(options);
    const { count } = inputs;
    const contextPer = contextPerOf(inputs);
    const plan = this.planFor({ ...options, contextPer });
    const parameters = runParametersOf(options);
    const results = new Results(plan, count, populationOf(this.network.stateSize, parameters.orthogonal));
    let began = 0;
    const take: Take = (read, first, rows, data) => results.take(read, first, rows, data);
    const variant = await this.gate.pass(async () => {
      const picked = await this.watch.guard(this.tuner.pick(plan, count, contextPer === "batch", this.shared, options.signal));
      began = performance.now();
      await run({ plan, parameters, variant: picked }, inputs, this.shared, options, take);
      return picked;
    });
    results.spoil(inputs.nonFinite);
    this.tuner.spent(plan, count, performance.now() - began);
    return results.asEvaluation(variant.name, inputs.shape) as Evaluation<O>;
  }

  /** The divergence alone, [...batch shape of the points]. @throws as {@link VectorField.evaluate} does. */
  async divergence(points: BatchInput, options: Omit<EvaluateOptions, "outputs"> = {}): Promise<Float32Array> {
    const { divergence } = await this.evaluate(points, { ...options, outputs: ["divergence"] });
    return divergence;
  }

  /**
   * J(x) t, one tangent per point: points and tangents [B, d] -> [B, d]; with `value: true`, f(x) [B, d] beside it. One pass of
   * forward mode (Griewank and Walther, Evaluating Derivatives, 2008, chapter 3).
   *
   * @throws as {@link VectorField.evaluate} does.
   */
  async jvp(points: BatchInput, tangents: BatchInput, options: JvpOptions & { readonly value: true }): Promise<Jvp>;
  async jvp(points: BatchInput, tangents: BatchInput, options?: JvpOptions & { readonly value?: false | undefined }): Promise<Float32Array>;
  async jvp(points: BatchInput, tangents: BatchInput, given: JvpOptions = {}): Promise<Float32Array | Jvp> {
    this.checkUsable();
    const options = ownOptions(given);
    const inputs = readInputs(this.network, points, options.context, tangents);
    startRun(options);
    const { value: wantsValue = false } = options;
    const plan = this.jvpPlan(wantsValue);
    const results = new Results(plan, inputs.count);
    const job = { plan, parameters: runParametersOf({}), variant: this.tuner.untuned };
    const take: Take = (read, first, rows, data) => results.take(read, first, rows, data);
    await this.gate.pass(() => run(job, inputs, this.shared, options, take));
    results.spoil(inputs.nonFinite);
    const { arrays, tangent } = results;
    return wantsValue ? { value: arrays.value!, tangent: tangent! } : tangent!;
  }

  /**
   * The gradient of L = Σ_b (e_b · f(x_b) + c_b ∇·f(x_b)) for the cotangents e (`value`, [B, d]) and c (`divergence`, [B] or one number),
   * with respect to what `wrt` names: the points (the default), the context, the parameters. Reverse mode over the trace's own plan: by
   * the bilinear form of two hidden layers at less than 2 times the price of the gradient of f alone, whatever d is (Griewank and
   * Walther, Evaluating Derivatives, 2008, chapter 5).
   *
   * `method` names the trace that is differentiated: an exact one, all of which have one gradient, or "hutchinson", whose gradient is
   * that of the estimate by the same probes. `outputs` gives value and divergence of the same pass.
   *
   * A point with a NaN or an infinity in it, in its context or its cotangents, gets NaN in its rows, and so do all sums over the points:
   * the parameters' gradients, and that of a context which serves all.
   *
   * Errors: float32 rounding, some 1e-6 of a tensor's largest entry with weights in float32, more where what is summed cancels. Equal calls give equal bits on
   * one device.
   *
   * @returns what `wrt` and `outputs` name: points [..., d], context [..., c] or [c] where one serves all, parameters by name, value
   * [..., d], divergence [...].
   * @throws as {@link VectorField.evaluate} does; PlanError for method "difference".
   */
  async vjp<W extends Wrt = "points", O extends "value" | "divergence" = never>(
    points: BatchInput,
    cotangents: Cotangents,
    given: VjpOptions<W, O> = {},
  ): Promise<Vjp<W, O>> {
    this.checkUsable();
    const { options, inputs, wanted } = readVjpCall(this.network, points, cotangents, given);
    const { wrt } = wanted;
    const plan = this.gradientPlan(options, wanted);
    const results = new Gradients(plan, this.network, inputs.count, wrt, inputs.context?.shared === true);
    const job = { plan, parameters: runParametersOf(options), variant: this.tuner.untuned };
    const take: Take = (read, first, rows, data) => results.take(read, first, rows, data);
    // Chunks of bounded work whatever the pace, so that equal calls add up in the same order.
    const runOptions = { ...options, multiplyAddsPerSubmit: GRADIENT_WORK };
    const parameters = await this.gate.pass(async () => {
      await run(job, inputs, this.shared, runOptions, take);
      results.finish(inputs.nonFinite);
      return wrt.includes("parameters") ? results.parameters(this.own, (gradient, sums) => this.combine(plan, gradient, sums)) : null;
    });
    return results.asVjp(inputs.shape, parameters) as Vjp<W, O>;
  }

  /** A parameters' gradient out of the sums over points: on the host, in float64, or where that is much work on the device. */
  private async combine(plan: GradientPlan, gradient: PlannedMatrix, sums: ReadonlyMap<number, Float64Array>): Promise<Numbers> {
    if (workOf([gradient]) <= HOST_WORK) return gradient.build().data;
    const shared = this.shared;
    // They take no more memory than the sums have taken, which the host has read.
    const limits = { ...shared.limits, multiplyAddsPerSubmit: GRADIENT_WORK };
    const has = this.matrices.has.bind(this.matrices);
    const chunk = scheduleParameterGradient(plan, this.own, 1, limits, { to: "host", sharedContext: true }, this.tuner.untuned, has);
    const uploads = plan.adjoint.sums.map((sum) => [sumName(sum), new Float32Array(sums.get(sum.index)!)] as const);
    let flat = new Float32Array(0);
    await runAlone(chunk, uploads, shared, (data) => (flat = data.slice()));
    return flat;
  }

  /**
   * Records the evaluation into the caller's command encoder, or its open compute pass; nothing is submitted or read back.
   * It may be called again before a submit with other counts, contexts and buffers. Rows with a NaN or an infinity, and rows that
   * overflow float32 on the way, are unspecified. How long a submission runs is the caller's business.
   *
   * Every buffer needs usage STORAGE. An output may share a buffer with the points if their rows do not overlap.
   * Scratch grows with the count up to the memory budget; reserve() does so ahead.
   *
   * @throws InputError, PlanError, LimitError, DeviceLostError at once; WebGPU's own errors go to the device's error scopes.
   */
  encode(target: GPUCommandEncoder | GPUComputePassEncoder, options: EncodeOptions): void {
    this.checkUsable();
    checkTarget(target);
    // All of it is laid out before any is recorded: what does not fit leaves the target as it was.
    const laidOut = this.recordings(options, true)
      .filter(({ recording }) => recording.count > 0)
      .map(({ recording, buffers }) => ({ chunks: chunksOf(recording, this.shared), buffers }));
    for (const { chunks, buffers } of laidOut) this.encoder.record(target, chunks, buffers, this.shared);
  }

  /** The evaluation, and J t beside it where that is asked for: by passes of their own, but that f alone comes with J t. */
  private recordings(options: EncodeOptions, isTuned: boolean): Recorded[] {
    const upload: Parameters<typeof readEncodeOptions>[2] = (name, numbers) => this.encoder.upload(name, numbers);
    const { rows, buffers, count, outputs } = readEncodeOptions(this.network, options, upload);
    const contextPer = rows.context && rows.context.stride > 0 ? "point" : "batch";
    const planOptions: PlanOptions = { ...options, contextPer, ...(outputs.length > 0 && { outputs }) };
    readRunOptions(planOptions);
    const route = routeTo(rows, buffers);
    const parameters = runParametersOf(options);
    const { untuned } = this.tuner;
    const recorded = (plan: Plan, variant: Variant): Recorded => ({
      recording: { plan, parameters, variant, count, route, after: null },
      buffers,
    });
    const isAlone = outputs.every((output) => output === "value");
    const jvp = rows.jvp ? [recorded(this.jvpPlan(isAlone && outputs.length > 0), untuned)] : [];
    if (rows.jvp && isAlone) return jvp;
    const plan = this.planFor(planOptions);
    // One dispatch may not read a buffer and write it, nor write one twice.
    const takesAny = isTuned && count > 0 && !route.sharesBuffers;
    return [recorded(plan, takesAny ? this.tuner.pickCompiled(plan, count, this.shared) : untuned), ...jvp];
  }

  private jvpPlan(wantsValue: boolean): Plan {
    return this.plans.get(`jvp ${wantsValue}`, () => makeJvpPlan(this.own, wantsValue));
  }

  /**
   * Records the gradient of L = Σ_b (e_b · f(x_b) + c_b ∇·f(x_b)) as {@link VectorField.vjp} computes it, for cotangents and into results
   * in the caller's buffers, all float32; nothing is submitted or read back. What `gradients` names is written over: for the points
   * [count, d], for the context [count, c] (or [c] where one serves all), for all parameters one flat array as `parameterLayout` has it.
   * The sums over points are float32 here.
   *
   * Rows of a point with a NaN or an infinity in it, in its context or its cotangents, become NaN, and so do all sums over the points.
   * Kernels that no earlier call, and no {@link VectorField.reserveVjp}, has compiled are compiled while the caller waits. Else as
   * {@link VectorField.encode}.
   *
   * @throws InputError, PlanError, LimitError, DeviceLostError at once; WebGPU's own errors go to the device's error scopes.
   */
  encodeVjp(target: GPUCommandEncoder | GPUComputePassEncoder, options: EncodeVjpOptions): void {
    this.checkUsable();
    checkTarget(target);
    const { recording, buffers } = this.recordingOfGradient(options, true);
    this.encoder.record(target, chunksOf(recording, this.shared), buffers, this.shared);
  }

  private recordingOfGradient(options: EncodeVjpOptions, marksNonFinite: boolean, step?: GPUBuffer): Recorded {
    const { rows, buffers, wanted } = readEncodeVjpOptions(this.network, options, (name, numbers) => this.encoder.upload(name, numbers));
    if (step) [rows.step, buffers.step] = [{ offset: 0, stride: 0 }, step];
    const plan = this.gradientPlan(options, wanted);
    const route = { ...routeTo(rows, buffers), marksNonFinite };
    return { recording: this.gradientRecording(plan, options.count, route, options), buffers };
  }

  /**
   * Makes encode's scratch for `count` points and uploads the matrices, so that no later frame has to. Name what decides
   * the plan as encode will be told it: the outputs (default: value and divergence), the method, and whether every point
   * has a context of its own in a buffer ("point") or all share one ("batch", the default).
   * @throws InputError, PlanError, LimitError, GpuError (out of memory among it), DeviceLostError.
   */
  async reserve(count: number, options: ReserveOptions = {}): Promise<void> {
    this.checkUsable();
    checkObject("options", options);
    checkCount(count, 0);
    const planOptions: PlanOptions = { contextPer: "batch", ...options };
    readRunOptions(planOptions);
    const plan = this.planFor(planOptions);
    if (count === 0) return;
    await this.watch.guard(this.tuner.prepare(plan, count, this.shared));
    const variant = this.tuner.pickCompiled(plan, count, this.shared);
    const route = routeTo(usualRows(this.network, options, plan.outputs), {});
    const recording = { plan, parameters: runParametersOf(options), variant, count, route, after: null };
    await this.watch.guard(Promise.all(encodeKernels().map((kernel) => this.pipelines.compile(kernel))));
    await this.encoder.reserve(chunksOf(recording, this.shared), this.shared);
  }

  /**
   * The same for {@link VectorField.encodeVjp}, whose kernels it compiles. Name what decides the plan: what gradients are for (`wrt`,
   * default the points), which cotangents come (default both), which outputs beside them (default none), and as for reserve.
   * @throws InputError, PlanError, LimitError, GpuError (out of memory among it), DeviceLostError.
   */
  async reserveVjp(count: number, options: ReserveVjpOptions = {}): Promise<void> {
    this.checkUsable();
    checkCount(count, 0);
    const { rows, wanted } = readReserveVjpOptions(this.network, options);
    const plan = this.gradientPlan(options, wanted);
    const recording = this.gradientRecording(plan, count, routeTo(rows, {}), options);
    await this.encoder.reserve(chunksOf(recording, this.shared), this.shared);
  }

  /**
   * Gives weights and biases other numbers, by the names of {@link parametersOf}; those left out stay as they are. Nothing is planned anew:
   * the buffers are written in place, and merged matrices computed anew (h² d multiply-adds for two hidden layers), on the host, or where
   * that is much work on the device, in float32. Calls that run are waited for, later ones see the new numbers, all at once, and so do
   * commands that are submitted later, but for those of fused kernels, which have copies of their own, and of before an error of the
   * device. After it plans run layer by layer. Where it fails the old numbers stay.
   *
   * @throws InputError where a name is unknown, a shape another, or a number not finite in float32; GpuError, DeviceLostError.
   */
  async update(parameters: Readonly<Record<string, ParameterInput>>): Promise<void> {
    this.checkUsable();
    // A copy, so that nothing done to them later is seen.
    const read = readParameters(this.current, parameters);
    await this.gate.close(async () => {
      this.checkUsable();
      const before = this.current;
      // Of what an update before this one has left.
      const replace = (): void => this.use(withNumbersOf(before, read));
      await replaceWeights(replace, () => this.use(before), this.shared);
    });
  }

  /**
   * Measures on the device, for about `count` points, which kernels run a plan the fastest, and has evaluate and encode use
   * them from then on; the store remembers it. Each variant's results are compared with the plain kernels', and one that differs by
   * more than rounding is dropped. Without it, evaluate starts tuning by itself, in the background, where a plan has cost more
   * time than that would. Name what decides the plan, as for {@link VectorField.reserve}.
   *
   * Takes as long as the driver compiles some ten kernels. Fused kernels that prove fastest run only until `update` replaces weights.
   *
   * @returns the variants, the fastest first; the one that was fixed alone, where `kernels` fixes one.
   * @throws InputError, PlanError, LimitError, GpuError, DeviceLostError.
   */
  async tune(count: number, options: ReserveOptions = {}): Promise<readonly TunedKernels[]> {
    this.checkUsable();
    checkObject("options", options);
    checkCount(count, 1);
    const planOptions: PlanOptions = { contextPer: "batch", ...options };
    readRunOptions(planOptions);
    return this.watch.guard(this.tuner.tune(this.planFor(planOptions), count, options.contextPer !== "point", this.shared));
  }

  /** What evaluate would choose for these options, and why; where a gate follows the last layer, say `contextPer` as the call will be. */
  explain(options: ExplainOptions = {}): PlanExplanation {
    return explainPlan(this.network, options);
  }

  /** Frees the field's buffers; the device stays the caller's. Later calls reject. */
  destroy(): void {
    this.destroyed = true;
    for (const buffers of [this.matrices, this.scratch, this.constants, this.readback, this.encoder]) buffers.destroy();
  }

  /** From now on with these numbers; buffers are another matter. */
  private use(network: Network): void {
    this.current = network;
    // Fused kernels keep copies of weights, which update does not rewrite.
    this.tuner.layersOnly();
    for (const matrix of graphOf(this.own).weights) {
      const { rows, columns, place } = matrix;
      if (!place) continue;
      const { numbers } = numbersOf(network.operations[place.operation] as LinearOperation, place.part);
      matrix.replace({ rows, columns, data: numbers });
    }
  }

  private gradientRecording(plan: GradientPlan, count: number, route: Recording["route"], options: PlanOptions): Recording {
    const { untuned: variant } = this.tuner;
    const parameters = runParametersOf(options);
    const has = this.matrices.has.bind(this.matrices);
    const hasParameters = parameterLayout(this.network).size > 0 && route.outer["gradient of parameters"] !== undefined;
    const isSummed = hasParameters || (count === 0 && route.outer["gradient of context"]?.stride === 0);
    const after = isSummed
      ? (limits: ScheduleLimits) => scheduleParameterGradient(plan, this.own, count, limits, route, variant, has)
      : null;
    return { plan, parameters, variant, count, route, after };
  }

  private checkUsable(): void {
    this.watch.check();
    if (this.destroyed) throw new DeldotError("the field was destroyed; make a new one with VectorField.create");
  }

  /** One plan for all ways to ask for it, so that what was tuned or reserved for one is there for the others. */
  private planFor(options: PlanOptions): Plan {
    const { outputs, method } = readPlanOptions(options);
    const { chunkSize = null, probes = DEFAULT_PROBES, probesPer = "point", contextPer = "point" } = options;
    const key = JSON.stringify([outputs, method, chunkSize, probes, probesPer, contextPer]);
    return this.plans.get(key, () => makePlan(this.own, options));
  }

  private gradientPlan({ chunkSize, probes, probesPer, method }: PlanOptions, wanted: WantedGradient): GradientPlan {
    const { outputs, value, divergence, wrt, contextPer } = wanted;
    const options = { outputs, value, divergence, contextPer, method, chunkSize, probes, probesPer };
    const key = [
      outputs,
      value,
      divergence,
      wrt,
      contextPer,
      method ?? "auto",
      chunkSize ?? null,
      probes ?? DEFAULT_PROBES,
      probesPer ?? "point",
    ];
    return this.plans.get(`gradient ${JSON.stringify(key)}`, () => makeGradientPlan(this.own, { ...options, wrt })) as GradientPlan;
  }
}

function routeTo(rows: Recording["route"]["outer"], buffers: Partial<Record<OuterName, GPUBuffer>>): Recording["route"] {
  // The count is read apart from all else.
  const all = Object.values({ ...buffers, count: undefined }).filter((buffer) => buffer !== undefined);
  return { to: "device", outer: rows, sharesBuffers: new Set(all).size < all.length, marksNonFinite: true };
}
