import type { Command } from "commander";
import { explainPlan, type Network, type Output } from "../../index.js";
import { writeCsv } from "../files/csv.js";
import { writeJsonObject } from "../files/json.js";
import { writeNpy } from "../files/npy.js";
import { asPoints, readNumbers, type Points } from "../files/points.js";
import type { Column } from "../files/table.js";
import { createEvaluator, type Results } from "./evaluator.js";
import {
  addEvaluationOptions,
  addModelOptions,
  contextHelp,
  parseWhole,
  readContext,
  readModel,
  type EvaluationOptions,
  type ModelOptions,
  modelArgument,
} from "./options.js";
import { round, summarize } from "./output.js";
import { columnsOf, describeRows, runTask, type ResultFormats } from "./results.js";
import { addShardOption, openPoints, openRows, readPlace, runShardTask, seedOfRows, shardHelp, type ShardOptions } from "./shard.js";

interface EvalOptions extends ModelOptions, EvaluationOptions, ShardOptions {
  readonly points: string;
  readonly context?: string;
  readonly diagonal?: boolean;
  readonly probes?: number;
  readonly seed?: number;
  readonly out?: string;
  readonly json?: boolean;
}

const help = `
Points:
  .npy   real numbers, [count, state] or any shape that ends in the state, or in the axes that an .onnx model has
         for one point, such as [count, particles, 3]
  .csv, .tsv, .txt
         a line per point, with or without a line of names. The first line tells what separates the numbers: commas
         where it has any, else semicolons, else tabs, else spaces. First lines that begin with "# " are skipped.
  .json  lists nested as such a shape, a flat list, or {"count": ..., "points": [...]} with either

Results, by the extension of --out:
  .json  the same object as --json prints: count, state, context (their sizes), method, adapter, milliseconds,
         divergence, value, with --diagonal diagonal, with hutchinson standardError; NaN and infinities are null
  .csv   a line of names, then a line per point: x0.. (the point), v0.. (f), div, with --diagonal d0..
  .npy   the divergence, in the batch shape of the points; in theirs, f in NAME.value.npy and, with --diagonal, the
         diagonal in NAME.diagonal.npy beside it
${shardHelp}

Example:
  deldot eval two-moons-flow.safetensors --points points.csv --context 0.5 --out result.csv`;

export function addEval(program: Command): void {
  const command = program
    .command("eval")
    .description("evaluate f and its divergence at the points of a file")
    .addArgument(modelArgument())
    .requiredOption("--points <file>", "points: .npy, .csv, .tsv, .txt or .json")
    .option("--context <numbers>", contextHelp);
  addModelOptions(command);
  addEvaluationOptions(command)
    .option("--diagonal", "give every ∂f_i/∂x_i too")
    .option("--probes <count>", "hutchinson: probes per point", parseWhole(1, 2 ** 20))
    .option("--seed <number>", "hutchinson: seed of the probes", parseWhole(0, 2 ** 32 - 1))
    .option("--out <file>", "write the results: .npy, .csv or .json")
    .option("--json", "print one JSON object and nothing else")
    .addHelpText("after", help)
    .action(runEval);
  addShardOption(command);
}

async function runEval(modelPath: string, options: EvalOptions): Promise<void> {
  const network = await readModel(modelPath, options);
  const outputs: Output[] = ["value", "divergence"];
  if (options.diagonal) outputs.push("diagonal");
  // Throws where the method does not give them, before a device is looked for.
  explainPlan(network, { method: options.method, outputs, probes: options.probes });
  if (options.shard !== undefined) return evalShard(modelPath, network, outputs, options.shard, options);

  const points = asPoints(await readNumbers(options.points), network, options.points);
  const count = points.data.length / network.stateSize;
  const context = await readContext(options.context, network, count);
  const { method, probes, seed } = options;
  await runTask({
    name: "evaluate",
    out: options.out,
    json: options.json,
    formats: resultFormats(outputs),
    inputs: [modelPath, options.points, ...(options.context === undefined ? [] : [options.context])],
    open: () => createEvaluator(network, options),
    compute: ({ field }, run): Promise<Results> => field.evaluate(points.data, { ...run, context, method, outputs, probes, seed }),
    runOf: (results, { description: adapter }, milliseconds): Run => ({ network, points, count, adapter, milliseconds, results }),
    describe: describeRun,
  });
}

async function evalShard(
  modelPath: string,
  network: Network,
  outputs: readonly Output[],
  shard: string | true,
  options: EvalOptions,
): Promise<void> {
  const place = readPlace(shard, options.out, "npy");
  const { method, probes, seed, kernels = "auto", adapter } = options;
  const { stateSize: d, contextSize } = network;
  const points = await openPoints(options.points, network);
  const context = await openRows(options.context, "context", contextSize, points.count);
  const hasDiagonal = outputs.includes("diagonal");
  await runShardTask({
    name: "evaluate",
    command: "eval",
    network,
    place,
    json: options.json,
    reads: [modelPath, options.points, options.context],
    count: points.count,
    settings: { method, probes: probes ?? "default", seed: seed ?? 0, kernels, adapter },
    inputs: { points: { rows: { file: points.rows }, width: d }, context: { rows: context, width: contextSize } },
    arrays: [
      { name: "", per: "point", width: 1 },
      { name: "value", per: "point", width: d },
      ...(hasDiagonal ? [{ name: "diagonal", per: "point", width: d } as const] : []),
    ],
    merged: { format: "npy", shapes: { "": points.batch, value: points.shape, ...(hasDiagonal && { diagonal: points.shape }) } },
    open: () => createEvaluator(network, options),
    compute: async ({ field }, { from, rowsOf }, signal) => {
      const { divergence, value, diagonal } = await field.evaluate(rowsOf("points")!, {
        context: rowsOf("context"),
        method,
        outputs,
        probes,
        seed: seedOfRows(seed, from),
        signal,
      });
      return { "": divergence!, value: value!, ...(diagonal && { diagonal }) };
    },
  });
}

interface Run {
  readonly network: Network;
  readonly points: Points;
  readonly count: number;
  readonly adapter: string;
  readonly milliseconds: number;
  readonly results: Results;
}

function resultFormats(outputs: readonly Output[]): ResultFormats<Run> {
  return {
    json: resultObject,
    csv: resultTable,
    npy: {
      "": ({ points, results }) => writeNpy({ data: results.divergence!, shape: points.batch }),
      ".value": ({ points, results }) => writeNpy({ data: results.value!, shape: points.shape }),
      ...(outputs.includes("diagonal") && {
        ".diagonal": ({ points, results }: Run) => writeNpy({ data: results.diagonal!, shape: points.shape }),
      }),
    },
  };
}

function resultObject({ network, count, adapter, milliseconds, results }: Run): Generator<string, void, undefined> {
  const { stateSize, contextSize } = network;
  const { divergence, value, diagonal, standardError } = results;
  return writeJsonObject([
    ["count", count],
    ["state", stateSize],
    ["context", contextSize],
    ["method", results.method],
    ["adapter", adapter],
    ["milliseconds", Number(milliseconds.toFixed(3))],
    ["divergence", { data: divergence!, shape: [count] }],
    ["value", { data: value!, shape: [count, stateSize] }],
    ...(diagonal ? [["diagonal", { data: diagonal, shape: [count, stateSize] }] as const] : []),
    ...(standardError ? [["standardError", { data: standardError, shape: [count] }] as const] : []),
  ]);
}

function resultColumns({ network: { stateSize }, points, results }: Run): Column[] {
  const { divergence, value, diagonal, standardError } = results;
  return [
    ...columnsOf("x", points.data, stateSize),
    ...columnsOf("v", value!, stateSize),
    { name: "div", data: divergence!, offset: 0, stride: 1 },
    ...(diagonal ? columnsOf("d", diagonal, stateSize) : []),
    ...(standardError ? [{ name: "standardError", data: standardError, offset: 0, stride: 1 }] : []),
  ];
}

function resultTable(run: Run): Generator<string, void, undefined> {
  return writeCsv(resultColumns(run), run.count);
}

function* describeRun(run: Run, written: readonly string[]): Generator<string, void, undefined> {
  const { count, adapter, milliseconds, results } = run;
  yield `${count} points, method ${results.method}, ${milliseconds.toFixed(1)} ms on ${adapter}\n`;
  if (count > 0) {
    yield* describeRows(resultColumns(run), count, ["div", "standardError"]);
    const { minimum, maximum, mean, notFinite } = summarize(results.divergence!);
    yield `\ndivergence: minimum ${round(minimum)}, maximum ${round(maximum)}, mean ${round(mean)}\n`;
    if (notFinite > 0) yield `${notFinite} points have no finite divergence\n`;
  }
  for (const path of written) yield `wrote ${path}\n`;
}
