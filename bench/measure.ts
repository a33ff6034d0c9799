import { availableParallelism, cpus } from "node:os";

/** The middle of several samples and their spread, in the unit of the samples. */
export interface Stats {
  readonly median: number;
  /** The lower quartile. */
  readonly low: number;
  /** The upper quartile. */
  readonly high: number;
  readonly samples: number;
}

/** Median and quartiles, interpolated between samples; NaN throughout where there are none. */
export function statsOf(samples: readonly number[]): Stats {
  const sorted = samples.toSorted((a, b) => a - b);
  const at = (share: number): number => {
    const place = share * (sorted.length - 1);
    const below = sorted[Math.floor(place)] ?? NaN;
    return below + (place - Math.floor(place)) * ((sorted[Math.ceil(place)] ?? NaN) - below);
  };
  return { median: at(0.5), low: at(0.25), high: at(0.75), samples: sorted.length };
}

/** Three significant digits; whole numbers from 1000 on. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

/** Milliseconds that `work` takes on the host's clock. */
export async function wallTime(work: () => unknown): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

/** A GPU that was idle runs at a fraction of its clock rate for about so long. */
const WAKING_MILLISECONDS = 150;
/** After so long without work it may be idle. */
const IDLE_MILLISECONDS = 20;

/**
 * Times compute passes: by the device's own timestamps where it has them, else from submit to the end of the work. A GPU that may have
 * been idle gets the same work beforehand until it has woken up; processors are awake.
 */
export class DeviceClock {
  readonly timestamps: boolean;
  private readonly sleeps: boolean;
  private lastWork = -Infinity;
  private readonly queries: GPUQuerySet | null;
  private readonly resolved: GPUBuffer | null;

  constructor(private readonly device: GPUDevice) {
    this.timestamps = device.features.has("timestamp-query");
    this.sleeps = !(device.adapterInfo.isFallbackAdapter ?? false);
    this.queries = this.timestamps ? device.createQuerySet({ label: "bench", type: "timestamp", count: 2 }) : null;
    this.resolved = this.timestamps
      ? device.createBuffer({ label: "bench timestamps", size: 16, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC })
      : null;
  }

  /** Runs one compute pass by itself. @returns its milliseconds. */
  async time(record: (pass: GPUComputePassEncoder) => void): Promise<number> {
    const begun = performance.now();
    if (this.sleeps && begun - this.lastWork > IDLE_MILLISECONDS)
      while (performance.now() - begun < WAKING_MILLISECONDS) await this.runOnce(record);
    const milliseconds = await this.runOnce(record);
    this.lastWork = performance.now();
    return milliseconds;
  }

  private async runOnce(record: (pass: GPUComputePassEncoder) => void): Promise<number> {
    const { device, queries, resolved } = this;
    const encoder = device.createCommandEncoder({ label: "bench" });
    const timestampWrites = queries && { querySet: queries, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 };
    const pass = encoder.beginComputePass({ label: "bench", ...(timestampWrites && { timestampWrites }) });
    record(pass);
    pass.end();
    if (queries) encoder.resolveQuerySet(queries, 0, 2, resolved!, 0);
    const commands = encoder.finish();
    const milliseconds = await wallTime(() => {
      device.queue.submit([commands]);
      return device.queue.onSubmittedWorkDone();
    });
    if (!resolved) return milliseconds;
    const [begin, end] = new BigUint64Array(await readBuffer(device, resolved, 16));
    return Number(end! - begin!) / 1e6;
  }
}

/** The first `size` bytes of a buffer that has usage COPY_SRC. */
export async function readBuffer(device: GPUDevice, buffer: GPUBuffer, size: number): Promise<ArrayBuffer> {
  const staging = device.createBuffer({ label: "bench staging", size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder({ label: "bench read" });
  encoder.copyBufferToBuffer(buffer, 0, staging, 0, size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const bytes = staging.getMappedRange().slice(0);
  staging.destroy();
  return bytes;
}

/** Counts the bytes of the live buffers of a device by who made them: the first word of their labels. */
export class MemoryWatch {
  private readonly live = new Map<string, number>();
  private readonly most = new Map<string, number>();

  constructor(device: GPUDevice) {
    const createBuffer = device.createBuffer.bind(device);
    device.createBuffer = (descriptor) => {
      const buffer = createBuffer(descriptor);
      const [owner = ""] = (descriptor.label ?? "").split(/[: ]/);
      this.add(owner, descriptor.size);
      const destroy = buffer.destroy.bind(buffer);
      let destroyed = false;
      buffer.destroy = () => {
        if (!destroyed) this.add(owner, -descriptor.size);
        destroyed = true;
        return destroy();
      };
      return buffer;
    };
  }

  /** Bytes, the most that were live at one time since the last start. */
  peakOf(owner: string): number {
    return this.most.get(owner) ?? 0;
  }

  /** Forgets the most of an owner, not what is live. */
  start(owner: string): void {
    this.most.set(owner, this.live.get(owner) ?? 0);
  }

  private add(owner: string, bytes: number): void {
    const live = (this.live.get(owner) ?? 0) + bytes;
    this.live.set(owner, live);
    this.most.set(owner, Math.max(live, this.peakOf(owner)));
  }
}

/** Work that is sampled over and over. */
export interface Sampled {
  /** Once; resolves when it is done. */
  readonly sample: () => Promise<void>;
  /** Milliseconds of samples after which there are no more of it. */
  readonly budget: number;
}

/** Even the slowest are sampled so often, so that quartiles mean something. */
const LEAST_SAMPLES = 3;

/**
 * Takes the samples in rounds, each of them once per round and the order turned from round to round, so that what
 * disturbs the machine for a while disturbs all alike. The first is what the others are compared with: when its budget is
 * spent, all end.
 */
export async function interleave(all: readonly Sampled[], rounds: number): Promise<void> {
  const spent = all.map(() => 0);
  const isSpent = (index: number): boolean => spent[index]! >= all[index]!.budget;
  for (let round = 0; round < rounds; round++) {
    if (round >= LEAST_SAMPLES && isSpent(0)) return;
    const allowed = all.map((_, index) => round < LEAST_SAMPLES || !isSpent(index));
    for (let turn = 0; turn < all.length; turn++) {
      const index = (turn + round) % all.length;
      if (allowed[index]) spent[index]! += await wallTime(all[index]!.sample);
    }
  }
}

/** What the host is, for people. */
export function hostName(): string {
  return `${cpus()[0]?.model.trim() ?? process.arch}, ${availableParallelism()} threads, Node ${process.version}`;
}
