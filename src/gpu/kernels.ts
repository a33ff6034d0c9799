import blend from "../../shaders/blend.wgsl?raw";
import carry from "../../shaders/carry.wgsl?raw";
import combine from "../../shaders/combine.wgsl?raw";
import contract from "../../shaders/contract.wgsl?raw";
import diagonal from "../../shaders/diagonal.wgsl?raw";
import difference from "../../shaders/difference.wgsl?raw";
import dot from "../../shaders/dot.wgsl?raw";
import gather from "../../shaders/gather.wgsl?raw";
import activations from "../../shaders/lib/activations.wgsl?raw";
import dispatch from "../../shaders/lib/dispatch.wgsl?raw";
import padding from "../../shaders/lib/padding.wgsl?raw";
import special from "../../shaders/lib/special.wgsl?raw";
import tangents from "../../shaders/lib/tangents.wgsl?raw";
import norm from "../../shaders/norm.wgsl?raw";
import normTangent from "../../shaders/norm_tangent.wgsl?raw";
import primal from "../../shaders/primal.wgsl?raw";
import probes from "../../shaders/probes.wgsl?raw";
import reduce from "../../shaders/reduce.wgsl?raw";
import { activationWgsl, parseActivation, textOf, type Activation } from "../model/activation.js";
import type { FusedForm } from "../plan/fused.js";
import { loadFusing } from "../plan/fusing.js";
import { scalingsOf, WORKGROUP_SIZE, workgroupSizeOf, type KernelName, type Scaling, type Step } from "../plan/steps.js";
import { nameOfVariant, PLAIN_TILE, type Tile } from "../plan/variants.js";
import { tiledMain } from "./tiles.js";

/** A shader ready to be compiled. What it reads is told by its own text, so nothing is kept in step by hand. */
export interface Kernel {
  readonly label: string;
  readonly source: string;
  /** The members of its struct Parameters, all u32, in order; binding 0 is their uniform block. */
  readonly parameters: readonly string[];
  /** Its buffers, from binding 1 on. */
  readonly storage: readonly { readonly name: string; readonly access: "read" | "read_write" | "uniform" }[];
  /** How long the text of a fused kernel is, in multiply-adds of all points of an invocation. */
  readonly size?: number;
  /** What the buffers of weights of a fused kernel hold, by their names as in `storage`. */
  readonly weights?: ReadonlyMap<string, Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>>;
}

const IDENTITY = parseActivation("identity");

/** All but those that are written when kernels are tried. */
const TEXTS: Record<Exclude<KernelName, "bilinear">, string> = {
  gather,
  probes,
  primal,
  combine,
  norm,
  carry,
  blend,
  norm_tangent: normTangent,
  contract,
  dot,
  diagonal,
  difference,
  reduce,
};
/** Those whose main is written for a tile. */
const PRODUCTS: ReadonlySet<KernelName> = new Set(["primal", "carry", "contract", "bilinear"]);
/** Those whose rows are tangents. */
const TANGENTS: ReadonlySet<KernelName> = new Set(["carry", "contract"]);
/** By label: a step asks for its kernel at every dispatch. */
const kernels = new Map<string, Kernel>();
const interfaces = new Map<string, Pick<Kernel, "parameters" | "storage">>();

/**
 * The kernel of a step; of one in groups or by lanes, after loadWriters. Widths are parameters, not constants, so a device
 * compiles each kernel once for all networks, those that end with an activation once per activation, and products once per
 * tile.
 */
export function kernelOf(step: Pick<Step, "kernel" | "activation" | "tile" | "scaling" | "fused">): Kernel {
  const { kernel, activation, tile, scaling, fused } = step;
  if (kernel === "fused") return fusedKernelOf(fused!);
  const ending = applies(kernel) ? ` ${textOf(activation ?? IDENTITY)}` : "";
  const scaled = scaling === "none" ? "" : scaling === "each" ? ", scaled" : ", scaled together";
  const label = `${kernel}${ending}${scaled}${tile ? `, ${nameOfVariant({ kind: "layers", tile })}` : ""}`;
  let known = kernels.get(label);
  if (!known) kernels.set(label, (known = makeKernel(label, kernel, step)));
  return known;
}

function makeKernel(
  label: string,
  kernel: KernelName,
  { activation, tile, scaling }: Pick<Step, "activation" | "tile" | "scaling">,
): Kernel {
  // An enable directive stands before all else.
  const enabled = `${tile && tile.lanes > 0 ? "enable subgroups;\n" : ""}${tile?.half ? "enable f16;\n" : ""}`;
  const constants = `${enabled}const WORKGROUP_SIZE = ${workgroupSizeOf(tile)}u;\n`;
  const functions = applies(kernel) ? [special, activations, activationWgsl(activation ?? IDENTITY)] : [];
  if (TANGENTS.has(kernel)) functions.push(tangents);
  const text = kernel === "bilinear" ? writers!.bilinear : TEXTS[kernel];
  const main = tile ? [mainOf(kernel, tile, scaling)] : [];
  return { label, source: [constants, dispatch, padding, ...functions, text, ...main].join("\n"), ...interfaceOf(text) };
}

function mainOf(kernel: KernelName, tile: Tile, scaling: Scaling): string {
  if (kernel === "bilinear") return writers!.bilinearMain(tile);
  const contracts = kernel === "contract";
  return tile.group ? writers!.groupMain(tile, scaling, contracts) : tiledMain(tile, scaling, contracts, writers?.byLanes);
}

const fusedKernels = new WeakMap<FusedForm, Kernel>();
let writers: typeof import("./writers.js") | null = null;

/** Loads what writes the kernels of fused plans, of groups and by lanes, once; before that no plan is fused. */
export async function loadWriters(): Promise<void> {
  writers ??= await import("./writers.js");
  await loadFusing();
}

/** The kernel of a fused plan; after loadWriters. */
export function fusedKernelOf(form: FusedForm): Kernel {
  let kernel = fusedKernels.get(form);
  if (!kernel) {
    const { text, weights, size } = writers!.fusedText(form);
    const { half, lanes } = form.variant;
    const constants = `${lanes > 0 ? "enable subgroups;\n" : ""}${half ? "enable f16;\n" : ""}const WORKGROUP_SIZE = ${WORKGROUP_SIZE}u;\n`;
    const source = [constants, dispatch, special, activations, text].join("\n");
    kernel = { label: nameOfVariant(form.variant), source, weights, size: size * form.variant.points, ...readInterface(text) };
    fusedKernels.set(form, kernel);
  }
  return kernel;
}

/**
 * Every kernel that some plan of a network with these activations may run, its products cut into one kind of tile. Every
 * field waits for the plain ones, so of those there are fewer: see scalingsOf.
 */
export function kernelsFor(activations: readonly (Activation | null)[], tile: Tile = PLAIN_TILE): Kernel[] {
  const make = (kernel: KernelName, activation: Activation | null, scaling: Scaling = "none"): Kernel =>
    kernelOf({ kernel, activation, scaling, tile: PRODUCTS.has(kernel) ? tile : null });
  const names = (Object.keys(TEXTS) as (keyof typeof TEXTS)[]).filter((kernel) => !applies(kernel));
  return [
    ...names.flatMap((kernel) =>
      (TANGENTS.has(kernel) ? scalingsOf(tile) : (["none"] as const)).map((scaling) => make(kernel, null, scaling)),
    ),
    ...[null, ...activations].flatMap((activation) => [make("primal", activation), make("combine", activation)]),
  ];
}

/** Whether a kernel ends with an activation. */
function applies(kernel: KernelName): boolean {
  return kernel === "primal" || kernel === "combine" || kernel === "bilinear";
}

/** Reads names and access from the kernel's text; there they are in snake_case, in schedules in camelCase. */
function interfaceOf(text: string): Pick<Kernel, "parameters" | "storage"> {
  let known = interfaces.get(text);
  if (!known) interfaces.set(text, (known = readInterface(text)));
  return known;
}

function readInterface(text: string): Pick<Kernel, "parameters" | "storage"> {
  const camel = (name: string): string => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
  const members = /struct Parameters \{(.*?)\n\}/s.exec(text)![1]!;
  return {
    parameters: [...members.matchAll(/^ {2}(\w+): u32,/gm)].map(([, name]) => camel(name!)),
    storage: [...text.matchAll(/^@group\(0\) @binding\([1-9]\d*\) var<(?:storage, )?(read|read_write|uniform)> (\w+):/gm)].map(
      ([, access, name]) => ({ name: camel(name!), access: access as "read" | "read_write" | "uniform" }),
    ),
  };
}
