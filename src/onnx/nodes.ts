import { ModelError } from "../errors.js";
import type { Numbers } from "../model/network.js";
import { bytesOf, messageOf, type Message, type MessageField } from "../model/writers/protobuf.js";

/** Attributes of a node; a number alone does not tell whole ones from others. */
export type Attributes = Readonly<
  Record<string, { readonly int: number } | { readonly float: number } | { readonly ints: readonly number[] }>
>;

/** An input or an output of the model, of float32: names are of sizes that are free. */
export interface Port {
  readonly name: string;
  readonly shape: readonly (number | string)[];
}

interface Call {
  readonly type: string;
  readonly inputs: readonly string[];
  readonly output: string;
  readonly attributes: Attributes;
}

/** The numbers are those of onnx.proto. */
const FLOAT = 1;
const INT64 = 7;
const ATTRIBUTE = { float: 1, int: 2, ints: 7 };

/** The first version of the format that knows the opset. */
const irVersions: ReadonlyMap<number, number> = new Map([
  [13, 7],
  [14, 7],
  [15, 8],
  [16, 8],
  [17, 8],
  [18, 8],
  [19, 9],
  [20, 9],
  [21, 10],
]);

/** The opsets that are written. */
export const opsets: readonly number[] = [...irVersions.keys()];

/** An ONNX graph as it grows. What is computed twice of the same operands is one node, and what no output needs is left out. */
export class Nodes {
  private readonly calls: Call[] = [];
  private readonly initializers = new Map<string, Message>();
  /** Results by what makes them. */
  private readonly known = new Map<string, string>();
  private readonly taken = new Map<string, number>();

  constructor(
    readonly opset: number,
    /**
     * Whether the model is run here and read by nobody: then activations are exact in their tails too, for which ONNX's operators do not
     * care, and numbers beyond float32 are infinities, as on a GPU.
     */
    readonly isOwn: boolean,
    private readonly inputs: readonly Port[],
    outputs: readonly string[],
  ) {
    for (const name of [...inputs.map((port) => port.name), ...outputs]) this.taken.set(name, 1);
  }

  /** The result of an operator; numbers among its operands become scalars. */
  op(type: string, operands: readonly (string | number)[], attributes: Attributes = {}, name: string = type.toLowerCase()): string {
    const inputs = operands.map((operand) => (typeof operand === "number" ? this.scalar(operand) : operand));
    return this.once(JSON.stringify([type, inputs, attributes]), () => {
      const output = this.nameOf(name);
      this.calls.push({ type, inputs, output, attributes });
      return output;
    });
  }

  scalar(value: number): string {
    return this.once(`scalar ${Object.is(value, -0) ? "-0" : value}`, () => this.floats("scalar", [], [value]));
  }

  /** A list of whole numbers. */
  integers(values: readonly number[]): string {
    return this.once(`integers ${values.join()}`, () =>
      this.initializer("integers", [values.length], INT64, bytesIn(BigInt64Array.from(values, BigInt))),
    );
  }

  /** In float32. @throws ModelError where a tensor's numbers are beyond it. */
  floats(name: string, shape: readonly number[], numbers: Numbers | readonly number[]): string {
    const rounded = numbers instanceof Float32Array ? numbers : new Float32Array(numbers);
    if (!this.isOwn && shape.length > 0 && !rounded.every(Number.isFinite)) throw new ModelError(`${name} has numbers beyond float32`);
    return this.initializer(name, shape, FLOAT, bytesIn(rounded));
  }

  toFloat(condition: string): string {
    return this.op("Cast", [condition], { to: { int: FLOAT } });
  }

  sum(tensor: string, axis: number, keepsAxis: boolean): string {
    return this.op("ReduceSum", [tensor, this.integers([axis])], { keepdims: { int: keepsAxis ? 1 : 0 } }, "sum");
  }

  /** Over an axis, which stays. */
  mean(tensor: string, axis: number): string {
    // Since opset 18 the axes are an operand.
    if (this.opset < 18) return this.op("ReduceMean", [tensor], { axes: { ints: [axis] }, keepdims: { int: 1 } }, "mean");
    return this.op("ReduceMean", [tensor, this.integers([axis])], { keepdims: { int: 1 } }, "mean");
  }

  /** A model with these outputs, each of a tensor that goes by another name so far. */
  encode(outputs: readonly (Port & { readonly of: string })[], description: string): Uint8Array {
    const named = new Map<string, string>();
    const own = new Set(this.calls.map(({ output }) => output));
    const copies: Call[] = [];
    for (const { name, of } of outputs)
      if (own.has(of) && !named.has(of)) named.set(of, name);
      else copies.push({ type: "Identity", inputs: [of], output: name, attributes: {} });
    const needed = new Set(outputs.map(({ of }) => of));
    for (const { inputs, output } of this.calls.toReversed()) if (needed.has(output)) for (const input of inputs) needed.add(input);
    const calls = [...this.calls.filter(({ output }) => needed.has(output)), ...copies];
    const rename = (name: string): string => named.get(name) ?? name;
    const graph = messageOf([
      ...calls.map((call): MessageField => [1, encodeCall(call, rename)]),
      [2, "deldot"],
      ...[...this.initializers].filter(([name]) => needed.has(name)).map(([, message]): MessageField => [5, message]),
      [10, description],
      ...this.inputs.map((port): MessageField => [11, encodePort(port)]),
      ...outputs.map((port): MessageField => [12, encodePort(port)]),
    ]);
    const opset = messageOf([
      [1, ""],
      [2, this.opset],
    ]);
    return bytesOf(
      messageOf([
        [1, irVersions.get(this.opset)!],
        [2, "deldot"],
        [7, graph],
        [8, opset],
      ]),
    );
  }

  private once(key: string, make: () => string): string {
    let name = this.known.get(key);
    if (name === undefined) this.known.set(key, (name = make()));
    return name;
  }

  private initializer(name: string, shape: readonly number[], type: number, data: Uint8Array): string {
    const own = this.nameOf(name);
    this.initializers.set(own, messageOf([...shape.map((size): MessageField => [1, size]), [2, type], [8, own], [9, data]]));
    return own;
  }

  /** "W1", "W1_2", "W1_3". */
  private nameOf(wanted: string): string {
    const count = (this.taken.get(wanted) ?? 0) + 1;
    this.taken.set(wanted, count);
    const name = count === 1 ? wanted : `${wanted}_${count}`;
    if (name === wanted) return name;
    if (this.taken.has(name)) return this.nameOf(wanted);
    this.taken.set(name, 1);
    return name;
  }
}

function bytesIn({ buffer, byteOffset, byteLength }: Float32Array | BigInt64Array): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

function encodeCall({ type, inputs, output, attributes }: Call, rename: (name: string) => string): Message {
  return messageOf([
    ...inputs.map((name): MessageField => [1, rename(name)]),
    [2, rename(output)],
    [3, rename(output)],
    [4, type],
    ...Object.entries(attributes).map(([name, value]): MessageField => {
      const [kind] = Object.keys(value) as [keyof typeof ATTRIBUTE];
      const fields: MessageField[] =
        "ints" in value ? value.ints.map((each) => [8, each]) : "int" in value ? [[3, value.int]] : [[2, value]];
      return [5, messageOf([[1, name], ...fields, [20, ATTRIBUTE[kind]]])];
    }),
  ]);
}

function encodePort({ name, shape }: Port): Message {
  const dimensions = messageOf(shape.map((size): MessageField => [1, messageOf([typeof size === "number" ? [1, size] : [2, size]])]));
  const tensor = messageOf([
    [1, FLOAT],
    [2, dimensions],
  ]);
  return messageOf([
    [1, name],
    [2, messageOf([[1, tensor]])],
  ]);
}
