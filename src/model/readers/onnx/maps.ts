import type { Matrix, Numbers } from "../../network.js";
import type { Budget } from "./budget.js";

/**
 * A linear map whose every output reads at most one input: out[i] = factors[i] · in[indices[i]], or 0 where the index is -1.
 * Slices, gathers, concatenations, broadcasts and diagonal scalings are such maps, and so are their compositions.
 */
export interface Pick {
  readonly kind: "pick";
  readonly columns: number;
  readonly indices: Int32Array;
  /** null where all of them are 1. */
  readonly factors: Numbers | null;
}

export interface Dense {
  readonly kind: "dense";
  readonly matrix: Matrix;
}

export type LinearMap = Pick | Dense;

export function rowsOf(map: LinearMap): number {
  return map.kind === "pick" ? map.indices.length : map.matrix.rows;
}

export function identityMap(width: number, budget: Budget, factors: Numbers | null = null): Pick {
  const indices = new Int32Array(budget.taken(width));
  for (let i = 0; i < width; i++) indices[i] = i;
  return { kind: "pick", columns: width, indices, factors: isOnes(factors) ? null : factors };
}

/** Whether output i reads input i alone, with whatever factor. */
export function isDiagonalMap(map: LinearMap): map is Pick {
  return map.kind === "pick" && map.columns === map.indices.length && map.indices.every((index, i) => index === i);
}

export function isIdentityMap(map: LinearMap): boolean {
  return isDiagonalMap(map) && map.factors === null;
}

export function isEmptyMap(map: LinearMap): boolean {
  return map.kind === "pick" && map.indices.every((index) => index < 0);
}

/** The number of outputs that read something. */
export function countPicked(map: Pick): number {
  return map.indices.reduce((count, index) => count + (index >= 0 ? 1 : 0), 0);
}

/** The map of outer(inner(x)). Of two dense maps there is none: their product may be far larger than both. */
export function compose(outer: LinearMap, inner: LinearMap, budget: Budget): LinearMap {
  if (isIdentityMap(outer)) return inner;
  if (isIdentityMap(inner)) return outer;
  if (outer.kind === "dense") {
    if (inner.kind === "dense") throw new Error("two dense maps are never composed");
    return { kind: "dense", matrix: scatterColumns(outer.matrix, inner, budget) };
  }
  if (inner.kind === "dense") return { kind: "dense", matrix: pickRows(inner.matrix, outer, budget) };
  budget.take(outer.indices.length);
  const indices = outer.indices.map((index) => (index < 0 ? -1 : inner.indices[index]!));
  if (!outer.factors && !inner.factors) return { kind: "pick", columns: inner.columns, indices, factors: null };
  const factors = new Float64Array(budget.taken(indices.length));
  outer.indices.forEach((index, i) => (factors[i] = index < 0 ? 0 : (outer.factors?.[i] ?? 1) * (inner.factors?.[index] ?? 1)));
  return { kind: "pick", columns: inner.columns, indices, factors: isOnes(factors, indices) ? null : factors };
}

/** Whether the sum of two maps is no more than the larger: of two picks only where no output then reads two inputs. */
export function canAdd(a: LinearMap, b: LinearMap): boolean {
  return (
    a.kind === "dense" || b.kind === "dense" || a.indices.every((index, i) => index < 0 || b.indices[i]! < 0 || index === b.indices[i])
  );
}

/** The map of a(x) + b(x). */
export function addMaps(a: LinearMap, b: LinearMap, budget: Budget): LinearMap {
  if (a.kind === "pick" && b.kind === "pick" && canAdd(a, b)) {
    budget.take(a.indices.length);
    const indices = a.indices.map((index, i) => Math.max(index, b.indices[i]!));
    const part = (map: Pick, i: number): number => (map.indices[i]! < 0 ? 0 : (map.factors?.[i] ?? 1));
    const factors = new Float64Array(budget.taken(indices.length));
    for (let i = 0; i < factors.length; i++) factors[i] = part(a, i) + part(b, i);
    return { kind: "pick", columns: a.columns, indices, factors: isOnes(factors, indices) ? null : factors };
  }
  const left = toMatrix(a, budget);
  const right = toMatrix(b, budget);
  const data = new Float64Array(budget.taken(left.data.length));
  for (let i = 0; i < data.length; i++) data[i] = left.data[i]! + right.data[i]!;
  return { kind: "dense", matrix: { ...left, data } };
}

/** map(x), in float64. */
export function applyMap(map: LinearMap, x: ArrayLike<number>, budget: Budget): Float64Array {
  const result = new Float64Array(budget.taken(rowsOf(map)));
  if (map.kind === "pick") {
    map.indices.forEach((index, i) => (result[i] = index < 0 ? 0 : (map.factors?.[i] ?? 1) * x[index]!));
    return result;
  }
  const { rows, columns, data } = map.matrix;
  budget.take(data.length);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) result[row]! += data[row * columns + column]! * x[column]!;
  return result;
}

export function toMatrix(map: LinearMap, budget: Budget): Matrix {
  if (map.kind === "dense") return map.matrix;
  const { columns, indices, factors } = map;
  const data = emptyLike(factors, indices.length * columns, budget);
  indices.forEach((index, row) => {
    if (index >= 0) data[row * columns + index] = factors?.[row] ?? 1;
  });
  return { rows: indices.length, columns, data };
}

function scatterColumns({ rows, columns, data }: Matrix, { columns: width, indices, factors }: Pick, budget: Budget): Matrix {
  const read = indices.filter((index) => index >= 0);
  const isMoved = factors === null && new Set(read).size === read.length;
  const result = isMoved ? emptyLike(data, rows * width, budget) : new Float64Array(budget.taken(rows * width));
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const index = indices[column]!;
      if (index >= 0) result[row * width + index]! += data[row * columns + column]! * (factors?.[column] ?? 1);
    }
  return { rows, columns: width, data: result };
}

function pickRows({ columns, data }: Matrix, { indices, factors }: Pick, budget: Budget): Matrix {
  const result = factors ? new Float64Array(budget.taken(indices.length * columns)) : emptyLike(data, indices.length * columns, budget);
  indices.forEach((index, row) => {
    if (index < 0) return;
    const factor = factors?.[row] ?? 1;
    for (let column = 0; column < columns; column++) result[row * columns + column] = data[index * columns + column]! * factor;
  });
  return { rows: indices.length, columns, data: result };
}

/** Numbers that are only moved keep their type; numbers that are computed with become float64. */
function emptyLike(numbers: Numbers | null, length: number, budget: Budget): Numbers {
  const taken = budget.taken(length);
  return numbers instanceof Float32Array || numbers === null ? new Float32Array(taken) : new Float64Array(taken);
}

function isOnes(factors: Numbers | null, indices?: Int32Array): boolean {
  return factors?.every((factor, i) => factor === 1 || (indices?.[i] ?? 0) < 0) ?? true;
}
