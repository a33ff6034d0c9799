/// <reference types="@webgpu/types" preserve="true" />
/**
 * The exact divergence ∇·f = Σ ∂f_i/∂x_i of a neural vector field f: R^d x R^c -> R^d. A network comes from {@link mlp},
 * {@link parseSafetensors} or {@link parseOnnx}; {@link VectorField} evaluates it on a GPUDevice, {@link ReferenceField}
 * and {@link evaluateReference} in float64 on the CPU, and {@link explainPlan} says what either would do.
 *
 * In all of it d is the size of the state, c that of the context, and B the number of points; arrays are flat and row-major.
 * Numbers have no units but those of the field: with x in metres and f in metres per second, the divergence is per second.
 *
 * @module deldot
 */
export { evaluateReference, type ReferenceOptions, type ReferenceResult } from "./cpu/reference.js";
export { ReferenceField } from "./cpu/field.js";
export { logProbReference, transportReference, type FlowReferenceOptions, type TransportReferenceOptions } from "./cpu/flow.js";
export { bitsPerDimension } from "./bitsPerDimension.js";
export { gradientField } from "./model/gradientField.js";
export { probabilityFlow, type DiffusionSchedule, type ProbabilityFlowOptions } from "./model/probabilityFlow.js";
export { AdapterError, DeldotError, DeviceLostError, GpuError, InputError, LimitError, ModelError, PlanError } from "./errors.js";
export type { EvaluateOptions, Evaluation, Field, Jvp, JvpOptions, Vjp, VjpOptions } from "./evaluation.js";
export type { Cotangents, Wrt } from "./inputs.js";
export { VectorField } from "./field.js";
export { AnyFlow } from "./anyFlow.js";
export { FieldFlow } from "./fieldFlow.js";
export { Flow, type EncodeLogProbOptions, type EncodeTransportOptions, type FlowExplanation } from "./flow.js";
export {
  normalBase,
  type Base,
  type EncodePathOptions,
  type Estimate,
  type FlowOptions,
  type FlowTimes,
  type LogProb,
  type PathEnds,
  type SampleOptions,
  type Samples,
  type Score,
  type SolveOptions,
  type Transport,
  type TransportOptions,
} from "./flowOptions.js";
export type {
  CountBuffer,
  EncodeOptions,
  EncodeVjpOptions,
  ReserveOptions,
  ReserveVjpOptions,
  VectorFieldOptions,
} from "./fieldOptions.js";
export type { Store } from "./gpu/store.js";
export type { BatchInput, BufferRows, ContextInput, RunOptions } from "./inputs.js";
export { activationNames, type Activation } from "./model/activation.js";
export {
  mlp,
  type ActivationOperation,
  type LayerInput,
  type Diagonal,
  type LinearOperation,
  type Matrix,
  type Repeated,
  type Tensor,
  type Weight,
  type MlpOptions,
  type Network,
  type Numbers,
  type Operand,
  type NormOperation,
  type Operation,
  type Place,
  type ProductOperation,
  type WeightInput,
} from "./model/network.js";
export {
  parameterLayout,
  parametersOf,
  withParameters,
  type Parameter,
  type ParameterInput,
  type ParameterLayout,
  type ParameterSlot,
} from "./model/parameters.js";
export { parseOnnx, type OnnxOptions } from "./model/readers/onnx.js";
export { parseSafetensors, type SafetensorsOptions } from "./model/readers/safetensors.js";
export { toSafetensors } from "./model/writers/safetensors.js";
export type { Candidate } from "./plan/candidates.js";
export { vjpReference } from "./cpu/vjp.js";
export { explainPlan, type ExplainedCandidate, type ExplainedGradient, type ExplainOptions, type PlanExplanation } from "./plan/explain.js";
export { solvers, type Solver, type Status } from "./ode/tableaus.js";
export type { PlanOptions } from "./plan/options.js";
export { methods, outputs, type Method, type Output } from "./plan/outputs.js";
export type { TunedKernels } from "./tune/tuner.js";
