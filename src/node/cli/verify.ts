import { Option, type Command } from "commander";
import { InputError } from "../../errors.js";
import { evaluateReference, explainPlan, type Evaluation, type Network, type Output } from "../../index.js";
import { createEvaluator, type Results } from "./evaluator.js";
import { jumpsTo } from "./kink.js";
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
import { interruptSignal, withProgress } from "./progress.js";
import { drawSamples, type Samples } from "./samples.js";
import { compareGradients, describeGradients, type ComparedGradients } from "./verifyGradient.js";

interface VerifyOptions extends ModelOptions, EvaluationOptions {
  readonly points: number;
  readonly seed: number;
  readonly gradient?: boolean;
}

const help = `
Points are normal, contexts uniform in [0, 1], both from the seed. The tolerance of a point is
2e-5 Σ|∂f_i/∂x_i| + 1e-6, with 1e-4 for 2e-5 where there are more than four hidden layers or a sin(omega) with
|omega| >= 10. A point that is out of it counts as right where the reference jumps beside the point, as it does at
a kink of relu, and has the same value on the other side. The exit status is 1 where a point is out of tolerance.

With --gradient, also the gradient of L = Σ_b (e_b · f(x_b) + c_b ∇·f(x_b)) with respect to the points, their
contexts and every parameter, e and c normal, from the seed. The tolerance of a tensor is 1e-5 of its largest entry,
1e-4 for the same networks, plus 1e-7. A point at a kink has no part in the sums. The exit status is 1 where a tensor
is out of tolerance. The reference takes d + 1 passes over the network there and back for each point: of large
networks, take fewer points.

Examples:
  deldot verify two-moons-flow.safetensors --points 1000
  deldot verify digits-flow.safetensors --gradient --points 32`;

export function addVerify(program: Command): void {
  const command = program
    .command("verify")
    .description("compare the divergence with the float64 reference at random points")
    .addArgument(modelArgument())
    .addOption(new Option("--points <count>", "how many points").argParser(parseWhole(1, 2 ** 24)).default(256))
    .addOption(new Option("--seed <number>", "seed of the points").argParser(parseWhole(0, 2 ** 32 - 1)).default(0))
    .option("--gradient", "compare gradients too: by the points, the context and the parameters");
  addModelOptions(command);
  addEvaluationOptions(command).addHelpText("after", help).action(runVerify);
}

async function runVerify(modelPath: string, { points: count, seed, gradient = false, method, ...options }: VerifyOptions): Promise<void> {
  const network = await readModel(modelPath, options);
  const { notes = [] } = network;
  const { candidates } = explainPlan(network, { method, outputs: ["divergence"] });
  if (candidates.find(({ chosen }) => chosen)?.exact === false)
    throw new InputError(`--method is ${method}; expected an exact method, which can be told right from wrong`);
  const samples = drawSamples(network, count, seed);
  const { points, context } = samples;
  const signal = interruptSignal();
  const hard = hardnessOf(network);

  const reference = await createEvaluator(network, { adapter: "reference" });
  const evaluator = await createEvaluator(network, options);
  let results: Results;
  let truth: Evaluation<"divergence" | "diagonal", Float32Array | Float64Array>;
  let gradients: ComparedGradients | null = null;
  try {
    results = await withProgress("evaluate", (onProgress) =>
      evaluator.field.evaluate<Output>(points, { context, method, outputs: ["divergence"], onProgress, signal }),
    );
    truth = await withProgress("reference", (onProgress) =>
      reference.field.evaluate(points, { context, outputs: ["divergence", "diagonal"], onProgress, signal }),
    );
    if (gradient) {
      const settings = { method, signal, relative: hard === null ? 1e-5 : 1e-4 };
      gradients = await compareGradients(evaluator.field, reference.field, samples, settings);
    }
  } finally {
    await evaluator.dispose();
  }

  // Float32 rounds z itself, and what follows amplifies that.
  const relative = hard === null ? 2e-5 : 1e-4;
  const judged = judge(network, samples, results.divergence!, truth.divergence, truth.diagonal, relative);
  const { worst, atKinks } = judged;
  await print([
    `${count} points, method ${results.method}, ${evaluator.description}\n`,
    ...(atKinks > 0 ? [`${atKinks} of them at a kink, and right on its other side\n`] : []),
    `worst |error| ${worst.error.toExponential(2)} beside Σ|∂f_i/∂x_i| = ${round(worst.scale)}, at point ${worst.point}\n`,
    `tolerance there ${worst.tolerance.toExponential(2)} = ${relative} Σ|∂f_i/∂x_i| + ${absoluteTolerance}: ${judged.within ? "within" : "OUT OF TOLERANCE"}\n`,
    ...(gradients ? describeGradients(gradients, hard) : []),
    ...(notes.length > 0
      ? ["This compares kernels with the float64 reference of the network as read, not with where the file came from:\n"]
      : []),
    ...notes.map((note) => `  ${note}\n`),
  ]);
  if (!judged.within || gradients?.within === false) process.exitCode = 1;
}

const absoluteTolerance = 1e-6;

/** What makes a network amplify the rounding of float32, in words; null where nothing does. */
function hardnessOf({ operations }: Network): string | null {
  for (const operation of operations)
    if (operation.kind === "activation") {
      const { name, parameters } = operation.activation;
      if (name === "sin" && Math.abs(parameters[0]!) >= 10) return `sin(${parameters[0]})`;
    }
  const hidden = operations.filter(({ kind }) => kind === "linear").length - 1;
  return hidden > 4 ? `${hidden} hidden layers` : null;
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

/** Whether the reference has this divergence on the other side of a kink beside the point. */
export function isRightBesideKink(
  network: Network,
  { points, context }: Samples,
  point: number,
  value: number,
  tolerance: number,
): boolean {
  const { stateSize, contextSize } = network;
  const here = Float64Array.from(points.subarray(point * stateSize, (point + 1) * stateSize));
  const reference = (x: Float64Array): number =>
    evaluateReference(network, x, {
      context: context?.subarray(point * contextSize, (point + 1) * contextSize),
      outputs: ["divergence"],
    }).divergence![0]!;
  return jumpsTo(value, reference, here, tolerance, point);
}
