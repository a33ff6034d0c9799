/** What toOnnx writes, run by onnxruntime, beside the reference in float64. */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  activationNames,
  evaluateReference,
  explainPlan,
  InputError,
  mlp,
  ModelError,
  outputs,
  parseOnnx,
  PlanError,
  vjpReference,
  type Method,
  type Network,
  type Output,
} from "../src/index.js";
import { activationFunctions, parseActivation } from "../src/model/activation.js";
import { toOnnx, type OnnxExportOptions, type OnnxOutput } from "../src/onnx/index.js";
import { caseNames, answers, readCase, truthOfCase } from "./cases.js";
import { expectClose } from "./close.js";
import { loadModel, loadVector, modelNames, randomMlp, vectorNames } from "./fields.js";
import { check } from "./numbers/check.js";
import { Draw } from "./numbers/draw.js";
import { describeNetwork, wholePalette } from "./numbers/networks.js";
import { drawPool } from "./numbers/pool.js";
import { openModel, type Result } from "./onnxruntime.js";

const able = ["tangent", "cyclic", "jacobian"] as const;

/** Those of a network's that can be written. */
function methodsOf(network: Network): (typeof able)[number][] {
  const { candidates } = explainPlan(network);
  return able.filter((method) => candidates.some((candidate) => candidate.method === method));
}

/** Of most sizes there is no curl. */
const everything = outputs.filter((output): output is Exclude<Output, "curl"> => output !== "curl");

function delivered(method: Method | "auto"): readonly Exclude<OnnxOutput, "curl">[] {
  if (method === "cyclic") return ["value", "divergence", "gradient"];
  return method === "tangent" ? ["value", "divergence", "diagonal", "gradient"] : [...everything, "gradient"];
}

async function run(
  network: Network,
  options: OnnxExportOptions,
  points: ArrayLike<number>,
  context: ArrayLike<number> | null = null,
): Promise<Record<string, Result>> {
  const model = await openModel(toOnnx(network, options), network.stateSize, network.contextSize);
  const results = await model.run(Float32Array.from(points), context && Float32Array.from(context));
  await model.release();
  return results;
}

/** Numbers of `count` rows, the first ones again where there are fewer. */
function rowsOf(numbers: ArrayLike<number>, count: number, width: number): Float32Array {
  return Float32Array.from({ length: count * width }, (_, at) => numbers[at % numbers.length]!);
}

describe("activations", () => {
  const variants = ["elu(-0.5)", "celu(2)", "celu(-1)", "softplus(2, 5)", "softplus(-1, 3)", "softplus(1, -2)", "clip(-0.5, 0.75)"];
  const others = ["clip(1, -1)", "sin(3)", "power(3)", "power(-1.5)", "power(0.5)", "power(1)", "leaky_relu(-0.3)", "leaky_relu(2)"];

  /** Every hundredth from -20 to 20, kinks among them, and magnitudes from 1e-3 to 1e3. */
  const z = Float32Array.from({ length: 8002 }, (_, at) => {
    const i = (at >> 1) - 2000;
    return at % 2 === 0 ? i / 100 : Math.sign(i) * 10 ** (Math.abs(i) / 333 - 3);
  });

  test.for([...activationNames, ...variants, ...others])("%s, its slope and its curvature", async (name) => {
    const activation = parseActivation(name);
    const network: Network = { stateSize: 1, contextSize: 0, operations: [{ kind: "activation", operand: "state", activation }] };
    const { value, divergence, gradient } = await run(network, { outputs: ["value", "divergence", "gradient"] }, z);
    const expected = activationFunctions(activation);
    // onnxruntime's sigmoid ends at 6e-8; 3 z is rounded.
    const perZ = name === "sin(3)" ? 2e-6 : 1e-7;
    for (const [label, actual, of] of [
      ["value", value, expected.value],
      ["slope", divergence, expected.slope],
      ["curvature", gradient, expected.curvature],
    ] as const) {
      const exact = Array.from(z, of);
      // -0 is 0, and what leaves float32 is an infinity.
      const rounded = exact.map((x) => Math.fround(x) + 0);
      const scale = exact.map((x, at) => 1e-6 * (1 + Math.abs(x)) + perZ * Math.abs(z[at]!));
      expectClose(
        actual!.data.map((x) => x + 0),
        rounded,
        scale,
        { relative: 1, absolute: 0, label: `${label} of ${name}` },
      );
    }
  });
});

describe("far out", () => {
  const row = (name: string): Network["operations"][number] => ({
    kind: "activation",
    operand: "state",
    activation: parseActivation(name),
  });

  test.each([
    "reciprocal",
    "log",
    "sqrt",
    "asinh",
    "acosh",
    "power(-1.5)",
    "power(0.5)",
    "power(-3)",
    "softplus(1e30)",
    "mish",
    "sigmoid",
    "tanh",
  ])("%s and its derivatives are right, or NaN where float32 has nothing left of them", async (name) => {
    const z = Float32Array.from({ length: 151 }, (_, i) => 10 ** (i / 2 - 37.25)).filter((each) => name !== "acosh" || each > 1.001);
    const network: Network = { stateSize: 1, contextSize: 0, operations: [row(name)] };
    const results = await run(network, { outputs: ["value", "divergence", "gradient"] }, z);
    const expected = activationFunctions(parseActivation(name));
    for (const [output, of] of [
      ["value", expected.value],
      ["divergence", expected.slope],
      ["gradient", expected.curvature],
    ] as const)
      z.forEach((at, i) => {
        const [actual, exact] = [results[output]!.data[i]!, of(at)];
        // What a saturated or exponential tail leaves may be 0; what a power of z leaves may not.
        const mayVanish = Math.abs(exact) < 1e-37 && ["mish", "sigmoid", "tanh", "softplus(1e30)"].includes(name);
        const isGone = Number.isNaN(actual) && output !== "value" && Math.abs(exact) < 1e-36;
        // Near its ends a power is 0 or infinite before its product with a factor is.
        const isEnd = Math.abs(exact) > 5e37 && actual === Math.sign(exact) * Infinity;
        const isRight = Math.abs(actual - exact) <= 2e-5 * Math.abs(exact) + 1.2e-38 || isEnd;
        if (!(isRight || isGone || (mayVanish && Math.abs(actual) < 1e-36)))
          expect.fail(`${output} of ${name} at ${at} is ${actual}; expected ${exact}`);
      });
  });

  test("a softmax written out gives its derivatives, or NaN, however large the logits", async () => {
    // e^a / (e^a + e^b), by a reciprocal.
    const matrix = (rows: number, data: number[]) => ({ rows, columns: data.length / rows, data: Float64Array.from(data) });
    const network: Network = {
      stateSize: 2,
      contextSize: 0,
      operations: [
        row("exp"),
        { kind: "linear", terms: [{ operand: 0, weight: matrix(2, [1, 1, 1, 1]) }], bias: null },
        { kind: "activation", operand: 1, activation: parseActivation("reciprocal") },
        { kind: "product", operands: [0, 2] },
      ],
    };
    for (let logit = 0; logit < 88; logit++) {
      const x = [logit, logit + 0.5];
      const { divergence, gradient } = await run(network, { outputs: ["divergence", "gradient"] }, x);
      const p = 1 / (1 + Math.exp(0.5));
      const slope = p * (1 - p) * (1 - 2 * p) * 2;
      for (const [actual, exact] of [
        [divergence!.data[0]!, 2 * p * (1 - p)],
        [gradient!.data[0]!, slope],
        [gradient!.data[1]!, -slope],
      ] as const)
        if (!(Number.isNaN(actual) || Math.abs(actual - exact) < 1e-3)) expect.fail(`at ${logit} ${actual}; expected ${exact}`);
    }
  });
});

interface Shipped {
  readonly name: string;
  readonly network: Network;
  readonly points: ArrayLike<number>;
  readonly context: ArrayLike<number> | null;
}

const architectures = new URL("architectures/", import.meta.url);
const shipped: Shipped[] = [
  ...vectorNames.map((name) => ({ name, network: loadVector(name).network, points: loadVector(name).truth.x, context: null })),
  ...modelNames.map((name) => {
    const { network, truth } = loadModel(name);
    return { name, network, points: truth.points, context: truth.context };
  }),
  ...readdirSync(architectures)
    .filter((file) => file.endsWith(".dynamo.onnx"))
    .map((file) => {
      const { x, t } = JSON.parse(readFileSync(new URL(`${file.split(".")[0]}.json`, architectures), "utf8"));
      return { name: file, network: parseOnnx(readFileSync(new URL(file, architectures))), points: x, context: t ?? null };
    }),
  ...caseNames.map((name) => {
    const { x, context } = truthOfCase(name);
    return { name, network: readCase(name, answers[name]?.options), points: x, context };
  }),
];

describe("networks of files", () => {
  test.for(shipped)("$name by every method, for any number of points, and read back", async ({ name, network, points, context }) => {
    const { stateSize: d, contextSize: c } = network;
    const count = 7;
    const x = rowsOf(points, count, d);
    const relative = /sin30/.test(name) ? 1e-4 : 2e-5;
    for (const contextPer of c > 0 ? (["point", "batch"] as const) : (["point"] as const)) {
      const given = context && rowsOf(context, contextPer === "point" ? count : 1, c);
      const reference = evaluateReference(network, x, { context: given, outputs: everything });
      const { points: gradient } = vjpReference(network, x, { divergence: 1 }, { context: given, wrt: ["points"] });
      const sums = rowsOf(reference.diagonal!, count, d).map(Math.abs);
      const scale = reference.divergence!.map((_, point) =>
        sums.subarray(point * d, (point + 1) * d).reduce((sum, entry) => sum + entry, 0),
      );
      const largest = gradient.reduce((most, entry) => Math.max(most, Math.abs(entry)), 0);
      const entry = reference.jacobian!.reduce((most, each) => Math.max(most, Math.abs(each)), 0);
      const expected: Record<Exclude<OnnxOutput, "curl">, readonly [Float64Array, Float64Array]> = {
        value: [reference.value!, reference.value!.map((each) => 1 + Math.abs(each))],
        divergence: [reference.divergence!, scale],
        diagonal: [reference.diagonal!, reference.diagonal!.map((_, at) => scale[Math.floor(at / d)]!)],
        jacobian: [reference.jacobian!, reference.jacobian!.map(() => entry)],
        strain: [reference.strain!, reference.strain!.map(() => entry)],
        qCriterion: [reference.qCriterion!, reference.qCriterion!.map(() => (entry * d) ** 2)],
        gradient: [gradient, gradient.map(() => 5 * largest)],
      };
      for (const method of ["auto", ...methodsOf(network)] as const) {
        const outputs = delivered(method);
        const model = await openModel(toOnnx(network, { outputs, method, contextPer }), d, c);
        for (const n of [count, 1]) {
          const results = await model.run(x.subarray(0, n * d), given && (contextPer === "point" ? given.subarray(0, n * c) : given));
          expect(Object.keys(results)).toEqual(outputs);
          for (const output of outputs) {
            const [numbers, sizes] = expected[output];
            const each = numbers.length / count;
            const label = `${output} by ${method}, ${n} points, a context per ${contextPer}`;
            expectClose(results[output]!.data, numbers.subarray(0, n * each), sizes.subarray(0, n * each), { relative, label });
          }
          const { value, divergence, diagonal, jacobian, strain, qCriterion } = results;
          expect([value, divergence, diagonal, jacobian, strain, qCriterion].map((result) => result?.shape)).toEqual([
            [n, d],
            [n],
            diagonal && [n, d],
            jacobian && [n, d, d],
            strain && [n, d, d],
            qCriterion && [n],
          ]);
        }
        await model.release();
      }
      const back = parseOnnx(toOnnx(network, { outputs: ["value"], contextPer }));
      expect([back.stateSize, back.contextSize]).toEqual([d, c]);
      const { value } = evaluateReference(back, x, { context: given, outputs: ["value"] });
      expectClose(value!, reference.value!, expected.value[1], { relative: 1e-6, absolute: 0, label: "value read back" });
    }
  });
});

/** DELDOT_RUNS=2000 looks further than the usual run does; the first networks are the same. */
const numRuns = Number(process.env["DELDOT_RUNS"] ?? 500);
const MOST_POINTS = 12;

test("random networks, by any method and opset, give what float32 may", { timeout: 60_000 + 1000 * numRuns }, async () => {
  const failures: string[] = [];
  for (let seed = 1; seed <= numRuns; seed++) {
    const draw = new Draw(seed);
    const pool = drawPool(draw, draw.pick(["small", "small", "middle"]), wholePalette, false);
    const { network, contextKind } = pool;
    const { stateSize: d, contextSize: c } = network;
    const count = Math.min(pool.count, MOST_POINTS);
    const contextPer = contextKind === "shared" ? "batch" : "point";
    const points = pool.points.subarray(0, count * d);
    const context = pool.context && (contextPer === "batch" ? pool.context : pool.context.subarray(0, count * c));
    const method = draw.pick(["auto" as const, ...methodsOf(network)]);
    const outputs = delivered(method).filter((output) => output !== "strain" && output !== "qCriterion" && draw.chance(0.7));
    if (outputs.length === 0) outputs.push("divergence");
    const opset = draw.integer(13, 21);
    const results = await run(network, { outputs, method, opset, contextPer }, points, context);
    const { gradient, ...others } = Object.fromEntries(outputs.map((name) => [name, results[name]!.data]));
    const wrong = check({ pool, first: 0, count, method: "auto" }, others);
    if (gradient) {
      const { points: expected } = vjpReference(network, points, { divergence: 1 }, { context, wrt: ["points"] });
      const largest = expected.reduce((most, each) => Math.max(most, Math.abs(each)), 0);
      const error = expected.reduce((most, each, at) => Math.max(most, Math.abs(gradient[at]! - each) || 0), 0);
      if (!(error <= 5e-4 * largest + 2e-5) || gradient.includes(NaN))
        wrong.push(`the gradient errs by ${error}, its largest entry is ${largest}`);
    }
    if (wrong.length > 0)
      failures.push(`seed ${seed}: ${outputs.join()} by ${method}, ${contextKind}: ${wrong.join("; ")}; ${describeNetwork(network)}`);
  }
  expect(failures.join("\n")).toBe("");
});

describe("a graph", () => {
  test("of a field whose derivatives all points share has a row for each", async () => {
    const rotation = mlp({
      layers: [
        {
          weight: [
            [0.5, -1],
            [1, 0.25],
          ],
        },
      ],
    });
    for (const method of [...methodsOf(rotation), "auto" as const]) {
      const results = await run(rotation, { outputs: delivered(method), method }, [1, 2, 3, 4, 5, 6]);
      expect(Array.from(results["value"]!.data)).toEqual([-1.5, 1.5, -2.5, 4, -3.5, 6.5]);
      expect(Array.from(results["divergence"]!.data)).toEqual([0.75, 0.75, 0.75]);
      expect(Array.from(results["gradient"]!.data)).toEqual([0, 0, 0, 0, 0, 0]);
      if (results["jacobian"]) {
        expect(results["jacobian"].shape).toEqual([3, 2, 2]);
        expect(Array.from(results["jacobian"].data.subarray(8))).toEqual([0.5, -1, 1, 0.25]);
      }
    }
  });

  test("of a field that the state does not move has zeros", async () => {
    const weight = { rows: 2, columns: 1, data: Float32Array.of(2, -3) };
    const operations = [{ kind: "linear", terms: [{ operand: "context", weight }], bias: null }] as const;
    const network: Network = { stateSize: 2, contextSize: 1, operations };
    for (const method of ["tangent", "jacobian", "auto"] as const)
      for (const contextPer of ["point", "batch"] as const) {
        const context = contextPer === "point" ? [1, 10, 100] : [1];
        const results = await run(network, { outputs: delivered(method), method, contextPer }, [1, 2, 3, 4, 5, 6], context);
        expect(Array.from(results["value"]!.data)).toEqual(contextPer === "point" ? [2, -3, 20, -30, 200, -300] : [2, -3, 2, -3, 2, -3]);
        expect(Array.from(results["divergence"]!.data)).toEqual([0, 0, 0]);
        expect(Array.from(results["diagonal"]!.data)).toEqual([0, 0, 0, 0, 0, 0]);
        expect(results["gradient"]!.shape).toEqual([3, 2]);
      }
  });

  test("of two hidden layers has one product for the divergence beside those of the field", () => {
    const { network } = randomMlp({ seed: 1, widths: [6, 9, 9, 6], activation: "silu" });
    const productsOf = (outputs: readonly OnnxOutput[]): number => {
      const text = new TextDecoder("latin1").decode(toOnnx(network, { outputs }));
      // As a node's operator stands in the file: field 4, its length, its name.
      return text.split("\x22\x04Gemm").length + text.split("\x22\x06MatMul").length - 2;
    };
    expect(productsOf(["value"])).toBe(3);
    expect(productsOf(["divergence"])).toBe(3);
    expect(productsOf(["value", "divergence"])).toBe(4);
  });

  test("of particles has one matrix for all of them", async () => {
    const draw = new Draw(1);
    const times = 3;
    const shared = (rows: number, columns: number, operand: "state" | number) =>
      ({
        kind: "linear",
        terms: [{ operand, weight: { block: { rows, columns, data: draw.numbers(rows * columns, 1) }, times } }],
        bias: null,
      }) as const;
    const gate = { diagonal: draw.numbers(times * 4, 1) };
    const tanh = parseActivation("tanh");
    const operations = [
      shared(4, 2, "state"),
      { kind: "linear", terms: [{ operand: 0, weight: gate }], bias: null },
      shared(5, 4, 1),
      { kind: "activation", operand: 2, activation: tanh },
      shared(5, 5, 3),
      { kind: "activation", operand: 4, activation: tanh },
      shared(2, 5, 5),
    ] as const;
    const network: Network = { stateSize: times * 2, contextSize: 0, operations };
    // 4 blocks and the diagonal, not the blocks' zeros.
    expect(toOnnx(network, { outputs: ["value"] }).length).toBeLessThan(4 * (8 + 20 + 25 + 10 + 12) + 1500);
    const points = draw.numbers(4 * network.stateSize, 1);
    const { divergence, diagonal } = evaluateReference(network, points, { outputs: ["divergence", "diagonal"] });
    const scale = divergence!.map((_, point) =>
      diagonal!.subarray(6 * point, 6 * point + 6).reduce((sum, entry) => sum + Math.abs(entry), 0),
    );
    for (const method of methodsOf(network)) {
      const results = await run(network, { method }, points);
      expectClose(results["divergence"]!.data, divergence!, scale, { label: `divergence by ${method}` });
    }
  });

  test("of a network as deep as any may be is written", () => {
    const layers = Array.from({ length: 990 }, () => ({ weight: [[0.5]], bias: [0.1] }));
    const file = toOnnx(mlp({ layers, activation: "mish" }), { outputs: ["value"] });
    expect(new TextDecoder("latin1").decode(file).split("\x22\x04Gemm").length).toBe(991);
  });

  test("has the numbers of its own network, whatever others have the same shape", async () => {
    const { network } = randomMlp({ seed: 1, widths: [2, 5, 5, 2], activation: "tanh" });
    const other = randomMlp({ seed: 2, widths: [2, 5, 5, 2], activation: "tanh" }).network;
    const results = [await run(network, {}, [1, 2]), await run(other, {}, [1, 2])];
    for (const [index, each] of [network, other].entries()) {
      const { divergence, diagonal } = evaluateReference(each, [1, 2], { outputs: ["divergence", "diagonal"] });
      expectClose(results[index]!["divergence"]!.data, divergence!, [diagonal!.reduce((sum, entry) => sum + Math.abs(entry), 0)]);
    }
  });
});

describe("refused are", () => {
  const network = mlp({ layers: [{ weight: [[1]] }] });
  test.for<[string, unknown, typeof PlanError | typeof InputError, RegExp]>([
    [
      "outputs that do not exist",
      { outputs: ["torsion"] },
      PlanError,
      /^outputs is \["torsion"\]; expected a list out of "value", .*"gradient"$/,
    ],
    ["no outputs", { outputs: [] }, PlanError, /expected a list/],
    ["estimates", { method: "hutchinson" }, PlanError, /"hutchinson".*expected "auto" or one of tangent, cyclic, jacobian/],
    ["differences", { method: "difference" }, PlanError, /expected "auto"/],
    [
      "outputs that the method does not give",
      { method: "tangent", outputs: ["jacobian"] },
      PlanError,
      /does not give the output "jacobian"/,
    ],
    ["opsets before 13", { opset: 12 }, InputError, /opset is 12; expected a whole number from 13 to 21/],
    ["a context per row", { contextPer: "row" }, InputError, /contextPer is "row"/],
    ["no options", null, InputError, /options is null/],
  ])("%s", ([, options, kind, message]) => {
    expect(() => toOnnx(network, options as OnnxExportOptions)).toThrow(kind);
    expect(() => toOnnx(network, options as OnnxExportOptions)).toThrow(message);
  });

  test("cyclic for a network with several paths, and what is no network", () => {
    const { network: residual } = shipped.find(({ name }) => name.startsWith("residual"))!;
    expect(() => toOnnx(residual, { method: "cyclic" })).toThrow(PlanError);
    expect(() => toOnnx({} as Network)).toThrow(ModelError);
  });
});
