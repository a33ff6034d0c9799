import { readBatch, readContext, type BatchInput, type ContextInput } from "./batch.js";
import { meanRows, sumRowsInto } from "./cpu/reduce.js";
import { DeldotError, InputError, LimitError, quote } from "./errors.js";
import { Constants, Matrices, Scratch, USAGE } from "./gpu/buffers.js";
import { encodeSteps } from "./gpu/encode.js";
import { checked, DeviceWatch } from "./gpu/errors.js";
import { kernelsFor } from "./gpu/kernels.js";
import { Pace, type Store } from "./gpu/pace.js";
import { Pipelines } from "./gpu/pipelines.js";
import { Readback } from "./gpu/readback.js";
import { run, Turns, type RunOptions } from "./gpu/run.js";
import { readKernels, Trials, type Trial } from "./gpu/trial.js";
import type { Network } from "./model/network.js";
import { graphOf } from "./plan/graph.js";
import { explainPlan, type PlanExplanation } from "./plan/explain.js";
import { capacityOf, scheduleChunk } from "./plan/schedule.js";
import { type Chunk, type OuterName, type OuterRows, type ScheduleLimits } from "./plan/steps.js";
import { makeJvpPlan, makePlan, readPlanOptions, type Method, type Output, type Plan, type PlanOptions } from "./plan/trace.js";
import { nameOfVariant, type Variant } from "./plan/variants.js";

/** What {@link VectorField.create} takes beside device and network. */
export interface VectorFieldOptions {
  /**
   * Bytes of GPU memory for inputs, intermediate results, results and staging, of all calls of evaluate and jvp together;
   * weights, and up to 1 MiB of kernel parameters, come beside it. encode has as much again, and for a while what it has
   * outgrown, until the garbage collector finds that no command names it. Default 256 MiB.
   */
  readonly memoryBudget?: number | undefined;
  /** Remembers between runs how much work this adapter takes per submission, and which kernels are the fastest. */
  readonly store?: Store | undefined;
  /**
   * Which kernels run; all give the same results but for rounding. "auto", the default: the plain ones at first, and what
   * proves fastest on this device once a trial has paid for itself (see {@link VectorField.tune}). Or one by its name, for
   * runs that repeat to the bit on one device: "layers 4x4" (the plain ones), "layers 8x16", "layers 4x16 by 8 lanes" (of a
   * subgroup), "layers 8x8 in groups of 8x8" (of invocations that share workgroup memory), "fused uniform x2", "fused storage
   * x4", "fused literal x1"; where a plan cannot be fused, the plain ones.
   */
  readonly kernels?: string | undefined;
  /**
   * How weights lie in GPU memory: "float32", the default; or "float16", on a device with the feature shader-f16, which halves
   * what products read. Arithmetic stays float32, but every weight (also of merged matrices) is rounded to 11 bits: errors
   * of value and divergence are then a few 1e-3 Σ|∂f_i/∂x_i|, and weights end at 65504.
   */
  readonly weights?: "float32" | "float16" | undefined;
  /** Prefix of the label of every GPU object. Default "deldot". */
  readonly label?: string | undefined;
}

/** What {@link VectorField.evaluate} is asked for, and how. */
export interface EvaluateOptions<O extends Output = Output> extends PlanOptions, RunOptions {
  /** Which arrays the result has. Default: value and divergence. */
  readonly outputs?: readonly O[] | undefined;
  /** One vector for all points, or one per point; required where the network takes a context. */
  readonly context?: ContextInput | null | undefined;
}

/**
 * Results in float32, row-major, with the batch shape of the points in front; those that were asked for:
 * `value`, f(x), [...shape, d]; `divergence`, Σ ∂f_i/∂x_i, [...shape]; `diagonal`, ∂f_i/∂x_i, [...shape, d];
 * `jacobian`, J[i][j] = ∂f_i/∂x_j, [...shape, d, d].
 */
export type Evaluation<O extends Output = Output> = {
  /** The method that ran; "value" where only f was asked for. */
  readonly method: Method | "value";
  /** The kernels that ran, by the name that {@link VectorFieldOptions.kernels} takes. */
  readonly kernels: string;
  /** The leading batch shape of the points: [B] for a flat array. */
  readonly shape: readonly number[];
  /** hutchinson: the standard error of the divergence, [...shape]; NaN for a single probe. */
  readonly standardError?: Float32Array;
} & (Output extends O ? Partial<Arrays<Output>> : Arrays<O>);

/** value: f(x), [...shape, d]; divergence: [...shape]; diagonal: ∂f_i/∂x_i, [...shape, d]; jacobian: J[i][j] = ∂f_i/∂x_j, [...shape, d, d]. */
type Arrays<O extends Output> = { readonly [K in O]: Float32Array };

/** A buffer of the caller: rows begin at `offset` bytes (a multiple of 4) and are `stride` floats apart. */
export type BufferRows =
  | GPUBuffer
  | {
      /** On the field's device, with usage STORAGE. */
      readonly buffer: GPUBuffer;
      /** Where the first row begins, in bytes, a multiple of 4; default 0. */
      readonly offset?: number | undefined;
      /** From the start of a row to the next, in floats; default the width of a row. */
      readonly stride?: number | undefined;
    };

/** What {@link VectorField.encode} reads and writes: buffers of the caller, in float32. At least one output is needed. */
export interface EncodeOptions extends Pick<PlanOptions, "tangentsAtOnce" | "probes" | "seed" | "probesPer" | "step"> {
  /** [count, d], stride d unless given; usage STORAGE. */
  readonly points: BufferRows;
  /** How many points. */
  readonly count: number;
  /** [count, c] in a buffer (stride c unless given, 0: one row for all), usage STORAGE; or one vector for all points. */
  readonly context?: BufferRows | number | ArrayLike<number> | undefined;
  /** Receives f(x), [count, d], stride d unless given; usage STORAGE. */
  readonly value?: BufferRows | undefined;
  /** Receives the divergence, [count], stride 1 unless given; usage STORAGE. */
  readonly divergence?: BufferRows | undefined;
  /** Receives ∂f_i/∂x_i, [count, d], stride d unless given; usage STORAGE. */
  readonly diagonal?: BufferRows | undefined;
  /** Default "auto". */
  readonly method?: Method | "auto" | undefined;
}

/** What decides the plan of a later encode. */
export interface ReserveOptions extends Pick<
  PlanOptions,
  "outputs" | "method" | "tangentsAtOnce" | "probes" | "seed" | "probesPer" | "contextPer" | "step"
> {}

const DEFAULT_BUDGET = 256 * 2 ** 20;

/**
 * A network on a device, ready to be evaluated.
 *
 * Every method that returns a promise rejects with a DeldotError: InputError or PlanError for a bad argument (before any
 * GPU work), LimitError where one point is too large, GpuError where WebGPU refuses, DeviceLostError once the device is lost.
 */
export class VectorField {
  private destroyed = false;
  private readonly plans = new Map<string, Plan>();
  private readonly pipelines: Pipelines;
  private readonly matrices: Matrices;
  /** evaluate's and jvp's own; encode's live as long as the field, since its commands may be submitted at any time. */
  private readonly scratch: Scratch;
  private readonly constants: Constants;
  private readonly readback: Readback;
  private readonly turns = new Turns();
  private readonly encodeScratch: Scratch;
  private readonly encodeConstants: Constants;
  private readonly trials: Trials;

  private constructor(
    private readonly device: GPUDevice,
    /** The network as it was given. */
    readonly network: Network,
    private readonly memoryBudget: number,
    fixed: Variant | null,
    half: boolean,
    store: Store | undefined,
    private readonly label: string,
    private readonly watch: DeviceWatch,
    private readonly pace: Pace,
  ) {
    this.pipelines = Pipelines.of(device);
    this.matrices = new Matrices(device, label);
    this.scratch = new Scratch(device, label, false);
    this.constants = new Constants(device, label, false);
    this.readback = new Readback(device, label);
    this.encodeScratch = new Scratch(device, `${label} encode`, true);
    this.encodeConstants = new Constants(device, `${label} encode`, true);
    this.trials = new Trials(
      device,
      store,
      fixed,
      half,
      () => this.limits(),
      () => this.shared(),
    );
  }

  /**
   * Compiles the kernels of a network on the caller's device, which the field never destroys.
   * @throws InputError for a bad argument, GpuError where a kernel does not compile, DeviceLostError.
   */
  static async create(device: GPUDevice, network: Network, options: VectorFieldOptions = {}): Promise<VectorField> {
    if (typeof device?.createComputePipelineAsync !== "function") throw new InputError(`device is ${quote(device)}; expected a GPUDevice`);
    checkObject("options", options);
    const { memoryBudget = DEFAULT_BUDGET, label = "deldot", store, kernels = "auto", weights = "float32" } = options;
    if (!(typeof memoryBudget === "number" && memoryBudget > 0))
      throw new InputError(`memoryBudget is ${quote(memoryBudget)}; expected a positive number of bytes`);
    if (typeof label !== "string") throw new InputError(`label is ${quote(label)}; expected a text`);
    if (store !== undefined && (typeof store?.get !== "function" || typeof store.set !== "function"))
      throw new InputError(`store is ${quote(store)}; expected an object with get and set`);
    if (weights !== "float32" && weights !== "float16")
      throw new InputError(`weights is ${quote(weights)}; expected "float32" or "float16"`);
    const fixed = readKernels(kernels);
    const graph = graphOf(network);
    const watch = new DeviceWatch(device);
    const pace = await watch.guard(Pace.for(device, store));
    const field = new VectorField(device, network, memoryBudget, fixed, weights === "float16", store, label, watch, pace);
    await field.trials.load();
    const activations = graph.nodes.map(({ activation }) => activation);
    const needed = [field.trials.plain, ...(fixed?.kind === "layers" ? [fixed] : [])].flatMap(({ tile }) => kernelsFor(activations, tile));
    await watch.guard(Promise.all(needed.map((kernel) => field.pipelines.compile(kernel))));
    return field;
  }

  /**
   * f, its divergence and what else `outputs` names (default: value and divergence) at points [..., d].
   * Points are rounded to float32; a point with a NaN or an infinity in it, or in its context, gets NaN in all its outputs.
   *
   * Errors of exact methods: float32 rounding, about 1e-6 Σ|∂f_i/∂x_i|. The final sum is float64, on the host.
   *
   * @throws InputError, PlanError for a bad argument; LimitError, GpuError, DeviceLostError; the signal's reason on abort.
   */
  async evaluate<O extends Output = "value" | "divergence">(points: BatchInput, options: EvaluateOptions<O> = {}): Promise<Evaluation<O>> {
    this.checkUsable();
    readPlanOptions(options);
    const d = this.network.stateSize;
    const batch = readBatch(points, d, "points");
    const context = readContext(options.context, this.network.contextSize, batch.count);
    const plan = this.planFor({ ...options, contextPer: context && !context.runs ? "point" : "batch" });
    startRun(options);

    const { count, shape } = batch;
    const wants = (output: Output): boolean => plan.outputs.includes(output);
    const widths = { value: d, divergence: 1, diagonal: d, jacobian: d * d };
    const results = Object.fromEntries(plan.outputs.map((output) => [output, allocate(output, [count, widths[output]])])) as Partial<
      Record<Output, Float32Array>
    >;
    const estimates = plan.kind === "trace" && plan.probes !== null;
    const standardError = estimates ? new Float32Array(count) : null;

    const variant = await this.watch.guard(this.trials.pick(plan, count, context === null || context.runs !== null));
    const began = performance.now();
    const nonFinite = await run(
      plan,
      variant,
      { points: batch, context, tangents: null },
      this.limits(),
      this.shared(),
      options,
      (read, first, rows, data) => {
        if (read.what === "value") results.value!.set(data, first * d);
        if (read.what === "jacobian") setStrip(results.jacobian!, data, first, rows, d, read.first, read.columns);
        if (read.what !== "terms") return;
        if (wants("diagonal")) results.diagonal!.set(data, first * d);
        if (!wants("divergence")) return;
        if (!estimates) return sumRowsInto(results.divergence!.subarray(first, first + rows), data, read.width);
        const { mean, standardError: errors } = meanRows(data, rows, read.width);
        results.divergence!.set(mean, first);
        standardError!.set(errors, first);
      },
    );
    for (let point = nonFinite.indexOf(1); point >= 0; point = nonFinite.indexOf(1, point + 1)) {
      for (const output of plan.outputs) results[output]!.fill(NaN, point * widths[output], (point + 1) * widths[output]);
      standardError?.fill(NaN, point, point + 1);
    }
    this.trials.spent(plan, count, performance.now() - began);
    return {
      method: plan.method,
      kernels: nameOfVariant(variant),
      shape,
      ...results,
      ...(standardError && { standardError }),
    } as Evaluation<O>;
  }

  /** The divergence alone, [...batch shape of the points]. @throws as {@link VectorField.evaluate} does. */
  async divergence(points: BatchInput, options: Omit<EvaluateOptions, "outputs"> = {}): Promise<Float32Array> {
    const { divergence } = await this.evaluate(points, { ...options, outputs: ["divergence"] });
    return divergence;
  }

  /**
   * J(x) t, one tangent per point: points and tangents [B, d] -> [B, d]. One pass of forward mode (Griewank and Walther,
   * Evaluating Derivatives, 2008, chapter 3).
   *
   * @throws as {@link VectorField.evaluate} does.
   */
  async jvp(
    points: BatchInput,
    tangents: BatchInput,
    options: Pick<EvaluateOptions, "context" | "onProgress" | "signal"> = {},
  ): Promise<Float32Array> {
    this.checkUsable();
    checkObject("options", options);
    const d = this.network.stateSize;
    const batch = readBatch(points, d, "points");
    const directions = readBatch(tangents, d, "tangents");
    if (directions.count !== batch.count)
      throw new InputError(`tangents has ${directions.count} vectors of ${d}; expected ${batch.count}, one per point`);
    const context = readContext(options.context, this.network.contextSize, batch.count);
    startRun(options);
    const result = allocate("the result", [batch.count, d]);
    const plan = this.cached("jvp", () => makeJvpPlan(this.network));
    const inputs = { points: batch, context, tangents: directions };
    const nonFinite = await run(plan, this.trials.plain, inputs, this.limits(), this.shared(), options, (_, first, __, data) =>
      result.set(data, first * d),
    );
    for (let point = nonFinite.indexOf(1); point >= 0; point = nonFinite.indexOf(1, point + 1))
      result.fill(NaN, point * d, (point + 1) * d);
    return result;
  }

  /**
   * Records the evaluation into the caller's command encoder, or its open compute pass; nothing is submitted or read back.
   * It may be called again before a submit with other counts, contexts and buffers. Rows with a NaN or an infinity are
   * unspecified. How long a submission runs is the caller's business.
   *
   * Every buffer needs usage STORAGE. An output may share a buffer with the points if their rows do not overlap.
   * Scratch grows with the count up to the memory budget; reserve() does so ahead.
   *
   * @throws InputError, PlanError, LimitError, DeviceLostError at once; WebGPU's own errors go to the device's error scopes.
   */
  encode(target: GPUCommandEncoder | GPUComputePassEncoder, options: EncodeOptions): void {
    this.checkUsable();
    if (typeof target !== "object" || target === null || !("dispatchWorkgroups" in target || "beginComputePass" in target))
      throw new InputError(`target is ${quote(target)}; expected a GPUCommandEncoder or a GPUComputePassEncoder`);
    checkObject("options", options);
    const { count } = options;
    if (!Number.isInteger(count) || count < 0) throw new InputError(`count is ${quote(count)}; expected a whole number of points`);
    const { rows, buffers, outputs } = this.readBuffers(options);
    const plan = this.planFor({ ...options, outputs, contextPer: rows.context && rows.context.stride > 0 ? "point" : "batch" });
    if (count === 0) return;

    const limits = { ...this.limits(), multiplyAddsPerSubmit: Infinity };
    const route = { to: "device", outer: rows, sharesBuffers: sharesBuffers(buffers) } as const;
    const variant = route.sharesBuffers ? this.trials.plain : this.trials.pickCompiled(plan, count);
    const capacity = capacityOf(plan, limits, route, variant);
    const pass = "dispatchWorkgroups" in target ? target : target.beginComputePass({ label: this.label });
    try {
      for (let first = 0; first < count; first += capacity.points) {
        const chunk = scheduleChunk(plan, first, Math.min(capacity.points, count - first), capacity, limits, route, variant);
        this.makeEncodeRoom(chunk);
        const resources = { ...this.shared(), scratch: this.encodeScratch, constants: this.encodeConstants, outer: buffers };
        for (const { steps } of chunk.submissions) encodeSteps(pass, steps, resources);
      }
    } finally {
      if (pass !== target) pass.end();
    }
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
    if (!Number.isInteger(count) || count < 0) throw new InputError(`count is ${quote(count)}; expected a whole number of points`);
    if (count === 0) return;
    const plan = this.planFor({ contextPer: "batch", ...options });
    const limits = { ...this.limits(), multiplyAddsPerSubmit: Infinity };
    const strideOf = (name: OuterName): number => (name === "context" && options.contextPer !== "point" ? 0 : this.widthOf(name));
    const rows = Object.fromEntries(
      (["points", "context", "value", "divergence", "diagonal"] as const).map((name) => [name, { offset: 0, stride: strideOf(name) }]),
    );
    const route = { to: "device", outer: rows, sharesBuffers: false } as const;
    await this.watch.guard(this.trials.prepare(plan, count));
    const variant = this.trials.pickCompiled(plan, count);
    const capacity = capacityOf(plan, limits, route, variant);
    const chunk = scheduleChunk(plan, 0, Math.min(capacity.points, count), capacity, limits, route, variant);
    try {
      const make = (): void => {
        this.makeEncodeRoom(chunk);
        const bindings = chunk.submissions.flatMap(({ steps }) => steps.flatMap((step) => Object.values(step.bindings)));
        for (const binding of bindings) if (binding.kind === "matrix") this.matrices.get(binding.matrix, binding.layout);
      };
      await this.watch.guard(checked(this.device, this.label, make));
    } catch (error) {
      this.encodeScratch.forget();
      throw error;
    }
  }

  /**
   * Tries on the device, for about `count` points, which kernels run a plan the fastest, and has evaluate and encode use
   * them from then on; the store remembers it. Without it, evaluate starts a trial by itself, in the background, where a
   * plan has cost more time than a trial would. Name what decides the plan, as for {@link VectorField.reserve}.
   *
   * Takes as long as the driver compiles some ten kernels: on software adapters, which are slow at unrolled ones, a minute and more.
   *
   * @returns the variants, the fastest first; the one that was fixed alone, where `kernels` fixes one.
   * @throws InputError, PlanError, LimitError, GpuError, DeviceLostError.
   */
  async tune(count: number, options: ReserveOptions = {}): Promise<readonly Trial[]> {
    this.checkUsable();
    checkObject("options", options);
    if (!Number.isInteger(count) || count < 1)
      throw new InputError(`count is ${quote(count)}; expected a whole number of points, at least 1`);
    return this.watch.guard(this.trials.tune(this.planFor({ contextPer: "batch", ...options }), count, options.contextPer !== "point"));
  }

  /** What evaluate would choose for these options, and why; where a gate follows the last layer, say `contextPer` as the call will be. */
  explain(options: PlanOptions = {}): PlanExplanation {
    return explainPlan(this.network, options);
  }

  /** Frees the field's buffers; the device stays the caller's. Later calls reject. */
  destroy(): void {
    this.destroyed = true;
    for (const buffers of [this.matrices, this.scratch, this.constants, this.readback, this.encodeScratch, this.encodeConstants])
      buffers.destroy();
  }

  /** Scratch of a chunk for encode; where that and what other plans left exceed the budget together, the latter goes. */
  private makeEncodeRoom({ scratch }: Chunk): void {
    if (this.encodeScratch.bytesWith(scratch) > this.memoryBudget) this.encodeScratch.forget();
    this.encodeScratch.reserve(scratch);
  }

  private checkUsable(): void {
    this.watch.check();
    if (this.destroyed) throw new DeldotError("the field was destroyed; make a new one with VectorField.create");
  }

  private planFor(options: PlanOptions): Plan {
    readPlanOptions(options);
    const { outputs, method, tangentsAtOnce, probes, seed, probesPer, contextPer, step } = options;
    const key = JSON.stringify([outputs, method, tangentsAtOnce, probes, seed, probesPer, contextPer, step]);
    return this.cached(key, () => makePlan(this.network, options));
  }

  private cached(key: string, make: () => Plan): Plan {
    let plan = this.plans.get(key);
    if (!plan) {
      plan = make();
      if (this.plans.size >= 64) this.plans.clear();
      this.plans.set(key, plan);
    }
    return plan;
  }

  private limits(): Omit<ScheduleLimits, "multiplyAddsPerSubmit"> {
    const { maxStorageBufferBindingSize, maxBufferSize, minStorageBufferOffsetAlignment } = this.device.limits;
    return { maxStorageBufferBindingSize, maxBufferSize, minStorageBufferOffsetAlignment, memoryBudget: this.memoryBudget };
  }

  private shared() {
    const { device, pipelines, matrices, constants, scratch, readback, turns, watch, pace, label } = this;
    return { device, pipelines, matrices, constants, scratch, readback, turns, watch, pace, label, checkUsable: () => this.checkUsable() };
  }

  private widthOf(name: OuterName): number {
    const { stateSize, contextSize } = this.network;
    return name === "context" ? contextSize : name === "divergence" ? 1 : stateSize;
  }

  /** The caller's buffers of encode, checked for usage and size. */
  private readBuffers(options: EncodeOptions): {
    rows: Partial<Record<OuterName, OuterRows>>;
    buffers: Partial<Record<OuterName, GPUBuffer>>;
    outputs: Output[];
  } {
    const rows: Partial<Record<OuterName, OuterRows>> = {};
    const buffers: Partial<Record<OuterName, GPUBuffer>> = {};
    const add = (name: OuterName, given: BufferRows): void => {
      if (typeof given !== "object" || given === null)
        throw new InputError(`${name} is ${quote(given)}; expected a GPUBuffer or { buffer, offset, stride }`);
      const { buffer, offset = 0, stride = this.widthOf(name) } = "buffer" in given ? given : { buffer: given };
      checkRows(name, buffer, offset, stride, this.widthOf(name), options.count);
      rows[name] = { offset, stride };
      buffers[name] = buffer;
    };
    if (options.points === undefined) throw new InputError("points is missing; expected a GPUBuffer or { buffer, offset, stride }");
    add("points", options.points);
    this.addContext(options, add);
    const outputs = (["value", "divergence", "diagonal"] as const).filter((name) => options[name] !== undefined);
    if (outputs.length === 0) throw new InputError("no output buffer was given; expected at least one of value, divergence, diagonal");
    for (const name of outputs) add(name, options[name]!);
    return { rows, buffers, outputs };
  }

  private addContext({ context, count }: EncodeOptions, add: (name: OuterName, given: BufferRows) => void): void {
    const isBuffer = (given: unknown): given is BufferRows =>
      typeof given === "object" && given !== null && ("buffer" in given ? !ArrayBuffer.isView(given) : "usage" in given);
    if (isBuffer(context)) {
      if (this.network.contextSize === 0) throw new InputError("context is a buffer; the network takes none");
      add("context", context);
      return;
    }
    const numbers = ArrayBuffer.isView(context) ? Array.from(context as ArrayLike<number>) : (context as number | readonly number[] | null);
    const read = readContext(numbers, this.network.contextSize, 1);
    if (!read) return;
    if (!Array.from(read.data).every((value) => Number.isFinite(Math.fround(value))))
      throw new InputError(`context is [${Array.from(read.data).join(", ")}]; expected finite numbers`);
    const buffer = this.encodeConstants.get("context", Float32Array.from(read.data), USAGE.STORAGE);
    if (count > 0) add("context", { buffer, stride: 0 });
  }
}

/** One dispatch may not read a buffer and write it, nor write one twice. */
function sharesBuffers(buffers: Partial<Record<OuterName, GPUBuffer>>): boolean {
  const all = Object.values(buffers);
  return new Set(all).size < all.length;
}

function checkObject(name: string, given: unknown): void {
  if (typeof given !== "object" || given === null) throw new InputError(`${name} is ${quote(given)}; expected an object`);
}

/** @throws InputError for a bad option; the signal's reason where it is aborted already. */
function startRun({ onProgress, signal }: RunOptions): void {
  if (onProgress !== undefined && typeof onProgress !== "function")
    throw new InputError(`onProgress is ${quote(onProgress)}; expected a function`);
  if (signal !== undefined && typeof signal?.throwIfAborted !== "function")
    throw new InputError(`signal is ${quote(signal)}; expected an AbortSignal`);
  signal?.throwIfAborted();
}

function allocate(name: string, shape: readonly [number, number]): Float32Array {
  try {
    return new Float32Array(shape[0] * shape[1]);
  } catch (error) {
    throw new LimitError(
      `${name} has ${shape[0]} rows of ${shape[1]} numbers, more than one Float32Array can hold; expected fewer points at once`,
      { cause: error },
    );
  }
}

/** Columns [from, from + columns) of each point's J, given as [rows, d, columns], to their places in [.., d, d]. */
function setStrip(
  jacobian: Float32Array,
  strip: Float32Array,
  first: number,
  rows: number,
  d: number,
  from: number,
  columns: number,
): void {
  if (columns === d) return jacobian.set(strip, first * d * d);
  for (let row = 0; row < rows * d; row++) jacobian.set(strip.subarray(row * columns, (row + 1) * columns), (first * d + row) * d + from);
}

function checkRows(name: string, buffer: GPUBuffer, offset: number, stride: number, width: number, count: number): void {
  if (typeof buffer !== "object" || buffer === null || typeof buffer.usage !== "number")
    throw new InputError(`${name} is ${quote(buffer)}; expected a GPUBuffer or { buffer, offset, stride }`);
  if (!(buffer.usage & USAGE.STORAGE))
    throw new InputError(`the buffer of ${name} has usage 0x${buffer.usage.toString(16)}; expected GPUBufferUsage.STORAGE among it`);
  if (!Number.isInteger(offset) || offset < 0 || offset % 4 !== 0)
    throw new InputError(`the offset of ${name} is ${quote(offset)} bytes; expected a multiple of 4`);
  const oneForAll = name === "context" && stride === 0;
  if (!Number.isInteger(stride) || (stride < width && !oneForAll))
    throw new InputError(`the stride of ${name} is ${quote(stride)} floats; expected at least ${width}`);
  const needed = count === 0 ? 0 : offset + 4 * ((oneForAll ? 0 : (count - 1) * stride) + width);
  if (buffer.size < needed)
    throw new InputError(`the buffer of ${name} has ${buffer.size} bytes; ${count} rows of ${width} floats need ${needed}`);
}
