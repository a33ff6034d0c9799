import type { fusedForm } from "./fused.js";
import type { FusedSteps } from "./fusedSteps.js";
import type { unrolledSize } from "./operations.js";

/** How plans are fused. It is a file of its own, since many pages never need it. */
export interface Fusing {
  readonly fusedForm: typeof fusedForm;
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
  loaded = { fusedForm: forms.fusedForm, unrolledSize: operations.unrolledSize, FusedSteps: steps.FusedSteps };
}
