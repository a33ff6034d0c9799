import { zeros, type PlannedMatrix, type Product } from "../plan/matrices.js";
import { strideOf, type Walk } from "../plan/products.js";
import { asRows, onesRow, quads, type ChunkRecorder } from "./recorder.js";
import type { Binding } from "./steps.js";

/** Where a matrix lies: entry (i, j) is float first + i rowStride + j columnStride of the buffer. */
export interface Lying {
  readonly binding: Binding;
  readonly first: number;
  readonly rowStride: number;
  readonly columnStride: number;
}

type Recorder = Pick<ChunkRecorder, "add" | "scratch">;

/** Rows one after another, `pitch` floats apart. */
export function inRows(binding: Binding, pitch: number, first = 0): Lying {
  return { binding, first, rowStride: pitch, columnStride: 1 };
}

/** A matrix of the network, or what the host has made of them. */
export function uploaded(matrix: PlannedMatrix): Lying {
  return inRows(asRows(matrix), 4 * quads(matrix.columns));
}

/** into (+)= Σ_j of the product of one or two operands, for all n, r, c. */
export function multiply(
  chunk: Recorder,
  label: string,
  { sizes, into: walk }: Pick<Product, "sizes" | "into">,
  into: Lying,
  operands: readonly (Walk & { readonly lying: Lying })[],
  adds: boolean,
): void {
  const one = { row: {}, column: {}, lying: uploaded(onesRow(1)) };
  const [first, second] = [operands[0]!, operands[1] ?? one];
  // The kernel is fast where the first knows nothing of c, and the second nothing of r.
  const isTurned = stridesOf(first, first.lying).c !== 0 || stridesOf(second, second.lying).r !== 0;
  const [a, b] = isTurned ? [second, first] : [first, second];
  chunk.add({
    label,
    kernel: "multiply",
    parameters: {
      ...prefixed("size", sizes),
      ...prefixed("out", stridesOf(walk, into)),
      ...prefixed("a", stridesOf(a, a.lying)),
      ...prefixed("b", stridesOf(b, b.lying)),
      adds: adds ? 1 : 0,
    },
    bindings: { a: a.lying.binding, b: b.lying.binding, out: into.binding },
    invocations: sizes.n * quads(sizes.r) * quads(sizes.c),
    multiplyAdds: sizes.n * sizes.r * sizes.c * sizes.j,
  });
}

function stridesOf(walk: Walk, { first, rowStride, columnStride }: Lying): Record<"first" | "n" | "r" | "c" | "j", number> {
  const stride = (index: "first" | "n" | "r" | "c" | "j"): number => strideOf(walk, index, rowStride, columnStride);
  return { first: first + stride("first"), n: stride("n"), r: stride("r"), c: stride("c"), j: stride("j") };
}

/** Names of parameters, as in aFirst. */
function prefixed(prefix: string, numbers: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(numbers).map(([name, value]) => [prefix + name[0]!.toUpperCase() + name.slice(1), value]));
}

/** Writes the steps that compute planned matrices out of others. */
export class ProductSteps {
  private readonly known = new Map<PlannedMatrix, Lying>();

  /** @param given where what is there already lies; null for what has to be computed. */
  constructor(
    private readonly chunk: Recorder,
    private readonly given: (matrix: PlannedMatrix) => Lying | null,
  ) {}

  write({ name, rows, columns, products }: PlannedMatrix, into: Lying): void {
    const [{ sizes } = { sizes: null }] = products!;
    // Where the first product does not write all of them, the others begin at 0.
    const isWhole = sizes !== null && sizes.n * sizes.r * sizes.c === rows * columns;
    if (!isWhole) fill(this.chunk, name, rows, columns, into);
    products!.forEach((product, index) => {
      const operands = product.operands.map(({ matrix, ...walk }) => ({ ...walk, lying: this.where(matrix) }));
      multiply(this.chunk, name, product, into, operands, index > 0 || !isWhole);
    });
  }

  private where(matrix: PlannedMatrix): Lying {
    const there = this.given(matrix) ?? this.known.get(matrix);
    if (there) return there;
    const lying = inRows(this.chunk.scratch(`matrix ${this.known.size}`, matrix.rows * matrix.columns), matrix.columns);
    this.known.set(matrix, lying);
    this.write(matrix, lying);
    return lying;
  }
}

/** Zeros. */
export function fill(chunk: Recorder, label: string, rows: number, columns: number, into: Lying): void {
  const sizes = { n: 1, r: rows, c: columns, j: 1 };
  const nothing = { row: {}, column: {}, lying: uploaded(zeros(1, 1)) };
  multiply(chunk, label, { sizes, into: { row: { r: 1 }, column: { c: 1 } } }, into, [nothing], false);
}
