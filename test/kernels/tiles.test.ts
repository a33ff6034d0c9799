import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  evaluateReference,
  explainPlan,
  InputError,
  parseOnnx,
  VectorField,
  type Method,
  type Network,
  type Output,
  type PlanOptions,
} from "../../src/index.js";
import { capabilitiesOf } from "../../src/kernels/capabilities.js";
import { parseActivation } from "../../src/model/activation.js";
import { expectClose } from "../close.js";
import { openDevice } from "../device.js";
import { randomMlp, randomPoints, weightOf } from "../fields.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

/** A field by a tile; null where the device has too few lanes, and says so. */
async function fieldBy(tile: string, network: Network): Promise<VectorField | null> {
  const making = VectorField.create(device, network, { kernels: `layers ${tile}` });
  if (!tile.includes("lanes") || capabilitiesOf(device).lanes >= 8) return making;
  await expect(making).rejects.toThrow(/at least \d+ lanes/);
  return null;
}

const { network: chain } = randomMlp({ seed: 4, widths: [6, 19, 6], activation: "tanh" });
const tanh = parseActivation("tanh");

/** A norm between two layers whose widths no tile divides. */
const normed: Network = {
  stateSize: 6,
  contextSize: 0,
  operations: [
    { kind: "linear", terms: [{ operand: "state", weight: weightOf(chain, 0) }], bias: null },
    { kind: "activation", operand: 0, activation: tanh },
    { kind: "norm", operand: 1, centered: true, epsilon: 0.1 },
    { kind: "linear", terms: [{ operand: 2, weight: weightOf(chain, 2) }], bias: null },
  ],
};

/** A layer times what the context makes of itself. */
const gated: Network = {
  stateSize: 6,
  contextSize: 6,
  operations: [
    { kind: "linear", terms: [{ operand: "state", weight: weightOf(chain, 0) }], bias: null },
    { kind: "linear", terms: [{ operand: "context", weight: weightOf(chain, 0) }], bias: null },
    { kind: "product", operands: [0, 1] },
    { kind: "activation", operand: 2, activation: tanh },
    { kind: "linear", terms: [{ operand: 3, weight: weightOf(chain, 2) }], bias: null },
  ],
};
const concatSquash = parseOnnx(readFileSync(new URL("../architectures/concatsquash.dynamo.onnx", import.meta.url)));

/** Widths and counts that no tile divides; 131 points with their tangents fill several workgroups, 3 less than a tile. */
const cases: { name: string; network: Network; count: number; chunkSize?: number }[] = [
  { name: "two hidden layers", network: randomMlp({ seed: 1, widths: [5, 37, 22, 5], activation: "tanh" }).network, count: 131 },
  { name: "three hidden layers", network: randomMlp({ seed: 2, widths: [7, 13, 50, 9, 7], activation: "silu" }).network, count: 67 },
  { name: "a wide state", network: randomMlp({ seed: 3, widths: [70, 33, 70], activation: "gelu" }).network, count: 3 },
  {
    name: "a context per point",
    network: randomMlp({ seed: 5, widths: [3, 18, 21, 3], activation: "tanh", contextSize: 2 }).network,
    count: 45,
  },
  { name: "a gate of a context per point", network: gated, count: 30 },
  { name: "ConcatSquash layers", network: concatSquash, count: 30 },
  { name: "a norm", network: normed, count: 29 },
  {
    // All rows of a tile are tangents of one point, and a block of 64 outputs does not take all.
    name: "eight tangents at once",
    network: randomMlp({ seed: 7, widths: [8, 70, 66, 8], activation: "tanh" }).network,
    count: 17,
    chunkSize: 8,
  },
  { name: "no hidden layer", network: randomMlp({ seed: 6, widths: [9, 9] }).network, count: 5 },
];

/** What each method gives beside the divergence, with float64 truth. */
const asked: { method: Method; outputs: readonly Output[] }[] = [
  { method: "tangent", outputs: ["value", "divergence", "diagonal"] },
  { method: "cyclic", outputs: ["value", "divergence"] },
  { method: "jacobian", outputs: ["divergence", "diagonal", "jacobian"] },
  { method: "coordinate", outputs: ["divergence", "diagonal"] },
  { method: "hutchinson", outputs: ["divergence"] },
];

const truths = new Map<string, ReturnType<typeof truthOf>>();

function truthOf({ network, count }: (typeof cases)[number]) {
  const points = randomPoints(7, count, network.stateSize);
  const context = network.contextSize > 0 ? randomPoints(8, count, network.contextSize, 0.5) : null;
  const methods = new Set(explainPlan(network).candidates.map(({ method }) => method));
  const applicable = asked.filter(({ method }) => methods.has(method));
  const results = applicable.map((asking) => ({
    ...asking,
    result: evaluateReference(network, points, { ...common(asking.method), ...asking, context }),
  }));
  return { points, context, results };
}

/** Tangents in several passes, of which the last is smaller; probes, where they are used. */
const common = (method: Method): PlanOptions => ({ chunkSize: 4, seed: 5, ...(method === "hutchinson" && { probes: 3 }) });

/** Sums of |numbers| over each of `rows` rows, repeated for each of `each` results of the row. */
function scaleOf(numbers: Float64Array, rows: number, each: number): Float64Array {
  const width = numbers.length / rows;
  return Float64Array.from({ length: rows * each }, (_, index) => {
    const row = Math.floor(index / each);
    return numbers.subarray(row * width, (row + 1) * width).reduce((sum, entry) => sum + Math.abs(entry), 0);
  });
}

const tiles = ["4x4", "8x16", "4x16 by 8 lanes", "4x4 in groups of 16x16"];

describe.each(tiles)("a tile of %s", (tile) => {
  test.for(cases)("gives the numbers of the reference with $name", async (given) => {
    const { name, network, count, chunkSize = 4 } = given;
    const field = await fieldBy(tile, network);
    if (!field) return;
    const truth = truths.get(name) ?? truthOf(given);
    truths.set(name, truth);
    const jacobian = truth.results.find(({ method }) => method === "jacobian")!.result;
    for (const { method, outputs: wanted, result: expected } of truth.results) {
      const options = { ...common(method), chunkSize, method, outputs: wanted, context: truth.context };
      const result = await field.evaluate(truth.points, options);
      // An estimate adds the other entries of J too.
      const summed = method === "hutchinson" ? jacobian.jacobian! : jacobian.diagonal!;
      for (const output of wanted) {
        const each = expected[output]!.length / count;
        const scale = output === "value" ? expected.value!.map(Math.abs) : scaleOf(summed, count, each);
        expectClose(result[output]!, expected[output]!, scale, { label: `${output} by ${method}` });
      }
    }
    field.destroy();
  });
});

describe("a tile that is asked for", () => {
  const { network, count } = cases[0]!;

  test.for(["4x16 by 8 lanes", "4x4 in groups of 16x16"])("is what encode runs too: %s", async (tile) => {
    const field = await fieldBy(tile, network);
    if (!field) return;
    const points = randomPoints(7, count, network.stateSize);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const given = device.createBuffer({ size: points.byteLength, usage });
    device.queue.writeBuffer(given, 0, points);
    const divergence = device.createBuffer({ size: 4 * count, usage });
    const staging = device.createBuffer({ size: 4 * count, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    await field.reserve(count, { outputs: ["divergence"] });
    const encoder = device.createCommandEncoder();
    field.encode(encoder, { points: given, count, divergence });
    encoder.copyBufferToBuffer(divergence, 0, staging, 0, 4 * count);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const expected = evaluateReference(network, points, { outputs: ["divergence", "diagonal"] });
    const scale = scaleOf(expected.diagonal!, count, 1);
    expectClose(new Float32Array(staging.getMappedRange()), expected.divergence!, scale, { label: "divergence" });
    for (const buffer of [given, divergence, staging]) buffer.destroy();
    field.destroy();
  });

  test("is refused where the device has fewer lanes, and where it is none", async () => {
    const { features } = device;
    Object.defineProperty(device, "features", { value: new Set(), configurable: true });
    const tooMany = VectorField.create(device, network, { kernels: "layers 4x16 by 8 lanes" });
    await expect(tooMany).rejects.toThrow(InputError);
    await expect(tooMany).rejects.toThrow("at least 0 lanes");
    Object.defineProperty(device, "features", { value: features, configurable: true });
    await expect(VectorField.create(device, network, { kernels: "layers 4x5" })).rejects.toThrow(InputError);
  });
});
