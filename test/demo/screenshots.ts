/**
 * Photographs and films the page for the README: `npm run screenshots`, or `-- film` or `-- photographs` for one of them;
 * `-- matrix FOLDER` puts the page in all sizes, themes, layers and states into a folder, to look at; `-- matrix FOLDER "900 dark"`
 * a part of them.
 */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
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

const sizes = [
  [1600, 1000],
  [1280, 800],
  [900, 700],
  [420, 850],
] as const;

/** What is looked at in each size and theme: a link, and what is pressed then. */
const states: Readonly<Record<string, { readonly hash: string; readonly press?: readonly string[] }>> = {
  div: { hash: "two-moons/t=0.8/layers=div" },
  density: { hash: "two-moons/t=1/layers=density" },
  samples: { hash: "two-moons/t=0.8/layers=div,samples" },
  paths: { hash: "two-moons/t=0.8/layers=div,paths/pin=0.8,0.4" },
  arrows: { hash: "van-der-pol/layers=div,arrows" },
  error: { hash: "lorenz/layers=samples,error" },
  digits: { hash: "digits/t=0.5/layers=div,samples" },
  formula: { hash: `formula/f=${encodeURIComponent("sin(x)*y + x*exp(-y*y), (1 - x*x)*y - x + 0.3*cos(3*x*y)")}/layers=div,arrows` },
  lens: { hash: "wells/x=0,0/w=6/layers=div,arrows", press: ["#lens-toggle"] },
  split: { hash: "van-der-pol/layers=div", press: ["#split-toggle"] },
  story: { hash: "shear/layers=div", press: ["#story-toggle"] },
  draw: { hash: "source/layers=div", press: ["#draw-toggle", "#example"] },
  settings: { hash: "lorenz/layers=div/pin=1,2", press: ["#settings-toggle"] },
  methods: { hash: "van-der-pol/layers=div", press: ["#compare-toggle"] },
  share: { hash: "two-moons/t=0.8/layers=div", press: ["#share-toggle"] },
};

const [only, folderOfAll, part = ""] = process.argv.slice(2);
if (only === "matrix" && !folderOfAll) throw new Error("expected a folder: npm run screenshots -- matrix FOLDER");
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
  await page.waitForFunction(() =>
    [...document.querySelectorAll<HTMLCanvasElement>("[data-field] canvas")].every(
      (canvas) => canvas.getContext("2d")!.getImageData(24, 15, 1, 1).data[3] === 255,
    ),
  );
  await page.waitForTimeout(1000);
  return page;
}

/** What has no time to stand at is stopped for a picture. */
async function still(page: Page): Promise<void> {
  if ((await page.getAttribute("#play", "aria-pressed")) === "false") return;
  await forget(page);
  await page.click("#play");
  await painted(page, "onnxruntime");
}

if (only === "matrix" && folderOfAll) {
  await mkdir(folderOfAll, { recursive: true });
  for (const [width, height] of sizes)
    for (const theme of ["dark", "light"] as const) {
      const wanted = Object.entries(states).filter(([name]) => `${width} ${theme} ${name}`.includes(part));
      if (wanted.length === 0) continue;
      const page = await open(width, height, theme, "rotation");
      for (const [name, { hash, press = [] }] of wanted) {
        await forget(page);
        await page.evaluate((link) => void (location.hash = link), hash);
        await painted(page, "onnxruntime");
        for (const button of press) await page.click(button);
        await page.waitForTimeout(500);
        await still(page);
        await page.waitForTimeout(500);
        await page.screenshot({ path: join(folderOfAll, `${width} ${theme} ${name}.png`) });
        // As it was before.
        await page.keyboard.press("Escape");
        for (const button of press) if ((await page.getAttribute(button, "aria-pressed")) === "true") await page.click(button);
      }
      await page.context().close();
    }
}
for (const { name, width, height, theme, hash } of only === "film" || only === "matrix" ? [] : shots) {
  const page = await open(width, height, theme, hash);
  await still(page);
  await page.screenshot({ path: join(images, `${name}.png`) });
  await page.context().close();
}
if (only !== "photographs" && only !== "matrix") {
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
