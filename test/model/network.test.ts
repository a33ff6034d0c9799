import { describe, expect, it } from "vitest";
import { ModelError } from "../../src/errors.js";
import { mlp, type LayerInput, type MlpOptions, type Network } from "../../src/model/network.js";
import { randomMlp, weightOf } from "../fields.js";
import { float64Run } from "../float32.js";

/** The first layer's weight, as far as it reads the state, and its bias. */
function firstLayer(network: Network): { rows: number[][]; bias: number[] | null } {
  const operation = network.operations[0]!;
  if (operation.kind !== "linear") throw new Error("expected a linear operation");
  const { rows, columns, data } = weightOf(network, 0);
  const numbers = [...data];
  return {
    rows: Array.from({ length: rows }, (_, row) => numbers.slice(row * columns, (row + 1) * columns)),
    bias: operation.bias && [...operation.bias],
  };
}

describe("mlp", () => {
  const rows = [
    [1, 2],
    [3, 4],
  ];
  const bias = [5, 6];

  it.each<[string, LayerInput]>([
    ["nested rows", { weight: rows, bias }],
    ["typed rows", { weight: rows.map((row) => Float32Array.from(row)), bias }],
    ["{ data, shape }", { weight: { data: [1, 2, 3, 4], shape: [2, 2] }, bias }],
    ["{ data, shape } in float32", { weight: { data: Float32Array.of(1, 2, 3, 4), shape: [2, 2] }, bias: Float32Array.from(bias) }],
    ["a flat list", { weight: [1, 2, 3, 4], bias }],
    ["a flat Float32Array", { weight: Float32Array.of(1, 2, 3, 4), bias }],
    ["a flat Float64Array", { weight: Float64Array.of(1, 2, 3, 4), bias: Float64Array.from(bias) }],
    ["an array of integers", { weight: Int8Array.of(1, 2, 3, 4), bias }],
  ])("takes a weight as %s", (_, layer) => {
    expect(firstLayer(mlp({ layers: [layer] }))).toEqual({ rows, bias });
  });

  it("takes the rows of a flat weight without a bias from the layer before", () => {
    const network = mlp({ layers: [{ weight: [[1], [2], [3]] }, { weight: [4, 5, 6] }], activation: "tanh" });
    expect(network.operations[2]).toMatchObject({ terms: [{ operand: 1, weight: { rows: 1, columns: 3 } }], bias: null });
  });

  it("keeps float32 as float32 and everything else as float64, and copies both", () => {
    const weight = Float32Array.of(1);
    const given = [0.1];
    const network = mlp({ layers: [{ weight: { data: weight, shape: [1, 1] }, bias: given }] });
    weight[0] = 7;
    given[0] = 7;
    expect(network.operations[0]).toMatchObject({ bias: Float64Array.of(0.1), terms: [{ weight: { data: Float32Array.of(1) } }] });
  });

  it("counts as context what the first layer takes beyond the outputs of the last, and none otherwise", () => {
    expect(mlp({ layers: [{ weight: [[1, 2, 3]] }] })).toMatchObject({ stateSize: 1, contextSize: 2 });
    expect(mlp({ layers: [{ weight: rows }], contextColumns: "first" })).toMatchObject({ stateSize: 2, contextSize: 0 });
  });

  it("gives the same field whether the context's columns come first or last", () => {
    const { layers, network } = randomMlp({ seed: 1, widths: [3, 7, 3], contextSize: 2, activation: "gelu" });
    const [first, second] = layers;
    const permuted = Array.from({ length: 7 }, (_, row) => {
      const columns = [...first!.weight.data.subarray(row * 5, (row + 1) * 5)];
      return [...columns.slice(3), ...columns.slice(0, 3)];
    });
    const other = mlp({ layers: [{ ...first!, weight: permuted }, second!], activation: "gelu", contextColumns: "first" });
    const points = [0.1, -0.2, 0.3, 1, 2, 3];
    const contexts = [0.5, -0.5, 1.5, 2.5];
    expect(float64Run(other, points, contexts)).toEqual(float64Run(network, points, contexts));
  });

  it("lays its operations out as linear, activation, ..., linear, each reading the one before", () => {
    const { network } = randomMlp({ seed: 1, widths: [2, 3, 4, 2], contextSize: 1, activation: "silu" });
    expect(network.operations).toMatchObject([
      { kind: "linear", terms: [{ operand: "state" }, { operand: "context" }] },
      { kind: "activation", operand: 0 },
      { kind: "linear", terms: [{ operand: 1 }] },
      { kind: "activation", operand: 2 },
      { kind: "linear", terms: [{ operand: 3 }] },
    ]);
  });
});

describe("activations of mlp", () => {
  const widths = [2, 3, 3, 2];

  it.each<[string, string | string[], string[]]>([
    ["one name for all hidden layers", "silu", ["silu", "silu"]],
    ["a list of one for all hidden layers", ["silu"], ["silu", "silu"]],
    ["one per hidden layer", ["silu", "elu(0.5)"], ["silu", "elu(0.5)"]],
    ["one more for the output", ["silu", "silu", "tanh"], ["silu", "silu", "tanh"]],
    ["a text with commas", "silu, softplus(2,30), tanh", ["silu", "softplus(2, 30)", "tanh"]],
  ])("takes %s", (_, activation, expected) => {
    const { operations } = randomMlp({ seed: 1, widths, activation }).network;
    expect(operations.flatMap((operation) => (operation.kind === "activation" ? [String(operation.activation)] : []))).toEqual(expected);
    expect(operations.at(-1)!.kind).toBe(expected.length === 3 ? "activation" : "linear");
  });

  it("needs none without a hidden layer, where a single name has nothing to apply to and a list is the output's", () => {
    const layers = [{ weight: [[1]] }];
    expect(mlp({ layers }).operations).toHaveLength(1);
    expect(mlp({ layers, activation: "tanh" }).operations).toHaveLength(1);
    expect(mlp({ layers, activation: ["tanh"] }).operations).toHaveLength(2);
  });
});

describe("errors of mlp", () => {
  const square = {
    weight: [
      [1, 2],
      [3, 4],
    ],
  };
  const two = [square, square];

  it.each<[string, unknown, string]>([
    ["layers that are no list", { layers: "silu" }, 'layers is "silu"; expected a list of { weight, bias? }'],
    ["no layers", { layers: [] }, "there are no layers; expected at least one"],
    ["a layer that is null", { layers: [null] }, "layers[0].weight is undefined; expected rows of numbers"],
    ["a weight that is a number", { layers: [{ weight: 3 }] }, "layers[0].weight is 3; expected rows of numbers"],
    ["an object that is no array", { layers: [{ weight: {} }] }, "layers[0].weight is [object Object]; expected an array of numbers"],
    ["ragged rows", { layers: [{ weight: [[1, 2], [3]] }] }, "layers[0].weight[1] has 1 numbers; expected 2 as in row 0"],
    ["empty rows", { layers: [{ weight: [[], []] }] }, "layers[0].weight has rows of 0 numbers; expected at least 1"],
    ["a row that is null", { layers: [{ weight: [[1, 2], null] }] }, "layers[0].weight[1] is null; expected an array of numbers"],
    ["rows nested too deeply", { layers: [{ weight: [[[1]]] }] }, "layers[0].weight[0] holds [1] at position 0; expected numbers"],
    ["a text among the numbers", { layers: [{ weight: [["1"]] }] }, 'layers[0].weight[0] holds "1" at position 0; expected numbers'],
    [
      "null, which JSON writes for NaN",
      { layers: [{ weight: [[1]], bias: [null] }] },
      "layers[0].bias holds null at position 0; expected numbers",
    ],
    ["undefined", { layers: [{ weight: [[1, undefined, 3]] }] }, "layers[0].weight[0] holds undefined at position 1"],
    [
      "NaN",
      {
        layers: [
          square,
          {
            weight: [
              [1, 2],
              [NaN, 4],
            ],
          },
        ],
        activation: "tanh",
      },
      "layers[1].weight holds NaN at position 2; expected numbers that are finite in float32",
    ],
    ["infinity in a bias", { layers: [{ ...square, bias: [0, -Infinity] }] }, "layers[0].bias holds -Infinity at position 1"],
    ["what float32 cannot hold", { layers: [{ weight: [[1e39]] }] }, "layers[0].weight holds 1e+39 at position 0"],
    [
      "data that does not fill its shape",
      { layers: [{ weight: { data: [1, 2, 3], shape: [2, 2] } }] },
      "layers[0].weight has 3 numbers in the shape [2, 2]; expected [outputs, inputs]",
    ],
    ["a shape of one dimension", { layers: [{ weight: { data: [1], shape: [1] } }] }, "layers[0].weight has 1 numbers in the shape [1]"],
    ["a shape that is no list", { layers: [{ weight: { data: [1], shape: 1 } }] }, "layers[0].weight has 1 numbers in the shape [1]"],
    ["a negative shape", { layers: [{ weight: { data: [1], shape: [-1, -1] } }] }, "layers[0].weight has 1 numbers in the shape [-1, -1]"],
    ["data that is no array", { layers: [{ weight: { data: 1, shape: [1, 1] } }] }, "layers[0].weight is 1; expected an array of numbers"],
    [
      "a flat weight with nothing to tell its shape",
      { layers: [{ weight: [1, 2, 3, 4] }] },
      "layers[0].weight is flat and has no bias, so its shape is unknown",
    ],
    [
      "a flat weight that its bias does not divide",
      { layers: [{ weight: [1, 2, 3], bias: [1, 2] }] },
      "layers[0].weight has 3 numbers; expected a multiple of 2, the length of the bias",
    ],
    [
      "a flat weight that the layer before does not divide",
      { layers: [square, { weight: [1, 2, 3] }] },
      "layers[1].weight has 3 numbers; expected rows of 2, the outputs of the layer before",
    ],
    ["an empty weight", { layers: [{ weight: [], bias: [1] }] }, "layers[0].weight has 0 numbers; expected a multiple of 1"],
    ["an empty bias", { layers: [{ weight: [1], bias: [] }] }, "layers[0].weight has 1 numbers; expected a multiple of 0"],
    [
      "a bias of another length",
      { layers: [{ ...square, bias: [1, 2, 3] }] },
      "layers[0].bias has 3 numbers; expected 2, one per row of layers[0].weight",
    ],
    ["a bias that is a number", { layers: [{ ...square, bias: 1 }] }, "layers[0].bias is 1; expected an array of numbers"],
    [
      "shapes that do not chain",
      { layers: [square, { weight: [[1, 2, 3]] }] },
      "layers[1].weight is [1, 3], but layers[0].weight gives 2 outputs; expected [1, 2]",
    ],
    [
      "more outputs than inputs",
      { layers: [{ weight: [[1], [2]] }] },
      "the network takes 1 inputs and gives 2 outputs; a vector field gives as many outputs as its state has components, so at most 1",
    ],
    ["contextColumns", { layers: [square], contextColumns: "middle" }, 'contextColumns is "middle"; expected "last" or "first"'],
    [
      "a missing activation",
      { layers: two },
      'no activation was given for 1 hidden layer; expected a name, as in activation: "silu", or a list of 1',
    ],
    ["an empty list of activations", { layers: [...two, square], activation: [] }, "no activation was given for 2 hidden layers"],
    ["an unknown activation", { layers: two, activation: "relux" }, 'activation is "relux"; expected one of identity, relu,'],
    [
      "an activation that is no text",
      { layers: two, activation: 3 },
      'activation is 3; expected a name such as "silu", or a list of names',
    ],
    [
      "too many activations",
      { layers: two, activation: ["relu", "relu", "tanh"] },
      '3 activations ("relu, relu, tanh") for 1 hidden layer; expected 1, 1, or 2 with the output\'s',
    ],
    [
      "too few activations",
      { layers: [...two, square, square], activation: "relu,tanh" },
      '2 activations ("relu, tanh") for 3 hidden layers; expected 1, 3, or 4 with the output\'s',
    ],
    [
      "two activations for a single layer",
      { layers: [square], activation: ["relu", "tanh"] },
      '2 activations ("relu, tanh") for 0 hidden layers; expected 1 with the output\'s',
    ],
  ])("refuses %s", (_, options, message) => {
    const make = (): Network => mlp(options as MlpOptions);
    expect(make).toThrow(ModelError);
    expect(make).toThrow(`mlp: ${message}`);
  });
});
