import { defineConfig } from "vitest/config";

const entries = { index: "src/index.ts", node: "src/node/index.ts", cli: "src/node/cli/main.ts" };

export default defineConfig({
  build: {
    target: "es2023",
    lib: { entry: entries, formats: ["es"] },
    rollupOptions: {
      // Everything that is not a file of ours stays an import: node's own modules and the dependencies.
      external: (id) => !/^[./]|^[A-Za-z]:\\|^src\//.test(id) && !id.startsWith("\0"),
      output: { entryFileNames: "[name].js", chunkFileNames: "shared/[name]-[hash].js" },
    },
    minify: false,
    sourcemap: true,
    reportCompressedSize: false,
  },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/setup.ts",
    // One process per file and one file at a time: each owns a GPU device, and the software drivers use every core.
    pool: "forks",
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
