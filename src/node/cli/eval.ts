import { InvalidArgumentError, Option, type Command } from "commander";
import { explainPlan, outputs as allOutputs, type Network, type Output } from "../../index.js";
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
  readonly outputs?: readonly Output[];
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
         divergence, value, what --outputs names, with hutchinson standardError; NaN and infinities are null
  .csv   a line of names, then a line per point: x0.. (the point), v0.. (f), div, with --diagonal d0.., and what else
         --outputs names: jacobian0.. (row after row), curl0.., strain0.., qCriterion
  .npy   the divergence, in the batch shape of the points; in theirs, f in NAME.value.npy beside it, and what --outputs
         names: NAME.diagonal.npy, NAME.jacobian.npy, NAME.curl.npy, NAME.strain.npy, NAME.qCriterion.npy

Outputs:
  diagonal    every ∂f_i/∂x_i
  jacobian    J[i][j] = ∂f_i/∂x_j
  curl        ∇×f of three dimensions; of two the vorticity ∂f_1/∂x_0 - ∂f_0/∂x_1
  strain      S = (J + Jᵀ)/2
  qCriterion  (‖Ω‖² - ‖S‖²)/2 with Ω = (J - Jᵀ)/2
${shardHelp}

Example:
  deldot eval two-moons-flow.safetensors --points points.csv --context 0.5 --out result.csv`;

/** What is given where it is asked for, beside value and divergence. */
const others: readonly Output[] = allOutputs.filter((output) => output !== "value" && output !== "divergence");

function parseOutputs(text: string): Output[] {
  const names = text.split(",").map((name) => name.trim());
  if (!names.every((name) => allOutputs.includes(name as Output)))
    throw new InvalidArgumentError(`Expected names out of ${others.join(",")}.`);
  return names as Output[];
}

export function addEval(program: Command): void {
  const command = program
    .command("eval")
    .description("evaluate f and its divergence at the points of a file")
    .addArgument(modelArgument())
    .requiredOption("--points <file>", "points: .npy, .csv, .tsv, .txt or .json")
    .option("--context <numbers>", contextHelp);
  addModelOptions(command);
  addEvaluationOptions(command)
    .option("--diagonal", "give every ∂f_i/∂x_i too, as --outputs diagonal does")
    .addOption(new Option("--outputs <names>", `what else is given, with commas: ${others.join(", ")}`).argParser(parseOutputs))
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
  const asked = [...(options.outputs ?? []), ...(options.diagonal ? ["diagonal"] : [])];
  const outputs = allOutputs.filter((output) => !others.includes(output) || asked.includes(output));
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
  const asked = othersOf(outputs);
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
      ...asked.map((output) => ({ name: output, per: "point", width: sizeOf(output, d) }) as const),
    ],
    merged: {
      format: "npy",
      shapes: {
        "": points.batch,
        value: points.shape,
        ...Object.fromEntries(asked.map((output) => [output, shapeOf(output, network, points)])),
      },
    },
    open: () => createEvaluator(network, options),
    compute: async ({ field }, { from, rowsOf }, signal) => {
      const results = await field.evaluate(rowsOf("points")!, {
        context: rowsOf("context"),
        method,
        outputs,
        probes,
        seed: seedOfRows(seed, from),
        signal,
      });
      const { divergence, value } = results;
      return { "": divergence!, value: value!, ...Object.fromEntries(asked.map((output) => [output, results[output]!])) };
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
      ...Object.fromEntries(
        othersOf(outputs).map((output) => [
          `.${output}`,
          ({ network, points, results }: Run) => writeNpy({ data: results[output]!, shape: shapeOf(output, network, points) }),
        ]),
      ),
    },
  };
}

/** Of one point's. */
function ownShape(output: Output, d: number): readonly number[] {
  if (output === "qCriterion" || (output === "curl" && d === 2)) return [];
  return output === "jacobian" || output === "strain" ? [d, d] : [d];
}

function sizeOf(output: Output, d: number): number {
  return ownShape(output, d).reduce((product, size) => product * size, 1);
}

function othersOf(outputs: readonly Output[]): Output[] {
  return others.filter((output) => outputs.includes(output));
}

/** Of all points: a point's own shape behind that of the batch, where the output has the state's as it comes. */
function shapeOf(output: Output, { stateSize }: Network, { batch, shape }: Pick<Points, "batch" | "shape">): readonly number[] {
  return output === "diagonal" ? shape : [...batch, ...ownShape(output, stateSize)];
}

function resultObject({ network, count, adapter, milliseconds, results }: Run): Generator<string, void, undefined> {
  const { stateSize, contextSize } = network;
  const { divergence, value, standardError } = results;
  return writeJsonObject([
    ["count", count],
    ["state", stateSize],
    ["context", contextSize],
    ["method", results.method],
    ["adapter", adapter],
    ["milliseconds", Number(milliseconds.toFixed(3))],
    ["divergence", { data: divergence!, shape: [count] }],
    ["value", { data: value!, shape: [count, stateSize] }],
    ...others.flatMap((output) => {
      const data = results[output];
      return data ? [[output, { data, shape: [count, ...ownShape(output, stateSize)] }] as const] : [];
    }),
    ...(standardError ? [["standardError", { data: standardError, shape: [count] }] as const] : []),
  ]);
}

function resultColumns({ network: { stateSize }, points, results }: Run): Column[] {
  const { divergence, value, standardError } = results;
  return [
    ...columnsOf("x", points.data, stateSize),
    ...columnsOf("v", value!, stateSize),
    { name: "div", data: divergence!, offset: 0, stride: 1 },
    ...others.flatMap((output) => {
      const [data, size] = [results[output], sizeOf(output, stateSize)];
      if (!data) return [];
      if (ownShape(output, stateSize).length === 0) return [{ name: output, data, offset: 0, stride: 1 }];
      return columnsOf(output === "diagonal" ? "d" : output, data, size);
    }),
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
