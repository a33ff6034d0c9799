import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InputError, parseOnnx, VectorField, type EncodeOptions, type Method, type Output } from "../src/index.js";
import { makeBuffer, readBuffer } from "./buffers.js";
import { leaveNoErrors, openDevice, withLimits } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";
import { familiesOf } from "./numbers/families.js";

const d = 3;
const most = 1003;
const { network } = randomMlp({ seed: 1, widths: [d, 12, 10, d], activation: "tanh" });
const { network: timed } = randomMlp({ seed: 2, widths: [d, 20, 18, d], activation: "silu", contextSize: 2 });

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => void ({ device, close } = await openDevice()));
afterAll(() => close());

leaveNoErrors(() => device);

const buffer = (content: Float32Array | number): GPUBuffer => makeBuffer(device, content);

function counts(...numbers: number[]): GPUBuffer {
  const { STORAGE, COPY_DST } = GPUBufferUsage;
  const made = device.createBuffer({ size: 4 * numbers.length, usage: STORAGE | COPY_DST });
  device.queue.writeBuffer(made, 0, Uint32Array.from(numbers));
  return made;
}

const widths = { value: d, divergence: 1, diagonal: d, jacobian: d * d, curl: 3, strain: d * d, qCriterion: 1, standardError: 1 };
type Outputs = Partial<Record<keyof typeof widths, GPUBuffer>>;

/** Buffers of 7s. */
function outputsOf(names: readonly (keyof Outputs)[]): Outputs {
  return Object.fromEntries(names.map((name) => [name, buffer(most * widths[name])]));
}

async function resultsOf(outputs: Outputs): Promise<Float32Array[]> {
  const results: Float32Array[] = [];
  for (const each of Object.values(outputs)) results.push(await readBuffer(device, each));
  return results;
}

function submit(on: VectorField, ...all: EncodeOptions[]): void {
  const encoder = device.createCommandEncoder();
  for (const options of all) on.encode(encoder, options);
  device.queue.submit([encoder.finish()]);
}

/** Expects the bits that a count in a number gives, and 7s past it, for counts from none to more than there may be. */
async function expectSame(
  on: VectorField,
  names: readonly (keyof Outputs)[],
  given: Omit<EncodeOptions, "count">,
  numbers = [0, 1, 64, 257, most, 2 ** 32 - 1],
): Promise<void> {
  const counted = numbers.map(() => outputsOf(names));
  const plain = numbers.map(() => outputsOf(names));
  const from = counts(...numbers);
  submit(
    on,
    ...numbers.flatMap((number, index): EncodeOptions[] => [
      { ...given, ...plain[index], count: Math.min(number, most) },
      { ...given, ...counted[index], count: { buffer: from, offset: 4 * index }, maxCount: most },
    ]),
  );
  for (const [index, number] of numbers.entries()) {
    const [results, expected] = [await resultsOf(counted[index]!), await resultsOf(plain[index]!)];
    expect(results, `a count of ${number}`).toEqual(expected);
    const [first] = expected;
    const width = first!.length / most;
    if (number > 0) expect(first![(Math.min(number, most) - 1) * width]).not.toBe(7);
    if (number < most) expect(first![number * width]).toBe(7);
  }
}

const methods = ["tangent", "cyclic", "jacobian", "coordinate", "difference", "hutchinson"] as const;
const namesOf = (method: Method): Output[] => {
  if (method === "cyclic" || method === "hutchinson") return ["value", "divergence"];
  const usual: Output[] = ["value", "divergence", "diagonal"];
  return method === "jacobian" ? [...usual, "jacobian", "curl", "strain", "qCriterion"] : usual;
};

describe("a count in a buffer gives the bits of the same count in a number, and touches nothing past it", () => {
  test("by every family of kernels and every method", async () => {
    const points = buffer(randomPoints(3, most, d));
    for (const { kernels, fused, half } of familiesOf(device)) {
      // Float16 changes how weights are read, and nothing of the rows.
      if (half) continue;
      const field = await VectorField.create(device, network, { kernels });
      const few = fused ? (["cyclic"] as const) : (["tangent", "cyclic"] as const);
      for (const method of kernels === "layers 4x4" ? methods : few) {
        const outputs = namesOf(method);
        await field.reserve(most, { method, outputs });
        const isEstimate = method === "hutchinson";
        await expectSame(field, isEstimate ? [...outputs, "standardError"] : outputs, { points, method, ...(isEstimate && { probes: 3 }) });
      }
      field.destroy();
    }
  });

  test("with a context that all share, in numbers and in a buffer, and with one for each point", async () => {
    const field = await VectorField.create(device, timed);
    const points = buffer(randomPoints(4, most, d));
    const contexts = buffer(randomPoints(5, most, 2));
    for (const context of [[0.5, -1], contexts, { buffer: contexts, stride: 0 }])
      await expectSame(field, ["value", "divergence"], { points, context });
    field.destroy();
  });

  test.for(["residual", "concatsquash", "layernorm", "time-embedding"])("of %s", async (name) => {
    const read = parseOnnx(await readFile(new URL(`architectures/${name}.dynamo.onnx`, import.meta.url)));
    const field = await VectorField.create(device, read);
    const points = buffer(randomPoints(6, most, read.stateSize));
    const context = read.contextSize > 0 ? { context: Array.from({ length: read.contextSize }, (_, i) => 0.3 + i) } : {};
    await expectSame(field, ["divergence"], { points, ...context }, [0, 300, most]);
    field.destroy();
  });

  test("in chunks that a small budget cuts", async () => {
    const field = await VectorField.create(device, timed, { memoryBudget: 30_000 });
    const [points, context] = [buffer(randomPoints(7, most, d)), buffer(randomPoints(8, most, 2))];
    await expectSame(field, ["value", "divergence"], { points, context, method: "tangent" });
    field.destroy();
  });

  test("beside a count of its own in the buffer of the points, with strides and offsets", async () => {
    const field = await VectorField.create(device, network);
    const points = randomPoints(9, 40, d);
    const particles = new Float32Array(4 + 40 * 8).fill(7);
    points.forEach((x, i) => (particles[4 + Math.floor(i / d) * 8 + (i % d)] = x));
    new Uint32Array(particles.buffer)[0] = 33;
    const shared = device.createBuffer({
      size: particles.byteLength,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    device.queue.writeBuffer(shared, 0, particles);
    const at = (offset: number) => ({ buffer: shared, offset: 16 + offset, stride: 8 });
    submit(field, { points: at(0), count: shared, maxCount: 40, divergence: at(12) });
    const result = await readBuffer(device, shared);
    const { divergence } = await field.evaluate(points);
    for (let point = 0; point < 40; point++)
      if (point < 33) expect(Math.abs(result[4 + 8 * point + 3]! - divergence[point]!)).toBeLessThan(1e-5);
      else expect(result[4 + 8 * point + 3]).toBe(7);
    field.destroy();
  });
});

test("the count is what a compute pass of the same submission has left", async () => {
  const field = await VectorField.create(device, network);
  const all = randomPoints(10, most, d);
  const [given, kept, count, divergence] = [buffer(all), buffer(most * d), counts(0), buffer(most)];
  // Those of positive x live on.
  const module = device.createShaderModule({
    code: `@group(0) @binding(0) var<storage, read> given: array<f32>;
      @group(0) @binding(1) var<storage, read_write> kept: array<f32>;
      @group(0) @binding(2) var<storage, read_write> count: atomic<u32>;
      @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
        if (id.x >= ${most}u || given[3u * id.x] <= 0.0) { return; }
        let at = 3u * atomicAdd(&count, 1u);
        for (var i = 0u; i < 3u; i++) { kept[at + i] = given[3u * id.x + i]; }
      }`,
  });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
  const entries = [given, kept, count].map((each, binding) => ({ binding, resource: { buffer: each } }));
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(Math.ceil(most / 64));
  field.encode(pass, { points: kept, count, maxCount: most, divergence });
  pass.end();
  device.queue.submit([encoder.finish()]);
  const living = Array.from({ length: most }, (_, point) => all[3 * point]!).filter((x) => x > 0).length;
  const result = await readBuffer(device, divergence);
  const { divergence: expected } = await field.evaluate((await readBuffer(device, kept)).subarray(0, 3 * living));
  expect(living).toBeGreaterThan(300);
  expected.forEach((x, point) => expect(Math.abs(result[point]! - x)).toBeLessThan(1e-5));
  expect(result.subarray(living)).toEqual(new Float32Array(most - living).fill(7));
  field.destroy();
});

test("more workgroups than fit in one dimension", async () => {
  const field = await VectorField.create(device, network);
  await withLimits(device, { maxComputeWorkgroupsPerDimension: 3 }, () =>
    expectSame(field, ["value", "divergence"], { points: buffer(randomPoints(11, most, d)) }),
  );
  field.destroy();
});

test("what is encoded again makes nothing new, and after reserve compiles nothing", async () => {
  const field = await VectorField.create(device, network);
  await field.reserve(most);
  const made: string[] = [];
  const originals = ["createBuffer", "createBindGroup", "createComputePipeline"] as const;
  for (const name of originals) {
    const original = device[name].bind(device) as (given: never) => never;
    Object.defineProperty(device, name, {
      value: (given: never) => (made.push(name), original(given)),
      configurable: true,
      writable: true,
    });
  }
  const given = { points: buffer(most * d), count: counts(5), maxCount: most, divergence: buffer(most), value: buffer(most * d) };
  submit(field, given);
  expect(made).not.toContain("createComputePipeline");
  made.length = 0;
  submit(field, given, given);
  expect(made).toEqual([]);
  for (const name of originals) delete (device as unknown as Record<string, unknown>)[name];
  field.destroy();
});

describe("bad input throws at once and names the value", () => {
  /** What a caller without types might pass. */
  const anything = (value: unknown): any => value;
  const cases: [string, () => Partial<EncodeOptions>, RegExp][] = [
    ["no maxCount", () => ({ maxCount: undefined }), /maxCount is undefined; expected a whole number of points/],
    ["a maxCount of -1", () => ({ maxCount: -1 }), /maxCount is -1/],
    ["a maxCount of 1.5", () => ({ maxCount: 1.5 }), /maxCount is 1\.5/],
    ["a maxCount beside a number", () => ({ count: 10 }), /maxCount is 10; expected it with a count in a buffer/],
    ["fewer points than may come", () => ({ maxCount: 11 }), /points has 120 bytes; 11 rows of 3 floats need 132/],
    [
      "a count without usage STORAGE",
      () => ({ count: device.createBuffer({ size: 4, usage: GPUBufferUsage.INDIRECT }) }),
      /count.*usage 0x100.*STORAGE/,
    ],
    ["a count past its buffer", () => ({ count: { buffer: counts(1), offset: 4 } }), /the buffer of count has 4 bytes/],
    [
      "a count between words",
      () => ({ count: { buffer: counts(1, 1), offset: 2 } }),
      /the offset of count is 2 bytes; expected a multiple of 4/,
    ],
    ["a count of no kind", () => ({ count: anything({}) }), /count is .*expected a GPUBuffer/],
    ["a count that is null", () => ({ count: anything(null), maxCount: undefined }), /count is null/],
  ];
  test.for(cases)("%s", async ([, change, message]) => {
    const field = await VectorField.create(device, network);
    const encoder = device.createCommandEncoder();
    const options = { points: buffer(30), count: counts(1), maxCount: 10, divergence: buffer(10), ...change() };
    expect(() => field.encode(encoder, options)).toThrow(InputError);
    expect(() => field.encode(encoder, options)).toThrow(message);
    field.destroy();
  });

  test("a gradient sums over a number of points alone", async () => {
    const field = await VectorField.create(device, network);
    const options = { points: buffer(30), count: anything(counts(1)), cotangents: { divergence: 1 }, gradients: { points: buffer(30) } };
    expect(() => field.encodeVjp(device.createCommandEncoder(), options)).toThrow(/count is .*; expected a whole number of points/);
    field.destroy();
  });
});
