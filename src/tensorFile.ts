import { ModelError, quote } from "./errors.js";
import type { Bytes } from "./typedArrays.js";

/** A tensor of a safetensors file, row-major: F32 or F64, as its numbers are. */
export interface FileTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly numbers: Float32Array | Float64Array;
}

/** A tensor whose numbers may come later. */
export interface TensorLayout {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: "F32" | "F64";
}

/**
 * How a safetensors file begins, an 8-byte length and a JSON object padded with spaces to a multiple of 8, and at which byte of the
 * file each tensor does: those of 8 bytes a number first, so that all are aligned. No two tensors may have one name.
 */
export function layOutTensors(
  metadata: Readonly<Record<string, string>>,
  tensors: readonly TensorLayout[],
): { readonly head: Uint8Array; readonly places: ReadonlyMap<string, number>; readonly size: number } {
  const begins = new Map<string, number>();
  const bytesOf = ({ shape, dtype }: TensorLayout): number => shape.reduce((product, n) => product * n, dtype === "F32" ? 4 : 8);
  let size = 0;
  for (const tensor of tensors.toSorted((a, b) => b.dtype.localeCompare(a.dtype))) {
    begins.set(tensor.name, size);
    size += bytesOf(tensor);
  }
  const header = Object.fromEntries([
    ["__metadata__", metadata],
    ...tensors.map((tensor): [string, unknown] => {
      const { name, shape, dtype } = tensor;
      const begin = begins.get(name)!;
      return [name, { dtype, shape, data_offsets: [begin, begin + bytesOf(tensor)] }];
    }),
  ]);
  const text = new TextEncoder().encode(JSON.stringify(header));
  const dataFrom = 8 + Math.ceil(text.length / 8) * 8;
  const head = new Uint8Array(dataFrom).fill(0x20, 8);
  new DataView(head.buffer).setBigUint64(0, BigInt(dataFrom - 8), true);
  head.set(text, 8);
  return { head, places: new Map([...begins].map(([name, begin]) => [name, dataFrom + begin])), size: dataFrom + size };
}

/** The bytes of a safetensors file, as {@link layOutTensors} lays them out. */
export function encodeTensors(metadata: Readonly<Record<string, string>>, tensors: readonly FileTensor[]): Bytes {
  const layouts = tensors.map(({ name, shape, numbers }): TensorLayout => ({
    name,
    shape,
    dtype: numbers instanceof Float32Array ? "F32" : "F64",
  }));
  const { head, places, size } = layOutTensors(metadata, layouts);
  const file = new Uint8Array(size);
  file.set(head);
  // Little-endian, as the format has it and all machines that run WebGPU.
  for (const { name, numbers } of tensors)
    file.set(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength), places.get(name));
  return file;
}

/** A tensor of a file, not decoded yet. */
export interface StoredTensor {
  readonly name: string;
  /** One that the format knows. */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: DataView;
}

interface Entry extends StoredTensor {
  /** Bytes [begin, end) of the data that follows the header. */
  readonly begin: number;
  readonly end: number;
}

const dtypeBytes: ReadonlyMap<unknown, number> = new Map([
  ...["F64", "I64", "U64"].map((name) => [name, 8] as const),
  ...["F32", "I32", "U32"].map((name) => [name, 4] as const),
  ...["F16", "BF16", "I16", "U16"].map((name) => [name, 2] as const),
  ...["I8", "U8", "BOOL"].map((name) => [name, 1] as const),
]);

/** Bytes of a header: some 20 000 tensors. The format allows 100 MB, of which a parser could make gigabytes. */
const maximumHeader = 4 * 2 ** 20;
/** The header, the entry of a tensor, a list of numbers. */
const deepestHeader = 3;

/** Characters of a tensor's name, few enough for patterns. */
const maximumName = 1000;
/** What a safetensors file holds, whatever it is of. @throws ModelError where it is not a valid one. */
export function readTensors(file: Uint8Array): { metadata: ReadonlyMap<string, string>; tensors: readonly StoredTensor[] } {
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
  const { dtype, shape, data_offsets: offsets } = entry;
  if (!isCounts(shape)) fail(`${tensor} has the shape ${show(shape)}; expected a list of whole numbers`);
  if (shape.includes(0)) fail(`${tensor} has the shape ${show(shape)}; expected no dimension of 0`);
  const bytes = dtypeBytes.get(dtype);
  if (bytes === undefined) throw wrongDtype({ name, dtype });

  if (!isCounts(offsets) || offsets.length !== 2) fail(`${tensor} has the data_offsets ${show(offsets)}; expected [begin, end]`);
  const [begin, end] = offsets as [number, number];
  if (begin > end || end > dataSize)
    fail(`${tensor} has the data_offsets ${show(offsets)}; expected begin <= end <= ${dataSize}, the size of the data`);
  // A product past 2^53 is rounded, but stays far above any length of a file, so it cannot pass for one.
  const size = shape.reduce((product, n) => product * n, bytes);
  if (end - begin !== size) fail(`${tensor} has ${end - begin} bytes of data; expected ${size} for ${String(dtype)} ${show(shape)}`);
  return { name, dtype: dtype as string, shape, begin, end, data: new DataView(data.buffer, data.byteOffset + begin, size) };
}

/** Of a tensor that is none of floating point where such are wanted. */
export function wrongDtype({ name, dtype }: { readonly name: string; readonly dtype: unknown }): ModelError {
  return new ModelError(`safetensors: tensor ${quote(name)} has the dtype ${show(dtype)}; expected F64, F32, F16, BF16`);
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
