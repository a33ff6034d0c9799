import { VectorField, type Network } from "deldot";
import { interleave, statsOf, wallTime, type Stats } from "./measure.js";
import { normalPoints, randomMlp, readNetwork } from "./networks.js";
import type { Bench } from "./prepare.js";

/** `evaluate` of value and divergence, by number of points. */
export interface ScaleResult {
  readonly name: string;
  readonly points: number;
  /** Nanoseconds per point. */
  readonly plain: Stats;
  /** The same with onProgress and a signal. */
  readonly watched: Stats;
  /** How often onProgress was called in one evaluation, on the average. */
  readonly reports: number;
}

/** The host's time for one `encode` of value and divergence, once the field is warm; nothing waits for the GPU. */
export interface EncodeResult {
  readonly name: string;
  readonly points: number;
  /** Milliseconds. */
  readonly call: Stats;
  /** Milliseconds of the very first call after `reserve`. */
  readonly first: number;
}

/** Of samples, after which there are no more of a number of points. */
const MILLISECONDS = 10_000;

/** Time per point of 2-64-2 by number of points. */
export async function measureScale(counts: readonly number[], rounds: number, bench: Bench): Promise<ScaleResult[]> {
  const { device, store, kernels, progress } = bench;
  const network = randomMlp(2, 64, 2, "tanh");
  const results: ScaleResult[] = [];
  for (const count of counts) {
    progress(`scale: ${count} points`);
    const field = await VectorField.create(device, network, { label: "scale", store, kernels });
    await field.tune(count);
    const points = normalPoints(2, count, 2);
    let reports = 0;
    const watch = { onProgress: () => void reports++, signal: new AbortController().signal };
    const plain: number[] = [];
    const watched: number[] = [];
    const samplers = [
      { samples: plain, options: {} },
      { samples: watched, options: watch },
    ].map(({ samples, options }) => ({
      budget: MILLISECONDS,
      sample: async () => void samples.push((1e6 * (await wallTime(() => field.evaluate(points, options)))) / count),
    }));
    await field.evaluate(points);
    await interleave(samplers, rounds);
    field.destroy();
    results.push({ name: "2-64-2", points: count, plain: statsOf(plain), watched: statsOf(watched), reports: reports / watched.length });
  }
  return results;
}

const CALLS_PER_SUBMIT = 10;
/** The host's work hardly depends on it; few points keep the device idle. */
const ENCODED_POINTS = 4;

/** What `encode` costs the host. */
export async function measureEncode(submits: number, bench: Bench): Promise<EncodeResult[]> {
  const { progress } = bench;
  const fields: readonly { readonly name: string; readonly network: Network; readonly context?: number }[] = [
    { name: "2-64-2", network: randomMlp(2, 64, 2, "tanh") },
    { name: "64-256-3", network: randomMlp(64, 256, 3, "tanh") },
    { name: "two-moons-flow", network: await readNetwork("demo/models/two-moons-flow.safetensors"), context: 0.9 },
  ];
  const results: EncodeResult[] = [];
  for (const { name, network, context } of fields) {
    progress(`encode: ${name}`);
    results.push({ name, points: ENCODED_POINTS, ...(await timeCalls(network, context, submits, bench)) });
  }
  return results;
}

async function timeCalls(
  network: Network,
  context: number | undefined,
  submits: number,
  { device, store, kernels }: Bench,
): Promise<Pick<EncodeResult, "call" | "first">> {
  const count = ENCODED_POINTS;
  const field = await VectorField.create(device, network, { label: "encode", store, kernels });
  await field.tune(count);
  await field.reserve(count);
  const make = (width: number): GPUBuffer =>
    device.createBuffer({ label: "bench rows", size: 4 * count * width, usage: GPUBufferUsage.STORAGE });
  const [points, value, divergence] = [make(network.stateSize), make(network.stateSize), make(1)];
  const samples: number[] = [];
  for (let submit = 0; submit < submits; submit++) {
    const encoder = device.createCommandEncoder({ label: "bench" });
    const pass = encoder.beginComputePass({ label: "bench" });
    for (let call = 0; call < CALLS_PER_SUBMIT; call++) {
      const begun = performance.now();
      field.encode(pass, { points, count, context, value, divergence });
      samples.push(performance.now() - begun);
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
  }
  field.destroy();
  for (const buffer of [points, value, divergence]) buffer.destroy();
  // The first submit's calls find nothing compiled or allocated.
  return { call: statsOf(samples.slice(CALLS_PER_SUBMIT)), first: samples[0]! };
}
