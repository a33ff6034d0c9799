import type { Network } from "../model/network.js";
import { candidatesOf, forwardMultiplyAdds, type Candidate } from "./candidates.js";
import { priceOfAdjoint } from "./adjoint.js";
import { chooseCandidate, makeGradientPlan } from "./choose.js";
import { graphOf, type Graph } from "./graph.js";
import { readPlanOptions, requireOutputs, type PlanOptions } from "./options.js";
import type { GradientPlan } from "./plan.js";
import type { Method, Output } from "./outputs.js";

/** A candidate as explain() lists it. */
export interface ExplainedCandidate extends Omit<Candidate, "delivers"> {
  /** Whether it is the one that runs. */
  readonly chosen: boolean;
  /** Whether it gives every output asked for. */
  readonly delivers: boolean;
}

/** What was chosen for a network and why; toString() says it in words and in a table. */
export interface PlanExplanation {
  /** The method chosen; "value" where only f was asked for. */
  readonly method: Method | "value";
  /** What was asked for. */
  readonly outputs: readonly Output[];
  /** d, the size of the state. */
  readonly stateSize: number;
  /** c, the size of the context. */
  readonly contextSize: number;
  /** The network in a few words: its widths where it is a chain, its parts where it is not. */
  readonly network: string;
  /** Multiply-adds of f alone, per point. */
  readonly forwardMultiplyAdds: number;
  /** Every method, whether it gives the outputs or not. */
  readonly candidates: readonly ExplainedCandidate[];
  /** The gradient's price, where it is asked for; null elsewhere. */
  readonly gradient: ExplainedGradient | null;
  /** For people: the choice and its reason, then a table of the candidates. */
  toString(): string;
}

/** What value, divergence and the gradient of both for the points, the context and every weight cost together. */
export interface ExplainedGradient {
  /** The method whose trace is differentiated. */
  readonly method: Method;
  /** Multiply-adds per point: f, its divergence and back through both. */
  readonly multiplyAdds: number;
  /** multiplyAdds over those of f alone. */
  readonly ratio: number;
  /** Multiply-adds per point of f and of its gradient for the same alone, as a regression takes. */
  readonly valueMultiplyAdds: number;
  /**
   * Multiply-adds once for a call, whatever its points: products of weights with sums over the points, and of weights with one another,
   * which are computed anew only where `update` has changed them.
   */
  readonly perCall: number;
}

/** What is explained beside the plan of an evaluation. */
export interface ExplainOptions extends PlanOptions {
  /** Whether the price of the gradient of value and divergence is given too. Default false. */
  readonly gradient?: boolean | undefined;
}

/**
 * The plan for a network, without a device: each way to the outputs, its multiply-adds and bytes per point, and the choice.
 * Costs count multiply-adds of matrices, products, factors and norms; activations are left out.
 *
 * @throws PlanError, InputError as VectorField.evaluate would for the same options, and as vjp would where the gradient is asked for.
 */
export function explainPlan(network: Network, options: ExplainOptions = {}): PlanExplanation {
  const wanted = readPlanOptions(options);
  const graph = graphOf(network);
  requireOutputs(wanted.outputs, graph.stateSize);
  const candidates = candidatesOf(graph, options);
  const tangents = wanted.outputs.some((output) => output !== "value");
  const chosen = tangents ? chooseCandidate(candidates, wanted) : null;
  const explanation = {
    method: chosen?.method ?? ("value" as const),
    outputs: wanted.outputs,
    stateSize: graph.stateSize,
    contextSize: graph.contextSize,
    network: describeGraph(graph),
    forwardMultiplyAdds: forwardMultiplyAdds(graph),
    candidates: candidates.map((candidate) => ({
      method: candidate.method,
      description: candidate.description,
      exact: candidate.exact,
      multiplyAdds: candidate.multiplyAdds,
      ratio: candidate.ratio,
      passes: candidate.passes,
      bytesPerPoint: candidate.bytesPerPoint,
      matrixBytes: candidate.matrixBytes,
      delivers: wanted.outputs.every((output) => candidate.delivers.includes(output)),
      chosen: candidate === chosen,
    })),
    gradient: options.gradient === true ? explainGradient(network, graph, options) : null,
  };
  return { ...explanation, toString: () => describe(explanation, wanted.method) };
}

function explainGradient(network: Network, graph: Graph, options: PlanOptions): ExplainedGradient {
  const wrt = ["points", ...(graph.contextSize > 0 ? (["context"] as const) : []), "parameters"] as const;
  const of = (divergence: boolean): GradientPlan =>
    makeGradientPlan(network, { ...options, outputs: divergence ? ["value", "divergence"] : ["value"], value: true, divergence, wrt });
  const plan = of(true);
  const { perPoint, perCall } = priceOfAdjoint(plan.adjoint, plan.tangents);
  return {
    method: plan.method as Method,
    multiplyAdds: perPoint,
    ratio: perPoint / Math.max(1, forwardMultiplyAdds(graph)),
    valueMultiplyAdds: priceOfAdjoint(of(false).adjoint, 0).perPoint,
    perCall,
  };
}

function describe(explanation: Omit<PlanExplanation, "toString">, asked: string): string {
  const { method, outputs, stateSize, contextSize, network, candidates } = explanation;
  const field = `f: R^${stateSize}${contextSize > 0 ? ` x R^${contextSize}` : ""} -> R^${stateSize}, ${network}`;
  const forward = `f alone takes ${count(explanation.forwardMultiplyAdds)} multiply-adds per point.`;
  const back = explanation.gradient ? `\n${describeGradient(explanation.gradient)}` : "";
  if (method === "value") return `${field}\n${forward}\nOnly the value is asked for: nothing is carried beside it.${back}`;
  const chosen = candidates.find((candidate) => candidate.chosen)!;
  const exact = candidates.filter((candidate) => candidate.exact && candidate.delivers);
  const others = exact.filter((candidate) => candidate !== chosen);
  const next = others.toSorted((a, b) => a.multiplyAdds - b.multiplyAdds)[0];
  const why =
    asked !== "auto"
      ? `${method} was asked for by name`
      : next === undefined
        ? `${method} is the only exact method that gives ${outputs.join(" and ")}`
        : `${method} is the cheapest exact method that gives ${outputs.join(" and ")}`;
  const price = `${chosen.description}: ${count(chosen.multiplyAdds)} multiply-adds per point, ${ratio(chosen.ratio)} times f`;
  const beside = asked === "auto" && next ? `; next comes ${next.method} (${next.description}) with ${ratio(next.ratio)}` : "";
  const header = ["", "method", "multiply-adds", "times f", "bytes/point", "matrices", "how"];
  const rows = candidates.map((candidate) => [
    candidate.chosen ? "*" : candidate.delivers ? "" : "-",
    candidate.method,
    count(candidate.multiplyAdds),
    ratio(candidate.ratio),
    count(candidate.bytesPerPoint),
    count(candidate.matrixBytes),
    candidate.description,
  ]);
  return [
    field,
    forward,
    `Chosen: ${why}. It takes ${price}${beside}.`,
    "",
    table([header, ...rows]),
    "",
    ...(explanation.gradient ? [describeGradient(explanation.gradient), ""] : []),
    `* chosen${rows.some(([mark]) => mark === "-") ? `; - does not give ${outputs.join(" and ")}` : ""}. Multiply-adds and bytes are per point and come beside f's own.`,
  ].join("\n");
}

function describeGradient({ method, multiplyAdds, ratio: times, valueMultiplyAdds, perCall }: ExplainedGradient): string {
  const once = perCall > 0 ? `, and ${count(perCall)} once for all points of a call` : "";
  return `Gradient by ${method}: value, divergence and their gradient for points, context and parameters take ${count(multiplyAdds)} multiply-adds per point, ${ratio(times)} times f, ${ratio(multiplyAdds / valueMultiplyAdds)} times what f and its own gradient take${once}.`;
}

/** "widths 2-64-64-2" of a chain; else what the graph is made of. */
function describeGraph({ nodes, stateSize }: Graph): string {
  const moving = nodes.filter(({ moves, body }) => moves && body.kind !== "state");
  const isChain = moving.every(({ body }, index) => {
    const terms = body.kind === "sum" ? body.terms.filter(({ source }) => nodes[source]!.moves) : [];
    return terms.length === 1 && terms[0]!.kind === "dense" && terms[0]!.source === (index === 0 ? 0 : moving[index - 1]!.index);
  });
  if (isChain) return `widths ${[stateSize, ...moving.map(({ width }) => width)].join("-")}`;
  const dense = moving.flatMap(({ body }) => (body.kind === "sum" ? body.terms.filter(({ kind }) => kind === "dense") : []));
  const joints = moving.filter(({ body }) => body.kind === "sum" && body.terms.length > 1).length;
  const products = moving.flatMap(({ body }) => (body.kind === "sum" ? body.terms.filter(({ kind }) => kind === "product") : [])).length;
  const norms = moving.filter(({ body }) => body.kind === "norm").length;
  const parts = [
    [dense.length, "matrix", "matrices"],
    [joints, "sum", "sums"],
    [products, "product", "products"],
    [norms, "norm", "norms"],
  ] as const;
  const words = parts.filter(([number]) => number > 0).map(([number, one, many]) => `${number} ${number === 1 ? one : many}`);
  return `a graph of ${words.join(", ")}`;
}

/** Columns 2 to 5 hold numbers and are aligned to the right. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column >= 2 && column <= 5 ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const count = (value: number): string => value.toLocaleString("en-US");
const ratio = (value: number): string => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
