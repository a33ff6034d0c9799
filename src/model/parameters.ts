import { InputError, ModelError, quote } from "../errors.js";
import {
  isIdentityWeight,
  widthOfLinear,
  type LinearOperation,
  type Network,
  type Numbers,
  type Operation,
  type Place,
  type Tensor,
  type Weight,
} from "./network.js";

/** Numbers of a network that training changes, as {@link parametersOf} gives them, or their gradient. */
export interface Parameter<A = Float32Array> {
  /** Row-major. */
  readonly data: A;
  /** As the file has it: [outputs, inputs] of a weight, mostly. */
  readonly shape: readonly number[];
}

/** A tensor in one flat buffer of all parameters. */
export interface ParameterSlot {
  /** As {@link parametersOf} has it. */
  readonly name: string;
  /** Row-major in the buffer. */
  readonly shape: readonly number[];
  /** Where it begins, in floats. */
  readonly offset: number;
}

/** Where the parameters of a network lie in one flat buffer, one after another without holes. */
export interface ParameterLayout {
  /** In the order of {@link parametersOf}. */
  readonly tensors: readonly ParameterSlot[];
  /** Floats of all together. */
  readonly size: number;
}

const tensors = new WeakMap<Network, readonly Tensor[]>();

/**
 * The tensors of a network, each once: those that its reader named, in the file's order, and for what no name is known "3.weight"
 * and "3.bias" of operation 3, "3.weight.1" of its second term where it has several. Factors that are all 1 are no tensors: they
 * take something as it is.
 */
export function tensorsOf(network: Network): readonly Tensor[] {
  let known = typeof network === "object" && network !== null ? tensors.get(network) : undefined;
  if (!known) tensors.set(network, (known = listTensors(network)));
  return known;
}

function listTensors(network: Network): readonly Tensor[] {
  const { operations, tensors: named = [] }: Partial<Network> = network ?? {};
  if (!operations) throw new ModelError(`network is ${quote(network)}; expected one that mlp or a file reader made`);
  const placed = new Set(named.flatMap(({ places }) => places.map(({ operation, part }) => `${operation} ${part}`)));
  const names = new Set(named.map(({ name }) => name));
  const unique = (name: string): string => {
    let free = name;
    for (let i = 2; names.has(free); i++) free = `${name} ${i}`;
    names.add(free);
    return free;
  };
  const rest: Tensor[] = [];
  operations.forEach((operation, index) => {
    if (operation.kind !== "linear" || operation.isFixed) return;
    const add = (part: Place["part"], name: string, shape: readonly number[]): void => {
      if (placed.has(`${index} ${part}`)) return;
      const places = [{ operation: index, part, offset: 0, rowStride: shape.length > 1 ? shape[1]! : 0, columnStride: 1 }];
      rest.push({ name: unique(name), shape, places });
    };
    operation.terms.forEach(({ weight }, term) => {
      const name = `${index}.weight${operation.terms.length > 1 ? `.${term}` : ""}`;
      if (!isIdentityWeight(weight)) add(term, name, shapeOf(weight));
    });
    if (operation.bias) add("bias", `${index}.bias`, [widthOfLinear(operation)]);
  });
  return [...named, ...rest];
}

/** [rows, columns] of a matrix, of the one that parts share, or [n] of a diagonal. */
function shapeOf(weight: Weight): readonly number[] {
  if ("diagonal" in weight) return [weight.diagonal.length];
  const { rows, columns } = "block" in weight ? weight.block : weight;
  return [rows, columns];
}

/** The numbers of a part of an operation, and how many columns they have: one where they are a list. */
export function numbersOf({ terms, bias }: LinearOperation, part: Place["part"]): { numbers: Numbers; columns: number } {
  if (part === "bias") return { numbers: bias!, columns: 1 };
  const { weight } = terms[part]!;
  if ("diagonal" in weight) return { numbers: weight.diagonal, columns: 1 };
  const { data, columns } = "block" in weight ? weight.block : weight;
  return { numbers: data, columns };
}

/** How far apart the rows of a part lie in the tensor; a list runs along its columns. */
export function rowStrideOf({ rowStride, columnStride }: Place, columns: number): number {
  return columns === 1 && rowStride === 0 ? columnStride : rowStride;
}

/** Calls `visit` for the numbers of a part in turn: where each lies in the part, and where in the tensor. */
function walk(place: Place, count: number, columns: number, visit: (index: number, position: number) => void): void {
  const [rowStride, { columnStride }] = [rowStrideOf(place, columns), place];
  for (let index = 0, row = place.offset; index < count; row += rowStride)
    for (let column = 0, position = row; column < columns; column++, position += columnStride) visit(index++, position);
}

/** How many numbers a shape holds. */
function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

/**
 * Tensors by name, each number summed up out of all its places.
 *
 * @param numbersAt the numbers of a part of an operation; undefined for zeros.
 */
export function gatherTensors(
  network: Network,
  numbersAt: (operation: number, part: Place["part"]) => ArrayLike<number> | undefined,
): Record<string, Parameter<Float64Array>> {
  return Object.fromEntries(
    tensorsOf(network).map(({ name, shape, places }) => {
      const data = new Float64Array(sizeOf(shape));
      for (const place of places) {
        const { columns } = numbersOf(network.operations[place.operation] as LinearOperation, place.part);
        const numbers = numbersAt(place.operation, place.part);
        if (numbers) walk(place, numbers.length, columns, (index, position) => (data[position]! += numbers[index]!));
      }
      return [name, { data, shape }];
    }),
  );
}

/**
 * The weights and biases of a network by name, in order: of a safetensors file its own tensors, of `mlp` "0.weight" [outputs,
 * inputs], "0.bias" [outputs], "1.weight" and so on, of an ONNX file its initializers where they are weights as they stand, else
 * "3.weight" of operation 3; biases that are zeros in an ONNX file fold away and are none. Copies, in float32.
 *
 * @throws ModelError where it is no network.
 */
export function parametersOf(network: Network): Record<string, Parameter> {
  return Object.fromEntries(
    tensorsOf(network).map(({ name, shape, places }) => {
      const data = new Float32Array(sizeOf(shape));
      for (const place of places) {
        const { numbers, columns } = numbersOf(network.operations[place.operation] as LinearOperation, place.part);
        walk(place, numbers.length, columns, (index, position) => (data[position] = numbers[index]!));
      }
      return [name, { data, shape }];
    }),
  );
}

/**
 * Where each tensor of {@link parametersOf} lies when all of them lie in one flat buffer, in the order of the file. Go by the names: an
 * object's own order puts whole numbers first.
 */
export function parameterLayout(network: Network): ParameterLayout {
  let size = 0;
  const slots = tensorsOf(network).map(({ name, shape }) => {
    const slot = { name, shape, offset: size };
    size += sizeOf(shape);
    return slot;
  });
  return { tensors: slots, size };
}

/** Numbers of one parameter, row-major, with or without their shape. */
export type ParameterInput =
  | Float32Array
  | Float64Array
  | readonly number[]
  | {
      /** Row-major. */
      readonly data: Float32Array | Float64Array | readonly number[];
      /** Where given, the parameter's own. */
      readonly shape?: readonly number[] | undefined;
    };

/**
 * The same network with other numbers, by name as {@link parametersOf} gives them; those left out stay as they are. The network
 * given is not changed.
 *
 * @throws InputError where a name is unknown, a shape another, or a number not finite in float32; ModelError where it is no network.
 */
export function withParameters(network: Network, parameters: Readonly<Record<string, ParameterInput>>): Network {
  return withNumbersOf(network, readParameters(network, parameters));
}

/** Copies of parameters by name. @throws as {@link withParameters} does. */
export function readParameters(network: Network, parameters: Readonly<Record<string, ParameterInput>>): ReadonlyMap<Tensor, Numbers> {
  const all = tensorsOf(network);
  if (typeof parameters !== "object" || parameters === null || parameters instanceof Map)
    throw new InputError(`parameters is ${quote(parameters)}; expected an object of arrays by name`);
  const read = new Map<Tensor, Numbers>();
  for (const [name, given] of Object.entries(parameters)) {
    const tensor = all.find((each) => each.name === name);
    if (!tensor)
      throw new InputError(`parameters has ${quote(name)}; expected names out of ${all.map((each) => quote(each.name)).join(", ")}`);
    read.set(tensor, readParameter(tensor, given));
  }
  return read;
}

/** The same network with what was read for it, or for one with other numbers. */
export function withNumbersOf(network: Network, read: ReadonlyMap<Tensor, Numbers>): Network {
  const operations: Operation[] = [...network.operations];
  for (const [{ places }, data] of read)
    for (const place of places) {
      const operation = operations[place.operation] as LinearOperation;
      const { numbers, columns } = numbersOf(operation, place.part);
      const moved = new (data.constructor as Float64ArrayConstructor)(numbers.length);
      walk(place, numbers.length, columns, (index, position) => (moved[index] = data[position]!));
      operations[place.operation] = withNumbers(operation, place.part, moved);
    }
  return { ...network, tensors: tensorsOf(network), operations };
}

function readParameter({ name, shape }: Tensor, given: ParameterInput): Numbers {
  const size = sizeOf(shape);
  const data: unknown = typeof given === "object" && given !== null && "data" in given ? given.data : given;
  if (
    !(
      data instanceof Float32Array ||
      data instanceof Float64Array ||
      (Array.isArray(data) && data.every((value) => typeof value === "number"))
    )
  )
    throw new InputError(`parameter ${quote(name)} is ${quote(data)}; expected a Float32Array, a Float64Array or an array of numbers`);
  const { length } = data;
  if (length !== size)
    throw new InputError(`parameter ${quote(name)} has ${quote(length)} numbers; expected ${size}, [${shape.join(", ")}]`);
  const own = typeof given === "object" && "shape" in given ? given.shape : undefined;
  if (own != null && String(own) !== String(shape))
    throw new InputError(`parameter ${quote(name)} has the shape [${own.join(", ")}]; expected [${shape.join(", ")}]`);
  const numbers = data instanceof Float32Array ? data.slice() : Float64Array.from(data);
  for (let position = 0; position < size; position++)
    if (!Number.isFinite(Math.fround(numbers[position]!)))
      throw new InputError(`parameter ${quote(name)} holds ${numbers[position]} at position ${position}; expected finite numbers`);
  return numbers;
}

function withNumbers(operation: LinearOperation, part: Place["part"], data: Numbers): LinearOperation {
  if (part === "bias") return { ...operation, bias: data };
  const terms = operation.terms.map((term, index): LinearOperation["terms"][number] => {
    const { operand, weight } = term;
    if (index !== part) return term;
    if ("diagonal" in weight) return { operand, weight: { diagonal: data } };
    return { operand, weight: "block" in weight ? { ...weight, block: { ...weight.block, data } } : { ...weight, data } };
  });
  return { ...operation, terms };
}
