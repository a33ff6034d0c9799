import { describe, expect, test } from "vitest";
import {
  aroundMatrix,
  deflated,
  hutchinson,
  hutchPlusPlus,
  onSphere,
  orthogonalSigns,
  orthonormal,
  powerOfTwo,
  productOf,
  several,
  signs,
  topDirections,
  xtrace,
  type Estimate,
  type Product,
  type Uniform,
} from "../bench/traceEstimators.js";
import { normal, random } from "./fields.js";

const d = 12;

const repeated = <T>(length: number, make: () => T): T[] => Array.from({ length }, make);
const meanOf = (numbers: readonly number[]): number => numbers.reduce((sum, x) => sum + x, 0) / numbers.length;

/** A matrix of normal numbers, or the product of two that has so low a rank. */
function matrixOf(seed: number, rank: number = d): Float64Array {
  const uniform = random(seed);
  const [left, right] = [0, 1].map(() => Float64Array.from({ length: d * rank }, () => normal(uniform)));
  if (rank === d) return left!;
  return Float64Array.from({ length: d * d }, (_, index) => {
    let sum = 0;
    for (let k = 0; k < rank; k++) sum += left![Math.floor(index / d) * rank + k]! * right![(index % d) * rank + k]!;
    return sum;
  });
}

const traceOf = (matrix: Float64Array): number => Array.from({ length: d }, (_, i) => matrix[i * d + i]!).reduce((sum, x) => sum + x, 0);
const matrix = matrixOf(1);
const known = matrixOf(2);
const directions = orthonormal(several(4, () => onSphere(d, random(3)))).basis;

const estimators: readonly { name: string; draw: (product: Product, uniform: Uniform) => Estimate; saysItsError: boolean }[] = [
  {
    name: "hutchinson",
    draw: (A, u) =>
      hutchinson(
        A,
        several(4, () => signs(d, u)),
      ),
    saysItsError: true,
  },
  {
    name: "on the sphere",
    draw: (A, u) =>
      hutchinson(
        A,
        several(4, () => onSphere(d, u)),
      ),
    saysItsError: true,
  },
  { name: "orthogonal", draw: (A, u) => hutchinson(A, orthogonalSigns(d, 4, u), powerOfTwo(d)), saysItsError: true },
  {
    name: "deflated",
    draw: (A, u) =>
      deflated(
        A,
        directions,
        several(3, () => signs(d, u)),
      ),
    saysItsError: true,
  },
  {
    name: "around a matrix",
    draw: (A, u) =>
      aroundMatrix(
        A,
        productOf(known),
        traceOf(known),
        several(3, () => signs(d, u)),
      ),
    saysItsError: true,
  },
  {
    name: "hutch++",
    draw: (A, u) => {
      const sketch = several(3, () => signs(d, u));
      return hutchPlusPlus(
        A,
        sketch,
        several(3, () => signs(d, u)),
      );
    },
    saysItsError: true,
  },
  // Its samples are not independent: what it says is about right, as its authors say.
  {
    name: "xtrace",
    draw: (A, u) =>
      xtrace(
        A,
        several(4, () => onSphere(d, u)),
      ),
    saysItsError: false,
  },
];

describe.for(estimators)("$name", ({ draw, saysItsError }) => {
  test("is the trace on the average, and errs by what it says", () => {
    const uniform = random(5);
    const estimates = repeated(20_000, () => draw(productOf(matrix), uniform));
    const errors = estimates.map(({ trace }) => trace - traceOf(matrix));
    const mean = meanOf(errors);
    const variance = meanOf(errors.map((x) => x * x));
    expect(Math.abs(mean)).toBeLessThan(4.5 * Math.sqrt(variance / errors.length));
    const said = meanOf(estimates.map(({ standardError }) => standardError ** 2));
    expect(said / variance).toBeGreaterThan(saysItsError ? 0.93 : 0.7);
    expect(said / variance).toBeLessThan(saysItsError ? 1.07 : 1.4);
  });
});

describe("what is exact", () => {
  test("hutch++ and xtrace, where the rank is below that of the sketch", () => {
    for (const rank of [1, 2, 3]) {
      const low = matrixOf(20 + rank, rank);
      for (const seed of [1, 2, 3]) {
        const uniform = random(seed);
        const sketch = several(rank, () => signs(d, uniform));
        const { trace } = hutchPlusPlus(
          productOf(low),
          sketch,
          several(1, () => signs(d, uniform)),
        );
        expect(trace).toBeCloseTo(traceOf(low), 9);
        // Each vector alone leaves k - 1 others, which have to span the range: rank + 1, and as many more as one likes.
        for (const k of [rank + 1, rank + 3]) {
          const found = xtrace(
            productOf(low),
            several(k, () => onSphere(d, uniform)),
          );
          expect(found.trace).toBeCloseTo(traceOf(low), 9);
          expect(found.standardError).toBeLessThan(1e-9);
        }
        const few = xtrace(
          productOf(low),
          several(rank, () => onSphere(d, uniform)),
        );
        if (rank > 1) expect(Math.abs(few.trace - traceOf(low))).toBeGreaterThan(1e-6);
      }
    }
  });

  test("xtrace for multiples of the identity, a matrix around itself, all orthogonal signs, a basis of everything", () => {
    const uniform = random(7);
    const identity = xtrace(
      (v) => v.map((x) => 3 * x),
      several(4, () => onSphere(d, uniform)),
    );
    expect(identity.trace).toBeCloseTo(3 * d, 9);
    const around = aroundMatrix(productOf(matrix), productOf(matrix), traceOf(matrix), [signs(d, uniform)]);
    expect(around.trace).toBe(traceOf(matrix));
    const all = hutchinson(productOf(matrix), orthogonalSigns(d, 16, uniform), 16);
    expect(all.trace).toBeCloseTo(traceOf(matrix), 10);
    expect(all.standardError).toBe(0);
    const basis = orthonormal(several(d, () => onSphere(d, uniform))).basis;
    expect(deflated(productOf(matrix), basis, []).trace).toBeCloseTo(traceOf(matrix), 9);
  });
});

test("xtrace is the mean of hutch++ with each vector for a probe and the others for a sketch", () => {
  const uniform = random(11);
  const k = 5;
  const vectors = several(k, () => onSphere(d, uniform));
  const samples = vectors.map((v, i) => {
    const others = vectors.filter((_, j) => j !== i);
    const { basis } = orthonormal(others.map(productOf(matrix)));
    const outside = deflated((x) => x, basis, [v]).trace - basis.length;
    const none = deflated(productOf(matrix), basis, []).trace;
    // (d - k + 1) / |(I - Q Qᵀ) v|² times what the probe adds.
    return none + ((d - k + 1) / outside) * (deflated(productOf(matrix), basis, [v]).trace - none);
  });
  const mean = meanOf(samples);
  const { trace, standardError } = xtrace(productOf(matrix), vectors);
  expect(trace).toBeCloseTo(mean, 9);
  expect(standardError).toBeCloseTo(Math.sqrt(samples.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (k * (k - 1))), 9);
});

test("an orthonormal basis has the coefficients of what it was made of, and no direction twice", () => {
  const uniform = random(13);
  const [a, b] = several(2, () => onSphere(d, uniform));
  const vectors = [a!, b!, a!.map((x, i) => 2 * x - b![i]!), new Float64Array(d)];
  const { basis, coefficients } = orthonormal(vectors);
  expect(basis.length).toBe(2);
  vectors.forEach((vector, index) =>
    vector.forEach((x, i) => expect(basis.reduce((sum, q, j) => sum + coefficients[index]![j]! * q[i]!, 0)).toBeCloseTo(x, 12)),
  );
});

test("directions are those in which the squares are the largest", () => {
  const diagonal = [3, -9, 1, 0.5, 7, 0, 0, 0, 0, 0, 0, 0];
  const product: Product = (v) => v.map((x, i) => diagonal[i]! * x);
  const found = topDirections([product], d, 2, random(17));
  expect(Math.abs(found[0]![1]!)).toBeCloseTo(1, 3);
  expect(Math.abs(found[1]![4]!)).toBeCloseTo(1, 3);
});
