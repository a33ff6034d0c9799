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

/** [A | B], side by side; A alone where B is null. */
export function concatenated(name: string, a: Matrix, b: Matrix | null): PlannedMatrix {
  if (!b) return lazily(name, a);
  const columns = a.columns + b.columns;
  return planned(`${name} with context`, a.rows, columns, () => {
    const data = new (a.data.constructor as Float64ArrayConstructor)(a.rows * columns);
    for (let row = 0; row < a.rows; row++) {
      data.set(a.data.subarray(row * a.columns, (row + 1) * a.columns), row * columns);
      data.set(b.data.subarray(row * b.columns, (row + 1) * b.columns), row * columns + a.columns);
    }
    return { rows: a.rows, columns, data };
  });
}
