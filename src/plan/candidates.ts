import { cyclicPrograms } from "./cycle.js";
import { hutchinson } from "./estimators.js";
import type { Graph } from "./graph.js";
import { identity, sizeOf, transposed, type PlannedMatrix } from "./matrices.js";
import type { PlanOptions } from "./options.js";
import { delivers, EXACT, exists, outputs, type Method, type Output } from "./outputs.js";
import type { DifferencePlan, TracePlan } from "./plan.js";
import {
  forwardInstruction,
  isOnes,
  multiplyAddsOf,
  readsOf,
  rowsOf,
  widthOfTarget,
  withForward,
  type Rows,
  type TangentInstruction,
} from "./program.js";
import { Pushforward } from "./pushforward.js";

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

/** A candidate that can be carried out. */
export interface PlannedCandidate extends Candidate {
  /** The plan, for some of the outputs that it delivers. */
  readonly planFor: (wanted: readonly Output[]) => TracePlan | DifferencePlan;
}

/** What sets a trace apart from others of its graph. */
interface Way {
  readonly method: Method;
  readonly description: string;
  readonly tangents: number;
  readonly tangentsAtOnce: number;
  readonly instructions: readonly TangentInstruction[];
  readonly diagonal?: boolean;
  readonly probesPer?: "point" | "batch";
  readonly matrices?: readonly PlannedMatrix[];
}

/** Multiply-adds of f at one point whose context is its own: of matrices, products and factors. */
export function forwardMultiplyAdds({ nodes }: Graph): number {
  return nodes.reduce((total, node) => total + multiplyAddsOf(forwardInstruction(node, false)), 0);
}

/** Every candidate with its price; cyclic has one per start and merging, or none where the graph has no cycle. */
export function candidatesOf(graph: Graph, options: PlanOptions = {}, isForGradient = false): readonly PlannedCandidate[] {
  const d = graph.stateSize;
  const basis: Rows = { kind: "matrix", matrix: identity(d) };
  // A gradient reads the tangents of every point.
  const sharesContext = isForGradient ? "never" : graph.contextSize === 0 || options.contextPer === "batch";
  const atOnce = (tangents: number): number => Math.min(tangents, options.chunkSize ?? tangents);
  const diagonal = new Pushforward(graph, basis, sharesContext);
  diagonal.contractDiagonal();
  const jacobian = new Pushforward(graph, basis, sharesContext);
  if (isForGradient) jacobian.contractWith(basis);
  else jacobian.store("jacobian");
  const all = { tangents: d, tangentsAtOnce: atOnce(d), diagonal: true };
  const estimator = hutchinson(graph, options, sharesContext);
  return [
    traced(graph, {
      ...all,
      method: "tangent",
      description: describeTangents(d, diagonal.instructions),
      instructions: diagonal.instructions,
    }),
    ...cyclicPrograms(graph, sharesContext).map((program) =>
      traced(graph, { ...program, method: "cyclic", tangentsAtOnce: atOnce(program.tangents) }),
    ),
    traced(graph, {
      ...all,
      method: "jacobian",
      description: "the full Jacobian, its diagonal summed",
      instructions: jacobian.instructions,
    }),
    traced(graph, {
      ...all,
      method: "coordinate",
      tangentsAtOnce: 1,
      description: `${d} passes, one column of the Jacobian each`,
      instructions: jacobian.instructions,
    }),
    differences(graph, atOnce(d)),
    traced(graph, {
      ...estimator,
      method: "hutchinson",
      tangents: estimator.probes,
      tangentsAtOnce: atOnce(estimator.probes),
    }),
  ];
}

function traced(graph: Graph, way: Way): PlannedCandidate {
  const { method, tangents, tangentsAtOnce, instructions, diagonal = false, probesPer = null, matrices = [] } = way;
  // What all points share is free.
  const price = (total: number, instruction: TangentInstruction): number =>
    total + columnsOf(instruction, tangents) * multiplyAddsOf(instruction);
  const planFor = (wanted: readonly Output[]): TracePlan => ({
    kind: "trace",
    method,
    graph,
    outputs: wanted,
    instructions: withForward(graph, wanted.includes("value"), instructions),
    tangents,
    tangentsAtOnce,
    diagonal,
    probesPer,
  });
  const bytesPerPoint = bytesOfValues(graph) + bytesOfTangents(graph, way);
  // What tangents start from, or meet in the end, lies there with all its zeros.
  const rows = new Set(
    instructions.flatMap((instruction) => rowsOf(instruction).flatMap((each) => (each.kind === "matrix" ? [each.matrix] : []))),
  );
  const isRows = (matrix: PlannedMatrix): boolean => rows.has(matrix) || rows.has(transposed(matrix));
  const matrixBytes = matrices.reduce((total, matrix) => total + 4 * (isRows(matrix) ? matrix.rows * matrix.columns : sizeOf(matrix)), 0);
  return priced(graph, way, instructions.reduce(price, 0), bytesPerPoint, matrixBytes, planFor);
}

/** f at 2d moved copies of a point. */
function differences(graph: Graph, tangentsAtOnce: number): PlannedCandidate {
  const d = graph.stateSize;
  const way = {
    method: "difference",
    description: `central differences, ${2 * d} evaluations of f; inexact`,
    tangents: d,
    tangentsAtOnce,
  } as const;
  const bytesPerPoint = 2 * tangentsAtOnce * (bytesOfValues(graph) + 4 * d) + 4 * d;
  const { method, tangents } = way;
  return priced(graph, way, 2 * d * forwardMultiplyAdds(graph), bytesPerPoint, 0, (wanted) => ({
    kind: "difference",
    method,
    graph,
    outputs: wanted,
    instructions: withForward(graph, true, []),
    tangents,
    tangentsAtOnce,
  }));
}

function priced(
  graph: Graph,
  { method, description, tangents, tangentsAtOnce }: Pick<Way, "method" | "description" | "tangents" | "tangentsAtOnce">,
  multiplyAdds: number,
  bytesPerPoint: number,
  matrixBytes: number,
  planFor: PlannedCandidate["planFor"],
): PlannedCandidate {
  return {
    method,
    description,
    exact: EXACT.includes(method),
    multiplyAdds,
    ratio: multiplyAdds / Math.max(1, forwardMultiplyAdds(graph)),
    passes: Math.ceil(tangents / tangentsAtOnce),
    bytesPerPoint,
    matrixBytes,
    delivers: outputs.filter((output) => delivers(method, output) && exists(output, graph.stateSize)),
    planFor,
  };
}

function columnsOf(instruction: TangentInstruction, tangents: number): number {
  if (instruction.kind === "contract") return instruction.once ? 1 : tangents;
  return instruction.into.kind === "register" && instruction.into.register.shared ? 0 : tangents;
}

/** What a point's values occupy between the kernels. */
function bytesOfValues({ stateSize: d, contextSize: c, nodes }: Graph): number {
  return 4 * (d + c + 2 * Math.max(0, ...nodes.slice(2).map(({ width }) => width)));
}

/** What a point's scales, tangents and terms do, all its tangents at once. */
function bytesOfTangents({ stateSize: d, nodes }: Graph, { instructions, tangents, tangentsAtOnce, probesPer }: Way): number {
  const { slopes, values } = readsOf(instructions);
  const scales = [...slopes, ...values].reduce((total, node) => total + nodes[node]!.width, 0);
  let widest = 0;
  for (const instruction of instructions)
    if (instruction.kind !== "contract" && !(instruction.into.kind === "register" && instruction.into.register.shared))
      widest = Math.max(widest, widthOfTarget(instruction.into));
  return 4 * (scales + tangentsAtOnce * (widest + (probesPer === "point" ? d : 0)) + tangents);
}

/** Where the basis tangents start and what they meet in the end, by the names of the matrices. */
function describeTangents(d: number, instructions: readonly TangentInstruction[]): string {
  const starts = new Set<PlannedMatrix>();
  const ends = new Set<PlannedMatrix>();
  for (const instruction of instructions) {
    const { rows } = instruction.from;
    if (rows.kind === "matrix") starts.add(rows.matrix);
    if (instruction.kind === "contract" && !isOnes(instruction.rows) && instruction.rows.kind === "matrix")
      ends.add(instruction.rows.matrix);
  }
  const [start] = starts;
  // One number a tangent: nothing is carried at all.
  if (starts.size === 1 && start!.columns === 1 && d > 1) return `the ${start!.name}`;
  const met = [...ends].filter(({ diagonal }) => !diagonal).map(({ name }) => name);
  return `${d} basis tangents${starts.size === 1 ? ` from the ${start!.name}` : ""}${met.length > 0 ? `, contracted with ${met.join(" and ")}` : ""}`;
}
