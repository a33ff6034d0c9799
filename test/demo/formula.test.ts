import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { formulas } from "../../demo/src/fields/shelf.js";
import { FormulaError, parseFormula } from "../../demo/src/fields/formula.js";
import { evaluateReference, VectorField, type Network } from "../../src/index.js";
import { toOnnx } from "../../src/onnx/index.js";
import { expectClose } from "../close.js";
import { openDevice } from "../device.js";
import { random, randomPoints } from "../fields.js";
import { openModel } from "../onnxruntime.js";

const points2 = randomPoints(1, 9, 2);

function valuesOf(text: string, points: readonly number[], context?: readonly number[]): number[] {
  const { value } = evaluateReference(parseFormula(text), points, { outputs: ["value"], context });
  return Array.from(value!);
}

function kindsOf({ operations }: Network): string[] {
  return operations.map((operation) => (operation.kind === "activation" ? operation.activation.toString() : operation.kind));
}

describe("values are those of the same expression in TypeScript", () => {
  const cases: readonly (readonly [text: string, expected: (x: number) => number])[] = [
    ["-x^2", (x) => -(x ** 2)],
    ["(-x)^2", (x) => (-x) ** 2],
    ["--x^2", (x) => x ** 2],
    ["-+-x**3", (x) => x ** 3],
    ["2^3^2 + x", (x) => 512 + x],
    ["(2^3)^2 + x", (x) => 64 + x],
    ["2^-x^2", (x) => 2 ** -(x ** 2)],
    ["x^-2", (x) => 1 / (x * x)],
    ["x - 5 - 7", (x) => x - 12],
    ["x - (5 - 7)", (x) => x + 2],
    ["x/2/4", (x) => x / 8],
    ["x/(2/4)", (x) => 2 * x],
    ["6/x/2", (x) => 3 / x],
    ["6/x*2", (x) => 12 / x],
    ["3*-x^2*2", (x) => -6 * x * x],
    ["2*x^3", (x) => 2 * x ** 3],
    ["1 - x*x/4 + 3*x", (x) => 1 - (x * x) / 4 + 3 * x],
    ["1e-3*x + 2.5E2 + .5 + 1.", (x) => 1e-3 * x + 251.5],
    ["pi*x + e - π", (x) => Math.PI * x + Math.E - Math.PI],
    ["e^x + 2^x + .5^x", (x) => Math.exp(x) + 2 ** x + 0.5 ** x],
    ["(1 + x^2)^0.5 + (1 + x^2)^1.5 + (1 + x^2)^-0.5", (x) => Math.sqrt(1 + x * x) + (1 + x * x) ** 1.5 + 1 / Math.sqrt(1 + x * x)],
    ["x^0 + x^1 + pow(x, 7) + (x + 1)^64/1e9", (x) => 1 + x + x ** 7 + (x + 1) ** 64 / 1e9],
    ["max(x, 1) + min(x, -1, 2) + max(0.2, x, sin(3*x))", (x) => Math.max(x, 1) + Math.min(x, -1) + Math.max(0.2, x, Math.sin(3 * x))],
    ["log(2 + x^2) + ln(2 + x^2)", (x) => 2 * Math.log(2 + x * x)],
    ["sin(cos(tan(x)))", (x) => Math.sin(Math.cos(Math.tan(x)))],
    [
      "asin(x/9) + atan(x) + sinh(x) + cosh(x) + tanh(x)",
      (x) => Math.asin(x / 9) + Math.atan(x) + Math.sinh(x) + Math.cosh(x) + Math.tanh(x),
    ],
    ["asinh(x) + acosh(2 + x^2) + atanh(x/9)", (x) => Math.asinh(x) + Math.acosh(2 + x * x) + Math.atanh(x / 9)],
    ["sqrt(abs(x)) + exp(-x)", (x) => Math.sqrt(Math.abs(x)) + Math.exp(-x)],
    [
      "sigmoid(x) + softplus(x) + relu(x) + silu(x)",
      (x) => 1 / (1 + Math.exp(-x)) + Math.log1p(Math.exp(x)) + Math.max(x, 0) + x / (1 + Math.exp(-x)),
    ],
    ["x × 2 − 3·x", (x) => -x],
    ["x₀ + x0 - x", (x) => x],
    ["[ (x + 1)*(x - 1) ]", (x) => x * x - 1],
  ];
  test.for(cases)("%s", ([text, expected]) => {
    for (const x of [-2.3, -0.7, 0.4, 1.9]) {
      const [value] = valuesOf(text, [x]);
      expect(Math.abs(value! - expected(x))).toBeLessThan(1e-13 * (1 + Math.abs(expected(x))));
    }
  });

  test("constants are folded in float64", () => {
    const network = parseFormula("sin(2) + 8/3 - erf(0.5)*sqrt(2) + min(1, 2)^3 + max(4, 2, 3)");
    expect(kindsOf(network)).toEqual(["linear"]);
    const { value } = evaluateReference(network, [0], { outputs: ["value"] });
    expect(value![0]).toBeCloseTo(Math.sin(2) + 8 / 3 - 0.5204998778130465 * Math.SQRT2 + 1 + 4, 13);
  });

  test("components stand between commas, semicolons or new lines, with brackets around or without", () => {
    const point = [2, 3, 5];
    for (const text of [
      "x*y, z, x",
      "(x*y, z, x)",
      "[x*y; z; x]",
      "x*y\nz\nx",
      " ((x*y,\n\n z,\r\n x\n)) \n",
      "x0*x1, x2, x₀",
      "(x)*(y), (z), (x)",
    ])
      expect(valuesOf(text, point), text).toEqual([6, 5, 2]);
    expect(valuesOf("x7, x6, x5, x4, w, z, y, x", [1, 2, 3, 4, 5, 6, 7, 8])).toEqual([8, 7, 6, 5, 4, 3, 2, 1]);
  });

  test("t is the time, a context of 1, and is there only where it is written", () => {
    expect(parseFormula("x, y").contextSize).toBe(0);
    const network = parseFormula("sin(t)*x + t, y*t^2");
    expect(network.contextSize).toBe(1);
    const { value, jacobian } = evaluateReference(network, [3, 4], { outputs: ["value", "jacobian"], context: [0.5] });
    expectClose(value!, [Math.sin(0.5) * 3 + 0.5, 1], [1, 1], { relative: 1e-15, absolute: 1e-15 });
    expectClose(jacobian!, [Math.sin(0.5), 0, 0, 0.25], [1, 1, 1, 1], { relative: 1e-15, absolute: 0 });
    expect(valuesOf("t, -t", [3, 4], [0.5])).toEqual([0.5, -0.5]);
  });
});

describe("networks are small", () => {
  test("sums and multiples are one linear operation", () => {
    expect(kindsOf(parseFormula("x, y"))).toEqual(["linear"]);
    expect(kindsOf(parseFormula("2*(x - 3*y)/4 + 1, -(x + y)*pi - (y - x)"))).toEqual(["linear"]);
    expect(kindsOf(parseFormula("1, 0"))).toEqual(["linear"]);
  });

  test("what is written twice is computed once, and what cancels not at all", () => {
    expect(kindsOf(parseFormula("x*x - y, x*x*3 + x^2 + (-x)*x"))).toEqual(["linear", "square", "linear"]);
    expect(kindsOf(parseFormula("x*y + y*x, 2*y*x"))).toEqual(["linear", "linear", "product", "linear"]);
    expect(kindsOf(parseFormula("sin(x + y), sin(y + x)"))).toEqual(["linear", "sin", "linear"]);
    expect(kindsOf(parseFormula("log(x) - log(x), 0*exp(y)"))).toEqual(["linear"]);
  });

  test("what has the same activation is one operation", () => {
    expect(kindsOf(parseFormula("sin(x), sin(y)"))).toEqual(["sin", "linear"]);
    expect(kindsOf(parseFormula("y, (1 - x*x)*y - x"))).toEqual(["linear", "square", "linear", "linear", "product", "linear"]);
  });
});

describe("divergences are exact", () => {
  const truths: Readonly<Record<string, (x: number, y: number, z: number) => readonly number[]>> = {
    source: () => [1, 1],
    sink: () => [-1, -1],
    rotation: () => [0, 0],
    shear: () => [0, 0],
    saddle: () => [1, -1],
    "van-der-pol": (x) => [0, 1 - x * x],
    lorenz: () => [-10, -1, -8 / 3],
    "taylor-green": (x, y) => [Math.cos(x) * Math.cos(y), -Math.cos(x) * Math.cos(y)],
    wells: (x) => [1 - 3 * x * x, -0.5],
  };

  test.for(Object.entries(formulas))("of %s", ([name, text]) => {
    const network = parseFormula(text);
    const d = network.stateSize;
    const points = randomPoints(2, 9, d, 2);
    const { divergence, diagonal } = evaluateReference(network, points, { outputs: ["divergence", "diagonal"] });
    for (let point = 0; point < 9; point++) {
      const [x, y, z] = points.subarray(point * d);
      const expected = truths[name]!(x!, y!, z!);
      const scale = expected.reduce((sum, term) => sum + Math.abs(term), 0);
      expectClose(
        diagonal!.subarray(point * d, (point + 1) * d),
        expected,
        expected.map(() => scale),
        { relative: 1e-14, absolute: 0 },
      );
      const sum = expected.reduce((total, term) => total + term, 0);
      expectClose([divergence![point]!], [sum], [scale], { relative: 1e-14, absolute: 0 });
    }
  });

  test("of constants, which is 0", () => {
    for (const text of ["1, 0", "0, 0", "pi, sin(1)"])
      expect(evaluateReference(parseFormula(text), points2).divergence).toEqual(new Float64Array(9));
  });

  test("whole Jacobians, of a field with all kinds of operations", () => {
    const { jacobian } = evaluateReference(parseFormula("x*exp(-y)/z, max(x, y)*z, (x*y*z)^2"), [2, 3, 5], { outputs: ["jacobian"] });
    const expected = [Math.exp(-3) / 5, (-2 * Math.exp(-3)) / 5, (-2 * Math.exp(-3)) / 25, 0, 5, 3, 2 * 30 * 15, 2 * 30 * 10, 2 * 30 * 6];
    expectClose(jacobian!, expected, expected.map(Math.abs), { relative: 1e-14, absolute: 0 });
  });

  test("where two are the largest, of both by half", () => {
    const { jacobian } = evaluateReference(parseFormula("max(3*x, y), min(3*x, y)"), [1, 3], { outputs: ["jacobian"] });
    expect(Array.from(jacobian!)).toEqual([1.5, 0.5, 1.5, 0.5]);
  });

  test("max and min keep what is small beside what is large, in float32 too", () => {
    const network = parseFormula("max(x, y - 1e8), min(x, 1e8 + y)");
    expect(Array.from(evaluateReference(network, [1e-3, 1], { outputs: ["value"] }).value!)).toEqual([1e-3, 1e-3]);
  });
});

/** What a tree of an expression comes to: its value, ∂/∂x_i, and the largest number on the way. */
interface Dual {
  readonly value: number;
  readonly slopes: readonly number[];
  readonly size: number;
}

type Tree =
  | { readonly kind: "number"; readonly text: string; readonly value: number }
  | { readonly kind: "variable"; readonly names: readonly string[]; readonly index: number }
  | { readonly kind: "minus"; readonly of: Tree }
  | { readonly kind: "binary"; readonly operator: string; readonly left: Tree; readonly right: Tree }
  | { readonly kind: "call"; readonly name: string; readonly of: readonly Tree[] };

function normalIntegral(z: number): number {
  const steps = 2000;
  let sum = 0;
  for (let k = 0; k <= steps; k++) sum += Math.exp(-(((k / steps) * z) ** 2 / 2)) * (k === 0 || k === steps ? 1 : k % 2 === 1 ? 4 : 2);
  return (sum * z) / (3 * steps) / Math.sqrt(2 * Math.PI);
}

const logistic = (z: number): number => 1 / (1 + Math.exp(-z));
const density = (z: number): number => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
/** Functions and their derivatives. */
const functions: Readonly<Record<string, readonly [(z: number) => number, (z: number) => number]>> = {
  sin: [Math.sin, Math.cos],
  cos: [Math.cos, (z) => -Math.sin(z)],
  tan: [Math.tan, (z) => 1 / Math.cos(z) ** 2],
  asin: [Math.asin, (z) => 1 / Math.sqrt(1 - z * z)],
  atan: [Math.atan, (z) => 1 / (1 + z * z)],
  sinh: [Math.sinh, Math.cosh],
  cosh: [Math.cosh, Math.sinh],
  tanh: [Math.tanh, (z) => 1 / Math.cosh(z) ** 2],
  asinh: [Math.asinh, (z) => 1 / Math.sqrt(z * z + 1)],
  acosh: [Math.acosh, (z) => 1 / Math.sqrt(z * z - 1)],
  atanh: [Math.atanh, (z) => 1 / (1 - z * z)],
  exp: [Math.exp, Math.exp],
  log: [Math.log, (z) => (z > 0 ? 1 / z : NaN)],
  ln: [Math.log, (z) => (z > 0 ? 1 / z : NaN)],
  sqrt: [Math.sqrt, (z) => 0.5 / Math.sqrt(z)],
  abs: [Math.abs, Math.sign],
  erf: [(z) => 2 * normalIntegral(Math.SQRT2 * z), (z) => 2 * Math.SQRT2 * density(Math.SQRT2 * z)],
  sigmoid: [logistic, (z) => logistic(z) * logistic(-z)],
  softplus: [(z) => (z > 20 ? z : Math.log1p(Math.exp(z))), (z) => (z > 20 ? 1 : logistic(z))],
  relu: [(z) => Math.max(z, 0), (z) => (z > 0 ? 1 : 0)],
  gelu: [(z) => z * (0.5 + normalIntegral(z)), (z) => 0.5 + normalIntegral(z) + z * density(z)],
  silu: [(z) => z * logistic(z), (z) => logistic(z) + z * logistic(z) * logistic(-z)],
};

function evaluateTree(tree: Tree, x: readonly number[], t: number): Dual {
  const made = (value: number, slope: (i: number) => number, from: readonly Dual[]): Dual => {
    const slopes = x.map((_, i) => slope(i));
    const numbers = [value, ...slopes, ...from.map(({ size }) => size)].map(Math.abs);
    return { value, slopes, size: numbers.some(Number.isNaN) ? NaN : Math.max(...numbers) };
  };
  switch (tree.kind) {
    case "number":
      return made(tree.value, () => 0, []);
    case "variable":
      return made(tree.index < 0 ? t : x[tree.index]!, (i) => (i === tree.index ? 1 : 0), []);
    case "minus": {
      const a = evaluateTree(tree.of, x, t);
      return made(-a.value, (i) => -a.slopes[i]!, [a]);
    }
    case "call": {
      const [a, ...more] = tree.of.map((each) => evaluateTree(each, x, t));
      if (tree.name === "max" || tree.name === "min") {
        const sign = tree.name === "max" ? 1 : -1;
        return more.reduce(
          (best, b) =>
            best.value === b.value
              ? made(b.value, (i) => (best.slopes[i]! + b.slopes[i]!) / 2, [best, b])
              : made(
                  sign * Math.max(sign * best.value, sign * b.value),
                  (i) => (sign * best.value > sign * b.value ? best : b).slopes[i]!,
                  [best, b],
                ),
          a!,
        );
      }
      const [value, slope] = functions[tree.name]!;
      const derivative = slope(a!.value);
      return made(value(a!.value), (i) => derivative * a!.slopes[i]!, [a!, { ...a!, size: Math.abs(derivative) }]);
    }
    case "binary": {
      const [a, b] = [evaluateTree(tree.left, x, t), evaluateTree(tree.right, x, t)];
      if (tree.operator === "+") return made(a.value + b.value, (i) => a.slopes[i]! + b.slopes[i]!, [a, b]);
      if (tree.operator === "-") return made(a.value - b.value, (i) => a.slopes[i]! - b.slopes[i]!, [a, b]);
      if (tree.operator === "*") return made(a.value * b.value, (i) => a.slopes[i]! * b.value + a.value * b.slopes[i]!, [a, b]);
      if (tree.operator === "/") {
        const inverse = { ...b, size: 1 / b.value ** 2 };
        return made(a.value / b.value, (i) => (a.slopes[i]! * b.value - a.value * b.slopes[i]!) / b.value ** 2, [a, b, inverse]);
      }
      const value = a.value ** b.value;
      if (tree.left.kind === "number") return made(value, (i) => value * Math.log(a.value) * b.slopes[i]!, [a, b]);
      const inverse = { ...a, size: b.value < 0 ? 1 / a.value ** 2 : 0 };
      return made(value, (i) => (b.value === 0 ? 0 : b.value * a.value ** (b.value - 1) * a.slopes[i]!), [a, b, inverse]);
    }
  }
}

/** A generator of trees and of texts for them. */
class Trees {
  constructor(
    private readonly uniform: () => number,
    private readonly d: number,
  ) {}

  private oneOf<T>(list: readonly T[]): T {
    return list[Math.floor(this.uniform() * list.length)]!;
  }

  draw(depth: number): Tree {
    const chance = depth > 0 ? this.uniform() : 0.2 * this.uniform();
    if (chance < 0.13) {
      const index = Math.floor(this.uniform() * (this.d + 0.5));
      if (index >= this.d) return { kind: "variable", names: ["t"], index: -1 };
      return { kind: "variable", names: ["xyzw"[index]!, `x${index}`, `x${"₀₁₂₃"[index]}`], index };
    }
    if (chance < 0.2) return this.number(["0", "1", "2", "3", ".5", "1.5", "25e-2", "1E-1", "2.", "pi", "e"]);
    if (chance < 0.28) return { kind: "minus", of: this.draw(depth - 1) };
    if (chance < 0.62)
      return { kind: "binary", operator: this.oneOf(["+", "-", "*", "/"]), left: this.draw(depth - 1), right: this.draw(depth - 1) };
    if (chance < 0.7) {
      const size = this.number(["0", "1", "2", "3", "4", "7", ".5", "1.5"]);
      return { kind: "binary", operator: "^", left: this.varying(depth), right: this.uniform() < 0.3 ? negative(size) : size };
    }
    if (chance < 0.73) return { kind: "binary", operator: "^", left: this.number(["2", ".5", "e"]), right: this.varying(depth) };
    if (chance < 0.8)
      return { kind: "call", name: this.oneOf(["max", "min"]), of: Array.from({ length: this.oneOf([2, 3]) }, () => this.draw(depth - 1)) };
    return { kind: "call", name: this.oneOf(Object.keys(functions)), of: [this.draw(depth - 1)] };
  }

  /** For a power, of which numbers are told apart: no number. */
  private varying(depth: number): Tree {
    const tree = this.draw(depth - 1);
    return tree.kind === "number" ? { kind: "minus", of: tree } : tree;
  }

  private number(texts: readonly string[]): Tree {
    const text = this.oneOf(texts);
    return { kind: "number", text, value: text === "pi" ? Math.PI : text === "e" ? Math.E : Number(text) };
  }

  /** @param least how tightly it has to bind: 1 a sum, 2 a product, 3 a sign, 4 a power, 5 all else. */
  print(tree: Tree, least = 0): string {
    const [text, binds] = this.printed(tree);
    const space = this.oneOf(["", "", " "]);
    return binds < least || this.uniform() < 0.05 ? `(${space}${text})${space}` : `${text}${space}`;
  }

  private printed(tree: Tree): [text: string, binds: number] {
    const space = this.oneOf(["", " "]);
    switch (tree.kind) {
      case "number":
        return tree.value < 0 ? [tree.text, 3] : [tree.text, 5];
      case "variable":
        return [this.oneOf(tree.names), 5];
      case "minus":
        return [`-${space}${this.print(tree.of, 3)}`, 3];
      case "call":
        return [`${tree.name}${space}(${tree.of.map((each) => this.print(each)).join(`,${space}`)})`, 5];
      case "binary": {
        if (tree.operator === "^") return [`${this.print(tree.left, 5)}${this.oneOf(["^", "**"])}${space}${this.print(tree.right, 3)}`, 4];
        const binds = tree.operator === "+" || tree.operator === "-" ? 1 : 2;
        return [`${this.print(tree.left, binds)}${tree.operator}${space}${this.print(tree.right, binds + 1)}`, binds];
      }
    }
  }
}

function negative(tree: Tree): Tree {
  return tree.kind === "number" ? { ...tree, text: `-${tree.text}`, value: -tree.value } : tree;
}

test("200 random fields agree with the trees that they were printed from, in value, Jacobian and divergence", () => {
  const uniform = random(20_261_126);
  const t = 0.7;
  let compared = 0;
  let differences = 0;
  for (let field = 0; field < 200;) {
    const d = 1 + (field % 4);
    const trees = new Trees(uniform, d);
    const components = Array.from({ length: d }, () => trees.draw(5));
    const text = components.map((tree) => trees.print(tree)).join(", ");
    const points = Array.from({ length: 6 }, () => Array.from({ length: d }, () => 3 * uniform() - 1.5));
    const truths = points.map((x) => components.map((tree) => evaluateTree(tree, x, t)));
    const sizeAt = (truth: readonly Dual[]): number => Math.max(...truth.map(({ size }) => size));
    let network: Network;
    try {
      network = parseFormula(text);
    } catch (error) {
      expect(error, text).toBeInstanceOf(FormulaError);
      expect((error as Error).message, text).toMatch(/no finite number|divides by 0|numbers go up to/);
      for (const truth of truths) expect(sizeAt(truth) < 1e3, text).toBe(false);
      continue;
    }
    field++;
    const options = { context: network.contextSize > 0 ? [t] : null };
    const { value, jacobian } = evaluateReference(network, points.flat(), { ...options, outputs: ["value", "jacobian"] });
    const { divergence } = evaluateReference(network, points.flat(), { ...options, outputs: ["divergence"] });
    for (const [point, truth] of truths.entries()) {
      const size = sizeAt(truth);
      if (!(size < 1e3)) continue;
      compared++;
      const allowed = { relative: 1e-9, absolute: 1e-9, label: `${text} at ${points[point]!.join(", ")}:` };
      const sizes = (count: number): number[] => Array<number>(count).fill(size);
      expectClose(
        value!.subarray(point * d, (point + 1) * d),
        truth.map((each) => each.value),
        sizes(d),
        allowed,
      );
      expectClose(
        jacobian!.subarray(point * d * d, (point + 1) * d * d),
        truth.flatMap(({ slopes }) => slopes),
        sizes(d * d),
        allowed,
      );
      const trace = truth.reduce((sum, { slopes }, i) => sum + slopes[i]!, 0);
      expectClose([divergence![point]!], [trace], [size], allowed);

      // Central differences of the trees' values, where two steps agree, so not across a kink.
      const difference = (step: number): number =>
        components.reduce((sum, tree, i) => {
          const [above, below] = [step, -step].map(
            (by) =>
              evaluateTree(
                tree,
                points[point]!.map((value, k) => (k === i ? value + by : value)),
                t,
              ).value,
          );
          return sum + (above! - below!) / (2 * step);
        }, 0);
      const [coarse, fine] = [difference(2e-5), difference(1e-5)];
      if (!(Math.abs(coarse - fine) < 1e-6 * size)) continue;
      differences++;
      expectClose([divergence![point]!], [fine], [size], { ...allowed, relative: 1e-5 });
    }
  }
  expect(compared).toBeGreaterThan(600);
  expect(differences).toBeGreaterThan(500);
});

describe("what is no formula is refused in words, and where", () => {
  const missing = (what: string): string =>
    `an operation is missing before "${what}"; write * for a product and brackets after a function, as in 2*x and sin(x)`;
  const nothing = (what: string): string => `"${what}" has no meaning here`;
  const cases: readonly (readonly [text: string, index: number, message: string])[] = [
    ["", 0, "write one component for each variable, as in y, -x"],
    ["  ( ) ", 2, "there is nothing in these brackets"],
    ["x,,y", 2, "a component is missing"],
    ["x, y,", 5, "a component is missing"],
    ["1,2,3,4,5,6,7,8,9", 16, "there are 9 components; at most 8 are taken"],
    ["2x, y", 1, missing("x")],
    ["x, 2(y+1)", 4, missing("(")],
    ["x, 2 y", 5, missing("y")],
    ["x y, 0", 2, missing("y")],
    ["(x+1)(y), 0", 5, missing("(")],
    ["x(y+1), 0", 1, missing("(")],
    ["0, sin y", 7, missing("y")],
    ["2*(x, y), 0", 6, missing("y")],
    [
      "foo(x), y",
      0,
      '"foo" is no function; there are sin, cos, tan, asin, atan, sinh, cosh, tanh, asinh, acosh, atanh, exp, log, sqrt, abs, erf, sigmoid, softplus, relu, gelu, silu, ln, pow, max, min',
    ],
    ["x, Sin(y)", 3, expect.stringContaining('"Sin" is no function; there are sin')],
    ["x + foo, y", 4, '"foo" is no variable; there are x, y, the time t, and the numbers pi and e'],
    ["a, 0, 0, 0, 0", 0, '"a" is no variable; there are x0 to x4, the time t, and the numbers pi and e'],
    ["x, z", 3, '"z" needs 3 components or more, one for each variable; there are 2'],
    ["x9", 0, '"x9" needs 10 components or more, one for each variable; there is 1'],
    ["sin, x", 0, '"sin" is a function; write sin(x)'],
    ["sin(x, y), 0", 0, "sin takes 1 number, not 2"],
    ["0, max(x)", 3, "max takes at least 2 numbers, not 1"],
    ["0, pow(x)", 3, "pow takes 2 numbers, not 1"],
    ["0, x +", 6, 'something is missing after "+"'],
    ["x * / y, 0", 4, 'something is missing before "/"'],
    ["(x + ) * y, 0", 5, 'something is missing before ")"'],
    ["-, 0", 1, 'something is missing after "-"'],
    ["1..2, 0", 2, 'something is missing before "."'],
    ["(x, y", 0, '"(" is never closed'],
    ["x), y", 1, '")" closes no bracket'],
    ["(x], y", 2, '"]" closes no bracket'],
    ["x = y, 0", 2, nothing("=")],
    ["x ? y : 1, 0", 2, nothing("?")],
    ['"x", 0', 0, nothing('"')],
    ["x², 0", 1, nothing("²")],
    ["x!, 0", 1, nothing("!")],
    ["x % 2, 0", 2, nothing("%")],
    ["|x|, 0", 0, nothing("|")],
    ["x.y, 0", 0, '"x.y" is no part of a formula'],
    ["0, 1 + x [0]", 7, '"x [0]" is no part of a formula'],
    ["[x]*2, 0", 0, '"[x]" is no part of a formula'],
    ["x^y, 0", 2, "an exponent that varies stands on a positive number alone; write exp(y*log(x)) for x^y"],
    ["(-2)^y, 0", 5, "an exponent that varies stands on a positive number alone; write exp(y*log(x)) for x^y"],
    ["x^65, 0", 2, "the exponent is 65; its size may be from 0.001 to 64"],
    ["y, x/(2 - 2)", 5, "this divides by 0"],
    ["y, x/(y - y)", 5, "this divides by 0"],
    ["log(-1), x", 0, "log(-1) is no finite number"],
    ["0^-1, x", 2, "0^-1 is no finite number"],
    ["y, 1e39*x", 3, "this comes to 1e+39; numbers go up to 3.4e38"],
  ];
  test.for(cases)("%s", ([text, index, message]) => {
    expect(errorOf(text)).toMatchObject({ name: "FormulaError", index, message });
  });

  test("and nothing is taken for JavaScript", () => {
    const alert = vi.fn<() => void>();
    vi.stubGlobal("alert", alert);
    const texts =
      "constructor|__proto__|x.constructor|x.constructor.constructor(1)|alert(1)|alert()|window|globalThis|this|this.alert(1)|x[0]|[x][0]|hasOwnProperty(x)|toString()|valueOf(x)|constructor(1)|sin.constructor(x)|sin.call(x)|eval(x)|import(x)|true|null|undefined|NaN|Infinity|`x`|x=>x|new x|x;alert(1)|{}|$|0x10|1n|/x/";
    for (const text of texts.split("|"))
      for (const whole of [text, `x, ${text}`]) expect(errorOf(whole), whole).toBeInstanceOf(FormulaError);
    expect(alert).not.toHaveBeenCalled();
    vi.unstubAllGlobals();
  });

  function divergenceAt1(network: Network): Float64Array {
    return evaluateReference(network, new Float64Array(network.stateSize).fill(1), { context: network.contextSize > 0 ? [1] : null })
      .divergence!;
  }

  function errorOf(text: string): unknown {
    try {
      return parseFormula(text);
    } catch (error) {
      return error;
    }
  }

  test("and all else that fingers can do, whole or not, without any other error", () => {
    const uniform = random(7);
    const pieces = [
      "x",
      "y",
      "t",
      "x1",
      "e",
      "2",
      ".5",
      "1e",
      "+",
      "-",
      "*",
      "/",
      "^",
      "**",
      "(",
      ")",
      "[",
      "]",
      ",",
      ",",
      ";",
      "\n",
      " ",
      ".",
      "sin(",
      "max(",
      "foo",
      "?",
    ];
    let taken = 0;
    for (let run = 0; run < 20_000; run++) {
      const text = Array.from({ length: 1 + Math.floor(uniform() * 10) }, () => pieces[Math.floor(uniform() * pieces.length)]).join("");
      const found = errorOf(text);
      if (!(found instanceof Error)) {
        taken++;
        continue;
      }
      expect(found, JSON.stringify(text)).toBeInstanceOf(FormulaError);
      expect((found as FormulaError).index, JSON.stringify(text)).toBeGreaterThanOrEqual(0);
      expect((found as FormulaError).index, JSON.stringify(text)).toBeLessThanOrEqual(text.length);
    }
    expect(taken).toBeGreaterThan(500);
  });

  test("long and deep texts take less than a second, whether they are taken or not", () => {
    const most = (part: string, rest = ""): string => part.repeat(Math.floor((10_000 - rest.length) / part.length)) + rest;
    const sines = Array.from({ length: 1000 }, (_, k) => `sin(${k}*x)`)
      .join("+")
      .slice(0, 9_990)
      .replace(/\+[^+]*$/, "");
    const taken = [
      most("x+", "x"),
      most("x*(1+x)+", "1"),
      sines,
      most("(x*y+t)*sin(x)-", "1,0"),
      most(" ", "x"),
      most("\n", "x"),
      `${"(".repeat(90)}x${")".repeat(90)}`,
      Array<string>(150).fill("x").join("*y*") + ",0",
    ];
    const refused = [
      most("("),
      "(".repeat(5000) + ")".repeat(5000),
      `${"(".repeat(4900)}x${")".repeat(4900)}+1`,
      most("-", "x"),
      most("2^", "x"),
      most("x^", "2"),
      most("x*y*", "x,0"),
      most("sin("),
      most(","),
      most("x,"),
      most("\n"),
      most("[x,"),
      most("1"),
      most("x"),
      most(" x"),
      most("x", "x"),
    ];
    for (const text of [...taken, ...refused]) {
      const started = performance.now();
      const found = errorOf(text);
      expect(performance.now() - started, text.slice(0, 20)).toBeLessThan(1000);
      if (refused.includes(text)) expect(found, text.slice(0, 20)).toBeInstanceOf(FormulaError);
      else expect(divergenceAt1(found as Network), text.slice(0, 20)).toHaveLength(1);
    }
    expect(errorOf("x".repeat(10_001))).toMatchObject({ message: "the formula has 10001 characters; at most 10000 are taken" });
  });
});

describe("every engine computes them", () => {
  let device: GPUDevice;
  let close: () => Promise<void>;
  beforeAll(async () => ({ device, close } = await openDevice()));
  afterAll(() => close());

  const texts = {
    ...formulas,
    constants: "1, 0",
    line: "x*sin(x)",
    "all sorts": "max(x, y)*exp(-x^2/2) - 2^y, (1 + x^2)^1.5/(2 + cos(3*y)) + t*erf(y) + min(y, 1)",
  };

  test.for(Object.entries(texts))("%s", async ([, text]) => {
    const network = parseFormula(text);
    const { stateSize: d, contextSize } = network;
    const points = randomPoints(3, 64, d);
    const context = contextSize > 0 ? Float32Array.of(0.75) : null;
    const truth = evaluateReference(network, points, { context, outputs: ["value", "jacobian"] });
    const divergence = Float64Array.from({ length: 64 }, (_, point) => sum(d, (i) => truth.jacobian![(point * d + i) * d + i]!));
    const scale = divergence.map((_, point) => sum(d, (i) => Math.abs(truth.jacobian![(point * d + i) * d + i]!)));
    const sizes = truth.value!.map(
      (_, index) =>
        Math.abs(truth.value![index]!) + sum(d, (j) => Math.abs(truth.jacobian![index * d + j]! * points[index - (index % d) + j]!)),
    );

    const field = await VectorField.create(device, network);
    const onGpu = await field.evaluate(points, { context });
    field.destroy();
    expectClose(onGpu.divergence, divergence, scale, { label: "divergence on the GPU" });
    expectClose(onGpu.value, truth.value!, sizes, { label: "value on the GPU" });

    const model = await openModel(toOnnx(network, { contextPer: "batch" }), d, contextSize);
    const results = await model.run(points, context);
    await model.release();
    expectClose(results["divergence"]!.data, divergence, scale, { label: "divergence by onnxruntime" });
    expectClose(results["value"]!.data, truth.value!, sizes, { label: "value by onnxruntime" });
  });
});

function sum(count: number, term: (i: number) => number): number {
  return Array.from({ length: count }, (_, i) => term(i)).reduce((total, each) => total + each, 0);
}
