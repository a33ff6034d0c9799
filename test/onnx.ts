/** An attribute: a whole number, a text, a list of whole numbers, a float or a list of floats, or a tensor. */
export type OnnxAttribute =
  | number
  | string
  | readonly number[]
  | { float: number }
  | { floats: readonly number[] }
  | { tensor: OnnxTensor }
  | { graph: true }
  /** In a function: the attribute of its call. */
  | { reference: string };

export interface OnnxTensor {
  shape: readonly (number | bigint)[];
  data?: readonly number[];
  /** TensorProto.DataType: FLOAT (1) where left out. */
  type?: number;
  /** Bytes in the place of the data, or where the numbers are stored: in raw_data, or in the typed field. */
  raw?: Uint8Array;
  stored?: "raw" | "typed";
  /** Where in another file the numbers are; nowhere for {}. */
  external?: { location?: string; offset?: string; length?: string };
}

export type OnnxCall = readonly [
  type: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes?: Readonly<Record<string, OnnxAttribute>>,
  domain?: string,
];

export interface OnnxFile {
  nodes: readonly OnnxCall[];
  inputs: Readonly<Record<string, readonly (number | string)[] | null>>;
  /** Names, or names with the shapes that the file declares for them. */
  outputs: readonly string[] | Readonly<Record<string, readonly (number | string)[]>>;
  /** TensorProto.DataType of inputs: FLOAT (1) where left out. */
  types?: Readonly<Record<string, number>>;
  initializers?: Readonly<Record<string, OnnxTensor>> | readonly (readonly [string, OnnxTensor])[];
  opset?: number;
  functions?: readonly OnnxFunction[];
}

export interface OnnxFunction {
  name: string;
  domain: string;
  inputs: readonly string[];
  outputs: readonly string[];
  nodes: readonly OnnxCall[];
  defaults?: Readonly<Record<string, OnnxAttribute>>;
  opset?: number;
}

/** The bytes of an ONNX file; nothing is checked, so that a test can write what no exporter does. */
export function onnxFile({ nodes, inputs, outputs, types = {}, initializers = {}, opset = 20, functions = [] }: OnnxFile): Uint8Array {
  const list = Array.isArray(initializers)
    ? (initializers as readonly (readonly [string, OnnxTensor])[])
    : Object.entries(initializers as Record<string, OnnxTensor>);
  const graph = [
    ...nodes.map((node, index) => part(1, encodeNode(node, index))),
    text(2, "field"),
    ...list.map(([name, tensor]) => part(5, encodeTensor(tensor, name))),
    ...Object.entries(inputs).map(([name, shape]) => part(11, encodeInput(name, shape, types[name]))),
    ...(Array.isArray(outputs) ? (outputs as readonly string[]).map((name) => [name, null] as const) : Object.entries(outputs)).map(
      ([name, shape]) => part(12, encodeInput(name, shape)),
    ),
  ];
  return join([
    integer(1, 9),
    part(7, join(graph)),
    part(8, join([text(1, ""), integer(2, opset)])),
    ...functions.map((given) => part(25, encodeFunction(given))),
  ]);
}

function encodeFunction({ name, domain, inputs, outputs, nodes, defaults = {}, opset = 20 }: OnnxFunction): Uint8Array {
  return join([
    text(1, name),
    ...inputs.map((input) => text(4, input)),
    ...outputs.map((output) => text(5, output)),
    ...nodes.map((node, index) => part(7, encodeNode(node, index))),
    part(9, join([text(1, ""), integer(2, opset)])),
    text(10, domain),
    ...Object.entries(defaults).map(([key, value]) => part(11, join([text(1, key), encodeAttribute(value)]))),
  ]);
}

function encodeNode([type, inputs, outputs, attributes = {}, domain = ""]: OnnxCall, index: number): Uint8Array {
  return join([
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(3, `n${index}`),
    text(4, type),
    ...Object.entries(attributes).map(([name, value]) => part(5, join([text(1, name), encodeAttribute(value)]))),
    text(7, domain),
  ]);
}

/** The value, and its AttributeProto.AttributeType. */
function encodeAttribute(value: OnnxAttribute): Uint8Array {
  const typed = (type: number, bytes: Uint8Array): Uint8Array => join([bytes, integer(20, type)]);
  if (typeof value === "number") return typed(2, integer(3, value));
  if (typeof value === "string") return typed(3, text(4, value));
  if ("float" in value) return typed(1, join([varint((2 << 3) | 5), bytesOf(Float32Array.of(value.float))]));
  if ("floats" in value) return typed(6, part(7, bytesOf(Float32Array.from(value.floats))));
  if ("tensor" in value) return typed(4, part(5, encodeTensor(value.tensor, "")));
  if ("reference" in value) return typed(1, text(21, value.reference));
  if ("graph" in value) return typed(5, part(6, new Uint8Array()));
  return typed(7, part(8, join(value.map(varint))));
}

function encodeTensor({ shape, data = [], type = 1, raw, stored = "raw", external }: OnnxTensor, name: string): Uint8Array {
  const numbers = raw ? part(9, raw) : stored === "raw" ? part(9, rawData(data, type)) : typedData(data, type);
  return join([
    part(1, join(shape.map(varint))),
    integer(2, type),
    text(8, name),
    external
      ? join([...Object.entries(external).map(([key, value]) => part(13, join([text(1, key), text(2, value)]))), integer(14, 1)])
      : numbers,
  ]);
}

function rawData(data: readonly number[], type: number): Uint8Array {
  if (type === 1) return bytesOf(Float32Array.from(data));
  if (type === 6) return bytesOf(Int32Array.from(data));
  if (type === 7) return bytesOf(BigInt64Array.from(data, BigInt));
  if (type === 9 || type === 2 || type === 3) return Uint8Array.from(data);
  if (type === 11) return bytesOf(Float64Array.from(data));
  // FLOAT16 and BFLOAT16, given as their bits.
  return bytesOf(Uint16Array.from(data));
}

function typedData(data: readonly number[], type: number): Uint8Array {
  if (type === 1) return part(4, bytesOf(Float32Array.from(data)));
  if (type === 11) return part(10, bytesOf(Float64Array.from(data)));
  return part(type === 7 ? 7 : 5, join(data.map(varint)));
}

function encodeInput(name: string, shape: readonly (number | string)[] | null, type = 1): Uint8Array {
  const dimensions = shape?.map((size) => part(1, typeof size === "number" ? integer(1, size) : text(2, size)));
  return join([text(1, name), part(2, part(1, join([integer(1, type), ...(dimensions ? [part(2, join(dimensions))] : [])])))]);
}

function bytesOf(numbers: ArrayBufferView): Uint8Array {
  return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
}

export function part(field: number, bytes: Uint8Array): Uint8Array {
  return join([varint((field << 3) | 2), varint(bytes.length), bytes]);
}

export function text(field: number, value: string): Uint8Array {
  return part(field, new TextEncoder().encode(value));
}

export function integer(field: number, value: number): Uint8Array {
  return join([varint(field << 3), varint(value)]);
}

function varint(value: number | bigint): Uint8Array {
  const bytes: number[] = [];
  for (let left = BigInt.asUintN(64, BigInt(value)); ; left >>= 7n) {
    if (left < 0x80n) return Uint8Array.from([...bytes, Number(left)]);
    bytes.push(Number(left & 0x7fn) | 0x80);
  }
}

export function join(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of parts) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
