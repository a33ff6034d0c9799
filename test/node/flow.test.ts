/** The commands about flows: logprob, sample, and heatmap of log p. */
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { decode } from "fast-png";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readCsv } from "../../src/node/files/csv.js";
import { readNpy, writeNpy } from "../../src/node/files/npy.js";
import { onnxFile } from "../onnx.js";
import { readTensors } from "../tensors.js";
import { runDeldot, type CommandParameters, type Outcome } from "./command.js";

const moons = resolve("demo/models/two-moons-flow.safetensors");
const lorenz = resolve("demo/models/lorenz.safetensors");
const { tensors: truth } = readTensors(readFileSync("test/vectors/flows/two-moons-flow.safetensors"));
const logDensity = truth.get("log_density")!;
const count = logDensity.length;

let folder: string;
const deldot = (...parameters: CommandParameters): Promise<Outcome> => runDeldot(folder, ...parameters);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "deldot-flow-"));
  await writeFile(join(folder, "points.npy"), Buffer.concat(writeNpy({ data: truth.get("points")!, shape: [count, 2] })));
  await writeFile(join(folder, "three.csv"), "0.5,-1\n0.1,nan\n2,2\n");
  // dx/dt = a x - 2 x t²: its flow is a scaling, by exp(a - 2/3) from noise to data.
  await writeFile(
    join(folder, "scale.onnx"),
    onnxFile({
      inputs: { x: ["batch", 2], t: ["batch", 1], a: ["batch", 1] },
      nodes: [
        ["Mul", ["t", "t"], ["square"]],
        ["Mul", ["square", "two"], ["decay"]],
        ["Sub", ["a", "decay"], ["rate"]],
        ["Mul", ["x", "rate"], ["v"]],
      ],
      outputs: ["v"],
      initializers: { two: { shape: [1], data: [2] } },
    }),
  );
});
afterAll(() => rm(folder, { recursive: true }));

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect(actual).toHaveLength(expected.length);
  for (let i = 0; i < expected.length; i++) expect(Math.abs(actual[i]! - expected[i]!), `entry ${i}`).toBeLessThanOrEqual(tolerance);
}

const npy = async (name: string): Promise<ReturnType<typeof readNpy>> => readNpy(await readFile(join(folder, name)));
const scaling = ["scale.onnx", "--state", "x", "--context-order", "t,a"];
/** log p of a normal distribution of two components, its standard deviation exp(logScale). */
const logNormal = ([x, y]: readonly number[], logScale: number): number =>
  -(x! ** 2 + y! ** 2) / (2 * Math.exp(2 * logScale)) - Math.log(2 * Math.PI) - 2 * logScale;

describe("logprob", () => {
  test("gives torch's numbers, as one JSON object", async () => {
    const { status, stdout, stderr } = await deldot([
      "logprob",
      moons,
      "--points",
      "points.npy",
      "--rtol",
      "1e-6",
      "--atol",
      "1e-6",
      "--json",
    ]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const result = JSON.parse(stdout) as Record<string, unknown>;
    expect(Object.keys(result)).toEqual([
      "count",
      "state",
      "method",
      "solver",
      "adapter",
      "milliseconds",
      "logProb",
      "base",
      "evaluations",
      "status",
    ]);
    expect(result).toMatchObject({ count, state: 2, method: "exact", solver: "tsit5" });
    expectClose(result["logProb"] as number[], logDensity, 2e-4);
    expectClose((result["base"] as number[][]).flat(), truth.get("points_at_0")!, 1e-3);
    for (const each of result["evaluations"] as number[]) expect(each).toBeGreaterThan(7);
    expect(result["status"]).toEqual(Array.from({ length: count }, () => "done"));
  });

  test("in float64 on the CPU, with no device", async () => {
    const given = ["logprob", moons, "--points", "points.npy", "--adapter", "reference", "--json"];
    const { status, stdout } = await deldot([...given, "--rtol", "1e-7", "--atol", "1e-7"], { VK_DRIVER_FILES: "/nowhere" });
    expect(status).toBe(0);
    const result = JSON.parse(stdout) as { adapter: string; logProb: number[] };
    expect(result.adapter).toBe("float64 reference on the CPU");
    expectClose(result.logProb, logDensity, 1e-5);
  });

  test("writes .npy, .csv and .json, and sums them up", async () => {
    for (const name of ["r.npy", "r.csv", "r.json"]) {
      const { status, stdout } = await deldot(["logprob", moons, "--points", "points.npy", "--out", name]);
      expect(status).toBe(0);
      expect(stdout).toContain(`wrote ${name}`);
      const mean = logDensity.reduce((sum, each) => sum + each, 0) / count;
      const [, nats, bits, evaluations] = /^log p: mean (\S+), .*; (\S+) bits per dimension; (\S+) evaluations per point$/m.exec(stdout)!;
      expect(Number(nats)).toBeCloseTo(mean, 2);
      expect(Number(bits)).toBeCloseTo(-mean / 2 / Math.LN2, 2);
      expect(Number(evaluations)).toBeGreaterThan(20);
    }
    const logProb = await npy("r.npy");
    expect(logProb.shape).toEqual([count]);
    expect((await npy("r.base.npy")).shape).toEqual([count, 2]);
    const csv = await readFile(join(folder, "r.csv"), "utf8");
    expect(csv.split("\n")[0]).toBe("x0,x1,z0,z1,logProb,evaluations");
    const column = readCsv(csv).data.filter((_, index) => index % 6 === 4);
    expect(column).toEqual(logProb.data);
    const json = JSON.parse(await readFile(join(folder, "r.json"), "utf8")) as { logProb: number[] };
    expect(json.logProb).toEqual([...logProb.data]);
  });

  test("says how many points have none and why; the others have theirs", async () => {
    const { status, stdout, stderr } = await deldot(["logprob", moons, "--points", "three.csv", "--json"]);
    expect(stderr).toBe("deldot: 1 of 3 points did not get to the end of their paths: 1 not finite\n");
    expect(status).toBe(0);
    const result = JSON.parse(stdout) as { logProb: (number | null)[]; base: (number | null)[][]; status: string[] };
    expect(result.logProb.map((each) => each === null)).toEqual([false, true, false]);
    expect(result.base[1]).toEqual([null, null]);
    expect(result.status).toEqual(["done", "not finite", "done"]);
  });

  test("takes steps of one size, and hutchinson's estimate by its seed", async () => {
    const estimate = async (seed: string): Promise<number[]> => {
      const probes = ["--method", "hutchinson", "--probes", "4", "--seed", seed];
      const { stdout } = await deldot([
        "logprob",
        moons,
        "--points",
        "points.npy",
        "--solver",
        "rk4",
        "--steps",
        "10",
        ...probes,
        "--json",
      ]);
      return (JSON.parse(stdout) as { logProb: number[] }).logProb;
    };
    const [one, again, other] = [await estimate("1"), await estimate("1"), await estimate("2")];
    expect(one).toEqual(again);
    expect(one).not.toEqual(other);
  });

  test("takes a condition beside time, one for all or one for each, and other times", async () => {
    await writeFile(join(folder, "two.json"), "[[0.5, -1], [0.25, 2]]");
    await writeFile(join(folder, "a.csv"), "1\n0.5\n");
    const logProb = async (...parameters: string[]): Promise<number[]> => {
      const { status, stdout, stderr } = await deldot(["logprob", ...scaling, "--points", "two.json", ...parameters, "--json"]);
      expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
      return (JSON.parse(stdout) as { logProb: number[] }).logProb;
    };
    const points = [
      [0.5, -1],
      [0.25, 2],
    ] as const;
    const shared = await logProb("--time-column", "0", "--condition", "1");
    expectClose(
      shared,
      points.map((point) => logNormal(point, 1 - 2 / 3)),
      1e-4,
    );
    const own = await logProb("--time-column", "0", "--condition", "a.csv");
    expectClose(
      own,
      points.map((point, index) => logNormal(point, [1, 0.5][index]! - 2 / 3)),
      1e-4,
    );
    const back = await logProb("--time-column", "0", "--condition", "1", "--noise-at", "1", "--data-at", "0");
    expectClose(
      back,
      points.map((point) => logNormal(point, 2 / 3 - 1)),
      1e-4,
    );
    const still = await logProb("--time-column", "none", "--condition", "1,0.5");
    expectClose(
      still,
      points.map((point) => logNormal(point, 0.5 - 2)),
      1e-3,
    );
  });
});

describe("sample", () => {
  const draw = async (seed: string, name: string): Promise<Float32Array | Float64Array> => {
    const { status, stdout, stderr } = await deldot(["sample", moons, "--count", "64", "--seed", seed, "--out", name]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^log p: mean \S+, .* bits per dimension; \S+ evaluations per point$/m);
    return (await npy(name)).data;
  };

  test("draws the same points by the same seed, and log p of each as logprob gives it", async () => {
    const [one, again, other] = [await draw("1", "one.npy"), await draw("1", "again.npy"), await draw("2", "other.npy")];
    expect(one).toHaveLength(128);
    expect(one).toEqual(again);
    expect(one).not.toEqual(other);
    const { stdout } = await deldot(["logprob", moons, "--points", "one.npy", "--json"]);
    expectClose((await npy("one.logProb.npy")).data, (JSON.parse(stdout) as { logProb: number[] }).logProb, 1e-3);
  });

  test("on the CPU, with no device, draws the same points", async () => {
    const given = ["sample", moons, "--count", "8", "--seed", "1", "--json"];
    const [there, here] = await Promise.all([
      deldot(given).then(({ stdout }) => JSON.parse(stdout) as { points: number[][]; logProb: number[] }),
      deldot([...given, "--adapter", "reference"], { VK_DRIVER_FILES: "/nowhere" }).then(
        ({ stdout }) => JSON.parse(stdout) as { points: number[][]; logProb: number[] },
      ),
    ]);
    expectClose(there.points.flat(), here.points.flat(), 1e-3);
    expectClose(there.logProb, here.logProb, 1e-3);
  });

  test("writes a file of points as JSON, and a table", async () => {
    const written = await deldot(["sample", moons, "--count", "5", "--out", "s.json", "--json"]);
    const result = JSON.parse(written.stdout) as Record<string, unknown>;
    expect(Object.keys(result)).toEqual([
      "count",
      "state",
      "seed",
      "method",
      "solver",
      "adapter",
      "milliseconds",
      "points",
      "logProb",
      "evaluations",
      "status",
    ]);
    expect(await readFile(join(folder, "s.json"), "utf8")).toBe(written.stdout);
    expect((await deldot(["logprob", moons, "--points", "s.json"])).stdout).toMatch(/^5 points, /);
    await deldot(["sample", moons, "--count", "5", "--out", "s.csv"]);
    const csv = await readFile(join(folder, "s.csv"), "utf8");
    expect(csv.split("\n")[0]).toBe("x0,x1,logProb");
    expectClose(
      readCsv(csv).data.filter((_, index) => index % 3 < 2),
      (result["points"] as number[][]).flat(),
      0,
    );
  });
});

describe("heatmap of log p", () => {
  test("holds the whole mass where the view holds the flow", async () => {
    const view = ["--x", "-4:4", "--y", "-4:4", "--size", "128", "--rtol", "1e-3", "--atol", "1e-3"];
    const { status, stdout, stderr } = await deldot(["heatmap", moons, "--quantity", "logprob", ...view, "--out", "density.png"]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(Math.abs(Number(/^mass in view (\S+)$/m.exec(stdout)![1]) - 1)).toBeLessThan(2e-3);
    expect(stdout).toMatch(/^maximum -?[\d.]+ at x0 = /m);
    const { width, height, data, channels } = decode(await readFile(join(folder, "density.png")));
    expect(Math.min(width, height)).toBeGreaterThan(128);
    // Far out it is as dark as the scale.
    const dark = Array.from({ length: width * height }, (_, at) => data.subarray(at * channels, at * channels + 3).join()).filter(
      (colour) => colour === "68,1,84",
    );
    expect(dark.length).toBeGreaterThan(128 ** 2 / 3);
  }, 180_000);

  test("takes a condition and another scale, and of more components a slice, which has no mass", async () => {
    const { status, stdout } = await deldot([
      "heatmap",
      ...scaling,
      "--quantity",
      "logprob",
      "--time-column",
      "0",
      "--condition",
      "1",
      "--size",
      "64",
      "--limit",
      "4",
      "--out",
      "s.png",
    ]);
    expect(status).toBe(0);
    // The mass of a normal distribution of standard deviation exp(1/3) within 3 in both components.
    expect(Number(/^mass in view (\S+)$/m.exec(stdout)![1])).toBeCloseTo(0.9365, 2);
    const steps = ["--solver", "euler", "--steps", "2"];
    const slice = await deldot(["heatmap", lorenz, "--quantity", "logprob", "--at", "0,0,1", "--size", "16", ...steps, "--out", "l.png"]);
    expect(slice.status).toBe(0);
    expect(slice.stdout).not.toContain("mass");
  });
});

describe("an error", () => {
  const density = ["heatmap", moons, "--quantity", "logprob", "--out", "h.png"];
  test.each<[string, string[], RegExp]>([
    ["a solver without steps", ["sample", moons, "--solver", "euler"], /--solver euler has no error control; expected --steps/],
    ["an unknown solver", ["sample", moons, "--solver", "magic"], /magic.*tsit5/],
    ["steps with a tolerance", ["sample", moons, "--steps", "5", "--rtol", "1e-3"], /--steps is 5.*no --rtol/],
    ["one time twice", ["sample", moons, "--data-at", "0"], /--noise-at and --data-at are both 0/],
    ["a column that is none", ["sample", moons, "--time-column", "1"], /--time-column is 1; expected none or a column/],
    ["time among several columns", ["sample", ...scaling], /2 columns; expected --time-column/],
    ["no condition", ["sample", ...scaling, "--time-column", "0"], /a condition of 1 number and none was given; expected --condition/],
    ["a condition too many", ["sample", moons, "--condition", "1"], /the model takes no condition/],
    ["probes of the exact divergence", ["sample", moons, "--probes", "4"], /--probes is 4, but the divergence is exact/],
    ["no points", ["sample", moons, "--count", "0"], /from 1 to/],
    ["an output of another kind", ["sample", moons, "--out", "s.txt"], /"\.txt"; expected \.npy, \.csv or \.json/],
    ["points of another size", ["logprob", lorenz, "--points", "three.csv"], /2 components; expected 3/],
    ["a density with arrows", [...density, "--arrows"], /--arrows is an option of --quantity divergence/],
    ["a density at one time", [...density, "--context", "0.5"], /--context is an option of --quantity divergence/],
    [
      "a divergence along paths",
      ["heatmap", moons, "--context", "0", "--solver", "rk4", "--out", "h.png"],
      /--solver is an option of --quantity logprob/,
    ],
    ["a slice anywhere", ["heatmap", lorenz, "--quantity", "logprob", "--out", "h.png"], /3 components; expected --at/],
  ])("for %s is one line, exit status 2, and no device is asked for", async (_, parameters, message) => {
    const { status, stdout, stderr } = await deldot(parameters, { VK_DRIVER_FILES: "/nowhere" });
    expect(stderr).toMatch(/^deldot: [^\n]+\n$/);
    expect(stderr).toMatch(message);
    expect(stdout).toBe("");
    expect(status).toBe(2);
  });
});
