import { availableParallelism } from "node:os";
import { AdapterError } from "../errors.js";
import type { OnnxRuntime } from "../onnx/index.js";
import { hasNamedDriver, requestDevice, type NodeDevice } from "./adapters.js";
import { findOnnxruntime } from "./onnxruntime.js";

/** What computes: a real GPU, onnxruntime on the processor, a software driver of WebGPU, or the reference in float64. */
export type Engine = "gpu" | "cpu" | "software" | "reference";

/** All of them, the first that works being the one to take. */
export const engines: readonly Engine[] = ["gpu", "cpu", "software", "reference"];

/** An engine that works here. */
export type OpenEngine = {
  /** For people: the adapter and its driver, or what computes on the CPU. */
  readonly description: string;
  /** Frees what the engine holds; without it the process may not end. */
  readonly dispose: () => Promise<void>;
} & (
  | { readonly engine: "gpu" | "software"; readonly device: GPUDevice }
  | { readonly engine: "cpu"; readonly runtime: OnnxRuntime; readonly session: Readonly<Record<string, unknown>> }
  | { readonly engine: "reference" }
);

/**
 * The engine that is asked for; "auto": the driver that the user names, else the first of all that works.
 * @throws AdapterError where it is not there.
 */
export async function openEngine(wanted: Engine | "auto", threads: number = availableParallelism()): Promise<OpenEngine> {
  const openers: Readonly<Record<Engine, () => Promise<OpenEngine>>> = {
    gpu: async () => onDevice(await requestDevice({ adapter: "gpu" })),
    cpu: () => onProcessor(threads),
    software: async () => onDevice(await requestDevice({ adapter: "software" })),
    reference: async () => ({ engine: "reference", description: "float64 reference on the CPU", dispose: async () => {} }),
  };
  if (wanted !== "auto") return openers[wanted]();
  if (hasNamedDriver()) return onDevice(await requestDevice());
  for (const engine of engines)
    try {
      return await openers[engine]();
    } catch (error) {
      if (!(error instanceof AdapterError)) throw error;
    }
  throw new TypeError("the reference needs nothing");
}

function onDevice({ device, description, software, dispose }: NodeDevice): OpenEngine {
  return { engine: software ? "software" : "gpu", device, description, dispose };
}

async function onProcessor(threads: number): Promise<OpenEngine> {
  const found = await findOnnxruntime();
  if ("missing" in found) throw new AdapterError(`onnxruntime on the CPU needs the npm package onnxruntime-node: ${found.missing}`);
  return {
    engine: "cpu",
    description: `${found.name} on the CPU, ${threads} thread${threads > 1 ? "s" : ""}`,
    runtime: found.runtime,
    session: { executionProviders: ["cpu"], intraOpNumThreads: threads },
    dispose: async () => {},
  };
}
