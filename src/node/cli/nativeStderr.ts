/** What the WebGPU implementation writes to stderr by itself, past Node, and nobody can turn off. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/**
 * Dawn's warnings of every software adapter (two of its limits are lower than the driver's) and of every machine without a
 * Vulkan loader, which the search for an adapter reports itself; no toggle, option or variable of Dawn's stops them.
 */
const EXPECTED = [/^Warning: maxDynamic\w+BuffersPerPipelineLayout artificially reduced from /, /^Warning: Couldn't load Vulkan\b/];

/** Tells of one line after the other whether it is none of those, nor belongs to one: further lines are indented. */
function makeFilter(): (line: string) => boolean {
  let drops = false;
  return (line) => {
    if (!/^\s+at /.test(line)) drops = EXPECTED.some((pattern) => pattern.test(line));
    return !drops;
  };
}

/** A text without them. */
export function withoutExpected(text: string): string {
  return text
    .split(/(?<=\n)/)
    .filter(makeFilter())
    .join("");
}

const STDERR = 2;

/**
 * Runs `work` with file descriptor 2 in a temporary file, then writes what came there to stderr, the expected warnings left
 * out. A file that is opened gets the lowest free descriptor, and Linux opens a descriptor anew by its path, so no native
 * code is needed. Where that cannot be done (not Linux, stderr closed, Deno with numbers of its own for descriptors) nothing is left
 * out; for sockets see filterSocket.
 */
export async function withQuietStderr<T>(work: () => Promise<T>): Promise<T> {
  const diverted = divert();
  if (!diverted) return work();
  try {
    return await work();
  } finally {
    diverted.restore();
  }
}

function divert(): { restore: () => void } | null {
  if (process.platform !== "linux" || "Deno" in globalThis) return null;
  let folder: string | undefined;
  let own: number | undefined;
  try {
    fstatSync(STDERR);
    own = openSync(`/proc/self/fd/${STDERR}`, "a");
    folder = mkdtempSync(join(tmpdir(), "deldot-"));
    const file = join(folder, "stderr");
    closeSync(openSync(file, "a"));
    swap(file);
    return {
      restore: () => {
        swap(`/proc/self/fd/${own!}`);
        closeSync(own!);
        const text = withoutExpected(readFileSync(file, "utf8"));
        rmSync(folder!, { recursive: true, force: true });
        if (text !== "") writeSync(STDERR, text);
      },
    };
  } catch {
    if (own !== undefined) closeSync(own);
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    return null;
  }
}

/** Descriptor 2 becomes that of another file; nothing else opens one in between, since no GPU is at work. */
function swap(path: string): void {
  closeSync(STDERR);
  const opened = openSync(path, "a");
  if (opened !== STDERR) throw new Error(`descriptor ${opened} was opened in place of stderr`);
}

const INNER = "DELDOT_STDERR_IS_FILTERED";

/**
 * A socket, which is what Node's child_process makes of a piped stderr, cannot be opened anew. There the command runs in a
 * process of its own, whose stderr this one hands on line by line, and which ends with this one by its channel to it. Gives its exit
 * status; null where there is no need.
 */
export async function filterSocket(): Promise<number | null> {
  if (process.platform !== "linux" || process.env[INNER] || !isSocket(STDERR)) return null;
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    stdio: ["inherit", "inherit", "pipe", "ipc"],
    env: { ...process.env, [INNER]: "1" },
  });
  for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, () => (process.removeAllListeners("disconnect"), child.kill(name)));
  const keep = makeFilter();
  const lines = createInterface({ input: child.stderr! });
  lines.on("line", (line) => keep(line) && process.stderr.write(`${line}\n`));
  const [[status, signal]] = (await Promise.all([once(child, "close"), once(lines, "close")])) as [
    [number | null, NodeJS.Signals | null],
    unknown,
  ];
  if (status !== null) return status;
  // It was ended before it could say so itself.
  process.stderr.write(`deldot: interrupted by ${signal}\n`);
  return 128 + constants.signals[signal!];
}

function isSocket(descriptor: number): boolean {
  try {
    return fstatSync(descriptor).isSocket();
  } catch {
    return false;
  }
}
