/** How plans are fused: one file to load, since many pages never need it. */
export { fusedForm } from "./fused.js";
export { FusedSteps } from "./fusedSteps.js";
export { withBilinear } from "./merging.js";
export { unrolledSize } from "./operations.js";
