/** The same tests on another WebGPU: Deno's, which is wgpu, as Firefox's is. Devices come from {@link openDevice}. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { expectTests, type Outcome } from "../runtime.js";
import { HERE, runDeno } from "./deno.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "deldot-deno-"))));
afterAll(() => rm(folder, { recursive: true }));

/** Fewer random networks than on Node: a driver compiles other texts here. */
const environment = { DELDOT_RUNS: "5" };

/** What says most for its time; nearly all others that take their devices from openDevice pass too, by hand. */
const runs = [
  {
    what: "values, divergences, contexts, chunks, estimates, gradients into buffers, and errors",
    files: ["property", "closed-forms", "estimators", "calls", "encodeVjp", "errors"],
    names: null,
    least: 220,
  },
  {
    what: "buffers of the caller's, densities, gradients, numbers that are not finite, training, and the families of kernels",
    files: ["encode", "flow", "gradient", "nonFinite", "train", "kernels/tiles", "kernels/fused"],
    names: [
      "^(several encodes|offsets and strides|every method|memory) ",
      "^(known answers of|log p is that of float64|in an app's own buffers)",
      "^gradients of (tanh|silu)_2_\\S+ are PyTorch's on the GPU",
      "a NaN or an infinity in it gets NaN|^a point that is not finite spoils|^a batch of nothing but NaN",
      "^data for a device that was just destroyed",
      "^a tile of .+ with '?(two hidden layers|a wide state)",
      "value, divergence and diagonal of \\[ 3, 9, 3 \\]",
    ],
    least: 60,
  },
];

test.for(runs)("on Deno: $what", { timeout: 300_000 }, async (tests, { task }) => {
  const start = (parameters: readonly string[]): Promise<Outcome> =>
    runDeno(["run", "--allow-all", ...HERE, ...parameters], environment, 280_000);
  await expectTests(tests, start, join(folder, `${task.id}.json`));
});

const page = await readFile("docs/platforms.md", "utf8");

test("on Deno: the example of docs/platforms.md", async () => {
  const [, code] = /^## Deno\n.*?^```ts\n(.*?)^```/ms.exec(page)!;
  const { status, stdout, stderr } = await runDeno(["eval", ...HERE, "--ext=ts", code!]);
  expect(status, stderr).toBe(0);
  const numbers = stdout.match(/-?\d+\.\d+/g)!.map(Number);
  expect(numbers).toHaveLength(2);
  expect(numbers[0]).toBeCloseTo(numbers[1]!, 6);
});

test("on Deno: the command line, by the npm package webgpu", async () => {
  const { status, stdout, stderr } = await runDeno([
    "run",
    "--allow-all",
    ...HERE,
    "dist/cli.js",
    "verify",
    "demo/models/lorenz.safetensors",
  ]);
  expect(status, stderr).toBe(0);
  expect(stdout).toMatch(/: within$/m);
});

test("docs/platforms.md names the versions that run", async () => {
  const versionOf = async (file: string, name: string): Promise<string> =>
    JSON.parse(await readFile(file, "utf8")).packages[`node_modules/${name}`].version;
  const { stdout } = await runDeno(["--version"]);
  expect(page).toContain(`Deno ${/^deno (\S+)/.exec(stdout)![1]},`);
  expect(page).toContain(`npm's \`webgpu\` ${await versionOf("package-lock.json", "webgpu")} |`);
  expect(page).toContain(`npm's \`@sparticuz/chromium\` ${await versionOf("package-lock.json", "@sparticuz/chromium")} |`);
});
