import { ModelError, quote } from "../../errors.js";
import type { Network } from "../network.js";
import { Budget } from "./onnx/budget.js";
import { decodeModel, describeNode, fail, type OnnxModel, type OnnxNode, type OnnxTensor } from "./onnx/decode.js";
import { emit } from "./onnx/emit.js";
import { Graph, replaceInputs, simplify, type Node } from "./onnx/graph.js";
import { callOperator } from "./onnx/operators.js";
import { Call, feature, type Feature, type Value } from "./onnx/values.js";

/** Which inputs and which output of the file {@link parseOnnx} takes for the field's, where their names do not say. */
export interface OnnxOptions {
  /** Where the context's columns stand in the one input that joins both: after the state's ("last", the default) or before. */
  readonly contextColumns?: "last" | "first" | undefined;
  /** The name of the input that is the state. Left out: the one called x, y, z, h, u, q, state or input, else the first. */
  readonly state?: string | undefined;
  /** The names of the inputs that are the context, in its order. Left out: all inputs but the state, in the file's order. */
  readonly context?: string | readonly string[] | undefined;
  /** The name of the output that is the velocity; needed where the file has several. */
  readonly output?: string | undefined;
}

const oldestOpset = 11;
const newestOpset = 23;

/** What people call an input that is the state, or the time and other context. */
const stateNames = new Set(["x", "y", "z", "h", "u", "q", "state", "input"]);
const contextNames = new Set(["t", "time", "times", "timestep", "timesteps", "c", "cond", "condition", "context", "s", "sigma"]);

/**
 * Reads an ONNX file of opset 11 to 23 that holds a vector field: linear layers, activations, norms, products and quotients of
 * what depends on the state, and anything that folds away, such as shapes and constants. Each input has the shape
 * [batch, size], or [size] in a file for one point; a batch that the file fixes is free here. One input of more columns than
 * the output has joins state and context. Weights are inline, in F32, F64, F16 or BF16. Softplus is PyTorch's, which is linear
 * beyond 20 and differs from ONNX's by 2e-9 there.
 *
 * @throws ModelError where the file is not valid ONNX, or holds anything else: the message names operation, node and reason.
 */
export function parseOnnx(bytes: Uint8Array | ArrayBuffer, options: OnnxOptions = {}): Network {
  if (typeof bytes !== "object" || bytes === null) fail(`the file is ${quote(bytes)}; expected its bytes`);
  const { contextColumns = "last" } = options;
  if (contextColumns !== "last" && contextColumns !== "first")
    fail(`contextColumns is ${quote(contextColumns)}; expected "last" or "first"`);
  const file = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
  const model = decodeModel(file);
  const opset = model.opsets.get("") ?? 0;
  if (!(opset >= oldestOpset && opset <= newestOpset)) fail(`the file is of opset ${opset}; expected ${oldestOpset} to ${newestOpset}`);

  const output = readOutput(model, options);
  const nodes = requiredNodes(model, output.name);
  const graph = new Graph(new Budget(file.length));
  const { inputs, fixedBatch } = readInputs(graph, model);
  const velocity = evaluate(graph, model, nodes, { output: output.name, opset, fixedBatch, inputs });
  checkOutput(output, velocity, { fixedBatch, batchName: batchNameOf(model), isBatched: inputs.some(({ value }) => value.batch !== null) });
  const { state, contextSize, replacements } = splitInputs(graph, inputs, velocity.node.width, { ...options, contextColumns });
  const field = simplify(graph, replaceInputs(graph, velocity.node, replacements));
  return emit(graph, field, state, contextSize);
}

/** An input of the file, as a node of its own until it is known which part of it is the state. */
interface Input {
  readonly name: string;
  readonly value: Feature;
}

function readOutput({ outputs }: OnnxModel, { output }: OnnxOptions): OnnxTensor {
  const names = outputs.map(({ name }) => name);
  const list = names.map(quote).join(", ") || "none";
  if (output !== undefined)
    return (
      outputs.find(({ name }) => name === output) ?? fail(`options.output is ${quote(output)}; expected one of the file's outputs, ${list}`)
    );
  const [only] = outputs;
  if (only === undefined || outputs.length > 1)
    fail(`the file has ${outputs.length} outputs (${quote(names)}); expected one, or its name in options.output`);
  return only;
}

/** What the file calls the size of a batch that it leaves free. */
function batchNameOf({ inputs, initializers }: OnnxModel): string | null {
  const names = inputs.flatMap(({ name, shape }) => (initializers.has(name) || typeof shape?.[0] !== "string" ? [] : [shape[0]]));
  return names.find((name) => name !== "?") ?? null;
}

/** The rows of the output must be the points, and its shape the one that the file declares, where it declares one. */
function checkOutput(
  { name, shape: declared }: OnnxTensor,
  { shape, batch }: Feature,
  { fixedBatch, batchName, isBatched }: { fixedBatch: number | null; batchName: string | null; isBatched: boolean },
): void {
  const sizes = shape.map((size, axis) => (axis === batch ? (fixedBatch ?? "batch") : size));
  // In a file for a batch of one point there is no other to be taken for it.
  if (batch !== null && batch !== 0 && fixedBatch !== 1)
    fail(`the output ${quote(name)} is [${sizes.join(", ")}], with the batch on axis ${batch}; expected one row for each point`);
  if (!declared) return;
  const fits = (size: number | string, axis: number): boolean => {
    if (typeof size === "string") return axis === batch || batch === null || size !== batchName || size === "?";
    // One row for all points stands for what depends on none of them.
    if (axis === batch) return fixedBatch === null ? size === 1 : size === fixedBatch;
    return size === shape[axis] || (axis === 0 && batch === null && isBatched && size === fixedBatch && shape[axis] === 1);
  };
  if (declared.length !== shape.length || !declared.every(fits))
    fail(`the output ${quote(name)} is declared as [${declared.join(", ")}], but the graph gives [${sizes.join(", ")}]`);
}

/** The nodes that the output depends on, in the file's order; others are never looked at. */
function requiredNodes({ nodes, initializers, inputs }: OnnxModel, output: string): OnnxNode[] {
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

function readInputs(graph: Graph, model: OnnxModel): { inputs: Input[]; fixedBatch: number | null } {
  // Old files list their weights among the inputs.
  const given = model.inputs.filter(({ name }) => !model.initializers.has(name));
  if (given.length === 0) fail("the graph has no inputs; expected the state");
  if (new Set(given.map(({ name }) => name)).size < given.length)
    fail(`two inputs have one name (${quote(given.map(({ name }) => name))})`);
  const batches = given.flatMap(({ shape }) => (shape && shape.length > 1 && typeof shape[0] === "number" ? [shape[0]] : []));
  const fixedBatch = batches.length > 0 ? batches.reduce((most, size) => Math.max(most, size)) : null;
  return { inputs: given.map((input) => ({ name: input.name, value: readInput(graph, input, fixedBatch) })), fixedBatch };
}

function readInput(graph: Graph, { name, shape }: OnnxTensor, fixedBatch: number | null): Feature {
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
  return feature(sizes, isBatched ? 0 : null, graph.input("state", width));
}

function evaluate(
  graph: Graph,
  model: OnnxModel,
  nodes: readonly OnnxNode[],
  file: { output: string; opset: number; fixedBatch: number | null; inputs: readonly Input[] },
): Feature {
  const values = new Map<string, Value>(file.inputs.map(({ name, value }) => [name, value]));
  for (const [name, tensor] of model.initializers) values.set(name, { kind: "constant", ...tensor });
  const given = new Set(nodes.flatMap((node) => node.outputs));
  const readers = countReaders(nodes, file.output);
  for (const node of nodes) {
    graph.origin = describeNode(node);
    if (node.domain !== "" && node.domain !== "ai.onnx")
      fail(`${graph.origin}: it is of the domain ${quote(node.domain)}; expected ONNX's own operations`);
    if (node.inputs.length > 1000) fail(`${graph.origin}: it has ${node.inputs.length} inputs; expected at most 1000`);
    const inputs = node.inputs.map((name) => {
      if (name === "") return null;
      const reason = given.has(name)
        ? "only this or a later node gives: the graph has a cycle or is not in order"
        : "nothing gives: no input, no initializer and no node";
      return values.get(name) ?? fail(`${graph.origin}: it reads ${quote(name)}, which ${reason}`);
    });
    const results = prefixed(() => callOperator(new Call({ graph, opset: file.opset, fixedBatch: file.fixedBatch }, node, inputs)), graph);
    node.outputs.forEach((name, index) => {
      const result = results[index];
      if (name === "" || !result) return;
      // Every number that folding makes passes by here.
      if (result.kind === "constant" && !inputs.some((input) => input?.kind === "constant" && input.data === result.data))
        graph.budget.take(result.data.length);
      if (readers.has(name)) values.set(name, result);
    });
    for (const name of node.inputs) {
      const left = readers.get(name)! - 1;
      readers.set(name, left);
      if (left === 0) values.delete(name);
    }
  }
  const velocity = values.get(file.output) ?? fail(`nothing gives the output ${quote(file.output)}`);
  if (velocity.kind === "condition") fail(`the output ${quote(file.output)} is a truth value; expected numbers`);
  return velocity.kind === "feature" ? velocity : feature(velocity.shape, null, graph.constant(velocity.data));
}

/** How often each value is read, the output once more; what nobody reads any longer is forgotten. */
function countReaders(nodes: readonly OnnxNode[], output: string): Map<string, number> {
  const readers = new Map([[output, 1]]);
  for (const { inputs } of nodes) for (const name of inputs) readers.set(name, (readers.get(name) ?? 0) + 1);
  return readers;
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
  inputs: readonly Input[],
  stateSize: number,
  options: OnnxOptions,
): { state: Node; contextSize: number; replacements: Map<Node, Node> } {
  const state = findState(inputs, options);
  const others = findContext(inputs, state, options);
  const joined = state.value.node.width - stateSize;
  if (joined < 0 || (joined > 0 && others.length > 0))
    fail(
      `the state ${quote(state.name)} has ${state.value.node.width} elements and the output ${stateSize}; expected a field that gives as many as its state has (options.state names another input)`,
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
    const stateFrom = options.contextColumns === "first" ? joined : 0;
    const contextFrom = options.contextColumns === "first" ? 0 : stateSize;
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

function findState(inputs: readonly Input[], { state }: OnnxOptions): Input {
  const list = quote(inputs.map(({ name }) => name));
  if (state !== undefined)
    return (
      inputs.find(({ name }) => name === state) ?? fail(`options.state is ${quote(state)}; expected one of the file's inputs, ${list}`)
    );
  const named = inputs.find(({ name }) => stateNames.has(name.toLowerCase()));
  return named ?? inputs.find(({ name }) => !contextNames.has(name.toLowerCase())) ?? inputs[0]!;
}

function findContext(inputs: readonly Input[], state: Input, { context }: OnnxOptions): Input[] {
  const others = inputs.filter((input) => input !== state);
  if (context === undefined) return others;
  const names = typeof context === "string" ? [context] : context;
  if (!Array.isArray(names) || names.length !== others.length || !others.every(({ name }) => names.includes(name)))
    fail(`options.context is ${quote(context)}; expected all inputs but the state, ${quote(others.map(({ name }) => name))}`);
  return names.map((name) => others.find((input) => input.name === name)!);
}
