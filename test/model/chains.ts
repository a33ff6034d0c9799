import fc from "fast-check";
import { textOf, type Activation } from "../../src/model/activation.js";
import { mlp, type LayerInput, type Network, type Operation } from "../../src/model/network.js";
import { random } from "../random.js";

/** A chain of linear layers as its maker describes it. */
export interface Chain {
  layers: LayerInput[];
  activation: string[];
  contextColumns: "first" | "last";
}

const activation = fc.constantFrom("tanh", "silu", "identity", "elu(0.5)", "softplus(2, 20)", "leaky_relu(-0.1)", "clip(-0.5, 0.75)");
const width = fc.integer({ min: 1, max: 7 });

/** Chains of up to 13 layers, so that 10 comes after 9 in their names, in float32 and float64. */
export const chains: fc.Arbitrary<Chain> = fc
  .record({
    stateSize: width,
    contextSize: fc.integer({ min: 0, max: 3 }),
    hidden: fc.array(fc.record({ width, activation }), { maxLength: 12 }),
    output: fc.option(activation),
    contextColumns: fc.constantFrom("first" as const, "last" as const),
    isDouble: fc.boolean(),
    hasBias: fc.boolean(),
    seed: fc.nat(),
  })
  .map(({ stateSize, contextSize, hidden, output, contextColumns, isDouble, hasBias, seed }) => {
    const uniform = random(seed);
    const numbers = (length: number): Float32Array | Float64Array => {
      const draws = Float64Array.from({ length }, () => 2 * uniform() - 1);
      return isDouble && uniform() < 0.5 ? draws : Float32Array.from(draws);
    };
    const widths = [stateSize + contextSize, ...hidden.map((layer) => layer.width), stateSize];
    const layers = widths.slice(1).map((outputs, index): LayerInput => {
      const shape = [outputs, widths[index]!];
      return { weight: { data: numbers(outputs * shape[1]!), shape }, bias: hasBias || uniform() < 0.5 ? numbers(outputs) : null };
    });
    // Of a single layer a list of one activation is its output's.
    const names = [...hidden.map((layer) => layer.activation), ...(output && hidden.length > 0 ? [output] : [])];
    return { layers, activation: names, contextColumns };
  });

export function networkOf(chain: Chain): Network {
  return mlp(chain);
}

/** Operations as data alone: lists of numbers, activations by their texts. */
export function plain({ operations }: { operations: readonly Operation[] }): unknown {
  return JSON.parse(
    JSON.stringify(operations, (key, value: unknown) => {
      if (ArrayBuffer.isView(value)) return Array.from(value as Float64Array);
      return key === "activation" ? textOf(value as Activation) : value;
    }),
  );
}
