import { deldot, tuneDeldot } from "./deldot.js";
import { deldot as deldotDensity, tuneFlow } from "./density/deldot.js";
import { jax as jaxDensity } from "./density/jax.js";
import { densityCases, makeFlowProblem, type FlowProblem } from "./density/problem.js";
import { pytorch as pytorchDensity } from "./density/pytorch.js";
import { computeDensity } from "./density/truth.js";
import { jax } from "./jax.js";
import { divergenceCases, makeProblem, stepCases, trainingCases, type Case, type Problem } from "./networks.js";
import { onnxruntimeCpu, onnxruntimeWebgpu } from "./onnxruntime.js";
import type { Kernels, Peer } from "./peer.js";
import { plain } from "./plain.js";
import { pytorchOf } from "./pytorch.js";
import { deldot as deldotSteps } from "./steps/deldot.js";
import { jaxOf } from "./steps/jax.js";
import { makeStepProblem, type StepLoss, type StepProblem } from "./steps/problem.js";
import { pytorchStepsOf } from "./steps/pytorch.js";
import { tensorflowOf } from "./steps/tensorflow.js";
import { computeSteps } from "./steps/truth.js";
import { tensorflow } from "./tensorflow.js";
import { deldot as deldotTraining } from "./training/deldot.js";
import { jax as jaxTraining } from "./training/jax.js";
import { tensorflow as tensorflowTraining } from "./training/tensorflow.js";
import { computeTraining } from "./training/truth.js";
import { computeDivergence, type Truth } from "./truth.js";

/** What everyone computes, and who: a table for each case. */
export interface Task<P extends Problem = Problem> {
  readonly name: string;
  readonly cases: readonly Case[];
  readonly makeProblem: (chosen: Case) => P;
  computeTruth(problem: P): Truth;
  /** In the order of the table, deldot first. None of them imports its package before it is prepared. */
  readonly peers: readonly Peer<P>[];
  /** deldot's ways that everyone is measured against, in a column each. */
  readonly baselines: readonly string[];
  /** Whether a call goes on where the one before ended, so that the first alone has the truth's numbers. */
  readonly goesOn?: true;
  /** Finds deldot's fastest kernels, where it has a choice. */
  tune?(problem: P): Promise<Kernels>;
  /** Of a line; one that takes longer has hung, or compiles for ever. */
  readonly seconds: number;
  /** What the figures mean. */
  readonly legend: string;
  /** What its place in bench/RESULTS.md is called. */
  readonly section: string;
}

const divergence: Task = {
  name: "divergence",
  cases: divergenceCases,
  makeProblem,
  computeTruth: computeDivergence,
  peers: [deldot, jax, tensorflow, onnxruntimeWebgpu, onnxruntimeCpu, pytorchOf("divergence", ({ count }) => [count]), plain],
  baselines: ["encode", "evaluate", "evaluate by onnxruntime on the CPU"],
  tune: tuneDeldot,
  seconds: 60,
  legend:
    "A call computes the divergences of all points and reads them back; points: where they are when it starts. " +
    "x encode, x evaluate: times deldot's own call in the same process, in turns with it, points on the device or not; the last of them by " +
    "onnxruntime-node on the processor. PyTorch is the one that the machine's Python has, by CUDA where it can, else on the CPU's threads. " +
    "error: the largest, beside float64, over the largest Σ|∂f_i/∂x_i|. " +
    "While deldot, jax-js or TensorFlow.js waits for a software adapter, its thread sleeps (sleepWhileWaiting of deldot/node). " +
    "All on this adapter unless remarked; onnxruntime does not say which one it took, but it finds it by the same Vulkan loader.",
  section: "peers",
};

const training: Task = {
  name: "training",
  cases: trainingCases,
  makeProblem,
  computeTruth: computeTraining,
  peers: [
    deldotTraining,
    jaxTraining,
    tensorflowTraining,
    pytorchOf("training", (_, parameters) => [1, ...parameters.map(({ length }) => length)]),
  ],
  baselines: ["step"],
  seconds: 120,
  legend:
    "A step computes the loss mean(½|f|² + ∇·f) of exact score matching and its gradient for all weights and biases, and reads both back; " +
    'points: where they are when it starts. Nobody updates weights but deldot in "step, update". ' +
    "x step: times deldot's own step in the same process, in turns with it. " +
    "error: the largest of a tensor, beside float64, over its largest entry. " +
    'The way is how the divergence is computed, which the library then differentiates; "gradient by hand" has the formulas of the gradient too. ' +
    "jax-js's Jacobians are of as many points at once as fit a binding of 128 MiB, and their gradients added up on the device. " +
    "PyTorch is the one that the machine's Python has, by CUDA where it can, else on the CPU's threads; onnxruntime has no gradients in Node.",
  section: "peers training",
};

const stepsOf = (loss: StepLoss, about: string): Task<StepProblem> => ({
  name: loss,
  cases: stepCases,
  makeProblem: (chosen) => makeStepProblem(chosen, loss),
  computeTruth: computeSteps,
  peers: [deldotSteps, jaxOf(loss), tensorflowOf(loss), pytorchStepsOf(loss)],
  baselines: ["steps"],
  goesOn: true,
  seconds: 600,
  legend:
    `Whole steps of training by ${about}, and Adam; ms are those of a step, in calls of several that read the losses at their end. ` +
    "deldot is the Trainer of deldot/train, which draws its batches; the same batches lie ready on the device for everyone else, who draws none. " +
    "x steps: times deldot's own steps in the same process, in turns with it. " +
    "error: the largest of a loss of the first call, beside steps in float64, over how far the loss moves meanwhile. " +
    "jax-js has no optimizer in its package: its Adam is the formulas, jitted together with the gradient where that takes all points at once. " +
    "TensorFlow.js and PyTorch run their own. PyTorch is the one that the machine's Python has, by CUDA where it can, else on the CPU's threads.",
  section: `peers ${loss}`,
});

const flowMatching = stepsOf("flow matching", "flow matching, the mean over points and components of (f(x, t) - y)²");
const scoreMatching = stepsOf("score matching", "exact score matching, mean(½|f|² + ∇·f), the way being how the divergence is computed");

const density: Task<FlowProblem> = {
  name: "density",
  cases: densityCases,
  makeProblem: makeFlowProblem,
  computeTruth: computeDensity,
  peers: [deldotDensity, jaxDensity, pytorchDensity],
  baselines: ["rk4"],
  tune: tuneFlow,
  seconds: 300,
  legend:
    "A call computes log p of all points by the flow demo/models/two-moons-flow.safetensors, silu and time a third input, and reads it back; " +
    "points: where they are when it starts. All integrate x and ∫∇·f dt from t = 1 back to t = 0 by rk4 in 10 steps of one size, " +
    "but deldot by tsit5 as well, with steps as the error asks for, within 1e-5. " +
    "x rk4: times deldot's own call in the same process, in turns with it. " +
    "error: the largest of the first 256 points, in nats, beside float64: rk4's in 10 steps, or for tsit5 in 160. " +
    "jax-js's f and its divergence are jitted together, and so is each sum of a step; it waits after every step, for its memory. " +
    "PyTorch is the one that the machine's Python has, by CUDA where it can, else on the CPU's threads.",
  section: "peers density",
};

export const tasks: readonly Task[] = [divergence, training, flowMatching, scoreMatching, density];
