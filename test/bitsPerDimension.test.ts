import { expect, test } from "vitest";
import { bitsPerDimension, InputError } from "../src/index.js";

test("bits per dimension", () => {
  expect(bitsPerDimension(-Math.LN2 * 6, 3)).toBeCloseTo(2, 14);
  expect([...bitsPerDimension([-Math.LN2, Math.LN2, NaN], 1)]).toEqual([1, -1, NaN]);
  expect(() => bitsPerDimension(1, 0)).toThrow(InputError);
  expect(() => bitsPerDimension(1, 1.5)).toThrow(/d is 1.5/);
  expect(() => bitsPerDimension("1" as never, 1)).toThrow(/logProb/);
});
