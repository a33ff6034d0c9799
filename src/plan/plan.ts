import type { AdjointProgram } from "./adjoint.js";
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

/** The gradient of L = Σ_b (e_b · f(x_b) + c_b ∇·f(x_b)), and f and the trace beside it where they are outputs. */
export interface GradientPlan extends AnyPlan {
  readonly kind: "gradient";
  readonly method: Method | "value";
  /** K, the tangents of one point; 0 where the divergence has no part in it. */
  readonly tangents: number;
  readonly tangentsAtOnce: number;
  readonly probesPer: "point" | "batch" | null;
  /** What the terms are multiplied by in their sum: 1, or 1/K of an estimate. */
  readonly share: number;
  readonly adjoint: AdjointProgram;
}

/** How the outputs of a graph are computed: data alone, whatever the points, the device or the kernels. */
export type Plan = TracePlan | DifferencePlan | ValuePlan | GradientPlan;
