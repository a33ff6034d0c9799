/** Trains to the end, through devices that are lost. */
import { DeviceLostError } from "../../errors.js";
import type { Network } from "../../index.js";
import { Trainer, type NetworkShape, type TrainerOptions, type TrainerState, type TrainingData } from "../../train/index.js";
import type { NodeDevice } from "../index.js";

/** What is trained, on what. */
export interface TrainingRun {
  readonly network: Network | NetworkShape;
  readonly options: TrainerOptions;
  readonly points: Float32Array;
  readonly data: TrainingData;
  /** Of the whole run. */
  readonly steps: number;
  /** Where it goes on; null: at the beginning. */
  readonly state: TrainerState | null;
}

interface LoopOptions {
  readonly open: () => Promise<NodeDevice>;
  /** Which weights the network gets. */
  readonly averaged: boolean;
  readonly signal: AbortSignal;
  /** @param done of the whole run. */
  readonly onProgress: (done: number, loss: number, stepsPerSecond: number) => void;
  readonly onLost: (error: DeviceLostError, step: number) => void;
}

export interface Trained {
  readonly state: TrainerState;
  readonly network: Network;
  /** Of every step since the state that was given; of a run that failed, none. */
  readonly losses: Float32Array;
  readonly stepsPerSecond: number;
  /** The adapter, for people. */
  readonly adapter: string;
  /** Why it ended before its last step; null where it did not. */
  readonly failure: unknown;
}

/** How many devices may be lost. */
const MOST_LOST = 3;
/** After about so long it is noted where training stands. */
const NOTED_MILLISECONDS = 10_000;
/** Of the first note: fast or slow is not known yet. */
const FIRST_STEPS = 100;

/** @throws what ends the run before its first step; DeviceLostError where devices are lost again and again. */
export async function trainToEnd(run: TrainingRun, options: LoopOptions): Promise<Trained> {
  const losses = new Float32Array(run.steps - (run.state?.step ?? 0));
  let { state } = run;
  for (let lost = 0; ; lost++) {
    const device = await options.open();
    let trainer: Trainer | null = null;
    try {
      trainer = await begin(device.device, run, state);
      const from = state?.step ?? 0;
      return await trainOn(trainer, run, from, losses, device.description, { ...options, note: (noted) => (state = noted) });
    } catch (error) {
      if (!(error instanceof DeviceLostError) || lost === MOST_LOST) throw error;
      options.onLost(error, state?.step ?? 0);
    } finally {
      trainer?.destroy();
      await device.dispose();
    }
  }
}

async function begin(device: GPUDevice, { network, options, points, data }: TrainingRun, state: TrainerState | null): Promise<Trainer> {
  let trainer = state && "operations" in network ? null : await Trainer.create(device, network, options);
  try {
    if (state) {
      const own = trainer ? await trainer.network() : (network as Network);
      trainer?.destroy();
      trainer = null;
      trainer = await Trainer.restore(device, own, options, state);
    }
    await trainer!.data(points, data);
    return trainer!;
  } catch (error) {
    trainer?.destroy();
    throw error;
  }
}

async function trainOn(
  trainer: Trainer,
  { steps, state: first }: TrainingRun,
  from: number,
  losses: Float32Array,
  adapter: string,
  { averaged, signal, onProgress, note }: LoopOptions & { readonly note: (state: TrainerState) => void },
): Promise<Trained> {
  const start = performance.now();
  const speedAt = (step: number): number => (1000 * (step - from)) / (performance.now() - start);
  let speed = 0;
  const end = async (failure: unknown): Promise<Trained> => {
    const state = await trainer.state();
    const network = await trainer.network({ averaged });
    return { state, network, losses: failure === null ? losses : losses.subarray(0, 0), stepsPerSecond: speed, adapter, failure };
  };
  let piece = FIRST_STEPS;
  for (let step = from; step < steps;) {
    const begun = performance.now();
    const count = Math.min(piece, steps - step);
    const before = step;
    try {
      const some = await trainer.train(count, {
        signal,
        onProgress: ({ done, loss }) => onProgress(before + done, loss, speedAt(before + done)),
      });
      losses.set(some, step - (first?.step ?? 0));
    } catch (error) {
      if (error instanceof DeviceLostError) throw error;
      const ended = await end(error);
      if (ended.state.step === (first?.step ?? 0)) throw error;
      return ended;
    }
    step += count;
    speed = speedAt(step);
    // One that the trainer reads between two notes is of a step before which losses are not known yet.
    note(await trainer.state());
    piece = Math.max(1, Math.round((count * NOTED_MILLISECONDS) / (performance.now() - begun)));
  }
  return end(null);
}
