import { describe, expect, test } from "vitest";
import { mlp, ReferenceField, type Field, type Network } from "../../src/index.js";
import { parseActivation } from "../../src/model/activation.js";
import { isRightBesideKink } from "../../src/node/cli/verify.js";
import { compareGradients, describeGradients, type ComparedGradients } from "../../src/node/cli/verifyGradient.js";

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

describe("gradients beside the reference's", () => {
  // The slope of elu is the same on both sides of x = 0.3 and its curvature is not: the divergence is right, its gradient jumps.
  const network = mlp({ layers: [{ weight: [[1]], bias: [-0.3] }, { weight: [[2]] }], activation: "elu" });
  const reference = new ReferenceField(network);
  // Of these points, 0.3 in float32 is just above 0.3.
  const samples = {
    points: Float32Array.of(-1, 0.3, 0.5),
    context: undefined,
    cotangents: { value: Float32Array.of(1, 2, -1), divergence: Float32Array.of(1, 1, 2) },
  };
  const settings = { method: "auto", signal: new AbortController().signal, relative: 1e-5 } as const;

  /** The reference, with every point moved, and each gradient of the parameters scaled. */
  function fieldThatErrs(moved: number, scale = 1): Field {
    const vjp = async (...[points, cotangents, options]: Parameters<Field["vjp"]>): Promise<unknown> => {
      const result = await reference.vjp(
        (points as Float32Array).map((x) => x + moved),
        cotangents,
        options as { wrt: ["parameters"] },
      );
      for (const { data } of Object.values(result.parameters)) data.forEach((value, index) => (data[index] = value * scale));
      return result;
    };
    return { network, vjp } as unknown as Field;
  }
  const compare = (moved: number, scale?: number): Promise<ComparedGradients> =>
    compareGradients(fieldThatErrs(moved, scale), reference, samples, settings);

  test("are within tolerance where they are the same", async () => {
    const compared = await compare(0);
    expect(compared).toMatchObject({ within: true, atKinks: 0 });
    expect(compared.tensors.map(({ name, shape, error }) => [name, shape, error])).toEqual([
      ["points", [3, 1], 0],
      ["0.weight", [1, 1], 0],
      ["0.bias", [1], 0],
      ["1.weight", [1, 1], 0],
    ]);
  });

  test("count without the points that are on the other side of a kink", async () => {
    const compared = await compare(-1e-7);
    expect(compared).toMatchObject({ within: true, atKinks: 1 });
    expect([...describeGradients(compared, null)].join("")).toContain("without 1 of the points, at a kink");
  });

  test("are out of tolerance where a point or a sum is wrong", async () => {
    expect(await compare(-1e-2)).toMatchObject({ within: false, atKinks: 0 });
    expect(await compare(0, 1.001)).toMatchObject({ within: false, atKinks: 0 });
    expect(await compare(0, NaN)).toMatchObject({ within: false, atKinks: 0 });
  });
});
