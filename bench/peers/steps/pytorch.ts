import { parametersOf } from "../networks.js";
import type { Peer } from "../peer.js";
import { openPytorch } from "../pytorch.js";
import { pytorch } from "../training/pytorch.js";
import type { StepLoss, StepProblem } from "./problem.js";

export const pytorchOf = (loss: StepLoss): Peer<StepProblem> => ({
  name: pytorch.name,
  ways: loss === "flow matching" ? [{ name: loss, points: "device" }] : pytorch.ways,
  prepare(way, problem) {
    const batches = problem.batches.flatMap(({ points, wanted }) => (wanted ? [points, wanted] : [points]));
    return openPytorch("steps", way, problem, [...parametersOf(problem).map(({ data }) => data), ...batches], [problem.steps]);
  },
});
