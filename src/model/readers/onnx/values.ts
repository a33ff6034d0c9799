import type { Numbers } from "../../network.js";
import {
  describeNode,
  fail,
  isWhole,
  readTensor,
  type Attribute,
  type AttributeType,
  type DataType,
  type OnnxNode,
  type Tensor,
} from "./decode.js";
import type { Graph, Node, Term } from "./graph.js";

/** What a name of the graph stands for. */
export type Value = Constant | Feature | Condition;

/** Numbers that depend on nothing. In whole numbers the size of the batch, which is free, may stand among them: see {@link batchTimes}. */
export interface Constant extends Tensor {
  readonly kind: "constant";
  /** Whether these are floats that were computed here in float64, and that a run in the file's own type may round otherwise. */
  readonly isComputed?: boolean;
}

/** What depends on the inputs: the elements that one point has, row-major. */
export interface Feature {
  readonly kind: "feature";
  /**
   * With 1 in the place of the batch, so that its product is the width of the node; with more where an axis of each point is
   * joined to the batch, [batch * particles, features], whose rows then stand together for each point.
   */
  readonly shape: readonly number[];
  /** The axis of the batch; null where there is none, because the value is one for all points or the file is for one point. */
  readonly batch: number | null;
  readonly node: Node;
  /** What the file computes it in. Floats of all types are computed with as real numbers here; whole ones are moved, cast and compared. */
  readonly type: DataType;
}

/** A truth value of what depends on the inputs, as 1 or 0; it has no slope. */
export interface Condition {
  readonly kind: "condition";
  readonly shape: readonly number[];
  readonly batch: number | null;
  readonly mask: Node;
  /** Where it is left > right, or left >= right: some of those are parts of an activation. */
  readonly compared: { readonly left: Node; readonly right: Node; readonly orEqual: boolean } | null;
}

export function feature(shape: readonly number[], batch: number | null, node: Node, type: DataType): Feature {
  return { kind: "feature", shape, batch, node, type };
}

/** What stands in whole numbers for as many times the size of the batch: NaN for once, and what no whole number is for more. */
export function batchTimes(times: number): number {
  return times === 1 ? NaN : times + 0.5;
}

/** How many times the size of the batch a whole number stands for; null for one that is itself. */
export function timesOfBatch(whole: number): number | null {
  if (Number.isNaN(whole)) return 1;
  return Number.isInteger(whole) ? null : whole - 0.5;
}

/** As messages have it: "batch", or "3 batch". */
export function showBatch(times: number): string {
  return times === 1 ? "batch" : `${times} batch`;
}

/** How many rows each point has along the axis of the batch. */
export function rowsOf(value: Value): number {
  return value.kind === "constant" || value.batch === null ? 1 : value.shape[value.batch]!;
}

/** How many numbers a value is. */
export function countOf(value: Value): number {
  return value.kind === "constant" ? value.data.length : sizeOf(value.shape);
}

/** One call of an operation: its inputs, its attributes, and what is common to the whole file. */
export class Call {
  readonly graph: Graph;
  readonly opset: number;
  /** The size of the batch in a file that fixes it; constants of that size may then stand along the batch. */
  readonly fixedBatch: number | null;
  readonly inputs: readonly (Value | null)[];
  private readonly reads: (name: string) => boolean;
  private readonly node: OnnxNode;
  private readonly looked = new Set<number>();

  constructor(
    context: { graph: Graph; opset: number; fixedBatch: number | null; reads: (name: string) => boolean },
    node: OnnxNode,
    inputs: readonly (Value | null)[],
  ) {
    this.graph = context.graph;
    this.opset = context.opset;
    this.fixedBatch = context.fixedBatch;
    this.reads = context.reads;
    this.node = node;
    this.inputs = inputs;
  }

  get type(): string {
    return this.node.type;
  }

  get outputCount(): number {
    return this.node.outputs.length;
  }

  /** Whether anything reads an output. */
  isRead(index: number): boolean {
    return this.reads(this.node.outputs[index] ?? "");
  }

  refuse(reason: string): never {
    return fail(`${describeNode(this.node)}: ${reason}`);
  }

  has(index: number): boolean {
    this.looked.add(index);
    return this.inputs[index] != null;
  }

  /** An input that the operation has not looked at is one that it does not take: the file means something else by it. */
  requireLooked(): void {
    const at = this.inputs.findIndex((value, index) => value !== null && !this.looked.has(index));
    if (at >= 0) this.refuse(`it has an input ${at}, which this operation does not take`);
  }

  /** Numbers of a shape that this operation computes out of constants. */
  fold(shape: readonly number[], type: DataType, numberAt: (index: number) => number): Constant {
    const data = new Float64Array(this.graph.budget.taken(sizeOf(shape)));
    for (let i = 0; i < data.length; i++) data[i] = numberAt(i);
    return { kind: "constant", shape, type, data };
  }

  /** An input that has to be there. */
  any(index: number): Value {
    this.looked.add(index);
    return this.inputs[index] ?? this.refuse(`input ${index} is missing`);
  }

  /** An input that has to be there, and that is no truth value. */
  value(index: number): Constant | Feature {
    const value = this.any(index);
    if (value.kind === "condition") this.refuse(`input ${index} is a comparison of what depends on the inputs; expected numbers`);
    return value;
  }

  constant(index: number): Constant {
    const value = this.value(index);
    return value.kind === "constant" ? value : this.refuse(`input ${index} depends on the state or the context; expected a constant`);
  }

  /** Whole numbers of a constant input, the size of the batch among them. Of floats a NaN is none. */
  integers(index: number): number[] {
    const { data, shape, type } = this.constant(index);
    if (shape.length > 1 || !isWhole(type))
      this.refuse(`input ${index} has the shape [${shape.join(", ")}] of ${type}; expected a list of whole numbers`);
    return Array.from(data);
  }

  /** The one number of a constant input. */
  scalar(index: number): number {
    const { data, shape } = this.constant(index);
    return data.length === 1 ? data[0]! : this.refuse(`input ${index} has the shape [${shape.join(", ")}]; expected one number`);
  }

  /** A float32 attribute, as the shortest decimal number that it stands for: 0.1, not 0.10000000149011612. */
  float(name: string, otherwise: number): number {
    const value = this.attribute(name, "float")?.float ?? otherwise;
    const decimals = [6, 7, 8].map((digits) => Number(value.toPrecision(digits)));
    return decimals.find((decimal) => Math.fround(decimal) === Math.fround(value)) ?? value;
  }

  integer(name: string, otherwise: number): number {
    return this.attribute(name, "integer")?.integer ?? otherwise;
  }

  text(name: string, otherwise: string): string {
    return this.attribute(name, "text")?.text ?? otherwise;
  }

  integersOf(name: string): readonly number[] | null {
    return this.attribute(name, "integers")?.integers ?? null;
  }

  floatsOf(name: string): readonly number[] | null {
    return this.attribute(name, "floats")?.floats ?? null;
  }

  tensor(name: string): Tensor | null {
    const stored = this.attribute(name, "tensor")?.tensor ?? null;
    return stored && readTensor(stored, this.graph.budget);
  }

  private attribute(name: string, type: AttributeType): Attribute | null {
    const attribute = this.node.attributes.get(name) ?? null;
    if (attribute && attribute.type !== type) this.refuse(`its attribute ${name} is of the type ${attribute.type}; expected ${type}`);
    return attribute;
  }

  /** An axis counted from the front, of a value with this many dimensions. */
  axis(axis: number, rank: number): number {
    const counted = axis < 0 ? axis + rank : axis;
    return Number.isInteger(counted) && counted >= 0 && counted < rank
      ? counted
      : this.refuse(`axis ${axis} of ${rank} dimensions; expected one from ${-rank} to ${rank - 1}`);
  }

  /** Axes counted from the front, each named once. */
  axes(given: readonly number[], rank: number): number[] {
    const axes = given.map((axis) => this.axis(axis, rank));
    return new Set(axes).size === axes.length ? axes : this.refuse(`its axes are [${given.join(", ")}]; expected different ones`);
  }

  refuseBatch(what: string): never {
    return this.refuse(`it ${what} along the batch, which couples its points; a field treats each point alone`);
  }
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** How far apart neighbours along each axis lie. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = Array<number>(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1]! * shape[axis + 1]!;
  return strides;
}

/** The source of every element where the source's offset is a sum over the axes: offsets[axis][coordinate], summed. */
export function sourcesOf(call: Call, offsets: readonly (readonly number[])[]): Int32Array {
  const total = sizeOf(offsets.map((axis) => axis.length));
  const sources = new Int32Array(call.graph.budget.taken(total));
  let filled = Math.min(1, total);
  for (const axis of offsets.toReversed()) {
    // The elements so far repeat for each coordinate, the first copy last, since it is what the others are made from.
    for (let c = axis.length - 1; c >= 0; c--) for (let i = 0; i < filled; i++) sources[c * filled + i] = sources[i]! + axis[c]!;
    filled *= axis.length;
  }
  return sources;
}

/** The elements of a value rearranged: element i of the result is element sources[i]. */
export function moved(
  call: Call,
  value: Constant | Feature,
  shape: readonly number[],
  batch: number | null,
  sources: Int32Array,
): Constant | Feature {
  if (value.kind === "constant") {
    const length = call.graph.budget.taken(sources.length);
    const data = value.data instanceof Float32Array ? new Float32Array(length) : new Float64Array(length);
    for (let i = 0; i < length; i++) data[i] = value.data[sources[i]!]!;
    return { ...value, shape, data };
  }
  const map = { kind: "pick", columns: value.node.width, indices: sources, factors: null } as const;
  return feature(shape, batch, call.graph.mapped(value.node, map), value.type);
}

/** The same elements in the same order under another shape. */
export function reshaped(value: Constant | Feature, shape: readonly number[], batch: number | null): Constant | Feature {
  return value.kind === "constant" ? { ...value, shape } : { ...value, shape, batch };
}

/** Values brought to one shape, as ONNX broadcasts them: each as the node of its elements. */
export function broadcast(call: Call, values: readonly (Constant | Feature)[]): { shape: number[]; batch: number | null; nodes: Node[] } {
  const rank = values.reduce((most, value) => Math.max(most, value.shape.length), 0);
  const batches = new Set(
    values.flatMap((value) => (value.kind === "feature" && value.batch !== null ? [rank - value.shape.length + value.batch] : [])),
  );
  if (batches.size > 1) call.refuse("its inputs have the batch on different axes, which couples the points of a batch");
  const [batch = null] = batches;
  const rows = commonRows(call, values);
  const aligned = values.map((value) => alongBatch(call, value, batch === null ? null : batch - (rank - value.shape.length), rows));
  const shape = broadcastShape(
    call,
    aligned.map((value) => value.shape),
  );
  call.graph.budget.take(sizeOf(shape));
  const nodes = aligned.map((value) => {
    const wide = expanded(call, value, shape, batch, rows);
    return wide.kind === "feature" ? wide.node : call.graph.constant(numbersOf(call, wide));
  });
  return { shape, batch, nodes };
}

/** How many rows each point has along the batch in all of these that have one. */
export function commonRows(call: Call, values: readonly Value[]): number {
  const counts = new Set(values.flatMap((value) => (value.kind !== "constant" && value.batch !== null ? [rowsOf(value)] : [])));
  if (counts.size > 1) call.refuse(`its inputs have ${[...counts].join(" and ")} rows of each point; expected as many`);
  const [rows = 1] = counts;
  return rows;
}

/** The shape that all of these broadcast to. */
export function broadcastShape(call: Call, shapes: readonly (readonly number[])[]): number[] {
  const rank = shapes.reduce((most, shape) => Math.max(most, shape.length), 0);
  return Array.from({ length: rank }, (_, axis) => {
    const sizes = shapes.map((shape) => shape[axis - (rank - shape.length)] ?? 1);
    const size = sizes.find((candidate) => candidate !== 1) ?? 1;
    if (sizes.some((candidate) => candidate !== 1 && candidate !== size))
      call.refuse(`its inputs have the shapes ${shapes.map((shape) => `[${shape.join(", ")}]`).join(" and ")}, which do not broadcast`);
    return size;
  });
}

/** A value repeated to a shape that it broadcasts to, in which the axis of the batch stays that of single points. */
export function expanded(
  call: Call,
  value: Constant | Feature,
  shape: readonly number[],
  batch: number | null,
  rows = 1,
): Constant | Feature {
  if (batch !== null && shape[batch] !== rows) call.refuseBatch(`makes ${shape[batch]} of every point`);
  if (sizeOf(value.shape) === sizeOf(shape)) return reshaped(value, shape, batch);
  const strides = stridesOf(value.shape);
  const lead = shape.length - value.shape.length;
  const offsets = shape.map((size, axis) => {
    const stride = axis < lead || value.shape[axis - lead] === 1 ? 0 : strides[axis - lead]!;
    call.graph.budget.take(size);
    return Array.from({ length: size }, (_, c) => c * stride);
  });
  return moved(call, value, shape, batch, sourcesOf(call, offsets));
}

/** A value beside others whose batch lies on this axis: what a file with a fixed batch repeats along it stands there once. */
export function alongBatch(call: Call, value: Constant | Feature, axis: number | null, rows: number): Constant | Feature {
  const size = axis === null || axis < 0 ? 1 : value.shape[axis]!;
  if (axis === null || size === 1 || (value.kind === "feature" && value.batch !== null)) return value;
  if (rows > 1 || size !== call.fixedBatch) call.refuse(`an input has ${size} elements along the batch; expected 1`);
  const inner = sizeOf(value.shape.slice(axis + 1));
  const first = (i: number): number => i - (Math.floor(i / inner) % size) * inner;
  if (value.kind === "feature") {
    for (let i = 0; i < value.node.width; i++)
      if (!isSame(call.graph, value.node, i, first(i))) call.refuse(`an input has ${size} elements along the batch; expected 1`);
  } else {
    call.graph.budget.take(value.data.length);
    if (!value.data.every((number, i) => Object.is(number, value.data[first(i)])))
      call.refuse("a constant differs from one point of the batch to the next");
  }
  const shape = value.shape.with(axis, 1);
  const strides = stridesOf(value.shape);
  const offsets = shape.map((length, k) => Array.from({ length }, (_, c) => c * strides[k]!));
  return moved(call, value, shape, null, sourcesOf(call, offsets));
}

/** How many operations {@link isSame} follows down. */
const deepest = 8;

/** Whether two elements of a node are one number made twice, as where one time is repeated for all points. */
function isSame(graph: Graph, node: Node, i: number, j: number, depth = 0): boolean {
  graph.budget.take(1);
  if (i === j) return true;
  if (depth === deepest || node.kind === "input" || node.kind === "norm") return false;
  if (node.kind === "activation") return isSame(graph, node.operand, i, j, depth + 1);
  if (node.kind === "product") return node.operands.every((operand) => isSame(graph, operand, i, j, depth + 1));
  const isTerm = ({ node: operand, map }: Term): boolean => {
    if (map.kind === "dense" || map.factors?.[i] !== map.factors?.[j]) return false;
    const [from, other] = [map.indices[i]!, map.indices[j]!];
    return from === other || (from >= 0 && other >= 0 && isSame(graph, operand, from, other, depth + 1));
  };
  return node.bias?.[i] === node.bias?.[j] && node.terms.every(isTerm);
}

/** The numbers of a constant that is computed with; the size of the batch is none, and past 2^53 neighbours are one here. */
export function numbersOf(call: Call, { data, type }: Constant): Numbers {
  if (isWhole(type) && data.some((value) => timesOfBatch(value) !== null))
    call.refuse("it computes with the size of the batch, which is free");
  const far = isWhole(type) ? data.find((value) => !Number.isSafeInteger(value)) : undefined;
  if (far !== undefined) call.refuse(`it computes with ${far} (${type}); expected whole numbers up to 2^53`);
  return data;
}
