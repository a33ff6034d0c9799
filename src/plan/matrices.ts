import type { Matrix } from "../model/network.js";

/** A matrix a plan needs: its shape is known at once, its numbers (float64 where they are computed) when first asked for. */
export interface PlannedMatrix {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  build(): Matrix;
}

function planned(name: string, rows: number, columns: number, compute: () => Matrix): PlannedMatrix {
  let built: Matrix | undefined;
  return { name, rows, columns, build: () => (built ??= compute()) };
}

/** A matrix of the network as it is. */
export function lazily(name: string, matrix: Matrix): PlannedMatrix {
  return planned(name, matrix.rows, matrix.columns, () => matrix);
}

export function rowsOf(name: string, rows: number, columns: number, values: () => readonly number[]): PlannedMatrix {
  return planned(name, rows, columns, () => ({ rows, columns, data: Float64Array.from(values()) }));
}

/** Aᵀ: its rows are the columns of A. */
export function transposed(name: string, matrix: Matrix | PlannedMatrix): PlannedMatrix {
  const { rows, columns } = matrix;
  return planned(name, columns, rows, () => {
    const { data } = "build" in matrix ? matrix.build() : matrix;
    const flipped = new (data.constructor as Float64ArrayConstructor)(data.length);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) flipped[column * rows + row] = data[row * columns + column]!;
    return { rows: columns, columns: rows, data: flipped };
  });
}

/** The product A B, in float64. */
export function merge(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  const [rows, inner, columns] = [a.rows, a.columns, b.columns];
  return planned(`${a.name} ${b.name}`, rows, columns, () => {
    const left = a.build().data;
    const right = b.build().data;
    const data = new Float64Array(rows * columns);
    for (let row = 0; row < rows; row++)
      for (let k = 0; k < inner; k++) {
        const factor = left[row * inner + k]!;
        for (let column = 0; column < columns; column++) data[row * columns + column]! += factor * right[k * columns + column]!;
      }
    return { rows, columns, data };
  });
}

/** A ∘ Bᵀ, in float64: tr(D_2 A D_1 B) = d_2ᵀ (A ∘ Bᵀ) d_1 for diagonal D. */
export function diagonalProduct(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  const { rows, columns } = a;
  const name = `${a.name} ∘ (${b.name})ᵀ`;
  return planned(name, rows, columns, () => {
    const left = a.build().data;
    const right = b.build().data;
    const data = new Float64Array(rows * columns);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        data[row * columns + column] = left[row * columns + column]! * right[column * rows + row]!;
    return { rows, columns, data };
  });
}

/** A + B. */
export function sum(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  return planned(`(${a.name} + ${b.name})`, a.rows, a.columns, () => {
    const right = b.build().data;
    return { rows: a.rows, columns: a.columns, data: Float64Array.from(a.build().data, (value, index) => value + right[index]!) };
  });
}

/** A diag(d): column i times d_i, for a row d [1, columns]. */
export function scaleColumns(a: PlannedMatrix, d: PlannedMatrix): PlannedMatrix {
  const { rows, columns } = a;
  return planned(`${a.name} ${d.name}`, rows, columns, () => {
    const factors = d.build().data;
    return { rows, columns, data: Float64Array.from(a.build().data, (value, index) => value * factors[index % columns]!) };
  });
}

/** Σ_i A[k,i] B[k,i] as a column [rows, 1]. */
export function rowDots(a: PlannedMatrix, b: PlannedMatrix): PlannedMatrix {
  return rowsOf(`rows of ${a.name} times ${b.name}`, a.rows, 1, () => {
    const [left, right] = [a.build().data, b.build().data];
    return Array.from({ length: a.rows }, (_, row) => {
      let dot = 0;
      for (let i = row * a.columns; i < (row + 1) * a.columns; i++) dot += left[i]! * right[i]!;
      return dot;
    });
  });
}

/** The diagonal as a column [n, 1]. */
export function diagonalColumn(matrix: PlannedMatrix): PlannedMatrix {
  return rowsOf(`diagonal of ${matrix.name}`, matrix.rows, 1, () => {
    const { data, columns } = matrix.build();
    return Array.from({ length: matrix.rows }, (_, index) => data[index * columns + index]!);
  });
}

/** The same numbers in another shape. */
export function reshaped(matrix: PlannedMatrix, rows: number, columns: number): PlannedMatrix {
  return planned(matrix.name, rows, columns, () => ({ rows, columns, data: matrix.build().data }));
}

export function ones(rows: number, columns: number): PlannedMatrix {
  return rowsOf("ones", rows, columns, () => Array.from({ length: rows * columns }, () => 1));
}

export function zeros(rows: number, columns: number): PlannedMatrix {
  return rowsOf("zeros", rows, columns, () => Array.from({ length: rows * columns }, () => 0));
}

export function identity(n: number): PlannedMatrix {
  return rowsOf("identity", n, n, () => Array.from({ length: n * n }, (_, index) => (index % (n + 1) === 0 ? 1 : 0)));
}

/** Sums over a matrix as one row: of each row, of each column, or of everything. */
export function sums(matrix: PlannedMatrix, along: "rows" | "columns" | "all"): PlannedMatrix {
  const { name, rows, columns } = matrix;
  const width = along === "rows" ? rows : along === "columns" ? columns : 1;
  return rowsOf(`sums of ${along} of ${name}`, 1, width, () => {
    const { data } = matrix.build();
    const totals = Array.from({ length: width }, () => 0);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        totals[along === "rows" ? row : along === "columns" ? column : 0]! += data[row * columns + column]!;
    return totals;
  });
}
