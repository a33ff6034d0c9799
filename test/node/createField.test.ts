/** Fields on whatever computes here, among it onnxruntime's native engine. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DeldotError, evaluateReference, FieldFlow, InputError, logProbReference, mlp, PlanError } from "../../src/index.js";
import { AdapterError } from "../../src/errors.js";
import { createField, engines } from "../../src/node/index.js";
import { divergenceScale, expectClose } from "../close.js";
import { loadModel, modelNames, randomPoints } from "../fields.js";
import { allOf, expectVector, loadGradient } from "../gradients.js";
import { check } from "../numbers/check.js";
import { Draw } from "../numbers/draw.js";
import { describeNetwork, wholePalette } from "../numbers/networks.js";
import { cut, drawPool } from "../numbers/pool.js";
import { runDeldot } from "./command.js";
import { onnxruntimeFolder } from "./onnxruntimeNode.js";

const before = process.cwd();
const moons = resolve("demo/models/two-moons-flow.safetensors");
const { network, truth } = loadModel("two-moons-flow");
/** Where onnxruntime-node is, and where it is not. */
let [folder, empty] = ["", ""];

beforeAll(async () => {
  folder = await onnxruntimeFolder();
  empty = await mkdtemp(join(tmpdir(), "deldot-"));
  process.chdir(folder);
}, 120_000);
afterAll(async () => {
  process.chdir(before);
  await rm(empty, { recursive: true });
});

/** As on a machine whose user names no driver. */
async function withoutDriver<T>(work: () => Promise<T>): Promise<T> {
  const { VK_DRIVER_FILES, VK_ICD_FILENAMES } = process.env;
  delete process.env["VK_DRIVER_FILES"];
  delete process.env["VK_ICD_FILENAMES"];
  try {
    return await work();
  } finally {
    Object.assign(process.env, { VK_DRIVER_FILES, ...(VK_ICD_FILENAMES !== undefined && { VK_ICD_FILENAMES }) });
  }
}

/** Runs the command in a folder, with no driver named. */
const run = (where: string, ...parameters: string[]): ReturnType<typeof runDeldot> => {
  // The built command lies beside the tests, not here.
  process.chdir(before);
  const done = runDeldot(where, parameters, { VK_DRIVER_FILES: "" });
  process.chdir(folder);
  return done;
};

/** Whose numbers come close to float64's. */
async function expectRight(field: Awaited<ReturnType<typeof createField>>): Promise<void> {
  const { value, divergence } = await field.evaluate(truth.points, { context: truth.context });
  expectClose(
    value,
    truth.value,
    truth.value.map(() => 1),
    { relative: 2e-5 },
  );
  expectClose(
    divergence,
    truth.divergence,
    truth.divergence.map((each) => 1 + Math.abs(each)),
    { relative: 2e-5 },
  );
}

describe("createField", () => {
  test.each(["cpu", "software", "reference"] as const)("on %s gives the true numbers, and ends", async (device) => {
    const field = await createField(network, { device });
    expect(field.engine).toBe(device);
    expect(field.precision).toBe(device === "reference" ? "float64" : "float32");
    expect(field.description).toMatch(
      { cpu: /^onnxruntime \d+\.\d+\.\d+ on the CPU, \d+ threads?$/, software: /\w/, reference: /float64/ }[device],
    );
    await expectRight(field);
    const points = truth.points.subarray(0, 8);
    const { tangent } = await field.jvp(points, points, { context: 0.5, value: true });
    expect(tangent).toHaveLength(8);
    const { points: gradient } = await field.vjp(points, { divergence: 1 }, { context: 0.5 });
    expect(gradient).toHaveLength(8);
    expect(await field.divergence(points, { context: 0.5 })).toHaveLength(4);
    expect(field.explain().method).toBe("cyclic");
    expect(field.network).toBe(network);
    await field.close();
    await expect(field.divergence(points, { context: 0.5 })).rejects.toThrow(DeldotError);
  });

  test("by itself takes the driver that is named, else a GPU, else the processor", async () => {
    const named = await createField(network);
    expect(named.engine).toBe("software");
    await named.close();
    const field = await withoutDriver(() => createField(network));
    expect(["gpu", "cpu"]).toContain(field.engine);
    await expectRight(field);
    await field.close();
  });

  test("without onnxruntime says what to install, and by itself goes on to the next", async () => {
    process.chdir(empty);
    try {
      await expect(createField(network, { device: "cpu" })).rejects.toThrow(AdapterError);
      await expect(createField(network, { device: "cpu" })).rejects.toThrow(
        "it is not installed; `npm install --ignore-scripts onnxruntime-node` brings it",
      );
      const field = await withoutDriver(() => createField(network));
      expect(["gpu", "software"]).toContain(field.engine);
      await field.close();
    } finally {
      process.chdir(folder);
    }
  });

  test.each([
    ["lacks what is needed", "exports.env = {};", "runtime has no InferenceSession and Tensor"],
    [
      "refuses",
      "exports.Tensor = class {}; exports.InferenceSession = { create: async () => { throw new Error('illegal instruction'); } };",
      "illegal instruction",
    ],
    ["does not load", "throw null;", "null"],
  ])("with an onnxruntime that %s goes on to the next, and tells why where that one is asked for", async (_, source, reason) => {
    const broken = await mkdtemp(join(empty, "broken-"));
    const within = join(broken, "node_modules/onnxruntime-node");
    await mkdir(within, { recursive: true });
    await writeFile(join(within, "index.js"), source);
    process.chdir(broken);
    try {
      const cpu = createField(network, { device: "cpu" });
      await expect(cpu).rejects.toThrow(AdapterError);
      await expect(cpu).rejects.toThrow(reason);
      const field = await withoutDriver(() => createField(network));
      expect(["gpu", "software"]).toContain(field.engine);
      await field.close();
    } finally {
      process.chdir(folder);
    }
    const doctor = await run(broken, "doctor");
    expect(doctor.stdout).toMatch(/cpu: not here: onnxruntime-node, .* does not work: /);
  });

  test("with as many threads as it is told gives the same numbers", async () => {
    const points = randomPoints(1, 20_000, 2);
    const [one, two] = [
      await createField(network, { device: "cpu", threads: 1 }),
      await createField(network, { device: "cpu", threads: 2 }),
    ];
    expect(one.description).toMatch(/, 1 thread$/);
    expect(two.description).toMatch(/, 2 threads$/);
    const given = { context: 0.5 };
    expectClose(await one.divergence(points, given), await two.divergence(points, given), new Float64Array(20_000).fill(1), {
      relative: 1e-5,
    });
    await Promise.all([one.close(), two.close()]);
  });

  test("refuses what it does not know, and a software driver for a GPU", async () => {
    expect(engines).toEqual(["gpu", "cpu", "software", "reference"]);
    await expect(createField(network, { device: "tpu" as "gpu" })).rejects.toThrow(
      'device is "tpu"; expected "auto" or one of "gpu", "cpu"',
    );
    await expect(createField(network, { threads: 0 })).rejects.toThrow(InputError);
    await expect(createField(network, { threads: 100_000 })).rejects.toThrow(/threads is 100000; expected a whole number from 1 to \d+/);
    await expect(createField(network, { device: "gpu" })).rejects.toThrow(
      /it is a software driver .*; expected the manifest of a Vulkan driver of a real GPU/,
    );
    await expect(createField(network, null as never)).rejects.toThrow("options is null; expected an object");
    await expect(createField(network, { gpu: 3 as never })).rejects.toThrow(InputError);
    await expect(createField(network, { device: "software", gpu: { kernels: "nonsense" } })).rejects.toThrow('kernels is "nonsense"');
    await expect(createField({} as never, { device: "cpu" })).rejects.toThrow(DeldotError);
  });
});

describe("the native engine", () => {
  test.each(modelNames)("has the true numbers of %s by every exact method", async (name) => {
    const { network, truth } = loadModel(name);
    const { points, context } = truth;
    const field = await createField(network, { device: "cpu" });
    const { diagonal } = evaluateReference(network, points, { context, outputs: ["diagonal"] });
    const d = network.stateSize;
    const scale = divergenceScale(diagonal!, d);
    for (const method of ["tangent", "cyclic", "jacobian", "coordinate"] as const) {
      try {
        const { divergence } = await field.evaluate(points, { context, method, outputs: ["divergence"] });
        expectClose(divergence, truth.divergence, scale, { label: method });
      } catch (error) {
        if (!(error instanceof PlanError)) throw error;
      }
    }
    await field.close();
  });

  const gradients = readdirSync(new URL("../vectors/gradients/", import.meta.url)).map((file) => file.replace(".safetensors", ""));
  test.each(gradients)("has PyTorch's gradients of %s", async (name) => {
    const vector = loadGradient(name);
    const field = await createField(vector.network, { device: "cpu" });
    const tolerance = name.startsWith("sin30") ? 1e-4 : 1e-5;
    const options = { context: vector.context, wrt: allOf(vector.network), outputs: ["value", "divergence"] } as const;
    expectVector(await field.vjp(vector.points, vector.cotangents, options), vector, tolerance);
    await field.close();
  });

  test("gives what float32 may, of random networks", { timeout: 120_000 }, async () => {
    const failures: string[] = [];
    for (let seed = 1; seed <= 60; seed++) {
      const pool = drawPool(new Draw(5000 + seed), "small", wholePalette, false);
      const { stateSize: d, contextSize: c } = pool.network;
      const count = Math.min(pool.count, 12);
      const context = pool.context && (pool.context.length === c ? pool.context : cut(pool.context, c, 0, count));
      const field = await createField(pool.network, { device: "cpu" });
      const { value, divergence } = await field.evaluate(cut(pool.points, d, 0, count), { context });
      await field.close();
      const wrong = check(
        { pool, first: 0, count, method: "auto" },
        { value: value as Float32Array, divergence: divergence as Float32Array },
      );
      if (wrong.length > 0) failures.push(`seed ${seed}: ${wrong.join("; ")}; ${describeNetwork(pool.network)}`);
    }
    expect(failures.join("\n")).toBe("");
  });

  test("integrates paths", async () => {
    const points = truth.points.subarray(0, 64);
    const field = await createField(network, { device: "cpu" });
    const flow = new FieldFlow(field);
    const { logProb, status } = await flow.logProb(points, { rtol: 1e-6, atol: 1e-6 });
    expect(new Set(status)).toEqual(new Set(["done"]));
    const expected = logProbReference(network, points).logProb;
    expectClose(
      logProb,
      expected,
      expected.map(() => 1),
      { relative: 2e-4 },
    );
    const samples = await flow.sample(100, { seed: 2 });
    const back = await flow.logProb(samples.points);
    expectClose(
      back.logProb,
      samples.logProb,
      samples.logProb.map(() => 1),
      { relative: 1e-3 },
    );
    await field.close();
  });

  test("keeps the numbers of networks without hidden layers, and of one point", async () => {
    const field = await createField(
      mlp({
        layers: [
          {
            weight: [
              [2, 1],
              [0, 3],
            ],
            bias: [1, -1],
          },
        ],
      }),
      { device: "cpu" },
    );
    const { value, divergence } = await field.evaluate([1, 1]);
    expect([...value, ...divergence]).toEqual([4, 2, 5]);
    await field.close();
  });
});

describe("the command", () => {
  test("computes on the processor where there is no GPU, and tells so", async () => {
    const doctor = await run(folder, "doctor");
    expect(doctor.status).toBe(0);
    expect(doctor.stdout).toMatch(
      /^engines, in the order in which --adapter auto takes them:\n {2}gpu: .*\n {2}cpu: (taken|passed over): onnxruntime \d/,
    );
    const { stdout, status } = await run(folder, "verify", moons, "--points", "16", "--gradient", "--adapter", "cpu");
    expect(stdout).toMatch(/16 points, method cyclic, onnxruntime .* on the CPU/);
    expect(status).toBe(0);
    const logProb = await run(folder, "sample", moons, "--count", "16", "--json", "--adapter", "cpu");
    expect(JSON.parse(logProb.stdout)).toMatchObject({ count: 16, adapter: expect.stringMatching(/^onnxruntime/) });
    const byItself = await run(folder, "sample", moons, "--count", "4", "--json");
    if (doctor.stdout.includes("cpu: taken"))
      expect(JSON.parse(byItself.stdout)).toMatchObject({ adapter: expect.stringMatching(/^onnxruntime/) });
    else expect(doctor.stdout).toContain("gpu: taken");
  });

  test.each(["cpu", "reference"])("refuses kernels, which fix a result's bits, where %s computes", async (adapter) => {
    const how = ["--kernels", "layers 4x4", "--adapter", adapter];
    for (const parameters of [
      ["verify", moons],
      ["sample", moons, "--count", "4"],
    ]) {
      const { status, stderr } = await run(folder, ...parameters, ...how);
      expect(stderr).toMatch(new RegExp(`^deldot: --kernels is "layers 4x4", but ${adapter} computes here, which has none; expected`));
      expect(status).toBe(2);
    }
  });

  test("says what onnxruntime would bring where it is not installed", async () => {
    const doctor = await run(empty, "doctor");
    expect(doctor.stdout).toMatch(
      /cpu: not here: onnxruntime-node, which takes .* of a software GPU.*: it is not installed; `npm install --ignore-scripts onnxruntime-node` brings it/,
    );
    const { status, stderr } = await run(empty, "verify", moons, "--adapter", "cpu");
    expect(stderr).toMatch(/^deldot: onnxruntime on the CPU needs the npm package onnxruntime-node: it is not installed/);
    expect(status).toBe(2);
  });
});
