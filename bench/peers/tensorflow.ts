import type { Tensor } from "@tensorflow/tfjs";
import { bilinearMatrix, transpose, type Problem } from "./networks.js";
import type { Call, Peer } from "./peer.js";

/** TensorFlow.js on WebGPU. It has gradients but no Jacobian and no forward mode, so the tangents are carried by hand. */
export const tensorflow: Peer = {
  name: "@tensorflow/tfjs, webgpu",
  ways: [
    { name: "tangents by hand", points: "device" },
    { name: "bilinear formula by hand", points: "device" },
  ],
  prepare,
};

export async function openTensorflow() {
  const tf = await import("@tensorflow/tfjs");
  await import("@tensorflow/tfjs-backend-webgpu");
  // It falls back to its CPU backend without a word to the caller.
  if (!(await tf.setBackend("webgpu")) || tf.getBackend() !== "webgpu") throw new Error(`TensorFlow.js runs on ${tf.getBackend()}`);
  return tf;
}

async function prepare(way: string, problem: Problem): Promise<Call> {
  const tf = await openTensorflow();
  const { d, h, count } = problem;
  const w1 = tf.tensor2d(transpose(problem.w1, h, d), [d, h]);
  const b1 = tf.tensor1d(problem.b1);
  const w2 = tf.tensor2d(transpose(problem.w2, h, h), [h, h]);
  const b2 = tf.tensor1d(problem.b2);
  const x = tf.tensor2d(problem.points, [count, d]);

  const slopes = (): { s1: Tensor; s2: Tensor } => {
    const a1 = tf.tanh(tf.add(tf.matMul(x, w1), b1));
    const a2 = tf.tanh(tf.add(tf.matMul(a1, w2), b2));
    return { s1: tf.sub(1, tf.square(a1)), s2: tf.sub(1, tf.square(a2)) };
  };
  const run =
    (divergence: () => Tensor): Call =>
    async () => {
      const result = tf.tidy(divergence);
      const numbers = await result.data();
      result.dispose();
      return [numbers];
    };

  if (way.startsWith("bilinear")) {
    const matrix = tf.tensor2d(transpose(Float32Array.from(bilinearMatrix(problem)), h, h), [h, h]);
    return run(() => {
      const { s1, s2 } = slopes();
      return tf.sum(tf.mul(tf.matMul(s1, matrix), s2), 1);
    });
  }
  const w3 = tf.tensor3d(problem.w3, [1, d, h]);
  return run(() => {
    const { s1, s2 } = slopes();
    const seeds = tf.mul(tf.expandDims(s1, 1), tf.expandDims(w1, 0)); // [count, d, h]
    const carried = tf.reshape(tf.matMul(tf.reshape(seeds, [count * d, h]), w2), [count, d, h]);
    return tf.sum(tf.mul(tf.sum(tf.mul(carried, w3), 1), s2), 1);
  });
}
