import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  evaluateReference,
  VectorField,
  type EvaluateOptions,
  type Method,
  type Network,
  type Output,
  type ReferenceOptions,
  type Store,
} from "../src/index.js";
import { requestDevice } from "../src/node/index.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";
import { watchMemory } from "./memory.js";

const MiB = 2 ** 20;
/** What kernels' parameters may take beside the budget. */
const parameters = 1.1 * MiB;
/** Tells the field that the device is fast, so that memory alone bounds its chunks. */
const fast: Store = { get: () => String(2 ** 36), set: () => undefined };
const exactMethods: readonly Method[] = ["tangent", "cyclic", "jacobian", "coordinate"];
const everyMethod: readonly Method[] = [...exactMethods, "difference", "hutchinson"];

/** Σ_i |∂f_i/∂x_i| of each point. */
function scaleOf(diagonal: ArrayLike<number>, size: number): Float64Array {
  return Float64Array.from({ length: diagonal.length / size }, (_, point) => {
    let sum = 0;
    for (let i = 0; i < size; i++) sum += Math.abs(diagonal[point * size + i]!);
    return sum;
  });
}

/** Expects the GPU's divergence by a method to be the reference's by the same. */
function expectReference(
  network: Network,
  points: Float32Array,
  method: Method,
  divergence: Float32Array,
  options: ReferenceOptions = {},
): void {
  const truth = evaluateReference(network, points, { ...options, method, outputs: ["divergence"] });
  const { diagonal } = evaluateReference(network, points, { context: options.context, method: "tangent", outputs: ["diagonal"] });
  const scale = scaleOf(diagonal!, network.stateSize);
  // An estimate sums the whole of J, and differences err by their step and by the rounding of f.
  const [relative, absolute] = method === "difference" ? [1e-3, 1e-2] : method === "hutchinson" ? [1e-4, 1e-4] : [2e-5, 1e-6];
  expectClose(divergence, truth.divergence!, scale, { relative, absolute, label: `divergence by ${method}` });
}

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

describe("784 dimensions, hidden layers of 64 and 64, 64 points", () => {
  const d = 784;
  const count = 64;
  const { network } = randomMlp({ seed: 1, widths: [d, 64, 64, d], activation: "silu" });
  const points = randomPoints(2, count, d);
  const few = points.subarray(0, 3 * d);
  const truth = evaluateReference(network, few, { method: "jacobian", outputs: ["value", "divergence", "diagonal", "jacobian"] });

  test("every exact method agrees with the reference and with the others", { timeout: 240_000 }, async () => {
    const field = await VectorField.create(device, network);
    const scale = scaleOf(truth.diagonal!, d);
    const results: Float32Array[] = [];
    for (const method of exactMethods) {
      // One coordinate at a time leaves a software GPU little to do at once, so it gets fewer points.
      const { divergence, value } = await field.evaluate(method === "coordinate" ? points.subarray(0, 8 * d) : points, { method });
      expectClose(divergence.subarray(0, 3), truth.divergence!, scale, { label: `divergence by ${method}` });
      expectClose(value.subarray(0, 3 * d), truth.value!, truth.value!.map(Math.abs), { absolute: 2e-6, label: `value by ${method}` });
      results.push(divergence);
    }
    for (const [index, divergence] of results.entries())
      expectClose(
        divergence,
        results[0]!.subarray(0, divergence.length),
        divergence.map(() => scale[0]!),
        { relative: 5e-5, label: `divergence by ${exactMethods[index]}` },
      );
    field.destroy();
  });

  test("the Jacobian comes in strips where the budget holds no whole one", async () => {
    const memoryBudget = 2 * MiB;
    const memory = watchMemory(device);
    const field = await VectorField.create(device, network, { memoryBudget });
    const { jacobian, diagonal, divergence } = await field.evaluate(few, { outputs: ["jacobian", "diagonal", "divergence"] });
    memory.stop();
    expect(4 * d * d).toBeGreaterThan(memoryBudget);
    expect(memory.peak).toBeLessThanOrEqual(memoryBudget + parameters);
    expect(jacobian.length).toBe(3 * d * d);
    expectClose(jacobian, truth.jacobian!, truth.jacobian!.map(Math.abs), { absolute: 2e-7, label: "Jacobian" });
    expectClose(diagonal, truth.diagonal!, truth.diagonal!.map(Math.abs), { absolute: 2e-7, label: "diagonal" });
    expectClose(divergence, truth.divergence!, scaleOf(truth.diagonal!, d), { label: "divergence" });
    field.destroy();
  });
});

test("2 million points run in bounded memory", async () => {
  const count = 2_000_000;
  const memoryBudget = 8 * MiB;
  const { network } = randomMlp({ seed: 3, widths: [2, 8, 8, 2], activation: "tanh" });
  const points = randomPoints(4, count, 2, 3);
  const memory = watchMemory(device);
  const field = await VectorField.create(device, network, { memoryBudget, store: fast });
  const { divergence, value } = await field.evaluate(points);
  memory.stop();
  field.destroy();
  expect(memory.peak).toBeGreaterThan(memoryBudget / 2);
  expect(memory.peak).toBeLessThanOrEqual(memoryBudget + parameters);
  expect(memory.weights).toBeLessThan(10_000);

  // Some points from everywhere, the last one among them.
  const spots = [...Array.from({ length: 997 }, (_, i) => i * 2003), count - 1];
  const some = Float32Array.from(spots.flatMap((spot) => [points[2 * spot]!, points[2 * spot + 1]!]));
  const truth = evaluateReference(network, some, { method: "tangent", outputs: ["value", "divergence", "diagonal"] });
  const at = (data: Float32Array, width: number) => spots.flatMap((spot) => Array.from(data.subarray(spot * width, (spot + 1) * width)));
  expectClose(at(divergence, 1), truth.divergence!, scaleOf(truth.diagonal!, 2), { label: "divergence" });
  expectClose(at(value, 2), truth.value!, truth.value!.map(Math.abs), { label: "value" });
  expect(divergence.every((number) => Number.isFinite(number) && number !== 0)).toBe(true);
});

describe("small limits", () => {
  const { network } = randomMlp({ seed: 5, widths: [37, 50, 41, 45, 37], activation: ["gelu", "tanh", "softplus"], contextSize: 2 });
  const count = 100;
  const points = randomPoints(6, count, 37);
  const context = randomPoints(7, count, 2);
  const outputsOf = (method: Method): readonly Output[] =>
    method === "jacobian" ? ["value", "divergence", "jacobian"] : ["value", "divergence"];

  test("every method runs with what WebGPU guarantees", async () => {
    const { device: least, dispose } = await requestDevice({ limits: "default" });
    expect(least.limits.maxStorageBufferBindingSize).toBe(128 * MiB);
    expect(least.limits.maxStorageBuffersPerShaderStage).toBe(8);
    expect(least.limits.maxComputeInvocationsPerWorkgroup).toBe(256);
    const field = await VectorField.create(least, network);
    for (const method of everyMethod) {
      const { divergence } = await field.evaluate(points, { method, context, outputs: outputsOf(method) });
      expectReference(network, points, method, divergence!, { context });
    }
    field.destroy();
    await dispose();
  });

  test("a batch beyond the largest binding is cut into chunks", async () => {
    const { device: least, dispose } = await requestDevice({ limits: "default" });
    const limits = new Proxy(least.limits, {
      get: (target, name) =>
        name === "maxStorageBufferBindingSize" || name === "maxBufferSize" ? 65_536 : Reflect.get(target, name, target),
    });
    Object.defineProperty(least, "limits", { value: limits });
    const sizes: number[] = [];
    const createBuffer = least.createBuffer.bind(least);
    least.createBuffer = (descriptor) => {
      sizes.push(descriptor.size);
      return createBuffer(descriptor);
    };
    const field = await VectorField.create(least, network);
    for (const method of everyMethod) {
      const { divergence } = await field.evaluate(points, { method, context, outputs: outputsOf(method) });
      expectReference(network, points, method, divergence!, { context });
    }
    expect(Math.max(...sizes)).toBeLessThanOrEqual(65_536);
    field.destroy();
    await dispose();
  });

  test("every method, one after another or at once, keeps to 4 MiB, and to 256 KiB", async () => {
    for (const [memoryBudget, points, context] of [
      [4 * MiB, randomPoints(15, 600, 37), randomPoints(16, 600, 2)],
      [MiB / 4, randomPoints(6, count, 37), randomPoints(7, count, 2)],
    ] as const) {
      const memory = watchMemory(device);
      const field = await VectorField.create(device, network, { memoryBudget, store: fast });
      for (const method of everyMethod) {
        const { divergence } = await field.evaluate(points, { method, context, outputs: outputsOf(method) });
        if (memoryBudget < MiB) expectReference(network, points, method, divergence!, { context });
      }
      await Promise.all(everyMethod.toReversed().map((method) => field.evaluate(points, { method, context, outputs: outputsOf(method) })));
      memory.stop();
      field.destroy();
      expect(memory.peak).toBeGreaterThan(memoryBudget / 2);
      expect(memory.peak).toBeLessThanOrEqual(memoryBudget + parameters);
    }
  });

  test("a budget that holds not even one point is an error that names it", async () => {
    const field = await VectorField.create(device, network, { memoryBudget: 500 });
    await expect(field.evaluate(points, { context })).rejects.toMatchObject({
      name: "LimitError",
      message: expect.stringMatching(/one point .*needs \d+ bytes.* 500/),
    });
    field.destroy();
  });

  test("methods agree whatever the number of tangents at once", async () => {
    const field = await VectorField.create(device, network);
    for (const method of ["tangent", "jacobian", "difference", "hutchinson"] as const) {
      const options = { method, context, outputs: ["divergence"] } as const;
      const { divergence: all } = await field.evaluate(points, options);
      for (const chunkSize of [1, 5, 36, 1000]) {
        const { divergence } = await field.evaluate(points, { ...options, chunkSize });
        expectClose(divergence, all, divergence.map(Math.abs), { relative: 1e-6, label: `${method} with ${chunkSize} at once` });
      }
    }
    field.destroy();
  });
});

describe("long evaluations", () => {
  const { network } = randomMlp({ seed: 8, widths: [3, 20, 20, 3], activation: "tanh" });
  const count = 20_000;
  const points = randomPoints(9, count, 3);
  let field: VectorField;
  /** Small enough for many chunks. */
  beforeAll(async () => (field = await VectorField.create(device, network, { memoryBudget: MiB / 2 })));
  afterAll(() => field.destroy());

  test("progress is monotone and ends at the total", async () => {
    const seen: number[] = [];
    await field.evaluate(points, { onProgress: ({ done, total }) => (expect(total).toBe(count), seen.push(done)) });
    expect(seen.length).toBeGreaterThan(10);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen.at(-1)).toBe(count);
    const jvp: number[] = [];
    await field.jvp(points, points, { onProgress: ({ done }) => jvp.push(done) });
    expect(jvp.at(-1)).toBe(count);
  });

  test("an error thrown by onProgress rejects the call", async () => {
    const error = new Error("from the caller");
    const onProgress = () => {
      throw error;
    };
    await expect(field.evaluate(points, { onProgress })).rejects.toBe(error);
    expect(await field.divergence(points.subarray(0, 3))).toHaveLength(1);
  });

  test("a signal aborts before, in the middle and never after, and the field works on", async () => {
    const before = await field.evaluate(points);
    const reason = new Error("no longer wanted");
    const submit = device.queue.submit.bind(device.queue);
    let submits = 0;
    device.queue.submit = (commands) => (submits++, submit(commands));
    await expect(field.evaluate(points, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await expect(field.jvp(points, points, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await expect(field.evaluate([], { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(submits).toBe(0);
    device.queue.submit = submit;

    const controller = new AbortController();
    const seen: number[] = [];
    const onProgress = ({ done }: { done: number }) => {
      seen.push(done);
      if (seen.length === 2) controller.abort(reason);
    };
    await expect(field.evaluate(points, { signal: controller.signal, onProgress })).rejects.toBe(reason);
    expect(seen).toHaveLength(2);

    // At once after the call, from outside, and without a reason of one's own.
    const other = new AbortController();
    const aborted = field.evaluate(points, { signal: other.signal });
    other.abort();
    await expect(aborted).rejects.toMatchObject({ name: "AbortError" });

    const late = new AbortController();
    const result = await field.evaluate(points, { signal: late.signal });
    late.abort(reason);
    expect(result.divergence).toEqual(before.divergence);
    expect(result.value).toEqual(before.value);
  });

  test("an aborted call does not disturb one beside it", async () => {
    const expected = await field.evaluate(points, { method: "coordinate" });
    const controller = new AbortController();
    const [aborted, kept] = await Promise.allSettled([
      field.evaluate(points, {
        method: "jacobian",
        outputs: ["jacobian"],
        signal: controller.signal,
        onProgress: () => controller.abort(),
      }),
      field.evaluate(points, { method: "coordinate" }),
    ]);
    expect(aborted.status).toBe("rejected");
    expect(kept.status === "fulfilled" && kept.value).toEqual(expected);
  });
});

test("calls at once give what they give one after another, bit for bit", async () => {
  const { network } = randomMlp({ seed: 10, widths: [20, 33, 29, 20], activation: "silu", contextSize: 1 });
  const field = await VectorField.create(device, network, { memoryBudget: MiB / 4 });
  const calls: [number, EvaluateOptions][] = [
    [300, { method: "jacobian", outputs: ["jacobian", "value"], context: 0.1 }],
    [7, { method: "cyclic", context: 0.2 }],
    [150, { method: "coordinate", outputs: ["diagonal", "divergence"], context: 0.3 }],
    [0, { method: "tangent", context: 0.4 }],
    [400, { method: "tangent", outputs: ["diagonal", "value"], context: randomPoints(12, 400, 1) }],
    [90, { method: "hutchinson", context: 0.6 }],
    [33, { method: "difference", context: 0.7 }],
    [1, { outputs: ["value"], context: 0.8 }],
  ];
  const inputs = calls.map(([count], index) => randomPoints(20 + index, count, 20));
  const run = (index: number) => field.evaluate(inputs[index]!, calls[index]![1]);
  const inTurn: unknown[] = [];
  for (const index of calls.keys()) inTurn.push(await run(index));
  const jvp = await field.jvp(inputs[0]!, inputs[0]!, { context: 0.9 });
  for (let round = 0; round < 3; round++) {
    const order = [...calls.keys()].sort((a, b) => ((a + round * 3) % 8) - ((b + round * 3) % 8));
    const [again, ...atOnce] = await Promise.all([field.jvp(inputs[0]!, inputs[0]!, { context: 0.9 }), ...order.map(run)]);
    expect(again).toEqual(jvp);
    for (const [at, index] of order.entries()) expect(atOnce[at], `call ${index}`).toEqual(inTurn[index]);
  }
  field.destroy();
});

test("no points give empty results of the right shape", async () => {
  const { network } = randomMlp({ seed: 11, widths: [3, 8, 3], activation: "tanh", contextSize: 1 });
  const field = await VectorField.create(device, network);
  const outputs = ["value", "divergence", "diagonal", "jacobian"] as const;
  const result = await field.evaluate([], { outputs, context: 0 });
  expect(result).toMatchObject({ method: "jacobian", shape: [0] });
  for (const output of outputs) expect(result[output]).toEqual(new Float32Array(0));
  expect(await field.evaluate({ data: new Float32Array(0), shape: [4, 0, 3] }, { context: 0 })).toMatchObject({ shape: [4, 0] });
  expect(await field.evaluate([], { method: "hutchinson", context: [] })).toMatchObject({ standardError: new Float32Array(0) });
  expect(await field.jvp([], [], { context: 0 })).toEqual(new Float32Array(0));
  field.destroy();
});

test("any leading batch shape is kept", async () => {
  const { network } = randomMlp({ seed: 13, widths: [3, 8, 3], activation: "tanh" });
  const field = await VectorField.create(device, network);
  const data = randomPoints(14, 24, 3);
  const flat = await field.evaluate(data);
  for (const shape of [[4, 6], [2, 3, 4], [24], [1, 24, 1]]) {
    const shaped = await field.evaluate({ data, shape: [...shape, 3] });
    expect(shaped).toEqual({ ...flat, shape });
  }
  const one = await field.evaluate({ data: data.subarray(0, 3), shape: [3] });
  expect(one).toEqual({
    method: flat.method,
    kernels: flat.kernels,
    shape: [],
    value: flat.value.slice(0, 3),
    divergence: flat.divergence.slice(0, 1),
  });
  expect(await field.evaluate(Array.from(data))).toEqual(flat);
  expect(await field.evaluate(Float64Array.from(data))).toEqual(flat);
  field.destroy();
});
