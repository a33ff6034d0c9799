import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { call, installIn, type Outcome } from "../runtime.js";

const folder = fileURLToPath(new URL(".", import.meta.url));

/** The package's own node_modules, and no configuration of a folder above. */
export const HERE = ["--no-config", "--node-modules-dir=manual"] as const;

/** Runs Deno in the root of the package. It is 92 MB, too large for everyone's node_modules. */
export async function runDeno(parameters: readonly string[], environment: NodeJS.ProcessEnv = {}, timeout = 60_000): Promise<Outcome> {
  const installer = await installIn(folder, "node_modules/deno/install_api.cjs");
  const { runInstall } = createRequire(import.meta.url)(installer) as { runInstall: () => string };
  const own = { DENO_DIR: join(folder, "node_modules/.deno"), DENO_NO_UPDATE_CHECK: "1" };
  return call(runInstall(), parameters, { ...own, ...environment }, timeout);
}
