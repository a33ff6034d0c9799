import { mixBits } from "../../../src/mixBits.js";
import { makeProblem, type Case, type Numbers, type Problem } from "../networks.js";

export type StepLoss = "flow matching" | "score matching";

/** Of Adam; all else as PyTorch has it. */
export const RATE = 1e-3;
export const SEED = 1;
/** Added to the points of score matching: what its standard deviation is. */
export const NOISE = 0.1;

/** Points are data to draw from; for flow matching the first matrix has one more column, for time. */
export interface StepProblem extends Problem {
  readonly loss: StepLoss;
  readonly steps: number;
  /** One for each step. */
  readonly batches: readonly StepBatch[];
}

export interface StepBatch {
  /** What f is evaluated at: [count, d], or [count, d + 1] with time. */
  readonly points: Numbers;
  /** What flow matching wants of it: [count, d]. */
  readonly wanted: Numbers | null;
}

export function makeStepProblem(chosen: Case, loss: StepLoss): StepProblem {
  const { steps = 1 } = chosen;
  const problem = makeProblem(chosen);
  const { d, h } = chosen;
  const matching = loss === "flow matching";
  // Time's column is a small one.
  const w1 = matching
    ? Float32Array.from({ length: h * (d + 1) }, (_, i) =>
        i % (d + 1) === d ? 0.1 : problem.w1[Math.floor(i / (d + 1)) * d + (i % (d + 1))]!,
      )
    : problem.w1;
  return { ...problem, w1, loss, steps, batches: Array.from({ length: steps }, (_, step) => draw(problem, matching, step)) };
}

/** As deldot's trainer draws it on the device: by a counter, so that everyone can have the same. */
function draw({ d, count, points: data }: Problem, matching: boolean, step: number): StepBatch {
  const uniform = (row: number, place: number): number =>
    ((mixBits(mixBits(mixBits(mixBits(SEED) + step) + row) + place) >>> 8) + 0.5) / 2 ** 24;
  const normal = (row: number, place: number): number =>
    Math.sqrt(-2 * Math.log(uniform(row, place))) * Math.cos(2 * Math.PI * uniform(row, place + 1));
  const inputs = matching ? d + 1 : d;
  const points = new Float32Array(count * inputs);
  const wanted = matching ? new Float32Array(count * d) : null;
  for (let row = 0; row < count; row++) {
    const drawn = Math.min(Math.floor(count * uniform(row, 0)), count - 1);
    const t = uniform(row, 1);
    for (let k = 0; k < d; k++) {
      const x = data[drawn * d + k]!;
      const z = normal(row, 2 + 2 * k);
      points[row * inputs + k] = matching ? (1 - t) * z + t * x : x + NOISE * z;
      if (wanted) wanted[row * d + k] = x - z;
    }
    if (matching) points[row * inputs + d] = t;
  }
  return { points, wanted };
}
