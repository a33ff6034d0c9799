import { execFile, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Numbers, Problem } from "./networks.js";
import { parametersOf } from "./networks.js";
import type { Call, Peer } from "./peer.js";

export async function findPytorch(): Promise<{ readonly python: string; readonly version: string } | null> {
  // Debian's package is for Debian's Python, which may not be the first.
  for (const python of ["python3", "/usr/bin/python3"]) {
    const found = await promisify(execFile)(python, ["-c", "import torch; print(torch.__version__)"]).catch(() => null);
    if (found) return { python, version: found.stdout.trim() };
  }
  return null;
}

export const NAME = "PyTorch";

/** How it computes a divergence. */
export const ways = [
  { name: "d backward passes", points: "device" },
  { name: "bilinear formula by hand", points: "device" },
] as const;

/** PyTorch by either way, which answers with tensors of these lengths. */
export function pytorchOf(
  task: "divergence" | "training",
  lengthsOf: (problem: Problem, parameters: readonly Numbers[]) => number[],
): Peer {
  return {
    name: NAME,
    ways,
    prepare(way, problem) {
      const parameters = parametersOf(problem).map(({ data }) => data);
      return openPytorch(task, way, problem, [...parameters, problem.points], lengthsOf(problem, parameters));
    },
  };
}

/**
 * PyTorch in the machine's own Python, where it has one; what is read back, tensors of these lengths, comes through
 * a pipe.
 */
export async function openPytorch(
  task: "divergence" | "training" | "steps" | "density",
  way: string,
  { d, h, count, steps = 1 }: Problem,
  inputs: readonly Numbers[],
  lengths: readonly number[],
): Promise<Call> {
  const found = await findPytorch();
  if (!found) throw new Error("PyTorch is not installed");
  const script = fileURLToPath(new URL("pytorch.py", import.meta.url));
  const child = spawn(found.python, [script, task, way, d, h, count, steps].map(String), { stdio: ["pipe", "pipe", "pipe"] });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const closed = new Promise<never>((_, reject) =>
    child.on("close", () => reject(new Error(stderr.trim().split("\n").at(-1) || "Python ended without a word"))),
  );
  for (const { buffer } of inputs) child.stdin.write(new Uint8Array(buffer));

  const bytes = lengths.reduce((sum, length) => sum + length * Float32Array.BYTES_PER_ELEMENT, 0);
  return async () => {
    child.stdin.write("\n");
    const answer = new Float32Array(await Promise.race([read(child.stdout, bytes), closed]));
    let first = 0;
    return lengths.map((length) => answer.subarray(first, (first += length)));
  };
}

function read(stream: NodeJS.ReadableStream, bytes: number): Promise<ArrayBuffer> {
  return new Promise((resolve) => {
    const result = new Uint8Array(bytes);
    let filled = 0;
    const take = (data: Buffer): void => {
      result.set(data, filled);
      filled += data.length;
      if (filled < bytes) return;
      stream.off("data", take);
      resolve(result.buffer);
    };
    stream.on("data", take);
  });
}
