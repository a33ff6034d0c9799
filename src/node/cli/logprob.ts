import type { Command } from "commander";
import type { Network } from "../../index.js";
import { writeCsv } from "../files/csv.js";
import { writeJsonObject } from "../files/json.js";
import { writeNpy } from "../files/npy.js";
import { asPoints, readNumbers, type Points } from "../files/points.js";
import type { Column } from "../files/table.js";
import { createFlow, type LogProbs } from "./evaluator.js";
import { addFlowOptions, describeLogProb, meanOf, readPaths, reportLost, type FlowOptions, type Paths } from "./flowOptions.js";
import { addModelOptions, modelArgument, readModel, readRows, type ModelOptions } from "./options.js";
import { round } from "./output.js";
import { columnsOf, describeRows, runTask, type ResultFormats } from "./results.js";

interface LogProbOptions extends ModelOptions, FlowOptions {
  readonly points: string;
  readonly out?: string;
  readonly json?: boolean;
}

const help = `
The model is a flow: its paths carry noise, normal with variance 1 at the time --noise-at, to data at --data-at, and
log p, in nats, changes along them by the integral of the divergence. Time is a column of the model's context; the
others are the condition. Points and conditions are read from the files that "deldot eval --help" describes.

Solvers with error control (tsit5, dopri5, bosh3) choose steps for each point by itself, or take --steps; the others
(euler, midpoint, heun, rk4) need --steps. A point whose path does not get to its end has NaN, and a line on stderr
says how many there are, and why.

Results, by the extension of --out:
  .json  the same object as --json prints: count, state, method, solver, adapter, milliseconds, logProb, base (where
         each point comes from, its noise), evaluations (of f and its divergence), status; NaN is null
  .csv   a line of names, then a line per point: x0.. (the point), z0.. (its noise), logProb, evaluations
  .npy   log p, in the batch shape of the points; in theirs, the noise in NAME.base.npy beside it

Example:
  deldot logprob two-moons-flow.safetensors --points points.csv --rtol 1e-6 --atol 1e-6 --out logprob.csv`;

export function addLogProb(program: Command): void {
  const command = program
    .command("logprob")
    .description("compute log p of a flow at the points of a file")
    .addArgument(modelArgument())
    .requiredOption("--points <file>", "points: .npy, .csv, .tsv, .txt or .json");
  addFlowOptions(command, "hutchinson: seed of the probes");
  addModelOptions(command)
    .option("--out <file>", "write the results: .npy, .csv or .json")
    .option("--json", "print one JSON object and nothing else")
    .addHelpText("after", help)
    .action(runLogProb);
}

async function runLogProb(modelPath: string, options: LogProbOptions): Promise<void> {
  const network = await readModel(modelPath, options);
  const paths = readPaths(network, options);
  const points = asPoints(await readNumbers(options.points), network, options.points);
  const count = points.data.length / network.stateSize;
  const condition = await readRows(options.condition, "condition", paths.conditionSize, count);

  const { status } = await runTask({
    name: "log p",
    out: options.out,
    json: options.json,
    formats,
    inputs: [modelPath, options.points, ...(options.condition === undefined ? [] : [options.condition])],
    open: () => createFlow(network, paths.settings, options.adapter),
    compute: ({ flow }, run) => flow.logProb(points.data, { ...paths.solve, ...run, condition }),
    runOf: (results, { description: adapter }, milliseconds): Run => ({
      network,
      points,
      count,
      method: options.method,
      paths,
      adapter,
      milliseconds,
      results,
    }),
    describe: describeRun,
  });
  reportLost(status, count);
}

interface Run {
  readonly network: Network;
  readonly points: Points;
  readonly count: number;
  readonly method: string;
  readonly paths: Paths;
  readonly adapter: string;
  readonly milliseconds: number;
  readonly results: LogProbs;
}

const formats: ResultFormats<Run> = {
  json: resultObject,
  csv: (run) => writeCsv(resultColumns(run), run.count),
  npy: {
    "": ({ points, results }) => writeNpy({ data: results.logProb, shape: points.batch }),
    ".base": ({ points, results }) => writeNpy({ data: results.base, shape: points.shape }),
  },
};

function resultObject({ network, count, method, paths, adapter, milliseconds, results }: Run): Generator<string, void, undefined> {
  const { stateSize } = network;
  const { logProb, base, evaluations, status } = results;
  return writeJsonObject([
    ["count", count],
    ["state", stateSize],
    ["method", method],
    ["solver", paths.solver],
    ["adapter", adapter],
    ["milliseconds", Number(milliseconds.toFixed(3))],
    ["logProb", { data: logProb, shape: [count] }],
    ["base", { data: base, shape: [count, stateSize] }],
    ["evaluations", { data: Float64Array.from(evaluations), shape: [count] }],
    ["status", status],
  ]);
}

function resultColumns({ network: { stateSize }, points, results: { logProb, base, evaluations } }: Run): Column[] {
  return [
    ...columnsOf("x", points.data, stateSize),
    ...columnsOf("z", base, stateSize),
    { name: "logProb", data: logProb, offset: 0, stride: 1 },
    { name: "evaluations", data: Float64Array.from(evaluations), offset: 0, stride: 1 },
  ];
}

function* describeRun(run: Run, written: readonly string[]): Generator<string, void, undefined> {
  const { network, count, paths, adapter, milliseconds, results } = run;
  yield `${count} points, ${paths.description}, ${milliseconds.toFixed(1)} ms on ${adapter}\n`;
  if (count > 0) {
    yield* describeRows(resultColumns(run), count, ["logProb", "evaluations"]);
    yield `\n${describeLogProb(results.logProb, network.stateSize)}; ${round(meanOf(results.evaluations))} evaluations per point\n`;
  }
  for (const path of written) yield `wrote ${path}\n`;
}
