import {
  checkObject,
  ownOptions,
  readInputs,
  readWrt,
  startRun,
  type BatchInput,
  type ContextInput,
  type Cotangents,
  type Inputs,
  type RunOptions,
  type Wrt,
} from "./inputs.js";
import type { Network } from "./model/network.js";
import type { Parameter } from "./model/parameters.js";
import type { ExplainOptions, PlanExplanation } from "./plan/explain.js";
import type { WantedGradient } from "./plan/choose.js";
import { readRunOptions, readVjpOutputs, type PlanOptions } from "./plan/options.js";
import type { Method, Output } from "./plan/outputs.js";

/** What {@link Field.evaluate} is asked for, and how. */
export interface EvaluateOptions<O extends Output = Output> extends PlanOptions, RunOptions {
  /** Which arrays the result has. Default: value and divergence. */
  readonly outputs?: readonly O[] | undefined;
  /** One vector for all points, or one per point; required where the network takes a context. */
  readonly context?: ContextInput | null | undefined;
}

/** What {@link Field.jvp} is asked for, and how. */
export interface JvpOptions extends RunOptions {
  /** One vector for all points, or one per point; required where the network takes a context. */
  readonly context?: ContextInput | null | undefined;
  /** Whether f(x) is given beside J(x) t. Default false. */
  readonly value?: boolean | undefined;
}

/** What {@link Field.vjp} is asked for, and how. */
export interface VjpOptions<W extends Wrt = Wrt, O extends "value" | "divergence" = "value" | "divergence">
  extends Omit<PlanOptions, "outputs" | "contextPer" | "step">, RunOptions {
  /** What the gradient is taken for. Default the points alone. */
  readonly wrt?: readonly W[] | undefined;
  /** Whether the value, the divergence or both are given beside the gradient, of the same pass. Default none. */
  readonly outputs?: readonly O[] | undefined;
  /** One vector for all points, or one per point; required where the network takes a context. */
  readonly context?: ContextInput | null | undefined;
}

/** ∂L/∂ what was asked for, and what was asked for beside it. */
export type Vjp<W extends Wrt = Wrt, O extends "value" | "divergence" = "value" | "divergence", A = Float32Array> = {
  /** The method whose trace was differentiated; "value" where the divergence has no part in it. */
  readonly method: Method | "value";
  /** The leading batch shape of the points: [B] for a flat array. */
  readonly shape: readonly number[];
} & (Wrt extends W ? Partial<Gradients<A>> : Pick<Gradients<A>, W>) &
  ("value" | "divergence" extends O ? Partial<Arrays<O, A>> : Arrays<O, A>);

interface Gradients<A> {
  /** ∂L/∂x_b, [...shape, d]. */
  readonly points: A;
  /** ∂L/∂context_b, [...shape, c]; [c], summed over the points, where one context serves all. */
  readonly context: A;
  /** ∂L/∂ each tensor of {@link parametersOf}, by its name. */
  readonly parameters: Readonly<Record<string, Parameter<A>>>;
}

/**
 * Results, row-major, with the batch shape of the points in front; those that were asked for:
 * `value`, f(x), [...shape, d]; `divergence`, Σ ∂f_i/∂x_i, [...shape]; `diagonal`, ∂f_i/∂x_i, [...shape, d];
 * `jacobian`, J[i][j] = ∂f_i/∂x_j, [...shape, d, d]; `curl`, ∇×f, [...shape, 3], for d = 2 [...shape]; `strain`, (J + Jᵀ)/2,
 * [...shape, d, d]; `qCriterion`, ½(‖Ω‖² - ‖S‖²) with S that strain and Ω = (J - Jᵀ)/2, [...shape].
 */
export type Evaluation<O extends Output = Output, A = Float32Array> = {
  /** The method that ran; "value" where only f was asked for. */
  readonly method: Method | "value";
  /** The kernels that ran, by the name that {@link VectorFieldOptions.kernels} takes; "onnxruntime" of `OnnxField`, "reference" of {@link ReferenceField}. */
  readonly kernels: string;
  /** The leading batch shape of the points: [B] for a flat array. */
  readonly shape: readonly number[];
  /** hutchinson: the standard error of the divergence, [...shape]; NaN for a single probe. */
  readonly standardError?: A;
} & (Output extends O ? Partial<Arrays<Output, A>> : Arrays<O, A>);

/** As {@link Evaluation} has them. */
type Arrays<O extends Output, A> = { readonly [K in O]: A };

/** J(x) t, [B, d], and where it is asked for f(x), [B, d]. */
export interface Jvp<A = Float32Array> {
  /** f(x), [B, d] */
  readonly value: A;
  /** J(x) t, [B, d] */
  readonly tangent: A;
}

/**
 * A network that can be evaluated, wherever that is done: {@link VectorField} on a GPU and `OnnxField` of deldot/onnx by
 * onnxruntime, in float32; {@link ReferenceField} on the CPU, in float64. What a call is given is copied when it is called: what is done to those arrays later is not seen.
 *
 * Every method that returns a promise rejects with a DeldotError: InputError or PlanError for a bad argument (before any work).
 */
export interface Field<A extends Float32Array | Float64Array = Float32Array | Float64Array> {
  /** The network as it was given, or as it is since weights were replaced. */
  readonly network: Network;
  /** What it computes in. */
  readonly precision: "float32" | "float64";
  /** f, its divergence and what else `outputs` names (default: value and divergence) at points [..., d]. */
  evaluate<O extends Output = "value" | "divergence">(points: BatchInput, options?: EvaluateOptions<O>): Promise<Evaluation<O, A>>;
  /** The divergence alone, [...batch shape of the points]. */
  divergence(points: BatchInput, options?: Omit<EvaluateOptions, "outputs">): Promise<A>;
  /** J(x) t, one tangent per point: points and tangents [B, d] -> [B, d]; with `value`, f(x) beside it. */
  jvp(points: BatchInput, tangents: BatchInput, options: JvpOptions & { readonly value: true }): Promise<Jvp<A>>;
  /** J(x) t, one tangent per point: points and tangents [B, d] -> [B, d]. */
  jvp(points: BatchInput, tangents: BatchInput, options?: JvpOptions & { readonly value?: false | undefined }): Promise<A>;
  /** The gradient of Σ_b (value_b · f(x_b) + divergence_b ∇·f(x_b)) for what `wrt` names: points [..., d] (default), context, parameters. */
  vjp<W extends Wrt = "points", O extends "value" | "divergence" = never>(
    points: BatchInput,
    cotangents: Cotangents,
    options?: VjpOptions<W, O>,
  ): Promise<Vjp<W, O, A>>;
  /** What evaluate would choose for these options, and why. */
  explain(options?: ExplainOptions): PlanExplanation;
  /** Frees what the field holds; later calls reject. */
  destroy(): void;
}

/** What vjp is asked for, with copies of the numbers. @throws InputError, PlanError. */
export function readVjpCall(
  network: Network,
  points: BatchInput,
  cotangents: Cotangents,
  given: VjpOptions,
): { readonly options: Omit<VjpOptions, "outputs" | "wrt">; readonly inputs: Inputs; readonly wanted: WantedGradient } {
  const { outputs: wantedOutputs, wrt: wantedWrt, ...options } = ownOptions(given);
  const outputs = readVjpOutputs(wantedOutputs);
  readRunOptions({ ...options, outputs: ["divergence"] });
  checkObject("cotangents", cotangents);
  const read = readInputs(network, points, options.context, null, cotangents);
  const wrt = readWrt(wantedWrt, network.contextSize);
  startRun(options);
  // Contexts in runs have gradients of their own, point by point.
  const isApart = wrt.includes("context") && !read.context?.shared;
  const inputs = { ...read, context: read.context && { ...read.context, runs: isApart ? null : read.context.runs } };
  const value = read.valueCotangent !== null;
  const divergence = read.divergenceCotangent !== null;
  return { options, inputs, wanted: { wrt, outputs, value, divergence, contextPer: contextPerOf(inputs) } };
}

/** "batch" where points that are evaluated together share a context, or have none. */
export function contextPerOf({ context }: Inputs): "point" | "batch" {
  return context === null || context.runs !== null ? "batch" : "point";
}
