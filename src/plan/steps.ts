import type { Activation } from "../model/activation.js";
import type { FusedForm } from "./fused.js";
import type { PlannedMatrix } from "./matrices.js";
import { isPlain, type Tile } from "./variants.js";

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
export type MatrixLayout = "product" | "half product" | "rows";

/** A buffer of a step. */
export type Binding =
  | { readonly kind: "scratch"; readonly name: string }
  | { readonly kind: "matrix"; readonly matrix: PlannedMatrix; readonly layout: MatrixLayout }
  | { readonly kind: "outer"; readonly name: OuterName; readonly offset: number; readonly size: number };

/** The files of shaders/. */
export type KernelName =
  | ("gather" | "probes" | "primal" | "combine" | "norm")
  | ("carry" | "blend" | "norm_tangent" | "contract" | "dot" | "bilinear")
  | ("diagonal" | "difference" | "reduce");

/**
 * Rows as they are; each by a scale of its own; or all rows of a tile by one scale, where they are tangents of one point. A
 * load less for every row of every tile.
 */
export type Scaling = "none" | "each" | "together";

/**
 * Those that steps use with a tile; the plain one does without the last, so that there is one kernel less to compile, and so
 * do groups, which load a scale once for all outputs of a block.
 */
export function scalingsOf(tile: Tile): readonly Scaling[] {
  return isPlain(tile) || tile.group ? ["none", "each"] : ["none", "each", "together"];
}

/** One dispatch: which kernel, over how many invocations, with which numbers and buffers. Data only. */
export interface Step {
  readonly label: string;
  /** A file of shaders/, or the one that `fused` writes. */
  readonly kernel: KernelName | "fused";
  /** Of a fused kernel: the plan in the form that it is written for. */
  readonly fused?: FusedForm;
  /** σ of a primal or combine step; null: the identity. */
  readonly activation: Activation | null;
  /** How a primal, carry or contract step is cut; null: any other. */
  readonly tile: Tile | null;
  /** How the rows of a carry or contract step are scaled before they are multiplied. */
  readonly scaling: Scaling;
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

/**
 * The route of the results: read back by the host, or left in the caller's buffers. Where one of those holds several kinds of
 * rows, no dispatch binds two of them, for it may not read a buffer that it writes.
 */
export type Route =
  | { readonly to: "host"; readonly sharedContext: boolean }
  | { readonly to: "device"; readonly outer: Partial<Record<OuterName, OuterRows>>; readonly sharesBuffers: boolean };

/** Points per chunk and tangents at once that keep within the limits. */
export interface Capacity {
  readonly points: number;
  readonly tangentsAtOnce: number;
}

/** Partial sums that a contraction without a diagonal keeps per point, for the host to add in float64. */
export const PARTIAL_SUMS = 8;
/** Invocations per workgroup; all adapters allow 256, and 64 keeps small chunks spread out. */
export const WORKGROUP_SIZE = 64;

/**
 * Lanes that hand weights around are a workgroup of their own: it shares its outputs, and so needs rows for every lane.
 * A group is one too, since it has the workgroup's memory.
 */
export function workgroupSizeOf(tile: Tile | null): number {
  if (tile?.group) return tile.group.down * tile.group.across;
  return tile && tile.lanes > 0 ? tile.lanes : WORKGROUP_SIZE;
}
/** A submission ends after this many steps even where their work is small, since each has its parameters in memory. */
export const STEPS_PER_SUBMISSION = 256;
/** Staging buffers in flight: the host reads one while the device fills the other. */
export const STAGING_BUFFERS = 2;
