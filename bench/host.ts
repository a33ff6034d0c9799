import { VectorField, type Network } from "deldot";
import { interleave, statsOf, wallTime, type Stats } from "./measure.js";
import { normalPoints, randomMlp, readNetwork } from "./networks.js";
import type { Bench } from "./prepare.js";

/** What calls for value and divergence of a few points cost the host, once the field is warm; milliseconds. */
export interface HostResult {
  readonly name: string;
  readonly points: number;
  /** One `encode`; nothing waits for the GPU. */
  readonly encode: Stats;
  /** The WebGPU calls that it makes, by themselves. */
  readonly encodeCalls: Stats;
  /** The very first call after `reserve`. */
  readonly first: number;
  /** One `evaluate`, from call to result. */
  readonly evaluate: Stats;
  /** The same writes, commands and reading back by themselves, from call to result. */
  readonly evaluateCalls: Stats;
}

const CALLS_PER_SUBMIT = 20;
/** The host's work hardly depends on it; few points keep the device idle. */
const POINTS = 4;
/** Of samples of evaluate. */
const MILLISECONDS = 5_000;

export async function measureHost(rounds: number, bench: Bench): Promise<HostResult[]> {
  const { progress } = bench;
  const fields: readonly { readonly name: string; readonly network: Network; readonly context?: number }[] = [
    { name: "2-64-2", network: randomMlp(2, 64, 2, "tanh") },
    { name: "64-256-3", network: randomMlp(64, 256, 3, "tanh") },
    { name: "two-moons-flow", network: await readNetwork("demo/models/two-moons-flow.safetensors"), context: 0.9 },
  ];
  const results: HostResult[] = [];
  for (const { name, network, context } of fields) {
    progress(`host: ${name}`);
    const field = await VectorField.create(bench.device, network, { label: "host", store: bench.store, kernels: bench.kernels });
    await field.tune(POINTS);
    const encoded = await timeEncode(field, context, rounds, bench.device);
    results.push({ name, points: POINTS, ...encoded, ...(await timeEvaluate(field, context, rounds, bench.device)) });
    field.destroy();
  }
  return results;
}

async function timeEncode(
  field: VectorField,
  context: number | undefined,
  submits: number,
  device: GPUDevice,
): Promise<Pick<HostResult, "encode" | "encodeCalls" | "first">> {
  await field.reserve(POINTS);
  const { stateSize } = field.network;
  const make = (width: number): GPUBuffer =>
    device.createBuffer({ label: "bench rows", size: 4 * POINTS * width, usage: GPUBufferUsage.STORAGE });
  const [points, value, divergence] = [make(stateSize), make(stateSize), make(1)];
  const samples: number[] = [];
  const calls: number[] = [];
  for (let submit = 0; submit <= submits; submit++) {
    const encoder = device.createCommandEncoder({ label: "bench" });
    const pass = encoder.beginComputePass({ label: "bench" });
    const seen: PassCall[] = [];
    for (let call = 0; call < CALLS_PER_SUBMIT; call++) {
      samples.push(timeOf(() => field.encode(pass, { points, count: POINTS, context, value, divergence })));
      if (call === 0) field.encode(watched(pass, seen), { points, count: POINTS, context, value, divergence });
      calls.push(timeOf(() => replay(pass, seen)));
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
  }
  for (const buffer of [points, value, divergence]) buffer.destroy();
  // The first submit's calls find nothing compiled or allocated.
  const warm = (all: readonly number[]): Stats => statsOf(all.slice(CALLS_PER_SUBMIT));
  return { encode: warm(samples), encodeCalls: warm(calls), first: samples[0]! };
}

async function timeEvaluate(
  field: VectorField,
  context: number | undefined,
  rounds: number,
  device: GPUDevice,
): Promise<Pick<HostResult, "evaluate" | "evaluateCalls">> {
  const points = normalPoints(3, POINTS, field.network.stateSize);
  const options = { context };
  for (let call = 0; call < 3; call++) await field.evaluate(points, options);
  const commands = await commandsOf(device, () => field.evaluate(points, options));
  const evaluate: number[] = [];
  const evaluateCalls: number[] = [];
  const samplers = [
    { samples: evaluate, work: () => field.evaluate(points, options) },
    { samples: evaluateCalls, work: () => runAgain(device, commands) },
  ].map(({ samples, work }) => ({ budget: MILLISECONDS, sample: async () => void samples.push(await wallTime(work)) }));
  await interleave(samplers, CALLS_PER_SUBMIT * rounds);
  return { evaluate: statsOf(evaluate), evaluateCalls: statsOf(evaluateCalls) };
}

function timeOf(work: () => void): number {
  const begun = performance.now();
  work();
  return performance.now() - begun;
}

type PassCall = (pass: GPUComputePassEncoder) => void;

/** A pass whose calls are noted, too. */
function watched(pass: GPUComputePassEncoder, seen: PassCall[]): GPUComputePassEncoder {
  const noted = (call: PassCall): void => {
    seen.push(call);
    call(pass);
  };
  return {
    setPipeline: (pipeline: GPUComputePipeline) => noted((each) => each.setPipeline(pipeline)),
    setBindGroup: (index: number, group: GPUBindGroup, offsets: number[]) => noted((each) => each.setBindGroup(index, group, offsets)),
    dispatchWorkgroups: (x: number, y: number) => noted((each) => each.dispatchWorkgroups(x, y)),
    end: () => pass.end(),
  } as unknown as GPUComputePassEncoder;
}

function replay(pass: GPUComputePassEncoder, calls: readonly PassCall[]): void {
  for (const call of calls) call(pass);
}

/** What one evaluate tells the device, which it can be told again. */
interface Commands {
  readonly writes: { readonly buffer: GPUBuffer; readonly data: Float32Array<ArrayBuffer> }[];
  readonly calls: PassCall[];
  readonly copies: { readonly from: GPUBuffer; readonly to: GPUBuffer; readonly at: number; readonly size: number }[];
}

async function commandsOf(device: GPUDevice, work: () => Promise<unknown>): Promise<Commands> {
  const commands: Commands = { writes: [], calls: [], copies: [] };
  const { queue } = device;
  const createCommandEncoder = device.createCommandEncoder.bind(device);
  const writeBuffer = queue.writeBuffer.bind(queue);
  queue.writeBuffer = (buffer: GPUBuffer, at: number, data: Float32Array<ArrayBuffer>) => {
    commands.writes.push({ buffer, data: data.slice() });
    writeBuffer(buffer, at, data);
  };
  device.createCommandEncoder = (descriptor) => {
    const encoder = createCommandEncoder(descriptor);
    return {
      beginComputePass: (given: GPUComputePassDescriptor) => watched(encoder.beginComputePass(given), commands.calls),
      copyBufferToBuffer: (from: GPUBuffer, begin: number, to: GPUBuffer, at: number, size: number) => {
        commands.copies.push({ from, to, at, size });
        encoder.copyBufferToBuffer(from, begin, to, at, size);
      },
      finish: () => encoder.finish(),
    } as unknown as GPUCommandEncoder;
  };
  try {
    await work();
  } finally {
    device.createCommandEncoder = createCommandEncoder;
    queue.writeBuffer = writeBuffer;
  }
  return commands;
}

async function runAgain(device: GPUDevice, { writes, calls, copies }: Commands): Promise<Float32Array> {
  for (const { buffer, data } of writes) device.queue.writeBuffer(buffer, 0, data);
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  replay(pass, calls);
  pass.end();
  for (const { from, to, at, size } of copies) encoder.copyBufferToBuffer(from, 0, to, at, size);
  device.queue.submit([encoder.finish()]);
  const staging = copies[0]!.to;
  await staging.mapAsync(GPUMapMode.READ);
  const result = new Float32Array(staging.getMappedRange()).slice();
  staging.unmap();
  return result;
}
