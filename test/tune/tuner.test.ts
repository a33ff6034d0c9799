import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  evaluateReference,
  InputError,
  mlp,
  parametersOf,
  VectorField,
  type Network,
  type Store,
  type VectorFieldOptions,
} from "../../src/index.js";
import { capabilitiesOf } from "../../src/kernels/capabilities.js";
import { fileStore } from "../../src/node/index.js";
import { expectClose } from "../close.js";
import { openDevice } from "../device.js";
import { randomMlp, randomPoints } from "../fields.js";

const { network } = randomMlp({ seed: 1, widths: [2, 9, 8, 2], activation: "tanh" });
const COUNT = 200;
const points = randomPoints(2, COUNT, 2);

let device: GPUDevice;
let close: () => Promise<void>;
let plain: Float32Array;
beforeAll(async () => {
  ({ device, close } = await openDevice());
  // What is tried on GPUs has all there is to be told apart: kernels that keep copies of the weights, and others.
  const { vendor, architecture, device: card, description, subgroupMinSize } = device.adapterInfo;
  const adapterInfo = { vendor, architecture, device: card, description, subgroupMinSize, isFallbackAdapter: false };
  Object.defineProperty(device, "adapterInfo", { value: adapterInfo });
  const field = await VectorField.create(device, network, { kernels: "layers 4x4" });
  plain = await field.divergence(points);
  field.destroy();
});
afterAll(() => close());

function memoryStore(): Store & { map: Map<string, string> } {
  const map = new Map<string, string>();
  return { map, get: (key) => map.get(key), set: (key, value) => void map.set(key, value) };
}

const remembered = (chosen: string, dropped: readonly string[] = []): string => JSON.stringify({ chosen, dropped });

/** A variant that is tried. */
const FUSED = "fused storage x2";

const kernelsIn = (store: { map: Map<string, string> }): [string, string][] =>
  [...store.map].filter(([key]) => key.startsWith("deldot kernels"));

describe("tune", () => {
  test("measures every variant, takes the fastest, and has evaluate use it", async () => {
    const store = memoryStore();
    const field = await VectorField.create(device, network, { store });
    const tuned = await field.tune(COUNT);
    const names = tuned.map(({ kernels }) => kernels);
    expect(new Set(names).size).toBe(names.length);
    expect(names.toSorted()).toEqual([FUSED, "layers 4x4", "layers 4x4 in groups of 16x16", "layers 8x16"]);
    expect(tuned.map(({ differs }) => differs)).toEqual(names.map(() => false));
    const times = tuned.map(({ milliseconds }) => milliseconds);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(tuned.map(({ chosen }) => chosen)).toEqual(tuned.map((_, index) => index === 0));
    const result = await field.evaluate(points);
    expect(result.kernels).toBe(names[0]);
    expectClose(result.divergence, plain, plain.map(Math.abs));
    expect(kernelsIn(store).map(([, value]) => JSON.parse(value) as unknown)).toEqual([{ chosen: names[0], dropped: [] }]);
    field.destroy();
  });

  test("tries on a software adapter what pays there", async () => {
    const own = await openDevice();
    const { isFallback, lanes } = capabilitiesOf(own.device);
    const field = await VectorField.create(own.device, network);
    const names = (await field.tune(COUNT)).map(({ kernels }) => kernels);
    const tiles = lanes >= 8 ? ["layers 4x16 by 8 lanes", "layers 4x4", "layers 8x16"] : ["layers 4x4", "layers 8x16"];
    expect(names.toSorted()).toEqual(isFallback ? tiles : [FUSED, "layers 4x4", "layers 4x4 in groups of 16x16", "layers 8x16"]);
    const result = await field.evaluate(points);
    expect(result.kernels).toBe(names[0]);
    expectClose(result.divergence, plain, plain.map(Math.abs));
    field.destroy();
    await own.close();
  });

  test("drops what gives other numbers than the plain kernels, and remembers that", async ({ onTestFinished }) => {
    const store = memoryStore();
    const createShaderModule = device.createShaderModule.bind(device);
    const compiled: string[] = [];
    onTestFinished(() => void (device.createShaderModule = createShaderModule));
    device.createShaderModule = (descriptor) => {
      compiled.push(descriptor.label!);
      const isWrong = descriptor.label === `deldot ${FUSED}`;
      // Every invocation takes the points of another.
      const code = isWrong ? descriptor.code.replace("let i = invocation_index(id, workgroups);", "let i = id.x / 2u;") : descriptor.code;
      return createShaderModule({ ...descriptor, code });
    };
    // A shape of its own, since a device keeps its pipelines.
    const { network: own } = randomMlp({ seed: 1, widths: [2, 19, 18, 2], activation: "tanh" });
    const field = await VectorField.create(device, own, { store });
    const tuned = await field.tune(COUNT);
    expect(tuned.filter(({ differs }) => differs)).toEqual([
      { kernels: FUSED, milliseconds: Infinity, points: tuned[0]!.points, chosen: false, differs: true },
    ]);
    expect(kernelsIn(store).map(([, value]) => JSON.parse(value) as unknown)).toEqual([{ chosen: tuned[0]!.kernels, dropped: [FUSED] }]);
    field.destroy();
    compiled.length = 0;
    const next = await VectorField.create(device, own, { store });
    const again = await next.tune(COUNT);
    expect(again.map(({ kernels }) => kernels)).not.toContain(FUSED);
    expect(compiled).not.toContain(`deldot ${FUSED}`);
    next.destroy();
  });

  test("weights that are replaced meanwhile make no kernels wrong, and none that keep copies of them are taken then", async () => {
    const store = memoryStore();
    const make = (seed: number) => parametersOf(randomMlp({ seed, widths: [2, 21, 22, 2], activation: "tanh" }).network);
    const { network: own } = randomMlp({ seed: 1, widths: [2, 21, 22, 2], activation: "tanh" });
    const field = await VectorField.create(device, own, { store });
    const tuning = { ends: false };
    const updates = (async () => {
      for (let seed = 2; !tuning.ends; seed++) {
        await field.update(make(seed % 5));
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    })();
    const during = await field.tune(COUNT);
    tuning.ends = true;
    await updates;
    expect(during.filter(({ differs }) => differs)).toEqual([]);
    for (const [, value] of kernelsIn(store)) expect(JSON.parse(value)).toMatchObject({ dropped: [] });
    const after = await field.tune(COUNT);
    expect(after.map(({ kernels }) => kernels).filter((name) => name.startsWith("fused"))).toEqual([]);
    expect((await field.evaluate(points)).kernels).toBe(after.find(({ chosen }) => chosen)!.kernels);
    field.destroy();
  });

  test("a store that is asked by a call that gives up is asked again", async () => {
    const asked: string[] = [];
    const store: Store = {
      get: (key) => new Promise((resolve) => void setTimeout(() => resolve((asked.push(key), null)), 100)),
      set: () => undefined,
    };
    const field = await VectorField.create(device, network, { store });
    asked.length = 0;
    const controller = new AbortController();
    const given = field.evaluate(points, { signal: controller.signal });
    controller.abort();
    await expect(given).rejects.toThrow();
    await new Promise((resolve) => setTimeout(resolve, 200));
    await field.evaluate(points);
    expect(asked.filter((key) => key.startsWith("deldot kernels"))).toHaveLength(2);
    field.destroy();
  });

  test("other seeds and steps are the same plan", async () => {
    const field = await VectorField.create(device, network);
    const options = { method: "hutchinson", probes: 2, outputs: ["divergence"] } as const;
    const tuned = await field.tune(COUNT, options);
    const best = tuned.find(({ chosen }) => chosen)!.kernels;
    const seen = new Set<string>();
    for (let seed = 0; seed < 70; seed++) seen.add((await field.evaluate(points, { ...options, seed })).kernels);
    expect([...seen]).toEqual([best]);
    const method = { method: "hutchinson", probes: 2 } as const;
    const [one, two] = [await field.divergence(points, { ...method, seed: 1 }), await field.divergence(points, { ...method, seed: 2 })];
    expect(one).not.toEqual(two);
    field.destroy();
  });

  test("gives a fixed variant back alone", async () => {
    const field = await VectorField.create(device, network, { kernels: "fused storage x2" });
    expect(await field.tune(COUNT)).toMatchObject([{ kernels: "fused storage x2", chosen: true }]);
    field.destroy();
  });

  test("rejects a count that is none, and names that are no variants", async () => {
    const field = await VectorField.create(device, network);
    await expect(field.tune(0)).rejects.toThrow(InputError);
    field.destroy();
    await expect(VectorField.create(device, network, { kernels: "fast" })).rejects.toThrow(
      /"fast"; expected "auto" or one of "layers 4x4", .* "fused storage x2", with "in float16" behind it/,
    );
    await expect(VectorField.create(device, network, { kernels: "layers 4x16 by 64 lanes" })).rejects.toThrow(InputError);
  });

  test("ends with the field", async () => {
    const field = await VectorField.create(device, network);
    const tuning = field.tune(COUNT, { outputs: ["value"] });
    field.destroy();
    await expect(tuning).rejects.toThrow(/destroyed/);
  });
});

describe("what a store remembers", () => {
  /** The one key under which the kernels of this plan are remembered. */
  async function keyOf(): Promise<string> {
    const asked: string[] = [];
    const field = await VectorField.create(device, network, { store: { get: (key) => void asked.push(key), set: () => undefined } });
    await field.evaluate(points);
    field.destroy();
    return asked.find((key) => key.startsWith("deldot kernels"))!;
  }

  test("runs as soon as it is compiled, in evaluate and in encode", async () => {
    const store = memoryStore();
    store.map.set(await keyOf(), remembered(FUSED));
    const field = await VectorField.create(device, network, { store });
    await field.reserve(COUNT);
    const result = await field.evaluate(points);
    expect(result.kernels).toBe(FUSED);
    expectClose(result.divergence, plain, plain.map(Math.abs));
    // Asked for by its outputs, which were left out before.
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const [labels, setPipeline] = [[] as string[], pass.setPipeline.bind(pass)];
    pass.setPipeline = (pipeline) => {
      labels.push(pipeline.label);
      setPipeline(pipeline);
    };
    const usage = GPUBufferUsage.STORAGE;
    const buffer = (floats: number): GPUBuffer => device.createBuffer({ size: 4 * floats, usage });
    field.encode(pass, { points: buffer(2 * COUNT), count: COUNT, value: buffer(2 * COUNT), divergence: buffer(COUNT) });
    pass.end();
    expect(labels).toEqual([`deldot ${FUSED}`]);
    field.destroy();
  });

  test.for(["nonsense", "7", "null", "[]", remembered("fused uniform x9"), remembered("layers 4x16 by 8 lanes")])(
    "is ignored where it is %s",
    async (value) => {
      const store = memoryStore();
      store.map.set(await keyOf(), value);
      const field = await VectorField.create(device, network, { store });
      await field.reserve(COUNT);
      expect((await field.evaluate(points)).kernels).toBe("layers 4x4");
      field.destroy();
    },
  );

  test("is found again for other weights of the same shape, and not for another shape", async () => {
    const key = await keyOf();
    const other = randomMlp({ seed: 9, widths: [2, 9, 8, 2], activation: "tanh" }).network;
    const wider = randomMlp({ seed: 9, widths: [2, 9, 9, 2], activation: "tanh" }).network;
    for (const [given, found] of [
      [other, FUSED],
      [wider, "layers 4x4"],
    ] as const) {
      const store = memoryStore();
      store.map.set(key, remembered(FUSED));
      const field = await VectorField.create(device, given, { store });
      await field.reserve(COUNT);
      expect((await field.evaluate(points)).kernels).toBe(found);
      field.destroy();
    }
  });
});

describe("fileStore", () => {
  let folder: string;
  beforeAll(async () => (folder = await mkdtemp(join(tmpdir(), "deldot-store-"))));
  afterAll(() => rm(folder, { recursive: true }));

  test("gives back what was set, from the next process too, and nothing for what was not", async () => {
    const at = join(folder, "new", "store");
    await fileStore(at).set("a key, with words", "one");
    await fileStore(at).set("a key, with words", "two");
    expect(await fileStore(at).get("a key, with words")).toBe("two");
    expect(await fileStore(at).get("another")).toBeNull();
    expect(await readdir(at)).toHaveLength(1);
  });

  test("a broken file costs a field nothing but what it remembered", async () => {
    const store = fileStore(folder);
    await store.set("deldot", "x");
    for (const name of await readdir(folder)) if (name.endsWith(".json")) await writeFile(join(folder, name), "{");
    await expect(store.get("deldot")).rejects.toThrow();
    const field = await VectorField.create(device, network, { store });
    expect((await field.evaluate(points)).kernels).toBe("layers 4x4");
    field.destroy();
  });
});

describe("weights in float16", () => {
  const { network: larger } = randomMlp({ seed: 3, widths: [3, 14, 12, 3], activation: "tanh" });
  const at = randomPoints(4, 50, 3);
  const truth = evaluateReference(larger, at, { method: "tangent", outputs: ["value", "divergence", "diagonal"] });
  const scale = Float64Array.from({ length: 50 }, (_, b) => [0, 1, 2].reduce((sum, i) => sum + Math.abs(truth.diagonal![3 * b + i]!), 0));
  const worst = (divergence: Float32Array): number =>
    divergence.reduce((most, value, b) => Math.max(most, Math.abs(value - truth.divergence![b]!) / scale[b]!), 0);

  const make = (network: Network, options: VectorFieldOptions): Promise<VectorField> => VectorField.create(device, network, options);

  test.for([
    { kernels: "auto", methods: ["tangent", "cyclic"] },
    // One method each: llvmpipe takes seconds to compile a tile's kernels.
    { kernels: "layers 8x16 in float16", methods: ["cyclic"] },
    { kernels: "layers 4x16 by 8 lanes in float16", methods: ["tangent"] },
    { kernels: "layers 4x4 in groups of 16x16 in float16", methods: ["cyclic"] },
    { kernels: "fused storage x2 in float16", methods: ["tangent", "cyclic"] },
  ] as const)("are as near as they are said to be, and no nearer than their rounding, by $kernels", async ({ kernels, methods }) => {
    const { hasFloat16, lanes } = capabilitiesOf(device);
    if (!hasFloat16 || (lanes < 8 && kernels.includes("lanes")))
      return expect(make(larger, { weights: "float16", kernels })).rejects.toThrow(/shader-f16|at least \d+ lanes/);
    const field = await make(larger, { weights: "float16", kernels });
    for (const method of methods) {
      const result = await field.evaluate(at, { method });
      expect(result.kernels).toMatch(/in float16$/);
      const error = worst(result.divergence);
      expect(error).toBeLessThan(4e-3);
      expect(error).toBeGreaterThan(1e-5);
    }
    field.destroy();
  });

  test("stay in float16 through tuning", async () => {
    const { network: wide } = randomMlp({ seed: 5, widths: [17, 6, 17], activation: "tanh" });
    if (!device.features.has("shader-f16")) return expect(make(wide, { weights: "float16" })).rejects.toThrow(/shader-f16/);
    const field = await make(wide, { weights: "float16" });
    const tuned = await field.tune(50);
    expect(tuned.length).toBeGreaterThanOrEqual(3);
    for (const { kernels } of tuned) expect(kernels).toMatch(/in float16$/);
    field.destroy();
  });

  test("are refused where a name says otherwise, or a weight is too large", async () => {
    await expect(VectorField.create(device, larger, { weights: "float8" as "float16" })).rejects.toThrow(
      /"float8"; expected "float32" or "float16"/,
    );
    if (!device.features.has("shader-f16")) return;
    await expect(VectorField.create(device, larger, { weights: "float16", kernels: "layers 4x4" })).rejects.toThrow(/float16/);
    const huge = mlp({ layers: [{ weight: [[1e5]], bias: [0] }], activation: "tanh" });
    const field = await VectorField.create(device, huge, { weights: "float16" });
    await expect(field.evaluate([1])).rejects.toThrow(/100000; float16 ends at 65504/);
    field.destroy();
  });
});
