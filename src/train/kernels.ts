import { USAGE } from "../gpu/buffers.js";
import { trainKernels, type TrainKernelName } from "../kernels/train.js";
import { WORKGROUP_SIZE } from "../schedule/steps.js";
import { upload } from "./buffers.js";

/** A dispatch whose parameters and buffers are bound for good. */
export type Dispatch = (pass: GPUComputePassEncoder) => void;

/** Some of a buffer, or all of it. */
export type Bound = GPUBuffer | GPUBufferBinding;

/** The kernels of training, compiled. */
export class TrainKernels {
  private readonly made: GPUBuffer[] = [];

  private constructor(
    private readonly device: GPUDevice,
    private readonly label: string,
    private readonly pipelines: ReadonlyMap<TrainKernelName, GPUComputePipeline>,
  ) {}

  /** Those of these names. @throws GpuError. */
  static async compile(device: GPUDevice, label: string, names: readonly TrainKernelName[]): Promise<TrainKernels> {
    const compiled = names.map(async (name) => {
      const module = device.createShaderModule({ label: `${label} ${name}`, code: trainKernels[name].source });
      const pipeline = await device.createComputePipelineAsync({ label: `${label} ${name}`, layout: "auto", compute: { module } });
      return [name, pipeline] as const;
    });
    return new TrainKernels(device, label, new Map(await Promise.all(compiled)));
  }

  /** @param invocations 0: one workgroup. */
  bind(
    name: TrainKernelName,
    parameters: Readonly<Record<string, number>>,
    buffers: Readonly<Record<string, Bound>>,
    invocations: number,
  ): Dispatch {
    const { device } = this;
    const pipeline = this.pipelines.get(name)!;
    const { parameters: names, storage } = trainKernels[name];
    const label = `${this.label} ${name}`;
    const words = Uint32Array.from(names, (each) => known(parameters, each, name));
    const uniform = device.createBuffer({ label, size: 16 * Math.ceil(words.length / 4), usage: USAGE.UNIFORM, mappedAtCreation: true });
    new Uint32Array(uniform.getMappedRange()).set(words);
    uniform.unmap();
    this.made.push(uniform);
    const all = [uniform, ...storage.map((each) => known(buffers, each.name, name))];
    const entries = all.map((bound, binding) => ({ binding, resource: "usage" in bound ? { buffer: bound } : bound }));
    const group = device.createBindGroup({ label, layout: pipeline.getBindGroupLayout(0), entries });
    const workgroups = invocations === 0 ? 1 : Math.ceil(invocations / WORKGROUP_SIZE);
    const down = Math.ceil(workgroups / device.limits.maxComputeWorkgroupsPerDimension);
    return (pass) => {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(Math.ceil(workgroups / down), down);
    };
  }

  /** A buffer for kernels to read. */
  upload(words: Uint32Array): GPUBuffer {
    const buffer = upload(this.device, this.label, words);
    this.made.push(buffer);
    return buffer;
  }

  /** Frees what was bound. */
  destroy(): void {
    for (const buffer of this.made) buffer.destroy();
  }
}

function known<T>(from: Readonly<Record<string, T>>, name: string, kernel: string): T {
  const value = from[name];
  if (value === undefined) throw new TypeError(`the kernel ${kernel} is not given ${name}`);
  return value;
}
