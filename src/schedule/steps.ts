import type { Activation } from "../model/activation.js";
import type { PlannedMatrix } from "../plan/matrices.js";
import type { Kinematic } from "../plan/outputs.js";
import type { Plan } from "../plan/plan.js";
import type { Kernel } from "./kernel.js";
import type { Scaling, Tile } from "./tile.js";

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
export type OuterName =
  | ("points" | "context" | "tangents" | "value cotangent" | "divergence cotangent")
  | ("value" | "divergence" | "diagonal" | "jacobian" | "jvp" | "standardError" | Kinematic)
  | ("gradient of points" | "gradient of context" | "gradient of parameters" | "parameters" | "step")
  | ("end points" | "divergence integral" | "log density")
  | "count";

/** Where a caller's rows begin (bytes) and how far apart they are (floats; 0: one row for all points). */
export interface OuterRows {
  readonly offset: number;
  readonly stride: number;
}

/**
 * How a matrix lies in GPU memory, see `layoutMatrix` in gpu/buffers.ts: as W x reads it, in float32 or in float16, or as rows.
 */
export type MatrixLayout = "product" | "half product" | "rows";

/** A buffer of a step. */
export type Binding =
  | { readonly kind: "scratch"; readonly name: string }
  | { readonly kind: "matrix"; readonly matrix: PlannedMatrix; readonly layout: MatrixLayout }
  | { readonly kind: "outer"; readonly name: OuterName; readonly offset: number; readonly size: number };

/** The files of shaders/. */
export type KernelName =
  | ("gather" | "probes" | "primal" | "combine" | "norm")
  | ("carry" | "blend" | "norm_tangent" | "contract" | "dot")
  | ("fold" | "outer" | "norm_fold" | "mark" | "multiply")
  | ("ode_stage" | "ode_control" | "log_density")
  | ("diagonal" | "difference" | "reduce" | "spread" | "kinematics")
  | "count";

/** What a fused kernel may leave behind: f(x) [d]; Σ terms; the terms [K] themselves. */
export type FusedOutput = "value" | "divergence" | "diagonal";

/** A plan as one kernel carries it through for a point, all layers in one invocation. */
export interface Fused {
  /** Points of an invocation. */
  readonly points: number;
  readonly outputs: readonly FusedOutput[];
  /** K, the terms of a point. */
  readonly terms: number;
  /** Per point. */
  readonly multiplyAdds: number;
  readonly kernel: Kernel;
}

/** Which kernels run a plan, as far as a schedule must know it: all give the same results but for rounding. */
export interface Variant {
  /** The name that the option `kernels` takes. Two variants of one name are the same. */
  readonly name: string;
  /** How products are cut where the plan runs layer by layer. */
  readonly tile: Tile;
  /** How products are whose matrix is block-diagonal: other tiles know nothing of blocks. */
  readonly plain: Tile;
  /** A plan in one kernel, by where its results go, null for plans that none can carry; null where all run layer by layer. */
  readonly fuse: ((plan: Plan, to: Route["to"]) => Fused | null) | null;
}

/** What a step takes for n points of a chunk, where the device alone knows n. */
export interface Growth {
  /** Those that are not the same for all n: fixed + slope n. */
  readonly parameters: readonly { readonly name: string; readonly fixed: number; readonly slope: number }[];
  /** fixed + slope ⌈n / BLOCK⌉, or none where n is 0; see schedule/counted.ts. */
  readonly invocations: { readonly fixed: number; readonly slope: number };
}

/** One dispatch: which kernel, over how many invocations, with which numbers and buffers. Data only. */
export interface Step {
  readonly label: string;
  /** A file of shaders/, or a plan in one kernel. */
  readonly kernel: KernelName | Fused;
  /** σ of a primal or combine step; null: the identity. */
  readonly activation: Activation | null;
  /** How a primal, carry or contract step is cut; null: any other. */
  readonly tile: Tile | null;
  /** How the rows of a carry or contract step are scaled before they are multiplied. */
  readonly scaling: Scaling;
  /** Whether a primal or combine step keeps σ'' beside σ'. */
  readonly curved: boolean;
  /** The members of the kernel's Parameters, all u32, by name; a float stands there by its bits. */
  readonly parameters: Readonly<Record<string, number>>;
  /** The kernel's storage buffers by name. */
  readonly bindings: Readonly<Record<string, Binding>>;
  readonly invocations: number;
  readonly multiplyAdds: number;
  /** Where the device counts the points: `parameters` and `invocations` are then those of all that may come. Else null. */
  readonly growth: Growth | null;
}

/** What comes back to the host after a submission. */
export interface Read {
  readonly what: "value" | "terms" | "jacobian" | Kinematic | "tangent" | "points" | "context" | "sum" | "parameters";
  readonly scratch: string;
  /** Floats per point; of all points together where `isSum`. */
  readonly width: number;
  readonly isSum?: boolean;
  /** sum: the index of the plan's sum. jacobian: the columns [first, first + columns) of each point's J, as [count, d, columns]. */
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
  /** After how many steps f is there, of a gradient: cotangents are read after them alone. */
  readonly forwardSteps: number;
}

/** Floats of what is read. */
export function floatsOf({ width, isSum }: Read, count: number): number {
  return isSum ? width : width * count;
}

/** The matrices that the steps of a chunk read. */
export function matricesOf({ submissions }: Chunk): Extract<Binding, { kind: "matrix" }>[] {
  const bindings = submissions.flatMap(({ steps }) => steps.flatMap((step) => Object.values(step.bindings)));
  return bindings.filter((binding) => binding.kind === "matrix");
}

/**
 * The route of the results: read back by the host, or left in the caller's buffers. Where one of those holds several kinds of
 * rows, no dispatch binds two of them, for it may not read a buffer that it writes.
 */
export type Route =
  | {
      readonly to: "host";
      readonly sharedContext: boolean;
      /** Whether ∂L/∂(∇·f) is one number for all points. */
      readonly sharedCotangent?: boolean;
    }
  | {
      readonly to: "device";
      readonly outer: Partial<Record<OuterName, OuterRows>>;
      readonly sharesBuffers: boolean;
      /** Of a gradient: whether rows of what is not finite become NaN; else they are what arithmetic makes of them. */
      readonly marksNonFinite: boolean;
    };

/** Points per chunk and tangents at once that keep within the limits. */
export interface Capacity {
  readonly points: number;
  readonly tangentsAtOnce: number;
}

/** Partial sums that a contraction without a diagonal keeps per point, for the host to add in float64. */
export const PARTIAL_SUMS = 8;
/** Invocations per workgroup; all adapters allow 256, and 64 keeps small chunks spread out. */
export const WORKGROUP_SIZE = 64;
/** A submission ends after this many steps even where their work is small, since each has its parameters in memory. */
export const STEPS_PER_SUBMISSION = 256;
/** Staging buffers in flight: the host reads one while the device fills the other. */
export const STAGING_BUFFERS = 2;
