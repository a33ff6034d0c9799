import { ModelError, quote } from "../errors.js";
import { largestClip, parseActivation, parseActivationList, type Activation } from "./activation.js";

/** Numbers of a weight or a bias: float32 as most files store them, or float64. */
export type Numbers = Float32Array | Float64Array;

/** A dense matrix [rows, columns], row-major. */
export interface Matrix {
  /** How many numbers it gives. */
  readonly rows: number;
  /** How many numbers it takes. */
  readonly columns: number;
  /** [rows * columns] */
  readonly data: Numbers;
}

/** diag(d): multiplies element by element. */
export interface Diagonal {
  /** [width] */
  readonly diagonal: Numbers;
}

/** One matrix for each part of a vector, as particles share it: y_n = W x_n for part n of x, so [times * rows, times * columns]. */
export interface Repeated {
  /** W */
  readonly block: Matrix;
  /** How many parts there are, at least 2. */
  readonly times: number;
}

/** What multiplies an operand of a linear operation. */
export type Weight = Matrix | Diagonal | Repeated;

/** Which value an operation reads: the state, the context, or the result of an earlier operation by its index. */
export type Operand = "state" | "context" | number;

/** z = Σ weight_k · operand_k + bias; every weight is [width, width of its operand], the bias [width]. */
export interface LinearOperation {
  /** Tells the operations apart. */
  readonly kind: "linear";
  /** The products that are summed. */
  readonly terms: readonly {
    /** What is multiplied. */
    readonly operand: Operand;
    /** By what: [width, width of the operand]. */
    readonly weight: Weight;
  }[];
  /** [width]; null for none. */
  readonly bias: Numbers | null;
  /** Whether its numbers are a formula's own, which are no parameters. Default false. */
  readonly isFixed?: boolean;
}

/** a = σ(z), element by element. */
export interface ActivationOperation {
  /** Tells the operations apart. */
  readonly kind: "activation";
  /** z */
  readonly operand: Operand;
  /** σ */
  readonly activation: Activation;
}

/** a ∘ b, element by element; both have the same width and may be the same operand. */
export interface ProductOperation {
  /** Tells the operations apart. */
  readonly kind: "product";
  /** a and b */
  readonly operands: readonly [Operand, Operand];
}

/**
 * Over the elements of one vector: (x - μ) / sqrt(mean((x - μ)²) + ε) where centered, which is a LayerNorm without gain and
 * bias (Ba, Kiros and Hinton, 2016); x / sqrt(mean(x²) + ε) otherwise, an RMSNorm (Zhang and Sennrich, 2019).
 */
export interface NormOperation {
  /** Tells the operations apart. */
  readonly kind: "norm";
  /** x */
  readonly operand: Operand;
  /** Whether the mean is taken off first. */
  readonly centered: boolean;
  /** ε, at least 0. */
  readonly epsilon: number;
}

/** One step of a {@link Network}. */
export type Operation = LinearOperation | ActivationOperation | ProductOperation | NormOperation;

/** Where numbers of a tensor stand: entry [row, column] of a part is number offset + row rowStride + column columnStride of it. */
export interface Place {
  /** Index of a linear operation. */
  readonly operation: number;
  /** The weight of one of its terms, or its bias; a list of numbers, a bias or a diagonal, runs along its columns. */
  readonly part: number | "bias";
  /** Of the part's first number in the tensor. */
  readonly offset: number;
  /** From a row of the part to the next, in numbers of the tensor. */
  readonly rowStride: number;
  /** From a column of the part to the next, in numbers of the tensor. */
  readonly columnStride: number;
}

/** A named tensor of a network: weights and biases as their file has them. */
export interface Tensor {
  /** As the file has it. */
  readonly name: string;
  /** As the file has it. */
  readonly shape: readonly number[];
  /** All that it gives. */
  readonly places: readonly Place[];
}

/**
 * A vector field f: R^d x R^c -> R^d as a graph of operations in topological order; the last one is the velocity, or of a potential its one number.
 * Made by {@link mlp} or by a file reader; never changed afterwards.
 */
export interface Network {
  /** d, the size of the state and of the velocity. */
  readonly stateSize: number;
  /** A point's own axes where the file has several, [particles, 3]: their product is d. */
  readonly stateShape?: readonly number[];
  /** c, the size of the context (time and the like); 0 where there is none. */
  readonly contextSize: number;
  /** In an order in which each reads earlier ones alone; the last one gives the velocity, [d], or a potential, [1]. */
  readonly operations: readonly Operation[];
  /** Weights and biases by the names of their file, in its order; what no tensor gives has a name made out of its operation, but for fixed numbers. */
  readonly tensors?: readonly Tensor[];
  /** Sentences of the reader: what it took for state and context and why, what a file does not show, what it left out. */
  readonly notes?: readonly string[];
}

/** The number of elements of what an operation reads or gives. */
export function widthOf(network: Network, operand: Operand): number {
  let at = operand;
  while (typeof at === "number") {
    const operation: Operation = network.operations[at]!;
    if (operation.kind === "linear") return widthOfLinear(operation);
    at = operation.kind === "product" ? operation.operands[0] : operation.operand;
  }
  return at === "state" ? network.stateSize : network.contextSize;
}

/** The number of elements of a sum. */
export function widthOfLinear({ terms, bias }: LinearOperation): number {
  const weight = terms[0]?.weight;
  if (weight === undefined) return bias?.length ?? 0;
  return "diagonal" in weight ? weight.diagonal.length : "block" in weight ? weight.times * weight.block.rows : weight.rows;
}

/** What an operation reads. */
export function operandsOf(operation: Operation): readonly Operand[] {
  if (operation.kind === "linear") return operation.terms.map(({ operand }) => operand);
  return operation.kind === "product" ? operation.operands : [operation.operand];
}

/** Whether it takes its operand as it is. */
export function isIdentityWeight(weight: Weight): boolean {
  return "diagonal" in weight && weight.diagonal.every((factor) => factor === 1);
}

/**
 * A weight [outputs, inputs]: nested rows, or `{ data, shape }`, or a flat row-major array whose number of rows follows
 * from the bias, or from the width of the layer before.
 */
export type WeightInput =
  | readonly ArrayLike<number>[]
  | {
      /** Row-major. */
      readonly data: ArrayLike<number>;
      /** [outputs, inputs] */
      readonly shape: readonly number[];
    }
  | ArrayLike<number>;

/** One linear layer of {@link mlp}: z = W a + b. */
export interface LayerInput {
  /** [outputs, inputs], as PyTorch's nn.Linear stores it. */
  readonly weight: WeightInput;
  /** [outputs]; zero where left out. */
  readonly bias?: ArrayLike<number> | null | undefined;
}

export interface ChainOptions {
  /**
   * One name for all hidden layers ("silu", "elu(0.5)"), or one per hidden layer, or one more for the output. A text with
   * commas is such a list too. May be left out only where there is no hidden layer.
   */
  readonly activation?: string | readonly string[] | undefined;
  /** Where the context's columns stand in the first weight: after the state's ("last", the default) or before. */
  readonly contextColumns?: "last" | "first" | undefined;
  /** Whether the last layer gives one number, a potential that {@link gradientField} makes a field of, and no velocity. Default false. */
  readonly potential?: boolean | undefined;
  /** Of a potential: how many of the inputs are context, which the outputs do not tell. Default 0. */
  readonly contextSize?: number | undefined;
}

/** What {@link mlp} makes a network of. Numbers are copied. */
export interface MlpOptions extends ChainOptions {
  /** From the input to the velocity; L hidden layers are L + 1 of these. */
  readonly layers: readonly LayerInput[];
}

/** One linear layer, and what messages call its parts. */
export interface LinearLayer {
  /** The tensors that the weight and the bias are as they stand; absent where they were computed. */
  readonly tensors?: { readonly weight: TensorName; readonly bias?: TensorName };
  readonly weight: Matrix;
  readonly weightName: string;
  readonly bias: Numbers | null;
  readonly biasName: string;
  /** What scales the results before the activation, in order. */
  readonly before?: readonly Affine[];
  /** In the place of an activation, a PReLU: max(z, 0) + slope min(z, 0), with one slope or [outputs]. */
  readonly slopes?: Numbers;
  /** What scales the activation's results, in order. */
  readonly after?: readonly Affine[];
}

/** A tensor's name, and whether it is stored [inputs, outputs]. */
export interface TensorName {
  readonly name: string;
  readonly isTransposed?: boolean;
}

/** gain ∘ a + bias, both [outputs] of the layer: a BatchNorm that is not trained any more. */
export interface Affine {
  readonly name: string;
  readonly gain: Numbers;
  readonly bias: Numbers;
}

/**
 * A multilayer perceptron as a vector field: z_l = W_l a_(l-1) + b_l, a_l = σ_l(z_l).
 * d is the number of outputs of the last layer; what the first layer takes beyond d is context. With `potential` it is a potential
 * R^d x R^c -> R, no field yet: {@link gradientField} makes one of it.
 *
 * @throws ModelError where shapes do not chain, the field is not square or the potential gives more than one number, a number is not
 * finite, or the activation is missing or unknown.
 */
export function mlp(options: MlpOptions): Network {
  const { layers: inputs } = options;
  if (!Array.isArray(inputs)) throw new ModelError(`mlp: layers is ${quote(inputs)}; expected a list of { weight, bias? }`);
  const layers: LinearLayer[] = [];
  for (const [index, input] of inputs.entries()) {
    const weightName = `layers[${index}].weight`;
    const biasName = `layers[${index}].bias`;
    const weight = readWeight(input, `mlp: ${weightName}`, layers.at(-1)?.weight.rows);
    const bias = input.bias == null ? null : readNumbers(input.bias, `mlp: ${biasName}`);
    const tensors = { weight: { name: `${index}.weight` }, ...(bias && { bias: { name: `${index}.bias` } }) };
    layers.push({ weight, weightName, bias, biasName, tensors });
  }
  return linearChain("mlp", layers, options);
}

/**
 * The network of linear layers one after another, with activations between them, whoever read them.
 *
 * @param source starts every message: "mlp", "safetensors".
 * @throws ModelError as {@link mlp} does.
 */
export function linearChain(source: string, layers: readonly LinearLayer[], options: ChainOptions): Network {
  const { contextColumns = "last" } = options;
  if (contextColumns !== "last" && contextColumns !== "first")
    throw new ModelError(`${source}: contextColumns is ${quote(contextColumns)}; expected "last" or "first"`);
  const first = layers[0];
  const last = layers.at(-1);
  if (!first || !last) throw new ModelError(`${source}: there are no layers; expected at least one`);

  for (const [index, { weight, weightName, bias, biasName, before = [], slopes, after = [] }] of layers.entries()) {
    const previous = layers[index - 1];
    if (previous && weight.columns !== previous.weight.rows)
      throw new ModelError(
        `${source}: ${weightName} is [${weight.rows}, ${weight.columns}], but ${previous.weightName} gives ${previous.weight.rows} outputs; expected [${weight.rows}, ${previous.weight.rows}]`,
      );
    if (bias && bias.length !== weight.rows)
      throw new ModelError(`${source}: ${biasName} has ${bias.length} numbers; expected ${weight.rows}, one per row of ${weightName}`);
    if (slopes && slopes.length !== 1 && slopes.length !== weight.rows)
      throw new ModelError(`${source}: ${slopes.length} slopes follow ${weightName}; expected 1 or ${weight.rows}, one per row`);
    requireFinite(weight.data, `${source}: ${weightName}`);
    if (bias) requireFinite(bias, `${source}: ${biasName}`);
    if (slopes) requireFinite(slopes, `${source}: the slopes after ${weightName}`);
    for (const { name, gain, bias: shift } of [...before, ...after]) {
      if (gain.length !== weight.rows)
        throw new ModelError(`${source}: ${name} has ${gain.length} numbers; expected ${weight.rows}, one per row of ${weightName}`);
      requireFinite(gain, `${source}: the gain of ${name}`);
      requireFinite(shift, `${source}: the bias of ${name}`);
    }
  }

  const { stateSize, contextSize } = readSizes(source, first.weight.columns, last.weight.rows, options);

  const activations = readActivations(source, options.activation, layers);
  const operations: Operation[] = [];
  const tensors: Tensor[] = [];
  const scale = ({ gain, bias }: Affine): void => {
    operations.push({ kind: "linear", terms: [{ operand: operations.length - 1, weight: { diagonal: gain } }], bias });
  };
  for (const [index, { weight, bias, tensors: names, before = [], slopes, after = [] }] of layers.entries()) {
    const terms: { operand: Operand; weight: Matrix; first: number }[] = [];
    if (index > 0) terms.push({ operand: operations.length - 1, weight, first: 0 });
    else {
      const stateFrom = contextColumns === "last" ? 0 : contextSize;
      const contextFrom = contextColumns === "last" ? stateSize : 0;
      terms.push({ operand: "state", weight: sliceColumns(weight, stateFrom, stateSize), first: stateFrom });
      if (contextSize > 0) terms.push({ operand: "context", weight: sliceColumns(weight, contextFrom, contextSize), first: contextFrom });
    }
    if (names) tensors.push(...tensorsOfLayer(names, operations.length, weight, terms));
    operations.push({ kind: "linear", terms: terms.map(({ operand, weight: part }) => ({ operand, weight: part })), bias });
    before.forEach(scale);
    const z = operations.length - 1;
    const activation = activations[index];
    if (activation) operations.push({ kind: "activation", operand: z, activation });
    // relu(z) + a min(z, 0): nothing cancels, however large a slope is.
    if (slopes && slopes.length > 1) {
      operations.push({ kind: "activation", operand: z, activation: parseActivation(`clip(${-largestClip}, 0)`) });
      operations.push({
        kind: "linear",
        terms: [
          { operand: z + 1, weight: { diagonal: new Float64Array(slopes.length).fill(1) } },
          { operand: z + 2, weight: { diagonal: slopes } },
        ],
        bias: null,
      });
    }
    after.forEach(scale);
  }
  return { stateSize, contextSize, tensors, operations };
}

function readSizes(
  source: string,
  inputs: number,
  outputs: number,
  { potential = false, contextSize: given }: ChainOptions,
): Pick<Network, "stateSize" | "contextSize"> {
  if (typeof potential !== "boolean") throw new ModelError(`${source}: potential is ${quote(potential)}; expected true or false`);
  if (!potential) {
    if (given !== undefined)
      throw new ModelError(`${source}: contextSize is ${quote(given)}; expected none but of a potential, since a velocity's size tells it`);
    if (outputs > inputs)
      throw new ModelError(
        `${source}: the network takes ${inputs} inputs and gives ${outputs} outputs; a vector field gives as many outputs as its state has components, so at most ${inputs}`,
      );
    return { stateSize: outputs, contextSize: inputs - outputs };
  }
  const contextSize = given ?? 0;
  if (outputs !== 1) throw new ModelError(`${source}: the network gives ${outputs} outputs; expected 1 of a potential`);
  if (!(Number.isInteger(contextSize) && contextSize >= 0 && contextSize < inputs))
    throw new ModelError(
      `${source}: contextSize is ${quote(given)}; expected a whole number below ${inputs}, the inputs of the first layer`,
    );
  return { stateSize: inputs - contextSize, contextSize };
}

function tensorsOfLayer(
  { weight: { name, isTransposed = false }, bias }: NonNullable<LinearLayer["tensors"]>,
  operation: number,
  { rows, columns }: Matrix,
  terms: readonly { readonly first: number }[],
): Tensor[] {
  const [rowStride, columnStride] = isTransposed ? [1, rows] : [columns, 1];
  const places = terms.map(({ first }, part) => ({ operation, part, offset: first * columnStride, rowStride, columnStride }));
  const tensors = [{ name, shape: isTransposed ? [columns, rows] : [rows, columns], places }];
  if (bias) {
    const place = { operation, part: "bias", offset: 0, rowStride: 0, columnStride: 1 } as const;
    return [...tensors, { name: bias.name, shape: [rows], places: [place] }];
  }
  return tensors;
}

/**
 * One activation per layer; null for the output unless the list names one more than there are hidden layers. A layer with slopes
 * of its own takes none of a name for all, and is called prelu in a list.
 */
function readActivations(source: string, given: ChainOptions["activation"], layers: readonly LinearLayer[]): (Activation | null)[] {
  if (given !== undefined && typeof given !== "string" && !Array.isArray(given))
    throw new ModelError(`${source}: activation is ${quote(given)}; expected a name such as "silu", or a list of names`);
  const names = typeof given === "string" ? parseActivationList(given) : (given ?? []);
  const hidden = layers.length - 1;
  const counted = `${hidden} hidden layer${hidden === 1 ? "" : "s"}`;
  const parsed = names.map((name) => {
    try {
      return /^\s*prelu\s*$/i.test(name) ? null : parseActivation(name);
    } catch (error) {
      throw error instanceof ModelError ? new ModelError(`${source}: ${error.message}`) : error;
    }
  });
  // A name meant for all hidden layers says nothing about the output, even where there is no hidden layer.
  const isForAll = parsed.length === 1 && (hidden > 0 || typeof given === "string");
  if (!isForAll && parsed.length > 0 && parsed.length !== hidden && parsed.length !== hidden + 1)
    throw new ModelError(
      `${source}: ${parsed.length} activations (${quote(names.join(", "))}) for ${counted}; expected ${hidden > 0 ? `1, ${hidden}, or ` : ""}${hidden + 1} with the output's`,
    );
  return layers.map(({ slopes, weightName }, index) => {
    const activation = isForAll && index < hidden ? parsed[0] : isForAll ? undefined : parsed[index];
    if (slopes && (isForAll || !activation)) return parseActivation(slopes.length > 1 ? "relu" : `leaky_relu(${slopes[0]})`);
    if (slopes)
      throw new ModelError(`${source}: activation ${quote(names[index])} stands for the slopes after ${weightName}; expected "prelu"`);
    if (activation === null) throw new ModelError(`${source}: activation is "prelu", but no slopes follow ${weightName}; expected another`);
    if (activation === undefined && index < hidden)
      throw new ModelError(
        `${source}: no activation was given for ${counted}; expected a name, as in activation: "silu", or a list of ${hidden}`,
      );
    return activation ?? null;
  });
}

/** @param before the width of the layer before, which the rows of a flat array have to have. */
function readWeight(layer: LayerInput, what: string, before: number | undefined): Matrix {
  const given: unknown = layer?.weight;
  if (given === null || typeof given !== "object")
    throw new ModelError(`${what} is ${quote(given)}; expected rows of numbers, { data, shape } or a flat array`);

  if ("shape" in given && "data" in given) {
    const data = readNumbers(given.data, what);
    const shape: readonly unknown[] = Array.isArray(given.shape) ? given.shape : [given.shape];
    const [rows, columns] = shape as readonly number[];
    if (shape.length !== 2 || !isCount(rows) || !isCount(columns) || rows * columns !== data.length)
      throw new ModelError(`${what} has ${data.length} numbers in the shape [${shape.join(", ")}]; expected [outputs, inputs]`);
    return { rows, columns, data };
  }

  if (Array.isArray(given) && typeof given[0] === "object") {
    const rows = given.map((row, index) => readNumbers(row, `${what}[${index}]`));
    const columns = rows[0]!.length;
    const ragged = rows.findIndex((row) => row.length !== columns);
    if (ragged >= 0) throw new ModelError(`${what}[${ragged}] has ${rows[ragged]!.length} numbers; expected ${columns} as in row 0`);
    if (columns === 0) throw new ModelError(`${what} has rows of 0 numbers; expected at least 1`);
    const data = new Float64Array(rows.length * columns);
    rows.forEach((row, index) => data.set(row, index * columns));
    return { rows: rows.length, columns, data };
  }

  const data = readNumbers(given, what);
  const rows = layer.bias?.length ?? (before === undefined ? undefined : data.length / before);
  if (rows === undefined)
    throw new ModelError(`${what} is flat and has no bias, so its shape is unknown; expected { data, shape: [outputs, inputs] } or rows`);
  const columns = data.length / rows;
  if (!isCount(rows) || !isCount(columns))
    throw new ModelError(
      `${what} has ${data.length} numbers; expected ${layer.bias ? `a multiple of ${rows}, the length of the bias` : `rows of ${before}, the outputs of the layer before`}`,
    );
  return { rows, columns, data };
}

function isCount(value: number | undefined): value is number {
  return Number.isSafeInteger(value) && value! > 0;
}

/** A copy of the numbers. What is not a number is an error and never converted: null would quietly become 0. */
function readNumbers(given: unknown, what: string): Numbers {
  if (given instanceof Float32Array) return given.slice();
  const length = given !== null && typeof given === "object" && "length" in given ? given.length : undefined;
  if (typeof length !== "number") throw new ModelError(`${what} is ${quote(given)}; expected an array of numbers`);
  return Float64Array.from(given as ArrayLike<unknown>, (value, index) => {
    if (typeof value !== "number") throw new ModelError(`${what} holds ${quote(value)} at position ${index}; expected numbers`);
    return value;
  });
}

/** The kernels compute in float32, so what is infinite there is refused as well. */
function requireFinite(numbers: Numbers, what: string): void {
  const bad = numbers.findIndex((value) => !Number.isFinite(Math.fround(value)));
  if (bad >= 0) throw new ModelError(`${what} holds ${numbers[bad]} at position ${bad}; expected numbers that are finite in float32`);
}

function sliceColumns(matrix: Matrix, from: number, columns: number): Matrix {
  if (columns === matrix.columns) return matrix;
  const data = new (matrix.data.constructor as Float32ArrayConstructor)(matrix.rows * columns);
  for (let row = 0; row < matrix.rows; row++)
    for (let column = 0; column < columns; column++) data[row * columns + column] = matrix.data[row * matrix.columns + from + column]!;
  return { rows: matrix.rows, columns, data };
}
