import type { Network, Numbers, Operand, Operation, Weight } from "../../network.js";
import { fail } from "./decode.js";
import { constantOf, topologicalOrder, type Graph, type Node } from "./graph.js";
import { addMaps, identityMap, isDiagonalMap, toMatrix, type LinearMap } from "./maps.js";

/** The operations that a simplified graph consists of; the velocity is the last one. */
export function emit(graph: Graph, given: Node, state: Node, contextSize: number): Network {
  const velocity = asOperation(graph, given, state);
  const operands = new Map<Node, Operand>();
  const operations: Operation[] = [];
  const of = (node: Node): Operand => operands.get(node)!;
  for (const node of topologicalOrder(velocity)) {
    if (node.kind === "input") {
      operands.set(node, node.input);
      continue;
    }
    operands.set(node, operations.length);
    switch (node.kind) {
      case "linear": {
        requireFinite(node.bias, node);
        const maps = new Map<Node, LinearMap>();
        for (const term of node.terms) {
          const before = maps.get(term.node);
          maps.set(term.node, before ? addMaps(before, term.map, graph.budget) : term.map);
        }
        const terms = Array.from(maps, ([operand, map]) => ({ operand: of(operand), weight: weightOf(graph, node, map) }));
        operations.push({ kind: "linear", terms: terms.toSorted((a, b) => rank(a.operand) - rank(b.operand)), bias: node.bias });
        break;
      }
      case "activation":
        operations.push({ kind: "activation", operand: of(node.operand), activation: node.activation });
        break;
      case "product":
        operations.push({ kind: "product", operands: [of(node.operands[0]), of(node.operands[1])] });
        break;
      case "norm":
        operations.push({ kind: "norm", operand: of(node.operand), centered: node.centered, epsilon: node.epsilon });
        break;
    }
  }
  return { stateSize: state.width, contextSize, operations };
}

/** A velocity that is the input itself, or a constant, as the linear operation it is. */
function asOperation(graph: Graph, velocity: Node, state: Node): Node {
  const { width, origin } = velocity;
  const values = constantOf(velocity);
  if (!values && velocity.kind !== "input") return velocity;
  const map = values ? identityMap(width, graph.budget, new Float64Array(graph.budget.taken(width))) : identityMap(width, graph.budget);
  return { kind: "linear", width, origin, terms: [{ node: values ? state : velocity, map }], bias: values };
}

function weightOf(graph: Graph, node: Node, map: LinearMap): Weight {
  if (isDiagonalMap(map)) {
    requireFinite(map.factors, node);
    return { diagonal: map.factors ?? new Float32Array(graph.budget.taken(map.columns)).fill(1) };
  }
  const matrix = map.kind === "dense" ? map.matrix : toMatrix(map, graph.budget);
  requireFinite(matrix.data, node);
  if (map.kind !== "dense" || map.times === 1) return matrix;
  // Merged matrices have as many blocks of their own.
  graph.budget.take(map.times * matrix.data.length);
  return { block: matrix, times: map.times };
}

/** The state first, then the context, then earlier results in their order. */
function rank(operand: Operand): number {
  return operand === "state" ? -2 : operand === "context" ? -1 : operand;
}

/** The kernels compute in float32, so what is infinite there is refused as well. */
function requireFinite(numbers: Numbers | null, { origin }: Node): void {
  const bad = numbers?.find((value) => !Number.isFinite(Math.fround(value)));
  if (bad !== undefined) fail(`${origin}: a weight or a bias is ${bad}; expected numbers that are finite in float32`);
}
