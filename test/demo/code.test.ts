/** The code that the page gives is checked by TypeScript, run in Node, in a browser and by a shell, and what it prints compared with float64. */
import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { decode } from "fast-png";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { codeFor, fileOf, GRID, weightsOf, type Code, type FieldSource } from "../../demo/src/fields/code.js";
import { randomNetwork } from "../../demo/src/fields/shelf.js";
import { axesPlane, gridPoints, randomPlane, type Plane } from "../../demo/src/base/plane.js";
import { pick, sourceOf } from "../../demo/src/base/quantity.js";
import { parseFormula } from "../../demo/src/fields/formula.js";
import { initialState, type State } from "../../demo/src/base/state.js";
import { firstNetwork } from "../../demo/src/training/trainer.js";
import {
  activationNames,
  evaluateReference,
  logProbReference,
  parametersOf,
  parseOnnx,
  parseSafetensors,
  type Network,
  type Output,
} from "../../src/index.js";
import { readNpy } from "../../src/node/files/npy.js";
import { colourOf, heatmapLayout } from "../../src/node/heatmap.js";
import { encodeTensors } from "../../src/tensorFile.js";
import { hasBrowser, openBrowser } from "../browser.js";
import { expectClose } from "../close.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);
const load = (path: string): Promise<Uint8Array> => readFile(join(root, path));

interface Case {
  readonly name: string;
  readonly source: FieldSource;
  readonly network: Network;
  /** What lies beside the code. */
  readonly files: Readonly<Record<string, Uint8Array>>;
  readonly state: State;
  readonly plane: Plane;
}

/** A state_dict without metadata, one column of its first weight time's. */
const quiet = encodeTensors(
  {},
  [
    [8, 3],
    [2, 8],
  ].map((shape, layer) => ({
    name: `${2 * layer}.weight`,
    shape,
    numbers: Float32Array.from({ length: shape[0]! * shape[1]! }, (_, index) => Math.sin(index + layer)),
  })),
);

const cases: Case[] = [];

function add(
  name: string,
  source: FieldSource,
  network: Network,
  files: Case["files"],
  part: Partial<State>,
  plane = axesPlane(network.stateSize, 0, 1, []),
): void {
  const state: State = { ...initialState, context: [], layers: ["div"], contour: false, scale: 3, ...part };
  cases.push({ name, source, network, files, state, plane });
}

const shipped = async (name: string): Promise<readonly [FieldSource, Network, Case["files"]]> => {
  const bytes = await load(`demo/models/${name}.safetensors`);
  const file = `${name}.safetensors`;
  return [{ kind: "safetensors", file, options: {} }, parseSafetensors(bytes), { [file]: bytes }];
};

add("a flow at a time", ...(await shipped("two-moons-flow")), { context: [0.9], view: { a: 0.1 + 0.2, b: -0.5, width: 4 } });
{
  const [options, file] = [{ activation: "tanh", contextColumns: "last" } as const, "timed.safetensors"];
  const source: FieldSource = { kind: "safetensors", file, options };
  // Soon after the noise: its paths are short.
  const part = { context: [0.125], layers: ["density"] as const, view: { a: 0.5, b: 0, width: 5 } };
  add("the density of a flow at a time", source, parseSafetensors(quiet, options), { [file]: quiet }, part);
}
const rest = [0, -0.5, 0];
const [lorenz, xz] = [await shipped("lorenz"), { plane: { kind: "axes", i: 0, j: 2, rest }, view: { a: 0, b: 2.5, width: 5 } } as const];
const lorenzPlane = axesPlane(3, 0, 2, rest);
add(
  "two of three coordinates, with arrows and contour",
  ...lorenz,
  { ...xz, scale: 20, layers: ["div", "arrows"], contour: true },
  lorenzPlane,
);
add("|f| on two of three coordinates", ...lorenz, { ...xz, quantity: "magnitude" }, lorenzPlane);
{
  const source: FieldSource = { kind: "formula", text: "sin(x)*y, x - exp(-y*y)" };
  const network = parseFormula(source.text);
  add("a formula", source, network, { [fileOf(source)]: weightsOf(source, network) }, { view: { a: 0.5, b: 0, width: 3 } });
}
{
  const source: FieldSource = { kind: "formula", text: "x*t - y, sin(t*y)*x" };
  const network = parseFormula(source.text);
  add("a formula of time", source, network, { [fileOf(source)]: weightsOf(source, network) }, { context: [0.3] });
}
{
  const source: FieldSource = { kind: "drawn", points: 60 };
  const network = firstNetwork("flow", 2);
  add("a network that was drawn", source, network, { [fileOf(source)]: weightsOf(source, network) }, { context: [0.75], scale: 0.3 });
}
{
  const options = { activation: "softplus", contextColumns: "first" } as const;
  const file = "- what's mine & 100%.safetensors";
  add(
    "a dropped state_dict and the answers",
    { kind: "safetensors", file, options },
    parseSafetensors(quiet, options),
    { [file]: quiet },
    {
      context: [-0.5],
      // Upside down, as it were.
      plane: { kind: "axes", i: 1, j: 0, rest: [] },
    },
    axesPlane(2, 1, 0, []),
  );
}
{
  const [model, data] = [await load("test/cases/external/model.onnx"), await load("test/cases/external/model.onnx.data")];
  const network = parseOnnx(model, { externalData: new Map([["model.onnx.data", data]]) });
  const source: FieldSource = { kind: "onnx", file: "mine.onnx", beside: ["model.onnx.data"] };
  add(
    "∂f_1/∂x_1 of a dropped .onnx with its weights beside it",
    source,
    network,
    { "mine.onnx": model, "model.onnx.data": data },
    {
      quantity: "d1",
    },
  );
}
{
  const random = { ...initialState.random, seed: 5, dimensions: 3, activation: "gelu" } as const;
  const network = randomNetwork(random);
  const source: FieldSource = { kind: "random", random };
  add(
    "f_2 of a random network on a random plane",
    source,
    network,
    { [fileOf(source)]: weightsOf(source, network) },
    {
      quantity: "f2",
      plane: { kind: "random", seed: 3 },
    },
    randomPlane([0.25, 0, 0], 3),
  );
}

/** Some points of the picture; not of one column alone. */
const sampled = Array.from({ length: Math.floor(GRID ** 2 / 61) }, (_, index) => 61 * index);

/** The numbers of the picture in float64 at those points, and the size of their terms. */
function expected({ network, state, plane }: Case): { numbers: number[]; scale: number[] } {
  const d = network.stateSize;
  const points = gridPoints(plane, state.view, { columns: GRID, rows: GRID }, 1);
  const some = Float32Array.from(sampled.flatMap((index) => Array.from(points.subarray(index * d, (index + 1) * d))));
  if (isDensity({ state })) {
    const logs = Array.from(logProbReference(network, some, { dataAt: state.context[0]! }).logProb);
    // Paths are followed with a tolerance of 1e-5.
    return { numbers: logs, scale: logs.map((log) => 10 + 10 * Math.abs(log)) };
  }
  const source = sourceOf(state.quantity, d);
  const outputs: Output[] = ["value", "divergence", "diagonal"];
  const results = evaluateReference(network, some, { context: state.context.length > 0 ? state.context : null, outputs });
  const terms = (of: Float64Array, at: number): number => of.subarray(at * d, (at + 1) * d).reduce((sum, term) => sum + Math.abs(term), 0);
  return {
    numbers: sampled.map((_, at) => pick(results[source.output]!, source, at)),
    scale: sampled.map((_, at) => terms(results.diagonal!, at) + (source.output === "value" ? terms(results.value!, at) : 0)),
  };
}

function expectPicture(printed: ArrayLike<number>, one: Case): void {
  expect(printed.length).toBe(GRID ** 2);
  const { numbers, scale } = expected(one);
  expectClose(
    sampled.map((index) => printed[index]!),
    numbers,
    scale,
  );
}

let folder: string;
const codes: Code[] = cases.map(({ source, state, plane }) => codeFor(source, state, plane, state.scale));
const folderOf = (one: Case): string => join(folder, String(cases.indexOf(one)));

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "deldot-code-"));
  await mkdir(join(folder, "node_modules"));
  await symlink(root, join(folder, "node_modules/deldot"));
  for (const name of ["@webgpu", "@types"]) await symlink(join(root, "node_modules", name), join(folder, "node_modules", name));
  await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
  // What is printed, whole.
  await writeFile(
    join(folder, "print.js"),
    "const { log } = console; console.log = (numbers) => log(JSON.stringify(Array.from(numbers)));",
  );
  await mkdir(join(folder, "bin"));
  await writeFile(join(folder, "bin/npx"), `#!/bin/sh\nshift\nexec "${process.execPath}" "${join(root, "dist/cli.js")}" "$@"\n`);
  await chmod(join(folder, "bin/npx"), 0o755);
  for (const [index, one] of cases.entries()) {
    await mkdir(folderOf(one));
    const { browser, node, shell } = codes[index]!;
    // As they are: TypeScript that is JavaScript, too.
    const texts = { "browser.ts": browser, "browser.js": browser, "node.ts": node, "node.js": node, "code.sh": shell };
    for (const [name, content] of Object.entries({ ...texts, ...one.files })) await writeFile(join(folderOf(one), name), content);
  }
});
afterAll(() => rm(folder, { recursive: true }));

test("a random network's weights in a file are the network, whatever its activation", () => {
  for (const activation of activationNames) {
    const random = { ...initialState.random, width: 3, activation };
    const network = randomNetwork(random);
    const read = parseSafetensors(weightsOf({ kind: "random", random }, network));
    expect(parametersOf(read)).toEqual(parametersOf(network));
    expect(read.operations).toEqual(network.operations);
  }
});

test.for([
  ["browser", ["ES2023", "DOM"], ["@webgpu/types"]],
  ["node", ["ES2023"], ["node"]],
] as const)("the code for %s passes a strict TypeScript", async ([name, lib, types]) => {
  const compilerOptions = {
    target: "es2023",
    module: "nodenext",
    lib,
    types,
    strict: true,
    noUncheckedIndexedAccess: true,
    exactOptionalPropertyTypes: true,
    noUnusedLocals: true,
    skipLibCheck: true,
    noEmit: true,
  };
  await writeFile(join(folder, `tsconfig.${name}.json`), JSON.stringify({ compilerOptions, include: [`*/${name}.ts`] }));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const { stdout } = await run(process.execPath, [tsc, "-p", `tsconfig.${name}.json`, "--listFilesOnly"], { cwd: folder });
  expect(stdout.split("\n").filter((line) => line.endsWith(`/${name}.ts`))).toHaveLength(cases.length);
  const checked = await run(process.execPath, [tsc, "-p", `tsconfig.${name}.json`], { cwd: folder }).catch(
    (error: { stdout: string }) => error,
  );
  expect(checked.stdout).toBe("");
});

test.for(cases)("in Node: $name", async (one) => {
  const parameters = ["--import", join(folder, "print.js"), "node.js"];
  const { stdout } = await run(process.execPath, parameters, { cwd: folderOf(one), maxBuffer: 2 ** 26 });
  expectPicture(JSON.parse(stdout) as number[], one);
});

function isDensity({ state }: Pick<Case, "state">): boolean {
  return state.layers.includes("density");
}

const isDrawn = ({ state }: Case): boolean => state.quantity === "divergence" && state.plane.kind === "axes";

/** Runs the shell's code. */
async function inShell(one: Case): Promise<string> {
  const env = { ...process.env, PATH: `${join(folder, "bin")}:${process.env["PATH"]}` };
  return (await run("sh", ["-e", "code.sh"], { cwd: folderOf(one), env })).stdout;
}

test.for(cases.filter(isDrawn))("drawn on the command line: $name", async (one) => {
  const stdout = await inShell(one);
  const { numbers } = expected(one);
  const { view, scale, layers } = one.state;
  const arrows = layers.includes("arrows");
  const [minimum, maximum] = ["minimum", "maximum"].map((name) => Number(new RegExp(`^${name} (\\S+)`, "m").exec(stdout)![1]));
  expect(minimum).toBeLessThan(Math.min(...numbers) + 1e-3);
  expect(maximum).toBeGreaterThan(Math.max(...numbers) - 1e-3);
  const { data, width, channels } = decode(await readFile(join(folderOf(one), "heatmap.png")));
  const axis = (middle: number) => ({ name: "x", from: middle - view.width / 2, to: middle + view.width / 2 });
  const colours = isDensity(one)
    ? ({ kind: "sequential", from: maximum! - 10, to: maximum! } as const)
    : ({ kind: "diverging", limit: scale! } as const);
  const subtitle = one.network.contextSize > 0 || one.network.stateSize > 2 ? "context and others" : undefined;
  const { left, top } = heatmapLayout({
    size: GRID,
    values: new Float32Array(),
    x: axis(view.a),
    y: axis(view.b),
    title: "",
    subtitle,
    colours,
  });
  const right = sampled.filter((index, at) => {
    const pixel = ((top + Math.floor(index / GRID)) * width + left + (index % GRID)) * channels;
    return colourOf(numbers[at]!, colours).every((part, channel) => Math.abs(part - data[pixel + channel]!) <= 3);
  });
  // Arrows and contour are over some of them.
  if (arrows) expect(right.length).toBeLessThan(sampled.length);
  expect(right.length).toBeGreaterThan((arrows ? 0.7 : 0.999) * sampled.length);
});

test.for(cases.filter((one) => !isDrawn(one)))("in numbers on the command line: $name", async (one) => {
  await inShell(one);
  const [, file] = /numpy\.load\("(.*?)"\)/.exec(codes[cases.indexOf(one)]!.shell)!;
  const [, column] = /\[:, (\d+)\]/.exec(codes[cases.indexOf(one)]!.shell) ?? [];
  const { data, shape } = readNpy(await readFile(join(folderOf(one), file!)));
  const stride = shape[1] ?? 1;
  const source = { output: "value", stride, component: column === undefined ? -1 : Number(column) } as const;
  expectPicture(
    Array.from({ length: shape[0]! }, (_, index) => pick(data, source, index)),
    one,
  );
});

describe.skipIf(!hasBrowser)("in a browser", () => {
  let opened: Awaited<ReturnType<typeof openBrowser>>;
  let server: Server;
  const page = `<!doctype html><link rel="icon" href="data:," />
<script type="importmap">{ "imports": { "deldot": "/deldot/index.js" } }</script>
<script>console.log = (numbers) => (globalThis.printed = Array.from(numbers));</script>
<script type="module" src="browser.js"></script>`;
  beforeAll(async () => {
    opened = await openBrowser();
    server = createServer((request, response) => {
      const path = decodeURIComponent(new URL(request.url!, "http://localhost").pathname);
      const type = { "content-type": extname(path) === ".js" ? "text/javascript" : "application/octet-stream" };
      if (path.endsWith("/")) return void response.writeHead(200, { "content-type": "text/html" }).end(page);
      readFile(path.startsWith("/deldot/") ? join(root, "dist", path.slice(8)) : join(folder, path)).then(
        (file) => response.writeHead(200, type).end(file),
        () => response.writeHead(404).end(),
      );
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });
  afterAll(async () => {
    server?.close();
    await opened?.close();
  });

  test.for(cases)("$name", async (one) => {
    const tab = await opened.browser.newPage();
    const failed = new Promise<never>((_, reject) => tab.on("pageerror", reject));
    await tab.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/${cases.indexOf(one)}/`);
    await Promise.race([failed, tab.waitForFunction("globalThis.printed !== undefined")]);
    expectPicture(await tab.evaluate("globalThis.printed"), one);
    await tab.close();
  });
});
