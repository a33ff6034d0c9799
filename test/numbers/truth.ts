import { evaluateReference, type Activation, type Network, type NormOperation, type Operand } from "deldot";
import { denseOf } from "../fields.js";
import type { Draw } from "./draw.js";

/** What float64 gives at each point, and what float32 may err by. */
export interface Truth {
  /** [B, d] */
  readonly value: Float64Array;
  /** [B, d, d] */
  readonly jacobian: Float64Array;
  readonly valueAllowance: Float64Array;
  readonly jacobianAllowance: Float64Array;
  /** [B, d] */
  readonly diagonalAllowance: Float64Array;
  /** [B] */
  readonly divergenceAllowance: Float64Array;
  /**
   * Whether a point is fit for a comparison: no pre-activation is so near a kink or a jump that float32 may fall on its other
   * side, numbers are of moderate size, and the allowances are small beside them, so that no wrong result is within.
   */
  readonly fit: readonly boolean[];
}

/** Of float32 and of float16: half the distance of 1 to the next number. */
const ROUNDING = 2 ** -24;
const HALF_ROUNDING = 2 ** -12;
/** The package's own functions err by up to 5e-7; most by less. */
const FUNCTION_ERROR = 3e-7;
/** Runs with errors of their own at every operation. */
const SAMPLES = 4;
/** Times what the worst of the samples errs by. */
const SAFETY = 8;
/** Rounded weights err all by as much as they may, where most roundings in float32 err by less. */
const HALF_SAFETY = 12;
/** A pre-activation within this times 1 + |z| of a kink, and what it errs by beside, may fall on its other side. */
const KINK_MARGIN = 1e-4;
const LARGEST = 1e4;
/** An allowance over this part of the numbers says nothing of them. */
const LOOSEST = 1e-3;
const LOOSEST_IN_HALF = 0.1;

/** One operation's result: numbers [B, width, 1 + SAMPLES, 1 + d], of every unit the exact channels first, then errors. */
interface Channels {
  readonly width: number;
  readonly data: Float64Array;
}

/**
 * Forward mode in float64 with first-order errors beside it: each of a few samples has at every operation a random error of
 * the size that float32 rounds the terms of its sum by, and carries it on. So the allowance of a result is relative to the
 * magnitudes on the way to it, of sums that cancel and of norms of large numbers too.
 *
 * @param points [B, d]
 * @param context [B, c] or one vector for all; null where there is none.
 */
export function truthOf(network: Network, points: Float32Array, context: Float32Array | null, draw: Draw, half: boolean): Truth {
  const d = network.stateSize;
  const count = points.length / d;
  const channels = 1 + d;
  const unit = channels * (1 + SAMPLES);
  const fit = Array.from({ length: count }, () => true);

  const empty = (width: number): Channels => ({ width, data: new Float64Array(count * width * unit) });
  const state = empty(d);
  points.forEach((x, at) => {
    state.data[at * unit] = x;
    state.data[at * unit + 1 + (at % d)] = 1;
  });
  const given = empty(network.contextSize);
  for (let at = 0; at < count * network.contextSize; at++) given.data[at * unit] = context![at % context!.length]!;

  const results: Channels[] = [];
  const of = (operand: Operand): Channels => (operand === "state" ? state : operand === "context" ? given : results[operand]!);
  /** Adds an error of a size to a channel of every sample. */
  const disturb = (data: Float64Array, from: number, channel: number, size: number): void => {
    for (let sample = 1; sample <= SAMPLES; sample++) data[from + sample * channels + channel]! += size * draw.between(-1, 1);
  };

  for (const operation of network.operations) {
    if (operation.kind === "linear") {
      const terms = operation.terms.map(({ operand, weight }) => ({ operand, weight: denseOf(weight) }));
      const [first] = terms;
      const width =
        first === undefined ? operation.bias!.length : "diagonal" in first.weight ? first.weight.diagonal.length : first.weight.rows;
      const result = empty(width);
      const sums = new Float64Array(channels);
      const squares = new Float64Array(channels);
      for (let point = 0; point < count; point++)
        for (let row = 0; row < width; row++) {
          const to = (point * width + row) * unit;
          sums.fill(0);
          squares.fill(0);
          if (operation.bias) {
            const bias = operation.bias[row]!;
            result.data[to] = bias;
            sums[0] = Math.abs(bias);
            // Fused kernels round it as they round weights.
            squares[0] = bias * bias;
          }
          for (const { operand, weight } of terms) {
            const input = of(operand);
            const isDiagonal = "diagonal" in weight;
            const [begin, end] = isDiagonal ? [row, row + 1] : [0, weight.columns];
            for (let column = begin; column < end; column++) {
              const w = isDiagonal ? weight.diagonal[row]! : weight.data[row * weight.columns + column]!;
              const from = (point * input.width + column) * unit;
              for (let c = 0; c < unit; c++) result.data[to + c]! += w * input.data[from + c]!;
              for (let c = 0; c < channels; c++) {
                const term = Math.abs(w * input.data[from + c]!);
                sums[c]! += term;
                squares[c]! += term * term;
              }
            }
          }
          for (let c = 0; c < channels; c++)
            disturb(result.data, to, c, ROUNDING * sums[c]! + (half ? 2 * HALF_ROUNDING * Math.sqrt(squares[c]!) : 0));
        }
      results.push(result);
    } else if (operation.kind === "activation") {
      const input = of(operation.operand);
      const result = empty(input.width);
      const z = Float64Array.from({ length: count * input.width }, (_, at) => input.data[at * unit]!);
      // What z errs by, to be sure of the side of a kink that it is on.
      const margin = z.map((x, at) => {
        let worst = 0;
        for (let sample = 1; sample <= SAMPLES; sample++) worst = Math.max(worst, Math.abs(input.data[at * unit + sample * channels]!));
        return KINK_MARGIN * (1 + Math.abs(x)) + SAFETY * worst;
      });
      const { value, slope, curvature, kinked } = curveOf(operation.activation, z, margin);
      for (let at = 0; at < z.length; at++) {
        const to = at * unit;
        if (kinked[at]) fit[Math.floor(at / input.width)] = false;
        result.data[to] = value[at]!;
        for (let c = 1; c < channels; c++) result.data[to + c] = slope[at]! * input.data[to + c]!;
        const slopeError = FUNCTION_ERROR + 8 * ROUNDING * Math.abs(slope[at]!);
        for (let sample = 1; sample <= SAMPLES; sample++) {
          const from = to + sample * channels;
          const moved = curvature[at]! * input.data[from]! + slopeError * draw.between(-1, 1);
          result.data[from] = slope[at]! * input.data[from]!;
          for (let c = 1; c < channels; c++) result.data[from + c] = slope[at]! * input.data[from + c]! + moved * input.data[to + c]!;
        }
        disturb(result.data, to, 0, FUNCTION_ERROR + 8 * ROUNDING * Math.abs(value[at]!));
        for (let c = 1; c < channels; c++) disturb(result.data, to, c, ROUNDING * Math.abs(result.data[to + c]!));
      }
      results.push(result);
    } else if (operation.kind === "product") {
      const [a, b] = operation.operands.map(of) as [Channels, Channels];
      const result = empty(a.width);
      for (let to = 0; to < result.data.length; to += unit) {
        const [x, y] = [a.data[to]!, b.data[to]!];
        result.data[to] = x * y;
        for (let c = 1; c < channels; c++) result.data[to + c] = a.data[to + c]! * y + x * b.data[to + c]!;
        for (let from = to + channels; from < to + unit; from += channels) {
          const [dx, dy] = [a.data[from]!, b.data[from]!];
          result.data[from] = dx * y + x * dy;
          for (let c = 1; c < channels; c++)
            result.data[from + c] = a.data[from + c]! * y + a.data[to + c]! * dy + dx * b.data[to + c]! + x * b.data[from + c]!;
        }
        disturb(result.data, to, 0, ROUNDING * Math.abs(x * y));
        for (let c = 1; c < channels; c++)
          disturb(result.data, to, c, ROUNDING * (Math.abs(a.data[to + c]! * y) + Math.abs(x * b.data[to + c]!)));
      }
      results.push(result);
    } else {
      const input = of(operation.operand);
      const result = empty(input.width);
      for (let point = 0; point < count; point++) {
        const from = point * input.width * unit;
        const exact = normOf(input, from, unit, channels, 0, operation, () => 0);
        for (let i = 0; i < input.width; i++)
          for (let c = 0; c < channels; c++) result.data[from + i * unit + c] = exact[i * channels + c]!;
        for (let sample = 1; sample <= SAMPLES; sample++) {
          const moved = normOf(input, from, unit, channels, sample, operation, () => ROUNDING * draw.between(-1, 1));
          for (let i = 0; i < input.width; i++)
            for (let c = 0; c < channels; c++)
              result.data[from + i * unit + sample * channels + c] = moved[i * channels + c]! - exact[i * channels + c]!;
        }
        for (let c = 0; c < channels; c++) {
          let largest = 0;
          for (let i = 0; i < input.width; i++) largest = Math.max(largest, Math.abs(exact[i * channels + c]!));
          for (let i = 0; i < input.width; i++) disturb(result.data, from + i * unit, c, 4 * ROUNDING * largest);
        }
      }
      results.push(result);
    }
    const { width, data } = results.at(-1)!;
    for (let at = 0; at < count * width; at++) if (!(Math.abs(data[at * unit]!) < LARGEST)) fit[Math.floor(at / width)] = false;
  }
  return allowancesOf(results.at(-1)!, d, fit, half);
}

interface Curve {
  readonly value: Float64Array;
  readonly slope: Float64Array;
}

/** σ, σ' and σ'' at every z, and whether σ or σ' jumps within a margin: then its difference does not halve with its step. */
function curveOf(activation: Activation, z: Float64Array, margin: Float64Array): Curve & { curvature: Float64Array; kinked: boolean[] } {
  const network: Network = { stateSize: 1, contextSize: 0, operations: [{ kind: "activation", operand: "state", activation }] };
  const curveAt = (part: number): Curve => {
    const moved = z.map((x, at) => x + part * margin[at]!);
    const { value, divergence } = evaluateReference(network, moved, { method: "tangent", outputs: ["value", "divergence"] });
    return { value: value!, slope: divergence! };
  };
  const [left, nearLeft, here, nearRight, right] = [-1, -0.5, 0, 0.5, 1].map(curveAt) as [Curve, Curve, Curve, Curve, Curve];
  const jumps = (of: "value" | "slope", at: number): boolean => {
    const jump = Math.abs(right[of][at]! - left[of][at]! - 2 * (nearRight[of][at]! - nearLeft[of][at]!));
    return !(jump <= 1e-4 * (1 + Math.abs(here[of][at]!)));
  };
  return {
    ...here,
    curvature: z.map((_, at) => (right.slope[at]! - left.slope[at]!) / (2 * margin[at]!)),
    // Two jumps of a step function within a wide margin could hide each other.
    kinked: Array.from(z, (_, at) => margin[at]! > 0.25 || jumps("value", at) || jumps("slope", at)),
  };
}

/**
 * A norm and its tangents for the numbers, or for numbers and tangents moved by the errors of a sample: [width, 1 + d]. The
 * mean is taken off first, so that what is rounded then is as large as the numbers were.
 */
function normOf(
  { width, data }: Channels,
  from: number,
  unit: number,
  channels: number,
  sample: number,
  { centered, epsilon }: NormOperation,
  rounding: () => number,
): Float64Array {
  const y = new Float64Array(width * channels);
  const meanOf = (c: number, factor: (i: number) => number): number => {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += factor(i) * y[i * channels + c]!;
    return sum / width;
  };
  for (let c = 0; c < channels; c++) {
    let largest = 0;
    for (let i = 0; i < width; i++) {
      const at = from + i * unit + c;
      y[i * channels + c] = data[at]! + (sample > 0 ? data[at + sample * channels]! : 0);
      largest = Math.max(largest, Math.abs(data[at]!));
    }
    const mean = centered ? meanOf(c, () => 1) : 0;
    for (let i = 0; i < width; i++) y[i * channels + c]! += 2 * rounding() * largest - mean;
  }
  const r = (1 + 4 * rounding()) / Math.sqrt(meanOf(0, (i) => y[i * channels]!) + epsilon);
  for (let i = 0; i < width; i++) y[i * channels]! *= r;
  for (let c = 1; c < channels; c++) {
    const along = meanOf(c, (i) => y[i * channels]!);
    for (let i = 0; i < width; i++) y[i * channels + c] = r * (y[i * channels + c]! - y[i * channels]! * along);
  }
  return y;
}

/** The size of a sum of |numbers| below which float32's absolute errors count, and not the relative ones. */
const SMALL = 0.1;

function allowancesOf({ data }: Channels, d: number, fit: boolean[], half: boolean): Truth {
  const count = fit.length;
  const channels = 1 + d;
  /** One channel of one component: 0 is f, 1 + k is ∂f/∂x_k; of the samples, their errors. */
  const numberAt = (at: number, channel: number, sample = 0): number => data[(at * (1 + SAMPLES) + sample) * channels + channel]!;
  const worst = (error: (sample: number) => number): number =>
    Math.max(...Array.from({ length: SAMPLES }, (_, sample) => Math.abs(error(sample + 1))));
  /** Σ of the diagonal's numbers or errors. */
  const trace = (point: number, of: (number: number) => number, sample = 0): number => {
    let sum = 0;
    for (let i = 0; i < d; i++) sum += of(numberAt(point * d + i, 1 + i, sample));
    return sum;
  };
  const value = Float64Array.from({ length: count * d }, (_, at) => numberAt(at, 0));
  const jacobian = Float64Array.from({ length: count * d * d }, (_, at) => numberAt(Math.floor(at / d), 1 + (at % d)));
  const valueErrors = usual(
    value.map((_, at) => worst((sample) => numberAt(at, 0, sample))),
    d,
  );
  const entryErrors = usual(
    jacobian.map((_, at) => worst((sample) => numberAt(Math.floor(at / d), 1 + (at % d), sample))),
    d * d,
  );
  const traceErrors = usual(
    new Float64Array(count).map((_, point) => worst((sample) => trace(point, (error) => error, sample))),
    1,
  );
  const largestValue = largestOf(value, d);
  const largestEntry = largestOf(jacobian, d * d);
  const diagonalSum = new Float64Array(count).map((_, point) => trace(point, Math.abs));

  const safety = half ? HALF_SAFETY : SAFETY;
  const valueAllowance = valueErrors.map((error, at) => 1e-5 * largestValue[Math.floor(at / d)]! + safety * error + 1e-7);
  const jacobianAllowance = entryErrors.map((error, at) => 1e-5 * largestEntry[Math.floor(at / (d * d))]! + safety * error + 1e-7);
  const diagonalAllowance = value.map((_, at) => 2e-5 * diagonalSum[Math.floor(at / d)]! + safety * entryErrors[at * d + (at % d)]! + 1e-7);
  const divergenceAllowance = diagonalSum.map((sum, point) => {
    let squares = 0;
    for (let i = 0; i < d; i++) squares += entryErrors[(point * d + i) * d + i]! ** 2;
    return 2e-5 * sum + safety * Math.max(traceErrors[point]!, 0.3 * Math.sqrt(squares)) + 1e-7;
  });
  for (let point = 0; point < count; point++) {
    const isTight = (allowances: Float64Array, width: number, size: number): boolean =>
      allowances
        .subarray(point * width, (point + 1) * width)
        .every((allowance) => allowance <= (half ? LOOSEST_IN_HALF : LOOSEST) * Math.max(size, SMALL));
    fit[point] &&=
      Math.max(largestEntry[point]!, largestValue[point]!) < LARGEST &&
      isTight(divergenceAllowance, 1, diagonalSum[point]!) &&
      isTight(valueAllowance, d, largestValue[point]!) &&
      isTight(jacobianAllowance, d * d, largestEntry[point]!);
  }
  return { value, jacobian, valueAllowance, jacobianAllowance, diagonalAllowance, divergenceAllowance, fit };
}

/**
 * Errors of rows of numbers; where all samples of a number happen to be small, its row and the other points still say how
 * large they are.
 */
function usual(errors: Float64Array, width: number): Float64Array {
  const sizes = new Float64Array(errors.length / width);
  for (let row = 0; row < sizes.length; row++)
    sizes[row] = Math.hypot(...errors.subarray(row * width, (row + 1) * width)) / Math.sqrt(width);
  const median = sizes.toSorted()[Math.floor(sizes.length / 2)] ?? 0;
  return errors.map((error, at) => Math.max(error, 0.3 * sizes[Math.floor(at / width)]!, 0.3 * median));
}

function largestOf(numbers: Float64Array, width: number): Float64Array {
  const largest = new Float64Array(numbers.length / width);
  numbers.forEach((x, at) => {
    const row = Math.floor(at / width);
    largest[row] = Math.max(largest[row]!, Math.abs(x));
  });
  return largest;
}
