import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, explainPlan, mlp, outputs, VectorField, type Network } from "../src/index.js";
import { rademacher } from "../src/cpu/probes.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { random, randomMlp, randomPoints } from "./fields.js";

const d = 6;
const count = 9;
const points = randomPoints(1, count, d);
const context = [0.3, -0.7];

/** Without and with hidden layers, and with an activation at the output. */
const fields = [0, 1, 2, 3].flatMap((hidden) =>
  [false, true].map((atOutput) => {
    const activation = Array<string>(hidden + (atOutput ? 1 : 0)).fill("silu");
    const { network } = randomMlp({ seed: 10 + hidden, widths: [d, ...Array<number>(hidden).fill(21), d], activation, contextSize: 2 });
    return { name: `${hidden} hidden layers${atOutput ? " and an output activation" : ""}`, network };
  }),
);
const modes = fields.flatMap((field) => (["batch", "point"] as const).map((probesPer) => ({ ...field, probesPer })));

const mean = (numbers: ArrayLike<number>): number => Array.from(numbers).reduce((sum, x) => sum + x, 0) / numbers.length;
const spread = (numbers: ArrayLike<number>): number =>
  Math.sqrt(mean(Array.from(numbers, (x) => (x - mean(numbers)) ** 2)) * (numbers.length / (numbers.length - 1)));

/** Σ_ij |J_ij| per point: the terms of vᵀ J v. */
function entrySums(network: Network): number[] {
  const { jacobian } = evaluateReference(network, points, { context, outputs: ["jacobian"] });
  return Array.from({ length: count }, (_, point) =>
    jacobian!.subarray(point * d * d, (point + 1) * d * d).reduce((sum, entry) => sum + Math.abs(entry), 0),
  );
}

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

describe("hutchinson", () => {
  test.for(modes)("draws the same probes on the GPU and in the reference: $name, probes per $probesPer", async ({ network, probesPer }) => {
    const field = await VectorField.create(device, network);
    for (const [probes, seed] of [
      [1, 0],
      [2, 7],
      [5, -1],
      [16, 4_000_000_000],
    ] as const) {
      const options = { context, method: "hutchinson", probes, seed, probesPer } as const;
      const result = await field.evaluate(points, options);
      const reference = evaluateReference(network, points, options);
      expect(result.method).toBe("hutchinson");
      const scale = entrySums(network);
      expectClose(result.divergence, reference.divergence!, scale, { label: `${probes} probes` });
      expectClose(result.standardError!, reference.standardError!, scale, { label: `standard error of ${probes} probes` });
      expectClose(result.value, reference.value!, reference.value!.map(Math.abs));
    }
    field.destroy();
  });

  test.for(modes)("gives vᵀ J v for the very probes: $name, probes per $probesPer", ({ network, probesPer }) => {
    const { jacobian } = evaluateReference(network, points, { context, outputs: ["jacobian"] });
    const expected = Array.from({ length: count }, (_, point) => {
      const samples = [0, 1, 2].map((probe) => {
        const v = rademacher(d, 5, probesPer === "batch" ? 0 : point, probe);
        return v.reduce(
          (sum, sign, i) => sum + sign * v.reduce((row, other, j) => row + jacobian![point * d * d + i * d + j]! * other, 0),
          0,
        );
      });
      return { mean: mean(samples), standardError: spread(samples) / Math.sqrt(3) };
    });
    const result = evaluateReference(network, points, { context, method: "hutchinson", probes: 3, seed: 5, probesPer });
    const within = { relative: 1e-12, absolute: 1e-12 };
    expectClose(
      result.divergence!,
      expected.map((each) => each.mean),
      entrySums(network),
      within,
    );
    expectClose(
      result.standardError!,
      expected.map((each) => each.standardError),
      entrySums(network),
      within,
    );
  });

  const { network } = fields.find(({ name }) => name === "2 hidden layers")!;
  const method = "hutchinson";

  test("gives the same numbers for the same seed and others for another, and one seed unless told", async () => {
    const field = await VectorField.create(device, network);
    for (const probesPer of ["batch", "point"] as const) {
      const at = (seed?: number): Promise<Float32Array> => field.divergence(points, { context, method, probesPer, probes: 3, seed });
      expect(await at(7)).toEqual(await at(7));
      expect(await at()).toEqual(await at(0));
      const [first, other] = [await at(7), await at(8)];
      for (let point = 0; point < count; point++) expect(Math.abs(first[point]! - other[point]!)).toBeGreaterThan(1e-5);
    }
    field.destroy();
  });

  test("draws one set of probes for the batch, or one for each point", async () => {
    const same = { data: Float32Array.from({ length: 4 * d }, (_, index) => points[index % d]!), shape: [4, d] };
    const field = await VectorField.create(device, network);
    const shared = await field.divergence(same, { context, method, probes: 3, probesPer: "batch" });
    const own = await field.divergence(same, { context, method, probes: 3, probesPer: "point" });
    expect(new Set(shared).size).toBe(1);
    expect(new Set(own).size).toBe(4);
    expect(own).toEqual(await field.divergence(same, { context, method, probes: 3 }));
    field.destroy();
  });

  test("does not depend on chunks of points or probes", async () => {
    const many = randomPoints(3, 500, d);
    for (const probesPer of ["batch", "point"] as const) {
      const options = { context, method, probesPer, probes: 10 } as const;
      const whole = await VectorField.create(device, network);
      const expected = await whole.evaluate(many, options);
      const chunked = await VectorField.create(device, network, { memoryBudget: 2 ** 16 });
      const progress: number[] = [];
      const result = await chunked.evaluate(many, { ...options, onProgress: ({ done }) => progress.push(done) });
      expect(progress.length).toBeGreaterThan(4);
      expect(progress.at(-1)).toBe(500);
      const scale = Array<number>(500).fill(1);
      const within = { relative: 1e-6, absolute: 0 };
      expectClose(result.divergence, expected.divergence, scale, within);
      expectClose(result.standardError!, expected.standardError!, scale, within);
      const thrice = await whole.evaluate(many, { ...options, chunkSize: 3 });
      expectClose(thrice.divergence, expected.divergence, scale, within);
      whole.destroy();
      chunked.destroy();
    }
  });

  test.for(["batch", "point"] as const)(
    "comes close to the exact divergence with many probes per %s, within five standard errors",
    async (probesPer) => {
      const exact = evaluateReference(network, points, { context }).divergence!;
      const field = await VectorField.create(device, network);
      const { divergence, standardError } = await field.evaluate(points, { context, method, probesPer, probes: 4096, seed: 3 });
      for (let point = 0; point < count; point++) {
        expect(Math.abs(divergence[point]! - exact[point]!)).toBeLessThan(5 * standardError![point]! + 1e-6);
        // A standard error of a 64th of that of one probe.
        expect(standardError![point]).toBeLessThan(entrySums(network)[point]! / 64);
        expect(standardError![point]).toBeGreaterThan(0);
      }
      field.destroy();
    },
  );

  test("has a standard error of the size that its estimates spread by over seeds", () => {
    const runs = Array.from({ length: 400 }, (_, seed) =>
      evaluateReference(network, points.subarray(0, 3 * d), { context, method, probes: 20, seed }),
    );
    for (let point = 0; point < 3; point++) {
      const observed = spread(runs.map(({ divergence }) => divergence![point]!));
      const stated = Math.sqrt(mean(runs.map(({ standardError }) => standardError![point]! ** 2)));
      expect(observed / stated).toBeGreaterThan(0.85);
      expect(observed / stated).toBeLessThan(1.15);
    }
  });

  test("has it on the GPU too, over the probes of the same point many times", async () => {
    const same = Float32Array.from({ length: 800 * d }, (_, index) => points[index % d]!);
    const field = await VectorField.create(device, network);
    const { divergence, standardError } = await field.evaluate(same, { context, method, probes: 20 });
    const ratio = spread(divergence) / Math.sqrt(mean(standardError!.map((x) => x * x)));
    expect(ratio).toBeGreaterThan(0.85);
    expect(ratio).toBeLessThan(1.15);
    const exact = evaluateReference(network, points.subarray(0, d), { context }).divergence![0]!;
    expect(Math.abs(mean(divergence) - exact)).toBeLessThan((5 * spread(divergence)) / Math.sqrt(800));
    field.destroy();
  });

  test("cannot tell its error from one probe, and has none to tell beside an exact method", async () => {
    const field = await VectorField.create(device, network);
    const one = await field.evaluate(points, { context, method, probes: 1 });
    expect([...one.standardError!]).toEqual(Array<number>(count).fill(NaN));
    expect([...one.divergence].every(Number.isFinite)).toBe(true);
    expect([...evaluateReference(network, points, { context, method, probes: 1 }).standardError!]).toEqual(Array<number>(count).fill(NaN));
    expect("standardError" in (await field.evaluate(points, { context }))).toBe(false);
    field.destroy();
  });

  test("is exact with a single probe, whichever, where the Jacobian is diagonal", async () => {
    const uniform = random(5);
    const diagonal = (): number[][] =>
      Array.from({ length: d }, (_, i) => Array.from({ length: d }, (_, j) => (i === j ? uniform() + 0.5 : 0)));
    const net = mlp({ layers: [{ weight: diagonal() }, { weight: diagonal() }, { weight: diagonal() }], activation: "tanh" });
    const exact = evaluateReference(net, points, { method: "tangent" }).divergence!;
    const field = await VectorField.create(device, net);
    for (const probesPer of ["batch", "point"] as const)
      for (const seed of [0, 1, 2]) {
        const options = { method, probesPer, seed, probes: 1 } as const;
        expectClose(await field.divergence(points, options), exact, exact);
        expectClose(evaluateReference(net, points, options).divergence!, exact, exact, { relative: 1e-13, absolute: 0 });
      }
    field.destroy();
  });

  test("draws signs that are balanced and independent between coordinates, probes, points and seeds", () => {
    const size = 50;
    const draws = Array.from({ length: 2000 }, (_, k) => rademacher(size, k % 5, Math.floor(k / 5) % 20, Math.floor(k / 100)));
    expect(draws.every((v) => v.every((sign) => sign === 1 || sign === -1))).toBe(true);
    const bound = 5 / Math.sqrt(draws.length);
    for (let i = 0; i < size; i++) {
      expect(Math.abs(mean(draws.map((v) => v[i]!)))).toBeLessThan(bound);
      for (let j = 0; j < i; j++) expect(Math.abs(mean(draws.map((v) => v[i]! * v[j]!)))).toBeLessThan(bound);
    }
    for (const step of [1, 5, 100]) {
      const pairs = draws.slice(step).map((v, k) => mean(v.map((sign, i) => sign * draws[k]![i]!)));
      expect(Math.abs(mean(pairs))).toBeLessThan(5 / Math.sqrt(pairs.length * size));
    }
  });
});

describe("difference", () => {
  test.for(fields)("is right to three digits on the GPU: $name", async ({ network }) => {
    const exact = evaluateReference(network, points, { context, method: "tangent", outputs: ["divergence", "diagonal"] });
    const field = await VectorField.create(device, network);
    const result = await field.evaluate(points, { context, method: "difference", outputs: ["divergence", "diagonal"] });
    const scale = entrySums(network);
    expectClose(result.divergence, exact.divergence!, scale, { relative: 1e-3, absolute: 0 });
    expectClose(
      result.diagonal,
      exact.diagonal!,
      exact.diagonal!.map((_, index) => scale[Math.floor(index / d)]!),
      { relative: 1e-3, absolute: 0 },
    );
    const few = await field.evaluate(points, { context, method: "difference", outputs: ["divergence"], chunkSize: 4 });
    expectClose(few.divergence, result.divergence, scale, { relative: 1e-4, absolute: 0 });
    field.destroy();
  });

  test.for(fields)("gains two digits with a step ten times smaller in float64: $name", ({ network }) => {
    const exact = evaluateReference(network, points, { context, method: "tangent" }).divergence!;
    const scale = entrySums(network);
    for (const step of [1e-2, 1e-3, 1e-4, 1e-5]) {
      const { divergence } = evaluateReference(network, points, { context, method: "difference", step });
      expectClose(divergence!, exact, scale, { relative: 10 * step ** 2, absolute: 1e-9, label: `step ${step}` });
    }
  });

  test("is inexact: a large step shows, and a tiny one drowns in float32", async () => {
    const { network } = randomMlp({ seed: 12, widths: [d, 21, 21, d], activation: "silu" });
    const exact = evaluateReference(network, points).divergence!;
    const field = await VectorField.create(device, network);
    const errorAt = async (step?: number): Promise<number> => {
      const divergence = await field.divergence(points, { method: "difference", step });
      return Math.max(...divergence.map((x, point) => Math.abs(x - exact[point]!)));
    };
    const [large, standard, tiny] = [await errorAt(0.9), await errorAt(), await errorAt(1e-6)];
    expect(large).toBeGreaterThan(10 * standard);
    expect(tiny).toBeGreaterThan(10 * standard);
    field.destroy();
  });

  test("moves points in proportion where they are large, so that float32 does not lose the step", async () => {
    // f = x / 4, at points where adding 2^-7 alone would be rounded away.
    const field = await VectorField.create(device, mlp({ layers: [{ weight: [[0.25]] }] }));
    expect([...(await field.divergence([1e7, -3e8, 0], { method: "difference" }))]).toEqual([0.25, 0.25, 0.25]);
    field.destroy();
  });
});

describe("auto", () => {
  test("never takes either of them, however cheap", () => {
    const uniform = random(9);
    const draw = (most: number): number => 1 + Math.floor(most * uniform());
    for (let run = 0; run < 300; run++) {
      const size = draw(200);
      const { network } = randomMlp({
        seed: run,
        widths: [size, ...Array.from({ length: draw(6) - 1 }, () => draw(100)), size],
        activation: run % 2 ? "tanh" : "identity",
      });
      const wanted = outputs.filter((output) => output !== "curl" && uniform() < 0.5);
      const { method, candidates } = explainPlan(network, {
        outputs: wanted.length > 0 ? wanted : ["divergence"],
        probes: 1,
        probesPer: "batch",
      });
      expect(["difference", "hutchinson"]).not.toContain(method);
      expect(candidates.filter(({ exact }) => !exact).map((candidate) => candidate.method)).toEqual(["difference", "hutchinson"]);
    }
  });
});
