/** The networks that everyone computes: f(x) = W3 tanh(W2 tanh(W1 x + b1) + b2) + b3, from R^d to R^d. */

/** A network's widths, and how many points it is asked for at once. */
export interface Case {
  readonly name: string;
  readonly d: number;
  readonly h: number;
  readonly count: number;
  /** Of training, in one call. */
  readonly steps?: number;
}

export const divergenceCases: readonly Case[] = [
  { name: "2-64", d: 2, h: 64, count: 65536 },
  { name: "3-64", d: 3, h: 64, count: 16384 },
  { name: "16-128", d: 16, h: 128, count: 4096 },
  { name: "64-256", d: 64, h: 256, count: 512 },
  { name: "784-64", d: 784, h: 64, count: 64 },
];

/** Batches of a step of training. */
export const trainingCases: readonly Case[] = [
  { name: "2-64", d: 2, h: 64, count: 4096 },
  { name: "16-128", d: 16, h: 128, count: 1024 },
  { name: "64-256", d: 64, h: 256, count: 128 },
  { name: "784-512", d: 784, h: 512, count: 64 },
];

/** Batches of whole steps, and how many of these make a call. */
export const stepCases: readonly Case[] = [
  { name: "2-64", d: 2, h: 64, count: 1024, steps: 32 },
  { name: "16-128", d: 16, h: 128, count: 1024, steps: 8 },
  { name: "64-256", d: 64, h: 256, count: 512, steps: 4 },
];

/** Not over shared memory, which WebGPU refuses. */
export type Numbers = Float32Array<ArrayBuffer>;

/** Weights are [outputs, inputs], row-major, and points [count, d]; all in float32, so that nobody starts from other numbers. */
export interface Problem extends Case {
  /** [h, d] */
  readonly w1: Numbers;
  /** [h] */
  readonly b1: Numbers;
  /** [h, h] */
  readonly w2: Numbers;
  /** [h] */
  readonly b2: Numbers;
  /** [d, h] */
  readonly w3: Numbers;
  /** [d] */
  readonly b3: Numbers;
  /** [count, d] */
  readonly points: Numbers;
}

/** The same numbers in every process. */
export function makeProblem({ name, d, h, count }: Case): Problem {
  const uniform = generator(d * 1000 + h);
  // Uniform on [-√3, √3] has unit variance: the preactivations are of order one, where tanh is neither linear nor flat.
  const numbers = (length: number, deviation: number): Numbers =>
    Float32Array.from({ length }, () => deviation * Math.sqrt(3) * (2 * uniform() - 1));
  return {
    name,
    d,
    h,
    count,
    w1: numbers(h * d, 1 / Math.sqrt(d)),
    b1: numbers(h, 0.1),
    w2: numbers(h * h, 1 / Math.sqrt(h)),
    b2: numbers(h, 0.1),
    w3: numbers(d * h, 1 / Math.sqrt(h)),
    b3: numbers(d, 0.1),
    points: numbers(count * d, 1),
  };
}

/** Weights and biases, in the order that {@link Problem} has them. */
export function parametersOf({ d, h, w1, b1, w2, b2, w3, b3 }: Problem): readonly { readonly data: Numbers; readonly shape: number[] }[] {
  return [
    { data: w1, shape: [h, w1.length / h] },
    { data: b1, shape: [h] },
    { data: w2, shape: [h, h] },
    { data: b2, shape: [h] },
    { data: w3, shape: [d, h] },
    { data: b3, shape: [d] },
  ];
}

/** [rows, columns] -> [columns, rows] */
export function transpose(matrix: Numbers, rows: number, columns: number): Numbers {
  const result = new Float32Array(matrix.length);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) result[column * rows + row] = matrix[row * columns + column]!;
  return result;
}

/**
 * K = W2 ∘ (W1 W3)ᵀ, [h, h], in float64: with s_l = tanh'(z_l), the divergence of two hidden layers is s2ᵀ K s1. It
 * belongs to the weights alone, so whoever uses the formula gets it ready-made, as deldot's plan makes it once per network.
 */
export function bilinearMatrix({ d, h, w1, w2, w3 }: Problem): Float64Array {
  const matrix = new Float64Array(h * h);
  for (let row = 0; row < h; row++)
    for (let column = 0; column < h; column++) {
      let product = 0;
      for (let i = 0; i < d; i++) product += w1[column * d + i]! * w3[i * h + row]!;
      matrix[row * h + column] = w2[row * h + column]! * product;
    }
  return matrix;
}

/** Numbers in [0, 1): a 32-bit Weyl sequence through the finalizer of MurmurHash3. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let bits = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
    return ((bits ^ (bits >>> 16)) >>> 0) / 2 ** 32;
  };
}
