import { describe, expect, test } from "vitest";
import type { Capabilities } from "../../src/kernels/family.js";
import { families } from "../../src/kernels/tuned/index.js";
import type { Variant } from "../../src/schedule/steps.js";

const gpu: Capabilities = {
  lanes: 32,
  hasFloat16: true,
  isFallback: false,
  maxUniformBufferBindingSize: 65_536,
  maxStorageBufferBindingSize: 2 ** 27,
  maxUniformBuffersPerShaderStage: 12,
};

function parse(name: string): Variant | null {
  const found = families.flatMap((family) => family.parse(name, gpu) ?? []);
  expect(found.length).toBeLessThanOrEqual(1);
  return found[0]?.variant ?? null;
}

describe("the name of a variant", () => {
  test.for([
    "layers 8x16 in float16",
    "layers 4x16 by 8 lanes",
    "layers 8x8 in groups of 8x8",
    "layers 4x4 in groups of 16x16",
    "layers 3x12 in groups of 8x4 in float16",
    "fused uniform x2",
    "fused storage x4 in float16",
    "fused uniform x4 by 8 lanes",
  ])("%s is what its variant is called", (name) => {
    expect(parse(name)!.name).toBe(name);
  });

  test("says how many invocations of a group lie over rows, then over outputs", () => {
    expect(parse("layers 3x12 in groups of 8x4")!.tile).toMatchObject({ rows: 3, outputs: 12, down: 8, across: 4, workgroup: 32 });
  });

  test.for([
    ["more than 64 rows in a block", "layers 8x4 in groups of 16x4"],
    ["more than 64 outputs in a block", "layers 4x8 in groups of 4x16"],
    ["loads of rows that not all invocations have", "layers 2x4 in groups of 4x16"],
    ["a side that is no power of two", "layers 4x4 in groups of 12x4"],
    ["a side that is too long", "layers 1x4 in groups of 32x4"],
    ["outputs that are no whole vec4", "layers 4x6 in groups of 8x8"],
    ["lanes beside groups", "layers 4x16 by 8 lanes in groups of 8x4"],
    ["half a group", "layers 8x8 in groups of 8"],
    ["a fused kernel in groups", "fused storage x2 in groups of 8x8"],
    ["lanes that hand around a storage buffer", "fused storage x2 by 8 lanes"],
    ["float16 in a uniform block", "fused uniform x2 in float16"],
    ["a fused tile", "fused 4x4"],
  ])("is none with %s", ([, name]) => {
    expect(parse(name!)).toBeNull();
  });

  test("is that of every variant that is tried", () => {
    const tried = families.flatMap((family) => family.variants(gpu));
    expect(new Set(tried.map(({ name }) => name)).size).toBe(tried.length);
    for (const { name } of tried) expect(parse(name)?.name).toBe(name);
  });
});

describe("what is tried", () => {
  const names = (device: Capabilities): string[] => families.flatMap((family) => family.variants(device)).map(({ name }) => name);

  test("on a GPU includes groups that share workgroup memory, on a processor none", () => {
    expect(names(gpu).filter((name) => /groups of \d+x\d+$/.test(name))).toEqual([
      "layers 8x8 in groups of 8x8",
      "layers 4x4 in groups of 16x16",
    ]);
    expect(names({ ...gpu, isFallback: true }).filter((name) => name.includes("groups"))).toEqual([]);
  });

  test("needs no more lanes than there are", () => {
    const lanes = names({ ...gpu, lanes: 8 }).flatMap((name) => /by (\d+) lanes/.exec(name)?.[1] ?? []);
    expect(new Set(lanes)).toEqual(new Set(["8"]));
    expect(names({ ...gpu, lanes: 0 }).filter((name) => name.includes("lanes"))).toEqual([]);
  });
});
