import { describe, expect, test } from "vitest";
import { mlp, type Network } from "../../src/index.js";
import { parseActivation } from "../../src/model/activation.js";
import { isRightBesideKink } from "../../src/node/cli/verify.js";

describe("a point out of tolerance", () => {
  // ∂f/∂x = 2 where x > 0.3 and 0 below; 0.3 in float32 is just above.
  const kinked = mlp({
    layers: [{ weight: [[1]], bias: [-0.3] }, { weight: [[2]] }],
    activation: "relu",
  });
  const at = (...points: number[]): { points: Float32Array; context: undefined } => ({
    points: Float32Array.from(points),
    context: undefined,
  });

  test("counts as right where the reference has its value on the other side of a kink", () => {
    expect(isRightBesideKink(kinked, at(0.3), 0, 0, 1e-5)).toBe(true);
    expect(isRightBesideKink(kinked, at(5, 0.3), 1, 0, 1e-5)).toBe(true);
  });

  test("counts as right beside a step, one of infinitely many", () => {
    // (x - floor(x))², whose derivative is 0 at 2 and 2 just below.
    const wrapped: Network = {
      stateSize: 1,
      contextSize: 0,
      operations: [
        { kind: "activation", operand: "state", activation: parseActivation("floor") },
        {
          kind: "linear",
          terms: [
            { operand: "state", weight: { diagonal: Float32Array.of(1) } },
            { operand: 0, weight: { diagonal: Float32Array.of(-1) } },
          ],
          bias: null,
        },
        { kind: "activation", operand: 1, activation: parseActivation("square") },
      ],
    };
    expect(isRightBesideKink(wrapped, at(2), 0, 2, 1e-4)).toBe(true);
    expect(isRightBesideKink(wrapped, at(2), 0, 1, 1e-4)).toBe(false);
    expect(isRightBesideKink(wrapped, at(1.75), 0, 2, 1e-4)).toBe(false);
  });

  test("does not where the value is wrong, or the kink is elsewhere", () => {
    expect(isRightBesideKink(kinked, at(0.3), 0, 0.5, 1e-5)).toBe(false);
    expect(isRightBesideKink(kinked, at(0.3), 0, NaN, 1e-5)).toBe(false);
    expect(isRightBesideKink(kinked, at(0.31), 0, 0, 1e-5)).toBe(false);
  });

  test("does not on a slope, however steep", () => {
    const steep = mlp({ layers: [{ weight: [[1e4]] }, { weight: [[1e-4]] }], activation: "tanh" });
    expect(isRightBesideKink(steep, at(1e-4), 0, 0.42, 1e-2)).toBe(false);
  });
});
