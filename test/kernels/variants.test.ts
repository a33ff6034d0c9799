import { expect, test } from "vitest";
import type { Capabilities } from "../../src/kernels/capabilities.js";
import { tunedVariants } from "../../src/kernels/tuned/index.js";

/** What is tried on a device, those in float16 apart. */
const tried = (device: Capabilities): string[] =>
  tunedVariants.filter(({ variant, isTried }) => isTried(device) && !variant.tile.half).map(({ variant }) => variant.name);

const gpu: Capabilities = { lanes: 32, hasFloat16: true, isFallback: false };

test("every variant has a name of its own, and one in float16 beside it", () => {
  const names = tunedVariants.map(({ variant }) => variant.name);
  expect(new Set(names).size).toBe(names.length);
  for (const { variant } of tunedVariants) {
    expect(variant.name.endsWith(" in float16")).toBe(variant.tile.half);
    if (!variant.tile.half) expect(names).toContain(`${variant.name} in float16`);
  }
});

test("on a GPU what shares workgroup memory and what is fused is tried, whatever lanes it has", () => {
  for (const lanes of [0, 4, 32])
    expect(tried({ ...gpu, lanes })).toEqual(["layers 8x16", "layers 4x4 in groups of 16x16", "fused storage x2"]);
});

test("on a processor tiles are tried, by no more lanes than there are", () => {
  const processor = { ...gpu, isFallback: true };
  expect(tried({ ...processor, lanes: 8 })).toEqual(["layers 8x16", "layers 4x16 by 8 lanes"]);
  expect(tried({ ...processor, lanes: 4 })).toEqual(["layers 8x16"]);
});
