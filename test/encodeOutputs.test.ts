import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, InputError, parseOnnx, PlanError, VectorField, type EncodeOptions, type Network } from "../src/index.js";
import { makeBuffer, readBuffer } from "./buffers.js";
import { divergenceScale, expectClose } from "./close.js";
import { leaveNoErrors, openDevice } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";
import { rowsOf } from "./rows.js";
import { familiesOf } from "./numbers/families.js";

const count = 70;
const mlpOf = (widths: number[], contextSize = 0): Network => randomMlp({ seed: 1, widths, activation: "silu", contextSize }).network;
const architecture = async (name: string): Promise<Network> =>
  parseOnnx(await readFile(new URL(`architectures/${name}.dynamo.onnx`, import.meta.url)));
/** Networks of every kind of step: products, sums, norms, gates, skips, no hidden layer, states of whole vec4s or not. */
const networks: Record<string, () => Network | Promise<Network>> = {
  "3-12-10-3": () => mlpOf([3, 12, 10, 3]),
  "4-9-4 with a context": () => mlpOf([4, 9, 4], 2),
  "linear, 3-3": () => mlpOf([3, 3]),
  residual: () => architecture("residual"),
  layernorm: () => architecture("layernorm"),
  concatsquash: () => architecture("concatsquash"),
  "skip-field": () => architecture("skip-field"),
};

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => void ({ device, close } = await openDevice()));
afterAll(() => close());

leaveNoErrors(() => device);

const buffer = (content: Float32Array | number): GPUBuffer => makeBuffer(device, content);

function submit(on: VectorField, options: EncodeOptions): void {
  const encoder = device.createCommandEncoder();
  on.encode(encoder, options);
  device.queue.submit([encoder.finish()]);
}

const contextOf = ({ contextSize }: Network): { context?: number[] } =>
  contextSize > 0 ? { context: Array.from({ length: contextSize }, (_, i) => 0.4 - 0.3 * i) } : {};

/** f, its divergence and its derivatives in float64. */
function truthOf(network: Network, points: Float32Array, given: { context?: ArrayLike<number> } = {}) {
  const outputs = ["value", "divergence", "diagonal", "jacobian"] as const;
  const context = given.context && Float64Array.from(given.context);
  return evaluateReference(network, points, { context, outputs }) as Required<ReturnType<typeof evaluateReference>>;
}

describe.for(Object.keys(networks))("of %s", (name) => {
  test("the Jacobian, whole and in strips, at an offset and a stride, with what is made of it", async () => {
    const network = await networks[name]!();
    const d = network.stateSize;
    const field = await VectorField.create(device, network);
    const points = randomPoints(2, count, d);
    const given = contextOf(network);
    const truth = truthOf(network, points, given);
    const scale = truth.jacobian.map((_, i) =>
      Math.max(...truth.jacobian.subarray(Math.floor(i / d) * d, (Math.floor(i / d) + 1) * d).map(Math.abs)),
    );
    const sizes = divergenceScale(truth.diagonal, d);
    for (const chunkSize of [undefined, 2]) {
      const stride = d * d + 3;
      const [jacobian, divergence, diagonal] = [buffer(5 + count * stride), buffer(count), buffer(count * d)];
      const results = { jacobian: { buffer: jacobian, offset: 20, stride }, divergence, diagonal };
      submit(field, { points: buffer(points), count, chunkSize, ...given, ...results });
      expectClose(rowsOf(await readBuffer(device, jacobian), count, d * d, 5, stride), truth.jacobian, scale, { label: "jacobian" });
      expectClose(await readBuffer(device, divergence), truth.divergence, sizes, { label: "divergence" });
      expectClose(
        await readBuffer(device, diagonal),
        truth.diagonal,
        truth.diagonal.map((_, i) => sizes[Math.floor(i / d)]!),
      );
      const alone = buffer(count * d * d);
      submit(field, { points: buffer(points), count, chunkSize, ...given, jacobian: alone });
      expectClose(await readBuffer(device, alone), truth.jacobian, scale, { label: "jacobian alone" });
    }
    field.destroy();
  });

  test("J t, alone, beside f, and beside the divergence, of as many points as the device counts", async () => {
    const network = await networks[name]!();
    const d = network.stateSize;
    const field = await VectorField.create(device, network);
    const points = randomPoints(3, count, d);
    const tangents = randomPoints(4, count, d);
    const given = contextOf(network);
    const truth = truthOf(network, points, given);
    const sums = (each: (entry: number, t: number) => number): Float64Array =>
      Float64Array.from({ length: count * d }, (_, i) => {
        const point = Math.floor(i / d);
        let sum = 0;
        for (let j = 0; j < d; j++) sum += each(truth.jacobian[i * d + j]!, tangents[point * d + j]!);
        return sum;
      });
    const expected = sums((entry, t) => entry * t);
    const scale = sums((entry, t) => Math.abs(entry * t));
    const stride = d + 2;
    const spread = new Float32Array(3 + count * stride);
    tangents.forEach((t, i) => (spread[3 + Math.floor(i / d) * stride + (i % d)] = t));
    const living = device.createBuffer({ size: 4, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
    device.queue.writeBuffer(living, 0, Uint32Array.of(count));
    for (const others of [[], ["value"], ["value", "divergence"]] as const)
      for (const number of [{ count }, { count: living, maxCount: count }]) {
        const jvp = buffer(2 + count * stride);
        const outputs = { value: buffer(count * d), divergence: buffer(count) };
        submit(field, {
          points: buffer(points),
          ...number,
          ...given,
          tangents: { buffer: buffer(spread), offset: 12, stride },
          jvp: { buffer: jvp, offset: 8, stride },
          ...Object.fromEntries(others.map((output) => [output, outputs[output]])),
        });
        expectClose(rowsOf(await readBuffer(device, jvp), count, d, 2, stride), expected, scale, { label: "jvp" });
        if (others.length > 0) expectClose(await readBuffer(device, outputs.value), truth.value, truth.value.map(Math.abs));
        if (others.length > 1)
          expectClose(await readBuffer(device, outputs.divergence), truth.divergence, divergenceScale(truth.diagonal, d));
      }
    field.destroy();
  });

  test("the standard error of an estimate, with the divergence and alone", async () => {
    const network = await networks[name]!();
    const field = await VectorField.create(device, network);
    const points = randomPoints(5, count, network.stateSize);
    const all = 2 ** Math.ceil(Math.log2(network.stateSize));
    for (const [probesPer, orthogonal, probes] of [
      ["point", false, 6],
      ["batch", false, 6],
      ["point", true, Math.max(2, all - 1)],
      ["point", true, all],
      ["batch", true, all + 1],
      ["point", true, 2 * all + 1],
    ] as const) {
      const options = { method: "hutchinson", probes, seed: 9, probesPer, orthogonal, ...contextOf(network) } as const;
      const truth = evaluateReference(network, points, options) as Required<ReturnType<typeof evaluateReference>>;
      const [divergence, standardError, alone] = [buffer(count), buffer(1 + 2 * count), buffer(count)];
      submit(field, {
        ...options,
        points: buffer(points),
        count,
        divergence,
        standardError: { buffer: standardError, offset: 4, stride: 2 },
      });
      submit(field, { ...options, points: buffer(points), count, standardError: alone });
      const scale = truth.standardError.map((error, i) => error + Math.abs(truth.divergence[i]!));
      const errors = rowsOf(await readBuffer(device, standardError), count, 1, 1, 2);
      expectClose(errors, truth.standardError, scale, { label: "standard error" });
      expectClose(await readBuffer(device, divergence), truth.divergence, scale, { label: "estimate" });
      expect(await readBuffer(device, alone)).toEqual(errors);
    }
    field.destroy();
  });
});

test("every family of kernels gives them", async () => {
  const network = mlpOf([3, 12, 10, 3]);
  const points = randomPoints(6, count, 3);
  const tangents = randomPoints(7, count, 3);
  const truth = truthOf(network, points);
  const ones = (length: number): Float32Array => new Float32Array(length).fill(1);
  const products = Float64Array.from({ length: count * 3 }, (_, i) =>
    [0, 1, 2].reduce((sum, j) => sum + truth.jacobian[i * 3 + j]! * tangents[Math.floor(i / 3) * 3 + j]!, 0),
  );
  for (const { kernels, half } of familiesOf(device)) {
    const field = await VectorField.create(device, network, { kernels });
    await field.reserve(count, { outputs: ["jacobian"] });
    const [jacobian, jvp] = [buffer(count * 9), buffer(count * 3)];
    submit(field, { points: buffer(points), count, jacobian, tangents: buffer(tangents), jvp });
    const bound = { relative: half ? 3e-3 : 1e-5, label: kernels };
    expectClose(await readBuffer(device, jacobian), truth.jacobian, ones(count * 9), bound);
    expectClose(await readBuffer(device, jvp), products, ones(count * 3), bound);
    field.destroy();
  }
});

test("the error of a single probe is unknown", async () => {
  const field = await VectorField.create(device, mlpOf([3, 8, 3]));
  const standardError = buffer(5);
  submit(field, { points: buffer(randomPoints(8, 5, 3)), count: 5, method: "hutchinson", probes: 1, standardError });
  expect(await readBuffer(device, standardError)).toEqual(new Float32Array(5).fill(NaN));
  field.destroy();
});

describe("a context in a buffer is what it holds when the commands run", () => {
  const count = 30;
  const network = mlpOf([3, 12, 10, 3], 2);
  const points = randomPoints(9, count, 3);

  async function expectAt(divergence: Float32Array, context: Float32Array): Promise<void> {
    const truth = truthOf(network, points, { context });
    const scale = divergenceScale(truth.diagonal, 3);
    expectClose(divergence, truth.divergence, scale);
  }

  test.for([
    { name: "one for all points", rows: 1, stride: 0 },
    { name: "one for each", rows: count, stride: 2 },
  ])("written by the queue between frames, and by a compute pass of the same submission: $name", async ({ rows, stride }) => {
    const field = await VectorField.create(device, network);
    const [first, second] = [randomPoints(10, rows, 2), randomPoints(11, rows, 2)];
    const context = buffer(first);
    const options = { points: buffer(points), count, context: { buffer: context, stride } };
    const outputs = [0, 1, 2].map(() => buffer(count));
    submit(field, { ...options, divergence: outputs[0] });
    device.queue.writeBuffer(context, 0, second as Float32Array<ArrayBuffer>);
    submit(field, { ...options, divergence: outputs[1] });
    const module = device.createShaderModule({
      code: `@group(0) @binding(0) var<storage, read_write> context: array<f32>;
        @compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3u) { context[id.x] = -2.0 * context[id.x]; }`,
    });
    const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
    const entries = [{ binding: 0, resource: { buffer: context } }];
    const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(2 * rows);
    field.encode(pass, { ...options, divergence: outputs[2] });
    pass.end();
    device.queue.submit([encoder.finish()]);
    await expectAt(await readBuffer(device, outputs[0]!), first);
    await expectAt(await readBuffer(device, outputs[1]!), second);
    await expectAt(
      await readBuffer(device, outputs[2]!),
      second.map((x) => -2 * x),
    );
    field.destroy();
  });
});

describe("bad input throws at once", () => {
  const cases: [string, () => Partial<EncodeOptions>, typeof InputError | typeof PlanError, RegExp][] = [
    ["a Jacobian too small", () => ({ jacobian: buffer(89) }), InputError, /jacobian has 356 bytes; 10 rows of 9 floats need 360/],
    [
      "a Jacobian of another method",
      () => ({ jacobian: buffer(90), method: "tangent" }),
      PlanError,
      /"tangent" does not give the output "jacobian"/,
    ],
    ["tangents without jvp", () => ({ tangents: buffer(30) }), InputError, /tangents is given without jvp/],
    ["jvp without tangents", () => ({ jvp: buffer(30) }), InputError, /tangents is missing; expected a buffer/],
    ["tangents too few", () => ({ jvp: buffer(30), tangents: buffer(29) }), InputError, /tangents has 116 bytes/],
    [
      "a standard error of what is exact",
      () => ({ standardError: buffer(10) }),
      PlanError,
      /"auto" does not give the output "standardError"/,
    ],
    ["no output at all", () => ({ divergence: undefined }), InputError, /expected at least one of value, .*standardError, jvp/],
  ];
  test.for(cases)("%s", async ([, change, kind, message]) => {
    const field = await VectorField.create(device, mlpOf([3, 8, 3]));
    const options = { points: buffer(30), count: 10, divergence: buffer(10), ...change() };
    expect(() => field.encode(device.createCommandEncoder(), options)).toThrow(kind);
    expect(() => field.encode(device.createCommandEncoder(), options)).toThrow(message);
    field.destroy();
  });
});
