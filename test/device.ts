import { adapterName, requestDevice } from "../src/node/index.js";
import { allOf } from "../src/node/adapters.js";

interface TestDevice {
  device: GPUDevice;
  description: string;
  close: () => Promise<void>;
}

/** A device on the driver that setup.ts names, or whoever runs the tests; one per test file, closed in afterAll. */
export async function openDevice(): Promise<TestDevice> {
  if ("Deno" in globalThis) return openOwnDevice();
  const { device, description, dispose } = await requestDevice();
  return { device, description, close: dispose };
}

/** Of the WebGPU that the runtime itself has, as Deno does. */
async function openOwnDevice(): Promise<TestDevice> {
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) throw new Error("navigator.gpu gives no adapter");
  const device = await adapter.requestDevice(allOf(adapter));
  const close = async (): Promise<void> => {
    device.destroy();
    await device.lost;
  };
  return { device, description: adapterName(adapter.info), close };
}
