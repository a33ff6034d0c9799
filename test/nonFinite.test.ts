import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, mlp, VectorField, type EvaluateOptions, type Method, type Network, type Output } from "../src/index.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";

const bad = [NaN, Infinity, -Infinity];
const all: readonly Output[] = ["value", "divergence", "diagonal", "jacobian"];
/** Every method with every output it gives. */
const runs: { method: Method; outputs: readonly Output[] }[] = [
  { method: "tangent", outputs: ["value", "divergence", "diagonal"] },
  { method: "cyclic", outputs: ["value", "divergence"] },
  { method: "cyclic", outputs: ["divergence"] },
  { method: "jacobian", outputs: all },
  { method: "jacobian", outputs: ["jacobian"] },
  { method: "coordinate", outputs: ["value", "divergence", "diagonal"] },
  { method: "difference", outputs: ["value", "divergence", "diagonal"] },
  { method: "hutchinson", outputs: ["value", "divergence"] },
];

type Results = Partial<Record<Output | "standardError", ArrayLike<number>>>;

/** Expects NaN throughout at the points marked, and elsewhere what `clean` has, bit for bit. */
function expectMarked(
  results: Results,
  clean: Results,
  marked: readonly boolean[],
  names: readonly (Output | "standardError")[],
  label: string,
): void {
  for (const name of names) {
    const actual = results[name]!;
    const expected = clean[name]!;
    const width = expected.length / marked.length;
    expect(actual.length).toBe(expected.length);
    for (let i = 0; i < actual.length; i++) {
      const wanted = marked[Math.floor(i / width)] ? NaN : expected[i];
      if (!Object.is(actual[i], wanted)) expect.fail(`${label}: ${name}[${i}] is ${actual[i]}; expected ${wanted}`);
      if (!marked[Math.floor(i / width)] && !Number.isFinite(actual[i]))
        expect.fail(`${label}: ${name}[${i}] is ${actual[i]} at a good point`);
    }
  }
}

function outputsOf({ method, outputs }: (typeof runs)[number]): (Output | "standardError")[] {
  return method === "hutchinson" ? [...outputs, "standardError"] : [...outputs];
}

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

describe.each([
  { name: "no hidden layer", widths: [5, 5] },
  { name: "one hidden layer", widths: [5, 9, 5] },
  { name: "two hidden layers", widths: [5, 9, 7, 5] },
  { name: "three hidden layers", widths: [5, 9, 3, 7, 5] },
])("$name", ({ widths }) => {
  const d = 5;
  const c = 2;
  const count = 61;
  // softsign and relu can hide an infinity or a NaN from what comes after them.
  const activation = ["relu", "softsign", "relu"].slice(0, widths.length - 2);
  const { network } = randomMlp({ seed: widths.length, widths, activation, contextSize: c });
  const points = Float64Array.from(randomPoints(2, count, d));
  const contexts = Float64Array.from(randomPoints(3, count, c));
  const nowhere = Array.from({ length: count }, () => false);
  /** The first point, the last, and some between, among them neighbours. */
  const spots = [0, 7, 8, 30, 60];
  let field: VectorField;
  /** A small budget cuts the batch into several chunks. */
  beforeAll(async () => (field = await VectorField.create(device, network, { memoryBudget: 20_000 })));
  afterAll(() => field.destroy());

  /** Puts a non-finite number somewhere into the rows of the spots. */
  function spoil(data: Float64Array, width: number): Float64Array {
    const spoilt = data.slice();
    for (const [index, spot] of spots.entries()) spoilt[spot * width + (index % width)] = bad[index % 3]!;
    return spoilt;
  }
  const marked = nowhere.map((_, point) => spots.includes(point));

  test("a point with a NaN or an infinity in it gets NaN in all its outputs, and no other changes", async () => {
    for (const run of runs) {
      const options: EvaluateOptions = { ...run, context: contexts };
      const spoilt = spoil(points, d);
      expectMarked(
        await field.evaluate(spoilt, options),
        await field.evaluate(points, options),
        marked,
        outputsOf(run),
        `${run.method} on the GPU`,
      );
      expectMarked(
        evaluateReference(network, spoilt, options),
        evaluateReference(network, points, options),
        marked,
        outputsOf(run),
        `${run.method}, reference`,
      );
    }
    const value = { outputs: ["value"], context: contexts } as const;
    expectMarked(await field.evaluate(spoil(points, d), value), await field.evaluate(points, value), marked, ["value"], "the value alone");
  });

  test("so does a point whose own context has one", async () => {
    for (const run of runs) {
      const options = { ...run, context: contexts };
      const spoilt = { ...run, context: spoil(contexts, c) };
      expectMarked(
        await field.evaluate(points, spoilt),
        await field.evaluate(points, options),
        marked,
        outputsOf(run),
        `${run.method} on the GPU`,
      );
      expectMarked(
        evaluateReference(network, points, spoilt),
        evaluateReference(network, points, options),
        marked,
        outputsOf(run),
        `${run.method}, reference`,
      );
    }
  });

  test("so do all points where the shared context has one", async () => {
    const everywhere = nowhere.map(() => true);
    for (const number of bad)
      for (const run of runs) {
        const options = { ...run, context: [0.5, number] };
        const clean = { ...run, context: [0.5, 0.5] };
        expectMarked(
          await field.evaluate(points, options),
          await field.evaluate(points, clean),
          everywhere,
          outputsOf(run),
          `${run.method} on the GPU`,
        );
        expectMarked(
          evaluateReference(network, points, options),
          evaluateReference(network, points, clean),
          everywhere,
          outputsOf(run),
          `${run.method}, reference`,
        );
      }
  });

  test("so does a Jacobian-vector product, where the tangent is not finite too", async () => {
    const clean = { value: await field.jvp(points, points, { context: contexts }) };
    for (const value of [
      await field.jvp(spoil(points, d), points, { context: contexts }),
      await field.jvp(points, spoil(points, d), { context: contexts }),
      await field.jvp(points, points, { context: spoil(contexts, c) }),
    ])
      expectMarked({ value }, clean, marked, ["value"], "J t");
  });

  test("a float64 number beyond float32 counts as infinite on the GPU", async () => {
    const far = points.slice();
    // The first is nearest to the largest float32 still, the others are not.
    [far[0], far[8 * d], far[9 * d]] = [3.4028235e38, 3.5e38, -1e300];
    const result = await field.evaluate(far, { outputs: ["value", "divergence"], context: contexts });
    for (const point of [8, 9]) {
      expect(result.divergence[point]).toBeNaN();
      expect(Array.from(result.value.subarray(point * d, (point + 1) * d))).toEqual([NaN, NaN, NaN, NaN, NaN]);
    }
    const { divergence } = await field.evaluate(points, { context: contexts });
    expectMarked(
      { divergence: result.divergence.slice(10) },
      { divergence: divergence.slice(10) },
      nowhere.slice(10),
      ["divergence"],
      "the others",
    );
    expect(evaluateReference(network, far, { context: contexts, outputs: ["divergence"] }).divergence![9]).not.toBeNaN();
  });
});

test("a batch of nothing but NaN gives nothing but NaN", async () => {
  const { network } = randomMlp({ seed: 9, widths: [2, 4, 2], activation: "relu" });
  const field = await VectorField.create(device, network);
  const result = await field.evaluate(new Float32Array(2 * 100_000).fill(NaN), { outputs: all });
  for (const output of all) expect(result[output]!.every(Number.isNaN), output).toBe(true);
  field.destroy();
});

/** Those whose value or slope settles, so that a large input is a question of overflow alone. */
const saturating = [
  "tanh",
  "sigmoid",
  "softsign",
  "atan",
  "asinh",
  "gelu",
  "gelu_tanh",
  "silu",
  "mish",
  "softplus",
  "softplus(2, 5)",
  "elu",
  "elu(0.3)",
  "selu",
  "celu",
  "celu(2)",
  "relu",
  "leaky_relu",
  "relu6",
  "hardswish",
  "hardsigmoid",
  "hardtanh",
];

describe.each(saturating)("%s", (activation) => {
  test.each([60, 1e4])("is finite and right at inputs of scale %d", async (scale) => {
    const { network } = randomMlp({ seed: 21, widths: [6, 24, 17, 6], activation });
    const points = randomPoints(22, 200, 6, scale);
    // A pre-activation whose float32 rounding decides on which side of a step it falls is no question of overflow.
    const kept = Array.from({ length: 200 }, (_, point) => point).filter((point) =>
      isSteady(network, points.subarray(point * 6, (point + 1) * 6)),
    );
    expect(kept.length).toBeGreaterThan(100);
    const some = Float32Array.from(kept.flatMap((point) => [...points.subarray(point * 6, (point + 1) * 6)]));
    const truth = evaluateReference(network, some, { method: "tangent", outputs: ["value", "divergence", "diagonal"] });
    const sizes = Float64Array.from(kept, (_, point) =>
      truth.diagonal!.subarray(point * 6, (point + 1) * 6).reduce((sum, entry) => sum + Math.abs(entry), 0),
    );
    const field = await VectorField.create(device, network);
    for (const method of ["tangent", "cyclic", "jacobian", "coordinate"] as const) {
      const { value, divergence } = await field.evaluate(some, { method });
      expect([...value, ...divergence].every(Number.isFinite)).toBe(true);
      // A value may be the difference of larger ones.
      expectClose(
        value,
        truth.value!,
        truth.value!.map(() => Math.max(1, scale)),
        { relative: 2e-6, label: `value by ${method}` },
      );
      expectClose(divergence, truth.divergence!, sizes, { relative: 5e-5, absolute: 1e-5, label: `divergence by ${method}` });
    }
    field.destroy();
  });
});

/** Whether moving the point by float32's rounding leaves the divergence where it is, in float64. */
function isSteady(network: Network, point: Float32Array): boolean {
  const truth = evaluateReference(network, point, { method: "tangent", outputs: ["divergence"] }).divergence![0]!;
  return [1, -1].every((sign) => {
    const moved = Float64Array.from(point, (x, i) => x * (1 + (i % 2 ? sign : -sign) * 2e-6));
    return (
      Math.abs(evaluateReference(network, moved, { method: "tangent", outputs: ["divergence"] }).divergence![0]! - truth) <
      1e-5 * (1 + Math.abs(truth))
    );
  });
}

test("a saturated field has divergence 0, not NaN", async () => {
  for (const activation of ["tanh", "sigmoid", "hardtanh", "relu6", "softsign"]) {
    const network = mlp({
      layers: [
        {
          weight: [
            [1e4, 0],
            [0, 1e4],
          ],
          bias: [1, 1],
        },
        {
          weight: [
            [1, 2],
            [3, 4],
          ],
        },
      ],
      activation,
    });
    const field = await VectorField.create(device, network);
    const { value, divergence } = await field.evaluate([1e4, 1e4, -1e4, 1e4]);
    expect([...value].every(Number.isFinite)).toBe(true);
    expect(Math.max(...divergence.map(Math.abs))).toBeLessThan(1e-9);
    field.destroy();
  }
});
