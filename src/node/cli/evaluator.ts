/** One way to evaluate for all commands: a field on a WebGPU device, or in float64 on the CPU; and a flow on a device. */
import { InputError } from "../../errors.js";
import { Flow, ReferenceField, VectorField, type Evaluation, type Field, type FlowTimes, type Network, type Output } from "../../index.js";
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
  const { description, made, dispose } = await onDevice(adapter, (device) => VectorField.create(device, network, { store: fileStore() }));
  return { description, field: made, dispose };
}

export interface FlowRunner {
  /** The adapter, for people. */
  readonly description: string;
  readonly flow: Flow;
  dispose(): Promise<void>;
}

/** What integrates paths on a device. */
export async function createFlow(network: Network, times: FlowTimes, adapter: AdapterChoice): Promise<FlowRunner> {
  checkFlowAdapter(adapter);
  const { description, made, dispose } = await onDevice(adapter, (device) =>
    Flow.create(device, network, { ...times, store: fileStore() }),
  );
  return { description, flow: made, dispose };
}

/** @throws InputError for the CPU, which evaluates fields and integrates none. */
export function checkFlowAdapter(adapter: AdapterChoice): asserts adapter is Exclude<AdapterChoice, "cpu"> {
  if (adapter === "cpu") throw new InputError("--adapter is cpu, but this integrates paths on a GPU alone; expected auto or software");
}

/** Something that lives on a device of its own, which goes with it. */
async function onDevice<Made extends { destroy(): void }>(
  adapter: Exclude<AdapterChoice, "cpu">,
  make: (device: GPUDevice) => Promise<Made>,
): Promise<{ description: string; made: Made; dispose: () => Promise<void> }> {
  const { device, description, dispose } = await withQuietStderr(() => requestDevice({ adapter }));
  try {
    const made = await make(device);
    return {
      description,
      made,
      async dispose() {
        made.destroy();
        await dispose();
      },
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}
