import activations from "../../../../shaders/lib/activations.wgsl?raw";
import dispatch from "../../../../shaders/lib/dispatch.wgsl?raw";
import norms from "../../../../shaders/lib/norms.wgsl?raw";
import special from "../../../../shaders/lib/special.wgsl?raw";
import type { Plan } from "../../../plan/plan.js";
import { WORKGROUP_SIZE, type Fused, type Route, type Variant } from "../../../schedule/steps.js";
import { HALF } from "../../capabilities.js";
import { PLAIN, PLAIN_HALF } from "../../layers.js";
import { interfaceOf, preamble } from "../../text.js";
import { lower } from "./lower.js";
import { POINTS, textOf } from "./writer.js";

/** What a storage buffer may have on every device. */
const MOST_BYTES = 2 ** 27;

/** "fused storage x2": all layers of two points in one invocation, weights in a storage buffer. */
export function fused(half: boolean): Variant {
  const name = `fused storage x${POINTS}${half ? HALF : ""}`;
  const known = new WeakMap<Plan, Map<Route["to"], Fused | null>>();
  return {
    ...(half ? PLAIN_HALF : PLAIN),
    name,
    fuse: (plan, to) => {
      let routes = known.get(plan);
      if (!routes) known.set(plan, (routes = new Map()));
      let kernel = routes.get(to);
      if (kernel === undefined) routes.set(to, (kernel = fuse(name, half, plan, to)));
      return kernel;
    },
  };
}

function fuse(label: string, half: boolean, plan: Plan, to: Route["to"]): Fused | null {
  const program = lower(plan, to);
  if (!program) return null;
  const { text, weights } = textOf(program, half);
  if (weights.byteLength > MOST_BYTES) return null;
  const constants = [`const WORKGROUP_SIZE = ${WORKGROUP_SIZE}u`];
  const source = [preamble(half ? ["f16"] : [], constants), dispatch, norms, special, activations, text].join("\n");
  const kernel = { label, source, weights, ...interfaceOf(text) };
  return { points: POINTS, outputs: program.outputs, terms: program.terms.width, multiplyAdds: program.multiplyAdds, kernel };
}
