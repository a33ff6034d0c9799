import type { Numbers } from "../model/network.js";
import { CONTEXT, sourcesOf, STATE, type Graph, type Node, type Term } from "../plan/graph.js";
import { blockShape, transposed, zeros, type PlannedMatrix } from "../plan/matrices.js";
import { activationNodes } from "./activations.js";
import type { Nodes } from "./nodes.js";

/**
 * A tensor of the ONNX graph: a row for each point, [B, width], or one for all, [1, width]; with tangents [B or 1, K, width]. What all
 * points share broadcasts by itself.
 */
export interface Value {
  readonly name: string;
  /** Whether it has the tangents' axis. */
  readonly hasTangents: boolean;
  /** Whether each point has its own. */
  readonly ofPoints: boolean;
}

/** The forward pass, as far as somebody asks for it. */
export class Forward {
  private readonly known = new Map<string, Value>();
  private readonly constants = new Map<PlannedMatrix, Map<string, string>>();

  constructor(
    readonly nodes: Nodes,
    readonly graph: Graph,
    private readonly inputs: { readonly x: string; readonly context: string; readonly sharesContext: boolean },
  ) {}

  value(index: number): Value {
    const { activation } = this.graph.nodes[index]!;
    return activation ? this.ofActivation(index, "value") : this.before(index);
  }

  /** σ'(z) or σ''(z). */
  derivative(index: number, what: "slope" | "curvature"): Value {
    return this.ofActivation(index, what);
  }

  /** Of a norm, [B, 1]. */
  inverseDeviation(index: number): Value {
    const { body } = this.graph.nodes[index]!;
    if (body.kind !== "norm") throw new TypeError(`node ${index} is no norm`);
    return this.once(`inverse deviation ${index}`, () => {
      const { nodes } = this;
      const centred = this.centred(index);
      const deviationOf = (x: string, epsilon: string | number): string => {
        const variance = nodes.mean(nodes.op("Mul", [x, x]), 1);
        return nodes.op("Sqrt", [nodes.op("Add", [variance, epsilon])]);
      };
      if (!nodes.isOwn) return { ...centred, name: nodes.op("Reciprocal", [deviationOf(centred.name, body.epsilon)]) };
      // So that no square overflows, as in shaders/norm.wgsl: 1 / (s √(mean((x / s)²) + ε / s²)) with the largest |x| for s, or 1.
      const size = nodes.op("Max", [
        nodes.op("ReduceMax", [nodes.op("Abs", [centred.name])], { axes: { ints: [1] }, keepdims: { int: 1 } }),
        1,
      ]);
      const epsilon = nodes.op("Div", [nodes.op("Div", [body.epsilon, size]), size]);
      const scaled = deviationOf(nodes.op("Div", [centred.name, size]), epsilon);
      return { ...centred, name: nodes.op("Reciprocal", [nodes.op("Mul", [scaled, size])]) };
    });
  }

  /** A matrix of the plan as rows [rows, columns], which the tangents of a point are if there are several. */
  rows(matrix: PlannedMatrix): Value {
    const { rows, columns } = matrix;
    const shape = rows === 1 ? [1, columns] : [1, rows, columns];
    const name = this.constant(matrix, "rows", () => this.nodes.floats(nameOf(matrix), shape, matrix.build().data));
    return { name, hasTangents: rows > 1, ofPoints: false };
  }

  combine(type: "Add" | "Sub" | "Mul", a: Value, b: Value): Value {
    const [left, right] = a.hasTangents === b.hasTangents ? [a, b] : [this.spread(a), this.spread(b)];
    return {
      name: this.nodes.op(type, [left.name, right.name]),
      hasTangents: a.hasTangents || b.hasTangents,
      ofPoints: a.ofPoints || b.ofPoints,
    };
  }

  /** A row for each point as the same for all its tangents, [B, 1, width]. */
  spread(value: Value): Value {
    if (value.hasTangents || !value.ofPoints) return value;
    return { ...value, name: this.nodes.op("Unsqueeze", [value.name, this.nodes.integers([1])]), hasTangents: true };
  }

  /** W v for all vectors v. */
  multiply(matrix: PlannedMatrix, vectors: Value, bias: PlannedMatrix | null = null): Value {
    const { nodes } = this;
    const { diagonal, rows } = matrix;
    if (diagonal) return this.combine("Mul", vectors, this.rows(diagonal));
    const make = (type: string, operands: readonly string[]): Value => ({ ...vectors, name: nodes.op(type, operands) });
    const shared = sharedBlock(matrix);
    if (!shared) {
      const weight = this.constant(matrix, "weight", () => {
        const { rows: inner, columns: outer, data } = transposed(matrix).build();
        return nodes.floats(nameOf(matrix), [inner, outer], data);
      });
      if (!bias || vectors.hasTangents) return make("MatMul", [vectors.name, weight]);
      return make("Gemm", [vectors.name, weight, this.row(bias)]);
    }
    const { height, width, data } = shared;
    const weight = this.constant(matrix, "block", () => {
      const turned = Float32Array.from({ length: width * height }, (_, i) => data[(i % height) * width + Math.floor(i / height)]!);
      return nodes.floats(nameOf(matrix), [width, height], turned);
    });
    const leading = vectors.hasTangents ? [0, 0] : [0];
    const parts = nodes.op("Reshape", [vectors.name, nodes.integers([...leading, rows / height, width])]);
    return make("Reshape", [nodes.op("MatMul", [parts, weight]), nodes.integers([...leading, rows])]);
  }

  /** Sums over the last axis, which is left as one column where a point has no tangents: [B, K], or [B, 1]. */
  sum(value: Value): Value {
    return { ...value, name: this.nodes.sum(value.name, value.hasTangents ? 2 : 1, !value.hasTangents), hasTangents: false };
  }

  /** Means over the last axis, which stays. */
  mean(value: Value): Value {
    return { ...value, name: this.nodes.mean(value.name, value.hasTangents ? 2 : 1) };
  }

  private ofActivation(index: number, what: "value" | "slope" | "curvature"): Value {
    const { activation } = this.graph.nodes[index]!;
    if (!activation) throw new TypeError(`node ${index} has no activation`);
    return this.once(`${what} ${index}`, () => {
      const z = this.before(index);
      return { ...z, name: activationNodes(this.nodes, activation, what, z.name) };
    });
  }

  /** A node before its activation. */
  private before(index: number): Value {
    const node = this.graph.nodes[index]!;
    return this.once(`before ${index}`, () => {
      // From the state on, so that a deep network needs no deep stack.
      for (const earlier of this.unknownBefore(node)) this.value(earlier);
      if (index === STATE) return { name: this.inputs.x, hasTangents: false, ofPoints: true };
      if (index === CONTEXT) return { name: this.inputs.context, hasTangents: false, ofPoints: !this.inputs.sharesContext };
      if (node.body.kind === "norm") return this.combine("Mul", this.centred(index), this.inverseDeviation(index));
      return this.sumOf(node);
    });
  }

  /** Whose values lead to a node and are not known, in their order. */
  private unknownBefore(node: Node): number[] {
    const needed = new Set<number>(sourcesOf(node));
    for (let index = node.index - 1; index >= 0; index--) {
      if (!needed.has(index)) continue;
      if (this.known.has(`before ${index}`)) needed.delete(index);
      else for (const source of sourcesOf(this.graph.nodes[index]!)) needed.add(source);
    }
    return [...needed].sort((a, b) => a - b);
  }

  private sumOf({ body, width }: Node): Value {
    if (body.kind !== "sum") throw new TypeError(`a node of the kind ${body.kind} is no sum`);
    const { terms, bias } = body;
    if (terms.length === 0) return this.rows(bias ?? zeros(1, width));
    // The bias goes with the first product, where it costs nothing.
    const first = bias && terms.find((term) => term.kind === "dense" && !sharedBlock(term.matrix) && !term.matrix.diagonal);
    const parts = terms.map((term) => this.termOf(term, term === first ? bias : null));
    if (bias && !first) parts.push({ name: this.row(bias), hasTangents: false, ofPoints: false });
    return parts.reduce((total, part) => this.combine("Add", total, part));
  }

  private termOf(term: Term, bias: PlannedMatrix | null): Value {
    const source = this.value(term.source);
    if (term.kind === "dense") return this.multiply(term.matrix, source, bias);
    if (term.kind === "product") return this.combine("Mul", source, this.value(term.by));
    if (!term.factors) return source;
    return this.combine("Mul", source, { name: this.row(term.factors), hasTangents: false, ofPoints: false });
  }

  /** x - mean x of a norm's source, or x where it is not centered. */
  private centred(index: number): Value {
    const { body } = this.graph.nodes[index]!;
    if (body.kind !== "norm") throw new TypeError(`node ${index} is no norm`);
    const source = this.value(body.source);
    return body.centered ? this.combine("Sub", source, this.mean(source)) : source;
  }

  /** A row as a list of numbers. */
  private row(matrix: PlannedMatrix): string {
    return this.constant(matrix, "row", () => this.nodes.floats(nameOf(matrix), [matrix.columns], matrix.build().data));
  }

  private constant(matrix: PlannedMatrix, form: string, make: () => string): string {
    let forms = this.constants.get(matrix);
    if (!forms) this.constants.set(matrix, (forms = new Map()));
    let name = forms.get(form);
    if (name === undefined) forms.set(form, (name = make()));
    return name;
  }

  private once(key: string, make: () => Value): Value {
    let value = this.known.get(key);
    if (!value) this.known.set(key, (value = make()));
    return value;
  }
}

/** "W1", "b1"; what is computed has names that say how, which few runtimes would take. */
function nameOf({ name, isMerged }: PlannedMatrix): string {
  return /^\w+$/.test(name) ? name : isMerged ? "M" : "rows";
}

/** The block that a block-diagonal matrix consists of, where all are the same; then it need not be written with its zeros. */
function sharedBlock(matrix: PlannedMatrix): { readonly height: number; readonly width: number; readonly data: Numbers } | null {
  if (!matrix.blocks) return null;
  const [height, width] = blockShape(matrix);
  const { data } = matrix.blocks.build();
  return data.every((number, i) => number === data[i % (height * width)]) ? { height, width, data } : null;
}
