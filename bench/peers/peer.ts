import type { Problem } from "./networks.js";

/** Which kernels deldot runs, for either choice of outputs, under the names that VectorField.create takes. */
export interface Kernels {
  readonly divergence: string;
  readonly valueToo: string;
}

/** Computes what a table compares, and returns when all of it lies in arrays: the tensors of the truth, in its order. */
export type Call = () => Promise<Answer>;
export type Answer = readonly ArrayLike<number>[];

/** Somebody who can compute it, in one way or several. */
export interface Peer<P extends Problem = Problem> {
  /** The package, and where it runs. */
  readonly name: string;
  readonly ways: readonly Way[];
  /** What happens once per network: imports, uploads, compilation. Only deldot has a choice of kernels. */
  prepare(way: string, problem: P, kernels: Kernels): Promise<Call>;
}

export interface Way {
  readonly name: string;
  /** Whether the points are on the device before a call starts, or are a JavaScript array that it uploads or reads. */
  readonly points: "device" | "host";
  /** The one tensor of the truth that it answers with; all of them unless given. */
  readonly tensor?: string;
}
