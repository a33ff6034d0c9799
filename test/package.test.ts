/**
 * The package as its users get it: packed, installed into an empty project outside this one, and used from there in plain
 * Node, by Vite, and in a browser through an import map, in a module worker and as a built app. test/compat has more of each.
 */
import { execFile } from "node:child_process";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { decode } from "fast-png";
import type { Browser } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hasBrowser, openBrowser } from "./browser.js";
import { expectClose } from "./close.js";
import { makeProject, serve, type Project } from "./project.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);

/** The empty project with the package in it, and its folder. */
let made: Project;
let project = "";

beforeAll(async () => {
  made = await makeProject();
  project = made.folder;
});

afterAll(() => made?.remove());

const write = (name: string, text: string): Promise<void> => made.write(name, text);

/** Runs a module in the project and gives what it prints. */
async function inNode(code: string, ...flags: string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [...flags, "--input-type=module", "--eval", code], { cwd: project });
  return stdout;
}

describe("in plain Node", () => {
  it("evaluates in float64 and explains a plan", async () => {
    const printed = await inNode(`
      import { evaluateReference, explainPlan, mlp } from "deldot";
      const network = mlp({ layers: [{ weight: [[1, 2], [3, 4], [5, 6]] }, { weight: [[1, 0, 0], [0, 1, 0]] }], activation: "identity" });
      console.log(evaluateReference(network, [1, 2]).divergence[0], explainPlan(network).method);
    `);
    expect(printed).toBe("5 cyclic\n");
  });

  it("says what to install where webgpu is missing, and only where a device is asked for", async () => {
    expect(await readdir(join(project, "node_modules"))).not.toContain("webgpu");
    const printed = await inNode(`
      await import("deldot");
      const { requestDevice } = await import("deldot/node");
      await requestDevice().catch(({ name, message }) => console.log(name + ": " + message));
    `);
    expect(printed).toBe("AdapterError: WebGPU in Node needs the npm package webgpu: npm install webgpu\n");
  });

  it("brings no other package but WebGPU's types, and draws pictures all the same", async () => {
    expect((await readdir(join(project, "node_modules"))).filter((name) => !name.startsWith("."))).toEqual(["@webgpu", "deldot"]);
    const model = join(root, "demo/models/two-moons-flow.safetensors");
    const parameters = ["heatmap", model, "--context", "0.9", "--size", "64", "--adapter", "reference", "--out", "picture.png"];
    await run(join(project, "node_modules/.bin/deldot"), parameters, { cwd: project });
    const { width, height } = decode(await readFile(join(project, "picture.png")));
    expect(Math.min(width, height)).toBeGreaterThan(64);
    const licenses = await readFile(join(project, "node_modules/deldot/dist/THIRD-PARTY-LICENSES.md"), "utf8");
    for (const name of ["@resvg/resvg-wasm", "commander", "d3-scale", "fast-png"]) expect(licenses).toContain(`## ${name} - `);
  });

  it("loads files of its own alone: no dependency and nothing of Node", async () => {
    // In a trap for imports: whatever is neither the package nor a file of it is refused.
    await write(
      "trap.js",
      `import { register } from "node:module";
      register("data:text/javascript," + encodeURIComponent(\`export function resolve(name, context, next) {
        if (context.parentURL?.includes("/node_modules/deldot/") && !name.startsWith(".")) throw new Error("deldot loads " + name);
        return next(name, context);
      }\`));`,
    );
    expect(await inNode(`console.log(typeof (await import("deldot")).parseOnnx)`, "--import", "./trap.js")).toBe("function\n");
    await expect(inNode(`await import("deldot/node")`, "--import", "./trap.js")).rejects.toThrow("deldot loads node:");
  });

  it("writes ONNX files, with files of its own alone", async () => {
    const printed = await inNode(
      `
      import { evaluateReference, mlp, parseOnnx } from "deldot";
      import { toOnnx } from "deldot/onnx";
      const network = mlp({ layers: [{ weight: [[1, 2], [3, 4]] }] });
      console.log(...evaluateReference(parseOnnx(toOnnx(network, { outputs: ["value"] })), [1, 1]).value);
    `,
      "--import",
      "./trap.js",
    );
    expect(printed).toBe("3 7\n");
  });

  it("has a command line", async () => {
    const { stdout } = await run(join(project, "node_modules/.bin/deldot"), ["info", join(root, "demo/models/lorenz.safetensors")], {
      cwd: project,
    });
    expect(stdout).toContain("R^3 -> R^3");
    // Where npx has linked to it once, nobody makes it executable after a later build.
    expect((await stat(join(root, "dist/cli.js"))).mode & 0o111).toBe(0o111);
  });
});

/** Builds a page whose only module is \`code\`, and gives the texts of its scripts: those that it loads at once, then all others. */
async function bundle(name: string, code: string): Promise<{ first: string; later: string }> {
  await write(`${name}/index.html`, `<!doctype html><title>${name}</title><script type="module" src="./main.js"></script>`);
  await write(`${name}/main.js`, code);
  await build({ root: join(project, name), configFile: false, logLevel: "error", build: { outDir: "out", target: "es2023" } });
  const assets = join(project, name, "out", "assets");
  const files = (await readdir(assets)).filter((file) => file.endsWith(".js"));
  const first = await loadedBy(
    join(
      assets,
      files.find((file) => file.startsWith("index-"))!,
    ),
  );
  const later = await Promise.all(
    files
      .map((file) => join(assets, file))
      .filter((file) => !first.has(file))
      .map((file) => readFile(file, "utf8")),
  );
  return { first: [...first.values()].join("\n"), later: later.join("\n") };
}

/** A module and all that it imports, but for what it imports when it runs: texts by path. */
async function loadedBy(path: string, loaded = new Map<string, string>()): Promise<Map<string, string>> {
  const text = await readFile(path, "utf8");
  loaded.set(path, text);
  for (const [, from, alone] of text.matchAll(/\b(?:from|import)"(\.{1,2}\/[^"]+)"|\bimport\s*"(\.{1,2}\/[^"]+)"/g)) {
    const next = join(path, "..", from ?? alone!);
    if (!loaded.has(next)) await loadedBy(next, loaded);
  }
  return loaded;
}

const kilobytes = (...texts: (string | Buffer)[]): number =>
  texts.reduce((sum, text) => sum + gzipSync(text, { level: 9 }).length, 0) / 1000;

describe("in a Vite app", () => {
  it("leaves the ONNX reader out unless it is imported", async () => {
    const used = `import { VectorField, mlp } from "deldot"; globalThis.result = [VectorField, mlp];`;
    const [without, withReader] = [
      await bundle("plain", used),
      await bundle("onnx", `${used} import { parseOnnx } from "deldot"; globalThis.read = parseOnnx;`),
    ];
    // Not toContain: its message would be the whole script.
    for (const text of ["onnx: ", "the graph has no inputs"]) {
      expect((without.first + without.later).includes(text), text).toBe(false);
      expect((withReader.first + withReader.later).includes(text), text).toBe(true);
    }
    // How Vite stands in for what a browser does not have.
    expect((withReader.first + withReader.later).includes("browser-external")).toBe(false);
  });

  it("loads less than 98 kB gzipped at once for everything but the ONNX reader, and 13 kB when kernels are tuned", async () => {
    const names = Object.keys(await import("../src/index.js"));
    const importing = (wanted: readonly string[]): string =>
      `import { ${wanted.join(", ")} } from "deldot"; globalThis.result = [${wanted.join(", ")}];`;
    const others = names.filter((name) => name !== "parseOnnx");
    expect(others.length).toBe(names.length - 1);
    const main = await bundle("main", importing(others));
    const all = await bundle("all", importing(names));
    const unbundled = kilobytes(...(await loadedBy(join(project, "node_modules/deldot/dist/index.js"))).values());
    const print = (size: number): string => `${size.toFixed(1)} kB`;
    const [first, later, withReader] = [main.first, main.later, all.first].map((text) => kilobytes(text)) as [number, number, number];
    console.log(
      `gzipped: all but parseOnnx ${print(first)}, when kernels are tuned ${print(later)}; with parseOnnx ${print(withReader)}; ` +
        `dist/index.js and what it loads ${print(unbundled)}`,
    );
    expect(first).toBeLessThan(98);
    expect(later).toBeLessThan(13);
    expect(withReader).toBeLessThan(127);
    expect(unbundled).toBeLessThan(132);
  });
});

/** Evaluates a field on the device of whatever page or worker runs it. */
const checkOf = (from: string): string => `
import { evaluateReference, mlp, VectorField } from "${from}";
export async function check() {
  let n = 0;
  const numbers = (count) => Array.from({ length: count }, () => Math.sin(++n * n));
  const layer = (rows, columns) => ({ weight: { data: numbers(rows * columns), shape: [rows, columns] }, bias: numbers(rows) });
  const network = mlp({ layers: [layer(16, 4), layer(16, 16), layer(3, 16)], activation: "silu" });
  const points = Float32Array.from(numbers(3 * 100));
  const adapter = await navigator.gpu.requestAdapter();
  const device = await adapter.requestDevice();
  const field = await VectorField.create(device, network);
  const { method, value, divergence } = await field.evaluate(points, { context: 0.5 });
  const expected = evaluateReference(network, points, { context: 0.5, outputs: ["value", "divergence", "diagonal"] });
  device.destroy();
  const plain = { method, value, divergence, expected: expected.divergence, diagonal: expected.diagonal };
  return Object.fromEntries(Object.entries(plain).map(([name, it]) => [name, typeof it === "string" ? it : Array.from(it)]));
}
`;

describe.skipIf(!hasBrowser)("in a browser", () => {
  let opened: { browser: Browser; close: () => Promise<void> };
  let served: { origin: string; close: () => void };

  beforeAll(async () => {
    [opened, served] = await Promise.all([openBrowser(), serve(project)]);
  });
  afterAll(async () => {
    served?.close();
    await opened?.close();
  });

  /** Opens a page that puts what check() gives into globalThis.result, and holds it to the reference. */
  async function expectPage(path: string): Promise<void> {
    const page = await opened.browser.newPage();
    const complaints: string[] = [];
    page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("requestfailed", (request) => complaints.push(`${request.url()} failed`));
    await page.goto(served.origin + path);
    await page.waitForFunction("globalThis.result !== undefined").catch((error: unknown) => {
      throw new Error(`${path} gave nothing: ${complaints.join("; ")}`, { cause: error });
    });
    const { method, divergence, expected, diagonal } = (await page.evaluate("globalThis.result")) as {
      method: string;
      divergence: number[];
      expected: number[];
      diagonal: number[];
    };
    await page.close();
    expect(complaints).toEqual([]);
    expect(method).toBe("cyclic");
    const scale = expected.map((_, i) => diagonal.slice(3 * i, 3 * i + 3).reduce((sum, term) => sum + Math.abs(term), 0));
    expect(expected.length).toBe(100);
    expectClose(divergence, expected, scale, { label: "divergence" });
  }

  it("runs in a page through an import map, with no bundler", async () => {
    await write("map/check.js", checkOf("deldot"));
    await write("map/main.js", `import { check } from "./check.js"; globalThis.result = await check();`);
    const map = JSON.stringify({ imports: { deldot: "/node_modules/deldot/dist/index.js" } });
    await write("map/index.html", `<!doctype html><script type="importmap">${map}</script><script type="module" src="./main.js"></script>`);
    await expectPage("/map/index.html");
  });

  it("runs in a module worker", async () => {
    await write("worker/check.js", checkOf("/node_modules/deldot/dist/index.js"));
    await write("worker/worker.js", `import { check } from "./check.js"; postMessage(await check());`);
    await write(
      "worker/main.js",
      `const worker = new Worker("./worker.js", { type: "module" });
      worker.onmessage = ({ data }) => (globalThis.result = data);
      worker.onerror = ({ message }) => console.error(message);`,
    );
    await write("worker/index.html", `<!doctype html><script type="module" src="./main.js"></script>`);
    await expectPage("/worker/index.html");
  });

  it("runs as an app that Vite built", async () => {
    await write("app/check.js", checkOf("deldot"));
    const script = await bundle("app", `import { check } from "./check.js"; check().then((result) => (globalThis.result = result));`);
    expect((script.first + script.later).includes("onnx: ")).toBe(false);
    await write("app/out/index.html", (await readFile(join(project, "app/out/index.html"), "utf8")).replaceAll('"/assets/', '"./assets/'));
    await expectPage("/app/out/index.html");
  });
});
