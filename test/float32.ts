import { denseOf } from "./fields.js";
import { widthOf, type Network, type Operand } from "../src/model/network.js";
import { activationFunctions, activationKinks } from "../src/model/activation.js";

export interface Run {
  /** [B, d] */
  value: Float64Array;
  /** [B, d], ∂f_i/∂x_i */
  diagonal: Float64Array;
  /** [B] */
  divergence: Float64Array;
}

type Round = (x: number) => number;
const exact: Round = (x) => x;

/**
 * Plain forward mode with every product and every sum rounded to float32, as a GPU without fused multiply-adds would run
 * it; points, context and weights are rounded first, and the diagonal is summed in float64. What it errs by is what any
 * float32 run may err by.
 *
 * @param points [B, d]
 * @param context one vector for all points, or [B, c]; null where there is none
 */
export function float32Run(network: Network, points: ArrayLike<number>, context: ArrayLike<number> | null): Run {
  return run(network, points, context, Math.fround);
}

/** The same in float64: a second opinion beside the reference of the package, which shares no code with it. */
export function float64Run(network: Network, points: ArrayLike<number>, context: ArrayLike<number> | null): Run {
  return run(network, points, context, exact);
}

/**
 * Marks the points with a pre-activation z within margin * (1 + |z|) of a kink: there float32 may fall on the other side
 * and give another derivative, or of a step function another value, equally right.
 */
export function nearKink(network: Network, points: ArrayLike<number>, context: ArrayLike<number> | null, margin = 1e-4): boolean[] {
  return eachPoint(network, points, context).map((inputs) => {
    const columns = forward(network, inputs.state, inputs.context, 0, exact);
    return network.operations.some((operation) => {
      if (operation.kind !== "activation") return false;
      const isNear = (z: number): boolean =>
        activationKinks(operation.activation, z).some((kink) => Math.abs(z - kink) <= margin * (1 + Math.abs(z)));
      return columns.of(operation.operand).value.some(isNear);
    });
  });
}

function run(network: Network, points: ArrayLike<number>, context: ArrayLike<number> | null, round: Round): Run {
  const d = network.stateSize;
  const inputs = eachPoint(network, points, context);
  const value = new Float64Array(inputs.length * d);
  const diagonal = new Float64Array(inputs.length * d);
  const divergence = new Float64Array(inputs.length);
  inputs.forEach((input, point) => {
    const velocity = forward(network, input.state, input.context, d, round).of(network.operations.length - 1);
    for (let i = 0; i < d; i++) {
      value[point * d + i] = velocity.value[i]!;
      diagonal[point * d + i] = velocity.tangents[i * d + i]!;
      divergence[point]! += velocity.tangents[i * d + i]!;
    }
  });
  return { value, diagonal, divergence };
}

interface Columns {
  /** [width] */
  value: Float64Array;
  /** [width, tangents] */
  tangents: Float64Array;
}

/** One point through the graph, beside the first `count` basis tangents of the state. */
function forward(
  network: Network,
  state: Float64Array,
  context: Float64Array,
  count: number,
  round: Round,
): { of: (operand: Operand) => Columns } {
  const basis = new Float64Array(state.length * count);
  for (let k = 0; k < count; k++) basis[k * count + k] = 1;
  const inputs = {
    state: { value: state.map(round), tangents: basis },
    context: { value: context.map(round), tangents: new Float64Array(context.length * count) },
  };
  const results: Columns[] = [];
  const of = (operand: Operand): Columns => (typeof operand === "number" ? results[operand]! : inputs[operand]);

  for (const operation of network.operations) {
    if (operation.kind === "activation") {
      const input = of(operation.operand);
      const sigma = activationFunctions(operation.activation);
      const value = input.value.map((z) => round(sigma.value(z)));
      const slopes = input.value.map((z) => round(sigma.slope(z)));
      const tangents = input.tangents.map((t, at) => round(slopes[Math.floor(at / count)]! * t));
      results.push({ value, tangents });
      continue;
    }
    if (operation.kind === "product") {
      const [a, b] = operation.operands.map(of) as [Columns, Columns];
      const value = a.value.map((x, i) => round(x * b.value[i]!));
      const tangents = a.tangents.map((t, at) => {
        const i = Math.floor(at / count);
        return round(round(t * b.value[i]!) + round(a.value[i]! * b.tangents[at]!));
      });
      results.push({ value, tangents });
      continue;
    }
    if (operation.kind === "norm") {
      results.push(normalise(of(operation.operand), operation.centered, operation.epsilon, count, round));
      continue;
    }
    const width = widthOf(network, results.length);
    const value = operation.bias ? Float64Array.from(operation.bias, round) : new Float64Array(width);
    const tangents = new Float64Array(width * count);
    for (const { operand, weight: given } of operation.terms) {
      const input = of(operand);
      const weight = denseOf(given);
      for (let row = 0; row < width; row++)
        for (const column of "diagonal" in weight ? [row] : Array(weight.columns).keys()) {
          const w = round("diagonal" in weight ? weight.diagonal[row]! : weight.data[row * weight.columns + column]!);
          value[row] = round(value[row]! + round(w * input.value[column]!));
          for (let k = 0; k < count; k++)
            tangents[row * count + k] = round(tangents[row * count + k]! + round(w * input.tangents[column * count + k]!));
        }
    }
    results.push({ value, tangents });
  }
  return { of };
}

/**
 * y = r (x - μ) with r = 1 / sqrt(mean((x - μ)²) + ε), where μ is the mean of x, or 0 if not centered;
 * dy = r (dx - dμ - y mean(y ∘ dx)).
 */
function normalise({ value: x, tangents }: Columns, centered: boolean, epsilon: number, count: number, round: Round): Columns {
  const mean = (numbers: Float64Array): number => round(numbers.reduce((sum, number) => round(sum + number), 0) / numbers.length);
  const centre = (numbers: Float64Array): Float64Array => {
    const middle = centered ? mean(numbers) : 0;
    return numbers.map((number) => round(number - middle));
  };
  const shifted = centre(x);
  const r = round(1 / Math.sqrt(mean(shifted.map((number) => round(number * number))) + epsilon));
  const y = shifted.map((number) => round(r * number));
  const moved = new Float64Array(tangents.length);
  for (let k = 0; k < count; k++) {
    const dx = x.map((_, i) => tangents[i * count + k]!);
    const slope = mean(dx.map((t, i) => round(y[i]! * t)));
    centre(dx).forEach((t, i) => (moved[i * count + k] = round(r * round(t - round(y[i]! * slope)))));
  }
  return { value: y, tangents: moved };
}

function eachPoint(
  network: Network,
  points: ArrayLike<number>,
  context: ArrayLike<number> | null,
): { state: Float64Array; context: Float64Array }[] {
  const { stateSize: d, contextSize: c } = network;
  const all = Float64Array.from(points);
  const contexts = Float64Array.from(context ?? []);
  return Array.from({ length: all.length / d }, (_, point) => {
    const from = contexts.length === c ? 0 : point * c;
    return { state: all.slice(point * d, (point + 1) * d), context: contexts.slice(from, from + c) };
  });
}
