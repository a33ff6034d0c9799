/** Files that appear whole or not at all: written beside the target under another name, then renamed. */
import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { access, constants, link, open, realpath, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { InputError } from "../../errors.js";
import { describeSystemError } from "./points.js";

/** A file that is being written. */
export interface OutputFile {
  readonly path: string;
  /** Where it lies until it is put in place, and where that is. */
  readonly scratch: string;
  readonly target: string;
  /** Whether there is a file in its place already. */
  readonly replaces: boolean;
  readonly handle: FileHandle;
}

/** Scratch files that a process which ends at once must not leave behind. */
const half = new Set<string>();

/** Removes what is half written, without waiting for anything. */
export function discardAtOnce(): void {
  for (const scratch of half) rmSync(scratch, { force: true });
}

const refuse = (path: string, why: string, cause?: unknown): InputError =>
  new InputError(`${path}: ${why}; expected a file that can be written`, { cause });

/**
 * Opens files for writing, all or none, ahead of the work whose results they take, so that one that cannot be written costs no
 * work.
 *
 * @throws InputError where one cannot be written, or is one of `inputs` or an earlier one by any name: a path that does not
 * exist is none.
 */
export async function openOutputs(paths: readonly string[], inputs: readonly string[]): Promise<OutputFile[]> {
  await refuseInputs(paths, inputs);
  const files: OutputFile[] = [];
  try {
    for (const path of paths) files.push(await openOutput(path));
  } catch (error) {
    await discard(files);
    throw error;
  }
  return files;
}

/** @throws InputError where a path is one of `inputs` or an earlier one by any name. */
export async function refuseInputs(paths: readonly string[], inputs: readonly string[]): Promise<void> {
  const taken = new Map<string, string>();
  for (const input of inputs) {
    const identity = await identify(input);
    if (identity !== null) taken.set(identity, `it is the same file as ${input}, which is read`);
  }
  for (const path of paths) {
    const identity = await identify(path);
    if (identity === null) continue;
    const conflict = taken.get(identity);
    if (conflict !== undefined) throw new InputError(`${path}: ${conflict}; expected a file of its own`);
    taken.set(identity, `it is the same file as ${path}, which is written too`);
  }
}

/** The same for every name of a file; null where there is none. */
async function identify(path: string): Promise<string | null> {
  const status = await stat(path, { bigint: true }).catch(() => null);
  return status && `${status.dev}:${status.ino}`;
}

async function openOutput(path: string): Promise<OutputFile> {
  let target = path;
  let mode = 0o666;
  let replaces = false;
  try {
    const existing = await stat(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return null;
      throw error;
    });
    if (existing && !existing.isFile()) throw refuse(path, existing.isDirectory() ? "it is a folder" : "it is not an ordinary file");
    if (existing) {
      // Renaming would replace a file that its owner protects, and a link instead of the file it points to.
      await access(path, constants.W_OK);
      target = await realpath(path);
      mode = existing.mode & 0o777;
      replaces = true;
    }
  } catch (error) {
    throw error instanceof InputError ? error : refuse(path, describeSystemError(error), error);
  }
  const scratch = besides(target);
  half.add(scratch);
  const handle = await open(scratch, "wx", mode).catch((error: unknown) => {
    half.delete(scratch);
    throw refuse(path, describeSystemError(error), error);
  });
  return { path, scratch, target, replaces, handle };
}

function besides(target: string): string {
  return join(dirname(target), `.${basename(target)}.${randomBytes(6).toString("hex")}`);
}

/** So many bytes are written before an interrupt is looked for again. */
const PIECE = 4 * 2 ** 20;

/**
 * Writes each file whole, then puts all of them in place, or none: where one cannot be, those before it get back what was
 * there.
 *
 * @throws InputError where one cannot be written; the signal's reason. Discard the files then.
 */
export async function commit(
  files: readonly { readonly file: OutputFile; readonly content: Iterable<string | Uint8Array> }[],
  signal?: AbortSignal,
): Promise<void> {
  for (const { file, content } of files)
    try {
      for (const chunk of content)
        for (let from = 0; from < chunk.length || from === 0; from += PIECE) {
          signal?.throwIfAborted();
          await file.handle.appendFile(typeof chunk === "string" ? chunk.slice(from, from + PIECE) : chunk.subarray(from, from + PIECE));
        }
      await file.handle.close();
    } catch (error) {
      signal?.throwIfAborted();
      throw refuse(file.path, describeSystemError(error), error);
    }
  signal?.throwIfAborted();
  await putInPlace(files.map(({ file }) => file));
}

async function putInPlace(files: readonly OutputFile[]): Promise<void> {
  const undo: (() => Promise<void>)[] = [];
  const former: string[] = [];
  for (const { path, scratch, target, replaces } of files)
    try {
      // One file alone needs no way back.
      if (replaces && files.length > 1) {
        const kept = besides(target);
        // By a second name, so that the first is there all the time, where the file system has such.
        await link(target, kept).catch(() => rename(target, kept));
        former.push(kept);
        undo.push(() => rename(kept, target));
        await rename(scratch, target);
        continue;
      }
      await rename(scratch, target);
      undo.push(() => rm(target, { force: true }));
    } catch (error) {
      for (const step of undo.toReversed()) await step();
      throw refuse(path, describeSystemError(error), error);
    }
  for (const { scratch } of files) half.delete(scratch);
  for (const kept of former) await rm(kept, { force: true });
}

/** Leaves what was there before as it is; after {@link commit} it does nothing. */
export async function discard(files: readonly OutputFile[]): Promise<void> {
  for (const { handle, scratch } of files) {
    // It may be closed already.
    await handle.close().catch(() => {});
    if (half.delete(scratch)) await rm(scratch, { force: true });
  }
}
