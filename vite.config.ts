import { chmod, copyFile, mkdir, readFile } from "node:fs/promises";
import { builtinModules } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { esmExternalRequirePlugin, type Plugin } from "vite";
import { defineConfig } from "vitest/config";

const entries = {
  index: "src/index.ts",
  parseOnnx: "src/model/readers/onnx.ts",
  train: "src/train/index.ts",
  onnx: "src/onnx/index.ts",
  node: "src/node/index.ts",
  cli: "src/node/cli/main.ts",
};

/** Takes line comments and blank lines out of the shaders, half of their bytes. WGSL has no texts that could hold a "//". */
const stripShaders: Plugin = {
  name: "strip-shaders",
  apply: "build",
  enforce: "pre",
  load: {
    filter: { id: /\.wgsl\?raw$/ },
    async handler(id) {
      const text = await readFile(id.replace(/\?raw$/, ""), "utf8");
      const stripped = text
        .replaceAll(/\/\/.*/g, "")
        .replaceAll(/[ \t]+$/gm, "")
        .replaceAll(/\n{2,}/g, "\n");
      return { code: `export default ${JSON.stringify(stripped)}`, moduleType: "js" };
    },
  },
};

/** npx links to the command line where it was built, and makes it executable then alone: a later build would leave it dead. */
const executableCommand: Plugin = {
  name: "executable-command",
  apply: "build",
  async writeBundle({ dir = "dist" }, bundle) {
    if ("cli.js" in bundle) await chmod(join(dir, "cli.js"), 0o755);
  },
};

/** What draws text into pictures, beside the licenses of all that is bundled. */
const pictureFiles: Plugin = {
  name: "picture-files",
  apply: "build",
  async writeBundle({ dir = "dist" }) {
    await mkdir(join(dir, "picture"), { recursive: true });
    for (const [from, to] of [
      ["@resvg/resvg-wasm/index_bg.wasm", "resvg.wasm"],
      ["@expo-google-fonts/noto-sans-math/400Regular/NotoSansMath_400Regular.ttf", "NotoSansMath.ttf"],
      ["@expo-google-fonts/noto-sans-math/LICENSE_FONT", "NotoSansMath.LICENSE"],
    ] as const)
      await copyFile(join("node_modules", from), join(dir, "picture", to));
  },
};

/** Packages whose types users need too stay imports, and so do those that an app chooses by installing them. */
const external = /^(?:@webgpu\/types|webgpu|@sparticuz\/chromium|onnxruntime-node|deldot)(?:\/|$)/;

export default defineConfig({
  plugins: [stripShaders, executableCommand, pictureFiles, esmExternalRequirePlugin({ external: [/^node:/, ...builtinModules] })],
  build: {
    target: "es2023",
    lib: { entry: entries, formats: ["es"] },
    rollupOptions: {
      // What the command line needs is bundled into it, so that who installs the package gets no other one.
      external,
      output: {
        // Names without hashes, so that an import map or a CDN can name them.
        entryFileNames: "[name].js",
        chunkFileNames: "shared/[name].js",
        // What every entry is built on stays in one piece, which compresses better than several.
        codeSplitting: { groups: [{ name: "plan", test: /\/src\/(plan|errors|model\/(?!readers|writers))/ }] },
        // For pages without a bundler; a bundler minifies and drops the same from it as from the sources.
        minify: true,
        comments: { annotation: true },
      },
    },
    sourcemap: true,
    license: { fileName: "THIRD-PARTY-LICENSES.md" },
    reportCompressedSize: false,
  },
  test: {
    include: ["test/**/*.test.ts"],
    // The page's modules import the package by its name.
    alias: {
      "deldot/onnx": fileURLToPath(new URL("./src/onnx/index.ts", import.meta.url)),
      "deldot/train": fileURLToPath(new URL("./src/train/index.ts", import.meta.url)),
      deldot: fileURLToPath(new URL("./src/index.ts", import.meta.url)),
    },
    globalSetup: "test/setup.ts",
    // One process per file and one file at a time: each owns a GPU device, and the software drivers use every core.
    pool: "forks",
    fileParallelism: false,
    // Several times what the longest takes alone: a busy machine is no fault.
    testTimeout: 240_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 60_000 } },
  },
});
