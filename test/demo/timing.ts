/**
 * Times the page in a headless Chromium on its software GPU, by each engine: the first picture and the first sample that moves, in milliseconds
 * after the page was asked for; what its layout shifts by; and the frames while a pointer drags the field along. Medians. Ends with 1 where
 * one is over its limit.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { openBrowser } from "../browser.js";
import { addressOf, serveSite, type EngineName } from "./site.js";

const VISITS = 3;
const SIZE = { width: 1280, height: 800 };
const engines: readonly EngineName[] = ["webgpu", "onnxruntime"];
/** One that plays, and one that stands. */
const panned = { playing: "two-moons", still: "van-der-pol/layers=div,arrows" };
const DRAGS = 40;
/** Of milliseconds to the first picture and to samples that move, of what the layout shifts by, and of the slowest of 20 frames: three of 60 Hz. */
const limits = { picture: 2000, samples: 3000, shift: 0.001, frame: 50.5 };

interface Seen {
  picture: number | null;
  samples: number | null;
  shift: number;
}

/** Runs in the page, before anything of its own does. */
function watchOpening(): void {
  const seen: Seen = { picture: null, samples: null, shift: 0 };
  Object.assign(globalThis, { seen });
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) seen.shift += (entry as PerformanceEntry & { readonly value: number }).value;
  }).observe({ type: "layout-shift", buffered: true });
  let [time, moves] = ["", 0];
  const look = (): void => {
    if (document.querySelector<HTMLElement>("#canvas")?.dataset["columns"]) seen.picture ??= performance.now();
    const now = document.querySelector<HTMLInputElement>("#t")?.value ?? "";
    // The clock is set once before it goes.
    if (now !== time && ++moves > 2) seen.samples ??= performance.now();
    time = now;
    if (seen.picture === null || seen.samples === null) requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}

/** tsx names the functions inside of a function by one of its own, which a page does not have. */
const NAME = "globalThis.__name = (named) => named";

async function opening(browser: Browser, address: string, engine: EngineName): Promise<Seen> {
  const context = await browser.newContext({ viewport: SIZE });
  const page = await context.newPage();
  await page.addInitScript(NAME);
  await page.addInitScript(watchOpening);
  await page.goto(addressOf(address, engine, ""));
  const seen = (): Promise<Seen> => page.evaluate(() => (globalThis as unknown as { seen: Seen }).seen);
  await page.waitForFunction(
    () => {
      const { picture, samples } = (globalThis as unknown as { seen: Seen }).seen;
      return picture !== null && samples !== null;
    },
    null,
    { timeout: 60_000 },
  );
  await page.waitForTimeout(500);
  const last = await seen();
  await context.close();
  return last;
}

/** Milliseconds from frame to frame while the field is dragged. */
async function panning(browser: Browser, address: string, engine: EngineName, hash: string): Promise<number[]> {
  const context = await browser.newContext({ viewport: SIZE });
  const page = await context.newPage();
  await page.addInitScript(NAME);
  await page.goto(addressOf(address, engine, hash));
  await page.waitForFunction(() => document.querySelector<HTMLElement>("#canvas")?.dataset["columns"] !== undefined);
  await page.waitForTimeout(3000);
  await page.evaluate(() => {
    const frames: number[] = [];
    Object.assign(globalThis, { frames });
    const next = (now: number): void => {
      frames.push(now);
      requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  });
  await page.mouse.move(640, 400);
  await page.mouse.down();
  for (let i = 1; i <= DRAGS; i++) {
    const turn = (2 * Math.PI * i) / 60;
    await page.mouse.move(640 + 150 * Math.sin(turn), 250 + 150 * Math.cos(turn));
    await page.waitForTimeout(12);
  }
  const frames = await page.evaluate(() => (globalThis as unknown as { frames: number[] }).frames);
  await page.mouse.up();
  await context.close();
  return frames.slice(1).map((at, i) => at - frames[i]!);
}

function quantile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(share * (values.length - 1))]!;
}

const folder = await mkdtemp(join(tmpdir(), "deldot-site-"));
const { server, address } = await serveSite(folder);
const { browser, close } = await openBrowser();
const openings = new Map<EngineName, Seen[]>(engines.map((engine) => [engine, []]));
const pans = new Map<string, number[]>();
// The browser's own first page is nobody's.
await opening(browser, address, "onnxruntime");
for (let visit = 0; visit < VISITS; visit++)
  for (const engine of engines) {
    openings.get(engine)!.push(await opening(browser, address, engine));
    for (const [name, hash] of Object.entries(panned)) {
      const key = `${engine}, ${name}`;
      pans.set(key, [...(pans.get(key) ?? []), ...(await panning(browser, address, engine, hash))]);
    }
  }
await close();
server.close();
await rm(folder, { recursive: true });

const over: string[] = [];
console.log("| engine | first picture, ms | samples move, ms | layout shift |\n|---|---:|---:|---:|");
for (const [engine, seen] of openings) {
  const median = (key: keyof Seen): number =>
    quantile(
      seen.map((each) => each[key]!),
      0.5,
    );
  for (const key of ["picture", "samples", "shift"] as const)
    if (median(key) > limits[key]) over.push(`${engine}: ${key} ${median(key)}; at most ${limits[key]}`);
  console.log(`| ${engine} | ${median("picture").toFixed(0)} | ${median("samples").toFixed(0)} | ${median("shift").toFixed(4)} |`);
}
console.log("\n| panning | frames a second | median frame, ms | slowest of 20, ms |\n|---|---:|---:|---:|");
for (const [key, frames] of pans) {
  const total = frames.reduce((sum, each) => sum + each, 0);
  const slowest = quantile(frames, 0.95);
  if (slowest > limits.frame) over.push(`${key}: the slowest of 20 frames took ${slowest.toFixed(0)} ms; at most ${limits.frame}`);
  const cells = [(1000 * frames.length) / total, quantile(frames, 0.5), slowest].map((x) => x.toFixed(0));
  console.log(`| ${key} | ${cells.join(" | ")} |`);
}
for (const line of over) console.log(`\nOver its limit: ${line}`);
if (over.length > 0) process.exitCode = 1;
