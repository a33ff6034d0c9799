import { ModelError, quote } from "../../errors.js";
import { parseActivation } from "../activation.js";
import type { LinearLayer, Matrix, Numbers } from "../network.js";
import { orderOf } from "./layerOrder.js";

/** A tensor of the file: its name and shape. */
export interface Named {
  readonly name: string;
  readonly shape: readonly number[];
}

/** What of a file's tensors are layers, and in which order. */
export interface StateDictOptions {
  readonly prefix?: string | undefined;
  readonly layers?: readonly string[] | undefined;
  readonly ignore?: readonly string[] | undefined;
}

/** The ε of BatchNorm, which a state_dict does not hold: PyTorch's default. */
const BATCH_NORM_EPSILON = 1e-5;

/** Counts of steps, which change nothing. */
export function isCounter(name: string): boolean {
  return /(^|[./])(num_batches_tracked|n_averaged|num_updates|step|steps|decay)$/.test(name);
}

/** The tensors of one module, by what they are in it. */
interface Module<T extends Named> {
  readonly name: string;
  readonly parts: Map<string, T>;
}

/**
 * The chain of linear layers that the tensors are, by their names in PyTorch, Flax or Keras.
 * @throws ModelError where they are anything else, or can be read in two ways.
 */
export function readStateDict<T extends Named>(
  tensors: readonly T[],
  numbersOf: (tensor: T) => Numbers,
  { prefix = "", layers: order, ignore = [] }: StateDictOptions,
): { layers: LinearLayer[]; notes: string[] } {
  const own = tensors.filter(({ name }) => name.startsWith(prefix));
  if (prefix !== "" && own.length === 0) fail(`options.prefix is ${quote(prefix)}; expected what some tensor's name begins with`);
  const unknown = ignore.find((name) => !own.some((tensor) => tensor.name === name || tensor.name === `${prefix}${name}`));
  if (unknown !== undefined) fail(`options.ignore has ${quote(unknown)}; expected a tensor's name`);
  const isIgnored = ({ name }: T): boolean => isCounter(name) || ignore.includes(name) || ignore.includes(name.slice(prefix.length));
  const modules = modulesOf(
    own.filter((tensor) => !isIgnored(tensor)),
    prefix,
  );
  const [linear, others] = [modules.filter(isLinear), modules.filter((module) => !isLinear(module))];
  for (const module of others) requireKnown(module);
  const names = linear.map(({ name }) => name);
  const matrices = new Map(linear.map((module) => [module.name, matrixOf(module, numbersOf)]));
  const shapes = names.map((name) => ({ name, rows: matrices.get(name)!.rows, columns: matrices.get(name)!.columns }));
  const chain = (order ? asTold(names, order) : orderOf(shapes)).map((name) => linear.find((module) => module.name === name)!);

  const layers = chain.map((module): Mutable<LinearLayer> => {
    const bias = module.parts.get("bias");
    return {
      weight: matrices.get(module.name)!,
      weightName: `tensor ${quote(tensorOf(module).name)}`,
      bias: bias ? numbersOf(bias) : null,
      biasName: `tensor ${quote(bias?.name ?? `${module.name}.bias`)}`,
    };
  });
  for (const module of others) place(module, chain, layers, numbersOf);

  const left = own.filter(isIgnored).map(({ name }) => quote(name));
  const apart = tensors.length - own.length;
  return {
    layers,
    notes: [
      `read as a chain of ${layers.length} ${layers.length === 1 ? "layer" : "layers"}, ${names.length > 1 ? chain.map(({ name }) => name).join(" -> ") : names[0]}; a state_dict does not show skips, nor what stands between: export ONNX if there are any`,
      ...(left.length > 0 ? [`left out: ${left.join(", ")}`] : []),
      ...(apart > 0 ? [`left out: ${apart} tensors whose names do not begin with ${quote(prefix)}`] : []),
    ],
  };
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Names of parts, as PyTorch's modules and parametrizations, Flax and Keras have them: the longest that fits counts. */
const partNames: readonly (readonly [RegExp, string])[] = [
  [/parametrizations\.weight\.original0$/, "weight_g"],
  [/parametrizations\.weight\.original1$/, "weight_v"],
  [/parametrizations\.weight\.original$/, "weight_orig"],
  [/parametrizations\.weight\.0\._u$/, "weight_u"],
  [/parametrizations\.weight\.0\._v$/, "weight_v"],
  [/vars\.0$/, "kernel"],
  [/vars\.1$/, "bias"],
  [/(weight_orig|weight_g|weight_u|weight_v|weight|bias|kernel|running_mean|running_var)$/, ""],
];

function modulesOf<T extends Named>(tensors: readonly T[], prefix: string): Module<T>[] {
  const modules = new Map<string, Module<T>>();
  for (const tensor of tensors) {
    const name = tensor.name.slice(prefix.length).replaceAll("/", ".").replace(/:0$/, "");
    const found = partNames.find(([pattern]) => new RegExp(`(^|\\.)${pattern.source}`).test(name));
    if (!found)
      fail(
        `tensor ${quote(tensor.name)} of shape [${tensor.shape.join(",")}] is not part of a chain of linear layers; expected weights and biases alone, or its name in options.ignore if the field does not need it`,
      );
    const match = found[0].exec(name)!;
    const owner = name.slice(0, match.index).replace(/\.$/, "");
    const module = modules.get(owner) ?? { name: owner, parts: new Map<string, T>() };
    const part = found[1] || match[1]!;
    if (module.parts.has(part))
      fail(
        `tensors ${quote(module.parts.get(part)!.name)} and ${quote(tensor.name)} are both the ${part} of ${quote(owner)}; expected one`,
      );
    module.parts.set(part, tensor);
    modules.set(owner, module);
  }
  return [...modules.values()];
}

function isLinear<T extends Named>({ parts }: Module<T>): boolean {
  return [...parts].some(([part, { shape }]) => (part.startsWith("weight") || part === "kernel") && shape.length === 2);
}

function tensorOf<T extends Named>({ parts }: Module<T>): T {
  return parts.get("weight") ?? parts.get("kernel") ?? parts.get("weight_orig") ?? parts.get("weight_v")!;
}

/** Module: allowed parts and shapes. */
function requireParts<T extends Named>(module: Module<T>, ...allowed: string[]): void {
  const odd = [...module.parts].find(([part]) => !allowed.includes(part));
  if (odd) fail(`tensor ${quote(odd[1].name)} stands beside ${quote(tensorOf(module).name)}; expected ${allowed.join(", ")} alone`);
}

/** [out, in], with its norm multiplied out. */
function matrixOf<T extends Named>(module: Module<T>, numbersOf: (tensor: T) => Numbers): Matrix {
  const { parts } = module;
  const bias = parts.get("bias");
  if (bias && bias.shape.length !== 1)
    fail(`tensor ${quote(bias.name)} of shape [${bias.shape.join(",")}] is not part of a chain of linear layers; expected [out]`);
  const kernel = parts.get("kernel");
  if (kernel) {
    requireParts(module, "kernel", "bias");
    const [columns, rows] = kernel.shape as [number, number];
    const given = numbersOf(kernel);
    const data = given.map((_, i) => given[(i % columns) * rows + Math.floor(i / columns)]!);
    return { rows, columns, data };
  }
  const of = (part: string): { tensor: T; numbers: Numbers } => {
    const tensor = parts.get(part) ?? fail(`tensor ${quote(tensorOf(module).name)} stands alone; expected ${part} beside it`);
    return { tensor, numbers: numbersOf(tensor) };
  };
  if (parts.has("weight_g")) {
    requireParts(module, "weight_g", "weight_v", "bias");
    return weightNormed(of("weight_g"), of("weight_v"));
  }
  if (parts.has("weight_orig")) {
    requireParts(module, "weight_orig", "weight_u", "weight_v", "bias");
    const { tensor, numbers: data } = of("weight_orig");
    const [rows, columns] = tensor.shape as [number, number];
    const [u, v] = [of("weight_u").numbers, of("weight_v").numbers];
    if (u.length !== rows || v.length !== columns)
      fail(`the vectors beside ${quote(tensor.name)} have ${u.length} and ${v.length} numbers; expected ${rows} and ${columns}`);
    let sigma = 0;
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) sigma += u[row]! * data[row * columns + column]! * v[column]!;
    return { rows, columns, data: Float64Array.from(data, (value) => value / sigma) };
  }
  requireParts(module, "weight", "bias");
  const { tensor, numbers: data } = of("weight");
  const [rows, columns] = tensor.shape as [number, number];
  return { rows, columns, data };
}

/** g v / |v|, by rows for g [out, 1], by columns for [1, in], of the whole for one number. */
function weightNormed(g: { tensor: Named; numbers: Numbers }, v: { tensor: Named; numbers: Numbers }): Matrix {
  const [rows, columns] = v.tensor.shape as [number, number];
  const shape = String(g.tensor.shape);
  const group =
    shape === String([rows, 1]) || shape === String([rows])
      ? (i: number): number => Math.floor(i / columns)
      : shape === String([1, columns])
        ? (i: number): number => i % columns
        : g.numbers.length === 1
          ? (): number => 0
          : fail(`tensor ${quote(g.tensor.name)} has the shape [${shape}]; expected [${rows}, 1], [1, ${columns}] or one number`);
  const squares = new Float64Array(g.numbers.length);
  v.numbers.forEach((value, i) => (squares[group(i)]! += value * value));
  return {
    rows,
    columns,
    data: Float64Array.from(v.numbers, (value, i) => (value * g.numbers[group(i)]!) / Math.sqrt(squares[group(i)]!)),
  };
}

/** BatchNorm or PReLU; all else could matter. */
function requireKnown<T extends Named>(module: Module<T>): void {
  const { parts } = module;
  const [[, first]] = parts as unknown as [[string, T]];
  const isVector = [...parts.values()].every(({ shape }) => shape.length === 1);
  const isBatchNorm = parts.has("running_mean") && parts.has("running_var");
  const isPrelu = parts.size === 1 && parts.has("weight");
  if (parts.has("bias") && parts.size === 1)
    fail(`tensor ${quote(first.name)} stands alone; expected ${quote(first.name.replace(/bias$/, "weight"))} beside it`);
  if (!isVector || !(isBatchNorm || isPrelu))
    fail(
      `tensor ${quote(first.name)} of shape [${first.shape.join(",")}] is not part of a chain of linear layers; expected only "….weight" [out, in] and "….bias" [out]`,
    );
}

/** Puts a module between the linear layers whose numbers are below and above its own. */
function place<T extends Named>(
  module: Module<T>,
  chain: readonly Module<T>[],
  layers: Mutable<LinearLayer>[],
  numbersOf: (tensor: T) => Numbers,
): void {
  const [first] = module.parts.values();
  const [stem, number] = stemOf(module.name);
  const before = chain.findLastIndex(({ name }) => stemOf(name)[0] === stem && stemOf(name)[1] < number);
  const layer = layers[before];
  if (Number.isNaN(number) || !layer)
    fail(
      `tensor ${quote(first!.name)} of shape [${first!.shape.join(",")}] is not part of a chain of linear layers, whose numbers give it no place; expected it after one of them`,
    );
  const of = (part: string, otherwise: number): Numbers => {
    const tensor = module.parts.get(part);
    const numbers = tensor ? numbersOf(tensor) : new Float64Array(layer.weight.rows).fill(otherwise);
    if (numbers.length !== layer.weight.rows)
      fail(`tensor ${quote(tensor!.name)} has ${numbers.length} numbers; expected ${layer.weight.rows}`);
    return numbers;
  };
  if (!module.parts.has("running_mean")) {
    const slopes = numbersOf(first!);
    if (layer.activation || before === layers.length - 1)
      fail(`tensor ${quote(first!.name)} is one activation too many; expected one between two linear layers`);
    if (!slopes.every((slope) => slope === slopes[0]))
      fail(`tensor ${quote(first!.name)} has ${slopes.length} slopes that differ; expected one (export ONNX for more)`);
    layer.activation = parseActivation(`leaky_relu(${slopes[0]})`);
    return;
  }
  const [gain, shift, mean, variance] = [of("weight", 1), of("bias", 0), of("running_mean", 0), of("running_var", 1)];
  const factors = Float64Array.from(gain, (value, i) => value / Math.sqrt(variance[i]! + BATCH_NORM_EPSILON));
  const shifts = Float64Array.from(shift, (value, i) => value - mean[i]! * factors[i]!);
  const next = layers[before + 1];
  const at = stemOf(chain[before]!.name)[1];
  // With nothing between, it stands before the activation; with one number between, that is the activation's.
  if (number === at + 1) {
    const { rows, columns, data } = layer.weight;
    layer.weight = { rows, columns, data: Float64Array.from(data, (value, i) => value * factors[Math.floor(i / columns)]!) };
    layer.bias = Float64Array.from(shifts, (value, i) => value + factors[i]! * (layer.bias?.[i] ?? 0));
  } else if (number === at + 2 && next) {
    const { rows, columns, data } = next.weight;
    const bias = Float64Array.from({ length: rows }, (_, row) =>
      shifts.reduce((sum, value, i) => sum + value * data[row * columns + i]!, next.bias?.[row] ?? 0),
    );
    next.weight = { rows, columns, data: Float64Array.from(data, (value, i) => value * factors[i % columns]!) };
    next.bias = bias;
  } else
    fail(
      `tensor ${quote(first!.name)} stands ${number - at} places after ${layer.weightName}; expected one or two, before or after the activation`,
    );
}

/** "net.3" is the third of "net.". */
function stemOf(name: string): [string, number] {
  const match = /^(.*?)(\d+)$/.exec(name);
  return match ? [match[1]!, Number(match[2])] : [name, NaN];
}

function asTold(names: readonly string[], order: readonly string[]): readonly string[] {
  if (!Array.isArray(order) || order.length !== names.length || !names.every((name) => order.includes(name)))
    fail(`options.layers is ${quote(order)}; expected all of ${names.map(quote).join(", ")}, in their order`);
  return order;
}

function fail(message: string): never {
  throw new ModelError(`safetensors: ${message}`);
}
