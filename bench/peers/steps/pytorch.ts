import { parametersOf } from "../networks.js";
import type { Peer } from "../peer.js";
import { NAME, openPytorch, ways } from "../pytorch.js";
import type { StepLoss, StepProblem } from "./problem.js";

export const pytorchStepsOf = (loss: StepLoss): Peer<StepProblem> => ({
  name: NAME,
  ways: loss === "flow matching" ? [{ name: loss, points: "device" }] : ways,
  prepare(way, problem) {
    const batches = problem.batches.flatMap(({ points, wanted }) => (wanted ? [points, wanted] : [points]));
    return openPytorch("steps", way, problem, [...parametersOf(problem).map(({ data }) => data), ...batches], [problem.steps]);
  },
});
