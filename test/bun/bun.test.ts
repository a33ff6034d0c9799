/** The same tests on Bun, by npm's `bun-webgpu`, which calls Dawn without Node's own interface. Devices come from {@link openDevice}. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { call, expectTests, installIn, type Outcome } from "../runtime.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "deldot-bun-"))));
afterAll(() => rm(folder, { recursive: true }));

/** Runs Bun in the root of the package. It is 107 MB, too large for everyone's node_modules. */
async function runBun(parameters: readonly string[], environment: NodeJS.ProcessEnv, timeout: number): Promise<Outcome> {
  const here = fileURLToPath(new URL(".", import.meta.url));
  const bun = await installIn(here, `node_modules/@oven/bun-${process.platform}-${process.arch}/bin/bun`);
  return call(bun, parameters, environment, timeout);
}

test("on Bun: values, divergences and estimates, by every method", { timeout: 300_000 }, async () => {
  const start = (parameters: readonly string[]): Promise<Outcome> => runBun(["--bun", ...parameters], { DELDOT_RUNS: "5" }, 280_000);
  await expectTests({ files: ["property", "closed-forms", "estimators"], names: null, least: 100 }, start, join(folder, "report.json"));
});

test("docs/platforms.md names the versions that run", async () => {
  const page = await readFile("docs/platforms.md", "utf8");
  const { packages } = JSON.parse(await readFile("test/bun/package-lock.json", "utf8"));
  const versionOf = (name: string): string => packages[`node_modules/${name}`].version;
  expect(page).toContain(`Bun ${versionOf("bun")} with npm's \`bun-webgpu\` ${versionOf("bun-webgpu")} |`);
});
