import { bilinearMatrix, transpose, type Problem } from "./networks.js";
import { writeOnnx, type OnnxConstant, type OnnxNode } from "./onnx.js";
import type { Call, Peer } from "./peer.js";

/** onnxruntime differentiates nothing: what it runs here are graphs of the divergence, made by hand. */
const onnxruntime = (provider: "webgpu" | "cpu"): Peer => ({
  name: `onnxruntime-node, ${provider}`,
  // In Node its inputs and outputs are JavaScript arrays, on every provider.
  ways: [
    { name: "tangents by hand", points: "host" },
    { name: "bilinear formula by hand", points: "host" },
  ],
  prepare: (way, problem) => openSession(way.startsWith("tangents") ? tangents(problem) : bilinear(problem), provider, problem),
});

export const onnxruntimeWebgpu: Peer = onnxruntime("webgpu");
export const onnxruntimeCpu: Peer = onnxruntime("cpu");

interface Graph {
  readonly nodes: readonly OnnxNode[];
  readonly constants: Readonly<Record<string, OnnxConstant>>;
}

async function openSession({ nodes, constants }: Graph, provider: string, { d, count, points }: Problem): Promise<Call> {
  const { InferenceSession, Tensor } = await import("onnxruntime-node");
  const model = writeOnnx({
    nodes,
    constants,
    input: { name: "x", shape: [count, d] },
    output: { name: "divergence", shape: [count] },
  });
  const session = await InferenceSession.create(model, {
    executionProviders: [provider],
    // Else operations that the provider lacks would run on the CPU unseen, and the line would not be what it says.
    ...(provider !== "cpu" && { extra: { session: { disable_cpu_ep_fallback: "1" } } }),
  });
  return async () => {
    const { divergence } = await session.run({ x: new Tensor("float32", points, [count, d]) });
    return [divergence!.data as Float32Array];
  };
}

/** s1 and s2, the slopes of both hidden layers: [count, h] each. */
function slopes({ d, h, w1, b1, w2, b2 }: Problem): Graph {
  return {
    nodes: [
      { type: "Gemm", inputs: ["x", "w1", "b1"], output: "z1" },
      { type: "Tanh", inputs: ["z1"], output: "a1" },
      { type: "Gemm", inputs: ["a1", "w2", "b2"], output: "z2" },
      { type: "Tanh", inputs: ["z2"], output: "a2" },
      ...[1, 2].flatMap((layer) => [
        { type: "Mul", inputs: [`a${layer}`, `a${layer}`], output: `square${layer}` },
        { type: "Sub", inputs: ["one", `square${layer}`], output: `s${layer}` },
      ]),
    ],
    constants: {
      w1: { shape: [d, h], data: transpose(w1, h, d) },
      b1: { shape: [h], data: b1 },
      w2: { shape: [h, h], data: transpose(w2, h, h) },
      b2: { shape: [h], data: b2 },
      one: { shape: [], data: Float32Array.of(1) },
      axis1: { shape: [1], data: BigInt64Array.of(1n) },
    },
  };
}

function tangents(problem: Problem): Graph {
  const { d, h, w3 } = problem;
  const { nodes, constants } = slopes(problem);
  return {
    nodes: [
      ...nodes,
      { type: "Unsqueeze", inputs: ["s1", "axis1"], output: "slope" },
      { type: "Mul", inputs: ["slope", "w1"], output: "seeds" }, // [count, d, h]
      { type: "MatMul", inputs: ["seeds", "w2"], output: "carried" },
      { type: "Mul", inputs: ["carried", "w3"], output: "products" },
      { type: "ReduceSum", inputs: ["products", "axis1"], output: "contracted", attributes: { keepdims: 0 } },
      { type: "Mul", inputs: ["contracted", "s2"], output: "terms" },
      { type: "ReduceSum", inputs: ["terms", "axis1"], output: "divergence", attributes: { keepdims: 0 } },
    ],
    constants: { ...constants, w3: { shape: [d, h], data: w3 } },
  };
}

function bilinear(problem: Problem): Graph {
  const { h } = problem;
  const { nodes, constants } = slopes(problem);
  return {
    nodes: [
      ...nodes,
      { type: "MatMul", inputs: ["s1", "matrix"], output: "product" },
      { type: "Mul", inputs: ["product", "s2"], output: "terms" },
      { type: "ReduceSum", inputs: ["terms", "axis1"], output: "divergence", attributes: { keepdims: 0 } },
    ],
    constants: { ...constants, matrix: { shape: [h, h], data: transpose(Float32Array.from(bilinearMatrix(problem)), h, h) } },
  };
}
