import { existsSync, readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, parseOnnx, VectorField, type Network } from "../src/index.js";
import type { OnnxOptions } from "../src/model/readers/onnx.js";
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

/** Files that can be read in two ways, what the refusal names, and the answer. */
const answers: Readonly<Record<string, { refusal: RegExp; options: OnnxOptions }>> = {
  diffrax_d1: { refusal: /"in_0" \[batch, 1\], "in_1" \[batch, 1\] .* options\.state$/, options: { state: "in_1" } },
  onnx_t_args: { refusal: /"args_0" \[batch, 1\], "args_1" \[batch, 1\] .* options\.state$/, options: { state: "args_1" } },
  sbi_theta_x: { refusal: /"theta" \[batch, 2\], "x" \[batch, 2\] .* options\.state$/, options: { state: "theta" } },
  external: {
    refusal: /has its data in the file "model\.onnx\.data"; .* options\.externalData$/,
    options: { externalData: beside("external") },
  },
};

function beside(name: string): { get(location: string): Uint8Array | undefined } {
  return { get: (location) => readFileSync(new URL(`${name}/${location}`, folder)) };
}

function read(name: string, options?: OnnxOptions): Network {
  return parseOnnx(readFileSync(new URL(`${name}/model.onnx`, folder)), options);
}

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

describe.for(names.filter((name) => existsSync(new URL(`${name}/model.onnx`, folder))))("%s", (name) => {
  const truth = JSON.parse(readFileSync(new URL(`${name}/truth.json`, folder), "utf8")) as Truth;
  const answer = answers[name];

  if (answer)
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
    const near = { relative: 1e-9, absolute: 1e-12 };
    expectClose(reference.value!, truth.y, scale, { ...near, label: "value" });
    expectClose(reference.diagonal!, truth.diag, truth.diag.map(Math.abs), { relative: 1e-7, absolute: 1e-9, label: "diagonal" });
    expectClose(reference.divergence!, truth.div, truth.absJacDiagSum, { ...near, label: "divergence" });
    const result = await field.evaluate(x, { context, outputs });
    expectClose(result.value, truth.y, scale, { label: "value on the GPU" });
    expectClose(result.divergence, truth.div, truth.absJacDiagSum, { label: "divergence on the GPU" });
    field.destroy();
  });
});
