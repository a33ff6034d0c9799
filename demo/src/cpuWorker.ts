/** The float64 reference in a worker, where there is no WebGPU. */
import { ReferenceField, type EvaluateOptions, type Network } from "deldot";

export type Request =
  | { readonly kind: "network"; readonly network: Network }
  | { readonly kind: "evaluate"; readonly id: number; readonly points: Float32Array; readonly options: EvaluateOptions };

export interface Answer {
  readonly id: number;
  readonly numbers?: Record<string, Float64Array>;
  readonly error?: string;
}

let field: ReferenceField | null = null;

self.addEventListener("message", ({ data }: MessageEvent<Request>) => void answer(data));

async function answer(data: Request): Promise<void> {
  if (data.kind === "network") {
    field = new ReferenceField(data.network);
    return;
  }
  const { id, points, options } = data;
  try {
    const { value, divergence, diagonal, jacobian, standardError } = await field!.evaluate(points, options);
    const given = Object.entries({ value, divergence, diagonal, jacobian, standardError }).filter(([, numbers]) => numbers !== undefined);
    self.postMessage({ id, numbers: Object.fromEntries(given) as Record<string, Float64Array> } satisfies Answer);
  } catch (error) {
    self.postMessage({ id, error: (error as Error).message } satisfies Answer);
  }
}
