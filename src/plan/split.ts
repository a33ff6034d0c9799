import { isIdentity } from "../model/activation.js";
import { columnsOf, rowsFrom, type PlannedMatrix } from "./matrices.js";
import { multiplyAddsOf, vectorsOf, type Elements, type FusedProgram, type Operation, type Product, type Vector } from "./operations.js";

type Sum = Extract<Operation, { kind: "sum" }>;

/** More work than this, over that of the whole, and parts do not pay. */
const MOST_WORK = 1.5;

/** The numbers [first, first + width) of a vector. */
interface Range {
  readonly first: number;
  readonly width: number;
}

/**
 * A program in parts, each of which computes some of the numbers of one wide layer, and what they add to f and to the terms
 * of the trace: Σ_o of a part of the o. All of them compute what comes before that layer. The parts before the last leave
 * their sums, [rows, parts - 1, d + K], to the last one. Null where a program has no such layer, or where parts would cost
 * much more than the whole.
 */
export function splitProgram(program: FusedProgram, parts: number): readonly FusedProgram[] | null {
  const divided = program.operations
    .filter((operation) => operation.kind === "sum" && operation.into.width >= 8 * parts)
    .map((operation) => new Splitting(program, operation as Sum, parts).programs())
    .filter((programs) => programs !== null)
    .map((programs) => ({ programs, work: programs.reduce((sum, { multiplyAdds }) => sum + multiplyAdds, 0) }))
    .toSorted((a, b) => a.work - b.work)[0];
  return divided && divided.work <= MOST_WORK * program.multiplyAdds ? divided.programs : null;
}

class Splitting {
  /** What depends on the layer that is divided. */
  private readonly after: ReadonlySet<Operation>;
  private readonly layer: readonly Vector[];
  /** The one sum that adds the layer up: f. */
  private readonly sum: Sum | null;

  constructor(
    private readonly program: FusedProgram,
    private readonly divided: Sum,
    private readonly parts: number,
  ) {
    const { into, derivative } = divided;
    this.layer = derivative ? [into, derivative] : [into];
    const reached = new Set<Vector>(this.layer);
    const after = new Set<Operation>();
    for (const operation of program.operations) {
      const { read, made } = vectorsOf(operation);
      if (!read.some((vector) => reached.has(vector))) continue;
      after.add(operation);
      for (const vector of made) reached.add(vector);
    }
    this.after = after;
    const sums = [...after].filter((operation) => operation.kind === "sum");
    this.sum = sums.length === 1 ? sums[0]! : null;
  }

  programs(): FusedProgram[] | null {
    if (!this.isDivisible()) return null;
    const quads = Math.ceil(this.divided.into.width / 4);
    const bounds = Array.from({ length: this.parts + 1 }, (_, part) =>
      Math.min(this.divided.into.width, 4 * Math.round((part * quads) / this.parts)),
    );
    return bounds.slice(1).map((end, part) => this.part(part, { first: bounds[part]!, width: end - bounds[part]! }));
  }

  /** Whether all that depends on the layer is a sum over its numbers, and those need no slices of other vectors. */
  private isDivisible(): boolean {
    const { divided, after, layer } = this;
    const inLayer = (elements: Elements): boolean => elements.some((element) => layer.includes(element as Vector));
    const isElsewhere = (elements: Elements): boolean => elements.some((element) => "name" in element && !layer.includes(element));
    const isSummed = (operation: Operation): boolean => {
      if (operation.kind === "store") return operation.from === this.sum?.into || operation.from === this.program.terms;
      if (operation.kind === "contract") {
        const { by, x, product, factor } = operation;
        return !inLayer(factor) && !isElsewhere([...by, ...x]) && !(product && inLayer(product.x));
      }
      if (operation !== this.sum || operation.derivative || !isIdentity(operation.activation)) return false;
      return (
        !operation.added.some(inLayer) && operation.products.every(({ x }) => !inLayer(x) || (x.length === 1 && x[0] === divided.into))
      );
    };
    return !divided.added.some(isElsewhere) && [...after].every(isSummed);
  }

  private part(index: number, range: Range): FusedProgram {
    const { program, divided, layer, sum, parts } = this;
    const isLast = index === parts - 1;
    const slices = new Map(layer.map((vector) => [vector, { name: vector.name, width: range.width }]));
    const columns = (matrix: PlannedMatrix): PlannedMatrix => columnsOf(matrix, range.first, range.width);
    const rows = (matrix: PlannedMatrix): PlannedMatrix => rowsFrom(matrix, range.first, range.width);
    const cut = (elements: Elements): Elements =>
      elements.map((element) => ("name" in element ? slices.get(element)! : { matrix: columns(element.matrix), row: element.row }));
    const operations: Operation[] = [];
    for (const operation of program.operations) {
      if (operation.kind === "store") continue;
      if (operation === divided)
        operations.push({
          ...divided,
          into: slices.get(divided.into)!,
          derivative: divided.derivative && slices.get(divided.derivative)!,
          bias: divided.bias && columns(divided.bias),
          added: divided.added.map(cut),
          products: divided.products.map(({ matrix, x }) => ({ matrix: rows(matrix), x })),
        });
      else if (!this.after.has(operation)) {
        // Contractions of other layers are whole, in one part.
        if (isLast || operation.kind !== "contract") operations.push(operation);
      } else if (operation.kind === "sum") {
        const divides = ({ x }: Product): boolean => x[0] === divided.into;
        const whole = isLast ? operation : { bias: null, added: [], products: operation.products.filter(divides) };
        const products = whole.products.map((product) =>
          divides(product) ? { matrix: columns(product.matrix), x: cut(product.x) } : product,
        );
        operations.push({ ...operation, ...whole, products });
      } else if (operation.kind === "contract") {
        const { product, by, x } = operation;
        operations.push({
          ...operation,
          width: range.width,
          by: cut(by),
          x: cut(x),
          product: product && { matrix: rows(product.matrix), x: product.x },
        });
      }
    }
    // f and the terms of a part, one after another.
    const sums = [...(sum ? [sum.into] : []), ...(program.terms.width > 0 ? [program.terms] : [])];
    const width = sums.reduce((total, vector) => total + vector.width, 0);
    const firstOf = (part: number, vector: Vector): number => part * width + (vector === sums[0] ? 0 : sums[0]!.width);
    if (isLast) {
      const earlier = new Map(
        sums.map((vector) => [
          vector,
          Array.from({ length: parts - 1 }, (_, part) => ({ name: `part${part}_${vector.name}`, width: vector.width })),
        ]),
      );
      for (const [vector, those] of earlier)
        those.forEach((into, part) => operations.push({ kind: "load", from: "partial", first: firstOf(part, vector), into }));
      for (const operation of program.operations)
        if (operation.kind === "store") operations.push({ ...operation, added: earlier.get(operation.from) ?? [] });
    } else for (const from of sums) operations.push({ kind: "store", what: "partial", first: firstOf(index, from), from, added: [] });
    const read = withoutUnread(operations);
    return {
      ...program,
      operations: read,
      partialSize: (parts - 1) * width,
      multiplyAdds: read.reduce((total, operation) => total + multiplyAddsOf(operation), 0),
    };
  }
}

function withoutUnread(operations: readonly Operation[]): Operation[] {
  const wanted = new Set<Vector>();
  const kept: Operation[] = [];
  for (const operation of operations.toReversed()) {
    const { read, made } = vectorsOf(operation);
    if (made.length > 0 && !made.some((vector) => wanted.has(vector))) continue;
    for (const vector of read) wanted.add(vector);
    kept.push(operation);
  }
  return kept.toReversed();
}
