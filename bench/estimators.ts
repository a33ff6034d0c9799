/**
 * Measures what estimates of ∇·f err by and what they cost, beside the exact trace; docs/estimators.md says what is measured. Errors are
 * of estimators in float64 (traceEstimators.ts) on the Jacobians of points, times of the kernels on one adapter.
 */
import { Command } from "commander";
import { explainPlan, Flow, VectorField, type Network } from "deldot";
import { adapterName, requestDevice } from "deldot/node";
import { Trainer } from "deldot/train";
import { random } from "../test/random.js";
import { digits, DeviceClock, hostName, interleave, statsOf } from "./measure.js";
import { markdownTable } from "./table.js";
import { normalPoints, randomMlp, readNetwork } from "./networks.js";
import {
  aroundMatrix,
  deflated,
  hutchinson,
  hutchPlusPlus,
  onSphere,
  orthogonalSigns,
  orthonormal,
  powerOfTwo,
  productOf,
  several,
  signs,
  topDirections,
  xtrace,
  type Estimate,
  type Product,
  type Uniform,
} from "./traceEstimators.js";

/** d inputs and outputs, hidden layers of `width`. */
interface Case {
  readonly name: string;
  readonly d: number;
  readonly width: number;
  readonly layers: number;
  /** Points lie half way between noise and images of side x side; null where they are noise alone. */
  readonly side: number | null;
  readonly make: (device: GPUDevice) => Promise<Network>;
}

function randomCase(d: number, width: number, layers: number): Case {
  const make = async (): Promise<Network> => randomMlp(d, width, layers, "tanh");
  return { name: `${d}-${width}-${layers}, random`, d, width, layers, side: null, make };
}

/** Flow matching to images, as long as it takes to say something of trained weights. */
function learnedCase(side: number, width: number, layers: number, batch: number, steps: number): Case {
  const d = side * side;
  const make = async (device: GPUDevice): Promise<Network> => {
    const optimizer = { learningRate: 2e-3, schedule: "cosine", steps } as const;
    const shape = { stateSize: d, hidden: Array<number>(layers).fill(width), activation: "silu", contextSize: 1 };
    const trainer = await Trainer.create(device, shape, { loss: "flow_matching", batch, seed: 1, averaging: 0.99, optimizer });
    await trainer.data(await images(device, side, 2000, 1));
    await trainer.train(steps);
    const network = await trainer.network({ averaged: true });
    trainer.destroy();
    return network;
  };
  return { name: `${d}-${width}-${layers}, learned`, d, width, layers, side, make };
}

const cases: readonly Case[] = [
  randomCase(2, 64, 2),
  {
    name: "checkerboard-flow",
    d: 2,
    width: 128,
    layers: 3,
    side: null,
    make: () => readNetwork("demo/models/checkerboard-flow.safetensors"),
  },
  randomCase(8, 64, 2),
  randomCase(8, 64, 3),
  randomCase(16, 128, 2),
  randomCase(16, 128, 3),
  { name: "digits-flow", d: 64, width: 256, layers: 2, side: 8, make: () => readNetwork("demo/models/digits-flow.safetensors") },
  randomCase(64, 256, 3),
  learnedCase(8, 256, 3, 128, 600),
  randomCase(256, 256, 2),
  learnedCase(16, 256, 3, 128, 300),
  randomCase(784, 512, 2),
  randomCase(784, 512, 3),
  learnedCase(28, 512, 3, 64, 100),
];

/** The time at which flows are evaluated, for all points. */
const TIME = 0.5;

/** Images that digits-flow draws, 8 x 8, enlarged to side x side by linear interpolation: [count, side²]. */
async function images(device: GPUDevice, side: number, count: number, seed: number): Promise<Float32Array> {
  const flow = await Flow.create(device, await readNetwork("demo/models/digits-flow.safetensors"));
  const { points } = await flow.sample(count, { seed, solver: "rk4", steps: 10 });
  flow.destroy();
  const places = Array.from({ length: side }, (_, i) => {
    const place = Math.min(7, Math.max(0, ((i + 0.5) * 8) / side - 0.5));
    const first = Math.min(6, Math.floor(place));
    return { first, share: place - first };
  });
  const across = (row: number, { first, share }: (typeof places)[number]): number =>
    (1 - share) * points[row + first]! + share * points[row + first + 1]!;
  return Float32Array.from({ length: count * side * side }, (_, index) => {
    const y = places[Math.floor(index / side) % side]!;
    const row = 64 * Math.floor(index / side / side) + 8 * y.first;
    const x = places[index % side]!;
    return (1 - y.share) * across(row, x) + y.share * across(row + 8, x);
  });
}

/** Half way between noise and images; noise where there are none. */
async function pointsOf({ d, side }: Case, device: GPUDevice, count: number): Promise<Float32Array> {
  const noise = normalPoints(9, count, d);
  if (!side) return noise;
  const data = await images(device, side, count, 2);
  return noise.map((z, index) => (1 - TIME) * z + TIME * data[index]!);
}

/** One way to estimate, with its price. */
interface Way {
  readonly name: string;
  /** Multiply-adds of a point. */
  readonly multiplyAdds: number;
  /** What runs on the device for its products A v, as many as probes, and whether that is all that an estimator does. */
  readonly timed: {
    readonly probes: number;
    readonly probesPer: "point" | "batch";
    readonly orthogonal: boolean;
    readonly isAll: boolean;
  };
  /** Estimates of all points. */
  readonly run: (seed: number) => Estimate[];
}

/** What all estimators are tried on. */
interface Subject {
  readonly d: number;
  readonly products: readonly Product[];
  readonly truth: readonly number[];
  /** Σ |∂f_i/∂x_i| */
  readonly scale: readonly number[];
  /** The mean Jacobian of other points, and directions along which theirs are the largest beside the diagonal, best first. */
  readonly mean: { readonly product: Product; readonly trace: number };
  readonly directions: readonly Float64Array[];
  /** The standard deviation of vᵀ J v over random signs v, over the scale: root of the mean square over points. */
  readonly deviation: number;
}

const sumOf = (numbers: readonly number[]): number => numbers.reduce((sum, x) => sum + x, 0);
const rms = (numbers: readonly number[]): number => Math.sqrt(sumOf(numbers.map((x) => x * x)) / numbers.length);

/** Jacobians [2 count, d, d]: the first half for what points share, the second for what is estimated. */
function subjectOf(jacobians: Float32Array, d: number, most: number): Subject {
  const all = Array.from({ length: jacobians.length / (d * d) }, (_, b) =>
    Float64Array.from(jacobians.subarray(b * d * d, (b + 1) * d * d)),
  );
  const known = all.slice(0, all.length / 2);
  const tried = all.slice(all.length / 2);
  const diagonalOf = (matrix: Float64Array): number[] => Array.from({ length: d }, (_, i) => matrix[i * d + i]!);
  const mean = Float64Array.from({ length: d * d }, (_, index) => sumOf(known.map((matrix) => matrix[index]!)) / known.length);
  const beside = (matrix: Float64Array): Float64Array =>
    matrix.map((value, index) => {
      const [i, j] = [Math.floor(index / d), index % d];
      return i === j ? 0 : (value + matrix[j * d + i]!) / 2;
    });
  const knownBeside = known.map((matrix) => productOf(beside(matrix)));
  const scale = tried.map((matrix) => sumOf(diagonalOf(matrix).map(Math.abs)));
  return {
    d,
    products: tried.map(productOf),
    truth: tried.map((matrix) => sumOf(diagonalOf(matrix))),
    scale,
    mean: { product: productOf(mean), trace: sumOf(diagonalOf(mean)) },
    directions: topDirections(knownBeside, d, Math.min(most, d), random(4)),
    deviation: rms(tried.map((matrix, b) => Math.sqrt(2 * beside(matrix).reduce((sum, x) => sum + x * x, 0)) / scale[b]!)),
  };
}

function waysOf({ d, width: h, layers }: Case, { products, mean, directions }: Subject): Way[] {
  const inner = (layers - 1) * h * h;
  // A product along a direction of the point's own; along one that all points share, whose first layer costs nothing; the same met by a
  // row that all share, where the last layer costs nothing but a dot product.
  const [own, sharedStart, shared] = [2 * d * h + inner + d, inner + d * h, inner + h];
  const each = (estimate: (product: Product, uniform: Uniform) => Estimate) => (seed: number) =>
    products.map((product, b) => estimate(product, random(100_003 * seed + 7919 * b)));
  const together =
    <T>(draw: (uniform: Uniform) => T, estimate: (product: Product, drawn: T) => Estimate) =>
    (seed: number) => {
      const drawn = draw(random(100_003 * seed + 1));
      return products.map((product) => estimate(product, drawn));
    };
  const budgets = [1, 4, 16, 64].filter((m) => m < d);
  if (d <= 64 && d >= 8 && !budgets.includes(d / 2)) budgets.push(d / 2);
  return budgets.flatMap((m) => {
    const [half, third] = [m / 2, Math.floor(m / 3)];
    const drawSigns = (count: number) => (uniform: Uniform) => several(count, () => signs(d, uniform));
    const drawSphere = (count: number) => (uniform: Uniform) => several(count, () => onSphere(d, uniform));
    const drawOrthogonal = (uniform: Uniform): Float64Array[] => orthogonalSigns(d, m, uniform);
    const perPoint = { probes: m, probesPer: "point", orthogonal: false, isAll: true } as const;
    const perBatch = { ...perPoint, probesPer: "batch" } as const;
    const ways: Way[] = [
      {
        name: "hutchinson, probes per point",
        multiplyAdds: m * own,
        timed: perPoint,
        run: each((A, u) => hutchinson(A, drawSigns(m)(u))),
      },
      { name: "hutchinson, shared probes", multiplyAdds: m * shared, timed: perBatch, run: together(drawSigns(m), hutchinson) },
      {
        name: "around a shared matrix, probes per point",
        multiplyAdds: m * (own + d * d),
        timed: { ...perPoint, isAll: false },
        run: each((A, u) => aroundMatrix(A, mean.product, mean.trace, drawSigns(m)(u))),
      },
      {
        name: "around a shared matrix, shared probes",
        multiplyAdds: m * (shared + d),
        timed: { ...perBatch, isAll: false },
        run: together(drawSigns(m), (A, probes) => aroundMatrix(A, mean.product, mean.trace, probes)),
      },
    ];
    if (m === 1) return ways;
    return [
      ...ways,
      {
        name: "orthogonal, probes per point",
        multiplyAdds: m * own,
        timed: { ...perPoint, orthogonal: true },
        run: each((A, u) => hutchinson(A, drawOrthogonal(u), powerOfTwo(d))),
      },
      {
        name: "orthogonal, shared probes",
        multiplyAdds: m * shared,
        timed: { ...perBatch, orthogonal: true },
        run: together(drawOrthogonal, (A, probes) => hutchinson(A, probes, powerOfTwo(d))),
      },
      {
        name: "shared subspace, learned",
        multiplyAdds: m * shared,
        timed: perBatch,
        run: together(drawSigns(half), (A, probes) => deflated(A, directions.slice(0, half), probes)),
      },
      {
        name: "shared subspace, random",
        multiplyAdds: m * shared,
        timed: perBatch,
        run: together(
          (u) => ({ basis: orthonormal(drawSphere(half)(u)).basis, probes: drawSigns(half)(u) }),
          (A, { basis, probes }) => deflated(A, basis, probes),
        ),
      },
      {
        name: "hutch++",
        multiplyAdds: 3 * third * own + 4 * d * third ** 2,
        timed: { ...perPoint, probes: 3 * third, isAll: false },
        run: each((A, u) => {
          const sketch = drawSigns(third)(u);
          return hutchPlusPlus(A, sketch, drawSigns(third)(u));
        }),
      },
      {
        name: "xtrace",
        multiplyAdds: m * own + 5 * d * half ** 2,
        timed: { ...perPoint, isAll: false },
        run: each((A, u) => xtrace(A, drawSphere(half)(u))),
      },
      {
        name: "xtrace, shared vectors",
        multiplyAdds: half * (own + sharedStart) + 5 * d * half ** 2,
        timed: { ...perPoint, isAll: false },
        run: together(drawSphere(half), (A, vectors) => xtrace(A, vectors)),
      },
    ];
  });
}

/** What a way errs by, over Σ|∂f_i/∂x_i|: at one point, as it says itself, and the mean over all points. */
function errorsOf({ run }: Way, { truth, scale }: Subject, seeds: number): { point: number; said: number; mean: number } {
  const [point, said, mean]: [number[], number[], number[]] = [[], [], []];
  for (let seed = 1; seed <= seeds; seed++) {
    const estimates = run(seed);
    const errors = estimates.map(({ trace }, b) => trace - truth[b]!);
    point.push(...errors.map((error, b) => error / scale[b]!));
    said.push(...estimates.map(({ standardError }, b) => standardError / scale[b]!));
    mean.push(sumOf(errors) / sumOf(scale));
  }
  return { point: rms(point), said: rms(said), mean: rms(mean) };
}

/** What runs on the device: f alone, f and its exact divergence, or so many probes. */
type Timed = "f" | "exact" | Way["timed"];
const keyOf = (timed: Timed): string =>
  typeof timed === "string" ? timed : `${timed.probes} per ${timed.probesPer}${timed.orthogonal ? ", orthogonal" : ""}`;

/** Milliseconds of f alone, and what each adds to it over f alone, all in turns: medians. */
async function measureTimes(network: Network, all: readonly Timed[], device: GPUDevice, rounds: number): Promise<Map<string, number>> {
  const { stateSize: d } = network;
  const { forwardMultiplyAdds } = explainPlan(network, { contextPer: "batch" });
  const count = Math.max(16, Math.min(4096, Math.ceil(2e7 / forwardMultiplyAdds / 16) * 16));
  const clock = new DeviceClock(device);
  const field = await VectorField.create(device, network, { kernels: "layers 8x16" });
  const make = (width: number): GPUBuffer =>
    device.createBuffer({ label: "rows", size: 4 * count * width, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
  const [points, value, divergence] = [make(d), make(d), make(1)];
  device.queue.writeBuffer(points, 0, normalPoints(3, count, d));
  const context = network.contextSize > 0 ? TIME : undefined;
  const timed = [...new Map(all.map((each) => [keyOf(each), each])).values()];
  const samples = new Map(timed.map((each): [string, number[]] => [keyOf(each), []]));
  const work = timed.map((each) => {
    const { probes, probesPer, orthogonal } = typeof each === "object" ? each : {};
    const options = probes ? ({ method: "hutchinson", probes, probesPer } as const) : {};
    const run = (): Promise<number> =>
      clock.time((pass) =>
        field.encode(pass, { points, count, context, value, ...(each !== "f" && { divergence }), ...options, orthogonal }),
      );
    return { each, options, run };
  });
  for (const { each, options, run } of work) {
    const outputs = each === "f" ? (["value"] as const) : (["value", "divergence"] as const);
    await field.reserve(count, { outputs, contextPer: "batch", ...options });
    await run();
  }
  await interleave(
    work.map(({ each, run }) => ({ budget: Infinity, sample: async () => void samples.get(keyOf(each))!.push(await run()) })),
    rounds,
  );
  field.destroy();
  for (const buffer of [points, value, divergence]) buffer.destroy();
  const f = samples.get("f")!;
  return new Map(timed.map((each) => [keyOf(each), statsOf(samples.get(keyOf(each))!.map((ms, round) => ms / f[round]! - 1)).median]));
}

/** Points whose traces are estimated, and repetitions with other seeds. */
function amountsOf(d: number): { count: number; seeds: number } {
  if (d <= 64) return { count: 16, seeds: 32 };
  return d <= 256 ? { count: 8, seeds: 16 } : { count: 4, seeds: 8 };
}

async function measureCase(one: Case, device: GPUDevice, rounds: number): Promise<string> {
  const network = await one.make(device);
  const { d } = one;
  const { count, seeds } = amountsOf(d);
  const points = await pointsOf(one, device, 2 * count);
  const field = await VectorField.create(device, network);
  const { jacobian } = await field.evaluate(points, { outputs: ["jacobian"], context: network.contextSize > 0 ? TIME : null });
  field.destroy();
  const subject = subjectOf(jacobian, d, 32);
  const ways = waysOf(one, subject);
  const { forwardMultiplyAdds, candidates } = explainPlan(network, { outputs: ["divergence"], contextPer: "batch" });
  const exact = candidates.find(({ chosen }) => chosen)!;
  const times = await measureTimes(network, ["f", "exact", ...ways.map(({ timed }) => timed)], device, rounds);

  const meanTruth = sumOf(subject.truth) / count;
  const spread = Math.sqrt(sumOf(subject.truth.map((x) => (x - meanTruth) ** 2)) / (count - 1)) / (sumOf(subject.scale) / count);
  // Each fourth of the points: the mean of a sample without replacement.
  const sampled = spread * Math.sqrt(0.75 / (count / 4));
  const price = (multiplyAdds: number): string => digits(multiplyAdds / forwardMultiplyAdds);
  const rows = [
    [`exact (${exact.method})`, "", price(exact.multiplyAdds), digits(times.get("exact")!), "0", "0", "0", ""],
    ["exact, a fourth of the points", "", price(exact.multiplyAdds / 4), digits(times.get("exact")! / 4), "", "", digits(sampled), ""],
    ...ways.map((way) => {
      const { point, said, mean } = errorsOf(way, subject, seeds);
      const equal = subject.deviation / Math.sqrt(way.multiplyAdds / (2 * d * one.width + (one.layers - 1) * one.width ** 2 + d));
      const time = times.get(keyOf(way.timed))!;
      return [
        way.name,
        String(way.timed.probes),
        price(way.multiplyAdds),
        `${way.timed.isAll ? "" : "≥ "}${digits(time)}`,
        digits(point),
        Number.isNaN(said) ? "" : digits(said),
        digits(mean),
        digits(point / equal),
      ];
    }),
  ];
  const header = ["estimator", "products", "price, f", "time, f", "error", "said", "error of the mean", "over hutchinson's"];
  const title = `### ${one.name}: sd of one probe ${digits(subject.deviation)}, of ∇·f over points ${digits(spread)}`;
  return [title, "", markdownTable([header, ...rows])].join("\n");
}

const command = new Command("bench:estimators")
  .description("Measures what estimates of the divergence err by, and what they cost.")
  .option("--cases <regexp>", "cases whose name matches", "")
  .option("--rounds <n>", "samples of each time, taken in turns", "5")
  .option("--adapter <kind>", "auto or software", "auto");

async function main(): Promise<void> {
  const { cases: named, rounds, adapter } = command.parse().opts<{ cases: string; rounds: string; adapter: "auto" | "software" }>();
  const { device, dispose } = await requestDevice({ adapter });
  try {
    process.stdout.write(`${adapterName(device.adapterInfo)} (${hostName()})\n`);
    for (const one of cases.filter(({ name }) => new RegExp(named).test(name)))
      process.stdout.write(`\n${await measureCase(one, device, Number(rounds))}\n`);
  } finally {
    await dispose();
  }
}

await main();
