/** As much of ONNX as a graph of tangents needs, written as protobuf; the numbers of the fields are those of onnx.proto. */

export interface OnnxNode {
  readonly type: string;
  readonly inputs: readonly string[];
  readonly output: string;
  /** Whole numbers alone. */
  readonly attributes?: Readonly<Record<string, number>>;
}

export interface OnnxConstant {
  readonly shape: readonly number[];
  readonly data: Float32Array | BigInt64Array;
}

export interface OnnxModel {
  readonly nodes: readonly OnnxNode[];
  readonly constants: Readonly<Record<string, OnnxConstant>>;
  /** Of float32. */
  readonly input: { readonly name: string; readonly shape: readonly number[] };
  readonly output: { readonly name: string; readonly shape: readonly number[] };
}

const IR_VERSION = 8;
const OPSET = 17;
const FLOAT = 1;
const INT64 = 7;
const ATTRIBUTE_INT = 2;

export function writeOnnx({ nodes, constants, input, output }: OnnxModel): Uint8Array {
  const graph = message([
    ...nodes.map((node): Field => [1, writeNode(node)]),
    [2, "divergence"],
    ...Object.entries(constants).map(([name, constant]): Field => [5, writeConstant(name, constant)]),
    [11, writeValue(input)],
    [12, writeValue(output)],
  ]);
  const opset = message([
    [1, ""],
    [2, OPSET],
  ]);
  return message([
    [1, IR_VERSION],
    [7, graph],
    [8, opset],
  ]);
}

function writeNode({ type, inputs, output, attributes = {} }: OnnxNode): Uint8Array {
  return message([
    ...inputs.map((name): Field => [1, name]),
    [2, output],
    [4, type],
    ...Object.entries(attributes).map(([name, value]): Field => {
      const attribute: Field[] = [
        [1, name],
        [3, value],
        [20, ATTRIBUTE_INT],
      ];
      return [5, message(attribute)];
    }),
  ]);
}

function writeConstant(name: string, { shape, data }: OnnxConstant): Uint8Array {
  return message([
    ...shape.map((size): Field => [1, size]),
    [2, data instanceof Float32Array ? FLOAT : INT64],
    [8, name],
    [9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)],
  ]);
}

function writeValue({ name, shape }: OnnxModel["input"]): Uint8Array {
  const dimensions = message(shape.map((size): Field => [1, message([[1, size]])]));
  const tensor = message([
    [1, FLOAT],
    [2, dimensions],
  ]);
  return message([
    [1, name],
    [2, message([[1, tensor]])],
  ]);
}

/** A field's number and its value: a whole number becomes a varint, all else is length-delimited. */
type Field = readonly [number: number, value: number | string | Uint8Array];

function message(fields: readonly Field[]): Uint8Array {
  return Buffer.concat(
    fields.flatMap(([number, value]) => {
      if (typeof value === "number") return [varint(number * 8), varint(value)];
      const bytes = typeof value === "string" ? Buffer.from(value) : value;
      return [varint(number * 8 + 2), varint(bytes.length), bytes];
    }),
  );
}

/** Seven bits a byte, the lowest first. */
function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  return Uint8Array.from([...bytes, rest]);
}
