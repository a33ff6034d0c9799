import { ModelError, quote } from "../errors.js";
import { roundToEven } from "./float16.js";

/** An activation σ with its parameters. Formulas, defaults and derivatives at kinks are PyTorch's. */
export interface Activation {
  /** One of {@link activationNames}. */
  readonly name: string;
  /** All of them, in PyTorch's order, defaults included. */
  readonly parameters: readonly number[];
  /** As {@link mlp} reads it back: "elu(0.5)", and "elu" where every parameter has its default. */
  toString(): string;
}

/** A function of z and of the activation's parameters; none has more than two. */
type ParameterisedFunction = (z: number, p: number, q: number) => number;

interface Parameter {
  readonly name: string;
  readonly default: number;
  /** The magnitudes admitted. */
  readonly least: number;
  readonly most: number;
}

interface Row {
  /** PyTorch's class and the name of the ONNX operator, where they are not `name` itself; case does not matter. */
  readonly aliases?: readonly string[];
  readonly parameters?: readonly Parameter[];
  /** σ(z) in float64. */
  readonly value: ParameterisedFunction;
  /** σ'(z) in float64; PyTorch's at a kink. */
  readonly slope: ParameterisedFunction;
  /** σ''(z) in float64; PyTorch's where σ or σ' has a kink, which is 0 or that of one side. */
  readonly curvature: ParameterisedFunction;
  /** Where σ or σ' jumps, of infinitely many such places those next to `near`; nowhere if left out. */
  readonly kinks?: (p: number, q: number, near: number) => readonly number[];
  /** The function in shaders/lib/activations.wgsl, and its arguments after z; `name` and the parameters if left out. */
  readonly wgsl?: string;
  readonly wgslArguments?: (p: number, q: number) => readonly string[];
  /** Those of the function in shaders/lib/curvatures.wgsl, named after the former; the same ones if left out. */
  readonly curvatureArguments?: (p: number, q: number) => readonly string[];
}

/** The curvature of what consists of straight pieces, at their ends too: there is no function for it in the shaders. */
const straight: ParameterisedFunction = () => 0;

function parameter(name: string, value: number, least = 0, most = 1e30): Parameter {
  return { name, default: value, least, most };
}

/** A step function, whose slope and curvature are PyTorch's, 0, at the jumps too. */
function steps(value: (z: number) => number, wgsl: string, jumpsNear: (z: number) => readonly number[]): Row {
  return {
    value,
    slope: () => 0,
    curvature: straight,
    kinks: (_p, _q, near) => jumpsNear(near),
    wgsl: "stepped",
    wgslArguments: () => [wgsl],
  };
}

function integersBeside(z: number): readonly number[] {
  return [Math.floor(z), Math.ceil(z)];
}

/** The default of clip on both sides, the largest float32: none. */
export const largestClip = 3.4028234663852886e38;

export const seluScale = 1.0507009873554805;
export const seluScaleAlpha = 1.7580993408473766;

/** Each formula is PyTorch's, written so that it neither overflows nor cancels; the shaders use the same forms. */
const rows: Readonly<Record<string, Row>> = {
  identity: {
    value: (z) => z,
    slope: () => 1,
    curvature: straight,
  },
  relu: {
    value: (z) => Math.max(z, 0),
    slope: (z) => (z > 0 ? 1 : 0),
    curvature: straight,
    kinks: () => [0],
  },
  leaky_relu: {
    aliases: ["LeakyReLU"],
    parameters: [parameter("slope", 0.01)],
    value: (z, slope) => (z > 0 ? z : slope * z),
    slope: (z, slope) => (z > 0 ? 1 : slope),
    curvature: straight,
    kinks: (slope) => (slope === 1 ? [] : [0]),
  },
  relu6: {
    value: (z) => Math.min(Math.max(z, 0), 6),
    slope: (z) => (z > 0 && z < 6 ? 1 : 0),
    curvature: straight,
    kinks: () => [0, 6],
  },
  elu: {
    parameters: [parameter("alpha", 1)],
    value: (z, alpha) => (z > 0 ? z : alpha * Math.expm1(z)),
    slope: (z, alpha) => (z > 0 ? 1 : alpha * Math.exp(z)),
    curvature: (z, alpha) => (z < 0 ? alpha * Math.exp(z) : 0),
    kinks: (alpha) => (alpha === 1 ? [] : [0]),
  },
  selu: {
    value: (z) => (z > 0 ? seluScale * z : seluScaleAlpha * Math.expm1(z)),
    slope: (z) => (z > 0 ? seluScale : seluScaleAlpha * Math.exp(z)),
    curvature: (z) => (z < 0 ? seluScaleAlpha * Math.exp(z) : 0),
    kinks: () => [0],
  },
  celu: {
    parameters: [parameter("alpha", 1, 1e-30)],
    value: (z, alpha) => (z > 0 ? z : alpha * Math.expm1(z / alpha)),
    slope: (z, alpha) => (z > 0 ? 1 : Math.exp(z / alpha)),
    curvature: (z, alpha) => (z < 0 ? Math.exp(z / alpha) / alpha : 0),
  },
  gelu: {
    value: (z) => Math.max(z, 0) - Math.abs(z) * normalTail(Math.abs(z)),
    slope: (z) => {
      const tail = normalTail(Math.abs(z));
      return (z > 0 ? 1 - tail : tail) + z * normalDensity(z);
    },
    curvature: (z) => {
      const x = Math.min(Math.abs(z), geluLimit);
      return normalDensity(x) * (2 - x * x);
    },
  },
  gelu_tanh: {
    value: (z) => z * logistic(geluTanhArgument(z)),
    slope: (z) => {
      const x = Math.min(Math.abs(z), geluTanhLimit);
      const slope = 2 * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x * x);
      const u = geluTanhArgument(z);
      return logistic(u) + z * logisticDerivative(u) * slope;
    },
    curvature: (z) => {
      const x = Math.min(Math.abs(z), geluTanhLimit);
      const slope = 2 * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x * x);
      const u = geluTanhArgument(x);
      return logisticDerivative(u) * (4 * Math.sqrt(2 / Math.PI) * (1 + 6 * 0.044715 * x * x) - x * slope * slope * tanhOfHalf(u));
    },
  },
  silu: {
    aliases: ["Swish"],
    value: (z) => z * logistic(z),
    slope: (z) => logistic(z) + z * logisticDerivative(z),
    curvature: (z) => logisticDerivative(z) * (2 - z * tanhOfHalf(z)),
  },
  mish: {
    value: (z) => z * tanhOfSoftplus(z),
    slope: (z) => {
      const t = Math.exp(-Math.abs(z));
      const denominator = z > 0 ? 1 + 2 * t + 2 * t * t : t * t + 2 * t + 2;
      const slope = (4 * t * (z > 0 ? t : 1) * (1 + t)) / (denominator * denominator);
      return tanhOfSoftplus(z) + z * slope;
    },
    curvature: (z) => {
      const t = Math.exp(-Math.abs(z));
      const denominator = z > 0 ? 1 + 2 * t + 2 * t * t : t * t + 2 * t + 2;
      const bend = z > 0 ? 2 * t * t * (1 + t) - 3 * t - 2 : 2 + 2 * t - t * t * (3 + 2 * t);
      const factor = (4 * t * (z > 0 ? t : 1)) / (denominator * denominator);
      return factor * 2 * (1 + t) + factor * z * (bend / denominator);
    },
  },
  sigmoid: {
    value: logistic,
    slope: logisticDerivative,
    curvature: logisticCurvature,
  },
  // PyTorch's slope of 1/6; the ONNX operator of this name has a slope attribute of 0.2 unless the file says otherwise.
  hardsigmoid: {
    value: (z) => Math.min(Math.max((z + 3) / 6, 0), 1),
    slope: (z) => (Math.abs(z) < 3 ? 1 / 6 : 0),
    curvature: straight,
    kinks: () => [-3, 3],
  },
  hardswish: {
    value: (z) => (z <= -3 ? 0 : z < 3 ? (z * (z + 3)) / 6 : z),
    slope: (z) => (z <= -3 ? 0 : z < 3 ? z / 3 + 0.5 : 1),
    curvature: (z) => (Math.abs(z) < 3 ? 1 / 3 : 0),
    kinks: () => [-3, 3],
  },
  hardtanh: {
    value: (z) => Math.min(Math.max(z, -1), 1),
    slope: (z) => (Math.abs(z) < 1 ? 1 : 0),
    curvature: straight,
    kinks: () => [-1, 1],
  },
  tanh: {
    value: (z) => Math.tanh(z),
    slope: (z) => 4 * logisticDerivative(2 * z),
    curvature: (z) => 8 * logisticCurvature(2 * z),
    wgsl: "hyperbolic_tangent",
  },
  softsign: {
    value: (z) => z / (1 + Math.abs(z)),
    slope: (z) => 1 / (1 + Math.abs(z)) ** 2,
    curvature: (z) => (-2 * Math.sign(z)) / (1 + Math.abs(z)) ** 3,
  },
  softplus: {
    parameters: [parameter("beta", 1, 1e-30), parameter("threshold", 20)],
    value: (z, beta, threshold) => {
      const u = beta * z;
      return u > threshold ? z : (Math.max(u, 0) + Math.log1p(Math.exp(-Math.abs(u)))) / beta;
    },
    slope: (z, beta, threshold) => (beta * z > threshold ? 1 : logistic(beta * z)),
    curvature: (z, beta, threshold) => (beta * z < threshold ? beta * logisticDerivative(beta * z) : 0),
    kinks: (beta, threshold) => [threshold / beta],
  },
  sin: {
    parameters: [parameter("omega", 1, 0, 1e10)],
    value: (z, omega) => Math.sin(omega * z),
    slope: (z, omega) => omega * Math.cos(omega * z),
    curvature: (z, omega) => -omega * omega * Math.sin(omega * z),
    wgsl: "sine",
    wgslArguments: (omega) => [literalWgsl(omega), turnsWgsl(omega)],
    curvatureArguments: (omega) => [literalWgsl(omega), turnsWgsl(omega), literalWgsl(omega * omega)],
  },
  cos: {
    value: (z) => Math.cos(z),
    slope: (z) => -Math.sin(z),
    curvature: (z) => -Math.cos(z),
    wgsl: "cosine",
    wgslArguments: () => [turnsWgsl(1)],
  },
  // To ever finer fractions of a turn: next to a pole, no relative accuracy is left of the sine's reduction.
  tan: {
    value: (z) => Math.tan(z),
    slope: (z) => 1 + Math.tan(z) ** 2,
    curvature: (z) => 2 * Math.tan(z) * (1 + Math.tan(z) ** 2),
    wgsl: "tangent",
    wgslArguments: () => [turnsWgsl(1), turnsWgsl(2 ** 24)],
  },
  asin: {
    value: (z) => Math.asin(z),
    slope: (z) => 1 / Math.sqrt((1 - z) * (1 + z)),
    curvature: (z) => {
      const rest = (1 - z) * (1 + z);
      return z / (rest * Math.sqrt(rest));
    },
    wgsl: "inverse_sine",
  },
  atan: {
    value: (z) => Math.atan(z),
    slope: (z) => 1 / (1 + z * z),
    curvature: (z) => {
      const slope = 1 / (1 + z * z);
      return -2 * (z * slope * slope);
    },
    wgsl: "inverse_tangent",
  },
  sinh: {
    value: (z) => Math.sinh(z),
    slope: (z) => Math.cosh(z),
    curvature: (z) => Math.sinh(z),
    wgsl: "hyperbolic_sine",
  },
  cosh: {
    value: (z) => Math.cosh(z),
    slope: (z) => Math.sinh(z),
    curvature: (z) => Math.cosh(z),
    wgsl: "hyperbolic_cosine",
  },
  asinh: {
    value: (z) => Math.asinh(z),
    slope: (z) => 1 / Math.hypot(1, z),
    curvature: (z) => {
      const slope = 1 / Math.hypot(1, z);
      return -z * slope * slope * slope;
    },
    wgsl: "inverse_hyperbolic_sine",
  },
  acosh: {
    value: (z) => Math.acosh(z),
    slope: (z) => 1 / (Math.sqrt(z - 1) * Math.sqrt(z + 1)),
    curvature: (z) => {
      const slope = 1 / (Math.sqrt(z - 1) * Math.sqrt(z + 1));
      return -z * slope * slope * slope;
    },
    wgsl: "inverse_hyperbolic_cosine",
  },
  atanh: {
    value: (z) => Math.atanh(z),
    slope: (z) => (Math.abs(z) > 1 ? NaN : 1 / ((1 - z) * (1 + z))),
    curvature: (z) => (Math.abs(z) > 1 ? NaN : (2 * z) / ((1 - z) * (1 + z)) ** 2),
    wgsl: "inverse_hyperbolic_tangent",
  },
  exp: {
    value: (z) => Math.exp(z),
    slope: (z) => Math.exp(z),
    curvature: (z) => Math.exp(z),
    wgsl: "exponential",
  },
  log: {
    value: (z) => Math.log(z),
    slope: (z) => (z < 0 ? NaN : 1 / z),
    curvature: (z) => (z < 0 ? NaN : -1 / z / z),
    wgsl: "logarithm",
  },
  sqrt: {
    value: (z) => Math.sqrt(z),
    slope: (z) => 0.5 / Math.sqrt(z),
    curvature: (z) => -0.25 / (z * Math.sqrt(z)),
    wgsl: "square_root",
  },
  reciprocal: {
    value: (z) => 1 / z,
    slope: (z) => -1 / (z * z),
    curvature: (z) => 2 / z / z / z,
  },
  square: {
    value: (z) => z * z,
    slope: (z) => 2 * z,
    curvature: () => 2,
  },
  power: {
    aliases: ["Pow"],
    parameters: [parameter("exponent", 2, 1e-3, 64)],
    value: (z, exponent) => z ** exponent,
    slope: (z, exponent) => exponent * z ** (exponent - 1),
    curvature: (z, exponent) => (exponent === 1 ? 0 : exponent * (exponent - 1) * z ** (exponent - 2)),
    // In float32 the exponent less 1 or 2 would lose its last digits.
    curvatureArguments: (exponent) => {
      const factor = exponent * (exponent - 1);
      const divided = Math.abs(factor) < 1 && exponent < 1;
      return [literalWgsl(factor), literalWgsl(exponent - (divided ? 1 : 2)), String(divided)];
    },
  },
  abs: {
    value: (z) => Math.abs(z),
    slope: (z) => Math.sign(z),
    curvature: straight,
    kinks: () => [0],
    wgsl: "absolute",
  },
  erf: {
    value: errorFunction,
    slope: (z) => (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z),
    curvature: (z) => (-4 / Math.sqrt(Math.PI)) * (z * Math.exp(-z * z)),
  },
  // At its ends PyTorch's clamp has the derivative 1, unlike relu6 and hardtanh.
  clip: {
    aliases: ["Clamp"],
    parameters: [parameter("min", -largestClip, 0, largestClip), parameter("max", largestClip, 0, largestClip)],
    value: (z, min, max) => Math.min(Math.max(z, min), max),
    slope: (z, min, max) => (z >= min && z <= max ? 1 : 0),
    curvature: straight,
    kinks: (min, max) => (min < max ? [min, max] : []).filter((z) => Math.abs(z) < largestClip),
    wgsl: "clip",
  },
  floor: steps(Math.floor, "floor(z)", integersBeside),
  ceil: steps(Math.ceil, "ceil(z)", integersBeside),
  round: steps(roundToEven, "round(z)", (z) => [Math.floor(z) + 0.5]),
  trunc: steps(Math.trunc, "trunc(z)", (z) => integersBeside(z).filter((jump) => jump !== 0)),
  sign: steps(Math.sign, "sign(z)", () => [0]),
};

/** The names of all activations, without their aliases: "relu", "silu", "softplus" and so on. */
export const activationNames: readonly string[] = Object.keys(rows);

/** From lower-case names and aliases to names. */
const namesByAlias: ReadonlyMap<string, string> = new Map(
  Object.entries(rows).flatMap(([name, { aliases = [] }]) => [name, ...aliases].map((alias) => [alias.toLowerCase(), name] as const)),
);

/**
 * Reads a name with or without parameters: "silu", "ReLU", "elu(0.5)", "softplus(2, 20)". PyTorch's class names and
 * ONNX's operator names are known too, and case does not matter. Parameters left out have PyTorch's defaults.
 *
 * @throws ModelError where the name is unknown, or a parameter is one too many, not a number or out of range.
 */
export function parseActivation(text: string): Activation {
  const [, alias = "", list = ""] = /^\s*(\w+)\s*(?:\(([^()]*)\))?\s*$/.exec(text) ?? [];
  const name = namesByAlias.get(alias.toLowerCase());
  if (name === undefined)
    throw new ModelError(
      `activation is ${quote(text)}; expected one of ${activationNames.join(", ")}, with or without parameters as in "elu(0.5)"`,
    );
  const known = rows[name]!.parameters ?? [];
  const given = list.trim() === "" ? [] : list.split(",");
  if (given.length > known.length)
    throw new ModelError(
      `activation ${quote(text)} has ${given.length} parameters; expected ${known.length === 0 ? "none" : `at most ${known.length} (${known.map((p) => p.name).join(", ")})`}`,
    );
  const parameters = known.map((p, index) => {
    const word = given[index]?.trim();
    if (word === undefined) return p.default;
    const number = word === "" ? NaN : Number(word);
    const magnitude = Math.abs(number);
    if (!(magnitude >= p.least && magnitude <= p.most))
      throw new ModelError(
        `activation ${quote(text)}: ${p.name} is ${quote(word)}; expected a number with ${p.least > 0 ? `${p.least} <= ` : ""}|${p.name}| <= ${p.most}`,
      );
    return number;
  });
  return new ParsedActivation(name, parameters);
}

/** Data alone, its text apart: a network can be sent to a worker, where toString() is Object's. */
class ParsedActivation implements Activation {
  readonly #text: string;

  constructor(
    readonly name: string,
    readonly parameters: readonly number[],
  ) {
    const known = rows[name]!.parameters ?? [];
    const shown = parameters.slice(0, known.findLastIndex((p, index) => p.default !== parameters[index]) + 1);
    this.#text = shown.length === 0 ? name : `${name}(${shown.join(", ")})`;
  }

  toString(): string {
    return this.#text;
  }
}

/** As parseActivation reads it back, also of an activation that came out of a structured clone. */
export function textOf(a: Activation): string {
  return (a instanceof ParsedActivation ? a : new ParsedActivation(a.name, a.parameters)).toString();
}

/** Splits a list at its commas, but not at those between brackets: "silu,softplus(1,20)" is "silu" and "softplus(1,20)". */
export function parseActivationList(text: string): string[] {
  return text.split(/,(?![^(]*\))/).map((item) => item.trim());
}

/**
 * σ, σ' and σ'' in float64, with the parameters filled in: for loops. All are NaN where z is not finite, as in the shaders:
 * what overflowed may have been a sum that cancels, so not even tanh knows its value there.
 */
export function activationFunctions(a: Activation): {
  value: (z: number) => number;
  slope: (z: number) => number;
  curvature: (z: number) => number;
} {
  const { value, slope, curvature } = rowOf(a);
  const [p = NaN, q = NaN] = a.parameters;
  return {
    value: (z) => (Number.isFinite(z) ? value(z, p, q) : NaN),
    slope: (z) => (Number.isFinite(z) ? slope(z, p, q) : NaN),
    curvature: (z) => (Number.isFinite(z) ? curvature(z, p, q) : NaN),
  };
}

/** σ(z) in float64. */
export function activationValue(a: Activation, z: number): number {
  return activationFunctions(a).value(z);
}

/** σ'(z) in float64; PyTorch's at a kink. */
export function activationSlope(a: Activation, z: number): number {
  return activationFunctions(a).slope(z);
}

/** σ''(z) in float64; PyTorch's at a kink. */
export function activationCurvature(a: Activation, z: number): number {
  return activationFunctions(a).curvature(z);
}

/** The z where σ or σ' jumps; of step functions, which have infinitely many, those next to `near`. */
export function activationKinks(a: Activation, near: number): readonly number[] {
  const [p = NaN, q = NaN] = a.parameters;
  return rowOf(a).kinks?.(p, q, near) ?? [];
}

/** Whether it consists of straight pieces, so that σ'' is 0 wherever it is defined. */
export function isStraight(a: Activation): boolean {
  return rowOf(a).curvature === straight;
}

export function isIdentity(a: Activation): boolean {
  return a.name === "identity";
}

/** WGSL of `fn activation(z: f32) -> vec2f`, giving (σ, σ'), NaN where z is not finite; needs shaders/lib/activations.wgsl. */
export function activationWgsl(a: Activation): string {
  const { wgsl = a.name, wgslArguments } = rowOf(a);
  const [p = NaN, q = NaN] = a.parameters;
  const call = ["z", ...(wgslArguments?.(p, q) ?? a.parameters.map(literalWgsl))].join(", ");
  return `fn activation(z: f32) -> vec2f { return undefined_where(${wgsl}(${call}), vec2<bool>(!is_finite(z))); }\n`;
}

/**
 * WGSL of `fn activation_with_curvature(z: f32) -> vec3f`, giving (σ, σ', σ''), NaN where z is not finite; needs
 * shaders/lib/curvatures.wgsl and what {@link activationWgsl} gives for the same activation.
 */
export function curvatureWgsl(a: Activation): string {
  const { wgsl = a.name, wgslArguments, curvatureArguments = wgslArguments, curvature } = rowOf(a);
  const [p = NaN, q = NaN] = a.parameters;
  const call = ["z", ...(curvatureArguments?.(p, q) ?? a.parameters.map(literalWgsl))].join(", ");
  const third = curvature === straight ? "0.0" : `${wgsl}_curvature(${call})`;
  return `fn activation_with_curvature(z: f32) -> vec3f { return vec3f(activation(z), undefined_if(${third}, !is_finite(z))); }\n`;
}

/** As a float: 1e19 and 1e20, without a dot, would be whole numbers that no integer of WGSL holds. */
function literalWgsl(value: number): string {
  const text = String(value);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

function rowOf(a: Activation): Row {
  const row = rows[a.name];
  if (!row) throw new ModelError(`activation is ${quote(a.name)}; expected one of ${activationNames.join(", ")}`);
  return row;
}

/** 1 / (1 + e^-z). */
function logistic(z: number): number {
  const t = Math.exp(-Math.abs(z));
  return (z > 0 ? 1 : t) / (1 + t);
}

function logisticDerivative(z: number): number {
  const t = Math.exp(-Math.abs(z));
  return t / (1 + t) ** 2;
}

function logisticCurvature(z: number): number {
  return -logisticDerivative(z) * tanhOfHalf(z);
}

/** tanh(z/2), which is 1 - 2 logistic(-z) without the cancellation. */
function tanhOfHalf(z: number): number {
  const x = Math.abs(z);
  return (-Math.sign(z) * Math.expm1(-x)) / (1 + Math.exp(-x));
}

/** tanh(log(1 + e^z)). */
function tanhOfSoftplus(z: number): number {
  const t = Math.exp(-Math.abs(z));
  return z > 0 ? (1 + 2 * t) / (1 + 2 * t + 2 * t * t) : (t * t + 2 * t) / (t * t + 2 * t + 2);
}

/** Beyond this |z| the normal density is 0 in float64; z^2 is held there so that it cannot overflow. */
const geluLimit = 40;

/** Beyond this |z| gelu_tanh is 0 or z even in float64; z^3 is held there so that it cannot overflow. */
const geluTanhLimit = 30;

/** 2 sqrt(2/π) (z + 0.044715 z^3). */
function geluTanhArgument(z: number): number {
  const x = Math.min(Math.max(z, -geluTanhLimit), geluTanhLimit);
  return 2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x);
}

function normalDensity(x: number): number {
  return Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
}

/**
 * The upper tail of the standard normal distribution, erfc(x/√2) / 2, for x >= 0.
 * Relative error 1e-14, and 1e-16 x^2 where that is more.
 */
function normalTail(x: number): number {
  if (x < 2) return 0.5 - normalCentre(x);
  // density(x) / (x + 1/(x + 2/(x + 3/(x + ...)))), cut off where the rest is nearly the solution of f = x + terms/f.
  const terms = Math.ceil(250 / (x * x)) + 8;
  let fraction = (x + Math.sqrt(x * x + 4 * terms)) / 2;
  for (let term = terms; term > 0; term--) fraction = x + term / fraction;
  return normalDensity(x) / fraction;
}

/** The standard normal distribution's probability between 0 and x, for 0 <= x < 2: density(x) (x + x^3/3 + x^5/(3·5) + ...). */
function normalCentre(x: number): number {
  let sum = 0;
  for (let term = x, odd = 3; sum + term !== sum; term *= (x * x) / odd, odd += 2) sum += term;
  return normalDensity(x) * sum;
}

/** erf(z) for any z, to a relative error of 1e-14. */
function errorFunction(z: number): number {
  const x = Math.SQRT2 * Math.abs(z);
  return Math.sign(z) * 2 * (x < 2 ? normalCentre(x) : 0.5 - normalTail(x));
}

/** The first 160 binary digits of 1/(2π). */
const inverseTurn = 0x28be60db9391054a7f09d5f47d4d377036d8a566n;

/** |omega| / (2π), the turns per unit of z, as WGSL: fixed point, one integer word and three fraction words. */
function turnsWgsl(omega: number): string {
  // The product with a power of two is exact; 2^-200 is far below the digits kept.
  const scaledOmega = BigInt(Math.floor(Math.abs(omega) * 2 ** 200));
  const turns = (scaledOmega * inverseTurn) >> (200n + 160n - 96n);
  const words = [96n, 64n, 32n, 0n].map((shift) => `0x${((turns >> shift) & 0xffffffffn).toString(16)}u`);
  return `vec4<u32>(${words.join(", ")})`;
}
