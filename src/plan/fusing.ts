/** How plans are fused. It is a file of its own, since many pages never need it. */
type Fusing = typeof import("./fusedPlans.js");

let loaded: Fusing | null = null;

/** null before it is loaded: until then no plan is fused. */
export function fusing(): Fusing | null {
  return loaded;
}

export async function loadFusing(): Promise<void> {
  loaded ??= await import("./fusedPlans.js");
}
