import { apply, onto, type Numeric } from "./elementwise.js";
import { Groups } from "./groups.js";
import { multiply } from "./patterns.js";
import { countOf, numbersOf, reshaped, type Call, type Constant, type Value } from "./values.js";

export const norms: Readonly<Record<string, (call: Call) => Value>> = {
  LayerNormalization: (call) => {
    if (call.isRead(1) || call.isRead(2)) call.refuse("its mean and deviation are asked for; expected the normalised value alone");
    return normalise(call, true);
  },
  RMSNormalization: (call) => normalise(call, false),
  InstanceNormalization: (call) => normaliseChannels(call, (channels) => channels, false),
  // Opset 18 has a gain for each group, 21 one for each channel.
  GroupNormalization: (call) => normaliseChannels(call, () => call.integer("num_groups", 0), call.opset < 21),
  LpNormalization: (call) => {
    const value = call.value(0);
    if (call.integer("p", 2) !== 2) call.refuse(`its p is ${call.integer("p", 2)}; expected 2`);
    if (value.kind === "constant") return call.refuse("it normalises a constant");
    const axis = call.axis(call.integer("axis", -1), value.shape.length);
    if (value.batch === axis) call.refuseBatch("normalises");
    const groups = new Groups(call, value.shape, new Set([axis]));
    return { ...value, node: call.graph.scaled(groups.normalised(value.node, false, 0), 1 / Math.sqrt(groups.size)) };
  },
  BatchNormalization: (call) => {
    // Files before opset 14 say so by the statistics they ask for.
    if (call.integer("training_mode", 0) !== 0 || call.outputCount > 1) call.refuseBatch("takes the mean and the variance (training mode)");
    const value = call.value(0);
    const given = [1, 2, 3, 4].map((index) => call.value(index));
    const epsilon = call.float("epsilon", 1e-5);
    const channels = value.shape[1] ?? 1;
    if (given.some((numbers) => countOf(numbers) !== channels))
      call.refuse(`its scale, bias, mean or variance has another length than ${channels}, the size of axis 1`);
    const shape = [channels, ...value.shape.slice(2).map(() => 1)];
    if (given.some(({ kind }) => kind === "feature")) {
      const [gain, shift, mean, variance] = given.map((numbers) =>
        reshaped(numbers, shape, numbers.kind === "feature" ? numbers.batch : null),
      ) as [Numeric, Numeric, Numeric, Numeric];
      return normaliseBy(call, value, { gain, shift, mean, variance, epsilon });
    }
    if (value.kind === "feature" && (value.batch === 1 || value.shape.length < 2)) call.refuseBatch("normalises");
    const [gain, shift, mean, variance] = given.map((numbers) => numbersOf(call, numbers as Constant));
    const factors = call.fold(shape, "DOUBLE", (i) => gain![i]! / Math.sqrt(variance![i]! + epsilon));
    const shifts = call.fold(shape, "DOUBLE", (i) => shift![i]! - mean![i]! * factors.data[i]!);
    const scaled = apply(
      call,
      [value, factors],
      (a, b) => a * b,
      (a, b) => call.graph.product(a, b),
    );
    return apply(
      call,
      [scaled, shifts],
      (a, b) => a + b,
      (a, b) => call.graph.sum(a, b),
    );
  },
};

/** (x - mean) / sqrt(variance + ε) ∘ gain + shift, where the file computes the statistics, as TensorFlow does for a LayerNorm. */
function normaliseBy(
  call: Call,
  value: Numeric,
  { gain, shift, mean, variance, epsilon }: Record<"gain" | "shift" | "mean" | "variance", Numeric> & { epsilon: number },
): Value {
  const { graph } = call;
  if (value.kind === "constant") return call.refuse("it normalises a constant");
  const scale = apply(
    call,
    [variance],
    (v) => 1 / Math.sqrt(v + epsilon),
    (v) => graph.activation(graph.scaled(v, 1, epsilon), "power(-0.5)"),
  );
  const centred = onto(
    call,
    value,
    mean,
    () => NaN,
    (a, b) => graph.sum(a, b, -1),
  );
  return withGain(call, withGain(call, centred, scale, null), gain, shift);
}

function normalise(call: Call, centered: boolean): Value {
  const value = call.value(0);
  if (value.kind === "constant") return call.refuse("it normalises a constant");
  const axis = call.axis(call.integer("axis", -1), value.shape.length);
  const axes = value.shape.flatMap((_, at) => (at >= axis ? [at] : []));
  if (value.batch !== null && value.batch >= axis) call.refuseBatch("normalises");
  const result = { ...value, node: new Groups(call, value.shape, new Set(axes)).normalised(value.node, centered, epsilonOf(call)) };
  return withGain(call, result, call.has(1) ? call.value(1) : null, call.has(2) ? call.value(2) : null);
}

function epsilonOf(call: Call): number {
  const epsilon = call.float("epsilon", 1e-5);
  return epsilon >= 0 && epsilon < Infinity ? epsilon : call.refuse(`its epsilon is ${epsilon}; expected a number of at least 0`);
}

/** gain ∘ x + bias */
function withGain(call: Call, x: Numeric, gain: Numeric | null, bias: Numeric | null): Numeric {
  const scaled = gain
    ? onto(
        call,
        x,
        gain,
        () => NaN,
        (a, b) => multiply(call.graph, a, b),
      )
    : x;
  return bias
    ? onto(
        call,
        scaled,
        bias,
        () => NaN,
        (a, b) => call.graph.sum(a, b),
      )
    : scaled;
}

/** Over the channels of each group, [B, C, ...] with C of axis 1, and all that lies behind them. */
function normaliseChannels(call: Call, groupCount: (channels: number) => number, isPerGroup: boolean): Value {
  const value = call.value(0);
  if (value.kind === "constant") return call.refuse("it normalises a constant");
  const channels = value.shape[1] ?? call.refuse(`its input has ${value.shape.length} dimensions; expected at least 2`);
  if (value.batch !== null && value.batch !== 0) call.refuseBatch("normalises");
  const rows = value.shape[0]!;
  const count = groupCount(channels);
  if (!(Number.isInteger(count) && count > 0 && channels % count === 0))
    call.refuse(`it makes ${count} groups of ${channels} channels; expected a number that divides them`);
  const parts = [rows * count, value.node.width / (rows * count)];
  const node = new Groups(call, parts, new Set([1])).normalised(value.node, true, epsilonOf(call));
  const rest = value.shape.slice(2).map(() => 1);
  const ofChannels = (index: number): Constant => {
    const given = call.constant(index);
    const length = isPerGroup ? count : channels;
    if (given.shape.length !== 1 || given.data.length !== length)
      call.refuse(`input ${index} has the shape [${given.shape.join(", ")}]; expected [${length}]`);
    const numbers = numbersOf(call, given);
    return call.fold([channels, ...rest], given.type, (i) => numbers[isPerGroup ? Math.floor((i * count) / channels) : i]!);
  };
  return withGain(call, { ...value, node }, ofChannels(1), ofChannels(2));
}
