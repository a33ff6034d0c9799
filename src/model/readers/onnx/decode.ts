import { ModelError, quote } from "../../../errors.js";
import { bfloat16, float16 } from "../../float16.js";
import type { Numbers } from "../../network.js";
import { readFields, readIntegers, readText, viewOf, type Field } from "../protobuf.js";

/** A file as it stands, before any of it is understood. */
export interface OnnxModel {
  /** By domain; the default domain is "". */
  readonly opsets: ReadonlyMap<string, number>;
  readonly nodes: readonly OnnxNode[];
  readonly initializers: ReadonlyMap<string, Tensor>;
  readonly inputs: readonly OnnxTensor[];
  readonly outputs: readonly OnnxTensor[];
}

export interface OnnxNode {
  readonly name: string;
  readonly type: string;
  readonly domain: string;
  /** "" where an optional input is left out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, Attribute>;
}

/** An input or an output of the graph. */
export interface OnnxTensor {
  readonly name: string;
  /** A number, or the name of a symbolic dimension; null where the file does not say. */
  readonly shape: readonly (number | string)[] | null;
}

/** The parts that an attribute may have; a graph is noted and not read. */
export interface Attribute {
  readonly float: number;
  readonly integer: number;
  readonly text: string;
  readonly tensor: Tensor | null;
  readonly floats: readonly number[];
  readonly integers: readonly number[];
  readonly isGraph: boolean;
}

/** Constant numbers [shape], row-major. */
export interface Tensor {
  readonly shape: readonly number[];
  readonly data: Numbers;
  /** Whole numbers and truth values are float64 with this mark: their quotients are rounded towards 0. */
  readonly isInteger: boolean;
  /** TensorProto.DataType, as far as it is known: what was computed has none of its own. */
  readonly type?: number;
}

interface TensorType {
  readonly name: string;
  /** Bytes of a number in raw_data. */
  readonly bytes: number;
  readonly read: (view: DataView, offset: number) => number;
  /** The field that holds the numbers where raw_data does not. */
  readonly field: 4 | 5 | 7 | 10;
  /** What a number of that field stands for, where it is not itself. */
  readonly decode?: (stored: number) => number;
  readonly isInteger: boolean;
  readonly isDouble: boolean;
}

/** By TensorProto.DataType. */
const tensorTypes: ReadonlyMap<number, TensorType> = new Map<number, TensorType>([
  [1, { name: "FLOAT", bytes: 4, read: (view, at) => view.getFloat32(at, true), field: 4, isInteger: false, isDouble: false }],
  [6, { name: "INT32", bytes: 4, read: (view, at) => view.getInt32(at, true), field: 5, isInteger: true, isDouble: true }],
  [7, { name: "INT64", bytes: 8, read: (view, at) => Number(view.getBigInt64(at, true)), field: 7, isInteger: true, isDouble: true }],
  [9, { name: "BOOL", bytes: 1, read: (view, at) => view.getUint8(at), field: 5, isInteger: true, isDouble: true }],
  [
    10,
    {
      name: "FLOAT16",
      bytes: 2,
      read: (view, at) => float16(view.getUint16(at, true)),
      field: 5,
      decode: float16,
      isInteger: false,
      isDouble: false,
    },
  ],
  [11, { name: "DOUBLE", bytes: 8, read: (view, at) => view.getFloat64(at, true), field: 10, isInteger: false, isDouble: true }],
  [
    16,
    {
      name: "BFLOAT16",
      bytes: 2,
      read: (view, at) => bfloat16(view.getUint16(at, true)),
      field: 5,
      decode: bfloat16,
      isInteger: false,
      isDouble: false,
    },
  ],
]);

/** Number types that a Cast may name: all of the file's, by the same numbers. */
export function isFloatType(type: number): boolean {
  return tensorTypes.get(type)?.isInteger === false;
}

export function isIntegerType(type: number): boolean {
  return tensorTypes.get(type)?.isInteger === true;
}

/** Reads ModelProto; field numbers are those of onnx.proto. Weights that lie in another file are refused. */
export function decodeModel(file: Uint8Array): OnnxModel {
  const opsets = new Map<string, number>();
  let graph: Uint8Array | null = null;
  for (const field of fieldsOf(file)) {
    if (field.number === 7) {
      if (graph) fail("the file has two graphs; expected one");
      graph = field.bytes;
    } else if (field.number === 8) {
      let domain = "";
      let version = 0;
      for (const part of fieldsOf(field.bytes)) {
        if (part.number === 1) domain = readText(part);
        else if (part.number === 2) version = part.integer;
      }
      const key = domain === "ai.onnx" ? "" : domain;
      if (opsets.has(key)) fail(`the file has two opsets of the domain ${quote(domain)}; expected one`);
      opsets.set(key, version);
    }
  }
  if (!graph) fail(`the file of ${file.length} bytes has no graph; expected an ONNX model`);
  return { opsets, ...decodeGraph(graph) };
}

function decodeGraph(graph: Uint8Array): Omit<OnnxModel, "opsets"> {
  const nodes: OnnxNode[] = [];
  const initializers = new Map<string, Tensor>();
  const inputs: OnnxTensor[] = [];
  const outputs: OnnxTensor[] = [];
  for (const field of fieldsOf(graph)) {
    if (field.number === 1) nodes.push(decodeNode(field.bytes));
    else if (field.number === 5) {
      const { name, tensor } = decodeTensor(field.bytes, "initializer");
      if (initializers.has(name)) fail(`two initializers have the name ${quote(name)}; expected one`);
      initializers.set(name, tensor);
    } else if (field.number === 11) inputs.push(decodeValueInfo(field.bytes, "input"));
    else if (field.number === 12) outputs.push(decodeValueInfo(field.bytes, "output"));
    else if (field.number === 15) fail("the graph has a sparse initializer; expected dense ones");
  }
  return { nodes, initializers, inputs, outputs };
}

function decodeNode(bytes: Uint8Array): OnnxNode {
  const node = { name: "", type: "", domain: "", inputs: [] as string[], outputs: [] as string[] };
  const attributes = new Map<string, Attribute>();
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) node.inputs.push(readText(field));
    else if (field.number === 2) node.outputs.push(readText(field));
    else if (field.number === 3) node.name = readText(field);
    else if (field.number === 4) node.type = readText(field);
    else if (field.number === 5) {
      const { name, attribute } = decodeAttribute(field.bytes);
      if (attributes.has(name)) fail(`${describeNode(node)} has two attributes ${quote(name)}; expected one`);
      attributes.set(name, attribute);
    } else if (field.number === 7) node.domain = readText(field);
  }
  return { ...node, attributes };
}

/** What messages call a node: its operation, and its name or that of its first result. */
export function describeNode(node: Pick<OnnxNode, "type" | "domain" | "name" | "outputs">): string {
  const domain = node.domain === "" || node.domain === "ai.onnx" ? "" : `${node.domain}.`;
  return `${quote(`${domain}${node.type}`).slice(1, -1)} ${quote(node.name || (node.outputs[0] ?? ""))}`;
}

function decodeAttribute(bytes: Uint8Array): { name: string; attribute: Attribute } {
  let name = "";
  const attribute = {
    float: 0,
    integer: 0,
    text: "",
    tensor: null as Tensor | null,
    floats: [] as number[],
    integers: [] as number[],
    isGraph: false,
  };
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) name = readText(field);
    else if (field.number === 2) attribute.float = [...fixedNumbers(field, 4)].at(-1) ?? 0;
    else if (field.number === 3) attribute.integer = field.integer;
    else if (field.number === 4) attribute.text = readText(field);
    else if (field.number === 5) attribute.tensor = decodeTensor(field.bytes, "attribute").tensor;
    else if (field.number === 6 || field.number === 11) attribute.isGraph = true;
    else if (field.number === 7) for (const value of fixedNumbers(field, 4)) attribute.floats.push(value);
    else if (field.number === 8) for (const value of readIntegers(field, source)) attribute.integers.push(value);
  }
  return { name, attribute };
}

function decodeTensor(bytes: Uint8Array, what: string): { name: string; tensor: Tensor } {
  const shape: number[] = [];
  let name = "";
  let typeNumber = 0;
  let raw: Uint8Array | null = null;
  let isExternal = false;
  const stored = new Map<number, Field[]>([4, 5, 7, 10].map((number) => [number, []]));
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) for (const size of readIntegers(field, source)) shape.push(size);
    else if (field.number === 2) typeNumber = field.integer;
    else if (field.number === 8) name = readText(field);
    else if (field.number === 9) raw = field.bytes;
    else if (field.number === 13 || (field.number === 14 && field.integer === 1)) isExternal = true;
    else stored.get(field.number)?.push(field);
  }
  const tensor = `${what} ${quote(name)}`;
  if (isExternal) fail(`${tensor} has its data in another file; expected it inline (save the model with save_as_external_data=False)`);
  const type = tensorTypes.get(typeNumber);
  if (!type)
    fail(
      `${tensor} has the data type ${typeNumber}; expected ${[...tensorTypes].map(([number, { name: text }]) => `${text} (${number})`).join(", ")}`,
    );
  if (shape.length > maximumRank || !shape.every((size) => Number.isSafeInteger(size) && size >= 0))
    fail(`${tensor} has the shape ${quote(shape)}; expected at most ${maximumRank} whole numbers`);
  // A product past 2^53 is rounded, but stays far above any length of a file, so it cannot pass for one.
  const count = shape.reduce((product, size) => product * size, 1);
  const fields = raw ? [] : (stored.get(type.field) ?? []);
  const size = raw ? raw.length / type.bytes : countStored(fields, type);
  if (size !== count) fail(`${tensor} holds ${size} numbers; expected ${count} for the shape ${quote(shape)}`);

  const data = type.isDouble ? new Float64Array(count) : new Float32Array(count);
  if (raw) {
    const view = viewOf(raw);
    for (let i = 0; i < count; i++) data[i] = type.read(view, i * type.bytes);
  } else {
    let i = 0;
    for (const field of fields) for (const value of storedNumbers(field, type)) data[i++] = type.decode ? type.decode(value) : value;
  }
  const isNumber = shape.length === 0 && type.field === 4;
  return {
    name,
    tensor: { shape, data: isNumber ? Float64Array.of(intended(data[0]!)) : data, isInteger: type.isInteger, type: typeNumber },
  };
}

/**
 * The number that a program's author wrote, of what float32 made of it: a decimal number of up to 4 digits, or quarters of π.
 * A float32 that nobody wrote is hardly ever one of those, and then within its own rounding.
 */
function intended(value: number): number {
  const quarters = Math.round((value / Math.PI) * 4);
  const candidates = [Number(value.toPrecision(4)), Math.abs(quarters) <= 64 ? (quarters / 4) * Math.PI : value];
  return candidates.find((candidate) => Math.fround(candidate) === value) ?? value;
}

/** Beyond it no operation here has a meaning, and a list of dimensions stays short. */
const maximumRank = 8;

function countStored(fields: readonly Field[], type: TensorType): number {
  let count = 0;
  for (const field of fields) {
    if (type.field === 4 || type.field === 10) count += field.bytes.length / (type.field === 4 ? 4 : 8);
    else for (const _ of readIntegers(field, source)) count++;
  }
  return count;
}

function storedNumbers(field: Field, type: TensorType): Iterable<number> {
  return type.field === 4 || type.field === 10 ? fixedNumbers(field, type.field === 4 ? 4 : 8) : readIntegers(field, source);
}

function* fixedNumbers(field: Field, bytes: 4 | 8): Generator<number, void, undefined> {
  const view = viewOf(field.bytes);
  for (let at = 0; at + bytes <= view.byteLength; at += bytes) yield bytes === 4 ? view.getFloat32(at, true) : view.getFloat64(at, true);
}

/** ValueInfoProto: a name, and the shape of a tensor type. */
function decodeValueInfo(bytes: Uint8Array, what: string): OnnxTensor {
  let name = "";
  let shape: (number | string)[] | null = null;
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) name = readText(field);
    else if (field.number === 2) for (const type of fieldsOf(field.bytes)) if (type.number === 1) shape = decodeShape(type.bytes, what);
  }
  return { name, shape };
}

function decodeShape(tensorType: Uint8Array, what: string): (number | string)[] | null {
  for (const field of fieldsOf(tensorType)) {
    if (field.number !== 2) continue;
    const shape: (number | string)[] = [];
    for (const dimension of fieldsOf(field.bytes)) {
      let size: number | string = "?";
      for (const part of fieldsOf(dimension.bytes)) {
        if (part.number === 1) size = part.integer;
        else if (part.number === 2) size = readText(part);
      }
      shape.push(size);
    }
    if (shape.length > maximumRank) fail(`an ${what} has ${shape.length} dimensions; expected at most ${maximumRank}`);
    return shape;
  }
  return null;
}

const source = "onnx";

function fieldsOf(message: Uint8Array): Generator<Field, void, undefined> {
  return readFields(message, source);
}

export function fail(message: string): never {
  throw new ModelError(`${source}: ${message}`);
}
