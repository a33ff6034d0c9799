/** What toOnnx writes, run by onnxruntime, beside the reference in float64. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  evaluateReference,
  explainPlan,
  parseOnnx,
  parseSafetensors,
  vjpReference,
  type Network,
} from "../src/index.js";
import { toOnnx, type OnnxExportOptions, type OnnxOutput } from "../src/onnx/index.js";
import { expectClose } from "./close.js";
import { loadModel, loadVector, modelNames, randomPoints, vectorNames } from "./fields.js";
import { check } from "./numbers/check.js";
import { Draw } from "./numbers/draw.js";
import { describeNetwork, wholePalette } from "./numbers/networks.js";
import { drawPool } from "./numbers/pool.js";
import { openModel } from "./onnxruntime.js";

async function run(network: Network, options: OnnxExportOptions, points: Float32Array, context: Float32Array | null) {
  const model = await openModel(toOnnx(network, options), network.stateSize, network.contextSize);
  try {
    return await model.run(points, context);
  } finally {
    await model.release();
  }
}

test("random", { timeout: 600_000 }, async () => {
  const failures: string[] = [];
  let count = 0;
  let worst = 0;
  for (let seed = 1; seed <= Number(process.env["DELDOT_RUNS"] ?? 200); seed++) {
    const draw = new Draw(seed);
    const pool = drawPool(draw, draw.pick(["small", "small", "middle"]), wholePalette, false);
    const { network, points, context, contextKind } = pool;
    const d = network.stateSize;
    const { candidates } = explainPlan(network);
    const able = (["tangent", "cyclic", "jacobian"] as const).filter((method) => candidates.some((each) => each.method === method));
    const method = draw.pick(["auto" as const, ...able]);
    const outputs: OnnxOutput[] = ["value", "divergence", "gradient"];
    if (method !== "cyclic" && draw.chance(0.5)) outputs.push("diagonal");
    if (method === "jacobian" || (method === "auto" && draw.chance(0.2))) outputs.push("jacobian");
    const contextPer = contextKind === "shared" ? ("batch" as const) : ("point" as const);
    const label = `seed ${seed}, ${method}, ${outputs.join()}, ${contextKind}: ${describeNetwork(network)}`;
    try {
      const results = await run(network, { outputs, method, opset: draw.integer(13, 21), contextPer }, points, context);
      const { gradient, ...others } = Object.fromEntries(outputs.map((name) => [name, results[name]!.data]));
      const wrong = check({ pool, first: 0, count: pool.count, method: "auto" }, others);
      if (wrong.length > 0) failures.push(`${label}: ${wrong.join("; ")}`);
      const { points: expected } = vjpReference(network, points, { divergence: 1 }, { context, wrt: ["points"] });
      const { fit } = (pool as any).truth;
      for (let point = 0; point < pool.count; point++) {
        if (!fit[point]) continue;
        const row = expected!.subarray(point * d, (point + 1) * d);
        const largest = row.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
        row.forEach((x, i) => {
          const error = Math.abs(gradient![point * d + i]! - x);
          if (!(error <= 1e-3 * largest + 1e-4)) failures.push(`${label}: gradient[${point},${i}] ${gradient![point * d + i]} ${x} largest ${largest}`);
          else worst = Math.max(worst, error / (largest + 0.1));
        });
        count++;
      }
    } catch (error) {
      failures.push(`${label}: ${(error as Error).stack}`);
    }
  }
  console.log(count, worst, failures.length);
  console.log(failures.slice(0, 12).map((text) => text.slice(0, 1500)).join("\n\n"));
  expect(failures.length).toBe(0);
});
