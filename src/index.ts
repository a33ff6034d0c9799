/// <reference types="@webgpu/types" preserve="true" />
/**
 * The exact divergence ∇·f = Σ ∂f_i/∂x_i of a neural vector field f: R^d x R^c -> R^d. A network comes from {@link mlp},
 * {@link parseSafetensors} or {@link parseOnnx}; {@link VectorField} evaluates it on a GPUDevice, {@link evaluateReference}
 * in float64 on the CPU, and {@link explainPlan} says what either would do.
 *
 * In all of it d is the size of the state, c that of the context, and B the number of points; arrays are flat and row-major.
 * Numbers have no units but those of the field: with x in metres and f in metres per second, the divergence is per second.
 *
 * @module deldot
 */
export type { BatchInput, ContextInput } from "./batch.js";
export { evaluateReference, type ReferenceOptions, type ReferenceResult } from "./cpu/reference.js";
export { AdapterError, DeldotError, DeviceLostError, GpuError, InputError, LimitError, ModelError, PlanError } from "./errors.js";
export {
  VectorField,
  type BufferRows,
  type EncodeOptions,
  type EvaluateOptions,
  type Evaluation,
  type ReserveOptions,
  type VectorFieldOptions,
} from "./field.js";
export type { Store } from "./gpu/pace.js";
export type { Trial } from "./gpu/trial.js";
export type { RunOptions } from "./gpu/run.js";
export { activationNames, type Activation } from "./model/activation.js";
export {
  mlp,
  type ActivationOperation,
  type LayerInput,
  type Diagonal,
  type LinearOperation,
  type Matrix,
  type MlpOptions,
  type Network,
  type Numbers,
  type Operand,
  type NormOperation,
  type Operation,
  type ProductOperation,
  type WeightInput,
} from "./model/network.js";
export { parseOnnx, type OnnxOptions } from "./model/onnx.js";
export { parseSafetensors, type SafetensorsOptions } from "./model/safetensors.js";
export { explainPlan, type ExplainedCandidate, type PlanExplanation } from "./plan/explain.js";
export { methods, outputs, type Candidate, type Method, type Output, type PlanOptions } from "./plan/trace.js";
