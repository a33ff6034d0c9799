import { chmod, link, mkdir, mkdtemp, open, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InputError } from "../../src/errors.js";
import { float16 } from "../../src/model/float16.js";
import { readCsv, writeCsv } from "../../src/node/files/csv.js";
import { readJson, writeJsonObject } from "../../src/node/files/json.js";
import { npyHeader, readNpy, writeNpy } from "../../src/node/files/npy.js";
import { NpyRows } from "../../src/node/files/npyRows.js";
import { commit, discard, openOutputs, type OutputFile } from "../../src/node/files/output.js";
import { asContext, asPoints, readBytes, readNumbers } from "../../src/node/files/points.js";
import { formatNumber } from "../../src/node/files/table.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "deldot-files-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** A .npy file with any header text, padded as NumPy does. */
function npyFile(header: string, data: Uint8Array = new Uint8Array(), version = 1): Uint8Array {
  const text = `${header.padEnd(53)}\n`;
  const bytes = new Uint8Array((version === 1 ? 10 : 12) + text.length + data.length);
  bytes.set([0x93, ...Buffer.from("NUMPY"), version, 0]);
  const view = new DataView(bytes.buffer);
  if (version === 1) view.setUint16(8, text.length, true);
  else view.setUint32(8, text.length, true);
  bytes.set(Buffer.from(text, "latin1"), version === 1 ? 10 : 12);
  bytes.set(data, bytes.length - data.length);
  return bytes;
}

const floats = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);

test("a device is no file", async () => {
  await expect(readBytes("/dev/zero")).rejects.toThrow("/dev/zero: it is a device; expected a file that can be read");
});

describe(".npy", () => {
  test("float32 and float64 come back as they were written, in any shape", () => {
    fc.assert(
      fc.property(fc.boolean(), fc.array(fc.nat(4), { maxLength: 4 }), fc.infiniteStream(fc.double()), (single, shape, numbers) => {
        const values = Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => numbers.next().value as number);
        const data = single ? Float32Array.from(values) : Float64Array.from(values);
        const bytes = Buffer.concat(writeNpy({ data, shape }));
        expect((bytes.length - data.byteLength) % 64).toBe(0);
        expect(readNpy(bytes)).toEqual({ data, shape });
      }),
      { seed: 1, numRuns: 100 },
    );
  });

  test("a file that NumPy wrote is read, whatever stands before it in its buffer", () => {
    const file = npyFile("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }", new Uint8Array(Float64Array.of(0.1, -2).buffer));
    const shifted = new Uint8Array(file.length + 3);
    shifted.set(file, 3);
    expect(readNpy(shifted.subarray(3))).toEqual({ data: Float64Array.of(0.1, -2), shape: [1, 2] });
    expect(readNpy(npyFile("{'descr':'<f4','fortran_order':True,'shape':(2,)}", floats(1, 2), 3))).toEqual({
      data: Float32Array.of(1, 2),
      shape: [2],
    });
  });

  test("a file cut at any byte is refused", () => {
    const bytes = Buffer.concat(writeNpy({ data: Float32Array.of(1, 2, 3, 4, 5, 6), shape: [3, 2] }));
    for (let length = 0; length < bytes.length; length++)
      expect(() => readNpy(bytes.subarray(0, length)), `${length} bytes`).toThrow(InputError);
  });

  test.each([
    ["{'descr': '|b1', 'fortran_order': False, 'shape': (8,), }", 'its numbers are "|b1"; expected float16'],
    ["{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", '"<c8"'],
    ["{'descr': '<f1', 'fortran_order': False, 'shape': (8,), }", '"<f1"'],
    ["{'descr': '|f4', 'fortran_order': False, 'shape': (2,), }", '"|f4"'],
    ["{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", '"|O"'],
    ["{'descr': 'f4', 'fortran_order': False, 'shape': (2,), }", '"f4"'],
    [`{'descr': '<f8', 'fortran_order': False, 'shape': (${"1, ".repeat(33)}), }`, "33 axes; expected at most 32"],
    ["{'descr': '>f4', 'fortran_order': True, 'shape': (3,), }", "12 bytes, but 8"],
    ["{'descr': '|u1', 'fortran_order': True, 'shape': (99999999999, 99999999), }", "8 follow"],
    ["{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "header"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "12 bytes, but 8"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "4 bytes, but 8"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (9007199254740991, 9007199254740991), }", "8 follow"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "header"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "header"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (2 2,), }", "header"],
    ["{'descr': '<f4', 'fortran_order': False, }", "header"],
    ["{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", "header"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}", "header"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (2,)", "header"],
    ["", "header"],
  ])("the header %s is refused", (header, message) => {
    expect(() => readNpy(npyFile(header, floats(1, 2)))).toThrow(message);
    expect(() => readNpy(npyFile(header, floats(1, 2)))).toThrow(InputError);
  });

  /** NumPy's names, how a number of each is written, and what comes back of it. */
  const types: readonly [descr: string, size: number, write: (view: DataView, littleEndian: boolean) => void, value: number][] = [
    ["f2", 2, (view, little) => view.setUint16(0, 0xc100, little), -2.5],
    ["f4", 4, (view, little) => view.setFloat32(0, 0.1, little), Math.fround(0.1)],
    ["f8", 8, (view, little) => view.setFloat64(0, 0.1, little), 0.1],
    ["i1", 1, (view) => view.setInt8(0, -100), -100],
    ["i2", 2, (view, little) => view.setInt16(0, -30_000, little), -30_000],
    ["i4", 4, (view, little) => view.setInt32(0, -2_000_000_000, little), -2_000_000_000],
    ["i8", 8, (view, little) => view.setBigInt64(0, -(2n ** 53n), little), -(2 ** 53)],
    ["u1", 1, (view) => view.setUint8(0, 200), 200],
    ["u2", 2, (view, little) => view.setUint16(0, 60_000, little), 60_000],
    ["u4", 4, (view, little) => view.setUint32(0, 4_000_000_000, little), 4_000_000_000],
    ["u8", 8, (view, little) => view.setBigUint64(0, 2n ** 53n, little), 2 ** 53],
  ];

  test.each(types)("%s is read in each byte order", (descr, size, write, value) => {
    for (const order of size === 1 ? ["|", "<", ">"] : ["<", ">", "="]) {
      const bytes = new Uint8Array(size);
      write(new DataView(bytes.buffer), order !== ">");
      const { data, shape } = readNpy(npyFile(`{'descr': '${order}${descr}', 'fortran_order': False, 'shape': (), }`, bytes));
      expect(data, order).toEqual(descr === "f4" ? Float32Array.of(value) : Float64Array.of(value));
      expect(shape).toEqual([]);
    }
  });

  test("every float16 is the number that models' float16 is", () => {
    const halves = Uint16Array.from({ length: 2 ** 16 }, (_, bits) => bits);
    const file = npyFile("{'descr': '<f2', 'fortran_order': False, 'shape': (65536,), }", new Uint8Array(halves.buffer));
    expect(readNpy(file).data).toEqual(Float64Array.from(halves, float16));
  });

  test.each([
    ["i8", 2n ** 53n + 1n],
    ["i8", -(2n ** 53n) - 1n],
    ["u8", 2n ** 64n - 1n],
  ])("%s of %s is refused, with its place", (descr, value) => {
    const bytes = new Uint8Array(BigUint64Array.of(1n, 2n, BigInt.asUintN(64, value), 3n).buffer);
    for (const [fortran, place] of [
      ["False", "[1, 0]"],
      ["True", "[0, 1]"],
    ])
      expect(() => readNpy(npyFile(`{'descr': '<${descr}', 'fortran_order': ${fortran}, 'shape': (2, 2), }`, bytes))).toThrow(
        `its number at ${place} is ${value}; expected whole numbers from -2^53 to 2^53`,
      );
  });

  test("Fortran order becomes C order, in any shape", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(4), { maxLength: 4 }), (shape) => {
        const count = shape.reduce((a, b) => a * b, 1);
        // Each number is its own place in the file: the first axis varies fastest there.
        const file = npyFile(
          `{'descr': '<u2', 'fortran_order': True, 'shape': (${shape.map((axis) => `${axis},`).join(" ")}), }`,
          new Uint8Array(Uint16Array.from({ length: count }, (_, index) => index).buffer),
        );
        const expected = Array.from({ length: count }, (_, index) => {
          let rest = index;
          const place = shape.toReversed().map((axis) => {
            const along = rest % axis;
            rest = (rest - along) / axis;
            return along;
          });
          return place.reduce((sum, along, axis) => sum * shape[shape.length - 1 - axis]! + along, 0);
        });
        expect(readNpy(file)).toEqual({ data: Float64Array.from(expected), shape });
      }),
      { seed: 4, numRuns: 200 },
    );
  });

  test("random bytes are refused or read, never anything else", () => {
    const valid = Buffer.concat(writeNpy({ data: Float32Array.of(1, 2), shape: [2] }));
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { maxLength: 4 }), (changes) => {
        const bytes = Uint8Array.from(valid);
        for (const [at, value] of changes) bytes[at] = value;
        try {
          readNpy(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { seed: 2, numRuns: 2000 },
    );
  });
});

test("rows beyond 2^32 bytes of a .npy file are read where they lie", async () => {
  const [rows, width] = [300_000_000, 4];
  const path = join(folder, "long.npy");
  const header = npyHeader("<f4", [rows, width]);
  const handle = await open(path, "w");
  await handle.write(header);
  await handle.write(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8), 0, 32, header.length + (rows - 2) * width * 4);
  await handle.close();
  const file = await NpyRows.open(path);
  try {
    expect(file.decode(await file.bytes(rows - 3, 3, width), rows - 3, width)).toEqual(Float32Array.of(0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8));
  } finally {
    await file.close();
  }
  await rm(path);
});

describe(".csv", () => {
  test("numbers come back as they were written, not finite ones too", () => {
    const data = Float32Array.of(0.1, -2.5e-30, NaN, Infinity, -Infinity, 3);
    const columns = [0, 1].map((offset) => ({ name: `x${offset}`, data, offset, stride: 2 }));
    const text = [...writeCsv(columns, 3)].join("");
    expect(text).toBe("x0,x1\n0.1,-2.5e-30\nNaN,Infinity\n-Infinity,3\n");
    const { data: read, shape } = readCsv(text);
    expect(Float32Array.from(read)).toEqual(data);
    expect(shape).toEqual([3, 2]);
  });

  test.for(["x,y\n1,2", "x0\n1", "_a,b c\n1,2", "Länge,β\n1,2", "x.0,x.1\n1,2", "index,nano\n1,2"])("%j has a line of names", (text) => {
    expect(readCsv(text).shape[0]).toBe(1);
  });

  test.for([
    ["1.2.3\n4\n5", "1.2.3"],
    ["NA\n1\n2", "NA"],
    ["NA,NA\n1,2", "NA"],
    ["n/a,x\n1,2", "n/a"],
    [",\n1,2\n-,-", ""],
    ["-\n1", "-"],
    ["O.5\n1", "O.5"],
    ["l,O\n1,2", "l"],
    ["1,5O\n1,2", "5O"],
    ["#1\n2", "#1"],
    ["x,\n1,2", "x"],
    ["null\n2", "null"],
    ["--1,2\n2,3", "--1"],
  ])("%j has none, and its first row is not lost", ([text, cell]) => {
    expect(() => readCsv(text!)).toThrow(`is ${JSON.stringify(cell)}; expected a number`);
  });

  test("a line of names may be left out; blank lines, Windows line ends and a byte-order mark are no matter", () => {
    expect(readCsv("\uFEFF1, 2\r\n\r\n+3.,.5E1\r\n")).toEqual({ data: Float64Array.of(1, 2, 3, 5), shape: [2, 2], count: 2 });
  });

  test("quotes stand around names and numbers, with commas, line ends and doubled quotes in them", () => {
    expect(readCsv('\uFEFF"x, 0","the ""other""\none"\n"1","-2e3"\n3,"4"')).toEqual({
      data: Float64Array.of(1, -2000, 3, 4),
      shape: [2, 2],
      count: 2,
    });
  });

  const separators = [",", ";", "\t", " "];

  test("numbers come back whatever separates them, under comments and names or none, with blanks around them", () => {
    const blanks = fc.nat(3).map((count) => " ".repeat(count));
    fc.assert(
      fc.property(
        fc.constantFrom(...separators),
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.double(), { minLength: 4, maxLength: 40 }),
        fc.constantFrom("", "# x, y; z\n", "# 1 2\r\n# \n"),
        fc.boolean(),
        fc.constantFrom("\n", "\r\n", "\n\n"),
        fc.infiniteStream(blanks),
        (separator, width, numbers, comment, named, end, blank) => {
          const rows = Math.floor(numbers.length / width);
          const data = Float64Array.from(numbers.slice(0, rows * width));
          const around = (cell: string): string => blank.next().value! + cell + blank.next().value!;
          const line = (cells: string[]): string => cells.map(around).join(separator) + end;
          const names = named ? line(Array.from({ length: width }, (_, column) => `x${column}`)) : "";
          const lines = Array.from({ length: rows }, (_, row) => line([...data.subarray(row * width, (row + 1) * width)].map(String)));
          // -0 is written as 0.
          expect(readCsv(comment + names + lines.join(""))).toEqual({
            data: data.map((value) => value + 0),
            shape: [rows, width],
            count: rows,
          });
        },
      ),
      { seed: 5, numRuns: 300 },
    );
  });

  test("what numpy.savetxt writes is read, with a header and without", () => {
    const rows = "1.000000000000000000e+00 -2.500000000000000000e-01\nnan inf\n";
    const numbers = { data: Float64Array.of(1, -0.25, NaN, Infinity), shape: [2, 2], count: 2 };
    for (const header of ["", "# x y\n", "# made by hand, in 2 lines;\n# x y\n"]) expect(readCsv(header + rows)).toEqual(numbers);
  });

  test("a long cell that is no number is refused at once", () => {
    expect(() => readCsv(`1\n${"1".repeat(2_000_000)}x`)).toThrow("line 2, cell 1 is ");
  });

  test("a comment is one or more first lines that begin with # and a space", () => {
    expect(() => readCsv("#x y\n1 2\n")).toThrow('line 1, cell 1 is "#x"; expected a number, separated by spaces');
    expect(() => readCsv("# x y\n1 2\n# 3 4\n")).toThrow("line 3 has 3 cells; expected 2 as in line 2, separated by spaces");
    expect(() => readCsv("\uFEFF# x\r\n# y\r\n1;z")).toThrow('line 3, cell 2 is "z"');
    expect(() => readCsv("# x y")).toThrow("no numbers");
  });

  test.for(["time (s)\n1\n2", "x 0\n1\n2", "x\n1, 2\n3, 4", '"a b; c"\t"d,\ne"\n1\t2', "x (a;b), y\n1,2", "x y z\n1 2"])(
    "%j: what stands in names separates no numbers",
    (text) => {
      expect(readCsv(text).data[0]).toBe(1);
    },
  );

  test.each([
    ["1,5;2,5", 'line 1, cell 1 is "1,5"; expected a number with a decimal point, not a decimal comma, separated by semicolons'],
    ["1;2,5", 'line 1, cell 2 is "2,5"; expected a number with a decimal point'],
    ["x;y\n-1,5e3;2", 'line 2, cell 1 is "-1,5e3"; expected a number with a decimal point'],
    ["x\n1;,5", 'line 2, cell 2 is ",5"; expected a number with a decimal point'],
    ["x\ty\n1,5\t2", 'line 2, cell 1 is "1,5"; expected a number with a decimal point, not a decimal comma, separated by tabs'],
    ["1,2\n3;4\n", "line 2 has 1 cells; expected 2 as in line 1, separated by commas"],
    ["1;2\n3;4 5\n", 'line 2, cell 2 is "4 5"; expected a number, separated by semicolons'],
    ["1,2;3\n", 'line 1, cell 1 is "1,2"'],
    ["1, 2; 3\n", "separated by "],
    ["1 2\n3\t4\n", 'line 1, cell 1 is "1 2"; expected a number, separated by tabs'],
    ["1 2\n3 4\n5\t6\n", "line 3 has 1 cells; expected 2 as in line 1, separated by spaces"],
    ["1\t2\n3 4\t5\n", 'line 2, cell 1 is "3 4"; expected a number, separated by tabs'],
    ["1;2\n1 000;2\n", 'cell 1 is "1 000"'],
  ])("%j mixes separators, and is refused", (text, message) => {
    expect(() => readCsv(text)).toThrow(message);
    expect(() => readCsv(text)).toThrow(InputError);
  });

  test.for(
    separators.flatMap((separator) =>
      [
        "1.2.3,4\n5,6",
        "NA,NA\n1,2",
        "n/a,x\n1,2",
        "x,1\n2,3",
        "1,O\n2,3",
        "O.5,l\n1,2",
        "--1,2\n2,3",
        "1,2\n-,3",
        "1,2\n3,0x10",
        "1,2\n3,1e400",
        "1,2\n3",
        "1,2\n3,4,5",
        '1,2\n3,"1"23',
        '1,"2\n3,4',
        '1,2"3"',
        '1,2\n"3"x,4',
      ].map((text) => text.replaceAll(",", separator)),
    ),
  )("%j is refused, whatever separates", (text) => {
    expect(() => readCsv(text)).toThrow(InputError);
  });

  test.for([";", "\t"])("empty cells between %j are refused", (separator) => {
    for (const text of ["1,,2", "1,2\n3,", ",1\n2,3", "x,\n1,2"])
      expect(() => readCsv(text.replaceAll(",", separator)), text).toThrow(/expected a number/);
  });

  test.each([
    ["x0,x1\n1,2\n3,abc\n", 'line 3, cell 2 is "abc"'],
    ["1,x\n3,4\n", 'line 1, cell 2 is "x"'],
    ["1,2\n3\n", "line 2 has 1 cells; expected 2 as in line 1"],
    ["1,\n", 'line 1, cell 2 is ""'],
    ["0x10,1\n", 'line 1, cell 1 is "0x10"'],
    ["0,0\n,\n1,1", 'line 2, cell 1 is ""'],
    ['0,0\n"",""\n1,1', 'line 2, cell 1 is ""'],
    ["x0,x1\n", "no numbers"],
    ["", "no numbers"],
    ["1,1e400\n", 'line 1, cell 2 is "1e400"; expected a number in float64\'s range'],
    ["1,2\n3,-1e999\n", 'line 2, cell 2 is "-1e999"'],
    ['1,2\n3,"1"23\n', "line 2, cell 2 has quotes within it"],
    ['"a,\r\nb","c"\r\n1,2\r\n"3" ,4', "line 4, cell 1 has quotes within it"],
    ['1,"2\n3,4', "line 1, cell 2 has quotes within it"],
    ['1,2"3"\n', "line 1, cell 2 has quotes within it"],
  ])("%j is refused", (text, message) => {
    expect(() => readCsv(text)).toThrow(message);
    expect(() => readCsv(text)).toThrow(InputError);
  });
});

describe(".json", () => {
  test("lists of lists, flat lists and objects are read; null is NaN", () => {
    expect(readJson("[[1, 2], [3, null]]")).toEqual({ data: Float64Array.of(1, 2, 3, NaN), shape: [2, 2] });
    expect(readJson("[1, 2, 3]")).toEqual({ data: Float64Array.of(1, 2, 3), shape: [3] });
    expect(readJson('{"count": 2, "points": [1, 2, 3, 4]}').shape).toEqual([2, 2]);
    expect(readJson('{"count": 2, "points": [[1], [3]]}').shape).toEqual([2, 1]);
    expect(readJson("[[[1, 2]], [[3, 4]]]").shape).toEqual([2, 1, 2]);
    expect(readJson("[]").shape).toEqual([0]);
    expect(readJson('{"count": 1, "points": [[1, 2], [3, 4]]}')).toEqual({ data: Float64Array.of(1, 2, 3, 4), shape: [2, 2], count: 1 });
  });

  test.each([
    ["[1, 2", "not JSON"],
    ["{}", "[object Object]"],
    ['"a"', '"a"'],
    ["[[1, 2], [3]]", "list [1] has 1 entries; expected 2"],
    ["[[1], 2]", "entry [1] is 2"],
    ["[1, [2]]", "entry [1]"],
    ['[[1], ["2"]]', 'entry [1][0] is "2"'],
    ['{"count": 3, "points": [1, 2]}', "count is 3"],
    ['{"count": 3, "points": [[1], [2]]}', "count is 3"],
    ['{"count": -1, "points": [1]}', "count is -1"],
    ["[[1, 2], [1e400, 3]]", "entry [1][0] is beyond float64's range"],
    ["[-1e999]", "entry [0] is beyond float64's range"],
    [`${"[".repeat(100_000)}${"]".repeat(100_000)}`, "nested"],
  ])("%.40j is refused", (text, message) => {
    expect(() => readJson(text)).toThrow(message);
    expect(() => readJson(text)).toThrow(InputError);
  });

  test("what is written parses, in blocks as in one piece, and what is not finite is null", () => {
    const long = Float64Array.from({ length: 10_000 }, (_, index) => index / 7);
    const text = [
      ...writeJsonObject([
        ["name", 'a "quoted" one'],
        ["pairs", { data: Float32Array.of(0.1, NaN, Infinity, -1), shape: [2, 2] }],
        ["long", { data: long, shape: [10_000] }],
        ["none", { data: new Float32Array(), shape: [0, 2] }],
      ]),
    ].join("");
    expect(JSON.parse(text)).toEqual({
      name: 'a "quoted" one',
      pairs: [
        [0.1, null],
        [null, -1],
      ],
      long: [...long],
      none: [],
    });
  });
});

test("the text of a float32 is short and reads back as itself", () => {
  expect(formatNumber(Math.fround(0.1), true)).toBe("0.1");
  expect(formatNumber(0.1, false)).toBe("0.1");
  expect(formatNumber(NaN, true)).toBe("NaN");
  fc.assert(
    fc.property(fc.float({ noNaN: true }), (value) => Object.is(Math.fround(Number(formatNumber(value, true))) + 0, value + 0)),
    { seed: 3 },
  );
});

describe("points and contexts", () => {
  test("the last axis is the state; a flat list is cut into points", () => {
    const data = Float64Array.of(1, 2, 3, 4, 5, 6);
    expect(asPoints({ data, shape: [6] }, { stateSize: 3 }, "p").shape).toEqual([2, 3]);
    expect(asPoints({ data, shape: [1, 2, 3] }, { stateSize: 3 }, "p").shape).toEqual([1, 2, 3]);
    expect(asPoints({ data: new Float64Array(), shape: [0] }, { stateSize: 3 }, "p").shape).toEqual([0, 3]);
    expect(() => asPoints({ data, shape: [6] }, { stateSize: 4 }, "p.csv")).toThrow("p.csv: it holds 6 numbers; expected a multiple of 4");
    expect(() => asPoints({ data, shape: [3, 2] }, { stateSize: 3 }, "p.csv")).toThrow("2 components; expected 3");
    expect(() => asPoints({ data: new Float64Array(), shape: [2, 0] }, { stateSize: 3 }, "p.csv")).toThrow("0 components; expected 3");
  });

  test("a point's own axes are the model's, and the batch is the rest", () => {
    const data = Float64Array.from({ length: 36 }, (_, index) => index);
    const model = { stateSize: 6, stateShape: [2, 3] };
    const read = (shape: number[]): readonly number[] => {
      const size = shape.reduce((a, b) => a * b, 1);
      const points = asPoints({ data: data.subarray(0, size), shape }, model, "p");
      expect(points.shape).toEqual(shape);
      return points.batch;
    };
    expect(read([6, 2, 3])).toEqual([6]);
    expect(read([2, 1, 2, 3])).toEqual([2, 1]);
    expect(read([2, 3])).toEqual([]);
    expect(read([0, 2, 3])).toEqual([0]);
    expect(read([3, 6])).toEqual([3]);
    expect(read([5, 1, 6])).toEqual([5, 1]);
    for (const shape of [
      [3, 2],
      [2, 3, 2],
      [6, 6, 1],
      [4, 3],
    ])
      expect(() => read(shape)).toThrow(
        `p: its shape is [${shape.join(", ")}], so its points have ${shape.at(-1)} components; expected 6, the size of the model's state or its axes, [2, 3]`,
      );
    // A model whose state has one axis takes no other.
    expect(() => asPoints({ data: data.subarray(0, 12), shape: [2, 2, 3] }, { stateSize: 6 }, "p")).toThrow(
      "3 components; expected 6, the size of the model's state",
    );
    expect(asPoints({ data, shape: [6, 2, 3], count: 6 }, model, "p").batch).toEqual([6]);
    expect(() => asPoints({ data, shape: [6, 2, 3], count: 7 }, model, "p")).toThrow(InputError);
  });

  test("a line of a table is a point, and a count is one of points", () => {
    const model = { stateSize: 6, stateShape: [3, 2] };
    expect(() => asPoints(readCsv("1,2\n3,4\n5,6"), model, "p.csv")).toThrow(
      "p.csv: its shape is [3, 2], its count 3, so its points have 2 components; expected 6",
    );
    for (const points of ["[1, 2, 3, 4, 5, 6]", "[[1, 2], [3, 4], [5, 6]]"]) {
      expect(() => asPoints(readJson(`{"count": 3, "points": ${points}}`), model, "p.json")).toThrow("2 components; expected 6");
      expect(asPoints(readJson(`{"count": 1, "points": ${points}}`), model, "p.json").batch.reduce((a, b) => a * b, 1)).toBe(1);
    }
    expect(() => asContext(readJson('{"count": 1, "points": [[1], [2]]}'), 1, 2, "c.json")).toThrow(
      "c.json: its shape is [2, 1], its count 1; expected [1] or [2, 1]",
    );
  });

  test("a context is one row, or one row per point", () => {
    const data = Float64Array.of(1, 2, 3, 4);
    expect(asContext({ data, shape: [2, 2] }, 2, 2, "c")).toBe(data);
    expect(asContext({ data, shape: [1, 4] }, 4, 9, "c")).toBe(data);
    expect(asContext({ data: Float64Array.of(5), shape: [] }, 1, 9, "c")).toEqual(Float64Array.of(5));
    expect(() => asContext({ data: Float64Array.of(5), shape: [] }, 2, 9, "c.npy")).toThrow("its shape is []; expected [2] or [9, 2]");
    expect(() => asContext({ data, shape: [2, 2] }, 2, 3, "c.csv")).toThrow("c.csv: its shape is [2, 2]; expected [2] or [3, 2]");
    expect(() => asContext({ data, shape: [2, 2] }, 1, 4, "c.csv")).toThrow("expected [1] or [4, 1]");
  });

  test("a message about a file begins with its path", async () => {
    const path = join(folder, "bad.csv");
    await writeFile(path, "1,2\n3,x\n");
    await expect(readNumbers(path)).rejects.toThrow(`${path}: line 2, cell 2`);
    await expect(readNumbers(join(folder, "absent.npy"))).rejects.toThrow("absent.npy: no such file");
    await expect(readNumbers(folder)).rejects.toThrow("expected .npy, .csv, .tsv, .txt, .json");
    for (const extension of [".csv", ".tsv", ".TXT"]) {
      const table = join(folder, `table${extension}`);
      await writeFile(table, "x\ty\n1\t2\n");
      expect((await readNumbers(table)).shape, extension).toEqual([1, 2]);
    }
    const binary = join(folder, "binary.json");
    await writeFile(binary, Uint8Array.of(0xff, 0xfe));
    await expect(readNumbers(binary)).rejects.toThrow("not text in UTF-8");
  });
});

describe("output files", () => {
  const openOutput = async (path: string): Promise<OutputFile> => (await openOutputs([path], []))[0]!;

  test("appear when they are whole, in place of what was there", async () => {
    const path = join(folder, "out.csv");
    await writeFile(path, "old", { mode: 0o600 });
    const file = await openOutput(path);
    expect(await readFile(path, "utf8")).toBe("old");
    await commit([{ file, content: ["a", Uint8Array.of(98), "c\n"] }]);
    await discard([file]);
    expect(await readFile(path, "utf8")).toBe("abc\n");
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });

  test("leave what was there, and nothing beside it, when the work fails", async () => {
    const own = join(folder, "own");
    await mkdir(own);
    const path = join(own, "out.csv");
    await writeFile(path, "old");
    await discard([await openOutput(path)]);
    const file = await openOutput(path);
    const failing = function* (): Generator<string> {
      yield "half";
      throw new Error("no more");
    };
    await expect(commit([{ file, content: failing() }])).rejects.toThrow("no more");
    await discard([file]);
    expect(await readFile(path, "utf8")).toBe("old");
    expect(await readdir(own)).toEqual(["out.csv"]);
  });

  test("appear together, or none of them", async () => {
    const own = join(folder, "together");
    await mkdir(own);
    const paths = ["a.npy", "b.npy", "c.npy"].map((name) => join(own, name)) as [string, string, string];
    await writeFile(paths[0], "old a");
    const files = await openOutputs(paths, []);
    // The last one cannot be put in place.
    await mkdir(paths[2]);
    await expect(commit(files.map((file) => ({ file, content: ["new"] })))).rejects.toThrow(/c\.npy.*expected a file that can be written/);
    await discard(files);
    expect(await readFile(paths[0], "utf8")).toBe("old a");
    expect((await readdir(own)).toSorted()).toEqual(["a.npy", "c.npy"]);

    await rm(paths[2], { recursive: true });
    const again = await openOutputs(paths, []);
    await commit(again.map((file) => ({ file, content: ["new"] })));
    await discard(again);
    for (const path of paths) expect(await readFile(path, "utf8")).toBe("new");
    expect((await readdir(own)).toSorted()).toEqual(["a.npy", "b.npy", "c.npy"]);
  });

  test("stop between two pieces when they are interrupted", async () => {
    const own = join(folder, "interrupted");
    await mkdir(own);
    const path = join(own, "out.npy");
    const controller = new AbortController();
    const file = await openOutput(path);
    const pieces = function* (): Generator<Uint8Array> {
      yield new Uint8Array(10);
      controller.abort(new Error("enough"));
      yield new Uint8Array(10);
      expect.fail("it went on");
    };
    await expect(commit([{ file, content: pieces() }], controller.signal)).rejects.toThrow("enough");
    await discard([file]);
    expect(await readdir(own)).toEqual([]);
  });

  test("go where a link points", async () => {
    const [target, symbolic] = [join(folder, "target.csv"), join(folder, "link.csv")];
    await writeFile(target, "old");
    await symlink(target, symbolic);
    await commit([{ file: await openOutput(symbolic), content: ["new"] }]);
    expect(await readFile(target, "utf8")).toBe("new");
  });

  test("that cannot be written are refused at once", async () => {
    await expect(openOutput(join(folder, "absent", "out.csv"))).rejects.toThrow(InputError);
    await expect(openOutput(folder)).rejects.toThrow("it is a folder");
    const path = join(folder, "protected.csv");
    await writeFile(path, "old");
    await chmod(path, 0o400);
    // Root may write anything.
    if (process.getuid?.() !== 0) await expect(openOutput(path)).rejects.toThrow("permission denied");
  });

  test("that are read, or written twice, are refused by any of their names, and none is left open", async () => {
    const own = join(folder, "names");
    await mkdir(own);
    const [input, symbolic, hard, fresh] = ["in.csv", "symbolic.csv", "hard.csv", "fresh.csv"].map((name) => join(own, name)) as [
      string,
      string,
      string,
      string,
    ];
    await writeFile(input, "1,2");
    await symlink(input, symbolic);
    await link(input, hard);
    for (const path of [input, symbolic, hard, `${own}/../names/in.csv`])
      await expect(openOutputs([fresh, path], [join(own, "absent"), input])).rejects.toThrow(`${path}: it is the same file as ${input}`);
    await expect(openOutputs([symbolic, hard], [])).rejects.toThrow(`${hard}: it is the same file as ${symbolic}`);
    expect((await readdir(own)).toSorted()).toEqual(["hard.csv", "in.csv", "symbolic.csv"]);
    expect(await readFile(input, "utf8")).toBe("1,2");
  });
});
