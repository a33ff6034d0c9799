/** One result of all its shards, whose files and inputs are checked byte by byte on the way. */
import { createHash } from "node:crypto";
import { open, realpath, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { DeldotError, InputError } from "../../errors.js";
import { layOutTensors } from "../../tensorFile.js";
import { npyHeader, readNpyHeader } from "../files/npy.js";
import { NpyRows } from "../files/npyRows.js";
import { commit, discard, openOutputs, type OutputFile } from "../files/output.js";
import { describeSystemError } from "../files/points.js";
import { digestOf, sha256 } from "./digest.js";
import { arrayPath, findShardsOfOne, manifestPath, mergedPaths, readManifest, stemOf, type Manifest } from "./manifest.js";
import { rangeOf } from "./range.js";
import { digestBlocks } from "./run.js";
import type { Bytes } from "../../typedArrays.js";

/** Bytes that are read, checked and written at a time. */
const PIECE = 4 * 2 ** 20;

export interface MergeOptions {
  /** Where a file of rows is now, by the name of its option: "points". */
  readonly inputs: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: { readonly done: number; readonly total: number }) => void;
}

/**
 * Writes NAME.npy and what belongs to it, or NAME.safetensors, of all shards of it: whole or not at all. The shards stay.
 * @returns the files, and the shards in their order.
 * @throws DeldotError where a shard is missing, which may yet come; InputError, which names the file, where one is of other work, or is
 * not as it was written; or where rows of an input are no longer those that a shard was computed from.
 */
export async function mergeShards(out: string, options: MergeOptions): Promise<{ paths: string[]; shards: Manifest[] }> {
  const { stems, shards } = await readShards(out);
  const first = shards[0]!;
  const read = await checkInputs(await realpath(dirname(out)), shards, stems, options);
  const paths = mergedPaths(out, first);
  const own = stems.flatMap((stem) => [manifestPath(stem), ...first.arrays.map(({ name }) => arrayPath(stem, name))]);
  const files = await openOutputs(paths, [...read, ...own]);
  try {
    try {
      await writeMerged(files, stems, shards, options);
      for (const { handle } of files) await handle.sync();
    } catch (error) {
      if (error instanceof InputError || typeof (error as NodeJS.ErrnoException).code !== "string") throw error;
      throw new InputError(`${out}: ${describeSystemError(error)}; expected a file that can be written`, { cause: error });
    }
    await commit(
      files.map((file) => ({ file, content: [] })),
      options.signal,
    );
  } finally {
    await discard(files);
  }
  return { paths, shards };
}

/** All shards, of one key but for their ranges. */
async function readShards(out: string): Promise<{ stems: string[]; shards: Manifest[] }> {
  const { count, present } = await findShardsOfOne(out);
  const stems = Array.from({ length: count }, (_, index) => stemOf(out, { index, count }));
  const missing = stems.filter((_, index) => !present.get(index)?.whole);
  if (missing.length > 0)
    throw new DeldotError(`${out}: ${listed(missing.map((stem) => basename(stem)))} missing; expected all ${count} shards`);
  const shards: Manifest[] = [];
  for (const stem of stems) shards.push(await readManifest(manifestPath(stem)));
  // One with rows, which tells of their type.
  const measure = Math.max(
    0,
    shards.findIndex(({ from, to }) => from < to),
  );
  for (const [index, shard] of shards.entries()) {
    const path = manifestPath(stems[index]!);
    const other = differenceOf(shard, shards[measure]!);
    if (other !== null)
      throw new InputError(`${path}: its ${other} unlike that of ${manifestPath(stems[measure]!)}; expected shards of the same work`);
    const range = rangeOf({ index, count }, shard.rows, shard.blockRows);
    const { from, to } = shard;
    if (shard.shards !== count || shard.shard !== index || from !== range.from || to !== range.to)
      throw new InputError(
        `${path}: it holds rows ${from} to ${to}; expected ${range.from} to ${range.to}, those of shard ${index} of ${count}`,
      );
  }
  return { stems, shards };
}

/** What two shards do not share: `method is "jacobian",`, or null. */
function differenceOf(a: Manifest, b: Manifest): string | null {
  const named = (manifest: Manifest): [string, unknown][] => [
    ["version", manifest.version],
    ["command", manifest.command],
    ...Object.entries(manifest.settings),
    ["number of points", manifest.rows],
    ["number of rows in a block", manifest.blockRows],
    ["arrays", manifest.arrays],
    ["results", manifest.merged],
    ["inputs", manifest.inputs.map(({ name, width, descr, shape }) => ({ name, width, descr, shape }))],
    // A shard without rows has none.
    ...(manifest.from < manifest.to ? [["types of numbers", manifest.files.map(({ descr }) => descr)] as [string, unknown]] : []),
  ];
  const others = new Map(named(b));
  for (const [name, value] of named(a))
    if (others.has(name) && digestOf(value) !== digestOf(others.get(name)))
      return typeof value === "object" ? `${name} are` : `${name} is ${JSON.stringify(value)},`;
  return digestOf(a.settings) === digestOf(b.settings) ? null : "options are";
}

/** The rows of each file of rows are still what every shard read. @returns the files. */
async function checkInputs(
  folder: string,
  shards: readonly Manifest[],
  stems: readonly string[],
  { inputs, signal, onProgress }: MergeOptions,
): Promise<string[]> {
  const total = shards[0]!.rows;
  const read: string[] = [];
  for (const [each, { name, path: given, shape, descr, width }] of shards[0]!.inputs.entries()) {
    const path = Object.hasOwn(inputs, name) ? inputs[name]! : join(folder, given);
    const rows = await NpyRows.open(path);
    read.push(path);
    try {
      if (rows.header.descr !== descr || String(rows.header.shape) !== String(shape))
        throw new InputError(
          `${path}: it is ${rows.header.descr} [${rows.header.shape.join(", ")}]; expected ${descr} [${shape.join(", ")}], as the shards read it`,
        );
      for (const [index, { from, to, blockRows, inputs: own }] of shards.entries()) {
        const blocks: string[] = [];
        for await (const { digest, end } of digestBlocks(rows, width, { from, to }, blockRows, signal)) {
          blocks.push(digest);
          onProgress({ done: end, total });
        }
        if (sha256(blocks.join("\n")) !== own[each]!.sha256)
          throw new InputError(
            `${path}: its rows ${from} to ${to} are not those that ${stems[index]!} was computed from; expected them as they were`,
          );
      }
    } finally {
      await rows.close();
    }
  }
  const unknown = Object.keys(inputs).find((name) => !shards[0]!.inputs.some((input) => input.name === name));
  if (unknown !== undefined) throw new InputError(`--${unknown} is ${inputs[unknown]}, but the shards read no such file; expected none`);
  return read;
}

/** A place in a merged file. */
interface Place {
  readonly file: OutputFile;
  readonly at: number;
}

async function writeMerged(
  files: readonly OutputFile[],
  stems: readonly string[],
  shards: readonly Manifest[],
  { signal, onProgress }: MergeOptions,
): Promise<void> {
  const { arrays, merged, rows } = shards[0]!;
  const descrs = (shards.find(({ from, to }) => from < to) ?? shards[0]!).files.map(({ descr }) => descr);
  const places = new Map<string, Place>();
  if (merged.format === "npy")
    for (const [index, { name }] of arrays.entries()) {
      const file = files[index]!;
      const header = npyHeader(descrs[index]!, merged.shapes[name]!);
      await writeAt(file.handle, header, 0);
      places.set(name, { file, at: header.length });
    }
  else {
    const file = files[0]!;
    const layout = layOutTensors(
      merged.metadata,
      merged.tensors.map(({ name, shape }) => ({ name, shape, dtype: "F32" })),
    );
    await writeAt(file.handle, layout.head, 0);
    await file.handle.truncate(layout.size);
    for (const { name } of merged.tensors) places.set(name, { file, at: layout.places.get(name)! });
  }

  for (const [index, { name, per, width }] of arrays.entries()) {
    const sums = new Float64Array(per === "block" ? width : 0);
    const tensor = merged.format === "npy" ? undefined : merged.tensors.find(({ array }) => array === name);
    let written = 0;
    for (const [each, stem] of stems.entries()) {
      const { descr, sha256: expected, bytes: size } = shards[each]!.files[index]!;
      const path = arrayPath(stem, name);
      for await (const piece of dataOf(path, size, expected)) {
        signal.throwIfAborted();
        if (per === "block") addRows(sums, numbersIn(piece.bytes, descr), piece.at / (descr === "<f4" ? 4 : 8));
        else {
          const { file, at } = places.get(tensor?.name ?? name)!;
          const bytes = tensor ? bytesOf(Float32Array.from(numbersIn(piece.bytes, descr))) : piece.bytes;
          await writeAt(file.handle, bytes, at + written);
          written += bytes.length;
        }
      }
      onProgress({ done: shards[each]!.to, total: rows });
    }
    if (per === "block" && merged.format === "safetensors")
      for (const { name: own, shape, offset } of merged.tensors.filter(({ array }) => array === name)) {
        const { file, at } = places.get(own)!;
        const length = shape.reduce((product, n) => product * n, 1);
        await writeAt(file.handle, bytesOf(Float32Array.from(sums.subarray(offset, offset + length))), at);
      }
  }
}

/** Adds rows of as many numbers as there are sums, in their order, whatever pieces they come in. */
function addRows(sums: Float64Array, numbers: Float32Array | Float64Array, first: number): void {
  for (let index = 0; index < numbers.length; index++) sums[(first + index) % sums.length]! += numbers[index]!;
}

function numbersIn(bytes: Bytes, descr: "<f4" | "<f8"): Float32Array | Float64Array {
  return descr === "<f4" ? new Float32Array(bytes.buffer, 0, bytes.length / 4) : new Float64Array(bytes.buffer, 0, bytes.length / 8);
}

function bytesOf(numbers: Float32Array): Uint8Array {
  return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
}

/** The numbers of a shard's file in pieces, each in a buffer of its own. @throws InputError at the end where the file is another. */
async function* dataOf(path: string, size: number, expected: string): AsyncGenerator<{ bytes: Bytes; at: number }, void, undefined> {
  let handle: FileHandle | undefined;
  const hash = createHash("sha256");
  try {
    handle = await open(path, "r");
    const status = await handle.stat();
    if (status.size !== size) throw new InputError(`${path}: it has ${status.size} bytes; expected ${size}, as it was written`);
    const head = new Uint8Array(Math.min(size, 2 ** 16));
    await handle.read(head, 0, head.length, 0);
    const { dataStart } = readNpyHeader(head, size);
    hash.update(head.subarray(0, dataStart));
    for (let at = dataStart; at < size;) {
      const bytes = new Uint8Array(Math.min(PIECE, size - at));
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, at);
      if (bytesRead !== bytes.length) throw new InputError(`${path}: it ends early; expected it to stay as it is`);
      hash.update(bytes);
      yield { bytes, at: at - dataStart };
      at += bytes.length;
    }
  } catch (error) {
    if (error instanceof InputError) throw error;
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    throw new InputError(`${path}: ${describeSystemError(error)}; expected a file that can be read`, { cause: error });
  } finally {
    await handle?.close();
  }
  if (hash.digest("hex") !== expected)
    throw new InputError(`${path}: it is not as it was written, its checksum is another; expected one that was not changed`);
}

async function writeAt(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(", ");
  return names.length === 1 ? `${shown} is` : `${shown}${names.length > 5 ? ` and ${names.length - 5} more` : ""} are`;
}
