/** The gradients of a field beside those of the float64 reference, tensor by tensor. */
import { parameterLayout, vjpReference, type Field, type Method, type Network, type Vjp, type Wrt } from "../../index.js";
import { jumpsTo } from "./kink.js";
import { formatTable, largestOf, round } from "./output.js";
import { withProgress } from "./progress.js";
import type { WeightedSamples } from "./samples.js";

export interface ComparedGradients {
  readonly method: string;
  readonly relative: number;
  readonly tensors: readonly ComparedTensor[];
  readonly within: boolean;
  /** Points that are out of tolerance for a good reason; the tensors are without them. */
  readonly atKinks: number;
}

interface ComparedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Of the reference. */
  readonly largest: number;
  readonly error: number;
}

interface Settings {
  readonly method: Method | "auto";
  readonly signal: AbortSignal;
  /** The tolerance, as a part of a tensor's largest entry. */
  readonly relative: number;
}

const absoluteTolerance = 1e-7;

/** For all that the network has gradients for. */
export async function compareGradients(
  field: Field,
  reference: Field,
  samples: WeightedSamples,
  settings: Settings,
): Promise<ComparedGradients> {
  const { network } = field;
  const compare = async (cotangents: WeightedSamples["cotangents"]): Promise<Pair> => {
    const gradientOf = (of: Field, task: string, method: Method | "auto"): Promise<AnyVjp> =>
      withProgress(task, (onProgress) =>
        of.vjp(samples.points, cotangents, {
          context: samples.context,
          wrt: allOf(network),
          method,
          onProgress,
          signal: settings.signal,
        }),
      );
    return {
      actual: await gradientOf(field, "gradient", settings.method),
      truth: await gradientOf(reference, "reference of the gradient", "auto"),
    };
  };
  let pair = await compare(samples.cotangents);
  const kinks = findKinks(network, samples, pair, settings.relative);
  if (kinks.length > 0) {
    const value = samples.cotangents.value.slice();
    const divergence = samples.cotangents.divergence.slice();
    for (const point of kinks) {
      value.fill(0, point * network.stateSize, (point + 1) * network.stateSize);
      divergence[point] = 0;
    }
    pair = await compare({ value, divergence });
  }
  const { actual, truth } = pair;
  const count = samples.points.length / network.stateSize;
  const compared = (name: string, shape: readonly number[], one: Numbers, other: Numbers): ComparedTensor => ({
    name,
    shape,
    largest: largestOf(other),
    error: largestOf(other.map((value, index) => value - one[index]!)),
  });
  const tensors = [
    compared("points", [count, network.stateSize], actual.points!, truth.points!),
    ...(truth.context ? [compared("context", [count, network.contextSize], actual.context!, truth.context)] : []),
    ...parameterLayout(network).tensors.map(({ name, shape }) =>
      compared(name, shape, actual.parameters![name]!.data, truth.parameters![name]!.data),
    ),
  ];
  const { relative } = settings;
  const within = tensors.every(({ largest, error }) => error <= toleranceOf(largest, relative));
  return { method: actual.method, relative, tensors, within, atKinks: kinks.length };
}

type Numbers = Float32Array | Float64Array;
type AnyVjp = Vjp<Wrt, never, Numbers>;

interface Pair {
  readonly actual: AnyVjp;
  readonly truth: AnyVjp;
}

function allOf({ contextSize }: Network): Wrt[] {
  return contextSize > 0 ? ["points", "context", "parameters"] : ["points", "parameters"];
}

function toleranceOf(largest: number, relative: number): number {
  return relative * largest + absoluteTolerance;
}

/**
 * The points whose own gradients are out of tolerance, but right on the other side of a kink: f has none at such a point, and in
 * float32 it may lie there. None where another point is wrong, since then no search is worth its time.
 */
function findKinks(
  network: Network,
  { points, context, cotangents }: WeightedSamples,
  { actual, truth }: Pair,
  relative: number,
): number[] {
  const { stateSize, contextSize } = network;
  const rowOf = (numbers: Numbers, width: number, point: number): Numbers => numbers.subarray(point * width, (point + 1) * width);
  const tolerances = [
    ...Array.from({ length: stateSize }, () => toleranceOf(largestOf(truth.points!), relative)),
    ...Array.from({ length: contextSize }, () => toleranceOf(largestOf(truth.context!), relative)),
  ];
  const found: number[] = [];
  for (let point = 0; point < cotangents.divergence.length; point++) {
    const joined = (ofPoints: Numbers, ofContext: Numbers | undefined): Float64Array =>
      Float64Array.of(...rowOf(ofPoints, stateSize, point), ...(ofContext ? rowOf(ofContext, contextSize, point) : []));
    const given = joined(actual.points!, actual.context);
    const expected = joined(truth.points!, truth.context);
    const wrong = given.findIndex((value, i) => !(Math.abs(value - expected[i]!) <= tolerances[i]!));
    if (wrong < 0) continue;
    const reference = (here: Float64Array): number => {
      const x = here.subarray(0, stateSize);
      const own = { value: rowOf(cotangents.value, stateSize, point), divergence: cotangents.divergence[point]! };
      const wrt = wrong < stateSize ? "points" : "context";
      const options = { context: contextSize > 0 ? here.subarray(stateSize) : undefined, wrt: [wrt] as const };
      const gradient: AnyVjp = vjpReference(network, x, own, options);
      return gradient[wrt]![wrong < stateSize ? wrong : wrong - stateSize]!;
    };
    if (!jumpsTo(given[wrong]!, reference, joined(points, context), tolerances[wrong]!, point)) return [];
    found.push(point);
  }
  return found;
}

/** @param hard why the tolerance is a wide one. */
export function* describeGradients(compared: ComparedGradients, hard: string | null): Generator<string, void, undefined> {
  const { method, relative, tensors, within, atKinks } = compared;
  yield `\ngradients, method ${method}\n`;
  if (atKinks > 0) yield `without ${atKinks} of the points, at a kink and right on its other side\n`;
  yield formatTable([
    ["tensor", "shape", "largest entry", "largest error", "error / entry"],
    ...tensors.map(({ name, shape, largest, error }) => [
      name,
      `[${shape.join(", ")}]`,
      round(largest),
      error.toExponential(2),
      error === 0 ? "0" : (error / largest).toExponential(2),
    ]),
  ]);
  const why = hard === null ? "" : `, as the network has ${hard}`;
  yield `tolerance ${relative.toExponential()} of the largest entry + ${absoluteTolerance.toExponential()}${why}: ${within ? "within" : "OUT OF TOLERANCE"}\n`;
}
