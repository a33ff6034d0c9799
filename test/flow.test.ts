import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Flow } from "../src/index.js";
import { parseSafetensors } from "../src/model/readers/safetensors.js";
import { openDevice } from "./device.js";
import { loadModel } from "./fields.js";
import { readTensors } from "./tensors.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

const flows = [
  { name: "two-moons-flow", tolerance: 2e-4 },
  { name: "checkerboard-flow", tolerance: 3e-4 },
  { name: "digits-flow", tolerance: 1e-3 },
];

function expectNear(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, label: string): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++)
    if (!(Math.abs(actual[i]! - expected[i]!) <= tolerance)) expect.fail(`${label}[${i}] is ${actual[i]}; expected ${expected[i]}`);
}

describe.each(flows)("$name", ({ name, tolerance }) => {
  const network = parseSafetensors(loadModel(name).bytes);
  const { tensors } = readTensors(readFileSync(new URL(`vectors/flows/${name}.safetensors`, import.meta.url)));
  const of = (tensor: string): Float64Array => tensors.get(tensor) ?? expect.unreachable(`there is no ${tensor}`);

  test("log p, and where the points come from", async () => {
    const flow = await Flow.create(device, network);
    for (const solver of ["tsit5", "dopri5"] as const) {
      const { logProb, base, status, evaluations } = await flow.logProb(of("points"), { solver, rtol: 1e-6, atol: 1e-6 });
      expect(new Set(status)).toEqual(new Set(["done"]));
      expectNear(logProb, of("log_density"), tolerance, `${solver}: log p`);
      expectNear(base, of("points_at_0"), 1e-3, `${solver}: base`);
      for (const each of evaluations) expect(each).toBeGreaterThan(7);
    }
    flow.destroy();
  });

  test.each(["euler", "midpoint", "heun", "rk4"] as const)("20 steps of %s", async (solver) => {
    const flow = await Flow.create(device, network);
    const { points, divergenceIntegral, evaluations } = await flow.transport(of("start"), { solver, steps: 20 });
    expectNear(points, of(`${solver}_20.end`), 1e-4, "x");
    expectNear(divergenceIntegral, of(`${solver}_20.divergence_integral`), 1e-4, "the integral");
    expect(new Set(evaluations)).toEqual(new Set([20 * { euler: 1, midpoint: 2, heun: 2, rk4: 4 }[solver]]));
    flow.destroy();
  });
});
