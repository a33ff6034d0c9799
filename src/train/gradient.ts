import { internalsOf, type Recorded, type VectorField } from "../field.js";
import type { EncodeVjpOptions } from "../fieldOptions.js";
import { chunksOf, type Replay } from "../gpu/encoder.js";
import { mixBits } from "../mixBits.js";
import { parameterLayout } from "../model/parameters.js";
import { stagesOf, tableaus } from "../ode/tableaus.js";
import { asBits } from "../schedule/recorder.js";
import { slotSize, slotsOf, type Buffers } from "./buffers.js";
import type { Bound, Dispatch, TrainKernels } from "./kernels.js";
import type { TrainerSettings } from "./options.js";

/**
 * What a loss is made of: constant + Σ_b (scale/2 weight_b |f_b - wanted_b|² + divergence ∇·f_b + penalty/2 (∇·f_b)²); along a path f is
 * where it ends, and ∇·f the integral of the divergence, from data to noise.
 */
export interface LossFactors {
  readonly scale: number;
  readonly divergence: number;
  readonly penalty: number;
  readonly constant: number;
}

export function factorsOf({ loss, batch, divergencePenalty }: TrainerSettings, d: number): LossFactors {
  const none = { scale: 0, divergence: 0, penalty: 0, constant: 0 };
  switch (loss) {
    case "regression":
      return { ...none, scale: 2 / (batch * d), penalty: (2 * divergencePenalty) / batch };
    case "flow_matching":
      return { ...none, scale: 2 / (batch * d) };
    case "denoising_score_matching":
      return { ...none, scale: 1 / batch };
    case "score_matching":
    case "sliced_score_matching":
      return { ...none, scale: 1 / batch, divergence: 1 / batch };
    case "max_likelihood":
      return { ...none, scale: 1 / batch, divergence: -1 / batch, constant: (d / 2) * Math.log(2 * Math.PI) };
    case "custom":
      // The host leaves it in place of the first divergence, and zeros in place of the others.
      return { ...none, divergence: 1 };
  }
}

/** Makes all that the steps of a loss need of a field. @throws LimitError, GpuError, DeviceLostError. */
export async function reserve(field: VectorField, settings: TrainerSettings): Promise<void> {
  const { loss, batch, divergencePenalty, probes } = settings;
  const contextPer = field.network.contextSize > 0 ? ("point" as const) : ("batch" as const);
  const wrt = ["parameters"] as const;
  const [value, both] = [["value"] as const, ["value", "divergence"] as const];
  const needs = (options: Parameters<VectorField["reserveVjp"]>[1]): Promise<void> =>
    field.reserveVjp(batch, { wrt, contextPer, ...options });
  if (loss === "score_matching") return needs({ cotangents: both, outputs: both });
  if (loss === "sliced_score_matching") return needs({ cotangents: both, outputs: both, method: "hutchinson", probes });
  if (loss === "custom" || divergencePenalty > 0) {
    await field.reserve(batch, { outputs: both, contextPer });
    return needs({ cotangents: both });
  }
  if (loss !== "max_likelihood") return needs({ cotangents: value, outputs: value });
  await field.reserve(batch, { outputs: value, contextPer });
  for (const cotangents of [value, both])
    await needs({ wrt: ["points", "parameters"], cotangents, outputs: cotangents === both ? ["divergence"] : [] });
}

/** What the gradients of all losses are recorded with. */
export interface Parts {
  readonly device: GPUDevice;
  readonly field: VectorField;
  readonly settings: TrainerSettings;
  readonly kernels: TrainKernels;
  readonly buffers: Buffers;
}

/** Where the batch's points go, and where what the loss is of lies. */
export function placesOf({ field: { network }, settings, buffers }: Omit<Parts, "kernels" | "device">): Record<"points" | "value", Bound> {
  const { loss, integration, batch } = settings;
  if (loss !== "max_likelihood") return { points: buffers.points, value: buffers.value };
  const slots = slotsOf(integration, batch, network.stateSize);
  const size = 4 * batch * network.stateSize;
  const slot = (stage: number): GPUBufferBinding => ({ buffer: buffers.path, offset: 4 * slots.points(stage), size });
  return { points: slot(0), value: slot(integration.steps * stagesOf(tableaus[integration.solver])) };
}

/** Binds what a field records, once for all steps. */
function prepared(field: VectorField, { recording, buffers }: Recorded): Replay {
  const { encoder, shared } = internalsOf(field);
  return encoder.prepare(chunksOf(recording, shared()), buffers, shared());
}

/** Records the gradient of a step's loss; the batch is drawn. */
export function gradientOf(parts: Parts): Dispatch {
  const { field, settings, buffers } = parts;
  const { loss, batch, divergencePenalty, probes, seed } = settings;
  const prepareGradient = (options: EncodeVjpOptions, step?: GPUBuffer): Replay =>
    prepared(field, internalsOf(field).recordingOfGradient(options, step));
  const given = givenOf(parts);
  if (loss === "max_likelihood") return gradientAlongPath(parts);
  const cotangents = { value: buffers.cotangent, divergence: buffers.divergenceCotangent };
  const gradients = { parameters: buffers.gradient };
  if (loss === "custom") {
    const gradient = prepareGradient({ ...given, cotangents, gradients });
    return (pass) => gradient(pass);
  }
  const cotangent = cotangentsOf(parts);
  if (divergencePenalty > 0) {
    const evaluate = evaluationOf(parts);
    const gradient = prepareGradient({ ...given, cotangents, gradients });
    return (pass) => {
      evaluate(pass);
      cotangent(pass, 0, batch);
      gradient(pass);
    };
  }
  const isSliced = loss === "sliced_score_matching";
  const isScore = isSliced || loss === "score_matching";
  const options: EncodeVjpOptions = {
    ...given,
    cotangents: { value: buffers.cotangent, ...(isScore && { divergence: 1 / batch }) },
    gradients,
    value: buffers.value,
    ...(isScore && { divergence: buffers.divergence }),
  };
  const gradient = isSliced
    ? prepareGradient({ ...options, method: "hutchinson", probes, seed: mixBits(seed) }, buffers.progress)
    : prepareGradient(options);
  return (pass) => gradient(pass, cotangent);
}

/** f and ∇·f of the batch. */
export function evaluationOf(parts: Parts): (pass: GPUComputePassEncoder) => void {
  const { value, divergence } = parts.buffers;
  return prepared(parts.field, internalsOf(parts.field).recording({ ...givenOf(parts), value, divergence }));
}

function givenOf({ field, settings: { batch }, buffers }: Parts) {
  return { points: buffers.points, count: batch, ...(field.network.contextSize > 0 && { context: buffers.context }) };
}

/** Records the cotangents of so many rows from the first. */
function cotangentsOf({ field, settings, kernels, buffers }: Parts): (pass: GPUComputePassEncoder, first: number, rows: number) => void {
  const { stateSize: width } = field.network;
  const { scale, penalty } = factorsOf(settings, width);
  // A field cuts a batch in one way, whatever the step.
  const made = new Map<number, Dispatch>();
  return (pass, first, rows) => {
    let dispatch = made.get(first);
    if (!dispatch) {
      const parameters = { first, rows, width, scale: asBits(scale), penalty: asBits(penalty) };
      made.set(first, (dispatch = kernels.bind("cotangent", parameters, { ...buffers }, rows * width)));
    }
    dispatch(pass);
  };
}

/**
 * The gradient of -log p of a batch at time 1, by the steps of a Runge-Kutta method to time 0 as they are: what it is of is the solver's own
 * result, so that no error of the solver is in it. Forwards only f is needed, and where it was evaluated is kept; back, stage by stage
 * (Hager, Runge-Kutta methods in optimal control and the transformed adjoint system, 2000),
 *   K_i = h (b_i λ + Σ_j>i a_ji X_j),   X_i = ∂/∂x (K_i · f(x_i) + h b_i μ ∇·f(x_i)),   λ := λ + Σ_i X_i,
 * with λ = ∂L/∂x at the step's end, which begins as x/batch, μ = -1/batch, and the same product's gradient for the parameters, summed.
 * The adjoint equation's own integration would evaluate f once more at each stage, to find the way back that is kept here.
 */
function gradientAlongPath(parts: Parts): Dispatch {
  const { field, settings, kernels, buffers } = parts;
  const { batch, integration, timeColumn } = settings;
  const { stateSize: d, contextSize: c } = field.network;
  const { size: parameterCount } = parameterLayout(field.network);
  const { a, b, c: nodes } = tableaus[integration.solver];
  const stages = stagesOf(tableaus[integration.solver]);
  const slots = slotsOf(integration, batch, d);
  const h = -1 / integration.steps;
  const factors = factorsOf(settings, d);
  const { recording, recordingOfGradient } = internalsOf(field);

  const combine = (values: GPUBuffer, size: number, to: number, terms: readonly (readonly [from: number, factor: number])[]): Dispatch => {
    const words = Uint32Array.from(terms.flatMap(([from, factor]) => [from, asBits(factor)]));
    return kernels.bind("combine", { size, to, count: terms.length }, { values, terms: kernels.upload(words) }, size);
  };
  const inPath = (to: number, terms: readonly (readonly [number, number])[]): Dispatch =>
    combine(
      buffers.path,
      batch * d,
      to,
      terms.filter(([, factor]) => factor !== 0),
    );
  const timeAt = (step: number, stage: number): Dispatch[] => {
    if (timeColumn === null) return [];
    const time = 1 + h * (step + nodes[stage]!);
    return [kernels.bind("time", { batch, contexts: c, column: timeColumn, time: asBits(time) }, { context: buffers.context }, batch)];
  };
  const rows = (slot: number) => ({ buffer: buffers.path, offset: 4 * slot });
  const given = (index: number) => ({
    points: rows(slots.points(index)),
    count: batch,
    ...(c > 0 && { context: buffers.context }),
  });

  const slopes = b.slice(0, stages).map((each, j) => [slots.slope(j), h * each] as const);
  const shares = b.slice(0, stages).map((each) => h * each);
  const all = Array.from({ length: integration.steps * stages }, (_, index) => index);
  const backThrough = (index: number): Dispatch => {
    const share = shares[index % stages]!;
    return prepared(
      field,
      recordingOfGradient({
        ...given(index),
        cotangents: { value: rows(slots.cotangent), ...(share !== 0 && { divergence: share * factors.divergence }) },
        gradients: {
          points: rows(slots.stageAdjoint(index % stages)),
          parameters: { buffer: buffers.gradient, offset: 4 * slotSize(parameterCount) },
        },
        ...(share !== 0 && { divergence: { buffer: buffers.divergence, offset: 4 * slotSize(batch) } }),
      }),
    );
  };
  // Plan by plan: where two do not fit into the field's memory together, the one that comes takes that of the one before.
  const evaluated = all.map((index) => prepared(field, recording({ ...given(index), value: rows(slots.slope(index % stages)) })));
  const ofValue = new Map(all.filter((index) => shares[index % stages] === 0).map((index) => [index, backThrough(index)]));
  const ofBoth = new Map(all.filter((index) => shares[index % stages] !== 0).map((index) => [index, backThrough(index)]));

  const forward: Dispatch[] = [];
  for (const index of all) {
    const [step, stage] = [Math.floor(index / stages), index % stages];
    const first = slots.points(step * stages);
    if (stage > 0)
      forward.push(inPath(slots.points(index), [[first, 1], ...a[stage]!.map((each, j) => [slots.slope(j), h * each] as const)]));
    forward.push(...timeAt(step, stage), evaluated[index]!);
    if (stage === stages - 1) forward.push(inPath(slots.points(index + 1), [[first, 1], ...slopes]));
  }

  const back: Dispatch[] = [inPath(slots.adjoint, [[slots.points(all.length), factors.scale]])];
  const sums = new Set<GPUBuffer>();
  /** Adds what a stage left in its slot. */
  const add = (values: GPUBuffer, size: number, factor: number): Dispatch => {
    const before = sums.has(values) ? [[0, 1] as const] : [];
    sums.add(values);
    return combine(values, size, 0, [...before, [slotSize(size), factor]]);
  };
  for (const index of all.toReversed()) {
    const [step, stage] = [Math.floor(index / stages), index % stages];
    const later = Array.from({ length: stages - 1 - stage }, (_, i) => stage + 1 + i);
    back.push(
      inPath(slots.cotangent, [[slots.adjoint, shares[stage]!], ...later.map((j) => [slots.stageAdjoint(j), h * a[j]![stage]!] as const)]),
      ...timeAt(step, stage),
      ofBoth.get(index) ?? ofValue.get(index)!,
      add(buffers.gradient, parameterCount, 1),
    );
    if (shares[stage] !== 0) back.push(add(buffers.divergence, batch, shares[stage]!));
    if (stage === 0) back.push(inPath(slots.adjoint, [[slots.adjoint, 1], ...shares.map((_, i) => [slots.stageAdjoint(i), 1] as const)]));
  }
  const whole = [...forward, ...back];
  return (pass) => {
    for (const record of whole) record(pass);
  };
}
