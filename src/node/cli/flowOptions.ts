/** What the commands about flows share: their options, and how they tell what came of the paths. */
import type { EngineOptions } from "./evaluator.js";
import { InvalidArgumentError, Option, type Command } from "commander";
import { DeldotError, InputError } from "../../errors.js";
import { readFlowTimes, readSolveOptions, type FlowSettings } from "../../flowOptions.js";
import { bitsPerDimension, solvers, type Network, type SolveOptions, type Solver, type Status } from "../../index.js";
import { addEngineOptions, parseFinite, parsePositive, parseWhole } from "./options.js";
import { round, summarize } from "./output.js";

export const flowMethods = ["exact", "hutchinson"] as const;

/** Where noise and data are in time, and how paths between them are integrated. */
export interface PathOptions {
  readonly condition?: string;
  readonly noiseAt?: number;
  readonly dataAt?: number;
  readonly timeColumn?: number | "none";
  readonly solver?: Solver;
  readonly rtol?: number;
  readonly atol?: number;
  readonly steps?: number;
}

export interface FlowOptions extends PathOptions, EngineOptions {
  readonly method: (typeof flowMethods)[number];
  readonly probes?: number;
  readonly seed?: number;
}

/** @param of what goes ahead of their help, where a command has others too; @param files which files a condition may be. */
export function addPathOptions(command: Command, of = "", files = "a file with one row, or with one row per point"): Command {
  // Their defaults are the library's, so that a command can tell whether one was given.
  return command
    .option("--condition <numbers>", `${of}the context but for time, of all points (3 or 0.5,1), or ${files}`)
    .option("--noise-at <time>", `${of}the time at which points are noise (default: 0)`, parseFinite)
    .option("--data-at <time>", `${of}the time at which they are data (default: 1)`, parseFinite)
    .option(
      "--time-column <number>",
      `${of}the column of the context that is time, from 0 on, or none (default: the only one there is)`,
      parseColumn,
    )
    .addOption(new Option("--solver <name>", `${of}how paths are integrated (default: tsit5)`).choices(solvers))
    .option("--rtol <number>", `${of}error of a step, relative to the point (default: 1e-5)`, parsePositive)
    .option("--atol <number>", `${of}the same where the point is small (default: 1e-5)`, parsePositive)
    .option("--steps <count>", `${of}so many steps of one size, without error control`, parseWhole(1, 2 ** 24));
}

/** @param seedHelp what the seed is of. */
export function addFlowOptions(command: Command, seedHelp: string): Command {
  addPathOptions(command)
    .addOption(new Option("--method <name>", "how the divergence is computed").choices(flowMethods).default("exact"))
    .option("--probes <count>", "hutchinson: probes per point", parseWhole(1, 2 ** 20))
    .option("--seed <number>", seedHelp, parseWhole(0, 2 ** 32 - 1));
  return addEngineOptions(command);
}

function parseColumn(text: string): number | "none" {
  if (text === "none") return text;
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("Expected a whole number from 0 on, or none.");
  return Number(text);
}

/** How paths go, checked before a device is looked for. */
export interface Paths {
  readonly settings: FlowSettings;
  readonly solve: Pick<SolveOptions, "solver" | "rtol" | "atol" | "steps" | "divergence">;
  /** How many numbers a condition has. */
  readonly conditionSize: number;
  readonly solver: Solver;
  /** For people. */
  readonly description: string;
}

/** @throws InputError in the words of the command line. */
export function readPaths(
  network: Network,
  { method, probes, seed, noiseAt, dataAt, timeColumn, solver, rtol, atol, steps }: FlowOptions,
): Paths {
  if (method === "exact" && probes !== undefined)
    throw new InputError(`--probes is ${probes}, but the divergence is exact; expected --method hutchinson, or no --probes`);
  if (steps !== undefined && (rtol ?? atol) !== undefined)
    throw new InputError(`--steps is ${steps}, which leaves no step size to control; expected no --rtol and no --atol`);
  try {
    const settings = readFlowTimes(network, { noiseAt, dataAt, timeColumn: timeColumn === "none" ? null : timeColumn });
    const divergence = method === "hutchinson" ? ({ method, probes, seed } as const) : ("exact" as const);
    const checked = readSolveOptions({ solver, rtol, atol, steps, divergence });
    // Also where they were left out: the CPU would take others.
    const tolerances = { rtol: checked.rtol, atol: checked.atol };
    const solve = { solver, steps, divergence, ...(checked.steps === null && tolerances) };
    const how =
      checked.steps === null
        ? `rtol ${tolerances.rtol.toExponential()}, atol ${tolerances.atol.toExponential()}`
        : `${checked.steps} steps of one size`;
    return {
      settings,
      solve,
      solver: checked.solver,
      conditionSize: network.contextSize - (settings.timeColumn === null ? 0 : 1),
      description: `${checked.solver} with ${how}, ${method === "exact" ? "exact divergence" : "hutchinson's estimate"}`,
    };
  } catch (error) {
    if (error instanceof DeldotError) throw new InputError(asTyped(error.message), { cause: error });
    throw error;
  }
}

/** The library's texts name options as in code: noiseAt, steps; here they are typed, --noise-at, --steps. */
function asTyped(text: string): string {
  return text
    .replaceAll(/\b(noiseAt|dataAt|timeColumn)\b/g, (name) => `--${name.replace(/[A-Z]/, (letter) => `-${letter.toLowerCase()}`)}`)
    .replace(/^solver "(\w+)"/, "--solver $1")
    .replaceAll(/\b(rtol|atol|steps)\b/g, "--$&")
    .replaceAll(/\bnull\b/g, "none");
}

/** Tells on stderr how many paths did not get to their end, and why: their numbers are NaN. */
export function reportLost(status: Iterable<Status>, count: number): void {
  const counts = new Map<Status, number>();
  countLost(status, counts);
  tellLost(counts, count);
}

/** Adds how many did not get to their end. */
export function countLost(status: Iterable<Status>, counts: Map<Status, number>): void {
  for (const each of status) if (each !== "done") counts.set(each, (counts.get(each) ?? 0) + 1);
}

export function tellLost(counts: ReadonlyMap<Status, number>, count: number): void {
  if (counts.size === 0) return;
  const lost = [...counts.values()].reduce((sum, times) => sum + times, 0);
  const reasons = [...counts].map(([reason, times]) => `${times} ${reason}`).join(", ");
  process.stderr.write(`deldot: ${lost} of ${count} points did not get to the end of their paths: ${reasons}\n`);
}

/** Of the points that have one. */
export function describeLogProb(logProb: Float64Array, stateSize: number): string {
  const { minimum, maximum, mean } = summarize(logProb);
  const bits = bitsPerDimension(mean, stateSize);
  return `log p: mean ${round(mean)}, minimum ${round(minimum)}, maximum ${round(maximum)}; ${round(bits)} bits per dimension`;
}

export function meanOf(numbers: Uint32Array): number {
  return numbers.reduce((sum, each) => sum + each, 0) / numbers.length;
}
