/** Points as JSON: nested lists, a flat list, or { count, points } with either. null stands for NaN, which JSON lacks. */
import { InputError, quote } from "../../errors.js";
import { formatNumber, type NumberArray } from "./table.js";

/** Deeper lists than any batch shape needs; a hostile file must not exhaust the stack. */
const mostAxes = 16;

/** @throws InputError where it is not JSON, not rectangular, or an entry is not a number. */
export function readJson(text: string): NumberArray {
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (error) {
    throw new InputError(`it is not JSON: ${(error as Error).message}`, { cause: error });
  }
  let count: unknown;
  if (typeof root === "object" && root !== null && "points" in root) {
    count = "count" in root ? root.count : undefined;
    root = root.points;
  }
  if (!Array.isArray(root))
    throw new InputError(`it holds ${quote(root)}; expected [[...], ...], a flat list, or {"count": ..., "points": [...]}`);

  const shape: number[] = [];
  for (let first: unknown = root; Array.isArray(first); first = first[0]) {
    if (shape.length === mostAxes) throw new InputError(`its lists are nested deeper than ${mostAxes}`);
    shape.push(first.length);
  }
  const numbers: number[] = [];
  const collect = (list: readonly unknown[], axis: number, path: string): void => {
    if (list.length !== shape[axis])
      throw new InputError(`list ${path || "[]"} has ${list.length} entries; expected ${shape[axis]}, as in the first one`);
    for (const [index, entry] of list.entries()) {
      const at = `${path}[${index}]`;
      if (axis + 1 < shape.length) {
        if (!Array.isArray(entry)) throw new InputError(`entry ${at} is ${quote(entry)}; expected a list`);
        collect(entry, axis + 1, at);
      } else if (typeof entry === "number") {
        if (!Number.isFinite(entry)) throw new InputError(`entry ${at} is beyond float64's range; expected a number in it`);
        numbers.push(entry);
      } else if (entry === null) numbers.push(NaN);
      else throw new InputError(`entry ${at} is ${quote(Array.isArray(entry) ? "a list" : entry)}; expected a number`);
    }
  };
  collect(root, 0, "");
  const data = Float64Array.from(numbers);
  if (count === undefined) return { data, shape };
  if (typeof count !== "number" || !Number.isSafeInteger(count) || count < 0)
    throw new InputError(`its count is ${quote(count)}; expected the number of points`);
  if (count === 0 ? data.length > 0 : data.length % count !== 0)
    throw new InputError(`its count is ${count}, but there are ${data.length} numbers; expected a multiple of the count`);
  return { data, shape: shape.length > 1 ? shape : [count, count === 0 ? 0 : data.length / count], count };
}

/** `{ "name": value, ... }`, a block of numbers or texts at a time; what is not finite becomes null. */
export function* writeJsonObject(
  entries: readonly (readonly [name: string, value: string | number | readonly string[] | NumberArray])[],
): Generator<string, void, undefined> {
  for (const [index, [name, value]] of entries.entries()) {
    yield `${index === 0 ? "{" : ","}\n  ${JSON.stringify(name)}: `;
    if (isTexts(value)) yield* writeJsonTexts(value);
    else if (typeof value === "object") yield* writeJsonArray(value);
    else yield JSON.stringify(value);
  }
  yield "\n}\n";
}

function isTexts(value: string | number | readonly string[] | NumberArray): value is readonly string[] {
  return Array.isArray(value);
}

function* writeJsonTexts(texts: readonly string[]): Generator<string, void, undefined> {
  const block = 4096;
  yield "[";
  for (let from = 0; from < texts.length; from += block)
    yield (
      (from === 0 ? "" : ", ") +
        texts
          .slice(from, from + block)
          .map((text) => JSON.stringify(text))
          .join(", ")
    );
  yield "]";
}

/** [B] as [...], [B, d] as [[...], ...], and so on. */
function* writeJsonArray({ data, shape }: NumberArray): Generator<string, void, undefined> {
  const float32 = data instanceof Float32Array;
  const format = (value: number): string => (Number.isFinite(value) ? formatNumber(value, float32) : "null");
  const [rows, ...rest] = shape as [number, ...number[]];
  const width = sizeOf(rest);
  const nested = (from: number, [count, ...inner]: readonly number[]): string => {
    if (count === undefined) return format(data[from]!);
    return `[${Array.from({ length: count }, (_, index) => nested(from + index * sizeOf(inner), inner)).join(", ")}]`;
  };
  const block = 4096;
  yield "[";
  for (let from = 0; from < rows; from += block) {
    const parts: string[] = [];
    for (let row = from; row < Math.min(rows, from + block); row++) parts.push(nested(row * width, rest));
    yield (from === 0 ? "" : ", ") + parts.join(", ");
  }
  yield "]";
}

function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
