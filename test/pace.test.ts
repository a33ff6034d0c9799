import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { VectorField, type Store } from "../src/index.js";
import { openDevice } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";

const { network } = randomMlp({ seed: 1, widths: [4, 64, 64, 4], activation: "tanh" });
/** Some 30 million multiply-adds: more than one submission takes before anything is known. */
const points = randomPoints(2, 4000, 4);

let device: GPUDevice;
let close: () => Promise<void>;
let expected: Float32Array;
beforeAll(async () => {
  ({ device, close } = await openDevice());
  const field = await VectorField.create(device, network);
  expected = await field.divergence(points);
  field.destroy();
});
afterAll(() => close());

/** A store in memory that notes what it is asked. */
function memoryStore(content: [string, string][] = [], later = false): Store & { map: Map<string, string>; got: string[] } {
  const map = new Map(content);
  const got: string[] = [];
  return {
    map,
    got,
    get: (key) => {
      got.push(key);
      return later ? Promise.resolve(map.get(key)) : (map.get(key) ?? null);
    },
    set: (key, value) => {
      map.set(key, value);
      return later ? Promise.resolve() : undefined;
    },
  };
}

/** How many submissions one evaluation takes. */
async function submits(store?: Store): Promise<number> {
  const field = await VectorField.create(device, network, { store });
  const submit = device.queue.submit.bind(device.queue);
  let count = 0;
  device.queue.submit = (commands) => (count++, submit(commands));
  // As if each took no time: how many there are follows from the work alone.
  const clock = vi.spyOn(performance, "now").mockReturnValue(performance.now());
  const divergence = await field.divergence(points);
  clock.mockRestore();
  device.queue.submit = submit;
  field.destroy();
  for (const [point, value] of divergence.entries()) expect(value).toBeCloseTo(expected[point]!, 5);
  return count;
}

test.for([false, true])("create reads the store and evaluate writes to it (asynchronous: %s)", async (later) => {
  const store = memoryStore([], later);
  const field = await VectorField.create(device, network, { store });
  expect(store.got).toHaveLength(1);
  expect(store.map.size).toBe(0);
  // What is learnt may by chance be what was assumed: a slow submission, then a fast one.
  for (let call = 0; call < 5 && store.map.size === 0; call++) await field.evaluate(points);
  // Beside it, once for each plan, evaluate asks for the kernels that an earlier run chose.
  expect(store.got).toEqual([store.got[0], expect.stringContaining("deldot kernels")]);
  expect([...store.map.keys()]).toEqual([store.got[0]]);
  const learnt = Number([...store.map.values()][0]);
  expect(Number.isInteger(learnt)).toBe(true);
  expect(learnt).toBeGreaterThanOrEqual(2 ** 20);
  expect(learnt).toBeLessThanOrEqual(2 ** 36);
  field.destroy();
});

test("the key names the adapter", async () => {
  const store = memoryStore();
  const field = await VectorField.create(device, network, { store });
  expect(store.got[0]).toContain(device.adapterInfo.description || device.adapterInfo.vendor);
  field.destroy();
});

test.for([false, true])("what it holds sets the first submissions (asynchronous: %s)", async (later) => {
  const empty = memoryStore();
  const unknown = await submits(empty);
  const [key] = empty.got as [string];
  const slow = await submits(memoryStore([[key, String(2 ** 20)]], later));
  const fast = await submits(memoryStore([[key, String(2 ** 36)]], later));
  expect(fast).toBe(1);
  expect(unknown).toBeGreaterThan(fast);
  expect(slow).toBeGreaterThan(unknown);
});

test("nonsense in it is as good as nothing", async () => {
  const empty = memoryStore();
  const unknown = await submits(empty);
  const [key] = empty.got as [string];
  for (const nonsense of ["", "fast", "NaN", "-1", "0", "1", "1e99", "Infinity", "{}", 7, {}, [], null, undefined, Symbol("x"), true])
    expect(await submits({ get: (name) => (name === key ? nonsense : null) as string, set: () => undefined })).toBeGreaterThanOrEqual(
      Math.min(2, unknown),
    );
});

test("a store that fails breaks neither create nor evaluate", async () => {
  const fail = (): never => {
    throw new Error("the disk is full");
  };
  const reject = () => Promise.reject(new Error("the disk is full"));
  for (const store of [
    { get: fail, set: fail },
    { get: reject, set: reject },
    { get: () => null, set: fail },
    { get: () => null, set: reject },
  ])
    expect(await submits(store)).toBeGreaterThan(1);
});

test("no result waits for set", async () => {
  let sets = 0;
  const never = new Promise<void>(() => undefined);
  expect(await submits({ get: () => null, set: () => (sets++, never) })).toBeGreaterThan(1);
  expect(sets).toBe(1);
});

test("what nothing was learnt from is not written", async () => {
  const store = memoryStore();
  const field = await VectorField.create(device, network, { store });
  await field.evaluate(points.subarray(0, 8));
  await field.evaluate([]);
  expect(store.map.size).toBe(0);
  field.destroy();
});

test("fields of one adapter share what is remembered", async () => {
  const store = memoryStore();
  await submits(store);
  const { network: other } = randomMlp({ seed: 3, widths: [2, 3, 2], activation: "relu" });
  (await VectorField.create(device, other, { store })).destroy();
  // Kernels are remembered for each shape apart.
  expect(new Set(store.got.filter((key) => !key.startsWith("deldot kernels"))).size).toBe(1);
});
