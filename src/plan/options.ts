import { InputError, PlanError, quote } from "../errors.js";
import { delivers, exists, methods, OUTPUTS, outputs, type Method, type Output } from "./outputs.js";

/** What a plan is asked for. */
export interface PlanOptions {
  /** Default: value and divergence. */
  readonly outputs?: readonly Output[] | undefined;
  /** Default "auto": the exact method with the fewest multiply-adds among those that deliver the outputs. */
  readonly method?: Method | "auto" | undefined;
  /** How many tangents of a point are carried at once, at most; default all. "coordinate" is always one. */
  readonly chunkSize?: number | undefined;
  /** hutchinson: probes per point, default 16. */
  readonly probes?: number | undefined;
  /** hutchinson: any 32-bit integer, default 0. The same seed gives the same probes on the GPU and in the reference. */
  readonly seed?: number | undefined;
  /** hutchinson: every point has probes of its own ("point", the default), or all share one set ("batch", cheaper). */
  readonly probesPer?: "point" | "batch" | undefined;
  /**
   * hutchinson: whether the probes of a point are orthogonal to one another, default false. For the same price K of them have (N - K) /
   * (N - 1) times the variance of independent ones, N the least power of two from d; N of them have none, and the next N are drawn anew.
   */
  readonly orthogonal?: boolean | undefined;
  /** Whether every point has a context of its own ("point", the default) or all share one ("batch"); evaluate sees for itself. */
  readonly contextPer?: "point" | "batch" | undefined;
  /** difference: the step is this times max(1, |x_i|); default 2^-7, near the optimum ε^(1/3) of float32. */
  readonly step?: number | undefined;
}

/** What a run of a plan reads, and nothing of the plan depends on. */
export interface PlanParameters {
  /** The seed of the probes, a u32. */
  readonly seed: number;
  /** Of central differences. */
  readonly step: number;
  /** Whether the probes of a point are orthogonal to one another. */
  readonly orthogonal: boolean;
}

const DEFAULT_STEP = 2 ** -7;

export function runParametersOf({ seed = 0, step = DEFAULT_STEP, orthogonal = false }: PlanOptions): PlanParameters {
  return { seed: seed >>> 0, step, orthogonal };
}

/** What is asked for, checked. */
export interface Wanted {
  readonly method: Method | "auto";
  /** In the order of the table. */
  readonly outputs: readonly Output[];
}

/** @throws PlanError where the method does not exist or cannot deliver; InputError for options out of range. */
export function readPlanOptions(options: PlanOptions): Wanted {
  if (typeof options !== "object" || options === null) throw new InputError(`options is ${quote(options)}; expected an object`);
  const wanted = readOutputs(options.outputs);
  const method = options.method ?? "auto";
  if (method !== "auto" && !methods.includes(method))
    throw new PlanError(`method is ${quote(method)}; expected "auto" or one of ${methods.join(", ")}`);
  checkRanges(options);
  if (method !== "auto") checkDelivers(method, wanted);
  return { method, outputs: wanted };
}

/** Which method reads which options. */
const READ_BY = { probes: "hutchinson", probesPer: "hutchinson", orthogonal: "hutchinson" } as const;

/** As readPlanOptions, for an evaluation: what the method does not read is a mistake there. */
export function readRunOptions(options: PlanOptions): Wanted {
  const wanted = readPlanOptions(options);
  for (const [name, method] of Object.entries(READ_BY) as [keyof typeof READ_BY, Method][])
    if (options[name] !== undefined && wanted.method !== method)
      throw new InputError(
        `${name} is ${quote(options[name])}, which method "${wanted.method}" does not use; expected it with "${method}"`,
      );
  return wanted;
}

function readOutputs(given: readonly Output[] | undefined): readonly Output[] {
  const wanted = given ?? ["value", "divergence"];
  if (!Array.isArray(wanted) || wanted.length === 0 || !wanted.every((output) => outputs.includes(output)))
    throw new PlanError(`outputs is ${quote(wanted)}; expected a list out of ${outputs.map((output) => `"${output}"`).join(", ")}`);
  return outputs.filter((output) => wanted.includes(output));
}

/** @throws PlanError where a field on R^d has no such output. */
export function requireOutputs(wanted: readonly Output[], d: number): void {
  const missing = wanted.find((output) => !exists(output, d));
  if (missing !== undefined)
    throw new PlanError(
      `the field is on R^${d}, where there is no "${missing}"; expected a state of ${OUTPUTS[missing].sizes!.join(" or ")}`,
    );
}

/** What a gradient gives beside itself: none, value, divergence or both. @throws PlanError. */
export function readVjpOutputs(given: readonly Output[] | undefined, what = "outputs"): readonly Extract<Output, "value" | "divergence">[] {
  const all = ["value", "divergence"] as const;
  const wanted: readonly Output[] = given ?? [];
  if (!Array.isArray(wanted) || !wanted.every((output) => all.includes(output)))
    throw new PlanError(`${what} is ${quote(wanted)}; expected a list out of ${all.map((output) => `"${output}"`).join(", ")}`);
  return all.filter((output) => wanted.includes(output));
}

/** @throws PlanError for the method that has none. */
export function requireGradient(method: Wanted["method"]): void {
  if (method === "difference") throw new PlanError('method "difference" has no gradient here; expected an exact method or "hutchinson"');
}

function checkDelivers(method: Method, wanted: readonly Output[]): void {
  const missing = wanted.find((output) => !delivers(method, output));
  if (missing === undefined) return;
  const able = methods.filter((other) => delivers(other, missing));
  throw new PlanError(
    `method "${method}" does not give the output "${missing}"; it is given by ${able.map((name) => `"${name}"`).join(", ")}`,
  );
}

function checkRanges({ chunkSize, probes, seed, probesPer, orthogonal, contextPer, step }: PlanOptions): void {
  const positive = (name: string, value: number | undefined): void => {
    if (value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= 2 ** 31))
      throw new InputError(`${name} is ${quote(value)}; expected a whole number from 1 to 2^31`);
  };
  positive("chunkSize", chunkSize);
  positive("probes", probes);
  if (seed !== undefined && !(Number.isInteger(seed) && seed >= -(2 ** 31) && seed < 2 ** 32))
    throw new InputError(`seed is ${quote(seed)}; expected a 32-bit integer`);
  if (contextPer !== undefined && contextPer !== "point" && contextPer !== "batch")
    throw new InputError(`contextPer is ${quote(contextPer)}; expected "point" or "batch"`);
  if (probesPer !== undefined && probesPer !== "point" && probesPer !== "batch")
    throw new InputError(`probesPer is ${quote(probesPer)}; expected "point" or "batch"`);
  if (orthogonal !== undefined && typeof orthogonal !== "boolean")
    throw new InputError(`orthogonal is ${quote(orthogonal)}; expected true or false`);
  if (step !== undefined && !(step > 0 && step < 1)) throw new InputError(`step is ${quote(step)}; expected a number between 0 and 1`);
}
