import type { Wrt } from "./inputs.js";
import type { Matrix, Network, Numbers } from "./model/network.js";
import { parameterLayout, type Parameter } from "./model/parameters.js";
import { planned, type PlannedMatrix } from "./plan/matrices.js";
import { parameterGradient } from "./plan/parameters.js";
import type { GradientPlan } from "./plan/plan.js";
import { sumRowsInto } from "./plan/reduce.js";
import { allocate, copyRows, spoilRows } from "./rows.js";
import type { Read } from "./schedule/steps.js";

/** The arrays that a gradient gives back, filled piece by piece; sums over the points of a chunk are added up in float64. */
export class Gradients {
  private readonly value: Float32Array | null;
  private readonly divergence: Float32Array | null;
  private readonly points: Float32Array | null;
  private readonly context: Float32Array | null;
  private readonly contextSum: Float64Array | null;
  private isSpoilt = false;
  /** By index of the plan's sums. */
  private readonly sums = new Map<number, Float64Array>();

  /** @throws LimitError where an array would be too large. */
  constructor(
    private readonly plan: GradientPlan,
    private readonly network: Network,
    count: number,
    wrt: readonly Wrt[],
    sharesContext: boolean,
  ) {
    const { stateSize: d, contextSize: c } = network;
    const wanted = (name: Wrt | "value" | "divergence", width: number): Float32Array | null =>
      wrt.includes(name as Wrt) || plan.outputs.includes(name as "value") ? allocate(name, count, width) : null;
    this.value = wanted("value", d);
    this.divergence = wanted("divergence", 1);
    this.points = wanted("points", d);
    const isShared = wrt.includes("context") && sharesContext;
    this.context = isShared ? new Float32Array(c) : wanted("context", c);
    this.contextSum = isShared ? new Float64Array(c) : null;
  }

  /** Takes the numbers of `rows` points from `first`. */
  take(read: Read, first: number, rows: number, data: Float32Array): void {
    const { stateSize: d, contextSize: c } = this.network;
    switch (read.what) {
      case "value":
        this.value!.set(data, first * d);
        return;
      case "terms": {
        const sums = this.divergence!.subarray(first, first + rows);
        sumRowsInto(sums, data, read.width);
        if (this.plan.share !== 1) sums.forEach((sum, index) => (sums[index] = sum * this.plan.share));
        return;
      }
      case "points":
        return setRows(this.points!, data, first, rows, d, read.width);
      case "context":
        if (!this.contextSum) return setRows(this.context!, data, first, rows, c, read.width);
        for (let row = 0; row < data.length / read.width; row++)
          for (let i = 0; i < c; i++) this.contextSum[i]! += data[row * read.width + i]!;
        return;
      default: {
        const sum = this.sums.get(read.first);
        if (!sum) this.sums.set(read.first, new Float64Array(data));
        else for (let i = 0; i < sum.length; i++) sum[i]! += data[i]!;
      }
    }
  }

  /** Everything of the points that are marked becomes NaN, and so does all that sums over them. */
  finish(marked: Uint8Array): void {
    const { stateSize: d, contextSize: c } = this.network;
    if (this.contextSum) this.context!.set(this.contextSum);
    this.isSpoilt = spoilRows(marked, [
      [this.value, d],
      [this.divergence, 1],
      [this.points, d],
      [this.contextSum ? null : this.context, c],
    ]);
    if (this.isSpoilt && this.contextSum) this.context!.fill(NaN);
  }

  /** All of them, as a vjp gives them back. */
  asVjp(shape: readonly number[], parameters: Readonly<Record<string, Parameter>> | null): object {
    const { plan, points, context, value, divergence } = this;
    return {
      method: plan.method,
      shape,
      ...(points && { points }),
      ...(context && { context }),
      ...(parameters && { parameters }),
      ...(value && { value }),
      ...(divergence && { divergence }),
    };
  }

  /**
   * Gradients of the network's tensors, through what the plan's matrices were computed of.
   * @param compute the numbers of their row [1, size], as it is computed out of the sums; those by index of the plan's.
   */
  async parameters(
    own: Network,
    compute: (gradient: PlannedMatrix, sums: ReadonlyMap<number, Float64Array>) => Promise<Numbers>,
  ): Promise<Record<string, Parameter>> {
    const { tensors, size } = parameterLayout(this.network);
    let flat: Numbers = new Float32Array(size);
    if (this.isSpoilt) flat.fill(NaN);
    else if (this.sums.size > 0) flat = await compute(parameterGradient(own, this.matrices()), this.sums);
    return Object.fromEntries(
      tensors.map(({ name, shape, offset }) => {
        const length = shape.reduce((product, n) => product * n, 1);
        return [name, { data: new Float32Array(flat.subarray(offset, offset + length)), shape }];
      }),
    );
  }

  /** The sums over the points, by the matrix whose gradient they are. */
  private matrices(): Map<PlannedMatrix, PlannedMatrix> {
    return new Map(
      this.plan.adjoint.sums.map(({ index, matrix, columns: padded }) => {
        const { rows, columns } = matrix;
        const build = (): Matrix => {
          const numbers = this.sums.get(index)!;
          if (numbers.length === rows * columns) return { rows, columns, data: numbers };
          const data = new Float64Array(rows * columns);
          copyRows(rows, columns, { data, at: 0, stride: columns }, { data: numbers, at: 0, stride: padded });
          return { rows, columns, data };
        };
        return [matrix, planned(`gradient of ${matrix.name}`, rows, columns, build)];
      }),
    );
  }
}

/** Rows of `width` numbers, given in rows of `padded`. */
function setRows(into: Float32Array, data: Float32Array, first: number, rows: number, width: number, padded: number): void {
  if (padded === width) return into.set(data, first * width);
  copyRows(rows, width, { data: into, at: first * width, stride: width }, { data, at: 0, stride: padded });
}
