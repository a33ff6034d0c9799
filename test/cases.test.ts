import { existsSync, readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, test } from "vitest";
import { evaluateReference, parseOnnx, parseSafetensors, VectorField, type Network } from "../src/index.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";

/** Fields as people have them: a folder for each, with the file, and points with their values and divergences in float64. */
const folder = new URL("cases/", import.meta.url);

interface Truth {
  readonly x: readonly number[];
  readonly context: readonly number[] | null;
  readonly y: readonly number[];
  readonly div: readonly number[];
  /** Σ_i |∂f_i/∂x_i| per point. */
  readonly absJacDiagSum: readonly number[];
}

function load(name: string): { network: Network; truth: Truth } {
  const at = (file: string): URL => new URL(`${name}/${file}`, folder);
  const truth = JSON.parse(readFileSync(at("truth.json"), "utf8")) as Truth;
  const onnx = at("model.onnx");
  const network = existsSync(onnx) ? parseOnnx(readFileSync(onnx)) : parseSafetensors(readFileSync(at("model.safetensors")));
  return { network, truth };
}

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

test.for(readdirSync(folder))("%s has its value and its divergence, in the reference and on the GPU", async (name) => {
  const { network, truth } = load(name);
  const options = { context: truth.context, outputs: ["value", "divergence"] } as const;
  const sizes = truth.y.map((x) => 1 + Math.abs(x));
  const reference = evaluateReference(network, truth.x, options);
  const tight = { relative: 1e-10, absolute: 1e-12 };
  expectClose(reference.value!, truth.y, sizes, { ...tight, label: "reference value" });
  expectClose(reference.divergence!, truth.div, truth.absJacDiagSum, { ...tight, label: "reference divergence" });
  const field = await VectorField.create(device, network);
  const result = await field.evaluate(truth.x, options);
  expectClose(result.value, truth.y, sizes, { label: "value" });
  expectClose(result.divergence, truth.div, truth.absJacDiagSum, { label: "divergence" });
  field.destroy();
});
