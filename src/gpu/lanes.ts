/** What differs in tiles.ts where the lanes of a subgroup hand weights around. */
import type { Tile } from "../plan/variants.js";
import { each, type Weights } from "./tiles.js";

/**
 * Each lane loads one number and broadcasts it. A load covers `lanes` outputs of a row of W's transpose, or several rows
 * where their outputs are no more than half of the lanes.
 *
 * Four lanes, SwiftShader's, swap in quads instead, a single instruction there where a broadcast takes some 20: number s of
 * a lane's four is that of lane ^ s, and so are its results.
 */
export function handedAround({ outputs, lanes }: Tile, buffer: string): Weights {
  const atOnce = lanes >= 4 * outputs ? 4 : lanes >= 2 * outputs ? 2 : 1;
  const loads = Math.ceil(outputs / lanes);
  const broadcast = (inner: number, output: number): string => {
    const load = Math.floor(output / lanes);
    return `subgroupBroadcast(w${Math.floor(inner / atOnce)}_${load}, ${(inner % atOnce) * outputs + output - load * lanes}u)`;
  };
  return {
    setup: `
  let lane = subgroup_lane % ${lanes}u;
  let width = p.outer * 4u;
  let inner = min(lane / ${outputs}u, ${atOnce - 1}u);
  ${each(loads, (load) => `let at_lane${load} = inner * width + min(output * 4u + ${load * lanes}u + lane % ${outputs}u, width - 1u);`)}`,
    loads: each(4 / atOnce, (row) =>
      each(loads, (load) => `let w${row}_${load} = f32(${buffer}[(k * 4u + ${row * atOnce}u) * width + at_lane${load}]);`),
    ),
    columns: (quad) =>
      [0, 1, 2, 3]
        .map((inner) =>
          lanes === 4
            ? swapped(`w${inner}_${quad}`)
            : `vec4f(${[0, 1, 2, 3].map((output) => broadcast(inner, quad * 4 + output)).join(", ")})`,
        )
        .join(",\n      "),
  };
}

function swapped(own: string): string {
  return `vec4f(${own}, quadSwapX(${own}), quadSwapY(${own}), quadSwapDiagonal(${own}))`;
}

/** Four lanes swap their numbers in quads: see handedAround. */
export const IN_ORDER = `
// Outputs 0 to 3 of a lane whose number s is output lane ^ s.
fn in_order(y: vec4f, lane: u32) -> vec4f {
  let pairs = select(y, y.yxwz, (lane & 1u) != 0u);
  return select(pairs, pairs.zwxy, (lane & 2u) != 0u);
}
`;

/** A part from the number of the workgroup, the first row from both. */
export function rowsOfWorkgroup(rows: number): string {
  return `
  let groups = (p.rows + ${rows}u * WORKGROUP_SIZE - 1u) / (${rows}u * WORKGROUP_SIZE);
  if (group >= groups * parts) {
    return;
  }
  let part = group / groups;
  let row = ((group % groups) * WORKGROUP_SIZE + local) * ${rows}u;`;
}
