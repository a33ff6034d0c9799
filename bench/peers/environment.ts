import { existsSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import type { Adapter } from "./adapter.js";

/** The environment in which any program finds an adapter first. */
export function environmentOf({ manifests }: Adapter): NodeJS.ProcessEnv {
  if (manifests === null) return process.env;
  // A driver that brings a loader along may be on a machine that has none.
  const folders = manifests.split(delimiter).map((file) => dirname(file));
  const withLoader = folders.filter((folder) => existsSync(join(folder, "libvulkan.so.1")));
  const libraries = [process.env["LD_LIBRARY_PATH"], ...withLoader].filter(Boolean).join(delimiter);
  return {
    ...process.env,
    VK_DRIVER_FILES: manifests,
    // Old loaders know this name alone.
    VK_ICD_FILENAMES: manifests,
    ...(libraries && { LD_LIBRARY_PATH: libraries }),
  };
}
