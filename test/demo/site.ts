/** The built page, served from a sub-path as a static host would, and a browser to look at it. */
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import { build } from "vite";
import type { Domain } from "../../demo/src/base/colour.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const TYPES: Record<string, string> = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm" };

/** With which `npm start` serves the page, unlike most static hosts. */
const ISOLATION = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };

/** Builds demo/ into a folder and serves it under /some/path/, and, isolated from other origins, under /isolated/. */
export async function serveSite(folder: string): Promise<{ server: Server; address: string; isolated: string }> {
  await build({ configFile: join(root, "demo/vite.config.ts"), logLevel: "error", build: { outDir: folder, emptyOutDir: true } });
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url!, "http://localhost");
    const path = pathname.replace(/^\/(some\/path|isolated)\//, "/").replace(/\/$/, "/index.html");
    const type = { "content-type": TYPES[extname(path)] ?? "application/octet-stream" };
    readFile(join(folder, path)).then(
      (file) => response.writeHead(200, pathname.startsWith("/isolated/") ? { ...type, ...ISOLATION } : type).end(file),
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const host = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { server, address: `${host}/some/path/`, isolated: `${host}/isolated/` };
}

/** What a page must not do: errors on its console, requests to other hosts. */
export function watch(page: Page, address: string): string[] {
  const faults: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error") faults.push(message.text());
  });
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !/^(data|blob):/.test(url)) faults.push(`a request to ${url}`);
  });
  return faults;
}

export type EngineName = "webgpu" | "onnxruntime" | "reference";

/** Waits for the finest picture. */
export async function painted(page: Page, engine: EngineName = "webgpu"): Promise<void> {
  const isDone = (engine: string): boolean => {
    const data = document.querySelector<HTMLElement>("#canvas")?.dataset;
    return data?.["engine"] === engine && data["state"] === "done";
  };
  await page.waitForFunction(isDone, engine, { timeout: 120_000 });
}

/** Has the next painted() wait for a picture that is not the one there is now. */
export async function forget(page: Page): Promise<void> {
  await page.evaluate(() => void (document.querySelector<HTMLElement>("#canvas")!.dataset["state"] = ""));
}

export interface Painted {
  readonly domain: Domain;
  readonly ground: string;
  readonly columns: number;
  readonly rows: number;
  readonly plane: { readonly origin: number[]; readonly u: number[]; readonly v: number[] };
  readonly view: { readonly a: number; readonly b: number; readonly width: number };
  readonly context: readonly number[];
}

/** What the page says that its pixels stand for. */
export async function readPainted(page: Page): Promise<Painted> {
  return paintedFrom(
    await page.evaluate(() => Object.fromEntries(Object.entries(document.querySelector<HTMLElement>("#canvas")!.dataset))),
  );
}

/** What is written on the canvas. */
export function paintedFrom(data: Readonly<Record<string, string | undefined>>): Painted {
  return {
    domain: JSON.parse(data["domain"]!) as Domain,
    ground: data["ground"]!,
    columns: Number(data["columns"]),
    rows: Number(data["rows"]),
    plane: JSON.parse(data["plane"]!) as Painted["plane"],
    view: JSON.parse(data["view"]!) as Painted["view"],
    context: JSON.parse(data["context"]!) as number[],
  };
}

/** A link to the page as one engine shows it, with its whole window free of what moves. */
export function addressOf(address: string, engine: EngineName | null, hash: string): string {
  return `${address}${engine ? `?engine=${engine}` : ""}${hash ? `#${hash}` : ""}`;
}
