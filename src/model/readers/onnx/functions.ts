import { quote } from "../../../errors.js";
import type { Budget } from "./budget.js";
import { describeNode, fail, functionOf, type Attribute, type OnnxModel, type OnnxNode } from "./decode.js";

/** Calls within calls, more than any exporter nests, and nodes that they stand for. */
const DEEPEST = 32;
const MOST_INLINED = 2 ** 14;

/** The nodes with each call of a function replaced by its body, whose own names get the call's ahead of them. */
export function inlined({ nodes, functions }: OnnxModel, budget: Budget): readonly OnnxNode[] {
  if (functions.size === 0) return nodes;
  const result: OnnxNode[] = [];
  let [calls, made] = [0, 0];
  const add = (node: OnnxNode, depth: number): void => {
    const called = functions.get(functionOf(node));
    if (!called) return void result.push(node);
    if (depth === DEEPEST) fail(`${describeNode(node)} calls functions more than ${DEEPEST} deep; expected none that call themselves`);
    const { inputs, outputs, defaults } = called;
    if (node.inputs.length > inputs.length || node.outputs.length > outputs.length)
      fail(
        `${describeNode(node)} has ${node.inputs.length} inputs and ${node.outputs.length} outputs; expected at most ${inputs.length} and ${outputs.length}, as the function has`,
      );
    const prefix = `${node.name || node.outputs[0]}/${calls++}/`;
    const names = new Map<string, string>([
      ...inputs.map((name, index) => [name, node.inputs[index] ?? ""] as const),
      ...outputs.map((name, index) => [name, node.outputs[index] || `${prefix}${name}`] as const),
    ]);
    const rename = (name: string): string => (name === "" ? "" : (names.get(name) ?? `${prefix}${name}`));
    const given = new Set(called.nodes.flatMap((inner) => inner.outputs));
    // An input that is handed out as it is has two names, of which a node makes one.
    for (const [index, name] of outputs.entries()) {
      if (inputs.includes(name)) fail(`${describeNode(node)}: the function gives its input ${quote(name)}; expected what its nodes give`);
      if (index < node.outputs.length && !given.has(name)) fail(`${describeNode(node)}: no node of the function gives ${quote(name)}`);
    }
    for (const inner of called.nodes) {
      if (++made > MOST_INLINED) fail(`the calls of the file's own functions stand for more than ${MOST_INLINED} nodes; expected fewer`);
      budget.take(inner.inputs.length + inner.outputs.length + inner.attributes.size);
      add(
        {
          ...inner,
          name: `${prefix}${inner.name || inner.outputs[0]}`,
          opset: called.opset,
          inputs: inner.inputs.map(rename),
          outputs: inner.outputs.map(rename),
          attributes: attributesOf(inner, node, defaults),
        },
        depth + 1,
      );
    }
  };
  for (const node of nodes) add(node, 0);
  return result;
}

/** A node's attributes, with those of the call where it refers to them. */
function attributesOf(node: OnnxNode, call: OnnxNode, defaults: ReadonlyMap<string, Attribute>): ReadonlyMap<string, Attribute> {
  return new Map(
    Array.from(node.attributes).flatMap(([name, attribute]) => {
      if (attribute.reference === "") return [[name, attribute] as const];
      const given = call.attributes.get(attribute.reference) ?? defaults.get(attribute.reference);
      return given ? [[name, given] as const] : [];
    }),
  );
}
