/** The package with every runtime, compiler and bundler that docs/compatibility.md names, each of the version in package-lock.json. */
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { copyFile, cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it, test } from "vitest";
import { evaluateReference, parseSafetensors } from "../../src/index.js";
import { hasBrowser, openBrowser } from "../browser.js";
import { divergenceScale, expectClose } from "../close.js";
import { openModel } from "../onnxruntime.js";
import { makeProject, serve, type Project } from "../project.js";

const here = fileURLToPath(new URL(".", import.meta.url));
const root = join(here, "../..");
const run = promisify(execFile);

const lock = (folder: string): Record<string, string> => {
  const { packages } = JSON.parse(readFileSync(join(folder, "package-lock.json"), "utf8")) as {
    packages: Record<string, { version: string }>;
  };
  return Object.fromEntries(Object.entries(packages).map(([path, { version }]) => [path.replace("node_modules/", ""), version]));
};
/** Versions of what is tried, by the names in package.json, and of the project's own development dependencies. */
const versions = lock(here);
const own = lock(root);

const nodes = Object.keys(versions).filter((name) => name.startsWith("node-") && /\d$/.test(name));
const compilers = Object.keys(versions).filter((name) => name.startsWith("typescript-"));
const bundlers = { vite: "vite", webpack: "webpack", rspack: "@rspack/core", rollup: "rollup", esbuild: "esbuild" };
const page = readFileSync(join(root, "docs/compatibility.md"), "utf8");

test("docs/compatibility.md has a row for everything that is tried, with its version, and no other", () => {
  const rows = [...page.matchAll(/^\| (\S+) (\d[\d.]*) \|/gm)].map(([, name, version]) => `${name} ${version}`);
  const tried = [
    ...nodes.map((name) => `Node ${versions[name]}`),
    ...compilers.map((name) => `TypeScript ${versions[name]}`),
    ...Object.entries(bundlers).map(([name, from]) => `${name} ${versions[from]}`),
    `Chromium ${own["@sparticuz/chromium"]}`,
  ];
  expect(tried.length).toBe(3 + 5 + 5 + 1);
  expect(rows.sort()).toEqual(tried.sort());
});

const model = join(root, "demo/models/lorenz.safetensors");
const points = Array.from({ length: 3 * 100 }, (_, i) => 2 * Math.sin(i * i + 1));
const network = parseSafetensors(readFileSync(model));
const { divergence, diagonal } = evaluateReference(network, points, { outputs: ["divergence", "diagonal"] });
const truth = divergence!;
const scale = divergenceScale(diagonal!, 3);

interface Results {
  readonly version?: string;
  readonly evaluate: { readonly divergence: number[]; readonly reference: number[] };
  readonly train: { readonly weights: number[]; readonly truth: number[] };
  readonly write: { readonly file: number[] };
}

function expectEvaluated({ divergence, reference }: Results["evaluate"]): void {
  expectClose(divergence, truth, scale, { label: "divergence" });
  // exp and its like may differ in their last bit.
  expectClose(reference, truth, scale, { label: "float64", relative: 1e-14, absolute: 0 });
}

async function expectResults({ evaluate, train, write }: Results): Promise<void> {
  expectEvaluated(evaluate);
  const ones = train.truth.map(() => 1);
  expectClose(train.weights, train.truth, ones, { label: "trained weights", relative: 0.05 });
  const onnx = await openModel(Uint8Array.from(write.file), 3, 0);
  const { divergence } = await onnx.run(Float32Array.from(points), null);
  await onnx.release();
  expectClose(divergence!.data, truth, scale, { label: "the .onnx file's divergence" });
}

describe.skipIf(!hasBrowser)("installed", () => {
  let project: Project;
  const folderOf = (...names: string[]): string => join(project.folder, ...names);

  beforeAll(async () => {
    const tools = existsSync(join(here, "node_modules/webpack/package.json"))
      ? Promise.resolve()
      : run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], { cwd: here });
    const needed = ["webgpu", "@types/node"].map((name) => `${name}@${own[name]}`);
    [project] = await Promise.all([makeProject({ others: needed }), tools]);
    await cp(join(here, "app"), folderOf("app"), { recursive: true });
    await copyFile(join(here, "consumer.ts"), folderOf("consumer.ts"));
    await project.write("required.cts", `import deldot = require("deldot");\ndeldot.mlp({ layers: [] }) satisfies deldot.Network;\n`);
    await copyFile(model, folderOf("model.safetensors"));
    await writeFile(folderOf("points.json"), JSON.stringify(points));
    await writeFile(folderOf("points.csv"), points.join(",").replaceAll(/([^,]*,[^,]*,[^,]*),/g, "$1\n"));
  }, 180_000);
  afterAll(() => project?.remove());

  describe.for(nodes)("%s", (name) => {
    const inNode = async (...parameters: string[]): Promise<string> =>
      (await run(join(here, "node_modules", name, "bin/node"), parameters, { cwd: project.folder, maxBuffer: 2 ** 26 })).stdout;

    it("evaluates, trains and writes by every entry", async () => {
      const results = JSON.parse(await inNode("app/node.js")) as Results;
      expect(results.version).toBe(versions[name]);
      await expectResults(results);
    });

    it("requires what it imports", async () => {
      const code = `const { evaluateReference, mlp } = require("deldot");
        const entries = ["node", "train", "onnx"].map((entry) => typeof require("deldot/" + entry));
        console.log(evaluateReference(mlp({ layers: [{ weight: [[2]] }] }), [1]).divergence[0], ...entries);`;
      expect(await inNode("--input-type=commonjs", "--eval", code)).toBe("2 object object object\n");
    });

    it("has the command line", async () => {
      const command = ["eval", "model.safetensors", "--points", "points.csv", "--json"];
      const { divergence, count } = JSON.parse(await inNode("node_modules/deldot/dist/cli.js", ...command)) as {
        divergence: number[];
        count: number;
      };
      expect(count).toBe(100);
      expectClose(divergence, truth, scale, { label: "divergence" });
    });
  });

  // The package's own declarations are checked, not those of TypeScript and Node, which take twice as long.
  const app = { lib: ["es2022", "dom"], types: [], skipDefaultLibCheck: true };
  const settings = [
    { module: "esnext", moduleResolution: "bundler", ...app },
    { module: "node16", moduleResolution: "node16", ...app },
    { module: "nodenext", moduleResolution: "nodenext", lib: ["es2023"], types: ["node"], skipLibCheck: true },
  ];
  /** What reads no exports, up to TypeScript 6. */
  const node10 = { module: "es2022", moduleResolution: "node10", ...app };
  it.for(compilers)("%s checks an app, with every moduleResolution", async (name) => {
    const version = Number.parseFloat(versions[name]!);
    // From 5.8 on a CommonJS module may require ES modules.
    const mayRequire = version >= 5.8;
    const old = version < 6 ? [node10] : version < 7 ? [{ ...node10, ignoreDeprecations: "6.0" }] : [];
    const printed = await Promise.all(
      [...settings, ...old].map(async (setting) => {
        const compilerOptions = { ...setting, target: "es2022", strict: true, exactOptionalPropertyTypes: true, noEmit: true };
        const config = `tsconfig.${name}.${setting.moduleResolution}.json`;
        const files = ["consumer.ts", ...(mayRequire && setting.module === "nodenext" ? ["required.cts"] : [])];
        await project.write(config, JSON.stringify({ compilerOptions, files }));
        const tsc = join(here, "node_modules", name, "bin/tsc");
        return run(process.execPath, [tsc, "-p", config], { cwd: project.folder }).catch((error: { stdout: string }) => {
          // One that did not run complains of nothing.
          expect(error.stdout).toMatch(/error TS\d+/);
          return error;
        });
      }),
    );
    // @webgpu/types contradicts "dom" where that has WebGPU of its own.
    const theirs = /^(\s|$|node_modules\/@webgpu\/|\S*\/lib\.dom\.d\.ts)/;
    expect(printed.flatMap(({ stdout }) => stdout.split("\n").filter((line) => !theirs.test(line)))).toEqual([]);
  });

  describe("in a browser, under a strict Content-Security-Policy", () => {
    let opened: { browser: Browser; close: () => Promise<void> };
    let served: { origin: string; close: () => void };
    const apps = ["pageEvaluate", "pageTrain", "pageWrite", "pageWorker"];

    beforeAll(async () => {
      const policy = { "content-security-policy": "default-src 'self'; script-src 'self'" };
      [opened, served] = await Promise.all([openBrowser(), serve(project.folder, policy)]);
    });
    afterAll(async () => {
      served?.close();
      await opened?.close();
    });

    it.for(Object.keys(bundlers))("an app that %s built evaluates, trains and writes, on the page and in a worker", async (name) => {
      await run(process.execPath, [join(here, "bundle.js"), name, project.folder, ...apps]);
      const kilobytes = async (app: string): Promise<number> => {
        const scripts = (await readdir(folderOf(name, app), { recursive: true })).filter((file) => file.endsWith(".js"));
        const texts = await Promise.all(scripts.map((file) => readFile(folderOf(name, app, file))));
        return texts.reduce((sum, text) => sum + gzipSync(text, { level: 9 }).length, 0) / 1000;
      };
      const sizes = await Promise.all(apps.slice(0, 3).map(kilobytes));
      console.log(
        `${name}: ${apps
          .slice(0, 3)
          .map((app, i) => `${app} ${sizes[i]!.toFixed(1)} kB`)
          .join(", ")}, gzipped`,
      );

      // webpack's and Rspack's scripts are no modules.
      const kind = ["webpack", "rspack"].includes(name) ? "defer" : 'type="module"';
      const scripts = apps.map((app) => `<script ${kind} src="/${name}/${app}/${app}.js"></script>`);
      await project.write(`${name}.html`, `<!doctype html><title>${name}</title>${scripts.join("")}`);
      const tab = await opened.browser.newPage();
      const said: string[] = [];
      const complaints: string[] = [];
      tab.on("pageerror", (error) => complaints.push(String(error)));
      tab.on("requestfailed", (request) => complaints.push(`${request.url()} failed`));
      const done = new Promise<void>((resolve) => {
        tab.on("console", (message) => {
          (message.type() === "log" ? said : complaints).push(message.text());
          if (said.length === apps.length || complaints.length > 0) resolve();
        });
        tab.on("pageerror", () => resolve());
      });
      await tab.goto(`${served.origin}/${name}.html`);
      await done;
      await tab.close();
      expect(complaints).toEqual([]);
      const results = Object.assign({}, ...said.map((text) => JSON.parse(text) as object)) as Results & { worker: Results["evaluate"] };
      await expectResults(results);
      expectEvaluated(results.worker);
      const stated = new RegExp(`^\\| ${name} .*?(\\d+), (\\d+), (\\d+) \\|$`, "m").exec(page)!.slice(1).map(Number);
      for (const [i, size] of sizes.entries()) expect(size, apps[i]).toBeLessThan(stated[i]!);
    });

    it("refuses what that policy forbids, so that it holds", async () => {
      await project.write("eval.js", `try { eval("1"); console.log("ran"); } catch ({ name }) { console.log(name); }`);
      await project.write("eval.html", `<!doctype html><script src="/eval.js"></script>`);
      const tab = await opened.browser.newPage();
      const logged = tab.waitForEvent("console", { predicate: (message) => message.type() === "log" });
      await tab.goto(`${served.origin}/eval.html`);
      expect((await logged).text()).toBe("EvalError");
      await tab.close();
    });
  });
});
