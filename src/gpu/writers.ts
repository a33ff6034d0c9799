/** What writes the kernels that fields do not start with: one file to load. */
export { fusedText } from "./fused.js";
export { groupMain } from "./groupTiles.js";
