import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  evaluateReference,
  explainPlan,
  InputError,
  methods,
  outputs,
  PlanError,
  VectorField,
  type Method,
  type Network,
  type Output,
} from "../../src/index.js";
import { candidatesOf } from "../../src/plan/candidates.js";
import { graphOf } from "../../src/plan/graph.js";
import { randomMlp } from "../fields.js";

function hiddenLayers(d: number, h: number, count: number, activation = "tanh"): Network {
  return randomMlp({ seed: 1, widths: [d, ...Array<number>(count).fill(h), d], activation }).network;
}

/** d, h, L, and multiply-adds of the trace over those of f: d tangents, and the merged cycle. */
const costs = [
  { d: 2, h: 64, L: 2, tangent: "1.9", cyclic: "0.94", chosen: "cyclic" },
  { d: 2, h: 64, L: 3, tangent: "2.0", cyclic: "32", chosen: "tangent" },
  { d: 16, h: 128, L: 2, tangent: "13", cyclic: "0.80", chosen: "cyclic" },
  { d: 64, h: 256, L: 2, tangent: "43", cyclic: "0.67", chosen: "cyclic" },
  { d: 64, h: 256, L: 3, tangent: "51", cyclic: "1.0e+2", chosen: "tangent" },
  { d: 784, h: 512, L: 2, tangent: "1.9e+2", cyclic: "0.25", chosen: "cyclic" },
  { d: 784, h: 512, L: 3, tangent: "3.1e+2", cyclic: "1.0e+2", chosen: "cyclic" },
];

describe("costs", () => {
  test.for(costs)("are those of the table for d = $d, h = $h, L = $L, and auto takes $chosen", ({ d, h, L, tangent, cyclic, chosen }) => {
    const { candidates, method, forwardMultiplyAdds } = explainPlan(hiddenLayers(d, h, L));
    const merged = candidates.filter((candidate) => candidate.method === "cyclic" && candidate.matrixBytes > 0);
    expect(ofMethod(candidates, "tangent").ratio.toPrecision(2)).toBe(tangent);
    expect(Math.min(...merged.map(({ ratio }) => ratio)).toPrecision(2)).toBe(cyclic);
    expect(method).toBe(chosen);
    expect(forwardMultiplyAdds).toBe(2 * d * h + (L - 1) * h * h);
  });

  test.for(costs)("follow from the widths alone for d = $d, h = $h, L = $L", ({ d, h, L }) => {
    const { candidates, forwardMultiplyAdds } = explainPlan(hiddenLayers(d, h, L));
    const square = (L - 1) * h * h;
    expect(ofMethod(candidates, "tangent").multiplyAdds).toBe(d * (square + h));
    expect(ofMethod(candidates, "jacobian").multiplyAdds).toBe(d * (square + h * d));
    expect(ofMethod(candidates, "coordinate").multiplyAdds).toBe(d * (square + h * d));
    expect(ofMethod(candidates, "difference").multiplyAdds).toBe(2 * d * forwardMultiplyAdds);
    expect(ofMethod(candidates, "hutchinson").multiplyAdds).toBe(16 * (forwardMultiplyAdds + d));
  });

  test("of a network with one hidden layer are one dot product, and with none nothing is left of the trace but a constant", () => {
    expect(explainPlan(hiddenLayers(10, 30, 1)).candidates.find(({ chosen }) => chosen)).toMatchObject({
      method: "cyclic",
      multiplyAdds: 30,
    });
    expect(explainPlan(hiddenLayers(10, 30, 0)).candidates.find(({ chosen }) => chosen)).toMatchObject({
      method: "cyclic",
      multiplyAdds: 1,
    });
  });

  test("of layers without an activation between them are those of one layer", () => {
    const { network } = randomMlp({ seed: 1, widths: [9, 30, 40, 30, 9], activation: ["identity", "tanh", "identity"] });
    expect(explainPlan(network)).toMatchObject({ method: "cyclic", forwardMultiplyAdds: 2 * 9 * 30 + 2 * 30 * 40 });
    expect(explainPlan(network).candidates.find(({ chosen }) => chosen)).toMatchObject({ multiplyAdds: 40 });
  });

  test("of a chain without any activation are one addition, of the constant itself", () => {
    const { network } = randomMlp({ seed: 1, widths: [9, 30, 40, 30, 20, 10, 30, 9], activation: "identity" });
    expect(explainPlan(network).candidates.find(({ chosen }) => chosen)).toMatchObject({ method: "cyclic", multiplyAdds: 1 });
  });

  test("fall with the narrowest layer: the tangents of the cycle start at the bottleneck", () => {
    const { network } = randomMlp({ seed: 1, widths: [50, 60, 3, 60, 60, 50], activation: "tanh" });
    const chosen = explainPlan(network).candidates.find((candidate) => candidate.chosen)!;
    expect(chosen.description).toBe("3 tangents from the columns of W3, through W1 W5, contracted with W2");
    expect(chosen.multiplyAdds).toBe(3 * (60 * 60 + 60 * 60 + 60));
  });

  test("of an activation at the output forbid merging across it", () => {
    const { network } = randomMlp({ seed: 1, widths: [5, 20, 20, 5], activation: ["tanh", "tanh", "tanh"] });
    expect(explainPlan(network).candidates.every(({ matrixBytes }) => matrixBytes === 0)).toBe(true);
  });

  test("of shared probes leave out the first matrix, which they pass once for all points, and the last, which they fold", () => {
    const network = hiddenLayers(7, 20, 2);
    const cost = (probesPer: "point" | "batch"): number =>
      ofMethod(explainPlan(network, { probes: 10, probesPer }).candidates, "hutchinson").multiplyAdds;
    expect(cost("point")).toBe(10 * (7 * 20 + 20 * 20 + 20 * 7 + 7));
    expect(cost("batch")).toBe(10 * (20 * 20 + 20));
  });
});

describe("auto", () => {
  const width = fc.integer({ min: 1, max: 200 });
  const widths = fc.tuple(width, fc.array(width, { maxLength: 5 })).map(([d, hidden]) => [d, ...hidden, d]);
  const activations = fc.array(fc.constantFrom("tanh", "identity"), { minLength: 6, maxLength: 6 });
  // Of most sizes there is no curl.
  const wanted = fc.subarray(
    outputs.filter((output) => output !== "curl"),
    { minLength: 1 },
  );

  test("takes the exact candidate with the fewest multiply-adds that delivers the outputs, and never an inexact one", () => {
    const property = fc.property(widths, activations, fc.boolean(), wanted, (all, names, atOutput, asked) => {
      const { network } = randomMlp({ seed: 1, widths: all, activation: names.slice(0, all.length - (atOutput ? 1 : 2)) });
      const plan = explainPlan(network, { outputs: asked });
      if (asked.every((output) => output === "value")) {
        expect(plan.method).toBe("value");
        return;
      }
      const chosen = plan.candidates.filter((candidate) => candidate.chosen);
      expect(chosen).toHaveLength(1);
      expect(chosen[0]).toMatchObject({ method: plan.method, exact: true, delivers: true });
      const able = candidatesOf(graphOf(network)).filter(
        ({ exact, delivers }) => exact && asked.every((output) => delivers.includes(output)),
      );
      expect(chosen[0]!.multiplyAdds).toBe(Math.min(...able.map(({ multiplyAdds }) => multiplyAdds)));
      // In one dimension the Jacobian is its diagonal.
      if (all[0] === 1) return;
      if (asked.some((output) => ["jacobian", "strain", "qCriterion"].includes(output))) expect(plan.method).toBe("jacobian");
      else if (asked.includes("diagonal")) expect(plan.method).toBe("tangent");
      else expect(["tangent", "cyclic"]).toContain(plan.method);
    });
    fc.assert(property, { seed: 1, numRuns: 200 });
  });

  test("is what leaving the method out means", () => {
    const network = hiddenLayers(3, 8, 2);
    expect(explainPlan(network, { method: "auto" })).toEqual({ ...explainPlan(network), toString: expect.any(Function) });
  });
});

describe("a method named", () => {
  const network = hiddenLayers(3, 8, 2);
  const delivered: Record<Method, Output[]> = {
    tangent: ["value", "divergence", "diagonal"],
    cyclic: ["value", "divergence"],
    jacobian: ["value", "divergence", "diagonal", "jacobian", "curl", "strain", "qCriterion"],
    coordinate: ["value", "divergence", "diagonal"],
    difference: ["value", "divergence", "diagonal"],
    hutchinson: ["value", "divergence"],
  };
  const pairs = methods.flatMap((method) => outputs.map((output) => ({ method, output })));

  test.for(pairs.filter(({ method, output }) => delivered[method].includes(output)))("$method gives $output", ({ method, output }) => {
    const result = evaluateReference(network, [1, 2, 3], { method, outputs: [output] });
    expect(result.method).toBe(output === "value" ? "value" : method);
    expect(Object.keys(result)).toContain(output);
    expect(outputs.filter((other) => other !== output && other in result)).toEqual([]);
  });

  test.for(pairs.filter(({ method, output }) => !delivered[method].includes(output)))(
    "$method refuses $output, naming both",
    ({ method, output }) => {
      const run = (): unknown => evaluateReference(network, [1, 2, 3], { method, outputs: ["value", output] });
      expect(run).toThrow(PlanError);
      expect(run).toThrow(`method "${method}" does not give the output "${output}"; it is given by `);
      expect(() => explainPlan(network, { method, outputs: ["value", output] })).toThrow(
        `method "${method}" does not give the output "${output}"`,
      );
    },
  );

  test("names in its refusal those methods that do give the output", () => {
    expect(() => explainPlan(network, { method: "cyclic", outputs: ["diagonal"] })).toThrow(
      'it is given by "tangent", "jacobian", "coordinate", "difference"',
    );
    expect(() => explainPlan(network, { method: "tangent", outputs: ["jacobian"] })).toThrow('it is given by "jacobian"');
  });

  test("that does not exist is refused, as are unknown outputs and options out of range", () => {
    expect(() => explainPlan(network, { method: "exact" as Method })).toThrow(
      'method is "exact"; expected "auto" or one of tangent, cyclic, jacobian, coordinate, difference, hutchinson',
    );
    expect(() => explainPlan(network, { outputs: ["torsion" as Output] })).toThrow(
      'outputs is ["torsion"]; expected a list out of "value", "divergence", "diagonal", "jacobian"',
    );
    expect(() => explainPlan(network, { outputs: [] })).toThrow("outputs is []; expected a list out of");
    const refused: [Parameters<typeof explainPlan>[1], string][] = [
      [{ chunkSize: 0 }, "chunkSize is 0; expected a whole number from 1 to 2^31"],
      [{ probes: 1.5 }, "probes is 1.5; expected a whole number from 1 to 2^31"],
      [{ seed: 2 ** 32 }, "seed is 4294967296; expected a 32-bit integer"],
      [{ probesPer: "pixel" as "point" }, 'probesPer is "pixel"; expected "point" or "batch"'],
      [{ step: 0 }, "step is 0; expected a number between 0 and 1"],
    ];
    for (const [options, message] of refused) {
      expect(() => explainPlan(network, options)).toThrow(InputError);
      expect(() => explainPlan(network, options)).toThrow(message);
    }
  });
});

describe("explain", () => {
  test("says in words and in a table what was chosen and why", () => {
    const lines = String(explainPlan(hiddenLayers(2, 64, 2))).split("\n");
    expect(lines).toEqual([
      "f: R^2 -> R^2, widths 2-64-64-2",
      "f alone takes 4,352 multiply-adds per point.",
      "Chosen: cyclic is the cheapest exact method that gives value and divergence. It takes the bilinear form s2ᵀ M s1 with M = W2 ∘ (W1 W3)ᵀ: 4,096 multiply-adds per point, 0.94 times f; next comes tangent (2 basis tangents from the columns of W1, contracted with W3) with 1.91.",
      "",
      expect.stringMatching(/^ {3}method +multiply-adds {2}times f {2}bytes\/point {2}matrices {2}how$/),
      expect.stringMatching(/^ {3}tangent +8,320 +1\.91 +[\d,]+ +0 {2}2 basis tangents from the columns of W1, contracted with W3$/),
      expect.stringMatching(/^ {3}cyclic +8,320 +1\.91 +[\d,]+ +0 {2}2 tangents from the columns of W1, contracted with W3$/),
      expect.stringMatching(/^ {3}cyclic +8,320 +1\.91 +[\d,]+ +0 {2}64 tangents from the columns of W2, contracted with W1$/),
      expect.stringMatching(/^ {3}cyclic +12,288 +2\.82 +[\d,]+ +0 {2}64 tangents from the columns of W3, contracted with W2$/),
      expect.stringMatching(/^\* {2}cyclic +4,096 +0\.94 +[\d,]+ +16,384 {2}the bilinear form s2ᵀ M s1 with M = W2 ∘ \(W1 W3\)ᵀ$/),
      expect.stringMatching(/^ {3}jacobian +8,448 +1\.94 +[\d,]+ +0 {2}the full Jacobian, its diagonal summed$/),
      expect.stringMatching(/^ {3}coordinate +8,448 +1\.94 +[\d,]+ +0 {2}2 passes, one column of the Jacobian each$/),
      expect.stringMatching(/^ {3}difference +17,408 +4\.00 +[\d,]+ +0 {2}central differences, 4 evaluations of f; inexact$/),
      expect.stringMatching(/^ {3}hutchinson +69,664 +16\.0 +[\d,]+ +0 {2}16 random probes per point; an estimate$/),
      "",
      "* chosen. Multiply-adds and bytes are per point and come beside f's own.",
    ]);
  });

  test("marks what cannot give the outputs, and says so where one method alone can", () => {
    const text = String(explainPlan(hiddenLayers(3, 4, 2), { outputs: ["jacobian"] }));
    expect(text).toContain(
      "Chosen: jacobian is the only exact method that gives jacobian. It takes the full Jacobian, its diagonal summed: 84 multiply-adds per point, 2.10 times f.",
    );
    expect(text).toMatch(/^\* {2}jacobian/m);
    expect(text).toMatch(/^- {2}tangent/m);
    expect(text).toContain("* chosen; - does not give jacobian.");
  });

  test("says when a method was asked for by name, and when only the value is", () => {
    const { network } = randomMlp({ seed: 1, widths: [3, 4, 3], activation: "tanh", contextSize: 1 });
    expect(String(explainPlan(network, { method: "hutchinson", probes: 1 }))).toContain(
      "Chosen: hutchinson was asked for by name. It takes 1 random probe per point; an estimate: 27 multiply-adds per point, 0.96 times f.",
    );
    expect(String(explainPlan(network, { outputs: ["value"] }))).toBe(
      "f: R^3 x R^1 -> R^3, widths 3-4-3\nf alone takes 28 multiply-adds per point.\nOnly the value is asked for: nothing is carried beside it.",
    );
  });

  test("needs no device, and a field says the same", () => {
    expect(VectorField.prototype.explain.call({ network: hiddenLayers(2, 64, 2) } as VectorField).toString()).toBe(
      String(explainPlan(hiddenLayers(2, 64, 2))),
    );
  });
});

function ofMethod<T extends { method: Method }>(candidates: readonly T[], method: Method): T {
  return candidates.find((candidate) => candidate.method === method)!;
}

describe("the gradient's price", () => {
  test.for([
    [2, 64, "5.9", "1.95"],
    [16, 128, "5.4", "1.80"],
    [64, 256, "5.0", "1.67"],
    [784, 512, "3.7", "1.25"],
  ] as const)("is that of the README's table for d = %i, h = %i", ([d, h, timesF, timesOwn]) => {
    const { gradient } = explainPlan(hiddenLayers(d, h, 2), { gradient: true });
    expect(gradient!.ratio.toPrecision(2)).toBe(timesF);
    expect((gradient!.multiplyAdds / gradient!.valueMultiplyAdds).toFixed(2)).toBe(timesOwn);
    expect(gradient!.method).toBe("cyclic");
    // Three products of h x d and d x h, or h x h, with the sums over the points.
    expect(gradient!.perCall).toBe(3 * h * h * d);
    expect(String(explainPlan(hiddenLayers(d, h, 2), { gradient: true }))).toContain(`${timesOwn} times what f and its own gradient take`);
  });

  test("is left out where it is not asked for", () => {
    expect(explainPlan(hiddenLayers(2, 8, 2)).gradient).toBe(null);
  });
});
