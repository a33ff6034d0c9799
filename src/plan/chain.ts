import { ModelError, quote } from "../errors.js";
import { isIdentity, type Activation } from "../model/activation.js";
import { isDiagonal, type Matrix, type Network, type Numbers } from "../model/network.js";

/** One layer z = W a + C c + b, followed by σ; the first layer's `a` is the state, and only it reads the context. */
export interface ChainLayer {
  /** [width, width of the layer before]. */
  readonly weight: Matrix;
  /** [width, c] in the first layer of a field with a context. */
  readonly contextWeight: Matrix | null;
  readonly bias: Numbers | null;
  /** null where there is none, or where it is the identity. */
  readonly activation: Activation | null;
}

/** A network whose operations follow one another: what the plan counts and the kernels run. */
export interface Chain {
  readonly stateSize: number;
  readonly contextSize: number;
  readonly layers: readonly ChainLayer[];
}

const chains = new WeakMap<Network, Chain>();

/** Reads a network's graph as one chain of layers. @throws ModelError where the graph is not a chain. */
export function chainOf(network: Network): Chain {
  if (!Array.isArray(network?.operations)) throw new ModelError(`network is ${quote(network)}; expected one that mlp or parseSafetensors made`);
  const known = chains.get(network);
  if (known) return known;

  const layers: { -readonly [K in keyof ChainLayer]: ChainLayer[K] }[] = [];
  network.operations.forEach((operation, index) => {
    if (operation.kind === "activation") {
      const layer = layers.at(-1);
      if (operation.operand !== index - 1 || !layer || layer.activation)
        throw new ModelError(`operation ${index} applies ${operation.activation} to ${operation.operand}; expected the linear operation before it`);
      if (!isIdentity(operation.activation)) layer.activation = operation.activation;
      return;
    }
    if (operation.kind !== "linear") throw new ModelError(`operation ${index} is a ${operation.kind}; the network is not a chain`);
    const expected = index === 0 ? "state" : index - 1;
    let weight: Matrix | null = null;
    let contextWeight: Matrix | null = null;
    for (const term of operation.terms) {
      if (isDiagonal(term.weight)) throw new ModelError(`operation ${index} multiplies ${term.operand} element by element; the network is not a chain`);
      if (term.operand === expected && !weight) weight = term.weight;
      else if (term.operand === "context" && index === 0 && !contextWeight) contextWeight = term.weight;
      else throw new ModelError(`operation ${index} reads ${term.operand}; expected ${expected}${index === 0 ? " and at most one context" : ""}`);
    }
    if (!weight) throw new ModelError(`operation ${index} does not read ${expected}, the value before it`);
    layers.push({ weight, contextWeight, bias: operation.bias, activation: null });
  });
  const chain = { stateSize: network.stateSize, contextSize: network.contextSize, layers };
  chains.set(network, chain);
  return chain;
}
