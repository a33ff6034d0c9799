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

/** One matrix for each of `times` parts of the input, which are read in turn: I ⊗ matrix. */
export interface Dense {
  readonly kind: "dense";
  readonly matrix: Matrix;
  readonly times: number;
}

export type LinearMap = Pick | Dense;

export function rowsOf(map: LinearMap): number {
  return map.kind === "pick" ? map.indices.length : map.times * map.matrix.rows;
}

export function dense(matrix: Matrix, times = 1): Dense {
  return { kind: "dense", matrix, times };
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
    const part = partOf(inner, outer.times);
    return part
      ? dense(scatterColumns(outer.matrix, part, 1, budget), outer.times)
      : dense(scatterColumns(outer.matrix, inner, outer.times, budget));
  }
  if (inner.kind === "dense") {
    const part = partOf(outer, inner.times);
    return part ? dense(pickRows(inner.matrix, part, 1, budget), inner.times) : dense(pickRows(inner.matrix, outer, inner.times, budget));
  }
  budget.take(outer.indices.length);
  const indices = outer.indices.map((index) => (index < 0 ? -1 : inner.indices[index]!));
  if (!outer.factors && !inner.factors) return { kind: "pick", columns: inner.columns, indices, factors: null };
  const factors = new Float64Array(budget.taken(indices.length));
  outer.indices.forEach((index, i) => (factors[i] = index < 0 ? 0 : (outer.factors?.[i] ?? 1) * (inner.factors?.[index] ?? 1)));
  return { kind: "pick", columns: inner.columns, indices, factors: isOnes(factors, indices) ? null : factors };
}

/** What picks do to parts, by how many parts there are: a pick is asked again and again while a graph is simplified. */
const parts = new WeakMap<Pick, Map<number, Pick | null>>();

/** What a pick does to each of as many parts, where it does the same to all; else null. */
function partOf(pick: Pick, times: number): Pick | null {
  if (times === 1 || pick.columns % times !== 0 || pick.indices.length % times !== 0) return null;
  let known = parts.get(pick);
  if (!known) parts.set(pick, (known = new Map()));
  let part = known.get(times);
  if (part === undefined) known.set(times, (part = findPart(pick, times)));
  return part;
}

function findPart({ columns, indices, factors }: Pick, times: number): Pick | null {
  const [rows, width] = [indices.length / times, columns / times];
  const isAlike = indices.every((index, i) => {
    const [first, part] = [indices[i % rows]!, Math.floor(i / rows)];
    if (first >= width || factors?.[i] !== factors?.[i % rows]) return false;
    return index === (first < 0 ? -1 : first + part * width);
  });
  return isAlike ? { kind: "pick", columns: width, indices: indices.slice(0, rows), factors: factors?.slice(0, rows) ?? null } : null;
}

/** Whether compose would give more numbers than both maps have together with all parts of a dense one written down. */
export function grows(outer: LinearMap, inner: LinearMap): boolean {
  const [map, pick] = outer.kind === "dense" ? [outer, inner] : [inner, outer];
  if (map.kind !== "dense" || pick.kind !== "pick" || map.times === 1 || partOf(pick, map.times)) return false;
  const columns = inner.kind === "pick" ? inner.columns : inner.times * inner.matrix.columns;
  return rowsOf(outer) * columns > map.times * map.matrix.data.length;
}

/** Whether the sum of two maps is no more than the larger: of two picks only where no output then reads two inputs. */
export function canAdd(a: LinearMap, b: LinearMap): boolean {
  if (a.kind === "pick" && b.kind === "pick")
    return a.indices.every((index, i) => index < 0 || b.indices[i]! < 0 || index === b.indices[i]);
  const times = a.kind === "dense" ? a.times : (b as Dense).times;
  return [a, b].every((map) => times === 1 || (map.kind === "dense" ? map.times === times : partOf(map, times) !== null));
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
  const times = canAdd(a, b) ? (a.kind === "dense" ? a.times : (b as Dense).times) : 1;
  const matrixOf = (map: LinearMap): Matrix =>
    times === 1 ? toMatrix(map, budget) : map.kind === "dense" ? map.matrix : toMatrix(partOf(map, times)!, budget);
  const [left, right] = [matrixOf(a), matrixOf(b)];
  const data = new Float64Array(budget.taken(left.data.length));
  for (let i = 0; i < data.length; i++) data[i] = left.data[i]! + right.data[i]!;
  return dense({ ...left, data }, times);
}

/** map(x), in float64. */
export function applyMap(map: LinearMap, x: ArrayLike<number>, budget: Budget): Float64Array {
  const result = new Float64Array(budget.taken(rowsOf(map)));
  if (map.kind === "pick") {
    map.indices.forEach((index, i) => (result[i] = index < 0 ? 0 : (map.factors?.[i] ?? 1) * x[index]!));
    return result;
  }
  const { rows, columns, data } = map.matrix;
  budget.take(map.times * data.length);
  for (let i = 0; i < result.length; i++) {
    const [row, first] = [i % rows, Math.floor(i / rows) * columns];
    for (let column = 0; column < columns; column++) result[i]! += data[row * columns + column]! * x[first + column]!;
  }
  return result;
}

export function toMatrix(map: LinearMap, budget: Budget): Matrix {
  if (map.kind === "dense") {
    const { matrix, times } = map;
    return times === 1 ? matrix : pickRows(matrix, identityMap(times * matrix.rows, budget), times, budget);
  }
  const { columns, indices, factors } = map;
  const data = emptyLike(factors, indices.length * columns, budget);
  indices.forEach((index, row) => {
    if (index >= 0) data[row * columns + index] = factors?.[row] ?? 1;
  });
  return { rows: indices.length, columns, data };
}

/** (I ⊗ matrix) times a pick, all of it. */
function scatterColumns(
  { rows, columns, data }: Matrix,
  { columns: width, indices, factors }: Pick,
  times: number,
  budget: Budget,
): Matrix {
  const read = indices.filter((index) => index >= 0);
  const isMoved = factors === null && new Set(read).size === read.length;
  const length = times * rows * width;
  const result = isMoved ? emptyLike(data, length, budget) : new Float64Array(budget.taken(length));
  for (let row = 0; row < times * rows; row++) {
    const [from, first] = [(row % rows) * columns, Math.floor(row / rows) * columns];
    for (let column = 0; column < columns; column++) {
      const index = indices[first + column]!;
      if (index >= 0) result[row * width + index]! += data[from + column]! * (factors?.[first + column] ?? 1);
    }
  }
  return { rows: times * rows, columns: width, data: result };
}

/** A pick of the rows of I ⊗ matrix, all of it. */
function pickRows({ rows, columns, data }: Matrix, { indices, factors }: Pick, times: number, budget: Budget): Matrix {
  const width = times * columns;
  const length = indices.length * width;
  const result = factors ? new Float64Array(budget.taken(length)) : emptyLike(data, length, budget);
  indices.forEach((index, row) => {
    if (index < 0) return;
    const factor = factors?.[row] ?? 1;
    const to = row * width + Math.floor(index / rows) * columns;
    for (let column = 0; column < columns; column++) result[to + column] = data[(index % rows) * columns + column]! * factor;
  });
  return { rows: indices.length, columns: width, data: result };
}

/** Numbers that are only moved keep their type; numbers that are computed with become float64. */
function emptyLike(numbers: Numbers | null, length: number, budget: Budget): Numbers {
  const taken = budget.taken(length);
  return numbers instanceof Float32Array || numbers === null ? new Float32Array(taken) : new Float64Array(taken);
}

function isOnes(factors: Numbers | null, indices?: Int32Array): boolean {
  return factors?.every((factor, i) => factor === 1 || (indices?.[i] ?? 0) < 0) ?? true;
}
