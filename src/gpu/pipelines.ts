import { GpuError } from "../errors.js";
import { Recent } from "../recent.js";
import type { Kernel } from "../schedule/kernel.js";
import { checked } from "./errors.js";

/** How many pipelines a device keeps beside those in use, and a field beside its plain ones. */
const MOST_KEPT = 128;

/** Compiled or in compilation, by source, of one device: fields share them. */
const ofDevices = new WeakMap<GPUDevice, Recent<string, Promise<GPUComputePipeline>>>();

/** The compiled pipelines of one field. */
export class Pipelines {
  private readonly shared: Recent<string, Promise<GPUComputePipeline>>;
  private readonly kept = new Map<string, GPUComputePipeline>();
  /** How often pipelines were forgotten. */
  generation = 0;
  private readonly recent = new Recent<string, GPUComputePipeline>(MOST_KEPT);

  constructor(private readonly device: GPUDevice) {
    let shared = ofDevices.get(device);
    if (!shared) ofDevices.set(device, (shared = new Recent(MOST_KEPT)));
    this.shared = shared;
  }

  /** Compiles a kernel, or waits for it. @throws GpuError with the compiler's message and the source line. */
  async compile(kernel: Kernel): Promise<GPUComputePipeline> {
    const { source } = kernel;
    const known = this.find(source);
    if (known) return known;
    const compiling = this.shared.get(source, () => {
      const created = create(this.device, kernel);
      // What failed once (a lost device, no memory) may be asked for again.
      created.catch(() => this.shared.delete(source));
      return created;
    });
    const pipeline = await compiling;
    return this.recent.get(source, () => pipeline);
  }

  /** As compile, for as long as the field lives. */
  async keep(kernel: Kernel): Promise<void> {
    this.kept.set(kernel.source, await this.compile(kernel));
  }

  /** Whether get() will give the kernel's pipeline. */
  has(kernel: Kernel): boolean {
    return this.find(kernel.source) !== undefined;
  }

  /** The kernel's pipeline, compiled while the caller waits where nobody has before: errors go to the device's error scopes. */
  get(kernel: Kernel): GPUComputePipeline {
    const { source } = kernel;
    return this.find(source) ?? this.recent.get(source, () => this.device.createComputePipeline(descriptorOf(this.device, kernel)));
  }

  /** Those beside the plain ones are asked for anew. */
  forget(): void {
    this.generation++;
    this.recent.clear();
  }

  private find(source: string): GPUComputePipeline | undefined {
    return this.kept.get(source) ?? this.recent.find(source);
  }
}

async function create(device: GPUDevice, kernel: Kernel): Promise<GPUComputePipeline> {
  const label = labelOf(kernel);
  let module: GPUShaderModule | undefined;
  try {
    return await checked(device, label, () => {
      const descriptor = descriptorOf(device, kernel);
      module = descriptor.compute.module;
      const created = device.createComputePipelineAsync(descriptor);
      // An error scope may report first; then nobody waits for this one.
      created.catch(() => undefined);
      return created;
    });
  } catch (error) {
    throw new GpuError(
      `${label}: ${await compileMessages(module, kernel.source)}${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
}

function labelOf(kernel: Kernel): string {
  return `deldot ${kernel.label}`;
}

function descriptorOf(device: GPUDevice, kernel: Kernel): GPUComputePipelineDescriptor {
  const label = labelOf(kernel);
  const module = device.createShaderModule({ label, code: kernel.source });
  const buffers: GPUBufferBindingType[] = ["uniform", ...kernel.storage.map(({ access }): GPUBufferBindingType => BINDING_TYPES[access])];
  const layout = device.createBindGroupLayout({
    label,
    // Parameters at an offset that each dispatch names, so that a bind group serves many.
    entries: buffers.map((type, binding) => ({ binding, visibility: COMPUTE, buffer: { type, hasDynamicOffset: binding === 0 } })),
  });
  return {
    label,
    layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: "main" },
  };
}

const BINDING_TYPES = { read: "read-only-storage", read_write: "storage" } as const;

/** GPUShaderStage.COMPUTE; the global itself is absent in Node. */
const COMPUTE = 4;

async function compileMessages(module: GPUShaderModule | undefined, source: string): Promise<string> {
  if (!module) return "";
  const info = await module.getCompilationInfo().catch(() => ({ messages: [] }));
  const lines = source.split("\n");
  return [...info.messages]
    .filter(({ type }) => type === "error")
    .map(({ lineNum, linePos, message }) => `${message} at ${lineNum}:${linePos}: ${lines[lineNum - 1]?.trim() ?? ""}\n`)
    .join("");
}
