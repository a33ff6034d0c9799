import type { Command } from "commander";
import type { Network, Status } from "../../index.js";
import { writeCsv } from "../files/csv.js";
import { writeJsonObject } from "../files/json.js";
import { writeNpy } from "../files/npy.js";
import { asPoints, readNumbers, type Points } from "../files/points.js";
import type { Column } from "../files/table.js";
import { createFlow, type LogProbs } from "./evaluator.js";
import {
  addFlowOptions,
  describeLogProb,
  meanOf,
  readPaths,
  countLost,
  reportLost,
  tellLost,
  type FlowOptions,
  type Paths,
} from "./flowOptions.js";
import { addModelOptions, modelArgument, readModel, readRows, type ModelOptions } from "./options.js";
import { round } from "./output.js";
import { columnsOf, describeRows, runTask, type ResultFormats } from "./results.js";
import { addShardOption, openPoints, openRows, readPlace, runShardTask, seedOfRows, shardHelp, type ShardOptions } from "./shard.js";

interface LogProbOptions extends ModelOptions, FlowOptions, ShardOptions {
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
${shardHelp}

Example:
  deldot logprob two-moons-flow.safetensors --points points.csv --rtol 1e-6 --atol 1e-6 --out logprob.csv`;

export function addLogProb(program: Command): void {
  const command = program
    .command("logprob")
    .description("compute log p of a flow at the points of a file")
    .addArgument(modelArgument())
    .requiredOption("--points <file>", "points: .npy, .csv, .tsv, .txt or .json");
  addFlowOptions(command, "hutchinson: seed of the probes");
  addShardOption(addModelOptions(command))
    .option("--out <file>", "write the results: .npy, .csv or .json")
    .option("--json", "print one JSON object and nothing else")
    .addHelpText("after", help)
    .action(runLogProb);
}

async function runLogProb(modelPath: string, options: LogProbOptions): Promise<void> {
  const network = await readModel(modelPath, options);
  const paths = readPaths(network, options);
  if (options.shard !== undefined) return logProbShard(modelPath, network, paths, options.shard, options);
  const points = asPoints(await readNumbers(options.points), network, options.points);
  const count = points.data.length / network.stateSize;
  const condition = await readRows(options.condition, "condition", paths.conditionSize, count);

  const { status } = await runTask({
    name: "log p",
    out: options.out,
    json: options.json,
    formats,
    inputs: [modelPath, options.points, ...(options.condition === undefined ? [] : [options.condition])],
    open: () => createFlow(network, paths.settings, options),
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

async function logProbShard(
  modelPath: string,
  network: Network,
  paths: Paths,
  shard: string | true,
  options: LogProbOptions,
): Promise<void> {
  const place = readPlace(shard, options.out, "npy");
  const { stateSize: d } = network;
  const { conditionSize, settings, solve } = paths;
  const points = await openPoints(options.points, network);
  const condition = await openRows(options.condition, "condition", conditionSize, points.count);
  const { divergence } = solve;
  const lost = new Map<Status, number>();
  let computed = 0;
  await runShardTask({
    name: "log p",
    command: "logprob",
    network,
    place,
    json: options.json,
    reads: [modelPath, options.points, options.condition],
    count: points.count,
    settings: {
      paths: paths.description,
      times: `${settings.noiseAt} to ${settings.dataAt}, column ${settings.timeColumn}`,
      method: options.method,
      probes: options.probes ?? "default",
      seed: options.seed ?? 0,
      kernels: options.kernels ?? "auto",
      adapter: options.adapter,
    },
    inputs: { points: { rows: { file: points.rows }, width: d }, condition: { rows: condition, width: conditionSize } },
    arrays: [
      { name: "", per: "point", width: 1 },
      { name: "base", per: "point", width: d },
    ],
    merged: { format: "npy", shapes: { "": points.batch, base: points.shape } },
    open: () => createFlow(network, settings, options),
    compute: async ({ flow }, { from, count, rowsOf }, signal) => {
      const seeded = typeof divergence === "object" ? { ...divergence, seed: seedOfRows(divergence.seed, from) } : divergence;
      const { logProb, base, status } = await flow.logProb(rowsOf("points")!, {
        ...solve,
        divergence: seeded,
        condition: rowsOf("condition"),
        signal,
      });
      computed += count;
      countLost(status, lost);
      return { "": logProb, base };
    },
  });
  tellLost(lost, computed);
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
