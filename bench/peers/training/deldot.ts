import { parametersOf } from "../../../dist/index.js";
import { openField } from "../deldot.js";
import type { Problem } from "../networks.js";
import type { Call, Peer } from "../peer.js";

const ways = {
  step: { name: "step", points: "host" },
  update: { name: "step, update", points: "host" },
} as const;

/** As the README's loop trains: f, of which the loss makes its cotangent, then the gradient. */
export const deldot: Peer = { name: "deldot", ways: Object.values(ways), prepare };

async function prepare(way: string, problem: Problem): Promise<Call> {
  const { count, points } = problem;
  // Those that train: none that tuning finds outlives an update, or runs a gradient.
  const { field } = await openField(problem, "layers 4x4");
  const weights = parametersOf(field.network);
  return async () => {
    const { value } = await field.evaluate(points, { outputs: ["value"] });
    const cotangents = { value: value.map((s) => s / count), divergence: 1 / count };
    const { divergence, parameters } = await field.vjp(points, cotangents, { wrt: ["parameters"], outputs: ["divergence"] });
    let loss = 0;
    for (const s of value) loss += s ** 2 / 2 / count;
    for (const trace of divergence) loss += trace / count;
    // By the same weights, so that all calls have one answer: what it costs does not depend on the numbers.
    if (way === ways.update.name) await field.update(weights);
    return [[loss], ...Object.keys(weights).map((name) => parameters[name]!.data)];
  };
}
