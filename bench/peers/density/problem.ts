import { readFileSync } from "node:fs";
import { parametersOf, parseSafetensors, type Network } from "../../../dist/index.js";
import { makeProblem, type Case, type Numbers, type Problem } from "../networks.js";

export const densityCases: readonly Case[] = [{ name: "two-moons-flow", d: 2, h: 64, count: 65536 }];

/** Of one size, from data at t = 1 to noise, N(0, I), at t = 0. */
export const STEPS = 10;

/** f(x, t) = W3 silu(W2 silu(W1 x + t u + b1) + b2) + b3 */
export interface FlowProblem extends Problem {
  /** [h] */
  readonly u: Numbers;
}

export function readNetwork({ name }: Case): Network {
  return parseSafetensors(readFileSync(new URL(`../../../demo/models/${name}.safetensors`, import.meta.url)));
}

/** Points as for other networks; the weights are those of the file, whose first matrix has time's column last. */
export function makeFlowProblem(chosen: Case): FlowProblem {
  const { d } = chosen;
  const [first, b1, w2, b2, w3, b3] = Object.values(parametersOf(readNetwork(chosen))).map(({ data }) =>
    Float32Array.from(data),
  ) as Numbers6;
  const w1 = first.filter((_, index) => index % (d + 1) < d);
  const u = first.filter((_, index) => index % (d + 1) === d);
  return { ...makeProblem(chosen), w1, b1, w2, b2, w3, b3, u };
}

type Numbers6 = [Numbers, Numbers, Numbers, Numbers, Numbers, Numbers];
