import { requireWhole } from "./elementwise.js";
import { isWhole } from "./decode.js";
import { axesOf } from "./movement.js";
import { feature, numbersOf, reshaped, sizeOf, sourcesOf, stridesOf, type Call, type Value } from "./values.js";

export function reduce(call: Call, isMean: boolean): Value {
  const value = call.value(0);
  const rank = value.shape.length;
  const given = axesOf(call, 1);
  if ((given === null || given.length === 0) && call.integer("noop_with_empty_axes", 0) !== 0) return value;
  const axes = new Set(given === null || given.length === 0 ? value.shape.map((_, axis) => axis) : call.axes(given, rank));
  if (value.kind === "feature" && value.batch !== null && axes.has(value.batch)) call.refuseBatch(isMean ? "takes the mean" : "sums");
  const kept = value.shape.map((size, axis) => (axes.has(axis) ? 1 : size));
  const strides = stridesOf(kept);
  const targets = sourcesOf(
    call,
    value.shape.map((size, axis) => {
      call.graph.budget.take(size);
      return Array.from({ length: size }, (_, c) => (axes.has(axis) ? 0 : c * strides[axis]!));
    }),
  );
  const rows = sizeOf(kept);
  const columns = targets.length;
  if (rows === 0 || columns === 0) call.refuse("it has a dimension of 0");
  const factor = isMean ? rows / columns : 1;
  const keepsAxes = call.integer("keepdims", 1) !== 0;
  const shape = keepsAxes ? kept : value.shape.filter((_, axis) => !axes.has(axis));
  if (value.kind === "constant") {
    if (isMean && isWhole(value.type)) call.refuse(`it takes the mean of whole numbers (${value.type}); expected floats`);
    const sums = call.fold(shape, value.type, () => 0);
    numbersOf(call, value).forEach((x, i) => (sums.data[targets[i]!]! += x * factor));
    return requireWhole(call, sums);
  }
  const batch = value.batch === null || keepsAxes ? value.batch : value.batch - [...axes].filter((axis) => axis < value.batch!).length;
  if (rows === columns) return reshaped(value, shape, batch);
  const data = new Float64Array(call.graph.budget.taken(rows * columns));
  targets.forEach((row, column) => (data[row * columns + column] = factor));
  return feature(shape, batch, call.graph.mapped(value.node, { kind: "dense", matrix: { rows, columns, data } }), value.type);
}
