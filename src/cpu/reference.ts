import { InputError } from "../errors.js";
import { readBatch, readContext, type Batch, type BatchInput, type ContextInput, type Contexts } from "../inputs.js";
import { activationFunctions } from "../model/activation.js";
import type { Network, Numbers } from "../model/network.js";
import { makePlan } from "../plan/choose.js";
import { CONTEXT, graphOf, STATE, type Graph, type Node } from "../plan/graph.js";
import { blockShape, type PlannedMatrix } from "../plan/matrices.js";
import { populationOf } from "../plan/orthogonal.js";
import { runParametersOf, readRunOptions, type PlanOptions, type PlanParameters } from "../plan/options.js";
import { kinematicsOf, type Method, type Output } from "../plan/outputs.js";
import type { Plan, TracePlan } from "../plan/plan.js";
import { tangentsOf, type Factor, type Rows, type Scale, type TangentInstruction } from "../plan/program.js";
import { meanRows, sumRows } from "../plan/reduce.js";
import { rademacher } from "./probes.js";

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
  /** ∇×f, [...shape, 3]; for d = 2 the vorticity ∂f_1/∂x_0 - ∂f_0/∂x_1, [...shape]. */
  readonly curl?: Float64Array;
  /** S = (J + Jᵀ)/2, [...shape, d, d]. */
  readonly strain?: Float64Array;
  /** ½(‖Ω‖² - ‖S‖²) with Ω = (J - Jᵀ)/2, [...shape]. */
  readonly qCriterion?: Float64Array;
  /** hutchinson: the standard error of the divergence, [...shape]; NaN for a single probe. */
  readonly standardError?: Float64Array;
}

/** What the forward pass leaves behind at one point. */
interface Primal {
  /** By node. */
  readonly values: readonly Float64Array[];
  /** σ'(z) by node; null where it has no activation. */
  readonly slopes: readonly (Float64Array | null)[];
  /** 1/√(variance + ε) by node; NaN where it is no norm. */
  readonly inverseDeviations: readonly number[];
}

/**
 * f and its divergence in float64 on the CPU: the twin of the GPU kernels.
 * tangent, jacobian and coordinate all push the basis vectors through the layers (forward mode); cyclic, difference and
 * hutchinson follow their plans. points is [B, d] or [..., d], and nothing is rounded to float32. A point with a NaN or an
 * infinity in it, or in its context, gives NaN throughout.
 *
 * @throws InputError, PlanError as VectorField.evaluate rejects with.
 */
export function evaluateReference(network: Network, points: BatchInput, options: ReferenceOptions = {}): ReferenceResult {
  const reference = new Reference(network, points, options);
  for (let point = 0; point < reference.count; point++) reference.evaluate(point);
  return reference.result();
}

/** An evaluation in float64, point by point. */
export class Reference {
  readonly count: number;
  readonly plan: Plan;
  private readonly shape: readonly number[];
  private readonly at: (point: number) => PointInputs | null;
  private readonly forward: Forward;
  private readonly trace: Trace | null;
  /** As meanRows takes it. */
  private readonly population: number;
  private readonly value: Float64Array;
  private readonly keepsJacobian: boolean;
  private readonly jacobian: Float64Array;
  private readonly terms: Float64Array;
  /** Terms of a point. */
  private readonly width: number;

  /** @throws InputError, PlanError for a bad argument. */
  constructor(network: Network, points: BatchInput, options: ReferenceOptions) {
    readRunOptions(options);
    const { graph, count, shape, at, sharesContext } = readPoints(network, points, options.context);
    const plan = makePlan(network, { ...options, contextPer: sharesContext ? "batch" : "point" });
    const d = graph.stateSize;
    this.count = count;
    this.shape = shape;
    this.at = at;
    this.plan = plan;
    this.forward = makeForward(graph);
    const parameters = runParametersOf(options);
    this.population = populationOf(d, parameters.orthogonal);
    this.trace = makeTrace(plan, this.forward, parameters);
    this.width = plan.kind === "value" ? 0 : plan.kind === "trace" && !plan.diagonal && !plan.probesPer ? 1 : plan.tangents;
    this.value = new Float64Array(this.wants("value") ? count * d : 0);
    this.keepsJacobian = needsJacobian(plan);
    this.jacobian = new Float64Array(this.keepsJacobian ? count * d * d : 0);
    this.terms = new Float64Array(count * this.width);
  }

  evaluate(point: number): void {
    const d = this.plan.graph.stateSize;
    const inputs = this.at(point);
    const terms = this.terms.subarray(point * this.width, (point + 1) * this.width);
    const jacobian = this.keepsJacobian ? this.jacobian.subarray(point * d * d, (point + 1) * d * d) : this.jacobian;
    if (!inputs) {
      if (this.wants("value")) this.value.fill(NaN, point * d, (point + 1) * d);
      jacobian.fill(NaN);
      terms.fill(NaN);
      return;
    }
    const { x, context } = inputs;
    const primal = this.forward(x, context);
    if (this.wants("value")) this.value.set(primal.values[this.plan.graph.output.index]!, point * d);
    this.trace?.({ x, context, primal, point, terms, jacobian });
  }

  /** f of a point that was evaluated, [d], until it is evaluated again, and its divergence. */
  resultAt(point: number): { value: Float64Array; divergence: number } {
    const { plan, width } = this;
    const d = plan.graph.stateSize;
    const [sum] = sumRows(this.terms.subarray(point * width, (point + 1) * width), 1, width);
    return {
      value: this.value.subarray(point * d, (point + 1) * d),
      divergence: plan.kind === "trace" && plan.probesPer ? sum! / width : sum!,
    };
  }

  result(): ReferenceResult {
    const { plan, shape, value, jacobian, terms, count, width } = this;
    const estimate = plan.kind === "trace" && plan.probesPer ? meanRows(terms, count, width, this.population) : null;
    return {
      method: plan.method as Method | "value",
      shape,
      ...(this.wants("value") && { value }),
      ...(this.wants("divergence") && { divergence: estimate?.mean ?? sumRows(terms, count, width) }),
      ...(this.wants("diagonal") && { diagonal: terms }),
      ...(this.wants("jacobian") && { jacobian }),
      ...(this.wants("curl") && { curl: perPoint(jacobian, count, curlOf) }),
      ...(this.wants("strain") && { strain: perPoint(jacobian, count, (j) => halvesOf(j).strain) }),
      ...(this.wants("qCriterion") && { qCriterion: perPoint(jacobian, count, qCriterionOf) }),
      ...(estimate && { standardError: estimate.standardError }),
    };
  }

  private wants(output: Output): boolean {
    return this.plan.outputs.includes(output);
  }
}

/** f(x) and J(x) t at each point, [B, d] both: point by point, as evaluate does. */
export class ReferenceJvp {
  readonly count: number;
  readonly value: Float64Array;
  readonly tangent: Float64Array;
  private readonly graph: Graph;
  private readonly at: (point: number) => PointInputs | null;
  private readonly directions: Batch;
  private readonly forward: Forward;

  /** @throws InputError for a bad argument. */
  constructor(network: Network, points: BatchInput, tangents: BatchInput, context: ContextInput | null | undefined) {
    const { graph, count, at } = readPoints(network, points, context);
    this.directions = readBatch(tangents, graph.stateSize, "tangents");
    if (this.directions.count !== count)
      throw new InputError(`tangents has ${this.directions.count} vectors of ${graph.stateSize}; expected ${count}, one per point`);
    this.count = count;
    this.graph = graph;
    this.at = at;
    this.forward = makeForward(graph);
    this.value = new Float64Array(count * graph.stateSize);
    this.tangent = new Float64Array(count * graph.stateSize);
  }

  evaluate(point: number): void {
    const d = this.graph.stateSize;
    const t = Float64Array.from({ length: d }, (_, i) => this.directions.data[point * d + i]!);
    const inputs = t.every(Number.isFinite) ? this.at(point) : null;
    if (!inputs) {
      for (const array of [this.value, this.tangent]) array.fill(NaN, point * d, (point + 1) * d);
      return;
    }
    const primal = this.forward(inputs.x, inputs.context);
    this.value.set(primal.values[this.graph.output.index]!, point * d);
    this.tangent.set(pushForward(this.graph, primal, t), point * d);
  }
}

interface PointInputs {
  readonly x: Float64Array;
  readonly context: Float64Array;
}

/** Points and contexts, checked: those of one point, null where they are not finite. */
function readPoints(
  network: Network,
  points: BatchInput,
  given: ContextInput | null | undefined,
): { graph: Graph; count: number; shape: readonly number[]; sharesContext: boolean; at: (point: number) => PointInputs | null } {
  const graph = graphOf(network);
  const { stateSize: d, contextSize: c } = graph;
  const { data, count, shape } = readBatch(points, d, "points");
  const contexts: Contexts | null = readContext(given, c, count);
  const at = (point: number): PointInputs | null => {
    const x = Float64Array.from({ length: d }, (_, i) => data[point * d + i]!);
    const context = Float64Array.from({ length: c }, (_, i) => contexts!.data[(contexts!.shared ? 0 : point * c) + i]!);
    return x.every(Number.isFinite) && context.every(Number.isFinite) ? { x, context } : null;
  };
  return { graph, count, shape, sharesContext: contexts?.shared !== false, at };
}

type Forward = (x: Float64Array, context: Float64Array) => Primal;

/** σ(Σ W x + Σ d ∘ x + Σ x ∘ y + b) of every node in turn. */
function makeForward(graph: Graph): Forward {
  const nodes = graph.nodes.map((node) => ({ ...node, functions: node.activation && activationFunctions(node.activation) }));
  return (x, context) => {
    const values: Float64Array[] = [];
    const slopes: (Float64Array | null)[] = [];
    const inverseDeviations: number[] = [];
    for (const { index, width, body, functions } of nodes) {
      let z: Float64Array;
      let inverseDeviation = NaN;
      if (index === STATE) z = x;
      else if (index === CONTEXT) z = context;
      else if (body.kind === "norm") [z, inverseDeviation] = normed(values[body.source]!, body.centered, body.epsilon);
      else {
        z = new Float64Array(width);
        if (body.kind !== "sum") continue;
        if (body.bias) z.set(body.bias.build().data);
        for (const term of body.terms) {
          const source = values[term.source]!;
          if (term.kind === "dense") addTo(z, multiply(term.matrix, source));
          else if (term.kind === "product") addTo(z, scaled(source, values[term.by]!));
          else addTo(z, scaled(source, term.factors && term.factors.build().data));
        }
      }
      values.push(functions ? z.map(functions.value) : z);
      slopes.push(functions && z.map(functions.slope));
      inverseDeviations.push(inverseDeviation);
    }
    return { values, slopes, inverseDeviations };
  };
}

function needsJacobian({ outputs }: Plan): boolean {
  return outputs.includes("jacobian") || kinematicsOf(outputs).length > 0;
}

/** What is made of the Jacobian J [d, d] of each point, one after another. */
function perPoint(jacobian: Float64Array, count: number, of: (j: Float64Array) => ArrayLike<number>): Float64Array {
  const size = jacobian.length / Math.max(1, count);
  const each = Array.from({ length: count }, (_, point) => of(jacobian.subarray(point * size, (point + 1) * size)));
  const all = new Float64Array(count * (each[0]?.length ?? 0));
  each.forEach((numbers, point) => all.set(numbers, point * numbers.length));
  return all;
}

/** ∂f_y/∂x - ∂f_x/∂y, and in three dimensions what stands beside it. */
function curlOf(j: Float64Array): number[] {
  if (j.length === 4) return [j[2]! - j[1]!];
  const [, xy, xz, yx, , yz, zx, zy] = j as unknown as [number, number, number, number, number, number, number, number];
  return [zy - yz, xz - zx, yx - xy];
}

/** J = S + Ω with S = Sᵀ and Ω = -Ωᵀ. */
function halvesOf(j: Float64Array): { strain: Float64Array; rotation: Float64Array } {
  const d = Math.sqrt(j.length);
  const mirrored = j.map((_, at) => j[(at % d) * d + Math.floor(at / d)]!);
  return { strain: j.map((entry, at) => (entry + mirrored[at]!) / 2), rotation: j.map((entry, at) => (entry - mirrored[at]!) / 2) };
}

function qCriterionOf(j: Float64Array): [number] {
  const { strain, rotation } = halvesOf(j);
  const square = (entries: Float64Array): number => entries.reduce((sum, entry) => sum + entry * entry, 0);
  return [(square(rotation) - square(strain)) / 2];
}

/** y = r (x - μ) and r. The largest distance sets the scale in which they are squared. */
function normed(x: Float64Array, centered: boolean, epsilon: number): [Float64Array, number] {
  const [lowest, highest] = [x.reduce((a, b) => Math.min(a, b)), x.reduce((a, b) => Math.max(a, b))];
  const sum = x.reduce((total, value) => total + value / x.length, 0);
  // Rounding must not move the mean of equal numbers away from them.
  const mean = centered ? Math.min(Math.max(sum, lowest), highest) : 0;
  const scale = Math.max(highest - mean, mean - lowest, Math.sqrt(epsilon));
  const variance = x.reduce((total, value) => total + ((value - mean) / scale) ** 2 / x.length, 0);
  const r = 1 / Math.sqrt(variance + epsilon / scale / scale);
  return [x.map((value) => r * ((value - mean) / scale)), r / scale];
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

function makeTrace(plan: Plan, forward: Forward, { seed, step, orthogonal }: PlanParameters): Trace | null {
  const { graph } = plan;
  if (plan.kind === "value" || plan.kind === "gradient") return null;
  if (plan.kind === "difference") return differences(graph, step, forward);
  if (plan.probesPer) return estimate(graph, plan.probesPer, plan.tangents, seed, orthogonal);
  if (plan.method === "cyclic") return cycle(plan);
  return isElementwise(graph) && !needsJacobian(plan) ? diagonalTangent(graph) : basisTangents(graph);
}

/** Whether every f_i depends on no state but x_i, by way of sums and products element by element. */
function isElementwise({ nodes }: Graph): boolean {
  return nodes.every(
    ({ moves, body }) =>
      !moves ||
      body.kind === "state" ||
      (body.kind === "sum" && body.terms.every((term) => term.kind !== "dense" || !nodes[term.source]!.moves)),
  );
}

/** J is diagonal: J (1, ..., 1) is its diagonal. */
function diagonalTangent(graph: Graph): Trace {
  const all = new Float64Array(graph.stateSize).fill(1);
  return ({ primal, terms }) => terms.set(pushForward(graph, primal, all));
}

/** Column k of J is J e_k. */
function basisTangents(graph: Graph): Trace {
  const d = graph.stateSize;
  return ({ primal, terms, jacobian }) => {
    const basis = new Float64Array(d);
    for (let k = 0; k < d; k++) {
      basis.fill(0)[k] = 1;
      const column = pushForward(graph, primal, basis);
      terms[k] = column[k]!;
      if (jacobian.length > 0) for (let i = 0; i < d; i++) jacobian[i * d + k] = column[i]!;
    }
  };
}

/** J t: the tangent of every node in turn, by the rule of each. */
function pushForward(graph: Graph, primal: Primal, tangent: Float64Array): Float64Array {
  const tangents: (Float64Array | null)[] = [];
  for (const node of graph.nodes)
    tangents.push(node.moves ? scaled(tangentOf(node, primal, tangent, tangents), primal.slopes[node.index]!) : null);
  return tangents[graph.output.index] ?? new Float64Array(graph.stateSize);
}

/** The tangent of a node before its activation; what the state does not move has none. */
function tangentOf(
  { index, width, body }: Node,
  { values, inverseDeviations }: Primal,
  seed: Float64Array,
  tangents: readonly (Float64Array | null)[],
): Float64Array {
  if (index === STATE) return seed;
  if (body.kind === "norm") {
    const t = tangents[body.source]!;
    const y = values[index]!;
    const mean = body.centered ? t.reduce((sum, value) => sum + value, 0) / width : 0;
    const along = t.reduce((sum, value, i) => sum + value * y[i]!, 0) / width;
    return t.map((value, i) => inverseDeviations[index]! * (value - mean - y[i]! * along));
  }
  const sum = new Float64Array(width);
  if (body.kind !== "sum") return sum;
  for (const term of body.terms) {
    const t = tangents[term.source];
    if (term.kind === "product") {
      const other = tangents[term.by];
      if (t) addTo(sum, scaled(t, values[term.by]!));
      if (other) addTo(sum, scaled(other, values[term.source]!));
    } else if (t) addTo(sum, term.kind === "dense" ? multiply(term.matrix, t) : scaled(t, term.factors && term.factors.build().data));
  }
  return sum;
}

/** The terms of a plan whose tangents start anywhere on the cycle, summed: its instructions as they stand, in float64. */
function cycle(plan: TracePlan): Trace {
  const instructions = tangentsOf(plan.instructions);
  return ({ primal, terms }) => {
    const factorOf = (factor: Factor): Numbers =>
      factor.kind === "constant"
        ? factor.row.build().data
        : factor.kind === "value"
          ? primal.values[factor.node]!
          : primal.slopes[factor.node]!;
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
      for (const instruction of instructions) sum += runCyclic(instruction, k, rowOf, scaleBy, registers);
    }
    terms[0] = sum;
  };
}

/** One instruction of a cyclic plan for tangent k; what it adds to the trace. */
function runCyclic(
  instruction: TangentInstruction,
  k: number,
  rowOf: (rows: Rows) => Float64Array,
  scaleBy: (vector: Float64Array, scale: Scale) => Float64Array,
  registers: Map<number, Float64Array>,
): number {
  if (instruction.kind === "contract" && instruction.once && k > 0) return 0;
  let t = scaleBy(rowOf(instruction.from.rows), instruction.from.scale);
  if ("matrix" in instruction && instruction.matrix) t = multiply(instruction.matrix, t);
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
function differences({ output }: Graph, step: number, forward: Forward): Trace {
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
function estimate(graph: Graph, probesPer: "point" | "batch", count: number, seed: number, isOrthogonal: boolean): Trace {
  return ({ primal, point, terms }) => {
    for (let k = 0; k < count; k++) {
      const v = rademacher(graph.stateSize, seed, probesPer === "batch" ? 0 : point, k, isOrthogonal);
      const jv = pushForward(graph, primal, v);
      terms[k] = v.reduce((sum, sign, i) => sum + sign * jv[i]!, 0);
    }
  };
}

/** W x; each block of a block-diagonal W reads its own part of x alone. */
function multiply(matrix: PlannedMatrix, vector: Float64Array): Float64Array {
  const { data } = (matrix.blocks ?? matrix).build();
  const [height, width] = blockShape(matrix);
  const product = new Float64Array(matrix.rows);
  for (let row = 0; row < product.length; row++) {
    const first = Math.floor(row / height) * width;
    let sum = 0;
    for (let column = 0; column < width; column++) sum += data[row * width + column]! * vector[first + column]!;
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
