/** One way to evaluate for all commands: on a WebGPU device, or with the float64 reference on the CPU. */
import { setImmediate } from "node:timers/promises";
import { evaluateReference, explainPlan, VectorField, type Method, type Network, type Output } from "../../index.js";
import { fileStore, requestDevice } from "../index.js";
import type { AdapterChoice } from "./options.js";

export interface EvaluatorOptions {
  readonly context?: Float32Array | Float64Array | undefined;
  readonly method?: Method | "auto" | undefined;
  readonly outputs: readonly Output[];
  readonly probes?: number | undefined;
  readonly seed?: number | undefined;
  readonly onProgress?: ((progress: { done: number; total: number }) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** All of them flat: [B], [B, d]. */
export interface Results {
  readonly method: string;
  readonly value?: Float32Array | Float64Array;
  readonly divergence?: Float32Array | Float64Array;
  readonly diagonal?: Float32Array | Float64Array;
  readonly standardError?: Float32Array | Float64Array;
}

export interface Evaluator {
  /** The adapter, for people. */
  readonly description: string;
  evaluate(points: Float32Array | Float64Array, options: EvaluatorOptions): Promise<Results>;
  dispose(): Promise<void>;
}

export async function createEvaluator(network: Network, adapter: AdapterChoice): Promise<Evaluator> {
  if (adapter === "cpu")
    return {
      description: "float64 reference on the CPU",
      evaluate: (points, options) => evaluateInSlices(network, points, options),
      dispose: async () => {},
    };
  const { device, description, dispose } = await requestDevice({ adapter });
  try {
    const field = await VectorField.create(device, network, { store: fileStore() });
    return {
      description,
      evaluate: (points, options) => field.evaluate(points, options),
      async dispose() {
        field.destroy();
        await dispose();
      },
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** The reference is synchronous: between slices progress is shown and an interrupt is heard. */
async function evaluateInSlices(
  network: Network,
  points: Float32Array | Float64Array,
  { context, onProgress, signal, ...options }: EvaluatorOptions,
): Promise<Results> {
  const { stateSize, contextSize } = network;
  const total = points.length / stateSize;
  const slice = sliceLength(network, total, options);
  const all: { [Name in Exclude<keyof Results, "method">]?: Float64Array } = {};
  let method: string | undefined;
  for (let from = 0; from === 0 || from < total; from += slice) {
    signal?.throwIfAborted();
    const to = Math.min(total, from + slice);
    const perPoint = context !== undefined && context.length !== contextSize;
    const part = evaluateReference(network, points.subarray(from * stateSize, to * stateSize), {
      ...options,
      context: perPoint ? context.subarray(from * contextSize, to * contextSize) : context,
    });
    method ??= part.method;
    for (const name of ["value", "divergence", "diagonal", "standardError"] as const) {
      const data = part[name];
      if (!data) continue;
      const width = name === "value" || name === "diagonal" ? stateSize : 1;
      (all[name] ??= new Float64Array(total * width)).set(data, from * width);
    }
    onProgress?.({ done: to, total });
    await setImmediate();
  }
  return { ...all, method: method! };
}

/** Multiply-adds that the reference does in a fraction of a second. */
const sliceMultiplyAdds = 2e8;

function sliceLength(network: Network, total: number, options: EvaluatorOptions): number {
  // The estimator numbers its probes from the first point of a call, so its calls stay whole.
  if (options.method === "hutchinson") return Math.max(total, 1);
  const { method, outputs, probes } = options;
  const { forwardMultiplyAdds, candidates } = explainPlan(network, { method, outputs, probes });
  const trace = candidates.find(({ chosen }) => chosen)?.multiplyAdds ?? 0;
  return Math.max(1, Math.min(4096, Math.floor(sliceMultiplyAdds / (forwardMultiplyAdds + trace))));
}
