import fc from "fast-check";
import { expect, test } from "vitest";
import { Budget } from "../../src/model/readers/onnx/budget.js";
import { addMaps, applyMap, compose, dense, rowsOf, toMatrix, type LinearMap } from "../../src/model/readers/onnx/maps.js";
import { expectClose } from "../close.js";
import { Draw } from "../numbers/draw.js";

/** A map of so many inputs: a pick that does the same to parts or not, or one matrix for each of some parts. */
function drawMap(draw: Draw, columns: number, rows = draw.integer(1, 12)): LinearMap {
  const parts = [1, 2, 3, 4, 6].filter((times) => columns % times === 0 && rows % times === 0);
  const times = draw.pick(parts);
  const [height, width] = [rows / times, columns / times];
  if (draw.chance(0.5)) return dense({ rows: height, columns: width, data: draw.numbers(height * width, 1) }, times);
  const part = Array.from({ length: height }, () => (draw.chance(0.2) ? -1 : draw.integer(0, width - 1)));
  const factors = draw.chance(0.5) ? draw.numbers(height, 2) : null;
  return {
    kind: "pick",
    columns,
    indices: Int32Array.from({ length: rows }, (_, i) => (part[i % height]! < 0 ? -1 : part[i % height]! + Math.floor(i / height) * width)),
    factors: factors && Float32Array.from({ length: rows }, (_, i) => factors[i % height]!),
  };
}

/** map(x) by its definition. */
function apply(map: LinearMap, x: readonly number[]): number[] {
  if (map.kind === "pick") return Array.from(map.indices, (index, i) => (index < 0 ? 0 : (map.factors?.[i] ?? 1) * x[index]!));
  const { matrix, times } = map;
  return Array.from({ length: times }, (_, part) =>
    Array.from({ length: matrix.rows }, (__, row) =>
      Array.from({ length: matrix.columns }, (___, k) => matrix.data[row * matrix.columns + k]! * x[part * matrix.columns + k]!).reduce(
        (sum, term) => sum + term,
        0,
      ),
    ),
  ).flat();
}

test("maps of parts are composed, added and written out as what they do", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 1e9 }), (seed) => {
      const draw = new Draw(seed);
      const budget = new Budget(1e6);
      const columns = draw.integer(1, 12);
      const inner = drawMap(draw, columns);
      const other = drawMap(draw, columns, rowsOf(inner));
      const outer = drawMap(draw, rowsOf(inner));
      const x = Array.from(draw.numbers(columns, 1));
      const check = (map: LinearMap, expected: readonly number[]): void => {
        const scale = expected.map(() => 10);
        for (const result of [applyMap(map, x, budget), apply(map, x), apply(dense(toMatrix(map, budget)), x)])
          expectClose(result, expected, scale, { relative: 1e-6 });
      };
      check(inner, apply(inner, x));
      if (inner.kind === "pick" || outer.kind === "pick") check(compose(outer, inner, budget), apply(outer, apply(inner, x)));
      const [a, b] = [apply(inner, x), apply(other, x)];
      check(
        addMaps(inner, other, budget),
        a.map((value, i) => value + b[i]!),
      );
    }),
    { numRuns: 3000, seed: 1 },
  );
  // What does the same to all parts stays one matrix.
  const shared = dense({ rows: 2, columns: 3, data: Float32Array.of(1, 2, 3, 4, 5, 6) }, 4);
  const swap: LinearMap = {
    kind: "pick",
    columns: 12,
    indices: Int32Array.from({ length: 12 }, (_, i) => i - (i % 3) + (2 - (i % 3))),
    factors: null,
  };
  expect(compose(shared, swap, new Budget(1e6))).toMatchObject({ times: 4, matrix: { rows: 2, columns: 3 } });
  expect(addMaps(shared, shared, new Budget(1e6))).toMatchObject({ times: 4 });
});
