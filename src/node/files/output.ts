/** Files that appear whole or not at all: written beside the target under another name, then renamed. */
import { randomBytes } from "node:crypto";
import { access, constants, open, realpath, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { InputError } from "../../errors.js";
import { describeSystemError } from "./points.js";

export interface OutputFile {
  readonly path: string;
  /** Writes all of it and puts it in place. */
  commit(chunks: Iterable<string | Uint8Array>): Promise<void>;
  /** Leaves what was there before as it is; after {@link commit} it does nothing. */
  discard(): Promise<void>;
}

/**
 * Opens a file for writing ahead of the work whose result it takes, so that one that cannot be written costs no work.
 * @throws InputError where it cannot be written.
 */
export async function openOutput(path: string): Promise<OutputFile> {
  const refuse = (why: string, cause?: unknown): InputError =>
    new InputError(`${path}: ${why}; expected a file that can be written`, { cause });
  let target = path;
  let mode = 0o666;
  try {
    const existing = await stat(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return null;
      throw error;
    });
    if (existing && !existing.isFile()) throw refuse(existing.isDirectory() ? "it is a folder" : "it is not an ordinary file");
    if (existing) {
      // Renaming would replace a file that its owner protects, and a link instead of the file it points to.
      await access(path, constants.W_OK);
      target = await realpath(path);
      mode = existing.mode & 0o777;
    }
  } catch (error) {
    throw error instanceof InputError ? error : refuse(describeSystemError(error), error);
  }
  const scratch = join(dirname(target), `.${basename(target)}.${randomBytes(6).toString("hex")}`);
  let handle: FileHandle | null = await open(scratch, "wx", mode).catch((error: unknown) => {
    throw refuse(describeSystemError(error), error);
  });

  const discard = async (): Promise<void> => {
    if (handle === null) return;
    await handle.close().catch(() => {});
    handle = null;
    await rm(scratch, { force: true });
  };
  return {
    path,
    async commit(chunks) {
      try {
        for (const chunk of chunks) await handle!.appendFile(chunk);
        await handle!.close();
        await rename(scratch, target);
        handle = null;
      } catch (error) {
        await discard();
        throw refuse(describeSystemError(error), error);
      }
    },
    discard,
  };
}
