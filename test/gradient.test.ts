import { readdirSync } from "node:fs";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  evaluateReference,
  InputError,
  PlanError,
  VectorField,
  vjpReference,
  type Method,
  type Network,
  type VjpOptions,
  type Wrt,
} from "../src/index.js";
import { Trainer } from "../src/train/index.js";
import { capabilitiesOf } from "../src/kernels/capabilities.js";
import { parametersOf, withParameters } from "../src/model/parameters.js";
import { openDevice } from "./device.js";
import { randomMlp, randomPoints, weightOf } from "./fields.js";
import { allOf, drawGradient, encodedVjp, expectGradient, expectVector, expectVjp, loadGradient, type DrawnGradient } from "./gradients.js";
import { Draw } from "./numbers/draw.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

const exact: readonly (Method | "auto")[] = ["auto", "tangent", "cyclic", "jacobian", "coordinate"];
const names = readdirSync(new URL("vectors/gradients/", import.meta.url)).map((file) => file.replace(".safetensors", ""));

describe.each(names)("gradients of %s are PyTorch's", (name) => {
  const vector = loadGradient(name);
  const { network, points, context, cotangents } = vector;
  const options = { context, wrt: allOf(network), outputs: ["value", "divergence"] } as const;
  test("in float64", () => expectVector(vjpReference(network, points, cotangents, options), vector, 1e-10));

  test.each(exact)("on the GPU by %s", async (method) => {
    const field = await VectorField.create(device, network);
    const result = await field.vjp(points, cotangents, { ...options, method });
    // Frequencies of 30 multiply what rounding moves the phase by.
    const tolerance = name.startsWith("sin30") ? 1e-4 : 1e-5;
    expectVector(result, vector, tolerance);
    const { value, divergence } = cotangents as Record<"value" | "divergence", Float64Array>;
    expectVector(await encodedVjp(device, field, points, { value, divergence }, { ...options, method }), vector, tolerance);
    field.destroy();
  });
});

test.each(["layers 8x16", "layers 4x16 by 8 lanes", "layers 4x4 in groups of 16x16"])(
  "by %s they are the reference's, in a trainer too",
  async (kernels) => {
    if (/lanes/.test(kernels) && capabilitiesOf(device).lanes < 8) {
      await expect(
        VectorField.create(device, randomMlp({ seed: 1, widths: [2, 4, 2], activation: "tanh" }).network, { kernels }),
      ).rejects.toThrow(InputError);
      return;
    }
    const { network } = randomMlp({ seed: 3, widths: [7, 30, 21, 5], activation: "gelu" });
    const [points, value, context] = [randomPoints(1, 70, 5), randomPoints(2, 70, 5), randomPoints(4, 70, 2)];
    const cotangents = { value, divergence: randomPoints(3, 70, 1) };
    const options = { context, wrt: ["points", "context", "parameters"], outputs: ["value", "divergence"] } as const;
    const expected = vjpReference(network, points, cotangents, options);
    const field = await VectorField.create(device, network, { kernels });
    expectVjp(await field.vjp(points, cotangents, options), expected, 1e-5, kernels);
    expectVjp(await encodedVjp(device, field, points, cotangents, options), expected, 1e-5, kernels);
    field.destroy();
    const states = [];
    for (const each of ["layers 4x4", kernels]) {
      const trainer = await Trainer.create(device, network, { loss: "regression", divergencePenalty: 1, batch: 33, kernels: each });
      await trainer.data(points, { context, targets: value });
      await trainer.train(3);
      states.push(await trainer.state());
      trainer.destroy();
    }
    expectGradient(states[1]!.moments, states[0]!.moments, 1e-4, "moments");
  },
);

/** L by the float64 reference. */
function lossOf({ network, count, points, context, cotangents: { value: e, divergence: c } }: DrawnGradient): number {
  const { value, divergence } = evaluateReference(network, points, { context });
  let loss = 0;
  for (let i = 0; i < (e?.length ?? 0); i++) loss += e![i]! * value![i]!;
  for (let b = 0; b < count; b++) loss += (typeof c === "number" ? c : (c?.[b] ?? 0)) * divergence![b]!;
  return loss;
}

const runs = Number(process.env["DELDOT_RUNS"] ?? 60);

test("the float64 gradient is the limit of differences of L, for random chains and graphs", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 1e6 }), (seed) => {
      const drawn = drawGradient(seed);
      const { network, points, context, cotangents } = drawn;
      const gradient = vjpReference(network, points, cotangents, { context, wrt: allOf(network) }) as Required<
        ReturnType<typeof vjpReference<"points" | "context" | "parameters">>
      >;
      const draw = new Draw(seed + 1);
      const h = 1e-5;
      const direction = (length: number): Float64Array => Float64Array.from(draw.numbers(length, 1));
      const along = (of: ArrayLike<number>, by: Float64Array): number => by.reduce((sum, value, i) => sum + value * of[i]!, 0);
      const moved = (numbers: ArrayLike<number>, by: Float64Array, step: number): Float64Array =>
        by.map((value, i) => numbers[i]! + step * value);
      const check = (expected: number, at: (step: number) => DrawnGradient, what: string): void => {
        const quotient = (lossOf(at(h)) - lossOf(at(-h))) / (2 * h);
        const scale = 1 + Math.abs(expected) + Math.abs(lossOf(drawn));
        if (!(Math.abs(quotient - expected) < 2e-6 * scale)) expect.fail(`${what} by ${expected}; expected ${quotient}`);
      };
      if (!Number.isFinite(lossOf(drawn)) || Math.abs(lossOf(drawn)) > 1e6) return;
      const byPoints = direction(points.length);
      check(
        along(gradient.points, byPoints),
        (step) => ({ ...drawn, points: moved(points, byPoints, step) as never }),
        "the points move L",
      );
      if (context) {
        const by = direction(context.length);
        check(along(gradient.context, by), (step) => ({ ...drawn, context: moved(context, by, step) as never }), "the context moves L");
      }
      for (const [name, { data }] of Object.entries(parametersOf(network))) {
        const by = direction(data.length);
        const at = (step: number): DrawnGradient => ({ ...drawn, network: withParameters(network, { [name]: moved(data, by, step) }) });
        check(along(gradient.parameters[name]!.data, by), at, `${name} moves L`);
      }
    }),
    { seed: 3, numRuns: runs },
  );
});

test("the GPU's gradient is that of float64, for random chains and graphs by every method", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 1e6 }), fc.constantFrom(...exact, "hutchinson" as const), async (seed, method) => {
      const { network, points, context, cotangents } = drawGradient(seed);
      const probes =
        method === "hutchinson"
          ? ({ probes: 3, seed: 5, probesPer: seed % 2 ? "batch" : "point", orthogonal: seed % 3 === 0 } as const)
          : {};
      const options = { context, wrt: allOf(network), outputs: ["value", "divergence"], method, ...probes } as const;
      // Those that trainers take on some device, each for some.
      const lanes = capabilitiesOf(device).lanes >= 8 ? ["layers 4x16 by 8 lanes"] : [];
      const choices = ["auto", "auto", "layers 8x16", ...lanes];
      const field = await VectorField.create(device, network, { kernels: choices[seed % choices.length]! });
      try {
        const expected = vjpReference(network, points, cotangents, options);
        const largest = Math.max(...Object.values(expected.parameters!).flatMap(({ data }) => Array.from(data, Math.abs)), 1);
        if (!(largest < 1e4)) return;
        const given = { ...options, chunkSize: (seed % 3) + 1 };
        const results = [await field.vjp(points, cotangents, given), await encodedVjp(device, field, points, cotangents, given)];
        // What cancels within a small tensor errs by what it is made of: compared with the largest of all.
        const noise = 2e-5 * Math.max(1, largest);
        const near = (actual: ArrayLike<number>, target: ArrayLike<number>, label: string): void => {
          expect(actual.length).toBe(target.length);
          for (let i = 0; i < target.length; i++)
            if (!(Math.abs(actual[i]! - target[i]!) <= noise)) expect.fail(`${label}[${i}] is ${actual[i]}; expected ${target[i]}`);
        };
        for (const result of results) {
          near(result.points!, expected.points!, "points");
          if (context) near(result.context!, expected.context!, "context");
          for (const [name, { data }] of Object.entries(expected.parameters!)) near(result.parameters![name]!.data, data, name);
          near(result.value!, expected.value!, "value");
          near(result.divergence!, expected.divergence!, "divergence");
        }
      } catch (error) {
        if (!(error instanceof PlanError)) throw error;
        expect(method).toBe("cyclic");
      } finally {
        field.destroy();
      }
    }),
    { seed: 4, numRuns: 2 * runs },
  );
}, 600_000);

test("of many points in bounded memory it is the sum of those of its parts, and the same bits every time", async () => {
  const { network } = randomMlp({ seed: 2, widths: [3, 17, 18, 3], activation: "silu", contextSize: 1 });
  const points = randomPoints(4, 5000, 3);
  const field = await VectorField.create(device, network, { memoryBudget: 400_000 });
  const options = { context: 0.3, wrt: allOf(network) } as const;
  const cotangents = { value: randomPoints(5, 5000, 3), divergence: randomPoints(6, 5000, 1) };
  let chunks = 0;
  const whole = await field.vjp(points, cotangents, { ...options, onProgress: () => void chunks++ });
  expect(chunks).toBeGreaterThan(3);
  expectVjp(whole, vjpReference(network, points, cotangents, options), 1e-5, "the whole");
  const again = await field.vjp(points, cotangents, options);
  expect(again).toEqual(whole);
  const parts = await Promise.all(
    [0, 2000].map((from, index) =>
      field.vjp(
        points.subarray(3 * from, 3 * [2000, 5000][index]!),
        {
          value: cotangents.value.subarray(3 * from, 3 * [2000, 5000][index]!),
          divergence: cotangents.divergence.subarray(from, [2000, 5000][index]),
        },
        options,
      ),
    ),
  );
  for (const [name, { data }] of Object.entries(whole.parameters!)) {
    const sum = data.map((_, i) => parts.reduce((total, part) => total + part.parameters![name]!.data[i]!, 0));
    expectGradient(sum, data, 1e-5, name);
  }
  field.destroy();
});

test("passes over some of the tangents start their sums anew in every call", async () => {
  const { network } = randomMlp({ seed: 3, widths: [6, 8, 9, 6], activation: "tanh" });
  const field = await VectorField.create(device, network);
  const [points, value] = [randomPoints(1, 5, 6), randomPoints(2, 5, 6)];
  const options = { wrt: allOf(network) } as const;
  const expected = vjpReference(network, points, { divergence: 1, value }, options);
  const cases = [{ method: "coordinate" }, { method: "tangent", chunkSize: 4 }, { method: "jacobian", chunkSize: 1 }] as const;
  for (let round = 0; round < 3; round++)
    for (const given of cases)
      expectVjp(
        await field.vjp(points, { divergence: 1, value }, { ...options, ...given }),
        expected,
        1e-5,
        `${given.method}, round ${round}`,
      );
  field.destroy();
});

test("a gain of ones that has a name is trained as others are", async () => {
  const { network: chain } = randomMlp({ seed: 8, widths: [4, 4, 4], activation: "tanh" });
  const gained: Network = {
    ...chain,
    operations: [
      ...chain.operations.slice(0, 2),
      { kind: "norm", operand: 1, centered: true, epsilon: 1e-5 },
      { kind: "linear", terms: [{ operand: 2, weight: { diagonal: new Float32Array(4).fill(2) } }], bias: null },
      { kind: "linear", terms: [{ operand: 3, weight: weightOf(chain, 2) }], bias: null },
    ],
    tensors: [],
  };
  const network = withParameters(gained, { "3.weight": [1, 1, 1, 1] });
  const points = randomPoints(1, 6, 4);
  const field = await VectorField.create(device, network);
  const expected = vjpReference(network, points, { divergence: 1 }, { wrt: ["parameters"] });
  expect(Math.max(...expected.parameters["3.weight"]!.data.map(Math.abs))).toBeGreaterThan(1e-3);
  expectVjp(await field.vjp(points, { divergence: 1 }, { wrt: ["parameters"] }), expected, 1e-5, "a gain of ones");
  field.destroy();
});

test("sums over many equal points keep their accuracy, and equal calls their bits", async () => {
  const { network } = randomMlp({ seed: 9, widths: [2, 16, 2], activation: "tanh" });
  const field = await VectorField.create(device, network);
  const count = 200_000;
  const one = randomPoints(3, 1, 2);
  const points = Float32Array.from({ length: 2 * count }, (_, i) => one[i % 2]!);
  const cotangents = { divergence: 0.1, value: new Float32Array(2 * count).fill(0.1) };
  const options = { wrt: ["parameters"] } as const;
  const single = vjpReference(network, one, { divergence: Math.fround(0.1), value: new Float32Array(2).fill(0.1) }, options);
  const result = await field.vjp(points, cotangents, options);
  for (const [name, { data }] of Object.entries(single.parameters))
    expectGradient(
      result.parameters[name]!.data,
      data.map((x) => count * x),
      5e-6,
      name,
    );
  // The pace of submissions, which changes from call to call, has no part in the order of sums.
  await field.evaluate(points);
  expect(await field.vjp(points, cotangents, options)).toEqual(result);
  field.destroy();
});

test("a point that is not finite spoils its own rows and all sums over the points, on the GPU and in float64", async () => {
  const { network } = randomMlp({ seed: 3, widths: [2, 8, 8, 2], activation: "relu", contextSize: 1 });
  const field = await VectorField.create(device, network);
  const points = randomPoints(1, 4, 2);
  const e = randomPoints(2, 4, 2);
  const context = randomPoints(3, 4, 1);
  const bad = (numbers: Float32Array): Float32Array => numbers.with(2, NaN);
  const cases = [
    { points: bad(points), e, context, divergence: 1, row: 1 },
    { points, e: bad(e), context, divergence: 1, row: 1 },
    { points, e, context: bad(context), divergence: 1, row: 2 },
    { points, e, context, divergence: [1, 2, Infinity, 4], row: 2 },
  ];
  for (const { row, ...given } of cases) {
    const args = [given.points, { value: given.e, divergence: given.divergence }, { context: given.context, wrt: allOf(network) }] as const;
    for (const result of [await field.vjp(...args), vjpReference(network, ...args)]) {
      for (let b = 0; b < 4; b++) {
        expect(Number.isNaN(result.points![2 * b]!)).toBe(b === row);
        expect(Number.isNaN(result.context![b]!)).toBe(b === row);
      }
      for (const { data } of Object.values(result.parameters!)) expect(data.every(Number.isNaN)).toBe(true);
    }
  }
  // Tensors that L does not reach too: the divergence has no part of the last bias.
  const divergenceAlone = await field.vjp(bad(points), { divergence: 1 }, { context, wrt: ["parameters"] });
  for (const { data } of Object.values(divergenceAlone.parameters)) expect(data.every(Number.isNaN)).toBe(true);
  field.destroy();
});

test.each(["mish", "gelu", "gelu_tanh", "silu", "softplus", "tanh", "sigmoid", "elu"])(
  "%s saturated is finite and right",
  async (activation) => {
    const { network } = randomMlp({ seed: 4, widths: [2, 16, 16, 2], activation });
    const field = await VectorField.create(device, network);
    for (const scale of [20, 60]) {
      const points = randomPoints(7, 20, 2, scale);
      const cotangents = { value: randomPoints(8, 20, 2), divergence: 1 };
      const options = { wrt: allOf(network) } as const;
      expectVjp(await field.vjp(points, cotangents, options), vjpReference(network, points, cotangents, options), 1e-5, `at ${scale}`);
    }
    field.destroy();
  },
);

test("a call that runs sees nothing of what is done to its arguments, and others run beside it", async () => {
  const { network } = randomMlp({ seed: 5, widths: [3, 17, 19, 3], activation: "tanh", contextSize: 2 });
  const field = await VectorField.create(device, network, { memoryBudget: 300_000 });
  const given = {
    points: randomPoints(1, 3000, 3),
    value: randomPoints(2, 3000, 3),
    divergence: randomPoints(3, 3000, 1),
    context: randomPoints(4, 3000, 2),
  };
  const { points, value, divergence, context } = structuredClone(given);
  const cotangents: { value: Float32Array | null; divergence: Float32Array } = { value: given.value, divergence: given.divergence };
  const wrt: Wrt[] = [...allOf(network)];
  const options: VjpOptions = { context: given.context, wrt };
  const pending = field.vjp(given.points, cotangents, options);
  for (const array of Object.values(given)) array.fill(9);
  Object.assign(options, { method: "difference" });
  wrt.length = 0;
  cotangents.value = null;
  const beside = field.evaluate(points, { context });
  const updated = field.update({ "0.bias": new Float32Array(17).fill(0.5) });
  const later = field.vjp(points, { value, divergence }, { context, wrt: ["parameters"] });
  const all = { context, wrt: allOf(network) } as const;
  expectVjp(await pending, vjpReference(network, points, { value, divergence }, all), 1e-5, "pending");
  await Promise.all([beside, updated]);
  expectVjp(await later, vjpReference(field.network, points, { value, divergence }, { ...all, wrt: ["parameters"] }), 1e-5, "later");
  field.destroy();
});

test("what is asked for is what comes back, and mistakes are errors", async () => {
  const { network } = randomMlp({ seed: 5, widths: [2, 6, 2], activation: "tanh" });
  const field = await VectorField.create(device, network);
  const x = randomPoints(1, 3, 2);
  expect(Object.keys(await field.vjp(x, { divergence: 1 }))).toEqual(["method", "shape", "points"]);
  const shaped = await field.vjp({ data: x, shape: [3, 1, 2] }, { value: x }, { wrt: ["parameters"], outputs: ["divergence"] });
  expect(Object.keys(shaped)).toEqual(["method", "shape", "parameters", "divergence"]);
  expect(shaped.shape).toEqual([3, 1]);
  const refused = [
    [() => field.vjp(x, {}), /neither value nor divergence/],
    [() => field.vjp(x, undefined as never), /cotangents is undefined/],
    [() => field.vjp(x, null as never), /cotangents is null/],
    [() => field.vjp(x, { divergence: new Int32Array(3) as never }), /the cotangent of divergence is/],
    [() => field.vjp(x, { value: x.subarray(2) }), /has 2 vectors of 2; expected 3/],
    [() => field.vjp(x, { divergence: [1, 2] }), /has 2 numbers; expected 3/],
    [() => field.vjp(x, { divergence: 1 }, { wrt: ["context"] }), /the network takes none/],
    [() => field.vjp(x, { divergence: 1 }, { wrt: ["weights" as "points"] }), /wrt is/],
    [() => field.vjp(x, { divergence: 1 }, { method: "tangent", probes: 3 }), /does not use/],
  ] as const;
  for (const [call, message] of refused) {
    await expect(call()).rejects.toThrow(InputError);
    await expect(call()).rejects.toThrow(message);
  }
  await expect(field.vjp(x, { divergence: 1 }, { method: "difference" })).rejects.toThrow(PlanError);
  await expect(field.vjp(x, { divergence: 1 }, { outputs: ["diagonal" as "value"] })).rejects.toThrow(PlanError);
  // What becomes of the caller's list is not seen.
  const outputs: ("value" | "divergence")[] = ["value", "divergence"];
  const asked = field.vjp(x, { divergence: { data: [1, 2, 3], shape: [3] } }, { outputs });
  outputs.length = 0;
  expect(Object.keys(await asked)).toEqual(["method", "shape", "points", "value", "divergence"]);
  expect((await field.vjp(new Float32Array(0), { divergence: 1 }, { wrt: allOf(network) })).parameters!["0.weight"]!.data).toEqual(
    new Float32Array(12),
  );
  field.destroy();
});
