import { InputError } from "./errors.js";
import type { Field } from "./evaluation.js";
import {
  baseLogProb,
  readFlowInputs,
  readNoise,
  readSolveOptions,
  readTimes,
  TOLERANCE,
  type FlowInputs,
  type FlowSettings,
  type LogProb,
  type SampleOptions,
  type Samples,
  type Score,
  type SolveOptions,
  type SolveSettings,
  type Transport,
  type TransportOptions,
} from "./flowOptions.js";
import { ownOptions, type BatchInput, type RunOptions } from "./inputs.js";
import type { Network } from "./model/network.js";
import type { Integrated } from "./ode/integrate.js";
import type { Status } from "./ode/tableaus.js";
import { allocate } from "./rows.js";

/**
 * What flows have in common, whatever integrates their paths: {@link Flow} on a GPU, {@link FieldFlow} by any field.
 *
 * Every method rejects with a DeldotError as the field's do. A point whose path ends early (out of steps, out of the field's precision) has
 * NaN and a status that says so; the others go on.
 */
export abstract class AnyFlow<A extends Float32Array | Float64Array = Float32Array | Float64Array> {
  /** @internal */
  protected constructor(
    private readonly ofField: Pick<Field, "network" | "precision">,
    private readonly times: FlowSettings,
    /** Of the points that come. */
    private readonly type: new (length: number) => A,
  ) {}

  /** The network of the field. */
  get network(): Network {
    return this.ofField.network;
  }

  /**
   * log p of points [..., d] at `dataAt`, in nats: integrates back to `noiseAt`.
   * @throws InputError, PlanError for a bad argument; what the field rejects with; the signal's reason on abort.
   */
  async logProb(points: BatchInput, given: SolveOptions = {}): Promise<LogProb<A>> {
    const { noiseAt, dataAt, base } = this.times;
    const { inputs, settings, options } = this.read(points, given);
    const { points: noise, carried, evaluations, status } = await this.solve(inputs, dataAt, noiseAt, settings, options, null);
    const logProb = baseLogProb(base, noise, this.network.stateSize).map((log, point) => log + carried[point]!);
    return { logProb, base: noise, evaluations, status, shape: inputs.shape };
  }

  /**
   * Points of the flow's own distribution, [count, d] at `dataAt`, and log p of each out of the same pass. Equal seeds are equal noise
   * everywhere. @throws as {@link AnyFlow.logProb} does.
   */
  async sample(count: number, given: SampleOptions = {}): Promise<Samples<A>> {
    const { noiseAt, dataAt, base } = this.times;
    const { stateSize: d } = this.network;
    const noise = readNoise(base, count, d, ownOptions(given));
    const { inputs, settings, options } = this.read(noise, given);
    const { points, carried, evaluations, status } = await this.solve(inputs, noiseAt, dataAt, settings, options, null);
    const logProb = baseLogProb(base, noise, d).map((log, point) => log - carried[point]!);
    return { points, logProb, evaluations, status };
  }

  /**
   * Where points [..., d] of one time get to at another, and ∫ ∇·f dt along their paths, for any field.
   * @throws as {@link AnyFlow.logProb} does.
   */
  async transport(points: BatchInput, given: TransportOptions = {}): Promise<Transport<A>> {
    const { from = this.times.noiseAt, to = this.times.dataAt, times } = ownOptions(given);
    const stops = readTimes(from, to, times);
    const { inputs, settings, options } = this.read(points, given);
    const { count, shape } = inputs;
    const { stateSize: d } = this.network;
    const path = times && allocate("path", stops.length - 1, count * d, this.type);
    const divergenceIntegral = new Float64Array(count);
    const evaluations = new Uint32Array(count);
    const status: Status[] = Array.from({ length: count }, () => "done");
    let now: FlowInputs = inputs;
    let last = new this.type(0);
    let begin = from;
    for (const [index, end] of stops.entries()) {
      const part = await this.solve(now, begin, end, settings, options, null);
      for (let point = 0; point < count; point++) {
        divergenceIntegral[point]! += part.carried[point]!;
        evaluations[point]! += part.evaluations[point]!;
        if (status[point] === "done") status[point] = part.status[point]!;
      }
      if (path && index < stops.length - 1) path.set(part.points, index * count * d);
      last = part.points;
      now = { ...inputs, points: new Float64Array(last) };
      begin = end;
    }
    return { points: last, divergenceIntegral, evaluations, status, shape, ...(path && { path }) };
  }

  /**
   * ∇ log p of points [..., d] at `dataAt`: integrates back to `noiseAt`, and from there x and s together by ṡ = -Jᵀ s - ∇(∇·f), whose right
   * side is a gradient of f and its divergence. Only for the base "normal", whose own score is -z.
   * @throws as {@link AnyFlow.logProb} does.
   */
  async score(points: BatchInput, given: SolveOptions = {}): Promise<Score<A>> {
    const { noiseAt, dataAt, base } = this.times;
    if (base !== "normal") throw new InputError('the score is known for the base "normal" alone');
    const { inputs, settings, options } = this.read(points, given);
    const { points: noise, status } = await this.solve(inputs, dataAt, noiseAt, settings, options, null);
    const ofNoise = Float64Array.from(noise, (z) => -z);
    const back = await this.solve({ ...inputs, points: new Float64Array(noise) }, noiseAt, dataAt, settings, options, ofNoise);
    return { score: back.carried, status: status.map((each, i) => (each === "done" ? back.status[i]! : each)), shape: inputs.shape };
  }

  /**
   * Integrates the paths of all points.
   * @param score ∇ log p at the beginning, [count, d], where that is carried; null: ∫ ∇·f dt is.
   * @internal
   */
  protected abstract solve(
    inputs: FlowInputs,
    from: number,
    to: number,
    settings: SolveSettings,
    options: RunOptions,
    score: Float64Array | null,
  ): Promise<Integrated<A>>;

  private read<O extends SolveOptions>(
    points: BatchInput,
    given: O,
  ): { readonly inputs: FlowInputs; readonly settings: SolveSettings; readonly options: O } {
    const options = ownOptions(given);
    const inputs = readFlowInputs(this.network, this.times.timeColumn, points, options.condition);
    return { inputs, settings: readSolveOptions(options, TOLERANCE[this.ofField.precision]), options };
  }
}
