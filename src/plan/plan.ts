import type { Graph } from "./graph.js";
import type { Method, Output } from "./outputs.js";
import type { Instruction } from "./program.js";

interface AnyPlan {
  readonly graph: Graph;
  /** What is asked for. */
  readonly outputs: readonly Output[];
  /** What is done, forward instructions first. */
  readonly instructions: readonly Instruction[];
}

/** The tangents of one point from seed to end. */
export interface TracePlan extends AnyPlan {
  readonly kind: "trace";
  readonly method: Method | "jvp";
  /** K, the tangents of one point. */
  readonly tangents: number;
  /** How many of them a pass over the tangents' instructions carries. */
  readonly tangentsAtOnce: number;
  /** Whether term k is ∂f_k/∂x_k; otherwise only the sum of the terms means something. */
  readonly diagonal: boolean;
  readonly probesPer: "point" | "batch" | null;
}

/** Central differences: (f_i(x + h e_i) - f_i(x - h e_i)) / 2h. */
export interface DifferencePlan extends AnyPlan {
  readonly kind: "difference";
  readonly method: "difference";
  readonly tangents: number;
  readonly tangentsAtOnce: number;
}

/** f alone. */
export interface ValuePlan extends AnyPlan {
  readonly kind: "value";
  readonly method: "value";
}

/** How the outputs of a graph are computed: data alone, whatever the points, the device or the kernels. */
export type Plan = TracePlan | DifferencePlan | ValuePlan;
