import type { Numbers } from "../../network.js";
import { onto, requireOneType, computed, scale, type Numeric } from "./elementwise.js";
import type { Node } from "./graph.js";
import { dense, type LinearMap } from "./maps.js";
import { transpose } from "./movement.js";
import { multiply } from "./patterns.js";
import {
  alongBatch,
  commonRows,
  feature,
  numbersOf,
  sizeOf,
  sourcesOf,
  stridesOf,
  type Call,
  type Constant,
  type Feature,
} from "./values.js";

/** Factors are selected by matrices: so many numbers of these are taken for a product of two that both move. */
const MOST_SELECTED = 2 ** 23;

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
  if ((a.kind === "feature" && b.kind === "feature") || (a.kind === "constant" ? rankA : rankB) > 2) return matmulOfParts(call, a, b);
  const axis = Math.max(rankB - 2, 0);
  const inner = b.shape[axis]!;
  if (a.shape[rankA - 1] !== inner)
    call.refuse(`its inputs have the shapes [${a.shape.join(", ")}] and [${b.shape.join(", ")}], which do not multiply`);

  if (b.kind === "constant") {
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

/**
 * A convolution that is a dense layer: its kernel takes all positions at once, as MATLAB writes layers of images of one row, or
 * one position at a time, as PyTorch's Conv1d(..., 1) over particles does.
 */
export function conv(call: Call): Numeric {
  const [x, weight] = [call.value(0), call.constant(1)];
  const [positions, kernel] = [x.shape.slice(2), weight.shape.slice(2)];
  const whole = (name: string, otherwise: number): readonly number[] => call.integersOf(name) ?? kernel.map(() => otherwise);
  const isPlain =
    x.kind === "feature" &&
    (x.batch === 0 || (x.batch === null && x.shape[0] === 1)) &&
    kernel.length > 0 &&
    kernel.length === positions.length &&
    weight.shape[1] === x.shape[1] &&
    String(whole("kernel_shape", 0)) === String(call.integersOf("kernel_shape") ? kernel : kernel.map(() => 0)) &&
    call.integer("group", 1) === 1 &&
    ["NOTSET", "VALID"].includes(call.text("auto_pad", "NOTSET")) &&
    [...whole("pads", 0)].every((pad) => pad === 0);
  const isEach = kernel.every((size) => size === 1) && whole("strides", 1).every((step, axis) => step === 1 || positions[axis] === 1);
  const isAll = String(kernel) === String(positions) && whole("dilations", 1).every((step, axis) => step === 1 || kernel[axis] === 1);
  if (!isPlain || !(isEach || isAll))
    return call.refuse(
      "this is a convolution; expected one whose kernel takes all positions at once, or each alone, without padding or groups",
    );
  const [outputs, channels] = weight.shape as [number, number];
  const count = sizeOf(positions);
  const sizes = isEach ? { inner: channels, right: count } : { inner: channels * count, right: 1 };
  const node = contract(call, x.node, numbersOf(call, weight), { left: x.shape[0]!, outputs, ...sizes });
  const result = feature([x.shape[0]!, outputs, ...(isEach ? positions : positions.map(() => 1))], x.batch, node, x.type);
  if (!call.has(2)) return result;
  const bias = call.constant(2);
  if (bias.shape.length !== 1 || bias.shape[0] !== outputs)
    call.refuse(`its bias has the shape [${bias.shape.join(", ")}]; expected [${outputs}]`);
  return onto(
    call,
    result,
    { ...bias, shape: [outputs, ...positions.map(() => 1)] },
    (a, b) => a + b,
    (a, b) => call.graph.sum(a, b),
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
  const rows = outputs * right;
  const columns = inner * right;
  let data = weight;
  if (right > 1) {
    data =
      weight instanceof Float32Array
        ? new Float32Array(call.graph.budget.taken(rows * columns))
        : new Float64Array(call.graph.budget.taken(rows * columns));
    for (let m = 0; m < outputs; m++)
      for (let k = 0; k < inner; k++)
        for (let r = 0; r < right; r++) data[(m * right + r) * columns + k * right + r] = weight[m * inner + k]!;
  }
  return call.graph.mapped(node, dense({ rows, columns, data }, left));
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
  return computed(call, product);
}

/** A product whose leading axes count products of matrices, as numpy.matmul's: the labels of einsum say which axis is which. */
function matmulOfParts(call: Call, a: Numeric, b: Numeric): Numeric {
  const [rankA, rankB] = [a.shape.length, b.shape.length];
  const leading = (rank: number): string[] => Array.from({ length: Math.max(0, rank - 2) }, (_, axis) => String(rank - 2 - axis));
  const [rows, columns] = [rankA > 1 ? ["row"] : [], rankB > 1 ? ["column"] : []];
  const lead = leading(Math.max(rankA, rankB));
  return contraction(
    call,
    [
      { value: a, labels: [...leading(rankA), ...rows, "inner"] },
      { value: b, labels: [...leading(rankB), "inner", ...columns] },
    ],
    [...lead, ...rows, ...columns],
  );
}

/** Of one or two tensors, as numpy.einsum has it: "bi,oi->bo" is a dense layer. */
export function einsum(call: Call): Numeric {
  const equation = call.text("equation", "").replaceAll(/\s/g, "");
  const values = call.inputs.map((_, i) => call.value(i));
  const [inputs = "", given] = equation.split("->");
  const terms = inputs.split(",");
  if (!/^[a-zA-Z.]*(,[a-zA-Z.]*)*(->[a-zA-Z.]*)?$/.test(equation) || terms.length !== values.length)
    call.refuse(`its equation is "${equation}" for ${values.length} inputs; expected letters for the axes of each, as in "bi,oi->bo"`);
  if (values.length > 2) call.refuse(`it multiplies ${values.length} tensors; expected one or two`);
  const spare = values.map((value, i) => value.shape.length - terms[i]!.replace("...", "").length);
  const dots = (rank: number): string[] => Array.from({ length: rank }, (_, axis) => `.${rank - axis}`);
  const split = (term: string, ellipsis: number): string[] => {
    const [before = "", after = ""] = term.split("...");
    return [...before.split(""), ...(term.includes("...") ? dots(ellipsis) : []), ...after.split("")];
  };
  const factors = values.map((value, i): Factor => {
    const labels = split(terms[i]!, spare[i]!);
    if (labels.length !== value.shape.length || labels.includes("."))
      call.refuse(`its equation is "${equation}", and input ${i} has ${value.shape.length} dimensions; expected a letter for each`);
    return { value, labels };
  });
  const all = factors.flatMap(({ labels }) => labels);
  const ellipsis = Math.max(0, ...spare.map((rank, i) => (terms[i]!.includes("...") ? rank : 0)));
  // Without an arrow: what stands once, in the order of the alphabet.
  const once = all.filter((label, i) => !label.startsWith(".") && all.indexOf(label) === i && all.lastIndexOf(label) === i).sort();
  const out = given === undefined ? [...dots(ellipsis), ...once] : split(given, ellipsis);
  if (new Set(out).size !== out.length || !out.every((label) => all.includes(label)))
    call.refuse(`its equation is "${equation}"; expected each letter of the result once, and among those of its inputs`);
  return contraction(call, factors, out);
}

/** A tensor, and a label for each of its axes. */
interface Factor {
  readonly value: Numeric;
  readonly labels: readonly string[];
}

/**
 * The product of all factors at each choice of the labels, summed over those that are not in the result. A label of 1 element
 * in one factor is repeated to the other's. With one factor that moves it is a matrix; two are multiplied element by element.
 */
function contraction(call: Call, given: readonly Factor[], out: readonly string[]): Numeric {
  requireOneType(
    call,
    given.map(({ value }) => value),
  );
  const batches = new Set(
    given.flatMap(({ value, labels }) => (value.kind === "feature" && value.batch !== null ? [labels[value.batch]!] : [])),
  );
  const [batch = null] = batches;
  if (batches.size > 1 || given.some(({ labels }) => batch !== null && labels.filter((label) => label === batch).length > 1))
    call.refuse("its inputs have the batch on different axes, which couples the points of a batch");
  if (batch !== null && !out.includes(batch)) call.refuseBatch("sums");
  const rowCount = commonRows(
    call,
    given.map(({ value }) => value),
  );
  const factors = given.map(({ value, labels }) => ({
    labels,
    value: batch !== null && labels.includes(batch) ? alongBatch(call, value, labels.indexOf(batch), rowCount) : value,
  }));

  const sizes = new Map<string, number>();
  for (const { value, labels } of factors)
    labels.forEach((label, axis) => {
      const [size, before] = [value.shape[axis]!, sizes.get(label) ?? 1];
      if (size !== before && size !== 1 && before !== 1)
        call.refuse(`its inputs have ${before} and ${size} elements along an axis that is one; expected as many`);
      sizes.set(label, Math.max(size, before));
      if (size === 0) call.refuse("it has a dimension of 0");
    });
  const summed = [...sizes.keys()].filter((label) => !out.includes(label));
  const shape = out.map((label) => sizes.get(label)!);
  const [rows, terms] = [sizeOf(shape), sizeOf(summed.map((label) => sizes.get(label)!))];
  // The elements of each factor at each choice of labels, those that are summed running fastest.
  const elements = factors.map(({ value, labels }) => {
    const strides = stridesOf(value.shape);
    return sourcesOf(
      call,
      [...out, ...summed].map((label) => {
        const stride = labels.reduce((sum, own, axis) => sum + (own === label && value.shape[axis] !== 1 ? strides[axis]! : 0), 0);
        return Array.from({ length: call.graph.budget.taken(sizes.get(label)!) }, (_, c) => c * stride);
      }),
    );
  });
  const { type } = factors.find(({ value }) => value.kind === "feature")?.value ?? factors[0]!.value;
  const features = factors.flatMap(({ value }) => (value.kind === "feature" ? [value] : []));
  const place = batch === null ? null : out.indexOf(batch);
  const constants = factors.flatMap(({ value }, i) =>
    value.kind === "constant" ? [{ numbers: numbersOf(call, value), at: elements[i]! }] : [],
  );
  const factorAt = (choice: number): number => constants.reduce((product, { numbers, at }) => product * numbers[at[choice]!]!, 1);

  if (features.length === 0) {
    const sums = call.fold(shape, type, () => 0);
    for (let choice = 0; choice < rows * terms; choice++) sums.data[Math.floor(choice / terms)]! += factorAt(choice);
    return computed(call, sums);
  }
  const [first, second] = features as [Feature, Feature?];
  if (second) {
    const products = rows * terms;
    // A factor that is read as it stands needs no selection.
    const selected = [first, second].map(({ node }, i) =>
      node.width === products && elements[i]!.every((element, at) => element === at) ? 0 : node.width,
    );
    if (products * (selected[0]! + selected[1]!) > MOST_SELECTED)
      call.refuse(
        `it sums ${products} products of two tensors that both depend on the inputs; it could be read, but the field is too general to be written out at this size: expected fewer or narrower parts`,
      );
    const [a, b] = [first, second].map(({ node }, i) =>
      call.graph.mapped(node, { kind: "pick", columns: node.width, indices: elements[i]!, factors: null }),
    );
    const product = multiply(call.graph, a!, b!);
    return feature(shape, place, terms === 1 ? product : call.graph.mapped(product, summing(call, rows, terms)), type);
  }
  const index = factors.findIndex(({ value }) => value === first);
  // Leading axes that no constant has are parts, all with one matrix.
  const isPart = (label: string, axis: number): boolean =>
    factors[index]!.labels[axis] === label &&
    first.shape[axis] === sizes.get(label) &&
    factors[index]!.labels.lastIndexOf(label) === axis &&
    factors.every(({ value, labels }) => value === first || !labels.includes(label));
  const split = out.findIndex((label, axis) => !isPart(label, axis));
  const times = sizeOf(shape.slice(0, split < 0 ? shape.length : split));
  const [height, columns] = [rows / times, first.node.width / times];
  const data = new Float64Array(call.graph.budget.taken(height * columns));
  for (let choice = 0; choice < height * terms; choice++)
    data[Math.floor(choice / terms) * columns + elements[index]![choice]!]! += factorAt(choice);
  return feature(shape, place, call.graph.mapped(first.node, dense({ rows: height, columns, data }, times)), type);
}

/** Σ of each run of as many elements. */
function summing(call: Call, rows: number, terms: number): LinearMap {
  const data = new Float32Array(call.graph.budget.taken(terms)).fill(1);
  return dense({ rows: 1, columns: terms, data }, rows);
}
