import { largestClip } from "../../activation.js";
import type { Numbers } from "../../network.js";
import { fitsType, isWhole } from "./decode.js";
import { constantOf, type Graph, type Node } from "./graph.js";
import {
  batchTimes,
  broadcast,
  broadcastShape,
  expanded,
  feature,
  numbersOf,
  rowsOf,
  timesOfBatch,
  type Call,
  type Constant,
  type Feature,
  type Value,
} from "./values.js";

/** What is computed with: a truth value is not. */
export type Numeric = Constant | Feature;

/** An elementwise operation: on numbers where all inputs are constant, else on nodes of one width. */
export function apply(
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
    return computed(
      call,
      call.fold(shape, type, (i) => onNumbers(a[i]!, b[i]!)),
    );
  }
  const { shape, batch, nodes } = broadcast(call, values);
  return feature(shape, batch, onNodes(...nodes), type);
}

/** Floats of several types are computed with alike; whole numbers beside them, or beside others, are not. */
export function requireOneType(call: Call, values: readonly Numeric[]): void {
  const types = new Set(values.map(({ type }) => type));
  if (types.size > 1 && [...types].some(isWhole)) call.refuse(`its inputs are of the types ${[...types].join(" and ")}; expected one type`);
}

/** Computed whole numbers have to be some, and within their type; floats are marked, which are computed in float64 here. */
export function computed(call: Call, value: Constant): Constant {
  const bad = isWhole(value.type) ? value.data.find((x) => !fitsType(x, value.type)) : undefined;
  return bad === undefined
    ? { ...value, isComputed: !isWhole(value.type) && value.type !== "DOUBLE" }
    : call.refuse(`it makes ${bad} of whole numbers (${value.type}); expected one within its type`);
}

export function unary(call: Call, onNode: (node: Node) => Node): Value {
  const value = call.value(0);
  if (value.kind === "feature") return { ...value, node: onNode(value.node) };
  const result = onNode(call.graph.constant(numbersOf(call, value)));
  if (result.kind !== "linear" || !result.bias) return call.refuse("a constant did not fold");
  return computed(call, { ...value, data: result.bias });
}

export function binary(call: Call, onNumbers: (a: number, b: number) => number, onNodes: (a: Node, b: Node) => Node): Numeric {
  const [a, b] = [call.value(0), call.value(1)];
  return computeSizes(call, a, b) ?? apply(call, [a, b], onNumbers, onNodes);
}

/** An elementwise operation whose second input is repeated to the shape of the first, never the other way round. */
export function onto(
  call: Call,
  first: Numeric,
  second: Numeric,
  onNumbers: (a: number, b: number) => number,
  onNodes: (a: Node, b: Node) => Node,
): Numeric {
  const axis = first.kind === "feature" ? first.batch : null;
  const target = axis === null || rowsOf(first) > 1 ? first.shape : first.shape.with(axis, call.fixedBatch ?? 1);
  if (!broadcastsTo(second.shape, target))
    call.refuse(`an input has the shape [${second.shape.join(", ")}]; expected one that broadcasts to [${first.shape.join(", ")}]`);
  return apply(call, [first, second], onNumbers, onNodes);
}

function broadcastsTo(shape: readonly number[], target: readonly number[]): boolean {
  const lead = target.length - shape.length;
  return lead >= 0 && shape.every((size, axis) => size === 1 || size === target[axis + lead]);
}

/** Exporters multiply the size of the batch on its way to Expand and Reshape, and take the larger of it and 1. */
function computeSizes(call: Call, a: Numeric, b: Numeric): Constant | null {
  const onSizes = call.type === "Mul" ? productOfSizes : call.type === "Max" ? largestOfSizes : null;
  if (!onSizes || a.kind !== "constant" || b.kind !== "constant" || !isWhole(a.type) || a.type !== b.type) return null;
  if (![...a.data, ...b.data].some((size) => timesOfBatch(size) !== null)) return null;
  const shape = broadcastShape(call, [a.shape, b.shape]);
  const [left, right] = [a, b].map((value) => (expanded(call, value, shape, null) as Constant).data);
  return call.fold(shape, a.type, (i) => onSizes(call, [left![i]!, right![i]!]));
}

/** A batch has a point at least. */
function largestOfSizes(call: Call, sizes: readonly number[]): number {
  const most = sizes.reduce((largest, size) => Math.max(largest, timesOfBatch(size) ?? size), -Infinity);
  const ofBatch = sizes.flatMap((size) => timesOfBatch(size) ?? []);
  if (ofBatch.length === 0) return most;
  return ofBatch.includes(most) ? batchTimes(most) : call.refuse("it computes with the size of the batch, which is free");
}

/** Of whole numbers, of which one may be the size of the batch, or times it, beside others above 0. */
export function productOfSizes(call: Call, sizes: readonly number[]): number {
  const times = sizes.map((size) => timesOfBatch(size) ?? size);
  const product = times.reduce((total, size) => total * size, 1);
  const batches = sizes.filter((size) => timesOfBatch(size) !== null).length;
  if (batches === 0) return product;
  if (batches > 1 || !(product >= 1 && product < 2 ** 31)) call.refuse("it computes with the size of the batch, which is free");
  return batchTimes(product);
}

export function variadic(call: Call, onNumbers: (a: number, b: number) => number, onNodes: (a: Node, b: Node) => Node): Numeric {
  const values = call.inputs.map((_, i) => call.value(i));
  const first = values[0] ?? call.refuse("it has no inputs");
  return values.slice(1).reduce((a, b) => computeSizes(call, a, b) ?? apply(call, [a, b], onNumbers, onNodes), first);
}

export function scale(call: Call, value: Numeric, factor: number): Numeric {
  if (factor === 1) return value;
  return apply(
    call,
    [value],
    (x) => x * factor,
    (x) => call.graph.scaled(x, factor),
  );
}

export function reciprocal(call: Call, value: Numeric): Numeric {
  if (value.kind === "feature") return { ...value, node: call.graph.activation(value.node, "reciprocal") };
  const numbers = numbersOf(call, value);
  return call.fold(value.shape, value.type, (i) => 1 / numbers[i]!);
}

/** The larger (sign 1) or the smaller (sign -1): a clip beside one constant number, else the one that is so; the mean of two that are equal. */
export function extreme(call: Call, a: Node, b: Node, sign: 1 | -1): Node {
  const { graph } = call;
  const [given, other] = constantOf(a) ? [a, b] : [b, a];
  const bound = uniformConstant(given);
  if (bound !== null) return sign === 1 ? clip(call, other, bound, Infinity) : clip(call, other, -Infinity, bound);
  return select(graph, graph.scaled(graph.activation(graph.sum(a, b, -1), "sign"), sign / 2, 0.5), a, b);
}

/** a where the mask is 1, b where it is 0. A mask jumps, and has no slope. */
export function select(graph: Graph, mask: Node, a: Node, b: Node): Node {
  return graph.sum(graph.product(mask, a), graph.product(graph.scaled(mask, -1, 1), b));
}

/** 1 where z > 0, or z >= 0, else 0. */
export function isAbove(graph: Graph, z: Node, orEqual: boolean): Node {
  if (orEqual) return graph.scaled(isAbove(graph, graph.scaled(z, -1), false), -1, 1);
  return graph.activation(graph.activation(z, "sign"), "relu");
}

/** 1 where z is 0, else 0. */
export function isZero(graph: Graph, z: Node): Node {
  return graph.scaled(graph.activation(graph.activation(z, "sign"), "abs"), -1, 1);
}

/** The number that all elements of a constant node are; null of another. */
export function uniformConstant(node: Node): number | null {
  const numbers = constantOf(node);
  const first = numbers?.[0];
  return first !== undefined && numbers!.every((value) => value === first) ? first : null;
}

export function clip(call: Call, x: Node, low: number, high: number): Node {
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

/** 1 where a number is that of the place, or counts to it from the end below 0, else 0: [elements of the node, places]. */
export function placesOf({ graph }: Call, node: Node, places: number): Node {
  const count = node.width * places;
  // Of what follows, before any of it is made.
  graph.budget.take(16 * count);
  const indices = Int32Array.from({ length: count }, (_, i) => Math.floor(i / places));
  const hits = (end: number): Node => {
    const own = Float64Array.from({ length: count }, (_, i) => end - (i % places));
    return isZero(graph, graph.mapped(node, { kind: "pick", columns: node.width, indices, factors: null }, own));
  };
  return graph.sum(hits(0), hits(places));
}
