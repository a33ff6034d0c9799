import activations from "../../../../shaders/lib/activations.wgsl?raw";
import dispatch from "../../../../shaders/lib/dispatch.wgsl?raw";
import norms from "../../../../shaders/lib/norms.wgsl?raw";
import special from "../../../../shaders/lib/special.wgsl?raw";
import type { Plan } from "../../../plan/plan.js";
import type { Kernel } from "../../../schedule/kernel.js";
import { WORKGROUP_SIZE, type Fused, type Route, type Variant } from "../../../schedule/steps.js";
import { HALF, splitHalf, type Capabilities, type Family } from "../../family.js";
import { PLAIN, PLAIN_HALF } from "../../layers.js";
import { interfaceOf, preamble } from "../../text.js";
import { Looped } from "./looped.js";
import { lower } from "./lower.js";
import { Rolled } from "./rolled.js";
import type { FusedProgram } from "./statements.js";
import type { Writer } from "./writer.js";

/** How kernels of one kind are written, and which device can hold their weights. */
interface Form {
  readonly name: string;
  readonly points: 1 | 2 | 4;
  readonly half: boolean;
  readonly enables: readonly string[];
  readonly writer: (program: FusedProgram) => Writer;
  /** Bytes that one of its buffers of weights may have, and how many of those it may have. */
  readonly mostBytes: number;
  readonly mostBuffers: number;
  /** How long its text may be, in multiply-adds of all points of an invocation. */
  readonly mostText: number;
}

/** Text of more multiply-adds than this takes compilers a minute, and is slower than layers then. */
const LONGEST_TEXT = 13_000;

/** "fused uniform x2", "fused storage x4": loops with weights in a uniform block or a storage buffer, points of an invocation. */
export const loops: Family = {
  example: "fused uniform x2",
  // Processors' compilers take long over these, minutes where they read storage, and they are faster by lanes. One point or four in an
  // invocation took an H200 longer than two, and its compiler seconds.
  variants: (device) =>
    device.isFallback
      ? []
      : [variantOf(looped("uniform", 2, false, device)), ...[false, true].map((half) => variantOf(looped("storage", 2, half, device)))],
  parse: (name, device) => {
    const [whole, half] = splitHalf(name);
    const found = /^fused (uniform|storage) x([124])$/.exec(whole);
    // Uniform blocks take no arrays of narrower numbers.
    if (!found || (half && found[1] === "uniform")) return null;
    const points = Number(found[2]) as Form["points"];
    return { variant: variantOf(looped(found[1] as "uniform" | "storage", points, half, device)), lanes: 0 };
  },
};

/**
 * "fused uniform x2 by 8 lanes": each lane of a subgroup loads one vec4 of weights, out of uniform blocks, and hands its numbers
 * to the others.
 */
export const byLanes: Family = {
  example: "fused uniform x2 by 8 lanes",
  variants: (device) => {
    const lanes = Math.min(32, device.lanes);
    if (lanes < 4) return [];
    // Processors gain from more points in an invocation, for which GPUs lack registers.
    const points = device.isFallback ? ([2, 4] as const) : ([1] as const);
    return points.map((count) => variantOf(rolled(count, lanes, device)));
  },
  parse: (name, device) => {
    const found = /^fused uniform x([124]) by (4|8|16|32|64) lanes$/.exec(name);
    if (!found) return null;
    const lanes = Number(found[2]);
    return { variant: variantOf(rolled(Number(found[1]) as Form["points"], lanes, device)), lanes };
  },
};

function looped(space: "uniform" | "storage", points: Form["points"], half: boolean, device: Capabilities): Form {
  return {
    name: `fused ${space} x${points}${half ? HALF : ""}`,
    points,
    half,
    enables: half ? ["f16"] : [],
    writer: (program) => new Looped(program, points, space, half),
    mostBytes: space === "uniform" ? device.maxUniformBufferBindingSize : device.maxStorageBufferBindingSize,
    mostBuffers: 1,
    mostText: Infinity,
  };
}

function rolled(points: Form["points"], lanes: number, device: Capabilities): Form {
  return {
    name: `fused uniform x${points} by ${lanes} lanes`,
    points,
    half: false,
    enables: ["subgroups"],
    writer: (program) => new Rolled(program, points, lanes),
    mostBytes: device.maxUniformBufferBindingSize,
    // One uniform block is that of the parameters.
    mostBuffers: device.maxUniformBuffersPerShaderStage - 1,
    mostText: LONGEST_TEXT,
  };
}

function variantOf(form: Form): Variant {
  const known = new WeakMap<Plan, Map<Route["to"], Fused | null>>();
  return {
    ...(form.half ? PLAIN_HALF : PLAIN),
    name: form.name,
    fuse: (plan, to) => {
      let routes = known.get(plan);
      if (!routes) known.set(plan, (routes = new Map()));
      let fused = routes.get(to);
      if (fused === undefined) routes.set(to, (fused = fuse(form, plan, to)));
      return fused;
    },
  };
}

function fuse(form: Form, plan: Plan, to: Route["to"]): Fused | null {
  const program = lower(plan, to);
  if (!program) return null;
  const writer = form.writer(program);
  for (const statement of program.statements) writer.write(statement);
  const { text, weights, size } = writer.finish();
  const bytes = [...weights.values()].map(({ byteLength }) => byteLength);
  if (size * form.points > form.mostText || bytes.length > form.mostBuffers || bytes.some((each) => each > form.mostBytes)) return null;
  const source = [preamble(form.enables, [`const WORKGROUP_SIZE = ${WORKGROUP_SIZE}u`]), dispatch, norms, special, activations, text].join(
    "\n",
  );
  const kernel: Kernel = { label: form.name, source, weights, ...interfaceOf(text) };
  return { points: form.points, outputs: program.outputs, terms: program.terms.width, multiplyAdds: program.multiplyAdds, kernel };
}
