import { ModelError, quote } from "../../../errors.js";
import { bfloat16, float16 } from "../../float16.js";
import type { Numbers } from "../../network.js";
import type { Budget } from "./budget.js";
import { readFields, readIntegers, readText as decodeText, viewOf, type Field } from "../protobuf.js";

/** A file as it stands, before any of it is understood. */
export interface OnnxModel {
  /** By domain; the default domain is "". */
  readonly opsets: ReadonlyMap<string, number>;
  readonly nodes: readonly OnnxNode[];
  /** The file's own, by {@link functionOf}. */
  readonly functions: ReadonlyMap<string, OnnxFunction>;
  readonly initializers: ReadonlyMap<string, StoredTensor>;
  readonly inputs: readonly OnnxValue[];
  readonly outputs: readonly OnnxValue[];
}

export interface OnnxNode {
  readonly name: string;
  readonly type: string;
  readonly domain: string;
  /** Which of several functions of one name it calls. */
  readonly overload: string;
  /** The opset that the body of a function is written in; null outside of one: the file's. */
  readonly opset: number | null;
  /** "" where an optional input is left out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, Attribute>;
}

/** A function of the file's own: nodes that a call of it stands for. */
export interface OnnxFunction {
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly nodes: readonly OnnxNode[];
  /** Attributes that a call may leave out. */
  readonly defaults: ReadonlyMap<string, Attribute>;
  readonly opset: number | null;
}

/** What tells functions apart. */
export function functionOf({ domain, type, overload }: Pick<OnnxNode, "domain" | "type" | "overload">): string {
  return `${domain}:${type}:${overload}`;
}

/** The name of a dimension that has none. */
export const unnamed = "?";

/** An input or an output, as the file declares it. */
export interface OnnxValue {
  readonly name: string;
  /** TensorProto.DataType, as the file has it. */
  readonly typeNumber: number;
  /** A number, or the name of a symbolic dimension; null where the file does not say. */
  readonly shape: readonly (number | string)[] | null;
}

/** What an attribute may hold, all of it there; which part counts is its type's to say. */
export interface Attribute {
  readonly type: AttributeType;
  readonly float: number;
  readonly integer: number;
  readonly text: string;
  readonly tensor: StoredTensor | null;
  readonly floats: readonly number[];
  readonly integers: readonly number[];
  /** In the body of a function: the attribute of its call that stands here. */
  readonly reference: string;
}

export type AttributeType = "float" | "integer" | "text" | "tensor" | "floats" | "integers" | "another";

/** Constant numbers [shape], row-major. */
export interface Tensor {
  readonly shape: readonly number[];
  /** Float32 at most where the file has no more; float64 for all else, whole numbers and truth values too. */
  readonly data: Numbers;
  readonly type: DataType;
}

/** A tensor that was checked and not yet read: as many numbers as its shape says lie in these bytes. */
export interface StoredTensor {
  readonly shape: readonly number[];
  readonly type: DataType;
  readonly raw: Uint8Array | null;
  /** The typed fields, where there is no raw data. */
  readonly fields: readonly Field[];
  /** Whether they lie in another file. */
  readonly isExternal: boolean;
}

/** The types of numbers that are read, by their names in TensorProto.DataType. */
export type DataType = "FLOAT" | "UINT8" | "INT8" | "UINT16" | "INT16" | "INT32" | "INT64" | "BOOL" | "FLOAT16" | "DOUBLE" | "BFLOAT16";

interface TensorType {
  readonly name: DataType;
  /** Bytes of a number in raw_data. */
  readonly bytes: number;
  readonly read: (view: DataView, offset: number) => number;
  /** The field that holds the numbers where raw_data does not. */
  readonly field: 4 | 5 | 7 | 10;
  /** What a number of that field stands for, where it is not itself. */
  readonly decode?: (stored: number) => number;
}

/** By TensorProto.DataType. */
const tensorTypes: ReadonlyMap<number, TensorType> = new Map<number, TensorType>([
  [1, { name: "FLOAT", bytes: 4, read: (view, at) => view.getFloat32(at, true), field: 4 }],
  [2, { name: "UINT8", bytes: 1, read: (view, at) => view.getUint8(at), field: 5 }],
  [3, { name: "INT8", bytes: 1, read: (view, at) => view.getInt8(at), field: 5 }],
  [4, { name: "UINT16", bytes: 2, read: (view, at) => view.getUint16(at, true), field: 5 }],
  [5, { name: "INT16", bytes: 2, read: (view, at) => view.getInt16(at, true), field: 5 }],
  [6, { name: "INT32", bytes: 4, read: (view, at) => view.getInt32(at, true), field: 5 }],
  [7, { name: "INT64", bytes: 8, read: (view, at) => Number(view.getBigInt64(at, true)), field: 7 }],
  [9, { name: "BOOL", bytes: 1, read: (view, at) => view.getUint8(at), field: 5 }],
  [10, { name: "FLOAT16", bytes: 2, read: (view, at) => float16(view.getUint16(at, true)), field: 5, decode: float16 }],
  [11, { name: "DOUBLE", bytes: 8, read: (view, at) => view.getFloat64(at, true), field: 10 }],
  [16, { name: "BFLOAT16", bytes: 2, read: (view, at) => bfloat16(view.getUint16(at, true)), field: 5, decode: bfloat16 }],
]);
const typesByName = new Map(Array.from(tensorTypes.values(), (type) => [type.name, type]));

/** The type of this number, as files, inputs and casts name it; null where it is none that is read. */
export function dataTypeOf(typeNumber: number): DataType | null {
  return tensorTypes.get(typeNumber)?.name ?? null;
}

/** What messages expect for a type. */
export const knownTypes: string = Array.from(tensorTypes, ([number, { name }]) => `${name} (${number})`).join(", ");

/** The least and the largest whole number of each type; of INT64 those that a float64 tells from their neighbours. */
const wholeRanges: ReadonlyMap<DataType, readonly [number, number]> = new Map([
  ["UINT8", [0, 2 ** 8 - 1]],
  ["INT8", [-(2 ** 7), 2 ** 7 - 1]],
  ["UINT16", [0, 2 ** 16 - 1]],
  ["INT16", [-(2 ** 15), 2 ** 15 - 1]],
  ["INT32", [-(2 ** 31), 2 ** 31 - 1]],
  ["INT64", [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER]],
  ["BOOL", [0, 1]],
]);

/** Whether these are whole numbers or truth values. */
export function isWhole(type: DataType): boolean {
  return wholeRanges.has(type);
}

/** Whether it is a whole number that the type has room for. */
export function fitsType(value: number, type: DataType): boolean {
  const [least, most] = wholeRanges.get(type)!;
  return Number.isInteger(value) && value >= least && value <= most;
}

/** How a field is stored, and whether it may stand more than once in its message. */
interface FieldKind {
  readonly wires: readonly number[];
  readonly isRepeated: boolean;
}

const one = (...wires: number[]): FieldKind => ({ wires, isRepeated: false });
const many = (...wires: number[]): FieldKind => ({ wires, isRepeated: true });

/** The fields that are read, by the numbers of onnx.proto; others are passed over. */
type Message = Readonly<Record<number, FieldKind>>;
const modelProto: Message = { 7: one(2), 8: many(2), 25: many(2) };
const operatorSetIdProto: Message = { 1: one(2), 2: one(0) };
const graphProto: Message = { 1: many(2), 5: many(2), 11: many(2), 12: many(2), 15: many(2) };
const nodeProto: Message = { 1: many(2), 2: many(2), 3: one(2), 4: one(2), 5: many(2), 7: one(2), 8: one(2) };
const functionProto: Message = { 1: one(2), 4: many(2), 5: many(2), 7: many(2), 9: many(2), 10: one(2), 11: many(2), 13: one(2) };
const attributeProto: Message = {
  1: one(2),
  2: one(5),
  3: one(0),
  4: one(2),
  5: one(2),
  7: many(2, 5),
  8: many(0, 2),
  20: one(0),
  21: one(2),
};
const stringEntryProto: Message = { 1: one(2), 2: one(2) };
const tensorProto: Message = {
  1: many(0, 2),
  2: one(0),
  4: many(2, 5),
  5: many(0, 2),
  7: many(0, 2),
  8: one(2),
  9: one(2),
  10: many(1, 2),
  13: many(2),
  14: one(0),
};
const valueInfoProto: Message = { 1: one(2), 2: one(2) };
const typeProto: Message = { 1: one(2) };
const tensorTypeProto: Message = { 1: one(0), 2: one(2) };
const shapeProto: Message = { 1: many(2) };
const dimensionProto: Message = { 1: one(0), 2: one(2) };

/** Where the numbers are that a file does not hold itself, by the location that it gives. */
export interface ExternalData {
  get(location: string): Uint8Array | undefined;
}

/** Reads ModelProto. */
export function decodeModel(file: Uint8Array, budget: Budget, external: ExternalData): OnnxModel {
  const opsets = new Map<string, number>();
  const functions = new Map<string, OnnxFunction>();
  let graph: Uint8Array | null = null;
  for (const field of fieldsOf(file, modelProto, budget)) {
    if (field.number === 7) graph = field.bytes;
    else if (field.number === 8) decodeOpset(field.bytes, opsets, budget);
    else {
      const { key, body } = decodeFunction(field.bytes, budget);
      if (functions.has(key)) fail(`the file has two functions ${quote(key)}; expected one`);
      functions.set(key, body);
    }
  }
  if (!graph) fail(`the file of ${file.length} bytes has no graph; expected an ONNX model`);
  return { opsets, functions, ...decodeGraph(graph, budget, external) };
}

function decodeOpset(bytes: Uint8Array, opsets: Map<string, number>, budget: Budget): void {
  let given = "";
  let version = 0;
  for (const part of fieldsOf(bytes, operatorSetIdProto, budget)) {
    if (part.number === 1) given = readText(part);
    else version = part.integer;
  }
  const domain = given === "ai.onnx" ? "" : given;
  if (opsets.has(domain)) fail(`the file has two opsets of the domain ${quote(given)}; expected one`);
  opsets.set(domain, version);
}

function decodeGraph(graph: Uint8Array, budget: Budget, external: ExternalData): Omit<OnnxModel, "opsets" | "functions"> {
  const nodes: OnnxNode[] = [];
  const initializers = new Map<string, StoredTensor>();
  const inputs: OnnxValue[] = [];
  const outputs: OnnxValue[] = [];
  for (const field of fieldsOf(graph, graphProto, budget)) {
    if (field.number === 1) nodes.push(decodeNode(field.bytes, budget));
    else if (field.number === 5) {
      const { name, tensor } = decodeTensor(field.bytes, "initializer", budget, external);
      if (initializers.has(name)) fail(`two initializers have the name ${quote(name)}; expected one`);
      initializers.set(name, tensor);
    } else if (field.number === 11) inputs.push(decodeValue(field.bytes, budget));
    else if (field.number === 12) outputs.push(decodeValue(field.bytes, budget));
    else fail("the graph has a sparse initializer; expected dense ones");
  }
  return { nodes, initializers, inputs, outputs };
}

function decodeNode(bytes: Uint8Array, budget: Budget): OnnxNode {
  const node = { name: "", type: "", domain: "", overload: "", opset: null, inputs: [] as string[], outputs: [] as string[] };
  const attributes = new Map<string, Attribute>();
  for (const field of fieldsOf(bytes, nodeProto, budget)) {
    if (field.number === 1) node.inputs.push(readText(field));
    else if (field.number === 2) node.outputs.push(readText(field));
    else if (field.number === 3) node.name = readText(field);
    else if (field.number === 4) node.type = readText(field);
    else if (field.number === 5) {
      const { name, attribute } = decodeAttribute(field.bytes, budget);
      if (attributes.has(name)) fail(`${describeNode(node)} has two attributes ${quote(name)}; expected one`);
      attributes.set(name, attribute);
    } else if (field.number === 7) node.domain = readText(field);
    else node.overload = readText(field);
  }
  if (node.type === "") fail(`the node ${quote(node.name || (node.outputs[0] ?? ""))} has no operation; expected its name`);
  return { ...node, attributes };
}

/** FunctionProto, and what calls it: its domain, its name and which of several it is. */
function decodeFunction(bytes: Uint8Array, budget: Budget): { key: string; body: OnnxFunction } {
  let [type, domain, overload] = ["", "", ""];
  const [inputs, outputs]: [string[], string[]] = [[], []];
  const nodes: OnnxNode[] = [];
  const defaults = new Map<string, Attribute>();
  const opsets = new Map<string, number>();
  for (const field of fieldsOf(bytes, functionProto, budget)) {
    if (field.number === 1) type = readText(field);
    else if (field.number === 4) inputs.push(readText(field));
    else if (field.number === 5) outputs.push(readText(field));
    else if (field.number === 7) nodes.push(decodeNode(field.bytes, budget));
    else if (field.number === 9) decodeOpset(field.bytes, opsets, budget);
    else if (field.number === 10) domain = readText(field);
    else if (field.number === 11) {
      const { name, attribute } = decodeAttribute(field.bytes, budget);
      if (defaults.has(name)) fail(`the function ${quote(type)} has two attributes ${quote(name)}; expected one`);
      defaults.set(name, attribute);
    } else overload = readText(field);
  }
  for (const names of [inputs, outputs])
    if (new Set(names).size < names.length) fail(`the function ${quote(type)} has a name twice among ${quote(names)}; expected each once`);
  return { key: functionOf({ type, domain, overload }), body: { inputs, outputs, nodes, defaults, opset: opsets.get("") ?? null } };
}

/** What messages call a node: its operation, and its name or that of its first result. */
export function describeNode(node: Pick<OnnxNode, "type" | "domain" | "name" | "outputs">): string {
  const domain = node.domain === "" || node.domain === "ai.onnx" ? "" : `${node.domain}.`;
  return `${quote(`${domain}${node.type}`).slice(1, -1)} ${quote(node.name || (node.outputs[0] ?? ""))}`;
}

/** By AttributeProto.AttributeType. */
const attributeTypes: ReadonlyMap<number, AttributeType> = new Map<number, AttributeType>([
  [1, "float"],
  [2, "integer"],
  [3, "text"],
  [4, "tensor"],
  [6, "floats"],
  [7, "integers"],
]);

/** By the number of the field that holds it, for the files before IR version 2, which do not name the type. */
const attributeFields: ReadonlyMap<number, AttributeType> = new Map<number, AttributeType>([
  [2, "float"],
  [3, "integer"],
  [4, "text"],
  [5, "tensor"],
  [7, "floats"],
  [8, "integers"],
]);

function decodeAttribute(bytes: Uint8Array, budget: Budget): { name: string; attribute: Attribute } {
  let name = "";
  let typeNumber = 0;
  const held = new Set<AttributeType>();
  const attribute = {
    float: 0,
    integer: 0,
    text: "",
    tensor: null as StoredTensor | null,
    floats: [] as number[],
    integers: [] as number[],
    reference: "",
  };
  for (const field of fieldsOf(bytes, attributeProto, budget)) {
    if (field.number === 1) name = readText(field);
    else if (field.number === 2) [attribute.float = 0] = fixedNumbers(field, 4);
    else if (field.number === 3) attribute.integer = field.integer;
    else if (field.number === 4) attribute.text = readText(field);
    else if (field.number === 5) attribute.tensor = decodeTensor(field.bytes, "attribute", budget, noExternalData).tensor;
    else if (field.number === 7) append(attribute.floats, fixedNumbers(field, 4), budget);
    else if (field.number === 8) append(attribute.integers, readIntegers(field, source), budget);
    else if (field.number === 20) typeNumber = field.integer;
    else attribute.reference = readText(field);
    const kind = attributeFields.get(field.number);
    if (kind) held.add(kind);
  }
  const [only = "another"] = held;
  const type = typeNumber === 0 ? only : (attributeTypes.get(typeNumber) ?? "another");
  if (held.size > 1 || (only !== "another" && only !== type))
    fail(
      `attribute ${quote(name)} is of the type ${typeNumber} (${type}) and holds ${quote([...held])}; expected what its type says alone`,
    );
  return { name, attribute: { ...attribute, type } };
}

const noExternalData: ExternalData = { get: () => undefined };

function decodeTensor(bytes: Uint8Array, what: string, budget: Budget, external: ExternalData): { name: string; tensor: StoredTensor } {
  const shape: number[] = [];
  let name = "";
  let typeNumber = 0;
  let raw: Uint8Array | null = null;
  let isExternal = false;
  const place = new Map<string, string>();
  const stored = new Map<number, Field[]>([4, 5, 7, 10].map((number) => [number, []]));
  for (const field of fieldsOf(bytes, tensorProto, budget)) {
    if (field.number === 1) append(shape, readIntegers(field, source), budget);
    else if (field.number === 2) typeNumber = field.integer;
    else if (field.number === 8) name = readText(field);
    else if (field.number === 9) raw = field.bytes;
    else if (field.number === 13) {
      const [key, value] = decodeEntry(field.bytes, budget);
      if (place.has(key)) fail(`${what} ${quote(name)} has ${quote(key)} of its data twice; expected it once`);
      place.set(key, value);
    } else if (field.number === 14) isExternal = field.integer === 1;
    else stored.get(field.number)?.push(field);
  }
  const tensor = `${what} ${quote(name)}`;
  if (isExternal !== place.size > 0)
    fail(`${tensor} says that its data is elsewhere, and not where, or the other way round; expected both`);
  if (isExternal) {
    if (raw || [...stored.values()].some((fields) => fields.length > 0))
      fail(`${tensor} has its data here and in another file; expected one`);
    raw = externalBytes(tensor, place, budget, external);
  }
  const type = tensorTypes.get(typeNumber);
  if (!type) fail(`${tensor} has the data type ${typeNumber}; expected ${knownTypes}`);
  if (shape.length > maximumRank || !shape.every((size) => Number.isSafeInteger(size) && size >= 0))
    fail(`${tensor} has the shape ${quote(shape)}; expected at most ${maximumRank} whole numbers`);
  // A product past 2^53 is rounded, but stays far above any length of a file, so it cannot pass for one.
  const count = shape.reduce((product, size) => product * size, 1);
  const fields = raw ? [] : stored.get(type.field)!;
  if ([...stored].some(([number, others]) => others.length > 0 && (raw !== null || number !== type.field)))
    fail(`${tensor} of the type ${type.name} has numbers in a field that is not its type's; expected them in one place`);
  const size = raw ? raw.length / type.bytes : countStored(fields, type);
  if (size !== count) fail(`${tensor} holds ${size} numbers; expected ${count} for the shape ${quote(shape)}`);
  return { name, tensor: { shape, type: type.name, raw, fields, isExternal } };
}

function decodeEntry(bytes: Uint8Array, budget: Budget): [string, string] {
  const entry: [string, string] = ["", ""];
  for (const field of fieldsOf(bytes, stringEntryProto, budget)) entry[field.number - 1] = readText(field);
  return entry;
}

/** The bytes of a tensor in another file, from an offset on. */
function externalBytes(tensor: string, place: ReadonlyMap<string, string>, budget: Budget, external: ExternalData): Uint8Array {
  const location = place.get("location") ?? "";
  const bytes = external.get(location);
  if (!bytes) return fail(`${tensor} has its data in the file ${quote(location)}; expected its bytes in options.externalData`);
  budget.allow(bytes);
  const [offset, length] = ["offset", "length"].map((key) => {
    const text = place.get(key);
    return text === undefined ? undefined : /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  });
  const from = offset ?? 0;
  const to = from + (length ?? bytes.length - from);
  if (!(from <= to && to <= bytes.length))
    fail(`${tensor} has its data at ${from} to ${to} of the ${bytes.length} bytes of ${quote(location)}; expected it within them`);
  return bytes.subarray(from, to);
}

/** The numbers of a tensor, now that something reads them. */
export function readTensor({ shape, type: name, raw, fields }: StoredTensor, budget: Budget): Tensor {
  const type = typesByName.get(name)!;
  const count = budget.taken(shape.reduce((product, size) => product * size, 1));
  const data = isWhole(name) || name === "DOUBLE" ? new Float64Array(count) : new Float32Array(count);
  if (raw) {
    const view = viewOf(raw);
    for (let i = 0; i < count; i++) data[i] = type.read(view, i * type.bytes);
  } else {
    let i = 0;
    for (const field of fields)
      for (const value of storedNumbers(field, type)) {
        if (type.decode && !(value >= 0 && value < 2 ** 16)) fail(`a tensor of the type ${name} holds ${value}; expected its 16 bits`);
        data[i++] = type.decode ? type.decode(value) : value;
      }
  }
  // Truth is whatever is not 0, and a stored number that its type has no room for is none.
  if (name === "BOOL") data.forEach((value, i) => (data[i] = Number(value !== 0)));
  const bad = isWhole(name) && name !== "INT64" ? data.find((value) => !fitsType(value, name)) : undefined;
  if (bad !== undefined) fail(`a tensor of the type ${name} holds ${quote(bad)}; expected whole numbers of its type`);
  return { shape, type: name, data: shape.length === 0 && name === "FLOAT" ? Float64Array.of(intended(data[0]!)) : data };
}

/**
 * The number that a program's author wrote, of what float32 made of it: a decimal number of up to 4 digits, or quarters of π.
 * A float32 that nobody wrote is hardly ever one of those, and then within its own rounding.
 */
export function intended(value: number): number {
  const quarters = Math.round((value / Math.PI) * 4);
  const candidates = [Number(value.toPrecision(4)), Math.abs(quarters) <= 64 ? (quarters / 4) * Math.PI : value];
  return candidates.find((candidate) => Math.fround(candidate) === value) ?? value;
}

/** Beyond it no operation here has a meaning, and a list of dimensions stays short. */
const maximumRank = 8;

/** Numbers in a list take more memory than they take in the file. */
function append(list: number[], numbers: Iterable<number>, budget: Budget): void {
  for (const value of numbers) {
    budget.take(1);
    list.push(value);
  }
}

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
  if (view.byteLength % bytes !== 0) fail(`field ${field.number} has ${view.byteLength} bytes; expected numbers of ${bytes} bytes each`);
  for (let at = 0; at + bytes <= view.byteLength; at += bytes) yield bytes === 4 ? view.getFloat32(at, true) : view.getFloat64(at, true);
}

/** ValueInfoProto: a name, and the shape of a tensor type. */
function decodeValue(bytes: Uint8Array, budget: Budget): OnnxValue {
  let name = "";
  let typeNumber = 0;
  let shape: (number | string)[] | null = null;
  for (const field of fieldsOf(bytes, valueInfoProto, budget)) {
    if (field.number === 1) name = readText(field);
    else
      for (const type of fieldsOf(field.bytes, typeProto, budget))
        for (const part of fieldsOf(type.bytes, tensorTypeProto, budget))
          if (part.number === 1) typeNumber = part.integer;
          else shape = decodeShape(part.bytes, budget);
  }
  return { name, typeNumber, shape };
}

function decodeShape(bytes: Uint8Array, budget: Budget): (number | string)[] {
  const shape: (number | string)[] = [];
  for (const dimension of fieldsOf(bytes, shapeProto, budget)) {
    let size: number | string = unnamed;
    for (const part of fieldsOf(dimension.bytes, dimensionProto, budget))
      size = part.number === 1 ? part.integer : readText(part) || unnamed;
    if (shape.push(size) > maximumRank) fail(`an input has more than ${maximumRank} dimensions; expected at most as many`);
  }
  return shape;
}

const source = "onnx";

/** The fields of a message that are read. What stands twice, or is stored in another way, other readers take otherwise: it is refused. */
function* fieldsOf(message: Uint8Array, known: Message, budget: Budget): Generator<Field, void, undefined> {
  // One bit for each field; those that are read have numbers below 32.
  let seen = 0;
  for (const field of readFields(message, source)) {
    const kind = known[field.number];
    if (!kind) continue;
    if (!kind.wires.includes(field.wire))
      fail(`field ${field.number} has the wire type ${field.wire}; expected ${kind.wires.join(" or ")}`);
    if (!kind.isRepeated && (seen & (1 << field.number)) !== 0) fail(`field ${field.number} stands twice in its message; expected it once`);
    seen |= 1 << field.number;
    budget.takeField();
    yield field;
  }
}

function readText(field: Field): string {
  return decodeText(field, source);
}

export function fail(message: string): never {
  throw new ModelError(`${source}: ${message}`);
}
