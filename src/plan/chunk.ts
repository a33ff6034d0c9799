import type { Activation } from "../model/activation.js";
import { sourcesOf, STATE, type Graph, type Node, type Term } from "./graph.js";
import { ones, rowsOf, zeros, type PlannedMatrix } from "./matrices.js";
import {
  multiplyAddsPerTangent,
  scalesOf,
  widthOfTarget,
  type Factor,
  type Instruction,
  type Register,
  type Rows,
  type Scale,
  type Target,
} from "./program.js";
import {
  PARTIAL_SUMS,
  ROWS_PER_INVOCATION,
  STEPS_PER_SUBMISSION,
  type Binding,
  type Chunk,
  type MatrixLayout,
  type OuterName,
  type Read,
  type Route,
  type ScheduleLimits,
  type Step,
  type Submission,
} from "./steps.js";
import type { DifferencePlan, Plan, TracePlan } from "./trace.js";

export interface ChunkRequest {
  readonly plan: Plan;
  readonly first: number;
  readonly count: number;
  readonly tangentsAtOnce: number;
  readonly limits: ScheduleLimits;
  readonly route: Route;
}

/** Writes the steps of one chunk: the forward pass, then the tangents pass by pass, then the reduction of the terms. */
export function buildChunk(request: ChunkRequest): Chunk {
  return new ChunkBuilder(request).build();
}

const quads = (width: number): number => Math.ceil(width / 4);

/** A buffer with rows of vec4, `perRow` apart; 0 where one row serves all. */
interface Values {
  readonly binding: Binding;
  readonly perRow: number;
}

/** Tangents, or rows contracted with them: where column k of point b is found, in vec4. */
interface Columns {
  readonly binding: Binding;
  readonly offset: number;
  readonly perPoint: number;
  readonly perColumn: number;
}

/** Where a result of the forward pass is written, in floats. */
interface Address {
  readonly binding: Binding;
  readonly offset: number;
  readonly stride: number;
  /** How many floats of a row are stored: the node's width, or whole vec4s in scratch. */
  readonly width: number;
}

/** The values of a forward pass over `rows` rows: the points, or moved copies of them. */
interface ForwardPass {
  readonly rows: number;
  readonly values: Map<number, Values>;
}

/** What a forward pass must leave behind. */
interface Wanted {
  readonly value: Address | null;
  /** Nodes whose σ' is kept, and whose value is. */
  readonly derivatives: ReadonlySet<number>;
  readonly values: ReadonlySet<number>;
}

class ChunkBuilder {
  private readonly scratchBytes = new Map<string, number>();
  private readonly submissions: Submission[] = [];
  private steps: Step[] = [];
  private work = 0;
  private readonly plan: Plan;
  private readonly graph: Graph;
  private readonly count: number;
  private readonly route: Route;
  /** Products of scales, by what they are made of. */
  private readonly products = new Map<string, Values>();

  constructor(private readonly request: ChunkRequest) {
    this.plan = request.plan;
    this.graph = request.plan.graph;
    this.count = request.count;
    this.route = request.route;
  }

  build(): Chunk {
    const { plan, count, graph } = this;
    const wantsValue = plan.outputs.includes("value");
    const value = wantsValue ? this.valueAddress() : null;
    if (plan.kind === "trace") {
      const wanted = { value, ...keptOf(plan.instructions) };
      if (value || wanted.derivatives.size > 0 || wanted.values.size > 0) this.forward(UNMOVED, wanted);
      this.trace(plan);
    } else {
      if (value) this.forward(UNMOVED, { value, derivatives: new Set(), values: new Set() });
      if (plan.kind === "difference") this.differences(plan);
    }
    const reads: Read[] = [];
    if (wantsValue && this.route.to === "host")
      reads.push({ what: "value", scratch: "value", width: graph.stateSize, first: 0, columns: 0 });
    if (plan.method === "jvp") reads.push({ what: "tangent", scratch: "tangent", width: graph.stateSize, first: 0, columns: 0 });
    else if (plan.kind !== "value") reads.push(...this.reduce());
    this.submit(reads);
    return { first: this.request.first, count, submissions: this.submissions, scratch: this.scratchBytes };
  }

  // The forward pass.

  /** Every value that is wanted or leads to one; scales stay in scratch buffers of their own, values in slots that are used again. */
  private forward(moved: Moved, wanted: Wanted): ForwardPass {
    const { nodes, output } = this.graph;
    const rows = this.count * moved.copies;
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
      const shared = !isResult && this.isShared(node);
      const own = shared ? 1 : rows;
      const kept = wanted.values.has(node.index);
      const direct = isResult && !kept && node.body.kind === "sum";
      let address = wanted.value!;
      if (!direct) {
        const name = kept ? `kept value ${node.index}` : slots.take(shared);
        if (!kept) held.set(node.index, name);
        address = this.padded(name, own, node.width);
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

  private neededNodes({ value, derivatives, values }: Wanted): Set<number> {
    const needed = new Set([...derivatives, ...values, ...(value ? [this.graph.output.index] : [])]);
    for (const node of this.graph.nodes.toReversed()) if (needed.has(node.index)) for (const source of sourcesOf(node)) needed.add(source);
    return needed;
  }

  /** Whether the node depends on a context alone that all points share: one row for all. */
  private isShared({ moves }: Node): boolean {
    return !moves && this.sharedContext();
  }

  private sharedContext(): boolean {
    if (this.graph.contextSize === 0) return true;
    return this.route.to === "host" ? this.route.sharedContext : this.route.outer.context?.stride === 0;
  }

  /** Rows of a scratch buffer in whole vec4s. */
  private padded(name: string, rows: number, width: number): Address {
    const floats = quads(width) * 4;
    return { binding: this.scratch(name, rows * floats), offset: 0, stride: floats, width: floats };
  }

  /** σ(body) of a node, and σ' where it is kept. */
  private compute(node: Node, pass: ForwardPass, rows: number, into: Address, slots: Slots, keepsScale: boolean, moved: Moved): void {
    const { body, index, width } = node;
    switch (body.kind) {
      case "state":
        return this.gather("gather the points", this.outer("points", width), width, rows, into.binding, moved);
      case "context": {
        // A context is the same for every moved copy of its point.
        const copies = this.sharedContext() ? 1 : moved.copies;
        return this.gather("gather the contexts", this.outer("context", width), width, rows, into.binding, { ...UNMOVED, copies });
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
          if (!last) partial.push(slots.take(this.isShared(node) && rows === 1));
          const address = last ? into : this.padded(partial.at(-1)!, rows, width);
          const scale = last && keepsScale ? this.scratch(`derivative ${index}`, rows * quads(width) * 4) : null;
          this.addTerm(node, term, pass, rows, prior, address, last, scale);
          prior = { binding: address.binding, perRow: quads(width) };
        }
        for (const name of partial) slots.free(name);
      }
    }
  }

  /** Padded rows of vec4 of the caller's: each once, or 2K times with one coordinate moved by ∓h. */
  private gather(label: string, given: Address, size: number, rows: number, into: Binding, { copies, firstCoordinate, step }: Moved): void {
    const width = quads(size);
    this.add({
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
    this.add({
      label: `node ${node.index}: ${term.matrix.name}`,
      kernel: "primal",
      activation,
      parameters: {
        rows,
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
        scale: scale ?? this.scratch("unused", 4),
      },
      invocations: Math.ceil(rows / ROWS_PER_INVOCATION) * outer,
      multiplyAdds: rows * term.matrix.rows * term.matrix.columns,
    });
  }

  /** σ(prior + f ∘ x), or σ(prior) where there is no x. */
  private combine(
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
    this.add({
      label,
      kernel: "combine",
      activation,
      parameters: {
        rows,
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
        scale: scale ?? this.scratch("unused", 4),
      },
      invocations: rows * outer,
      multiplyAdds: x ? rows * width : 0,
    });
  }

  private norm(node: Node, body: Extract<Node["body"], { kind: "norm" }>, pass: ForwardPass, rows: number, into: Address): void {
    const { binding, perRow } = pass.values.get(body.source)!;
    this.add({
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
      bindings: { x: binding, normed: into.binding, deviation: this.scratch(`deviation ${node.index}`, rows) },
      invocations: rows,
      multiplyAdds: rows * 4 * node.width,
    });
  }

  // The tangents.

  private trace(plan: TracePlan): void {
    if (plan.instructions.some(({ kind }) => kind === "contract")) this.scratch("terms", this.count * this.termsPerPoint());
    const registers = new Slots("tangents");
    for (let column = 0; column < plan.tangents; column += this.request.tangentsAtOnce) {
      const columns = Math.min(this.request.tangentsAtOnce, plan.tangents - column);
      const before = this.work;
      this.pass(plan, column, columns, registers);
      if (column + columns < plan.tangents) this.submitWhenFull(this.work - before);
    }
  }

  /** The tangents [column, column + columns) of every point, from seed to end. */
  private pass(plan: TracePlan, column: number, columns: number, slots: Slots): void {
    const pass = new TangentPass(column, columns);
    if (readsRows(plan.instructions, "probes")) pass.probes = this.probes(plan, column, columns);
    if (readsRows(plan.instructions, "given")) pass.given = this.given();
    const lastUse = new Map<number, number>();
    plan.instructions.forEach((instruction, index) => {
      for (const { index: register } of registersOf(instruction)) lastUse.set(register, index);
    });
    plan.instructions.forEach((instruction, index) => {
      this.run(plan, instruction, pass, slots);
      for (const [register, name] of pass.held)
        if (lastUse.get(register) === index) {
          slots.free(name);
          pass.held.delete(register);
        }
    });
    if (!plan.instructions.some(({ kind }) => kind === "contract") && plan.method !== "jvp") this.diagonal(column, columns);
  }

  private run(plan: TracePlan, instruction: Instruction, pass: TangentPass, slots: Slots): void {
    switch (instruction.kind) {
      case "contract":
        if (!instruction.once || pass.column === 0) this.contract(plan, instruction, pass);
        return;
      case "carry":
        return this.carry(instruction, pass, slots);
      case "blend":
        return this.blend(instruction, pass, slots);
      case "norm":
        return this.normTangent(instruction, pass, slots);
    }
  }

  private carry(instruction: Extract<Instruction, { kind: "carry" }>, pass: TangentPass, slots: Slots): void {
    const { matrix, from } = instruction;
    const points = this.pointsOf(instruction.into);
    const rows = points * pass.columns;
    const [inner, outer] = [quads(matrix.columns), quads(matrix.rows)];
    const scale = this.scaleValues(from.scale, matrix.columns);
    const end = this.scaleValues(instruction.endScale, matrix.rows);
    const tangent = this.columnsOf(from.rows, pass);
    const target = this.target(instruction.into, pass, slots);
    this.add({
      label: `carry by ${matrix.name}`,
      kernel: "carry",
      parameters: {
        rows,
        columns: pass.columns,
        inner,
        outer,
        tangentOffset: tangent.offset,
        tangentPerPoint: tangent.perPoint,
        tangentPerColumn: tangent.perColumn,
        scalePerPoint: scale.perRow,
        ...target.strides,
        endScalePerPoint: end.perRow,
        adds: instruction.adds ? 1 : 0,
      },
      bindings: { weight: asProduct(matrix), tangent: tangent.binding, scale: scale.binding, endScale: end.binding, out: target.binding },
      invocations: Math.ceil(rows / ROWS_PER_INVOCATION) * outer,
      multiplyAdds: rows * matrix.rows * matrix.columns,
    });
  }

  private blend(instruction: Extract<Instruction, { kind: "blend" }>, pass: TangentPass, slots: Slots): void {
    const { from, into, endScale } = instruction;
    const width = widthOfTarget(into);
    const rows = this.pointsOf(into) * pass.columns;
    const scale = this.scaleValues([...from.scale, ...endScale], width);
    const tangent = this.columnsOf(from.rows, pass);
    const target = this.target(into, pass, slots);
    this.add({
      label: "blend tangents",
      kernel: "blend",
      parameters: {
        rows,
        columns: pass.columns,
        outer: quads(width),
        tangentOffset: tangent.offset,
        tangentPerPoint: tangent.perPoint,
        tangentPerColumn: tangent.perColumn,
        scalePerPoint: scale.perRow,
        ...target.strides,
        adds: instruction.adds ? 1 : 0,
      },
      bindings: { tangent: tangent.binding, scale: scale.binding, out: target.binding },
      invocations: rows * quads(width),
      multiplyAdds: rows * multiplyAddsPerTangent(instruction),
    });
  }

  private normTangent(instruction: Extract<Instruction, { kind: "norm" }>, pass: TangentPass, slots: Slots): void {
    const { node: index, from, into } = instruction;
    const node = this.graph.nodes[index]!;
    const rows = this.count * pass.columns;
    const scale = this.scaleValues(from.scale, node.width);
    const tangent = this.columnsOf(from.rows, pass);
    const target = this.target(into, pass, slots);
    this.add({
      label: `tangents of norm ${index}`,
      kernel: "norm_tangent",
      parameters: {
        rows,
        columns: pass.columns,
        size: node.width,
        width: quads(node.width),
        centered: node.body.kind === "norm" && node.body.centered ? 1 : 0,
        tangentOffset: tangent.offset,
        tangentPerPoint: tangent.perPoint,
        tangentPerColumn: tangent.perColumn,
        scalePerPoint: scale.perRow,
      },
      bindings: {
        tangent: tangent.binding,
        scale: scale.binding,
        value: this.scratch(`kept value ${index}`, 0),
        deviation: this.scratch(`deviation ${index}`, 0),
        out: target.binding,
      },
      invocations: rows,
      multiplyAdds: rows * 4 * node.width,
    });
  }

  private contract(plan: TracePlan, instruction: Extract<Instruction, { kind: "contract" }>, pass: TangentPass): void {
    const { matrix, from, width } = instruction;
    const columns = instruction.once ? 1 : pass.columns;
    const rows = this.count * columns;
    const tangent = this.columnsOf(from.rows, pass);
    const contraction = this.columnsOf(instruction.rows, pass);
    // Without a product between them, both scales meet at once.
    const scale = matrix ? this.scaleValues(instruction.scale, width) : this.scaleValues([...from.scale, ...instruction.scale], width);
    const factor = this.scaleValues(instruction.endScale, instruction.endScale.length > 0 ? plan.tangents : 1);
    const parameters = {
      rows,
      columns,
      tangentOffset: tangent.offset,
      tangentPerPoint: tangent.perPoint,
      tangentPerColumn: tangent.perColumn,
      contractionOffset: contraction.offset,
      contractionPerPoint: contraction.perPoint,
      contractionPerColumn: contraction.perColumn,
      contractionScalePerPoint: scale.perRow,
      factorPerPoint: factor.perRow * 4,
      factorPerColumn: instruction.endScale.length > 0 ? 1 : 0,
      firstColumn: instruction.once ? 0 : pass.column,
      termsPerPoint: this.termsPerPoint(),
      adds: instruction.adds ? 1 : 0,
    };
    const bindings = {
      tangent: tangent.binding,
      contraction: contraction.binding,
      contractionScale: scale.binding,
      factor: factor.binding,
      terms: this.scratch("terms", 0),
    };
    if (!matrix) {
      this.add({
        label: "contract the tangents",
        kernel: "dot",
        parameters: { ...parameters, width: quads(width) },
        bindings,
        invocations: rows,
        multiplyAdds: rows * width,
      });
      return;
    }
    const scaling = this.scaleValues(from.scale, matrix.columns);
    this.add({
      label: `carry by ${matrix.name} and contract`,
      kernel: "contract",
      parameters: {
        ...parameters,
        inner: quads(matrix.columns),
        outer: quads(matrix.rows),
        parts: this.partsPerTerm(),
        scalePerPoint: scaling.perRow,
      },
      bindings: { ...bindings, weight: asProduct(matrix), scale: scaling.binding },
      invocations: Math.ceil(rows / ROWS_PER_INVOCATION) * this.partsPerTerm(),
      multiplyAdds: rows * multiplyAddsPerTangent(instruction),
    });
  }

  private diagonal(column: number, columns: number): void {
    const d = this.graph.stateSize;
    const terms = this.scratch("terms", this.count * this.termsPerPoint());
    this.add({
      label: "diagonal of the Jacobian",
      kernel: "diagonal",
      parameters: { rows: this.count * columns, columns, perPoint: d * columns, first: column, termsPerPoint: this.termsPerPoint() },
      bindings: { jacobian: this.scratch("jacobian", 0), terms },
      invocations: this.count * columns,
    });
    if (this.plan.outputs.includes("jacobian"))
      this.submit([{ what: "jacobian", scratch: "jacobian", width: d * columns, first: column, columns }]);
  }

  private probes(plan: TracePlan, column: number, columns: number): Columns {
    const { stateSize: d } = this.graph;
    const shared = plan.probes!.per === "batch";
    const width = quads(d);
    const rows = columns * (shared ? 1 : this.count);
    const binding = this.scratch("probes", rows * width * 4);
    this.add({
      label: "Rademacher probes",
      kernel: "probes",
      parameters: {
        rows,
        columns,
        stateSize: d,
        width,
        firstPoint: shared ? 0 : this.request.first,
        firstColumn: column,
        seed: plan.probes!.seed,
      },
      bindings: { probes: binding },
      invocations: rows * width,
    });
    return { binding, offset: 0, perPoint: shared ? 0 : columns * width, perColumn: width };
  }

  private given(): Columns {
    const { stateSize: d } = this.graph;
    const width = quads(d);
    const binding = this.scratch("given tangents", this.count * width * 4);
    this.gather("gather the tangents", this.outer("tangents", d), d, this.count, binding, UNMOVED);
    return { binding, offset: 0, perPoint: width, perColumn: 0 };
  }

  private columnsOf(rows: Rows, pass: TangentPass): Columns {
    switch (rows.kind) {
      case "matrix": {
        const width = quads(rows.matrix.columns);
        return { binding: asRows(rows.matrix), offset: pass.column * width, perPoint: 0, perColumn: width };
      }
      case "probes":
        return pass.probes!;
      case "given":
        return pass.given!;
      case "register": {
        const { index, width, shared } = rows.register;
        const binding: Binding = { kind: "scratch", name: pass.names.get(index)! };
        return { binding, offset: 0, perPoint: shared ? 0 : pass.columns * quads(width), perColumn: quads(width) };
      }
    }
  }

  private pointsOf(into: Target): number {
    return into.kind === "register" && into.register.shared ? 1 : this.count;
  }

  /** Where tangents are written, and their strides in floats. */
  private target(
    into: Target,
    pass: TangentPass,
    slots: Slots,
  ): { binding: Binding; strides: Record<"outPerPoint" | "outPerColumn" | "outPerRow" | "outRows", number> } {
    const { columns } = pass;
    if (into.kind === "register") {
      const { index, width } = into.register;
      if (!pass.names.has(index)) {
        const name = slots.take(into.register.shared);
        pass.names.set(index, name);
        pass.held.set(index, name);
      }
      const padded = quads(width) * 4;
      const binding = this.scratch(pass.names.get(index)!, this.pointsOf(into) * columns * padded);
      return { binding, strides: { outPerPoint: columns * padded, outPerColumn: padded, outPerRow: 1, outRows: padded } };
    }
    const d = into.width;
    const binding = this.scratch(into.kind, this.count * d * columns);
    return { binding, strides: { outPerPoint: d * columns, outPerColumn: 1, outPerRow: columns, outRows: d } };
  }

  /** A scale as rows, the product of its factors where there are several, ones where there is none. */
  private scaleValues(scale: Scale, width: number): Values {
    if (scale.length === 0) return { binding: asRows(onesRow(width)), perRow: 0 };
    const [first, ...rest] = scale;
    if (rest.length === 0) return this.factorValues(first!);
    const key = scale.map(nameOf).toSorted().join(" ");
    let product = this.products.get(key);
    if (!product) {
      let values = this.factorValues(first!);
      rest.forEach((factor, index) => {
        const other = this.factorValues(factor);
        const perRow = values.perRow || other.perRow ? quads(width) : 0;
        const rows = perRow === 0 ? 1 : this.count;
        const into = this.padded(`scale ${key} ${index}`, rows, width);
        this.combine("multiply scales", null, rows, { binding: asRows(zeros(1, width)), perRow: 0 }, values, other, into, null, width);
        values = { binding: into.binding, perRow };
      });
      this.products.set(key, (product = values));
    }
    return product;
  }

  private factorValues(factor: Factor): Values {
    if (factor.kind === "constant") return { binding: asRows(factor.row), perRow: 0 };
    const node = this.graph.nodes[factor.node]!;
    const perRow = this.isShared(node) ? 0 : quads(node.width);
    const name = factor.kind === "derivative" ? `derivative ${node.index}` : `kept value ${node.index}`;
    return { binding: this.scratch(name, 0), perRow };
  }

  // Central differences.

  /** ∂f_i/∂x_i by central differences, `tangentsAtOnce` coordinates at a time. */
  private differences(plan: DifferencePlan): void {
    const d = this.graph.stateSize;
    const terms = this.scratch("terms", this.count * this.termsPerPoint());
    for (let column = 0; column < plan.tangents; column += this.request.tangentsAtOnce) {
      const columns = Math.min(this.request.tangentsAtOnce, plan.tangents - column);
      const before = this.work;
      const moved = { binding: this.scratch("moved value", this.count * 2 * columns * d), offset: 0, stride: d, width: d };
      const pass = this.forward(
        { copies: 2 * columns, firstCoordinate: column, step: plan.step },
        { value: moved, derivatives: new Set(), values: new Set([STATE]) },
      );
      this.add({
        label: "central differences",
        kernel: "difference",
        parameters: {
          rows: this.count * columns,
          columns,
          stateSize: d,
          inputWidth: quads(d) * 4,
          first: column,
          termsPerPoint: this.termsPerPoint(),
        },
        bindings: { moved: pass.values.get(STATE)!.binding, value: moved.binding, terms },
        invocations: this.count * columns,
      });
      if (column + columns < plan.tangents) this.submitWhenFull(this.work - before);
    }
  }

  // The terms.

  /** Leaves the terms where they are asked for; at most PARTIAL_SUMS per point go to the host where only their sum counts. */
  private reduce(): Read[] {
    const { plan } = this;
    const width = this.termsPerPoint();
    const terms = this.scratch("terms", this.count * width);
    const diagonal = plan.kind === "difference" || (plan.kind === "trace" && plan.diagonal);
    const estimates = plan.kind === "trace" && plan.probes !== null;
    if (this.route.to === "host") {
      if (!plan.outputs.includes("divergence") && !plan.outputs.includes("diagonal")) return [];
      if (diagonal || estimates || width <= PARTIAL_SUMS) return [{ what: "terms", scratch: "terms", width, first: 0, columns: 0 }];
      this.sums(terms, width, PARTIAL_SUMS, {
        binding: this.scratch("partial sums", this.count * PARTIAL_SUMS),
        offset: 0,
        stride: PARTIAL_SUMS,
        width: PARTIAL_SUMS,
      });
      return [{ what: "terms", scratch: "partial sums", width: PARTIAL_SUMS, first: 0, columns: 0 }];
    }
    if (plan.outputs.includes("diagonal")) this.sums(terms, width, width, this.outer("diagonal", width));
    if (plan.outputs.includes("divergence")) this.sums(terms, width, 1, this.outer("divergence", 1), estimates ? 1 / width : 1);
    return [];
  }

  /** out[b, g] = factor Σ terms[b, k] over k = g, g + groups, ... */
  private sums(terms: Binding, width: number, groups: number, into: Address, factor = 1): void {
    this.add({
      label: groups === width ? "copy the terms" : "sum the terms",
      kernel: "reduce",
      parameters: { sums: this.count * groups, groups, width, outOffset: into.offset, outStride: into.stride, factor: asBits(factor) },
      bindings: { terms, out: into.binding },
      invocations: this.count * groups,
    });
  }

  private termsPerPoint(): number {
    const { plan } = this;
    if (plan.kind === "value") return 0;
    return plan.tangents * this.partsPerTerm();
  }

  /** One tangent without a diagonal (the bilinear form) is summed in parts, for more parallel work and a better sum. */
  private partsPerTerm(): number {
    const { plan } = this;
    if (plan.kind !== "trace" || plan.tangents > 1 || plan.diagonal || plan.probes) return 1;
    const fused = plan.instructions.find((instruction) => instruction.kind === "contract" && instruction.matrix !== null);
    return fused?.kind === "contract" ? Math.min(PARTIAL_SUMS, quads(fused.matrix!.rows)) : 1;
  }

  // Buffers and steps.

  private valueAddress(): Address {
    const { stateSize: d } = this.graph;
    return this.route.to === "device"
      ? this.outer("value", d)
      : { binding: this.scratch("value", this.count * d), offset: 0, stride: d, width: d };
  }

  /** The rows of this chunk in a buffer of the caller: bound from an aligned offset on, the rest is added in the kernel. */
  private outer(name: OuterName, width: number): Address {
    if (this.route.to === "host") {
      const shared = name === "context" && this.route.sharedContext;
      const rows = shared ? 1 : this.count;
      return { binding: this.scratch(name, rows * width), offset: 0, stride: shared ? 0 : width, width };
    }
    const { offset, stride } = this.route.outer[name]!;
    const alignment = this.request.limits.minStorageBufferOffsetAlignment;
    const begin = offset + 4 * this.request.first * stride;
    const aligned = Math.floor(begin / alignment) * alignment;
    const end = begin + 4 * ((this.count - 1) * stride + width);
    return { binding: { kind: "outer", name, offset: aligned, size: end - aligned }, offset: (begin - aligned) / 4, stride, width };
  }

  private scratch(name: string, floats: number): Binding {
    // Kernels read some of these as vec4, so each is a whole number of them.
    this.scratchBytes.set(name, Math.max(this.scratchBytes.get(name) ?? 0, 16 * Math.ceil(floats / 4)));
    return { kind: "scratch", name };
  }

  private add(step: Omit<Step, "activation" | "multiplyAdds"> & Partial<Pick<Step, "activation" | "multiplyAdds">>): void {
    const whole = { activation: null, multiplyAdds: 0, ...step };
    this.steps.push(whole);
    this.work += whole.multiplyAdds;
  }

  /** Closes the submission where `next` multiply-adds more would be too much. */
  private submitWhenFull(next: number): void {
    if (this.work + next > this.request.limits.multiplyAddsPerSubmit || this.steps.length >= STEPS_PER_SUBMISSION) this.submit([]);
  }

  private submit(reads: readonly Read[]): void {
    if (this.steps.length === 0 && reads.length === 0) return;
    this.submissions.push({ steps: this.steps, reads });
    this.steps = [];
    this.work = 0;
  }
}

/**
 * Names of scratch buffers that are used again once what they hold is not needed any more. What all points share has
 * buffers of its own, so that every buffer is either of one size or grows in step with the points.
 */
class Slots {
  private readonly unused: Record<"own" | "shared", string[]> = { own: [], shared: [] };
  private made = 0;

  constructor(private readonly name: string) {}

  take(shared: boolean): string {
    const kind = shared ? "shared" : "own";
    return this.unused[kind].pop() ?? `${kind} ${this.name} ${this.made++}`;
  }

  free(name: string): void {
    this.unused[name.startsWith("shared ") ? "shared" : "own"].push(name);
  }
}

class TangentPass {
  probes: Columns | null = null;
  given: Columns | null = null;
  /** The scratch buffer of each register, and of those that are still needed. */
  readonly names = new Map<number, string>();
  readonly held = new Map<number, string>();

  constructor(
    readonly column: number,
    readonly columns: number,
  ) {}
}

/** Copies of each point, copy 2k moved by -h and copy 2k + 1 by +h along coordinate firstCoordinate + k. */
interface Moved {
  readonly copies: number;
  readonly firstCoordinate: number;
  readonly step: number;
}

/** Each point once; no state has that coordinate. */
const UNMOVED: Moved = { copies: 1, firstCoordinate: 0xffffffff, step: 0 };

/** The nodes whose σ' or value the instructions read. */
function keptOf(instructions: readonly Instruction[]): { derivatives: Set<number>; values: Set<number> } {
  const derivatives = new Set<number>();
  const values = new Set<number>();
  for (const instruction of instructions) {
    if (instruction.kind === "norm") values.add(instruction.node);
    for (const factor of scalesOf(instruction).flat()) {
      if (factor.kind === "derivative") derivatives.add(factor.node);
      if (factor.kind === "value") values.add(factor.node);
    }
  }
  return { derivatives, values };
}

function rowsReadBy(instruction: Instruction): Rows[] {
  return instruction.kind === "contract" ? [instruction.from.rows, instruction.rows] : [instruction.from.rows];
}

function readsRows(instructions: readonly Instruction[], kind: Rows["kind"]): boolean {
  return instructions.some((instruction) => rowsReadBy(instruction).some((rows) => rows.kind === kind));
}

function registersOf(instruction: Instruction): Register[] {
  const read = rowsReadBy(instruction).flatMap((rows) => (rows.kind === "register" ? [rows.register] : []));
  return instruction.kind !== "contract" && instruction.into.kind === "register" ? [...read, instruction.into.register] : read;
}

function nameOf(factor: Factor): string {
  return factor.kind === "constant" ? factor.row.name : `${factor.kind} ${factor.node}`;
}

function asProduct(matrix: PlannedMatrix): Binding {
  return matrixAs("product", matrix);
}

function asRows(matrix: PlannedMatrix): Binding {
  return matrixAs("rows", matrix);
}

function matrixAs(layout: MatrixLayout, matrix: PlannedMatrix): Binding {
  return { kind: "matrix", matrix, layout };
}

function biasOf(index: number, width: number, bias: ArrayLike<number> | null): PlannedMatrix {
  return bias ? rowsOf(`b${index}`, 1, width, () => Array.from(bias)) : zeros(1, width);
}

function onesRow(width: number): PlannedMatrix {
  return ones(1, width);
}

/** The bits of a float32, as parameters are all u32. */
function asBits(value: number): number {
  return new Uint32Array(new Float32Array([value]).buffer)[0]!;
}
