import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, VectorField } from "../src/index.js";
import { answers, caseNames, readCase, truthOfCase } from "./cases.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

describe.for(caseNames)("%s", (name) => {
  const truth = truthOfCase(name);
  const answer = answers[name];

  if (answer?.refusal)
    test("is refused without an answer", () => {
      expect(() => readCase(name)).toThrow(answer.refusal);
    });

  test("has the truth's numbers, by the reference and on the GPU", async () => {
    const network = readCase(name, answer?.options);
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
