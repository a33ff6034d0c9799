import type { Graph } from "./graph.js";
import type { PlanOptions } from "./options.js";
import type { TangentInstruction, Rows } from "./program.js";
import { Pushforward } from "./pushforward.js";

/** A mean over K random vectors that is the trace on the average. */
export interface Estimator {
  readonly description: string;
  /** K */
  readonly probes: number;
  readonly probesPer: "point" | "batch";
  readonly instructions: readonly TangentInstruction[];
}

export const DEFAULT_PROBES = 16;

/** vᵀ J v for Rademacher probes v. What shared probes alone decide is computed once for all points. */
export function hutchinson(graph: Graph, options: PlanOptions, sharesContext: boolean | "never"): Estimator {
  const { probes = DEFAULT_PROBES, probesPer = "point" } = options;
  const rows: Rows = { kind: "probes", shared: probesPer === "batch" };
  const pushforward = new Pushforward(graph, rows, sharesContext);
  pushforward.contractWith(rows);
  const description = `${probes} random probe${probes > 1 ? "s" : ""} ${probesPer === "batch" ? "shared by all points" : "per point"}; an estimate`;
  return { description, probes, probesPer, instructions: pushforward.instructions };
}
