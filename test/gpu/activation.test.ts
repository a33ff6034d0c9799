import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import activationsWgsl from "../../shaders/lib/activations.wgsl?raw";
import curvaturesWgsl from "../../shaders/lib/curvatures.wgsl?raw";
import specialWgsl from "../../shaders/lib/special.wgsl?raw";
import {
  activationFunctions,
  activationKinks,
  activationNames,
  activationWgsl,
  curvatureWgsl,
  parseActivation,
  type Activation,
} from "../../src/model/activation.js";
import { expectClose } from "../close.js";
import { openDevice } from "../device.js";

/**
 * The largest error measured, over all activations but those that scaleOf() names, is 1.4e-7 (1 + |exact|), and 5.1e-7 of the
 * derivative of tan, on Mesa's lavapipe and on SwiftShader alike; of curvatures 3.8e-7 (1 + |exact|), and 6.6e-7 of that of tan.
 * WGSL allows a driver a worse exp than theirs, and the tolerance leaves room for it.
 */
const tolerance = 1e-6;

const vectors: Record<string, { z: number[]; value: number[]; derivative: number[] }> = Object.assign(
  {},
  ...["activations", "elementary"].map(
    (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), "utf8")).activations,
  ),
);

/** What PyTorch's double backward gives in float64. */
const curvatureVectors: Record<string, { z: number[]; curvature: number[] }> = JSON.parse(
  readFileSync(new URL("../vectors/curvatures.json", import.meta.url), "utf8"),
).activations;

/** Parameters beyond those of the vectors. */
const variants = ["leaky_relu(3)", "elu(-2)", "celu(-1.5)", "celu(0.01)", "softplus(0.5, 3)", "softplus(-2)", "softplus(100)"];
/** Parameters at which something is near float32's end. */
const extremes = [
  "leaky_relu(1e19)",
  "leaky_relu(1e30)",
  "celu(1e-30)",
  "celu(-1e10)",
  "softplus(1e30, 1e30)",
  "power(0.001)",
  "power(64)",
  "power(-8)",
];
const texts = [...Object.keys(vectors), ...variants, ...extremes, "sin(-0.75)", "sin(1000.5)"];

/** ±10^k for k from `from` to `to`. */
function powers(from: number, to: number, base = 10): number[] {
  return Array.from({ length: 2001 }, (_, i) => base ** (from + ((to - from) * i) / 2000)).flatMap((z) => [z, -z]);
}

const grid = Array.from({ length: 60_001 }, (_, i) => (i - 30_000) / 1000);
const sweep = [...grid, ...powers(-8, 4)];
const widerSweep = [...grid.map((z) => 2 * z), ...powers(-8, 4)];
/** All of float32 but what is nearer to 0 than 2^-126. */
const ends = [3.4028234e38, 0, 88.7, 88.8, 89.4, 89.42, 1, 1 - 2 ** -24, 1 + 2 ** -23, 8388607.5];
const everywhere = float32([...powers(-37.9, 38.5), ...ends.flatMap((z) => [z, -z])]);
const LARGEST = 3.4028234663852886e38;

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => {
  ({ device, close } = await openDevice());
});
afterAll(() => close());

describe.each(texts)("%s in WGSL", (text) => {
  const activation = parseActivation(text);
  const { value, slope } = activationFunctions(activation);

  it("agrees with its vectors", async () => {
    const vector = vectors[text];
    if (vector) await expectAgreement(vector.z, vector.value, vector.derivative);
  });

  it("agrees with float64 on a fine grid, up to 1e4, and at its kinks", async () => {
    const kinks = [-3, -2.5, -0.5, 0, 0.5, 1.5, 3].flatMap((near) => activationKinks(activation, near));
    const z = float32([...sweep, ...kinks]).filter(isInRange);
    await expectAgreement(z, z.map(value), z.map(slope));
  });

  it("keeps its relative accuracy near 0", async () => {
    const z = float32(powers(-20, -2)).filter(isInRange);
    if (z.length === 0) return; // acosh is not defined there
    const { values } = await evaluate(activation, z);
    const exact = z.map(value);
    const scale = activation.name === "power" ? scaleOf(activation) : Math.abs;
    expectClose(
      values,
      exact,
      exact.map((number, i) => scale(number, z[i]!)),
      { relative: tolerance, absolute: 1e-37, label: "values" },
    );
  });

  it("is right, or infinite or NaN past float32 and outside its domain, at any magnitude", async () => {
    const { values, derivatives } = await evaluate(activation, everywhere);
    const scale = scaleOf(activation);
    everywhere.forEach((z, i) => {
      expectRight(values[i]!, reaches(activation, z) ? value(z) : NaN, scale, z, "value");
      expectRight(derivatives[i]!, slopeReaches(activation, z) ? slope(z) : NaN, scale, z, "derivative");
    });
  });

  it("is NaN where z is not finite", async () => {
    const { values, derivatives } = await evaluate(activation, [NaN, Infinity, -Infinity]);
    for (const number of [...values, ...derivatives]) expect(number).toBeNaN();
  });

  /** Where the exact results exist and fit into float32; celu with a negative parameter grows like e^|z|. */
  function isInRange(z: number): boolean {
    return Math.abs(value(z)) < 3e38 && Math.abs(slope(z)) < 3e38;
  }

  async function expectAgreement(
    z: readonly number[],
    value: readonly number[],
    derivative: readonly number[],
    relative = tolerance,
  ): Promise<void> {
    const { values, derivatives } = await evaluate(activation, z);
    const scale = scaleOf(activation);
    const sizes = (exact: readonly number[]): number[] => exact.map((number, i) => scale(number, z[i]!));
    expectClose(values, value, sizes(value), { relative, absolute: 0, label: "values" });
    expectClose(derivatives, derivative, sizes(derivative), { relative, absolute: 0, label: "derivatives" });
  }
});

describe.each([...texts, "power(1)", "power(1.001)"])("the curvature of %s in WGSL", (text) => {
  const activation = parseActivation(text);
  const { curvature } = activationFunctions(activation);
  const scale = curvatureScaleOf(activation);

  it("agrees with its vectors", async () => {
    const vector = curvatureVectors[text];
    if (!vector) return;
    const z = vector.z.filter((_, i) => Math.abs(vector.curvature[i]!) < 3e38);
    await expectAgreement(
      z,
      vector.curvature.filter((number) => Math.abs(number) < 3e38),
    );
  });

  it("agrees with float64 on a fine grid, up to 1e4, and at its kinks", async () => {
    const kinks = [-3, 0, 3].flatMap((near) => activationKinks(activation, near));
    const z = float32([...widerSweep, ...kinks]).filter((x) => Math.abs(curvature(x)) < 3e38);
    await expectAgreement(
      z,
      z.map((x) => (curvatureReaches(activation, x) ? curvature(x) : NaN)),
    );
  });

  it("is right, or infinite or NaN past float32 and outside its domain, at any magnitude", async () => {
    const { curvatures } = await evaluateCurvature(activation, everywhere);
    everywhere.forEach((z, i) => {
      expectRight(curvatures[i]!, curvatureReaches(activation, z) ? curvature(z) : NaN, scale, z, "curvature");
    });
  });

  it("comes with the value and the derivative of activation()", async () => {
    const z = everywhere.filter((_, i) => i % 16 === 0);
    const { values, derivatives } = await evaluate(activation, z);
    const together = await evaluateCurvature(activation, z);
    expectClose(together.values, values, values.map(Math.abs), { relative: 1e-6, absolute: 1e-37, label: "values" });
    expectClose(together.derivatives, derivatives, derivatives.map(Math.abs), { relative: 1e-6, absolute: 1e-37, label: "derivatives" });
  });

  it("is NaN where z is not finite", async () => {
    const results = await evaluateCurvature(activation, [NaN, Infinity, -Infinity]);
    for (const number of Object.values(results).flat()) expect(number).toBeNaN();
  });

  async function expectAgreement(z: readonly number[], exact: readonly number[]): Promise<void> {
    const { curvatures } = await evaluateCurvature(activation, z);
    const sizes = exact.map((number, i) => scale(number, z[i]!));
    expectClose(curvatures, exact, sizes, { relative: tolerance, absolute: 0, label: "curvatures" });
  }
});

/** Whether σ(z) is computed there: sines and tangents need a reduction that ends at 2^68. */
function reaches({ name }: Activation, z: number): boolean {
  return !["sin", "cos", "tan"].includes(name) || Math.abs(z) <= 2 ** 68;
}

/** Whether σ'(z) is: where it may be taken for 0 far from 0, and what it is multiplied with may be large, it is NaN. */
function slopeReaches(activation: Activation, z: number): boolean {
  const { name, parameters } = activation;
  const factor = name === "power" ? Math.max(1, Math.abs(parameters[0]!)) : 1;
  const vanishes = (["log", "acosh", "power"].includes(name) && Math.abs(z) > 1) || ["asinh", "reciprocal"].includes(name);
  return reaches(activation, z) && !(vanishes && Math.abs(activationFunctions(activation).slope(z)) < factor * 2 ** -126);
}

/** Whether σ''(z) is: as with σ', but those that fall like a power of z vanish sooner. */
function curvatureReaches(activation: Activation, z: number): boolean {
  const { name, parameters } = activation;
  if (!["log", "sqrt", "acosh", "asinh", "reciprocal", "power"].includes(name)) return reaches(activation, z);
  const exponent = parameters[0] ?? NaN;
  if (name === "power" && exponent === 1) return true;
  const factor = { reciprocal: 2, power: Math.max(1, Math.abs(exponent * (exponent - 1))) }[name] ?? 1;
  return !(Math.abs(z) > 1 && Math.abs(activationFunctions(activation).curvature(z)) < factor * 2 ** -126);
}

/** What the tolerance of σ'' is multiplied with. */
function curvatureScaleOf(activation: Activation): (exact: number, z: number) => number {
  const { name, parameters } = activation;
  const [first = 1] = parameters.map(Math.abs);
  if (name === "sin" || name === "cos") return () => 0.2 * first ** 2; // 2e-7 omega²
  // What z * beta and z / alpha round to.
  if (name === "softplus") return (exact) => Math.max(1, first) + Math.abs(exact);
  if (name === "celu" && parameters[0]! > 0) return (exact) => Math.max(1, 1 / first) + Math.abs(exact);
  // As of its derivative, but for the factors.
  if (name === "power") return (exact, z) => scaleOf(activation)(exact, z) + (first + first ** 2) * (2 ** -126 / tolerance);
  return scaleOf(activation);
}

/** Expects what is exact in float32, the infinity where that is past its end, and either where only rounding may be. */
function expectRight(actual: number, exact: number, scale: (exact: number, z: number) => number, z: number, what: string): void {
  const allowance = tolerance * scale(exact, z);
  const isClose = Math.abs(actual - exact) <= allowance && allowance < Infinity;
  const overflows = Math.abs(exact) + allowance > LARGEST && actual === Math.sign(exact) * Infinity;
  if (!(Number.isNaN(exact) ? Number.isNaN(actual) : isClose || overflows))
    expect.fail(`the ${what} at ${z} is ${actual}; expected ${exact}`);
}

/** What the tolerance is multiplied with. */
function scaleOf({ name, parameters }: Activation): (exact: number, z: number) => number {
  const largest = Math.max(1, ...parameters.map(Math.abs));
  if (name === "sin" || name === "cos") return () => largest / 2; // 5e-7 in the sine, and |omega| times that in the cosine
  // e^z itself: the (3 + 2|z|) 2^-23 that WGSL allows, one rounding, and numbers below 2^-126, which may become 0.
  if (["exp", "sinh", "cosh"].includes(name))
    return (exact, z) => (Math.abs(exact) * (4 + 2 * Math.abs(z)) * 2 ** -23 + 2 ** -126) / tolerance;
  // A negative parameter makes an exponential of celu, too.
  if (name === "celu" && parameters[0]! < 0) return (exact, z) => 1 + Math.abs(exact) * (1 + Math.abs(z));
  // The exponential of a part of the logarithm, as of exp, and a rounding for each factor; below 2^-126 anything may be 0.
  if (name === "power")
    return (exact, z) =>
      (Math.abs(exact) * (8 + 2 * largest + 2 * Math.abs(Math.log(Math.abs(z) || 1))) * 2 ** -23 + largest * 2 ** -126) / tolerance;
  return (exact) => 1 + Math.abs(exact);
}

// The product of z and these factors is exact in float64, or Math.sin would be the worse of the two.
describe.each(["sin", "sin(30)", "sin(-0.75)", "sin(0.0009765625)", "cos"])("%s far from 0", (text) => {
  it("errs by less than 5e-7 up to 2^68", async () => {
    const activation = parseActivation(text);
    const { value, slope } = activationFunctions(activation);
    const z = float32(powers(10, 68, 2));
    const { values, derivatives } = await evaluate(activation, z);
    const ones = z.map(() => 1);
    const largest = Math.max(1, ...activation.parameters.map(Math.abs));
    expectClose(values, z.map(value), ones, { relative: 5e-7, absolute: 0, label: "values" });
    expectClose(derivatives, z.map(slope), ones, { relative: 5e-7 * largest, absolute: 0, label: "derivatives" });
  });
});

describe("tan", () => {
  const activation = parseActivation("tan");
  const { value, slope } = activationFunctions(activation);

  it("keeps its relative accuracy far from 0, up to 2^68", async () => {
    await expectRelative(float32(powers(-3, 68, 2)));
  });

  it("keeps it next to its poles and its zeros", async () => {
    const multiples = Array.from({ length: 10_000 }, (_, i) => (1 + i) * (Math.PI / 2));
    // Of all float32 numbers up to 2^68 the nearest to odd and to even multiples of pi/2, by continued fractions: 2e-9 to 1e-8.
    const nearest = [10741887 * 2 ** 11, 16573937 * 2 ** -16, 5808979 * 2 ** 18, 555981 * 2 ** 38, 10741887 * 2 ** 12, 10741887 * 2 ** 13];
    await expectRelative(float32([...multiples, ...nearest].flatMap((z) => [z, -z, z * (1 + 2 ** -23), z * (1 - 2 ** -23)])));
  });

  async function expectRelative(z: readonly number[]): Promise<void> {
    const { values, derivatives } = await evaluate(activation, z);
    expectClose(
      values,
      z.map(value),
      z.map((x) => Math.abs(value(x))),
      { relative: tolerance, absolute: 0, label: "values" },
    );
    expectClose(derivatives, z.map(slope), z.map(slope), { relative: tolerance, absolute: 0, label: "derivatives" });
  }
});

it("the vectors hold every activation", () => {
  expect(new Set(texts.map((text) => parseActivation(text).name))).toEqual(new Set(activationNames));
});

function float32(numbers: readonly number[]): number[] {
  return numbers.map(Math.fround);
}

/** One point a thread: `call` of points[i]. */
function kernelOf(type: string, call: string): string {
  return `
@group(0) @binding(0) var<storage, read> points: array<f32>;
@group(0) @binding(1) var<storage, read_write> results: array<${type}>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&points)) {
    results[id.x] = ${call};
  }
}`;
}

const kernel = kernelOf("vec2f", "activation(points[id.x])");
const curvatureKernel = kernelOf("vec4f", "vec4f(activation_with_curvature(points[id.x]), 0.0)");

async function evaluate(activation: Activation, z: readonly number[]): Promise<{ values: number[]; derivatives: number[] }> {
  const code = [specialWgsl, activationsWgsl, activationWgsl(activation), kernel].join("\n");
  const results = await run(`test of ${activation}`, code, z, 2);
  return { values: z.map((_, i) => results[2 * i]!), derivatives: z.map((_, i) => results[2 * i + 1]!) };
}

async function evaluateCurvature(
  activation: Activation,
  z: readonly number[],
): Promise<{ values: number[]; derivatives: number[]; curvatures: number[] }> {
  const texts = [specialWgsl, activationsWgsl, curvaturesWgsl, activationWgsl(activation), curvatureWgsl(activation), curvatureKernel];
  const results = await run(`test of the curvature of ${activation}`, texts.join("\n"), z, 4);
  const column = (at: number): number[] => z.map((_, i) => results[4 * i + at]!);
  return { values: column(0), derivatives: column(1), curvatures: column(2) };
}

/** `width` numbers for each point. */
async function run(label: string, code: string, z: readonly number[], width: number): Promise<Float32Array> {
  const points = Float32Array.from(z);
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label, code });
  const pipeline = device.createComputePipeline({ label, layout: "auto", compute: { module } });
  const input = device.createBuffer({ label, size: points.byteLength, usage: STORAGE | COPY_DST });
  const output = device.createBuffer({ label, size: width * points.byteLength, usage: STORAGE | COPY_SRC });
  const staging = device.createBuffer({ label, size: output.size, usage: MAP_READ | COPY_DST });
  device.queue.writeBuffer(input, 0, points);
  const encoder = device.createCommandEncoder({ label });
  const pass = encoder.beginComputePass({ label });
  pass.setPipeline(pipeline);
  pass.setBindGroup(
    0,
    device.createBindGroup({
      label,
      layout: pipeline.getBindGroupLayout(0),
      entries: [
        { binding: 0, resource: { buffer: input } },
        { binding: 1, resource: { buffer: output } },
      ],
    }),
  );
  pass.dispatchWorkgroups(Math.ceil(points.length / 64));
  pass.end();
  encoder.copyBufferToBuffer(output, 0, staging, 0, output.size);
  device.queue.submit([encoder.finish()]);
  const error = await device.popErrorScope();
  if (error) throw new Error(`${label}: ${error.message}`);
  await staging.mapAsync(GPUMapMode.READ);
  const results = new Float32Array(staging.getMappedRange().slice(0));
  for (const buffer of [input, output, staging]) buffer.destroy();
  return results;
}
