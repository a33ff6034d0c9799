import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ModelError } from "../../src/errors.js";
import {
  activationCurvature,
  activationSlope,
  activationFunctions,
  activationKinks,
  activationNames,
  activationValue,
  activationWgsl,
  curvatureWgsl,
  isIdentity,
  parseActivation,
  parseActivationList,
} from "../../src/model/activation.js";

interface Vector {
  readonly z: readonly number[];
  readonly value: readonly number[];
  readonly derivative: readonly number[];
}

/** Values and derivatives by PyTorch's automatic differentiation in float64; of elementary functions by 50 digits. */
const vectors: Record<string, Vector> = Object.assign(
  {},
  ...["activations", "elementary"].map(
    (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), "utf8")).activations as Record<string, Vector>,
  ),
);

/**
 * PyTorch's double backward in float64 at the z of activations.json where value and curvature are finite; without
 * hardsigmoid, whose slope that version cannot differentiate, and without mish at 10000, of which it makes NaN.
 */
const curvatureVectors: Record<string, { readonly z: readonly number[]; readonly curvature: readonly number[] }> = JSON.parse(
  readFileSync(new URL("../vectors/curvatures.json", import.meta.url), "utf8"),
).activations;

/** Those without any curvature. */
const straight = "identity relu leaky_relu leaky_relu(3) relu6 hardsigmoid hardtanh abs clip floor ceil round trunc sign power(1)"
  .split(" ")
  .concat("clip(-2, 0.5)");

/** Every activation with its defaults, and with other parameters where it has some. */
const variants = [
  ...activationNames,
  "leaky_relu(3)",
  "elu(-2)",
  "celu(-1.5)",
  "softplus(0.5, 3)",
  "softplus(-2)",
  "sin(-3)",
  "power(3)",
  "power(-1.5)",
  "clip(-2, 0.5)",
];

/** Where a function is defined, and far enough from its pole for differences to mean something. */
function isInDomain(text: string, z: number): boolean {
  if (["log", "sqrt", "power(-1.5)"].includes(text)) return z > 0.5;
  if (text === "acosh") return z > 1.5;
  if (text === "asin" || text === "atanh") return Math.abs(z) < 0.75;
  if (text === "tan") return Math.abs(Math.cos(z)) > 0.5;
  return text !== "reciprocal" || Math.abs(z) > 0.5;
}

describe("float64 functions", () => {
  it.each(Object.entries(vectors))("%s agrees with its vectors", (text, vector) => {
    const { value, slope } = activationFunctions(parseActivation(text));
    // PyTorch computes hardsigmoid's derivative with 1/6 rounded to float32, even in float64; ours is 1/6.
    const slack = text === "hardsigmoid" ? 1e-8 : 0;
    vector.z.forEach((z, i) => {
      expectNear(value(z), vector.value[i]!, 0, `value at ${z}`);
      expectNear(slope(z), vector.derivative[i]!, slack, `derivative at ${z}`);
    });
  });

  function expectNear(actual: number, expected: number, slack: number, label: string): void {
    const allowance = 1e-14 * Math.abs(expected) + 1e-15 + slack;
    expect(Math.abs(actual - expected), `${label} is ${actual}; expected ${expected}; the error`).toBeLessThanOrEqual(allowance);
  }

  it.each(Object.entries(curvatureVectors))("the curvature of %s is PyTorch's", (text, vector) => {
    const { curvature } = activationFunctions(parseActivation(text));
    vector.z.forEach((z, i) => {
      const expected = vector.curvature[i]!;
      const error = Math.abs(curvature(z) - expected);
      expect(error, `curvature at ${z} is ${curvature(z)}; expected ${expected}; the error`).toBeLessThanOrEqual(
        1e-12 * (1 + Math.abs(expected)),
      );
    });
  });

  it("all activations but hardsigmoid are among the vectors of curvatures", () => {
    const names = Object.keys(curvatureVectors).map((text) => parseActivation(text).name);
    expect([...new Set([...names, "hardsigmoid"])].sort()).toEqual([...activationNames].sort());
  });

  // Second differences of the value, with 1500 digits. PyTorch's mish in float32 has NaN at 100.
  it.each([
    ["sigmoid", 20, -2.06115360544514e-9],
    ["sigmoid", -20, 2.06115360544514e-9],
    ["sigmoid", 60, -8.75651076269652e-27],
    ["sigmoid", -60, 8.75651076269652e-27],
    ["sigmoid", 100, -3.72007597602084e-44],
    ["sigmoid", -100, 3.72007597602084e-44],
    ["tanh", 20, -3.39868340423327e-17],
    ["tanh", -20, 3.39868340423327e-17],
    ["tanh", 60, -6.1341184589776e-52],
    ["tanh", -60, 6.1341184589776e-52],
    ["tanh", 100, -1.10711722138939e-86],
    ["tanh", -100, 1.10711722138939e-86],
    ["silu", 20, -3.71007648810191e-8],
    ["silu", -20, -3.71007648810191e-8],
    ["silu", 60, -5.07877624236398e-25],
    ["silu", -60, -5.07877624236398e-25],
    ["silu", 100, -3.64567445650042e-42],
    ["silu", -100, -3.64567445650042e-42],
    ["gelu", 20, -2.19733744813959e-85],
    ["gelu", -20, -2.19733744813959e-85],
    ["gelu", 60, 0],
    ["gelu", -60, 0],
    ["gelu", 100, 0],
    ["gelu", -100, 0],
    ["gelu_tanh", 20, -2.56207320284602e-257],
    ["gelu_tanh", -20, -2.56207320284602e-257],
    ["gelu_tanh", 60, 0],
    ["gelu_tanh", -60, 0],
    ["gelu_tanh", 100, 0],
    ["gelu_tanh", -100, 0],
    ["softplus", -20, 2.06115361394185e-9],
    ["softplus", -60, 8.75651076269652e-27],
    ["softplus", -100, 3.72007597602084e-44],
    ["softplus(1, 1000)", 20, 2.06115361394185e-9],
    ["softplus(1, 1000)", 60, 8.75651076269652e-27],
    ["softplus(1, 1000)", 100, 3.72007597602084e-44],
    ["softplus", 20, 0],
    ["softplus", 60, 0],
    ["softplus", 100, 0],
    ["mish", 20, -6.4574984070979e-16],
    ["mish", -20, -3.71007650424566e-8],
    ["mish", 60, -3.61912989079678e-50],
    ["mish", -60, -5.07877624236398e-25],
    ["mish", 100, -1.0960460491755e-84],
    ["mish", -100, -3.64567445650042e-42],
  ])("the curvature of %s at %d is %d", (text, z, exact) => {
    const curvature = activationCurvature(parseActivation(text), z);
    expect(Math.abs(curvature - exact)).toBeLessThanOrEqual(1e-13 * Math.abs(exact));
  });

  it.each(straight)("%s has no curvature anywhere", (text) => {
    const { curvature } = activationFunctions(parseActivation(text));
    for (const z of [0, 0.5, 1, 2.5, 3, 6, 1e-45, 3.4e38]) for (const x of [z, -z]) expect(curvature(x)).toBe(0);
  });

  // By PyTorch's double backward.
  it.each([
    ["elu", 0, 0],
    ["elu(-2)", -1, -2 * Math.exp(-1)],
    ["selu", 0, 0],
    ["celu(2)", 0, 0],
    ["hardswish", -3, 0],
    ["hardswish", 2.999, 1 / 3],
    ["hardswish", 3, 0],
    ["softsign", 0, 0],
    ["softplus(2, 5)", 2.5, 0],
  ])("the curvature of %s at %d is %d", (text, z, expected) => {
    expect(activationCurvature(parseActivation(text), z)).toBeCloseTo(expected, 15);
  });

  it("all activations are among the vectors", () => {
    const names = Object.keys(vectors).map((text) => parseActivation(text).name);
    expect([...new Set(names)].sort()).toEqual([...activationNames].sort());
  });

  // z Φ(z) and its derivative, computed with 40 digits. PyTorch's own float64 gelu is 0 below z = -8.3.
  it.each([
    [-1, -0.158655253931457, -0.0833154705876863],
    [-2, -0.0455002638963584, -0.0852318010781969],
    [-2.5, -0.0155241633144403, -0.0376110859081452],
    [-8, -4.97676845941743e-15, -3.9796072610868e-14],
    [-20, -5.50724823721247e-88, -1.10143604831335e-86],
    [-37, -2.11846135233409e-298, -7.83829866941852e-297],
  ])("gelu keeps its relative accuracy at %d", (z, value, derivative) => {
    const gelu = parseActivation("gelu");
    expect(Math.abs(activationValue(gelu, z) / value - 1)).toBeLessThan(2e-13);
    expect(Math.abs(activationSlope(gelu, z) / derivative - 1)).toBeLessThan(2e-13);
  });

  it.each(variants.filter((text) => !["exp", "sinh", "cosh"].includes(text)))("%s is finite for any float32", (text) => {
    const { value, slope, curvature } = activationFunctions(parseActivation(text));
    for (const z of [3.4e38, -3.4e38, 1e-45, -1e-45]) {
      if ((z < 0 || ["acosh", "asin", "atanh"].includes(text)) && !isInDomain(text, z)) continue;
      // celu with a negative parameter grows like e^|z|.
      if (text === "celu(-1.5)" && z < -1000) continue;
      expect(value(z), `value at ${z}`).toSatisfy(Number.isFinite);
      expect(slope(z), `derivative at ${z}`).toSatisfy(Number.isFinite);
      expect(curvature(z), `curvature at ${z}`).toSatisfy(Number.isFinite);
    }
  });

  it.each(variants)("the derivative of %s is the limit of its difference quotients", (text) => {
    const activation = parseActivation(text);
    const { value, slope } = activationFunctions(activation);
    const h = 1e-5;
    fc.assert(
      fc.property(fc.double({ min: -25, max: 25, noNaN: true }), (drawn) => {
        const z = text === "asin" || text === "atanh" ? drawn / 25 : drawn;
        // At 0 a second derivative may jump, which costs the quotient its accuracy.
        const excluded = [0, ...activationKinks(activation, z)];
        fc.pre(isInDomain(text, z) && excluded.every((kink) => Math.abs(z - kink) > 2 * h));
        const quotient = (value(z + h) - value(z - h)) / (2 * h);
        const size = 1 + Math.abs(value(z)) + Math.abs(slope(z));
        expect(Math.abs(quotient - slope(z))).toBeLessThan(1e-8 * size);
      }),
      { seed: 1, numRuns: 300 },
    );
  });

  it.each(variants)("the curvature of %s is the limit of the difference quotients of its derivative", (text) => {
    const activation = parseActivation(text);
    const { slope, curvature } = activationFunctions(activation);
    const h = 1e-5;
    fc.assert(
      fc.property(fc.double({ min: -25, max: 25, noNaN: true }), (drawn) => {
        const z = text === "asin" || text === "atanh" ? drawn / 25 : drawn;
        // The curvature of elu, celu and softsign jumps at 0.
        const excluded = [0, ...activationKinks(activation, z)];
        fc.pre(isInDomain(text, z) && excluded.every((kink) => Math.abs(z - kink) > 2 * h));
        const quotient = (slope(z + h) - slope(z - h)) / (2 * h);
        const size = 1 + Math.abs(slope(z)) + Math.abs(curvature(z));
        expect(Math.abs(quotient - curvature(z))).toBeLessThan(1e-8 * size);
      }),
      { seed: 3, numRuns: 300 },
    );
  });

  it.each(variants)("%s or its derivative jumps at its kinks and nowhere else", (text) => {
    const activation = parseActivation(text);
    const { value, slope } = activationFunctions(activation);
    const functions = [value, slope];
    const h = 1e-12;
    const jumpAt = (z: number): number => Math.max(...functions.map((f) => Math.abs(f(z + h) - f(z - h))));
    for (const near of [0, -0.3, 2.4, -7.6])
      for (const kink of activationKinks(activation, near)) expect(jumpAt(kink)).toBeGreaterThan(1e-9);
    fc.assert(
      fc.property(fc.double({ min: -25, max: 25, noNaN: true }), (drawn) => {
        const z = text === "asin" || text === "atanh" ? drawn / 25 : drawn;
        fc.pre(isInDomain(text, z) && activationKinks(activation, z).every((kink) => Math.abs(z - kink) > h));
        expect(jumpAt(z)).toBeLessThan(1e-10 * (1 + Math.max(...functions.map((f) => Math.abs(f(z))))));
      }),
      { seed: 2, numRuns: 300, examples: [[0], [-0.5], [3], [-3], [6], [1], [-1]] },
    );
  });
});

it.each(activationNames)("%s is NaN, and so are its derivatives, where z is not finite", (text) => {
  const { value, slope, curvature } = activationFunctions(parseActivation(text));
  for (const z of [NaN, Infinity, -Infinity]) expect([value(z), slope(z), curvature(z)]).toEqual([NaN, NaN, NaN]);
});

it.each(["log", "sqrt", "power(0.5)", "power(-1.5)"])("%s is NaN below 0, and so are its derivatives", (text) => {
  const { value, slope, curvature } = activationFunctions(parseActivation(text));
  for (const z of [-1e-300, -1, -1e300]) expect([value(z), slope(z), curvature(z)]).toEqual([NaN, NaN, NaN]);
});

it.each([
  ["asin", 1],
  ["atanh", 1],
])("%s is NaN beyond %d, and so are its derivatives", (text, end) => {
  const { value, slope, curvature } = activationFunctions(parseActivation(text));
  for (const z of [end + 1e-15, -end - 1e-15, 2, -1e300]) expect([value(z), slope(z), curvature(z)]).toEqual([NaN, NaN, NaN]);
});

it("acosh is NaN below 1, and so are its derivatives", () => {
  const { value, slope, curvature } = activationFunctions(parseActivation("acosh"));
  for (const z of [1 - 1e-15, 0, -1, -2, -1e300]) expect([value(z), slope(z), curvature(z)]).toEqual([NaN, NaN, NaN]);
});

it.each([
  ["asin", 1, Math.PI / 2, Infinity, Infinity],
  ["asin", -1, -Math.PI / 2, Infinity, -Infinity],
  ["acosh", 1, 0, Infinity, -Infinity],
  ["atanh", 1, Infinity, Infinity, Infinity],
  ["atanh", -1, -Infinity, Infinity, -Infinity],
  ["sqrt", 0, 0, Infinity, -Infinity],
  ["log", 0, -Infinity, Infinity, -Infinity],
  ["reciprocal", 0, Infinity, -Infinity, Infinity],
])("%s at its end %d is %d, with the derivatives %d and %d", (text, z, value, slope, curvature) => {
  const functions = activationFunctions(parseActivation(text));
  expect([functions.value(z), functions.slope(z), functions.curvature(z)]).toEqual([value, slope, curvature]);
});

it("round takes halves to the even integer", () => {
  const { value } = activationFunctions(parseActivation("round"));
  expect([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 4503599627370495.5].map((z) => value(z) + 0)).toEqual([-2, -2, 0, 0, 2, 2, 4503599627370496]);
});

describe("parseActivation", () => {
  it.each([
    ["silu", "silu", []],
    ["  SiLU ", "silu", []],
    ["swish", "silu", []],
    ["ReLU", "relu", []],
    ["Relu()", "relu", []],
    ["LeakyReLU", "leaky_relu", [0.01]],
    ["LeakyRelu(0.2)", "leaky_relu", [0.2]],
    ["elu(0.5)", "elu", [0.5]],
    ["ELU(-5e-1)", "elu", [-0.5]],
    ["softplus(2, 20)", "softplus", [2, 20]],
    ["Softplus(3)", "softplus", [3, 20]],
    ["Sin(30)", "sin", [30]],
    ["HardSwish", "hardswish", []],
    ["Identity", "identity", []],
  ])("reads %j", (text, name, parameters) => {
    const activation = parseActivation(text);
    expect(activation.name).toBe(name);
    expect(activation.parameters).toEqual(parameters);
  });

  it.each([
    ["elu(1)", "elu"],
    ["elu(0.50)", "elu(0.5)"],
    ["softplus", "softplus"],
    ["softplus(2,20)", "softplus(2)"],
    ["softplus(1,5)", "softplus(1, 5)"],
    ["GELU", "gelu"],
  ])("writes %j as %j, and reads that again", (text, written) => {
    const activation = parseActivation(text);
    expect(String(activation)).toBe(written);
    expect(parseActivation(written).parameters).toEqual(activation.parameters);
  });

  it.each([
    ["slu", /"slu"; expected one of identity, relu, .*, exp/],
    ["", /""; expected one of/],
    ["elu(1", /"elu\(1"; expected one of/],
    ["constructor", /"constructor"; expected one of/],
    ["relu(1)", /"relu\(1\)" has 1 parameters; expected none/],
    ["elu(1, 2)", /has 2 parameters; expected at most 1 \(alpha\)/],
    ["softplus(1,2,3)", /has 3 parameters; expected at most 2 \(beta, threshold\)/],
    ["elu(x)", /alpha is "x"; expected a number with \|alpha\| <= 1e\+30/],
    ["softplus(1,)", /threshold is ""; expected a number/],
    ["elu(NaN)", /alpha is "NaN"/],
    ["elu(Infinity)", /alpha is "Infinity"/],
    ["celu(0)", /alpha is "0"; expected a number with 1e-30 <= \|alpha\| <= 1e\+30/],
    ["softplus(0)", /beta is "0"/],
    ["sin(1e11)", /omega is "1e11"; expected a number with \|omega\| <= 10000000000/],
  ])("refuses %j", (text, message) => {
    expect(() => parseActivation(text)).toThrow(ModelError);
    expect(() => parseActivation(text)).toThrow(message);
  });
});

it("parseActivationList splits outside brackets", () => {
  expect(parseActivationList("silu,softplus(1,20),tanh")).toEqual(["silu", "softplus(1,20)", "tanh"]);
  expect(parseActivationList(" softplus(1, 20) , elu( 2 ) ")).toEqual(["softplus(1, 20)", "elu( 2 )"]);
  expect(parseActivationList("silu")).toEqual(["silu"]);
});

it("isIdentity knows the identity", () => {
  expect(activationNames.filter((name) => isIdentity(parseActivation(name)))).toEqual(["identity"]);
});

describe("activationWgsl", () => {
  it.each([
    ["silu", "silu(z)"],
    ["tanh", "hyperbolic_tangent(z)"],
    ["elu(0.5)", "elu(z, 0.5)"],
    ["softplus", "softplus(z, 1.0, 20.0)"],
    // 1/(2π) and 30/(2π) = 4.77... in fixed point.
    ["cos", "cosine(z, vec4<u32>(0x0u, 0x28be60dbu, 0x9391054au, 0x7f09d5f4u))"],
    ["sin(-30)", "sine(z, -30.0, vec4<u32>(0x4u, 0xc64f59bbu, 0x4afe9ebau, 0xe32712a6u))"],
  ])("%s calls %s", (text, call) => {
    const guarded = `undefined_where(${call}, vec2<bool>(!is_finite(z)))`;
    expect(activationWgsl(parseActivation(text))).toBe(`fn activation(z: f32) -> vec2f { return ${guarded}; }\n`);
  });

  it("refuses an activation that is not in the table", () => {
    expect(() => activationWgsl({ name: "step", parameters: [] })).toThrow(/"step"; expected one of/);
  });
});

describe("curvatureWgsl", () => {
  it.each([
    ["silu", "silu_curvature(z)"],
    ["tanh", "hyperbolic_tangent_curvature(z)"],
    ["softplus", "softplus_curvature(z, 1.0, 20.0)"],
    ["sin(-30)", "sine_curvature(z, -30.0, vec4<u32>(0x4u, 0xc64f59bbu, 0x4afe9ebau, 0xe32712a6u), 900.0)"],
    ["power(3)", "power_curvature(z, 6.0, 1.0, false)"],
    ["power(0.5)", "power_curvature(z, -0.25, -0.5, true)"],
    ["relu", "0.0"],
  ])("%s has %s", (text, third) => {
    const guarded = `vec3f(activation(z), undefined_if(${third}, !is_finite(z)))`;
    expect(curvatureWgsl(parseActivation(text))).toBe(`fn activation_with_curvature(z: f32) -> vec3f { return ${guarded}; }\n`);
  });
});
