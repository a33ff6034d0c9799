import { internalsOf, VectorField } from "./field.js";
import { InputError, quote } from "./errors.js";
import { Turns } from "./gpu/run.js";
import {
  baseLogProb,
  readFlowInputs,
  readFlowTimes,
  readSolveOptions,
  sampleBase,
  type FlowInputs,
  type FlowOptions,
  type FlowSettings,
  type SolveOptions,
} from "./flowOptions.js";
import { checkCount, checkObject, ownOptions, startRun, type BatchInput } from "./inputs.js";
import type { Network } from "./model/network.js";
import { integrate, type Integrated } from "./ode/integrate.js";
import { sharesContext } from "./ode/steps.js";
import { tableaus, type Status } from "./ode/tableaus.js";
import { runParametersOf } from "./plan/options.js";

/** What {@link Flow.logProb} gives. */
export interface LogProb<A = Float32Array> {
  /** log p(x), [...shape], in nats; NaN where the path did not get to its end. */
  readonly logProb: Float64Array;
  /** Where the points come from, [...shape, d]. */
  readonly base: A;
  /** How often f was evaluated for each point, [...shape]. */
  readonly evaluations: Uint32Array;
  /** How the path of each point ended. */
  readonly status: readonly Status[];
  /** The leading batch shape of the points. */
  readonly shape: readonly number[];
}

/** What {@link Flow.transport} gives. */
export interface Transport<A = Float32Array> {
  /** Where the points have got to, [...shape, d]; NaN where the path did not get to its end. */
  readonly points: A;
  /** ∫ ∇·f dt along the path, [...shape]. */
  readonly divergenceIntegral: Float64Array;
  readonly evaluations: Uint32Array;
  readonly status: readonly Status[];
  readonly shape: readonly number[];
  /** With `times`, the points at each of them, [T, ...shape, d]. */
  readonly path?: A;
}

/** What {@link Flow.transport} is asked for. */
export interface TransportOptions extends SolveOptions {
  /** The time that the points have. Default noiseAt. */
  readonly from?: number | undefined;
  /** The time that they get to. Default dataAt. */
  readonly to?: number | undefined;
  /** Times on the way, in its order, at which the points are wanted too. */
  readonly times?: readonly number[] | undefined;
}

/** What {@link Flow.sample} is asked for. */
export interface SampleOptions extends SolveOptions {
  /** Of the noise; the same seed gives the same noise on every device. Default 0. */
  readonly seed?: number | undefined;
}

/**
 * A field as a flow: its paths carry noise to data, and by ∇·f the density along (the instantaneous change of variables, Chen et al.,
 * Neural Ordinary Differential Equations, 2018): log p(x) = log p_noise(z) - ∫ ∇·f dt along the path from z to x, exact but for the
 * solver's tolerance and float32, since the divergence is.
 *
 * Every method rejects with a DeldotError as VectorField's do. A point whose path ends early (out of steps, out of float32) has NaN and a
 * status that says so; the others go on. No answer depends on the other points of a call.
 */
export class Flow {
  private readonly turns = new Turns();

  private constructor(
    private readonly field: VectorField,
    private readonly settings: FlowSettings,
  ) {}

  /**
   * Compiles the kernels of a field on the caller's device, which is never destroyed.
   * @throws InputError for a bad argument, GpuError where a kernel does not compile, DeviceLostError.
   */
  static async create(device: GPUDevice, network: Network, options: FlowOptions = {}): Promise<Flow> {
    const settings = readFlowTimes(network, options);
    return new Flow(await VectorField.create(device, network, options), settings);
  }

  get network(): Network {
    return this.field.network;
  }

  /**
   * log p of points [..., d] at `dataAt`, in nats: integrates back to `noiseAt`.
   * @throws InputError, PlanError for a bad argument; LimitError, GpuError, DeviceLostError; the signal's reason on abort.
   */
  async logProb(points: BatchInput, given: SolveOptions = {}): Promise<LogProb> {
    const options = ownOptions(given);
    const { noiseAt, dataAt, base } = this.settings;
    const inputs = this.inputs(points, options);
    const { points: noise, divergenceIntegral, evaluations, status } = await this.solve(inputs, dataAt, noiseAt, options);
    const logProb = baseLogProb(base, noise, this.network.stateSize).map((log, point) => log + divergenceIntegral[point]!);
    return { logProb, base: noise, evaluations, status, shape: inputs.shape };
  }

  /**
   * Points of the flow's own distribution, [count, d] at `dataAt`, and log p of each out of the same pass.
   * @throws as {@link Flow.logProb} does.
   */
  async sample(
    count: number,
    given: SampleOptions = {},
  ): Promise<{ readonly points: Float32Array; readonly logProb: Float64Array; readonly status: readonly Status[] }> {
    const options = ownOptions(given);
    checkObject("options", options);
    checkCount(count, 0);
    const { seed = 0 } = options;
    if (!Number.isInteger(seed)) throw new InputError(`seed is ${quote(seed)}; expected a whole number`);
    const { noiseAt, dataAt, base } = this.settings;
    const { stateSize: d } = this.network;
    const noise = sampleBase(base, count, d, seed);
    const inputs = this.inputs(noise, options);
    const { points, divergenceIntegral, status } = await this.solve(inputs, noiseAt, dataAt, options);
    const logProb = baseLogProb(base, noise, d).map((log, point) => log - divergenceIntegral[point]!);
    return { points, logProb, status };
  }

  /**
   * Where points [..., d] of one time get to at another, and ∫ ∇·f dt along their paths, for any field.
   * @throws as {@link Flow.logProb} does.
   */
  async transport(points: BatchInput, given: TransportOptions = {}): Promise<Transport> {
    const options = ownOptions(given);
    const { from = this.settings.noiseAt, to = this.settings.dataAt, times } = options;
    const stops = readTimes(from, to, times);
    const inputs = this.inputs(points, options);
    const { count, shape } = inputs;
    const { stateSize: d } = this.network;
    const path = times && new Float32Array(times.length * count * d);
    const divergenceIntegral = new Float64Array(count);
    const evaluations = new Uint32Array(count);
    const status: Status[] = Array.from({ length: count }, () => "done");
    let now: FlowInputs = inputs;
    let last = Float32Array.from(inputs.points);
    let begin = from;
    for (const [index, end] of stops.entries()) {
      const part = await this.solve(now, begin, end, options);
      for (let point = 0; point < count; point++) {
        divergenceIntegral[point]! += part.divergenceIntegral[point]!;
        evaluations[point]! += part.evaluations[point]!;
        if (status[point] === "done") status[point] = part.status[point]!;
      }
      if (path && index < times.length) path.set(part.points, index * count * d);
      last = part.points;
      now = { ...inputs, points: Float64Array.from(last) };
      begin = end;
    }
    return { points: last, divergenceIntegral, evaluations, status, shape, ...(path && { path }) };
  }

  /** Frees the flow's buffers; the device stays the caller's. Later calls reject. */
  destroy(): void {
    this.field.destroy();
  }

  private inputs(points: BatchInput, options: SolveOptions): FlowInputs {
    checkObject("options", options);
    return readFlowInputs(this.network, this.settings.timeColumn, points, options.condition);
  }

  /** One call after another: they share scratch from first step to last. */
  private async solve(inputs: FlowInputs, from: number, to: number, options: SolveOptions): Promise<Integrated> {
    const { solver, rtol, atol, steps, maxSteps, divergence } = readSolveOptions(options);
    startRun(options);
    const { shared, gate, planFor, pick } = internalsOf(this.field);
    shared().checkUsable();
    const { network } = this.field;
    const { stateSize, contextSize } = network;
    const sharesCondition = inputs.context === null || inputs.context.length === contextSize;
    const { timeColumn } = this.settings;
    const like = { contextSize, timeColumn, steps, sharesCondition };
    const planOptions = {
      outputs: ["value", "divergence"] as const,
      contextPer: sharesContext(like) ? ("batch" as const) : ("point" as const),
      ...(divergence !== "exact" && { method: divergence.method, probes: divergence.probes }),
    };
    const plan = planFor(planOptions);
    const parameters = runParametersOf(divergence === "exact" ? {} : { seed: divergence.seed });
    const endTurn = await this.turns.take();
    try {
      return await gate.pass(async () => {
        const variant = await pick(plan, inputs.count);
        const job = {
          ...like,
          plan,
          parameters,
          variant,
          stateSize,
          from,
          to,
          tableau: tableaus[solver],
          rtol,
          atol,
          mostAttempts: maxSteps,
        };
        return integrate(job, inputs, shared(), options);
      });
    } finally {
      endTurn();
    }
  }
}

/** The ends of the parts of a path. @throws InputError. */
function readTimes(from: unknown, to: unknown, times: readonly unknown[] | undefined): readonly number[] {
  const all = [from, ...(times ?? []), to];
  if (
    (times !== undefined && !Array.isArray(times)) ||
    !all.every((time) => typeof time === "number" && Number.isFinite(Math.fround(time)))
  )
    throw new InputError(`the times from, times and to are ${quote(all)}; expected finite numbers`);
  const numbers = all as number[];
  const forward = numbers.at(-1)! >= numbers[0]!;
  if (numbers.some((time, i) => i > 0 && (forward ? time < numbers[i - 1]! : time > numbers[i - 1]!)))
    throw new InputError(`the times from, times and to are ${numbers.join(", ")}; expected them in the order of the way`);
  return numbers.slice(1);
}
