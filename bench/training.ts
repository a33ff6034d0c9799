import { Trainer, type Loss } from "deldot/train";
import { interleave, statsOf, wallTime, type Stats } from "./measure.js";
import { normalPoints } from "./networks.js";
import type { Bench } from "./prepare.js";

/** Whole steps of `Trainer`, by loss. */
export interface TrainingResult {
  readonly name: string;
  readonly loss: Loss;
  readonly batch: number;
  /** Steps of one call of `train`, as many as one sample has. */
  readonly steps: number;
  readonly stepsPerSecond: Stats;
  /** Milliseconds of a step. */
  readonly step: Stats;
  /** Milliseconds of a step in which the host records and submits, and those over the step. */
  readonly host: Stats;
  readonly hostShare: Stats;
  /** The step over one of flow matching, of the same network. */
  readonly overFlowMatching: Stats;
  /** On the average over the first and over the last call. */
  readonly losses: readonly [number, number];
}

/** d, the width and the number of hidden layers, and points of a batch. */
const shapes = [
  [2, 64, 2, 1024],
  [16, 128, 2, 1024],
  [64, 256, 2, 512],
] as const;

const losses = ["flow_matching", "score_matching"] as const;
const DATA = 4096;
/** Of one call of `train`, about, so that what it reads at the end hardly counts. */
const MILLISECONDS_PER_CALL = 500;
/** Calls until submissions have the number of steps that they keep. */
const WARM_UP_CALLS = 3;
/** Of samples, after which there are no more of a network. */
const MILLISECONDS = 20_000;

export async function measureTraining(
  named: (label: string) => boolean,
  most: number,
  rounds: number,
  bench: Bench,
): Promise<TrainingResult[]> {
  const { device, progress } = bench;
  const recording = new RecordingWatch(device);
  const results: TrainingResult[] = [];
  for (const [d, width, layers, points] of shapes) {
    const name = `${d}-${width}-${layers}`;
    const batch = Math.min(points, most);
    if (!named(`${name},${points}`)) continue;
    progress(`train: ${name}, batches of ${batch}`);
    const runs: Run[] = [];
    for (const loss of losses) runs.push(await startRun(device, d, Array<number>(layers).fill(width), batch, loss));
    const samplers = runs.map(({ trainer, steps, samples }) => ({
      budget: MILLISECONDS / losses.length,
      sample: async () => {
        recording.milliseconds = 0;
        let trained: Float32Array;
        const step = (await wallTime(async () => (trained = await trainer.train(steps)))) / steps;
        samples.push({ step, host: recording.milliseconds / steps, loss: trained!.reduce((sum, loss) => sum + loss, 0) / steps });
      },
    }));
    await interleave(samplers, rounds);
    for (const { trainer, loss, steps, samples } of runs) {
      const other = runs[0]!.samples;
      results.push({
        name,
        loss,
        batch,
        steps,
        stepsPerSecond: statsOf(samples.map(({ step }) => 1000 / step)),
        step: statsOf(samples.map(({ step }) => step)),
        host: statsOf(samples.map(({ host }) => host)),
        hostShare: statsOf(samples.map(({ host, step }) => host / step)),
        overFlowMatching: statsOf(samples.flatMap(({ step }, i) => (i < other.length ? [step / other[i]!.step] : []))),
        losses: [samples[0]!.loss, samples.at(-1)!.loss],
      });
      trainer.destroy();
    }
  }
  recording.stop();
  return results;
}

/** One call of `train`: milliseconds of a step, and the average of its losses. */
interface Sample {
  readonly step: number;
  readonly host: number;
  readonly loss: number;
}

interface Run {
  readonly loss: Loss;
  readonly trainer: Trainer;
  readonly steps: number;
  readonly samples: Sample[];
}

/** A trainer that is warm, and how many steps a call of it shall have. */
async function startRun(device: GPUDevice, d: number, hidden: readonly number[], batch: number, loss: Loss): Promise<Run> {
  const contextSize = loss === "flow_matching" ? 1 : 0;
  const shape = { stateSize: d, hidden, activation: "tanh", contextSize };
  const trainer = await Trainer.create(device, shape, { loss, batch, label: "train" });
  await trainer.data(normalPoints(2, DATA, d));
  let steps = 1;
  for (let call = 0; call < WARM_UP_CALLS; call++) {
    const milliseconds = await wallTime(() => trainer.train(steps));
    steps = Math.max(1, Math.ceil((steps * MILLISECONDS_PER_CALL) / milliseconds));
  }
  return { loss, trainer, steps, samples: [] };
}

/**
 * Adds up the host's time between making a command encoder and submitting what was recorded: all that a step costs it, but for waiting. The
 * process's own times would not tell, since a software driver computes in threads of the same process.
 */
class RecordingWatch {
  milliseconds = 0;
  readonly stop: () => void;

  constructor(device: GPUDevice) {
    const { queue } = device;
    const createCommandEncoder = device.createCommandEncoder.bind(device);
    const submit = queue.submit.bind(queue);
    let begun = 0;
    device.createCommandEncoder = (descriptor) => {
      begun = performance.now();
      return createCommandEncoder(descriptor);
    };
    queue.submit = (commands) => {
      submit(commands);
      this.milliseconds += performance.now() - begun;
    };
    this.stop = () => {
      device.createCommandEncoder = createCommandEncoder;
      queue.submit = submit;
    };
  }
}
