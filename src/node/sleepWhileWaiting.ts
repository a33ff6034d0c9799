import { isSoftware } from "./softwareGpu.js";

/** Between two looks the thread sleeps for this part of the time that it has waited: so much later it learns of the end. */
const PART = 1 / 16;
/** But no longer at a time, since the event loop has other work too. */
const MOST_MILLISECONDS = 1;

/** Promises of WebGPU that are not settled, of all devices, and when the last of them was made. */
let waiting = 0;
let since = 0;
/** Whether sleep will be called at the next turn. */
let isPlanned = false;
/** Nobody rings it: waiting for it is sleeping. */
const bell = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));

/**
 * Leaves the processor to a software adapter while this thread waits for it. The npm package `webgpu` looks at every turn
 * of the event loop, and without a pause, whether a promise can be settled, which takes a core that the adapter could
 * compute on. From now on the thread sleeps at every such turn: for a sixteenth of the time that it has waited so far, and
 * for a millisecond at most. A device of a real GPU is left as it is.
 *
 * {@link requestDevice} does this to its own devices; for one that was made otherwise, call it once, before the device makes
 * buffers: it replaces the device's, its queue's and its buffers' own methods that return promises.
 */
export function sleepWhileWaiting(device: GPUDevice): void {
  if (!isSoftware(device.adapterInfo)) return;
  sleepIn(device, "popErrorScope");
  sleepIn(device, "createComputePipelineAsync");
  sleepIn(device, "createRenderPipelineAsync");
  sleepIn(device.queue, "onSubmittedWorkDone");
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer(descriptor);
    sleepIn(buffer, "mapAsync");
    return buffer;
  };
}

function sleepIn<Name extends string>(target: { [name in Name]: (...given: never[]) => Promise<unknown> }, name: Name): void {
  const method = target[name].bind(target);
  target[name] = (...given: never[]) => sleepUntil(method(...given));
}

async function sleepUntil<T>(promise: Promise<T>): Promise<T> {
  since = performance.now();
  waiting++;
  plan();
  try {
    return await promise;
  } finally {
    waiting--;
  }
}

/** Lets the thread sleep at the next turn of the event loop, once. A promise that is never settled keeps no process alive. */
function plan(): void {
  if (isPlanned) return;
  isPlanned = true;
  setImmediate(sleep).unref();
}

function sleep(): void {
  isPlanned = false;
  if (waiting === 0) return;
  Atomics.wait(bell, 0, 0, Math.min(MOST_MILLISECONDS, PART * (performance.now() - since)));
  plan();
}
