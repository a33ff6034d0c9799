import { afterAll, beforeAll, expect, test } from "vitest";
import { evaluateReference, InputError, VectorField, vjpReference, type Network } from "../src/index.js";
import { parseActivation } from "../src/model/activation.js";
import { internalsOf } from "../src/field.js";
import { runAlone } from "../src/gpu/run.js";
import { parametersOf, withParameters } from "../src/model/parameters.js";
import { scheduleMatrices } from "../src/schedule/products.js";
import { makeBuffer, readBuffer } from "./buffers.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";
import { allOf, encodedVjp, expectVjp } from "./gradients.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

const widths: readonly (readonly number[])[] = [
  [3, 3],
  [2, 9, 2],
  [3, 12, 13, 3],
  [2, 8, 8, 8, 2],
];

test.for(widths)("new weights are in all that a field computes, for widths %o", async (of) => {
  const make = (seed: number) => randomMlp({ seed, widths: of, activation: "tanh", contextSize: 1 }).network;
  const [before, after] = [make(1), make(2)];
  const d = of[0]!;
  const points = randomPoints(3, 20, d);
  const options = { context: 0.3 };
  for (const kernels of ["auto", "layers 8x16", "fused storage x2"]) {
    const field = await VectorField.create(device, before, { kernels });
    await field.evaluate(points, options);
    await field.vjp(points, { divergence: 1, value: points }, { ...options, wrt: allOf(before) });
    await field.update(parametersOf(after));
    for (const method of ["auto", "tangent", "cyclic", "jacobian"] as const) {
      const truth = evaluateReference(after, points, { ...options, outputs: ["value", "divergence"] });
      const { diagonal } = evaluateReference(after, points, { ...options, outputs: ["diagonal"] });
      const scale = truth.divergence!.map((_, b) =>
        diagonal!.subarray(b * d, (b + 1) * d).reduce((sum, entry) => sum + Math.abs(entry), 0),
      );
      const result = await field.evaluate(points, { ...options, method });
      expect(result.kernels).toMatch(/^layers/);
      expectClose(result.value, truth.value!, truth.value!.map(Math.abs), { label: `${kernels} ${method} value` });
      expectClose(result.divergence, truth.divergence!, scale, { label: `${kernels} ${method} divergence` });
    }
    const cotangents = { divergence: 1, value: points };
    const wrt = allOf(before);
    expectVjp(
      await field.vjp(points, cotangents, { ...options, wrt }),
      vjpReference(after, points, cotangents, { ...options, wrt }),
      1e-5,
      kernels,
    );

    const [input, output] = [makeBuffer(device, points), makeBuffer(device, new Float32Array(20))];
    const encoder = device.createCommandEncoder();
    field.encode(encoder, { points: input, count: 20, context: 0.3, divergence: output });
    device.queue.submit([encoder.finish()]);
    const { divergence } = await field.evaluate(points, options);
    expectClose(
      await readBuffer(device, output),
      divergence,
      divergence.map((x) => 1 + Math.abs(x)),
      { label: "encode" },
    );
    expect(parametersOf(field.network)).toEqual(parametersOf(after));
    field.destroy();
  }
});

test("two fields of one network are updated apart, and the network given stays as it is", async () => {
  const { network } = randomMlp({ seed: 5, widths: [2, 7, 8, 2], activation: "silu" });
  const given = structuredClone(parametersOf(network));
  const [one, other] = await Promise.all([VectorField.create(device, network), VectorField.create(device, network)]);
  const points = randomPoints(1, 5, 2);
  const before = await other.evaluate(points);
  await one.update({ "1.bias": new Float32Array(8).fill(3) });
  expect(await other.evaluate(points)).toEqual(before);
  expect((await one.evaluate(points)).divergence).not.toEqual(before.divergence);
  expect(parametersOf(network)).toEqual(given);
  const truth = evaluateReference(withParameters(network, { "1.bias": new Float32Array(8).fill(3) }), points);
  expectClose((await one.evaluate(points)).value, truth.value!, truth.value!.map(Math.abs));
  await expect(one.update({ "7.bias": [1] })).rejects.toThrow(InputError);
  await expect(one.update({ "1.bias": new Float32Array(8).fill(NaN) })).rejects.toThrow(/finite/);
  one.destroy();
  await expect(one.update({})).rejects.toThrow(/destroyed/);
  other.destroy();
});

test("a call that runs ends with the old weights, a later one has the new", async () => {
  const { network } = randomMlp({ seed: 6, widths: [2, 16, 16, 2], activation: "tanh" });
  const field = await VectorField.create(device, network, { memoryBudget: 300_000 });
  const points = randomPoints(2, 20_000, 2);
  const parameters = parametersOf(randomMlp({ seed: 7, widths: [2, 16, 16, 2], activation: "tanh" }).network);
  const old = field.evaluate(points);
  const updated = field.update(parameters);
  const later = field.evaluate(points);
  await updated;
  const [a, b] = await Promise.all([old, later]);
  const truths = [network, withParameters(network, parameters)].map((each) => evaluateReference(each, points).value!);
  expectClose(a.value, truths[0]!, truths[0]!.map(Math.abs));
  expectClose(b.value, truths[1]!, truths[1]!.map(Math.abs));
  field.destroy();
});

test("merged matrices that take much work are computed on the device, and are right", async () => {
  const make = (seed: number) => randomMlp({ seed, widths: [64, 200, 200, 64], activation: "tanh" }).network;
  const [before, after] = [make(1), make(2)];
  const points = randomPoints(3, 20, 64);
  const wrt = allOf(before);
  for (const kernels of ["auto", "layers 8x16"]) {
    const field = await VectorField.create(device, before, { kernels });
    await field.evaluate(points);
    await field.vjp(points, { divergence: 1 }, { wrt });
    const dispatched: string[] = [];
    const createBindGroup = device.createBindGroup.bind(device);
    device.createBindGroup = (descriptor) => (dispatched.push(descriptor.label ?? ""), createBindGroup(descriptor));
    await field.update(parametersOf(after));
    device.createBindGroup = createBindGroup;
    expect(dispatched.some((label) => label.includes("∘"))).toBe(true);
    const truth = evaluateReference(after, points, { outputs: ["value", "divergence"] });
    const { diagonal } = evaluateReference(after, points, { outputs: ["diagonal"] });
    const scale = truth.divergence!.map((_, b) => diagonal!.subarray(b * 64, (b + 1) * 64).reduce((sum, x) => sum + Math.abs(x), 0));
    for (const method of ["auto", "cyclic", "tangent"] as const)
      expectClose((await field.evaluate(points, { method })).divergence, truth.divergence!, scale, { label: `${kernels} ${method}` });
    const expected = vjpReference(after, points, { divergence: 1, value: points }, { wrt });
    const cotangents = { divergence: 1, value: points };
    expectVjp(await field.vjp(points, cotangents, { wrt }), expected, 1e-5, kernels);
    expectVjp(await encodedVjp(device, field, points, cotangents, { wrt }), expected, 1e-5, `${kernels}, encoded`);
    // In a second update too, whose matrices are all there.
    await field.update(parametersOf(before));
    expectVjp(
      await encodedVjp(device, field, points, cotangents, { wrt }),
      vjpReference(before, points, cotangents, { wrt }),
      1e-5,
      `${kernels}, again`,
    );
    field.destroy();
  }
});

test("updates that are not awaited come one after another, each to what the one before has left", async () => {
  const { network } = randomMlp({ seed: 5, widths: [2, 7, 8, 2], activation: "silu" });
  const field = await VectorField.create(device, network);
  const [first, second] = [new Float32Array(7).fill(3), new Float32Array(8).fill(2)];
  const pending = [field.update({ "0.bias": first }), field.update({ "1.bias": second })];
  // Copied at the call.
  first.fill(9);
  second.fill(9);
  await Promise.all(pending);
  const expected = withParameters(network, { "0.bias": new Float32Array(7).fill(3), "1.bias": new Float32Array(8).fill(2) });
  expect(parametersOf(field.network)).toEqual(parametersOf(expected));
  const points = randomPoints(1, 5, 2);
  const truth = evaluateReference(expected, points);
  expectClose((await field.evaluate(points)).value, truth.value!, truth.value!.map(Math.abs));
  field.destroy();
});

test("commands that are submitted while an update runs see all of the old weights or all of the new", async () => {
  const make = (seed: number) => randomMlp({ seed, widths: [64, 200, 200, 64], activation: "tanh" }).network;
  const [before, after] = [make(1), make(2)];
  const field = await VectorField.create(device, before);
  const points = randomPoints(3, 1, 64);
  const input = makeBuffer(device, points);
  await field.evaluate(points);
  const truths = [before, after].map((network) => evaluateReference(network, points).divergence![0]!);
  const outputs: GPUBuffer[] = [];
  const state = { isDone: false };
  const update = field.update(parametersOf(after)).then(() => (state.isDone = true));
  while (!state.isDone && outputs.length < 500) {
    const output = makeBuffer(device, new Float32Array(1));
    const encoder = device.createCommandEncoder();
    field.encode(encoder, { points: input, count: 1, divergence: output });
    device.queue.submit([encoder.finish()]);
    outputs.push(output);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  await update;
  const seen = await Promise.all(outputs.map(async (output) => (await readBuffer(device, output))[0]!));
  expect(seen.length).toBeGreaterThan(1);
  for (const divergence of seen) expect(Math.min(...truths.map((truth) => Math.abs(truth - divergence)))).toBeLessThan(1e-4);
  field.destroy();
});

test("products that are too much for one submission are cut by rows", async () => {
  const { network } = randomMlp({ seed: 3, widths: [33, 150, 129, 33], activation: "tanh" });
  const field = await VectorField.create(device, network);
  const points = randomPoints(3, 20, 33);
  const expected = await field.evaluate(points);
  const shared = internalsOf(field).shared();
  const { computable } = shared.matrices.trained();
  expect(computable.length).toBeGreaterThan(0);
  for (const { matrix, layout } of computable) {
    const buffer = shared.matrices.get(matrix, layout);
    device.queue.writeBuffer(buffer, 0, new Float32Array(buffer.size / 4));
  }
  const chunk = scheduleMatrices(computable, { multiplyAddsPerSubmit: 100_000 }, shared.matrices.has.bind(shared.matrices));
  expect(chunk.submissions.length).toBeGreaterThan(5);
  await runAlone(chunk, [], shared, () => undefined);
  const { divergence } = await field.evaluate(points);
  expectClose(
    divergence,
    expected.divergence,
    expected.divergence.map((x) => 1 + Math.abs(x)),
  );
  field.destroy();
});

test("where it fails the old numbers stay, in all that is computed of them", async () => {
  const make = (seed: number) => randomMlp({ seed, widths: [64, 200, 200, 64], activation: "tanh" }).network;
  const [before, after] = [make(1), make(2)];
  const field = await VectorField.create(device, before, { kernels: "layers 4x4" });
  const points = randomPoints(3, 4, 64);
  const expected = await field.evaluate(points);
  const createCommandEncoder = device.createCommandEncoder.bind(device);
  device.createCommandEncoder = () => {
    throw new Error("no more commands");
  };
  await expect(field.update(parametersOf(after))).rejects.toThrow("no more commands");
  device.createCommandEncoder = createCommandEncoder;
  expect(parametersOf(field.network)).toEqual(parametersOf(before));
  expect(await field.evaluate(points)).toEqual(expected);
  await field.update(parametersOf(after));
  const truth = evaluateReference(after, points);
  expectClose((await field.evaluate(points)).value, truth.value!, truth.value!.map(Math.abs));
  field.destroy();
});

test("where memory is short the host computes merged matrices", async () => {
  const make = (seed: number) => randomMlp({ seed, widths: [64, 200, 200, 64], activation: "tanh" }).network;
  const [before, after] = [make(1), make(2)];
  const points = randomPoints(3, 4, 64);
  // W1 W3 alone takes 160 000 bytes.
  const field = await VectorField.create(device, before, { memoryBudget: 100_000 });
  await field.evaluate(points);
  const createBindGroup = device.createBindGroup.bind(device);
  let dispatched = 0;
  device.createBindGroup = (descriptor) => (dispatched++, createBindGroup(descriptor));
  await field.update(parametersOf(after));
  device.createBindGroup = createBindGroup;
  expect(dispatched).toBe(0);
  const truth = evaluateReference(after, points);
  const { diagonal } = evaluateReference(after, points, { outputs: ["diagonal"] });
  const scale = truth.divergence!.map((_, b) => diagonal!.subarray(b * 64, (b + 1) * 64).reduce((sum, x) => sum + Math.abs(x), 0));
  expectClose((await field.evaluate(points)).divergence, truth.divergence!, scale);
  field.destroy();
});

test("no matrix of mostly zeros is made to compute others of", async () => {
  // 200 parts through one block, then dense layers, whose merged matrices read it.
  const [block, narrow, wide] = [randomPoints(1, 6, 3), randomPoints(2, 8, 1200, 0.03), randomPoints(3, 600, 8, 0.3)];
  const tanh = parseActivation("tanh");
  const network: Network = {
    stateSize: 600,
    contextSize: 0,
    operations: [
      { kind: "linear", terms: [{ operand: "state", weight: { block: { rows: 6, columns: 3, data: block }, times: 200 } }], bias: null },
      { kind: "activation", operand: 0, activation: tanh },
      { kind: "linear", terms: [{ operand: 1, weight: { rows: 8, columns: 1200, data: narrow } }], bias: null },
      { kind: "activation", operand: 2, activation: tanh },
      { kind: "linear", terms: [{ operand: 3, weight: { rows: 600, columns: 8, data: wide } }], bias: null },
    ],
  };
  const field = await VectorField.create(device, network);
  const points = randomPoints(4, 3, 600);
  await field.evaluate(points);
  const made: (string | undefined)[] = [];
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => (made.push(descriptor.label), createBuffer(descriptor));
  const weights = Object.fromEntries(Object.entries(parametersOf(network)).map(([name, { data }]) => [name, data.map((x) => 1.4 * x)]));
  await field.update(weights);
  device.createBuffer = createBuffer;
  expect(made.filter((label) => label?.includes("[1200, 600]"))).toEqual([]);
  const after = withParameters(network, weights);
  const truth = evaluateReference(after, points);
  const { diagonal } = evaluateReference(after, points, { outputs: ["diagonal"] });
  const scale = truth.divergence!.map((_, b) => diagonal!.subarray(b * 600, (b + 1) * 600).reduce((sum, x) => sum + Math.abs(x), 0));
  expectClose((await field.evaluate(points)).divergence, truth.divergence!, scale);
  field.destroy();
});
