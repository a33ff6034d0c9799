/** Fields out of files that are dropped onto the page or picked: read here, sent nowhere. */
import { ModelError, parseOnnx, parseSafetensors, type Activation, type Network } from "deldot";
import type { FieldSource, SafetensorsAnswers } from "../fields/code.js";
import { element, option } from "../base/page.js";
import type { Stage } from "../stage.js";

type Attempt = (work: Promise<unknown>) => void;

/** What most fields of the kind are trained with. */
const LIKELY: Activation["name"] = "tanh";

/** @param onUsed hears of the name of a file whose field is on the stage. */
export function bindFiles(
  stage: Stage,
  takesPoints: (name: string, bytes: Uint8Array) => boolean,
  attempt: Attempt,
  activations: readonly Activation["name"][],
  onUsed: (name: string) => void,
): void {
  const question = element("question", HTMLDialogElement);
  const activation = element("file-activation", HTMLSelectElement);
  const columns = element("file-columns", HTMLSelectElement);
  const input = element("file", HTMLInputElement);
  activation.append(...activations.map((name) => option(name, name)));
  let waiting: { bytes: Uint8Array; name: string; asksActivation: boolean; asksColumns: boolean } | null = null;

  const use = async (network: Network, source: Extract<FieldSource, { readonly file: string }>): Promise<void> => {
    question.close();
    waiting = null;
    await stage.useFile({ network, truth: null, source });
    if (stage.loaded?.network === network) onUsed(source.file);
  };
  /** A model, and whatever lies beside it: an .onnx file may have its weights in others. */
  const read = async (files: readonly File[]): Promise<void> => {
    question.close();
    const file = files.find((each) => isModel(each.name)) ?? files[0]!;
    const { name } = file;
    if (!isModel(name) && takesPoints(name, new Uint8Array(await file.arrayBuffer()))) return;
    if (!isModel(name)) throw new Error(`${name} is neither a field, .onnx or .safetensors, nor points, .npy or .csv`);
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (isOnnx(name)) {
      const others = files.filter((each) => each !== file);
      const externalData = new Map(
        await Promise.all(others.map(async (each) => [each.name, new Uint8Array(await each.arrayBuffer())] as const)),
      );
      return use(
        named(name, () => parseOnnx(bytes, { externalData })),
        { kind: "onnx", file: name, beside: [...externalData.keys()] },
      );
    }
    const { network, asksActivation } = named(name, () => readTensors(bytes));
    const asksColumns = network.contextSize > 0 && metadataOf(bytes)["contextColumns"] === undefined;
    if (!asksActivation && !asksColumns) return use(network, { kind: "safetensors", file: name, options: {} });
    waiting = { bytes, name, asksActivation, asksColumns };
    activation.value = LIKELY;
    columns.value = "last";
    element("file-activation-row", HTMLElement).hidden = !asksActivation;
    element("file-columns-row", HTMLElement).hidden = !asksColumns;
    element("question-of", HTMLElement).textContent = name;
    question.showModal();
    (asksActivation ? activation : columns).focus();
  };

  input.addEventListener("change", () => {
    const files = [...(input.files ?? [])];
    if (files.length > 0) attempt(read(files));
    input.value = "";
  });
  element("file-cancel", HTMLButtonElement).addEventListener("click", () => question.close());
  element("file-use", HTMLButtonElement).addEventListener("click", () => {
    if (!waiting) return;
    const { bytes, name, asksActivation, asksColumns } = waiting;
    const options: SafetensorsAnswers = {
      ...(asksActivation && { activation: activation.value }),
      ...(asksColumns && { contextColumns: columns.value === "first" ? "first" : "last" }),
    };
    attempt(
      (async () =>
        use(
          named(name, () => parseSafetensors(bytes, options)),
          { kind: "safetensors", file: name, options },
        ))(),
    );
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dropping");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length > 0) attempt(read(files));
  });
}

function isModel(name: string): boolean {
  return /\.(onnx|safetensors)$/i.test(name);
}

function isOnnx(name: string): boolean {
  return /\.onnx$/i.test(name);
}

/** What `read` gives; where it refuses the file, its name stands before the reason. */
function named<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    throw new ModelError(`${name}: ${error.message.replace("its bytes in options.externalData", "it dropped together with the model")}`);
  }
}

/** A file without an activation is read with the likely one, for what else there is to be known of it. */
function readTensors(bytes: Uint8Array): { network: Network; asksActivation: boolean } {
  try {
    return { network: parseSafetensors(bytes), asksActivation: false };
  } catch (error) {
    if (!(error instanceof ModelError) || !/activation/.test(error.message)) throw error;
    return { network: parseSafetensors(bytes, { activation: LIKELY }), asksActivation: true };
  }
}

/** What a safetensors file that has been read says of itself: a length of 8 bytes, then so much JSON. */
function metadataOf(bytes: Uint8Array): Record<string, string> {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as { __metadata__?: Record<string, string> };
  return header.__metadata__ ?? {};
}
