import { WORKGROUP_SIZE } from "../../schedule/steps.js";
import type { Ending, Scaling, Tile } from "../../schedule/tile.js";
import { HALF, splitHalf, type Family } from "../family.js";
import { layers } from "../layers.js";
import { lanesOf } from "./lanes.js";
import { contracted, each, multiplied, outputsOf, scaledRows, stored, sumsOf, type Cut, type Weights } from "./products.js";

/** How many lanes a name may ask for; 0: none. */
const LANES = [0, 4, 8, 16, 32, 64];

/** "layers 8x16", "layers 4x16 by 8 lanes": rows x outputs of an invocation, and lanes that hand weights to one another. */
export const tiles: Family = {
  example: "layers 4x16 by 8 lanes",
  variants: ({ lanes: most, isFallback }) => {
    const lanes = Math.min(32, most);
    const cuts: Cut[] = [];
    // Processors take ten seconds to compile these, and are faster by lanes.
    if (lanes < 4 || !isFallback)
      cuts.push({ rows: 8, outputs: 8, lanes: 0, half: false }, { rows: 8, outputs: 16, lanes: 0, half: false });
    // A lane per weight of a tile's outputs, or of several columns of them.
    if (lanes >= 4) cuts.push({ rows: 4, outputs: 16, lanes, half: false }, { rows: 8, outputs: 16, lanes, half: false });
    return cuts.flatMap((cut) => [layers(tileOf(cut)), layers(tileOf({ ...cut, half: true }))]);
  },
  parse: (name) => {
    const [whole, half] = splitHalf(name);
    const found = /^layers (\d+)x(\d+)(?: by (\d+) lanes)?$/.exec(whole);
    const [rows, outputs, lanes] = [Number(found?.[1]), Number(found?.[2]), Number(found?.[3] ?? 0)];
    if (!(rows >= 1 && rows <= 16 && outputs >= 4 && outputs <= 32 && outputs % 4 === 0 && LANES.includes(lanes))) return null;
    return { variant: layers(tileOf({ rows, outputs, lanes, half })), lanes };
  },
};

function tileOf(cut: Cut): Tile {
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

/**
 * The entry point of a kernel that multiplies rows by a matrix, y = W x, as shaders/lib/product.wgsl has it for the plain tile.
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
  const { setup, loads, columns } = lanes > 0 ? lanesOf(cut) : OWN_WEIGHTS;
  const product = `
  ${outputsOf(outputs)}
  ${setup}
  ${sumsOf(cut, `${scaledRows(rows, scaling)}\n${loads}\n${multiplied(cut, columns)}`)}`;
  const places = {
    row: (i: string) => `row + ${i} / ${quads}u`,
    output: (i: string) => `output + ${i} % ${quads}u`,
  };
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
  ${ending === "contracts" ? contracted(cut, product, places, "finish(row + r, part, sums[r]);") : stored(cut, product, places)}
}
`;
}

/** Each invocation loads all weights that it needs. */
const OWN_WEIGHTS: Weights = {
  setup: "",
  loads: "let w = k * 4u * p.outer;",
  columns: (quad) => [0, 1, 2, 3].map((inner) => `vec4f(weight[w + ${inner}u * p.outer + output${quad}])`).join(", "),
};

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
