/** The field that onnxruntime runs, beside the reference in float64 and PyTorch's gradients. */
import { readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  DeldotError,
  evaluateReference,
  InputError,
  LimitError,
  mlp,
  ModelError,
  PlanError,
  ReferenceField,
  vjpReference,
  type EvaluateOptions,
  type Method,
  type Network,
  type Output,
} from "../src/index.js";
import { OnnxField, type OnnxRuntime } from "../src/onnx/index.js";
import { divergenceScale, expectClose } from "./close.js";
import { loadModel, loadVector, modelNames, randomMlp, randomPoints, vectorNames } from "./fields.js";
import { allOf, drawGradient, expectGradient, expectVector, expectVjp, loadGradient } from "./gradients.js";
import { check } from "./numbers/check.js";
import { Draw } from "./numbers/draw.js";
import { describeNetwork, wholePalette } from "./numbers/networks.js";
import { cut, drawPool } from "./numbers/pool.js";
import { runtime } from "./onnxruntime.js";

const exact = ["auto", "tangent", "cyclic", "jacobian", "coordinate"] as const;
const numRuns = Number(process.env["DELDOT_RUNS"] ?? 120);

const shipped = [
  ...vectorNames.map((name) => ({ name, network: loadVector(name).network, points: loadVector(name).truth.x, context: null })),
  ...modelNames.map((name) => {
    const { network, truth } = loadModel(name);
    return { name, network, points: truth.points, context: truth.context };
  }),
];

test.each(shipped)("$name by every exact method", async ({ name, network, points, context }) => {
  const field = await OnnxField.create(runtime, network);
  const { value, divergence, diagonal } = evaluateReference(network, points, { context, outputs: ["value", "divergence", "diagonal"] });
  const d = network.stateSize;
  const scale = divergenceScale(diagonal!, d);
  for (const method of exact) {
    const found = await field.evaluate(points, { context, method });
    expect(found.kernels).toBe("onnxruntime");
    const relative = name.startsWith("sin30") ? 1e-4 : 2e-5;
    expectClose(found.divergence, divergence!, scale, { relative, label: method });
    expectClose(
      found.value,
      value!,
      value!.map((each) => 1 + Math.abs(each)),
      { relative, label: method },
    );
  }
  field.destroy();
});

/** What each method gives. */
function outputsOf(method: Method | "auto"): readonly Output[] {
  if (method === "cyclic" || method === "hutchinson") return ["value", "divergence"];
  return method === "jacobian" || method === "auto" ? ["value", "divergence", "diagonal", "jacobian"] : ["value", "divergence", "diagonal"];
}

test("random networks by any method give what float32 may", { timeout: 60_000 + 2000 * numRuns }, async () => {
  const failures: string[] = [];
  for (let seed = 1; seed <= numRuns; seed++) {
    const draw = new Draw(1000 + seed);
    const pool = drawPool(draw, draw.pick(["small", "small", "middle"]), wholePalette, false);
    const { network } = pool;
    const { stateSize: d, contextSize: c } = network;
    const count = draw.integer(1, Math.min(pool.count, 12));
    const points = cut(pool.points, d, 0, count);
    const context = pool.context && (pool.context.length === c ? pool.context : cut(pool.context, c, 0, count));
    const method = draw.pick([...exact, "difference", "hutchinson"] as const);
    const outputs = outputsOf(method).filter(() => draw.chance(0.7));
    if (outputs.length === 0) outputs.push("divergence");
    const estimate = method === "hutchinson" && outputs.includes("divergence");
    const own = estimate
      ? { probes: draw.integer(1, 4), seed, probesPer: draw.pick(["point", "batch"] as const), orthogonal: draw.chance(0.5) }
      : {};
    const field = await OnnxField.create(runtime, network);
    try {
      const { shape, kernels: _, method: __, ...results } = await field.evaluate<Output>(points, { context, method, outputs, ...own });
      expect(shape).toEqual([count]);
      const wrong = check({ pool, first: 0, count, method, ...own }, results);
      const tangents = draw.numbers(count * d, 1);
      const jvp = await field.jvp(points, tangents, { context, value: true });
      wrong.push(...check({ pool, first: 0, count, method: "auto" }, { jvp: jvp.tangent, value: jvp.value }, tangents));
      if (wrong.length > 0) failures.push(`seed ${seed}: ${outputs.join()} by ${method}: ${wrong.join("; ")}; ${describeNetwork(network)}`);
    } catch (error) {
      if (!(error instanceof PlanError && method === "cyclic")) throw error;
    } finally {
      field.destroy();
    }
  }
  expect(failures.join("\n")).toBe("");
});

describe("gradients", () => {
  const names = readdirSync(new URL("vectors/gradients/", import.meta.url)).map((file) => file.replace(".safetensors", ""));

  test.each(names)("of %s are PyTorch's", async (name) => {
    const vector = loadGradient(name);
    const { network, points, context, cotangents } = vector;
    const field = await OnnxField.create(runtime, network);
    const tolerance = name.startsWith("sin30") ? 1e-4 : 1e-5;
    for (const method of exact) {
      const result = await field.vjp(points, cotangents, { context, method, wrt: allOf(network), outputs: ["value", "divergence"] });
      expectVector(result, vector, tolerance);
    }
    field.destroy();
  });

  test("are those of float64, for random chains and graphs by every method", { timeout: 60_000 + 2000 * numRuns }, async () => {
    const failures: string[] = [];
    for (let seed = 1; seed <= numRuns; seed++) {
      const { network, points, context, cotangents } = drawGradient(seed);
      const method = [...exact, "hutchinson" as const][seed % 6]!;
      const probes =
        method === "hutchinson"
          ? ({ probes: 3, seed: 5, probesPer: seed % 4 ? "batch" : "point", orthogonal: seed % 3 === 0 } as const)
          : {};
      const options = { context, wrt: allOf(network), outputs: ["value", "divergence"], method, ...probes } as const;
      const field = await OnnxField.create(runtime, network);
      try {
        const expected = vjpReference(network, points, cotangents, options);
        const largest = Math.max(...Object.values(expected.parameters!).flatMap(({ data }) => Array.from(data, Math.abs)), 1);
        if (!(largest < 1e4)) continue;
        const result = await field.vjp(points, cotangents, options);
        // What cancels within a small tensor errs by what it is made of: compared with the largest of all.
        const all = [
          ["points", result.points, expected.points],
          ["context", result.context, expected.context],
          ["value", result.value, expected.value],
          ["divergence", result.divergence, expected.divergence],
          ...Object.entries(expected.parameters!).map(([name, { data }]) => [name, result.parameters![name]?.data, data] as const),
        ] as const;
        for (const [name, actual, target] of all) {
          const wrong = target?.findIndex((each, i) => !(Math.abs(actual![i]! - each) <= 2e-5 * largest)) ?? -1;
          if (wrong >= 0 || actual?.length !== target?.length)
            failures.push(
              `seed ${seed}, ${method}: ${name}[${wrong}] is ${actual?.[wrong]}; expected ${target?.[wrong]}; ${describeNetwork(network)}`,
            );
        }
      } catch (error) {
        if (!(error instanceof PlanError && method === "cyclic")) throw error;
      } finally {
        field.destroy();
      }
    }
    expect(failures.join("\n")).toBe("");
  });

  test("of many points are the sum of those of the chunks, and the same bits every time", async () => {
    const { network } = randomMlp({ seed: 2, widths: [3, 17, 18, 3], activation: "silu", contextSize: 1 });
    const count = 40_000;
    const points = randomPoints(4, count, 3);
    const cotangents = { value: randomPoints(5, count, 3), divergence: randomPoints(6, count, 1) };
    const field = await OnnxField.create(runtime, network);
    let chunks = 0;
    const options = { context: 0.3, wrt: allOf(network) } as const;
    const whole = await field.vjp(points, cotangents, { ...options, onProgress: () => void chunks++ });
    expect(chunks).toBeGreaterThan(2);
    expectVjp(whole, vjpReference(network, points, cotangents, options), 1e-5, "the whole");
    expect(await field.vjp(points, cotangents, options)).toEqual(whole);
    field.destroy();
  });
});

describe("what is not finite", () => {
  const { network } = randomMlp({ seed: 3, widths: [5, 9, 7, 5], activation: ["relu", "softsign"], contextSize: 2 });
  const [d, c, count] = [5, 2, 61];
  const points = Float64Array.from(randomPoints(2, count, d));
  const context = Float64Array.from(randomPoints(3, count, c));
  const spots = [0, 7, 8, 30, 60];
  const spoilt = (data: Float64Array, width: number): Float64Array => {
    const copy = data.slice();
    for (const [index, spot] of spots.entries()) copy[spot * width + (index % width)] = [NaN, Infinity, -Infinity][index % 3]!;
    return copy;
  };
  const expectMarked = (actual: ArrayLike<number>, clean: ArrayLike<number>, label: string): void => {
    const width = clean.length / count;
    const wanted = Float32Array.from(clean, (each, i) => (spots.includes(Math.floor(i / width)) ? NaN : each));
    expect(actual, label).toEqual(wanted);
  };
  let field: OnnxField;
  beforeAll(async () => (field = await OnnxField.create(runtime, network)));
  afterAll(() => field.destroy());

  test.each<[Method, readonly Output[]]>([
    ["tangent", ["value", "divergence", "diagonal"]],
    ["cyclic", ["value", "divergence"]],
    ["jacobian", ["value", "divergence", "diagonal", "jacobian"]],
    ["coordinate", ["divergence"]],
    ["difference", ["value", "divergence", "diagonal"]],
    ["hutchinson", ["value", "divergence"]],
  ])("in a point or its context makes all that %s gives of it NaN, and nothing else", async (method, outputs) => {
    const options: EvaluateOptions = { method, outputs, context };
    const clean = await field.evaluate(points, options);
    for (const result of [
      await field.evaluate(spoilt(points, d), options),
      await field.evaluate(points, { ...options, context: spoilt(context, c) }),
    ])
      for (const output of [...outputs, ...(method === "hutchinson" ? (["standardError"] as const) : [])])
        expectMarked(result[output]!, clean[output]!, `${output} by ${method}`);
  });

  test("makes Jacobian-vector products and gradients NaN, and sums over the points", async () => {
    const clean = await field.jvp(points, points, { context });
    expectMarked(await field.jvp(points, spoilt(points, d), { context }), clean, "J t");
    const one = await field.vjp(points, { divergence: 1 }, { context, wrt: ["points", "context"] });
    const other = await field.vjp(spoilt(points, d), { divergence: 1 }, { context, wrt: ["points", "context", "parameters"] });
    expectMarked(other.points!, one.points, "points");
    expectMarked(other.context!, one.context, "context");
    for (const { data } of Object.values(other.parameters!)) expect(data.every(Number.isNaN)).toBe(true);
  });
});

describe("activations", () => {
  test.each([
    ["sigmoid", 1, [-4, -8, -12, -15, -17.85, -18.5, -30, -80]],
    ["silu", -1, [-4, -8, -12, -16, -20, -60]],
    ["gelu", -1, [-3, -4, -5, -5.5, -8, -12]],
    ["gelu_tanh", -1, [-3, -4, -5, -6, -8]],
    ["softplus", 1, [-4, -12, -20, -60]],
    ["mish", -1, [-4, -12, -20, -60]],
  ] as const)("%s is right in its tail, which a logarithm shows", async (activation, sign, points) => {
    const network = mlp({ layers: [{ weight: [[1]] }, { weight: [[sign]] }, { weight: [[1]] }], activation: [activation, "log"] });
    const field = await OnnxField.create(runtime, network);
    const { value, divergence } = await field.evaluate(points);
    const expected = evaluateReference(network, points);
    expectClose(value, expected.value!, expected.value!.map(Math.abs), { relative: 2e-5, absolute: 0 });
    expectClose(divergence, expected.divergence!, expected.divergence!.map(Math.abs), { relative: 5e-5, absolute: 0 });
    field.destroy();
  });

  test.each(["relu", "leaky_relu", "relu6", "hardsigmoid", "hardswish", "hardtanh", "clip(-1, 1)", "tanh", "silu", "gelu", "floor"])(
    "%s of what is no number any more gives none",
    async (activation) => {
      // z = 2 x² - x², of which float32 makes ∞ - ∞.
      const layers = [{ weight: [[1], [1]] }, { weight: [[2, -1]] }, { weight: [[1]] }];
      const network = mlp({ layers, activation: ["square", activation] });
      const field = await OnnxField.create(runtime, network);
      for (const method of ["tangent", "cyclic", "jacobian"] as const) {
        const { value, divergence } = await field.evaluate([2e19, 0.5], { method });
        expect([value[0], divergence[0]], method).toEqual([NaN, NaN]);
        expect(value[1], method).toBeCloseTo(evaluateReference(network, [0.5]).value![0]!, 5);
      }
      expect(await field.jvp([2e19], [1])).toEqual(Float32Array.of(NaN));
      field.destroy();
    },
  );
});

test("a square root of what overflowed has no slope of 0", async () => {
  const network = mlp({ layers: [{ weight: [[1], [1]] }, { weight: [[1, 1]] }, { weight: [[1]] }], activation: ["square", "sqrt"] });
  const field = await OnnxField.create(runtime, network);
  for (const method of ["tangent", "cyclic"] as const) expect(await field.divergence([1.5e19], { method })).toEqual(Float32Array.of(NaN));
  field.destroy();
});

test.each([true, false])("norms (centred: %s) of large numbers and of small ones are right, or no numbers", async (centered) => {
  const network: Network = { stateSize: 3, contextSize: 0, operations: [{ kind: "norm", operand: "state", epsilon: 1e-5, centered }] };
  const field = await OnnxField.create(runtime, network);
  for (const scale of [1e-25, 1e-3, 1, 1e5, 1e17, 1e19, 1e20, 1e37]) {
    const points = [scale, -2 * scale, 0.5 * scale];
    for (const method of ["tangent", "jacobian"] as const) {
      const { value, divergence } = await field.evaluate(points, { method });
      const expected = evaluateReference(network, points);
      expectClose(
        value,
        expected.value!,
        expected.value!.map(() => 1),
        { relative: 1e-5, label: `${scale} by ${method}` },
      );
      const size = Math.abs(expected.divergence![0]!) + 1e-37;
      expectClose(divergence, expected.divergence!, [size], { relative: 1e-4, absolute: 0, label: `${scale} by ${method}` });
    }
  }
  field.destroy();
});

test("merged matrices beyond float32 make no network unusable", async () => {
  const layers = [{ weight: [[1e30]] }, { weight: [[1]] }, { weight: [[1e30]] }];
  const network = mlp({ layers, activation: "tanh" });
  const field = await OnnxField.create(runtime, network);
  const { value, divergence } = await field.evaluate([0.5]);
  expectClose(value, evaluateReference(network, [0.5]).value!, [1e30]);
  expect(Number.isFinite(divergence[0]) && divergence[0] !== 0).toBe(false);
  await expect(field.divergence([1], { method: "hutchinson", probes: 2 ** 30 })).rejects.toThrow(LimitError);
  field.destroy();
});

describe("a call", () => {
  const { network } = randomMlp({ seed: 1, widths: [3, 12, 11, 3], activation: "tanh", contextSize: 1 });
  const count = 50_000;
  const points = randomPoints(2, count, 3);

  test("goes chunk by chunk, tells how far it is, and its points do not depend on one another", async () => {
    const field = await OnnxField.create(runtime, network);
    const told: number[] = [];
    const all = await field.evaluate(points, {
      context: 0.5,
      onProgress: ({ done, total }) => (expect(total).toBe(count), told.push(done)),
    });
    expect(told.length).toBeGreaterThan(2);
    expect(told).toEqual(told.toSorted((a, b) => a - b));
    expect(told.at(-1)).toBe(count);
    const last = await field.evaluate(points.subarray(3 * (count - 5)), { context: 0.5 });
    expectClose(all.divergence.slice(-5), last.divergence, [1, 1, 1, 1, 1], { relative: 1e-6 });
    field.destroy();
  });

  test("takes contexts in runs, one for all or one for each", async () => {
    const field = await OnnxField.create(runtime, network);
    const runs = Float32Array.from({ length: count }, (_, i) => Math.floor(i / 10_000) / 7);
    const { divergence } = await field.evaluate(points, { context: runs });
    for (const first of [0, 9_990, 19_999, 49_990]) {
      const some = points.subarray(3 * first, 3 * (first + 10));
      const context = runs.subarray(first, first + 10);
      const expected = evaluateReference(network, some, { context, outputs: ["divergence"] }).divergence!;
      expectClose(divergence.subarray(first, first + 10), expected, new Float64Array(10).fill(1));
    }
    const gradient = await field.vjp(points, { divergence: 1 }, { context: runs, wrt: ["context"] });
    const expected = vjpReference(network, points.subarray(0, 30), { divergence: 1 }, { context: runs.subarray(0, 10), wrt: ["context"] });
    expectGradient(gradient.context.subarray(0, 10), expected.context, 1e-5, "context");
    field.destroy();
  });

  test("ends by its signal, or where the field is destroyed, and leaves others alone", async () => {
    const field = await OnnxField.create(runtime, network);
    const aborting = new AbortController();
    const ended = field.evaluate(points, { context: 0.5, signal: aborting.signal, onProgress: () => aborting.abort(new Error("enough")) });
    const [other] = await Promise.all([field.divergence(points, { context: 0.5 }), expect(ended).rejects.toThrow("enough")]);
    expect(other).toHaveLength(count);
    const cut = field.evaluate(points, { context: 0.5, onProgress: () => field.destroy() });
    await expect(cut).rejects.toThrow("the field was destroyed");
    await expect(field.divergence(points, { context: 0.5 })).rejects.toThrow(DeldotError);
  });

  test("lets timers in between two chunks, though onnxruntime-web waits for none, and in between two calls", async () => {
    const field = await OnnxField.create(runtime, network);
    const work = (): void => {
      const end = performance.now() + 25;
      while (performance.now() < end);
    };
    const options = { context: 0.5, signal: AbortSignal.timeout(1) };
    await expect(field.evaluate(points, { ...options, onProgress: work })).rejects.toHaveProperty("name", "TimeoutError");
    let hasTurned = false;
    setTimeout(() => (hasTurned = true), 0);
    for (let call = 0; call < 3; call++) await field.divergence(points.subarray(0, 3), { context: 0.5, onProgress: work });
    expect(hasTurned).toBe(true);
    field.destroy();
  });

  test("of no points gives nothing, and a shape is kept", async () => {
    const field = await OnnxField.create(runtime, network);
    expect((await field.evaluate([], { context: 0.5 })).divergence).toHaveLength(0);
    const { shape, value } = await field.evaluate({ data: points.subarray(0, 18), shape: [2, 3, 3] }, { context: 0.5 });
    expect([shape, value.length]).toEqual([[2, 3], 18]);
    field.destroy();
  });

  test("of other methods is explained as elsewhere", async () => {
    const field = await OnnxField.create(runtime, network);
    expect(String(field.explain())).toBe(String(new ReferenceField(network).explain()));
    await expect(field.evaluate(points, { context: 0.5, method: "cyclic", outputs: ["jacobian"] })).rejects.toThrow(PlanError);
    await expect(field.evaluate(points)).rejects.toThrow(InputError);
    await expect(field.vjp(points, { divergence: 1 }, { context: 0.5, method: "difference" })).rejects.toThrow(PlanError);
    field.destroy();
  });
});

test("sessions that are not asked for any more are released, the others with the field", async () => {
  let [made, released] = [0, 0];
  const counting: OnnxRuntime = {
    ...runtime,
    InferenceSession: {
      async create(model, options) {
        made++;
        const session = await runtime.InferenceSession.create(model, options);
        return { run: (feeds) => session.run(feeds), release: () => (released++, session.release()) };
      },
    },
  };
  const { network } = randomMlp({ seed: 1, widths: [2, 5, 5, 2], activation: "tanh" });
  const field = await OnnxField.create(counting, network);
  const estimate = (probes: number): Promise<Float32Array> => field.divergence([1, 2], { method: "hutchinson", probes });
  for (let probes = 1; probes <= 40; probes++) await estimate(probes);
  expect(made - released).toBeLessThan(20);
  // One call of many chunks, while so many others begin that its session is the one asked for least recently.
  const long = field.divergence(randomPoints(1, 60_000, 2), { method: "hutchinson", probes: 41 });
  await Promise.all(Array.from({ length: 40 }, (_, i) => estimate(i + 42)));
  expect(await long).toHaveLength(60_000);
  expect(made - released).toBeLessThan(20);
  const last = estimate(99);
  field.destroy();
  await expect(last).rejects.toThrow("the field was destroyed");
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(made).toBe(released);
});

test("one way to compute has one session, however it is asked for", async () => {
  let made = 0;
  const counting: OnnxRuntime = {
    ...runtime,
    InferenceSession: { create: (model, options) => (made++, runtime.InferenceSession.create(model, options)) },
  };
  const field = await OnnxField.create(counting, mlp({ layers: [{ weight: [[1]] }] }));
  await field.evaluate([1]);
  await field.evaluate([1], { outputs: ["divergence", "value"], seed: 3, chunkSize: 2 });
  expect(made).toBe(1);
  field.destroy();
});

describe("refused are", () => {
  const network = mlp({ layers: [{ weight: [[1]] }] });

  test("what is no runtime, no network, no options", async () => {
    await expect(OnnxField.create({} as OnnxRuntime, network)).rejects.toThrow(InputError);
    await expect(OnnxField.create(runtime, {} as Network)).rejects.toThrow(ModelError);
    await expect(OnnxField.create(runtime, network, { session: 3 as never })).rejects.toThrow(InputError);
  });

  test("by onnxruntime, in its words, and tried anew by the next call", async () => {
    let works = false;
    const failing: OnnxRuntime = {
      ...runtime,
      InferenceSession: {
        create: (model, options) => (works ? runtime.InferenceSession.create(model, options) : Promise.reject(new Error("no memory"))),
      },
    };
    await expect(OnnxField.create(failing, network)).rejects.toThrow("onnxruntime: no memory");
    works = true;
    const field = await OnnxField.create(failing, network);
    works = false;
    await expect(field.evaluate([1], { outputs: ["jacobian"] })).rejects.toThrow(DeldotError);
    works = true;
    expect((await field.evaluate([1], { outputs: ["jacobian"] })).jacobian).toEqual(Float32Array.of(1));
    field.destroy();
  });
});
