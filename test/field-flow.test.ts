/** Flows of any Field: paths in lockstep beside the same paths one by one in float64, beside Flow, and what a field is asked for. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  FieldFlow,
  Flow,
  InputError,
  LimitError,
  logProbReference,
  mlp,
  normalBase,
  parseSafetensors,
  ReferenceField,
  solvers,
  transportReference,
  VectorField,
  type Field,
  type Network,
  type SolveOptions,
} from "../src/index.js";
import { mixBits, unmixBits } from "../src/mixBits.js";
import { tableaus } from "../src/ode/tableaus.js";
import { openDevice } from "./device.js";
import { loadModel, randomMlp, randomPoints } from "./fields.js";
import { Draw } from "./numbers/draw.js";
import { drawNetwork } from "./numbers/networks.js";

const twoMoons = parseSafetensors(loadModel("two-moons-flow").bytes);

/** ẋ = x², infinite at t = 1/x(0). */
const blowUp: Network = {
  stateSize: 1,
  contextSize: 0,
  operations: [{ kind: "activation", operand: "state", activation: { name: "square", parameters: [] } }],
};

function farthest(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let most = 0;
  for (let i = 0; i < expected.length; i++) most = Math.max(most, Math.abs(actual[i]! - expected[i]!));
  return most;
}

/** What a field is asked for: rows of points and of contexts of each call. */
interface Asked {
  readonly rows: number;
  readonly contexts: number;
}

function watched(field: Field): { field: Field; asked: Asked[] } {
  const asked: Asked[] = [];
  const { stateSize: d, contextSize: c } = field.network;
  const evaluate: Field["evaluate"] = async (points, options) => {
    const rows = (points as Float64Array).length / d;
    asked.push({ rows, contexts: c === 0 ? 0 : (options!.context as Float64Array).length / c });
    return await field.evaluate(points, options);
  };
  return { field: { network: field.network, precision: field.precision, evaluate } as Field, asked };
}

describe("beside the same paths one by one", () => {
  test.each(solvers)("%s: the same bits, evaluations and ends", async (solver) => {
    const points = randomPoints(3, 40, 2, 1.5);
    const flow = new FieldFlow(new ReferenceField(twoMoons));
    for (const options of [{ steps: 6 }, ...(tableaus[solver].error ? [{ rtol: 1e-4, atol: 1e-4 }] : [])]) {
      const { shape, ...result } = await flow.logProb({ data: points, shape: [8, 5, 2] }, { solver, ...options });
      const { shape: _, ...expected } = logProbReference(twoMoons, points, { solver, ...options });
      expect(result).toEqual(expected);
      expect(shape).toEqual([8, 5]);
      expect(await flow.transport(points, { solver, ...options, from: 0.2, to: 0.7 })).toEqual(
        transportReference(twoMoons, points, { solver, ...options, from: 0.2, to: 0.7 }),
      );
    }
  });

  test("of networks, times and conditions of many kinds", async () => {
    let done = 0;
    for (let seed = 0; seed < 12; seed++) {
      const draw = new Draw(seed);
      const network = drawNetwork(draw, "small", { anywhere: ["tanh", "silu", "gelu"], ofPositive: [], ofSmall: [], steps: [] });
      const { stateSize: d, contextSize: c } = network;
      const times = { timeColumn: c === 0 ? null : draw.integer(0, c - 1), noiseAt: 0.2, dataAt: draw.chance(0.5) ? 0.9 : -0.4 };
      const count = 5;
      const points = draw.numbers(count * d, 1);
      const condition = c > 1 ? draw.numbers(draw.chance(0.5) ? c - 1 : (c - 1) * count, 1) : undefined;
      const flow = new FieldFlow(new ReferenceField(network), times);
      const estimate = { method: "hutchinson", probes: 3, seed } as const;
      for (const options of [
        { rtol: 1e-5, atol: 1e-5 },
        { solver: "heun", steps: 5 },
        { solver: "bosh3", rtol: 1e-3, atol: 1e-3, divergence: estimate },
      ] as const) {
        const result = await flow.logProb(points, { ...options, condition });
        const expected = logProbReference(network, points, { ...times, ...options, condition });
        const what = `seed ${seed}, ${JSON.stringify(options)}`;
        expect(result.status, what).toEqual(expected.status);
        expected.logProb.forEach((log, i) => {
          if (expected.status[i] !== "done") return expect(result.logProb[i], what).toBeNaN();
          // The first plan may be that of a context for all, which rounds otherwise.
          const error = Math.abs(result.logProb[i]! - log);
          if (!(error <= 1e-9 * (1 + Math.abs(log)))) expect.fail(`${what}: log p is ${result.logProb[i]}; expected ${log}`);
          done++;
        });
      }
    }
    expect(done).toBeGreaterThan(100);
  });

  test("in float64 the tolerance is 1e-9 where none is given, in float32 1e-5", async () => {
    const field = new ReferenceField(twoMoons);
    const points = [0.5, 0.25];
    expect((await new FieldFlow(field).logProb(points)).logProb).toEqual(logProbReference(twoMoons, points).logProb);
    const coarse = { network: twoMoons, precision: "float32", evaluate: field.evaluate.bind(field) } as Field;
    const expected = logProbReference(twoMoons, points, { rtol: 1e-5, atol: 1e-5 });
    expect((await new FieldFlow(coarse).logProb(points)).logProb).toEqual(expected.logProb);
  });

  test("times on the way", async () => {
    const flow = new FieldFlow(new ReferenceField(twoMoons));
    const points = randomPoints(5, 6, 2);
    const solve = { rtol: 1e-6, atol: 1e-6 };
    const times = [0.3, 0.6];
    const call = flow.transport(points, { ...solve, times });
    times.push(0.9);
    const { path, points: end, divergenceIntegral, evaluations } = await call;
    let now: Float32Array | Float64Array = points;
    const [integral, counts] = [new Float64Array(6), new Uint32Array(6)];
    for (const [i, [from, to]] of [
      [0, 0.3],
      [0.3, 0.6],
      [0.6, 1],
    ].entries()) {
      const part = transportReference(twoMoons, now, { ...solve, from, to });
      now = part.points;
      part.divergenceIntegral.forEach((each, b) => (integral[b]! += each));
      part.evaluations.forEach((each, b) => (counts[b]! += each));
      expect(i < 2 ? path!.slice(12 * i, 12 * (i + 1)) : end).toEqual(now);
    }
    expect(path).toHaveLength(24);
    expect(divergenceIntegral).toEqual(integral);
    expect(evaluations).toEqual(counts);
  });

  test("samples, and a base of one's own", async () => {
    const base = normalBase(2, 1.5);
    const flow = new FieldFlow(new ReferenceField(twoMoons), { base });
    const solve = { rtol: 1e-8, atol: 1e-8 };
    const { points, logProb, status } = await flow.sample(5, { seed: 4, ...solve });
    expect(status).toHaveLength(5);
    const start = base.sample(5, 4);
    expect(points).toEqual(transportReference(twoMoons, start, solve).points);
    expect(farthest(logProb, logProbReference(twoMoons, points, { base, ...solve }).logProb)).toBeLessThan(1e-5);
    const wrong = new FieldFlow(new ReferenceField(twoMoons), { base: { logProb: () => [1], sample: () => new Float32Array(3) } });
    await expect(wrong.logProb([0.2, 0.3, 2, 0], { rtol: 1e-2 })).rejects.toThrow(/base.logProb gives 1 numbers; expected 2/);
    await expect(wrong.sample(2)).rejects.toThrow(/base.sample gives 3 numbers/);
    await expect(flow.score([0.1, 0.2])).rejects.toThrow(/normal/);
  });
});

describe("Hutchinson's estimate", () => {
  const { network } = randomMlp({ seed: 8, widths: [4, 8, 4], activation: "tanh", contextSize: 1 });
  const divergence = { method: "hutchinson", probes: 2, seed: 5 } as const;

  test("a hash can be undone", () => {
    for (let i = 0; i < 1000; i++) {
      const word = mixBits(i) ^ (i << 20);
      expect(unmixBits(mixBits(word)), `${word}`).toBe(word >>> 0);
    }
  });

  test("has a point's own probes all along, also where others have arrived", async () => {
    // Of very different speeds, so that points arrive one after another.
    const points = randomPoints(9, 30, 4).map((x, i) => x * (1 + (i >> 2)));
    const options = { divergence, rtol: 1e-5, atol: 1e-5 };
    const result = await new FieldFlow(new ReferenceField(network)).transport(points, options);
    expect(result).toEqual(transportReference(network, points, options));
    expect(new Set(result.evaluations).size).toBeGreaterThan(2);
  });

  test("and in every block of points", async () => {
    const count = 16_384 + 20;
    const points = randomPoints(10, count, 4);
    const { field, asked } = watched(new ReferenceField(network));
    const options = { divergence, solver: "euler", steps: 1 } as const;
    const result = await new FieldFlow(field).transport(points, options);
    expect(asked.map(({ rows }) => rows)).toEqual([16_384, 20]);
    expect(result).toEqual(transportReference(network, points, options));
  });

  test("of the score, too", async () => {
    const flow = new FieldFlow(new ReferenceField(network));
    const points = randomPoints(9, 3, 4);
    const scoreOf = async (estimate: SolveOptions["divergence"]) =>
      (await flow.score(points, { divergence: estimate, solver: "rk4", steps: 8 })).score;
    const exact = await scoreOf("exact");
    expect(farthest(await scoreOf(divergence), exact)).toBeGreaterThan(1e-4);
    expect(farthest(await scoreOf({ ...divergence, probes: 1000 }), exact)).toBeLessThan(0.05);
  });
});

describe("what a field is asked for", () => {
  test("paths that have arrived leave the batch, and one time for all is one context", async () => {
    const { field, asked } = watched(new ReferenceField(twoMoons));
    const flow = new FieldFlow(field);
    const { evaluations } = await flow.logProb(randomPoints(4, 50, 2, 2), { rtol: 1e-3, atol: 1e-3 });
    const sum = evaluations.reduce((total, each) => total + each, 0);
    expect(asked.reduce((total, { rows }) => total + rows, 0)).toBe(sum);
    expect(asked).toHaveLength(Math.max(...evaluations));
    expect(sum).toBeLessThan(0.95 * 50 * asked.length);
    expect(asked[0]).toEqual({ rows: 50, contexts: 1 });
    expect(asked.slice(1).every(({ rows, contexts }) => contexts === rows)).toBe(true);
    asked.length = 0;
    await flow.logProb(randomPoints(4, 50, 2), { solver: "rk4", steps: 2 });
    expect(asked).toEqual(Array.from({ length: 8 }, () => ({ rows: 50, contexts: 1 })));
  });

  test("a condition of each point's own comes with it, also when others have left", async () => {
    // ẋ = c - x with a condition c and time.
    const conditioned = mlp({ layers: [{ weight: [[-1, 0.5, 1]] }], contextColumns: "last" });
    const { field, asked } = watched(new ReferenceField(conditioned));
    const flow = new FieldFlow(field, { timeColumn: 0 });
    const condition = [300, -1, 0, 4000];
    const { points, evaluations } = await flow.transport([1, 2, -1, 0.5], { condition, rtol: 1e-8, atol: 1e-8 });
    const truth = (x: number, c: number): number => c + (x - c + 0.5) * Math.exp(-1);
    expect(new Set(evaluations).size).toBeGreaterThan(1);
    points.forEach((x, i) => expect(x).toBeCloseTo(truth([1, 2, -1, 0.5][i]!, condition[i]!), 4));
    expect(asked.every(({ rows, contexts }) => contexts === rows)).toBe(true);
    // Neither time nor conditions differ.
    asked.length = 0;
    const still = new FieldFlow(field, { timeColumn: null });
    await still.transport([1, 2], { condition: [0.5, 1] });
    expect(asked.every(({ contexts }) => contexts === 1)).toBe(true);
  });

  test("f is asked for at no time beyond the end", async () => {
    // So slow that the first step is the whole way: its last stage is at the beginning plus the span, which rounding may lead beyond the end.
    const slow = mlp({ layers: [{ weight: [[1e-3, 0]] }], contextColumns: "last" });
    const inner = new ReferenceField(slow);
    let seen: number[] = [];
    const evaluate: Field["evaluate"] = async (points, options) => {
      seen.push(...(options!.context as Float64Array));
      return await inner.evaluate(points, options);
    };
    const flow = new FieldFlow({ network: slow, precision: "float64", evaluate } as Field);
    const draw = new Draw(1);
    let beyond = 0;
    for (let pair = 0; pair < 40; pair++) {
      const [from, to] = [draw.between(-1, 0), draw.between(0, 0.2)];
      if (from + (to - from) > to) beyond++;
      seen = [];
      await flow.transport([1], { from, to, rtol: 1e-3, atol: 1e-3 });
      expect(Math.max(...seen), `seed 1, pair ${pair}`).toBeLessThanOrEqual(to);
      expect(Math.min(...seen), `seed 1, pair ${pair}`).toBeGreaterThanOrEqual(from);
    }
    expect(beyond).toBeGreaterThan(2);
  });
});

describe("each point by itself", () => {
  test("its answer has the same bits alone and in company", async () => {
    const { network } = randomMlp({ seed: 3, widths: [2, 12, 12, 2], activation: "tanh", contextSize: 3 });
    const flow = new FieldFlow(new ReferenceField(network), { timeColumn: 1 });
    const [points, condition] = [randomPoints(5, 7, 2, 2), randomPoints(6, 7, 2)];
    for (const options of [
      { rtol: 1e-6, atol: 1e-6 },
      { solver: "rk4", steps: 7 },
    ] as const) {
      const whole = await flow.logProb(points, { ...options, condition });
      const scores = await flow.score(points, { ...options, condition });
      for (let b = 0; b < 7; b++) {
        const own = { ...options, condition: condition.subarray(2 * b, 2 * b + 2) };
        const alone = await flow.logProb(points.subarray(2 * b, 2 * b + 2), own);
        expect(alone.logProb[0]).toBe(whole.logProb[b]);
        expect(alone.evaluations[0]).toBe(whole.evaluations[b]);
        const { score } = await flow.score(points.subarray(2 * b, 2 * b + 2), own);
        expect(score).toEqual(scores.score.slice(2 * b, 2 * b + 2));
      }
    }
  });

  test("an end of its own: a point that blows up, one that runs out of steps, one that is not finite", async () => {
    const flow = new FieldFlow(new ReferenceField(blowUp));
    const { points, divergenceIntegral, status } = await flow.transport([2, 0.5, NaN, -3], { rtol: 1e-7, atol: 1e-7 });
    expect(status[0]).toMatch(/not finite|step too small/);
    expect(status.slice(1)).toEqual(["done", "not finite", "done"]);
    expect([points[0], points[2], divergenceIntegral[0], divergenceIntegral[2]]).toEqual([NaN, NaN, NaN, NaN]);
    expect(farthest([points[1]!, points[3]!], [1, -0.75])).toBeLessThan(1e-5);
    const short = await flow.transport([0.5, 0], { maxSteps: 6 });
    expect(short.status).toEqual(["out of steps", "done"]);
    expect([...short.evaluations]).toEqual([37, 37]);
    const fixed = await flow.transport([1e200, 0.5], { solver: "euler", steps: 3 });
    expect(fixed.status).toEqual(["not finite", "done"]);
    expect(fixed.points[0]).toBeNaN();
    const { score, status: ends } = await flow.score([-2, 0.5], { rtol: 1e-7, atol: 1e-7 });
    expect(ends[0]).toMatch(/not finite|step too small/);
    expect(ends[1]).toBe("done");
    // z = x / (1 + x), of which log p(x) = -z² / 2 - 2 log(1 + x) and a constant.
    expect(score[0]).toBeNaN();
    expect(score[1]).toBeCloseTo(-0.5 / 1.5 ** 3 - 2 / 1.5, 5);
    const conditioned = new FieldFlow(
      new ReferenceField(randomMlp({ seed: 2, widths: [2, 8, 2], activation: "relu", contextSize: 2 }).network),
      {
        timeColumn: 0,
      },
    );
    for (const options of [{}, { solver: "rk4", steps: 4 }] as const) {
      const { status: each } = await conditioned.logProb([1, 2, 3, 4], { ...options, condition: [NaN, 1] });
      expect(each).toEqual(["not finite", "done"]);
      const { logProb } = await conditioned.logProb([1, 2, 3, 4], { ...options, condition: Infinity });
      expect([...logProb]).toEqual([NaN, NaN]);
    }
  });

  test("no points at all, and no way", async () => {
    const flow = new FieldFlow(new ReferenceField(twoMoons));
    expect((await flow.logProb([])).logProb).toEqual(new Float64Array());
    expect((await flow.sample(0)).status).toEqual([]);
    const { points, evaluations, status } = await flow.transport([1, 2], { from: 0.5, to: 0.5 });
    expect([...points, ...evaluations]).toEqual([1, 2, 1]);
    expect(status).toEqual(["done"]);
  });
});

test("∇ log p is the slope of log p", async () => {
  const flow = new FieldFlow(new ReferenceField(twoMoons));
  const x = Float64Array.of(0.5, 0.3, -0.8, 1);
  const { score, status, shape } = await flow.score(x);
  expect(status).toEqual(["done", "done"]);
  expect(shape).toEqual([2]);
  const h = 1e-3;
  x.forEach((each, i) => {
    const at = (step: number): number => logProbReference(twoMoons, x.with(i, each + step)).logProb[i >> 1]!;
    const slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
    expect(Math.abs(score[i]! - slope)).toBeLessThan(1e-5 * (1 + Math.abs(slope)));
  });
});

describe("a field on a device", () => {
  let device: GPUDevice;
  let close: () => Promise<void>;
  beforeAll(async () => ({ device, close } = await openDevice()));
  afterAll(() => close());

  test("gives what Flow gives", async () => {
    const field = await VectorField.create(device, twoMoons);
    const [flow, other] = [new FieldFlow(field), await Flow.create(device, twoMoons)];
    const points = randomPoints(3, 60, 2);
    for (const options of [
      { rtol: 1e-6, atol: 1e-6 },
      { solver: "rk4", steps: 20 },
      { solver: "heun", steps: 20, divergence: { method: "hutchinson", probes: 3, seed: 7 } },
      { rtol: 1e-5, atol: 1e-5, divergence: { method: "hutchinson", probes: 3, seed: 7 } },
    ] as const) {
      const [result, expected] = [await flow.logProb(points, options), await other.logProb(points, options)];
      expect(result.status).toEqual(expected.status);
      expect(farthest(result.logProb, expected.logProb)).toBeLessThan(1e-3);
      expect(farthest(result.base, expected.base)).toBeLessThan(1e-3);
    }
    const [samples, expected] = [await flow.sample(20, { seed: 3 }), await other.sample(20, { seed: 3 })];
    expect(farthest(samples.points, expected.points)).toBeLessThan(1e-3);
    expect(farthest(samples.logProb, expected.logProb)).toBeLessThan(1e-3);
    const solve = { rtol: 1e-6, atol: 1e-6 };
    const few = points.subarray(0, 8);
    const [own, its] = [(await flow.score(few, solve)).score, (await other.score(few, solve)).score];
    own.forEach((each, i) => expect(Math.abs(each - its[i]!)).toBeLessThan(1e-2 * (1 + Math.abs(its[i]!))));
    // Past float32.
    expect((await flow.transport([1e39, 0, 0, 0])).status).toEqual(["not finite", "done"]);
    field.destroy();
    await expect(flow.logProb(points)).rejects.toThrow(/destroyed/);
    other.destroy();
  });

  test("a step below what float32 can add up ends a path, as Flow's", async () => {
    const points = [2, 0.5, -3];
    const solve = { rtol: 1e-5, atol: 1e-5 };
    const device32 = await VectorField.create(device, blowUp);
    const other = await Flow.create(device, blowUp);
    const [result, expected] = [await new FieldFlow(device32).transport(points, solve), await other.transport(points, solve)];
    expect(result.status).toEqual(["step too small", "done", "done"]);
    expect(expected.status).toEqual(result.status);
    expect(Math.abs(result.evaluations[0]! - expected.evaluations[0]!)).toBeLessThan(40);
    const exact = transportReference(blowUp, points, solve);
    expect(exact.evaluations[0]).toBeGreaterThan(result.evaluations[0]! + 100);
    device32.destroy();
    other.destroy();
  });
});

test("progress and abort", async () => {
  const flow = new FieldFlow(new ReferenceField(twoMoons));
  const points = randomPoints(1, 50, 2, 2);
  const solve = { rtol: 1e-3, atol: 1e-3 };
  const seen: number[] = [];
  await flow.logProb(points, { ...solve, onProgress: ({ done, total }) => void seen.push(done / total) });
  expect(seen.length).toBeGreaterThan(1);
  expect(seen.at(-1)).toBe(1);
  expect(seen).toEqual(seen.toSorted((a, b) => a - b));
  await expect(flow.sample(2, { signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow("enough");
  for (const run of ["logProb", "score"] as const) {
    const controller = new AbortController();
    const pending = flow[run](points, { ...solve, signal: controller.signal });
    setTimeout(() => controller.abort(new Error("enough")), 5);
    await expect(pending).rejects.toThrow("enough");
  }
  const controller = new AbortController();
  const onProgress = (): void => controller.abort(new Error("on the way"));
  await expect(flow.logProb(points, { ...solve, onProgress, signal: controller.signal })).rejects.toThrow("on the way");
});

test("what is wrong is refused, and what is done to the arguments later is not seen", async () => {
  expect(() => new FieldFlow(null as never)).toThrow(/field is null/);
  expect(() => new FieldFlow(new ReferenceField(twoMoons), { noiseAt: 1 })).toThrow(/noiseAt and dataAt/);
  const flow = new FieldFlow(new ReferenceField(twoMoons));
  for (const [options, message] of [
    [null, /options is/],
    [{ solver: "rk45" }, /solver is/],
    [{ solver: "rk4" }, /no error control/],
    [{ rtol: 0 }, /rtol is/],
    [{ condition: 1 }, /condition is/],
    [{ divergence: { method: "hutchinson", seed: "abc" } }, /seed is/],
    [{ divergence: { method: "hutchinson", probes: 0 } }, /probes is/],
    [{ onProgress: 5 }, /onProgress is/],
  ] as const) {
    await expect(flow.logProb([], options as never)).rejects.toThrow(InputError);
    await expect(flow.logProb([1, 2], options as never)).rejects.toThrow(message);
  }
  await expect(flow.logProb([1, 2, 3])).rejects.toThrow(/points has 3 numbers/);
  await expect(flow.transport([1, 2], { times: [0.5, 0.2] })).rejects.toThrow(/order/);
  await expect(flow.sample(1e12)).rejects.toThrow(LimitError);
  const [points, options] = [randomPoints(2, 3, 2), { solver: "heun" as const, steps: 6 }];
  const expected = await flow.logProb(points, options);
  const pending = flow.logProb(points, options);
  points.fill(0);
  options.steps = 1;
  expect(await pending).toEqual(expected);
});
