import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, InputError, VectorField, vjpReference, type Network } from "../src/index.js";
import { rademacher } from "../src/cpu/probes.js";
import { drawsOf, multiplyInField } from "../src/plan/orthogonal.js";
import { makeBuffer, readBuffer } from "./buffers.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";

const d = 6;
/** The least power of two from d. */
const all = 8;
const count = 9;
const points = randomPoints(1, count, d);
const context = [0.3, -0.7];
const method = "hutchinson";

const fields = [1, 2, 3, 4].map((hidden) => {
  const widths = [d, ...Array<number>(hidden).fill(21), d];
  return { hidden, network: randomMlp({ seed: 30 + hidden, widths, activation: "silu", contextSize: 2 }).network };
});
const modes = fields.flatMap((field) => (["batch", "point"] as const).map((probesPer) => ({ ...field, probesPer })));

/** J of each point, [d, d], and Σ_ij |J_ij|. */
function jacobiansOf(network: Network): { matrices: Float64Array[]; scale: number[] } {
  const { jacobian } = evaluateReference(network, points, { context, outputs: ["jacobian"] });
  const matrices = Array.from({ length: count }, (_, point) => jacobian!.subarray(point * d * d, (point + 1) * d * d));
  return { matrices, scale: matrices.map((matrix) => matrix.reduce((sum, entry) => sum + Math.abs(entry), 0)) };
}

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

describe("the probes", () => {
  test.for([1, 2, 3, 6, 8, 50, 64])("of one point are signs, all of which together are orthogonal: d = %i", (size) => {
    const { population } = drawsOf(size, true);
    for (const [seed, point, first] of [
      [0, 0, 0],
      [7, 3, 0],
      [4_000_000_000, 100_000, 2 * population],
    ] as const) {
      const probes = Array.from({ length: population }, (_, k) => rademacher(size, seed, point, first + k, true));
      expect(probes.every((v) => v.every((sign) => Math.abs(sign) === 1))).toBe(true);
      for (let i = 0; i < size; i++)
        for (let j = 0; j < size; j++) expect(probes.reduce((sum, v) => sum + v[i]! * v[j]!, 0)).toBe(i === j ? population : 0);
    }
  });

  test("are drawn anew once all were there, and for each point and seed", () => {
    const size = 64;
    const distinct = new Set(
      [0, 1, 2].flatMap((seed) => [0, 1, 2].flatMap((point) => [0, 64, 128].map((k) => rademacher(size, seed, point, k, true).join()))),
    );
    expect(distinct.size).toBe(27);
  });

  test("differ from one another by any row alike: a product with a is one to one, and distributes over the sum", () => {
    for (const size of [2, 3, 6, 64, 784]) {
      const draws = drawsOf(size, true);
      const { population } = draws;
      for (const a of [1, population - 1, Math.max(1, population >> 1)]) {
        const products = Array.from({ length: population }, (_, k) => multiplyInField(a, k, draws));
        expect(new Set(products).size).toBe(population);
        expect(Math.max(...products)).toBe(population - 1);
        products.forEach((product, k) => expect(product ^ products[1]!).toBe(products[k ^ 1]));
      }
    }
  });
});

describe("an estimate by orthogonal probes", () => {
  test.for(modes)(
    "is the same on the GPU and in the reference: $hidden hidden layers, probes per $probesPer",
    async ({ network, probesPer }) => {
      const { scale } = jacobiansOf(network);
      const field = await VectorField.create(device, network);
      for (const [probes, seed] of [
        [1, 0],
        [3, 7],
        [8, -1],
        [11, 4_000_000_000],
      ] as const) {
        const options = { context, method, probes, seed, probesPer, orthogonal: true } as const;
        const result = await field.evaluate(points, options);
        const reference = evaluateReference(network, points, options);
        expectClose(result.divergence, reference.divergence!, scale, { label: `${probes} probes` });
        expectClose(result.standardError!, reference.standardError!, scale, { label: `standard error of ${probes} probes` });
        const chunked = await field.evaluate(points, { ...options, chunkSize: 3 });
        expectClose(chunked.divergence, result.divergence, scale, { relative: 1e-6, absolute: 0 });
      }
      field.destroy();
    },
  );

  test.for(modes)(
    "is exact with as many probes as a power of two from d: $hidden hidden layers, probes per $probesPer",
    ({ network, probesPer }) => {
      const { scale } = jacobiansOf(network);
      const exact = evaluateReference(network, points, { context, method: "tangent" }).divergence!;
      const gradient = vjpReference(network, points, { divergence: 1 }, { context, method: "tangent" }).points;
      for (const probes of [all, 3 * all]) {
        const options = { context, method, probes, seed: 5, probesPer, orthogonal: true } as const;
        const { divergence, standardError } = evaluateReference(network, points, options);
        expectClose(divergence!, exact, scale, { relative: 1e-13, absolute: 0 });
        expect([...standardError!]).toEqual(Array<number>(count).fill(0));
        const estimated = vjpReference(network, points, { divergence: 1 }, options).points;
        expectClose(
          estimated,
          gradient,
          gradient.map(() => 1),
          { relative: 1e-12, absolute: 0 },
        );
      }
    },
  );

  const { network } = fields[2]!;

  test("has the variance of a sample without replacement, no bias, and a standard error that says so", () => {
    const { matrices } = jacobiansOf(network);
    const exact = evaluateReference(network, points, { context }).divergence!;
    const seeds = 300;
    for (const probes of [2, 5, 7]) {
      let [squares, said] = [0, 0];
      const sums = new Float64Array(count);
      for (let seed = 0; seed < seeds; seed++) {
        const { divergence, standardError } = evaluateReference(network, points, { context, method, probes, seed, orthogonal: true });
        for (let point = 0; point < count; point++) {
          const error = divergence![point]! - exact[point]!;
          sums[point]! += error;
          squares += error ** 2;
          said += standardError![point]! ** 2;
        }
      }
      // Of one probe: 2 Σ ((J_ij + J_ji) / 2)² over i ≠ j.
      const variances = matrices.map((matrix) =>
        matrix.reduce((sum, entry, index) => {
          const [i, j] = [Math.floor(index / d), index % d];
          return i === j ? sum : sum + (entry + matrix[j * d + i]!) ** 2 / 2;
        }, 0),
      );
      const expected = (variances.reduce((sum, x) => sum + x, 0) / probes) * ((all - probes) / (all - 1));
      expect(squares / seeds / expected).toBeGreaterThan(0.85);
      expect(squares / seeds / expected).toBeLessThan(1.15);
      expect(said / seeds / expected).toBeGreaterThan(0.85);
      expect(said / seeds / expected).toBeLessThan(1.15);
      for (let point = 0; point < count; point++)
        expect(Math.abs(sums[point]! / seeds)).toBeLessThan(5 * Math.sqrt(variances[point]! / probes / seeds));
    }
  });

  test("is that of an independent probe where there is one, whose error is unknown", async () => {
    const field = await VectorField.create(device, network);
    const one = { context, method, probes: 1, seed: 3 } as const;
    const { divergence, standardError } = await field.evaluate(points, { ...one, orthogonal: true });
    expect(divergence).toEqual(await field.divergence(points, one));
    expect([...standardError!]).toEqual(Array<number>(count).fill(NaN));
    field.destroy();
  });

  test("does not depend on chunks of points, and spoils the rows that are not finite alone", async () => {
    const many = randomPoints(3, 300, d);
    const options = { context, method, probes: 5, orthogonal: true } as const;
    const whole = await VectorField.create(device, network);
    const expected = await whole.evaluate(many, options);
    const spoilt = many.slice();
    spoilt[100 * d + 2] = NaN;
    spoilt[200 * d] = Infinity;
    const chunked = await VectorField.create(device, network, { memoryBudget: 2 ** 16 });
    const result = await chunked.evaluate(spoilt, options);
    for (const row of [100, 200]) {
      expected.divergence[row] = NaN;
      expected.standardError![row] = NaN;
    }
    const scale = Array<number>(300).fill(1);
    expectClose(result.divergence, expected.divergence, scale, { relative: 1e-6, absolute: 0 });
    expectClose(result.standardError!, expected.standardError!, scale, { relative: 1e-6, absolute: 0 });
    whole.destroy();
    chunked.destroy();
  });

  test("comes by encode and its gradient by vjp, too", async () => {
    const field = await VectorField.create(device, network);
    const options = { method, probes: 5, seed: 2, orthogonal: true } as const;
    const [x, y] = [makeBuffer(device, points), makeBuffer(device, count)];
    const encoder = device.createCommandEncoder({ label: "test" });
    field.encode(encoder, { points: x, count, context, divergence: y, ...options });
    device.queue.submit([encoder.finish()]);
    const expected = await field.divergence(points, { context, ...options });
    expectClose(await readBuffer(device, y), expected, jacobiansOf(network).scale, { relative: 1e-6 });
    for (const buffer of [x, y]) buffer.destroy();
    const gradient = await field.vjp(points, { divergence: 1 }, { context, ...options });
    const reference = vjpReference(network, points, { divergence: 1 }, { context, ...options });
    expectClose(
      gradient.points,
      reference.points,
      reference.points.map(() => 1),
    );
    field.destroy();
  });

  test("is hutchinson's alone, and true or false", () => {
    expect(() => evaluateReference(network, points, { context, orthogonal: true })).toThrow(InputError);
    expect(() => evaluateReference(network, points, { context, method, orthogonal: 1 as never })).toThrow(
      /orthogonal is 1; expected true or false/,
    );
  });
});
