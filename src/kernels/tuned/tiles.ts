import { WORKGROUP_SIZE } from "../../schedule/steps.js";
import type { Ending, Scaling, Tile } from "../../schedule/tile.js";
import { HALF } from "../capabilities.js";

/** Results of an invocation, rows x outputs; lanes that hand weights around, 0: none; whether weights are float16. */
interface Cut {
  readonly rows: number;
  readonly outputs: number;
  readonly lanes: number;
  readonly half: boolean;
}

/** "8x16", "4x16 by 8 lanes": larger tiles than the plain ones. The outputs of one that lanes share are a multiple of the lanes. */
export function tileOf(cut: Cut): Tile {
  const { rows, outputs, lanes, half } = cut;
  return {
    name: `${rows}x${outputs}${lanes > 0 ? ` by ${lanes} lanes` : ""}${half ? HALF : ""}`,
    rows,
    outputs,
    // Lanes that hand weights around are a workgroup of their own: it shares its outputs, and so needs rows for every lane.
    workgroup: lanes > 0 ? lanes : WORKGROUP_SIZE,
    down: Math.max(1, lanes),
    across: 1,
    half,
    scalings: ["none", "each", "together"],
    enables: [...(lanes > 0 ? ["subgroups"] : []), ...(half ? ["f16"] : [])],
    main: (scaling, ending) => main(cut, scaling, ending),
  };
}

/** One line for each of `count` numbers. */
function each(count: number, write: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => write(index)).join("\n");
}

/**
 * The entry point of a kernel that multiplies rows by a matrix, y = W x, as shaders/lib/product.wgsl has it for the plain tile; what it
 * needs of the kernel's own text is listed there.
 *
 * An invocation computes `rows` x `outputs` results: each weight that it reads serves all its rows, each number of a row
 * all its outputs. Rows and outputs past the last repeat it, and what comes of them is dropped.
 *
 * Without lanes, neighbouring invocations share the outputs and so the weights, also across a workgroup's end, so that few
 * rows fill workgroups too. With lanes, a whole workgroup does, and has no more invocations than lanes, lest few rows leave
 * most of them idle. WGSL wants subgroup operations where all invocations meet them: outputs follow from the workgroup
 * alone, and no invocation leaves early.
 */
function main(cut: Cut, scaling: Scaling, ending: Ending): string {
  const { rows, outputs, lanes, half } = cut;
  const quads = outputs / 4;
  const { setup, loads, columns } = lanes > 0 ? sharedWeights(cut) : OWN_WEIGHTS;
  const all = (write: (row: number, quad: number) => string): string => each(rows, (row) => each(quads, (quad) => write(row, quad)));
  // The sums are variables of their own until they are done, since some compilers leave arrays in memory; what becomes of them is a loop
  // over the array all the same, since compilers take seconds over many copies of it.
  const product = `
  let output = block * ${quads}u;
  ${each(quads, (quad) => `let output${quad} = min(output + ${quad}u, p.outer - 1u);`)}
  ${setup}
  ${all((row, quad) => `var y${row}_${quad} = start(row${row}, output${quad});`)}
  for (var k = 0u; k < p.inner; k++) {
    ${scaling === "together" ? "let s = load_scale(at0, k);" : ""}
    ${each(rows, (row) => `let x${row} = ${scaling === "together" ? `s * load(at${row}, k)` : `element(at${row}, k)`};`)}
    ${loads}
    ${each(
      quads,
      (quad) => `
    let columns${quad} = mat4x4f(${columns(quad)});
    ${each(rows, (row) => `y${row}_${quad} += columns${quad} * x${row};`)}`,
    )}
  }
  let y = array(
    ${all((row, quad) => `y${row}_${quad},`)}
  );`;
  return `
alias Weight = ${lanes > 0 ? (half ? "f16" : "f32") : half ? "vec4h" : "vec4f"};
@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) workgroups: vec3u,
  @builtin(local_invocation_index) local: u32,
  ${lanes > 0 ? "@builtin(subgroup_invocation_id) subgroup_lane: u32," : ""}
) {
  let blocks = (p.outer + ${quads - 1}u) / ${quads}u;
  let parts = ${ending === "contracts" ? "p.parts" : "blocks"};
  let group = workgroup.y * workgroups.x + workgroup.x;
  ${lanes > 0 ? rowsOfWorkgroup(rows) : rowsOfInvocation(rows)}
  ${each(rows, (r) => `let row${r} = min(row + ${r}u, p.rows - 1u);\nlet at${r} = address(row${r});`)}
  ${ending === "contracts" ? contracted(cut, product) : stored(cut, product)}
}
`;
}

/** Hands over the results of a block. */
function stored({ rows, outputs }: Cut, product: string): string {
  const quads = outputs / 4;
  return `
  let block = part;
  ${product}
  for (var i = 0u; i < ${rows * quads}u; i++) {
    finish(row + i / ${quads}u, output + i % ${quads}u, y[i]);
  }`;
}

/** Sums up the results of all blocks of a part. */
function contracted({ rows, outputs }: Cut, product: string): string {
  const quads = outputs / 4;
  return `
  var sums: array<f32, ${rows}>;
  for (var block = part; block < blocks; block += parts) {
    ${product}
    for (var i = 0u; i < ${rows * quads}u; i++) {
      sums[i / ${quads}u] += contracted(min(row + i / ${quads}u, p.rows - 1u), output + i % ${quads}u, y[i]);
    }
  }
  for (var r = 0u; r < ${rows}u; r++) {
    finish(row + r, part, sums[r]);
  }`;
}

/** Statements before the loop over k and in it, and 4 columns of 4 numbers of W, which stand for 4 outputs. */
interface Weights {
  readonly setup: string;
  readonly loads: string;
  readonly columns: (quad: number) => string;
}

/** Each invocation loads all weights that it needs. */
const OWN_WEIGHTS: Weights = {
  setup: "",
  loads: "let w = k * 4u * p.outer;",
  columns: (quad) => [0, 1, 2, 3].map((inner) => `vec4f(weight[w + ${inner}u * p.outer + output${quad}])`).join(", "),
};

/** Each lane loads one number and broadcasts it; a load covers `lanes` outputs of a row of W's transpose. */
function sharedWeights({ outputs, lanes }: Cut): Weights {
  const loads = outputs / lanes;
  const broadcast = (inner: number, output: number): string =>
    `subgroupBroadcast(w${inner}_${Math.floor(output / lanes)}, ${output % lanes}u)`;
  return {
    setup: `
  let width = p.outer * 4u;
  ${each(loads, (load) => `let at_lane${load} = min(output * 4u + ${load * lanes}u + subgroup_lane % ${lanes}u, width - 1u);`)}`,
    loads: each(4, (inner) => each(loads, (load) => `let w${inner}_${load} = f32(weight[(k * 4u + ${inner}u) * width + at_lane${load}]);`)),
    columns: (quad) =>
      [0, 1, 2, 3].map((inner) => `vec4f(${[0, 1, 2, 3].map((o) => broadcast(inner, quad * 4 + o)).join(", ")})`).join(",\n      "),
  };
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

/** A part from the number of the workgroup, the first row from both. */
function rowsOfWorkgroup(rows: number): string {
  return `
  let groups = (p.rows + ${rows}u * WORKGROUP_SIZE - 1u) / (${rows}u * WORKGROUP_SIZE);
  if (group >= groups * parts) {
    return;
  }
  let part = group / groups;
  let row = ((group % groups) * WORKGROUP_SIZE + local) * ${rows}u;`;
}
