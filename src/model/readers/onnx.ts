import { ModelError, quote } from "../../errors.js";
import type { Network } from "../network.js";
import { Budget } from "./onnx/budget.js";
import {
  dataTypeOf,
  decodeModel,
  describeNode,
  fail,
  isWhole,
  knownTypes,
  readTensor,
  type OnnxModel,
  type OnnxNode,
  unnamed,
  type OnnxValue,
} from "./onnx/decode.js";
import { emit } from "./onnx/emit.js";
import { inlined } from "./onnx/functions.js";
import { nameTensors } from "./onnx/names.js";
import { constantOf, Graph, replaceInputs, simplify, type Node } from "./onnx/graph.js";
import { callOperator } from "./onnx/operators.js";
import { Call, feature, rowsOf, showBatch, type Feature, type Value } from "./onnx/values.js";

/** Which inputs and which output of the file {@link parseOnnx} takes for the field's, where their names do not say. */
export interface OnnxOptions {
  /** Where the context's columns stand in the one input that joins both: after the state's ("last", the default) or before. */
  readonly contextColumns?: "last" | "first" | undefined;
  /**
   * The name of the input that is the state. Left out: the only one of the output's size; of several, the one that its name tells
   * from the others, x or theta beside t or sigma, and an error where names do not.
   */
  readonly state?: string | undefined;
  /** The names of the inputs that are the context, in its order. Left out: all inputs but the state, in the file's order. */
  readonly context?: string | readonly string[] | undefined;
  /** The name of the output that is the velocity. Left out: the only one, or the only one of an input's size (of a potential, of one number). */
  readonly output?: string | undefined;
  /** Whether the output is one number, a potential that {@link gradientField} makes a field of, and no velocity. Default false. */
  readonly potential?: boolean | undefined;
  /** Of a potential: how many columns of the one input are context. Default 0. */
  readonly contextSize?: number | undefined;
  /**
   * The bytes of files beside the model that hold its weights, by the location that the model gives ("field.onnx.data"), as
   * PyTorch's exporter writes them: a Map, or anything that gives them.
   */
  readonly externalData?:
    | {
        /** The bytes of the file at this location, as the model writes it; undefined where there is none. */
        get(location: string): Uint8Array | undefined;
      }
    | undefined;
}

const oldestOpset = 7;
const newestOpset = 25;

/** What people call an input that is the state, or the time and other context, without the ornaments of exporters. */
const stateNames = new Set("x xt x_t y z zt z_t h u q theta state states input sample points position positions".split(" "));
const contextNames = new Set(
  "t time times timestep timesteps tau s sigma sigmas noise noise_level logsnr c cond conds condition conditions conditioning context ctx observation observations obs label labels class_labels params parameters".split(
    " ",
  ),
);
const ornaments = /^(serving_default_|onnx::|inputs?_(?=\D))|(:\d+|[._]\d+)$/g;

/**
 * Reads an ONNX file of opset 7 to 25 that holds a vector field: linear layers, activations, norms, products and quotients of
 * what depends on the state, and anything that folds away, such as shapes and constants. Each input has the shape
 * [batch, size], or [size] in a file for one point; a batch that the file fixes is free here. One input of more columns than
 * the output has joins state and context. The output has the state's shape, a row for each point; with `potential` it is one number for
 * each, [batch, 1] or [batch]. Weights are F32, F64, F16
 * or BF16, in the file or in `options.externalData`, or constants that DequantizeLinear reads. Softplus is PyTorch's, which is linear beyond 20 and differs from ONNX's by 2e-9 there.
 *
 * @throws ModelError where the file is not valid ONNX, or holds anything else: the message names operation, node and reason.
 */
export function parseOnnx(bytes: Uint8Array | ArrayBuffer, options: OnnxOptions = {}): Network {
  if (typeof bytes !== "object" || bytes === null) fail(`the file is ${quote(bytes)}; expected its bytes`);
  const { contextColumns = "last", potential = false } = options;
  if (contextColumns !== "last" && contextColumns !== "first")
    fail(`contextColumns is ${quote(contextColumns)}; expected "last" or "first"`);
  if (typeof potential !== "boolean") fail(`options.potential is ${quote(potential)}; expected true or false`);
  if (!potential && options.contextSize !== undefined)
    fail(`options.contextSize is ${quote(options.contextSize)}; expected none but of a potential, since a velocity's size tells it`);
  const file = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
  const graph = new Graph(new Budget(file.length));
  const model = decodeModel(file, graph.budget, options.externalData ?? new Map());
  const opset = model.opsets.get("") ?? 0;
  for (const version of [opset, ...Array.from(model.functions.values(), (body) => body.opset ?? opset)])
    if (!(version >= oldestOpset && version <= newestOpset))
      fail(`the file is of opset ${version}; expected ${oldestOpset} to ${newestOpset}`);

  const output = readOutput(model, options);
  const nodes = requiredNodes(model, inlined(model, graph.budget), output.name);
  const { inputs, batch } = readInputs(graph, model);
  const velocity = evaluate(graph, model, nodes, { output: output.name, opset, fixedBatch: batch.fixedBatch, inputs });
  requireDeclared(output, velocity, batch);
  const { state: given, why } = findState(inputs, velocity, options);
  requireRows(output, velocity, given, potential);
  const others = findContext(inputs, given, options);
  const size = potential ? readPotentialSize(output, velocity, given, others, options) : velocity.node.width;
  const { state, contextSize, replacements } = splitInputs(graph, given, others, size, contextColumns);
  const field = simplify(graph, replaceInputs(graph, velocity.node, replacements));
  if (potential && constantOf(field))
    fail(`the output ${quote(output.name)} is the same for all inputs; expected a potential of the state`);
  const own = given.value.shape.filter((_, axis) => axis !== given.value.batch);
  const shape = own.length > 1 && given.value.node.width === state.width ? { stateShape: own } : {};
  const network = emit(graph, field, state, contextSize);
  return {
    ...network,
    ...shape,
    tensors: nameTensors(model, nodes, network.operations, graph.budget),
    notes: describeReading(output, size, given, why, others, contextColumns, potential),
  };
}

/** An input of the file, as a node of its own until it is known which part of it is the state. */
interface Input {
  readonly name: string;
  readonly value: Feature;
}

/** The size that the file gives its batch, if it does, and the name. */
interface Batch {
  readonly fixedBatch: number | null;
  readonly batchName: string | null;
}

function readOutput({ inputs, initializers, outputs }: OnnxModel, { output, potential }: OnnxOptions): OnnxValue {
  const list = outputs.map(showValue).join(", ") || "none";
  if (output !== undefined)
    return (
      outputs.find(({ name }) => name === output) ?? fail(`options.output is ${quote(output)}; expected one of the file's outputs, ${list}`)
    );
  const sizes = potential ? [1] : inputs.filter(({ name }) => !initializers.has(name)).map(declaredSize);
  const fitting = outputs.filter((value) => declaredSize(value) !== null && sizes.includes(declaredSize(value)));
  const [only] = outputs.length === 1 ? outputs : outputs.every((value) => declaredSize(value) !== null) ? fitting : [];
  if (only && (outputs.length === 1 || fitting.length === 1)) return only;
  return fail(
    `the file has ${outputs.length} outputs, ${list}; expected one of ${potential ? "one number" : "the state's size"}, or its name in options.output`,
  );
}

/** How many numbers a point has there, as far as the file says so. */
function declaredSize({ shape }: OnnxValue): number | null {
  if (!shape) return null;
  const sizes = shape.slice(1);
  return sizes.reduce<number | null>((product, size) => (product === null || typeof size === "string" ? null : product * size), 1);
}

function showValue({ name, shape }: OnnxValue): string {
  return `${quote(name)} [${shape?.map(show).join(", ") ?? "?"}]`;
}

/** The nodes that the output depends on, in the file's order; others are never looked at. */
function requiredNodes({ initializers, inputs }: OnnxModel, nodes: readonly OnnxNode[], output: string): OnnxNode[] {
  const givers = new Map<string, OnnxNode>();
  const taken = new Set([...initializers.keys(), ...inputs.map(({ name }) => name)]);
  for (const node of nodes)
    for (const name of node.outputs) {
      if (name === "") continue;
      if (givers.has(name) || taken.has(name))
        fail(`${describeNode(node)} gives ${quote(name)}, which something else gives too; expected a name of its own`);
      givers.set(name, node);
    }
  const required = new Set<OnnxNode>();
  const names = [output];
  for (let name = names.pop(); name !== undefined; name = names.pop()) {
    const node = givers.get(name);
    if (!node || required.has(node)) continue;
    required.add(node);
    for (const input of node.inputs) names.push(input);
  }
  return nodes.filter((node) => required.has(node));
}

function readInputs(graph: Graph, model: OnnxModel): { inputs: Input[]; batch: Batch } {
  // Old files list their weights among the inputs.
  const given = model.inputs.filter(({ name }) => !model.initializers.has(name));
  if (given.length === 0) fail("the graph has no inputs; expected the state");
  if (new Set(given.map(({ name }) => name)).size < given.length)
    fail(`two inputs have one name (${quote(given.map(({ name }) => name))})`);
  // Beside a batch of any size, one row is one for all points.
  const isFree = given.some(({ shape }) => typeof shape?.[0] === "string");
  const batches = given.flatMap(({ shape }) =>
    shape && shape.length > 1 && typeof shape[0] === "number" && !(isFree && shape[0] === 1) ? [shape[0]] : [],
  );
  const fixedBatch = batches.length > 0 ? batches.reduce((most, size) => Math.max(most, size)) : null;
  const batchName = given.flatMap(({ shape }) => (typeof shape?.[0] === "string" && shape[0] !== unnamed ? [shape[0]] : []))[0] ?? null;
  const read = given.map((input) => ({ name: input.name, value: readInput(graph, input, fixedBatch) }));
  return { inputs: read, batch: { fixedBatch, batchName } };
}

function readInput(graph: Graph, { name, typeNumber, shape }: OnnxValue, fixedBatch: number | null): Feature {
  const type = dataTypeOf(typeNumber) ?? fail(`input ${quote(name)} is of the type ${typeNumber}; expected ${knownTypes}`);
  if (!shape) fail(`input ${quote(name)} has no shape; expected [batch, size]`);
  const [first] = shape;
  const isBatched =
    shape.length > 1
      ? typeof first === "string" || first === fixedBatch
      : typeof first === "string" || (first === fixedBatch && first !== 1);
  const sizes = shape.map((size, axis) => {
    if (axis === 0 && shape.length > 0 && isBatched) return 1;
    if (typeof size === "string" || !(Number.isSafeInteger(size) && size > 0))
      fail(
        `input ${quote(name)} has the shape [${shape.map(quote).join(", ")}]; expected [batch, size] with a size that is a whole number`,
      );
    return size;
  });
  const width = sizes.reduce((product, size) => product * size, 1);
  graph.budget.take(width);
  return feature(sizes, isBatched ? 0 : null, graph.input("state", width), type);
}

function evaluate(
  graph: Graph,
  model: OnnxModel,
  nodes: readonly OnnxNode[],
  file: { output: string; opset: number; fixedBatch: number | null; inputs: readonly Input[] },
): Feature {
  const values = new Map<string, Value>(file.inputs.map(({ name, value }) => [name, value]));
  const reads = countReads(nodes, file.output);
  const valueOf = (name: string): Value | null => {
    const stored = model.initializers.get(name);
    if (stored && !values.has(name)) values.set(name, { kind: "constant", ...readTensor(stored, graph.budget) });
    return values.get(name) ?? null;
  };
  const given = new Set(nodes.flatMap((node) => node.outputs));
  for (const node of nodes) {
    graph.origin = describeNode(node);
    if (!["", "ai.onnx"].includes(node.domain) && !(node.domain === "ai.onnx.ml" && node.type === "Scaler"))
      fail(`${graph.origin}: it is of the domain ${quote(node.domain)}; expected ONNX's own operations`);
    graph.budget.take(node.inputs.length);
    if (node.inputs.length > 1000) fail(`${graph.origin}: it has ${node.inputs.length} inputs; expected at most 1000`);
    const inputs = node.inputs.map((name) => {
      if (name === "") return null;
      const reason = given.has(name)
        ? "only this or a later node gives: the graph has a cycle or is not in order"
        : "nothing gives: no input, no initializer and no node";
      return valueOf(name) ?? fail(`${graph.origin}: it reads ${quote(name)}, which ${reason}`);
    });
    // What no later node reads is freed.
    for (const name of node.inputs) {
      const left = (reads.get(name) ?? 0) - 1;
      reads.set(name, left);
      if (left === 0) values.delete(name);
    }
    const results = prefixed(
      () =>
        callOperator(
          new Call({ graph, opset: node.opset ?? file.opset, fixedBatch: file.fixedBatch, reads: (name) => reads.has(name) }, node, inputs),
        ),
      graph,
    );
    node.outputs.forEach((name, index) => {
      if (reads.has(name) && results[index]) values.set(name, results[index]);
    });
  }
  const velocity = valueOf(file.output) ?? fail(`nothing gives the output ${quote(file.output)}`);
  if (velocity.kind === "condition") fail(`the output ${quote(file.output)} is a truth value; expected numbers`);
  if (isWhole(velocity.type)) fail(`the output ${quote(file.output)} is of the type ${velocity.type}; expected floats`);
  return velocity.kind === "feature" ? velocity : feature(velocity.shape, null, graph.constant(velocity.data), velocity.type);
}

/** How often each name is read, left out inputs apart. */
function countReads(nodes: readonly OnnxNode[], output: string): Map<string, number> {
  const reads = new Map([[output, 1]]);
  for (const { inputs } of nodes) for (const name of inputs) if (name !== "") reads.set(name, (reads.get(name) ?? 0) + 1);
  return reads;
}

/** The shape that the file declares for its output is the one that its nodes give. */
function requireDeclared({ name, shape }: OnnxValue, velocity: Feature, { fixedBatch, batchName }: Batch): void {
  const fits = (size: number | string, axis: number): boolean => {
    if (axis === velocity.batch) return typeof size === "string" || size === (fixedBatch ?? NaN) * velocity.shape[axis]!;
    return typeof size === "string" ? size !== batchName : size === velocity.shape[axis];
  };
  if (shape && (shape.length !== velocity.shape.length || !shape.every(fits)))
    fail(`the output ${quote(name)} is declared as [${shape.map(show).join(", ")}]; expected ${showShape(velocity)}, which its nodes give`);
}

/** The output has a row for each point, as the state has, and each element of it stands where that of the state does. */
function requireRows({ name }: OnnxValue, velocity: Feature, state: Input, potential: boolean): void {
  const expected = state.value;
  if (isWhole(expected.type)) fail(`the state ${quote(state.name)} is of the type ${expected.type}; expected floats`);
  if (expected.batch === null && expected.shape.length > 1 && expected.shape[0] !== 1)
    fail(`the state ${quote(state.name)} has the shape ${showShape(expected)}, and another input other rows; expected one batch`);
  if (velocity.batch !== expected.batch || rowsOf(velocity) > 1)
    fail(
      `the output ${quote(name)} has the shape ${showShape(velocity)} where the state ${quote(state.name)} has ${showShape(expected)}; expected a row for each point, along the same axis`,
    );
  if (potential) return;
  const [given, own] = [velocity, expected].map(({ shape }) => shape.filter((size) => size !== 1)) as [number[], number[]];
  const isJoined = expected.node.width > velocity.node.width && own.length <= 1 && given.length <= 1;
  if (expected.node.width >= velocity.node.width && !isJoined && String(given) !== String(own))
    fail(
      `the output ${quote(name)} has the shape ${showShape(velocity)} where the state ${quote(state.name)} has ${showShape(expected)}; expected the same, or that of some columns of a state of one dimension`,
    );
}

/** How many of the numbers of its one input are the state of a potential. */
function readPotentialSize(
  { name }: OnnxValue,
  potential: Feature,
  state: Input,
  others: readonly Input[],
  { contextSize = 0 }: OnnxOptions,
): number {
  if (potential.node.width !== 1)
    fail(`the output ${quote(name)} has the shape ${showShape(potential)}; expected one number of a potential`);
  const { width } = state.value.node;
  if (!(Number.isInteger(contextSize) && contextSize >= 0 && contextSize < width))
    fail(`options.contextSize is ${quote(contextSize)}; expected a whole number below ${width}, the size of the input ${showInput(state)}`);
  if (contextSize > 0 && others.length > 0)
    fail(`options.contextSize is ${quote(contextSize)}; expected none where the context is ${others.map(showInput).join(", then ")}`);
  return width - contextSize;
}

function showShape({ shape, batch }: Feature): string {
  return `[${shape.map((size, axis) => (axis === batch ? showBatch(size) : size)).join(", ")}]`;
}

function show(size: number | string): string {
  return typeof size === "string" ? size : String(size);
}

/** Messages of an activation's parameters begin like all others. */
function prefixed<T>(read: () => T, { origin }: Graph): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof ModelError && !error.message.startsWith("onnx: ") ? new ModelError(`onnx: ${origin}: ${error.message}`) : error;
  }
}

/** Which inputs, or which columns of the only one, are the state and the context. */
function splitInputs(
  graph: Graph,
  state: Input,
  others: readonly Input[],
  stateSize: number,
  contextColumns: "last" | "first",
): { state: Node; contextSize: number; replacements: Map<Node, Node> } {
  const joined = state.value.node.width - stateSize;
  if (joined < 0 || (joined > 0 && others.length > 0))
    fail(
      `the state ${quote(state.name)} has ${state.value.node.width} elements and the output ${stateSize}; expected a field that gives as many as its state has (options.state names another input; the inputs are ${[state, ...others].map(showInput).join(", ")})`,
    );
  const contextSize = joined + others.reduce((sum, { value }) => sum + value.node.width, 0);
  graph.origin = "the inputs";
  const stateNode = graph.input("state", stateSize);
  const contextNode = graph.input("context", contextSize);
  const part = (
    node: Node,
    width: number,
    from: number,
    columns: number,
  ): { node: Node; map: { kind: "pick"; columns: number; indices: Int32Array; factors: null } } => {
    graph.budget.take(width);
    const indices = Int32Array.from({ length: width }, (_, i) => (i >= from && i < from + columns ? i - from : -1));
    return { node, map: { kind: "pick", columns: node.width, indices, factors: null } };
  };
  if (joined > 0) {
    const stateFrom = contextColumns === "first" ? joined : 0;
    const contextFrom = contextColumns === "first" ? 0 : stateSize;
    const width = stateSize + joined;
    const both = graph.linear([part(stateNode, width, stateFrom, stateSize), part(contextNode, width, contextFrom, joined)]);
    return { state: stateNode, contextSize, replacements: new Map([[state.value.node, both]]) };
  }
  const replacements = new Map([[state.value.node, stateNode]]);
  let from = 0;
  for (const { value } of others) {
    const { width } = value.node;
    graph.budget.take(width);
    const start = from;
    const indices = Int32Array.from({ length: width }, (_, i) => start + i);
    replacements.set(value.node, graph.mapped(contextNode, { kind: "pick", columns: contextSize, indices, factors: null }));
    from += width;
  }
  return { state: stateNode, contextSize, replacements };
}

/** Never by its place: an exporter's order says nothing. */
function findState(inputs: readonly Input[], velocity: Feature, { state, potential = false }: OnnxOptions): { state: Input; why: string } {
  const list = inputs.map(showInput).join(", ");
  if (state !== undefined) {
    const told = inputs.find(({ name }) => name === state);
    return {
      state: told ?? fail(`options.state is ${quote(state)}; expected one of the file's inputs, ${list}`),
      why: "as options.state says",
    };
  }
  const [first] = inputs;
  if (first && inputs.length === 1) return { state: first, why: "the only input" };
  const { width } = velocity.node;
  // A potential's one number tells of no size.
  const fitting = inputs.filter(({ value }) => (potential || value.node.width === width) && !isWhole(value.type));
  const [only] = fitting;
  if (only && fitting.length === 1)
    return { state: only, why: potential ? "the only input of floats" : "the only input of the output's size" };
  const named = fitting.filter(({ name }) => stateNames.has(plainName(name)));
  const rest = fitting.filter(({ name }) => contextNames.has(plainName(name)));
  const [byName] = named;
  if (byName && named.length === 1 && rest.length === fitting.length - 1) return { state: byName, why: "by its name" };
  if (fitting.length === 0)
    return fail(`none of the inputs ${list} has the output's size, ${width}; expected a field that gives as many numbers as its state has`);
  return fail(
    `the inputs ${fitting.map(showInput).join(", ")} are ${potential ? "all floats" : "of the output's size"}, and their names do not say which one is the state; expected its name in options.state`,
  );
}

function plainName(name: string): string {
  return name.toLowerCase().replaceAll(ornaments, "");
}

function showInput({ name, value }: Input): string {
  return `${quote(name)} ${showShape(value)}`;
}

/** What the file does not say by itself, for people to check. */
function describeReading(
  output: OnnxValue,
  size: number,
  state: Input,
  why: string,
  context: readonly Input[],
  contextColumns: "last" | "first",
  potential: boolean,
): string[] {
  const joined = state.value.node.width - size;
  const columns = joined > 0 ? `the ${contextColumns === "last" ? "first" : "last"} ${size} columns of ` : "";
  const notes = [`the state is ${columns}the input ${showInput(state)}, ${why}`];
  if (joined > 0)
    notes.push(
      `the context is its ${contextColumns} ${joined} (options.contextColumns may say ${contextColumns === "last" ? "first" : "last"})`,
    );
  if (context.length > 0) notes.push(`the context is ${context.map(showInput).join(", then ")}`);
  if (potential) notes.push(`${output.name} is a potential, whose gradient by ${state.name} is the field`);
  else
    notes.push(
      `the divergence is Σ_i ∂${output.name}_i/∂${state.name}_i; whether they belong together in this order is the maker's to know`,
    );
  return notes;
}

function findContext(inputs: readonly Input[], state: Input, { context }: OnnxOptions): Input[] {
  const others = inputs.filter((input) => input !== state);
  if (context === undefined) return others;
  const names = typeof context === "string" ? [context] : context;
  if (!Array.isArray(names) || names.length !== others.length || !others.every(({ name }) => names.includes(name)))
    fail(`options.context is ${quote(context)}; expected all inputs but the state, ${others.map(showInput).join(", ") || "none"}`);
  return names.map((name) => others.find((input) => input.name === name)!);
}
