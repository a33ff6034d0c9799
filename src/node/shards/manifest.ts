/** What a shard leaves: its arrays, NAME.shard-I-of-N.npy and the like, and NAME.shard-I-of-N.json, which says what they are. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { DeldotError, InputError, quote } from "../../errors.js";
import { describeSystemError } from "../files/points.js";
import { digestOf, sha256 } from "./digest.js";
import { mostShards, type Range, type Shard } from "./range.js";

/** An array of results: a row for each point, or for each block of points where it is a sum over them. */
export interface ArrayLayout {
  /** What stands in the name of its file; "" of the main one. */
  readonly name: string;
  readonly per: "point" | "block";
  /** Numbers of a row. */
  readonly width: number;
}

/** A file that rows are read from, with a SHA-256 of those of this shard: of those of its blocks, a line for each. */
export interface InputDigest {
  readonly name: string;
  /** From the folder of the result, so that both can move together. */
  readonly path: string;
  readonly width: number;
  readonly descr: string;
  readonly shape: readonly number[];
  readonly sha256: string;
}

/** A tensor of the merged file, where that is one file: an array, or a part of one that holds sums. */
export interface MergedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly array: string;
  /** Its first number in a row of the array, where it is a part of one. */
  readonly offset: number;
}

/** What the merged results are: a .npy file for each array, in its shape, or one .safetensors file. */
export type Merged =
  | { readonly format: "npy"; readonly shapes: Readonly<Record<string, readonly number[]>> }
  | {
      readonly format: "safetensors";
      readonly metadata: Readonly<Record<string, string>>;
      readonly tensors: readonly MergedTensor[];
    };

/** What all shards of one result have in common. */
export interface Common {
  readonly version: string;
  readonly command: string;
  /** The model and all options that decide numbers. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly rows: number;
  readonly blockRows: number;
  readonly shards: number;
  readonly arrays: readonly ArrayLayout[];
  readonly merged: Merged;
}

/** A shard's file of one array. */
export interface ArrayFile {
  readonly name: string;
  readonly descr: "<f4" | "<f8";
  readonly bytes: number;
  readonly sha256: string;
}

/** A shard that is whole. */
export interface Manifest extends Common {
  /** Of everything that decides the shard's numbers. */
  readonly key: string;
  readonly shard: number;
  readonly from: number;
  readonly to: number;
  readonly inputs: readonly InputDigest[];
  readonly files: readonly ArrayFile[];
  /** What computed, for people: more than one where it went on elsewhere. */
  readonly adapters: readonly string[];
  readonly milliseconds: number;
}

/** The key of a shard: two of one key are the same rows by the same options. The place of its inputs is no part of it. */
export function keyOf(common: Common, shard: number, range: Range, inputs: readonly InputDigest[]): string {
  return digestOf({ common, shard, range, inputs: inputs.map((input) => ({ ...input, path: null })) });
}

/** NAME.shard-I-of-N, before what stands for an array and the extension; with that of the result where it is another. */
export function stemOf(out: string, { index, count }: Shard): string {
  const digits = String(count - 1).length;
  return `${nameOf(out)}.shard-${String(index).padStart(digits, "0")}-of-${count}`;
}

function nameOf(out: string): string {
  return out.endsWith(".npy") ? out.slice(0, -".npy".length) : out;
}

/** stem.NAME.npy; stem.npy of the array "". */
export function arrayPath(stem: string, name: string): string {
  return `${stem}${name === "" ? "" : `.${name}`}.npy`;
}

export function manifestPath(stem: string): string {
  return `${stem}.json`;
}

/** The shards whose manifests lie beside a result, however many shards there are to be, and what is half done: by [n, i]. */
async function findShards(out: string): Promise<Map<number, Map<number, { whole: boolean; journals: string[] }>>> {
  if (![".npy", ".safetensors"].includes(extname(out)))
    throw new InputError(`${out}: its extension is ${quote(extname(out))}; expected what --out was, .npy or .safetensors`);
  const name = basename(nameOf(out));
  const found = new Map<number, Map<number, { whole: boolean; journals: string[] }>>();
  const folder = dirname(out);
  const files = await readdir(folder).catch((error: unknown) => {
    throw new InputError(`${folder}: ${describeSystemError(error)}; expected the folder with the shards of ${out}`, { cause: error });
  });
  for (const file of files) {
    if (!file.startsWith(`${name}.shard-`)) continue;
    const match = /^(\d+)-of-(\d+)\.json(\.\w+\.part)?$/.exec(file.slice(`${name}.shard-`.length));
    if (!match) continue;
    const [index, count] = [Number(match[1]), Number(match[2])];
    if (index >= count || count > mostShards || basename(stemOf(out, { index, count })) !== file.replace(/\.json.*$/, "")) continue;
    const ofCount = found.get(count) ?? new Map<number, { whole: boolean; journals: string[] }>();
    const shard = ofCount.get(index) ?? { whole: false, journals: [] };
    if (match[3] === undefined) shard.whole = true;
    else shard.journals.push(join(folder, file));
    found.set(count, ofCount.set(index, shard));
  }
  return found;
}

/**
 * The shards of the one number that has whole ones; of none whole, of the one that is begun.
 * @throws DeldotError where there are none, which may yet come; InputError where there are those of several numbers.
 */
export async function findShardsOfOne(
  out: string,
): Promise<{ count: number; present: ReadonlyMap<number, { readonly whole: boolean; readonly journals: readonly string[] }> }> {
  const found = [...(await findShards(out))];
  const withWhole = found.filter(([, shards]) => [...shards.values()].some(({ whole }) => whole));
  const candidates = withWhole.length > 0 ? withWhole : found;
  if (candidates.length === 1) return { count: candidates[0]![0], present: candidates[0]![1] };
  const what = candidates.length === 0 ? "no shards" : `shards of ${candidates.map(([count]) => count).join(", and of ")}`;
  const example = basename(manifestPath(stemOf(out, { index: 0, count: 8 })));
  const Fault = candidates.length === 0 ? DeldotError : InputError;
  throw new Fault(`${out}: there are ${what} beside it; expected those of one number, ${example} or the like`);
}

/** What merging writes. */
export function mergedPaths(out: string, { arrays, merged }: Pick<Common, "arrays" | "merged">): string[] {
  return merged.format === "npy" ? arrays.map(({ name }) => arrayPath(nameOf(out), name)) : [out];
}

/** @throws InputError, which begins with the path, where it is not there or none that a shard leaves. */
export async function readManifest(path: string): Promise<Manifest> {
  const text = await readText(path);
  // Its last key is a checksum of all before it.
  const match = /^(.*),\n {2}"sha256": "([0-9a-f]{64})"\n\}\n$/s.exec(text);
  const manifest = match && sha256(match[1]!) === match[2] ? (parsed(text) as Manifest | null) : null;
  if (!manifest || !isManifest(manifest)) throw new InputError(`${path}: it is not as a shard left it; expected one that was not changed`);
  return manifest;
}

/** Null for what is no JSON. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** @throws InputError where there is no ordinary file, which would have an end, or it cannot be read. */
export async function readText(path: string): Promise<string> {
  try {
    if (!(await stat(path)).isFile()) throw new Error("it is not an ordinary file");
    return await readFile(path, "utf8");
  } catch (error) {
    throw new InputError(`${path}: ${describeSystemError(error)}; expected a file that can be read`, { cause: error });
  }
}

/** Whether all of it is of the types that it is taken for: anyone can write a checksum beside anything. */
function isManifest(given: Manifest): boolean {
  const {
    version,
    command,
    settings,
    rows,
    blockRows,
    shards,
    arrays,
    merged,
    key,
    shard,
    from,
    to,
    inputs,
    files,
    adapters,
    milliseconds,
  } = given;
  const areTexts = (...texts: unknown[]): boolean => texts.every((text) => typeof text === "string");
  const areWhole = (...numbers: unknown[]): boolean => numbers.every((number) => Number.isSafeInteger(number) && (number as number) >= 0);
  const isObject = (value: unknown): boolean => typeof value === "object" && value !== null && !Array.isArray(value);
  const isShape = (shape: unknown, count: number): boolean =>
    Array.isArray(shape) && areWhole(...(shape as unknown[])) && (shape as number[]).reduce((product, n) => product * n, 1) === count;
  const isDescr = (descr: unknown): boolean => descr === "<f4" || descr === "<f8";
  const areObjects = (values: unknown): boolean => Array.isArray(values) && values.every(isObject);
  return (
    areTexts(version, command, key) &&
    areWhole(rows, blockRows, shards, shard, from, to, milliseconds) &&
    blockRows > 0 &&
    isObject(settings) &&
    [arrays, inputs, files].every(areObjects) &&
    Array.isArray(adapters) &&
    areTexts(...adapters) &&
    arrays.every(({ name, per, width }) => /^[\w.]*$/.test(name) && (per === "point" || per === "block") && areWhole(width) && width > 0) &&
    inputs.every(
      ({ name, path, width, descr, shape, sha256: digest }) =>
        /^[a-z-]+$/.test(name) && areTexts(path, descr, digest) && areWhole(width) && width > 0 && isShape(shape, rows * width),
    ) &&
    files.length === arrays.length &&
    files.every(
      ({ name, descr, bytes, sha256: digest }, index) =>
        name === arrays[index]!.name && isDescr(descr) && areWhole(bytes) && areTexts(digest),
    ) &&
    isObject(merged) &&
    (merged.format === "npy"
      ? isObject(merged.shapes) && arrays.every(({ name, per, width }) => per === "point" && isShape(merged.shapes[name], rows * width))
      : merged.format === "safetensors" &&
        isObject(merged.metadata) &&
        areTexts(...Object.values(merged.metadata)) &&
        areObjects(merged.tensors) &&
        merged.tensors.every(({ name, shape, array, offset }) => {
          const of = arrays.find((each) => each.name === array);
          if (!of || !areTexts(name) || !areWhole(offset) || !Array.isArray(shape)) return false;
          const size = shape.reduce((product, n) => product * n, 1);
          return isShape(shape, size) && (of.per === "point" ? size === rows * of.width : offset + size <= of.width);
        }))
  );
}

export function writeManifest(manifest: Manifest): string {
  const text = JSON.stringify(manifest, null, 2).replace(/\n\}$/, "");
  return `${text},\n  "sha256": "${sha256(text)}"\n}\n`;
}

/** Why a shard's files are not those that its manifest tells of; null where they are. */
export async function findFault(stem: string, { files }: Manifest, signal?: AbortSignal): Promise<string | null> {
  for (const file of files) {
    const path = arrayPath(stem, file.name);
    const status = await stat(path).catch(() => null);
    if (!status) return `${path} is not there`;
    if (status.size !== file.bytes) return `${path} has ${status.size} bytes; expected ${file.bytes}`;
    const hash = await hashOfFile(path, signal).catch((error: NodeJS.ErrnoException) => {
      if (typeof error.code !== "string") throw error;
      return error;
    });
    if (typeof hash !== "string") return `${path} cannot be read: ${describeSystemError(hash)}`;
    if (hash !== file.sha256) return `${path} is not as it was written: its checksum is another`;
  }
  return null;
}

async function hashOfFile(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(path, { highWaterMark: 2 ** 20 })) {
    signal?.throwIfAborted();
    hash.update(piece as Buffer);
  }
  return hash.digest("hex");
}
