import { makeField, openJax, uploadWeights, type Array, type Weights } from "../jax.js";
import { bilinearMatrix, transpose } from "../networks.js";
import type { Call, Peer } from "../peer.js";
import { STEPS, type FlowProblem } from "./problem.js";

/** jax-js on WebGPU: a loop over jitted functions. Of its Jacobians, forwards and backwards. */
export const jax: Peer<FlowProblem> = {
  name: "@jax-js/jax, webgpu",
  ways: [
    { name: "jacfwd", points: "device", tensor: "rk4" },
    { name: "jacrev", points: "device", tensor: "rk4" },
    { name: "bilinear formula by hand", points: "device", tensor: "rk4" },
  ],
  prepare,
};

/** f and its divergence, where t u + b1 is the first bias. */
type Slope = (bias: Array, x: Array) => [Array, Array];

const STEP = -1 / STEPS;

async function prepare(way: string, problem: FlowProblem): Promise<Call> {
  const { d, count, points, b1, u } = problem;
  const { numpy: np, jit } = await openJax();
  const slope = way.startsWith("bilinear") ? await bilinear(problem) : await differentiate(way, problem);
  const halfway = jit((x: Array, k: Array) => x.add(k.mul(STEP / 2)));
  const onward = jit((x: Array, k: Array) => x.add(k.mul(STEP)));
  const sum = jit((x: Array, k1: Array, k2: Array, k3: Array, k4: Array) =>
    x.add(
      k1
        .add(k2.add(k3).mul(2))
        .add(k4)
        .mul(STEP / 6),
    ),
  );
  const density = jit((x: Array, integral: Array) => integral.sub(np.square(x).sum(1).mul(0.5)).sub((d / 2) * Math.log(2 * Math.PI)));

  const start = np.array(points, { shape: [count, d] });
  const zeros = np.array(new Float32Array(count));
  /** At every half step. */
  const biases = globalThis.Array.from({ length: 2 * STEPS + 1 }, (_, half) => {
    const t = 1 + (half * STEP) / 2;
    return np.array(b1.map((bias, unit) => bias + t * u[unit]!));
  });
  return async () => {
    let [x, integral] = [start.ref, zeros.ref];
    for (let half = 0; half < 2 * STEPS; half += 2) {
      const [first, middle, last] = biases.slice(half, half + 3) as [Array, Array, Array];
      const [k1, l1] = slope(first.ref, x.ref);
      const [k2, l2] = slope(middle.ref, halfway(x.ref, k1.ref));
      const [k3, l3] = slope(middle.ref, halfway(x.ref, k2.ref));
      const [k4, l4] = slope(last.ref, onward(x.ref, k3.ref));
      x = sum(x, k1, k2, k3, k4);
      integral = sum(integral, l1, l2, l3, l4);
      // Else what all steps need in between would be in memory at once: gigabytes.
      await x.blockUntilReady();
    }
    return [await density(x, integral).data()];
  };
}

async function differentiate(way: string, problem: FlowProblem): Promise<Slope> {
  const { numpy: np, jit, vmap, tree } = await openJax();
  const { f, jacobian } = await makeField(way, problem.d, "silu");
  const ofPoint = (weights: Weights, x: Array): [Array, Array] => [f(tree.ref(weights), x.ref), np.trace(jacobian(weights, x))];
  const slope = jit(vmap(ofPoint, [null, 0]));
  const [w1, , w2, b2, w3, b3] = await uploadWeights(problem);
  return (bias, x) => slope([w1.ref, bias, w2.ref, b2.ref, w3.ref, b3.ref], x);
}

async function bilinear(problem: FlowProblem): Promise<Slope> {
  const { numpy: np, nn, jit } = await openJax();
  const activate = (z: Array): [Array, Array] => {
    const sigmoid = nn.sigmoid(z.ref);
    return [z.ref.mul(sigmoid.ref), sigmoid.ref.mul(np.add(1, z.mul(np.subtract(1, sigmoid))))];
  };
  const slope = jit(([w1, b1, w2, b2, w3, b3]: Weights, matrix: Array, x: Array): [Array, Array] => {
    const [a1, s1] = activate(np.dot(x, w1).add(b1));
    const [a2, s2] = activate(np.dot(a1, w2).add(b2));
    return [np.dot(a2, w3).add(b3), np.dot(s1, matrix).mul(s2).sum(1)];
  });
  const [w1, , w2, b2, w3, b3] = await uploadWeights(problem);
  const { h } = problem;
  const matrix = np.array(transpose(Float32Array.from(bilinearMatrix(problem)), h, h), { shape: [h, h] });
  return (bias, x) => slope([w1.ref, bias, w2.ref, b2.ref, w3.ref, b3.ref], matrix.ref, x);
}
