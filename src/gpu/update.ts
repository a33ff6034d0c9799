import { workOf } from "../plan/matrices.js";
import { scheduleMatrices } from "../schedule/products.js";
import { matricesOf, type Chunk } from "../schedule/steps.js";
import { encodeSteps } from "./encode.js";
import { checked } from "./errors.js";
import { compileKernels, HOST_WORK, makeRoom, type Shared } from "./run.js";

/**
 * Gives matrices the numbers of other weights, all at once for whatever is submitted before or after: `replace` makes them the host's,
 * who writes them to the device, where that computes what takes much work. `restore` takes them back where that fails.
 * @throws InputError where a number is too large for float16; GpuError, DeviceLostError. The old numbers are then there as before.
 */
export async function replaceWeights(replace: () => void, restore: () => void, shared: Shared): Promise<void> {
  const { device, label, watch, turns, matrices, scratch } = shared;
  const endTurn = await watch.guard(turns.take());
  try {
    const { computable, others } = matrices.trained();
    const chunk = computedOnDevice(computable, shared);
    if (chunk) {
      await compileKernels(chunk, shared);
      await makeRoom(chunk, shared);
    }
    const write = (): void => {
      replace();
      matrices.rewrite(chunk ? others : [...computable, ...others]);
      if (!chunk) return;
      scratch.reserve(chunk.scratch);
      for (const { steps } of chunk.submissions) {
        const encoder = device.createCommandEncoder({ label });
        const pass = encoder.beginComputePass({ label });
        encodeSteps(pass, steps, { ...shared, outer: {} });
        pass.end();
        device.queue.submit([encoder.finish()]);
      }
    };
    await watch.guardUnread(checked(device, label, write));
  } catch (error) {
    restore();
    matrices.forget();
    throw error;
  } finally {
    endTurn();
  }
}

/** The steps that compute merged matrices on the device; null where the host does it sooner, or they take more memory than there is. */
function computedOnDevice(computable: Parameters<typeof scheduleMatrices>[0], { matrices, limits, pace }: Shared): Chunk | null {
  if (workOf(computable.map(({ matrix }) => matrix)) <= HOST_WORK) return null;
  const paced = { ...limits, multiplyAddsPerSubmit: pace.multiplyAddsPerSubmit };
  const chunk = scheduleMatrices(computable, paced, matrices.has.bind(matrices));
  // A block-diagonal matrix as plain rows is mostly zeros: none is made for this.
  const isWide = matricesOf(chunk).some(({ matrix, layout }) => matrix.blocks !== null && !matrices.has(matrix, layout));
  return isWithin(chunk, limits) && !isWide ? chunk : null;
}

/** Whether its buffers keep to the limits. */
function isWithin({ scratch }: Chunk, { memoryBudget, maxBufferSize, maxStorageBufferBindingSize }: Shared["limits"]): boolean {
  const sizes = [...scratch.values()];
  const largest = Math.min(maxBufferSize, maxStorageBufferBindingSize);
  return sizes.every((bytes) => bytes <= largest) && sizes.reduce((sum, bytes) => sum + bytes, 0) <= memoryBudget;
}
