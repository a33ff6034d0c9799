/**
 * A network's plan as a file that other runtimes run.
 *
 * @module deldot/onnx
 */
export { onnxOutputs, toOnnx, type OnnxExportOptions, type OnnxOutput } from "./toOnnx.js";
