import type { Ending, Tile } from "../../schedule/tile.js";
import { HALF, splitHalf, type Family } from "../family.js";
import { layers } from "../layers.js";
import { contracted, each, stored } from "./products.js";

/** How many vec4 of the inner dimension a group loads at a time. */
const GROUP_STEP = 4;

/**
 * Invocations that load the rows and weights of their tiles together, into workgroup memory: `down` below one another,
 * over rows, and `across` beside one another, over outputs.
 */
interface Group {
  readonly rows: number;
  readonly outputs: number;
  readonly down: number;
  readonly across: number;
  readonly half: boolean;
}

/** "layers 8x8 in groups of 8x8": rows x outputs of an invocation, invocations over rows x over outputs of a group. */
export const groups: Family = {
  example: "layers 8x8 in groups of 8x8",
  // To a processor workgroup memory is memory like any other, and a barrier a switch from invocation to invocation: groups took
  // 2 to 4 times as long there as the best of the other tiles.
  variants: ({ isFallback }) =>
    isFallback
      ? []
      : [
          { rows: 8, outputs: 8, down: 8, across: 8 },
          { rows: 4, outputs: 4, down: 16, across: 16 },
        ].flatMap((group) => [layers(tileOf({ ...group, half: false })), layers(tileOf({ ...group, half: true }))]),
  parse: (name) => {
    const [whole, half] = splitHalf(name);
    const found = /^layers (\d+)x(\d+) in groups of (4|8|16)x(4|8|16)$/.exec(whole);
    if (!found) return null;
    const [rows, outputs, down, across] = found.slice(1).map(Number) as [number, number, number, number];
    // A block of at most 64 x 64 results keeps within the invocations and the workgroup memory of every device, and all
    // invocations load alike.
    const isBlock = rows >= 1 && outputs >= 4 && outputs % 4 === 0 && rows * down <= 64 && outputs * across <= 64;
    if (!isBlock || (GROUP_STEP * rows) % across !== 0 || (GROUP_STEP * outputs) % down !== 0) return null;
    return { variant: layers(tileOf({ rows, outputs, down, across, half })), lanes: 0 };
  },
};

function tileOf(group: Group): Tile {
  const { rows, outputs, down, across, half } = group;
  return {
    name: `${rows}x${outputs} in groups of ${down}x${across}${half ? HALF : ""}`,
    rows,
    outputs,
    workgroup: down * across,
    down,
    across,
    half,
    // A scale is loaded once for all outputs of a block as it is.
    scalings: ["none", "each"],
    enables: half ? ["f16"] : [],
    main: (_, ending) => main(group, ending),
  };
}

/**
 * The entry point of a kernel that multiplies rows by a matrix, y = W x, in groups of invocations that read through
 * workgroup memory.
 *
 * A workgroup computes a block of `rows` * down rows and `outputs` * across outputs. In steps of a few vec4 of the inner
 * dimension it loads what the block needs of the rows, scaled, and of W's transpose, each number once; then every
 * invocation multiplies its tile out of workgroup memory. WGSL wants barriers where all invocations meet them: what a
 * workgroup does follows from its number alone, and no invocation leaves early. So rows and outputs past the last repeat
 * it, and what comes of them is dropped. Past the end of the inner dimension rows are 0, since the numbers there are another
 * row's and may be infinite; weights are what the buffer gives, since all of it is finite.
 *
 * Neighbouring invocations load neighbouring vec4. The rows of an invocation are `down` apart and its outputs `across`
 * vec4, so that neighbours also read neighbours, from different banks; for the same when they store their loads, numbers of
 * one k end two vec4 before those of the next begin.
 *
 * The sums are written as fused multiply-adds: of a matrix times a vector, added to a sum, a compiler makes some more instructions, which
 * took 7 % longer on an H200.
 *
 * Neighbouring workgroups share their rows, which memory then gives once: W is small and stays in a cache anyway.
 */
function main(group: Group, ending: Ending): string {
  const { rows, outputs, down, across, half } = group;
  const quads = outputs / 4;
  const results = (write: (row: number, quad: number) => string): string => each(rows, (row) => each(quads, (quad) => write(row, quad)));
  const rowLoads = (rows * GROUP_STEP) / across;
  const weightLoads = (4 * GROUP_STEP * quads) / down;
  const product = `
  let output = block * QUADS + local % ACROSS;
  ${each(quads, (quad) => `let output${quad} = min(output + ${quad}u * ACROSS, p.outer - 1u);`)}
  ${each(
    weightLoads,
    (load) => `
  let weight${load} = local + ${load}u * WORKGROUP_SIZE;
  let weight_at${load} = weight${load} / QUADS * p.outer + min(block * QUADS + weight${load} % QUADS, p.outer - 1u);`,
  )}
  ${results((row, quad) => `var y${row}_${quad} = start(row${row}, output${quad});`)}
  for (var first = 0u; first < p.inner; first += STEP) {
    workgroupBarrier();
    let k = first + local % STEP;
    ${each(rowLoads, (load) => `block_rows[row_slot + ${load}u * WORKGROUP_SIZE / STEP] = select(vec4f(), element(row_at${load}, k), k < p.inner);`)}
    ${each(weightLoads, (load) => `block_weights[weight${load}] = vec4f(weight[first * 4u * p.outer + weight_at${load}]);`)}
    workgroupBarrier();
    for (var i = 0u; i < STEP; i++) {
      let x = i * ROWS_APART + local / ACROSS;
      let w = i * 4u * QUADS + local % ACROSS;
      ${each(rows, (row) => `let x${row} = block_rows[x + ${row}u * DOWN];`)}
      ${each(quads, (quad) => each(4, (inner) => `let column${quad}_${inner} = vec4f(block_weights[w + ${inner}u * QUADS + ${quad}u * ACROSS]);`))}
      ${each(4, (inner) => results((row, quad) => `y${row}_${quad} = fma(column${quad}_${inner}, vec4f(x${row}[${inner}]), y${row}_${quad});`))}
    }
  }
  let y = array(
    ${results((row, quad) => `y${row}_${quad},`)}
  );`;
  const places = {
    row: (i: string) => `row + ${i} / ${quads}u * DOWN`,
    output: (i: string) => `output + ${i} % ${quads}u * ACROSS`,
  };
  const contraction = `
  ${contracted(group, product, places, "block_sums[local % ACROSS * ROWS + local / ACROSS + r * DOWN] = sums[r];")}
  workgroupBarrier();
  for (var r = local; r < ROWS; r += WORKGROUP_SIZE) {
    var sum = 0.0;
    for (var i = 0u; i < ACROSS; i++) {
      sum += block_sums[i * ROWS + r];
    }
    finish(first_row + r, part, sum);
  }`;

  return `
alias Weight = ${half ? "vec4h" : "vec4f"};
const ACROSS = ${across}u;
const DOWN = ${down}u;
const ROWS = ${rows * down}u;
const QUADS = ${quads * across}u;
const STEP = ${GROUP_STEP}u;
const ROWS_APART = ROWS + 2u;

var<workgroup> block_rows: array<vec4f, STEP * ROWS_APART>;
var<workgroup> block_weights: array<vec4f, 4u * STEP * QUADS>;
${ending === "contracts" ? "var<workgroup> block_sums: array<f32, ROWS * ACROSS>;" : ""}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) workgroups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let blocks = (p.outer + QUADS - 1u) / QUADS;
  let parts = ${ending === "contracts" ? "p.parts" : "blocks"};
  let group = workgroup.y * workgroups.x + workgroup.x;
  if (group >= (p.rows + ROWS - 1u) / ROWS * parts) {
    return;
  }
  let part = group % parts;
  let first_row = group / parts * ROWS;
  let row = first_row + local / ACROSS;
  let row_slot = local % STEP * ROWS_APART + local / STEP;
  ${each(rows, (r) => `let row${r} = min(row + ${r}u * DOWN, p.rows - 1u);`)}
  ${each(rowLoads, (load) => `let row_at${load} = address(min(first_row + local / STEP + ${load}u * WORKGROUP_SIZE / STEP, p.rows - 1u));`)}
  ${ending === "contracts" ? contraction : stored(group, product, places)}
}
`;
}
