/**
 * Computes one shard, block by block. What is done is kept whatever ends the process: blocks are added to files with names of their
 * own, with a journal of their checksums, and a later run of the shard goes on from a copy of what is as its journal says. Names that
 * others read appear only when all of it is written and synced. So processes on one shard do not disturb one another: whoever ends
 * first has made it, and the others find that it is there.
 */
import { createHash, randomBytes, type Hash } from "node:crypto";
import { open, readdir, realpath, rename, rm, type FileHandle } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { DeldotError, InputError } from "../../errors.js";
import { descrOf, npyHeader } from "../files/npy.js";
import { readUpTo, type NpyRows } from "../files/npyRows.js";
import { describeSystemError } from "../files/points.js";
import { sha256 } from "./digest.js";
import {
  arrayPath,
  findFault,
  keyOf,
  manifestPath,
  parsed,
  readManifest,
  readText,
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

/**
 * @throws InputError where an input cannot be read, or a file cannot be written; DeldotError where an input changes meanwhile; the
 * signal's reason.
 */
export async function runShard<Device extends ShardDevice>(job: ShardJob<Device>): Promise<ShardOutcome> {
  const { out, shard, common, signal } = job;
  const range = rangeOf(shard, common.rows, common.blockRows);
  const stem = stemOf(out, shard);
  // By what links stand for, as the system follows them.
  const folder = await realpath(dirname(out)).catch((error: unknown) => {
    throw refusal(stem, error);
  });
  const digests: BlockDigests[] = [];
  for (const input of job.inputs) digests.push(await digestInput(input, folder, range, common.blockRows, signal));
  const inputs = digests.map(({ input }) => input);
  const key = keyOf(common, shard.index, range, inputs);
  const paths = common.arrays.map(({ name }) => arrayPath(stem, name));
  const there = await findWhole(stem, key, signal);
  if (there) {
    await removeParts(stem, key);
    return { manifest: there, paths, skipped: true, resumed: 0 };
  }

  const parts = await Parts.open(stem, key, common, range, signal);
  try {
    const resumed = parts.rows;
    const total = range.to - range.from;
    if (parts.rows < total) {
      const device = await job.open();
      try {
        while (parts.rows < total) {
          signal.throwIfAborted();
          const start = performance.now();
          const from = range.from + parts.rows;
          const count = Math.min(common.blockRows, range.to - from);
          const block: Record<string, Numbers> = {};
          for (const [each, { name, rows, width }] of job.inputs.entries()) {
            const bytes = await rows.bytes(from, count, width);
            if (sha256(bytes) !== digests[each]!.blocks[parts.rows / common.blockRows])
              throw new DeldotError(`${rows.path}: its rows from ${from} changed while it was read; expected a file that stays as it is`);
            block[name] = rows.decode(bytes, from, width);
          }
          const results = await job.compute(device, { from, count, inputs: block }, signal);
          await parts.append(results, count, device.description, performance.now() - start);
          job.onProgress({ done: parts.rows, total });
        }
      } finally {
        await device.dispose();
      }
    }
    signal.throwIfAborted();
    const described = { ...common, key, shard: shard.index, ...range, inputs };
    const manifest = await parts.putInPlace(described);
    if (manifest) return { manifest, paths, skipped: false, resumed };
  } finally {
    await parts.close();
  }
  // Another process has made it meanwhile, and removed what was half done.
  const made = await findWhole(stem, key, signal);
  if (!made) throw new DeldotError(`${stem}: its files were removed while they were written; expected one process at a time`);
  return { manifest: made, paths, skipped: true, resumed: 0 };
}

/** The shard of this key, where all its files are as they were written. */
async function findWhole(stem: string, key: string, signal: AbortSignal): Promise<Manifest | null> {
  const manifest = await readManifest(manifestPath(stem)).catch((error: unknown) => {
    const cause = (error as InputError).cause as NodeJS.ErrnoException | undefined;
    // One that is damaged is made anew.
    if (cause && cause.code !== "ENOENT") throw error;
    return null;
  });
  return manifest?.key === key && (await findFault(stem, manifest, signal)) === null ? manifest : null;
}

/** Each block's SHA-256, and the input with that of all. */
interface BlockDigests {
  readonly input: InputDigest;
  readonly blocks: readonly string[];
}

async function digestInput(
  { name, rows, width }: RowInput,
  folder: string,
  range: Range,
  blockRows: number,
  signal: AbortSignal,
): Promise<BlockDigests> {
  const blocks: string[] = [];
  for await (const { digest } of digestBlocks(rows, width, range, blockRows, signal)) blocks.push(digest);
  const path = relative(folder, await realpath(rows.path));
  const { descr, shape } = rows.header;
  return { input: { name, path, width, descr, shape, sha256: sha256(blocks.join("\n")) }, blocks };
}

/** The SHA-256 of each block of a range, and the row after it. */
export async function* digestBlocks(
  rows: NpyRows,
  width: number,
  { from, to }: Range,
  blockRows: number,
  signal: AbortSignal,
): AsyncGenerator<{ digest: string; end: number }, void, undefined> {
  for (let row = from; row < to; row += blockRows) {
    signal.throwIfAborted();
    const end = Math.min(row + blockRows, to);
    yield { digest: sha256(await rows.bytes(row, end - row, width)), end };
  }
}

type Descr = "<f4" | "<f8";

/** How a journal begins, and a line for each block. */
interface JournalHead {
  readonly key: string;
  readonly descrs: readonly Descr[];
}
interface JournalBlock {
  readonly count: number;
  readonly sha256: readonly string[];
  readonly adapter: string;
  readonly milliseconds: number;
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
  private parts: Part[] = [];
  private descrs: readonly Descr[] = [];
  private journal: FileHandle | null = null;
  private token = "";
  private readonly adapters = new Set<string>();
  private milliseconds = 0;

  private constructor(
    private readonly stem: string,
    private readonly key: string,
    private readonly common: Common,
    private readonly range: Range,
    private readonly signal: AbortSignal,
  ) {}

  /** With the blocks that an earlier run of the same key has left, of several the one that came furthest. */
  static async open(stem: string, key: string, common: Common, range: Range, signal: AbortSignal): Promise<Parts> {
    const parts = new Parts(stem, key, common, range, signal);
    try {
      const own = (await journalsOf(stem)).filter(({ head, blocks }) => head?.key === key && blocks.length > 0);
      for (const { path, head, blocks } of own.toSorted((a, b) => b.blocks.length - a.blocks.length)) {
        await parts.copy(path, head!, blocks);
        if (parts.rows > 0) break;
      }
      return parts;
    } catch (error) {
      await parts.close();
      throw refusal(stem, error);
    }
  }

  /** Copies the blocks that are as a journal says, up to the first that is not. */
  private async copy(journal: string, head: JournalHead, blocks: readonly JournalBlock[]): Promise<void> {
    const token = tokenOf(journal)!;
    const handles: FileHandle[] = [];
    try {
      for (const { name } of this.common.arrays) {
        const path = arrayPath(this.stem, name);
        // Its process may have been killed while it gave them their names.
        handles.push(await open(`${path}.${token}.part`, "r").catch(() => open(path, "r")));
      }
      await this.begin(head.descrs);
      const at = this.parts.map(({ bytes }) => bytes);
      for (const block of blocks) {
        this.signal.throwIfAborted();
        if (block.count !== Math.min(this.common.blockRows, this.range.to - this.range.from - this.rows)) break;
        const pieces: Uint8Array[] = [];
        for (const [index, handle] of handles.entries()) {
          const bytes = new Uint8Array(this.bytesOf(index, block.count));
          if ((await readUpTo(handle, bytes, at[index]!)) < bytes.length) return;
          at[index]! += bytes.length;
          pieces.push(bytes);
        }
        if (pieces.some((piece, index) => sha256(piece) !== block.sha256[index])) break;
        await this.add(pieces, block);
      }
    } catch (error) {
      // Another process has ended meanwhile, and removed them.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    } finally {
      for (const handle of handles) await handle.close();
    }
  }

  private bytesOf(index: number, count: number): number {
    const { per, width } = this.common.arrays[index]!;
    return (per === "point" ? count : 1) * width * (this.descrs[index] === "<f4" ? 4 : 8);
  }

  /** Opens new files, with headers of all the rows that they will have. */
  private async begin(descrs: readonly Descr[]): Promise<void> {
    await this.close();
    this.token = randomBytes(6).toString("hex");
    this.descrs = descrs;
    this.rows = 0;
    this.milliseconds = 0;
    this.adapters.clear();
    const { arrays, blockRows } = this.common;
    const rows = this.range.to - this.range.from;
    for (const [index, { name, per, width }] of arrays.entries()) {
      const path = `${arrayPath(this.stem, name)}.${this.token}.part`;
      const part: Part = { path, handle: await open(path, "wx"), hash: createHash("sha256"), bytes: 0 };
      this.parts.push(part);
      const length = per === "point" ? rows : Math.ceil(rows / blockRows);
      await write(part, npyHeader(descrs[index]!, width === 1 ? [length] : [length, width]));
    }
    this.journal = await open(`${manifestPath(this.stem)}.${this.token}.part`, "wx");
    await this.journal.appendFile(`${JSON.stringify({ key: this.key, descrs } satisfies JournalHead)}\n`);
  }

  /** Adds the arrays of the next block; or begins anew, where what an earlier run left has numbers of another type. */
  async append(results: Readonly<Record<string, Numbers>>, count: number, adapter: string, milliseconds: number): Promise<void> {
    const numbers = this.common.arrays.map(({ name }) => results[name]!);
    const descrs = numbers.map(descrOf);
    try {
      if (this.parts.length === 0 || String(descrs) !== String(this.descrs)) {
        const isFirst = this.rows === 0;
        await this.begin(descrs);
        if (!isFirst) return;
      }
      const pieces = numbers.map((data) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      for (const [index, { length }] of pieces.entries())
        if (length !== this.bytesOf(index, count))
          throw new TypeError(
            `${this.common.arrays[index]!.name}: ${length} bytes for ${count} rows; expected ${this.bytesOf(index, count)}`,
          );
      await this.add(pieces, { count, sha256: pieces.map(sha256), adapter, milliseconds: Math.round(milliseconds) });
    } catch (error) {
      throw refusal(this.stem, error);
    }
  }

  private async add(pieces: readonly Uint8Array[], block: JournalBlock): Promise<void> {
    for (const [index, piece] of pieces.entries()) await write(this.parts[index]!, piece);
    await this.journal!.appendFile(`${JSON.stringify(block)}\n`);
    this.rows += block.count;
    this.milliseconds += block.milliseconds;
    this.adapters.add(block.adapter);
  }

  /** Syncs the files and gives them their names, the manifest last. @returns it; null where another process has removed them. */
  async putInPlace(described: Omit<Manifest, "files" | "adapters" | "milliseconds">): Promise<Manifest | null> {
    try {
      // Without rows there is no type.
      if (this.parts.length === 0) await this.begin(this.common.arrays.map(() => "<f4"));
      for (const { handle } of this.parts) await handle.sync();
      const files = this.parts.map(({ hash, bytes }, index): ArrayFile => ({
        name: this.common.arrays[index]!.name,
        descr: this.descrs[index]!,
        bytes,
        sha256: hash.copy().digest("hex"),
      }));
      const manifest: Manifest = { ...described, files, adapters: [...this.adapters], milliseconds: this.milliseconds };
      const scratch = `${manifestPath(this.stem)}.${this.token}.new.part`;
      const handle = await open(scratch, "wx");
      await handle.writeFile(writeManifest(manifest));
      await handle.sync();
      await handle.close();
      try {
        for (const [index, { path }] of this.parts.entries()) await rename(path, arrayPath(this.stem, this.common.arrays[index]!.name));
        await rename(scratch, manifestPath(this.stem));
      } catch (error) {
        await rm(scratch, { force: true });
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
        throw error;
      }
      await syncFolder(dirname(this.stem));
      await removeParts(this.stem, this.key);
      return manifest;
    } catch (error) {
      throw refusal(this.stem, error);
    }
  }

  /** What is there stays, for a later run; where there is nothing, nothing does. */
  async close(): Promise<void> {
    for (const { handle } of this.parts) await handle.close();
    await this.journal?.close();
    if (this.rows === 0 && this.token !== "") await removeTokens(this.stem, new Set([this.token])).catch(() => {});
    this.parts = [];
    this.journal = null;
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

interface Journal {
  readonly path: string;
  readonly head: JournalHead | null;
  readonly blocks: readonly JournalBlock[];
}

/** Its lines that are whole, up to the first that is not; none where it cannot be read: then nothing is gone on from. */
export async function readJournal(path: string): Promise<Journal> {
  const [first, ...lines] = (await readText(path).catch(() => "")).split("\n").slice(0, -1).map(parsed);
  if (!isHead(first)) return { path, head: null, blocks: [] };
  const end = lines.findIndex((line) => !isBlock(line));
  return { path, head: first, blocks: (end < 0 ? lines : lines.slice(0, end)) as JournalBlock[] };
}

function isHead(line: unknown): line is JournalHead {
  const { key, descrs } = (line ?? {}) as Partial<JournalHead>;
  return typeof key === "string" && Array.isArray(descrs) && descrs.every((descr) => descr === "<f4" || descr === "<f8");
}

function isBlock(line: unknown): line is JournalBlock {
  const { count, sha256: digests, adapter, milliseconds } = (line ?? {}) as Partial<JournalBlock>;
  const isCount = Number.isSafeInteger(count) && count! > 0;
  return isCount && Array.isArray(digests) && typeof adapter === "string" && Number.isSafeInteger(milliseconds) && milliseconds! >= 0;
}

/** All files of a shard that are half done. */
async function partsOf(stem: string): Promise<string[]> {
  const files = await readdir(dirname(stem));
  return files.filter((file) => file.startsWith(`${basename(stem)}.`) && file.endsWith(".part")).map((file) => join(dirname(stem), file));
}

function tokenOf(path: string): string | undefined {
  return /\.([0-9a-f]{12})(?:\.new)?\.part$/.exec(path)?.[1];
}

async function journalsOf(stem: string): Promise<Journal[]> {
  const isJournal = /\.json\.[0-9a-f]{12}\.part$/;
  return Promise.all((await partsOf(stem)).filter((path) => isJournal.test(path)).map(readJournal));
}

/**
 * Removes what runs of one key have left half done, where that can be: the shard is there. Others may be at work, on other points or by
 * other options.
 */
async function removeParts(stem: string, key: string): Promise<void> {
  try {
    const own = (await journalsOf(stem)).filter(({ head }) => head?.key === key);
    await removeTokens(stem, new Set(own.map(({ path }) => tokenOf(path)!)));
  } catch (error) {
    if (typeof (error as NodeJS.ErrnoException).code !== "string") throw error;
  }
}

async function removeTokens(stem: string, tokens: ReadonlySet<string>): Promise<void> {
  const gone = (await partsOf(stem)).filter((path) => tokens.has(tokenOf(path) ?? ""));
  // Without its journal nothing is gone on from: it goes first.
  const isArray = (path: string): number => Number(path.includes(".npy."));
  for (const path of gone.toSorted((a, b) => isArray(a) - isArray(b))) await rm(path, { force: true });
}

/** What the system says is told of the shard's files; the rest is as it is. */
function refusal(stem: string, error: unknown): unknown {
  if (!(error instanceof Error) || typeof (error as NodeJS.ErrnoException).code !== "string") return error;
  return new InputError(`${stem}: ${describeSystemError(error)}; expected files that can be written`, { cause: error });
}
