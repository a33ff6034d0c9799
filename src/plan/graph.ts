import { ModelError, quote } from "../errors.js";
import { isIdentity, type Activation } from "../model/activation.js";
import { lazily, repeated, rowOf, type MatrixPlace, type PlannedMatrix } from "./matrices.js";
import {
  operandsOf,
  widthOfLinear,
  type Matrix,
  type Network,
  type Operand,
  type Operation,
  type Repeated,
  type Weight,
} from "../model/network.js";

/** A part of a node's sum; `source` is a node. */
export type Term =
  /** W x. */
  | { readonly kind: "dense"; readonly source: number; readonly matrix: PlannedMatrix }
  /** d ∘ x with a row d [1, width], or x itself where `factors` is null. */
  | { readonly kind: "diagonal"; readonly source: number; readonly factors: PlannedMatrix | null }
  /** x ∘ y; where only one of the two depends on the state, that one is the source. */
  | { readonly kind: "product"; readonly source: number; readonly by: number };

/** What a node is before its activation. */
export type NodeBody =
  | { readonly kind: "state" | "context" }
  /** Σ terms + bias, a row [1, width]. */
  | { readonly kind: "sum"; readonly terms: readonly Term[]; readonly bias: PlannedMatrix | null }
  /** (x - μ)/√(mean((x - μ)²) + ε), or with μ = 0 where it is not centered. */
  | { readonly kind: "norm"; readonly source: number; readonly centered: boolean; readonly epsilon: number };

/** A value of the forward pass: σ(body). */
export interface Node {
  readonly index: number;
  readonly width: number;
  readonly body: NodeBody;
  /** null where there is none, or where it is the identity. */
  readonly activation: Activation | null;
  /** Whether the value moves with the state; otherwise it is evaluated once per context. */
  readonly moves: boolean;
  /** How many terms and norms read it, the output counting as one. */
  readonly uses: number;
}

/**
 * A network as the plan counts it and the kernels run it: activations joined to the sums before them, what depends on the
 * context alone set apart, sums merged. Node 0 is the state, node 1 the context.
 */
export interface Graph {
  readonly stateSize: number;
  readonly contextSize: number;
  readonly nodes: readonly Node[];
  readonly output: Node;
  /** The weights and biases that the network has. */
  readonly weights: readonly PlannedMatrix[];
}

/** Far beyond what is trained, far below what a call stack takes. */
const MOST_DEPTH = 1000;

export const STATE = 0;
export const CONTEXT = 1;

type Draft = { -readonly [K in keyof Node]: Node[K] };

const graphs = new WeakMap<Network, Graph>();

/** Reads a network's operations as a graph of nodes. */
export function graphOf(network: Network): Graph {
  if (!Array.isArray(network?.operations))
    throw new ModelError(`network is ${quote(network)}; expected one that mlp or a file reader made`);
  let graph = graphs.get(network);
  if (!graph) graphs.set(network, (graph = new GraphBuilder(network).build()));
  return graph;
}

/** The nodes that a node reads. */
export function sourcesOf({ body }: Pick<Node, "body">): number[] {
  if (body.kind === "norm") return [body.source];
  if (body.kind !== "sum") return [];
  return body.terms.flatMap((term) => (term.kind === "product" ? [term.source, term.by] : [term.source]));
}

class GraphBuilder {
  private readonly drafts: Draft[] = [];
  /** The node of each operation's result. */
  private readonly nodeOf: number[] = [];
  /** How many operations read each operation's result. */
  private readonly readers: number[];
  /** The parts of operations that tensors of the file have names for. */
  private readonly named: ReadonlySet<string>;
  private readonly weights: PlannedMatrix[] = [];
  private readonly names = { W: 0, C: 0, d: 0, b: 0 };

  constructor(private readonly network: Network) {
    const { operations, stateSize, contextSize, tensors = [] } = network;
    this.named = new Set(tensors.flatMap(({ places }) => places.map(({ operation, part }) => `${operation} ${part}`)));
    this.add(stateSize, { kind: "state" });
    this.add(contextSize, { kind: "context" });
    this.readers = operations.map(() => 0);
    const readings = operations.filter((operation) => !isTransparent(operation)).flatMap(operandsOf);
    for (const operand of [...readings, operations.length - 1].map((given) => this.resolve(given)))
      if (typeof operand === "number") this.readers[operand]!++;
  }

  /** Looks through activations that do nothing. */
  private resolve(operand: Operand): Operand {
    let resolved = operand;
    while (typeof resolved === "number") {
      const operation = this.network.operations[resolved];
      if (operation?.kind !== "activation" || !isTransparent(operation)) break;
      resolved = operation.operand;
    }
    return resolved;
  }

  private readAlone(operand: Operand): boolean {
    const resolved = this.resolve(operand);
    return typeof resolved === "number" && this.readers[resolved] === 1;
  }

  build(): Graph {
    const { operations, stateSize, contextSize } = this.network;
    operations.forEach((operation, index) => (this.nodeOf[index] = this.read(operation, index)));
    const output = this.nodeOf.at(-1);
    if (output === undefined || this.drafts[output]!.width !== stateSize)
      throw new ModelError(
        `the network gives ${output === undefined ? "nothing" : this.drafts[output]!.width}; expected a velocity of ${stateSize}, which gradientField makes of a potential`,
      );
    return { ...compact(this.drafts, output, stateSize, contextSize), weights: this.weights };
  }

  private add(width: number, body: NodeBody, activation: Activation | null = null): number {
    const index = this.drafts.length;
    const moves = body.kind === "state" || sourcesOf({ body }).some((source) => this.drafts[source]!.moves);
    this.drafts.push({ index, width, body, activation, moves, uses: 0 });
    return index;
  }

  private weight(matrix: PlannedMatrix): PlannedMatrix {
    this.weights.push(matrix);
    return matrix;
  }

  private name(letter: "W" | "C" | "d" | "b"): string {
    return `${letter}${++this.names[letter]}`;
  }

  private node(operand: Operand): number {
    return operand === "state" ? STATE : operand === "context" ? CONTEXT : this.nodeOf[operand]!;
  }

  private read(operation: Operation, index: number): number {
    switch (operation.kind) {
      case "activation": {
        const source = this.node(operation.operand);
        if (isTransparent(operation)) return source;
        const draft = this.drafts[source]!;
        if (this.readAlone(operation.operand) && draft.activation === null && draft.body.kind === "sum") {
          draft.activation = operation.activation;
          return source;
        }
        return this.add(
          draft.width,
          { kind: "sum", terms: [{ kind: "diagonal", source, factors: null }], bias: null },
          operation.activation,
        );
      }
      case "product": {
        const [a, b] = operation.operands.map((operand) => this.node(operand)) as [number, number];
        const [source, by] = this.drafts[a]!.moves ? [a, b] : [b, a];
        return this.add(this.drafts[a]!.width, { kind: "sum", terms: [{ kind: "product", source, by }], bias: null });
      }
      case "norm": {
        const source = this.node(operation.operand);
        return this.add(this.drafts[source]!.width, { kind: "norm", source, centered: operation.centered, epsilon: operation.epsilon });
      }
      case "linear": {
        const terms = operation.terms.flatMap(({ operand, weight }, part) =>
          this.terms(operand, weight, { operation: index, part }, operation.isFixed),
        );
        const width = widthOfLinear(operation);
        const bias =
          operation.bias &&
          this.weight(rowOf(this.name("b"), operation.bias, operation.isFixed ? null : { operation: index, part: "bias" }));
        const fixed = terms.filter(({ source }) => !this.drafts[source]!.moves);
        if (fixed.length === 0 || fixed.length === terms.length) return this.add(width, { kind: "sum", terms, bias });
        // What the context alone decides is a shift that all points of one context share.
        const shift = this.add(width, { kind: "sum", terms: fixed, bias });
        const moving = terms.filter(({ source }) => this.drafts[source]!.moves);
        return this.add(width, { kind: "sum", terms: [{ kind: "diagonal", source: shift, factors: null }, ...moving], bias: null });
      }
    }
  }

  /** One term, or those of a sum that is read here alone and needs no node of its own. */
  private terms(operand: Operand, weight: Weight, place: MatrixPlace, isFixed = false): Term[] {
    const source = this.node(operand);
    // W1, W2, ... act on what moves with the state, C1, C2, ... on the context, d1, d2, ... element by element.
    if (!("diagonal" in weight)) {
      checkWeight(weight, place);
      const name = this.name(this.drafts[source]!.moves ? "W" : "C");
      const own = this.weight(lazily(name, "block" in weight ? weight.block : weight, isFixed ? null : place));
      const matrix = "block" in weight ? repeated(own, weight.times) : own;
      return [{ kind: "dense", source, matrix }];
    }
    const { diagonal } = weight;
    // Factors of 1 that a tensor names are trained, and will be others.
    const isIdentity = !this.named.has(`${place.operation} ${place.part}`) && diagonal.every((factor) => factor === 1);
    const factors = isIdentity ? null : this.weight(rowOf(this.name("d"), diagonal, isFixed ? null : place));
    const { body, activation } = this.drafts[source]!;
    if (factors === null && this.readAlone(operand) && activation === null && body.kind === "sum" && body.bias === null)
      return [...body.terms];
    return [{ kind: "diagonal", source, factors }];
  }
}

/** What a reader makes is sound; a network may be made by hand. @throws ModelError. */
function checkWeight(weight: Matrix | Repeated, { operation, part }: MatrixPlace): void {
  const { rows, columns, data } = "block" in weight ? weight.block : weight;
  const what = `the weight of term ${part} of operation ${operation}`;
  if ("block" in weight && !(Number.isInteger(weight.times) && weight.times >= 2))
    throw new ModelError(`${what} is for ${quote(weight.times)} parts; expected a whole number of at least 2`);
  if (data.length !== rows * columns) throw new ModelError(`${what} has ${data.length} numbers; expected ${rows} x ${columns}`);
}

function isTransparent(operation: Operation): boolean {
  return operation.kind === "activation" && isIdentity(operation.activation);
}

/** Drops the nodes that nothing reads, numbers the rest anew, and counts their uses. */
function compact(drafts: readonly Draft[], output: number, stateSize: number, contextSize: number): Omit<Graph, "weights"> {
  const live = new Set([STATE, CONTEXT, output]);
  for (const draft of drafts.toReversed()) if (live.has(draft.index)) for (const source of sourcesOf(draft)) live.add(source);
  const kept = drafts.filter(({ index }) => live.has(index));
  const place = new Map(kept.map(({ index }, position) => [index, position]));
  const moved = (body: NodeBody): NodeBody => {
    if (body.kind === "norm") return { ...body, source: place.get(body.source)! };
    if (body.kind !== "sum") return body;
    const terms = body.terms.map((term) => ({
      ...term,
      source: place.get(term.source)!,
      ...(term.kind === "product" && { by: place.get(term.by)! }),
    }));
    return { ...body, terms };
  };
  const nodes: Draft[] = kept.map((draft, index) => ({ ...draft, index, body: moved(draft.body) }));
  const depths: number[] = [];
  for (const node of nodes) depths.push(1 + sourcesOf(node).reduce((most, source) => Math.max(most, depths[source]!), 0));
  const deepest = depths.reduce((most, depth) => Math.max(most, depth));
  // The plan follows the graph by recursion.
  if (deepest > MOST_DEPTH) throw new ModelError(`the network is ${deepest} operations deep; at most ${MOST_DEPTH} are taken`);
  for (const node of nodes) for (const source of sourcesOf(node)) nodes[source]!.uses++;
  const last = nodes[place.get(output)!]!;
  last.uses++;
  return { stateSize, contextSize, nodes, output: last };
}
