import { afterAll, beforeAll, expect, test } from "vitest";
import {
  DeldotError,
  DeviceLostError,
  evaluateReference,
  InputError,
  LimitError,
  mlp,
  parametersOf,
  vjpReference,
  type Network,
  type Solver,
} from "../src/index.js";
import { mixBits } from "../src/mixBits.js";
import { withParameters } from "../src/model/parameters.js";
import { tableaus } from "../src/ode/tableaus.js";
import { drawnOf } from "../src/train/batches.js";
import { readBuffers } from "../src/train/buffers.js";
import { Trainer, type CustomLoss, type Loss, type LossBatch, type TrainerOptions, type TrainerState } from "../src/train/index.js";
import { openDevice } from "./device.js";
import { random, randomMlp } from "./fields.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

/** Normal numbers, by a generator of its own. */
function normals(count: number, seed: number): number[] {
  let state = seed >>> 0;
  const next = (): number => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) + 0.5) / 2 ** 32;
  return Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next()));
}

const linear = (d: number): Network =>
  mlp({
    layers: [
      {
        weight: Array.from({ length: d }, (_, i) => Array.from({ length: d }, (_, j) => 0.1 * (i - j))),
        bias: Array.from({ length: d }, () => 0),
      },
    ],
  });

/** Points of N(μ, Σ) with Σ = L Lᵀ. */
function gaussian(count: number): Float32Array {
  const z = normals(2 * count, 1);
  return Float32Array.from({ length: 2 * count }, (_, i) => {
    const [a, b] = [z[i - (i % 2)]!, z[i - (i % 2) + 1]!];
    return i % 2 === 0 ? 0.5 + a : -0.3 + 0.5 * a + 0.8 * b;
  });
}

test.each(["score_matching", "sliced_score_matching", "denoising_score_matching"] as const)(
  "%s of Gaussian data finds their score",
  async (loss) => {
    const [n, noise, steps] = [20_000, 0.5, 500];
    const trainer = await Trainer.create(device, linear(2), {
      loss,
      batch: 1024,
      noise: [noise, noise],
      optimizer: { learningRate: 0.02, schedule: "cosine", steps },
      averaging: 0.99,
    });
    const x = gaussian(n);
    await trainer.data(x);
    const losses = await trainer.train(steps);
    expect(losses.every(Number.isFinite)).toBe(true);
    const { "0.weight": weight, "0.bias": bias } = parametersOf(await trainer.network({ averaged: true }));
    trainer.destroy();
    // Of what was drawn, with the noise.
    const mean = [0, 1].map((k) => x.reduce((sum, each, i) => (i % 2 === k ? sum + each : sum), 0) / n);
    const cov = (j: number, k: number): number => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += (x[2 * i + j]! - mean[j]!) * (x[2 * i + k]! - mean[k]!);
      return sum / n + (j === k ? noise ** 2 : 0);
    };
    const [a, b, c] = [cov(0, 0), cov(0, 1), cov(1, 1)];
    const det = a * c - b * b;
    const precision = [c / det, -b / det, -b / det, a / det];
    const ofBias = [0, 1].map((k) => precision[2 * k]! * mean[0]! + precision[2 * k + 1]! * mean[1]!);
    const errors = [...precision.map((each, i) => weight!.data[i]! + each), ...ofBias.map((each, k) => bias!.data[k]! - each)];
    const largest = Math.max(...precision.map(Math.abs));
    for (const error of errors) expect(Math.abs(error)).toBeLessThan(0.02 * largest);
  },
);

test("regression finds the map, and the loss falls", async () => {
  const truth = randomMlp({ seed: 3, widths: [2, 16, 2], activation: "tanh" }).network;
  const x = Float32Array.from(normals(4000, 2));
  const targets = evaluateReference(truth, x, { outputs: ["value"] }).value!;
  const student = randomMlp({ seed: 4, widths: [2, 32, 32, 2], activation: "tanh" }).network;
  const trainer = await Trainer.create(device, student, { loss: "regression", batch: 256, optimizer: { learningRate: 5e-3 } });
  await trainer.data(x, { targets });
  const losses = await trainer.train(400);
  expect(losses.at(-1)!).toBeLessThan(0.05 * losses[0]!);
  const value = evaluateReference(await trainer.network(), x, { outputs: ["value"] }).value!;
  const off = value.reduce((sum, each, i) => sum + (each - targets[i]!) ** 2, 0) / value.length;
  expect(off).toBeLessThan(0.1 * losses[0]!);
  trainer.destroy();
});

test("the penalty takes nine tenths of the divergence out of a vortex that was measured with noise, at hardly more error", async () => {
  const uniform = random(7);
  const points = (count: number): Float32Array => Float32Array.from({ length: 2 * count }, () => 4 * uniform() - 2);
  // Lamb and Oseen's near its axis: velocity ∝ exp(-r²/2) around it.
  const vortex = (x: Float32Array): Float32Array =>
    x.map((each, i) => {
      const other = x[i % 2 === 0 ? i + 1 : i - 1]!;
      return (i % 2 === 0 ? -2 : 2) * Math.exp(-(each ** 2 + other ** 2) / 2) * other;
    });
  const [measured, held] = [points(200), points(2000)];
  const noise = normals(400, 3);
  const targets = vortex(measured).map((each, i) => each + 0.1 * noise[i]!);
  const shape = { stateSize: 2, hidden: [32, 32], activation: "tanh" };
  const fit = async (divergencePenalty: number) => {
    const trainer = await Trainer.create(device, shape, {
      loss: "regression",
      batch: 256,
      seed: 2,
      divergencePenalty,
      optimizer: { learningRate: 5e-3, schedule: "cosine", steps: 600 },
    });
    await trainer.data(measured, { targets });
    await trainer.train(600);
    const { value, divergence } = evaluateReference(await trainer.network(), held);
    trainer.destroy();
    const exact = vortex(held);
    const error = Math.sqrt(value!.reduce((sum, each, i) => sum + (each - exact[i]!) ** 2, 0) / exact.length);
    return { error, divergence: divergence!.reduce((sum, each) => sum + Math.abs(each), 0) / divergence!.length };
  };
  const [plain, penalised] = [await fit(0), await fit(3)];
  expect(plain.error).toBeLessThan(0.1);
  expect(penalised.divergence / plain.divergence).toBeLessThan(0.1);
  expect(penalised.error / plain.error).toBeLessThan(1.2);
});

/** The batch of a step as the device draws it, by JavaScript's own functions: an independent route to what the loss is of. */
function drawn(loss: Loss, { data, targets, conditions, d, batch, seed, step, noise, timeColumn, contextSize }: Drawn) {
  const bits = (row: number, place: number): number => mixBits(mixBits(mixBits(mixBits(seed) + step) + row) + place);
  const uniform = (row: number, place: number): number => ((bits(row, place) >>> 8) + 0.5) / 2 ** 24;
  const normal = (row: number, place: number): number =>
    Math.sqrt(-2 * Math.log(uniform(row, place))) * Math.cos(2 * Math.PI * uniform(row, place + 1));
  const count = data.length / d;
  const rows = Array.from({ length: batch }, (_, row) => {
    const i = Number((BigInt(bits(row, 0)) * BigInt(count)) >> 32n);
    const t = uniform(row, 1);
    const sigma = Math.exp(Math.log(noise[0]) + t * (Math.log(noise[1]) - Math.log(noise[0])));
    const own = Array.from({ length: d }, (_unused, k) => {
      const x = data[i * d + k]!;
      const z = normal(row, 2 + 2 * k);
      if (loss === "regression") return [x, targets[i * d + k]!];
      if (loss === "flow_matching") return [(1 - t) * z + t * x, x - z];
      return [x + sigma * z, loss === "denoising_score_matching" ? -z / sigma : 0];
    });
    const width = contextSize - (timeColumn === null ? 0 : 1);
    const condition = Array.from(conditions.slice(i * width, (i + 1) * width));
    if (timeColumn !== null) condition.splice(timeColumn, 0, loss === "flow_matching" ? t : sigma);
    return { i, own, condition, weight: loss === "denoising_score_matching" ? sigma ** 2 : 1 };
  });
  return {
    rows: rows.map(({ i }) => i),
    points: rows.flatMap(({ own }) => own.map(([at]) => at!)),
    wanted: rows.flatMap(({ own }) => own.map(([, want]) => want!)),
    weights: rows.map(({ weight }) => weight),
    context: rows.flatMap(({ condition }) => condition),
  };
}

interface Drawn {
  readonly data: readonly number[];
  readonly targets: readonly number[];
  readonly conditions: readonly number[];
  readonly d: number;
  readonly batch: number;
  readonly seed: number;
  readonly step: number;
  readonly noise: readonly [number, number];
  readonly timeColumn: number | null;
  readonly contextSize: number;
}

test.each<[Loss, number, number | null, Partial<TrainerOptions>]>([
  ["regression", 0, null, {}],
  ["regression", 2, null, {}],
  ["regression", 0, null, { divergencePenalty: 0.7 }],
  ["regression", 1, null, { divergencePenalty: 3 }],
  ["flow_matching", 1, 0, {}],
  ["flow_matching", 3, 1, {}],
  ["denoising_score_matching", 1, 0, { noise: [0.2, 2] }],
  ["denoising_score_matching", 0, null, { noise: [0.2, 2] }],
  ["score_matching", 0, null, { noise: [0.3, 0.3] }],
  ["score_matching", 2, null, { noise: [0.3, 0.3] }],
  ["sliced_score_matching", 0, null, { noise: [0.3, 0.3] }],
  ["sliced_score_matching", 1, 0, { noise: [0.1, 0.5], probes: 3 }],
])("the loss of %s with %i contexts, and a step down its gradient, are float64's", async (loss, contextSize, timeColumn, own) => {
  const [d, batch, seed, rate] = [3, 96, 7, 0.05];
  const { network } = randomMlp({ seed: 9, widths: [d + contextSize, 13, 11, d], activation: "silu" });
  const data = normals(d * 50, 11);
  const targets = normals(d * 50, 12);
  const conditions = normals((contextSize - (timeColumn === null ? 0 : 1)) * 50, 13);
  const trainer = await Trainer.create(device, network, {
    loss,
    batch,
    seed,
    timeColumn,
    ...own,
    optimizer: { name: "sgd", learningRate: rate },
  });
  await trainer.data(data, { ...(loss === "regression" && { targets }), ...(conditions.length > 0 && { context: conditions }) });
  const { divergencePenalty = 0, probes = 1, noise = [1, 1] } = own;
  let now = network;
  for (let step = 0; step < 3; step++) {
    const { points, wanted, weights, context } = drawn(loss, {
      data,
      targets,
      conditions,
      d,
      batch,
      seed,
      step,
      noise,
      timeColumn,
      contextSize,
    });
    const given = {
      ...(contextSize > 0 && { context }),
      ...(loss === "sliced_score_matching" && ({ method: "hutchinson", probes, seed: (mixBits(seed) + step) >>> 0 } as const)),
    };
    const { value, divergence } = evaluateReference(now, points, given);
    const perPoint = loss === "regression" || loss === "flow_matching" ? 2 / (batch * d) : 1 / batch;
    const off = wanted.map((want, i) => value![i]! - want);
    const squares = off.reduce((sum, each, i) => sum + weights[Math.floor(i / d)]! * each ** 2, 0);
    const isScore = loss === "score_matching" || loss === "sliced_score_matching";
    const mean = (of: (divergence: number) => number): number => divergence!.reduce((sum, each) => sum + of(each), 0) / batch;
    const expected = (perPoint / 2) * squares + (isScore ? mean((each) => each) : 0) + divergencePenalty * mean((each) => each ** 2);
    const cotangent = off.map((each, i) => perPoint * weights[Math.floor(i / d)]! * each);
    const penalty = Array.from(divergence!, (each) => (2 * divergencePenalty * each) / batch);
    const { parameters: gradient } = vjpReference(
      now,
      points,
      { value: cotangent, ...(isScore && { divergence: 1 / batch }), ...(divergencePenalty > 0 && { divergence: penalty }) },
      { ...given, wrt: ["parameters"] },
    );
    const before = parametersOf(now);
    const [lossOfStep] = await trainer.train(1);
    expect(Math.abs(lossOfStep! - expected)).toBeLessThan(1e-5 * (1 + Math.abs(expected)));
    now = await trainer.network();
    expectStep(before, parametersOf(now), gradient, rate);
  }
  trainer.destroy();
});

/** Weights that went down a gradient at this rate, but for their own rounding. */
function expectStep(
  before: ReturnType<typeof parametersOf>,
  after: ReturnType<typeof parametersOf>,
  gradient: Readonly<Record<string, { readonly data: ArrayLike<number> }>>,
  rate: number,
): void {
  for (const [name, { data }] of Object.entries(after)) {
    const exact = Array.from(gradient[name]!.data);
    const largest = exact.reduce((most, each) => Math.max(most, Math.abs(each)), 0);
    data.forEach((weight, i) => {
      const moved = (before[name]!.data[i]! - weight) / rate;
      const allowed = 2e-5 * largest + (2 ** -24 * Math.abs(weight) * 2) / rate;
      if (!(Math.abs(moved - exact[i]!) <= allowed)) expect.fail(`${name}[${i}] moves by ${moved}; expected ${exact[i]}`);
    });
  }
}

/** -log p of points at time 1, on the average, by steps of a Runge-Kutta method to time 0; in float64. */
function likelihoodLoss(
  network: Network,
  points: readonly number[],
  contexts: (time: number) => number[] | undefined,
  { solver, steps }: { readonly solver: Solver; readonly steps: number },
): number {
  const { a, b, c } = tableaus[solver];
  const d = network.stateSize;
  const h = -1 / steps;
  let x = [...points];
  const logs = Array.from({ length: x.length / d }, () => 0);
  for (let step = 0; step < steps; step++) {
    const slopes: Float64Array[] = [];
    for (const [stage, row] of a.entries()) {
      const at = x.map((each, i) => each + h * row.reduce((sum, factor, j) => sum + factor * slopes[j]![i]!, 0));
      const context = contexts(1 + h * (step + c[stage]!));
      const { value, divergence } = evaluateReference(network, at, context ? { context } : {});
      slopes.push(value!);
      logs.forEach((_, row2) => (logs[row2]! += h * b[stage]! * divergence![row2]!));
    }
    x = x.map((each, i) => each + h * b.reduce((sum, factor, j) => sum + factor * slopes[j]![i]!, 0));
  }
  return (
    logs.reduce((sum, log, row) => {
      const squares = x.slice(row * d, (row + 1) * d).reduce((all, each) => all + each ** 2, 0);
      return sum + squares / 2 + (d / 2) * Math.log(2 * Math.PI) - log;
    }, 0) / logs.length
  );
}

test.each<[Solver, number, number, number, number | null]>([
  ["rk4", 3, 2, 1, 0],
  ["euler", 2, 3, 0, null],
  ["midpoint", 2, 2, 3, 1],
  ["heun", 2, 1, 1, 0],
  ["tsit5", 1, 2, 2, 1],
])(
  "max_likelihood by %s is the solver's own log p, and its gradient that of float64 differences",
  async (solver, steps, d, contextSize, timeColumn) => {
    const [batch, seed, rate] = [24, 5, 0.05];
    const { network } = randomMlp({ seed: 9, widths: [d + contextSize, 7, 6, d], activation: "tanh" });
    const data = normals(d * 50, 11);
    const width = contextSize - (timeColumn === null ? 0 : 1);
    const conditions = normals(width * 50, 13);
    const integration = { solver, steps };
    const trainer = await Trainer.create(device, network, {
      loss: "max_likelihood",
      batch,
      seed,
      timeColumn,
      integration,
      optimizer: { name: "sgd", learningRate: rate },
    });
    await trainer.data(data, width > 0 ? { context: conditions } : {});
    let now = network;
    for (let step = 0; step < 2; step++) {
      const { rows } = drawn("max_likelihood", {
        data,
        targets: [],
        conditions,
        d,
        batch,
        seed,
        step,
        noise: [1, 1],
        timeColumn,
        contextSize,
      });
      const points = rows.flatMap((i) => data.slice(i * d, (i + 1) * d));
      const contexts = (time: number): number[] | undefined => {
        if (contextSize === 0) return undefined;
        return rows.flatMap((i) => {
          const own = conditions.slice(i * width, (i + 1) * width);
          if (timeColumn !== null) own.splice(timeColumn, 0, time);
          return own;
        });
      };
      const lossOf = (of: Network): number => likelihoodLoss(of, points, contexts, integration);
      const before = parametersOf(now);
      const e = 1e-5;
      const gradient = Object.fromEntries(
        Object.entries(before).map(([name, { data: weights, shape }]) => {
          const moved = (i: number, by: number): number =>
            lossOf(withParameters(now, { [name]: { data: Float64Array.from(weights, (w, j) => (j === i ? w + by : w)), shape } }));
          return [name, { data: Array.from(weights, (_, i) => (moved(i, e) - moved(i, -e)) / (2 * e)) }];
        }),
      );
      const [loss] = await trainer.train(1);
      const expected = lossOf(now);
      expect(Math.abs(loss! - expected)).toBeLessThan(1e-5 * (1 + Math.abs(expected)));
      now = await trainer.network();
      expectStep(before, parametersOf(now), gradient, rate);
    }
    trainer.destroy();
  },
);

test("a loss of one's own is as good as one by name, and what it throws or gives wrong ends train with nothing changed", async () => {
  const d = 2;
  const { network } = randomMlp({ seed: 9, widths: [d + 1, 13, 11, d], activation: "silu" });
  const data = { context: normals(50, 3), targets: normals(d * 50, 4) };
  const points = normals(d * 50, 2);
  const [batch, divergencePenalty] = [40, 0.3];
  const optimizer = { learningRate: 1e-2, clip: 1 };
  const seen: LossBatch[] = [];
  const loss: CustomLoss = async (given) => {
    seen.push(given);
    const { value, targets, divergence } = given;
    const off = value.map((each, i) => each - targets![i]!);
    const squares = off.reduce((sum, each) => sum + each ** 2, 0) / (batch * d);
    return {
      loss: squares + (divergencePenalty * divergence.reduce((sum, each) => sum + each ** 2, 0)) / batch,
      value: off.map((each) => (2 * each) / (batch * d)),
      divergence: divergence.map((each) => (2 * divergencePenalty * each) / batch),
    };
  };
  const make = async (options: TrainerOptions): Promise<Trainer> => {
    const trainer = await Trainer.create(device, network, options);
    await trainer.data(points, data);
    return trainer;
  };
  const named = await make({ loss: "regression", divergencePenalty, batch, optimizer });
  const custom = await make({ loss, batch, optimizer });
  const [expected, losses] = [await named.train(8), await custom.train(8)];
  losses.forEach((each, i) => expect(Math.abs(each - expected[i]!)).toBeLessThan(1e-5 * expected[i]!));
  expect(seen.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  const { value, divergence } = evaluateReference(await custom.network(), seen[0]!.points, { context: seen[0]!.context });
  expect([value!.length, divergence!.length]).toEqual([batch * d, batch]);
  const [state, expectedState] = [await custom.state(), await named.state()];
  state.weights.forEach((each, i) => expect(Math.abs(each - expectedState.weights[i]!)).toBeLessThan(1e-4));
  for (const [wrong, message] of [
    [() => Promise.reject(new Error("no loss today")), /no loss today/],
    [() => ({ loss: 1, value: [1, 2] }), /cotangent for the value/],
    [() => ({ loss: "1" }), /the loss that the function gives is "1"/],
    [() => null, /what the loss gives is null/],
    [() => ({ loss: NaN }), /the loss of step 0, NaN/],
  ] as const) {
    const trainer = await make({ loss: wrong as CustomLoss, batch, optimizer });
    const before = await trainer.state();
    await expect(trainer.train(2)).rejects.toThrow(message);
    expect(await trainer.state()).toEqual(before);
    trainer.destroy();
  }
  named.destroy();
  custom.destroy();
});

test("data beyond the budget are sent as they are drawn, and give the same weights", async () => {
  const { network } = randomMlp({ seed: 5, widths: [4, 9, 2], activation: "silu" });
  const points = normals(2 * 7000, 5);
  const data = { context: normals(2 * 7000, 6), targets: normals(2 * 7000, 7) };
  const run = async (memoryBudget: number, parts: readonly number[]): Promise<TrainerState> => {
    const trainer = await Trainer.create(device, network, { loss: "regression", batch: 32, seed: 4, memoryBudget });
    await trainer.data(points, data);
    for (const steps of parts) await trainer.train(steps);
    const state = await trainer.state();
    trainer.destroy();
    return state;
  };
  // Of 768 bytes a step: windows of 130 steps.
  const whole = await run(2 ** 28, [300]);
  expect(await run(100_000, [300])).toEqual(whole);
  expect(await run(100_000, [7, 200, 93])).toEqual(whole);
});

test("every point is drawn equally often, of few and of many", () => {
  for (const count of [1, 7, 1000, 2 ** 25 + 3, 2 ** 32 - 1]) {
    const drawn = Array.from({ length: 4000 }, (_, row) => drawnOf(3, 17, row, count));
    expect(drawn.every((each) => Number.isInteger(each) && each >= 0 && each < count)).toBe(true);
    const eighths = Array.from({ length: 8 }, (_, k) => drawn.filter((each) => Math.floor((each / count) * 8) === k).length);
    // Binomial: 500 of 4000 on the average, with deviation 21.
    if (count >= 1000) for (const each of eighths) expect(Math.abs(each - 500)).toBeLessThan(100);
    // More than 2^24 points have numbers that float32 has not.
    if (count > 2 ** 24) expect(drawn.filter((each) => each % 2 === 1).length).toBeGreaterThan(1800);
  }
});

/** The least Σ cost[i][pair of i] over all pairings, by shortest augmenting paths (Jonker and Volgenant, 1987). */
function leastCost(cost: readonly (readonly number[])[]): number {
  const n = cost.length;
  const [u, v] = [new Float64Array(n + 1), new Float64Array(n + 1)];
  const pair = new Int32Array(n + 1);
  for (let i = 1; i <= n; i++) {
    const least = new Float64Array(n + 1).fill(Infinity);
    const way = new Int32Array(n + 1);
    const used = new Uint8Array(n + 1);
    pair[0] = i;
    let column = 0;
    while (pair[column] !== 0) {
      used[column] = 1;
      const row = pair[column]!;
      let [delta, next] = [Infinity, 0];
      for (let j = 1; j <= n; j++) {
        if (used[j]) continue;
        const reduced = cost[row - 1]![j - 1]! - u[row]! - v[j]!;
        if (reduced < least[j]!) [least[j], way[j]] = [reduced, column];
        if (least[j]! < delta) [delta, next] = [least[j]!, j];
      }
      for (let j = 0; j <= n; j++)
        if (used[j]) {
          u[pair[j]!]! += delta;
          v[j]! -= delta;
        } else least[j]! -= delta;
      column = next;
    }
    while (column !== 0) {
      pair[column] = pair[way[column]!]!;
      column = way[column]!;
    }
  }
  let sum = 0;
  for (let j = 1; j <= n; j++) sum += cost[pair[j]! - 1]![j - 1]!;
  return sum;
}

test.each([
  [1, 200, 1.001],
  [2, 200, 1.1],
  [8, 128, 1.1],
  [2, 97, 1.1],
])("pairs of optimal transport in %i dimensions, %i in a batch, are of the least cost but for a factor %d", async (d, batch, most) => {
  const seed = 6;
  const network = randomMlp({ seed: 5, widths: [d + 1, 4, d], activation: "silu" }).network;
  const data = normals(d * 500, 3).map((each, i) => each + 2 * (Math.floor(i / d) % 2));
  const trainer = await Trainer.create(device, network, { loss: "flow_matching", pairing: "optimal_transport", batch, seed });
  await trainer.data(data);
  await trainer.train(1);
  const { buffers, settings } = trainer["parts"];
  const [pairs, points, wanted, context] = await readBuffers(device, "test", [
    buffers.pairs,
    buffers.points,
    buffers.wanted,
    buffers.context,
  ]);
  const {
    rows,
    points: alone,
    wanted: differences,
    context: times,
  } = drawn("flow_matching", {
    data,
    targets: [],
    conditions: [],
    d,
    batch,
    seed,
    step: 0,
    noise: [1, 1],
    timeColumn: 0,
    contextSize: 1,
  });
  expect(settings.pairing).toBe("optimal_transport");
  const pairOf = Array.from(new Uint32Array(pairs!).subarray(0, batch));
  expect([...pairOf].sort((a, b) => a - b)).toEqual(Array.from({ length: batch }, (_, i) => i));
  // z of each row, of its own draw.
  const z = Array.from({ length: batch }, (_, row) =>
    alone.slice(row * d, (row + 1) * d).map((at, k) => at - times[row]! * differences[row * d + k]!),
  );
  const x = rows.map((i) => data.slice(i * d, (i + 1) * d));
  const cost = x.map((each) => z.map((other) => each.reduce((sum, value, k) => sum + (value - other[k]!) ** 2, 0)));
  const found = pairOf.reduce((sum, j, i) => sum + cost[i]![j]!, 0);
  expect(found / leastCost(cost)).toBeLessThan(most);
  // The step is along these pairs.
  const [at, want, t] = [points!, wanted!, context!].map((each) => new Float32Array(each));
  for (let row = 0; row < batch; row++)
    for (let k = 0; k < d; k++) {
      const [to, from] = [x[row]![k]!, z[pairOf[row]!]![k]!];
      expect(Math.abs(at![row * d + k]! - (from + t![row]! * (to - from)))).toBeLessThan(1e-5);
      expect(Math.abs(want![row * (d + 1) + k]! - (to - from))).toBeLessThan(1e-5);
    }
  trainer.destroy();
});

test("after the device is lost, training goes on from the last state elsewhere", async () => {
  const own = await openDevice();
  const shape = { stateSize: 2, hidden: [9, 9], contextSize: 1 };
  const options = { loss: "flow_matching", batch: 32, seed: 3 } as const;
  const lost = await Trainer.create(own.device, shape, options);
  const network = await lost.network();
  expect(lost.lastState).toBe(null);
  await lost.data(gaussian(100));
  const losses = [...(await lost.train(5))];
  await lost.state();
  await expect(lost.train(100_000, { onProgress: () => own.device.destroy() })).rejects.toThrow(DeviceLostError);
  const state = lost.lastState!;
  expect(state.step).toBe(5);
  const restored = await Trainer.restore(device, network, options, state);
  await restored.data(gaussian(100));
  losses.push(...(await restored.train(4)));
  const whole = await Trainer.create(device, shape, options);
  await whole.data(gaussian(100));
  expect([...(await whole.train(losses.length))]).toEqual(losses);
  restored.destroy();
  whole.destroy();
  await own.close();
});

test("data for a device that was just destroyed are refused", async () => {
  const own = await openDevice();
  const trainer = await Trainer.create(own.device, { stateSize: 2, hidden: [9], contextSize: 1 }, { loss: "flow_matching", batch: 8 });
  own.device.destroy();
  await expect(trainer.data(gaussian(10))).rejects.toThrow(DeviceLostError);
  await own.close();
});

test("a loss that is not finite stops with the weights of before", async () => {
  const { network } = randomMlp({ seed: 9, widths: [2, 13, 2], activation: "identity" });
  const trainer = await Trainer.create(device, network, { loss: "regression", batch: 16, optimizer: { name: "sgd", learningRate: 1e12 } });
  await trainer.data(normals(40, 1), { targets: normals(40, 2) });
  await expect(trainer.train(50)).rejects.toThrow(DeldotError);
  await expect(trainer.train(1)).rejects.toThrow(/the loss of step \d+, .* not finite/);
  for (const { data } of Object.values(parametersOf(await trainer.network())))
    for (const each of data) expect(each).toSatisfy(Number.isFinite);
  trainer.destroy();
});

test("a weight that would overflow stays, and what fails can be tried again with other data", async () => {
  const network = mlp({ layers: [{ weight: [[1]] }] });
  const trainer = await Trainer.create(device, network, { loss: "regression", batch: 4, optimizer: { name: "sgd", learningRate: 1e37 } });
  await trainer.data([1], { targets: [200] });
  await trainer.train(1);
  expect(parametersOf(await trainer.network())["0.weight"]!.data[0]).toBe(1);
  await trainer.data([1e30], { targets: [0] });
  await expect(trainer.train(3)).rejects.toThrow(/the loss of step 1, /);
  await expect(trainer.train(3)).rejects.toThrow(/the loss of step 1, /);
  await trainer.data([0], { targets: [0] });
  expect([...(await trainer.train(3))]).toEqual([0, 0, 0]);
  expect((await trainer.state()).weights).toEqual(Float32Array.of(1));
  trainer.destroy();
});

test("what is bound once keeps to the memory budget, whatever the solver", async () => {
  const [batch, memoryBudget] = [512, 600_000];
  const { network } = randomMlp({ seed: 2, widths: [8, 32, 32, 8], activation: "tanh" });
  const live = new Map<string, number>();
  const create = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = create(descriptor);
    // What is forgotten lives on where it is bound.
    if (descriptor.label?.startsWith("deldot train encode: ")) live.set(`${descriptor.label} ${live.size}`, descriptor.size);
    return buffer;
  };
  try {
    for (const solver of ["midpoint", "dopri5", "rk4"] as const) {
      live.clear();
      const integration = { solver, steps: 4 };
      const trainer = await Trainer.create(device, network, { loss: "max_likelihood", batch, timeColumn: null, integration, memoryBudget });
      await trainer.data(normals(8 * 40, 1));
      await trainer.train(1);
      const budgets = [...live.values()].reduce((sum, each) => sum + each, 0) / memoryBudget;
      expect(budgets).toBeLessThan(5);
      // Else it is not scratch that was counted.
      expect(budgets).toBeGreaterThan(0.5);
      trainer.destroy();
    }
  } finally {
    device.createBuffer = create;
  }
});

test("nothing that a trainer has made is left when it is destroyed", async () => {
  const live = new Set<GPUBuffer>();
  const create = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    if (!descriptor.label?.startsWith("deldot train")) return create(descriptor);
    const buffer = create(descriptor);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      live.delete(buffer);
      destroy();
    };
    live.add(buffer);
    return buffer;
  };
  try {
    for (const loss of ["max_likelihood", "sliced_score_matching"] as const) {
      const options = { loss, batch: 16, timeColumn: null, ...(loss === "max_likelihood" && { integration: { steps: 2 } }) };
      const trainer = await Trainer.create(device, linear(2), options);
      await trainer.data(gaussian(50));
      await trainer.train(3);
      await trainer.data(gaussian(60));
      expect(live.size).toBeGreaterThan(20);
      trainer.destroy();
      expect(live.size).toBe(0);
    }
  } finally {
    device.createBuffer = create;
  }
});

test("interrupted and restored equals uninterrupted, by every optimizer", async () => {
  for (const optimizer of [
    { name: "adam", warmUp: 3, schedule: "cosine", steps: 10 },
    { name: "adamw", clip: 0.1 },
    { name: "sgd", momentum: 0.9, weightDecay: 0.01 },
  ] as const) {
    const options = { loss: "flow_matching", batch: 32, seed: 3, optimizer } as const;
    const shape = { stateSize: 2, hidden: [9, 9], contextSize: 1 };
    const whole = await Trainer.create(device, shape, options);
    const initial = await whole.network();
    await whole.data(gaussian(100));
    const first = await Trainer.create(device, shape, options);
    await first.data(gaussian(100));
    const losses = [...(await first.train(4))];
    const state = await first.state();
    for (const step of [-1, 2.5, NaN])
      await expect(Trainer.restore(device, await first.network(), options, { ...state, step })).rejects.toThrow(InputError);
    // Whatever weights the network has, the state's go on.
    const second = await Trainer.restore(device, initial, options, state);
    first.destroy();
    await second.data(gaussian(100));
    losses.push(...(await second.train(6)));
    expect(losses).toEqual([...(await whole.train(10))]);
    expect(await second.state()).toEqual(await whole.state());
    second.destroy();
    whole.destroy();
  }
});

test("what is wrong is an InputError", async () => {
  const network = linear(2);
  for (const options of [
    { loss: "magic" },
    { loss: "flow_matching" },
    { loss: "regression", batch: 0 },
    { loss: "regression", seed: -1 },
    { loss: "score_matching", noise: [0, 1] },
    { loss: "regression", timeColumn: 0 },
    { loss: "regression", optimizer: { name: "lion" } },
    { loss: "regression", optimizer: { schedule: "cosine" } },
    { loss: "regression", optimizer: { weightDecay: 1 } },
    { loss: "regression", optimizer: { momentum: 0.9 } },
    { loss: "regression", optimizer: { name: "sgd", betas: [0.9, 0.99] } },
    { loss: "regression", optimizer: { steps: 100 } },
    { loss: "regression", optimizer: { epsilon: 0 } },
    { loss: "regression", noise: [1, 1] },
    { loss: "score_matching", divergencePenalty: 1 },
    { loss: "regression", integration: { steps: 3 } },
    { loss: "max_likelihood", integration: { solver: "magic" } },
    { loss: "regression", kernels: "fused storage x2" },
    { loss: "regression", optimiser: {} },
    { loss: "regression", optimizer: { lr: 3 } },
    { loss: "regression", optimizer: { clip: 1e-46 } },
  ])
    await expect(Trainer.create(device, network, options as never)).rejects.toThrow(InputError);
  const { network: conditioned } = randomMlp({ seed: 1, widths: [2, 4, 2], contextSize: 2, activation: "tanh" });
  for (const own of [{ timeColumn: 0 }, { timeColumn: 0, batch: 8192 }])
    await expect(Trainer.create(device, conditioned, { loss: "flow_matching", pairing: "optimal_transport", ...own })).rejects.toThrow(
      InputError,
    );
  const trainer = await Trainer.create(device, network, { loss: "regression", batch: 4 });
  await expect(trainer.train(1, null as never)).rejects.toThrow(InputError);
  await expect(trainer.network(null as never)).rejects.toThrow(InputError);
  const state = await trainer.state();
  expect([state.weights.length, state.averaged.length, state.moments.length, state.rates.length]).toEqual([6, 6, 12, 4]);
  for (const wrong of [{ weights: new Float32Array(8) }, { averaged: state.averaged.subarray(1) }, { moments: [1] }, { rates: undefined }])
    await expect(Trainer.restore(device, network, { loss: "regression" }, { ...state, ...wrong } as never)).rejects.toThrow(InputError);
  await expect(trainer.train(1)).rejects.toThrow(InputError);
  await expect(trainer.data([1, 2, 3])).rejects.toThrow(InputError);
  await expect(trainer.data([1, NaN], { targets: [1, 2] })).rejects.toThrow(/points holds NaN at position 1/);
  await expect(trainer.data([1, 2])).rejects.toThrow(/targets is missing/);
  await expect(trainer.data([1, 2], { targets: [1, 2], context: [1] })).rejects.toThrow(InputError);
  trainer.destroy();
});

test("what is done to inputs while a call is pending, and to what was given back, is not seen", async () => {
  const betas: [number, number] = [0.9, 0.99];
  const make = () => ({ loss: "flow_matching", batch: 16, seed: 3, optimizer: { betas, learningRate: 0.01 } }) as const;
  const shape = { stateSize: 2, hidden: [9], contextSize: 1 };
  const run = async (spoils: boolean): Promise<TrainerState> => {
    const creating = Trainer.create(device, shape, make());
    if (spoils) betas.fill(0.5);
    const first = await creating;
    betas.splice(0, 2, 0.9, 0.99);
    const points = gaussian(100);
    const sending = first.data(points);
    if (spoils) points.fill(7);
    await sending;
    await first.train(3);
    const state = await first.state();
    const restoring = Trainer.restore(device, await first.network(), make(), state);
    if (spoils) for (const numbers of [state.weights, state.averaged, state.moments, state.rates]) numbers.fill(7);
    const second = await restoring;
    if (spoils) expect(first.lastState!.weights).not.toEqual(state.weights);
    expect(second.lastState!.weights).toEqual(first.lastState!.weights);
    await second.data(gaussian(100));
    await second.train(3);
    const result = await second.state();
    first.destroy();
    second.destroy();
    return result;
  };
  expect(await run(true)).toEqual(await run(false));
});

test("another kind of optimizer begins with moments of its own", async () => {
  const make = (name: "adam" | "sgd") => ({ loss: "flow_matching", batch: 32, seed: 3, optimizer: { name, learningRate: 0.01 } }) as const;
  const first = await Trainer.create(device, { stateSize: 2, hidden: [9], contextSize: 1 }, make("sgd"));
  await first.data(gaussian(100));
  await first.train(4);
  const state = await first.state();
  expect(state.optimizer).toBe("sgd");
  const second = await Trainer.restore(device, await first.network(), make("adam"), state);
  const { step, weights, averaged, moments, rates } = await second.state();
  expect({ step, weights, averaged }).toEqual({ step: 4, weights: state.weights, averaged: state.averaged });
  expect(moments.every((each) => each === 0)).toBe(true);
  expect([...rates]).toEqual([1, 1, 0, 1]);
  first.destroy();
  second.destroy();
});

test("networks, batches and paths that are too large are LimitErrors, at once", async () => {
  for (const [shape, own] of [
    [{ stateSize: 2, hidden: [1e9] }, {}],
    [{ stateSize: 2, hidden: [20_000, 20_000] }, {}],
    [
      { stateSize: 20, hidden: [4] },
      { loss: "max_likelihood", batch: 2 ** 20, integration: { steps: 256 } },
    ],
  ] as const)
    await expect(Trainer.create(device, shape, { loss: "regression", ...own })).rejects.toThrow(LimitError);
});

test("equal seeds give equal weights, however many steps go together", async () => {
  const run = async (parts: readonly number[], seed: number): Promise<Float32Array[]> => {
    const network = randomMlp({ seed: 5, widths: [2, 8, 8, 2], contextSize: 1, activation: "silu" }).network;
    const trainer = await Trainer.create(device, network, { loss: "flow_matching", batch: 64, seed });
    await trainer.data(gaussian(500));
    for (const steps of parts) await trainer.train(steps);
    const weights = Object.values(parametersOf(await trainer.network())).map(({ data }) => data);
    trainer.destroy();
    return weights;
  };
  const whole = await run([12], 1);
  expect(await run([5, 7], 1)).toEqual(whole);
  expect(await run([12], 2)).not.toEqual(whole);
});

test("calls side by side take turns, and what is destroyed meanwhile ends them", async () => {
  const { network } = randomMlp({ seed: 6, widths: [2, 8, 8, 2], activation: "tanh" });
  const make = async (): Promise<Trainer> => {
    const trainer = await Trainer.create(device, network, { loss: "denoising_score_matching", batch: 32, seed: 4 });
    await trainer.data(gaussian(200));
    return trainer;
  };
  const [one, both] = [await make(), await make()];
  const whole = await one.train(30);
  const [first, , second] = await Promise.all([both.train(12), both.state(), both.train(18)]);
  expect([...first, ...second]).toEqual([...whole]);
  expect(await both.state()).toEqual(await one.state());
  const running = one.train(100_000, { onProgress: () => one.destroy() });
  await expect(running).rejects.toThrow(/the trainer was destroyed/);
  const third = await make();
  const meanwhile = third.train(100_000);
  await new Promise((resolve) => setTimeout(resolve, 20));
  third.destroy();
  await expect(meanwhile).rejects.toThrow(/the trainer was destroyed/);
  await expect(one.network()).rejects.toThrow(DeldotError);
  const controller = new AbortController();
  await expect(both.train(100_000, { signal: controller.signal, onProgress: () => controller.abort() })).rejects.toThrow(/abort/i);
  expect((await both.state()).step).toBeGreaterThan(30);
  // What is whole is not aborted.
  const late = new AbortController();
  expect(await both.train(1, { signal: late.signal, onProgress: () => late.abort() })).toHaveLength(1);
  both.destroy();
});

test.each([
  ["sgd", 0.9, (w: number, m: number) => 0.9 * m + 0.1 * w],
  ["adamw", 0, (w: number) => 0.1 * w],
] as const)("weights without a gradient decay by %s as PyTorch's do", async (name, momentum, change) => {
  // f = W x at x = 0 is what it should be, whatever W.
  const network = mlp({
    layers: [
      {
        weight: [
          [2, -3],
          [0.5, 1],
        ],
      },
    ],
  });
  const optimizer = { name, momentum, weightDecay: 0.1, learningRate: 0.05 };
  const trainer = await Trainer.create(device, network, { loss: "regression", batch: 8, optimizer });
  await trainer.data([0, 0], { targets: [0, 0] });
  await trainer.train(5);
  const expected = [2, -3, 0.5, 1].map((first) => {
    let [w, m] = [first, 0];
    for (let step = 0; step < 5; step++) w -= 0.05 * (m = change(w, m));
    return w;
  });
  const { data } = parametersOf(await trainer.network())["0.weight"]!;
  expected.forEach((w, i) => expect(Math.abs(data[i]! - w)).toBeLessThan(1e-6));
  trainer.destroy();
});
