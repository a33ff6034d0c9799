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
      ...(problem.loss === "flow matching" ? { loss: "flow_matching" } : { loss: "score_matching", noise: [NOISE, NOISE] }),
      batch: problem.count,
      seed: SEED,
      optimizer: { learningRate: RATE },
    });
    await trainer.data(problem.points);
    return async () => [await trainer.train(problem.steps)];
  },
};
