/** One point in numbers. */
import { evaluateReference, type Network } from "deldot";
import type { Numbers } from "../engines/engine.js";
import { SCALE, short } from "../base/numbers.js";
import { subscript } from "../base/plane.js";
import { withContext } from "../base/quantity.js";

/** Beyond this many dimensions a Jacobian is no longer read, and vectors are cut short. */
const MOST_DIMENSIONS = 4;
const MOST_NUMBERS = 8;

export function outputsFor(network: Network): ("value" | "divergence" | "diagonal" | "jacobian")[] {
  return network.stateSize <= MOST_DIMENSIONS ? ["value", "divergence", "diagonal", "jacobian"] : ["value", "divergence", "diagonal"];
}

/** Fills `element` with the numbers at x, their float64 values and the errors beside them. */
export function showProbe(
  element: HTMLElement,
  network: Network,
  x: readonly number[],
  context: readonly number[],
  numbers: Numbers,
): void {
  const list = document.createElement("dl");
  const add = (name: string, text: string, key: string): void => {
    const term = document.createElement("dt");
    term.textContent = name;
    const value = document.createElement("dd");
    value.textContent = text;
    value.dataset["probe"] = key;
    list.append(term, value);
  };
  const exact = evaluateReference(network, Float32Array.from(x), { ...withContext(context), outputs: outputsFor(network) });
  const scale = exact.diagonal!.reduce((sum, entry) => sum + Math.abs(entry), 0) || 1;
  add("x", vector(x), "x");
  add("f(x)", vector(numbers.value!), "value");
  add("∇·f", short(numbers.divergence![0]!, 7), "divergence");
  const error = Math.abs(numbers.divergence![0]! - exact.divergence![0]!);
  add("∇·f in float64", short(exact.divergence![0]!, 10), "exact");
  add("error", `${short(error, 2)}, ${short(error / scale, 2)} of ${SCALE}`, "error");
  add("∂fᵢ/∂xᵢ", vector(numbers.diagonal!), "diagonal");
  const d = network.stateSize;
  if (numbers.jacobian)
    for (let row = 0; row < d; row++)
      add(`∂f${subscript(row)}/∂x`, vector(numbers.jacobian.subarray(row * d, (row + 1) * d)), `jacobian ${row}`);
  element.replaceChildren(list);
}

export function vector(numbers: ArrayLike<number>): string {
  const shown = Array.from({ length: Math.min(numbers.length, MOST_NUMBERS) }, (_, k) => short(numbers[k]!));
  return `(${shown.join(", ")}${numbers.length > MOST_NUMBERS ? `, … ${numbers.length} in all` : ""})`;
}
