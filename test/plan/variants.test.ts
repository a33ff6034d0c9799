import { describe, expect, test } from "vitest";
import { InputError } from "../../src/index.js";
import { nameOfVariant, parseVariant } from "../../src/plan/variants.js";

describe("the name of a variant", () => {
  test.for([
    "layers 4x4",
    "layers 8x16 in float16",
    "layers 4x16 by 8 lanes",
    "layers 8x8 in groups of 8x8",
    "layers 4x4 in groups of 16x16",
    "layers 3x12 in groups of 8x4 in float16",
    "fused uniform x2",
    "fused storage x4 in float16",
    "fused uniform x4 by 8 lanes",
    "fused literal x2 in step",
  ])("%s is what its variant is called", (name) => {
    expect(nameOfVariant(parseVariant(name))).toBe(name);
  });

  test("says how many invocations of a group lie over rows, then over outputs", () => {
    const group = { down: 8, across: 4 };
    expect(parseVariant("layers 3x12 in groups of 8x4")).toEqual({ kind: "layers", tile: { rows: 3, outputs: 12, lanes: 0, group } });
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
    ["loops in step", "fused uniform x2 in step"],
  ])("has none with %s", ([, name]) => {
    expect(() => parseVariant(name!)).toThrow(InputError);
  });
});
