import { largestClip, type Activation } from "../model/activation.js";
import type { Nodes } from "./nodes.js";

/** σ, σ' or σ'' of a tensor z and of the activation's parameters. */
type Formula = (of: Formulas, z: string, p: number, q: number) => string;

interface Row {
  /** By ONNX's own operator, or as PyTorch's exporter writes it, which readers recognise. */
  readonly value: Formula;
  readonly slope: Formula;
  readonly curvature: Formula;
}

type Operand = string | number;

/** The operators that formulas are made of. */
class Formulas {
  constructor(readonly nodes: Nodes) {}

  readonly add = (a: Operand, b: Operand): string => this.nodes.op("Add", [a, b]);
  readonly sub = (a: Operand, b: Operand): string => this.nodes.op("Sub", [a, b]);
  readonly mul = (a: Operand, b: Operand): string => this.nodes.op("Mul", [a, b]);
  readonly div = (a: Operand, b: Operand): string => this.nodes.op("Div", [a, b]);
  readonly exp = (a: string): string => this.nodes.op("Exp", [a]);
  readonly abs = (a: string): string => this.nodes.op("Abs", [a]);
  readonly neg = (a: string): string => this.nodes.op("Neg", [a]);
  readonly sign = (a: string): string => this.nodes.op("Sign", [a]);
  readonly sqrt = (a: string): string => this.nodes.op("Sqrt", [a]);
  readonly less = (a: Operand, b: Operand): string => this.nodes.op("Less", [a, b]);
  readonly greater = (a: Operand, b: Operand): string => this.nodes.op("Greater", [a, b]);
  readonly where = (condition: string, a: Operand, b: Operand): string => this.nodes.op("Where", [condition, a, b]);
  readonly square = (a: string): string => this.mul(a, a);
  readonly reciprocal = (a: string): string => this.nodes.op("Reciprocal", [a]);
  /** Within bounds, of which Clip takes any, and NaN through it. */
  readonly clip = (a: string, least: number, most: number): string => this.nodes.op("Clip", [a, least, most]);
  /** A constant where z > 0 and another elsewhere, NaN where z is: comparisons do not tell that from any number. */
  readonly stepAbove = (z: string, above: number, elsewhere: number): string =>
    this.where(this.greater(z, 0), above, elsewhere === 0 ? this.zero(z) : this.add(this.zero(z), elsewhere));
  /** 0 in the shape of a tensor, NaN where that is not finite. */
  readonly zero = (z: string): string => this.mul(z, 0);

  /** e^-|z|, which never overflows. */
  readonly decay = (z: string): string => this.exp(this.neg(this.abs(z)));

  /** 1 / (1 + e^-z), whose tail an operator may cut off. Where e^-z overflows, it is 0. */
  logistic(z: string): string {
    // Of the exponential that slopes are made of.
    return this.reciprocal(this.add(this.reciprocal(this.exp(z)), 1));
  }

  /** 1 / (e^z + e^-z + 2): sums of what is positive, so that nothing cancels; 0 where one of them overflows. */
  logisticSlope(z: string): string {
    return this.reciprocal(this.add(this.sumOfExponentials(z), 2));
  }

  /** e^z + e^-z */
  sumOfExponentials(z: string): string {
    const e = this.exp(z);
    return this.add(e, this.reciprocal(e));
  }

  tanhOfHalf(z: string): string {
    return this.byOperator("Tanh", this.mul(z, 0.5));
  }

  logisticCurvature(z: string): string {
    return this.neg(this.mul(this.logisticSlope(z), this.tanhOfHalf(z)));
  }

  /** What an operator's attribute scales or bounds. */
  readonly byOperator = (type: string, z: string, attributes: Readonly<Record<string, number>> = {}): string =>
    this.nodes.op(type, [z], Object.fromEntries(Object.entries(attributes).map(([name, float]) => [name, { float }])));

  isWithin(z: string, least: number, most: number): string {
    return this.nodes.op("And", [this.greater(z, least), this.less(z, most)]);
  }

  /** φ(z) of the normal distribution. */
  normalDensity(z: string): string {
    return this.mul(this.exp(this.mul(this.square(z), -0.5)), 1 / Math.sqrt(2 * Math.PI));
  }
}

const straight: Formula = (of, z) => of.zero(z);

function steps(value: Formula): Row {
  return { value, slope: straight, curvature: straight };
}

/** A function whose own operator has its name, or this one. */
function operator(type: string): Formula {
  return (of, z) => of.byOperator(type, z);
}

const seluScale = 1.0507009873554805;
const seluScaleAlpha = 1.7580993408473766;

/** Beyond this |z| the normal density is 0 in float32. */
const geluLimit = 15;
/** Beyond this |z| gelu_tanh is 0 or z; z³ is held there. */
const geluTanhLimit = 30;
const geluTanhSlope = Math.sqrt(2 / Math.PI);
const geluTanhCubic = 0.044715;

/** 1 beyond this u in float32: softplus(u) is u there, whatever its threshold. */
const softplusLimit = 17;

/** Beyond this |z| mish's curvature is 0 in float32. */
const mishLimit = 100;

/** What is smaller may be taken for 0. */
const tiny = 1.17549435e-38;
/** Beyond it 1/z is. */
const mostInverted = 8.5070592e37;
/** From here on z² + 1 is z². */
const far = 1e9;

const rows: Readonly<Record<string, Row>> = {
  identity: { value: (of, z) => of.nodes.op("Identity", [z]), slope: (of, z) => of.add(of.zero(z), 1), curvature: straight },
  relu: { value: operator("Relu"), slope: (of, z) => of.stepAbove(z, 1, 0), curvature: straight },
  leaky_relu: {
    value: (of, z, alpha) => of.byOperator("LeakyRelu", z, { alpha }),
    slope: (of, z, alpha) => of.stepAbove(z, 1, alpha),
    curvature: straight,
  },
  relu6: { value: (of, z) => of.clip(z, 0, 6), slope: (of, z) => of.where(of.isWithin(z, 0, 6), 1, of.zero(z)), curvature: straight },
  elu: {
    value: (of, z, alpha) => of.byOperator("Elu", z, { alpha }),
    slope: (of, z, alpha) => of.where(of.greater(z, 0), 1, of.mul(of.decay(z), alpha)),
    curvature: (of, z, alpha) => of.where(of.less(z, 0), of.mul(of.decay(z), alpha), 0),
  },
  selu: {
    value: (of, z) => of.byOperator("Selu", z, { alpha: seluScaleAlpha / seluScale, gamma: seluScale }),
    slope: (of, z) => of.where(of.greater(z, 0), seluScale, of.mul(of.decay(z), seluScaleAlpha)),
    curvature: (of, z) => of.where(of.less(z, 0), of.mul(of.decay(z), seluScaleAlpha), 0),
  },
  celu: {
    value: (of, z, alpha) => of.byOperator("Celu", z, { alpha }),
    slope: (of, z, alpha) => of.where(of.greater(z, 0), 1, exponential(of, z, alpha)),
    curvature: (of, z, alpha) => of.where(of.less(z, 0), of.div(exponential(of, z, alpha), alpha), 0),
  },
  gelu: {
    value: (of, z) => of.mul(of.mul(z, of.add(erfOfRoot(of, z), 1)), 0.5),
    slope: (of, z) => of.add(of.mul(of.add(erfOfRoot(of, z), 1), 0.5), of.mul(z, of.normalDensity(z))),
    curvature: (of, z) => {
      const x = of.clip(z, -geluLimit, geluLimit);
      return of.mul(of.normalDensity(x), of.sub(2, of.square(x)));
    },
  },
  gelu_tanh: {
    value: (of, z) => {
      const cubic = of.mul(of.nodes.op("Pow", [z, 3]), geluTanhCubic);
      return of.mul(of.mul(z, of.add(of.byOperator("Tanh", of.mul(of.add(z, cubic), geluTanhSlope)), 1)), 0.5);
    },
    slope: (of, z) => {
      const { u, slope } = geluTanhParts(of, z);
      return of.add(of.logistic(u), of.mul(z, of.mul(of.logisticSlope(u), slope)));
    },
    curvature: (of, z) => {
      const { x, squared, u, slope } = geluTanhParts(of, z);
      const bend = of.mul(of.add(of.mul(squared, 6 * geluTanhCubic), 1), 4 * geluTanhSlope);
      return of.mul(of.logisticSlope(u), of.sub(bend, of.mul(of.mul(x, of.square(slope)), of.tanhOfHalf(u))));
    },
  },
  silu: {
    value: (of, z) => of.mul(z, of.byOperator("Sigmoid", z)),
    slope: (of, z) => of.add(of.logistic(z), of.mul(z, of.logisticSlope(z))),
    curvature: (of, z) => of.mul(of.logisticSlope(z), of.sub(2, of.mul(z, of.tanhOfHalf(z)))),
  },
  mish: {
    value: (of, z) => of.mul(z, of.byOperator("Tanh", of.byOperator("Softplus", z))),
    slope: (of, z) => {
      const { t, tanh, factor } = mishParts(of, z);
      return of.add(tanh, of.mul(of.mul(z, factor), of.add(t, 1)));
    },
    curvature: (of, z) => {
      const { t, isPositive, denominator, factor } = mishParts(of, z);
      const [t2, twice] = [of.square(t), of.add(t, t)];
      const above = of.sub(of.mul(of.mul(t2, 2), of.add(t, 1)), of.add(of.mul(t, 3), 2));
      const below = of.sub(of.add(twice, 2), of.mul(t2, of.add(twice, 3)));
      const bend = of.where(isPositive, above, below);
      const x = of.clip(z, -mishLimit, mishLimit);
      return of.mul(factor, of.add(of.add(twice, 2), of.mul(x, of.div(bend, denominator))));
    },
  },
  sigmoid: {
    value: operator("Sigmoid"),
    slope: (of, z) => of.logisticSlope(z),
    curvature: (of, z) => of.logisticCurvature(z),
  },
  hardsigmoid: {
    value: (of, z) => of.byOperator("HardSigmoid", z, { alpha: 1 / 6, beta: 0.5 }),
    slope: (of, z) => of.where(of.isWithin(z, -3, 3), 1 / 6, of.zero(z)),
    curvature: straight,
  },
  hardswish: {
    value: (of, z) => of.mul(z, of.byOperator("HardSigmoid", z, { alpha: 1 / 6, beta: 0.5 })),
    slope: (of, z) => of.where(of.isWithin(z, -3, 3), of.add(of.mul(z, 1 / 3), 0.5), of.stepAbove(z, 1, 0)),
    curvature: (of, z) => of.where(of.isWithin(z, -3, 3), 1 / 3, 0),
  },
  hardtanh: { value: (of, z) => of.clip(z, -1, 1), slope: (of, z) => of.where(of.isWithin(z, -1, 1), 1, of.zero(z)), curvature: straight },
  tanh: {
    value: operator("Tanh"),
    // 4 / (e^z + e^-z)²
    slope: (of, z) => of.div(4, of.square(of.sumOfExponentials(z))),
    curvature: (of, z) => of.mul(of.logisticCurvature(of.add(z, z)), 8),
  },
  softsign: {
    value: operator("Softsign"),
    slope: (of, z) => of.square(softsignPart(of, z)),
    curvature: (of, z) => of.mul(of.mul(of.sign(z), -2), of.mul(softsignPart(of, z), of.square(softsignPart(of, z)))),
  },
  softplus: {
    value: (of, z, beta, threshold) => {
      const u = beta === 1 ? z : of.mul(z, beta);
      const curved = of.byOperator("Softplus", u);
      const scaled = beta === 1 ? curved : of.div(curved, beta);
      // Also where u alone overflows.
      const isCut = threshold < softplusLimit || Math.abs(beta) > 1;
      return isCut ? of.where(of.greater(u, Math.min(threshold, 2 * softplusLimit)), z, scaled) : scaled;
    },
    slope: (of, z, beta, threshold) => {
      const u = beta === 1 ? z : of.mul(z, beta);
      return threshold < softplusLimit ? of.where(of.greater(u, threshold), 1, of.logistic(u)) : of.logistic(u);
    },
    curvature: (of, z, beta, threshold) => {
      const u = beta === 1 ? z : of.mul(z, beta);
      return of.where(of.less(u, threshold), of.mul(of.logisticSlope(u), beta), 0);
    },
  },
  sin: {
    value: (of, z, omega) => of.byOperator("Sin", scaled(of, z, omega)),
    slope: (of, z, omega) => scaled(of, of.byOperator("Cos", scaled(of, z, omega)), omega),
    curvature: (of, z, omega) => of.mul(of.byOperator("Sin", scaled(of, z, omega)), -omega * omega),
  },
  cos: {
    value: operator("Cos"),
    slope: (of, z) => of.neg(of.byOperator("Sin", z)),
    curvature: (of, z) => of.neg(of.byOperator("Cos", z)),
  },
  tan: {
    value: operator("Tan"),
    slope: (of, z) => of.add(of.square(of.byOperator("Tan", z)), 1),
    curvature: (of, z) => {
      const y = of.byOperator("Tan", z);
      return of.mul(of.add(y, y), of.add(of.square(y), 1));
    },
  },
  asin: {
    value: operator("Asin"),
    slope: (of, z) => of.reciprocal(of.sqrt(beside1(of, z))),
    curvature: (of, z) => of.div(z, of.mul(beside1(of, z), of.sqrt(beside1(of, z)))),
  },
  atan: {
    value: operator("Atan"),
    slope: (of, z) => of.reciprocal(of.add(of.square(z), 1)),
    curvature: (of, z) => {
      const slope = of.reciprocal(of.add(of.square(z), 1));
      return of.mul(of.mul(of.mul(z, slope), slope), -2);
    },
  },
  sinh: { value: operator("Sinh"), slope: operator("Cosh"), curvature: operator("Sinh") },
  cosh: { value: operator("Cosh"), slope: operator("Sinh"), curvature: operator("Cosh") },
  asinh: {
    value: operator("Asinh"),
    slope: (of, z) => undefinedWhere(of, of.greater(of.abs(z), mostInverted), asinhSlope(of, z)),
    curvature: (of, z) => {
      const slope = asinhSlope(of, z);
      const part = of.where(of.greater(of.abs(z), far), of.sign(z), of.mul(of.clip(z, -far, far), slope));
      return ofTail(of, of.neg(of.mul(part, of.square(slope))), of.square(slope));
    },
  },
  acosh: {
    value: operator("Acosh"),
    slope: (of, z) => undefinedWhere(of, of.greater(z, mostInverted), acoshSlope(of, z)),
    curvature: (of, z) => {
      const slope = acoshSlope(of, z);
      return ofTail(of, of.neg(of.mul(of.mul(of.mul(z, slope), slope), slope)), of.square(slope));
    },
  },
  atanh: {
    value: operator("Atanh"),
    slope: (of, z) => undefinedWhere(of, of.greater(of.abs(z), 1), of.reciprocal(beside1(of, z))),
    curvature: (of, z) => undefinedWhere(of, of.greater(of.abs(z), 1), of.div(of.add(z, z), of.square(beside1(of, z)))),
  },
  exp: { value: operator("Exp"), slope: operator("Exp"), curvature: operator("Exp") },
  log: {
    value: operator("Log"),
    slope: (of, z) => undefinedWhere(of, of.nodes.op("Or", [of.less(z, 0), of.greater(z, mostInverted)]), of.reciprocal(z)),
    curvature: (of, z) => {
      const squared = of.square(of.reciprocal(z));
      return undefinedWhere(of, of.less(z, 0), ofTail(of, of.neg(squared), squared));
    },
  },
  sqrt: {
    value: operator("Sqrt"),
    slope: (of, z) => of.add(of.div(0.5, of.sqrt(z)), of.zero(z)),
    curvature: (of, z) => ofTail(of, of.div(-0.25, of.mul(z, of.sqrt(z)))),
  },
  reciprocal: {
    value: operator("Reciprocal"),
    slope: (of, z) => ofTail(of, of.neg(of.square(of.reciprocal(z)))),
    curvature: (of, z) => {
      const cube = of.mul(of.reciprocal(z), of.square(of.reciprocal(z)));
      return ofTail(of, of.mul(cube, 2), cube);
    },
  },
  square: { value: (of, z) => of.square(z), slope: (of, z) => of.add(z, z), curvature: (of, z) => of.add(of.zero(z), 2) },
  power: {
    value: (of, z, exponent) => of.nodes.op("Pow", [z, exponent]),
    slope: (of, z, exponent) => powerTail(of, z, exponent, exponent - 1),
    curvature: (of, z, exponent) => (exponent === 1 ? of.zero(z) : powerTail(of, z, exponent * (exponent - 1), exponent - 2)),
  },
  abs: { value: operator("Abs"), slope: operator("Sign"), curvature: straight },
  erf: {
    value: operator("Erf"),
    slope: (of, z) => of.mul(of.exp(of.neg(of.square(z))), 2 / Math.sqrt(Math.PI)),
    curvature: (of, z) => of.mul(of.mul(z, of.exp(of.neg(of.square(z)))), -4 / Math.sqrt(Math.PI)),
  },
  clip: {
    value: (of, z, min, max) => of.clip(z, Math.min(min, max), max),
    slope: (of, z, min, max) => {
      const bounds = [
        ...(min > -largestClip ? [of.nodes.op("GreaterOrEqual", [z, min])] : []),
        ...(max < largestClip ? [of.nodes.op("LessOrEqual", [z, max])] : []),
      ];
      const [first, second] = bounds;
      if (first === undefined) return of.add(of.zero(z), 1);
      return of.where(second === undefined ? first : of.nodes.op("And", [first, second]), 1, of.zero(z));
    },
    curvature: straight,
  },
  floor: steps(operator("Floor")),
  ceil: steps(operator("Ceil")),
  round: steps(operator("Round")),
  trunc: steps((of, z) => of.mul(of.sign(z), of.byOperator("Floor", of.abs(z)))),
  sign: steps(operator("Sign")),
};

/** e^(z/α) for z < 0. */
function exponential(of: Formulas, z: string, alpha: number): string {
  return of.exp(of.div(of.nodes.op("Min", [z, 0]), alpha));
}

function erfOfRoot(of: Formulas, z: string): string {
  return of.byOperator("Erf", of.mul(z, Math.SQRT1_2));
}

/** u = 2√(2/π) (x + 0.044715 x³), where gelu_tanh is z logistic(u), and ∂u/∂x. */
function geluTanhParts(of: Formulas, z: string): Record<"x" | "squared" | "u" | "slope", string> {
  const x = of.clip(z, -geluTanhLimit, geluTanhLimit);
  const squared = of.square(x);
  const u = of.mul(of.mul(x, of.add(of.mul(squared, geluTanhCubic), 1)), 2 * geluTanhSlope);
  return { x, squared, u, slope: of.mul(of.add(of.mul(squared, 3 * geluTanhCubic), 1), 2 * geluTanhSlope) };
}

/** tanh(softplus(z)) and its slope but for 1 + t, with t = e^-|z|. */
function mishParts(of: Formulas, z: string): Record<"t" | "isPositive" | "tanh" | "denominator" | "factor", string> {
  const t = of.decay(z);
  const isPositive = of.greater(z, 0);
  const [t2, twice] = [of.square(t), of.add(t, t)];
  const above = of.add(twice, 1);
  const below = of.add(t2, twice);
  const denominator = of.where(isPositive, of.add(above, of.add(t2, t2)), of.add(below, 2));
  const tanh = of.div(of.where(isPositive, above, below), denominator);
  const factor = of.div(of.mul(of.where(isPositive, t2, t), 4), of.square(denominator));
  return { t, isPositive, tanh, denominator, factor };
}

function softsignPart(of: Formulas, z: string): string {
  return of.reciprocal(of.add(of.abs(z), 1));
}

function scaled(of: Formulas, z: string, factor: number): string {
  return factor === 1 ? z : of.mul(z, factor);
}

/** (1 - z)(1 + z). */
function beside1(of: Formulas, z: string): string {
  return of.mul(of.sub(1, z), of.add(z, 1));
}

function acoshSlope(of: Formulas, z: string): string {
  return of.reciprocal(of.mul(of.sqrt(of.sub(z, 1)), of.sqrt(of.add(z, 1))));
}

/** Of asinh. */
function asinhSlope(of: Formulas, z: string): string {
  const x = of.clip(z, -far, far);
  return of.reciprocal(of.where(of.greater(of.abs(z), far), of.abs(z), of.sqrt(of.add(of.square(x), 1))));
}

/** factor z^exponent, of which far from 0 nothing is left where the exponent is negative. */
function powerTail(of: Formulas, z: string, factor: number, exponent: number): string {
  const power = of.nodes.op("Pow", [z, exponent]);
  const product = of.mul(power, factor);
  if (exponent >= 0 || factor === 0) return product;
  const least = of.nodes.op("Min", [of.abs(power), of.abs(product)]);
  return undefinedWhere(of, of.nodes.op("And", [of.greater(of.abs(z), 1), of.less(least, tiny)]), product);
}

/**
 * NaN where what falls as a power of z may be taken for 0, as in the shaders: it meets the square of a derivative that may be as large as it
 * is small.
 */
function ofTail(of: Formulas, value: string, part = value): string {
  return undefinedWhere(of, of.less(of.abs(part), tiny), value);
}

function undefinedWhere(of: Formulas, condition: string, value: string): string {
  return of.where(condition, NaN, value);
}

/** The tail of the normal distribution beyond |z|, and e^(-z²/2), as in shaders/lib/special.wgsl: relative error 5e-7. */
function normalTail(of: Formulas, z: string): Record<"size" | "density" | "tail", string> {
  const size = of.abs(z);
  const density = of.exp(of.mul(of.square(of.clip(size, 0, geluLimit)), -0.5));
  const r = of.reciprocal(of.add(of.mul(of.clip(size, 0, 13.2), 0.3), 1));
  const s = of.sub(1, of.add(r, r));
  const [first, second, ...others] = normalTailCoefficients;
  const polynomial = others.reduce((sum, coefficient) => of.add(of.mul(sum, s), coefficient), of.add(of.mul(s, first), second));
  return { size, density, tail: of.mul(of.mul(density, r), polynomial) };
}

/** From s⁸ to 1. */
const normalTailCoefficients = [
  0.00000295742377, -0.000282676415, -0.000515624375, 0.00243745668, 0.00180305849, -0.027763705, 0.0865507879, -0.164579316, 0.221970598,
] as const;

/** Where ONNX's operators lose a tail, or runtimes do: those of onnxruntime end at 6e-8. */
const exactRows: Readonly<Record<string, Partial<Row>>> = {
  gelu: {
    value: (of, z) => {
      const { size, tail } = normalTail(of, z);
      return of.sub(of.byOperator("Relu", z), of.mul(size, tail));
    },
    slope: (of, z) => {
      const { density, tail } = normalTail(of, z);
      const factor = of.mul(of.clip(z, -geluLimit, geluLimit), 1 / Math.sqrt(2 * Math.PI));
      return of.add(of.where(of.greater(z, 0), of.sub(1, tail), tail), of.mul(factor, density));
    },
  },
  gelu_tanh: { value: (of, z) => of.mul(z, of.logistic(geluTanhParts(of, z).u)) },
  silu: { value: (of, z) => of.mul(z, of.logistic(z)) },
  sigmoid: { value: (of, z) => of.logistic(z) },
};

/** σ, σ' and σ'' of a tensor, out of standard operators, in the forms that the shaders use. */
export function activationNodes(nodes: Nodes, activation: Activation, what: keyof Row, z: string): string {
  const [p = NaN, q = NaN] = activation.parameters;
  const formula = (nodes.isOwn ? exactRows[activation.name]?.[what] : undefined) ?? rows[activation.name]![what];
  return formula(new Formulas(nodes), z, p, q);
}
