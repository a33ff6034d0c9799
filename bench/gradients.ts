import { parametersOf, VectorField } from "deldot";
import { interleave, statsOf, wallTime, type Stats } from "./measure.js";
import { normalPoints, randomMlp } from "./networks.js";
import type { Bench } from "./prepare.js";

/** Steps of training: what a loss of value and divergence costs beside one of the value alone, in one run. */
export interface GradientResult {
  readonly name: string;
  readonly points: number;
  /** Milliseconds of f alone. */
  readonly value: Stats;
  /** Milliseconds of f and its gradient for every weight, as a regression takes. */
  readonly regression: Stats;
  /** Milliseconds of f, ∇·f and the gradient of both for every weight, as score matching takes. */
  readonly scoreMatching: Stats;
  /** scoreMatching over regression, and over value. */
  readonly ratio: Stats;
  readonly overValue: Stats;
  /** What the plan counts for `ratio`: multiply-adds of all points and of what is done once, over those of a regression. */
  readonly planned: number;
  /** Milliseconds of update, and those over a step of score matching. */
  readonly update: Stats;
  readonly updateRatio: Stats;
}

/** d, the width and the number of hidden layers, and how many points. */
const shapes = [
  [2, 64, 2, 4096],
  [16, 128, 2, 1024],
  [64, 256, 2, 1024],
  [784, 512, 2, 1024],
  [2, 64, 3, 4096],
  [64, 256, 3, 64],
] as const;

/** Of samples, after which there are no more of a network. */
const MILLISECONDS = 20_000;

export async function measureGradients(
  named: (label: string) => boolean,
  most: number,
  rounds: number,
  bench: Bench,
): Promise<GradientResult[]> {
  const { device, store, progress } = bench;
  const results: GradientResult[] = [];
  for (const [d, width, layers, points] of shapes) {
    const name = `${d}-${width}-${layers}`;
    const count = Math.min(points, most);
    if (!named(`${name},${points}`)) continue;
    progress(`gradient: ${name}, ${count} points`);
    const field = await VectorField.create(device, randomMlp(d, width, layers, "tanh"), {
      label: "gradient",
      store,
      kernels: "layers 4x4",
    });
    const x = normalPoints(2, count, d);
    const value = normalPoints(3, count, d);
    const parameters = parametersOf(field.network);
    const weights = { wrt: ["parameters"] } as const;
    const steps = {
      value: () => field.evaluate(x, { outputs: ["value"] }),
      regression: () => field.vjp(x, { value }, { ...weights, outputs: ["value"] }),
      scoreMatching: () => field.vjp(x, { value, divergence: 1 / count }, { ...weights, outputs: ["value", "divergence"] }),
      update: () => field.update(parameters),
    };
    const samples: Record<keyof typeof steps, number[]> = { value: [], regression: [], scoreMatching: [], update: [] };
    for (const step of Object.values(steps)) await step();
    const samplers = (Object.keys(steps) as (keyof typeof steps)[]).map((step) => ({
      budget: MILLISECONDS / 4,
      sample: async () => void samples[step].push(await wallTime(steps[step])),
    }));
    await interleave(samplers, rounds);
    const over = (a: keyof typeof steps, b: keyof typeof steps): Stats =>
      statsOf(samples[a].flatMap((time, i) => (i < samples[b].length ? [time / samples[b][i]!] : [])));
    const { gradient } = field.explain({ gradient: true });
    field.destroy();
    results.push({
      name,
      points: count,
      value: statsOf(samples.value),
      regression: statsOf(samples.regression),
      scoreMatching: statsOf(samples.scoreMatching),
      ratio: over("scoreMatching", "regression"),
      overValue: over("scoreMatching", "value"),
      planned: (gradient!.multiplyAdds + gradient!.perCall / count) / gradient!.valueMultiplyAdds,
      update: statsOf(samples.update),
      updateRatio: over("update", "scoreMatching"),
    });
  }
  return results;
}
