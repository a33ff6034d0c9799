import { createHash, randomUUID } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import type { Store } from "../index.js";

/**
 * A store for VectorField.create in files, one per key: what was learnt about an adapter in one run serves the next.
 * Several processes may share it; the last to set a key wins.
 *
 * @param folder default: `deldot/store` in the user's cache folder ($XDG_CACHE_HOME, or ~/.cache).
 */
export function fileStore(folder: string = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "deldot", "store")): Store {
  // Keys are sentences about adapters; their hash is a file name everywhere.
  const pathOf = (key: string): string => join(folder, `${createHash("sha256").update(key).digest("hex").slice(0, 32)}.json`);
  return {
    get: async (key) => {
      const text = await readFile(pathOf(key), "utf8").catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return null;
        throw error;
      });
      if (text === null) return null;
      const entry: unknown = JSON.parse(text);
      const isEntry = typeof entry === "object" && entry !== null && "key" in entry && "value" in entry;
      return isEntry && entry.key === key && typeof entry.value === "string" ? entry.value : null;
    },
    set: async (key, value) => {
      await mkdir(folder, { recursive: true });
      const scratch = join(folder, `${randomUUID()}.tmp`);
      try {
        // Renamed into place, so that no other process reads half of it.
        await writeFile(scratch, `${JSON.stringify({ key, value })}\n`);
        await rename(scratch, pathOf(key));
      } catch (error) {
        await rm(scratch, { force: true });
        throw error;
      }
    },
  };
}
