import { requestDevice } from "../src/node/index.js";

/** A device on the driver that setup.ts names, or whoever runs the tests; one per test file, closed in afterAll. */
export async function openDevice(): Promise<{ device: GPUDevice; description: string; close: () => Promise<void> }> {
  const { device, description, dispose } = await requestDevice();
  return { device, description, close: dispose };
}
