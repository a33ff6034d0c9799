/** Curl, strain and Q criterion, beside closed forms and what the Jacobian says. */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  activationNames,
  evaluateReference,
  explainPlan,
  InputError,
  methods,
  mlp,
  PlanError,
  ReferenceField,
  VectorField,
  type Field,
  type Network,
  type Output,
} from "../src/index.js";
import { OnnxField, toOnnx } from "../src/onnx/index.js";
import { makeBuffer, readBuffer } from "./buffers.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";
import { nearKink } from "./float32.js";
import { rowsOf } from "./rows.js";
import { runtime } from "./onnxruntime.js";

const kinematics = ["curl", "strain", "qCriterion"] as const;

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

/** The engines that give them, and what their numbers may err by. */
const engines: readonly [name: string, open: (network: Network) => Promise<Field>, relative: number][] = [
  ["a GPU", (network) => VectorField.create(device, network), 2e-6],
  ["onnxruntime", (network) => OnnxField.create(runtime, network), 2e-6],
  ["float64", async (network) => new ReferenceField(network), 1e-13],
];

/** What the definitions make of J, [B, d, d]. */
function ofJacobian(jacobian: ArrayLike<number>, d: number): Record<(typeof kinematics)[number], number[]> & { size: number[] } {
  const found = { curl: [] as number[], strain: [] as number[], qCriterion: [] as number[], size: [] as number[] };
  for (let point = 0; point < jacobian.length / (d * d); point++) {
    const j = (i: number, k: number): number => jacobian[point * d * d + i * d + k]!;
    let [q, size] = [0, 0];
    for (let i = 0; i < d; i++)
      for (let k = 0; k < d; k++) {
        const [s, omega] = [(j(i, k) + j(k, i)) / 2, (j(i, k) - j(k, i)) / 2];
        found.strain.push(s);
        q += (omega * omega - s * s) / 2;
        size += j(i, k) * j(i, k);
      }
    found.qCriterion.push(q);
    found.size.push(Math.sqrt(size));
    if (d === 2) found.curl.push(j(1, 0) - j(0, 1));
    if (d === 3) found.curl.push(j(2, 1) - j(1, 2), j(0, 2) - j(2, 0), j(1, 0) - j(0, 1));
  }
  return found;
}

/** By the size of J, and its square for the Q criterion. */
function expectKinematics(
  actual: Partial<Record<Output, ArrayLike<number>>>,
  expected: ReturnType<typeof ofJacobian>,
  relative: number,
  label: string,
): void {
  for (const output of kinematics) {
    const given = actual[output];
    if (!given) continue;
    const perPoint = expected[output].length / Math.max(1, expected.size.length);
    const scale = expected[output].map((_, at) => expected.size[Math.floor(at / perPoint)]! ** (output === "qCriterion" ? 2 : 1));
    expectClose(given, expected[output], scale, { relative, absolute: relative, label: `${output}: ${label}` });
  }
}

describe.each(engines)("by %s", (label, open, relative) => {
  const expectOf = async (
    network: Network,
    points: readonly number[],
    expected: Partial<Record<Output, readonly number[]>>,
  ): Promise<void> => {
    const field = await open(network);
    const wanted = Object.keys(expected) as Output[];
    const result: Partial<Record<Output, ArrayLike<number>>> = await field.evaluate([...points], { outputs: wanted });
    for (const output of wanted)
      expectClose(
        result[output]!,
        expected[output]!,
        expected[output]!.map(() => 10),
        { relative, absolute: 0, label: `${output} by ${label}` },
      );
    field.destroy();
  };

  test("a rotation turns and does not deform; a shear does both, alike", async () => {
    const rotation = mlp({
      layers: [
        {
          weight: [
            [0, -3],
            [3, 0],
          ],
        },
      ],
    });
    await expectOf(rotation, [1, 2, 3, 4], { curl: [6, 6], strain: [0, 0, 0, 0, 0, 0, 0, 0], qCriterion: [9, 9] });
    const shear = mlp({
      layers: [
        {
          weight: [
            [0, 4],
            [0, 0],
          ],
        },
      ],
    });
    await expectOf(shear, [1, 2], { curl: [-4], strain: [0, 2, 2, 0], qCriterion: [0] });
    const strain = mlp({
      layers: [
        {
          weight: [
            [2, 0],
            [0, -2],
          ],
        },
      ],
    });
    await expectOf(strain, [1, 2], { curl: [0], strain: [2, 0, 0, -2], qCriterion: [-4] });
    const axis = mlp({
      layers: [
        {
          weight: [
            [0, -3, 2],
            [3, 0, -1],
            [-2, 1, 0],
          ],
        },
      ],
    });
    await expectOf(axis, [5, 6, 7], { curl: [2, 4, 6], qCriterion: [14] });
  });

  test("Taylor and Green's vortices: ω = 2 sin x sin y", async () => {
    // (sin x cos y, -cos x sin y) = ½ (sin(x + y) + sin(x - y), sin(x - y) - sin(x + y))
    const network = mlp({
      layers: [
        {
          weight: [
            [1, 1],
            [1, -1],
          ],
        },
        {
          weight: [
            [0.5, 0.5],
            [-0.5, 0.5],
          ],
        },
      ],
      activation: "sin",
    });
    const [x, y] = [0.7, -0.4];
    const stretch = Math.cos(x) * Math.cos(y);
    const turn = Math.sin(x) * Math.sin(y);
    await expectOf(network, [x, y], {
      curl: [2 * turn],
      strain: [stretch, 0, 0, -stretch],
      qCriterion: [turn ** 2 - stretch ** 2],
    });
  });

  test("the ABC flow is its own curl", async () => {
    const [a, b, c] = [1, 0.7, 0.43];
    const network = mlp({
      // sin z, cos y, sin x, cos z, sin y, cos x
      layers: [
        {
          weight: [
            [0, 0, 1],
            [0, 1, 0],
            [1, 0, 0],
            [0, 0, 1],
            [0, 1, 0],
            [1, 0, 0],
          ],
          bias: [0, 1, 0, 1, 0, 1].map((turned) => (turned * Math.PI) / 2),
        },
        {
          weight: [
            [a, c, 0, 0, 0, 0],
            [0, 0, b, a, 0, 0],
            [0, 0, 0, 0, c, b],
          ],
        },
      ],
      activation: "sin",
    });
    const points = Array.from(randomPoints(3, 20, 3));
    const { value } = evaluateReference(network, points, { outputs: ["value"] });
    await expectOf(network, points, { curl: [...value!] });
  });

  test("a point that is not finite gives NaN in all of them, and no other does", async () => {
    const { network } = randomMlp({ seed: 1, widths: [3, 9, 3], activation: "tanh" });
    const field = await open(network);
    const { curl, strain, qCriterion } = await field.evaluate([1, 2, 3, NaN, 1, 2, 4, 5, 6], { outputs: [...kinematics] });
    const areNaN = (numbers: ArrayLike<number>): boolean[] => Array.from(numbers, Number.isNaN);
    const expected = (width: number): boolean[] => Array.from({ length: 3 * width }, (_, at) => Math.floor(at / width) === 1);
    expect(areNaN(curl)).toEqual(expected(3));
    expect(areNaN(strain)).toEqual(expected(9));
    expect(areNaN(qCriterion)).toEqual(expected(1));
    expect(areNaN((await field.evaluate([], { outputs: ["curl"] })).curl)).toEqual([]);
    field.destroy();
  });

  test("other methods, and other dimensions, are refused with those that would do", async () => {
    const three = await open(randomMlp({ seed: 1, widths: [3, 9, 3], activation: "tanh" }).network);
    expect((await three.evaluate([1, 2, 3], { outputs: ["curl"] })).method).toBe("jacobian");
    for (const method of methods.filter((each) => each !== "jacobian"))
      for (const output of kinematics)
        await expect(three.evaluate([1, 2, 3], { method, outputs: [output] })).rejects.toThrow(
          new PlanError(`method "${method}" does not give the output "${output}"; it is given by "jacobian"`),
        );
    const four = await open(mlp({ layers: [{ weight: Array.from({ length: 4 }, (_, i) => [i, 1, 2, 3]) }] }));
    const call = four.evaluate([1, 2, 3, 4], { outputs: ["curl"] });
    await expect(call).rejects.toThrow(new PlanError('the field is on R^4, where there is no "curl"; expected a state of 2 or 3'));
    expect((await four.evaluate([1, 2, 3, 4], { outputs: ["strain", "qCriterion"] })).strain).toHaveLength(16);
    for (const field of [three, four]) field.destroy();
  });
});

const smooth = activationNames.filter(
  (name) => !["log", "sqrt", "reciprocal", "tan", "asin", "acosh", "atanh", "sinh", "cosh", "exp", "square", "power"].includes(name),
);
const numRuns = Math.ceil(Number(process.env["DELDOT_RUNS"] ?? 100) / 2);

test("random networks: all of them are what the definitions make of the reference's Jacobian", { timeout: 120_000 }, async () => {
  const description = fc.record({
    d: fc.oneof({ weight: 3, arbitrary: fc.constantFrom(2, 3) }, { weight: 1, arbitrary: fc.constantFrom(1, 4, 7, 19) }),
    hidden: fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 3 }),
    activation: fc.constantFrom(...smooth),
    contextSize: fc.integer({ min: 0, max: 2 }),
    contextPerPoint: fc.boolean(),
    count: fc.integer({ min: 1, max: 40 }),
    chunkSize: fc.option(fc.integer({ min: 1, max: 8 }), { nil: undefined }),
    memoryBudget: fc.constantFrom(undefined, 2 ** 17, 2 ** 15),
    outputs: fc.subarray(["value", "divergence", "diagonal", "jacobian", ...kinematics] as Output[], { minLength: 1 }),
    seed: fc.nat(),
  });
  const property = fc.asyncProperty(description, async ({ d, hidden, activation, count, chunkSize, memoryBudget, seed, ...given }) => {
    const { contextSize } = given;
    const { network } = randomMlp({ seed, widths: [d, ...hidden, d], activation, contextSize });
    const points = randomPoints(seed ^ 1, count, d);
    const context = contextSize > 0 ? randomPoints(seed ^ 2, given.contextPerPoint ? count : 1, contextSize) : undefined;
    if (nearKink(network, points, context ?? null).some(Boolean)) return;
    const outputs = given.outputs.filter((output) => output !== "curl" || d === 2 || d === 3);
    if (!outputs.some((output) => kinematics.some((each) => each === output))) outputs.push("qCriterion");
    const { jacobian } = evaluateReference(network, points, { context, outputs: ["jacobian"] });
    const expected = ofJacobian(jacobian!, d);
    expectKinematics(evaluateReference(network, points, { context, outputs }), expected, 1e-13, "reference");
    const field = await VectorField.create(device, network, { memoryBudget });
    const result = await field.evaluate(points, { context, outputs, chunkSize });
    expectKinematics(result, expected, 2e-5, activation);
    if (result.jacobian)
      expectClose(
        result.jacobian,
        jacobian!,
        jacobian!.map((_, at) => expected.size[Math.floor(at / d / d)]!),
        { label: "Jacobian" },
      );
    if (result.diagonal)
      expectClose(
        result.diagonal,
        Array.from({ length: count * d }, (_, at) => jacobian![Math.floor(at / d) * d * d + (at % d) * (d + 1)]!),
        Array.from({ length: count * d }, (_, at) => expected.size[Math.floor(at / d)]!),
        { label: "diagonal" },
      );
    field.destroy();
  });
  await fc.assert(property, { seed: 7, numRuns });
});

describe("in the caller's buffers", () => {
  test.each([
    [2, false],
    [3, false],
    [2, true],
    [3, true],
  ])("of R^%i, at strides, whole and in strips, the Jacobian there too: %s", async (d, hasJacobian) => {
    const { network } = randomMlp({ seed: 4, widths: [d, 17, 13, d], activation: "silu", contextSize: 1 });
    const field = await VectorField.create(device, network);
    const count = 23;
    const points = randomPoints(5, count, d);
    const context = 0.3;
    const truth = evaluateReference(network, points, { context, outputs: ["jacobian"] }).jacobian!;
    const expected = ofJacobian(truth, d);
    const widths = { curl: d === 2 ? 1 : 3, strain: d * d, qCriterion: 1 };
    for (const chunkSize of [undefined, 1, 2]) {
      const pointBuffer = makeBuffer(device, points);
      const buffers = {
        curl: makeBuffer(device, count * widths.curl),
        strain: makeBuffer(device, 1 + count * (widths.strain + 2)),
        qCriterion: makeBuffer(device, count),
      };
      const square = d * d;
      const jacobians = makeBuffer(device, 2 + count * (square + 1));
      const jacobian = hasJacobian ? { buffer: jacobians, offset: 8, stride: square + 1 } : undefined;
      await field.reserve(count, { outputs: [...kinematics, ...(hasJacobian ? (["jacobian"] as const) : [])], chunkSize });
      const encoder = device.createCommandEncoder();
      const { curl, qCriterion } = buffers;
      const strain = { buffer: buffers.strain, offset: 4, stride: widths.strain + 2 };
      field.encode(encoder, { points: pointBuffer, count, context, curl, strain, qCriterion, jacobian, chunkSize });
      device.queue.submit([encoder.finish()]);
      const rows = rowsOf(await readBuffer(device, buffers.strain), count, widths.strain, 1, widths.strain + 2);
      const found = { curl: await readBuffer(device, curl), strain: rows, qCriterion: await readBuffer(device, qCriterion) };
      expectKinematics(found, expected, 2e-6, `encoded, ${chunkSize} at once`);
      if (hasJacobian) {
        const entries = rowsOf(await readBuffer(device, jacobians), count, square, 2, square + 1);
        const sizes = Array.from(entries, (_, at) => expected.size[Math.floor(at / square)]!);
        expectClose(entries, truth, sizes, { label: `Jacobian, ${chunkSize} at once` });
      }
      jacobians.destroy();
      for (const each of [pointBuffer, ...Object.values(buffers)]) each.destroy();
    }
    field.destroy();
  });

  test.each([undefined, 2])("in one buffer with the Jacobian, %s columns at once", async (chunkSize) => {
    const { network } = randomMlp({ seed: 4, widths: [3, 17, 13, 3], activation: "silu" });
    const field = await VectorField.create(device, network);
    const count = 5;
    const points = randomPoints(5, count, 3);
    const truth = evaluateReference(network, points, { outputs: ["jacobian"] }).jacobian!;
    const all = makeBuffer(device, count * 12);
    const pointBuffer = makeBuffer(device, points);
    const encoder = device.createCommandEncoder();
    const curl = { buffer: all, offset: 36, stride: 12 };
    field.encode(encoder, { points: pointBuffer, count, jacobian: { buffer: all, stride: 12 }, curl, chunkSize });
    device.queue.submit([encoder.finish()]);
    const rows = await readBuffer(device, all);
    const expected = Array.from({ length: count }, (_, point) => {
      const j = truth.subarray(point * 9, (point + 1) * 9);
      return [...j, j[7]! - j[5]!, j[2]! - j[6]!, j[3]! - j[1]!];
    });
    const sizes = expected.map((row) => row.slice(0, 9).reduce((sum, x) => sum + Math.abs(x), 0));
    expectClose(
      rows,
      expected.flat(),
      expected.flat().map((_, at) => sizes[Math.floor(at / 12)]!),
    );
    for (const each of [all, pointBuffer]) each.destroy();
    field.destroy();
  });

  test("a curl of four dimensions, or no buffer at all, is refused", async () => {
    const four = mlp({ layers: [{ weight: Array.from({ length: 4 }, (_, i) => [i, 1, 2, 3]) }] });
    const field = await VectorField.create(device, four);
    const buffer = makeBuffer(device, 16);
    const encoder = device.createCommandEncoder();
    expect(() => field.encode(encoder, { points: buffer, count: 1, curl: buffer })).toThrow(PlanError);
    expect(() => field.encode(encoder, { points: buffer, count: 1 })).toThrow(
      new InputError(
        "no output buffer was given; expected at least one of value, divergence, diagonal, jacobian, curl, strain, qCriterion, standardError, jvp",
      ),
    );
    buffer.destroy();
    field.destroy();
  });
});

test.each([1, 2, 3, 5])("as a file of ONNX, of R^%i", async (d) => {
  const { network } = randomMlp({ seed: 4, widths: [d, 17, d], activation: "tanh", contextSize: 1 });
  const outputs = (["divergence", "jacobian", ...kinematics] as const).filter((output) => output !== "curl" || d === 2 || d === 3);
  const session = await runtime.InferenceSession.create(toOnnx(network, { outputs: [...outputs, "gradient"] }));
  const points = randomPoints(5, 7, d);
  const context = randomPoints(6, 7, 1);
  const found = await session.run({
    x: new runtime.Tensor("float32", points, [7, d]),
    context: new runtime.Tensor("float32", context, [7, 1]),
  });
  const expected = ofJacobian(evaluateReference(network, points, { context, outputs: ["jacobian"] }).jacobian!, d);
  expectKinematics(Object.fromEntries(outputs.map((output) => [output, found[output]!.data as Float32Array])), expected, 2e-6, "a file");
  expect(found["strain"]!.dims).toEqual([7, d, d]);
  expect(found["qCriterion"]!.dims).toEqual([7]);
  if (d === 2 || d === 3) expect(found["curl"]!.dims).toEqual(d === 2 ? [7] : [7, 3]);
  await session.release();
});

test("explain says that the Jacobian alone gives them, where they are", () => {
  const { network } = randomMlp({ seed: 1, widths: [2, 9, 2], activation: "tanh" });
  const { candidates, method } = explainPlan(network, { outputs: ["curl"] });
  expect(method).toBe("jacobian");
  expect(candidates.filter((candidate) => candidate.delivers).map((candidate) => candidate.method)).toEqual(["jacobian"]);
  const one = mlp({ layers: [{ weight: [[1]] }] });
  expect(() => explainPlan(one, { outputs: ["curl"] })).toThrow(PlanError);
  expect(() => evaluateReference(one, [1], { outputs: ["curl"] })).toThrow(PlanError);
});
