import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, explainPlan, VectorField, type Network, type Output } from "../src/index.js";
import { parseActivation } from "../src/model/activation.js";
import type { Diagonal, Matrix, Operand, Operation } from "../src/model/network.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { random, randomPoints } from "./fields.js";
import { float32Run, float64Run } from "./float32.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

// Smooth ones, so that central differences are a check everywhere.
const activations = ["tanh", "silu", "gelu", "sin", "softplus", "sigmoid"].map(parseActivation);

/** A random graph of `size` operations that ends in a velocity; any operation may read any value before it. */
function randomGraph(seed: number, stateSize: number, contextSize: number, size: number): Network {
  const uniform = random(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(uniform() * list.length)]!;
  const operations: Operation[] = [];
  const widths: number[] = [];
  const operands: Operand[] = contextSize > 0 ? ["state", "context"] : ["state"];
  const widthOf = (operand: Operand): number => (operand === "state" ? stateSize : operand === "context" ? contextSize : widths[operand]!);
  const add = (operation: Operation, width: number): Operand => {
    operations.push(operation);
    widths.push(width);
    operands.push(operations.length - 1);
    return operations.length - 1;
  };
  const draw = (count: number, scale: number): Float32Array => Float32Array.from({ length: count }, () => scale * (2 * uniform() - 1));
  const dense = (rows: number, operand: Operand): { operand: Operand; weight: Matrix } => {
    const columns = widthOf(operand);
    return { operand, weight: { rows, columns, data: draw(rows * columns, 1.5 / Math.sqrt(columns)) } };
  };
  const linear = (width: number): Operand => {
    const terms: { operand: Operand; weight: Matrix | Diagonal }[] = [dense(width, pick(operands.slice(-3)))];
    if (uniform() < 0.5) terms.push(dense(width, pick(operands)));
    const same = operands.filter((operand) => widthOf(operand) === width);
    if (same.length > 0 && uniform() < 0.6)
      terms.push({ operand: pick(same), weight: { diagonal: uniform() < 0.5 ? new Float32Array(width).fill(1) : draw(width, 1) } });
    return add({ kind: "linear", terms, bias: uniform() < 0.7 ? draw(width, 0.5) : null }, width);
  };
  for (let step = 0; step < size; step++) {
    const operand = linear(pick([1, 2, 3, 5, 8, 13]));
    const width = widthOf(operand);
    const kind = uniform();
    if (kind < 0.5) add({ kind: "activation", operand, activation: pick(activations) }, width);
    else if (kind < 0.75) add({ kind: "product", operands: [operand, pick(operands.filter((other) => widthOf(other) === width))] }, width);
    else if (kind < 0.9 && width > 2) add({ kind: "norm", operand, centered: uniform() < 0.5, epsilon: 0.1 }, width);
  }
  const velocity = linear(stateSize);
  if (uniform() < 0.2) add({ kind: "activation", operand: velocity, activation: pick(activations) }, stateSize);
  return { stateSize, contextSize, operations };
}

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

const graphs = fc.record({
  seed: fc.integer({ min: 0, max: 1e6 }),
  stateSize: fc.integer({ min: 1, max: 6 }),
  contextSize: fc.integer({ min: 0, max: 2 }),
  size: fc.integer({ min: 1, max: 7 }),
  shared: fc.boolean(),
});
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
      const scale = truth.divergence!.map((_, point) =>
        truth.diagonal!.subarray(point * stateSize, (point + 1) * stateSize).reduce((sum, entry) => sum + Math.abs(entry), 0),
      );
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
  const inputs = ({ seed, stateSize, contextSize, shared }: { seed: number; stateSize: number; contextSize: number; shared: boolean }) => ({
    points: Float64Array.from(randomPoints(seed, count, stateSize)),
    context: contextSize > 0 ? Float64Array.from(randomPoints(seed + 1, shared ? 1 : count, contextSize)) : null,
  });

  test("the reference agrees with central differences, by every exact method", () => {
    const property = fc.property(graphs, (drawn) => {
      const network = randomGraph(drawn.seed, drawn.stateSize, drawn.contextSize, drawn.size);
      const { points, context } = inputs(drawn);
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
          (_, point) =>
            1 + diagonal!.subarray(point * drawn.stateSize, (point + 1) * drawn.stateSize).reduce((sum, entry) => sum + Math.abs(entry), 0),
        );
        expectClose(result.divergence!, divergence!, sizes, { relative: 1e-9, absolute: 0, label: method });
      }
    });
    fc.assert(property, runs);
  });

  test("the GPU agrees with the reference, by every exact method", async () => {
    const property = fc.asyncProperty(graphs, async (drawn) => {
      const network = randomGraph(drawn.seed, drawn.stateSize, drawn.contextSize, drawn.size);
      const { points, context } = inputs(drawn);
      const truth = evaluateReference(network, points, {
        context,
        method: "jacobian",
        outputs: ["value", "divergence", "diagonal", "jacobian"],
      });
      const d = drawn.stateSize;
      const jacobianSizes = truth.divergence!.map((_, point) =>
        truth.jacobian!.subarray(point * d * d, (point + 1) * d * d).reduce((sum, entry) => sum + Math.abs(entry), 1),
      );
      // Σ|∂f_i/∂x_i|, or what makes 2e-5 of it 8 times the error of a plain float32 run, where that is more.
      const [single, double] = [float32Run(network, points, context), float64Run(network, points, context)];
      const rounding = Math.max(...double.divergence.map((exact, point) => Math.abs(single.divergence[point]! - exact)));
      const roundingOfEach = Math.max(...double.diagonal.map((exact, index) => Math.abs(single.diagonal[index]! - exact)));
      const diagonalSum = (point: number): number =>
        truth.diagonal!.subarray(point * d, (point + 1) * d).reduce((sum, entry) => sum + Math.abs(entry), 0);
      const sizes = truth.divergence!.map((_, point) => Math.max(diagonalSum(point), (8 * rounding) / 2e-5));
      const field = await VectorField.create(device, network);
      const methods = new Set(
        explainPlan(network)
          .candidates.filter(({ exact }) => exact)
          .map(({ method }) => method),
      );
      for (const method of methods) {
        const outputs: readonly Output[] = method === "cyclic" ? ["value", "divergence"] : ["value", "divergence", "diagonal"];
        const result = await field.evaluate(points, { context, method, outputs });
        expectClose(
          result.value!,
          truth.value!,
          truth.value!.map((value) => 1 + Math.abs(value)),
          { label: `value by ${method}` },
        );
        expectClose(result.divergence!, truth.divergence!, sizes, { label: `divergence by ${method}` });
        if (result.diagonal) {
          const each = truth.diagonal!.map((_, index) => Math.max(diagonalSum(Math.floor(index / d)), (8 * roundingOfEach) / 2e-5));
          expectClose(result.diagonal, truth.diagonal!, each, { label: `diagonal by ${method}` });
        }
      }
      const difference = await field.divergence(points, { context, method: "difference" });
      const inFloat64 = evaluateReference(network, points, { context, method: "difference" }).divergence!;
      expectClose(difference, inFloat64, jacobianSizes, { relative: 5e-3, label: "central differences" });
      for (const probesPer of ["point", "batch"] as const) {
        const options = { context, method: "hutchinson", probes: 4, probesPer } as const;
        const estimate = await field.divergence(points, options);
        expectClose(estimate, evaluateReference(network, points, options).divergence!, jacobianSizes, {
          relative: 1e-4,
          label: `estimate, probes per ${probesPer}`,
        });
      }
      const tangents = randomPoints(drawn.seed + 2, count, drawn.stateSize);
      const pushed = await field.jvp(points, tangents, { context });
      const expected = pushed.map((_, index) => {
        const row = truth.jacobian!.subarray(
          Math.floor(index / d) * d * d + (index % d) * d,
          Math.floor(index / d) * d * d + (index % d) * d + d,
        );
        return row.reduce((sum, entry, k) => sum + entry * tangents[Math.floor(index / d) * d + k]!, 0);
      });
      expectClose(
        pushed,
        expected,
        pushed.map((_, index) => 3 * jacobianSizes[Math.floor(index / d)]!),
        { label: "jvp" },
      );
      field.destroy();
    });
    await fc.assert(property, runs);
  });

  test("neither chunks, nor tangents in turn, nor the caller's own buffers change the numbers", async () => {
    const property = fc.asyncProperty(
      graphs,
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 12, max: 16 }),
      async (drawn, chunkSize, budget) => {
        const network = randomGraph(drawn.seed, drawn.stateSize, drawn.contextSize, drawn.size);
        const many = 37;
        const points = randomPoints(drawn.seed, many, drawn.stateSize);
        const context = drawn.contextSize > 0 ? randomPoints(drawn.seed + 1, drawn.shared ? 1 : many, drawn.contextSize) : null;
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
          ...(context && { context: { buffer: buffer(Float32Array.from(context)), stride: drawn.shared ? 0 : drawn.contextSize } }),
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
            const d = drawn.stateSize;
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
