import { each, type Cut, type Weights } from "./products.js";

/**
 * Each lane loads one number and broadcasts it. A load covers `lanes` outputs of a row of W's transpose, or several rows
 * where their outputs are no more than half of the lanes. `lanes` is a divisor of `outputs` or a multiple of it.
 */
export function lanesOf({ outputs, lanes }: Cut): Weights {
  const atOnce = lanes >= 4 * outputs ? 4 : lanes >= 2 * outputs ? 2 : 1;
  const loads = Math.ceil(outputs / lanes);
  const broadcast = (inner: number, output: number): string => {
    const load = Math.floor(output / lanes);
    return `subgroupBroadcast(w${Math.floor(inner / atOnce)}_${load}, ${(inner % atOnce) * outputs + output - load * lanes}u)`;
  };
  return {
    setup: `
  let lane = subgroup_lane % ${lanes}u;
  let width = p.outer * 4u;
  let inner = min(lane / ${outputs}u, ${atOnce - 1}u);
  ${each(loads, (load) => `let at_lane${load} = inner * width + min(output * 4u + ${load * lanes}u + lane % ${outputs}u, width - 1u);`)}`,
    loads: each(4 / atOnce, (row) =>
      each(loads, (load) => `let w${row}_${load} = f32(weight[(k * 4u + ${row * atOnce}u) * width + at_lane${load}]);`),
    ),
    columns: (quad) =>
      [0, 1, 2, 3]
        .map((inner) => `vec4f(${[0, 1, 2, 3].map((output) => broadcast(inner, quad * 4 + output)).join(", ")})`)
        .join(",\n      "),
  };
}
