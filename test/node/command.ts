import { spawn } from "node:child_process";
import { resolve } from "node:path";

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export type CommandParameters = [parameters: readonly string[], environment?: NodeJS.ProcessEnv, interruptAfter?: number];

/** Runs the built command in a folder; dawn.node's own warnings about the driver are left out of stderr. */
export function runDeldot(folder: string, ...[parameters, environment = {}, interruptAfter]: CommandParameters): Promise<Outcome> {
  return new Promise((done, fail) => {
    const child = spawn(process.execPath, [resolve("dist/cli.js"), ...parameters], {
      cwd: folder,
      env: { ...process.env, ...environment },
    });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (chunk) => (stdout += chunk));
    child.stderr.on("data", (chunk) => (stderr += chunk));
    child.on("error", fail);
    child.on("close", (status) => done({ status, stdout, stderr: stderr.replaceAll(/^(Warning: .*|\s+at .*)?\n/gm, "") }));
    if (interruptAfter !== undefined) setTimeout(() => child.kill("SIGINT"), interruptAfter);
  });
}
