import { Option, type Command } from "commander";
import { activationFunctions, activationKinks } from "../../model/activation.js";
import type { Matrix } from "../../model/network.js";
import { chainOf, type Chain } from "../../plan/chain.js";
import { createEvaluator, type Results } from "./evaluator.js";
import { addEvaluationOptions, addModelOptions, parseWhole, readModel, type EvaluationOptions, type ModelOptions } from "./options.js";
import { print, round } from "./output.js";
import { interruptSignal, showProgress } from "./progress.js";

interface VerifyOptions extends ModelOptions, EvaluationOptions {
  readonly points: number;
  readonly seed: number;
}

const help = `
Points are normal, contexts uniform in [0, 1], both from the seed. Where an activation has a kink, points that come
within 1e-4 (1 + |z|) of it are left out: float32 may stand on its other side. The tolerance of a point is
2e-5 Σ|∂f_i/∂x_i| + 1e-6, with 1e-4 for 2e-5 where there are more than four hidden layers or a sin(omega) with
|omega| >= 10. The exit status is 1 where a point is out of tolerance.

Example:
  deldot verify two-moons-flow.safetensors --points 1000`;

export function addVerify(program: Command): void {
  const command = program
    .command("verify")
    .description("compare the divergence with the float64 reference at random points")
    .argument("<model>", "file in .safetensors format")
    .addOption(new Option("--points <count>", "how many points").argParser(parseWhole(1, 2 ** 24)).default(256))
    .addOption(new Option("--seed <number>", "seed of the points").argParser(parseWhole(0, 2 ** 32 - 1)).default(0));
  addModelOptions(command);
  addEvaluationOptions(command).addHelpText("after", help).action(runVerify);
}

async function runVerify(modelPath: string, { points: count, seed, adapter, method, ...modelOptions }: VerifyOptions): Promise<void> {
  const network = await readModel(modelPath, modelOptions);
  const chain = chainOf(network);
  const samples = drawSamples(chain, count, seed);
  const context = network.contextSize > 0 ? samples.context : undefined;
  const signal = interruptSignal();

  const evaluator = await createEvaluator(network, adapter);
  let results: Results;
  try {
    results = await withProgress("evaluate", (onProgress) =>
      evaluator.evaluate(samples.points, { context, method, outputs: ["divergence"], onProgress, signal }),
    );
  } finally {
    await evaluator.dispose();
  }
  const reference = await createEvaluator(network, "cpu");
  const truth = await withProgress("reference", (onProgress) =>
    reference.evaluate(samples.points, { context, outputs: ["divergence", "diagonal"], onProgress, signal }),
  );

  const relative = relativeTolerance(chain);
  const worst = findWorst(results.divergence!, truth.divergence!, truth.diagonal!, network.stateSize, relative, samples.nearKink);
  await print([
    `${count} points, method ${results.method}, ${evaluator.description}\n`,
    ...(worst.skipped > 0 ? [`${worst.skipped} points near a kink left out\n`] : []),
    `worst |error| ${worst.error.toExponential(2)} beside Σ|∂f_i/∂x_i| = ${round(worst.scale)}, at point ${worst.point}\n`,
    `tolerance there ${worst.tolerance.toExponential(2)} = ${relative} Σ|∂f_i/∂x_i| + ${absoluteTolerance}: ${worst.within ? "within" : "OUT OF TOLERANCE"}\n`,
  ]);
  if (!worst.within) process.exitCode = 1;
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
function relativeTolerance({ layers }: Chain): number {
  const steep = layers.some(({ activation }) => activation?.name === "sin" && Math.abs(activation.parameters[0]!) >= 10);
  return steep || layers.length - 1 > 4 ? 1e-4 : 2e-5;
}

interface Worst {
  readonly point: number;
  readonly error: number;
  readonly scale: number;
  readonly tolerance: number;
  readonly within: boolean;
  readonly skipped: number;
}

/** The point whose error is the largest part of its tolerance. */
function findWorst(
  divergence: ArrayLike<number>,
  truth: ArrayLike<number>,
  diagonal: ArrayLike<number>,
  stateSize: number,
  relative: number,
  nearKink: readonly boolean[],
): Worst {
  let worst: Omit<Worst, "skipped" | "within"> = { point: -1, error: 0, scale: 0, tolerance: absoluteTolerance };
  let worstShare = -1;
  let skipped = 0;
  for (let point = 0; point < divergence.length; point++) {
    if (nearKink[point]) {
      skipped++;
      continue;
    }
    let scale = 0;
    for (let i = 0; i < stateSize; i++) scale += Math.abs(diagonal[point * stateSize + i]!);
    const tolerance = relative * scale + absoluteTolerance;
    const error = Math.abs(divergence[point]! - truth[point]!);
    // What is not a number is as wrong as can be.
    const share = Number.isNaN(error) ? Infinity : error / tolerance;
    if (share > worstShare) {
      worst = { point, error, scale, tolerance };
      worstShare = share;
    }
  }
  return { ...worst, skipped, within: worstShare <= 1 };
}

interface Samples {
  readonly points: Float32Array;
  readonly context: Float32Array;
  readonly nearKink: readonly boolean[];
}

function drawSamples(chain: Chain, count: number, seed: number): Samples {
  const { stateSize, contextSize } = chain;
  const uniform = mulberry32(seed);
  // Box and Muller: 1 - uniform() is never 0.
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const points = Float32Array.from({ length: count * stateSize }, normal);
  const context = Float32Array.from({ length: count * contextSize }, uniform);
  const hasKinks = chain.layers.some(({ activation }) => activation && activationKinks(activation).length > 0);
  const nearKink = Array.from({ length: count }, (_, point) => {
    const row = (data: Float32Array, width: number): Float32Array => data.subarray(point * width, (point + 1) * width);
    return hasKinks && comesNearKink(chain, row(points, stateSize), row(context, contextSize));
  });
  return { points, context, nearKink };
}

/** A small seeded generator of uniform numbers in [0, 1). */
function mulberry32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function comesNearKink({ layers }: Chain, state: Float32Array, context: Float32Array): boolean {
  let a = Float64Array.from(state);
  for (const { weight, contextWeight, bias, activation } of layers) {
    const shift = contextWeight && multiply(contextWeight, context);
    const z = multiply(weight, a).map((sum, row) => sum + (bias?.[row] ?? 0) + (shift?.[row] ?? 0));
    if (!activation) {
      a = z;
      continue;
    }
    const kinks = activationKinks(activation);
    if (kinks.some((kink) => z.some((value) => Math.abs(value - kink) <= 1e-4 * (1 + Math.abs(value))))) return true;
    a = z.map(activationFunctions(activation).value);
  }
  return false;
}

function multiply({ rows, columns, data }: Matrix, vector: Float32Array | Float64Array): Float64Array {
  const product = new Float64Array(rows);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) product[row]! += data[row * columns + column]! * vector[column]!;
  return product;
}
