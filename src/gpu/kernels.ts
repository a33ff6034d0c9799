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
import norm from "../../shaders/norm.wgsl?raw";
import normTangent from "../../shaders/norm_tangent.wgsl?raw";
import primal from "../../shaders/primal.wgsl?raw";
import probes from "../../shaders/probes.wgsl?raw";
import reduce from "../../shaders/reduce.wgsl?raw";
import { activationWgsl, parseActivation, type Activation } from "../model/activation.js";
import type { KernelName, Step } from "../plan/steps.js";

/** A shader ready to be compiled. What it reads is told by its own text, so nothing is kept in step by hand. */
export interface Kernel {
  readonly label: string;
  readonly source: string;
  /** The members of its struct Parameters, all u32, in order; binding 0 is their uniform block. */
  readonly parameters: readonly string[];
  /** Its storage buffers, from binding 1 on. */
  readonly storage: readonly { readonly name: string; readonly access: "read" | "read_write" }[];
}

/** Invocations per workgroup of every kernel; all adapters allow 256, and 64 keeps small chunks spread out. */
export const WORKGROUP_SIZE = 64;

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
  contract,
  dot,
  diagonal,
  difference,
  reduce,
};
/** By label: a step asks for its kernel at every dispatch. */
const kernels = new Map<string, Kernel>();
const interfaces = new Map<string, Pick<Kernel, "parameters" | "storage">>();

/**
 * The kernel of a step. Widths are parameters, not constants, so a device compiles each kernel once for all networks and
 * those that end with an activation once per activation.
 */
export function kernelOf({ kernel, activation }: Pick<Step, "kernel" | "activation">): Kernel {
  const label = applies(kernel) ? `${kernel} ${activation ?? IDENTITY}` : kernel;
  let known = kernels.get(label);
  if (!known) kernels.set(label, (known = makeKernel(label, kernel, activation)));
  return known;
}

function makeKernel(label: string, kernel: KernelName, activation: Activation | null): Kernel {
  const constants = `const WORKGROUP_SIZE = ${WORKGROUP_SIZE}u;\n`;
  const functions = applies(kernel) ? [special, activations, activationWgsl(activation ?? IDENTITY)] : [];
  return {
    label,
    source: [constants, dispatch, padding, ...functions, TEXTS[kernel]].join("\n"),
    ...interfaceOf(TEXTS[kernel]),
  };
}

/** Every kernel that some plan of a network with these activations may run. */
export function kernelsFor(activations: readonly (Activation | null)[]): Kernel[] {
  const names = (Object.keys(TEXTS) as KernelName[]).filter((kernel) => !applies(kernel));
  return [
    ...names.map((kernel) => kernelOf({ kernel, activation: null })),
    ...[null, ...activations].flatMap((activation) => [
      kernelOf({ kernel: "primal", activation }),
      kernelOf({ kernel: "combine", activation }),
    ]),
  ];
}

/** Whether a kernel ends with an activation. */
function applies(kernel: KernelName): boolean {
  return kernel === "primal" || kernel === "combine";
}

/** Reads names and access from the kernel's text; there they are in snake_case, in schedules in camelCase. */
function interfaceOf(text: string): Pick<Kernel, "parameters" | "storage"> {
  let known = interfaces.get(text);
  if (!known) {
    const camel = (name: string): string => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
    const members = /struct Parameters \{(.*?)\n\}/s.exec(text)![1]!;
    known = {
      parameters: [...members.matchAll(/^ {2}(\w+): u32,/gm)].map(([, name]) => camel(name!)),
      storage: [...text.matchAll(/^@group\(0\) @binding\(\d+\) var<storage, (read|read_write)> (\w+):/gm)].map(([, access, name]) => ({
        name: camel(name!),
        access: access as "read" | "read_write",
      })),
    };
    interfaces.set(text, known);
  }
  return known;
}
