import { evaluateReference, type Method, type Output, type PlanOptions } from "deldot";
import { cut, type Pool } from "./pool.js";

/** What was asked of a call, as far as it says which numbers are right. */
export interface Asked extends Pick<PlanOptions, "probes" | "seed" | "probesPer" | "orthogonal" | "step"> {
  readonly pool: Pool;
  /** Which of the pool's points. */
  readonly first: number;
  readonly count: number;
  readonly method: Method | "auto";
}

/** Results of a call, row-major. */
export type Results = Partial<Record<Output | "standardError" | "jvp", Float32Array>>;

interface Expected {
  readonly numbers: Float64Array;
  readonly allowance: Float64Array;
}

/** What is wrong with the results: the worst number of each array that has one. Of points that are not finite all must be NaN. */
export function check(asked: Asked, results: Results, tangents?: Float32Array, nonFinite: ReadonlySet<number> = new Set()): string[] {
  const wrong: string[] = [];
  for (const [name, numbers] of Object.entries(results)) {
    const expected = expectedOf(asked, name as keyof Results, tangents);
    const width = expected.numbers.length / asked.count;
    const marked = expected.numbers.map((x, at) => (nonFinite.has(Math.floor(at / width)) ? NaN : x));
    const message = compare(name, numbers, { ...expected, numbers: marked });
    if (message) wrong.push(message);
  }
  return wrong;
}

function compare(name: string, actual: Float32Array, { numbers, allowance }: Expected): string | null {
  if (actual.length !== numbers.length) return `${name} has ${actual.length} numbers; expected ${numbers.length}`;
  let [worst, at, wrong] = [1, -1, 0];
  for (let index = 0; index < numbers.length; index++) {
    if (Object.is(actual[index], numbers[index])) continue;
    const error = Math.abs(actual[index]! - numbers[index]!) / allowance[index]!;
    if (error <= 1) continue;
    wrong++;
    // NaN is worse than all.
    if (at >= 0 && !(error > worst)) continue;
    [worst, at] = [error, index];
  }
  if (at < 0) return null;
  const error = Math.abs(actual[at]! - numbers[at]!);
  return `${name}[${at}] is ${actual[at]}; expected ${numbers[at]}: the error ${error.toExponential(2)} is over ${allowance[at]!.toExponential(2)}; ${wrong} of ${numbers.length} are wrong`;
}

function expectedOf(asked: Asked, name: keyof Results, tangents: Float32Array | undefined): Expected {
  const { pool, first, count, method } = asked;
  const d = pool.network.stateSize;
  const jacobian = cut(pool.truth.jacobian, d * d, first, count);
  const jacobianAllowance = cut(pool.truth.jacobianAllowance, d * d, first, count);
  const value = { numbers: cut(pool.truth.value, d, first, count), allowance: cut(pool.truth.valueAllowance, d, first, count) };
  if (name === "value") return value;
  if (name === "jacobian") return { numbers: jacobian, allowance: jacobianAllowance };
  if (name === "jvp") return pushed(jacobian, jacobianAllowance, tangents!, d);
  const diagonal = { numbers: diagonalOf(jacobian, d), allowance: cut(pool.truth.diagonalAllowance, d, first, count) };
  if (method === "hutchinson") return estimated(asked, name, jacobianAllowance);
  if (method === "difference") return differences(asked, name, value, diagonal);
  if (name === "diagonal") return diagonal;
  return { numbers: sums(diagonal.numbers, d), allowance: cut(pool.truth.divergenceAllowance, 1, first, count) };
}

function diagonalOf(jacobian: Float64Array, d: number): Float64Array {
  return Float64Array.from({ length: jacobian.length / d }, (_, at) => jacobian[at * d + (at % d)]!);
}

function sums(rows: Float64Array, width: number): Float64Array {
  return Float64Array.from({ length: rows.length / width }, (_, row) => cut(rows, width, row, 1).reduce((sum, x) => sum + x, 0));
}

/** J t; errors of the entries of a row add up like independent ones, or a little worse. */
function pushed(jacobian: Float64Array, allowance: Float64Array, tangents: Float32Array, d: number): Expected {
  const rows = Array.from({ length: jacobian.length / d }, (_, row) => row);
  const tangentOf = (row: number): Float32Array => cut(tangents, d, Math.floor(row / d), 1);
  return {
    numbers: Float64Array.from(rows, (row) => cut(jacobian, d, row, 1).reduce((sum, entry, k) => sum + entry * tangentOf(row)[k]!, 0)),
    allowance: Float64Array.from(rows, (row) => 2 * Math.hypot(...cut(allowance, d, row, 1).map((a, k) => a * tangentOf(row)[k]!)) + 1e-7),
  };
}

/** The reference's estimate with the same probes. Signs leave the errors of J's entries as they are. */
function estimated(asked: Asked, name: keyof Results, allowance: Float64Array): Expected {
  const d = asked.pool.network.stateSize;
  const sizes = Float64Array.from({ length: asked.count }, (_, point) => 2 * Math.hypot(...cut(allowance, d * d, point, 1)));
  const { divergence, standardError } = reference(asked, ["divergence"]);
  return name === "standardError"
    ? { numbers: standardError!, allowance: sizes.map((size) => 2 * size) }
    : { numbers: divergence!, allowance: sizes };
}

/** The reference's differences with the same step: what f errs by over the step, and what rounding the moved points does. */
function differences(asked: Asked, name: keyof Results, value: Expected, diagonal: Expected): Expected {
  const { pool, first, count, step = 2 ** -7 } = asked;
  const d = pool.network.stateSize;
  const points = cut(pool.points, d, first, count);
  const allowance = diagonal.allowance.map((own, at) => {
    const h = step * Math.max(1, Math.abs(points[at]!));
    return own + (2 * value.allowance[at]!) / h + (2 ** -22 / step) * Math.abs(diagonal.numbers[at]!);
  });
  if (name === "diagonal") return { numbers: reference(asked, ["diagonal"]).diagonal!, allowance };
  return { numbers: reference(asked, ["divergence"]).divergence!, allowance: sums(allowance, d) };
}

function reference(asked: Asked, outputs: readonly Output[]): ReturnType<typeof evaluateReference> {
  const { pool, first, count, method, probes, seed, probesPer, orthogonal, step } = asked;
  const { stateSize, contextSize } = pool.network;
  const context = pool.context && pool.contextKind !== "shared" ? cut(pool.context, contextSize, first, count) : pool.context;
  const points = cut(pool.points, stateSize, first, count);
  return evaluateReference(pool.network, points, { context, method, probes, seed, probesPer, orthogonal, step, outputs });
}
