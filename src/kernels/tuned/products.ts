/**
 * What the loops of larger tiles are written of. A kernel's own text has the parameters rows, inner and outer, the buffer
 * weight: array<Weight>, and `address(row)`, where a row begins, `element(address, k)`, its vec4 number k, scaled, where it has a
 * scale `load(address, k)` and `load_scale(address, k)`, the two apart, `start(row, output)`, what 4 outputs are added to, and
 * `finish(row, output, y)`, which takes their sums. Where it contracts, `contracted(row, output, y) -> f32` takes them, and
 * `finish(row, part, sum)` what that gave for all outputs of a part: part q of the parameter parts has every parts-th block of
 * outputs from q on.
 */
import type { Scaling } from "../../schedule/tile.js";

/** Results of an invocation, rows x outputs; lanes that hand weights around, 0: none; whether weights are float16. */
export interface Cut {
  readonly rows: number;
  readonly outputs: number;
  readonly lanes: number;
  readonly half: boolean;
}

/** Statements before the loop over k and in it, and 4 columns of 4 numbers of W, which stand for 4 outputs. */
export interface Weights {
  readonly setup: string;
  readonly loads: string;
  readonly columns: (quad: number) => string;
}

/** Where result i of an invocation stands, row after row. */
interface Places {
  readonly row: (i: string) => string;
  readonly output: (i: string) => string;
}

/** One line for each of `count` numbers. */
export function each(count: number, write: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => write(index)).join("\n");
}

/** The outputs of a block, output0, output1, ... in vec4s. */
export function outputsOf(outputs: number): string {
  return `
  let output = block * ${outputs / 4}u;
  ${each(outputs / 4, (quad) => `let output${quad} = min(output + ${quad}u, p.outer - 1u);`)}`;
}

/** vec4 number k of each row. */
export function scaledRows(rows: number, scaling: Scaling): string {
  if (scaling !== "together") return each(rows, (row) => `let x${row} = element(at${row}, k);`);
  return `let s = load_scale(at0, k);\n${each(rows, (row) => `let x${row} = s * load(at${row}, k);`)}`;
}

/**
 * A tile's sums over k, as an array y: 4 outputs after the other of row after row. They are variables of their own until then,
 * since some compilers leave arrays in memory; what becomes of them is a loop over the array all the same, since compilers take
 * seconds over many copies of it.
 */
export function sumsOf({ rows, outputs }: Cut, step: string): string {
  const all = (write: (row: number, quad: number) => string): string => each(rows, (row) => each(outputs / 4, (quad) => write(row, quad)));
  return `
  ${all((row, quad) => `var y${row}_${quad} = start(row${row}, output${quad});`)}
  for (var k = 0u; k < p.inner; k++) {
    ${step}
  }
  let y = array(
    ${all((row, quad) => `y${row}_${quad},`)}
  );`;
}

/** Adds to the sums y what 4 columns of 4 numbers of W, as `columns` names them for 4 outputs, make of the rows x. */
export function multiplied({ rows, outputs }: Pick<Cut, "rows" | "outputs">, columns: (quad: number) => string): string {
  return each(
    outputs / 4,
    (quad) => `
    let columns${quad} = mat4x4f(${columns(quad)});
    ${each(rows, (row) => `y${row}_${quad} += columns${quad} * x${row};`)}`,
  );
}

/** Hands over the results of a block. */
export function stored({ rows, outputs }: Pick<Cut, "rows" | "outputs">, product: string, { row, output }: Places): string {
  return `
  let block = part;
  ${product}
  for (var i = 0u; i < ${(rows * outputs) / 4}u; i++) {
    finish(${row("i")}, ${output("i")}, y[i]);
  }`;
}

/** Sums up the results of all blocks of a part. */
export function contracted(
  { rows, outputs }: Pick<Cut, "rows" | "outputs">,
  product: string,
  { row, output }: Places,
  finish: string,
): string {
  return `
  var sums: array<f32, ${rows}>;
  for (var block = part; block < blocks; block += parts) {
    ${product}
    for (var i = 0u; i < ${(rows * outputs) / 4}u; i++) {
      sums[i / ${outputs / 4}u] += contracted(min(${row("i")}, p.rows - 1u), ${output("i")}, y[i]);
    }
  }
  for (var r = 0u; r < ${rows}u; r++) {
    ${finish}
  }`;
}
