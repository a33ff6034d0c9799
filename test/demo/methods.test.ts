import { afterEach, expect, test, vi } from "vitest";
import type { Engine } from "../../demo/src/engines/engine.js";
import { randomNetwork } from "../../demo/src/fields/shelf.js";
import { compare, type Compared } from "../../demo/src/tools/methods.js";
import { axesPlane } from "../../demo/src/base/plane.js";
import { initialState } from "../../demo/src/base/state.js";
import { evaluateReference } from "../../src/index.js";

afterEach(() => void vi.restoreAllMocks());

/** The comparison of a small network on an engine whose clock says that it compiles for a second, then takes `milliseconds` each time. */
async function compared(milliseconds: number): Promise<{ all: Compared[]; runs: Map<string, number> }> {
  let clock = 0;
  vi.spyOn(performance, "now").mockImplementation(() => clock);
  const network = randomNetwork({ ...initialState.random, width: 4 });
  const runs = new Map<string, number>();
  const evaluate: Engine["evaluate"] = async (points, options) => {
    const key = `${options.method} ${options.probes}`;
    const run = runs.get(key) ?? 0;
    runs.set(key, run + 1);
    clock += run === 0 ? 1000 : milliseconds;
    return evaluateReference(network, points, options);
  };
  const all: Compared[] = [];
  const shot = { plane: axesPlane(2, 0, 1, []), view: initialState.view, context: [] };
  await compare({ evaluate } as Engine, network, shot, 4, new AbortController().signal, (one) => all.push(one));
  return { all, runs };
}

test.each([
  [7, 4],
  [400, 2],
])("a method that takes %i ms once it is compiled is said to take as long, after %i runs", async (milliseconds, times) => {
  const { all, runs } = await compared(milliseconds);
  const exact = ["tangent", "cyclic", "jacobian", "coordinate"];
  for (const one of all) {
    const isOnes = one.contender.name === "ones";
    expect(one.milliseconds, one.contender.name).toBe(isOnes ? NaN : milliseconds);
    if (exact.includes(one.contender.name)) expect(one.worst).toBeLessThan(1e-12);
  }
  expect(all).toHaveLength(8);
  // The mistake's two evaluations have no method.
  const { "undefined undefined": mistake, ...others } = Object.fromEntries(runs);
  expect(mistake).toBe(2);
  expect(Object.values(others)).toEqual(Array<number>(7).fill(times));
});
