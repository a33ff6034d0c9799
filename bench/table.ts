import type { ScaleResult } from "./extras.js";
import type { FlowResults } from "./flows.js";
import type { GradientResult } from "./gradients.js";
import type { HostResult } from "./host.js";
import { digits, type Stats } from "./measure.js";
import type { Peaks } from "./peak.js";
import { labelOf } from "./cases.js";
import type { ProcessorResult } from "./processor.js";
import type { CaseResult, Row } from "./rows.js";
import type { TrainingResult } from "./training.js";

/** One run on one adapter. Sections that were not asked for are null or empty. */
export interface Report {
  readonly adapter: string;
  /** Processor, its threads, and the version of Node. */
  readonly host: string;
  /** How the compute passes were timed. */
  readonly deviceTime: "timestamps" | "submit to done";
  readonly peaks: Peaks | null;
  readonly cases: readonly CaseResult[];
  readonly scale: readonly ScaleResult[];
  readonly calls: readonly HostResult[];
  readonly gradients: readonly GradientResult[];
  readonly training: readonly TrainingResult[];
  readonly flows: FlowResults | null;
  readonly processor: readonly ProcessorResult[];
}

type Table = readonly (readonly string[])[];

/** "12.3 (11.9 to 12.8)" */
const spread = ({ median, low, high }: Stats): string => `${digits(median)} (${digits(low)} to ${digits(high)})`;
const percent = (value: number, of: number | undefined): string => (of === undefined ? "" : `${digits((100 * value) / of)}%`);
const mebibytes = (bytes: number): string => digits(bytes / 2 ** 20);
const nameOf = ({ method, auto }: Row): string => (method === "value" ? "f alone" : `${method}${auto ? " (auto)" : ""}`);

function rowTable({ rows }: CaseResult, peaks: Peaks | null): Table {
  const header = [
    ["method", "points", "ms", "times f", "plan", "evaluate ms", "times f", "GFLOP/s", "of literal peak", "of looped peak", "points/s"],
    ["MiB", "worst error", "kernels", "samples"],
  ].flat();
  return [
    header,
    ...rows.map((row) => [
      nameOf(row),
      digits(row.points),
      spread(row.device),
      spread(row.ratio),
      digits(row.predictedRatio),
      spread(row.wall),
      spread(row.wallRatio),
      digits(row.gflops),
      percent(row.gflops, peaks?.literal),
      percent(row.gflops, peaks?.looped),
      digits(row.pointsPerSecond),
      mebibytes(row.peakBytes),
      row.error.toExponential(1),
      row.kernels,
      String(row.device.samples),
    ]),
  ];
}

function tunedTable(row: Row): Table {
  const header = [`${nameOf(row)}: kernels`, "ms", "chosen"];
  return [
    header,
    ...row.tuned.map(({ kernels, milliseconds, chosen }) => [
      kernels,
      Number.isFinite(milliseconds) ? digits(milliseconds) : "given up",
      chosen ? "*" : "",
    ]),
  ];
}

function peakTable({ forms, looped, literal, copy, stream }: Peaks): Table {
  return [
    ["what", "rate"],
    ["multiply-adds, literal factors, best", `${digits(literal)} GFLOP/s`],
    ["multiply-adds, operands in registers, looped, best", `${digits(looped)} GFLOP/s`],
    ...forms.map(({ name, kind, gflops }) => [`${kind}, ${name}`, `${digits(gflops)} GFLOP/s`]),
    ["copyBufferToBuffer", `${digits(copy)} GB/s`],
    ["a kernel that reads and writes storage", `${digits(stream)} GB/s`],
  ];
}

function scaleTable(scale: readonly ScaleResult[]): Table {
  const header = ["network", "points", "ns per point", "with onProgress and a signal", "reports"];
  const rows = scale.map(({ name, points, plain, watched, reports }) => [
    name,
    digits(points),
    spread(plain),
    spread(watched),
    digits(reports),
  ]);
  return [header, ...rows];
}

function callsTable(calls: readonly HostResult[]): Table {
  const header = ["network", "points", "encode, ms", "its WebGPU calls", "first encode", "evaluate, ms", "its WebGPU calls and their wait"];
  const rows = calls.map(({ name, points, encode, encodeCalls, first, evaluate, evaluateCalls }) => [
    name,
    digits(points),
    spread(encode),
    spread(encodeCalls),
    digits(first),
    spread(evaluate),
    spread(evaluateCalls),
  ]);
  return [header, ...rows];
}

const titleOf = ({ name, points, network, forwardMultiplyAdds }: CaseResult): string =>
  `${labelOf(name, points)}: ${network}, ${digits(forwardMultiplyAdds)} multiply-adds per point`;

function notesOf({ rows, skipped, residentBytes }: CaseResult): string[] {
  const [f] = rows;
  const fewer = rows.filter(({ points }) => points < f!.points);
  const untuned = rows.filter(({ tuned }) => tuned.length === 0).map(nameOf);
  const tuned = rows.reduce((seconds, { tuneSeconds }) => seconds + tuneSeconds, 0);
  return [
    ...fewer.map((row) => `${nameOf(row)} ran on ${digits(row.points)} points, since it is slow; its ratio is per point.`),
    ...skipped.map(({ method, reason }) => `${method} was left out: ${reason}.`),
    ...(untuned.length > 0 ? [`Not tuned, since it had taken long enough by then: ${untuned.join(", ")}.`] : []),
    `Tuning took ${digits(tuned)} s; the process has held ${mebibytes(residentBytes)} MiB at most so far.`,
  ];
}

const aboutTimes = ({ deviceTime }: Report): string =>
  `"ms" is the compute pass (${deviceTime === "timestamps" ? "the device's timestamps" : "from submit to the end of the work"}), "evaluate ms" the wall time of upload, compute and read back; medians, quartiles in brackets.`;

export function textOfCase(result: CaseResult, peaks: Peaks | null, tuned: boolean): string {
  const tables = [rowTable(result, peaks), ...(tuned ? result.rows.filter((row) => row.tuned.length > 0).map(tunedTable) : [])];
  return [titleOf(result), ...tables.map(textTable), ...notesOf(result)].join("\n");
}

export const textOfPeaks = (peaks: Peaks): string => textTable(peakTable(peaks));
export const textOfScale = (scale: readonly ScaleResult[]): string => textTable(scaleTable(scale));
function gradientTable(gradients: readonly GradientResult[]): Table {
  const header = [
    "network",
    "points",
    "f, ms",
    "regression, ms",
    "score matching, ms",
    "over regression",
    "plan",
    "over f",
    "update, ms",
    "over a step",
  ];
  return [
    header,
    ...gradients.map((result) => [
      result.name,
      digits(result.points),
      spread(result.value),
      spread(result.regression),
      spread(result.scoreMatching),
      spread(result.ratio),
      digits(result.planned),
      spread(result.overValue),
      spread(result.update),
      spread(result.updateRatio),
    ]),
  ];
}

function trainingTable(training: readonly TrainingResult[]): Table {
  const header = [
    "network",
    "loss",
    "batch",
    "steps per second",
    "ms",
    "over flow matching",
    "host, ms",
    "of the step",
    "loss, first to last",
  ];
  return [
    header,
    ...training.map((result) => [
      result.name,
      result.loss.replaceAll("_", " "),
      digits(result.batch),
      spread(result.stepsPerSecond),
      spread(result.step),
      spread(result.overFlowMatching),
      spread(result.host),
      percent(result.hostShare.median, 1),
      result.losses.map(digits).join(" to "),
    ]),
  ];
}

const FLOW_TITLES = ["What log-densities err by", "What one estimate errs by", "What a log-density costs"];

/** Errors of solvers, errors of estimates, and times. */
function flowTables({ solvers, estimates, speeds }: FlowResults): Table[] {
  return [
    [
      ["flow", "solver", "worst error of log p", "mean error", "evaluations"],
      ...solvers.map(({ network, solver, worst, mean, evaluations }) => [
        network,
        solver,
        worst.toExponential(1),
        mean.toExponential(1),
        digits(evaluations),
      ]),
    ],
    [
      ["flow", "probes", "sd of log p, nats", "mean exp(error)", "largest"],
      ...estimates.map(({ network, probes, deviation, factor, largestFactor }) => [
        network,
        String(probes),
        digits(deviation),
        digits(factor),
        digits(largestFactor),
      ]),
    ],
    [
      ["log p of", "points", "ms", "evaluations", "as many by evaluate, ms", "over those"],
      ...speeds.map(({ name, points, milliseconds, evaluations, evaluated, ratio }) => [
        `two-moons-flow, ${name}`,
        digits(points),
        spread(milliseconds),
        digits(evaluations),
        spread(evaluated),
        spread(ratio),
      ]),
    ],
  ];
}

function processorTable(results: readonly ProcessorResult[]): Table {
  const names = [...new Set(results.flatMap(({ kernels }) => kernels.map(({ name }) => name)))];
  return [
    ["network", "points", "onnxruntime, ms", ...names.flatMap((name) => [`${name}, ms`, "of it"])],
    ...results.map(({ name, points, processor, kernels }) => [
      name,
      digits(points),
      spread(processor),
      ...names.flatMap((each) => {
        const found = kernels.find((one) => one.name === each);
        return found ? [spread(found.milliseconds), digits(found.ratio.median)] : ["", ""];
      }),
    ]),
  ];
}

export const textOfProcessor = (results: readonly ProcessorResult[]): string => textTable(processorTable(results));

export const textOfFlows = (flows: FlowResults): string =>
  flowTables(flows)
    .filter((rows) => rows.length > 1)
    .map(textTable)
    .join("\n\n");
export const textOfGradients = (gradients: readonly GradientResult[]): string => textTable(gradientTable(gradients));
export const textOfTraining = (training: readonly TrainingResult[]): string => textTable(trainingTable(training));
export const textOfCalls = (calls: readonly HostResult[]): string => textTable(callsTable(calls));

function textTable(rows: Table): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

export function markdownTable([header, ...rows]: Table): string {
  const line = (cells: readonly string[]): string => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(header!), `|${"---|".repeat(header!.length)}`, ...rows.map(line)].join("\n");
}

/** For the README: f and what auto takes, a line per case. */
export function markdownSummary(report: Report): string {
  const { adapter, host, peaks, cases } = report;
  const header = [
    "network, points",
    "method",
    "f, ms",
    "f and ∇·f, ms",
    "times f",
    "plan",
    "evaluate, times f",
    "GFLOP/s",
    "points/s",
    "worst error",
  ];
  const rows = cases.flatMap(({ name, points, rows }) => {
    const f = rows.find(({ method }) => method === "value")!;
    return rows
      .filter(({ auto }) => auto)
      .map((row) => [
        labelOf(name, points),
        row.method,
        digits(f.device.median),
        digits(row.device.median),
        spread(row.ratio),
        digits(row.predictedRatio),
        digits(row.wallRatio.median),
        digits(row.gflops),
        digits(row.pointsPerSecond),
        row.error.toExponential(1),
      ]);
  });
  const peak = peaks
    ? ` Its multiply-adds reach ${digits(peaks.literal)} GFLOP/s with literal factors, ${digits(peaks.looped)} in a loop over registers.`
    : "";
  return `Measured on ${adapter} (${host}).${peak}\n\n${markdownTable([header, ...rows])}`;
}

/** For bench/RESULTS.md: everything. */
export function markdownReport(report: Report, title: string): string {
  const { host, peaks, cases, scale, calls, gradients, training, flows, processor } = report;
  const part = (title: string, table: Table, ...notes: string[]): string =>
    [`### ${title}`, "", markdownTable(table), ...(notes.length > 0 ? ["", ...notes.map((note) => `- ${note}`)] : [])].join("\n");
  return [
    `## ${title}\n\n${host}. ${aboutTimes(report)}`,
    ...(peaks ? [part("The adapter", peakTable(peaks))] : []),
    ...cases.map((result) => part(titleOf(result), rowTable(result, peaks), ...notesOf(result))),
    ...(scale.length > 0 ? [part("By number of points", scaleTable(scale))] : []),
    ...(calls.length > 0 ? [part("What a call costs the host", callsTable(calls))] : []),
    ...(gradients.length > 0 ? [part("What a step of training costs, with the gradient of every weight", gradientTable(gradients))] : []),
    ...(training.length > 0 ? [part("Steps of training on the device", trainingTable(training))] : []),
    ...(flows ? flowTables(flows).map((table, index) => part(FLOW_TITLES[index]!, table)) : []),
    ...(processor.length > 0 ? [part("onnxruntime on the processor, and kernels", processorTable(processor))] : []),
  ].join("\n\n");
}

/** Puts what `change` makes of it between the markers <!-- name --> and <!-- /name -->; null where the text has none. */
export function replaceBetween(text: string, name: string, change: (former: string) => string): string | null {
  const [open, close] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const [begin, end] = [text.indexOf(open), text.indexOf(close)];
  if (begin < 0 || end < begin) return null;
  const start = begin + open.length;
  return `${text.slice(0, start)}\n\n${change(text.slice(start, end).trim())}\n\n${text.slice(end)}`;
}

/** The parts of a report, with a title each, in the place of those of the same title; others stay. */
export function replaceParts(former: string, report: string): string {
  const parts = new Map<string, string>();
  // What is before the first title is that of the whole.
  for (const part of [former, report].flatMap((text) => text.split(/\n+(?=### )/)))
    parts.set(part.startsWith("### ") ? part.slice(0, part.indexOf("\n")) : "", part);
  return [...parts.values()].join("\n\n");
}
