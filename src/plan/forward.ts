import type { Activation } from "../model/activation.js";
import { sourcesOf, type Node, type Term } from "./graph.js";
import { rowsOf, zeros, type PlannedMatrix } from "./matrices.js";
import { asBits, asProduct, asRows, onesRow, quads, Slots, type Address, type ChunkRecorder, type Values } from "./recorder.js";
import type { Binding } from "./steps.js";

/** The values of a forward pass over `rows` rows: the points, or moved copies of them. */
export interface ForwardPass {
  readonly rows: number;
  readonly values: Map<number, Values>;
}

/** What a forward pass must leave behind. */
export interface Wanted {
  readonly value: Address | null;
  /** Nodes whose σ' is kept, and whose value is. */
  readonly derivatives: ReadonlySet<number>;
  readonly values: ReadonlySet<number>;
}

/** Copies of each point, copy 2k moved by -h and copy 2k + 1 by +h along coordinate firstCoordinate + k. */
export interface Moved {
  readonly copies: number;
  readonly firstCoordinate: number;
  readonly step: number;
}

/** Each point once; no state has that coordinate. */
export const UNMOVED: Moved = { copies: 1, firstCoordinate: 0xffffffff, step: 0 };

/** Writes the steps of a forward pass: σ(Σ terms + bias) of each node that is wanted, or leads to one. */
export class ForwardSteps {
  constructor(private readonly chunk: ChunkRecorder) {}

  /** Every value that is wanted or leads to one; scales stay in scratch buffers of their own, values in slots that are used again. */
  run(moved: Moved, wanted: Wanted): ForwardPass {
    const { nodes, output } = this.chunk.graph;
    const rows = this.chunk.count * moved.copies;
    const needed = this.neededNodes(wanted);
    const lastUse = new Map<number, number>();
    for (const node of nodes) if (needed.has(node.index)) for (const source of sourcesOf(node)) lastUse.set(source, node.index);
    const pass: ForwardPass = { rows, values: new Map() };
    const slots = new Slots("value");
    const held = new Map<number, string>();

    for (const node of nodes) {
      if (!needed.has(node.index)) continue;
      const isResult = node === output && wanted.value !== null;
      // A velocity that the context alone decides is given for every point all the same.
      const shared = !isResult && this.chunk.isShared(node);
      const own = shared ? 1 : rows;
      const kept = wanted.values.has(node.index);
      if (node.body.kind === "state" && !isResult && !kept && moved === UNMOVED) {
        const asTheyLie = this.pointsAsTheyLie(node.width);
        if (asTheyLie) {
          pass.values.set(node.index, asTheyLie);
          continue;
        }
      }
      const direct = isResult && !kept && node.body.kind === "sum";
      let address = wanted.value!;
      if (!direct) {
        const name = kept ? `kept value ${node.index}` : slots.take(shared);
        if (!kept) held.set(node.index, name);
        address = this.chunk.padded(name, own, node.width);
      }
      this.compute(node, pass, own, address, slots, wanted.derivatives.has(node.index), moved);
      const values = { binding: address.binding, perRow: shared ? 0 : quads(node.width) };
      pass.values.set(node.index, values);
      if (isResult && !direct) this.combine("copy the value", null, rows, values, null, null, wanted.value, null, node.width);
      for (const source of sourcesOf(node)) {
        const name = held.get(source);
        if (name !== undefined && lastUse.get(source) === node.index) {
          slots.free(name);
          held.delete(source);
        }
      }
    }
    return pass;
  }

  /** The points where they lie as products read them, in whole vec4s; null where they have to be gathered. */
  private pointsAsTheyLie(width: number): Values | null {
    const { route } = this.chunk;
    if (width % 4 !== 0 || (route.to === "device" && route.sharesBuffers)) return null;
    const { binding, offset, stride } = this.chunk.outer("points", width);
    return offset === 0 && stride % 4 === 0 ? { binding, perRow: stride / 4 } : null;
  }

  private neededNodes({ value, derivatives, values }: Wanted): Set<number> {
    const needed = new Set([...derivatives, ...values, ...(value ? [this.chunk.graph.output.index] : [])]);
    for (const node of this.chunk.graph.nodes.toReversed())
      if (needed.has(node.index)) for (const source of sourcesOf(node)) needed.add(source);
    return needed;
  }

  /** σ(body) of a node, and σ' where it is kept. */
  private compute(node: Node, pass: ForwardPass, rows: number, into: Address, slots: Slots, keepsScale: boolean, moved: Moved): void {
    const { body, index, width } = node;
    switch (body.kind) {
      case "state":
        return this.gather("gather the points", this.chunk.outer("points", width), width, rows, into.binding, moved);
      case "context": {
        // A context is the same for every moved copy of its point.
        const copies = this.chunk.sharedContext() ? 1 : moved.copies;
        return this.gather("gather the contexts", this.chunk.outer("context", width), width, rows, into.binding, { ...UNMOVED, copies });
      }
      case "norm":
        return this.norm(node, body, pass, rows, into);
      case "sum": {
        // A term that is taken as it is starts the sum, where no bias does.
        const start = body.bias ? undefined : body.terms.find((term) => term.kind === "diagonal" && term.factors === null);
        const terms: (Term | null)[] = body.terms.filter((term) => term !== start);
        if (terms.length === 0) terms.push(null);
        let prior: Values = start ? pass.values.get(start.source)! : { binding: asRows(biasOf(index, width, body.bias)), perRow: 0 };
        const partial: string[] = [];
        for (const [position, term] of terms.entries()) {
          const last = position === terms.length - 1;
          if (!last) partial.push(slots.take(this.chunk.isShared(node) && rows === 1));
          const address = last ? into : this.chunk.padded(partial.at(-1)!, rows, width);
          const scale = last && keepsScale ? this.chunk.scratch(`derivative ${index}`, rows * quads(width) * 4) : null;
          this.addTerm(node, term, pass, rows, prior, address, last, scale);
          prior = { binding: address.binding, perRow: quads(width) };
        }
        for (const name of partial) slots.free(name);
      }
    }
  }

  /** Padded rows of vec4 of the caller's: each once, or 2K times with one coordinate moved by ∓h. */
  gather(label: string, given: Address, size: number, rows: number, into: Binding, { copies, firstCoordinate, step }: Moved): void {
    const width = quads(size);
    this.chunk.add({
      label,
      kernel: "gather",
      parameters: { rows, copies, size, width, offset: given.offset, stride: given.stride, firstCoordinate, step: asBits(step) },
      bindings: { given: given.binding, gathered: into },
      invocations: rows * width,
    });
  }

  /** prior + term, through the node's activation where the term is the last. */
  private addTerm(
    node: Node,
    term: Term | null,
    pass: ForwardPass,
    rows: number,
    prior: Values,
    into: Address,
    last: boolean,
    scale: Binding | null,
  ): void {
    const activation = last ? node.activation : null;
    if (term?.kind !== "dense") {
      const x = term && pass.values.get(term.source)!;
      const ones = (): Values => ({
        binding: asRows(term?.kind === "diagonal" && term.factors ? term.factors : onesRow(node.width)),
        perRow: 0,
      });
      const f = term?.kind === "product" ? pass.values.get(term.by)! : term && ones();
      return this.combine(`node ${node.index}, element by element`, activation, rows, prior, x, f, into, scale, node.width);
    }
    const { binding, perRow } = pass.values.get(term.source)!;
    const outer = quads(node.width);
    this.chunk.add({
      label: `node ${node.index}: ${term.matrix.name}`,
      kernel: "primal",
      activation,
      tile: this.chunk.tile,
      parameters: {
        rows,
        size: node.width,
        inner: quads(term.matrix.columns),
        outer,
        inputPerRow: perRow,
        priorPerRow: prior.perRow,
        outOffset: into.offset,
        outStride: into.stride,
        outWidth: into.width,
        keepsScale: scale ? 1 : 0,
      },
      bindings: {
        weight: asProduct(term.matrix),
        prior: prior.binding,
        a: binding,
        out: into.binding,
        scale: scale ?? this.chunk.scratch("unused", 4),
      },
      invocations: this.chunk.productInvocations(rows, this.chunk.tilesAcross(node.width)),
      multiplyAdds: rows * term.matrix.rows * term.matrix.columns,
    });
  }

  /** σ(prior + f ∘ x), or σ(prior) where there is no x. */
  combine(
    label: string,
    activation: Activation | null,
    rows: number,
    prior: Values,
    x: Values | null,
    f: Values | null,
    into: Address,
    scale: Binding | null,
    width: number,
  ): void {
    const nothing = { binding: asRows(zeros(1, width)), perRow: 0 };
    const outer = quads(width);
    this.chunk.add({
      label,
      kernel: "combine",
      activation,
      parameters: {
        rows,
        size: width,
        outer,
        priorPerRow: prior.perRow,
        xPerRow: (x ?? nothing).perRow,
        fPerRow: (f ?? nothing).perRow,
        outOffset: into.offset,
        outStride: into.stride,
        outWidth: into.width,
        keepsScale: scale ? 1 : 0,
      },
      bindings: {
        prior: prior.binding,
        x: (x ?? nothing).binding,
        f: (f ?? nothing).binding,
        out: into.binding,
        scale: scale ?? this.chunk.scratch("unused", 4),
      },
      invocations: rows * outer,
      multiplyAdds: x ? rows * width : 0,
    });
  }

  private norm(node: Node, body: Extract<Node["body"], { kind: "norm" }>, pass: ForwardPass, rows: number, into: Address): void {
    const { binding, perRow } = pass.values.get(body.source)!;
    this.chunk.add({
      label: `node ${node.index}: norm`,
      kernel: "norm",
      parameters: {
        rows,
        size: node.width,
        width: quads(node.width),
        inputPerRow: perRow,
        centered: body.centered ? 1 : 0,
        epsilon: asBits(body.epsilon),
      },
      bindings: { x: binding, normed: into.binding, deviation: this.chunk.scratch(`deviation ${node.index}`, rows) },
      invocations: rows,
      multiplyAdds: rows * 4 * node.width,
    });
  }
}

function biasOf(index: number, width: number, bias: ArrayLike<number> | null): PlannedMatrix {
  return bias ? rowsOf(`b${index}`, 1, width, () => Array.from(bias)) : zeros(1, width);
}
