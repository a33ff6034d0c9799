/** One way to evaluate for all commands: a field on a WebGPU device, or in float64 on the CPU. */
import { ReferenceField, VectorField, type Evaluation, type Field, type Network, type Output } from "../../index.js";
import { fileStore, requestDevice } from "../index.js";
import { withQuietStderr } from "./nativeStderr.js";
import type { AdapterChoice } from "./options.js";

/** Numbers of either precision. */
export type Results = Evaluation<Output, Float32Array | Float64Array>;

export interface Evaluator {
  /** The adapter, for people. */
  readonly description: string;
  readonly field: Field;
  dispose(): Promise<void>;
}

export async function createEvaluator(network: Network, adapter: AdapterChoice): Promise<Evaluator> {
  if (adapter === "cpu")
    return { description: "float64 reference on the CPU", field: new ReferenceField(network), dispose: async () => {} };
  const { device, description, dispose } = await withQuietStderr(() => requestDevice({ adapter }));
  try {
    const field = await VectorField.create(device, network, { store: fileStore() });
    return {
      description,
      field,
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
