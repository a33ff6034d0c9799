import { activationFunctions, isIdentity, parseActivation, type Activation } from "../../activation.js";
import type { Numbers } from "../../network.js";
import type { Budget } from "./budget.js";
import {
  addMaps,
  applyMap,
  canAdd,
  compose,
  countPicked,
  grows,
  identityMap,
  isEmptyMap,
  isIdentityMap,
  rowsOf,
  type LinearMap,
} from "./maps.js";

interface Common {
  readonly width: number;
  /** The node of the file that asked for it, for messages. */
  readonly origin: string;
}

export interface InputNode extends Common {
  readonly kind: "input";
  readonly input: "state" | "context";
}

/** Σ map(node) + bias; without terms it is a constant. */
export interface LinearNode extends Common {
  readonly kind: "linear";
  readonly terms: readonly Term[];
  readonly bias: Numbers | null;
}

export interface Term {
  readonly node: Node;
  readonly map: LinearMap;
}

export interface ActivationNode extends Common {
  readonly kind: "activation";
  readonly operand: Node;
  readonly activation: Activation;
}

export interface ProductNode extends Common {
  readonly kind: "product";
  readonly operands: readonly [Node, Node];
}

export interface NormNode extends Common {
  readonly kind: "norm";
  readonly operand: Node;
  readonly centered: boolean;
  readonly epsilon: number;
}

/** One vector of a point: what the operations of a network are made from. Never changed; rewriting makes new ones. */
export type Node = InputNode | LinearNode | ActivationNode | ProductNode | NormNode;

/** Makes nodes, and folds what is constant while it does so. */
export class Graph {
  readonly budget: Budget;
  /** The node of the file that is being read. */
  origin = "";

  constructor(budget: Budget) {
    this.budget = budget;
  }

  input(input: "state" | "context", width: number): Node {
    return { kind: "input", width, origin: this.origin, input };
  }

  constant(bias: Numbers): LinearNode {
    return { kind: "linear", width: bias.length, origin: this.origin, terms: [], bias };
  }

  linear(given: readonly Term[], givenBias: Numbers | null = null, origin: string = this.origin): Node {
    const width = givenBias?.length ?? rowsOf(given[0]!.map);
    const terms: Term[] = [];
    const last = new Map<Node, number>();
    let bias = givenBias;
    for (const { node, map } of given) {
      const values = constantOf(node);
      const at = last.get(node);
      const before = at === undefined ? null : terms[at]!.map;
      if (values) bias = this.addNumbers(bias, isIdentityMap(map) ? values : applyMap(map, values, this.budget));
      else if (before && canAdd(before, map)) terms[at!] = { node, map: addMaps(before, map, this.budget) };
      else if (!isEmptyMap(map) || given.length === 1) last.set(node, terms.push({ node, map }) - 1);
    }
    if (terms.length === 0 && bias === null) bias = new Float64Array(this.budget.taken(width));
    if (bias?.every((value) => value === 0) && terms.length > 0) bias = null;
    const [only] = terms;
    if (only && terms.length === 1 && bias === null && isIdentityMap(only.map)) return only.node;
    return { kind: "linear", width, origin, terms, bias };
  }

  /** map(node) + bias. */
  mapped(node: Node, map: LinearMap, bias: Numbers | null = null): Node {
    return this.linear([{ node, map }], bias);
  }

  /** factor · node + shift, for one number each. */
  scaled(node: Node, factor: number, shift = 0): Node {
    const bias = shift === 0 ? null : new Float64Array(this.budget.taken(node.width)).fill(shift);
    if (factor === 1) return this.linear([{ node, map: identityMap(node.width, this.budget) }], bias);
    const factors = new Float64Array(this.budget.taken(node.width)).fill(factor);
    return this.linear([{ node, map: identityMap(node.width, this.budget, factors) }], bias);
  }

  /** a + factor b. */
  sum(a: Node, b: Node, factor = 1): Node {
    const factors = factor === 1 ? null : new Float64Array(this.budget.taken(b.width)).fill(factor);
    return this.linear([
      { node: a, map: identityMap(a.width, this.budget) },
      { node: b, map: identityMap(b.width, this.budget, factors) },
    ]);
  }

  activation(node: Node, activation: Activation | string, origin: string = this.origin): Node {
    const sigma = typeof activation === "string" ? parseActivation(activation) : activation;
    if (isIdentity(sigma)) return node;
    const values = constantOf(node);
    if (values) {
      const results = new Float64Array(this.budget.taken(values.length));
      const { value } = activationFunctions(sigma);
      for (let i = 0; i < results.length; i++) results[i] = value(values[i]!);
      return this.constant(results);
    }
    return { kind: "activation", width: node.width, origin, operand: node, activation: sigma };
  }

  product(a: Node, b: Node, origin: string = this.origin): Node {
    const left = constantOf(a);
    const right = constantOf(b);
    if (right) return this.mapped(a, identityMap(a.width, this.budget, right));
    if (left) return this.mapped(b, identityMap(b.width, this.budget, left));
    if (a === b) return this.activation(a, "square", origin);
    return { kind: "product", width: a.width, origin, operands: [a, b] };
  }

  norm(node: Node, centered: boolean, epsilon: number, origin: string = this.origin): Node {
    const values = constantOf(node);
    if (!values) return { kind: "norm", width: node.width, origin, operand: node, centered, epsilon };
    this.budget.take(values.length);
    const mean = (numbers: Float64Array): number => numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
    const centre = centered ? mean(Float64Array.from(values)) : 0;
    const shifted = Float64Array.from(values, (value) => value - centre);
    const size = Math.sqrt(mean(shifted.map((value) => value * value)) + epsilon);
    return this.constant(shifted.map((value) => value / size));
  }

  private addNumbers(a: Numbers | null, b: Numbers): Numbers {
    if (!a) return b;
    const sum = new Float64Array(this.budget.taken(a.length));
    for (let i = 0; i < sum.length; i++) sum[i] = a[i]! + b[i]!;
    return sum;
  }
}

/** The numbers of a node that depends on nothing; null for another. */
export function constantOf(node: Node): Numbers | null {
  return node.kind === "linear" && node.terms.length === 0 ? node.bias : null;
}

export function operandsOf(node: Node): readonly Node[] {
  if (node.kind === "input") return [];
  if (node.kind === "linear") return node.terms.map((term) => term.node);
  return node.kind === "product" ? node.operands : [node.operand];
}

/** What the velocity depends on, operands first. Without recursion, since a file may nest as deep as it is long. */
export function topologicalOrder(output: Node): Node[] {
  const order: Node[] = [];
  const seen = new Set<Node>();
  const stack: { node: Node; isDone: boolean }[] = [{ node: output, isDone: false }];
  for (let top = stack.pop(); top; top = stack.pop()) {
    if (top.isDone) order.push(top.node);
    else if (!seen.has(top.node)) {
      seen.add(top.node);
      stack.push({ node: top.node, isDone: true });
      for (const node of operandsOf(top.node).toReversed()) stack.push({ node, isDone: false });
    }
  }
  return order;
}

/** How often the others read a linear node, and how. */
interface Readers {
  count: number;
  dense: number;
  picks: number;
  /** The outputs of those picks. */
  picked: number;
}

/**
 * The same function of the inputs with fewer operations: scales and shifts fold into the linear maps beside them, nested
 * sums become one, slices and concatenations become columns of the weights that read them, and sin takes its frequency in.
 * Weights never grow by it: no two dense maps are multiplied, and no dense map is applied to more terms than before.
 */
export function simplify(graph: Graph, given: Node): Node {
  let output = rewrite(graph, given, absorbFrequency);
  // Each round folds all that its operands' own folding does not hide; two or three are enough for any real network.
  for (let round = 0; round < 16; round++) {
    const next = rewrite(graph, output, foldTerms);
    if (next === output) break;
    output = next;
  }
  return output;
}

/** The same function, with other nodes in the place of inputs. */
export function replaceInputs(graph: Graph, output: Node, replacements: ReadonlyMap<Node, Node>): Node {
  return rewrite(graph, output, (_, node) => replacements.get(node) ?? null);
}

/** @param rewritten the operands of the node, and no others for sure */
type Rule = (graph: Graph, node: Node, rewritten: ReadonlyMap<Node, Node>, readers: ReadonlyMap<Node, Readers>) => Node | null;

function rewrite(graph: Graph, output: Node, rule: Rule): Node {
  const order = topologicalOrder(output);
  const readers = countReaders(order, output);
  const rewritten = new Map<Node, Node>();
  const left = new Map(order.map((node) => [node, readers.get(node)!.count]));
  for (const node of order) {
    // Passing over an element takes a fraction of what making one does.
    graph.budget.take((node.width * Math.max(1, operandsOf(node).length)) / 8);
    rewritten.set(node, rule(graph, node, rewritten, readers) ?? withOperands(graph, node, rewritten));
    // What has gone into all that reads it is freed: of a sum of sums, each has a matrix of its own.
    for (const operand of operandsOf(node)) {
      left.set(operand, left.get(operand)! - 1);
      if (left.get(operand) === 0) rewritten.delete(operand);
    }
  }
  return rewritten.get(output)!;
}

function countReaders(order: readonly Node[], output: Node): Map<Node, Readers> {
  const readers = new Map<Node, Readers>(order.map((node) => [node, { count: 0, dense: 0, picks: 0, picked: 0 }]));
  readers.get(output)!.count++;
  for (const node of order) {
    for (const operand of operandsOf(node)) readers.get(operand)!.count++;
    if (node.kind !== "linear") continue;
    for (const { node: operand, map } of node.terms)
      if (map.kind === "dense") readers.get(operand)!.dense++;
      else {
        readers.get(operand)!.picks++;
        readers.get(operand)!.picked += countPicked(map);
      }
  }
  return readers;
}

function withOperands(graph: Graph, node: Node, rewritten: ReadonlyMap<Node, Node>): Node {
  if (operandsOf(node).every((operand) => rewritten.get(operand) === operand)) return node;
  const of = (operand: Node): Node => rewritten.get(operand)!;
  switch (node.kind) {
    case "input":
      return node;
    case "linear":
      return graph.linear(
        node.terms.map(({ node: operand, map }) => ({ node: of(operand), map })),
        node.bias,
        node.origin,
      );
    case "activation":
      return graph.activation(of(node.operand), node.activation, node.origin);
    case "product":
      return graph.product(of(node.operands[0]), of(node.operands[1]), node.origin);
    case "norm":
      return graph.norm(of(node.operand), node.centered, node.epsilon, node.origin);
  }
}

/** sin(ω z) with one ω for all z, which nothing else reads, is the activation sin(ω) of z. */
const absorbFrequency: Rule = (graph, node, rewritten, readers) => {
  if (node.kind !== "activation" || node.activation.name !== "sin" || readers.get(node.operand)!.count > 1) return null;
  const scaled = uniformOf(rewritten.get(node.operand)!);
  const omega = (scaled?.factor ?? 0) * node.activation.parameters[0]!;
  if (!scaled || scaled.shift !== 0 || Math.abs(omega) > 1e10) return null;
  return graph.activation(scaled.node, `sin(${omega})`, node.origin);
};

/** node = factor · node' + shift with one factor and one shift for all elements; null where it is nothing of the kind. */
export function uniformOf(node: Node): { node: Node; factor: number; shift: number } | null {
  if (node.kind !== "linear" || node.terms.length !== 1) return null;
  const [{ node: inner, map }] = node.terms as [Term];
  if (map.kind === "dense" || map.columns !== node.width || !map.indices.every((index, i) => index === i)) return null;
  const factor = map.factors?.[0] ?? 1;
  const shift = node.bias?.[0] ?? 0;
  if (!(map.factors?.every((value) => value === factor) ?? true) || !(node.bias?.every((value) => value === shift) ?? true)) return null;
  return { node: inner, factor, shift };
}

const foldTerms: Rule = (graph, node, rewritten, readers) => {
  if (node.kind !== "linear") return null;
  const dissolves = isJoin(node) && readers.get(node)!.dense === readers.get(node)!.count;
  const terms: Term[] = [];
  let bias = node.bias;
  let folded = false;
  for (const { node: operand, map } of node.terms) {
    const inner = rewritten.get(operand)!;
    const folds = inner.kind === "linear" && !constantOf(inner) && foldsInto(map, inner, readers.get(operand)!, dissolves);
    if (!folds || inner.terms.some((term) => grows(map, term.map))) {
      terms.push({ node: inner, map });
      continue;
    }
    folded = true;
    for (const term of inner.terms) {
      // Sums of sums could repeat their terms at every level.
      graph.budget.take(8 + rowsOf(map) / 8);
      terms.push({ node: term.node, map: compose(map, term.map, graph.budget) });
    }
    if (inner.bias) bias = constantOf(graph.linear([{ node: graph.constant(inner.bias), map }], bias))!;
  }
  return folded ? graph.linear(terms, bias, node.origin) : null;
};

/** A concatenation: picks that together read no more elements than there are results. */
function isJoin({ terms, width }: LinearNode): boolean {
  return terms.length > 1 && terms.every(({ map }) => map.kind === "pick") && countElements(terms) <= width;
}

function countElements(terms: readonly Term[]): number {
  return terms.reduce((sum, { map }) => sum + (map.kind === "pick" ? countPicked(map) : Infinity), 0);
}

/** @param dissolves whether the reader will itself be folded into dense maps, which cannot take another dense one in. */
function foldsInto(map: LinearMap, inner: LinearNode, { count, picks, picked }: Readers, dissolves: boolean): boolean {
  const isPicks = inner.terms.every((term) => term.map.kind === "pick");
  if (map.kind === "dense") return isPicks && countElements(inner.terms) <= inner.width;
  if (isPicks) return count === 1 || inner.terms.length === 1 || isJoin(inner);
  // Rows of a dense map move to their readers where no row is then computed twice.
  return count === picks && picked <= inner.width && !dissolves;
}
