import { extreme } from "./elementwise.js";
import type { Node, Term } from "./graph.js";
import { dense, type Pick } from "./maps.js";
import { sizeOf, sourcesOf, stridesOf, type Call } from "./values.js";

/** Which elements of a value are reduced to one: those of a group, which all have as many. */
export class Groups {
  /** The group of each element. */
  readonly groupOf: Int32Array;
  /** The elements of the first group, of the second, ... */
  readonly elements: Int32Array;
  readonly count: number;
  readonly size: number;

  constructor(
    private readonly call: Call,
    shape: readonly number[],
    axes: ReadonlySet<number>,
  ) {
    const kept = shape.map((size, axis) => (axes.has(axis) ? 1 : size));
    const strides = stridesOf(kept);
    this.groupOf = sourcesOf(
      call,
      shape.map((size, axis) => {
        call.graph.budget.take(size);
        return Array.from({ length: size }, (_, c) => (axes.has(axis) ? 0 : c * strides[axis]!));
      }),
    );
    this.count = sizeOf(kept);
    if (this.count === 0 || this.groupOf.length === 0) call.refuse("it has a dimension of 0");
    this.size = this.groupOf.length / this.count;
    this.elements = new Int32Array(call.graph.budget.taken(this.groupOf.length));
    const filled = new Int32Array(call.graph.budget.taken(this.count));
    this.groupOf.forEach((group, element) => (this.elements[group * this.size + filled[group]!++] = element));
  }

  /** Σ of each group's elements, times a factor. */
  sum(node: Node, factor = 1): Node {
    const { count: rows } = this;
    const columns = node.width;
    if (this.size === 1) return this.call.graph.scaled(this.ofEach(node, this.elements), factor);
    if (this.elements.every((element, i) => element === i)) {
      const data = new Float64Array(this.call.graph.budget.taken(this.size)).fill(factor);
      return this.call.graph.mapped(node, dense({ rows: 1, columns: this.size, data }, rows));
    }
    const data = new Float64Array(this.call.graph.budget.taken(rows * columns));
    this.groupOf.forEach((row, column) => (data[row * columns + column] = factor));
    return this.call.graph.mapped(node, dense({ rows, columns, data }));
  }

  /** The largest (sign 1) or the smallest (sign -1) of each group: of halves side by side, until one is left. */
  extreme(node: Node, sign: 1 | -1): Node {
    let [left, size] = [this.ofEach(node, this.elements), this.size];
    while (size > 1) {
      const half = Math.ceil(size / 2);
      // The one in the middle stands beside the last where their number is odd.
      const at = (from: number): Int32Array =>
        Int32Array.from({ length: this.call.graph.budget.taken(this.count * half) }, (_, i) => {
          const within = (i % half) + from;
          return Math.floor(i / half) * size + Math.min(within, size - 1);
        });
      left = extreme(this.call, this.ofEach(left, at(0)), this.ofEach(left, at(half)), sign);
      size = half;
    }
    return left;
  }

  /** What each group has one of, for each of its elements. */
  spread(node: Node): Node {
    return this.ofEach(node, this.groupOf);
  }

  /** Each group over its own mean and deviation. */
  normalised(node: Node, centered: boolean, epsilon: number): Node {
    const { graph } = this.call;
    if (this.count === 1) return graph.norm(node, centered, epsilon);
    const terms = Array.from({ length: this.count }, (_, group): Term => {
      const elements = this.elements.subarray(group * this.size, (group + 1) * this.size);
      const indices = new Int32Array(graph.budget.taken(node.width)).fill(-1);
      elements.forEach((element, i) => (indices[element] = i));
      const map: Pick = { kind: "pick", columns: this.size, indices, factors: null };
      return { node: graph.norm(this.ofEach(node, elements), centered, epsilon), map };
    });
    return graph.linear(terms);
  }

  private ofEach(node: Node, indices: Int32Array): Node {
    const map: Pick = { kind: "pick", columns: node.width, indices, factors: null };
    return this.call.graph.mapped(node, map);
  }
}
