/** The shards of examples/bullmq by workers that are killed, on a Redis or Valkey of the test's own. */
import { execFile, spawn, type ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { writeNpy } from "../../src/node/files/npy.js";
import { runDeldot } from "../node/command.js";
import { childrenOf, gone } from "../processes.js";
import { leaveOut } from "../leaveOut.js";
import { random } from "../random.js";
import { missing, startServer } from "./redisServer.js";

const example = resolve("examples/bullmq");
const run = promisify(execFile);

if (missing !== null) leaveOut(missing);

describe.skipIf(missing !== null)("examples/bullmq", () => {
  let folder: string;
  let server: Awaited<ReturnType<typeof startServer>>;
  let environment: NodeJS.ProcessEnv;
  beforeAll(async () => {
    if (!existsSync(join(example, "node_modules/bullmq"))) await run("npm", ["ci", "--no-audit", "--no-fund"], { cwd: example });
    folder = await mkdtemp(join(tmpdir(), "deldot-bullmq-"));
    server = await startServer(folder);
  });
  let database = 0;
  beforeEach(() => {
    starts = 0;
    environment = { ...process.env, REDIS_URL: `${server.url}/${database++}`, PATIENCE_MS: "10000" };
  });
  afterAll(async () => {
    await server.stop();
    await rm(folder, { recursive: true });
  });

  const workers = new Set<Worker>();
  /** Jobs that workers have begun, those that were begun again among them. */
  let starts = 0;
  class Worker {
    readonly process: ChildProcessByStdio<null, Readable, Readable>;
    readonly ended: Promise<unknown>;
    /** What it has written. */
    log = "";

    /** @param script the command, where it is not deldot's own. */
    constructor(script?: string) {
      this.process = spawn(process.execPath, [join(example, "worker.js")], {
        cwd: folder,
        env: { ...environment, ...(script && { DELDOT: script }) },
        stdio: ["ignore", "pipe", "pipe"],
      });
      this.ended = once(this.process, "close");
      for (const stream of [this.process.stdout, this.process.stderr]) stream.on("data", (text) => (this.log += text));
      this.process.stdout.on("data", (text) => (starts += String(text).split(": started\n").length - 1));
    }

    /** Resolves when it has begun as many jobs. */
    async begun(count: number): Promise<void> {
      while (this.jobs.length < count) await once(this.process.stdout, "data");
    }

    get jobs(): string[] {
      return this.log.match(/^.*(?=: started$)/gm) ?? [];
    }

    async end(signal: NodeJS.Signals): Promise<void> {
      this.process.kill(signal);
      await this.ended;
      workers.delete(this);
    }
  }
  function startWorker(script?: string): Worker {
    const worker = new Worker(script);
    workers.add(worker);
    return worker;
  }
  afterEach(async () => {
    await Promise.all([...workers].map((worker) => worker.end("SIGTERM")));
  });

  /** Adds shards and waits for their merge. */
  async function add(...parameters: string[]): Promise<{ status: number | null; stdout: string; stderr: string }> {
    const child = spawn(process.execPath, [join(example, "add.js"), ...parameters], { cwd: folder, env: environment });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (text) => (stdout += text));
    child.stderr.on("data", (text) => (stderr += text));
    const [status] = (await once(child, "close")) as [number | null];
    return { status, stdout, stderr };
  }

  /** A command in place of deldot. */
  async function script(name: string, text: string): Promise<string> {
    const path = join(folder, name);
    await writeFile(path, text);
    return path;
  }

  test("three workers, some of which are killed, make the bits of one run", async () => {
    const shards = 4;
    // How soon another has the job of one that was killed.
    environment["PATIENCE_MS"] = "2000";
    // Two blocks of rows for each shard.
    const [stateSize, rows] = [64, shards * 2 * 4096];
    const next = random(Number(process.env["DELDOT_SEED"] ?? 1));
    const data = Float32Array.from({ length: rows * stateSize }, () => next() * 4 - 2);
    await writeFile(join(folder, "points.npy"), writeNpy({ data, shape: [rows, stateSize] }));
    const how = ["eval", resolve("demo/models/digits-flow.safetensors"), "--points", "points.npy", "--context", "0.5"];
    const command = [...how, "--adapter", "software", "--kernels", "layers 4x4"];

    const added = add(String(shards), ...command, "--out", "result.npy");
    const kill = async (worker: Worker, milliseconds: number): Promise<void> => {
      // On a busy machine the others may have done all of it before.
      await Promise.race([worker.begun(1), added]);
      await sleep(milliseconds);
      const computing = await childrenOf(worker.process.pid!);
      await worker.end("SIGKILL");
      // What it had begun ends too, instead of computing for nobody.
      for (const pid of computing) await gone(pid);
      startWorker();
    };
    // The first is alone until it has begun, and is killed while its command still starts: that job is begun twice.
    const first = startWorker();
    await Promise.race([first.begun(1), added]);
    await Promise.all([kill(first, next() * 100), kill(startWorker(), next() * 2000), kill(startWorker(), next() * 2000)]);
    expect(await added).toMatchObject({ status: 0, stderr: "" });
    expect(starts).toBeGreaterThan(shards + 1);

    expect((await runDeldot(folder, [...command, "--out", "whole.npy"])).status).toBe(0);
    for (const array of ["", ".value"])
      expect((await readFile(join(folder, `result${array}.npy`))).equals(await readFile(join(folder, `whole${array}.npy`)))).toBe(true);
  });

  test("what no retry mends is tried once, and nothing is merged", async () => {
    const worker = startWorker();
    const { status, stderr } = await add("2", "eval", "nowhere.safetensors", "--points", "points.npy", "--out", "none.npy");
    expect(status).toBe(1);
    expect(stderr).toMatch(/^shard \d: deldot: nowhere\.safetensors: no such file or directory.* \(status 42\)$/m);
    await worker.begun(2);
    expect(worker.jobs.toSorted()).toEqual(["shard 0", "shard 1"]);
  });

  test("what a retry may mend is tried again", async () => {
    const worker = startWorker(
      await script(
        "flaky.mjs",
        `import { writeFileSync } from "node:fs";
        if (process.argv[2] !== "merge")
          try { writeFileSync(process.argv.at(-1).replace("/", "-of-"), "", { flag: "wx" }); process.exit(2); } catch {}`,
      ),
    );
    expect(await add("2", "eval", "--out", "flaky.npy")).toMatchObject({ status: 0, stderr: "" });
    expect(worker.jobs.toSorted()).toEqual(["merge", "shard 0", "shard 0", "shard 1", "shard 1"]);
    expect(worker.log).toMatch(/^shard 0: .*\(status 2\)$/m);
  });

  test("a worker that is told to stop tells its command, and gives the shard back", async () => {
    const patient = await script(
      "patient.mjs",
      `import { appendFileSync } from "node:fs";
      process.once("SIGTERM", () => { appendFileSync("stopped", "x"); process.exit(143); });
      appendFileSync("waits", "");
      setInterval(() => {}, 1000);`,
    );
    const worker = startWorker(patient);
    const added = add("1", "eval", "--out", "given.npy");
    while (!existsSync(join(folder, "waits"))) await sleep(50);
    await worker.end("SIGTERM");
    expect(await readFile(join(folder, "stopped"), "utf8")).toBe("x");
    expect(worker.log).toBe("shard 0: started\n");
    const other = startWorker(await script("quick.mjs", ""));
    expect(await added).toMatchObject({ status: 0, stdout: "shard 0: done\nmerge: done\n", stderr: "" });
    expect(other.jobs).toEqual(["shard 0", "merge"]);
  });
});
