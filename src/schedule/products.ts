import { ENTRIES, inOrder, workOf, zeros, type PlannedMatrix, type Product } from "../plan/matrices.js";
import { strideOf, type Linear, type Walk } from "../plan/products.js";
import { asRows, onesRow, quads, StepRecorder } from "./recorder.js";
import type { Binding, Chunk, MatrixLayout, ScheduleLimits } from "./steps.js";

/** Where a matrix lies: entry (i, j) is float first + i rowStride + j columnStride of the buffer. */
export interface Lying {
  readonly binding: Binding;
  readonly first: number;
  readonly rowStride: number;
  readonly columnStride: number;
  /** Where it is more than 1, an entry is the sum of so many floats, one after another. */
  readonly parts?: number | undefined;
}

/** Rows one after another, `pitch` floats apart. */
export function inRows(binding: Binding, pitch: number, first = 0): Lying {
  return { binding, first, rowStride: pitch, columnStride: 1 };
}

/** A matrix of the network, or what the host has made of them, in a layout that is there, where one is known to be. */
export function uploaded(matrix: PlannedMatrix, has: HasMatrix = () => false): Lying {
  const isThere = !has(matrix, "rows") && matrix.blocks === null && has(matrix, "product");
  return lyingOf({ kind: "matrix", matrix, layout: isThere ? "product" : "rows" });
}

/** Whether the device has a matrix in some layout. */
export type HasMatrix = (matrix: PlannedMatrix, layout: MatrixLayout) => boolean;

/** See layoutMatrix in gpu/buffers.ts. */
function lyingOf({ kind, matrix, layout }: Extract<Binding, { kind: "matrix" }>): Lying {
  if (layout === "rows") return inRows(asRows(matrix), 4 * quads(matrix.columns));
  return { binding: { kind, matrix, layout }, first: 0, rowStride: 1, columnStride: 4 * quads(matrix.rows) };
}

/** into (+)= Σ_j of the product of one or two operands, for all n, r, c. */
export function multiply(
  recorder: StepRecorder,
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
  recorder.add({
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

function stridesOf(walk: Walk, { first, rowStride, columnStride, parts = 1 }: Lying): Record<"first" | "n" | "r" | "c" | "j", number> {
  const stride = (index: "first" | "n" | "r" | "c" | "j"): number => strideOf(walk, index, rowStride, columnStride);
  return { first: first + stride("first"), n: stride("n"), r: stride("r"), c: stride("c"), j: parts > 1 ? 1 : stride("j") };
}

/** Names of parameters, as in aFirst. */
function prefixed(prefix: string, numbers: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(numbers).map(([name, value]) => [prefix + name[0]!.toUpperCase() + name.slice(1), value]));
}

/** Writes the steps that compute planned matrices out of others. */
export class ProductSteps {
  private readonly known = new Map<PlannedMatrix, Lying>();
  private readonly wholes = new Map<PlannedMatrix, Lying>();

  /** @param given where what is there already lies; null for what has to be computed. */
  constructor(
    private readonly recorder: StepRecorder,
    private readonly given: (matrix: PlannedMatrix) => Lying | null,
  ) {}

  write(matrix: PlannedMatrix, into: Lying): void {
    const { name, rows, columns, products } = matrix;
    this.known.set(matrix, into);
    const [{ sizes } = { sizes: null }] = products!;
    // Where the first product does not write all of them, the others begin at 0.
    const isWhole = sizes !== null && sizes.n * sizes.r * sizes.c === rows * columns;
    if (!isWhole) fill(this.recorder, name, rows, columns, into);
    products!.forEach(({ sizes: own, into: walk, operands }, index) => {
      const found = operands.map(({ matrix, ...walk }) => ({ walk, matrix, lying: this.where(matrix) }));
      // What only moves the entries of one matrix adds up their parts on the way.
      const parts = found.length === 1 && own.j === 1 ? (found[0]!.lying.parts ?? 1) : 1;
      const given = parts > 1 ? found : found.map(({ walk, matrix, lying }) => ({ walk, lying: this.whole(matrix, lying) }));
      const sizes = { ...own, j: own.j * parts };
      // A product that is too much for one submission is done some rows at a time.
      const perRow = sizes.n * sizes.c * sizes.j;
      const most = Math.max(4, 4 * Math.floor(this.recorder.limits.multiplyAddsPerSubmit / perRow / 4));
      for (let first = 0; first < sizes.r; first += most) {
        const rows = Math.min(most, sizes.r - first);
        this.recorder.submitWhenFull(rows * perRow);
        multiply(
          this.recorder,
          name,
          { sizes: { ...sizes, r: rows }, into: fromRow(walk, first) },
          into,
          given.map(({ walk, lying }) => ({ ...fromRow(walk, first), lying })),
          index > 0 || !isWhole,
        );
      }
    });
  }

  /** Into another place what is known already. */
  copy(matrix: PlannedMatrix, into: Lying): void {
    const sizes = { n: 1, r: matrix.rows, c: matrix.columns, j: 1 };
    multiply(
      this.recorder,
      matrix.name,
      { sizes, into: ENTRIES },
      into,
      [{ ...ENTRIES, lying: this.whole(matrix, this.where(matrix)) }],
      false,
    );
  }

  /** A matrix whose entries are one float each. */
  private whole(matrix: PlannedMatrix, lying: Lying): Lying {
    const { parts = 1 } = lying;
    if (parts === 1) return lying;
    const there = this.wholes.get(matrix);
    if (there) return there;
    const { name, rows, columns } = matrix;
    const whole = inRows(this.recorder.scratch(`whole ${this.wholes.size}`, rows * columns), columns);
    multiply(this.recorder, name, { sizes: { n: 1, r: rows, c: columns, j: parts }, into: ENTRIES }, whole, [{ ...ENTRIES, lying }], false);
    this.wholes.set(matrix, whole);
    return whole;
  }

  private where(matrix: PlannedMatrix): Lying {
    const there = this.given(matrix) ?? this.known.get(matrix);
    if (there) return there;
    const lying = inRows(this.recorder.scratch(`matrix ${this.known.size}`, matrix.rows * matrix.columns), matrix.columns);
    this.write(matrix, lying);
    return lying;
  }
}

/** The same from r = first on. */
function fromRow({ row, column }: Walk, first: number): Walk {
  const moved = (of: Linear): Linear => ({ ...of, first: (of.first ?? 0) + first * (of.r ?? 0) });
  return { row: moved(row), column: moved(column) };
}

/** Zeros. */
export function fill(recorder: StepRecorder, label: string, rows: number, columns: number, into: Lying): void {
  const sizes = { n: 1, r: rows, c: columns, j: 1 };
  const nothing = { row: {}, column: {}, lying: uploaded(zeros(1, 1)) };
  multiply(recorder, label, { sizes, into: ENTRIES }, into, [nothing], false);
}

/** Computes matrices anew that lie in buffers of their own, out of weights there. */
export function scheduleMatrices(
  wanted: readonly Extract<Binding, { kind: "matrix" }>[],
  limits: Pick<ScheduleLimits, "multiplyAddsPerSubmit">,
  has: HasMatrix,
): Chunk {
  const isWanted = new Set(wanted.map(({ matrix }) => matrix));
  return scheduleFrom(wanted, limits, (matrix) => (isWanted.has(matrix) || workOf([matrix]) > 0 ? null : uploaded(matrix, has)));
}

/**
 * Writes matrices into buffers of their own, each once for every layout.
 * @param given where what is there already lies; null for what has to be computed.
 */
export function scheduleFrom(
  wanted: readonly Extract<Binding, { kind: "matrix" }>[],
  limits: Pick<ScheduleLimits, "multiplyAddsPerSubmit">,
  given: (matrix: PlannedMatrix) => Lying | null,
): Chunk {
  const recorder = new StepRecorder(limits);
  const steps = new ProductSteps(recorder, given);
  for (const matrix of inOrder(new Set(wanted.map(({ matrix }) => matrix)))) {
    const places = wanted.filter((each) => each.matrix === matrix).map(lyingOf);
    if (places.length > 0 && !given(matrix)) steps.write(matrix, places.shift()!);
    for (const place of places) steps.copy(matrix, place);
  }
  return recorder.finish([]);
}
