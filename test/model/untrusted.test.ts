/** Files that ask for more than they hold, or could be read in two ways. */
import { describe, expect, test } from "vitest";
import { evaluateReference, ModelError, parseOnnx, parseSafetensors, type OnnxOptions } from "../../src/index.js";
import { onnxFile, type OnnxCall, type OnnxFile, type OnnxTensor } from "../onnx.js";

function refusal(file: Uint8Array, options?: OnnxOptions): string {
  try {
    parseOnnx(file, options);
  } catch (error) {
    expect(error).toBeInstanceOf(ModelError);
    return (error as Error).message;
  }
  return expect.fail("the file was accepted");
}

const square: OnnxTensor = { shape: [2, 2], data: [1, 2, 3, 4] };

describe("rows of an output that are not the points", () => {
  const outputs = (shape?: readonly (number | string)[]): OnnxFile["outputs"] => (shape ? { y: shape } : ["y"]);

  test.for<[name: string, x: (number | string)[], y: (number | string)[] | undefined, nodes: OnnxCall[]]>([
    ["a transposed batch of a fixed size", [2, 2], undefined, [["Transpose", ["x"], ["y"]]]],
    ["the same with a free batch declared", ["B", 2], ["B", 2], [["Transpose", ["x"], ["y"]]]],
    [
      "a transposed batch behind a layer",
      [2, 2],
      [2, 2],
      [
        ["MatMul", ["x", "w"], ["h"]],
        ["Transpose", ["h"], ["y"]],
      ],
    ],
    [
      "a weight on the wrong side",
      [2, 2],
      [2, 2],
      [
        ["Transpose", ["x"], ["t"]],
        ["MatMul", ["w", "t"], ["y"]],
      ],
    ],
  ])("%s are refused", ([, x, y, nodes]) => {
    const file = onnxFile({ nodes, inputs: { x }, outputs: outputs(y), initializers: { w: square } });
    expect(refusal(file)).toMatch(/the output "y" (has the shape|is declared as) .*\[2, batch\]/);
  });

  test.for<[name: string, nodes: OnnxCall[]]>([
    [
      "x xᵀ",
      [
        ["Transpose", ["x"], ["t"]],
        ["MatMul", ["x", "t"], ["y"]],
      ],
    ],
    [
      "xᵀ + x",
      [
        ["Transpose", ["x"], ["t"]],
        ["Add", ["x", "t"], ["y"]],
      ],
    ],
    [
      "the mean over the batch",
      [
        ["ReduceMean", ["x", "zero"], ["m"]],
        ["Sub", ["x", "m"], ["y"]],
      ],
    ],
    ["w x over the batch", [["MatMul", ["w", "x"], ["y"]]]],
    ["rows joined", [["Concat", ["x", "x"], ["y"], { axis: 0 }]]],
    ["rows picked", [["Gather", ["x", "zero"], ["y"], { axis: 0 }]]],
    ["rows flattened", [["Flatten", ["x"], ["y"], { axis: 0 }]]],
  ])("%s couple points and are refused", ([, nodes]) => {
    const initializers = { w: square, zero: { shape: [1], data: [0], type: 7 } };
    for (const x of [
      [2, 2],
      ["B", 2],
    ])
      refusal(onnxFile({ nodes, inputs: { x }, outputs: ["y"], initializers }));
  });

  test("a transposed transpose is what it was", () => {
    const nodes: OnnxCall[] = [
      ["Transpose", ["x"], ["t"]],
      ["Tanh", ["t"], ["a"]],
      ["Transpose", ["a"], ["y"]],
    ];
    const network = parseOnnx(onnxFile({ nodes, inputs: { x: [2, 2] }, outputs: { y: [2, 2] } }));
    expect(evaluateReference(network, [1, 2]).value).toEqual(Float64Array.of(Math.tanh(1), Math.tanh(2)));
  });
});

describe("a declared output", () => {
  const nodes: OnnxCall[] = [["MatMul", ["x", "w"], ["y"]]];
  const file = (x: (number | string)[], y: readonly (number | string)[]): Uint8Array =>
    onnxFile({ nodes, inputs: { x }, outputs: { y }, initializers: { w: square } });

  test.for([
    [
      ["B", 2],
      ["B", 2],
    ],
    [
      ["B", 2],
      ["N", 2],
    ],
    [
      ["B", 2],
      ["B", "d"],
    ],
    [
      [5, 2],
      [5, 2],
    ],
    [
      [1, 2],
      [1, 2],
    ],
  ] as const)("of %j is taken as %j", ([x, y]) => {
    expect(parseOnnx(file([...x], y)).stateSize).toBe(2);
  });

  test.for([
    [
      ["B", 2],
      ["B", 3],
    ],
    [
      ["B", 2],
      ["B", 2, 1],
    ],
    [["B", 2], [2]],
    [
      ["B", 2],
      ["B", "B"],
    ],
    [
      ["B", 2],
      [7, 2],
    ],
    [
      [5, 2],
      [2, 5],
    ],
  ] as const)("of %j is refused as %j", ([x, y]) => {
    expect(refusal(file([...x], y))).toMatch(/the output "y" is declared as \[.*\]; expected \[batch, 2\], which its nodes give/);
  });
});

describe("a literal on the batch axis", () => {
  const file = (x: (number | string)[], shape: readonly number[]): Uint8Array =>
    onnxFile({
      nodes: [["Expand", ["x", "shape"], ["y"]]],
      inputs: { x },
      outputs: ["y"],
      initializers: { shape: { shape: [shape.length], data: shape, type: 7 } },
    });

  test("is refused where it repeats rows", () => {
    expect(refusal(file(["B", 2], [3, 2]))).toMatch(/Expand.*makes 3 of every point along the batch/);
    expect(refusal(file([1, 2], [3, 2]))).toMatch(/Expand.*makes 3 of every point along the batch/);
  });

  test("is the batch where the file fixes it so, and nothing where it is 1", () => {
    expect(parseOnnx(file([3, 2], [3, 2])).stateSize).toBe(2);
    expect(parseOnnx(file(["B", 2], [1, 2])).stateSize).toBe(2);
  });
});

describe("casts of constants", () => {
  /** x times what a cast makes of a number of a type. */
  const cast = (data: number, from: number, to: number | OnnxTensor): number => {
    const like = typeof to !== "number";
    const nodes: OnnxCall[] = [
      like ? ["CastLike", ["c", "like"], ["k"]] : ["Cast", ["c"], ["k"], { to }],
      ["Cast", ["k"], ["f"], { to: 11 }],
      ["Mul", ["x", "f"], ["y"]],
    ];
    const initializers = { c: { shape: [1], data: [data], type: from }, ...(like && { like: to }) };
    const network = parseOnnx(onnxFile({ nodes, inputs: { x: ["B", 1] }, outputs: ["y"], initializers }));
    return evaluateReference(network, [1]).value![0]!;
  };

  test.for([
    ["float16 rounds", 1.0001, 11, 10, 1],
    ["float16 rounds to even", 2049, 11, 10, 2048],
    ["bfloat16 rounds", 1.01, 11, 16, 1.0078125],
    ["float32 rounds", 0.1, 11, 1, Math.fround(0.1)],
    ["INT32 takes whole parts", -2.7, 11, 6, -2],
    ["INT32 wraps whole numbers", 2 ** 32 + 5, 7, 6, 5],
    ["INT32 wraps into negative ones", 2 ** 31, 7, 6, -(2 ** 31)],
    ["BOOL is one or none", 7, 7, 9, 1],
    ["BOOL of 0", 0, 7, 9, 0],
  ] as const)("%s", ([, number, from, to, expected]) => {
    expect(cast(number, from, to)).toBe(expected);
  });

  test("CastLike casts as Cast does", () => {
    expect(cast(2.7, 11, { shape: [1], data: [1], type: 7 })).toBe(2);
    expect(cast(1.0001, 11, { shape: [1], data: [0], type: 10 })).toBe(1);
    expect(cast(7, 7, { shape: [1], data: [1], type: 9 })).toBe(1);
  });

  test("what ONNX does not define is refused", () => {
    expect(() => cast(3e9, 11, 6)).toThrow(/makes 3000000000 a whole number \(INT32\); expected one within the type/);
    expect(() => cast(1, 11, 14)).toThrow(/makes numbers of type 14; expected FLOAT/);
  });
});

describe("small files that ask for much", () => {
  const many = (type: string, inputs: (index: number) => string[]): Uint8Array => {
    const nodes: OnnxCall[] = [["ConstantOfShape", ["size"], ["c0"], { value: { tensor: { shape: [1], data: [1], type: 9 } } }]];
    for (let index = 0; index < 100; index++)
      nodes.push([type, inputs(index), [`c${index + 1}`], type === "Cast" ? { to: [6, 7, 9][index % 3]! } : {}]);
    nodes.push(["Cast", ["c100"], ["f"], { to: 1 }], ["ReduceSum", ["f"], ["s"]], ["Mul", ["x", "s"], ["y"]]);
    return onnxFile({ nodes, inputs: { x: ["B", 1] }, outputs: ["y"], initializers: { size: { shape: [1], data: [500_000], type: 7 } } });
  };

  test.for<[type: string, inputs: (index: number) => string[]]>([
    ["Cast", (index) => [`c${index}`]],
    ["Not", (index) => [`c${index}`]],
    ["Equal", (index) => [`c${index}`, `c${index}`]],
    ["And", (index) => [`c${index}`, "c0"]],
    ["Where", (index) => ["c0", `c${index}`, "c0"]],
    ["CastLike", (index) => [`c${index}`, "c0"]],
  ])("a hundred of %s over half a million numbers are refused", ([type, inputs]) => {
    expect(refusal(many(type, inputs))).toMatch(/needs more than \d+ numbers for its values and constants/);
  });

  test("a Split into more parts than it gives is refused", () => {
    const nodes: OnnxCall[] = [
      ["Split", ["x"], ["a", "b"], { axis: 1, num_outputs: 2 ** 60 }],
      ["Concat", ["a", "b"], ["y"], { axis: 1 }],
    ];
    expect(refusal(onnxFile({ nodes, inputs: { x: ["B", 2] }, outputs: ["y"] }))).toMatch(/num_outputs is 1152921504606847000; expected 2/);
  });

  test("two graphs in one file are refused", () => {
    const file = onnxFile({ nodes: [["Tanh", ["x"], ["y"]]], inputs: { x: ["B", 2] }, outputs: ["y"] });
    expect(parseOnnx(file).stateSize).toBe(2);
    expect(refusal(Uint8Array.from([...file, ...file]))).toMatch(/field 7 stands twice in its message; expected it once/);
  });

  test("a wide state stays a diagonal", () => {
    const width = 30_000;
    const w: OnnxTensor = { shape: [width], data: Array.from({ length: width }, (_, i) => 1 + (i % 7)) };
    const nodes: OnnxCall[] = [
      ["Mul", ["x", "w"], ["h"]],
      ["Tanh", ["h"], ["a"]],
      ["Mul", ["a", "x"], ["b"]],
      ["Sub", ["b", "x"], ["y"]],
    ];
    const network = parseOnnx(onnxFile({ nodes, inputs: { x: ["B", width] }, outputs: ["y"], initializers: { w } }));
    const weights = network.operations.flatMap((operation) => (operation.kind === "linear" ? operation.terms : []));
    expect(weights.every(({ weight }) => "diagonal" in weight)).toBe(true);
    const x = new Float64Array(width).fill(0.5);
    const { divergence, diagonal } = evaluateReference(network, x, { method: "tangent", outputs: ["divergence", "diagonal"] });
    const own = (k: number): number => Math.tanh(k / 2) + k / 2 / Math.cosh(k / 2) ** 2 - 1;
    expect(diagonal![9]).toBeCloseTo(own(3), 12);
    const sum = Array.from({ length: width }, (_, i) => own(1 + (i % 7))).reduce((a, b) => a + b);
    expect(divergence![0]! / sum).toBeCloseTo(1, 12);
  });
});

describe("a safetensors header", () => {
  const file = (header: string, data = 8): Uint8Array => {
    const text = new TextEncoder().encode(header);
    const bytes = new Uint8Array(8 + text.length + data);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
    bytes.set(text, 8);
    return bytes;
  };
  const entry = (from: number): string => `{"dtype":"F32","shape":[1,1],"data_offsets":[${from},${from + 4}]}`;

  test("with one key twice is refused, however it is written", () => {
    const twice = [
      `{"0.weight":${entry(0)},"0.weight":${entry(4)}}`,
      `{"0.weight":${entry(0)},"0.we\\u0069ght":${entry(4)}}`,
      `{"0.weight":{"dtype":"F32","dtype":"F64","shape":[1,1],"data_offsets":[0,8]}}`,
      `{"__metadata__":{"activation":"tanh","activation":"relu"},"0.weight":${entry(0)},"1.weight":${entry(4)}}`,
    ];
    for (const header of twice) expect(() => parseSafetensors(file(header))).toThrow(/the header has ".*" twice; expected one/);
  });

  test("may hold quotes, colons and brackets in its texts", () => {
    const metadata = `"__metadata__":{"a":"\\"[{:","b":"a","c\\\\":"[[[["}`;
    expect(parseSafetensors(file(`{${metadata},"0.weight":${entry(0)}}`, 4)).stateSize).toBe(1);
  });

  test("of nested lists, or a very long one, is refused before it is parsed", () => {
    expect(() => parseSafetensors(file(`{"a":${"[".repeat(1000)}${"]".repeat(1000)}}`))).toThrow(/nests more than 3 levels/);
    expect(() => parseSafetensors(file(`{"a":[${"1,".repeat(3 * 2 ** 20)}1]}`))).toThrow(/expected at most 4194304/);
  });
});
