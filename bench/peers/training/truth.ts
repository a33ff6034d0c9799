import { parametersOf, type Numbers, type Problem } from "../networks.js";
import type { Truth } from "../truth.js";

/** The loss and its gradient of {@link differentiate}, as the answers have them. */
export function computeTraining(problem: Problem): Truth {
  const { loss, scale, gradients } = differentiate(problem, null);
  return [
    { name: "loss", values: Float64Array.of(loss), scale },
    ...["∇W1", "∇b1", "∇W2", "∇b2", "∇W3", "∇b3"].map((name, index) => ({
      name,
      values: gradients[index]!,
      scale: largest(gradients[index]!),
    })),
  ];
}

/**
 * The loss mean_b(½|f(x_b)|² + ∇·f(x_b)) of score matching (Hyvärinen, 2005) and its gradient, in float64. With N = (W1 W3)ᵀ
 * and s_l = tanh'(z_l), the divergence is s2ᵀ (W2 ∘ N) s1; its gradient is taken by hand. Where `wanted` says what f should be,
 * [count, d], the loss is the mean over points and components of (f - wanted)² instead, and points may have more than d columns.
 *
 * @returns what the loss would be without cancelling, too.
 */
export function differentiate(problem: Problem, wanted: Numbers | null): { loss: number; scale: number; gradients: Numbers6 } {
  const { d, h, count, points } = problem;
  const inputs = points.length / count;
  const [w1, b1, w2, b2, w3, b3] = parametersOf(problem).map(({ data }) => Float64Array.from(data)) as Numbers6;
  const gradients = parametersOf(problem).map(({ data }) => new Float64Array(data.length)) as Numbers6;
  const [dw1, db1, dw2, db2, dw3, db3] = gradients;

  /** Of the matrices that the divergence has. */
  const rows = wanted ? 0 : h;
  const matrix = new Float64Array(h * h); // N
  for (let row = 0; row < rows; row++)
    for (let i = 0; i < d; i++)
      for (let column = 0; column < h; column++) matrix[row * h + column]! += w3[i * h + row]! * w1[column * d + i]!;

  /** Σ_b s2 s1ᵀ / count */
  const slopes = new Float64Array(h * h);
  const [a1, s1, a2, s2] = [1, 2, 3, 4].map(() => new Float64Array(h)) as [Float64Array, Float64Array, Float64Array, Float64Array];
  const off = new Float64Array(d);
  /** Of half the squares of a point. */
  const weight = wanted ? 2 / (count * d) : 1 / count;
  let loss = 0;
  let scale = 0;
  for (let point = 0; point < count; point++) {
    const x = points.subarray(point * inputs, (point + 1) * inputs);
    for (let unit = 0; unit < h; unit++) {
      a1[unit] = Math.tanh(b1[unit]! + dot(w1, unit * inputs, x));
      s1[unit] = 1 - a1[unit]! ** 2;
    }
    for (let unit = 0; unit < h; unit++) {
      a2[unit] = Math.tanh(b2[unit]! + dot(w2, unit * h, a1));
      s2[unit] = 1 - a2[unit]! ** 2;
    }
    for (let i = 0; i < d; i++) off[i] = b3[i]! + dot(w3, i * h, a2) - (wanted?.[point * d + i] ?? 0);

    /** The gradients of the divergence by s1 and s2, and of half the square by a2. */
    const [byS1, byS2, byA2, byA1] = [1, 2, 3, 4].map(() => new Float64Array(h)) as [
      Float64Array,
      Float64Array,
      Float64Array,
      Float64Array,
    ];
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < h; column++) {
        const entry = w2[row * h + column]! * matrix[row * h + column]!;
        byS2[row]! += entry * s1[column]!;
        byS1[column]! += entry * s2[row]!;
        slopes[row * h + column]! += (s2[row]! * s1[column]!) / count;
      }
    const divergence = dot(byS2, 0, s2);
    const squares = (weight * dot(off, 0, off)) / 2;
    loss += squares + divergence / count;
    scale += squares + Math.abs(divergence) / count;

    for (let i = 0; i < d; i++) {
      db3[i]! += weight * off[i]!;
      for (let unit = 0; unit < h; unit++) {
        dw3[i * h + unit]! += weight * off[i]! * a2[unit]!;
        byA2[unit]! += weight * off[i]! * w3[i * h + unit]!;
      }
    }
    for (let unit = 0; unit < h; unit++) {
      const byZ2 = s2[unit]! * (byA2[unit]! - (2 / count) * a2[unit]! * byS2[unit]!);
      db2[unit]! += byZ2;
      for (let j = 0; j < h; j++) {
        dw2[unit * h + j]! += byZ2 * a1[j]!;
        byA1[j]! += byZ2 * w2[unit * h + j]!;
      }
    }
    for (let unit = 0; unit < h; unit++) {
      const byZ1 = s1[unit]! * (byA1[unit]! - (2 / count) * a1[unit]! * byS1[unit]!);
      db1[unit]! += byZ1;
      for (let i = 0; i < inputs; i++) dw1[unit * inputs + i]! += byZ1 * x[i]!;
    }
  }
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < h; column++) {
      const slope = slopes[row * h + column]!;
      const both = slope * w2[row * h + column]!;
      dw2[row * h + column]! += slope * matrix[row * h + column]!;
      for (let i = 0; i < d; i++) {
        dw1[column * d + i]! += both * w3[i * h + row]!;
        dw3[i * h + row]! += both * w1[column * d + i]!;
      }
    }

  return { loss, scale, gradients };
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
