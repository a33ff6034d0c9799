import { afterAll, beforeAll, expect, test } from "vitest";
import { evaluateReference, VectorField, type Network } from "../src/index.js";
import { parseActivation } from "../src/model/activation.js";
import type { Operation } from "../src/model/network.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { randomPoints } from "./fields.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

const outputs = ["value", "divergence", "diagonal", "jacobian"] as const;
type Results = Record<(typeof outputs)[number], Float64Array | Float32Array>;

/** A norm of the state, after other operations where there are some. */
function normOf(d: number, centered: boolean, epsilon: number, before: readonly Operation[] = []): Network {
  const operand = before.length > 0 ? before.length - 1 : "state";
  return { stateSize: d, contextSize: 0, operations: [...before, { kind: "norm", operand, centered, epsilon }] };
}

async function onDevice(network: Network, points: Float32Array): Promise<Results> {
  const field = await VectorField.create(device, network);
  const result = await field.evaluate(points, { method: "jacobian", outputs });
  field.destroy();
  return result;
}

const kinds = [true, false].flatMap((centered) => [0, 1e-5, 1].map((epsilon) => ({ centered, epsilon })));

test.each(kinds)("centered: $centered, epsilon $epsilon: right at any magnitude", async ({ centered, epsilon }) => {
  for (const d of [2, 3, 8, 33]) {
    // Below 2^-126 / d differences count as 0; above 2^126 the slope is NaN.
    const scales = Array.from({ length: 71 }, (_, k) => 10 ** (k - 34));
    const normal = randomPoints(d, scales.length, d);
    const points = normal.map((x, i) => x * scales[Math.floor(i / d)]!);
    const network = normOf(d, centered, epsilon);
    const truth = evaluateReference(network, points, { method: "jacobian", outputs }) as unknown as Results;
    const actual = await onDevice(network, points);
    for (const output of ["value", "diagonal", "jacobian"] as const) {
      const size = truth[output].length / scales.length;
      const sizes = scales.flatMap((_, point) => {
        const x = Float64Array.from(points.subarray(point * d, (point + 1) * d));
        const mean = centered ? x.reduce((sum, number) => sum + number / d, 0) : 0;
        const distances = x.map((number) => number - mean);
        const deviation = Math.sqrt(distances.reduce((sum, distance) => sum + distance ** 2 / d, epsilon));
        const y = Math.max(...distances.map(Math.abs)) / deviation;
        // The mean is rounded as the entries are, which may be much more than their distances; slopes are differences.
        const entry = (output === "value" ? y : (1 + y * y) / deviation) * (1 + Math.abs(mean) / deviation);
        return Array.from({ length: size }, () => entry);
      });
      expectClose(actual[output], truth[output], sizes, { relative: 2e-6, absolute: 1e-37, label: `${output}, d = ${d}` });
    }
  }
});

test.each(["layers 4x4", "fused storage x2"])("entries that differ by little, by %s", async (kernels) => {
  const points = Float32Array.of(1000, 1000.0001, 1000, 1e6, 1e6 + 1, 1e6 + 3, -7, -7, -7.000001, 1, 2, 4);
  const network = normOf(3, true, 1e-12);
  const options = { outputs: ["value", "divergence", "diagonal"] } as const;
  const truth = evaluateReference(network, points, options) as unknown as Results;
  const field = await VectorField.create(device, network, { kernels });
  const actual = await field.evaluate(points, { outputs: ["value", "divergence"] });
  expect(actual.kernels).toBe(kernels);
  const scale = [0, 1, 2, 3].map((point) =>
    Array.from(truth.diagonal)
      .slice(3 * point, 3 * point + 3)
      .reduce((sum, entry) => sum + Math.abs(entry), 0),
  );
  expectClose(
    actual.value,
    truth.value,
    truth.value.map(() => 1),
    { relative: 1e-6, absolute: 0, label: "value" },
  );
  expectClose(actual.divergence, truth.divergence, scale, { relative: 5e-6, absolute: 0, label: "divergence" });
  field.destroy();
});

test("large entries that cancel", async () => {
  const { value, divergence } = await onDevice(normOf(2, true, 1e-5), Float32Array.of(1e20, -1e20, 3e38, -3e37));
  expectClose(value, [1, -1, 1, -1], [1, 1, 1, 1], { label: "value" });
  expect(divergence[0]).toBe(0);
  // 1/r is over 2^126.
  expect(divergence[1]).toBeNaN();
});

test("equal entries are 0, and r is 1/√ε", async () => {
  for (const d of [2, 3, 7, 50])
    for (const x of [0, 0.1, -3.3, 1e20, -1e20, 3e38, 1e-37]) {
      const network = normOf(d, true, 1e-4);
      const { value, divergence } = await onDevice(network, new Float32Array(d).fill(x));
      expect(Array.from(value), `at ${x}`).toEqual(Array.from({ length: d }, () => 0));
      expectClose(divergence, [100 * (d - 1)], [100 * d]);
      const truth = evaluateReference(network, new Float32Array(d).fill(x), { outputs: ["value", "divergence"] });
      expect(truth.value!.every((y) => y === 0)).toBe(true);
      expectClose(truth.divergence!, [100 * (d - 1)], [100 * d]);
    }
});

test("without ε equal entries, and 0 without a mean, are NaN", async () => {
  for (const [centered, x] of [
    [true, 2],
    [false, 0],
  ] as const) {
    const results = await onDevice(normOf(3, centered, 0), new Float32Array(3).fill(x));
    for (const output of outputs) expect(results[output].every(Number.isNaN), output).toBe(true);
  }
});

test("an entry that overflows or is undefined makes all of its point NaN, and no other point", async () => {
  const d = 5;
  const scaled: Operation = {
    kind: "linear",
    terms: [{ operand: "state", weight: { diagonal: new Float32Array(d).fill(1e30) } }],
    bias: null,
  };
  const root: Operation = { kind: "activation", operand: "state", activation: parseActivation("sqrt") };
  for (const centered of [true, false])
    for (const before of [scaled, root]) {
      const points = Float32Array.from({ length: 40 * d }, (_, i) => 1 + (i % 7));
      for (const spot of [0, 7, 8, 39]) points[spot * d + (spot % d)] = before === root ? -1 : spot % 2 ? 1e20 : -1e20;
      const network = normOf(d, centered, 1e-5, [before]);
      const results = await onDevice(network, points);
      const truth = evaluateReference(network, points, { method: "jacobian", outputs }) as unknown as Results;
      for (const output of outputs) {
        const size = results[output].length / 40;
        results[output].forEach((number, i) => {
          const point = Math.floor(i / size);
          if ([0, 7, 8, 39].includes(point)) expect(number, `${output}[${i}]`).toBeNaN();
          else expectClose([number], [truth[output][i]!], [1 + Math.abs(truth[output][i]!)], { label: `${output}[${i}]` });
        });
      }
    }
});

test("entries further apart than float32 reaches are NaN", async () => {
  const results = await onDevice(normOf(2, true, 1e-5), Float32Array.of(3.4e38, -3.4e38, 1, 2));
  expect(results.value[0]).toSatisfy((y: number) => Number.isNaN(y) || Math.abs(y - 1) < 1e-5);
  expect(results.divergence[0]).toBeNaN();
  expectClose(results.value.subarray(2), [-1, 1], [1, 1], { relative: 1e-4 });
});
