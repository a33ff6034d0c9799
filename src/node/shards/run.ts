/**
 * Computes one shard, block by block. What is done is kept whatever ends the process: blocks are added to files with names of their
 * own, with a journal of their checksums, and a later run of the shard goes on from there. Names that others read appear only when
 * all of it is written and synced.
 */
import { createHash, randomBytes, type Hash } from "node:crypto";
import { open, readdir, readFile, rename, rm, type FileHandle } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { DeldotError, InputError } from "../../errors.js";
import { descrOf, npyHeader } from "../files/npy.js";
import type { NpyRows } from "../files/npyRows.js";
import { describeSystemError } from "../files/points.js";
import { sha256 } from "./digest.js";
import {
  arrayPath,
  findFault,
  keyOf,
  manifestPath,
  readManifest,
  stemOf,
  writeManifest,
  type ArrayFile,
  type Common,
  type InputDigest,
  type Manifest,
} from "./manifest.js";
import { rangeOf, type Range, type Shard } from "./range.js";

type Numbers = Float32Array | Float64Array;

/** A file that has a row of `width` numbers for each point. */
export interface RowInput {
  readonly name: string;
  readonly rows: NpyRows;
  readonly width: number;
}

/** Rows [from, from + count) of all points, with those of each input by its name. */
export interface Block {
  readonly from: number;
  readonly count: number;
  readonly inputs: Readonly<Record<string, Numbers>>;
}

interface ShardDevice {
  readonly description: string;
  dispose(): Promise<void>;
}

export interface ShardJob<Device extends ShardDevice> {
  /** Where the merged results go. */
  readonly out: string;
  readonly shard: Shard;
  readonly common: Common;
  readonly inputs: readonly RowInput[];
  readonly open: () => Promise<Device>;
  /** The arrays of a block by their names: a row for each of its points, or one row. */
  readonly compute: (device: Device, block: Block, signal: AbortSignal) => Promise<Readonly<Record<string, Numbers>>>;
  readonly onProgress: (progress: { readonly done: number; readonly total: number }) => void;
  readonly signal: AbortSignal;
}

export interface ShardOutcome {
  readonly manifest: Manifest;
  readonly paths: readonly string[];
  /** Whether it was there before. */
  readonly skipped: boolean;
  /** Rows that an earlier run had left. */
  readonly resumed: number;
}

/** @throws InputError where an input cannot be read or changes meanwhile, or a file cannot be written; the signal's reason. */
export async function runShard<Device extends ShardDevice>(job: ShardJob<Device>): Promise<ShardOutcome> {
  const { out, shard, common, signal } = job;
  const range = rangeOf(shard, common.rows, common.blockRows);
  const stem = stemOf(out, shard);
  const inputs = await Promise.all(job.inputs.map((input) => digestInput(input, dirname(out), range, common.blockRows, signal)));
  const key = keyOf(common, shard.index, range, inputs);
  const paths = common.arrays.map(({ name }) => arrayPath(stem, name));

  const former = await readManifest(manifestPath(stem)).catch(() => null);
  if (former?.key === key && (await findFault(stem, former)) === null) {
    await removeParts(stem);
    return { manifest: former, paths, skipped: true, resumed: 0 };
  }

  const start = performance.now();
  const parts = await Parts.open(stem, key, common, range);
  try {
    const resumed = parts.rows;
    const { total, done } = { total: range.to - range.from, done: () => parts.rows };
    let adapter = "nothing: it has no rows";
    if (done() < total) {
      const device = await job.open();
      adapter = device.description;
      try {
        while (done() < total) {
          signal.throwIfAborted();
          const from = range.from + done();
          const count = Math.min(common.blockRows, range.to - from);
          const index = done() / common.blockRows;
          const block: Record<string, Numbers> = {};
          for (const [each, { name, rows, width }] of job.inputs.entries()) {
            const bytes = await rows.bytes(from, count, width);
            if (sha256(bytes) !== inputs[each]!.blocks[index])
              throw new InputError(
                `${rows.path}: its rows from ${from} changed after they were read first; expected a file that stays as it is`,
              );
            block[name] = rows.decode(bytes, from, width);
          }
          await parts.append(await job.compute(device, { from, count, inputs: block }, signal), count);
          job.onProgress({ done: done(), total });
        }
      } finally {
        await device.dispose();
      }
    }
    signal.throwIfAborted();
    const milliseconds = Math.round(performance.now() - start);
    const files = await parts.finish();
    const manifest: Manifest = { ...common, key, shard: shard.index, ...range, inputs, files, adapter, milliseconds };
    await parts.putInPlace(manifest);
    return { manifest, paths, skipped: false, resumed };
  } finally {
    await parts.close();
  }
}

async function digestInput(
  { name, rows, width }: RowInput,
  folder: string,
  { from, to }: Range,
  blockRows: number,
  signal: AbortSignal,
): Promise<InputDigest> {
  const blocks: string[] = [];
  for (let row = from; row < to; row += blockRows) {
    signal.throwIfAborted();
    blocks.push(sha256(await rows.bytes(row, Math.min(blockRows, to - row), width)));
  }
  return { name, path: relative(resolve(folder), resolve(rows.path)), width, descr: rows.header.descr, shape: rows.header.shape, blocks };
}

/** How a journal begins, and a line for each block. */
interface JournalHead {
  readonly key: string;
  readonly descrs: readonly ("<f4" | "<f8")[];
}
interface JournalBlock {
  readonly count: number;
  readonly sha256: readonly string[];
}

interface Part {
  readonly path: string;
  readonly handle: FileHandle;
  readonly hash: Hash;
  bytes: number;
}

/** A shard's files while they are written. */
class Parts {
  /** How many are there. */
  rows = 0;
  private blocks = 0;
  private parts: Part[] = [];
  private descrs: readonly ("<f4" | "<f8")[] = [];
  private journal: FileHandle | null = null;
  private readonly token = randomBytes(6).toString("hex");

  private constructor(
    private readonly stem: string,
    private readonly key: string,
    private readonly common: Common,
    private readonly range: Range,
  ) {}

  /** With the blocks that an earlier run of the same key has left, of several the one that came furthest. */
  static async open(stem: string, key: string, common: Common, range: Range): Promise<Parts> {
    const parts = new Parts(stem, key, common, range);
    try {
      const journals = (await partsOf(stem)).filter((path) => basename(path).startsWith(`${basename(stem)}.json.`));
      const left = await Promise.all(journals.map(async (path) => ({ path, ...(await readJournal(path)) })));
      const own = left.filter(({ head }) => head?.key === key).toSorted((a, b) => b.blocks.length - a.blocks.length);
      if (own[0]) await parts.takeOver(own[0].path, own[0].head!, own[0].blocks);
      return parts;
    } catch (error) {
      await parts.close();
      throw refusal(stem, error);
    }
  }

  /** Copies what is as its journal says, and removes the rest: whoever still writes it can no longer put it in place. */
  private async takeOver(journal: string, head: JournalHead, blocks: readonly JournalBlock[]): Promise<void> {
    const token = journal.split(".").at(-2)!;
    const handles: FileHandle[] = [];
    try {
      for (const { name } of this.common.arrays) handles.push(await open(`${arrayPath(this.stem, name)}.${token}.part`, "r"));
      await this.begin(head.descrs);
      const at = this.parts.map(({ bytes }) => bytes);
      for (const { count, sha256: expected } of blocks) {
        const pieces = await Promise.all(
          handles.map(async (handle, index) => {
            const bytes = new Uint8Array(this.bytesOf(index, count));
            const { bytesRead } = await handle.read(bytes, 0, bytes.length, at[index]);
            at[index]! += bytes.length;
            return bytes.subarray(0, bytesRead);
          }),
        );
        if (count !== this.nextCount() || pieces.some((piece, index) => sha256(piece) !== expected[index])) break;
        await this.add(pieces, count);
      }
    } catch (error) {
      // It has ended meanwhile, or was taken over by yet another: then there is nothing to take.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    } finally {
      for (const handle of handles) await handle.close();
    }
    await removeParts(this.stem, this.token);
  }

  private nextCount(): number {
    return Math.min(this.common.blockRows, this.range.to - this.range.from - this.rows);
  }

  private bytesOf(index: number, count: number): number {
    const { per, width } = this.common.arrays[index]!;
    return (per === "point" ? count : 1) * width * (this.descrs[index] === "<f4" ? 4 : 8);
  }

  /** Opens the files with their headers, of all the rows that they will have. */
  private async begin(descrs: readonly ("<f4" | "<f8")[]): Promise<void> {
    this.descrs = descrs;
    const { arrays, blockRows } = this.common;
    const rows = this.range.to - this.range.from;
    for (const [index, { name, per, width }] of arrays.entries()) {
      const path = `${arrayPath(this.stem, name)}.${this.token}.part`;
      const part: Part = { path, handle: await open(path, "wx"), hash: createHash("sha256"), bytes: 0 };
      this.parts.push(part);
      const length = per === "point" ? rows : Math.ceil(rows / blockRows);
      await write(part, npyHeader(descrs[index]!, width === 1 ? [length] : [length, width]));
    }
    const path = `${manifestPath(this.stem)}.${this.token}.part`;
    this.journal = await open(path, "wx");
    await this.journal.appendFile(`${JSON.stringify({ key: this.key, descrs } satisfies JournalHead)}\n`);
  }

  /** Adds the arrays of the next block. */
  async append(results: Readonly<Record<string, Numbers>>, count: number): Promise<void> {
    const numbers = this.common.arrays.map(({ name }) => results[name]!);
    try {
      if (this.parts.length === 0) await this.begin(numbers.map(descrOf));
      const pieces = numbers.map((data, index) => {
        const piece = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
        const { name } = this.common.arrays[index]!;
        if (descrOf(data) !== this.descrs[index])
          throw new InputError(
            `${arrayPath(this.stem, name)}: its rows so far are ${this.descrs[index]}, and those that come ${descrOf(data)}; expected the same --adapter as before`,
          );
        if (piece.length !== this.bytesOf(index, count))
          throw new TypeError(`${name}: ${piece.length} bytes for ${count} rows; expected ${this.bytesOf(index, count)}`);
        return piece;
      });
      await this.add(pieces, count);
    } catch (error) {
      throw refusal(this.stem, error);
    }
  }

  private async add(pieces: readonly Uint8Array[], count: number): Promise<void> {
    for (const [index, piece] of pieces.entries()) await write(this.parts[index]!, piece);
    const line: JournalBlock = { count, sha256: pieces.map(sha256) };
    await this.journal!.appendFile(`${JSON.stringify(line)}\n`);
    this.rows += count;
    this.blocks++;
  }

  /** Syncs what is written. */
  async finish(): Promise<ArrayFile[]> {
    try {
      if (this.parts.length === 0) await this.begin(this.common.arrays.map(() => "<f4"));
      for (const { handle } of this.parts) await handle.sync();
    } catch (error) {
      throw refusal(this.stem, error);
    }
    return this.parts.map(({ hash, bytes }, index) => ({
      name: this.common.arrays[index]!.name,
      descr: this.descrs[index]!,
      bytes,
      sha256: hash.copy().digest("hex"),
    }));
  }

  /** Gives the files their names, the manifest last. */
  async putInPlace(manifest: Manifest): Promise<void> {
    try {
      const scratch = `${manifestPath(this.stem)}.${this.token}.new.part`;
      const handle = await open(scratch, "wx");
      await handle.writeFile(writeManifest(manifest));
      await handle.sync();
      await handle.close();
      for (const [index, { path }] of this.parts.entries()) await rename(path, arrayPath(this.stem, this.common.arrays[index]!.name));
      await rename(scratch, manifestPath(this.stem));
      await syncFolder(dirname(this.stem));
    } catch (error) {
      // No fault of the input's: the other process makes it, or a retry does.
      if ((error as NodeJS.ErrnoException).code === "ENOENT")
        throw new DeldotError(`${this.stem}: another process took the shard over; expected one at a time`, { cause: error });
      throw refusal(this.stem, error);
    }
    await removeParts(this.stem);
  }

  /** What is there stays, for a later run. */
  async close(): Promise<void> {
    for (const { handle } of this.parts) await handle.close();
    await this.journal?.close();
    // Nothing to go on from.
    if (this.blocks === 0) await removeTokens(this.stem, (token) => token === this.token).catch(() => {});
  }
}

async function write(part: Part, bytes: Uint8Array): Promise<void> {
  await part.handle.appendFile(bytes);
  part.hash.update(bytes);
  part.bytes += bytes.length;
}

/** A folder's entries reach the disk too, where the system can do that. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => null);
  await handle?.sync().catch(() => {});
  await handle?.close();
}

/** Lines that are whole, up to the first that is not. */
export async function readJournal(path: string): Promise<{ head: JournalHead | null; blocks: JournalBlock[] }> {
  const text = await readFile(path, "utf8").catch(() => "");
  const values: unknown[] = [];
  for (const line of text.split("\n").slice(0, -1))
    try {
      values.push(JSON.parse(line));
    } catch {
      break;
    }
  const [head, ...blocks] = values as [JournalHead?, ...JournalBlock[]];
  return { head: head ?? null, blocks };
}

/** All files of a shard that are half done. */
async function partsOf(stem: string): Promise<string[]> {
  const folder = dirname(stem);
  return (await readdir(folder))
    .filter((file) => file.startsWith(`${basename(stem)}.`) && file.endsWith(".part"))
    .map((file) => join(folder, file));
}

/** @param but a token that stays. */
function removeParts(stem: string, but?: string): Promise<void> {
  return removeTokens(stem, (token) => token !== but);
}

async function removeTokens(stem: string, gone: (token: string) => boolean): Promise<void> {
  for (const path of await partsOf(stem)) {
    const token = /\.([0-9a-f]{12})(?:\.new)?\.part$/.exec(path)?.[1];
    if (token !== undefined && gone(token)) await rm(path, { force: true });
  }
}

function refusal(stem: string, error: unknown): unknown {
  if (error instanceof InputError || error instanceof TypeError) return error;
  return new InputError(`${stem}: ${describeSystemError(error)}; expected files that can be written`, { cause: error });
}
