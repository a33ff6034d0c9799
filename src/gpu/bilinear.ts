import bilinear from "../../shaders/bilinear.wgsl?raw";
import type { Tile } from "../plan/variants.js";
import * as byLanes from "./lanes.js";
import { each, entryPoint, multiplied, outputsOf, sumsOf, weightsOf } from "./tiles.js";

export { bilinear };

/**
 * The entry point of shaders/bilinear.wgsl: for each block of a part's outputs one product after the other, the slopes of the
 * first in an array. Tiles as in tiledMain.
 */
export function bilinearMain(tile: Tile): string {
  const { rows, outputs } = tile;
  const quads = outputs / 4;
  const product = (weight: string, rowAt: (row: number) => string, start: (row: number, quad: number) => string): string => {
    const { loads, columns } = weightsOf(tile, weight, byLanes);
    return sumsOf(tile, start, `${each(rows, (row) => `let x${row} = ${rowAt(row)};`)}\n${loads}\n${multiplied(tile, columns)}`);
  };
  return entryPoint(
    tile,
    "p.parts",
    byLanes,
    `
  var sums: array<f32, ${rows}>;
  for (var block = part; block < blocks; block += parts) {
    ${outputsOf(tile, weightsOf(tile, "weight", byLanes).setup)}
    var slopes: array<vec4f, ${rows * quads}>;
    {
      ${product(
        "weight",
        (row) => `a[row${row} * p.input_per_row + k]`,
        (row, quad) => `prior[row${row} * p.prior_per_row + output${quad}]`,
      )}
      for (var i = 0u; i < ${rows * quads}u; i++) {
        slopes[i] = activated(row + i / ${quads}u, output + i % ${quads}u, y[i]);
      }
    }
    ${product(
      "form",
      (row) => `scale[row${row} * p.scale_per_row + k]`,
      () => "vec4f()",
    )}
    for (var i = 0u; i < ${rows * quads}u; i++) {
      sums[i / ${quads}u] += dot(slopes[i], y[i]);
    }
  }
  for (var r = 0u; r < ${rows}u; r++) {
    finish(row + r, part, sums[r]);
  }`,
  );
}
