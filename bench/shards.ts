/**
 * One result by many processes: 8 shards by 3 workers, of which some are killed at random, beside one process that is left alone.
 * Says whether the merged file has the same bits, what memory a process took, and how fast 3 side by side are.
 *
 *     npm run bench:shards -- [points] [kills] [options of deldot eval, such as --adapter cpu]
 */
import { spawn, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { npyHeader } from "../src/node/files/npy.js";

const [points = "1e6", kills = "5", ...engine] = process.argv.slice(2);
const count = Number(points);
const shards = 8;
const workers = 3;
const model = resolve("demo/models/two-moons-flow.safetensors");
const folder = await mkdtemp(join(tmpdir(), "deldot-bench-shards-"));
const file = join(folder, "points.npy");
const log = await open(join(folder, "log"), "a");

/** Numbers in [-3, 3), in pieces: the file may be larger than memory. */
async function writePoints(): Promise<void> {
  const handle = await open(file, "w");
  await handle.appendFile(npyHeader("<f4", [count, 2]));
  let state = 1;
  for (let at = 0; at < 2 * count; at += 2 ** 20) {
    const piece = new Float32Array(Math.min(2 ** 20, 2 * count - at));
    for (let index = 0; index < piece.length; index++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      piece[index] = (state / 2 ** 32) * 6 - 3;
    }
    await handle.appendFile(new Uint8Array(piece.buffer));
  }
  await handle.close();
}

/** Bytes of memory that a process took at most, of all that were run. */
let peak = 0;
async function watch(child: ChildProcess): Promise<void> {
  while (child.exitCode === null && child.signalCode === null) {
    const status = await readFile(`/proc/${child.pid}/status`, "utf8").catch(() => "");
    peak = Math.max(peak, Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024);
    await new Promise((done) => setTimeout(done, 200));
  }
}

function start(out: string, shard: string, ...more: string[]): { child: ChildProcess; ended: Promise<number | null> } {
  const parameters = [
    "eval",
    model,
    "--points",
    file,
    "--context",
    "0.5",
    ...engine,
    ...more,
    "--shard",
    shard,
    "--out",
    join(folder, out),
  ];
  // With stderr in a file it is the process that computes.
  const child = spawn(process.execPath, [resolve("dist/cli.js"), ...parameters], { stdio: ["ignore", "ignore", log.fd] });
  void watch(child);
  return { child, ended: new Promise((done) => child.on("close", done)) };
}

async function finish(out: string, shard: string, ...more: string[]): Promise<void> {
  const status = await start(out, shard, ...more).ended;
  if (status !== 0) throw new Error(`shard ${shard} of ${out} ended with ${status}`);
}

async function merge(out: string): Promise<void> {
  const child = spawn(process.execPath, [resolve("dist/cli.js"), "merge", join(folder, out)], { stdio: ["ignore", "ignore", "inherit"] });
  void watch(child);
  const status = await new Promise((done) => child.on("close", done));
  if (status !== 0) throw new Error(`merge of ${out} ended with ${String(status)}`);
}

async function hashOf(name: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(join(folder, name))) hash.update(piece as Buffer);
  return hash.digest("hex");
}

/** Milliseconds that work takes. */
async function timed(work: () => Promise<void>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

/** All shards by as many workers, `left` of whose processes are killed at a random time. */
async function byWorkers(out: string, left: number, atMost: number): Promise<number> {
  const queue = Array.from({ length: shards }, (_, index) => index);
  let killed = 0;
  const work = async (): Promise<void> => {
    for (let shard = queue.shift(); shard !== undefined; shard = queue.shift()) {
      const { child, ended } = start(out, `${shard}/${shards}`, "--threads", "1");
      const timer = left > 0 ? setTimeout(() => left-- > 0 && child.kill("SIGKILL"), 500 + Math.random() * atMost) : undefined;
      const status = await ended;
      clearTimeout(timer);
      if (status === null) {
        killed++;
        queue.push(shard);
      } else if (status !== 0) throw new Error(`shard ${shard} ended with ${status}`);
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
  return killed;
}

try {
  await writePoints();
  const alone = await timed(() => finish("alone.npy", "0/1"));
  console.log(`one process, ${availableParallelism()} processors: ${count} points in ${(alone / 1000).toFixed(1)} s`);
  await merge("alone.npy");

  const side = await timed(() => Promise.all([0, 1, 2].map((index) => finish("side.npy", `${index}/3`, "--threads", "1"))).then(() => {}));
  console.log(`3 processes side by side, a thread each: ${(side / 1000).toFixed(1)} s, ${(alone / side).toFixed(2)} of its throughput`);

  let killed = 0;
  const time = await timed(async () => {
    killed = await byWorkers("many.npy", Number(kills), (side * 1.5) / shards);
  });
  console.log(`${shards} shards by ${workers} workers, ${killed} killed: ${(time / 1000).toFixed(1)} s`);
  const merging = await timed(() => merge("many.npy"));
  console.log(`merged in ${(merging / 1000).toFixed(1)} s`);
  for (const array of ["", ".value"]) {
    const same = (await hashOf(`alone${array}.npy`)) === (await hashOf(`many${array}.npy`));
    console.log(`NAME${array}.npy ${same ? "has the bits of" : "DIFFERS from"} the one of one process`);
    if (!same) process.exitCode = 1;
  }
  console.log(`memory of a process: ${(peak / 2 ** 20).toFixed(0)} MiB at most`);
} finally {
  await log.close();
  await rm(folder, { recursive: true });
}
