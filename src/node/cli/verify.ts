import { Option, type Command } from "commander";
import { InputError } from "../../errors.js";
import { evaluateReference, explainPlan, type Network, type Output } from "../../index.js";
import { createEvaluator, type Results } from "./evaluator.js";
import {
  addEvaluationOptions,
  addModelOptions,
  parseWhole,
  readModel,
  type EvaluationOptions,
  type ModelOptions,
  modelArgument,
} from "./options.js";
import { print, round } from "./output.js";
import { interruptSignal, showProgress } from "./progress.js";

interface VerifyOptions extends ModelOptions, EvaluationOptions {
  readonly points: number;
  readonly seed: number;
}

const help = `
Points are normal, contexts uniform in [0, 1], both from the seed. The tolerance of a point is
2e-5 Σ|∂f_i/∂x_i| + 1e-6, with 1e-4 for 2e-5 where there are more than four hidden layers or a sin(omega) with
|omega| >= 10. A point that is out of it counts as right where the reference jumps beside the point, as it does at
a kink of relu, and has the same value on the other side. The exit status is 1 where a point is out of tolerance.

Example:
  deldot verify two-moons-flow.safetensors --points 1000`;

export function addVerify(program: Command): void {
  const command = program
    .command("verify")
    .description("compare the divergence with the float64 reference at random points")
    .addArgument(modelArgument())
    .addOption(new Option("--points <count>", "how many points").argParser(parseWhole(1, 2 ** 24)).default(256))
    .addOption(new Option("--seed <number>", "seed of the points").argParser(parseWhole(0, 2 ** 32 - 1)).default(0));
  addModelOptions(command);
  addEvaluationOptions(command).addHelpText("after", help).action(runVerify);
}

async function runVerify(modelPath: string, { points: count, seed, adapter, method, ...modelOptions }: VerifyOptions): Promise<void> {
  const network = await readModel(modelPath, modelOptions);
  const { notes = [] } = network;
  const { candidates } = explainPlan(network, { method, outputs: ["divergence"] });
  if (candidates.find(({ chosen }) => chosen)?.exact === false)
    throw new InputError(`--method is ${method}; expected an exact method, which can be told right from wrong`);
  const samples = drawSamples(network, count, seed);
  const { points, context } = samples;
  const signal = interruptSignal();

  const evaluator = await createEvaluator(network, adapter);
  let results: Results;
  try {
    results = await withProgress("evaluate", (onProgress) =>
      evaluator.field.evaluate<Output>(points, { context, method, outputs: ["divergence"], onProgress, signal }),
    );
  } finally {
    await evaluator.dispose();
  }
  const reference = await createEvaluator(network, "cpu");
  const truth = await withProgress("reference", (onProgress) =>
    reference.field.evaluate(points, { context, outputs: ["divergence", "diagonal"], onProgress, signal }),
  );

  const relative = relativeTolerance(network);
  const judged = judge(network, samples, results.divergence!, truth.divergence, truth.diagonal, relative);
  const { worst, atKinks } = judged;
  await print([
    `${count} points, method ${results.method}, ${evaluator.description}\n`,
    ...(atKinks > 0 ? [`${atKinks} of them at a kink, and right on its other side\n`] : []),
    `worst |error| ${worst.error.toExponential(2)} beside Σ|∂f_i/∂x_i| = ${round(worst.scale)}, at point ${worst.point}\n`,
    `tolerance there ${worst.tolerance.toExponential(2)} = ${relative} Σ|∂f_i/∂x_i| + ${absoluteTolerance}: ${judged.within ? "within" : "OUT OF TOLERANCE"}\n`,
    ...(notes.length > 0
      ? ["This compares kernels with the float64 reference of the network as read, not with where the file came from:\n"]
      : []),
    ...notes.map((note) => `  ${note}\n`),
  ]);
  if (!judged.within) process.exitCode = 1;
}

function withProgress<Result>(
  task: string,
  work: (onProgress: (progress: { done: number; total: number }) => void) => Promise<Result>,
): Promise<Result> {
  const progress = showProgress(task);
  return work(progress.update).finally(progress.stop);
}

const absoluteTolerance = 1e-6;

/** Float32 rounds z itself, and what follows amplifies that. */
function relativeTolerance({ operations }: Network): number {
  const steep = operations.some(
    (operation) =>
      operation.kind === "activation" && operation.activation.name === "sin" && Math.abs(operation.activation.parameters[0]!) >= 10,
  );
  const hidden = operations.filter(({ kind }) => kind === "linear").length - 1;
  return steep || hidden > 4 ? 1e-4 : 2e-5;
}

interface Judged {
  /** The point whose error is the largest part of its tolerance. */
  readonly worst: { readonly point: number; readonly error: number; readonly scale: number; readonly tolerance: number };
  readonly within: boolean;
  /** Points that are out of tolerance for a good reason. */
  readonly atKinks: number;
}

function judge(
  network: Network,
  samples: Samples,
  divergence: ArrayLike<number>,
  truth: ArrayLike<number>,
  diagonal: ArrayLike<number>,
  relative: number,
): Judged {
  const { stateSize } = network;
  let worst: Judged["worst"] = { point: 0, error: 0, scale: 0, tolerance: absoluteTolerance };
  let worstShare = -1;
  let atKinks = 0;
  for (let point = 0; point < divergence.length; point++) {
    let scale = 0;
    for (let i = 0; i < stateSize; i++) scale += Math.abs(diagonal[point * stateSize + i]!);
    const tolerance = relative * scale + absoluteTolerance;
    const error = Math.abs(divergence[point]! - truth[point]!);
    // What is not a number is as wrong as can be.
    const share = Number.isNaN(error) ? Infinity : error / tolerance;
    if (share <= worstShare) continue;
    if (share > 1 && isRightBesideKink(network, samples, point, divergence[point]!, tolerance)) {
      atKinks++;
      continue;
    }
    worst = { point, error, scale, tolerance };
    worstShare = share;
  }
  return { worst, within: worstShare <= 1, atKinks };
}

/**
 * Whether the reference has this value very near the point and jumps on the way there. The jump must stay while the way
 * is halved again and again: a steep slope does not, and a wrong value has no such neighbour.
 */
export function isRightBesideKink(
  network: Network,
  { points, context }: Samples,
  point: number,
  value: number,
  tolerance: number,
): boolean {
  const { stateSize, contextSize } = network;
  const reach = 1e-5;
  const directions = 32;
  const halvings = 24;
  const here = Float64Array.from(points.subarray(point * stateSize, (point + 1) * stateSize));
  const reference = (x: Float64Array): number =>
    evaluateReference(network, x, {
      context: context?.subarray(point * contextSize, (point + 1) * contextSize),
      outputs: ["divergence"],
    }).divergence![0]!;
  const uniform = mulberry32(point);
  for (let direction = 0; direction < directions; direction++) {
    let near = here;
    let far = here.map((x) => x + reach * (1 + Math.abs(x)) * (2 * uniform() - 1));
    let [valueNear, valueFar] = [reference(near), reference(far)];
    if (!(Math.abs(value - valueFar) <= tolerance)) continue;
    for (let halving = 0; halving < halvings; halving++) {
      const middle = near.map((x, i) => (x + far[i]!) / 2);
      const valueMiddle = reference(middle);
      if (Math.abs(valueMiddle - valueNear) > Math.abs(valueFar - valueMiddle)) [far, valueFar] = [middle, valueMiddle];
      else [near, valueNear] = [middle, valueMiddle];
    }
    if (Math.abs(valueFar - valueNear) > tolerance / 2) return true;
  }
  return false;
}

interface Samples {
  readonly points: Float32Array;
  /** One row per point; undefined where the network takes no context. */
  readonly context: Float32Array | undefined;
}

function drawSamples({ stateSize, contextSize }: Network, count: number, seed: number): Samples {
  const uniform = mulberry32(seed);
  // Box and Muller: 1 - uniform() is never 0.
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const points = Float32Array.from({ length: count * stateSize }, normal);
  const context = contextSize > 0 ? Float32Array.from({ length: count * contextSize }, uniform) : undefined;
  return { points, context };
}

/** A small seeded generator of uniform numbers in [0, 1). */
function mulberry32(seed: number): () => number {
  let state = Math.trunc(seed);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
