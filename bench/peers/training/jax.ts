import { makeField, openJax, type Array, type Weights } from "../jax.js";
import { parametersOf, type Numbers, type Problem } from "../networks.js";
import type { Call, Peer } from "../peer.js";

/** jax-js on WebGPU: the loss and its gradient, jitted together; of its Jacobians those that it differentiates the slowest and the fastest. */
export const jax: Peer = {
  name: "@jax-js/jax, webgpu",
  ways: [
    { name: "jacfwd", points: "device" },
    { name: "linearize", points: "device" },
    { name: "bilinear formula by hand", points: "device" },
  ],
  prepare,
};

/** A sum over points; weights are [inputs, outputs]. */
export type Loss = (weights: Weights, x: Array) => Array;
/** The loss of some points, and its gradient. */
type Step = [Array, Weights];

/** What a binding may have: WebGPU's default, and no more on most software adapters. */
const BINDING = 2 ** 27;

async function prepare(way: string, problem: Problem): Promise<Call> {
  const { d, count, points } = problem;
  const { numpy: np, jit, tree, valueAndGrad } = await openJax();
  const sum = await makeLoss(way, d);
  const mean: Loss = (weights, x) => sum(inputsFirst(weights), x).mul(1 / count);
  const step = jit((weights: Weights, x: Array) => valueAndGrad(mean)(weights, x) as Step);
  const add = jit((a: Step, b: Step) => tree.map(np.add, a, b) as Step);

  const weights = parametersOf(problem).map(({ data, shape }) => np.array(data, { shape })) as Weights;
  const parts = partsOf(way, problem, points).map((numbers) => np.array(numbers, { shape: [numbers.length / d, d] }));
  return async () => {
    const [loss, gradient] = parts.map((x) => step(tree.ref(weights), x.ref)).reduce((sums, next) => add(sums, next));
    return Promise.all([loss, ...gradient].map((array) => array.data()));
  };
}

/** Half the squares and the divergences of all points, added up. */
export function makeLoss(way: string, d: number): Promise<Loss> {
  return isByHand(way) ? bilinear() : differentiate(way, d);
}

/** Backwards through Jacobians it makes arrays of h² numbers per point and coordinate, and all points' do not fit a binding. */
export function partsOf(way: string, { d, h, count }: Problem, points: Numbers): Numbers[] {
  const part = isByHand(way) ? count : Math.max(1, Math.min(count, Math.floor(BINDING / (4 * d * h * h))));
  return globalThis.Array.from({ length: Math.ceil(count / part) }, (_, i) => points.slice(i * part * d, (i + 1) * part * d));
}

const isByHand = (way: string): boolean => way.startsWith("bilinear");

/** The gradient is wanted as [outputs, inputs]; to jax-js a transposed array is a view. */
export function inputsFirst([w1, b1, w2, b2, w3, b3]: Weights): Weights {
  return [w1.transpose(), b1, w2.transpose(), b2, w3.transpose(), b3];
}

async function differentiate(way: string, d: number): Promise<Loss> {
  const { numpy: np, tree, vmap } = await openJax();
  const { f, jacobian } = await makeField(way, d);
  const ofPoint: Loss = (weights, x) => {
    const square = np.square(f(tree.ref(weights), x.ref)).sum();
    return square.mul(0.5).add(np.trace(jacobian(weights, x)));
  };
  return (weights, x) => vmap(ofPoint, [null, 0])(weights, x).sum();
}

async function bilinear(): Promise<Loss> {
  const { numpy: np } = await openJax();
  return ([w1, b1, w2, b2, w3, b3], x) => {
    const a1 = np.tanh(np.dot(x, w1.ref).add(b1));
    const a2 = np.tanh(np.dot(a1.ref, w2.ref).add(b2));
    const square = np.square(np.dot(a2.ref, w3.ref).add(b3)).sum();
    const matrix = np.dot(w3, w1).transpose().mul(w2); // [inputs, outputs], as W2ᵀ
    const s1 = np.subtract(1, np.square(a1));
    const s2 = np.subtract(1, np.square(a2));
    return square.mul(0.5).add(np.dot(s1, matrix).mul(s2).sum());
  };
}
