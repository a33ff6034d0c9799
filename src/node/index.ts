/**
 * Headless Node: a field on whatever computes the fastest, and a GPUDevice from the npm package `webgpu`, on a real GPU or on a software one.
 *
 * @module deldot/node
 */
export {
  adapterName,
  describeAdapter,
  requestDevice,
  type AdapterReport,
  type DriverAttempt,
  type NodeDevice,
  type RequestDeviceOptions,
} from "./adapters.js";
export { createField, NodeField, type CreateFieldOptions } from "./createField.js";
export { engines, type Engine } from "./engines.js";
export { fileStore } from "./fileStore.js";
export { sleepWhileWaiting } from "./sleepWhileWaiting.js";
