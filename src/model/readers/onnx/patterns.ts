import type { ActivationNode, Graph, Node } from "./graph.js";
import { uniformOf } from "./graph.js";
import { isDiagonalMap, isIdentityMap } from "./maps.js";

/** Constants of a file are float32, so they are those of a formula up to this. */
const tolerance = 1e-6;

/** How many operations a formula is followed down; the longest known one is gelu_tanh's. */
const deepest = 8;

/**
 * a ∘ b, and an activation where the two are one written out, as exporters do: z sigmoid(z) is silu, z tanh(softplus(z)) is
 * mish, z (1 + erf(z/√2)) / 2 is gelu, and so on, with constants before or between the factors. x / sqrt(mean(x²) + ε) is
 * a norm.
 */
export function multiply(graph: Graph, a: Node, b: Node): Node {
  return (
    recogniseGate(graph, a, b) ??
    recogniseGate(graph, b, a) ??
    recogniseNorm(graph, a, b) ??
    recogniseNorm(graph, b, a) ??
    graph.product(a, b)
  );
}

/** c z · (s σ(u) + t), where u is a polynomial in z. */
function recogniseGate(graph: Graph, first: Node, second: Node): Node | null {
  const gate = innermost(second);
  if (gate.node.kind !== "activation") return null;
  const { operand, activation } = gate.node;
  // The gate may read a scaled z, or z may be scaled by itself.
  const outer = uniformOf(first);
  const candidates = outer?.shift === 0 ? [{ node: first, factor: 1 }, outer] : [{ node: first, factor: 1 }];
  for (const { node: z, factor } of candidates) {
    const c = factor * gate.factor;
    const inner = polynomial(graph, operand, z);
    const isPure = near(gate.shift, 0);
    const isHalf = near(gate.shift, gate.factor);
    if (activation.name === "tanh" && isPure && isSoftplusOf(operand, z)) return scaledActivation(graph, z, "mish", c);
    if (!inner) continue;
    const [p0, p1, p2, p3] = inner;
    const isLinear = near(p0, 0) && near(p2, 0) && near(p3, 0);
    if (activation.name === "sigmoid" && isPure && isLinear && near(p1, 1)) return scaledActivation(graph, z, "silu", c);
    if (activation.name === "sigmoid" && isPure && isLinear && !near(p1, 0))
      return scaledActivation(graph, graph.scaled(z, p1), "silu", c / p1);
    if (activation.name === "erf" && isHalf && isLinear && near(p1, Math.SQRT1_2)) return scaledActivation(graph, z, "gelu", 2 * c);
    const slope = Math.sqrt(2 / Math.PI);
    if (activation.name === "tanh" && isHalf && near(p0, 0) && near(p2, 0) && near(p1, slope) && near(p3, 0.044715 * slope))
      return scaledActivation(graph, z, "gelu_tanh", 2 * c);
    if (activation.name === "hardsigmoid" && isPure && isLinear && near(p1, 1)) return scaledActivation(graph, z, "hardswish", c);
    if (activation.name === "relu6" && isPure && near(p0, 3) && near(p1, 1) && near(p2, 0) && near(p3, 0))
      return scaledActivation(graph, z, "hardswish", 6 * c);
  }
  return null;
}

function isSoftplusOf(node: Node, z: Node): boolean {
  return node.kind === "activation" && node.activation.toString() === "softplus" && node.operand === z;
}

/** p · 1 / sqrt(mean(p²) + ε), with the mean repeated for every element of p; centered where p is x - mean(x). */
function recogniseNorm(graph: Graph, p: Node, scale: Node): Node | null {
  const repeated = repeatedOf(scale);
  const root = repeated?.kind === "activation" ? rootOf(repeated) : null;
  const shifted = root && uniformOf(root);
  if (!shifted || !near(shifted.factor, 1)) return null;
  const square = meanOf(shifted.node);
  if (square?.kind !== "activation" || !isSquare(square) || square.operand !== p) return null;
  const x = centredOf(p);
  return x ? graph.norm(x, true, shifted.shift) : graph.norm(p, false, shifted.shift);
}

/** v of 1 / sqrt(v). */
function rootOf(node: ActivationNode): Node | null {
  const { operand, activation } = node;
  if (activation.toString() === "power(-0.5)") return operand;
  return activation.name === "reciprocal" && operand.kind === "activation" && operand.activation.name === "sqrt" ? operand.operand : null;
}

function isSquare({ activation }: ActivationNode): boolean {
  return activation.name === "square" || activation.toString() === "power";
}

/** x of the one number that all elements of a node are. */
function repeatedOf(node: Node): Node | null {
  if (node.kind !== "linear" || node.terms.length !== 1 || node.bias) return null;
  const { node: inner, map } = node.terms[0]!;
  return inner.width === 1 && map.kind === "pick" && !map.factors && map.indices.every((index) => index === 0) ? inner : null;
}

/** x of mean(x). */
function meanOf(node: Node): Node | null {
  if (node.kind !== "linear" || node.width !== 1 || node.terms.length !== 1 || node.bias) return null;
  const { node: inner, map } = node.terms[0]!;
  return map.kind === "dense" && map.times === 1 && map.matrix.data.every((value) => near(value, 1 / inner.width)) ? inner : null;
}

/** x of x - mean(x). */
function centredOf(node: Node): Node | null {
  if (node.kind !== "linear" || node.terms.length !== 2 || node.bias) return null;
  const [{ node: x, map }, { node: mean, map: taken }] = node.terms as [(typeof node.terms)[0], (typeof node.terms)[0]];
  if (!isIdentityMap(map) || !isDiagonalMap(taken) || !taken.factors?.every((factor) => factor === -1)) return null;
  const repeated = repeatedOf(mean);
  return repeated && meanOf(repeated) === x ? x : null;
}

/**
 * left > right ? a : b, where it is an activation written out: a linear part beyond a threshold (softplus), or two branches
 * that meet at 0 (relu, leaky_relu, elu). null where it is not.
 */
export function choose(
  graph: Graph,
  { left, right, orEqual }: { left: Node; right: Node; orEqual: boolean },
  a: Node,
  b: Node,
): Node | null {
  const difference = graph.sum(left, right, -1);
  return recogniseBranches(graph, difference, orEqual, a, b) ?? recogniseBranches(graph, graph.scaled(difference, -1), !orEqual, b, a);
}

/** above where difference > 0, or >= 0, else below. */
function recogniseBranches(graph: Graph, difference: Node, orEqual: boolean, above: Node, below: Node): Node | null {
  const line = polynomial(graph, difference, above);
  if (!line || !near(line[2], 0) || !near(line[3], 0) || !(line[1] > 0)) return null;
  // difference > 0 where above > threshold.
  const threshold = -line[0] / line[1];
  const inner = innermost(below);
  if (inner.node.kind === "activation" && inner.node.activation.toString() === "softplus" && near(inner.shift, 0)) {
    // On the threshold, where the two differ, softplus is not yet linear.
    const beta = orEqual ? null : polynomial(graph, inner.node.operand, above);
    if (!beta || !(beta[1] > 0) || !near(beta[0], 0) || !near(beta[2], 0) || !near(beta[3], 0) || !near(beta[1] * inner.factor, 1))
      return null;
    return graph.activation(above, `softplus(${snap(beta[1])}, ${snap(threshold * beta[1])})`);
  }
  if (!near(threshold, 0)) return null;
  const slope = polynomial(graph, below, above);
  if (slope && near(slope[0], 0) && near(slope[2], 0) && near(slope[3], 0))
    return graph.activation(above, near(slope[1], 0) ? "relu" : `leaky_relu(${slope[1]})`);
  if (
    inner.node.kind === "activation" &&
    inner.node.activation.name === "exp" &&
    inner.node.operand === above &&
    near(inner.shift, -inner.factor)
  )
    return graph.activation(above, `elu(${inner.factor})`);
  return null;
}

/** node = factor · node' + shift, as far down as that goes. */
function innermost(node: Node): { node: Node; factor: number; shift: number } {
  let found = { node, factor: 1, shift: 0 };
  for (let depth = 0; depth < deepest; depth++) {
    const next = uniformOf(found.node);
    if (!next) break;
    found = { node: next.node, factor: found.factor * next.factor, shift: found.factor * next.shift + found.shift };
  }
  return found;
}

type Cubic = readonly [number, number, number, number];

/** The coefficients of 1, z, z² and z³ where the node is such a polynomial, element by element; null where it is none. */
function polynomial(graph: Graph, node: Node, z: Node, depth = 0): Cubic | null {
  if (node === z) return [0, 1, 0, 0];
  if (depth === deepest) return null;
  graph.budget.take(node.width / 8);
  const of = (operand: Node): Cubic | null => polynomial(graph, operand, z, depth + 1);
  if (node.kind === "product") return product(of(node.operands[0]), of(node.operands[1]));
  if (node.kind === "activation") {
    const inner = ["square", "power"].includes(node.activation.name) ? of(node.operand) : null;
    const exponent = node.activation.name === "square" ? 2 : node.activation.parameters[0]!;
    if (exponent === 2) return product(inner, inner);
    return exponent === 3 ? product(inner, product(inner, inner)) : null;
  }
  if (node.kind !== "linear" || node.terms.length > 2) return null;
  const sum = [node.bias?.[0] ?? 0, 0, 0, 0] as [number, number, number, number];
  if (!(node.bias?.every((value) => value === sum[0]) ?? true)) return null;
  for (const { node: operand, map } of node.terms) {
    if (map.kind === "dense" || operand.width !== node.width || !map.indices.every((index, i) => index === i)) return null;
    const factor = map.factors?.[0] ?? 1;
    if (!(map.factors?.every((value) => value === factor) ?? true)) return null;
    const part = of(operand);
    if (!part) return null;
    part.forEach((value, power) => (sum[power]! += factor * value));
  }
  return sum;
}

function product(a: Cubic | null, b: Cubic | null): Cubic | null {
  if (!a || !b) return null;
  const result = Array<number>(7).fill(0);
  a.forEach((x, i) => b.forEach((y, j) => (result[i + j]! += x * y)));
  return result.slice(4).every((value) => value === 0) ? (result.slice(0, 4) as unknown as Cubic) : null;
}

function scaledActivation(graph: Graph, z: Node, activation: string, factor: number): Node {
  const node = graph.activation(z, activation);
  return near(factor, 1) ? node : graph.scaled(node, factor);
}

function near(a: number, b: number): boolean {
  return Math.abs(a - b) <= tolerance * Math.abs(b);
}

/** The whole number that a constant rounded to float32 was. */
function snap(value: number): number {
  return near(value, Math.round(value)) ? Math.round(value) : value;
}
