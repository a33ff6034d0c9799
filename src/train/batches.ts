import { InputError, LimitError } from "../errors.js";
import { readBatch, type BatchInput } from "../inputs.js";
import { mixBits } from "../mixBits.js";
import type { Network } from "../model/network.js";
import { asBits } from "../schedule/recorder.js";
import { largestOf, NONE, upload, type Buffers } from "./buffers.js";
import type { Bound, Dispatch, TrainKernels } from "./kernels.js";
import type { TrainerSettings } from "./options.js";

/** How often every two rows of a batch are asked whether they had better exchange their noise. */
const SWEEPS = 2;
/** Steps whose rows are sent at once, where the device does not hold all data. */
const MOST_WINDOW = 256;

/** Data to train on. */
export interface TrainingData {
  /** The context but for time, of each point: [N, columns]. */
  readonly context?: BatchInput | undefined;
  /** What f should be, of a regression, or what a loss of one's own is given: [N, d]. */
  readonly targets?: BatchInput | undefined;
}

/** Rows of points, of their contexts but for time, and of their targets. */
interface Rows {
  readonly count: number;
  readonly tables: readonly { readonly name: "data" | "conditions" | "targets"; readonly width: number; readonly numbers: Float32Array }[];
}

/** @throws InputError. */
export function readData(
  { stateSize: d, contextSize: c }: Network,
  settings: TrainerSettings,
  points: BatchInput,
  given: TrainingData,
): Rows {
  const { loss, timeColumn } = settings;
  const { data, count } = readBatch(points, d, "points");
  if (count === 0) throw new InputError("points are none; expected at least one");
  const width = c - (timeColumn === null ? 0 : 1);
  const conditions = rowsOf(given.context, width, count, "context");
  const hasTargets = loss === "regression" || (loss === "custom" && given.targets !== undefined);
  const targets = rowsOf(given.targets, hasTargets ? d : 0, count, "targets");
  for (const [what, numbers] of Object.entries({ points: data, context: conditions, targets }))
    for (let i = 0; i < numbers.length; i++)
      if (!Number.isFinite(Math.fround(numbers[i]!)))
        throw new InputError(`${what} holds ${numbers[i]} at position ${i}; expected finite numbers`);
  return {
    count,
    tables: [
      { name: "data", width: d, numbers: new Float32Array(data) },
      { name: "conditions", width, numbers: new Float32Array(conditions) },
      { name: "targets", width: hasTargets ? d : 0, numbers: new Float32Array(targets) },
    ],
  };
}

/** Rows of one width for each point. @throws InputError. */
function rowsOf(given: BatchInput | undefined, width: number, count: number, what: string): ArrayLike<number> {
  if (width === 0) {
    if (given !== undefined) throw new InputError(`${what} is given; this loss and this network take none`);
    return [];
  }
  if (given === undefined) throw new InputError(`${what} is missing; expected ${count} rows of ${width} numbers`);
  const read = readBatch(given, width, what);
  if (read.count !== count) throw new InputError(`${what} has ${read.count} rows; expected ${count}, one for each point`);
  return read.data;
}

/** Which of `count` points a row of a step's batch is: the twin of row_of_data in shaders/train/batch.wgsl. */
export function drawnOf(seed: number, step: number, row: number, count: number): number {
  const bits = mixBits(mixBits(mixBits(mixBits(seed) + step) + row));
  // The whole part of bits / 2^32 count, in numbers that float64 holds.
  return Math.floor(((bits >>> 16) * count + Math.floor(((bits & 0xffff) * count) / 2 ** 16)) / 2 ** 16);
}

/**
 * Draws batches of the data: out of buffers that hold all of it, or, where it is more than the budget, out of a window of the rows that the
 * next steps draw, which the host sends ahead. Both draw the same.
 */
export class Batches {
  /** How many steps may go in one submission. */
  readonly mostSteps: number;
  readonly hasTargets: boolean;
  /** What the device does not hold. */
  private readonly rows: Rows | null;
  private readonly window: number;
  private readonly buffers: readonly GPUBuffer[];
  private readonly dispatches: readonly Dispatch[];

  /** @param points where they go. */
  constructor(
    private readonly device: GPUDevice,
    kernels: TrainKernels,
    private readonly settings: TrainerSettings,
    { stateSize: width, contextSize: contexts }: Network,
    all: Buffers,
    points: Bound,
    rows: Rows,
  ) {
    const { loss, batch, timeColumn, seed, noise, memoryBudget, pairing, label } = settings;
    const { count, tables } = rows;
    const bytes = tables.map(({ numbers }) => numbers.byteLength);
    const isHeld = bytes.reduce((sum, each) => sum + each, 0) <= memoryBudget && Math.max(...bytes) <= largestOf(device);
    const ofStep = tables.map((table) => 4 * batch * table.width);
    const fitting = Math.min(memoryBudget / ofStep.reduce((sum, each) => sum + each, 0), largestOf(device) / Math.max(...ofStep));
    if (!isHeld && fitting < 1)
      throw new LimitError(
        `a step's rows take ${Math.max(...ofStep)} bytes and more, beyond the memory budget or one buffer; expected a smaller batch`,
      );
    this.window = isHeld ? 0 : Math.min(MOST_WINDOW, Math.floor(fitting));
    this.mostSteps = this.window || Infinity;
    this.hasTargets = tables[2]!.width > 0;
    this.rows = isHeld ? null : rows;
    this.buffers = tables.map((table) =>
      upload(device, label, isHeld ? table.numbers : new Float32Array(this.window * batch * table.width)),
    );
    const [data, conditions, targets] = this.buffers as [GPUBuffer, GPUBuffer, GPUBuffer];
    const isScore = loss === "score_matching" || loss === "sliced_score_matching";
    const shared = { batch, width, count, window: this.window, seed };
    const draw = kernels.bind(
      "draw",
      {
        ...shared,
        kind: loss === "flow_matching" ? 1 : loss === "denoising_score_matching" ? 2 : isScore ? 3 : 0,
        contexts,
        timeColumn: timeColumn ?? NONE,
        hasTargets: this.hasTargets ? 1 : 0,
        leastNoise: asBits(Math.log(noise[0])),
        mostNoise: asBits(Math.log(noise[1])),
      },
      { ...all, points, data, conditions, targets },
      batch,
    );
    const rounds = 2 ** Math.ceil(Math.log2(batch));
    const isPaired = pairing === "optimal_transport";
    this.dispatches = isPaired ? [kernels.bind("pair", { ...shared, rounds, sweeps: SWEEPS }, { ...all, data }, 0), draw] : [draw];
  }

  /** Sends what the next steps draw, where the device does not hold it. */
  send(step: number, steps: number): void {
    const { batch, seed } = this.settings;
    const { rows } = this;
    if (!rows) return;
    const drawn = Uint32Array.from({ length: batch * steps }, (_, i) => drawnOf(seed, step + Math.floor(i / batch), i % batch, rows.count));
    rows.tables.forEach(({ width, numbers }, index) => {
      if (width === 0) return;
      const sent = new Float32Array(batch * width);
      for (let k = 0; k < steps; k++) {
        for (let row = 0; row < batch; row++) {
          const from = drawn[k * batch + row]! * width;
          for (let column = 0; column < width; column++) sent[row * width + column] = numbers[from + column]!;
        }
        this.device.queue.writeBuffer(this.buffers[index]!, 4 * ((step + k) % this.window) * sent.length, sent);
      }
    });
  }

  record(pass: GPUComputePassEncoder): void {
    for (const dispatch of this.dispatches) dispatch(pass);
  }

  destroy(): void {
    for (const buffer of this.buffers) buffer.destroy();
  }
}
