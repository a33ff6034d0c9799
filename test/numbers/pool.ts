import type { Network } from "deldot";
import { denseOf } from "../fields.js";
import type { Draw } from "./draw.js";
import { drawNetwork, type Palette, type Size } from "./networks.js";
import { truthOf, type Truth } from "./truth.js";

/** How contexts are given: one vector for all points, one per point, or long runs of points with one each. */
export type ContextKind = "none" | "shared" | "perPoint" | "runs";

/** Points that are fit for a comparison, in order, and what is true there. */
export interface Pool {
  readonly network: Network;
  readonly count: number;
  /** [count, d] */
  readonly points: Float32Array;
  readonly contextKind: ContextKind;
  /** [count, c]; [c] where it is shared; null where there is none. */
  readonly context: Float32Array | null;
  readonly truth: Truth;
}

/** What the float64 truth may take: multiply-adds, and numbers of all results. */
const MOST_WORK = 4e7;
const MOST_NUMBERS = 4e6;
/** As many points as are evaluated run by run: two of the runs that the package takes for long. */
const TWO_RUNS = 2 * 4096;

/** A network and points, drawn until at least one point is fit. */
export function drawPool(draw: Draw, size: Size, palette: Palette, half: boolean): Pool {
  for (;;) {
    const inRuns = size === "small" && draw.chance(0.01);
    const network = drawNetwork(draw, size, palette);
    const isLight = workOf(network).multiplyAdds < 1500;
    const pool = drawPoints(draw, network, inRuns && isLight, half);
    if (pool) return pool;
  }
}

/** Points for a network; null where none is fit. */
export function drawPoints(draw: Draw, network: Network, inRuns: boolean, half: boolean): Pool | null {
  const { stateSize: d, contextSize: c } = network;
  const contextKind = c === 0 ? "none" : inRuns ? "runs" : draw.pick(["shared", "perPoint"] as const);
  const { multiplyAdds, numbers } = workOf(network);
  const most = Math.max(4, Math.min(300, Math.floor(MOST_WORK / multiplyAdds), Math.floor(MOST_NUMBERS / numbers)));
  const wanted = contextKind === "runs" ? TWO_RUNS + 100 : draw.chance(0.5) ? draw.size(1, most) : draw.integer(1, most);
  const drawn = Math.ceil(1.25 * wanted) + 3;
  const points = draw.numbers(drawn * d, draw.between(0.5, 2.5));
  const vectors = contextKind === "perPoint" ? drawn : contextKind === "runs" ? 2 : 1;
  const contexts = draw.numbers(vectors * c, 1);
  const contextOf = (point: number): Float32Array => {
    const vector = contextKind === "perPoint" ? point : contextKind === "runs" && point >= drawn / 2 ? 1 : 0;
    return contexts.subarray(vector * c, (vector + 1) * c);
  };
  const all = rows(drawn, c, contextOf);
  const truth = truthOf(network, points, c > 0 ? all : null, draw, half);
  const kept = truth.fit.flatMap((isFit, point) => (isFit ? [point] : [])).slice(0, wanted);
  if (kept.length === 0) return null;
  const keep = <T extends Float32Array | Float64Array>(data: T): T => {
    const width = data.length / drawn;
    const into = new (data.constructor as new (length: number) => T)(kept.length * width);
    kept.forEach((point, at) => into.set(data.subarray(point * width, (point + 1) * width), at * width));
    return into;
  };
  return {
    network,
    count: kept.length,
    points: keep(points),
    contextKind,
    context: c === 0 ? null : contextKind === "shared" ? contextOf(0) : keep(all),
    truth: {
      value: keep(truth.value),
      jacobian: keep(truth.jacobian),
      valueAllowance: keep(truth.valueAllowance),
      jacobianAllowance: keep(truth.jacobianAllowance),
      diagonalAllowance: keep(truth.diagonalAllowance),
      divergenceAllowance: keep(truth.divergenceAllowance),
      fit: kept.map(() => true),
    },
  };
}

function rows(count: number, width: number, rowOf: (row: number) => Float32Array): Float32Array {
  const all = new Float32Array(count * width);
  for (let row = 0; row < count; row++) all.set(rowOf(row), row * width);
  return all;
}

/** Of all of J and its errors at one point. */
function workOf({ stateSize, operations }: Network): { multiplyAdds: number; numbers: number } {
  let [multiplyAdds, numbers] = [0, 0];
  for (const operation of operations) {
    if (operation.kind !== "linear") continue;
    for (const weight of operation.terms.map((term) => denseOf(term.weight))) {
      multiplyAdds += "diagonal" in weight ? weight.diagonal.length : weight.data.length;
      numbers += "diagonal" in weight ? weight.diagonal.length : weight.rows;
    }
  }
  const channels = 5 * (1 + stateSize);
  return { multiplyAdds: multiplyAdds * channels, numbers: 3 * numbers * channels };
}

/** Rows [first, first + count) of an array of rows. */
export function cut<T extends Float32Array | Float64Array>(data: T, width: number, first: number, count: number): T {
  return data.subarray(first * width, (first + count) * width) as T;
}
