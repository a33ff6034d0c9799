import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import type { Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasBrowser, openBrowser } from "../browser.js";
import { serveSite } from "./site.js";

let server: Server;
let address: string;
let folder: string;
let pages: string[];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "deldot-site-"));
  ({ server, address } = await serveSite(folder));
  pages = (await readdir(folder, { recursive: true })).filter((file) => file.endsWith(".html"));
});
afterAll(async () => {
  await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true });
});

test("whatever a page names is there, an icon among it", async () => {
  expect(pages).toHaveLength(3);
  for (const page of pages) {
    const html = await readFile(join(folder, page), "utf8");
    const named = [...html.matchAll(/<(?:a|link|script|img)\b[^>]*?\b(?:href|src)="([^"]+)"/g)].map(([, name]) => name!);
    expect(named.length).toBeGreaterThan(2);
    for (const name of named) expect((await fetch(new URL(name, address + page))).status, `${name} of ${page}`).toBe(200);
    const [, icon] = /<link\s+rel="icon"\s+href="([^"]+)"/.exec(html)!;
    expect(await (await fetch(new URL(icon!, address + page))).text()).toMatch(/^<svg .*<\/svg>\s*$/s);
  }
});

test("the published site alone leads to the API reference, which it alone has: whoever starts the page does not wait for that", async () => {
  const { scripts } = JSON.parse(await readFile(new URL("../../package.json", import.meta.url), "utf8")) as {
    scripts: Record<string, string>;
  };
  expect(scripts["build:demo"]).toMatch(/--mode site && npm run docs /);
  expect(scripts["start"]).toMatch(/^vite build [^&]*&& vite preview [^&]*$/);
  expect(scripts["start"]).not.toMatch(/docs|site/);
  expect(scripts["prestart"]).toBeUndefined();
  const configFile = fileURLToPath(new URL("../../demo/vite.config.ts", import.meta.url));
  const site = join(folder, "site");
  await build({ configFile, mode: "site", logLevel: "error", build: { outDir: site } });
  const api = '<a href="./api/index.html">';
  expect(await readFile(join(site, "index.html"), "utf8")).toContain(api);
  expect(await readFile(join(folder, "index.html"), "utf8")).not.toContain(api);
});

test("the API reference has the pages' icon", async () => {
  const docs = fileURLToPath(new URL("../../docs/", import.meta.url));
  const { favicon } = JSON.parse(await readFile(join(docs, "typedoc.json"), "utf8")) as { favicon: string };
  expect((await stat(join(docs, favicon))).isFile()).toBe(true);
});

describe.skipIf(!hasBrowser)("in a browser", () => {
  test("no page asks for what is not there", async () => {
    const { browser, close } = await openBrowser();
    try {
      for (const page of pages) {
        const tab = await browser.newPage();
        const missing: string[] = [];
        tab.on("response", (response) => response.status() >= 400 && missing.push(`${response.status()} ${response.url()}`));
        await tab.goto(address + page, { waitUntil: "networkidle" });
        expect(missing, page).toEqual([]);
        await tab.close();
      }
    } finally {
      await close();
    }
  });
});
