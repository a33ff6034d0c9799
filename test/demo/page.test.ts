import { mkdtemp, readFile, rm } from "node:fs/promises";
import type { Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AxeBuilder } from "@axe-core/playwright";
import { decode } from "fast-png";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { colourOf } from "../../demo/src/colour.js";
import { shippedFields } from "../../demo/src/fields.js";
import { fromHash, initialState, toHash, type State } from "../../demo/src/state.js";
import { evaluateReference, parseSafetensors, type Network } from "../../src/index.js";
import { hasBrowser, openBrowser } from "../browser.js";
import { forget, painted, readPainted, serveSite, watch, type EngineName } from "./site.js";

const models = new URL("../../demo/models/", import.meta.url);
const load = async (name: string): Promise<Network> => parseSafetensors(await readFile(new URL(`${name}.safetensors`, models)));

let browser: Browser;
let close: () => Promise<void>;
let server: Server;
let address: string;
let isolated: string;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "deldot-site-"));
  ({ server, address, isolated } = await serveSite(folder));
  if (hasBrowser) ({ browser, close } = await openBrowser());
});
afterAll(async () => {
  await close?.();
  await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true });
});

/** Nothing over the colours, and a small page: software GPUs paint it. */
const PLAIN: Partial<State> = { contour: false, arrows: false };
const SIZE = { width: 900, height: 700 };

interface Options {
  /** What the page is told to compute by; null: nothing, so that it chooses. */
  readonly engine?: EngineName | null;
  readonly site?: string;
  readonly init?: () => void;
  /** Before the page is gone to. */
  readonly prepare?: (page: Page) => Promise<void>;
}

async function open(state: Partial<State> | null, options: Options = {}): Promise<{ page: Page; faults: string[]; requests: string[] }> {
  const { engine = "webgpu", site = address } = options;
  const context = await browser.newContext({ viewport: SIZE, acceptDownloads: true });
  const page = await context.newPage();
  const faults = watch(page, site);
  const requests: string[] = [];
  page.on("request", (request) => requests.push(request.url()));
  if (options.init) await page.addInitScript(options.init);
  await options.prepare?.(page);
  await page.goto(`${site}${engine ? `?engine=${engine}` : ""}${state ? `#${toHash({ ...initialState, ...state })}` : ""}`);
  return { page, faults, requests };
}

/** The state that a shipped field starts with. */
function stateOf(field: string): Partial<State> {
  const { context, view, plane } = shippedFields[field]!;
  return { ...PLAIN, field, context, view, plane };
}

/** Compares pixels at the middles of the grid's cells with colours of the float64 divergence there. */
async function expectColours(page: Page, network: Network, context: readonly number[]): Promise<void> {
  const { scale, panels, columns, rows, plane, view } = await readPainted(page);
  const [panel] = panels;
  const box = (await page.locator("#overlay").boundingBox())!;
  const png = decode(
    await page.screenshot({ clip: { x: box.x + panel!.left, y: box.y + panel!.top, width: panel!.width, height: panel!.height } }),
  );
  const tall = (view.width * panel!.height) / panel!.width;
  const cells = Array.from({ length: 120 }, (_, index) => ({
    column: 1 + ((index * 37) % (columns - 2)),
    row: 1 + ((index * 53) % (rows - 2)),
  }));
  // The pixel in whose middle a cell's middle lies the nearest.
  const places = cells.map(({ column, row }) => ({
    x: Math.floor(((column + 0.5) / columns) * panel!.width),
    y: Math.floor(((row + 0.5) / rows) * panel!.height),
  }));
  const points = Float32Array.from(
    places.flatMap(({ x, y }) => {
      const a = view.a + ((x + 0.5) / panel!.width - 0.5) * view.width;
      const b = view.b - ((y + 0.5) / panel!.height - 0.5) * tall;
      return plane.origin.map((origin, k) => origin + a * plane.u[k]! + b * plane.v[k]!);
    }),
  );
  const { divergence } = evaluateReference(network, points, { context: context.length > 0 ? context : null, outputs: ["divergence"] });
  const differences = places.map(({ x, y }, index) => {
    const at = (y * png.width + x) * png.channels;
    const expected = colourOf(divergence![index]!, scale, "diverging");
    return Math.max(...[0, 1, 2].map((channel) => Math.abs(png.data[at + channel]! - expected[channel]!)));
  });
  // Between the cells' middles the picture interpolates, so steep places may be off by some shades.
  const sorted = differences.toSorted((a, b) => a - b);
  expect(sorted[Math.floor(sorted.length / 2)]).toBeLessThanOrEqual(2);
  expect(sorted[Math.floor(sorted.length * 0.95)]).toBeLessThanOrEqual(12);
  // Not one colour everywhere, unless the truth is.
  expect(new Set(Array.from(divergence!, (value) => colourOf(value, scale, "diverging").join())).size).toBeGreaterThan(1);
}

test("a link holds the whole state, and a damaged one is none", () => {
  const state: State = { ...initialState, field: "lorenz", quantity: "d2", pin: [1, -0.5], scale: 3, plane: { kind: "random", seed: 4 } };
  expect(fromHash(`#${toHash(state)}`)).toEqual(state);
  for (const hash of ["", "#nonsense", "#%", "#12", "#%7B%22quantity%22%3A%22x%22%7D"]) expect(fromHash(hash)).toBeNull();
  const link = (state: unknown): string => `#${encodeURIComponent(JSON.stringify(state))}`;
  expect(fromHash(link({ view: { a: "x" } }))).toEqual(initialState);
  for (const field of ["file", "constructor", "nonsense"]) expect(fromHash(link({ field }))).toBeNull();
  const hostile = { ...initialState.random, dimensions: 1e6, width: 1e9, depth: -3, gain: 1e300, activation: "x" };
  expect(fromHash(link({ random: hostile }))?.random).toEqual({ ...initialState.random, dimensions: 64, width: 512, depth: 1, gain: 10 });
  expect(fromHash(link({ view: { a: 1e300, b: 0, width: -1 } }))?.view).toEqual({ a: 1e6, b: 0, width: 1e-5 });
  expect(Object.keys(shippedFields).every((field) => fromHash(link({ field }))?.field === field)).toBe(true);
});

describe.skipIf(!hasBrowser)("in a browser", () => {
  test("shows a complete heatmap soon after loading, without errors or requests elsewhere", async () => {
    const { page, faults } = await open(null);
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#canvas")?.dataset["columns"] !== undefined);
    await painted(page);
    expect(await page.textContent("#status")).toMatch(/^∇·f at \d+ × \d+ points in .* on /);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  const engines = ["webgpu", "onnxruntime"] as const;
  const everyField = Object.keys(shippedFields).flatMap((field) => engines.map((engine) => [field, engine] as const));
  test.for(everyField)("%s by %s: colours are those of the float64 divergence", async ([field, engine]) => {
    const { page, faults } = await open(stateOf(field), { engine });
    await painted(page, engine);
    await expectColours(page, await load(field), shippedFields[field]!.context);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("colours stay right after panning, zooming and a change of time", async () => {
    const network = await load("two-moons-flow");
    const { page, faults } = await open(stateOf("two-moons-flow"));
    await painted(page);
    const before = await readPainted(page);
    const box = (await page.locator("#overlay").boundingBox())!;
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    await forget(page);
    await page.mouse.move(x, y);
    await page.mouse.down();
    await page.mouse.move(x + 60, y - 40, { steps: 4 });
    await page.mouse.up();
    await painted(page);
    await forget(page);
    await page.mouse.wheel(0, -300);
    await painted(page);
    const after = await readPainted(page);
    expect(after.view.width).toBeLessThan(0.8 * before.view.width);
    expect(after.view.a).toBeLessThan(before.view.a);
    await expectColours(page, network, [0.9]);
    await forget(page);
    await page.locator("#t").fill("0.3");
    await painted(page);
    await expectColours(page, network, [0.3]);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("two fingers zoom in around what is between them", async () => {
    const { page, faults } = await open(stateOf("van-der-pol"));
    await painted(page);
    const before = await readPainted(page);
    const box = (await page.locator("#overlay").boundingBox())!;
    const { left, top, width, height } = before.panels[0]!;
    const [x, y] = [box.x + left + width / 2, box.y + top + height / 2];
    const fingers = (apart: number): { x: number; y: number; id: number }[] => [
      { x: x - apart, y, id: 1 },
      { x: x + apart, y, id: 2 },
    ];
    const session = await page.context().newCDPSession(page);
    await forget(page);
    await session.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: fingers(40) });
    for (const apart of [50, 60, 70, 80])
      await session.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: fingers(apart) });
    await session.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
    await painted(page);
    const after = await readPainted(page);
    expect(after.view.width / before.view.width).toBeCloseTo(0.5, 1);
    expect(Math.hypot(after.view.a - before.view.a, after.view.b - before.view.b)).toBeLessThan(0.1 * before.view.width);
    await expectColours(page, await load("van-der-pol"), []);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(engines)("the probe's numbers by %s are the field's, and a pinned point has its float64 value beside it", async (engine) => {
    const network = await load("lorenz");
    const { page } = await open({ ...stateOf("lorenz"), pin: [0.5, 1.5] }, { engine });
    await painted(page, engine);
    const read = (key: string): Promise<string | null> => page.textContent(`[data-probe="${key}"]`);
    await page.waitForSelector('[data-probe="exact"]');
    const { divergence, value, jacobian } = evaluateReference(network, [0.5, 0, 1.5], { outputs: ["divergence", "value", "jacobian"] });
    expect(Number(await read("exact"))).toBeCloseTo(divergence![0]!, 7);
    expect(Number(await read("divergence"))).toBeCloseTo(divergence![0]!, 3);
    expect(await read("x")).toBe("(0.5, 0, 1.5)");
    const numbers = (text: string | null): number[] => text!.slice(1, -1).split(", ").map(Number);
    numbers(await read("value")).forEach((number, k) => expect(number).toBeCloseTo(value![k]!, 2));
    numbers(await read("jacobian 1")).forEach((number, k) => expect(number).toBeCloseTo(jacobian![3 + k]!, 2));
    expect(Number.parseFloat((await read("error"))!)).toBeLessThan(1e-3);
    await page.context().close();
  });

  test("takes dropped files, asks what they leave open, and says what is wrong with the others", async () => {
    const { page, faults } = await open({ ...PLAIN });
    await painted(page);
    const drop = async (name: string, bytes: Uint8Array, ...beside: [string, Uint8Array][]): Promise<void> => {
      const transfer = await page.evaluateHandle(
        (files) => {
          const data = new DataTransfer();
          for (const [name, text] of files) data.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
          return data;
        },
        [...beside, [name, bytes] as const].map(([name, bytes]) => [name, Buffer.from(bytes).toString("base64")] as const),
      );
      await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
    };
    const problem = page.locator("#problem");
    const good = await readFile(new URL("van-der-pol.onnx", models));
    await forget(page);
    await drop("mine.onnx", good);
    await painted(page);
    expect(await page.inputValue("#field")).toBe("file");
    await expectColours(page, await load("van-der-pol"), []);

    // Weights in another file, which has to come along.
    const apart = new URL("../cases/external/", import.meta.url);
    const [model, weights] = await Promise.all(["model.onnx", "model.onnx.data"].map((name) => readFile(new URL(name, apart))));
    await drop("apart.onnx", model!);
    await page.waitForFunction(() =>
      document.querySelector("#problem")!.textContent.endsWith('"model.onnx.data"; expected it dropped together with the model'),
    );
    await forget(page);
    await drop("apart.onnx", model!, ["model.onnx.data", weights!]);
    await painted(page);
    expect(await page.textContent("#about")).toMatch(/^apart\.onnx; the state is the input "x" \[batch, 3\], the only input; /);
    // Whoever takes the code away has what the page was told.
    const code = (): Promise<string | null> => page.textContent("#code");
    expect(await code()).toContain('externalData: new Map([["model.onnx.data", ');

    await drop("cut.onnx", good.subarray(0, 400));
    await problem.waitFor({ state: "visible" });
    expect(await problem.textContent()).toMatch(/^cut\.onnx: /);
    await drop("notes.txt", new TextEncoder().encode("hello"));
    await page.waitForFunction(() => /notes\.txt is neither/.test(document.querySelector("#problem")!.textContent));
    await drop("text.safetensors", new TextEncoder().encode("hello, this is no safetensors file"));
    await page.waitForFunction(() => document.querySelector("#problem")!.textContent.startsWith("text.safetensors: "));
    // R^2 -> R^3.
    await drop("tall.safetensors", tensors({ "0.weight": [4, 2], "2.weight": [3, 4] }, { activation: "tanh" }));
    await page.waitForFunction(() => document.querySelector("#problem")!.textContent.startsWith("tall.safetensors: "));

    await drop("quiet.safetensors", tensors({ "0.weight": [8, 2], "2.weight": [2, 8] }, {}));
    await page.locator("#question").waitFor({ state: "visible" });
    await page.selectOption("#file-activation", "softplus");
    await forget(page);
    await page.click("#file-use");
    await painted(page);
    expect(await problem.isVisible()).toBe(false);
    expect(await page.textContent("#about")).toMatch(
      /^quiet\.safetensors; read as a chain of 2 layers: 0 -> 2; a state_dict does not show skips/,
    );
    expect(await code()).toContain(', { activation: "softplus" })');
    // Three inputs, two outputs: which of them is the context?
    const timed = tensors({ "0.weight": [8, 3], "2.weight": [2, 8] }, { activation: "tanh" });
    await drop("timed.safetensors", timed);
    await page.locator("#file-columns").waitFor({ state: "visible" });
    expect(await page.isVisible("#file-activation")).toBe(false);
    await page.selectOption("#file-columns", "first");
    await forget(page);
    await page.click("#file-use");
    await painted(page);
    await page.uncheck("#contour");
    await page.uncheck("#arrows");
    await forget(page);
    await page.click("#reset");
    await painted(page);
    await expectColours(page, parseSafetensors(timed, { contextColumns: "first" }), [0.5]);
    expect(await code()).toContain(', { contextColumns: "first" })');
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(engines)("the comparison's exact methods by %s are right and the mistake is not", async (engine) => {
    const { page } = await open({ ...PLAIN, field: "van-der-pol", context: [], view: { a: 0, b: 0, width: 6 } }, { engine });
    await painted(page, engine);
    await page.click("#compare");
    await page.locator("#comparison[data-state=done]").waitFor({ timeout: 60_000 });
    const rows = await page.$$eval("#comparison tbody tr", (all) =>
      all.map((row) => ({
        method: (row as HTMLElement).dataset["method"]!,
        worst: Number((row as HTMLTableRowElement).cells[4]!.textContent),
      })),
    );
    const worst = Object.fromEntries(rows.map(({ method, worst }) => [method, worst]));
    for (const method of ["tangent", "cyclic", "jacobian", "coordinate"]) expect(worst[method], method).toBeLessThan(2e-5);
    expect(worst["difference"]).toBeLessThan(0.05);
    expect(worst["hutchinson, 64 probes"]).toBeLessThan(worst["hutchinson, 1 probe"]!);
    expect(worst["ones"]).toBeGreaterThan(0.5);
    await page.context().close();
  });

  test("a link restores the page, and exports hold its numbers", async () => {
    const state = { ...PLAIN, field: "van-der-pol", context: [], view: { a: 0.5, b: -0.25, width: 4 }, pin: [1, 1] as const };
    const { page } = await open(state);
    await painted(page);
    await page.click("#copy-link");
    expect(fromHash(new URL(page.url()).hash)).toEqual({ ...initialState, ...state });
    const download = async (id: string): Promise<Buffer> => {
      const [file] = await Promise.all([page.waitForEvent("download"), page.click(id)]);
      return readFile(await file.path());
    };
    const lines = (await download("#save-csv")).toString().split("\n");
    expect(lines[0]).toBe("x0,x1,divergence");
    const rows = lines.slice(1).map((line) => line.split(",").map(Number));
    const some = rows.filter((_, index) => index % 4099 === 0);
    const { divergence } = evaluateReference(
      await load("van-der-pol"),
      some.flatMap(([a, b]) => [a!, b!]),
      { outputs: ["divergence"] },
    );
    some.forEach(([, , number], index) => expect(number).toBeCloseTo(divergence![index]!, 3));
    const npy = await download("#save-npy");
    const header = npy.subarray(10, 10 + npy.readUInt16LE(8)).toString();
    expect(npy.subarray(0, 6).toString("latin1")).toBe("\u0093NUMPY");
    const shape = /\((\d+), (\d+)\)/.exec(header)!.slice(1).map(Number);
    expect(npy.length).toBe(10 + npy.readUInt16LE(8) + 4 * shape[0]! * shape[1]!);
    expect(npy.readFloatLE(10 + npy.readUInt16LE(8))).toBeCloseTo(rows[0]![2]!, 5);
    const png = decode(await download("#save-png"));
    const { panels } = await readPainted(page);
    const at = 4 * ((panels[0]!.top + 5) * png.width + panels[0]!.left + 5);
    expect(png.channels).toBe(4);
    // Neither paper nor nothing: the corner of the picture.
    expect([...png.data.subarray(at, at + 3)]).not.toEqual([0, 0, 0]);
    expect([...png.data.subarray(at, at + 3)]).not.toEqual([...png.data.subarray(0, 3)]);
    expect(await page.textContent("#code")).toContain('parseSafetensors(new Uint8Array(await (await fetch("van-der-pol.safetensors"))');
    await page.context().close();
  });

  test("does not move about while it loads", async () => {
    for (const field of ["two-moons-flow", "lorenz"]) {
      const { page } = await open(stateOf(field), {
        init: () => {
          const shifts = ((globalThis as unknown as { shifts: number[] }).shifts = []) as number[];
          new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) shifts.push((entry as unknown as { value: number }).value);
          }).observe({ type: "layout-shift", buffered: true });
        },
      });
      await painted(page);
      const shifts = await page.evaluate(() => (globalThis as unknown as { shifts: number[] }).shifts);
      expect(await page.evaluate(() => PerformanceObserver.supportedEntryTypes)).toContain("layout-shift");
      // What the web's vitals call good is below 0.1.
      expect(shifts.reduce((sum, shift) => sum + shift, 0)).toBeLessThan(0.1);
      await page.context().close();
    }
  });

  test("without WebGPU, onnxruntime-web computes, and the page says so", async () => {
    const { page, faults, requests } = await open(stateOf("two-moons-flow"), {
      engine: null,
      init: () => Object.defineProperty(Navigator.prototype, "gpu", { get: () => undefined }),
    });
    await painted(page, "onnxruntime");
    expect(await page.textContent("#notice")).toMatch(/^Without a GPU \(this browser has no WebGPU\) this page computes on the CPU/);
    expect(await page.textContent("#status")).toMatch(/ on the CPU, by onnxruntime-web on one thread$/);
    expect(requests.filter((url) => url.endsWith(".wasm"))).toHaveLength(1);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("takes onnxruntime-web before an adapter in software, and as many threads as there are where a page may share memory", async () => {
    const { page, faults } = await open(stateOf("two-moons-flow"), { engine: null, site: isolated });
    await painted(page, "onnxruntime");
    expect(await page.textContent("#notice")).toMatch(/in software: .*swiftshader/i);
    const cores = await page.evaluate(() => navigator.hardwareConcurrency);
    const threads = cores === 1 ? "one thread" : `${Math.min(8, cores)} threads`;
    expect((await page.textContent("#status"))!.endsWith(` on the CPU, by onnxruntime-web on ${threads}`)).toBe(true);
    await expectColours(page, await load("two-moons-flow"), [0.9]);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("takes an adapter in hardware, and then nothing of onnxruntime-web is asked for", async () => {
    const { page, faults, requests } = await open(stateOf("two-moons-flow"), {
      engine: null,
      init: () =>
        Object.defineProperty(GPUAdapter.prototype, "info", { get: () => ({ vendor: "acme", architecture: "gpu", description: "" }) }),
    });
    await painted(page, "webgpu");
    expect(await page.textContent("#status")).toMatch(/ on acme gpu$/);
    expect(await page.isVisible("#notice")).toBe(false);
    expect(requests.filter((url) => /ort|onnx|wasm|cpuWorker/i.test(new URL(url).pathname))).toEqual([]);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("float64 serves until onnxruntime-web is there", async () => {
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => (release = resolve));
    const { page, faults } = await open(stateOf("lorenz"), {
      engine: "onnxruntime",
      prepare: async (page) => void (await page.route("**/*.wasm", async (route) => (await released, route.continue()))),
    });
    await painted(page, "reference");
    await forget(page);
    await page.selectOption("#field", "van-der-pol");
    await painted(page, "reference");
    const coarse = await readPainted(page);
    await page.uncheck("#contour");
    await page.uncheck("#arrows");
    release();
    await painted(page, "onnxruntime");
    expect((await readPainted(page)).columns).toBeGreaterThan(coarse.columns);
    await expectColours(page, await load("van-der-pol"), []);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("float64 serves where onnxruntime-web does not come", async () => {
    const { page, faults } = await open(stateOf("two-moons-flow"), {
      engine: "onnxruntime",
      prepare: async (page) => void (await page.route("**/*.wasm", (route) => route.abort())),
    });
    await painted(page, "reference");
    expect(await page.textContent("#status")).toMatch(/ on the CPU, in float64$/);
    await expectColours(page, await load("two-moons-flow"), [0.9]);
    // Another field is float64's as well, and not waited for.
    await forget(page);
    await page.selectOption("#field", "van-der-pol");
    await painted(page, "reference");
    expect(faults.filter((fault) => !/ERR_FAILED|wasm|ArrayBuffer instantiation/.test(fault))).toEqual([]);
    await page.context().close();
  });

  test("says so where a field is too large for the device", async () => {
    const { page } = await open(stateOf("two-moons-flow"), {
      // A device whose buffers are so small that the largest matrix of the digits does not fit.
      init: () => {
        const limits = Object.getOwnPropertyDescriptor(GPUDevice.prototype, "limits")!;
        Object.defineProperty(GPUDevice.prototype, "limits", {
          get(this: GPUDevice) {
            const real = limits.get!.call(this) as GPUSupportedLimits;
            return new Proxy(real, {
              get: (_, name) => (name === "maxStorageBufferBindingSize" ? 2 ** 16 : Reflect.get(real, name, real)),
            });
          },
        });
      },
    });
    await painted(page);
    await page.selectOption("#field", "digits-flow");
    await page.locator("#problem").waitFor({ state: "visible" });
    expect(await page.textContent("#problem")).toMatch(/the device allows 65536|bytes/);
    await page.context().close();
  });

  test("finds the GPU again after it was lost", async () => {
    const { page, faults } = await open(stateOf("two-moons-flow"), {
      init: () => {
        const request: (this: GPUAdapter, given?: GPUDeviceDescriptor) => Promise<GPUDevice> = Reflect.get(
          GPUAdapter.prototype,
          "requestDevice",
        );
        GPUAdapter.prototype.requestDevice = async function (given) {
          const device = await request.call(this, given);
          // A loss that the page did not ask for: destroy() alone would be its own doing.
          let lose: (info: GPUDeviceLostInfo) => void;
          const lost = new Promise<GPUDeviceLostInfo>((resolve) => (lose = resolve));
          Object.defineProperty(device, "lost", { value: lost });
          (globalThis as unknown as { loseDevice: () => void }).loseDevice = () => {
            device.destroy();
            lose({ reason: "unknown", message: "a test took it" } as GPUDeviceLostInfo);
          };
          return device;
        };
      },
    });
    await painted(page);
    await forget(page);
    await page.evaluate(() => (globalThis as unknown as { loseDevice: () => void }).loseDevice());
    await painted(page);
    expect(await page.textContent("#notice")).toMatch(/found again/);
    await expectColours(page, await load("two-moons-flow"), [0.9]);
    expect(faults.filter((fault) => !/lost|destroyed/i.test(fault))).toEqual([]);
    await page.context().close();
  });

  test("shows the field that was chosen last, however quickly, and in the midst of a film", async () => {
    const { page, faults } = await open(stateOf("two-moons-flow"));
    await painted(page);
    await page.click("#play");
    for (const field of ["lorenz", "digits-flow", "checkerboard-flow", "two-moons-flow", "van-der-pol"]) {
      await forget(page);
      await page.selectOption("#field", field);
    }
    await page.waitForFunction(() => document.querySelector("#about")!.textContent.includes("oscillator"));
    await forget(page);
    await page.click("#reset");
    await painted(page);
    await expectColours(page, await load("van-der-pol"), []);
    expect(await page.isVisible("#problem")).toBe(false);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("shows other quantities, and says where a number has no truth", async () => {
    const { page, faults } = await open({ ...stateOf("lorenz"), quantity: "magnitude" });
    await painted(page);
    const label = await page.getAttribute("#overlay", "aria-label");
    expect(label).toMatch(/^Heatmap of \|f\|/);
    expect(await page.locator("#panels-row").isVisible()).toBe(false);
    await forget(page);
    await page.selectOption("#quantity", "d1");
    await painted(page);
    // ∂f_1/∂x_1 = -1 of the Lorenz system; near it everywhere, so the scale is its size.
    expect((await readPainted(page)).scale).toBeGreaterThanOrEqual(1);
    expect((await readPainted(page)).scale).toBeLessThan(3);
    await forget(page);
    await page.selectOption("#quantity", "divergence");
    await page.selectOption("#panels", "all");
    await painted(page);
    expect((await readPainted(page)).panels.map(({ panel }) => panel)).toEqual(["field", "truth", "difference"]);
    expect(await page.textContent("#truth")).toContain("-13.667");
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(engines)("plays a flow through time and carries particles by %s", async (engine) => {
    const { page, faults } = await open({ ...stateOf("two-moons-flow"), particles: true, context: [0.8] }, { engine });
    await painted(page, engine);
    const shots = [await page.screenshot(), (await page.waitForTimeout(1500), await page.screenshot())];
    expect(shots[0]!.equals(shots[1]!)).toBe(false);
    await page.click("#particles");
    await page.click("#play");
    await page.waitForFunction(() => Number(document.querySelector<HTMLInputElement>("#t")!.value) === 1, null, { timeout: 30_000 });
    await painted(page, engine);
    expect(await page.textContent("#play")).toBe("Play");
    await expectColours(page, await load("two-moons-flow"), [1]);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(["particles", "lorenz"])("the example %s draws frame after frame", async (name) => {
    const page = await browser.newPage({ viewport: { width: 500, height: 400 } });
    const faults = watch(page, address);
    await page.goto(`${address}examples/${name}.html`);
    await page.waitForFunction(() => Number(document.querySelector("canvas")!.dataset["frames"]) >= 4, null, { timeout: 30_000 });
    const { data, channels } = decode(await page.screenshot({ clip: { x: 0, y: 90, width: 500, height: 300 } }));
    // Dots on the dark: bright pixels, and not all of them.
    const bright = Array.from({ length: data.length / channels }, (_, index) => data[channels * index]! > 120).filter(Boolean).length;
    expect(bright).toBeGreaterThan(300);
    expect(bright).toBeLessThan(100_000);
    expect(faults).toEqual([]);
    await page.close();
  });

  test("can be used by keys alone, and has no serious fault for those who cannot see it", async () => {
    const { page } = await open(stateOf("two-moons-flow"));
    await painted(page);
    for (let press = 0; press < 4 && (await page.evaluate(() => document.activeElement?.id)) !== "overlay"; press++)
      await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("overlay");
    const before = await readPainted(page);
    for (const key of ["ArrowRight", "+", "Enter"]) {
      await forget(page);
      await page.keyboard.press(key);
      if (key !== "Enter") await painted(page);
    }
    const after = await readPainted(page);
    expect(after.view.a).toBeGreaterThan(before.view.a);
    expect(after.view.width).toBeCloseTo(0.8 * before.view.width, 6);
    await page.waitForSelector('[data-probe="exact"]');
    await page.keyboard.press("Escape");
    expect(await page.textContent("#probe-kind")).toBe("under the cursor");
    const { violations } = await new AxeBuilder({ page }).analyze();
    expect(
      violations.filter(({ impact }) => impact === "serious" || impact === "critical").map(({ id, nodes }) => `${id}: ${nodes[0]!.html}`),
    ).toEqual([]);
    await page.context().close();
  });
});

/** A safetensors file of small made-up weights. */
function tensors(shapes: Record<string, readonly number[]>, metadata: Record<string, string>): Uint8Array {
  let end = 0;
  const entries = Object.entries(shapes).map(([name, shape]) => {
    const bytes = 4 * shape.reduce((product, length) => product * length, 1);
    return [name, { dtype: "F32", shape, data_offsets: [end, (end += bytes)] }] as const;
  });
  const header = Buffer.from(JSON.stringify({ __metadata__: metadata, ...Object.fromEntries(entries) }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const data = Buffer.from(Float32Array.from({ length: end / 4 }, (_, index) => Math.sin(index)).buffer);
  return Buffer.concat([length, header, data]);
}
