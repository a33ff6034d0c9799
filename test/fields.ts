import { readdirSync, readFileSync } from "node:fs";
import { mlp, type Diagonal, type Matrix, type Network, type Weight } from "../src/model/network.js";
import { parseSafetensors } from "../src/model/readers/safetensors.js";
import { random } from "./random.js";

export { random };

/** One number of the standard normal distribution (Box and Muller), from a generator of uniform ones. */
export function normal(uniform: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Normal points [count, size] in float32. */
export function randomPoints(seed: number, count: number, size: number, scale = 1): Float32Array {
  const uniform = random(seed);
  return Float32Array.from({ length: count * size }, () => scale * normal(uniform));
}

export interface RandomMlpOptions {
  seed: number;
  /** The state, the hidden layers, and the state again. */
  widths: readonly number[];
  activation?: string | readonly string[];
  contextSize?: number;
  contextColumns?: "last" | "first";
}

export interface RandomLayer {
  weight: { data: Float32Array; shape: [number, number] };
  bias: Float32Array;
}

/** An MLP with the default initialisation of PyTorch's nn.Linear: weights and biases uniform in ±1/√inputs. */
export function randomMlp({ seed, widths, contextSize = 0, ...options }: RandomMlpOptions): { network: Network; layers: RandomLayer[] } {
  const uniform = random(seed);
  const layers = widths.slice(1).map((outputs, index): RandomLayer => {
    const inputs = widths[index]! + (index === 0 ? contextSize : 0);
    const draw = (length: number): Float32Array => Float32Array.from({ length }, () => (2 * uniform() - 1) / Math.sqrt(inputs));
    return { weight: { data: draw(outputs * inputs), shape: [outputs, inputs] }, bias: draw(outputs) };
  });
  return { network: mlp({ layers, ...options }), layers };
}

/** The weight of one term of a linear operation, where it is a matrix. */
export function weightOf(network: Network, index: number, term = 0): Matrix {
  const operation = network.operations[index];
  const weight = operation?.kind === "linear" ? operation.terms[term]?.weight : undefined;
  if (!weight || "diagonal" in weight) throw new Error(`operation ${index} has no matrix as its term ${term}`);
  return denseOf(weight) as Matrix;
}

const models = new URL("../demo/models/", import.meta.url);
const vectors = new URL("vectors/", import.meta.url);

/** The trained networks in demo/models. */
export const modelNames: string[] = namesIn(models);
/** The small networks in test/vectors. */
export const vectorNames: string[] = namesIn(vectors);

/** Float64 truth by PyTorch, flattened row-major. Points and context are float64 too: float32 moves them a little. */
export interface ModelTruth {
  activation: string;
  stateSize: number;
  contextSize: number;
  /** Inputs of the first layer, then the outputs of each. */
  widths: number[];
  count: number;
  /** [B, d] */
  points: Float64Array;
  /** [B, c], or null where there is no context. */
  context: Float64Array | null;
  /** [B, d] */
  value: Float64Array;
  /** [B, d] */
  jacobianDiagonal: Float64Array;
  /** [B] */
  divergence: Float64Array;
}

/** A trained network of demo/models beside what PyTorch computes for it. */
export function loadModel(name: string): { network: Network; truth: ModelTruth; bytes: Uint8Array } {
  const bytes = readWeights(models, name);
  const { vectors: given, ...description } = readJson(models, name);
  const truth: ModelTruth = {
    activation: description.activation,
    stateSize: description.state,
    contextSize: description.context,
    widths: description.widths,
    count: given.points.length,
    points: Float64Array.from(given.points.flat()),
    context: given.context ? Float64Array.from(given.context.flat()) : null,
    value: Float64Array.from(given.value.flat()),
    jacobianDiagonal: Float64Array.from(given.jacobianDiagonal.flat()),
    divergence: Float64Array.from(given.divergence),
  };
  return { network: parseSafetensors(bytes), truth, bytes };
}

/** Float64 truth by PyTorch, flattened row-major. None of these networks has a context. */
export interface VectorTruth {
  activation: string;
  widths: number[];
  count: number;
  /** [n, d] */
  x: Float64Array;
  /** [n, d] */
  y: Float64Array;
  /** [n, d] */
  diag: Float64Array;
  /** [n] */
  div: Float64Array;
  /** [n], Σ_i |∂f_i/∂x_i| */
  absJacDiagSum: Float64Array;
}

/** A small network of test/vectors beside what PyTorch computes for it. */
export function loadVector(name: string): { network: Network; truth: VectorTruth; bytes: Uint8Array } {
  const bytes = readWeights(vectors, name);
  const given = readJson(vectors, name);
  const truth: VectorTruth = {
    activation: given.activation,
    widths: given.widths,
    count: given.n,
    x: Float64Array.from(given.x),
    y: Float64Array.from(given.y),
    diag: Float64Array.from(given.diag),
    div: Float64Array.from(given.div),
    absJacDiagSum: Float64Array.from(given.absJacDiagSum),
  };
  return { network: parseSafetensors(bytes), truth, bytes };
}

function namesIn(folder: URL): string[] {
  const files = readdirSync(folder).filter((file) => file.endsWith(".safetensors"));
  return files.map((file) => file.slice(0, -".safetensors".length)).sort();
}

function readJson(folder: URL, name: string): any {
  return JSON.parse(readFileSync(new URL(`${name}.json`, folder), "utf8"));
}

function readWeights(folder: URL, name: string): Uint8Array {
  return readFileSync(new URL(`${name}.safetensors`, folder));
}

/** A weight whose blocks are written out, zeros beside them. */
export function denseOf(weight: Weight): Matrix | Diagonal {
  if (!("block" in weight)) return weight;
  const { block, times } = weight;
  const columns = times * block.columns;
  const data = new Float64Array(times * block.rows * columns);
  for (let n = 0; n < times; n++)
    for (let row = 0; row < block.rows; row++)
      data.set(block.data.subarray(row * block.columns, (row + 1) * block.columns), (n * block.rows + row) * columns + n * block.columns);
  return { rows: times * block.rows, columns, data };
}
