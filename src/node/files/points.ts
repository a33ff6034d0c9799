/** Points and contexts out of a file, by its extension. */
import { readFile, stat } from "node:fs/promises";
import { extname } from "node:path";
import { InputError, quote } from "../../errors.js";
import { readCsv } from "./csv.js";
import { readJson } from "./json.js";
import { readNpy } from "./npy.js";
import type { NumberArray } from "./table.js";

const readers: Readonly<Record<string, (bytes: Uint8Array) => NumberArray>> = {
  ".npy": readNpy,
  ".csv": readTable,
  ".tsv": readTable,
  ".txt": readTable,
  ".json": (bytes) => readJson(readUtf8(bytes)),
};

function readTable(bytes: Uint8Array): NumberArray {
  return readCsv(readUtf8(bytes));
}

function readUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new InputError("it is not text in UTF-8", { cause: error });
  }
}

/** @throws InputError that begins with the path. */
export async function readNumbers(path: string): Promise<NumberArray> {
  const reader = readers[extname(path).toLowerCase()];
  if (!reader) throw new InputError(`${path}: its extension is ${quote(extname(path))}; expected ${Object.keys(readers).join(", ")}`);
  const bytes = await readBytes(path);
  try {
    return reader(bytes);
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`${path}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** @throws InputError that begins with the path, where it cannot be read. */
export async function readBytes(path: string): Promise<Uint8Array> {
  try {
    const status = await stat(path);
    // A device may have no end.
    if (status.isCharacterDevice() || status.isBlockDevice()) throw new Error("it is a device");
    return await readFile(path);
  } catch (error) {
    throw new InputError(`${path}: ${describeSystemError(error)}; expected a file that can be read`, { cause: error });
  }
}

/** Node's messages repeat the call and the path: "ENOENT: no such file or directory, open '...'". */
export function describeSystemError(error: unknown): string {
  const { message } = error as Error;
  return message.replace(/^[A-Z]+: /, "").replace(/, \w+( '.*)?$/s, "");
}

/** Points [..., d]: the last axis is d, or the list is flat. */
export function asPoints({ data, shape }: NumberArray, stateSize: number, path: string): NumberArray {
  if (shape.length >= 2) {
    const empty = shape.slice(0, -1).includes(0);
    if (shape.at(-1) !== stateSize && !empty)
      throw new InputError(
        `${path}: its shape is [${shape.join(", ")}], so its points have ${shape.at(-1)} components; expected ${stateSize}, the size of the model's state`,
      );
    return { data, shape: [...shape.slice(0, -1), stateSize] };
  }
  if (data.length % stateSize !== 0)
    throw new InputError(`${path}: it holds ${data.length} numbers; expected a multiple of ${stateSize}, the size of the model's state`);
  return { data, shape: [data.length / stateSize, stateSize] };
}

/** A context: one row for all points, or one row per point. */
export function asContext(
  { data, shape }: NumberArray,
  contextSize: number,
  pointCount: number,
  path: string,
): Float32Array | Float64Array {
  const rowsFit = shape.length <= 1 || shape.at(-1) === contextSize;
  if (rowsFit && (data.length === contextSize || data.length === contextSize * pointCount)) return data;
  throw new InputError(
    `${path}: its shape is [${shape.join(", ")}]; expected [${contextSize}] or [${pointCount}, ${contextSize}], one context for all points or one per point`,
  );
}
