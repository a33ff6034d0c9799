/** Separated numbers, one row per point, with optional lines of comments and of names ahead of them. */
import { csvFormatRows, dsvFormat } from "d3-dsv";
import { InputError, quote } from "../../errors.js";
import { formatNumber, type Column, type NumberArray } from "./table.js";

/** The first of them that a line has separates its cells. */
const separators = { ",": "commas", ";": "semicolons", "\t": "tabs", " ": "spaces" } as const;
type Separator = keyof typeof separators;

/** @throws InputError that names the line and the cell. */
export function readCsv(file: string): NumberArray {
  // The lines of a comment stay, empty, so that those after them keep their numbers.
  let text = file.replace(/^\uFEFF/, "").replace(/^(?:# [^\r\n]*(?:\r\n?|\n|$))+/, (comment) => comment.replaceAll(/[^\r\n]/g, ""));
  const separator = findSeparator(text);
  const separated = `separated by ${separators[separator]}`;
  // Numbers in columns have several spaces between them, and ahead of them.
  if (separator === " ") text = text.replaceAll(/ +/g, " ").replaceAll(/^ | $/gm, "");
  refuseStrayQuotes(text, separator);
  const rows: { cells: string[]; line: number }[] = [];
  dsvFormat(separator).parseRows(text, (cells, index) => {
    // Blank lines are none; empty cells are missing numbers.
    if (cells.length > 1 || cells[0]!.trim() !== "") rows.push({ cells, line: index + 1 });
    return null;
  });
  if (rows[0]?.cells.every(isName)) rows.shift();
  const width = rows[0]?.cells.length ?? 0;
  if (width === 0) throw new InputError("it holds no numbers; expected a line of numbers per point");
  const data = new Float64Array(rows.length * width);
  for (const [row, { cells, line }] of rows.entries()) {
    if (cells.length !== width)
      throw new InputError(`line ${line} has ${cells.length} cells; expected ${width} as in line ${rows[0]!.line}, ${separated}`);
    for (const [column, cell] of cells.entries()) {
      const value = parseNumber(cell);
      if (value === undefined)
        throw new InputError(
          `line ${line}, cell ${column + 1} is ${quote(cell)}; expected a number${describeExpected(cell)}, ${separated}`,
        );
      data[row * width + column] = value;
    }
  }
  return { data, shape: [rows.length, width], count: rows.length };
}

function describeExpected(cell: string): string {
  if (decimal.test(cell.trim())) return " in float64's range";
  return decimalComma.test(cell.trim()) ? " with a decimal point, not a decimal comma" : "";
}

/** The first line tells, or the second under one name alone; for spaces it is the second, as they may stand in names. */
function findSeparator(text: string): Separator {
  const [[first] = [""], [second] = [first]] = text.replaceAll(/"(?:[^"]|"")*"/g, '""').matchAll(/^.*\S.*$/gm);
  for (const line of [first, second]) {
    // So that the error is about the decimal comma.
    if (line.includes(";") && line.split(";").some((cell) => decimalComma.test(cell.trim()))) return ";";
    for (const separator of [",", ";", "\t"] as const) if (line.includes(separator)) return separator;
  }
  return /\S +\S/.test(second) ? " " : ",";
}

/** d3-dsv takes away what stands beside quotes: `"1"23` would be 1 and 3. Quotes are around the whole of a cell, or an error. */
function refuseStrayQuotes(text: string, separator: Separator): void {
  if (!text.includes('"')) return;
  const quoted = new RegExp(`(?<=^|[${separator}\\r\\n])"(?:[^"]|"")*"(?=[${separator}\\r\\n]|$)`, "g");
  const without = text.replaceAll(quoted, (cell) => cell.replaceAll(/[^\r\n]/g, " "));
  const stray = without.indexOf('"');
  if (stray < 0) return;
  const lines = without.slice(0, stray).split(/\r\n?|\n/);
  throw new InputError(
    `line ${lines.length}, cell ${lines.at(-1)!.split(separator).length} has quotes within it; expected them around the whole of a cell, or none`,
  );
}

/** What stands where a number is missing. */
const missing = /^(na|n\/a|null|nil|none|missing|undefined)$/i;

/**
 * A typing error in a first row must not make names of it: those begin with a letter, say no number and none that is missing,
 * and would not be a number if its letters O, l and I were the digits that they look like.
 */
function isName(cell: string): boolean {
  const text = cell.trim();
  const isNumber = (given: string): boolean => parseNumber(given) !== undefined;
  return (
    /^[\p{L}_]/u.test(text) && !missing.test(text) && !isNumber(text) && !isNumber(text.replaceAll(/o/gi, "0").replaceAll(/[li]/gi, "1"))
  );
}

// Each digit has one place in the pattern: two would take the square of a long cell's length in time.
const decimal = /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i;
const decimalComma = /^[+-]?(\d+,\d*|,\d+)(e[+-]?\d+)?$/i;

/** Decimal numbers and the words for what is not finite, as Python and JavaScript write them. */
function parseNumber(cell: string): number | undefined {
  const text = cell.trim();
  if (decimal.test(text)) {
    const value = Number(text);
    // What is beyond float64's range is no Infinity that someone wrote.
    return Number.isFinite(value) ? value : undefined;
  }
  const word = /^([+-]?)(nan|inf|infinity)$/i.exec(text);
  if (!word) return undefined;
  return word[2]!.toLowerCase() === "nan" ? NaN : word[1] === "-" ? -Infinity : Infinity;
}

/** The rows of a block at a time, so that millions of them never stand in memory as text. */
export function* writeCsv(columns: readonly Column[], rows: number): Generator<string, void, undefined> {
  yield `${csvFormatRows([columns.map(({ name }) => name)])}\n`;
  const block = 4096;
  for (let from = 0; from < rows; from += block) {
    const lines: string[] = [];
    for (let row = from; row < Math.min(rows, from + block); row++)
      lines.push(
        columns.map(({ data, offset, stride }) => formatNumber(data[offset + row * stride]!, data instanceof Float32Array)).join(","),
      );
    yield `${lines.join("\n")}\n`;
  }
}
