import { existsSync, readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, parseOnnx, parseSafetensors, VectorField, type Network } from "../src/index.js";
import type { OnnxOptions } from "../src/model/readers/onnx.js";
import type { SafetensorsOptions } from "../src/model/readers/safetensors.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";

/** Networks as people export and save them, with float64 truth: x [n, d], context [n, c], y = f, diag, div. */
const folder = new URL("cases/", import.meta.url);
const names = readdirSync(folder);

interface Truth {
  readonly x: number[];
  readonly context: number[] | null;
  readonly y: number[];
  readonly div: number[];
  readonly diag: number[];
  readonly absJacDiagSum: number[];
}

/** Files that can be read in two ways, what the refusal names where there is one, and the answer. */
const answers: Readonly<Record<string, { refusal?: RegExp; options: OnnxOptions & SafetensorsOptions }>> = {
  diffrax_d1: { refusal: /"in_0" \[batch, 1\], "in_1" \[batch, 1\] .* options\.state$/, options: { state: "in_1" } },
  onnx_t_args: { refusal: /"args_0" \[batch, 1\], "args_1" \[batch, 1\] .* options\.state$/, options: { state: "args_1" } },
  sbi_theta_x: { refusal: /"theta" \[batch, 2\], "x" \[batch, 2\] .* options\.state$/, options: { state: "theta" } },
  st_ema_both: { refusal: /prefix: "model\.net\." or prefix: "ema\.module\.net\."/, options: { prefix: "model." } },
  st_time_first: { options: { contextColumns: "first" } },
  st_norm_buffers: { refusal: /"mean".*ignore: \["mean"/, options: { ignore: ["mean", "std"] } },
  st_format_pt: { refusal: /activation: "silu"/, options: { activation: "silu" } },
  external: {
    refusal: /has its data in the file "model\.onnx\.data"; .* options\.externalData$/,
    options: { externalData: beside("external") },
  },
};

function beside(name: string): { get(location: string): Uint8Array | undefined } {
  return { get: (location) => readFileSync(new URL(`${name}/${location}`, folder)) };
}

function read(name: string, options?: OnnxOptions & SafetensorsOptions): Network {
  const onnx = new URL(`${name}/model.onnx`, folder);
  return existsSync(onnx)
    ? parseOnnx(readFileSync(onnx), options)
    : parseSafetensors(readFileSync(new URL(`${name}/model.safetensors`, folder)), options);
}

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

describe.for(names)("%s", (name) => {
  const truth = JSON.parse(readFileSync(new URL(`${name}/truth.json`, folder), "utf8")) as Truth;
  const answer = answers[name];

  if (answer?.refusal)
    test("is refused without an answer", () => {
      expect(() => read(name)).toThrow(answer.refusal);
    });

  test("has the truth's numbers, by the reference and on the GPU", async () => {
    const network = read(name, answer?.options);
    const context = truth.context ? Float64Array.from(truth.context) : null;
    const x = Float64Array.from(truth.x);
    const field = await VectorField.create(device, network);
    const outputs = ["value", "divergence"] as const;
    const scale = truth.y.map((number) => 1 + Math.abs(number));
    const reference = evaluateReference(network, x, { context, outputs: ["value", "divergence", "diagonal"] });
    // PyTorch multiplies the norms of weights out in float32.
    const near = /weight_norm|spectral/.test(name) ? { relative: 1e-6, absolute: 1e-8 } : { relative: 1e-9, absolute: 1e-12 };
    expectClose(reference.value!, truth.y, scale, { ...near, label: "value" });
    expectClose(reference.diagonal!, truth.diag, truth.diag.map(Math.abs), { relative: 1e-6, absolute: 1e-8, label: "diagonal" });
    expectClose(reference.divergence!, truth.div, truth.absJacDiagSum, { ...near, label: "divergence" });
    const result = await field.evaluate(x, { context, outputs });
    expectClose(result.value, truth.y, scale, { label: "value on the GPU" });
    expectClose(result.divergence, truth.div, truth.absJacDiagSum, { label: "divergence on the GPU" });
    field.destroy();
  });
});
