import { blockShape, type PlannedMatrix } from "../plan/matrices.js";

/** Rows as they are; each by a scale of its own; or all rows of a tile by one scale, where they are tangents of one point. */
export type Scaling = "none" | "each" | "together";

/** What a product does with its results: stores each, or weighs and sums them up. */
export type Ending = "stores" | "contracts";

/** How a product W x is cut into pieces: an invocation computes `outputs` results (a multiple of 4) of `rows` rows. */
export interface Tile {
  /** Which tile it is, for people and for caches. */
  readonly name: string;
  readonly rows: number;
  readonly outputs: number;
  /** Invocations of a workgroup. */
  readonly workgroup: number;
  /** Invocations of a workgroup that must be below one another, over rows, and beside one another, over outputs; 1 x 1: any. */
  readonly down: number;
  readonly across: number;
  /** Whether weights lie in memory as float16. */
  readonly half: boolean;
  /** The scalings that its kernels are written for. A scale for a whole tile is a load less for every row, and a kernel more. */
  readonly scalings: readonly Scaling[];
  /** WGSL directives that its kernels begin with. */
  readonly enables: readonly string[];
  /** The loops of its kernels in WGSL, with the entry point. */
  readonly main: (scaling: Scaling, ending: Ending) => string;
}

/** What of a row a product reads for 4 of its outputs, all in vec4 but the block's shape: see shaders/lib/product.wgsl. */
export function bandOf(matrix: PlannedMatrix): Record<"width" | "inner" | "blockRows" | "blockColumns", number> {
  const [blockRows, blockColumns] = blockShape(matrix);
  let inner = 0;
  for (let row = 0; row < matrix.rows; row += 4) {
    const [first, last] = [row, Math.min(row + 3, matrix.rows - 1)].map((each) => Math.floor(each / blockRows) * blockColumns);
    inner = Math.max(inner, Math.ceil((last! + blockColumns) / 4) - Math.floor(first! / 4));
  }
  return { width: Math.ceil(matrix.columns / 4), inner, blockRows, blockColumns };
}

/** Where the band of 4 outputs from `row` on begins, in vec4; twin of first() in shaders/lib/product.wgsl. */
export function bandStart({ width, inner, blockRows, blockColumns }: ReturnType<typeof bandOf>, row: number): number {
  return Math.min(Math.floor((Math.floor(row / blockRows) * blockColumns) / 4), width - inner);
}

/** Tiles, or blocks of a workgroup's tiles, beside one another in a product of `width` outputs. */
export function tilesAcross({ outputs, across }: Tile, width: number): number {
  return Math.ceil(width / (outputs * across));
}

/** Invocations for all rows and each of `parts` parts of a product's outputs: those of a tile, unless a contraction sums several. */
export function productInvocations({ rows: each, down, across }: Tile, rows: number, parts: number): number {
  return Math.ceil(rows / (each * down)) * parts * down * across;
}
