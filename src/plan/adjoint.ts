import { isStraight } from "../model/activation.js";
import { CONTEXT, sourcesOf, STATE, type Graph, type Node } from "./graph.js";
import { isTrained, lazily, ones, pullBack, transposed, workOf, type PlannedMatrix } from "./matrices.js";
import {
  forwardInstruction,
  isOnes,
  multiplyAddsOf,
  slopeOf,
  type AdjointInstruction,
  type Factor,
  type ForwardInstruction,
  type OuterSum,
  type Register,
  type Rows,
  type Scale,
  type TangentInstruction,
  type Tangents,
  type Weighting,
} from "./program.js";

/** What a gradient is asked for. */
export interface AdjointOptions {
  readonly wrt: { readonly points: boolean; readonly context: boolean; readonly parameters: boolean };
  /** Whether ∂L/∂f is given. */
  readonly value: boolean;
  /** Whether ∂L/∂(∇·f) is given. */
  readonly divergence: boolean;
  /** The trace's instructions and how many tangents there are, none of them shared by points; null where nobody asks for it. */
  readonly trace: { readonly instructions: readonly TangentInstruction[]; readonly tangents: number; readonly share: number } | null;
  /** Whether the trace itself is wanted beside its gradient. */
  readonly wantsTrace: boolean;
  readonly wantsValue: boolean;
  /** Whether all points have one context. */
  readonly sharesContext: boolean;
}

/**
 * The instructions of a gradient: L = Σ_b (e_b · f(x_b) + c_b share Σ_k terms[b,k]) by reverse mode, first over the tangents' own
 * instructions, then over the forward pass (Griewank and Walther, Evaluating Derivatives, 2008, chapter 5).
 */
export interface AdjointProgram {
  readonly forward: readonly ForwardInstruction[];
  /** Once for a point, before the tangents. */
  readonly before: readonly AdjointInstruction[];
  /** Pass by pass over the tangents, forwards and back; what it adds for a point adds up over the passes. */
  readonly tangents: readonly AdjointInstruction[];
  /** Once for a point, after them. */
  readonly after: readonly AdjointInstruction[];
  /** The gradient of the points [points, d], and of the contexts [points or 1, c]; null where nothing reaches them, or they are not asked for. */
  readonly points: Register | null;
  readonly context: Register | null;
  /** Gradients of planned matrices, summed over the points. */
  readonly sums: readonly OuterSum[];
  readonly registers: readonly Register[];
}

export function adjointOf(graph: Graph, options: AdjointOptions): AdjointProgram {
  return new AdjointBuilder(graph, options).build();
}

/** Writes into a register of a point: `endScale` is what the register's node makes of its value's or its slope's adjoint. */
type Writer = (into: Register, endScale: Scale, adds: boolean) => AdjointInstruction;

class AdjointBuilder {
  private readonly registers: Register[] = [];
  private readonly sums = new Map<PlannedMatrix, OuterSum>();
  private readonly before: AdjointInstruction[] = [];
  private readonly tangents: AdjointInstruction[] = [];
  private readonly after: AdjointInstruction[] = [];
  /** Where instructions go. */
  private section = this.tangents;
  /** ∂L/∂z of nodes, z before the activation; of those that all points share what comes from others, before it is summed over the points. */
  private readonly adjoints = new Map<number, Register>();
  private readonly unsummed = new Map<number, Register>();
  private readonly written = new Set<Register>();
  /** What is written down when all passes are. */
  private readonly deferred: (() => void)[] = [];
  /** ∂L/∂ tangents. */
  private readonly tangentAdjoints = new Map<number, Register>();
  /** What the context reaches, or the parameters, or the state, as asked for. */
  private readonly needed: readonly boolean[];
  private readonly K: number;

  constructor(
    private readonly graph: Graph,
    private readonly options: AdjointOptions,
  ) {
    const { wrt, trace } = options;
    this.K = trace?.tangents ?? 0;
    const needed: boolean[] = [];
    for (const node of graph.nodes)
      needed.push(
        node.index === STATE
          ? wrt.points
          : node.index === CONTEXT
            ? wrt.context
            : wrt.parameters || sourcesOf(node).some((source) => needed[source]),
      );
    this.needed = needed;
    for (const instruction of trace?.instructions ?? [])
      if (instruction.kind !== "contract" && instruction.into.kind === "register")
        this.registers[instruction.into.register.index] = instruction.into.register;
  }

  build(): AdjointProgram {
    const { trace } = this.options;
    if (trace) this.trace(trace.instructions);
    this.section = this.after;
    this.nodes();
    const { before, tangents, after, registers } = this;
    return {
      forward: this.forward(),
      before,
      tangents,
      after,
      points: this.options.wrt.points ? (this.adjoints.get(STATE) ?? null) : null,
      context: this.options.wrt.context ? (this.adjoints.get(CONTEXT) ?? null) : null,
      sums: [...this.sums.values()],
      registers: registers.filter(Boolean),
    };
  }

  // Over the tangents.

  private trace(instructions: readonly TangentInstruction[]): void {
    const reverses: (() => void)[] = [];
    for (const instruction of instructions) {
      const isOnce = instruction.kind === "contract" && instruction.once;
      const reverse = instruction.kind === "contract" ? this.contract(instruction) : (): void => this.reverse(instruction);
      if (instruction.kind !== "contract") this.tangents.push(instruction);
      // What is done after the passes is written down after them, since what comes first in a register starts its sum.
      if (isOnce) this.deferred.push(reverse);
      else reverses.push(reverse);
    }
    if (!this.options.divergence) return;
    for (const reverse of reverses.toReversed()) reverse();
    for (const reverse of this.deferred) reverse();
  }

  /** terms_k += E_k Σ_i R_k[i] S_i w_k[i], w = W (from): the product is kept, since the adjoint of S reads it. */
  private contract(instruction: Extract<TangentInstruction, { kind: "contract" }>): () => void {
    const { matrix, from, rows, width, scale, endScale, once } = instruction;
    const { share } = this.options.trace!;
    const isTrainedRow = this.options.wrt.parameters && rows.kind === "matrix" && isTrained(rows.matrix);
    // A part that no tangent carries has one row for a point.
    const per = once ? "point" : "tangent";
    const section = once ? this.after : this.tangents;
    this.section = section;
    let product: Tangents = from;
    if (matrix && (this.options.wantsTrace || scale.length > 0 || endScale.length > 0 || isTrainedRow)) {
      const into = this.register(width, per);
      section.push({ kind: "carry", matrix, from, into: { kind: "register", register: into }, endScale: [], adds: false });
      product = { rows: { kind: "register", register: into }, scale: [] };
    }
    if (this.options.wantsTrace) section.push({ ...instruction, matrix: null, from: product });
    return () => {
      this.section = section;
      const weighting = this.weightingOf(endScale, once ? 1 : this.K, share);
      if (endScale.length > 0) {
        const dots = this.register(this.K, "point");
        section.push({ ...instruction, matrix: null, from: product, endScale: [], adds: false, into: dots });
        this.deferred.push(() => {
          this.section = this.after;
          endScale.forEach((factor, index) => {
            const others = endScale.toSpliced(index, 1);
            this.writeFactor(factor, this.K, (into, end, adds) => blendOf({ rows: rowsIn(dots), scale: others }, into, end, adds));
          });
        });
      }
      scale.forEach((factor, index) => {
        const others = [...scale.toSpliced(index, 1), ...product.scale];
        this.writeFactor(factor, width, this.folding(rows, product.rows, others, weighting, per));
      });
      if (rows.kind === "matrix" && isTrainedRow) {
        const moved = this.register(width, per);
        this.blend({ rows: product.rows, scale: [...product.scale, ...scale] }, moved, weighting);
        this.rowSum(rows.matrix, moved);
      }
      const adjoint = this.register(width, per);
      this.blend({ rows, scale }, adjoint, weighting);
      if (matrix) this.throughMatrix(matrix, adjoint, from, per);
      else this.distribute(adjoint, from, per, true);
    };
  }

  private reverse(instruction: Exclude<TangentInstruction, { kind: "contract" }>): void {
    this.section = this.tangents;
    const { into, from } = instruction;
    if (into.kind !== "register") throw new TypeError(`a trace stores no ${into.kind}`);
    const adjoint = this.tangentAdjoints.get(into.register.index);
    if (!adjoint) return;
    if (instruction.kind === "carry") return this.throughMatrix(instruction.matrix, adjoint, from, "tangent");
    if (instruction.kind === "blend") return this.distribute(adjoint, from, "tangent", false);
    const { node, centered } = instruction;
    if (this.needed[node]) {
      const ofValue = this.pointRegister(node);
      const deviation = this.deviationOf(node);
      this.section.push({
        kind: "norm fold",
        node,
        from,
        tangents: rowsIn(into.register),
        adjoints: rowsIn(adjoint),
        into: ofValue,
        deviation,
        adds: this.written.has(ofValue),
        addsDeviation: this.written.has(deviation),
      });
      this.written.add(ofValue).add(deviation);
    }
    const moved = this.register(into.register.width, "tangent");
    this.section.push({
      kind: "norm tangent",
      node,
      centered,
      from: { rows: rowsIn(adjoint), scale: [] },
      into: { kind: "register", register: moved },
    });
    this.distribute(moved, from, "tangent", true);
  }

  /** Of y = W p with p = from: the gradient of W, and on to p. */
  private throughMatrix(matrix: PlannedMatrix, adjoint: Register, from: Tangents, per: Register["per"]): void {
    if (this.options.wrt.parameters && isTrained(matrix)) this.outer(matrix, rowsIn(adjoint), from);
    const back: Tangents = { rows: rowsIn(adjoint), scale: [] };
    const [only] = from.scale;
    // One tangent of ones is its scale itself: what the scale takes needs no row of its own.
    if (isOnes(from.rows) && from.scale.length === 1 && (per === "point" || this.K === 1)) {
      this.writeFactor(only!, matrix.columns, (into, endScale, adds) => carryOf(transposed(matrix), back, into, endScale, adds));
      return;
    }
    if (!this.reaches(from)) return;
    const moved = this.register(matrix.columns, per);
    this.section.push(carryOf(transposed(matrix), back, moved, [], false));
    this.distribute(moved, from, per, true);
  }

  private reaches({ rows, scale }: Tangents): boolean {
    return rows.kind === "register" || (rows.kind === "matrix" && isTrained(rows.matrix)) || scale.some((factor) => this.isNeeded(factor));
  }

  /** From the adjoint of scale ∘ rows to those of the rows and of each factor. */
  private distribute(adjoint: Register, { rows, scale }: Tangents, per: Register["per"], isFresh: boolean): void {
    scale.forEach((factor, index) => {
      const width = adjoint.width;
      this.writeFactor(factor, width, this.folding(rows, rowsIn(adjoint), scale.toSpliced(index, 1), null, per));
    });
    if (rows.kind === "register") {
      const { index, width } = rows.register;
      const before = this.tangentAdjoints.get(index);
      if (!before && scale.length === 0 && isFresh) this.tangentAdjoints.set(index, adjoint);
      else {
        const into = before ?? this.register(width, "tangent");
        this.tangentAdjoints.set(index, into);
        this.section.push(blendOf({ rows: rowsIn(adjoint), scale }, into, [], before !== undefined));
      }
    } else if (rows.kind === "matrix" && isTrained(rows.matrix) && this.options.wrt.parameters) {
      let scaled = adjoint;
      if (scale.length > 0) this.blend({ rows: rowsIn(adjoint), scale }, (scaled = this.register(adjoint.width, per)), null);
      this.rowSum(rows.matrix, scaled);
    }
  }

  /** Σ_k weighting_k rows_k ∘ by_k ∘ others. */
  private folding(rows: Rows, by: Rows, others: Scale, weighting: Weighting | null, per: Register["per"]): Writer {
    const isOne = per === "point" || this.K === 1;
    const plain = isOnes(rows) ? by : isOnes(by) ? rows : null;
    if (isOne && plain)
      return (into, endScale, adds) => ({
        ...blendOf({ rows: plain, scale: others }, into, endScale, adds),
        ...(weighting && { weighting }),
      });
    return (into, endScale, adds) => ({ kind: "fold", rows, by, into, endScale: [...others, ...endScale], adds, weighting });
  }

  private weightingOf(endScale: Scale, count: number, share: number): Weighting {
    const cotangent: Weighting = { kind: "divergence cotangent", share };
    if (endScale.length === 0) return cotangent;
    const register = this.register(count, "point");
    this.before.push({
      ...blendOf({ rows: { kind: "matrix", matrix: ones(1, count) }, scale: endScale }, register, [], false),
      weighting: cotangent,
    });
    return { kind: "register", register };
  }

  /** What the adjoint of a factor grows by. */
  private writeFactor(factor: Factor, width: number, write: Writer): void {
    if (!this.isNeeded(factor)) return;
    if (factor.kind === "constant") {
      const into = this.register(width, "point");
      this.section.push(write(into, [], this.written.has(into)));
      const section = this.section;
      this.section = this.after;
      this.outer(factor.row, { kind: "matrix", matrix: ones(1, 1) }, { rows: rowsIn(into), scale: [] });
      this.section = section;
      return;
    }
    const node = this.graph.nodes[factor.node]!;
    this.write(node, factor.kind === "slope" ? [{ kind: "curvature", node: node.index }] : slopeOf(node), write, true);
  }

  private isNeeded(factor: Factor): boolean {
    if (factor.kind === "slope" && isStraight(this.graph.nodes[factor.node]!.activation!)) return false;
    return factor.kind === "constant" ? this.options.wrt.parameters && isTrained(factor.row) : this.needed[factor.node]!;
  }

  // Over the nodes.

  private nodes(): void {
    const { graph, options } = this;
    const { output } = graph;
    if (options.value)
      this.write(
        output,
        slopeOf(output),
        (into, endScale, adds) => blendOf({ rows: { kind: "value cotangent" }, scale: [] }, into, endScale, adds),
        true,
      );
    for (const node of graph.nodes.toReversed()) {
      const from = this.unsummed.get(node.index);
      if (from) this.sumOverPoints(node, from);
      const adjoint = this.adjoints.get(node.index);
      if (adjoint && this.needed[node.index]) this.node(node, rowsIn(adjoint));
    }
  }

  private sumOverPoints(node: Node, from: Register): void {
    const into = this.register(node.width, "point", true);
    this.section.push({ kind: "point sum", register: from, into });
    const own = this.adjoints.get(node.index);
    if (own) this.section.push(blendOf({ rows: rowsIn(into), scale: [] }, own, [], true));
    else this.adjoints.set(node.index, into);
  }

  private node(node: Node, adjoint: Rows): void {
    const { body } = node;
    const { parameters } = this.options.wrt;
    const back: Tangents = { rows: adjoint, scale: [] };
    const to = (source: number, write: Writer): void => {
      const target = this.graph.nodes[source]!;
      this.write(target, slopeOf(target), write, node.moves || !this.options.sharesContext);
    };
    if (body.kind === "norm") {
      const moved = this.register(node.width, "point", this.isShared(node));
      this.section.push({
        kind: "norm tangent",
        node: node.index,
        centered: body.centered,
        from: back,
        into: { kind: "register", register: moved },
      });
      const deviation = this.deviations.get(node.index);
      if (deviation)
        this.section.push({
          ...blendOf({ rows: { kind: "value", node: node.index }, scale: [] }, moved, [], true),
          weighting: { kind: "register", register: deviation },
        });
      to(body.source, (into, endScale, adds) => blendOf({ rows: rowsIn(moved), scale: [] }, into, endScale, adds));
      return;
    }
    if (body.kind !== "sum") return;
    if (parameters && body.bias && isTrained(body.bias)) this.outer(body.bias, { kind: "matrix", matrix: ones(1, 1) }, back);
    for (const term of body.terms) {
      const value: Rows = { kind: "value", node: term.source };
      if (term.kind === "dense") {
        if (parameters && isTrained(term.matrix)) this.outer(term.matrix, adjoint, { rows: value, scale: [] });
        to(term.source, (into, endScale, adds) => carryOf(transposed(term.matrix), back, into, endScale, adds));
      } else if (term.kind === "diagonal") {
        const scale: Scale = term.factors ? [{ kind: "constant", row: term.factors }] : [];
        to(term.source, (into, endScale, adds) => blendOf({ ...back, scale }, into, endScale, adds));
        if (parameters && term.factors && isTrained(term.factors)) {
          const into = this.register(node.width, "point", this.isShared(node));
          this.section.push(blendOf({ ...back, scale: [{ kind: "value", node: term.source }] }, into, [], false));
          this.outer(term.factors, { kind: "matrix", matrix: ones(1, 1) }, { rows: rowsIn(into), scale: [] });
        }
      } else
        for (const [source, other] of [
          [term.source, term.by],
          [term.by, term.source],
        ] as const)
          to(source, (into, endScale, adds) => blendOf({ ...back, scale: [{ kind: "value", node: other }] }, into, endScale, adds));
    }
  }

  /** @param ofPoints whether each point has a part of its own; a node that all points share sums those up. */
  private write(node: Node, endScale: Scale, write: Writer, ofPoints: boolean): void {
    if (!this.needed[node.index]) return;
    const into = ofPoints ? this.pointRegister(node.index) : this.sharedRegister(node);
    this.section.push(write(into, endScale, this.written.has(into)));
    this.written.add(into);
  }

  /** The adjoint of a node, a row for each point. */
  private pointRegister(index: number): Register {
    const node = this.graph.nodes[index]!;
    const known = this.isShared(node) ? this.unsummed : this.adjoints;
    let register = known.get(index);
    if (!register) known.set(index, (register = this.register(node.width, "point")));
    return register;
  }

  private sharedRegister(node: Node): Register {
    let register = this.adjoints.get(node.index);
    if (!register) this.adjoints.set(node.index, (register = this.register(node.width, "point", this.isShared(node))));
    return register;
  }

  private isShared({ moves }: Node): boolean {
    return !moves && this.options.sharesContext;
  }

  /** A number for each point. */
  private readonly deviations = new Map<number, Register>();
  private deviationOf(node: number): Register {
    let register = this.deviations.get(node);
    if (!register) this.deviations.set(node, (register = this.register(1, "point")));
    return register;
  }

  private blend(from: Tangents, into: Register, weighting: Weighting | null): void {
    this.section.push({ ...blendOf(from, into, [], false), ...(weighting && { weighting }) });
  }

  private outer(matrix: PlannedMatrix, left: Rows, right: Tangents): void {
    this.section.push({ kind: "outer", matrix, sum: this.sumOf(matrix.blocks ?? matrix), left, right });
  }

  /** The gradient of rows that all points share. */
  private rowSum(matrix: PlannedMatrix, register: Register): void {
    this.section.push({ kind: "row sum", sum: this.sumOf(matrix), register });
  }

  private sumOf(matrix: PlannedMatrix): OuterSum {
    let sum = this.sums.get(matrix);
    if (!sum) this.sums.set(matrix, (sum = { index: this.sums.size, matrix, columns: 4 * Math.ceil(matrix.columns / 4) }));
    return sum;
  }

  private register(width: number, per: Register["per"], shared = false): Register {
    const register = { index: this.registers.length, width, shared, per };
    this.registers.push(register);
    return register;
  }

  /** The nodes whose values somebody reads and those that lead to them, with the slopes and curvatures that are read. */
  private forward(): ForwardInstruction[] {
    const { graph, options } = this;
    const reads = readsOfAdjoint([...this.before, ...this.tangents, ...this.after]);
    const needed = new Set([
      ...reads.values,
      ...reads.slopes,
      ...reads.curvatures,
      ...(options.value || options.wantsValue ? [graph.output.index] : []),
    ]);
    for (const node of graph.nodes.toReversed()) if (needed.has(node.index)) for (const source of sourcesOf(node)) needed.add(source);
    return graph.nodes
      .filter(({ index }) => needed.has(index))
      .map((node) => {
        const instruction = forwardInstruction(node, reads.slopes.has(node.index) || reads.curvatures.has(node.index));
        return reads.curvatures.has(node.index) && instruction.kind === "sum" ? { ...instruction, keepsCurvature: true } : instruction;
      });
  }
}

/** The nodes whose values, slopes and curvatures are read; of a norm the inverse deviation too. */
export function readsOfAdjoint(instructions: readonly AdjointInstruction[]): Record<"values" | "slopes" | "curvatures", Set<number>> {
  const reads = { values: new Set<number>(), slopes: new Set<number>(), curvatures: new Set<number>() };
  const rows = (each: Rows): void => void (each.kind === "value" && reads.values.add(each.node));
  const scale = (factors: Scale): void =>
    factors.forEach((factor) => {
      if (factor.kind !== "constant") reads[`${factor.kind}s`].add(factor.node);
    });
  for (const instruction of instructions) {
    if ("from" in instruction) {
      rows(instruction.from.rows);
      scale(instruction.from.scale);
    }
    if ("endScale" in instruction) scale(instruction.endScale);
    if (instruction.kind === "contract") scale(instruction.scale);
    if (instruction.kind === "outer") {
      rows(instruction.left);
      rows(instruction.right.rows);
      scale(instruction.right.scale);
    }
    if (instruction.kind === "norm tangent" || instruction.kind === "norm fold") reads.values.add(instruction.node);
  }
  return reads;
}

function rowsIn(register: Register): Extract<Rows, { kind: "register" }> {
  return { kind: "register", register };
}

function blendOf(from: Tangents, into: Register, endScale: Scale, adds: boolean): Extract<TangentInstruction, { kind: "blend" }> {
  return { kind: "blend", from, into: { kind: "register", register: into }, endScale, adds };
}

function carryOf(
  matrix: PlannedMatrix,
  from: Tangents,
  into: Register,
  endScale: Scale,
  adds: boolean,
): Extract<TangentInstruction, { kind: "carry" }> {
  return { kind: "carry", matrix, from, into: { kind: "register", register: into }, endScale, adds };
}

/** Which of the caller's cotangents, and whether probes, are read. */
export function inputsOf(instructions: readonly AdjointInstruction[]): Record<"probes" | "value" | "divergence", boolean> {
  const found = { probes: false, value: false, divergence: false };
  for (const instruction of instructions) {
    const rows: Rows[] = [];
    if ("from" in instruction) rows.push(instruction.from.rows);
    if ("rows" in instruction) rows.push(instruction.rows);
    if (instruction.kind === "fold") rows.push(instruction.by);
    if (instruction.kind === "outer") rows.push(instruction.left, instruction.right.rows);
    for (const { kind } of rows) {
      if (kind === "probes") found.probes = true;
      if (kind === "value cotangent") found.value = true;
    }
    if ("weighting" in instruction && instruction.weighting?.kind === "divergence cotangent") found.divergence = true;
    if (instruction.kind === "contract" && instruction.into) found.divergence = true;
  }
  return found;
}

/** What a gradient costs: multiply-adds for each point, the forward pass among them, and once for all points of a call. */
export function priceOfAdjoint(
  { forward, before, tangents, after, sums }: AdjointProgram,
  K: number,
): { perPoint: number; perCall: number } {
  const total = (instructions: readonly AdjointInstruction[]): number =>
    instructions.reduce((sum, instruction) => sum + priceOf(instruction), 0);
  const perPoint =
    forward.reduce((sum, instruction) => sum + multiplyAddsOf(instruction), 0) + total(before) + K * total(tangents) + total(after);
  const gradients = sums.map(
    ({ matrix }) => [matrix, lazily("gradient", { rows: matrix.rows, columns: matrix.columns, data: new Float64Array(0) })] as const,
  );
  return { perPoint, perCall: workOf(pullBack(new Map(gradients)).values()) };
}

function priceOf(instruction: AdjointInstruction): number {
  switch (instruction.kind) {
    case "fold":
    case "point sum":
      return instruction.into.width;
    case "outer":
      return instruction.sum.matrix.rows * instruction.sum.matrix.columns;
    case "row sum":
      return instruction.sum.matrix.columns;
    case "norm fold":
      return 5 * instruction.into.width;
    default:
      return multiplyAddsOf(instruction);
  }
}
