import type { Vjp, VjpOptions } from "../evaluation.js";
import type { Cotangents, Wrt } from "../inputs.js";
import { LimitError } from "../errors.js";
import {
  readBatch,
  readContext,
  readCotangents,
  readWrt,
  type Batch,
  type BatchInput,
  type Contexts,
  type DivergenceCotangent,
} from "../inputs.js";
import { activationFunctions } from "../model/activation.js";
import { widthOf, type LinearOperation, type Network, type NormOperation, type Operand, type Operation } from "../model/network.js";
import { gatherTensors, numbersOf, type Parameter } from "../model/parameters.js";
import { DEFAULT_PROBES } from "../plan/estimators.js";
import { graphOf } from "../plan/graph.js";
import { readRunOptions, readVjpOutputs, requireGradient } from "../plan/options.js";
import { EXACT, type Method } from "../plan/outputs.js";
import { rademacher } from "./probes.js";

/** An operand's value and its K tangents at one point, and beside each what L grows by with it. */
interface Traced {
  readonly value: Float64Array;
  readonly tangents: readonly Float64Array[];
  readonly valueAdjoint: Float64Array;
  readonly tangentAdjoints: readonly Float64Array[];
}

/**
 * The gradient of L = Σ_b (e_b · f(x_b) + c_b ∇·f(x_b)) in float64 on the CPU: forward mode with all basis vectors (the probes, for
 * method "hutchinson"), then reverse mode over values and tangents (Griewank and Walther, Evaluating Derivatives, 2008, chapter 5),
 * operation by operation of the network as it was read. The twin of {@link VectorField.vjp}; all exact methods are one here. A point
 * with a NaN or an infinity in it, in its context or its cotangents, gives NaN in its row and in all that sums over the points.
 *
 * @throws InputError, PlanError as VectorField.vjp rejects with; LimitError for too many probes.
 */
export function vjpReference<W extends Wrt = "points", O extends "value" | "divergence" = never>(
  network: Network,
  points: BatchInput,
  cotangents: Cotangents,
  options: VjpOptions<W, O> = {},
): Vjp<W, O, Float64Array> {
  const reference = new ReferenceVjp(network, points, cotangents, options);
  for (let point = 0; point < reference.count; point++) reference.evaluate(point);
  return reference.result() as Vjp<W, O, Float64Array>;
}

/** All probes of a point are held at once. */
const MOST_PROBES = 2 ** 24;

/** A gradient in float64, point by point. */
export class ReferenceVjp {
  readonly count: number;
  private readonly points: Batch;
  private readonly contexts: Contexts | null;
  private readonly valueCotangent: Batch | null;
  private readonly divergenceCotangent: DivergenceCotangent | null;
  private readonly wrt: readonly Wrt[];
  private readonly method: Method | "value";
  private readonly value: Float64Array;
  private readonly divergence: Float64Array;
  private readonly ofPoints: Float64Array;
  private readonly ofContext: Float64Array;
  private readonly outputs: readonly ("value" | "divergence")[];
  private isSpoilt = false;
  /** By operation and part. */
  private readonly ofParameters = new Map<string, Float64Array>();

  /** @throws InputError, PlanError for a bad argument; LimitError for too many probes. */
  constructor(
    private readonly network: Network,
    points: BatchInput,
    cotangents: Cotangents,
    private readonly options: VjpOptions,
  ) {
    const { stateSize: d, contextSize: c } = graphOf(network);
    const { context, probes = DEFAULT_PROBES } = options;
    this.outputs = readVjpOutputs(options.outputs);
    const { outputs } = this;
    const { method } = readRunOptions({ ...options, outputs: ["divergence"] });
    requireGradient(method);
    if (method === "hutchinson" && probes * d > MOST_PROBES)
      throw new LimitError(`a point has ${probes} probes of ${d} numbers; expected at most ${MOST_PROBES} numbers`);
    this.points = readBatch(points, d, "points");
    const { count } = this.points;
    this.count = count;
    this.contexts = readContext(context, c, count);
    const { value, divergence } = readCotangents(cotangents, d, count);
    this.valueCotangent = value;
    this.divergenceCotangent = divergence;
    this.wrt = readWrt(options.wrt, c);
    const wantsTrace = divergence !== null || outputs.includes("divergence");
    this.method = !wantsTrace ? "value" : method === "auto" ? EXACT[0]! : method;
    this.value = new Float64Array(outputs.includes("value") ? count * d : 0);
    this.divergence = new Float64Array(outputs.includes("divergence") ? count : 0);
    this.ofPoints = new Float64Array(this.wrt.includes("points") ? count * d : 0);
    this.ofContext = new Float64Array(this.wrt.includes("context") ? (this.contexts!.shared ? c : count * c) : 0);
  }

  evaluate(point: number): void {
    const { stateSize: d, contextSize: c, operations } = this.network;
    const x = row(this.points.data, point, d);
    const context = this.contexts ? row(this.contexts.data, this.contexts.shared ? 0 : point, c) : new Float64Array(0);
    const e = this.valueCotangent ? row(this.valueCotangent.data, point, d) : new Float64Array(d);
    const weights = this.divergenceCotangent;
    const weight = weights ? weights.data[weights.shared ? 0 : point]! : 0;
    if (![...x, ...context, ...e, weight].every(Number.isFinite)) return this.spoil(point);
    const seeds = this.method === "value" ? [] : this.seeds(point);
    const state = traced(x, seeds);
    const given = traced(
      context,
      seeds.map(() => new Float64Array(c)),
    );
    const results: Traced[] = [];
    const of = (operand: Operand): Traced => (operand === "state" ? state : operand === "context" ? given : results[operand]!);
    operations.forEach((operation, index) => results.push(forward(operation, widthOf(this.network, index), of)));

    const velocity = results.at(-1)!;
    const share = this.method === "hutchinson" ? 1 / seeds.length : 1;
    const trace = velocity.tangents.reduce((sum, t, k) => sum + share * t.reduce((dot, value, i) => dot + seeds[k]![i]! * value, 0), 0);
    if (this.value.length > 0) this.value.set(velocity.value, point * d);
    if (this.divergence.length > 0) this.divergence[point] = trace;

    addTo(velocity.valueAdjoint, e);
    velocity.tangentAdjoints.forEach((adjoint, k) => addTo(adjoint, seeds[k]!, weight * share));
    for (const [index, operation] of [...operations.entries()].toReversed()) this.reverse(operation, index, results[index]!, of);
    if (this.ofPoints.length > 0) this.ofPoints.set(state.valueAdjoint, point * d);
    if (this.ofContext.length > 0) {
      const from = this.contexts!.shared ? 0 : point * c;
      addTo(this.ofContext.subarray(from, from + c), given.valueAdjoint);
    }
  }

  /** What is not finite is no part of a sum: NaN, in the point's own rows and in all sums. */
  private spoil(point: number): void {
    const { stateSize: d, contextSize: c } = this.network;
    if (this.value.length > 0) this.value.fill(NaN, point * d, (point + 1) * d);
    if (this.divergence.length > 0) this.divergence[point] = NaN;
    if (this.ofPoints.length > 0) this.ofPoints.fill(NaN, point * d, (point + 1) * d);
    if (this.ofContext.length > 0) {
      const from = this.contexts!.shared ? 0 : point * c;
      this.ofContext.fill(NaN, from, from + c);
    }
    this.isSpoilt = true;
  }

  result(): Vjp<Wrt, "value" | "divergence", Float64Array> {
    const { method, value, divergence, ofPoints, ofContext } = this;
    const { outputs } = this;
    return {
      method,
      shape: this.points.shape,
      ...(this.wrt.includes("points") && { points: ofPoints }),
      ...(this.wrt.includes("context") && { context: ofContext }),
      ...(this.wrt.includes("parameters") && { parameters: this.parameters() }),
      ...(outputs.includes("value") && { value }),
      ...(outputs.includes("divergence") && { divergence }),
    };
  }

  private parameters(): Record<string, Parameter<Float64Array>> {
    const gradients = gatherTensors(this.network, (operation, part) => this.ofParameters.get(`${operation} ${part}`));
    if (this.isSpoilt) for (const { data } of Object.values(gradients)) data.fill(NaN);
    return gradients;
  }

  /** The basis, or the probes of a point. */
  private seeds(point: number): Float64Array[] {
    const { stateSize: d } = this.network;
    if (this.method !== "hutchinson") return Array.from({ length: d }, (_, k) => new Float64Array(d).fill(1, k, k + 1));
    const { probes = DEFAULT_PROBES, probesPer, seed = 0, orthogonal = false } = this.options;
    return Array.from({ length: probes }, (_, k) => rademacher(d, seed >>> 0, probesPer === "batch" ? 0 : point, k, orthogonal));
  }

  private gradientOf(operation: LinearOperation, index: number, part: number | "bias"): Float64Array {
    const key = `${index} ${part}`;
    let gradient = this.ofParameters.get(key);
    if (!gradient) this.ofParameters.set(key, (gradient = new Float64Array(numbersOf(operation, part).numbers.length)));
    return gradient;
  }

  /** Hands what L grows by with an operation's results on to its operands and its numbers. */
  private reverse(operation: Operation, index: number, result: Traced, of: (operand: Operand) => Traced): void {
    switch (operation.kind) {
      case "linear":
        return this.reverseLinear(operation, index, result, of);
      case "activation": {
        // a = σ(z), a' = σ'(z) z'.
        const z = of(operation.operand);
        const { slope, curvature } = activationFunctions(operation.activation);
        const slopes = z.value.map(slope);
        const curvatures = z.value.map(curvature);
        addTo(
          z.valueAdjoint,
          result.valueAdjoint.map((adjoint, i) => adjoint * slopes[i]!),
        );
        result.tangentAdjoints.forEach((adjoint, k) => {
          addTo(
            z.tangentAdjoints[k]!,
            adjoint.map((value, i) => value * slopes[i]!),
          );
          addTo(
            z.valueAdjoint,
            adjoint.map((value, i) => value * curvatures[i]! * z.tangents[k]![i]!),
          );
        });
        return;
      }
      case "product": {
        // p = a b, p' = a' b + a b'.
        const [a, b] = operation.operands.map(of) as [Traced, Traced];
        for (const [one, other] of [
          [a, b],
          [b, a],
        ] as const) {
          addTo(
            one.valueAdjoint,
            result.valueAdjoint.map((adjoint, i) => adjoint * other.value[i]!),
          );
          result.tangentAdjoints.forEach((adjoint, k) => {
            addTo(
              one.tangentAdjoints[k]!,
              adjoint.map((value, i) => value * other.value[i]!),
            );
            addTo(
              one.valueAdjoint,
              adjoint.map((value, i) => value * other.tangents[k]![i]!),
            );
          });
        }
        return;
      }
      case "norm":
        return reverseNorm(operation, result, of(operation.operand));
    }
  }

  private reverseLinear(operation: LinearOperation, index: number, result: Traced, of: (operand: Operand) => Traced): void {
    const isWanted = this.wrt.includes("parameters");
    if (isWanted && operation.bias) addTo(this.gradientOf(operation, index, "bias"), result.valueAdjoint);
    operation.terms.forEach(({ operand, weight }, part) => {
      const input = of(operand);
      const gradient = isWanted ? this.gradientOf(operation, index, part) : null;
      const pairs = [
        [result.valueAdjoint, input.value, input.valueAdjoint] as const,
        ...result.tangentAdjoints.map((adjoint, k) => [adjoint, input.tangents[k]!, input.tangentAdjoints[k]!] as const),
      ];
      for (const [adjoint, vector, into] of pairs)
        eachEntry(weight, (at, value, to, from) => {
          into[from]! += value * adjoint[to]!;
          if (gradient) gradient[at]! += adjoint[to]! * vector[from]!;
        });
    });
  }
}

function row(data: Batch["data"], index: number, width: number): Float64Array {
  return Float64Array.from({ length: width }, (_, i) => data[index * width + i]!);
}

function traced(value: Float64Array, tangents: readonly Float64Array[]): Traced {
  const zeros = (): Float64Array => new Float64Array(value.length);
  return { value, tangents, valueAdjoint: zeros(), tangentAdjoints: tangents.map(zeros) };
}

function addTo(sum: Float64Array, part: Float64Array, factor = 1): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += factor * part[i]!;
}

/** Calls `visit` with each number of a weight: where it stands in its list, and which output it gives of which input. */
function eachEntry(
  weight: LinearOperation["terms"][number]["weight"],
  visit: (at: number, value: number, output: number, input: number) => void,
): void {
  if ("diagonal" in weight) return weight.diagonal.forEach((value, i) => visit(i, value, i, i));
  const [{ rows, columns, data }, times] = "block" in weight ? [weight.block, weight.times] : [weight, 1];
  for (let part = 0; part < times; part++)
    for (let r = 0; r < rows; r++)
      for (let k = 0; k < columns; k++) visit(r * columns + k, data[r * columns + k]!, part * rows + r, part * columns + k);
}

/** The value and the tangents of an operation. */
function forward(operation: Operation, width: number, of: (operand: Operand) => Traced): Traced {
  switch (operation.kind) {
    case "linear": {
      const value = new Float64Array(width);
      if (operation.bias) value.set(operation.bias);
      const count = operation.terms[0] ? of(operation.terms[0].operand).tangents.length : of("state").tangents.length;
      const tangents = Array.from({ length: count }, () => new Float64Array(width));
      for (const { operand, weight } of operation.terms) {
        const input = of(operand);
        eachEntry(weight, (_, number, to, from) => {
          value[to]! += number * input.value[from]!;
          for (let k = 0; k < count; k++) tangents[k]![to]! += number * input.tangents[k]![from]!;
        });
      }
      return traced(value, tangents);
    }
    case "activation": {
      const z = of(operation.operand);
      const { value, slope } = activationFunctions(operation.activation);
      return traced(
        z.value.map(value),
        z.tangents.map((t) => t.map((each, i) => slope(z.value[i]!) * each)),
      );
    }
    case "product": {
      const [a, b] = operation.operands.map(of) as [Traced, Traced];
      return traced(
        a.value.map((each, i) => each * b.value[i]!),
        a.tangents.map((t, k) => t.map((each, i) => each * b.value[i]! + a.value[i]! * b.tangents[k]![i]!)),
      );
    }
    case "norm": {
      const { value, tangents } = of(operation.operand);
      const { y, r } = normed(operation, value);
      return traced(
        y,
        tangents.map((t) => project(operation, y, r, t)),
      );
    }
  }
}

/** y = r (x - mean x) and r = 1/√(mean((x - mean x)²) + ε); no mean where it is not centered. */
function normed({ centered, epsilon }: NormOperation, x: Float64Array): { y: Float64Array; r: number } {
  const mean = centered ? meanOf(x) : 0;
  const distances = x.map((each) => each - mean);
  const r = 1 / Math.sqrt(meanOf(distances.map((each) => each * each)) + epsilon);
  return { y: distances.map((each) => r * each), r };
}

/** r (t - mean t - y mean(y ∘ t)), the tangent of y; a symmetric map, so that of its adjoint too. */
function project({ centered }: NormOperation, y: Float64Array, r: number, t: Float64Array): Float64Array {
  const mean = centered ? meanOf(t) : 0;
  const along = meanOf(t.map((each, i) => each * y[i]!));
  return t.map((each, i) => r * (each - mean - y[i]! * along));
}

function meanOf(numbers: Float64Array): number {
  return numbers.reduce((sum, each) => sum + each, 0) / numbers.length;
}

/**
 * With the tangent y' = r (x' - mean x' - y mean(y ∘ x')) and its adjoint g: x' takes the same map of g, y takes
 * -r (g mean(y ∘ x') + x' mean(y ∘ g)), and r takes g · y' / r, where ∂r/∂x = -r² y / n.
 */
function reverseNorm(operation: NormOperation, { value: y, tangents, valueAdjoint, tangentAdjoints }: Traced, input: Traced): void {
  const { r } = normed(operation, input.value);
  const n = y.length;
  const ofY = valueAdjoint.slice();
  let ofR = 0;
  tangentAdjoints.forEach((g, k) => {
    const t = input.tangents[k]!;
    addTo(input.tangentAdjoints[k]!, project(operation, y, r, g));
    const [alongT, alongG] = [t, g].map((each) => meanOf(each.map((value, i) => value * y[i]!))) as [number, number];
    for (let i = 0; i < n; i++) ofY[i]! -= r * (g[i]! * alongT + t[i]! * alongG);
    ofR += g.reduce((sum, value, i) => sum + value * tangents[k]![i]!, 0) / r;
  });
  addTo(input.valueAdjoint, project(operation, y, r, ofY));
  addTo(input.valueAdjoint, y, (-ofR * r * r) / n);
}
