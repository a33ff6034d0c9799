import { Flow, VectorField } from "../../../dist/index.js";
import { requestDevice } from "../../../dist/node.js";
import type { Kernels, Peer } from "../peer.js";
import { readNetwork, STEPS, type FlowProblem } from "./problem.js";

const ways = {
  rk4: { name: "rk4", points: "host", tensor: "rk4" },
  tsit5: { name: "tsit5, 1e-5", points: "host", tensor: "path" },
} as const;

export const deldot: Peer<FlowProblem> = {
  name: "deldot",
  ways: Object.values(ways),
  async prepare(way, problem, { valueToo }) {
    const { device } = await requestDevice();
    const flow = await Flow.create(device, readNetwork(problem), { kernels: valueToo });
    const options = way === ways.rk4.name ? ({ solver: "rk4", steps: STEPS } as const) : {};
    return async () => [(await flow.logProb(problem.points, options)).logProb];
  },
};

/** A path takes f and its divergence together. */
export async function tuneFlow(problem: FlowProblem): Promise<Kernels> {
  const { device } = await requestDevice();
  const field = await VectorField.create(device, readNetwork(problem));
  const { kernels } = (await field.tune(problem.count, { outputs: ["value", "divergence"] })).find(({ chosen }) => chosen)!;
  return { divergence: kernels, valueToo: kernels };
}
