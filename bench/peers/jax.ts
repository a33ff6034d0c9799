import { bilinearMatrix, transpose, type Problem } from "./networks.js";
import type { Call, Peer } from "./peer.js";
import type { numpy } from "@jax-js/jax";

export type Array = numpy.Array;
/** [W1ᵀ, b1, W2ᵀ, b2, W3ᵀ, b3] */
export type Weights = [Array, Array, Array, Array, Array, Array];

/**
 * jax-js on WebGPU, jitted. Its arrays are counted by hand: whatever is used is consumed, and `.ref` keeps it for another
 * use. So a call hands in a reference to every weight and to the points, which stay on the device.
 */
export const jax: Peer = {
  name: "@jax-js/jax, webgpu",
  ways: [
    { name: "jacfwd", points: "device" },
    { name: "jacrev", points: "device" },
    { name: "linearize", points: "device" },
    { name: "bilinear formula by hand", points: "device" },
  ],
  prepare: (way, problem) => (way.startsWith("bilinear") ? bilinear(problem) : differentiate(way, problem)),
};

export async function openJax() {
  const library = await import("@jax-js/jax");
  if (!(await library.init("webgpu")).includes("webgpu")) throw new Error("jax-js found no WebGPU");
  library.defaultDevice("webgpu");
  return library;
}

/** f of one point, and its Jacobian. */
export async function makeField(way: string, d: number, activation: "tanh" | "silu" = "tanh") {
  const { numpy: np, nn, vmap, jacfwd, jacrev, linearize } = await openJax();
  const activate = activation === "silu" ? nn.silu : np.tanh;
  const f = ([w1, b1, w2, b2, w3, b3]: Weights, x: Array): Array => {
    const a1 = activate(np.dot(x, w1).add(b1));
    const a2 = activate(np.dot(a1, w2).add(b2));
    return np.dot(a2, w3).add(b3);
  };
  const jacobian = (weights: Weights, x: Array): Array => {
    const field = (x: Array): Array => f(weights, x);
    if (way === "jacfwd") return jacfwd(field)(x);
    if (way === "jacrev") return jacrev(field)(x);
    const [value, push] = linearize(field, [x]);
    value.dispose();
    return vmap(push)(np.eye(d));
  };
  return { f, jacobian };
}

export async function uploadWeights({ d, h, w1, b1, w2, b2, w3, b3 }: Problem): Promise<Weights> {
  const { numpy: np } = await openJax();
  return [
    np.array(transpose(w1, h, d), { shape: [d, h] }),
    np.array(b1),
    np.array(transpose(w2, h, h), { shape: [h, h] }),
    np.array(b2),
    np.array(transpose(w3, d, h), { shape: [h, d] }),
    np.array(b3),
  ];
}

async function differentiate(way: string, problem: Problem): Promise<Call> {
  const { d, count, points } = problem;
  const { numpy: np, jit, vmap, tree } = await openJax();
  const { jacobian } = await makeField(way, d);
  const divergence = jit(vmap((weights: Weights, x: Array) => np.trace(jacobian(weights, x)), [null, 0]));

  const weights = await uploadWeights(problem);
  const x = np.array(points, { shape: [count, d] });
  return async () => [await divergence(tree.ref(weights), x.ref).data()];
}

async function bilinear(problem: Problem): Promise<Call> {
  const { d, h, count } = problem;
  const { numpy: np, jit } = await openJax();
  const divergence = jit((w1: Array, b1: Array, w2: Array, b2: Array, matrix: Array, x: Array) => {
    const a1 = np.tanh(np.dot(x, w1).add(b1));
    const s1 = np.subtract(1, np.square(a1.ref));
    const a2 = np.tanh(np.dot(a1, w2).add(b2));
    const s2 = np.subtract(1, np.square(a2));
    return np.dot(s1, matrix).mul(s2).sum(1);
  });
  const inputs = [
    np.array(transpose(problem.w1, h, d), { shape: [d, h] }),
    np.array(problem.b1),
    np.array(transpose(problem.w2, h, h), { shape: [h, h] }),
    np.array(problem.b2),
    np.array(transpose(Float32Array.from(bilinearMatrix(problem)), h, h), { shape: [h, h] }),
    np.array(problem.points, { shape: [count, d] }),
  ] as const;
  const [w1, b1, w2, b2, matrix, x] = inputs;
  return async () => [await divergence(w1.ref, b1.ref, w2.ref, b2.ref, matrix.ref, x.ref).data()];
}
