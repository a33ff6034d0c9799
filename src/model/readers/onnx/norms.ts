import { apply, onto, type Numeric } from "./elementwise.js";
import { multiply } from "./patterns.js";
import { numbersOf, sizeOf, type Call, type Value } from "./values.js";

export const norms: Readonly<Record<string, (call: Call) => Value>> = {
  LayerNormalization: (call) => {
    if (call.outputCount > 1) call.refuse("its mean and deviation are asked for; expected the normalised value alone");
    return normalise(call, true);
  },
  RMSNormalization: (call) => normalise(call, false),
  BatchNormalization: (call) => {
    // Files before opset 14 say so by the statistics they ask for.
    if (call.integer("training_mode", 0) !== 0 || call.outputCount > 1) call.refuseBatch("takes the mean and the variance (training mode)");
    const value = call.value(0);
    if (value.kind === "feature" && (value.batch === 1 || value.shape.length < 2)) call.refuseBatch("normalises");
    const [gain, shift, mean, variance] = [1, 2, 3, 4].map((index) => numbersOf(call, call.constant(index)));
    const epsilon = call.float("epsilon", 1e-5);
    const channels = value.shape[1] ?? 1;
    if ([gain, shift, mean, variance].some((numbers) => numbers!.length !== channels))
      call.refuse(`its scale, bias, mean or variance has another length than ${channels}, the size of axis 1`);
    const shape = [channels, ...value.shape.slice(2).map(() => 1)];
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

function normalise(call: Call, centered: boolean): Value {
  const value = call.value(0);
  if (value.kind === "constant") return call.refuse("it normalises a constant");
  const axis = call.axis(call.integer("axis", -1), value.shape.length);
  if (value.batch !== null && value.batch >= axis) call.refuseBatch("normalises");
  if (sizeOf(value.shape.slice(0, axis)) !== 1)
    call.refuse(`it normalises parts of the ${value.node.width} elements of a point; expected all of them at once`);
  const epsilon = call.float("epsilon", 1e-5);
  if (!(epsilon >= 0 && epsilon < Infinity)) call.refuse(`its epsilon is ${epsilon}; expected a number of at least 0`);
  let result: Numeric = { ...value, node: call.graph.norm(value.node, centered, epsilon) };
  if (call.has(1))
    result = onto(
      call,
      result,
      call.value(1),
      () => NaN,
      (x, gain) => multiply(call.graph, x, gain),
    );
  if (call.has(2))
    result = onto(
      call,
      result,
      call.value(2),
      () => NaN,
      (x, bias) => call.graph.sum(x, bias),
    );
  return result;
}
