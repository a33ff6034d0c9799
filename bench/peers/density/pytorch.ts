import { parametersOf } from "../networks.js";
import type { Peer } from "../peer.js";
import { openPytorch } from "../pytorch.js";
import type { FlowProblem } from "./problem.js";

export const pytorch: Peer<FlowProblem> = {
  name: "PyTorch",
  ways: [
    { name: "d backward passes", points: "device", tensor: "rk4" },
    { name: "bilinear formula by hand", points: "device", tensor: "rk4" },
  ],
  prepare(way, problem) {
    const parameters = parametersOf(problem).map(({ data }) => data);
    return openPytorch("density", way, problem, [...parameters, problem.u, problem.points], [problem.count]);
  },
};
