/**
 * Training in place, on the device.
 *
 * @module deldot/train
 */
export { Trainer, type NetworkShape, type TrainerState, type TrainingData, type TrainProgress, type TrainRunOptions } from "./trainer.js";
export type { Loss, OptimizerOptions, TrainerOptions } from "./options.js";
