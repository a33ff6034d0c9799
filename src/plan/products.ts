import type { Numbers } from "../model/network.js";

/** Indices that run: n (over blocks), r and c over the entries of a result, j over what is summed up. */
export type Index = "n" | "r" | "c" | "j";

/** A row or a column as the sum of multiples of these, and of a constant. */
export type Linear = Partial<Readonly<Record<Index | "first", number>>>;

/** Which entries of a matrix are walked through. */
export interface Walk {
  readonly row: Linear;
  readonly column: Linear;
}

/** How far each runs. */
export type Sizes = Readonly<Record<Index, number>>;

/** How far an index moves through the numbers of a matrix whose rows and columns are so far apart. */
export function strideOf({ row, column }: Walk, index: Index | "first", rowStride: number, columnStride = 1): number {
  return (row[index] ?? 0) * rowStride + (column[index] ?? 0) * columnStride;
}

/** Numbers of a matrix, and which of them are meant. */
interface Walked {
  readonly data: Numbers;
  readonly columns: number;
  readonly walk: Walk;
}

/** into += Σ_j of the product of one or two operands, for all n, r, c; see Product in matrices.ts. In float64. */
export function addProduct(into: Walked, operands: readonly Walked[], sizes: Sizes): void {
  const walks = operands.map(({ data, columns, walk }) => {
    const [first, n, r, c, j] = (["first", "n", "r", "c", "j"] as const).map((index) => strideOf(walk, index, columns));
    return { data, first: first!, n: n!, r: r!, c: c!, j: j! };
  });
  const one = { data: new Float64Array([1]), first: 0, n: 0, r: 0, c: 0, j: 0 };
  // What changes less along a row comes first.
  const [a, b] = [walks[0]!, walks[1] ?? one].sort((one, other) => one.c - other.c) as [typeof one, typeof one];
  const to = { first: 0, n: 0, r: 0, c: 0 };
  for (const index of ["first", "n", "r", "c"] as const) to[index] = strideOf(into.walk, index, into.columns);
  // The inner loop is the one that walks through its operands side by side.
  const isDot = sizes.j > 1 && (sizes.c === 1 || (a.j <= 1 && b.j <= 1));
  const add = isDot ? addDots : a.c === 0 ? addMultiples : addEntries;
  for (let block = 0; block < sizes.n; block++)
    for (let row = 0; row < sizes.r; row++) {
      const [atA, atB, at] = [a, b, to].map(({ first, n, r }) => first + block * n + row * r) as [number, number, number];
      add(into.data, at, to.c, a.data, atA, a, b.data, atB, b, sizes);
    }
}

type Strides = Readonly<Record<"c" | "j", number>>;
type AddRow = (
  data: Numbers,
  to: number,
  step: number,
  left: Numbers,
  atA: number,
  a: Strides,
  right: Numbers,
  atB: number,
  b: Strides,
  sizes: Strides,
) => void;

/** Σ_j a[j] b[j, c] where a is one number for all c, four j at a time: a sum is then read and written for every fourth alone. */
const addMultiples: AddRow = (data, to, step, left, atA, a, right, atB, b, sizes) => {
  const [columns, stride, next] = [sizes.c, b.c, b.j];
  let [j, k] = [0, atB];
  for (; j + 3 < sizes.j; j += 4, k += 4 * next) {
    const [p, q, r, s] = [left[atA + j * a.j]!, left[atA + (j + 1) * a.j]!, left[atA + (j + 2) * a.j]!, left[atA + (j + 3) * a.j]!];
    for (let column = 0, i = k, at = to; column < columns; column++, i += stride, at += step)
      data[at]! += p * right[i]! + q * right[i + next]! + r * right[i + 2 * next]! + s * right[i + 3 * next]!;
  }
  for (; j < sizes.j; j++, k += next) {
    const p = left[atA + j * a.j]!;
    for (let column = 0, i = k, at = to; column < columns; column++, i += stride, at += step) data[at]! += p * right[i]!;
  }
};

/** The same with a[j, c] of b[j, c]. */
const addEntries: AddRow = (data, to, step, left, atA, a, right, atB, b, sizes) => {
  for (let j = 0; j < sizes.j; j++)
    for (let column = 0; column < sizes.c; column++)
      data[to + column * step]! += left[atA + j * a.j + column * a.c]! * right[atB + j * b.j + column * b.c]!;
};

/** The same where j runs along both, four c at a time. */
const addDots: AddRow = (data, to, step, left, atA, a, right, atB, b, sizes) => {
  let column = 0;
  if (a.c === 0)
    for (; column + 3 < sizes.c; column += 4) {
      let [p, q, r, s] = [0, 0, 0, 0];
      const [stride, length] = [b.c, sizes.j];
      for (let j = 0, i = atA, k = atB + column * stride; j < length; j++, i += a.j, k += b.j) {
        const factor = left[i]!;
        p += factor * right[k]!;
        q += factor * right[k + stride]!;
        r += factor * right[k + 2 * stride]!;
        s += factor * right[k + 3 * stride]!;
      }
      const at = to + column * step;
      data[at]! += p;
      data[at + step]! += q;
      data[at + 2 * step]! += r;
      data[at + 3 * step]! += s;
    }
  for (; column < sizes.c; column++) {
    let sum = 0;
    for (let j = 0; j < sizes.j; j++) sum += left[atA + j * a.j + column * a.c]! * right[atB + j * b.j + column * b.c]!;
    data[to + column * step]! += sum;
  }
};
