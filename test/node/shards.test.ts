/** Results by shards: the bits of one run, whatever their number and whatever ends their processes. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, cp, mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, InputError, parametersOf, toSafetensors, vjpReference } from "../../src/index.js";
import { readTensors } from "../../src/tensorFile.js";
import { descrOf, npyHeader, readNpy, writeNpy } from "../../src/node/files/npy.js";
import { readManifest, writeManifest } from "../../src/node/shards/manifest.js";
import { blockRowsOf, rangeOf, readShard } from "../../src/node/shards/range.js";
import { divergenceScale, expectClose } from "../close.js";
import { randomMlp } from "../fields.js";
import { childrenOf, gone } from "../processes.js";
import { runDeldot, type CommandParameters, type Outcome } from "./command.js";

const lorenz = resolve("demo/models/lorenz.safetensors");
/** Of many numbers a row, so that a block has few rows, and of little work. */
const d = 64;
const { network } = randomMlp({ widths: [d, 4, d], activation: "tanh", contextSize: 1, seed: 5 });

const model = "model.safetensors";
let folder: string;
const deldot = (...parameters: CommandParameters): Promise<Outcome> => runDeldot(folder, ...parameters);
/** Runs the command where it must go well. */
async function run(...parameters: string[]): Promise<string> {
  const { status, stdout, stderr } = await deldot(parameters);
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return stdout;
}
const bytesOf = (name: string): Promise<Buffer> => readFile(join(folder, name));
async function expectSame(name: string, other: string): Promise<void> {
  const [one, two] = await Promise.all([bytesOf(name), bytesOf(other)]);
  expect(one.equals(two), `${name} and ${other}`).toBe(true);
}
const arrayOf = async (name: string): Promise<Float32Array | Float64Array> => readNpy(await bytesOf(name)).data;

/** Numbers in [-2, 2), which float32 holds. */
function numbersOf(count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, index) => ((Math.imul(index + 1, 2654435761) >>> 8) / 2 ** 24) * 4 - 2);
}

const blockRows = 2 ** 12;
/** Blocks enough to be cut off within. */
const rows = 50_000;
/** Two blocks. */
const few = 5000;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "deldot-shards-"));
  const numbers = numbersOf(rows * d);
  await writeFile(join(folder, model), toSafetensors(network));
  await writeFile(join(folder, "points.npy"), writeNpy({ data: numbers, shape: [rows, d] }));
  await writeFile(join(folder, "few.npy"), writeNpy({ data: numbers.slice(0, few * d), shape: [few / 10, 10, d] }));
  await writeFile(join(folder, "times.npy"), writeNpy({ data: numbersOf(few).map(Math.abs), shape: [few, 1] }));
  await writeFile(join(folder, "weights.npy"), writeNpy({ data: numbersOf(few), shape: [few] }));
  await writeFile(join(folder, "vectors.npy"), writeNpy({ data: numbers.slice(few * d, few * 2 * d), shape: [few, d] }));
});
afterAll(() => rm(folder, { recursive: true }));

describe("ranges", () => {
  test("cover all rows once, in whole blocks", () => {
    fc.assert(
      fc.property(
        fc.nat(2 ** 40),
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: 1, max: 1e5 }),
        fc.nat(1e6),
        (total, count, width, sums) => {
          const blockRows = blockRowsOf(width, sums);
          expect(Math.log2(blockRows) % 1).toBe(0);
          expect(blockRows).toBeGreaterThanOrEqual(1);
          expect(blockRows).toBeLessThanOrEqual(2 ** 16);
          let at = 0;
          for (let index = 0; index < count; index++) {
            const { from, to } = rangeOf({ index, count }, total, blockRows);
            expect(from).toBe(at);
            expect(to).toBeGreaterThanOrEqual(from);
            if (to < total) expect(to % blockRows).toBe(0);
            at = to;
          }
          expect(at).toBe(total);
        },
      ),
    );
  });

  const slurm = { SLURM_ARRAY_TASK_ID: "3", SLURM_ARRAY_TASK_COUNT: "8", SLURM_ARRAY_TASK_MIN: "0", SLURM_ARRAY_TASK_MAX: "7" };
  test.each<[string | true, Record<string, string>, number, number]>([
    ["2/5", {}, 2, 5],
    [true, slurm, 3, 8],
    ["16", slurm, 3, 16],
    ["9", { JOB_COMPLETION_INDEX: "0" }, 0, 9],
    [true, { AWS_BATCH_JOB_ARRAY_INDEX: "1", AWS_BATCH_JOB_ARRAY_SIZE: "2" }, 1, 2],
    [true, { BATCH_TASK_INDEX: "1", BATCH_TASK_COUNT: "2" }, 1, 2],
    [true, { CLOUD_RUN_TASK_INDEX: "0", CLOUD_RUN_TASK_COUNT: "1" }, 0, 1],
    ["4", { PBS_ARRAY_INDEX: "3" }, 3, 4],
  ])("--shard %s in %o is shard %i of %i", (text, environment, index, count) => {
    expect(readShard(text, environment)).toEqual({ index, count });
  });

  test.each<[string | true, Record<string, string>, RegExp]>([
    ["5/5", {}, /the shard is number 5; expected 0 to 4, of 5 shards/],
    ["1/0", {}, /there are 0 shards; expected 1 to 100000/],
    ["-1/5", {}, /--shard is "-1\/5"; expected i\/n/],
    ["1/2/3", {}, /expected i\/n/],
    [true, {}, /the environment has none of SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX/],
    [true, { JOB_COMPLETION_INDEX: "2" }, /nothing tells of how many; expected --shard n/],
    ["2", { JOB_COMPLETION_INDEX: "2" }, /the shard is number 2; expected 0 to 1/],
    ["2", { JOB_COMPLETION_INDEX: "first" }, /JOB_COMPLETION_INDEX is "first"; expected a whole number/],
    // sbatch --array=3,5 again, of an array that was 0-7.
    [
      true,
      { ...slurm, SLURM_ARRAY_TASK_COUNT: "2", SLURM_ARRAY_TASK_MIN: "3", SLURM_ARRAY_TASK_MAX: "5" },
      /which are not all of 0 to n - 1/,
    ],
  ])("--shard %s in %o is refused", (text, environment, message) => {
    expect(() => readShard(text, environment)).toThrow(InputError);
    expect(() => readShard(text, environment)).toThrow(message);
  });
});

describe("one result of all shards", () => {
  test("has the bits of one run, of eval by kernels that are fixed, with probes by the global row", async () => {
    const how = ["eval", model, "--points", "few.npy", "--context", "0.5", "--adapter", "software", "--kernels", "layers 4x4"];
    for (const [name, method] of [
      ["auto", []],
      ["hutchinson", ["--method", "hutchinson", "--seed", "7"]],
    ] as const) {
      await run(...how, ...method, "--out", `${name}-whole.npy`);
      for (const shard of ["1/2", "0/2"]) await run(...how, ...method, "--shard", shard, "--out", `${name}.npy`);
      await run("merge", `${name}.npy`);
      for (const array of ["", ".value"]) await expectSame(`${name}${array}.npy`, `${name}-whole${array}.npy`);
    }
    const { divergence, diagonal } = evaluateReference(network, numbersOf(100 * d), {
      context: [0.5],
      outputs: ["divergence", "diagonal"],
    });
    const scale = divergenceScale(diagonal!, d);
    expectClose((await arrayOf("auto.npy")).subarray(0, 100), divergence!, scale, { relative: 2e-5, label: "divergence" });
  });

  test("is the same whatever the number of shards, also where most have no rows, and in the shape of the points", async () => {
    const how = ["eval", model, "--points", "few.npy", "--context", "times.npy", "--adapter", "reference", "--diagonal"];
    await run(...how, "--out", "r-whole.npy");
    for (const count of [1, 5]) {
      for (let index = 0; index < count; index++) await run(...how, "--shard", `${index}/${count}`, "--out", `r${count}.npy`);
      expect(await run("merge", `r${count}.npy`)).toContain(`${few} points of ${count} shards, by float64 reference on the CPU\n`);
      for (const array of ["", ".value", ".diagonal"]) await expectSame(`r${count}${array}.npy`, `r-whole${array}.npy`);
    }
    expect(readNpy(await bytesOf("r5.value.npy")).shape).toEqual([few / 10, 10, d]);
  });

  test("has log p and its noise", async () => {
    const how = ["logprob", model, "--points", "few.npy", "--adapter", "reference", "--solver", "rk4", "--steps", "2"];
    await run(...how, "--out", "p-whole.npy");
    for (const shard of ["0/2", "1/2"]) await run(...how, "--shard", shard, "--out", "p.npy");
    await run("merge", "p.npy");
    for (const array of ["", ".base"]) await expectSame(`p${array}.npy`, `p-whole${array}.npy`);
  });

  test("has gradients, whose sums are the same whatever the number of shards", async () => {
    // By one probe, drawn by the index among all points, instead of d tangents.
    const probes = ["--method", "hutchinson", "--probes", "1", "--seed", "3"];
    const cotangents = ["--value-cotangent", "vectors.npy", "--divergence-cotangent", "weights.npy"];
    const how = ["gradient", model, "--points", "few.npy", "--context", "0.5", "--adapter", "reference", ...cotangents, ...probes];
    for (const count of [1, 2]) {
      for (let index = 0; index < count; index++) await run(...how, "--shard", `${index}/${count}`, "--out", `g${count}.safetensors`);
      await run("merge", `g${count}.safetensors`);
    }
    await expectSame("g2.safetensors", "g1.safetensors");
    const truth = vjpReference(
      network,
      await arrayOf("few.npy"),
      { value: await arrayOf("vectors.npy"), divergence: await arrayOf("weights.npy") },
      { context: [0.5], wrt: ["points", "context", "parameters"], method: "hutchinson", probes: 1, seed: 3 },
    );
    const found = new Map(readTensors(await bytesOf("g2.safetensors")).tensors.map((tensor) => [tensor.name, tensor]));
    const expected: [string, Float64Array, readonly number[]][] = [
      ["points", truth.points!, [few / 10, 10, d]],
      ["context", truth.context!, [1]],
      ...Object.entries(truth.parameters!).map(([name, { data, shape }]): [string, Float64Array, readonly number[]] => [name, data, shape]),
    ];
    expect(expected).toHaveLength(2 + Object.keys(parametersOf(network)).length);
    for (const [name, numbers, shape] of expected) {
      const { data, shape: own, dtype } = found.get(`gradient.${name}`)!;
      expect({ dtype, own }).toEqual({ dtype: "F32", own: shape });
      const largest = numbers.reduce((most, each) => Math.max(most, Math.abs(each)), 0);
      const read = Float64Array.from(numbers, (_, index) => data.getFloat32(index * 4, true));
      expectClose(
        read,
        numbers,
        numbers.map(() => largest),
        { relative: 1e-6, label: name },
      );
    }
    await run(...how, "--out", "g-whole.safetensors");
    const [whole, merged] = await Promise.all(
      ["g-whole.safetensors", "g2.safetensors"].map(async (name) => readTensors(await bytesOf(name))),
    );
    expect(merged!.metadata).toEqual(whole!.metadata);
    expect(merged!.tensors.map(({ name, shape }) => ({ name, shape }))).toEqual(whole!.tensors.map(({ name, shape }) => ({ name, shape })));
  });

  test("of a file in Fortran's order, of float64, and of whole numbers, is that of the same numbers in rows", async () => {
    const numbers = Float64Array.from(numbersOf(1000 * d), (each) => Math.round(each * 50));
    const columns = Array.from({ length: d }, (_, column) => Array.from(numbers.filter((_number, index) => index % d === column))).flat();
    const files = {
      "f8.npy": writeNpy({ data: numbers, shape: [1000, d] }),
      "fortran.npy": [header("<f8", true), new Uint8Array(Float64Array.from(columns).buffer)],
      "i2.npy": [header(">i2", false), bigEndian(numbers)],
    };
    for (const [name, content] of Object.entries(files)) {
      await writeFile(join(folder, name), content);
      const out = `of-${name}`;
      await run("eval", model, "--points", name, "--context", "0.25", "--adapter", "reference", "--shard", "0/1", "--out", out);
      await run("merge", out);
      await expectSame(out, "of-f8.npy");
    }
  });

  function header(descr: string, fortranOrder: boolean): Uint8Array {
    const text = new TextDecoder().decode(npyHeader("<f8", [1000, d])).slice(10);
    const changed = text.replace("<f8", descr).replace("False", fortranOrder ? "True " : "False");
    expect(changed).toHaveLength(text.length);
    return Uint8Array.from([...npyHeader("<f8", [1000, d]).slice(0, 10), ...new TextEncoder().encode(changed)]);
  }
  function bigEndian(numbers: Float64Array): Uint8Array {
    const view = new DataView(new ArrayBuffer(numbers.length * 2));
    for (const [index, each] of numbers.entries()) view.setInt16(index * 2, each);
    return new Uint8Array(view.buffer);
  }
});

/** The command with stderr in a file, so that a signal reaches the process that computes. */
async function startWorker(
  log: string,
  parameters: readonly string[],
): Promise<{ kill: (signal: NodeJS.Signals) => void; ended: Promise<number | null> }> {
  const stderr = await open(join(folder, log), "a");
  const child = spawn(process.execPath, [resolve("dist/cli.js"), ...parameters], { cwd: folder, stdio: ["ignore", "ignore", stderr.fd] });
  const ended = new Promise<number | null>((done) => child.on("close", done));
  await stderr.close();
  return { kill: (signal) => child.kill(signal), ended };
}

const sleep = (milliseconds: number): Promise<void> => new Promise((done) => setTimeout(done, milliseconds));
interface Listed {
  readonly whole: number;
  readonly shards: readonly { readonly state: string; readonly rows: number; readonly fault: string | null }[];
}
const list = async (name: string): Promise<Listed> => JSON.parse((await deldot(["shards", name, "--json"])).stdout) as Listed;
/** Blocks that the longest journal of a shard tells of. */
async function blocksOf(name: string): Promise<number> {
  const journals = (await readdir(folder)).filter((file) => file.startsWith(`${name}.shard-`) && /json\.\w+\.part$/.test(file));
  const texts = await Promise.all(journals.map((file) => readFile(join(folder, file), "utf8").catch(() => "")));
  return Math.max(0, ...texts.map((text) => text.split("\n").length - 2));
}
/** Waits until a journal tells of so many blocks of a shard. */
async function begun(name: string, blocks: number): Promise<void> {
  while ((await blocksOf(name)) < blocks) await sleep(5);
}

describe("a shard that is cut off", () => {
  const how = ["eval", model, "--points", "points.npy", "--context", "0.5", "--adapter", "reference"];
  beforeAll(() => run(...how, "--out", "cut-whole.npy"));

  test("goes on where it was after SIGTERM, and ends with 143", async () => {
    const worker = await startWorker("term.log", [...how, "--shard", "0/1", "--out", "term.npy"]);
    await begun("term", 1);
    worker.kill("SIGTERM");
    expect(await worker.ended).toBe(143);
    expect(await readFile(join(folder, "term.log"), "utf8")).toContain("deldot: interrupted by SIGTERM\n");
    const { whole, shards } = await list("term.npy");
    expect(whole).toBe(0);
    expect(shards[0]).toMatchObject({ state: "begun" });
    expect(shards[0]!.rows).toBeGreaterThanOrEqual(blockRows);
    const told = JSON.parse(await run(...how, "--shard", "0/1", "--out", "term.npy", "--json")) as { resumed: number; state: string };
    expect(told).toMatchObject({ state: "written", resumed: shards[0]!.rows });
    await run("merge", "term.npy");
    await expectSame("term.npy", "cut-whole.npy");
    expect((await readdir(folder)).filter((file) => file.startsWith("term.") && file.endsWith(".part"))).toEqual([]);
  });

  test("has the same bits after SIGKILL at any time, also where what it left is damaged", async () => {
    const parameters = [...how, "--shard", "0/1", "--out", "kill.npy"];
    for (const blocks of [0, 2, 3, 5]) {
      // More than any run before: what those have left is not this one's.
      const least = Math.max(blocks, (await blocksOf("kill")) + 1);
      const worker = await startWorker("kill.log", parameters);
      const after = blocks === 0 ? sleep(100) : begun("kill", least);
      expect(await Promise.race([worker.ended, after])).toBeUndefined();
      worker.kill("SIGKILL");
      expect(await worker.ended).toBeNull();
      // Bytes of a half-written file may never have reached the disk.
      if (blocks === 3)
        for (const file of await readdir(folder))
          if (/^kill\.shard-0-of-1\.value\.npy\.\w+\.part$/.test(file)) await flip(file, 1.5 * blockRows * d * 8);
    }
    const { shards } = await list("kill.npy");
    expect(shards[0]).toMatchObject({ state: "begun" });
    const told = JSON.parse(await run(...parameters, "--json")) as { resumed: number };
    expect(told.resumed).toBeGreaterThanOrEqual(5 * blockRows);
    await run("merge", "kill.npy");
    for (const array of ["", ".value"]) await expectSame(`kill${array}.npy`, `cut-whole${array}.npy`);
  });

  test("ends with whoever started it through a channel, also where a process of its own hands on what it writes", async () => {
    // Of a command whose stderr is a socket there are two processes.
    await writeFile(
      join(folder, "starter.mjs"),
      `import { spawn } from "node:child_process";
      const child = spawn(process.execPath, process.argv.slice(2), { stdio: ["ignore", "ignore", "pipe", "ipc"] });
      process.stdout.write(String(child.pid));`,
    );
    const parameters = [resolve("dist/cli.js"), ...how, "--shard", "0/1", "--out", "left.npy"];
    const starter = spawn(process.execPath, ["starter.mjs", ...parameters], { cwd: folder, stdio: ["ignore", "pipe", "ignore"] });
    const [text] = (await once(starter.stdout, "data")) as [Buffer];
    const pid = Number(String(text));
    await begun("left", 1);
    const inner = await childrenOf(pid);
    expect(inner).toHaveLength(1);
    starter.kill("SIGKILL");
    await Promise.all([pid, ...inner].map(gone));
    // The inner one ends with the outer one alone, too.
    const outer = spawn(process.execPath, parameters, { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
    await begun("left", (await blocksOf("left")) + 1);
    const others = await childrenOf(outer.pid!);
    expect(others).toHaveLength(1);
    outer.kill("SIGKILL");
    await Promise.all(others.map(gone));
  });

  test("is made by three processes at once, of which none disturbs another", async () => {
    const parameters = [...how, "--shard", "0/1", "--out", "two.npy"];
    const first = await startWorker("two.log", parameters);
    await begun("two", 1);
    const others = await Promise.all([startWorker("two.log", parameters), startWorker("two.log", parameters)]);
    expect([await first.ended, await others[0].ended, await others[1].ended]).toEqual([0, 0, 0]);
    await run("merge", "two.npy");
    await expectSame("two.npy", "cut-whole.npy");
    expect((await readdir(folder)).filter((file) => file.startsWith("two.") && file.endsWith(".part"))).toEqual([]);
  });
});

/** Changes one bit of a file, where it is so long. */
async function flip(name: string, at: number): Promise<void> {
  const handle = await open(join(folder, name), "r+");
  const byte = new Uint8Array(1);
  if ((await handle.read(byte, 0, 1, at)).bytesRead === 1)
    await handle.write(
      byte.map((each) => each ^ 1),
      0,
      1,
      at,
    );
  await handle.close();
}

describe("what is not one work", () => {
  const how = ["eval", join("..", model), "--points", "few.npy", "--context", "0.5", "--adapter", "reference"];
  const small = writeNpy({ data: numbersOf(few * d), shape: [few, d] });
  let own: string;
  let count = 0;
  const inOwn = (...parameters: CommandParameters): Promise<Outcome> => runDeldot(own, ...parameters);
  beforeAll(async () => {
    own = join(folder, "work");
    await mkdir(own);
    await writeFile(join(own, "few.npy"), small);
    for (const shard of ["0/2", "1/2"]) expect((await again(shard)).status).toBe(0);
  });
  /** Two shards of it in a folder of its own. */
  async function prepare(): Promise<void> {
    own = join(folder, `work-${count++}`);
    await cp(join(folder, "work"), own, { recursive: true });
  }
  const change = async (name: string, edit: (text: string) => string): Promise<void> => {
    const path = join(own, name);
    await writeFile(path, edit(await readFile(path, "latin1")), "latin1");
  };
  const again = (shard: string, ...more: string[]): Promise<Outcome> => inOwn([...how, "--shard", shard, "--out", "r.npy", ...more]);

  test.each<[string, () => Promise<unknown>, RegExp]>([
    [
      "a shard that is missing",
      async () => {
        await rm(join(own, "r.shard-0-of-2.json"));
        const { status, stdout } = await inOwn(["shards", "r.npy", "--json"]);
        expect(status).toBe(1);
        expect(JSON.parse(stdout)).toMatchObject({ count: 2, whole: 1, shards: [{ state: "missing", rows: 0 }, { state: "whole" }] });
      },
      /r\.npy: r\.shard-0-of-2 is missing; expected all 2 shards/,
    ],
    [
      "a method of its own",
      () => again("1/2", "--method", "jacobian"),
      /r\.shard-1-of-2\.json: its method is "jacobian", unlike that of r\.shard-0-of-2\.json/,
    ],
    ["a context of its own", () => again("1/2", "--context", "0.25"), /its context is "0\.25", unlike that of/],
    [
      "a model of its own",
      async () => {
        const { network: other } = randomMlp({ widths: [d, 4, d], activation: "tanh", contextSize: 1, seed: 6 });
        await writeFile(join(own, "other.safetensors"), toSafetensors(other));
        return inOwn(["eval", "other.safetensors", ...how.slice(2), "--shard", "1/2", "--out", "r.npy"]);
      },
      /its model is "[0-9a-f]+", unlike that of/,
    ],
    [
      "a version of its own",
      async () => {
        const path = join(own, "r.shard-1-of-2.json");
        await writeFile(path, writeManifest({ ...(await readManifest(path)), version: "0.0.1" }));
      },
      /its version is "0\.0\.1", unlike that of/,
    ],
    ["arrays of its own", () => again("1/2", "--diagonal"), /its arrays are unlike that of/],
    ["shards of another number", () => again("0/3"), /there are shards of 2, and of 3|there are shards of 3, and of 2/],
    [
      "a file that was changed",
      () => flip(`${own.slice(folder.length + 1)}/r.shard-1-of-2.value.npy`, 2000),
      /r\.shard-1-of-2\.value\.npy: it is not as it was written, its checksum is another/,
    ],
    [
      "a file that is shorter",
      () => change("r.shard-1-of-2.npy", (text) => text.slice(0, -8)),
      /r\.shard-1-of-2\.npy: it has \d+ bytes; expected \d+, as it was written/,
    ],
    [
      "a manifest that was changed",
      () => change("r.shard-1-of-2.json", (text) => text.replace('"from": 4096', '"from": 4095')),
      /r\.shard-1-of-2\.json: it is not as a shard left it/,
    ],
    [
      "points that were changed",
      () => flip(`${own.slice(folder.length + 1)}/few.npy`, 4200 * d * 4),
      /few\.npy: its rows 4096 to 5000 are not those that r\.shard-1-of-2 was computed from/,
    ],
    ["points that are gone", () => rm(join(own, "few.npy")), /few\.npy: no such file or directory/],
    [
      "no shards at all",
      async () => Promise.all(["0", "1"].map((index) => rm(join(own, `r.shard-${index}-of-2.json`)))),
      /r\.npy: there are no shards beside it/,
    ],
  ])("is refused: %s", async (_, spoil, message) => {
    await prepare();
    await spoil();
    const { status, stderr } = await inOwn(["merge", "r.npy"]);
    expect(stderr).toMatch(message);
    // What is missing may yet come; nothing else is mended by a retry.
    expect(status).toBe(/missing|no shards/.test(stderr) ? 2 : 42);
    expect(await readdir(own)).not.toContain("r.npy");
    expect((await readdir(own)).filter((file) => file.startsWith("."))).toEqual([]);
  });

  test("is made anew: options, a file that was changed, and points that were", async () => {
    await prepare();
    const first = await readFile(join(own, "r.shard-0-of-2.npy"));
    expect((await again("0/2")).stdout).toContain("rows 0 to 4096 of 5000, there already, ");
    await flip(`${own.slice(folder.length + 1)}/r.shard-0-of-2.npy`, 500);
    const listed = JSON.parse((await inOwn(["shards", "r.npy", "--json"])).stdout) as Listed;
    expect(listed).toMatchObject({
      whole: 1,
      shards: [{ state: "broken", fault: expect.stringContaining("r.shard-0-of-2.npy is not as it was written") }, { state: "whole" }],
    });
    expect((await again("0/2")).stdout).toContain("wrote r.shard-0-of-2.npy\n");
    expect(await readFile(join(own, "r.shard-0-of-2.npy"))).toEqual(first);
    await flip(`${own.slice(folder.length + 1)}/few.npy`, 200);
    expect((await again("0/2")).stdout).toContain("wrote r.shard-0-of-2.npy\n");
    expect((await again("1/2")).stdout).toContain("there already, ");
    expect(await readFile(join(own, "r.shard-0-of-2.npy"))).not.toEqual(first);
    expect((await inOwn(["merge", "r.npy"])).status).toBe(0);
    // Again, and from another place.
    await copyFile(join(own, "few.npy"), join(own, "moved.npy"));
    await rm(join(own, "few.npy"));
    const merged = await readFile(join(own, "r.npy"));
    expect((await inOwn(["merge", "r.npy", "--points", "moved.npy"])).status).toBe(0);
    expect(await readFile(join(own, "r.npy"))).toEqual(merged);
    expect(descrOf(readNpy(merged).data)).toBe("<f8");
  });

  test("never goes over what is read: points, model", async () => {
    own = join(folder, "over");
    await mkdir(own);
    for (const name of ["few.npy", "r.value.npy"]) await writeFile(join(own, name), small);
    await copyFile(join(folder, model), join(own, "m.safetensors"));
    const common = ["--context", "0.5", "--adapter", "reference", "--shard", "0/1"];
    for (const [parameters, message] of [
      [
        ["eval", "m.safetensors", "--points", "r.value.npy", "--out", "r.npy"],
        /r\.value\.npy: it is the same file as r\.value\.npy, which is read/,
      ],
      [
        ["gradient", "m.safetensors", "--points", "few.npy", "--divergence-cotangent", "1", "--out", "m.safetensors"],
        /m\.safetensors: it is the same file as m\.safetensors, which is read/,
      ],
    ] as const) {
      const { status, stderr } = await inOwn([...parameters, ...common]);
      expect(stderr).toMatch(message);
      expect(status).toBe(42);
    }
    // Moved there after the shards were made.
    expect((await inOwn(["eval", "m.safetensors", "--points", "few.npy", "--out", "s.npy", ...common])).status).toBe(0);
    await copyFile(join(own, "few.npy"), join(own, "s.value.npy"));
    const { status, stderr } = await inOwn(["merge", "s.npy", "--points", "s.value.npy"]);
    expect(stderr).toMatch(/s\.value\.npy: it is the same file as s\.value\.npy, which is read/);
    expect(status).toBe(42);
    expect((await readFile(join(own, "s.value.npy"))).equals(Buffer.concat(small))).toBe(true);
  });

  test("takes cotangents in the shape of the points alone", async () => {
    own = join(folder, "cotangents");
    await mkdir(own);
    await writeFile(join(own, "few.npy"), small);
    await writeFile(join(own, "turned.npy"), writeNpy({ data: numbersOf(few * d), shape: [d, few] }));
    const parameters = ["gradient", join("..", model), "--points", "few.npy", "--context", "0.5", "--value-cotangent", "turned.npy"];
    for (const shard of [[], ["--shard", "0/1"]]) {
      const { status, stderr } = await inOwn([...parameters, "--out", "g.safetensors", ...shard]);
      expect(stderr).toMatch(/turned\.npy: its shape is \[64, 5000\], so its points have 5000 components; expected 64/);
      expect(status).toBe(shard.length > 0 ? 42 : 2);
    }
  });

  test("ends with 42 at a limit", async () => {
    await prepare();
    const parameters = ["gradient", ...how.slice(1), "--divergence-cotangent", "1", "--method", "hutchinson", "--probes", "1048576"];
    const { status, stderr } = await inOwn([...parameters, "--shard", "0/2", "--out", "g.safetensors"]);
    expect(stderr).toMatch(/a point has 1048576 probes of 64 numbers; expected at most/);
    expect(status).toBe(42);
  });

  test.each<[number, string, readonly string[], RegExp]>([
    [
      42,
      "no model",
      ["nowhere.safetensors", "--points", "few.npy", "--shard", "0/2", "--out", "x.npy"],
      /nowhere\.safetensors: no such file/,
    ],
    [42, "points of another model", [lorenz, "--points", "few.npy", "--shard", "0/2", "--out", "x.npy"], /expected 3/],
    [42, "a model that is none", ["few.npy", "--points", "few.npy", "--shard", "0/2", "--out", "x.npy"], /few\.npy/],
    [
      42,
      "points that are no .npy file",
      [join("..", model), "--points", "points.csv", "--context", "0.5", "--shard", "0/2", "--out", "x.npy"],
      /expected \.npy, whose rows can be read/,
    ],
    [
      42,
      "a shard that is none",
      [join("..", model), "--points", "few.npy", "--context", "0.5", "--shard", "2/2", "--out", "x.npy"],
      /the shard is number 2/,
    ],
    [42, "no context", [join("..", model), "--points", "few.npy", "--shard", "0/2", "--out", "x.npy"], /expected --context/],
    [42, "no place for it", [join("..", model), "--points", "few.npy", "--context", "0.5", "--shard", "0/2"], /expected --out/],
    [
      42,
      "a place of another kind",
      [join("..", model), "--points", "few.npy", "--context", "0.5", "--shard", "0/2", "--out", "x.csv"],
      /expected \.npy, which shards can be merged to/,
    ],
    [42, "an option that is none", [join("..", model), "--points", "few.npy", "--shard=0/2", "--colour", "red"], /unknown option/],
    [42, "a method that is none", [join("..", model), "--points", "few.npy", "--shard", "0/2", "--method", "guess"], /Allowed choices/],
    [
      42,
      "a folder that is not there",
      [join("..", model), "--points", "few.npy", "--context", "0.5", "--shard", "0/2", "--out", "nowhere/x.npy"],
      /no such file or directory/,
    ],
    [
      2,
      "no engine here, though another machine may have one",
      [join("..", model), "--points", "few.npy", "--context", "0.5", "--shard", "0/2", "--out", "x.npy", "--adapter", "cpu"],
      /onnxruntime-node/,
    ],
  ])("ends with %i: %s", async (expected, _, parameters, message) => {
    own = join(folder, "ends");
    await mkdir(own, { recursive: true });
    await writeFile(join(own, "few.npy"), small);
    const { status, stderr } = await inOwn(["eval", ...parameters]);
    expect(stderr).toMatch(message);
    expect(status).toBe(expected);
    expect((await readdir(own)).filter((file) => file.startsWith("x."))).toEqual([]);
  });
});
