import { env, InferenceSession, Tensor } from "onnxruntime-web";
import type { OnnxRuntime } from "../src/onnx/index.js";

env.wasm.numThreads = 1;
// What it finds unusual in a graph, such as an input that no output depends on.
env.logLevel = "error";

/** As {@link OnnxField} takes it. */
export const runtime: OnnxRuntime = { InferenceSession, Tensor };

export interface Result {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

/** A model in onnxruntime's WebAssembly. */
export interface Model {
  /** @param context null where there is none. */
  run(points: Float32Array, context: Float32Array | null): Promise<Record<string, Result>>;
  release(): Promise<void>;
}

/** @param rows of the context: as many as points, or one. */
export async function openModel(bytes: Uint8Array, stateSize: number, contextSize: number): Promise<Model> {
  const session = await InferenceSession.create(bytes, { logSeverityLevel: 3 });
  return {
    run: async (points, context) => {
      const results = await session.run({
        x: new Tensor("float32", points, [points.length / stateSize, stateSize]),
        ...(context && { context: new Tensor("float32", context, [context.length / contextSize, contextSize]) }),
      });
      return Object.fromEntries(
        Object.entries(results).map(([name, { data, dims }]) => [name, { data: data as Float32Array, shape: dims }]),
      );
    },
    release: () => session.release(),
  };
}
