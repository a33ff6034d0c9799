import { OUTPUTS, sizeOf, type Output } from "./plan/outputs.js";
import type { Plan } from "./plan/plan.js";
import { meanRows, sumRowsInto } from "./plan/reduce.js";
import { allocate, spoilRows } from "./rows.js";
import type { Read } from "./schedule/steps.js";

/** The arrays that an evaluation gives back, filled piece by piece from what comes back. */
export class Results {
  readonly arrays: Partial<Record<Output, Float32Array>>;
  /** J t of jvp, [count, d]; else null. */
  readonly tangent: Float32Array | null;
  /** Of an estimate, [count]; else null. */
  readonly standardError: Float32Array | null;
  private readonly d: number;

  /**
   * @param population as meanRows takes it.
   * @throws LimitError where an array would be too large.
   */
  constructor(
    private readonly plan: Plan,
    count: number,
    private readonly population: number = Infinity,
  ) {
    this.d = plan.graph.stateSize;
    this.arrays = Object.fromEntries(plan.outputs.map((output) => [output, allocate(output, count, sizeOf(output, this.d))]));
    this.tangent = plan.method === "jvp" ? allocate("the result", count, this.d) : null;
    this.standardError = plan.kind === "trace" && plan.probesPer !== null ? new Float32Array(count) : null;
  }

  /** Takes the numbers of `rows` points from `first`: [rows, read.width]. */
  take(read: Read, first: number, rows: number, data: Float32Array): void {
    if (read.what === "tangent") this.tangent!.set(data, first * this.d);
    for (const output of this.plan.outputs) {
      const { from, by } = OUTPUTS[output];
      const array = this.arrays[output]!;
      if (from !== read.what) continue;
      if (by === "copy") array.set(data, first * sizeOf(output, this.d));
      else if (by === "columns") setColumns(array, data, first, rows, this.d, read.first, read.columns);
      else if (!this.standardError) sumRowsInto(array.subarray(first, first + rows), data, read.width);
      else {
        const { mean, standardError } = meanRows(data, rows, read.width, this.population);
        array.set(mean, first);
        this.standardError.set(standardError, first);
      }
    }
  }

  /** Everything of the points that are marked becomes NaN. */
  spoil(marked: Uint8Array): void {
    const outputs = Object.entries(this.arrays) as [Output, Float32Array][];
    const arrays = outputs.map(([output, array]) => [array, sizeOf(output, this.d)] as const);
    spoilRows(marked, [...arrays, [this.standardError, 1], [this.tangent, this.d]]);
  }

  /** All of them, as an evaluation gives them back. */
  asEvaluation(kernels: string, shape: readonly number[]): object {
    const { plan, arrays, standardError } = this;
    return { method: plan.method, kernels, shape, ...arrays, ...(standardError && { standardError }) };
  }
}

/** Columns [from, from + columns) of each point's J, given as [rows, d, columns], to their places in [.., d, d]. */
function setColumns(
  jacobian: Float32Array,
  strip: Float32Array,
  first: number,
  rows: number,
  d: number,
  from: number,
  columns: number,
): void {
  if (columns === d) return jacobian.set(strip, first * d * d);
  for (let row = 0; row < rows * d; row++) jacobian.set(strip.subarray(row * columns, (row + 1) * columns), (first * d + row) * d + from);
}
