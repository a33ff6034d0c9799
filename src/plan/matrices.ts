import type { Matrix } from "../model/network.js";

/**
 * A matrix a plan needs: its shape is known at once, its numbers (float64 where they are computed) when first asked for.
 * What is made out of the same operands in the same way is the same object, so that it is computed and uploaded once.
 */
export interface PlannedMatrix {
  /** For people alone. */
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** Whether it is a product or a sum of others, computed on the host. */
  readonly isMerged: boolean;
  /** Whether all its numbers are known to be 1. */
  readonly isOnes: boolean;
  /** d [1, n] of diag(d) [n, n]; null where it is not known to be diagonal. Only what must have all of it builds n x n numbers. */
  readonly diagonal: PlannedMatrix | null;
  /** Of a block-diagonal matrix the blocks, beneath one another in one matrix as wide as a block; null where it is not known to be one. */
  readonly blocks: PlannedMatrix | null;
  /** Where its numbers stand in the network, of a weight or a bias as it is; null for what is computed or constant. */
  readonly place: MatrixPlace | null;
  /** Multiply-adds that computing it from its operands takes, where it is a product; else 0. */
  readonly work: number;
  /** What it is computed of, and how a gradient of it becomes gradients of those; null where it is computed of nothing. */
  readonly origin: Origin | null;
  build(): Matrix;
  /** Gives a weight or a bias other numbers; what is computed of it follows when it is next built. */
  replace(matrix: Matrix): void;
}

/** An operation of the network, and which of its terms' weights, or its bias. */
export interface MatrixPlace {
  readonly operation: number;
  readonly part: number | "bias";
}

interface Origin {
  readonly operands: readonly PlannedMatrix[];
  /** From the gradient of the result to those of the operands, in their order; none of what only gradients are made of. */
  readonly pullBack: (gradient: PlannedMatrix) => readonly PlannedMatrix[];
}

/** The numbers that a matrix is given by: all, or those of its blocks. */
export function sizeOf({ rows, columns, blocks }: PlannedMatrix): number {
  return blocks ? blocks.rows * blocks.columns : rows * columns;
}

/** [rows, columns] of a diagonal block; of the matrix itself where it has none. */
export function blockShape({ rows, columns, blocks }: PlannedMatrix): readonly [number, number] {
  return blocks ? [rows / (columns / blocks.columns), blocks.columns] : [rows, columns];
}

interface Properties {
  readonly isMerged?: boolean;
  readonly isOnes?: boolean;
  readonly diagonal?: PlannedMatrix;
  readonly blocks?: PlannedMatrix;
  readonly place?: MatrixPlace;
  readonly origin?: Origin;
  readonly work?: number;
}

/** How often numbers were replaced, of any matrix: what was built before is built anew. */
let replacements = 0;

function planned(
  name: string,
  rows: number,
  columns: number,
  compute: () => Matrix,
  { isMerged = false, isOnes = false, diagonal = null!, blocks = null!, place = null!, origin = null!, work = 0 }: Properties = {},
): PlannedMatrix {
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
  return { name, rows, columns, isMerged, isOnes, diagonal, blocks, place, work, origin, build, replace };
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
export function lazily(name: string, matrix: Matrix, place?: MatrixPlace): PlannedMatrix {
  return planned(name, matrix.rows, matrix.columns, () => matrix, place && { place });
}

/** A row [1, n]. */
export function rowOf(name: string, values: ArrayLike<number>, place?: MatrixPlace): PlannedMatrix {
  const build = (): Matrix => ({ rows: 1, columns: values.length, data: Float64Array.from(values) });
  return planned(name, 1, values.length, build, place && { place });
}

function computed(
  name: string,
  rows: number,
  columns: number,
  fill: (data: Float64Array<ArrayBuffer>) => void,
  properties?: Properties,
): PlannedMatrix {
  const compute = (): Matrix => {
    const data = new Float64Array(rows * columns);
    fill(data);
    return { rows, columns, data };
  };
  return planned(name, rows, columns, compute, properties);
}

/** I ⊗ A, [times rows, times columns]. */
export function repeated(a: PlannedMatrix, times: number): PlannedMatrix {
  const { rows, columns } = a;
  const fill = (data: Float64Array): void => {
    const numbers = a.build().data;
    for (let n = 0; n < times; n++) data.set(numbers, n * numbers.length);
  };
  const pullBack = (gradient: PlannedMatrix): PlannedMatrix[] => [sumOfParts(gradient, times)];
  return blockDiagonal(computed(a.name, times * rows, columns, fill, { origin: { operands: [a], pullBack } }), times);
}

/** The sum of as many matrices that lie beneath one another. */
function sumOfParts(a: PlannedMatrix, times: number): PlannedMatrix {
  const size = (a.rows / times) * a.columns;
  const fill = (data: Float64Array): void => a.build().data.forEach((value, index) => (data[index % size]! += value));
  return computed(`parts of ${a.name}`, a.rows / times, a.columns, fill, { origin: { operands: [a], pullBack: () => [] } });
}

/** The matrix with these blocks, which lie beneath one another. */
function blockDiagonal(blocks: PlannedMatrix, count: number): PlannedMatrix {
  const [rows, width, columns] = [blocks.rows, blocks.columns, count * blocks.columns];
  const fill = (data: Float64Array): void => {
    const numbers = blocks.build().data;
    for (let row = 0; row < rows; row++)
      data.set(numbers.subarray(row * width, (row + 1) * width), row * columns + Math.floor((row * count) / rows) * width);
  };
  const { name, isMerged } = blocks;
  const origin = { operands: [blocks], pullBack: (gradient: PlannedMatrix) => [blocksOf(gradient, count)] };
  return once(`block diagonal ${count}`, [blocks], () => computed(name, rows, columns, fill, { blocks, isMerged, origin }));
}

/** The diagonal blocks of a matrix, beneath one another. */
function blocksOf(a: PlannedMatrix, count: number): PlannedMatrix {
  if (a.blocks && a.columns === count * a.blocks.columns) return a.blocks;
  const [height, width] = [a.rows / count, a.columns / count];
  const fill = (data: Float64Array): void => {
    const numbers = a.build().data;
    for (let row = 0; row < a.rows; row++) {
      const from = row * a.columns + Math.floor(row / height) * width;
      data.set(numbers.subarray(from, from + width), row * width);
    }
  };
  return computed(`blocks of ${a.name}`, a.rows, width, fill, { origin: { operands: [a], pullBack: () => [] } });
}

/** How many blocks two matrices have, where both have as many; 0 otherwise. */
function commonBlocks(a: PlannedMatrix, b: PlannedMatrix): number {
  const [first, second] = [a, b].map(({ columns, blocks }) => (blocks ? columns / blocks.columns : 0));
  return first === second ? first! : 0;
}

/** Aᵀ: its rows are the columns of A. */
export function transposed(a: PlannedMatrix): PlannedMatrix {
  if (a.diagonal) return a;
  if (a.blocks) return blockDiagonal(transposedBlocks(a.blocks, a.columns / a.blocks.columns), a.columns / a.blocks.columns);
  return once("transposed", [a], () => {
    const { rows, columns } = a;
    const flip = (): Matrix => {
      const { data } = a.build();
      const flipped = new (data.constructor as Float64ArrayConstructor)(data.length);
      for (let row = 0; row < rows; row++)
        for (let column = 0; column < columns; column++) flipped[column * rows + row] = data[row * columns + column]!;
      return { rows: columns, columns: rows, data: flipped };
    };
    const origin = { operands: [a], pullBack: (gradient: PlannedMatrix) => [transposed(gradient)] };
    return planned(`columns of ${a.name}`, columns, rows, flip, { origin });
  });
}

/** Each block of as many on its own. */
function transposedBlocks(a: PlannedMatrix, count: number): PlannedMatrix {
  const [rows, columns] = [a.rows / count, a.columns];
  const fill = (data: Float64Array): void =>
    a.build().data.forEach((value, index) => {
      const [row, column] = [Math.floor(index / columns), index % columns];
      data[(Math.floor(row / rows) * columns + column) * rows + (row % rows)] = value;
    });
  const origin = { operands: [a], pullBack: (gradient: PlannedMatrix) => [transposedBlocks(gradient, count)] };
  return once(`transposed blocks ${count}`, [a], () => computed(`columns of ${a.name}`, count * columns, rows, fill, { origin }));
}

/** The product A B, in float64. */
export function merge(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  if (a.diagonal) return scaleRows(b, a.diagonal);
  if (b.diagonal) return scaleColumns(a, b.diagonal);
  const count = commonBlocks(a, b);
  return count ? blockDiagonal(mergedBlocks(a.blocks!, b.blocks!, count), count) : mergedBlocks(a, b, 1);
}

/** The product of each block of A and that of B. */
function mergedBlocks(a: PlannedMatrix, b: PlannedMatrix, count: number): PlannedMatrix {
  const [rows, inner, columns] = [a.rows, a.columns, b.columns];
  const fill = (data: Float64Array): void => {
    const left = a.build().data;
    const right = b.build().data;
    for (let row = 0; row < rows; row++) {
      const [from, to] = [row * inner, row * columns];
      let at = Math.floor((row * count) / rows) * inner * columns;
      let k = 0;
      // Four rows of B at a time: a sum is then read and written for every fourth product alone, which halves the time.
      for (; k + 3 < inner; k += 4, at += 4 * columns) {
        const [a, b, c, d] = [left[from + k]!, left[from + k + 1]!, left[from + k + 2]!, left[from + k + 3]!];
        for (let i = 0; i < columns; i++)
          data[to + i]! +=
            a * right[at + i]! + b * right[at + columns + i]! + c * right[at + 2 * columns + i]! + d * right[at + 3 * columns + i]!;
      }
      for (; k < inner; k++, at += columns) for (let i = 0; i < columns; i++) data[to + i]! += left[from + k]! * right[at + i]!;
    }
  };
  // G Bᵀ and Aᵀ G.
  const pullBack = (gradient: PlannedMatrix): PlannedMatrix[] => [
    mergedBlocks(gradient, transposedBlocks(b, count), count),
    mergedBlocks(transposedBlocks(a, count), gradient, count),
  ];
  const properties = { isMerged: true, origin: { operands: [a, b], pullBack }, work: rows * inner * columns };
  return once(`merge ${count}`, [a, b], () => computed(`${a.name} ${b.name}`, rows, columns, fill, properties));
}

/** A ∘ Bᵀ, in float64: tr(D_2 A D_1 B) = d_2ᵀ (A ∘ Bᵀ) d_1 for diagonal D. */
export function diagonalProduct(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  const count = commonBlocks(a, b);
  return count ? blockDiagonal(productOfBlocks(a.blocks!, b.blocks!, count), count) : productOfBlocks(a, b, 1);
}

/** The same of each block of A and that of B. */
function productOfBlocks(a: PlannedMatrix, b: PlannedMatrix, count: number): PlannedMatrix {
  const { rows, columns } = a;
  const height = rows / count;
  const fill = (data: Float64Array): void => {
    const left = a.build().data;
    const right = b.build().data;
    for (let row = 0; row < rows; row++) {
      const first = Math.floor(row / height) * columns;
      for (let column = 0; column < columns; column++)
        data[row * columns + column] = left[row * columns + column]! * right[(first + column) * height + (row % height)]!;
    }
  };
  // G ∘ Bᵀ and (G ∘ A)ᵀ = Gᵀ ∘ Aᵀ.
  const pullBack = (gradient: PlannedMatrix): PlannedMatrix[] => [
    productOfBlocks(gradient, b, count),
    productOfBlocks(transposedBlocks(gradient, count), a, count),
  ];
  const properties = { isMerged: true, origin: { operands: [a, b], pullBack } };
  return once(`diagonal product ${count}`, [a, b], () => computed(`${a.name} ∘ (${b.name})ᵀ`, rows, columns, fill, properties));
}

/** A + B. */
export function sum(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  if (a.diagonal && b.diagonal) return diagonalMatrix(sum(a.diagonal, b.diagonal));
  const count = commonBlocks(a, b);
  if (count) return blockDiagonal(sum(a.blocks!, b.blocks!), count);
  const fill = (data: Float64Array): void => {
    const [left, right] = [a.build().data, b.build().data];
    for (let index = 0; index < data.length; index++) data[index] = left[index]! + right[index]!;
  };
  const origin = { operands: [a, b], pullBack: (gradient: PlannedMatrix) => [gradient, gradient] };
  return once("sum", [a, b], () => computed(`(${a.name} + ${b.name})`, a.rows, a.columns, fill, { isMerged: true, origin }));
}

/** A diag(d): column i times d_i, for a row d [1, columns]. */
export function scaleColumns(a: PlannedMatrix, d: PlannedMatrix): PlannedMatrix {
  if (d.isOnes) return a;
  if (a.isOnes && a.rows === 1) return d;
  if (a.diagonal) return diagonalMatrix(scaleColumns(a.diagonal, d));
  const fill = (data: Float64Array): void => {
    const [numbers, factors] = [a.build().data, d.build().data];
    for (let index = 0; index < data.length; index++) data[index] = numbers[index]! * factors[index % a.columns]!;
  };
  const pullBack = (gradient: PlannedMatrix): PlannedMatrix[] => [
    scaleColumns(gradient, d),
    reshaped(rowDots(transposed(gradient), transposed(a)), 1, a.columns),
  ];
  const properties = { isMerged: true, origin: { operands: [a, d], pullBack } };
  return once("scale columns", [a, d], () => computed(`${a.name} ${d.name}`, a.rows, a.columns, fill, properties));
}

/** diag(d) A: row i times d_i, for a row d [1, rows]. */
export function scaleRows(a: PlannedMatrix, d: PlannedMatrix): PlannedMatrix {
  if (d.isOnes) return a;
  if (a.diagonal) return diagonalMatrix(scaleColumns(d, a.diagonal));
  if (a.blocks) return blockDiagonal(scaleRows(a.blocks, d), a.columns / a.blocks.columns);
  const fill = (data: Float64Array): void => {
    const [numbers, factors] = [a.build().data, d.build().data];
    for (let index = 0; index < data.length; index++) data[index] = numbers[index]! * factors[Math.floor(index / a.columns)]!;
  };
  const pullBack = (gradient: PlannedMatrix): PlannedMatrix[] => [scaleRows(gradient, d), reshaped(rowDots(gradient, a), 1, a.rows)];
  const properties = { isMerged: true, origin: { operands: [a, d], pullBack } };
  return once("scale rows", [a, d], () => computed(`${d.name} ${a.name}`, a.rows, a.columns, fill, properties));
}

/** Σ_i A[k,i] B[k,i] as a column [rows, 1]. */
export function rowDots(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  if (a.diagonal && b.diagonal) return reshaped(scaleColumns(a.diagonal, b.diagonal), a.rows, 1);
  if (a.diagonal || b.diagonal) {
    const [d, other] = a.diagonal ? [a.diagonal, b] : [b.diagonal!, a];
    return reshaped(scaleColumns(reshaped(diagonalColumn(other), 1, a.rows), d), a.rows, 1);
  }
  const fill = (data: Float64Array): void => {
    const [left, right] = [a.build().data, b.build().data];
    for (let row = 0; row < a.rows; row++) for (let i = row * a.columns; i < (row + 1) * a.columns; i++) data[row]! += left[i]! * right[i]!;
  };
  const pullBack = (gradient: PlannedMatrix): PlannedMatrix[] => [b, a].map((other) => scaleRows(other, reshaped(gradient, 1, a.rows)));
  const origin = { operands: [a, b], pullBack };
  return once("row dots", [a, b], () => computed(`rows of ${a.name} times ${b.name}`, a.rows, 1, fill, { origin }));
}

/** The diagonal as a column [n, 1]. */
export function diagonalColumn(a: PlannedMatrix): PlannedMatrix {
  if (a.diagonal) return reshaped(a.diagonal, a.rows, 1);
  const fill = (data: Float64Array): void => {
    const { data: numbers } = a.build();
    for (let index = 0; index < data.length; index++) data[index] = numbers[index * a.columns + index]!;
  };
  const origin = { operands: [a], pullBack: (gradient: PlannedMatrix) => [diagonalMatrix(reshaped(gradient, 1, a.rows))] };
  return once("diagonal column", [a], () => computed(`diagonal of ${a.name}`, a.rows, 1, fill, { origin }));
}

/** The same numbers in another shape. */
export function reshaped(a: PlannedMatrix, rows: number, columns: number): PlannedMatrix {
  if (a.rows === rows && a.columns === columns) return a;
  const reshape = (): Matrix => ({ rows, columns, data: a.build().data });
  const origin = { operands: [a], pullBack: (gradient: PlannedMatrix) => [reshaped(gradient, a.rows, a.columns)] };
  return once(`reshaped ${rows} ${columns}`, [a], () => planned(a.name, rows, columns, reshape, { isOnes: a.isOnes, origin }));
}

export function ones(rows: number, columns: number): PlannedMatrix {
  return once(`ones ${rows} ${columns}`, [], () => computed("ones", rows, columns, (data) => data.fill(1), { isOnes: true }));
}

export function zeros(rows: number, columns: number): PlannedMatrix {
  return once(`zeros ${rows} ${columns}`, [], () => computed("zeros", rows, columns, () => undefined));
}

export function identity(n: number): PlannedMatrix {
  return diagonalMatrix(ones(1, n));
}

/** diag(d) for a row d [1, n]. */
function diagonalMatrix(d: PlannedMatrix): PlannedMatrix {
  const n = d.columns;
  const fill = (data: Float64Array): void => d.build().data.forEach((value, index) => (data[index * (n + 1)] = value));
  const origin = { operands: [d], pullBack: (gradient: PlannedMatrix) => [reshaped(diagonalColumn(gradient), 1, n)] };
  return once("diagonal matrix", [d], () => computed(d.isOnes ? "identity" : `diag(${d.name})`, n, n, fill, { diagonal: d, origin }));
}

/** Sums over a matrix as one row: of each row, of each column, or of everything. */
export function sums(a: PlannedMatrix, along: "rows" | "columns" | "all"): PlannedMatrix {
  const { rows, columns } = a;
  const width = along === "rows" ? rows : along === "columns" ? columns : 1;
  const fill = (totals: Float64Array): void => {
    const { data } = a.build();
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        totals[along === "rows" ? row : along === "columns" ? column : 0]! += data[row * columns + column]!;
  };
  const pullBack = (gradient: PlannedMatrix): PlannedMatrix[] => {
    if (along === "rows") return [scaleRows(ones(rows, columns), gradient)];
    if (along === "columns") return [scaleColumns(ones(rows, columns), gradient)];
    return [merge(merge(ones(rows, 1), gradient), ones(1, columns))];
  };
  const origin = { operands: [a], pullBack };
  return once(`sums of ${along}`, [a], () => computed(`sums of ${along} of ${a.name}`, 1, width, fill, { origin }));
}

/** Whether its numbers depend on the network's: a gradient of it means something. */
export function isTrained({ place, origin }: PlannedMatrix): boolean {
  return place !== null || (origin !== null && origin.operands.some(isTrained));
}

/**
 * From gradients of planned matrices to those of the weights and biases that they are computed of: reverse mode over the matrices.
 *
 * @param gradients by the matrix, which may be computed or a weight itself
 */
export function pullBack(gradients: ReadonlyMap<PlannedMatrix, PlannedMatrix>): Map<PlannedMatrix, PlannedMatrix> {
  const order: PlannedMatrix[] = [];
  const seen = new Set<PlannedMatrix>();
  const visit = (matrix: PlannedMatrix): void => {
    if (seen.has(matrix)) return;
    seen.add(matrix);
    matrix.origin?.operands.forEach(visit);
    order.push(matrix);
  };
  for (const matrix of gradients.keys()) visit(matrix);
  const sums = new Map(gradients);
  for (const matrix of order.toReversed()) {
    const gradient = sums.get(matrix);
    if (!gradient || !matrix.origin) continue;
    const { operands } = matrix.origin;
    for (const [index, part] of matrix.origin.pullBack(gradient).entries()) {
      const operand = operands[index]!;
      if (!isTrained(operand)) continue;
      const before = sums.get(operand);
      sums.set(operand, before ? sum(before, part) : part);
    }
  }
  return new Map([...sums].filter(([matrix]) => matrix.place !== null));
}

/** Multiply-adds of all products that lead to these matrices, each once. */
export function workOf(matrices: Iterable<PlannedMatrix>): number {
  const seen = new Set<PlannedMatrix>();
  let total = 0;
  const visit = (matrix: PlannedMatrix): void => {
    if (seen.has(matrix)) return;
    seen.add(matrix);
    total += matrix.work;
    matrix.origin?.operands.forEach(visit);
  };
  for (const matrix of matrices) visit(matrix);
  return total;
}
