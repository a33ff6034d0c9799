import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  InputError,
  LimitError,
  parameterLayout,
  PlanError,
  VectorField,
  vjpReference,
  type EncodeVjpOptions,
  type Network,
} from "../src/index.js";
import { parseActivation } from "../src/model/activation.js";
import { parametersOf, withParameters } from "../src/model/parameters.js";
import { makeBuffer, readBuffer } from "./buffers.js";
import { openDevice } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";
import { allOf, encodedVjp, expectGradient, expectVjp } from "./gradients.js";
import { particles } from "./particles.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

function submit(record: (encoder: GPUCommandEncoder) => void): void {
  const encoder = device.createCommandEncoder();
  record(encoder);
  device.queue.submit([encoder.finish()]);
}

test.each([undefined, 1] as const)("of points that need several chunks it is the whole's, contexts %s", async (perPoint) => {
  const { network } = randomMlp({ seed: 2, widths: [3, 17, 18, 3], activation: "silu", contextSize: 1 });
  const count = 3000;
  const field = await VectorField.create(device, network, { memoryBudget: 400_000 });
  const points = randomPoints(4, count, 3);
  const cotangents = { value: randomPoints(5, count, 3), divergence: randomPoints(6, count, 1) };
  const options = { context: perPoint ? randomPoints(7, count, 1) : [0.3], wrt: allOf(network), outputs: ["value", "divergence"] } as const;
  const result = await encodedVjp(device, field, points, cotangents, options);
  const expected = vjpReference(network, points, cotangents, options);
  expectVjp(result, expected, 1e-5, "encoded");
  expectGradient(result.value, expected.value!, 1e-5, "value");
  expectGradient(result.divergence, expected.divergence!, 1e-5, "divergence");
  field.destroy();
});

test("a context that shapes a net of its own, shared by all points, is summed once however many chunks there are", async () => {
  const { network: inner } = randomMlp({ seed: 4, widths: [2, 9, 2], activation: "tanh", contextSize: 1 });
  // The context goes through layers of its own before it meets the state.
  const [first, ...rest] = inner.operations;
  if (first?.kind !== "linear") throw new TypeError("the first operation is linear");
  const network = {
    ...inner,
    tensors: [],
    operations: [
      { kind: "linear", terms: [{ operand: "context", weight: { rows: 1, columns: 1, data: Float32Array.of(0.7) } }], bias: null },
      { kind: "activation", operand: 0, activation: parseActivation("sin") },
      { ...first, terms: first.terms.map((term) => (term.operand === "context" ? { ...term, operand: 1 } : term)) },
      ...rest.map((operation) =>
        operation.kind === "linear"
          ? { ...operation, terms: operation.terms.map((term) => ({ ...term, operand: (term.operand as number) + 2 })) }
          : { ...operation, operand: (operation as { operand: number }).operand + 2 },
      ),
    ],
  } as unknown as typeof inner;
  const count = 2000;
  const field = await VectorField.create(device, network, { memoryBudget: 100_000 });
  const points = randomPoints(4, count, 2);
  const cotangents = { value: randomPoints(5, count, 2), divergence: 1 };
  const options = { context: [0.4], wrt: allOf(network) } as const;
  expectVjp(
    await encodedVjp(device, field, points, cotangents, options),
    vjpReference(network, points, cotangents, options),
    1e-5,
    "encoded",
  );
  field.destroy();
});

test("weights that parts share get the sum over the parts", async () => {
  const network = particles(3, [2, 5, 6, 2]);
  const field = await VectorField.create(device, network);
  const points = randomPoints(4, 7, network.stateSize);
  const options = { wrt: allOf(network) } as const;
  const cotangents = { value: points, divergence: 1 };
  expectVjp(
    await encodedVjp(device, field, points, cotangents, options),
    vjpReference(network, points, cotangents, options),
    1e-5,
    "parts",
  );
  field.destroy();
});

describe("rows of the caller's", () => {
  const { network } = randomMlp({ seed: 6, widths: [3, 8, 9, 3], activation: "gelu", contextSize: 2 });
  const count = 50;
  const [points, value, divergence, context] = [3, 3, 1, 2].map((width, seed) => randomPoints(seed, count, width)) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const options = { context, wrt: allOf(network), outputs: ["value", "divergence"] } as const;
  const expected = vjpReference(network, points, { value, divergence }, options);

  test("lie at offsets and strides, all in one buffer, and what is between them stays", async () => {
    const field = await VectorField.create(device, network);
    // A row of 32 floats for each point, after 12; all parameters after them.
    const stride = 32;
    const { size } = parameterLayout(network);
    const data = new Float32Array(12 + count * stride + size + 3).fill(7);
    const places = { points: 0, value: 3, divergence: 6, context: 8, ofPoints: 11, ofContext: 15, f: 18, trace: 22 };
    const put = (numbers: Float32Array, at: number, width: number): void =>
      numbers.forEach((x, i) => (data[12 + Math.floor(i / width) * stride + at + (i % width)] = x));
    put(points, places.points, 3);
    put(value, places.value, 3);
    put(divergence, places.divergence, 1);
    put(context, places.context, 2);
    const buffer = makeBuffer(device, data);
    const rows = (place: number) => ({ buffer, offset: 4 * (12 + place), stride });
    const end = 12 + count * stride;
    submit((encoder) => {
      const pass = encoder.beginComputePass();
      field.encodeVjp(pass, {
        points: rows(places.points),
        count,
        context: rows(places.context),
        cotangents: { value: rows(places.value), divergence: rows(places.divergence) },
        gradients: { points: rows(places.ofPoints), context: rows(places.ofContext), parameters: { buffer, offset: 4 * end } },
        value: rows(places.f),
        divergence: rows(places.trace),
      });
      pass.end();
    });
    const read = await readBuffer(device, buffer);
    const took = (at: number, width: number): Float32Array =>
      Float32Array.from({ length: count * width }, (_, i) => read[12 + Math.floor(i / width) * stride + at + (i % width)]!);
    const parameters = Object.fromEntries(
      parameterLayout(network).tensors.map(({ name, shape, offset }) => [
        name,
        { shape, data: read.slice(end + offset, end + offset + shape.reduce((a, b) => a * b, 1)) },
      ]),
    );
    expectVjp({ points: took(places.ofPoints, 3), context: took(places.ofContext, 2), parameters }, expected, 1e-5, "strided");
    expectGradient(took(places.f, 3), expected.value!, 1e-5, "value");
    expectGradient(took(places.trace, 1), expected.divergence!, 1e-5, "divergence");
    // Floats 7, 10, 14, 17, 21 and from 23 of each row are nobody's.
    for (let b = 0; b < count; b++)
      for (const at of [7, 10, 14, 17, 21, ...Array.from({ length: 9 }, (_, i) => 23 + i)]) expect(read[12 + b * stride + at]).toBe(7);
    expect(read.subarray(0, 12)).toEqual(new Float32Array(12).fill(7));
    expect(read.subarray(end + size)).toEqual(new Float32Array(3).fill(7));
    field.destroy();
  });

  test("several before one submit, each for something else, and again after an update", async () => {
    const field = await VectorField.create(device, network);
    const ofPoints = makeBuffer(device, 3 * count);
    const ofParameters = makeBuffer(device, parameterLayout(network).size);
    const given = { points: makeBuffer(device, points), count, context: makeBuffer(device, context) };
    const record = (encoder: GPUCommandEncoder): void => {
      field.encodeVjp(encoder, { ...given, cotangents: { divergence: 1 }, gradients: { points: ofPoints } });
      field.encodeVjp(encoder, { ...given, cotangents: { value: makeBuffer(device, value) }, gradients: { parameters: ofParameters } });
    };
    for (const factor of [1, 0.5]) {
      await field.update(
        Object.fromEntries(Object.entries(parametersOf(network)).map(([name, { data }]) => [name, data.map((x) => factor * x)])),
      );
      submit(record);
      const { points: x } = vjpReference(field.network, points, { divergence: 1 }, { context });
      expectGradient(await readBuffer(device, ofPoints), x, 1e-5, "points");
      const { parameters } = vjpReference(field.network, points, { value }, { context, wrt: ["parameters"] });
      const flat = Object.values(parameters).flatMap(({ data }) => Array.from(data));
      expectGradient(await readBuffer(device, ofParameters), flat, 1e-5, "parameters");
    }
    field.destroy();
  });

  test("of a point that is not finite become NaN, as do all sums, and no others", async () => {
    const relu = randomMlp({ seed: 3, widths: [3, 8, 8, 3], activation: "relu", contextSize: 2 }).network;
    const field = await VectorField.create(device, relu);
    const bad = [NaN, Infinity, -Infinity];
    for (const [index, name] of (["points", "value", "divergence", "context"] as const).entries()) {
      const given = { points, value, divergence, context };
      const width = given[name].length / count;
      given[name] = given[name].with(41 * width + width - 1, bad[index % 3]!);
      const result = await encodedVjp(device, field, given.points, given, { ...options, context: given.context });
      for (let b = 0; b < count; b++)
        for (const [array, width] of [
          [result.points, 3],
          [result.context, 2],
          [result.value, 3],
          [result.divergence, 1],
        ] as const)
          for (let i = 0; i < width; i++) expect(Number.isNaN(array[b * width + i])).toBe(b === 41);
      for (const { data } of Object.values(result.parameters)) expect(Array.from(data).every(Number.isNaN)).toBe(true);
    }
    // The last bias has no part in the divergence; one context for all sums over the points.
    const shared = await encodedVjp(
      device,
      field,
      points.with(5, NaN),
      { divergence: 1 },
      { context: [1, 2], wrt: ["context", "parameters"] },
    );
    expect(Array.from(shared.context).every(Number.isNaN)).toBe(true);
    for (const { data } of Object.values(shared.parameters)) expect(Array.from(data).every(Number.isNaN)).toBe(true);
    const fine = await encodedVjp(device, field, points, { divergence: 1 }, { context: [1, 2], wrt: ["context", "parameters"] });
    expectVjp(
      fine,
      vjpReference(relu, points, { divergence: 1 }, { context: [1, 2], wrt: ["context", "parameters"] }),
      1e-5,
      "finite again",
    );
    field.destroy();
  });

  test("of no points give zeros to the sums", async () => {
    const field = await VectorField.create(device, network);
    const nothing = new Float32Array(0);
    const sum = await encodedVjp(device, field, nothing, { divergence: 1 }, { context: [1, 2], wrt: ["parameters"] });
    for (const { data } of Object.values(sum.parameters)) expect(data).toEqual(new Float32Array(data.length));
    const shared = await encodedVjp(device, field, nothing, { divergence: 1 }, { context: [1, 2], wrt: ["context"] });
    expect(shared.context).toEqual(new Float32Array(2));
    await field.reserveVjp(0);
    await field.reserveVjp(0, { wrt: ["context", "parameters"] });
    field.destroy();
  });
});

test("after reserveVjp nothing is compiled, and no scratch made", async () => {
  const { network } = randomMlp({ seed: 8, widths: [4, 12, 12, 4], activation: "mish" });
  const field = await VectorField.create(device, network);
  const count = 100;
  const wrt = ["points", "parameters"] as const;
  await field.reserveVjp(count, { wrt });
  const made: string[] = [];
  const original = { buffer: device.createBuffer.bind(device), pipeline: device.createComputePipeline.bind(device) };
  const record = (label: string | undefined): void => void (label?.endsWith("parameters") || made.push(label ?? ""));
  const points = randomPoints(1, count, 4);
  const options: EncodeVjpOptions = {
    points: makeBuffer(device, points),
    count,
    cotangents: { value: makeBuffer(device, points), divergence: makeBuffer(device, randomPoints(2, count, 1)) },
    gradients: { points: makeBuffer(device, 4 * count), parameters: makeBuffer(device, parameterLayout(network).size) },
  };
  device.createBuffer = (descriptor) => (record(descriptor.label), original.buffer(descriptor));
  device.createComputePipeline = (descriptor) => (record(descriptor.label), original.pipeline(descriptor));
  submit((encoder) => field.encodeVjp(encoder, options));
  Object.assign(device, { createBuffer: original.buffer, createComputePipeline: original.pipeline });
  expect(made).toEqual([]);
  field.destroy();
});

test("mistakes are errors, before anything is recorded", async () => {
  const { network } = randomMlp({ seed: 5, widths: [2, 6, 2], activation: "tanh" });
  const field = await VectorField.create(device, network);
  const [points, result] = [makeBuffer(device, 20), makeBuffer(device, 20)];
  const { size } = parameterLayout(network);
  const good: EncodeVjpOptions = { points, count: 10, cotangents: { divergence: 1 }, gradients: { points: result } };
  const encode = (options: unknown) => () => field.encodeVjp(device.createCommandEncoder(), options as EncodeVjpOptions);
  const refused = [
    [{ ...good, cotangents: {} }, /neither value nor divergence/],
    [{ ...good, cotangents: undefined }, /cotangents is undefined/],
    [{ ...good, gradients: {} }, /gradients is \[\]/],
    [{ ...good, gradients: { points: result, weights: result } }, /gradients is/],
    [{ ...good, gradients: { context: result } }, /gradients has "context"; the network takes none/],
    [{ ...good, gradients: { parameters: makeBuffer(device, size - 1) } }, /the buffer of gradient of parameters has/],
    [{ ...good, cotangents: { value: makeBuffer(device, 19) } }, /the buffer of value cotangent has/],
    [{ ...good, cotangents: { divergence: makeBuffer(device, 9) } }, /the buffer of divergence cotangent has/],
    [{ ...good, points: undefined }, /points is missing/],
    [{ ...good, method: "tangent", probes: 3 }, /does not use/],
    [undefined, /options is undefined/],
  ] as const;
  for (const [options, message] of refused) {
    expect(encode(options)).toThrow(InputError);
    expect(encode(options)).toThrow(message);
  }
  expect(encode({ ...good, method: "difference" })).toThrow(PlanError);
  expect(() => field.encodeVjp(device.queue as never, good)).toThrow(/target is/);
  await expect(field.reserveVjp(-1)).rejects.toThrow(InputError);
  await expect(field.reserveVjp(1, { cotangents: [] })).rejects.toThrow(InputError);
  await expect(field.reserveVjp(1, { wrt: ["context"] })).rejects.toThrow(InputError);
  field.destroy();
  expect(encode(good)).toThrow(/was destroyed/);
});

test("scratch keeps to the memory budget, also what follows the points; a buffer too large for the device is an error", async () => {
  const { network } = randomMlp({ seed: 5, widths: [16, 96, 96, 16], activation: "tanh" });
  const memoryBudget = 1_500_000;
  const field = await VectorField.create(device, network, { memoryBudget });
  const createBuffer = device.createBuffer.bind(device);
  let bytes = 0;
  device.createBuffer = (descriptor) => {
    if (descriptor.label?.startsWith("deldot encode: ") && !descriptor.label.endsWith("parameters")) bytes += descriptor.size;
    return createBuffer(descriptor);
  };
  const points = randomPoints(1, 400, 16);
  const options = { wrt: ["points", "parameters"] } as const;
  const result = await encodedVjp(device, field, points, { divergence: 1 }, options);
  device.createBuffer = createBuffer;
  expect(bytes).toBeGreaterThan(500_000);
  expect(bytes).toBeLessThanOrEqual(memoryBudget);
  expectVjp(result, vjpReference(network, points, { divergence: 1 }, options), 1e-5, "in bounded memory");
  field.destroy();
  const small = await VectorField.create(device, network, { memoryBudget: 50_000 });
  await expect(small.reserveVjp(10, { wrt: ["parameters"] })).rejects.toThrow(LimitError);
  small.destroy();
});

test("calls alike share a plan, however they say it", async () => {
  const { network } = randomMlp({ seed: 5, widths: [3, 6, 3], activation: "tanh" });
  const field = await VectorField.create(device, network);
  const plans = (field as unknown as { plans: { values: Map<string, unknown> } }).plans.values;
  const points = randomPoints(1, 5, 3);
  await field.vjp(points, { divergence: 1, value: points }, { wrt: ["parameters", "points"] });
  await field.reserveVjp(5, { wrt: ["points", "parameters"], method: "auto" });
  await encodedVjp(device, field, points, { divergence: 1, value: points }, { wrt: ["points", "parameters"], probes: undefined });
  expect([...plans.keys()].filter((key) => key.startsWith("gradient"))).toHaveLength(1);
  field.destroy();
});

test("one network updated and another made of the same numbers agree", async () => {
  const { network } = randomMlp({ seed: 5, widths: [3, 16, 16, 3], activation: "tanh" });
  const weights = Object.fromEntries(Object.entries(parametersOf(network)).map(([name, { data }]) => [name, data.map((x) => 1.5 * x)]));
  const points = randomPoints(1, 30, 3);
  const options = { wrt: allOf(network) } as const;
  const field = await VectorField.create(device, network);
  await encodedVjp(device, field, points, { divergence: 1 }, options);
  await field.update(weights);
  const updated = await encodedVjp(device, field, points, { divergence: 1 }, options);
  expectVjp(updated, vjpReference(withParameters(network, weights), points, { divergence: 1 }, options), 1e-5, "updated");
  field.destroy();
});

test("a network without parameters has none to leave, and a number that a tensor gives in many places is summed over all", async () => {
  const bare: Network = {
    stateSize: 3,
    contextSize: 0,
    operations: [{ kind: "activation", operand: "state", activation: parseActivation("tanh") }],
  };
  const points = randomPoints(1, 4, 3);
  const field = await VectorField.create(device, bare);
  const [ofPoints, ofNothing] = [makeBuffer(device, 12), makeBuffer(device, 1)];
  submit((encoder) =>
    field.encodeVjp(encoder, {
      points: makeBuffer(device, points),
      count: 4,
      cotangents: { divergence: 1 },
      gradients: { points: ofPoints, parameters: ofNothing },
    }),
  );
  expectGradient(await readBuffer(device, ofPoints), vjpReference(bare, points, { divergence: 1 }).points, 1e-5, "points");
  expect(await readBuffer(device, ofNothing)).toEqual(Float32Array.of(7));
  field.destroy();

  const { network } = randomMlp({ seed: 3, widths: [3, 40, 3], activation: "tanh" });
  const place = (operation: number, part: 0 | "bias") => ({ operation, part, offset: 0, rowStride: 0, columnStride: 0 });
  const tied = withParameters(
    { ...network, tensors: [{ name: "one", shape: [1], places: [place(0, "bias"), place(2, 0)] }] },
    { one: [0.3] },
  );
  const other = await VectorField.create(device, tied);
  const options = { wrt: ["parameters"] } as const;
  const cotangents = { value: points, divergence: 1 };
  const expected = vjpReference(tied, points, cotangents, options);
  expectVjp(await encodedVjp(device, other, points, cotangents, options), expected, 1e-5, "encoded");
  expectVjp(await other.vjp(points, cotangents, options), expected, 1e-5, "read back");
  other.destroy();
});
