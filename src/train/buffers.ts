import { LimitError } from "../errors.js";
import { USAGE } from "../gpu/buffers.js";
import { asGpuError, checked } from "../gpu/errors.js";
import type { Network } from "../model/network.js";
import { parameterLayout, parametersOf } from "../model/parameters.js";
import { stagesOf, tableaus } from "../ode/tableaus.js";
import type { TrainerSettings } from "./options.js";

/** GPUMapMode.READ; the global itself is absent in Node. */
const MAP_READ = 1;
/** Losses that are kept on the device until they are read. */
export const LOSSES_KEPT = 1024;
/** Numbers that the rates of an update go on from. */
export const RATES = 4;
/** No step, no column. */
export const NONE = 0xffffffff;

/** By the names that the kernels have for them. */
export type Buffers = Readonly<Record<Name, GPUBuffer>>;
type Name =
  | "points"
  | "context"
  | "wanted"
  | "value"
  | "divergence"
  | "cotangent"
  | "divergenceCotangent"
  | "gradient"
  | "weights"
  | "averaged"
  | "moments"
  | "progress"
  | "rates"
  | "losses"
  | "pairs"
  | "pool"
  | "path";

/** What each holds at first. */
function contentsOf(network: Network, { batch, loss, pairing, integration }: TrainerSettings): Record<Name, Float32Array | Uint32Array> {
  const { stateSize: d, contextSize: c } = network;
  const { tensors, size } = parameterLayout(network);
  const parameters = parametersOf(network);
  const weights = new Float32Array(size);
  for (const { name, offset } of tensors) weights.set(parameters[name]!.data, offset);
  const isPath = loss === "max_likelihood";
  const slots = isPath ? slotsOf(integration, batch, d) : null;
  const parts = isPath ? 2 : 1;
  return {
    /** [batch, d] */
    points: new Float32Array(isPath ? 0 : batch * d),
    /** [batch, c] */
    context: new Float32Array(batch * c),
    /** [batch, d + 1] */
    wanted: new Float32Array(batch * (d + 1)),
    /** [batch, d] */
    value: new Float32Array(isPath ? 0 : batch * d),
    /** [batch], along a path with that of a stage in a slot of its own. */
    divergence: new Float32Array(parts * slotSize(batch)),
    /** [batch, d] */
    cotangent: new Float32Array(isPath ? 0 : batch * d),
    /** [batch] */
    divergenceCotangent: new Float32Array(batch),
    /** [size], along a path with that of a stage in a slot of its own. */
    gradient: new Float32Array(parts * slotSize(size)),
    weights,
    averaged: weights,
    /** [size, 2] */
    moments: new Float32Array(2 * size),
    /** [step, step of the first loss that was not finite] */
    progress: Uint32Array.of(0, NONE),
    /** [powers of both decays, rate, factor of the gradient] */
    rates: Float32Array.of(1, 1, 0, 1),
    losses: new Float32Array(LOSSES_KEPT),
    /** [batch] */
    pairs: Uint32Array.from({ length: batch }, (_, row) => row),
    /** [2, batch, d] */
    pool: new Float32Array(pairing === "optimal_transport" ? 2 * batch * d : 0),
    /** Slots of [batch, d]; see {@link slotsOf}. */
    path: new Float32Array(slots?.floats ?? 0),
  };
}

/** So many floats for rows that a kernel is given for themselves: WebGPU's offsets are multiples of 256 bytes. */
export function slotSize(floats: number): number {
  return 64 * Math.ceil(floats / 64);
}

/** Where what a path needs lies in one buffer, in floats. */
export interface Slots {
  readonly floats: number;
  /** Where f is evaluated: all stages of all steps, then the end. */
  readonly points: (stage: number) => number;
  /** f of a stage of a step. */
  readonly slope: (stage: number) => number;
  /** ∂L/∂x of the step's end, of what a stage adds, and of where a stage is evaluated. */
  readonly adjoint: number;
  readonly cotangent: number;
  readonly stageAdjoint: (stage: number) => number;
}

export function slotsOf({ solver, steps }: TrainerSettings["integration"], batch: number, d: number): Slots {
  const stages = stagesOf(tableaus[solver]);
  const size = slotSize(batch * d);
  const end = steps * stages + 1;
  return {
    floats: size * (end + 2 * stages + 2),
    points: (stage) => size * stage,
    slope: (stage) => size * (end + stage),
    adjoint: size * (end + stages),
    cotangent: size * (end + stages + 1),
    stageAdjoint: (stage) => size * (end + stages + 2 + stage),
  };
}

/** @throws LimitError where one is too large; GpuError where memory runs out. */
export async function makeBuffers(device: GPUDevice, network: Network, settings: TrainerSettings): Promise<Buffers> {
  let contents: [string, Float32Array | Uint32Array][];
  try {
    contents = Object.entries(contentsOf(network, settings));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new LimitError("what a step needs is more than one array can hold; expected a smaller batch or fewer integration.steps", {
      cause: error,
    });
  }
  for (const [name, { byteLength }] of contents) {
    const largest = largestOf(device);
    if (byteLength > largest)
      throw new LimitError(
        `the ${name} of a step take ${byteLength} bytes; the device allows ${largest} in one buffer; expected a smaller ${
          name === "path" ? "batch, or fewer integration.steps" : "batch or network"
        }`,
      );
  }
  const made: [string, GPUBuffer][] = [];
  try {
    await checked(device, settings.label, () => {
      for (const [name, numbers] of contents) made.push([name, upload(device, settings.label, numbers)]);
    });
  } catch (error) {
    for (const [, buffer] of made) buffer.destroy();
    throw error;
  }
  return Object.fromEntries(made) as Buffers;
}

/** Bytes that one buffer may have. */
export function largestOf({ limits: { maxStorageBufferBindingSize, maxBufferSize } }: GPUDevice): number {
  return Math.min(maxStorageBufferBindingSize, maxBufferSize);
}

export function upload(device: GPUDevice, label: string, numbers: Float32Array | Uint32Array): GPUBuffer {
  const usage = USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST;
  const buffer = device.createBuffer({ label, size: Math.max(16, 4 * Math.ceil(numbers.byteLength / 4)), usage, mappedAtCreation: true });
  const range = buffer.getMappedRange();
  if (numbers instanceof Float32Array) new Float32Array(range).set(numbers);
  else new Uint32Array(range).set(numbers);
  buffer.unmap();
  return buffer;
}

/** What the buffers hold once all that was submitted is done. @throws GpuError. */
export async function readBuffers(device: GPUDevice, label: string, buffers: readonly GPUBuffer[]): Promise<ArrayBuffer[]> {
  const size = buffers.reduce((sum, each) => sum + each.size, 0);
  let staging: GPUBuffer | null = null;
  try {
    const made = await checked(device, label, () => {
      const created = (staging = device.createBuffer({ label, size, usage: USAGE.MAP_READ | USAGE.COPY_DST }));
      const encoder = device.createCommandEncoder({ label });
      let at = 0;
      for (const buffer of buffers) {
        encoder.copyBufferToBuffer(buffer, 0, created, at, buffer.size);
        at += buffer.size;
      }
      device.queue.submit([encoder.finish()]);
      return created;
    });
    await made.mapAsync(MAP_READ);
    const all = made.getMappedRange();
    let at = 0;
    return buffers.map(({ size: bytes }) => all.slice(at, (at += bytes)));
  } catch (error) {
    throw asGpuError(label, error);
  } finally {
    (staging as GPUBuffer | null)?.destroy();
  }
}
