import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";

/** What a child process says: how far it is, and in the end what it found, or why it found nothing. */
export type Message<R> = { readonly progress: string } | { readonly failure: string } | { readonly report: R };

/** What came of a child process. */
export type Outcome<R> = { readonly report: R } | { readonly failure: string };

/** Runs a program of this folder on a job, in a process of its own, so that its crash or hang is its own too. */
export function runChild<R>(program: string, job: object, seconds: number, environment: NodeJS.ProcessEnv): Promise<Outcome<R>> {
  return new Promise((resolve) => {
    const child = fork(fileURLToPath(new URL(program, import.meta.url)), [JSON.stringify(job)], {
      env: environment,
      // Some libraries talk a lot on their standard output; nobody reads it here.
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    let outcome: Outcome<R> | undefined;
    let progress = "starting";
    let stderr = "";
    child.stderr!.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("message", (message: Message<R>) => {
      if ("progress" in message) {
        progress = message.progress;
        return;
      }
      outcome = "failure" in message ? { failure: `failed: ${message.failure}` } : message;
      // Drivers and libraries may hang or crash while they are torn down; nothing is left to learn from that.
      child.kill("SIGKILL");
    });
    const timer = setTimeout(() => {
      outcome ??= { failure: `killed after ${seconds} s: ${progress}` };
      child.kill("SIGKILL");
    }, seconds * 1000);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve(outcome ?? { failure: `crashed (${signal ?? `exit code ${code}`}): ${lastWords(stderr)}` });
    });
  });
}

/** The child's side: works, and tells what came of it. */
export async function work<R>(run: (tell: (progress: string) => void) => Promise<R>): Promise<void> {
  const send = (message: Message<R>): void => void process.send!(message);
  await run((progress) => send({ progress })).then(
    (report) => send({ report }),
    (error: unknown) => send({ failure: error instanceof Error ? error.message : String(error) }),
  );
}

/** What {@link runChild} was given. */
export function readJob(): unknown {
  return JSON.parse(process.argv[2]!);
}

function lastWords(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("Warning:"));
  return (lines.findLast((line) => /error|abort|assert|terminate/i.test(line)) ?? lines.at(-1) ?? "without a word").trim();
}
