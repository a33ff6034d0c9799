/** The float64 twin of Flow: against trained flows' truth, known paths and densities, and the orders of the methods. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  FieldFlow,
  Flow,
  InputError,
  logProbReference,
  mlp,
  parseSafetensors,
  ReferenceField,
  solvers,
  transportReference,
  type Network,
  type TransportReferenceOptions,
} from "../src/index.js";
import { tableaus } from "../src/ode/tableaus.js";
import { openDevice } from "./device.js";
import { loadModel, randomMlp, randomPoints } from "./fields.js";
import { readTensors } from "./tensors.js";

function farthest(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let most = 0;
  for (let i = 0; i < expected.length; i++) most = Math.max(most, Math.abs(actual[i]! - expected[i]!));
  return most;
}

/** ẋ = A x + b. */
function affine(a: readonly (readonly number[])[], bias?: readonly number[]): Network {
  return mlp({ layers: [{ weight: a, bias }] });
}

const controlled = solvers.filter((solver) => tableaus[solver].error);

describe.each([
  { name: "two-moons-flow", points: 4 },
  { name: "checkerboard-flow", points: 2 },
  { name: "digits-flow", points: 2 },
])("$name", ({ name, points: count }) => {
  const network = parseSafetensors(loadModel(name).bytes);
  const { stateSize: d } = network;
  const { tensors } = readTensors(readFileSync(new URL(`vectors/flows/${name}.safetensors`, import.meta.url)));
  const of = (tensor: string, width: number): Float64Array => tensors.get(tensor)!.subarray(0, count * width);

  test("log p, and where the points come from", () => {
    for (const solver of ["tsit5", "dopri5"] as const) {
      const { logProb, base, status } = logProbReference(network, of("points", d), { solver });
      expect(new Set(status)).toEqual(new Set(["done"]));
      expect(farthest(logProb, of("log_density", 1))).toBeLessThan(1e-6);
      expect(farthest(base, of("points_at_0", d))).toBeLessThan(1e-6);
    }
  });

  test("without keeping the thread, and samples", async () => {
    const flow = new FieldFlow(new ReferenceField(network));
    const done: number[] = [];
    const { logProb } = await flow.logProb(of("points", d), { onProgress: (progress) => void done.push(progress.done) });
    expect(logProb).toEqual(logProbReference(network, of("points", d)).logProb);
    expect(done.at(-1)).toBe(count);
    const samples = await flow.sample(2, { seed: 5, rtol: 1e-7, atol: 1e-7 });
    expect(farthest(logProbReference(network, samples.points).logProb, samples.logProb)).toBeLessThan(1e-5);
    const aborting = AbortSignal.abort(new Error("enough"));
    await expect(flow.sample(2, { signal: aborting })).rejects.toThrow("enough");
  });

  test("from noise to data", () => {
    const { points, divergenceIntegral } = transportReference(network, of("start", d));
    expect(farthest(points, of("end", d))).toBeLessThan(1e-6);
    expect(farthest(divergenceIntegral, of("divergence_integral", 1))).toBeLessThan(1e-6);
  });

  test.each(["euler", "midpoint", "heun", "rk4"] as const)("20 steps of %s", (solver) => {
    const { points, divergenceIntegral, evaluations, status } = transportReference(network, of("start", d), { solver, steps: 20 });
    expect(farthest(points, of(`${solver}_20.end`, d))).toBeLessThan(1e-10);
    expect(farthest(divergenceIntegral, of(`${solver}_20.divergence_integral`, 1))).toBeLessThan(1e-10);
    expect(new Set(evaluations)).toEqual(new Set([20 * { euler: 1, midpoint: 2, heun: 2, rk4: 4 }[solver]]));
    expect(new Set(status)).toEqual(new Set(["done"]));
  });
});

test.each(controlled)("the steps by %s are those that a device takes", async (solver) => {
  const { device, close } = await openDevice();
  const network = parseSafetensors(loadModel("two-moons-flow").bytes);
  const points = randomPoints(6, 32, 2);
  // In float32 an error far below a smaller tolerance than this is rounding, and the first steps grow less.
  const options = { solver, rtol: 1e-2, atol: 1e-2 };
  const flow = await Flow.create(device, network);
  const { logProb, evaluations } = await flow.logProb(points, options);
  flow.destroy();
  await close();
  const reference = logProbReference(network, points, options);
  const stages = tableaus[solver].b.length - 1;
  const same = evaluations.filter((each, point) => each === reference.evaluations[point]).length;
  expect(same).toBeGreaterThanOrEqual(solver === "tsit5" ? 16 : 28);
  expect(farthest(evaluations, reference.evaluations)).toBeLessThanOrEqual(stages);
  expect(farthest(logProb, reference.logProb)).toBeLessThan(1e-2);
});

/** R^T tanh(R x) with R orthogonal: y = R x has ẏ = tanh y, of which sinh y(t) = e^t sinh y(0). */
const [cos, sin] = [Math.cos(0.7), Math.sin(0.7)];
const tanhField = mlp({
  activation: "tanh",
  layers: [
    {
      weight: [
        [cos, -sin],
        [sin, cos],
      ],
    },
    {
      weight: [
        [cos, sin],
        [-sin, cos],
      ],
    },
  ],
});

function tanhTruth([x, y]: readonly [number, number], t: number): { point: number[]; integral: number } {
  const before = [cos * x - sin * y, sin * x + cos * y];
  const after = before.map((each) => Math.asinh(Math.exp(t) * Math.sinh(each)));
  const integral = before.reduce((sum, each, i) => sum + t + Math.log(Math.cosh(each)) - Math.log(Math.cosh(after[i]!)), 0);
  return { point: [cos * after[0]! + sin * after[1]!, -sin * after[0]! + cos * after[1]!], integral };
}

describe("known answers", () => {
  test.each(controlled)("R^T tanh(R x) by %s", (solver) => {
    for (const t of [1.5, -1]) {
      const starts: [number, number][] = [
        [0.3, -1.2],
        [2, 0.1],
      ];
      const { points, divergenceIntegral } = transportReference(tanhField, starts.flat(), { solver, from: 0, to: t });
      const truth = starts.map((start) => tanhTruth(start, t));
      expect(
        farthest(
          points,
          truth.flatMap(({ point }) => point),
        ),
      ).toBeLessThan(1e-7);
      expect(
        farthest(
          divergenceIntegral,
          truth.map(({ integral }) => integral),
        ),
      ).toBeLessThan(1e-7);
    }
  });

  test("a rotation keeps volumes, an affine field changes them by t tr A", () => {
    const rotation = affine([
      [0, -2],
      [2, 0],
    ]);
    const turned = transportReference(rotation, [1, 0], { to: 3 });
    expect(farthest(turned.points, [Math.cos(6), Math.sin(6)])).toBeLessThan(1e-7);
    expect(Math.abs(turned.divergenceIntegral[0]!)).toBeLessThan(1e-14);

    const field = affine(
      [
        [0.5, 1],
        [0, -2],
      ],
      [1, -1],
    );
    const { points, divergenceIntegral } = transportReference(field, [1, 2], { from: 0.5, to: 2 });
    expect(divergenceIntegral[0]).toBeCloseTo(-1.5 * 1.5, 12);
    // y = -1/2 + 5/2 e^(-2s), and x' = x/2 + 1 + y.
    const s = 1.5;
    expect(points[1]).toBeCloseTo(-0.5 + 2.5 * Math.exp(-2 * s), 8);
    expect(points[0]).toBeCloseTo(-1 - Math.exp(-2 * s) + 3 * Math.exp(s / 2), 7);
  });

  test("noise stretched by e^0.8 is normal data of that deviation", () => {
    const field = affine([[0.8]]);
    const { logProb, base, status, shape } = logProbReference(field, [0.5, -3]);
    const truth = [0.5, -3].map((x) => -((x / Math.exp(0.8)) ** 2) / 2 - 0.8 - Math.log(2 * Math.PI) / 2);
    expect(farthest(logProb, truth)).toBeLessThan(1e-8);
    expect(base[0]).toBeCloseTo(0.5 / Math.exp(0.8), 8);
    expect(status).toEqual(["done", "done"]);
    expect(shape).toEqual([2]);
    // The other way round, from another base: uniform density 1/2 at data time 0 of noise at time 1.
    const uniform = {
      logProb: (points: ArrayLike<number>) => Array.from({ length: points.length }, () => -Math.log(2)),
      sample: () => new Float32Array(),
    };
    const other = logProbReference(field, [0.1], { noiseAt: 1, dataAt: 0, base: uniform });
    expect(other.logProb[0]).toBeCloseTo(0.8 - Math.log(2), 8);
  });

  test("there and back", () => {
    const { network } = randomMlp({ seed: 3, widths: [3, 20, 20, 3], activation: "silu", contextSize: 1 });
    const start = Float64Array.from(randomPoints(4, 4, 3));
    const there = transportReference(network, start, { from: 0, to: 2 });
    const back = transportReference(network, there.points, { from: 2, to: 0 });
    expect(farthest(back.points, start)).toBeLessThan(1e-7);
    expect(
      farthest(
        back.divergenceIntegral,
        there.divergenceIntegral.map((each) => -each),
      ),
    ).toBeLessThan(1e-7);
  });

  test("from one time to the same is no way at all", () => {
    const { points, divergenceIntegral, evaluations, status } = transportReference(tanhField, [1, 2], { from: 1, to: 1 });
    expect([...points, ...divergenceIntegral, ...evaluations]).toEqual([1, 2, 0, 1]);
    expect(status).toEqual(["done"]);
  });
});

describe("orders of convergence", () => {
  // Fast enough in state and time that the leading term of tsit5's error, a small one, is all of it before float64 ends.
  const field = mlp({
    activation: "sin",
    layers: [
      {
        weight: [
          [2.5, 1.25, 2],
          [-1.5, 2.5, 1],
        ],
        bias: [0, 0.4],
      },
      {
        weight: [
          [1.2, 0.3],
          [-0.4, 1.1],
        ],
      },
    ],
  });
  const start = [0.4, -0.7];
  const exact = transportReference(field, start, { solver: "dopri5", rtol: 1e-15, atol: 1e-15 });
  const errorOf = (options: TransportReferenceOptions): number => {
    const { points, divergenceIntegral } = transportReference(field, start, options);
    return Math.hypot(...points.map((x, i) => x - exact.points[i]!), divergenceIntegral[0]! - exact.divergenceIntegral[0]!);
  };

  test.each(solvers)("%s", (solver) => {
    const { order } = tableaus[solver];
    const coarse = order === 1 ? 512 : 64;
    const slope = Math.log2(errorOf({ solver, steps: coarse }) / errorOf({ solver, steps: 2 * coarse }));
    expect(Math.abs(slope - order), `slope ${slope}`).toBeLessThan(0.2);
  });

  test.each(controlled)("%s keeps to its tolerance, with more steps for a smaller one", (solver) => {
    let evaluations = 0;
    for (const tolerance of [1e-4, 1e-6, 1e-8]) {
      expect(errorOf({ solver, rtol: tolerance, atol: tolerance })).toBeLessThan(30 * tolerance);
      const [taken] = transportReference(field, start, { solver, rtol: tolerance, atol: tolerance }).evaluations;
      expect(taken).toBeGreaterThan(evaluations);
      evaluations = taken!;
    }
  });
});

describe("paths that end early", () => {
  // ẋ = x² is infinite at t = 1 from x = 1; from 0.1 at t = 10.
  const blowUp: Network = {
    stateSize: 1,
    contextSize: 0,
    operations: [{ kind: "activation", operand: "state", activation: { name: "square", parameters: [] } }],
  };

  test("a blow-up ends with a status, and the others go on", () => {
    for (const solver of controlled) {
      const { points, divergenceIntegral, status } = transportReference(blowUp, [1, 0.1], { solver, to: 2, rtol: 1e-7, atol: 1e-7 });
      expect(["not finite", "step too small"]).toContain(status[0]);
      expect(status[1]).toBe("done");
      expect([points[0], divergenceIntegral[0]]).toEqual([NaN, NaN]);
      expect(points[1]).toBeCloseTo(0.1 / (1 - 0.2), 6);
    }
    const { points, status, evaluations } = transportReference(blowUp, [1, 0.1], { solver: "euler", steps: 200, to: 20 });
    expect(status).toEqual(["not finite", "not finite"]);
    expect([...points]).toEqual([NaN, NaN]);
    expect([...evaluations]).toEqual([200, 200]);
    expect(logProbReference(blowUp, [-2, 0]).status[0]).not.toBe("done");
  });

  test("maxSteps", () => {
    const { points, status, evaluations } = transportReference(tanhField, [0.1, 2], { maxSteps: 3 });
    expect(status).toEqual(["out of steps"]);
    expect([...points]).toEqual([NaN, NaN]);
    expect([...evaluations]).toEqual([1 + 3 * 6]);
    expect(logProbReference(tanhField, [0.1, 2], { maxSteps: 3 }).logProb).toEqual(Float64Array.of(NaN));
  });

  test("a point that is none", () => {
    const { points, status } = transportReference(tanhField, [NaN, 2, 0, 0]);
    expect(status).toEqual(["not finite", "done"]);
    expect([...points]).toEqual([NaN, NaN, 0, 0]);
  });
});

describe("options", () => {
  // ẋ = c - x with a condition c, before time or behind it: time has a weight of its own.
  const conditioned = mlp({ layers: [{ weight: [[-1, 1, 0.5]] }], contextColumns: "last" });
  const truth = (x: number, c: number, t: number): number => {
    // x(t) = c - 1/2 + t/2 + k e^-t
    return c - 0.5 + t / 2 + (x - c + 0.5) * Math.exp(-t);
  };

  test("a condition beside time, one for all or one per point", () => {
    const one = transportReference(conditioned, [1, 2], { timeColumn: 1, condition: 3 });
    expect(farthest(one.points, [truth(1, 3, 1), truth(2, 3, 1)])).toBeLessThan(1e-8);
    const each = transportReference(conditioned, [1, 2], { timeColumn: 1, condition: [3, -1] });
    expect(farthest(each.points, [truth(1, 3, 1), truth(2, -1, 1)])).toBeLessThan(1e-8);
    // Without time, both columns are a condition.
    const still = transportReference(conditioned, [1], { timeColumn: null, condition: [3, 2] });
    expect(still.points[0]).toBeCloseTo(4 - 3 * Math.exp(-1), 8);
    expect(() => transportReference(conditioned, [1], { condition: 3 })).toThrow(InputError);
  });

  test("Hutchinson's estimate has one set of probes for a path, a function of the seed", () => {
    const divergence = { method: "hutchinson", probes: 2, seed: 5 } as const;
    const diagonal = affine([
      [0.3, 0],
      [0, -1],
    ]);
    // Of a diagonal Jacobian it is exact.
    const { divergenceIntegral } = transportReference(diagonal, [1, 2], { divergence });
    expect(divergenceIntegral[0]).toBeCloseTo(-0.7, 12);
    const { network } = randomMlp({ seed: 8, widths: [4, 16, 4], activation: "tanh", contextSize: 1 });
    const points = Float64Array.from(randomPoints(9, 2, 4));
    const integralOf = (seed: number, probes: number): Float64Array =>
      transportReference(network, points, { divergence: { method: "hutchinson", probes, seed }, rtol: 1e-6, atol: 1e-6 })
        .divergenceIntegral;
    const exact = transportReference(network, points, { rtol: 1e-6, atol: 1e-6 }).divergenceIntegral;
    expect(integralOf(1, 2)).toEqual(integralOf(1, 2));
    expect(integralOf(1, 2)).not.toEqual(integralOf(2, 2));
    expect(farthest(integralOf(1, 2), exact)).toBeGreaterThan(1e-4);
    expect(farthest(integralOf(1, 2000), exact)).toBeLessThan(0.05);
  });

  test("a point's answer does not depend on the others, and shapes are kept", () => {
    const points = Float64Array.from(randomPoints(2, 6, 2));
    const all = logProbReference(tanhField, { data: points, shape: [2, 3, 2] });
    expect(all.shape).toEqual([2, 3]);
    for (let i = 0; i < 6; i++) expect(logProbReference(tanhField, points.slice(2 * i, 2 * i + 2)).logProb[0]).toBe(all.logProb[i]);
    expect(logProbReference(tanhField, []).logProb).toEqual(new Float64Array());
    const { network } = randomMlp({ seed: 8, widths: [4, 16, 4], activation: "tanh", contextSize: 1 });
    expect(transportReference(network, []).status).toEqual([]);
  });

  test("progress and abort", () => {
    const seen: number[] = [];
    const controller = new AbortController();
    const options = {
      signal: controller.signal,
      onProgress: ({ done, total }: { done: number; total: number }) => {
        seen.push(done / total);
        if (done === 2) controller.abort(new Error("enough"));
      },
    };
    expect(() => transportReference(tanhField, new Float64Array(8), options)).toThrow("enough");
    expect(seen).toEqual([0.25, 0.5]);
  });

  test("what is wrong is refused", () => {
    expect(() => transportReference(tanhField, [1, 2], null as never)).toThrow(InputError);
    expect(() => transportReference(tanhField, [1, 2, 3])).toThrow(InputError);
    expect(() => transportReference(tanhField, [1, 2], { from: NaN })).toThrow(/from/);
    expect(() => transportReference(tanhField, [1, 2], { to: "1" as never })).toThrow(/to is/);
    expect(() => transportReference(tanhField, [1, 2], { solver: "rk4" })).toThrow(/steps/);
    expect(() => transportReference(tanhField, [1, 2], { rtol: 0 })).toThrow(/rtol/);
    expect(() => logProbReference(tanhField, [1, 2], { noiseAt: 1 })).toThrow(/noiseAt and dataAt/);
    expect(() => logProbReference(tanhField, [1, 2], { divergence: { method: "hutchinson", probes: 0 } })).toThrow(/probes/);
  });
});
