import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  evaluateReference,
  explainPlan,
  methods,
  parseOnnx,
  VectorField,
  vjpReference,
  type Network,
  type Operation,
  type Output,
} from "../src/index.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { denseOf, randomMlp } from "./fields.js";
import { expectVjp } from "./gradients.js";
import { Draw } from "./numbers/draw.js";
import { particles } from "./particles.js";
import { onnxFile, type OnnxTensor } from "./onnx.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

/** The same with all zeros written out. */
function dense({ operations, ...rest }: Network): Network {
  const written = operations.map((operation): Operation => {
    if (operation.kind !== "linear") return operation;
    return { ...operation, terms: operation.terms.map(({ operand, weight }) => ({ operand, weight: denseOf(weight) })) };
  });
  return { ...rest, operations: written };
}

// Blocks that end within a vec4, on its edge, and beyond it.
const shapes = [
  { times: 2, widths: [1, 3, 1] },
  { times: 3, widths: [2, 5, 7, 2] },
  { times: 5, widths: [3, 4, 3] },
  { times: 4, widths: [4, 8, 8, 4] },
  { times: 7, widths: [2, 9, 2] },
  { times: 6, widths: [1, 2, 3, 5, 1] },
  { times: 3, widths: [5, 5] },
];

describe.each(shapes)("$times particles through $widths", ({ times, widths }) => {
  const network = particles(times, widths);
  const d = network.stateSize;
  const points = new Draw(2).numbers(9 * d, 1.5);
  const scaleOf = (diagonal: Float64Array): Float64Array =>
    Float64Array.from({ length: 9 }, (_, b) => diagonal.subarray(b * d, (b + 1) * d).reduce((sum, entry) => sum + Math.abs(entry), 0));

  test.each(methods)("are what the dense matrix is by %s, on the GPU and in float64", async (method) => {
    const wanted: Output[] = ["value", "divergence"];
    const truth = evaluateReference(dense(network), points, { method: method === "hutchinson" ? method : "auto", outputs: wanted });
    const scale = scaleOf(evaluateReference(dense(network), points, { outputs: ["diagonal"] }).diagonal!);
    const double = evaluateReference(network, points, { method, outputs: wanted });
    const exact = method !== "difference";
    const size = truth.value!.map(Math.abs);
    expectClose(double.value!, truth.value!, size, { relative: 1e-12, absolute: 1e-12, label: "reference value" });
    expectClose(double.divergence!, truth.divergence!, scale, { relative: exact ? 1e-12 : 1e-3, label: "reference" });
    for (const kernels of ["layers 4x4", "layers 8x16"]) {
      const field = await VectorField.create(device, network, { kernels });
      const single = await field.evaluate(points, { method, outputs: wanted });
      expectClose(single.value!, truth.value!, size, { absolute: 2e-6, label: `${kernels} value` });
      const allowed = method === "hutchinson" ? scale.map((s) => s * d) : scale;
      expectClose(single.divergence!, truth.divergence!, allowed, { relative: exact ? 2e-5 : 5e-3, label: kernels });
      field.destroy();
    }
  });
});

test("the gradient of what is shared is the sum over the parts, and its price what the steps take", async () => {
  const network = particles(3, [2, 5, 6, 2]);
  const points = new Draw(4).numbers(7 * network.stateSize, 1);
  const options = { wrt: ["points", "parameters"] } as const;
  const expected = vjpReference(network, points, { divergence: 1, value: points }, options);
  const field = await VectorField.create(device, network);
  expectVjp(await field.vjp(points, { divergence: 1, value: points }, options), expected, 1e-5, "shared weights");
  const { gradient } = field.explain({ gradient: true });
  // Three products of blocks are done once.
  expect(gradient!.perCall).toBe(3 * 3 * 2 * 5 * 6);
  // Of sums over the points too the blocks alone are taken: as much as for an MLP on its own.
  const { network: alone } = randomMlp({ seed: 1, widths: [2, 5, 6, 2], activation: "tanh" });
  expect(gradient!.multiplyAdds).toBe(3 * explainPlan(alone, { gradient: true }).gradient!.multiplyAdds);
  field.destroy();
});

test("what is shared costs the blocks alone, in the bilinear form too", () => {
  const [times, each, h] = [16, 3, 32];
  const network = particles(times, [each, h, h, each]);
  const { forwardMultiplyAdds, candidates, method } = explainPlan(network);
  expect(forwardMultiplyAdds).toBe(times * (each * h + h * h + h * each));
  const best = candidates.find(({ chosen }) => chosen)!;
  expect(method).toBe("cyclic");
  expect(best.matrixBytes).toBe(4 * times * h * h);
  expect(best.multiplyAdds).toBe(times * h * h);
  expect(explainPlan(dense(network)).forwardMultiplyAdds).toBe(times * forwardMultiplyAdds);
});

test("an .onnx model over particles keeps what they share: x, their mean and a time to each", () => {
  const [times, each, h] = [16, 3, 32];
  const draw = new Draw(5);
  const list = (...shape: number[]): OnnxTensor => ({
    shape,
    data: Array.from(
      draw.numbers(
        shape.reduce((a, b) => a * b),
        1 / Math.sqrt(shape[0]!),
      ),
    ),
  });
  const whole = (...data: number[]): OnnxTensor => ({ shape: [data.length], type: 7, data });
  const initializers = { w1: list(2 * each + 1, h), b1: list(h), w2: list(h, h), w3: list(h, each) };
  const network = parseOnnx(
    onnxFile({
      inputs: { x: ["batch", times, each], t: ["batch", 1, 1] },
      nodes: [
        ["ReduceMean", ["x", "1"], ["m"]],
        ["Expand", ["m", "shape"], ["ms"]],
        ["Expand", ["t", "one each"], ["ts"]],
        ["Concat", ["x", "ms", "ts"], ["all"], { axis: 2 }],
        ["MatMul", ["all", "w1"], ["a"]],
        ["Add", ["a", "b1"], ["z1"]],
        ["Tanh", ["z1"], ["h1"]],
        ["MatMul", ["h1", "w2"], ["z2"]],
        ["Tanh", ["z2"], ["h2"]],
        ["MatMul", ["h2", "w3"], ["v"]],
      ],
      outputs: { v: ["batch", times, each] },
      initializers: { ...initializers, 1: whole(1), shape: whole(1, times, 1), "one each": whole(1, times, 1) },
    }),
  );
  expect(network.stateShape).toEqual([times, each]);
  const weights = network.operations.flatMap((operation) =>
    operation.kind === "linear" ? operation.terms.map(({ weight }) => weight) : [],
  );
  const shared = weights.flatMap((weight) => ("block" in weight ? [[weight.block.rows, weight.block.columns]] : []));
  expect(shared).toEqual([
    [h, each],
    [h, h],
    [each, h],
  ]);

  const x = draw.numbers(times * each, 1);
  const t = 0.3;
  const row = (values: readonly number[], { shape, data }: OnnxTensor): number[] => {
    const width = Number(shape[1]);
    return Array.from({ length: width }, (_, k) => values.reduce((sum, v, i) => sum + v * Number(data![i * width + k]), 0));
  };
  const f = (at: Float64Array): number[] => {
    const mean = [0, 1, 2].map((k) => at.reduce((sum, v, i) => sum + (i % each === k ? v / times : 0), 0));
    return Array.from({ length: times }, (_, n) => {
      const input = [...at.subarray(n * each, (n + 1) * each), ...mean, t];
      const h1 = row(input, initializers.w1).map((v, k) => Math.tanh(v + Number(initializers.b1.data![k])));
      return row(
        row(h1, initializers.w2).map((v) => Math.tanh(v)),
        initializers.w3,
      );
    }).flat();
  };
  const result = evaluateReference(network, x, { context: t, outputs: ["value", "divergence", "diagonal"] });
  const at = Float64Array.from(x);
  expectClose(result.value!, f(at), f(at).map(Math.abs), { relative: 1e-6, absolute: 1e-7 });
  const step = 1e-6;
  const diagonal = at.map((_, i) => {
    const [more, less] = [step, -step].map((by) => f(at.with(i, at[i]! + by))[i]!) as [number, number];
    return (more - less) / (2 * step);
  });
  expectClose(result.diagonal!, diagonal, diagonal.map(Math.abs), { relative: 1e-6, absolute: 1e-7 });
});
