import type { Scaling } from "../plan/steps.js";
import { GROUP_STEP, type Tile } from "../plan/variants.js";
import { each, multiplied, weightType } from "./tiles.js";

/**
 * The entry point of a kernel that multiplies rows by a matrix, y = W x, in groups of invocations that read through
 * workgroup memory, and the type of its weights' buffer. The kernel's own text is the one that tiledMain takes.
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
 * Neighbouring workgroups share their rows, which memory then gives once: W is small and stays in a cache anyway.
 */
export function groupMain(tile: Tile, scaling: Scaling, contracts: boolean): string {
  const { rows, outputs, group } = tile;
  const { across, down } = group!;
  const quads = outputs / 4;
  const results = (write: (row: number, quad: number) => string): string => each(rows, (row) => each(quads, (quad) => write(row, quad)));
  const rowLoads = (rows * GROUP_STEP) / across;
  const weightLoads = (4 * GROUP_STEP * quads) / down;
  const scaled = (at: string): string => `${scaling === "none" ? "" : `load_scale(${at}, k) * `}load(${at}, k)`;
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
    ${each(rowLoads, (load) => `block_rows[row_slot + ${load}u * WORKGROUP_SIZE / STEP] = select(vec4f(), ${scaled(`row_at${load}`)}, k < p.inner);`)}
    ${each(weightLoads, (load) => `block_weights[weight${load}] = vec4f(weight[first * 4u * p.outer + weight_at${load}]);`)}
    workgroupBarrier();
    for (var i = 0u; i < STEP; i++) {
      let x = i * ROWS_APART + local / ACROSS;
      let w = i * 4u * QUADS + local % ACROSS;
      ${each(rows, (row) => `let x${row} = block_rows[x + ${row}u * DOWN];`)}
      ${multiplied(tile, (quad) => [0, 1, 2, 3].map((inner) => `block_weights[w + ${inner}u * QUADS + ${quad}u * ACROSS]`).join(", "))}
    }
  }
  let y = array(
    ${results((row, quad) => `y${row}_${quad},`)}
  );`;
  const whole = `
  let block = part;
  ${product}
  for (var i = 0u; i < ${rows * quads}u; i++) {
    finish(row + i / ${quads}u * DOWN, output + i % ${quads}u * ACROSS, y[i]);
  }`;
  const contraction = `
  var sums: array<f32, ${rows}>;
  for (var block = part; block < blocks; block += parts) {
    ${product}
    for (var i = 0u; i < ${rows * quads}u; i++) {
      let r = i / ${quads}u;
      sums[r] += contracted(min(row + r * DOWN, p.rows - 1u), output + i % ${quads}u * ACROSS, y[i]);
    }
  }
  for (var r = 0u; r < ${rows}u; r++) {
    block_sums[local % ACROSS * ROWS + local / ACROSS + r * DOWN] = sums[r];
  }
  workgroupBarrier();
  for (var r = local; r < ROWS; r += WORKGROUP_SIZE) {
    var sum = 0.0;
    for (var i = 0u; i < ACROSS; i++) {
      sum += block_sums[i * ROWS + r];
    }
    finish(first_row + r, part, sum);
  }`;

  return `
alias Weight = ${weightType(tile)};
const ACROSS = ${across}u;
const DOWN = ${down}u;
const ROWS = ${rows * down}u;
const QUADS = ${quads * across}u;
const STEP = ${GROUP_STEP}u;
const ROWS_APART = ROWS + 2u;

var<workgroup> block_rows: array<vec4f, STEP * ROWS_APART>;
var<workgroup> block_weights: array<vec4f, 4u * STEP * QUADS>;
${contracts ? "var<workgroup> block_sums: array<f32, ROWS * ACROSS>;" : ""}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) workgroups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let blocks = (p.outer + QUADS - 1u) / QUADS;
  let parts = ${contracts ? "p.parts" : "blocks"};
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
  ${contracts ? contraction : whole}
}
`;
}
