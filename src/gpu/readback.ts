import { floatsOf, STAGING_BUFFERS, type Read } from "../schedule/steps.js";
import { USAGE, type Scratch } from "./buffers.js";
import { asGpuError } from "./errors.js";

/** GPUMapMode.READ; the global itself is absent in Node. */
const MAP_READ = 1;

/** Staging buffers of a field: the host reads one while the device fills another. One call at a time may use them. */
export class Readback {
  private readonly buffers: (GPUBuffer | null)[] = Array.from({ length: STAGING_BUFFERS }, () => null);
  private readonly busy: Promise<void>[] = Array.from({ length: STAGING_BUFFERS }, () => Promise.resolve());
  private turn = 0;

  constructor(
    private readonly device: GPUDevice,
    private readonly label: string,
  ) {}

  /** Waits until a staging buffer is free; this also bounds the submissions in flight. */
  async free(): Promise<void> {
    await this.busy[this.turn];
  }

  /** Waits until all are free. */
  async idle(): Promise<void> {
    await Promise.all(this.busy);
  }

  /** The bytes of all staging buffers when each holds at least `bytes`. */
  bytesWith(bytes: number): number {
    return this.buffers.reduce((sum, buffer) => sum + Math.max(buffer?.size ?? 0, bytes), 0);
  }

  /** Records the copies of the results of `count` points; call after free(), before the submit. */
  copy(encoder: GPUCommandEncoder, reads: readonly Read[], count: number, scratch: Scratch): void {
    let at = 0;
    const bytes = reads.reduce((sum, read) => sum + 4 * floatsOf(read, count), 0);
    const staging = this.staging(bytes);
    for (const read of reads) {
      const size = 4 * floatsOf(read, count);
      encoder.copyBufferToBuffer(scratch.get(read.scratch), 0, staging, at, size);
      at += size;
    }
  }

  /** Once the submission is done, hands each result [count, width] to `take`; the array is only valid inside it. */
  read(reads: readonly Read[], count: number, take: (read: Read, data: Float32Array) => void): Promise<void> {
    const turn = this.turn;
    this.turn = (turn + 1) % STAGING_BUFFERS;
    const done = reads.length > 0 ? this.map(this.buffers[turn]!, reads, count, take) : this.device.queue.onSubmittedWorkDone();
    this.busy[turn] = done.then(
      () => undefined,
      () => undefined,
    );
    return done;
  }

  destroy(): void {
    for (const buffer of this.buffers) buffer?.destroy();
    this.buffers.fill(null);
  }

  private staging(bytes: number): GPUBuffer {
    const old = this.buffers[this.turn];
    if (old && old.size >= bytes) return old;
    old?.destroy();
    const usage = USAGE.MAP_READ | USAGE.COPY_DST;
    return (this.buffers[this.turn] = this.device.createBuffer({
      label: `${this.label}: staging ${this.turn}`,
      size: Math.max(4, bytes),
      usage,
    }));
  }

  private async map(
    staging: GPUBuffer,
    reads: readonly Read[],
    count: number,
    take: (read: Read, data: Float32Array) => void,
  ): Promise<void> {
    const bytes = reads.reduce((sum, read) => sum + 4 * floatsOf(read, count), 0);
    await staging.mapAsync(MAP_READ, 0, bytes).catch((error: unknown) => {
      throw asGpuError(staging.label, error);
    });
    try {
      const mapped = staging.getMappedRange(0, bytes);
      let at = 0;
      for (const read of reads) {
        const floats = floatsOf(read, count);
        take(read, new Float32Array(mapped, at, floats));
        at += 4 * floats;
      }
    } finally {
      staging.unmap();
    }
  }
}
