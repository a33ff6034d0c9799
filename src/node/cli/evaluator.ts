/** One way to evaluate for all commands: a field, or a flow, on a WebGPU device, or in float64 on the CPU. */
import {
  FieldFlow,
  Flow,
  ReferenceField,
  VectorField,
  type Evaluation,
  type Field,
  type FlowTimes,
  type LogProb,
  type Network,
  type Output,
  type SampleOptions,
  type Samples,
  type SolveOptions,
} from "../../index.js";
import { fileStore, requestDevice } from "../index.js";
import { withQuietStderr } from "./nativeStderr.js";
import type { AdapterChoice } from "./options.js";

type Numbers = Float32Array | Float64Array;

/** Numbers of either precision. */
export type Results = Evaluation<Output, Numbers>;
export type LogProbs = LogProb<Numbers>;
export type SampledPoints = Samples<Numbers>;

const CPU = "float64 reference on the CPU";

export interface Evaluator {
  /** The adapter, for people. */
  readonly description: string;
  readonly field: Field;
  dispose(): Promise<void>;
}

export async function createEvaluator(network: Network, adapter: AdapterChoice): Promise<Evaluator> {
  if (adapter === "cpu") return { description: CPU, field: new ReferenceField(network), dispose: async () => {} };
  const { description, made, dispose } = await onDevice(adapter, (device) => VectorField.create(device, network, { store: fileStore() }));
  return { description, field: made, dispose };
}

export interface FlowRunner {
  /** The adapter, for people. */
  readonly description: string;
  readonly flow: {
    logProb(points: Numbers, options: SolveOptions): Promise<LogProbs>;
    sample(count: number, options: SampleOptions): Promise<SampledPoints>;
  };
  dispose(): Promise<void>;
}

/** What integrates paths. */
export async function createFlow(network: Network, times: FlowTimes, adapter: AdapterChoice): Promise<FlowRunner> {
  if (adapter === "cpu") return { description: CPU, flow: new FieldFlow(new ReferenceField(network), times), dispose: async () => {} };
  const { description, made, dispose } = await onDevice(adapter, (device) =>
    Flow.create(device, network, { ...times, store: fileStore() }),
  );
  return { description, flow: made, dispose };
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
