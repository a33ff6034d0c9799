/** The folders of examples/ that share a device with another package, each installed outside this repository and run as it stands. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it, onTestFinished } from "vitest";
import { evaluateReference, parseOnnx, parseSafetensors, type Network } from "../src/index.js";
import { hasBrowser, openBrowser } from "./browser.js";
import { divergenceScale, expectClose } from "./close.js";
import { makeProject, serve } from "./project.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const lorenz = (extension: string): string => join(root, `demo/models/lorenz.${extension}`);

async function install(example: string): Promise<string> {
  const { folder, remove } = await makeProject({ like: join(root, "examples", example) });
  onTestFinished(remove);
  return folder;
}

/** Holds ∇·f at points of R^3 to float64. */
function expectDivergence(network: Network, points: readonly number[], actual: readonly number[]): void {
  const { divergence, diagonal } = evaluateReference(network, points, { outputs: ["divergence", "diagonal"] });
  const scale = divergenceScale(diagonal!, 3);
  expectClose(actual, divergence!, scale, { label: "divergence" });
}

describe("examples", () => {
  it("typegpu: the divergence is that of the particles, where TypeGPU's pipeline has moved them", async () => {
    const folder = await install("typegpu");
    const { stdout } = await promisify(execFile)(process.execPath, ["main.js", lorenz("safetensors")], { cwd: folder, maxBuffer: 2 ** 26 });
    const { points, divergence } = JSON.parse(stdout) as { points: number[][]; divergence: number[] };
    const network = parseSafetensors(readFileSync(lorenz("safetensors")));
    expect(points.length).toBe(4096);
    expectDivergence(network, points.flat(), divergence);
    // The same steps in float64, of the first particles: 50 of 0.01, which the Lorenz system amplifies.
    const count = 64;
    let expected = Array.from({ length: count }, (_, i) => [Math.sin(i), Math.cos(3 * i), Math.sin(7 * i)]).flat();
    for (let step = 0; step < 50; step++) {
      const { value } = evaluateReference(network, expected, { outputs: ["value"] });
      expected = expected.map((x, i) => x + 0.01 * value![i]!);
    }
    const ones = expected.map(() => 1);
    expectClose(points.slice(0, count).flat(), expected, ones, { label: "points", relative: 1e-3 });
  }, 120_000);

  it.skipIf(!hasBrowser)(
    "onnxruntime-web: the divergence is that of the model's output, which never left the GPU",
    async () => {
      const folder = await install("onnxruntime-web");
      await copyFile(lorenz("onnx"), join(folder, "model.onnx"));
      const served = await serve(folder);
      onTestFinished(served.close);
      const opened = await openBrowser();
      onTestFinished(opened.close);
      const page = await opened.browser.newPage();
      const said = new Promise<string>((resolve, reject) => {
        page.on("console", (message) => {
          if (message.type() === "log") resolve(message.text());
        });
        page.on("pageerror", reject);
      });
      await page.goto(`${served.origin}/index.html`);
      const network = parseOnnx(readFileSync(lorenz("onnx")));
      const x = Float32Array.from({ length: 3000 }, (_, i) => Math.sin(i * i));
      const { value } = evaluateReference(network, x, { outputs: ["value"] });
      expectDivergence(network, Array.from(value!), JSON.parse(await said) as number[]);
    },
    120_000,
  );
});
