import { mlp, VectorField, type Network } from "../../dist/index.js";
import { createField, requestDevice } from "../../dist/node.js";
import type { Problem } from "./networks.js";
import type { Call, Peer, Kernels } from "./peer.js";

const ways = {
  encode: { name: "encode", points: "device" },
  evaluate: { name: "evaluate", points: "host" },
  evaluateBoth: { name: "evaluate, f(x) too", points: "host" },
  processor: { name: "evaluate by onnxruntime on the CPU", points: "host" },
  processorBoth: { name: "evaluate by onnxruntime on the CPU, f(x) too", points: "host" },
} as const;

const divergenceAlone = ["divergence"] as const;
const valueToo = ["value", "divergence"] as const;
type Outputs = typeof divergenceAlone | typeof valueToo;

/** The kernels of somebody who does not tune. */
export const untuned: Kernels = { divergence: "auto", valueToo: "auto" };

export const deldot: Peer = {
  name: "deldot",
  ways: Object.values(ways),
  async prepare(way, problem, kernels) {
    if (way === ways.processor.name) return openOnProcessor(problem, divergenceAlone);
    if (way === ways.processorBoth.name) return openOnProcessor(problem, valueToo);
    if (way === ways.evaluateBoth.name) return (await openDeldot(problem, valueToo, kernels.valueToo)).evaluate;
    const { encode, evaluate } = await openDeldot(problem, divergenceAlone, kernels.divergence);
    return way === ways.encode.name ? encode : evaluate;
  },
};

export async function tuneDeldot(problem: Problem): Promise<Kernels> {
  const { field } = await openField(problem, "auto");
  const fastest = async (outputs: Outputs): Promise<string> =>
    (await field.tune(problem.count, { outputs })).find(({ chosen }) => chosen)!.kernels;
  return { divergence: await fastest(divergenceAlone), valueToo: await fastest(valueToo) };
}

interface Deldot {
  /** Points on the device, divergences read back. */
  readonly encode: Call;
  /** Points in a JavaScript array. */
  readonly evaluate: Call;
}

async function openDeldot(problem: Problem, outputs: Outputs, kernels: string): Promise<Deldot> {
  const { count, points } = problem;
  const { device, field } = await openField(problem, kernels);
  await field.reserve(count, { outputs });

  const bytes = count * Float32Array.BYTES_PER_ELEMENT;
  const source = device.createBuffer({ size: points.byteLength, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
  device.queue.writeBuffer(source, 0, points);
  const divergence = device.createBuffer({ size: bytes, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
  const staging = device.createBuffer({ size: bytes, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });

  return {
    encode: async () => {
      const encoder = device.createCommandEncoder();
      field.encode(encoder, { points: source, count, divergence });
      encoder.copyBufferToBuffer(divergence, 0, staging, 0, bytes);
      device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      const result = new Float32Array(staging.getMappedRange()).slice();
      staging.unmap();
      return [result];
    },
    evaluate: async () => [(await field.evaluate(points, { outputs })).divergence],
  };
}

async function openOnProcessor(problem: Problem, outputs: Outputs): Promise<Call> {
  const field = await createField(makeNetwork(problem), { device: "cpu" });
  return async () => [(await field.evaluate(problem.points, { outputs })).divergence];
}

export async function openField(problem: Problem, kernels: string): Promise<{ device: GPUDevice; field: VectorField }> {
  const { device } = await requestDevice();
  return { device, field: await VectorField.create(device, makeNetwork(problem), { kernels }) };
}

export function makeNetwork({ d, h, w1, b1, w2, b2, w3, b3 }: Problem): Network {
  return mlp({
    layers: [
      { weight: { data: w1, shape: [h, w1.length / h] }, bias: b1 },
      { weight: { data: w2, shape: [h, h] }, bias: b2 },
      { weight: { data: w3, shape: [d, h] }, bias: b3 },
    ],
    activation: "tanh",
  });
}
