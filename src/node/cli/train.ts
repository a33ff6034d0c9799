import type { AdapterChoice } from "./evaluator.js";
import { extname } from "node:path";
import { InvalidArgumentError, Option, type Command } from "commander";
import { DeldotError, InputError, quote } from "../../errors.js";
import { mlp, parseSafetensors, toSafetensors, type Network } from "../../index.js";
import { losses } from "../../train/options.js";
import { commit, discard, openOutputs } from "../files/output.js";
import { asPoints, readBytes, readNumbers } from "../files/points.js";
import type { NumberArray } from "../files/table.js";
import { decodeTraining, encodeTraining, type StoredTraining } from "../files/trainingState.js";
import { requestDevice } from "../index.js";
import { withQuietStderr } from "./nativeStderr.js";
import { asTyped, parseNumbers, readModel } from "./options.js";
import { print, round } from "./output.js";
import { Interruption, interruptSignal, withProgress } from "./progress.js";
import { trainToEnd, type Trained } from "./trainLoop.js";
import {
  addTrainSettings,
  typed,
  mergeSettings,
  planTraining,
  settingsOf,
  wordsOf,
  type TrainPlan,
  type TrainSettings,
} from "./trainSettings.js";
import { rowsAt, splitRows, validate, type Rows, type Validation } from "./validation.js";

interface TrainOptions extends TrainSettings {
  readonly hidden?: readonly number[];
  readonly activation?: string;
  readonly model?: string;
  readonly resume?: string;
  readonly out?: string;
  readonly adapter: "auto" | "software";
  readonly json?: boolean;
}

const about: Readonly<Record<string, string>> = {
  regression: "f(x) = --targets",
  flow_matching: "a flow from noise at time 0 to the points at 1, by straight paths",
  denoising_score_matching: "the score of the points with noise; of noise of several sizes σ, as a function of σ too",
  score_matching: "the score of the points with noise of one size, by the exact divergence",
  sliced_score_matching: "the same by Hutchinson's estimate",
  max_likelihood: "a flow as flow-matching's, by log p of the points itself: slower",
};

const help = `
Points, targets and context are read from the files that "deldot eval --help" describes; points have their components in
the last axis, of a .csv in a line.

Losses:
${losses.map((loss) => `  ${typed(loss).padEnd(27)}${about[loss] ?? ""}`.trimEnd()).join("\n")}

Time, or σ, is the last column of the network's context, behind those of --context: where there are several, the other
commands are told by --time-column.

The network is written as a .safetensors file that every other command opens, and PyTorch as the state_dict of an
nn.Sequential; beside model.safetensors stands model.train.safetensors, from which --resume goes on: with the options of
the run unless others are given, and to the same numbers, to the bit, as if it had never stopped. Ctrl-C stops a run and
writes both, and so does a loss that is not finite, with the weights of before it.

--validation prints, with its standard error, the mean over the points held out: of a flow of log p in nats, of a
regression of the squared error, of a score of ½ |s|² + ∇·s, on the points without noise, at the least σ.

--json prints loss, steps (of the whole run), losses (first, last, and the mean of the last 100, of the steps made now),
stepsPerSecond, validation (quantity, mean, standardError, points; null without), adapter, files (that were written).

Examples:
  deldot train points.csv --steps 3000 --schedule cosine --validation 0.1 --out flow.safetensors
  deldot train points.csv --resume flow.safetensors --steps 6000
  deldot train points.npy --loss regression --targets velocities.npy --divergence-penalty 1 --out field.safetensors
  deldot train points.npy --loss denoising-score-matching --noise 0.01,2 --hidden 128,128 --out score.safetensors`;

const extension = ".safetensors";
const stateExtension = ".train.safetensors";
const defaultHidden = [64, 64];
const defaultActivation = "silu";
const mostWidth = 2 ** 16;
/** The loss of one batch says little. */
const meanSteps = 100;

export function addTrain(program: Command): void {
  const command = program
    .command("train")
    .description("train a network on the points of a file, on the device: flows, scores, fields")
    .argument("<data>", "points: .npy, .csv, .tsv, .txt or .json");
  addTrainSettings(command)
    .option("--hidden <widths>", `widths of the hidden layers (default: ${defaultHidden.join(",")})`, parseWidths)
    .option("--activation <name>", `of the hidden layers (default: ${defaultActivation})`)
    .option("--model <file>", "begin with the weights of this network")
    .option("--resume <file>", "go on with the run that wrote this file")
    .addOption(
      new Option("--adapter <kind>", "a real GPU else a software one, or a software one").choices(["auto", "software"]).default("auto"),
    )
    .option("--out <file>", `write the network: ${extension} (default: that of --resume)`)
    .option("--json", "print one JSON object and nothing else")
    .addHelpText("after", help)
    .action(runTrain);
}

function parseWidths(text: string): readonly number[] {
  const widths = parseNumbers(text);
  if (!widths?.every((width) => Number.isInteger(width) && width >= 1 && width <= mostWidth))
    throw new InvalidArgumentError(`Expected whole numbers from 1 to ${mostWidth} with commas between, such as 64,64.`);
  return widths;
}

async function runTrain(path: string, given: TrainOptions): Promise<void> {
  const resumed = given.resume === undefined ? null : await readResumed(given.resume);
  const settings = mergeSettings(resumed?.settings ?? {}, given);
  const out = outputOf(given.out ?? resumed?.model);
  const network = resumed?.network ?? (given.model === undefined ? null : await readFirst(given.model));
  refuseShape(given, network !== null);
  const { rows, conditions, stateSize } = await readTraining(path, settings, network);
  const plan = planTraining(settings, conditions);
  const { steps, seed, contextSize } = plan;
  if (network && network.contextSize !== contextSize)
    throw new InputError(
      `${given.resume ?? given.model}: the network has a context of ${network.contextSize}; expected ${contextSize}, as --loss, --noise and --context make it`,
    );
  const from = resumed?.state.step ?? 0;
  if (steps <= from) throw new InputError(`${given.resume}: its run has made ${from} steps; expected --steps above that, not ${steps}`);
  const split = splitOf(rows, settings.validation ?? 0, seed, path);
  const shape = { stateSize, hidden: given.hidden ?? defaultHidden, activation: given.activation ?? defaultActivation, contextSize };
  if (!network) checkActivation(shape);

  const signal = interruptSignal();
  const read = [path, settings.targets, settings.context, given.model].filter((each) => each !== undefined);
  const files = await openOutputs([out, besides(out)], read);
  try {
    const { points, context, targets } = split.kept;
    const trained = await withProgress(
      "train",
      (onProgress) =>
        trainToEnd(
          { network: network ?? shape, options: plan.options, points, data: { context, targets }, steps, state: resumed?.state ?? null },
          {
            open: () => withQuietStderr(() => requestDevice({ adapter: given.adapter })),
            averaged: settings.weights !== "last",
            signal,
            onProgress: (done, loss, speed) =>
              onProgress({ done, total: steps, note: `loss ${loss.toPrecision(4)} | ${speed.toPrecision(3)} steps/s` }),
            onLost: (error, step) => process.stderr.write(`deldot: ${error.message}; going on from step ${step} on another\n`),
          },
        ),
      "steps",
    ).catch((error: unknown) => {
      // What the trainer says of numbers in the file of the state.
      const isOfState = resumed !== null && error instanceof InputError && error.message.startsWith("the state's ");
      throw isOfState ? new InputError(`${besides(resumed.model)}: ${error.message}`, { cause: error }) : error;
    });
    const model = toSafetensors(network ? trained.network : unnamed(trained.network));
    const state = encodeTraining({ state: trained.state, options: wordsOf(settings) });
    // Not by the signal: what an interrupt leaves is to be kept.
    await commit(files.map((file, index) => ({ file, content: [index === 0 ? model : state] })));
    const written = files.map((file) => file.path);
    if (trained.failure !== null) {
      const more = trained.failure instanceof Interruption ? `; --resume ${out} goes on` : "";
      process.stderr.write(`deldot: wrote ${written.join(" and ")} after ${trained.state.step} of ${steps} steps${more}\n`);
      throw trained.failure;
    }
    const validation = split.held && (await validated(trained.network, plan, split.held, given.adapter, signal, written));
    const run: Run = { plan, trained, validation, written };
    await print(given.json ? [describeAsJson(run)] : describeRun(run));
  } finally {
    await discard(files);
  }
}

/** What ends it leaves the files, and says so. */
function validated(
  network: Network,
  plan: TrainPlan,
  held: Rows,
  adapter: AdapterChoice,
  signal: AbortSignal,
  written: readonly string[],
): Promise<Validation> {
  const work = withProgress("validation", (onProgress) => validate(network, plan, held, adapter, { signal, onProgress }));
  return work.catch((error: unknown) => {
    process.stderr.write(`deldot: wrote ${written.join(" and ")}\n`);
    throw error;
  });
}

interface Resumed {
  /** The model's file. */
  readonly model: string;
  readonly network: Network;
  readonly settings: TrainSettings;
  readonly state: StoredTraining["state"];
}

/** @param path the file of the model, or the one of the state beside it. */
async function readResumed(path: string): Promise<Resumed> {
  const model = path.endsWith(stateExtension) ? `${path.slice(0, -stateExtension.length)}${extension}` : path;
  if (!model.endsWith(extension)) throw new InputError(`--resume ${path}: its extension is ${quote(extname(path))}; expected ${extension}`);
  const beside = besides(model);
  const bytes = await readBytes(beside);
  try {
    const { state, options } = decodeTraining(bytes);
    const settings = settingsOf(options);
    return { model, network: await readModel(model, {}), settings, state };
  } catch (error) {
    if (error instanceof DeldotError && !error.message.startsWith(model))
      throw new InputError(`${beside}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** Where the state of a model's training lies. */
function besides(model: string): string {
  return `${model.slice(0, -extension.length)}${stateExtension}`;
}

function outputOf(out: string | undefined): string {
  if (out === undefined) throw new InputError(`there is no --out; expected the name of a file, ${extension}`);
  if (!out.endsWith(extension)) throw new InputError(`--out ${out}: its extension is ${quote(extname(out))}; expected ${extension}`);
  if (out.endsWith(stateExtension)) throw new InputError(`--out ${out}: so are the states of runs called; expected another name`);
  return out;
}

/** A network to begin with, as the file that is written will have it. */
async function readFirst(path: string): Promise<Network> {
  const network = await readModel(path, {});
  try {
    const { stateShape } = network;
    return { ...parseSafetensors(toSafetensors(network)), ...(stateShape && { stateShape }) };
  } catch (error) {
    if (error instanceof DeldotError) throw new InputError(`${path}: ${asTyped(error.message)}`, { cause: error });
    throw error;
  }
}

function refuseShape({ hidden, activation, model, resume }: TrainOptions, isKnown: boolean): void {
  if (model !== undefined && resume !== undefined)
    throw new InputError(`--model is ${quote(model)}, but --resume has a network of its own; expected no --model`);
  const source = resume === undefined ? "--model" : "--resume";
  for (const [flag, value] of Object.entries({ "--hidden": hidden, "--activation": activation }))
    if (isKnown && value !== undefined)
      throw new InputError(`${flag} is ${String(value)}, but ${source} has a network of its own; expected no ${flag}`);
}

/** Of layers of one neuron each, so that it costs nothing. */
function checkActivation({ hidden, activation }: { readonly hidden: readonly number[]; readonly activation: string }): void {
  try {
    mlp({ layers: Array.from({ length: hidden.length + 1 }, () => ({ weight: [[0]] })), activation });
  } catch (error) {
    if (error instanceof DeldotError)
      throw new InputError(
        error.message.replace(/^mlp: (activation)?/, (_, own) => (own ? "--activation" : "--activation: ")),
        { cause: error },
      );
    throw error;
  }
}

/** Without names, so that the file has those of an nn.Sequential. */
function unnamed({ stateSize, contextSize, operations }: Network): Network {
  return { stateSize, contextSize, operations };
}

async function readTraining(
  path: string,
  settings: TrainSettings,
  network: Network | null,
): Promise<{ rows: Rows; conditions: number; stateSize: number }> {
  const numbers = await readNumbers(path);
  if (!network && numbers.shape.length < 2)
    throw new InputError(`${path}: it is a flat list, which does not tell how many components a point has; expected [count, state]`);
  const stateSize = network?.stateSize ?? numbers.shape.at(-1)!;
  const { data } = asPoints(numbers, network ?? { stateSize }, path);
  if (data.length === 0) throw new InputError(`${path}: it holds no points; expected at least one`);
  const count = data.length / stateSize;
  const points = finite(data, stateSize, path);
  const context = settings.context === undefined ? undefined : rowsOf(await readNumbers(settings.context), count, settings.context);
  const targets = settings.targets === undefined ? undefined : rowsOf(await readNumbers(settings.targets), count, settings.targets);
  if (settings.loss === "regression" && !targets) throw new InputError("--loss regression is given no --targets; expected a file of them");
  if (targets && targets.length !== points.length)
    throw new InputError(`${settings.targets}: its rows have ${targets.length / count} numbers; expected ${stateSize}, as the points have`);
  return { rows: { count, points, context, targets }, conditions: (context?.length ?? 0) / count, stateSize };
}

/** A row for each point. */
function rowsOf({ data, shape }: NumberArray, count: number, path: string): Float32Array {
  const axes = shape.length > 1 ? shape.slice(0, -1) : shape;
  const rows = axes.reduce((product, each) => product * each, 1);
  if (rows !== count || data.length === 0)
    throw new InputError(`${path}: its shape is [${shape.join(", ")}]; expected ${count} rows, one for each point`);
  return finite(data, data.length / count, path);
}

function finite(data: Float32Array | Float64Array, width: number, path: string): Float32Array {
  const numbers = data instanceof Float32Array ? data : Float32Array.from(data);
  const bad = numbers.findIndex((number) => !Number.isFinite(number));
  if (bad >= 0)
    throw new InputError(
      `${path}: number ${(bad % width) + 1} of row ${Math.floor(bad / width) + 1} is ${data[bad]}; expected finite numbers of float32`,
    );
  return numbers;
}

function splitOf(rows: Rows, part: number, seed: number, path: string): { readonly kept: Rows; readonly held: Rows | null } {
  if (part === 0) return { kept: rows, held: null };
  const count = Math.round(part * rows.count);
  if (count < 2 || count === rows.count)
    throw new InputError(
      `--validation is ${part}, which of the ${rows.count} points of ${path} holds out ${count}; expected at least 2, and others to train on`,
    );
  const { kept, held } = splitRows(rows.count, count, seed);
  return { kept: rowsAt(rows, kept), held: rowsAt(rows, held) };
}

interface Run {
  readonly plan: TrainPlan;
  readonly trained: Trained;
  readonly validation: Validation | null;
  readonly written: readonly string[];
}

function meanOfLast(losses: Float32Array): { readonly mean: number; readonly steps: number } {
  const last = losses.subarray(-meanSteps);
  return { mean: last.reduce((sum, loss) => sum + loss, 0) / last.length, steps: last.length };
}

function describeAsJson({ plan, trained, validation, written }: Run): string {
  const { losses, stepsPerSecond, adapter } = trained;
  const object = {
    loss: typed(plan.loss),
    steps: plan.steps,
    losses: { first: losses[0], last: losses.at(-1), mean: meanOfLast(losses).mean },
    stepsPerSecond: Number(stepsPerSecond.toFixed(3)),
    validation,
    adapter,
    files: written,
  };
  return `${JSON.stringify(object, null, 2)}\n`;
}

function* describeRun({ plan, trained, validation, written }: Run): Generator<string, void, undefined> {
  const { losses, stepsPerSecond, adapter } = trained;
  const { mean, steps } = meanOfLast(losses);
  const before = plan.steps - losses.length;
  yield `${plan.steps} steps${before > 0 ? `, ${before} of them before` : ""}, ${round(stepsPerSecond)} steps/s on ${adapter}\n`;
  yield `${typed(plan.loss)} loss: first ${round(losses[0]!)}, last ${round(losses.at(-1)!)}, mean of the last ${steps} ${round(mean)}\n`;
  if (validation) {
    const { quantity, mean: held, standardError, points } = validation;
    const unit = quantity === "log-density" ? " nats" : "";
    yield `held-out ${quantity}: mean ${round(held)}${unit}, standard error ${round(standardError)}, of ${points} points\n`;
  }
  for (const path of written) yield `wrote ${path}\n`;
}
