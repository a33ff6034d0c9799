import { InputError, PlanError, quote } from "../errors.js";
import type { Network } from "../model/network.js";
import { makeGradientPlan, makePlan } from "../plan/choose.js";
import { graphOf } from "../plan/graph.js";
import { OUTPUTS, outputs as ofEvaluations, type Method, type Output } from "../plan/outputs.js";
import type { Value } from "./forward.js";
import { evaluated, openModel, rowsPort } from "./models.js";
import { opsets } from "./nodes.js";
import { Program } from "./program.js";

/** What a file of {@link toOnnx} may give: the outputs of an evaluation, and the gradient ∇(∇·f) of the divergence by the point, [d]. */
export type OnnxOutput = Output | "gradient";

/** What {@link toOnnx} writes. */
export interface OnnxExportOptions {
  /** Default: value and divergence. */
  readonly outputs?: readonly OnnxOutput[] | undefined;
  /** Default "auto": the exact method with the fewest multiply-adds among those that give the outputs. */
  readonly method?: "auto" | "tangent" | "cyclic" | "jacobian" | undefined;
  /** The version of ONNX's operators, 13 to 21; default 17. */
  readonly opset?: number | undefined;
  /** Whether every point has a context of its own, [batch, c] ("point", the default), or all share one, [1, c] ("batch"). */
  readonly contextPer?: "point" | "batch" | undefined;
}

/** All of them. */
export const onnxOutputs: readonly OnnxOutput[] = [...ofEvaluations, "gradient"];
const methods: readonly Method[] = ["tangent", "cyclic", "jacobian"];

/**
 * The plan for a network as an ONNX model, for any runtime: f, its divergence and what else is asked for as one graph of standard
 * operators in float32, merged matrices among its initializers. Its inputs are x, [batch, d], and, where there is a context,
 * context, [batch, c] or [1, c]; its outputs have the names asked for: value [batch, d], divergence [batch], diagonal [batch, d],
 * jacobian [batch, d, d], curl [batch, 3] or for d = 2 [batch], strain [batch, d, d], qCriterion [batch], gradient [batch, d].
 *
 * @throws PlanError where an output or the method does not exist, or the method does not give the outputs; InputError for other
 * options; ModelError where the file would have 2 GiB.
 */
export function toOnnx(network: Network, options: OnnxExportOptions = {}): Uint8Array {
  const { outputs, method, opset, contextPer } = readOptions(options);
  const graph = graphOf(network);
  const { stateSize: d, contextSize: c } = graph;
  const forward = openModel(graph, opset, contextPer, outputs);
  const { nodes } = forward;
  const found = new Map<OnnxOutput, Value>();
  const used: string[] = [];

  // With the gradient the trace comes out of its plan, unless the other outputs need one of their own.
  const others = outputs.filter((output) => output !== "gradient");
  const isApart = others.some((output) => output !== "value" && output !== "divergence");
  if (outputs.includes("gradient")) {
    const traced = isApart ? [] : others.filter((output) => output === "divergence");
    const plan = makeGradientPlan(network, {
      outputs: traced,
      method,
      contextPer,
      value: false,
      divergence: true,
      wrt: ["points"],
    });
    const { before, tangents, after, points } = plan.adjoint;
    const program = new Program(forward, plan.tangents);
    for (const instruction of [...before, ...tangents, ...after]) program.run(instruction);
    found.set("gradient", program.register(points) ?? { name: nodes.op("Mul", ["x", 0]), hasTangents: false, ofPoints: true });
    if (traced.length > 0) found.set("divergence", program.divergence);
    used.push(`gradient by the method ${plan.method}`);
  }
  const left = others.filter((output) => !found.has(output));
  if (left.length > 0) {
    const plan = makePlan(network, { outputs: left, method, contextPer });
    if (plan.kind === "difference") throw new TypeError(`a plan of the kind ${plan.kind} is no exact trace`);
    for (const [output, value] of evaluated(forward, plan, left)) found.set(output, value);
    if (plan.kind === "trace") used.push(`${left.filter((output) => output !== "value").join(", ")} by the method ${plan.method}`);
  }

  const shapeOf = (name: OnnxOutput): readonly number[] => (name === "gradient" ? [d] : OUTPUTS[name].shape(d));
  const ports = outputs.map((name) => rowsPort(forward, name, shapeOf(name), found.get(name)!));
  return nodes.encode(ports, `f: R^${d}${c > 0 ? ` x R^${c}` : ""} -> R^${d}${used.map((text) => `; ${text}`).join("")}`);
}

function readOptions(options: OnnxExportOptions): Required<{ [K in keyof OnnxExportOptions]: NonNullable<OnnxExportOptions[K]> }> {
  if (typeof options !== "object" || options === null) throw new InputError(`options is ${quote(options)}; expected an object`);
  const strange = Object.keys(options).find((name) => !["outputs", "method", "opset", "contextPer"].includes(name));
  if (strange !== undefined) throw new InputError(`there is no option ${strange}; expected outputs, method, opset, contextPer`);
  const { outputs = ["value", "divergence"], method = "auto", opset = 17, contextPer = "point" } = options;
  if (!Array.isArray(outputs) || outputs.length === 0 || !outputs.every((output) => onnxOutputs.includes(output)))
    throw new PlanError(`outputs is ${quote(outputs)}; expected a list out of ${onnxOutputs.map((output) => `"${output}"`).join(", ")}`);
  if (method !== "auto" && !methods.includes(method))
    throw new PlanError(
      `method is ${quote(method)}, which is no graph of operators over all points at once; expected "auto" or one of ${methods.join(", ")}`,
    );
  if (!opsets.includes(opset))
    throw new InputError(`opset is ${quote(opset)}; expected a whole number from ${opsets[0]} to ${opsets.at(-1)}`);
  if (contextPer !== "point" && contextPer !== "batch")
    throw new InputError(`contextPer is ${quote(contextPer)}; expected "point" or "batch"`);
  return { outputs: onnxOutputs.filter((output) => outputs.includes(output)), method, opset, contextPer };
}
