import { readBatch, readContext, type BatchInput, type ContextInput } from "../batch.js";
import { activationFunctions } from "../model/activation.js";
import type { Matrix, Network } from "../model/network.js";
import type { Chain } from "../plan/chain.js";
import { makePlan, type DifferencePlan, type Method, type Output, type Plan, type PlanOptions, type TracePlan } from "../plan/trace.js";
import { rademacher } from "./probes.js";
import { meanRows, sumRows } from "./reduce.js";

export interface ReferenceOptions extends PlanOptions {
  /** One vector for all points, or one per point; required where the network takes a context. */
  readonly context?: ContextInput | null | undefined;
}

/** Results in float64; each array is row-major, with the batch shape of the points in front. */
export interface ReferenceResult {
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
  readonly value: Float64Array;
  /** σ'(z_l) per layer; null where the layer has no activation. */
  readonly scales: readonly (Float64Array | null)[];
}

/**
 * f and its divergence in float64 on the CPU: the twin of the GPU kernels, and the way where there is no WebGPU.
 * tangent, jacobian and coordinate all push the basis vectors through the layers (forward mode); cyclic, difference and
 * hutchinson follow their plans. A point with a NaN or an infinity in it, or in its context, gives NaN throughout.
 *
 * @throws InputError, PlanError as VectorField.evaluate rejects with.
 */
export function evaluateReference(network: Network, points: BatchInput, options: ReferenceOptions = {}): ReferenceResult {
  const plan = makePlan(network, options);
  const d = network.stateSize;
  const c = network.contextSize;
  const batch = readBatch(points, d, "points");
  const contexts = readContext(options.context, c, batch.count);
  const { count } = batch;

  const forward = makeForward(plan.chain);
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
    if (wants("value")) value.set(primal.value, point * d);
    trace?.({ x, context, primal, point, terms: terms.subarray(point * width, (point + 1) * width), jacobian: jacobian.subarray(point * d * d, (point + 1) * d * d) });
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

/** z_l = W_l a_(l-1) + b_l, a_l = σ_l(z_l), s_l = σ_l'(z_l). */
function makeForward(chain: Chain): Forward {
  const layers = chain.layers.map((layer) => ({ ...layer, functions: layer.activation && activationFunctions(layer.activation) }));
  return (x, context) => {
    let a = x;
    const scales: (Float64Array | null)[] = [];
    for (const { weight, contextWeight, bias, functions } of layers) {
      const z = multiply(weight, a);
      const shift = contextWeight && multiply(contextWeight, context);
      for (let i = 0; i < z.length; i++) z[i]! += (bias?.[i] ?? 0) + (shift?.[i] ?? 0);
      scales.push(functions && z.map(functions.derivative));
      a = functions ? z.map(functions.value) : z;
    }
    return { value: a, scales };
  };
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
  if (plan.kind === "difference") return differences(plan, forward);
  if (plan.probes) return estimate(plan.chain, plan.probes, plan.tangents);
  if (plan.method === "cyclic") return cycle(plan);
  return basisTangents(plan.chain);
}

/** Column k of J is J e_k. */
function basisTangents(chain: Chain): Trace {
  const d = chain.stateSize;
  const basis = Array.from({ length: d }, (_, k) => Float64Array.from({ length: d }, (_, i) => (i === k ? 1 : 0)));
  return ({ primal, terms, jacobian }) => {
    for (let k = 0; k < d; k++) {
      const column = pushForward(chain, primal, basis[k]!);
      terms[k] = column[k]!;
      if (jacobian.length > 0) for (let i = 0; i < d; i++) jacobian[i * d + k] = column[i]!;
    }
  };
}

/** J t: t <- S_l W_l t through the layers. */
function pushForward(chain: Chain, primal: Primal, tangent: Float64Array): Float64Array {
  return chain.layers.reduce((t, { weight }, layer) => scaled(multiply(weight, t), primal.scales[layer]!), tangent);
}

/** The terms of a plan whose tangents start anywhere on the cycle, summed: e_k Σ_i rows[k,i] s_i t_k[i]. */
function cycle(plan: TracePlan): Trace {
  const { seed, carries, end } = plan;
  if (seed.kind !== "rows" || end.kind !== "contract" || end.rows === "probes") throw new TypeError("a cyclic plan starts from rows and contracts");
  const seeds = seed.rows.build();
  const rows = end.rows.build();
  const products = carries.map(({ matrix, scale }) => ({ matrix: matrix.build(), scale }));
  return ({ primal, terms }) => {
    const scaleOf = (layer: number | null): Float64Array | null => (layer === null ? null : primal.scales[layer]!);
    let sum = 0;
    for (let k = 0; k < plan.tangents; k++) {
      let t: Float64Array = Float64Array.from(seeds.data.subarray(k * seeds.columns, (k + 1) * seeds.columns));
      for (const { matrix, scale } of products) t = multiply(matrix, scaled(t, scaleOf(scale)));
      t = scaled(t, scaleOf(end.scale));
      let term = 0;
      for (let i = 0; i < t.length; i++) term += rows.data[k * rows.columns + i]! * t[i]!;
      sum += term * (scaleOf(end.endScale)?.[k] ?? 1);
    }
    terms[0] = sum;
  };
}

/** (f_i(x + h e_i) - f_i(x - h e_i)) / 2h with h = step max(1, |x_i|). */
function differences({ step }: DifferencePlan, forward: Forward): Trace {
  return ({ x, context, terms }) => {
    const moved = x.slice();
    for (let i = 0; i < x.length; i++) {
      const h = step * Math.max(1, Math.abs(x[i]!));
      moved[i] = x[i]! + h;
      const more = forward(moved, context).value[i]!;
      moved[i] = x[i]! - h;
      const less = forward(moved, context).value[i]!;
      moved[i] = x[i]!;
      terms[i] = (more - less) / (2 * h);
    }
  };
}

/** vᵀ J v for each probe v. */
function estimate(chain: Chain, probes: { per: "point" | "batch"; seed: number }, count: number): Trace {
  return ({ primal, point, terms }) => {
    for (let k = 0; k < count; k++) {
      const v = rademacher(chain.stateSize, probes.seed, probes.per === "batch" ? 0 : point, k);
      const jv = pushForward(chain, primal, v);
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

function scaled(vector: Float64Array, scale: Float64Array | null): Float64Array {
  return scale ? vector.map((value, i) => value * scale[i]!) : vector;
}
