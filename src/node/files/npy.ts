/** NumPy's .npy, as far as points and results need it: float32 and float64, little-endian, C order. */
import { InputError, quote } from "../../errors.js";
import type { NumberArray } from "./table.js";

const magic = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // "\x93NUMPY"

/**
 * Reads one array. The file is not trusted: nothing is allocated before the header's shape and the file's size agree.
 * @throws InputError for anything but a whole array of float32 or float64 in C order.
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
  if (descr !== "<f4" && descr !== "<f8")
    throw new InputError(`its numbers are ${quote(descr)}; expected "<f4" or "<f8", float32 or float64 in little-endian order`);
  if (fortranOrder && shape.filter((size) => size !== 1).length > 1)
    throw new InputError("it is in Fortran order; expected C order (numpy.ascontiguousarray makes it so)");

  const size = descr === "<f4" ? 4 : 8;
  const available = bytes.length - dataStart;
  let count = 1;
  // Zeros first: with one of them the others may be as large as they like, and there is nothing to read.
  for (const axis of [...shape].sort((a, b) => a - b)) count = Math.min(count * axis, Number.MAX_SAFE_INTEGER);
  if (count * size !== available)
    throw new InputError(`its shape (${shape.join(", ")}) takes ${count * size} bytes, but ${available} follow the header`);
  // A copy: what stands in the file need not be aligned, and a Buffer may share its memory.
  const data = new Uint8Array(bytes.subarray(dataStart)).buffer;
  return { data: size === 4 ? new Float32Array(data) : new Float64Array(data), shape };
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
