/** Plans as ONNX models: what goes into one and comes out of it. */
import type { Wrt } from "../inputs.js";
import type { Graph } from "../plan/graph.js";
import { sizeOf, OUTPUTS, type Output } from "../plan/outputs.js";
import type { GradientPlan, Plan, TracePlan, ValuePlan } from "../plan/plan.js";
import { tangentsOf } from "../plan/program.js";
import { Forward, type Value } from "./forward.js";
import { Nodes, type Port } from "./nodes.js";
import { Program, type Given } from "./program.js";

const BATCH = "batch";

/** Those of the models that a session runs. */
const OPSET = 17;

/** An output of the model, and the tensor that it is of. */
export type OutputPort = Port & { readonly of: string };

/**
 * A model of a field as it begins: x, [batch, d], and where there is a context, context, [batch, c] or [1, c].
 * @param others what a field's own models are given besides; null for a file.
 */
export function openModel(
  graph: Graph,
  opset: number,
  contextPer: "point" | "batch",
  outputs: readonly string[],
  others: readonly Port[] | null = null,
): Forward {
  const { stateSize: d, contextSize: c } = graph;
  const context = c > 0 ? [{ name: "context", shape: [contextPer === "batch" ? 1 : BATCH, c] }] : [];
  const nodes = new Nodes(opset, others !== null, [{ name: "x", shape: [BATCH, d] }, ...context, ...(others ?? [])], outputs);
  return new Forward(nodes, graph, { x: "x", context: "context", sharesContext: contextPer === "batch" });
}

/** An output with a row for each point, [batch, ...shape], of a value whose rows have as many numbers. */
export function rowsPort({ nodes }: Forward, name: string, shape: readonly number[], value: Value): OutputPort {
  const columns = shape.length === 0 ? nodes.op("Squeeze", [value.name, nodes.integers([1])]) : value.name;
  return { name, shape: [BATCH, ...shape], of: value.ofPoints ? columns : forEachPoint(nodes, columns, shape) };
}

/** What all points share, once for each. */
function forEachPoint(nodes: Nodes, tensor: string, shape: readonly number[]): string {
  const count = nodes.op("Slice", [nodes.op("Shape", ["x"]), nodes.integers([0]), nodes.integers([1])]);
  const target = shape.length > 0 ? nodes.op("Concat", [count, nodes.integers(shape)], { axis: { int: 0 } }) : count;
  return nodes.op("Expand", [tensor, target]);
}

/** What an evaluation gives, by the instructions of its plan. */
export function evaluated(
  forward: Forward,
  plan: TracePlan | ValuePlan,
  outputs: readonly Output[],
  given: Given = {},
): Map<Output, Value> {
  const found = new Map<Output, Value>();
  if (plan.kind === "trace") {
    const program = new Program(forward, plan.tangents, given);
    for (const instruction of tangentsOf(plan.instructions)) program.run(instruction);
    for (const output of outputs) if (output !== "value") found.set(output, program[output]);
  }
  if (outputs.includes("value")) found.set("value", forward.value(plan.graph.output.index));
  return found;
}

/** Of an evaluation, by any method but "difference": its outputs by their names; of an estimate "terms", [batch, K], in place of the divergence. */
export function evaluationModel(plan: TracePlan | ValuePlan, contextPer: "point" | "batch"): Uint8Array {
  const { graph, outputs } = plan;
  const estimates = plan.kind === "trace" && plan.probesPer !== null;
  const wanted = outputs.map((output) => (estimates && output === "divergence" ? "diagonal" : output));
  const names = wanted.map((output) => (estimates && output === "diagonal" ? "terms" : output));
  const probes = probesPort(plan);
  const forward = openModel(graph, OPSET, contextPer, names, probes ? [probes] : []);
  const found = evaluated(forward, plan, wanted, givenBy(probes));
  const shapeOf = (output: Output): readonly number[] =>
    estimates && output === "diagonal" ? [plan.tangents] : OUTPUTS[output].shape(graph.stateSize);
  return forward.nodes.encode(
    wanted.map((output, index) => rowsPort(forward, names[index]!, shapeOf(output), found.get(output)!)),
    describe(plan),
  );
}

/** Of jvp: tangents, [batch, d], to tangent, J t, and value where the plan has it. */
export function jvpModel(plan: TracePlan, contextPer: "point" | "batch"): Uint8Array {
  const { graph, outputs, instructions, tangents } = plan;
  const { stateSize: d } = graph;
  const port = { name: "tangents", shape: [BATCH, d] };
  const forward = openModel(graph, OPSET, contextPer, ["tangent", ...outputs], [port]);
  const program = new Program(forward, tangents, { tangents: ofPoints("tangents") });
  for (const instruction of tangentsOf(instructions)) program.run(instruction);
  const ports = [rowsPort(forward, "tangent", [d], program.tangent)];
  if (outputs.includes("value")) ports.push(rowsPort(forward, "value", [d], forward.value(graph.output.index)));
  return forward.nodes.encode(ports, describe(plan));
}

/** The name of a sum over the points of a run among the outputs. */
export function sumPort(index: number): string {
  return `sum${index}`;
}

/**
 * Of a gradient: value_cotangent, [batch, d], and divergence_cotangent, [batch, 1], to points, [batch, d], context,
 * [batch, c] or [1, c], sums over the points, and the plan's own outputs.
 */
export function gradientModel(plan: GradientPlan, wrt: readonly Wrt[], contextPer: "point" | "batch"): Uint8Array {
  const { graph, adjoint, outputs } = plan;
  const { stateSize: d, contextSize: c } = graph;
  const cotangents: Port[] = [
    { name: "value_cotangent", shape: [BATCH, d] },
    { name: "divergence_cotangent", shape: [BATCH, 1] },
  ];
  const probes = probesPort(plan);
  const names = [
    ...(wrt.includes("points") ? ["points"] : []),
    ...(wrt.includes("context") ? ["context_gradient"] : []),
    ...adjoint.sums.map(({ index }) => sumPort(index)),
    ...outputs,
  ];
  const forward = openModel(graph, OPSET, contextPer, names, [...cotangents, ...(probes ? [probes] : [])]);
  const { nodes } = forward;
  const program = new Program(forward, plan.tangents, {
    ...givenBy(probes),
    valueCotangent: ofPoints("value_cotangent"),
    divergenceCotangent: ofPoints("divergence_cotangent"),
  });
  for (const instruction of [...adjoint.before, ...adjoint.tangents, ...adjoint.after]) program.run(instruction);
  const zeros = (like: string, isShared: boolean): Value => ({ name: nodes.op("Mul", [like, 0]), hasTangents: false, ofPoints: !isShared });
  const ports: OutputPort[] = [];
  if (wrt.includes("points")) ports.push(rowsPort(forward, "points", [d], program.register(adjoint.points) ?? zeros("x", false)));
  if (wrt.includes("context")) {
    const sharesContext = contextPer === "batch";
    const value = program.register(adjoint.context) ?? zeros("context", sharesContext);
    ports.push(
      sharesContext ? { name: "context_gradient", shape: [1, c], of: value.name } : rowsPort(forward, "context_gradient", [c], value),
    );
  }
  for (const { index, matrix } of adjoint.sums)
    ports.push({ name: sumPort(index), shape: [matrix.rows, matrix.columns], of: program.sums.get(index)! });
  if (outputs.includes("value")) ports.push(rowsPort(forward, "value", [d], forward.value(graph.output.index)));
  if (outputs.includes("divergence")) ports.push(rowsPort(forward, "divergence", [], program.divergence));
  return nodes.encode(ports, describe(plan));
}

function probesPort({ graph, ...plan }: TracePlan | ValuePlan | GradientPlan): Port | null {
  if (plan.kind === "value" || plan.probesPer === null) return null;
  const rows = plan.probesPer === "batch" ? 1 : BATCH;
  // One tangent has no axis of its own.
  return { name: "probes", shape: plan.tangents > 1 ? [rows, plan.tangents, graph.stateSize] : [rows, graph.stateSize] };
}

function givenBy(probes: Port | null): Given {
  return probes ? { probes: { name: probes.name, hasTangents: probes.shape.length > 2, ofPoints: probes.shape[0] === BATCH } } : {};
}

function ofPoints(name: string): Value {
  return { name, hasTangents: false, ofPoints: true };
}

function describe({ graph: { stateSize: d, contextSize: c }, outputs, method }: TracePlan | ValuePlan | GradientPlan): string {
  return `f: R^${d}${c > 0 ? ` x R^${c}` : ""} -> R^${d}; ${outputs.join(", ")} by the method ${method}`;
}

/** Numbers of the widest tensor that a point has. */
export function widestOf(plan: Plan): number {
  const { graph, outputs } = plan;
  const tangents = plan.kind === "value" ? 1 : Math.max(1, plan.tangents);
  const widest = graph.nodes.reduce((most, { width }) => Math.max(most, width), 1);
  return Math.max(tangents * widest, ...outputs.map((output) => sizeOf(output, graph.stateSize)));
}
