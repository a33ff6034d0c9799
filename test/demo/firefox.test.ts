/** The page in Firefox, where it is installed, by WebDriver BiDi: another browser, and another WebGPU. */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import type { Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { launch, type Browser, type Page } from "puppeteer-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseSafetensors } from "../../src/index.js";
import { leaveOut } from "../leaveOut.js";
import { divergenceOf, expectPixels } from "./pixels.js";
import { addressOf, paintedFrom, serveSite, type EngineName } from "./site.js";

const executablePath = ["/usr/bin/firefox-esr", "/usr/bin/firefox"].find((path) => existsSync(path));
if (!executablePath) leaveOut('the page is not tested in Firefox, which is not here; "apt-get install firefox-esr" brings it');
const SIZE = { width: 900, height: 700 };
/** Firefox keeps the devices of machines without a GPU off WebGPU, unless it is told otherwise. */
const preferences = { "dom.webgpu.enabled": true, "gfx.webgpu.ignore-blocklist": true };

describe.skipIf(!executablePath)("in Firefox", () => {
  let browser: Browser;
  let folder: string;
  let server: Server;
  let address: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "deldot-site-"));
    ({ server, address } = await serveSite(folder));
    browser = await launch({
      browser: "firefox",
      executablePath: executablePath!,
      headless: true,
      defaultViewport: SIZE,
      extraPrefsFirefox: preferences,
    });
  });
  afterAll(async () => {
    await browser?.close();
    await new Promise((resolve) => server.close(resolve));
    await rm(folder, { recursive: true });
  });

  async function open(engine: EngineName | null, hash: string): Promise<{ page: Page; faults: string[] }> {
    const page = await browser.newPage();
    const faults: string[] = [];
    page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
    page.on("pageerror", (error) => faults.push(String(error)));
    await page.goto(addressOf(address, engine, hash));
    return { page, faults };
  }

  const isDone = (): boolean => document.querySelector<HTMLElement>("#canvas")?.dataset["state"] === "done";
  const data = (page: Page): Promise<Record<string, string | undefined>> =>
    page.evaluate(() => Object.fromEntries(Object.entries(document.querySelector<HTMLElement>("#canvas")!.dataset)));

  test.for(["webgpu", "onnxruntime"] as const)("two moons by %s: colours are those of the float64 divergence", async (engine) => {
    const network = parseSafetensors(await readFile(new URL("../../demo/models/two-moons.safetensors", import.meta.url)));
    const { page, faults } = await open(engine, "two-moons/t=0.9/layers=div/contour=off");
    await page.waitForFunction(isDone, { timeout: 60_000 });
    const shown = await data(page);
    expect(shown["engine"]).toBe(engine);
    expectPixels(await page.screenshot(), paintedFrom(shown), SIZE, divergenceOf(network, [0.9]), 120);
    expect(faults).toEqual([]);
    await page.close();
  });

  test("opens on two moons, and its clock goes", async () => {
    const { page, faults } = await open(null, "");
    await page.waitForFunction(() => Number(document.querySelector<HTMLInputElement>("#t")?.value) > 0.2, { timeout: 60_000 });
    expect(await page.$eval("#headline", (line) => line.textContent)).toMatch(/two moons/);
    expect(faults).toEqual([]);
    await page.close();
  });
});
