import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const manifest = JSON.parse(readFileSync(createRequire(import.meta.url).resolve("deldot/package.json"), "utf8")) as { version: string };

/** This package's. */
export const version: string = manifest.version;
