import { readFileSync, readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, InputError, parseOnnx, VectorField, type Method, type Network } from "../../src/index.js";
import { parseActivation } from "../../src/model/activation.js";
import { makeBuffer, readBuffer } from "../buffers.js";
import { expectClose } from "../close.js";
import { openDevice } from "../device.js";
import { randomMlp, randomPoints, weightOf } from "../fields.js";

/** Kernels that carry a point through all layers, in loops or by lanes. */
const variants = ["fused uniform x1", "fused uniform x2", "fused storage x4", "fused uniform x2 by 4 lanes"];

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

/** Odd widths and counts: blocks of results, points of an invocation and workgroups all end in their middle. */
const COUNT = 71;

/** Each kernel takes software drivers a second or more to compile, so not every network runs by every method. */
async function compare(
  network: Network,
  kernels: string,
  methods: readonly Method[],
  context: Float32Array | null,
  alone: readonly ("value" | "diagonal")[] = [],
): Promise<void> {
  const points = randomPoints(11, COUNT, network.stateSize);
  const field = await VectorField.create(device, network, { kernels });
  const diagonal = evaluateReference(network, points, { context, method: "tangent", outputs: ["diagonal"] }).diagonal!;
  const d = network.stateSize;
  const scale = Float64Array.from({ length: COUNT }, (_, point) =>
    diagonal.subarray(point * d, (point + 1) * d).reduce((sum, entry) => sum + Math.abs(entry), 0),
  );
  for (const method of methods) {
    const reference = evaluateReference(network, points, { context, method });
    const result = await field.evaluate(points, { context, method });
    expect(result.kernels).toBe(kernels);
    expectClose(result.value, reference.value!, reference.value!.map(Math.abs), { relative: 1e-5, label: `${method}: value` });
    expectClose(result.divergence, reference.divergence!, scale, { label: `${method}: divergence` });
  }
  for (const output of alone) {
    const expected = output === "diagonal" ? diagonal : evaluateReference(network, points, { context, outputs: ["value"] }).value!;
    const sizes = expected.map((number, index) => (output === "diagonal" ? scale[Math.floor(index / d)]! : Math.abs(number)));
    const result = await field.evaluate(points, { context, outputs: [output] });
    expectClose(result[output], expected, sizes, { label: `${output} alone` });
  }
  field.destroy();
}

describe.for(variants)("%s", (kernels) => {
  test.for([
    { widths: [2, 13, 10, 2], activation: "tanh", methods: ["tangent", "cyclic"], alone: ["value", "diagonal"] },
    { widths: [3, 9, 3], activation: "softplus", methods: ["cyclic"], alone: [] },
    { widths: [5, 6, 7, 9, 5], activation: ["silu", "gelu", "sin"], methods: ["tangent"], alone: [] },
  ] as const)("computes value, divergence and diagonal of $widths with $activation", async ({ widths, activation, methods, alone }) => {
    const { network } = randomMlp({ seed: 3, widths, activation: typeof activation === "string" ? activation : [...activation] });
    await compare(network, kernels, methods, null, alone);
  });

  test("takes a context, one for all points and one for each", async () => {
    const { network } = randomMlp({ seed: 8, widths: [2, 9, 11, 2], activation: "tanh", contextSize: 3 });
    await compare(network, kernels, ["tangent"], randomPoints(5, 1, 3));
    await compare(network, kernels, ["cyclic"], randomPoints(5, COUNT, 3));
  });
});

/** Loops over the results of wide products: some rounds of two results, some of one, arrays for what several layers read. */
describe.for(["fused uniform x1 by 4 lanes", "fused uniform x4 by 4 lanes"])("%s, wide layers", (kernels) => {
  test.for([
    { widths: [2, 26, 30, 2], activation: "tanh", contextSize: 0, methods: ["tangent", "cyclic"], alone: ["value", "diagonal"] },
    { widths: [3, 17, 25, 3], activation: "softplus", contextSize: 2, methods: ["cyclic"], alone: [] },
    { widths: [3, 20, 21, 24, 3], activation: "silu", contextSize: 0, methods: ["tangent"], alone: [] },
    // As many weights as do not fit one uniform block, a first layer in rounds, and sums that a state of 16 allows.
    { widths: [16, 70, 128, 16], activation: "sin", contextSize: 0, methods: ["cyclic"], alone: ["value"] },
  ] as const)("computes value, divergence and diagonal of $widths", async ({ widths, activation, contextSize, methods, alone }) => {
    const { network } = randomMlp({ seed: 9, widths, activation, contextSize });
    const context = contextSize > 0 ? randomPoints(5, COUNT, contextSize) : null;
    await compare(network, kernels, methods, context, alone);
  });

  test("keeps what a skip reads", async () => {
    const { network: chain } = randomMlp({ seed: 7, widths: [3, 20, 20, 3], activation: "tanh" });
    const tanh = parseActivation("tanh");
    const same = { diagonal: new Float32Array(20).fill(1) };
    const sum = (...operands: number[]): Network["operations"][number] => ({
      kind: "linear",
      terms: operands.map((operand) => ({ operand, weight: same })),
      bias: null,
    });
    // Two residual blocks: h + tanh(W h) of a layer in rounds, read by another.
    const network: Network = {
      stateSize: 3,
      contextSize: 0,
      operations: [
        { kind: "linear", terms: [{ operand: "state", weight: weightOf(chain, 0) }], bias: null },
        { kind: "activation", operand: 0, activation: tanh },
        { kind: "linear", terms: [{ operand: 1, weight: weightOf(chain, 2) }], bias: null },
        { kind: "activation", operand: 2, activation: tanh },
        sum(1, 3),
        { kind: "linear", terms: [{ operand: 4, weight: weightOf(chain, 2) }], bias: null },
        { kind: "activation", operand: 5, activation: tanh },
        sum(4, 6),
        { kind: "linear", terms: [{ operand: 7, weight: weightOf(chain, 4) }], bias: null },
      ],
    };
    await compare(network, kernels, ["tangent"], null, ["value"]);
  });
});

test("weights are handed around by no more lanes than the device's subgroups have", async () => {
  const { network } = randomMlp({ seed: 1, widths: [2, 20, 20, 2], activation: "tanh" });
  await expect(VectorField.create(device, network, { kernels: "fused uniform x4 by 64 lanes" })).rejects.toThrow(/at least \d+ lanes/);
  await expect(VectorField.create(device, network, { kernels: "fused storage x1 by 4 lanes" })).rejects.toThrow(InputError);
});

// SwiftShader's compiler ends the process at texts of so many reads of arrays.
test.for(["fused uniform x2 by 4 lanes", "fused uniform x4 by 4 lanes"])(
  "%s leaves many wide layers to the plain kernels",
  async (kernels) => {
    const { network } = randomMlp({ seed: 2, widths: [1, ...Array.from({ length: 9 }, () => 128), 1], activation: "tanh" });
    const points = randomPoints(3, COUNT, 1);
    const field = await VectorField.create(device, network, { kernels });
    const result = await field.evaluate(points);
    const { divergence } = evaluateReference(network, points);
    expect(result.kernels).toMatch(/^layers/);
    expectClose(result.divergence, divergence!, divergence!.map(Math.abs), { label: "divergence" });
    field.destroy();
  },
);

describe("architectures", () => {
  const folder = new URL("../architectures/", import.meta.url);
  const files = readdirSync(folder).filter((file) => file.endsWith(".dynamo.onnx"));

  test.for(files.flatMap((file) => ["fused uniform x1", "fused uniform x1 by 4 lanes"].map((kernels) => ({ file, kernels }))))(
    "$file by $kernels",
    async ({ file, kernels }) => {
      const network = parseOnnx(readFileSync(new URL(file, folder)));
      const context = network.contextSize > 0 ? randomPoints(2, COUNT, network.contextSize).map((number) => Math.abs(number) % 1) : null;
      await compare(network, kernels, ["tangent"], context);
    },
  );
});

describe.for(["fused uniform x2", "fused uniform x4 by 4 lanes"])("encode by %s", (kernels) => {
  const { network } = randomMlp({ seed: 4, widths: [3, 10, 18, 3], activation: "tanh", contextSize: 2 });
  const points = randomPoints(6, COUNT, 3);
  const context = randomPoints(7, COUNT, 2);
  const truth = evaluateReference(network, points, { context, method: "tangent", outputs: ["value", "divergence", "diagonal"] });
  const scale = Float64Array.from({ length: COUNT }, (_, b) =>
    [0, 1, 2].reduce((sum, i) => sum + Math.abs(truth.diagonal![3 * b + i]!), 0),
  );
  /** Rows of `width` in `stride`, after `before` floats that stay. */
  const unpack = (data: Float32Array, before: number, stride: number, width: number): Float32Array =>
    Float32Array.from({ length: COUNT * width }, (_, i) => data[before + Math.floor(i / width) * stride + (i % width)]!);

  test.for(["auto", "tangent"] as const)("leaves %s in the caller's buffers, at any offset and stride", async (method) => {
    const field = await VectorField.create(device, network, { kernels });
    await field.reserve(COUNT, { method, contextPer: "point" });
    const [value, divergence] = [makeBuffer(device, 5 + 4 * COUNT), makeBuffer(device, 2 * COUNT)];
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const before = pass.dispatchWorkgroups.bind(pass);
    let dispatches = 0;
    pass.dispatchWorkgroups = (...counts) => (dispatches++, before(...counts));
    const rows = { points: makeBuffer(device, points), context: makeBuffer(device, context) };
    field.encode(pass, {
      ...rows,
      count: COUNT,
      method,
      value: { buffer: value, offset: 20, stride: 4 },
      divergence: { buffer: divergence, stride: 2 },
    });
    pass.end();
    device.queue.submit([encoder.finish()]);
    expect(dispatches).toBe(1);
    const [values, divergences] = [await readBuffer(device, value), await readBuffer(device, divergence)];
    expectClose(unpack(values, 5, 4, 3), truth.value!, truth.value!.map(Math.abs), { relative: 1e-5, label: "value" });
    expectClose(unpack(divergences, 0, 2, 1), truth.divergence!, scale, { label: "divergence" });
    expect([...values.subarray(0, 5), values[8], divergences[1]]).toEqual(Array(7).fill(7));
    field.destroy();
  });

  test("runs other kernels where a result shares the points' buffer", async () => {
    const field = await VectorField.create(device, network, { kernels });
    await field.reserve(COUNT, { method: "tangent", outputs: ["value"], contextPer: "point" });
    const both = makeBuffer(device, Float32Array.from([...points, ...Array(3 * COUNT).fill(7)]));
    const encoder = device.createCommandEncoder();
    device.pushErrorScope("validation");
    field.encode(encoder, {
      points: both,
      context: makeBuffer(device, context),
      count: COUNT,
      value: { buffer: both, offset: 12 * COUNT },
    });
    device.queue.submit([encoder.finish()]);
    expect(await device.popErrorScope()).toBeNull();
    const value = (await readBuffer(device, both)).subarray(3 * COUNT);
    expectClose(value, truth.value!, truth.value!.map(Math.abs), { relative: 1e-5, label: "value" });
    field.destroy();
  });
});

test("a plan that cannot be fused runs by the plain kernels and says so", async () => {
  const { network } = randomMlp({ seed: 1, widths: [17, 8, 17], activation: "tanh" });
  const field = await VectorField.create(device, network, { kernels: "fused storage x2" });
  const points = randomPoints(1, 5, 17);
  expect((await field.evaluate(points)).kernels).toBe("layers 4x4");
});

test("a plan whose kernel would be too long to compile runs by the plain kernels too", async () => {
  const { network } = randomMlp({ seed: 1, widths: [16, 128, 128, 128, 128, 16], activation: "tanh" });
  const field = await VectorField.create(device, network, { kernels: "fused uniform x4 by 4 lanes" });
  expect((await field.evaluate(randomPoints(1, 5, 16), { method: "tangent" })).kernels).toBe("layers 4x4");
});
