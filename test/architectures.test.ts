import { readFileSync, readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, explainPlan, parseOnnx, VectorField, type Network, type Output } from "../src/index.js";
import { divergenceScale, expectClose } from "./close.js";
import { openDevice } from "./device.js";

/** The architectures that people train, as PyTorch's two exporters write them, with PyTorch's float64 truth. */
const folder = new URL("architectures/", import.meta.url);
const files = readdirSync(folder).filter((file) => file.endsWith(".onnx"));

interface Truth {
  points: Float64Array;
  context: Float64Array | null;
  value: Float64Array;
  diagonal: Float64Array;
  divergence: Float64Array;
  /** Σ_i |∂f_i/∂x_i| per point. */
  scale: Float64Array;
}

function load(file: string): { network: Network; truth: Truth } {
  const given = JSON.parse(readFileSync(new URL(`${file.split(".")[0]}.json`, folder), "utf8"));
  return {
    network: parseOnnx(readFileSync(new URL(file, folder))),
    truth: {
      points: Float64Array.from(given.x),
      context: given.t && Float64Array.from(given.t),
      value: Float64Array.from(given.y),
      diagonal: Float64Array.from(given.diag),
      divergence: Float64Array.from(given.div),
      scale: Float64Array.from(given.absJacDiagSum),
    },
  };
}

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

describe("PyTorch's float64 truth", () => {
  test.for(files)("holds for %s, by every exact method that applies, in the reference and on the GPU", async (file) => {
    const { network, truth } = load(file);
    const { points, context } = truth;
    const field = await VectorField.create(device, network);
    const methods = new Set(
      explainPlan(network)
        .candidates.filter(({ exact }) => exact)
        .map(({ method }) => method),
    );
    expect(methods.size).toBeGreaterThanOrEqual(3);
    for (const method of methods) {
      const outputs: readonly Output[] = method === "cyclic" ? ["value", "divergence"] : ["value", "divergence", "diagonal"];
      const each = truth.diagonal.map((_, index) => truth.scale[Math.floor(index / network.stateSize)]!);
      const reference = evaluateReference(network, points, { context, method, outputs });
      const tight = { relative: 1e-10, absolute: 1e-12 };
      expectClose(reference.value!, truth.value, truth.value.map(Math.abs), { ...tight, label: `reference value by ${method}` });
      expectClose(reference.divergence!, truth.divergence, truth.scale, { ...tight, label: `reference divergence by ${method}` });
      if (reference.diagonal) expectClose(reference.diagonal, truth.diagonal, each, { ...tight, label: `reference diagonal by ${method}` });
      const result = await field.evaluate(points, { context, method, outputs });
      expectClose(result.value!, truth.value, truth.value.map(Math.abs), { relative: 1e-5, absolute: 1e-6, label: `value by ${method}` });
      expectClose(result.divergence!, truth.divergence, truth.scale, { label: `divergence by ${method}` });
      if (result.diagonal) expectClose(result.diagonal, truth.diagonal, each, { label: `diagonal by ${method}` });
    }
    field.destroy();
  });
});

describe("one context", () => {
  const withContext = files.filter((file) => load(file).network.contextSize > 0);

  test.for(withContext)("for all points and the same one for each give the same numbers in %s", async (file) => {
    const { network, truth } = load(file);
    const count = truth.points.length / network.stateSize;
    const one = truth.context!.slice(0, network.contextSize);
    const each = Float64Array.from({ length: count * network.contextSize }, (_, index) => one[index % network.contextSize]!);
    const field = await VectorField.create(device, network);
    const shared = await field.evaluate(truth.points, { context: one });
    const own = await field.evaluate(truth.points, { context: each });
    const expected = evaluateReference(network, truth.points, { context: each, outputs: ["value", "divergence", "diagonal"] });
    const scale = expected.divergence!.map((_, point) =>
      expected
        .diagonal!.subarray(point * network.stateSize, (point + 1) * network.stateSize)
        .reduce((sum, entry) => sum + Math.abs(entry), 0),
    );
    for (const result of [shared, own]) {
      expectClose(result.value, expected.value!, expected.value!.map(Math.abs), { relative: 1e-5, absolute: 1e-6, label: "value" });
      expectClose(result.divergence, expected.divergence!, scale, { label: "divergence" });
    }
    field.destroy();
  });

  test("that many points in a row have in common is evaluated once for all of them", async () => {
    const { network, truth } = load("concatsquash.dynamo.onnx");
    const [d, repeats, times] = [network.stateSize, 5000, [0.1, 0.9, 0.1]];
    const points = Float32Array.from({ length: times.length * repeats * d }, (_, index) => truth.points[index % truth.points.length]!);
    const context = times.flatMap((time) => Array.from({ length: repeats }, () => time));
    const field = await VectorField.create(device, network);
    const written: number[] = [];
    const writeBuffer = device.queue.writeBuffer.bind(device.queue);
    device.queue.writeBuffer = (buffer, offset, data, ...rest) => {
      if (buffer.label.endsWith(": context")) written.push(data.byteLength);
      writeBuffer(buffer, offset, data, ...rest);
    };
    const { divergence } = await field.evaluate(points, { context });
    device.queue.writeBuffer = writeBuffer;
    expect(written).toEqual(times.map(() => 4));
    const expected = evaluateReference(network, points, { context, outputs: ["divergence", "diagonal"] });
    const scale = divergenceScale(expected.diagonal!, d);
    expectClose(divergence, expected.divergence!, scale);
    field.destroy();
  });

  test("per point may differ ten thousand times", async () => {
    const { network } = load("time-embedding.torchscript.onnx");
    const count = 10_000;
    const points = Float32Array.from({ length: count * network.stateSize }, (_, index) => Math.sin(index));
    const context = Float32Array.from({ length: count * network.contextSize }, (_, index) => (index % count) / count);
    const field = await VectorField.create(device, network);
    const { divergence } = await field.evaluate(points, { context });
    const some = [0, 1, 4999, 9999];
    const d = network.stateSize;
    for (const point of some) {
      const x = points.subarray(point * d, (point + 1) * d);
      const own = context.subarray(point * network.contextSize, (point + 1) * network.contextSize);
      const reference = evaluateReference(network, x, { context: own, outputs: ["divergence", "diagonal"] });
      const scale = reference.diagonal!.reduce((sum, entry) => sum + Math.abs(entry), 0);
      expectClose([divergence[point]!], reference.divergence!, [scale]);
    }
    field.destroy();
  });
});

test("a gate after the last layer leaves one product per point where all points share the context", () => {
  const { network } = load("concatsquash.torchscript.onnx");
  const price = (contextPer: "point" | "batch"): number =>
    explainPlan(network, { contextPer }).candidates.find(({ chosen }) => chosen)!.multiplyAdds;
  expect(price("batch")).toBe(24 * 24);
  expect(price("point")).toBeGreaterThan(price("batch"));
});

test("a skip of the state adds its trace, and keeps the bilinear form", () => {
  const { network } = load("skip-field.dynamo.onnx");
  const chosen = explainPlan(network).candidates.find((candidate) => candidate.chosen)!;
  expect(chosen.method).toBe("cyclic");
  expect(chosen.description).toContain("bilinear");
});
