import { ModelError } from "../errors.js";
import { largestClip, parseActivation, seluScale, seluScaleAlpha, type Activation } from "./activation.js";
import { widthOf, type Network, type Operand, type Operation } from "./network.js";

/** What has σ'; "one" or "zero" where it is that everywhere. */
type SlopeOperand = Operand | "one" | "zero";

/** Of an operand z and of the activation's parameters. */
type Slope = (of: Formulas, z: Operand, p: number, q: number) => SlopeOperand;

/** Appends operations to those of a network. */
export class Formulas {
  constructor(
    private readonly network: Pick<Network, "stateSize" | "contextSize">,
    readonly operations: Operation[],
  ) {}

  push(operation: Operation): number {
    return this.operations.push(operation) - 1;
  }

  widthOf(operand: Operand): number {
    return widthOf({ ...this.network, operations: this.operations }, operand);
  }

  /** σ(z), of an activation as {@link parseActivation} reads it. */
  call(name: string, operand: Operand): number {
    return this.push({ kind: "activation", operand, activation: parseActivation(name) });
  }

  product(a: Operand, b: Operand): number {
    return this.push({ kind: "product", operands: [a, b] });
  }

  sum(...operands: readonly Operand[]): number {
    const diagonal = new Float64Array(this.widthOf(operands[0]!)).fill(1);
    return this.push({ kind: "linear", terms: operands.map((operand) => ({ operand, weight: { diagonal } })), bias: null, isFixed: true });
  }

  /** factor z + shift, of numbers that nobody trains. */
  affine(operand: Operand, factor: number, shift = 0): Operand {
    if (factor === 1 && shift === 0) return operand;
    const width = this.widthOf(operand);
    const all = (value: number): Float64Array => new Float64Array(width).fill(value);
    return this.push({
      kind: "linear",
      terms: [{ operand, weight: { diagonal: all(factor) } }],
      bias: shift === 0 ? null : all(shift),
      isFixed: true,
    });
  }

  /** 1 where z > 0, else 0. */
  step(z: Operand): number {
    return this.call("relu", this.call("sign", z));
  }

  /** 1 where |z| < limit, else 0. */
  within(z: Operand, limit: number): number {
    return this.step(this.affine(this.call("abs", z), -1, limit));
  }

  /** e^(factor min(z, 0)). */
  decay(z: Operand, factor = 1): number {
    return this.call("exp", this.affine(this.call("relu", this.affine(z, -1)), -factor));
  }

  /** s(z) s(-z) with s(z) = 1 / (1 + e^-z): nothing cancels in its tails. */
  logisticSlope(z: Operand): number {
    return this.product(this.call("sigmoid", z), this.call("sigmoid", this.affine(z, -1)));
  }

  /** e^(-z²), 0 long before z² overflows. */
  bell(z: Operand): number {
    return this.call("exp", this.affine(this.call("square", this.call("clip(-40, 40)", z)), -1));
  }

  /** 1 / √((1 - z)(1 + z)), NaN beyond 1. */
  inverseRoot(z: Operand): number {
    return this.call("reciprocal", this.call("sqrt", this.product(this.affine(z, -1, 1), this.affine(z, 1, 1))));
  }
}

/** At a softplus' threshold so high float32 does not see the step of its slope. */
const SMOOTH_THRESHOLD = 17;

/** Each slope out of functions whose own slopes are exact, in forms that neither overflow nor cancel. Steps have the slope 0. */
const slopes: Readonly<Record<string, Slope>> = {
  identity: () => "one",
  relu: (of, z) => of.step(z),
  leaky_relu: (of, z, slope) => of.sum(of.step(z), of.affine(stepDown(of, z), slope)),
  relu6: (of, z) => of.product(of.step(z), of.step(of.affine(z, -1, 6))),
  elu: (of, z, alpha) => exponentialUnit(of, z, 1, alpha),
  selu: (of, z) => exponentialUnit(of, z, seluScale, seluScaleAlpha),
  celu: (of, z, alpha) => of.decay(z, 1 / alpha),
  // Φ(z) + z φ(z)
  gelu: (of, z) => {
    const distribution = of.affine(of.call("erf", of.affine(z, Math.SQRT1_2)), 0.5, 0.5);
    return of.sum(distribution, of.product(z, of.affine(of.bell(of.affine(z, Math.SQRT1_2)), 1 / Math.sqrt(2 * Math.PI))));
  },
  // With u = 2√(2/π) (x + 0.044715 x³) it is z s(u).
  gelu_tanh: (of, z) => {
    const x = of.call("clip(-30, 30)", z);
    const squared = of.call("square", x);
    const factor = 2 * Math.sqrt(2 / Math.PI);
    const u = of.product(x, of.affine(squared, factor * 0.044715, factor));
    return of.sum(of.call("sigmoid", u), of.product(z, of.product(of.logisticSlope(u), of.affine(squared, factor * 3 * 0.044715, factor))));
  },
  silu: (of, z) => of.sum(of.call("sigmoid", z), of.product(z, of.logisticSlope(z))),
  // With y = softplus(z) it is z tanh(y).
  mish: (of, z) => {
    const y = of.call("softplus", z);
    return of.sum(of.call("tanh", y), of.product(z, of.product(tanhSlope(of, y), of.call("sigmoid", z))));
  },
  sigmoid: (of, z) => of.logisticSlope(z),
  hardsigmoid: (of, z) => of.affine(of.within(z, 3), 1 / 6),
  hardswish: (of, z) => {
    const beyond = of.affine(of.step(of.affine(z, -1, 3)), -1, 1);
    return of.sum(of.product(of.within(z, 3), of.affine(z, 1 / 3, 0.5)), beyond);
  },
  hardtanh: (of, z) => of.within(z, 1),
  tanh: (of, z) => tanhSlope(of, z),
  softsign: (of, z) => of.call("square", of.call("reciprocal", of.affine(of.call("abs", z), 1, 1))),
  softplus: (of, z, beta, threshold) => {
    const u = of.affine(z, beta);
    const curved = of.call("sigmoid", u);
    if (threshold >= SMOOTH_THRESHOLD) return curved;
    return of.sum(curved, of.product(of.step(of.affine(u, 1, -threshold)), of.call("sigmoid", of.affine(u, -1))));
  },
  sin: (of, z, omega) => of.affine(of.call("cos", of.affine(z, omega)), omega),
  cos: (of, z) => of.affine(of.call("sin", z), -1),
  tan: (of, z) => of.affine(of.call("square", of.call("tan", z)), 1, 1),
  asin: (of, z) => of.inverseRoot(z),
  atan: (of, z) => of.call("reciprocal", of.affine(of.call("square", z), 1, 1)),
  sinh: (of, z) => of.call("cosh", z),
  cosh: (of, z) => of.call("sinh", z),
  asinh: (of, z) => of.call("reciprocal", of.call("sqrt", of.affine(of.call("square", z), 1, 1))),
  acosh: (of, z) => {
    const root = (shift: number): number => of.call("sqrt", of.affine(z, 1, shift));
    return of.call("reciprocal", of.product(root(-1), root(1)));
  },
  atanh: (of, z) => of.call("square", of.inverseRoot(z)),
  exp: (of, z) => of.call("exp", z),
  // By the root it is NaN where the logarithm is.
  log: (of, z) => of.call("square", of.call("reciprocal", of.call("sqrt", z))),
  sqrt: (of, z) => of.affine(of.call("reciprocal", of.call("sqrt", z)), 0.5),
  reciprocal: (of, z) => of.affine(of.call("square", of.call("reciprocal", z)), -1),
  square: (of, z) => of.affine(z, 2),
  power: (of, z, exponent) => {
    const rest = exponent - 1;
    if (rest === 0) return "one";
    if (rest === 1) return of.affine(z, 2);
    try {
      return of.affine(of.call(`power(${rest})`, z), exponent);
    } catch (error) {
      throw new ModelError(`the slope of power(${exponent}) is a power that no activation is; expected another exponent`, { cause: error });
    }
  },
  abs: (of, z) => of.call("sign", z),
  erf: (of, z) => of.affine(of.bell(z), 2 / Math.sqrt(Math.PI)),
  // At its ends, which belong to it, 1 too.
  clip: (of, z, min, max) => {
    const above = min > -largestClip ? [of.affine(of.step(of.affine(z, -1, min)), -1, 1)] : [];
    const below = max < largestClip ? [of.affine(of.step(of.affine(z, 1, -max)), -1, 1)] : [];
    const [first, second] = [...above, ...below];
    if (first === undefined) return "one";
    return second === undefined ? first : of.product(first, second);
  },
  floor: () => "zero",
  ceil: () => "zero",
  round: () => "zero",
  trunc: () => "zero",
  sign: () => "zero",
};

/** positive for z > 0, elsewhere alpha e^z. */
function exponentialUnit(of: Formulas, z: Operand, positive: number, alpha: number): Operand {
  const decay = of.affine(of.decay(z), alpha);
  return alpha === positive ? decay : of.sum(of.affine(of.step(z), positive), of.product(decay, stepDown(of, z)));
}

/** 1 for z <= 0, elsewhere 0: by a relu, which is not merged with what follows, where 1 - step would cancel beside large factors. */
function stepDown(of: Formulas, z: Operand): Operand {
  return of.call("relu", of.affine(of.step(z), -1, 1));
}

function tanhSlope(of: Formulas, z: Operand): Operand {
  return of.affine(of.logisticSlope(of.affine(z, 2)), 4);
}

/**
 * σ'(z) of an activation out of the operations of networks.
 * @throws ModelError where there is none.
 */
export function slopeOperation(of: Formulas, { name, parameters }: Activation, z: Operand): SlopeOperand {
  const [p = NaN, q = NaN] = parameters;
  return slopes[name]!(of, z, p, q);
}
