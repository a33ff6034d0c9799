import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, explainPlan, VectorField, type Network, type Operation } from "../src/index.js";
import { parseActivation } from "../src/model/activation.js";

import { divergenceScale, expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { randomPoints } from "./fields.js";
import { Draw } from "./numbers/draw.js";
import { drawGraph, type Palette } from "./numbers/networks.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

// Smooth ones, in the place of steps too, so that central differences are a check everywhere.
const smooth: Palette = {
  anywhere: ["tanh", "silu", "gelu", "sin", "softplus", "sigmoid", "atan", "asinh"],
  ofPositive: ["log", "sqrt", "reciprocal", "acosh"],
  ofSmall: ["tan", "asin", "atanh"],
  steps: ["sin"],
};

/** ∂f_i/∂x_i by central differences of the float64 values. */
function differences(network: Network, points: Float64Array, context: Float64Array | null): Float64Array {
  const d = network.stateSize;
  const h = 1e-5;
  const diagonal = new Float64Array(points.length);
  for (let i = 0; i < d; i++) {
    const [more, less] = [h, -h].map((step) => {
      const moved = points.map((x, index) => (index % d === i ? x + step : x));
      return evaluateReference(network, moved, { context, outputs: ["value"] }).value!;
    }) as [Float64Array, Float64Array];
    for (let index = i; index < points.length; index += d) diagonal[index] = (more[index]! - less[index]!) / (2 * h);
  }
  return diagonal;
}

/** What numbers/ draws its graphs by; a failure names the seed. */
const graphs = fc.record({ seed: fc.integer({ min: 0, max: 1e6 }), shared: fc.boolean() });
const drawn = (seed: number): Network => drawGraph(new Draw(seed), "small", smooth);
const runs = { seed: 7, numRuns: Number(process.env["DELDOT_RUNS"] ?? 60) };

test("what is huge at 0 does not leak out of the padding of a row: x / √(1 + |x|²) and its like at every width", async () => {
  for (const stateSize of [1, 2, 3, 5]) {
    const ones = { rows: 1, columns: stateSize, data: new Float64Array(stateSize).fill(1) };
    const spread = { rows: stateSize, columns: 1, data: new Float64Array(stateSize).fill(1) };
    for (const [name, square] of [
      ["sqrt", false],
      ["reciprocal", true],
      ["log", false],
      ["power(-1.5)", true],
    ] as const) {
      const operations: Operation[] = [
        { kind: "product", operands: ["state", "state"] },
        { kind: "linear", terms: [{ operand: 0, weight: ones }], bias: new Float64Array([1.5]) },
        { kind: "activation", operand: 1, activation: parseActivation(name) },
        { kind: "activation", operand: 2, activation: parseActivation("reciprocal") },
        { kind: "linear", terms: [{ operand: 3, weight: spread }], bias: null },
        { kind: "activation", operand: 4, activation: parseActivation(square ? "square" : "sqrt") },
        { kind: "activation", operand: 5, activation: parseActivation("reciprocal") },
        { kind: "product", operands: ["state", 6] },
      ];
      const network: Network = { stateSize, contextSize: 0, operations };
      const points = Float64Array.from(randomPoints(1, 3, stateSize));
      const truth = evaluateReference(network, points, { method: "tangent", outputs: ["value", "divergence", "diagonal"] });
      const scale = divergenceScale(truth.diagonal!, stateSize);
      const field = await VectorField.create(device, network);
      for (const method of ["tangent", "jacobian"] as const) {
        const { value, divergence } = await field.evaluate(points, { method });
        expectClose(value, truth.value!, truth.value!.map(Math.abs), { label: `${name}, width ${stateSize}: value by ${method}` });
        expectClose(divergence, truth.divergence!, scale, { label: `${name}, width ${stateSize}: divergence by ${method}` });
      }
      field.destroy();
    }
  }
});

test("a network that is deeper than the plan can follow is refused", () => {
  const operations: Operation[] = Array.from({ length: 3000 }, (_, index) => ({
    kind: "activation",
    operand: index === 0 ? "state" : index - 1,
    activation: parseActivation("tanh"),
  }));
  expect(() => explainPlan({ stateSize: 1, contextSize: 0, operations })).toThrow(/3001 operations deep; at most 1000/);
});

describe("random graphs of sums, products, norms and activations", () => {
  const count = 3;
  const inputs = ({ stateSize, contextSize }: Network, { seed, shared }: { seed: number; shared: boolean }) => ({
    points: Float64Array.from(randomPoints(seed, count, stateSize)),
    context: contextSize > 0 ? Float64Array.from(randomPoints(seed + 1, shared ? 1 : count, contextSize)) : null,
  });

  test("the reference agrees with central differences, by every exact method", () => {
    const property = fc.property(graphs, (given) => {
      const network = drawn(given.seed);
      const { points, context } = inputs(network, given);
      const d = network.stateSize;
      const expected = differences(network, points, context);
      const { diagonal, divergence } = evaluateReference(network, points, {
        context,
        method: "tangent",
        outputs: ["divergence", "diagonal"],
      });
      const scale = expected.map((_, index) => 1 + Math.abs(diagonal![index]!));
      expectClose(diagonal!, expected, scale, { relative: 1e-6, label: "diagonal" });
      for (const { method } of explainPlan(network).candidates.filter(({ exact }) => exact)) {
        const result = evaluateReference(network, points, { context, method, outputs: ["divergence"] });
        const sizes = divergence!.map(
          (_, point) => 1 + diagonal!.subarray(point * d, (point + 1) * d).reduce((sum, entry) => sum + Math.abs(entry), 0),
        );
        expectClose(result.divergence!, divergence!, sizes, { relative: 1e-9, absolute: 0, label: method });
      }
    });
    fc.assert(property, runs);
  });

  test("neither chunks, nor tangents in turn, nor the caller's own buffers change the numbers", async () => {
    const property = fc.asyncProperty(
      graphs,
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 12, max: 16 }),
      async ({ seed, shared }, chunkSize, budget) => {
        const network = drawn(seed);
        const { stateSize: d, contextSize: c } = network;
        const many = 37;
        const points = randomPoints(seed, many, d);
        const context = c > 0 ? randomPoints(seed + 1, shared ? 1 : many, c) : null;
        const [field, narrow] = await Promise.all([
          VectorField.create(device, network),
          VectorField.create(device, network, { memoryBudget: 2 ** budget }),
        ]);
        const outputs = ["value", "divergence", "diagonal"] as const;
        const expected = await field.evaluate(points, { context, outputs, method: "tangent" });
        const { jacobian } = await field.evaluate(points, { context, outputs: ["jacobian"] });
        expect(await narrow.evaluate(points, { context, outputs, method: "tangent", chunkSize })).toEqual(expected);
        expect((await narrow.evaluate(points, { context, outputs: ["jacobian"], chunkSize })).jacobian).toEqual(jacobian);

        const { STORAGE, COPY_DST, COPY_SRC, MAP_READ } = GPUBufferUsage;
        const buffer = (data: Float32Array<ArrayBuffer>): GPUBuffer => {
          const made = device.createBuffer({ size: Math.max(16, data.byteLength), usage: STORAGE | COPY_DST | COPY_SRC });
          device.queue.writeBuffer(made, 0, data);
          return made;
        };
        const results = outputs.map((output) => buffer(new Float32Array(expected[output].length)));
        const encoder = device.createCommandEncoder();
        narrow.encode(encoder, {
          points: buffer(Float32Array.from(points)),
          count: many,
          method: "tangent",
          ...(context && { context: { buffer: buffer(Float32Array.from(context)), stride: shared ? 0 : c } }),
          value: results[0],
          divergence: results[1],
          diagonal: results[2],
        });
        const read = results.map((result) => device.createBuffer({ size: result.size, usage: MAP_READ | COPY_DST }));
        results.forEach((result, index) => encoder.copyBufferToBuffer(result, 0, read[index]!, 0, result.size));
        device.queue.submit([encoder.finish()]);
        for (const [index, output] of outputs.entries()) {
          await read[index]!.mapAsync(1);
          const given = new Float32Array(read[index]!.getMappedRange().slice(0)).subarray(0, expected[output].length);
          // The sum of the diagonal is the GPU's here, in float32.
          const scale = expected[output].map((_, at) => {
            if (output !== "divergence") return Math.abs(expected[output][at]!);
            return expected.diagonal.subarray(at * d, (at + 1) * d).reduce((sum, entry) => sum + Math.abs(entry), 0);
          });
          expectClose(given, expected[output], scale, { relative: 1e-6, label: output });
        }
        field.destroy();
        narrow.destroy();
      },
    );
    await fc.assert(property, runs);
  });
});
