import { InputError, quote } from "../errors.js";
import { checkObject } from "../inputs.js";

/** What is minimised, on the average over the batch of every step; see shaders/train/draw.wgsl for what each draws. */
export type Loss = "regression" | "flow_matching" | "denoising_score_matching" | "score_matching";

export const losses: readonly Loss[] = ["regression", "flow_matching", "denoising_score_matching", "score_matching"];

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
  /** What is minimised. */
  readonly loss: Loss;
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
   * [0.1, 0.1] for "score_matching", which is unbounded below on bare points.
   */
  readonly noise?: readonly [number, number] | undefined;
  /** Of a regression: λ of λ/2 (∇·f)², which is added to what is minimised. Default 0. */
  readonly divergencePenalty?: number | undefined;
  /** Of flow matching: which noise goes to which point of a batch. Default "independent". */
  readonly pairing?: "independent" | "optimal_transport" | undefined;
  /** How much of the averaged weights a step leaves: exponential moving average. Default 0.999. */
  readonly averaging?: number | undefined;
  /** Prefix of the label of every GPU object. Default "deldot train". */
  readonly label?: string | undefined;
}

/** An optimizer, checked. */
export type OptimizerSettings = { readonly [Key in keyof OptimizerOptions]-?: Exclude<OptimizerOptions[Key], undefined> };

/** The same, checked. */
export interface TrainerSettings {
  readonly loss: Loss;
  readonly optimizer: OptimizerSettings;
  readonly batch: number;
  readonly seed: number;
  readonly timeColumn: number | null;
  readonly noise: readonly [number, number];
  readonly averaging: number;
  readonly label: string;
}

/** @throws InputError. */
export function readTrainerOptions(options: TrainerOptions, contextSize: number): TrainerSettings {
  checkObject("options", options);
  const { loss, batch = 1024, seed = 0, averaging = 0.999, label = "deldot train" } = options;
  if (!losses.includes(loss))
    throw new InputError(`loss is ${quote(loss)}; expected one of ${losses.map((each) => quote(each)).join(", ")}`);
  checkWhole("batch", batch, 1, 2 ** 20);
  if (!(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32))
    throw new InputError(`seed is ${quote(seed)}; expected a whole number below 2^32`);
  checkNumber("averaging", averaging, 0, 1);
  const { noise = loss === "score_matching" ? ([0.1, 0.1] as const) : ([0.01, 1] as const) } = options;
  if (
    !(
      Array.isArray(noise) &&
      noise.length === 2 &&
      noise.every((each) => typeof each === "number" && each >= 1e-18 && each <= 1e18) &&
      noise[0] <= noise[1]
    )
  )
    throw new InputError(`noise is ${quote(noise)}; expected the least and the largest standard deviation`);
  const timeColumn = options.timeColumn === undefined ? defaultColumn(loss, contextSize) : options.timeColumn;
  if (timeColumn !== null && !(Number.isInteger(timeColumn) && timeColumn >= 0 && timeColumn < contextSize))
    throw new InputError(`timeColumn is ${quote(timeColumn)}; expected null or a column of the context, of which there are ${contextSize}`);
  if (loss === "regression" && timeColumn !== null)
    throw new InputError("timeColumn is for the other losses; a regression has its whole context");
  if (loss === "flow_matching" && timeColumn === null) throw new InputError('the loss "flow_matching" needs a context column that is time');
  return {
    loss,
    optimizer: readOptimizer(options.optimizer ?? {}),
    batch,
    seed,
    timeColumn,
    noise: [noise[0], noise[1]],
    averaging,
    label,
  };
}

function defaultColumn(loss: Loss, contextSize: number): number | null {
  if (loss === "regression" || contextSize === 0) return null;
  if (contextSize === 1) return 0;
  throw new InputError(`the context has ${contextSize} columns; expected timeColumn to name the one that is time, or null`);
}

function readOptimizer(given: OptimizerOptions): OptimizerSettings {
  checkObject("optimizer", given);
  const { name = "adam", learningRate = 1e-3, schedule = "constant", steps = 0, warmUp = 0 } = given;
  const { betas = [0.9, 0.999], epsilon = 1e-8, momentum = 0, weightDecay = name === "adamw" ? 0.01 : 0, clip = 0 } = given;
  if (!["adam", "adamw", "sgd"].includes(name)) throw new InputError(`optimizer.name is ${quote(name)}; expected "adam", "adamw" or "sgd"`);
  if (schedule !== "constant" && schedule !== "cosine")
    throw new InputError(`optimizer.schedule is ${quote(schedule)}; expected "constant" or "cosine"`);
  if (schedule === "cosine") checkWhole("optimizer.steps", steps, 1, 2 ** 31);
  checkWhole("optimizer.warmUp", warmUp, 0, 2 ** 31);
  for (const [what, number] of Object.entries({ learningRate, epsilon, weightDecay, clip }))
    checkNumber(`optimizer.${what}`, number, 0, Infinity);
  checkNumber("optimizer.momentum", momentum, 0, 1);
  if (!Array.isArray(betas) || betas.length !== 2) throw new InputError(`optimizer.betas is ${quote(betas)}; expected two numbers`);
  for (const beta of betas) checkNumber("optimizer.betas", beta, 0, 1);
  if (name === "adam" && weightDecay > 0) throw new InputError("optimizer.weightDecay is for adamw and sgd");
  return { name, learningRate, schedule, steps, warmUp, betas, epsilon, momentum, weightDecay, clip };
}

/** @throws InputError outside [least, most). */
function checkNumber(name: string, number: unknown, least: number, most: number): void {
  if (!(typeof number === "number" && number >= least && Math.fround(number) < most))
    throw new InputError(`${name} is ${quote(number)}; expected a number from ${least} to below ${most}`);
}

function checkWhole(name: string, number: unknown, least: number, most: number): void {
  if (!(Number.isInteger(number) && (number as number) >= least && (number as number) <= most))
    throw new InputError(`${name} is ${quote(number)}; expected a whole number from ${least} to ${most}`);
}
