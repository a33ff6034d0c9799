import type { Scalar, Tensor } from "@tensorflow/tfjs";
import { parametersOf } from "../networks.js";
import type { Call, Peer } from "../peer.js";
import { openTensorflow } from "../tensorflow.js";
import { differentiate, makeField, makeGradient, tensorflow, type Weights } from "../training/tensorflow.js";
import { RATE, type StepLoss, type StepProblem } from "./problem.js";

export const tensorflowOf = (loss: StepLoss): Peer<StepProblem> => ({
  name: tensorflow.name,
  ways: loss === "flow matching" ? [{ name: loss, points: "device" }] : tensorflow.ways,
  prepare,
});

async function prepare(way: string, problem: StepProblem): Promise<Call> {
  const tf = await openTensorflow();
  const { d, count } = problem;
  const weights = parametersOf(problem).map(({ data, shape }, index) => tf.variable(tf.tensor(data, shape), true, `w${index}`));
  const batches = problem.batches.map(({ points, wanted }) => ({
    x: tf.tensor2d(points, [count, points.length / count]),
    wanted: wanted && tf.tensor2d(wanted, [count, d]),
  }));
  const field = makeField(tf);
  const score = makeGradient(tf, way, problem);
  const optimizer = tf.train.adam(RATE, 0.9, 0.999, 1e-8);

  const step = ({ x, wanted }: (typeof batches)[number]): Tensor => {
    const own = weights as unknown as Weights;
    const [loss, ...gradients] = wanted
      ? differentiate(tf, own, (weights) => tf.mean<Scalar>(tf.square(tf.sub(field(weights, x), wanted))))
      : score(own, x);
    optimizer.applyGradients(gradients.map((tensor, index) => ({ name: weights[index]!.name, tensor })));
    return loss!;
  };
  return async () => {
    const losses = batches.map((batch) => tf.tidy(() => step(batch)));
    const all = tf.tidy(() => tf.stack(losses));
    const answer = await all.data();
    tf.dispose([all, ...losses]);
    return [answer];
  };
}
