import type { LineReport } from "./line.js";
import type { Outcome } from "./process.js";
import { quantile } from "./quantile.js";
import type { Task } from "./tasks.js";

/** One line, with what it is about. */
export type Line = {
  readonly peer: string;
  readonly way: string;
  readonly points: "device" | "host";
} & Outcome<LineReport>;

/** The first three and the last are words. */
function header({ baselines }: Task): string[] {
  return ["peer", "way", "points", "median ms", "quartiles", ...baselines.map((name) => `x ${name}`), "error", "remarks"];
}

/** A table for the terminal. */
export function textTable(task: Task, lines: readonly Line[], adapter: string): string {
  const names = header(task);
  const rows = [names, ...lines.map((line) => cells(task, line, adapter))];
  const widths = names.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => (isNumeric(column, names) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** The same for a Markdown file. */
export function markdownTable(task: Task, lines: readonly Line[], adapter: string): string {
  const names = header(task);
  const row = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|").replaceAll("<", "&lt;")).join(" | ")} |`;
  const rule = `|${names.map((_, column) => (isNumeric(column, names) ? "---:" : "---")).join("|")}|`;
  return [row(names), rule, ...lines.map((line) => row(cells(task, line, adapter)))].join("\n");
}

const isNumeric = (column: number, { length }: readonly string[]): boolean => column >= 3 && column < length - 1;

function cells({ baselines }: Task, line: Line, adapter: string): string[] {
  const start = [line.peer, line.way, line.points];
  const untimed = ["", "", ...baselines.map(() => "")];
  if ("failure" in line) return [...start, ...untimed, "", shorten(line.failure)];
  const { times, baselineTimes, verdict, errors } = line.report;
  const remarks: string[] = [];
  if (verdict.wrong) remarks.push(`WRONG: ${verdict.wrong}`);
  if (errors.length > 0) remarks.push(`WebGPU: ${errors[0]}`);
  if (line.report.adapter !== null && line.report.adapter !== adapter) remarks.push(`on another adapter: ${line.report.adapter}`);
  const error = Number.isNaN(verdict.error) ? "" : verdict.error.toExponential(1);
  if (verdict.wrong || errors.length > 0) return [...start, ...untimed, error, shorten(remarks.join("; "))];
  if (times.length < 5) remarks.push(`${times.length} ${times.length === 1 ? "call" : "calls"}`);
  return [
    ...start,
    digits(quantile(times, 0.5)),
    `${digits(quantile(times, 0.25))}-${digits(quantile(times, 0.75))}`,
    // Whatever slows the machine for some rounds slows both.
    ...baselineTimes.map((own) =>
      digits(
        quantile(
          times.map((time, round) => time / own[round]!),
          0.5,
        ),
      ),
    ),
    error,
    shorten(remarks.join("; ")),
  ];
}

/** Three figures, and no exponent. */
function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : value >= 1 ? 2 : 3);
}

/** One line of a message; WebGPU's run over many. */
function shorten(message: string): string {
  const line = message.replaceAll(/\s+/g, " ").trim();
  return line.length > 160 ? `${line.slice(0, 159)}…` : line;
}
