import type { Problem } from "./networks.js";
import type { Answer } from "./peer.js";

/** What answers are held against. */
export type Truth = readonly TrueTensor[];

export interface TrueTensor {
  readonly name: string;
  readonly values: Float64Array;
  /** How many numbers an answer has, where the values are of the first of them alone. */
  readonly length?: number;
  /** What errors are stated beside. */
  readonly scale: number;
  /** The largest error that still counts; {@link TOLERANCE} unless given. */
  readonly tolerance?: number;
}

/**
 * Forward mode as the textbook has it, in float64: one tangent per coordinate, carried from layer to layer. A divergence
 * cancels, so its scale is the largest Σ_i |∂f_i/∂x_i| of all points.
 */
export function computeDivergence({ d, h, count, w1, b1, w2, b2, w3, points }: Problem): Truth {
  const values = new Float64Array(count);
  let scale = 0;
  const a1 = new Float64Array(h);
  const s2 = new Float64Array(h);
  const tangent = new Float64Array(h);
  for (let point = 0; point < count; point++) {
    for (let unit = 0; unit < h; unit++) {
      let z = b1[unit]!;
      for (let i = 0; i < d; i++) z += w1[unit * d + i]! * points[point * d + i]!;
      a1[unit] = Math.tanh(z);
    }
    for (let unit = 0; unit < h; unit++) {
      let z = b2[unit]!;
      for (let j = 0; j < h; j++) z += w2[unit * h + j]! * a1[j]!;
      s2[unit] = 1 - Math.tanh(z) ** 2;
    }
    let sum = 0;
    let sumOfMagnitudes = 0;
    for (let i = 0; i < d; i++) {
      for (let j = 0; j < h; j++) tangent[j] = (1 - a1[j]! ** 2) * w1[j * d + i]!;
      let entry = 0;
      for (let unit = 0; unit < h; unit++) {
        let carried = 0;
        for (let j = 0; j < h; j++) carried += w2[unit * h + j]! * tangent[j]!;
        entry += w3[i * h + unit]! * s2[unit]! * carried;
      }
      sum += entry;
      sumOfMagnitudes += Math.abs(entry);
    }
    values[point] = sum;
    scale = Math.max(scale, sumOfMagnitudes);
  }
  return [{ name: "divergence", values, scale }];
}

/** How an answer stands beside the truth. */
export interface Verdict {
  /** The largest error of a tensor over its scale; NaN where there is no number to compare. */
  readonly error: number;
  /** Why the answer does not count; null where it does. */
  readonly wrong: string | null;
}

/** float32 gives 1e-6 or so; beyond this it is not rounding. */
const TOLERANCE = 1e-3;

export function judge(answer: Answer, truth: Truth): Verdict {
  const errors: number[] = [];
  const named = new Map<string, string[]>();
  for (const [index, tensor] of truth.entries()) {
    const { error, wrong } = judgeTensor(answer[index] ?? [], tensor);
    errors.push(error);
    if (wrong) named.set(wrong, [...(named.get(wrong) ?? []), tensor.name]);
  }
  const wrongs = [...named].map(([wrong, names]) => `${names.join(", ")} ${wrong}`);
  return { error: Math.max(...errors), wrong: wrongs.join("; ") || null };
}

/** All that is known of an answer whose numbers are not. */
export function withoutValues({ name, values, length = values.length }: TrueTensor): TrueTensor {
  return { name, values: new Float64Array(), length, scale: 1 };
}

function judgeTensor(answer: ArrayLike<number>, { values, scale, length = values.length, tolerance = TOLERANCE }: TrueTensor): Verdict {
  if (answer.length !== length) return { error: NaN, wrong: `${answer.length} numbers instead of ${length}` };
  let error = 0;
  let zeros = 0;
  for (let index = 0; index < length; index++) {
    const value = answer[index]!;
    if (!Number.isFinite(value)) return { error: NaN, wrong: `${value} at ${index}` };
    if (value === 0) zeros++;
    if (index < values.length) error = Math.max(error, Math.abs(value - values[index]!) / scale);
  }
  // Zeros may come close where a divergence cancels, and are still no answer.
  if (zeros === length) return { error, wrong: "all zeros" };
  return { error, wrong: error <= tolerance ? null : "off the truth" };
}
