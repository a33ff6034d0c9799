import { afterAll, beforeAll, expect, test } from "vitest";
import { mlp, VectorField } from "../src/index.js";
import { activationFunctions, activationNames, parseActivation, type Activation } from "../src/model/activation.js";
import { openDevice } from "./device.js";
import { random } from "./fields.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

const LEAST = 2 ** -126;
/** What a number may reach before the last digits of float32 decide whether its product with another one overflows. */
const NEAR_THE_END = 1e37;
const chained = [...activationNames, "leaky_relu(3)", "celu(-1.5)", "softplus(-2)", "power(3)", "power(-1.5)", "power(0.75)", "sin(30)"];

/** A magnitude anywhere in float32 from 2^-126 on, or one near 1, with a sign; sometimes 0. */
function extreme(uniform: () => number): number {
  const exponent = uniform() < 0.5 ? -37.9 + 76.4 * uniform() : 2.2 * (2 * uniform() - 1);
  const sign = uniform() < 0.5 ? -1 : 1;
  return uniform() > 0.97 ? 0 : Math.fround(sign * 10 ** exponent);
}

/** How far float32 may be from σ and σ' in float64: see shaders/lib/activations.wgsl. */
function errorOf({ name, parameters }: Activation): (exact: number) => number {
  const relative = [
    "identity",
    "relu",
    "leaky_relu",
    "relu6",
    "abs",
    "square",
    "reciprocal",
    "power",
    "exp",
    "sinh",
    "cosh",
    "sqrt",
    "clip",
  ];
  if (relative.includes(name)) return (exact) => 1e-4 * Math.abs(exact) + LEAST * Math.max(1, ...parameters.map(Math.abs));
  return (exact) =>
    2e-6 * Math.max(1, ...parameters.map(Math.abs)) * (1 + Math.abs(exact)) + 1e-4 * (name === "celu" ? Math.abs(exact) : 0);
}

/** Whether z is where σ or σ' ends before float32 does, or σ' may be taken for 0 far from 0 and is NaN. */
function isBeyond(activation: Activation, z: number): boolean {
  const { name, parameters } = activation;
  if (["sin", "cos", "tan"].includes(name)) return Math.abs(z) > 2 ** 68 / 1.01;
  const isSlowest = ["log", "acosh", "asinh", "reciprocal", "power"].includes(name) && Math.abs(z) > 1;
  if (isSlowest && Math.abs(activationFunctions(activation).slope(z)) < 1.01 * LEAST * Math.max(1, Math.abs(parameters[0] ?? 1)))
    return true;
  const hasPole = name === "log" || name === "sqrt" || name === "reciprocal" || name === "power";
  return hasPole && Math.abs(z) < 1.01 * LEAST && parameters[0] !== 2 && parameters[0] !== 3;
}

interface Chains {
  /** One for every way in which float32 may round what lies between. */
  readonly values: readonly number[];
  readonly slopes: readonly number[];
  /** The largest magnitude between, Infinity where something is outside a domain. */
  readonly largest: number;
  /** What the last step may err by. */
  readonly slack: number;
  /** Whether rounding leaves nothing to compare with, as of a sine of 1e20. */
  readonly isVague: boolean;
}

/** σ2(w σ1(v x)) and its derivative in float64. */
function chainsOf(first: Activation, second: Activation, v: number, w: number, x: number): Chains {
  const [one, two] = [activationFunctions(first), activationFunctions(second)];
  const [errorOne, errorTwo] = [errorOf(first), errorOf(second)];
  const [values, slopes, seconds]: number[][] = [[], [], []];
  let [largest, slack] = [0, 0];
  const see = (...numbers: number[]): void => {
    for (const number of numbers) largest = Math.max(largest, Number.isNaN(number) ? Infinity : Math.abs(number));
  };
  for (const drift of [0, 2 ** -23, -(2 ** -23)]) {
    // What underflows may be 0.
    const z1 = drift < 0 && Math.abs(v * x) < 2 * LEAST ? 0 : v * x * (1 + drift);
    if (isBeyond(first, v * x)) see(Infinity);
    for (const valueError of [0, 1, -1])
      for (const slopeError of [0, 1, -1]) {
        const a = one.value(z1) + valueError * errorOne(one.value(z1));
        const s = one.slope(z1) + slopeError * errorOne(one.slope(z1));
        const z2 = valueError < 0 && Math.abs(w * a) < 2 * LEAST ? 0 : w * a;
        const [value, s2] = [two.value(z2), two.slope(z2)];
        const slope = s2 * w * v * s;
        if (isBeyond(second, z2)) see(Infinity);
        see(z1, a, s, z2, value, s2, v * s, w * s, w * v * s, slope);
        values!.push(value);
        slopes!.push(slope);
        seconds!.push(z2);
        const underflow = LEAST * (Math.abs(w * s2) + Math.abs(v * s2) + Math.abs(s2) + 2);
        slack = Math.max(slack, errorTwo(value), errorTwo(s2) * Math.abs(w * v * s) + underflow + 1e-5 * Math.abs(slope));
      }
  }
  const spread = Math.max(...seconds!) - Math.min(...seconds!);
  const isVague = spread > 1e-3 * (1 + Math.abs(seconds![0]!)) || turnsOf(first) * Math.abs(v * x) > 1e5 || turnsOf(second) * spread > 0.01;
  return { values: values!, slopes: slopes!, largest, slack, isVague };
}

function turnsOf({ name, parameters }: Activation): number {
  return name === "sin" ? Math.abs(parameters[0]!) : name === "cos" || name === "tan" ? 1 : 0;
}

/** Expects a finite number to be among what rounding may make, and an infinity or NaN where the reference nears the end. */
function expectWithin(actual: number, exact: readonly number[], { largest, slack }: Chains, label: string): void {
  if (!Number.isFinite(actual)) {
    if (largest <= NEAR_THE_END) expect.fail(`${label} is ${actual}; expected ${exact[0]}`);
    return;
  }
  const defined = exact.filter(Number.isFinite);
  if (defined.length === 0) expect.fail(`${label} is ${actual}; expected ${exact[0]}`);
  if (defined.length < exact.length) return; // rounding decides
  const [low, high] = [Math.min(...exact) - slack, Math.max(...exact) + slack];
  if (actual < low || actual > high) expect.fail(`${label} is ${actual}; expected ${low} to ${high}`);
}

test("chains of two activations are right, or not finite where something between leaves float32", async () => {
  const uniform = random(7);
  for (let pair = 0; pair < 80; pair++) {
    const pick = (): Activation => parseActivation(chained[Math.floor(uniform() * chained.length)]!);
    const [first, second] = [pick(), pick()];
    const [v, w] = [extreme(uniform), extreme(uniform)];
    const points = Float32Array.from({ length: 300 }, () => {
      const x = extreme(uniform);
      const near = Math.fround(x / v); // so that v x is anything, too
      return uniform() < 0.5 || !Number.isFinite(near) || Math.abs(near) < LEAST ? x : near;
    });
    const network = mlp({ layers: [{ weight: [[v]] }, { weight: [[w]] }], activation: [String(first), String(second)] });
    const field = await VectorField.create(device, network, { kernels: "layers 4x4" });
    const { value, divergence } = await field.evaluate(points, { method: "tangent", outputs: ["value", "divergence"] });
    field.destroy();
    points.forEach((x, i) => {
      const chains = chainsOf(first, second, v, w, x);
      if (chains.isVague) return;
      const label = `of ${second}(${w} ${first}(${v} * ${x}))`;
      expectWithin(value[i]!, chains.values, chains, `the value ${label}`);
      expectWithin(divergence[i]!, chains.slopes, chains, `the divergence ${label}`);
    });
  }
});
