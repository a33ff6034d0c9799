import { statsOf, wallTime, type DeviceClock } from "./measure.js";

/** What the adapter can do at most, by its own kernels without anything around them. */
export interface Peaks {
  /** GFLOP/s of the best loop whose operands are in registers. */
  readonly looped: number;
  /** GFLOP/s of the best unrolled code whose factors are literals. */
  readonly literal: number;
  /** Every form tried. */
  readonly forms: readonly { readonly name: string; readonly kind: "looped" | "literal"; readonly gflops: number }[];
  /** GB/s of copyBufferToBuffer, bytes read plus bytes written. */
  readonly copy: number;
  /** GB/s of a kernel that reads and writes every element of two storage buffers, bytes read plus bytes written. */
  readonly stream: number;
}

/** Multiply-adds of one invocation; every form below divides it. */
const MULTIPLY_ADDS = 2048;
const WORKGROUP = 64;
/** What is timed takes at least this long, or is repeated so often: timestamps may be rounded to a tenth of a millisecond. */
const LEAST_MILLISECONDS = 20;
const MOST_REPEATS = 2 ** 14;
const REPEATS = 7;
const COPY_BYTES = 64 * 2 ** 20;

interface Form {
  readonly name: string;
  readonly kind: "looped" | "literal";
  /** WGSL statements that end with `result`; `x` differs by invocation, and no compiler knows `operands`. */
  readonly body: string;
}

const times = (count: number, text: (index: number) => string): string => Array.from({ length: count }, (_, i) => text(i)).join("\n");
const literal = (row: number, column: number): string => `${(0.3 + row * 0.013 + column * 0.0017).toFixed(6)}f`;
const sum = (name: string, count: number): string => `let result = ${times(count, (i) => `${i > 0 ? "+ " : ""}${name}${i}`)};`;

/** Independent chains a = a * c + e, with c and e in registers. */
function loopedChains(chains: number): Form {
  const body = `${times(chains, (i) => `var a${i} = x + ${i}.0;`)}
    for (var i = 0u; i < ${MULTIPLY_ADDS / chains}u; i++) {
      ${times(chains, (i) => `a${i} = a${i} * operands.x + operands.y;`)}
    }
    ${sum("a", chains)}`;
  return { name: `${chains} chains`, kind: "looped", body };
}

/**
 * Eight steps unrolled, each with literals of its own. A chain adds its neighbour's number: of a constant instead NVIDIA's compiler makes one
 * step of all eight.
 */
function literalChains(chains: number): Form {
  const body = `${times(chains, (i) => `var a${i} = x + ${i}.0;`)}
    for (var i = 0u; i < ${MULTIPLY_ADDS / chains / 8}u; i++) {
      ${times(8, (step) => times(chains, (i) => `a${i} = a${i} * ${literal(step, i)} + a${(i + 1) % chains};`))}
    }
    ${sum("a", chains)}`;
  return { name: `${chains} chains`, kind: "literal", body };
}

/** A step of a matrix product: z_o += w * a_j; the a_j move, else their products could leave the loop. */
function outerProduct(kind: Form["kind"], outputs: number, inputs: number): Form {
  const weight = (o: number, j: number): string => (kind === "literal" ? literal(j, o) : `w${o}`);
  const body = `${times(outputs, (o) => `var z${o} = x + ${o}.0;`)}
    ${kind === "looped" ? times(outputs, (o) => `let w${o} = operands.x + ${o}.0;`) : ""}
    ${times(inputs, (j) => `var a${j} = x * ${j + 1}.0;`)}
    for (var i = 0u; i < ${MULTIPLY_ADDS / outputs / inputs}u; i++) {
      ${times(inputs, (j) => `${times(outputs, (o) => `z${o} += ${weight(o, j)} * a${j};`)}\na${j} += operands.y;`)}
    }
    ${sum("z", outputs)}`;
  return { name: `${outputs} x ${inputs} outer product`, kind, body };
}

const forms: readonly Form[] = [
  ...[4, 8, 16, 32].map(loopedChains),
  outerProduct("looped", 8, 4),
  ...[8, 16, 32].map(literalChains),
  ...(
    [
      [8, 4],
      [8, 8],
      [16, 4],
      [16, 8],
    ] as const
  ).map(([outputs, inputs]) => outerProduct("literal", outputs, inputs)),
];

/** Measures all of it; takes a few seconds. */
export async function measurePeaks(device: GPUDevice, clock: DeviceClock): Promise<Peaks> {
  const operands = device.createBuffer({ label: "bench operands", size: 16, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
  device.queue.writeBuffer(operands, 0, Float32Array.of(0.5, 0.001, 0, 0));
  const [source, target] = [0, 1].map(() => {
    const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    return device.createBuffer({ label: "bench stream", size: COPY_BYTES, usage: STORAGE | COPY_SRC | COPY_DST });
  }) as [GPUBuffer, GPUBuffer];
  const runs: { readonly form: Form; readonly run: () => Promise<number>; gflops: number }[] = [];
  for (const form of forms) {
    const code = `@group(0) @binding(0) var<uniform> operands: vec4f;
      @group(0) @binding(1) var<storage, read_write> results: array<f32>;
      @compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u) {
        let x = f32(id.x) * 1e-6;
        ${form.body}
        results[id.x] = result + operands.z;
      }`;
    const run = await sized(device, clock, await makeDispatch(device, code, [operands, target]));
    runs.push({ form, run, gflops: 0 });
  }
  // A peak is what is possible: the fastest of all rounds.
  for (let repeat = 0; repeat < REPEATS; repeat++) for (const one of runs) one.gflops = Math.max(one.gflops, await one.run());
  const rated = runs.map(({ form: { name, kind }, gflops }) => ({ name, kind, gflops }));
  const best = (kind: Form["kind"]): number => Math.max(...rated.filter((form) => form.kind === kind).map(({ gflops }) => gflops));
  const copy = await copyRate(device, source, target);
  const stream = await streamRate(device, clock, operands, source, target);
  for (const buffer of [operands, source, target]) buffer.destroy();
  return { looped: best("looped"), literal: best("literal"), forms: rated, copy, stream };
}

type Dispatch = (pass: GPUComputePassEncoder, workgroups: number) => void;

async function makeDispatch(device: GPUDevice, code: string, buffers: readonly GPUBuffer[]): Promise<Dispatch> {
  const module = device.createShaderModule({ label: "bench peak", code });
  const pipeline = await device.createComputePipelineAsync({ label: "bench peak", layout: "auto", compute: { module } });
  const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
  const group = device.createBindGroup({ label: "bench peak", layout: pipeline.getBindGroupLayout(0), entries });
  return (pass, workgroups) => {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(workgroups);
  };
}

/** So many workgroups, and dispatches of them, that a pass is long enough to be timed. @returns what runs a pass and gives its GFLOP/s. */
async function sized(device: GPUDevice, clock: DeviceClock, dispatch: Dispatch): Promise<() => Promise<number>> {
  const most = device.limits.maxComputeWorkgroupsPerDimension;
  let workgroups = 256;
  const time = (): Promise<number> => clock.time((pass) => dispatch(pass, workgroups));
  // The first pass may still compile.
  await time();
  while (workgroups < most && (await time()) < LEAST_MILLISECONDS) workgroups = Math.min(most, workgroups * 4);
  const { repeats, run } = await repeated((count) =>
    clock.time((pass) => {
      for (let repeat = 0; repeat < count; repeat++) dispatch(pass, workgroups);
    }),
  );
  return async () => (2 * MULTIPLY_ADDS * WORKGROUP * workgroups * repeats) / (await run()) / 1e6;
}

/** So many repetitions that they take long enough. */
async function repeated(time: (repeats: number) => Promise<number>): Promise<{ repeats: number; run: () => Promise<number> }> {
  let repeats = 1;
  while (repeats < MOST_REPEATS && (await time(repeats)) < LEAST_MILLISECONDS) repeats *= 4;
  return { repeats, run: () => time(repeats) };
}

/** The median rate of repetitions that move so many bytes each, in GB/s. */
async function rateOf(bytes: number, time: (repeats: number) => Promise<number>): Promise<number> {
  // The first one touches the memory for the first time.
  await time(1);
  const { repeats, run } = await repeated(time);
  const samples: number[] = [];
  for (let repeat = 0; repeat < REPEATS; repeat++) samples.push(await run());
  return (bytes * repeats) / statsOf(samples).median / 1e6;
}

function copyRate(device: GPUDevice, source: GPUBuffer, target: GPUBuffer): Promise<number> {
  return rateOf(2 * COPY_BYTES, (copies) => {
    const encoder = device.createCommandEncoder({ label: "bench copy" });
    for (let copy = 0; copy < copies; copy++) encoder.copyBufferToBuffer(source, 0, target, 0, COPY_BYTES);
    const commands = encoder.finish();
    return wallTime(() => {
      device.queue.submit([commands]);
      return device.queue.onSubmittedWorkDone();
    });
  });
}

async function streamRate(
  device: GPUDevice,
  clock: DeviceClock,
  operands: GPUBuffer,
  source: GPUBuffer,
  target: GPUBuffer,
): Promise<number> {
  const code = `@group(0) @binding(0) var<uniform> operands: vec4f;
    @group(0) @binding(1) var<storage, read> source: array<vec4f>;
    @group(0) @binding(2) var<storage, read_write> results: array<vec4f>;
    @compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
      for (var i = id.x; i < arrayLength(&source); i += groups.x * ${WORKGROUP}u) { results[i] = source[i] * operands.x; }
    }`;
  const dispatch = await makeDispatch(device, code, [operands, source, target]);
  return rateOf(2 * COPY_BYTES, (repeats) =>
    clock.time((pass) => {
      for (let repeat = 0; repeat < repeats; repeat++) dispatch(pass, 16384);
    }),
  );
}
