import { ModelError } from "../../errors.js";

/** What one field of a message holds, still undecoded. */
export interface Field {
  readonly number: number;
  /** 0 for a varint, 1 for 8 bytes, 2 for a length and as many bytes, 5 for 4 bytes. */
  readonly wire: number;
  /** Of a varint: as a signed 64-bit integer, rounded beyond 2^53. NaN for other fields. */
  readonly integer: number;
  /** Of a length-delimited field, or the 4 or 8 bytes of a fixed one; a view of the file. Empty for a varint. */
  readonly bytes: Uint8Array;
}

const nothing = new Uint8Array();

/**
 * The fields of a protobuf message in the order of the file. Nothing is copied, and only what the caller descends into is
 * read, so neither depth nor size of a message can exhaust anything.
 *
 * @param source starts every message: "onnx".
 * @throws ModelError where a field runs past the end of its message, or is none that proto3 has.
 */
export function* readFields(message: Uint8Array, source: string): Generator<Field, void, undefined> {
  const cursor = { message, source, at: 0 };
  while (cursor.at < message.length) {
    const key = readVarint(cursor);
    const number = Math.floor(key / 8);
    const wire = key % 8;
    if (key < 8 || key > 0xffffffff)
      throw new ModelError(`${source}: byte ${cursor.at} of a message follows the field key ${key}; expected one from 8 to 2^32`);
    if (wire === 0) {
      yield { number, wire, integer: readVarint(cursor), bytes: nothing };
      continue;
    }
    const length = wire === 2 ? readVarint(cursor) : wire === 1 ? 8 : wire === 5 ? 4 : NaN;
    if (Number.isNaN(length)) throw new ModelError(`${source}: field ${number} has the wire type ${wire}; expected 0, 1, 2 or 5`);
    const left = message.length - cursor.at;
    if (!(length >= 0 && length <= left))
      throw new ModelError(`${source}: field ${number} has ${length} bytes, but ${left} are left of its message (is the file cut short?)`);
    yield { number, wire, integer: NaN, bytes: message.subarray(cursor.at, cursor.at + length) };
    cursor.at += length;
  }
}

/** The integers of a repeated field, which stands for one number, or packed for several. */
export function* readIntegers(field: Field, source: string): Generator<number, void, undefined> {
  if (!Number.isNaN(field.integer)) {
    yield field.integer;
    return;
  }
  const cursor = { message: field.bytes, source, at: 0 };
  while (cursor.at < cursor.message.length) yield readVarint(cursor);
}

/**
 * UTF-8 text, as it stands: a replaced byte or a dropped byte order mark would make one name of two.
 *
 * @throws ModelError where it is no UTF-8.
 */
export function readText(field: Field, source: string): string {
  try {
    return decoder.decode(field.bytes);
  } catch {
    throw new ModelError(`${source}: field ${field.number} has a text of ${field.bytes.length} bytes that are no UTF-8`);
  }
}
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A view of the numbers of a fixed-width field, packed or not. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Up to 10 bytes of 7 bits each, the lowest first, as a signed 64-bit integer. */
function readVarint(cursor: { readonly message: Uint8Array; readonly source: string; at: number }): number {
  let low = 0;
  let high = 0;
  for (let shift = 0; shift < 70; shift += 7) {
    const byte = cursor.message[cursor.at++];
    if (byte === undefined) break;
    const bits = byte & 0x7f;
    if (shift < 28) low += bits * 2 ** shift;
    else high += bits * 2 ** (shift - 28);
    if (byte < 0x80) {
      // 28 low bits, and 36 high ones of the 64; what a tenth byte has beyond is dropped, as every decoder does.
      const top = high % 2 ** 36;
      return (top >= 2 ** 35 ? top - 2 ** 36 : top) * 2 ** 28 + low;
    }
  }
  throw new ModelError(`${cursor.source}: an integer at byte ${cursor.at - 1} of a message has no end; expected at most 10 bytes`);
}
