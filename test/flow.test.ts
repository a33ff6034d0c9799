import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Flow, InputError, LimitError, logProbReference, mlp, normalBase, transportReference, type Network } from "../src/index.js";
import { parseActivation } from "../src/model/activation.js";
import { parseSafetensors } from "../src/model/readers/safetensors.js";
import { makeBuffer, readBuffer } from "./buffers.js";
import { openDevice } from "./device.js";
import { loadModel, randomMlp, randomPoints } from "./fields.js";
import { Draw } from "./numbers/draw.js";
import { drawNetwork } from "./numbers/networks.js";
import { readTensors } from "./tensors.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

const flows = [
  { name: "two-moons-flow", tolerance: 2e-4 },
  { name: "checkerboard-flow", tolerance: 3e-4 },
  { name: "digits-flow", tolerance: 1e-3 },
];

function expectNear(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, label: string): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++)
    if (!(Math.abs(actual[i]! - expected[i]!) <= tolerance)) expect.fail(`${label}[${i}] is ${actual[i]}; expected ${expected[i]}`);
}

describe.each(flows)("$name", ({ name, tolerance }) => {
  const network = parseSafetensors(loadModel(name).bytes);
  const { tensors } = readTensors(readFileSync(new URL(`vectors/flows/${name}.safetensors`, import.meta.url)));
  const of = (tensor: string): Float64Array => tensors.get(tensor) ?? expect.unreachable(`there is no ${tensor}`);

  test("log p, and where the points come from", async () => {
    const flow = await Flow.create(device, network);
    for (const solver of ["tsit5", "dopri5"] as const) {
      const { logProb, base, status, evaluations } = await flow.logProb(of("points"), { solver, rtol: 1e-6, atol: 1e-6 });
      expect(new Set(status)).toEqual(new Set(["done"]));
      expectNear(logProb, of("log_density"), tolerance, `${solver}: log p`);
      expectNear(base, of("points_at_0"), 1e-3, `${solver}: base`);
      for (const each of evaluations) expect(each).toBeGreaterThan(7);
    }
    flow.destroy();
  });

  test.each(["euler", "midpoint", "heun", "rk4"] as const)("20 steps of %s", async (solver) => {
    const flow = await Flow.create(device, network);
    const { points, divergenceIntegral, evaluations } = await flow.transport(of("start"), { solver, steps: 20 });
    expectNear(points, of(`${solver}_20.end`), 1e-4, "x");
    expectNear(divergenceIntegral, of(`${solver}_20.divergence_integral`), 1e-4, "the integral");
    expect(new Set(evaluations)).toEqual(new Set([20 * { euler: 1, midpoint: 2, heun: 2, rk4: 4 }[solver]]));
    flow.destroy();
  });
});

const twoMoons = parseSafetensors(loadModel("two-moons-flow").bytes);
const dense = (rows: readonly (readonly number[])[], bias?: readonly number[]) => ({ weight: rows, ...(bias && { bias }) });

describe("known answers", () => {
  test("of an affine field: e^A x, and t tr A", async () => {
    const flow = await Flow.create(
      device,
      mlp({
        layers: [
          dense([
            [0.3, 0],
            [0, -0.7],
          ]),
        ],
      }),
    );
    const { points, divergenceIntegral } = await flow.transport([1, 2, -1, 0.5], { to: 2 });
    expectNear(points, [Math.exp(0.6), 2 * Math.exp(-1.4), -Math.exp(0.6), 0.5 * Math.exp(-1.4)], 1e-5, "x");
    expectNear(divergenceIntegral, [-0.8, -0.8], 1e-5, "the integral");
    flow.destroy();
  });

  test("of a rotation: once around, and 0", async () => {
    const flow = await Flow.create(
      device,
      mlp({
        layers: [
          dense([
            [0, -1],
            [1, 0],
          ]),
        ],
      }),
    );
    const { points, divergenceIntegral } = await flow.transport([1, 0, 0.3, -2], { to: 2 * Math.PI, rtol: 1e-6, atol: 1e-6 });
    expectNear(points, [1, 0, 0.3, -2], 2e-5, "x");
    expectNear(divergenceIntegral, [0, 0], 1e-6, "the integral");
    flow.destroy();
  });

  test.each([2, 64])("of Rᵀ tanh(R x) with R orthogonal, in %i dimensions", async (d) => {
    // Householder's reflection.
    const v = randomPoints(1, 1, d);
    const square = v.reduce((sum, x) => sum + x * x, 0);
    const R = Array.from({ length: d }, (_, i) => Array.from({ length: d }, (_, j) => (i === j ? 1 : 0) - (2 * v[i]! * v[j]!) / square));
    const flow = await Flow.create(device, mlp({ layers: [dense(R), dense(R)], activation: "tanh" }));
    const x = randomPoints(2, 5, d);
    const { points, divergenceIntegral } = await flow.transport(x, { rtol: 1e-6, atol: 1e-6 });
    const turned = (of: ArrayLike<number>, b: number) => R.map((row) => row.reduce((sum, r, j) => sum + r * of[b * d + j]!, 0));
    for (let b = 0; b < 5; b++) {
      const [before, after] = [turned(x, b), turned(points, b)];
      expectNear(
        after.map(Math.sinh),
        before.map((y) => Math.E * Math.sinh(y)),
        d === 2 ? 1e-4 : 1e-3,
        "sinh y",
      );
      const integral = before.reduce((sum, y, i) => sum + 1 + Math.log(Math.cosh(y) / Math.cosh(after[i]!)), 0);
      expectNear([divergenceIntegral[b]!], [integral], d === 2 ? 1e-5 : 1e-4, "the integral");
    }
    flow.destroy();
  });

  test("of Gaussian to Gaussian by flow matching: v = μ + b(t) (x - t μ), b = (t σ² - (1 - t)) / ((1 - t)² + t² σ²)", async () => {
    const [mean, deviation] = [
      [0.5, -1],
      [0.4, 1.7],
    ] as const;
    const squares = deviation.map((s) => s * s);
    const column = (data: readonly number[]) => ({ rows: data.length, columns: 1, data: Float64Array.from(data) });
    const keep = { diagonal: new Float64Array([1, 1]) };
    const network: Network = {
      stateSize: 2,
      contextSize: 1,
      operations: [
        { kind: "linear", terms: [{ operand: "context", weight: column([1, 1]) }], bias: null }, // t
        { kind: "product", operands: [0, 0] }, // t²
        {
          kind: "linear",
          terms: [
            { operand: 1, weight: { diagonal: Float64Array.from(squares, (s) => 1 + s) } },
            { operand: 0, weight: { diagonal: new Float64Array([-2, -2]) } },
          ],
          bias: new Float64Array([1, 1]),
        },
        { kind: "activation", operand: 2, activation: parseActivation("reciprocal") },
        {
          kind: "linear",
          terms: [{ operand: 0, weight: { diagonal: Float64Array.from(squares, (s) => 1 + s) } }],
          bias: new Float64Array([-1, -1]),
        },
        { kind: "product", operands: [4, 3] }, // b(t)
        {
          kind: "linear",
          terms: [
            { operand: "state", weight: keep },
            { operand: "context", weight: column(mean.map((m) => -m)) },
          ],
          bias: null,
        },
        { kind: "product", operands: [6, 5] },
        { kind: "linear", terms: [{ operand: 7, weight: keep }], bias: Float64Array.from(mean) },
      ],
    };
    const flow = await Flow.create(device, network);
    const x = randomPoints(5, 30, 2, 1.5);
    const { logProb } = await flow.logProb(x, { rtol: 1e-6, atol: 1e-6 });
    const expected = logProb.map((_, b) =>
      mean.reduce((sum, m, i) => {
        const z = (x[2 * b + i]! - m) / deviation[i]!;
        return sum - (z * z) / 2 - Math.log(deviation[i]!) - Math.log(2 * Math.PI) / 2;
      }, 0),
    );
    // Within 1e-5 of a density, or of as much of log p far out.
    logProb.forEach((log, b) => expectNear([log], [expected[b]!], 1e-5 * Math.max(1, Math.abs(expected[b]!)), "log p"));
    flow.destroy();
  });

  test("there and back again", async () => {
    const flow = await Flow.create(device, twoMoons);
    const x = randomPoints(3, 50, 2);
    const there = await flow.transport(x);
    const back = await flow.transport(there.points, { from: 1, to: 0 });
    expectNear(back.points, x, 1e-3, "x");
    expectNear(
      back.divergenceIntegral,
      there.divergenceIntegral.map((l) => -l),
      1e-3,
      "the integral",
    );
    const path = await flow.transport(x, { times: [0.25, 0.5, 1] });
    expect(path.path).toHaveLength(3 * 50 * 2);
    expectNear(path.path!.subarray(200), path.points, 0, "the end of the path");
    expectNear(path.points, there.points, 1e-4, "by parts");
    flow.destroy();
  });

  test("the density of two moons sums up to 1, by kernels that were chosen first where the plain ones take long", async () => {
    const store = new Map<string, string>();
    const flow = await Flow.create(device, twoMoons, {
      store: { get: (key) => store.get(key), set: (key, value) => void store.set(key, value) },
    });
    await flow.logProb([0.5, 0.5]);
    const chosen = (): string[] => [...store.keys()].filter((key) => key.startsWith("deldot kernels"));
    expect(chosen()).toEqual([]);
    const side = 256;
    const cell = 8 / side;
    const grid = Float32Array.from({ length: 2 * side * side }, (_, i) => {
      const k = i % 2 === 0 ? (i >> 1) % side : Math.floor((i >> 1) / side);
      return -4 + (k + 0.5) * cell;
    });
    const { logProb } = await flow.logProb(grid, { solver: "rk4", steps: 10 });
    if (device.adapterInfo.isFallbackAdapter) expect(chosen()).toHaveLength(1);
    expect(Math.abs(logProb.reduce((sum, log) => sum + Math.exp(log), 0) * cell * cell - 1)).toBeLessThan(2e-4);
    flow.destroy();
  }, 300_000);
});

describe("each point by itself", () => {
  test("neither order nor company of the points changes a bit", async () => {
    const flow = await Flow.create(device, twoMoons, { kernels: "layers 4x4" });
    const count = 37;
    const x = randomPoints(4, count, 2);
    const whole = await flow.logProb(x);
    const reversed = await flow.logProb(Float32Array.from({ length: 2 * count }, (_, i) => x[2 * (count - 1 - (i >> 1)) + (i % 2)]!));
    expect(reversed.logProb.toReversed()).toEqual(whole.logProb);
    for (const point of [0, 17, 36]) {
      const alone = await flow.logProb(x.subarray(2 * point, 2 * point + 2));
      expect(alone.logProb[0]).toBe(whole.logProb[point]);
      expect(alone.evaluations[0]).toBe(whole.evaluations[point]);
    }
    // In several chunks.
    const small = await Flow.create(device, twoMoons, { kernels: "layers 4x4", memoryBudget: 40_000 });
    let calls = 0;
    expect((await small.logProb(x, { onProgress: () => void calls++ })).logProb).toEqual(whole.logProb);
    expect(calls).toBeGreaterThan(1);
    for (const each of [flow, small]) each.destroy();
  });

  test("samples have the density that logProb gives them, and the same seed the same samples", async () => {
    const flow = await Flow.create(device, twoMoons);
    const [one, again, other] = [
      await flow.sample(200, { seed: 3 }),
      await flow.sample(200, { seed: 3 }),
      await flow.sample(200, { seed: 4 }),
    ];
    expect(again).toEqual(one);
    expect(other.points).not.toEqual(one.points);
    expectNear((await flow.logProb(one.points)).logProb, one.logProb, 1e-3, "log p");
    const mean = one.logProb.reduce((sum, log) => sum + log, 0) / 200;
    // That of the 64 paths of the vectors is -2.54, with a standard error of 0.13.
    expect(Math.abs(mean + 2.5)).toBeLessThan(0.4);
    flow.destroy();
  });

  test("conditions of their own", async () => {
    const { network } = randomMlp({ seed: 3, widths: [2, 12, 12, 2], activation: "tanh", contextSize: 3 });
    const flow = await Flow.create(device, network, { timeColumn: 1 });
    const x = randomPoints(5, 6, 2);
    const condition = randomPoints(6, 6, 2);
    for (const options of [
      { rtol: 1e-6, atol: 1e-6 },
      { solver: "rk4", steps: 12 },
    ] as const) {
      const whole = await flow.logProb(x, { ...options, condition });
      for (let b = 0; b < 6; b++) {
        const alone = await flow.logProb(x.subarray(2 * b, 2 * b + 2), { ...options, condition: condition.subarray(2 * b, 2 * b + 2) });
        expectNear(alone.logProb, [whole.logProb[b]!], 1e-5, "alone");
      }
    }
    await expect(Flow.create(device, network)).rejects.toThrow(/timeColumn/);
    await expect(flow.logProb(x)).rejects.toThrow(/condition is missing/);
    flow.destroy();
  });

  test("an end of its own: a point that blows up, one that runs out of steps, one that is not finite", async () => {
    // ẋ = x², which is infinite at t = 1/x(0).
    const square = mlp({ layers: [dense([[1]]), dense([[1]])], activation: "power(2)" });
    const flow = await Flow.create(device, square);
    const { points, status } = await flow.transport([2, 0.5, NaN, -3]);
    expect(status[0]).toMatch(/not finite|step too small/);
    expect(status[1]).toBe("done");
    expect(status[2]).toBe("not finite");
    expect(status[3]).toBe("done");
    expectNear([points[1]!, points[3]!], [1, -0.75], 1e-4, "x");
    expect(points[0]).toBeNaN();
    expect(points[2]).toBeNaN();
    const short = await flow.transport([0.5], { maxSteps: 2 });
    expect(short.status).toEqual(["out of steps"]);
    expect(short.divergenceIntegral[0]).toBeNaN();
    const fixed = await flow.transport([2, 0.5], { solver: "euler", steps: 300 });
    expect(fixed.status[1]).toBe("done");
    let x = 0.5;
    for (let step = 0; step < 300; step++) x += (x * x) / 300;
    expectNear([fixed.points[1]!], [x], 1e-5, "by Euler's steps");
    flow.destroy();
    // A compiler may take the larger of NaN and 0 for 0.
    const { network: kinks } = randomMlp({ seed: 2, widths: [2, 8, 2], activation: "relu", contextSize: 2 });
    const conditioned = await Flow.create(device, kinks, { timeColumn: 0 });
    for (const options of [{}, { solver: "rk4", steps: 4 }] as const) {
      const { status: each } = await conditioned.logProb([1, 2, 3, 4], { ...options, condition: [NaN, 1] });
      expect(each).toEqual(["not finite", "done"]);
      const { logProb } = await conditioned.logProb([1, 2, 3, 4], { ...options, condition: Infinity });
      expect(Array.from(logProb)).toEqual([NaN, NaN]);
    }
    conditioned.destroy();
    for (const activation of ["relu", "selu"]) {
      const { network } = randomMlp({ seed: 1, widths: [3, 16, 16, 3], activation });
      const kinked = await Flow.create(device, network);
      expect(new Set((await kinked.transport(randomPoints(1, 20, 3))).status)).toEqual(new Set(["done"]));
      kinked.destroy();
    }
  });
});

test("∇ log p is the slope of log p", async () => {
  const flow = await Flow.create(device, twoMoons);
  const x = Float32Array.of(0.5, 0.3, -0.8, 1, 1.2, -0.2);
  const solve = { rtol: 1e-6, atol: 1e-6 } as const;
  const { score, status } = await flow.score(x, solve);
  expect(new Set(status)).toEqual(new Set(["done"]));
  const h = 2e-3;
  for (let i = 0; i < x.length; i++) {
    const [up, down] = [h, -h].map((step) => x.with(i, x[i]! + step));
    const [more, less] = [(await flow.logProb(up!, solve)).logProb, (await flow.logProb(down!, solve)).logProb];
    const slope = (more[i >> 1]! - less[i >> 1]!) / (up![i]! - down![i]!);
    expect(Math.abs(score[i]! - slope)).toBeLessThan(0.02 * (1 + Math.abs(slope)));
  }
  flow.destroy();
});

test("in an app's own buffers it is what logProb and transport give", async () => {
  const { network } = randomMlp({ seed: 3, widths: [3, 12, 12, 3], activation: "tanh", contextSize: 3 });
  for (const memoryBudget of [2 ** 28, 30_000]) {
    const flow = await Flow.create(device, network, { timeColumn: 1, memoryBudget, kernels: "layers 4x4" });
    const count = 100;
    const [x, condition] = [randomPoints(5, count, 3), randomPoints(6, count, 2)];
    const solve = { solver: "rk4", steps: 7 } as const;
    const points = makeBuffer(device, x);
    const [logProb, end, integral] = [makeBuffer(device, 2 * count), makeBuffer(device, 3 * count), makeBuffer(device, count)];
    const encoder = device.createCommandEncoder();
    flow.encodeLogProb(encoder, {
      ...solve,
      points,
      count,
      condition: makeBuffer(device, condition),
      logProb: { buffer: logProb, stride: 2 },
    });
    flow.encodeTransport(encoder, {
      ...solve,
      points,
      count,
      condition: [0.3, -0.4],
      from: 0.2,
      to: 0.9,
      end,
      divergenceIntegral: integral,
    });
    device.queue.submit([encoder.finish()]);
    const expected = await flow.logProb(x, { ...solve, condition });
    const read = await readBuffer(device, logProb);
    expectNear(
      read.filter((_, i) => i % 2 === 0),
      expected.logProb,
      1e-5,
      "log p",
    );
    expect(read.filter((_, i) => i % 2 === 1)).toEqual(new Float32Array(count).fill(7));
    const there = await flow.transport(x, { ...solve, condition: [0.3, -0.4], from: 0.2, to: 0.9 });
    expect(await readBuffer(device, end)).toEqual(there.points);
    expectNear(await readBuffer(device, integral), there.divergenceIntegral, 0, "the integral");
    const { bytesPerPoint, ...explained } = flow.explain(solve);
    expect(explained).toMatchObject({ evaluations: 28, evaluationsPerStep: 4 });
    // x and l with a slope of each at home, and what is read back of it twice.
    expect(bytesPerPoint).toBeGreaterThan(4 * 3 * (2 * 4 + 5 + 3));
    expect(bytesPerPoint).toBeLessThan(2000);
    expect(flow.explain().evaluations).toBe(null);
    const { evaluations } = await flow.logProb(x, { condition });
    const mean = evaluations.reduce((sum, each) => sum + each, 0) / count;
    expect(flow.explain().evaluations).toBe(mean);
    expect(flow.explain().text).toContain(`${Number(mean.toPrecision(3))} in all the last time`);
    expect(flow.explain({ rtol: 1e-3 }).evaluations).toBe(null);
    const bad = () => flow.encodeLogProb(device.createCommandEncoder(), { ...solve, points, count, condition: [1], logProb });
    expect(bad).toThrow(InputError);
    flow.destroy();
  }
});

test("a base of one's own, and progress on the way", async () => {
  // Uniform noise in the unit square, which a rotation keeps.
  const base = {
    logProb: (points: ArrayLike<number>) =>
      Array.from({ length: points.length / 2 }, (_, b) =>
        Math.max(Math.abs(points[2 * b]!), Math.abs(points[2 * b + 1]!)) <= 0.5 ? 0 : -Infinity,
      ),
    sample: (count: number) => Float32Array.from({ length: 2 * count }, (_, i) => (i % 7) / 7 - 0.5),
  };
  const rotation = mlp({
    layers: [
      dense([
        [0, -Math.PI / 2],
        [Math.PI / 2, 0],
      ]),
    ],
  });
  const flow = await Flow.create(device, rotation, { base });
  const { logProb } = await flow.logProb([0.2, 0.3, 2, 0]);
  expectNear([logProb[0]!], [0], 1e-5, "log p");
  expect(logProb[1]).toBe(-Infinity);
  const { points, evaluations } = await flow.sample(20);
  expect(points).toHaveLength(40);
  expect(evaluations.every((each) => each > 6)).toBe(true);
  await expect(flow.score([0.1, 0.2])).rejects.toThrow(/normal/);
  flow.destroy();
  const wrong = await Flow.create(device, rotation, { base: { logProb: () => [1], sample: () => new Float32Array(3) } });
  await expect(wrong.logProb([0.2, 0.3, 2, 0])).rejects.toThrow(/base.logProb gives 1 numbers; expected 2/);
  await expect(wrong.sample(2)).rejects.toThrow(/base.sample gives 3 numbers/);
  wrong.destroy();
  const other = await Flow.create(device, twoMoons);
  const done: number[] = [];
  await other.logProb(randomPoints(1, 100, 2), { onProgress: (progress) => void done.push(progress.done) });
  expect(done.length).toBeGreaterThan(1);
  expect(done.at(-1)).toBe(100);
  expect(done).toEqual(done.toSorted((a, b) => a - b));
  other.destroy();
});

test("a late beginning, and a small first step there, are no reason to give up", async () => {
  const flow = await Flow.create(device, mlp({ layers: [dense([[-1]], [1])] }));
  for (const from of [0, 50, 1000]) {
    const { points, status } = await flow.transport([1e-3, 0, 5], { from, to: from + 1 });
    expect(status).toEqual(["done", "done", "done"]);
    expectNear(
      points,
      [1e-3, 0, 5].map((x) => 1 + (x - 1) / Math.E),
      1e-4,
      `from ${from}`,
    );
  }
  await expect(flow.logProb([1], { atol: 1e-50 })).rejects.toThrow(InputError);
  await expect(flow.logProb([1], { rtol: 1e39 })).rejects.toThrow(InputError);
  flow.destroy();
});

test("tuned kernels run a path to the same end", async () => {
  const flow = await Flow.create(device, twoMoons);
  const x = randomPoints(7, 300, 2);
  const before = await flow.logProb(x);
  const [fastest] = await flow.tune(300);
  expect(fastest!.chosen).toBe(true);
  expectNear((await flow.logProb(x)).logProb, before.logProb, 1e-3, "log p");
  flow.destroy();
});

test("steps of one path share their bind groups, whatever t is", async () => {
  const flow = await Flow.create(device, twoMoons, { kernels: "layers 4x4" });
  const createBindGroup = device.createBindGroup.bind(device);
  let made = 0;
  device.createBindGroup = (descriptor) => (made++, createBindGroup(descriptor));
  const { status } = await flow.logProb(randomPoints(1, 20, 2), { solver: "euler", steps: 512 });
  device.createBindGroup = createBindGroup;
  expect(new Set(status)).toEqual(new Set(["done"]));
  // 8 submissions of some 10 kinds of dispatches; one for each dispatch would be thousands, which fill a driver's tables.
  expect(made).toBeLessThan(300);
  flow.destroy();
});

test("what earlier calls have left in memory costs no point its place", async () => {
  const { network } = randomMlp({ seed: 3, widths: [6, 20, 20, 6], activation: "tanh", contextSize: 1 });
  const points = randomPoints(5, 400, 6);
  const solve = { rtol: 1e-3, atol: 1e-3 } as const;
  const roomy = await Flow.create(device, network, { kernels: "layers 4x4" });
  const expected = await roomy.logProb(points, solve);
  roomy.destroy();
  // Somewhere between these a path and what an estimate has left fit together until the end of the path is read back.
  for (let count = 40; count <= 400; count += 40) {
    const flow = await Flow.create(device, network, { memoryBudget: 500_000, kernels: "layers 4x4" });
    await flow.logProb(points.subarray(0, 6 * 8), { solver: "euler", steps: 1, divergence: { method: "hutchinson", probes: 200 } });
    expect((await flow.logProb(points.subarray(0, 6 * count), solve)).logProb).toEqual(expected.logProb.subarray(0, count));
    flow.destroy();
  }
  const tiny = await Flow.create(device, network, { memoryBudget: 500 });
  await expect(tiny.logProb(points)).rejects.toThrow(LimitError);
  tiny.destroy();
});

test("mistakes are errors, an abort ends a call", async () => {
  const flow = await Flow.create(device, twoMoons);
  const refused = [
    [{ solver: "rk45" }, /solver is/],
    [{ solver: "rk4" }, /no error control/],
    [{ steps: 0 }, /steps is/],
    [{ rtol: 0 }, /rtol is/],
    [{ divergence: "hutchinson" }, /divergence is/],
    [{ divergence: { method: "hutchinson", orthogonal: true } }, /divergence has "orthogonal"; expected method, probes and seed alone/],
    [{ condition: 1 }, /condition is/],
  ] as const;
  for (const [options, message] of refused) {
    await expect(flow.logProb([1, 2], options as never)).rejects.toThrow(InputError);
    await expect(flow.logProb([1, 2], options as never)).rejects.toThrow(message);
  }
  await expect(flow.sample(-1)).rejects.toThrow(InputError);
  await expect(flow.transport([1, 2], { times: [0.5, 0.2] })).rejects.toThrow(/order/);
  const controller = new AbortController();
  const pending = flow.logProb(randomPoints(1, 2000, 2), { signal: controller.signal });
  controller.abort(new Error("enough"));
  await expect(pending).rejects.toThrow("enough");
  expect((await flow.logProb(new Float32Array(0))).logProb).toEqual(new Float64Array(0));
  const estimate = { method: "hutchinson", probes: 4, seed: 1 } as const;
  const [one, two] = [await flow.logProb([1, 0.5], { divergence: estimate }), await flow.logProb([1, 0.5])];
  expect(one.logProb[0]).not.toBe(two.logProb[0]);
  expect(Math.abs(one.logProb[0]! - two.logProb[0]!)).toBeLessThan(3);
  flow.destroy();
  await expect(flow.logProb([1, 2])).rejects.toThrow(/destroyed/);
});

test("log p is that of float64, for networks, times and conditions of many kinds", async () => {
  for (let seed = 0; seed < 6; seed++) {
    const draw = new Draw(seed);
    const network = drawNetwork(draw, "small", { anywhere: ["tanh", "silu", "gelu", "softplus"], ofPositive: [], ofSmall: [], steps: [] });
    const { stateSize: d, contextSize: c } = network;
    const times = { timeColumn: c === 0 ? null : draw.integer(0, c - 1), noiseAt: 0.2, dataAt: draw.chance(0.5) ? 0.9 : -0.4 };
    const count = 5;
    const points = draw.numbers(count * d, 1);
    const condition = c > 1 ? draw.numbers(draw.chance(0.5) ? c - 1 : (c - 1) * count, 1) : undefined;
    const flow = await Flow.create(device, network, times);
    for (const options of [
      { rtol: 1e-6, atol: 1e-6 },
      { solver: "heun", steps: 5 },
      { solver: "bosh3", rtol: 1e-4, atol: 1e-4 },
    ] as const) {
      const result = await flow.logProb(points, { ...options, condition });
      const expected = logProbReference(network, points, { ...times, ...options, condition });
      result.status.forEach((status, i) => {
        if (status !== "done" || expected.status[i] !== "done" || Math.abs(expected.logProb[i]!) > 1e3) return;
        const tolerance = ("rtol" in options ? 100 * options.rtol : 1e-4) * (1 + Math.abs(expected.logProb[i]!));
        if (!(Math.abs(result.logProb[i]! - expected.logProb[i]!) <= tolerance))
          expect.fail(`seed ${seed}, ${JSON.stringify(options)}: log p is ${result.logProb[i]}; expected ${expected.logProb[i]}`);
      });
      expect(result.status.filter((status) => status === "done").length).toBeGreaterThan(0);
    }
    flow.destroy();
  }
});

/** f = x / t, whose x is from/to times as large at `to`, and ∇·f = d / t. */
function towardsZero(d: number): Network {
  return {
    stateSize: d,
    contextSize: 1,
    operations: [
      { kind: "linear", terms: [{ operand: "context", weight: { rows: d, columns: 1, data: new Float64Array(d).fill(1) } }], bias: null },
      { kind: "activation", operand: 0, activation: parseActivation("reciprocal") },
      { kind: "product", operands: ["state", 1] },
      { kind: "linear", terms: [{ operand: 2, weight: { diagonal: new Float64Array(d).fill(1) } }], bias: null },
    ],
  };
}

test.each([
  [80, 0.002],
  [80, 3e-4],
  [3e-4, 80],
  [1, 1e-3],
])("times of very different sizes, from %f to %f, as diffusion has them", async (from, to) => {
  const d = 8;
  const flow = await Flow.create(device, towardsZero(d));
  const x = randomPoints(1, 4, d);
  for (const tolerance of [1e-5, 1e-6]) {
    const { points, divergenceIntegral, status } = await flow.transport(
      x.map((each) => each * from),
      { from, to, rtol: tolerance, atol: tolerance },
    );
    expect(new Set(status)).toEqual(new Set(["done"]));
    expectNear(
      points,
      x.map((each) => each * to),
      2e-5 * to * 4,
      `x at ${tolerance}`,
    );
    // Its error is atol in every step, of which there are hundreds, and only beside all of it.
    expectNear(divergenceIntegral, new Float64Array(4).fill(d * Math.log(to / from)), 4e-4 * d, `the integral at ${tolerance}`);
  }
  flow.destroy();
});

test("steps of one size evaluate f at no time beyond the end", async () => {
  // f = x √t, which is not defined before 0.
  const operations = [...towardsZero(1).operations];
  operations[1] = { kind: "activation", operand: 0, activation: parseActivation("sqrt") };
  const network = { ...towardsZero(1), operations };
  const flow = await Flow.create(device, network);
  const truth = Math.exp(-(2 / 3) * 0.9 ** 1.5);
  for (const steps of [3, 7, 10]) {
    const options = { from: 0.9, to: 0, solver: "rk4", steps } as const;
    expectNear((await flow.transport([1], options)).points, [truth], 1e-2, `${steps} steps`);
    expectNear(transportReference(network, [1], options).points, [truth], 1e-2, `${steps} steps of the reference`);
  }
  flow.destroy();
});

test("what explain says is what runs", async () => {
  const flow = await Flow.create(device, twoMoons);
  expect(flow.explain().plan.method).toBe("cyclic");
  const estimated = flow.explain({ divergence: { method: "hutchinson", probes: 64 } });
  expect(estimated.plan.method).toBe("hutchinson");
  expect(estimated.multiplyAdds).toBeGreaterThan(10 * flow.explain().multiplyAdds);
  flow.destroy();
});

test("a base of another width is normal with that standard deviation", async () => {
  const still = await Flow.create(
    device,
    mlp({
      layers: [
        dense([
          [0, 0],
          [0, 0],
        ]),
      ],
    }),
    { base: normalBase(2, 80) },
  );
  const { logProb } = await still.logProb([100, -20]);
  const density = -(100 ** 2 + 20 ** 2) / (2 * 80 ** 2) - Math.log(2 * Math.PI) - 2 * Math.log(80);
  expectNear(logProb, [density], 1e-5, "log p");
  const samples = await still.sample(4096, { seed: 3 });
  const variance = samples.points.reduce((sum, each) => sum + each ** 2, 0) / samples.points.length;
  expect(Math.abs(Math.sqrt(variance) / 80 - 1)).toBeLessThan(0.02);
  still.destroy();
  expect(() => normalBase(0, 1)).toThrow(InputError);
  expect(() => normalBase(2, 0)).toThrow(InputError);
});

test("odd input is an InputError", async () => {
  const flow = await Flow.create(device, twoMoons);
  const x = [0.1, 0.2];
  const divergence = (seed: unknown) => ({ divergence: { method: "hutchinson", probes: 2, seed: seed as number } }) as const;
  for (const options of [{ maxSteps: null as unknown as number }, divergence("abc"), divergence(1.5), divergence(NaN)])
    await expect(flow.logProb(x, options)).rejects.toThrow(InputError);
  for (const times of [5, [0.5, NaN], [0.9, 0.1], null])
    await expect(flow.transport(x, { times: times as number[] })).rejects.toThrow(InputError);
  await expect(flow.transport(x, { from: -3e38, to: 3e38 })).rejects.toThrow(InputError);
  await expect(Flow.create(device, twoMoons, { noiseAt: -3e38, dataAt: 3e38 })).rejects.toThrow(InputError);
  await expect(flow.sample(1e12)).rejects.toThrow(LimitError);
  const times = [0.25, 0.5];
  const call = flow.transport(x, { times, solver: "rk4", steps: 2 });
  times.push(0.75);
  expect((await call).path).toHaveLength(4);
  expect((await flow.transport(x, { times: Float64Array.of(0.5), solver: "rk4", steps: 2 })).path).toHaveLength(2);
  flow.destroy();
});

test("steps that the error chooses end at the end, not beyond it", async () => {
  // f = floor(e - t) + 0.001, which jumps at the end; both ends are such that the beginning plus the span is beyond it in float32.
  const [from, to] = [-0.36963340640068054, 0.13336063921451569];
  const operations: Network["operations"] = [
    {
      kind: "linear",
      terms: [{ operand: "context", weight: { rows: 1, columns: 1, data: Float64Array.of(-1) } }],
      bias: Float64Array.of(to),
    },
    { kind: "activation", operand: 0, activation: parseActivation("floor") },
    { kind: "linear", terms: [{ operand: 1, weight: { rows: 1, columns: 1, data: Float64Array.of(1) } }], bias: Float64Array.of(1e-3) },
  ];
  const flow = await Flow.create(device, { stateSize: 1, contextSize: 1, operations });
  for (const [solver, tolerance] of [
    ["tsit5", 1],
    ["dopri5", 1e-3],
  ] as const) {
    const { points } = await flow.transport([10], { from, to, solver, rtol: tolerance, atol: tolerance });
    expectNear(points, [10 + (to - from) * 1e-3], 1e-5, solver);
  }
  flow.destroy();
});

test("what is done to the options during a call is not seen", async () => {
  const flow = await Flow.create(device, twoMoons, { kernels: "layers 4x4" });
  const x = randomPoints(2, 3, 2);
  const call = (change: (estimate: { seed: number }) => void) => async (run: "transport" | "score") => {
    const divergence = { method: "hutchinson" as const, probes: 3, seed: 5 };
    const options = { divergence, solver: "rk4", steps: 6 } as const;
    const result = run === "score" ? flow.score(x, options) : flow.transport(x, { ...options, times: [0.8, 0.5], from: 1, to: 0.1 });
    change(divergence);
    return result;
  };
  for (const run of ["transport", "score"] as const)
    expect(await call((estimate) => (estimate.seed = 99))(run)).toEqual(await call(() => undefined)(run));
  flow.destroy();
});
