import { startRun, type RunOptions } from "../inputs.js";
import { SLICE_MILLISECONDS } from "../turns.js";

/** Work that is done point by point. */
export interface PointwiseWork {
  readonly count: number;
  evaluate(point: number): void;
}

/**
 * All points, slice by slice; a page may draw in between, and others abort.
 * @param checkUsable throws where the work is to end.
 * @throws the signal's reason.
 */
export async function runInSlices(work: PointwiseWork, options: RunOptions, checkUsable: () => void): Promise<void> {
  startRun(options);
  const { count: total } = work;
  for (let done = 0; done < total;) {
    const end = performance.now() + SLICE_MILLISECONDS;
    do work.evaluate(done++);
    while (done < total && performance.now() < end);
    options.onProgress?.({ done, total });
    await new Promise<void>((resolve) => setTimeout(() => resolve(), 0));
    options.signal?.throwIfAborted();
    checkUsable();
  }
}
