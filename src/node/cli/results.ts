/** What eval, logprob and sample write and show: one number or more for each point. */
import { extname } from "node:path";
import { InputError, quote } from "../../errors.js";
import { commit, discard, openOutputs } from "../files/output.js";
import type { Column } from "../files/table.js";
import { formatTable, print, round } from "./output.js";
import { interruptSignal, withProgress, type Progress } from "./progress.js";

/** The contents of the files that a run can be written to. */
export interface ResultFormats<Run> {
  readonly json: (run: Run) => Iterable<string>;
  readonly csv: (run: Run) => Iterable<string>;
  /** By what stands between the name that was given and its extension: a file holds one array. */
  readonly npy: Readonly<Record<string, (run: Run) => Iterable<Uint8Array>>>;
}

interface ResultFiles<Run> {
  readonly paths: readonly string[];
  readonly commit: (run: Run, signal: AbortSignal) => Promise<void>;
  readonly discard: () => Promise<void>;
}

/** A command that computes something for each point, and where that goes. */
interface Task<Device, Computed, Run> {
  /** On the progress bar. */
  readonly name: string;
  readonly out: string | undefined;
  readonly json: boolean | undefined;
  readonly formats: ResultFormats<Run>;
  /** Files that are read, and never written over. */
  readonly inputs: readonly string[];
  readonly open: () => Promise<Device>;
  readonly compute: (device: Device, run: { readonly onProgress: Progress["update"]; readonly signal: AbortSignal }) => Promise<Computed>;
  readonly runOf: (computed: Computed, device: Device, milliseconds: number) => Run;
  /** For people. */
  readonly describe: (run: Run, written: readonly string[]) => Iterable<string>;
}

/** Opens the files, then a device; computes, writes and prints. What fails, or is interrupted, leaves no file behind. */
export async function runTask<Device extends { dispose(): Promise<void> }, Computed, Run>(
  task: Task<Device, Computed, Run>,
): Promise<Computed> {
  const signal = interruptSignal();
  const files = await openResults(task.out, task.formats, task.inputs);
  try {
    const device = await task.open();
    try {
      const start = performance.now();
      const computed = await withProgress(task.name, (onProgress) => task.compute(device, { onProgress, signal }));
      const run = task.runOf(computed, device, performance.now() - start);
      await files.commit(run, signal);
      await print(task.json ? task.formats.json(run) : task.describe(run, files.paths));
      return computed;
    } finally {
      await device.dispose();
    }
  } finally {
    await files.discard();
  }
}

/** Opens, before the work, the files that --out asks for by its extension: none where there is no path. */
async function openResults<Run>(
  path: string | undefined,
  formats: ResultFormats<Run>,
  inputs: readonly string[],
): Promise<ResultFiles<Run>> {
  const contents = path === undefined ? new Map<string, (run: Run) => Iterable<string | Uint8Array>>() : contentsOf(path, formats);
  const files = await openOutputs([...contents.keys()], inputs);
  return {
    paths: files.map((file) => file.path),
    commit: (run, signal) =>
      commit(
        files.map((file) => ({ file, content: contents.get(file.path)!(run) })),
        signal,
      ),
    discard: () => discard(files),
  };
}

function contentsOf<Run>(path: string, { json, csv, npy }: ResultFormats<Run>): Map<string, (run: Run) => Iterable<string | Uint8Array>> {
  const extension = extname(path);
  switch (extension.toLowerCase()) {
    case ".json":
      return new Map([[path, json]]);
    case ".csv":
      return new Map([[path, csv]]);
    case ".npy": {
      const stem = path.slice(0, -extension.length);
      return new Map(Object.entries(npy).map(([infix, content]) => [infix === "" ? path : `${stem}${infix}.npy`, content]));
    }
    default:
      throw new InputError(`--out ${path}: its extension is ${quote(extension)}; expected .npy, .csv or .json`);
  }
}

/** A point's row is shown up to this many points and this many columns; --out and --json have them all. */
const mostRows = 10;
const mostColumns = 12;

/** The first points, and of many columns the main ones. */
export function* describeRows(columns: readonly Column[], count: number, main: readonly string[]): Generator<string, void, undefined> {
  const shown = columns.length <= mostColumns ? columns : columns.filter(({ name }) => main.includes(name));
  const rows = Array.from({ length: Math.min(count, mostRows) }, (_, row) =>
    shown.map(({ data, offset, stride }) => round(data[offset + row * stride]!)),
  );
  yield `\n${formatTable([shown.map(({ name }) => name), ...rows])}`;
  if (count > mostRows) yield `... ${count - mostRows} more\n`;
}

/** The columns of [count, width]: letter0, letter1 and so on. */
export function columnsOf(letter: string, data: Float32Array | Float64Array, width: number): Column[] {
  return Array.from({ length: width }, (_, offset) => ({ name: `${letter}${offset}`, data, offset, stride: width }));
}
