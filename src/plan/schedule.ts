import { LimitError } from "../errors.js";
import type { Activation } from "../model/activation.js";
import type { Chain } from "./chain.js";
import { concatenated, rowsOf, type PlannedMatrix } from "./matrices.js";
import type { DifferencePlan, Plan, TracePlan } from "./trace.js";

/** The limits a schedule keeps to: numbers of the device and of the caller. */
export interface ScheduleLimits {
  readonly maxStorageBufferBindingSize: number;
  readonly maxBufferSize: number;
  readonly minStorageBufferOffsetAlignment: number;
  /** Bytes for everything but the weights: inputs, intermediate results, results and staging. */
  readonly memoryBudget: number;
  /** Multiply-adds that one submission may take, so that no driver's watchdog sees it. */
  readonly multiplyAddsPerSubmit: number;
}

/** Buffers of the caller in `encode`, and their like of the field itself in `evaluate`. */
export type OuterName = "points" | "context" | "tangents" | "value" | "divergence" | "diagonal";

/** Where a caller's rows begin (bytes) and how far apart they are (floats; 0: one row for all points). */
export interface OuterRows {
  readonly offset: number;
  readonly stride: number;
}

/** How a matrix lies in GPU memory: see `layoutMatrix` in gpu/buffers.ts. */
export type MatrixLayout = "product" | "rows";

/** A buffer of a step. */
export type Binding =
  | { readonly kind: "scratch"; readonly name: string }
  | { readonly kind: "matrix"; readonly matrix: PlannedMatrix; readonly layout: MatrixLayout }
  | { readonly kind: "outer"; readonly name: OuterName; readonly offset: number; readonly size: number };

export type KernelName = "gather" | "probes" | "primal" | "carry" | "contract" | "dot" | "diagonal" | "difference" | "reduce";

/** One dispatch: which kernel, over how many invocations, with which numbers and buffers. Data only. */
export interface Step {
  readonly label: string;
  readonly kernel: KernelName;
  /** σ of a primal step; null: the identity. */
  readonly activation: Activation | null;
  /** The members of the kernel's Parameters, all u32, by name; a float stands there by its bits. */
  readonly parameters: Readonly<Record<string, number>>;
  /** The kernel's storage buffers by name. */
  readonly bindings: Readonly<Record<string, Binding>>;
  readonly invocations: number;
  readonly multiplyAdds: number;
}

/** What comes back to the host after a submission. */
export interface Read {
  readonly what: "value" | "terms" | "jacobian" | "tangent";
  readonly scratch: string;
  /** Floats per point. */
  readonly width: number;
  /** jacobian: the columns [first, first + columns) of each point's J, as [count, d, columns]. */
  readonly first: number;
  readonly columns: number;
}

export interface Submission {
  readonly steps: readonly Step[];
  readonly reads: readonly Read[];
}

/** A run of points that fits the limits. */
export interface Chunk {
  readonly first: number;
  readonly count: number;
  readonly submissions: readonly Submission[];
  /** Bytes of each scratch buffer. */
  readonly scratch: ReadonlyMap<string, number>;
}

/** The route of the results: read back by the host, or left in the caller's buffers. */
export type Route =
  | { readonly to: "host"; readonly sharedContext: boolean }
  | { readonly to: "device"; readonly outer: Partial<Record<OuterName, OuterRows>> };

/** Points per chunk and tangents at once that keep within the limits. */
export interface Capacity {
  readonly points: number;
  readonly tangentsAtOnce: number;
}

/** Partial sums that a contraction without a diagonal keeps per point, for the host to add in float64. */
export const PARTIAL_SUMS = 8;
/** Each invocation of a product takes this many rows. */
const ROWS_PER_INVOCATION = 4;
/** A submission ends after this many steps even where their work is small, since each has its parameters in memory. */
const STEPS_PER_SUBMISSION = 256;
/** Staging buffers in flight: the host reads one while the device fills the other. */
export const STAGING_BUFFERS = 2;

const quads = (width: number): number => Math.ceil(width / 4);

/** The largest chunk within the limits; fewer tangents at once where one point alone would not fit. */
export function capacityOf(plan: Plan, limits: ScheduleLimits, route: Route): Capacity {
  const largest = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);
  const all = plan.kind === "value" ? 1 : plan.tangentsAtOnce;
  if (plan.kind !== "value" && 4 * plan.tangents > Math.min(largest, limits.memoryBudget))
    throw new LimitError(
      `one point has ${plan.tangents} terms of 4 bytes; the device allows ${largest} bytes in one buffer, the memory budget ${limits.memoryBudget}`,
    );
  for (let tangentsAtOnce = all; ; tangentsAtOnce = Math.ceil(tangentsAtOnce / 2)) {
    const one = build(plan, 0, 1, tangentsAtOnce, limits, route);
    // Every buffer is a whole number of 16 bytes; over 4 points and over 8 that rounding does not show.
    const four = bytesOf(build(plan, 0, 4, tangentsAtOnce, limits, route), route);
    const eight = bytesOf(build(plan, 0, 8, tangentsAtOnce, limits, route), route);
    let points = 2 ** 24;
    let [fixed, slope] = [16 * four.size, 0];
    for (const [name, bytes] of four) {
      const grows = (eight.get(name)! - bytes) / 4;
      const constant = bytes - 4 * grows;
      fixed += constant;
      slope += grows;
      points = Math.min(points, grows > 0 ? Math.floor((largest - constant) / grows) : bytes <= largest ? points : 0);
    }
    if (route.to === "device")
      for (const { stride } of Object.values(route.outer))
        if (stride > 0) points = Math.min(points, Math.max(1, Math.floor((largest - limits.minStorageBufferOffsetAlignment) / (4 * stride))));
    points = slope > 0 ? Math.min(points, Math.floor((limits.memoryBudget - fixed) / slope)) : fixed <= limits.memoryBudget ? points : 0;
    const heaviest = Math.max(...one.submissions.map(workOf));
    if (points >= 1 && (tangentsAtOnce === 1 || heaviest <= limits.multiplyAddsPerSubmit)) {
      const work = one.submissions.reduce((sum, submission) => sum + workOf(submission), 0);
      return { points: Math.max(1, Math.min(points, Math.floor(limits.multiplyAddsPerSubmit / Math.max(1, work)))), tangentsAtOnce };
    }
    if (tangentsAtOnce === 1) {
      const widest = Math.max(...bytesOf(one, route).values());
      throw new LimitError(
        widest > largest
          ? `one point of this network needs a buffer of ${widest} bytes; the device allows ${largest}`
          : `one point of this network needs ${fixed + slope} bytes; the memory budget is ${limits.memoryBudget}`,
      );
    }
  }
}

/** The chunk of `count` points from `first`, cut into submissions of bounded work. */
export function scheduleChunk(plan: Plan, first: number, count: number, capacity: Capacity, limits: ScheduleLimits, route: Route): Chunk {
  return build(plan, first, count, capacity.tangentsAtOnce, limits, route);
}

function workOf(submission: Submission): number {
  return submission.steps.reduce((sum, step) => sum + step.multiplyAdds, 0);
}

/** Bytes of one staging buffer: the largest that a submission of the chunk reads back, at least 4. */
export function stagingBytes({ count, submissions }: Chunk): number {
  return Math.max(4, ...submissions.map(({ reads }) => reads.reduce((sum, read) => sum + 4 * read.width * count, 0)));
}

/** Scratch and, where the host reads, staging. */
function bytesOf(chunk: Chunk, route: Route): Map<string, number> {
  const bytes = new Map(chunk.scratch);
  if (route.to === "host") {
    for (let index = 0; index < STAGING_BUFFERS; index++) bytes.set(`staging ${index}`, stagingBytes(chunk));
  }
  return bytes;
}

function build(plan: Plan, first: number, count: number, tangentsAtOnce: number, limits: ScheduleLimits, route: Route): Chunk {
  const builder = new ChunkBuilder(plan, first, count, tangentsAtOnce, limits, route);
  return builder.build();
}

/** Strided rows of vec4: where a tangent, a scale or a matrix row is found for point b and column k. */
interface Rows {
  readonly binding: Binding;
  /** In vec4. */
  readonly offset: number;
  readonly perPoint: number;
  readonly perColumn: number;
}

class ChunkBuilder {
  private readonly scratchBytes = new Map<string, number>();
  private readonly submissions: Submission[] = [];
  private steps: Step[] = [];
  private work = 0;
  private readonly chain: Chain;

  constructor(
    private readonly plan: Plan,
    private readonly first: number,
    private readonly count: number,
    private readonly tangentsAtOnce: number,
    private readonly limits: ScheduleLimits,
    private readonly route: Route,
  ) {
    this.chain = plan.chain;
  }

  build(): Chunk {
    const { plan, count } = this;
    const wantsValue = plan.outputs.includes("value");
    if (plan.kind === "difference") {
      if (wantsValue) this.primal(this.gather(1, 0, 0), count, [], this.output("value", this.chain.stateSize));
      this.differences(plan);
    } else {
      const scales = plan.kind === "trace" ? neededScales(plan) : [];
      const last = this.chain.layers.length - 1;
      if (wantsValue || scales.length > 0)
        this.primal(this.gather(1, 0, 0), count, scales, wantsValue ? this.output("value", this.chain.stateSize) : null, wantsValue ? last : Math.max(...scales));
      if (plan.kind === "trace") this.trace(plan);
    }
    const reads: Read[] = [];
    if (wantsValue && this.route.to === "host") reads.push({ what: "value", scratch: "value", width: this.chain.stateSize, first: 0, columns: 0 });
    if (plan.kind === "difference" || (plan.kind === "trace" && plan.end.kind !== "tangent")) reads.push(...this.reduce());
    else if (plan.kind === "trace") reads.push({ what: "tangent", scratch: "tangent", width: this.chain.stateSize, first: 0, columns: 0 });
    this.submit(reads);
    return { first: this.first, count, submissions: this.submissions, scratch: this.scratchBytes };
  }

  /** Input rows [rows, d + c]: each point once, or 2K times with one coordinate moved by ∓h. */
  private gather(copies: number, firstTangent: number, step: number): Binding {
    const { stateSize: d, contextSize: c } = this.chain;
    const width = quads(d + c);
    const rows = this.count * copies;
    const input = this.scratch("input", rows * width * 4);
    const points = this.outer("points", d);
    const context = c > 0 ? this.outer("context", c) : { ...points, stride: 0 };
    this.add({
      label: copies === 1 ? "gather the points" : "gather the moved points",
      kernel: "gather",
      parameters: {
        rows,
        copies,
        stateSize: d,
        contextSize: c,
        width,
        pointsOffset: points.offset,
        pointsStride: points.stride,
        contextOffset: context.offset,
        contextStride: context.stride,
        firstCoordinate: firstTangent,
        step: asBits(step),
      },
      bindings: { points: points.binding, contexts: context.binding, gathered: input },
      invocations: rows * width,
    });
    return input;
  }

  /** a_l = σ(W_l a + b_l) and s_l = σ'(z_l) for the layers up to `last`; the last of all goes to `value`. */
  private primal(input: Binding, rows: number, scales: readonly number[], value: OuterAddress | null, last = this.chain.layers.length - 1): void {
    const { layers } = this.chain;
    let from = input;
    for (let index = 0; index <= last; index++) {
      const { weight, contextWeight, bias, activation } = layers[index]!;
      const matrix = concatenated(`W${index + 1}`, weight, contextWeight);
      const [inner, outer] = [quads(matrix.columns), quads(matrix.rows)];
      const isValue = index === layers.length - 1 && value !== null;
      const into = isValue ? value : { binding: this.scratch(`activation ${index % 2}`, rows * outer * 4), offset: 0, stride: outer * 4 };
      const scaled = scales.includes(index);
      const scale = scaled ? this.scratch(`scale ${index}`, rows * outer * 4) : this.scratch("unused", 4);
      this.add({
        label: `primal of layer ${index + 1}`,
        kernel: "primal",
        activation,
        parameters: {
          rows,
          inner,
          outer,
          outOffset: into.offset,
          outStride: into.stride,
          outWidth: isValue ? matrix.rows : outer * 4,
          keepsScale: scaled ? 1 : 0,
        },
        bindings: {
          weight: matrixAs("product", matrix),
          bias: matrixAs("rows", biasOf(index, matrix.rows, bias)),
          a: from,
          out: into.binding,
          scale,
        },
        invocations: Math.ceil(rows / ROWS_PER_INVOCATION) * outer,
        multiplyAdds: rows * matrix.rows * matrix.columns,
      });
      from = into.binding;
    }
  }

  private trace(plan: TracePlan): void {
    const terms = plan.end.kind === "tangent" ? null : this.scratch("terms", this.count * this.termsPerPoint());
    for (let column = 0; column < plan.tangents; column += this.tangentsAtOnce) {
      const columns = Math.min(this.tangentsAtOnce, plan.tangents - column);
      const before = this.work;
      this.pass(plan, column, columns, terms);
      if (column + columns < plan.tangents) this.submitWhenFull(this.work - before);
    }
  }

  /** The tangents [column, column + columns) of every point, from seed to end. */
  private pass(plan: TracePlan, column: number, columns: number, terms: Binding | null): void {
    const shared = plan.probes?.per === "batch";
    const probes = plan.seed.kind === "probes" ? this.probes(plan, column, columns, shared) : null;
    let tangents = probes ?? this.seed(plan, column);
    let carries = [...plan.carries];
    const { end } = plan;
    if (shared && (carries.length > 1 || (end.kind === "contract" && end.fold))) {
      // Probes that all points share pass the first matrix once.
      const [only, ...rest] = carries;
      tangents = this.carry("seeds of the probes", only!, tangents, columns, 1, this.scratch("seeds", columns * quads(only!.matrix.rows) * 4));
      tangents = { ...tangents, perPoint: 0 };
      carries = rest;
    }
    if (end.kind === "contract") {
      const fused = carries.pop() ?? null;
      tangents = this.carryAll(carries, tangents, columns);
      this.contract(plan, end, fused, tangents, probes, column, columns, terms!);
      return;
    }
    const last = carries.pop()!;
    tangents = this.carryAll(carries, tangents, columns);
    const d = this.chain.stateSize;
    const scale = this.scaleRows(end.endScale, d);
    if (end.kind === "tangent") {
      this.carryInto("the tangent", last, tangents, 1, this.count, this.scratch("tangent", this.count * d), { perPoint: d, perColumn: 0, perRow: 1, rows: d }, scale);
      return;
    }
    const strip = this.scratch("jacobian", this.count * d * columns);
    const strides = { perPoint: d * columns, perColumn: 1, perRow: columns, rows: d };
    this.carryInto(`columns ${column} to ${column + columns - 1} of the Jacobian`, last, tangents, columns, this.count, strip, strides, scale);
    this.add({
      label: "diagonal of the Jacobian",
      kernel: "diagonal",
      parameters: { rows: this.count * columns, columns, perPoint: d * columns, first: column, termsPerPoint: this.termsPerPoint() },
      bindings: { jacobian: strip, terms: terms! },
      invocations: this.count * columns,
    });
    if (this.plan.outputs.includes("jacobian")) this.submit([{ what: "jacobian", scratch: "jacobian", width: d * columns, first: column, columns }]);
  }

  private seed(plan: TracePlan, column: number): Rows {
    if (plan.seed.kind === "rows") {
      const { rows } = plan.seed;
      const width = quads(rows.columns);
      return { binding: matrixAs("rows", rows), offset: column * width, perPoint: 0, perColumn: width };
    }
    const { stateSize: d } = this.chain;
    const width = quads(d);
    const given = this.outer("tangents", d);
    const padded = this.scratch("given tangents", this.count * width * 4);
    this.add({
      label: "gather the tangents",
      kernel: "gather",
      parameters: {
        rows: this.count,
        copies: 1,
        stateSize: d,
        contextSize: 0,
        width,
        pointsOffset: given.offset,
        pointsStride: given.stride,
        contextOffset: 0,
        contextStride: 0,
        firstCoordinate: 0,
        step: 0,
      },
      bindings: { points: given.binding, contexts: given.binding, gathered: padded },
      invocations: this.count * width,
    });
    return { binding: padded, offset: 0, perPoint: width, perColumn: 0 };
  }

  private probes(plan: TracePlan, column: number, columns: number, shared: boolean): Rows {
    const { stateSize: d } = this.chain;
    const width = quads(d);
    const rows = columns * (shared ? 1 : this.count);
    const binding = this.scratch("probes", rows * width * 4);
    this.add({
      label: "Rademacher probes",
      kernel: "probes",
      parameters: {
        rows,
        columns,
        stateSize: d,
        width,
        firstPoint: shared ? 0 : this.first,
        firstColumn: column,
        seed: plan.probes!.seed,
      },
      bindings: { probes: binding },
      invocations: rows * width,
    });
    return { binding, offset: 0, perPoint: shared ? 0 : columns * width, perColumn: width };
  }

  private carryAll(carries: readonly Carry[], from: Rows, columns: number): Rows {
    return carries.reduce((tangents, carry, index) => {
      const into = this.scratch(`tangents ${index % 2}`, this.count * columns * quads(carry.matrix.rows) * 4);
      return this.carry(`carry ${index + 1}`, carry, tangents, columns, this.count, into);
    }, from);
  }

  /** t <- W (s ∘ t), stored as padded rows. */
  private carry(label: string, carry: Carry, from: Rows, columns: number, points: number, into: Binding): Rows {
    const width = quads(carry.matrix.rows);
    const strides = { perPoint: columns * width * 4, perColumn: width * 4, perRow: 1, rows: width * 4 };
    this.carryInto(label, carry, from, columns, points, into, strides, this.scaleRows(null, carry.matrix.rows));
    return { binding: into, offset: 0, perPoint: columns * width, perColumn: width };
  }

  private carryInto(
    label: string,
    { matrix, scale }: Carry,
    from: Rows,
    columns: number,
    points: number,
    into: Binding,
    strides: { perPoint: number; perColumn: number; perRow: number; rows: number },
    endScale: Rows,
  ): void {
    const [inner, outer] = [quads(matrix.columns), quads(matrix.rows)];
    const scaling = this.scaleRows(scale, matrix.columns);
    const rows = points * columns;
    this.add({
      label,
      kernel: "carry",
      parameters: {
        rows,
        columns,
        inner,
        outer,
        tangentOffset: from.offset,
        tangentPerPoint: from.perPoint,
        tangentPerColumn: from.perColumn,
        scalePerPoint: scaling.perPoint,
        outPerPoint: strides.perPoint,
        outPerColumn: strides.perColumn,
        outPerRow: strides.perRow,
        outRows: strides.rows,
        endScalePerPoint: endScale.perPoint,
      },
      bindings: {
        weight: matrixAs("product", matrix),
        tangent: from.binding,
        scale: scaling.binding,
        endScale: endScale.binding,
        out: into,
      },
      invocations: Math.ceil(rows / ROWS_PER_INVOCATION) * outer,
      multiplyAdds: rows * matrix.rows * matrix.columns,
    });
  }

  /** term_k = e_k Σ_i c_k[i] s_i (W (s' ∘ t_k))[i], the product left out where there is none. */
  private contract(
    plan: TracePlan,
    end: Extract<TracePlan["end"], { kind: "contract" }>,
    fused: Carry | null,
    tangents: Rows,
    probes: Rows | null,
    column: number,
    columns: number,
    terms: Binding,
  ): void {
    const width = end.rows === "probes" ? (end.fold ?? { rows: this.chain.stateSize }).rows : end.rows.columns;
    const contracted = this.contractionRows(end, probes, column, columns);
    const scale = this.scaleRows(end.scale, width);
    const factor = this.scaleRows(end.endScale, end.endScale === null ? 1 : plan.tangents);
    const rows = this.count * columns;
    const parts = this.partsPerTerm();
    const parameters = {
      rows,
      columns,
      tangentOffset: tangents.offset,
      tangentPerPoint: tangents.perPoint,
      tangentPerColumn: tangents.perColumn,
      contractionOffset: contracted.offset,
      contractionPerPoint: contracted.perPoint,
      contractionPerColumn: contracted.perColumn,
      contractionScalePerPoint: scale.perPoint,
      factorPerPoint: factor.perPoint * 4,
      factorPerColumn: end.endScale === null ? 0 : 1,
      firstColumn: column,
      termsPerPoint: this.termsPerPoint(),
    };
    const bindings = {
      tangent: tangents.binding,
      contraction: contracted.binding,
      contractionScale: scale.binding,
      factor: factor.binding,
      terms,
    };
    if (!fused) {
      this.add({
        label: "contract the tangents",
        kernel: "dot",
        parameters: { ...parameters, width: quads(width) },
        bindings,
        invocations: rows,
        multiplyAdds: rows * width,
      });
      return;
    }
    const scaling = this.scaleRows(fused.scale, fused.matrix.columns);
    this.add({
      label: `carry and contract the tangents`,
      kernel: "contract",
      parameters: {
        ...parameters,
        inner: quads(fused.matrix.columns),
        outer: quads(fused.matrix.rows),
        parts,
        scalePerPoint: scaling.perPoint,
      },
      bindings: { ...bindings, weight: matrixAs("product", fused.matrix), scale: scaling.binding },
      invocations: Math.ceil(rows / ROWS_PER_INVOCATION) * parts,
      multiplyAdds: rows * (fused.matrix.rows * fused.matrix.columns + width),
    });
  }

  private contractionRows(end: Extract<TracePlan["end"], { kind: "contract" }>, probes: Rows | null, column: number, columns: number): Rows {
    if (end.rows !== "probes") {
      const width = quads(end.rows.columns);
      return { binding: matrixAs("rows", end.rows), offset: column * width, perPoint: 0, perColumn: width };
    }
    if (!end.fold) return probes!;
    const into = this.scratch("folded probes", columns * quads(end.fold.rows) * 4);
    return { ...this.carry("fold the probes", { matrix: end.fold, scale: null }, probes!, columns, 1, into), perPoint: 0 };
  }

  /** ∂f_i/∂x_i by central differences, `tangentsAtOnce` coordinates at a time. */
  private differences(plan: DifferencePlan): void {
    const d = this.chain.stateSize;
    const terms = this.scratch("terms", this.count * this.termsPerPoint());
    for (let column = 0; column < plan.tangents; column += this.tangentsAtOnce) {
      const columns = Math.min(this.tangentsAtOnce, plan.tangents - column);
      const copies = 2 * columns;
      const before = this.work;
      const input = this.gather(copies, column, plan.step);
      const moved = this.scratch("moved value", this.count * copies * d);
      this.primal(input, this.count * copies, [], { binding: moved, offset: 0, stride: d });
      this.add({
        label: "central differences",
        kernel: "difference",
        parameters: {
          rows: this.count * columns,
          columns,
          stateSize: d,
          inputWidth: quads(d + this.chain.contextSize) * 4,
          first: column,
          termsPerPoint: this.termsPerPoint(),
        },
        bindings: { moved: input, value: moved, terms },
        invocations: this.count * columns,
      });
      if (column + columns < plan.tangents) this.submitWhenFull(this.work - before);
    }
  }

  /** Leaves the terms where they are asked for; at most PARTIAL_SUMS per point go to the host where only their sum counts. */
  private reduce(): Read[] {
    const { plan } = this;
    const width = this.termsPerPoint();
    const terms = this.scratch("terms", this.count * width);
    const diagonal = plan.kind === "difference" || (plan.kind === "trace" && plan.diagonal);
    const estimates = plan.kind === "trace" && plan.probes !== null;
    if (this.route.to === "host") {
      if (!plan.outputs.includes("divergence") && !plan.outputs.includes("diagonal")) return [];
      if (diagonal || estimates || width <= PARTIAL_SUMS) return [{ what: "terms", scratch: "terms", width, first: 0, columns: 0 }];
      this.sums(terms, width, PARTIAL_SUMS, { binding: this.scratch("partial sums", this.count * PARTIAL_SUMS), offset: 0, stride: PARTIAL_SUMS });
      return [{ what: "terms", scratch: "partial sums", width: PARTIAL_SUMS, first: 0, columns: 0 }];
    }
    if (plan.outputs.includes("diagonal")) this.sums(terms, width, width, this.outer("diagonal", width));
    if (plan.outputs.includes("divergence")) this.sums(terms, width, 1, this.outer("divergence", 1), estimates ? 1 / width : 1);
    return [];
  }

  /** out[b, g] = factor Σ terms[b, k] over k = g, g + groups, ... */
  private sums(terms: Binding, width: number, groups: number, into: OuterAddress, factor = 1): void {
    this.add({
      label: groups === width ? "copy the terms" : "sum the terms",
      kernel: "reduce",
      parameters: { sums: this.count * groups, groups, width, outOffset: into.offset, outStride: into.stride, factor: asBits(factor) },
      bindings: { terms, out: into.binding },
      invocations: this.count * groups,
    });
  }

  private termsPerPoint(): number {
    const { plan } = this;
    if (plan.kind === "value") return 0;
    return plan.tangents * this.partsPerTerm();
  }

  /** One tangent without a diagonal (the bilinear form) is summed in parts, for more parallel work and a better sum. */
  private partsPerTerm(): number {
    const { plan } = this;
    if (plan.kind !== "trace" || plan.tangents > 1 || plan.diagonal || plan.probes || plan.end.kind !== "contract") return 1;
    const fused = plan.carries.at(-1);
    return fused ? Math.min(PARTIAL_SUMS, quads(fused.matrix.rows)) : 1;
  }

  /** The σ' of a layer as rows, or a row of ones for every point. */
  private scaleRows(layer: number | null, width: number): Rows {
    const perPoint = quads(width);
    if (layer === null) return { binding: matrixAs("rows", onesRow(width)), offset: 0, perPoint: 0, perColumn: 0 };
    return { binding: { kind: "scratch", name: `scale ${layer}` }, offset: 0, perPoint, perColumn: 0 };
  }

  /** A result's address: the caller's buffer, or the field's own. */
  private output(name: "value", width: number): OuterAddress {
    return this.route.to === "device" ? this.outer(name, width) : { binding: this.scratch(name, this.count * width), offset: 0, stride: width };
  }

  /** The rows of this chunk in a buffer of the caller: bound from an aligned offset on, the rest is added in the kernel. */
  private outer(name: OuterName, width: number): OuterAddress {
    if (this.route.to === "host") {
      const shared = name === "context" && this.route.sharedContext;
      const rows = shared ? 1 : this.count;
      return { binding: this.scratch(name, rows * width), offset: 0, stride: shared ? 0 : width };
    }
    const { offset, stride } = this.route.outer[name]!;
    const alignment = this.limits.minStorageBufferOffsetAlignment;
    const begin = offset + 4 * this.first * stride;
    const aligned = Math.floor(begin / alignment) * alignment;
    const end = begin + 4 * ((this.count - 1) * stride + width);
    return { binding: { kind: "outer", name, offset: aligned, size: end - aligned }, offset: (begin - aligned) / 4, stride };
  }

  private scratch(name: string, floats: number): Binding {
    // Kernels read some of these as vec4, so each is a whole number of them.
    this.scratchBytes.set(name, Math.max(this.scratchBytes.get(name) ?? 0, 16 * Math.ceil(floats / 4)));
    return { kind: "scratch", name };
  }

  private add(step: Omit<Step, "activation" | "multiplyAdds"> & Partial<Pick<Step, "activation" | "multiplyAdds">>): void {
    const whole = { activation: null, multiplyAdds: 0, ...step };
    this.steps.push(whole);
    this.work += whole.multiplyAdds;
  }

  /** Closes the submission where `next` multiply-adds more would be too much. */
  private submitWhenFull(next: number): void {
    if (this.work + next > this.limits.multiplyAddsPerSubmit || this.steps.length >= STEPS_PER_SUBMISSION) this.submit([]);
  }

  private submit(reads: readonly Read[]): void {
    if (this.steps.length === 0 && reads.length === 0) return;
    this.submissions.push({ steps: this.steps, reads });
    this.steps = [];
    this.work = 0;
  }
}

interface OuterAddress {
  readonly binding: Binding;
  /** In floats. */
  readonly offset: number;
  readonly stride: number;
}

type Carry = TracePlan["carries"][number];

/** The layers whose σ' the tangents are scaled by. */
function neededScales(plan: TracePlan): number[] {
  const { end } = plan;
  const scales = [...plan.carries.map(({ scale }) => scale), end.endScale, end.kind === "contract" ? end.scale : null];
  return [...new Set(scales.filter((scale) => scale !== null))];
}

function matrixAs(layout: MatrixLayout, matrix: PlannedMatrix): Binding {
  return { kind: "matrix", matrix, layout };
}

function biasOf(index: number, width: number, bias: ArrayLike<number> | null): PlannedMatrix {
  return rowsOf(`b${index + 1}`, 1, width, () => (bias ? Array.from(bias) : new Array<number>(width).fill(0)));
}

function onesRow(width: number): PlannedMatrix {
  return rowsOf("ones", 1, width, () => new Array<number>(width).fill(1));
}

/** The bits of a float32, as parameters are all u32. */
function asBits(value: number): number {
  return new Uint32Array(new Float32Array([value]).buffer)[0]!;
}
