import type { Truth } from "../truth.js";
import { STEPS, type FlowProblem } from "./problem.js";

/** Of the points: all of them would take minutes. */
const SAMPLE = 256;
/** In nats: several times what rounding gives, and a fraction of what rk4 in 10 steps is off the path by. */
const TOLERANCE = 1e-4;
/** Steps enough for the path itself: what they are off it by is less than float32 rounds. */
const CONVERGED = 160;

/**
 * log p(x) = log N(z; 0, I) - ∫ ∇·f dt in float64, in nats, by rk4 along the path from x at t = 1 to z at t = 0: in as many steps as
 * everyone's, and the path itself.
 */
export function computeDensity(problem: FlowProblem): Truth {
  const slope = makeSlope(problem);
  const tensor = (name: string, steps: number) => ({
    name,
    values: Float64Array.from({ length: Math.min(SAMPLE, problem.count) }, (_, point) => logDensity(problem, slope, point, steps)),
    length: problem.count,
    scale: 1,
    tolerance: TOLERANCE,
  });
  return [tensor("rk4", STEPS), tensor("path", CONVERGED)];
}

/** Of the state [x, ∫∇·f dt]: [f, ∇·f]. */
type Slope = (state: Float64Array, t: number) => Float64Array;

function logDensity({ d, points }: FlowProblem, slope: Slope, point: number, steps: number): number {
  const step = -1 / steps;
  let state = Float64Array.of(...points.subarray(point * d, (point + 1) * d), 0);
  const along = (k: Float64Array, size: number): Float64Array => state.map((value, i) => value + size * k[i]!);
  for (let index = 0; index < steps; index++) {
    const t = 1 + index * step;
    const k1 = slope(state, t);
    const k2 = slope(along(k1, step / 2), t + step / 2);
    const k3 = slope(along(k2, step / 2), t + step / 2);
    const k4 = slope(along(k3, step), t + step);
    state = state.map((value, i) => value + (step / 6) * (k1[i]! + 2 * k2[i]! + 2 * k3[i]! + k4[i]!));
  }
  let log = state[d]! - (d / 2) * Math.log(2 * Math.PI);
  for (let i = 0; i < d; i++) log -= state[i]! ** 2 / 2;
  return log;
}

/** One tangent per coordinate, carried from layer to layer. */
function makeSlope(problem: FlowProblem): Slope {
  const { d, h } = problem;
  const [w1, b1, u, w2, b2, w3, b3] = [problem.w1, problem.b1, problem.u, problem.w2, problem.b2, problem.w3, problem.b3].map((numbers) =>
    Float64Array.from(numbers),
  ) as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];
  const [a1, s1, a2, s2, tangent] = [1, 2, 3, 4, 5].map(() => new Float64Array(h)) as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const activate = (a: Float64Array, s: Float64Array, unit: number, z: number): void => {
    const sigmoid = 1 / (1 + Math.exp(-z));
    a[unit] = z * sigmoid;
    s[unit] = sigmoid * (1 + z * (1 - sigmoid));
  };
  return (state, t) => {
    for (let unit = 0; unit < h; unit++) activate(a1, s1, unit, b1[unit]! + t * u[unit]! + dot(w1, unit * d, state, d));
    for (let unit = 0; unit < h; unit++) activate(a2, s2, unit, b2[unit]! + dot(w2, unit * h, a1, h));
    const result = new Float64Array(d + 1);
    for (let i = 0; i < d; i++) {
      result[i] = b3[i]! + dot(w3, i * h, a2, h);
      for (let j = 0; j < h; j++) tangent[j] = s1[j]! * w1[j * d + i]!;
      for (let unit = 0; unit < h; unit++) result[d]! += w3[i * h + unit]! * s2[unit]! * dot(w2, unit * h, tangent, h);
    }
    return result;
  };
}

function dot(matrix: Float64Array, first: number, vector: Float64Array, length: number): number {
  let sum = 0;
  for (let k = 0; k < length; k++) sum += matrix[first + k]! * vector[k]!;
  return sum;
}
