/** What ends, starts and crosses while a shard is computed, with a device that is none. */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { DeldotError, InputError } from "../../src/index.js";
import { readNpy, writeNpy } from "../../src/node/files/npy.js";
import { NpyRows } from "../../src/node/files/npyRows.js";
import { listShards } from "../../src/node/shards/list.js";
import { writeManifest, type Common } from "../../src/node/shards/manifest.js";
import { mergeShards } from "../../src/node/shards/merge.js";
import { runShard, type Block, type ShardOutcome } from "../../src/node/shards/run.js";

const [rows, width, blockRows] = [100, 3, 16];
const points = Float32Array.from({ length: rows * width }, (_, index) => index % 97);

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "deldot-shard-runs-"));
  await writeFile(join(folder, "points.npy"), writeNpy({ data: points, shape: [rows, width] }));
});
afterEach(() => rm(folder, { recursive: true }));

interface RunOptions {
  readonly out?: string;
  readonly points?: string;
  readonly settings?: Readonly<Record<string, unknown>>;
  readonly shards?: number;
  readonly device?: string;
  readonly precision?: 32 | 64;
  /** Before block `index` of the run, from 0 on. */
  readonly before?: (index: number, abort: (reason: Error) => void) => Promise<void> | void;
}

/** A sum and a copy of each point, and the sum of a block. */
async function run({
  out = "r.safetensors",
  points: from = "points.npy",
  settings = {},
  shards = 1,
  device = "a device",
  precision = 32,
  before = () => {},
}: RunOptions = {}): Promise<ShardOutcome> {
  const common: Common = {
    version: "1",
    command: "test",
    settings,
    rows,
    blockRows,
    shards,
    arrays: [
      { name: "", per: "point", width: 1 },
      { name: "copy", per: "point", width },
      { name: "sum", per: "block", width: 1 },
    ],
    merged: {
      format: "safetensors",
      metadata: {},
      tensors: [
        { name: "sums", shape: [rows], array: "", offset: 0 },
        { name: "copy", shape: [rows, width], array: "copy", offset: 0 },
        { name: "total", shape: [1], array: "sum", offset: 0 },
      ],
    },
  };
  const file = await NpyRows.open(join(folder, from));
  const controller = new AbortController();
  let index = 0;
  try {
    return await runShard({
      out: join(folder, out),
      shard: { index: 0, count: shards },
      common,
      inputs: [{ name: "points", rows: file, width }],
      open: async () => ({ description: device, dispose: async () => {} }),
      compute: async (_device, { inputs }: Block, signal) => {
        await before(index++, (reason) => {
          controller.abort(reason);
        });
        signal.throwIfAborted();
        const given = inputs["points"]!;
        const numbers = (list: readonly number[]): Float32Array | Float64Array =>
          precision === 32 ? Float32Array.from(list) : Float64Array.from(list);
        const sumOf = (list: readonly number[]): number => list.reduce((sum, x) => sum + x, 0);
        const sums = Array.from({ length: given.length / width }, (_, row) => sumOf([...given.subarray(row * width, (row + 1) * width)]));
        return { "": numbers(sums), copy: numbers([...given]), sum: numbers([sumOf(sums)]) };
      },
      onProgress: () => {},
      signal: controller.signal,
    });
  } finally {
    await file.close();
  }
}

/** Ends before block `index`, as SIGTERM does. */
async function cutAt(index: number, options: RunOptions = {}): Promise<void> {
  const stop = new Error("stop");
  const before: RunOptions["before"] = (at, abort) => {
    if (at === index) abort(stop);
  };
  await expect(run({ ...options, before })).rejects.toBe(stop);
}

async function expectRight(): Promise<void> {
  const copy = readNpy(await readFile(join(folder, "r.safetensors.shard-0-of-1.copy.npy"))).data;
  expect([...copy]).toEqual([...points]);
  const { shards } = await listShards(join(folder, "r.safetensors"));
  expect(shards).toMatchObject([{ state: "whole", rows }]);
}
const left = async (): Promise<string[]> => (await readdir(folder)).filter((file) => file.endsWith(".part"));

test("goes on where it was, and says who computed what", async () => {
  await cutAt(3, { device: "one" });
  expect((await listShards(join(folder, "r.safetensors"))).shards).toMatchObject([{ state: "begun", rows: 3 * blockRows }]);
  const { resumed, skipped, manifest } = await run({ device: "another" });
  expect({ resumed, skipped }).toEqual({ resumed: 3 * blockRows, skipped: false });
  expect(manifest.adapters).toEqual(["one", "another"]);
  await expectRight();
  expect(await left()).toEqual([]);
  expect(await run()).toMatchObject({ skipped: true });
});

test("goes on after its last block, and after the names of some files were given", async () => {
  await cutAt(6);
  for (const file of await left())
    if (/of-1\.npy\./.test(file)) await rename(join(folder, file), join(folder, file.replace(/\.\w{12}\.part$/, "")));
  expect(await run()).toMatchObject({ resumed: 6 * blockRows });
  await expectRight();
  expect(await left()).toEqual([]);
});

test("goes on from the next best where a journal's arrays are gone", async () => {
  await cutAt(2);
  const [token] = /\w{12}(?=\.part$)/.exec((await left())[0]!)!;
  const journal = `r.safetensors.shard-0-of-1.json.${token}.part`;
  await writeFile(
    join(folder, journal.replace(token, "0123456789ab")),
    `${await readFile(join(folder, journal), "utf8")}${JSON.stringify({ count: 16, sha256: ["", "", ""], adapter: "", milliseconds: 0 })}\n`,
  );
  expect(await run()).toMatchObject({ resumed: 2 * blockRows });
  await expectRight();
  expect(await left()).toEqual([]);
});

test("many at once, on what one has left, all end well", async () => {
  await cutAt(3);
  let begun = 0;
  let start = (): void => undefined;
  const started = new Promise<void>((resolve) => (start = resolve));
  const wait = async (index: number): Promise<void> => {
    // None goes on before all have found what was left.
    if (index === 0 && ++begun === 6) start();
    await started;
    await new Promise((done) => setTimeout(done, 5 * Math.random()));
  };
  const outcomes = await Promise.all(Array.from({ length: 6 }, () => run({ before: wait })));
  expect(outcomes.some(({ skipped }) => !skipped)).toBe(true);
  for (const { resumed, skipped } of outcomes) if (!skipped) expect(resumed).toBe(3 * blockRows);
  await expectRight();
  expect(await left()).toEqual([]);
});

test("begins anew where an earlier run left numbers of another type", async () => {
  await cutAt(4, { precision: 64 });
  await run();
  await expectRight();
  const { data } = readNpy(await readFile(join(folder, "r.safetensors.shard-0-of-1.npy")));
  expect(data).toBeInstanceOf(Float32Array);
});

test("leaves what others have half done, by other options or on other points", async () => {
  await cutAt(5, { settings: { method: "old" } });
  const others = await left();
  await run({ settings: { method: "new" } });
  expect(await left()).toEqual(others);
  await run({ settings: { method: "new" } });
  expect(await left()).toEqual(others);
  expect(await run({ settings: { method: "old" } })).toMatchObject({ resumed: 5 * blockRows });
});

test("an input that changes while it is read is no fault of the input's: another try may go well", async () => {
  const change = async (index: number): Promise<void> => {
    if (index !== 1) return;
    const handle = await open(join(folder, "points.npy"), "r+");
    await handle.write(Float32Array.of(7.5), 0, 4, 128 + 2 * blockRows * width * 4);
    await handle.close();
  };
  const failure = await run({ before: change }).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(DeldotError);
  expect(failure).not.toBeInstanceOf(InputError);
  expect((failure as Error).message).toContain("its rows from 32 changed while it was read");
  // What was computed from the rows as they were is not gone on from.
  expect(await run()).toMatchObject({ resumed: 0, skipped: false });
});

test("whose files are removed says so", async () => {
  const remove = async (index: number): Promise<void> => {
    if (index === 3) for (const file of await left()) await rm(join(folder, file));
  };
  await expect(run({ before: remove })).rejects.toThrow("its files were removed while they were written");
  expect(await left()).toEqual([]);
});

test("journals and manifests are not trusted, whatever their checksums", async () => {
  const stem = join(folder, "r.safetensors.shard-0-of-1");
  const junk = ['{"key":"a"}\nnull\n', "5\n7\n", "", "{\n", `{"key":"a","descrs":["<f4","<f4","<f4"]}\n{"count":1e400}\n{"count":-5}\n`];
  for (const [index, text] of junk.entries()) await writeFile(`${stem}.json.${String(index).padStart(12, "a")}.part`, text);
  await mkdir(`${stem}.json.bbbbbbbbbbbb.part`);
  await writeFile(join(folder, "r.safetensors.shard-00000000000-of-99999999999.json"), "");
  expect((await listShards(join(folder, "r.safetensors"))).shards).toMatchObject([{ state: "begun", rows: 0 }]);
  const { manifest } = await run();
  await expectRight();

  const [first, ...others] = manifest.inputs;
  const changes: Record<string, unknown>[] = [
    ...Object.keys(manifest).map((key) => ({ [key]: undefined })),
    { adapters: null },
    { arrays: [null] },
    { inputs: [null] },
    { merged: { format: "safetensors", metadata: {}, tensors: [null] } },
    { files: [] },
    { files: manifest.files.map((file) => ({ ...file, name: "../../x" })) },
    { files: manifest.files.map((file) => ({ ...file, descr: "<f8x" })) },
    { arrays: manifest.arrays.map((array) => ({ ...array, name: "../x" })) },
    { arrays: manifest.arrays.map((array) => ({ ...array, width: 0 })) },
    { inputs: [{ ...first, path: 5 }, ...others] },
    { inputs: [{ ...first, name: "__proto__" }, ...others] },
    { inputs: [{ ...first, width: 1e12 }, ...others] },
    { blockRows: 0 },
    { blockRows: -1 },
    { merged: { format: "zip" } },
    { merged: { format: "npy", shapes: { "": [1e9, 1e9] } } },
    { merged: { format: "safetensors", metadata: {}, tensors: [{ name: "copy", shape: [7], array: "copy", offset: 0 }] } },
    { merged: { format: "safetensors", metadata: {}, tensors: [{ name: "total", shape: [9], array: "sum", offset: 0 }] } },
  ];
  const text = "{oops";
  await writeFile(`${stem}.json`, `${text},\n  "sha256": "${createHash("sha256").update(text).digest("hex")}"\n}\n`);
  expect((await listShards(join(folder, "r.safetensors"))).shards).toMatchObject([{ state: "broken" }]);
  for (const change of changes) {
    const label = JSON.stringify(change, (_, value: unknown) => value ?? null);
    await writeFile(`${stem}.json`, writeManifest({ ...manifest, ...change }));
    const { shards } = await listShards(join(folder, "r.safetensors"));
    expect(shards, label).toMatchObject([{ state: "broken", fault: expect.stringContaining("it is not as a shard left it") }]);
    const merging = mergeShards(join(folder, "r.safetensors"), { inputs: {}, signal: new AbortController().signal, onProgress: () => {} });
    await expect(merging, label).rejects.toThrow(InputError);
    expect(await readdir(folder)).not.toContain("r.safetensors");
  }
  // A run makes it anew.
  expect(await run()).toMatchObject({ skipped: false });
  await expectRight();
});

test("a folder in the place of the manifest is refused before anything is computed", async () => {
  await mkdir(join(folder, "r.safetensors.shard-0-of-1.json"));
  let blocks = 0;
  await expect(run({ before: () => void blocks++ })).rejects.toThrow("it is not an ordinary file");
  expect(blocks).toBe(0);
});

test("inputs are found from the folder that the result lies in, by a link too", async () => {
  await mkdir(join(folder, "far/results"), { recursive: true });
  await rename(join(folder, "points.npy"), join(folder, "far/points.npy"));
  await symlink(join(folder, "far/results"), join(folder, "link"));
  await run({ out: "link/r.safetensors", points: "far/points.npy" });
  const options = { inputs: {}, signal: new AbortController().signal, onProgress: () => {} };
  for (const way of ["link", "far/results"]) await mergeShards(join(folder, way, "r.safetensors"), options);
});

test("what is begun of another number of shards does not stand in the way of those that are whole", async () => {
  await cutAt(1, { shards: 3 });
  await run();
  const options = { inputs: {}, signal: new AbortController().signal, onProgress: () => {} };
  await mergeShards(join(folder, "r.safetensors"), options);
  const total = (await readFile(join(folder, "r.safetensors"))).subarray(-4).readFloatLE();
  expect(total).toBe(points.reduce((sum, x) => sum + x, 0));
});
