/** The probability-flow ODE as a network: against its formulas, densities that are known, and the plan of the network it is made of. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  bitsPerDimension,
  evaluateReference,
  explainPlan,
  InputError,
  logProbReference,
  mlp,
  ModelError,
  parameterLayout,
  parametersOf,
  parseOnnx,
  probabilityFlow,
  VectorField,
  vjpReference,
  withParameters,
  type DiffusionSchedule,
  type Network,
  type Operand,
  type Operation,
  type ProbabilityFlowOptions,
} from "../../src/index.js";
import { parseActivation } from "../../src/model/activation.js";
import { openDevice } from "../device.js";
import { loadModel, randomMlp, randomPoints } from "../fields.js";
import { random } from "../random.js";

interface Case {
  readonly name: string;
  readonly schedule: DiffusionSchedule;
  readonly predicts?: "score" | "noise";
  /** What f is made of at a time: drift x + diffusion N(input x, time). */
  readonly parts: (t: number) => { drift: number; diffusion: number; input: number; time: number };
}

function variancePreserving(min: number, max: number): { beta: (t: number) => number; sigma: (t: number) => number } {
  return {
    beta: (t) => min + t * (max - min),
    sigma: (t) => Math.sqrt(-Math.expm1(-(min * t + ((max - min) * t * t) / 2))),
  };
}

function edm(s: number): Case["parts"] {
  return (sigma) => {
    const skip = s ** 2 / (sigma ** 2 + s ** 2);
    const out = (sigma * s) / Math.hypot(sigma, s);
    return { drift: (1 - skip) / sigma, diffusion: -out / sigma, input: 1 / Math.hypot(sigma, s), time: Math.log(sigma) / 4 };
  };
}

const still = { drift: 0, input: 1 };
const usual = variancePreserving(0.1, 20);
const other = variancePreserving(0.5, 3);
const cases: readonly Case[] = [
  {
    name: "variance preserving, score",
    schedule: { kind: "variance preserving" },
    parts: (t) => ({ drift: -usual.beta(t) / 2, diffusion: -usual.beta(t) / 2, input: 1, time: t }),
  },
  {
    name: "variance preserving, noise",
    schedule: { kind: "variance preserving", betaMin: 0.5, betaMax: 3 },
    predicts: "noise",
    parts: (t) => ({ drift: -other.beta(t) / 2, diffusion: other.beta(t) / 2 / other.sigma(t), input: 1, time: t }),
  },
  {
    name: "variance exploding, score",
    schedule: { kind: "variance exploding" },
    parts: (t) => ({ ...still, diffusion: -Math.log(5000) * 1e-4 * 5000 ** (2 * t), time: t }),
  },
  {
    name: "variance exploding, noise",
    schedule: { kind: "variance exploding", sigmaMin: 0.1, sigmaMax: 3 },
    predicts: "noise",
    parts: (t) => ({ ...still, diffusion: Math.log(30) * 0.1 * 30 ** t, time: t }),
  },
  { name: "edm", schedule: { kind: "edm" }, parts: edm(0.5) },
  { name: "edm of other data", schedule: { kind: "edm", sigmaData: 2 }, parts: edm(2) },
];

const diagonal = (...numbers: readonly number[]): { diagonal: Float64Array } => ({ diagonal: Float64Array.from(numbers) });
const matrix = (rows: number, columns: number, seed: number): { rows: number; columns: number; data: Float64Array } => {
  const uniform = random(seed);
  return { rows, columns, data: Float64Array.from({ length: rows * columns }, () => uniform() - 0.5) };
};
const activation = (name: string, operand: Operand): Operation => ({
  kind: "activation",
  operand,
  activation: parseActivation(name),
});
const onnx = (name: string): Network => parseOnnx(readFileSync(new URL(`../architectures/${name}.torchscript.onnx`, import.meta.url)));

/** Networks that read their inputs, and end, in every way there is; the last number is which column is time. */
const networks: readonly (readonly [string, Network, number])[] = [
  ["an MLP", randomMlp({ seed: 1, widths: [3, 16, 16, 3], activation: "silu", contextSize: 1 }).network, 0],
  ["an MLP with a condition", randomMlp({ seed: 2, widths: [2, 16, 2], activation: "tanh", contextSize: 3 }).network, 1],
  ["one layer", randomMlp({ seed: 3, widths: [3, 3], contextSize: 1 }).network, 0],
  ["an activation at the end", randomMlp({ seed: 4, widths: [2, 8, 2], activation: ["silu", "tanh"], contextSize: 1 }).network, 0],
  ["time-embedding", onnx("time-embedding"), 0],
  ["concatsquash", onnx("concatsquash"), 0],
  [
    "a skip of the state, by a diagonal and a matrix",
    {
      stateSize: 2,
      contextSize: 2,
      operations: [
        {
          kind: "linear",
          terms: [
            { operand: "state", weight: matrix(4, 2, 1) },
            { operand: "context", weight: matrix(4, 2, 2) },
          ],
          bias: null,
        },
        activation("tanh", 0),
        {
          kind: "linear",
          terms: [
            { operand: "state", weight: diagonal(2, -3) },
            { operand: 1, weight: matrix(2, 4, 3) },
            { operand: "context", weight: matrix(2, 2, 4) },
            { operand: "state", weight: matrix(2, 2, 5) },
          ],
          bias: Float64Array.of(0.3, -0.2),
        },
      ],
    },
    1,
  ],
  [
    "particles, a norm and a product",
    {
      stateSize: 4,
      contextSize: 1,
      operations: [
        {
          kind: "linear",
          terms: [
            { operand: "state", weight: { block: matrix(2, 2, 6), times: 2 } },
            { operand: "context", weight: matrix(4, 1, 7) },
          ],
          bias: null,
        },
        { kind: "norm", operand: "state", centered: true, epsilon: 0.1 },
        activation("sin", "state"),
        {
          kind: "linear",
          terms: [
            { operand: 0, weight: diagonal(1, 2, 3, 4) },
            { operand: "state", weight: diagonal(1, 1, 1, 1) },
          ],
          bias: null,
        },
        { kind: "product", operands: [1, 3] },
        { kind: "product", operands: [4, "state"] },
        { kind: "product", operands: [5, 2] },
      ],
    },
    0,
  ],
];

function settings({ schedule, predicts }: Case, timeColumn: number): [DiffusionSchedule, ProbabilityFlowOptions] {
  return [schedule, { timeColumn, ...(predicts && { predicts }) }];
}

describe.each(cases)("$name", (given) => {
  test.each(networks)("is its formula for %s", (_, network, timeColumn) => {
    const flow = probabilityFlow(network, ...settings(given, timeColumn));
    const { stateSize: d, contextSize: c } = network;
    const uniform = random(11);
    for (let trial = 0; trial < 8; trial++) {
      const t = given.schedule.kind === "edm" ? 0.002 * 40000 ** uniform() : 0.001 + 0.999 * uniform();
      const x = Float64Array.from(randomPoints(trial, 1, d, 1 + trial));
      const context = Float64Array.from({ length: c }, (_, i) => (i === timeColumn ? t : uniform()));
      const { drift, diffusion, input, time } = given.parts(t);
      const own = evaluateReference(
        network,
        x.map((each) => input * each),
        { context: context.map((each, i) => (i === timeColumn ? time : each)), outputs: ["value", "diagonal"] },
      );
      const { value, diagonal: slopes } = evaluateReference(flow, x, { context, outputs: ["value", "diagonal"] });
      const { divergence } = evaluateReference(flow, x, { context });
      let [trace, scale] = [0, 0];
      for (let i = 0; i < d; i++) {
        const [kept, scaled] = [drift * x[i]!, diffusion * own.value![i]!];
        const allowance = 1e-10 * (Math.abs(kept) + Math.abs(scaled));
        expect(Math.abs(value![i]! - (kept + scaled))).toBeLessThanOrEqual(allowance);
        const slope = diffusion * input * own.diagonal![i]!;
        trace += drift + slope;
        scale += Math.abs(drift) + Math.abs(slope);
        expect(Math.abs(slopes![i]! - (drift + slope))).toBeLessThanOrEqual(
          1e-9 * (Math.abs(drift) + Math.abs(slope)) + 1e-11 * Math.abs(diffusion),
        );
      }
      expect(Math.abs(divergence![0]! - trace)).toBeLessThanOrEqual(1e-9 * scale + 1e-11 * Math.abs(diffusion));
    }
  });

  test.each(networks)("keeps the tensors of %s", (_, network, timeColumn) => {
    const flow = probabilityFlow(network, ...settings(given, timeColumn));
    const own = parametersOf(network);
    const all = Object.entries(parametersOf(flow));
    expect(Object.fromEntries(all.filter(([name]) => !name.startsWith("schedule.")))).toEqual(own);
    // Others in their place make the field of the other network.
    const redrawn = Object.fromEntries(
      Object.entries(own).map(([name, { data, shape }]) => [name, { data: data.map((value) => value / 2 + 0.125), shape }]),
    );
    const x = Float64Array.from(randomPoints(5, 1, network.stateSize));
    const options = { context: Float64Array.from({ length: network.contextSize }, () => 0.4), outputs: ["value", "divergence"] as const };
    const actual = evaluateReference(withParameters(flow, redrawn), x, options);
    const expected = evaluateReference(probabilityFlow(withParameters(network, redrawn), ...settings(given, timeColumn)), x, options);
    for (const output of options.outputs)
      for (const [i, value] of expected[output]!.entries()) expect(actual[output]![i]).toBeCloseTo(value, 10);
  });

  test("has gradients for its own weights", () => {
    const [, network] = networks[0]!;
    const flow = probabilityFlow(network, ...settings(given, 0));
    const weights = parametersOf(network)["1.bias"]!;
    const options = { context: [0.3] };
    const { parameters } = vjpReference(flow, [0.1, -0.4, 0.2], { value: [1, 2, 3], divergence: 1 }, { ...options, wrt: ["parameters"] });
    const lossOf = (change: number): number => {
      const data = Float64Array.from(weights.data);
      data[2]! += change;
      const { value, divergence } = evaluateReference(withParameters(flow, { "1.bias": data }), [0.1, -0.4, 0.2], options);
      return value![0]! + 2 * value![1]! + 3 * value![2]! + divergence![0]!;
    };
    const slope = (lossOf(1e-4) - lossOf(-1e-4)) / 2e-4;
    expect(Math.abs(parameters["1.bias"]!.data[2]! - slope)).toBeLessThan(1e-5 * Math.max(1, Math.abs(slope)));
  });
});

describe("on a device", () => {
  let device: GPUDevice;
  let close: () => Promise<void>;
  beforeAll(async () => ({ device, close } = await openDevice()));
  afterAll(() => close());

  test.each(cases)("$name, in float32", async (given) => {
    const [, network] = networks[0]!;
    const flow = probabilityFlow(network, ...settings(given, 0));
    const points = randomPoints(3, 6, 3);
    const context = Float32Array.of(0.002, 0.01, 0.1, 0.3, 0.7, 1);
    const field = await VectorField.create(device, flow);
    const { value, divergence } = await field.evaluate(points, { context });
    const truth = evaluateReference(flow, points, { context });
    field.destroy();
    for (const [i, f] of truth.value!.entries()) {
      const { drift, diffusion } = given.parts(context[Math.floor(i / 3)]!);
      expect(Math.abs(value[i]! - f)).toBeLessThan(1e-5 * (Math.abs(drift * points[i]!) + Math.abs(diffusion)));
    }
    for (const [i, trace] of truth.divergence!.entries()) {
      const { drift, diffusion, input } = given.parts(context[i]!);
      expect(Math.abs(divergence[i]! - trace)).toBeLessThan(1e-5 * (3 * Math.abs(drift) + Math.abs(diffusion * input)));
    }
  });
});

describe("time next to 0", () => {
  const [, network] = networks[0]!;

  test("a network of noise loses nothing there, and has no value at 0", () => {
    const flow = probabilityFlow(network, { kind: "variance preserving" }, { predicts: "noise" });
    const x = [0.1, 0.2, -0.3];
    for (const t of [1e-12, 1e-6, 1e-3]) {
      const { value: noise } = evaluateReference(network, x, { context: t });
      const { value } = evaluateReference(flow, x, { context: t });
      for (const [i, f] of value!.entries()) {
        const truth = (usual.beta(t) / 2) * (noise![i]! / usual.sigma(t) - x[i]!);
        expect(Math.abs(f - truth)).toBeLessThan(1e-13 * Math.abs(truth));
      }
    }
    expect([...evaluateReference(flow, x, { context: 0 }).value!]).toEqual([NaN, NaN, NaN]);
  });

  test("a network of the score has", () => {
    const flow = probabilityFlow(network, { kind: "variance preserving" });
    const { value: score } = evaluateReference(network, [1, 2, 3], { context: 0 });
    const { value } = evaluateReference(flow, [1, 2, 3], { context: 0 });
    for (const [i, s] of score!.entries()) expect(value![i]).toBeCloseTo(-0.05 * (i + 1 + s), 14);
  });
});

/** log N(x; mean, variance), d = 2. */
const logNormal = (x: ArrayLike<number>, mean: readonly number[], variance: number): number =>
  -mean.reduce((sum, m, i) => sum + (x[i]! - m) ** 2, 0) / 2 / variance - Math.log(2 * Math.PI * variance);
const base = (mean: readonly number[], variance: number) => ({
  logProb: (points: Float32Array | Float64Array) =>
    Float64Array.from({ length: points.length / 2 }, (_, i) => logNormal(points.subarray(2 * i, 2 * i + 2), mean, variance)),
  sample: () => new Float32Array(),
});
const column = (...data: readonly number[]): { rows: number; columns: number; data: Float64Array } => ({
  rows: data.length,
  columns: 1,
  data: Float64Array.from(data),
});

describe("of normal data, whose score is known, the density is the data's", () => {
  const mean = [1, -0.5];
  const deviation = 0.4;
  const points = [1, -0.5, 1.3, 0.2, 0, -1.5];
  const truth = [0, 1, 2].map((i) => logNormal(points.slice(2 * i, 2 * i + 2), mean, deviation ** 2));
  const expectDensity = (actual: Float64Array): void => truth.forEach((log, i) => expect(actual[i]).toBeCloseTo(log, 6));

  test("variance preserving", () => {
    const [min, max] = [0.1, 5];
    // s = (a m - x) / (1 + (deviation² - 1) a²) with a = exp(-∫β / 2).
    const score: Network = {
      stateSize: 2,
      contextSize: 1,
      operations: [
        activation("square", "context"),
        {
          kind: "linear",
          terms: [
            { operand: "context", weight: column(-min) },
            { operand: 0, weight: column(-(max - min) / 2) },
          ],
          bias: null,
        },
        activation("exp", 1),
        { kind: "linear", terms: [{ operand: 2, weight: column(deviation ** 2 - 1, deviation ** 2 - 1) }], bias: Float64Array.of(1, 1) },
        activation("reciprocal", 3),
        { kind: "linear", terms: [{ operand: 1, weight: column(0.5) }], bias: null },
        activation("exp", 5),
        {
          kind: "linear",
          terms: [
            { operand: 6, weight: column(...mean) },
            { operand: "state", weight: diagonal(-1, -1) },
          ],
          bias: null,
        },
        { kind: "product", operands: [7, 4] },
      ],
    };
    const flow = probabilityFlow(score, { kind: "variance preserving", betaMin: min, betaMax: max });
    const kept = Math.exp(-(min + max) / 4);
    const end = base(
      mean.map((m) => kept * m),
      1 + (deviation ** 2 - 1) * kept ** 2,
    );
    expectDensity(logProbReference(flow, points, { noiseAt: 1, dataAt: 0, base: end }).logProb);
  });

  test("variance exploding", () => {
    const [min, max] = [0.05, 10];
    const negatedMean = Float64Array.from(mean, (m) => m);
    const score: Network = {
      stateSize: 2,
      contextSize: 1,
      operations: [
        {
          kind: "linear",
          terms: [{ operand: "context", weight: column(2 * Math.log(max / min)) }],
          bias: Float64Array.of(2 * Math.log(min)),
        },
        activation("exp", 0),
        { kind: "linear", terms: [{ operand: 1, weight: column(1, 1) }], bias: new Float64Array(2).fill(deviation ** 2 - min ** 2) },
        activation("reciprocal", 2),
        { kind: "linear", terms: [{ operand: "state", weight: diagonal(-1, -1) }], bias: negatedMean },
        { kind: "product", operands: [4, 3] },
      ],
    };
    const flow = probabilityFlow(score, { kind: "variance exploding", sigmaMin: min, sigmaMax: max });
    const end = base(mean, deviation ** 2 - min ** 2 + max ** 2);
    expectDensity(logProbReference(flow, points, { noiseAt: 1, dataAt: 0, base: end }).logProb);
  });

  test("edm", () => {
    // D = c_skip x + (1 - c_skip) m: F = (σ / sigmaData) m / √(σ² + sigmaData²), and σ = exp(4 c_noise).
    const raw: Network = {
      stateSize: 2,
      contextSize: 1,
      operations: [
        { kind: "linear", terms: [{ operand: "context", weight: column(4) }], bias: null },
        activation("exp", 0),
        activation("square", 1),
        { kind: "linear", terms: [{ operand: 2, weight: column(1) }], bias: Float64Array.of(deviation ** 2) },
        activation("reciprocal", 3),
        activation("sqrt", 4),
        { kind: "product", operands: [1, 5] },
        { kind: "linear", terms: [{ operand: 6, weight: column(...mean.map((m) => m / deviation)) }], bias: null },
      ],
    };
    const flow = probabilityFlow(raw, { kind: "edm", sigmaData: deviation });
    const [least, most] = [1e-4, 20];
    const end = base(mean, deviation ** 2 + most ** 2);
    const { logProb } = logProbReference(flow, points, { noiseAt: most, dataAt: least, base: end });
    expectDensity(logProb);
    const bits = bitsPerDimension(logProb, 2);
    truth.forEach((log, i) => expect(bits[i]).toBeCloseTo(-log / 2 / Math.LN2, 6));
  });
});

describe("the plan", () => {
  const costOf = (network: Network, contextPer: "point" | "batch"): { method: string; multiplyAdds: number; ratio: number } => {
    const { method, candidates } = explainPlan(network, { contextPer });
    const { multiplyAdds, ratio } = candidates.find(({ chosen }) => chosen)!;
    return { method, multiplyAdds, ratio };
  };

  test.each(["two-moons-flow", "checkerboard-flow", "digits-flow"])("of %s stays as cheap as the network's own", (name) => {
    const { network } = loadModel(name);
    for (const given of cases)
      for (const contextPer of ["point", "batch"] as const) {
        const own = costOf(network, contextPer);
        const { method, multiplyAdds, ratio } = costOf(probabilityFlow(network, ...settings(given, 0)), contextPer);
        expect(method).toBe(own.method);
        expect(multiplyAdds - own.multiplyAdds).toBeLessThanOrEqual(network.stateSize);
        expect(ratio).toBeLessThanOrEqual(own.ratio);
      }
  });

  test("of a network with a skip of the state too", () => {
    const [, network] = networks[6]!;
    const { operations } = network;
    const last = operations[2] as Extract<Operation, { kind: "linear" }>;
    const skipping = { ...network, operations: [...operations.slice(0, 2), { ...last, terms: last.terms.slice(0, 3) }] };
    expect(costOf(skipping, "point").method).toBe("cyclic");
    for (const given of cases) expect(costOf(probabilityFlow(skipping, ...settings(given, 1)), "point").method).toBe("cyclic");
  });
});

test("what is wrong is refused, by name", () => {
  const network = mlp({ layers: [{ weight: [[1, 2, 3]] }] });
  const still = mlp({ layers: [{ weight: [[1]] }] });
  const make =
    (schedule: unknown, options: unknown = { timeColumn: 0 }, given = network) =>
    () =>
      probabilityFlow(given, schedule as DiffusionSchedule, options as ProbabilityFlowOptions);
  const preserving = { kind: "variance preserving" };
  expect(make(preserving, {})).toThrow(/the context has 2 columns/);
  expect(make(preserving, { timeColumn: 2 })).toThrow(/timeColumn is 2/);
  expect(make(preserving, { timeColumn: null })).toThrow(/timeColumn is null/);
  expect(make(preserving, {}, still)).toThrow(ModelError);
  expect(make(preserving, undefined, {} as Network)).toThrow(ModelError);
  expect(make("edm")).toThrow(InputError);
  expect(make(preserving, null)).toThrow(InputError);
  expect(make({ kind: "cosine" })).toThrow(/kind of schedule is "cosine"/);
  expect(make(preserving, { timeColumn: 0, predicts: "x0" })).toThrow(/predicts is "x0"/);
  expect(make({ kind: "edm" }, { timeColumn: 0, predicts: "noise" })).toThrow(/predicts/);
  expect(make({ ...preserving, betaMin: -1 })).toThrow(/betaMin of the schedule is -1/);
  expect(make({ ...preserving, betaMin: 3, betaMax: 2 })).toThrow(/betaMax/);
  expect(make({ ...preserving, betaMax: "20" })).toThrow(/betaMax/);
  expect(make({ kind: "variance exploding", sigmaMin: 0 })).toThrow(/sigmaMin/);
  expect(make({ kind: "variance exploding", sigmaMin: 60 })).toThrow(/sigmaMax/);
  expect(make({ kind: "edm", sigmaData: Infinity })).toThrow(/sigmaData/);
});

test("a constant β, and names that are taken", () => {
  const network = randomMlp({ seed: 1, widths: [2, 4, 2], activation: "tanh", contextSize: 1 }).network;
  const flow = probabilityFlow(network, { kind: "variance preserving", betaMin: 2, betaMax: 2 });
  const { value: score } = evaluateReference(network, [1, 2], { context: 0.3 });
  const { value } = evaluateReference(flow, [1, 2], { context: 0.3 });
  score!.forEach((s, i) => expect(value![i]).toBeCloseTo(-(i + 1 + s), 14));
  // A field made of a field still has every name once.
  const twice = probabilityFlow(flow, { kind: "variance preserving" });
  const names = parameterLayout(twice).tensors.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  expect(names).toEqual(expect.arrayContaining(Object.keys(parametersOf(flow))));
  expect(flow.notes!.at(-1)).toContain("variance preserving");
});
