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

/** Tiles, or blocks of a workgroup's tiles, beside one another in a product of `width` outputs. */
export function tilesAcross({ outputs, across }: Tile, width: number): number {
  return Math.ceil(width / (outputs * across));
}

/** Invocations for all rows and each of `parts` parts of a product's outputs: those of a tile, unless a contraction sums several. */
export function productInvocations({ rows: each, down, across }: Tile, rows: number, parts: number): number {
  return Math.ceil(rows / (each * down)) * parts * down * across;
}
