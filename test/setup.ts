import { delimiter, dirname } from "node:path";
import { packagedSwiftShader } from "../src/node/softwareGpu.js";

/**
 * Every test runs on the software GPU out of the npm package, the same on each machine, unless VK_DRIVER_FILES names
 * another driver. The environment reaches the test processes because they start after this.
 */
export default async function setup(): Promise<void> {
  if (process.env["VK_DRIVER_FILES"]) return;
  const driver = await packagedSwiftShader();
  if ("missing" in driver) throw new Error(`the tests need ${driver.name}: ${driver.missing}`);
  process.env["VK_DRIVER_FILES"] = driver.manifests;
  if (driver.loader)
    process.env["LD_LIBRARY_PATH"] = [dirname(driver.loader), process.env["LD_LIBRARY_PATH"]].filter(Boolean).join(delimiter);
}
