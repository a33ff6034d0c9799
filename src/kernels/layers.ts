import blend from "../../shaders/blend.wgsl?raw";
import carry from "../../shaders/carry.wgsl?raw";
import combine from "../../shaders/combine.wgsl?raw";
import contract from "../../shaders/contract.wgsl?raw";
import count from "../../shaders/count.wgsl?raw";
import diagonal from "../../shaders/diagonal.wgsl?raw";
import difference from "../../shaders/difference.wgsl?raw";
import dot from "../../shaders/dot.wgsl?raw";
import fold from "../../shaders/fold.wgsl?raw";
import gather from "../../shaders/gather.wgsl?raw";
import kinematics from "../../shaders/kinematics.wgsl?raw";
import activations from "../../shaders/lib/activations.wgsl?raw";
import curvatures from "../../shaders/lib/curvatures.wgsl?raw";
import dispatch from "../../shaders/lib/dispatch.wgsl?raw";
import norms from "../../shaders/lib/norms.wgsl?raw";
import product from "../../shaders/lib/product.wgsl?raw";
import productContracted from "../../shaders/lib/product_contracted.wgsl?raw";
import productStored from "../../shaders/lib/product_stored.wgsl?raw";
import special from "../../shaders/lib/special.wgsl?raw";
import tangents from "../../shaders/lib/tangents.wgsl?raw";
import logDensity from "../../shaders/log_density.wgsl?raw";
import mark from "../../shaders/mark.wgsl?raw";
import multiply from "../../shaders/multiply.wgsl?raw";
import norm from "../../shaders/norm.wgsl?raw";
import normFold from "../../shaders/norm_fold.wgsl?raw";
import normTangent from "../../shaders/norm_tangent.wgsl?raw";
import odeControl from "../../shaders/ode_control.wgsl?raw";
import odeStage from "../../shaders/ode_stage.wgsl?raw";
import outer from "../../shaders/outer.wgsl?raw";
import primal from "../../shaders/primal.wgsl?raw";
import probes from "../../shaders/probes.wgsl?raw";
import reduce from "../../shaders/reduce.wgsl?raw";
import spread from "../../shaders/spread.wgsl?raw";
import { Recent } from "../recent.js";
import { activationWgsl, curvatureWgsl, parseActivation, textOf, type Activation } from "../model/activation.js";
import type { Kernel } from "../schedule/kernel.js";
import { WORKGROUP_SIZE, type KernelName, type Step, type Variant } from "../schedule/steps.js";
import type { Ending, Scaling, Tile } from "../schedule/tile.js";
import { interfaceOf, preamble } from "./text.js";

const IDENTITY = parseActivation("identity");

const TEXTS: Record<KernelName, string> = {
  gather,
  probes,
  primal,
  combine,
  norm,
  carry,
  blend,
  norm_tangent: normTangent,
  fold,
  outer,
  norm_fold: normFold,
  mark,
  multiply,
  ode_stage: odeStage,
  ode_control: odeControl,
  log_density: logDensity,
  contract,
  dot,
  diagonal,
  difference,
  reduce,
  spread,
  count,
  kinematics,
};
/** What those that multiply by a matrix do with their products. */
const PRODUCTS: Partial<Record<KernelName, Ending>> = { primal: "stores", carry: "stores", contract: "contracts" };
/** Those whose rows are tangents. */
const TANGENTS: ReadonlySet<KernelName> = new Set(["carry", "contract"]);
/** Those that gradients, integrations and few outputs alone run; they are compiled when one is first asked for. */
const ON_DEMAND: ReadonlySet<KernelName> = new Set([
  "fold",
  "outer",
  "norm_fold",
  "mark",
  "multiply",
  "ode_stage",
  "ode_control",
  "log_density",
  "spread",
  "count",
  "kinematics",
]);

/** Those that end with an activation. */
const ACTIVATED: ReadonlySet<KernelName> = new Set(["primal", "combine"]);

const [plainTiles, plainHalfTiles] = [plainTile(false), plainTile(true)];

/** The kernels that every network and every device can run: loops over 4 rows and 4 outputs, shaders/lib/product.wgsl. */
export const PLAIN: Variant = layers(plainTiles);

/** The same with weights in float16. */
export const PLAIN_HALF: Variant = layers(plainHalfTiles);

function plainTile(half: boolean): Tile {
  return {
    name: half ? "4x4 in float16" : "4x4",
    rows: 4,
    outputs: 4,
    workgroup: WORKGROUP_SIZE,
    down: 1,
    across: 1,
    half,
    // Every field waits for these kernels, so there is one less.
    scalings: ["none", "each"],
    enables: half ? ["f16"] : [],
    main: (_, ending) =>
      [`alias Weight = ${half ? "vec4h" : "vec4f"};`, product, ending === "stores" ? productStored : productContracted].join("\n"),
  };
}

/** A dispatch per instruction, products cut into tiles. */
export function layers(tile: Tile): Variant {
  return { name: `layers ${tile.name}`, tile, plain: tile.half ? plainHalfTiles : plainTiles, fuse: null };
}

/** By label: a step asks for its kernel at every dispatch. Activations with parameters may come in any number. */
const kernels = new Recent<string, Kernel>(512);

/**
 * The kernel of a step. Widths are parameters, not constants, so a device compiles each kernel once for all networks, those
 * that end with an activation once per activation, and products once per tile.
 */
export function kernelOf(step: Pick<Step, "kernel" | "activation" | "tile" | "scaling" | "curved">): Kernel {
  const { kernel, activation, tile, scaling, curved } = step;
  if (typeof kernel !== "string") return kernel.kernel;
  const ending = ACTIVATED.has(kernel) ? ` ${textOf(activation ?? IDENTITY)}` : "";
  const scaled = scaling === "none" ? "" : scaling === "each" ? ", scaled" : ", scaled together";
  const label = `${kernel}${ending}${curved ? " curved" : ""}${scaled}${tile ? `, ${tile.name}` : ""}`;
  return kernels.get(label, () => makeKernel(label, kernel, step));
}

function makeKernel(
  label: string,
  kernel: KernelName,
  { activation, tile, scaling, curved }: Pick<Step, "activation" | "tile" | "scaling" | "curved">,
): Kernel {
  const constants = [`const WORKGROUP_SIZE = ${tile?.workgroup ?? WORKGROUP_SIZE}u`];
  const parts = [dispatch, norms];
  if (ACTIVATED.has(kernel)) {
    parts.push(special, activations, activationWgsl(activation ?? IDENTITY));
    if (curved) parts.push(curvatures, curvatureWgsl(activation ?? IDENTITY));
    const derivatives = curved ? "activation_with_curvature(z)" : "vec3f(activation(z), 0.0)";
    parts.push(`fn derivatives(z: f32) -> vec3f { return ${derivatives}; }`);
  }
  if (TANGENTS.has(kernel)) {
    constants.push(`const SCALED = ${scaling !== "none"}`);
    parts.push(tangents);
  }
  const text = TEXTS[kernel];
  parts.push(text);
  const ending = PRODUCTS[kernel];
  if (tile && ending) parts.push(tile.main(scaling, ending));
  return { label, source: [preamble(tile?.enables ?? [], constants), ...parts].join("\n"), ...interfaceOf(text) };
}

/** Kernels that encode may run beside those of its plan. */
export function encodeKernels(): Kernel[] {
  return (["count", "spread"] as const).map((kernel) => kernelOf({ kernel, activation: null, tile: null, scaling: "none", curved: false }));
}

/** Every kernel that some plan of a network with these activations may run, its products cut into one kind of tile. */
export function kernelsFor(activations: readonly (Activation | null)[], tile: Tile): Kernel[] {
  const make = (kernel: KernelName, activation: Activation | null, scaling: Scaling = "none"): Kernel =>
    kernelOf({ kernel, activation, scaling, tile: PRODUCTS[kernel] ? tile : null, curved: false });
  const names = (Object.keys(TEXTS) as KernelName[]).filter((kernel) => !ACTIVATED.has(kernel) && !ON_DEMAND.has(kernel));
  return [
    ...names.flatMap((kernel) =>
      (TANGENTS.has(kernel) ? tile.scalings : (["none"] as const)).map((scaling) => make(kernel, null, scaling)),
    ),
    ...[null, ...activations].flatMap((activation) => [make("primal", activation), make("combine", activation)]),
  ];
}
