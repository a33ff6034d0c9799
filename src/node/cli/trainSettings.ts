/** What a training run is told, beside its network: all of it is kept with its state, so that --resume needs the points alone. */
import { resolve } from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import { DeldotError, InputError } from "../../errors.js";
import { solvers, type Solver } from "../../index.js";
import { losses, readTrainerOptions, type Loss, type OptimizerOptions, type TrainerOptions } from "../../train/options.js";
import { parseFinite, parseNumbers, parsePositive, parseWhole } from "./options.js";

/** As typed; what is left out has the trainer's defaults. */
export interface TrainSettings {
  readonly loss?: string;
  readonly targets?: string;
  readonly context?: string;
  readonly divergencePenalty?: number;
  readonly noise?: readonly [number, number];
  readonly pairing?: string;
  readonly probes?: number;
  readonly solver?: Solver;
  readonly solverSteps?: number;
  readonly batch?: number;
  readonly seed?: number;
  readonly steps?: number;
  readonly optimizer?: OptimizerOptions["name"];
  readonly lr?: number;
  readonly schedule?: OptimizerOptions["schedule"];
  readonly warmUp?: number;
  readonly momentum?: number;
  readonly weightDecay?: number;
  readonly clip?: number;
  readonly averaging?: number;
  readonly validation?: number;
  readonly weights?: "averaged" | "last";
}

const DEFAULT_LOSS = "flow-matching";
const DEFAULT_STEPS = 3000;
const MOST_STEPS = 2 ** 31;
const MOST_SOLVER_STEPS = 256;

/** The trainer's own names have underscores. */
export const typed = (name: string): string => name.replaceAll("_", "-");
const untyped = (name: string): string => name.replaceAll("-", "_");

/** Options that only some losses, or some optimizers, have. */
const suits = {
  targets: { of: "loss", names: ["regression"] },
  divergencePenalty: { of: "loss", names: ["regression"] },
  noise: { of: "loss", names: ["denoising-score-matching", "score-matching", "sliced-score-matching"] },
  pairing: { of: "loss", names: ["flow-matching"] },
  probes: { of: "loss", names: ["sliced-score-matching"] },
  solver: { of: "loss", names: ["max-likelihood"] },
  solverSteps: { of: "loss", names: ["max-likelihood"] },
  momentum: { of: "optimizer", names: ["sgd"] },
  weightDecay: { of: "optimizer", names: ["adamw", "sgd"] },
} as const satisfies Partial<Record<keyof TrainSettings, { of: "loss" | "optimizer"; names: readonly string[] }>>;

/** Their defaults are the trainer's, so that --resume can tell whether one was given. */
export function addTrainSettings(command: Command): Command {
  return command
    .addOption(new Option("--loss <name>", `what is minimised (default: ${DEFAULT_LOSS})`).choices(losses.map(typed)))
    .option("--targets <file>", "regression: what f should be, a vector per point", asAbsolute)
    .option("--divergence-penalty <number>", "regression: so much times the mean of (∇·f)² is added", parseAtLeast0)
    .option(
      "--noise <least,most>",
      "score losses: standard deviations of the noise added to the points, or one for both (default: 0.01,1 for denoising, else 0.1)",
      parseNoise,
    )
    .addOption(
      new Option("--pairing <name>", "flow-matching: which noise of a batch goes to which point (default: independent)").choices([
        "independent",
        "optimal-transport",
      ]),
    )
    .option("--probes <count>", "sliced-score-matching: directions of a point in a step (default: 1)", parseWhole(1, 2 ** 20))
    .addOption(new Option("--solver <name>", "max-likelihood: how paths are integrated (default: rk4)").choices(solvers))
    .option("--solver-steps <count>", "max-likelihood: in so many steps (default: 8)", parseWhole(1, MOST_SOLVER_STEPS))
    .option("--context <file>", "the context but for time, a row per point", asAbsolute)
    .option(
      "--steps <count>",
      `steps of the whole run, those before --resume among them (default: ${DEFAULT_STEPS})`,
      parseWhole(1, MOST_STEPS),
    )
    .option("--batch <count>", "points of a step (default: 1024)", parseWhole(1, 2 ** 20))
    .option("--seed <number>", "of weights, batches, noise and --validation (default: 0)", parseWhole(0, 2 ** 32 - 1))
    .addOption(new Option("--optimizer <name>", "how weights follow their gradients (default: adam)").choices(["adam", "adamw", "sgd"]))
    .option("--lr <number>", "learning rate (default: 1e-3)", parsePositive)
    .addOption(
      new Option("--schedule <name>", "cosine: the learning rate falls to 0 within --steps (default: constant)").choices([
        "constant",
        "cosine",
      ]),
    )
    .option("--warm-up <steps>", "steps on which the learning rate grows from 0 (default: 0)", parseWhole(0, MOST_STEPS))
    .option("--momentum <number>", "of sgd (default: 0)", parsePart)
    .option("--weight-decay <number>", "of adamw (default: 0.01) and sgd (default: 0)", parseAtLeast0)
    .option("--clip <norm>", "a gradient of a larger norm is scaled down to it (default: none is)", parsePositive)
    .option("--averaging <number>", "how much of the averaged weights a step leaves (default: 0.999)", parsePart)
    .addOption(
      new Option("--weights <which>", "what is written: their exponential moving average, or the last ones (default: averaged)").choices([
        "averaged",
        "last",
      ]),
    )
    .option("--validation <part>", "holds out this part of the points, at random, and says how well they are met (default: 0)", parsePart);
}

/** For a run that goes on from another folder. */
function asAbsolute(path: string): string {
  return resolve(path);
}

function parseAtLeast0(text: string): number {
  const value = parseFinite(text);
  if (value < 0) throw new InvalidArgumentError("Expected a number from 0 on.");
  return value;
}

function parsePart(text: string): number {
  const value = parseFinite(text);
  if (!(value >= 0 && value < 1)) throw new InvalidArgumentError("Expected a number from 0 to below 1.");
  return value;
}

function parseNoise(text: string): readonly [number, number] {
  const [least, most = least, ...others] = parseNumbers(text) ?? [];
  if (least === undefined || most === undefined || others.length > 0 || !(least > 0 && least <= most))
    throw new InvalidArgumentError("Expected a number above 0, or two, the smaller one first, such as 0.01,1.");
  return [least, most];
}

/** The words of a command line that stand for them. */
export function wordsOf(settings: TrainSettings): string[] {
  return addTrainSettings(new Command()).options.flatMap((option) => {
    const value = settings[option.attributeName() as keyof TrainSettings];
    return value === undefined ? [] : [option.long!, String(value)];
  });
}

/** What {@link wordsOf} gave. @throws InputError where the words are anything else. */
export function settingsOf(words: readonly string[]): TrainSettings {
  const command = addTrainSettings(new Command().exitOverride().configureOutput({ writeErr: () => {} }));
  try {
    return command.parse(words, { from: "user" }).opts();
  } catch (error) {
    throw new InputError(`its options are not those of a training run: ${(error as Error).message.replace(/^error: /, "")}`, {
      cause: error,
    });
  }
}

/** What a run is told: what is given wins over what is stored. @throws InputError for an option without effect. */
export function mergeSettings(stored: TrainSettings, given: TrainSettings): TrainSettings {
  const chosen: TrainSettings = { loss: DEFAULT_LOSS, optimizer: "adam", ...present(stored), ...present(given) };
  const merged: Record<string, unknown> = { ...chosen };
  for (const [key, { of, names }] of Object.entries(suits)) {
    if ((names as readonly string[]).includes(chosen[of]!)) continue;
    if (given[key as keyof TrainSettings] !== undefined)
      throw new InputError(
        `${flagOf(key)} is ${String(given[key as keyof TrainSettings])}, an option of --${of} ${names.join(", ")}; expected none for ${chosen[of]}`,
      );
    // Of the loss or the optimizer that the run had before.
    delete merged[key];
  }
  return merged;
}

/** Only its settings, of a command's options, and of them those that are there. */
function present(settings: TrainSettings): TrainSettings {
  const known = new Set(addTrainSettings(new Command()).options.map((option) => option.attributeName()));
  return Object.fromEntries(Object.entries(settings).filter(([key, value]) => known.has(key) && value !== undefined));
}

const flagOf = (key: string): string => `--${key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** A run, checked but for its network and its points. */
export interface TrainPlan {
  readonly options: TrainerOptions & { readonly timeColumn: number | null };
  readonly loss: Loss;
  readonly steps: number;
  readonly seed: number;
  /** What the network's context is. */
  readonly contextSize: number;
  /** Of the noise that the score losses add. */
  readonly leastNoise: number;
}

/** Time, or σ, is the last column of the context, where there is one. @param conditions the other columns. @throws InputError. */
export function planTraining(settings: TrainSettings, conditions: number): TrainPlan {
  const { noise, steps = DEFAULT_STEPS, schedule, batch, seed = 0, averaging, divergencePenalty, probes, solver, solverSteps } = settings;
  const loss = untyped(settings.loss ?? DEFAULT_LOSS) as Loss;
  const isOneNoise = noise !== undefined && noise[0] === noise[1];
  const hasTime = isFlow(loss) || (loss === "denoising_score_matching" && !isOneNoise);
  const pairing = settings.pairing === undefined ? undefined : (untyped(settings.pairing) as TrainerOptions["pairing"]);
  const optimizer = {
    name: settings.optimizer,
    learningRate: settings.lr,
    schedule,
    ...(schedule === "cosine" && { steps }),
    warmUp: settings.warmUp,
    momentum: settings.momentum,
    weightDecay: settings.weightDecay,
    clip: settings.clip,
  };
  const timeColumn = hasTime ? conditions : null;
  const integration = loss === "max_likelihood" ? { solver, steps: solverSteps } : undefined;
  const options = { loss, optimizer, batch, seed, timeColumn, noise, divergencePenalty, pairing, probes, integration, averaging };
  const contextSize = conditions + (hasTime ? 1 : 0);
  try {
    const checked = readTrainerOptions(options, contextSize);
    return { options, loss, steps, seed, contextSize, leastNoise: checked.noise[0] };
  } catch (error) {
    if (error instanceof DeldotError) throw new InputError(asTyped(error.message), { cause: error });
    throw error;
  }
}

/** Whether what is trained is a flow, from noise at time 0 to data at 1. */
export function isFlow(loss: string): boolean {
  return loss === "flow_matching" || loss === "max_likelihood";
}

/** The trainer's texts name options as in code: optimizer.learningRate; here they are typed, --lr. */
function asTyped(text: string): string {
  return text
    .replaceAll("optimizer.learningRate", "--lr")
    .replaceAll(/\boptimizer\.(\w+)/g, (_, name: string) => flagOf(name))
    .replace(/^(loss|noise|batch|seed|averaging|pairing|divergencePenalty)\b/, (name) => flagOf(name));
}
