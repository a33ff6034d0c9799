import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const folder = fileURLToPath(new URL(".", import.meta.url));
const root = join(folder, "../..");
const run = promisify(execFile);

export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The package's own node_modules, and no configuration of a folder above. */
export const HERE = ["--no-config", "--node-modules-dir=manual"] as const;

/** Runs Deno in the root of the package. It is 92 MB, too large for everyone's node_modules. */
export async function runDeno(parameters: readonly string[], environment: NodeJS.ProcessEnv = {}, timeout = 60_000): Promise<Outcome> {
  const installer = join(folder, "node_modules/deno/install_api.cjs");
  if (!existsSync(installer)) await run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder });
  const { runInstall } = createRequire(import.meta.url)(installer) as { runInstall: () => string };
  // What tells a program that vitest runs it is not for one that runs vitest.
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("VITEST") && name !== "NODE_OPTIONS");
  const env = {
    ...Object.fromEntries(inherited),
    DENO_DIR: join(folder, "node_modules/.deno"),
    DENO_NO_UPDATE_CHECK: "1",
    NO_COLOR: "1",
    ...environment,
  };
  const call = run(runInstall(), parameters, { cwd: root, env, timeout, maxBuffer: 2 ** 26 });
  try {
    return { status: 0, ...(await call) };
  } catch (error) {
    const { code, stdout, stderr } = error as Error & Outcome & { code: unknown };
    if (typeof code !== "number") throw new Error(`deno ${parameters.join(" ")} ended without a status: ${stderr}`, { cause: error });
    return { status: code, stdout, stderr };
  }
}
