import { afterAll, beforeAll, expect, test } from "vitest";
import { DeldotError, evaluateReference, InputError, mlp, parametersOf, vjpReference, type Network } from "../src/index.js";
import { mixBits } from "../src/mixBits.js";
import { Trainer, type Loss } from "../src/train/index.js";
import { openDevice } from "./device.js";
import { randomMlp } from "./fields.js";

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

test.each(["score_matching", "denoising_score_matching"] as const)("%s of Gaussian data finds their score", async (loss) => {
  const noise = 0.1;
  const trainer = await Trainer.create(device, linear(2), {
    loss,
    batch: 1024,
    noise: [noise, noise],
    optimizer: { learningRate: 0.02, schedule: "cosine", steps: 600 },
    averaging: 0.98,
  });
  await trainer.data(gaussian(20_000));
  const losses = await trainer.train(600);
  expect(losses.every(Number.isFinite)).toBe(true);
  const { "0.weight": weight, "0.bias": bias } = parametersOf(await trainer.network({ averaged: true }));
  // Σ + noise² of what was drawn.
  const x = gaussian(20_000);
  const n = 20_000;
  const mean = [0, 1].map((k) => x.reduce((sum, each, i) => (i % 2 === k ? sum + each : sum), 0) / n);
  const cov = (j: number, k: number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += (x[2 * i + j]! - mean[j]!) * (x[2 * i + k]! - mean[k]!);
    return sum / n + (j === k ? noise ** 2 : 0);
  };
  const [a, b, c] = [cov(0, 0), cov(0, 1), cov(1, 1)];
  const det = a * c - b * b;
  const precision = [c / det, -b / det, -b / det, a / det];
  const largest = Math.max(...precision.map(Math.abs));
  precision.forEach((each, i) => expect(Math.abs(weight!.data[i]! + each)).toBeLessThan(0.04 * largest));
  [0, 1].forEach((k) =>
    expect(Math.abs(bias!.data[k]! - (precision[2 * k]! * mean[0]! + precision[2 * k + 1]! * mean[1]!))).toBeLessThan(0.06 * largest),
  );
  trainer.destroy();
});

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

/** The batch of a step as the device draws it, by JavaScript's own functions: an independent route to what the loss is of. */
function drawn(loss: Loss, { data, targets, conditions, d, batch, seed, step, noise, timeColumn, contextSize }: Drawn) {
  const bits = (row: number, place: number): number => mixBits(mixBits(mixBits(mixBits(seed) + step) + row) + place);
  const uniform = (row: number, place: number): number => ((bits(row, place) >>> 8) + 0.5) / 2 ** 24;
  const normal = (row: number, place: number): number =>
    Math.sqrt(-2 * Math.log(uniform(row, place))) * Math.cos(2 * Math.PI * uniform(row, place + 1));
  const count = data.length / d;
  const rows = Array.from({ length: batch }, (_, row) => {
    const i = Math.min(Math.floor(count * uniform(row, 0)), count - 1);
    const t = uniform(row, 1);
    const sigma = Math.exp(Math.log(noise[0]) + t * (Math.log(noise[1]) - Math.log(noise[0])));
    const own = Array.from({ length: d }, (_unused, k) => {
      const x = data[i * d + k]!;
      const z = normal(row, 2 + 2 * k);
      if (loss === "regression") return [x, targets[i * d + k]!];
      if (loss === "flow_matching") return [(1 - t) * z + t * x, x - z];
      return [x + sigma * z, loss === "score_matching" ? 0 : -z / sigma];
    });
    const width = contextSize - (timeColumn === null ? 0 : 1);
    const condition = Array.from(conditions.slice(i * width, (i + 1) * width));
    if (timeColumn !== null) condition.splice(timeColumn, 0, loss === "flow_matching" ? t : sigma);
    return { own, condition, weight: loss === "denoising_score_matching" ? sigma ** 2 : 1 };
  });
  return {
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

test.each<[Loss, number, number | null]>([
  ["regression", 0, null],
  ["regression", 2, null],
  ["flow_matching", 1, 0],
  ["flow_matching", 3, 1],
  ["denoising_score_matching", 1, 0],
  ["denoising_score_matching", 0, null],
  ["score_matching", 0, null],
  ["score_matching", 2, null],
])("the loss of %s with %i contexts, and a step down its gradient, are float64's", async (loss, contextSize, timeColumn) => {
  const [d, batch, seed, rate] = [3, 96, 7, 0.05];
  const noise = loss === "score_matching" ? ([0.3, 0.3] as const) : ([0.2, 2] as const);
  const { network } = randomMlp({ seed: 9, widths: [d + contextSize, 13, 11, d], activation: "silu" });
  const data = normals(d * 50, 11);
  const targets = normals(d * 50, 12);
  const conditions = normals((contextSize - (timeColumn === null ? 0 : 1)) * 50, 13);
  const trainer = await Trainer.create(device, network, {
    loss,
    batch,
    seed,
    noise,
    timeColumn,
    optimizer: { name: "sgd", learningRate: rate },
  });
  await trainer.data(data, { ...(loss === "regression" && { targets }), ...(conditions.length > 0 && { context: conditions }) });
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
    const given = contextSize > 0 ? { context } : {};
    const { value, divergence } = evaluateReference(now, points, given);
    const perPoint = loss === "regression" || loss === "flow_matching" ? 2 / (batch * d) : 1 / batch;
    const off = wanted.map((want, i) => value![i]! - want);
    const squares = off.reduce((sum, each, i) => sum + weights[Math.floor(i / d)]! * each ** 2, 0);
    const isScore = loss === "score_matching";
    const expected = (perPoint / 2) * squares + (isScore ? divergence!.reduce((sum, each) => sum + each, 0) / batch : 0);
    const cotangent = off.map((each, i) => perPoint * weights[Math.floor(i / d)]! * each);
    const { parameters: gradient } = vjpReference(
      now,
      points,
      { value: cotangent, ...(isScore && { divergence: 1 / batch }) },
      { ...given, wrt: ["parameters"] },
    );
    const before = parametersOf(now);
    const [lossOfStep] = await trainer.train(1);
    expect(Math.abs(lossOfStep! - expected)).toBeLessThan(1e-5 * (1 + Math.abs(expected)));
    now = await trainer.network();
    for (const [name, { data: after }] of Object.entries(parametersOf(now))) {
      const exact = gradient[name]!.data;
      const largest = exact.reduce((most, each) => Math.max(most, Math.abs(each)), 0);
      after.forEach((weight, i) => {
        const moved = (before[name]!.data[i]! - weight) / rate;
        // A weight's own rounding, beside the step.
        const allowed = 2e-5 * largest + (2 ** -24 * Math.abs(weight) * 2) / rate;
        if (!(Math.abs(moved - exact[i]!) <= allowed)) expect.fail(`${name}[${i}] of step ${step} moves by ${moved}; expected ${exact[i]}`);
      });
    }
  }
  trainer.destroy();
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
  ])
    await expect(Trainer.create(device, network, options as never)).rejects.toThrow(InputError);
  const trainer = await Trainer.create(device, network, { loss: "regression", batch: 4 });
  await expect(trainer.train(1)).rejects.toThrow(InputError);
  await expect(trainer.data([1, 2, 3])).rejects.toThrow(InputError);
  await expect(trainer.data([1, NaN], { targets: [1, 2] })).rejects.toThrow(/points holds NaN at position 1/);
  await expect(trainer.data([1, 2])).rejects.toThrow(/targets is missing/);
  await expect(trainer.data([1, 2], { targets: [1, 2], context: [1] })).rejects.toThrow(InputError);
  trainer.destroy();
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
  await expect(running).rejects.toThrow(DeldotError);
  await expect(one.network()).rejects.toThrow(DeldotError);
  const controller = new AbortController();
  await expect(both.train(100_000, { signal: controller.signal, onProgress: () => controller.abort() })).rejects.toThrow(/abort/i);
  expect((await both.state()).step).toBeGreaterThan(30);
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
