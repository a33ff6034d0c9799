/**
 * deldot beside other ways to the same divergences: the same networks, points and adapter, in one run.
 *
 *     npm run bench:peers -- [--cases REGEXP] [--peers REGEXP] [--json FILE] [--markdown]
 *
 * `--peers` is matched against peer and way together, as in "onnxruntime-node, cpu: tangents by hand". `--markdown` writes
 * the tables into bench/RESULTS.md, in the place of those that it has for this adapter.
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { chooseAdapter } from "./adapter.js";
import { runLine } from "./line.js";
import { cases, makeProblem, type Case } from "./networks.js";
import { peers } from "./peers.js";
import { markdownTable, textTable, type Line } from "./table.js";
import { computeTruth } from "./truth.js";

const BUDGET = 20_000;

const { values: options } = parseArgs({
  options: {
    cases: { type: "string", default: "" },
    peers: { type: "string", default: "" },
    json: { type: "string" },
    markdown: { type: "boolean", default: false },
  },
});

const { name: adapter, environment } = await chooseAdapter();
console.log(`Adapter: ${adapter}`);

const folder = await mkdtemp(join(tmpdir(), "deldot-peers-"));
const tables: { case: Case; lines: Line[] }[] = [];
try {
  for (const chosen of cases.filter(({ name }) => new RegExp(options.cases).test(name))) {
    const lines = await runCase(chosen);
    tables.push({ case: chosen, lines });
    console.log(`\n${heading(chosen)}\n${textTable(lines, adapter)}`);
  }
} finally {
  await rm(folder, { recursive: true });
}

// npm changes the folder; a relative path means the one where the user stands.
if (options.json !== undefined)
  await writeFile(
    resolve(process.env["INIT_CWD"] ?? ".", options.json),
    JSON.stringify({ adapter, node: process.version, packages: await packages(), tables }, null, 1),
  );
if (options.markdown) await writeSection(new URL("../RESULTS.md", import.meta.url));

async function runCase(chosen: Case): Promise<Line[]> {
  const truth = join(folder, `${chosen.name}.truth`);
  const { divergence, scale } = computeTruth(makeProblem(chosen));
  await writeFile(truth, Float64Array.of(scale, ...divergence));
  const lines: Line[] = [];
  for (const peer of peers)
    for (const { name: way, points } of peer.ways) {
      if (!new RegExp(options.peers).test(`${peer.name}: ${way}`)) continue;
      process.stderr.write(`${chosen.name}, ${peer.name}: ${way} ...\n`);
      const outcome = await runLine({ peer: peer.name, way, case: chosen.name, truth, folder, budget: BUDGET }, environment);
      lines.push({ peer: peer.name, way, points, ...outcome });
    }
  return lines;
}

function heading({ d, h, count }: Case): string {
  return `${d}-${h}-${h}-${d}, ${count} points`;
}

async function packages(): Promise<Record<string, string>> {
  const { dependencies } = JSON.parse(await readFile(new URL("package.json", import.meta.url), "utf8")) as {
    dependencies: Record<string, string>;
  };
  return Object.fromEntries(Object.entries(dependencies).filter(([name]) => name !== "tsx"));
}

async function writeSection(file: URL): Promise<void> {
  const versions = Object.entries(await packages()).map(([name, version]) => `${name} ${version}`);
  const section = [
    `${adapter}; Node ${process.version}; ${versions.join(", ")}.`,
    ...tables.flatMap(({ case: chosen, lines }) => [`**${heading(chosen)}**`, markdownTable(lines, adapter)]),
  ].join("\n\n");
  const [open, close] = [`<!-- peers ${adapter} -->`, `<!-- /peers -->`];
  const text = await readFile(file, "utf8").catch(() => "");
  const start = text.indexOf(open);
  const end = start < 0 ? -1 : text.indexOf(close, start);
  const [before, after] = end < 0 ? [text && `${text.trimEnd()}\n\n`, "\n"] : [text.slice(0, start), text.slice(end + close.length)];
  await writeFile(file, `${before}${open}\n\n${section}\n\n${close}${after}`);
}
