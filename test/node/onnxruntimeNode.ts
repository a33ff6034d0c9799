import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** A folder of a project that has onnxruntime-node installed: 291 MB, too large for everyone's node_modules. */
export async function onnxruntimeFolder(): Promise<string> {
  const folder = fileURLToPath(new URL("../onnxruntime-node", import.meta.url));
  if (!existsSync(join(folder, "node_modules/onnxruntime-node/package.json")))
    await promisify(execFile)("npm", ["ci", "--no-audit", "--no-fund"], {
      cwd: folder,
      // Without what computes on NVIDIA's cards.
      env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: "skip" },
    });
  return folder;
}
