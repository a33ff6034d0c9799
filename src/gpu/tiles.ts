import type { Scaling } from "../plan/steps.js";
import type { Tile } from "../plan/variants.js";

/**
 * The entry point of a kernel that multiplies rows by a matrix, y = W x, and the type of its weights' buffer. That of tiles in
 * groups is in groupTiles.ts.
 *
 * An invocation computes `rows` x `outputs` results: each weight that it reads serves all its rows, each number of a row
 * all its outputs. Sums are variables of their own, since some compilers leave arrays in memory; what becomes of them is
 * a loop over an array all the same, since compilers take seconds over many copies of it. Rows and outputs past the last
 * repeat it, and what comes of them is dropped.
 *
 * Without lanes, neighbouring invocations share the outputs and so the weights, also across a workgroup's end, so that few
 * rows fill workgroups too. With lanes, a whole workgroup does, and has no more invocations than lanes, lest few rows leave
 * most of them idle. WGSL wants subgroup operations where all invocations meet them: outputs follow from the workgroup
 * alone, and no invocation leaves early.
 *
 * The kernel's own text has the parameters rows, inner and outer, the buffer weight: array<Weight>, and
 * `address(row)`, where a row begins, `load(address, k)`, its vec4 number k, where there is a scaling `load_scale(address, k)`,
 * what that is multiplied by, `start(row, output)`, what 4 outputs are added
 * to, and `finish(row, output, y)`, which takes their sums. Where it `contracts`, `contracted(row, output, y) -> f32` takes
 * them, and `finish(row, part, sum)` what that gave for all outputs of a part: part q of the parameter parts has every
 * parts-th block of outputs from q on.
 */
export function tiledMain(tile: Tile, scaling: Scaling, contracts: boolean, byLanes: ByLanes | undefined): string {
  const { rows } = tile;
  const quads = tile.outputs / 4;
  const { setup, loads, columns } = weightsOf(tile, "weight", byLanes);
  const product = `
  ${outputsOf(tile, setup)}
  ${sumsOf(tile, (row, quad) => `start(row${row}, output${quad})`, `${scaledRows(rows, scaling)}\n${loads}\n${multiplied(tile, columns)}`)}`;
  const whole = `
  let block = part;
  ${product}
  for (var i = 0u; i < ${rows * quads}u; i++) {
    finish(row + i / ${quads}u, output + i % ${quads}u, y[i]);
  }`;
  const contraction = `
  var sums: array<f32, ${rows}>;
  for (var block = part; block < blocks; block += parts) {
    ${product}
    for (var i = 0u; i < ${rows * quads}u; i++) {
      let r = i / ${quads}u;
      sums[r] += contracted(min(row + r, p.rows - 1u), output + i % ${quads}u, y[i]);
    }
  }
  for (var r = 0u; r < ${rows}u; r++) {
    finish(row + r, part, sums[r]);
  }`;

  return entryPoint(
    tile,
    contracts ? "p.parts" : "blocks",
    byLanes,
    `${each(rows, (row) => `let at${row} = address(row${row});`)}
  ${contracts ? contraction : whole}`,
  );
}

/** An entry point whose invocations have a part of the outputs and consecutive rows, row0, row1, ... */
export function entryPoint(tile: Tile, parts: string, byLanes: ByLanes | undefined, body: string): string {
  const { rows, lanes } = tile;
  return `
alias Weight = ${weightType(tile)};
${lanes === 4 ? byLanes!.IN_ORDER : ""}
@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) workgroups: vec3u,
  @builtin(local_invocation_index) local: u32,
  ${lanes > 0 ? "@builtin(subgroup_invocation_id) subgroup_lane: u32," : ""}
) {
  let blocks = (p.outer + ${tile.outputs / 4 - 1}u) / ${tile.outputs / 4}u;
  let parts = ${parts};
  let group = workgroup.y * workgroups.x + workgroup.x;
  ${lanes > 0 ? byLanes!.rowsOfWorkgroup(rows) : rowsOfInvocation(rows)}
  ${each(rows, (row) => `let row${row} = min(row + ${row}u, p.rows - 1u);`)}
  ${body}
}
`;
}

/** The outputs of a block, output0, output1, ... in vec4s, and what the loads of their weights need. */
export function outputsOf({ outputs }: Tile, setup: string): string {
  return `
  let output = block * ${outputs / 4}u;
  ${each(outputs / 4, (quad) => `let output${quad} = min(output + ${quad}u, p.outer - 1u);`)}
  ${setup}`;
}

/** A tile's sums over k, from what each starts with, as an array y: 4 outputs after the other of row after row. */
export function sumsOf({ rows, outputs, lanes }: Tile, start: (row: number, quad: number) => string, step: string): string {
  const sums = (write: (row: number, quad: number) => string): string => each(rows, (row) => each(outputs / 4, (quad) => write(row, quad)));
  const [first, last] =
    lanes === 4
      ? [() => "vec4f()", (row: number, quad: number) => `in_order(y${row}_${quad}, lane) + ${start(row, quad)}`]
      : [start, (row: number, quad: number) => `y${row}_${quad}`];
  return `
  ${sums((row, quad) => `var y${row}_${quad} = ${first(row, quad)};`)}
  for (var k = 0u; k < p.inner; k++) {
    ${step}
  }
  let y = array(
    ${sums((row, quad) => `${last(row, quad)},`)}
  );`;
}

/** Adds to the sums y what 4 columns of 4 numbers of W, as `columns` names them for 4 outputs, make of the rows x. */
export function multiplied({ rows, outputs }: Tile, columns: (quad: number) => string): string {
  return each(
    outputs / 4,
    (quad) => `
    let columns${quad} = mat4x4f(${columns(quad)});
    ${each(rows, (row) => `y${row}_${quad} += columns${quad} * x${row};`)}`,
  );
}

export function weightType({ lanes, half }: Tile): string {
  if (lanes > 0) return half ? "f16" : "f32";
  return half ? "vec4h" : "vec4f";
}

/** vec4 number k of each row. */
function scaledRows(rows: number, scaling: Scaling): string {
  switch (scaling) {
    case "none":
      return each(rows, (row) => `let x${row} = load(at${row}, k);`);
    case "each":
      return each(rows, (row) => `let x${row} = load_scale(at${row}, k) * load(at${row}, k);`);
    case "together":
      return `let s = load_scale(at0, k);\n${each(rows, (row) => `let x${row} = s * load(at${row}, k);`)}`;
  }
}

/** A part and the first row, from the number of the invocation. */
function rowsOfInvocation(rows: number): string {
  return `
  let i = group * WORKGROUP_SIZE + local;
  let groups = (p.rows + ${rows - 1}u) / ${rows}u;
  if (i >= groups * parts) {
    return;
  }
  let part = i / groups;
  let row = (i % groups) * ${rows}u;`;
}

/** Statements before the loop over k and in it, and 4 columns of 4 numbers of W, which stand for 4 outputs. */
export interface Weights {
  readonly setup: string;
  readonly loads: string;
  readonly columns: (quad: number) => string;
}

/** What lanes.ts exports, which is loaded when kernels are tried; tiles without lanes do without. */
export type ByLanes = typeof import("./lanes.js");

/** Out of the buffer of that name. */
export function weightsOf(tile: Tile, buffer: string, byLanes: ByLanes | undefined): Weights {
  return tile.lanes > 0 ? byLanes!.handedAround(tile, buffer) : ownWeights(buffer);
}

/** Each invocation loads all weights that it needs. */
function ownWeights(buffer: string): Weights {
  return {
    setup: "",
    loads: "let w = k * 4u * p.outer;",
    columns: (quad) => [0, 1, 2, 3].map((inner) => `vec4f(${buffer}[w + ${inner}u * p.outer + output${quad}])`).join(", "),
  };
}

/** One line for each of `count` numbers. */
export function each(count: number, write: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => write(index)).join("\n");
}
