import type { Numbers } from "../../network.js";
import { onto, requireOneType, requireWhole, scale, type Numeric } from "./elementwise.js";
import type { Node } from "./graph.js";
import { transpose } from "./movement.js";
import { feature, numbersOf, sizeOf, type Call, type Constant } from "./values.js";

export function gemm(call: Call): Numeric {
  const side = (index: number, name: string): Numeric => {
    const value = call.value(index);
    if (value.shape.length !== 2) call.refuse(`input ${index} has ${value.shape.length} dimensions; expected 2`);
    return call.integer(name, 0) === 0 ? value : transpose(call, value, [1, 0]);
  };
  const alpha = call.float("alpha", 1);
  const beta = call.float("beta", 1);
  const product = scale(call, matmul(call, side(0, "transA"), side(1, "transB")), alpha);
  if (!call.has(2) || beta === 0) return product;
  return onto(
    call,
    product,
    scale(call, call.value(2), beta),
    (a, b) => a + b,
    (a, b) => call.graph.sum(a, b),
  );
}

export function matmul(call: Call, a: Numeric, b: Numeric): Numeric {
  const [rankA, rankB] = [a.shape.length, b.shape.length];
  requireOneType(call, [a, b]);
  if (rankA === 0 || rankB === 0) call.refuse("an input has no dimensions; expected at least 1");
  if (a.kind === "feature" && b.kind === "feature")
    return call.refuse("it multiplies two tensors that both depend on the inputs, as attention does; expected constant weights");
  const axis = Math.max(rankB - 2, 0);
  const inner = b.shape[axis]!;
  if (a.shape[rankA - 1] !== inner)
    call.refuse(`its inputs have the shapes [${a.shape.join(", ")}] and [${b.shape.join(", ")}], which do not multiply`);

  if (b.kind === "constant") {
    if (rankB > 2) call.refuse(`its weight has ${rankB} dimensions; expected 1 or 2`);
    const columns = rankB === 1 ? 1 : b.shape[1]!;
    const weight = rankB === 1 ? b : (transpose(call, b, [1, 0]) as Constant);
    const shape = [...a.shape.slice(0, -1), ...b.shape.slice(1)];
    const numbers = numbersOf(call, weight);
    if (a.kind === "constant") return multiplyNumbers(call, a, numbers, { shape, inner, columns });
    if (a.batch === rankA - 1) call.refuseBatch("sums");
    return feature(
      shape,
      a.batch,
      contract(call, a.node, numbers, { left: sizeOf(a.shape.slice(0, -1)), inner, right: 1, outputs: columns }),
      a.type,
    );
  }
  if (a.kind !== "constant") return call.refuse("it multiplies two tensors that both depend on the inputs");
  if (rankA > 2) call.refuse(`its weight has ${rankA} dimensions; expected 1 or 2`);
  if (b.batch === axis) call.refuseBatch("sums");
  const outputs = rankA === 1 ? 1 : a.shape[0]!;
  const shape = [...b.shape.slice(0, axis), ...a.shape.slice(0, -1), ...b.shape.slice(axis + 1)];
  const batch = b.batch !== null && b.batch > axis && rankA === 1 ? b.batch - 1 : b.batch;
  return feature(
    shape,
    batch,
    contract(call, b.node, numbersOf(call, a), {
      left: sizeOf(b.shape.slice(0, axis)),
      inner,
      right: sizeOf(b.shape.slice(axis + 1)),
      outputs,
    }),
    b.type,
  );
}

/** The map from elements [left, inner, right] to [left, outputs, right] by a weight [outputs, inner]. */
export function contract(
  call: Call,
  node: Node,
  weight: Numbers,
  { left, inner, right, outputs }: Record<"left" | "inner" | "right" | "outputs", number>,
): Node {
  if (inner === 0 || outputs === 0 || left * right === 0) call.refuse("it has a dimension of 0");
  const rows = left * outputs * right;
  const columns = left * inner * right;
  let data = weight;
  if (left * right > 1) {
    data =
      weight instanceof Float32Array
        ? new Float32Array(call.graph.budget.taken(rows * columns))
        : new Float64Array(call.graph.budget.taken(rows * columns));
    for (let l = 0; l < left; l++)
      for (let m = 0; m < outputs; m++)
        for (let k = 0; k < inner; k++)
          for (let r = 0; r < right; r++)
            data[((l * outputs + m) * right + r) * columns + (l * inner + k) * right + r] = weight[m * inner + k]!;
  }
  return call.graph.mapped(node, { kind: "dense", matrix: { rows, columns, data } });
}

/** a [rows, inner] times the transpose of b [columns, inner]. */
function multiplyNumbers(
  call: Call,
  a: Constant,
  b: Numbers,
  { shape, inner, columns }: { shape: readonly number[]; inner: number; columns: number },
): Constant {
  const numbers = numbersOf(call, a);
  call.graph.budget.take((sizeOf(shape) * inner) / 16);
  const product = call.fold(shape, a.type, (i) => {
    const from = Math.floor(i / columns) * inner;
    const column = (i % columns) * inner;
    let sum = 0;
    for (let k = 0; k < inner; k++) sum += numbers[from + k]! * b[column + k]!;
    return sum;
  });
  return requireWhole(call, product);
}
