/**
 * Estimates of the trace of a square matrix A by products A v alone, in float64: what a field's divergence is estimated by, where A is
 * its Jacobian and A v a pass of forward mode. Each says how many products it takes.
 */

/** A v of a matrix [d, d]. */
export type Product = (v: Float64Array) => Float64Array;

/** What an estimator found. */
export interface Estimate {
  readonly trace: number;
  /** Its standard error as it tells it by itself; NaN where it cannot. */
  readonly standardError: number;
}

/** Uniform numbers in [0, 1). */
export type Uniform = () => number;

/** A vector of random signs. */
export function signs(d: number, uniform: Uniform): Float64Array {
  return Float64Array.from({ length: d }, () => (uniform() < 0.5 ? -1 : 1));
}

/** A vector that is uniform on the sphere of radius √d. */
export function onSphere(d: number, uniform: Uniform): Float64Array {
  const v = Float64Array.from({ length: d }, () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
  const scale = Math.sqrt(d / dot(v, v));
  return v.map((x) => scale * x);
}

/** `count` of them by `draw`. */
export function several(count: number, draw: () => Float64Array): Float64Array[] {
  return Array.from({ length: count }, draw);
}

/**
 * Signs that are orthogonal to one another: rows of a Hadamard matrix of N = 2^n ≥ d columns, drawn without replacement, cut to d
 * coordinates and multiplied by one vector of random signs. The N rows together give vᵀ A v the mean tr A, whatever the signs.
 */
export function orthogonalSigns(d: number, count: number, uniform: Uniform): Float64Array[] {
  const n = powerOfTwo(d);
  if (count > n) throw new RangeError(`${count} rows; there are ${n}`);
  const common = signs(d, uniform);
  const rows = Array.from({ length: n }, (_, row) => row);
  return Array.from({ length: count }, (_, k) => {
    const other = k + Math.floor(uniform() * (n - k));
    [rows[k], rows[other]] = [rows[other]!, rows[k]!];
    return common.map((sign, i) => (isOdd(rows[k]! & i) ? -sign : sign));
  });
}

/** The least power of two from d. */
export function powerOfTwo(d: number): number {
  return 2 ** Math.ceil(Math.log2(d));
}

function isOdd(bits: number): boolean {
  let odd = false;
  for (let rest = bits; rest > 0; rest &= rest - 1) odd = !odd;
  return odd;
}

/** The mean of vᵀ A v over probes (Hutchinson 1989). `population` is how many there are to draw from without replacement. */
export function hutchinson(product: Product, probes: readonly Float64Array[], population = Infinity): Estimate {
  const samples = probes.map((v) => dot(v, product(v)));
  const { mean, standardError } = summary(samples);
  // Nothing is left to chance once all were drawn.
  return { trace: mean, standardError: standardError * Math.sqrt(1 - samples.length / population) };
}

/**
 * tr(Qᵀ A Q) + the mean of gᵀ (I - Q Qᵀ) A (I - Q Qᵀ) g over probes g: unbiased for each orthonormal Q [k, d] that knows nothing of the
 * probes. Takes as many products as there are directions and probes.
 */
export function deflated(product: Product, directions: readonly Float64Array[], probes: readonly Float64Array[]): Estimate {
  const within = directions.reduce((sum, q) => sum + dot(q, product(q)), 0);
  const rest = hutchinson(
    product,
    probes.map((g) => without(directions, g)),
  );
  return { trace: within + (probes.length > 0 ? rest.trace : 0), standardError: rest.standardError };
}

/** Hutch++ (Meyer, Musco, Musco, Woodruff 2021): `deflated` with Q a basis of A S. Takes sketch + its rank + probes products. */
export function hutchPlusPlus(product: Product, sketch: readonly Float64Array[], probes: readonly Float64Array[]): Estimate {
  return deflated(product, orthonormal(sketch.map(product)).basis, probes);
}

/**
 * XTrace (Epperly, Tropp, Webber 2024): the mean over i of Hutch++ with the i-th vector for a probe and the other k - 1 for a sketch, all
 * out of 2 k products. Test vectors are uniform on the sphere of radius √d; what the i-th leaves outside of the range of the others is
 * scaled to the length that it has on the average, which keeps it unbiased and makes multiples of the identity exact.
 */
export function xtrace(product: Product, vectors: readonly Float64Array[]): Estimate {
  const k = vectors.length;
  const d = vectors[0]!.length;
  const images = vectors.map(product);
  const { basis, coefficients } = orthonormal(images);
  const applied = basis.map(product);
  const within = basis.reduce((sum, q, j) => sum + dot(q, applied[j]!), 0);
  // The range of A is within that of the basis: nothing is left to estimate.
  if (basis.length < k) return { trace: within, standardError: 0 };
  const samples = vectors.map((v, i) => {
    // s, in coordinates of the basis, is the direction that the image of v alone brings in: Q_i Q_iᵀ = Q (I - s sᵀ) Qᵀ.
    const s = loneDirection(coefficients, i);
    const lone = combine(basis, s);
    const appliedLone = combine(applied, s);
    const inside = Float64Array.from(basis, (q) => dot(q, v));
    const along = dot(s, inside);
    // (I - Q_i Q_iᵀ) v and A of it, by what is known.
    const outside = v.slice();
    const image = Float64Array.from(images[i]!);
    basis.forEach((q, j) => {
      const part = inside[j]! - along * s[j]!;
      add(outside, q, -part);
      add(image, applied[j]!, -part);
    });
    const length = dot(outside, outside);
    const scale = length > 0 ? (d - k + 1) / length : 0;
    return within - dot(lone, appliedLone) + scale * dot(outside, image);
  });
  const { mean, standardError } = summary(samples);
  return { trace: mean, standardError };
}

/**
 * tr C + the mean of vᵀ (A - C) v over probes, for a matrix C that is known: unbiased for each C that knows nothing of the probes.
 */
export function aroundMatrix(product: Product, known: Product, traceOfKnown: number, probes: readonly Float64Array[]): Estimate {
  const { trace, standardError } = hutchinson((v) => {
    const result = product(v).slice();
    add(result, known(v), -1);
    return result;
  }, probes);
  return { trace: traceOfKnown + trace, standardError };
}

/** A v by the entries of A, row-major. */
export function productOf(matrix: Float64Array): Product {
  return (v) => v.map((_, i) => dot(matrix.subarray(i * v.length, (i + 1) * v.length), v));
}

/** The directions in which the sum of the squares of symmetric matrices is the largest, by orthogonal iteration: [k, d], best first. */
export function topDirections(matrices: readonly Product[], d: number, k: number, uniform: Uniform): Float64Array[] {
  let { basis } = orthonormal(several(k, () => onSphere(d, uniform)));
  for (let turn = 0; turn < 10; turn++) {
    const images = basis.map((q) => {
      const image = new Float64Array(d);
      for (const product of matrices) add(image, product(product(q)), 1);
      return image;
    });
    ({ basis } = orthonormal(images.toSorted((a, b) => dot(b, b) - dot(a, a))));
  }
  return basis;
}

/** v without its part in the span of orthonormal directions. */
function without(directions: readonly Float64Array[], v: Float64Array): Float64Array {
  const rest = v.slice();
  for (const q of directions) add(rest, q, -dot(q, rest));
  return rest;
}

/** What of a vector is left beside so much of its length is rounding. */
const NOTHING = 1e-12;

/**
 * Vectors = coefficients · basis, by Gram and Schmidt, twice: an orthonormal basis [r, d] of their span, and the coefficients
 * [count, r] of each, which are 0 beyond its own place. A vector within the span of those before it adds none.
 */
export function orthonormal(vectors: readonly Float64Array[]): { basis: Float64Array[]; coefficients: Float64Array[] } {
  const basis: Float64Array[] = [];
  const coefficients = vectors.map((vector) => {
    const parts = new Float64Array(vectors.length);
    const rest = vector.slice();
    for (let turn = 0; turn < 2; turn++)
      basis.forEach((q, j) => {
        const part = dot(q, rest);
        parts[j]! += part;
        add(rest, q, -part);
      });
    const length = Math.sqrt(dot(rest, rest));
    if (length > NOTHING * Math.sqrt(dot(vector, vector))) {
      parts[basis.length] = length;
      basis.push(rest.map((x) => x / length));
    }
    return parts;
  });
  return { basis, coefficients };
}

/** The unit vector s with coefficients_j · s = 0 for all j but i: R s = e_i for the triangle R of rows, scaled to length 1. */
function loneDirection(coefficients: readonly Float64Array[], i: number): Float64Array {
  const k = coefficients.length;
  const s = new Float64Array(k);
  for (let j = i; j < k; j++) {
    const row = coefficients[j]!;
    let rest = j === i ? 1 : 0;
    for (let m = i; m < j; m++) rest -= row[m]! * s[m]!;
    s[j] = rest / row[j]!;
  }
  const length = Math.sqrt(dot(s, s));
  return s.map((x) => x / length);
}

function combine(vectors: readonly Float64Array[], weights: Float64Array): Float64Array {
  const sum = new Float64Array(vectors[0]!.length);
  vectors.forEach((vector, j) => add(sum, vector, weights[j]!));
  return sum;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** a += factor b */
function add(a: Float64Array, b: Float64Array, factor: number): void {
  for (let i = 0; i < a.length; i++) a[i]! += factor * b[i]!;
}

/** Mean and standard error of the mean; NaN for a single sample. */
function summary(samples: readonly number[]): { mean: number; standardError: number } {
  const n = samples.length;
  const mean = samples.reduce((sum, x) => sum + x, 0) / n;
  const squares = samples.reduce((sum, x) => sum + (x - mean) ** 2, 0);
  return { mean, standardError: n > 1 ? Math.sqrt(squares / (n - 1) / n) : NaN };
}
