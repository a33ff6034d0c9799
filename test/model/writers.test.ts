import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import {
  mlp,
  ModelError,
  parametersOf,
  parseOnnx,
  parseSafetensors,
  toSafetensors,
  withParameters,
  type Network,
} from "../../src/index.js";
import { loadModel, loadVector, modelNames, randomMlp, vectorNames } from "../fields.js";
import { onnxFile } from "../onnx.js";
import { chains, networkOf, plain } from "./chains.js";

interface Header {
  __metadata__: Record<string, string>;
  [name: string]: unknown;
}

function headerOf(bytes: Uint8Array): { header: Header; text: string; dataFrom: number } {
  const dataFrom = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const text = new TextDecoder().decode(bytes.subarray(8, dataFrom));
  return { header: JSON.parse(text) as Header, text, dataFrom };
}

function metadataOf(network: Network): Record<string, string> {
  return headerOf(toSafetensors(network)).header.__metadata__;
}

function tensorNames(network: Network): string[] {
  return Object.keys(headerOf(toSafetensors(network)).header).slice(1);
}

/** With the layers' weights under these names. */
function renamed(network: Network, names: readonly string[]): Network {
  let next = 0;
  return { ...network, tensors: network.tensors!.map((tensor) => ({ ...tensor, name: names[next++]! })) };
}

describe("a safetensors file", () => {
  test("of any chain is read as the same chain", () => {
    fc.assert(
      fc.property(chains, (chain) => {
        const network = networkOf(chain);
        const bytes = toSafetensors(network);
        const read = parseSafetensors(bytes);
        expect(plain(read)).toEqual(plain(network));
        expect(read).toMatchObject({ stateSize: network.stateSize, contextSize: network.contextSize });
        expect(parametersOf(read)).toEqual(parametersOf(network));
        // Everything is told: nothing is left to check but skips.
        expect(read.notes!.length).toBe(1);
        expect(toSafetensors(read)).toEqual(bytes);
        expect(toSafetensors(structuredClone(network))).toEqual(bytes);
      }),
      { seed: 8, numRuns: 150 },
    );
  });

  it.each(modelNames)("of %s holds the same tensors under the same names", (name) => {
    const { network, bytes } = loadModel(name);
    const written = toSafetensors(network);
    expect(plain(parseSafetensors(written))).toEqual(plain(network));
    const [given, own] = [bytes, written].map((file) => parametersOf(parseSafetensors(file)));
    expect(own).toEqual(given);
    const onnx = parseOnnx(readFileSync(new URL(`../../demo/models/${name}.onnx`, import.meta.url)));
    expect(parametersOf(parseSafetensors(toSafetensors(onnx)))).toEqual(given);
  });

  it.each(vectorNames)("of %s is read as the same network", (name) => {
    const { network } = loadVector(name);
    const read = parseSafetensors(toSafetensors(network));
    expect(plain(read)).toEqual(plain(network));
    expect(Object.keys(parametersOf(read)).toSorted()).toEqual(Object.keys(parametersOf(network)).toSorted());
  });

  it("has a header of whole words, and tensors one after another, those of 8 bytes first", () => {
    const layers = [
      { weight: [[1], [2], [3]], bias: [4, 5, 6] },
      { weight: [[0.1, 7, 8]], bias: [9] },
    ];
    const network = mlp({ layers, activation: "elu(0.5)" });
    const bytes = toSafetensors(network);
    const { header, text, dataFrom } = headerOf(bytes);
    expect(dataFrom % 8).toBe(0);
    expect(text).toMatch(/^\{"__metadata__":.*\}\} {0,7}$/);
    expect(header).toEqual({
      __metadata__: { activation: "elu(0.5)", context: "0" },
      "0.weight": { dtype: "F32", shape: [3, 1], data_offsets: [24, 36] },
      "0.bias": { dtype: "F32", shape: [3], data_offsets: [36, 48] },
      "1.weight": { dtype: "F64", shape: [1, 3], data_offsets: [0, 24] },
      "1.bias": { dtype: "F32", shape: [1], data_offsets: [48, 52] },
    });
    expect(bytes.length).toBe(dataFrom + 52);
    expect(Array.from(new Float64Array(bytes.slice(dataFrom, dataFrom + 24).buffer))).toEqual([0.1, 7, 8]);
    expect(Array.from(new Float32Array(bytes.slice(dataFrom + 24).buffer))).toEqual([1, 2, 3, 4, 5, 6, 9]);
  });

  it("holds float64 only where float32 does not hold the numbers", () => {
    const typesOf = (network: Network): unknown[] =>
      Object.values(headerOf(toSafetensors(network)).header)
        .slice(1)
        .map((entry) => (entry as { dtype: string }).dtype);
    const network = mlp({ layers: [{ weight: Float64Array.of(0.1), bias: Float64Array.of(0.5) }] });
    expect(typesOf(network)).toEqual(["F64", "F32"]);
    expect(typesOf(withParameters(network, parametersOf(network)))).toEqual(["F32", "F32"]);
  });
});

describe("metadata", () => {
  const two = { seed: 1, widths: [2, 3, 4, 2] };

  it("says what stands between the layers, and after the last one", () => {
    const activationOf = (activation: string | string[]): string | undefined =>
      metadataOf(randomMlp({ ...two, activation }).network)["activation"];
    expect(activationOf("SiLU")).toBe("silu");
    expect(activationOf("softplus(2, 10)")).toBe("softplus(2, 10)");
    expect(activationOf(["silu", "softplus(2, 10)"])).toBe("silu,softplus(2, 10)");
    expect(activationOf(["silu", "silu", "tanh"])).toBe("silu,silu,tanh");
    expect(activationOf(["silu", "silu", "silu"])).toBe("silu,silu,silu");
    expect(metadataOf(mlp({ layers: [{ weight: [[2]] }] }))).toEqual({ context: "0" });
  });

  it("says identity where nothing stands between two layers", () => {
    const nodes = [
      ["MatMul", ["x", "V"], ["h"]],
      ["Add", ["h", "c"], ["z"]],
      ["MatMul", ["z", "W"], ["v"]],
    ] as const;
    const initializers = { V: { shape: [1, 2], data: [1, 2] }, c: { shape: [2], data: [5, 6] }, W: { shape: [2, 1], data: [3, 4] } };
    const network = parseOnnx(onnxFile({ nodes, inputs: { x: ["N", 1] }, outputs: ["v"], initializers }));
    expect(metadataOf(network)).toEqual({ activation: "identity", context: "0" });
    expect(tensorNames(network)).toEqual(["0.weight", "0.bias", "1.weight"]);
    expect(parseSafetensors(toSafetensors(network)).operations.map(({ kind }) => kind)).toEqual(["linear", "activation", "linear"]);
  });

  it.each(["first", "last"] as const)("keeps the context's columns %s, also where ONNX joins them", (contextColumns) => {
    const { network, layers } = randomMlp({ ...two, contextSize: 2, contextColumns, activation: "tanh" });
    expect(metadataOf(network)).toEqual({ activation: "tanh", context: "2", contextColumns });
    const read = parametersOf(parseSafetensors(toSafetensors(network)));
    expect(read["0.weight"]).toEqual(layers[0]!.weight);

    const weight = { shape: [4, 2], data: [1, 2, 3, 4, 5, 6, 7, 8] };
    const field = parseOnnx(
      onnxFile({
        nodes: [
          ["Concat", contextColumns === "last" ? ["x", "t"] : ["t", "x"], ["xt"], { axis: 1 }],
          ["MatMul", ["xt", "net.weight"], ["v"]],
        ],
        inputs: { x: ["N", 2], t: ["N", 2] },
        outputs: ["v"],
        initializers: { "net.weight": weight },
      }),
      { state: "x" },
    );
    expect(metadataOf(field)).toEqual({ context: "2", contextColumns });
    // As PyTorch has it, [outputs, inputs].
    const written = parseSafetensors(toSafetensors(field));
    expect(parametersOf(written)).toEqual({ "net.weight": { shape: [2, 4], data: Float32Array.of(1, 3, 5, 7, 2, 4, 6, 8) } });
    expect(plain(written)).toEqual(plain(field));
  });
});

describe("names", () => {
  const { network } = randomMlp({ seed: 2, widths: [2, 3, 3, 2], activation: "tanh" });
  const own = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "fc10.weight", "fc10.bias"];
  const counted = ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"];
  it.each([
    ["are the network's where they tell the order", own, own],
    ["are counted where they tell another order", [...own.slice(4), ...own.slice(0, 4)], counted],
    ["are counted where they are of another kind", own.map((name) => name.replace("weight", "kernel")), counted],
    ["are counted where a bias is not its weight's", [...own.slice(0, 5), "fc11.bias"], counted],
    ["are counted where two layers have one", own.map((name) => name.replace("10", "2")), counted],
    ["are counted where they break a line", own.map((name) => `a\n${name}`), counted],
  ])("%s", (_, given, expected) => {
    const named = renamed(network, given);
    expect(tensorNames(named)).toEqual(expected);
    expect(plain(parseSafetensors(toSafetensors(named)))).toEqual(plain(network));
  });

  it("may be of one module alone", () => {
    const single = renamed(mlp({ layers: [{ weight: [[1]], bias: [2] }] }), ["weight", "bias"]);
    expect(tensorNames(single)).toEqual(["weight", "bias"]);
    expect(plain(parseSafetensors(toSafetensors(single)))).toEqual(plain(single));
  });

  it("are counted of a network without any", () => {
    const { tensors: _, ...rest } = network;
    expect(tensorNames(rest)).toEqual(counted);
  });
});

describe("other networks", () => {
  const chain = "expected a chain of linear layers with an activation between two";
  const W = (rows: number, columns: number): { rows: number; columns: number; data: Float32Array } => ({
    rows,
    columns,
    data: Float32Array.from({ length: rows * columns }, (_, i) => i + 1),
  });
  const tanh = mlp({ layers: [{ weight: [[1]] }, { weight: [[1]] }], activation: "tanh" }).operations[1]!;
  const first = { kind: "linear", terms: [{ operand: "state", weight: W(2, 2) }], bias: null } as const;
  const field = (operations: Network["operations"], contextSize = 0): Network => ({ stateSize: 2, contextSize, operations });
  const cases: [string, Network, string][] = [
    ["none", field([]), "the network has no operations; expected at least one linear layer"],
    ["an activation first", field([{ ...tanh, operand: "state" } as typeof tanh]), `operation 0 is an activation of the state; ${chain}`],
    [
      "two activations in a row",
      field([first, { ...tanh, operand: 0 } as typeof tanh, { ...tanh, operand: 1 } as typeof tanh]),
      `operation 2 is an activation of what is no linear layer just before it; ${chain}`,
    ],
    [
      "a residual block",
      field([first, { kind: "linear", terms: [...first.terms, { operand: 0, weight: W(2, 2) }], bias: null }]),
      `operation 1 reads state and 0 where a chain has 0; ${chain}`,
    ],
    ["a product", field([first, { kind: "product", operands: [0, "state"] }]), `operation 1 is a product; ${chain}`],
    ["a norm", field([first, { kind: "norm", operand: 0, centered: true, epsilon: 0 }]), `operation 1 is a norm; ${chain}`],
    [
      "a diagonal",
      field([{ kind: "linear", terms: [{ operand: "state", weight: { diagonal: Float32Array.of(1, 2) } }], bias: null }]),
      `operation 0 multiplies element by element, which such a file has no weight for; ${chain}`,
    ],
    [
      "a weight that particles share",
      field([{ kind: "linear", terms: [{ operand: "state", weight: { block: W(1, 1), times: 2 } }], bias: null }]),
      `operation 0 repeats its weight for each of 2 parts; ${chain}`,
    ],
    ["a context that nothing reads", field([first], 1), `operation 0 reads state where a chain has state and context; ${chain}`],
    [
      "a context in a later layer",
      field(
        [
          { ...first, terms: [...first.terms, { operand: "context", weight: W(2, 1) }] },
          {
            kind: "linear",
            terms: [
              { operand: "context", weight: W(2, 1) },
              { operand: 0, weight: W(2, 2) },
            ],
            bias: null,
          },
        ],
        1,
      ),
      `operation 1 reads context and 0 where a chain has 0; ${chain}`,
    ],
    [
      "a single layer with an activation",
      mlp({ layers: [{ weight: [[1]] }], activation: ["tanh"] }),
      "the output of the only layer has the activation tanh, which such a file says of hidden layers alone; expected none",
    ],
  ];
  it.each(cases)("%s are refused", (_, network, message) => {
    expect(() => toSafetensors(network)).toThrow(new ModelError(`toSafetensors: ${message}`));
  });

  it("takes terms in any order", () => {
    const terms = [{ operand: "context", weight: W(2, 1) } as const, ...first.terms];
    const read = parseSafetensors(toSafetensors(field([{ ...first, terms }], 1)));
    expect(plain(read)).toEqual(plain(field([{ ...first, terms: terms.toReversed() }], 1)));
  });
});
