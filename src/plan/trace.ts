import { InputError, PlanError, quote } from "../errors.js";
import type { Network } from "../model/network.js";
import { cyclicPrograms } from "./cycle.js";
import { graphOf, type Graph, type Node, type Term } from "./graph.js";
import { identity, type PlannedMatrix } from "./matrices.js";
import { multiplyAddsPerTangent, ProgramBuilder, scalesOf, widthOfTarget, type Instruction, type Rows } from "./program.js";

/**
 * tr J = tr( S_n W_n ... S_1 W_1 ), with S_l = diag σ_l'(z_l) and n = L + 1 layers. Every method below is a way to
 * evaluate it (or, for the last two, to approximate it).
 *
 * - `tangent`: forward mode with all d basis vectors at once (Griewank and Walther, Evaluating Derivatives, 2008, chapter 3);
 *   the first layer's tangents are the columns of W_1, and the last product is needed on its diagonal alone.
 * - `cyclic`: tr(A B) = tr(B A), so the product may start at its narrowest layer, with constant neighbours merged; with two
 *   hidden layers it is s_2ᵀ M s_1, M = W_2 ∘ (W_1 W_3)ᵀ, where s_l is the diagonal of S_l.
 * - `jacobian`: J, and the sum of its diagonal.
 * - `coordinate`: d passes of forward mode, one basis vector each.
 * - `difference`: (f_i(x + h e_i) - f_i(x - h e_i)) / 2h, summed; its error is O(h²) beside rounding of O(ε / h).
 * - `hutchinson`: the mean of vᵀ J v over random signs v, an unbiased estimate of the trace (Hutchinson, Communications in
 *   Statistics: Simulation and Computation, 1989; for flows Grathwohl et al., FFJORD, 2019).
 */
export const methods = ["tangent", "cyclic", "jacobian", "coordinate", "difference", "hutchinson"] as const;
/** One of {@link methods}. */
export type Method = (typeof methods)[number];

/**
 * What an evaluation may give at each point: f(x), [d]; ∇·f = Σ ∂f_i/∂x_i, one number; the diagonal ∂f_i/∂x_i, [d]; and
 * J[i][j] = ∂f_i/∂x_j, [d, d].
 */
export const outputs = ["value", "divergence", "diagonal", "jacobian"] as const;
/** One of {@link outputs}. */
export type Output = (typeof outputs)[number];

/** What a plan is asked for. */
export interface PlanOptions {
  /** Default: value and divergence. */
  readonly outputs?: readonly Output[] | undefined;
  /** Default "auto": the exact method with the fewest multiply-adds among those that deliver the outputs. */
  readonly method?: Method | "auto" | undefined;
  /** How many tangents of a point are carried at once, at most; default all. "coordinate" is always one. */
  readonly tangentsAtOnce?: number | undefined;
  /** hutchinson: probes per point, default 16. */
  readonly probes?: number | undefined;
  /** hutchinson: any 32-bit integer, default 0. The same seed gives the same probes on the GPU and in the reference. */
  readonly seed?: number | undefined;
  /** hutchinson: every point has probes of its own ("point", the default), or all share one set ("batch", cheaper). */
  readonly probesPer?: "point" | "batch" | undefined;
  /** Whether every point has a context of its own ("point", the default) or all share one ("batch"); evaluate sees for itself. */
  readonly contextPer?: "point" | "batch" | undefined;
  /** difference: the step is this times max(1, |x_i|); default 2^-7, near the optimum ε^(1/3) of float32. */
  readonly step?: number | undefined;
}

/** The tangents of one point from seed to end. */
export interface TracePlan {
  readonly kind: "trace";
  readonly method: Method | "jvp";
  /** K, the tangents of one point. */
  readonly tangents: number;
  readonly tangentsAtOnce: number;
  /** One pass over the tangents. */
  readonly instructions: readonly Instruction[];
  /** Whether term k is ∂f_k/∂x_k; otherwise only the sum of the terms means something. */
  readonly diagonal: boolean;
  readonly probes: { readonly per: "point" | "batch"; readonly seed: number } | null;
}

/** Central differences: (f_i(x + h e_i) - f_i(x - h e_i)) / 2h. */
export interface DifferencePlan {
  readonly kind: "difference";
  readonly method: "difference";
  readonly tangents: number;
  readonly tangentsAtOnce: number;
  readonly step: number;
}

/** f alone. */
export interface ValuePlan {
  readonly kind: "value";
  readonly method: "value";
}

export type Plan = (TracePlan | DifferencePlan | ValuePlan) & { readonly graph: Graph; readonly outputs: readonly Output[] };

/** One way to evaluate the trace and its price. */
export interface Candidate {
  /** Its name in the options. */
  readonly method: Method;
  /** In words: where the tangents start, what is merged. */
  readonly description: string;
  /** Whether it computes every term of the trace; otherwise it approximates. */
  readonly exact: boolean;
  /** Multiply-adds per point, beside those of f. */
  readonly multiplyAdds: number;
  /** multiplyAdds over those of f alone. */
  readonly ratio: number;
  /** How often the layers are gone through: the tangents of a point over those carried at once. */
  readonly passes: number;
  /** Bytes of intermediate results per point when all its tangents are carried at once. */
  readonly bytesPerPoint: number;
  /** Bytes of the matrices that this candidate needs beside the weights of f. */
  readonly matrixBytes: number;
  /** The outputs it can give. */
  readonly delivers: readonly Output[];
}

interface Priced extends Candidate {
  readonly plan: TracePlan | DifferencePlan;
}

const DELIVERS: Record<Method, readonly Output[]> = {
  tangent: ["value", "divergence", "diagonal"],
  cyclic: ["value", "divergence"],
  jacobian: ["value", "divergence", "diagonal", "jacobian"],
  coordinate: ["value", "divergence", "diagonal"],
  difference: ["value", "divergence", "diagonal"],
  hutchinson: ["value", "divergence"],
};

/** Multiply-adds of f at one point whose context is its own: of matrices, products and factors. */
export function forwardMultiplyAdds(network: Network): number {
  return graphOf(network).nodes.reduce((total, node) => total + multiplyAddsOf(node), 0);
}

/** Multiply-adds of one node. */
function multiplyAddsOf({ body, width }: Node): number {
  if (body.kind === "norm") return 4 * width;
  if (body.kind !== "sum") return 0;
  const price = (term: Term): number =>
    term.kind === "dense" ? term.matrix.rows * term.matrix.columns : term.kind === "product" || term.factors ? width : 0;
  return body.terms.reduce((total, term) => total + price(term), 0);
}

/**
 * Chooses the way to the outputs: the method named, or the exact one with the fewest multiply-adds (then passes, then bytes).
 * @throws PlanError where the method does not exist or cannot deliver; InputError for options out of range.
 */
export function makePlan(network: Network, options: PlanOptions = {}): Plan {
  const graph = graphOf(network);
  const { method, wanted } = readPlanOptions(options);
  if (!wanted.some((output) => output !== "value")) return { kind: "value", method: "value", graph, outputs: wanted };
  const best = chooseCandidate(candidatesOf(network, options), method, wanted);
  return { ...best.plan, graph, outputs: wanted };
}

/** What is asked for, checked. @throws PlanError, InputError as {@link makePlan} does. */
export function readPlanOptions(options: PlanOptions): { method: Method | "auto"; wanted: readonly Output[] } {
  if (typeof options !== "object" || options === null) throw new InputError(`options is ${quote(options)}; expected an object`);
  const wanted = readOutputs(options.outputs);
  const method = options.method ?? "auto";
  if (method !== "auto" && !methods.includes(method))
    throw new PlanError(`method is ${quote(method)}; expected "auto" or one of ${methods.join(", ")}`);
  checkOptions(options);
  if (method !== "auto") checkDelivers(method, wanted);
  return { method, wanted };
}

/** The plan of field.jvp: J t for one given tangent per point. */
export function makeJvpPlan(network: Network): Plan {
  const graph = graphOf(network);
  const program = new ProgramBuilder(graph, { kind: "given" }, false);
  program.store("tangent");
  return { ...tracePlan("jvp", 1, program.instructions), graph, outputs: [] };
}

function readOutputs(given: readonly Output[] | undefined): readonly Output[] {
  const wanted = given ?? ["value", "divergence"];
  if (!Array.isArray(wanted) || wanted.length === 0 || !wanted.every((output) => outputs.includes(output)))
    throw new PlanError(`outputs is ${quote(wanted)}; expected a list out of ${outputs.map((output) => `"${output}"`).join(", ")}`);
  return outputs.filter((output) => wanted.includes(output));
}

function checkDelivers(method: Method, wanted: readonly Output[]): void {
  const missing = wanted.find((output) => !DELIVERS[method].includes(output));
  if (missing === undefined) return;
  const able = methods.filter((other) => DELIVERS[other].includes(missing));
  throw new PlanError(
    `method "${method}" does not give the output "${missing}"; it is given by ${able.map((name) => `"${name}"`).join(", ")}`,
  );
}

function checkOptions({ tangentsAtOnce, probes, seed, probesPer, contextPer, step }: PlanOptions): void {
  const positive = (name: string, value: number | undefined): void => {
    if (value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= 2 ** 31))
      throw new InputError(`${name} is ${quote(value)}; expected a whole number from 1 to 2^31`);
  };
  positive("tangentsAtOnce", tangentsAtOnce);
  positive("probes", probes);
  if (seed !== undefined && !(Number.isInteger(seed) && seed >= -(2 ** 31) && seed < 2 ** 32))
    throw new InputError(`seed is ${quote(seed)}; expected a 32-bit integer`);
  if (contextPer !== undefined && contextPer !== "point" && contextPer !== "batch")
    throw new InputError(`contextPer is ${quote(contextPer)}; expected "point" or "batch"`);
  if (probesPer !== undefined && probesPer !== "point" && probesPer !== "batch")
    throw new InputError(`probesPer is ${quote(probesPer)}; expected "point" or "batch"`);
  if (step !== undefined && !(step > 0 && step < 1)) throw new InputError(`step is ${quote(step)}; expected a number between 0 and 1`);
}

/** The cheapest candidate by multiply-adds, then by passes, then by bytes, of the method named or of the exact ones. */
export function chooseCandidate<T extends Candidate>(candidates: readonly T[], method: Method | "auto", wanted: readonly Output[]): T {
  const able = candidates.filter(
    (candidate) =>
      (method === "auto" ? candidate.exact : candidate.method === method) && wanted.every((output) => candidate.delivers.includes(output)),
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

/** Every candidate with its price; cyclic has one per start and merging, or none where the graph has no cycle. */
export function candidatesOf(network: Network, options: PlanOptions = {}): readonly Priced[] {
  const graph = graphOf(network);
  const forward = forwardMultiplyAdds(network);
  const d = graph.stateSize;
  const price = (plan: TracePlan | DifferencePlan, description: string, matrices: readonly PlannedMatrix[] = []): Priced => {
    const method = plan.method as Method;
    const multiplyAdds = plan.kind === "difference" ? 2 * plan.tangents * forward : priceOf(plan.instructions, plan.tangents);
    return {
      method,
      description,
      exact: method !== "difference" && method !== "hutchinson",
      multiplyAdds,
      ratio: multiplyAdds / Math.max(1, forward),
      passes: Math.ceil(plan.tangents / plan.tangentsAtOnce),
      bytesPerPoint: bytesPerPoint(graph, plan),
      matrixBytes: matrices.reduce((total, { rows, columns }) => total + 4 * rows * columns, 0),
      delivers: DELIVERS[method],
      plan,
    };
  };
  const basis: Rows = { kind: "matrix", matrix: identity(d) };
  const sharesContext = graph.contextSize === 0 || options.contextPer === "batch";
  const tangent = new ProgramBuilder(graph, basis, sharesContext);
  tangent.contractDiagonal();
  const columns = new ProgramBuilder(graph, basis, sharesContext);
  columns.store("jacobian");
  const difference: DifferencePlan = {
    kind: "difference",
    method: "difference",
    tangents: d,
    tangentsAtOnce: Math.min(d, options.tangentsAtOnce ?? d),
    step: options.step ?? 2 ** -7,
  };
  return [
    price({ ...tracePlan("tangent", d, tangent.instructions, options), diagonal: true }, describeTangents(d, tangent.instructions)),
    ...cyclicPrograms(graph, sharesContext).map(({ tangents, instructions, description, matrices }) =>
      price(tracePlan("cyclic", tangents, instructions, options), description, matrices),
    ),
    price({ ...tracePlan("jacobian", d, columns.instructions, options), diagonal: true }, "the full Jacobian, its diagonal summed"),
    price(
      { ...tracePlan("coordinate", d, columns.instructions, { tangentsAtOnce: 1 }), diagonal: true },
      `${d} passes, one column of the Jacobian each`,
    ),
    price(difference, `central differences, ${2 * d} evaluations of f; inexact`),
    hutchinsonCandidate(graph, options, price),
  ];
}

/** Where the basis tangents start and what they meet in the end, by the names of the matrices. */
function describeTangents(d: number, instructions: readonly Instruction[]): string {
  const starts = new Set<string>();
  const ends = new Set<string>();
  for (const instruction of instructions) {
    const { rows } = instruction.from;
    if (rows.kind === "matrix") starts.add(rows.matrix.name);
    if (instruction.kind === "contract" && instruction.rows.kind === "matrix") ends.add(instruction.rows.matrix.name);
  }
  const [start] = starts;
  if (starts.size === 1 && start!.startsWith("diagonal")) return `the ${start}`;
  const met = [...ends].filter((name) => name !== "ones" && name !== "identity");
  return `${d} basis tangents${starts.size === 1 ? ` from the ${start}` : ""}${met.length > 0 ? `, contracted with ${met.join(" and ")}` : ""}`;
}

function tracePlan(
  method: TracePlan["method"],
  tangents: number,
  instructions: readonly Instruction[],
  options: PlanOptions = {},
): TracePlan {
  const tangentsAtOnce = Math.min(tangents, options.tangentsAtOnce ?? tangents);
  return { kind: "trace", method, tangents, tangentsAtOnce, instructions, diagonal: false, probes: null };
}

/** vᵀ J v for Rademacher probes v. What shared probes alone decide is computed once for all points. */
function hutchinsonCandidate(graph: Graph, options: PlanOptions, price: (plan: TracePlan, description: string) => Priced): Priced {
  const tangents = options.probes ?? 16;
  const per = options.probesPer ?? "point";
  const probes: Rows = { kind: "probes", shared: per === "batch" };
  const program = new ProgramBuilder(graph, probes, graph.contextSize === 0 || options.contextPer === "batch");
  program.contractWith(probes);
  const plan = { ...tracePlan("hutchinson", tangents, program.instructions, options), probes: { per, seed: (options.seed ?? 0) >>> 0 } };
  const words = `${tangents} random probe${tangents > 1 ? "s" : ""} ${per === "batch" ? "shared by all points" : "per point"}; an estimate`;
  return price(plan, words);
}

/** Multiply-adds per point of a program with K tangents; what all points share is free. */
function priceOf(instructions: readonly Instruction[], tangents: number): number {
  return instructions.reduce((total, instruction) => total + columnsOf(instruction, tangents) * multiplyAddsPerTangent(instruction), 0);
}

function columnsOf(instruction: Instruction, tangents: number): number {
  if (instruction.kind === "contract") return instruction.once ? 1 : tangents;
  return instruction.into.kind === "register" && instruction.into.register.shared ? 0 : tangents;
}

/** What a point occupies between the kernels, all its tangents at once: values, scales, tangents, terms. */
function bytesPerPoint(graph: Graph, plan: TracePlan | DifferencePlan): number {
  const { stateSize: d, contextSize: c } = graph;
  const widths = graph.nodes.slice(2).map(({ width }) => width);
  const values = d + c + 2 * Math.max(0, ...widths);
  if (plan.kind === "difference") return 4 * (2 * plan.tangentsAtOnce * (values + d) + d);
  const scales = new Map<string, number>();
  let tangents = 0;
  for (const instruction of plan.instructions) {
    for (const factor of scalesOf(instruction).flat())
      if (factor.kind !== "constant") scales.set(`${factor.kind} ${factor.node}`, graph.nodes[factor.node]!.width);
    if (instruction.kind !== "contract" && !(instruction.into.kind === "register" && instruction.into.register.shared))
      tangents = Math.max(tangents, widthOfTarget(instruction.into));
  }
  const probes = plan.probes?.per === "point" ? d : 0;
  return 4 * (values + [...scales.values()].reduce((a, b) => a + b, 0) + plan.tangentsAtOnce * (tangents + probes) + plan.tangents);
}
