import { readFileSync, readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, parseOnnx, VectorField, type Method, type Network } from "../../src/index.js";
import { parseActivation } from "../../src/model/activation.js";
import { makeBuffer, readBuffer } from "../buffers.js";
import { expectClose } from "../close.js";
import { openDevice } from "../device.js";
import { randomMlp, randomPoints, weightOf } from "../fields.js";

/** The kernel that carries a point through all layers. */
const kernels = "fused storage x2";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

/** Odd widths and counts: blocks of results, points of an invocation and workgroups all end in their middle. */
const COUNT = 71;

/** Each kernel takes software drivers a second or more to compile, so not every network runs by every method. */
async function compare(
  network: Network,
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

describe("widths and contexts", () => {
  test.for([
    { widths: [2, 13, 10, 2], activation: "tanh", contextSize: 0, methods: ["tangent", "cyclic"], alone: ["value", "diagonal"] },
    { widths: [3, 9, 3], activation: "softplus", contextSize: 0, methods: ["cyclic"], alone: [] },
    { widths: [5, 6, 7, 9, 5], activation: ["silu", "gelu", "sin"], contextSize: 0, methods: ["tangent"], alone: [] },
    { widths: [3, 17, 25, 3], activation: "softplus", contextSize: 2, methods: ["cyclic"], alone: [] },
    { widths: [16, 70, 128, 16], activation: "sin", contextSize: 0, methods: ["cyclic"], alone: ["value"] },
  ] as const)("value, divergence and diagonal of $widths with $activation", async ({ widths, activation, contextSize, methods, alone }) => {
    const { network } = randomMlp({
      seed: 3,
      widths,
      activation: typeof activation === "string" ? activation : [...activation],
      contextSize,
    });
    await compare(network, methods, contextSize > 0 ? randomPoints(5, COUNT, contextSize) : null, alone);
  });

  test("a context for all points and one for each", async () => {
    const { network } = randomMlp({ seed: 8, widths: [2, 9, 11, 2], activation: "tanh", contextSize: 3 });
    await compare(network, ["tangent"], randomPoints(5, 1, 3));
    await compare(network, ["cyclic"], randomPoints(5, COUNT, 3));
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
    // Two residual blocks: h + tanh(W h) of a layer, read by another.
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
    await compare(network, ["tangent"], null, ["value"]);
  });
});

describe("architectures", () => {
  const folder = new URL("../architectures/", import.meta.url);
  // Mesa unrolls the loops of time-embedding, and compiles them for minutes; of what it has, fourier-features has the most.
  const files = readdirSync(folder).filter((file) => file.endsWith(".dynamo.onnx") && !file.startsWith("time-embedding"));

  test.for(files)("%s", async (file) => {
    const network = parseOnnx(readFileSync(new URL(file, folder)));
    const context = network.contextSize > 0 ? randomPoints(2, COUNT, network.contextSize).map((number) => Math.abs(number) % 1) : null;
    await compare(network, ["tangent"], context);
  });
});

describe("encode", () => {
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
  const field = await VectorField.create(device, network, { kernels });
  const points = randomPoints(1, 5, 17);
  expect((await field.evaluate(points)).kernels).toBe("layers 4x4");
});
