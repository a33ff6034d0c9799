import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, InputError, VectorField, type BufferRows, type EncodeOptions, type Method } from "../src/index.js";
import { makeBuffer, readBuffer } from "./buffers.js";
import { divergenceScale, expectClose } from "./close.js";
import { leaveNoErrors, openDevice, withLimits } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";

const d = 3;
const { network } = randomMlp({ seed: 1, widths: [d, 20, 18, d], activation: "tanh" });
const { network: timed } = randomMlp({ seed: 2, widths: [d, 20, 18, d], activation: "silu", contextSize: 2 });

let device: GPUDevice;
let close: () => Promise<void>;
let field: VectorField;
let withContext: VectorField;
beforeAll(async () => {
  ({ device, close } = await openDevice());
  field = await VectorField.create(device, network);
  withContext = await VectorField.create(device, timed);
});
afterAll(async () => {
  field.destroy();
  withContext.destroy();
  await close();
});

leaveNoErrors(() => device);

const buffer = (content: Float32Array | number, usage?: number): GPUBuffer => makeBuffer(device, content, usage);
const read = (source: GPUBuffer): Promise<Float32Array> => readBuffer(device, source);

/** Encodes and submits. */
function submit(options: EncodeOptions, on = field): void {
  const encoder = device.createCommandEncoder();
  on.encode(encoder, options);
  device.queue.submit([encoder.finish()]);
}

/** Expects what the reference gives; results may be left out. */
function expectTruth(
  points: Float32Array,
  results: { value?: Float32Array; divergence?: Float32Array; diagonal?: Float32Array },
  { on = network, context, label = "" }: { on?: typeof network; context?: ArrayLike<number>; label?: string } = {},
): void {
  const options = {
    method: "tangent",
    outputs: ["value", "divergence", "diagonal"],
    context: context && Float64Array.from(context),
  } as const;
  const truth = evaluateReference(on, points, options);
  const width = on.stateSize;
  const scale = divergenceScale(truth.diagonal!, width);
  if (results.value) expectClose(results.value, truth.value!, truth.value!.map(Math.abs), { label: `value ${label}` });
  if (results.divergence) expectClose(results.divergence, truth.divergence!, scale, { label: `divergence ${label}` });
  if (results.diagonal)
    expectClose(
      results.diagonal,
      truth.diagonal!,
      truth.diagonal!.map((_, i) => scale[Math.floor(i / width)]!),
      { label: `diagonal ${label}` },
    );
}

/** Rows out of the midst of a buffer, at a stride. */
function rowsOf(data: Float32Array, count: number, width: number, offset: number, stride: number): Float32Array {
  return Float32Array.from({ length: count * width }, (_, i) => data[offset / 4 + Math.floor(i / width) * stride + (i % width)]!);
}

/** Points in the midst of a buffer of 7s, at a stride. */
function strided(points: Float32Array, width: number, offset: number, stride: number): Float32Array {
  const count = points.length / width;
  const data = new Float32Array(offset / 4 + count * stride + 5).fill(7);
  points.forEach((x, i) => (data[offset / 4 + Math.floor(i / width) * stride + (i % width)] = x));
  return data;
}

test("a compute pass of the caller's own reads the divergence in the same submit", async () => {
  const count = 1000;
  const points = randomPoints(3, count, d);
  const divergence = buffer(count);
  const doubled = buffer(count);
  const module = device.createShaderModule({
    code: `@group(0) @binding(0) var<storage, read> divergence: array<f32>;
      @group(0) @binding(1) var<storage, read_write> doubled: array<f32>;
      @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
        if (id.x < ${count}u) { doubled[id.x] = 2.0 * divergence[id.x]; }
      }`,
  });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
  const entries = [divergence, doubled].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const bindGroup = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const encoder = device.createCommandEncoder();
  field.encode(encoder, { points: buffer(points), count, divergence });
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, bindGroup);
  pass.dispatchWorkgroups(Math.ceil(count / 64));
  pass.end();
  device.queue.submit([encoder.finish()]);
  const result = await read(doubled);
  expectTruth(points, { divergence: result.map((x) => x / 2) });
});

test("nothing is submitted, and nothing runs before the caller submits", async () => {
  const points = randomPoints(4, 10, d);
  const divergence = buffer(10);
  const original = device.queue.submit.bind(device.queue);
  let submits = 0;
  device.queue.submit = (commands) => (submits++, original(commands));
  const encoder = device.createCommandEncoder();
  field.encode(encoder, { points: buffer(points), count: 10, divergence });
  expect(submits).toBe(0);
  device.queue.submit = original;
  expect(await read(divergence)).toEqual(new Float32Array(10).fill(7));
  device.queue.submit([encoder.finish()]);
  expectTruth(points, { divergence: await read(divergence) });
});

describe("several encodes before one submit", () => {
  test("keep their counts, buffers and contexts apart", async () => {
    const [one, many, own] = [randomPoints(5, 1, d), randomPoints(6, 700, d), randomPoints(7, 50, d)];
    const contexts = randomPoints(8, 50, 2);
    const outputs = [1, 700, 50, 50, 700].map((count) => buffer(count));
    const encoder = device.createCommandEncoder();
    withContext.encode(encoder, { points: buffer(one), count: 1, context: [0.25, -1], divergence: outputs[0] });
    withContext.encode(encoder, { points: buffer(many), count: 700, context: Float32Array.of(0.5, 2), divergence: outputs[1] });
    withContext.encode(encoder, { points: buffer(own), count: 50, context: buffer(contexts), divergence: outputs[2] });
    withContext.encode(encoder, {
      points: buffer(own),
      count: 50,
      context: { buffer: buffer(contexts), stride: 0 },
      divergence: outputs[3],
    });
    withContext.encode(encoder, { points: buffer(many), count: 700, context: [-3, 0], divergence: outputs[4], method: "jacobian" });
    device.queue.submit([encoder.finish()]);
    const results = await Promise.all(outputs.map(read));
    expectTruth(one, { divergence: results[0]! }, { on: timed, context: [0.25, -1], label: "of one point" });
    expectTruth(many, { divergence: results[1]! }, { on: timed, context: [0.5, 2], label: "with one context" });
    expectTruth(own, { divergence: results[2]! }, { on: timed, context: contexts, label: "with contexts of their own" });
    expectTruth(own, { divergence: results[3]! }, { on: timed, context: contexts.subarray(0, 2), label: "with a stride of 0" });
    expectTruth(many, { divergence: results[4]! }, { on: timed, context: [-3, 0], label: "by another method" });
  });

  test("may need more scratch each time, whatever the order of the submits", async () => {
    const fresh = await VectorField.create(device, network);
    const counts = [3, 40, 41, 5000, 17];
    const points = counts.map((count) => randomPoints(count, count, d));
    const outputs = counts.map((count) => buffer(count));
    const commands = counts.map((count, index) => {
      const encoder = device.createCommandEncoder();
      fresh.encode(encoder, { points: buffer(points[index]!), count, divergence: outputs[index], method: "tangent" });
      return encoder.finish();
    });
    // evaluate in between has buffers of its own.
    await fresh.evaluate(points[3]!, { method: "tangent" });
    device.queue.submit([commands[4]!, commands[1]!]);
    device.queue.submit([commands[3]!, commands[0]!, commands[2]!]);
    for (const [index, output] of outputs.entries())
      expectTruth(points[index]!, { divergence: await read(output) }, { label: `of ${counts[index]}` });
    fresh.destroy();
  });

  test("see the contexts of their time, though there are hundreds", async () => {
    const count = 600;
    const point = Float32Array.of(0.1, 0.2, 0.3);
    const points = buffer(point);
    const divergence = buffer(count);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (let i = 0; i < count; i++)
      withContext.encode(pass, { points, count: 1, context: [i / 100, -i / 50], divergence: { buffer: divergence, offset: 4 * i } });
    pass.end();
    device.queue.submit([encoder.finish()]);
    const contexts = Float32Array.from({ length: 2 * count }, (_, i) => (i % 2 ? -(i - 1) / 100 : i / 200));
    const repeated = Float32Array.from({ length: d * count }, (_, i) => point[i % d]!);
    expectTruth(repeated, { divergence: await read(divergence) }, { on: timed, context: contexts });
  });
});

test("into an open compute pass, between the caller's own dispatches, and into a command encoder", async () => {
  const points = randomPoints(9, 33, d);
  const [inPass, inEncoder] = [buffer(33), buffer(33)];
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  field.encode(pass, { points: buffer(points), count: 33, divergence: inPass });
  field.encode(pass, { points: buffer(points), count: 33, divergence: buffer(33) });
  pass.end();
  field.encode(encoder, { points: buffer(points), count: 33, divergence: inEncoder });
  device.queue.submit([encoder.finish()]);
  expectTruth(points, { divergence: await read(inPass) });
  expect(await read(inEncoder)).toEqual(await read(inPass));
});

describe("offsets and strides", () => {
  test("vec3 at a stride of 16 bytes, in and out, with what lies between untouched", async () => {
    const points = randomPoints(10, 65, d);
    const value = buffer(65 * 4);
    const diagonal = buffer(65 * 4);
    submit({
      points: { buffer: buffer(strided(points, d, 0, 4)), stride: 4 },
      count: 65,
      value: { buffer: value, stride: 4 },
      diagonal: { buffer: diagonal, stride: 4 },
    });
    const [values, diagonals] = [await read(value), await read(diagonal)];
    expectTruth(points, { value: rowsOf(values, 65, d, 0, 4), diagonal: rowsOf(diagonals, 65, d, 0, 4) });
    for (let point = 0; point < 65; point++) expect([values[4 * point + 3], diagonals[4 * point + 3]]).toEqual([7, 7]);
  });

  test.for([4, 12, 252, 256, 260, 1028])("an offset of %d bytes", async (offset) => {
    const points = randomPoints(11, 40, d);
    const contexts = randomPoints(12, 40, 2);
    const [value, divergence, diagonal] = [buffer(900), buffer(900), buffer(900)];
    const options: EncodeOptions = {
      points: { buffer: buffer(strided(points, d, offset, 5)), offset, stride: 5 },
      context: { buffer: buffer(strided(contexts, 2, offset, 3)), offset, stride: 3 },
      count: 40,
      value: { buffer: value, offset, stride: 6 },
      divergence: { buffer: divergence, offset, stride: 2 },
      diagonal: { buffer: diagonal, offset, stride: 4 },
    };
    submit(options, withContext);
    const results = { value: await read(value), divergence: await read(divergence), diagonal: await read(diagonal) };
    const rows = {
      value: rowsOf(results.value, 40, d, offset, 6),
      divergence: rowsOf(results.divergence, 40, 1, offset, 2),
      diagonal: rowsOf(results.diagonal, 40, d, offset, 4),
    };
    expectTruth(points, rows, { on: timed, context: contexts });
    // Everything else is as it was.
    for (const [name, width, stride] of [
      ["value", d, 6],
      ["divergence", 1, 2],
      ["diagonal", d, 4],
    ] as const)
      results[name].forEach((x, i) => {
        const at = i - offset / 4;
        if (at < 0 || at >= 40 * stride || at % stride >= width) expect(x, `${name}[${i}]`).toBe(7);
      });
  });

  test("an output may lie between the points in one buffer", async () => {
    const points = randomPoints(13, 90, d);
    const shared = buffer(strided(points, d, 32, 8));
    const at = (offset: number) => ({ buffer: shared, offset: 32 + offset, stride: 8 });
    submit({ points: at(0), count: 90, divergence: at(12), value: at(16) });
    const result = await read(shared);
    expectTruth(points, { divergence: rowsOf(result, 90, 1, 44, 8), value: rowsOf(result, 90, d, 48, 8) });
    expect(rowsOf(result, 90, d, 32, 8)).toEqual(points);
    expect(rowsOf(result, 90, 1, 60, 8)).toEqual(new Float32Array(90).fill(7));
  });

  describe("states of whole vec4s, which products read where they lie or not", () => {
    test.for([
      { offset: 0, stride: 4 },
      { offset: 256, stride: 12 },
      { offset: 16, stride: 4 },
      { offset: 512, stride: 6 },
    ])("an offset of $offset bytes, a stride of $stride", async ({ offset, stride }) => {
      const { network: four } = randomMlp({ seed: 5, widths: [4, 9, 10, 4], activation: "tanh" });
      const on = await VectorField.create(device, four);
      const points = randomPoints(18, 70, 4);
      const [value, divergence] = [buffer(70 * 4), buffer(70)];
      submit({ points: { buffer: buffer(strided(points, 4, offset, stride)), offset, stride }, count: 70, value, divergence }, on);
      expectTruth(points, { value: await read(value), divergence: await read(divergence) }, { on: four });
      on.destroy();
    });

    test("a layer may read the points and write f in one buffer", async () => {
      const { network: linear } = randomMlp({ seed: 6, widths: [4, 4], activation: "tanh" });
      const on = await VectorField.create(device, linear);
      const points = randomPoints(19, 30, 4);
      const shared = buffer(strided(points, 4, 0, 8));
      submit({ points: { buffer: shared, stride: 8 }, count: 30, value: { buffer: shared, offset: 16, stride: 8 } }, on);
      const result = await read(shared);
      expectTruth(points, { value: rowsOf(result, 30, 4, 16, 8) }, { on: linear });
      expect(rowsOf(result, 30, 4, 0, 8)).toEqual(points);
      on.destroy();
    });
  });

  test("a buffer may end with the last row", async () => {
    const points = randomPoints(14, 5, d);
    const exact = strided(points, d, 8, 7).slice(0, 2 + 4 * 7 + d);
    const divergence = buffer(1 + 4 * 3 + 1);
    submit({ points: { buffer: buffer(exact), offset: 8, stride: 7 }, count: 5, divergence: { buffer: divergence, offset: 4, stride: 3 } });
    expectTruth(points, { divergence: rowsOf(await read(divergence), 5, 1, 4, 3) });
  });
});

describe("every method", () => {
  const count = 77;
  const points = randomPoints(15, count, d);

  test.for(["tangent", "cyclic", "jacobian", "coordinate", "difference", "hutchinson", "auto"] as const)(
    "%s gives what evaluate gives",
    async (method) => {
      const outputs =
        method === "cyclic" || method === "hutchinson"
          ? (["value", "divergence"] as const)
          : (["value", "divergence", "diagonal"] as const);
      const buffers = { value: buffer(count * d), divergence: buffer(count), diagonal: buffer(count * d) };
      const options = { method: method as Method, seed: 11, ...(method === "hutchinson" && { probes: 5 }) };
      submit({ ...options, points: buffer(points), count, ...Object.fromEntries(outputs.map((output) => [output, buffers[output]])) });
      const expected = await field.evaluate(points, { ...options, outputs });
      for (const output of outputs)
        expectClose(
          await read(buffers[output]),
          expected[output],
          expected[output].map(() => 1),
          { relative: 1e-6, label: output },
        );
      if (outputs.length === 2) expect(await read(buffers.diagonal)).toEqual(new Float32Array(count * d).fill(7));
    },
  );

  test("a field without hidden layers", async () => {
    const { network: linear } = randomMlp({ seed: 5, widths: [d, d], contextSize: 2 });
    const constant = await VectorField.create(device, linear);
    const divergence = buffer(count);
    submit({ points: buffer(points), count, context: [1, 2], divergence }, constant);
    expectTruth(points, { divergence: await read(divergence) }, { on: linear, context: [1, 2] });
    constant.destroy();
  });
});

describe("memory", () => {
  /** How many buffers the work makes. */
  async function made(work: () => void | Promise<void>): Promise<number> {
    const createBuffer = device.createBuffer.bind(device);
    let buffers = 0;
    device.createBuffer = (descriptor) => (buffers++, createBuffer(descriptor));
    try {
      await work();
    } finally {
      device.createBuffer = createBuffer;
    }
    return buffers;
  }

  test("after reserve(count) no encode of as many points makes scratch", async () => {
    const fresh = await VectorField.create(device, network);
    const count = 3000;
    const [points, divergence, value] = [buffer(randomPoints(16, count, d)), buffer(count), buffer(count * d)];
    await fresh.reserve(count);
    expect(await made(() => fresh.reserve(count))).toBe(0);
    expect(await made(() => fresh.reserve(17))).toBe(0);
    const labels: string[] = [];
    const createBuffer = device.createBuffer.bind(device);
    device.createBuffer = (descriptor) => (labels.push(descriptor.label ?? ""), createBuffer(descriptor));
    submit({ points, count, divergence, value }, fresh);
    expect(labels.filter((label) => !/ as (rows|product)$|parameters$/.test(label))).toEqual([]);
    labels.length = 0;
    for (let frame = 0; frame < 3; frame++) submit({ points, count, divergence, value }, fresh);
    expect(labels).toEqual([]);
    device.createBuffer = createBuffer;
    expectTruth(randomPoints(16, count, d), { divergence: await read(divergence) });
    fresh.destroy();
  });

  test("a count that grows frame by frame leaves few outgrown buffers behind", async () => {
    const fresh = await VectorField.create(device, network);
    const [points, divergence] = [buffer(randomPoints(17, 400, d)), buffer(400)];
    const labels: string[] = [];
    const createBuffer = device.createBuffer.bind(device);
    device.createBuffer = (descriptor) => (labels.push(descriptor.label ?? ""), createBuffer(descriptor));
    for (let count = 1; count <= 400; count++) submit({ points, count, divergence }, fresh);
    device.createBuffer = createBuffer;
    const scratch = labels.filter((label) => label.startsWith("deldot encode: ") && !label.endsWith(": parameters"));
    const names = new Set(scratch).size;
    expect(scratch.length).toBeGreaterThan(2 * names);
    expect(scratch.length).toBeLessThan(20 * names);
    expectTruth(randomPoints(17, 400, d), { divergence: await read(divergence) });
    fresh.destroy();
  });

  test.for([{ stride: 4 }, { stride: 1003 }])("a small budget cuts it into chunks, at a stride of $stride too", async ({ stride }) => {
    const small = await VectorField.create(device, timed, { memoryBudget: 30_000 });
    const count = 600;
    const points = randomPoints(18, count, d);
    const contexts = randomPoints(19, count, 2);
    const [value, divergence] = [buffer(count * stride + 3), buffer(count * stride + 3)];
    const sizes: number[] = [];
    const createBuffer = device.createBuffer.bind(device);
    const given: EncodeOptions = {
      points: { buffer: buffer(strided(points, d, 4, stride)), offset: 4, stride },
      context: { buffer: buffer(strided(contexts, 2, 8, stride)), offset: 8, stride },
      count,
      value: { buffer: value, offset: 12, stride },
      divergence: { buffer: divergence, offset: 4, stride },
    };
    device.createBuffer = (descriptor) => (
      sizes.push(/ as (rows|product)$|parameters$/.test(descriptor.label ?? "") ? 0 : descriptor.size),
      createBuffer(descriptor)
    );
    submit({ ...given, method: "tangent" }, small);
    device.createBuffer = createBuffer;
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThanOrEqual(30_000);
    const results = {
      value: rowsOf(await read(value), count, d, 12, stride),
      divergence: rowsOf(await read(divergence), count, 1, 4, stride),
    };
    expectTruth(points, results, { on: timed, context: contexts });
    small.destroy();
  });

  test("rows further apart than the largest binding holds two of", async () => {
    const limits = new Proxy(device.limits, {
      get: (target, name) => (name === "maxStorageBufferBindingSize" ? 65_536 : Reflect.get(target, name, target)),
    });
    const narrow = new Proxy(device, {
      get: (target, name) => {
        if (name === "limits") return limits;
        const member: unknown = Reflect.get(target, name, target);
        return typeof member === "function" ? member.bind(target) : member;
      },
    });
    const small = await VectorField.create(narrow, network);
    const stride = 20_000;
    const points = randomPoints(20, 5, d);
    const divergence = buffer(5);
    submit({ points: { buffer: buffer(strided(points, d, 0, stride)), stride }, count: 5, divergence }, small);
    expectTruth(points, { divergence: await read(divergence) });
    small.destroy();
  });
});

test("what is encoded again makes no new bind groups, and other buffers and counts make their own", async () => {
  const points = randomPoints(50, 40, d);
  const others = randomPoints(51, 40, d);
  const [a, b] = [buffer(points), buffer(others)];
  const [first, second] = [buffer(40), buffer(40)];
  let made = 0;
  const createBindGroup = device.createBindGroup.bind(device);
  device.createBindGroup = (descriptor) => (made++, createBindGroup(descriptor));
  const madeBy = (options: EncodeOptions): number => {
    made = 0;
    submit(options);
    return made;
  };
  expect(madeBy({ points: a, count: 40, divergence: first })).toBeGreaterThan(0);
  expect(madeBy({ points: a, count: 40, divergence: first })).toBe(0);
  expectTruth(points, { divergence: await read(first) });
  expect(madeBy({ points: b, count: 40, divergence: second })).toBeGreaterThan(0);
  expect(madeBy({ points: a, count: 30, divergence: { buffer: second, offset: 40 } })).toBeGreaterThan(0);
  device.createBindGroup = createBindGroup;
  const result = await read(second);
  expectTruth(others.subarray(0, 10 * d), { divergence: result.subarray(0, 10) });
  expectTruth(points.subarray(0, 30 * d), { divergence: result.subarray(10) });
});

test("a count of 0 records nothing", async () => {
  const empty = buffer(1);
  const encoder = device.createCommandEncoder();
  let passes = 0;
  const beginComputePass = encoder.beginComputePass.bind(encoder);
  encoder.beginComputePass = (descriptor) => (passes++, beginComputePass(descriptor));
  field.encode(encoder, { points: empty, count: 0, divergence: empty });
  withContext.encode(encoder, { points: empty, count: 0, context: [1, 2], divergence: empty, value: empty });
  await field.reserve(0);
  expect(passes).toBe(0);
  device.queue.submit([encoder.finish()]);
  expect(await read(empty)).toEqual(Float32Array.of(7));
});

describe("bad input throws at once and names the value", () => {
  /** What a caller without types might pass. */
  const anything = (value: unknown): any => value;
  const good = (): EncodeOptions => ({ points: buffer(30), count: 10, divergence: buffer(10) });

  const cases: [string, () => Partial<EncodeOptions>, RegExp][] = [
    [
      "points without usage STORAGE",
      () => ({ points: device.createBuffer({ size: 120, usage: GPUBufferUsage.COPY_DST }) }),
      /points.*usage 0x8.*STORAGE/,
    ],
    [
      "an output without usage STORAGE",
      () => ({ divergence: device.createBuffer({ size: 40, usage: GPUBufferUsage.VERTEX }) }),
      /divergence.*usage 0x20.*STORAGE/,
    ],
    ["points too few", () => ({ count: 11 }), /points has 120 bytes; 11 rows of 3 floats need 132/],
    ["an output too small", () => ({ value: buffer(29) }), /value has 116 bytes; 10 rows of 3 floats need 120/],
    [
      "an output too small by its offset",
      () => ({ divergence: { buffer: buffer(10), offset: 4 } }),
      /divergence has 40 bytes; 10 rows of 1 floats need 44/,
    ],
    [
      "an output too small by its stride",
      () => ({ divergence: { buffer: buffer(10), stride: 2 } }),
      /divergence has 40 bytes; 10 rows of 1 floats need 76/,
    ],
    [
      "a stride below the width",
      () => ({ points: { buffer: buffer(30), stride: 2 } }),
      /stride of points is 2 floats; expected at least 3/,
    ],
    ["a stride of 0 for points", () => ({ points: { buffer: buffer(30), stride: 0 } }), /stride of points is 0/],
    ["a stride of 0 for an output", () => ({ divergence: { buffer: buffer(30), stride: 0 } }), /stride of divergence is 0/],
    ["a stride that is no whole number", () => ({ points: { buffer: buffer(60), stride: 3.5 } }), /stride of points is 3\.5/],
    ["a stride that is NaN", () => ({ points: { buffer: buffer(60), stride: NaN } }), /stride of points is NaN/],
    ["an offset between floats", () => ({ points: { buffer: buffer(60), offset: 6 } }), /offset of points is 6 bytes/],
    ["a negative offset", () => ({ points: { buffer: buffer(60), offset: -4 } }), /offset of points is -4/],
    ["a count of -1", () => ({ count: -1 }), /count is -1/],
    ["a count of 1.5", () => ({ count: 1.5 }), /count is 1\.5/],
    ["a count that is no number", () => ({ count: anything("10") }), /count is "10"/],
    ["no count", () => ({ count: anything(undefined) }), /count is undefined/],
    ["no points", () => ({ points: anything(undefined) }), /points is missing/],
    ["points that are null", () => ({ points: anything(null) }), /points is null/],
    ["points that are a number", () => ({ points: anything(5) }), /points is 5/],
    ["points that are an array", () => ({ points: anything(new Float32Array(30)) }), /points is .*GPUBuffer/],
    ["an output that is null", () => ({ divergence: anything(null) }), /divergence is null/],
    ["no outputs", () => ({ divergence: undefined }), /no output buffer.*value, divergence, diagonal/],
    ["a buffer of no kind", () => ({ points: { buffer: anything({}) } }), /points is .*GPUBuffer/],
    ["a context where none is taken", () => ({ context: 0.5 }), /context is 0\.5; the network takes none/],
    ["a context buffer where none is taken", () => ({ context: buffer(10) }), /context is a buffer; the network takes none/],
  ];
  test.for(cases)("%s", ([, change, message]) => {
    const encoder = device.createCommandEncoder();
    const options = { ...good(), ...change() };
    expect(() => field.encode(encoder, options)).toThrow(InputError);
    expect(() => field.encode(encoder, options)).toThrow(message);
    device.queue.submit([encoder.finish()]);
  });

  const contexts: [string, unknown, RegExp][] = [
    ["missing", undefined, /context is missing; expected one vector of 2/],
    ["null", null, /context is missing/],
    ["a number for two", 1, /context is the number 1/],
    ["too short", [1], /context has 1 numbers/],
    ["one per point as numbers", new Float32Array(20), /context has 20 numbers/],
    ["a text", "0.5", /context is "0.5"/],
    ["NaN", [1, NaN], /context is \[1, NaN\]; expected finite numbers/],
    ["infinite", Float32Array.of(Infinity, 0), /context is \[Infinity, 0\]/],
    ["beyond float32", [1e300, 0], /context is \[1e\+300, 0\]/],
    ["texts", ["a", "b"], /context holds "a" at position 0/],
    ["an object", { x: 1 }, /context is/],
  ];
  test.for(contexts)("a context that is %s", ([, context, message]) => {
    const encoder = device.createCommandEncoder();
    const options = { ...good(), context: anything(context) };
    expect(() => withContext.encode(encoder, options)).toThrow(InputError);
    expect(() => withContext.encode(encoder, options)).toThrow(message);
  });

  test("a context buffer that is too small, or has a bad stride", () => {
    const encoder = device.createCommandEncoder();
    const encode = (context: BufferRows) => () => withContext.encode(encoder, { ...good(), context });
    expect(encode(buffer(19))).toThrow(/context has 76 bytes; 10 rows of 2 floats need 80/);
    expect(encode({ buffer: buffer(1), stride: 0 })).toThrow(/context has 4 bytes; 10 rows of 2 floats need 8/);
    expect(encode({ buffer: buffer(40), stride: 1 })).toThrow(/stride of context is 1/);
  });

  test("a target that is neither an encoder nor a pass", () => {
    for (const target of [null, undefined, 5, {}, device, device.queue])
      expect(() => field.encode(anything(target), good())).toThrow(/target is .*GPUCommandEncoder/);
  });

  test("options that are none, and a method that cannot", () => {
    const encoder = device.createCommandEncoder();
    expect(() => field.encode(encoder, anything(null))).toThrow(InputError);
    expect(() => field.encode(encoder, anything(undefined))).toThrow(InputError);
    expect(() => field.encode(encoder, { ...good(), diagonal: buffer(30), method: "cyclic" })).toThrow(
      /"cyclic" does not give the output "diagonal"/,
    );
    expect(() => field.encode(encoder, { ...good(), method: anything("fast") })).toThrow(/method is "fast"/);
    expect(() => field.encode(encoder, { ...good(), chunkSize: 0 })).toThrow(/chunkSize is 0/);
  });

  test("reserve rejects a bad count", async () => {
    await expect(field.reserve(-1)).rejects.toThrow(/count is -1/);
    await expect(field.reserve(NaN)).rejects.toThrow(InputError);
    await expect(field.reserve(1, anything(null))).rejects.toThrow(InputError);
  });
});

test.for(["layers 4x4", "layers 8x16", "layers 4x4 in groups of 16x16", "fused storage x2"])(
  "more workgroups than fit in one dimension lie in even rows, and the results are the same bits: %s",
  async (kernels) => {
    const count = 1003;
    const points = buffer(randomPoints(11, count, d));
    const fixed = await VectorField.create(device, network, { kernels });
    await fixed.reserve(count, { method: "tangent", outputs: ["value", "divergence"] });
    const run = async (): Promise<{ results: Float32Array[]; dispatches: number[][] }> => {
      const [value, divergence] = [buffer(count * d), buffer(count)];
      const dispatches: number[][] = [];
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      const dispatch = pass.dispatchWorkgroups.bind(pass);
      pass.dispatchWorkgroups = (across, down = 1) => (dispatches.push([across, down]), dispatch(across, down));
      fixed.encode(pass, { points, count, method: "tangent", value, divergence });
      pass.end();
      device.queue.submit([encoder.finish()]);
      return { results: [await read(value), await read(divergence)], dispatches };
    };
    const one = await run();
    expect(one.dispatches.every(([, down]) => down === 1)).toBe(true);
    const widest = Math.max(...one.dispatches.map(([across]) => across!));
    for (const most of [3, widest - 1])
      await withLimits(device, { maxComputeWorkgroupsPerDimension: most }, async () => {
        const many = await run();
        expect(many.results).toEqual(one.results);
        expect(many.dispatches.some(([, down]) => down! > 1)).toBe(true);
        many.dispatches.forEach(([across, down], index) => {
          const needed = one.dispatches[index]![0]!;
          expect(across).toBeLessThanOrEqual(most);
          expect(across! * down!).toBeGreaterThanOrEqual(needed);
          // Less than one workgroup for each row is without work.
          expect(across! * down! - needed).toBeLessThan(down!);
        });
      });
    fixed.destroy();
  },
);

test("parameters of steps lie apart on a device whose uniform buffers may begin anywhere", async () => {
  const fresh = await VectorField.create(device, network);
  await withLimits(device, { minUniformBufferOffsetAlignment: 16 }, async () => {
    const sizes = new Map<GPUBindGroup, number>();
    const createBindGroup = device.createBindGroup.bind(device);
    device.createBindGroup = (descriptor) => {
      const group = createBindGroup(descriptor);
      sizes.set(group, ([...descriptor.entries][0]!.resource as GPUBufferBinding).size!);
      return group;
    };
    const steps: { at: number; size: number }[] = [];
    // A device of this name takes them; this one here begins at multiples of 256 alone, so that nothing is recorded.
    const pass = {
      setPipeline: () => undefined,
      setBindGroup: (_: number, group: GPUBindGroup, [at]: number[]) => steps.push({ at: at!, size: sizes.get(group)! }),
      dispatchWorkgroups: () => undefined,
    };
    fresh.encode(pass as unknown as GPUComputePassEncoder, { points: buffer(30), count: 10, value: buffer(30), divergence: buffer(10) });
    device.createBindGroup = createBindGroup;
    expect(steps.length).toBeGreaterThan(3);
    steps.slice(1).forEach(({ at }, index) => expect(at).toBeGreaterThanOrEqual(steps[index]!.at + steps[index]!.size));
    expect(steps.at(-1)!.at % 16).toBe(0);
  });
  fresh.destroy();
});
