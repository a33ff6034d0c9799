import { evaluateReference, type Network } from "deldot";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openDevice } from "../device.js";
import { denseOf } from "../fields.js";
import { runCase } from "./cases.js";
import { check, type Results } from "./check.js";
import { Draw } from "./draw.js";
import { familiesOf } from "./families.js";
import { wholePalette } from "./networks.js";
import { drawPool, type Pool } from "./pool.js";
import { Tally } from "./tally.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

const EVALUATIONS = 1000;
/** Of each family of fused kernels, which are compiled for each network. */
const FUSED_EVALUATIONS = 25;

/** As npm run fuzz:numbers does for as long as one likes: --seed with the seed and --kernels with the name give a failure again. */
test("a thousand random evaluations over all families of kernels give the numbers of float64", { timeout: 300_000 }, async () => {
  const failures: string[] = [];
  const tally = new Tally();
  const families = familiesOf(device);
  const ofEach = Math.ceil(EVALUATIONS / families.filter(({ fused }) => !fused).length);
  for (const family of families) {
    const enough = family.fused ? FUSED_EVALUATIONS : ofEach;
    for (let seed = 1; tally.of(family.kernels) < enough; seed++) {
      const done = await runCase(device, [family], seed, { tuned: 0, fused: 1 });
      tally.add(done);
      failures.push(...done.flatMap(({ failure }) => (failure === null ? [] : [`seed ${seed}: ${failure}`])));
    }
  }
  expect(failures.join("\n")).toBe("");
  expect(tally.count).toBeGreaterThan(EVALUATIONS);
});

/** What evaluate gives where all is right, rounded to float32. */
function rightResults(pool: Pool): Required<Pick<Results, "value" | "divergence" | "diagonal" | "jacobian">> {
  const { network, points, context } = pool;
  const outputs = ["value", "divergence", "diagonal", "jacobian"] as const;
  const result = evaluateReference(network, points, { context, outputs });
  return {
    value: Float32Array.from(result.value!),
    divergence: Float32Array.from(result.divergence!),
    diagonal: Float32Array.from(result.diagonal!),
    jacobian: Float32Array.from(result.jacobian!),
  };
}

type Right = ReturnType<typeof rightResults>;

/** Errors that a kernel could make at one point: each changes some numbers. */
const mistakes: Record<string, (right: Right, pool: Pool, point: number) => void> = {
  "a result that was never written": ({ divergence }, _, point) => (divergence[point] = 7),
  "a value that is left at zero": ({ value }, { network: { stateSize: d } }, point) => value.fill(0, point * d, (point + 1) * d),
  "the result of the point before": ({ divergence }, { count }, point) => (divergence[point] = divergence[(point + count - 1) % count]!),
  "a divergence without its last term": ({ divergence, diagonal }, { network: { stateSize: d } }, point) =>
    (divergence[point]! -= diagonal[(point + 1) * d - 1]!),
  "a diagonal turned by one": ({ diagonal }, { network: { stateSize: d } }, point) => {
    const row = diagonal.slice(point * d, (point + 1) * d);
    row.forEach((entry, i) => (diagonal[point * d + ((i + 1) % d)] = entry));
  },
  "a transposed Jacobian": ({ jacobian }, { network: { stateSize: d } }, point) => {
    const matrix = jacobian.slice(point * d * d, (point + 1) * d * d);
    matrix.forEach((entry, at) => (jacobian[point * d * d + (at % d) * d + Math.floor(at / d)] = entry));
  },
  "a column of the Jacobian twice": ({ jacobian }, { network: { stateSize: d } }, point) => {
    for (let i = 0; i < d; i++) jacobian[(point * d + i) * d + d - 1] = jacobian[(point * d + i) * d]!;
  },
  "one part in 200 of one number": ({ value }, { network: { stateSize: d } }, point) => (value[point * d]! *= 1.005),
};

/** Of the numbers at a point, by which an allowance of a comparison is measured. */
function sizeAt(output: string, right: Right, d: number, point: number): number {
  const largest = (row: Float32Array): number => row.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  if (output === "value") return largest(right.value.subarray(point * d, (point + 1) * d));
  if (output === "jacobian") return largest(right.jacobian.subarray(point * d * d, (point + 1) * d * d));
  return right.diagonal.subarray(point * d, (point + 1) * d).reduce((sum, x) => sum + Math.abs(x), 0);
}

const PLANTS = 80;
const drawn: { draw: Draw; pool: Pool; right: Right }[] = [];
beforeAll(() => {
  for (let seed = 1; seed <= PLANTS; seed++) {
    const draw = new Draw(seed);
    const pool = drawPool(draw, draw.pick(["small", "small", "middle"]), wholePalette, false);
    drawn.push({ draw, pool, right: rightResults(pool) });
  }
});

test("what the reference gives is taken for right", () => {
  for (const { pool, right } of drawn) expect(check({ pool, first: 0, count: pool.count, method: "auto" }, right)).toEqual([]);
});

test.for(Object.entries(mistakes))("%s is found", ([, mistake]) => {
  let planted = 0;
  for (const { draw, pool, right } of drawn) {
    const wrong: Right = { ...right };
    for (const output of Object.keys(right) as (keyof Right)[]) wrong[output] = right[output].slice();
    const point = draw.integer(0, pool.count - 1);
    mistake(wrong, pool, point);
    const changes = (Object.keys(right) as (keyof Right)[]).some((output) => {
      const most = wrong[output].reduce((change, x, at) => Math.max(change, Math.abs(x - right[output][at]!)), 0);
      return most > 2e-3 * Math.max(0.1, sizeAt(output, right, pool.network.stateSize, point));
    });
    if (!changes) continue;
    planted++;
    expect(check({ pool, first: 0, count: pool.count, method: "auto" }, wrong)).not.toEqual([]);
  }
  expect(planted).toBeGreaterThan(10);
});

test("a network with one weight left out is found, wherever it matters", () => {
  let planted = 0;
  for (const { draw, pool, right } of drawn) {
    const wrong = rightResults({ ...pool, network: withoutOneWeight(draw, pool.network) });
    const d = pool.network.stateSize;
    const matters = Array.from(right.divergence).some(
      (x, point) => Math.abs(x - wrong.divergence[point]!) > 2e-3 * Math.max(0.1, sizeAt("divergence", right, d, point)),
    );
    if (!matters) continue;
    planted++;
    const { divergence } = wrong;
    expect(check({ pool, first: 0, count: pool.count, method: "auto" }, { divergence })).not.toEqual([]);
  }
  expect(planted).toBeGreaterThan(25);
});

function withoutOneWeight(draw: Draw, network: Network): Network {
  const matrices = network.operations.flatMap((operation) => (operation.kind === "linear" ? operation.terms : []));
  const chosen = draw.pick(matrices);
  const cleared = <T extends Float32Array | Float64Array>(numbers: T): T => {
    const copy = numbers.slice() as T;
    copy[draw.integer(0, copy.length - 1)] = 0;
    return copy;
  };
  const dense = denseOf(chosen.weight);
  const weight = "diagonal" in dense ? { diagonal: cleared(dense.diagonal) } : { ...dense, data: cleared(dense.data) };
  return {
    ...network,
    operations: network.operations.map((operation) =>
      operation.kind === "linear"
        ? { ...operation, terms: operation.terms.map((term) => (term === chosen ? { ...term, weight } : term)) }
        : operation,
    ),
  };
}
