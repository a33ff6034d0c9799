/** One way to evaluate for all commands: a field, or a flow, on the engine that is asked for. */
import {
  FieldFlow,
  Flow,
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
import { fieldOn } from "../createField.js";
import { openEngine, type Engine, type OpenEngine } from "../engines.js";
import { fileStore } from "../fileStore.js";
import { withQuietStderr } from "./nativeStderr.js";

type Numbers = Float32Array | Float64Array;

/** Numbers of either precision. */
export type Results = Evaluation<Output, Numbers>;
export type LogProbs = LogProb<Numbers>;
export type SampledPoints = Samples<Numbers>;

/** What the option --adapter names. */
export type AdapterChoice = Engine | "auto";

export interface Evaluator {
  /** What computes, for people. */
  readonly description: string;
  readonly field: Field;
  dispose(): Promise<void>;
}

export async function createEvaluator(network: Network, adapter: AdapterChoice): Promise<Evaluator> {
  const { description, made, dispose } = await onEngine(adapter, async (opened) => {
    const field = await fieldOn(opened, network);
    return { made: field, owner: field };
  });
  return { description, field: made, dispose };
}

export interface FlowRunner {
  /** What computes, for people. */
  readonly description: string;
  readonly flow: {
    logProb(points: Numbers, options: SolveOptions): Promise<LogProbs>;
    sample(count: number, options: SampleOptions): Promise<SampledPoints>;
  };
  dispose(): Promise<void>;
}

/** What integrates paths: on a GPU there, elsewhere step by step on the host. */
export async function createFlow(network: Network, times: FlowTimes, adapter: AdapterChoice): Promise<FlowRunner> {
  const { description, made, dispose } = await onEngine<FlowRunner["flow"]>(adapter, async (opened) => {
    if ("device" in opened) {
      const flow = await Flow.create(opened.device, network, { ...times, store: fileStore() });
      return { made: flow, owner: flow };
    }
    const field = await fieldOn(opened, network);
    return { made: new FieldFlow(field, times), owner: field };
  });
  return { description, flow: made, dispose };
}

/** Something that an engine of its own runs, which goes with it and with what owns its memory. */
async function onEngine<Made>(
  adapter: AdapterChoice,
  make: (opened: OpenEngine) => Promise<{ readonly made: Made; readonly owner: { destroy(): void } }>,
): Promise<{ description: string; made: Made; dispose: () => Promise<void> }> {
  const opened = await withQuietStderr(() => openEngine(adapter));
  try {
    const { made, owner } = await make(opened);
    return {
      description: opened.description,
      made,
      async dispose() {
        owner.destroy();
        await opened.dispose();
      },
    };
  } catch (error) {
    await opened.dispose();
    throw error;
  }
}
