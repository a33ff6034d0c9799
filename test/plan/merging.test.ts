import { beforeAll, describe, expect, test } from "vitest";
import type { Network, PlanOptions } from "../../src/index.js";
import { loadFusing } from "../../src/plan/fusing.js";
import { scheduleChunk } from "../../src/plan/schedule.js";
import type { Chunk } from "../../src/plan/steps.js";
import { makePlan } from "../../src/plan/trace.js";
import { parseVariant } from "../../src/plan/variants.js";
import { randomMlp } from "../fields.js";

beforeAll(() => loadFusing());

const limits = {
  maxStorageBufferBindingSize: 2 ** 27,
  maxBufferSize: 2 ** 28,
  minStorageBufferOffsetAlignment: 256,
  memoryBudget: 2 ** 26,
  multiplyAddsPerSubmit: Infinity,
};

function chunkOf(network: Network, options: PlanOptions, kernels: string): Chunk {
  const route = { to: "host", sharedContext: true } as const;
  return scheduleChunk(makePlan(network, options), 0, 10, { points: 10, tangentsAtOnce: 1 }, limits, route, parseVariant(kernels));
}

const kernelsOf = ({ submissions }: Chunk): string[] => submissions.flatMap(({ steps }) => steps.map(({ kernel }) => kernel));

describe("the last two products of a bilinear form", () => {
  const { network } = randomMlp({ seed: 1, widths: [8, 20, 24, 8], activation: "tanh" });

  test("are one step by lanes, with no slopes in memory", () => {
    const chunk = chunkOf(network, { outputs: ["divergence"] }, "layers 4x16 by 8 lanes");
    expect(kernelsOf(chunk)).toEqual(["primal", "bilinear"]);
    const [first, second] = chunk.submissions[0]!.steps;
    expect(second!.bindings["scale"]).toEqual(first!.bindings["scale"]);
    expect(second!.parameters["outWidth"]).toBe(0);
    expect([...chunk.scratch.keys()].filter((name) => name.startsWith("derivative"))).toHaveLength(1);
    expect(second!.multiplyAdds).toBe(10 * 2 * 20 * 24);
  });

  test("give the divergence of short rows at once where it stays on the device", () => {
    const outer = { points: { offset: 0, stride: 8 }, divergence: { offset: 8, stride: 3 } };
    const route = { to: "device", outer, sharesBuffers: false } as const;
    const plan = makePlan(network, { outputs: ["divergence"] });
    const variant = parseVariant("layers 4x16 by 8 lanes");
    const chunk = scheduleChunk(plan, 0, 10, { points: 10, tangentsAtOnce: 1 }, limits, route, variant);
    expect(kernelsOf(chunk)).toEqual(["primal", "bilinear"]);
    const { bindings, parameters } = chunk.submissions[0]!.steps[1]!;
    expect(bindings["terms"]).toMatchObject({ kind: "outer", name: "divergence" });
    expect(parameters).toMatchObject({ parts: 1, termsOffset: 2, termsStride: 3 });
    expect(chunk.scratch.has("terms")).toBe(false);
  });

  test("leave what f needs", () => {
    const chunk = chunkOf(network, { outputs: ["value", "divergence"] }, "layers 4x16 by 8 lanes");
    expect(kernelsOf(chunk)).toEqual(["primal", "bilinear", "primal"]);
    const [, bilinear, last] = chunk.submissions[0]!.steps;
    expect(bilinear!.parameters["outWidth"]).toBe(24);
    expect(last!.bindings["a"]).toEqual(bilinear!.bindings["out"]);
  });

  test.for([
    ["in the plain kernels", network, "cyclic", "layers 4x4"],
    ["in tiles that would take long to compile", network, "cyclic", "layers 8x16 by 8 lanes"],
    ["of long rows", randomMlp({ seed: 3, widths: [8, 80, 80, 8], activation: "tanh" }).network, "cyclic", "layers 4x16 by 8 lanes"],
    ["in other methods", network, "jacobian", "layers 4x16 by 8 lanes"],
    [
      "of three hidden layers",
      randomMlp({ seed: 2, widths: [2, 6, 7, 8, 2], activation: "tanh" }).network,
      "cyclic",
      "layers 4x16 by 8 lanes",
    ],
  ] as const)("stay two steps %s", ([, of, method, kernels]) => {
    expect(kernelsOf(chunkOf(of, { method, outputs: ["divergence"] }, kernels))).not.toContain("bilinear");
  });
});
