import type { fusedForms } from "./fused.js";
import type { FusedSteps } from "./fusedSteps.js";
import type { unrolledSize } from "./operations.js";

/** How plans are fused. It is a file of its own, since many pages never need it. */
export interface Fusing {
  readonly fusedForms: typeof fusedForms;
  readonly unrolledSize: typeof unrolledSize;
  readonly FusedSteps: typeof FusedSteps;
}

let loaded: Fusing | null = null;

/** null before it is loaded: until then no plan is fused. */
export function fusing(): Fusing | null {
  return loaded;
}

export async function loadFusing(): Promise<void> {
  if (loaded) return;
  const [forms, steps, operations] = await Promise.all([import("./fused.js"), import("./fusedSteps.js"), import("./operations.js")]);
  loaded = { fusedForms: forms.fusedForms, unrolledSize: operations.unrolledSize, FusedSteps: steps.FusedSteps };
}
