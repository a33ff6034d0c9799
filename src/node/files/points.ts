/** Points and contexts out of a file, by its extension. */
import { readFileSync, statSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { extname } from "node:path";
import { InputError, quote } from "../../errors.js";
import type { Network } from "../../index.js";
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

/** The same for what asks for its bytes while it runs. */
export function readBytesAtOnce(path: string): Uint8Array {
  try {
    const status = statSync(path);
    if (!status.isFile()) throw new Error("it is not an ordinary file");
    return readFileSync(path);
  } catch (error) {
    throw new InputError(`${path}: ${describeSystemError(error)}; expected a file that can be read`, { cause: error });
  }
}

/** Node's messages repeat the call and the path: "ENOENT: no such file or directory, open '...'". */
export function describeSystemError(error: unknown): string {
  const { message } = error as Error;
  return message.replace(/^[A-Z]+: /, "").replace(/, \w+( '.*)?$/s, "");
}

export interface Points extends NumberArray {
  /** The axes of the shape that are not a point's. */
  readonly batch: readonly number[];
}

/** Points [..., d], or in the axes that the model has for one point: [..., N, k] where d = N * k. Or the list is flat. */
export function asPoints({ data, shape, count }: NumberArray, network: Pick<Network, "stateSize" | "stateShape">, path: string): Points {
  return { data, ...pointAxes(shape, data.length, network, path, count) };
}

/** The axes of points whose numbers may come later, `length` of them. */
export function pointAxes(
  shape: readonly number[],
  length: number,
  { stateSize, stateShape = [stateSize] }: Pick<Network, "stateSize" | "stateShape">,
  path: string,
  count?: number,
): Pick<Points, "shape" | "batch"> {
  if (shape.length < 2) {
    if (length % stateSize !== 0)
      throw new InputError(`${path}: it holds ${length} numbers; expected a multiple of ${stateSize}, the size of the model's state`);
    const points = length / stateSize;
    return { shape: [points, stateSize], batch: [points] };
  }
  const countFits = count === undefined || count * stateSize === length;
  for (const own of [[stateSize], stateShape]) {
    const batch = shape.slice(0, -own.length);
    if (countFits && String(shape.slice(-own.length)) === String(own)) return { shape, batch };
  }
  const batch = shape.slice(0, -1);
  if (countFits && batch.includes(0)) return { shape: [...batch, stateSize], batch };
  const expected = stateShape.length > 1 ? ` or its axes, [${stateShape.join(", ")}]` : "";
  throw new InputError(
    `${path}: its shape is ${describeShape(shape, count)}, so its points have ${countFits ? shape.at(-1) : length / count} components; expected ${stateSize}, the size of the model's state${expected}`,
  );
}

function describeShape(shape: readonly number[], count: number | undefined): string {
  return `[${shape.join(", ")}]${count === undefined ? "" : `, its count ${count}`}`;
}

/** A context: one row for all points, or one row per point. */
export function asContext(
  { data, shape, count }: NumberArray,
  contextSize: number,
  pointCount: number,
  path: string,
  name = "context",
): Float32Array | Float64Array {
  checkContextShape(shape, data.length, contextSize, pointCount, path, name, count);
  return data;
}

/** @throws InputError unless `length` numbers in this shape are one row for all points, or one row per point. */
export function checkContextShape(
  shape: readonly number[],
  length: number,
  contextSize: number,
  pointCount: number,
  path: string,
  name: string,
  count?: number,
): void {
  const rowsFit = (shape.length <= 1 || shape.at(-1) === contextSize) && (count === undefined || count * contextSize === length);
  if (rowsFit && (length === contextSize || length === contextSize * pointCount)) return;
  throw new InputError(
    `${path}: its shape is ${describeShape(shape, count)}; expected [${contextSize}] or [${pointCount}, ${contextSize}], one ${name} for all points or one per point`,
  );
}
