/** The same picture by each method: its time, its price, its error, and the mistaken answer beside them. */
import { evaluateReference, explainPlan, type EvaluateOptions, type Method, type Network } from "deldot";
import type { Engine, Numbers } from "../engines/engine.js";
import { gridPoints, type Plane, type View } from "../base/plane.js";

export interface Contender {
  readonly name: string;
  readonly about: string;
  readonly options: EvaluateOptions;
  readonly method: Method | "ones";
}

export const contenders: readonly Contender[] = [
  { name: "tangent", about: "all basis tangents in parallel", options: { method: "tangent" }, method: "tangent" },
  { name: "cyclic", about: "the trace from its narrowest start", options: { method: "cyclic" }, method: "cyclic" },
  { name: "jacobian", about: "the whole Jacobian, its diagonal summed", options: { method: "jacobian" }, method: "jacobian" },
  { name: "coordinate", about: "d passes, one column each", options: { method: "coordinate" }, method: "coordinate" },
  { name: "difference", about: "central differences", options: { method: "difference" }, method: "difference" },
  { name: "hutchinson, 1 probe", about: "an estimate", options: { method: "hutchinson", probes: 1, seed: 1 }, method: "hutchinson" },
  { name: "hutchinson, 64 probes", about: "an estimate", options: { method: "hutchinson", probes: 64, seed: 1 }, method: "hutchinson" },
  { name: "ones", about: "the mistake: sums of whole columns of the Jacobian", options: {}, method: "ones" },
];

export interface Compared {
  readonly contender: Contender;
  /** Numbers of the picture, row by row from the top; null where the method does not apply. */
  readonly picture: ArrayLike<number> | null;
  /** The least of some runs, compilation not among them; NaN for the mistake. */
  readonly milliseconds: number;
  /** Multiply-adds of divergence over those of f alone, as the plan counts them; NaN for the mistake. */
  readonly predicted: number;
  /** |error| over Σ|∂f_i/∂x_i|, against float64 at some points of the grid. */
  readonly worst: number;
  readonly mean: number;
}

/** Points a method is compared at in float64. */
const SAMPLE = 200;
const ROUNDS = 3;
/** A power of two: float32 loses nothing by adding it to numbers around 1. */
const ONES_STEP = 2 ** -6;

/** Σ_i Σ_j ∂f_i/∂x_j: what summing the gradient of Σ f_i over its components gives. */
export async function onesAnswer(engine: Engine, points: Float32Array, context: readonly number[], d: number): Promise<Float64Array> {
  // Along (1, ..., 1) by central differences of Σ f_i: the same number from two evaluations, in any number of dimensions.
  const options = { outputs: ["value" as const], context: context.length > 0 ? context : null };
  const moved = async (step: number): Promise<Numbers> =>
    engine.evaluate(
      points.map((x) => x + step),
      options,
    );
  const [before, after] = [await moved(-ONES_STEP), await moved(ONES_STEP)];
  return Float64Array.from({ length: points.length / d }, (_, point) => {
    let sum = 0;
    for (let i = 0; i < d; i++) sum += after.value![point * d + i]! - before.value![point * d + i]!;
    return sum / (2 * ONES_STEP);
  });
}

/** Runs the contenders one after another on a grid of `columns` x `columns`; `onCompared` hears of each. */
export async function compare(
  engine: Engine,
  network: Network,
  shot: { readonly plane: Plane; readonly view: View; readonly context: readonly number[] },
  columns: number,
  signal: AbortSignal,
  onCompared: (compared: Compared) => void,
): Promise<void> {
  const context = shot.context.length > 0 ? shot.context : null;
  const points = gridPoints(shot.plane, shot.view, { columns, rows: columns }, 1);
  const d = network.stateSize;
  const every = Math.max(1, Math.floor((columns * columns) / SAMPLE));
  const sampled = Array.from({ length: Math.floor((columns * columns) / every) }, (_, index) => index * every);
  const sample = Float32Array.from(sampled.flatMap((index) => Array.from(points.subarray(index * d, (index + 1) * d))));
  const truth = evaluateReference(network, sample, { context, method: "tangent", outputs: ["divergence", "diagonal"] });
  const scale = sampled.map(
    (_, point) => truth.diagonal!.subarray(point * d, (point + 1) * d).reduce((sum, entry) => sum + Math.abs(entry), 0) || 1,
  );
  for (const contender of contenders) {
    signal.throwIfAborted();
    const { method, options } = contender;
    const isOnes = method === "ones";
    // All but the method: naming one that the network cannot take is an error.
    const { method: _, ...others } = options;
    const { candidates } = explainPlan(network, { ...others, outputs: ["divergence"] });
    const able = candidates.filter((known) => known.method === method && known.delivers);
    const predicted = able.length > 0 ? Math.min(...able.map(({ ratio }) => ratio)) : NaN;
    if (!isOnes && able.length === 0) {
      onCompared({ contender, picture: null, milliseconds: NaN, predicted, worst: NaN, mean: NaN });
      continue;
    }
    const answer = async (): Promise<ArrayLike<number>> => {
      if (isOnes) return onesAnswer(engine, points, shot.context, d);
      return (await engine.evaluate(points, { ...options, outputs: ["divergence"], context })).divergence!;
    };
    // Unmeasured: the first run also compiles. At all points, since what is compiled may depend on their number.
    const picture = await answer();
    signal.throwIfAborted();
    let least = Infinity;
    // The mistake is made in another way here than by those who make it: its time would say nothing.
    const rounds = isOnes ? 0 : ROUNDS;
    for (let round = 0; round < rounds && (round === 0 || least < 300); round++) {
      const begun = performance.now();
      await answer();
      least = Math.min(least, performance.now() - begun);
      signal.throwIfAborted();
    }
    const errors = sampled.map((index, at) => Math.abs(picture[index]! - truth.divergence![at]!) / scale[at]!);
    onCompared({
      contender,
      picture,
      milliseconds: isOnes ? NaN : least,
      predicted,
      worst: Math.max(...errors),
      mean: errors.reduce((sum, error) => sum + error, 0) / errors.length,
    });
  }
}
