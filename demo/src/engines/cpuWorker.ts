/** Fields on the CPU: by onnxruntime-web once that is loaded; by the float64 reference until then, and where it fails. */
import {
  FieldFlow,
  mlp,
  ReferenceField,
  type EvaluateOptions,
  type Evaluation,
  type Network,
  type Output,
  type TransportOptions,
} from "deldot";
import { OnnxField } from "deldot/onnx";
import mjs from "../../../node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.mjs?url";
import wasm from "../../../node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm?url";

export type Request =
  /** Loads onnxruntime-web; `loaded` comes once networks run by it. */
  | { readonly kind: "load" }
  /** Answered once it can be evaluated under this number. */
  | { readonly kind: "network"; readonly id: number; readonly network: Network }
  /** Networks with lower numbers are done with. */
  | { readonly kind: "use"; readonly id: number }
  | {
      readonly kind: "evaluate";
      readonly id: number;
      readonly of: number;
      readonly points: Float32Array;
      readonly options: EvaluateOptions;
    }
  /** Along the field, whose context starts with time. */
  | {
      readonly kind: "transport";
      readonly id: number;
      readonly of: number;
      readonly points: Float32Array;
      readonly options: TransportOptions;
    };

/** Where points got to, [B, d] and [T, B, d], and ∫ ∇·f dt on the way, [B]. */
export interface CpuTransport {
  readonly points: Float64Array;
  readonly divergenceIntegral: Float64Array;
  readonly path?: Float64Array;
}

/** Its kernels tell what it is of. */
export type CpuEvaluation = Evaluation<Output, Float32Array | Float64Array>;

export type Answer =
  | { readonly kind: "loaded"; readonly threads: number }
  | { readonly kind: "network"; readonly id: number }
  | { readonly kind: "numbers"; readonly id: number; readonly numbers: CpuEvaluation }
  | { readonly kind: "moved"; readonly id: number; readonly moved: CpuTransport; readonly by: "onnxruntime" | "reference" }
  | { readonly kind: "error"; readonly id: number; readonly error: string };

/** What a network is evaluated by; null where onnxruntime-web has not come, or does not take it. */
interface Fields {
  readonly reference: ReferenceField;
  onnx: OnnxField | null;
}

const MOST_THREADS = 8;

const held = new Map<number, Fields>();
let create: ((network: Network) => Promise<OnnxField>) | null = null;

self.addEventListener("message", ({ data }: MessageEvent<Request>) => void answer(data));

async function answer(data: Request): Promise<void> {
  // Without onnxruntime-web float64 goes on.
  if (data.kind === "load") return load().catch((error: unknown) => console.warn("onnxruntime-web did not load:", error));
  if (data.kind === "use") return forget(data.id);
  const { id } = data;
  try {
    if (data.kind === "evaluate") return post({ kind: "numbers", id, numbers: await evaluate(data.of, data.points, data.options) });
    if (data.kind === "transport") return await transport(data);
    held.set(id, { reference: new ReferenceField(data.network), onnx: null });
    await quicken(id);
    post({ kind: "network", id });
  } catch (error) {
    post({ kind: "error", id, error: (error as Error).message });
  }
}

async function load(): Promise<void> {
  const runtime = await import("onnxruntime-web/wasm");
  // Threads share memory, which browsers allow to pages that are isolated from other origins.
  const threads = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;
  Object.assign(runtime.env.wasm, { numThreads: threads, wasmPaths: { mjs, wasm } });
  runtime.env.logLevel = "error";
  // The first session fetches the WebAssembly; no network waits for that.
  (await OnnxField.create(runtime, mlp({ layers: [{ weight: [[1]] }] }))).destroy();
  create = (network) => OnnxField.create(runtime, network);
  await Promise.all([...held.keys()].map(quicken));
  post({ kind: "loaded", threads });
}

/** Has a network run by onnxruntime-web, where that is there and takes it. */
async function quicken(id: number): Promise<void> {
  const onnx = (await create?.(held.get(id)!.reference.network).catch(() => null)) ?? null;
  const fields = held.get(id);
  if (fields) fields.onnx = onnx;
  else onnx?.destroy();
}

function forget(below: number): void {
  for (const [id, { onnx }] of held) {
    if (id >= below) continue;
    held.delete(id);
    onnx?.destroy();
  }
}

async function evaluate(of: number, points: Float32Array, options: EvaluateOptions): Promise<CpuEvaluation> {
  const { reference, onnx } = held.get(of)!;
  const numbers = await onnx?.evaluate(points, options).catch((error: unknown) => {
    // What onnxruntime-web fails at, float64 does, or says what is wrong with it; not for a network that is done with.
    if (!held.has(of)) throw error;
    return null;
  });
  return numbers ?? reference.evaluate(points, options);
}

async function transport({ id, of, points, options }: Extract<Request, { kind: "transport" }>): Promise<void> {
  const { reference, onnx } = held.get(of)!;
  const times = { timeColumn: reference.network.contextSize > 0 ? 0 : null };
  const by = async (field: OnnxField | ReferenceField): Promise<CpuTransport> => {
    const { points: ends, divergenceIntegral, path } = await new FieldFlow(field, times).transport(points, options);
    return { points: ends, divergenceIntegral, ...(path && { path }) };
  };
  const moved =
    onnx &&
    (await by(onnx).catch((error: unknown) => {
      if (!held.has(of)) throw error;
      return null;
    }));
  post({ kind: "moved", id, moved: moved ?? (await by(reference)), by: moved ? "onnxruntime" : "reference" });
}

function post(given: Answer): void {
  self.postMessage(given);
}
