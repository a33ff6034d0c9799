/** A progress bar on stderr, and what stops the work: Ctrl-C. */
import { Presets, SingleBar } from "cli-progress";
import { discardAtOnce } from "../files/output.js";

/** Work shorter than this shows no bar. */
const quietMilliseconds = 1000;

export interface Progress {
  readonly update: (progress: { done: number; total: number; note?: string }) => void;
  readonly stop: () => void;
}

/** Nothing is drawn unless stderr is a terminal. */
function showProgress(task: string, unit: string): Progress {
  let bar: SingleBar | null = null;
  const start = performance.now();
  return {
    update({ done, total, note }) {
      const shown = { note: note === undefined ? "" : ` | ${note}` };
      if (!process.stderr.isTTY) return;
      if (bar === null) {
        if (done >= total || performance.now() - start < quietMilliseconds) return;
        bar = new SingleBar(
          {
            format: `${task} {bar} {percentage}% | {value}/{total} ${unit}{note} | {eta_formatted} left`,
            stream: process.stderr,
            clearOnComplete: true,
          },
          Presets.shades_classic,
        );
        bar.start(total, done, shown);
      } else bar.update(done, shown);
    },
    stop: () => {
      bar?.stop();
    },
  };
}

/** Shows how far the work is until it ends, however it does. @param unit what is counted. */
export function withProgress<Result>(
  task: string,
  work: (onProgress: Progress["update"]) => Promise<Result>,
  unit = "points",
): Promise<Result> {
  const progress = showProgress(task, unit);
  return work(progress.update).finally(progress.stop);
}

/** Aborts on the first interrupt; a second one ends the process at once, and what was half written with it. */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const)
    process.on(name, () => {
      // Who has told it to end may itself be gone before it has: no second interrupt.
      process.removeAllListeners("disconnect");
      const interruption = new Interruption(name);
      if (!controller.signal.aborted) return controller.abort(interruption);
      discardAtOnce();
      process.exit(interruption.exitStatus);
    });
  return controller.signal;
}

/** Why work was aborted; the process ends with the status that shells give to that signal. */
export class Interruption extends Error {
  override name = "Interruption";
  readonly exitStatus: number;

  constructor(signal: "SIGINT" | "SIGTERM") {
    super(`interrupted by ${signal}`);
    this.exitStatus = signal === "SIGINT" ? 130 : 143;
  }
}
