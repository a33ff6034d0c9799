import { isIdentityWeight, type Matrix, type Operation, type Place, type Tensor } from "../../network.js";
import type { Budget } from "./budget.js";
import { isWhole, readTensor, type OnnxModel, type OnnxNode, type StoredTensor } from "./decode.js";

/** Parts of one operation that may be columns of one tensor: matrices with as many rows, or a list of numbers as one row. */
interface Parts {
  readonly operation: number;
  readonly parts: { part: Place["part"]; matrix: Matrix }[];
}

/** A tensor that nodes read: how often, the how-manieth of all, and each way in which all its numbers stand in the operations. */
interface Candidate {
  readonly name: string;
  readonly shape: readonly number[];
  readonly reads: number;
  readonly turn: number;
  readonly ways: readonly (readonly Place[])[];
}

/**
 * The initializers, then the constants of nodes, that are weights and biases as they stand: [out, in] or [in, out], also where
 * operands that the file joins read columns of one each. Numbers tell, since folding leaves no trace. So what is read twice gets no
 * name, nor what may be one of several, unless as many equal tensors as there are places are read in the order of both.
 */
export function nameTensors(
  { initializers }: OnnxModel,
  nodes: readonly OnnxNode[],
  operations: readonly Operation[],
  budget: Budget,
): Tensor[] {
  const reads = new Map<string, { reads: number; turn: number }>();
  for (const { inputs } of nodes)
    for (const name of inputs) {
      const before = reads.get(name);
      reads.set(name, { reads: (before?.reads ?? 0) + 1, turn: before?.turn ?? reads.size });
    }
  const constants = nodes.flatMap(({ type, outputs: [name = ""], attributes }) => {
    const tensor = attributes.get("value")?.tensor;
    return type === "Constant" && tensor ? [[name, tensor] as const] : [];
  });
  const { parts, size } = partsOf(operations);
  // Many equal tensors would be compared with many equal parts: what no real file needs gets no names.
  const work = { left: 2 ** 20 + 32 * size };
  const candidates: Candidate[] = [];
  for (const [name, stored] of [...initializers, ...constants]) {
    const read = reads.get(name);
    if (!read || isWhole(stored.type)) continue;
    const ways = waysOf(stored, parts, work, budget);
    if (work.left < 0) return [];
    if (ways.length > 0) candidates.push({ name, shape: stored.shape, ...read, ways });
  }

  const claims = new Map<string, number>();
  const groups = new Map<string, Candidate[]>();
  const keysOf = ({ ways }: Candidate): string[] => ways.flat().map(({ operation, part }) => `${operation} ${part}`);
  for (const candidate of candidates) {
    const keys = keysOf(candidate);
    for (const key of keys) claims.set(key, (claims.get(key) ?? 0) + 1);
    const group = groups.get(keys.join());
    if (group) group.push(candidate);
    else groups.set(keys.join(), [candidate]);
  }
  return candidates.flatMap((candidate) => {
    const { name, shape, ways } = candidate;
    const group = groups.get(keysOf(candidate).join())!;
    const isClear =
      ways.length === group.length &&
      keysOf(candidate).every((key) => claims.get(key) === group.length) &&
      group.every((other, i) => other.reads === 1 && (i === 0 || other.turn > group[i - 1]!.turn));
    return isClear ? [{ name, shape, places: ways[group.indexOf(candidate)]! }] : [];
  });
}

/** Where parameters may stand, by their rows, and how many numbers they are. */
function partsOf(operations: readonly Operation[]): { parts: Map<string, Parts[]>; size: number } {
  const byRows = new Map<string, Parts[]>();
  let size = 0;
  operations.forEach((given, operation) => {
    if (given.kind !== "linear") return;
    const add = (part: Place["part"], matrix: Matrix, rows = `${matrix.rows}`): void => {
      size += matrix.data.length;
      if (!byRows.has(rows)) byRows.set(rows, []);
      const alike = byRows.get(rows)!;
      if (alike.at(-1)?.operation !== operation) alike.push({ operation, parts: [] });
      alike.at(-1)!.parts.push({ part, matrix });
    };
    const addList = (part: Place["part"], data: Matrix["data"]): void => add(part, { rows: 1, columns: data.length, data }, "list");
    given.terms.forEach(({ weight }, part) => {
      if (!("diagonal" in weight)) add(part, "block" in weight ? weight.block : weight);
      else if (!isIdentityWeight(weight)) addList(part, weight.diagonal);
    });
    if (given.bias) addList("bias", given.bias);
  });
  return { parts: byRows, size };
}

/** In the order of operations. */
function waysOf(stored: StoredTensor, all: ReadonlyMap<string, readonly Parts[]>, work: { left: number }, budget: Budget): Place[][] {
  const { shape } = stored;
  const size = shape.reduce((product, n) => product * n, 1);
  if (size === 0) return [];
  const [a, b] = shape as [number, number];
  const layouts = [
    ...(shape.at(-1) === size ? [{ rows: "list", columns: size, rowStride: 0, columnStride: 1 }] : []),
    ...(shape.length === 2 ? [{ rows: `${a}`, columns: b, rowStride: b, columnStride: 1 }] : []),
    // Of one number both are the same.
    ...(shape.length === 2 && size > 1 ? [{ rows: `${b}`, columns: a, rowStride: 1, columnStride: b }] : []),
  ];
  let numbers: Matrix["data"] | null = null;
  const isAt = ({ data, columns }: Matrix, place: Place): boolean => {
    // Read once more, since what the nodes read is freed by now.
    numbers ??= readTensor(stored, budget).data;
    let row = place.offset;
    for (let i = 0, column = 0; i < data.length; i++) {
      if (--work.left < 0 || data[i] !== numbers[row + column * place.columnStride]) return false;
      if (++column === columns) [column, row] = [0, row + place.rowStride];
    }
    return true;
  };

  const waysIn = ({ operation, parts }: Parts, columns: number, strides: Pick<Place, "rowStride" | "columnStride">): Place[][] => {
    const places: Place[] = [];
    for (let from = 0, left = parts; from < columns;) {
      work.left -= left.length;
      const fitting = left.filter(
        ({ part, matrix }) =>
          from + matrix.columns <= columns && isAt(matrix, { operation, part, offset: from * strides.columnStride, ...strides }),
      );
      const [only] = fitting;
      if (!only) return [];
      // Any of them may be the one: claimed twice, none gets a name.
      if (fitting.length > 1) return fitting.flatMap(({ part }) => [1, 2].map(() => [{ operation, part, offset: 0, ...strides }]));
      places.push({ operation, part: only.part, offset: from * strides.columnStride, ...strides });
      left = left.filter((other) => other !== only);
      from += only.matrix.columns;
    }
    return [places];
  };
  return layouts
    .flatMap(({ rows, columns, ...strides }) => (all.get(rows) ?? []).flatMap((parts) => waysIn(parts, columns, strides)))
    .sort(([x], [y]) => x!.operation - y!.operation);
}
