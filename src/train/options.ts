import { InputError, quote } from "../errors.js";
import { checkObject } from "../inputs.js";
import { solvers, type Solver } from "../ode/tableaus.js";

/** What is minimised, on the average over the batch of every step; see shaders/train/draw.wgsl for what each draws. */
export type Loss =
  | "regression"
  | "flow_matching"
  | "denoising_score_matching"
  | "score_matching"
  | "sliced_score_matching"
  | "max_likelihood";

export const losses: readonly Loss[] = [
  "regression",
  "flow_matching",
  "denoising_score_matching",
  "score_matching",
  "sliced_score_matching",
  "max_likelihood",
];

/** What a {@link CustomLoss} is given: a batch, and f of it; all arrays are row-major. */
export interface LossBatch {
  /** [batch, d] */
  readonly points: Float32Array;
  /** [batch, c] */
  readonly context: Float32Array;
  /** [batch, d] of the data's; null where there are none. */
  readonly targets: Float32Array | null;
  /** f, [batch, d]. */
  readonly value: Float32Array;
  /** ∇·f, [batch]. */
  readonly divergence: Float32Array;
  /** How many steps were made before this one. */
  readonly step: number;
}

/** A loss of a batch, and how it changes with f and ∇·f. */
export interface CustomLossResult {
  /** What is noted of it. */
  readonly loss: number;
  /** ∂loss/∂f, [batch, d]. Default zeros. */
  readonly value?: ArrayLike<number> | undefined;
  /** ∂loss/∂(∇·f), [batch], or one number for all. Default zeros. */
  readonly divergence?: ArrayLike<number> | number | undefined;
}

/** A loss of one's own, computed on the host: a round trip a step. It must not wait for the trainer's own methods, which wait for it. */
export type CustomLoss = (batch: LossBatch) => CustomLossResult | Promise<CustomLossResult>;

/** How the paths of "max_likelihood" are integrated, in steps of one size. */
export interface Integration {
  /** Default "rk4". */
  readonly solver?: Solver | undefined;
  /** Default 8. */
  readonly steps?: number | undefined;
}

/** How weights follow their gradients; defaults are PyTorch's. */
export interface OptimizerOptions {
  /** Default "adam". */
  readonly name?: "adam" | "adamw" | "sgd" | undefined;
  /** Default 1e-3. */
  readonly learningRate?: number | undefined;
  /** "cosine" falls to 0 within `steps`. Default "constant". */
  readonly schedule?: "constant" | "cosine" | undefined;
  /** Of a cosine. */
  readonly steps?: number | undefined;
  /** Steps on which the rate grows from 0. Default 0. */
  readonly warmUp?: number | undefined;
  /** Of Adam's moments. Default [0.9, 0.999]. */
  readonly betas?: readonly [number, number] | undefined;
  /** Default 1e-8. */
  readonly epsilon?: number | undefined;
  /** Of sgd. Default 0. */
  readonly momentum?: number | undefined;
  /** Of adamw (default 0.01) and sgd (default 0). */
  readonly weightDecay?: number | undefined;
  /** The largest norm of a gradient: a larger one is scaled down to it. Default none. */
  readonly clip?: number | undefined;
}

/** What `Trainer.create` takes beside device and network. */
export interface TrainerOptions {
  /** What is minimised: by its name, or a function that gives cotangents. */
  readonly loss: Loss | CustomLoss;
  /** Of a regression: λ ≥ 0, adds λ times the mean of |∇·f|², for fields that should have no divergence. Default 0. */
  readonly divergencePenalty?: number | undefined;
  /**
   * Of "flow_matching": which noise goes to which point of a batch. "independent", the default; or "optimal_transport": each two rows are
   * asked twice whether they are nearer with each other's noise, and exchange it then. Straighter paths, for batch² d multiply-adds a step
   * of a batch of at most 4096; not where the context has more than time, since noise has to be independent of a condition.
   */
  readonly pairing?: "independent" | "optimal_transport" | undefined;
  /** Of "sliced_score_matching": directions of a point in a step. Default 1. */
  readonly probes?: number | undefined;
  /** Of "max_likelihood": how paths from data (time 1) to noise (time 0) are integrated. Default 8 steps of rk4. */
  readonly integration?: Integration | undefined;
  /** How weights follow their gradients. Default Adam. */
  readonly optimizer?: OptimizerOptions | undefined;
  /** Points of a step. Default 1024. */
  readonly batch?: number | undefined;
  /** Of weights, batches and noise. Default 0. */
  readonly seed?: number | undefined;
  /** Which column of the context is time, or σ; null: none is. Default the only one there is. */
  readonly timeColumn?: number | null | undefined;
  /**
   * Standard deviations of the noise added to the data by the score losses, the least and the largest. Default [0.01, 1] for denoising,
   * [0.1, 0.1] for "score_matching" and "sliced_score_matching", which are unbounded below on bare points.
   */
  readonly noise?: readonly [number, number] | undefined;
  /** How much of the averaged weights a step leaves, of step t at most (1 + t) / (10 + t): exponential moving average. Default 0.999. */
  readonly averaging?: number | undefined;
  /**
   * Bytes of GPU memory for data, of which more are sent as steps draw them; and as much again for what each kind of evaluation of a loss
   * has between (one kind; two with a penalty or a loss of one's own, three along a path), which cuts batches into pieces. Weights, their
   * moments and gradients, batches, and where a path has been come beside it. Default 256 MiB.
   */
  readonly memoryBudget?: number | undefined;
  /**
   * By which kernels f and its gradients run: one that goes layer by layer, by its name as a field takes it. Default "layers 4x4", and on
   * a software adapter "layers 4x16 by 8 lanes" where it has as many, else "layers 8x16".
   */
  readonly kernels?: string | undefined;
  /** Prefix of the label of every GPU object. Default "deldot train". */
  readonly label?: string | undefined;
}

/** An optimizer, checked. */
export type OptimizerSettings = { readonly [Key in keyof OptimizerOptions]-?: Exclude<OptimizerOptions[Key], undefined> };

/** The same, checked. */
export interface TrainerSettings {
  readonly loss: Loss | "custom";
  readonly customLoss: CustomLoss | null;
  readonly divergencePenalty: number;
  readonly pairing: "independent" | "optimal_transport";
  readonly probes: number;
  readonly integration: Required<{ readonly [Key in keyof Integration]: Exclude<Integration[Key], undefined> }>;
  readonly optimizer: OptimizerSettings;
  readonly batch: number;
  readonly seed: number;
  readonly timeColumn: number | null;
  readonly noise: readonly [number, number];
  readonly averaging: number;
  readonly memoryBudget: number;
  readonly kernels: string | undefined;
  readonly label: string;
}

/** Of a batch: every two of them meet. */
const MOST_PAIRS = 4096;

/** Their names. */
export const optimizers: readonly OptimizerSettings["name"][] = ["adam", "adamw", "sgd"];

/** What goes with some losses alone. */
const own = {
  divergencePenalty: ["regression"],
  pairing: ["flow_matching"],
  probes: ["sliced_score_matching"],
  integration: ["max_likelihood"],
  noise: ["denoising_score_matching", "score_matching", "sliced_score_matching"],
} as const satisfies Partial<Record<keyof TrainerOptions, readonly Loss[]>>;

/** @throws InputError. */
export function readTrainerOptions(options: TrainerOptions, contextSize: number): TrainerSettings {
  checkObject("options", options);
  checkNames("", options, TRAINER_OPTIONS);
  const { loss: given, batch = 1024, seed = 0, averaging = 0.999, memoryBudget = 2 ** 28 } = options;
  const { kernels, label = "deldot train" } = options;
  const customLoss = typeof given === "function" ? given : null;
  const loss = typeof given === "function" ? "custom" : given;
  if (loss !== "custom" && !losses.includes(loss))
    throw new InputError(`loss is ${quote(loss)}; expected a function or one of ${losses.map((each) => quote(each)).join(", ")}`);
  for (const [name, whose] of Object.entries(own))
    if (options[name as keyof typeof own] !== undefined && !(whose as readonly string[]).includes(loss))
      throw new InputError(`${name} is for ${whose.map((each) => quote(each)).join(", ")}; the loss is ${quote(loss)}`);
  checkWhole("batch", batch, 1, 2 ** 20);
  if (!(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32))
    throw new InputError(`seed is ${quote(seed)}; expected a whole number below 2^32`);
  checkNumber("averaging", averaging, 0, 1);
  if (kernels !== undefined && (typeof kernels !== "string" || !kernels.startsWith("layers")))
    throw new InputError(`kernels is ${quote(kernels)}; expected the name of kernels that go layer by layer, such as "layers 8x16"`);
  const { divergencePenalty = 0, pairing = "independent", probes = 1, integration = {} } = options;
  checkNumber("divergencePenalty", divergencePenalty, 0, Infinity);
  if (pairing !== "independent" && pairing !== "optimal_transport")
    throw new InputError(`pairing is ${quote(pairing)}; expected "independent" or "optimal_transport"`);
  if (pairing === "optimal_transport" && contextSize > 1)
    throw new InputError('pairing is "optimal_transport", but the context has more than time; expected noise that does not depend on it');
  if (pairing === "optimal_transport" && batch > MOST_PAIRS)
    throw new InputError(`batch is ${batch}; expected at most ${MOST_PAIRS} with the pairing "optimal_transport"`);
  checkWhole("probes", probes, 1, 2 ** 20);
  checkObject("integration", integration);
  const { solver = "rk4", steps = 8 } = integration;
  if (!solvers.includes(solver))
    throw new InputError(`integration.solver is ${quote(solver)}; expected one of ${solvers.map((each) => quote(each)).join(", ")}`);
  checkWhole("integration.steps", steps, 1, 256);
  const { noise = loss === "denoising_score_matching" ? ([0.01, 1] as const) : ([0.1, 0.1] as const) } = options;
  if (
    !(
      Array.isArray(noise) &&
      noise.length === 2 &&
      noise.every((each) => typeof each === "number" && each >= 1e-18 && each <= 1e18) &&
      noise[0] <= noise[1]
    )
  )
    throw new InputError(`noise is ${quote(noise)}; expected the least and the largest standard deviation, from 1e-18 to 1e18`);
  const takesAll = loss === "regression" || loss === "custom";
  const timeColumn = options.timeColumn === undefined ? (takesAll ? null : defaultColumn(contextSize)) : options.timeColumn;
  if (timeColumn !== null && !(Number.isInteger(timeColumn) && timeColumn >= 0 && timeColumn < contextSize))
    throw new InputError(`timeColumn is ${quote(timeColumn)}; expected null or a column of the context, of which there are ${contextSize}`);
  if (takesAll && timeColumn !== null) throw new InputError(`timeColumn is for the other losses; ${quote(loss)} has its whole context`);
  if (loss === "flow_matching" && timeColumn === null) throw new InputError('the loss "flow_matching" needs a context column that is time');
  return {
    loss,
    customLoss,
    divergencePenalty,
    pairing,
    probes,
    integration: { solver, steps },
    optimizer: readOptimizer(options.optimizer ?? {}),
    batch,
    seed,
    timeColumn,
    noise: [noise[0], noise[1]],
    averaging,
    memoryBudget,
    kernels,
    label,
  };
}

function defaultColumn(contextSize: number): number | null {
  if (contextSize === 0) return null;
  if (contextSize === 1) return 0;
  throw new InputError(`the context has ${contextSize} columns; expected timeColumn to name the one that is time, or null`);
}

function readOptimizer(given: OptimizerOptions): OptimizerSettings {
  checkObject("optimizer", given);
  checkNames("optimizer.", given, OPTIMIZER_OPTIONS);
  const { name = "adam", learningRate = 1e-3, schedule = "constant", steps = 0, warmUp = 0 } = given;
  const isSgd = name === "sgd";
  for (const [option, reason] of [
    ["momentum", !isSgd && "is for sgd"],
    ["betas", isSgd && "is for adam and adamw"],
    ["epsilon", isSgd && "is for adam and adamw"],
    ["weightDecay", name === "adam" && "is for adamw and sgd"],
    ["steps", schedule !== "cosine" && 'is for the schedule "cosine"'],
  ] as const)
    if (reason && given[option]) throw new InputError(`optimizer.${option} ${reason}`);
  const { betas = [0.9, 0.999], epsilon = 1e-8, momentum = 0, weightDecay = name === "adamw" ? 0.01 : 0, clip = 0 } = given;
  if (!optimizers.includes(name)) throw new InputError(`optimizer.name is ${quote(name)}; expected "adam", "adamw" or "sgd"`);
  if (schedule !== "constant" && schedule !== "cosine")
    throw new InputError(`optimizer.schedule is ${quote(schedule)}; expected "constant" or "cosine"`);
  if (schedule === "cosine") checkWhole("optimizer.steps", steps, 1, 2 ** 31);
  checkWhole("optimizer.warmUp", warmUp, 0, 2 ** 31);
  for (const [what, number] of Object.entries({ learningRate, epsilon, weightDecay, clip }))
    checkNumber(`optimizer.${what}`, number, 0, Infinity);
  checkNumber("optimizer.momentum", momentum, 0, 1);
  if (!Array.isArray(betas) || betas.length !== 2) throw new InputError(`optimizer.betas is ${quote(betas)}; expected two numbers`);
  for (const beta of betas) checkNumber("optimizer.betas", beta, 0, 1);
  if (epsilon === 0) throw new InputError("optimizer.epsilon is 0; expected a number above");
  return { name, learningRate, schedule, steps, warmUp, betas: [betas[0], betas[1]], epsilon, momentum, weightDecay, clip };
}

const OPTIMIZER_OPTIONS = "name learningRate schedule steps warmUp betas epsilon momentum weightDecay clip".split(" ");
const TRAINER_OPTIONS =
  "loss divergencePenalty pairing probes integration optimizer batch seed timeColumn noise averaging memoryBudget kernels label".split(" ");

/** A misspelt option would go unnoticed, and the training with it. @throws InputError. */
function checkNames(prefix: string, given: object, names: readonly string[]): void {
  const strange = Object.keys(given).find((name) => !names.includes(name));
  if (strange !== undefined) throw new InputError(`there is no option ${prefix}${strange}; expected ${names.join(", ")}`);
}

/** @throws InputError outside [least, most). */
function checkNumber(name: string, number: unknown, least: number, most: number): void {
  const inFloat32 = typeof number === "number" ? Math.fround(number) : NaN;
  if (!(inFloat32 >= least && inFloat32 < most) || (inFloat32 === 0 && number !== 0))
    throw new InputError(`${name} is ${quote(number)}; expected a number of float32 from ${least} to below ${most}`);
}

function checkWhole(name: string, number: unknown, least: number, most: number): void {
  if (!(Number.isInteger(number) && (number as number) >= least && (number as number) <= most))
    throw new InputError(`${name} is ${quote(number)}; expected a whole number from ${least} to ${most}`);
}
