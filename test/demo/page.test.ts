import { mkdtemp, readFile, rm } from "node:fs/promises";
import type { Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { AxeBuilder } from "@axe-core/playwright";
import { decode } from "fast-png";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { colourOf, FADED } from "../../demo/src/base/colour.js";
import { atPixel, axesPlane, gridPoints, pointOn, toPixel } from "../../demo/src/base/plane.js";
import { MEANING_OF_ERROR, shelf } from "../../demo/src/fields/shelf.js";
import { parseFormula } from "../../demo/src/fields/formula.js";
import { fromHash, layers } from "../../demo/src/base/state.js";
import { steps } from "../../demo/src/controls/story.js";
import { traceCloud } from "../../demo/src/layers/cloud.js";
import { withinAxes, type Margins } from "../../demo/src/layers/overlay.js";
import { balanceOf } from "../../demo/src/tools/lens.js";
import { evaluateReference, logProbReference, parseSafetensors, transportReference, type Network } from "../../src/index.js";
import { writeNpy } from "../../src/node/files/npy.js";
import { hasBrowser, openBrowser } from "../browser.js";
import { divergenceOf, expectPixels, FREE, type NumbersAt } from "./pixels.js";
import { referenceEngine } from "./referenceEngine.js";
import { addressOf, forget, painted, readPainted, serveSite, watch, type EngineName } from "./site.js";

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
// What a failed test leaves open slows the others down.
afterEach(async () => {
  for (const context of browser?.contexts() ?? []) await context.close();
});
afterAll(async () => {
  await close?.();
  await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true });
});

/** A small page: software GPUs paint it. */
const SIZE = { width: 900, height: 700 };
/** Milliseconds that something may take on a busy machine. */
const PATIENCE = 120_000;
/** Nothing over the colours. */
const PLAIN = "layers=div/contour=off";

interface Options {
  /** What the page is told to compute by; null: nothing, so that it chooses. */
  readonly engine?: EngineName | null;
  readonly site?: string;
  /** What else stands in the address before the #. */
  readonly query?: string;
  readonly init?: () => void;
  /** Before the page is gone to. */
  readonly prepare?: (page: Page) => Promise<void>;
}

async function open(hash: string, options: Options = {}): Promise<{ page: Page; faults: string[]; requests: string[] }> {
  const { engine = "webgpu", site = address, query = "" } = options;
  const context = await browser.newContext({ viewport: SIZE, acceptDownloads: true });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const faults = watch(page, site);
  const requests: string[] = [];
  page.on("request", (request) => requests.push(request.url()));
  if (options.init) await page.addInitScript(options.init);
  await options.prepare?.(page);
  await page.goto(addressOf(`${site}${query}`, engine, hash));
  return { page, faults, requests };
}

/** Has the adapter say that it is no software. */
function beHardware(): void {
  Object.defineProperty(GPUAdapter.prototype, "info", { get: () => ({ vendor: "acme", architecture: "gpu", description: "" }) });
}

/** Lets a test lose the page's device, by loseDevice. */
function beLosable(): void {
  const request: (this: GPUAdapter, given?: GPUDeviceDescriptor) => Promise<GPUDevice> = Reflect.get(GPUAdapter.prototype, "requestDevice");
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
}

/** Loses it. */
function lose(page: Page): Promise<void> {
  return page.evaluate(() => (globalThis as unknown as { loseDevice: () => void }).loseDevice());
}

/** A field of the shelf as a link, at rest and plain. */
function plain(field: string, more = PLAIN): string {
  const time = field === "two-moons" || field === "checkerboard" || field === "digits" ? "/t=0.9" : "";
  return `${field}${time}/${more}`;
}

async function networkOf(field: string): Promise<Network> {
  const { source } = shelf[field]!;
  return source.kind === "formula" ? parseFormula(source.text) : load(source.file.replace(".safetensors", ""));
}

/** Compares pixels at the middles of the grid's cells with the colours of the float64 numbers there. */
async function expectColours(page: Page, numbersAt: NumbersAt, count = 120): Promise<void> {
  await page.mouse.move(0, 0);
  let shown = await readPainted(page);
  let picture: Buffer;
  // A finer one may come in between.
  for (let now: typeof shown; ; shown = now) {
    picture = await page.screenshot();
    now = await readPainted(page);
    if (isDeepStrictEqual(now, shown)) break;
  }
  expectPixels(picture, shown, page.viewportSize()!, numbersAt, count);
}

/** The colour of a pixel of the page. */
async function pixelOf(page: Page, x: number, y: number): Promise<readonly number[]> {
  const png = decode(await page.screenshot({ clip: { x, y, width: 1, height: 1 } }));
  return Array.from(png.data.subarray(0, 3));
}

/** The colours of all pixels of the page at one moment, each by the place of its middle or one near it. */
async function pixelsOf(page: Page): Promise<(x: number, y: number) => readonly number[]> {
  const { data, width, channels } = decode(await page.screenshot());
  return (x, y) => {
    const at = channels * (Math.floor(y) * width + Math.floor(x));
    return Array.from(data.subarray(at, at + 3));
  };
}

function distance(one: readonly number[], other: readonly number[]): number {
  return Math.max(...one.map((channel, index) => Math.abs(channel - other[index]!)));
}

/** Whether nothing covers it. */
function isFree(x: number, y: number): boolean {
  return x > FREE.left && y > FREE.top && x < SIZE.width - FREE.right && y < SIZE.height - FREE.bottom;
}

/** What the page's elements leave of the stage. */
function marginsOf(page: Page): Promise<Margins> {
  return page.evaluate(() => {
    const bounds = (id: string): DOMRect => document.querySelector(id)!.getBoundingClientRect();
    const bottom = innerHeight - bounds("#bottom").top;
    return { left: bounds("#shelf").right + 12, top: bounds("#top").bottom + 8, right: 14, bottom: bottom + 8 };
  });
}

/** How often the page, left alone for a while, asks for a frame, the GPU or a worker. */
async function workOf(page: Page): Promise<{ frames: number; submissions: number; messages: number }> {
  return page.evaluate(async () => {
    const asked = { frames: 0, submissions: 0, messages: 0 };
    const restores = (
      [
        ["frames", globalThis, "requestAnimationFrame"],
        ["submissions", GPUQueue.prototype, "submit"],
        ["messages", Worker.prototype, "postMessage"],
      ] as const
    ).map(([name, owner, method]) => {
      const real = Reflect.get(owner, method) as (...given: unknown[]) => unknown;
      Reflect.set(owner, method, function (this: unknown, ...given: unknown[]) {
        asked[name]++;
        return real.apply(this, given);
      });
      return () => Reflect.set(owner, method, real);
    });
    await new Promise((resolve) => setTimeout(resolve, 600));
    for (const restore of restores) restore();
    return asked;
  });
}

describe.skipIf(!hasBrowser)("in a browser", () => {
  test("opens on two moons with samples that leave the noise, without errors or requests elsewhere", async () => {
    const { page, faults } = await open("", {
      init: () => {
        const noted = globalThis as { firstPoints?: string };
        new MutationObserver(() => {
          const points = document.querySelector<HTMLElement>("#motion")?.dataset["points"];
          if (points !== undefined) noted.firstPoints ??= points;
        }).observe(document, { subtree: true, attributes: true, attributeFilter: ["data-points"] });
      },
    });
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#canvas")?.dataset["columns"] !== undefined);
    expect(await page.textContent("#headline")).toBe("This network turns noise into two moons. Orange makes room, purple squeezes.");
    const points = await page.waitForFunction(() => (globalThis as { firstPoints?: string }).firstPoints);
    expect(Number(await points.jsonValue())).toBeLessThan(1000);
    const time = (): Promise<number> => page.$eval("#t", (input) => Number((input as HTMLInputElement).value));
    await page.waitForFunction(() => Number(document.querySelector<HTMLInputElement>("#t")!.value) > 0.2);
    // From noise to data, and again.
    let [last, turned] = [await time(), false];
    for (let look = 0; look < 200 && !turned; look++) {
      await page.waitForTimeout(100);
      const now = await time();
      turned = now < last;
      last = now;
    }
    expect(turned).toBe(true);
    await page.click("#play");
    await painted(page);
    // Few points began, and all of them come.
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#motion")!.dataset["points"] === "1600");
    expect(await page.textContent("#status")).toMatch(/^∇·f at \d+ × \d+ points in .* on /);
    // The track is as high as the samples' mean ∇·f: a column at each of the cloud's stops, in the colour of its sign.
    const network = await load("two-moons");
    const setting = { plane: axesPlane(2, 0, 1, []), view: (await readPainted(page)).view, size: SIZE, context: [0] };
    const mean = Array.from((await traceCloud(referenceEngine(network), network, setting, 500)).mean);
    const track = await page.$eval("#track", (canvas) => {
      const { width, height } = canvas as HTMLCanvasElement;
      const { data } = (canvas as HTMLCanvasElement).getContext("2d")!.getImageData(0, 0, width, height);
      return { width, height, data: Array.from(data) };
    });
    const [low, high] = [Math.min(0, ...mean), Math.max(0, ...mean)];
    expect(high - low).toBeGreaterThan(0.1);
    for (let stop = 1; stop < 24; stop++) {
      const x = Math.round((stop / 24) * track.width);
      const inked = Array.from({ length: track.height }, (_, y) => 4 * (y * track.width + x)).filter((at) => track.data[at + 3]! > 90);
      const expected = (Math.abs(mean[stop]!) / (high - low)) * (track.height - 8);
      expect(Math.abs(inked.length - expected), `at stop ${stop}`).toBeLessThanOrEqual(2);
      for (const at of inked) expect(track.data[at]! > track.data[at + 2]!).toBe(mean[stop]! > 0);
    }
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(["two-moons", "digits"])("%s plays from the noise on", async (field) => {
    const { page, faults } = await open(field, {
      engine: "onnxruntime",
      init: () => {
        const look = (): void => {
          const slider = document.querySelector<HTMLInputElement>("#t");
          // The first time of a picture that is there.
          if (document.querySelector<HTMLElement>("#canvas")?.dataset["columns"] === undefined) requestAnimationFrame(look);
          else (globalThis as unknown as { first: number }).first = Number(slider!.value);
        };
        look();
      },
    });
    await page.waitForFunction(() => (globalThis as unknown as { first?: number }).first !== undefined);
    expect(await page.evaluate(() => (globalThis as unknown as { first: number }).first)).toBeLessThan(0.2);
    await page.waitForFunction(() => document.querySelector("#play")!.getAttribute("aria-pressed") === "true");
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("with reduced motion nothing moves: samples on the density", async () => {
    const context = await browser.newContext({ viewport: SIZE, reducedMotion: "reduce" });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    await page.goto(addressOf(address, "webgpu", ""));
    await painted(page);
    expect((await readPainted(page)).ground).toBe("density");
    expect(await page.getAttribute("#layer-samples", "aria-pressed")).toBe("true");
    // Idle costs nothing.
    expect((await workOf(page)).frames).toBe(0);
    // What a link asks for is shown.
    await forget(page);
    await page.evaluate(() => void (location.hash = "two-moons/layers=div"));
    await painted(page);
    expect(await readPainted(page)).toMatchObject({ ground: "quantity", context: [1] });
    expect(await page.getAttribute("#layer-samples", "aria-pressed")).toBe("false");
    await context.close();
  });

  const engines = ["webgpu", "onnxruntime"] as const;
  const everyField = Object.keys(shelf).flatMap((field) => engines.map((engine) => [field, engine] as const));
  test.for(everyField)("%s by %s: colours are those of the float64 divergence", async ([field, engine]) => {
    const { page, faults } = await open(plain(field), { engine });
    await painted(page, engine);
    const network = await networkOf(field);
    await expectColours(page, divergenceOf(network, network.contextSize > 0 ? [0.9] : []));
    if (field === "digits") {
      await forget(page);
      await page.keyboard.press("3");
      await painted(page, engine);
      await expectImages(page, network);
    }
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("paths go where float64 goes, in the colours of what grows and shrinks, and arrows along f", async () => {
    const { page, faults } = await open("van-der-pol/layers=paths");
    await painted(page);
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#motion")!.dataset["points"] === "1600");
    const network = await load("van-der-pol");
    const { view } = await readPainted(page);
    const plane = axesPlane(2, 0, 1, []);
    const cloud = await traceCloud(referenceEngine(network), network, { plane, view, size: SIZE, context: [] }, 200);
    const [drawn, stops] = [140, cloud.times.length];
    const place = (stop: number, i: number): [number, number] => {
      const at = 2 * (stop * cloud.count + i);
      return toPixel(view, SIZE, cloud.places[at]!, cloud.places[at + 1]!);
    };
    let pixels = await pixelsOf(page);
    const paper = pixels(300, 230.5);
    const seen = { grows: [] as boolean[], shrinks: [] as boolean[] };
    for (let i = 0; i < drawn; i++)
      for (let stop = 1; stop + 1 < stops; stop++) {
        const [x, y] = place(stop, i);
        const a = cloud.places[2 * (stop * cloud.count + i)]!;
        // Away from where ∇·f changes its sign, so that what crosses has the same colour.
        if (!isFree(x, y) || (Math.abs(a) > 0.5 && Math.abs(a) < 1.6)) continue;
        const [red, green, blue] = pixels(x, y) as [number, number, number];
        if (Math.abs(a) < 1) seen.grows.push(red > blue + 40 && red > green + 20);
        else seen.shrinks.push(blue > red + 20 && blue > green + 40);
      }
    for (const [name, all] of Object.entries(seen)) {
      expect(all.length, name).toBeGreaterThan(40);
      expect(all.filter(Boolean).length / all.length, name).toBeGreaterThan(0.95);
    }
    // Nothing elsewhere.
    const near = (x: number, y: number): boolean =>
      Array.from({ length: drawn }, (_, i) => i).some((i) =>
        Array.from({ length: stops - 1 }, (_, stop) => stop).some((stop) => toSegment([x, y], place(stop, i), place(stop + 1, i)) < 4),
      );
    const elsewhere = Array.from(
      { length: 60 },
      (_, k) => [FREE.left + ((k * 97) % 480) + 0.5, FREE.top + ((k * 61) % 290) + 0.5] as const,
    ).filter(([x, y]) => !near(x, y));
    expect(elsewhere.length).toBeGreaterThan(10);
    for (const [x, y] of elsewhere) expect(pixels(x, y), `${x} ${y}`).toEqual(paper);

    // Of a field that is as fast in the middle as at the edges.
    await forget(page);
    await page.evaluate(() => void (location.hash = "taylor-green/layers=arrows"));
    await painted(page);
    const vortices = await load("taylor-green");
    const here = (await readPainted(page)).view;
    pixels = await pixelsOf(page);
    // As many as there is room for, from edge to edge.
    const points = gridPoints(plane, here, { columns: 20, rows: 15 }, SIZE.height / SIZE.width);
    const value = evaluateReference(vortices, points, { outputs: ["value"] }).value!;
    const speeds = Array.from({ length: 300 }, (_, i) => Math.hypot(value[2 * i]!, value[2 * i + 1]!));
    let count = 0;
    const margins = await marginsOf(page);
    const shown = speeds.map((_, i) => toPixel(here, SIZE, points[2 * i]!, points[2 * i + 1]!));
    const most = Math.max(
      ...speeds.filter((_, i) => {
        const [x, y] = shown[i]!;
        return x > margins.left && y > margins.top && x < SIZE.width - margins.right && y < SIZE.height - margins.bottom;
      }),
    );
    for (const [i, [x, y]] of shown.entries()) {
      const length = 34 * Math.sqrt(speeds[i]! / most);
      if (!isFree(x, y) || length < 20) continue;
      count++;
      const [dx, dy] = [value[2 * i]! / speeds[i]!, -value[2 * i + 1]! / speeds[i]!];
      const light = (along: number, across: number): number =>
        Math.max(
          ...[-0.5, 0, 0.5].map((more) =>
            Math.min(...pixels(x + along * dx - (across + more) * dy, y + along * dy + (across + more) * dx)),
          ),
        );
      // Its shaft, the barbs at its head, nothing beside it, and none at its tail.
      for (const along of [-0.35, 0, 0.3]) expect(light(along * length, 0), `${i} ${along}`).toBeGreaterThan(60);
      const barbs = (end: 1 | -1): number => {
        const [back, side] = [0.27 * length * Math.cos(2.6), 0.27 * length * Math.sin(2.6)];
        return light(end * (0.5 * length + back), side) + light(end * (0.5 * length + back), -side);
      };
      expect(barbs(1), `the head of ${i}`).toBeGreaterThan(barbs(-1) + 60);
      for (const across of [-9, 9]) expect(distance(pixels(x - across * dy, y + across * dx), paper), `beside ${i}`).toBeLessThan(4);
    }
    expect(count).toBeGreaterThan(20);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(["lorenz", "van-der-pol"].flatMap((field) => engines.map((engine) => [field, engine] as const)))(
    "%s by %s: the layer Error shows the divergence less the truth's",
    async ([field, engine]) => {
      const { page, faults } = await open(plain(field, "layers=error/contour=off"), { engine });
      await painted(page, engine);
      const [network, truth] = [divergenceOf(await networkOf(field)), divergenceOf(parseFormula(shelf[field]!.truth!))];
      await expectColours(page, (points) => {
        const truths = truth(points);
        return Float64Array.from(network(points), (value, index) => value - truths[index]!);
      });
      expect(faults).toEqual([]);
      await page.context().close();
    },
  );

  test.for(engines)("the density by %s is the flow's, and all of it is in view", async (engine) => {
    const { page, faults } = await open("two-moons/t=1/x=0,0/w=10/layers=density", { engine });
    await painted(page, engine);
    const network = await load("two-moons");
    await expectColours(page, (points) => logProbReference(network, points).logProb.map((log) => Math.exp(log)), 20);
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#status")!.dataset["mass"] !== undefined);
    expect(Math.abs(Number(await page.getAttribute("#status", "data-mass")) - 1)).toBeLessThan(0.01);
    // The shelf's pictures did not wait for that.
    const drawn = (): Promise<string[]> =>
      page.$$eval("[data-field] canvas", (all) =>
        (all as HTMLCanvasElement[])
          .filter((canvas) => canvas.getContext("2d")!.getImageData(24, 15, 1, 1).data[3] === 255)
          .map((canvas) => canvas.closest<HTMLElement>("[data-field]")!.dataset["field"]!),
      );
    expect((await drawn()).slice(0, 6)).toEqual(Object.keys(shelf).slice(0, 6));
    await expect.poll(drawn).toEqual(Object.keys(shelf));
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("what a sum over cells cannot tell is not told as a number", async () => {
    // All of it lies within e^-5 of the middle, between the cells.
    const { page } = await open(`formula/f=${encodeURIComponent("-5*x, -5*y + 0*t")}/t=1/x=0,0/w=6/layers=density,samples`, {
      engine: "onnxruntime",
    });
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#status")!.dataset["mass"] !== undefined);
    expect(await page.getAttribute("#status", "data-mass")).toBe("NaN");
    expect(await page.textContent("#status")).toMatch(/cannot be summed on cells of this size$/);
    await page.context().close();
  });

  test("links that name nothing, or what a field does not have, end in a field with a word of why", async () => {
    for (const [hash, field, says] of [
      ["constructor", "two-moons", /there is no field "constructor"/],
      ["formula/f=x%2C", "two-moons", /./],
      ["drawn/n=garbage", "two-moons", /./],
      [encodeURIComponent('{"field":"two-moons","view":{"a":{"toString":1}}}'), "two-moons", null],
      ["digits/layers=density,error", "digits", null],
      ["formula/f=1e-50*x%2C1e-50*y", "formula", null],
    ] as const) {
      const { page, faults } = await open(hash, { engine: "onnxruntime" });
      await page.waitForFunction(
        (name) => document.querySelector(`[data-field="${name}"]`)?.getAttribute("aria-pressed") === "true" || name === "formula",
        field,
      );
      await page.waitForFunction(() => document.querySelector<HTMLElement>("#canvas")?.dataset["columns"] !== undefined);
      if (says) expect(await page.textContent("#problem"), hash).toMatch(says);
      else expect(await page.isVisible("#problem"), hash).toBe(false);
      if (field === "digits") expect((await readPainted(page)).ground).toBe("quantity");
      expect(faults, hash).toEqual([]);
      await page.context().close();
    }
  });

  test("the first two axes of a field with more are a link like any other", async () => {
    const { page } = await open("lorenz/axes=0,1/layers=div/contour=off", { engine: "onnxruntime" });
    await painted(page, "onnxruntime");
    await page.waitForFunction(() => location.hash.includes("axes=0,1"));
    expect((await readPainted(page)).plane.v).toEqual([0, 1, 0]);
    // Also where they are chosen.
    await page.click("#settings-toggle");
    await page.selectOption("#plane-kind", "random");
    await page.waitForFunction(() => location.hash.includes("plane=random"));
    await page.selectOption("#plane-kind", "axes");
    await page.waitForFunction(() => location.hash.includes("axes=0,1"));
    // A link is followed even where the page notes at this moment what it showed before.
    await page.evaluate(() => {
      location.hash = "sink/layers=div";
      history.replaceState(null, "", "#lorenz");
    });
    await page.waitForFunction(() => document.querySelector('[data-field="sink"]')!.getAttribute("aria-pressed") === "true");
    await page.context().close();
  });

  test("Lorenz opens on its error; axes and sliders choose the plane, by one slider where there are many", async () => {
    const { page, faults } = await open("lorenz", { engine: "onnxruntime" });
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#canvas")?.dataset["ground"] === "error");
    await page.click("#play");
    await painted(page, "onnxruntime");
    expect((await readPainted(page)).plane).toMatchObject({ u: [1, 0, 0], v: [0, 0, 1] });
    // What is of two dimensions says so.
    expect(await page.getAttribute("#lens-toggle", "title")).toBe("For fields in two dimensions");
    await page.click("#settings-toggle");
    const planeAfter = async (act: () => Promise<unknown>) => {
      await forget(page);
      await act();
      await painted(page, "onnxruntime");
      return (await readPainted(page)).plane;
    };
    expect(await planeAfter(() => page.selectOption("#axis-i", "1"))).toMatchObject({ u: [0, 1, 0], v: [0, 0, 1] });
    expect(await page.locator("#rest input").count()).toBe(1);
    expect(await planeAfter(() => page.fill("#x-0", "1.5"))).toMatchObject({ origin: [1.5, 0, 0], u: [0, 1, 0], v: [0, 0, 1] });
    await page.click("#settings-toggle");
    await bare(page, "onnxruntime");
    await expectColours(page, divergenceOf(await load("lorenz")));
    // Of 64 coordinates, one besides the two of the plane.
    await page.click('[data-field="digits"]');
    await page.waitForFunction(() => document.querySelector("#headline")!.textContent.startsWith("Digits"));
    await page.click("#play");
    await page.click("#settings-toggle");
    await page.selectOption("#plane-kind", "axes");
    await page.locator("#x-2").waitFor();
    await page.selectOption("#x-which", "9");
    expect(await page.locator("#rest input").count()).toBe(1);
    expect((await planeAfter(() => page.fill("#x-9", "-2"))).origin).toEqual(Array.from({ length: 64 }, (_, k) => (k === 9 ? -2 : 0)));
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("another loss goes on learning, and what it begins with is not kept", async () => {
    const { page, faults } = await open("source/x=0,0/w=6/layers=div", { engine: "onnxruntime" });
    await painted(page, "onnxruntime");
    await page.click("#draw-toggle");
    await page.click("#example");
    await page.click("#train");
    const stepped = (least: number, below: number) =>
      page.waitForFunction(
        ([from, to]) => {
          const step = Number(/^step (\d+)/.exec(document.querySelector("#draw-status")!.textContent)?.[1] ?? NaN);
          return step >= from! && step < to!;
        },
        [least, below],
      );
    await stepped(100, Infinity);
    await page.selectOption("#loss", "score_matching");
    await stepped(1, 100);
    await stepped(100, Infinity);
    expect(await page.textContent("#train")).toBe("Pause");
    expect(await page.locator("#own .card").count()).toBe(0);
    await page.click("#train");
    await page.locator("#own .card", { hasText: "Learned from 1500 points" }).waitFor();
    expect((await readPainted(page)).context).toEqual([]);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("a contour is there where the divergence jumps across its middle", async () => {
    for (const formula of ["0.1*relu(x) + 2*relu(-x), 0", "0, 0.1*relu(y) + 2*relu(-y)"]) {
      const { page } = await open(`formula/f=${encodeURIComponent(formula)}/x=0,0/w=6/layers=div`);
      await painted(page);
      await page.mouse.move(0, 0);
      const png = decode(await page.screenshot());
      const isAcross = formula.startsWith("0,");
      const [middle, along] = isAcross
        ? [SIZE.height / 2, [FREE.left, SIZE.width - FREE.right]]
        : [SIZE.width / 2, [FREE.top, SIZE.height - FREE.bottom]];
      // Three pixels on each side, of which at least one is lighter than both colours are.
      for (let at = along[0]!; at < along[1]!; at++) {
        const lightest = Math.max(
          ...Array.from({ length: 6 }, (_, k) => {
            const [x, y] = isAcross ? [at, middle - 3 + k] : [middle - 3 + k, at];
            return Math.min(...[0, 1, 2].map((channel) => png.data[(y * png.width + x) * png.channels + channel]!));
          }),
        );
        expect(lightest, `${formula} at ${at}`).toBeGreaterThan(110);
      }
      await page.context().close();
    }
  });

  test("whoever goes on to another field is left there by training and ink", async () => {
    const { page } = await open("source/x=0,0/w=6/layers=div", { engine: "onnxruntime" });
    await painted(page, "onnxruntime");
    await page.click("#draw-toggle");
    await page.click("#example");
    await page.click("#train");
    await page.click('[data-field="sink"]');
    await page.waitForFunction(() => document.querySelector("#train")!.textContent === "Go on");
    expect(await page.textContent("#headline")).toMatch(/^A sink/);
    await page.waitForFunction(() => location.hash.startsWith("#sink/"));
    await page.click("#draw-toggle");
    await page.mouse.move(500, 380);
    await page.mouse.down();
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#motion")!.dataset["ink"] !== undefined);
    await page.evaluate(() => document.querySelector<HTMLElement>('[data-field="source"]')!.click());
    await page.waitForFunction(() => document.querySelector("#headline")!.textContent.startsWith("A source"));
    await page.waitForTimeout(300);
    expect(await page.getAttribute("#motion", "data-ink")).toBeNull();
    await page.mouse.up();
    await page.context().close();
  });

  test("a link cannot ask for a time that a flow does not have, and exports are of the layer that is shown", async () => {
    const { page, faults } = await open("two-moons/t=1e6/x=0,0/w=8/layers=density", { engine: "onnxruntime" });
    await painted(page, "onnxruntime");
    expect((await readPainted(page)).context).toEqual([1]);
    await page.click("#share-toggle");
    const [file] = await Promise.all([page.waitForEvent("download"), page.click("#save-csv")]);
    expect(file.suggestedFilename()).toBe("two-moons density t=1.00.csv");
    const lines = (await readFile(await file.path())).toString().split("\n");
    expect(lines[0]).toBe("x0,x1,density");
    const some = lines
      .slice(1)
      .filter((_, index) => index % 3001 === 0)
      .map((line) => line.split(",").map(Number));
    const { logProb } = logProbReference(await load("two-moons"), Float32Array.from(some.flatMap(([a, b]) => [a!, b!])));
    some.forEach(([, , density], index) => expect(Math.abs(density! - Math.exp(logProb[index]!))).toBeLessThan(1e-3));
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("colours stay right after panning, zooming and a change of time, whose scale is the same", async () => {
    const network = await load("two-moons");
    const { page, faults } = await open(plain("two-moons"));
    await painted(page);
    const before = await readPainted(page);
    const [x, y] = [500, 350];
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
    expect(after.view.a).not.toBe(before.view.a);
    // As fine as before, and the first one as fine as those after it: what was waited for and compiled on the way does not count.
    expect(after.columns).toBeGreaterThanOrEqual(before.columns / 2);
    expect(before.columns).toBeGreaterThanOrEqual(after.columns / 2);
    await expectColours(page, divergenceOf(network, [0.9]));
    await forget(page);
    await page.locator("#t").fill("0.3");
    await painted(page);
    await expectColours(page, divergenceOf(network, [0.3]));
    expect((await readPainted(page)).domain).toEqual(after.domain);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(engines)("by %s the picture goes along at once when it is dragged and zoomed, before there are new numbers", async (engine) => {
    // One whose divergence varies both ways.
    const { page } = await open(`formula/f=${encodeURIComponent("sin(2*x), sin(2*y) + x")}/x=0,0/w=6/${PLAIN}`, { engine });
    await painted(page, engine);
    const places = [
      [400, 300],
      [480, 240],
      [320, 340],
      [440, 370],
    ] as const;
    const before = await pixelsOf(page);
    // From now on no numbers come.
    await page.evaluate(() => {
      const canvas = document.querySelector<HTMLCanvasElement>("#canvas")!;
      const widths = ((globalThis as unknown as { widths: number[] }).widths = []) as number[];
      new MutationObserver(() => widths.push(canvas.width)).observe(canvas, { attributeFilter: ["width"] });
      GPUQueue.prototype.onSubmittedWorkDone = () => new Promise(() => undefined);
      GPUBuffer.prototype.mapAsync = () => new Promise(() => undefined);
      Worker.prototype.postMessage = () => undefined;
    });
    const [x, y] = places[0];
    const [dx, dy] = [150, 50];
    await page.mouse.move(x, y);
    await page.mouse.down();
    await page.mouse.move(x + 100, y, { steps: 3 });
    await page.mouse.move(x + dx, y + dy);
    await page.waitForTimeout(100);
    let after = await pixelsOf(page);
    for (const [px, py] of places) expect(distance(before(px, py), after(px + dx, py + dy))).toBeLessThanOrEqual(8);
    expect(distance(before(x, y), after(x, y))).toBeGreaterThan(12);
    await page.mouse.up();
    const dragged = after;
    await page.mouse.wheel(0, -250);
    await page.waitForTimeout(100);
    after = await pixelsOf(page);
    // What is under the cursor stays there, all else goes away from it.
    const factor = Math.exp(0.0016 * 250);
    for (const [px, py] of places) {
      const [ax, ay] = [px - x, py - y];
      const found = after(x + dx + factor * ax, y + dy + factor * ay);
      expect(distance(dragged(px + dx, py + dy), found), `${px}, ${py}`).toBeLessThanOrEqual(10);
    }
    expect(distance(dragged(480 + dx, 240 + dy), after(480 + dx, 240 + dy))).toBeGreaterThan(12);
    // An adapter in software paints fewer pixels meanwhile.
    const widths = (): Promise<number[]> => page.evaluate(() => (globalThis as unknown as { widths: number[] }).widths);
    if (engine === "webgpu") {
      await expect.poll(async () => (await widths()).at(-1)).toBe(SIZE.width);
      expect((await widths())[0]).toBe(SIZE.width / 4);
    } else expect(await widths()).toEqual([]);
    await page.context().close();
  });

  test("goes along with its window, and with a screen of more pixels", async () => {
    const { page, faults } = await open(plain("van-der-pol"), { engine: "onnxruntime" });
    await painted(page, "onnxruntime");
    const before = await readPainted(page);
    await forget(page);
    await page.setViewportSize({ width: 1000, height: 760 });
    await painted(page, "onnxruntime");
    // The first one is as fine as those after it: a session that is made on the way does not count.
    expect(before.columns / SIZE.width).toBeGreaterThanOrEqual((await readPainted(page)).columns / 1000 / 2 - 0.01);
    await expectColours(page, divergenceOf(await load("van-der-pol")));
    const session = await page.context().newCDPSession(page);
    await session.send("Emulation.setDeviceMetricsOverride", { width: 1000, height: 760, deviceScaleFactor: 2, mobile: false });
    await page.waitForFunction(() => document.querySelector<HTMLCanvasElement>("#canvas")!.width === 2000);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("what has no time plays and stands as well", async () => {
    const { page, faults } = await open("rotation/layers=div,samples", { engine: "onnxruntime" });
    await page.waitForFunction(() => document.querySelector("#play")!.getAttribute("aria-pressed") === "true");
    expect(await page.isVisible("#t")).toBe(false);
    await page.click("#play");
    await painted(page, "onnxruntime");
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#motion")!.dataset["points"] === "1600");
    // Not the shelf, whose pictures come when there is time.
    const clip = { x: FREE.left, y: FREE.top, width: SIZE.width - FREE.left - FREE.right, height: SIZE.height - FREE.top - FREE.bottom };
    const still = await page.screenshot({ clip });
    await page.waitForTimeout(300);
    expect((await page.screenshot({ clip })).equals(still)).toBe(true);
    await page.click("#play");
    await page.waitForTimeout(700);
    await page.click("#play");
    await page.waitForTimeout(300);
    expect((await page.screenshot({ clip })).equals(still)).toBe(false);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("in a frame of another page wheel and swipes scroll that page, and a wheel with Ctrl zooms", async () => {
    const context = await browser.newContext({ viewport: SIZE, hasTouch: true });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    const frame = `<iframe src="./?embed&engine=onnxruntime#${plain("van-der-pol")}" style="width: 860px; height: 500px"></iframe>`;
    await page.route("**/frame.html", (route) =>
      route.fulfill({ contentType: "text/html", body: `<!doctype html><body style="height: 3000px">${frame}` }),
    );
    await page.goto(`${address}frame.html`);
    const canvas = page.frameLocator("iframe").locator("#canvas");
    await page.frameLocator("iframe").locator('#canvas[data-state="done"]').waitFor({ state: "attached" });
    expect(await page.frameLocator("iframe").locator("#shelf").isVisible()).toBe(false);
    const view = async (): Promise<{ width: number }> => JSON.parse((await canvas.getAttribute("data-view"))!) as { width: number };
    const before = await view();
    await page.mouse.move(450, 300);
    await page.mouse.wheel(0, 90);
    await page.waitForFunction(() => scrollY >= 90);
    const session = await context.newCDPSession(page);
    const touch = async (type: "touchStart" | "touchMove" | "touchEnd", ...ys: number[]): Promise<void> =>
      void (await session.send("Input.dispatchTouchEvent", { type, touchPoints: ys.map((y) => ({ x: 450, y })) }));
    await touch("touchStart", 300);
    for (const y of [280, 260, 240, 220, 200]) await touch("touchMove", y);
    await page.waitForFunction(() => scrollY > 120);
    // A finger that rests before it lifts leaves no swing: what moves later is the wheel's.
    await page.waitForTimeout(300);
    await touch("touchMove", 200);
    await touch("touchEnd");
    await page.waitForFunction(async () => {
      const last = scrollY;
      await new Promise((resolve) => setTimeout(resolve, 500));
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      return scrollY === last;
    });
    await expect.poll(view).toEqual(before);
    // The page could go either way.
    const scrolled = await page.evaluate(() => scrollY);
    await page.mouse.move(450, 150);
    await page.keyboard.down("Control");
    await page.mouse.wheel(0, -300);
    await page.keyboard.up("Control");
    await expect.poll(async () => (await view()).width / before.width).toBeCloseTo(Math.exp(-0.48), 3);
    await page.waitForTimeout(300);
    expect(await page.evaluate(() => scrollY)).toBe(scrolled);
    await context.close();
  });

  test("two fingers zoom in around what is between them", async () => {
    const { page, faults } = await open(plain("van-der-pol"));
    await painted(page);
    const before = await readPainted(page);
    const [x, y] = [SIZE.width / 2, SIZE.height / 2];
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
    await expectColours(page, divergenceOf(await load("van-der-pol")));
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(engines)("numbers by %s at the cursor and in the ledger are the field's, with float64 beside them", async (engine) => {
    const network = await load("lorenz");
    const { page } = await open("lorenz/layers=div/pin=0.5,1.5", { engine });
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
    await page.click("#unpin");
    await page.locator("#ledger").waitFor({ state: "hidden" });
    await page.mouse.move(420, 330);
    await page.locator("#reader").waitFor({ state: "visible" });
    const { view } = await readPainted(page);
    const step = view.width / SIZE.width;
    const at = [view.a + (420 - SIZE.width / 2) * step, 0, view.b - (330 - SIZE.height / 2) * step];
    const there = evaluateReference(network, at, { outputs: ["divergence"] }).divergence![0]!;
    await page.waitForFunction(
      (expected) => Math.abs(Number(document.querySelector<HTMLElement>("#reader")!.dataset["divergence"]) - expected) < 1e-3,
      there,
    );
    // In two lines: ∇·f, then x and f.
    const [, said, x, f] = /^∇·f {2}(\S+)\nx (\(.*\)) {3}f (\(.*\))$/.exec((await page.textContent("#reader"))!)!;
    expect(Number(said)).toBeCloseTo(there, 2);
    numbers(x!).forEach((number, k) => expect(number).toBeCloseTo(at[k]!, 3));
    const velocity = evaluateReference(network, at, { outputs: ["value"] }).value!;
    numbers(f!).forEach((number, k) => expect(number).toBeCloseTo(velocity[k]!, 2));
    // A click pins what is under it.
    await page.mouse.click(420, 330);
    await page.locator("#ledger").waitFor();
    await page.waitForFunction(() => document.querySelector('[data-probe="x"]')!.textContent !== "(0.5, 0, 1.5)");
    numbers(await read("x")).forEach((number, k) => expect(number).toBeCloseTo(at[k]!, 3));
    expect(Number(await read("exact"))).toBeCloseTo(there, 4);
    await page.context().close();
  });

  test("a pinned point of a flow has its density by the path there", async () => {
    const { page } = await open("two-moons/t=1/layers=div/contour=off/pin=0.8,0.3", { engine: "onnxruntime" });
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#along-text")!.dataset["logProb"] !== undefined);
    const said = Number(await page.getAttribute("#along-text", "data-log-prob"));
    const network = await load("two-moons");
    const { logProb } = logProbReference(network, Float32Array.of(0.8, 0.3));
    expect(Math.abs(said - logProb[0]!)).toBeLessThan(0.02);
    // Its path is drawn on the stage, white on the dark.
    await painted(page, "onnxruntime");
    const { view } = await readPainted(page);
    const { data, channels } = decode(await page.screenshot());
    let seen = 0;
    for (const to of [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]) {
      const [a, b] = transportReference(network, [0.8, 0.3], { from: 1, to }).points;
      const x = Math.round(SIZE.width / 2 + ((a! - view.a) * SIZE.width) / view.width);
      const y = Math.round(SIZE.height / 2 - ((b! - view.b) * SIZE.width) / view.width);
      if ((await page.evaluate(([x, y]) => document.elementFromPoint(x!, y!)!.id, [x, y])) !== "overlay") continue;
      const near = [-1, 0, 1].flatMap((dx) => [-1, 0, 1].map((dy) => channels * ((y + dy) * SIZE.width + x + dx)));
      expect(Math.max(...near.map((at) => Math.min(data[at]!, data[at + 1]!, data[at + 2]!))), `at ${to}`).toBeGreaterThan(220);
      seen++;
    }
    expect(seen).toBeGreaterThanOrEqual(5);
    // The ledger leaves the pin, and the numbers of the axis, to be seen; what is one term stays on one line.
    const beside = async (): Promise<number> => (await page.locator("#ledger").boundingBox())!.x;
    expect(await beside()).toBe(132 + 62);
    const lines = await page.$eval('[data-probe="error"]', ({ firstChild }) => {
      const term = document.createRange();
      term.setStart(firstChild!, firstChild!.textContent!.indexOf("Σ"));
      term.setEndAfter(firstChild!);
      return new Set([...term.getClientRects()].map(({ top }) => top)).size;
    });
    expect(lines).toBe(1);
    await page.click("#settings-toggle");
    expect(await beside()).toBe(SIZE.width - 14 - 320);
    await page.context().close();
  });

  test.for(engines)("words of the headline show by %s where: the rest of the picture fades", async (engine) => {
    const { page } = await open("van-der-pol/layers=div/contour=off", { engine });
    await painted(page, engine);
    const { domain, view } = await readPainted(page);
    expect(domain.palette).toBe("diverging-dark");
    const middle = Math.round(toPixel(view, SIZE, 0, 0)[0]);
    const places = { "1": [middle + 3, 330], "-1": [middle - 200, 330] } as const;
    const before = await pixelsOf(page);
    const paper = [15, 14, 20];
    for (const [sign, other] of [
      ["1", "-1"],
      ["-1", "1"],
    ] as const) {
      await page.hover(`#headline [data-sign="${sign}"]`);
      await page.waitForTimeout(100);
      const now = await pixelsOf(page);
      expect(now(...places[sign])).toEqual(before(...places[sign]));
      const faded = before(...places[other]).map((channel, index) => paper[index]! + FADED * (channel - paper[index]!));
      expect(distance(now(...places[other]), faded)).toBeLessThanOrEqual(2);
      expect(distance(now(...places[other]), before(...places[other]))).toBeGreaterThan(12);
    }
    await page.context().close();
  });

  test.for(engines)("the lens by %s says what flows out of it, and ink how it grows", async (engine) => {
    const { page, faults } = await open("source/x=0,0/w=6/layers=div", { engine });
    await painted(page, engine);
    await page.keyboard.press("l");
    expect(await page.getAttribute("#lens-toggle", "aria-pressed")).toBe("true");
    await page.mouse.move(500, 380);
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#motion")!.dataset["lens"] !== undefined);
    const { flux, made, area } = JSON.parse((await page.getAttribute("#motion", "data-lens"))!) as Record<string, number>;
    // A source makes 2 in each unit of area.
    expect(flux! / area!).toBeCloseTo(2, 3);
    expect(made! / area!).toBeCloseTo(2, 3);
    const lens = async (): Promise<Record<string, number>> => JSON.parse((await page.getAttribute("#motion", "data-lens"))!);
    for (const [key, factor] of [
      ["]", 1.25],
      ["[", 1],
    ] as const) {
      await page.keyboard.press(key);
      await expect.poll(async () => Math.sqrt((await lens())["area"]! / area!)).toBeCloseTo(factor, 6);
    }
    await page.keyboard.down("Shift");
    for (const [turn, factor] of [
      [-100, Math.exp(0.16)],
      [100, 1],
    ] as const) {
      await page.mouse.wheel(0, turn);
      await expect.poll(async () => Math.sqrt((await lens())["area"]! / area!)).toBeCloseTo(factor, 6);
    }
    await page.keyboard.up("Shift");
    // Of a flow, whose field is not linear, both are those of float64.
    await page.evaluate(() => void (location.hash = "two-moons/t=0.9/x=0,0/w=6/layers=div"));
    await expect
      .poll(async () => (await page.getAttribute("#motion", "data-lens")) && Math.abs((await lens())["made"]! / area! - 2))
      .toBeGreaterThan(0.1);
    const [moons, found] = [await load("two-moons"), await lens()];
    const radius = Math.sqrt(found["area"]! / Math.PI);
    const exact = await balanceOf(
      referenceEngine(moons),
      axesPlane(2, 0, 1, []),
      [0.9],
      atPixel({ a: 0, b: 0, width: 6 }, SIZE, 500, 380),
      radius,
    );
    expect(Math.abs(exact.made)).toBeGreaterThan(0.2 * exact.area);
    for (const bar of ["flux", "made"] as const) expect(Math.abs(found[bar]! / exact[bar] - 1), bar).toBeLessThan(0.01);
    // Of another field, which is chosen by its card, it says nothing that is the first one's.
    await page.click('[data-field="sink"]');
    await page.waitForFunction(() => {
      const { lens } = document.querySelector<HTMLElement>("#motion")!.dataset;
      return lens !== undefined && (JSON.parse(lens) as { flux: number }).flux < 0;
    });
    await page.click('[data-field="source"]');
    await page.waitForFunction(() => document.querySelector("#headline")!.textContent.startsWith("A source"));
    // Keys go on after a click on a button.
    await page.keyboard.press("l");
    expect(await page.getAttribute("#lens-toggle", "aria-pressed")).toBe("false");
    await page.mouse.move(500, 380);
    await page.mouse.down();
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#motion")!.dataset["ink"] !== undefined);
    await page.waitForTimeout(800);
    const { measured, said } = JSON.parse((await page.getAttribute("#motion", "data-ink"))!) as Record<string, number>;
    expect(measured).toBeGreaterThan(1.02);
    expect(measured! / said!).toBeCloseTo(1, 2);
    expect(await page.getAttribute("#play", "aria-pressed")).toBe("false");
    await page.mouse.up();
    // It played before.
    expect(await page.getAttribute("#play", "aria-pressed")).toBe("true");
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(engines)("the split by %s is exact on one side and an estimate on the other", async (engine) => {
    const { page, faults } = await open("van-der-pol/layers=error/contour=off", { engine });
    await painted(page, engine);
    await forget(page);
    await page.click("#split-toggle");
    // An estimate is of ∇·f.
    await painted(page, engine);
    expect((await readPainted(page)).ground).toBe("quantity");
    await page.waitForFunction(() => document.querySelector("#estimate-price")!.textContent.includes("1 probe"));
    const off = async (): Promise<number> => Number(/off by ([\d.e+-]+) %/.exec((await page.textContent("#estimate-price"))!)![1]);
    const one = await off();
    expect(one).toBeGreaterThan(1);
    await page.locator("#probes").fill("64");
    await page.waitForFunction(() => document.querySelector("#estimate-price")!.textContent.includes("64 probes"));
    expect(await off()).toBeLessThan(0.5 * one);
    await page.selectOption("#estimator", "ones");
    await page.waitForFunction(() => document.querySelector("#estimate-price")!.textContent.includes("mistake"));
    expect(await off()).toBeGreaterThan(20);
    expect(await page.textContent("#exact-price")).toMatch(/^exact: [\d.]+ f$/);
    // Each price stands on its side.
    expect(await page.textContent("#estimate-price")).toMatch(/^the “ones” mistake: [\d.]+ f; /);
    const at = async (id: string) => (await page.locator(id).boundingBox())!;
    const apart = async (): Promise<void> => {
      const [divider, left, right] = [await at("#divider"), await at("#exact-price"), await at("#estimate-price")];
      expect(left.x + left.width).toBeLessThan(divider.x + divider.width / 2);
      expect(right.x).toBeGreaterThan(divider.x + divider.width / 2);
    };
    await apart();
    const pixels = await pixelsOf(page);
    const exact = pixels(300, 250);
    // On the left ∇·f, on the right the sum of the whole Jacobian in the middle of a cell, both in float64.
    const [network, shown] = [await load("van-der-pol"), await readPainted(page)];
    const truth = evaluateReference(network, atPixel(shown.view, SIZE, 300.5, 250.5), { outputs: ["divergence"] }).divergence![0]!;
    expect(distance(exact, colourOf(truth, shown.domain))).toBeLessThanOrEqual(4);
    const cell = engine === "webgpu" ? 6 : 9;
    const [columns, rows] = [Math.ceil(SIZE.width / cell), Math.ceil(SIZE.height / cell)];
    for (const [column, row] of [
      [0.74, 0.36],
      [0.74, 0.72],
    ].map(([across, down]) => [Math.floor(across! * columns), Math.floor(down! * rows)] as const)) {
      const [x, y] = [((column + 0.5) / columns) * SIZE.width, ((row + 0.5) / rows) * SIZE.height];
      const { jacobian, divergence } = evaluateReference(network, atPixel(shown.view, SIZE, x, y), { outputs: ["jacobian", "divergence"] });
      const mistake = colourOf(
        jacobian!.reduce((sum, entry) => sum + entry, 0),
        shown.domain,
      );
      expect(distance(pixels(x, y), mistake), `${x}, ${y}`).toBeLessThanOrEqual(4);
      expect(distance(mistake, colourOf(divergence![0]!, shown.domain))).toBeGreaterThan(20);
    }
    await page.selectOption("#estimator", "difference");
    await page.waitForFunction(() => document.querySelector("#estimate-price")!.textContent.includes("differences"));
    expect(await off()).toBeLessThan(1);
    expect(await pixelOf(page, 300, 250)).toEqual(exact);
    await page.focus("#divider");
    const before = (await at("#divider")).x;
    await page.keyboard.press("ArrowLeft");
    expect((await at("#divider")).x).toBeLessThan(before);
    await apart();
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("a formula becomes a field, exact ones beside it a truth, and what is wrong with one is said", async () => {
    const { page, faults } = await open("source/layers=div/contour=off");
    await painted(page);
    await forget(page);
    await page.fill("#formula", "sin(x)*y, x*exp(-y*y)");
    await page.press("#formula", "Enter");
    await page.waitForFunction(() => document.querySelector("#headline")!.textContent.includes("sin(x)*y"));
    await page.evaluate(() => (document.activeElement as HTMLElement).blur());
    await page.keyboard.press("3");
    await page.waitForFunction(() => document.querySelector("#layer-samples")!.getAttribute("aria-pressed") === "false");
    await page.click("#settings-toggle");
    await forget(page);
    await page.uncheck("#contour");
    await painted(page);
    await page.click("#settings-toggle");
    await expectColours(page, (points) =>
      Float64Array.from({ length: points.length / 2 }, (_, i) => {
        const [x, y] = [points[2 * i]!, points[2 * i + 1]!];
        return Math.cos(x) * y - 2 * x * y * Math.exp(-y * y);
      }),
    );
    await page.fill("#formula", "sin(x)*q, 1");
    await page.press("#formula", "Enter");
    await page.locator("#problem").waitFor({ state: "visible" });
    expect(await page.textContent("#problem")).toContain('"q"');
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(engines)("the error by %s is against the truth that was typed, which may change with t", async (engine) => {
    const { page, faults } = await open(plain("two-moons"), { engine });
    await painted(page, engine);
    await page.click("#settings-toggle");
    await page.fill("#truth", "x*t, t*y^2");
    await page.press("#truth", "Enter");
    await page.waitForFunction(() => !document.querySelector<HTMLButtonElement>("#layer-error")!.disabled);
    await page.click("#settings-toggle");
    await forget(page);
    await page.click("#layer-error");
    await painted(page, engine);
    expect(await page.textContent("#headline")).toBe("∇·f less the truth: orange too high, purple too low.");
    const divergence = divergenceOf(await load("two-moons"), [0.9]);
    await expectColours(page, (points) => Float64Array.from(divergence(points), (value, i) => value - 0.9 * (1 + 2 * points[2 * i + 1]!)));
    expect(await page.isVisible("#problem")).toBe(false);
    // A field without time has no t.
    await page.click('[data-field="source"]');
    await page.waitForFunction(() => document.querySelector("#headline")!.textContent.startsWith("A source"));
    await page.click("#settings-toggle");
    await page.fill("#truth", "x*t, y");
    await page.press("#truth", "Enter");
    await page.locator("#problem").waitFor({ state: "visible" });
    expect(await page.textContent("#problem")).toMatch(/^the truth depends on t/);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("the story goes through its steps, with its tools", async () => {
    const { page, faults } = await open("shear/layers=div", { engine: "onnxruntime" });
    await painted(page, "onnxruntime");
    await page.click("#story-toggle");
    const seen: string[] = [];
    for (const step of steps) {
      await page.waitForFunction((title) => document.querySelector("#story-title")!.textContent.endsWith(title), step.title);
      await page.waitForFunction(
        (field) => document.querySelector(`[data-field="${field}"]`)!.getAttribute("aria-pressed") === "true",
        step.link.field,
      );
      for (const tool of ["lens", "split"])
        await page.waitForFunction(
          ([id, on]) => document.querySelector(`#${id}-toggle`)!.getAttribute("aria-pressed") === on,
          [tool, String(step.tool === tool)],
        );
      seen.push((await page.textContent("#story-text"))!);
      if (step !== steps.at(-1)) await page.click("#story-next");
    }
    expect(seen).toEqual(steps.map(({ text }) => text));
    expect(await page.isDisabled("#story-next")).toBe(true);
    // Whoever leaves it is not left with its tools.
    const isSplit = (): Promise<string | null> => page.getAttribute("#split-toggle", "aria-pressed");
    await page.click("#story-back");
    expect(await isSplit()).toBe("true");
    await page.keyboard.press("Escape");
    expect(await isSplit()).toBe("false");
    expect(await page.evaluate(() => document.activeElement!.id)).toBe("story-toggle");
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("points that are painted are learned, saved and shared", async () => {
    const { page, faults } = await open("source/x=0,0/w=6/layers=div/contour=off", { engine: "onnxruntime" });
    await painted(page, "onnxruntime");
    await page.click("#draw-toggle");
    expect(await page.isDisabled("#train")).toBe(true);
    expect(await page.isDisabled("#save-trained")).toBe(true);
    // A stroke from left to right, under the panel.
    await page.mouse.move(300, 450);
    await page.mouse.down();
    await page.mouse.move(560, 450, { steps: 40 });
    await page.mouse.up();
    const points = Number(await page.getAttribute("#draw-status", "data-points"));
    expect(points).toBeGreaterThan(100);
    const picture = (): Promise<string> => page.$eval("#canvas", (canvas) => (canvas as HTMLCanvasElement).toDataURL());
    const ink = (): Promise<number> =>
      page.$eval("#curve", (curve) => {
        const { width, height } = curve as HTMLCanvasElement;
        if (width * height === 0) return 0;
        const { data } = (curve as HTMLCanvasElement).getContext("2d")!.getImageData(0, 0, width, height);
        return data.filter((alpha, index) => index % 4 === 3 && alpha > 0).length;
      });
    const before = await picture();
    expect(await ink()).toBe(0);
    await page.click("#train");
    const lossAt = async (step: number): Promise<number> => {
      const handle = await page.waitForFunction((least) => {
        const { textContent, dataset } = document.querySelector<HTMLElement>("#draw-status")!;
        const at = Number(/^step (\d+)/.exec(textContent)?.[1] ?? 0);
        return at >= least ? Number(dataset["loss"]) : null;
      }, step);
      return (await handle.jsonValue())!;
    };
    const first = await lossAt(1);
    expect(await page.textContent("#draw-status")).toMatch(/^step \d+, [\d.]+ a second, loss [\d.]+$/);
    const early = await picture();
    expect(await lossAt(250)).toBeLessThan(first);
    // While it learns, the stage shows what it has learned, and the curve how.
    expect(await page.textContent("#train")).toBe("Pause");
    expect(await page.getAttribute("#draw-status", "aria-live")).toBe("off");
    expect(await ink()).toBeGreaterThan(100);
    await expect.poll(picture).not.toBe(early);
    expect(await picture()).not.toBe(before);
    await page.click("#play");
    await page.click("#train");
    await page.waitForFunction(() => document.querySelector("#train")!.textContent === "Go on");
    // As it was left.
    await page.click("#draw-toggle");
    await page.click("#theme");
    await page.click("#draw-toggle");
    expect(await ink()).toBeGreaterThan(100);
    expect(await page.textContent("#headline")).toMatch(new RegExp(`^This network learned your ${points} points`));
    await page.locator("#own .card", { hasText: `Learned from ${points} points` }).waitFor();
    await page.waitForTimeout(500);
    const [file] = await Promise.all([page.waitForEvent("download"), page.click("#save-trained")]);
    const network = parseSafetensors(await readFile(await file.path()));
    // Its density is where the stroke was.
    const step = 6 / SIZE.width;
    const on = Float32Array.from([-130, -60, 0, 60].flatMap((x) => [(x - 20) * step, -100 * step]));
    const off = on.map((x, i) => (i % 2 === 0 ? x : x + 1));
    const mean = (at: Float32Array): number => logProbReference(network, at).logProb.reduce((sum, log) => sum + log / 4, 0);
    expect(mean(on)).toBeGreaterThan(mean(off) + 1);
    // What is on the stage is that file's density, at the end of the flow.
    await page.click("#draw-toggle");
    await page.click("#layer-samples");
    await page.fill("#t", "1");
    await page.click("#layer-density");
    await page.waitForFunction(() => {
      const { state, ground } = document.querySelector<HTMLElement>("#canvas")!.dataset;
      return state === "done" && ground === "density";
    });
    await expectColours(page, (points) => logProbReference(network, points).logProb.map((log) => Math.exp(log)), 20);
    await page.waitForFunction(() => location.hash.startsWith("#drawn/n=a."));
    const link = new URL(page.url()).hash.slice(1);
    expect(link.length).toBeLessThan(13_000);
    // On the shelf it is what it was, also beside a truth, and not what a link rounds it to.
    await page.click('[data-field="sink"]');
    await page.waitForFunction(() => document.querySelector("#headline")!.textContent.startsWith("A sink"));
    const card = page.locator("#own .card", { hasText: `Learned from ${points} points` });
    await card.click();
    await page.locator("#headline", { hasText: `your ${points} points` }).waitFor();
    await page.click("#settings-toggle");
    await page.fill("#truth", "-x, -y");
    await page.press("#truth", "Enter");
    await page.locator("#layer-error:enabled").waitFor();
    expect(await card.getAttribute("aria-pressed")).toBe("true");
    expect(await page.textContent("#headline")).toContain(`your ${points} points`);
    await page.click("#draw-toggle");
    const [again] = await Promise.all([page.waitForEvent("download"), page.click("#save-trained")]);
    expect((await readFile(await again.path())).equals(await readFile(await file.path()))).toBe(true);
    await page.context().close();
    const shared = await open(`${link.replace(/layers=[^/]*/, "layers=div")}/t=1`, { engine: "onnxruntime" });
    await painted(shared.page, "onnxruntime");
    await expectColours(shared.page, divergenceOf(network, [1]));
    expect([...faults, ...shared.faults]).toEqual([]);
    // Another field has none of its weights in its link.
    await shared.page.click('[data-field="sink"]');
    await shared.page.waitForFunction(() => location.hash.startsWith("#sink/"));
    expect(new URL(shared.page.url()).hash).not.toContain("n=");
    await shared.page.context().close();
  });

  test("takes dropped files, asks what they leave open, and says what is wrong with the others", async () => {
    const engine = "onnxruntime";
    const { page, faults } = await open(plain("two-moons"), { engine });
    await painted(page, engine);
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
    await painted(page, engine);
    expect(await page.textContent("#headline")).toMatch(/^mine\.onnx\. /);
    // Nothing in the address of the field before.
    expect(new URL(page.url()).hash).toBe("");
    await bare(page, engine);
    await expectColours(page, divergenceOf(await load("van-der-pol")));
    await page.click("#share-toggle");
    const [numbers] = await Promise.all([page.waitForEvent("download"), page.click("#save-npy")]);
    expect(numbers.suggestedFilename()).toBe("mine divergence.npy");

    // Weights in another file, which has to come along.
    const apart = new URL("../cases/external/", import.meta.url);
    const [model, weights] = await Promise.all(["model.onnx", "model.onnx.data"].map((name) => readFile(new URL(name, apart))));
    await drop("apart.onnx", model!);
    await page.waitForFunction(() =>
      document.querySelector("#problem")!.textContent.endsWith('"model.onnx.data"; expected it dropped together with the model'),
    );
    await forget(page);
    await drop("apart.onnx", model!, ["model.onnx.data", weights!]);
    await painted(page, engine);
    expect(await page.textContent("#about")).toMatch(/^apart\.onnx; the state is the input "x" \[batch, 3\], the only input; /);
    // Whoever takes the code away has what the page was told.
    const code = (): Promise<string | null> => page.textContent("#code");
    expect(await code()).toContain('externalData: new Map([["model.onnx.data", ');

    await drop("cut.onnx", good.subarray(0, 400));
    await problem.waitFor({ state: "visible" });
    expect(await problem.textContent()).toMatch(/^cut\.onnx: /);
    await page.click("#close-problem");
    expect(await problem.isVisible()).toBe(false);
    await drop("notes.pdf", new TextEncoder().encode("hello"));
    await page.waitForFunction(() => /notes\.pdf is neither a field/.test(document.querySelector("#problem")!.textContent));
    await drop("text.safetensors", new TextEncoder().encode("hello, this is no safetensors file"));
    await page.waitForFunction(() => document.querySelector("#problem")!.textContent.startsWith("text.safetensors: "));
    // R^2 -> R^3.
    await drop("tall.safetensors", tensors({ "0.weight": [4, 2], "2.weight": [3, 4] }, { activation: "tanh" }));
    await page.waitForFunction(() => document.querySelector("#problem")!.textContent.startsWith("tall.safetensors: "));

    const quiet = tensors({ "0.weight": [8, 2], "2.weight": [2, 8] }, {});
    await drop("quiet.safetensors", quiet);
    await page.locator("#question").waitFor({ state: "visible" });
    await page.keyboard.press("Escape");
    await page.locator("#question").waitFor({ state: "hidden" });
    await drop("quiet.safetensors", quiet);
    await page.locator("#question").waitFor({ state: "visible" });
    await page.selectOption("#file-activation", "softplus");
    await forget(page);
    await page.click("#file-use");
    await painted(page, engine);
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
    await page.click("#file-use");
    // A field with time plays.
    await page.waitForFunction(
      () =>
        document.querySelector("#headline")!.textContent.startsWith("timed.safetensors") &&
        document.querySelector("#play")!.getAttribute("aria-pressed") === "true",
    );
    await bare(page, engine);
    expect(await code()).toContain(', { contextColumns: "first" })');
    await page.click("#share-toggle");
    const { context } = await readPainted(page);
    await expectColours(page, divergenceOf(parseSafetensors(timed, { contextColumns: "first" }), context));

    // Points are no field: they are drawn on the stage, to be learned; as they are, or as large as the stage is.
    const ring = Array.from({ length: 60 }, (_, i) => [2 * Math.cos(i / 9.55), Math.sin(i / 9.55)] as const);
    const dots = async (name: string, bytes: Uint8Array, scale: readonly [number, number]): Promise<void> => {
      await drop(name, bytes);
      await page.waitForFunction(() => document.querySelector<HTMLElement>("#draw-status")!.dataset["points"] === "60");
      expect(await page.isVisible("#draw")).toBe(true);
      expect(await page.isDisabled("#train")).toBe(false);
      await page.waitForTimeout(100);
      const [pixels, { view }] = [await pixelsOf(page), await readPainted(page)];
      const panel = (await page.locator("#draw").boundingBox())!;
      for (const [a, b] of ring) {
        const [x, y] = toPixel(view, SIZE, a * scale[0], b * scale[1]);
        const isUnder = x > panel.x - 2 && x < panel.x + panel.width + 2 && y > panel.y - 2 && y < panel.y + panel.height + 2;
        if (isFree(x, y) && !isUnder) expect(Math.min(...pixels(x, y).slice(1)), `${name} at ${x}, ${y}`).toBeGreaterThan(150);
      }
    };
    await dots("ring.npy", Buffer.concat(writeNpy({ data: Float32Array.from(ring.flat()), shape: [60, 2] })), [1, 1]);
    expect(await page.textContent("#draw-status")).toBe("60 points");
    const deviation = Math.sqrt(ring.reduce((sum, [a, b]) => sum + a * a + b * b, 0) / 120);
    await page.click("#clear");
    await dots("ring.csv", new TextEncoder().encode(`left,right\n${ring.map(([a, b]) => `${40 * a},${40 * b}`).join("\n")}\n`), [
      1 / deviation,
      1 / deviation,
    ]);
    expect(await page.textContent("#draw-status")).toMatch(/^60 points, less \(.+, .+\) and over [\d.]+: so is what is learned and saved$/);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("what people bring is on their shelf at the next visit, until they forget it", async () => {
    const engine = "onnxruntime";
    const { page, faults } = await open(plain("source"), { engine });
    await painted(page, engine);
    // Longer than its card is wide.
    const formula = "x*x + 0*sin(y)*cos(y)*exp(-y*y), 0";
    const card = (title: string) => page.locator("#own .card", { hasText: title });
    await page.setInputFiles("#file", {
      name: "mine.onnx",
      mimeType: "application/octet-stream",
      buffer: await readFile(new URL("van-der-pol.onnx", models)),
    });
    await card("mine.onnx").waitFor();
    await page.fill("#formula", formula);
    await page.press("#formula", "Enter");
    await card(formula).waitFor();
    expect(await card(formula).getAttribute("aria-pressed")).toBe("true");
    expect(await page.$eval("#shelf", (shelf) => shelf.scrollWidth - shelf.clientWidth)).toBe(0);
    await page.click('[data-field="sink"]');
    await page.waitForFunction(() => location.hash.startsWith("#sink/"));
    await page.reload();
    await card("mine.onnx").waitFor();
    expect(await page.$$eval("#own .card", (all) => all.map(({ textContent }) => textContent))).toEqual([formula, "mine.onnx"]);
    await expect
      .poll(() => page.$$eval("#own img", (all) => all.map((image) => (image as HTMLImageElement).naturalWidth)))
      .toEqual([96, 96]);
    await forget(page);
    await card("mine.onnx").click();
    await page.waitForFunction(() => document.querySelector("#headline")!.textContent.startsWith("mine.onnx"));
    await bare(page, engine);
    expect(await card("mine.onnx").getAttribute("aria-pressed")).toBe("true");
    await expectColours(page, divergenceOf(await load("van-der-pol")));
    await page.click('[aria-label="Forget mine.onnx"]');
    await card("mine.onnx").waitFor({ state: "detached" });
    // Whoever uses keys goes on from there.
    expect(await page.evaluate(() => document.activeElement!.textContent)).toBe(formula);
    await page.reload();
    await card(formula).click();
    await page.waitForFunction(() => document.querySelector("#headline")!.textContent.includes("x*x"));
    expect(await page.locator("#own .card").count()).toBe(1);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(engines)("the comparison's exact methods by %s are right and the mistake is not", async (engine) => {
    const { page } = await open("van-der-pol/x=0,0/w=6/layers=div/contour=off", { engine });
    await painted(page, engine);
    await page.click("#compare-toggle");
    await page.click("#compare");
    // It goes on behind a closed panel.
    await page.click("#compare-toggle");
    await page.locator("#comparison[data-state=done]").waitFor({ state: "attached" });
    await page.click("#compare-toggle");
    expect(await page.$eval("#comparison-plot", (plot) => (plot as HTMLCanvasElement).width)).toBeGreaterThan(300);
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
    // Nothing of it stands under another field.
    await page.click('[data-field="sink"]');
    for (const part of ["#comparison", "#comparison-plot"]) await page.locator(part).waitFor({ state: "hidden" });
    await page.context().close();
  });

  test("a link restores the page, and exports hold its numbers under names that say what they are", async () => {
    const link = "van-der-pol/x=0.5,-0.25/w=4/layers=div/contour=off/pin=1,1";
    const { page, faults } = await open(link, { engine: "onnxruntime" });
    await painted(page, "onnxruntime");
    await page.click("#share-toggle");
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    const copied = async (id: string): Promise<string> => {
      await page.click(id);
      await page.waitForFunction((button) => document.querySelector(button)!.textContent === "Copied", id);
      return page.evaluate(() => navigator.clipboard.readText());
    };
    const shared = new URL(await copied("#copy-link"));
    await page.waitForFunction(() => location.hash.length > 1);
    expect(shared.hash).toBe(new URL(page.url()).hash);
    expect(shared.href).toBe(address + shared.hash);
    expect(fromHash(shared.hash)).toMatchObject(fromHash(link)!);
    const download = async (id: string): Promise<{ bytes: Buffer; name: string }> => {
      const [file] = await Promise.all([page.waitForEvent("download"), page.click(id)]);
      return { bytes: await readFile(await file.path()), name: file.suggestedFilename() };
    };
    const csv = await download("#save-csv");
    expect(csv.name).toBe("van-der-pol divergence.csv");
    const lines = csv.bytes.toString().split("\n");
    expect(lines[0]).toBe("x0,x1,divergence");
    const rows = lines.slice(1).map((line) => line.split(",").map(Number));
    const some = rows.filter((_, index) => index % 4099 === 0);
    const { divergence } = evaluateReference(
      await load("van-der-pol"),
      some.flatMap(([a, b]) => [a!, b!]),
      { outputs: ["divergence"] },
    );
    some.forEach(([, , number], index) => expect(number).toBeCloseTo(divergence![index]!, 3));
    const { bytes: npy } = await download("#save-npy");
    const header = npy.subarray(10, 10 + npy.readUInt16LE(8)).toString();
    expect(npy.subarray(0, 6).toString("latin1")).toBe("\u0093NUMPY");
    const shape = /\((\d+), (\d+)\)/.exec(header)!.slice(1).map(Number);
    expect(npy.length).toBe(10 + npy.readUInt16LE(8) + 4 * shape[0]! * shape[1]!);
    expect(npy.readFloatLE(10 + npy.readUInt16LE(8))).toBeCloseTo(rows[0]![2]!, 5);
    const weights = await download("#save-weights");
    expect(weights.name).toBe("van-der-pol.safetensors");
    expect(parseSafetensors(weights.bytes).stateSize).toBe(2);
    const png = await download("#save-png");
    expect(png.name).toBe("van-der-pol divergence.png");
    const picture = decode(png.bytes);
    // Two pixels for each of the page's, and a line with title and link over it.
    expect([picture.width, picture.height]).toEqual([2 * SIZE.width, 2 * (SIZE.height + 44)]);
    const { domain, view } = await readPainted(page);
    const at = (x: number, y: number): number[] => {
      const from = picture.channels * (2 * (y + 44) * picture.width + 2 * x);
      return Array.from(picture.data.subarray(from, from + 3));
    };
    // Both lines are written: the name, and the link.
    const paper = at(SIZE.width - 4, -40);
    for (const line of [15, 33]) {
      const inked = Array.from({ length: 200 }, (_, column) => at(14 + column, line - 44).some((c, k) => Math.abs(c - paper[k]!) > 60));
      expect(inked.filter(Boolean).length, `line ${line}`).toBeGreaterThan(20);
    }
    const [x, y] = [300, 300];
    const step = view.width / SIZE.width;
    const there = [view.a + (x + 0.25 - SIZE.width / 2) * step, view.b - (y + 0.25 - SIZE.height / 2) * step];
    const expected = colourOf(divergenceOf(await load("van-der-pol"))(Float32Array.from(there))[0]!, domain);
    at(x, y).forEach((channel, index) => expect(Math.abs(channel - expected[index]!)).toBeLessThanOrEqual(4));
    const asked = performance.now();
    const [film] = await Promise.all([
      download("#save-webm"),
      // Nothing else is made meanwhile, and the button says why.
      page.waitForFunction(() => {
        const names = ["png", "webm", "csv", "npy"];
        const buttons = names.map((name) => document.querySelector<HTMLButtonElement>(`#save-${name}`)!);
        return buttons[1]!.textContent === "Recording…" && buttons.every(({ disabled }) => disabled);
      }),
    ]);
    const took = (performance.now() - asked) / 1000;
    expect(await page.textContent("#save-webm")).toBe("WebM, 4 s");
    for (const name of ["png", "webm", "csv", "npy"]) expect(await page.isEnabled(`#save-${name}`), name).toBe(true);
    expect(film.name).toBe("van-der-pol divergence.webm");
    const played = await page.evaluate(async (base64) => {
      const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      const video = Object.assign(document.createElement("video"), { muted: true });
      document.body.append(video);
      video.src = URL.createObjectURL(new Blob([bytes], { type: "video/webm" }));
      const heard = (event: string) => new Promise<void>((resolve) => video.addEventListener(event, () => resolve(), { once: true }));
      await heard("loadeddata");
      // A recording tells how long it is once it has been read to its end.
      for (const time of [1e6, 1]) {
        const sought = heard("seeked");
        video.currentTime = time;
        await sought;
      }
      const { videoWidth, videoHeight, duration } = video;
      const canvas = Object.assign(document.createElement("canvas"), { width: videoWidth, height: videoHeight });
      const context = canvas.getContext("2d", { willReadFrequently: true })!;
      const shown = new Promise((resolve) => video.requestVideoFrameCallback(resolve));
      await video.play();
      await shown;
      context.drawImage(video, 0, 0);
      video.remove();
      return { size: [videoWidth, videoHeight], duration, pixel: [...context.getImageData(300, 300, 1, 1).data.subarray(0, 3)] };
    }, film.bytes.toString("base64"));
    expect(played.size).toEqual([SIZE.width, SIZE.height]);
    expect(played.duration).toBeGreaterThan(3.5);
    // The recorder begins when it can, and ends with the film.
    expect(played.duration).toBeLessThan(took);
    // What it shows is the stage, but for what a codec loses.
    played.pixel.forEach((channel, index) =>
      expect(Math.abs(channel - expected[index]!), `${played.pixel.join()} for ${expected.join()}`).toBeLessThanOrEqual(24),
    );
    for (const [place, start] of [
      ["node", 'import { readFile } from "node:fs/promises";'],
      ["shell", "npx deldot heatmap van-der-pol.safetensors"],
      ["browser", 'import { parseSafetensors, VectorField } from "deldot";'],
    ] as const) {
      await page.click(`#code-${place}`);
      expect((await page.textContent("#code"))!.startsWith(start)).toBe(true);
    }
    // What was chosen last.
    expect(await copied("#copy-code")).toBe(await page.textContent("#code"));
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("the headline keeps to its line, on a phone to two, whatever is shown", async () => {
    const { page, faults } = await open("two-moons/t=1/layers=density", { engine: "onnxruntime" });
    const headlines = [...Object.values(shelf).map(({ headline }) => headline), MEANING_OF_ERROR].map((headline) =>
      headline
        .map((phrase) => (typeof phrase === "string" ? phrase : `<button data-sign="${phrase.sign}">${phrase.text}</button>`))
        .join(""),
    );
    const note = async (said: RegExp): Promise<void> => {
      await page.locator("#headline", { hasText: said }).waitFor();
      headlines.push(await page.$eval("#headline", (line) => line.innerHTML));
    };
    await note(/density/);
    await page.fill("#formula", "x*x + 0*sin(y)*cos(y)*exp(-y*y)*sin(x)*cos(x)*exp(-x*x), sin(y)*cos(x)*exp(-y*y/2)*sin(x*y)*cos(x*y)");
    await page.press("#formula", "Enter");
    await note(/^f = .*squeezes\.$/);
    for (const [width, height] of [
      [1280, 28],
      [900, 28],
      [780, 28],
      [420, 44],
    ] as const) {
      await page.setViewportSize({ width, height: 800 });
      const misfits = await page.evaluate(
        ([all, height]) => {
          const line = document.querySelector<HTMLElement>("#headline")!;
          return all.filter((html) => {
            line.innerHTML = html;
            return line.clientHeight > height || line.scrollHeight > height || line.scrollWidth > line.clientWidth;
          });
        },
        [headlines, height] as const,
      );
      expect(misfits, `${width} wide`).toEqual([]);
      // The layers are at the top right, and the tools at the left of them or over them.
      const [tools, layers] = [await page.locator('[aria-label="Tools"]').boundingBox(), await page.locator("#layers").boundingBox()];
      if (width > 760) expect(layers!.x + layers!.width).toBeCloseTo(width - 14, 0);
      expect(tools!.x + tools!.width <= layers!.x || tools!.y + tools!.height <= layers!.y).toBe(true);
    }
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("does not move about while it loads", async () => {
    // What chooses by itself takes the CPU, and says so.
    for (const [field, engine] of [
      ["two-moons", "webgpu"],
      ["lorenz", "webgpu"],
      ["two-moons", null],
    ] as const) {
      const { page } = await open(plain(field), {
        engine,
        init: () => {
          const shifts = ((globalThis as unknown as { shifts: number[] }).shifts = []) as number[];
          new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) shifts.push((entry as unknown as { value: number }).value);
          }).observe({ type: "layout-shift", buffered: true });
        },
      });
      const top = (): Promise<number> => page.$eval("#top", (bar) => bar.getBoundingClientRect().bottom);
      const before = await top();
      await painted(page, engine ?? "onnxruntime");
      const shifts = await page.evaluate(() => (globalThis as unknown as { shifts: number[] }).shifts);
      expect(await page.evaluate(() => PerformanceObserver.supportedEntryTypes)).toContain("layout-shift");
      expect(shifts.reduce((sum, shift) => sum + shift, 0)).toBeLessThan(0.001);
      // What the axes and the view keep free.
      expect(await top()).toBe(before);
      expect(await page.isVisible("#notice")).toBe(engine === null);
      if (engine === null) {
        await page.click("#close-notice");
        expect(await page.isVisible("#notice")).toBe(false);
      }
      await page.context().close();
    }
  });

  test("by day, in a frame of another page, and with a hint until something is touched", async () => {
    const { page, faults } = await open(plain("van-der-pol"), { engine: null, query: "?engine=onnxruntime&embed&theme=light" });
    await painted(page, "onnxruntime");
    for (const part of ["#shelf", "#status", "#hint"]) expect(await page.isVisible(part), part).toBe(false);
    // The stage has all the room.
    expect((await page.locator("#top").boundingBox())!.x).toBe(0);
    expect((await readPainted(page)).domain.palette).toBe("diverging");
    await expectColours(page, divergenceOf(await load("van-der-pol")));
    expect(await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor)).toBe("rgb(253, 252, 250)");
    await page.goto(addressOf(address, "onnxruntime", plain("sink")));
    await painted(page, "onnxruntime");
    // What a link asked for is not kept.
    expect(await page.getAttribute("html", "data-theme")).toBe("dark");
    expect(await page.isVisible("#shelf")).toBe(true);
    expect(await page.textContent("#hint")).toMatch(/^Drag to move, /);
    expect(await page.isVisible("#hint")).toBe(true);
    await page.mouse.click(500, 350);
    expect(await page.isVisible("#hint")).toBe(false);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("without WebGPU, onnxruntime-web computes, and the page says so", async () => {
    const { page, faults, requests } = await open(plain("two-moons"), {
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
    const { page, faults } = await open(plain("two-moons"), { engine: null, site: isolated });
    await painted(page, "onnxruntime");
    expect(await page.textContent("#notice")).toMatch(/in software: .*swiftshader/i);
    const cores = await page.evaluate(() => navigator.hardwareConcurrency);
    const threads = cores === 1 ? "one thread" : `${Math.min(8, cores)} threads`;
    expect((await page.textContent("#status"))!.endsWith(` on the CPU, by onnxruntime-web on ${threads}`)).toBe(true);
    await expectColours(page, divergenceOf(await load("two-moons"), [0.9]));
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("takes an adapter in hardware, and then nothing of onnxruntime-web is asked for", async () => {
    const { page, faults, requests } = await open(plain("two-moons"), {
      engine: null,
      init: beHardware,
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
    const { page, faults } = await open(plain("lorenz"), {
      engine: "onnxruntime",
      prepare: async (page) => void (await page.route("**/*.wasm", async (route) => (await released, route.continue()))),
    });
    await painted(page, "reference");
    await forget(page);
    await page.click('[data-field="van-der-pol"]');
    await bare(page, "reference");
    const coarse = await readPainted(page);
    release();
    await painted(page, "onnxruntime");
    expect((await readPainted(page)).columns).toBeGreaterThan(coarse.columns);
    // What float64 is too slow for has begun to move.
    await forget(page);
    await bare(page, "onnxruntime");
    await expectColours(page, divergenceOf(await load("van-der-pol")));
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("float64 serves where onnxruntime-web does not come", async () => {
    const { page, faults } = await open(plain("two-moons"), {
      engine: "onnxruntime",
      prepare: async (page) => void (await page.route("**/*.wasm", (route) => route.abort())),
    });
    await painted(page, "reference");
    expect(await page.textContent("#status")).toMatch(/ on the CPU, in float64$/);
    await expectColours(page, divergenceOf(await load("two-moons"), [0.9]));
    // Another field is float64's as well, and not waited for.
    await forget(page);
    await page.click('[data-field="van-der-pol"]');
    await bare(page, "reference");
    expect(faults.filter((fault) => !/ERR_FAILED|wasm|ArrayBuffer instantiation/.test(fault))).toEqual([]);
    await page.context().close();
  });

  test("says so where a field is too large for the device, or its kernels do not compile there, and goes on", async () => {
    // A field that is there before the device is.
    const { page } = await open("random/net=1,2,8,1,tanh,2", {
      // A device that compiles none of its kernels, and whose buffers are so small that the largest matrix of the digits does not fit.
      init: () => {
        let refuses = true;
        const create: (this: GPUDevice, given: GPUShaderModuleDescriptor) => GPUShaderModule = Reflect.get(
          GPUDevice.prototype,
          "createShaderModule",
        );
        GPUDevice.prototype.createShaderModule = function (given) {
          refuses &&= document.querySelector("#trouble")!.matches("[hidden]");
          if (refuses && given.label?.startsWith("deldot ")) throw new Error("a test refused it");
          return create.call(this, given);
        };
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
    await page.locator("#problem", { hasText: "a test refused it" }).waitFor();
    // The page begins as it does without a link.
    await page.waitForFunction(() => document.querySelector("#headline")!.textContent.includes("two moons"));
    await page.click('[data-field="sink"]');
    await painted(page);
    expect(await page.isVisible("#problem")).toBe(false);
    await page.click('[data-field="digits"]');
    await page.locator("#problem").waitFor({ state: "visible" });
    expect(await page.textContent("#problem")).toMatch(/the device allows 65536|bytes/);
    await page.context().close();
  });

  test("finds the GPU again after it was lost", async () => {
    const { page, faults } = await open(plain("two-moons"), { init: beLosable });
    await painted(page);
    await forget(page);
    await lose(page);
    await painted(page);
    expect(await page.textContent("#notice")).toMatch(/found again/);
    await expectColours(page, divergenceOf(await load("two-moons"), [0.9]));
    expect(faults.filter((fault) => !/lost|destroyed/i.test(fault))).toEqual([]);
    await page.context().close();
  });

  test("shows the field that was chosen last, however quickly, and in the midst of a film", async () => {
    const { page, faults } = await open(plain("two-moons"));
    await painted(page);
    await page.click("#play");
    for (const field of ["lorenz", "digits", "checkerboard", "two-moons", "source", "van-der-pol"]) {
      await forget(page);
      await page.click(`[data-field="${field}"]`);
    }
    await page.waitForFunction(() => document.querySelector("#headline")!.textContent.includes("oscillator"));
    await bare(page);
    await expectColours(page, divergenceOf(await load("van-der-pol")));
    expect(await page.isVisible("#problem")).toBe(false);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("shows other quantities, and a scale around the truth where that is one number", async () => {
    const { page, faults } = await open("lorenz/layers=div/show=magnitude");
    await painted(page);
    expect(await page.getAttribute("#overlay", "aria-label")).toMatch(/^Picture of \|f\|/);
    expect(await page.textContent("#layer-div span")).toBe("|f|");
    // No word of colours that are not there.
    expect(await page.textContent("#headline")).toBe("∇·f of the Lorenz system is -13.667; this network's is off.");
    expect((await readPainted(page)).domain.palette).toBe("sequential");
    await page.click("#settings-toggle");
    await forget(page);
    await page.selectOption("#quantity", "d1");
    await painted(page);
    // ∂f_1/∂x_1 = -1 of the Lorenz system, and near it everywhere.
    const { low, high } = (await readPainted(page)).domain;
    expect(low).toBeGreaterThanOrEqual(-6);
    expect(high).toBeLessThanOrEqual(6);
    await forget(page);
    await page.selectOption("#quantity", "divergence");
    await painted(page);
    const { domain } = await readPainted(page);
    expect((domain.low + domain.high) / 2).toBeCloseTo(-13.667, 2);
    expect(await page.textContent("#headline")).toMatch(/is off: orange too high, purple too low\.$/);
    // A scale that is kept is around that, and none of the command line's.
    await forget(page);
    await page.check("#lock");
    await painted(page);
    await page.click("#share-toggle");
    await page.click("#code-shell");
    expect(await page.textContent("#code")).toMatch(/^npx deldot heatmap lorenz\.safetensors (?!.*--limit)/s);
    // A scale is kept as long as its colours are, whatever lies over them.
    await page.click("#settings-toggle");
    await page.focus("#overlay");
    for (const [key, layer, isKept] of [
      ["3", "samples", true],
      ["6", "error", false],
    ] as const) {
      await page.keyboard.press(key);
      await page.waitForFunction((name) => document.querySelector(`#layer-${name}`)!.getAttribute("aria-pressed") === "true", layer);
      expect(await page.isChecked("#lock"), layer).toBe(isKept);
    }
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(engines)("plays a flow through time by %s: picture, arrows and samples go along", async (engine) => {
    const { page, faults } = await open("two-moons/t=0/layers=div,arrows", { engine });
    await painted(page, engine);
    await page.click("#loop");
    await page.click("#play");
    expect(await page.getAttribute("#play", "aria-pressed")).toBe("true");
    await page.waitForFunction(() => Number(document.querySelector<HTMLInputElement>("#t")!.value) > 0.5);
    // Not those of the beginning: what is drawn in the midst of the film, and not at its end, is of its time.
    await page.waitForFunction(() => {
      const [t] = JSON.parse(document.querySelector<HTMLElement>("#overlay")!.dataset["arrows"]!) as [number];
      return document.querySelector("#play")!.getAttribute("aria-pressed") === "true" && t > 0.3 && t < 1;
    }, null);
    expect((await workOf(page)).frames).toBeGreaterThan(0);
    await page.waitForFunction(() => document.querySelector("#play")!.getAttribute("aria-pressed") === "false");
    await painted(page, engine);
    expect((await readPainted(page)).context).toEqual([1]);
    // What rests costs nothing, once all of the cloud is there, and the fastest kernels are found.
    await expect.poll(() => workOf(page)).toEqual({ frames: 0, submissions: 0, messages: 0 });
    await page.keyboard.press("5");
    await bare(page, engine);
    await expectColours(page, divergenceOf(await load("two-moons"), [1]));
    // From its end it plays from the beginning.
    await page.click("#play");
    await page.waitForFunction(() => Number(document.querySelector<HTMLInputElement>("#t")!.value) < 0.5);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(engines)("keeps its memory by %s through a hundred changes of the field", async (engine) => {
    const { page, faults } = await open("source/layers=div", {
      engine,
      init: () => {
        const made = { buffers: 0, bytes: 0 };
        (globalThis as unknown as { made: typeof made }).made = made;
        const create: (this: GPUDevice, given: GPUBufferDescriptor) => GPUBuffer = Reflect.get(GPUDevice.prototype, "createBuffer");
        GPUDevice.prototype.createBuffer = function (descriptor) {
          const buffer = create.call(this, descriptor);
          // Of parameters there is one for each submission of the last picture, however many those were.
          const count = descriptor.label?.endsWith("parameters") ? 0 : 1;
          made.buffers += count;
          made.bytes += descriptor.size;
          const destroy = buffer.destroy.bind(buffer);
          let isDestroyed = false;
          buffer.destroy = () => {
            if (!isDestroyed) {
              made.buffers -= count;
              made.bytes -= descriptor.size;
            }
            isDestroyed = true;
            return destroy();
          };
          return buffer;
        };
      },
      // The memory that onnxruntime-web computes in, which grows and never shrinks.
      prepare: async (page) =>
        void (await page.route("**/cpuWorker*.js", async (route) => {
          const response = await route.fetch();
          const counting =
            "globalThis.memories = []; WebAssembly.Memory = class extends WebAssembly.Memory { constructor(given) { super(given); memories.push(this); } };";
          await route.fulfill({ response, body: `${counting}\n${await response.text()}` });
        })),
    });
    await painted(page, engine);
    const session = await page.context().newCDPSession(page);
    const measure = async (): Promise<{ buffers: number; bytes: number; heap: number; wasm: number }> => {
      await session.send("HeapProfiler.collectGarbage");
      const { usedSize, backingStorageSize = 0 } = (await session.send("Runtime.getHeapUsage")) as Record<string, number>;
      const made = await page.evaluate(() => (globalThis as unknown as { made: { buffers: number; bytes: number } }).made);
      const wasm = await Promise.all(
        page
          .workers()
          .map((worker) =>
            worker.evaluate(() =>
              (globalThis as unknown as { memories: WebAssembly.Memory[] }).memories.reduce(
                (sum, { buffer }) => sum + buffer.byteLength,
                0,
              ),
            ),
          ),
      );
      return { ...made, heap: usedSize! + backingStorageSize, wasm: wasm.reduce((sum, bytes) => sum + bytes, 0) };
    };
    // One in ten has a cloud, one time and one a truth.
    const links = ["saddle/layers=div,samples", "two-moons/t=0.9/layers=div", "lorenz/layers=error"];
    for (const name of ["sink", "shear", "rotation", "wells", "saddle", "source", "sink"]) links.push(`${name}/layers=div`);
    const change = async (count: number): Promise<void> => {
      for (let index = 0; index < count; index++) {
        const link = links[index % links.length]!;
        await page.evaluate((hash) => void (location.hash = hash), link);
        await page.waitForFunction(
          (field) => document.querySelector(`[data-field="${field}"]`)!.getAttribute("aria-pressed") === "true",
          link.split("/")[0],
        );
      }
      // The last one's picture, and not that of the one before.
      await page.waitForTimeout(500);
      await painted(page, engine);
    };
    await change(10);
    const few = await measure();
    await change(100);
    // What was asked for on the way is freed when its answer comes; pictures may be finer, if not much more than one.
    await expect
      .poll(async () => {
        const many = await measure();
        return {
          buffers: many.buffers - few.buffers > 8,
          bytes: many.bytes > 2 * few.bytes + 4e6,
          heap: many.heap > few.heap + 3e6,
          wasm: many.wasm > few.wasm + 12e6,
        };
      })
      .toEqual({ buffers: false, bytes: false, heap: false, wasm: false });
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test.for(["particles", "lorenz"])("the example %s draws frame after frame", async (name) => {
    const page = await browser.newPage({ viewport: { width: 500, height: 400 } });
    const faults = watch(page, address);
    await page.goto(`${address}examples/${name}.html`);
    await page.waitForFunction(() => Number(document.querySelector("canvas")!.dataset["frames"]) >= 4);
    const { data, channels } = decode(await page.screenshot({ clip: { x: 0, y: 90, width: 500, height: 300 } }));
    // Dots on the dark: bright pixels, and not all of them.
    const bright = Array.from({ length: data.length / channels }, (_, index) => data[channels * index]! > 120).filter(Boolean).length;
    expect(bright).toBeGreaterThan(300);
    expect(bright).toBeLessThan(100_000);
    expect(faults).toEqual([]);
    await page.close();
  });

  test("the lens goes along with keys, which drop ink and paint as well", async () => {
    const { page, faults } = await open("van-der-pol/x=0,0/w=6/layers=div", { engine: "onnxruntime" });
    await painted(page, "onnxruntime");
    await page.focus("#overlay");
    await page.keyboard.press("l");
    const lensAt = (a: number) =>
      page.waitForFunction((expected) => {
        const { lens } = document.querySelector<HTMLElement>("#motion")!.dataset;
        return lens !== undefined && Math.abs((JSON.parse(lens) as { at: number[] }).at[0]! - expected) < 1e-6;
      }, a);
    await lensAt(0);
    await page.keyboard.press("ArrowRight");
    await lensAt(0.5);
    const ink = (): Promise<string | null> => page.getAttribute("#motion", "data-ink");
    await page.keyboard.down("i");
    await expect.poll(ink).not.toBeNull();
    await page.keyboard.up("i");
    expect(await ink()).toBeNull();
    await page.click("#draw-toggle");
    await page.focus("#overlay");
    for (const key of ["Enter", "Enter", "ArrowLeft", "Enter"]) await page.keyboard.press(key);
    expect(await page.getAttribute("#draw-status", "data-points")).toBe("60");
    expect(await page.isVisible("#ledger")).toBe(false);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("can be used by keys alone", async () => {
    // Of a field that has all layers.
    const { page } = await open(plain("two-moons", `truth=${encodeURIComponent("0, 0")}/${PLAIN}`));
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
    await page.locator("#ledger").waitFor({ state: "hidden" });
    // The first is on until its key; of the grounds there is one at a time.
    for (const [index, layer] of layers.entries()) {
      await page.keyboard.press(String(index + 1));
      await page.waitForFunction(
        ([name, on]) => document.querySelector(`#layer-${name}`)!.getAttribute("aria-pressed") === on,
        [layer, String(layer !== "div")],
      );
    }
    expect(await page.getAttribute("#layer-density", "aria-pressed")).toBe("false");
    await page.context().close();
  });

  test("no panel has a serious fault for those who cannot see it or lies over another part, by day and night, wide and narrow", async () => {
    // Which says that it computes on the CPU; what plays would take all of that.
    const prepare = (page: Page): Promise<void> => page.emulateMedia({ reducedMotion: "reduce" });
    const { page, faults } = await open("van-der-pol/layers=div/contour=off", { engine: null, prepare });
    await painted(page, "onnxruntime");
    const toggled = (panel: string, toggle: string) => ({ panel, open: () => page.click(toggle), close: () => page.click(toggle) });
    const states = [
      toggled("#settings", "#settings-toggle"),
      toggled("#share", "#share-toggle"),
      toggled("#comparison-panel", "#compare-toggle"),
      toggled("#draw", "#draw-toggle"),
      toggled("#split", "#split-toggle"),
      { panel: "#ledger", open: () => page.locator("#overlay").press("Enter"), close: () => page.click("#unpin") },
      {
        panel: "#question",
        open: () =>
          page.setInputFiles("#file", {
            name: "quiet.safetensors",
            mimeType: "application/octet-stream",
            buffer: Buffer.from(tensors({ "0.weight": [8, 3], "2.weight": [2, 8] }, {})),
          }),
        close: () => page.click("#file-cancel"),
      },
      // The last, as it changes the field.
      toggled("#story", "#story-toggle"),
    ];
    for (const size of [{ width: 420, height: 850 }, SIZE]) {
      await page.setViewportSize(size);
      await painted(page, "onnxruntime");
      for (const { panel, open, close } of states) {
        await page.click("#theme");
        await open();
        await page.locator(panel).waitFor();
        // All of the page once; then what is new.
        const axe = new AxeBuilder({ page });
        const { violations } = await (panel === "#settings" ? axe : axe.include(panel)).analyze();
        expect(
          violations
            .filter(({ impact }) => impact === "serious" || impact === "critical")
            .map(({ id, nodes }) => `${id}: ${nodes[0]!.html}`),
          `${size.width} ${panel}`,
        ).toEqual([]);
        expect(await crowded(page), `${size.width} ${panel}`).toEqual([]);
        // While Draw is open Enter paints, and a question has the keys for itself.
        if (!["#ledger", "#draw", "#question"].includes(panel)) {
          await page.locator("#overlay").press("Enter");
          await page.waitForFunction(() => !document.querySelector<HTMLElement>("#ledger")!.hidden);
          expect(await crowded(page), `${size.width} ${panel} and a pin`).toEqual([]);
          await page.locator("#overlay").press("Escape");
          await page.waitForFunction(() => document.querySelector<HTMLElement>("#ledger")!.hidden);
        }
        await close();
      }
      // Each panel by night once, and once by day.
      await page.click("#theme");
    }
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("beside a GPU it is the GPU that learns, in front of the visitor", async () => {
    // What plays has no finest picture, after which kernels would be tried for minutes; the last of these tests, since a GPU in software ends
    // late what it has begun.
    const { page, faults } = await open("source/x=0,0/w=6/layers=samples", {
      engine: null,
      init: beHardware,
      prepare: async (page) => void (await page.addInitScript(beLosable)),
    });
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#canvas")!.dataset["engine"] === "webgpu");
    await page.click("#draw-toggle");
    await page.click("#example");
    await page.click("#train");
    const status = page.locator("#draw-status[data-loss]");
    await status.waitFor();
    expect(await status.textContent()).toMatch(/^step \d+, [\d.]+ a second, loss [\d.]+$/);
    await page.waitForFunction(() => document.querySelector("#headline")!.textContent.startsWith("This network learned your 1500 points"));
    expect(page.workers()).toEqual([]);
    expect(faults).toEqual([]);
    await lose(page);
    await page.locator("#draw-status", { hasText: "Learning ended with the GPU, which was lost" }).waitFor();
    expect(await page.textContent("#train")).toBe("Train");
    await page.context().close();
  });
});

/** Which parts of the page lie over one another, or reach out of the window. */
function crowded(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const parts = [...document.querySelectorAll("#headline, .bar .chips, .notice, #shelf, .panel, #split, #clock, #hint, .status")]
      .map((part) => ({ name: part.id || part.getAttribute("aria-label") || part.className, box: part.getBoundingClientRect() }))
      .filter(({ box }) => box.width > 0 && box.height > 0);
    const out = parts.filter(({ box }) => box.left < -1 || box.top < -1 || box.right > innerWidth + 1 || box.bottom > innerHeight + 1);
    const over = parts.flatMap((one, index) =>
      parts.slice(index + 1).flatMap((other) => {
        const across = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
        const down = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
        return across > 1 && down > 1 ? [`${one.name} over ${other.name}`] : [];
      }),
    );
    return [...out.map(({ name }) => `${name} out of the window`), ...over];
  });
}

/** The field that is there without anything over its colours. */
async function bare(page: Page, engine: EngineName = "webgpu"): Promise<void> {
  await page.evaluate(() => {
    for (const layer of ["samples", "arrows", "paths"]) {
      const chip = document.querySelector<HTMLButtonElement>(`#layer-${layer}`)!;
      if (chip.getAttribute("aria-pressed") === "true") chip.click();
    }
    const ground = document.querySelector<HTMLButtonElement>("#layer-div")!;
    if (ground.getAttribute("aria-pressed") === "false") ground.click();
    const play = document.querySelector<HTMLButtonElement>("#play")!;
    if (play.getAttribute("aria-pressed") === "true") play.click();
    const contour = document.querySelector<HTMLInputElement>("#contour")!;
    document.querySelector<HTMLElement>("#canvas")!.dataset["state"] = "";
    if (contour.checked) contour.click();
    else document.querySelector<HTMLButtonElement>("#reset")!.click();
  });
  await painted(page, engine);
  await page.waitForTimeout(100);
}

/** The images over the plane of the digits are what the flow makes of its points. */
async function expectImages(page: Page, network: Network): Promise<void> {
  const { plane, view, context } = await readPainted(page);
  const { left, top, right, bottom } = withinAxes({ size: SIZE, margins: await marginsOf(page) });
  const [width, height] = [SIZE.width - left - right, SIZE.height - top - bottom];
  // As many as there is room for, 92 pixels apart or more.
  const [columns, rows] = [Math.floor(width / 92), Math.floor(height / 92)];
  const places = [0, Math.floor((columns * rows) / 2), columns * rows - 1].map(
    (index) => [left + (((index % columns) + 0.5) / columns) * width, top + ((Math.floor(index / columns) + 0.5) / rows) * height] as const,
  );
  const starts = places.flatMap(([x, y]) => pointOn({ ...plane, names: ["", ""] }, ...atPixel(view, SIZE, x, y)));
  const { points } = transportReference(network, starts, { solver: "rk4", steps: 12, from: context[0]!, to: 1 });
  const pixels = await pixelsOf(page);
  for (const [image, [x, y]] of places.entries())
    for (let pixel = 0; pixel < 64; pixel++) {
      const shade = 255 * (0.5 - 0.5 * Math.min(1, Math.max(-1, points[64 * image + pixel]!)));
      const found = pixels(x - 28 + 7 * ((pixel % 8) + 0.5), y - 28 + 7 * (Math.floor(pixel / 8) + 0.5));
      expect(distance(found, [shade, shade, shade]), `pixel ${pixel} of the image at ${x}, ${y}`).toBeLessThanOrEqual(3);
    }
}

/** From a point to the nearest of a segment. */
function toSegment([x, y]: readonly [number, number], [x0, y0]: readonly [number, number], [x1, y1]: readonly [number, number]): number {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const share = Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - x0 - share * dx, y - y0 - share * dy);
}

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
