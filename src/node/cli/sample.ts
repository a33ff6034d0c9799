import type { Command } from "commander";
import type { Network } from "../../index.js";
import { writeCsv } from "../files/csv.js";
import { writeJsonObject } from "../files/json.js";
import { writeNpy } from "../files/npy.js";
import type { Column } from "../files/table.js";
import { createFlow, type SampledPoints } from "./evaluator.js";
import { addFlowOptions, describeLogProb, meanOf, readPaths, reportLost, type FlowOptions, type Paths } from "./flowOptions.js";
import { addModelOptions, modelArgument, parseWhole, readModel, readRows, type ModelOptions } from "./options.js";
import { round } from "./output.js";
import { columnsOf, describeRows, runTask, type ResultFormats } from "./results.js";

interface SampleOptions extends ModelOptions, FlowOptions {
  readonly count: number;
  readonly out?: string;
  readonly json?: boolean;
}

const help = `
Noise is normal with variance 1, by the seed the same on every device; "deldot logprob --help" says how paths carry it
to data, and what the options of paths are.

Results, by the extension of --out:
  .json  the same object as --json prints: count, state, seed, method, solver, adapter, milliseconds, points, logProb,
         evaluations (of f and its divergence), status; NaN is null. It is a file of points, too
  .csv   a line of names, then a line per point: x0.. (the point), logProb
  .npy   the points, [count, state] or [count, ...] with the axes that an .onnx model has for one point; their log p in
         NAME.logProb.npy beside it

Example:
  deldot sample two-moons-flow.safetensors --count 1000 --seed 1 --out samples.csv`;

export function addSample(program: Command): void {
  const command = program
    .command("sample")
    .description("draw points of a flow's distribution, with log p of each")
    .addArgument(modelArgument())
    .option("--count <number>", "how many points", parseWhole(1, 2 ** 24), 1000);
  addFlowOptions(command, "seed of the noise, and of hutchinson's probes (default: 0)");
  addModelOptions(command)
    .option("--out <file>", "write the results: .npy, .csv or .json")
    .option("--json", "print one JSON object and nothing else")
    .addHelpText("after", help)
    .action(runSample);
}

async function runSample(modelPath: string, options: SampleOptions): Promise<void> {
  const { count, seed = 0 } = options;
  const network = await readModel(modelPath, options);
  const paths = readPaths(network, options);
  const condition = await readRows(options.condition, "condition", paths.conditionSize, count);

  const { status } = await runTask({
    name: "sample",
    out: options.out,
    json: options.json,
    formats,
    inputs: [modelPath, ...(options.condition === undefined ? [] : [options.condition])],
    open: () => createFlow(network, paths.settings, options),
    compute: ({ flow }, run) => flow.sample(count, { ...paths.solve, ...run, seed, condition }),
    runOf: (results, { description: adapter }, milliseconds): Run => ({
      network,
      count,
      seed,
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
  readonly count: number;
  readonly seed: number;
  readonly method: string;
  readonly paths: Paths;
  readonly adapter: string;
  readonly milliseconds: number;
  readonly results: SampledPoints;
}

const formats: ResultFormats<Run> = {
  json: resultObject,
  csv: (run) => writeCsv(resultColumns(run), run.count),
  npy: {
    "": ({ network: { stateSize, stateShape = [stateSize] }, count, results }) =>
      writeNpy({ data: results.points, shape: [count, ...stateShape] }),
    ".logProb": ({ count, results }) => writeNpy({ data: results.logProb, shape: [count] }),
  },
};

function resultObject({ network, count, seed, method, paths, adapter, milliseconds, results }: Run): Generator<string, void, undefined> {
  const { stateSize } = network;
  return writeJsonObject([
    ["count", count],
    ["state", stateSize],
    ["seed", seed],
    ["method", method],
    ["solver", paths.solver],
    ["adapter", adapter],
    ["milliseconds", Number(milliseconds.toFixed(3))],
    ["points", { data: results.points, shape: [count, stateSize] }],
    ["logProb", { data: results.logProb, shape: [count] }],
    ["evaluations", { data: Float64Array.from(results.evaluations), shape: [count] }],
    ["status", results.status],
  ]);
}

function resultColumns({ network: { stateSize }, results: { points, logProb } }: Run): Column[] {
  return [...columnsOf("x", points, stateSize), { name: "logProb", data: logProb, offset: 0, stride: 1 }];
}

function* describeRun(run: Run, written: readonly string[]): Generator<string, void, undefined> {
  const { network, count, seed, paths, adapter, milliseconds, results } = run;
  yield `${count} points of seed ${seed}, ${paths.description}, ${milliseconds.toFixed(1)} ms on ${adapter}\n`;
  yield* describeRows(resultColumns(run), count, ["logProb"]);
  yield `\n${describeLogProb(results.logProb, network.stateSize)}; ${round(meanOf(results.evaluations))} evaluations per point\n`;
  for (const path of written) yield `wrote ${path}\n`;
}
