import type { Scalar, Tensor, Tensor2D } from "@tensorflow/tfjs";
import { parametersOf, type Problem } from "../networks.js";
import type { Call, Peer } from "../peer.js";
import { openTensorflow } from "../tensorflow.js";

type Tensorflow = Awaited<ReturnType<typeof openTensorflow>>;
/** W1, b1, W2, b2, W3, b3. */
export type Weights = [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];

/**
 * TensorFlow.js on WebGPU. Its gradient of tanh counts the saved tanh for a constant, so a gradient of a gradient loses what
 * belongs to tanh''; the bilinear formula needs no second one.
 */
export const tensorflow: Peer = {
  name: "@tensorflow/tfjs, webgpu",
  ways: [
    { name: "d gradients", points: "device" },
    { name: "bilinear formula by hand", points: "device" },
    { name: "gradient by hand", points: "device" },
  ],
  prepare,
};

async function prepare(way: string, problem: Problem): Promise<Call> {
  const tf = await openTensorflow();
  const { d, count } = problem;
  const weights = parametersOf(problem).map(({ data, shape }) => tf.tensor(data, shape)) as Weights;
  const x = tf.tensor2d(problem.points, [count, d]);
  const differentiate = makeGradient(tf, way, problem);
  return async () => {
    const tensors = tf.tidy(() => differentiate(weights, x));
    const answer = await Promise.all(tensors.map((tensor) => tensor.data()));
    tf.dispose(tensors);
    return answer;
  };
}

/** x Wᵀ + b */
const makeLayer =
  (tf: Tensorflow) =>
  (x: Tensor, weight: Tensor, bias: Tensor): Tensor =>
    tf.add(tf.matMul(x, weight, false, true), bias);

export function makeField(tf: Tensorflow): (weights: Weights, x: Tensor) => Tensor {
  const layer = makeLayer(tf);
  return ([w1, b1, w2, b2, w3, b3], x) => layer(tf.tanh(layer(tf.tanh(layer(x, w1, b1)), w2, b2)), w3, b3);
}

/** The loss, then its gradient by every weight. */
export function makeGradient(tf: Tensorflow, way: string, { d, count }: Problem): (weights: Weights, x: Tensor2D) => Tensor[] {
  const layer = makeLayer(tf);
  const field = makeField(tf);
  const slope = (a: Tensor): Tensor => tf.sub(1, tf.square(a));
  const mean = (square: Tensor, divergence: Tensor): Scalar => tf.div(tf.add(tf.div(square, 2), divergence), count);

  const gradients = (weights: Weights, x: Tensor2D): Scalar => {
    const f = (x: Tensor): Tensor => field(weights, x);
    const square = tf.sum(tf.square(f(x)));
    const rows = Array.from({ length: d }, (_, i) => tf.grad((x) => tf.sum(tf.slice(f(x), [0, i], [count, 1])))(x));
    const diagonal = rows.map((row, i) => tf.sum(tf.slice(row, [0, i], [count, 1])));
    return mean(
      square,
      diagonal.reduce((sum, entry) => tf.add(sum, entry)),
    );
  };

  const bilinear = ([w1, b1, w2, b2, w3, b3]: Weights, x: Tensor2D): Scalar => {
    const a1 = tf.tanh(layer(x, w1, b1));
    const a2 = tf.tanh(layer(a1, w2, b2));
    const matrix = tf.mul(w2, tf.matMul(w3, w1, true, true));
    const divergence = tf.sum(tf.mul(tf.matMul(slope(a1), matrix, false, true), slope(a2)));
    return mean(tf.sum(tf.square(layer(a2, w3, b3))), divergence);
  };

  const byHand = ([w1, b1, w2, b2, w3, b3]: Weights, x: Tensor2D): Tensor[] => {
    const a1 = tf.tanh(layer(x, w1, b1));
    const a2 = tf.tanh(layer(a1, w2, b2));
    const [s1, s2] = [slope(a1), slope(a2)];
    const value = layer(a2, w3, b3);
    const product = tf.matMul<Tensor2D>(w3, w1, true, true); // (W1 W3)ᵀ
    const matrix = tf.mul(w2, product);
    const byS2 = tf.matMul(s1, matrix, false, true);
    const byS1 = tf.matMul(s2, matrix);
    const loss = mean(tf.sum(tf.square(value)), tf.sum(tf.mul(byS2, s2)));

    const byValue = tf.div(value, count);
    const back = (s: Tensor, byA: Tensor, a: Tensor, byS: Tensor): Tensor => tf.mul(s, tf.sub(byA, tf.mul(tf.mul(a, 2 / count), byS)));
    const byZ2 = back(s2, tf.matMul(byValue, w3), a2, byS2);
    const byZ1 = back(s1, tf.matMul(byZ2, w2), a1, byS1);
    const slopes = tf.div(tf.matMul(s2, s1, true), count);
    const both = tf.mul(w2, slopes);
    return [
      loss,
      tf.add(tf.matMul(both, w3, true, true), tf.matMul(byZ1, x, true)),
      tf.sum(byZ1, 0),
      tf.add(tf.mul(slopes, product), tf.matMul(byZ2, a1, true)),
      tf.sum(byZ2, 0),
      tf.add(tf.matMul(w1, both, true, true), tf.matMul(byValue, a2, true)),
      tf.sum(byValue, 0),
    ];
  };

  if (way === "gradient by hand") return byHand;
  const loss = way.startsWith("bilinear") ? bilinear : gradients;
  return (weights, x) => differentiate(tf, weights, (weights) => loss(weights, x));
}

export function differentiate(tf: Tensorflow, weights: Weights, loss: (weights: Weights) => Scalar): Tensor[] {
  const { value, grads } = tf.valueAndGrads((...weights: Tensor[]) => loss(weights as Weights))(weights);
  return [value, ...grads];
}
