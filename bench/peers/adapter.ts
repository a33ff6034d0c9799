/** One adapter for everyone; imported by child processes alone, since it loads a native module. */
import { create, globals } from "webgpu";
import { adapterName, requestDevice, sleepWhileWaiting } from "../../dist/node.js";

const { GPU, GPUAdapter } = globals as typeof globalThis;

/** The adapter that deldot takes. */
export interface Adapter {
  readonly name: string;
  /** What VK_DRIVER_FILES was when it was found. */
  readonly manifests: string | null;
}

/**
 * Where deldot has to find a software driver itself, it tells the Vulkan loader of it through a variable, for as long as
 * the search lasts: the last one it looks under is the one it takes.
 */
export async function findAdapter(): Promise<Adapter> {
  let manifests: string | undefined;
  const requestAdapter = method(GPU.prototype, "requestAdapter");
  GPU.prototype.requestAdapter = function (options) {
    manifests = process.env["VK_DRIVER_FILES"];
    return requestAdapter.call(this, options);
  };
  const { device } = await requestDevice();
  return { name: adapterName(device.adapterInfo), manifests: manifests ?? null };
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
    adapters.push(adapterName(this.info));
    const device = await requestDevice.call(this, descriptor);
    // As deldot's own: else what they compute would be slower than it has to be.
    sleepWhileWaiting(device);
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
