/** What a flow is asked for, by one integration or more, whoever makes them. */
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
import type { Integrated } from "./ode/integrate.js";
import type { Status } from "./ode/tableaus.js";
import { allocate } from "./rows.js";

/** Integrates the paths of a flow. */
export interface Integrator<A extends Float32Array | Float64Array> {
  readonly field: Pick<Field, "network" | "precision">;
  readonly times: FlowSettings;
  /** Of the points that come. */
  readonly type: new (length: number) => A;
  /** @param score ∇ log p at the beginning, [count, d], where that is carried; null: ∫ ∇·f dt is. */
  solve(
    inputs: FlowInputs,
    from: number,
    to: number,
    settings: SolveSettings,
    options: RunOptions,
    score: Float64Array | null,
  ): Promise<Integrated<A>>;
}

type Numbers = Float32Array | Float64Array;

export async function logProb<A extends Numbers>(flow: Integrator<A>, points: BatchInput, given: SolveOptions): Promise<LogProb<A>> {
  const { noiseAt, dataAt, base } = flow.times;
  const { inputs, settings, options } = read(flow, points, given);
  const { points: noise, carried, evaluations, status } = await flow.solve(inputs, dataAt, noiseAt, settings, options, null);
  const logs = baseLogProb(base, noise, flow.field.network.stateSize).map((log, point) => log + carried[point]!);
  return { logProb: logs, base: noise, evaluations, status, shape: inputs.shape };
}

export async function sample<A extends Numbers>(flow: Integrator<A>, count: number, given: SampleOptions): Promise<Samples<A>> {
  const { noiseAt, dataAt, base } = flow.times;
  const { stateSize: d } = flow.field.network;
  const noise = readNoise(base, count, d, ownOptions(given));
  const { inputs, settings, options } = read(flow, noise, given);
  const { points, carried, evaluations, status } = await flow.solve(inputs, noiseAt, dataAt, settings, options, null);
  const logs = baseLogProb(base, noise, d).map((log, point) => log - carried[point]!);
  return { points, logProb: logs, evaluations, status };
}

export async function transport<A extends Numbers>(
  flow: Integrator<A>,
  points: BatchInput,
  given: TransportOptions,
): Promise<Transport<A>> {
  const { from = flow.times.noiseAt, to = flow.times.dataAt, times } = ownOptions(given);
  const stops = readTimes(from, to, times);
  const { inputs, settings, options } = read(flow, points, given);
  const { count, shape } = inputs;
  const { stateSize: d } = flow.field.network;
  const path = times && allocate("path", stops.length - 1, count * d, flow.type);
  const divergenceIntegral = new Float64Array(count);
  const evaluations = new Uint32Array(count);
  const status: Status[] = Array.from({ length: count }, () => "done");
  let now: FlowInputs = inputs;
  let last = new flow.type(0);
  let begin = from;
  for (const [index, end] of stops.entries()) {
    const part = await flow.solve(now, begin, end, settings, options, null);
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

export async function score<A extends Numbers>(flow: Integrator<A>, points: BatchInput, given: SolveOptions): Promise<Score<A>> {
  const { noiseAt, dataAt, base } = flow.times;
  if (base !== "normal") throw new InputError('the score is known for the base "normal" alone');
  const { inputs, settings, options } = read(flow, points, given);
  const { points: noise, status } = await flow.solve(inputs, dataAt, noiseAt, settings, options, null);
  const ofNoise = Float64Array.from(noise, (z) => -z);
  const back = await flow.solve({ ...inputs, points: new Float64Array(noise) }, noiseAt, dataAt, settings, options, ofNoise);
  return { score: back.carried, status: status.map((each, i) => (each === "done" ? back.status[i]! : each)), shape: inputs.shape };
}

/** @throws InputError for a bad argument. */
function read<O extends SolveOptions>(
  { field: { network, precision }, times }: Integrator<Numbers>,
  points: BatchInput,
  given: O,
): { inputs: FlowInputs; settings: SolveSettings; options: O } {
  const options = ownOptions(given);
  const inputs = readFlowInputs(network, times.timeColumn, points, options.condition);
  return { inputs, settings: readSolveOptions(options, TOLERANCE[precision]), options };
}
