import { ModelError } from "../../errors.js";

/** A protobuf message as it is made: pieces that are copied once, when the outermost one is joined. */
export interface Message {
  readonly pieces: readonly Uint8Array[];
  readonly length: number;
}

/** A field's number and its value: a whole number becomes a varint, { float } four bytes, all else a length and as many bytes. */
export type MessageField = readonly [number: number, value: number | string | Uint8Array | Message | { readonly float: number }];

/** Below 2 GiB, what every reader takes. */
const mostBytes = 2 ** 31 - 1;

const encoder = new TextEncoder();

/** A message with these fields, in their order. */
export function messageOf(fields: readonly MessageField[]): Message {
  const pieces = fields.flatMap(([number, value]): readonly Uint8Array[] => {
    if (typeof value === "number") return [varint(number * 8), varint(value)];
    if (typeof value === "object" && "float" in value) return [varint(number * 8 + 5), float32(value.float)];
    const { pieces: inner, length } = isMessage(value) ? value : pieceOf(typeof value === "string" ? encoder.encode(value) : value);
    return [varint(number * 8 + 2), varint(length), ...inner];
  });
  return { pieces, length: pieces.reduce((sum, piece) => sum + piece.length, 0) };
}

/** @throws ModelError where it is 2 GiB or more. */
export function bytesOf({ pieces, length }: Message): Uint8Array {
  if (length > mostBytes) throw new ModelError(`the file would have ${length} bytes; expected less than 2 GiB, as protobuf demands`);
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

function isMessage(value: string | Uint8Array | Message): value is Message {
  return typeof value === "object" && "pieces" in value;
}

function pieceOf(bytes: Uint8Array): Message {
  return { pieces: [bytes], length: bytes.length };
}

/** Of a whole number of at least 0: seven bits a byte, the lowest first. */
function varint(value: number): Uint8Array {
  if (!(Number.isSafeInteger(value) && value >= 0)) throw new TypeError(`${value} is no whole number from 0 on`);
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  return Uint8Array.from([...bytes, rest]);
}

function float32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return bytes;
}
