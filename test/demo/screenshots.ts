/** Photographs and films the page for the README: `npm run screenshots`, or `-- film` or `-- photographs` for one of them. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import sharp from "sharp";
import { openBrowser } from "../browser.js";
import { addressOf, forget, painted, serveSite } from "./site.js";

const shots: readonly { name: string; width: number; height: number; theme: "dark" | "light"; hash: string }[] = [
  { name: "page-dark", width: 1280, height: 800, theme: "dark", hash: "two-moons/t=0.8/layers=div,samples,paths/pin=0.8,0.4" },
  { name: "page-light", width: 1280, height: 800, theme: "light", hash: "van-der-pol/layers=div,samples,arrows" },
  { name: "page-narrow", width: 420, height: 850, theme: "dark", hash: "checkerboard/t=0.95/layers=density,samples" },
];

/** From noise to data, and a while there. */
const film = { name: "page", width: 960, height: 600, hash: "two-moons/t=0/layers=div,samples", step: 0.04, milliseconds: 110, rest: 1600 };

const images = fileURLToPath(new URL("../../demo/images/", import.meta.url));
const folder = await mkdtemp(join(tmpdir(), "deldot-site-"));
const { server, address } = await serveSite(folder);
const { browser, close } = await openBrowser();

async function open(width: number, height: number, theme: "dark" | "light", hash: string): Promise<Page> {
  const context = await browser.newContext({ viewport: { width, height } });
  const page = await context.newPage();
  await page.goto(addressOf(`${address}?theme=${theme}&engine=onnxruntime`, null, hash));
  await painted(page, "onnxruntime");
  await page.evaluate(() => (document.querySelector<HTMLElement>("#hint")!.hidden = true));
  // The shelf's pictures are drawn when nothing else is to do.
  await page.waitForTimeout(6000);
  return page;
}

const only = process.argv[2];
for (const { name, width, height, theme, hash } of only === "film" ? [] : shots) {
  const page = await open(width, height, theme, hash);
  // What has no time to stand at is stopped for a picture.
  if (!hash.includes("/t=")) await page.locator("#overlay").press("Space");
  await page.screenshot({ path: join(images, `${name}.png`) });
  await page.context().close();
}
if (only !== "photographs") {
  const { name, width, height, hash, step, milliseconds, rest } = film;
  const page = await open(width, height, "dark", hash);
  const pictures: Buffer[] = [];
  const times = Array.from({ length: Math.ceil(1 / step) + 1 }, (_, frame) => String(Number(Math.min(1, frame * step).toFixed(2))));
  for (const time of times) {
    await forget(page);
    await page.locator("#t").fill(time);
    await page.locator("#t").blur();
    await painted(page, "onnxruntime");
    pictures.push(await page.screenshot());
  }
  const delay = pictures.map((_, frame) => (frame < times.length - 1 ? milliseconds : rest));
  await sharp(pictures, { join: { animated: true } })
    .webp({ quality: 85, smartSubsample: true, effort: 6, delay })
    .toFile(join(images, `${name}.webp`));
  await page.context().close();
}
await close();
server.close();
await rm(folder, { recursive: true });
