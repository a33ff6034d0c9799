import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, expect, test } from "vitest";

import { activationNames } from "../src/model/activation.js";
import { operatorNames } from "../src/model/readers/onnx/operators.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const readme = readFileSync(join(root, "README.md"), "utf8");
const page = (name: string): string => readFileSync(join(root, `docs/${name}.md`), "utf8");
const pages = [readme, ...["kernels", "gradients", "flows", "onnx", "shards", "outputs", "estimators", "encode"].map(page)].join("\n");
const run = promisify(execFile);

/** The fenced blocks of one language, of the README and of docs/. */
function blocks(language: string, text = pages): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"))].map(([, code]) => code!);
}

// The command lines write files, so they run in a folder of their own that sees the models.
const folder = mkdtempSync(join(tmpdir(), "deldot-readme-"));
for (const name of ["demo", "test"]) symlinkSync(join(root, name), join(folder, name));
writeFileSync(join(folder, "points.csv"), "1,2,3\n4,5,6\n");
afterAll(() => rmSync(folder, { recursive: true }));

test.for([...blocks("ts"), ...blocks("ts", page("train"))].map((code, index) => ({ code, index })))(
  "example $index of the README runs as it stands",
  async ({ code }) => {
    const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", code], { cwd: root });
    if (code.includes("console.log")) expect(stdout).not.toBe("");
  },
);

test("the README lists the activations, and docs/onnx.md the ONNX operations, that the code has", () => {
  const onnx = readFileSync(join(root, "docs/onnx.md"), "utf8").replaceAll(/\s+/g, " ");
  expect(onnx).toContain(`takes opsets 7 to 25 of ${operatorNames.join(", ")};`);
  for (const name of activationNames) expect(readme).toMatch(new RegExp(`\\b${name}\\b`));
});

test("the README's first example prints the divergence of the Lorenz system", async () => {
  const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", blocks("ts")[0]!], { cwd: root });
  expect(Number(/\[\s*(-?[\d.]+)\s*\]/.exec(stdout)![1])).toBeCloseTo(-13.67, 0);
});

const commands = blocks("sh").flatMap((block) => block.split("\n").filter((line) => line.startsWith("npx deldot ")));

test.for(commands)("the README's command runs: %s", async (line) => {
  const { stdout } = await run(process.execPath, [join(root, "dist/cli.js"), ...line.split(" ").slice(2)], { cwd: folder });
  expect(stdout).not.toBe("");
});
