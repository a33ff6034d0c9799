import { mlp, VectorField } from "../../dist/index.js";
import { requestDevice } from "../../dist/node.js";
import type { Problem } from "./networks.js";
import type { Call, Peer, Store } from "./peer.js";

const ways = {
  encode: { name: "encode, points on the device", points: "device" },
  evaluate: { name: "evaluate", points: "host" },
  evaluateBoth: { name: "evaluate, with f(x)", points: "host" },
} as const;

export const deldot: Peer = {
  name: "deldot",
  ways: Object.values(ways),
  async prepare(way, problem, store) {
    const opened = await openDeldot(problem, store, way === ways.evaluateBoth.name ? ["value", "divergence"] : ["divergence"]);
    return way === ways.encode.name ? opened.encode : opened.evaluate;
  },
};

/** deldot, tuned for a problem, both ways: what everyone is measured against. */
export interface Deldot {
  /** Which adapter it runs on. */
  readonly adapter: string;
  /** Points on the device, divergences read back. */
  readonly encode: Call;
  /** Points in a JavaScript array. */
  readonly evaluate: Call;
}

export async function openDeldot(
  { d, h, count, w1, b1, w2, b2, w3, b3, points }: Problem,
  store: Store,
  outputs: readonly ("value" | "divergence")[],
): Promise<Deldot> {
  const { device } = await requestDevice();
  const network = mlp({
    layers: [
      { weight: { data: w1, shape: [h, d] }, bias: b1 },
      { weight: { data: w2, shape: [h, h] }, bias: b2 },
      { weight: { data: w3, shape: [d, h] }, bias: b3 },
    ],
    activation: "tanh",
  });
  const field = await VectorField.create(device, network, { store });
  await field.tune(count, { outputs });
  await field.reserve(count, { outputs: ["divergence"] });

  const bytes = count * Float32Array.BYTES_PER_ELEMENT;
  const source = device.createBuffer({ size: points.byteLength, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
  device.queue.writeBuffer(source, 0, points);
  const divergence = device.createBuffer({ size: bytes, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
  const staging = device.createBuffer({ size: bytes, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });

  return {
    adapter: nameAdapter(device.adapterInfo),
    encode: async () => {
      const encoder = device.createCommandEncoder();
      field.encode(encoder, { points: source, count, divergence });
      encoder.copyBufferToBuffer(divergence, 0, staging, 0, bytes);
      device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      const result = new Float32Array(staging.getMappedRange()).slice();
      staging.unmap();
      return result;
    },
    evaluate: async () => (await field.evaluate(points, { outputs })).divergence,
  };
}

export function nameAdapter({ description, vendor, architecture, device }: GPUAdapterInfo): string {
  return description || [vendor, architecture, device].filter(Boolean).join(" ");
}
