import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, mlp, VectorField } from "../src/index.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { loadModel } from "./fields.js";

/**
 * What `torch.autograd.grad(f(x), x, grad_outputs=torch.ones_like(x))` gives: Jᵀ 1, so entry j is the sum of column j.
 * Adding its entries up adds up all of J, off the diagonal too, and that is not the divergence.
 *
 * @param jacobian [B, d, d]
 * @returns [B]
 */
function sumOfGradWithOnes(jacobian: Float32Array | Float64Array, d: number): number[] {
  return Array.from({ length: jacobian.length / (d * d) }, (_, point) => {
    const j = jacobian.subarray(point * d * d, (point + 1) * d * d);
    const grad = Array.from({ length: d }, (_, column) => sum(Array.from({ length: d }, (_, row) => j[row * d + column]!)));
    return sum(grad);
  });
}

const sum = (numbers: ArrayLike<number>): number => Array.from(numbers).reduce((total, x) => total + x, 0);

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

describe("summing grad(f, x, grad_outputs = ones)", () => {
  test("gives the sum of all entries of A for a linear field, 46, where the divergence is tr A, 16", async () => {
    const a = [
      [1, 2, 3],
      [4, 5, 6],
      [7, 8, 10],
    ];
    const field = await VectorField.create(device, mlp({ layers: [{ weight: a }] }));
    const { divergence, jacobian } = await field.evaluate([1, -2, 0.5], { outputs: ["divergence", "jacobian"] });
    expect([...divergence]).toEqual([16]);
    expect(sumOfGradWithOnes(jacobian, 3)).toEqual([46]);
    expect(sumOfGradWithOnes(jacobian, 3)).toEqual([sum(a.flat())]);
    field.destroy();
  });

  test("gives 2 for a saddle without divergence, and 0 for a spiral with the divergence 2", async () => {
    const saddle = await VectorField.create(
      device,
      mlp({
        layers: [
          {
            weight: [
              [1, 1],
              [1, -1],
            ],
          },
        ],
      }),
    );
    const { divergence, jacobian } = await saddle.evaluate([3, 4], { outputs: ["divergence", "jacobian"] });
    expect([[...divergence], sumOfGradWithOnes(jacobian, 2)]).toEqual([[0], [2]]);
    const spiral = await VectorField.create(
      device,
      mlp({
        layers: [
          {
            weight: [
              [1, -3],
              [1, 1],
            ],
          },
        ],
      }),
    );
    const other = await spiral.evaluate([3, 4], { outputs: ["divergence", "jacobian"] });
    expect([[...other.divergence], sumOfGradWithOnes(other.jacobian, 2)]).toEqual([[2], [0]]);
    saddle.destroy();
    spiral.destroy();
  });

  test("gives what jvp(x, ones) sums to, which is wrong in the same way", async () => {
    const field = await VectorField.create(
      device,
      mlp({
        layers: [
          {
            weight: [
              [1, 2],
              [4, 8],
            ],
          },
        ],
      }),
    );
    expect(sum(await field.jvp([0.5, 0.5], [1, 1]))).toBe(15);
    expect([...(await field.divergence([0.5, 0.5]))]).toEqual([9]);
    field.destroy();
  });

  test("gives other numbers for two-moons-flow: 1.05 for 1.96, 4.89 for 4.44, 5.46 for 4.76, 6.08 for 4.72", async () => {
    const { network } = loadModel("two-moons-flow");
    const points = [0.5, 0.25, -1, 0.5, 1, -0.5, 0, 0];
    const exact = [1.96140736, 4.43644026, 4.76081263, 4.71868642];
    const summed = [1.05306239, 4.89092846, 5.4638207, 6.07557412];

    const reference = evaluateReference(network, points, { context: 0.9, outputs: ["divergence", "jacobian"] });
    expectClose(reference.divergence!, exact, exact, { relative: 1e-8, absolute: 0 });
    expectClose(sumOfGradWithOnes(reference.jacobian!, 2), summed, summed, { relative: 1e-8, absolute: 0 });

    const field = await VectorField.create(device, network);
    const { divergence, jacobian } = await field.evaluate(points, { context: 0.9, outputs: ["divergence", "jacobian"] });
    expectClose(divergence, exact, exact);
    expectClose(await field.divergence(points, { context: 0.9 }), exact, exact);
    expectClose(sumOfGradWithOnes(jacobian, 2), summed, summed);
    for (const [point, wrong] of summed.entries()) expect(Math.abs(wrong - exact[point]!)).toBeGreaterThan(0.4);
    field.destroy();
  });
});
