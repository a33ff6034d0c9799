import { isOnes } from "./program.js";
import type { Binding, Step } from "./steps.js";
import { SHORT_FORM } from "./terms.js";
import type { Plan } from "./trace.js";

/**
 * The steps of a bilinear form, σ'ᵀ M s, with the product of the layer that σ' is of and that by M as one: its slopes then
 * never go through memory. `unused` names the scratch that they, and terms that nobody reads, would have. Null where the steps are
 * not such.
 */
export function withBilinear(plan: Plan, steps: readonly Step[]): { steps: Step[]; unused: string[] } | null {
  if (!isBilinear(plan)) return null;
  const contract = steps.find(({ kernel }) => kernel === "contract");
  const slopes = contract?.bindings["contractionScale"];
  if (!contract || slopes?.kind !== "scratch") return null;
  const makes = (binding: Binding | undefined): number =>
    steps.findIndex(({ kernel, bindings: { scale } }) => APPLY.has(kernel) && isSame(scale, binding));
  const place = makes(slopes);
  const layer = steps[place];
  if (layer?.kernel !== "primal" || layer.parameters["rows"] !== contract.parameters["rows"]) return null;
  if (makes(contract.bindings["tangent"]) >= place) return null;
  // One part is the divergence itself, which needs no step of its own to come to the caller's buffer.
  const copy = steps.find(({ kernel, parameters }) => kernel === "reduce" && parameters["width"] === 1);
  const merged = merge(layer, contract, copy, steps);
  const left = steps.filter((step) => step !== contract && step !== copy);
  const terms = contract.bindings["terms"];
  const unused = copy && terms?.kind === "scratch" ? [slopes.name, terms.name] : [slopes.name];
  return { steps: left.map((step) => (step === layer ? merged : step)), unused };
}

/** The kernels that leave slopes in a buffer `scale`. */
const APPLY: ReadonlySet<string> = new Set(["primal", "combine"]);

function isSame(a: Binding | undefined, b: Binding | undefined): boolean {
  return a?.kind === "scratch" && b?.kind === "scratch" && a.name === b.name;
}

/** Whether the trace is one short contraction of tangents and rows that are all ones, but for scales, and its sum is all. */
function isBilinear(plan: Plan): boolean {
  if (plan.kind !== "trace" || plan.instructions.length !== 1 || plan.tangents !== 1 || plan.diagonal) return false;
  const [only] = plan.instructions;
  return (
    only?.kind === "contract" &&
    only.matrix !== null &&
    only.matrix.rows * only.matrix.columns <= SHORT_FORM &&
    isOnes(only.from.rows) &&
    isOnes(only.rows) &&
    only.from.scale.length === 1 &&
    only.scale.length === 1 &&
    only.endScale.length === 0
  );
}

function merge(layer: Step, contract: Step, copy: Step | undefined, steps: readonly Step[]): Step {
  const { bindings, parameters } = layer;
  const out = bindings["out"]!;
  const isRead = (step: Step): boolean => step !== layer && Object.values(step.bindings).some((binding) => isSame(binding, out));
  const stores = out.kind === "outer" || steps.some(isRead);
  const names = ["rows", "size", "inner", "outer", "inputPerRow", "priorPerRow", "outOffset", "outStride"];
  return {
    ...layer,
    label: `${layer.label}; ${contract.label}`,
    kernel: "bilinear",
    parameters: {
      ...Object.fromEntries(names.map((name) => [name, parameters[name]!])),
      scalePerRow: contract.parameters["tangentPerPoint"]!,
      parts: contract.parameters["parts"]!,
      outWidth: stores ? parameters["outWidth"]! : 0,
      termsOffset: copy?.parameters["outOffset"] ?? 0,
      termsStride: copy?.parameters["outStride"] ?? contract.parameters["parts"]!,
    },
    bindings: {
      weight: bindings["weight"]!,
      form: contract.bindings["weight"]!,
      prior: bindings["prior"]!,
      a: bindings["a"]!,
      scale: contract.bindings["tangent"]!,
      out,
      terms: (copy?.bindings["out"] ?? contract.bindings["terms"])!,
    },
    invocations: contract.invocations,
    multiplyAdds: layer.multiplyAdds + contract.multiplyAdds,
  };
}
