/** Files as people have them, under test/cases, each beside what PyTorch or JAX computes in float64; test/cases/README.md tells of them. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { evaluateReference, parseSafetensors, VectorField, type SafetensorsOptions } from "../../src/index.js";
import { expectClose } from "../close.js";
import { openDevice } from "../device.js";

interface Truth {
  readonly x: number[];
  readonly context: number[] | null;
  readonly y: number[];
  readonly div: number[];
  readonly absJacDiagSum: number[];
  readonly diag: number[];
}

/** What a person has to say beside the file, and what the reader answers before they do. */
interface Case {
  readonly name: string;
  readonly options?: SafetensorsOptions;
  readonly refusal?: RegExp;
  readonly note?: RegExp;
  /** The truth's weights are in float64 but where PyTorch had multiplied them out in float32 before. */
  readonly relative?: number;
}

const cases: readonly Case[] = [
  { name: "batchnorm", note: /left out as no part of the field: 1\.num_batches_tracked/ },
  {
    name: "ema-both",
    options: { prefix: "model." },
    refusal: /begin two sequences; expected one, as of prefix: "model\.net\." or prefix: "ema\.module\.net\."/,
    note: /6 tensors whose names do not begin with "model\." are left out/,
  },
  { name: "encoder-decoder", note: /chain of 2 layers: encoder -> decoder;/ },
  { name: "fc-in", note: /fc_in -> fc_hidden -> fc_out/ },
  { name: "flax", note: /params\.Dense_0 -> params\.Dense_1 -> params\.Dense_2/ },
  { name: "format-pt", options: { activation: "silu" }, refusal: /no activation was given for 2 hidden layers; .* activation: "silu"/ },
  { name: "hidden-words", note: /fc_in -> fc_mid_one -> fc_mid_two -> fc_mid_three -> fc_out/ },
  { name: "lin-first-last", note: /lin_first -> lin_mid -> lin_last/ },
  {
    name: "norm-buffers",
    options: { ignore: ["mean", "std"] },
    refusal: /"mean" of shape \[3\] is not part .* ignore: \["mean", "std"\]/,
    note: /left out as no part of the field: mean, std/,
  },
  { name: "prelu", note: /a state_dict does not show skips/ },
  { name: "spectral", relative: 1e-7 },
  { name: "square-named", note: /embed -> body -> head/ },
  { name: "time-first", options: { contextColumns: "first" } },
  {
    name: "weight-norm",
    relative: 1e-7,
    note: /context: the last 1 of 4 inputs; where they come first, contextColumns: "first"/,
  },
];

function load(name: string): { bytes: Uint8Array; truth: Truth } {
  const folder = new URL(`../cases/${name}/`, import.meta.url);
  return {
    bytes: readFileSync(new URL("model.safetensors", folder)),
    truth: JSON.parse(readFileSync(new URL("truth.json", folder), "utf8")) as Truth,
  };
}

describe("files that people have", () => {
  it.each(cases)("$name: the reference gives the truth", ({ name, options, refusal, note, relative = 1e-10 }) => {
    const { bytes, truth } = load(name);
    if (refusal) expect(() => parseSafetensors(bytes)).toThrow(refusal);
    const network = parseSafetensors(bytes, options);
    expect(network.notes?.join("\n")).toMatch(note ?? /^read as a chain of/);
    const { value, divergence, diagonal } = evaluateReference(network, truth.x, {
      context: truth.context,
      outputs: ["value", "divergence", "diagonal"],
    });
    const tolerance = { relative, absolute: relative / 10 };
    expectClose(value!, truth.y, truth.y.map(Math.abs), { ...tolerance, label: "value" });
    expectClose(diagonal!, truth.diag, truth.diag.map(Math.abs), { ...tolerance, label: "diagonal" });
    expectClose(divergence!, truth.div, truth.absJacDiagSum, { ...tolerance, label: "divergence" });
  });

  describe("on the software GPU", () => {
    let opened: Awaited<ReturnType<typeof openDevice>>;
    beforeAll(async () => {
      opened = await openDevice();
    });
    afterAll(() => opened.close());

    it("every one gives the truth", async () => {
      for (const { name, options } of cases) {
        const { bytes, truth } = load(name);
        const field = await VectorField.create(opened.device, parseSafetensors(bytes, options));
        const { divergence } = await field.evaluate(truth.x, { context: truth.context ?? undefined });
        expectClose(divergence, truth.div, truth.absJacDiagSum, { relative: 2e-5, absolute: 1e-6, label: name });
        field.destroy();
      }
    });
  });
});
