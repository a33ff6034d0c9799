import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, InputError, mlp, VectorField, type Method, type Network, type Output } from "../src/index.js";
import { parseActivation } from "../src/model/activation.js";
import { openDevice } from "./device.js";
import { random, randomMlp, weightOf } from "./fields.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

const d = 5;
const count = 61;
/** The first point, the last, and some between, among them neighbours. */
const spots = [0, 7, 8, 30, 60];

/** Small points, where all is well, and at some spots ones at which a single hidden unit overflows or leaves its domain. */
function pointsOf(spoilt: boolean): Float32Array {
  const uniform = random(5);
  const points = Float32Array.from({ length: count * d }, () => 0.002 * (1 + uniform()));
  if (spoilt) for (const spot of spots) points.fill(1, spot * d, (spot + 1) * d);
  return points;
}

/** Positive weights; those of some units of a layer are a thousandfold, or -1000 times themselves under a bias of 100. */
function networkOf(widths: readonly number[], activations: readonly string[], layer: number, units: readonly number[]): Network {
  const { layers } = randomMlp({ seed: 3, widths, activation: activations });
  for (const { weight, bias } of layers) {
    weight.data.forEach((number, i) => (weight.data[i] = Math.abs(number)));
    bias.forEach((number, i) => (bias[i] = 0.1 * Math.abs(number)));
  }
  const undefinedThere = ["sqrt", "log", "power(0.5)"].includes(activations[layer]!);
  const { weight, bias } = layers[layer]!;
  const inputs = weight.shape[1];
  for (const unit of units) {
    for (let i = unit * inputs; i < (unit + 1) * inputs; i++) weight.data[i]! *= undefinedThere ? -1e3 : 1e3;
    if (undefinedThere) bias[unit] = 100;
  }
  return mlp({ layers, activation: activations });
}

/** Residuals, a gate and a norm: combine, blend and the norms' kernels; the exponential of one unit overflows. */
function graph(): Network {
  const { network } = randomMlp({ seed: 4, widths: [d, d], activation: [] });
  const dense = { rows: d, columns: d, data: weightOf(network, 0).data.map(Math.abs) };
  const steep = { ...dense, data: dense.data.map((number, i) => (i < d ? 1e3 * number : number)) };
  const ones = { diagonal: new Float32Array(d).fill(1) };
  return {
    stateSize: d,
    contextSize: 0,
    operations: [
      { kind: "linear", terms: [{ operand: "state", weight: steep }], bias: null },
      { kind: "activation", operand: 0, activation: parseActivation("exp") },
      {
        kind: "linear",
        terms: [
          { operand: "state", weight: dense },
          { operand: 1, weight: ones },
        ],
        bias: null,
      },
      { kind: "product", operands: [2, "state"] },
      { kind: "norm", operand: 3, centered: true, epsilon: 0.1 },
      { kind: "activation", operand: 4, activation: parseActivation("tanh") },
      {
        kind: "linear",
        terms: [
          { operand: 5, weight: dense },
          { operand: "state", weight: ones },
        ],
        bias: null,
      },
    ],
  };
}

const networks = [
  { name: "exp, then softsign", network: networkOf([d, 9, 7, d], ["exp", "softsign"], 0, [8]) },
  { name: "softsign, then exp", network: networkOf([d, 9, 7, d], ["softsign", "exp"], 1, [5]) },
  { name: "sqrt, then relu", network: networkOf([d, 9, 7, d], ["sqrt", "relu"], 0, [0]) },
  { name: "sinh, then softsign", network: networkOf([d, 9, 7, d], ["sinh", "softsign"], 0, [8]) },
  { name: "one layer of log", network: networkOf([d, 9, d], ["log"], 0, [4]) },
  { name: "exp, tanh, relu", network: networkOf([d, 9, 3, 7, d], ["exp", "tanh", "relu"], 0, [3]) },
  { name: "softsign, broken power, hardtanh", network: networkOf([d, 9, 3, 7, d], ["softsign", "power(0.5)", "hardtanh"], 1, [2]) },
  { name: "exp at the output of one layer", network: networkOf([d, 9, d], ["softsign", "exp"], 1, [0, 1, 2, 3, 4]) },
  { name: "exp at the output", network: networkOf([d, 9, 7, d], ["softsign", "square", "exp"], 2, [0, 1, 2, 3, 4]) },
  { name: "a graph", network: graph() },
];

/** Compiling takes software drivers most of the time: two of the networks have what the others are made of. */
const kernels = [
  { name: "layers 4x4", networks },
  { name: "fused storage x2", networks },
  ...["layers 8x16", "layers 4x16 by 8 lanes", "layers 4x4 in groups of 16x16"].map((name) => ({
    name,
    networks: networks.filter((some) => ["exp, then softsign", "a graph"].includes(some.name)),
  })),
];

const runs: { method: Method; outputs: readonly Output[] }[] = [
  { method: "tangent", outputs: ["value", "divergence", "diagonal"] },
  { method: "cyclic", outputs: ["value", "divergence"] },
  { method: "jacobian", outputs: ["value", "divergence", "diagonal", "jacobian"] },
  { method: "coordinate", outputs: ["value", "divergence", "diagonal"] },
  { method: "hutchinson", outputs: ["value", "divergence"] },
];

describe.each(kernels)("$name", ({ name, networks }) => {
  test.each(networks)(
    "$name: what overflows or is undefined is not finite in any output, and no other point changes",
    async ({ network }) => {
      const field = await VectorField.create(device, network, { kernels: name }).catch((error: unknown) => {
        if (error instanceof InputError && error.message.includes("lanes")) return null; // more than the device has
        throw error;
      });
      if (!field) return;
      const [clean, spoilt] = [pointsOf(false), pointsOf(true)];
      for (const run of runs) {
        if (run.method === "cyclic" && !isCyclic(network)) continue;
        const before = await field.evaluate(clean, run);
        const actual = await field.evaluate(spoilt, run);
        // The same buffers again: nothing may be left in their padding.
        const after = await field.evaluate(clean, run);
        for (const output of run.outputs) {
          const [expected, now, then] = [before[output]!, actual[output]!, after[output]!];
          const size = expected.length / count;
          expected.forEach((number, i) => {
            const label = `${output}[${i}] by ${run.method}`;
            if (!Number.isFinite(number) || !Object.is(then[i], number)) expect.fail(`${label} was ${number} and then is ${then[i]}`);
            const isSpot = spots.includes(Math.floor(i / size));
            if (isSpot ? Number.isFinite(now[i]!) : !Object.is(now[i], number)) expect.fail(`${label} is ${now[i]} for ${number}`);
          });
        }
      }
      field.destroy();
    },
  );
});

function isCyclic(network: Network): boolean {
  try {
    evaluateReference(network, pointsOf(false), { method: "cyclic" });
    return true;
  } catch {
    return false;
  }
}
