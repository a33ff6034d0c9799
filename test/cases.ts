import { existsSync, readdirSync, readFileSync } from "node:fs";
import { parseOnnx, parseSafetensors, type Network } from "../src/index.js";
import type { OnnxOptions } from "../src/model/readers/onnx.js";
import type { SafetensorsOptions } from "../src/model/readers/safetensors.js";

/** Networks as people export and save them, with float64 truth: x [n, d], context [n, c], y = f, diag, div. */
const folder = new URL("cases/", import.meta.url);
/** The folders of them. */
export const caseNames: string[] = readdirSync(folder);

export interface CaseTruth {
  readonly x: number[];
  readonly context: number[] | null;
  readonly y: number[];
  readonly div: number[];
  readonly diag: number[];
  readonly absJacDiagSum: number[];
}

/** Files that can be read in two ways, what the refusal names where there is one, and the answer. */
export const answers: Readonly<Record<string, { refusal?: RegExp; options: OnnxOptions & SafetensorsOptions }>> = {
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

export function readCase(name: string, options?: OnnxOptions & SafetensorsOptions): Network {
  const onnx = new URL(`${name}/model.onnx`, folder);
  return existsSync(onnx)
    ? parseOnnx(readFileSync(onnx), options)
    : parseSafetensors(readFileSync(new URL(`${name}/model.safetensors`, folder)), options);
}

export function truthOfCase(name: string): CaseTruth {
  return JSON.parse(readFileSync(new URL(`${name}/truth.json`, folder), "utf8")) as CaseTruth;
}
