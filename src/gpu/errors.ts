import { DeldotError, DeviceLostError, GpuError } from "../errors.js";

/**
 * Runs `work`, which makes WebGPU calls and returns at once, under error scopes, and resolves to its result once the device
 * has said that none of the calls failed.
 * @throws GpuError with WebGPU's own message on a validation error, an internal one or out of memory.
 */
export async function checked<T>(device: GPUDevice, label: string, work: () => T): Promise<T> {
  const filters = ["validation", "out-of-memory", "internal"] as const;
  for (const filter of filters) device.pushErrorScope(filter);
  let result: T;
  let scopes: Promise<GPUError | null>[] = [];
  try {
    result = work();
  } catch (error) {
    throw asGpuError(label, error);
  } finally {
    // Popped before anything is awaited, so that another call's scopes cannot slip between.
    scopes = filters.map(() => device.popErrorScope());
    for (const scope of scopes) scope.catch(() => undefined);
  }
  for (const scope of scopes) {
    const error = await scope.catch((failure: unknown) => {
      throw asGpuError(label, failure);
    });
    // Dawn has no words for memory that ran out.
    if (error) throw new GpuError(`${label}: ${error.message || error.constructor.name}`);
  }
  return result;
}

/** Runs `work`, which makes WebGPU objects and returns at once, and `then` as soon as the device says that one of them failed. */
export function whenFailed(device: GPUDevice, work: () => void, then: () => void): void {
  const filters = ["validation", "out-of-memory"] as const;
  for (const filter of filters) device.pushErrorScope(filter);
  try {
    work();
  } finally {
    for (const scope of filters.map(() => device.popErrorScope()))
      scope.then(
        (error) => error && then(),
        () => undefined,
      );
  }
}

/** What WebGPU throws or rejects with, as this package's own; errors of this package stay as they are. */
export function asGpuError(label: string, error: unknown): DeldotError {
  if (error instanceof DeldotError) return error;
  return new GpuError(`${label}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
}

/** Rejects what waits on a device as soon as it is lost. */
export class DeviceWatch {
  private readonly waiting = new Set<(error: DeviceLostError) => void>();
  private error: DeviceLostError | null = null;

  constructor(device: GPUDevice) {
    void device.lost.then(({ reason, message }) => {
      this.error = new DeviceLostError(`the GPU device was lost (${reason || "unknown reason"}): ${message || "no message"}`);
      for (const reject of this.waiting) reject(this.error);
      this.waiting.clear();
    });
  }

  /** Throws if the device is known to be lost. */
  check(): void {
    if (this.error) throw this.error;
  }

  /** The promise, or a DeviceLostError if the device is lost first; what fails for that reason counts as lost too. */
  async guard<T>(promise: Promise<T>): Promise<T> {
    // Whoever loses the race, nobody else waits for it.
    promise.catch(() => undefined);
    this.check();
    let reject: (error: DeviceLostError) => void = () => undefined;
    const lost = new Promise<never>((_, fail) => this.waiting.add((reject = fail)));
    try {
      return await Promise.race([lost, promise]);
    } catch (error) {
      // A call on a lost device may fail before `device.lost` has been delivered.
      await this.settle();
      throw error;
    } finally {
      this.waiting.delete(reject);
    }
  }

  /**
   * The same for work that reads nothing back: of what a lost device was told WebGPU says that nothing failed, and Deno says
   * so before it delivers `device.lost`.
   */
  async guardUnread<T>(promise: Promise<T>): Promise<T> {
    const result = await this.guard(promise);
    await this.settle();
    return result;
  }

  /** Gives `device.lost` one turn of the event loop to be delivered, and throws if it is. */
  private async settle(): Promise<void> {
    await new Promise<void>((resolve) => setTimeout(() => resolve(), 0));
    this.check();
  }
}
