import { largestClip } from "../../activation.js";
import { bfloat16, float16, toBfloat16, toFloat16 } from "../../float16.js";
import type { Numbers } from "../../network.js";
import { isFloatType, isIntegerType } from "./decode.js";
import type { Node } from "./graph.js";
import { axesOf, movements, transpose } from "./movement.js";
import { choose, multiply } from "./patterns.js";
import {
  broadcast,
  broadcastShape,
  constant,
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
  Celu: (call) => `celu(${call.float("alpha", 1)})`,
  Cos: () => "cos",
  Elu: (call) => `elu(${call.float("alpha", 1)})`,
  Erf: () => "erf",
  Exp: () => "exp",
  Gelu: (call) => (call.text("approximate", "none") === "tanh" ? "gelu_tanh" : "gelu"),
  HardSwish: () => "hardswish",
  LeakyRelu: (call) => `leaky_relu(${call.float("alpha", 0.01)})`,
  Log: () => "log",
  Mish: () => "mish",
  Reciprocal: () => "reciprocal",
  Relu: () => "relu",
  Sigmoid: () => "sigmoid",
  Sin: () => "sin",
  Softplus: () => "softplus",
  Softsign: () => "softsign",
  Sqrt: () => "sqrt",
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
      ([x]) => x! / count,
      ([x]) => call.graph.scaled(x!, 1 / count),
    );
  },
  Max: (call) => variadic(call, Math.max, (a, b) => extreme(call, a, b, 1)),
  Min: (call) => variadic(call, Math.min, (a, b) => extreme(call, a, b, -1)),
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
    call.constant(1);
    return binary(
      call,
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
    return apply(
      call,
      [product, scale(call, call.value(2), beta)],
      ([a, b]) => a! + b!,
      ([a, b]) => call.graph.sum(a!, b!),
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
    const factors = Float64Array.from(gain!, (g, i) => g / Math.sqrt(variance![i]! + epsilon));
    const shifts = Float64Array.from(shift!, (s, i) => s - mean![i]! * factors[i]!);
    const shape = [channels, ...value.shape.slice(2).map(() => 1)];
    const scaled = apply(
      call,
      [value, constant(shape, factors)],
      ([a, b]) => a! * b!,
      ([a, b]) => call.graph.product(a!, b!),
    );
    return apply(
      call,
      [scaled, constant(shape, shifts)],
      ([a, b]) => a! + b!,
      ([a, b]) => call.graph.sum(a!, b!),
    );
  },

  Cast: (call) => cast(call, call.value(0), call.integer("to", 0)),
  CastLike: (call) => {
    const like = call.value(1);
    if (like.kind === "constant" && like.type === undefined) call.refuse("the type of its second input is not known to the reader");
    return cast(call, call.value(0), like.kind === "constant" ? like.type! : FLOAT);
  },
  Equal: (call) => logical(call, (a, b) => a === b),
  And: (call) => logical(call, (a, b) => a !== 0 && b !== 0),
  Or: (call) => logical(call, (a, b) => a !== 0 || b !== 0),
  Not: (call) => {
    const value = call.constant(0);
    return constant(
      value.shape,
      Float64Array.from(numbersOf(call, value), (x) => Number(x === 0)),
      true,
    );
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

/** The results of one node. @throws ModelError naming the operation, the node and the reason where it cannot be taken. */
export function callOperator(call: Call): readonly Value[] {
  const operator = Object.hasOwn(operators, call.type) ? operators[call.type]! : null;
  if (!operator) {
    const reason = refusals.find(([pattern]) => pattern.test(call.type))?.[1];
    return call.refuse(reason ? `this is ${reason}` : "this operation is not known to the reader");
  }
  const result = operator(call);
  return Array.isArray(result) ? (result as readonly Value[]) : [result as Value];
}

/** An elementwise operation: on numbers where all inputs are constant, else on nodes of one width. */
function apply(
  call: Call,
  values: readonly Numeric[],
  onNumbers: (numbers: readonly number[]) => number,
  onNodes: (nodes: readonly Node[]) => Node,
): Numeric {
  if (values.every((value) => value.kind === "constant")) {
    const shape = broadcastShape(
      call,
      values.map((value) => value.shape),
    );
    const wide = values.map((value) => numbersOf(call, expanded(call, value, shape, null) as Constant));
    const data = new Float64Array(call.graph.budget.taken(sizeOf(shape)));
    data.forEach((_, i) => (data[i] = onNumbers(wide.map((numbers) => numbers[i]!))));
    return constant(
      shape,
      data,
      values.every((value) => value.isInteger),
    );
  }
  const { shape, batch, nodes } = broadcast(call, values);
  return feature(shape, batch, onNodes(nodes));
}

function unary(call: Call, onNode: (node: Node) => Node): Value {
  const value = call.value(0);
  if (value.kind === "feature") return feature(value.shape, value.batch, onNode(value.node));
  const result = onNode(call.graph.constant(numbersOf(call, value)));
  if (result.kind !== "linear" || !result.bias) return call.refuse("a constant did not fold");
  return constant(value.shape, result.bias, value.isInteger && result.bias.every(Number.isInteger));
}

function binary(call: Call, onNumbers: (a: number, b: number) => number, onNodes: (a: Node, b: Node) => Node): Numeric {
  const values = [call.value(0), call.value(1)];
  const batchSize = multiplyBatch(call, values);
  return (
    batchSize ??
    apply(
      call,
      values,
      ([a, b]) => onNumbers(a!, b!),
      ([a, b]) => onNodes(a!, b!),
    )
  );
}

/** Exporters multiply a shape by ±1 on its way to Expand; the size of the batch stays itself by 1, and becomes unknown by -1. */
function multiplyBatch(call: Call, [a, b]: readonly Numeric[]): Constant | null {
  if (call.type !== "Mul" || a?.kind !== "constant" || b?.kind !== "constant") return null;
  const [sizes, ones] = a.data.some(Number.isNaN) ? [a, b] : [b, a];
  const isNeutral =
    sizes.isInteger &&
    ones.data.every((value) => value === 1) &&
    sizeOf(ones.shape) <= sizeOf(sizes.shape) &&
    sizes.data.some(Number.isNaN);
  return isNeutral ? sizes : null;
}

function variadic(call: Call, onNumbers: (a: number, b: number) => number, onNodes: (a: Node, b: Node) => Node): Numeric {
  const values = call.inputs.map((_, i) => call.value(i));
  const first = values[0] ?? call.refuse("it has no inputs");
  return values.slice(1).reduce(
    (a, b) =>
      apply(
        call,
        [a, b],
        ([x, y]) => onNumbers(x!, y!),
        ([x, y]) => onNodes(x!, y!),
      ),
    first,
  );
}

/** Numbers of another type, by TensorProto.DataType. What depends on the inputs is computed in float32, whatever float the file has. */
function cast(call: Call, value: Numeric, type: number): Numeric {
  if (value.kind === "feature")
    return isFloatType(type)
      ? value
      : call.refuse(`it makes whole numbers or truth values (type ${type}) of what depends on the state or the context; expected floats`);
  if (!isFloatType(type) && !isIntegerType(type)) call.refuse(`it makes numbers of type ${type}; expected floats, INT32, INT64 or BOOL`);
  const numbers = isFloatType(type) ? numbersOf(call, value) : value.data;
  const data = Float64Array.from(numbers, (x) => {
    const converted = converters[type]!(x, value.isInteger);
    return converted ?? call.refuse(`it makes a whole number of ${x}, which its type does not hold`);
  });
  return { ...constant(value.shape, type === FLOAT ? Float32Array.from(data) : data, isIntegerType(type)), type };
}

const FLOAT = 1;

/** One number of a type; null where ONNX does not say what becomes of it. NaN among whole numbers is the size of the batch. */
const converters: Readonly<Record<number, (x: number, isInteger: boolean) => number | null>> = {
  [FLOAT]: (x) => Math.fround(x),
  // Whole numbers lose their upper bits.
  6: (x, isInteger) => (isInteger ? (Number.isNaN(x) ? x : x | 0) : within(Math.trunc(x), 2 ** 31)),
  7: (x, isInteger) => (isInteger ? x : within(Math.trunc(x), 2 ** 63)),
  9: (x) => Number(x !== 0),
  10: (x) => float16(toFloat16(x)),
  11: (x) => x,
  16: (x) => bfloat16(toBfloat16(x)),
};

function within(x: number, limit: number): number | null {
  return x >= -limit && x < limit ? x : null;
}

function scale(call: Call, value: Numeric, factor: number): Numeric {
  if (factor === 1) return value;
  return apply(
    call,
    [value],
    ([x]) => x! * factor,
    ([x]) => call.graph.scaled(x!, factor),
  );
}

function divide(call: Call): Value {
  const [a, b] = [call.value(0), call.value(1)];
  if (b.kind === "constant" || a.kind === "constant") {
    const isInteger = a.kind === "constant" && a.isInteger && b.kind === "constant" && b.isInteger;
    const quotient = (x: number, y: number): number => (isInteger ? Math.trunc(x / y) : x / y);
    if (b.kind === "constant" && a.kind === "feature") {
      const inverse = constant(
        b.shape,
        Float64Array.from(numbersOf(call, b), (value) => 1 / value),
      );
      return apply(
        call,
        [a, inverse],
        () => NaN,
        ([x, y]) => multiply(call.graph, x!, y!),
      );
    }
    if (b.kind === "constant")
      return apply(
        call,
        [a, b],
        ([x, y]) => quotient(x!, y!),
        () => call.refuse("a constant did not fold"),
      );
  }
  // The reciprocal comes first: where one number divides many, it is taken once.
  const inverse = b.kind === "feature" ? feature(b.shape, b.batch, call.graph.activation(b.node, "reciprocal")) : b;
  return apply(
    call,
    [a, inverse],
    () => NaN,
    ([x, y]) => multiply(call.graph, x!, y!),
  );
}

function power(call: Call): Value {
  const [base, exponent] = [call.value(0), call.value(1)];
  if (exponent.kind === "constant" && base.kind === "feature") {
    const numbers = numbersOf(call, exponent);
    const [p] = numbers;
    if (p === undefined || numbers.some((value) => value !== p)) call.refuse("its exponents differ; expected one for all elements");
    const { shape, batch, nodes } = broadcast(call, [base, exponent]);
    return feature(shape, batch, raise(call, nodes[0]!, p));
  }
  // a^b = e^(b log a), for a > 0.
  return apply(
    call,
    [base, exponent],
    ([a, b]) => a! ** b!,
    ([a, b]) => call.graph.activation(multiply(call.graph, b!, call.graph.activation(a!, "log")), "exp"),
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
  if (rankA === 0 || rankB === 0) call.refuse("an input has no dimensions; expected at least 1");
  if (a.kind === "feature" && b.kind === "feature")
    call.refuse("it multiplies two tensors that both depend on the inputs, as attention does; expected constant weights");
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
    if (a.kind === "constant")
      return constant(shape, multiplyNumbers(call, numbersOf(call, a), numbers, sizeOf(a.shape) / inner, inner, columns));
    if (a.batch === rankA - 1) call.refuseBatch("sums");
    return feature(
      shape,
      a.batch,
      contract(call, a.node, numbers, { left: sizeOf(a.shape.slice(0, -1)), inner, right: 1, outputs: columns }),
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
function multiplyNumbers(call: Call, a: Numbers, b: Numbers, rows: number, inner: number, columns: number): Float64Array {
  call.graph.budget.take((rows * columns * inner) / 16);
  const result = new Float64Array(call.graph.budget.taken(rows * columns));
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      for (let k = 0; k < inner; k++) result[row * columns + column]! += a[row * inner + k]! * b[column * inner + k]!;
  return result;
}

function reduce(call: Call, isMean: boolean): Value {
  const value = call.value(0);
  const rank = value.shape.length;
  const given = axesOf(call, 1);
  if ((given === null || given.length === 0) && call.integer("noop_with_empty_axes", 0) !== 0) return value;
  const axes = new Set(
    (given === null || given.length === 0 ? value.shape.map((_, axis) => axis) : given).map((axis) => call.axis(axis, rank)),
  );
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
    const sums = new Float64Array(rows);
    numbersOf(call, value).forEach((x, i) => (sums[targets[i]!]! += x * factor));
    return constant(shape, sums);
  }
  const batch = value.batch === null || keepsAxes ? value.batch : value.batch - [...axes].filter((axis) => axis < value.batch!).length;
  if (rows === columns) return reshaped(value, shape, batch);
  const data = new Float64Array(call.graph.budget.taken(rows * columns));
  targets.forEach((row, column) => (data[row * columns + column] = factor));
  return feature(shape, batch, call.graph.mapped(value.node, { kind: "dense", matrix: { rows, columns, data } }));
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
  let result: Numeric = feature(value.shape, value.batch, call.graph.norm(value.node, centered, epsilon));
  if (call.has(1))
    result = apply(
      call,
      [result, call.value(1)],
      () => NaN,
      ([x, gain]) => multiply(call.graph, x!, gain!),
    );
  if (call.has(2))
    result = apply(
      call,
      [result, call.value(2)],
      () => NaN,
      ([x, bias]) => call.graph.sum(x!, bias!),
    );
  return result;
}

/** Truth values of constants. Any size of the batch is above a number that no size is, and equals itself: as 1 is and does. */
function logical(call: Call, onNumbers: (a: number, b: number) => boolean): Value {
  const values = [call.constant(0), call.constant(1)];
  const shape = broadcastShape(
    call,
    values.map((value) => value.shape),
  );
  const [a, b] = values.map((value) => expanded(call, value, shape, null) as Constant);
  const data = Float64Array.from(a!.data, (x, i) => {
    const y = b!.data[i]!;
    if (!Number.isNaN(x) && !Number.isNaN(y)) return Number(onNumbers(x, y));
    if (!a!.isInteger || !b!.isInteger || !(x < 1 || y < 1 || (Number.isNaN(x) && Number.isNaN(y))))
      return call.refuse("it depends on the size of the batch, which is free");
    return Number(onNumbers(Number.isNaN(x) ? 1 : x, Number.isNaN(y) ? 1 : y));
  });
  return constant(shape, data, true);
}

function compare(call: Call, onNumbers: (a: number, b: number) => boolean, isLess: boolean): Value {
  const values = [call.value(0), call.value(1)];
  if (values.every((value) => value.kind === "constant")) return logical(call, onNumbers);
  const { shape, batch, nodes } = broadcast(call, values);
  const [left, right] = isLess ? nodes.toReversed() : nodes;
  return { kind: "condition", shape, batch, left: left!, right: right! } satisfies Condition;
}

function where(call: Call): Value {
  const given = call.inputs[0] ?? call.refuse("input 0 is missing");
  const [a, b] = [call.value(1), call.value(2)];
  if (given.kind === "feature") return call.refuse("its condition depends on the inputs; expected a comparison or a constant");
  if (given.kind === "condition") {
    const condition = feature(given.shape, given.batch, given.left);
    const { shape, batch, nodes } = broadcast(call, [condition, feature(given.shape, given.batch, given.right), a, b]);
    const [left, right, above, below] = nodes as [Node, Node, Node, Node];
    const chosen =
      choose(call.graph, left, right, above, below) ??
      call.refuse("which branch it takes depends on the point, and the branches are none of a known activation");
    return feature(shape, batch, chosen);
  }
  if (a.kind === "constant" && b.kind === "constant") {
    const shape = broadcastShape(call, [given.shape, a.shape, b.shape]);
    const [mask, above, below] = [given, a, b].map((value) => (expanded(call, value, shape, null) as Constant).data);
    return constant(
      shape,
      Float64Array.from(mask!, (chosen, i) => (chosen !== 0 ? above![i]! : below![i]!)),
      a.isInteger && b.isInteger,
    );
  }
  return apply(
    call,
    [given, a, b],
    () => NaN,
    ([mask, above, below]) => {
      const truth = slopesOf(mask!).map((value) => Number(value !== 0));
      const { graph } = call;
      return graph.sum(
        graph.product(graph.constant(truth), above!),
        graph.product(graph.constant(truth.map((value) => 1 - value)), below!),
      );
    },
  );
}
