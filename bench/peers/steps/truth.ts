import { parametersOf, type Numbers } from "../networks.js";
import { differentiate } from "../training/truth.js";
import type { Truth } from "../truth.js";
import { RATE, type StepProblem } from "./problem.js";

/** The losses of Adam's first steps (Kingma and Ba, 2015): all in float64, but for the weights, which everyone has in float32. */
export function computeSteps(problem: StepProblem): Truth {
  const weights = parametersOf(problem).map(({ data }) => data.slice());
  const first = weights.map(({ length }) => new Float64Array(length));
  const second = weights.map(({ length }) => new Float64Array(length));
  const values = new Float64Array(problem.steps);
  for (const [step, { points, wanted }] of problem.batches.entries()) {
    const [w1, b1, w2, b2, w3, b3] = weights as Numbers6;
    const { loss, gradients } = differentiate({ ...problem, points, w1, b1, w2, b2, w3, b3 }, wanted);
    values[step] = loss;
    for (const [index, gradient] of gradients.entries())
      for (const [i, g] of gradient.entries()) {
        const m = (first[index]![i] = 0.9 * first[index]![i]! + 0.1 * g);
        const v = (second[index]![i] = 0.999 * second[index]![i]! + 0.001 * g * g);
        weights[index]![i]! -= (RATE * m) / (1 - 0.9 ** (step + 1)) / (Math.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8);
      }
  }
  // Beside how far it moves: else a wrong gradient would hardly show in a loss that is large.
  return [{ name: "losses", values, scale: values.reduce((most, loss) => Math.max(most, Math.abs(loss - values[0]!)), 0) }];
}

type Numbers6 = [Numbers, Numbers, Numbers, Numbers, Numbers, Numbers];
