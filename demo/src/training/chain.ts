/**
 * f of a chain of two hidden layers, its exact divergence, and the gradient of both, in float64 for a batch at once: the formulas of the
 * README, "Training through the divergence". A gradient of 256 points of 2 + 1 -> 64 -> 64 -> 2 takes 4 ms, with the divergence 7;
 * `vjpReference`, point by point through any graph, 46 and 130, and onnxruntime-web at best 8 and 9: it holds weights as constants, so that
 * every step takes new sessions.
 */
import { parameterLayout, parametersOf, withParameters, type Activation, type Network } from "deldot";
import { activationFunctions } from "../../../src/model/activation.js";

type Matrix = Float64Array<ArrayBuffer>;

/** A hidden layer's pre-activations [batch, width], and what the activation makes of them. */
interface Layer {
  readonly z: Matrix;
  readonly value: Matrix;
  readonly slope: Matrix;
  readonly curvature: Matrix;
}

export class Chain {
  /** All weights as `parameterLayout` has them, and the gradient that `back` adds to. */
  readonly weights: Matrix;
  readonly gradient: Matrix;
  /** f [batch, d], and ∇·f [batch]. */
  readonly value: Matrix;
  readonly divergence: Matrix;
  /** What `back` gives for the inputs, [batch, d + c]. */
  readonly ofInputs: Matrix;
  /** d, c and the widths of the hidden layers. */
  private readonly d: number;
  private readonly n: number;
  private readonly widths: readonly [number, number];
  private readonly functions: ReturnType<typeof activationFunctions>;
  /** Weights and biases of the three layers, and their gradients, as views. */
  private readonly parts: readonly { readonly weight: Matrix; readonly bias: Matrix; readonly ofWeight: Matrix; readonly ofBias: Matrix }[];
  private readonly turned: readonly Matrix[];
  /** (W_1 W_3)ᵀ, M = W_2 ∘ (W_1 W_3)ᵀ, both [h_2, h_1], and Mᵀ. */
  private readonly outer: Matrix;
  private readonly merged: Matrix;
  private readonly mergedTurned: Matrix;
  private readonly layers: readonly [Layer, Layer];
  /** M s_1 [batch, h_2], Mᵀ s_2 [batch, h_1], and δ of both layers. */
  private readonly u: Matrix;
  private readonly v: Matrix;
  private readonly deltas: readonly [Matrix, Matrix];
  private inputs: Matrix = new Float64Array(0);

  /** @param network of `mlp` with two hidden layers of one activation, the context in its last columns. */
  constructor(
    private readonly network: Network,
    private readonly batch: number,
  ) {
    const { stateSize: d, contextSize: c, operations } = network;
    const { tensors, size } = parameterLayout(network);
    [this.d, this.n] = [d, d + c];
    const [h1, h2] = (this.widths = [tensors[0]!.shape[0]!, tensors[2]!.shape[0]!]);
    const { activation } = operations[1] as { readonly activation: Activation };
    this.functions = activationFunctions(activation);
    this.weights = new Float64Array(size);
    this.gradient = new Float64Array(size);
    const view = (of: Matrix, tensor: number): Matrix => {
      const { offset, shape } = tensors[tensor]!;
      return of.subarray(offset, offset + shape.reduce((product, each) => product * each, 1));
    };
    this.parts = [0, 2, 4].map((tensor) => ({
      weight: view(this.weights, tensor),
      bias: view(this.weights, tensor + 1),
      ofWeight: view(this.gradient, tensor),
      ofBias: view(this.gradient, tensor + 1),
    }));
    for (const [index, { data }] of Object.values(parametersOf(network)).entries()) view(this.weights, index).set(data);
    this.turned = this.parts.map(({ weight }) => new Float64Array(weight.length));
    const matrix = (rows: number, columns: number): Matrix => new Float64Array(rows * columns);
    [this.outer, this.merged, this.mergedTurned] = [matrix(h2, h1), matrix(h2, h1), matrix(h1, h2)];
    const layer = (width: number): Layer => ({
      z: matrix(batch, width),
      value: matrix(batch, width),
      slope: matrix(batch, width),
      curvature: matrix(batch, width),
    });
    this.layers = [layer(h1), layer(h2)];
    [this.u, this.v] = [matrix(batch, h2), matrix(batch, h1)];
    this.deltas = [matrix(batch, h1), matrix(batch, h2)];
    [this.value, this.divergence, this.ofInputs] = [matrix(batch, d), matrix(batch, 1), matrix(batch, this.n)];
    this.update();
  }

  /** To be called when the weights have changed: what is computed of them alone. */
  update(): void {
    const { d, n, parts, turned, outer, merged, mergedTurned } = this;
    const [h1, h2] = this.widths;
    const [first, second, third] = parts.map(({ weight }) => weight) as [Matrix, Matrix, Matrix];
    transpose(turned[0]!, first, h1, n);
    transpose(turned[1]!, second, h2, h1);
    transpose(turned[2]!, third, d, h2);
    for (let j = 0; j < h2; j++)
      for (let i = 0; i < h1; i++) {
        let sum = 0;
        for (let k = 0; k < d; k++) sum += first[i * n + k]! * third[k * h2 + j]!;
        outer[j * h1 + i] = sum;
        merged[j * h1 + i] = mergedTurned[i * h2 + j] = sum * second[j * h1 + i]!;
      }
  }

  /** f, and its divergence where it is wanted, at inputs [batch, d + c]; what `back` goes back from. */
  forward(inputs: Matrix, withDivergence: boolean): void {
    const { batch, d, n, parts, turned, layers, u, value, divergence } = this;
    const [h1, h2] = this.widths;
    this.inputs = inputs;
    const affine = (into: Matrix, of: Matrix, layer: number, from: number, to: number): void => {
      for (let row = 0; row < batch; row++) into.set(parts[layer]!.bias, row * to);
      addProduct(into, of, turned[layer]!, batch, from, to);
    };
    affine(layers[0].z, inputs, 0, n, h1);
    this.activate(layers[0], withDivergence);
    affine(layers[1].z, layers[0].value, 1, h1, h2);
    this.activate(layers[1], withDivergence);
    affine(value, layers[1].value, 2, h2, d);
    if (!withDivergence) return;
    u.fill(0);
    addProduct(u, layers[0].slope, this.mergedTurned, batch, h1, h2);
    for (let row = 0; row < batch; row++) {
      let sum = 0;
      for (let at = row * h2; at < (row + 1) * h2; at++) sum += layers[1].slope[at]! * u[at]!;
      divergence[row] = sum;
    }
  }

  /**
   * Adds the gradient of Σ_b (e_b · f(x_b) + c ∇·f(x_b)) for the weights to `gradient`, and leaves that for the inputs in `ofInputs`.
   * @param e [batch, d] @param c where it is not 0, `forward` had the divergence.
   */
  back(e: Matrix, c: number): void {
    const { batch, d, n, parts, layers, deltas, u, v, outer, merged, ofInputs } = this;
    const [h1, h2] = this.widths;
    const [first, second, third] = parts as [(typeof parts)[number], (typeof parts)[number], (typeof parts)[number]];
    const [delta1, delta2] = deltas;
    const finish = (delta: Matrix, { slope, curvature }: Layer, w: Matrix): void => {
      for (let i = 0; i < delta.length; i++) delta[i] = delta[i]! * slope[i]! + (c === 0 ? 0 : c * curvature[i]! * w[i]!);
    };
    addProduct(third.ofWeight, e, layers[1].value, d, batch, h2, true);
    addRows(third.ofBias, e);
    delta2.fill(0);
    addProduct(delta2, e, third.weight, batch, d, h2);
    finish(delta2, layers[1], u);
    addProduct(second.ofWeight, delta2, layers[0].value, h2, batch, h1, true);
    addRows(second.ofBias, delta2);
    delta1.fill(0);
    addProduct(delta1, delta2, second.weight, batch, h2, h1);
    if (c !== 0) {
      v.fill(0);
      addProduct(v, layers[1].slope, merged, batch, h2, h1);
    }
    finish(delta1, layers[0], v);
    addProduct(first.ofWeight, delta1, this.inputs, h1, batch, n, true);
    addRows(first.ofBias, delta1);
    ofInputs.fill(0);
    addProduct(ofInputs, delta1, first.weight, batch, h1, n);
    if (c === 0) return;
    const sum = new Float64Array(h2 * h1);
    addProduct(sum, layers[1].slope, layers[0].slope, h2, batch, h1, true);
    for (let j = 0; j < h2; j++)
      for (let i = 0; i < h1; i++) {
        const at = j * h1 + i;
        second.ofWeight[at]! += c * sum[at]! * outer[at]!;
        const share = c * sum[at]! * second.weight[at]!;
        for (let k = 0; k < d; k++) {
          first.ofWeight[i * n + k]! += share * third.weight[k * h2 + j]!;
          third.ofWeight[k * h2 + j]! += share * first.weight[i * n + k]!;
        }
      }
  }

  /** The network with such weights, in float32 as the GPU has them. */
  networkOf(weights: Matrix): Network {
    const { tensors } = parameterLayout(this.network);
    const parameters = tensors.map(({ name, offset, shape }) => {
      const size = shape.reduce((product, each) => product * each, 1);
      return [name, Float32Array.from(weights.subarray(offset, offset + size))] as const;
    });
    return withParameters(this.network, Object.fromEntries(parameters));
  }

  private activate({ z, value, slope, curvature }: Layer, withCurvature: boolean): void {
    const { functions } = this;
    for (let i = 0; i < z.length; i++) {
      value[i] = functions.value(z[i]!);
      slope[i] = functions.slope(z[i]!);
      if (withCurvature) curvature[i] = functions.curvature(z[i]!);
    }
  }
}

function transpose(into: Matrix, matrix: Matrix, rows: number, columns: number): void {
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) into[column * rows + row] = matrix[row * columns + column]!;
}

/**
 * into += left right, [rows, columns] of [rows, inner] and [inner, columns]; left may lie transposed, [inner, rows]. Four terms at a time,
 * so that a sum is loaded and stored a quarter as often.
 */
function addProduct(into: Matrix, left: Matrix, right: Matrix, rows: number, inner: number, columns: number, isTransposed = false): void {
  const [rowStride, stride] = isTransposed ? [1, rows] : [inner, 1];
  const whole = inner - (inner % 4);
  for (let row = 0; row < rows; row++) {
    const to = row * columns;
    let at = row * rowStride;
    let from = 0;
    for (let i = 0; i < whole; i += 4) {
      const [a, b, c, d] = [left[at]!, left[at + stride]!, left[at + 2 * stride]!, left[at + 3 * stride]!];
      for (let column = 0; column < columns; column++)
        into[to + column]! +=
          a * right[from + column]! +
          b * right[from + columns + column]! +
          c * right[from + 2 * columns + column]! +
          d * right[from + 3 * columns + column]!;
      at += 4 * stride;
      from += 4 * columns;
    }
    for (let i = whole; i < inner; i++) {
      const a = left[at]!;
      for (let column = 0; column < columns; column++) into[to + column]! += a * right[from + column]!;
      at += stride;
      from += columns;
    }
  }
}

/** Adds the sum of rows. */
function addRows(into: Matrix, rows: Matrix): void {
  const width = into.length;
  for (let at = 0; at < rows.length; at += width) for (let i = 0; i < width; i++) into[i]! += rows[at + i]!;
}
