import { ModelError, quote } from "../../errors.js";
import { bfloat16, float16 } from "../float16.js";
import { linearChain, type Network, type Numbers } from "../network.js";
import { readLayers, type Tensor } from "./safetensors/layers.js";

/** What a state_dict does not say. */
export interface SafetensorsOptions {
  /** As in {@link mlp}. Wins over the file's own `__metadata__.activation`. */
  activation?: string | readonly string[] | undefined;
  /** As in {@link mlp}. Wins over the file's own `__metadata__.contextColumns`. */
  contextColumns?: "last" | "first" | undefined;
  /** The layers in order, each by its tensors' names less ".weight", where names and shapes do not tell the order. */
  layers?: readonly string[] | undefined;
  /** Only tensors whose names begin so are read: "ema." where a file holds a network and its moving average. */
  prefix?: string | undefined;
  /** Tensors that the field does without, or modules of such tensors: ["mean", "std"]. */
  ignore?: readonly string[] | undefined;
}

interface Entry extends Tensor {
  /** Bytes [begin, end) of the data that follows the header. */
  readonly begin: number;
  readonly end: number;
}

interface Dtype {
  readonly bytes: number;
  /** Left out for whole numbers, which only counters are. */
  readonly read?: (view: DataView, offset: number) => number;
}

const dtypes: ReadonlyMap<unknown, Dtype> = new Map<string, Dtype>([
  ["F64", { bytes: 8, read: (view, offset) => view.getFloat64(offset, true) }],
  ["F32", { bytes: 4, read: (view, offset) => view.getFloat32(offset, true) }],
  ["F16", { bytes: 2, read: (view, offset) => float16(view.getUint16(offset, true)) }],
  ["BF16", { bytes: 2, read: (view, offset) => bfloat16(view.getUint16(offset, true)) }],
  ["I64", { bytes: 8 }],
  ["U64", { bytes: 8 }],
  ["I32", { bytes: 4 }],
  ["U32", { bytes: 4 }],
  ["I16", { bytes: 2 }],
  ["U16", { bytes: 2 }],
  ["I8", { bytes: 1 }],
  ["U8", { bytes: 1 }],
  ["BOOL", { bytes: 1 }],
]);
const floatingPoint = "F64, F32, F16, BF16";

/** Bytes of a header: some 20 000 tensors. The format allows 100 MB, of which a parser could make gigabytes. */
const maximumHeader = 4 * 2 ** 20;
/** The header, the entry of a tensor, a list of numbers. */
const deepestHeader = 3;

/** Characters of a tensor's name, few enough for patterns. */
const maximumName = 1000;
/** Far more than any list of activations, and few enough characters for patterns that take quadratic time. */
const maximumActivation = 10_000;

/**
 * Reads a safetensors file that holds one chain of linear layers under the names of PyTorch's state_dict, `net.0.weight`
 * [out, in] and, where there is one, `net.0.bias` [out], or of Flax and Keras, whose kernels are [in, out]. weight_norm and
 * spectral_norm are multiplied out; PReLU and BatchNorm1d stand where their numbers put them among the layers'. The layers' order is
 * that of the numbers in their names (2 before 10), else the only one in which the shapes chain, or `layers`. A state_dict does not
 * say what stands between them, so activations come from `__metadata__.activation` or from the caller, and a skip connection
 * cannot be seen; the network's notes say how the file was read. F64 stays float64; F32, F16 and BF16 become float32, exactly.
 *
 * `__metadata__` may also hold contextColumns ("last" or "first") and context, a number that the shapes have to confirm.
 *
 * @throws ModelError where the file is not valid safetensors, holds anything but such a chain, or leaves its order open.
 */
export function parseSafetensors(bytes: Uint8Array | ArrayBuffer, options: SafetensorsOptions = {}): Network {
  if (typeof bytes !== "object" || bytes === null) fail(`the file is ${quote(bytes)}; expected its bytes`);
  const { metadata, tensors } = readTensors(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes));

  const activation = metadata.get("activation");
  if (activation !== undefined && activation.length > maximumActivation)
    fail(`__metadata__.activation has ${activation.length} characters; expected at most ${maximumActivation}`);
  const chain = {
    activation: options.activation ?? activation,
    // linearChain refuses any other text.
    contextColumns: options.contextColumns ?? (metadata.get("contextColumns") as "last" | "first" | undefined),
  };
  const { prefix, layers: order, ignore } = options;
  if (prefix !== undefined && typeof prefix !== "string") fail(`prefix is ${quote(prefix)}; expected what tensors' names begin with`);
  for (const [option, names] of Object.entries({ layers: order, ignore }))
    if (names !== undefined && !(Array.isArray(names) && names.every((name) => typeof name === "string")))
      fail(`${option} is ${quote(names)}; expected a list of names`);
  const { layers, notes } = readLayers(tensors, { activation: chain.activation, prefix, layers: order, ignore });
  const network = linearChain("safetensors", layers, chain);
  const context = metadata.get("context");
  if (context !== undefined && context !== String(network.contextSize))
    fail(
      `__metadata__.context is ${quote(context)}; expected "${network.contextSize}", the inputs of the first layer minus the outputs of the last`,
    );
  if (network.contextSize > 0 && chain.contextColumns === undefined)
    notes.push(
      `context: the last ${network.contextSize} of ${network.stateSize + network.contextSize} inputs; where they come first, contextColumns: "first"`,
    );
  return { ...network, notes };
}

/** All that such a file holds, whatever it is of. @throws ModelError where it is not valid safetensors. */
export function readTensors(file: Uint8Array): { metadata: ReadonlyMap<string, string>; tensors: Tensor[] } {
  const { header, data } = splitFile(file);
  const metadata = readMetadata(header["__metadata__"]);
  const tensors = Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, entry]) => readTensor(name, entry, data));
  requireFullCover(tensors, data.byteLength);
  return { metadata, tensors };
}

/** An 8-byte length, a JSON object of that length, then the tensors' data. */
function splitFile(file: Uint8Array): { header: Record<string, unknown>; data: DataView } {
  if (file.length < 8) fail(`the file has ${file.length} bytes; expected at least 8, the length of its header`);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = view.getBigUint64(0, true);
  const limit = Math.min(file.length - 8, maximumHeader);
  if (length > limit) fail(`the header's length is ${length} bytes; expected at most ${limit} in a file of ${file.length}`);
  const dataFrom = 8 + Number(length);
  const text = file.subarray(8, dataFrom);
  // The format asks for the brace, which also rules out a byte order mark.
  if (text[0] !== 0x7b) fail(`the header starts with ${text.length > 0 ? `byte ${text[0]}` : "nothing"}; expected "{"`);
  checkHeader(text);
  let header: Record<string, unknown>;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text)) as Record<string, unknown>;
  } catch (error) {
    fail(`the header of ${text.length} bytes cannot be read (${String(error)}); expected a JSON object in UTF-8`);
  }
  return { header, data: new DataView(file.buffer, file.byteOffset + dataFrom, file.length - dataFrom) };
}

/**
 * What a JSON parser would let pass: of two equal keys it keeps one, and lists within lists may take far more memory than their
 * text. Of JSON itself only texts and brackets matter here; all else is for the parser to refuse.
 */
function checkHeader(text: Uint8Array): void {
  const keys: Set<string>[] = [];
  let last: string | null = null;
  for (let at = 0; at < text.length; at++) {
    const byte = text[at]!;
    if (byte === QUOTE) {
      const from = at++;
      while (at < text.length && text[at] !== QUOTE) at += text[at] === BACKSLASH ? 2 : 1;
      last = unescaped(text.subarray(from, at + 1));
    } else if (byte === COLON) {
      if (last === null || keys.length === 0) continue;
      if (keys.at(-1)!.has(last)) fail(`the header has ${quote(last)} twice; expected one`);
      keys.at(-1)!.add(last);
    } else if (OPENING.has(byte)) {
      keys.push(new Set());
      if (keys.length > deepestHeader) fail(`the header nests more than ${deepestHeader} levels; expected tensors with lists of numbers`);
    } else if (CLOSING.has(byte)) keys.pop();
  }
}

const [QUOTE, BACKSLASH, COLON] = [0x22, 0x5c, 0x3a];
const OPENING: ReadonlySet<number> = new Set([0x7b, 0x5b]);
const CLOSING: ReadonlySet<number> = new Set([0x7d, 0x5d]);

/** The text of a JSON literal; one that is none is left to the parser. */
function unescaped(literal: Uint8Array): string | null {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(literal)) as string;
  } catch {
    return null;
  }
}

function readMetadata(given: unknown): ReadonlyMap<string, string> {
  if (given === undefined) return new Map();
  if (!isObject(given)) fail(`__metadata__ is ${show(given)}; expected an object of texts`);
  const texts = new Map<string, string>();
  for (const [key, value] of Object.entries(given)) {
    if (typeof value !== "string") fail(`__metadata__ has ${quote(key)} as ${show(value)}; expected a text`);
    texts.set(key, value);
  }
  return texts;
}

/** Checks one tensor by itself: of a known type, inside the data. */
function readTensor(name: string, entry: unknown, data: DataView): Entry {
  const dataSize = data.byteLength;
  if (name.length > maximumName) fail(`tensor ${quote(name)} has a name of ${name.length} characters; expected at most ${maximumName}`);
  const tensor = `tensor ${quote(name)}`;
  if (!isObject(entry)) fail(`${tensor} is ${show(entry)}; expected { dtype, shape, data_offsets }`);
  const { dtype: dtypeName, shape, data_offsets: offsets } = entry;
  if (!isCounts(shape)) fail(`${tensor} has the shape ${show(shape)}; expected a list of whole numbers`);
  if (shape.includes(0)) fail(`${tensor} has the shape ${show(shape)}; expected no dimension of 0`);
  const dtype = dtypes.get(dtypeName);
  const wrongType = `${tensor} has the dtype ${show(dtypeName)}; expected ${floatingPoint}`;
  if (!dtype) fail(wrongType);

  if (!isCounts(offsets) || offsets.length !== 2) fail(`${tensor} has the data_offsets ${show(offsets)}; expected [begin, end]`);
  const [begin, end] = offsets as [number, number];
  if (begin > end || end > dataSize)
    fail(`${tensor} has the data_offsets ${show(offsets)}; expected begin <= end <= ${dataSize}, the size of the data`);
  // A product past 2^53 is rounded, but stays far above any length of a file, so it cannot pass for one.
  const size = shape.reduce((product, n) => product * n, dtype.bytes);
  if (end - begin !== size) fail(`${tensor} has ${end - begin} bytes of data; expected ${size} for ${String(dtypeName)} ${show(shape)}`);
  const read = (): Numbers => readNumbers(dtype, new DataView(data.buffer, data.byteOffset + begin, size)) ?? fail(wrongType);
  return { name, shape, begin, end, read };
}

/** Every byte of the data belongs to exactly one tensor, as the format demands; so no file hides anything. */
function requireFullCover(tensors: readonly Entry[], dataSize: number): void {
  let covered = 0;
  for (const { name, begin, end } of tensors.toSorted((a, b) => a.begin - b.begin)) {
    if (begin !== covered)
      fail(
        `tensor ${quote(name)} begins at byte ${begin} of the data; expected ${covered}, where the one before it ends (${begin < covered ? "they overlap" : "there is a hole"})`,
      );
    covered = end;
  }
  if (covered !== dataSize) fail(`the tensors end at byte ${covered} of the data; expected ${dataSize}, its end`);
}

function readNumbers({ bytes, read }: Dtype, data: DataView): Numbers | null {
  if (!read) return null;
  const count = data.byteLength / bytes;
  const numbers = bytes === 8 ? new Float64Array(count) : new Float32Array(count);
  for (let i = 0; i < count; i++) numbers[i] = read(data, i * bytes);
  return numbers;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

/** A value from the header, as the header has it; one level deep, since a deep one would overflow the stack. */
function show(value: unknown): string {
  if (value === undefined) return "missing";
  if (isObject(value)) return "an object";
  if (!Array.isArray(value)) return quote(value);
  const items = value.slice(0, 8).map((item) => (Array.isArray(item) ? "a list" : show(item)));
  return `[${items.join(",")}${value.length > items.length ? ",..." : ""}]`;
}

function fail(message: string): never {
  throw new ModelError(`safetensors: ${message}`);
}
