import { readFileSync } from "node:fs";
import { expect } from "vitest";
import type { VectorField } from "../src/field.js";
import type { EncodeVjpOptions } from "../src/fieldOptions.js";
import type { Cotangents, Wrt } from "../src/inputs.js";
import type { Network } from "../src/model/network.js";
import { parameterLayout, type Parameter } from "../src/model/parameters.js";
import { parseSafetensors } from "../src/model/readers/safetensors.js";
import { makeBuffer, readBuffer } from "./buffers.js";
import { Draw } from "./numbers/draw.js";
import { drawNetwork, type Palette } from "./numbers/networks.js";
import { readTensors } from "./tensors.js";
import { loadModel, loadVector, modelNames } from "./fields.js";

/** Gradients of a network by PyTorch's double backward in float64, and what they are taken at. */
export interface GradientVector {
  readonly network: Network;
  readonly points: Float64Array;
  readonly context: Float64Array | undefined;
  readonly cotangents: Cotangents;
  readonly value: Float64Array;
  readonly divergence: Float64Array;
  readonly ofPoints: Float64Array;
  readonly ofContext: Float64Array | undefined;
  readonly ofParameters: Readonly<Record<string, Float64Array>>;
}

/** Of the network of that name in vectors/ or demo/models. */
export function loadGradient(name: string): GradientVector {
  const { tensors, activation } = readTensors(readFileSync(new URL(`vectors/gradients/${name}.safetensors`, import.meta.url)));
  const { bytes } = modelNames.includes(name) ? loadModel(name) : loadVector(name);
  // One of them was made with other activations than the network's own, and says so by a list.
  const network = parseSafetensors(bytes, activation.includes(",") ? { activation } : {});
  const of = (tensor: string): Float64Array => tensors.get(tensor) ?? expect.unreachable(`${name} has no ${tensor}`);
  const prefix = "gradient.";
  const parameters = [...tensors.keys()].filter(
    (tensor) => tensor.startsWith(prefix) && tensor !== "gradient.x" && tensor !== "gradient.context",
  );
  return {
    network,
    points: of("x"),
    context: tensors.get("context"),
    cotangents: { value: of("value_cotangent"), divergence: of("divergence_cotangent") },
    value: of("value"),
    divergence: of("divergence"),
    ofPoints: of("gradient.x"),
    ofContext: tensors.get("gradient.context"),
    ofParameters: Object.fromEntries(parameters.map((tensor) => [tensor.slice(prefix.length), of(tensor)])),
  };
}

/** Expects each number within `relative` of the tensor's largest entry, and 1e-7. */
export function expectGradient(actual: ArrayLike<number> | undefined, expected: ArrayLike<number>, relative: number, label: string): void {
  if (actual?.length !== expected.length) expect.fail(`${label} has ${actual?.length} numbers; expected ${expected.length}`);
  const largest = Array.from(expected).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    if (error <= relative * largest + 1e-7 || Object.is(actual[i], expected[i])) continue;
    expect.fail(
      `${label}[${i}] is ${actual[i]}; expected ${expected[i]}; the error ${error} is ${error / largest} of the largest entry ${largest}`,
    );
  }
}

/** Expects gradients, value and divergence to be PyTorch's. */
export function expectVector(
  actual: AnyVjp & { readonly value?: ArrayLike<number>; readonly divergence?: ArrayLike<number> },
  vector: GradientVector,
  relative: number,
): void {
  expectGradient(actual.points, vector.ofPoints, relative, "points");
  if (vector.ofContext) expectGradient(actual.context, vector.ofContext, relative, "context");
  expect(Object.keys(actual.parameters!).toSorted()).toEqual(Object.keys(vector.ofParameters).toSorted());
  for (const [tensor, expected] of Object.entries(vector.ofParameters))
    expectGradient(actual.parameters![tensor]!.data, expected, relative, tensor);
  expectGradient(actual.value, vector.value, relative, "value");
  expectGradient(actual.divergence, vector.divergence, relative, "divergence");
}

/** What a vjp gives, whoever computed it. */
interface AnyVjp {
  readonly points?: ArrayLike<number>;
  readonly context?: ArrayLike<number>;
  readonly parameters?: Readonly<Record<string, Parameter<Float32Array | Float64Array>>>;
}

/** Expects every tensor of one to be close to that of the other. */
export function expectVjp(actual: AnyVjp, expected: AnyVjp, relative: number, label: string): void {
  if (expected.points) expectGradient(actual.points, expected.points, relative, `${label}: points`);
  if (expected.context) expectGradient(actual.context, expected.context, relative, `${label}: context`);
  if (!expected.parameters) return;
  expect(Object.keys(actual.parameters ?? {})).toEqual(Object.keys(expected.parameters));
  for (const [name, { data, shape }] of Object.entries(expected.parameters)) {
    expect(actual.parameters![name]!.shape).toEqual(shape);
    expectGradient(actual.parameters![name]!.data, data, relative, `${label}: ${name}`);
  }
}

/** All that a network has gradients for. */
export function allOf({ contextSize }: Network): readonly Wrt[] {
  return ["points", ...(contextSize > 0 ? (["context"] as const) : []), "parameters"];
}

/** What encodeVjp leaves in buffers, by names as vjp gives it. */
export async function encodedVjp(
  device: GPUDevice,
  field: VectorField,
  points: ArrayLike<number>,
  cotangents: { readonly value?: ArrayLike<number> | undefined; readonly divergence?: ArrayLike<number> | number | undefined },
  options: {
    readonly context?: ArrayLike<number> | undefined;
    readonly wrt: readonly Wrt[];
    readonly outputs?: readonly ("value" | "divergence")[];
  } & Pick<EncodeVjpOptions, "method" | "chunkSize" | "probes" | "seed" | "probesPer">,
): Promise<Required<AnyVjp> & { readonly value: Float32Array; readonly divergence: Float32Array }> {
  const { wrt, outputs = [], context, ...planOptions } = options;
  const { stateSize: d, contextSize: c } = field.network;
  const count = points.length / d;
  const buffer = (numbers: ArrayLike<number>): GPUBuffer => makeBuffer(device, Float32Array.from(numbers));
  const layout = parameterLayout(field.network);
  const ofPoints = context !== undefined && context.length !== c;
  const sizes = { points: count * d, context: ofPoints ? count * c : c, parameters: layout.size };
  // What is there before is written over.
  const gradients = Object.fromEntries(wrt.map((each) => [each, makeBuffer(device, sizes[each])])) as Partial<Record<Wrt, GPUBuffer>>;
  const beside = Object.fromEntries(outputs.map((each) => [each, makeBuffer(device, each === "value" ? count * d : count)]));
  const { value, divergence } = cotangents;
  const encoder = device.createCommandEncoder();
  field.encodeVjp(encoder, {
    ...planOptions,
    ...beside,
    points: buffer(points),
    count,
    ...(context && { context: ofPoints ? buffer(context) : context }),
    cotangents: {
      ...(value && { value: buffer(value) }),
      ...(divergence !== undefined && { divergence: typeof divergence === "number" ? divergence : buffer(divergence) }),
    },
    gradients,
  });
  device.queue.submit([encoder.finish()]);
  const all = Object.entries({ ...gradients, ...beside }) as [Wrt | "value" | "divergence", GPUBuffer][];
  const read = new Map<string, Float32Array>();
  for (const [name, each] of all) read.set(name, await readBuffer(device, each));
  const flat = read.get("parameters");
  const parameters = layout.tensors.map(({ name, shape, offset }) => {
    const size = shape.reduce((product, n) => product * n, 1);
    return [name, { shape, data: flat?.slice(offset, offset + size) }];
  });
  return { ...Object.fromEntries(read), ...(flat && { parameters: Object.fromEntries(parameters) }) } as never;
}

// Smooth ones, so that central differences are a check everywhere.
const smooth: Palette = {
  anywhere: ["tanh", "silu", "gelu", "sin", "softplus", "sigmoid", "atan", "asinh", "mish", "gelu_tanh"],
  ofPositive: ["log", "sqrt", "reciprocal"],
  ofSmall: ["asin", "atanh"],
  steps: ["sin"],
};

/** A network, and what its gradient is asked for. */
export interface DrawnGradient {
  readonly network: Network;
  readonly count: number;
  readonly points: Float32Array;
  readonly context: Float32Array | undefined;
  readonly cotangents: { readonly value?: Float32Array; readonly divergence?: Float32Array | number };
}

export function drawGradient(seed: number): DrawnGradient {
  const draw = new Draw(seed);
  const network = drawNetwork(draw, "small", smooth);
  const { stateSize: d, contextSize: c } = network;
  const count = draw.integer(1, 6);
  const which = draw.integer(0, 3);
  return {
    network,
    count,
    points: draw.numbers(count * d, 1),
    context: c === 0 ? undefined : draw.numbers(draw.chance(0.5) ? c : c * count, 1),
    cotangents: {
      ...(which !== 1 && { value: draw.numbers(count * d, 1) }),
      ...(which !== 2 && { divergence: draw.chance(0.3) ? 0.7 : draw.numbers(count, 1) }),
    },
  };
}
