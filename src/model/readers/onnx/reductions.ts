import { computed, productOfSizes, unary } from "./elementwise.js";
import { isWhole } from "./decode.js";
import type { Graph, Node } from "./graph.js";
import { Groups } from "./groups.js";
import { axesOf } from "./movement.js";
import { feature, numbersOf, timesOfBatch, type Call, type Value } from "./values.js";

/** Along the axes that are reduced; of numbers on the host, of what moves out of operations whose tangents are known. */
interface Reduction {
  readonly verb: string;
  /** Whether whole numbers give a whole number. */
  readonly staysWhole: boolean;
  /** Whether one element alone is left as it is. */
  readonly keepsOne: boolean;
  readonly ofNumbers: (numbers: readonly number[]) => number;
  /** Left out where only constants are reduced so. */
  readonly ofNodes?: (groups: Groups, node: Node, graph: Graph) => Node;
}

const sumOf = (numbers: readonly number[]): number => numbers.reduce((sum, number) => sum + number, 0);

const largestOf = (numbers: readonly number[]): number => numbers.reduce((most, number) => Math.max(most, number));

const reductions: Readonly<Record<string, Reduction>> = {
  ReduceSum: { verb: "sums", staysWhole: true, keepsOne: true, ofNumbers: sumOf, ofNodes: (groups, x) => groups.sum(x) },
  ReduceMean: {
    verb: "takes the mean",
    staysWhole: false,
    keepsOne: true,
    ofNumbers: (numbers) => sumOf(numbers) / numbers.length,
    ofNodes: (groups, x) => groups.sum(x, 1 / groups.size),
  },
  ReduceMax: {
    verb: "takes the largest",
    staysWhole: true,
    keepsOne: true,
    ofNumbers: largestOf,
    ofNodes: (groups, x) => groups.extreme(x, 1),
  },
  ReduceMin: {
    verb: "takes the smallest",
    staysWhole: true,
    keepsOne: true,
    ofNumbers: (numbers) => numbers.reduce((least, number) => Math.min(least, number)),
    ofNodes: (groups, x) => groups.extreme(x, -1),
  },
  ReduceProd: {
    verb: "multiplies",
    staysWhole: true,
    keepsOne: true,
    ofNumbers: (numbers) => numbers.reduce((product, number) => product * number, 1),
  },
  ReduceL1: {
    verb: "sums",
    staysWhole: true,
    keepsOne: false,
    ofNumbers: (numbers) => sumOf(numbers.map(Math.abs)),
    ofNodes: (groups, x, graph) => groups.sum(graph.activation(x, "abs")),
  },
  ReduceL2: {
    verb: "sums",
    staysWhole: false,
    keepsOne: false,
    ofNumbers: (numbers) => numbers.reduce((norm, number) => Math.hypot(norm, number), 0),
    // |x| = Σ x_i (x_i / |x|): a norm scales by the largest entry, where squares would leave float32. Its epsilon, below which nothing
    // counts, makes 0 of |0|, and of its derivative, as PyTorch has it: particles are at no distance from themselves.
    ofNodes: (groups, x, graph) => groups.sum(graph.product(x, groups.normalised(x, false, 2 ** -126)), 1 / Math.sqrt(groups.size)),
  },
  ReduceSumSquare: {
    verb: "sums",
    staysWhole: true,
    keepsOne: false,
    ofNumbers: (numbers) => sumOf(numbers.map((number) => number * number)),
    ofNodes: (groups, x, graph) => groups.sum(graph.activation(x, "square")),
  },
  ReduceLogSum: {
    verb: "sums",
    staysWhole: false,
    keepsOne: false,
    ofNumbers: (numbers) => Math.log(sumOf(numbers)),
    ofNodes: (groups, x, graph) => graph.activation(groups.sum(x), "log"),
  },
  ReduceLogSumExp: {
    verb: "sums",
    staysWhole: false,
    keepsOne: true,
    ofNumbers: (numbers) => {
      const most = largestOf(numbers);
      return most + Math.log(sumOf(numbers.map((number) => Math.exp(number - most))));
    },
    ofNodes: (groups, x, graph) => {
      const { most, sum } = exponentials(groups, x, graph);
      return graph.sum(most, graph.activation(sum, "log"));
    },
  },
};

export const reducing: Readonly<Record<string, (call: Call) => Value>> = {
  ...Object.fromEntries(Object.entries(reductions).map(([type, reduction]) => [type, (call: Call) => reduce(call, reduction)])),
  Softmax: (call) => softmax(call, false),
  LogSoftmax: (call) => softmax(call, true),
};

function reduce(call: Call, { verb, staysWhole, keepsOne, ofNumbers, ofNodes }: Reduction): Value {
  const value = call.value(0);
  const rank = value.shape.length;
  const given = axesOf(call, 1);
  if ((given === null || given.length === 0) && call.integer("noop_with_empty_axes", 0) !== 0) {
    if (!keepsOne) call.refuse("it reduces along no axes; expected some, since runtimes differ in what is left");
    return value;
  }
  const axes = new Set(given === null || given.length === 0 ? value.shape.map((_, axis) => axis) : call.axes(given, rank));
  if (value.kind === "feature" && value.batch !== null && axes.has(value.batch)) call.refuseBatch(verb);
  const groups = new Groups(call, value.shape, axes);
  const keepsAxes = call.integer("keepdims", 1) !== 0;
  const shape = keepsAxes ? value.shape.map((size, axis) => (axes.has(axis) ? 1 : size)) : value.shape.filter((_, axis) => !axes.has(axis));
  if (value.kind === "constant") {
    const isOfSizes = call.type === "ReduceProd" && isWhole(value.type);
    const numbers = isOfSizes ? value.data : numbersOf(call, value);
    const { elements, size } = groups;
    const ofSizes = (sizes: readonly number[]): number => productOfSizes(call, sizes);
    const reduced = call.fold(shape, value.type, (i) =>
      (isOfSizes ? ofSizes : ofNumbers)(Array.from(elements.subarray(i * size, (i + 1) * size), (at) => numbers[at]!)),
    );
    if (isWhole(value.type) && !staysWhole) call.refuse(`it reduces whole numbers (${value.type}); expected floats`);
    return isOfSizes && reduced.data.some((product) => timesOfBatch(product) !== null) ? reduced : computed(call, reduced);
  }
  if (!ofNodes) return call.refuse("it multiplies what depends on the inputs; expected a sum, a mean, a norm, or the largest or smallest");
  const batch = value.batch === null || keepsAxes ? value.batch : value.batch - [...axes].filter((axis) => axis < value.batch!).length;
  return feature(shape, batch, ofNodes(groups, value.node, call.graph), value.type);
}

/** e^(x - most) of each element, and their sums: no softmax depends on what is taken off, so the largest is, and nothing overflows. */
function exponentials(groups: Groups, x: Node, graph: Graph): { most: Node; shifted: Node; each: Node; sum: Node } {
  const most = groups.extreme(x, 1);
  const shifted = graph.sum(x, groups.spread(most), -1);
  const each = graph.activation(shifted, "exp");
  return { most, shifted, each, sum: groups.sum(each) };
}

function softmax(call: Call, isLog: boolean): Value {
  const value = call.value(0);
  const rank = value.shape.length;
  // Before opset 13 all axes from this one on are one.
  const isFlat = call.opset < 13;
  const axis = call.axis(call.integer("axis", isFlat ? 1 : -1), rank);
  const axes = new Set(isFlat ? value.shape.flatMap((_, at) => (at >= axis ? [at] : [])) : [axis]);
  if (value.kind === "feature" && value.batch !== null && axes.has(value.batch)) call.refuseBatch("divides by a sum");
  const groups = new Groups(call, value.shape, axes);
  const { graph } = call;
  return unary(call, (x) => {
    const { shifted, each, sum } = exponentials(groups, x, graph);
    return isLog
      ? graph.sum(shifted, groups.spread(graph.activation(sum, "log")), -1)
      : graph.product(each, groups.spread(graph.activation(sum, "reciprocal")));
  });
}
