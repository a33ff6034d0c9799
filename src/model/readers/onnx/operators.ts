import { largestClip } from "../../activation.js";
import type { Numbers } from "../../network.js";
import { bfloat16, float16, toBfloat16, toFloat16 } from "../../float16.js";
import { dataTypeOf, isWhole, knownTypes, type DataType } from "./decode.js";
import type { Node } from "./graph.js";
import { axesOf, movements, transpose } from "./movement.js";
import { choose, multiply } from "./patterns.js";
import {
  broadcast,
  broadcastShape,
  countOf,
  expanded,
  feature,
  numbersOf,
  reshaped,
  sizeOf,
  sourcesOf,
  stridesOf,
  type Call,
  type Condition,
  type Constant,
  type Feature,
  type Value,
} from "./values.js";

type Operator = (call: Call) => Value | readonly Value[];
type Numeric = Constant | Feature;

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
  Gelu: (call) => (call.text("approximate", "none") === "tanh" ? "gelu_tanh" : "gelu"),
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
  Sum: (call) =>
    variadic(
      call,
      (a, b) => a + b,
      (a, b) => call.graph.sum(a, b),
    ),
  Mean: (call) => {
    const count = call.inputs.length;
    const sum = variadic(
      call,
      (a, b) => a + b,
      (a, b) => call.graph.sum(a, b),
    );
    return apply(
      call,
      [sum],
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
      // 1 beyond the threshold, and 0 on it.
      const isBeyond = graph.activation(graph.activation(graph.scaled(x, 1, -alpha), "sign"), "relu");
      return graph.product(x, isBeyond);
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
    const low = call.has(1) ? call.scalar(1) : -Infinity;
    const high = call.has(2) ? call.scalar(2) : Infinity;
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
        const [first] = slopesOf(slope);
        if (slopesOf(slope).every((value) => value === first)) return call.graph.activation(x, `leaky_relu(${first})`);
        // slope z + (1 - slope) relu(z), where the slopes differ.
        const rest = call.graph.scaled(slope, -1, 1);
        return call.graph.sum(call.graph.product(x, slope), call.graph.product(call.graph.activation(x, "relu"), rest));
      },
    );
  },

  MatMul: (call) => matmul(call, call.value(0), call.value(1)),
  Gemm: (call) => {
    const side = (index: number, name: string): Numeric => {
      const value = call.value(index);
      if (value.shape.length !== 2) call.refuse(`input ${index} has ${value.shape.length} dimensions; expected 2`);
      return call.integer(name, 0) === 0 ? value : transpose(call, value, [1, 0]);
    };
    const alpha = call.float("alpha", 1);
    const beta = call.float("beta", 1);
    const product = scale(call, matmul(call, side(0, "transA"), side(1, "transB")), alpha);
    if (!call.has(2) || beta === 0) return product;
    return onto(
      call,
      product,
      scale(call, call.value(2), beta),
      (a, b) => a + b,
      (a, b) => call.graph.sum(a, b),
    );
  },
  ReduceMean: (call) => reduce(call, true),
  ReduceSum: (call) => reduce(call, false),

  LayerNormalization: (call) => {
    if (call.outputCount > 1) call.refuse("its mean and deviation are asked for; expected the normalised value alone");
    return normalise(call, true);
  },
  RMSNormalization: (call) => normalise(call, false),
  BatchNormalization: (call) => {
    // Files before opset 14 say so by the statistics they ask for.
    if (call.integer("training_mode", 0) !== 0 || call.outputCount > 1) call.refuseBatch("takes the mean and the variance (training mode)");
    const value = call.value(0);
    if (value.kind === "feature" && (value.batch === 1 || value.shape.length < 2)) call.refuseBatch("normalises");
    const [gain, shift, mean, variance] = [1, 2, 3, 4].map((index) => numbersOf(call, call.constant(index)));
    const epsilon = call.float("epsilon", 1e-5);
    const channels = value.shape[1] ?? 1;
    if ([gain, shift, mean, variance].some((numbers) => numbers!.length !== channels))
      call.refuse(`its scale, bias, mean or variance has another length than ${channels}, the size of axis 1`);
    const shape = [channels, ...value.shape.slice(2).map(() => 1)];
    const factors = call.fold(shape, "DOUBLE", (i) => gain![i]! / Math.sqrt(variance![i]! + epsilon));
    const shifts = call.fold(shape, "DOUBLE", (i) => shift![i]! - mean![i]! * factors.data[i]!);
    const scaled = apply(
      call,
      [value, factors],
      (a, b) => a * b,
      (a, b) => call.graph.product(a, b),
    );
    return apply(
      call,
      [scaled, shifts],
      (a, b) => a + b,
      (a, b) => call.graph.sum(a, b),
    );
  },

  Cast: (call) => {
    const typeNumber = call.integer("to", 0);
    const type = dataTypeOf(typeNumber) ?? call.refuse(`it makes numbers of type ${typeNumber}; expected ${knownTypes}`);
    return cast(call, call.value(0), type);
  },
  CastLike: (call) => cast(call, call.value(0), call.value(1).type),
  Equal: (call) => logical(call, (a, b) => a === b),
  And: (call) => logical(call, (a, b) => a !== 0 && b !== 0),
  Or: (call) => logical(call, (a, b) => a !== 0 || b !== 0),
  Not: (call) => {
    const value = call.constant(0);
    const numbers = numbersOf(call, value);
    return call.fold(value.shape, "BOOL", (i) => Number(numbers[i] === 0));
  },
  Greater: (call) => compare(call, (a, b) => a > b, false),
  GreaterOrEqual: (call) => compare(call, (a, b) => a >= b, false),
  Less: (call) => compare(call, (a, b) => a < b, true),
  LessOrEqual: (call) => compare(call, (a, b) => a <= b, true),
  Where: where,
};

/** What is not there, and why not. */
const refusals: readonly (readonly [RegExp, string])[] = [
  [/^(Qlinear|Deform)?Conv/i, "a convolution; expected a network of linear layers, norms and elementwise functions"],
  [/Attention$/, "attention; expected a network of linear layers, norms and elementwise functions"],
  [/^(If|Loop|Scan|SequenceMap)$/, "control flow, which may depend on the data; expected a graph that is the same for every point"],
  [/Softmax$/i, "a softmax; expected linear layers, norms and elementwise functions"],
  [/^(RNN|LSTM|GRU)$/, "a recurrent layer; expected linear layers, norms and elementwise functions"],
  [/Pool$/, "pooling; expected linear layers, norms and elementwise functions"],
  [/^(Random|Bernoulli|Multinomial)/, "random numbers; expected a field that gives the same for the same point"],
  [
    /^(Instance|Group|Lp|MeanVariance)Normalization$|^LRN$/,
    "a norm over channels; expected LayerNormalization, RMSNormalization or BatchNormalization",
  ],
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
  const result = operator(call);
  call.requireLooked();
  const results = Array.isArray(result) ? (result as readonly Value[]) : [result as Value];
  for (const value of results) budget.take(countOf(value));
  return results;
}

/** Operations that take truth values too, and those that take whole numbers which depend on the inputs: they only move or cast. */
const moving = new Set([...Object.keys(movements), "Cast", "CastLike"]);
const logic = new Set(["And", "Or", "Not"]);
const takingTruth = new Set([...moving, ...logic, "Equal", "Where"]);

/** Truth values are no numbers, numbers no truth values, and quotients of whole numbers are no quotients. */
function requireType(call: Call, { kind, type }: Numeric): void {
  if (logic.has(call.type) ? type !== "BOOL" : type === "BOOL" && !takingTruth.has(call.type))
    call.refuse(`an input is of the type ${type}; expected ${logic.has(call.type) ? "BOOL" : "numbers"}`);
  if (kind === "feature" && isWhole(type) && !moving.has(call.type))
    call.refuse(`it computes with whole numbers (${type}) that depend on the inputs; expected them cast to floats first`);
}

/** An elementwise operation: on numbers where all inputs are constant, else on nodes of one width. */
function apply(
  call: Call,
  values: readonly Numeric[],
  onNumbers: (...numbers: number[]) => number,
  onNodes: (...nodes: Node[]) => Node,
): Numeric {
  requireOneType(call, values);
  const { type } = values.find(({ kind }) => kind === "feature") ?? values[0]!;
  if (values.every((value) => value.kind === "constant")) {
    const shape = broadcastShape(
      call,
      values.map((value) => value.shape),
    );
    const [a, b = a] = values.map((value) => numbersOf(call, expanded(call, value, shape, null) as Constant)) as [Numbers, Numbers?];
    return requireWhole(
      call,
      call.fold(shape, type, (i) => onNumbers(a[i]!, b[i]!)),
    );
  }
  const { shape, batch, nodes } = broadcast(call, values);
  return feature(shape, batch, onNodes(...nodes), type);
}

/** Floats of several types are computed with alike; whole numbers beside them, or beside others, are not. */
function requireOneType(call: Call, values: readonly Numeric[]): void {
  const types = new Set(values.map(({ type }) => type));
  if (types.size > 1 && [...types].some(isWhole)) call.refuse(`its inputs are of the types ${[...types].join(" and ")}; expected one type`);
}

/** Computed whole numbers have to be some, and within their type. */
function requireWhole(call: Call, value: Constant): Constant {
  const fits = value.type === "INT32" ? (x: number): boolean => x === (x | 0) : Number.isSafeInteger;
  const bad = isWhole(value.type) ? value.data.find((x) => !fits(x)) : undefined;
  return bad === undefined ? value : call.refuse(`it makes ${bad} of whole numbers (${value.type}); expected one within its type`);
}

/** As ONNX casts: floats are rounded to the type, whole numbers keep their lowest bits. */
function cast(call: Call, value: Numeric, type: DataType): Numeric {
  if (value.type === type) return value;
  if (value.kind === "feature") {
    if (isWhole(type))
      call.refuse(`it makes whole numbers or truth values (${type}) of what depends on the state or the context; expected floats`);
    return { ...value, type };
  }
  const data = isWhole(type) ? value.data : numbersOf(call, value);
  const convert = isWhole(type) ? (x: number): number => castToWhole(call, x, value.type, type) : roundings[type as keyof typeof roundings];
  return call.fold(value.shape, type, (i) => convert(data[i]!));
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
  if (isWhole(from) && Number.isNaN(x)) return x;
  const whole = Math.trunc(x);
  if (type === "INT64" ? Math.abs(whole) <= 2 ** 63 : isWhole(from) ? Number.isSafeInteger(whole) : whole === (whole | 0))
    return type === "INT64" ? whole : whole | 0;
  return call.refuse(`it makes ${x} a whole number (${type}); expected one within the type`);
}

function unary(call: Call, onNode: (node: Node) => Node): Value {
  const value = call.value(0);
  if (value.kind === "feature") return { ...value, node: onNode(value.node) };
  const result = onNode(call.graph.constant(numbersOf(call, value)));
  if (result.kind !== "linear" || !result.bias) return call.refuse("a constant did not fold");
  return requireWhole(call, { ...value, data: result.bias });
}

function binary(call: Call, onNumbers: (a: number, b: number) => number, onNodes: (a: Node, b: Node) => Node): Numeric {
  const values = [call.value(0), call.value(1)];
  return multiplyBatch(call, values) ?? apply(call, values, onNumbers, onNodes);
}

/** An elementwise operation whose second input is repeated to the shape of the first, never the other way round. */
function onto(
  call: Call,
  first: Numeric,
  second: Numeric,
  onNumbers: (a: number, b: number) => number,
  onNodes: (a: Node, b: Node) => Node,
): Numeric {
  const axis = first.kind === "feature" ? first.batch : null;
  const target = axis === null ? first.shape : first.shape.with(axis, call.fixedBatch ?? 1);
  if (!broadcastsTo(second.shape, target))
    call.refuse(`an input has the shape [${second.shape.join(", ")}]; expected one that broadcasts to [${first.shape.join(", ")}]`);
  return apply(call, [first, second], onNumbers, onNodes);
}

function broadcastsTo(shape: readonly number[], target: readonly number[]): boolean {
  const lead = target.length - shape.length;
  return lead >= 0 && shape.every((size, axis) => size === 1 || size === target[axis + lead]);
}

/** Exporters multiply a shape by ±1 on its way to Expand; the size of the batch stays itself by 1, and becomes unknown by -1. */
function multiplyBatch(call: Call, [a, b]: readonly Numeric[]): Constant | null {
  if (call.type !== "Mul" || a?.kind !== "constant" || b?.kind !== "constant") return null;
  const [sizes, ones] = a.data.some(Number.isNaN) ? [a, b] : [b, a];
  const isNeutral =
    isWhole(sizes.type) &&
    ones.type === sizes.type &&
    ones.data.every((value) => value === 1) &&
    broadcastsTo(ones.shape, sizes.shape) &&
    sizes.data.some(Number.isNaN);
  return isNeutral ? sizes : null;
}

function variadic(call: Call, onNumbers: (a: number, b: number) => number, onNodes: (a: Node, b: Node) => Node): Numeric {
  const values = call.inputs.map((_, i) => call.value(i));
  const first = values[0] ?? call.refuse("it has no inputs");
  return values.slice(1).reduce((a, b) => apply(call, [a, b], onNumbers, onNodes), first);
}

function scale(call: Call, value: Numeric, factor: number): Numeric {
  if (factor === 1) return value;
  return apply(
    call,
    [value],
    (x) => x * factor,
    (x) => call.graph.scaled(x, factor),
  );
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

function reciprocal(call: Call, value: Numeric): Numeric {
  if (value.kind === "feature") return { ...value, node: call.graph.activation(value.node, "reciprocal") };
  const numbers = numbersOf(call, value);
  return call.fold(value.shape, value.type, (i) => 1 / numbers[i]!);
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

/** The larger (sign 1) or the smaller (sign -1): a clip beside one constant number, else (a + b ± |a - b|) / 2. */
function extreme(call: Call, a: Node, b: Node, sign: 1 | -1): Node {
  const { graph } = call;
  const [given, other] = a.kind === "linear" && a.terms.length === 0 ? [a, b] : [b, a];
  const bound = slopesOf(given)[0];
  if (bound !== undefined && slopesOf(given).every((value) => value === bound))
    return sign === 1 ? clip(call, other, bound, Infinity) : clip(call, other, -Infinity, bound);
  const distance = graph.activation(graph.sum(a, b, -1), "abs");
  return graph.scaled(graph.sum(graph.sum(a, b), distance, sign), 0.5);
}

/** The numbers of a constant node; none of another. */
function slopesOf(node: Node): Numbers {
  return node.kind === "linear" && node.terms.length === 0 && node.bias ? node.bias : new Float64Array();
}

function clip(call: Call, x: Node, low: number, high: number): Node {
  const { graph } = call;
  if (low === -Infinity && high === Infinity) return x;
  // A clip of a clip whose ends do not cross is one clip.
  if (x.kind === "activation" && ["relu", "clip"].includes(x.activation.name)) {
    const [min, max] = x.activation.name === "relu" ? [0, Infinity] : (x.activation.parameters as [number, number]);
    if (low <= max && high >= min && low <= high) return clip(call, x.operand, Math.max(low, min), Math.min(high, max));
  }
  if (low === 0 && high === Infinity) return graph.activation(x, "relu");
  if (low === 0 && high === 6) return graph.activation(x, "relu6");
  if (low === -1 && high === 1) return graph.activation(x, "hardtanh");
  return graph.activation(x, `clip(${Math.max(low, -largestClip)}, ${Math.min(high, largestClip)})`);
}

function matmul(call: Call, a: Numeric, b: Numeric): Numeric {
  const [rankA, rankB] = [a.shape.length, b.shape.length];
  requireOneType(call, [a, b]);
  if (rankA === 0 || rankB === 0) call.refuse("an input has no dimensions; expected at least 1");
  if (a.kind === "feature" && b.kind === "feature")
    return call.refuse("it multiplies two tensors that both depend on the inputs, as attention does; expected constant weights");
  const axis = Math.max(rankB - 2, 0);
  const inner = b.shape[axis]!;
  if (a.shape[rankA - 1] !== inner)
    call.refuse(`its inputs have the shapes [${a.shape.join(", ")}] and [${b.shape.join(", ")}], which do not multiply`);

  if (b.kind === "constant") {
    if (rankB > 2) call.refuse(`its weight has ${rankB} dimensions; expected 1 or 2`);
    const columns = rankB === 1 ? 1 : b.shape[1]!;
    const weight = rankB === 1 ? b : (transpose(call, b, [1, 0]) as Constant);
    const shape = [...a.shape.slice(0, -1), ...b.shape.slice(1)];
    const numbers = numbersOf(call, weight);
    if (a.kind === "constant") return multiplyNumbers(call, a, numbers, { shape, inner, columns });
    if (a.batch === rankA - 1) call.refuseBatch("sums");
    return feature(
      shape,
      a.batch,
      contract(call, a.node, numbers, { left: sizeOf(a.shape.slice(0, -1)), inner, right: 1, outputs: columns }),
      a.type,
    );
  }
  if (a.kind !== "constant") return call.refuse("it multiplies two tensors that both depend on the inputs");
  if (rankA > 2) call.refuse(`its weight has ${rankA} dimensions; expected 1 or 2`);
  if (b.batch === axis) call.refuseBatch("sums");
  const outputs = rankA === 1 ? 1 : a.shape[0]!;
  const shape = [...b.shape.slice(0, axis), ...a.shape.slice(0, -1), ...b.shape.slice(axis + 1)];
  const batch = b.batch !== null && b.batch > axis && rankA === 1 ? b.batch - 1 : b.batch;
  return feature(
    shape,
    batch,
    contract(call, b.node, numbersOf(call, a), {
      left: sizeOf(b.shape.slice(0, axis)),
      inner,
      right: sizeOf(b.shape.slice(axis + 1)),
      outputs,
    }),
    b.type,
  );
}

/** The map from elements [left, inner, right] to [left, outputs, right] by a weight [outputs, inner]. */
function contract(
  call: Call,
  node: Node,
  weight: Numbers,
  { left, inner, right, outputs }: Record<"left" | "inner" | "right" | "outputs", number>,
): Node {
  if (inner === 0 || outputs === 0 || left * right === 0) call.refuse("it has a dimension of 0");
  const rows = left * outputs * right;
  const columns = left * inner * right;
  let data = weight;
  if (left * right > 1) {
    data =
      weight instanceof Float32Array
        ? new Float32Array(call.graph.budget.taken(rows * columns))
        : new Float64Array(call.graph.budget.taken(rows * columns));
    for (let l = 0; l < left; l++)
      for (let m = 0; m < outputs; m++)
        for (let k = 0; k < inner; k++)
          for (let r = 0; r < right; r++)
            data[((l * outputs + m) * right + r) * columns + (l * inner + k) * right + r] = weight[m * inner + k]!;
  }
  return call.graph.mapped(node, { kind: "dense", matrix: { rows, columns, data } });
}

/** a [rows, inner] times the transpose of b [columns, inner]. */
function multiplyNumbers(
  call: Call,
  a: Constant,
  b: Numbers,
  { shape, inner, columns }: { shape: readonly number[]; inner: number; columns: number },
): Constant {
  const numbers = numbersOf(call, a);
  call.graph.budget.take((sizeOf(shape) * inner) / 16);
  const product = call.fold(shape, a.type, (i) => {
    const from = Math.floor(i / columns) * inner;
    const column = (i % columns) * inner;
    let sum = 0;
    for (let k = 0; k < inner; k++) sum += numbers[from + k]! * b[column + k]!;
    return sum;
  });
  return requireWhole(call, product);
}

function reduce(call: Call, isMean: boolean): Value {
  const value = call.value(0);
  const rank = value.shape.length;
  const given = axesOf(call, 1);
  if ((given === null || given.length === 0) && call.integer("noop_with_empty_axes", 0) !== 0) return value;
  const axes = new Set(given === null || given.length === 0 ? value.shape.map((_, axis) => axis) : call.axes(given, rank));
  if (value.kind === "feature" && value.batch !== null && axes.has(value.batch)) call.refuseBatch(isMean ? "takes the mean" : "sums");
  const kept = value.shape.map((size, axis) => (axes.has(axis) ? 1 : size));
  const strides = stridesOf(kept);
  const targets = sourcesOf(
    call,
    value.shape.map((size, axis) => {
      call.graph.budget.take(size);
      return Array.from({ length: size }, (_, c) => (axes.has(axis) ? 0 : c * strides[axis]!));
    }),
  );
  const rows = sizeOf(kept);
  const columns = targets.length;
  if (rows === 0 || columns === 0) call.refuse("it has a dimension of 0");
  const factor = isMean ? rows / columns : 1;
  const keepsAxes = call.integer("keepdims", 1) !== 0;
  const shape = keepsAxes ? kept : value.shape.filter((_, axis) => !axes.has(axis));
  if (value.kind === "constant") {
    if (isMean && isWhole(value.type)) call.refuse(`it takes the mean of whole numbers (${value.type}); expected floats`);
    const sums = call.fold(shape, value.type, () => 0);
    numbersOf(call, value).forEach((x, i) => (sums.data[targets[i]!]! += x * factor));
    return requireWhole(call, sums);
  }
  const batch = value.batch === null || keepsAxes ? value.batch : value.batch - [...axes].filter((axis) => axis < value.batch!).length;
  if (rows === columns) return reshaped(value, shape, batch);
  const data = new Float64Array(call.graph.budget.taken(rows * columns));
  targets.forEach((row, column) => (data[row * columns + column] = factor));
  return feature(shape, batch, call.graph.mapped(value.node, { kind: "dense", matrix: { rows, columns, data } }), value.type);
}

function normalise(call: Call, centered: boolean): Value {
  const value = call.value(0);
  if (value.kind === "constant") return call.refuse("it normalises a constant");
  const axis = call.axis(call.integer("axis", -1), value.shape.length);
  if (value.batch !== null && value.batch >= axis) call.refuseBatch("normalises");
  if (sizeOf(value.shape.slice(0, axis)) !== 1)
    call.refuse(`it normalises parts of the ${value.node.width} elements of a point; expected all of them at once`);
  const epsilon = call.float("epsilon", 1e-5);
  if (!(epsilon >= 0 && epsilon < Infinity)) call.refuse(`its epsilon is ${epsilon}; expected a number of at least 0`);
  let result: Numeric = { ...value, node: call.graph.norm(value.node, centered, epsilon) };
  if (call.has(1))
    result = onto(
      call,
      result,
      call.value(1),
      () => NaN,
      (x, gain) => multiply(call.graph, x, gain),
    );
  if (call.has(2))
    result = onto(
      call,
      result,
      call.value(2),
      () => NaN,
      (x, bias) => call.graph.sum(x, bias),
    );
  return result;
}

/** Truth values of constants. */
function logical(call: Call, onNumbers: (a: number, b: number) => boolean): Value {
  const values = [call.constant(0), call.constant(1)];
  const shape = broadcastShape(
    call,
    values.map((value) => value.shape),
  );
  const [a, b] = values.map((value) => expanded(call, value, shape, null) as Constant) as [Constant, Constant];
  const areSizes = isWhole(a.type) && isWhole(b.type);
  return call.fold(shape, "BOOL", (i) => {
    const [x, y] = [a.data[i]!, b.data[i]!];
    const [isX, isY] = [areSizes && Number.isNaN(x), areSizes && Number.isNaN(y)];
    if (isX !== isY && !((isX ? y : x) < 1)) return call.refuse("it depends on the size of the batch, which is free");
    // What holds for one size of the batch, beside itself or beside what no size is, holds for all.
    return Number(onNumbers(isX ? 1 : x, isY ? 1 : y));
  });
}

function compare(call: Call, onNumbers: (a: number, b: number) => boolean, isLess: boolean): Value {
  const values = [call.value(0), call.value(1)];
  if (values.every((value) => value.kind === "constant")) return logical(call, onNumbers);
  const { shape, batch, nodes } = broadcast(call, values);
  const [left, right] = isLess ? nodes.toReversed() : nodes;
  return { kind: "condition", shape, batch, left: left!, right: right! } satisfies Condition;
}

function where(call: Call): Value {
  const given = call.any(0);
  const [a, b] = [call.value(1), call.value(2)];
  requireOneType(call, [a, b]);
  if (given.kind === "feature") return call.refuse("its condition depends on the inputs; expected a comparison or a constant");
  if (given.kind === "condition") {
    const [left, right] = [given.left, given.right].map((node) => feature(given.shape, given.batch, node, "FLOAT"));
    const { shape, batch, nodes } = broadcast(call, [left!, right!, a, b]);
    const chosen =
      choose(call.graph, ...(nodes as [Node, Node, Node, Node])) ??
      call.refuse("which branch it takes depends on the point, and the branches are none of a known activation");
    return feature(shape, batch, chosen, a.type);
  }
  if (given.type !== "BOOL") call.refuse(`its condition is of the type ${given.type}; expected BOOL`);
  if (a.kind === "constant" && b.kind === "constant") {
    const shape = broadcastShape(call, [given.shape, a.shape, b.shape]);
    const [mask, above, below] = [given, a, b].map((value) => (expanded(call, value, shape, null) as Constant).data);
    return call.fold(shape, a.type, (i) => (mask![i] !== 0 ? above![i]! : below![i]!));
  }
  const { graph } = call;
  const { shape, batch, nodes } = broadcast(call, [given, a, b]);
  const [mask, above, below] = nodes as [Node, Node, Node];
  const truth = slopesOf(mask);
  const opposite = call.fold([truth.length], "BOOL", (i) => 1 - truth[i]!);
  const chosen = graph.sum(graph.product(graph.constant(truth), above), graph.product(graph.constant(opposite.data), below));
  return feature(shape, batch, chosen, a.type);
}
