/**
 * Measures f and its divergence by every method on one adapter, beside what the adapter can do at most.
 * What is measured and how: bench/RESULTS.md.
 */
import { readFile, writeFile } from "node:fs/promises";
import { Command, InvalidArgumentError, Option } from "commander";
import { adapterName, requestDevice } from "deldot/node";
import { cases, labelOf } from "./cases.js";
import { measureScale } from "./extras.js";
import { measureFlows } from "./flows.js";
import { measureGradients } from "./gradients.js";
import { measureHost } from "./host.js";
import { DeviceClock, hostName, MemoryWatch } from "./measure.js";
import { measurePeaks } from "./peak.js";
import { measureProcessor } from "./processor.js";
import type { Bench, Settings } from "./prepare.js";
import { measureCase, type CaseResult } from "./rows.js";
import { measureTraining } from "./training.js";
import {
  markdownReport,
  markdownSummary,
  replaceBetween,
  replaceParts,
  textOfCalls,
  textOfCase,
  textOfFlows,
  textOfGradients,
  textOfPeaks,
  textOfProcessor,
  textOfScale,
  textOfTraining,
  type Report,
} from "./table.js";

const sections = ["peak", "cases", "scale", "host", "gradient", "train", "flow", "processor"] as const;
type Section = (typeof sections)[number];

interface Arguments {
  readonly cases: RegExp;
  readonly methods: RegExp;
  readonly sections: readonly Section[];
  readonly points: number;
  readonly repeats: number;
  readonly kernels: string;
  readonly full?: true;
  readonly tuned?: true;
  readonly adapter: "auto" | "software";
  /** A file's name, or true for stdout. */
  readonly json?: string | true;
  readonly markdown?: true;
}

function expression(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("expected a whole number from 1");
  return value;
}

function sectionsOf(text: string): readonly Section[] {
  const names = text.split(",");
  const unknown = names.find((name) => !sections.includes(name as Section));
  if (unknown !== undefined) throw new InvalidArgumentError(`"${unknown}" is none of ${sections.join(", ")}`);
  return names as Section[];
}

const option = <T>(flags: string, about: string, parse: (text: string) => T, value: T, shown: string): Option =>
  new Option(flags, about).argParser(parse).default(value, shown);

const command = new Command("bench")
  .description("Measures f and its divergence by every method on one adapter.")
  .addOption(option("--cases <regexp>", "cases whose name matches, such as 2-64-2,65536", expression, /(?:)/, "all"))
  .addOption(
    option("--methods <regexp>", "methods whose name matches; auto is what auto takes, f alone runs anyway", expression, /(?:)/, "all"),
  )
  .addOption(
    option(
      "--sections <list>",
      `out of ${sections.join(",")}`,
      sectionsOf,
      sections.slice(0, -1),
      "all but processor, which needs onnxruntime-node",
    ),
  )
  .addOption(option("--points <n>", "at most this many points, in a case and elsewhere", positive, Infinity, "no bound"))
  .option("--repeats <n>", "samples of each, taken in turns", positive, 7)
  .option("--kernels <name>", 'the variant to run, such as "layers 8x16"; auto: what tuning chooses', "auto")
  .option("--full", "larger cases too, 10^7 points, and slow methods on more points")
  .option("--tuned", "print what the tuning of each method found")
  .addOption(new Option("--adapter <kind>", "which adapter").choices(["auto", "software"]).default("auto"))
  .option("--json [file]", "write everything as JSON, to stdout where no file is named")
  .option("--markdown", "write the results into README.md and bench/RESULTS.md, in the place of those of the same sections");

async function main(): Promise<void> {
  const given = command.parse().opts<Arguments>();
  const { device, dispose } = await requestDevice({ adapter: given.adapter });
  let refused: string | null = null;
  device.addEventListener("uncapturederror", ({ error }) => (refused ??= error.message));
  const progress = (text: string): void => {
    if (refused !== null) throw new Error(`WebGPU refused work: ${refused}`);
    process.stderr.write(`${(performance.now() / 1000).toFixed(0)} s: ${text}\n`);
  };
  try {
    const report = await measure(device, given, progress, (text) => given.json !== true && process.stdout.write(`${text}\n\n`));
    progress("done");
    if (given.json === true) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    else if (given.json !== undefined) await writeFile(given.json, `${JSON.stringify(report, null, 2)}\n`);
    if (given.markdown) await writeMarkdown(report, given.full === true);
  } finally {
    await dispose();
  }
}

async function measure(device: GPUDevice, given: Arguments, progress: Bench["progress"], print: (text: string) => void): Promise<Report> {
  const clock = new DeviceClock(device);
  const known = new Map<string, string>();
  const store = { get: (key: string) => known.get(key), set: (key: string, value: string) => void known.set(key, value) };
  const bench: Bench = { device, clock, memory: new MemoryWatch(device), store, kernels: given.kernels, progress };
  const has = (section: Section): boolean => given.sections.includes(section);
  const adapter = adapterName(device.adapterInfo);
  const host = hostName();
  print(`${adapter} (${host})`);

  if (has("peak")) progress("peak");
  const peaks = has("peak") ? await measurePeaks(device, clock) : null;
  if (peaks) print(textOfPeaks(peaks));

  const settings: Settings = {
    methods: given.methods,
    repeats: given.repeats,
    secondsPerSample: given.full ? 5 : 0.5,
    secondsPerMethod: given.full ? 60 : 4,
    secondsToTune: given.full ? Infinity : 30,
  };
  const results: CaseResult[] = [];
  for (const one of has("cases") ? cases : []) {
    if ((one.full && !given.full) || !given.cases.test(labelOf(one.name, one.points))) continue;
    const result = await measureCase(one, Math.min(one.points, given.points), settings, bench);
    results.push(result);
    print(textOfCase(result, peaks, given.tuned === true));
  }

  const counts = [1e4, 1e5, 1e6, ...(given.full ? [1e7] : [])].map((count) => Math.min(count, given.points));
  const scale = has("scale") ? await measureScale([...new Set(counts)], given.repeats, bench) : [];
  if (scale.length > 0) print(textOfScale(scale));
  const calls = has("host") ? await measureHost(given.repeats, bench) : [];
  if (calls.length > 0) print(textOfCalls(calls));
  const named = (label: string): boolean => given.cases.test(label);
  const gradients = has("gradient") ? await measureGradients(named, given.points, given.repeats, bench) : [];
  if (gradients.length > 0) print(textOfGradients(gradients));
  const training = has("train") ? await measureTraining(named, given.points, given.repeats, bench) : [];
  if (training.length > 0) print(textOfTraining(training));
  const flows = has("flow") ? await measureFlows(named, given.points, given.repeats, bench) : null;
  if (flows) print(textOfFlows(flows));
  const processor = has("processor") ? await measureProcessor(named, given.points, given.repeats, bench) : [];
  if (processor.length > 0) print(textOfProcessor(processor));
  return {
    adapter,
    host,
    deviceTime: clock.timestamps ? "timestamps" : "submit to done",
    peaks,
    cases: results,
    scale,
    calls,
    gradients,
    training,
    flows,
    processor,
  };
}

/**
 * What was measured replaces what stands there of the same title. A full run has a section of its own and no summary: it takes so long
 * that few cases are chosen for it.
 */
async function writeMarkdown(report: Report, full: boolean): Promise<void> {
  if (!full && report.cases.length > 0) {
    const readme = new URL("../README.md", import.meta.url);
    const filled = replaceBetween(await readFile(readme, "utf8"), "bench", () => markdownSummary(report));
    if (filled === null) throw new Error("README.md has no markers <!-- bench --> and <!-- /bench -->");
    await writeFile(readme, filled);
  }

  const file = new URL("RESULTS.md", import.meta.url);
  const text = await readFile(file, "utf8");
  const title = `${report.adapter}${full ? ", full" : ""}`;
  const name = `adapter ${title}`;
  const body = markdownReport(report, title);
  const appended = `${text.trimEnd()}\n\n<!-- ${name} -->\n\n${body}\n\n<!-- /${name} -->\n`;
  await writeFile(file, replaceBetween(text, name, (former) => replaceParts(former, body)) ?? appended);
}

await main();
