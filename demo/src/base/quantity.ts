/** What a picture shows of a field at a point. */
import type { Network, Output } from "deldot";
import { subscript } from "./plane.js";

/** ∇·f; |f|; f_i; ∂f_i/∂x_i. */
export type Quantity = "divergence" | "magnitude" | `f${number}` | `d${number}`;

/** Where a quantity stands among a field's outputs. */
export interface Source {
  readonly output: Extract<Output, "value" | "divergence" | "diagonal">;
  /** Numbers of a point in that output. */
  readonly stride: number;
  /** Which of them; -1: the length of all. */
  readonly component: number;
}

export function sourceOf(quantity: Quantity, d: number): Source {
  if (quantity === "divergence") return { output: "divergence", stride: 1, component: 0 };
  if (quantity === "magnitude") return { output: "value", stride: d, component: -1 };
  return { output: quantity[0] === "f" ? "value" : "diagonal", stride: d, component: Number(quantity.slice(1)) };
}

export function nameOf(quantity: Quantity): string {
  if (quantity === "divergence") return "∇·f";
  if (quantity === "magnitude") return "|f|";
  const index = subscript(Number(quantity.slice(1)));
  return quantity[0] === "f" ? `f${index}` : `∂f${index}/∂x${index}`;
}

/** All that a field in d dimensions has; of many dimensions the first eight. */
export function quantitiesOf(d: number): Quantity[] {
  const few = Array.from({ length: Math.min(d, 8) }, (_, i) => i);
  return ["divergence", "magnitude", ...few.map((i): Quantity => `f${i}`), ...few.map((i): Quantity => `d${i}`)];
}

/** The quantity of point `index` out of an output's numbers. */
export function pick(numbers: ArrayLike<number>, { stride, component }: Source, index: number): number {
  if (component >= 0) return numbers[index * stride + component]!;
  let sum = 0;
  for (let k = 0; k < stride; k++) sum += numbers[index * stride + k]! ** 2;
  return Math.sqrt(sum);
}

/** Of a field's context, what a truth has of it: t or nothing. */
export function contextOf({ contextSize }: Network, context: readonly number[]): { context: readonly number[] | null } {
  return withContext(context.slice(0, contextSize));
}

export function withContext(context: readonly number[]): { context: readonly number[] | null } {
  return { context: context.length > 0 ? context : null };
}
