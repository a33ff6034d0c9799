import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import {
  evaluateReference,
  InputError,
  mlp,
  parameterLayout,
  parametersOf,
  parseOnnx,
  parseSafetensors,
  withParameters,
  type Network,
  type ParameterInput,
} from "../../src/index.js";
import { tensorsOf } from "../../src/model/parameters.js";
import { expectClose } from "../close.js";
import { loadModel, loadVector, modelNames, randomMlp, randomPoints } from "../fields.js";
import { onnxFile, type OnnxFile, type OnnxTensor } from "../onnx.js";
import { random } from "../random.js";
import { chains, networkOf, plain, type Chain } from "./chains.js";

/** The same shapes with other numbers, which float32 holds. */
function redrawn(chain: Chain, seed: number): Chain {
  const uniform = random(seed);
  const draw = (numbers: ArrayLike<number>): Float32Array => Float32Array.from(numbers, () => 2 * uniform() - 1);
  return {
    ...chain,
    layers: chain.layers.map(({ weight, bias }) => {
      const { data, shape } = weight as { data: ArrayLike<number>; shape: number[] };
      return { weight: { data: draw(data), shape }, bias: bias && draw(bias) };
    }),
  };
}

function names(network: Network): string[] {
  return tensorsOf(network).map(({ name }) => name);
}

/** Value and divergence at some points. */
function expectSame(network: Network, expected: Network): void {
  const points = Float64Array.from(randomPoints(7, 3, network.stateSize));
  const context = network.contextSize > 0 ? Float64Array.from(randomPoints(8, 3, network.contextSize)) : undefined;
  const options = { context, outputs: ["value", "divergence"] as const };
  const given = evaluateReference(network, points, options);
  const wanted = evaluateReference(expected, points, options);
  for (const output of options.outputs) {
    const scale = wanted[output]!.map((number) => 1 + Math.abs(number));
    expectClose(given[output]!, wanted[output]!, scale, { relative: 1e-6, absolute: 1e-6, label: output });
  }
}

describe("of chains", () => {
  test("are their weights and biases, and others in their places make the other chain", () => {
    fc.assert(
      fc.property(chains, fc.nat(), (chain, seed) => {
        const network = networkOf(chain);
        const before = structuredClone(network);
        const parameters = parametersOf(network);
        const expected = chain.layers.flatMap(({ weight, bias }, index) => {
          const { data, shape } = weight as { data: ArrayLike<number>; shape: number[] };
          return [
            [`${index}.weight`, { data: Float32Array.from(data), shape }] as const,
            ...(bias ? [[`${index}.bias`, { data: Float32Array.from(bias), shape: [bias.length] }] as const] : []),
          ];
        });
        expect(Object.entries(parameters)).toEqual(expected);

        const other = networkOf(redrawn(chain, seed));
        const moved = withParameters(network, parametersOf(other));
        expect(plain(moved)).toEqual(plain(other));
        expect(parametersOf(moved)).toEqual(parametersOf(other));
        expectSame(moved, other);
        expect(plain(network)).toEqual(plain(before));
        expect(parametersOf(network)).toEqual(parameters);
      }),
      { seed: 5, numRuns: 60 },
    );
  });

  test("keep what is left out", () => {
    const { network, layers } = randomMlp({ seed: 1, widths: [2, 5, 2], contextSize: 1, activation: "tanh" });
    const bias = Float32Array.of(1, 2);
    const moved = withParameters(network, { "1.bias": bias });
    bias.fill(9);
    const [first, second] = layers;
    expectSame(moved, mlp({ layers: [first!, { weight: second!.weight, bias: [1, 2] }], activation: "tanh" }));
    expect(moved.operations[0]).toBe(network.operations[0]);
    expect(parametersOf(moved)["0.weight"]).toEqual(parametersOf(network)["0.weight"]);
  });
});

test("lie one after another in one buffer", () => {
  fc.assert(
    fc.property(chains, (chain) => {
      const network = networkOf(chain);
      const { tensors, size } = parameterLayout(network);
      let offset = 0;
      for (const [index, [name, { data, shape }]] of Object.entries(parametersOf(network)).entries()) {
        expect(tensors[index]).toEqual({ name, shape, offset });
        offset += data.length;
      }
      expect(tensors.length).toBe(Object.keys(parametersOf(network)).length);
      expect(size).toBe(offset);
    }),
    { seed: 6, numRuns: 20 },
  );
  const { network } = randomMlp({ seed: 1, widths: [2, 5, 2], contextSize: 1, activation: "tanh" });
  expect(parameterLayout(network)).toEqual({
    tensors: [
      { name: "0.weight", shape: [5, 3], offset: 0 },
      { name: "0.bias", shape: [5], offset: 15 },
      { name: "1.weight", shape: [2, 5], offset: 20 },
      { name: "1.bias", shape: [2], offset: 30 },
    ],
    size: 32,
  });
});

describe("wrong ones", () => {
  const { network } = randomMlp({ seed: 1, widths: [2, 3, 2], activation: "tanh" });
  const cases: [string, Record<string, ParameterInput>, string][] = [
    ["an unknown name", { "2.weight": [1] }, 'parameters has "2.weight"; expected names out of "0.weight", "0.bias", "1.weight", "1.bias"'],
    ["too few numbers", { "0.bias": [1, 2] }, 'parameter "0.bias" has 2 numbers; expected 3, [3]'],
    [
      "another shape",
      { "0.weight": { data: Array(6).fill(0), shape: [2, 3] } },
      'parameter "0.weight" has the shape [2, 3]; expected [3, 2]',
    ],
    ["no number", { "0.bias": [1, NaN, 2] }, 'parameter "0.bias" holds NaN at position 1; expected finite numbers'],
    ["what float32 does not hold", { "0.bias": [1, 2, 1e39] }, 'parameter "0.bias" holds 1e+39 at position 2; expected finite numbers'],
    [
      "nothing",
      { "0.bias": null as unknown as number[] },
      'parameter "0.bias" is null; expected a Float32Array, a Float64Array or an array of numbers',
    ],
  ];
  it.each(cases)("%s", (_, parameters, message) => {
    expect(() => withParameters(network, parameters)).toThrow(new InputError(message));
  });
});

test("of a file are its tensors, as it has them", () => {
  const entries: [string, number[], number[]][] = [
    ["params/Dense_0/bias", [3], [7, 8, 9]],
    ["params/Dense_0/kernel", [2, 3], [1, 2, 3, 4, 5, 6]],
    ["params/Dense_1/kernel", [3, 1], [10, 11, 12]],
  ];
  let end = 0;
  const tensors = entries.map(([name, shape, { length }]) => {
    const offsets = [end, (end += 4 * length)];
    return [name, { dtype: "F32", shape, data_offsets: offsets }];
  });
  const header = JSON.stringify({ __metadata__: { activation: "tanh" }, ...Object.fromEntries(tensors) });
  const bytes = new Uint8Array(8 + header.length + end);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
  bytes.set(new TextEncoder().encode(header), 8);
  bytes.set(new Uint8Array(Float32Array.from(entries.flatMap(([, , data]) => data)).buffer), 8 + header.length);
  const network = parseSafetensors(bytes);
  const parameters = parametersOf(network);
  expect(Object.keys(parameters)).toEqual(["params/Dense_0/kernel", "params/Dense_0/bias", "params/Dense_1/kernel"]);
  for (const [name, shape, data] of entries) expect(parameters[name]).toEqual({ shape, data: Float32Array.from(data) });
  expect(withParameters(network, { "params/Dense_0/kernel": [1, 1, 1, 0, 0, 2] }).operations[0]).toMatchObject({
    terms: [{ weight: { data: Float64Array.of(1, 1, 1) } }, { weight: { data: Float64Array.of(0, 0, 2) } }],
  });
});

describe("of exported ONNX files", () => {
  const read = (path: string): Network => parseOnnx(readFileSync(new URL(path, import.meta.url)));

  it.each(modelNames)("%s are those of its safetensors file", (name) => {
    expect(parametersOf(read(`../../demo/models/${name}.onnx`))).toEqual(parametersOf(loadModel(name).network));
  });

  it.each(readdirSync(new URL("../vectors/", import.meta.url)).filter((file) => file.endsWith(".onnx")))(
    "%s are those of its safetensors file",
    (file) => {
      expect(parametersOf(read(`../vectors/${file}`))).toEqual(parametersOf(loadVector(file.split(".")[0]!).network));
    },
  );

  it.each([
    ["concat-input.torchscript", "net.0.weight net.0.bias net.2.weight net.2.bias net.4.weight net.4.bias"],
    [
      "layernorm.dynamo",
      "net.0.weight net.0.bias net.1.weight net.1.bias net.3.weight net.3.bias net.4.weight net.4.bias net.6.weight net.6.bias",
    ],
    // The exporter transposes a weight without a bias, and gives it a name of its own.
    [
      "concatsquash.torchscript",
      "ls.0.l.weight ls.0.l.bias ls.0.g.weight ls.0.g.bias ls.1.l.weight ls.1.l.bias ls.1.g.weight ls.1.g.bias " +
        "ls.2.l.weight ls.2.l.bias ls.2.g.weight ls.2.g.bias onnx::MatMul_40 onnx::MatMul_41 onnx::MatMul_42",
    ],
    // Frequencies times π, and biases of two layers that are added, are no numbers of the file.
    [
      "time-embedding.dynamo",
      "e1.weight e1.bias e2.weight e2.bias i.weight i.bias hs.0.weight hs.1.weight ts.0.weight ts.1.weight o.weight o.bias " +
        "2.weight 8.bias 11.bias",
    ],
  ])("%s have the names of initializers", (file, expected) => {
    expect(names(read(`../architectures/${file}.onnx`))).toEqual(expected.split(" "));
  });
});

describe("of ONNX graphs", () => {
  type Drawing = (name: string, shape: number[]) => OnnxTensor;
  const inputs = { x: ["N", 2], t: ["N", 1] };
  /** Numbers of a seed, of float32. */
  const draw = (seed: number): Drawing => {
    const uniform = random(seed);
    return (_, shape) => ({ shape, data: Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => Math.fround(2 * uniform() - 1)) });
  };
  /** What is given as it stands has its name; all else folds. */
  const graphs: [string, string[], (drawing: Drawing) => OnnxFile][] = [
    ...(["x t", "t x"] as const).flatMap((order): [string, string[], (drawing: Drawing) => OnnxFile][] => [
      [
        `Concat of ${order}, MatMul and Add`,
        ["W", "b", "V"],
        (drawing) => ({
          nodes: [
            ["Concat", order.split(" "), ["xt"], { axis: 1 }],
            ["MatMul", ["xt", "W"], ["h"]],
            ["Add", ["h", "b"], ["z"]],
            ["Tanh", ["z"], ["a"]],
            ["MatMul", ["a", "V"], ["v"]],
          ],
          inputs,
          outputs: ["v"],
          initializers: { W: drawing("W", [3, 4]), b: drawing("b", [1, 4]), V: drawing("V", [4, 2]) },
        }),
      ],
      [
        `Concat of ${order}, Gemm`,
        ["b", "W"],
        (drawing) => ({
          nodes: [
            ["Concat", order.split(" "), ["xt"], { axis: 1 }],
            ["Gemm", ["xt", "W", "b"], ["v"], { transB: 1 }],
          ],
          inputs,
          outputs: ["v"],
          initializers: { b: drawing("b", [2]), W: drawing("W", [2, 3]) },
        }),
      ],
    ]),
    [
      "Concat of three results",
      ["W", "U", "s"],
      (drawing) => ({
        nodes: [
          ["MatMul", ["x", "U"], ["h"]],
          ["Sin", ["h"], ["p"]],
          ["Cos", ["h"], ["q"]],
          ["Tanh", ["h"], ["r"]],
          ["Concat", ["r", "p", "q"], ["all"], { axis: 1 }],
          ["MatMul", ["all", "W"], ["y"]],
          ["Mul", ["x", "s"], ["scaled"]],
          ["Add", ["y", "scaled"], ["v"]],
        ],
        inputs: { x: ["N", 2] },
        outputs: ["v"],
        initializers: { W: drawing("W", [9, 2]), U: drawing("U", [2, 3]), s: drawing("s", [2]) },
      }),
    ],
    [
      "one matrix for all particles",
      ["W", "V"],
      (drawing) => ({
        nodes: [
          ["MatMul", ["x", "W"], ["h"]],
          ["Tanh", ["h"], ["a"]],
          ["MatMul", ["a", "V"], ["v"]],
        ],
        inputs: { x: ["N", 3, 2] },
        outputs: ["v"],
        initializers: { W: drawing("W", [2, 4]), V: drawing("V", [4, 2]) },
      }),
    ],
    [
      "constants of nodes after initializers",
      ["V", "W"],
      (drawing) => ({
        nodes: [
          ["Constant", [], ["W"], { value: { tensor: drawing("W", [2, 3]) } }],
          ["MatMul", ["x", "W"], ["h"]],
          ["Tanh", ["h"], ["a"]],
          ["MatMul", ["a", "V"], ["v"]],
        ],
        inputs: { x: ["N", 2] },
        outputs: ["v"],
        initializers: { V: drawing("V", [3, 2]) },
      }),
    ],
    [
      "without what is scaled, and what two layers share",
      ["b"],
      (drawing) => ({
        nodes: [
          ["Mul", ["x", "two"], ["y"]],
          ["MatMul", ["y", "W"], ["h"]],
          ["Add", ["h", "b"], ["z"]],
          ["Tanh", ["z"], ["a"]],
          ["MatMul", ["a", "V"], ["h2"]],
          ["Tanh", ["h2"], ["a2"]],
          ["MatMul", ["a2", "V"], ["v"]],
        ],
        inputs: { x: ["N", 2] },
        outputs: ["v"],
        initializers: {
          two: { shape: [], data: [2] },
          W: drawing("W", [2, 2]),
          b: drawing("b", [2]),
          V: drawing("V", [2, 2]),
        },
      }),
    ],
  ];

  it.each(graphs)("%s", (_, expected, graph) => {
    const [file, other] = [graph(draw(1)), graph(draw(2))];
    const network = parseOnnx(onnxFile(file));
    expect(network.tensors!.map(({ name }) => name)).toEqual(expected);
    const tensors = (of: OnnxFile): Record<string, OnnxTensor> => {
      const constants = of.nodes.flatMap(([type, , [name], attributes]) =>
        type === "Constant" ? [[name!, (attributes!["value"] as { tensor: OnnxTensor }).tensor] as const] : [],
      );
      return { ...(of.initializers as Record<string, OnnxTensor>), ...Object.fromEntries(constants) };
    };
    for (const name of expected) {
      const { shape, data } = tensors(file)[name]!;
      expect(parametersOf(network)[name]).toEqual({ shape, data: Float32Array.from(data!) });
    }
    // The file with other numbers where names say that they are these.
    const initializers = Object.fromEntries(
      Object.entries(tensors(file)).map(([name, tensor]) => [name, expected.includes(name) ? tensors(other)[name]! : tensor]),
    );
    const nodes = file.nodes.filter(([type]) => type !== "Constant");
    const moved = parametersOf(parseOnnx(onnxFile({ ...file, nodes, initializers })));
    expect(Object.keys(moved).toSorted()).toEqual(names(network).toSorted());
    expectSame(
      withParameters(network, Object.fromEntries(expected.map((name) => [name, tensors(other)[name]!.data!]))),
      parseOnnx(onnxFile({ ...file, nodes, initializers })),
    );
  });

  /** Layers x W_i + b_i with a tanh after each but the last. */
  const chainFile = (initializers: Record<string, OnnxTensor>, count: number, width: number): Uint8Array =>
    onnxFile({
      nodes: Array.from({ length: count }, (_, i) => [
        ["Gemm", [i === 0 ? "x" : `a${i - 1}`, `W${i}`, `b${i}`], [`z${i}`]] as const,
        ["Tanh", [`z${i}`], [`a${i}`]] as const,
      ]).flat(),
      inputs: { x: ["N", width] },
      outputs: [`a${count - 1}`],
      initializers,
    });

  it("tell equal tensors by their order, where as many stand in the operations", () => {
    const drawing = draw(3);
    const half: OnnxTensor = { shape: [2], data: [0.5, 0.5] };
    const weights = { W0: drawing("", [2, 2]), W1: drawing("", [2, 2]), W2: drawing("", [2, 2]) };
    const network = parseOnnx(chainFile({ ...weights, b0: half, b1: half, b2: half }, 3, 2));
    expect(names(network)).toEqual(["W0", "W1", "W2", "b0", "b1", "b2"]);
    expect(network.tensors!.map(({ places }) => places[0]!.operation)).toEqual([0, 2, 4, 0, 2, 4]);
    // In another order in the file than in its nodes, they may stand anywhere.
    const shuffled = parseOnnx(chainFile({ ...weights, b1: half, b0: half, b2: half }, 3, 2));
    expect(names(shuffled)).toEqual(["W0", "W1", "W2", "0.bias", "2.bias", "4.bias"]);
  });

  it("leave a matrix without a name that is its own transpose, and rows that may be either of two", () => {
    const symmetric: OnnxTensor = { shape: [2, 2], data: [1, 2, 2, 3] };
    expect(names(parseOnnx(chainFile({ W0: symmetric, b0: { shape: [2], data: [1, 2] } }, 1, 2)))).toEqual(["b0", "0.weight"]);
    const network = parseOnnx(
      onnxFile({
        nodes: [
          ["Concat", ["x", "t"], ["xt"], { axis: 1 }],
          ["MatMul", ["xt", "W"], ["v"]],
        ],
        inputs: { x: ["N", 1], t: ["N", 1] },
        outputs: ["v"],
        initializers: { W: { shape: [2, 1], data: [3, 3] } },
      }),
      { state: "x" },
    );
    expect(names(network)).toEqual(["0.weight.0", "0.weight.1"]);
  });

  it("give up soon on a thousand equal ones", () => {
    const count = 1000;
    const half: OnnxTensor = { shape: [64], data: Array(64).fill(0.5) };
    const network = parseOnnx(
      onnxFile({
        nodes: Array.from({ length: count }, (_, i) => [
          ["Add", [i === 0 ? "x" : `a${i - 1}`, `b${i}`], [`z${i}`]] as const,
          ["Tanh", [`z${i}`], [`a${i}`]] as const,
        ]).flat(),
        inputs: { x: ["N", 64] },
        outputs: [`a${count - 1}`],
        initializers: Object.fromEntries(Array.from({ length: count }, (_, i) => [`b${i}`, half])),
      }),
    );
    expect(network.tensors).toEqual([]);
    expect(names(network).length).toBe(count);
  });
});
