/** What the WebGPU implementation writes to stderr by itself, past Node, and nobody can turn off. */
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * Dawn's warnings of every software adapter (two of its limits are lower than the driver's) and of every machine without a
 * Vulkan loader, which the search for an adapter reports itself; no toggle, option or variable of Dawn's stops them.
 */
const EXPECTED = [/^Warning: maxDynamic\w+BuffersPerPipelineLayout artificially reduced from /, /^Warning: Couldn't load Vulkan\b/];

/** The lines of a text that are none of those, with what belongs to them: further lines are indented. */
export function withoutExpected(text: string): string {
  let drops = false;
  const kept = text.split(/(?<=\n)/).filter((line) => {
    if (!/^\s+at /.test(line)) drops = EXPECTED.some((pattern) => pattern.test(line));
    return !drops;
  });
  return kept.join("");
}

const STDERR = 2;

/**
 * Runs `work` with file descriptor 2 in a temporary file, then writes what came there to stderr, the expected warnings left
 * out. A file that is opened gets the lowest free descriptor, and Linux opens a descriptor anew by its path, so no native
 * code is needed. Where that cannot be done (not Linux; stderr closed, or a socket) nothing is left out.
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
  if (process.platform !== "linux") return null;
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
