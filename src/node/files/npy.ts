/** NumPy's .npy: real numbers of any width and byte order are read, float32 and float64 written. */
import { InputError, quote } from "../../errors.js";
import type { NumberArray } from "./table.js";

const magic = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // "\x93NUMPY"

type Read = (view: DataView, at: number, littleEndian: boolean) => number | bigint;

/** By NumPy's letter and the bytes of a number. */
const reads: Readonly<Record<string, Read>> = {
  f2: (view, at, littleEndian) => half(view.getUint16(at, littleEndian)),
  f4: (view, at, littleEndian) => view.getFloat32(at, littleEndian),
  f8: (view, at, littleEndian) => view.getFloat64(at, littleEndian),
  i1: (view, at) => view.getInt8(at),
  i2: (view, at, littleEndian) => view.getInt16(at, littleEndian),
  i4: (view, at, littleEndian) => view.getInt32(at, littleEndian),
  i8: (view, at, littleEndian) => view.getBigInt64(at, littleEndian),
  u1: (view, at) => view.getUint8(at),
  u2: (view, at, littleEndian) => view.getUint16(at, littleEndian),
  u4: (view, at, littleEndian) => view.getUint32(at, littleEndian),
  u8: (view, at, littleEndian) => view.getBigUint64(at, littleEndian),
};

/** The number that the 16 bits of an IEEE half stand for. */
function half(bits: number): number {
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  const notFinite = fraction === 0 ? Infinity : NaN;
  const size = exponent === 0x1f ? notFinite : exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  return bits & 0x8000 ? -size : size;
}

/** As many as NumPy had until its version 2. */
const mostAxes = 32;

/** How the numbers of a file lie in it. */
export interface NpyHeader {
  /** As NumPy writes it: "<f4". */
  readonly descr: string;
  readonly fortranOrder: boolean;
  readonly shape: readonly number[];
  /** Numbers in all. */
  readonly count: number;
  /** Bytes of a number. */
  readonly size: number;
  /** The byte of the first one. */
  readonly dataStart: number;
}

/**
 * The header of a file whose first bytes these are, and which has so many in all. The file is not trusted: header, shape and size
 * agree, or it is refused.
 * @throws InputError for anything but a whole array of real numbers.
 */
export function readNpyHeader(bytes: Uint8Array, fileSize: number): NpyHeader {
  if (bytes.length < 10 || magic.some((byte, index) => bytes[index] !== byte))
    throw new InputError(`it has ${fileSize} bytes and does not begin with "\\x93NUMPY"; expected a .npy file`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint8(6);
  if (version < 1 || version > 3) throw new InputError(`its .npy version is ${version}.${view.getUint8(7)}; expected 1, 2 or 3`);
  const headerStart = version === 1 ? 10 : 12;
  if (bytes.length < headerStart) throw new InputError(`it ends after ${fileSize} bytes, within its header`);
  const headerLength = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const dataStart = headerStart + headerLength;
  if (dataStart > bytes.length && bytes.length < fileSize)
    throw new InputError(`its header claims ${headerLength} bytes; expected at most ${bytes.length - headerStart}`);
  if (dataStart > bytes.length)
    throw new InputError(`its header claims ${headerLength} bytes, but ${bytes.length - headerStart} are left in the file`);

  const { descr, fortranOrder, shape } = parseHeader(new TextDecoder("latin1").decode(bytes.subarray(headerStart, dataStart)));
  if (!/^(?:[<>=]..|\|.1)$/.test(descr) || !reads[descr.slice(1)])
    throw new InputError(
      `its numbers are ${quote(descr)}; expected float16 to float64, or whole numbers of 8 to 64 bits, such as "<f4", ">i8" or "|u1"`,
    );
  if (shape.length > mostAxes) throw new InputError(`its shape has ${shape.length} axes; expected at most ${mostAxes}`);

  const size = Number(descr[2]);
  const available = fileSize - dataStart;
  let count = 1;
  // Zeros first: with one of them the others may be as large as they like, and there is nothing to read.
  for (const axis of [...shape].sort((a, b) => a - b)) count = Math.min(count * axis, Number.MAX_SAFE_INTEGER);
  if (count * size !== available)
    throw new InputError(`its shape (${shape.join(", ")}) takes ${count * size} bytes, but ${available} follow the header`);
  return { descr, fortranOrder, shape, count, size, dataStart };
}

/**
 * Numbers one after another: float32 as they are, everything else as float64.
 * @param where names the place of one, by its index.
 * @throws InputError where float64 does not hold one exactly.
 */
export function decodeNumbers(bytes: Uint8Array, descr: string, where: (index: number) => string): Float32Array | Float64Array {
  const size = Number(descr[2]);
  const count = bytes.length / size;
  const type = descr.slice(1);
  const data = type === "f4" ? new Float32Array(count) : new Float64Array(count);
  // NumPy writes "<" and ">"; "=" is the order of a machine, which is little-endian on all but a few.
  const littleEndian = descr[0] !== ">";
  if (littleEndian && (type === "f4" || type === "f8")) {
    new Uint8Array(data.buffer).set(bytes);
    return data;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const read = reads[type]!;
  for (let index = 0; index < count; index++) {
    const value = read(view, index * size, littleEndian);
    if (typeof value === "bigint" && (value > 2n ** 53n || value < -(2n ** 53n)))
      throw new InputError(`its number at ${where(index)} is ${value}; expected whole numbers from -2^53 to 2^53, which float64 holds`);
    data[index] = Number(value);
  }
  return data;
}

/** [2, 0, 1]: the place of a number that is the `index`-th in the file. */
export function placeOf(index: number, { shape, fortranOrder }: Pick<NpyHeader, "shape" | "fortranOrder">): string {
  const place = shape.map(() => 0);
  const axes = [...shape.keys()];
  for (const axis of fortranOrder ? axes : axes.toReversed()) {
    place[axis] = index % shape[axis]!;
    index = Math.floor(index / shape[axis]!);
  }
  return `[${place.join(", ")}]`;
}

/**
 * Reads one array: float32 as it is, everything else as float64. The file is not trusted: nothing is allocated before the
 * header's shape and the file's size agree.
 * @throws InputError for anything but a whole array of real numbers that float64 holds exactly.
 */
export function readNpy(bytes: Uint8Array): NumberArray {
  const header = readNpyHeader(bytes, bytes.length);
  const { shape, descr, dataStart } = header;
  const data = decodeNumbers(bytes.subarray(dataStart), descr, (index) => placeOf(index, header));
  return { data: header.fortranOrder && shape.length > 1 ? rowMajor(data, shape) : data, shape };
}

/** The numbers of an array whose first axis changes the fastest, in the order in which the last one does. */
function rowMajor(data: Float32Array | Float64Array, shape: readonly number[]): Float32Array | Float64Array {
  const strides = shape.map((_, axis) => shape.slice(0, axis).reduce((product, n) => product * n, 1));
  const ordered = data.slice();
  const place = shape.map(() => 0);
  let at = 0;
  for (let index = 0; index < data.length; index++) {
    ordered[index] = data[at]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++place[axis]! < shape[axis]!) break;
      at -= strides[axis]! * shape[axis]!;
      place[axis] = 0;
    }
  }
  return ordered;
}

/** The header is a Python dict of three entries; anything else is refused. */
function parseHeader(text: string): { descr: string; fortranOrder: boolean; shape: number[] } {
  const entry = /\s*(?:'(descr)'\s*:\s*'([^']*)'|'(fortran_order)'\s*:\s*(True|False)|'(shape)'\s*:\s*\(([\d\s,]*)\))\s*(,|(?=\}))/y;
  const refuse = (): InputError =>
    new InputError(`its header is ${quote(text.trim())}; expected {'descr': ..., 'fortran_order': ..., 'shape': (...)}`);
  const start = text.search(/\S/);
  if (text[start] !== "{") throw refuse();
  const found = new Map<string, string>();
  let position = start + 1;
  while (true) {
    entry.lastIndex = position;
    const match = entry.exec(text);
    if (!match) break;
    position = entry.lastIndex;
    const key = match[1] ?? match[3] ?? match[5]!;
    if (found.has(key)) throw refuse();
    found.set(key, match[2] ?? match[4] ?? match[6]!);
  }
  if (!/^\s*\}\s*$/.test(text.slice(position))) throw refuse();
  const [descr, fortranOrder, axes] = [found.get("descr"), found.get("fortran_order"), found.get("shape")];
  if (descr === undefined || fortranOrder === undefined || axes === undefined) throw refuse();

  const parts = axes.trim() === "" ? [] : axes.replace(/,\s*$/, "").split(",");
  const shape = parts.map((part) => {
    const axis = /^\s*\d+\s*$/.test(part) ? Number(part) : NaN;
    if (!Number.isSafeInteger(axis)) throw refuse();
    return axis;
  });
  return { descr, fortranOrder: fortranOrder === "True", shape };
}

/** A header of version 1.0 for numbers in C order, of one length for all types; the data is aligned to 64 bytes as NumPy writes it. */
export function npyHeader(descr: "<f4" | "<f8", shape: readonly number[]): Uint8Array {
  const axes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const dict = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${axes}), }`;
  const length = Math.ceil((magic.length + 4 + dict.length + 1) / 64) * 64;
  const text = dict.padEnd(length - magic.length - 4 - 1) + "\n";
  const header = new Uint8Array(length);
  header.set(magic);
  header.set([1, 0, text.length & 0xff, text.length >> 8], magic.length);
  header.set(new TextEncoder().encode(text), magic.length + 4);
  return header;
}

/** NumPy's letters for numbers as they lie in memory. */
export function descrOf(data: Float32Array | Float64Array): "<f4" | "<f8" {
  return data instanceof Float32Array ? "<f4" : "<f8";
}

export function writeNpy({ data, shape }: NumberArray): Uint8Array[] {
  return [npyHeader(descrOf(data), shape), new Uint8Array(data.buffer, data.byteOffset, data.byteLength)];
}
