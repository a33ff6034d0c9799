import { readFileSync, readdirSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseSafetensors, VectorField, type Network } from "../src/index.js";
import { vjpReference } from "../src/cpu/vjp.js";
import { openDevice } from "./device.js";
let device: GPUDevice; let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());
function tensorsIn(given: Uint8Array) {
  const bytes = Uint8Array.from(given);
  const n = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + n)));
  const out: Record<string, { shape: number[]; data: Float64Array }> = {};
  for (const [k, v] of Object.entries<any>(header)) if (k !== "__metadata__")
    out[k] = { shape: v.shape, data: new Float64Array(bytes.slice(8 + n + v.data_offsets[0], 8 + n + v.data_offsets[1]).buffer) };
  return { out, meta: header.__metadata__ };
}
const root = "/work/shared/";
const err = (a: ArrayLike<number>, b: ArrayLike<number>) => { let m = 0, e = 0; for (let i = 0; i < b.length; i++) { m = Math.max(m, Math.abs(b[i]!)); const d = Math.abs(a[i]! - b[i]!); e = Math.max(e, Number.isNaN(d) ? Infinity : d); } return a.length !== b.length ? Infinity : e / (m + 1e-2); };
for (const file of readdirSync(root + "gradients").filter((f) => f.endsWith(".safetensors")))
  test(file, async () => {
    const { out, meta } = tensorsIn(readFileSync(root + "gradients/" + file));
    let bytes; try { bytes = readFileSync(root + "vectors/" + file); } catch { bytes = readFileSync(root + "models/" + file); }
    const network = parseSafetensors(bytes, { activation: ({ sin30: "sin(30)" } as any)[meta.activation] ?? (file.startsWith("leaky") ? "leaky_relu(0.1)" : meta.activation || undefined) });
    const context = out["context"]?.data;
    const wrt = ["points", ...(context ? ["context"] : []), "parameters"] as any;
    const cot = { value: out["value_cotangent"]!.data, divergence: out["divergence_cotangent"]!.data };
    const check = (r: any, tol: number, what: string) => {
      const bad: string[] = [];
      const cmp = (name: string, a: any, b: any) => { const e = err(a, b); if (!(e < tol)) bad.push(`${name} ${e.toExponential(1)}`); };
      cmp("points", r.points, out["gradient.x"]!.data);
      if (context) cmp("context", r.context, out["gradient.context"]!.data);
      for (const [k, v] of Object.entries(out)) if (k.startsWith("gradient.") && !["gradient.x", "gradient.context"].includes(k)) cmp(k, r.parameters[k.slice(9)]?.data ?? [], v.data);
      if (r.value) cmp("value", r.value, out["value"]!.data);
      if (r.divergence) cmp("div", r.divergence, out["divergence"]!.data);
      if (bad.length) console.log(file, what, bad.join(" "));
      return bad.length;
    };
    let n = check(vjpReference(network, out["x"]!.data, cot, { context, wrt, outputs: ["value", "divergence"] }), 1e-9, "reference");
    for (const method of ["auto", "tangent", "jacobian", "coordinate", "cyclic"] as const) {
      const field = await VectorField.create(device, network);
      try {
      const r = await field.vjp(out["x"]!.data, cot, { context, wrt, outputs: ["value", "divergence"], method });
      n += check(r, file.startsWith("sin30") ? 1e-4 : 1e-5, method + " " + r.method); } catch (e) { console.log(file, method, String(e).slice(0, 1500)); n++; }
      field.destroy();
    }
    expect(n).toBe(0);
  });
