/**
 * deldot beside other ways to the same divergences, steps of training and log densities: the same networks, points and
 * adapter, in one run.
 *
 *     npm run bench:peers -- [--tasks REGEXP] [--cases REGEXP] [--peers REGEXP] [--points NUMBER] [--json FILE] [--markdown]
 *
 * Tasks are "divergence", "training", "flow matching", "score matching" and "density". `--peers` is matched against peer and way together, as in
 * "onnxruntime-node, cpu: tangents by hand". `--points` is the most that a case may have. `--markdown`
 * writes the tables into bench/RESULTS.md, in the place of those that it has for this adapter and task.
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { serialize } from "node:v8";
import type { Adapter } from "./adapter.js";
import { untuned } from "./deldot.js";
import type { Kernels } from "./peer.js";
import { environmentOf } from "./environment.js";
import type { LineJob, LineReport } from "./line.js";
import type { Case } from "./networks.js";
import { runChild, type Outcome } from "./process.js";
import { findPytorch } from "./pytorch.js";
import { markdownTable, textTable, type Line } from "./table.js";
import { tasks, type Task } from "./tasks.js";

/** Seconds to find the adapter. */
const CHOICE_LIMIT = 60;
/** Seconds. */
const TUNE_LIMIT = 180;

const { values: options } = parseArgs({
  options: {
    tasks: { type: "string", default: "" },
    cases: { type: "string", default: "" },
    peers: { type: "string", default: "" },
    points: { type: "string", default: "Infinity" },
    json: { type: "string" },
    markdown: { type: "boolean", default: false },
  },
});

const most = Number(options.points);
if (!(most >= 1)) throw new Error(`--points ${options.points} is not a number of points`);

interface Table {
  readonly task: string;
  readonly case: Case;
  /** Null where there is nothing to choose. */
  readonly tuning: Outcome<Kernels> | null;
  readonly lines: readonly Line[];
}

const choice = await runChild<Adapter>("choose.ts", {}, CHOICE_LIMIT, process.env);
if ("failure" in choice) throw new Error(`no adapter: ${choice.failure}`);
const { name: adapter } = choice.report;
const environment = environmentOf(choice.report);
console.log(`Adapter: ${adapter}`);

const folder = await mkdtemp(join(tmpdir(), "deldot-peers-"));
const tables: Table[] = [];
try {
  for (const task of tasks.filter(({ name }) => new RegExp(options.tasks).test(name))) {
    console.log(`\n${task.legend}`);
    for (const chosen of task.cases.filter(({ name }) => new RegExp(options.cases).test(name))) {
      const table = await runCase(task, { ...chosen, count: Math.min(chosen.count, Math.floor(most)) });
      tables.push(table);
      console.log(`\n${heading(table)}\n${textTable(task, table.lines, adapter)}`);
    }
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
if (options.markdown) for (const task of tasks) await writeSection(new URL("../RESULTS.md", import.meta.url), task);

async function runCase(task: Task, chosen: Case): Promise<Table> {
  const truth = join(folder, `${task.name} ${chosen.name}`);
  await writeFile(truth, serialize(task.computeTruth(task.makeProblem(chosen))));

  const tuning = task.tune ? await tune(task, chosen) : null;
  const kernels = tuning && "report" in tuning ? tuning.report : untuned;

  const lines: Line[] = [];
  for (const peer of task.peers)
    for (const { name: way, points } of peer.ways) {
      if (!new RegExp(options.peers).test(`${peer.name}: ${way}`)) continue;
      tell(`${task.name}, ${chosen.name}: ${peer.name}: ${way}`);
      const job: LineJob = { task: task.name, peer: peer.name, way, case: chosen, truth, kernels };
      lines.push({ peer: peer.name, way, points, ...(await runChild<LineReport>("line.ts", job, task.seconds, environment)) });
    }
  return { task: task.name, case: chosen, tuning, lines };
}

function tune(task: Task, chosen: Case): Promise<Outcome<Kernels>> {
  tell(`${task.name}, ${chosen.name}: tuning deldot`);
  return runChild<Kernels>("tune.ts", { task: task.name, case: chosen }, TUNE_LIMIT, environment);
}

/** Progress, beside the tables on standard output. */
function tell(text: string): void {
  process.stderr.write(`${text}\n`);
}

function heading({ case: { d, h, count, steps }, tuning }: Table): string {
  const network = `${d}-${h}-${h}-${d}, ${count} points${steps ? `, ${steps} steps a call` : ""}`;
  if (!tuning) return network;
  if ("failure" in tuning) return `${network} (deldot not tuned: ${tuning.failure})`;
  const { divergence, valueToo } = tuning.report;
  const kernels = divergence === valueToo ? `"${divergence}"` : `"${divergence}", with f(x) "${valueToo}"`;
  return `${network} (deldot's kernels ${kernels})`;
}

async function packages(): Promise<Record<string, string>> {
  const { dependencies } = JSON.parse(await readFile(new URL("package.json", import.meta.url), "utf8")) as {
    dependencies: Record<string, string>;
  };
  const pytorch = await findPytorch();
  return {
    ...Object.fromEntries(Object.entries(dependencies).filter(([name]) => name !== "tsx")),
    ...(pytorch && { PyTorch: pytorch.version }),
  };
}

async function writeSection(file: URL, task: Task): Promise<void> {
  const own = tables.filter((table) => table.task === task.name);
  if (own.length === 0) return;
  const versions = Object.entries(await packages()).map(([name, version]) => `${name} ${version}`);
  const section = [
    `${adapter}; Node ${process.version}; ${versions.join(", ")}.`,
    task.legend,
    ...own.flatMap((table) => [`**${heading(table)}**`, markdownTable(task, table.lines, adapter)]),
  ].join("\n\n");
  const [open, close] = [`<!-- ${task.section} ${adapter} -->`, `<!-- /${task.section} -->`];
  const text = await readFile(file, "utf8").catch(() => "");
  const start = text.indexOf(open);
  const end = start < 0 ? -1 : text.indexOf(close, start);
  const [before, after] = end < 0 ? [text && `${text.trimEnd()}\n\n`, "\n"] : [text.slice(0, start), text.slice(end + close.length)];
  await writeFile(file, `${before}${open}\n\n${section}\n\n${close}${after}`);
}
