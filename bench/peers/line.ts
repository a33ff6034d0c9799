import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Job, Message, Report } from "./child.js";

/** A process that takes longer has hung, or compiles for ever. */
const HARD_LIMIT = 60_000;

/** A line of the table: what a child said, or what became of it. */
export type Outcome = { readonly report: Report } | { readonly failure: string };

export function runLine(job: Job, environment: NodeJS.ProcessEnv): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = fork(fileURLToPath(new URL("child.ts", import.meta.url)), [JSON.stringify(job)], {
      env: environment,
      // Some libraries talk a lot on their standard output; nobody reads it here.
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    let outcome: Outcome | undefined;
    let firstCall = "the first call did not end";
    let stderr = "";
    child.stderr!.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("message", (message: Message) => {
      if (message.kind === "first call") {
        firstCall = `the first call took ${(message.milliseconds / 1000).toFixed(1)} s`;
        return;
      }
      outcome = message.kind === "failure" ? { failure: `failed: ${message.message}` } : { report: message };
      // Drivers and libraries may hang or crash while they are torn down; nothing is left to learn from that.
      child.kill("SIGKILL");
    });
    const timer = setTimeout(() => {
      outcome ??= { failure: `killed after ${HARD_LIMIT / 1000} s: ${firstCall}` };
      child.kill("SIGKILL");
    }, HARD_LIMIT);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve(outcome ?? { failure: `crashed (${signal ?? `exit code ${code}`}): ${lastWords(stderr)}` });
    });
  });
}

function lastWords(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("Warning:"));
  return (lines.findLast((line) => /error|abort|assert|terminate/i.test(line)) ?? lines.at(-1) ?? "without a word").trim();
}
