import { isOnes } from "../plan/program.js";
import type {
  AdjointInstruction,
  Factor,
  Register,
  Rows,
  Scale,
  TangentInstruction,
  Tangents,
  Target,
  Weighting,
} from "../plan/program.js";
import { blockShape, identity, type PlannedMatrix } from "../plan/matrices.js";
import type { Forward, Value } from "./forward.js";

/** What a session is given beside points and contexts, as far as a plan reads it. */
export interface Given {
  /** Of jvp, [B, d]. */
  readonly tangents?: Value;
  /** [B or 1, K, d] */
  readonly probes?: Value;
  /** ∂L/∂f, [B, d] */
  readonly valueCotangent?: Value;
  /** ∂L/∂(∇·f), [B, 1]; 1 where it is not given. */
  readonly divergenceCotangent?: Value;
}

/** The instructions of one plan, over all tangents of a point at once, as operators. */
export class Program {
  /** Gradients of planned matrices, summed over the points of a run: [rows, columns], by index. */
  readonly sums: Map<number, string> = new Map();
  private readonly registers = new Map<number, Value>();
  private columns: Value | null = null;
  private terms: Value | null = null;
  /** A part of the trace that no tangent carries, [B, 1]. */
  private once: Value | null = null;

  constructor(
    private readonly forward: Forward,
    private readonly tangents: number,
    private readonly given: Given = {},
  ) {}

  /** One register's value; null where nothing was written. */
  register(register: Register | null): Value | null {
    return (register && this.registers.get(register.index)) ?? null;
  }

  /** J t for the tangent that is given, [B, d]. */
  get tangent(): Value {
    return this.columns!;
  }

  /** The terms of the trace: ∂f_i/∂x_i, [B, d], or the estimates of the probes, [B, K]. */
  get diagonal(): Value {
    const { forward, columns, terms } = this;
    if (terms) return terms;
    const unit = forward.rows(identity(this.tangents));
    // Of one number J is its own diagonal.
    return columns!.hasTangents ? forward.sum(forward.combine("Mul", columns!, unit)) : columns!;
  }

  /** ∇·f, [B, 1]. */
  get divergence(): Value {
    const { forward, once, diagonal } = this;
    const sum = this.tangents > 1 ? forward.sum(diagonal) : diagonal;
    return once ? forward.combine("Add", sum, once) : sum;
  }

  /** J[i][j], [B, d, d]. */
  get jacobian(): Value {
    const { nodes } = this.forward;
    const { name, hasTangents, ...rest } = this.columns!;
    const turned = hasTangents
      ? nodes.op("Transpose", [name], { perm: { ints: [0, 2, 1] } }, "jacobian")
      : nodes.op("Unsqueeze", [name, nodes.integers([2])]);
    return { ...rest, name: turned, hasTangents: true };
  }

  /** ∂f_1/∂x_0 - ∂f_0/∂x_1, [B, 1], of two dimensions, ∇×f, [B, 3], of three. */
  get curl(): Value {
    const { nodes } = this.forward;
    const { name, ofPoints } = this.jacobian;
    // The places of ∂f_j/∂x_i and ∂f_i/∂x_j in a point's J, row after row.
    const [minuends, subtrahends, size] = this.tangents === 2 ? [[2], [1], 4] : [[7, 2, 3], [5, 6, 1], 9];
    const entries = this.flat(name, size);
    const pick = (places: readonly number[]): string => nodes.op("Gather", [entries, nodes.integers(places)], { axis: { int: 1 } });
    return { name: nodes.op("Sub", [pick(minuends), pick(subtrahends)]), hasTangents: false, ofPoints };
  }

  /** (J + Jᵀ) / 2, [B, d, d]. */
  get strain(): Value {
    const { jacobian } = this;
    const { nodes } = this.forward;
    return { ...jacobian, name: nodes.op("Mul", [nodes.op("Add", [jacobian.name, this.mirrored(jacobian)]), 0.5]) };
  }

  /** -tr(J²) / 2, which is (‖Ω‖² - ‖S‖²) / 2: [B, 1]. */
  get qCriterion(): Value {
    const { jacobian } = this;
    const { nodes } = this.forward;
    const products = this.flat(nodes.op("Mul", [jacobian.name, this.mirrored(jacobian)]), this.tangents ** 2);
    return { ...jacobian, name: nodes.op("Mul", [nodes.sum(products, 1, true), -0.5]), hasTangents: false };
  }

  /** Jᵀ */
  private mirrored({ name }: Value): string {
    return this.forward.nodes.op("Transpose", [name], { perm: { ints: [0, 2, 1] } });
  }

  run(instruction: AdjointInstruction): void {
    const { forward } = this;
    switch (instruction.kind) {
      case "carry": {
        const product = forward.multiply(instruction.matrix, this.of(instruction.from));
        return this.store(instruction.into, this.scaled(product, instruction.endScale), instruction.adds);
      }
      case "blend": {
        const { from, endScale, weighting } = instruction;
        const value = this.of({ rows: from.rows, scale: [...from.scale, ...endScale] });
        return this.store(instruction.into, this.weighed(value, weighting ?? null), instruction.adds);
      }
      case "norm tangent":
        return this.store(instruction.into, this.throughNorm(instruction), false);
      case "contract":
        return this.contract(instruction);
      case "fold": {
        const { into, endScale, adds, weighting } = instruction;
        const product = this.weighed(forward.combine("Mul", this.rowsOf(instruction.rows), this.rowsOf(instruction.by)), weighting);
        return this.store({ kind: "register", register: into }, this.scaled(this.overTangents(product), endScale), adds);
      }
      case "norm fold":
        return this.normFold(instruction);
      case "outer":
        return this.addSum(
          instruction.sum.index,
          this.outer(instruction.matrix, this.rowsOf(instruction.left), this.of(instruction.right)),
        );
      case "row sum": {
        const { name, hasTangents } = this.overPoints(this.rowsOf({ kind: "register", register: instruction.register }));
        return this.addSum(instruction.sum.index, hasTangents ? this.flat(name, instruction.register.width) : name);
      }
      case "point sum":
        return this.store(
          { kind: "register", register: instruction.into },
          this.overPoints(this.rowsOf({ kind: "register", register: instruction.register })),
          false,
        );
    }
  }

  /** r (t - mean t - y mean(y ∘ t)) */
  private throughNorm({ node, centered, from }: Extract<TangentInstruction, { kind: "norm tangent" }>): Value {
    const { forward } = this;
    const [t, y] = [this.of(from), forward.value(node)];
    const along = forward.combine("Mul", y, forward.mean(forward.combine("Mul", y, t)));
    const moved = centered ? forward.combine("Sub", t, forward.mean(t)) : t;
    return forward.combine("Mul", forward.combine("Sub", moved, along), forward.inverseDeviation(node));
  }

  private contract(instruction: Extract<TangentInstruction, { kind: "contract" }>): void {
    const { forward } = this;
    const { matrix, rows, scale, endScale, into } = instruction;
    let value = this.of(instruction.from);
    if (matrix) value = forward.multiply(matrix, value);
    value = this.scaled(value, scale);
    if (!isOnes(rows)) value = forward.combine("Mul", value, this.rowsOf(rows));
    const terms = this.scaled(forward.sum(value), endScale);
    if (into) this.registers.set(into.index, this.weighed(terms, { kind: "divergence cotangent", share: 1 }));
    else if (instruction.once) this.once = this.added(this.once, terms);
    else this.terms = this.added(this.terms, terms);
  }

  /** With the tangents t, what they became, y' , and its adjoints g: -r Σ_k (mean(y ∘ t_k) g_k + mean(y ∘ g_k) t_k), and -r Σ_k mean(g_k ∘ y'_k). */
  private normFold(instruction: Extract<AdjointInstruction, { kind: "norm fold" }>): void {
    const { forward } = this;
    const { node, into, deviation, adds, addsDeviation } = instruction;
    const [t, moved, g] = [this.of(instruction.from), this.rowsOf(instruction.tangents), this.rowsOf(instruction.adjoints)];
    const [y, r] = [forward.value(node), forward.inverseDeviation(node)];
    const parts = [
      [t, g],
      [g, t],
    ].map(([a, b]) => forward.combine("Mul", b!, forward.mean(forward.combine("Mul", y, a!))));
    const minus = { ...r, name: forward.nodes.op("Neg", [r.name]) };
    const ofValue = this.overTangents(forward.combine("Add", parts[0]!, parts[1]!));
    this.store({ kind: "register", register: into }, forward.combine("Mul", ofValue, minus), adds);
    const ofDeviation = this.overTangents(forward.mean(forward.combine("Mul", g, moved)));
    this.store({ kind: "register", register: deviation }, forward.combine("Mul", ofDeviation, minus), addsDeviation);
  }

  private store(into: Target, value: Value, adds: boolean): void {
    if (into.kind !== "register") {
      this.columns = this.added(adds ? this.columns : null, value);
      return;
    }
    const { index, per } = into.register;
    // A sum over the tangents would miss what only broadcasts over them.
    if (value.hasTangents !== (per === "tangent" && this.tangents > 1)) throw new TypeError(`register ${index} is for each ${per}`);
    this.registers.set(index, this.added((adds && this.registers.get(index)) || null, value));
  }

  /** Σ left ⊗ right over what they have in common, points and tangents; over what one of them alone has, that one is summed up first. */
  private outer(matrix: PlannedMatrix, left: Value, right: Value): string {
    const { nodes } = this.forward;
    const [a, b] = [this.withAxesOf(left, right), this.withAxesOf(right, left)];
    const { rows, columns, blocks } = matrix;
    if (!blocks) return nodes.op("Gemm", [this.flat(a, rows), this.flat(b, columns)], { transA: { int: 1 } });
    const [height, width] = blockShape(matrix);
    const parts = (name: string, size: number, perm: readonly number[]): string =>
      nodes.op("Transpose", [nodes.op("Reshape", [name, nodes.integers([-1, rows / height, size])])], { perm: { ints: perm } });
    const products = nodes.op("MatMul", [parts(a, height, [1, 2, 0]), parts(b, width, [1, 0, 2])]);
    return nodes.op("Reshape", [products, nodes.integers([rows, width])]);
  }

  private withAxesOf(value: Value, other: Value): string {
    const ofPoints = value.ofPoints && !other.ofPoints ? this.overPoints(value) : value;
    return (ofPoints.hasTangents && !other.hasTangents ? this.overTangents(ofPoints) : ofPoints).name;
  }

  /** All vectors beneath one another. */
  private flat(name: string, width: number): string {
    const { nodes } = this.forward;
    return nodes.op("Reshape", [name, nodes.integers([-1, width])]);
  }

  private addSum(index: number, sum: string): void {
    const before = this.sums.get(index);
    this.sums.set(index, before === undefined ? sum : this.forward.nodes.op("Add", [before, sum]));
  }

  private overPoints(value: Value): Value {
    if (!value.ofPoints) return value;
    return { ...value, name: this.forward.nodes.sum(value.name, 0, true), ofPoints: false };
  }

  private added(before: Value | null, value: Value): Value {
    return before ? this.forward.combine("Add", before, value) : value;
  }

  private overTangents(value: Value): Value {
    if (!value.hasTangents) return value;
    return { ...value, name: this.forward.nodes.sum(value.name, 1, false), hasTangents: false };
  }

  private of({ rows, scale }: Tangents): Value {
    // One tangent of ones is its scale itself.
    if (isOnes(rows) && rows.kind === "matrix" && rows.matrix.rows === 1 && scale.length > 0) return this.product(scale);
    return this.scaled(this.rowsOf(rows), scale);
  }

  private rowsOf(rows: Rows): Value {
    switch (rows.kind) {
      case "matrix":
        return this.forward.rows(rows.matrix);
      case "register": {
        const value = this.registers.get(rows.register.index);
        if (!value) throw new TypeError(`register ${rows.register.index} is read before it is written`);
        return value;
      }
      case "value":
        return this.forward.value(rows.node);
      case "given":
        return this.given.tangents!;
      case "probes":
        return this.given.probes!;
      case "value cotangent":
        return this.given.valueCotangent!;
    }
  }

  private scaled(value: Value, scale: Scale): Value {
    return scale.length === 0 ? value : this.forward.combine("Mul", value, this.product(scale));
  }

  private product(scale: Scale): Value {
    return scale.map((factor) => this.factor(factor)).reduce((product, factor) => this.forward.combine("Mul", product, factor));
  }

  private factor(factor: Factor): Value {
    if (factor.kind === "constant") return this.forward.rows(factor.row);
    return factor.kind === "value" ? this.forward.value(factor.node) : this.forward.derivative(factor.node, factor.kind);
  }

  private weighed(value: Value, weighting: Weighting | null): Value {
    if (!weighting) return value;
    const { nodes } = this.forward;
    if (weighting.kind === "divergence cotangent") {
      const { share } = weighting;
      const shared = share === 1 ? value : { ...value, name: nodes.op("Mul", [value.name, share]) };
      const { divergenceCotangent } = this.given;
      return divergenceCotangent ? this.forward.combine("Mul", shared, divergenceCotangent) : shared;
    }
    const weight = this.rowsOf(weighting);
    // A number for each tangent, or one for the point.
    if (!value.hasTangents || weighting.register.width === 1) return this.forward.combine("Mul", value, weight);
    const column = { ...weight, name: nodes.op("Unsqueeze", [weight.name, nodes.integers([2])]), hasTangents: true };
    return this.forward.combine("Mul", value, column);
  }
}
