/** The gradient of a potential as a field: its value, Hessian and Laplacian by other routes. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  activationNames,
  evaluateReference,
  explainPlan,
  gradientField,
  methods,
  mlp,
  ModelError,
  outputs,
  parametersOf,
  parseOnnx,
  parseSafetensors,
  toSafetensors,
  VectorField,
  vjpReference,
  withParameters,
  type Method,
  type Network,
  type Operation,
} from "../../src/index.js";
import { activationFunctions, parseActivation } from "../../src/model/activation.js";
import { OnnxField, toOnnx } from "../../src/onnx/index.js";
import { Trainer } from "../../src/train/index.js";
import { expectClose } from "../close.js";
import { openDevice } from "../device.js";
import { random, randomPoints } from "../fields.js";
import { Draw } from "../numbers/draw.js";
import { drawNetwork, wholePalette } from "../numbers/networks.js";
import { onnxFile } from "../onnx.js";
import { runtime } from "../onnxruntime.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

/** d + c inputs, hidden layers, one output. */
function randomPotential(seed: number, widths: readonly number[], activation: string | readonly string[], contextSize = 0): Network {
  const uniform = random(seed);
  const layers = [...widths.slice(1), 1].map((rows, index) => {
    const columns = widths[index]!;
    const draw = (length: number): Float32Array => Float32Array.from({ length }, () => (2 * uniform() - 1) * Math.sqrt(3 / columns));
    return { weight: { data: draw(rows * columns), shape: [rows, columns] }, bias: draw(rows) };
  });
  return mlp({ layers, activation, potential: true, contextSize });
}

/** φ in every component: its Jacobian, by forward mode, has ∇φ in every row. */
function lifted(potential: Network): Network {
  const { operations, stateSize: d } = potential;
  const weight = { rows: d, columns: 1, data: new Float64Array(d).fill(1) };
  const last: Operation = { kind: "linear", terms: [{ operand: operations.length - 1, weight }], bias: null };
  return { stateSize: d, contextSize: potential.contextSize, operations: [...operations, last] };
}

function forwardGradient(potential: Network, points: ArrayLike<number>, context: Float32Array | undefined): Float64Array {
  const d = potential.stateSize;
  const { jacobian } = evaluateReference(lifted(potential), Float64Array.from(points), { context, outputs: ["jacobian"] });
  return Float64Array.from({ length: points.length }, (_, at) => jacobian![Math.floor(at / d) * d * d + (at % d)]!);
}

/** The Hessian by differences of the forward gradient, [B, d, d], of fourth order. */
function hessianByDifferences(potential: Network, points: ArrayLike<number>, context: Float32Array | undefined): Float64Array {
  const d = potential.stateSize;
  const h = 1e-3;
  const hessian = new Float64Array(points.length * d);
  for (let k = 0; k < d; k++) {
    const at = (shift: number): Float64Array =>
      forwardGradient(
        potential,
        Array.from(points, (x, i) => x + (i % d === k ? shift : 0)),
        context,
      );
    const [a, b, c, e] = [at(2 * h), at(h), at(-h), at(-2 * h)];
    a.forEach((_, i) => (hessian[i * d + k] = (8 * (b[i]! - c[i]!) - (a[i]! - e[i]!)) / (12 * h)));
  }
  return hessian;
}

function diagonalsOf(hessian: ArrayLike<number>, d: number): { laplacian: number[]; scale: number[] } {
  const count = hessian.length / (d * d);
  const entries = (point: number): number[] => Array.from({ length: d }, (_, i) => hessian[point * d * d + i * (d + 1)]!);
  const each = Array.from({ length: count }, (_, point) => entries(point));
  return {
    laplacian: each.map((row) => row.reduce((sum, x) => sum + x, 0)),
    scale: each.map((row) => row.reduce((sum, x) => sum + Math.abs(x), 0)),
  };
}

const largest = (numbers: ArrayLike<number>): number => Array.from(numbers).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
const all = (numbers: ArrayLike<number>, value: number): number[] => Array.from(numbers, () => value);

/** Which of the methods apply to a field. */
function methodsOf(field: Network): Method[] {
  const { candidates } = explainPlan(field);
  return methods.filter((method) => candidates.some((candidate) => candidate.method === method && candidate.exact));
}

describe("closed forms", () => {
  test("a quadratic form has its matrix for a Hessian, and Gauss' log density -x for a gradient", () => {
    // φ = (x + 2y - 1)² - 3 (x - y)²
    const form = mlp({
      layers: [
        {
          weight: [
            [1, 2],
            [1, -1],
          ],
          bias: [-1, 0],
        },
        { weight: [[1, -3]] },
      ],
      activation: "square",
      potential: true,
    });
    const result = evaluateReference(gradientField(form), [1, 1, 0, -2], { outputs: [...outputs].filter((output) => output !== "curl") });
    expect([...result.value!]).toEqual([4, 8, -10 - 12, -20 + 12]);
    expect([...result.jacobian!]).toEqual([-4, 10, 10, 2, -4, 10, 10, 2]);
    expect([...result.divergence!]).toEqual([-2, -2]);
    const normal = mlp({
      layers: [
        {
          weight: [
            [1, 0, 0],
            [0, 1, 0],
            [0, 0, 1],
          ],
        },
        { weight: [[-0.5, -0.5, -0.5]], bias: [-1.5 * Math.log(2 * Math.PI)] },
      ],
      activation: "square",
      potential: true,
    });
    const { value, divergence } = evaluateReference(gradientField(normal), [1, -2, 3]);
    expect([...value!, ...divergence!]).toEqual([-1, 2, -3, -3]);
  });

  test("sin x sinh y is harmonic, and its field has no curl", async () => {
    const select = (column: number) => ({ rows: 1, columns: 2, data: Float64Array.from({ length: 2 }, (_, i) => (i === column ? 1 : 0)) });
    const activation = (operand: number, name: string): Operation => ({ kind: "activation", operand, activation: parseActivation(name) });
    const potential: Network = {
      stateSize: 2,
      contextSize: 0,
      operations: [
        { kind: "linear", terms: [{ operand: "state", weight: select(0) }], bias: null },
        { kind: "linear", terms: [{ operand: "state", weight: select(1) }], bias: null },
        activation(0, "sin"),
        activation(1, "sinh"),
        { kind: "product", operands: [2, 3] },
      ],
    };
    const field = await VectorField.create(device, gradientField(potential));
    const points = randomPoints(1, 50, 2);
    const { value, divergence, curl, diagonal } = await field.evaluate(points, { outputs: ["value", "divergence", "curl", "diagonal"] });
    const { scale } = { scale: Array.from(divergence, (_, at) => Math.abs(diagonal[2 * at]!) + Math.abs(diagonal[2 * at + 1]!)) };
    const truth = Array.from({ length: 50 }, (_, at) => [points[2 * at]!, points[2 * at + 1]!] as const).flatMap(([x, y]) => [
      Math.cos(x) * Math.sinh(y),
      Math.sin(x) * Math.cosh(y),
    ]);
    expectClose(
      value,
      truth,
      truth.map((x) => 1 + Math.abs(x)),
      { relative: 2e-6 },
    );
    expectClose(divergence, all(divergence, 0), scale, { relative: 2e-6, absolute: 0 });
    expectClose(curl, all(curl, 0), all(curl, 1 + largest(truth)), { relative: 2e-6, absolute: 0 });
    field.destroy();
  });

  test("straight pieces have a Laplacian of 0, and a field all the same", async () => {
    for (const name of ["relu", "leaky_relu(0.2)", "hardtanh", "abs", "clip(-1, 0.5)"]) {
      const field = gradientField(randomPotential(3, [3, 8, 7], name));
      const { value, jacobian } = evaluateReference(field, randomPoints(4, 20, 3), { outputs: ["value", "jacobian"] });
      expect(largest(value!), name).toBeGreaterThan(0.1);
      expect(largest(jacobian!), name).toBe(0);
    }
  });

  test("a potential that no point moves, or moves evenly, has such a field", async () => {
    const even = gradientField(
      mlp({
        layers: [
          {
            weight: [
              [1, 2],
              [3, 4],
              [5, 6],
            ],
          },
          { weight: [[1, -1, 1]] },
        ],
        activation: "identity",
        potential: true,
      }),
    );
    const still = gradientField(randomPotential(1, [2, 5], "floor"));
    for (const [field, expected] of [
      [even, [3, 4]],
      [still, [0, 0]],
    ] as const) {
      const onDevice = await VectorField.create(device, field);
      for (const method of methodsOf(field)) {
        const { value, divergence } = await onDevice.evaluate([5, 6, 7, 8], { method });
        expect([...value, ...divergence], method).toEqual([...expected, ...expected, 0, 0]);
      }
      onDevice.destroy();
    }
  });
});

const variants = [
  "leaky_relu(-0.3)",
  "elu(0.5)",
  "elu(-2)",
  "celu(2)",
  "celu(-0.7)",
  "softplus(2, 5)",
  "softplus(-1, 3)",
  "softplus(1, -2)",
];
const others = ["sin(3)", "clip(-0.5, 0.75)", "clip(1, -1)", "clip(-1)", "power(3)", "power(1)", "power(-1.5)", "power(1.5)", "power(0.5)"];
const kinked = (z: number, name: string): boolean =>
  ["elu(0.5)", "elu(-2)", "selu", "hardswish"].includes(name) && [0, 3].some((kink) => Math.abs(Math.abs(z) - kink) < 1e-3);

test.each([...activationNames, ...variants, ...others])("one layer of %s: Σ a σ'(z) w and Σ a σ''(z) |w|²", async (name) => {
  const [d, width, count] = [3, 8, 40];
  // Within the function's own domain.
  const [middle, spread] =
    name === "acosh"
      ? [2.5, 0.4]
      : ["tan", "asin", "atanh"].includes(name)
        ? [0, 0.25]
        : /^(log|sqrt|recip|power\(.*\.)/.test(name)
          ? [1.5, 0.4]
          : [0, 1.5];
  const uniform = random(9);
  const w = Array.from({ length: width }, () => Array.from({ length: d }, () => Math.fround(2 * uniform() - 1)));
  const a = w.map(() => Math.fround(2 * uniform() - 1));
  const b = w.map(() => Math.fround(middle + spread * (uniform() - 0.5)));
  const points = Float32Array.from({ length: count * d }, () => (2 * uniform() - 1) * spread);
  const potential = mlp({ layers: [{ weight: w, bias: b }, { weight: [a] }], activation: name, potential: true });
  const { slope, curvature } = activationFunctions(parseActivation(name));
  const value: number[] = [];
  const hessian: number[] = [];
  const sizes: number[] = [];
  for (let point = 0; point < count; point++) {
    const x = points.subarray(point * d, (point + 1) * d);
    const z = w.map((row, k) => row.reduce((sum, each, i) => sum + each * x[i]!, b[k]!));
    if (z.some((each) => kinked(each, name))) x.fill(0);
    const at = w.map((row, k) => row.reduce((sum, each, i) => sum + each * x[i]!, b[k]!));
    for (let i = 0; i < d; i++) {
      value.push(at.reduce((sum, each, k) => sum + a[k]! * slope(each) * w[k]![i]!, 0));
      for (let j = 0; j < d; j++) hessian.push(at.reduce((sum, each, k) => sum + a[k]! * curvature(each) * w[k]![i]! * w[k]![j]!, 0));
    }
    sizes.push(at.reduce((sum, each, k) => sum + Math.abs(a[k]! * curvature(each)) * w[k]!.reduce((s, x) => s + x * x, 0), 0));
  }
  const field = gradientField(potential);
  const { laplacian } = diagonalsOf(hessian, d);
  const reference = evaluateReference(field, points, { outputs: ["value", "divergence", "jacobian"] });
  const size = 1 + largest(value);
  // PyTorch's softplus is straight beyond its threshold, which no float32 sees.
  expectClose(reference.value!, value, all(value, size), { relative: 1e-11, absolute: 0, label: "reference value" });
  expectClose(reference.jacobian!, hessian, all(hessian, 1 + largest(hessian)), {
    relative: 1e-11,
    absolute: 0,
    label: "reference Hessian",
  });
  const onDevice = await VectorField.create(device, field);
  for (const method of methodsOf(field)) {
    const result = await onDevice.evaluate(points, { method });
    expectClose(result.value, value, all(value, size), { relative: 5e-6, absolute: 0, label: `value by ${method}` });
    expectClose(result.divergence, laplacian, sizes, { relative: 2e-5, absolute: 5e-6, label: `Laplacian by ${method}` });
  }
  onDevice.destroy();
});

test("one hidden layer whose slope is one function has its Laplacian by a dot product", () => {
  for (const name of ["sin", "cos", "softplus", "exp", "cosh"]) {
    const { method, candidates } = explainPlan(gradientField(randomPotential(1, [16, 64], name)));
    expect(method, name).toBe("cyclic");
    expect(candidates.find(({ chosen }) => chosen)!.multiplyAdds, name).toBeLessThanOrEqual(2 * 64);
  }
});

/** Whose σ'' does not jump, so that differences say what it is. */
const smooth = activationNames.filter((name) => {
  const isKinked = ["relu", "relu6", "hard", "abs", "clip", "selu", "floor", "ceil", "round", "trunc", "sign"].some((start) =>
    name.startsWith(start),
  );
  const isPartial = ["log", "sqrt", "reciprocal", "tan", "asin", "acosh", "atanh"].includes(name);
  const isSteep = ["exp", "square", "power", "sinh", "cosh"].includes(name);
  return !isKinked && !isPartial && !isSteep && !["leaky_relu", "identity", "elu", "celu", "softsign"].includes(name);
});

describe.each(smooth)("%s", (name) => {
  test.each([1, 2, 3, 4])("through %i hidden layers", { timeout: 60_000 }, async (depth) => {
    const [d, c, count] = [1 + (depth % 4), depth % 2, 6];
    const hidden = [9, 6, 7, 5].slice(0, depth);
    const potential = randomPotential(17 * depth, [d + c, ...hidden], name, c);
    const points = randomPoints(depth, count, d, 0.8);
    const context = c > 0 ? randomPoints(depth + 9, count, c) : undefined;
    const field = gradientField(potential);
    expect([field.stateSize, field.contextSize]).toEqual([d, c]);
    const gradient = forwardGradient(potential, points, context);
    const hessian = hessianByDifferences(potential, points, context);
    const size = 1 + largest(hessian);
    const reference = evaluateReference(field, points, { context, outputs: ["value", "divergence", "jacobian"] });
    expectClose(reference.value!, gradient, all(gradient, 1 + largest(gradient)), { relative: 1e-8, absolute: 0, label: "∇φ" });
    expectClose(reference.jacobian!, hessian, all(hessian, size), { relative: 1e-6, absolute: 0, label: "Hessian" });
    const mirrored = reference.jacobian!.map((_, at) => {
      const [point, i, j] = [Math.floor(at / d / d), Math.floor(at / d) % d, at % d];
      return reference.jacobian![point * d * d + j * d + i]!;
    });
    expectClose(reference.jacobian!, mirrored, all(mirrored, size), { relative: 1e-13, absolute: 0, label: "symmetry" });
    const { laplacian } = diagonalsOf(reference.jacobian!, d);
    for (const engine of [await VectorField.create(device, field), await OnnxField.create(runtime, field)]) {
      for (const method of methodsOf(field)) {
        const result = await engine.evaluate(points, { context, method });
        const label = `${method} by ${engine.constructor.name}`;
        expectClose(result.value, reference.value!, all(gradient, 1 + largest(gradient)), { relative: 1e-5, absolute: 0, label });
        expectClose(result.divergence, laplacian, all(laplacian, size), { relative: 3e-5, absolute: 0, label });
      }
      const { strain, jacobian } = await engine.evaluate(points, { context, outputs: ["strain", "jacobian"] });
      expectClose(strain, jacobian, all(jacobian, size), { relative: 1e-5, absolute: 0, label: "symmetry in float32" });
      engine.destroy();
    }
  });
});

test("random graphs of residuals, norms, products and gates are no different", { timeout: 60_000 }, async () => {
  let [taken, norms, products] = [0, 0, 0];
  for (let seed = 1; taken < 40; seed++) {
    const draw = new Draw(seed);
    const network = drawNetwork(draw, "small", { ...wholePalette, anywhere: ["tanh", "silu", "softplus", "sin"] });
    const { stateSize: d, contextSize: c, operations } = network;
    const kinds = operations.map(({ kind }) => kind);
    if (operations.some((operation) => operation.kind === "activation" && !smooth.includes(operation.activation.name))) continue;
    if (!kinds.includes("norm") && !kinds.includes("product") && draw.chance(0.7)) continue;
    taken++;
    if (kinds.includes("norm")) norms++;
    if (kinds.includes("product")) products++;
    const weight = { rows: 1, columns: d, data: draw.numbers(d, 1) };
    const potential: Network = {
      ...network,
      operations: [...operations, { kind: "linear", terms: [{ operand: operations.length - 1, weight }], bias: null }],
    };
    const points = draw.numbers(4 * d, 1);
    const context = c > 0 ? draw.numbers(4 * c, 1) : undefined;
    const field = gradientField(potential);
    const gradient = forwardGradient(potential, points, context);
    const hessian = hessianByDifferences(potential, points, context);
    const reference = evaluateReference(field, points, { context, outputs: ["value", "divergence", "jacobian"] });
    const [valueSize, size] = [1 + largest(gradient), 1 + largest(hessian)];
    expectClose(reference.value!, gradient, all(gradient, valueSize), { relative: 1e-8, absolute: 0, label: `∇φ of seed ${seed}` });
    // Near where a norm's input vanishes, differences see more than the second derivative.
    expectClose(reference.jacobian!, hessian, all(hessian, size), { relative: 1e-4, absolute: 0, label: `Hessian of seed ${seed}` });
    const onDevice = await VectorField.create(device, field);
    const result = await onDevice.evaluate(points, { context });
    expectClose(result.value, gradient, all(gradient, valueSize), { relative: 2e-5, absolute: 0, label: `f of seed ${seed}` });
    expectClose(result.divergence, reference.divergence!, all(result.divergence, size * d), {
      relative: 5e-5,
      absolute: 0,
      label: `seed ${seed}`,
    });
    onDevice.destroy();
    // The parameters are the potential's, in all places where they stand.
    const names = Object.keys(parametersOf(potential));
    expect(Object.keys(parametersOf(field))).toEqual(names);
    const others = Object.fromEntries(
      Object.entries(parametersOf(potential)).map(([name, { data }]) => [name, data.map((x) => x * 1.25 + 0.125)]),
    );
    const anew = evaluateReference(gradientField(withParameters(potential, others)), points, { context, outputs: ["value", "jacobian"] });
    const changed = evaluateReference(withParameters(field, others), points, { context, outputs: ["value", "jacobian"] });
    expect(changed.value, `seed ${seed}`).toEqual(anew.value);
    expect(changed.jacobian).toEqual(anew.jacobian);
  }
  expect(Math.min(norms, products)).toBeGreaterThan(5);
});

test("what trains the field trains the potential: gradients are sums over all places of a weight", async () => {
  const potential = randomPotential(5, [3, 6, 5], "tanh", 1);
  const points = randomPoints(1, 5, 2);
  const context = randomPoints(2, 5, 1);
  const cotangents = { value: randomPoints(3, 5, 2), divergence: randomPoints(4, 5, 1) };
  const loss = (network: Network): number => {
    const { value, divergence } = evaluateReference(gradientField(network), points, { context });
    const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => Array.from(a).reduce((sum, x, i) => sum + x * b[i]!, 0);
    return dot(cotangents.value, value!) + dot(cotangents.divergence, divergence!);
  };
  const field = gradientField(potential);
  const options = { context, wrt: ["parameters"] } as const;
  const { parameters } = vjpReference(field, points, cotangents, options);
  const onDevice = await VectorField.create(device, field);
  const single = await onDevice.vjp(points, cotangents, options);
  const h = 1e-4;
  for (const [name, { data }] of Object.entries(parametersOf(potential))) {
    const expected = Array.from(data, (_, index) => {
      const moved = (by: number): number =>
        loss(withParameters(potential, { [name]: Float64Array.from(data, (x, i) => (i === index ? x + by : x)) }));
      return (moved(h) - moved(-h)) / (2 * h);
    });
    const size = 1 + largest(expected);
    expectClose(parameters[name]!.data, expected, all(expected, size), { relative: 1e-6, absolute: 0, label: name });
    expectClose(single.parameters[name]!.data, expected, all(expected, size), { relative: 2e-5, absolute: 0, label: name });
  }
  await onDevice.update({ "0.weight": parametersOf(potential)["0.weight"]!.data.map((x) => -x) });
  const turned = withParameters(potential, { "0.weight": parametersOf(potential)["0.weight"]!.data.map((x) => -x) });
  const expected = evaluateReference(gradientField(turned), points, { context });
  const updated = await onDevice.evaluate(points, { context });
  expectClose(updated.value, expected.value!, all(expected.value!, 1), { relative: 1e-5 });
  expectClose(updated.divergence, expected.divergence!, all(expected.divergence!, 5), { relative: 2e-5 });
  onDevice.destroy();
});

test("constants of the formula are no parameters, whatever they are added to", () => {
  const scalar = { rows: 1, columns: 1, data: Float64Array.of(0.75) };
  const potential: Network = {
    stateSize: 2,
    contextSize: 0,
    operations: [
      {
        kind: "linear",
        terms: [{ operand: "state", weight: { rows: 1, columns: 2, data: Float64Array.of(0.5, -1) } }],
        bias: Float64Array.of(0.1),
      },
      { kind: "activation", operand: 0, activation: parseActivation("tanh") },
      {
        kind: "linear",
        terms: [
          { operand: 0, weight: { diagonal: Float64Array.of(1) } },
          { operand: 1, weight: scalar },
        ],
        bias: null,
      },
    ],
  };
  const field = gradientField(potential);
  expect(Object.keys(parametersOf(field)).toSorted()).toEqual(Object.keys(parametersOf(potential)).toSorted());
  const points = randomPoints(3, 5, 2);
  const { value } = evaluateReference(field, points);
  const expected = forwardGradient(potential, points, undefined);
  expectClose(value!, expected, expected.map(Math.abs), { relative: 1e-12 });
});

test("a field is trained as the gradient that it is", { timeout: 60_000 }, async () => {
  const points = randomPoints(9, 200, 2);
  for (const activation of ["tanh", "silu", "gelu", "softplus", "elu(0.5)", "leaky_relu(0.2)"]) {
    const potential = randomPotential(3, [2, 6, 5], activation);
    const trainer = await Trainer.create(device, gradientField(potential), {
      loss: "score_matching",
      batch: 32,
      seed: 1,
      timeColumn: null,
      kernels: "layers 4x4",
    });
    await trainer.data(points);
    const losses = await trainer.train(5);
    expect(losses.every(Number.isFinite), activation).toBe(true);
    const trained = await trainer.network();
    const own = withParameters(potential, parametersOf(trained));
    expect(parametersOf(own)).not.toEqual(parametersOf(potential));
    const { value } = evaluateReference(trained, points);
    const expected = forwardGradient(own, points, undefined);
    expectClose(
      value!,
      expected,
      expected.map((each) => 1 + Math.abs(each)),
      { relative: 1e-6, label: activation },
    );
    trainer.destroy();
  }
});

test("slopes beside 1 do not cancel, however large", async () => {
  for (const activation of ["leaky_relu(1e8)", "elu(1e8)"]) {
    const network = gradientField(mlp({ layers: [{ weight: [[1, 0]] }, { weight: [[1]] }], activation, potential: true }));
    const field = await VectorField.create(device, network);
    const { value } = await field.evaluate([0.5, 0, -0.5, 0]);
    const truth = evaluateReference(network, [0.5, 0, -0.5, 0]).value!;
    expect(truth[0]).toBe(1);
    expectClose(value, truth, truth.map(Math.abs), { relative: 1e-6, label: activation });
    field.destroy();
  }
});

describe("files", () => {
  const potential = randomPotential(5, [4, 6], "softplus", 1);
  const points = randomPoints(1, 5, 3);
  const options = { context: 0.25, outputs: ["value", "jacobian"] } as const;
  const expected = evaluateReference(gradientField(potential), points, options);

  test("a chain comes as .safetensors, and the file's own context or contextSize parts its inputs", () => {
    const bytes = toSafetensors(potential);
    const field = gradientField(parseSafetensors(bytes, { potential: true }));
    expect(evaluateReference(field, points, options).value).toEqual(expected.value);
    expect(() => parseSafetensors(bytes, { potential: true, contextSize: 0 })).toThrow(
      /context is "1"; expected "0", as options.contextSize says/,
    );
    expect(() => parseSafetensors(bytes)).toThrow(ModelError);
  });

  test("a model of one number comes as .onnx, [batch, 1] or [batch], with context in the same input or another", () => {
    const weights = parametersOf(potential);
    const first = (from: number, columns: number) => ({
      shape: [6, columns],
      data: Array.from(
        { length: 6 * columns },
        (_, at) => weights["0.weight"]!.data[Math.floor(at / columns) * 4 + from + (at % columns)]!,
      ),
    });
    const initializers = {
      all: first(0, 4),
      W: first(0, 3),
      C: first(3, 1),
      b: { shape: [6], data: [...weights["0.bias"]!.data] },
      V: { shape: [1, 6], data: [...weights["1.weight"]!.data] },
      minusOne: { shape: [1], data: [1], type: 7 },
    };
    const end = [
      ["Softplus", ["z"], ["a"]],
      ["Gemm", ["a", "V"], ["phi"], { transB: 1 }],
    ] as const;
    const joined = onnxFile({
      inputs: { xt: ["batch", 4] },
      nodes: [["Gemm", ["xt", "all", "b"], ["z"], { transB: 1 }], ...end],
      outputs: ["phi"],
      initializers,
    });
    const apart = onnxFile({
      inputs: { t: ["batch", 1], x: ["batch", 3] },
      nodes: [
        ["Gemm", ["x", "W", "b"], ["y"], { transB: 1 }],
        ["Gemm", ["t", "C"], ["s"], { transB: 1 }],
        ["Add", ["y", "s"], ["z"]],
        ...end,
        ["Squeeze", ["phi", "minusOne"], ["energy"]],
      ],
      outputs: ["energy"],
      initializers,
    });
    for (const [file, contextSize] of [
      [joined, 1],
      [apart, undefined],
    ] as const) {
      const read = parseOnnx(file, { potential: true, contextSize });
      const { value, jacobian } = evaluateReference(gradientField(read), points, options);
      expectClose(value!, expected.value!, all(expected.value!, 1), { relative: 1e-12, absolute: 0 });
      expectClose(jacobian!, expected.jacobian!, all(expected.jacobian!, 1), { relative: 1e-12, absolute: 0 });
      expect(read.notes!.join()).toMatch(/is a potential, whose gradient by x/);
    }
    expect(parseOnnx(joined, { potential: true }).stateSize).toBe(4);
    expect(() => parseOnnx(joined, { potential: true, contextSize: 4 })).toThrow(
      /options.contextSize is 4; expected a whole number below 4/,
    );
    expect(() => parseOnnx(joined, { contextSize: 1 })).toThrow(/expected none but of a potential/);
    const field = onnxFile({ inputs: { x: ["batch", 3] }, nodes: [["Neg", ["x"], ["y"]]], outputs: ["y"] });
    expect(() => parseOnnx(field, { potential: true })).toThrow(/"y" has the shape \[batch, 3\]; expected one number of a potential/);
    const initial = { k: { shape: [1], data: [2] } };
    const still = onnxFile({ inputs: { x: [3] }, nodes: [["Neg", ["k"], ["y"]]], outputs: ["y"], initializers: initial });
    expect(() => parseOnnx(still, { potential: true })).toThrow(/"y" is the same for all inputs; expected a potential of the state/);
  });

  test("the field goes out as ONNX and comes back", () => {
    const back = parseOnnx(toOnnx(gradientField(potential), { outputs: ["value"] }));
    const { value, jacobian } = evaluateReference(back, points, options);
    expectClose(value!, expected.value!, all(expected.value!, 1), { relative: 1e-6 });
    expectClose(jacobian!, expected.jacobian!, all(expected.jacobian!, 1), { relative: 1e-6 });
  });
});

test("what is no potential is refused", () => {
  const weight = [
    [1, 2, 3],
    [4, 5, 6],
  ];
  const field = mlp({ layers: [{ weight }] });
  expect(() => gradientField(field)).toThrow(new ModelError("the network gives 2 numbers; expected a potential, which gives one"));
  expect(() => gradientField({} as Network)).toThrow(ModelError);
  const potential = mlp({ layers: [{ weight: [[1, 2, 3]] }], potential: true });
  expect(() => evaluateReference(potential, [1, 2, 3])).toThrow("expected a velocity of 3, which gradientField makes of a potential");
  for (const [given, message] of [
    [{ potential: true }, "mlp: the network gives 2 outputs; expected 1 of a potential"],
    [{ contextSize: 1 }, "mlp: contextSize is 1; expected none but of a potential, since a velocity's size tells it"],
    [{ potential: "yes" }, 'mlp: potential is "yes"; expected true or false'],
  ] as const)
    expect(() => mlp({ layers: [{ weight }], ...(given as object) })).toThrow(new ModelError(message));
  for (const contextSize of [3, -1, 0.5])
    expect(() => mlp({ layers: [{ weight: [[1, 2, 3]] }], potential: true, contextSize })).toThrow(ModelError);
  expect(() => gradientField(randomPotential(1, [2, 5], "power(-63.5)"))).toThrow(/the slope of power\(-63.5\)/);
});
