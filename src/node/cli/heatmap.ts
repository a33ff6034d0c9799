import { basename, extname } from "node:path";
import { Option, type Command } from "commander";
import { InputError, quote } from "../../errors.js";
import type { EvaluateOptions, Field, Network, Output, Status } from "../../index.js";
import { commit, discard, openOutputs, type OutputFile } from "../files/output.js";
import { centres, renderHeatmap, type Axis, type Heatmap } from "../heatmap.js";
import { createEvaluator, createFlow } from "./evaluator.js";
import { addPathOptions, readPaths, reportLost, type PathOptions } from "./flowOptions.js";
import {
  addEvaluationOptions,
  addModelOptions,
  parseList,
  parsePositive,
  parseRange,
  parseWhole,
  readContext,
  readModel,
  readRows,
  type EvaluationOptions,
  type ModelOptions,
  type Range,
  modelArgument,
} from "./options.js";
import { print, round, summarize } from "./output.js";
import { interruptSignal, withProgress, type Progress } from "./progress.js";

const quantities = ["divergence", "logprob"] as const;
type Quantity = (typeof quantities)[number];

interface HeatmapOptions extends ModelOptions, EvaluationOptions, PathOptions {
  readonly x: Range;
  readonly y: Range;
  readonly size?: number;
  readonly axes: readonly number[];
  readonly at?: readonly number[];
  readonly context?: string;
  readonly arrows?: number | true;
  readonly contour?: boolean;
  readonly limit?: number;
  readonly quantity: Quantity;
  readonly out: string;
}

const help = `
The divergence has colours centred on zero: red where the field expands, blue where it contracts, grey where it is not
finite. Where the state has more than two components, the others keep the values of --at.

--quantity logprob draws log p of a flow, in nats, from yellow at its maximum to dark violet at 10 below it (--limit
changes the 10) and less, white where a path did not get to its end; and prints the mass in view, which is Σ p times the
area of a cell: about 1 where the view holds all that the flow makes. Of more than two components it draws the density of
a slice, and asks for --at. "deldot logprob --help" says what the options of paths are.

Examples:
  deldot heatmap two-moons-flow.safetensors --context 0.5 --arrows --out heatmap.png
  deldot heatmap lorenz.safetensors --axes 0,2 --at 0,-1,0 --x -2:2 --y 0:5 --out lorenz.png
  deldot heatmap two-moons-flow.safetensors --quantity logprob --x -4:4 --y -4:4 --size 256 --out density.png`;

const defaultArrows = 20;
const defaultDepth = 10;
/** A number of log p takes as long as some hundred divergences. */
const defaultSize: Readonly<Record<Quantity, number>> = { divergence: 512, logprob: 256 };

export function addHeatmap(program: Command): void {
  const everywhere: Range = { from: -3, to: 3 };
  const command = program
    .command("heatmap")
    .description("draw the divergence, or log p of a flow, over a plane of state space as a PNG picture")
    .addArgument(modelArgument())
    .addOption(new Option("--quantity <name>", "what is drawn").choices(quantities).default("divergence"))
    .option("--x <range>", "range of the horizontal axis, such as -3:3", parseRange, everywhere)
    .option("--y <range>", "range of the vertical axis, such as -3:3", parseRange, everywhere)
    .option(
      "--size <pixels>",
      `grid points, and pixels, along each axis (default: ${defaultSize.divergence}; of log p ${defaultSize.logprob})`,
      parseWhole(16, 4096),
    )
    .option("--axes <i,j>", "components of the state along the two axes", parseList, [0, 1])
    .option("--at <numbers>", "the whole state's values, for the components that are not axes (default: all 0)", parseList)
    .option(
      "--limit <number>",
      `end of the colour scale (default: the largest magnitude); of log p, its length (default: ${defaultDepth})`,
      parsePositive,
    )
    .option("--context <numbers>", "divergence: context of all points (0.5 or 0.5,1), or a file with one row")
    .option("--arrows [count]", `divergence: draw f as arrows, so many along each axis (default: ${defaultArrows})`, parseWhole(1, 200))
    .option("--contour", "divergence: draw the line where it is 0");
  addModelOptions(command);
  addPathOptions(addEvaluationOptions(command), "logprob: ", "a file with one row");
  command.requiredOption("--out <file>", "the picture, .png").addHelpText("after", help).action(runHeatmap);
  // Commander prints a default by String(); these are objects.
  for (const option of command.options) {
    if (option.defaultValue === everywhere) option.defaultValueDescription = "-3:3";
    if (option.long === "--axes") option.defaultValueDescription = "0,1";
  }
}

async function runHeatmap(modelPath: string, options: HeatmapOptions, command: Command): Promise<void> {
  const { out, quantity, size = defaultSize[quantity] } = options;
  if (extname(out).toLowerCase() !== ".png") throw new InputError(`--out ${out}: its extension is ${quote(extname(out))}; expected .png`);
  refuseOptionsOfOthers(command, quantity);
  const network = await readModel(modelPath, options);
  const plane = readPlane(network, options);
  const given = quantity === "logprob" ? options.condition : options.context;
  const drawing =
    quantity === "logprob" ? await prepareLogProb(network, plane, size, options) : await prepareDivergence(network, plane, size, options);

  const signal = interruptSignal();
  const [file] = (await openOutputs([out], [modelPath, ...(given === undefined ? [] : [given])])) as [OutputFile];
  try {
    const { heatmap, name, description, warn } = await drawing(signal);
    const title = `${name} of ${basename(modelPath, extname(modelPath))}`;
    const picture = await renderHeatmap({ size, x: plane.x, y: plane.y, title, ...heatmap });
    await commit([{ file, content: [picture] }], signal);
    await print([...description, `wrote ${out}\n`]);
    warn?.();
  } finally {
    await discard([file]);
  }
}

/** A quantity over a plane, and what is said about it. */
interface Drawn {
  readonly heatmap: Omit<Heatmap, "size" | "x" | "y" | "title">;
  readonly name: string;
  readonly description: Iterable<string>;
  /** What is wrong with it goes to stderr. */
  readonly warn?: () => void;
}

/** Works on a device; all that it takes is read and checked before. */
type Drawing = (signal: AbortSignal) => Promise<Drawn>;

/** By the names that commander gives them. */
const ownOptions: Readonly<Record<Quantity, readonly string[]>> = {
  divergence: ["context", "arrows", "contour", "method"],
  logprob: ["condition", "noiseAt", "dataAt", "timeColumn", "solver", "rtol", "atol", "steps"],
};

/** An option without effect would be taken for one that had it. */
function refuseOptionsOfOthers(command: Command, quantity: Quantity): void {
  for (const other of quantities) {
    if (other === quantity) continue;
    const option = command.options.find(
      (each) => ownOptions[other].includes(each.attributeName()) && command.getOptionValueSource(each.attributeName()) === "cli",
    );
    if (option) throw new InputError(`${option.long} is an option of --quantity ${other}; expected none for ${quantity}`);
  }
}

async function prepareDivergence(network: Network, plane: Plane, size: number, options: HeatmapOptions): Promise<Drawing> {
  const { method, limit, contour } = options;
  const context = await readContext(options.context, network, 1);
  return async (signal) => {
    const evaluator = await createEvaluator(network, options);
    try {
      const start = performance.now();
      const values = await withProgress("heatmap", (onProgress) =>
        sample(evaluator.field, plane, size, "divergence", { context, method, signal, onProgress }),
      );
      const milliseconds = performance.now() - start;
      const arrowCount = options.arrows === true ? defaultArrows : options.arrows;
      const arrows = arrowCount === undefined ? undefined : await sampleArrows(evaluator.field, plane, arrowCount, { context, signal });
      return {
        heatmap: {
          values,
          subtitle: describePlace(network, plane, "context", context),
          ...(limit !== undefined && { colours: { kind: "diverging", limit } }),
          arrows,
          contour,
        },
        name: "∇·f",
        description: describeDivergence(values, plane, size, milliseconds, evaluator.description),
      };
    } finally {
      await evaluator.dispose();
    }
  };
}

async function prepareLogProb(network: Network, plane: Plane, size: number, options: HeatmapOptions): Promise<Drawing> {
  const { limit: depth = defaultDepth } = options;
  const { stateSize } = network;
  if (stateSize > 2 && options.at === undefined)
    throw new InputError(`the model's state has ${stateSize} components; expected --at, which says where the plane of --axes lies`);
  // A picture has many points, and the exact divergence of two components costs little.
  const paths = readPaths(network, { ...options, method: "exact" });
  const condition = await readRows(options.condition, "condition", paths.conditionSize, 1);
  return async (signal) => {
    const runner = await createFlow(network, paths.settings, options);
    try {
      const start = performance.now();
      const lost: Status[] = [];
      let evaluations = 0;
      const values = await withProgress("log p", (onProgress) =>
        overPlane(plane, stateSize, size, 1, pathsAtOnce, onProgress, async (points, progress) => {
          const results = await runner.flow.logProb(points, { ...paths.solve, condition, signal, onProgress: progress });
          for (const each of results.status) if (each !== "done") lost.push(each);
          for (const each of results.evaluations) evaluations += each;
          return results.logProb;
        }),
      );
      const milliseconds = performance.now() - start;
      const { maximum } = summarize(values);
      // Where there is no number there is no colour to choose.
      const to = Number.isNaN(maximum) ? 0 : maximum;
      const place = describePlace(network, plane, "condition", condition);
      return {
        heatmap: {
          values,
          subtitle: [place, `nats, darkest ≤ max − ${round(depth)}`].filter(Boolean).join("; "),
          colours: { kind: "sequential", from: to - depth, to },
        },
        name: "log p",
        description: describeLogProb(values, plane, size, [
          `log p at ${size * size} points, ${paths.description}, ${milliseconds.toFixed(1)} ms on ${runner.description}\n`,
          `${round(evaluations / (size * size))} evaluations per point\n`,
        ]),
        warn: () => reportLost(lost, size * size),
      };
    } finally {
      await runner.dispose();
    }
  };
}

/** The plane that is drawn: two components vary, the others stand still. */
interface Plane {
  readonly x: Axis;
  readonly y: Axis;
  readonly axes: readonly [number, number];
  readonly at: readonly number[];
}

function readPlane({ stateSize }: Network, { axes, at, x, y }: HeatmapOptions): Plane {
  const [first, second] = axes;
  const valid = (axis: number | undefined): axis is number => axis !== undefined && Number.isInteger(axis) && axis >= 0 && axis < stateSize;
  if (stateSize < 2) throw new InputError(`the model's state has ${stateSize} component; expected at least 2 for a plane`);
  if (axes.length !== 2 || !valid(first) || !valid(second) || first === second)
    throw new InputError(`--axes is ${axes.join(",")}; expected two different components of the state, from 0 to ${stateSize - 1}`);
  if (at !== undefined && at.length !== stateSize)
    throw new InputError(`--at has ${at.length} numbers; expected ${stateSize}, one per component of the state`);
  return {
    x: { name: `x${first}`, ...x },
    y: { name: `x${second}`, ...y },
    axes: [first, second],
    at: at ?? Array<number>(stateSize).fill(0),
  };
}

/** Points evaluated in one call hold at most this many numbers: a plane in many dimensions is large. */
const numbersAtOnce = 2 ** 22;
/** Paths go through in blocks of this size, which fills a GPU, and shows progress on a slow one. */
const pathsAtOnce = 2 ** 15;

/** Gives `width` numbers for each of some points. */
type Evaluate = (points: Float32Array, onProgress: Progress["update"]) => Promise<Float32Array | Float64Array>;

/** What `evaluate` gives at the centres of count x count parts of the plane, a block of rows at a time. */
async function overPlane(
  plane: Plane,
  stateSize: number,
  count: number,
  width: number,
  pointsAtOnce: number,
  onProgress: Progress["update"] | undefined,
  evaluate: Evaluate,
): Promise<Float64Array> {
  const [xs, ys] = [centres(plane.x, count), centres(plane.y, count)];
  const rowsAtOnce = Math.max(1, Math.min(count, Math.floor(Math.min(pointsAtOnce, numbersAtOnce / stateSize) / count)));
  const all = new Float64Array(count * count * width);
  for (let from = 0; from < count; from += rowsAtOnce) {
    const rows = Math.min(rowsAtOnce, count - from);
    const points = new Float32Array(rows * count * stateSize);
    for (let index = 0; index < rows * count; index++) {
      points.set(plane.at, index * stateSize);
      points[index * stateSize + plane.axes[0]] = xs[index % count]!;
      points[index * stateSize + plane.axes[1]] = ys[from + Math.floor(index / count)]!;
    }
    const before = from * count;
    const results = await evaluate(points, ({ done, total }) =>
      onProgress?.({ done: before + (done / total) * rows * count, total: count * count }),
    );
    all.set(results, before * width);
  }
  return all;
}

/** One output of a field over the plane. */
function sample(
  field: Field,
  plane: Plane,
  count: number,
  output: "divergence" | "value",
  { onProgress, ...options }: Omit<EvaluateOptions, "outputs">,
): Promise<Float64Array> {
  const { stateSize } = field.network;
  return overPlane(plane, stateSize, count, output === "value" ? stateSize : 1, Infinity, onProgress, async (points, progress) => {
    const results = await field.evaluate<Output>(points, { ...options, outputs: [output], onProgress: progress });
    return results[output]!;
  });
}

async function sampleArrows(
  field: Field,
  plane: Plane,
  count: number,
  options: Pick<EvaluateOptions, "context" | "signal">,
): Promise<{ count: number; vectors: Float64Array }> {
  const value = await sample(field, plane, count, "value", options);
  const vectors = new Float64Array(count * count * 2);
  for (let index = 0; index < count * count; index++)
    for (const [component, axis] of plane.axes.entries()) vectors[2 * index + component] = value[index * field.network.stateSize + axis]!;
  return { count, vectors };
}

/** The context or condition and what stands still, for the line under the title. */
function describePlace(
  { stateSize }: Network,
  { axes, at }: Plane,
  name: "context" | "condition",
  given: Float32Array | Float64Array | undefined,
): string | undefined {
  const parts: string[] = [];
  if (given) parts.push(`${name} ${Array.from(given, round).join(", ")}`);
  if (stateSize > 2) {
    const others = at.flatMap((value, index) => (axes.includes(index) ? [] : [{ index, value }]));
    parts.push(
      others.every(({ value }) => value === others[0]!.value) && others.length > 1
        ? `other components ${round(others[0]!.value)}`
        : others.map(({ index, value }) => `x${index} = ${round(value)}`).join(", "),
    );
  }
  return parts.length > 0 ? parts.join("; ") : undefined;
}

function* describeDivergence(
  divergence: Float64Array,
  plane: Plane,
  size: number,
  milliseconds: number,
  adapter: string,
): Generator<string, void, undefined> {
  const { mean, notFinite } = summarize(divergence);
  yield `divergence at ${size * size} points, ${milliseconds.toFixed(1)} ms on ${adapter}\n`;
  yield* describeExtremes(divergence, plane, size);
  yield `mean ${round(mean)}\n`;
  if (notFinite > 0) yield `${notFinite} points have no finite divergence\n`;
}

function* describeLogProb(logProb: Float64Array, plane: Plane, size: number, head: readonly string[]): Generator<string, void, undefined> {
  yield* head;
  yield* describeExtremes(logProb, plane, size);
  // A slice of more components holds no mass.
  if (plane.at.length === 2) yield `mass in view ${round(massOf(logProb, plane, size))}\n`;
}

/** Σ p times the area of a cell; cells without a number have none. */
function massOf(logProb: Float64Array, { x, y }: Plane, size: number): number {
  let sum = 0;
  for (const each of logProb) if (!Number.isNaN(each)) sum += Math.exp(each);
  return (sum * (x.to - x.from) * (y.to - y.from)) / size ** 2;
}

function* describeExtremes(values: Float64Array, plane: Plane, size: number): Generator<string, void, undefined> {
  const [xs, ys] = [centres(plane.x, size), centres(plane.y, size)];
  const { minimum, minimumAt, maximum, maximumAt } = summarize(values);
  const place = (index: number): string =>
    index < 0 ? "" : ` at ${plane.x.name} = ${round(xs[index % size]!)}, ${plane.y.name} = ${round(ys[Math.floor(index / size)]!)}`;
  yield `minimum ${round(minimum)}${place(minimumAt)}\n`;
  yield `maximum ${round(maximum)}${place(maximumAt)}\n`;
}
