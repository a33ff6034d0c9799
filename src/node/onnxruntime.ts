/** onnxruntime-node, where it is installed. */
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { mlp } from "../index.js";
import { OnnxField, type OnnxRuntime } from "../onnx/index.js";

const packageName = "onnxruntime-node";

/** What brings it, but not what its own script fetches for NVIDIA's cards. */
const INSTALL = "`npm install --ignore-scripts onnxruntime-node`";

/** What computes on the processor, or why it does not. */
export type FoundRuntime = { readonly runtime: OnnxRuntime; readonly name: string } | { readonly missing: string };

/** Looks in the project that the user stands in first, then wherever this package can see, for one that works. */
export async function findOnnxruntime(): Promise<FoundRuntime> {
  const failures: string[] = [];
  for (const from of [join(workingFolder(), "package.json"), import.meta.url]) {
    let path: string = packageName;
    try {
      path = createRequire(from).resolve(packageName);
      return await openOnnxruntime(pathToFileURL(path).href);
    } catch (error) {
      if ((error as NodeJS.ErrnoException | null)?.code === "MODULE_NOT_FOUND" && path === packageName) continue;
      failures.push(`${path} does not work: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return { missing: failures[0] ?? `it is not installed; ${INSTALL} brings it` };
}

/** Throws where it does not run a network. */
async function openOnnxruntime(url: string): Promise<FoundRuntime> {
  const module = (await import(url)) as OnnxRuntime & { readonly env?: { readonly versions?: { readonly node?: string } } };
  const field = await OnnxField.create(module, mlp({ layers: [{ weight: [[2]] }] }), { session: { executionProviders: ["cpu"] } });
  const [divergence] = await field.divergence([1]);
  field.destroy();
  if (divergence !== 2) throw new Error(`it takes the derivative of 2 x for ${divergence}`);
  return { runtime: module, name: `onnxruntime ${module.env?.versions?.node ?? ""}`.trim() };
}

/** One that was deleted has no name. */
function workingFolder(): string {
  try {
    return process.cwd();
  } catch {
    return "/";
  }
}
