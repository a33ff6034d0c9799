import { link, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { decode } from "fast-png";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, mlp, parseSafetensors, toSafetensors } from "../../src/index.js";
import { toOnnx } from "../../src/onnx/index.js";
import { readCsv } from "../../src/node/files/csv.js";
import { readNpy, writeNpy } from "../../src/node/files/npy.js";
import { expectGradient, loadGradient } from "../gradients.js";
import { onnxFile } from "../onnx.js";
import { runDeldot, type CommandParameters, type Outcome } from "./command.js";

const moons = resolve("demo/models/two-moons-flow.safetensors");
const lorenz = resolve("demo/models/lorenz.safetensors");
const truth = JSON.parse(await readFile(resolve("demo/models/two-moons-flow.json"), "utf8")).vectors as {
  points: number[][];
  context: number[][];
  value: number[][];
  divergence: number[];
  jacobianDiagonal: number[][];
};

let folder: string;
const deldot = (...parameters: CommandParameters): Promise<Outcome> => runDeldot(folder, ...parameters);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "deldot-cli-"));
  await writeFile(join(folder, "points.json"), JSON.stringify(truth.points));
  await writeFile(join(folder, "context.json"), JSON.stringify(truth.context));
  await writeFile(join(folder, "plain.csv"), "x0,x1\n0.5,-1\n1e-1,nan\n2,2\n");
  await writeFile(join(folder, "three.csv"), "1,2,3\n");
  await writeFile(join(folder, "six.csv"), "1,2,3\n4,5,6\n");
  const initializers = { points: { shape: [3, 3], data: [1, 2, 3, 4, 5, 6, 7, 8, 10] } };
  const product = { inputs: { x: ["batch", 3] }, nodes: [["MatMul", ["x", "points"], ["v"]]] as const, outputs: ["v"], initializers };
  await writeFile(join(folder, "points.onnx"), onnxFile(product));
});
afterAll(() => rm(folder, { recursive: true }));

async function evalJson(...parameters: string[]): Promise<Record<string, unknown>> {
  const { status, stdout, stderr } = await deldot(["eval", ...parameters, "--json"]);
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return JSON.parse(stdout) as Record<string, unknown>;
}

function expectClose(actual: readonly number[], expected: readonly number[], tolerance: number): void {
  expect(actual).toHaveLength(expected.length);
  for (const [index, value] of expected.entries())
    expect(Math.abs(actual[index]! - value), `entry ${index}`).toBeLessThanOrEqual(tolerance);
}

describe("info", () => {
  test("says what it took for the state, or which option says it", async () => {
    const inputs = { in_0: ["batch", 1], in_1: ["batch", 1] };
    await writeFile(join(folder, "two.onnx"), onnxFile({ inputs, nodes: [["Mul", ["in_0", "in_1"], ["v"]]], outputs: ["v"] }));
    const asked = await deldot(["info", "two.onnx"]);
    expect(asked.stderr).toMatch(/"in_0" \[batch, 1\], "in_1" \[batch, 1\] are of the output's size.*expected its name in --state\n$/);
    expect(asked.status).toBe(2);
    const { stdout } = await deldot(["info", "two.onnx", "--state", "in_1", "--context-order", "in_0", "--output", "v"]);
    expect(stdout).toContain('the state is the input "in_1" [batch, 1], as --state says\nthe context is "in_0" [batch, 1]\n');
    const { stderr } = await deldot(["info", lorenz, "--state", "x"]);
    expect(stderr).toBe('deldot: --state is "x", but only an .onnx file names its inputs and outputs; expected no --state\n');
  });

  test("describes the model and the plan, without a device", async () => {
    const { status, stdout } = await deldot(["info", moons], { VK_DRIVER_FILES: "/nowhere" });
    expect(status).toBe(0);
    expect(stdout).toContain("state of 2, context of 1, 4546 parameters");
    expect(stdout).toContain("64 x 2 + 64 x 1 + bias 64");
    expect(stdout).toContain("silu");
    expect(stdout).toContain("cyclic");
  });
});

describe("eval", () => {
  test.each(["software", "reference"])("gives the true numbers on %s, as one JSON object", async (adapter) => {
    const result = await evalJson(moons, "--points", "points.json", "--context", "context.json", "--adapter", adapter, "--diagonal");
    expect(Object.keys(result)).toEqual([
      "count",
      "state",
      "context",
      "method",
      "adapter",
      "milliseconds",
      "divergence",
      "value",
      "diagonal",
    ]);
    expect(result).toMatchObject({ count: truth.points.length, state: 2, context: 1 });
    expect(result["milliseconds"]).toBeGreaterThan(0);
    const tolerance = adapter === "reference" ? 1e-9 : 1e-4;
    expectClose(result["divergence"] as number[], truth.divergence, tolerance);
    expectClose((result["value"] as number[][]).flat(), truth.value.flat(), tolerance);
    expectClose((result["diagonal"] as number[][]).flat(), truth.jacobianDiagonal.flat(), tolerance);
  });

  test("gives curl, strain and Q criterion where --outputs names them, in every format", async () => {
    const common = ["eval", lorenz, "--points", "six.csv", "--adapter", "reference", "--outputs", "curl,strain,qCriterion"];
    const result = await evalJson(...common.slice(1));
    const network = parseSafetensors(await readFile(lorenz));
    const { curl, strain, qCriterion } = evaluateReference(network, [1, 2, 3, 4, 5, 6], { outputs: ["curl", "strain", "qCriterion"] });
    expect((result["curl"] as number[][]).flat()).toEqual([...curl!]);
    expect((result["strain"] as number[][][]).flat(2)).toEqual([...strain!]);
    expect(result["qCriterion"]).toEqual([...qCriterion!]);
    for (const out of ["kinematics.npy", "kinematics.csv"])
      expect(await deldot([...common, "--out", out])).toMatchObject({ status: 0, stderr: "" });
    const array = async (name: string) => readNpy(await readFile(join(folder, `kinematics.${name}.npy`)));
    expect(await array("curl")).toMatchObject({ shape: [2, 3], data: curl });
    expect(await array("strain")).toMatchObject({ shape: [2, 3, 3], data: strain });
    expect(await array("qCriterion")).toMatchObject({ shape: [2], data: qCriterion });
    const [names] = (await readFile(join(folder, "kinematics.csv"), "utf8")).split("\n");
    expect(names).toBe(
      `x0,x1,x2,v0,v1,v2,div,curl0,curl1,curl2,${[0, 1, 2, 3, 4, 5, 6, 7, 8].map((at) => `strain${at}`).join()},qCriterion`,
    );
    const { status, stderr } = await deldot(["eval", lorenz, "--points", "six.csv", "--outputs", "torsion"]);
    expect([status, stderr]).toEqual([2, expect.stringContaining("Expected names out of diagonal,jacobian,curl,strain,qCriterion.")]);
  });

  test("takes the gradient of a potential for the field, and its Laplacian for the divergence", async () => {
    // φ = x² + 3 y² + t x², in a file that knows of its context or is told
    const layers = [
      {
        weight: [
          [1, 0, 0],
          [0, 1, 0],
          [1, 0, 1],
          [1, 0, -1],
        ],
      },
      { weight: [[1, 3, 0.25, -0.25]] },
    ];
    const file = toSafetensors(mlp({ layers, activation: "square", potential: true, contextSize: 1 }));
    await writeFile(join(folder, "potential.safetensors"), file);
    const result = await evalJson(
      "potential.safetensors",
      "--potential",
      "--points",
      "plain.csv",
      "--context",
      "0",
      "--adapter",
      "reference",
    );
    expect((result["value"] as number[][])[0]).toEqual([1, -6]);
    expect(result["divergence"]).toEqual([8, null, 8]);
    const { stdout } = await deldot(["info", "potential.safetensors", "--potential"]);
    expect(stdout).toContain("state of 2, context of 1, 16 parameters\n");
    for (const [parameters, message] of [
      [["--context-size", "1"], /expected it with --potential alone/],
      [["--potential", "--context-size", "2"], /__metadata__.context is "1"; expected "2", as --context-size says/],
    ] as const) {
      const refused = await deldot(["info", "potential.safetensors", ...parameters]);
      expect([refused.status, refused.stderr]).toEqual([2, expect.stringMatching(message)]);
    }
  });

  test("leaves the diagonal out unless it is asked for; a point with a NaN gives nulls and touches no other", async () => {
    const result = await evalJson(moons, "--points", "plain.csv", "--context", "0.5");
    expect(Object.keys(result)).toEqual(["count", "state", "context", "method", "adapter", "milliseconds", "divergence", "value"]);
    const [first, second, third] = result["divergence"] as (number | null)[];
    expect(second).toBeNull();
    expect(first).toBeCloseTo(-1.18378, 4);
    expect(third).toBeCloseTo(0.13658, 4);
  });

  test("gives the estimator's standard error, the same for the same seed", async () => {
    const estimate = (seed: string): Promise<Record<string, unknown>> =>
      evalJson(
        moons,
        "--points",
        "plain.csv",
        "--context",
        "0.5",
        "--method",
        "hutchinson",
        "--probes",
        "8",
        "--seed",
        seed,
        "--adapter",
        "reference",
      );
    const [one, again, other] = [await estimate("1"), await estimate("1"), await estimate("2")];
    expect(one["method"]).toBe("hutchinson");
    expect(one["standardError"]).toHaveLength(3);
    expect(one["divergence"]).toEqual(again["divergence"]);
    expect(one["divergence"]).not.toEqual(other["divergence"]);
  });

  test("reads and writes .npy, .csv and .json", async () => {
    const data = Float64Array.from(truth.points.flat());
    await writeFile(join(folder, "points.npy"), Buffer.concat(writeNpy({ data, shape: [truth.points.length, 2] })));
    for (const name of ["r.npy", "r.csv", "r.json"]) {
      const { status, stdout } = await deldot([
        "eval",
        moons,
        "--points",
        "points.npy",
        "--context",
        "context.json",
        "--adapter",
        "reference",
        "--diagonal",
        "--out",
        name,
      ]);
      expect(status).toBe(0);
      expect(stdout).toContain(`wrote ${name}`);
    }
    const npy = async (name: string): Promise<ReturnType<typeof readNpy>> => readNpy(await readFile(join(folder, name)));
    const divergence = await npy("r.npy");
    expect(divergence.shape).toEqual([truth.points.length]);
    expectClose([...divergence.data], truth.divergence, 1e-9);
    expect((await npy("r.value.npy")).shape).toEqual([truth.points.length, 2]);
    expectClose([...(await npy("r.diagonal.npy")).data], truth.jacobianDiagonal.flat(), 1e-9);

    const csv = await readFile(join(folder, "r.csv"), "utf8");
    expect(csv.split("\n")[0]).toBe("x0,x1,v0,v1,div,d0,d1");
    const table = readCsv(csv);
    expect(table.shape).toEqual([truth.points.length, 7]);
    expect(table.data.filter((_, index) => index % 7 === 4)).toEqual(divergence.data);

    const json = JSON.parse(await readFile(join(folder, "r.json"), "utf8")) as { divergence: number[] };
    expect(json.divergence).toEqual([...divergence.data]);
  });

  test("gives results in the shape of points that end in several axes, and reads those of numpy.savetxt", async () => {
    const data = Float64Array.from({ length: 24 }, (_, index) => Math.sin(index));
    const shape = [4, 3, 2];
    const model = { inputs: { x: ["batch", 3, 2] }, nodes: [["Sin", ["x"], ["v"]]] as const, outputs: ["v"] };
    await writeFile(join(folder, "particles.onnx"), onnxFile(model));
    await writeFile(join(folder, "particles.npy"), Buffer.concat(writeNpy({ data, shape })));
    await writeFile(join(folder, "swapped.npy"), Buffer.concat(writeNpy({ data, shape: [4, 2, 3] })));
    const rows = [0, 1, 2, 3].map((point) => data.subarray(6 * point, 6 * point + 6).join(" "));
    await writeFile(join(folder, "particles.txt"), `# a b c d e f\n${rows.join("\n")}\n`);
    const swapped = await deldot(["eval", "particles.onnx", "--points", "swapped.npy", "--adapter", "reference"]);
    expect(swapped.stderr).toContain("expected 6, the size of the model's state or its axes, [3, 2]");
    for (const [name, expected] of [
      ["particles.npy", shape],
      ["particles.txt", [4, 6]],
    ] as const) {
      const common = ["--adapter", "reference", "--diagonal", "--out", "p.npy"];
      expect(await deldot(["eval", "particles.onnx", "--points", name, ...common])).toMatchObject({ status: 0, stderr: "" });
      const [divergence, value, diagonal] = await Promise.all(
        ["p.npy", "p.value.npy", "p.diagonal.npy"].map(async (file) => readNpy(await readFile(join(folder, file)))),
      );
      expect([divergence!.shape, value!.shape, diagonal!.shape]).toEqual([[4], expected, expected]);
      expectClose([...value!.data], Array.from(data, Math.sin), 1e-9);
      expectClose([...diagonal!.data], Array.from(data, Math.cos), 1e-9);
    }
  });

  test("takes no points at all", async () => {
    await writeFile(join(folder, "none.json"), "[]");
    expect(await evalJson(moons, "--points", "none.json", "--context", "0.5")).toMatchObject({ count: 0, divergence: [], value: [] });
  });
});

describe("export", () => {
  test("writes the field beside its divergence, without a device", async () => {
    const parameters = ["export", moons, "--outputs", "divergence,value", "--method", "cyclic", "--opset", "18", "--out", "moons.onnx"];
    const { status, stdout, stderr } = await deldot(parameters, { VK_DRIVER_FILES: "/nowhere" });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^wrote moons\.onnx: x \[batch, 2\], context \[batch, 1\] -> value, divergence; \d+ bytes, opset 18\n$/);
    const network = parseSafetensors(await readFile(moons));
    const options = { outputs: ["value", "divergence"], method: "cyclic", opset: 18 } as const;
    expect(new Uint8Array(await readFile(join(folder, "moons.onnx")))).toEqual(toOnnx(network, options));
    const result = await evalJson(
      "moons.onnx",
      "--output",
      "value",
      "--points",
      "points.json",
      "--context",
      "context.json",
      "--adapter",
      "reference",
    );
    expectClose(result["divergence"] as number[], truth.divergence, 1e-5);
  });

  test("says what it does not write, and leaves no file", async () => {
    for (const [parameters, message] of [
      [
        ["--outputs", "torsion", "--out", "no.onnx"],
        /Expected names out of value,divergence,diagonal,jacobian,curl,strain,qCriterion,gradient\.\n$/,
      ],
      [["--outputs", "diagonal", "--method", "cyclic", "--out", "no.onnx"], /method "cyclic" does not give the output "diagonal"/],
      [["--out", "no.safetensors"], /its extension is "\.safetensors"; expected \.onnx\n$/],
    ] as const) {
      const { status, stderr } = await deldot(["export", lorenz, ...parameters]);
      expect(stderr).toMatch(message);
      expect(status).toBe(2);
    }
    expect(await readdir(folder)).not.toContain("no.onnx");
  });
});

describe("gradient", () => {
  const vector = loadGradient("two-moons-flow");
  const count = vector.divergence.length;
  const given = ["--points", "g.points.npy", "--context", "g.context.npy"];
  const weights = ["--value-cotangent", "g.e.npy", "--divergence-cotangent", "g.c.npy"];
  beforeAll(async () => {
    const { value, divergence } = vector.cotangents as { value: Float64Array; divergence: Float64Array };
    for (const [name, data, shape] of [
      ["points", vector.points, [count, 2]],
      ["context", vector.context!, [count, 1]],
      ["e", value, [count, 2]],
      ["c", divergence, [count]],
    ] as const)
      await writeFile(join(folder, `g.${name}.npy`), Buffer.concat(writeNpy({ data, shape })));
  });

  test.each(["software", "reference"])("writes PyTorch's numbers on %s", async (adapter) => {
    const { status, stdout } = await deldot(["gradient", moons, ...given, ...weights, "--adapter", adapter, "--out", "g.safetensors"]);
    expect(stdout).toMatch(/^gradient\.0\.weight +\[64, 3\] +[\d.]+$/m);
    expect(stdout).toContain("wrote g.safetensors");
    expect(status).toBe(0);
    const { metadata, tensors } = readTensors(await readFile(join(folder, "g.safetensors")));
    expect(metadata).toEqual({ model: "two-moons-flow.safetensors", method: expect.stringMatching(/^(cyclic|tangent)$/) as string });
    expect(Object.fromEntries(Object.entries(tensors).map(([name, { shape }]) => [name, shape]))).toEqual({
      "gradient.points": [count, 2],
      "gradient.context": [count, 1],
      "gradient.0.weight": [64, 3],
      "gradient.0.bias": [64],
      "gradient.2.weight": [64, 64],
      "gradient.2.bias": [64],
      "gradient.4.weight": [2, 64],
      "gradient.4.bias": [2],
      value: [count, 2],
      divergence: [count],
    });
    for (const [name, expected] of Object.entries({
      "gradient.points": vector.ofPoints,
      "gradient.context": vector.ofContext!,
      value: vector.value,
      divergence: vector.divergence,
      ...Object.fromEntries(Object.entries(vector.ofParameters).map(([name, numbers]) => [`gradient.${name}`, numbers])),
    }))
      expectGradient(tensors[name]!.numbers, expected, adapter === "reference" ? 1e-7 : 1e-5, name);
  });

  test("gives what is asked for alone, of one context its sum, and one JSON object", async () => {
    const all = [
      "gradient",
      moons,
      "--points",
      "g.points.npy",
      "--context",
      "0.5",
      "--divergence-cotangent",
      "-1",
      "--adapter",
      "reference",
    ];
    const { status, stdout, stderr } = await deldot([...all, "--wrt", "context", "--out", "part.safetensors", "--json"]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const { tensors } = readTensors(await readFile(join(folder, "part.safetensors")));
    expect(Object.keys(tensors)).toEqual(["gradient.context", "value", "divergence"]);
    const largest = Math.abs(tensors["gradient.context"]!.numbers[0]!);
    expect(JSON.parse(stdout)).toMatchObject({
      count,
      state: 2,
      context: 1,
      method: expect.any(String) as string,
      adapter: expect.any(String) as string,
      milliseconds: expect.any(Number) as number,
      out: "part.safetensors",
      tensors: { "gradient.context": { shape: [1], largest }, divergence: { shape: [count] } },
    });
    // The divergence alone, and the context of each point in a row of its own: the same in sum.
    await writeFile(join(folder, "halves.json"), JSON.stringify(Array.from({ length: count }, () => [0.5])));
    await deldot([...all.with(5, "halves.json"), "--out", "rows.safetensors"]);
    const rows = readTensors(await readFile(join(folder, "rows.safetensors"))).tensors["gradient.context"]!;
    expect(rows.shape).toEqual([count, 1]);
    expect(Math.abs(rows.numbers.reduce((sum, value) => sum + value, 0))).toBeCloseTo(largest, 4);
  });

  test("takes hutchinson's probes by their seed, points in several axes, and none at all", async () => {
    const shape = [4, 3, 2];
    const data = Float64Array.from({ length: 24 }, (_, index) => Math.sin(index));
    const model = { inputs: { x: ["batch", 3, 2] }, nodes: [["Sin", ["x"], ["v"]]] as const, outputs: ["v"] };
    await writeFile(join(folder, "waves.onnx"), onnxFile(model));
    await writeFile(join(folder, "waves.npy"), Buffer.concat(writeNpy({ data, shape })));
    const common = ["--divergence-cotangent", "1", "--adapter", "reference", "--out", "waves.safetensors"];
    const probes = ["--method", "hutchinson", "--probes", "2", "--seed", "5"];
    expect(await deldot(["gradient", "waves.onnx", "--points", "waves.npy", ...probes, ...common])).toMatchObject({
      status: 0,
      stderr: "",
    });
    const { metadata, tensors } = readTensors(await readFile(join(folder, "waves.safetensors")));
    expect(metadata["method"]).toBe("hutchinson");
    expect(Object.keys(tensors)).toEqual(["gradient.points", "value", "divergence"]);
    expect(Object.values(tensors).map((tensor) => tensor.shape)).toEqual([shape, shape, [4]]);
    // ∂/∂x of cos x: probes of ±1 leave a diagonal as it is.
    expectClose(
      [...tensors["gradient.points"]!.numbers],
      Array.from(data, (x) => -Math.sin(x)),
      1e-6,
    );
    await writeFile(join(folder, "nothing.json"), "[]");
    expect(await deldot(["gradient", "waves.onnx", "--points", "nothing.json", ...common])).toMatchObject({ status: 0, stderr: "" });
    const nothing = readTensors(await readFile(join(folder, "waves.safetensors"))).tensors;
    expect(Object.values(nothing).map((tensor) => tensor.shape)).toEqual([[0, 6], [0, 6], [0]]);
  });

  test("a point with a NaN makes sums NaN, and says so", async () => {
    const parameters = ["--points", "plain.csv", "--context", "0.5", "--divergence-cotangent", "1", "--out", "nan.safetensors"];
    const { stdout } = await deldot(["gradient", moons, ...parameters, "--wrt", "points,context"]);
    expect(stdout).toMatch(/^gradient\.context +\[1\] +NaN$/m);
    expect(stdout).toContain("hold numbers that are not finite");
    const { tensors } = readTensors(await readFile(join(folder, "nan.safetensors")));
    const numbers = [...tensors["gradient.points"]!.numbers];
    expect(numbers.map(Number.isFinite)).toEqual([true, true, false, false, true, true]);
  });
});

describe("heatmap", () => {
  test("writes a PNG and prints minimum, maximum and mean", async () => {
    const { status, stdout } = await deldot([
      "heatmap",
      moons,
      "--x",
      "-2:2",
      "--y",
      "-1.5:1.5",
      "--size",
      "48",
      "--context",
      "0.5",
      "--arrows",
      "6",
      "--contour",
      "--out",
      "h.png",
    ]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^minimum -?[\d.]+ at x0 = /m);
    expect(stdout).toMatch(/^maximum -?[\d.]+ at x0 = /m);
    expect(stdout).toMatch(/^mean -?[\d.]+$/m);
    const { width, height } = decode(await readFile(join(folder, "h.png")));
    expect(Math.min(width, height)).toBeGreaterThan(48);
  });

  test("takes any two components; values may begin with a minus", async () => {
    const { status, stdout } = await deldot([
      "heatmap",
      lorenz,
      "--axes",
      "0,2",
      "--at",
      "-1,0.5,0",
      "--size",
      "16",
      "--adapter",
      "reference",
      "--out",
      "l.png",
    ]);
    expect(status).toBe(0);
    expect(stdout).toContain("x2 = ");
    // The model learned a field whose divergence is -13.667 everywhere.
    expect(Number(/mean (\S+)/.exec(stdout)![1])).toBeCloseTo(-13.67, 0);
  });
});

describe("verify", () => {
  test("says what a state_dict does not show, and options as they are typed", async () => {
    const model = resolve("test/cases/st_norm_buffers/model.safetensors");
    const asked = await deldot(["info", model]);
    expect(asked.status).toBe(2);
    expect(asked.stderr).toContain("expected --ignore mean,std, else a file in ONNX");
    const { status, stdout } = await deldot(["verify", model, "--ignore", "mean, std", "--points", "8", "--adapter", "reference"]);
    expect(status).toBe(0);
    expect(stdout).toContain("float64 reference of the network as read");
    expect(stdout).toContain("a state_dict does not show skips");
    expect(stdout).toContain("where they come first, --context-columns first");
  });

  test("ends with 0 where the GPU is right", async () => {
    const { status, stdout } = await deldot(["verify", moons, "--points", "64", "--seed", "3"]);
    expect(stdout).toMatch(/worst \|error\| \S+ beside Σ\|∂f_i\/∂x_i\| = \S+/);
    expect(stdout).toContain("within");
    expect(status).toBe(0);
  });

  test("ends with 1 where float32 cannot hold the tolerance", async () => {
    // z = 1e6 x: its rounding alone moves the phase by hundredths.
    await writeFile(
      join(folder, "fast.safetensors"),
      safetensors({ "net.0.weight": [[1e6]], "net.2.weight": [[1e-6]] }, { activation: "sin" }),
    );
    const { status, stdout } = await deldot(["verify", "fast.safetensors"]);
    expect(stdout).toContain("OUT OF TOLERANCE");
    expect(status).toBe(1);
  });
});

describe("verify --gradient", () => {
  test("ends with 0 where the GPU is right, and shows each tensor", async () => {
    const { status, stdout } = await deldot(["verify", moons, "--gradient", "--points", "32"]);
    expect(stdout).toMatch(/^points +\[32, 2\]( +[\d.e-]+){3}$/m);
    expect(stdout).toMatch(/^context +\[32, 1\]( +[\d.e-]+){3}$/m);
    expect(stdout).toMatch(/^2\.weight +\[64, 64\]( +[\d.e-]+){3}$/m);
    expect(stdout).toMatch(/^tolerance 1e-5 of the largest entry \+ 1e-7: within$/m);
    expect(status).toBe(0);
  });

  test("says why its tolerance is wider, and ends with 1 where float32 cannot hold it", async () => {
    await writeFile(
      join(folder, "steep.safetensors"),
      safetensors({ "net.0.weight": [[1e6]], "net.2.weight": [[1e-6]] }, { activation: "sin(30)" }),
    );
    const { status, stdout } = await deldot(["verify", "steep.safetensors", "--gradient"]);
    expect(stdout).toMatch(/^tolerance 1e-4 of the largest entry \+ 1e-7, as the network has sin\(30\): OUT OF TOLERANCE$/m);
    expect(status).toBe(1);
  });
});

describe("doctor", () => {
  test("shows the adapter, the driver that was taken, limits and features", async () => {
    const { status, stdout } = await deldot(["doctor", "--adapter", "software"]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/adapter: .+ \(software\)/);
    expect(stdout).toContain("taken: ");
    expect(stdout).toMatch(/maxStorageBufferBindingSize +\d+/);
    expect(stdout).toContain("core-features-and-limits");
  });

  test("says what is wrong where there is no adapter", async () => {
    const { status, stderr } = await deldot(["doctor"], { VK_DRIVER_FILES: "/nowhere/icd.json" });
    expect(stderr).toMatch(/^deldot: VK_DRIVER_FILES=\/nowhere\/icd\.json.*\n$/);
    expect(status).toBe(2);
  });
});

describe("help", () => {
  test.each(["info", "eval", "gradient", "logprob", "sample", "heatmap", "verify", "doctor"])("of %s has an example", async (command) => {
    const { status, stdout } = await deldot([command, "--help"]);
    expect(status).toBe(0);
    expect(stdout).toContain(`  deldot ${command}`);
  });

  test("is what a bare deldot prints, and --version is the package's", async () => {
    expect((await deldot(["--help"])).stdout).toContain("heatmap");
    const { version } = JSON.parse(await readFile(resolve("package.json"), "utf8")) as { version: string };
    expect((await deldot(["--version"])).stdout).toBe(`${version}\n`);
  });
});

describe("an error", () => {
  test.each<[string, string[], RegExp]>([
    ["no such model", ["info", "absent.safetensors"], /absent\.safetensors: no such file/],
    ["a file that is no model", ["info", "plain.csv"], /plain\.csv: .*header/],
    [
      "two networks in one file",
      ["info", resolve("test/cases/st_ema_both/model.safetensors")],
      /--prefix model\.net\. or --prefix ema\.module\.net\., or all in order in --layers a,b/,
    ],
    ["layers of an .onnx file", ["info", resolve("test/architectures/residual.dynamo.onnx"), "--layers", "a"], /--layers is "a"/],
    ["an unknown activation", ["info", moons, "--activation", "wobble"], /"wobble"/],
    ["points of another size", ["eval", lorenz, "--points", "plain.csv"], /2 components; expected 3/],
    ["no context", ["eval", moons, "--points", "plain.csv"], /context of 1 number/],
    ["a context of another size", ["eval", moons, "--points", "plain.csv", "--context", "1,2"], /2 numbers; expected 1/],
    ["a context file that is not there", ["eval", moons, "--points", "plain.csv", "--context", "c.csv"], /c\.csv: no such file/],
    ["a context too many", ["eval", lorenz, "--points", "three.csv", "--context", "1"], /takes no context/],
    ["an unknown method", ["eval", lorenz, "--points", "three.csv", "--method", "magic"], /magic.*tangent/],
    ["a method without a diagonal", ["eval", lorenz, "--points", "three.csv", "--method", "cyclic", "--diagonal"], /"cyclic".*"diagonal"/],
    [
      "an output folder that is not there",
      ["eval", lorenz, "--points", "three.csv", "--out", "absent/r.json"],
      /absent\/r\.json: no such file or directory/,
    ],
    ["an unknown kind of output", ["eval", lorenz, "--points", "three.csv", "--out", "r.xls"], /"\.xls"; expected \.npy/],
    [
      "a gradient of nothing",
      ["gradient", lorenz, "--points", "three.csv", "--out", "g.safetensors"],
      /no cotangent; expected --value-cotangent, --divergence-cotangent or both/,
    ],
    [
      "a cotangent of other points",
      ["gradient", lorenz, "--points", "three.csv", "--value-cotangent", "six.csv", "--out", "g.safetensors"],
      /six\.csv: it holds 2 vectors; expected 1/,
    ],
    [
      "several numbers for all points",
      ["gradient", lorenz, "--points", "three.csv", "--divergence-cotangent", "1,2", "--out", "g.safetensors"],
      /--divergence-cotangent 1,2 has 2 numbers; expected one/,
    ],
    [
      "weights of other points",
      ["gradient", lorenz, "--points", "three.csv", "--divergence-cotangent", "three.csv", "--out", "g.safetensors"],
      /three\.csv: it holds 3 numbers; expected 1/,
    ],
    [
      "a gradient by a context that is none",
      ["gradient", lorenz, "--points", "three.csv", "--divergence-cotangent", "1", "--wrt", "points,context", "--out", "g.safetensors"],
      /--wrt has context, but the model takes none/,
    ],
    [
      "a gradient by something else",
      ["gradient", lorenz, "--points", "three.csv", "--divergence-cotangent", "1", "--wrt", "weights", "--out", "g.safetensors"],
      /'weights' is invalid.*points,context,parameters/,
    ],
    [
      "two tensors of one name",
      ["gradient", "points.onnx", "--points", "three.csv", "--divergence-cotangent", "1", "--out", "g.safetensors"],
      /a parameter called "points".*--wrt with either points or parameters/,
    ],
    [
      "a gradient of differences",
      ["gradient", lorenz, "--points", "three.csv", "--divergence-cotangent", "1", "--method", "difference", "--out", "g.safetensors"],
      /'difference' is invalid/,
    ],
    [
      "a gradient in another format",
      ["gradient", lorenz, "--points", "three.csv", "--divergence-cotangent", "1", "--out", "g.npy"],
      /"\.npy"; expected \.safetensors/,
    ],
    ["a gradient that goes nowhere", ["gradient", lorenz, "--points", "three.csv", "--divergence-cotangent", "1"], /--out/],
    ["a plane that is none", ["heatmap", lorenz, "--axes", "0,3", "--out", "h.png"], /--axes is 0,3/],
    ["a point that is not in the state", ["heatmap", lorenz, "--at", "-1,0", "--out", "h.png"], /--at has 2 numbers; expected 3/],
    ["a range upside down", ["heatmap", lorenz, "--x", "3:-3", "--out", "h.png"], /3:-3/],
    ["a picture of another kind", ["heatmap", lorenz, "--out", "h.jpg"], /"\.jpg"; expected \.png/],
    ["a method that cannot be verified", ["verify", lorenz, "--method", "difference"], /exact method/],
    ["an unknown command", ["conjure"], /conjure/],
    ["a missing option", ["eval", lorenz], /--points/],
  ])("for %s is one line, exit status 2, and no device is asked for", async (_, parameters, message) => {
    const { status, stdout, stderr } = await deldot(parameters, { VK_DRIVER_FILES: "/nowhere" });
    expect(stderr).toMatch(/^deldot: [^\n]+\n$/);
    expect(stderr).toMatch(message);
    expect(stdout).toBe("");
    expect(status).toBe(2);
  });

  test("leaves an output file as it was", async () => {
    await writeFile(join(folder, "kept.json"), "precious");
    const { status } = await deldot(["eval", lorenz, "--points", "three.csv", "--out", "kept.json"], { VK_DRIVER_FILES: "/nowhere" });
    expect(status).toBe(2);
    expect(await readFile(join(folder, "kept.json"), "utf8")).toBe("precious");
    expect((await readdir(folder)).filter((name) => name.startsWith("."))).toEqual([]);
  });
});

test("what is read is never written over, by any name", async () => {
  const points = join(folder, "mine.value.npy");
  const bytes = Buffer.concat([...writeNpy({ data: Float64Array.of(1, 2, 3), shape: [1, 3] })]);
  await writeFile(points, bytes);
  await writeFile(join(folder, "two.csv"), "1,2");
  await writeFile(join(folder, "t.json"), "[0.5]");
  await link(join(folder, "t.json"), join(folder, "t.png"));
  await writeFile(join(folder, "own.safetensors"), await readFile(lorenz));
  await writeFile(join(folder, "e.csv"), "1,2,3");
  await writeFile(join(folder, "c.csv"), "1");
  for (const name of ["e", "c"]) await link(join(folder, `${name}.csv`), join(folder, `${name}.safetensors`));
  for (const parameters of [
    ["eval", lorenz, "--points", points, "--out", "mine.npy"],
    ["eval", moons, "--points", "two.csv", "--context", "t.json", "--out", "t.json"],
    ["heatmap", moons, "--context", "t.json", "--out", "t.png"],
    ["gradient", "own.safetensors", "--points", points, "--divergence-cotangent", "1", "--out", "./own.safetensors"],
    ["gradient", lorenz, "--points", points, "--value-cotangent", "e.csv", "--out", "e.safetensors"],
    ["gradient", lorenz, "--points", points, "--divergence-cotangent", "c.csv", "--out", "c.safetensors"],
  ]) {
    const { status, stderr } = await deldot([...parameters, "--adapter", "reference"]);
    expect(stderr).toMatch(/^deldot: .*is the same file as .*expected a file of its own\n$/);
    expect(status).toBe(2);
  }
  expect(await readFile(points)).toEqual(bytes);
  expect(await readFile(join(folder, "t.json"), "utf8")).toBe("[0.5]");
  expect(await readFile(join(folder, "own.safetensors"))).toEqual(await readFile(lorenz));
  expect((await readdir(folder)).includes("mine.npy")).toBe(false);
});

test.each([
  ["heatmap", ["--size", "4096", "--out", "stopped.png"]],
  ["gradient", ["--points", "many.npy", "--divergence-cotangent", "1", "--out", "stopped.safetensors"]],
])("Ctrl-C stops the work of %s, leaves no file, and ends with 130", async (command, parameters) => {
  const data = Float32Array.from({ length: 2 ** 18 }, (_, index) => Math.sin(index));
  await writeFile(join(folder, "many.npy"), Buffer.concat(writeNpy({ data, shape: [data.length / 2, 2] })));
  const { status, stderr } = await deldot([command, moons, "--context", "0.5", "--adapter", "reference", ...parameters], {}, 1500);
  expect(stderr).toBe("deldot: interrupted by SIGINT\n");
  expect(status).toBe(130);
  expect((await readdir(folder)).filter((name) => name.includes("stopped"))).toEqual([]);
});

/** The tensors of a safetensors file, all of them F32. */
function readTensors(file: Uint8Array): {
  metadata: Record<string, string>;
  tensors: Record<string, { shape: number[]; numbers: Float32Array }>;
} {
  const dataFrom = 8 + Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const { __metadata__: metadata, ...entries } = JSON.parse(new TextDecoder().decode(file.subarray(8, dataFrom))) as {
    __metadata__: Record<string, string>;
  } & Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  const tensors = Object.entries(entries).map(([name, { dtype, shape, data_offsets: offsets }]) => {
    expect(dtype).toBe("F32");
    const [begin, end] = offsets.map((offset) => dataFrom + offset);
    return [name, { shape, numbers: new Float32Array(Uint8Array.from(file.subarray(begin, end)).buffer) }] as const;
  });
  return { metadata, tensors: Object.fromEntries(tensors) };
}

/** A small float32 model file. */
function safetensors(tensors: Readonly<Record<string, number[][]>>, metadata: Record<string, string>): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  const numbers: number[] = [];
  for (const [name, rows] of Object.entries(tensors)) {
    const begin = numbers.length * 4;
    numbers.push(...rows.flat());
    header[name] = { dtype: "F32", shape: [rows.length, rows[0]!.length], data_offsets: [begin, numbers.length * 4] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, Buffer.from(Float32Array.from(numbers).buffer)]);
}
