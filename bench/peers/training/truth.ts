import { parametersOf, type Problem } from "../networks.js";
import type { Truth } from "../truth.js";

/**
 * The loss mean_b(½|f(x_b)|² + ∇·f(x_b)) of score matching (Hyvärinen, 2005) and its gradient, in float64. With N = (W1 W3)ᵀ
 * and s_l = tanh'(z_l), the divergence is s2ᵀ (W2 ∘ N) s1; its gradient is taken by hand.
 */
export function computeTraining(problem: Problem): Truth {
  const { d, h, count } = problem;
  const [w1, b1, w2, b2, w3, b3] = parametersOf(problem).map(({ data }) => Float64Array.from(data)) as Numbers6;
  const [dw1, db1, dw2, db2, dw3, db3] = parametersOf(problem).map(({ data }) => new Float64Array(data.length)) as Numbers6;

  const matrix = new Float64Array(h * h); // N
  for (let row = 0; row < h; row++)
    for (let i = 0; i < d; i++)
      for (let column = 0; column < h; column++) matrix[row * h + column]! += w3[i * h + row]! * w1[column * d + i]!;

  /** Σ_b s2 s1ᵀ / count */
  const slopes = new Float64Array(h * h);
  const [a1, s1, a2, s2] = [1, 2, 3, 4].map(() => new Float64Array(h)) as [Float64Array, Float64Array, Float64Array, Float64Array];
  const value = new Float64Array(d);
  let loss = 0;
  let lossOfMagnitudes = 0;
  for (let point = 0; point < count; point++) {
    const x = problem.points.subarray(point * d, (point + 1) * d);
    for (let unit = 0; unit < h; unit++) {
      a1[unit] = Math.tanh(b1[unit]! + dot(w1, unit * d, x));
      s1[unit] = 1 - a1[unit]! ** 2;
    }
    for (let unit = 0; unit < h; unit++) {
      a2[unit] = Math.tanh(b2[unit]! + dot(w2, unit * h, a1));
      s2[unit] = 1 - a2[unit]! ** 2;
    }
    for (let i = 0; i < d; i++) value[i] = b3[i]! + dot(w3, i * h, a2);

    /** The gradients of the divergence by s1 and s2, and of half the square by a2. */
    const [byS1, byS2, byA2, byA1] = [1, 2, 3, 4].map(() => new Float64Array(h)) as [
      Float64Array,
      Float64Array,
      Float64Array,
      Float64Array,
    ];
    for (let row = 0; row < h; row++)
      for (let column = 0; column < h; column++) {
        const entry = w2[row * h + column]! * matrix[row * h + column]!;
        byS2[row]! += entry * s1[column]!;
        byS1[column]! += entry * s2[row]!;
        slopes[row * h + column]! += (s2[row]! * s1[column]!) / count;
      }
    const divergence = dot(byS2, 0, s2);
    const half = dot(value, 0, value) / 2;
    loss += (half + divergence) / count;
    lossOfMagnitudes += (half + Math.abs(divergence)) / count;

    for (let i = 0; i < d; i++) {
      db3[i]! += value[i]! / count;
      for (let unit = 0; unit < h; unit++) {
        dw3[i * h + unit]! += (value[i]! * a2[unit]!) / count;
        byA2[unit]! += value[i]! * w3[i * h + unit]!;
      }
    }
    for (let unit = 0; unit < h; unit++) {
      const byZ2 = s2[unit]! * (byA2[unit]! - 2 * a2[unit]! * byS2[unit]!);
      db2[unit]! += byZ2 / count;
      for (let j = 0; j < h; j++) {
        dw2[unit * h + j]! += (byZ2 * a1[j]!) / count;
        byA1[j]! += byZ2 * w2[unit * h + j]!;
      }
    }
    for (let unit = 0; unit < h; unit++) {
      const byZ1 = s1[unit]! * (byA1[unit]! - 2 * a1[unit]! * byS1[unit]!);
      db1[unit]! += byZ1 / count;
      for (let i = 0; i < d; i++) dw1[unit * d + i]! += (byZ1 * x[i]!) / count;
    }
  }
  for (let row = 0; row < h; row++)
    for (let column = 0; column < h; column++) {
      const slope = slopes[row * h + column]!;
      const both = slope * w2[row * h + column]!;
      dw2[row * h + column]! += slope * matrix[row * h + column]!;
      for (let i = 0; i < d; i++) {
        dw1[column * d + i]! += both * w3[i * h + row]!;
        dw3[i * h + row]! += both * w1[column * d + i]!;
      }
    }

  const gradients = { "∇W1": dw1, "∇b1": db1, "∇W2": dw2, "∇b2": db2, "∇W3": dw3, "∇b3": db3 };
  return [
    { name: "loss", values: Float64Array.of(loss), scale: lossOfMagnitudes },
    ...Object.entries(gradients).map(([name, values]) => ({ name, values, scale: largest(values) })),
  ];
}

type Numbers6 = [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];

/** Of a vector and as many numbers of a matrix. */
function dot(matrix: Float64Array, first: number, vector: Float64Array | Float32Array): number {
  let sum = 0;
  for (let k = 0; k < vector.length; k++) sum += matrix[first + k]! * vector[k]!;
  return sum;
}

function largest(values: Float64Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}
