import type { Stage } from "../stage.js";

/** Asks for one thing at a time; what is asked for meanwhile, the last of it, comes next. */
export function latest<T>(stage: Stage, work: (given: T) => Promise<void>, onError: (error: unknown) => void): (given: T) => void {
  let waiting: { given: T } | null = null;
  let isBusy = false;
  const go = async (): Promise<void> => {
    isBusy = true;
    for (let next = waiting; next; next = waiting) {
      const { given } = next;
      waiting = null;
      const { loaded, engine } = stage;
      await work(given).catch((error: unknown) => {
        // What fails for a field or an engine that is gone is nobody's error.
        if (stage.loaded === loaded && stage.engine === engine) onError(error);
      });
    }
    isBusy = false;
  };
  return (given) => {
    waiting = { given };
    if (!isBusy) void go();
  };
}
