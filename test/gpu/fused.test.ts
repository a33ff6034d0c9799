import { readFileSync, readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, parseOnnx, VectorField, type Method, type Network } from "../../src/index.js";
import { expectClose } from "../close.js";
import { openDevice } from "../device.js";
import { randomMlp, randomPoints } from "../fields.js";

/** Kernels that carry a point through all layers, their weights in a buffer or in the text. */
const variants = ["fused uniform x1", "fused uniform x2", "fused storage x4", "fused literal x1", "fused literal x2"];

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

/** Odd widths and counts: blocks of results, points of an invocation and workgroups all end in their middle. */
const COUNT = 71;

async function compare(network: Network, kernels: string, methods: readonly Method[], context: Float32Array | null): Promise<void> {
  const points = randomPoints(11, COUNT, network.stateSize);
  const field = await VectorField.create(device, network, { kernels });
  const { diagonal } = evaluateReference(network, points, { context, method: "tangent", outputs: ["diagonal"] });
  const d = network.stateSize;
  const scale = Float64Array.from({ length: COUNT }, (_, point) =>
    diagonal.subarray(point * d, (point + 1) * d).reduce((sum, entry) => sum + Math.abs(entry), 0),
  );
  for (const method of methods) {
    const reference = evaluateReference(network, points, { context, method });
    const result = await field.evaluate(points, { context, method });
    expect(result.kernels).toBe(kernels);
    expectClose(result.value, reference.value, reference.value.map(Math.abs), { relative: 1e-5, label: `${method}: value` });
    expectClose(result.divergence, reference.divergence, scale, { label: `${method}: divergence` });
  }
  const each = await field.evaluate(points, { context, outputs: ["diagonal"] });
  expectClose(
    each.diagonal,
    diagonal,
    diagonal.map((_, index) => scale[Math.floor(index / d)]!),
    { label: "diagonal" },
  );
  const alone = await field.evaluate(points, { context, outputs: ["value"] });
  const { value } = evaluateReference(network, points, { context, outputs: ["value"] });
  expectClose(alone.value, value, value.map(Math.abs), { relative: 1e-5, label: "value alone" });
  field.destroy();
}

describe.for(variants)("%s", (kernels) => {
  test.for([
    { widths: [2, 13, 10, 2], activation: "tanh" },
    { widths: [3, 9, 3], activation: "softplus" },
    { widths: [5, 6, 7, 9, 5], activation: ["silu", "gelu", "sin"] },
  ])("computes value, divergence and diagonal of $widths with $activation", async ({ widths, activation }) => {
    const { network } = randomMlp({ seed: 3, widths, activation: typeof activation === "string" ? activation : [...activation] });
    await compare(network, kernels, ["tangent", "cyclic"], null);
  });

  test("takes a context, one for all points and one for each", async () => {
    const { network } = randomMlp({ seed: 8, widths: [2, 9, 11, 2], activation: "tanh", contextSize: 3 });
    await compare(network, kernels, ["tangent"], randomPoints(5, 1, 3));
    await compare(network, kernels, ["cyclic"], randomPoints(5, COUNT, 3));
  });
});

describe("architectures", () => {
  const folder = new URL("../architectures/", import.meta.url);
  const files = readdirSync(folder).filter((file) => file.endsWith(".dynamo.onnx"));

  test.for(files.flatMap((file) => ["fused storage x1", "fused literal x1"].map((kernels) => ({ file, kernels }))))(
    "$file by $kernels",
    async ({ file, kernels }) => {
      const network = parseOnnx(readFileSync(new URL(file, folder)));
      const context = network.contextSize > 0 ? randomPoints(2, COUNT, network.contextSize).map((number) => Math.abs(number) % 1) : null;
      await compare(network, kernels, ["tangent"], context);
    },
  );
});

test("a plan that cannot be fused runs by the plain kernels and says so", async () => {
  const { network } = randomMlp({ seed: 1, widths: [17, 8, 17], activation: "tanh" });
  const field = await VectorField.create(device, network, { kernels: "fused storage x2" });
  const points = randomPoints(1, 5, 17);
  expect((await field.evaluate(points)).kernels).toBe("layers 4x4");
});

test("an unrolled kernel that is too long to compile is refused by its size", async () => {
  const { network } = randomMlp({ seed: 1, widths: [2, 128, 128, 128, 128, 2], activation: "tanh" });
  const field = await VectorField.create(device, network, { kernels: "fused literal x1" });
  await expect(field.evaluate(randomPoints(1, 5, 2))).rejects.toThrow(/unrolled multiply-adds; at most \d+/);
});
