/** onnxruntime-node, where it is installed. */
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { OnnxRuntime } from "../onnx/index.js";

const packageName = "onnxruntime-node";

/** What computes on the processor, or why it does not. */
export type FoundRuntime = { readonly runtime: OnnxRuntime; readonly name: string } | { readonly missing: string };

/** Looks in the project that the user stands in first, then wherever this package can see. */
export async function findOnnxruntime(): Promise<FoundRuntime> {
  for (const from of [join(process.cwd(), "package.json"), import.meta.url]) {
    let path: string;
    try {
      path = createRequire(from).resolve(packageName);
    } catch {
      continue;
    }
    try {
      const module = (await import(pathToFileURL(path).href)) as OnnxRuntime & {
        readonly env: { readonly versions: { readonly node?: string } };
      };
      const { node: version = "" } = module.env.versions;
      return { runtime: module, name: `onnxruntime ${version}`.trim() };
    } catch (error) {
      return { missing: `${path} cannot be loaded: ${(error as Error).message}` };
    }
  }
  return { missing: "it is not installed" };
}
