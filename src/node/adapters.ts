/** A GPUDevice from the npm package `webgpu`, on a real GPU or on a software one. */
import { constants } from "node:os";
import { isMainThread } from "node:worker_threads";
import { AdapterError, InputError, quote } from "../errors.js";
import { sleepWhileWaiting } from "./sleepWhileWaiting.js";
import { isSoftware, softwareDrivers, type SoftwareDriver } from "./softwareGpu.js";

/** Which device {@link requestDevice} looks for. */
export interface RequestDeviceOptions {
  /** "auto" (the default): a real GPU where there is one, else a software driver. "gpu", "software": the one or the other only. */
  readonly adapter?: "auto" | "gpu" | "software" | undefined;
  /** "adapter" (the default): all that the adapter has. "default": what WebGPU guarantees everywhere, and no features. */
  readonly limits?: "adapter" | "default" | undefined;
}

/** A device and what belongs to it. */
export interface NodeDevice {
  /** Ready for `VectorField.create`. */
  readonly device: GPUDevice;
  /** Which adapter it is, and which driver was taken. */
  readonly description: string;
  /** Whether it computes on the CPU. */
  readonly software: boolean;
  /** Destroys the device and waits until it is gone; without it the process may not end. */
  readonly dispose: () => Promise<void>;
}

/** One driver that was tried or looked for, in order, and what came of it. */
export interface DriverAttempt {
  /** For people: which driver, and where it came from. */
  readonly driver: string;
  /** Whether it is the one in use. */
  readonly taken: boolean;
  /** Why it was not taken, or which adapter it gave. */
  readonly outcome: string;
}

/** What {@link describeAdapter} found. */
export interface AdapterReport {
  /** Which adapter it is, and which driver was taken. */
  readonly description: string;
  /** Whether it computes on the CPU. */
  readonly software: boolean;
  /** {@link adapterName} of it. */
  readonly name: string;
  /** WebGPU's GPUAdapterInfo. */
  readonly info: Readonly<Record<"vendor" | "architecture" | "device" | "description", string>>;
  /** All of the adapter's limits under WebGPU's names, in WebGPU's units: bytes, counts. */
  readonly limits: Readonly<Record<string, number>>;
  /** The names of its features, sorted. */
  readonly features: readonly string[];
  /** The drivers that were looked at, in order. */
  readonly attempts: readonly DriverAttempt[];
}

/**
 * The objects that create() returned, for good: when one is collected before its device is destroyed, or while the event
 * loop still has something of it to finish (promises of a lost device among it), the process hangs or aborts.
 */
const keptAlive = new Set<GPU>();

/** The limits that a device asks its adapter for; all others stay at WebGPU's defaults. */
const wantedLimits = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxUniformBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupsPerDimension",
  "maxStorageBuffersPerShaderStage",
] as const;

const wantedFeatures: readonly GPUFeatureName[] = ["timestamp-query", "shader-f16", "subgroups"];

/**
 * A WebGPU device without a browser. A Vulkan driver that the user names in VK_DRIVER_FILES or VK_ICD_FILENAMES wins;
 * else a real GPU; else Mesa's lavapipe, or SwiftShader out of the npm package `@sparticuz/chromium` or out of an
 * installed Chromium. The constants of WebGPU (GPUBufferUsage and the like) become global where they are missing.
 *
 * @throws AdapterError where there is none; the message says what was tried and what to install.
 */
export async function requestDevice(options: RequestDeviceOptions = {}): Promise<NodeDevice> {
  const { limits = "adapter" } = options;
  if (limits !== "adapter" && limits !== "default")
    throw new InputError(`requestDevice: limits is ${quote(limits)}; expected "adapter" or "default"`);
  const found = await findAdapter(options);
  const { adapter, description } = found;
  const device = await adapter.requestDevice(limits === "default" ? { label: "deldot" } : allOf(adapter)).catch((error: Error) => {
    throw new AdapterError(`${description} refused to make a device: ${error.message}`, { cause: error });
  });
  keptAlive.add(found.gpu);
  sleepWhileWaiting(device);
  return {
    device,
    description,
    software: isSoftware(adapter.info),
    dispose: async () => {
      device.destroy();
      await device.lost;
    },
  };
}

/** A device with all that its adapter has and kernels make use of. */
export function allOf(adapter: GPUAdapter): GPUDeviceDescriptor {
  return {
    label: "deldot",
    requiredLimits: Object.fromEntries(wantedLimits.map((name) => [name, adapter.limits[name]])),
    requiredFeatures: wantedFeatures.filter((name) => adapter.features.has(name)),
  };
}

/**
 * What {@link requestDevice} would take, and why: the adapter, all of its limits and features, and what was tried.
 * @throws AdapterError as requestDevice does.
 */
export async function describeAdapter(options: Pick<RequestDeviceOptions, "adapter"> = {}): Promise<AdapterReport> {
  const { adapter, description, attempts } = await findAdapter(options);
  const limits: Record<string, number> = {};
  for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(adapter.limits)).sort()) {
    const value: unknown = adapter.limits[name as keyof GPUSupportedLimits];
    if (typeof value === "number") limits[name] = value;
  }
  const { vendor, architecture, device, description: text } = adapter.info;
  return {
    description,
    software: isSoftware(adapter.info),
    name: adapterName(adapter.info),
    info: { vendor, architecture, device, description: text },
    limits,
    features: [...adapter.features].sort(),
    attempts,
  };
}

/**
 * An adapter in a few words, such as "nvidia-h200, NVIDIA: 580.159.04": the card, and what its driver says of itself; of a software
 * driver the latter alone, which says all.
 */
export function adapterName(info: GPUAdapterInfo): string {
  const { vendor, architecture, device, description } = info;
  if (!description) return [vendor, architecture, device].filter(Boolean).join(" ") || "unnamed GPU";
  return isSoftware(info) || !device ? description : `${device}, ${description}`;
}

interface FoundAdapter {
  readonly gpu: GPU;
  readonly adapter: GPUAdapter;
  readonly description: string;
  readonly attempts: readonly DriverAttempt[];
}

/** The search changes the environment for a while, so there is one at a time. */
let search: Promise<unknown> = Promise.resolve();

function findAdapter(options: RequestDeviceOptions): Promise<FoundAdapter> {
  const result = search.then(() => searchAdapter(options));
  search = result.catch(() => {});
  return result;
}

async function searchAdapter({ adapter: kind = "auto" }: RequestDeviceOptions): Promise<FoundAdapter> {
  if (kind !== "auto" && kind !== "gpu" && kind !== "software")
    throw new InputError(`requestDevice: adapter is ${quote(kind)}; expected "auto", "gpu" or "software"`);
  const webgpu = await importWebgpu();
  const attempts: DriverAttempt[] = [];

  const attempt = async (driver: string, wanted: "any" | "hardware" | "software"): Promise<FoundAdapter | null> => {
    const gpu = webgpu.create([]);
    let adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    // Asking for a fallback adapter at once would miss lavapipe, which Dawn does not count as one here.
    if (wanted === "software" && (adapter === null || !isSoftware(adapter.info)))
      adapter = (await gpu.requestAdapter({ forceFallbackAdapter: true })) ?? adapter;
    const refused =
      adapter === null
        ? "it gives no adapter that WebGPU accepts"
        : wanted === "hardware" && isSoftware(adapter.info)
          ? `it is a software driver (${adapterName(adapter.info)})`
          : wanted === "software" && !isSoftware(adapter.info)
            ? `it is not a software driver (${adapterName(adapter.info)})`
            : null;
    if (adapter === null || refused !== null) {
      attempts.push({ driver, taken: false, outcome: refused! });
      return null;
    }
    attempts.push({ driver, taken: true, outcome: adapterName(adapter.info) });
    return { gpu, adapter, description: `${adapterName(adapter.info)}, ${driver}`, attempts };
  };

  const named = namedByUser();
  if (named !== null) {
    const found = await attempt(named, { auto: "any", gpu: "hardware", software: "software" }[kind] as "any" | "hardware" | "software");
    if (found) return found;
    const expected = { auto: "", gpu: " of a real GPU", software: " in software" }[kind];
    throw new AdapterError(
      `${named}, but ${attempts[0]!.outcome}; expected the manifest of a Vulkan driver${expected}: correct the variable or unset it`,
    );
  }

  if (kind !== "software" || process.platform !== "linux") {
    const wanted = kind === "software" ? "software" : kind === "gpu" || process.platform === "linux" ? "hardware" : "any";
    const found = await attempt("the system's driver", wanted);
    if (found) return found;
  }
  if (kind !== "gpu" && process.platform === "linux") {
    for await (const source of softwareDrivers()) {
      if ("missing" in source) {
        attempts.push({ driver: source.name, taken: false, outcome: source.missing });
        continue;
      }
      const found = await withDriver(source, () => attempt(source.name, "software"));
      if (found) return found;
    }
  }
  throw new AdapterError(
    `no ${{ auto: "", gpu: "real ", software: "software " }[kind]}GPU was found: ${attempts.map(({ driver, outcome }) => `${driver}: ${outcome}`).join("; ")}. ${kind === "gpu" ? "Install the driver of your GPU" : advice()}`,
  );
}

function advice(): string {
  if (!isMainThread) return "In a worker thread, set VK_DRIVER_FILES before the thread starts, or start it with env: SHARE_ENV";
  if (process.platform === "linux" && process.arch === "x64")
    return "Install a software GPU with `npm install @sparticuz/chromium@147.0.0`, or Mesa 23 or later with its Vulkan drivers (mesa-vulkan-drivers)";
  if (process.platform === "linux")
    return "Install Mesa 23 or later with its Vulkan drivers (mesa-vulkan-drivers), or the driver of your GPU";
  return "Install the driver of your GPU";
}

type Webgpu = typeof import("webgpu");

async function importWebgpu(): Promise<Webgpu> {
  let webgpu: Webgpu;
  try {
    webgpu = await import("webgpu");
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ERR_MODULE_NOT_FOUND" && message.includes("'webgpu'"))
      throw new AdapterError("WebGPU in Node needs the npm package webgpu: npm install webgpu", { cause: error });
    throw new AdapterError(
      `the npm package webgpu cannot be loaded on ${process.platform}-${process.arch} with Node ${process.version}: ${message}`,
      { cause: error },
    );
  }
  for (const [name, value] of Object.entries(webgpu.globals))
    if (!(name in globalThis)) Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  return webgpu;
}

const driverVariables = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] as const;

/** Whether the user names the driver to take. */
export function hasNamedDriver(): boolean {
  return namedByUser() !== null;
}

function namedByUser(): string | null {
  for (const variable of driverVariables) {
    const value = process.env[variable];
    if (value) return `${variable}=${value}`;
  }
  return null;
}

/** Runs `work` with the Vulkan loader pointed at one driver; the loader reads the environment while it looks for adapters. */
async function withDriver<Result>(driver: SoftwareDriver, work: () => Promise<Result>): Promise<Result> {
  if (driver.loader !== null && !hasVulkanLoader()) loadForGood(driver.loader);
  // Loaders before 1.3.207 know the second name alone; later ones look at the first.
  for (const variable of driverVariables) process.env[variable] = driver.manifests;
  try {
    return await work();
  } finally {
    for (const variable of driverVariables) delete process.env[variable];
  }
}

function hasVulkanLoader(): boolean {
  return loadForGood("libvulkan.so.1");
}

/**
 * Loads a shared library that is no addon of Node, so that a later dlopen by its name finds it. Node reports such a
 * library as an error once it is loaded and closes it again; RTLD_NODELETE (0x1000 on Linux) keeps it.
 *
 * @returns whether the library is loaded now.
 */
function loadForGood(library: string): boolean {
  const { RTLD_NOW, RTLD_GLOBAL } = constants.dlopen;
  try {
    process.dlopen({ exports: {} }, library, RTLD_NOW | RTLD_GLOBAL | 0x1000);
    return true;
  } catch (error) {
    return /did not self-register/.test((error as Error).message);
  }
}
