/** One adapter for everyone: the one that deldot takes. */
import { existsSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { create, globals } from "webgpu";
import { requestDevice } from "../../dist/node.js";
import { nameAdapter } from "./deldot.js";

const { GPU, GPUAdapter } = globals as typeof globalThis;

/**
 * The adapter's name, and the environment in which any program finds that adapter first. Where deldot had to find a software
 * driver itself, it told the Vulkan loader of it through a variable, for as long as the search lasted: the last one it
 * looked under is the one it took.
 */
export async function chooseAdapter(): Promise<{ name: string; environment: NodeJS.ProcessEnv }> {
  let manifests: string | undefined;
  wrap(
    GPU.prototype,
    "requestAdapter",
    (requestAdapter) =>
      function (options) {
        manifests = process.env["VK_DRIVER_FILES"];
        return requestAdapter.call(this, options);
      },
  );
  const { device, dispose } = await requestDevice();
  const name = nameAdapter(device.adapterInfo);
  await dispose();

  const environment = { ...process.env };
  if (manifests === undefined) return { name, environment };
  environment["VK_DRIVER_FILES"] = manifests;
  // A driver that brings a loader along may be on a machine that has none.
  const folders = manifests.split(delimiter).map((file) => dirname(file));
  const withLoader = folders.filter((folder) => existsSync(join(folder, "libvulkan.so.1")));
  const path = [process.env["LD_LIBRARY_PATH"], ...withLoader].filter(Boolean).join(delimiter);
  if (path) environment["LD_LIBRARY_PATH"] = path;
  return { name, environment };
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
  wrap(
    GPUAdapter.prototype,
    "requestDevice",
    (requestDevice) =>
      async function (descriptor) {
        adapters.push(nameAdapter(this.info));
        const device = await requestDevice.call(this, descriptor);
        device.addEventListener("uncapturederror", ({ error }) => errors.push(error.message));
        return device;
      },
  );
  Object.assign(globalThis, globals);
  gpu = create([]);
  Object.defineProperty(globalThis, "navigator", { value: { gpu, userAgent: "", platform: "" }, configurable: true });
  return { adapters, errors };
}

/** Replaces a method of all objects of a class. */
function wrap<T extends object, K extends keyof T>(prototype: T, name: K, wrapper: (original: T[K]) => T[K]): void {
  prototype[name] = wrapper(prototype[name]);
}
