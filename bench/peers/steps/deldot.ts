import { requestDevice } from "../../../dist/node.js";
import { Trainer } from "../../../dist/train.js";
import { makeNetwork } from "../deldot.js";
import type { Peer } from "../peer.js";
import { NOISE, RATE, SEED, type StepProblem } from "./problem.js";

/** Points are what it draws from. */
export const deldot: Peer<StepProblem> = {
  name: "deldot",
  ways: [{ name: "steps", points: "device" }],
  async prepare(_, problem) {
    const { device } = await requestDevice();
    const trainer = await Trainer.create(device, makeNetwork(problem), {
      loss: problem.loss === "flow matching" ? "flow_matching" : "score_matching",
      batch: problem.count,
      seed: SEED,
      noise: [NOISE, NOISE],
      optimizer: { learningRate: RATE },
    });
    await trainer.data(problem.points);
    return async () => [await trainer.train(problem.steps)];
  },
};
