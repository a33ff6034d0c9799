import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** A page that is isolated so may share memory among threads, which onnxruntime-web then uses. */
const isolated = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

/** The API reference takes longer to write than all else, so only the published site has it, and a link to it. */
const withoutApi: Plugin = {
  name: "without-api",
  transformIndexHtml: (html) => html.replace(/<a href="\.\/api\/[^>]*>.*?<\/a>/s, ""),
};

/** The page imports the package by its name, as any app would; here that is this repository's source. */
export default defineConfig(({ mode }) => ({
  root: here("."),
  // Relative addresses: the site works from any sub-path.
  base: "./",
  plugins: mode === "site" ? [] : [withoutApi],
  resolve: {
    alias: {
      "deldot/onnx": here("../src/onnx/index.ts"),
      "deldot/train": here("../src/train/index.ts"),
      deldot: here("../src/index.ts"),
    },
  },
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
  worker: {
    format: "es",
    rolldownOptions: {
      // Some static hosts do not know .mjs for a script.
      output: { assetFileNames: ({ names }) => `assets/[name]-[hash]${names[0]?.endsWith(".mjs") ? ".js" : "[extname]"}` },
    },
  },
  // onnxruntime-web finds its threads and its .wasm beside its own file, which has to stay a file.
  optimizeDeps: { exclude: ["onnxruntime-web"] },
  server: { headers: isolated },
  preview: { port: 4173, headers: isolated },
}));
