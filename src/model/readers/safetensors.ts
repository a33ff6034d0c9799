import { ModelError, quote } from "../../errors.js";
import { readTensors, wrongDtype, type StoredTensor } from "../../tensorFile.js";
import { bfloat16, float16 } from "../float16.js";
import { linearChain, type Network, type Numbers } from "../network.js";
import { readLayers } from "./safetensors/layers.js";

/** What a state_dict does not say. */
export interface SafetensorsOptions {
  /** As in {@link mlp}. Wins over the file's own `__metadata__.activation`. */
  activation?: string | readonly string[] | undefined;
  /** As in {@link mlp}. Wins over the file's own `__metadata__.contextColumns`. */
  contextColumns?: "last" | "first" | undefined;
  /** As in {@link mlp}: whether the file holds a potential, for {@link gradientField}. */
  potential?: boolean | undefined;
  /** As in {@link mlp}, of a potential. Default the file's own `__metadata__.context`, else 0. */
  contextSize?: number | undefined;
  /** The layers in order, each by its tensors' names less ".weight", where names and shapes do not tell the order. */
  layers?: readonly string[] | undefined;
  /** Only tensors whose names begin so are read: "ema." where a file holds a network and its moving average. */
  prefix?: string | undefined;
  /** Tensors that the field does without, or modules of such tensors: ["mean", "std"]. */
  ignore?: readonly string[] | undefined;
}

/** How to read a number; whole numbers, which only counters are, have none. */
const readers: ReadonlyMap<string, (view: DataView, offset: number) => number> = new Map([
  ["F64", (view, offset) => view.getFloat64(offset, true)],
  ["F32", (view, offset) => view.getFloat32(offset, true)],
  ["F16", (view, offset) => float16(view.getUint16(offset, true))],
  ["BF16", (view, offset) => bfloat16(view.getUint16(offset, true))],
]);

/** Far more than any list of activations, and few enough characters for patterns that take quadratic time. */
const maximumActivation = 10_000;

/**
 * Reads a safetensors file that holds one chain of linear layers under the names of PyTorch's state_dict, `net.0.weight`
 * [out, in] and, where there is one, `net.0.bias` [out], or of Flax and Keras, whose kernels are [in, out]. weight_norm and
 * spectral_norm are multiplied out; PReLU and BatchNorm1d stand where their numbers put them among the layers'. The layers' order is
 * that of the numbers in their names (2 before 10), else the only one in which the shapes chain, or `layers`. A state_dict does not
 * say what stands between them, so activations come from `__metadata__.activation` or from the caller, and a skip connection
 * cannot be seen; the network's notes say how the file was read. F64 stays float64; F32, F16 and BF16 become float32, exactly.
 *
 * `__metadata__` may also hold contextColumns ("last" or "first") and context, a number that the shapes have to confirm.
 *
 * @throws ModelError where the file is not valid safetensors, holds anything but such a chain, or leaves its order open.
 */
export function parseSafetensors(bytes: Uint8Array | ArrayBuffer, options: SafetensorsOptions = {}): Network {
  if (typeof bytes !== "object" || bytes === null) fail(`the file is ${quote(bytes)}; expected its bytes`);
  const { metadata, tensors: stored } = readTensors(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes));
  const tensors = stored.map((tensor) => ({ name: tensor.name, shape: tensor.shape, read: () => readNumbers(tensor) }));

  const activation = metadata.get("activation");
  if (activation !== undefined && activation.length > maximumActivation)
    fail(`__metadata__.activation has ${activation.length} characters; expected at most ${maximumActivation}`);
  const chain = {
    activation: options.activation ?? activation,
    // linearChain refuses any other text.
    contextColumns: options.contextColumns ?? (metadata.get("contextColumns") as "last" | "first" | undefined),
  };
  const { prefix, layers: order, ignore, potential } = options;
  const context = metadata.get("context");
  if (prefix !== undefined && typeof prefix !== "string") fail(`prefix is ${quote(prefix)}; expected what tensors' names begin with`);
  for (const [option, names] of Object.entries({ layers: order, ignore }))
    if (names !== undefined && !(Array.isArray(names) && names.every((name) => typeof name === "string")))
      fail(`${option} is ${quote(names)}; expected a list of names`);
  const { layers, notes } = readLayers(tensors, { activation: chain.activation, prefix, layers: order, ignore });
  // What is no such number is refused below.
  const contextSize =
    options.contextSize ?? (potential && context !== undefined && /^\d{1,9}$/.test(context) ? Number(context) : undefined);
  const network = linearChain("safetensors", layers, { ...chain, potential, contextSize });
  if (context !== undefined && context !== String(network.contextSize))
    fail(
      `__metadata__.context is ${quote(context)}; expected "${network.contextSize}", ${potential ? "as options.contextSize says" : "the inputs of the first layer minus the outputs of the last"}`,
    );
  if (network.contextSize > 0 && chain.contextColumns === undefined)
    notes.push(
      `context: the last ${network.contextSize} of ${network.stateSize + network.contextSize} inputs; where they come first, contextColumns: "first"`,
    );
  return { ...network, notes };
}

function readNumbers(tensor: StoredTensor): Numbers {
  const { dtype, data } = tensor;
  const read = readers.get(dtype);
  if (!read) throw wrongDtype(tensor);
  const bytes = dtype === "F64" ? 8 : dtype === "F32" ? 4 : 2;
  const count = data.byteLength / bytes;
  const numbers = bytes === 8 ? new Float64Array(count) : new Float32Array(count);
  for (let i = 0; i < count; i++) numbers[i] = read(data, i * bytes);
  return numbers;
}

function fail(message: string): never {
  throw new ModelError(`safetensors: ${message}`);
}
