import { bilinearMatrix, transpose, type Problem } from "./networks.js";
import type { Call, Peer } from "./peer.js";

/** No library and no GPU: loops over Float64Arrays. */
export const plain: Peer = {
  name: "plain JavaScript, float64",
  ways: [
    { name: "tangents by hand", points: "host" },
    { name: "bilinear formula by hand", points: "host" },
  ],
  prepare: (way, problem) => Promise.resolve(way.startsWith("tangents") ? tangents(problem) : bilinear(problem)),
};

function tangents(problem: Problem): Call {
  const { d, h, count } = problem;
  const primal = makePrimal(problem);
  const { s1, s2, w2 } = primal;
  const columns = Float64Array.from(transpose(problem.w1, h, d));
  const w3 = Float64Array.from(problem.w3);
  const tangent = new Float64Array(h);
  return async () => {
    const result = new Float64Array(count);
    for (let point = 0; point < count; point++) {
      primal.at(point);
      let sum = 0;
      for (let i = 0; i < d; i++) {
        for (let j = 0; j < h; j++) tangent[j] = s1[j]! * columns[i * h + j]!;
        for (let unit = 0; unit < h; unit++) sum += w3[i * h + unit]! * s2[unit]! * dot(w2, unit * h, tangent, 0, h);
      }
      result[point] = sum;
    }
    return [result];
  };
}

function bilinear(problem: Problem): Call {
  const { h, count } = problem;
  const primal = makePrimal(problem);
  const matrix = bilinearMatrix(problem);
  return async () => {
    const result = new Float64Array(count);
    for (let point = 0; point < count; point++) {
      primal.at(point);
      let sum = 0;
      for (let unit = 0; unit < h; unit++) sum += primal.s2[unit]! * dot(matrix, unit * h, primal.s1, 0, h);
      result[point] = sum;
    }
    return [result];
  };
}

/** The slopes of both hidden layers at one point after the other. */
function makePrimal({ d, h, ...problem }: Problem) {
  const [w1, w2, b1, b2, points] = [problem.w1, problem.w2, problem.b1, problem.b2, problem.points].map((numbers) =>
    Float64Array.from(numbers),
  ) as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];
  const a1 = new Float64Array(h);
  const s1 = new Float64Array(h);
  const s2 = new Float64Array(h);
  const at = (point: number): void => {
    for (let unit = 0; unit < h; unit++) {
      const a = Math.tanh(b1[unit]! + dot(w1, unit * d, points, point * d, d));
      a1[unit] = a;
      s1[unit] = 1 - a * a;
    }
    for (let unit = 0; unit < h; unit++) {
      const a = Math.tanh(b2[unit]! + dot(w2, unit * h, a1, 0, h));
      s2[unit] = 1 - a * a;
    }
  };
  return { s1, s2, w2, at };
}

/** Four sums side by side: a single one waits for its own last addition each time, and takes about twice as long. */
function dot(a: Float64Array, aFirst: number, b: Float64Array, bFirst: number, length: number): number {
  let [sum0, sum1, sum2, sum3] = [0, 0, 0, 0];
  let k = 0;
  for (; k + 3 < length; k += 4) {
    sum0 += a[aFirst + k]! * b[bFirst + k]!;
    sum1 += a[aFirst + k + 1]! * b[bFirst + k + 1]!;
    sum2 += a[aFirst + k + 2]! * b[bFirst + k + 2]!;
    sum3 += a[aFirst + k + 3]! * b[bFirst + k + 3]!;
  }
  for (; k < length; k++) sum0 += a[aFirst + k]! * b[bFirst + k]!;
  return sum0 + sum1 + (sum2 + sum3);
}
