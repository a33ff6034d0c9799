/** The build keeps its declarations in a folder beside its modules; and this folder, a package of its own, cannot say "deldot". */
declare module "*/dist/index.js" {
  export const Flow: typeof import("../../dist/types/index.js").Flow;
  export const mlp: typeof import("../../dist/types/index.js").mlp;
  export const parametersOf: typeof import("../../dist/types/index.js").parametersOf;
  export const parseSafetensors: typeof import("../../dist/types/index.js").parseSafetensors;
  export const VectorField: typeof import("../../dist/types/index.js").VectorField;
  export type Network = import("../../dist/types/index.js").Network;
  export type VectorField = import("../../dist/types/index.js").VectorField;
}
declare module "*/dist/node.js" {
  export const adapterName: typeof import("../../dist/types/node/index.js").adapterName;
  export const createField: typeof import("../../dist/types/node/index.js").createField;
  export const requestDevice: typeof import("../../dist/types/node/index.js").requestDevice;
  export const sleepWhileWaiting: typeof import("../../dist/types/node/index.js").sleepWhileWaiting;
}
declare module "*/dist/train.js" {
  export const Trainer: typeof import("../../dist/types/train/index.js").Trainer;
}
