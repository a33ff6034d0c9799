/** Photographs the page for the README: `npm run screenshots`. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { initialState, toHash, type State } from "../../demo/src/state.js";
import { openBrowser } from "../browser.js";
import { painted, serveSite } from "./site.js";

const shots: readonly { name: string; width: number; height: number; dark: boolean; state: Partial<State> }[] = [
  { name: "page-light", width: 1280, height: 960, dark: false, state: { pin: [0, 0] } },
  {
    name: "page-dark",
    width: 1280,
    height: 860,
    dark: true,
    state: { field: "van-der-pol", context: [], view: { a: 0, b: 0, width: 7 }, panels: "all", pin: [1, 1] },
  },
  {
    name: "page-narrow",
    width: 420,
    height: 860,
    dark: false,
    state: { field: "taylor-green", context: [], view: { a: 0, b: 0, width: 6.4 }, pin: [1, 1] },
  },
];

const images = fileURLToPath(new URL("../../demo/images/", import.meta.url));
const folder = await mkdtemp(join(tmpdir(), "deldot-site-"));
const { server, address } = await serveSite(folder);
const { browser, close } = await openBrowser();
for (const { name, width, height, dark, state } of shots) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light" });
  const page = await context.newPage();
  await page.goto(`${address}?engine=webgpu#${toHash({ ...initialState, ...state })}`);
  await painted(page);
  await page.locator('[data-probe="exact"]').waitFor();
  await page.screenshot({ path: join(images, `${name}.png`) });
  await context.close();
}
await close();
server.close();
await rm(folder, { recursive: true });
