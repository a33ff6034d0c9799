/** The package as its users get it: packed, and installed into a project outside this one. */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);

export interface Project {
  readonly folder: string;
  readonly write: (name: string, text: string) => Promise<void>;
  readonly remove: () => Promise<void>;
}

export interface ProjectOptions {
  /** A folder with a package.json and a package-lock.json: the project is a copy of it. Default an empty project. */
  readonly like?: string;
  /** What the project needs beside the package, as npm names it. */
  readonly others?: readonly string[];
}

export async function makeProject({ like, others = [] }: ProjectOptions = {}): Promise<Project> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "deldot-project-")));
  const write = async (name: string, text: string): Promise<void> => {
    await mkdir(join(folder, name, ".."), { recursive: true });
    await writeFile(join(folder, name), text);
  };
  if (like === undefined) await write("package.json", JSON.stringify({ private: true, type: "module" }));
  else await cp(like, folder, { recursive: true, filter: (path) => basename(path) !== "node_modules" });
  // `npm test` has built dist already.
  const { stdout } = await run("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", folder], { cwd: root });
  const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
  await run("npm", ["install", "--no-audit", "--no-fund", "--prefer-offline", `./${filename}`, ...others], { cwd: folder });
  return { folder, write, remove: () => rm(folder, { recursive: true, force: true }) };
}

const types: Readonly<Record<string, string>> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".map": "application/json",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

/** Serves a folder's files, as any static server does. */
export async function serve(
  folder: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<{ origin: string; close: () => void }> {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url!, "http://localhost");
    readFile(join(folder, pathname)).then(
      (file) => response.writeHead(200, { ...headers, "content-type": types[extname(pathname)] ?? "application/octet-stream" }).end(file),
      () => response.writeHead(pathname === "/favicon.ico" ? 204 : 404).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close: () => server.close() };
}
