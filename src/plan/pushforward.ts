import { STATE, type Graph, type Node, type Term } from "./graph.js";
import { diagonalColumn, identity, merge, ones, rowDots, scaleRows, sum, transposed, zeros, type PlannedMatrix } from "./matrices.js";
import { isShared, slopeOf, type Register, type Rows, type Scale, type TangentInstruction, type Tangents, type Target } from "./program.js";

/**
 * Forward mode through the graph, from a seed at the state: writes the instructions of one pass over the tangents, each node
 * by its rule. What is affine in the state is merged on the host where the seed is the basis.
 */
export class Pushforward {
  readonly instructions: TangentInstruction[] = [];
  private readonly known = new Map<number, Tangents>();
  private registers = 0;
  private written = false;

  /**
   * @param seed the basis of the state (identity), or rows that are known when the plan runs.
   * @param sharesContext whether all points have one context, so that what it scales may still be shared; "never" where nothing is
   * to be shared but rows of matrices, since gradients read the tangents of every point.
   */
  constructor(
    private readonly graph: Graph,
    private readonly seed: Rows,
    private readonly sharesContext: boolean | "never",
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
    const endScale = slopeOf(output);
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
      tangents = { rows, scale: [...scale, ...slopeOf(node)] };
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
      this.instructions.push({
        kind: "norm tangent",
        node: node.index,
        centered: body.centered,
        from,
        into: { kind: "register", register: into },
      });
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
    const scale = [...endScale, ...slopeOf(node)];
    const constant = this.constantRows(node);
    if (constant) {
      const diagonal = diagonalColumn(constant.matrix);
      return this.dot(
        { kind: "matrix", matrix: ones(diagonal.rows, 1) },
        1,
        [],
        { rows: { kind: "matrix", matrix: diagonal }, scale: [] },
        scale,
      );
    }
    if (node.body.kind !== "sum" || node.uses > 1) {
      const { rows, scale: ofNode } = this.of(node.index);
      if (rows.kind === "matrix") {
        const column: Rows = { kind: "matrix", matrix: diagonalColumn(rows.matrix) };
        return this.dot({ kind: "matrix", matrix: ones(node.width, 1) }, 1, [], { rows: column, scale: [] }, [...ofNode, ...endScale]);
      }
      return this.dot({ kind: "matrix", matrix: identity(node.width) }, node.width, [], { rows, scale: ofNode }, endScale);
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
    const inner = [...scale, ...slopeOf(node)];
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
          this.instructions.push({
            kind: "carry",
            matrix: transposed(term.matrix),
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

  private push(instruction: Extract<TangentInstruction, { kind: "contract" }>): void {
    this.instructions.push({ ...instruction, adds: this.written });
    this.written = true;
  }

  /** ∂z/∂x [width, d] of a node before its activation, where it is affine in the state and the seed is the basis; else null. */
  private readonly affine = new Map<number, PlannedMatrix | null>();
  private affineOf(node: Node): PlannedMatrix | null {
    if (this.seed.kind !== "matrix") return null;
    let matrix = this.affine.get(node.index);
    if (matrix === undefined) this.affine.set(node.index, (matrix = this.mergeAffine(node)));
    return matrix;
  }

  private mergeAffine({ index, body, width }: Node): PlannedMatrix | null {
    if (index === STATE) return identity(width);
    if (body.kind !== "sum") return null;
    const parts: PlannedMatrix[] = [];
    for (const term of this.moving(body.terms)) {
      const source = this.graph.nodes[term.source]!;
      const before = source.activation === null && term.kind !== "product" ? this.affineOf(source) : null;
      if (!before || term.kind === "product") return null;
      if (term.kind === "dense") parts.push(merge(term.matrix, before));
      else parts.push(term.factors ? scaleRows(before, term.factors) : before);
    }
    return parts.reduce(sum);
  }

  /** The tangents of such a node, which all points share. */
  private constantRows(node: Node): { readonly kind: "matrix"; readonly matrix: PlannedMatrix } | null {
    const matrix = this.affineOf(node);
    return matrix && { kind: "matrix", matrix: transposed(matrix) };
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
    return this.sharesContext !== "never" && isShared(tangents, this.graph, this.sharesContext);
  }

  private register(width: number, shared: boolean): Register {
    return { index: this.registers++, width, shared, per: "tangent" };
  }
}
