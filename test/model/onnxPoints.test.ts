import { describe, expect, it } from "vitest";
import { ModelError } from "../../src/errors.js";
import { parseOnnx, type OnnxOptions } from "../../src/model/readers/onnx.js";
import { float64Run } from "../float32.js";
import { onnxFile, type OnnxCall, type OnnxFile, type OnnxTensor } from "../onnx.js";

const whole = (...data: number[]): OnnxTensor => ({ shape: [data.length], type: 7, data });

function refusal(file: OnnxFile, options?: OnnxOptions): string {
  try {
    parseOnnx(onnxFile(file), options);
  } catch (error) {
    expect(error).toBeInstanceOf(ModelError);
    return (error as Error).message;
  }
  expect.unreachable("the file was accepted");
}

type Given = Partial<OnnxFile> & { nodes: readonly OnnxCall[] };

describe("rows that are not the points", () => {
  /** Batches that are free, that the file fixes, that are as large as the state, and of one point alone. */
  const batches: (number | string)[] = ["batch", 5, 2, 1];
  const coupled: [string, Given][] = [
    ["Transpose", { nodes: [["Transpose", ["x"], ["v"]]] }],
    [
      "Transpose after a layer",
      {
        nodes: [
          ["Tanh", ["x"], ["a"]],
          ["Transpose", ["a"], ["v"], { perm: [1, 0] }],
        ],
      },
    ],
    [
      "x times its transpose",
      {
        nodes: [
          ["Transpose", ["x"], ["a"]],
          ["MatMul", ["x", "a"], ["v"]],
        ],
      },
    ],
    [
      "x beside its transpose",
      {
        nodes: [
          ["Transpose", ["x"], ["a"]],
          ["Add", ["x", "a"], ["v"]],
        ],
      },
    ],
    ["ReduceSum", { nodes: [["ReduceSum", ["x", "0"], ["v"]]], initializers: { 0: whole(0) } }],
    ["ReduceMean of all", { nodes: [["ReduceMean", ["x"], ["v"]]] }],
    ["Gather", { nodes: [["Gather", ["x", "0"], ["v"]]], initializers: { 0: whole(0) } }],
    ["Slice", { nodes: [["Slice", ["x", "1", "2", "0"], ["v"]]], initializers: { 0: whole(0), 1: whole(1), 2: whole(2) } }],
    [
      "a reversing Slice",
      { nodes: [["Slice", ["x", "a", "b", "0", "a"], ["v"]]], initializers: { a: whole(-1), b: whole(-99), 0: whole(0) } },
    ],
    ["Split", { nodes: [["Split", ["x"], ["v"], { num_outputs: 1 }]] }],
    ["Concat", { nodes: [["Concat", ["x", "x"], ["v"], { axis: 0 }]] }],
    ["Flatten", { nodes: [["Flatten", ["x"], ["v"], { axis: 0 }]] }],
    ["Reshape to a row", { nodes: [["Reshape", ["x", "s"], ["v"]]], initializers: { s: whole(-1) } }],
    ["Reshape to columns", { nodes: [["Reshape", ["x", "s"], ["v"]]], initializers: { s: whole(-1, 1) } }],
    ["Squeeze", { nodes: [["Squeeze", ["x", "0"], ["v"]]], initializers: { 0: whole(0) } }],
    ["LayerNormalization", { nodes: [["LayerNormalization", ["x"], ["v"], { axis: 0 }]] }],
    ["Expand by a literal", { nodes: [["Expand", ["x", "s"], ["v"]]], initializers: { s: whole(7, 2) } }],
    ["Expand to more axes", { nodes: [["Expand", ["x", "s"], ["v"]]], initializers: { s: whole(3, 1, 2) } }],
    ["an output without a batch", { nodes: [["Identity", ["b"], ["v"]]], initializers: { b: { shape: [2], data: [1, 2] } } }],
    ["an output of a batch of its own", { nodes: [["Identity", ["b"], ["v"]]], initializers: { b: { shape: [1, 2], data: [1, 2] } } }],
  ];
  it.each(batches.flatMap((batch) => coupled.map(([name, given]) => [name, batch, given] as const)))(
    "refuses %s with a batch of %s",
    (_, batch, given) => {
      const file = { inputs: { x: [batch, 2] }, outputs: ["v"], ...given };
      expect(refusal(file)).toMatch(/^onnx: /);
      // What the file declares makes nothing of it.
      expect(refusal({ ...file, outputs: { v: [batch, 2] } })).toMatch(/^onnx: /);
    },
  );

  it("names the output, its shape and the state's", () => {
    expect(refusal({ nodes: [["Transpose", ["x"], ["v"]]], inputs: { x: [2, 2] }, outputs: ["v"] })).toBe(
      'onnx: the output "v" has the shape [2, batch] where the state "x" has [batch, 2]; expected a row for each point, along the same axis',
    );
  });

  it.each<[string, Given, string]>([
    [
      "a literal on the batch axis",
      { nodes: [["Expand", ["x", "s"], ["v"]]], initializers: { s: whole(4, 3) } },
      "makes 4 of every point along",
    ],
    [
      "a literal beside the batch that Expand gets from elsewhere",
      {
        nodes: [
          ["Expand", ["t", "s"], ["a"]],
          ["Add", ["x", "a"], ["v"]],
        ],
        inputs: { x: ["batch", 3], t: ["batch", 1] },
        initializers: { s: whole(4, 1) },
      },
      "makes 4 of every point along",
    ],
    [
      "sizes as many as points, along the features",
      {
        nodes: [
          ["Slice", ["x", "0", "1", "1"], ["a"]],
          ["Expand", ["a", "3"], ["v"]],
        ],
        inputs: { x: [3, 4] },
        outputs: { v: [3, 1] },
        initializers: { 0: whole(0), 1: whole(1), 3: whole(3) },
      },
      'the output "v" is declared as [3, 1]; expected [batch, 3]',
    ],
    [
      "elements of another order",
      { nodes: [["Transpose", ["x"], ["v"], { perm: [0, 2, 1] }]], inputs: { x: ["batch", 2, 3] } },
      'the output "v" has the shape [batch, 3, 2] where the state "x" has [batch, 2, 3]',
    ],
    [
      "columns of a state that has rows of its own",
      {
        nodes: [["Slice", ["x", "0", "2", "2"], ["v"]]],
        inputs: { x: ["batch", 2, 3] },
        initializers: { 0: whole(0), 2: whole(2) },
      },
      "expected the same, or that of some columns of a state of one dimension",
    ],
    [
      "a row of a context for all points",
      { nodes: [["Tanh", ["t"], ["v"]]], inputs: { x: ["batch", 2], t: [1, 2] } },
      'the output "v" has the shape [1, 2] where the state "x" has [batch, 2]; expected a row for each point',
    ],
    [
      "points joined, beside a context of one row",
      {
        nodes: [
          ["Reshape", ["x", "s"], ["a"]],
          ["ReduceSum", ["a", "axes"], ["c"]],
          ["Add", ["x", "c"], ["v"]],
        ],
        inputs: { x: ["batch", 2], t: [1, 4] },
        initializers: { s: whole(1, -1), axes: whole(1) },
      },
      'ReduceSum "n1": it sums along the batch, which couples its points',
    ],
    [
      "numbers of one for all that differ from one point of a fixed batch to the next",
      {
        nodes: [
          ["Reshape", ["t", "s"], ["a"]],
          ["Mul", ["x", "a"], ["v"]],
        ],
        inputs: { x: [2, 3], t: [1, 2] },
        initializers: { s: whole(2, 1) },
      },
      'Mul "n1": an input has 2 elements along the batch; expected 1',
    ],
    [
      "two batches",
      { nodes: [["Tanh", ["x"], ["v"]]], inputs: { x: [2, 3], t: [5, 1] } },
      'the state "x" has the shape [2, 3], and another input other rows; expected one batch',
    ],
    [
      "a row for each time and not for each state",
      { nodes: [["Add", ["x", "t"], ["v"]]], inputs: { x: [3], t: ["batch", 1] } },
      "expected a row for each point, along the same axis",
    ],
    [
      "an output declared of another rank",
      { nodes: [["Tanh", ["x"], ["v"]]], outputs: { v: ["batch", 1, 3] } },
      'the output "v" is declared as [batch, 1, 3]; expected [batch, 3], which its nodes give',
    ],
    ["an output declared of another width", { nodes: [["Tanh", ["x"], ["v"]]], outputs: { v: ["batch", 4] } }, "is declared as [batch, 4]"],
    ["an output declared of one point", { nodes: [["Tanh", ["x"], ["v"]]], outputs: { v: [1, 3] } }, "is declared as [1, 3]"],
    [
      "an output of another fixed batch",
      { nodes: [["Tanh", ["x"], ["v"]]], inputs: { x: [4, 3] }, outputs: { v: [3, 3] } },
      "is declared as [3, 3]",
    ],
    [
      "an axis to squeeze twice",
      {
        nodes: [
          ["Unsqueeze", ["x", "1"], ["a"]],
          ["Squeeze", ["a", "11"], ["v"]],
        ],
        initializers: { 1: whole(1), 11: whole(1, 1) },
      },
      "its axes are [1, 1]; expected different ones",
    ],
    [
      "an axis to slice twice",
      { nodes: [["Slice", ["x", "00", "12", "11"], ["v"]]], initializers: { "00": whole(0, 0), 12: whole(1, 2), 11: whole(1, -1) } },
      "its axes are [1, -1]; expected different ones",
    ],
    ["2^60 parts", { nodes: [["Split", ["x"], ["v"], { axis: 1, num_outputs: 2 ** 60 }]] }, "expected 1, as many as it has outputs"],
    [
      "fewer parts than outputs",
      {
        nodes: [
          ["Split", ["x"], ["a", "b"], { axis: 1, num_outputs: 3 }],
          ["Concat", ["b", "a"], ["v"], { axis: 1 }],
        ],
      },
      "num_outputs is 3; expected 2",
    ],
    [
      "parts of uneven sizes before they were there",
      {
        nodes: [
          ["Split", ["x"], ["a", "b"], { axis: 1 }],
          ["Concat", ["b", "a"], ["v"], { axis: 1 }],
        ],
        opset: 13,
      },
      "it splits 3 elements into 2 equal parts",
    ],
    [
      "a gain of more dimensions than what it scales",
      { nodes: [["LayerNormalization", ["x", "g"], ["v"]]], initializers: { g: { shape: [1, 1, 3], data: [1, 2, 3] } } },
      "an input has the shape [1, 1, 3]; expected one that broadcasts to [1, 3]",
    ],
    [
      "a gain of as many numbers as the file has points",
      {
        nodes: [
          ["ReduceSum", ["x", "1"], ["a"]],
          ["LayerNormalization", ["a", "g"], ["v"]],
        ],
        inputs: { x: [3, 3] },
        initializers: { 1: whole(1), g: { shape: [3], data: [1, 2, 3] } },
      },
      "an input has the shape [3]; expected one that broadcasts to [1, 1]",
    ],
    [
      "an input that the operation does not take",
      { nodes: [["Add", ["x", "b", "b"], ["v"]]], initializers: { b: { shape: [3], data: [1, 2, 3] } } },
      'Add "n0": it has an input 2, which this operation does not take',
    ],
  ])("refuses %s", (_, given, message) => {
    expect(refusal({ inputs: { x: ["batch", 3] }, outputs: ["v"], ...given })).toContain(message);
  });

  it.each<[string, Given, (x: number[]) => number[]]>([
    [
      "a batch that is moved and moved back",
      {
        nodes: [
          ["Transpose", ["x"], ["a"]],
          ["MatMul", ["w", "a"], ["b"]],
          ["Transpose", ["b"], ["v"]],
        ],
        initializers: { w: { shape: [2, 2], data: [1, 2, 3, 4] } },
        inputs: { x: [2, 2] },
        outputs: { v: [2, 2] },
      },
      ([a, b]) => [a! + 2 * b!, 3 * a! + 4 * b!],
    ],
    [
      "Expand of the features, where as many points as features are fixed",
      {
        nodes: [
          ["ReduceSum", ["x", "1"], ["a"]],
          ["Expand", ["a", "2"], ["v"]],
        ],
        initializers: { 1: whole(1), 2: whole(2) },
        inputs: { x: [2, 2] },
      },
      ([a, b]) => [a! + b!, a! + b!],
    ],
    [
      "Expand to the batch that the file fixes",
      { nodes: [["Expand", ["x", "s"], ["v"]]], initializers: { s: whole(2, 2) }, inputs: { x: [2, 2] } },
      (x) => x,
    ],
    ["Expand that leaves the batch alone", { nodes: [["Expand", ["x", "s"], ["v"]]], initializers: { s: whole(1, 2) } }, (x) => x],
    [
      "an axis of 1 in other places",
      { nodes: [["Unsqueeze", ["x", "1"], ["v"]]], initializers: { 1: whole(1) }, outputs: { v: ["n", 1, 2] } },
      (x) => x,
    ],
    ["a last part that is smaller", { nodes: [["Split", ["x"], ["v"], { axis: 1, num_outputs: 1 }]] }, (x) => x],
  ])("reads %s", (_, given, f) => {
    const network = parseOnnx(onnxFile({ inputs: { x: ["batch", 2] }, outputs: ["v"], ...given }));
    expect([...float64Run(network, [0.3, -1.2], null).value]).toEqual(f([0.3, -1.2]));
  });
});

describe("types of numbers", () => {
  const scalar = (type: number, ...data: number[]): OnnxTensor => ({ shape: [data.length], type, data });

  /** What the file makes of two constant numbers, of x = 0. */
  function constantOf(nodes: readonly OnnxCall[], initializers: Record<string, OnnxTensor>): number[] {
    const network = parseOnnx(
      onnxFile({ nodes: [...nodes, ["Add", ["x", "c"], ["v"]]], inputs: { x: ["batch", 2] }, outputs: ["v"], initializers }),
    );
    return [...float64Run(network, [0, 0], null).value];
  }

  const [float, int32, int64, bool, float16, double, bfloat16] = [1, 6, 7, 9, 10, 11, 16];
  it.each<[string, OnnxTensor, number, number[]]>([
    ["DOUBLE to FLOAT", scalar(double, 0.1, 1e-50), float, [Math.fround(0.1), 0]],
    ["DOUBLE to FLOAT16, ties to even", scalar(double, 0.1, 1 + 2 ** -11), float16, [1638 * 2 ** -14, 1]],
    ["FLOAT to FLOAT16, below its normal numbers", scalar(float, 2 ** -24 * 1.75, 2 ** -26), float16, [2 ** -23, 0]],
    ["FLOAT to BFLOAT16, ties to even", scalar(float, 1 + 2 ** -8, 1 + 3 * 2 ** -8), bfloat16, [1, 1 + 2 ** -6]],
    ["FLOAT to BFLOAT16", scalar(float, -0.1, 2.7), bfloat16, [-0.10009765625, 2.703125]],
    ["FLOAT16 to DOUBLE", scalar(float16, 0x3c01, 0xc000), double, [1 + 2 ** -10, -2]],
    ["INT64 to FLOAT", scalar(int64, 2 ** 24 + 1, -3), float, [2 ** 24, -3]],
    ["BOOL to FLOAT", scalar(bool, 1, 0), float, [1, 0]],
  ])("casts %s", (_, from, to, expected) => {
    expect(constantOf([["Cast", ["a"], ["c"], { to }]], { a: from })).toEqual(expected);
    const like = { shape: [1], type: to, data: [0] };
    expect(constantOf([["CastLike", ["a", "b"], ["c"]]], { a: from, b: like })).toEqual(expected);
  });

  it.each<[string, OnnxTensor, number, number[]]>([
    ["INT64 to INT32, by its lowest bits", scalar(int64, 2 ** 32 + 5, 2 ** 31), int32, [5, -(2 ** 31)]],
    ["FLOAT to INT32, towards 0", scalar(float, -2.75, 2.75), int32, [-2, 2]],
    ["FLOAT to BOOL", scalar(float, -0, 0.25), bool, [0, 1]],
    ["INT32 to BOOL", scalar(int32, 256, 0), bool, [1, 0]],
    ["DOUBLE to INT64", scalar(double, 2 ** 40 + 0.5, -0.5), int64, [2 ** 40, -0]],
  ])("casts %s", (_, from, to, expected) => {
    const back = (nodes: readonly OnnxCall[]): readonly OnnxCall[] => [...nodes, ["Cast", ["b"], ["c"], { to: double }]];
    expect(constantOf(back([["Cast", ["a"], ["b"], { to }]]), { a: from })).toEqual(expected.map((x) => x + 0));
    const like = { shape: [1], type: to, data: [0] };
    expect(constantOf(back([["CastLike", ["a", "l"], ["b"]]]), { a: from, l: like })).toEqual(expected.map((x) => x + 0));
  });

  const tail: readonly OnnxCall[] = [
    ["Cast", ["b"], ["c"], { to: 1 }],
    ["Add", ["x", "c"], ["v"]],
  ];
  it.each<[string, readonly OnnxCall[], Record<string, OnnxTensor>, string]>([
    [
      "a float beyond INT32",
      [["Cast", ["a"], ["b"], { to: 6 }], ...tail],
      { a: scalar(float, 3e9, 0) },
      "it makes 3000000000 a whole number (INT32)",
    ],
    ["a float beyond INT64", [["Cast", ["a"], ["b"], { to: 7 }], ...tail], { a: scalar(float, 3e30, 0) }, "a whole number (INT64)"],
    ["a NaN as a whole number", [["Cast", ["a"], ["b"], { to: 7 }], ...tail], { a: scalar(float, NaN, 0) }, "it makes NaN a whole number"],
    [
      "a type that is not read",
      [["Cast", ["a"], ["b"], { to: 14 }], ...tail],
      { a: scalar(float, 1, 2) },
      "it makes numbers of type 14; expected FLOAT (1)",
    ],
    [
      "the state as whole numbers",
      [["CastLike", ["x", "a"], ["v"]]],
      { a: scalar(int64, 1, 2) },
      'the output "v" is of the type INT64; expected floats',
    ],
    ["0 / 0", [["Div", ["a", "a"], ["b"]], ...tail], { a: scalar(int64, 0, 1) }, "it makes NaN of whole numbers (INT64)"],
    [
      "a sum beyond INT32",
      [["Add", ["a", "a"], ["b"]], ...tail],
      { a: scalar(int32, 2 ** 30, 1) },
      "it makes 2147483648 of whole numbers (INT32)",
    ],
    [
      "floats beside whole numbers",
      [["Add", ["x", "a"], ["v"]]],
      { a: scalar(int64, 1, 2) },
      "its inputs are of the types FLOAT and INT64",
    ],
    [
      "joined floats and whole numbers",
      [["Concat", ["a", "f"], ["b"], { axis: 0 }], ...tail],
      { a: scalar(int64, 1), f: scalar(float, 2) },
      "its inputs are of the types INT64 and FLOAT",
    ],
    [
      "a mask of numbers",
      [["Where", ["a", "x", "f"], ["v"]]],
      { a: scalar(int64, 1, 0), f: scalar(float, 2, 2) },
      "its condition is of the type INT64",
    ],
    [
      "a sum of truth values",
      [["Add", ["a", "a"], ["b"]], ...tail],
      { a: scalar(bool, 1, 0) },
      "an input is of the type BOOL; expected numbers",
    ],
    ["numbers as truth", [["Not", ["a"], ["b"]], ...tail], { a: scalar(int64, 1, 0) }, "an input is of the type INT64; expected BOOL"],
    [
      "whole weights",
      [["MatMul", ["x", "a"], ["v"]]],
      { a: { shape: [2, 2], type: 7, data: [1, 2, 3, 4] } },
      "its inputs are of the types FLOAT and INT64",
    ],
    [
      "a mean of whole numbers",
      [["ReduceMean", ["a"], ["b"]], ...tail],
      { a: scalar(int64, 1, 2) },
      "it reduces whole numbers (INT64); expected floats",
    ],
    ["a shape of floats", [["Reshape", ["x", "a"], ["v"]]], { a: scalar(float, -1, 2) }, "input 1 has the shape [2] of FLOAT"],
    ["indices of floats", [["Gather", ["x", "a"], ["v"], { axis: 1 }]], { a: scalar(float, 1, 0) }, "its indices are of the type FLOAT"],
    [
      "an attribute of another type",
      [["LeakyRelu", ["x"], ["v"], { alpha: 1 }]],
      {},
      "its attribute alpha is of the type integer; expected float",
    ],
    [
      "a remainder by 0",
      [["Mod", ["a", "zero"], ["b"]], ...tail],
      { a: scalar(int64, 3), zero: whole(0) },
      "it makes NaN of whole numbers (INT64); expected one within its type",
    ],
    [
      "a remainder of floats with the sign of the divisor",
      [["Mod", ["x", "p"], ["v"]]],
      { p: scalar(float, 2) },
      "its fmod is 0 and its inputs are floats; expected an fmod of 1",
    ],
    [
      "a remainder by what depends on the inputs",
      [["Mod", ["p", "x"], ["v"], { fmod: 1 }]],
      { p: scalar(float, 2) },
      "its divisor depends on the inputs; expected a constant",
    ],
    [
      "a shrink by less than nothing",
      [["Shrink", ["x"], ["v"], { lambd: { float: -0.5 } }]],
      {},
      "its lambd is -0.5; expected a number of at least 0",
    ],
  ])("refuses %s", (_, nodes, initializers, message) => {
    expect(refusal({ nodes, initializers, inputs: { x: ["batch", 2] }, outputs: ["v"] })).toContain(message);
  });

  it("keeps sums and quotients of whole numbers whole", () => {
    const nodes: readonly OnnxCall[] = [
      ["ReduceSum", ["a", "0"], ["s"]],
      ["Div", ["s", "2"], ["b"]],
      ["Cast", ["b"], ["c"], { to: 1 }],
    ];
    expect(constantOf(nodes, { a: scalar(int64, 3, 4), 0: whole(0), 2: whole(2) })).toEqual([3, 3]);
  });

  it.each<[string, number, OnnxTensor, OnnxTensor, number[]]>([
    ["whole numbers, with the sign of the divisor", 0, scalar(int64, -7, 7), scalar(int64, 3, -3), [2, -2]],
    ["whole numbers that divide", 0, scalar(int32, -6, 6), scalar(int32, 3, -3), [0, 0]],
    ["whole numbers as in C, with the sign of the dividend", 1, scalar(int64, -7, 7), scalar(int64, 3, -3), [-1, 1]],
    ["floats as in C", 1, scalar(double, -7.5, 7.5), scalar(double, 2, -2), [-1.5, 1.5]],
  ])("Mod of %s", (_, fmod, a, b, expected) => {
    const nodes: readonly OnnxCall[] = [
      ["Mod", ["a", "b"], ["m"], { fmod }],
      ["Cast", ["m"], ["c"], { to: 1 }],
    ];
    expect(constantOf(nodes, { a, b })).toEqual(expected);
  });

  it.each<[string, (x: number) => number]>([
    ["Acos", Math.acos],
    ["Asin", Math.asin],
    ["Atan", Math.atan],
    ["Tan", Math.tan],
    ["Sinh", Math.sinh],
    ["Cosh", Math.cosh],
    ["Asinh", Math.asinh],
    ["Atanh", Math.atanh],
    ["Floor", Math.floor],
    ["Ceil", Math.ceil],
    ["Round", () => 0],
    ["Sign", Math.sign],
    ["ThresholdedRelu", () => 0],
    ["Shrink", () => 0],
    ["Swish", (x) => x / (1 + Math.exp(-x))],
  ])("folds %s of constants", (type, f) => {
    const [first, second] = constantOf([[type, ["a"], ["c"]]], { a: scalar(double, 0.5, -0.25) });
    expect(first).toBeCloseTo(f(0.5), 14);
    expect(second).toBeCloseTo(f(-0.25), 14);
  });

  it("folds Acosh and Sign, also of whole numbers", () => {
    expect(constantOf([["Acosh", ["a"], ["c"]]], { a: scalar(double, 1, 3) })).toEqual([0, Math.acosh(3)]);
    const nodes: readonly OnnxCall[] = [
      ["Sign", ["a"], ["b"]],
      ["Cast", ["b"], ["c"], { to: 1 }],
    ];
    expect(constantOf(nodes, { a: scalar(int64, -7, 3) })).toEqual([-1, 1]);
  });

  it("compares the size of the batch with what no size is, and with itself", () => {
    for (const [type, other, expected] of [
      ["Greater", 0, 1],
      ["Less", 1, NaN],
      ["Less", 0, 0],
      ["GreaterOrEqual", 1, NaN],
      ["Equal", -1, 0],
      ["Equal", 4, NaN],
    ] as const) {
      const nodes: readonly OnnxCall[] = [
        ["Shape", ["x"], ["s"], { end: 1 }],
        [type, ["s", "o"], ["k"]],
        ["Cast", ["k"], ["c"], { to: 1 }],
      ];
      const read = (): number[] => constantOf(nodes, { o: whole(other) });
      if (Number.isNaN(expected)) expect(read).toThrow("it depends on the size of the batch, which is free");
      else expect(read()).toEqual([expected, expected]);
    }
  });

  it("takes a time in whole numbers where the file casts it, and nothing else of it", () => {
    const file = (nodes: readonly OnnxCall[]): OnnxFile => ({
      nodes,
      inputs: { x: ["batch", 2], t: ["batch"] },
      types: { t: int64 },
      outputs: ["v"],
      initializers: { 1: whole(1), 2: whole(2) },
    });
    const cast: readonly OnnxCall[] = [
      ["Unsqueeze", ["t", "1"], ["a"]],
      ["Cast", ["a"], ["b"], { to: 1 }],
      ["Mul", ["x", "b"], ["v"]],
    ];
    expect([...float64Run(parseOnnx(onnxFile(file(cast))), [1, 2], [3]).value]).toEqual([3, 6]);
    // ONNX rounds this quotient.
    expect(refusal(file([["Div", ["t", "2"], ["u"]], ["Unsqueeze", ["u", "1"], ["a"]], ...cast.slice(1)]))).toContain(
      "it computes with whole numbers (INT64) that depend on the inputs",
    );
    expect(refusal({ nodes: [["Cast", ["x"], ["v"], { to: 1 }]], inputs: { x: ["b", 2] }, types: { x: 7 }, outputs: ["v"] })).toContain(
      'the state "x" is of the type INT64; expected floats',
    );
    expect(refusal({ nodes: [["Tanh", ["x"], ["v"]]], inputs: { x: ["b", 2] }, types: { x: 8 }, outputs: ["v"] })).toContain(
      'input "x" is of the type 8; expected FLOAT (1)',
    );
  });
});

describe("rows of each point", () => {
  /** x [batch, 2, 3] as [batch * 2, 3]. */
  const flat: OnnxCall = ["Reshape", ["x", "flat"], ["r"]];
  const given = { flat: whole(-1, 3), back: whole(-1, 2, 3), 0: whole(0), 1: whole(1), 2: whole(2) };

  it.each<[string, readonly OnnxCall[], string, OnnxTensor?]>([
    ["as the output", [["Identity", ["r"], ["v"]]], 'the output "v" has the shape [2 batch, 3] where the state "x" has [batch, 2, 3]'],
    ["summed", [["ReduceSum", ["r", "0"], ["v"]]], "sums along the batch"],
    ["beside each other in a softmax", [["Softmax", ["r"], ["v"], { axis: 0 }]], "divides by a sum along the batch"],
    ["of which one is taken", [["Gather", ["r", "0"], ["v"]]], "gathers along the batch"],
    [
      "up to the size of the batch",
      [
        ["Shape", ["x"], ["s"], { end: 1 }],
        ["Slice", ["r", "0", "s", "0"], ["v"]],
      ],
      "takes a part along the batch",
    ],
    ["joined", [["Concat", ["r", "r"], ["v"], { axis: 0 }]], "joins along the batch"],
    ["repeated", [["Tile", ["r", "own"], ["v"]]], "repeats along the batch", whole(2, 1)],
    [
      "expanded to the size of the batch",
      [
        ["Shape", ["t"], ["s"]],
        ["Expand", ["r", "s"], ["v"]],
      ],
      "makes batch of 2 batch along the batch",
    ],
    ["beside a number of each point", [["Mul", ["r", "t"], ["v"]]], "its inputs have 2 and 1 rows of each point; expected as many"],
    [
      "beside a number of each point, joined",
      [["Concat", ["r", "t"], ["v"], { axis: 1 }]],
      "its inputs have 2 and 1 rows of each point; expected as many",
    ],
    [
      "beside a number of each point in a product",
      [["Einsum", ["r", "t"], ["v"], { equation: "bi,bj->bij" }]],
      "its inputs have 2 and 1 rows of each point; expected as many",
    ],
    [
      "beside a constant of each",
      [["Add", ["r", "own"], ["v"]]],
      "an input has 2 elements along the batch; expected 1",
      { shape: [2, 3], data: [1, 2, 3, 4, 5, 6] },
    ],
    ["made others", [["Reshape", ["r", "own"], ["v"]]], "which moves elements from one point of the batch to another", whole(5, -1)],
    [
      "made the batch's by a size",
      [
        ["Shape", ["r"], ["s"]],
        ["Reshape", ["x", "s"], ["v"]],
        ["Reshape", ["v", "s"], ["w"]],
      ],
      "the output",
    ],
    [
      "counted",
      [
        ["Shape", ["r"], ["s"]],
        ["Add", ["s", "own"], ["n"]],
        ["Reshape", ["r", "n"], ["v"]],
      ],
      "it computes with the size of the batch",
      whole(0, 0),
    ],
    [
      "cast to floats",
      [
        ["Shape", ["r"], ["s"]],
        ["Cast", ["s"], ["n"], { to: 1 }],
        ["Add", ["r", "n"], ["v"]],
      ],
      "it computes with the size of the batch",
    ],
    [
      "compared",
      [
        ["Shape", ["r"], ["s"], { end: 1 }],
        ["Less", ["s", "own"], ["c"]],
        ["Where", ["c", "r", "t"], ["v"]],
      ],
      "it depends on the size of the batch",
      whole(5),
    ],
  ])("are refused %s", (_, nodes, message, own = whole(0)) => {
    const file = {
      nodes: [flat, ...nodes],
      inputs: { x: ["batch", 2, 3], t: ["batch", 1] },
      outputs: ["v"],
      initializers: { ...given, own },
    };
    expect(refusal(file, { state: "x" })).toContain(message);
  });

  it("keep their numbers beside others that are added to each, and cannot be added to", () => {
    const nodes = (...pads: number[]): OnnxFile => ({
      nodes: [flat, ["Pad", ["r", "pads"], ["p"]], ["Slice", ["p", "2", "5", "1"], ["q"]], ["Reshape", ["q", "back"], ["v"]]],
      inputs: { x: ["batch", 2, 3] },
      outputs: ["v"],
      initializers: { ...given, 5: whole(5), pads: whole(...pads) },
    });
    const { value } = float64Run(parseOnnx(onnxFile(nodes(0, 2, 0, 1))), [1, 2, 3, 4, 5, 6], null);
    expect([...value]).toEqual([1, 2, 3, 4, 5, 6]);
    expect(refusal(nodes(1, 2, 0, 1))).toContain("it adds elements along the batch");
  });

  it("are as many where the file says how many times the batch", () => {
    const nodes: OnnxCall[] = [
      ["Shape", ["x"], ["s"]],
      ["Gather", ["s", "01"], ["sizes"]],
      ["ReduceProd", ["sizes"], ["product"], { axes: [0] }],
      ["Concat", ["product", "own"], ["rows"], { axis: 0 }],
      ["Reshape", ["x", "rows"], ["r"]],
      ["Reshape", ["r", "back"], ["v"]],
    ];
    const file = (size: number): OnnxFile => ({
      nodes,
      inputs: { x: ["batch", 2, 3] },
      outputs: { v: ["batch", 2, 3] },
      initializers: { ...given, "01": whole(0, 1), own: whole(size) },
      opset: 17,
    });
    const { value } = float64Run(parseOnnx(onnxFile(file(3))), [1, 2, 3, 4, 5, 6], null);
    expect([...value]).toEqual([1, 2, 3, 4, 5, 6]);
    expect(refusal(file(2))).toContain("it makes [batch, 2, 3] into [2 batch, 2], which moves elements");
  });
});
