import { describe, expect, it } from "vitest";
import { ModelError } from "../../src/errors.js";
import type { Network } from "../../src/model/network.js";
import { parseSafetensors, type SafetensorsOptions } from "../../src/model/readers/safetensors.js";
import { expectClose } from "../close.js";
import { loadModel, loadVector, modelNames, random, vectorNames, weightOf } from "../fields.js";
import { float64Run } from "../float32.js";

/** A file with this header, as JSON where it is an object, and this many bytes of data, or these. */
function file(header: unknown, data: number | Uint8Array = 0, headerLength?: bigint): Uint8Array {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const rest = typeof data === "number" ? new Uint8Array(data) : data;
  const bytes = new Uint8Array(8 + text.length + rest.length);
  new DataView(bytes.buffer).setBigUint64(0, headerLength ?? BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(rest, 8 + text.length);
  return bytes;
}

type Entry = [name: string, shape: number[], numbers?: ArrayLike<number>];

/** A valid file of float32 tensors, zero where no numbers are given. */
function floats(metadata: Record<string, string>, entries: Entry[]): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  const data: number[] = [];
  for (const [name, shape, numbers] of entries) {
    const begin = data.length * 4;
    const count = shape.reduce((product, n) => product * n, 1);
    data.push(...Array.from({ length: count }, (_, i) => numbers?.[i] ?? 0));
    header[name] = { dtype: "F32", shape, data_offsets: [begin, data.length * 4] };
  }
  return file(header, new Uint8Array(Float32Array.from(data).buffer));
}

function refusal(bytes: Uint8Array, options?: SafetensorsOptions): string {
  try {
    parseSafetensors(bytes, options);
  } catch (error) {
    expect(error).toBeInstanceOf(ModelError);
    expect((error as Error).message).toMatch(/^safetensors: /);
    return (error as Error).message;
  }
  expect.unreachable("the file was accepted");
}

/** Inputs of the first layer, then the outputs of each. */
function widthsOf(network: Network): number[] {
  const outputs = network.operations.flatMap((operation, index) => (operation.kind === "linear" ? [weightOf(network, index).rows] : []));
  return [network.stateSize + network.contextSize, ...outputs];
}

function activationsOf(network: Network): string[] {
  return network.operations.flatMap((operation) => (operation.kind === "activation" ? [String(operation.activation)] : []));
}

describe("real files", () => {
  it.each(modelNames)("reads %s as PyTorch wrote it", (name) => {
    const { network, truth } = loadModel(name);
    expect(network).toMatchObject({ stateSize: truth.stateSize, contextSize: truth.contextSize });
    expect(widthsOf(network)).toEqual(truth.widths);
    expect(activationsOf(network)).toEqual(Array(truth.widths.length - 2).fill(truth.activation));

    const { value, diagonal, divergence } = float64Run(network, truth.points, truth.context);
    expectClose(value, truth.value, truth.value.map(Math.abs), { relative: 1e-10, absolute: 1e-10, label: "value" });
    expectClose(diagonal, truth.jacobianDiagonal, truth.jacobianDiagonal.map(Math.abs), {
      relative: 1e-10,
      absolute: 1e-10,
      label: "diagonal",
    });
    expectClose(divergence, truth.divergence, truth.divergence.map(Math.abs), { relative: 1e-10, absolute: 1e-10, label: "divergence" });
  });

  it.each(vectorNames)("reads %s as PyTorch wrote it", (name) => {
    const { network, truth } = loadVector(name);
    expect(network).toMatchObject({ stateSize: truth.widths.at(-1), contextSize: 0 });
    expect(widthsOf(network)).toEqual(truth.widths);
    const hidden = truth.widths.length - 2;
    expect(activationsOf(network)).toEqual(
      truth.activation.includes(",") ? truth.activation.split(",") : Array(hidden).fill(truth.activation),
    );

    const { value, diagonal, divergence } = float64Run(network, truth.x, null);
    expectClose(value, truth.y, truth.y.map(Math.abs), { relative: 1e-10, absolute: 1e-12, label: "value" });
    expectClose(diagonal, truth.diag, truth.diag.map(Math.abs), { relative: 1e-10, absolute: 1e-12, label: "diagonal" });
    expectClose(divergence, truth.div, truth.absJacDiagSum, { relative: 1e-10, absolute: 1e-12, label: "divergence" });
  });

  it("takes an ArrayBuffer, and a view at an odd offset of another buffer", () => {
    const { network, bytes } = loadVector("tanh_5_20_5");
    const shifted = new Uint8Array(bytes.length + 5).subarray(3, 3 + bytes.length);
    shifted.set(bytes);
    expect(parseSafetensors(shifted).operations[0]).toEqual(network.operations[0]);
    expect(parseSafetensors(Uint8Array.from(bytes).buffer).operations[0]).toEqual(network.operations[0]);
  });
});

describe("names and options", () => {
  const square: [number, number] = [2, 2];

  it.each([
    ["weight", "bias"],
    ["0.weight", "0.bias"],
    ["net.0.weight", "net.0.bias"],
    ["module.layers.1.weight", "module.layers.1.bias"],
  ])("reads one layer as %s and %s", (weight, bias) => {
    const network = parseSafetensors(
      floats({}, [
        [bias, [2], [5, 6]],
        [weight, square, [1, 2, 3, 4]],
      ]),
    );
    expect(network.operations).toMatchObject([{ kind: "linear", bias: Float32Array.of(5, 6), terms: [{ operand: "state" }] }]);
    expect(weightOf(network, 0).data).toEqual(Float32Array.of(1, 2, 3, 4));
  });

  it("puts layers in natural order, 2 before 10, whatever the order of the file", () => {
    const network = parseSafetensors(
      floats({ activation: "tanh" }, [
        ["net.10.weight", [2, 5]],
        ["net.2.weight", [5, 3]],
        ["net.0.weight", [3, 2]],
      ]),
    );
    expect(widthsOf(network)).toEqual([2, 3, 5, 2]);
  });

  it("lets the caller's activation and contextColumns win over the file's", () => {
    const metadata = { activation: "nonsense", contextColumns: "nonsense" };
    const bytes = floats(metadata, [
      ["0.weight", [3, 3]],
      ["2.weight", [2, 3]],
    ]);
    const network = parseSafetensors(bytes, { activation: ["elu(0.5)"], contextColumns: "first" });
    expect(activationsOf(network)).toEqual(["elu(0.5)"]);
    expect(refusal(bytes, { contextColumns: "first" })).toContain("nonsense");
    expect(refusal(bytes, { activation: "tanh" })).toContain('contextColumns is "nonsense"');
  });

  it("reads a list of activations, with parameters in brackets, from the file", () => {
    const network = parseSafetensors(
      floats({ activation: "softplus(2,20),sin(30),tanh" }, [
        ["0.weight", [4, 2]],
        ["1.weight", [4, 4]],
        ["2.weight", [2, 4]],
      ]),
    );
    expect(activationsOf(network)).toEqual(["softplus(2)", "sin(30)", "tanh"]);
  });

  it("gives equal networks for permuted columns, with the context first or last", () => {
    const second: Entry = ["2.weight", [2, 2], [1, 2, 3, 4]];
    const last = floats({ activation: "tanh", context: "1" }, [["0.weight", [2, 3], [1, 2, 9, 3, 4, 8]], second]);
    const first = [["0.weight", [2, 3], [9, 1, 2, 8, 3, 4]], second] satisfies Entry[];
    const read = (...given: Parameters<typeof parseSafetensors>): unknown => ({
      ...parseSafetensors(...given),
      notes: null,
      tensors: null,
    });
    const expected = read(last);
    expect(read(last, { contextColumns: "last" })).toEqual(expected);
    expect(read(floats({ activation: "tanh" }, first), { contextColumns: "first" })).toEqual(expected);
    expect(read(floats({ activation: "tanh", contextColumns: "first" }, first))).toEqual(expected);
    expect(parseSafetensors(last).operations[0]).toMatchObject({
      terms: [
        { operand: "state", weight: { data: Float32Array.of(1, 2, 3, 4) } },
        { operand: "context", weight: { rows: 2, columns: 1, data: Float32Array.of(9, 8) } },
      ],
    });
  });

  it("refuses a context that the shapes do not confirm", () => {
    expect(refusal(floats({ context: "1" }, [["weight", square]]))).toBe(
      'safetensors: __metadata__.context is "1"; expected "0", the inputs of the first layer minus the outputs of the last',
    );
  });

  it("refuses a missing activation and an unknown one", () => {
    const layers: Entry[] = [
      ["0.weight", square],
      ["2.weight", square],
    ];
    expect(refusal(floats({}, layers))).toContain("no activation was given for 1 hidden layer");
    expect(refusal(floats({ activation: "relux" }, layers))).toContain('activation is "relux"; expected one of');
    expect(refusal(floats({ activation: ",".repeat(200_000) }, layers))).toContain("__metadata__.activation has 200000 characters");
  });
});

describe("number types", () => {
  /** Spaces after the header move the data, by default through every alignment. */
  function decode(
    dtype: string,
    bytesEach: number,
    bits: readonly (number | bigint)[],
    spaces = [0, 1, 2, 3, 4, 5, 6, 7],
  ): Float32Array | Float64Array {
    const data = new DataView(new ArrayBuffer(bits.length * bytesEach));
    bits.forEach((pattern, i) => {
      if (typeof pattern === "bigint") data.setBigUint64(i * 8, pattern, true);
      else if (bytesEach === 2) data.setUint16(i * 2, pattern, true);
      else data.setUint32(i * 4, pattern, true);
    });
    const header = JSON.stringify({ weight: { dtype, shape: [1, bits.length], data_offsets: [0, data.byteLength] } });
    const all = spaces.map((count) => {
      const network = parseSafetensors(file(header + " ".repeat(count), new Uint8Array(data.buffer)));
      // One output, so the first column is the state's and the others the context's.
      const parts = [0, 1].slice(0, bits.length).map((term) => weightOf(network, 0, term).data);
      return parts[0] instanceof Float64Array
        ? Float64Array.from(parts.flatMap((part) => [...part]))
        : Float32Array.from(parts.flatMap((part) => [...part]));
    });
    for (const numbers of all) expect(numbers).toEqual(all[0]);
    return all[0]!;
  }

  it("decodes F16 exactly, with subnormals and -0", () => {
    const numbers = decode("F16", 2, [0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x3c00, 0xc000, 0x3555, 0x7bff, 0xfbff]);
    expect(numbers).toEqual(Float32Array.of(0, -0, 2 ** -24, -1023 * 2 ** -24, 2 ** -14, 1, -2, 1365 * 2 ** -12, 65504, -65504));
    expect(Object.is(numbers[1], -0)).toBe(true);
  });

  it("decodes every finite F16, in order, both signs alike", () => {
    const patterns = Array.from({ length: 0x10000 }, (_, bits) => bits).filter((bits) => (bits & 0x7c00) !== 0x7c00);
    const numbers = decode("F16", 2, patterns, [0]);
    const positive = numbers.subarray(0, 0x7c00);
    expect(positive.every((x, i) => i === 0 || x > positive[i - 1]!)).toBe(true);
    expect(numbers.subarray(0x7c00).every((x, i) => Object.is(x, -positive[i]!))).toBe(true);
    expect(positive.every((x, i) => x === (i < 0x400 ? i : ((i & 0x3ff) + 0x400) * 2 ** ((i >> 10) - 1)) * 2 ** -24)).toBe(true);
  });

  it("decodes BF16 exactly, with subnormals and -0", () => {
    const numbers = decode("BF16", 2, [0x0000, 0x8000, 0x0001, 0x807f, 0x0080, 0x3f80, 0xc049, 0x7f7f]);
    expect(numbers).toEqual(Float32Array.of(0, -0, 2 ** -133, -127 * 2 ** -133, 2 ** -126, 1, -3.140625, 255 * 2 ** 120));
    expect(Object.is(numbers[1], -0)).toBe(true);
  });

  it("decodes F32 exactly, with subnormals and -0", () => {
    const numbers = decode("F32", 4, [0x80000000, 0x00000001, 0x007fffff, 0x3f800001, 0x7f7fffff]);
    expect(numbers).toEqual(Float32Array.of(-0, 2 ** -149, (2 ** 23 - 1) * 2 ** -149, 1 + 2 ** -23, 3.4028234663852886e38));
    expect(Object.is(numbers[0], -0)).toBe(true);
  });

  it("keeps F64 as float64", () => {
    const numbers = decode("F64", 8, [0x8000000000000000n, 1n, 0x3ff0000000000001n, 0x400921fb54442d18n]);
    expect(numbers).toEqual(Float64Array.of(-0, 5e-324, 1 + Number.EPSILON, Math.PI));
    expect(Object.is(numbers[0], -0)).toBe(true);
  });

  it.each([
    ["F16", [0x00, 0x7c], "Infinity"],
    ["F16", [0x01, 0x7c], "NaN"],
    ["BF16", [0x80, 0xff], "-Infinity"],
    ["F32", [0, 0, 0xc0, 0x7f], "NaN"],
    ["F64", [0, 0, 0, 0, 0, 0, 0xf0, 0x7f], "Infinity"],
    // 2^200, finite here and infinite in the kernels.
    ["F64", [0, 0, 0, 0, 0, 0, 0x70, 0x4c], String(2 ** 200)],
  ])("refuses what is not finite in float32: %s %j", (dtype, bytes, shown) => {
    const header = { "net.0.weight": { dtype, shape: [1, 1], data_offsets: [0, bytes.length] } };
    expect(refusal(file(header, Uint8Array.from(bytes)))).toBe(
      `safetensors: tensor "net.0.weight" holds ${shown} at position 0; expected numbers that are finite in float32`,
    );
  });
});

describe("tensors that are not a chain of linear layers", () => {
  it.each<[string, Entry[], string]>([
    ["a norm's weight", [["norm.weight", [2]]], 'tensor "norm.weight" of shape [2] is not part of a chain'],
    ["a running mean", [["bn.running_mean", [2]]], 'tensor "bn.running_mean" of shape [2] is not part'],
    ["a convolution", [["conv.weight", [2, 2, 3, 3]]], 'tensor "conv.weight" of shape [2,2,3,3] is not part'],
    ["another name", [["log_sigma", [2, 2]]], 'tensor "log_sigma" of shape [2,2] is not part'],
    ["a name that only ends alike", [["reweight", [2, 2]]], 'tensor "reweight" of shape [2,2] is not part'],
    [
      "a bias of two dimensions",
      [
        ["weight", [2, 2]],
        ["bias", [1, 2]],
      ],
      'tensor "bias" of shape [1,2] is not part',
    ],
    [
      "a bias alone",
      [
        ["0.weight", [2, 2]],
        ["1.bias", [2]],
      ],
      'tensor "1.bias" stands alone; expected "1.weight" beside it',
    ],
    [
      "a bias of another length",
      [
        ["0.weight", [2, 2]],
        ["0.bias", [3]],
      ],
      'tensor "0.bias" has 3 numbers; expected 2',
    ],
    ["no tensors", [], "there are no layers; expected at least one"],
    ["more outputs than inputs", [["0.weight", [3, 2]]], "the network takes 2 inputs and gives 3 outputs"],
    [
      "shapes that do not chain",
      [
        ["net.0.weight", [4, 2]],
        ["net.2.weight", [2, 3]],
      ],
      'names and shapes [outputs, inputs] fit no order of "net.0" [4, 2], "net.2" [2, 3]; expected the names in order in layers:',
    ],
    [
      "a network beside its moving average",
      [
        ["ema.0.weight", [3, 2]],
        ["ema.2.weight", [2, 3]],
        ["net.0.weight", [3, 2]],
        ["net.2.weight", [2, 3]],
      ],
      'layers "ema.0" and "net.0" begin two sequences; expected one, as of prefix: "ema." or prefix: "net."',
    ],
    ["a key that is special in JavaScript", [["__proto__", [2, 2]]], 'tensor "__proto__" of shape [2,2] is not part'],
  ])("refuses %s", (_, entries, message) => {
    // Written by hand, since in an object literal __proto__ is no key.
    const text = entries.map(([name, shape], i) => {
      const begin = entries.slice(0, i).reduce((sum, entry) => sum + size(entry[1]), 0);
      return `"${name}":${JSON.stringify({ dtype: "F32", shape, data_offsets: [begin, begin + size(shape)] })}`;
    });
    const total = entries.reduce((sum, entry) => sum + size(entry[1]), 0);
    expect(refusal(file(`{${text.join()}}`, total), { activation: "tanh" })).toContain(message);
  });

  function size(shape: number[]): number {
    return shape.reduce((product, n) => product * n, 4);
  }

  it("is not misled by __proto__ inside an entry, in the metadata or in a name", () => {
    const entry = '{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}';
    expect(refusal(file(`{"weight":{"__proto__":{"dtype":"F32"}}}`, 4))).toContain('tensor "weight" has the shape missing');
    const network = parseSafetensors(file(`{"__metadata__":{"__proto__":"tanh"},"__proto__.weight":${entry}}`, 4));
    expect(network.stateSize).toBe(1);
  });
});

describe("hostile files", () => {
  const entry = (change: object): object => ({ weight: { dtype: "F32", shape: [2, 2], data_offsets: [0, 16], ...change } });

  it.each<[string, Uint8Array, string]>([
    ["an empty file", new Uint8Array(), "the file has 0 bytes; expected at least 8"],
    ["seven bytes", new Uint8Array(7), "the file has 7 bytes; expected at least 8"],
    ["no header", new Uint8Array(8), 'the header starts with nothing; expected "{"'],
    ["a header longer than the file", file("{}", 0, 3n), "the header's length is 3 bytes; expected at most 2 in a file of 10"],
    ["a header of 2^64 - 1 bytes", file("{}", 0, 2n ** 64n - 1n), "the header's length is 18446744073709551615 bytes; expected at most 2"],
    ["a header that is no JSON", file("{nonsense}"), "the header of 10 bytes cannot be read"],
    ["a header that is no UTF-8", file("{}", Uint8Array.of(0xff, 0x7d), 4n), "the header of 4 bytes cannot be read"],
    ["a header after a byte order mark", file("\uFEFF{}"), "the header starts with byte 239"],
    ["a list for a header", file("[]"), "the header starts with byte 91"],
    ["text after the header's object", file("{}{}"), "the header of 4 bytes cannot be read"],
    ["metadata that is a list", file({ __metadata__: [] }), "__metadata__ is []; expected an object of texts"],
    ["metadata that is no text", file({ __metadata__: { context: 1 } }), '__metadata__ has "context" as 1; expected a text'],
    ["an entry that is a number", file({ weight: 3 }), 'tensor "weight" is 3; expected { dtype, shape, data_offsets }'],
    ["an entry that is null", file({ weight: null }), 'tensor "weight" is null'],
    ["an entry that is a list", file({ weight: [1] }), 'tensor "weight" is [1]'],
    ["no dtype", file(entry({ dtype: undefined }), 16), 'tensor "weight" has the dtype missing; expected F64, F32, F16, BF16'],
    ["a dtype that is no text", file(entry({ dtype: 4 }), 16), 'tensor "weight" has the dtype 4'],
    ["a dtype it cannot read", file(entry({ dtype: "I32" }), 16), 'tensor "weight" has the dtype "I32"'],
    ["a dtype named like a method", file(entry({ dtype: "constructor" }), 16), 'tensor "weight" has the dtype "constructor"'],
    ["no shape", file(entry({ shape: undefined }), 16), 'tensor "weight" has the shape missing; expected a list of whole numbers'],
    ["a negative shape", file(entry({ shape: [-2, -2] }), 16), 'tensor "weight" has the shape [-2,-2]'],
    ["a fractional shape", file(entry({ shape: [0.5, 8] }), 16), 'tensor "weight" has the shape [0.5,8]'],
    ["a shape past 2^53", file(entry({ shape: [2 ** 53, 1] }), 16), 'tensor "weight" has the shape [9007199254740992,1]'],
    ["a shape of texts", file(entry({ shape: ["2", "2"] }), 16), 'tensor "weight" has the shape ["2","2"]'],
    [
      "a dimension of 0",
      file(entry({ shape: [0, 2], data_offsets: [0, 0] })),
      'tensor "weight" has the shape [0,2]; expected no dimension of 0',
    ],
    [
      "a product that overflows 64 bits to 0",
      file(entry({ shape: [2 ** 32, 2 ** 32], data_offsets: [0, 0] })),
      'tensor "weight" has 0 bytes of data; expected 73786976294838210000',
    ],
    [
      "a product that overflows 32 bits to 16",
      file(entry({ shape: [2 ** 30 + 4, 1] }), 16),
      'tensor "weight" has 16 bytes of data; expected 4294967312',
    ],
    ["no offsets", file(entry({ data_offsets: undefined }), 16), 'tensor "weight" has the data_offsets missing; expected [begin, end]'],
    ["one offset", file(entry({ data_offsets: [16] }), 16), 'tensor "weight" has the data_offsets [16]; expected [begin, end]'],
    ["negative offsets", file(entry({ data_offsets: [-16, 0] }), 16), 'tensor "weight" has the data_offsets [-16,0]'],
    ["offsets that run backwards", file(entry({ data_offsets: [16, 0] }), 16), "expected begin <= end <= 16"],
    ["offsets past the end", file(entry({ data_offsets: [16, 32] }), 16), "expected begin <= end <= 16, the size of the data"],
    [
      "fewer bytes than the shape says",
      file(entry({ data_offsets: [0, 12] }), 12),
      'tensor "weight" has 12 bytes of data; expected 16 for F32 [2,2]',
    ],
    ["bytes after the last tensor", file(entry({}), 17), "the tensors end at byte 16 of the data; expected 17"],
    [
      "bytes before the first tensor",
      file(entry({ data_offsets: [1, 17] }), 17),
      "begins at byte 1 of the data; expected 0, where the one before it ends (there is a hole)",
    ],
    [
      "overlapping tensors",
      file({ ...entry({}), bias: { dtype: "F32", shape: [2], data_offsets: [12, 20] } }, 20),
      'tensor "bias" begins at byte 12 of the data; expected 16, where the one before it ends (they overlap)',
    ],
    [
      "the same name twice",
      file(`{"weight":${JSON.stringify(Object.values(entry({}))[0])},"weight":{"dtype":"F32","shape":[1,1],"data_offsets":[16,20]}}`, 20),
      'the header has "weight" twice; expected one',
    ],
  ])("refuses %s", (_, bytes, message) => {
    expect(refusal(bytes)).toContain(message);
  });

  it("refuses a header of more than 4 MiB before it reads it", () => {
    const bytes = new Uint8Array(100_000_016);
    new DataView(bytes.buffer).setBigUint64(0, 100_000_001n, true);
    expect(refusal(bytes)).toContain("the header's length is 100000001 bytes; expected at most 4194304");
  });

  it("refuses what is not bytes", () => {
    expect(refusal(1e9 as unknown as Uint8Array)).toBe("safetensors: the file is 1000000000; expected its bytes");
    expect(refusal("model" as unknown as Uint8Array)).toContain('the file is "model"');
  });

  it("refuses a deeply nested header without running out of stack", () => {
    const deep = "[".repeat(1_000_000) + "]".repeat(1_000_000);
    expect(refusal(file(`{"weight":${deep}}`))).toContain("the header nests more than 3 levels");
    expect(refusal(file(`{"weight":{"shape":${deep}}}`))).toContain("the header nests more than 3 levels");
  });

  it("shortens what it quotes", () => {
    expect(refusal(file({ ["x".repeat(1_000_000)]: entry({}) })).length).toBeLessThan(400);
  });

  const small = floats({ activation: "tanh" }, [
    ["0.weight", [2, 2], [1, 2, 3, 4]],
    ["0.bias", [2]],
    ["2.weight", [1, 2]],
  ]);

  it("refuses a file cut short at any byte", () => {
    expect(parseSafetensors(small).stateSize).toBe(1);
    for (let length = 0; length < small.length; length++) refusal(small.slice(0, length));
  });

  it("gives a network or a ModelError, and quickly, whatever bits are flipped", () => {
    const uniform = random(1);
    const start = performance.now();
    let accepted = 0;
    for (let trial = 0; trial < 2000; trial++) {
      const bytes = small.slice();
      for (let flip = 0; flip <= 3 * uniform(); flip++) bytes[Math.floor(uniform() * bytes.length)]! ^= 1 << Math.floor(uniform() * 8);
      try {
        parseSafetensors(bytes);
        accepted++;
      } catch (error) {
        expect(error).toBeInstanceOf(ModelError);
      }
    }
    // Flips in the weights and in unread metadata are harmless; most others are not.
    expect(accepted).toBeGreaterThan(50);
    expect(accepted).toBeLessThan(1000);
    expect(performance.now() - start).toBeLessThan(5000);
  });
});

describe("what a layer is stored as", () => {
  const bias: Entry = ["bias", [2], [1, -1]];
  const square: [number, number] = [2, 2];
  const v = [3, 4, 5, 12];

  it.each<[string, Entry[], number[]]>([
    ["a weight", [["weight", square, v]], v],
    ["a kernel", [["kernel", square, v]], [3, 5, 4, 12]],
    ["Keras's kernel", [["dense/kernel:0", square, v]], [3, 5, 4, 12]],
    ["Keras's variables", [["layers/dense/vars/0", square, v]], [3, 5, 4, 12]],
    [
      "weight_norm over rows",
      [
        ["weight_g", [2, 1], [10, 26]],
        ["weight_v", square, v],
      ],
      [6, 8, 10, 24],
    ],
    [
      "weight_norm over columns",
      [
        ["a.parametrizations.weight.original0", [1, 2], [34 ** 0.5, 160 ** 0.5 * 2]],
        ["a.parametrizations.weight.original1", square, v],
      ],
      [3, 8, 5, 24],
    ],
    [
      "weight_norm over all",
      [
        ["a.weight_v", square, v],
        ["a.weight_g", [], [194 ** 0.5 * 3]],
      ],
      [9, 12, 15, 36],
    ],
    [
      "spectral_norm",
      [
        ["weight_orig", square, v],
        ["weight_u", [2], [0, 1]],
        ["weight_v", [2], [2, 0]],
      ],
      [0.3, 0.4, 0.5, 1.2],
    ],
    [
      "spectral_norm as a parametrization",
      [
        ["net.0.parametrizations.weight.original", square, v],
        ["net.0.parametrizations.weight.0._u", [2], [0, 1]],
        ["net.0.parametrizations.weight.0._v", [2], [2, 0]],
      ],
      [0.3, 0.4, 0.5, 1.2],
    ],
  ])("is read from %s", (_, entries, expected) => {
    const weight = weightOf(parseSafetensors(floats({}, entries)), 0);
    weight.data.forEach((value, i) => expect(value).toBeCloseTo(expected[i]!, 5));
  });

  it.each<[string, Entry[], string]>([
    [
      "a gain for everything",
      [
        ["weight_g", square],
        ["weight_v", square],
      ],
      'tensor "weight_g" of shape [2,2] is of no weight_norm of [2,2]; expected [2,1], [1,2] or [1]',
    ],
    [
      "weights that are 0",
      [
        ["weight_g", [2, 1], [1, 1]],
        ["weight_v", square, [1, 1, 0, 0]],
      ],
      'tensor "weight_v" holds NaN at position 2',
    ],
    [
      "vectors of another length",
      [
        ["weight_orig", square],
        ["weight_u", [3]],
        ["weight_v", [2]],
      ],
      "are of no spectral_norm of",
    ],
    ["a direction alone", [["weight_v", square]], 'tensor "weight_v" of shape [2,2] is not part'],
    ["a weight beside what makes it", [bias, ["weight", square], ["weight_g", [2, 1]], ["weight_v", square]], "is not part"],
    [
      "two names for one part",
      [
        ["kernel", square],
        ["vars/0", square],
      ],
      'tensors "kernel" and "vars/0" are the same part of a layer',
    ],
  ])("is refused with %s", (_, entries, message) => expect(refusal(floats({}, entries))).toContain(message));
});

describe("what stands between layers", () => {
  const linear = (name: string): Entry => [`${name}.weight`, [2, 2], [1, 2, -3, 4]];
  const norm = (name: string): Entry[] => [
    [`${name}.running_mean`, [2], [0.5, -1]],
    [`${name}.running_var`, [2], [4, 0.25]],
  ];
  /** The operations after the first linear one, without the last layer's. */
  const between = (entries: Entry[], activation = "tanh"): string =>
    parseSafetensors(floats({ activation }, entries))
      .operations.slice(1, -1)
      .map((operation) => (operation.kind === "activation" ? String(operation.activation) : operation.kind))
      .join(" ");

  it.each<[string, Entry[], string]>([
    ["before the activation", [linear("0"), ...norm("1"), linear("3")], "linear tanh"],
    ["before it, with a Dropout after", [linear("net.0"), ...norm("net.1"), linear("net.4")], "linear tanh"],
    ["after it", [linear("0"), ...norm("2"), linear("3")], "tanh linear"],
    ["before and after", [linear("0"), ...norm("1"), ...norm("3"), linear("4")], "linear tanh linear"],
    ["before a PReLU", [linear("0"), ...norm("1"), ["2.weight", [1], [0.25]], linear("3")], "linear leaky_relu(0.25)"],
    ["after a PReLU", [linear("0"), ["1.weight", [1], [0.25]], ...norm("2"), linear("3")], "leaky_relu(0.25) linear"],
  ])("is a BatchNorm %s", (_, entries, expected) => expect(between(entries)).toBe(expected));

  it("is a BatchNorm's scale and shift", () => {
    const network = parseSafetensors(
      floats({ activation: "identity" }, [linear("0"), ...norm("1"), ["1.weight", [2], [3, 4]], ["1.bias", [2], [7, 8]], linear("3")]),
    );
    const { value } = float64Run(network, [0.1, 0.2], null);
    const z = [0.1 + 2 * 0.2, -3 * 0.1 + 4 * 0.2];
    const [a, b] = [((z[0]! - 0.5) / Math.sqrt(4 + 1e-5)) * 3 + 7, ((z[1]! + 1) / Math.sqrt(0.25 + 1e-5)) * 4 + 8];
    expect(value[0]).toBeCloseTo(a + 2 * b, 12);
    expect(value[1]).toBeCloseTo(-3 * a + 4 * b, 12);
    expect(network.notes?.join("\n")).toContain("epsilon is taken for 0.00001");
  });

  it("is a PReLU with a slope for each element, where its name or the activation says so", () => {
    const files = [
      parseSafetensors(floats({}, [linear("net.0"), ["net.1.weight", [2], [0.5, -2]], linear("net.2")]), { activation: ["PReLU"] }),
      parseSafetensors(floats({}, [linear("prelus.0"), ["prelus.1.weight", [2], [0.5, -2]], linear("prelus.2")])),
    ];
    for (const network of files) {
      const { value, divergence } = float64Run(network, [-1, 0.1, 1, -0.1], null);
      // z = (-0.8, 3.4), then (0.8, -3.4).
      expect(Array.from(value, (x) => Number(x.toFixed(6)))).toEqual([6.4, 14.8, 14.4, 24.8]);
      expect(divergence[0]).toBeCloseTo(0.5 * 1 + 1 * 2 * -3 + 0.5 * -3 * 2 + 1 * 4 * 4, 10);
      expect(divergence[1]).toBeCloseTo(1 * 1 + -2 * 2 * -3 + 1 * -3 * 2 + -2 * 4 * 4, 10);
    }
  });

  it("is a PReLU whose large slope leaves the other side as it is", () => {
    const identity: Entry = ["net.2.weight", [2, 2], [1, 0, 0, 1]];
    const network = parseSafetensors(floats({}, [["net.0.weight", [2, 2], [1, 0, 0, 1]], ["net.1.weight", [2], [1e20, 0.5]], identity]), {
      activation: "prelu",
    });
    const { value, diagonal } = float64Run(network, [1, -2], null);
    expect(Array.from(value)).toEqual([1, -1]);
    expect(Array.from(diagonal)).toEqual([1, 0.5]);
  });

  it.each<[string, Entry[]]>([
    ["a name that only begins like one", [linear("prelude.0"), ["prelude.1.weight", [2]], linear("prelude.2")]],
    ["a scale beside an activation", [linear("net.0"), ["net.2.weight", [1]], linear("net.3")]],
  ])("is no PReLU by %s", (_, entries) => {
    expect(refusal(floats({ activation: "silu" }, entries))).toContain('it may be a PReLU, as activation: "prelu" says, or');
  });

  it("lets a list name a PReLU's place, and takes one name for the others", () => {
    const entries: Entry[] = [linear("0"), ["1.weight", [1], [0.25]], linear("2"), linear("4")];
    expect(between(entries)).toBe("leaky_relu(0.25) linear tanh");
    expect(between(entries, "prelu,silu")).toBe("leaky_relu(0.25) linear silu");
    expect(refusal(floats({ activation: "silu,silu" }, entries))).toContain(
      'activation "silu" stands for the slopes after tensor "0.weight"',
    );
    expect(refusal(floats({ activation: "prelu,prelu" }, entries))).toContain(
      'activation is "prelu", but no slopes follow tensor "2.weight"',
    );
  });

  it.each<[string, Entry[], string]>([
    ["a norm between two free numbers", [linear("0"), ...norm("2"), linear("4")], "its number does not show whether it stands before"],
    ["a norm without a free number", [linear("0"), ...norm("1"), linear("2")], "its number does not show whether it stands before"],
    ["a norm far behind the last layer", [linear("0"), ...norm("2")], "its number does not show whether it stands before"],
    ["a norm by another name", [linear("fc0"), linear("fc1"), ...norm("bn0")], "no layer has a number below its own"],
    ["a norm without a number", [linear("0"), ...norm("bn")], "its name has no number"],
    ["a norm of another width", [linear("0"), ["1.running_mean", [3]], ["1.running_var", [3]], linear("3")], "has 3 numbers; expected 2"],
    ["a norm with a weight alone", [linear("0"), ...norm("1"), ["1.weight", [2]], linear("3")], "is not part of a chain"],
    ["a LayerNorm", [linear("0"), ["1.weight", [2]], ["1.bias", [2]], linear("3")], 'ignore: ["1.weight", "1.bias"], else a file in ONNX'],
    ["what may be an RMSNorm", [linear("0"), ["1.weight", [2]], linear("3")], 'it may be a PReLU, as activation: "prelu" says'],
    ["two PReLUs", [linear("0"), ["1.weight", [1]], ["2.weight", [1]], linear("3")], "another PReLU follows the same layer"],
    ["a number twice", [linear("0"), ["1.weight", [1]], ...norm("01"), linear("3")], "its number stands twice"],
  ])("is refused with %s", (_, entries, message) => expect(refusal(floats({ activation: "tanh" }, entries))).toContain(message));
});

describe("which tensors are read", () => {
  const entries: Entry[] = [
    ["net.a.weight", [2, 2], [1, 2, 3, 4]],
    ["net.b.weight", [2, 2], [5, 6, 7, 8]],
    ["net.scale", [2]],
  ];
  const bytes = floats({ activation: "tanh" }, entries);

  it("is said by layers and ignore", () => {
    const network = parseSafetensors(bytes, { layers: ["net.b", "net.a"], ignore: ["net.scale"] });
    expect(weightOf(network, 0).data).toEqual(Float32Array.of(5, 6, 7, 8));
    expect(network.notes).toEqual([
      expect.stringContaining("chain of 2 layers: net.b -> net.a;"),
      "left out as no part of the field: net.scale",
    ]);
  });

  it("leaves out counters, of whole numbers too", () => {
    const header = {
      n_averaged: { dtype: "I64", shape: [], data_offsets: [0, 8] },
      weight: { dtype: "F64", shape: [1, 1], data_offsets: [8, 16] },
    };
    expect(parseSafetensors(file(header, 16)).notes).toContain("left out as no part of the field: n_averaged");
  });

  it.each<[string, SafetensorsOptions, string]>([
    [
      "no options",
      {},
      'tensor "net.scale" of shape [2] is not part of a chain of linear layers; where the field does without, expected ignore: ["net.scale"]',
    ],
    [
      "an open order",
      { ignore: ["net.scale"] },
      'do not tell the order of "net.a" [2, 2], "net.b" [2, 2]; expected the names in order in layers: ["a", "b"]',
    ],
    ["a layer left out", { ignore: ["net.scale"], layers: ["net.a"] }, 'layers leaves out "net.b"; expected all of "net.a", "net.b"'],
    ["a layer that is none", { ignore: ["net.scale"], layers: ["net.a", "c"] }, 'layers names "c", which is no layer'],
    [
      "a layer twice",
      { ignore: ["net.scale"], layers: ["net.a", "net.a"] },
      'layers names "net.a", which is no layer or stands there twice',
    ],
    ["nothing to ignore", { ignore: ["net.sc"] }, 'ignore names "net.sc"; expected the name of a tensor or module'],
    ["all ignored", { ignore: ["net"] }, "there are no layers"],
    ["a prefix of nothing", { prefix: "ema." }, 'prefix is "ema."; expected what tensors\' names begin with, such as "net.a.weight"'],
    ["a text for layers", { layers: "a,b" as unknown as string[] }, 'layers is "a,b"; expected a list of names'],
    ["numbers for ignore", { ignore: [1] as unknown as string[] }, "ignore is [1]; expected a list of names"],
    ["a number for prefix", { prefix: 1 as unknown as string }, "prefix is 1; expected what tensors' names begin with"],
  ])("is an error with %s", (_, options, message) => expect(refusal(bytes, options)).toContain(message));

  it.each<[string, (i: number) => string]>([
    ["PReLUs of one family", (i) => `net.${i}.weight`],
    ["PReLUs of many families", (i) => `n${i % 7}.${i}.x${i % 11}.weight`],
    ["names of digits", (i) => `${i}${"1".repeat(90)}.weight`],
  ])("takes bounded time for thousands of %s", (_, name) => {
    const header = Object.fromEntries(
      Array.from({ length: 20_000 }, (__, i) => [
        name(i),
        { dtype: "F16", shape: i === 0 ? [1, 1] : [1], data_offsets: [2 * i, 2 * i + 2] },
      ]),
    );
    const start = performance.now();
    refusal(file(header, 40_000));
    expect(performance.now() - start).toBeLessThan(5000);
  });
});
