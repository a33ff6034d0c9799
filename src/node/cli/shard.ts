/** --shard of eval, logprob and gradient: the same work on a part of the rows, whose results wait beside --out to be merged. */
import { extname } from "node:path";
import { Option, type Command } from "commander";
import { InputError, quote } from "../../errors.js";
import type { Network } from "../../index.js";
import { mixBits, unmixBits } from "../../mixBits.js";
import { NpyRows } from "../files/npyRows.js";
import { refuseInputs } from "../files/output.js";
import { checkContextShape, pointAxes } from "../files/points.js";
import { digestOf } from "../shards/digest.js";
import { arrayPath, mergedPaths, stemOf, type ArrayLayout, type Merged } from "../shards/manifest.js";
import { blockRowsOf, rangeOf, readShard, type Shard } from "../shards/range.js";
import { runShard, type Block, type RowInput } from "../shards/run.js";
import { readRow } from "./options.js";
import { print } from "./output.js";
import { interruptSignal, withProgress } from "./progress.js";
import { version } from "./version.js";

type Numbers = Float32Array | Float64Array;

export interface ShardOptions {
  readonly shard?: string | true;
}

export const shardHelp = `
Shards, for work that outgrows one machine or one night; points, and what has a row for each of them, in .npy files:
  --shard i/n   computes shard i of n, from 0 on, and leaves it beside --out; n alone takes i from the environment of an array
                job (Slurm, Kubernetes, AWS Batch, Google Cloud Batch, PBS), and --shard alone n too where it tells it. Rows are
                read as they are needed. A shard that is there is left; one that was cut off goes on where it was.
  exit status   0 it is there; 42 what no retry mends: input, model, limits, options; others, 143 after SIGTERM among them,
                what a retry may
  "deldot shards" lists them, "deldot merge" makes one result of all.`;

export function addShardOption(command: Command): Command {
  return command.addOption(new Option("--shard [i/n]", "compute shard i of n alone, and leave it beside --out for deldot merge"));
}

/** Which shard, and where the result of all of them goes. */
interface ShardPlace {
  readonly out: string;
  readonly shard: Shard;
}

/** Checked before a file is opened. @throws InputError. */
export function readPlace(shard: string | true, out: string | undefined, format: Merged["format"]): ShardPlace {
  const extension = `.${format}`;
  if (out === undefined) throw new InputError("--shard leaves its results beside --out; expected --out");
  if (extname(out) !== extension)
    throw new InputError(`--out ${out}: its extension is ${quote(extname(out))}; expected ${extension}, which shards can be merged to`);
  return { out, shard: readShard(shard) };
}

/** Rows of a file, or one row for all points. */
export type Rows = { readonly file: NpyRows } | { readonly shared: Numbers | undefined };

/** Opens the points. @throws InputError where they are not the model's. */
export async function openPoints(
  path: string,
  network: Network,
): Promise<{ rows: NpyRows; shape: readonly number[]; batch: readonly number[]; count: number }> {
  const rows = await NpyRows.open(path);
  const { shape, batch } = pointAxes(rows.header.shape, rows.header.count, network, path);
  return { rows, shape, batch, count: rows.header.count / network.stateSize };
}

/** What the option --NAME gives, a context or a condition of `size` numbers. @throws InputError. */
export async function openRows(text: string | undefined, name: "context" | "condition", size: number, count: number): Promise<Rows> {
  const row = readRow(text, name, size);
  if (typeof row !== "string") return { shared: row };
  const file = await NpyRows.open(row);
  checkContextShape(file.header.shape, file.header.count, size, count, row, name);
  if (file.header.count !== size) return { file };
  const shared = file.decode(await file.bytes(0, 1, size), 0, size);
  await file.close();
  return { shared };
}

/** A command's work on one shard. */
interface ShardTask<Device> {
  readonly name: string;
  readonly command: string;
  readonly network: Network;
  readonly place: ShardPlace;
  readonly json: boolean | undefined;
  /** Files that are read, and never written over: the model among them. */
  readonly reads: readonly (string | undefined)[];
  readonly count: number;
  /** What decides numbers beside the model and the rows, in the words of the command line. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly inputs: Readonly<Record<string, { readonly rows: Rows; readonly width: number }>>;
  readonly arrays: readonly ArrayLayout[];
  readonly merged: Merged;
  readonly open: () => Promise<Device>;
  /** @param rowsOf an input's rows of the block, or the row for all. */
  readonly compute: (
    device: Device,
    block: { readonly from: number; readonly count: number; readonly rowsOf: (name: string) => Numbers | undefined },
    signal: AbortSignal,
  ) => Promise<Readonly<Record<string, Numbers>>>;
}

/** Computes the shard, or finds it, and tells of it. */
export async function runShardTask<Device extends { readonly description: string; dispose(): Promise<void> }>(
  task: ShardTask<Device>,
): Promise<void> {
  const { network, count, arrays, merged, settings } = task;
  const { out, shard } = task.place;
  const inputs: RowInput[] = [];
  const shared = new Map<string, Numbers | undefined>();
  for (const [name, { rows, width }] of Object.entries(task.inputs))
    if ("file" in rows) inputs.push({ name, rows: rows.file, width });
    else shared.set(name, rows.shared);
  const perRow = arrays.filter(({ per }) => per === "point").reduce((sum, { width }) => sum + width, 0);
  const perBlock = arrays.filter(({ per }) => per === "block").reduce((sum, { width }) => sum + width, 0);
  const blockRows = blockRowsOf(
    inputs.reduce((sum, { width }) => sum + width, perRow),
    perBlock,
  );
  const { notes: _, ...described } = network;
  const common = {
    version,
    command: task.command,
    settings: {
      model: digestOf(described),
      ...settings,
      ...Object.fromEntries([...shared].map(([name, numbers]) => [name, numbers === undefined ? "none" : [...numbers].join(",")])),
    },
    rows: count,
    blockRows,
    shards: shard.count,
    arrays,
    merged,
  };
  const signal = interruptSignal();
  try {
    const stem = stemOf(out, shard);
    const written = [...mergedPaths(out, common), ...arrays.map(({ name }) => arrayPath(stem, name))];
    await refuseInputs(
      written,
      task.reads.filter((path) => path !== undefined),
    );
    const { manifest, paths, skipped, resumed } = await withProgress(task.name, (onProgress) =>
      runShard<Device>({
        out,
        shard,
        common,
        inputs,
        open: task.open,
        compute: (device, { from, count: rows, inputs: own }: Block, stop) =>
          task.compute(device, { from, count: rows, rowsOf: (name) => own[name] ?? shared.get(name) }, stop),
        onProgress,
        signal,
      }),
    );
    const { from, to } = rangeOf(shard, count, blockRows);
    const { adapters, milliseconds } = manifest;
    const told = {
      shard: shard.index,
      shards: shard.count,
      from,
      to,
      total: count,
      state: skipped ? "skipped" : "written",
      resumed,
      adapters,
      milliseconds,
    };
    await print(
      task.json
        ? [`${JSON.stringify({ ...told, files: paths }, null, 2)}\n`]
        : [
            `shard ${shard.index} of ${shard.count}: rows ${from} to ${to} of ${count}, ${skipped ? "there already, " : ""}`,
            `${resumed > 0 ? `${resumed} of them from an earlier run, ` : ""}${milliseconds} ms on ${adapters.join(" and ") || "nothing"}\n`,
            ...(skipped ? [] : paths.map((path) => `wrote ${path}\n`)),
          ],
    );
  } finally {
    for (const { rows } of inputs) await rows.close();
  }
}

/**
 * The seed by which the rows of a block have the probes that they have among all points: a point's are a function of
 * mixBits(seed) + its index.
 */
export function seedOfRows(seed: number | undefined, from: number): number {
  return unmixBits(mixBits(seed ?? 0) + from);
}
