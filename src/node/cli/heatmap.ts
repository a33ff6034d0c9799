import { basename, extname } from "node:path";
import type { Command } from "commander";
import { InputError, quote } from "../../errors.js";
import type { EvaluateOptions, Field, Network, Output } from "../../index.js";
import { commit, discard, openOutputs, type OutputFile } from "../files/output.js";
import { centres, renderHeatmap, type Axis } from "../heatmap.js";
import { createEvaluator } from "./evaluator.js";
import {
  addEvaluationOptions,
  addModelOptions,
  parseList,
  parsePositive,
  parseRange,
  parseWhole,
  readContext,
  readModel,
  type EvaluationOptions,
  type ModelOptions,
  type Range,
  modelArgument,
} from "./options.js";
import { print, round, summarize } from "./output.js";
import { interruptSignal, showProgress } from "./progress.js";

interface HeatmapOptions extends ModelOptions, EvaluationOptions {
  readonly x: Range;
  readonly y: Range;
  readonly size: number;
  readonly axes: readonly number[];
  readonly at?: readonly number[];
  readonly context?: string;
  readonly arrows?: number | true;
  readonly contour?: boolean;
  readonly limit?: number;
  readonly out: string;
}

const help = `
Colours are centred on zero: red where the field expands, blue where it contracts, grey where the divergence is not
finite. Where the state has more than two components, the others keep the values of --at.

Examples:
  deldot heatmap two-moons-flow.safetensors --context 0.5 --arrows --out heatmap.png
  deldot heatmap lorenz.safetensors --axes 0,2 --at 0,-1,0 --x -2:2 --y 0:5 --out lorenz.png`;

const defaultArrows = 20;

export function addHeatmap(program: Command): void {
  const everywhere: Range = { from: -3, to: 3 };
  const command = program
    .command("heatmap")
    .description("draw the divergence over a plane of state space as a PNG picture")
    .addArgument(modelArgument())
    .option("--x <range>", "range of the horizontal axis, such as -3:3", parseRange, everywhere)
    .option("--y <range>", "range of the vertical axis, such as -3:3", parseRange, everywhere)
    .option("--size <pixels>", "grid points, and pixels, along each axis", parseWhole(16, 4096), 512)
    .option("--axes <i,j>", "components of the state along the two axes", parseList, [0, 1])
    .option("--at <numbers>", "the whole state's values, for the components that are not axes (default: all 0)", parseList)
    .option("--context <numbers>", "context of all points (0.5 or 0.5,1), or a file with one row")
    .option("--arrows [count]", `draw f as arrows, so many along each axis (default: ${defaultArrows})`, parseWhole(1, 200))
    .option("--contour", "draw the line where the divergence is 0")
    .option("--limit <number>", "end of the colour scale (default: the largest magnitude)", parsePositive);
  addModelOptions(command);
  addEvaluationOptions(command).requiredOption("--out <file>", "the picture, .png").addHelpText("after", help).action(runHeatmap);
  // Commander prints a default by String(); these are objects.
  for (const option of command.options) {
    if (option.defaultValue === everywhere) option.defaultValueDescription = "-3:3";
    if (option.long === "--axes") option.defaultValueDescription = "0,1";
  }
}

async function runHeatmap(modelPath: string, options: HeatmapOptions): Promise<void> {
  const { size, out } = options;
  if (extname(out).toLowerCase() !== ".png") throw new InputError(`--out ${out}: its extension is ${quote(extname(out))}; expected .png`);
  const network = await readModel(modelPath, options);
  const plane = readPlane(network, options);
  const context = await readContext(options.context, network, 1);

  const signal = interruptSignal();
  const [file] = (await openOutputs([out], [modelPath, ...(options.context === undefined ? [] : [options.context])])) as [OutputFile];
  try {
    const evaluator = await createEvaluator(network, options.adapter);
    try {
      const { method } = options;
      const progress = showProgress("heatmap");
      const start = performance.now();
      const divergence = await sample(evaluator.field, plane, size, "divergence", {
        context,
        method,
        signal,
        onProgress: progress.update,
      }).finally(progress.stop);
      const milliseconds = performance.now() - start;

      const arrowCount = options.arrows === true ? defaultArrows : options.arrows;
      const arrows = arrowCount === undefined ? undefined : await sampleArrows(evaluator.field, plane, arrowCount, { context, signal });
      const picture = await renderHeatmap({
        size,
        values: divergence,
        x: plane.x,
        y: plane.y,
        title: `∇·f of ${basename(modelPath, extname(modelPath))}`,
        subtitle: describePlace(network, plane, context),
        limit: options.limit,
        arrows,
        contour: options.contour,
      });
      await commit([{ file, content: [picture] }], signal);
      await print(describe(divergence, plane, size, milliseconds, evaluator.description, out));
    } finally {
      await evaluator.dispose();
    }
  } finally {
    await discard([file]);
  }
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

/** One output at the centres of count x count parts of the plane, a block of rows at a time. */
async function sample(
  field: Field,
  plane: Plane,
  count: number,
  output: "divergence" | "value",
  { onProgress, ...options }: Omit<EvaluateOptions, "outputs">,
): Promise<Float32Array | Float64Array> {
  const { stateSize } = field.network;
  const width = output === "value" ? stateSize : 1;
  const [xs, ys] = [centres(plane.x, count), centres(plane.y, count)];
  const rowsAtOnce = Math.max(1, Math.min(count, Math.floor(numbersAtOnce / (count * stateSize))));
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
    const results = await field.evaluate<Output>(points, {
      ...options,
      outputs: [output],
      onProgress: onProgress && (({ done, total }) => onProgress({ done: before + (done / total) * rows * count, total: count * count })),
    });
    all.set(results[output]!, before * width);
  }
  return all;
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

/** The context and what stands still, for the line under the title. */
function describePlace({ stateSize }: Network, { axes, at }: Plane, context: Float32Array | Float64Array | undefined): string | undefined {
  const parts: string[] = [];
  if (context) parts.push(`context ${Array.from(context, round).join(", ")}`);
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

function* describe(
  divergence: Float32Array | Float64Array,
  plane: Plane,
  size: number,
  milliseconds: number,
  adapter: string,
  out: string,
): Generator<string, void, undefined> {
  const [xs, ys] = [centres(plane.x, size), centres(plane.y, size)];
  const { minimum, minimumAt, maximum, maximumAt, mean, notFinite } = summarize(divergence);
  const place = (index: number): string =>
    index < 0 ? "" : ` at ${plane.x.name} = ${round(xs[index % size]!)}, ${plane.y.name} = ${round(ys[Math.floor(index / size)]!)}`;
  yield `divergence at ${size * size} points, ${milliseconds.toFixed(1)} ms on ${adapter}\n`;
  yield `minimum ${round(minimum)}${place(minimumAt)}\n`;
  yield `maximum ${round(maximum)}${place(maximumAt)}\n`;
  yield `mean ${round(mean)}\n`;
  if (notFinite > 0) yield `${notFinite} points have no finite divergence\n`;
  yield `wrote ${out}\n`;
}
