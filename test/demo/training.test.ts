/** What the page trains with: points in, a small network that learns on the GPU or the CPU, weights out. */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Chain } from "../../demo/src/training/chain.js";
import { trainInWorker } from "../../demo/src/training/client.js";
import { trainOnCpu } from "../../demo/src/training/cpuTrainer.js";
import { readPoints, standardise } from "../../demo/src/training/points.js";
import { serve } from "../../demo/src/training/serve.js";
import { FIELD_OF, firstNetwork, trainOnGpu, type LiveLoss, type LiveTrainer } from "../../demo/src/training/trainer.js";
import { fromFragment, toFragment } from "../../demo/src/training/weights.js";
import {
  evaluateReference,
  InputError,
  logProbReference,
  mlp,
  ModelError,
  parametersOf,
  parseSafetensors,
  toSafetensors,
  vjpReference,
  type Network,
} from "../../src/index.js";
import { writeNpy } from "../../src/node/files/npy.js";
import { openDevice } from "../device.js";
import { randomPoints } from "../fields.js";
import { twoMoons } from "./twoMoons.js";

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(async () => {
  vi.unstubAllGlobals();
  await close();
});

const points = Float32Array.from(twoMoons(2000, 1));
const held = twoMoons(60, 2);

/** Trains for so many steps and maybe some more. @returns the losses of these. */
async function trainFor(trainer: LiveTrainer, steps: number): Promise<readonly number[]> {
  while (trainer.losses.length < steps) await trainer.run(20);
  return trainer.losses.slice(0, steps);
}

function meanOf(numbers: ArrayLike<number>): number {
  return Array.from(numbers).reduce((sum, each) => sum + each, 0) / numbers.length;
}

/** Of points that were held out, by steps of one size. */
function likelihoodOf(network: Network): number {
  return meanOf(logProbReference(network, held, { solver: "rk4", steps: 8 }).logProb);
}

/** The largest difference of two lists of numbers, over the largest number of the second. */
function distance(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  const sizes = Array.from(expected, Math.abs);
  return Math.max(...sizes.map((_, i) => Math.abs(found[i]! - expected[i]!))) / Math.max(...sizes);
}

test.each(["flow", "score"] as const)("f, ∇·f and the gradient of a %s are the reference's", (kind) => {
  const network = firstNetwork(kind, 3);
  const batch = 7;
  const n = 2 + network.contextSize;
  const [x, inputs, e] = [
    new Float64Array(2 * batch),
    Float64Array.from(randomPoints(1, batch, n)),
    Float64Array.from(randomPoints(2, batch, 2)),
  ];
  x.forEach((_, i) => (x[i] = inputs[n * Math.floor(i / 2) + (i % 2)]!));
  const context = kind === "flow" ? { context: inputs.filter((_, i) => i % 3 === 2) } : {};
  const chain = new Chain(network, batch);
  for (const c of [0, 0.7]) {
    chain.gradient.fill(0);
    chain.forward(inputs, c !== 0);
    chain.back(e, c);
    const { value, divergence } = evaluateReference(network, x, context);
    expect(distance(chain.value, value!)).toBeLessThan(1e-12);
    if (c !== 0) expect(distance(chain.divergence, divergence!)).toBeLessThan(1e-12);
    const exact = vjpReference(network, x, { value: e, divergence: c }, { ...context, wrt: ["points", "parameters"] });
    const flat = Object.values(exact.parameters).flatMap(({ data }) => Array.from(data));
    expect(distance(chain.gradient, flat)).toBeLessThan(1e-12);
    expect(
      distance(
        chain.ofInputs.filter((_, i) => i % n < 2),
        exact.points,
      ),
    ).toBeLessThan(1e-12);
  }
});

test.each(Object.keys(FIELD_OF) as LiveLoss[])("%s on the CPU makes the GPU's steps", async (loss) => {
  const options = { seed: 5, batch: 64 };
  const trainers = [await trainOnGpu(device, points, options), await trainOnCpu(points, options)];
  const [gpu, cpu] = await Promise.all(
    trainers.map(async (trainer) => {
      await trainer.setLoss(loss);
      const first = parametersOf(await trainer.network());
      // Of no time at all: one step each.
      for (let step = 0; step < 3; step++) await trainer.run(0);
      const last = parametersOf(await trainer.network());
      trainer.destroy();
      const moved = Object.keys(first).flatMap((name) => Array.from(last[name]!.data, (each, i) => each - first[name]!.data[i]!));
      return { losses: trainer.losses, moved };
    }),
  );
  expect(cpu!.losses).toHaveLength(3);
  expect(distance(gpu!.losses, cpu!.losses)).toBeLessThan(1e-5);
  // Adam moves a weight whose gradient is rounding by as much as any other.
  const off = cpu!.moved.map((each, i) => Math.abs(each - gpu!.moved[i]!));
  expect(meanOf(off) / meanOf(cpu!.moved.map(Math.abs))).toBeLessThan(1e-4);
});

test.each([
  ["the GPU", (): Promise<LiveTrainer> => trainOnGpu(device, points, { seed: 1, batch: 256 })],
  ["the CPU", (): Promise<LiveTrainer> => trainOnCpu(points, { seed: 1 })],
] as const)("flow matching on %s learns two moons, and what is saved is what was learnt", async (_, make) => {
  const trainer = await make();
  const before = likelihoodOf(await trainer.network());
  const losses = await trainFor(trainer, 150);
  const network = await trainer.network();
  trainer.destroy();
  expect(meanOf(losses.slice(-20))).toBeLessThan(0.5 * losses[0]!);
  expect(likelihoodOf(network)).toBeGreaterThan(before + 0.5);
  const read = parseSafetensors(toSafetensors(network));
  expect(evaluateReference(read, held, { context: 0.8 })).toEqual(evaluateReference(network, held, { context: 0.8 }));
  const linked = evaluateReference(fromFragment(toFragment(network)), held, { context: 0.8 });
  expect(distance(linked.value!, evaluateReference(network, held, { context: 0.8 }).value!)).toBeLessThan(2e-3);
  const few = held.slice(0, 10);
  const { logProb } = logProbReference(network, few, { rtol: 1e-5 });
  expect(logProb.every(Number.isFinite)).toBe(true);
  expect(logProbReference(read, few, { rtol: 1e-5 }).logProb).toEqual(logProb);
});

test("maximum likelihood goes on with the flow, from a poor start", async () => {
  const trainer = await trainOnCpu(points, { seed: 1, batch: 64 });
  await trainer.setLoss("max_likelihood");
  const before = likelihoodOf(await trainer.network());
  const losses = await trainFor(trainer, 120);
  const after = likelihoodOf(await trainer.network());
  expect(after).toBeGreaterThan(before + 0.5);
  expect(meanOf(losses.slice(-20))).toBeLessThan(losses[0]! - 0.5);
  // Back at flow matching, that is where it begins.
  await trainer.setLoss("flow_matching");
  expect(trainer.losses).toEqual([]);
  expect(likelihoodOf(await trainer.network())).toBeCloseTo(after, 5);
  trainer.destroy();
  await expect(trainer.run(10)).rejects.toThrow("destroyed");
});

test("score matching lowers its loss, and makes a field without time", async () => {
  const trainer = await trainOnCpu(points, { seed: 1 });
  await trainer.setLoss("score_matching");
  const losses = await trainFor(trainer, 150);
  expect(meanOf(losses.slice(-20))).toBeLessThan(losses[0]! - 10);
  expect((await trainer.network()).contextSize).toBe(0);
  await trainer.setLoss("flow_matching");
  expect((await trainer.network()).contextSize).toBe(1);
});

/** The inside of a worker at the other end of a line, in this thread. */
class NearWorker extends EventTarget {
  static last: NearWorker;
  private readonly line = new MessageChannel();

  constructor(readonly url: URL) {
    super();
    NearWorker.last = this;
    const { port1, port2 } = this.line;
    serve(port1);
    port2.addEventListener("message", ({ data }) => this.dispatchEvent(new MessageEvent("message", { data })));
    for (const port of [port1, port2]) port.start();
  }

  postMessage(message: unknown): void {
    this.line.port2.postMessage(message);
  }

  terminate(): void {
    this.line.port1.close();
  }
}

test("a trainer in a worker does what one at hand does", async () => {
  vi.stubGlobal("Worker", NearWorker);
  const options = { seed: 2, batch: 64 };
  const both = [await trainInWorker(points, options), await trainOnCpu(points, options)] as const;
  expect(NearWorker.last.url.pathname).toMatch(/demo\/src\/training\/worker\.ts$/);
  for (const each of both) {
    const progress = await Promise.all([each.run(0), each.run(0)]);
    expect(progress.map(({ step }) => step)).toEqual([1, 2]);
    expect(progress[1].loss).toBe(each.losses[1]);
    await each.setLoss("score_matching");
    await each.run(0);
  }
  const [remote, local] = both;
  expect([remote.loss, remote.losses]).toEqual([local.loss, local.losses]);
  expect(toFragment(await remote.network())).toBe(toFragment(await local.network()));
  expect(toSafetensors(await remote.network())).toEqual(toSafetensors(await local.network()));
  const lost = expect(remote.network()).rejects.toThrow("out of memory");
  NearWorker.last.dispatchEvent(Object.assign(new Event("error"), { message: "out of memory" }));
  await lost;
  await expect(remote.run(0)).rejects.toThrow("out of memory");
  for (const each of both) each.destroy();
  await expect(trainInWorker(Float32Array.of(1))).rejects.toThrow("points are 1 numbers");
});

describe("a network in a link", () => {
  test.each([
    ["flow", 12_143],
    ["score", 11_972],
  ] as const)("of a %s has %i characters, and hardly changes the field", (kind, length) => {
    // As large as trained weights are.
    const first = firstNetwork(kind, 7);
    const parameters = parametersOf(first);
    const layers = [0, 1, 2].map((layer) => ({
      weight: { data: parameters[`${layer}.weight`]!.data.map((each) => 3 * each), shape: parameters[`${layer}.weight`]!.shape },
      bias: parameters[`${layer}.bias`]!.data,
    }));
    const network = mlp({ layers, activation: "gelu_tanh" });
    const text = toFragment(network);
    expect(text).toMatch(/^a\.gelu_tanh\.[01]\.64-64\.[\w-]+$/);
    expect(text).toHaveLength(length);
    const read = fromFragment(text);
    expect([read.stateSize, read.contextSize]).toEqual([network.stateSize, network.contextSize]);
    const context = kind === "flow" ? { context: 0.6 } : {};
    const [found, exact] = [read, network].map((each) => evaluateReference(each, held, context));
    expect(distance(found!.value!, exact!.value!)).toBeLessThan(2e-3);
    expect(distance(found!.divergence!, exact!.divergence!)).toBeLessThan(2e-3);
    expect(toFragment(read)).toBe(text);
  });

  test("keeps order, widths and activations of others", () => {
    const layer = (outputs: number, inputs: number): { weight: { data: Float32Array; shape: number[] }; bias: Float32Array } => ({
      weight: { data: Float32Array.from({ length: outputs * inputs }, (_, i) => (i % 31) / 32 - 0.5), shape: [outputs, inputs] },
      bias: Float32Array.from({ length: outputs }, (_, i) => i / 64),
    });
    const network = mlp({ layers: [layer(5, 3), layer(128, 5), layer(4, 128), layer(2, 4)], activation: "tanh" });
    const read = fromFragment(toFragment(network));
    expect(evaluateReference(read, held, { context: 0.3 })).toEqual(evaluateReference(network, held, { context: 0.3 }));
  });

  test("is not written where no page would read it", () => {
    const layers = (...widths: number[]) =>
      widths.slice(1).map((outputs, i) => ({
        weight: { data: new Float32Array(outputs * widths[i]!), shape: [outputs, widths[i]!] },
        bias: new Float32Array(outputs),
      }));
    const refused = [
      mlp({ layers: layers(2, 129, 2), activation: "silu" }),
      mlp({ layers: layers(2, 4, 4, 4, 4, 2), activation: "silu" }),
      mlp({ layers: layers(2, 2) }),
      mlp({ layers: layers(3, 8, 3), activation: "silu" }),
      mlp({ layers: layers(4, 8, 2), activation: "silu" }),
      mlp({ layers: layers(2, 8, 2), activation: "elu(0.5)" }),
      mlp({ layers: layers(2, 8, 2), activation: "silu,tanh" }),
      mlp({ layers: layers(2, 8, 8, 2), activation: "silu,tanh" }),
    ];
    for (const network of refused) expect(() => toFragment(network)).toThrow(ModelError);
    expect(() =>
      toFragment(
        mlp({
          layers: [
            { weight: [[1e5, 0]], bias: [0] },
            { weight: [[1], [0]], bias: [0, 0] },
          ],
          activation: "silu",
        }),
      ),
    ).toThrow("float16");
  });

  const small = `a.silu.0.1.${"A".repeat(19)}`;
  test.each([
    ["nothing", ""],
    ["the page's own state", "%7B%22field%22%3A%22random%22%7D"],
    ["another version", small.replace("a.", "b.")],
    ["an unknown activation", small.replace("silu", "siloo")],
    ["a name that every object has", small.replace("silu", "constructor")],
    ["two contexts", small.replace(".0.", ".2.")],
    ["no hidden layer", "a.silu.0..AAAAAAAA"],
    ["a layer of no width", small.replace(".1.", ".0.")],
    ["a layer too wide", small.replace(".1.", ".129.")],
    ["four hidden layers", small.replace(".1.", ".1-1-1-1.")],
    ["a width that is no whole number", small.replace(".1.", ".1e2.")],
    ["too few weights", small.slice(0, -1)],
    ["too many weights", `${small}A`],
    ["sizes that its weights do not have", small.replace(".1.", ".128-128-128.")],
    ["base64 of the other kind", small.replace(/A$/, "+")],
    ["padding", small.replace(/A$/, "=")],
    ["bits to spare", small.replace(/A$/, "B")],
    ["a line break at its end", `${small}\n`],
    ["an infinity", small.replace("AAAA", "AHwA")],
    ["no number", small.replace("AAAA", "AH4A")],
  ])("that has %s is refused", (what, text) => {
    expect(fromFragment(small).operations).toHaveLength(3);
    expect(() => fromFragment(text), what).toThrow(ModelError);
  });
});

describe("points out of files", () => {
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
  const joined = (parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]));
  const npy = (data: Float32Array | Float64Array, shape: readonly number[]): Uint8Array => joined(writeNpy({ data, shape }));
  const numbers = [1, -2, 0.5, 4, 1e-3, 6];
  const fortran = npy(Float64Array.of(1, 0.5, 1e-3, -2, 4, 6), [3, 2]);
  fortran.set(bytes("True "), new TextDecoder("latin1").decode(fortran).indexOf("False"));

  test.each([
    ["x.npy", npy(Float32Array.from(numbers), [3, 2])],
    ["x.NPY", npy(Float64Array.from(numbers), [3, 2])],
    ["fortran.npy", fortran],
    ["x.csv", bytes("1,-2\n0.5,4\n1e-3,6\n")],
    ["names.csv", bytes("x,y\r\n1,-2\r\n0.5,4\r\n0.001,6")],
    ["semicolons.csv", bytes("x;y\n1;-2\n0.5;4\n1e-3;6\n")],
    ["tabs.tsv", bytes("1\t-2\n0.5\t4\n1e-3\t6\n")],
  ])("%s", (name, file) => {
    expect(readPoints(name, file)).toEqual(Float32Array.from(numbers));
  });

  test.each([
    ["x.png", bytes("1,2\n"), "neither .npy nor .csv"],
    ["three.csv", bytes("1,2,3\n4,5,6\n"), "it has 3 columns; expected 2"],
    ["one.csv", bytes("1\n2\n"), "it has 1 column; expected 2"],
    ["names.csv", bytes("x,y\n"), "it holds no numbers"],
    ["ragged.csv", bytes("1,2\n3\n"), "line 2 has 1 cells; expected 2"],
    ["words.csv", bytes("1,2\n3,four\n"), "line 2, cell 2"],
    ["nan.csv", bytes("1,2\nnan,4\n"), "point 2 has the coordinate NaN"],
    ["binary.csv", Uint8Array.of(0xff, 0xfe, 0), "not text in UTF-8"],
    ["three.npy", npy(Float64Array.from(numbers), [2, 3]), "it has 3 columns; expected 2"],
    ["flat.npy", npy(Float64Array.from(numbers), [6]), "its shape is (6); expected (n, 2)"],
    ["cube.npy", npy(Float64Array.from(numbers), [1, 3, 2]), "its shape is (1, 3, 2)"],
    ["none.npy", npy(new Float64Array(0), [0, 2]), "it has no points"],
    ["large.npy", npy(Float64Array.of(1, 1e300), [1, 2]), "point 1 has the coordinate 1e+300"],
    ["cut.npy", npy(Float64Array.from(numbers), [3, 2]).slice(0, -1), "takes 48 bytes"],
    ["text.npy", bytes("1,2\n3,4\n5,6\n"), "expected a .npy file"],
  ])("%s is refused", (name, file, reason) => {
    const read = (): unknown => readPoints(name, file);
    expect(read).toThrow(InputError);
    expect(read).toThrow(`${name}: `);
    expect(read).toThrow(reason);
  });

  test("that lie on the stage stay as they are; others are moved there, in shape", () => {
    expect(standardise(points)).toEqual({ points, centre: [0, 0], scale: 1 });
    for (const [size, x, y] of [
      [200, 1000, -50],
      [1e-3, 0, 0],
      [1, 5, 0],
    ] as const) {
      const far = points.map((each, i) => size * each + (i % 2 === 0 ? x : y));
      const staged = standardise(far);
      const [means, squares] = [0, 1].map((power) =>
        [0, 1].map((k) => meanOf(staged.points.filter((_, i) => i % 2 === k).map((each) => each ** (power + 1)))),
      );
      for (const mean of means!) expect(mean).toBeCloseTo(0, 4);
      expect(meanOf(squares!)).toBeCloseTo(1, 3);
      const back = staged.points.map((each, i) => each * staged.scale + staged.centre[i % 2]!);
      expect(distance(back, far)).toBeLessThan(1e-6);
    }
    // Means of many equal numbers round, which is no size.
    const same = Float32Array.from({ length: 6000 }, (_, i) => [0.1, 0.2][i % 2]!);
    expect(standardise(same).scale).toBe(1);
    expect(Math.max(...standardise(same).points)).toBeLessThan(1e-6);
    expect(standardise(Float32Array.of(7, 8, 7, 8))).toEqual({ points: Float32Array.of(0, 0, 0, 0), centre: [7, 8], scale: 1 });
  });

  test("none are no points to train on", async () => {
    for (const bad of [Float32Array.of(), Float32Array.of(1, 2, 3), Float32Array.of(1, NaN)]) {
      await expect(trainOnCpu(bad)).rejects.toThrow(InputError);
      await expect(trainOnGpu(device, bad)).rejects.toThrow(InputError);
    }
  });
});
