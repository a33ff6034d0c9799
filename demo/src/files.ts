/** Fields out of files that are dropped onto the page or picked: read here, sent nowhere. */
import { ModelError, parseOnnx, parseSafetensors, type Activation, type Network } from "deldot";
import type { App } from "./app.js";
import { element, option } from "./page.js";

type Attempt = (work: Promise<unknown>) => void;

/** What most fields of the kind are trained with. */
const LIKELY: Activation["name"] = "tanh";

export function bindFiles(app: App, attempt: Attempt, activations: readonly Activation["name"][]): void {
  const question = element("question", HTMLElement);
  const choice = element("file-activation", HTMLSelectElement);
  const input = element("file", HTMLInputElement);
  choice.append(...activations.map((name) => option(name, name)));
  let waiting: { bytes: Uint8Array; name: string } | null = null;

  const use = (network: Network, name: string): Promise<void> => {
    question.hidden = true;
    waiting = null;
    return app.useFile({ network, truth: null, file: name, isOnnx: isOnnx(name) });
  };
  const read = async (file: File): Promise<void> => {
    question.hidden = true;
    if (!/\.(onnx|safetensors)$/i.test(file.name))
      throw new Error(`${file.name} is neither .onnx nor .safetensors; export the field as one of them, as the README shows`);
    const bytes = new Uint8Array(await file.arrayBuffer());
    try {
      await use(isOnnx(file.name) ? parseOnnx(bytes) : parseSafetensors(bytes), file.name);
    } catch (error) {
      if (!(error instanceof ModelError)) throw error;
      if (isOnnx(file.name) || !/activation/.test(error.message)) throw named(error, file.name);
      // The tensors are all right: only what stands between them is missing.
      waiting = { bytes, name: file.name };
      choice.value = LIKELY;
      question.hidden = false;
      choice.focus();
    }
  };

  input.addEventListener("change", () => {
    const [file] = input.files ?? [];
    if (file) attempt(read(file));
    input.value = "";
  });
  element("file-use", HTMLButtonElement).addEventListener("click", () => {
    if (!waiting) return;
    const { bytes, name } = waiting;
    attempt(
      (async () => use(parseSafetensors(bytes, { activation: choice.value }), name))().catch((error) => Promise.reject(named(error, name))),
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
    const [file] = event.dataTransfer?.files ?? [];
    if (file) attempt(read(file));
  });
}

function isOnnx(name: string): boolean {
  return /\.onnx$/i.test(name);
}

function named(error: unknown, name: string): Error {
  return new Error(`${name}: ${(error as Error).message}`);
}
