import type { Matrix } from "../model/network.js";
import { addProduct, type Index, type Linear, type Sizes, type Walk } from "./products.js";

/**
 * A matrix a plan needs: its shape is known at once, its numbers (float64 where they are computed) when first asked for.
 * What is made out of the same operands in the same way is the same object, so that it is computed and uploaded once.
 */
export interface PlannedMatrix {
  /** For people alone. */
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** Whether it is a product or a sum of others. */
  readonly isMerged: boolean;
  /** Whether all its numbers are known to be 1. */
  readonly isOnes: boolean;
  /** d [1, n] of diag(d) [n, n]; null where it is not known to be diagonal. Only what must have all of it builds n x n numbers. */
  readonly diagonal: PlannedMatrix | null;
  /** Of a block-diagonal matrix the blocks, beneath one another in one matrix as wide as a block; null where it is not known to be one. */
  readonly blocks: PlannedMatrix | null;
  /** Where its numbers stand in the network, of a weight or a bias as it is; null for what is computed or constant. */
  readonly place: MatrixPlace | null;
  /** What it is the sum of; null where it is computed of nothing. */
  readonly products: readonly Product[] | null;
  build(): Matrix;
  /** Gives a weight or a bias other numbers; what is computed of it follows when it is next built. */
  replace(matrix: Matrix): void;
}

/** An operation of the network, and which of its terms' weights, or its bias. */
export interface MatrixPlace {
  readonly operation: number;
  readonly part: number | "bias";
}

/**
 * result[into] += Σ_j of the product of one or two operands' entries, for all n, r, c: a product of matrices, of their entries, a sum, a
 * transpose, all in one form, so that host and device compute, and gradients go back, by one rule. Different n, r, c write different
 * entries, and an operand depends on all but one of the indices that run.
 */
export interface Product {
  readonly sizes: Sizes;
  readonly into: Walk;
  readonly operands: readonly (Walk & { readonly matrix: PlannedMatrix })[];
}

/** The numbers that a matrix is given by: all, or those of its blocks. */
export function sizeOf({ rows, columns, blocks }: PlannedMatrix): number {
  return blocks ? blocks.rows * blocks.columns : rows * columns;
}

/** [rows, columns] of a diagonal block; of the matrix itself where it has none. */
export function blockShape({ rows, columns, blocks }: PlannedMatrix): readonly [number, number] {
  return blocks ? [rows / (columns / blocks.columns), blocks.columns] : [rows, columns];
}

type Properties = Partial<Pick<PlannedMatrix, "isMerged" | "isOnes" | "diagonal" | "blocks" | "place" | "products">>;

/** How often numbers were replaced, of any matrix: what was built before is built anew. */
let replacements = 0;

/** A matrix that is computed when its numbers are first asked for. */
export function planned(name: string, rows: number, columns: number, compute: () => Matrix, properties: Properties = {}): PlannedMatrix {
  let built: Matrix | undefined;
  let builtAt = replacements;
  let own = compute;
  const build = (): Matrix => {
    if (built === undefined || builtAt !== replacements) [built, builtAt] = [own(), replacements];
    return built;
  };
  const replace = (matrix: Matrix): void => {
    own = () => matrix;
    replacements++;
  };
  const { isMerged = false, isOnes = false, diagonal = null, blocks = null, place = null, products = null } = properties;
  return { name, rows, columns, isMerged, isOnes, diagonal, blocks, place, products, build, replace };
}

/** What was made out of some operands, by the way it was made, and what more operands lead on to. All are held weakly. */
class Made {
  readonly by = new Map<string, PlannedMatrix>();
  readonly next = new WeakMap<PlannedMatrix, Made>();
}
const made = new Made();

function once(way: string, operands: readonly PlannedMatrix[], make: () => PlannedMatrix): PlannedMatrix {
  let found = made;
  for (const operand of operands) {
    let next = found.next.get(operand);
    if (!next) found.next.set(operand, (next = new Made()));
    found = next;
  }
  let matrix = found.by.get(way);
  if (!matrix) found.by.set(way, (matrix = make()));
  return matrix;
}

/** A matrix of the network as it is. */
export function lazily(name: string, matrix: Matrix, place: MatrixPlace | null = null): PlannedMatrix {
  return planned(name, matrix.rows, matrix.columns, () => matrix, { place });
}

/** A row [1, n]. */
export function rowOf(name: string, values: ArrayLike<number>, place: MatrixPlace | null = null): PlannedMatrix {
  const build = (): Matrix => ({ rows: 1, columns: values.length, data: Float64Array.from(values) });
  return planned(name, 1, values.length, build, { place });
}

/** The sum of products, in float64. */
export function sumOfProducts(
  name: string,
  rows: number,
  columns: number,
  products: readonly Product[],
  properties: Properties = {},
): PlannedMatrix {
  const compute = (): Matrix => {
    // What only moves numbers leaves them in their type: weights in float32 take half the memory.
    const [{ sizes, operands } = { sizes: null, operands: [] }] = products;
    const isCopy = products.length === 1 && operands.length === 1 && sizes?.j === 1;
    const Numbers = isCopy && operands[0]!.matrix.build().data instanceof Float32Array ? Float32Array : Float64Array;
    const data = new Numbers(rows * columns);
    for (const { sizes, into, operands } of products)
      addProduct(
        { data, columns, walk: into },
        operands.map(({ matrix, ...walk }) => ({ ...matrix.build(), walk })),
        sizes,
      );
    return { rows, columns, data };
  };
  return planned(name, rows, columns, compute, { ...properties, products });
}

/** Each of `rows` and `columns`, where they are the result's own. */
export const ENTRIES: Walk = { row: { r: 1 }, column: { c: 1 } };

/** I ⊗ A, [times rows, times columns]. */
export function repeated(a: PlannedMatrix, times: number): PlannedMatrix {
  const { rows, columns } = a;
  const product: Product = {
    sizes: { n: times, r: rows, c: columns, j: 1 },
    into: { row: { n: rows, r: 1 }, column: { c: 1 } },
    operands: [{ matrix: a, ...ENTRIES }],
  };
  return blockDiagonal(sumOfProducts(a.name, times * rows, columns, [product]), times);
}

/** The matrix with these blocks, which lie beneath one another. */
function blockDiagonal(blocks: PlannedMatrix, count: number): PlannedMatrix {
  const [height, width] = [blocks.rows / count, blocks.columns];
  const product: Product = {
    sizes: { n: count, r: height, c: width, j: 1 },
    into: { row: { n: height, r: 1 }, column: { n: width, c: 1 } },
    operands: [{ matrix: blocks, row: { n: height, r: 1 }, column: { c: 1 } }],
  };
  const { name, isMerged } = blocks;
  return once(`block diagonal ${count}`, [blocks], () => sumOfProducts(name, blocks.rows, count * width, [product], { blocks, isMerged }));
}

/** How many blocks two matrices have, where both have as many; 0 otherwise. */
function commonBlocks(a: PlannedMatrix, b: PlannedMatrix): number {
  const [first, second] = [a, b].map(({ columns, blocks }) => (blocks ? columns / blocks.columns : 0));
  return first === second ? first! : 0;
}

/** Aᵀ: its rows are the columns of A. */
export function transposed(a: PlannedMatrix): PlannedMatrix {
  if (a.diagonal) return a;
  const count = a.blocks ? a.columns / a.blocks.columns : 1;
  return a.blocks ? blockDiagonal(transposedBlocks(a.blocks, count), count) : transposedBlocks(a, 1);
}

/** Each block of as many on its own. */
function transposedBlocks(a: PlannedMatrix, count: number): PlannedMatrix {
  const [rows, columns] = [a.rows / count, a.columns];
  const product: Product = {
    sizes: { n: count, r: columns, c: rows, j: 1 },
    into: { row: { n: columns, r: 1 }, column: { c: 1 } },
    operands: [{ matrix: a, row: { n: rows, c: 1 }, column: { r: 1 } }],
  };
  return once(`transposed ${count}`, [a], () => sumOfProducts(`columns of ${a.name}`, count * columns, rows, [product]));
}

/** The product A B. */
export function merge(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  if (a.diagonal) return scaleRows(b, a.diagonal);
  if (b.diagonal) return scaleColumns(a, b.diagonal);
  const count = commonBlocks(a, b);
  return count ? blockDiagonal(mergedBlocks(a.blocks!, b.blocks!, count), count) : mergedBlocks(a, b, 1);
}

/** The product of each block of A and that of B. */
function mergedBlocks(a: PlannedMatrix, b: PlannedMatrix, count: number): PlannedMatrix {
  const [height, inner, columns] = [a.rows / count, a.columns, b.columns];
  const product: Product = {
    sizes: { n: count, r: height, c: columns, j: inner },
    into: { row: { n: height, r: 1 }, column: { c: 1 } },
    operands: [
      { matrix: a, row: { n: height, r: 1 }, column: { j: 1 } },
      { matrix: b, row: { n: inner, j: 1 }, column: { c: 1 } },
    ],
  };
  return once(`merge ${count}`, [a, b], () => sumOfProducts(`${a.name} ${b.name}`, a.rows, columns, [product], { isMerged: true }));
}

/** A ∘ Bᵀ: tr(D_2 A D_1 B) = d_2ᵀ (A ∘ Bᵀ) d_1 for diagonal D. */
export function diagonalProduct(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  const count = commonBlocks(a, b);
  return count ? blockDiagonal(productOfBlocks(a.blocks!, b.blocks!, count), count) : productOfBlocks(a, b, 1);
}

/** The same of each block of A and that of B. */
function productOfBlocks(a: PlannedMatrix, b: PlannedMatrix, count: number): PlannedMatrix {
  const { rows, columns } = a;
  const height = rows / count;
  const entries: Walk = { row: { n: height, r: 1 }, column: { c: 1 } };
  const product: Product = {
    sizes: { n: count, r: height, c: columns, j: 1 },
    into: entries,
    operands: [
      { matrix: a, ...entries },
      { matrix: b, row: { n: columns, c: 1 }, column: { r: 1 } },
    ],
  };
  return once(`diagonal product ${count}`, [a, b], () =>
    sumOfProducts(`${a.name} ∘ (${b.name})ᵀ`, rows, columns, [product], { isMerged: true }),
  );
}

/** A as it is, as part of a sum. */
function copyOf(a: PlannedMatrix): Product {
  return { sizes: { n: 1, r: a.rows, c: a.columns, j: 1 }, into: ENTRIES, operands: [{ matrix: a, ...ENTRIES }] };
}

/** A + B. */
export function sum(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  if (a.diagonal && b.diagonal) return diagonalMatrix(sum(a.diagonal, b.diagonal));
  const count = commonBlocks(a, b);
  if (count) return blockDiagonal(sum(a.blocks!, b.blocks!), count);
  const products = [a, b].map(copyOf);
  return once("sum", [a, b], () => sumOfProducts(`(${a.name} + ${b.name})`, a.rows, a.columns, products, { isMerged: true }));
}

/** A diag(d): column i times d_i, for a row d [1, columns]. */
export function scaleColumns(a: PlannedMatrix, d: PlannedMatrix): PlannedMatrix {
  if (d.isOnes) return a;
  if (a.isOnes && a.rows === 1) return d;
  if (a.diagonal) return diagonalMatrix(scaleColumns(a.diagonal, d));
  const factors = { matrix: d, row: {}, column: { c: 1 } };
  const product: Product = {
    sizes: { n: 1, r: a.rows, c: a.columns, j: 1 },
    into: ENTRIES,
    operands: [{ matrix: a, ...ENTRIES }, factors],
  };
  return once("scale columns", [a, d], () => sumOfProducts(`${a.name} ${d.name}`, a.rows, a.columns, [product], { isMerged: true }));
}

/** diag(d) A: row i times d_i, for a row d [1, rows]. */
export function scaleRows(a: PlannedMatrix, d: PlannedMatrix): PlannedMatrix {
  if (d.isOnes) return a;
  if (a.diagonal) return diagonalMatrix(scaleColumns(d, a.diagonal));
  if (a.blocks) return blockDiagonal(scaleRows(a.blocks, d), a.columns / a.blocks.columns);
  const factors = { matrix: d, row: {}, column: { r: 1 } };
  const product: Product = {
    sizes: { n: 1, r: a.rows, c: a.columns, j: 1 },
    into: ENTRIES,
    operands: [{ matrix: a, ...ENTRIES }, factors],
  };
  return once("scale rows", [a, d], () => sumOfProducts(`${d.name} ${a.name}`, a.rows, a.columns, [product], { isMerged: true }));
}

/** Σ_i A[k,i] B[k,i] as a column [rows, 1]. */
export function rowDots(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  if (a.diagonal && b.diagonal) return asColumn(scaleColumns(a.diagonal, b.diagonal));
  if (a.diagonal || b.diagonal) {
    const [d, other] = a.diagonal ? [a.diagonal, b] : [b.diagonal!, a];
    return asColumn(scaleColumns(asRow(diagonalColumn(other)), d));
  }
  const walk: Walk = { row: { r: 1 }, column: { j: 1 } };
  const product: Product = {
    sizes: { n: 1, r: a.rows, c: 1, j: a.columns },
    into: ENTRIES,
    operands: [a, b].map((matrix) => ({ matrix, ...walk })),
  };
  return once("row dots", [a, b], () => sumOfProducts(`rows of ${a.name} times ${b.name}`, a.rows, 1, [product]));
}

/** The diagonal as a column [n, 1]. */
export function diagonalColumn(a: PlannedMatrix): PlannedMatrix {
  if (a.diagonal) return asColumn(a.diagonal);
  const product: Product = {
    sizes: { n: 1, r: a.rows, c: 1, j: 1 },
    into: ENTRIES,
    operands: [{ matrix: a, row: { r: 1 }, column: { r: 1 } }],
  };
  return once("diagonal column", [a], () => sumOfProducts(`diagonal of ${a.name}`, a.rows, 1, [product]));
}

/** A row [1, n] as a column [n, 1]. */
function asColumn(a: PlannedMatrix): PlannedMatrix {
  return turned(a, a.columns, 1);
}

/** A column [n, 1] as a row [1, n]. */
export function asRow(a: PlannedMatrix): PlannedMatrix {
  return turned(a, 1, a.rows);
}

function turned(a: PlannedMatrix, rows: number, columns: number): PlannedMatrix {
  if (a.rows === rows) return a;
  const product: Product = {
    sizes: { n: 1, r: rows, c: columns, j: 1 },
    into: ENTRIES,
    operands: [{ matrix: a, row: { c: 1 }, column: { r: 1 } }],
  };
  return once("turned", [a], () => sumOfProducts(a.name, rows, columns, [product], { isOnes: a.isOnes }));
}

export function ones(rows: number, columns: number): PlannedMatrix {
  return constant("ones", rows, columns, 1);
}

export function zeros(rows: number, columns: number): PlannedMatrix {
  return constant("zeros", rows, columns, 0);
}

function constant(name: string, rows: number, columns: number, value: number): PlannedMatrix {
  const fill = (): Matrix => ({ rows, columns, data: new Float64Array(rows * columns).fill(value) });
  return once(`${name} ${rows} ${columns}`, [], () => planned(name, rows, columns, fill, { isOnes: value === 1 }));
}

export function identity(n: number): PlannedMatrix {
  return diagonalMatrix(ones(1, n));
}

/** diag(d) for a row d [1, n]. */
function diagonalMatrix(d: PlannedMatrix): PlannedMatrix {
  const n = d.columns;
  const product: Product = {
    sizes: { n: 1, r: n, c: 1, j: 1 },
    into: { row: { r: 1 }, column: { r: 1 } },
    operands: [{ matrix: d, row: {}, column: { r: 1 } }],
  };
  return once("diagonal matrix", [d], () => sumOfProducts(d.isOnes ? "identity" : `diag(${d.name})`, n, n, [product], { diagonal: d }));
}

/** Sums over a matrix as one row: of each row, of each column, or of everything. */
export function sums(a: PlannedMatrix, along: "rows" | "columns" | "all"): PlannedMatrix {
  if (along === "all") return sums(sums(a, "rows"), "rows");
  const [kept, summed] = along === "rows" ? [a.rows, a.columns] : [a.columns, a.rows];
  const product: Product = {
    sizes: { n: 1, r: 1, c: kept, j: summed },
    into: ENTRIES,
    operands: [{ matrix: a, ...(along === "rows" ? { row: { c: 1 }, column: { j: 1 } } : { row: { j: 1 }, column: { c: 1 } }) }],
  };
  return once(`sums of ${along}`, [a], () => sumOfProducts(`sums of ${along} of ${a.name}`, 1, kept, [product]));
}

/** What it is computed of. */
function operandsOf({ products }: PlannedMatrix): readonly PlannedMatrix[] {
  return (products ?? []).flatMap(({ operands }) => operands.map(({ matrix }) => matrix));
}

/** Whether its numbers depend on the network's: a gradient of it means something. */
export function isTrained(matrix: PlannedMatrix): boolean {
  return matrix.place !== null || operandsOf(matrix).some(isTrained);
}

/** All that these are computed of and they themselves, each once, operands first. */
export function inOrder(matrices: Iterable<PlannedMatrix>): PlannedMatrix[] {
  const seen = new Set<PlannedMatrix>();
  const order: PlannedMatrix[] = [];
  const visit = (matrix: PlannedMatrix): void => {
    if (seen.has(matrix)) return;
    seen.add(matrix);
    operandsOf(matrix).forEach(visit);
    order.push(matrix);
  };
  for (const matrix of matrices) visit(matrix);
  return order;
}

/**
 * From gradients of planned matrices to those of the weights and biases that they are computed of: reverse mode over the matrices.
 *
 * @param gradients by the matrix, which may be computed or a weight itself
 */
export function pullBack(gradients: ReadonlyMap<PlannedMatrix, PlannedMatrix>): Map<PlannedMatrix, PlannedMatrix> {
  const parts = new Map<PlannedMatrix, Product[]>();
  const found = new Map<PlannedMatrix, PlannedMatrix>();
  for (const matrix of inOrder(gradients.keys()).toReversed()) {
    const own = gradients.get(matrix);
    const of = parts.get(matrix) ?? [];
    if (!own && of.length === 0) continue;
    const { name, rows, columns, products, place } = matrix;
    const gradient =
      own && of.length === 0 ? own : sumOfProducts(`gradient of ${name}`, rows, columns, [...(own ? [copyOf(own)] : []), ...of]);
    if (place) found.set(matrix, gradient);
    for (const product of products ?? [])
      product.operands.forEach((operand, index) => {
        if (!isTrained(operand.matrix)) return;
        let into = parts.get(operand.matrix);
        if (!into) parts.set(operand.matrix, (into = []));
        into.push(reversed(product, index, gradient));
      });
  }
  return found;
}

/** What the gradient of a product adds to that of one operand: the product of the gradient and the other operand. */
function reversed({ sizes, into, operands }: Product, index: number, gradient: PlannedMatrix): Product {
  const { row, column } = operands[index]!;
  const lost = (Object.keys(sizes) as Index[]).filter((each) => sizes[each] > 1 && !row[each] && !column[each]);
  if (lost.length > 1) throw new TypeError(`the entries of an operand are read over ${lost.join(" and ")}; one alone can be summed up`);
  // What the operand does not depend on is summed up in place of j, and what runs over its entries is not.
  const summed = lost[0] ?? (["c", "r", "n", "j"] as const).find((each) => sizes[each] === 1);
  if (summed === undefined) throw new TypeError("the entries of an operand are read over all four indices; one has to be summed up");
  const swap = (of: Linear): Linear => ({ ...of, j: of[summed] ?? 0, [summed]: of.j ?? 0 });
  const moved = (walk: Walk): Walk => (summed === "j" ? walk : { row: swap(walk.row), column: swap(walk.column) });
  return {
    sizes: { ...sizes, j: sizes[summed], [summed]: sizes.j },
    into: moved({ row, column }),
    operands: [
      { matrix: gradient, ...moved(into) },
      ...operands.toSpliced(index, 1).map(({ matrix, ...walk }) => ({ matrix, ...moved(walk) })),
    ],
  };
}

/** Multiply-adds of all products of matrices that lead to these, each once. */
export function workOf(matrices: Iterable<PlannedMatrix>): number {
  return inOrder(matrices).reduce(
    (sum, { products }) => sum + (products ?? []).reduce((total, product) => total + multiplyAddsOf(product), 0),
    0,
  );
}

function multiplyAddsOf({ sizes: { n, r, c, j }, operands }: Product): number {
  return operands.length > 1 && j > 1 ? n * r * c * j : 0;
}
