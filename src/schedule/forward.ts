import type { Activation } from "../model/activation.js";
import { sourcesOf, type Node, type Term } from "../plan/graph.js";
import { sizeOf, zeros } from "../plan/matrices.js";
import type { ForwardInstruction } from "../plan/program.js";
import { asBits, asProduct, asRows, onesRow, quads, Slots, type Address, type ChunkRecorder, type Values } from "./recorder.js";
import type { Binding } from "./steps.js";
import { bandOf, productInvocations, tilesAcross } from "./tile.js";

/** Copies of each point, copy 2k moved by -h and copy 2k + 1 by +h along coordinate firstCoordinate + k. */
export interface Moved {
  readonly copies: number;
  readonly firstCoordinate: number;
  readonly step: number;
}

/** Each point once; no state has that coordinate. */
export const UNMOVED: Moved = { copies: 1, firstCoordinate: 0xffffffff, step: 0 };

/** The values of a forward pass over `rows` rows: the points, or moved copies of them. */
interface Pass {
  readonly rows: number;
  readonly values: Map<number, Values>;
  readonly slots: Slots;
}

/** Where tangents find what the forward pass has left for them. */
export const valueName = (node: number): string => `kept value ${node}`;
export const curvatureName = (node: number): string => `curvature ${node}`;
export const slopeName = (node: number): string => `slope ${node}`;
export const inverseDeviationName = (node: number): string => `inverse deviation ${node}`;

/** Where σ' and σ'' of a node go; null where nobody reads them. */
interface Derivatives {
  readonly slope: Binding | null;
  readonly curvature: Binding | null;
}

/** Writes the steps of the forward instructions. */
export class ForwardSteps {
  constructor(private readonly chunk: ChunkRecorder) {}

  /**
   * @param value where the velocity goes; null: nowhere.
   * @param kept the nodes whose values stay in buffers of their own; those of all others are used again.
   * @param known values that are there already.
   */
  run(
    instructions: readonly ForwardInstruction[],
    moved: Moved,
    value: Address | null,
    kept: ReadonlySet<number>,
    known: ReadonlyMap<number, Values> = new Map(),
  ): void {
    const { output } = this.chunk.graph;
    const pass: Pass = { rows: this.chunk.count * moved.copies, values: new Map(known), slots: new Slots("value") };
    const lastUse = new Map<number, number>();
    for (const { node } of instructions) for (const source of sourcesOf(node)) lastUse.set(source, node.index);
    const held = new Map<number, string>();

    for (const instruction of instructions) {
      const { node } = instruction;
      if (pass.values.has(node.index)) continue;
      const isResult = node === output && value !== null;
      const keeps = kept.has(node.index);
      const asTheyLie = instruction.kind === "load" && !isResult && !keeps && moved === UNMOVED ? this.asTheyLie(instruction) : null;
      if (asTheyLie) {
        pass.values.set(node.index, asTheyLie);
        continue;
      }
      // A velocity that the context alone decides is given for every point all the same.
      const shared = !isResult && this.chunk.isShared(node);
      const rows = shared ? 1 : pass.rows;
      const direct = isResult && !keeps && instruction.kind === "sum";
      let address = value!;
      if (!direct) {
        const name = keeps ? valueName(node.index) : pass.slots.take(shared);
        if (!keeps) held.set(node.index, name);
        address = this.chunk.padded(name, rows, node.width);
      }
      this.compute(instruction, pass, rows, address, moved);
      const values = { binding: address.binding, perRow: shared ? 0 : quads(node.width) };
      pass.values.set(node.index, values);
      if (isResult && !direct) this.combine("copy the value", null, pass.rows, values, null, null, value, null, node.width);
      for (const source of sourcesOf(node)) {
        const name = held.get(source);
        if (name !== undefined && lastUse.get(source) === node.index) {
          pass.slots.free(name);
          held.delete(source);
        }
      }
    }
  }

  /** The points where they lie as products read them, in whole vec4s; null where they have to be gathered. */
  private asTheyLie({ node: { width }, from }: Extract<ForwardInstruction, { kind: "load" }>): Values | null {
    const { route } = this.chunk;
    if (from !== "points" || width % 4 !== 0 || (route.to === "device" && route.sharesBuffers)) return null;
    const { binding, offset, stride } = this.chunk.outer("points", width);
    return offset === 0 && stride % 4 === 0 ? { binding, perRow: stride / 4 } : null;
  }

  /** The value of a node, and its slope where it is kept. */
  private compute(instruction: ForwardInstruction, pass: Pass, rows: number, into: Address, moved: Moved): void {
    const { node } = instruction;
    const { width, index } = node;
    switch (instruction.kind) {
      case "load": {
        // A context is the same for every moved copy of its point.
        const copies = this.chunk.sharedContext() ? 1 : moved.copies;
        const { from } = instruction;
        return this.gather(`gather the ${from}`, this.chunk.outer(from, width), width, rows, into.binding, {
          ...UNMOVED,
          ...(from === "context" && { copies }),
        });
      }
      case "norm":
        return this.norm(instruction, pass, rows, into);
      case "sum": {
        const { bias, keepsSlope, keepsCurvature = false, activation } = instruction;
        // A term that is taken as it is starts the sum, where no bias does.
        const start = bias ? undefined : instruction.terms.find((term) => term.kind === "diagonal" && term.factors === null);
        const terms: (Term | null)[] = instruction.terms.filter((term) => term !== start);
        if (terms.length === 0) terms.push(null);
        let prior: Values = start ? pass.values.get(start.source)! : { binding: asRows(bias ?? zeros(1, width)), perRow: 0 };
        const partial: string[] = [];
        for (const [position, term] of terms.entries()) {
          const last = position === terms.length - 1;
          if (!last) partial.push(pass.slots.take(this.chunk.isShared(node) && rows === 1));
          const address = last ? into : this.chunk.padded(partial.at(-1)!, rows, width);
          const kept = (keeps: boolean, name: string): Binding | null =>
            last && keeps ? this.chunk.scratch(name, rows * quads(width) * 4) : null;
          const derivatives = { slope: kept(keepsSlope, slopeName(index)), curvature: kept(keepsCurvature, curvatureName(index)) };
          this.addTerm(node, term, pass, rows, prior, address, last ? activation : null, derivatives);
          prior = { binding: address.binding, perRow: quads(width) };
        }
        for (const name of partial) pass.slots.free(name);
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
    pass: Pass,
    rows: number,
    prior: Values,
    into: Address,
    activation: Activation | null,
    derivatives: Derivatives,
  ): void {
    if (term?.kind !== "dense") {
      const x = term && pass.values.get(term.source)!;
      const ones = (): Values => ({
        binding: asRows(term?.kind === "diagonal" && term.factors ? term.factors : onesRow(node.width)),
        perRow: 0,
      });
      const f = term?.kind === "product" ? pass.values.get(term.by)! : term && ones();
      return this.combine(`node ${node.index}, element by element`, activation, rows, prior, x, f, into, derivatives, node.width);
    }
    const { binding, perRow } = pass.values.get(term.source)!;
    const outer = quads(node.width);
    const tile = this.chunk.tileOf(term.matrix);
    this.chunk.add({
      label: `node ${node.index}: ${term.matrix.name}`,
      kernel: "primal",
      activation,
      tile,
      parameters: {
        rows,
        size: node.width,
        ...bandOf(term.matrix),
        outer,
        inputPerRow: perRow,
        priorPerRow: prior.perRow,
        outOffset: into.offset,
        outStride: into.stride,
        outWidth: into.width,
        ...this.keeps(derivatives),
      },
      curved: derivatives.curvature !== null,
      bindings: {
        weight: asProduct(term.matrix, tile),
        prior: prior.binding,
        a: binding,
        out: into.binding,
        ...this.bound(derivatives),
      },
      invocations: productInvocations(tile, rows, tilesAcross(tile, node.width)),
      multiplyAdds: rows * sizeOf(term.matrix),
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
    derivatives: Derivatives | null,
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
        ...this.keeps(derivatives),
      },
      curved: Boolean(derivatives?.curvature),
      bindings: {
        prior: prior.binding,
        x: (x ?? nothing).binding,
        f: (f ?? nothing).binding,
        out: into.binding,
        ...this.bound(derivatives),
      },
      invocations: rows * outer,
      multiplyAdds: x ? rows * width : 0,
    });
  }

  private keeps(derivatives: Derivatives | null): { keepsSlope: number; keepsCurvature: number } {
    return { keepsSlope: derivatives?.slope ? 1 : 0, keepsCurvature: derivatives?.curvature ? 1 : 0 };
  }

  private bound(derivatives: Derivatives | null): Record<keyof Derivatives, Binding> {
    return {
      slope: derivatives?.slope ?? this.chunk.scratch("unused", 4),
      curvature: derivatives?.curvature ?? this.chunk.scratch("unused curvature", 4),
    };
  }

  private norm(instruction: Extract<ForwardInstruction, { kind: "norm" }>, pass: Pass, rows: number, into: Address): void {
    const { node, source, centered, epsilon } = instruction;
    const { binding, perRow } = pass.values.get(source)!;
    this.chunk.add({
      label: `node ${node.index}: norm`,
      kernel: "norm",
      parameters: {
        rows,
        size: node.width,
        width: quads(node.width),
        inputPerRow: perRow,
        centered: centered ? 1 : 0,
        epsilon: asBits(epsilon),
      },
      bindings: { x: binding, normed: into.binding, inverseDeviation: this.chunk.scratch(inverseDeviationName(node.index), rows) },
      invocations: rows,
      multiplyAdds: rows * 4 * node.width,
    });
  }
}
