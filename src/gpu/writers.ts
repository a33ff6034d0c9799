/** What writes the kernels that fields do not start with: one file to load. */
export { bilinear, bilinearMain } from "./bilinear.js";
export { fusedText } from "./fused.js";
export * as byLanes from "./lanes.js";
export { groupMain } from "./groupTiles.js";
