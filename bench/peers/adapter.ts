/** One adapter for everyone: the one that deldot takes. */
import { existsSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { create, globals } from "webgpu";
import { requestDevice } from "../../dist/node.js";

const { GPU, GPUAdapter } = globals as typeof globalThis;

/**
 * The adapter's name, and the environment in which any program finds that adapter first. Where deldot had to find a software
 * driver itself, it told the Vulkan loader of it through a variable, for as long as the search lasted: the last one it
 * looked under is the one it took.
 */
export async function chooseAdapter(): Promise<{ name: string; environment: NodeJS.ProcessEnv }> {
  let manifests: string | undefined;
  const requestAdapter = method(GPU.prototype, "requestAdapter");
  GPU.prototype.requestAdapter = function (options) {
    manifests = process.env["VK_DRIVER_FILES"];
    return requestAdapter.call(this, options);
  };
  const { device, dispose } = await requestDevice();
  const name = nameAdapter(device.adapterInfo);
  await dispose();

  const environment = { ...process.env };
  if (manifests === undefined) return { name, environment };
  // Old loaders know the second name alone.
  environment["VK_DRIVER_FILES"] = environment["VK_ICD_FILENAMES"] = manifests;
  // A driver that brings a loader along may be on a machine that has none.
  const folders = manifests.split(delimiter).map((file) => dirname(file));
  const withLoader = folders.filter((folder) => existsSync(join(folder, "libvulkan.so.1")));
  const path = [process.env["LD_LIBRARY_PATH"], ...withLoader].filter(Boolean).join(delimiter);
  if (path) environment["LD_LIBRARY_PATH"] = path;
  return { name, environment };
}

function nameAdapter({ description, vendor, architecture, device }: GPUAdapterInfo): string {
  return description || [vendor, architecture, device].filter(Boolean).join(" ");
}

/** What the libraries did with the WebGPU that they were given. */
export interface Usage {
  /** The names of the adapters that they opened devices on. */
  readonly adapters: readonly string[];
  /** Errors that WebGPU reported and nobody caught, in the order they came. */
  readonly errors: readonly string[];
}

/** Node's dawn crashes when this is collected while a device of it lives. */
let gpu: GPU;

/** Puts WebGPU where libraries written for browsers look for it, and watches what they do with it. */
export function offerWebgpu(): Usage {
  const adapters: string[] = [];
  const errors: string[] = [];
  const requestDevice = method(GPUAdapter.prototype, "requestDevice");
  GPUAdapter.prototype.requestDevice = async function (descriptor) {
    adapters.push(nameAdapter(this.info));
    const device = await requestDevice.call(this, descriptor);
    device.addEventListener("uncapturederror", ({ error }) => errors.push(error.message));
    return device;
  };
  Object.assign(globalThis, globals);
  gpu = create([]);
  Object.defineProperty(globalThis, "navigator", { value: { gpu, userAgent: "", platform: "" }, configurable: true });
  return { adapters, errors };
}

/** A method of all objects of a class, to be called on one of them. */
function method<T, K extends keyof T>(prototype: T, name: K): T[K] {
  return prototype[name];
}
