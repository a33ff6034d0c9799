import { evaluateReference, type Method } from "deldot";
import { isPerPoint, type Inputs } from "./cases.js";

/** Multiply-adds that the float64 reference may spend on one comparison. */
const REFERENCE_WORK = 3e8;

/** What `evaluate` or `encode` gave. */
export interface Results {
  readonly value?: Float32Array;
  readonly divergence?: Float32Array;
}

/** Compares some points, spread evenly, with the float64 reference. */
export function compare(
  { network, points, context }: Inputs,
  { forwardMultiplyAdds, method }: { readonly forwardMultiplyAdds: number; readonly method: Method | "value" },
  count: number,
  results: readonly Results[],
): { error: number; compared: number } {
  const { stateSize: d, contextSize: c } = network;
  // The reference pushes d tangents through the layers.
  const cost = forwardMultiplyAdds * (method === "value" ? 1 : 1 + d);
  const compared = Math.min(count, Math.max(2, Math.min(256, Math.floor(REFERENCE_WORK / cost))));
  const picked = Array.from({ length: compared }, (_, i) => Math.round((i * (count - 1)) / Math.max(1, compared - 1)));
  const pick = (data: Float32Array, width: number): Float32Array =>
    Float32Array.from(picked.flatMap((row) => Array.from(data.subarray(row * width, (row + 1) * width))));
  const outputs = method === "value" ? (["value"] as const) : (["value", "diagonal"] as const);
  const truth = evaluateReference(network, pick(points, d), {
    outputs,
    context: isPerPoint(context) ? pick(context, c) : context,
  });
  const scale = truth.value!.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  let error = 0;
  // Math.max keeps a NaN.
  const note = (value: number): void => void (error = Math.max(error, value));
  for (const { value, divergence } of results)
    picked.forEach((row, index) => {
      const diagonal = truth.diagonal?.subarray(index * d, (index + 1) * d);
      if (!diagonal) for (let i = 0; i < d; i++) note(Math.abs(value![row * d + i]! - truth.value![index * d + i]!) / scale);
      else note(Math.abs(divergence![row]! - diagonal.reduce((a, b) => a + b, 0)) / diagonal.reduce((a, b) => a + Math.abs(b), 0));
    });
  return { error, compared };
}
