import { STATE, type Graph, type Node, type Term } from "./graph.js";
import { diagonalColumn, identity, merge, ones, rowDots, scaleColumns, sum, transposed, zeros, type PlannedMatrix } from "./matrices.js";

/** A vector of the forward pass, or a constant one [1, width], that scales tangents element by element. */
export type Factor =
  /** σ'(z) of a node. */
  | { readonly kind: "derivative"; readonly node: number }
  | { readonly kind: "value"; readonly node: number }
  | { readonly kind: "constant"; readonly row: PlannedMatrix };

/** The product of its factors; 1 where there are none. */
export type Scale = readonly Factor[];

/** Where the tangents of a pass lie: K rows that all points share, the probes, the given tangents, or a register. */
export type Rows =
  | { readonly kind: "matrix"; readonly matrix: PlannedMatrix }
  | { readonly kind: "probes"; readonly shared: boolean }
  | { readonly kind: "given" }
  | { readonly kind: "register"; readonly register: Register };

/** Tangents of one node: [points, K, width], or [K, width] where all points share them. */
export interface Register {
  readonly index: number;
  readonly width: number;
  readonly shared: boolean;
}

/** scale ∘ rows. */
export interface Tangents {
  readonly rows: Rows;
  readonly scale: Scale;
}

/** Where a result goes: a register, the Jacobian, or the tangent that jvp gives back. */
export type Target =
  | { readonly kind: "register"; readonly register: Register }
  | { readonly kind: "jacobian" | "tangent"; readonly width: number };

export type Instruction =
  /** into (+)= endScale ∘ W (scale ∘ rows) */
  | {
      readonly kind: "carry";
      readonly matrix: PlannedMatrix;
      readonly from: Tangents;
      readonly into: Target;
      readonly endScale: Scale;
      readonly adds: boolean;
    }
  /** into (+)= endScale ∘ scale ∘ rows */
  | { readonly kind: "blend"; readonly from: Tangents; readonly into: Target; readonly endScale: Scale; readonly adds: boolean }
  /** into = r (t - mean t - y mean(y ∘ t)), with y the value of a norm's node and r its inverse deviation; no mean t where it is not centered */
  | { readonly kind: "norm"; readonly node: number; readonly from: Tangents; readonly into: Target }
  /** terms_k (+)= endScale_k Σ_i rows[k,i] scale_i (W (from))[i], the product left out where `matrix` is null */
  | {
      readonly kind: "contract";
      readonly matrix: PlannedMatrix | null;
      readonly from: Tangents;
      readonly rows: Rows;
      readonly width: number;
      readonly scale: Scale;
      readonly endScale: Scale;
      readonly adds: boolean;
      /** In the first pass only, as one column: a part of the trace that no tangent carries. */
      readonly once: boolean;
    };

/** Writes the instructions of one pass over the tangents: forward mode through the graph, from a seed at the state. */
export class ProgramBuilder {
  readonly instructions: Instruction[] = [];
  private readonly known = new Map<number, Tangents>();
  private registers = 0;
  private written = false;

  /** @param sharesContext whether all points have one context, so that what it scales may still be shared. */
  constructor(
    private readonly graph: Graph,
    private readonly seed: Rows,
    private readonly sharesContext: boolean,
  ) {}

  /** terms_k = ∂f_k/∂x_k, for seeds that are the basis of the state. */
  contractDiagonal(): void {
    const { output } = this.graph;
    if (output.moves) return this.diagonalOf(output, []);
    this.dot(
      { kind: "matrix", matrix: ones(output.width, 1) },
      1,
      [],
      { rows: { kind: "matrix", matrix: zeros(output.width, 1) }, scale: [] },
      [],
    );
  }

  /** terms_k = Σ_i rows[k,i] t_k[i] of the velocity's tangents t_k. */
  contractWith(rows: Rows): void {
    const { output } = this.graph;
    if (output.moves) return this.contract(rows, [], output, []);
    this.dot(rows, output.width, [], this.stillTangents(), []);
  }

  /** The velocity's tangents themselves. */
  store(kind: "jacobian" | "tangent"): void {
    const { output } = this.graph;
    const into = { kind, width: output.width } as const;
    const endScale = derivativeOf(output);
    if (!output.moves) {
      this.instructions.push({ kind: "blend", from: this.stillTangents(), into, endScale: [], adds: false });
      return;
    }
    const constant = this.constantRows(output);
    if (constant || output.body.kind !== "sum") {
      const from = constant ? { rows: constant, scale: [] } : this.before(output);
      this.instructions.push({ kind: "blend", from, into, endScale, adds: false });
      return;
    }
    this.sumInto(output.body.terms, into, endScale);
  }

  /** The tangents of a velocity that does not depend on the state: the seed, which is as wide, times 0. */
  private stillTangents(): Tangents {
    return { rows: this.seed, scale: [{ kind: "constant", row: zeros(1, this.graph.output.width) }] };
  }

  /** The tangents of a node's value. */
  private of(index: number): Tangents {
    let tangents = this.known.get(index);
    if (!tangents) {
      const node = this.graph.nodes[index]!;
      const { rows, scale } = this.before(node);
      tangents = { rows, scale: [...scale, ...derivativeOf(node)] };
      this.known.set(index, tangents);
    }
    return tangents;
  }

  /** The tangents of a node before its activation. */
  private before(node: Node): Tangents {
    const constant = this.constantRows(node);
    if (constant) return { rows: constant, scale: [] };
    const { body } = node;
    if (body.kind === "norm") {
      const from = this.of(body.source);
      const into = this.register(node.width, false);
      this.instructions.push({ kind: "norm", node: node.index, from, into: { kind: "register", register: into } });
      return { rows: { kind: "register", register: into }, scale: [] };
    }
    if (body.kind !== "sum") return { rows: this.seed, scale: [] };
    const terms = this.moving(body.terms);
    const [only] = terms;
    if (terms.length === 1 && only!.kind !== "dense" && !this.isSquareOfMoving(only!)) {
      const { rows, scale } = this.of(only!.source);
      return { rows, scale: [...scale, ...this.factorOf(only!)] };
    }
    const shared = terms.every((term) => {
      const { rows, scale } = this.of(term.source);
      return this.isShared({ rows, scale: term.kind === "dense" ? scale : [...scale, ...this.factorOf(term)] });
    });
    const register = this.register(node.width, shared);
    this.sumInto(body.terms, { kind: "register", register }, []);
    return { rows: { kind: "register", register }, scale: [] };
  }

  private sumInto(terms: readonly Term[], into: Target, endScale: Scale): void {
    let adds = false;
    for (const term of this.moving(terms)) {
      const from = this.of(term.source);
      if (term.kind === "dense") {
        this.instructions.push({ kind: "carry", matrix: term.matrix, from, into, endScale, adds });
      } else {
        const parts = [{ rows: from.rows, scale: [...from.scale, ...this.factorOf(term)] }];
        if (this.isSquareOfMoving(term)) {
          const other = this.of((term as Extract<Term, { kind: "product" }>).by);
          parts.push({ rows: other.rows, scale: [...other.scale, { kind: "value", node: term.source }] });
        }
        for (const part of parts) {
          this.instructions.push({ kind: "blend", from: part, into, endScale, adds });
          adds = true;
        }
      }
      adds = true;
    }
  }

  private diagonalOf(node: Node, endScale: Scale): void {
    const scale = [...endScale, ...derivativeOf(node)];
    const constant = this.constantRows(node);
    if (constant) {
      const diagonal = constant.matrix.name === "identity" ? ones(constant.matrix.rows, 1) : diagonalColumn(constant.matrix);
      return this.dot(
        { kind: "matrix", matrix: ones(diagonal.rows, 1) },
        1,
        [],
        { rows: { kind: "matrix", matrix: diagonal }, scale: [] },
        scale,
      );
    }
    if (node.body.kind !== "sum" || node.uses > 1) {
      return this.dot({ kind: "matrix", matrix: identity(node.width) }, node.width, [], this.of(node.index), endScale);
    }
    for (const term of this.moving(node.body.terms)) {
      if (term.kind === "dense") {
        this.contract({ kind: "matrix", matrix: term.matrix }, [], this.graph.nodes[term.source]!, scale);
        continue;
      }
      this.diagonalOf(this.graph.nodes[term.source]!, [...scale, ...this.factorOf(term)]);
      if (this.isSquareOfMoving(term)) {
        const { by } = term as Extract<Term, { kind: "product" }>;
        this.diagonalOf(this.graph.nodes[by]!, [...scale, { kind: "value", node: term.source }]);
      }
    }
  }

  /** terms_k (+)= endScale_k Σ_i rows[k,i] scale_i t_k[i] of a node's tangents, its last product fused where nothing else reads it. */
  private contract(rows: Rows, scale: Scale, node: Node, endScale: Scale): void {
    const constant = this.constantRows(node);
    const inner = [...scale, ...derivativeOf(node)];
    if (constant && inner.length === 0 && rows.kind === "matrix") {
      const column = rowDots(rows.matrix, constant.matrix);
      return this.dot(
        { kind: "matrix", matrix: ones(column.rows, 1) },
        1,
        [],
        { rows: { kind: "matrix", matrix: column }, scale: [] },
        endScale,
      );
    }
    if (constant || node.body.kind !== "sum" || node.uses > 1 || this.known.has(node.index))
      return this.dot(rows, node.width, scale, this.of(node.index), endScale);
    for (const term of this.moving(node.body.terms)) {
      const source = this.graph.nodes[term.source]!;
      if (term.kind === "dense") {
        if (inner.length === 0 && this.isShared({ rows, scale: [] }) && rows.kind !== "matrix") {
          // vᵀ W t = (Wᵀ v)ᵀ t, and all points share v.
          const register = this.register(term.matrix.columns, true);
          const matrix = transposed(`${term.matrix.name} transposed`, term.matrix);
          this.instructions.push({
            kind: "carry",
            matrix,
            from: { rows, scale: [] },
            into: { kind: "register", register },
            endScale: [],
            adds: false,
          });
          this.contract({ kind: "register", register }, [], source, endScale);
        } else {
          const from = this.of(term.source);
          this.push({
            kind: "contract",
            matrix: term.matrix,
            from,
            rows,
            width: node.width,
            scale: inner,
            endScale,
            adds: false,
            once: false,
          });
        }
        continue;
      }
      this.contract(rows, [...inner, ...this.factorOf(term)], source, endScale);
      if (this.isSquareOfMoving(term)) {
        const { by } = term as Extract<Term, { kind: "product" }>;
        this.contract(rows, [...inner, { kind: "value", node: term.source }], this.graph.nodes[by]!, endScale);
      }
    }
  }

  private dot(rows: Rows, width: number, scale: Scale, from: Tangents, endScale: Scale): void {
    this.push({ kind: "contract", matrix: null, from, rows, width, scale, endScale, adds: false, once: false });
  }

  private push(instruction: Extract<Instruction, { kind: "contract" }>): void {
    this.instructions.push({ ...instruction, adds: this.written });
    this.written = true;
  }

  /** The tangents of a node that is affine in the state, merged on the host; null where it is not, or the seed is no matrix. */
  private readonly constants = new Map<number, { readonly kind: "matrix"; readonly matrix: PlannedMatrix } | null>();
  private constantRows(node: Node): { readonly kind: "matrix"; readonly matrix: PlannedMatrix } | null {
    if (this.seed.kind !== "matrix") return null;
    let rows = this.constants.get(node.index);
    if (rows === undefined) {
      const matrix = this.mergeRows(node);
      rows = matrix && { kind: "matrix", matrix };
      this.constants.set(node.index, rows);
    }
    return rows;
  }

  private mergeRows({ index, body }: Node): PlannedMatrix | null {
    if (this.seed.kind !== "matrix" || body.kind === "norm" || body.kind === "context") return null;
    if (index === STATE) return this.seed.matrix;
    if (body.kind !== "sum") return null;
    const parts: PlannedMatrix[] = [];
    for (const term of this.moving(body.terms)) {
      const source = this.graph.nodes[term.source]!;
      const rows = source.activation === null && term.kind !== "product" ? this.constantRows(source) : null;
      if (!rows || term.kind === "product") return null;
      if (term.kind === "diagonal") parts.push(term.factors ? scaleColumns(rows.matrix, term.factors) : rows.matrix);
      else if (rows.matrix.name === "identity") parts.push(transposed(`columns of ${term.matrix.name}`, term.matrix));
      else parts.push(merge(rows.matrix, transposed(`${term.matrix.name}ᵀ`, term.matrix)));
    }
    return parts.reduce(sum);
  }

  private moving(terms: readonly Term[]): Term[] {
    return terms.filter(({ source }) => this.graph.nodes[source]!.moves);
  }

  /** A product of two values that both move: its tangent has two parts. */
  private isSquareOfMoving(term: Term): boolean {
    return term.kind === "product" && this.graph.nodes[term.by]!.moves;
  }

  private factorOf(term: Exclude<Term, { kind: "dense" }>): Scale {
    if (term.kind === "product") return [{ kind: "value", node: term.by }];
    return term.factors ? [{ kind: "constant", row: term.factors }] : [];
  }

  private isShared(tangents: Tangents): boolean {
    return isShared(tangents, this.graph, this.sharesContext);
  }

  private register(width: number, shared: boolean): Register {
    return { index: this.registers++, width, shared };
  }
}

/** Whether all points have these tangents in common. */
export function isShared({ rows, scale }: Tangents, graph: Graph, sharesContext: boolean): boolean {
  if (rows.kind === "given" || (rows.kind === "probes" && !rows.shared) || (rows.kind === "register" && !rows.register.shared))
    return false;
  return scale.every((factor) => factor.kind === "constant" || (sharesContext && !graph.nodes[factor.node]!.moves));
}

export function derivativeOf({ index, activation }: Node): Scale {
  return activation ? [{ kind: "derivative", node: index }] : [];
}

/** Every scale that an instruction reads. */
export function scalesOf(instruction: Instruction): Scale[] {
  switch (instruction.kind) {
    case "carry":
    case "blend":
      return [instruction.from.scale, instruction.endScale];
    case "norm":
      return [instruction.from.scale];
    case "contract":
      return [instruction.from.scale, instruction.scale, instruction.endScale];
  }
}

/** Multiply-adds of an instruction for one tangent of one point. */
export function multiplyAddsPerTangent(instruction: Instruction): number {
  switch (instruction.kind) {
    case "carry":
      return size(instruction.matrix);
    case "contract":
      // A product summed up as it is needs no multiplications for the sum.
      return (instruction.matrix ? size(instruction.matrix) : 0) + (instruction.matrix && isOnes(instruction.rows) ? 0 : instruction.width);
    case "blend":
      return widthOfTarget(instruction.into);
    case "norm":
      return 4 * widthOfTarget(instruction.into);
  }
}

export function widthOfTarget(into: Target): number {
  return into.kind === "register" ? into.register.width : into.width;
}

function size({ rows, columns }: PlannedMatrix): number {
  return rows * columns;
}

export function isOnes(rows: Rows): boolean {
  return rows.kind === "matrix" && rows.matrix.name === "ones";
}
