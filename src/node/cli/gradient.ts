import { basename, extname } from "node:path";
import { InvalidArgumentError, Option, type Command } from "commander";
import { InputError, quote } from "../../errors.js";
import {
  explainPlan,
  methods,
  parameterLayout,
  type Cotangents,
  type Network,
  type ParameterLayout,
  type Vjp,
  type Wrt,
} from "../../index.js";
import { encodeTensors, type FileTensor } from "../../tensorFile.js";
import { commit, discard, openOutputs } from "../files/output.js";
import { NpyRows } from "../files/npyRows.js";
import { asPoints, pointAxes, readNumbers, type Points } from "../files/points.js";
import { createEvaluator } from "./evaluator.js";
import {
  addEvaluationOptions,
  addModelOptions,
  contextHelp,
  modelArgument,
  parseNumbers,
  parseWhole,
  readContext,
  readModel,
  type EvaluationOptions,
  type ModelOptions,
} from "./options.js";
import type { ArrayLayout, MergedTensor } from "../shards/manifest.js";
import { formatTable, largestOf, print, round } from "./output.js";
import { interruptSignal, withProgress } from "./progress.js";
import {
  addShardOption,
  openPoints,
  openRows,
  readPlace,
  runShardTask,
  seedOfRows,
  shardHelp,
  type Rows,
  type ShardOptions,
} from "./shard.js";

interface GradientOptions extends ModelOptions, EvaluationOptions, ShardOptions {
  readonly points: string;
  readonly context?: string;
  readonly valueCotangent?: string;
  readonly divergenceCotangent?: string;
  readonly wrt?: readonly Wrt[];
  readonly probes?: number;
  readonly seed?: number;
  readonly out: string;
  readonly json?: boolean;
}

const help = `
The gradient of L = Σ_b (e_b · f(x_b) + c_b ∇·f(x_b)), where b counts the points: e is --value-cotangent, a vector
of the state's size for each point, and c --divergence-cotangent, a number for each point or one for all. At least
one of the two is given.

Points, contexts and cotangents are read from the files that "deldot eval --help" describes.

Results, in F32:
  gradient.points   in the shape of the points
  gradient.context  a row for each point; [context] alone, the sum over the points, where one context serves all
  gradient.NAME     of the parameter NAME, in its shape, the sum over the points; names are the file's own, of an
                    .onnx file its initializers'
  value, divergence f and ∇·f at the points, of the same pass
  __metadata__      "model", the file's name, and "method"
A point with a NaN or an infinity in it makes all sums NaN.

--json prints count, state, context (their sizes), method, adapter, milliseconds, out, and tensors: of each its shape
and its largest magnitude, null where that is not finite.
${shardHelp}

Example:
  deldot gradient two-moons-flow.safetensors --points points.csv --context 0.5 --divergence-cotangent 1 --out g.safetensors`;

const extension = ".safetensors";
const everything: readonly Wrt[] = ["points", "context", "parameters"];

export function addGradient(program: Command): void {
  const command = program
    .command("gradient")
    .description("differentiate f and its divergence by the points of a file, the context and the parameters")
    .addArgument(modelArgument())
    .requiredOption("--points <file>", "points: .npy, .csv, .tsv, .txt or .json")
    .option("--context <numbers>", contextHelp)
    .option("--value-cotangent <file>", "∂L/∂f: a vector per point")
    .option("--divergence-cotangent <number>", "∂L/∂(∇·f): a number for all points, or a file with one per point")
    .addOption(
      new Option("--wrt <names>", "what to differentiate by, with commas: points, context, parameters (default: all there are)").argParser(
        parseWrt,
      ),
    );
  addModelOptions(command);
  addEvaluationOptions(
    command,
    methods.filter((method) => method !== "difference"),
  )
    .option("--probes <count>", "hutchinson: probes per point", parseWhole(1, 2 ** 20))
    .option("--seed <number>", "hutchinson: seed of the probes", parseWhole(0, 2 ** 32 - 1))
    .requiredOption("--out <file>", `write the results: ${extension}`)
    .option("--json", "print one JSON object and nothing else")
    .addHelpText("after", help)
    .action(runGradient);
  addShardOption(command);
}

function parseWrt(text: string): Wrt[] {
  const names = text.split(",").map((name) => name.trim());
  const known = everything.filter((name) => names.includes(name));
  if (known.length < new Set(names).size) throw new InvalidArgumentError(`Expected names out of ${everything.join(",")}.`);
  return known;
}

async function runGradient(modelPath: string, options: GradientOptions): Promise<void> {
  const { method, probes, seed } = options;
  const network = await readModel(modelPath, options);
  const wrt = wrtOf(network, options.wrt);
  if (extname(options.out).toLowerCase() !== extension)
    throw new InputError(`--out ${options.out}: its extension is ${quote(extname(options.out))}; expected ${extension}`);
  // Throws where the method does not fit the network, before a device is looked for.
  explainPlan(network, { method, outputs: ["divergence"], probes });
  if (options.shard !== undefined) return gradientShard(modelPath, network, wrt, options.shard, options);

  const points = asPoints(await readNumbers(options.points), network, options.points);
  const count = points.data.length / network.stateSize;
  const context = await readContext(options.context, network, count);
  const cotangents = await readCotangents(options, network, count);

  const signal = interruptSignal();
  const read = [options.points, options.context, options.valueCotangent, options.divergenceCotangent];
  const files = await openOutputs([options.out], [modelPath, ...read.filter((path) => path !== undefined)]);
  try {
    const evaluator = await createEvaluator(network, options);
    try {
      const start = performance.now();
      const results: Results = await withProgress("gradient", (onProgress) =>
        evaluator.field.vjp<Wrt, "value" | "divergence">(points.data, cotangents, {
          context,
          wrt,
          outputs: ["value", "divergence"],
          method,
          probes,
          seed,
          onProgress,
          signal,
        }),
      );
      const milliseconds = performance.now() - start;
      const tensors = tensorsOf(network, points, results);
      const metadata = { model: basename(modelPath), method: results.method };
      await commit([{ file: files[0]!, content: [encodeTensors(metadata, tensors)] }], signal);
      const run: Run = { network, count, method: results.method, adapter: evaluator.description, milliseconds, out: options.out, tensors };
      await print(options.json ? [describeAsJson(run)] : describeRun(run));
    } finally {
      await evaluator.dispose();
    }
  } finally {
    await discard(files);
  }
}

async function gradientShard(
  modelPath: string,
  network: Network,
  wrt: readonly Wrt[],
  shard: string | true,
  options: GradientOptions,
): Promise<void> {
  const place = readPlace(shard, options.out, "safetensors");
  const { method, probes, seed, kernels = "auto", adapter } = options;
  const { stateSize: d, contextSize } = network;
  const points = await openPoints(options.points, network);
  const context = await openRows(options.context, "context", contextSize, points.count);
  const cotangents = await openCotangents(options, network, points.count);
  const contextPer = "file" in context ? "point" : "block";
  const layout = parameterLayout(network);
  const arrays: ArrayLayout[] = [
    ...wrt.map((each): ArrayLayout => {
      if (each === "points") return { name: "gradient.points", per: "point", width: d };
      if (each === "context") return { name: "gradient.context", per: contextPer, width: contextSize };
      return { name: "gradient.parameters", per: "block", width: layout.size };
    }),
    { name: "value", per: "point", width: d },
    { name: "divergence", per: "point", width: 1 },
  ];
  const tensors = arrays.flatMap(({ name: array, per, width }): MergedTensor[] => {
    if (array === "gradient.parameters")
      return layout.tensors.map(({ name, shape, offset }) => ({ name: `gradient.${name}`, shape, array, offset }));
    const shape =
      per === "block"
        ? [width]
        : array === "divergence"
          ? points.batch
          : array === "gradient.context"
            ? [...points.batch, width]
            : points.shape;
    return [{ name: array, shape, array, offset: 0 }];
  });
  await runShardTask({
    name: "gradient",
    command: "gradient",
    network,
    place,
    json: options.json,
    reads: [modelPath, options.points, options.context, options.valueCotangent, options.divergenceCotangent],
    count: points.count,
    settings: { method, probes: probes ?? "default", seed: seed ?? 0, kernels, adapter },
    inputs: {
      points: { rows: { file: points.rows }, width: d },
      context: { rows: context, width: contextSize },
      "value-cotangent": { rows: cotangents.value, width: d },
      "divergence-cotangent": { rows: cotangents.divergence, width: 1 },
    },
    arrays,
    merged: { format: "safetensors", metadata: { model: basename(modelPath), method }, tensors },
    open: () => createEvaluator(network, options),
    compute: async ({ field }, { from, rowsOf }, signal) => {
      const divergence = rowsOf("divergence-cotangent");
      const given = { value: rowsOf("value-cotangent"), divergence: "file" in cotangents.divergence ? divergence : divergence?.[0] };
      const results: Results = await field.vjp<Wrt, "value" | "divergence">(rowsOf("points")!, given, {
        context: rowsOf("context"),
        wrt,
        outputs: ["value", "divergence"],
        method,
        probes,
        seed: seedOfRows(seed, from),
        signal,
      });
      const { parameters } = results;
      return {
        value: results.value!,
        divergence: results.divergence!,
        ...(results.points && { "gradient.points": results.points }),
        ...(results.context && { "gradient.context": results.context }),
        ...(parameters && { "gradient.parameters": inOneRow(layout, parameters) }),
      };
    },
  });
}

/** The tensors of a gradient one after another. */
function inOneRow({ tensors, size }: ParameterLayout, parameters: NonNullable<Results["parameters"]>): Float32Array | Float64Array {
  const row = Object.values(parameters)[0]?.data instanceof Float64Array ? new Float64Array(size) : new Float32Array(size);
  for (const { name, offset } of tensors) row.set(parameters[name]!.data, offset);
  return row;
}

/** Files with a row for each point, or one number for all. */
async function openCotangents(
  { valueCotangent: valuePath, divergenceCotangent: text }: GradientOptions,
  network: Network,
  count: number,
): Promise<{ value: Rows; divergence: Rows }> {
  if (valuePath === undefined && text === undefined) throw noCotangent();
  const openOf = async (path: string, width: number): Promise<Rows> => {
    const file = await NpyRows.open(path);
    const { count: length, shape } = file.header;
    if (width > 1) pointAxes(shape, length, network, path);
    if (length !== count * width)
      throw new InputError(`${path}: it holds ${length} numbers; expected ${count * width}, ${width} per point`);
    return { file };
  };
  const value = valuePath === undefined ? { shared: undefined } : await openOf(valuePath, network.stateSize);
  const one = text === undefined ? undefined : numberIn(text);
  if (text === undefined || one !== null) return { value, divergence: { shared: one === undefined ? undefined : Float64Array.of(one!) } };
  return { value, divergence: await openOf(text, 1) };
}

type Results = Vjp<Wrt, "value" | "divergence", Float32Array | Float64Array>;

interface Run {
  readonly network: Network;
  readonly count: number;
  readonly method: string;
  readonly adapter: string;
  readonly milliseconds: number;
  readonly out: string;
  readonly tensors: readonly FileTensor[];
}

function wrtOf(network: Network, asked: readonly Wrt[] | undefined): readonly Wrt[] {
  const hasContext = network.contextSize > 0;
  if (!hasContext && asked?.includes("context"))
    throw new InputError("--wrt has context, but the model takes none; expected names out of points,parameters");
  const wrt = asked ?? everything.filter((name) => name !== "context" || hasContext);
  if (!wrt.includes("parameters")) return wrt;
  // Two tensors of a file may not have one name.
  const clash = parameterLayout(network).tensors.find(({ name }) => (wrt as readonly string[]).includes(name));
  if (clash)
    throw new InputError(
      `the model has a parameter called ${quote(clash.name)}, and so gradient.${clash.name} would stand for two; expected --wrt with either ${clash.name} or parameters`,
    );
  return wrt;
}

async function readCotangents(
  { valueCotangent: valuePath, divergenceCotangent: text }: GradientOptions,
  network: Network,
  count: number,
): Promise<Cotangents> {
  if (valuePath === undefined && text === undefined) throw noCotangent();
  const value = valuePath === undefined ? undefined : asPoints(await readNumbers(valuePath), network, valuePath).data;
  const vectors = value && value.length / network.stateSize;
  if (vectors !== undefined && vectors !== count)
    throw new InputError(`${valuePath}: it holds ${vectors} vectors; expected ${count}, one per point`);
  return { value, divergence: text === undefined ? undefined : await readWeights(text, count) };
}

function noCotangent(): InputError {
  return new InputError("there is no cotangent; expected --value-cotangent, --divergence-cotangent or both");
}

/** The number for all points; null where the text is the name of a file. */
function numberIn(text: string): number | null {
  const numbers = parseNumbers(text);
  if (numbers && numbers.length > 1)
    throw new InputError(`--divergence-cotangent ${text} has ${numbers.length} numbers; expected one, or a file with one per point`);
  return numbers && numbers[0]!;
}

async function readWeights(text: string, count: number): Promise<number | Float32Array | Float64Array> {
  const number = numberIn(text);
  if (number !== null) return number;
  const { data } = await readNumbers(text);
  if (data.length !== count) throw new InputError(`${text}: it holds ${data.length} numbers; expected ${count}, one per point`);
  return data;
}

function tensorsOf({ contextSize }: Network, { shape, batch }: Points, results: Results): FileTensor[] {
  const { points, context, parameters = {}, value, divergence } = results;
  const tensors = [
    ...(points ? [{ name: "gradient.points", shape, numbers: points }] : []),
    ...(context
      ? [{ name: "gradient.context", shape: context.length === contextSize ? [contextSize] : [...batch, contextSize], numbers: context }]
      : []),
    ...Object.entries(parameters).map(([name, { data, shape: own }]) => ({ name: `gradient.${name}`, shape: own, numbers: data })),
    { name: "value", shape, numbers: value! },
    { name: "divergence", shape: batch, numbers: divergence! },
  ];
  return tensors.map((tensor) => ({ ...tensor, numbers: Float32Array.from(tensor.numbers) }));
}

function describeAsJson({ network, count, method, adapter, milliseconds, out, tensors }: Run): string {
  const { stateSize: state, contextSize: context } = network;
  // What is not finite becomes null.
  const described = Object.fromEntries(tensors.map(({ name, shape, numbers }) => [name, { shape, largest: largestOf(numbers) }]));
  const object = { count, state, context, method, adapter, milliseconds: Number(milliseconds.toFixed(3)), out, tensors: described };
  return `${JSON.stringify(object, null, 2)}\n`;
}

function* describeRun({ count, method, adapter, milliseconds, out, tensors }: Run): Generator<string, void, undefined> {
  yield `${count} points, method ${method}, ${milliseconds.toFixed(1)} ms on ${adapter}\n\n`;
  const rows = tensors.map(({ name, shape, numbers }) => ({ name, shape, largest: largestOf(numbers) }));
  yield formatTable([
    ["tensor", "shape", "largest entry"],
    ...rows.map(({ name, shape, largest }) => [name, `[${shape.join(", ")}]`, round(largest)]),
  ]);
  const notFinite = rows.filter(({ largest }) => !Number.isFinite(largest)).length;
  if (notFinite > 0) yield `${notFinite} of them hold numbers that are not finite\n`;
  yield `wrote ${out}\n`;
}
