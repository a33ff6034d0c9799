import { GpuError } from "../errors.js";
import { checked } from "./errors.js";
import type { Kernel } from "./kernels.js";

/** Compiled pipelines of one device, keyed by source; compilations in flight are shared. */
export class Pipelines {
  private static readonly perDevice = new WeakMap<GPUDevice, Pipelines>();
  private readonly compiling = new Map<string, Promise<GPUComputePipeline>>();
  private readonly ready = new Map<string, GPUComputePipeline>();

  static of(device: GPUDevice): Pipelines {
    let pipelines = Pipelines.perDevice.get(device);
    if (!pipelines) Pipelines.perDevice.set(device, (pipelines = new Pipelines(device)));
    return pipelines;
  }

  private constructor(private readonly device: GPUDevice) {}

  /** Compiles a kernel, or waits for it. @throws GpuError with the compiler's message and the source line. */
  compile(kernel: Kernel): Promise<GPUComputePipeline> {
    let compiling = this.compiling.get(kernel.source);
    if (!compiling) {
      compiling = this.create(kernel);
      this.compiling.set(kernel.source, compiling);
      // What failed once (a lost device, no memory) may be asked for again.
      compiling.catch(() => this.compiling.delete(kernel.source));
    }
    return compiling;
  }

  /** Whether get() will give the kernel's pipeline. */
  has(kernel: Kernel): boolean {
    return this.ready.has(kernel.source);
  }

  /** A pipeline that compile() has already given. */
  get(kernel: Kernel): GPUComputePipeline {
    const pipeline = this.ready.get(kernel.source);
    if (!pipeline) throw new GpuError(`kernel ${kernel.label} is not compiled`);
    return pipeline;
  }

  private async create(kernel: Kernel): Promise<GPUComputePipeline> {
    const { device } = this;
    const label = `deldot ${kernel.label}`;
    let module: GPUShaderModule | undefined;
    try {
      const pipeline = await checked(device, label, () => {
        module = device.createShaderModule({ label, code: kernel.source });
        const buffers: GPUBufferBindingType[] = [
          "uniform",
          ...kernel.storage.map(({ access }): GPUBufferBindingType => BINDING_TYPES[access]),
        ];
        const layout = device.createBindGroupLayout({
          label,
          entries: buffers.map((type, binding) => ({ binding, visibility: COMPUTE, buffer: { type } })),
        });
        const created = device.createComputePipelineAsync({
          label,
          layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
          compute: { module, entryPoint: "main" },
        });
        // An error scope may report first; then nobody waits for this one.
        created.catch(() => undefined);
        return created;
      });
      this.ready.set(kernel.source, pipeline);
      return pipeline;
    } catch (error) {
      throw new GpuError(
        `${label}: ${await compileMessages(module, kernel.source)}${error instanceof Error ? error.message : String(error)}`,
        { cause: error },
      );
    }
  }
}

const BINDING_TYPES = { read: "read-only-storage", read_write: "storage", uniform: "uniform" } as const;

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
