import { parseSafetensors } from "deldot";
import { toOnnx } from "deldot/onnx";

/** A model as an ONNX file of its divergence. */
export function write(file) {
  return { file: [...toOnnx(parseSafetensors(file), { outputs: ["divergence"] })] };
}
