import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, VectorField, type Method, type Network, type Output } from "../src/index.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { loadModel, loadVector, modelNames, vectorNames } from "./fields.js";

/** A network with float64 truth by PyTorch. */
interface Case {
  name: string;
  network: Network;
  points: Float64Array;
  context: Float64Array | null;
  value: Float64Array;
  diagonal: Float64Array;
  divergence: Float64Array;
  /** Σ_i |∂f_i/∂x_i| per point. */
  scale: Float64Array;
}

const exactMethods: readonly Method[] = ["tangent", "cyclic", "jacobian", "coordinate"];

const cases: Case[] = [
  ...vectorNames.map((name): Case => {
    const { network, truth } = loadVector(name);
    return {
      name,
      network,
      points: truth.x,
      context: null,
      value: truth.y,
      diagonal: truth.diag,
      divergence: truth.div,
      scale: truth.absJacDiagSum,
    };
  }),
  ...modelNames.map((name): Case => {
    const { network, truth } = loadModel(name);
    const scale = truth.divergence.map((_, point) =>
      rowOf(truth.jacobianDiagonal, point, truth.stateSize).reduce((sum, entry) => sum + Math.abs(entry), 0),
    );
    return {
      name,
      network,
      points: truth.points,
      context: truth.context,
      value: truth.value,
      diagonal: truth.jacobianDiagonal,
      divergence: truth.divergence,
      scale,
    };
  }),
];

/** Float32 rounding of z itself is amplified by the frequency. */
const relativeOf = (name: string): number => (name.startsWith("sin30") ? 1e-4 : 2e-5);

function rowOf(data: Float64Array, row: number, width: number): Float64Array {
  return data.subarray(row * width, (row + 1) * width);
}

/** The scale of a point for each of its d entries. */
function repeated(scale: Float64Array, width: number): Float64Array {
  return Float64Array.from({ length: scale.length * width }, (_, index) => scale[Math.floor(index / width)]!);
}

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

describe("PyTorch's float64 truth", () => {
  test.for(cases)("the reference gives it for $name, by every exact method", ({ network, points, context, ...truth }) => {
    for (const method of exactMethods) {
      const outputs = method === "cyclic" ? (["value", "divergence"] as const) : (["value", "divergence", "diagonal"] as const);
      const result = evaluateReference(network, points, { context, method, outputs });
      const options = { relative: 1e-10, absolute: 1e-12, label: method };
      expectClose(result.value!, truth.value, truth.value.map(Math.abs), options);
      expectClose(result.divergence!, truth.divergence, truth.scale, options);
      if (result.diagonal) expectClose(result.diagonal, truth.diagonal, repeated(truth.scale, network.stateSize), options);
    }
  });

  test.for(cases)("the GPU gives it for $name, by every exact method", async ({ name, network, points, context, ...truth }) => {
    const field = await VectorField.create(device, network);
    const relative = relativeOf(name);
    for (const method of exactMethods) {
      const outputs: readonly Output[] = method === "cyclic" ? ["value", "divergence"] : ["value", "divergence", "diagonal"];
      const result = await field.evaluate(points, { context, method, outputs });
      expect(result.method).toBe(method);
      const scale = repeated(truth.scale, network.stateSize);
      expectClose(result.value!, truth.value, truth.value.map(Math.abs), { relative: 1e-5, absolute: 1e-6, label: `value by ${method}` });
      expectClose(result.divergence!, truth.divergence, truth.scale, { relative, label: `divergence by ${method}` });
      if (result.diagonal) expectClose(result.diagonal, truth.diagonal, scale, { relative, label: `diagonal by ${method}` });
    }
    field.destroy();
  });
});
