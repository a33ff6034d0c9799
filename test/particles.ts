import type { Network, Operation } from "../src/index.js";
import { parseActivation } from "../src/model/activation.js";
import { Draw } from "./numbers/draw.js";

const tanh = parseActivation("tanh");

/** One MLP for each of some particles: widths are those of one particle. */
export function particles(times: number, widths: readonly number[], seed = 1): Network {
  const draw = new Draw(seed);
  const operations: Operation[] = [];
  for (const [index, rows] of widths.slice(1).entries()) {
    const columns = widths[index]!;
    const block = { rows, columns, data: draw.numbers(rows * columns, Math.sqrt(3 / columns)) };
    if (index > 0) operations.push({ kind: "activation", operand: operations.length - 1, activation: tanh });
    const operand = index > 0 ? operations.length - 1 : "state";
    // Biases that differ from particle to particle tell one from the other.
    operations.push({ kind: "linear", terms: [{ operand, weight: { block, times } }], bias: draw.numbers(times * rows, 0.5) });
  }
  return { stateSize: times * widths[0]!, contextSize: 0, operations };
}
