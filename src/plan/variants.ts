import { InputError, quote } from "../errors.js";

/** How a product W x is cut into tiles: an invocation computes `outputs` results (a multiple of 4) of `rows` rows. */
export interface Tile {
  readonly rows: number;
  readonly outputs: number;
  /**
   * How many lanes of a subgroup load one weight each and hand it to one another; 0: every lane loads every weight for
   * itself. At most the adapter's least subgroup size, and a divisor of `outputs` or a multiple of it.
   */
  readonly lanes: number;
  /**
   * Invocations that load the rows and weights of their tiles together, into workgroup memory: `down` below one another,
   * over rows, and `across` beside one another, over outputs. 4, 8 or 16 each, for a block of at most 64 x 64 results, which
   * keeps it within the invocations and the workgroup memory of every device; `across` divides 4 `rows`, so that all load
   * alike. Without lanes.
   */
  readonly group?: { readonly down: number; readonly across: number };
  /** Whether weights lie in memory as float16. */
  readonly half?: boolean;
}

/** A dispatch per operation, its results in memory. */
export interface LayersVariant {
  readonly kind: "layers";
  readonly tile: Tile;
}

/** One dispatch for everything: an invocation takes `points` points from their coordinates to f and the terms of the trace. */
export interface FusedVariant {
  readonly kind: "fused";
  /** Where the weights are: a buffer that loops read, or numbers in the text of an unrolled kernel. */
  readonly weights: "uniform" | "storage" | "literal";
  readonly points: 1 | 2 | 4;
  /**
   * How many lanes of a subgroup load one vec4 of weights each and hand its numbers to one another, out of uniform blocks;
   * 0: every invocation loads every weight for itself. At most the adapter's least subgroup size.
   */
  readonly lanes: number;
  /**
   * Whether the invocations of a workgroup wait for one another every so often, so that all run a stretch of the text while
   * it lies in a processor's caches. Where weights are literals.
   */
  readonly inStep?: boolean;
  /** Whether weights lie in memory as float16: in a storage buffer, since uniform blocks take no narrower arrays. */
  readonly half?: boolean;
}

/** Which kernels run a plan: all give the same results but for rounding. */
export type Variant = LayersVariant | FusedVariant;

/** How many vec4 of the inner dimension a group loads at a time. */
export const GROUP_STEP = 4;

/** The tile of the plain kernels, which every network and every device can run. */
export const PLAIN_TILE: Tile = { rows: 4, outputs: 4, lanes: 0 };
export const PLAIN: LayersVariant = { kind: "layers", tile: PLAIN_TILE };

/** Whether a tile is the plain one, in float32 or float16. */
export function isPlain({ rows, outputs, lanes, group }: Tile): boolean {
  return rows === PLAIN_TILE.rows && outputs === PLAIN_TILE.outputs && lanes === PLAIN_TILE.lanes && !group;
}

/** A variant with its weights in float16. */
export function halved(variant: LayersVariant): LayersVariant;
export function halved(variant: FusedVariant): FusedVariant;
export function halved(variant: Variant): Variant {
  return variant.kind === "fused" ? { ...variant, half: true } : { kind: "layers", tile: { ...variant.tile, half: true } };
}

/**
 * "layers 4x4", "layers 4x16 by 8 lanes", "layers 8x8 in groups of 8x8": rows x outputs of a tile, invocations over rows x over
 * outputs of a group. "fused uniform x4 by 8 lanes", "fused storage x2 in float16", "fused literal x2 in step": points of an
 * invocation.
 */
export function nameOfVariant(variant: Variant): string {
  if (variant.kind === "fused") {
    const { weights, points, lanes, inStep, half } = variant;
    return `fused ${weights} x${points}${byLanes(lanes)}${inStep ? IN_STEP : ""}${half ? HALF : ""}`;
  }
  const { rows, outputs, lanes, group, half } = variant.tile;
  const grouped = group ? ` in groups of ${group.down}x${group.across}` : "";
  return `layers ${rows}x${outputs}${byLanes(lanes)}${grouped}${half ? HALF : ""}`;
}

function byLanes(lanes: number): string {
  return lanes > 0 ? ` by ${lanes} lanes` : "";
}

/** The tile of the products that a variant runs in layers: of a fused one, where a plan cannot be fused. */
export function tileOf(variant: Variant): Tile {
  if (variant.kind === "layers") return variant.tile;
  return variant.half ? halved(PLAIN).tile : PLAIN_TILE;
}

const HALF = " in float16";
const IN_STEP = " in step";
/** Numbers of lanes that a name may hold; 0: none. */
const LANES = [0, 4, 8, 16, 32, 64];

/** The variant of a name. @throws InputError where it is none. */
export function parseVariant(name: string): Variant {
  const half = name.endsWith(HALF);
  const variant = parseSingle(half ? name.slice(0, -HALF.length) : name);
  if (!variant || (half && variant.kind === "fused" && variant.weights !== "storage"))
    throw new InputError(
      `kernels is ${quote(name)}; expected "auto" or a name such as "layers 4x4", "fused uniform x2", "fused literal x1"`,
    );
  if (!half) return variant;
  return variant.kind === "fused" ? halved(variant) : halved(variant);
}

function parseSingle(name: string): Variant | null {
  const layers = /^layers (\d+)x(\d+)(?: by (\d+) lanes| in groups of (4|8|16)x(4|8|16))?$/.exec(name);
  if (layers) {
    const [rows, outputs, lanes] = [Number(layers[1]), Number(layers[2]), Number(layers[3] ?? 0)];
    const isTile = rows >= 1 && rows <= 16 && outputs >= 4 && outputs <= 32 && outputs % 4 === 0 && LANES.includes(lanes);
    if (isTile && !layers[4]) return { kind: "layers", tile: { rows, outputs, lanes } };
    const [down, across] = [Number(layers[4]), Number(layers[5])];
    if (isTile && rows * down <= 64 && outputs * across <= 64 && (GROUP_STEP * rows) % across === 0)
      return { kind: "layers", tile: { rows, outputs, lanes, group: { down, across } } };
  }
  const fused = /^fused (uniform|storage|literal) x([124])(?: by (\d+) lanes)?( in step)?$/.exec(name);
  if (!fused || (fused[3] && fused[1] !== "uniform") || (fused[4] && fused[1] !== "literal")) return null;
  const lanes = Number(fused[3] ?? 0);
  if (!LANES.includes(lanes)) return null;
  return {
    kind: "fused",
    weights: fused[1] as FusedVariant["weights"],
    points: Number(fused[2]) as FusedVariant["points"],
    lanes,
    ...(fused[4] && { inStep: true }),
  };
}
