/**
 * Training in place, on the device.
 *
 * @module deldot/train
 */
export type { TrainingData } from "./batches.js";
export type { CustomLoss, CustomLossResult, Integration, Loss, LossBatch, OptimizerOptions, TrainerOptions } from "./options.js";
export { Trainer, type NetworkShape, type TrainerState, type TrainProgress, type TrainRunOptions } from "./trainer.js";
export type { Floats } from "../typedArrays.js";
