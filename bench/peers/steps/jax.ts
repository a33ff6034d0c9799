import { makeField, openJax, type Array, type Weights } from "../jax.js";
import { parametersOf } from "../networks.js";
import type { Call, Peer } from "../peer.js";
import { inputsFirst, jax, makeLoss, partsOf } from "../training/jax.js";
import { RATE, type StepLoss, type StepProblem } from "./problem.js";

/** Of its Jacobians the one that it differentiates the fastest. */
export const jaxOf = (loss: StepLoss): Peer<StepProblem> => ({
  name: jax.name,
  ways: loss === "flow matching" ? [{ name: loss, points: "device" }] : jax.ways.filter(({ name }) => name !== "jacfwd"),
  prepare,
});

/** Weights, Adam's moments, and the powers of its decays. */
type State = [Weights, Weights, Weights, Array, Array];
/** The loss of some points, and its gradient. */
type Gradient = [Array, Weights];
/** What f is evaluated at, and what flow matching wants of it. */
type Batch = [Array] | [Array, Array];

async function prepare(way: string, problem: StepProblem): Promise<Call> {
  const { d, count } = problem;
  const { numpy: np, jit, tree, valueAndGrad } = await openJax();
  const { f } = await makeField(way, d);
  const sum = await makeLoss(way, d);
  const gradientOf = (weights: Weights, [x, wanted]: Batch): Gradient => {
    const mean = (weights: Weights): Array =>
      wanted
        ? np
            .square(f(inputsFirst(weights), x).sub(wanted))
            .sum()
            .mul(1 / (count * d))
        : sum(inputsFirst(weights), x).mul(1 / count);
    return valueAndGrad(mean)(weights);
  };
  const update = ([weights, first, second, p1, p2]: State, gradient: Weights): State => {
    const [q1, q2] = [p1.mul(0.9), p2.mul(0.999)];
    const m = tree.map((m: Array, g: Array) => m.mul(0.9).add(g.mul(0.1)), first, tree.ref(gradient));
    const v = tree.map((v: Array, g: Array) => v.mul(0.999).add(np.square(g).mul(0.001)), second, gradient);
    const moved = (w: Array, m: Array, v: Array): Array => {
      const root = np.sqrt(v.div(np.subtract(1, q2.ref))).add(1e-8);
      return w.sub(m.div(np.subtract(1, q1.ref)).div(root).mul(RATE));
    };
    return [tree.map(moved, weights, tree.ref(m), tree.ref(v)), m, v, q1, q2];
  };

  const partsOfStep = problem.batches.map(({ points, wanted }): Batch[] => {
    const inputs = points.length / count;
    if (wanted) return [[np.array(points, { shape: [count, inputs] }), np.array(wanted, { shape: [count, d] })]];
    return partsOf(way, problem, points).map((numbers) => [np.array(numbers, { shape: [numbers.length / inputs, inputs] })]);
  });
  const whole = jit((state: State, batch: Batch): [Array, State] => {
    const [loss, gradient] = gradientOf(tree.ref(state[0]), batch);
    return [loss, update(state, gradient)];
  });
  const part = jit(gradientOf);
  const add = jit((a: Gradient, b: Gradient) => tree.map(np.add, a, b) as Gradient);
  const finish = jit(update);

  const weights = parametersOf(problem).map(({ data, shape }) => np.array(data, { shape })) as Weights;
  const zeros = (): Weights => parametersOf(problem).map(({ shape }) => np.zeros(shape)) as Weights;
  let state: State = [weights, zeros(), zeros(), np.array(1), np.array(1)];
  return async () => {
    const losses: Array[] = [];
    for (const parts of partsOfStep) {
      let loss: Array;
      if (parts.length === 1) [loss, state] = whole(state, tree.ref(parts[0]!));
      else {
        const [all, gradient] = parts.map((batch) => part(tree.ref(state[0]), tree.ref(batch))).reduce((sums, next) => add(sums, next));
        [loss, state] = [all, finish(state, gradient)];
        // Else what all steps need in between would be in memory at once.
        await state[3].blockUntilReady();
      }
      losses.push(loss);
    }
    return [(await Promise.all(losses.map((loss) => loss.data()))).map(([loss]) => loss!)];
  };
}
