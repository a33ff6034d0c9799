import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ModelError } from "../../src/errors.js";
import { isIdentity } from "../../src/model/activation.js";
import { widthOf, type Network } from "../../src/model/network.js";
import { parseOnnx, type OnnxOptions } from "../../src/model/readers/onnx.js";
import { expectClose } from "../close.js";
import { loadModel, loadVector, modelNames, normal, random } from "../fields.js";
import { float64Run } from "../float32.js";
import { integer, join, onnxFile, part, text, type OnnxCall, type OnnxFile, type OnnxTensor } from "../onnx.js";

function filesIn(folder: string): string[] {
  return readdirSync(new URL(folder, import.meta.url)).filter((name) => name.endsWith(".onnx"));
}

/** Of all threads of the process, which does nothing else: a loaded machine makes no difference. */
function cpuMilliseconds(start: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000;
}

function read(folder: string, name: string): Uint8Array {
  return readFileSync(new URL(`${folder}${name}`, import.meta.url));
}

/** What a network is made of, without its numbers: "linear state+context", "silu 0", ... */
function outline(network: Network): string[] {
  return network.operations.map((operation) => {
    if (operation.kind === "linear")
      return `linear ${operation.terms.map(({ operand, weight }) => `${"diagonal" in weight ? "diagonal " : ""}${operand}`).join(" + ")}`;
    if (operation.kind === "activation") return `${operation.activation} ${operation.operand}`;
    return operation.kind === "product"
      ? `product ${operation.operands.join(" ")}`
      : `${operation.centered ? "layer" : "rms"} norm ${operation.operand}`;
  });
}

/** A chain without the identities that a safetensors file may name. */
function withoutIdentities({ operations }: Network): unknown[] {
  const places: number[] = [];
  const kept: unknown[] = [];
  for (const [index, operation] of operations.entries()) {
    const at = (operand: unknown): unknown => (typeof operand === "number" ? places[operand] : operand);
    if (operation.kind === "activation" && isIdentity(operation.activation)) places[index] = at(operation.operand) as number;
    else {
      places[index] = kept.length;
      if (operation.kind === "linear")
        kept.push({ ...operation, terms: operation.terms.map((term) => ({ ...term, operand: at(term.operand) })) });
      else if (operation.kind === "activation")
        kept.push({ kind: operation.kind, operand: at(operation.operand), activation: String(operation.activation) });
      else kept.push(operation);
    }
  }
  return kept;
}

function refusal(bytes: Uint8Array, options?: OnnxOptions): string {
  try {
    parseOnnx(bytes, options);
  } catch (error) {
    expect(error).toBeInstanceOf(ModelError);
    expect((error as Error).message).toMatch(/^onnx: /);
    return (error as Error).message;
  }
  expect.unreachable("the file was accepted");
}

const close = { relative: 1e-10, absolute: 1e-10 };

describe("exported files", () => {
  it.each(modelNames)("%s is the chain of its safetensors file, and right", (name) => {
    const { network: chain, truth } = loadModel(name);
    const network = parseOnnx(read("../../demo/models/", `${name}.onnx`));
    expect(withoutIdentities(network)).toEqual(withoutIdentities(chain));
    expect(network).toMatchObject({ stateSize: truth.stateSize, contextSize: truth.contextSize });
    const { value, divergence } = float64Run(network, truth.points, truth.context);
    expectClose(value, truth.value, truth.value.map(Math.abs), { ...close, label: "value" });
    expectClose(divergence, truth.divergence, truth.divergence.map(Math.abs), { ...close, label: "divergence" });
  });

  it.each(filesIn("../vectors/"))("%s is the chain of its safetensors file, and right", (file) => {
    const { network: chain, truth } = loadVector(file.split(".")[0]!);
    const network = parseOnnx(read("../vectors/", file));
    expect(withoutIdentities(network)).toEqual(withoutIdentities(chain));
    const { value, diagonal, divergence } = float64Run(network, truth.x, null);
    expectClose(value, truth.y, truth.y.map(Math.abs), { ...close, label: "value" });
    expectClose(diagonal, truth.diag, truth.diag.map(Math.abs), { ...close, label: "diagonal" });
    expectClose(divergence, truth.div, truth.absJacDiagSum, { ...close, label: "divergence" });
  });

  it.each(filesIn("../architectures/"))("%s is right", (file) => {
    const truth = JSON.parse(new TextDecoder().decode(read("../architectures/", `${file.split(".")[0]}.json`)));
    const network = parseOnnx(read("../architectures/", file));
    expect(network).toMatchObject({ stateSize: truth.state, contextSize: truth.context });
    const { value, diagonal, divergence } = float64Run(network, truth.x, truth.t);
    const sizes = (numbers: number[]): number[] => numbers.map(Math.abs);
    expectClose(value, truth.y, sizes(truth.y), { ...close, label: "value" });
    expectClose(diagonal, truth.diag, sizes(truth.diag), { ...close, label: "diagonal" });
    expectClose(divergence, truth.div, truth.absJacDiagSum, { ...close, label: "divergence" });
  });

  it.each([
    ["concat-input", ["linear state + context", "elu 0", "linear 1", "elu 2", "linear 3"]],
    ["skip-field", ["linear state", "tanh 0", "linear 1", "tanh 2", "linear diagonal state + 3"]],
    ["fourier-features", ["linear state", "sin 0", "cos 0", "linear 1 + 2", "relu 3", "linear 4", "relu 5", "linear 6"]],
    [
      "residual",
      ["linear state", "linear 0", "silu 1", "linear diagonal 0 + 2", "linear 3", "silu 4", "linear diagonal 3 + 5", "silu 6", "linear 7"],
    ],
    [
      "layernorm",
      [
        "linear state",
        "layer norm 0",
        "linear diagonal 1",
        "gelu 2",
        "linear 3",
        "layer norm 4",
        "linear diagonal 5",
        "gelu 6",
        "linear 7",
      ],
    ],
  ])("%s has no operation too many, by both exporters", (name, operations) => {
    for (const exporter of ["torchscript", "dynamo"])
      expect(outline(parseOnnx(read("../architectures/", `${name}.${exporter}.onnx`)))).toEqual(operations);
  });
});

/** A seeded tensor of normal numbers, or of positive ones. */
function tensor(seed: number, shape: number[], map: (x: number) => number = (x) => x): OnnxTensor {
  const uniform = random(seed);
  return { shape, type: 11, data: Array.from({ length: shape.reduce((product, n) => product * n, 1) }, () => map(normal(uniform))) };
}

const w33 = tensor(1, [3, 3]);
const b3 = tensor(2, [3]);
const positive = tensor(3, [3], (x) => 0.5 + Math.abs(x));
const whole = (...data: number[]): OnnxTensor => ({ shape: [data.length], type: 7, data });
const one = (value: number): OnnxTensor => ({ shape: [], type: 11, data: [value] });

interface Case extends Pick<OnnxFile, "functions"> {
  nodes: readonly OnnxCall[];
  /** The same in JavaScript. */
  f: (x: number[], t: number) => number[];
  initializers?: Record<string, OnnxTensor>;
  opset?: number;
  inputs?: OnnxFile["inputs"];
  outline?: string[];
  options?: OnnxOptions;
}

const multiply = (w: OnnxTensor, x: number[]): number[] =>
  x.map((_, row) => x.reduce((sum, value, k) => sum + value * w.data![k * x.length + row]!, 0));
const numbers = (t: OnnxTensor): number[] => [...t.data!];
const mean = (x: number[]): number => x.reduce((sum, value) => sum + value, 0) / x.length;
const elementwise =
  (f: (x: number) => number): Case["f"] =>
  (x) =>
    x.map(f);
const erf = (x: number): number => {
  let sum = 0;
  for (let n = 0, term = x; n < 80; n++, term *= (-x * x) / n) sum += term / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * sum;
};
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const softplus = (x: number): number => Math.log1p(Math.exp(x));
const norm = (x: number[], centre: number, epsilon = 1e-5): number[] =>
  x.map((value) => (value - centre) / Math.sqrt(mean(x.map((other) => (other - centre) ** 2)) + epsilon));
const call = (type: string, attributes: Record<string, never> | NonNullable<OnnxCall[3]> = {}): readonly OnnxCall[] => [
  [type, ["x"], ["v"], attributes],
];

const bits = (value: bigint): Uint8Array => new Uint8Array(BigInt64Array.of(value).buffer);
const list = (...data: number[]): OnnxTensor => ({ shape: [data.length], type: 11, data });
const w36 = tensor(4, [3, 6]);
const w63 = tensor(5, [6, 3]);
/** x times a matrix [x.length, columns], and a matrix [rows, x.length] times x. */
const timesMatrix = (x: number[], { shape, data }: OnnxTensor): number[] =>
  Array.from({ length: Number(shape.at(-1)) }, (_, j) => x.reduce((sum, v, i) => sum + v * data![i * Number(shape.at(-1)) + j]!, 0));
const multiplyRows = ({ shape, data }: OnnxTensor, x: number[]): number[] =>
  Array.from({ length: Number(shape[0]) }, (_, i) => x.reduce((sum, v, j) => sum + v * data![i * x.length + j]!, 0));
const softmax = (x: number[]): number[] => {
  const sum = x.reduce((total, v) => total + Math.exp(v), 0);
  return x.map((v) => Math.exp(v) / sum);
};
const reduceThenScale = (type: string): readonly OnnxCall[] => [
  [type, ["x"], ["r"], { axes: [1], keepdims: 1 }],
  ["Mul", ["x", "r"], ["v"]],
];
/** type(factor x). */
const scaledCall = (type: string, factor: number): readonly OnnxCall[] => [
  ["Constant", [], ["c"], { value_float: { float: factor } }],
  ["Mul", ["x", "c"], ["a"]],
  [type, ["a"], ["v"]],
];
/** x - type(x): steps alone have no derivative to compare. */
const wrapped = (type: string): readonly OnnxCall[] => [
  [type, ["x"], ["n"]],
  ["Sub", ["x", "n"], ["v"]],
];

/** One small model for each operation. x is [batch, 3] and t [batch, 1] where there is a context. */
const cases: Record<string, Case> = {
  Softmax: { nodes: call("Softmax", { axis: 1 }), f: (x) => softmax(x) },
  LogSoftmax: { nodes: call("LogSoftmax"), f: (x) => softmax(x).map(Math.log) },
  "Softmax of an old file, over all axes from the first on": {
    nodes: [
      ["Unsqueeze", ["x"], ["a"], { axes: [2] }],
      ["Softmax", ["a"], ["b"]],
      ["Squeeze", ["b"], ["v"], { axes: [2] }],
    ],
    f: (x) => softmax(x),
    opset: 11,
  },
  "Softmax of parts": {
    nodes: [
      ["Mul", ["x", "two"], ["x2"]],
      ["Concat", ["x", "x2"], ["both"], { axis: 1 }],
      ["Reshape", ["both", "shape"], ["parts"]],
      ["Softmax", ["parts"], ["s"], { axis: 1 }],
      ["Slice", ["s", "0", "1", "axes"], ["first"]],
      ["Squeeze", ["first", "axes"], ["v"]],
    ],
    f: (x) => x.map((v) => 1 / (1 + Math.exp(v))),
    initializers: { two: one(2), shape: whole(-1, 2, 3), 0: whole(0), 1: whole(1), axes: whole(1) },
  },
  ReduceMax: { nodes: reduceThenScale("ReduceMax"), f: (x) => x.map((v) => v * Math.max(...x)) },
  ReduceMin: { nodes: reduceThenScale("ReduceMin"), f: (x) => x.map((v) => v * Math.min(...x)) },
  ReduceL1: { nodes: reduceThenScale("ReduceL1"), f: (x) => x.map((v) => v * x.reduce((sum, y) => sum + Math.abs(y), 0)) },
  ReduceL2: { nodes: reduceThenScale("ReduceL2"), f: (x) => x.map((v) => v * Math.hypot(...x)) },
  ReduceSumSquare: { nodes: reduceThenScale("ReduceSumSquare"), f: (x) => x.map((v) => v * Math.hypot(...x) ** 2) },
  ReduceLogSumExp: {
    nodes: reduceThenScale("ReduceLogSumExp"),
    f: (x) => x.map((v) => v * Math.log(x.reduce((sum, y) => sum + Math.exp(y), 0))),
  },
  ReduceLogSum: {
    nodes: [
      ["Exp", ["x"], ["e"]],
      ["ReduceLogSum", ["e"], ["r"], { axes: [1] }],
      ["Mul", ["x", "r"], ["v"]],
    ],
    f: (x) => x.map((v) => v * Math.log(x.reduce((sum, y) => sum + Math.exp(y), 0))),
    opset: 13,
  },
  LpNormalization: { nodes: call("LpNormalization", { axis: 1 }), f: (x) => x.map((v) => v / Math.hypot(...x)) },
  "InstanceNormalization of channels": {
    nodes: [
      ["MatMul", ["x", "w"], ["h"]],
      ["Reshape", ["h", "shape"], ["parts"]],
      ["InstanceNormalization", ["parts", "gain", "shift"], ["n"]],
      ["Reshape", ["n", "flat"], ["m"]],
      ["MatMul", ["m", "u"], ["v"]],
    ],
    f: (x) => {
      const h = timesMatrix(x, w36);
      const n = [h.slice(0, 3), h.slice(3)].flatMap((part, g) => norm(part, mean(part)).map((v) => v * [2, -1][g]! + [0.5, 3][g]!));
      return timesMatrix(n, w63);
    },
    initializers: { w: w36, u: w63, shape: whole(-1, 2, 3), flat: whole(-1, 6), gain: list(2, -1), shift: list(0.5, 3) },
  },
  "GroupNormalization, a gain for each group": {
    nodes: [
      ["MatMul", ["x", "w"], ["h"]],
      ["GroupNormalization", ["h", "gain", "shift"], ["n"], { num_groups: 2 }],
      ["MatMul", ["n", "u"], ["v"]],
    ],
    f: (x) => {
      const h = timesMatrix(x, w36);
      const n = [h.slice(0, 3), h.slice(3)].flatMap((part, g) => norm(part, mean(part)).map((v) => v * [2, -1][g]! + [0.5, 3][g]!));
      return timesMatrix(n, w63);
    },
    initializers: { w: w36, u: w63, gain: list(2, -1), shift: list(0.5, 3) },
    opset: 18,
  },
  "Einsum of a weight": {
    nodes: [["Einsum", ["x", "w"], ["v"], { equation: "bi, ji -> bj" }]],
    f: (x) => multiplyRows(w33, x),
    initializers: { w: w33 },
  },
  "Einsum without an arrow, with dots": {
    nodes: [["Einsum", ["w", "x"], ["v"], { equation: "ij,...j" }]],
    f: (x) => multiplyRows(w33, x),
    initializers: { w: w33 },
  },
  "Einsum of two that move": {
    nodes: [
      ["Einsum", ["x", "x"], ["outer"], { equation: "bi,bj->bij" }],
      ["Einsum", ["outer", "x"], ["v"], { equation: "bij,bj->bi" }],
    ],
    f: (x) => x.map((v) => v * Math.hypot(...x) ** 2),
  },
  "MatMul of two that move, as attention does": {
    nodes: [
      ["Unsqueeze", ["x", "last"], ["column"]],
      ["Unsqueeze", ["x", "middle"], ["row"]],
      ["MatMul", ["column", "row"], ["scores"]],
      ["Softmax", ["scores"], ["weights"]],
      ["MatMul", ["weights", "column"], ["a"]],
      ["Squeeze", ["a", "last"], ["v"]],
    ],
    f: (x) =>
      x.map((v) => {
        const weights = softmax(x.map((other) => v * other));
        return x.reduce((sum, other, i) => sum + weights[i]! * other, 0);
      }),
    initializers: { last: whole(2), middle: whole(1) },
  },
  "MatMul of a stack of weights": {
    nodes: [
      ["Unsqueeze", ["x", "middle"], ["row"]],
      ["MatMul", ["row", "w"], ["a"]],
      ["Squeeze", ["a", "middle"], ["v"]],
    ],
    f: (x) => timesMatrix(x, w33),
    initializers: { middle: whole(1), w: { ...w33, shape: [1, 3, 3] } },
  },
  "weights out of the context": {
    nodes: [
      ["MatMul", ["t", "w"], ["flat"]],
      ["Reshape", ["flat", "shape"], ["weights"]],
      ["Unsqueeze", ["x", "middle"], ["row"]],
      ["MatMul", ["row", "weights"], ["a"]],
      ["Squeeze", ["a", "middle"], ["v"]],
    ],
    f: (x, t) => timesMatrix(x, w33).map((v) => v * t),
    initializers: { w: { ...w33, shape: [1, 9] }, shape: whole(-1, 3, 3), middle: whole(1) },
    inputs: { x: ["batch", 3], t: ["batch", 1] },
  },
  Tile: {
    nodes: [
      ["Tile", ["t", "times"], ["a"]],
      ["Mul", ["x", "a"], ["v"]],
    ],
    f: (x, t) => x.map((v) => v * t),
    initializers: { times: whole(1, 3) },
    inputs: { x: ["batch", 3], t: ["batch", 1] },
  },
  "DequantizeLinear along an axis, and in blocks": {
    nodes: [
      ["DequantizeLinear", ["q", "s", "z"], ["w"], { axis: 1 }],
      ["DequantizeLinear", ["q", "sb"], ["wb"], { axis: 0, block_size: 2 }],
      ["Add", ["w", "wb"], ["both"]],
      ["MatMul", ["x", "both"], ["v"]],
    ],
    f: (x) =>
      [0, 1, 2].map((j) =>
        x.reduce(
          (sum, v, i) =>
            sum +
            v * (([1, 2, 3, 4, -5, 6, 7, 8, -9][3 * i + j]! - j) * (j + 1) + [1, 2, 3, 4, -5, 6, 7, 8, -9][3 * i + j]! * (i < 2 ? 1 : 10)),
          0,
        ),
      ),
    initializers: {
      q: { shape: [3, 3], type: 3, data: [1, 2, 3, 4, -5, 6, 7, 8, -9] },
      s: { shape: [3], data: [1, 2, 3] },
      z: { shape: [3], type: 3, data: [0, 1, 2] },
      sb: { shape: [2, 3], data: [1, 1, 1, 10, 10, 10] },
    },
    opset: 21,
  },
  Scaler: {
    nodes: [["Scaler", ["x"], ["v"], { offset: { floats: [1, 2, 3] }, scale: { floats: [0.5] } }, "ai.onnx.ml"]],
    f: (x) => x.map((v, i) => (v - i - 1) * 0.5),
  },
  "a function of the file's own, within another, with attributes": {
    nodes: [["Outer", ["x"], ["v"], { slope: { float: 0.5 } }, "own"]],
    f: (x) => x.map((v) => (v > 0 ? v : 0.5 * v) + (v > 0 ? v : 0.25 * v)),
    functions: [
      {
        name: "Outer",
        domain: "own",
        inputs: ["x"],
        outputs: ["y"],
        nodes: [
          ["Inner", ["x"], ["a"], { alpha: { reference: "slope" } }, "own"],
          ["Inner", ["x"], ["b"], {}, "own"],
          ["Add", ["a", "b"], ["y"]],
        ],
      },
      {
        name: "Inner",
        domain: "own",
        inputs: ["x"],
        outputs: ["y"],
        nodes: [["LeakyRelu", ["x"], ["y"], { alpha: { reference: "alpha" } }]],
        defaults: { alpha: { float: 0.25 } },
      },
    ],
  },
  "Clip and Slice of an old file": {
    nodes: [
      ["Slice", ["x"], ["a"], { starts: [0], ends: [3], axes: [1] }],
      ["Clip", ["a"], ["v"], { min: { float: -0.5 }, max: { float: 0.25 } }],
    ],
    f: elementwise((x) => Math.min(Math.max(x, -0.5), 0.25)),
    opset: 8,
  },
  Abs: { nodes: call("Abs"), f: elementwise(Math.abs), outline: ["abs state"] },
  Add: {
    nodes: [["Add", ["x", "b"], ["v"]]],
    f: (x) => x.map((v, i) => v + b3.data![i]!),
    initializers: { b: b3 },
    outline: ["linear diagonal state"],
  },
  Sub: { nodes: [["Sub", ["b", "x"], ["v"]]], f: (x) => x.map((v, i) => b3.data![i]! - v), initializers: { b: b3 } },
  Mul: {
    nodes: [
      ["Tanh", ["x"], ["a"]],
      ["Mul", ["x", "a"], ["v"]],
    ],
    f: elementwise((v) => v * Math.tanh(v)),
    outline: ["tanh state", "product state 0"],
  },
  "Mul by itself": { nodes: [["Mul", ["x", "x"], ["v"]]], f: elementwise((v) => v * v), outline: ["square state"] },
  Div: {
    nodes: [
      ["Exp", ["x"], ["a"]],
      ["Div", ["x", "a"], ["v"]],
    ],
    f: elementwise((v) => v / Math.exp(v)),
  },
  "Div of a constant": {
    nodes: [
      ["Exp", ["x"], ["a"]],
      ["Div", ["b", "a"], ["v"]],
    ],
    f: (x) => x.map((v, i) => b3.data![i]! / Math.exp(v)),
    initializers: { b: b3 },
  },
  "Div by a constant": { nodes: [["Div", ["x", "b"], ["v"]]], f: (x) => x.map((v, i) => v / b3.data![i]!), initializers: { b: b3 } },
  Neg: { nodes: call("Neg"), f: elementwise((v) => -v) },
  Reciprocal: {
    nodes: [
      ["Exp", ["x"], ["a"]],
      ["Reciprocal", ["a"], ["v"]],
    ],
    f: elementwise((v) => Math.exp(-v)),
  },
  Pow: { nodes: [["Pow", ["x", "p"], ["v"]]], f: elementwise((v) => v ** 3), initializers: { p: one(3) }, outline: ["power(3) state"] },
  "Pow by 2": {
    nodes: [["Pow", ["x", "p"], ["v"]]],
    f: elementwise((v) => v ** 2),
    initializers: { p: one(2) },
    outline: ["square state"],
  },
  "Pow of a constant": {
    nodes: [["Pow", ["b", "x"], ["v"]]],
    f: (x) => x.map((v, i) => positive.data![i]! ** v),
    initializers: { b: positive },
  },
  "Pow of both": {
    nodes: [
      ["Exp", ["x"], ["a"]],
      ["Pow", ["a", "x"], ["v"]],
    ],
    f: elementwise((v) => Math.exp(v) ** v),
  },
  Sum: {
    nodes: [
      ["Tanh", ["x"], ["a"]],
      ["Sum", ["x", "a", "b"], ["v"]],
    ],
    f: (x) => x.map((v, i) => v + Math.tanh(v) + b3.data![i]!),
    initializers: { b: b3 },
    outline: ["tanh state", "linear diagonal state + diagonal 0"],
  },
  Min: {
    nodes: [
      ["Sin", ["x"], ["a"]],
      ["Min", ["x", "a"], ["v"]],
    ],
    f: elementwise((v) => Math.min(v, Math.sin(v))),
  },
  Max: {
    nodes: [
      ["Sin", ["x"], ["a"]],
      ["Max", ["x", "a"], ["v"]],
    ],
    f: elementwise((v) => Math.max(v, Math.sin(v))),
  },
  "Max of a constant": {
    nodes: [["Max", ["x", "b"], ["v"]]],
    f: (x) => x.map((v, i) => Math.max(v, b3.data![i]!)),
    initializers: { b: b3 },
  },
  "Max and Min by numbers": {
    nodes: [
      ["Max", ["x", "low"], ["a"]],
      ["Min", ["a", "high"], ["v"]],
    ],
    f: elementwise((v) => Math.min(Math.max(v, -0.5), 0.75)),
    initializers: { low: one(-0.5), high: one(0.75) },
    outline: ["clip(-0.5, 0.75) state"],
  },
  Log: {
    nodes: [
      ["Exp", ["x"], ["e"]],
      ["Sum", ["e", "b"], ["a"]],
      ["Log", ["a"], ["v"]],
    ],
    f: (x) => x.map((v, i) => Math.log(Math.exp(v) + positive.data![i]!)),
    initializers: { b: positive },
  },
  Sqrt: {
    nodes: [
      ["Exp", ["x"], ["a"]],
      ["Sqrt", ["a"], ["v"]],
    ],
    f: elementwise((v) => Math.exp(v / 2)),
  },
  Erf: { nodes: call("Erf"), f: elementwise(erf), outline: ["erf state"] },
  Sin: { nodes: call("Sin"), f: elementwise(Math.sin) },
  Cos: { nodes: call("Cos"), f: elementwise(Math.cos) },
  Tan: { nodes: scaledCall("Tan", 0.3), f: elementwise((v) => Math.tan(0.3 * v)) },
  Asin: { nodes: scaledCall("Asin", 0.3), f: elementwise((v) => Math.asin(0.3 * v)) },
  Acos: { nodes: scaledCall("Acos", 0.3), f: elementwise((v) => Math.acos(0.3 * v)) },
  Atan: { nodes: call("Atan"), f: elementwise(Math.atan), outline: ["atan state"] },
  Sinh: { nodes: call("Sinh"), f: elementwise(Math.sinh) },
  Cosh: { nodes: call("Cosh"), f: elementwise(Math.cosh) },
  Asinh: { nodes: call("Asinh"), f: elementwise(Math.asinh) },
  Acosh: {
    nodes: [
      ["Exp", ["x"], ["e"]],
      ["Add", ["e", "one"], ["a"]],
      ["Acosh", ["a"], ["v"]],
    ],
    f: elementwise((v) => Math.acosh(Math.exp(v) + 1)),
    initializers: { one: one(1) },
  },
  Atanh: { nodes: scaledCall("Atanh", 0.3), f: elementwise((v) => Math.atanh(0.3 * v)) },
  Floor: {
    nodes: wrapped("Floor"),
    f: elementwise((v) => v - Math.floor(v)),
    outline: ["floor state", "linear diagonal state + diagonal 0"],
  },
  Ceil: { nodes: wrapped("Ceil"), f: elementwise((v) => v - Math.ceil(v)) },
  Round: { nodes: wrapped("Round"), f: elementwise((v) => v - Math.round(v)) },
  Sign: {
    nodes: [
      ["Sign", ["x"], ["s"]],
      ["Mul", ["x", "s"], ["v"]],
    ],
    f: elementwise(Math.abs),
  },
  Mod: {
    nodes: [["Mod", ["x", "p"], ["v"], { fmod: 1 }]],
    f: elementwise((v) => v % 0.75),
    initializers: { p: one(0.75) },
  },
  "Mod by several numbers": {
    nodes: [["Mod", ["x", "b"], ["v"], { fmod: 1 }]],
    f: (x) => x.map((v, i) => v % b3.data![i]!),
    initializers: { b: b3 },
  },
  "remainder of a quotient's floor": {
    nodes: [
      ["Div", ["x", "p"], ["q"]],
      ["Floor", ["q"], ["n"]],
      ["Mul", ["n", "p"], ["m"]],
      ["Sub", ["x", "m"], ["v"]],
    ],
    f: elementwise((v) => v - -0.75 * Math.floor(v / -0.75)),
    initializers: { p: one(-0.75) },
  },
  ThresholdedRelu: {
    nodes: call("ThresholdedRelu", { alpha: { float: 0.4 } }),
    f: elementwise((v) => (v > 0.4 ? v : 0)),
  },
  "ThresholdedRelu by default": { nodes: call("ThresholdedRelu"), f: elementwise((v) => (v > 1 ? v : 0)) },
  "ThresholdedRelu at 0": {
    nodes: call("ThresholdedRelu", { alpha: { float: 0 } }),
    f: elementwise((v) => Math.max(v, 0)),
    outline: ["relu state"],
  },
  Shrink: {
    nodes: call("Shrink", { lambd: { float: 0.3 }, bias: { float: 0.1 } }),
    f: elementwise((v) => (v < -0.3 ? v + 0.1 : v > 0.3 ? v - 0.1 : 0)),
  },
  "Shrink by default": { nodes: call("Shrink"), f: elementwise((v) => (Math.abs(v) > 0.5 ? v : 0)) },
  "Shrink without a jump": {
    nodes: call("Shrink", { lambd: { float: 0.3 }, bias: { float: 0.3 } }),
    f: elementwise((v) => Math.sign(v) * Math.max(Math.abs(v) - 0.3, 0)),
    outline: ["clip(-0.3, 0.3) state", "linear diagonal state + diagonal 0"],
  },
  Swish: { nodes: call("Swish"), f: elementwise((v) => v * sigmoid(v)), opset: 24, outline: ["silu state"] },
  "Swish with a slope": {
    nodes: call("Swish", { alpha: { float: 1.5 } }),
    f: elementwise((v) => v * sigmoid(1.5 * v)),
    opset: 24,
    outline: ["linear diagonal state", "silu 0", "linear diagonal 1"],
  },
  "Swish of slope 0": { nodes: call("Swish", { alpha: { float: 0 } }), f: elementwise((v) => v / 2), opset: 24 },
  Exp: { nodes: call("Exp"), f: elementwise(Math.exp) },
  Tanh: { nodes: call("Tanh"), f: elementwise(Math.tanh) },
  Sigmoid: { nodes: call("Sigmoid"), f: elementwise(sigmoid) },
  Relu: { nodes: call("Relu"), f: elementwise((v) => Math.max(v, 0)) },
  LeakyRelu: {
    nodes: call("LeakyRelu", { alpha: { float: 0.1 } }),
    f: elementwise((v) => (v > 0 ? v : 0.1 * v)),
    outline: ["leaky_relu(0.1) state"],
  },
  "LeakyRelu by default": { nodes: call("LeakyRelu"), f: elementwise((v) => (v > 0 ? v : 0.01 * v)) },
  PRelu: {
    nodes: [["PRelu", ["x", "s"], ["v"]]],
    f: elementwise((v) => (v > 0 ? v : 0.25 * v)),
    initializers: { s: { shape: [1], data: [0.25] } },
    outline: ["leaky_relu(0.25) state"],
  },
  "PRelu with many slopes": {
    nodes: [["PRelu", ["x", "s"], ["v"]]],
    f: (x) => x.map((v, i) => (v > 0 ? v : v * b3.data![i]!)),
    initializers: { s: b3 },
  },
  Elu: { nodes: call("Elu", { alpha: { float: 0.5 } }), f: elementwise((v) => (v > 0 ? v : 0.5 * Math.expm1(v))) },
  Selu: {
    nodes: call("Selu"),
    f: elementwise((v) => 1.0507009873554805 * (v > 0 ? v : 1.6732632423543772 * Math.expm1(v))),
    outline: ["selu state"],
  },
  "Selu of its own": {
    nodes: call("Selu", { alpha: { float: 0.5 }, gamma: { float: 2 } }),
    f: elementwise((v) => 2 * (v > 0 ? v : 0.5 * Math.expm1(v))),
  },
  Celu: { nodes: call("Celu", { alpha: { float: 2 } }), f: elementwise((v) => (v > 0 ? v : 2 * Math.expm1(v / 2))) },
  Gelu: { nodes: call("Gelu"), f: elementwise((v) => (v * (1 + erf(v / Math.SQRT2))) / 2) },
  "Gelu by tanh": {
    nodes: call("Gelu", { approximate: "tanh" }),
    f: elementwise((v) => (v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)))) / 2),
  },
  HardSigmoid: { nodes: call("HardSigmoid"), f: elementwise((v) => Math.min(Math.max(0.2 * v + 0.5, 0), 1)) },
  "HardSigmoid by PyTorch": {
    nodes: call("HardSigmoid", { alpha: { float: 1 / 6 } }),
    f: elementwise((v) => Math.min(Math.max(v / 6 + 0.5, 0), 1)),
    outline: ["hardsigmoid state"],
  },
  HardSwish: { nodes: call("HardSwish"), f: elementwise((v) => (v * Math.min(Math.max(v + 3, 0), 6)) / 6) },
  Mish: { nodes: call("Mish"), f: elementwise((v) => v * Math.tanh(softplus(v))) },
  Softplus: { nodes: call("Softplus"), f: elementwise(softplus) },
  Softsign: { nodes: call("Softsign"), f: elementwise((v) => v / (1 + Math.abs(v))) },
  Clip: {
    nodes: [["Clip", ["x", "low", "high"], ["v"]]],
    f: elementwise((v) => Math.min(Math.max(v, -0.3), 0.6)),
    initializers: { low: one(-0.3), high: one(0.6) },
  },
  "Clip on one side": {
    nodes: [["Clip", ["x", "", "high"], ["v"]]],
    f: elementwise((v) => Math.min(v, 0.6)),
    initializers: { high: one(0.6) },
    outline: ["clip(-3.4028234663852886e+38, 0.6) state"],
  },
  "Clip to 6": {
    nodes: [["Clip", ["x", "low", "high"], ["v"]]],
    f: elementwise((v) => Math.min(Math.max(v, 0), 6)),
    initializers: { low: one(0), high: one(6) },
    outline: ["relu6 state"],
  },
  Identity: { nodes: call("Identity"), f: (x) => x, outline: ["linear diagonal state"] },
  Dropout: {
    nodes: [
      ["Tanh", ["x"], ["a"]],
      ["Dropout", ["a", "ratio", "training"], ["v", "mask"]],
    ],
    f: elementwise(Math.tanh),
    initializers: { ratio: one(0.5), training: { shape: [], type: 9, data: [0] } },
  },
  Cast: {
    nodes: [
      ["Cast", ["x"], ["a"], { to: 11 }],
      ["Tanh", ["a"], ["v"]],
    ],
    f: elementwise(Math.tanh),
    outline: ["tanh state"],
  },

  MatMul: { nodes: [["MatMul", ["x", "w"], ["v"]]], f: (x) => multiply(w33, x), initializers: { w: w33 }, outline: ["linear state"] },
  "MatMul from the left": {
    nodes: [
      ["Transpose", ["x"], ["a"], { perm: [1, 0] }],
      ["MatMul", ["w", "a"], ["c"]],
      ["Transpose", ["c"], ["v"]],
    ],
    f: (x) => x.map((_, row) => x.reduce((sum, v, k) => sum + v * w33.data![row * 3 + k]!, 0)),
    initializers: { w: w33 },
  },
  "MatMul of parts": {
    nodes: [
      ["Reshape", ["x", "shape"], ["a"]],
      ["MatMul", ["a", "w"], ["c"]],
      ["Flatten", ["c"], ["v"]],
    ],
    f: (x) => x.map((v) => v * 2),
    initializers: { shape: whole(-1, 3, 1), w: { shape: [1, 1], data: [2] } },
  },
  "Gemm of transposes": {
    nodes: [
      ["Transpose", ["x"], ["a"]],
      ["Gemm", ["a", "w", "b"], ["v"], { transA: 1, alpha: { float: 0.5 }, beta: { float: 2 } }],
    ],
    f: (x) => multiply(w33, x).map((v, i) => 0.5 * v + 2 * b3.data![i]!),
    initializers: { w: w33, b: b3 },
    outline: ["linear state"],
  },
  Gemm: {
    nodes: [["Gemm", ["x", "w"], ["v"], { transB: 1 }]],
    f: (x) => x.map((_, row) => x.reduce((sum, v, k) => sum + v * w33.data![row * 3 + k]!, 0)),
    initializers: { w: w33 },
  },
  "Gemm of constants": {
    nodes: [
      ["Gemm", ["w", "w"], ["c"], { transA: 1 }],
      ["MatMul", ["x", "c"], ["v"]],
    ],
    f: (x) =>
      multiply(
        {
          shape: [3, 3],
          data: Array.from({ length: 9 }, (_, i) =>
            [0, 1, 2].reduce((sum, k) => sum + w33.data![k * 3 + Math.floor(i / 3)]! * w33.data![k * 3 + (i % 3)]!, 0),
          ),
        },
        x,
      ),
    initializers: { w: w33 },
  },
  Concat: {
    nodes: [
      ["Tanh", ["x"], ["a"]],
      ["Concat", ["x", "a", "t"], ["c"], { axis: -1 }],
      ["MatMul", ["c", "w"], ["v"]],
    ],
    f: (x, t) => {
      const all = [...x, ...x.map(Math.tanh), t];
      return [0, 1, 2].map((column) => all.reduce((sum, v, k) => sum + v * wide.data![k * 3 + column]!, 0));
    },
    inputs: { x: ["batch", 3], t: ["batch", 1] },
    initializers: { w: tensor(5, [7, 3]) },
    outline: ["tanh state", "linear state + context + 0"],
  },
  Slice: {
    nodes: [
      ["Slice", ["x", "from", "to", "axes", "steps"], ["a"]],
      ["Slice", ["x", "0", "1", "axes"], ["c"]],
      ["Concat", ["a", "c"], ["v"], { axis: 1 }],
    ],
    f: ([a, b, c]) => [c!, b!, a!],
    initializers: { from: whole(-1), to: whole(0), axes: whole(-1), steps: whole(-1), 0: whole(0), 1: whole(1) },
  },
  Split: {
    nodes: [
      ["Split", ["x", "parts"], ["a", "c"], { axis: 1 }],
      ["Concat", ["c", "a"], ["v"], { axis: 1 }],
    ],
    f: ([a, b, c]) => [c!, a!, b!],
    initializers: { parts: whole(2, 1) },
  },
  "Split of a linear layer, as gated units do": {
    nodes: [
      ["MatMul", ["x", "w"], ["h"]],
      ["Split", ["h"], ["a", "c"], { axis: -1, num_outputs: 2 }],
      ["Sigmoid", ["c"], ["g"]],
      ["Mul", ["a", "g"], ["v"]],
    ],
    f: (x) => {
      const h = Array.from({ length: 6 }, (_, column) => x.reduce((sum, v, k) => sum + v * glu.data![k * 6 + column]!, 0));
      return [0, 1, 2].map((i) => h[i]! * sigmoid(h[i + 3]!));
    },
    initializers: { w: tensor(6, [3, 6]) },
    outline: ["linear state", "linear state", "sigmoid 1", "product 0 2"],
  },
  "Split by attribute (opset 11)": {
    nodes: [
      ["Split", ["x"], ["a", "c"], { axis: 1, split: [1, 2] }],
      ["Concat", ["c", "a"], ["v"], { axis: 1 }],
    ],
    f: ([a, b, c]) => [b!, c!, a!],
    opset: 11,
  },
  Gather: { nodes: [["Gather", ["x", "at"], ["v"], { axis: 1 }]], f: ([a, b, c]) => [c!, a!, b!], initializers: { at: whole(-1, 0, 1) } },
  "Gather of one column": {
    nodes: [
      ["Gather", ["x", "at"], ["a"], { axis: 1 }],
      ["Unsqueeze", ["a", "axes"], ["c"]],
      ["Mul", ["x", "c"], ["v"]],
    ],
    f: (x) => x.map((v) => v * x[1]!),
    initializers: { at: { shape: [], type: 7, data: [1] }, axes: whole(1) },
  },
  Reshape: {
    nodes: [
      ["Reshape", ["x", "up"], ["a"]],
      ["Tanh", ["a"], ["c"]],
      ["Reshape", ["c", "down"], ["v"]],
    ],
    f: elementwise(Math.tanh),
    initializers: { up: whole(0, 1, -1), down: whole(-1, 3) },
    outline: ["tanh state"],
  },
  "Reshape to a shape that the graph computes": {
    nodes: [
      ["Shape", ["x"], ["s"]],
      ["Gather", ["s", "0"], ["n"]],
      ["Unsqueeze", ["n", "axes"], ["n1"]],
      ["Concat", ["n1", "3"], ["shape"], { axis: 0 }],
      ["Reshape", ["x", "shape"], ["v"]],
    ],
    f: (x) => x,
    initializers: { 0: { shape: [], type: 7, data: [0] }, axes: whole(0), 3: whole(3) },
  },
  Squeeze: {
    nodes: [
      ["Unsqueeze", ["x", "axes"], ["a"]],
      ["Squeeze", ["a", "axes"], ["c"]],
      ["Unsqueeze", ["c", "axis"], ["d"]],
      ["Squeeze", ["d"], ["v"]],
    ],
    f: (x) => x,
    initializers: { axes: whole(0, 2), axis: whole(-1) },
  },
  "Squeeze by attribute (opset 11)": {
    nodes: [
      ["Unsqueeze", ["x"], ["a"], { axes: [1] }],
      ["Squeeze", ["a"], ["v"], { axes: [1] }],
    ],
    f: (x) => x,
    opset: 11,
  },
  Flatten: {
    nodes: [
      ["Unsqueeze", ["x", "axes"], ["a"]],
      ["Flatten", ["a"], ["v"]],
    ],
    f: (x) => x,
    initializers: { axes: whole(2) },
  },
  "Transpose of a constant": {
    nodes: [
      ["Transpose", ["w"], ["a"]],
      ["MatMul", ["x", "a"], ["v"]],
    ],
    f: (x) => x.map((_, row) => x.reduce((sum, v, k) => sum + v * w33.data![row * 3 + k]!, 0)),
    initializers: { w: w33 },
  },
  Expand: {
    nodes: [
      ["Shape", ["x"], ["shape"]],
      ["Expand", ["t", "shape"], ["a"]],
      ["Mul", ["a", "x"], ["v"]],
    ],
    f: (x, t) => x.map((v) => v * t),
    inputs: { x: ["batch", 3], t: ["batch", 1] },
  },
  "Expand as PyTorch writes it, of a time for all": {
    nodes: [
      ["Shape", ["x"], ["s"]],
      ["Gather", ["s", "0"], ["n"]],
      ["Unsqueeze", ["n", "axes"], ["n1"]],
      ["Concat", ["n1", "1"], ["target"], { axis: 0 }],
      ["ConstantOfShape", ["2"], ["ones"], { value: { tensor: whole(1) } }],
      ["Mul", ["ones", "-1"], ["minus"]],
      ["Equal", ["target", "minus"], ["same"]],
      ["Where", ["same", "ones", "target"], ["shape"]],
      ["Expand", ["t", "shape"], ["a"]],
      ["Mul", ["a", "x"], ["v"]],
    ],
    f: (x, t) => x.map((v) => v * t),
    inputs: { x: ["batch", 3], t: [] },
    initializers: {
      0: { shape: [], type: 7, data: [0] },
      axes: whole(0),
      1: whole(1),
      2: whole(2),
      "-1": { shape: [], type: 7, data: [-1] },
    },
  },
  "comparisons of the size of the batch": {
    nodes: [
      ["Shape", ["x"], ["n"], { end: 1 }],
      ["Greater", ["n", "0"], ["some"]],
      ["Less", ["n", "n"], ["fewer"]],
      ["Where", ["some", "b", "g"], ["c"]],
      ["Where", ["fewer", "g", "c"], ["d"]],
      ["Add", ["x", "d"], ["v"]],
    ],
    f: (x) => x.map((v, i) => v + b3.data![i]!),
    initializers: { 0: whole(0), b: b3, g: positive },
  },
  "Pow by exponents of more elements than the base": {
    nodes: [
      ["Slice", ["x", "0", "1", "1"], ["a"]],
      ["Pow", ["a", "p"], ["b"]],
      ["Add", ["x", "b"], ["v"]],
    ],
    f: (x) => x.map((v) => v + x[0]! ** 2),
    initializers: { 0: whole(0), 1: whole(1), p: { shape: [3], data: [2, 2, 2] } },
  },
  ConstantOfShape: {
    nodes: [
      ["Shape", ["x"], ["s"]],
      ["ConstantOfShape", ["s"], ["a"], { value: { tensor: { shape: [1], data: [2] } } }],
      ["Mul", ["x", "a"], ["v"]],
    ],
    f: (x) => x.map((v) => 2 * v),
  },
  Constant: {
    nodes: [
      ["Constant", [], ["a"], { value_floats: { floats: [1, 2, 3] } }],
      ["Constant", [], ["c"], { value_float: { float: 2 } }],
      ["Mul", ["a", "c"], ["b"]],
      ["Add", ["x", "b"], ["v"]],
    ],
    f: (x) => x.map((v, i) => v + 2 * (i + 1)),
  },
  ReduceMean: {
    nodes: [
      ["ReduceMean", ["x", "axes"], ["a"]],
      ["Sub", ["x", "a"], ["v"]],
    ],
    f: (x) => x.map((v) => v - mean(x)),
    initializers: { axes: whole(-1) },
  },
  "ReduceMean by attribute (opset 13)": {
    nodes: [
      ["ReduceMean", ["x"], ["a"], { axes: [1], keepdims: 0 }],
      ["Unsqueeze", ["a", "axes"], ["c"]],
      ["Mul", ["x", "c"], ["v"]],
    ],
    f: (x) => x.map((v) => v * mean(x)),
    initializers: { axes: whole(1) },
    opset: 13,
  },
  LayerNormalization: {
    nodes: [["LayerNormalization", ["x", "g", "b"], ["v"], { epsilon: { float: 0.25 } }]],
    f: (x) => norm(x, mean(x), 0.25).map((v, i) => v * positive.data![i]! + b3.data![i]!),
    initializers: { g: positive, b: b3 },
    outline: ["layer norm state", "linear diagonal 0"],
  },
  RMSNormalization: {
    nodes: [["RMSNormalization", ["x", "g"], ["v"]]],
    f: (x) => norm(x, 0).map((v, i) => v * positive.data![i]!),
    initializers: { g: positive },
    opset: 23,
  },
  BatchNormalization: {
    nodes: [
      ["MatMul", ["x", "w"], ["h"]],
      ["BatchNormalization", ["h", "g", "b", "m", "g"], ["v"]],
    ],
    f: (x) =>
      multiply(w33, x).map((v, i) => ((v - b3.data![2 - i]!) / Math.sqrt(positive.data![i]! + 1e-5)) * positive.data![i]! + b3.data![i]!),
    initializers: { w: w33, g: positive, b: b3, m: { shape: [3], type: 11, data: numbers(b3).toReversed() } },
    outline: ["linear state"],
  },
  "a written-out LayerNorm": {
    nodes: [
      ["ReduceMean", ["x", "axes"], ["m"]],
      ["Sub", ["x", "m"], ["d"]],
      ["Pow", ["d", "2"], ["s"]],
      ["ReduceMean", ["s", "axes"], ["var"]],
      ["Add", ["var", "eps"], ["e"]],
      ["Sqrt", ["e"], ["r"]],
      ["Div", ["d", "r"], ["v"]],
    ],
    f: (x) => norm(x, mean(x), 0.5),
    initializers: { axes: whole(-1), 2: one(2), eps: one(0.5) },
    outline: ["layer norm state"],
  },
  "a written-out RMSNorm": {
    nodes: [
      ["Mul", ["x", "x"], ["s"]],
      ["ReduceMean", ["s", "axes"], ["var"]],
      ["Add", ["var", "eps"], ["e"]],
      ["Sqrt", ["e"], ["q"]],
      ["Reciprocal", ["q"], ["r"]],
      ["Mul", ["r", "x"], ["v"]],
    ],
    f: (x) => norm(x, 0, 0.5),
    initializers: { axes: whole(-1), eps: one(0.5) },
    outline: ["rms norm state"],
  },
  "a sigmoid of another speed": {
    nodes: [
      ["Mul", ["x", "c"], ["a"]],
      ["Sigmoid", ["a"], ["s"]],
      ["Mul", ["x", "s"], ["v"]],
    ],
    f: elementwise((v) => v * sigmoid(1.702 * v)),
    initializers: { c: one(1.702) },
    outline: ["linear diagonal state", "silu 0", "linear diagonal 1"],
  },
  "a written-out gelu": {
    nodes: [
      ["Mul", ["x", "half"], ["h"]],
      ["Mul", ["x", "root"], ["a"]],
      ["Erf", ["a"], ["e"]],
      ["Add", ["e", "one"], ["g"]],
      ["Mul", ["h", "g"], ["v"]],
    ],
    f: elementwise((v) => (v * (1 + erf(v / Math.SQRT2))) / 2),
    initializers: { half: one(0.5), root: { shape: [], data: [Math.SQRT1_2] }, one: one(1) },
    outline: ["gelu state"],
  },
  "a written-out gelu by tanh": {
    nodes: [
      ["Pow", ["x", "3"], ["p"]],
      ["Mul", ["p", "k"], ["q"]],
      ["Add", ["x", "q"], ["r"]],
      ["Mul", ["r", "slope"], ["u"]],
      ["Tanh", ["u"], ["e"]],
      ["Add", ["e", "1"], ["g"]],
      ["Mul", ["x", "g"], ["w"]],
      ["Mul", ["w", "half"], ["v"]],
    ],
    f: elementwise((v) => (v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)))) / 2),
    initializers: { 3: one(3), k: one(0.044715), slope: one(Math.sqrt(2 / Math.PI)), 1: one(1), half: one(0.5) },
    outline: ["gelu_tanh state"],
  },
  "a written-out hardswish": {
    nodes: [
      ["Add", ["x", "3"], ["a"]],
      ["Clip", ["a", "0", "6"], ["c"]],
      ["Mul", ["x", "c"], ["w"]],
      ["Div", ["w", "6"], ["v"]],
    ],
    f: elementwise((v) => (v * Math.min(Math.max(v + 3, 0), 6)) / 6),
    initializers: { 3: one(3), 0: one(0), 6: one(6) },
    outline: ["hardswish state"],
  },
  "a written-out softplus of another beta": {
    nodes: [
      ["Mul", ["x", "2"], ["a"]],
      ["Softplus", ["a"], ["s"]],
      ["Div", ["s", "2"], ["h"]],
      ["Greater", ["a", "20"], ["c"]],
      ["Where", ["c", "x", "h"], ["v"]],
    ],
    f: elementwise((v) => softplus(2 * v) / 2),
    initializers: { 2: one(2), 20: one(20) },
    outline: ["softplus(2) state"],
  },
  "a written-out leaky_relu": {
    nodes: [
      ["Mul", ["x", "s"], ["a"]],
      ["Less", ["x", "0"], ["c"]],
      ["Where", ["c", "a", "x"], ["v"]],
    ],
    f: elementwise((v) => (v > 0 ? v : 0.125 * v)),
    initializers: { s: one(0.125), 0: one(0) },
    outline: ["leaky_relu(0.125) state"],
  },
  "a comparison that an Identity passes on": {
    nodes: [
      ["Mul", ["x", "s"], ["a"]],
      ["Greater", ["x", "0"], ["c"]],
      ["Identity", ["c"], ["d"]],
      ["Where", ["d", "x", "a"], ["v"]],
    ],
    f: elementwise((v) => (v > 0 ? v : 0.125 * v)),
    initializers: { s: one(0.125), 0: one(0) },
    outline: ["leaky_relu(0.125) state"],
  },
  "a written-out elu": {
    nodes: [
      ["Exp", ["x"], ["e"]],
      ["Sub", ["e", "1"], ["a"]],
      ["Greater", ["x", "0"], ["c"]],
      ["Where", ["c", "x", "a"], ["v"]],
    ],
    f: elementwise((v) => (v > 0 ? v : Math.expm1(v))),
    initializers: { 1: one(1), 0: one(0) },
    outline: ["elu state"],
  },
  "Where by a constant": {
    nodes: [
      ["Tanh", ["x"], ["a"]],
      ["Where", ["mask", "x", "a"], ["v"]],
    ],
    f: ([a, b, c]) => [a!, Math.tanh(b!), c!],
    initializers: { mask: { shape: [3], type: 9, data: [1, 0, 1] } },
  },
  "a batch that the file fixes": {
    nodes: [
      ["Reshape", ["x", "shape"], ["a"]],
      ["Add", ["a", "t"], ["c"]],
      ["Add", ["c", "rows"], ["v"]],
    ],
    f: (x, t) => x.map((v, i) => v + t + i),
    inputs: { x: [2, 3], t: [2, 1] },
    initializers: { shape: whole(2, 3), rows: { shape: [2, 3], data: [0, 1, 2, 0, 1, 2] } },
  },
  "one point without a batch": {
    nodes: [
      ["MatMul", ["x", "w"], ["a"]],
      ["Add", ["a", "t"], ["v"]],
    ],
    f: (x, t) => multiply(w33, x).map((v) => v + t),
    inputs: { x: [3], t: [1] },
    initializers: { w: w33 },
    outline: ["linear state + context"],
  },
  "times in a row": {
    nodes: [
      ["Unsqueeze", ["t", "axes"], ["a"]],
      ["Mul", ["x", "a"], ["v"]],
    ],
    f: (x, t) => x.map((v) => v * t),
    inputs: { t: ["batch"], x: ["batch", 3] },
    initializers: { axes: whole(-1) },
  },
  "state and context joined": {
    nodes: [
      ["Gather", ["joined", "at"], ["a"], { axis: 1 }],
      ["Slice", ["joined", "0", "3", "axes"], ["b"]],
      ["Mul", ["a", "b"], ["v"]],
    ],
    f: (x, t) => x.map((v) => v * t),
    inputs: { joined: ["batch", 4] },
    initializers: { at: whole(3), 0: whole(0), 3: whole(3), axes: whole(1) },
  },
  "the context's columns first": {
    nodes: [
      ["Slice", ["joined", "0", "1", "axes"], ["a"]],
      ["Slice", ["joined", "1", "4", "axes"], ["b"]],
      ["Add", ["a", "b"], ["v"]],
    ],
    f: (x, t) => x.map((v) => v + t),
    inputs: { joined: ["batch", 4] },
    initializers: { 0: whole(0), 1: whole(1), 4: whole(4), axes: whole(1) },
    options: { contextColumns: "first" },
    outline: ["linear diagonal state + context"],
  },
  "inputs by the names that the caller gives": {
    nodes: [["Mul", ["t", "x"], ["v"]]],
    f: (x, t) => x.map((v) => v * t),
    inputs: { x: ["batch", 1], t: ["batch", 3] },
    options: { state: "t", context: "x" },
  },
  "sums of sums": {
    nodes: [
      ["Tanh", ["x"], ["a"]],
      ["Sin", ["x"], ["s"]],
      ["Add", ["a", "s"], ["c"]],
      ["Add", ["c", "x"], ["d"]],
      ["MatMul", ["x", "w"], ["e"]],
      ["Add", ["d", "e"], ["v"]],
    ],
    f: (x) => multiply(w33, x).map((v, i) => v + x[i]! + Math.tanh(x[i]!) + Math.sin(x[i]!)),
    initializers: { w: w33 },
    outline: ["tanh state", "sin state", "linear state + diagonal 0 + diagonal 1"],
  },
  "a constant velocity": {
    nodes: [
      ["Identity", ["b"], ["a"]],
      ["Sub", ["x", "x"], ["z"]],
      ["Add", ["a", "z"], ["v"]],
    ],
    f: () => numbers(b3),
    initializers: { b: b3 },
  },
};
const wide = tensor(5, [7, 3]);
const glu = tensor(6, [3, 6]);

function fileOf({ nodes, initializers = {}, opset = 20, inputs = { x: ["batch", 3] }, functions = [] }: Case): Uint8Array {
  return onnxFile({ nodes, initializers, opset, inputs, functions, outputs: ["v"] });
}

describe("operations", () => {
  it.each(Object.entries(cases))("%s agrees with the same in JavaScript, and its derivatives with differences", (_, given) => {
    const network = parseOnnx(fileOf(given), given.options);
    const uniform = random(7);
    const hasContext = network.contextSize > 0;
    expect(network).toMatchObject({ stateSize: 3, contextSize: hasContext ? 1 : 0 });
    for (let trial = 0; trial < 8; trial++) {
      const x = [0, 1, 2].map(() => normal(uniform));
      const t = normal(uniform);
      const { value, diagonal } = float64Run(network, x, hasContext ? [t] : null);
      const exact = given.f(x, t);
      expectClose(
        value,
        exact,
        exact.map((v) => 1 + Math.abs(v)),
        { relative: 3e-7, absolute: 0, label: "value" },
      );
      const h = 1e-5;
      const differences = x.map((_, i) => {
        const at = (sign: number): number => given.f(x.with(i, x[i]! + sign * h), t)[i]!;
        return (at(1) - at(-1)) / (2 * h);
      });
      expectClose(
        diagonal,
        differences,
        differences.map((v) => 1 + Math.abs(v)),
        { relative: 1e-6, absolute: 0, label: "diagonal" },
      );
    }
    if (given.outline) expect(outline(network)).toEqual(given.outline);
  });

  it.each([
    ["FLOAT", 1, [1.5, -2, 0.25]],
    ["DOUBLE", 11, [1.5, -2, Math.PI]],
    ["FLOAT16", 10, [0x3e00, 0xc000, 0x3400]],
    ["BFLOAT16", 16, [0x3fc0, 0xc000, 0x3e80]],
  ])("reads %s from raw_data and from its typed field", (_, type, data) => {
    const expected = type === 11 ? [1.5, -2, Math.PI] : [1.5, -2, 0.25];
    for (const stored of ["raw", "typed"] as const) {
      const network = parseOnnx(
        onnxFile({
          nodes: [["Add", ["x", "b"], ["v"]]],
          inputs: { x: ["n", 3] },
          outputs: ["v"],
          initializers: { b: { shape: [3], type, data, stored } },
        }),
      );
      const [operation] = network.operations;
      expect(operation?.kind === "linear" && operation.bias && [...operation.bias]).toEqual(expected);
      expect(operation?.kind === "linear" && operation.bias).toBeInstanceOf(type === 11 ? Float64Array : Float32Array);
    }
  });

  it.each([0x13c00, -1])("refuses %d as the 16 bits of a number", (stored) => {
    const b = { shape: [1], type: 10, data: [stored], stored: "typed" as const };
    const file = onnxFile({ nodes: [["Add", ["x", "b"], ["v"]]], inputs: { x: ["n", 1] }, outputs: ["v"], initializers: { b } });
    expect(() => parseOnnx(file)).toThrow(`a tensor of the type FLOAT16 holds ${stored}; expected its 16 bits`);
  });

  it("keeps the weights of a plain layer as they are", () => {
    const weight = { shape: [3, 3], data: numbers(w33) };
    const network = parseOnnx(
      onnxFile({
        nodes: [["Gemm", ["x", "w", "b"], ["v"], { transB: 1 }]],
        inputs: { x: ["n", 3] },
        outputs: ["v"],
        initializers: { w: weight, b: { shape: [3], data: [1, 2, 3] } },
      }),
    );
    expect(network.operations).toEqual([
      {
        kind: "linear",
        terms: [{ operand: "state", weight: { rows: 3, columns: 3, data: Float32Array.from(numbers(w33)) } }],
        bias: Float32Array.of(1, 2, 3),
      },
    ]);
    expect(widthOf(network, 0)).toBe(3);
  });

  it("leaves nodes alone that the output does not need", () => {
    const file = onnxFile({
      nodes: [
        ["Conv", ["x"], ["unused"]],
        ["Tanh", ["x"], ["v"]],
      ],
      inputs: { x: ["n", 3] },
      outputs: ["v", "unused"],
    });
    expect(outline(parseOnnx(file, { output: "v" }))).toEqual(["tanh state"]);
  });
});

it.each(["ReduceL2", "ReduceLogSumExp", "ReduceMax"])("%s takes a million constants", (type) => {
  const file = onnxFile({
    inputs: { x: ["batch", 1] },
    nodes: [
      ["ConstantOfShape", ["s"], ["ones"], { value: { tensor: { shape: [1], data: [1] } } }],
      [type, ["ones"], ["r"], { keepdims: 0 }],
      ["Mul", ["x", "r"], ["v"]],
    ],
    outputs: ["v"],
    initializers: { s: whole(1e6) },
  });
  const expected = { ReduceL2: 1000, ReduceLogSumExp: 1 + Math.log(1e6), ReduceMax: 1 }[type]!;
  expect(float64Run(parseOnnx(file), [1], null).value[0]).toBeCloseTo(expected, 5);
});

it("Squeeze of no axes takes all of size 1, as without them", () => {
  for (const [axes, given] of [
    [["axes"], {}],
    [[], { axes: [] }],
  ] as [string[], Record<string, number[]>][]) {
    const file = onnxFile({
      inputs: { x: ["batch", 3] },
      nodes: [
        ["Unsqueeze", ["x", "middle"], ["wide"]],
        ["Squeeze", ["wide", ...axes], ["a"], given],
        ["Softmax", ["a"], ["v"], { axis: 1 }],
      ],
      outputs: ["v"],
      initializers: { axes: { shape: [0], type: 7, data: [] }, middle: whole(1) },
      opset: 13,
    });
    const value = float64Run(parseOnnx(file), [1, 1, 1], null).value;
    expectClose(
      value,
      value.map(() => 1 / 3),
      value.map(() => 1),
      { relative: 1e-12, absolute: 0 },
    );
  }
});

describe("what jumps", () => {
  const read = (file: Omit<OnnxFile, "outputs" | "inputs"> & { inputs?: OnnxFile["inputs"] }): Network =>
    parseOnnx(onnxFile({ inputs: { x: ["batch", 2] }, outputs: ["v"], ...file }));
  const table = { shape: [3, 2], type: 11, data: [1, 2, 30, 40, 500, 600] };

  it("takes the branch of each point, on its edge too", () => {
    const branches = (type: string): Network =>
      read({
        nodes: [
          [type, ["x", "one"], ["c"]],
          ["Sin", ["x"], ["s"]],
          ["Where", ["c", "x", "s"], ["v"]],
        ],
        initializers: { one: one(1) },
      });
    const edge = { Greater: false, GreaterOrEqual: true, Less: false, LessOrEqual: true, Equal: true };
    for (const [type, isTrue] of Object.entries(edge)) {
      const { value, diagonal } = float64Run(branches(type), [1, type.startsWith("Less") ? 0.5 : 2], null);
      expect(Array.from(value), type).toEqual([
        isTrue ? 1 : Math.sin(1),
        type === "Equal" ? Math.sin(2) : type.startsWith("Less") ? 0.5 : 2,
      ]);
      expect(diagonal[0], type).toBe(isTrue ? 1 : Math.cos(1));
    }
  });

  it.each([
    ["GreaterOrEqual", ["c", "x", "s"], 1],
    ["Less", ["c", "s", "x"], 1],
    ["Greater", ["c", "x", "s"], Math.log1p(Math.E)],
    ["LessOrEqual", ["c", "s", "x"], Math.log1p(Math.E)],
  ])("a softplus that is cut by %s has the file's value on its threshold", (type, inputs, expected) => {
    const network = read({
      nodes: [
        ["Softplus", ["x"], ["s"]],
        [type, ["x", "one"], ["c"]],
        ["Where", inputs, ["v"]],
      ],
      initializers: { one: one(1) },
    });
    expectClose(float64Run(network, [1, 1], null).value, [expected, expected], [1, 1], { relative: 1e-12, absolute: 0 });
  });

  it("joins truth values", () => {
    const network = read({
      nodes: [
        ["Greater", ["x", "zero"], ["p"]],
        ["Less", ["x", "two"], ["q"]],
        ["And", ["p", "q"], ["both"]],
        ["Or", ["p", "q"], ["either"]],
        ["Xor", ["p", "q"], ["one"]],
        ["Not", ["both"], ["none"]],
        ...["both", "either", "one", "none"].map((name): OnnxCall => ["Cast", [name], [`${name}_`], { to: 1 }]),
        ["Mul", ["either_", "ten"], ["e"]],
        ["Mul", ["one_", "hundred"], ["o"]],
        ["Mul", ["none_", "thousand"], ["n"]],
        ["Sum", ["both_", "e", "o", "n", "x"], ["v"]],
      ],
      initializers: { zero: one(0), two: one(2), ten: one(10), hundred: one(100), thousand: one(1000) },
    });
    expect(Array.from(float64Run(network, [1, 3], null).value)).toEqual([1 + 10 + 1, 10 + 100 + 1000 + 3]);
  });

  it("looks rows of a table up by a whole number of the context, and gives no number beyond them", () => {
    const network = read({
      nodes: [
        ["Gather", ["table", "k"], ["row"]],
        ["Add", ["x", "row"], ["v"]],
      ],
      inputs: { x: ["batch", 2], k: ["batch"] },
      types: { k: 7 },
      initializers: { table },
    });
    for (const k of [0, 1, 2]) expect(Array.from(float64Run(network, [0, 0], [k]).value)).toEqual(table.data.slice(2 * k, 2 * k + 2));
    for (const k of [-1, -3]) expect(Array.from(float64Run(network, [0, 0], [k]).value)).toEqual(table.data.slice(2 * k + 6, 2 * k + 8));
    for (const k of [-4, 3, 0.5, NaN]) expect(float64Run(network, [0, 0], [k]).value.some(Number.isFinite)).toBe(false);
  });

  it("makes a place out of a number, also one that was cut from a float", () => {
    const network = read({
      nodes: [
        ["Cast", ["t"], ["k"], { to: 7 }],
        ["OneHot", ["k", "depth", "values"], ["hot"]],
        ["MatMul", ["hot", "table"], ["row"]],
        ["Squeeze", ["row", "axes"], ["flat"]],
        ["Add", ["x", "flat"], ["v"]],
      ],
      inputs: { x: ["batch", 2], t: ["batch", 1] },
      initializers: { table, depth: { shape: [], type: 7, data: [3] }, values: { shape: [2], data: [0, 1] }, axes: whole(1) },
    });
    for (const [t, k] of [
      [0.7, 0],
      [1, 1],
      [2.9, 2],
      [-1, 2],
      [-3, 0],
    ] as const)
      expect(Array.from(float64Run(network, [0, 0], [t]).value)).toEqual(table.data.slice(2 * k, 2 * k + 2));
    expect(Array.from(float64Run(network, [0, 0], [3]).value)).toEqual([0, 0]);
  });

  it("keeps the smaller of two numbers that are far apart, and what a slope of 1e20 leaves alone", () => {
    const two = (type: string, ...c: number[]): Network =>
      read({ nodes: [[type, ["x", "c"], ["v"]]], initializers: { c: { shape: [2], data: c } } });
    expect(Array.from(float64Run(two("Min", 3.4e38, 1), [1, 2], null).value)).toEqual([1, 1]);
    expect(Array.from(float64Run(two("Max", -1e20, 1), [1e-3, 2], null).value)).toEqual([1e-3, 2]);
    expect(float64Run(two("Max", -1e20, 1), [1e-3, 2], null).diagonal).toEqual(Float64Array.of(1, 1));
    expect(Array.from(float64Run(two("PRelu", 1e20, 0.5), [1, -2], null).value)).toEqual([1, -1]);
    expect(Array.from(float64Run(two("PRelu", 1e20, 0.5), [1, 0], null).diagonal)).toEqual([1, 0.5]);
  });

  it("does not take a falling softplus for a rising one", () => {
    // z above 0, and below it log sigmoid z.
    const network = read({
      nodes: [
        ["Neg", ["x"], ["m"]],
        ["Softplus", ["m"], ["s"]],
        ["Neg", ["s"], ["b"]],
        ["Greater", ["x", "zero"], ["c"]],
        ["Where", ["c", "x", "b"], ["v"]],
      ],
      initializers: { zero: one(0) },
    });
    expectClose(float64Run(network, [2, -3], null).value, [2, -Math.log1p(Math.exp(3))], [1, 1], { relative: 1e-12, absolute: 0 });
  });

  const cutting = (...nodes: OnnxCall[]): OnnxCall[] => [...nodes, ["Cast", ["i"], ["e"], { to: 1 }], ["Mul", ["x", "e"], ["v"]]];
  it.each<[string, OnnxCall[], Record<string, OnnxTensor>, string]>([
    [
      "computed floats that are cut",
      cutting(["Mul", ["p", "q"], ["d"]], ["Cast", ["d"], ["i"], { to: 7 }]),
      { p: { shape: [1], data: [0.7] }, q: { shape: [1], data: [10] } },
      "it cuts or compares numbers that depend on how FLOAT rounds",
    ],
    [
      "computed floats that are compared",
      cutting(["Mul", ["p", "q"], ["d"]], ["Equal", ["d", "r"], ["i"]]),
      { p: { shape: [1], data: [0.7] }, q: { shape: [1], data: [10] }, r: { shape: [1], data: [7] } },
      "it cuts or compares numbers that depend on how FLOAT rounds",
    ],
    [
      "computed floats that are cut to a step, also joined and cast before",
      cutting(
        ["Mul", ["p", "q"], ["d"]],
        ["Concat", ["d", "d"], ["j"], { axis: 0 }],
        ["Cast", ["j"], ["k"], { to: 11 }],
        ["Floor", ["k"], ["i"]],
      ),
      { p: { shape: [1], data: [0.7] }, q: { shape: [1], data: [10] } },
      "it cuts or compares numbers that depend on how DOUBLE rounds",
    ],
    [
      "whole numbers past 2^53 that are computed with",
      cutting(["Sub", ["p", "q"], ["i"]]),
      { p: { shape: [1], type: 7, raw: bits(2n ** 53n + 1n) }, q: { shape: [1], type: 7, raw: bits(2n ** 53n) } },
      "it computes with 9007199254740992 (INT64); expected whole numbers up to 2^53",
    ],
    [
      "whole numbers past 2^53 that are compared",
      cutting(["Equal", ["p", "q"], ["i"]]),
      { p: { shape: [1], type: 7, raw: bits(2n ** 53n + 1n) }, q: { shape: [1], type: 7, raw: bits(2n ** 53n) } },
      "it compares 9007199254740992 with 9007199254740992 (INT64)",
    ],
  ])("refuses %s", (_, nodes, initializers, message) => {
    expect(() => read({ nodes, initializers })).toThrow(message);
  });
});

describe("which input is the state", () => {
  const read = (inputs: Record<string, (string | number)[]>, options?: OnnxOptions): string =>
    (parseOnnx(onnxFile({ inputs, nodes: [["Mul", Object.keys(inputs), ["v"]]], outputs: ["v"] }), options).notes ?? []).join("; ");
  const two = (a: string, b: string): Record<string, (string | number)[]> => ({ [a]: ["batch", 1], [b]: ["batch", 1] });

  it.for([
    ["t", "x"],
    ["x", "sigma"],
    ["serving_default_t:0", "serving_default_x:0"],
    ["onnx::cond", "theta"],
    ["noise_level", "z_t"],
    ["X", "T"],
    ["y", "observation"],
    ["x.1", "t.1"],
  ])("names tell %s from %s", ([a, b]) => {
    const state = ["x", "theta", "z_t", "X", "y", "x.1", "serving_default_x:0"].find((name) => name === a || name === b);
    expect(read(two(a!, b!))).toContain(`the state is the input "${state}" [batch, 1], by its name; the context is`);
  });

  it.for([
    ["theta", "x"],
    ["in_0", "in_1"],
    ["args_0", "args_1"],
    ["x", "other"],
    ["t", "s"],
  ])("%s and %s are both listed, and the option that says it", ([a, b]) => {
    expect(() => read(two(a!, b!))).toThrow(
      `onnx: the inputs "${a}" [batch, 1], "${b}" [batch, 1] are of the output's size, and their names do not say which one is the state; expected its name in options.state`,
    );
    expect(read(two(a!, b!), { state: b })).toContain(
      `the state is the input "${b}" [batch, 1], as options.state says; the context is "${a}"`,
    );
  });

  it("the only one of the output's size is the state, whatever its name and place", () => {
    const notes = read({ x: ["batch", 1], t: ["batch", 3] });
    expect(notes).toContain('the state is the input "t" [batch, 3], the only input of the output\'s size; the context is "x" [batch, 1]');
    expect(notes).toContain("the divergence is Σ_i ∂v_i/∂t_i;");
  });

  it("of several outputs the one of the state's size is the field, or the one that is named", () => {
    const file = (energy: number): Uint8Array =>
      onnxFile({
        inputs: { x: ["batch", 3] },
        nodes: [
          ["Tanh", ["x"], ["v"]],
          ["Slice", ["x", "0", String(energy), "axes"], ["e"]],
        ],
        initializers: { 0: whole(0), [energy]: whole(energy), axes: whole(1) },
        outputs: { e: ["batch", energy], v: ["batch", 3] },
      });
    expect(parseOnnx(file(1)).notes?.join()).toContain("∂v_i/∂x_i");
    expect(() => parseOnnx(file(3))).toThrow(
      'the file has 2 outputs, "e" [batch, 3], "v" [batch, 3]; expected one of the state\'s size, or its name in options.output',
    );
    expect(parseOnnx(file(3), { output: "e" }).notes?.join()).toContain("∂e_i/∂x_i");
  });
});

describe("weights in another file", () => {
  const file = (external: NonNullable<OnnxTensor["external"]>): Uint8Array =>
    onnxFile({
      inputs: { x: ["batch", 2] },
      nodes: [["Mul", ["x", "w"], ["v"]]],
      outputs: ["v"],
      initializers: { w: { shape: [2], external } },
    });
  const bytes = new Uint8Array(Float32Array.of(7, 2, 3).buffer);
  const externalData = new Map([["w.bin", bytes]]);

  it("are read where the file says", () => {
    const network = parseOnnx(file({ location: "w.bin", offset: "4", length: "8" }), { externalData });
    expect(float64Run(network, [1, 1], null).value).toEqual(Float64Array.of(2, 3));
    expect(float64Run(parseOnnx(file({ location: "w.bin", offset: "4" }), { externalData }), [1, 1], null).value).toEqual(
      Float64Array.of(2, 3),
    );
  });

  it.each([
    [{ location: "w.bin" }, "holds 3 numbers; expected 2"],
    [{ location: "w.bin", offset: "8" }, "holds 1 numbers; expected 2"],
    [{ location: "w.bin", offset: "8", length: "8" }, 'has its data at 8 to 16 of the 12 bytes of "w.bin"'],
    [{ location: "w.bin", offset: "-4", length: "8" }, "has its data at NaN"],
    [{ location: "w.bin", offset: "1e1", length: "8" }, "has its data at NaN"],
    [{ location: "other.bin" }, 'has its data in the file "other.bin"; expected its bytes in options.externalData'],
    [{}, "says that its data is elsewhere, and not where"],
  ])("%j is refused", (external, message) => {
    expect(() => parseOnnx(file(external), { externalData })).toThrow(message);
  });
});

describe("functions of the file's own", () => {
  const recursive = (body: number, depth: number): Uint8Array =>
    onnxFile({
      inputs: { x: ["batch", 2] },
      nodes: [["F0", ["x"], ["v"], {}, "own"]],
      outputs: ["v"],
      functions: Array.from({ length: depth }, (_, i) => ({
        name: `F${i}`,
        domain: "own",
        inputs: ["a"],
        outputs: [`y${body - 1}`],
        nodes: Array.from({ length: body }, (_, k): OnnxCall => [
          `F${(i + 1) % depth}`,
          [k === 0 ? "a" : `y${k - 1}`],
          [`y${k}`],
          {},
          "own",
        ]),
      })),
    });

  it("that call themselves, or one another to no end, are refused soon", () => {
    expect(() => parseOnnx(recursive(1, 1))).toThrow("calls functions more than 32 deep");
    const wide = Array.from({ length: 3e4 }, (_, k): OnnxCall => ["Tanh", [k === 0 ? "a" : `y${k - 1}`], [`y${k}`]]);
    const own = { name: "F", domain: "own", inputs: ["a"], outputs: ["y29999"], nodes: wide };
    const file = onnxFile({ inputs: { x: ["batch", 2] }, nodes: [["F", ["x"], ["v"], {}, "own"]], outputs: ["v"], functions: [own] });
    const start = process.cpuUsage();
    expect(() => parseOnnx(recursive(10, 30))).toThrow(/more than/);
    expect(() => parseOnnx(recursive(2, 20))).toThrow(/more than/);
    expect(() => parseOnnx(file)).toThrow("stand for more than 16384 nodes");
    expect(cpuMilliseconds(start)).toBeLessThan(1000);
  });

  it("cannot be named twice, nor give what none of their nodes gives", () => {
    const own = { name: "F", domain: "own", inputs: ["a"], outputs: ["y"], nodes: [["Tanh", ["a"], ["y"]]] satisfies OnnxCall[] };
    const file = (...functions: NonNullable<OnnxFile["functions"]>): Uint8Array =>
      onnxFile({ inputs: { x: ["batch", 2] }, nodes: [["F", ["x"], ["v"], {}, "own"]], outputs: ["v"], functions });
    expect(() => parseOnnx(file(own, own))).toThrow("two functions");
    expect(() => parseOnnx(file({ ...own, nodes: [["Tanh", ["a"], ["z"]]] }))).toThrow('no node of the function gives "y"');
    expect(() => parseOnnx(file({ ...own, outputs: ["a"] }))).toThrow('the function gives its input "a"');
    expect(() => parseOnnx(file({ ...own, inputs: [] }))).toThrow("has 1 inputs and 1 outputs; expected at most 0 and 1");
  });
});

describe("refusals", () => {
  const batched = { x: ["batch", 3], t: ["batch", 1] };
  it.each<[string, Partial<OnnxFile> & { nodes: readonly OnnxCall[] }, string, OnnxOptions?]>([
    [
      "a convolution",
      { nodes: [["Conv", ["x", "w"], ["v"]]], initializers: { w: w33 } },
      'onnx: Conv "n0": this is a convolution; expected',
    ],
    ["attention", { nodes: [["Attention", ["x", "x", "x"], ["v"]]], opset: 23 }, 'Attention "n0": this is attention'],
    [
      "a product of two features",
      {
        nodes: [
          ["Transpose", ["x"], ["a"]],
          ["MatMul", ["x", "a"], ["v"]],
        ],
      },
      'MatMul "n1": its inputs have the batch on different axes, which couples the points of a batch',
    ],
    [
      "attention over many particles",
      {
        nodes: [
          ["MatMul", ["x", "w"], ["flat"]],
          ["Reshape", ["flat", "shape"], ["q"]],
          ["Transpose", ["q"], ["k"], { perm: [0, 2, 1] }],
          ["MatMul", ["q", "k"], ["scores"]],
          ["ReduceSum", ["scores", "axes"], ["sum"], { keepdims: 0 }],
          ["Mul", ["x", "sum"], ["v"]],
        ],
        initializers: {
          w: { shape: [3, 4096], data: Array(3 * 4096).fill(0.1) },
          shape: { shape: [3], type: 7, data: [-1, 64, 64] },
          axes: { shape: [2], type: 7, data: [1, 2] },
        },
      },
      'MatMul "n3": it sums 262144 products of two tensors that both depend on the inputs; it could be read, but the field is too general',
    ],
    ["a softmax over the batch", { nodes: [["Softmax", ["x"], ["v"], { axis: 0 }]] }, 'Softmax "n0": it divides by a sum along the batch'],
    [
      "control flow",
      { nodes: [["If", ["x"], ["v"], { then_branch: { graph: true } }]] },
      'If "n0": this is control flow, which may depend on the data',
    ],
    ["an unknown operation", { nodes: [["Frobnicate", ["x"], ["v"]]] }, 'Frobnicate "n0": this operation is not known'],
    ["a name from Object", { nodes: [["constructor", ["x"], ["v"]]] }, 'constructor "n0": this operation is not known'],
    [
      "another domain",
      { nodes: [["Gelu", ["x"], ["v"], {}, "com.microsoft"]] },
      'com.microsoft.Gelu "n0": it is of the domain "com.microsoft"',
    ],
    [
      "a mean over the batch",
      {
        nodes: [
          ["ReduceMean", ["x"], ["a"], { axes: [0] }],
          ["Sub", ["x", "a"], ["v"]],
        ],
        opset: 13,
      },
      'ReduceMean "n0": it takes the mean along the batch, which couples its points',
    ],
    [
      "a mean over everything",
      {
        nodes: [
          ["ReduceMean", ["x"], ["a"]],
          ["Sub", ["x", "a"], ["v"]],
        ],
      },
      "takes the mean along the batch",
    ],
    [
      "a slice of the batch",
      {
        nodes: [
          ["Slice", ["x", "0", "1"], ["a"]],
          ["Add", ["x", "a"], ["v"]],
        ],
        initializers: { 0: whole(0), 1: whole(1) },
      },
      'Slice "n0": it takes a part along the batch',
    ],
    [
      "one point for all",
      {
        nodes: [
          ["Gather", ["x", "0"], ["a"]],
          ["Add", ["x", "a"], ["v"]],
        ],
        initializers: { 0: whole(0) },
      },
      'Gather "n0": it gathers along the batch',
    ],
    ["points joined", { nodes: [["Concat", ["x", "x"], ["v"], { axis: 0 }]] }, 'Concat "n0": it joins along the batch'],
    [
      "a sum over the batch",
      {
        nodes: [
          ["Transpose", ["x"], ["a"]],
          ["MatMul", ["a", "w"], ["v"]],
        ],
        initializers: { w: w33 },
      },
      'MatMul "n1"',
    ],
    [
      "a batch on two axes",
      {
        nodes: [
          ["Transpose", ["x"], ["a"]],
          ["Add", ["x", "a"], ["v"]],
        ],
      },
      'Add "n1": its inputs have the batch on different axes',
    ],
    [
      "a reshape across points",
      { nodes: [["Reshape", ["x", "s"], ["v"]]], initializers: { s: whole(3, -1) } },
      'Reshape "n0": it makes [batch, 3] into [3, -1], which moves elements from one point',
    ],
    [
      "a reshape of two open sizes",
      { nodes: [["Reshape", ["x", "s"], ["v"]]], initializers: { s: whole(-1, -1) } },
      'Reshape "n0": its shape is [-1, -1]; expected at most one -1',
    ],
    [
      "a point turned into a column, by all axes of one element dropped",
      {
        nodes: [
          ["Squeeze", ["x"], ["a"]],
          ["Unsqueeze", ["a", "axes"], ["c"]],
          ["Add", ["c", "b"], ["v"]],
        ],
        inputs: { x: [1, 3] },
        initializers: { axes: whole(1), b: b3 },
      },
      'Squeeze "n0": it drops the axis along the batch, which couples its points',
    ],
    [
      "a norm over the batch",
      { nodes: [["LayerNormalization", ["x"], ["v"], { axis: 0 }]] },
      'LayerNormalization "n0": it normalises along the batch',
    ],
    [
      "a BatchNorm in training",
      { nodes: [["BatchNormalization", ["x", "b", "b", "b", "b"], ["v"], { training_mode: 1 }]], initializers: { b: b3 } },
      'BatchNormalization "n0": it takes the mean and the variance (training mode) along the batch',
    ],
    [
      "a Dropout in training",
      { nodes: [["Dropout", ["x", "r", "t"], ["v"]]], initializers: { r: one(0.5), t: { shape: [], type: 9, data: [1] } } },
      'Dropout "n0": it is in training mode',
    ],
    [
      "arithmetic with the size of the batch",
      {
        nodes: [
          ["Shape", ["x"], ["s"]],
          ["Cast", ["s"], ["c"], { to: 1 }],
          ["Div", ["x", "c"], ["v"]],
        ],
      },
      'Cast "n1": it computes with the size of the batch',
    ],
    [
      "a comparison as numbers",
      {
        nodes: [
          ["Greater", ["x", "b"], ["c"]],
          ["Mul", ["x", "c"], ["v"]],
        ],
        initializers: { b: b3 },
      },
      'Mul "n1": input 1 is a comparison',
    ],
    ["whole numbers of the state", { nodes: [["Cast", ["x"], ["v"], { to: 7 }]] }, 'the output "v" is of the type INT64; expected floats'],
    [
      "slopes that depend on the state",
      { nodes: [["PRelu", ["x", "x"], ["v"]]] },
      'PRelu "n0": input 1 depends on the state or the context',
    ],
    ["a missing input", { nodes: [["Add", ["x", "nothing"], ["v"]]] }, 'Add "n0": it reads "nothing", which nothing gives'],
    ["an input left out", { nodes: [["Add", ["x", ""], ["v"]]] }, 'Add "n0": input 1 is missing'],
    ["a missing output", { nodes: [["Tanh", ["x"], ["a"]]] }, 'nothing gives the output "v"'],
    [
      "a cycle",
      {
        nodes: [
          ["Add", ["x", "b"], ["a"]],
          ["Tanh", ["a"], ["b"]],
          ["Tanh", ["b"], ["v"]],
        ],
      },
      'Add "n0": it reads "b", which only this or a later node gives',
    ],
    ["a node that reads itself", { nodes: [["Add", ["x", "v"], ["v"]]] }, "only this or a later node gives"],
    [
      "two results of one name",
      {
        nodes: [
          ["Tanh", ["x"], ["v"]],
          ["Sin", ["x"], ["v"]],
        ],
      },
      'Sin "n1" gives "v", which something else gives too',
    ],
    [
      "a result named like an input",
      {
        nodes: [
          ["Tanh", ["x"], ["x"]],
          ["Sin", ["x"], ["v"]],
        ],
      },
      'Tanh "n0" gives "x", which something else gives too',
    ],
    [
      "two initializers of one name",
      {
        nodes: [["Add", ["x", "b"], ["v"]]],
        initializers: [
          ["b", b3],
          ["b", b3],
        ],
      },
      'two initializers have the name "b"',
    ],
    [
      "external data",
      { nodes: [["Add", ["x", "b"], ["v"]]], initializers: { b: { shape: [3], external: { location: "weights.bin" } } } },
      'initializer "b" has its data in the file "weights.bin"; expected its bytes in options.externalData',
    ],
    [
      "2^60 elements",
      { nodes: [["Add", ["x", "b"], ["v"]]], initializers: { b: { shape: [2n ** 60n] } } },
      'initializer "b" has the shape',
    ],
    [
      "a product of dimensions past 2^64",
      { nodes: [["Add", ["x", "b"], ["v"]]], initializers: { b: { shape: [2 ** 40, 2 ** 40] } } },
      'initializer "b" holds 0 numbers',
    ],
    [
      "a negative dimension",
      { nodes: [["Add", ["x", "b"], ["v"]]], initializers: { b: { shape: [-3, -1], data: [1, 2, 3] } } },
      'initializer "b" has the shape [-3, -1]',
    ],
    [
      "too few numbers",
      { nodes: [["Add", ["x", "b"], ["v"]]], initializers: { b: { shape: [3], data: [1, 2] } } },
      'initializer "b" holds 2 numbers; expected 3',
    ],
    [
      "half a number",
      { nodes: [["Add", ["x", "b"], ["v"]]], initializers: { b: { shape: [3], raw: new Uint8Array(10) } } },
      'initializer "b" holds 2.5 numbers',
    ],
    [
      "texts for weights",
      { nodes: [["Add", ["x", "b"], ["v"]]], initializers: { b: { shape: [3], type: 8 } } },
      'initializer "b" has the data type 8',
    ],
    [
      "weights that are infinite",
      { nodes: [["Add", ["x", "b"], ["v"]]], initializers: { b: { shape: [3], data: [0, Infinity, 0] } } },
      'Add "n0": a weight or a bias is Infinity',
    ],
    [
      "a division by 0",
      { nodes: [["Div", ["x", "b"], ["v"]]], initializers: { b: { shape: [3], data: [1, 0, 1] } } },
      'Div "n0": a weight or a bias is Infinity',
    ],
    ["a parameter out of range", { nodes: [["Celu", ["x"], ["v"], { alpha: { float: 0 } }]] }, 'Celu "n0": activation "celu(0)": alpha is'],
    ["an input of 2^40 columns", { nodes: [["Tanh", ["x"], ["v"]]], inputs: { x: ["batch", 2 ** 40] } }, "the graph needs more than"],
    [
      "a constant of 2^40 numbers",
      {
        nodes: [
          ["ConstantOfShape", ["s"], ["a"]],
          ["Add", ["x", "a"], ["v"]],
        ],
        initializers: { s: whole(2 ** 40, 3) },
      },
      "the graph needs more than",
    ],
    [
      "a negative shape",
      {
        nodes: [
          ["ConstantOfShape", ["s"], ["a"]],
          ["Add", ["x", "a"], ["v"]],
        ],
        initializers: { s: whole(-2, -3) },
      },
      'ConstantOfShape "n0": its shape is [-2, -3]',
    ],
    [
      "broadcasts that grow without end",
      {
        nodes: [
          ["Mul", ["w", "u"], ["a"]],
          ["MatMul", ["x", "a"], ["v"]],
        ],
        initializers: { w: { shape: [3000, 1], data: Array(3000).fill(1) }, u: { shape: [1, 3000], data: Array(3000).fill(1) } },
      },
      "the graph needs more than",
    ],
    ["an unknown width", { nodes: [["Tanh", ["x"], ["v"]]], inputs: { x: ["batch", "n"] } }, 'input "x" has the shape'],
    ["a negative width", { nodes: [["Tanh", ["x"], ["v"]]], inputs: { x: ["batch", -3] } }, 'input "x" has the shape'],
    ["an input without a shape", { nodes: [["Tanh", ["x"], ["v"]]], inputs: { x: null } }, 'input "x" has no shape'],
    ["no input", { nodes: [["Tanh", ["x"], ["v"]]], inputs: {} }, "the graph has no inputs"],
    [
      "several outputs",
      { nodes: [["Tanh", ["x"], ["v"]]], outputs: ["v", "w"] },
      'the file has 2 outputs, "v" [?], "w" [?]; expected one of the state\'s size, or its name in options.output',
    ],
    [
      "an output that is not there",
      { nodes: [["Tanh", ["x"], ["v"]]] },
      'options.output is "w"; expected one of the file\'s outputs, "v"',
      { output: "w" },
    ],
    [
      "a field that is not square",
      { nodes: [["MatMul", ["x", "w"], ["v"]]], initializers: { w: tensor(1, [3, 4]) } },
      "has 3 elements and the output 4; expected a field that gives as many",
    ],
    [
      "a field that is not square, with a context",
      { nodes: [["Concat", ["x", "t"], ["v"], { axis: 1 }]], inputs: batched },
      'none of the inputs "x" [batch, 3], "t" [batch, 1] has the output\'s size, 4',
    ],
    [
      "a state that is not there",
      { nodes: [["Tanh", ["x"], ["v"]]] },
      'options.state is "y"; expected one of the file\'s inputs, "x" [batch, 3]',
      { state: "y" },
    ],
    [
      "a context that is not there",
      { nodes: [["Add", ["x", "t"], ["v"]]], inputs: batched },
      'options.context is "s"; expected all inputs but the state, "t" [batch, 1]',
      { context: "s" },
    ],
    ["columns by another name", { nodes: [["Tanh", ["x"], ["v"]]] }, 'contextColumns is "middle"', { contextColumns: "middle" as never }],
    ["an old opset", { nodes: [["Tanh", ["x"], ["v"]]], opset: 6 }, "the file is of opset 6; expected 7 to 25"],
    ["a new opset", { nodes: [["Tanh", ["x"], ["v"]]], opset: 99 }, "the file is of opset 99; expected 7 to 25"],
  ])("refuses %s", (_, file, message, options) => {
    const bytes = onnxFile({ inputs: { x: ["batch", 3] }, outputs: ["v"], ...file });
    expect(refusal(bytes, options)).toContain(message);
  });
});

describe("hostile files", () => {
  const small = onnxFile({
    nodes: [
      ["Concat", ["x", "t"], ["c"], { axis: -1 }],
      ["Gemm", ["c", "w", "b"], ["h"], { transB: 1, alpha: { float: 2 } }],
      ["Sigmoid", ["h"], ["s"]],
      ["Mul", ["h", "s"], ["a"]],
      ["LayerNormalization", ["a", "g"], ["n"], { axis: -1 }],
      ["ReduceMean", ["n", "axes"], ["m"]],
      ["Reshape", ["n", "shape"], ["r"]],
      ["Sub", ["r", "m"], ["v"]],
    ],
    inputs: { x: ["batch", 3], t: ["batch", 1] },
    outputs: ["v"],
    initializers: { w: tensor(1, [3, 4]), b: b3, g: b3, axes: whole(-1), shape: whole(-1, 3) },
  });

  it.each<[string, Uint8Array, string]>([
    ["nothing", new Uint8Array(), "the file of 0 bytes has no graph"],
    ["zeros", new Uint8Array(100), "follows the field key 0"],
    ["a number without an end", new Uint8Array(100).fill(255), "has no end; expected at most 10 bytes"],
    ["a group, which is no longer used", Uint8Array.of(0x0b), "the wire type 3"],
    ["a length past the end", Uint8Array.of(0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f), "field 7 has 4294967295 bytes, but 0 are left"],
    ["a negative length", Uint8Array.of(0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), "field 7 has -1 bytes"],
    ["text", new TextEncoder().encode("<!DOCTYPE html>"), "onnx: "],
    ["two graphs", join([small, part(7, new Uint8Array())]), "field 7 stands twice in its message; expected it once"],
    ["two opsets", join([small, part(8, integer(2, 20))]), 'the file has two opsets of the domain ""'],
    ["an opset in two names", join([small, part(8, join([text(1, "ai.onnx"), integer(2, 20)]))]), 'two opsets of the domain "ai.onnx"'],
    ["a graph that is a number", integer(7, 1), "field 7 has the wire type 0; expected 2"],
    ["a node without an operation", part(7, part(1, text(1, "x"))), 'the node "" has no operation'],
    ["a node of two operations", part(7, part(1, join([text(4, "Tanh"), text(4, "Sin")]))), "field 4 stands twice"],
    ["a name that is no UTF-8", part(7, part(1, part(1, Uint8Array.of(0xff)))), "field 1 has a text of 1 bytes that are no UTF-8"],
    ["numbers in two places", graphOf(join([integer(2, 1), part(9, new Uint8Array()), part(4, new Uint8Array())])), "not its type's"],
    ["raw data twice", graphOf(join([integer(2, 1), part(9, new Uint8Array(4)), part(9, new Uint8Array(4))])), "field 9 stands twice"],
    ["an attribute of two values", attributeOf(join([integer(3, 1), text(4, "one")])), 'holds ["integer", "text"]'],
    ["an attribute of another type", attributeOf(join([integer(3, 1), integer(20, 1)])), "is of the type 1 (float) and holds"],
    ["floats that end early", attributeOf(part(7, new Uint8Array(7))), "field 7 has 7 bytes; expected numbers of 4 bytes each"],
  ])("refuses %s", (_, bytes, message) => {
    expect(refusal(bytes)).toContain(message);
  });

  it("refuses what is not bytes", () => {
    expect(refusal(1e9 as unknown as Uint8Array)).toBe("onnx: the file is 1000000000; expected its bytes");
    expect(refusal(null as unknown as Uint8Array)).toContain("the file is null");
  });

  it("takes an ArrayBuffer, and a view at an odd offset of another buffer", () => {
    const shifted = new Uint8Array(small.length + 5).subarray(3, 3 + small.length);
    shifted.set(small);
    const points = [1, 2, 3];
    expect(float64Run(parseOnnx(shifted), points, [1])).toEqual(float64Run(parseOnnx(Uint8Array.from(small).buffer), points, [1]));
  });

  it("gives an error for a file cut short at any byte", () => {
    expect(parseOnnx(small)).toMatchObject({ stateSize: 3, contextSize: 1 });
    for (let length = 0; length < small.length; length++) refusal(small.slice(0, length));
  });

  it("tells names apart that differ in a byte order mark", () => {
    const file = onnxFile({
      nodes: [
        ["Tanh", ["x"], ["a"]],
        ["Sin", ["x"], ["\uFEFFa"]],
        ["Identity", ["\uFEFFa"], ["v"]],
      ],
      inputs: { x: ["batch", 1] },
      outputs: ["v"],
    });
    expect(outline(parseOnnx(file))).toEqual(["sin state"]);
  });

  const million = { s: whole(1e6), yes: { shape: [], type: 9, data: [1] } };
  const chainOf = (count: number, link: (from: string, to: string) => OnnxCall): Uint8Array =>
    onnxFile({
      nodes: [
        ["ConstantOfShape", ["s"], ["a0"], { value: { tensor: { shape: [1], type: 9, data: [1] } } }],
        ...Array.from({ length: count }, (_, i) => link(`a${i}`, `a${i + 1}`)),
        ["Cast", [`a${count}`], ["c"], { to: 1 }],
        ["ReduceSum", ["c"], ["r"], { keepdims: 0 }],
        ["Add", ["x", "r"], ["v"]],
      ],
      inputs: { x: ["batch", 1] },
      outputs: ["v"],
      initializers: million,
    });
  it.each<[string, Uint8Array]>([
    ["Not", chainOf(1000, (from, to) => ["Not", [from], [to]])],
    ["Cast", chainOf(1000, (from, to) => ["Cast", [from], [to], { to: 6 + (from.length % 2) }])],
    ["CastLike", chainOf(1000, (from, to) => ["CastLike", [from, "s"], [to]])],
    ["Equal", chainOf(1000, (from, to) => ["Equal", [from, "a0"], [to]])],
    ["And", chainOf(1000, (from, to) => ["And", [from, "a0"], [to]])],
    ["GreaterOrEqual", chainOf(1000, (from, to) => ["GreaterOrEqual", [from, "a0"], [to]])],
    ["Where", chainOf(1000, (from, to) => ["Where", ["yes", from, "a0"], [to]])],
    ["Max", chainOf(1000, (from, to) => ["Max", [from, "a0"], [to]])],
    ["Reshape", chainOf(1000, (from, to) => ["Reshape", [from, "s"], [to]])],
    ["nodes", part(7, join(Array<Uint8Array>(3e5).fill(part(1, text(4, "A")))))],
    ["attributes", part(7, part(1, join([text(4, "A"), ...Array.from({ length: 3e5 }, (_, i) => part(5, text(1, `${i}`)))])))],
    ["names", part(7, part(1, join([text(4, "A"), ...Array<Uint8Array>(3e5).fill(part(1, new Uint8Array()))])))],
  ])("refuses a small file of many %s soon and in little memory", (_, bytes) => {
    const memory = process.resourceUsage().maxRSS;
    const start = process.cpuUsage();
    expect(refusal(bytes)).toMatch(/the graph needs more than|the file has more than|is of the type/);
    expect(cpuMilliseconds(start)).toBeLessThan(2000);
    expect(process.resourceUsage().maxRSS - memory).toBeLessThan(200_000);
  });

  it("refuses 900 sums of dense layers that share one weight soon and in little memory", () => {
    const layers = Array.from({ length: 900 }, (_, i): OnnxCall[] => [
      ["MatMul", ["x", "w"], [`a${i}`]],
      ["Sum", [`s${i}`, `a${i}`], [`s${i + 1}`]],
    ]);
    const file = onnxFile({
      nodes: [["Identity", ["x"], ["s0"]], ...layers.flat(), ["Tanh", ["s900"], ["v"]]],
      inputs: { x: ["batch", 1000] },
      outputs: ["v"],
      initializers: { w: { shape: [1000, 1000], raw: new Uint8Array(4e6) } },
    });
    const memory = process.resourceUsage().maxRSS;
    const start = process.cpuUsage();
    expect(refusal(file)).toContain("the graph needs more than");
    expect(cpuMilliseconds(start)).toBeLessThan(2000);
    expect(process.resourceUsage().maxRSS - memory).toBeLessThan(200_000);
  });

  it("reads an elementwise field of 30 000 dimensions without a matrix", () => {
    const wide = (seed: number): OnnxTensor => ({ shape: [30_000], data: tensor(seed, [30_000]).data! });
    const network = parseOnnx(
      onnxFile({
        nodes: [
          ["Mul", ["x", "g"], ["a"]],
          ["Add", ["a", "b"], ["c"]],
          ["Sigmoid", ["c"], ["s"]],
          ["Mul", ["c", "s"], ["d"]],
          ["Sub", ["d", "x"], ["e"]],
          ["Tanh", ["e"], ["f"]],
          ["Mul", ["f", "a"], ["h"]],
          ["Sub", ["h", "x"], ["v"]],
        ],
        inputs: { x: ["batch", 30_000] },
        outputs: ["v"],
        initializers: { g: wide(1), b: wide(2) },
      }),
    );
    const weights = network.operations.flatMap((operation) => (operation.kind === "linear" ? operation.terms : []));
    expect(weights.every(({ weight }) => "diagonal" in weight)).toBe(true);
    expect(network.stateSize).toBe(30_000);
  });

  /** `npm run fuzz` asks for a million, from the seed DELDOT_SEED on; a failure names its seed. */
  const flips = Number(process.env["DELDOT_FLIPS"] ?? 10_000);
  it("gives a network or a ModelError, and quickly, whatever bits are flipped", { timeout: 60_000 + flips }, () => {
    const start = process.cpuUsage();
    const accepted = flipBits(small, flips, Number(process.env["DELDOT_SEED"] ?? 1));
    if (flips > 100) expect(accepted).toBeGreaterThan(flips / 10);
    if (flips > 100) expect(accepted).toBeLessThan(flips * 0.9);
    expect(cpuMilliseconds(start)).toBeLessThan(1000 + flips);
  });

  it("reads graphs as deep and as wide as a file is long", () => {
    const depth = 20_000;
    const nodes = Array.from({ length: depth }, (_, i): OnnxCall => [
      i % 2 === 0 ? "Tanh" : "Add",
      i % 2 === 0 ? [`a${i}`] : [`a${i}`, "x"],
      [`a${i + 1}`],
    ]);
    const deep = onnxFile({ nodes: [["Identity", ["x"], ["a0"]], ...nodes], inputs: { x: ["batch", 1] }, outputs: [`a${depth}`] });
    expect(parseOnnx(deep).operations.length).toBe(depth);
    const sum = onnxFile({ nodes: [["Sum", Array<string>(5000).fill("x"), ["v"]]], inputs: { x: ["batch", 1] }, outputs: ["v"] });
    expect(refusal(sum)).toContain("it has 5000 inputs; expected at most 1000");
  });
});

/** A file with one initializer of these fields, or with one attribute. */
function graphOf(tensorFields: Uint8Array): Uint8Array {
  return part(7, part(5, join([text(8, "w"), tensorFields])));
}

function attributeOf(fields: Uint8Array): Uint8Array {
  return part(7, part(1, join([text(4, "Elu"), part(5, join([text(1, "alpha"), fields]))])));
}

/** How many of these files with a few bits flipped are still read; each has a seed of its own. */
function flipBits(bytes: Uint8Array, count: number, first: number): number {
  let accepted = 0;
  for (let seed = first; seed < first + count; seed++) {
    const uniform = random(seed);
    const flipped = bytes.slice();
    for (let flip = 0; flip <= 3 * uniform(); flip++) flipped[Math.floor(uniform() * bytes.length)]! ^= 1 << Math.floor(uniform() * 8);
    try {
      parseOnnx(flipped);
      accepted++;
    } catch (error) {
      if (!(error instanceof ModelError) || !error.message.startsWith("onnx: "))
        throw new Error(`the flips of seed ${seed} fail; DELDOT_SEED=${seed} DELDOT_FLIPS=1 repeats them`, { cause: error });
    }
  }
  return accepted;
}
