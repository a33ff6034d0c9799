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
import type { Adapter } from "./adapter.js";
import { untuned } from "./deldot.js";
import type { Kernels } from "./peer.js";
import { environmentOf } from "./environment.js";
import type { LineJob, LineReport } from "./line.js";
import { cases, makeProblem, type Case } from "./networks.js";
import { peers } from "./peers.js";
import { runChild, type Outcome } from "./process.js";
import { legend, markdownTable, textTable, type Line } from "./table.js";
import { computeTruth } from "./truth.js";

/** Seconds; a line that takes longer has hung, or compiles for ever. */
const LINE_LIMIT = 60;
/** deldot tries unrolled kernels too, which software adapters compile slowly. */
const TUNE_LIMIT = 180;

const { values: options } = parseArgs({
  options: {
    cases: { type: "string", default: "" },
    peers: { type: "string", default: "" },
    json: { type: "string" },
    markdown: { type: "boolean", default: false },
  },
});

interface Table {
  readonly case: Case;
  readonly tuning: Outcome<Kernels>;
  readonly lines: readonly Line[];
}

const choice = await runChild<Adapter>("choose.ts", {}, LINE_LIMIT, process.env);
if ("failure" in choice) throw new Error(`no adapter: ${choice.failure}`);
const { name: adapter } = choice.report;
const environment = environmentOf(choice.report);
console.log(`Adapter: ${adapter}\n${legend}`);

const folder = await mkdtemp(join(tmpdir(), "deldot-peers-"));
const tables: Table[] = [];
try {
  for (const chosen of cases.filter(({ name }) => new RegExp(options.cases).test(name))) {
    const table = await runCase(chosen);
    tables.push(table);
    console.log(`\n${heading(table)}\n${textTable(table.lines, adapter)}`);
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

async function runCase(chosen: Case): Promise<Table> {
  const truth = join(folder, `${chosen.name}.truth`);
  const { divergence, scale } = computeTruth(makeProblem(chosen));
  await writeFile(truth, Float64Array.of(scale, ...divergence));

  tell(`${chosen.name}: tuning deldot`);
  const tuning = await runChild<Kernels>("tune.ts", { case: chosen.name }, TUNE_LIMIT, environment);
  const kernels = "report" in tuning ? tuning.report : untuned;

  const lines: Line[] = [];
  for (const peer of peers)
    for (const { name: way, points } of peer.ways) {
      if (!new RegExp(options.peers).test(`${peer.name}: ${way}`)) continue;
      tell(`${chosen.name}: ${peer.name}: ${way}`);
      const job: LineJob = { peer: peer.name, way, case: chosen.name, truth, kernels };
      lines.push({ peer: peer.name, way, points, ...(await runChild<LineReport>("line.ts", job, LINE_LIMIT, environment)) });
    }
  return { case: chosen, tuning, lines };
}

/** Progress, beside the tables on standard output. */
function tell(text: string): void {
  process.stderr.write(`${text}\n`);
}

function heading({ case: { d, h, count }, tuning }: Table): string {
  const kernels =
    "report" in tuning ? `kernels "${tuning.report.divergence}", with f(x) "${tuning.report.valueToo}"` : `not tuned: ${tuning.failure}`;
  return `${d}-${h}-${h}-${d}, ${count} points (deldot's ${kernels})`;
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
    legend,
    ...tables.flatMap((table) => [`**${heading(table)}**`, markdownTable(table.lines, adapter)]),
  ].join("\n\n");
  const [open, close] = [`<!-- peers ${adapter} -->`, `<!-- /peers -->`];
  const text = await readFile(file, "utf8").catch(() => "");
  const start = text.indexOf(open);
  const end = start < 0 ? -1 : text.indexOf(close, start);
  const [before, after] = end < 0 ? [text && `${text.trimEnd()}\n\n`, "\n"] : [text.slice(0, start), text.slice(end + close.length)];
  await writeFile(file, `${before}${open}\n\n${section}\n\n${close}${after}`);
}
