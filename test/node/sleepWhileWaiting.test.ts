import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test, vi, type MockInstance } from "vitest";
import { requestDevice, sleepWhileWaiting } from "../../src/node/index.js";

const software = { vendor: "google", architecture: "swiftshader", device: "", description: "", isFallbackAdapter: true };

/** A device whose promises are settled by hand. */
class HandDevice {
  private readonly settlers: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];
  constructor(readonly adapterInfo = software) {}

  readonly queue = { onSubmittedWorkDone: () => this.promise() };
  readonly popErrorScope = () => this.promise();
  readonly createComputePipelineAsync = () => this.promise();
  readonly createRenderPipelineAsync = () => this.promise();
  readonly createBuffer = ({ label }: { label: string }) => ({
    label,
    mapAsync: (mode: number, offset: number) => this.promise([mode, offset]),
  });

  private promise(value?: unknown): Promise<unknown> {
    return new Promise((resolve, reject) => this.settlers.push({ resolve: (given) => resolve(given ?? value), reject }));
  }

  /** Settles the oldest promise that is open. */
  settle(result?: unknown): void {
    const { resolve, reject } = this.settlers.shift()!;
    if (result instanceof Error) reject(result);
    else resolve(result);
  }
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await nextTurn();
}

let sleeps: MockInstance<typeof Atomics.wait>;
beforeEach(() => {
  sleeps = vi.spyOn(Atomics, "wait");
});
afterEach(() => {
  sleeps.mockRestore();
});

describe("sleepWhileWaiting", () => {
  const make = (): { hand: HandDevice; device: GPUDevice } => {
    const hand = new HandDevice();
    const device = hand as unknown as GPUDevice;
    sleepWhileWaiting(device);
    return { hand, device };
  };

  test("sleeps at each turn of the event loop while a promise is open, and at none after", async () => {
    const { hand, device } = make();
    await turns(3);
    expect(sleeps).not.toHaveBeenCalled();
    const done = device.queue.onSubmittedWorkDone();
    await turns(5);
    const during = sleeps.mock.calls.length;
    expect(during).toBeGreaterThanOrEqual(4);
    expect(during).toBeLessThanOrEqual(5);
    hand.settle();
    await done;
    sleeps.mockClear();
    await turns(5);
    expect(sleeps).not.toHaveBeenCalled();
  });

  test("sleeps once a turn, however many promises are open and however fast they follow each other", async () => {
    const { hand, device } = make();
    for (let call = 0; call < 50; call++) {
      const done = device.popErrorScope();
      hand.settle(null);
      await done;
    }
    const other = make();
    const many = [device.popErrorScope(), device.queue.onSubmittedWorkDone(), other.device.queue.onSubmittedWorkDone()];
    await turns(10);
    expect(sleeps.mock.calls.length).toBeLessThanOrEqual(10);
    hand.settle(null);
    hand.settle();
    await Promise.all(many.slice(0, 2));
    sleeps.mockClear();
    await turns(5);
    // The other device's is still open.
    expect(sleeps.mock.calls.length).toBeGreaterThanOrEqual(4);
    other.hand.settle();
    await Promise.all(many);
  });

  test("sleeps longer the longer it has waited, and a millisecond at most", async () => {
    const { hand, device } = make();
    const done = device.createComputePipelineAsync({ layout: "auto", compute: { module: {} as GPUShaderModule } });
    while (sleeps.mock.calls.length < 60) await nextTurn();
    const lengths = sleeps.mock.calls.map(([, , , milliseconds]) => milliseconds!);
    expect(lengths).toEqual(lengths.toSorted((a, b) => a - b));
    expect(lengths[0]).toBeLessThan(lengths.at(-1)!);
    expect(lengths.at(-1)).toBe(1);
    hand.settle();
    await done;
  });

  test("hands through what the methods are given and give, errors too", async () => {
    const { hand, device } = make();
    const buffer = device.createBuffer({ label: "a", size: 4, usage: 1 });
    expect(buffer.label).toBe("a");
    const mapped = buffer.mapAsync(1, 8);
    hand.settle();
    expect(await mapped).toEqual([1, 8]);
    const failed = device.createRenderPipelineAsync({ layout: "auto", vertex: { module: {} as GPUShaderModule } });
    hand.settle(new Error("no such pipeline"));
    await expect(failed).rejects.toThrow("no such pipeline");
    sleeps.mockClear();
    await turns(3);
    expect(sleeps).not.toHaveBeenCalled();
  });
});

test("sleepWhileWaiting leaves a real GPU's device as it is", () => {
  const hand = new HandDevice({ vendor: "nvidia", architecture: "hopper", device: "", description: "", isFallbackAdapter: false });
  const methods = [hand.popErrorScope, hand.createBuffer, hand.queue.onSubmittedWorkDone];
  sleepWhileWaiting(hand as unknown as GPUDevice);
  expect([hand.popErrorScope, hand.createBuffer, hand.queue.onSubmittedWorkDone]).toEqual(methods);
});

test("requestDevice's software devices let the thread sleep, also for buffers that the caller maps", async () => {
  const { device, dispose } = await requestDevice({ adapter: "software" });
  const size = 2 ** 24;
  const source = device.createBuffer({ size, usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
  const staging = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  for (let attempt = 0; attempt < 100 && sleeps.mock.calls.length === 0; attempt++) {
    const encoder = device.createCommandEncoder();
    for (let copy = 0; copy < 10; copy++) encoder.copyBufferToBuffer(source, 0, staging, 0, size);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    staging.unmap();
  }
  expect(sleeps).toHaveBeenCalled();
  await dispose();
});
