import { parametersOf } from "../networks.js";
import type { Peer } from "../peer.js";
import { openPytorch } from "../pytorch.js";

export const pytorch: Peer = {
  name: "PyTorch",
  ways: [
    { name: "d backward passes", points: "device" },
    { name: "bilinear formula by hand", points: "device" },
  ],
  prepare(way, problem) {
    const parameters = parametersOf(problem).map(({ data }) => data);
    const lengths = [1, ...parameters.map(({ length }) => length)];
    return openPytorch("training", way, problem, [...parameters, problem.points], lengths);
  },
};
