/** The command that trains. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DeviceLostError, parametersOf, parseSafetensors, ReferenceField, type Network } from "../../src/index.js";
import { trainToEnd } from "../../src/node/cli/trainLoop.js";
import { splitRows } from "../../src/node/cli/validation.js";
import { writeNpy } from "../../src/node/files/npy.js";
import { requestDevice } from "../../src/node/index.js";
import { readTensors } from "../../src/tensorFile.js";
import { runDeldot, type CommandParameters, type Outcome } from "./command.js";

const count = 50;
/** Of no shape in particular. */
const points = Float32Array.from({ length: 2 * count }, (_, i) => Math.sin(1 + i * i) + (i % 2));
const small = ["--hidden", "8", "--batch", "16", "--seed", "3"];

let folder: string;
const deldot = (...parameters: CommandParameters): Promise<Outcome> => runDeldot(folder, ...parameters);
const write = (name: string, data: Float32Array, width: number): Promise<void> =>
  writeFile(join(folder, name), Buffer.concat(writeNpy({ data, shape: [data.length / width, width] })));
const read = (name: string): Promise<Buffer> => readFile(join(folder, name));
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "deldot-train-"));
  await write("points.npy", points, 2);
  await write("targets.npy", points.toReversed(), 2);
  await write("context.npy", points.subarray(count), 1);
});
afterAll(() => rm(folder, { recursive: true }));

interface Report {
  readonly losses: { readonly first: number; readonly last: number; readonly mean: number };
  readonly validation: { readonly quantity: string; readonly mean: number; readonly standardError: number; readonly points: number };
}

async function train(...parameters: string[]): Promise<Report> {
  const { status, stdout, stderr } = await deldot(["train", "points.npy", ...parameters, "--json"]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return JSON.parse(stdout) as Report;
}

const network = async (name: string): Promise<Network> => parseSafetensors(await read(name));

function meanAndError(values: readonly number[]): { mean: number; standardError: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  return { mean, standardError: Math.sqrt(variance / values.length) };
}

function rowsAt(data: Float32Array, width: number, indices: readonly number[]): Float32Array {
  return Float32Array.from(indices.flatMap((index) => [...data.subarray(index * width, (index + 1) * width)]));
}

describe("a flow", () => {
  const held = splitRows(count, 10, 3).held;
  beforeAll(() => write("held.npy", rowsAt(points, 2, held), 2));

  test("is written as a file that the other commands open, with how well it meets the points held out", async () => {
    const report = await train(...small, "--steps", "120", "--lr", "0.01", "--validation", "0.2", "--out", "flow.safetensors");
    expect(report).toEqual({
      loss: "flow-matching",
      steps: 120,
      losses: { first: expect.any(Number) as number, last: expect.any(Number) as number, mean: expect.any(Number) as number },
      stepsPerSecond: expect.any(Number) as number,
      validation: {
        quantity: "log-density",
        mean: expect.any(Number) as number,
        standardError: expect.any(Number) as number,
        points: 10,
      },
      adapter: expect.any(String) as string,
      files: ["flow.safetensors", "flow.train.safetensors"],
    });
    const { stdout } = await deldot(["logprob", "flow.safetensors", "--points", "held.npy", "--json"]);
    const { mean, standardError } = meanAndError((JSON.parse(stdout) as { logProb: number[] }).logProb);
    expect(report.validation.mean).toBeCloseTo(mean, 5);
    expect(report.validation.standardError).toBeCloseTo(standardError, 5);
    const { metadata, tensors } = readTensors(await read("flow.safetensors"));
    expect(Object.fromEntries(metadata)).toEqual({ activation: "silu", context: "1", contextColumns: "last" });
    expect(tensors.map(({ name, shape }) => [name, shape])).toEqual([
      ["0.weight", [8, 3]],
      ["0.bias", [8]],
      ["2.weight", [2, 8]],
      ["2.bias", [2]],
    ]);
    expect((await deldot(["info", "flow.safetensors"])).stdout).toContain("state of 2, context of 1, 50 parameters");
    expect((await deldot(["sample", "flow.safetensors", "--count", "4"])).status).toBe(0);
  });

  test("resumed is the same to the byte as uninterrupted, by the name of either file and with no other option", async () => {
    const options = [...small, "--optimizer", "adamw", "--warm-up", "5", "--clip", "1", "--context", "context.npy", "--validation", "0.2"];
    const whole = await train(...options, "--steps", "30", "--out", "whole.safetensors");
    await train(...options, "--steps", "7", "--out", "parts.safetensors");
    await train("--resume", "parts.safetensors", "--steps", "19");
    const last = await train("--resume", "parts.train.safetensors", "--steps", "30");
    expect(await read("parts.safetensors")).toEqual(await read("whole.safetensors"));
    expect(await read("parts.train.safetensors")).toEqual(await read("whole.train.safetensors"));
    expect(last.validation).toEqual(whole.validation);
    expect(last.losses.last).toBe(whole.losses.last);
    const asked = await deldot(["train", "points.npy", "--resume", "parts.safetensors"]);
    expect(asked.stderr).toBe("deldot: parts.safetensors: its run has made 30 steps; expected --steps above that, not 30\n");
  });

  test("by maximum likelihood is the trainer's own, with its solver and steps", async () => {
    const options = [...small, "--loss", "max-likelihood", "--steps", "3", "--out", "likely.safetensors"];
    const first = async (...own: string[]): Promise<number> => (await train(...options, ...own)).losses.first;
    const usual = await first();
    expect(await first("--solver", "rk4", "--solver-steps", "8")).toBe(usual);
    expect(await first("--solver", "euler", "--solver-steps", "1")).not.toBe(usual);
  });

  test("from a state with other numbers than a trainer leaves is refused, with the name of its file", async () => {
    await train(...small, "--steps", "2", "--out", "spoilt.safetensors");
    const state = await read("spoilt.train.safetensors");
    const from = 8 + Number(state.readBigUInt64LE(0));
    for (let at = from; at < state.length; at += 4) state.writeFloatLE(NaN, at);
    await writeFile(join(folder, "spoilt.train.safetensors"), state);
    const { status, stderr } = await deldot(["train", "points.npy", "--resume", "spoilt.safetensors", "--steps", "4"]);
    expect(stderr).toMatch(/^deldot: spoilt\.train\.safetensors: the state's weights are .*\n$/);
    expect(status).toBe(2);
  });

  test("that Ctrl-C stops is kept, and goes on to the same numbers", async () => {
    const options = [...small, "--out", "stopped.safetensors", "--steps"];
    let stopped: Outcome | undefined;
    // How soon the first step is made depends on the machine.
    for (const delay of [1500, 4500, 13_500]) {
      stopped = await deldot(["train", "points.npy", ...options, "1000000"], {}, delay);
      expect(stopped.status).toBe(130);
      if (stopped.stderr.includes("wrote")) break;
    }
    const [, made] =
      /^deldot: wrote stopped\.safetensors and stopped\.train\.safetensors after (\d+) of 1000000 steps; --resume stopped\.safetensors goes on\ndeldot: interrupted by SIGINT\n$/.exec(
        stopped!.stderr,
      )!;
    const steps = String(Number(made) + 5);
    await train("--resume", "stopped.safetensors", "--steps", steps);
    await train(...small, "--steps", steps, "--out", "unstopped.safetensors");
    expect(await read("stopped.train.safetensors")).toEqual(await read("unstopped.train.safetensors"));
    expect((await readdir(folder)).filter((name) => name.startsWith("."))).toEqual([]);
  });

  test("begins with the weights of --model, and is written averaged or as the last step left it", async () => {
    const common = ["--batch", "16", "--steps", "3", "--averaging", "0.9"];
    await train(...small, "--steps", "5", "--out", "first.safetensors");
    await train("--model", "first.safetensors", ...common, "--lr", "1e-30", "--weights", "last", "--out", "second.safetensors");
    expect(parametersOf(await network("second.safetensors"))).toEqual(parametersOf(await network("first.safetensors")));
    await train("--model", "first.safetensors", ...common, "--out", "averaged.safetensors");
    await train("--model", "first.safetensors", ...common, "--weights", "last", "--out", "last.safetensors");
    const { tensors } = readTensors(await read("last.train.safetensors"));
    for (const [name, file] of [
      ["averaged", "averaged.safetensors"],
      ["weights", "last.safetensors"],
    ] as const) {
      const flat = Object.values(parametersOf(await network(file))).flatMap(({ data }) => [...data]);
      const { data } = tensors.find((tensor) => tensor.name === name)!;
      expect(flat).toEqual(flat.map((_, index) => data.getFloat32(4 * index, true)));
    }
    expect(await read("averaged.safetensors")).not.toEqual(await read("last.safetensors"));
  });
});

test("a regression says its squared error on the points held out; its context has no time", async () => {
  const options = ["--loss", "regression", "--targets", "targets.npy", "--context", "context.npy", "--steps", "40", "--lr", "0.01"];
  const { validation, losses } = await train(...small, ...options, "--validation", "0.2", "--out", "regression.safetensors");
  expect(losses.mean).toBeLessThan(losses.first);
  const { held } = splitRows(count, 10, 3);
  const field = new ReferenceField(await network("regression.safetensors"));
  const { value } = await field.evaluate(rowsAt(points, 2, held), { context: rowsAt(points.subarray(count), 1, held), outputs: ["value"] });
  const targets = rowsAt(points.toReversed(), 2, held);
  const squares = held.map((_, row) => [0, 1].reduce((sum, k) => sum + (value[2 * row + k]! - targets[2 * row + k]!) ** 2 / 2, 0));
  expect(validation).toMatchObject({ quantity: "squared error", points: 10 });
  expect(validation.mean).toBeCloseTo(meanAndError(squares).mean, 4);
  expect(validation.standardError).toBeCloseTo(meanAndError(squares).standardError, 4);
});

test.each([
  ["score-matching", "0.2", null],
  ["denoising-score-matching", "0.2", null],
  ["denoising-score-matching", "0.05,2", 0.05],
])("%s with noise %s says the objective on the points held out, at the least σ where it takes one", async (loss, noise, sigma) => {
  const options = ["--loss", loss, "--noise", noise, "--steps", "20", "--validation", "0.2", "--out", "score.safetensors"];
  const { validation } = await train(...small, ...options);
  const { held } = splitRows(count, 10, 3);
  const score = await network("score.safetensors");
  expect(score.contextSize).toBe(sigma === null ? 0 : 1);
  const { value, divergence } = await new ReferenceField(score).evaluate(rowsAt(points, 2, held), {
    ...(sigma !== null && { context: sigma }),
    outputs: ["value", "divergence"],
  });
  const objective = held.map((_, row) => 0.5 * (value[2 * row]! ** 2 + value[2 * row + 1]! ** 2) + divergence[row]!);
  expect(validation).toMatchObject({ quantity: "score-matching objective", points: 10 });
  expect(validation.mean).toBeCloseTo(meanAndError(objective).mean, 4);
});

test("a loss that is not finite ends with 2, and leaves the weights of before it", async () => {
  const options = ["--loss", "regression", "--targets", "targets.npy", "--optimizer", "sgd", "--lr", "1e12", "--steps", "50"];
  const { status, stderr } = await deldot([
    "train",
    "points.npy",
    ...small,
    ...options,
    "--activation",
    "square",
    "--out",
    "nan.safetensors",
  ]);
  const [, made] = /^deldot: wrote nan\.safetensors and nan\.train\.safetensors after (\d+) of 50 steps\n/.exec(stderr)!;
  expect(stderr).toContain(`the loss of step ${made}, `);
  expect(status).toBe(2);
  expect((await network("nan.safetensors")).stateSize).toBe(2);
});

const out = ["--out", "none.safetensors"];

test.each<[why: string, parameters: string[]]>([
  ["argument 'nope' is invalid. Allowed choices are regression, flow-matching,", ["--loss", "nope", ...out]],
  ["argument 'cpu' is invalid", ["--adapter", "cpu", ...out]],
  ["argument '8,0' is invalid. Expected whole numbers from 1 to 65536", ["--hidden", "8,0", ...out]],
  ["argument '1,0.1' is invalid", ["--loss", "score-matching", "--noise", "1,0.1", ...out]],
  ["--noise is 1,1, an option of --loss denoising-score-matching, score-matching,", ["--noise", "1", ...out]],
  ["--momentum is 0.9, an option of --optimizer sgd; expected none for adam", ["--momentum", "0.9", ...out]],
  ["--noise is [1e-30, 1e-30]; expected", ["--loss", "score-matching", "--noise", "1e-30", ...out]],
  ["--solver is rk4, an option of --loss max-likelihood; expected none for flow-matching", ["--solver", "rk4", ...out]],
  ["--solver-steps is 3, an option of --loss max-likelihood", ["--solver-steps", "3", ...out]],
  ['--activation is "silly"; expected one of', ["--activation", "silly", ...out]],
  ["--activation: 2 activations", ["--hidden", "8,8,8", "--activation", "silu,tanh", ...out]],
  ["--loss regression is given no --targets", ["--loss", "regression", ...out]],
  ["targets.npy: its rows have 2 numbers; expected 1", ["--loss", "regression", "--targets", "targets.npy", ...out]],
  ["short.json: its shape is [1, 2]; expected 50 rows", ["--context", "short.json", ...out]],
  ["--hidden is 8, but --model has a network of its own", ["--model", "model.safetensors", "--hidden", "8", ...out]],
  [
    "model.safetensors: the network has a context of 1; expected 2, as",
    ["--model", "model.safetensors", "--context", "context.npy", ...out],
  ],
  ["--model is", ["--resume", "model.safetensors", "--model", "model.safetensors"]],
  ["--activation is relu, but --resume has", ["--resume", "model.safetensors", "--activation", "relu"]],
  ["model.safetensors: the network has a context of 1; expected 0", ["--resume", "model.safetensors", "--loss", "score-matching"]],
  ["absent.train.safetensors: no such file", ["--resume", "absent.safetensors"]],
  ["points.train.safetensors: safetensors: the header's length", ["--resume", "points.safetensors"]],
  ["alien.train.safetensors: its options are not those of a training run: option '--lr", ["--resume", "alien.safetensors"]],
  ["--validation is 0.001, which of the 50 points of", ["--validation", "0.001", ...out]],
  ["there is no --out", []],
  ['none.onnx: its extension is ".onnx"; expected .safetensors', ["--out", "none.onnx"]],
  ["--out none.train.safetensors: so are the states of runs called", ["--out", "none.train.safetensors"]],
  [
    "model.safetensors: it is the same file as model.safetensors, which is read",
    ["--model", "model.safetensors", "--out", "model.safetensors"],
  ],
  ["taken.train.safetensors: it is a folder; expected a file that can be written", ["--out", "taken.safetensors"]],
])("is refused before any work: %s", async (why, parameters) => {
  await prepareRefusals();
  const before = await readdir(folder);
  const data = why.startsWith("targets.npy") ? "context.npy" : "points.npy";
  const { status, stdout, stderr } = await deldot(["train", data, ...parameters], { VK_DRIVER_FILES: "/nowhere" });
  expect(stderr).toContain(why);
  expect(stderr).toMatch(/^deldot: .*\n$/);
  expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
  expect(await readdir(folder)).toEqual(before);
});

let prepared: Promise<unknown> | undefined;
function prepareRefusals(): Promise<unknown> {
  return (prepared ??= (async () => {
    await writeFile(join(folder, "short.json"), "[[1, 2]]");
    await mkdir(join(folder, "taken.train.safetensors"));
    await train(...small, "--steps", "1", "--out", "model.safetensors");
    for (const name of ["points.train.safetensors", "alien.safetensors"]) await writeFile(join(folder, name), await read("points.npy"));
    const state = (await read("model.train.safetensors")).toString("latin1");
    expect(state).toContain('\\"--batch\\",\\"16\\"');
    await writeFile(join(folder, "alien.train.safetensors"), state.replace('\\"--batch\\",\\"16\\"', '\\"--lr\\",\\"fast\\" '), "latin1");
  })());
}

test("points that are a flat list, none, or not finite are refused", async () => {
  for (const [text, why] of [
    ["[1, 2, 3, 4]", "it is a flat list, which does not tell how many components a point has"],
    ["[]", "it is a flat list"],
    ['{"count": 0, "points": []}', "it holds no points"],
    ["[[1, 2], [3, null]]", "number 2 of row 2 is NaN; expected finite numbers"],
    ["[[1, 1e39]]", "number 2 of row 1 is 1e+39; expected finite numbers"],
  ] as const) {
    await writeFile(join(folder, "bad.json"), text);
    const { status, stderr } = await deldot(["train", "bad.json", ...out], { VK_DRIVER_FILES: "/nowhere" });
    expect(stderr).toContain(`deldot: bad.json: ${why}`);
    expect(status).toBe(2);
  }
});

test("a lost device is replaced, and the numbers are the same; the fourth ends the run", async () => {
  const run = {
    network: { stateSize: 2, hidden: [8], contextSize: 1 },
    options: { loss: "flow_matching", batch: 16, seed: 3 },
    points,
    data: {},
    steps: 150,
    state: null,
  } as const;
  /** Loses so many devices, each once it is after some step. */
  const loop = (losses: number, after: number) => {
    let opened: Awaited<ReturnType<typeof requestDevice>>;
    const at: number[] = [];
    const ended = trainToEnd(run, {
      open: async () => (opened = await requestDevice()),
      averaged: false,
      signal: new AbortController().signal,
      onProgress: (done) => {
        if (at.length < losses && done > after) opened.device.destroy();
      },
      onLost: (error, from) => {
        expect(error).toBeInstanceOf(DeviceLostError);
        at.push(from);
      },
    });
    return { ended, at };
  };
  const whole = await loop(0, 0).ended;
  // Where it stands is noted after 100 steps.
  const lost = loop(1, 100);
  const again = await lost.ended;
  expect(lost.at).toEqual([100]);
  expect(again.state).toEqual(whole.state);
  expect(again.losses).toEqual(whole.losses);
  expect(parametersOf(again.network)).toEqual(parametersOf(whole.network));
  const end = loop(4, 0);
  await expect(end.ended).rejects.toThrow(DeviceLostError);
  expect(end.at).toEqual([0, 0, 0]);
});
