import { VectorField } from "deldot";
import { interleave, statsOf, wallTime, type Stats } from "./measure.js";
import { normalPoints, randomMlp } from "./networks.js";
import type { Bench } from "./prepare.js";

/** `evaluate` of value and divergence, by number of points. */
export interface ScaleResult {
  readonly name: string;
  readonly points: number;
  /** Nanoseconds per point. */
  readonly plain: Stats;
  /** The same with onProgress and a signal. */
  readonly watched: Stats;
  /** How often onProgress was called in one evaluation, on the average. */
  readonly reports: number;
}

/** Of samples, after which there are no more of a number of points. */
const MILLISECONDS = 10_000;

/** Time per point of 2-64-2 by number of points. */
export async function measureScale(counts: readonly number[], rounds: number, bench: Bench): Promise<ScaleResult[]> {
  const { device, store, kernels, progress } = bench;
  const network = randomMlp(2, 64, 2, "tanh");
  const results: ScaleResult[] = [];
  for (const count of counts) {
    progress(`scale: ${count} points`);
    const field = await VectorField.create(device, network, { label: "scale", store, kernels });
    await field.tune(count);
    const points = normalPoints(2, count, 2);
    let reports = 0;
    const watch = { onProgress: () => void reports++, signal: new AbortController().signal };
    const plain: number[] = [];
    const watched: number[] = [];
    const samplers = [
      { samples: plain, options: {} },
      { samples: watched, options: watch },
    ].map(({ samples, options }) => ({
      budget: MILLISECONDS,
      sample: async () => void samples.push((1e6 * (await wallTime(() => field.evaluate(points, options)))) / count),
    }));
    await field.evaluate(points);
    await interleave(samplers, rounds);
    field.destroy();
    results.push({ name: "2-64-2", points: count, plain: statsOf(plain), watched: statsOf(watched), reports: reports / watched.length });
  }
  return results;
}
