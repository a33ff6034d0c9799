import { bfloat16, float16, toBfloat16, toFloat16 } from "../../float16.js";
import { dataTypeOf, fitsType, isWhole, knownTypes, type DataType } from "./decode.js";
import {
  apply,
  binary,
  clip,
  computed,
  extreme,
  isAbove,
  isZero,
  onto,
  placesOf,
  reciprocal,
  requireOneType,
  select,
  unary,
  uniformConstant,
  variadic,
  type Numeric,
} from "./elementwise.js";
import type { Node } from "./graph.js";
import { movements } from "./movement.js";
import { norms } from "./norms.js";
import { choose, multiply } from "./patterns.js";
import { conv, einsum, gemm, matmul } from "./products.js";
import { reducing } from "./reductions.js";
import {
  broadcast,
  broadcastShape,
  countOf,
  expanded,
  feature,
  numbersOf,
  stridesOf,
  timesOfBatch,
  type Call,
  type Condition,
  type Constant,
  type Value,
} from "./values.js";

type Operator = (call: Call) => Value | readonly Value[];

/** ONNX operators that are an activation, with the attributes that are its parameters. */
const activations: Readonly<Record<string, (call: Call) => string>> = {
  Abs: () => "abs",
  Acosh: () => "acosh",
  Asin: () => "asin",
  Asinh: () => "asinh",
  Atan: () => "atan",
  Atanh: () => "atanh",
  Ceil: () => "ceil",
  Celu: (call) => `celu(${call.float("alpha", 1)})`,
  Cos: () => "cos",
  Cosh: () => "cosh",
  Elu: (call) => `elu(${call.float("alpha", 1)})`,
  Erf: () => "erf",
  Exp: () => "exp",
  Floor: () => "floor",
  Gelu: (call) => {
    const approximate = call.text("approximate", "none");
    if (approximate !== "none" && approximate !== "tanh") call.refuse(`approximate is ${approximate}; expected none or tanh`);
    return approximate === "tanh" ? "gelu_tanh" : "gelu";
  },
  HardSwish: () => "hardswish",
  LeakyRelu: (call) => `leaky_relu(${call.float("alpha", 0.01)})`,
  Log: () => "log",
  Mish: () => "mish",
  Reciprocal: () => "reciprocal",
  Relu: () => "relu",
  Round: () => "round",
  Sigmoid: () => "sigmoid",
  Sign: () => "sign",
  Sin: () => "sin",
  Sinh: () => "sinh",
  Softplus: () => "softplus",
  Softsign: () => "softsign",
  Sqrt: () => "sqrt",
  Tan: () => "tan",
  Tanh: () => "tanh",
};

const operators: Readonly<Record<string, Operator>> = {
  ...movements,
  ...Object.fromEntries(
    Object.entries(activations).map(([type, name]) => [type, (call: Call) => unary(call, (x) => call.graph.activation(x, name(call)))]),
  ),

  Add: (call) =>
    binary(
      call,
      (a, b) => a + b,
      (a, b) => call.graph.sum(a, b),
    ),
  Sub: (call) =>
    binary(
      call,
      (a, b) => a - b,
      (a, b) => call.graph.sum(a, b, -1),
    ),
  Mul: (call) =>
    binary(
      call,
      (a, b) => a * b,
      (a, b) => multiply(call.graph, a, b),
    ),
  Div: divide,
  Mod: remainder,
  Pow: power,
  Sum: sumOf,
  Mean: (call) => {
    const count = call.inputs.length;
    return apply(
      call,
      [sumOf(call)],
      (x) => x / count,
      (x) => call.graph.scaled(x, 1 / count),
    );
  },
  Max: (call) => variadic(call, Math.max, (a, b) => extreme(call, a, b, 1)),
  Min: (call) => variadic(call, Math.min, (a, b) => extreme(call, a, b, -1)),
  Acos: (call) => unary(call, (x) => call.graph.scaled(call.graph.activation(x, "asin"), -1, Math.PI / 2)),
  Swish: (call) => {
    const alpha = call.float("alpha", 1);
    const { graph } = call;
    // silu(alpha z) / alpha, and its limit.
    return unary(call, (x) =>
      alpha === 0 ? graph.scaled(x, 0.5) : graph.scaled(graph.activation(graph.scaled(x, alpha), "silu"), 1 / alpha),
    );
  },
  ThresholdedRelu: (call) => {
    const alpha = call.float("alpha", 1);
    const { graph } = call;
    return unary(call, (x) => {
      if (alpha === 0) return graph.activation(x, "relu");
      return graph.product(x, isAbove(graph, graph.scaled(x, 1, -alpha), false));
    });
  },
  Shrink: (call) => {
    const lambda = call.float("lambd", 0.5);
    const bias = call.float("bias", 0);
    if (!(lambda >= 0)) call.refuse(`its lambd is ${lambda}; expected a number of at least 0`);
    const { graph } = call;
    return unary(call, (x) => {
      const beyond = graph.sum(x, clip(call, x, -lambda, lambda), -1);
      if (bias === lambda) return beyond;
      // The sign of what is beyond, 0 where nothing is.
      const side = graph.activation(beyond, "sign");
      return graph.sum(graph.product(x, graph.activation(side, "abs")), side, -bias);
    });
  },
  Neg: (call) => unary(call, (x) => call.graph.scaled(x, -1)),
  Clip: (call) => {
    const isOld = call.opset < 11;
    const low = isOld ? call.float("min", -Infinity) : call.has(1) ? call.scalar(1) : -Infinity;
    const high = isOld ? call.float("max", Infinity) : call.has(2) ? call.scalar(2) : Infinity;
    return unary(call, (x) => clip(call, x, low, high));
  },
  HardSigmoid: (call) => {
    const alpha = call.float("alpha", 0.2);
    const beta = call.float("beta", 0.5);
    // PyTorch's, whose slope the file rounds to float32.
    if (Math.abs(alpha - 1 / 6) < 1e-7 && beta === 0.5) return unary(call, (x) => call.graph.activation(x, "hardsigmoid"));
    return unary(call, (x) => clip(call, call.graph.scaled(x, alpha, beta), 0, 1));
  },
  Selu: (call) => {
    const alpha = call.float("alpha", 1.67326319217681884765625);
    const gamma = call.float("gamma", 1.05070102214813232421875);
    const isUsual = Math.abs(alpha - 1.6732632423543772) < 1e-6 && Math.abs(gamma - 1.0507009873554805) < 1e-6;
    return unary(call, (x) =>
      isUsual ? call.graph.activation(x, "selu") : call.graph.scaled(call.graph.activation(x, `elu(${alpha})`), gamma),
    );
  },
  PRelu: (call) => {
    return onto(
      call,
      call.value(0),
      call.constant(1),
      (x, slope) => (x > 0 ? x : slope * x),
      (x, slope) => {
        const one = uniformConstant(slope);
        if (one !== null) return call.graph.activation(x, `leaky_relu(${one})`);
        // max(z, 0) + slope min(z, 0), where the slopes differ.
        return call.graph.sum(call.graph.activation(x, "relu"), call.graph.product(clip(call, x, -Infinity, 0), slope));
      },
    );
  },

  MatMul: (call) => matmul(call, call.value(0), call.value(1)),
  Gemm: gemm,
  Einsum: einsum,
  Conv: conv,
  ...reducing,

  ...norms,

  DequantizeLinear: dequantize,
  Scaler: (call) => {
    const [offset, factor] = ["offset", "scale"].map((name, at) => {
      const numbers = call.floatsOf(name) ?? [at];
      return call.fold(numbers.length === 1 ? [] : [numbers.length], "FLOAT", (i) => numbers[i]!);
    }) as [Constant, Constant];
    const shifted = onto(
      call,
      call.value(0),
      offset,
      (a, b) => a - b,
      (a, b) => call.graph.sum(a, b, -1),
    );
    return onto(
      call,
      shifted,
      factor,
      (a, b) => a * b,
      (a, b) => call.graph.product(a, b),
    );
  },

  Cast: (call) => {
    const typeNumber = call.integer("to", 0);
    const type = dataTypeOf(typeNumber) ?? call.refuse(`it makes numbers of type ${typeNumber}; expected ${knownTypes}`);
    return cast(call, call.any(0), type);
  },
  CastLike: (call) => cast(call, call.any(0), call.value(1).type),
  Equal: (call) => {
    const values = [call.value(0), call.value(1)];
    if (values.every((value) => value.kind === "constant")) return logical(call, (a, b) => a === b);
    requireOneType(call, values);
    const { shape, batch, nodes } = broadcast(call, values);
    return condition(shape, batch, isZero(call.graph, call.graph.sum(nodes[0]!, nodes[1]!, -1)));
  },
  And: (call) =>
    connect(
      call,
      (a, b) => a !== 0 && b !== 0,
      (a, b) => call.graph.product(a, b),
    ),
  Or: (call) =>
    connect(
      call,
      (a, b) => a !== 0 || b !== 0,
      (a, b) => call.graph.sum(call.graph.sum(a, b), call.graph.product(a, b), -1),
    ),
  Xor: (call) =>
    connect(
      call,
      (a, b) => (a !== 0) !== (b !== 0),
      (a, b) => call.graph.sum(call.graph.sum(a, b), call.graph.product(a, b), -2),
    ),
  Not: (call) => {
    const value = call.any(0);
    if (value.kind === "condition") return condition(value.shape, value.batch, call.graph.scaled(value.mask, -1, 1));
    const numbers = numbersOf(call, call.constant(0));
    return call.fold(value.shape, "BOOL", (i) => Number(numbers[i] === 0));
  },
  Greater: (call) => compare(call, (a, b) => a > b, false, false),
  GreaterOrEqual: (call) => compare(call, (a, b) => a >= b, false, true),
  Less: (call) => compare(call, (a, b) => a < b, true, false),
  LessOrEqual: (call) => compare(call, (a, b) => a <= b, true, true),
  OneHot: oneHot,
  Where: where,
};

/** All that are read, in the order of the alphabet. */
export const operatorNames: readonly string[] = Object.keys(operators).sort();

/** Activations that jump. */
const steps = new Set(["Ceil", "Floor", "Round", "Sign"]);

function sumOf(call: Call): Numeric {
  return variadic(
    call,
    (a, b) => a + b,
    (a, b) => call.graph.sum(a, b),
  );
}

/** What is not there, and why not. */
const refusals: readonly (readonly [RegExp, string])[] = [
  [/^(QLinear|Deform)?Conv/i, "a convolution; expected a network of linear layers, norms and elementwise functions"],
  [/Attention$/, "attention; expected a network of linear layers, norms and elementwise functions"],
  [/^(If|Loop|Scan|SequenceMap)$/, "control flow, which may depend on the data; expected a graph that is the same for every point"],
  [/^(RNN|LSTM|GRU)$/, "a recurrent layer; expected linear layers, norms and elementwise functions"],
  [
    /Quantize|^QLinear|Integer$/,
    "arithmetic with rounded numbers, which have no derivative; expected weights alone rounded (DequantizeLinear)",
  ],
  [/Pool$/, "pooling; expected linear layers, norms and elementwise functions"],
  [/^(Random|Bernoulli|Multinomial)/, "random numbers; expected a field that gives the same for the same point"],
  [/^MeanVarianceNormalization$|^LRN$/, "a norm over positions; expected one over the features of a point"],
];

/**
 * The results of one node. All that it reads and gives is counted here, whatever the operation; where the results are more
 * than what was read, or are made by steps, the operation counts besides, before it makes them.
 *
 * @throws ModelError naming the operation, the node and the reason where it cannot be taken.
 */
export function callOperator(call: Call): readonly Value[] {
  const operator = Object.hasOwn(operators, call.type) ? operators[call.type]! : null;
  if (!operator) {
    const reason = refusals.find(([pattern]) => pattern.test(call.type))?.[1];
    return call.refuse(reason ? `this is ${reason}` : "this operation is not known to the reader");
  }
  const { budget } = call.graph;
  for (const value of call.inputs) {
    if (!value) continue;
    budget.take(countOf(value));
    if (value.kind !== "condition") requireType(call, value);
  }
  const [first] = call.inputs;
  if (steps.has(call.type) && first?.kind === "constant") requireExact(call, first);
  const result = operator(call);
  call.requireLooked();
  const results = Array.isArray(result) ? (result as readonly Value[]) : [result as Value];
  for (const value of results) budget.take(countOf(value));
  return results;
}

/** Operations that take truth values too, and those that take whole numbers which depend on the inputs: they move, cast or compare. */
const moving = new Set([...Object.keys(movements), "Cast", "CastLike"]);
const comparing = new Set(["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "OneHot", "Where"]);
const logic = new Set(["And", "Or", "Xor", "Not"]);
const takingTruth = new Set([...moving, ...logic, "Equal", "Where"]);

/** Truth values are no numbers, numbers no truth values, and quotients of whole numbers are no quotients. */
function requireType(call: Call, { kind, type }: Numeric): void {
  if (logic.has(call.type) ? type !== "BOOL" : type === "BOOL" && !takingTruth.has(call.type))
    call.refuse(`an input is of the type ${type}; expected ${logic.has(call.type) ? "BOOL" : "numbers"}`);
  if (kind === "feature" && isWhole(type) && !moving.has(call.type) && !comparing.has(call.type))
    call.refuse(`it computes with whole numbers (${type}) that depend on the inputs; expected them cast to floats first`);
}

/** (x - zero point) scale of constants, one of each for the tensor, for each place along an axis, or for each block of places. */
function dequantize(call: Call): Value {
  const [x, scales] = [call.value(0), call.constant(1)];
  if (x.kind === "feature") return call.refuse("it computes with rounded numbers, which have no derivative; expected constants");
  const zeros = call.has(2) ? call.constant(2) : null;
  if (zeros && (zeros.type !== x.type || zeros.data.length !== scales.data.length))
    call.refuse(`its zero points are ${zeros.data.length} of ${zeros.type}; expected ${scales.data.length} of ${x.type}`);
  const rank = x.shape.length;
  const block = call.integer("block_size", 0);
  const strides = stridesOf(x.shape);
  let at: (index: number) => number = () => 0;
  if (block > 0) {
    const axis = call.axis(call.integer("axis", 1), rank);
    const expected = x.shape.map((size, k) => (k === axis ? Math.ceil(size / block) : size));
    if (String(scales.shape) !== String(expected))
      call.refuse(`its scales have the shape [${scales.shape.join(", ")}]; expected [${expected.join(", ")}]`);
    const own = stridesOf(expected);
    at = (i) =>
      x.shape.reduce((sum, size, k) => sum + Math.floor((Math.floor(i / strides[k]!) % size) / (k === axis ? block : 1)) * own[k]!, 0);
  } else if (scales.data.length !== 1 || scales.shape.length > 1) {
    const axis = call.axis(call.integer("axis", 1), rank);
    if (scales.shape.length !== 1 || scales.data.length !== x.shape[axis])
      call.refuse(`its scales have the shape [${scales.shape.join(", ")}]; expected one, or [${x.shape[axis]}] along axis ${axis}`);
    at = (i) => Math.floor(i / strides[axis]!) % x.shape[axis]!;
  }
  const [numbers, factors] = [numbersOf(call, x), numbersOf(call, scales)];
  return computed(
    call,
    call.fold(x.shape, scales.type, (i) => (numbers[i]! - (zeros?.data[at(i)] ?? 0)) * factors[at(i)]!),
  );
}

/**
 * As ONNX casts constants: floats are rounded to the type, whole numbers keep their lowest bits in INT32, and what else does not
 * fit is refused. What depends on the inputs stays exact, or is cut.
 */
function cast(call: Call, value: Value, type: DataType): Value {
  if (value.kind === "condition") return type === "BOOL" ? value : feature(value.shape, value.batch, value.mask, type);
  if (value.type === type) return value;
  if (value.kind === "feature") {
    const { graph } = call;
    if (type === "BOOL") return condition(value.shape, value.batch, graph.scaled(isZero(graph, value.node), -1, 1));
    const isCut = isWhole(type) && !isWhole(value.type);
    return { ...value, type, node: isCut ? graph.activation(value.node, "trunc") : value.node };
  }
  if (isWhole(type)) requireExact(call, value);
  const data = isWhole(type) ? value.data : numbersOf(call, value);
  const convert = isWhole(type) ? (x: number): number => castToWhole(call, x, value.type, type) : roundings[type as keyof typeof roundings];
  const isComputed = !isWhole(type) && value.isComputed === true;
  return { ...call.fold(value.shape, type, (i) => convert(data[i]!)), isComputed };
}

const roundings = {
  FLOAT: Math.fround,
  DOUBLE: (x: number): number => x,
  FLOAT16: (x: number): number => float16(toFloat16(x)),
  BFLOAT16: (x: number): number => bfloat16(toBfloat16(x)),
};

function castToWhole(call: Call, x: number, from: DataType, type: DataType): number {
  if (type === "BOOL") return Number(x !== 0);
  // The size of the batch stays it.
  if (isWhole(from) && (type === "INT64" || type === "INT32") && timesOfBatch(x) !== null) return x;
  const whole = Math.trunc(x);
  if (type === "INT64" && Math.abs(whole) <= 2 ** 63) return whole;
  if (fitsType(whole, type)) return whole;
  if (type === "INT32" && isWhole(from) && Number.isSafeInteger(whole)) return whole | 0;
  return call.refuse(`it makes ${x} a whole number (${type}); expected one within the type`);
}

function divide(call: Call): Value {
  const [a, b] = [call.value(0), call.value(1)];
  const quotient = isWhole(a.type) ? (x: number, y: number): number => Math.trunc(x / y) : (x: number, y: number): number => x / y;
  if (a.kind === "constant" && b.kind === "constant") return apply(call, [a, b], quotient, () => call.refuse("a constant did not fold"));
  // The reciprocal comes first: where one number divides many, it is taken once.
  return apply(
    call,
    [a, reciprocal(call, b)],
    () => NaN,
    (x, y) => multiply(call.graph, x, y),
  );
}

/** As in C where fmod is 1: x - y trunc(x / y), with the sign of x. Else of whole numbers alone, with the sign of y. */
function remainder(call: Call): Value {
  const [a, b] = [call.value(0), call.value(1)];
  const isOfC = call.integer("fmod", 0) !== 0;
  if (!isOfC && !isWhole(a.type)) call.refuse("its fmod is 0 and its inputs are floats; expected an fmod of 1");
  for (const value of [a, b]) if (value.kind === "constant") requireExact(call, value);
  if (a.kind === "constant" && b.kind === "constant")
    return apply(
      call,
      [a, b],
      (x, y) => {
        const rest = x % y;
        return isOfC || rest === 0 || rest < 0 === y < 0 ? rest : rest + y;
      },
      () => call.refuse("a constant did not fold"),
    );
  if (b.kind !== "constant") call.refuse("its divisor depends on the inputs; expected a constant");
  const { graph } = call;
  return apply(
    call,
    [a, b],
    () => NaN,
    (x, y) => {
      const quotient = graph.product(x, graph.activation(y, "reciprocal"));
      return graph.sum(x, graph.product(graph.activation(quotient, "trunc"), y), -1);
    },
  );
}

function power(call: Call): Value {
  const [base, exponent] = [call.value(0), call.value(1)];
  if (exponent.kind === "constant" && base.kind === "feature") {
    const numbers = numbersOf(call, exponent);
    const [p] = numbers;
    if (p === undefined || numbers.some((value) => value !== p)) call.refuse("its exponents differ; expected one for all elements");
    const { shape, batch, nodes } = broadcast(call, [base, exponent]);
    return feature(shape, batch, raise(call, nodes[0]!, p), base.type);
  }
  // a^b = e^(b log a), for a > 0.
  return apply(
    call,
    [base, exponent],
    (a, b) => a ** b,
    (a, b) => call.graph.activation(multiply(call.graph, b, call.graph.activation(a, "log")), "exp"),
  );
}

function raise(call: Call, base: Node, exponent: number): Node {
  if (exponent === 0) return call.graph.constant(new Float64Array(call.graph.budget.taken(base.width)).fill(1));
  if (exponent === 1) return base;
  const names = new Map([
    [2, "square"],
    [0.5, "sqrt"],
    [-1, "reciprocal"],
  ]);
  return call.graph.activation(base, names.get(exponent) ?? `power(${exponent})`);
}

function condition(shape: readonly number[], batch: number | null, mask: Node, compared: Condition["compared"] = null): Condition {
  return { kind: "condition", shape, batch, mask, compared };
}

/** What jumps would jump elsewhere in float32. */
function requireExact(call: Call, { isComputed, data, type }: Constant): void {
  if (isComputed && data.some((value) => value !== 0))
    call.refuse(`it cuts or compares numbers that depend on how ${type} rounds what was computed; expected numbers out of the file`);
}

/** Truth values of constants. */
function logical(call: Call, onNumbers: (a: number, b: number) => boolean): Value {
  const values = [call.constant(0), call.constant(1)];
  for (const value of values) requireExact(call, value);
  const shape = broadcastShape(
    call,
    values.map((value) => value.shape),
  );
  const [a, b] = values.map((value) => expanded(call, value, shape, null) as Constant) as [Constant, Constant];
  const areSizes = isWhole(a.type) && isWhole(b.type);
  return call.fold(shape, "BOOL", (i) => {
    const [x, y] = [a.data[i]!, b.data[i]!];
    if (areSizes && [x, y].some((value) => Math.abs(value) > Number.MAX_SAFE_INTEGER))
      return call.refuse(`it compares ${x} with ${y} (${a.type}); expected whole numbers up to 2^53`);
    const [timesX, timesY] = areSizes ? [timesOfBatch(x), timesOfBatch(y)] : [null, null];
    if ((timesX === null) !== (timesY === null) && !((timesX === null ? x : y) < 1))
      return call.refuse("it depends on the size of the batch, which is free");
    // What holds for one size of the batch, beside itself or beside what no size is, holds for all.
    return Number(onNumbers(timesX ?? x, timesY ?? y));
  });
}

/** Truth values joined, of which one may be of what depends on the inputs. */
function connect(call: Call, onNumbers: (a: number, b: number) => boolean, onMasks: (a: Node, b: Node) => Node): Value {
  const values = [call.any(0), call.any(1)];
  if (values.every((value) => value.kind === "constant")) return logical(call, onNumbers);
  const { shape, batch, nodes } = broadcast(call, values.map(asNumbers));
  return condition(shape, batch, onMasks(nodes[0]!, nodes[1]!));
}

function asNumbers(value: Value): Numeric {
  return value.kind === "condition" ? feature(value.shape, value.batch, value.mask, "FLOAT") : value;
}

function compare(call: Call, onNumbers: (a: number, b: number) => boolean, isLess: boolean, orEqual: boolean): Value {
  const values = [call.value(0), call.value(1)];
  if (values.every((value) => value.kind === "constant")) return logical(call, onNumbers);
  requireOneType(call, values);
  const { shape, batch, nodes } = broadcast(call, values);
  const [left, right] = (isLess ? nodes.toReversed() : nodes) as [Node, Node];
  return condition(shape, batch, isAbove(call.graph, call.graph.sum(left, right, -1), orEqual), { left, right, orEqual });
}

/** on where an index is the number of a place, else off, along a new axis; indices below 0 count from its end. */
function oneHot(call: Call): Value {
  const [indices, depth] = [call.value(0), call.scalar(1)];
  const { data, type } = call.constant(2);
  const [off = NaN, on = NaN] = data;
  if (indices.kind === "constant") return call.refuse("its indices are constants; expected what depends on the inputs");
  if (!(Number.isSafeInteger(depth) && depth > 0)) call.refuse(`its depth is ${depth}; expected a whole number above 0`);
  const rank = indices.shape.length + 1;
  const axis = call.axis(call.integer("axis", -1), rank);
  if (axis !== rank - 1) call.refuse(`its axis is ${axis} of ${rank}; expected the last one`);
  const { graph } = call;
  const hits = placesOf(call, indices.node, depth);
  return feature([...indices.shape, depth], indices.batch, graph.scaled(hits, on - off, off), type);
}

function where(call: Call): Value {
  const given = call.any(0);
  const [a, b] = [call.value(1), call.value(2)];
  requireOneType(call, [a, b]);
  if (given.kind === "feature") return call.refuse("its condition is a number; expected a truth value");
  if (given.kind === "condition") {
    const { graph } = call;
    const { left = given.mask, right = given.mask, orEqual = false } = given.compared ?? {};
    const parts = [given.mask, left, right].map((node) => feature(given.shape, given.batch, node, "FLOAT"));
    const { shape, batch, nodes } = broadcast(call, [...parts, a, b]);
    const [mask, l, r, above, below] = nodes as [Node, Node, Node, Node, Node];
    const known = given.compared && choose(graph, { left: l, right: r, orEqual }, above, below);
    return feature(shape, batch, known ?? select(graph, mask, above, below), a.type);
  }
  if (given.type !== "BOOL") call.refuse(`its condition is of the type ${given.type}; expected BOOL`);
  if (a.kind === "constant" && b.kind === "constant") {
    const shape = broadcastShape(call, [given.shape, a.shape, b.shape]);
    const [mask, above, below] = [given, a, b].map((value) => (expanded(call, value, shape, null) as Constant).data);
    const chosen = call.fold(shape, a.type, (i) => (mask![i] !== 0 ? above![i]! : below![i]!));
    return { ...chosen, isComputed: a.isComputed === true || b.isComputed === true };
  }
  const { shape, batch, nodes } = broadcast(call, [given, a, b]);
  return feature(shape, batch, select(call.graph, nodes[0]!, nodes[1]!, nodes[2]!), a.type);
}
