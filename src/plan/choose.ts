import { PlanError } from "../errors.js";
import { adjointOf, type AdjointOptions } from "./adjoint.js";
import type { Method, Output } from "./outputs.js";
import type { Network } from "../model/network.js";
import { candidatesOf, type Candidate } from "./candidates.js";
import { graphOf } from "./graph.js";
import { readPlanOptions, requireGradient, requireOutputs, type PlanOptions, type Wanted } from "./options.js";
import type { DifferencePlan, GradientPlan, TracePlan, ValuePlan } from "./plan.js";
import { tangentsOf, withForward } from "./program.js";
import { Pushforward } from "./pushforward.js";

/**
 * Chooses the way to the outputs: the method named, or the exact one with the fewest multiply-adds (then passes, then bytes).
 * @throws PlanError where the method does not exist or cannot deliver; InputError for options out of range.
 */
export function makePlan(network: Network, options: PlanOptions = {}): TracePlan | DifferencePlan | ValuePlan {
  const graph = graphOf(network);
  const wanted = readPlanOptions(options);
  requireOutputs(wanted.outputs, graph.stateSize);
  if (wanted.outputs.every((output) => output === "value"))
    return { kind: "value", method: "value", graph, outputs: wanted.outputs, instructions: withForward(graph, true, []) };
  return chooseCandidate(candidatesOf(graph, options), wanted).planFor(wanted.outputs);
}

/** The plan of field.jvp: J t for one given tangent per point, and f beside it where it is asked for. */
export function makeJvpPlan(network: Network, wantsValue: boolean): TracePlan {
  const graph = graphOf(network);
  const pushforward = new Pushforward(graph, { kind: "given" }, false);
  pushforward.store("tangent");
  return {
    kind: "trace",
    method: "jvp",
    graph,
    outputs: wantsValue ? ["value"] : [],
    instructions: withForward(graph, wantsValue, pushforward.instructions),
    tangents: 1,
    tangentsAtOnce: 1,
    diagonal: false,
    probesPer: null,
  };
}

/** What a gradient is asked for. */
export interface GradientOptions extends Omit<PlanOptions, "outputs"> {
  readonly outputs: readonly Extract<Output, "value" | "divergence">[];
  /** Which cotangents are given. */
  readonly value: boolean;
  readonly divergence: boolean;
  /** What it is for. */
  readonly wrt: readonly (keyof AdjointOptions["wrt"])[];
}

/** What decides the plan of a gradient beside its method. */
export type WantedGradient = Pick<GradientOptions, "outputs" | "value" | "divergence" | "wrt"> & {
  readonly contextPer: "point" | "batch";
};

/**
 * The plan of field.vjp: the trace by the method named or the cheapest exact one, and back through it.
 * @throws PlanError where the method does not exist or has no gradient; InputError for options out of range.
 */
export function makeGradientPlan(network: Network, options: GradientOptions): GradientPlan {
  const graph = graphOf(network);
  const { outputs, wrt } = options;
  const wanted = readPlanOptions({ ...options, outputs: ["divergence"] });
  requireGradient(wanted.method);
  const sharesContext = graph.contextSize === 0 || options.contextPer === "batch";
  const wantsTrace = outputs.includes("divergence");
  const plan =
    options.divergence || wantsTrace ? chooseCandidate(candidatesOf(graph, options, true), wanted).planFor(["divergence"]) : null;
  if (plan && plan.kind !== "trace") throw new TypeError(`a plan of the kind ${plan.kind} has no gradient`);
  const share = plan?.probesPer ? 1 / plan.tangents : 1;
  const trace = plan && { instructions: tangentsOf(plan.instructions), tangents: plan.tangents, share };
  const adjoint = adjointOf(graph, {
    wrt: { points: wrt.includes("points"), context: wrt.includes("context"), parameters: wrt.includes("parameters") },
    value: options.value,
    divergence: options.divergence,
    trace,
    wantsTrace,
    wantsValue: outputs.includes("value"),
    sharesContext,
  });
  return {
    kind: "gradient",
    method: (plan?.method ?? "value") as Method | "value",
    graph,
    outputs,
    instructions: adjoint.forward,
    tangents: plan?.tangents ?? 0,
    tangentsAtOnce: plan?.tangentsAtOnce ?? 1,
    probesPer: plan?.probesPer ?? null,
    share,
    adjoint,
  };
}

/** The cheapest candidate by multiply-adds, then by passes, then by bytes, of the method named or of the exact ones. */
export function chooseCandidate<T extends Candidate>(candidates: readonly T[], { method, outputs }: Wanted): T {
  const able = candidates.filter(
    (candidate) =>
      (method === "auto" ? candidate.exact : candidate.method === method) && outputs.every((output) => candidate.delivers.includes(output)),
  );
  if (able.length === 0)
    throw new PlanError(
      `method "${method}" does not apply to this network: more than one path leads from the state to the velocity, or none`,
    );
  return able.reduce((best, candidate) =>
    (candidate.multiplyAdds - best.multiplyAdds || candidate.passes - best.passes || candidate.bytesPerPoint - best.bytesPerPoint) < 0
      ? candidate
      : best,
  );
}
