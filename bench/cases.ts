import type { Network } from "deldot";
import { gridPoints, normalPoints, randomMlp, readNetwork, uniformNumbers } from "./networks.js";

/** A network at so many points. */
export interface Case {
  readonly name: string;
  readonly points: number;
  /** Only where everything is asked for: these take minutes on a software adapter. */
  readonly full: boolean;
  readonly make: (count: number) => Promise<Inputs>;
}

/** What a case evaluates. */
export interface Inputs {
  readonly network: Network;
  /** [count, d] */
  readonly points: Float32Array;
  /** Null where the network takes none, a number for all points, or [count, c]. */
  readonly context: number | Float32Array | null;
}

/** Whether every point has a context of its own. */
export const isPerPoint = (context: Inputs["context"]): context is Float32Array => typeof context === "object" && context !== null;

/** `layers` hidden layers of `width`, named d-width-layers. */
function chain(d: number, width: number, layers: number, points: number, activation = "tanh", full = false): Case {
  return {
    name: `${d}-${width}-${layers}`,
    points,
    full,
    make: async (count) => ({ network: randomMlp(d, width, layers, activation), points: normalPoints(2, count, d), context: null }),
  };
}

/** An architecture beyond chains; where it takes a context, every point has its own. */
function architecture(name: string, points: number): Case {
  return {
    name,
    points,
    full: false,
    make: async (count) => {
      const network = await readNetwork(`test/architectures/${name}.dynamo.onnx`);
      const { stateSize, contextSize } = network;
      const context = contextSize > 0 ? uniformNumbers(3, count * contextSize) : null;
      return { network, points: normalPoints(2, count, stateSize), context };
    },
  };
}

export const cases: readonly Case[] = [
  chain(2, 64, 2, 65536),
  chain(2, 64, 3, 65536),
  chain(3, 64, 2, 16384),
  chain(16, 128, 2, 4096),
  chain(64, 256, 2, 512),
  chain(64, 256, 3, 512),
  chain(64, 256, 2, 4096, "tanh", true),
  chain(64, 256, 3, 4096, "tanh", true),
  chain(784, 64, 2, 64),
  chain(784, 512, 2, 64),
  // The shape of FFJORD's network for MINIBOONE.
  chain(43, 860, 2, 256, "softplus"),
  {
    name: "digits-flow",
    points: 512,
    full: false,
    make: async (count) => {
      const network = await readNetwork("demo/models/digits-flow.safetensors");
      return { network, points: normalPoints(2, count, network.stateSize), context: 0.5 };
    },
  },
  {
    name: "two-moons-flow",
    points: 1024 * 1024,
    full: false,
    make: async (count) => {
      const side = Math.ceil(Math.sqrt(count));
      const points = gridPoints(side, 3).slice(0, 2 * count);
      return { network: await readNetwork("demo/models/two-moons-flow.safetensors"), points, context: 0.9 };
    },
  },
  architecture("residual", 16384),
  architecture("concatsquash", 16384),
  architecture("layernorm", 16384),
];

/** "2-64-2,65536" */
export const labelOf = (name: string, points: number): string => `${name},${points}`;
