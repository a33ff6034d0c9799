/**
 * A network's plan as a file that other runtimes run, and a field that onnxruntime runs.
 *
 * @module deldot/onnx
 */
export { OnnxField, type OnnxFieldOptions, type OnnxRuntime, type OnnxSession, type OnnxTensor } from "./field.js";
export { onnxOutputs, toOnnx, type OnnxExportOptions, type OnnxOutput } from "./toOnnx.js";
