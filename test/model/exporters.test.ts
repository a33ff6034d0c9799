import { describe, expect, it } from "vitest";
import { evaluateReference } from "../../src/cpu/reference.js";
import { parseOnnx, type OnnxOptions } from "../../src/model/readers/onnx.js";
import { expectClose } from "../close.js";
import { normal } from "../fields.js";
import { onnxFile, type OnnxCall, type OnnxFile, type OnnxTensor } from "../onnx.js";
import { random } from "../random.js";

/** A graph in the form that an exporter gives a field, and the field. */
interface Exported extends Omit<OnnxFile, "outputs" | "initializers"> {
  initializers?: Record<string, OnnxTensor>;
  /** "v" where left out. */
  outputs?: OnnxFile["outputs"];
  f: (x: number[], t: number[]) => number[];
  /** Of the state and of the context. */
  sizes: readonly [number, number];
  options?: OnnxOptions;
}

function weight(seed: number, ...shape: number[]): OnnxTensor {
  const uniform = random(seed);
  const count = shape.reduce((product, size) => product * size, 1);
  return { shape, data: Array.from({ length: count }, () => Math.fround(0.7 * normal(uniform))) };
}

const whole = (...data: number[]): OnnxTensor => ({ shape: [data.length], type: 7, data });
const int32 = (...data: number[]): OnnxTensor => ({ shape: [data.length], type: 6, data });
const index = (value: number): OnnxTensor => ({ shape: [], type: 7, data: [value] });
const float = (value: number): OnnxTensor => ({ shape: [], data: [value] });

/** x [inputs] times w [inputs, outputs], plus b. */
function dense(x: readonly number[], w: OnnxTensor, b?: OnnxTensor): number[] {
  const outputs = Number(w.shape[1]);
  return Array.from({ length: outputs }, (_, j) => x.reduce((sum, v, i) => sum + v * w.data![i * outputs + j]!, b?.data![j] ?? 0));
}

/** w [outputs, inputs] as [inputs, outputs]. */
function transposed({ shape, data }: OnnxTensor): OnnxTensor {
  const [rows, columns] = shape.map(Number) as [number, number];
  return {
    shape: [columns, rows],
    data: Array.from({ length: rows * columns }, (_, i) => data![(i % rows) * columns + Math.floor(i / rows)]!),
  };
}

/** The field of each particle, [N, size]. */
const particles = (x: number[], size: number): number[][] =>
  Array.from({ length: x.length / size }, (_, n) => x.slice(n * size, (n + 1) * size));
const mean = (x: readonly number[]): number => x.reduce((sum, v) => sum + v, 0) / x.length;
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const silu = (x: number): number => x * sigmoid(x);
const relu = (x: number): number => Math.max(x, 0);
const softplus = (x: number): number => Math.log1p(Math.exp(x));
const plus = (x: readonly number[], y: readonly number[]): number[] => x.map((v, i) => v + y[i]!);
const epsilon = 2 ** -10;
const normalised = (x: readonly number[]): number[] =>
  x.map((v) => (v - mean(x)) / Math.sqrt(mean(x.map((other) => (other - mean(x)) ** 2)) + epsilon));
const affine = (x: readonly number[], gain: OnnxTensor, shift: OnnxTensor): number[] =>
  x.map((v, i) => v * gain.data![i]! + shift.data![i]!);
const grouped = (x: readonly number[], count: number): number[] => particles([...x], x.length / count).flatMap(normalised);
const erf = (x: number): number => {
  let sum = 0;
  for (let n = 0, term = x; n < 80; n++, term *= (-x * x) / n) sum += term / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * sum;
};

const [w43, b3, w38, b8, w83] = [weight(1, 4, 3), weight(2, 3), weight(3, 3, 8), weight(4, 8), weight(5, 8, 3)];
const [gain, shift] = [weight(6, 8), weight(7, 8)];
const w48 = weight(8, 4, 8);
const hidden = { w: w38, b: b8, u: w83, c: b3 };

/** x -> h by a dense layer [3] -> [8], and n -> v by another back. */
const layers = (...between: OnnxCall[]): OnnxCall[] => [
  ["MatMul", ["x", "w"], ["xw"]],
  ["Add", ["xw", "b"], ["h"]],
  ...between,
  ["MatMul", ["n", "u"], ["nu"]],
  ["Add", ["nu", "c"], ["v"]],
];
const hiddenField =
  (inner: (h: number[]) => number[]): Exported["f"] =>
  (x) =>
    dense(inner(dense(x, w38, b8)), w83, b3);

/** tf.shape(of), in INT32 as TensorFlow has it; tf2onnx/onnx_opset/tensor.py, Shape. */
const tfShape = (of: string, to: string): OnnxCall[] => [
  ["Shape", [of], [`${to}__64`]],
  ["Cast", [`${to}__64`], [to], { to: 6 }],
];
/** shape[axis], a scalar; the StridedSlice of tf2onnx. */
const tfSize = (shape: string, axis: number, to: string): OnnxCall[] => [
  ["Slice", [shape, `at${axis}`, `at${axis + 1}`, "at0"], [`${to}__1`]],
  ["Squeeze", [`${to}__1`, "at0"], [to]],
];
/** tf.stack of scalars, cast for Reshape and Expand; tf2onnx/onnx_opset/tensor.py, Pack. */
const tfStack = (sizes: readonly string[], to: string): OnnxCall[] => [
  ...sizes.map((size): OnnxCall => ["Unsqueeze", [size, "at0"], [`${to}/${size}`]]),
  ["Concat", sizes.map((size) => `${to}/${size}`), [`${to}__32`], { axis: 0 }],
  ["Cast", [`${to}__32`], [to], { to: 7 }],
];
const tfPlaces = { at0: whole(0), at1: whole(1), at2: whole(2), at3: whole(3) };

/** A Dense layer of a [batch, N, F], which Keras writes as tf.tensordot (keras/src/backend/tensorflow/numpy.py, matmul). */
const tensordot = (x: string, w: string, b: string, to: string): OnnxCall[] => [
  ...tfShape(x, `${to}/Shape`),
  ["Gather", [`${to}/Shape`, "free"], [`${to}/GatherV2`], { axis: 0 }],
  ["Gather", [`${to}/Shape`, "contracted"], [`${to}/GatherV2_1`], { axis: 0 }],
  ["ReduceProd", [`${to}/GatherV2`], [`${to}/Prod`], { axes: [0], keepdims: 0 }],
  ["ReduceProd", [`${to}/GatherV2_1`], [`${to}/Prod_1`], { axes: [0], keepdims: 0 }],
  ...tfStack([`${to}/Prod`, `${to}/Prod_1`], `${to}/stack`),
  ["Reshape", [x, `${to}/stack`], [`${to}/Reshape`]],
  ["MatMul", [`${to}/Reshape`, w], [`${to}/MatMul`]],
  ["Concat", [`${to}/GatherV2`, `${w}/outputs`], [`${to}/concat_1`], { axis: 0 }],
  ["Cast", [`${to}/concat_1`], [`${to}/concat_1__64`], { to: 7 }],
  ["Reshape", [`${to}/MatMul`, `${to}/concat_1__64`], [`${to}/Tensordot`]],
  ["Add", [`${to}/Tensordot`, b], [to]],
];

/**
 * LayerNormalization of tf.keras 2 as tf2onnx has it: FusedBatchNormV3 in training mode of an image whose channels are the
 * points (tf2onnx/onnx_opset/nn.py, BatchNorm). `rows` is how many sizes of the shape are points.
 */
const fusedLayerNorm = (x: string, rows: number, rank: number, to: string): OnnxCall[] => {
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  const product = (of: readonly number[], name: string): OnnxCall[] =>
    of.map((axis, i): OnnxCall => [
      "Mul",
      [i === 0 ? "one32" : `${name}${i - 1}`, `s${axis}`],
      [i === of.length - 1 ? name : `${name}${i}`],
    ]);
  return [
    ...tfShape(x, "shape"),
    ...axes.flatMap((axis) => tfSize("shape", axis, `s${axis}`)),
    ...product(axes.slice(0, rows), "pre"),
    ...product(axes.slice(rows), "in"),
    ...tfStack(["one32", "pre", "in", "last32"], "squeezed"),
    ["Reshape", [x, "squeezed"], ["image"]],
    ...tfStack(["pre"], "channels"),
    ["Expand", ["one", "channels"], ["ones"]],
    ["Expand", ["zero", "channels"], ["zeros"]],
    ["ReduceMean", ["image"], ["avg"], { axes: [0, 2, 3], keepdims: 1 }],
    ["Squeeze", ["avg", "023"], ["avg_squeezed"]],
    ["Sub", ["image", "avg"], ["sub"]],
    ["ReduceSumSquare", ["sub"], ["var_squeezed"], { axes: [0, 2, 3], keepdims: 0 }],
    ["Shape", ["image"], ["inp_shape"]],
    ["Gather", ["inp_shape", "023"], ["reduce_dims"]],
    ["ReduceProd", ["reduce_dims"], ["dims_product"], { axes: [0], keepdims: 0 }],
    ["Cast", ["dims_product"], ["cnt_float"], { to: 1 }],
    ["Div", ["var_squeezed", "cnt_float"], ["pop_var"]],
    ["BatchNormalization", ["image", "ones", "zeros", "avg_squeezed", "pop_var"], ["fused"], { epsilon: { float: epsilon } }],
    ["Cast", ["shape"], ["back"], { to: 7 }],
    ["Reshape", ["fused", "back"], ["unsqueezed"]],
    ["Mul", ["unsqueezed", "gain"], ["scaled"]],
    ["Add", ["scaled", "shift"], [to]],
  ];
};
const fusedNumbers = {
  ...tfPlaces,
  gain,
  shift,
  one: float(1),
  zero: float(0),
  one32: { shape: [], type: 6, data: [1] },
  last32: { shape: [], type: 6, data: [1] },
  "023": whole(0, 2, 3),
};

/** An nnx.Linear of [batch, N, F] in jax2onnx/plugins/flax/nnx/linear.py: one Gemm of all rows. */
const flatGemm = (x: string, w: string, b: string, to: string): OnnxCall[] => [
  ["Reshape", [x, `${w}/x2d_shape`], [`${to}/input_reshape`]],
  ["Gemm", [`${to}/input_reshape`, w, b], [`${to}/gemm_output`], { alpha: { float: 1 }, beta: { float: 1 }, transA: 0, transB: 0 }],
  ["Shape", [x], [`${to}/x_shape`]],
  ["Slice", [`${to}/x_shape`, "at0", "at2", "at0", "at1"], [`${to}/batch_dims`]],
  ["Concat", [`${to}/batch_dims`, `${w}/outputs`], [`${to}/final_shape`], { axis: 0 }],
  ["Reshape", [`${to}/gemm_output`, `${to}/final_shape`], [to]],
];
const flatShapes = { ...tfPlaces, "w/x2d_shape": whole(-1, 3), "w/outputs": whole(8), "u/x2d_shape": whole(-1, 8), "u/outputs": whole(3) };

/** A GroupNorm of jax2onnx/plugins/flax/nnx/group_norm.py where it is written out, without the gain. */
const explicitGroupNorm = (isFast: boolean): OnnxCall[] => [
  ["Shape", ["h"], ["gn_input_shape"]],
  ["Slice", ["gn_input_shape", "at0", "at1", "at0", "at1"], ["gn_prefix_dims"]],
  ["Concat", ["gn_prefix_dims", "gn_group_dims"], ["gn_grouped_shape"], { axis: 0 }],
  ["Reshape", ["h", "gn_grouped_shape"], ["gn_grouped"]],
  ["ReduceMean", ["gn_grouped", "at2"], ["gn_mean"], { keepdims: 1 }],
  ["Sub", ["gn_grouped", "gn_mean"], ["gn_centered"]],
  ...(isFast
    ? ([
        ["Mul", ["gn_grouped", "gn_grouped"], ["gn_squared"]],
        ["ReduceMean", ["gn_squared", "at2"], ["gn_second_moment"], { keepdims: 1 }],
        ["Mul", ["gn_mean", "gn_mean"], ["gn_mean_squared"]],
        ["Sub", ["gn_second_moment", "gn_mean_squared"], ["gn_difference"]],
        ["Max", ["gn_difference", "zero"], ["gn_variance"]],
        ["Identity", ["gn_centered"], ["gn_stable_centered"]],
      ] as const)
    : ([
        ["ReduceMin", ["gn_grouped", "at2"], ["gn_group_min"], { keepdims: 1 }],
        ["ReduceMax", ["gn_grouped", "at2"], ["gn_group_max"], { keepdims: 1 }],
        ["Equal", ["gn_group_min", "gn_group_max"], ["gn_equal_extrema"]],
        ["Sub", ["gn_group_min", "gn_group_min"], ["gn_finite_delta"]],
        ["Equal", ["gn_finite_delta", "zero"], ["gn_finite_group"]],
        ["And", ["gn_equal_extrema", "gn_finite_group"], ["gn_constant_group"]],
        ["Where", ["gn_constant_group", "zero", "gn_centered"], ["gn_stable_centered"]],
        ["Mul", ["gn_stable_centered", "gn_stable_centered"], ["gn_squared"]],
        ["ReduceMean", ["gn_squared", "at2"], ["gn_variance"], { keepdims: 1 }],
      ] as const)),
  ["Add", ["gn_variance", "epsilon"], ["gn_variance_eps"]],
  ["Sqrt", ["gn_variance_eps"], ["gn_std"]],
  ["Div", ["gn_stable_centered", "gn_std"], ["gn_normalized"]],
  ["Reshape", ["gn_normalized", "gn_input_shape"], ["n"]],
];

const cases: Record<string, Exported> = {
  // Names and dimensions of tf2onnx/tfonnx.py and convert.py; activations of keras/src/backend/tensorflow/nn.py.
  "tf2onnx: a Keras MLP of the state beside the time, swish": {
    nodes: [
      ["Concat", ["x", "t"], ["model/concatenate/concat:0"], { axis: 1 }],
      ["MatMul", ["model/concatenate/concat:0", "model/dense/MatMul/ReadVariableOp:0"], ["model/dense/MatMul:0"]],
      ["Add", ["model/dense/MatMul:0", "b"], ["model/dense/BiasAdd:0"]],
      ["Sigmoid", ["model/dense/BiasAdd:0"], ["model/dense/Sigmoid:0"]],
      ["Mul", ["model/dense/BiasAdd:0", "model/dense/Sigmoid:0"], ["model/dense/mul:0"]],
      ["MatMul", ["model/dense/mul:0", "u"], ["model/dense_1/MatMul:0"]],
      ["Add", ["model/dense_1/MatMul:0", "c"], ["dense_1"]],
    ],
    inputs: { x: ["unk__6", 3], t: ["unk__7", 1] },
    outputs: { dense_1: ["unk__8", 3] },
    initializers: { "model/dense/MatMul/ReadVariableOp:0": w48, b: b8, u: w83, c: b3 },
    opset: 13,
    sizes: [3, 1],
    f: (x, t) => dense(dense([...x, ...t], w48, b8).map(silu), w83, b3),
  },
  "tf2onnx: tf.fill of a time for all points, in a SavedModel's names": {
    nodes: [
      ...tfShape("serving_default_x:0", "shape"),
      ...tfSize("shape", 0, "batch"),
      ...tfStack(["batch", "one32"], "dims"),
      ["Expand", ["serving_default_t:0", "dims"], ["fill"]],
      ["Concat", ["fill", "serving_default_x:0"], ["joined"], { axis: 1 }],
      ["MatMul", ["joined", "w"], ["h"]],
      ["Tanh", ["h"], ["a"]],
      ["MatMul", ["a", "u"], ["StatefulPartitionedCall:0"]],
    ],
    inputs: { "serving_default_t:0": [], "serving_default_x:0": ["unk__1", 3] },
    outputs: { "StatefulPartitionedCall:0": ["unk__2", 3] },
    initializers: { ...tfPlaces, one32: { shape: [], type: 6, data: [1] }, w: w48, u: w83 },
    opset: 15,
    sizes: [3, 1],
    f: (x, t) => dense(dense([...t, ...x], w48).map(Math.tanh), w83),
  },
  // keras/src/ops/nn.py, _layer_normalization, of tf.nn.moments.
  "tf2onnx: LayerNormalization of Keras 3": {
    nodes: layers(
      ["ReduceMean", ["h"], ["mean"], { axes: [1], keepdims: 1 }],
      ["Sub", ["h", "mean"], ["d"]],
      ["Mul", ["d", "d"], ["SquaredDifference"]],
      ["ReduceMean", ["SquaredDifference"], ["variance"], { axes: [1], keepdims: 1 }],
      ["Add", ["variance", "epsilon"], ["add"]],
      ["Sqrt", ["add"], ["Rsqrt"]],
      ["Reciprocal", ["Rsqrt"], ["Rsqrt__1"]],
      ["Mul", ["Rsqrt__1", "gain"], ["inv"]],
      ["Neg", ["mean"], ["Neg"]],
      ["Mul", ["Neg", "inv"], ["mul_1"]],
      ["Add", ["mul_1", "shift"], ["res"]],
      ["Mul", ["h", "inv"], ["mul_2"]],
      ["Add", ["mul_2", "res"], ["n"]],
    ),
    inputs: { x: ["unk__1", 3] },
    initializers: { ...hidden, gain, shift, epsilon: float(epsilon) },
    opset: 15,
    sizes: [3, 0],
    f: hiddenField((h) => affine(normalised(h), gain, shift)),
  },
  "tf2onnx: LayerNormalization of tf.keras 2, a fused batch norm": {
    nodes: layers(...fusedLayerNorm("h", 1, 2, "n")),
    inputs: { x: ["unk__1", 3] },
    initializers: { ...hidden, ...fusedNumbers },
    opset: 15,
    sizes: [3, 0],
    f: hiddenField((h) => affine(normalised(h), gain, shift)),
  },
  // keras/src/layers/normalization/group_normalization.py
  "tf2onnx: GroupNormalization of Keras": {
    nodes: layers(
      ["Reshape", ["h", "groups"], ["r"]],
      ["ReduceMean", ["r"], ["mean"], { axes: [2], keepdims: 1 }],
      ["Sub", ["r", "mean"], ["d"]],
      ["Mul", ["d", "d"], ["SquaredDifference"]],
      ["ReduceMean", ["SquaredDifference"], ["variance"], { axes: [2], keepdims: 1 }],
      ["Add", ["variance", "epsilon"], ["add"]],
      ["Sqrt", ["add"], ["Rsqrt"]],
      ["Reciprocal", ["Rsqrt"], ["Rsqrt__1"]],
      ["Mul", ["Rsqrt__1", "gain"], ["inv"]],
      ["Neg", ["mean"], ["Neg"]],
      ["Mul", ["Neg", "inv"], ["mul_1"]],
      ["Add", ["mul_1", "shift"], ["res"]],
      ["Mul", ["r", "inv"], ["mul_2"]],
      ["Add", ["mul_2", "res"], ["m"]],
      ...tfShape("h", "shape"),
      ...tfSize("shape", 0, "batch"),
      ...tfStack(["batch", "eight32"], "back"),
      ["Reshape", ["m", "back"], ["n"]],
    ),
    inputs: { x: ["unk__1", 3] },
    initializers: {
      ...hidden,
      ...tfPlaces,
      groups: whole(-1, 2, 4),
      gain: { ...gain, shape: [1, 2, 4] },
      shift: { ...shift, shape: [1, 2, 4] },
      epsilon: float(epsilon),
      eight32: { shape: [], type: 6, data: [8] },
    },
    opset: 13,
    sizes: [3, 0],
    f: hiddenField((h) => affine(grouped(h, 2), gain, shift)),
  },
  "tf2onnx: Dense layers of particles, tf.tensordot": {
    nodes: [
      ["ReduceMean", ["x"], ["mean"], { axes: [1], keepdims: 1 }],
      ["Sub", ["x", "mean"], ["d"]],
      ...tensordot("d", "w", "b", "dense"),
      ["Tanh", ["dense"], ["a"]],
      ...tensordot("a", "u", "c", "v"),
    ],
    inputs: { x: ["unk__1", 4, 3] },
    outputs: { v: ["unk__2", 4, 3] },
    initializers: { ...hidden, ...tfPlaces, free: int32(0, 1), contracted: int32(2), "w/outputs": int32(8), "u/outputs": int32(3) },
    opset: 15,
    sizes: [12, 0],
    f: (x) => {
      const all = particles(x, 3);
      const centre = [0, 1, 2].map((k) => mean(all.map((one) => one[k]!)));
      return all.flatMap((one) =>
        dense(
          dense(
            one.map((v, k) => v - centre[k]!),
            w38,
            b8,
          ).map(Math.tanh),
          w83,
          b3,
        ),
      );
    },
  },
  "tf2onnx: LayerNormalization of particles in tf.keras 2": {
    nodes: [...tensordot("x", "w", "b", "h"), ...fusedLayerNorm("h", 2, 3, "n"), ...tensordot("n", "u", "c", "v")],
    inputs: { x: ["unk__1", 4, 3] },
    initializers: {
      ...hidden,
      ...fusedNumbers,
      free: int32(0, 1),
      contracted: int32(2),
      "w/outputs": int32(8),
      "u/outputs": int32(3),
    },
    opset: 15,
    sizes: [12, 0],
    f: (x) => particles(x, 3).flatMap(hiddenField((h) => affine(normalised(h), gain, shift)) as (x: number[]) => number[]),
  },
  // tf2onnx/rewriter/layer_normalization_rewriter.py
  "tf2onnx: a norm of [batch, N, F] as InstanceNormalization": {
    nodes: [
      ["Shape", ["x"], ["shape"]],
      ["Slice", ["shape", "at1", "at2", "at0"], ["dim_2_shape"]],
      ["ConstantOfShape", ["dim_2_shape"], ["zeros"], { value: { tensor: { shape: [1], data: [0] } } }],
      ["ConstantOfShape", ["dim_2_shape"], ["ones"], { value: { tensor: { shape: [1], data: [1] } } }],
      ["InstanceNormalization", ["x", "ones", "zeros"], ["norm"], { epsilon: { float: epsilon } }],
      ["Mul", ["norm", "c"], ["mul"]],
      ["Add", ["mul", "c"], ["v"]],
    ],
    inputs: { x: ["unk__1", 4, 3] },
    initializers: { ...tfPlaces, c: b3 },
    opset: 15,
    sizes: [12, 0],
    f: (x) => particles(x, 3).flatMap((one) => affine(normalised(one), b3, b3)),
  },
  // tf2onnx/optimizer/einsum_optimizer.py, _to_onnx_batch_dot: "bij,bj->bi" of tf.einsum and of jax2tf.
  "tf2onnx: a decomposed Einsum of weights out of the context": {
    nodes: [
      ["Reshape", ["t", "square"], ["weights"]],
      ["Unsqueeze", ["weights", "none"], ["ex"]],
      ["Unsqueeze", ["x", "at1"], ["ex_1"]],
      ["Shape", ["ex"], ["shape1"]],
      ["Shape", ["ex_1"], ["shape2"]],
      ["Gather", ["shape1", "at0"], ["dim0g"]],
      ["Gather", ["shape2", "at0"], ["dim0bg"]],
      ["Gather", ["shape1", "at2"], ["dim1"]],
      ["Gather", ["shape2", "at2"], ["dim2"]],
      ["Concat", ["dim0g", "-1", "dim1"], ["resh1"], { axis: 0 }],
      ["Concat", ["dim0bg", "-1", "dim2"], ["resh2"], { axis: 0 }],
      ["Reshape", ["ex", "resh1"], ["aresh1"]],
      ["Reshape", ["ex_1", "resh2"], ["aresh2"]],
      ["Transpose", ["aresh2"], ["aresh2_tr"], { perm: [0, 2, 1] }],
      ["MatMul", ["aresh1", "aresh2_tr"], ["dot"]],
      ["Max", ["dim0g", "dim0bg"], ["max_dim"]],
      ["Gather", ["shape1", "at1"], ["left_dim"]],
      ["Concat", ["max_dim", "left_dim", "at1"], ["new_shape"], { axis: 0 }],
      ["Reshape", ["dot", "new_shape"], ["final"]],
      ["Squeeze", ["final", "at2"], ["v"]],
    ],
    inputs: { x: ["b", 3], t: ["b", 9] },
    initializers: { ...tfPlaces, square: whole(-1, 3, 3), none: whole(), "-1": whole(-1) },
    opset: 13,
    sizes: [3, 9],
    f: (x, t) => particles(t, 3).map((row) => row.reduce((sum, v, i) => sum + v * x[i]!, 0)),
  },
  // tf2onnx/onnx_opset/controlflow.py, Select; keras/src/backend/tensorflow/nn.py, elu.
  "tf2onnx: elu of another alpha, a Select of products": {
    nodes: layers(
      ["Greater", ["h", "zero"], ["Greater"]],
      ["Elu", ["h"], ["Elu"], { alpha: { float: 1 } }],
      ["Mul", ["Elu", "alpha"], ["mul"]],
      ["Cast", ["Greater"], ["positive_cast"], { to: 1 }],
      ["Not", ["Greater"], ["negative"]],
      ["Cast", ["negative"], ["negative_cast"], { to: 1 }],
      ["Mul", ["positive_cast", "Elu"], ["multiply_1"]],
      ["Mul", ["mul", "negative_cast"], ["multiply_2"]],
      ["Add", ["multiply_1", "multiply_2"], ["n"]],
    ),
    inputs: { x: ["unk__1", 3] },
    initializers: { ...hidden, zero: float(0), alpha: float(0.25) },
    opset: 15,
    sizes: [3, 0],
    f: hiddenField((h) => h.map((v) => (v > 0 ? v : 0.25 * Math.expm1(v)))),
  },
  // tf.nn.gelu, both forms, by way of tf2onnx.
  "tf2onnx: gelu": {
    nodes: layers(
      ["Mul", ["half", "h"], ["mul"]],
      ["Div", ["h", "root"], ["truediv"]],
      ["Erf", ["truediv"], ["Erf"]],
      ["Add", ["one", "Erf"], ["add"]],
      ["Mul", ["mul", "add"], ["exact"]],
      ["Mul", ["half", "exact"], ["mul_1"]],
      ["Pow", ["exact", "three"], ["Pow"]],
      ["Mul", ["coefficient", "Pow"], ["mul_2"]],
      ["Add", ["exact", "mul_2"], ["add_1"]],
      ["Mul", ["slope", "add_1"], ["mul_3"]],
      ["Tanh", ["mul_3"], ["Tanh"]],
      ["Add", ["one", "Tanh"], ["add_2"]],
      ["Mul", ["mul_1", "add_2"], ["n"]],
    ),
    inputs: { x: ["unk__1", 3] },
    initializers: {
      ...hidden,
      half: float(0.5),
      one: float(1),
      three: float(3),
      root: float(Math.SQRT2),
      coefficient: float(0.044715),
      slope: float(Math.sqrt(2 / Math.PI)),
    },
    opset: 15,
    sizes: [3, 0],
    f: hiddenField((h) =>
      h
        .map((v) => (v * (1 + erf(v / Math.SQRT2))) / 2)
        .map((v) => (v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)))) / 2),
    ),
  },
  // tf2onnx/onnx_opset/reduction.py, version_13: axes are an input.
  "tf2onnx: the score of a mixture": {
    nodes: [
      ["Unsqueeze", ["x", "at1"], ["e"]],
      ["Sub", ["centres", "e"], ["d"]],
      ["Mul", ["d", "d"], ["Square"]],
      ["ReduceSum", ["Square", "last"], ["Sum"], { keepdims: 0, noop_with_empty_axes: 1 }],
      ["Mul", ["Sum", "scale"], ["logits"]],
      ["Softmax", ["logits"], ["weights"], { axis: -1 }],
      ["Unsqueeze", ["weights", "last"], ["w"]],
      ["Mul", ["w", "d"], ["m"]],
      ["ReduceSum", ["m", "at1"], ["v"], { keepdims: 0, noop_with_empty_axes: 1 }],
    ],
    inputs: { x: ["unk__1", 3] },
    initializers: { at1: whole(1), last: whole(-1), scale: float(-0.5), centres: { ...w43, shape: [4, 3] } },
    opset: 13,
    sizes: [3, 0],
    f: (x) => {
      const ways = particles([...w43.data!], 3).map((centre) => centre.map((v, k) => v - x[k]!));
      const weights = ways.map((way) => Math.exp(-way.reduce((sum, v) => sum + v * v, 0) / 2));
      const total = weights.reduce((sum, v) => sum + v, 0);
      return x.map((_, k) => ways.reduce((sum, way, i) => sum + (weights[i]! / total) * way[k]!, 0));
    },
  },
  // jax.nn.softplus is logaddexp(x, 0): jax/_src/numpy/ufuncs.py, by jax2tf and tf2onnx, or jax2onnx/plugins/jax/lax.
  "jax2tf: softplus as logaddexp": {
    nodes: layers(
      ["Max", ["h", "zero"], ["amax"]],
      ["Sub", ["h", "zero"], ["delta"]],
      ["Equal", ["delta", "delta"], ["eq"]],
      ["Not", ["eq"], ["isnan"]],
      ["Add", ["h", "zero"], ["sum"]],
      ["Abs", ["delta"], ["abs"]],
      ["Neg", ["abs"], ["neg"]],
      ["Exp", ["neg"], ["exp"]],
      ["Add", ["exp", "one"], ["exp1"]],
      ["Log", ["exp1"], ["log1p"]],
      ["Add", ["amax", "log1p"], ["finite"]],
      ["Where", ["isnan", "sum", "finite"], ["n"]],
    ),
    inputs: { x: ["b", 3] },
    initializers: { ...hidden, zero: float(0), one: float(1) },
    opset: 17,
    sizes: [3, 0],
    f: hiddenField((h) => h.map(softplus)),
  },
  // jax.nn.elu: jax/_src/nn/functions.py
  "jax2tf: elu as expm1 of what is not above 0": {
    nodes: layers(
      ["Greater", ["h", "zero"], ["gt"]],
      ["Where", ["gt", "zero", "h"], ["safe"]],
      ["Exp", ["safe"], ["exp"]],
      ["Sub", ["exp", "one"], ["expm1"]],
      ["Where", ["gt", "h", "expm1"], ["n"]],
    ),
    inputs: { x: ["b", 3] },
    initializers: { ...hidden, zero: float(0), one: float(1) },
    opset: 17,
    sizes: [3, 0],
    f: hiddenField((h) => h.map((v) => (v > 0 ? v : Math.expm1(v)))),
  },
  "jax2onnx: nnx.Linear of particles": {
    nodes: [...flatGemm("x", "w", "b", "h"), ["Gelu", ["h"], ["n"], { approximate: "tanh" }], ...flatGemm("n", "u", "c", "v")],
    inputs: { x: ["B", 4, 3] },
    outputs: { v: ["B", 4, 3] },
    initializers: { ...hidden, ...flatShapes },
    opset: 21,
    sizes: [12, 0],
    f: (x) =>
      particles(x, 3).flatMap((one) =>
        dense(
          dense(one, w38, b8).map((v) => (v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)))) / 2),
          w83,
          b3,
        ),
      ),
  },
  "jax2onnx: a file for two points of particles": {
    nodes: [
      ["Reshape", ["x", "flat"], ["r"]],
      ["Gemm", ["r", "w", "b"], ["g"]],
      ["Tanh", ["g"], ["a"]],
      ["Gemm", ["a", "u", "c"], ["o"]],
      ["Reshape", ["o", "back"], ["v"]],
    ],
    inputs: { x: [2, 4, 3] },
    outputs: { v: [2, 4, 3] },
    initializers: { ...hidden, flat: whole(8, 3), back: whole(2, 4, 3) },
    opset: 21,
    sizes: [12, 0],
    f: (x) => particles(x, 3).flatMap((one) => dense(dense(one, w38, b8).map(Math.tanh), w83, b3)),
  },
  // jax2onnx/plugins/jax/lax/iota.py and broadcast_in_dim.py
  "jax2onnx: frequencies of an iota, and a time that is broadcast": {
    nodes: [
      ["Squeeze", ["four", "at0"], ["iota_limit"]],
      ["Range", ["iota_start", "iota_limit", "iota_delta"], ["iota_range"]],
      ["Cast", ["iota_range"], ["iota"], { to: 1 }],
      ["Mul", ["iota", "rate"], ["exponents"]],
      ["Exp", ["exponents"], ["freqs"]],
      ["Shape", ["t"], ["bcast_src_shape"]],
      ["Gather", ["bcast_src_shape", "at0"], ["bcast_dim_dyn"], { axis: 0 }],
      ["Concat", ["bcast_dim_dyn", "at1"], ["bcast_reshape_shape"], { axis: 0 }],
      ["Reshape", ["t", "bcast_reshape_shape"], ["column"]],
      ["Concat", ["bcast_dim_dyn", "four"], ["bcast_target_shape"], { axis: 0 }],
      ["Expand", ["column", "bcast_target_shape"], ["times"]],
      ["Reshape", ["freqs", "row_shape"], ["row"]],
      ["Expand", ["row", "bcast_target_shape"], ["all_freqs"]],
      ["Mul", ["times", "all_freqs"], ["angles"]],
      ["Sin", ["angles"], ["sin"]],
      ["Cos", ["angles"], ["cos"]],
      ["Concat", ["sin", "cos"], ["embedding"], { axis: 1 }],
      ["Gemm", ["embedding", "u", "c"], ["e"]],
      ["Add", ["x", "e"], ["s"]],
      ["Tanh", ["s"], ["a"]],
      ["Mul", ["a", "e"], ["v"]],
    ],
    inputs: { x: ["B", 3], t: ["B"] },
    initializers: {
      ...tfPlaces,
      four: whole(4),
      iota_start: index(0),
      iota_delta: index(1),
      rate: float(-0.5),
      row_shape: whole(1, 4),
      u: w83,
      c: b3,
    },
    opset: 21,
    sizes: [3, 1],
    f: (x, [t]) => {
      const angles = [0, 1, 2, 3].map((i) => t! * Math.exp(-0.5 * i));
      const e = dense([...angles.map(Math.sin), ...angles.map(Math.cos)], w83, b3);
      return x.map((v, i) => Math.tanh(v + e[i]!) * e[i]!);
    },
  },
  // hk.LayerNorm of lax operations; jax2onnx/plugins/jax/lax/reduce_sum.py, rsqrt.py.
  "jax2onnx: a LayerNorm of Haiku": {
    nodes: layers(
      ["ReduceSum", ["h", "at1"], ["sum"], { keepdims: 0 }],
      ["Shape", ["sum"], ["shape"]],
      ["Concat", ["shape", "at1"], ["column"], { axis: 0 }],
      ["Reshape", ["sum", "column"], ["sums"]],
      ["Div", ["sums", "eight"], ["mean"]],
      ["Sub", ["h", "mean"], ["centered"]],
      ["Mul", ["centered", "centered"], ["square"]],
      ["ReduceSum", ["square", "at1"], ["sum_1"], { keepdims: 0 }],
      ["Reshape", ["sum_1", "column"], ["sums_1"]],
      ["Div", ["sums_1", "eight"], ["variance"]],
      ["Add", ["variance", "epsilon"], ["add"]],
      ["Sqrt", ["add"], ["rsqrt_sqrt"]],
      ["Div", ["one", "rsqrt_sqrt"], ["rsqrt"]],
      ["Mul", ["gain", "rsqrt"], ["inv"]],
      ["Mul", ["inv", "centered"], ["scaled"]],
      ["Add", ["scaled", "shift"], ["n"]],
    ),
    inputs: { x: ["B", 3] },
    initializers: { ...hidden, gain, shift, at1: whole(1), eight: float(8), one: float(1), epsilon: float(epsilon) },
    opset: 21,
    sizes: [3, 0],
    f: hiddenField((h) => affine(normalised(h), gain, shift)),
  },
  ...Object.fromEntries(
    [true, false].map((isFast): [string, Exported] => [
      `jax2onnx: nnx.GroupNorm, ${isFast ? "of fast variances" : "which looks for constant groups"}`,
      {
        nodes: layers(...explicitGroupNorm(isFast)),
        inputs: { x: ["B", 3] },
        initializers: { ...hidden, ...tfPlaces, gn_group_dims: whole(2, 4), zero: float(0), epsilon: float(epsilon) },
        opset: 18,
        sizes: [3, 0],
        f: hiddenField((h) => grouped(h, 2)),
      },
    ]),
  ),
  // jax2onnx/plugins/equinox/eqx/nn/linear.py, of a point that is a vector.
  "jax2onnx: eqx.nn.Linear without a batch": {
    nodes: [
      ["Reshape", ["t", "at1"], ["t1"]],
      ["Concat", ["x", "t1"], ["joined"], { axis: 0 }],
      ["Reshape", ["joined", "linear_in_shape"], ["linear_flat"]],
      ["Gemm", ["linear_flat", "w", "b"], ["linear_gemm"], { alpha: { float: 1 }, beta: { float: 1 }, transB: 1 }],
      ["Reshape", ["linear_gemm", "linear_out_shape"], ["h"]],
      ["Tanh", ["h"], ["a"]],
      ["Reshape", ["a", "linear_in_shape_1"], ["linear_flat_1"]],
      ["Gemm", ["linear_flat_1", "u", "c"], ["linear_gemm_1"], { alpha: { float: 1 }, beta: { float: 1 }, transB: 1 }],
      ["Reshape", ["linear_gemm_1", "linear_out_shape_1"], ["v"]],
    ],
    inputs: { x: [3], t: [] },
    initializers: {
      w: transposed(w48),
      b: b8,
      u: transposed(w83),
      c: b3,
      at1: whole(1),
      linear_in_shape: whole(-1, 4),
      linear_out_shape: whole(8),
      linear_in_shape_1: whole(-1, 8),
      linear_out_shape_1: whole(3),
    },
    opset: 21,
    sizes: [3, 1],
    f: (x, t) => dense(dense([...x, ...t], w48, b8).map(Math.tanh), w83, b3),
  },
  // skl2onnx/operator_converters/scaler_op.py and multilayer_perceptron.py
  "skl2onnx: StandardScaler and MLPRegressor of one number": {
    nodes: [
      ["Scaler", ["X"], ["variable"], { offset: { floats: [0.5, -1] }, scale: { floats: [2, 0.25] } }, "ai.onnx.ml"],
      ["Cast", ["variable"], ["cast_input"], { to: 1 }],
      ["MatMul", ["cast_input", "coefficient"], ["mul_result"]],
      ["Add", ["mul_result", "intercepts"], ["add_result"]],
      ["Tanh", ["add_result"], ["next_activations"]],
      ["MatMul", ["next_activations", "coefficient1"], ["mul_result1"]],
      ["Add", ["mul_result1", "intercepts1"], ["add_result1"]],
      ["Identity", ["add_result1"], ["out_activations_result"]],
      ["Reshape", ["out_activations_result", "shape_tensor"], ["v"]],
    ],
    inputs: { X: ["?", 2] },
    outputs: { v: ["?", 1] },
    initializers: {
      coefficient: weight(9, 2, 5),
      intercepts: weight(10, 1, 5),
      coefficient1: weight(11, 5, 1),
      intercepts1: weight(12, 1, 1),
      shape_tensor: whole(-1, 1),
    },
    opset: 21,
    sizes: [1, 1],
    f: ([x], [t]) =>
      dense(dense([(x! - 0.5) * 2, (t! + 1) * 0.25], weight(9, 2, 5), weight(10, 1, 5)).map(Math.tanh), weight(11, 5, 1), weight(12, 1, 1)),
  },
  // onnxscript/function_libs/torch_lib/ops/core.py, aten_native_group_norm
  "PyTorch, dynamo: GroupNorm of features": {
    nodes: layers(
      ["Reshape", ["group", "-1"], ["group_tensor"]],
      ["Concat", ["0", "group_tensor", "-1"], ["shape_input"], { axis: 0 }],
      ["Reshape", ["h", "shape_input"], ["input_reshaped"]],
      ["CastLike", ["one", "h"], ["one_like"]],
      ["Expand", ["one_like", "group_tensor"], ["weight_inst_norm"]],
      ["CastLike", ["zero", "h"], ["zero_like"]],
      ["Expand", ["zero_like", "group_tensor"], ["bias_inst_norm"]],
      ["InstanceNormalization", ["input_reshaped", "weight_inst_norm", "bias_inst_norm"], ["norm"], { epsilon: { float: epsilon } }],
      ["Shape", ["h"], ["shape"]],
      ["Reshape", ["norm", "shape"], ["norm_1"], { allowzero: 1 }],
      ["Range", ["from", "rank-1", "from"], ["axes_unsqueeze"]],
      ["Unsqueeze", ["gain", "axes_unsqueeze"], ["weight_full_shape"]],
      ["Unsqueeze", ["shift", "axes_unsqueeze"], ["bias_full_shape"]],
      ["Mul", ["norm_1", "weight_full_shape"], ["norm_mul_weight"]],
      ["Add", ["norm_mul_weight", "bias_full_shape"], ["n"]],
    ),
    inputs: { x: ["s0", 3] },
    initializers: {
      ...hidden,
      gain,
      shift,
      group: index(2),
      0: whole(0),
      "-1": whole(-1),
      one: float(1),
      zero: float(0),
      from: index(1),
      "rank-1": index(1),
    },
    opset: 18,
    sizes: [3, 0],
    f: hiddenField((h) => affine(grouped(h, 2), gain, shift)),
  },
  // aten_native_layer_norm and aten_softplus there.
  "PyTorch, dynamo: LayerNorm whose statistics nobody reads, softplus": {
    nodes: layers(
      ["LayerNormalization", ["h", "gain", "shift"], ["ln", "mean", "rdenominator"], { axis: -1, epsilon: { float: epsilon } }],
      ["Mul", ["ln", "two"], ["self_scaled"]],
      ["Softplus", ["self_scaled"], ["sp"]],
      ["Div", ["sp", "two"], ["softplus"]],
      ["Greater", ["self_scaled", "twenty"], ["beyond"]],
      ["Where", ["beyond", "ln", "softplus"], ["n"]],
    ),
    inputs: { x: ["s0", 3] },
    initializers: { ...hidden, gain, shift, two: float(2), twenty: float(20) },
    opset: 18,
    sizes: [3, 0],
    f: hiddenField((h) => affine(normalised(h), gain, shift).map((v) => softplus(2 * v) / 2)),
  },
  // x.reshape(B * N, F) and x.flatten(0, 1) in torch/onnx/symbolic_opset9.py.
  "PyTorch, TorchScript: particles as rows, and a gate of the time for each": {
    nodes: [
      ["Shape", ["x"], ["/Shape"]],
      ["Gather", ["/Shape", "0"], ["/Gather"], { axis: 0 }],
      ["Shape", ["x"], ["/Shape_1"]],
      ["Gather", ["/Shape_1", "1"], ["/Gather_1"], { axis: 0 }],
      ["Mul", ["/Gather", "/Gather_1"], ["/Mul"]],
      ["Unsqueeze", ["/Mul", "at0"], ["/Unsqueeze"]],
      ["Concat", ["/Unsqueeze", "three"], ["/Concat"], { axis: 0 }],
      ["Reshape", ["x", "/Concat"], ["/Reshape"]],
      ["Gemm", ["/Reshape", "w", "b"], ["h"], { transB: 1 }],
      ["LayerNormalization", ["h", "gain", "shift"], ["ln"], { epsilon: { float: epsilon } }],
      ["MatMul", ["t", "g"], ["gate"]],
      ["Unsqueeze", ["gate", "at1"], ["gate_1"]],
      ["Unsqueeze", ["/Gather", "at0"], ["/Unsqueeze_1"]],
      ["Unsqueeze", ["/Gather_1", "at0"], ["/Unsqueeze_2"]],
      ["Concat", ["/Unsqueeze_1", "/Unsqueeze_2", "eight"], ["/Concat_1"], { axis: 0 }],
      ["Expand", ["gate_1", "/Concat_1"], ["gates"]],
      ["Concat", ["/Unsqueeze", "eight"], ["/Concat_2"], { axis: 0 }],
      ["Reshape", ["gates", "/Concat_2"], ["gate_rows"]],
      ["Mul", ["ln", "gate_rows"], ["gated"]],
      ["Softmax", ["gated"], ["a"], { axis: -1 }],
      ["Gemm", ["a", "u", "c"], ["o"], { transB: 1 }],
      ["Concat", ["/Unsqueeze_1", "/Unsqueeze_2", "three"], ["/Concat_3"], { axis: 0 }],
      ["Reshape", ["o", "/Concat_3"], ["v"]],
    ],
    inputs: { x: ["batch", 4, 3], t: ["batch", 1] },
    outputs: { v: ["batch", 4, 3] },
    initializers: {
      w: transposed(w38),
      b: b8,
      u: transposed(w83),
      c: b3,
      g: weight(13, 1, 8),
      gain,
      shift,
      0: index(0),
      1: index(1),
      at0: whole(0),
      at1: whole(1),
      three: whole(3),
      eight: whole(8),
    },
    opset: 17,
    sizes: [12, 1],
    f: (x, t) =>
      particles(x, 3).flatMap((one) => {
        const gate = dense(t, weight(13, 1, 8));
        const powers = affine(normalised(dense(one, w38, b8)), gain, shift).map((v, i) => Math.exp(v * gate[i]!));
        const total = powers.reduce((sum, v) => sum + v, 0);
        return dense(
          powers.map((v) => v / total),
          w83,
          b3,
        );
      }),
  },
  // t.expand(x.shape[0], 1) and t * torch.ones(x.shape[0], 1) without dynamic_axes.
  "PyTorch, TorchScript: one time for the batch that the file fixes": {
    nodes: [
      ["Expand", ["t", "sizes"], ["expanded"]],
      ["ConstantOfShape", ["sizes"], ["ones"], { value: { tensor: { shape: [1], data: [1] } } }],
      ["Mul", ["expanded", "ones"], ["times"]],
      ["Sin", ["times"], ["sin"]],
      ["Concat", ["x", "sin"], ["joined"], { axis: 1 }],
      ["Gemm", ["joined", "w", "b"], ["h"], { transB: 1 }],
      ["Tanh", ["h"], ["a"]],
      ["Gemm", ["a", "u", "c"], ["v"], { transB: 1 }],
    ],
    inputs: { x: [3, 3], t: [] },
    outputs: { v: [3, 3] },
    initializers: { sizes: whole(3, 1), w: transposed(w48), b: b8, u: transposed(w83), c: b3 },
    opset: 13,
    sizes: [3, 1],
    f: (x, t) => dense(dense([...x, ...t.map(Math.sin)], w48, b8).map(Math.tanh), w83, b3),
  },
  "PyTorch, TorchScript: Conv1d of one position each, and zeros beside the state": {
    nodes: [
      ["Transpose", ["x"], ["xt"], { perm: [0, 2, 1] }],
      ["Pad", ["xt", "pads", "zero"], ["padded"], { mode: "constant" }],
      ["Conv", ["padded", "w", "b"], ["h"], { dilations: [1], group: 1, kernel_shape: [1], pads: [0, 0], strides: [1] }],
      ["BatchNormalization", ["h", "gain", "shift", "shift", "squares"], ["n"], { epsilon: { float: epsilon } }],
      ["Relu", ["n"], ["a"]],
      ["Conv", ["a", "u", "c"], ["o"], { dilations: [1], group: 1, kernel_shape: [1], pads: [0, 0], strides: [1] }],
      ["Transpose", ["o"], ["v"], { perm: [0, 2, 1] }],
    ],
    inputs: { x: ["batch", 5, 3] },
    initializers: {
      pads: whole(0, 0, 0, 0, 1, 0),
      zero: float(0),
      w: { ...transposed(w48), shape: [8, 4, 1] },
      b: b8,
      u: { ...transposed(w83), shape: [3, 8, 1] },
      c: b3,
      gain,
      shift,
      squares: { shape: [8], data: gain.data!.map((v) => Math.fround(v * v)) },
    },
    opset: 17,
    sizes: [15, 0],
    f: (x) =>
      particles(x, 3).flatMap((one) => {
        const h = dense([...one, 0], w48, b8);
        const n = h.map((v, i) => {
          const [g, s] = [gain.data![i]!, shift.data![i]!];
          return ((v - s) / Math.sqrt(Math.fround(g * g) + epsilon)) * g + s;
        });
        return dense(n.map(relu), w83, b3);
      }),
  },
  // As files of the "MATLAB Deep Learning Toolbox Converter for ONNX Model Format" have it: ARCH-COMP, AINNCS category.
  "MATLAB: layers of an image of one row, in a file for one point": {
    nodes: [
      ["Sub", ["input", "input_Mean"], ["input_Sub"]],
      [
        "Conv",
        ["input_Sub", "w", "b"],
        ["Operation_1"],
        { group: 1, dilations: [1, 1], kernel_shape: [1, 4], pads: [0, 0, 0, 0], strides: [1, 1] },
      ],
      ["Relu", ["Operation_1"], ["relu_1"]],
      [
        "Conv",
        ["relu_1", "u", "c"],
        ["linear_2"],
        { group: 1, dilations: [1, 1], kernel_shape: [1, 1], pads: [0, 0, 0, 0], strides: [1, 1] },
      ],
      ["Flatten", ["linear_2"], ["linear_2_Flatten"], { axis: 1 }],
    ],
    inputs: { input: [1, 1, 1, 4] },
    outputs: { linear_2_Flatten: [1, 3] },
    initializers: {
      input_Mean: { shape: [1, 1, 1, 4], data: [1, -1, 0.5, 0.25] },
      w: { ...transposed(w48), shape: [8, 1, 1, 4] },
      b: b8,
      u: { ...transposed(w83), shape: [3, 8, 1, 1] },
      c: b3,
    },
    opset: 8,
    sizes: [3, 1],
    f: (x, t) => dense(dense(plus([...x, ...t], [-1, 1, -0.5, -0.25]), w48, b8).map(relu), w83, b3),
  },
};

describe("what exporters write", () => {
  it.each(Object.entries(cases))("%s", (_, { f, sizes, options, outputs = ["v"], ...file }) => {
    const network = parseOnnx(onnxFile({ ...file, outputs }), options);
    const [stateSize, contextSize] = sizes;
    expect(network).toMatchObject({ stateSize, contextSize });
    const uniform = random(17);
    for (let trial = 0; trial < 3; trial++) {
      const x = Array.from({ length: stateSize }, () => normal(uniform));
      const t = Array.from({ length: contextSize }, () => normal(uniform));
      const { value, diagonal, divergence } = evaluateReference(network, x, {
        outputs: ["value", "diagonal", "divergence"],
        context: contextSize > 0 ? t : null,
      });
      const sizesOf = (numbers: readonly number[]): number[] => numbers.map((v) => 1 + Math.abs(v));
      const exact = f(x, t);
      expectClose(value!, exact, sizesOf(exact), { relative: 1e-6, absolute: 0, label: "value" });
      const h = 1e-5;
      const differences = x.map((_, i) => (f(x.with(i, x[i]! + h), t)[i]! - f(x.with(i, x[i]! - h), t)[i]!) / (2 * h));
      expectClose(diagonal!, differences, sizesOf(differences), { relative: 1e-6, absolute: 0, label: "diagonal" });
      const sum = [differences.reduce((total, v) => total + v, 0)];
      expectClose(divergence!, sum, [differences.reduce((total, v) => total + 1 + Math.abs(v), 0)], {
        relative: 1e-6,
        absolute: 0,
        label: "divergence",
      });
    }
  });
});
