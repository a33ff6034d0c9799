/** Where a training run stands, as a safetensors file beside the model's: what later steps depend on, and the options of the run. */
import { InputError, ModelError } from "../../errors.js";
import { encodeTensors, readTensors } from "../../tensorFile.js";
import type { TrainerState } from "../../train/index.js";
import type { Floats } from "../../typedArrays.js";

const parts = ["weights", "averaged", "moments", "rates"] as const;

export interface StoredTraining {
  readonly state: TrainerState;
  /** As words of a command line. */
  readonly options: readonly string[];
}

export function encodeTraining({ state, options }: StoredTraining): Uint8Array {
  const metadata = { step: String(state.step), optimizer: state.optimizer, options: JSON.stringify(options) };
  return encodeTensors(
    metadata,
    parts.map((name) => ({ name, shape: [state[name].length], numbers: state[name] })),
  );
}

/** The numbers are checked by the trainer that takes them. @throws InputError, ModelError where the file is no such state. */
export function decodeTraining(bytes: Uint8Array): StoredTraining {
  const { metadata, tensors } = readTensors(bytes);
  const step = metadata.get("step") ?? "";
  if (!/^\d{1,10}$/.test(step)) throw new InputError("its __metadata__ has no step; expected the state of a training run");
  const numbersOf = (name: (typeof parts)[number]): Floats => {
    const tensor = tensors.find((each) => each.name === name);
    if (tensor?.dtype !== "F32") throw new InputError(`it has no tensor ${name} of float32; expected the state of a training run`);
    const { buffer, byteOffset, byteLength } = tensor.data;
    return new Float32Array((buffer as ArrayBuffer).slice(byteOffset, byteOffset + byteLength));
  };
  const [weights, averaged, moments, rates] = [numbersOf("weights"), numbersOf("averaged"), numbersOf("moments"), numbersOf("rates")];
  const optimizer = metadata.get("optimizer") as TrainerState["optimizer"];
  return { state: { step: Number(step), optimizer, weights, averaged, moments, rates }, options: readOptions(metadata.get("options")) };
}

function readOptions(text: string | undefined): readonly string[] {
  let options: unknown;
  try {
    options = JSON.parse(text ?? "");
  } catch (error) {
    throw new ModelError("its __metadata__ has no options in JSON; expected the state of a training run", { cause: error });
  }
  if (!Array.isArray(options) || !options.every((word) => typeof word === "string"))
    throw new ModelError("its __metadata__ has options that are no list of words; expected the state of a training run");
  return options;
}
