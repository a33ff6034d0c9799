import { requestDevice } from "../src/node/index.js";

/** A device on a software driver, so that results do not depend on the machine; one per test file, closed in afterAll. */
export async function openDevice(): Promise<{ device: GPUDevice; description: string; close: () => Promise<void> }> {
  const { device, description, dispose } = await requestDevice({ adapter: "software" });
  return { device, description, close: dispose };
}
