import { readFile } from "node:fs/promises";
import { Flow, parseSafetensors, VectorField, type SolveOptions } from "deldot";
import { readTensors } from "../test/tensors.js";
import { interleave, statsOf, wallTime, type Stats } from "./measure.js";
import { normalPoints } from "./networks.js";
import type { Bench } from "./prepare.js";

/** What a solver errs by, and takes. */
export interface SolverResult {
  readonly network: string;
  readonly solver: string;
  /** |Δ log p| in nats, beside paths in float64. */
  readonly worst: number;
  readonly mean: number;
  /** Of f and its divergence, the mean over the points. */
  readonly evaluations: number;
}

/** What log p by Hutchinson's estimate errs by. */
export interface EstimateResult {
  readonly network: string;
  readonly probes: number;
  /** Of log p, in nats. */
  readonly deviation: number;
  /** Mean of exp(error): what an estimated density is multiplied by, on the average. */
  readonly factor: number;
  /** Of these, the largest. */
  readonly largestFactor: number;
}

/** What an integration takes beside as many evaluations. */
export interface FlowSpeed {
  readonly name: string;
  readonly points: number;
  readonly milliseconds: Stats;
  /** Evaluations of a point, and milliseconds of as many by evaluate. */
  readonly evaluations: number;
  readonly evaluated: Stats;
  readonly ratio: Stats;
}

export interface FlowResults {
  readonly solvers: readonly SolverResult[];
  readonly estimates: readonly EstimateResult[];
  readonly speeds: readonly FlowSpeed[];
}

const solvers: readonly (SolveOptions & { readonly name: string })[] = [
  ...[1e-3, 1e-4, 1e-5, 1e-6].map((tolerance) => ({ name: `tsit5, ${tolerance}`, rtol: tolerance, atol: tolerance })),
  { name: "dopri5, 0.00001", solver: "dopri5" },
  { name: "bosh3, 0.00001", solver: "bosh3" },
  { name: "rk4, 10 steps", solver: "rk4", steps: 10 },
  { name: "rk4, 20 steps", solver: "rk4", steps: 20 },
  { name: "heun, 20 steps", solver: "heun", steps: 20 },
  { name: "midpoint, 20 steps", solver: "midpoint", steps: 20 },
  { name: "euler, 20 steps", solver: "euler", steps: 20 },
  { name: "euler, 100 steps", solver: "euler", steps: 100 },
];

const networks = ["two-moons-flow", "checkerboard-flow", "digits-flow"] as const;

/** Repetitions of an estimate, each with other probes. */
const SEEDS = 16;

export async function measureFlows(named: (label: string) => boolean, most: number, rounds: number, bench: Bench): Promise<FlowResults> {
  const { device, store, kernels, progress } = bench;
  const [solved, estimates, speeds]: [SolverResult[], EstimateResult[], FlowSpeed[]] = [[], [], []];
  for (const network of networks) {
    if (!named(network)) continue;
    progress(`flow: ${network}`);
    const flow = await Flow.create(device, parseSafetensors(await readFile(`demo/models/${network}.safetensors`)), { store, kernels });
    const { tensors } = readTensors(await readFile(`test/vectors/flows/${network}.safetensors`));
    const [points, truth] = [tensors.get("points")!, tensors.get("log_density")!];
    for (const { name, ...options } of solvers) {
      const { logProb, evaluations } = await flow.logProb(points, options);
      const errors = Array.from(logProb, (log, i) => Math.abs(log - truth[i]!));
      solved.push({ network, solver: name, worst: Math.max(...errors), mean: meanOf(errors), evaluations: meanOf(evaluations) });
    }
    for (const probes of [1, 16]) {
      const errors: number[] = [];
      for (let seed = 0; seed < SEEDS; seed++) {
        const { logProb } = await flow.logProb(points, { divergence: { method: "hutchinson", probes, seed } });
        logProb.forEach((log, i) => errors.push(log - truth[i]!));
      }
      const factors = errors.map(Math.exp);
      const deviation = Math.sqrt(meanOf(errors.map((error) => error ** 2)));
      estimates.push({ network, probes, deviation, factor: meanOf(factors), largestFactor: Math.max(...factors) });
    }
    flow.destroy();
  }
  for (const [name, options] of [
    ["rk4, 10 steps", { solver: "rk4", steps: 10 }],
    ["tsit5, 0.00001", {}],
  ] as const)
    if (named("two-moons-flow")) speeds.push(await measureSpeed(name, options, Math.min(65536, most), rounds, bench));
  return { solvers: solved, estimates, speeds };
}

/** An integration of points of two moons, and as many evaluations by evaluate, in turns. */
async function measureSpeed(name: string, options: SolveOptions, count: number, rounds: number, bench: Bench): Promise<FlowSpeed> {
  const { device, store, kernels, progress } = bench;
  progress(`flow: ${name}, ${count} points`);
  const network = parseSafetensors(await readFile("demo/models/two-moons-flow.safetensors"));
  const [flow, field] = [
    await Flow.create(device, network, { store, kernels }),
    await VectorField.create(device, network, { store, kernels }),
  ];
  const points = normalPoints(1, count, 2);
  if (kernels === "auto") {
    await flow.tune(count, options);
    await field.tune(count);
  }
  const { evaluations } = await flow.logProb(points, options);
  const perPoint = meanOf(evaluations);
  await field.evaluate(points, { context: 0.5 });
  const times: Record<"flow" | "evaluate", number[]> = { flow: [], evaluate: [] };
  await interleave(
    [
      { budget: 60_000, sample: async () => void times.flow.push(await wallTime(() => flow.logProb(points, options))) },
      {
        budget: 60_000,
        sample: async () =>
          void times.evaluate.push(
            (perPoint / 4) *
              (await wallTime(async () => {
                for (let i = 0; i < 4; i++) await field.evaluate(points, { context: i / 4 });
              })),
          ),
      },
    ],
    rounds,
  );
  flow.destroy();
  field.destroy();
  const ratios = times.flow.flatMap((time, i) => (i < times.evaluate.length ? [time / times.evaluate[i]!] : []));
  return {
    name,
    points: count,
    milliseconds: statsOf(times.flow),
    evaluations: perPoint,
    evaluated: statsOf(times.evaluate),
    ratio: statsOf(ratios),
  };
}

function meanOf(numbers: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < numbers.length; i++) sum += numbers[i]!;
  return sum / numbers.length;
}
