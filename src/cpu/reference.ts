import { readBatch, readContext, type BatchInput, type ContextInput } from "../batch.js";
import { activationFunctions } from "../model/activation.js";
import type { Matrix, Network, Numbers } from "../model/network.js";
import { CONTEXT, graphOf, STATE, type Graph, type Node } from "../plan/graph.js";
import type { Factor, Instruction, Rows, Scale } from "../plan/program.js";
import {
  makePlan,
  readPlanOptions,
  type DifferencePlan,
  type Method,
  type Output,
  type Plan,
  type PlanOptions,
  type TracePlan,
} from "../plan/trace.js";
import { rademacher } from "./probes.js";
import { meanRows, sumRows } from "./reduce.js";

/** What {@link evaluateReference} is asked for. */
export interface ReferenceOptions extends PlanOptions {
  /** One vector for all points, or one per point; required where the network takes a context. */
  readonly context?: ContextInput | null | undefined;
}

/** Results in float64; each array is row-major, with the batch shape of the points in front. */
export interface ReferenceResult {
  /** The method that ran; "value" where only f was asked for. */
  readonly method: Method | "value";
  /** The leading batch shape of the points. */
  readonly shape: readonly number[];
  /** f(x), [...shape, d]. */
  readonly value?: Float64Array;
  /** Σ ∂f_i/∂x_i, [...shape]. */
  readonly divergence?: Float64Array;
  /** ∂f_i/∂x_i, [...shape, d]. */
  readonly diagonal?: Float64Array;
  /** J[i][j] = ∂f_i/∂x_j, [...shape, d, d]. */
  readonly jacobian?: Float64Array;
  /** hutchinson: the standard error of the divergence, [...shape]; NaN for a single probe. */
  readonly standardError?: Float64Array;
}

/** What the forward pass leaves behind at one point. */
interface Primal {
  /** By node. */
  readonly values: readonly Float64Array[];
  /** σ'(z) by node; null where it has no activation. */
  readonly derivatives: readonly (Float64Array | null)[];
  /** 1/√(variance + ε) by node; NaN where it is no norm. */
  readonly deviations: readonly number[];
}

/**
 * f and its divergence in float64 on the CPU: the twin of the GPU kernels, and the way where there is no WebGPU.
 * tangent, jacobian and coordinate all push the basis vectors through the layers (forward mode); cyclic, difference and
 * hutchinson follow their plans. points is [B, d] or [..., d], and nothing is rounded to float32. A point with a NaN or an infinity in it, or in its context, gives NaN throughout.
 *
 * @throws InputError, PlanError as VectorField.evaluate rejects with.
 */
export function evaluateReference(network: Network, points: BatchInput, options: ReferenceOptions = {}): ReferenceResult {
  readPlanOptions(options);
  graphOf(network);
  const { stateSize: d, contextSize: c } = network;
  const batch = readBatch(points, d, "points");
  const contexts = readContext(options.context, c, batch.count);
  const plan = makePlan(network, { ...options, contextPer: contexts?.shared === false ? "point" : "batch" });
  const { count } = batch;

  const { graph } = plan;
  const forward = makeForward(graph);
  const trace = makeTrace(plan, forward);
  const wants = (output: Output): boolean => plan.outputs.includes(output);
  const value = new Float64Array(wants("value") ? count * d : 0);
  const jacobian = new Float64Array(wants("jacobian") ? count * d * d : 0);
  const width = plan.kind === "value" ? 0 : plan.kind === "trace" && !plan.diagonal && !plan.probes ? 1 : plan.tangents;
  const terms = new Float64Array(count * width);

  const x = new Float64Array(d);
  const context = new Float64Array(c);
  for (let point = 0; point < count; point++) {
    for (let i = 0; i < d; i++) x[i] = batch.data[point * d + i]!;
    for (let i = 0; i < c; i++) context[i] = contexts!.data[(contexts!.shared ? 0 : point * c) + i]!;
    if (!x.every(Number.isFinite) || !context.every(Number.isFinite)) {
      value.fill(NaN, point * d, (point + 1) * d);
      jacobian.fill(NaN, point * d * d, (point + 1) * d * d);
      terms.fill(NaN, point * width, (point + 1) * width);
      continue;
    }
    const primal = forward(x, context);
    if (wants("value")) value.set(primal.values[graph.output.index]!, point * d);
    trace?.({
      x,
      context,
      primal,
      point,
      terms: terms.subarray(point * width, (point + 1) * width),
      jacobian: jacobian.subarray(point * d * d, (point + 1) * d * d),
    });
  }

  const estimate = plan.kind === "trace" && plan.probes ? meanRows(terms, count, width) : null;
  return {
    method: plan.method as Method | "value",
    shape: batch.shape,
    ...(wants("value") && { value }),
    ...(wants("divergence") && { divergence: estimate?.mean ?? sumRows(terms, count, width) }),
    ...(wants("diagonal") && { diagonal: terms }),
    ...(wants("jacobian") && { jacobian }),
    ...(estimate && { standardError: estimate.standardError }),
  };
}

type Forward = (x: Float64Array, context: Float64Array) => Primal;

/** σ(Σ W x + Σ d ∘ x + Σ x ∘ y + b) of every node in turn. */
function makeForward(graph: Graph): Forward {
  const nodes = graph.nodes.map((node) => ({ ...node, functions: node.activation && activationFunctions(node.activation) }));
  return (x, context) => {
    const values: Float64Array[] = [];
    const derivatives: (Float64Array | null)[] = [];
    const deviations: number[] = [];
    for (const { index, width, body, functions } of nodes) {
      let z: Float64Array;
      let deviation = NaN;
      if (index === STATE) z = x;
      else if (index === CONTEXT) z = context;
      else if (body.kind === "norm") [z, deviation] = normed(values[body.source]!, body.centered, body.epsilon);
      else {
        z = new Float64Array(width);
        if (body.kind !== "sum") continue;
        if (body.bias) z.set(body.bias);
        for (const term of body.terms) {
          const source = values[term.source]!;
          if (term.kind === "dense") addTo(z, multiply(term.matrix.build(), source));
          else if (term.kind === "product") addTo(z, scaled(source, values[term.by]!));
          else addTo(z, scaled(source, term.factors && term.factors.build().data));
        }
      }
      values.push(functions ? z.map(functions.value) : z);
      derivatives.push(functions && z.map(functions.derivative));
      deviations.push(deviation);
    }
    return { values, derivatives, deviations };
  };
}

/** y = r (x - μ) and r. */
function normed(x: Float64Array, centered: boolean, epsilon: number): [Float64Array, number] {
  const mean = centered ? x.reduce((sum, value) => sum + value, 0) / x.length : 0;
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  const r = 1 / Math.sqrt(variance + epsilon);
  return [x.map((value) => r * (value - mean)), r];
}

interface TraceArguments {
  readonly x: Float64Array;
  readonly context: Float64Array;
  readonly primal: Primal;
  readonly point: number;
  /** Receives the point's terms. */
  readonly terms: Float64Array;
  /** Receives J, where it is asked for. */
  readonly jacobian: Float64Array;
}

type Trace = (at: TraceArguments) => void;

function makeTrace(plan: Plan, forward: Forward): Trace | null {
  if (plan.kind === "value") return null;
  if (plan.kind === "difference") return differences(plan.graph, plan, forward);
  if (plan.probes) return estimate(plan.graph, plan.probes, plan.tangents);
  if (plan.method === "cyclic") return cycle(plan);
  return basisTangents(plan.graph);
}

/** Column k of J is J e_k. */
function basisTangents(graph: Graph): Trace {
  const d = graph.stateSize;
  const basis = Array.from({ length: d }, (_, k) => Float64Array.from({ length: d }, (_, i) => (i === k ? 1 : 0)));
  return ({ primal, terms, jacobian }) => {
    for (let k = 0; k < d; k++) {
      const column = pushForward(graph, primal, basis[k]!);
      terms[k] = column[k]!;
      if (jacobian.length > 0) for (let i = 0; i < d; i++) jacobian[i * d + k] = column[i]!;
    }
  };
}

/** J t: the tangent of every node in turn, by the rule of each. */
function pushForward(graph: Graph, primal: Primal, tangent: Float64Array): Float64Array {
  const tangents: (Float64Array | null)[] = [];
  for (const node of graph.nodes)
    tangents.push(node.moves ? scaled(tangentOf(node, primal, tangent, tangents), primal.derivatives[node.index]!) : null);
  return tangents[graph.output.index] ?? new Float64Array(graph.stateSize);
}

/** The tangent of a node before its activation; what the state does not move has none. */
function tangentOf(
  { index, width, body }: Node,
  { values, deviations }: Primal,
  seed: Float64Array,
  tangents: readonly (Float64Array | null)[],
): Float64Array {
  if (index === STATE) return seed;
  if (body.kind === "norm") {
    const t = tangents[body.source]!;
    const y = values[index]!;
    const mean = body.centered ? t.reduce((sum, value) => sum + value, 0) / width : 0;
    const along = t.reduce((sum, value, i) => sum + value * y[i]!, 0) / width;
    return t.map((value, i) => deviations[index]! * (value - mean - y[i]! * along));
  }
  const sum = new Float64Array(width);
  if (body.kind !== "sum") return sum;
  for (const term of body.terms) {
    const t = tangents[term.source];
    if (term.kind === "product") {
      const other = tangents[term.by];
      if (t) addTo(sum, scaled(t, values[term.by]!));
      if (other) addTo(sum, scaled(other, values[term.source]!));
    } else if (t)
      addTo(sum, term.kind === "dense" ? multiply(term.matrix.build(), t) : scaled(t, term.factors && term.factors.build().data));
  }
  return sum;
}

/** The terms of a plan whose tangents start anywhere on the cycle, summed: its instructions as they stand, in float64. */
function cycle(plan: TracePlan): Trace {
  return ({ primal, terms }) => {
    const factorOf = (factor: Factor): Numbers =>
      factor.kind === "constant"
        ? factor.row.build().data
        : factor.kind === "value"
          ? primal.values[factor.node]!
          : primal.derivatives[factor.node]!;
    const scaleBy = (vector: Float64Array, scale: Scale): Float64Array =>
      scale.reduce((result, factor) => scaled(result, factorOf(factor)), vector);
    let sum = 0;
    for (let k = 0; k < plan.tangents; k++) {
      const registers = new Map<number, Float64Array>();
      const rowOf = (rows: Rows): Float64Array => {
        if (rows.kind === "register") return registers.get(rows.register.index)!;
        if (rows.kind !== "matrix") throw new TypeError(`a cyclic plan reads ${rows.kind}`);
        const { columns, data } = rows.matrix.build();
        return Float64Array.from(data.subarray(k * columns, (k + 1) * columns));
      };
      for (const instruction of plan.instructions) sum += runCyclic(instruction, k, rowOf, scaleBy, registers);
    }
    terms[0] = sum;
  };
}

/** One instruction of a cyclic plan for tangent k; what it adds to the trace. */
function runCyclic(
  instruction: Instruction,
  k: number,
  rowOf: (rows: Rows) => Float64Array,
  scaleBy: (vector: Float64Array, scale: Scale) => Float64Array,
  registers: Map<number, Float64Array>,
): number {
  if (instruction.kind === "contract" && instruction.once && k > 0) return 0;
  let t = scaleBy(rowOf(instruction.from.rows), instruction.from.scale);
  if ("matrix" in instruction && instruction.matrix) t = multiply(instruction.matrix.build(), t);
  if (instruction.kind !== "contract") {
    if (instruction.into.kind === "register") registers.set(instruction.into.register.index, t);
    return 0;
  }
  t = scaleBy(t, instruction.scale);
  const row = rowOf(instruction.rows);
  const term = t.reduce((sum, value, i) => sum + value * row[i]!, 0);
  // e_k: the k-th entry of the scale.
  const end = instruction.endScale.length > 0 ? scaleBy(new Float64Array(k + 1).fill(1), instruction.endScale)[k]! : 1;
  return term * end;
}

/** (f_i(x + h e_i) - f_i(x - h e_i)) / 2h with h = step max(1, |x_i|). */
function differences({ output }: Graph, { step }: DifferencePlan, forward: Forward): Trace {
  return ({ x, context, terms }) => {
    const moved = x.slice();
    for (let i = 0; i < x.length; i++) {
      const h = step * Math.max(1, Math.abs(x[i]!));
      moved[i] = x[i]! + h;
      const more = forward(moved, context).values[output.index]![i]!;
      moved[i] = x[i]! - h;
      const less = forward(moved, context).values[output.index]![i]!;
      moved[i] = x[i]!;
      terms[i] = (more - less) / (2 * h);
    }
  };
}

/** vᵀ J v for each probe v. */
function estimate(graph: Graph, probes: { per: "point" | "batch"; seed: number }, count: number): Trace {
  return ({ primal, point, terms }) => {
    for (let k = 0; k < count; k++) {
      const v = rademacher(graph.stateSize, probes.seed, probes.per === "batch" ? 0 : point, k);
      const jv = pushForward(graph, primal, v);
      terms[k] = v.reduce((sum, sign, i) => sum + sign * jv[i]!, 0);
    }
  };
}

function multiply({ rows, columns, data }: Matrix, vector: Float64Array): Float64Array {
  const product = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let column = 0; column < columns; column++) sum += data[row * columns + column]! * vector[column]!;
    product[row] = sum;
  }
  return product;
}

function scaled(vector: Float64Array, scale: Numbers | null): Float64Array {
  return scale ? vector.map((value, i) => value * scale[i]!) : vector;
}

function addTo(sum: Float64Array, part: Float64Array): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += part[i]!;
}
