// What an app says to the package's types: main calls of every entry, and what they must refuse.
import {
  AnyFlow,
  evaluateReference,
  explainPlan,
  Flow,
  mlp,
  parseOnnx,
  parseSafetensors,
  toSafetensors,
  VectorField,
  type BufferRows,
  type Evaluation,
  type Field,
  type Network,
  type VectorFieldOptions,
} from "deldot";
import { createField, requestDevice, type NodeDevice } from "deldot/node";
import { OnnxField, toOnnx, type OnnxOutput, type OnnxRuntime } from "deldot/onnx";
import { Trainer, type TrainerState } from "deldot/train";

export const network: Network = mlp({ layers: [{ weight: [[1, 0.5]], bias: [0] }], activation: "silu" });
export const read = (file: Uint8Array): Network[] => [parseSafetensors(file, { activation: "tanh" }), parseOnnx(file)];
evaluateReference(network, [1]).divergence satisfies Float64Array | undefined;
explainPlan(network, { gradient: true }).method satisfies string;

const { device, dispose }: NodeDevice = await requestDevice({ adapter: "software" });
const options: VectorFieldOptions = { memoryBudget: 2 ** 20, label: "field" };
const field: VectorField = await VectorField.create(device satisfies GPUDevice, network, options);
const anywhere: Field = await createField(network);
export const divergences: (Float32Array | Float64Array)[] = await Promise.all([
  field.divergence([1], { context: 0.5 }),
  anywhere.divergence([1]),
]);
const result: Evaluation<"value" | "jacobian"> = await field.evaluate([1], {
  outputs: ["value", "jacobian"],
  onProgress: ({ done, total }) => done / total,
});
result.jacobian satisfies Float32Array;
// @ts-expect-error: it was not asked for.
export const diagonal: unknown = result.diagonal;
// @ts-expect-error: there is no such method.
await field.divergence([1], { method: "reverse" });

const buffer: GPUBuffer = device.createBuffer({ size: 16, usage: 0x80 });
const points: BufferRows = { buffer, stride: 4 };
const encoder: GPUCommandEncoder = device.createCommandEncoder();
field.encode(encoder, { points, count: 1, divergence: { buffer } });
// @ts-expect-error: the points are missing.
field.encode(encoder, { count: 1, divergence: { buffer } });

const flow: AnyFlow = await Flow.create(device, network);
export const density: Float64Array = (await flow.logProb([1], { rtol: 1e-3 })).logProb;
const trainer = await Trainer.create(device, network, { loss: "flow_matching", batch: 8, optimizer: { name: "adamw" } });
export const losses: Float32Array = await trainer.train(1, { signal: new AbortController().signal });
const state: TrainerState = await trainer.state();
device.queue.writeBuffer(buffer, 0, state.weights);
toSafetensors(await trainer.network({ averaged: true })) satisfies Uint8Array;
toOnnx(network, { outputs: ["value", "gradient"] satisfies OnnxOutput[] }) satisfies Uint8Array;
export const engine = (runtime: OnnxRuntime): Promise<OnnxField> => OnnxField.create(runtime, network);
await dispose();
