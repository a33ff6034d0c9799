// Builds the apps of a folder with one bundler, at its defaults wherever those do: node bundle.js BUNDLER FOLDER APP...
import { join } from "node:path";
import { promisify } from "node:util";

const [bundler, folder, ...apps] = process.argv.slice(2);

/** webpack and Rspack, which bundle a worker where they see `new Worker(new URL(...))`; so does Vite. */
const likeWebpack = (pack) => async (entry, outdir, app) => {
  const stats = await promisify(pack)({
    mode: "production",
    context: folder,
    entry: { [app]: entry },
    output: { path: outdir },
    performance: { hints: false },
  });
  if (stats.hasErrors() || stats.hasWarnings()) throw new Error(stats.toString({ all: false, errors: true, warnings: true }));
};

const bundlers = {
  vite: async () => {
    const { build } = await import("vite");
    return (entry, outDir) =>
      build({
        root: folder,
        configFile: false,
        logLevel: "error",
        base: "./",
        build: { outDir, rollupOptions: { input: entry, output: { entryFileNames: "[name].js" } } },
        worker: { format: "es" },
      });
  },
  webpack: async () => likeWebpack((await import("webpack")).default),
  rspack: async () => likeWebpack((await import("@rspack/core")).rspack),
  // These two leave the worker's address as it is: the worker is an entry of its own.
  esbuild: async () => {
    const { build } = await import("esbuild");
    return (entry, outdir, app) =>
      build({ entryPoints: [entry, ...workerOf(app)], outdir, bundle: true, minify: true, splitting: true, format: "esm" });
  },
  rollup: async () => {
    const [{ rollup }, { nodeResolve }] = await Promise.all([import("rollup"), import("@rollup/plugin-node-resolve")]);
    return async (entry, dir, app) => {
      const bundle = await rollup({ input: [entry, ...workerOf(app)], plugins: [nodeResolve({ browser: true })] });
      await bundle.write({ dir });
    };
  },
};

const workerOf = (app) => (app === "pageWorker" ? [join(folder, "app/worker.js")] : []);

const build = await bundlers[bundler]();
for (const app of apps) await build(join(folder, "app", `${app}.js`), join(folder, bundler, app), app);
