import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** `npx vite examples/storage-texture` serves the page. It imports the package by its name; here that is this repository's source. */
export default defineConfig({
  root: here("."),
  base: "./",
  resolve: { alias: { deldot: here("../../src/index.ts") } },
  server: { fs: { allow: [here("../..")] } },
  build: { outDir: here("dist"), target: "es2023" },
});
