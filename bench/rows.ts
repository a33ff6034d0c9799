import { PlanError, VectorField, type Method, type TunedKernels } from "deldot";
import { isPerPoint, labelOf, type Case, type Inputs } from "./cases.js";
import { digits, interleave, statsOf, type Stats } from "./measure.js";
import {
  affordable,
  LEAST_POINTS,
  makeBuffers,
  prepare,
  tune,
  type Bench,
  type Measured,
  type Options,
  type Planned,
  type Settings,
  type Task,
  type Tuned,
} from "./prepare.js";

/** f alone, or f and its divergence by one method. */
export interface Row {
  /** "value" for f alone. */
  readonly method: Method | "value";
  /** Whether it is what `auto` takes. */
  readonly auto: boolean;
  readonly points: number;
  /** Milliseconds of the compute pass. */
  readonly device: Stats;
  /** Milliseconds of `evaluate`: upload, compute, read back. */
  readonly wall: Stats;
  /** Time per point over that of f alone, of the compute passes; measured in the same round. */
  readonly ratio: Stats;
  /** The same of `evaluate`. */
  readonly wallRatio: Stats;
  /** What the plan predicts for the ratio: multiply-adds over those of f alone. */
  readonly predictedRatio: number;
  /** Per point, f's own among them. */
  readonly multiplyAdds: number;
  /** GFLOP/s of the compute pass; a multiply-add counts as two, activations are left out. */
  readonly gflops: number;
  /** Of the compute pass. */
  readonly pointsPerSecond: number;
  /** Bytes, the most of GPU buffers that a fresh field holds at one time from create to the end of one `evaluate`. */
  readonly peakBytes: number;
  /**
   * The worst of a sample of points, of what `evaluate` and `encode` gave: |error of ∇·f| / Σ|∂f_i/∂x_i|; for f alone
   * |error of f_i| / max |f|.
   */
  readonly error: number;
  /** How many points were compared with the float64 reference. */
  readonly compared: number;
  /** The variant that ran. */
  readonly kernels: string;
  /** What the tuning found; empty where tuning the methods before had taken too long already. */
  readonly tuned: readonly TunedKernels[];
  /** Seconds that the tuning took, compilation included. */
  readonly tuneSeconds: number;
}

export interface CaseResult {
  readonly name: string;
  readonly points: number;
  /** In words, as the plan describes it. */
  readonly network: string;
  /** Of f alone, per point. */
  readonly forwardMultiplyAdds: number;
  readonly rows: readonly Row[];
  /** Methods that were left out, and why. */
  readonly skipped: readonly Skipped[];
  /** Bytes of memory of the process, the most until now. */
  readonly residentBytes: number;
}

/** f alone, then auto before the others, so that every later one is measured beside what matters most. */
const asked = ["value", "auto", "tangent", "cyclic", "jacobian", "coordinate", "difference", "hutchinson"] as const;
const PROBES = 16;
/** How much longer f alone and auto may be sampled than the others: they are what everything is compared with. */
const IMPORTANCE = 3;
/** Tunes, checks and times f alone and every method on one case. */
export async function measureCase(chosen: Case, count: number, settings: Settings, bench: Bench): Promise<CaseResult> {
  const { device, store, kernels, progress } = bench;
  const inputs = await chosen.make(count);
  const label = labelOf(chosen.name, count);
  const field = await VectorField.create(device, inputs.network, { label: "tuned", store, kernels });
  const buffers = makeBuffers(device, inputs, count);
  const skipped: Skipped[] = [];
  const measured: Measured[] = [];
  try {
    for (const name of asked) {
      const [f] = measured;
      const task = taskOf(name, field, inputs.context, settings);
      if (task === null || measured.some(({ method }) => method === task.method)) continue;
      if ("reason" in task) {
        skipped.push(task);
        continue;
      }
      const secondsPerPoint = f ? f.secondsPerPoint * task.predictedRatio : 0;
      const guess = task.auto ? count : affordable(count, secondsPerPoint, settings);
      if (guess === 0) {
        skipped.push({ method: name, reason: `${LEAST_POINTS} points would take ${digits(LEAST_POINTS * secondsPerPoint)} s` });
        continue;
      }
      progress(`${label}: tuning ${task.method}`);
      const spent = measured.reduce((seconds, { tuneSeconds }) => seconds + tuneSeconds, 0);
      const tunes = task.auto || !f || spent < settings.secondsToTune;
      const tuned = tunes ? await tune(field, task, guess) : untuned(measured);
      progress(`${label}: checking ${task.method} with ${tuned.kernels}`);
      measured.push(await prepare({ ...task, ...tuned }, count, inputs, buffers, settings, bench));
    }
    progress(`${label}: timing ${measured.map(({ method }) => method).join(", ")}`);
    const budgetOf = ({ auto, method }: Measured): number =>
      1000 * settings.secondsPerMethod * (auto || method === "value" ? IMPORTANCE : 1);
    await interleave(
      measured.map((one) => ({ sample: one.sample, budget: budgetOf(one) })),
      settings.repeats,
    );
  } finally {
    for (const one of [field, ...measured.map((row) => row.field)]) one.destroy();
    for (const buffer of Object.values(buffers)) buffer?.destroy();
  }
  const { network, forwardMultiplyAdds } = field.explain();
  return {
    name: chosen.name,
    points: count,
    network,
    forwardMultiplyAdds,
    rows: measured.map((one) => rowOf(one, measured[0]!)),
    skipped,
    residentBytes: process.resourceUsage().maxRSS * 1024,
  };
}

/** The fastest kernels of the last tuning among those that run any plan. */
function untuned(measured: readonly Measured[]): Tuned {
  const { tuned } = measured.findLast((one) => one.tuned.length > 0)!;
  return { kernels: tuned.find(({ kernels }) => kernels.startsWith("layers"))!.kernels, tuned: [], tuneSeconds: 0 };
}

interface Skipped {
  readonly method: string;
  readonly reason: string;
}

/** What is to be measured under a name of {@link asked}; null where nobody wants it. */
function taskOf(
  name: (typeof asked)[number],
  field: VectorField,
  context: Inputs["context"],
  { methods }: Settings,
): Task | Skipped | null {
  const isValue = name === "value";
  const contextPer = isPerPoint(context) ? "point" : "batch";
  const outputs: Options["outputs"] = isValue ? ["value"] : ["value", "divergence"];
  const plan = explain(field, { outputs, contextPer, ...(!isValue && { method: name }), probes: PROBES });
  if ("reason" in plan) return methods.test(name) ? { method: name, ...plan } : null;
  const auto = name === "auto";
  if (!isValue && !methods.test(name) && !(auto && methods.test(plan.method))) return null;
  const options: Options = {
    outputs,
    context,
    ...(plan.method !== "value" && { method: plan.method }),
    ...(plan.method === "hutchinson" && { probes: PROBES }),
  };
  return { ...plan, auto, options, contextPer };
}

function explain(field: VectorField, options: Parameters<VectorField["explain"]>[0]): Planned | { readonly reason: string } {
  try {
    const { method, forwardMultiplyAdds, candidates } = field.explain(options);
    const own = candidates.find((candidate) => candidate.chosen)?.multiplyAdds ?? 0;
    const multiplyAdds = forwardMultiplyAdds + own;
    return { method, forwardMultiplyAdds, multiplyAdds, predictedRatio: multiplyAdds / Math.max(1, forwardMultiplyAdds) };
  } catch (error) {
    if (error instanceof PlanError) return { reason: error.message };
    throw error;
  }
}

function rowOf(measured: Measured, f: Measured): Row {
  const { method, auto, points, predictedRatio, multiplyAdds, peakBytes, error, compared, kernels, tuned, tuneSeconds } = measured;
  const ratios = (own: readonly number[], alone: readonly number[]): Stats =>
    statsOf(own.map((milliseconds, round) => milliseconds / points / (alone[round]! / f.points)));
  const device = statsOf(measured.deviceSamples);
  return {
    method,
    auto,
    points,
    device,
    wall: statsOf(measured.wallSamples),
    ratio: ratios(measured.deviceSamples, f.deviceSamples),
    wallRatio: ratios(measured.wallSamples, f.wallSamples),
    predictedRatio,
    multiplyAdds,
    gflops: (2 * multiplyAdds * points) / device.median / 1e6,
    pointsPerSecond: (1000 * points) / device.median,
    peakBytes,
    error,
    compared,
    kernels,
    tuned,
    tuneSeconds,
  };
}
