import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The page imports the package by its name, as any app would; here that is this repository's source. */
export default defineConfig({
  root: here("."),
  // Relative addresses: the site works from any sub-path.
  base: "./",
  resolve: { alias: { deldot: here("../src/index.ts") } },
  build: {
    outDir: here("../dist-demo"),
    emptyOutDir: true,
    target: "es2023",
    // A model is a file of its own, however small.
    assetsInlineLimit: 0,
    // three.js, which one of the examples takes in.
    chunkSizeWarningLimit: 1000,
    rollupOptions: { input: ["index.html", "examples/particles.html", "examples/lorenz.html"].map((page) => here(page)) },
  },
  worker: { format: "es" },
  preview: { port: 4173 },
});
