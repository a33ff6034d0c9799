/** Model files taken apart, changed in their structure, and put together again: what a broken exporter, or an attacker, writes. */
import { readFields } from "../../src/model/readers/protobuf.js";

type Uniform = () => number;

/** One field of a protobuf message: a whole number, or bytes that may be a message themselves. */
interface Part {
  number: number;
  wire: number;
  value: bigint | Uint8Array | Message;
}
interface Message {
  parts: Part[];
}

/** Which fields of ONNX's messages are messages, and of which kind (onnx.proto). */
const KINDS: Readonly<Record<string, Readonly<Record<number, string>>>> = {
  model: { 7: "graph", 8: "opset" },
  graph: { 1: "node", 5: "tensor", 11: "value", 12: "value" },
  node: { 5: "attribute" },
  attribute: { 5: "tensor" },
  value: { 2: "type" },
  type: { 1: "tensor type" },
  "tensor type": { 2: "shape" },
  shape: { 1: "dimension" },
};
const GRAPH = 7;
const [NODE, INITIALIZER, INPUT, OUTPUT] = [1, 5, 11, 12];
const OPERATIONS = ["Add", "Mul", "Sub", "Div", "MatMul", "Gemm", "Tanh", "Identity", "Cast", "Not", "Where", "Equal", "Transpose"].concat([
  "Reshape",
  "Expand",
  "Concat",
  "Slice",
  "Split",
  "Gather",
  "ReduceSum",
  "ConstantOfShape",
  "Shape",
  "Squeeze",
  "Sum",
  "CastLike",
]);

function decode(bytes: Uint8Array, kind: string): Message {
  const parts = [...readFields(bytes, "mutant")].map(({ number, integer, bytes: content, wire }): Part => {
    const inner = KINDS[kind]?.[number];
    if (!Number.isNaN(integer)) return { number, wire: 0, value: BigInt(integer) };
    return { number, wire, value: inner ? decode(content, inner) : content };
  });
  return { parts };
}

function encode({ parts }: Message): Uint8Array {
  return join(
    parts.flatMap(({ number, wire, value }) => {
      const key = varint(BigInt(number * 8 + wire));
      if (typeof value === "bigint") return [key, varint(value)];
      const content = value instanceof Uint8Array ? value : encode(value);
      return wire === 2 ? [key, varint(BigInt(content.length)), content] : [key, content];
    }),
  );
}

/** The first graph; an earlier change may have left none. */
function graphOf(model: Message): Message {
  const graph = model.parts.find(({ number, value }) => number === GRAPH && typeof value === "object" && "parts" in value);
  return (graph?.value as Message | undefined) ?? { parts: [] };
}
const pick = <T>(uniform: Uniform, list: readonly T[]): T | undefined => list[Math.floor(uniform() * list.length)];
const textOf = ({ value }: Part): string => new TextDecoder().decode(value as Uint8Array);
const asText = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Every message of a kind within another, itself included. */
function within(message: Message, kind: string, wanted: string): Message[] {
  const inner = message.parts.flatMap(({ number, value }) =>
    typeof value === "bigint" || value instanceof Uint8Array ? [] : within(value, KINDS[kind]?.[number] ?? "", wanted),
  );
  return kind === wanted ? [message, ...inner] : inner;
}

function shuffle(uniform: Uniform, list: unknown[]): void {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(uniform() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
}

/** A file of the same meaning: initializers in another order, nodes in another order of theirs, values by other names. */
export function renamedOnnx(file: Uint8Array, uniform: Uniform): Uint8Array {
  const model = decode(file, "model");
  const graph = graphOf(model);
  const outer = new Set(
    graph.parts.filter(({ number }) => number === INPUT || number === OUTPUT).map(({ value }) => nameOf(value as Message)),
  );
  const names = new Map<string, string>();
  const rename = (part: Part): void => {
    const name = textOf(part);
    if (name === "" || outer.has(name)) return;
    if (!names.has(name))
      names.set(name, `${pick(uniform, ["v", "x", "0.weight", "é", "input"])} ${names.size} ${Math.floor(uniform() * 1e6)}`);
    part.value = asText(names.get(name)!);
  };
  for (const { number, value } of graph.parts) {
    if (number === NODE) for (const part of (value as Message).parts) if (part.number === 1 || part.number === 2) rename(part);
    if (number === INITIALIZER) for (const part of (value as Message).parts) if (part.number === 8) rename(part);
  }
  const nodes = graph.parts.filter(({ number }) => number === NODE);
  const others = graph.parts.filter(({ number }) => number === INITIALIZER);
  const rest = graph.parts.filter(({ number }) => number !== NODE && number !== INITIALIZER);
  shuffle(uniform, others);
  graph.parts = [...others, ...inSomeOrder(uniform, nodes), ...rest];
  return encode(model);
}

function nameOf(value: Message): string {
  const part = value.parts.find(({ number }) => number === 1);
  return part ? textOf(part) : "";
}

/** Nodes drawn one after the other among those whose inputs are there. */
function inSomeOrder(uniform: Uniform, nodes: readonly Part[]): Part[] {
  const left = nodes.map((part) => {
    const parts = (part.value as Message).parts;
    return {
      part,
      reads: parts.filter(({ number }) => number === 1).map(textOf),
      gives: parts.filter(({ number }) => number === 2).map(textOf),
    };
  });
  const missing = new Set(left.flatMap(({ gives }) => gives));
  const ordered: Part[] = [];
  while (left.length > 0) {
    const ready = left.filter(({ reads }) => reads.every((name) => !missing.has(name)));
    const next = pick(uniform, ready)!;
    for (const name of next.gives) missing.delete(name);
    ordered.push(next.part);
    left.splice(left.indexOf(next), 1);
  }
  return ordered;
}

/** A file with one to four changes of its structure. */
export function mutatedOnnx(file: Uint8Array, uniform: Uniform): Uint8Array {
  const model = decode(file, "model");
  for (let change = 0; change <= 3 * uniform(); change++) mutate(model, uniform);
  return encode(model);
}

const NUMBERS = [0n, 1n, 2n, 3n, 7n, -1n, 65_536n, 1_000_000n, 2n ** 31n, 2n ** 53n, 2n ** 60n, -(2n ** 63n)];

function mutate(model: Message, uniform: Uniform): void {
  const kind = pick(uniform, [
    "model",
    "graph",
    "graph",
    "node",
    "node",
    "node",
    "attribute",
    "tensor",
    "tensor",
    "value",
    "shape",
    "dimension",
  ])!;
  const message = pick(uniform, within(model, "model", kind));
  if (!message) return;
  const { parts } = message;
  const at = Math.floor(uniform() * parts.length);
  const part = parts[at];
  const numbers = parts.filter(({ value }) => typeof value === "bigint");
  const texts = parts.filter(({ value }) => value instanceof Uint8Array && value.length < 100);
  switch (Math.floor(uniform() * 10)) {
    case 0:
      return shuffle(uniform, parts);
    case 1:
      if (part) parts.splice(Math.floor(uniform() * parts.length), 0, structuredClone(part));
      return;
    case 2:
      return void parts.splice(at, 1);
    case 3: {
      const other = pick(uniform, parts);
      if (part && other) [part.value, other.value] = [other.value, part.value];
      return;
    }
    case 4:
    case 5: {
      const number = pick(uniform, numbers);
      if (number) number.value = uniform() < 0.5 ? (number.value as bigint) * 2n : pick(uniform, NUMBERS)!;
      return;
    }
    case 6: {
      const text = pick(uniform, texts);
      if (text) text.value = asText(pick(uniform, ["", "x", "y", "t", "__proto__", "constructor", "batch", "\u0000", "a".repeat(5000)])!);
      return;
    }
    case 7: {
      const node = pick(uniform, within(model, "model", "node"))?.parts.find(({ number }) => number === 4);
      if (node) node.value = asText(pick(uniform, OPERATIONS)!);
      return;
    }
    case 8: {
      // A node reads something else of the file.
      const nodes = within(model, "model", "node");
      const names = nodes.flatMap((node) => node.parts.filter(({ number }) => number <= 2));
      const [one, other] = [pick(uniform, names), pick(uniform, names)];
      if (one && other) one.value = other.value;
      return;
    }
    case 9:
      return fold(graphOf(model), uniform);
  }
}

/** Large constants, and what folds of them, in front of an input that some node reads. */
function fold(graph: Message, uniform: Uniform): void {
  const text = (number: number, value: string): Part => ({ number, wire: 2, value: asText(value) });
  const node = (type: string, inputs: readonly string[], output: string): Part => ({
    number: NODE,
    wire: 2,
    value: { parts: [...inputs.map((name) => text(1, name)), text(2, output), text(4, type)] },
  });
  const size = pick(uniform, [1, 100, 10_000, 1_000_000, 100_000_000])!;
  const stem = `m${Math.floor(uniform() * 1e6)}_`;
  const shape: Part[] = [
    { number: 1, wire: 0, value: 1n },
    { number: 2, wire: 0, value: 7n },
    text(8, `${stem}size`),
    { number: 7, wire: 0, value: BigInt(size) },
  ];
  graph.parts.push({ number: INITIALIZER, wire: 2, value: { parts: shape } });
  const added = [node("ConstantOfShape", [`${stem}size`], `${stem}0`)];
  const count = Math.floor(uniform() * 60);
  for (let i = 0; i < count; i++) {
    const last = `${stem}${i}`;
    const type = pick(uniform, ["Not", "Equal", "Add", "Neg", "Where", "Exp", "Concat", "Sum", "Identity"])!;
    added.push(
      node(
        type,
        type === "Where" ? [last, last, last] : ["Not", "Neg", "Exp", "Identity"].includes(type) ? [last] : [last, last],
        `${stem}${i + 1}`,
      ),
    );
  }
  const input = pick(uniform, within(graph, "graph", "node"))?.parts.find(({ number }) => number === 1);
  if (input) input.value = asText(`${stem}${count}`);
  const first = graph.parts.findIndex(({ number }) => number === NODE);
  graph.parts.splice(first < 0 ? 0 : first, 0, ...added);
}

/** A safetensors file with one to four changes of its header. */
export function mutatedSafetensors(file: Uint8Array, uniform: Uniform): Uint8Array {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length))) as Record<string, unknown>;
  let entries = Object.entries(header);
  for (let change = 0; change <= 3 * uniform(); change++) entries = mutateHeader(entries, uniform);
  const text = asText(`{${entries.map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`).join(",")}}`);
  const size = new Uint8Array(8);
  new DataView(size.buffer).setBigUint64(0, BigInt(text.length), true);
  return join([size, text, file.subarray(8 + length)]);
}

type Entry = [name: string, entry: unknown];

function mutateHeader(given: readonly Entry[], uniform: Uniform): Entry[] {
  const entries = structuredClone(given) as Entry[];
  const one = pick(uniform, entries);
  const other = pick(uniform, entries);
  if (!one || !other) return entries;
  // An earlier change may have put anything there.
  const tensor = (typeof one[1] === "object" && one[1] !== null ? one[1] : {}) as {
    shape?: number[];
    data_offsets?: number[];
    dtype?: unknown;
  };
  switch (Math.floor(uniform() * 9)) {
    case 0:
      shuffle(uniform, entries);
      return entries;
    case 1:
      return [...entries, structuredClone(one)];
    case 2:
      return entries.filter((entry) => entry !== one);
    case 3:
      [one[1], other[1]] = [other[1], one[1]];
      return entries;
    case 4:
      one[0] = pick(uniform, [
        "__proto__",
        "__metadata__",
        "weight",
        "net.10.weight",
        "",
        ".bias",
        other[0],
        one[0].replace("weight", "bias"),
        one[0].replace("weight", "kernel"),
        one[0].replace("weight", "running_mean"),
        one[0].replace("weight", "parametrizations.weight.original1"),
        one[0].replace(/\d+/, pick(uniform, ["1", "01", "three", "", "1e9"])!),
        "n_averaged",
      ])!;
      return entries;
    case 5:
      tensor.shape = pick(uniform, [
        tensor.shape?.map((n) => 2 * n),
        tensor.shape?.toReversed(),
        [],
        [0],
        [1],
        tensor.shape?.slice(0, 1),
        [1e9, 1e9],
        [2 ** 53, 2],
      ]) as number[];
      return entries;
    case 6:
      tensor.data_offsets = pick(uniform, [
        [0, 0],
        [0, 4],
        [4, 0],
        [-4, 0],
        [0, 2 ** 53],
        tensor.data_offsets?.map((n) => n + 4),
      ]) as number[];
      return entries;
    case 7:
      tensor.dtype = pick(uniform, ["F64", "F32", "F16", "BF16", "I64", "I32", "", null, 1, {}]);
      return entries;
    default:
      one[1] = pick(uniform, [null, 1, "text", [], {}, [one[1]], { ...tensor, shape: Array(100_000).fill(1) }]);
      return entries;
  }
}

function varint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  for (let left = BigInt.asUintN(64, value); ; left >>= 7n) {
    if (left < 0x80n) return Uint8Array.from([...bytes, Number(left)]);
    bytes.push(Number(left & 0x7fn) | 0x80);
  }
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
