/** One way to evaluate for all commands: a field, or a flow, on the engine that is asked for. */
import {
  type AnyFlow,
  FieldFlow,
  Flow,
  InputError,
  type Evaluation,
  type Field,
  type FlowTimes,
  type LogProb,
  type Network,
  type Output,
  type Samples,
} from "../../index.js";
import { quote } from "../../errors.js";
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

/** What computes, and how. */
export interface EngineOptions {
  readonly adapter: AdapterChoice;
  /** cpu: how many threads. */
  readonly threads?: number;
  /** gpu, software: which kernels, always. */
  readonly kernels?: string;
}

export interface Evaluator {
  /** What computes, for people. */
  readonly description: string;
  readonly field: Field;
  dispose(): Promise<void>;
}

export async function createEvaluator(network: Network, options: EngineOptions): Promise<Evaluator> {
  const opened = await open(options);
  const { description } = opened;
  try {
    const field = await withQuietStderr(async () => fieldOn(opened, network, { kernels: options.kernels }));
    return { description, field, dispose: () => ending(field, opened) };
  } catch (error) {
    await opened.dispose();
    throw error;
  }
}

export interface FlowRunner {
  /** What computes, for people. */
  readonly description: string;
  readonly flow: AnyFlow;
  dispose(): Promise<void>;
}

/** What integrates paths: on a GPU there, elsewhere step by step on the host. */
export async function createFlow(network: Network, times: FlowTimes, options: EngineOptions): Promise<FlowRunner> {
  const opened = await open(options);
  const { description } = opened;
  try {
    if ("device" in opened) {
      const flow = await Flow.create(opened.device, network, { ...times, store: fileStore(), kernels: options.kernels });
      return { description, flow, dispose: () => ending(flow, opened) };
    }
    const field = await fieldOn(opened, network);
    return { description, flow: new FieldFlow(field, times), dispose: () => ending(field, opened) };
  } catch (error) {
    await opened.dispose();
    throw error;
  }
}

/** Kernels fix a result's bits, so that what has none must not compute in their place. @throws InputError. */
async function open({ adapter, threads, kernels }: EngineOptions): Promise<OpenEngine> {
  const opened = await withQuietStderr(() => openEngine(adapter, threads));
  if (kernels === undefined || "device" in opened) return opened;
  await opened.dispose();
  throw new InputError(
    `--kernels is ${quote(kernels)}, but ${opened.engine} computes here, which has none; expected it with a GPU (--adapter)`,
  );
}

async function ending(made: { destroy(): void }, opened: OpenEngine): Promise<void> {
  made.destroy();
  await opened.dispose();
}
