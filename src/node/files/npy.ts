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

/**
 * Reads one array: float32 as it is, everything else as float64. The file is not trusted: nothing is allocated before the
 * header's shape and the file's size agree.
 * @throws InputError for anything but a whole array of real numbers that float64 holds exactly.
 */
export function readNpy(bytes: Uint8Array): NumberArray {
  if (bytes.length < 10 || magic.some((byte, index) => bytes[index] !== byte))
    throw new InputError(`it has ${bytes.length} bytes and does not begin with "\\x93NUMPY"; expected a .npy file`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint8(6);
  if (version < 1 || version > 3) throw new InputError(`its .npy version is ${version}.${view.getUint8(7)}; expected 1, 2 or 3`);
  const headerStart = version === 1 ? 10 : 12;
  if (bytes.length < headerStart) throw new InputError(`it ends after ${bytes.length} bytes, within its header`);
  const headerLength = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const dataStart = headerStart + headerLength;
  if (dataStart > bytes.length)
    throw new InputError(`its header claims ${headerLength} bytes, but ${bytes.length - headerStart} are left in the file`);

  const { descr, fortranOrder, shape } = parseHeader(new TextDecoder("latin1").decode(bytes.subarray(headerStart, dataStart)));
  const type = descr.slice(1);
  const read = /^(?:[<>=]..|\|.1)$/.test(descr) ? reads[type] : undefined;
  if (!read)
    throw new InputError(
      `its numbers are ${quote(descr)}; expected float16 to float64, or whole numbers of 8 to 64 bits, such as "<f4", ">i8" or "|u1"`,
    );
  if (shape.length > mostAxes) throw new InputError(`its shape has ${shape.length} axes; expected at most ${mostAxes}`);

  const size = Number(type[1]);
  const available = bytes.length - dataStart;
  let count = 1;
  // Zeros first: with one of them the others may be as large as they like, and there is nothing to read.
  for (const axis of [...shape].sort((a, b) => a - b)) count = Math.min(count * axis, Number.MAX_SAFE_INTEGER);
  if (count * size !== available)
    throw new InputError(`its shape (${shape.join(", ")}) takes ${count * size} bytes, but ${available} follow the header`);
  const data = type === "f4" ? new Float32Array(count) : new Float64Array(count);
  // How far apart in the file two neighbours along an axis are.
  const strides: number[] = [];
  const axes = [...shape.keys()];
  let stride = size;
  for (const axis of fortranOrder ? axes : axes.toReversed()) {
    strides[axis] = stride;
    stride *= shape[axis]!;
  }
  // NumPy writes "<" and ">"; "=" is the order of a machine, which is little-endian on all but a few.
  const littleEndian = descr[0] !== ">";
  const place = shape.map(() => 0);
  let at = dataStart;
  for (let index = 0; index < count; index++) {
    const value = read(view, at, littleEndian);
    if (typeof value === "bigint" && (value > 2n ** 53n || value < -(2n ** 53n)))
      throw new InputError(
        `its number at [${place.join(", ")}] is ${value}; expected whole numbers from -2^53 to 2^53, which float64 holds`,
      );
    data[index] = Number(value);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++place[axis]! < shape[axis]!) break;
      at -= strides[axis]! * shape[axis]!;
      place[axis] = 0;
    }
  }
  return { data, shape };
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

/** Version 1.0, the data aligned to 64 bytes as NumPy writes it. */
export function writeNpy({ data, shape }: NumberArray): Uint8Array[] {
  const descr = data instanceof Float32Array ? "<f4" : "<f8";
  const axes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const dict = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${axes}), }`;
  const length = Math.ceil((magic.length + 4 + dict.length + 1) / 64) * 64;
  const text = dict.padEnd(length - magic.length - 4 - 1) + "\n";
  const header = new Uint8Array(length);
  header.set(magic);
  header.set([1, 0, text.length & 0xff, text.length >> 8], magic.length);
  header.set(new TextEncoder().encode(text), magic.length + 4);
  return [header, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)];
}
