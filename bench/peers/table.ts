import type { LineReport } from "./line.js";
import type { Outcome } from "./process.js";

/** One line, with what it is about. */
export type Line = {
  readonly peer: string;
  readonly way: string;
  readonly points: "device" | "host";
} & Outcome<LineReport>;

/** What the columns mean. */
export const legend =
  "A call computes the divergences of all points and reads them back; points: where they are when it starts. " +
  "x encode, x evaluate: times deldot's own call in the same process, in turns with it, points on the device or not. " +
  "error: the largest, beside float64, over the largest Σ|∂f_i/∂x_i|. " +
  "While deldot, jax-js or TensorFlow.js waits for a software adapter, its thread sleeps (sleepWhileWaiting of deldot/node). " +
  "All on this adapter unless remarked; onnxruntime does not say which one it took, but it finds it by the same Vulkan loader.";

const header = ["peer", "way", "points", "median ms", "quartiles", "x encode", "x evaluate", "error", "remarks"];

/** A table for the terminal. */
export function textTable(lines: readonly Line[], adapter: string): string {
  const rows = [header, ...lines.map((line) => cells(line, adapter))];
  const widths = header.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => (isNumeric(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** The same for a Markdown file. */
export function markdownTable(lines: readonly Line[], adapter: string): string {
  const row = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|").replaceAll("<", "&lt;")).join(" | ")} |`;
  const rule = `|${header.map((_, column) => (isNumeric(column) ? "---:" : "---")).join("|")}|`;
  return [row(header), rule, ...lines.map((line) => row(cells(line, adapter)))].join("\n");
}

const isNumeric = (column: number): boolean => column >= 3 && column <= 7;

function cells(line: Line, adapter: string): string[] {
  const start = [line.peer, line.way, line.points];
  if ("failure" in line) return [...start, "", "", "", "", "", shorten(line.failure)];
  const { times, encodeTimes, evaluateTimes, verdict, errors } = line.report;
  const remarks: string[] = [];
  if (verdict.wrong) remarks.push(`WRONG: ${verdict.wrong}`);
  if (errors.length > 0) remarks.push(`WebGPU: ${errors[0]}`);
  if (line.report.adapter !== null && line.report.adapter !== adapter) remarks.push(`on another adapter: ${line.report.adapter}`);
  const error = Number.isNaN(verdict.error) ? "" : verdict.error.toExponential(1);
  if (verdict.wrong || errors.length > 0) return [...start, "", "", "", "", error, shorten(remarks.join("; "))];
  if (times.length < 5) remarks.push(`${times.length} ${times.length === 1 ? "call" : "calls"}`);
  const median = quantile(times, 0.5);
  return [
    ...start,
    digits(median),
    `${digits(quantile(times, 0.25))}-${digits(quantile(times, 0.75))}`,
    digits(median / quantile(encodeTimes, 0.5)),
    digits(median / quantile(evaluateTimes, 0.5)),
    error,
    shorten(remarks.join("; ")),
  ];
}

/** The rank next to the wanted one, so that few times give one that was measured. */
function quantile(times: readonly number[], rank: number): number {
  const sorted = times.toSorted((a, b) => a - b);
  return sorted[Math.round(rank * (sorted.length - 1))]!;
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
