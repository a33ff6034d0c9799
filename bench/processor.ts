import { VectorField, type Network } from "deldot";
import { createField, type NodeField } from "deldot/node";
import { cases, isPerPoint, labelOf, type Inputs } from "./cases.js";
import { interleave, statsOf, wallTime, type Stats } from "./measure.js";
import { LEAST_POINTS, type Bench } from "./prepare.js";

/** `evaluate` of f and its divergence, by onnxruntime on the processor beside each kind of kernels on the adapter. */
export interface ProcessorResult {
  readonly name: string;
  readonly points: number;
  /** Milliseconds, from call to result. */
  readonly processor: Stats;
  readonly kernels: readonly {
    readonly name: string;
    readonly milliseconds: Stats;
    /** Of onnxruntime over these, in each round. */
    readonly ratio: Stats;
  }[];
}

/** Of one call; what takes longer gets fewer points. */
const MOST_MILLISECONDS = 1000;
/** Of samples of one way of one case. */
const MILLISECONDS = 3000;
/** Calls of a sample: the first finds threads asleep and others' numbers in the caches, and does not count. */
const CALLS = 3;

/** @throws Error where onnxruntime-node is not installed. */
export async function measureProcessor(
  named: (label: string) => boolean,
  most: number,
  rounds: number,
  bench: Bench,
): Promise<ProcessorResult[]> {
  const results: ProcessorResult[] = [];
  for (const chosen of cases) {
    if (chosen.full || !named(labelOf(chosen.name, chosen.points))) continue;
    bench.progress(`processor: ${chosen.name}`);
    results.push(await measure(chosen.name, await chosen.make(Math.min(chosen.points, most)), rounds, bench));
  }
  return results;
}

async function measure(name: string, inputs: Inputs, rounds: number, { device, store, kernels: asked }: Bench): Promise<ProcessorResult> {
  const { network } = inputs;
  const options = { outputs: ["value", "divergence"], contextPer: isPerPoint(inputs.context) ? "point" : "batch" } as const;
  const tuned = await VectorField.create(device, network, { label: "processor", store });
  const tried = (await tuned.tune(LEAST_POINTS, options)).filter(({ milliseconds, differs }) => milliseconds < Infinity && !differs);
  const names = asked === "auto" ? tried.map(({ kernels }) => kernels) : [asked];
  tuned.destroy();
  const fields = await Promise.all(names.map((kernels) => VectorField.create(device, network, { label: "processor", kernels, store })));
  const onProcessor = await createField(network, { device: "cpu" });

  let count = inputs.points.length / network.stateSize;
  for (const field of fields) count = await affordable(field, inputs, count);
  const ways = [onProcessor, ...fields].map((field) => ({ field, samples: [] as number[] }));
  await interleave(
    ways.map(({ field, samples }) => ({
      budget: MILLISECONDS,
      sample: async () => {
        const times: number[] = [];
        for (let call = 0; call < CALLS; call++) times.push(await timeOf(field, inputs, count));
        samples.push(statsOf(times.slice(1)).median);
      },
    })),
    rounds,
  );
  for (const { field } of ways.slice(1)) (field as VectorField).destroy();
  await onProcessor.close();
  const [processor, ...others] = ways;
  return {
    name,
    points: count,
    processor: statsOf(processor!.samples),
    kernels: others.map(({ samples }, index) => ({
      name: names[index]!,
      milliseconds: statsOf(samples),
      ratio: statsOf(samples.map((time, round) => processor!.samples[round]! / time)),
    })),
  };
}

/** How many of so many points one call may have, found by trying more and more. */
async function affordable(field: VectorField, inputs: Inputs, most: number): Promise<number> {
  for (let count = Math.min(most, LEAST_POINTS); ; count = Math.min(most, 4 * count)) {
    await timeOf(field, inputs, count);
    const points = Math.min(most, Math.floor((count * MOST_MILLISECONDS) / (await timeOf(field, inputs, count))));
    if (points <= 4 * count || count === most) return Math.max(1, points);
  }
}

function timeOf(field: VectorField | NodeField, { network, points, context }: Inputs, count: number): Promise<number> {
  const { stateSize, contextSize }: Network = network;
  const own = isPerPoint(context) ? context.subarray(0, count * contextSize) : context;
  return wallTime(() => field.evaluate(points.subarray(0, count * stateSize), { context: own }));
}
