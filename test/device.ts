import { afterEach, beforeEach, expect } from "vitest";
import { adapterName, requestDevice } from "../src/node/index.js";
import { allOf } from "../src/node/adapters.js";

interface TestDevice {
  device: GPUDevice;
  description: string;
  close: () => Promise<void>;
}

const bunWebgpu = new URL("bun/node_modules/bun-webgpu/index.js", import.meta.url).href;

/** A device on the driver that setup.ts names, or whoever runs the tests; one per test file, closed in afterAll. */
export async function openDevice(): Promise<TestDevice> {
  if ("Deno" in globalThis) return openOwnDevice();
  if ("Bun" in globalThis) {
    const { setupGlobals } = (await import(/* @vite-ignore */ bunWebgpu)) as { setupGlobals: () => Promise<void> };
    await setupGlobals();
    return openOwnDevice(unaskedOnBun);
  }
  const { device, description, dispose } = await requestDevice();
  return { device, description, close: dispose };
}

/** bun-webgpu asks for more of these than an adapter has, unless it is told. */
const unaskedOnBun = {
  maxStorageBuffersInFragmentStage: 0,
  maxStorageBuffersInVertexStage: 0,
  maxStorageTexturesInFragmentStage: 0,
  maxStorageTexturesInVertexStage: 0,
};

/** Of the WebGPU that the runtime itself has, as Deno does. */
async function openOwnDevice(limits: Readonly<Record<string, number>> = {}): Promise<TestDevice> {
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) throw new Error("navigator.gpu gives no adapter");
  const all = allOf(adapter);
  const device = await adapter.requestDevice({ ...all, requiredLimits: { ...all.requiredLimits, ...limits } });
  const close = async (): Promise<void> => {
    device.destroy();
    await device.lost;
  };
  return { device, description: adapterName(adapter.info), close };
}

/** No test of the file may leave a WebGPU error behind. To be called after the beforeAll that opens the device. */
export function leaveNoErrors(deviceOf: () => GPUDevice): void {
  beforeEach(() => {
    deviceOf().pushErrorScope("validation");
    deviceOf().pushErrorScope("out-of-memory");
  });
  afterEach(async () => {
    expect(await deviceOf().popErrorScope()).toBeNull();
    expect(await deviceOf().popErrorScope()).toBeNull();
  });
}

/** Runs `work` on the device as if it had these limits. */
export async function withLimits(
  device: GPUDevice,
  others: Partial<Record<keyof GPUSupportedLimits, number>>,
  work: () => Promise<void>,
): Promise<void> {
  const { limits } = device;
  const names = Object.getOwnPropertyNames(Object.getPrototypeOf(limits)) as (keyof GPUSupportedLimits)[];
  const own = Object.fromEntries(names.map((name) => [name, limits[name]]));
  Object.defineProperty(device, "limits", { value: { ...own, ...others }, configurable: true });
  try {
    await work();
  } finally {
    Object.defineProperty(device, "limits", { value: limits, configurable: true });
  }
}
