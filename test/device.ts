import { afterEach, beforeEach, expect } from "vitest";
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
