import {
  baseLogProb,
  readFlowInputs,
  readFlowTimes,
  readSolveOptions,
  readTimes,
  TOLERANCE,
  type FlowTimes,
  type LogProb,
  type SolveOptions,
  type SolveSettings,
  type Transport,
  type TransportOptions,
} from "../flowOptions.js";
import { ownOptions, startRun, type BatchInput } from "../inputs.js";
import type { Network } from "../model/network.js";
import { Paths } from "../ode/paths.js";
import type { Status } from "../ode/tableaus.js";
import { Reference } from "./reference.js";

/** What {@link logProbReference} is asked for: what `Flow.create` and `flow.logProb` are, together. */
export interface FlowReferenceOptions extends FlowTimes, SolveOptions {}

/** What {@link transportReference} is asked for. */
export interface TransportReferenceOptions extends FlowTimes, Omit<TransportOptions, "times"> {}

/**
 * log p of points [..., d] at `dataAt` in nats, in float64 on the CPU: log p(x) = log p_noise(z) - ∫ ∇·f dt along the path from z to x
 * (Chen et al., Neural Ordinary Differential Equations, 2018), by the same solvers and the same step control as `flow.logProb`, whose
 * twin this is; rtol and atol are 1e-9 where none is given. A point whose path ends early has NaN and a status that says so. Nothing
 * happens between two points but onProgress and the signal's abort; {@link FieldFlow} over {@link ReferenceField} does not keep the thread.
 *
 * @throws InputError, PlanError for a bad argument; the signal's reason on abort.
 */
export function logProbReference(network: Network, points: BatchInput, given: FlowReferenceOptions = {}): LogProb<Float64Array> {
  const options = ownOptions(given);
  const { noiseAt, dataAt, base } = readFlowTimes(network, options);
  const { points: noise, divergenceIntegral, ...rest } = integrate(network, points, { ...options, from: dataAt, to: noiseAt });
  const logProb = baseLogProb(base, noise, network.stateSize).map((log, point) => log + divergenceIntegral[point]!);
  return { logProb, base: noise, ...rest };
}

/**
 * Where points [..., d] of one time get to at another, and ∫ ∇·f dt along their paths, in float64 on the CPU, as `flow.transport` does
 * it; rtol and atol are 1e-9 where none is given.
 *
 * @throws InputError, PlanError for a bad argument; the signal's reason on abort.
 */
export function transportReference(network: Network, points: BatchInput, given: TransportReferenceOptions = {}): Transport<Float64Array> {
  return integrate(network, points, ownOptions(given));
}

/** The paths of all points, one after another. */
function integrate(network: Network, points: BatchInput, options: TransportReferenceOptions): Transport<Float64Array> {
  const { noiseAt, dataAt, timeColumn } = readFlowTimes(network, options);
  const { from = noiseAt, to = dataAt } = options;
  readTimes(from, to, undefined);
  const settings = readSolveOptions(options, TOLERANCE.float64);
  const { count, shape, points: begin, context } = readFlowInputs(network, timeColumn, points, options.condition);
  const { stateSize: d } = network;
  const field = new FieldOfTime(network, count, context, timeColumn, settings.divergence);
  startRun(options);
  const [carried, evaluations, status] = [new Float64Array(count), new Uint32Array(count), [] as Status[]];
  const result = { points: new Float64Array(count * d), carried, evaluations, status };
  const x = new Float64Array(d);
  const time = new Float64Array(1);
  for (let point = 0; point < count; point++) {
    const own = begin.subarray(point * d, (point + 1) * d);
    const path = new Paths({ from, to, stepping: settings, precision: "float64" }, 1, d, 1, own, null);
    while (path.rows > 0) {
      path.ask(x, null, time);
      const { value, divergence } = field.at(point, x, time[0]!);
      path.take(value, Float64Array.of(divergence), 1);
    }
    path.into(result, point);
    options.onProgress?.({ done: point + 1, total: count });
    options.signal?.throwIfAborted();
  }
  return { points: result.points, divergenceIntegral: carried, evaluations, status, shape };
}

/** (f, ∇·f) at one point after another, at any time. */
class FieldOfTime {
  readonly stateSize: number;
  private readonly contextSize: number;
  /** [count, d] and [count, c]: the reference reads a point's anew whenever it is evaluated. */
  private readonly points: Float64Array;
  private readonly contexts: Float64Array;
  private readonly reference: Reference;

  constructor(
    network: Network,
    count: number,
    context: Float64Array | null,
    private readonly timeColumn: number | null,
    divergence: SolveSettings["divergence"],
  ) {
    const { stateSize: d, contextSize: c } = network;
    this.stateSize = d;
    this.contextSize = c;
    this.points = new Float64Array(count * d);
    this.contexts = new Float64Array(count * c);
    if (context?.length === c) for (let point = 0; point < count; point++) this.contexts.set(context, point * c);
    else if (context) this.contexts.set(context);
    const estimator = divergence === "exact" ? {} : divergence;
    this.reference = new Reference(network, this.points, { ...estimator, context: c > 0 ? this.contexts : null });
  }

  /** f [d], and ∇·f, until the point is evaluated again. */
  at(point: number, x: Float64Array, time: number): { value: Float64Array; divergence: number } {
    const { stateSize: d, timeColumn } = this;
    this.points.set(x, point * d);
    if (timeColumn !== null) this.contexts[point * this.contextSize + timeColumn] = time;
    this.reference.evaluate(point);
    return this.reference.resultAt(point);
  }
}
