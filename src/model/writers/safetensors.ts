import { ModelError } from "../../errors.js";
import { encodeTensors, type FileTensor } from "../../tensorFile.js";
import { textOf, type Activation } from "../activation.js";
import type { LinearOperation, Matrix, Network, Numbers, Operand, Tensor } from "../network.js";
import { orderLayers } from "../readers/safetensors/order.js";

/** One linear layer of a chain, and the activation that follows it. */
interface Layer {
  readonly operation: number;
  /** [outputs, inputs], the context's columns where they stand in the file. */
  readonly weight: Matrix;
  readonly bias: Numbers | null;
  activation: Activation | null;
}

/**
 * The bytes of a safetensors file that {@link parseSafetensors} reads as the same network and PyTorch as a state_dict: for chains of
 * linear layers with at most one activation after each; the first one alone may read the context. Tensors are [outputs, inputs] and
 * have the network's own names where those are PyTorch's and tell the order, else "0.weight", "2.weight" as in an nn.Sequential.
 * They are F32, or F64 where float32 does not hold the numbers. `__metadata__` says what stands between them, "identity" where
 * nothing does; the axes of a point and the notes are not kept.
 *
 * @throws ModelError where the network is anything else: residual blocks, products, norms, diagonals such as those of a BatchNorm or
 * of PReLUs with several slopes, weights that particles share, or a single layer whose output has an activation.
 */
export function toSafetensors(network: Network): Uint8Array {
  const contextColumns = contextColumnsOf(network);
  const layers = chainOf(network, contextColumns);
  const names = ownNames(network, layers) ?? layers.map(({ operation }) => String(operation));
  const metadata = {
    ...activationOf(layers),
    context: String(network.contextSize),
    ...(network.contextSize > 0 && { contextColumns }),
  };
  const tensors = layers.flatMap(({ weight, bias }, index): FileTensor[] => {
    const nameOf = (part: string): string => (names[index] === "" ? part : `${names[index]}.${part}`);
    const tensor = { name: nameOf("weight"), shape: [weight.rows, weight.columns], numbers: narrowed(weight.data) };
    return bias ? [tensor, { name: nameOf("bias"), shape: [bias.length], numbers: narrowed(bias) }] : [tensor];
  });
  return encodeTensors(metadata, tensors);
}

/** As the file has them that the network came from, if that is known. */
function contextColumnsOf({ tensors = [], operations: [first] }: Network): "last" | "first" {
  if (first?.kind !== "linear") return "last";
  for (const { places } of tensors) {
    const [state, context] = ["state", "context"].map((operand) =>
      places.find(({ operation, part }) => operation === 0 && part !== "bias" && first.terms[part]!.operand === operand),
    );
    if (state && context) return context.offset < state.offset ? "first" : "last";
  }
  return "last";
}

function chainOf({ operations, contextSize }: Network, contextColumns: "last" | "first"): Layer[] {
  const layers: Layer[] = [];
  for (const [index, operation] of operations.entries()) {
    const refuse = (reason: string): never =>
      fail(`operation ${index} ${reason}; expected a chain of linear layers with an activation between two`);
    const before = operations[index - 1];
    if (operation.kind === "activation") {
      if (before?.kind !== "linear" || operation.operand !== index - 1)
        refuse(`is an activation of ${index === 0 ? "the state" : "what is no linear layer just before it"}`);
      layers.at(-1)!.activation = operation.activation;
    } else if (operation.kind === "linear") {
      const operands: readonly Operand[] = index > 0 ? [index - 1] : contextSize > 0 ? ["state", "context"] : ["state"];
      const { terms, bias } = operation;
      if (terms.length !== operands.length || !operands.every((operand) => terms.some((term) => term.operand === operand)))
        refuse(`reads ${terms.map(({ operand }) => operand).join(" and ") || "nothing"} where a chain has ${operands.join(" and ")}`);
      const order = contextColumns === "first" ? operands.toReversed() : operands;
      const parts = order.map((operand) =>
        matrixOf(
          terms.find((term) => term.operand === operand)!,
          refuse,
        ),
      );
      layers.push({ operation: index, weight: joinColumns(parts), bias, activation: null });
    } else refuse(`is a ${operation.kind}`);
  }
  return layers.length > 0 ? layers : fail("the network has no operations; expected at least one linear layer");
}

function matrixOf({ weight }: LinearOperation["terms"][number], refuse: (reason: string) => never): Matrix {
  if ("diagonal" in weight) refuse("multiplies element by element, which such a file has no weight for");
  if ("block" in weight) refuse(`repeats its weight for each of ${weight.times} parts`);
  return weight;
}

function joinColumns(parts: readonly Matrix[]): Matrix {
  const [first] = parts as [Matrix];
  if (parts.length === 1) return first;
  const { rows } = first;
  const columns = parts.reduce((sum, part) => sum + part.columns, 0);
  const data = new Float64Array(rows * columns);
  let from = 0;
  for (const part of parts) {
    part.data.forEach((value, i) => (data[Math.floor(i / part.columns) * columns + from + (i % part.columns)] = value));
    from += part.columns;
  }
  return { rows, columns, data };
}

/** What stands before ".weight" in the name of each layer's tensor; null where names are of another kind or tell another order. */
function ownNames({ tensors = [], operations }: Network, layers: readonly Layer[]): string[] | null {
  const nameOf = (operation: number, part: number | "bias"): string | undefined => {
    const isAll = ({ places }: Tensor): boolean =>
      places.every((place) => place.operation === operation) &&
      places.length === (part === "bias" ? 1 : (operations[operation] as LinearOperation).terms.length);
    return tensors.find((tensor) => tensor.places.some((place) => place.operation === operation && place.part === part) && isAll(tensor))
      ?.name;
  };
  const named = layers.map(({ operation, weight, bias }) => {
    const [, name = ""] = /^(?:(.{1,900})\.)?weight$/.exec(nameOf(operation, 0) ?? "?") ?? [];
    const prefix = name === "" ? "" : `${name}.`;
    const isPlain = nameOf(operation, 0) === `${prefix}weight` && (!bias || nameOf(operation, "bias") === `${prefix}bias`);
    return isPlain ? { name, shape: [weight.rows, weight.columns] as const } : null;
  });
  const known = named.filter((layer) => layer !== null);
  if (known.length < layers.length || new Set(known.map(({ name }) => name)).size < layers.length) return null;
  try {
    return orderLayers(known).every((layer, index) => layer === known[index]) ? known.map(({ name }) => name) : null;
  } catch {
    return null;
  }
}

function activationOf(layers: readonly Layer[]): { activation?: string } {
  const names = layers.map(({ activation }) => (activation ? textOf(activation) : "identity"));
  const output = layers.at(-1)!.activation;
  if (layers.length === 1 && output)
    fail(`the output of the only layer has the activation ${names[0]}, which such a file says of hidden layers alone; expected none`);
  if (!output) names.pop();
  const [first] = names;
  if (first === undefined) return {};
  return { activation: !output && names.every((name) => name === first) ? first : names.join(",") };
}

/** In float32 where that holds the numbers. */
function narrowed(numbers: Numbers): Numbers {
  return numbers.every((value) => value === Math.fround(value)) ? Float32Array.from(numbers) : numbers;
}

function fail(message: string): never {
  throw new ModelError(`toSafetensors: ${message}`);
}
