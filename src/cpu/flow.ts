import {
  baseLogProb,
  readFlowInputs,
  readFlowTimes,
  readSolveOptions,
  readNoise,
  readTimes,
  type FlowSettings,
  type FlowTimes,
  type LogProb,
  type SampleOptions,
  type Samples,
  type SolveOptions,
  type SolveSettings,
  type Transport,
  type TransportOptions,
} from "../flowOptions.js";
import { ownOptions, startRun, type BatchInput, type RunOptions } from "../inputs.js";
import type { Network } from "../model/network.js";
import { control, stagesOf, tableaus, timeOf, type Status, type Tableau } from "../ode/tableaus.js";
import { graphOf } from "../plan/graph.js";
import { Reference } from "./reference.js";
import { runInSlices, type PointwiseWork } from "./slices.js";

/** What {@link logProbReference} is asked for: what `Flow.create` and `flow.logProb` are, together. */
export interface FlowReferenceOptions extends FlowTimes, SolveOptions {}

/** What {@link transportReference} is asked for. */
export interface TransportReferenceOptions extends FlowTimes, Omit<TransportOptions, "times"> {}

/** rtol and atol where none is given. */
const DEFAULT_TOLERANCE = 1e-9;

/** A step of less than this part of the whole, and of t, is too small for float64. */
const LEAST_STEP = 2 ** -49;

/**
 * log p of points [..., d] at `dataAt` in nats, in float64 on the CPU: log p(x) = log p_noise(z) - ∫ ∇·f dt along the path from z to x
 * (Chen et al., Neural Ordinary Differential Equations, 2018), by the same solvers and the same step control as `flow.logProb`, whose
 * twin this is; rtol and atol are 1e-9 where none is given. A point whose path ends early has NaN and a status that says so. Nothing
 * happens between two points but onProgress and the signal's abort.
 *
 * @throws InputError, PlanError for a bad argument; the signal's reason on abort.
 */
export function logProbReference(network: Network, points: BatchInput, given: FlowReferenceOptions = {}): LogProb<Float64Array> {
  const options = ownOptions(given);
  const { noiseAt, dataAt, base } = readFlowTimes(network, options);
  const paths = new ReferencePaths(network, points, { ...options, from: dataAt, to: noiseAt });
  runAtOnce(paths, options);
  return logProbOf(paths.result, base, network);
}

/**
 * Where points [..., d] of one time get to at another, and ∫ ∇·f dt along their paths, in float64 on the CPU, as `flow.transport` does
 * it; rtol and atol are 1e-9 where none is given.
 *
 * @throws InputError, PlanError for a bad argument; the signal's reason on abort.
 */
export function transportReference(network: Network, points: BatchInput, given: TransportReferenceOptions = {}): Transport<Float64Array> {
  const options = ownOptions(given);
  const paths = new ReferencePaths(network, points, options);
  runAtOnce(paths, options);
  return paths.result;
}

/** A flow on the CPU in float64: as exact as {@link logProbReference}, with progress, and without keeping the thread. */
export class ReferenceFlow {
  private readonly settings: FlowSettings;

  /** @throws ModelError where it is no network; InputError for a bad option. */
  constructor(
    /** The network as it was given. */
    readonly network: Network,
    options: FlowTimes = {},
  ) {
    graphOf(network);
    this.settings = readFlowTimes(network, options);
  }

  /** As {@link Flow.logProb}; rtol and atol are 1e-9 where none is given. */
  async logProb(points: BatchInput, given: SolveOptions = {}): Promise<LogProb<Float64Array>> {
    const { noiseAt, dataAt, base } = this.settings;
    return logProbOf(await this.transport(points, { ...ownOptions(given), from: dataAt, to: noiseAt }), base, this.network);
  }

  /** As {@link Flow.sample}, of the same noise. */
  async sample(count: number, given: SampleOptions = {}): Promise<Samples<Float64Array>> {
    const { noiseAt, dataAt, base } = this.settings;
    const { stateSize: d } = this.network;
    const options = ownOptions(given);
    const noise = readNoise(base, count, d, options);
    const { points, divergenceIntegral, evaluations, status } = await this.transport(noise, { ...options, from: noiseAt, to: dataAt });
    const logProb = baseLogProb(base, noise, d).map((log, point) => log - divergenceIntegral[point]!);
    return { points, logProb, evaluations, status };
  }

  private async transport(points: BatchInput, given: TransportReferenceOptions): Promise<Transport<Float64Array>> {
    const options = ownOptions(given);
    const paths = new ReferencePaths(this.network, points, { ...options, ...this.settings });
    await runInSlices(paths, options, () => undefined);
    return paths.result;
  }
}

function logProbOf(transport: Transport<Float64Array>, base: FlowSettings["base"], network: Network): LogProb<Float64Array> {
  const { points: noise, divergenceIntegral, ...rest } = transport;
  const logProb = baseLogProb(base, noise, network.stateSize).map((log, point) => log + divergenceIntegral[point]!);
  return { logProb, base: noise, ...rest };
}

function runAtOnce(paths: ReferencePaths, options: RunOptions): void {
  startRun(options);
  for (let point = 0; point < paths.count; point++) {
    paths.evaluate(point);
    options.onProgress?.({ done: point + 1, total: paths.count });
    options.signal?.throwIfAborted();
  }
}

/** The paths of all points, one after another. */
class ReferencePaths implements PointwiseWork {
  readonly count: number;
  readonly result: Transport<Float64Array> & { readonly status: Status[] };
  private readonly settings: SolveSettings;
  private readonly field: FieldOfTime;
  private readonly begin: Float64Array;
  private readonly from: number;
  private readonly to: number;

  /** @throws InputError, PlanError for a bad argument. */
  constructor(network: Network, points: BatchInput, options: TransportReferenceOptions) {
    const { noiseAt, dataAt, timeColumn } = readFlowTimes(network, options);
    const { from = noiseAt, to = dataAt, rtol = DEFAULT_TOLERANCE, atol = DEFAULT_TOLERANCE } = options;
    readTimes(from, to, undefined);
    [this.from, this.to] = [from, to];
    this.settings = readSolveOptions({ ...options, rtol, atol });
    const { count, shape, points: begin, context } = readFlowInputs(network, timeColumn, points, options.condition);
    const { stateSize: d } = network;
    this.field = new FieldOfTime(network, count, context, timeColumn, this.settings.divergence);
    this.begin = begin;
    this.count = count;
    this.result = {
      points: new Float64Array(count * d),
      divergenceIntegral: new Float64Array(count),
      evaluations: new Uint32Array(count),
      status: [],
      shape,
    };
  }

  evaluate(point: number): void {
    const { settings, field, from, to, result } = this;
    const { stateSize: d } = field;
    const path = new Path(field, point, this.begin.subarray(point * d, (point + 1) * d), settings, from, to);
    const status = settings.steps === null ? path.adapt() : path.go(settings.steps);
    const end = status === "done" ? path.z : new Float64Array(d + 1).fill(NaN);
    result.points.set(end.subarray(0, d), point * d);
    result.divergenceIntegral[point] = end[d]!;
    result.evaluations[point] = path.evaluations;
    result.status.push(status);
  }
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

  /** The slopes of x and of ∫ ∇·f dt, [d + 1]. */
  at(point: number, x: Float64Array, time: number): Float64Array {
    const { stateSize: d, timeColumn } = this;
    this.points.set(x.subarray(0, d), point * d);
    if (timeColumn !== null) this.contexts[point * this.contextSize + timeColumn] = time;
    this.reference.evaluate(point);
    const { value, divergence } = this.reference.resultAt(point);
    const slope = new Float64Array(d + 1);
    slope.set(value);
    slope[d] = divergence;
    return slope;
  }
}

/** The way of one point. */
class Path {
  /** x and ∫ ∇·f dt. */
  z: Float64Array;
  evaluations = 0;

  constructor(
    private readonly field: FieldOfTime,
    private readonly point: number,
    begin: Float64Array,
    private readonly settings: SolveSettings,
    private readonly from: number,
    private readonly to: number,
  ) {
    this.z = new Float64Array(field.stateSize + 1);
    this.z.set(begin);
  }

  /** Steps of one size. */
  go(steps: number): Status {
    const { from, to } = this;
    const tableau = tableaus[this.settings.solver];
    const h = (to - from) / steps;
    for (let step = 0; step < steps; step++) {
      const stages = [this.slope(this.z, timeOf(step / steps, from, to))];
      while (stages.length < stagesOf(tableau))
        stages.push(this.stage(tableau, stages, timeOf((step + tableau.c[stages.length]!) / steps, from, to), h));
      this.z = moved(this.z, h, tableau.b, stages);
    }
    return this.z.every(Number.isFinite) ? "done" : "not finite";
  }

  /** Steps of sizes that the error decides, by the rule of shaders/ode_control.wgsl. */
  adapt(): Status {
    const { from, to } = this;
    const { solver, maxSteps } = this.settings;
    const tableau = tableaus[solver];
    const { order, b, error } = tableau;
    const exponent = 1 / order;
    let t = from;
    let first = this.slope(this.z, from);
    if (!first.every(Number.isFinite)) return "not finite";
    if (from === to) return "done";
    let h = this.firstStep(first);
    // As if the error before had been the tolerance.
    let before = 1;
    for (let attempts = 1; ; attempts++) {
      const stages = [first];
      while (stages.length < b.length) stages.push(this.stage(tableau, stages, t + tableau.c[stages.length]! * h, h));
      const last = stages.at(-1)!;
      const next = moved(this.z, h, b, stages);
      const size = this.errorOf(next, moved(new Float64Array(next.length), h, error!, stages));
      const finite = next.every(Number.isFinite) && last.every(Number.isFinite) && Number.isFinite(size);
      const err = Math.max(size, 1e-10);
      let factor: number = control.least;
      if (finite && err <= 1) {
        // After a step that was tried anew, h does not grow at once: the error before says so.
        const wanted = control.safety * err ** (-control.ofError * exponent) * before ** (control.ofErrorBefore * exponent);
        factor = Math.min(Math.max(wanted, control.least), control.most);
        this.z = next;
        if (Math.abs(h) >= Math.abs(to - t)) return "done";
        first = last;
        before = Math.max(err, 1e-4);
        t += h;
      } else if (finite) factor = Math.min(Math.max(control.safety * err ** -exponent, control.least), 1);
      h *= factor;
      if (Math.abs(h) >= Math.abs(to - t)) h = to - t;
      else if (factor < 1 && Math.abs(h) < LEAST_STEP * Math.max(Math.abs(to - from), Math.abs(t)))
        return finite ? "step too small" : "not finite";
      if (attempts >= maxSteps) return "out of steps";
    }
  }

  private slope(z: Float64Array, time: number): Float64Array {
    this.evaluations++;
    return this.field.at(this.point, z, time);
  }

  private stage({ a }: Tableau, stages: readonly Float64Array[], time: number, h: number): Float64Array {
    return this.slope(moved(this.z, h, a[stages.length]!, stages), time);
  }

  /** Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I, 1993, section II.4. */
  private firstStep(slope: Float64Array): number {
    const { rtol, atol } = this.settings;
    const whole = this.to - this.from;
    let [size, speed] = [0, 0];
    for (const [k, z] of this.z.entries()) {
      const tolerance = atol + rtol * Math.abs(z);
      size += (z / tolerance) ** 2;
      speed += (slope[k]! / tolerance) ** 2;
    }
    const isKnown = size > 1e-10 && speed > 1e-10 && Number.isFinite(size) && Number.isFinite(speed);
    const h = isKnown ? (0.01 * Math.sqrt(size)) / Math.sqrt(speed) : 0.001 * Math.abs(whole);
    return Math.sign(whole) * Math.min(Math.max(h, 4 * LEAST_STEP * Math.max(Math.abs(whole), Math.abs(this.from))), Math.abs(whole));
  }

  /** The error of a step as a multiple of the tolerance. */
  private errorOf(next: Float64Array, error: Float64Array): number {
    const { rtol, atol } = this.settings;
    let sum = 0;
    for (const [k, z] of this.z.entries()) sum += (error[k]! / (atol + rtol * Math.max(Math.abs(z), Math.abs(next[k]!)))) ** 2;
    return Math.sqrt(sum / next.length);
  }
}

/** z + h Σ_j weights[j] stages[j]. */
function moved(z: Float64Array, h: number, weights: readonly number[], stages: readonly Float64Array[]): Float64Array {
  return z.map((value, k) => {
    let sum = 0;
    for (const [j, stage] of stages.entries()) sum += weights[j]! * stage[k]!;
    return value + h * sum;
  });
}
