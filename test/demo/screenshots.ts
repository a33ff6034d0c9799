/** Photographs and films the page for the README: `npm run screenshots`. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openBrowser } from "../browser.js";
import { addressOf, painted, serveSite } from "./site.js";

const shots: readonly { name: string; width: number; height: number; theme: "dark" | "light"; hash: string }[] = [
  { name: "page-dark", width: 1280, height: 800, theme: "dark", hash: "two-moons/t=0.8/layers=div,samples,paths/pin=0.8,0.4" },
  { name: "page-light", width: 1280, height: 800, theme: "light", hash: "van-der-pol/layers=div,samples,arrows" },
  { name: "page-narrow", width: 420, height: 850, theme: "dark", hash: "checkerboard/t=0.95/layers=density,samples" },
];

const images = fileURLToPath(new URL("../../demo/images/", import.meta.url));
const folder = await mkdtemp(join(tmpdir(), "deldot-site-"));
const { server, address } = await serveSite(folder);
const { browser, close } = await openBrowser();
for (const { name, width, height, theme, hash } of shots) {
  const context = await browser.newContext({ viewport: { width, height } });
  const page = await context.newPage();
  await page.goto(addressOf(`${address}?theme=${theme}&engine=onnxruntime`, null, hash));
  await painted(page, "onnxruntime");
  // What has no time to stand at is stopped for a picture.
  if (!hash.includes("/t=")) await page.locator("#overlay").press("Space");
  await page.evaluate(() => (document.querySelector<HTMLElement>("#hint")!.hidden = true));
  // The shelf's pictures are drawn when nothing else is to do.
  await page.waitForTimeout(6000);
  await page.screenshot({ path: join(images, `${name}.png`) });
  await context.close();
}
await close();
server.close();
await rm(folder, { recursive: true });
