import type { Numbers } from "../../network.js";
import { intended, isWhole } from "./decode.js";
import { computed, placesOf, requireOneType } from "./elementwise.js";
import type { Term } from "./graph.js";
import { dense } from "./maps.js";
import {
  alongBatch,
  batchTimes,
  broadcastShape,
  Call,
  commonRows,
  expanded,
  feature,
  moved,
  numbersOf,
  reshaped,
  rowsOf,
  showBatch,
  sizeOf,
  sourcesOf,
  stridesOf,
  timesOfBatch,
  type Constant,
  type Feature,
  type Value,
} from "./values.js";

type Moved = Constant | Feature;

/** Operations that give elements of their input in another order or shape. */
export const movements: Readonly<Record<string, (call: Call) => Value | Moved[]>> = {
  Identity: (call) => call.any(0),
  Dropout: (call) => {
    // Its ratio says nothing where nothing is dropped.
    if (call.has(1)) call.scalar(1);
    const isTraining = call.has(2) && call.scalar(2) !== 0;
    if (isTraining) call.refuse("it is in training mode, and would drop elements at random; expected inference");
    return call.value(0);
  },
  Shape: (call) => {
    const value = call.value(0);
    const sizes = value.shape.map((size, axis) => (value.kind === "feature" && axis === value.batch ? batchTimes(size) : size));
    const end = call.integer("end", sizes.length);
    const part = sizes.slice(call.integer("start", 0), end);
    return call.fold([part.length], "INT64", (i) => part[i]!);
  },
  Constant: (call) => {
    const tensor = call.tensor("value");
    const floats = call.floatsOf("value_floats");
    const integers = call.integersOf("value_ints");
    const float = call.float("value_float", NaN);
    const integer = call.integer("value_int", NaN);
    if (tensor) return { kind: "constant", ...tensor };
    if (floats) return call.fold([floats.length], "FLOAT", (i) => floats[i]!);
    if (integers) return call.fold([integers.length], "INT64", (i) => integers[i]!);
    if (!Number.isNaN(integer)) return call.fold([], "INT64", () => integer);
    if (Number.isNaN(float)) call.refuse("it has no numbers; expected value, value_float, value_floats, value_int or value_ints");
    return call.fold([], "FLOAT", () => intended(Math.fround(float)));
  },
  ConstantOfShape: (call) => {
    const { sizes, batch } = splitBatch(call, call.integers(0));
    const tensor = call.tensor("value");
    if (tensor && tensor.data.length !== 1) call.refuse(`its value has ${tensor.data.length} numbers; expected 1`);
    const [number = 0] = tensor?.data ?? [];
    const filled = call.fold(sizes, tensor?.type ?? "FLOAT", () => number);
    return batch === null ? filled : feature(sizes, batch, call.graph.constant(filled.data), filled.type);
  },
  Range: (call) => {
    const given = [0, 1, 2].map((index) => call.constant(index));
    requireOneType(call, given);
    for (const number of given) {
      numbersOf(call, number);
      if (number.isComputed === true) call.refuse("how long it is depends on how computed numbers round; expected numbers out of the file");
    }
    const [start, limit, delta] = [0, 1, 2].map((index) => call.scalar(index)) as [number, number, number];
    const count = Math.max(0, Math.ceil((limit - start) / delta));
    if (!(count < 2 ** 31)) call.refuse(`it counts from ${start} to ${limit} by ${delta}; expected a step that gets there`);
    return computed(
      call,
      call.fold([count], given[0]!.type, (i) => start + i * delta),
    );
  },
  Expand: (call) => {
    const value = call.value(0);
    const given = call.integers(1);
    // Both are aligned at their last axes, so that an axis of the one is an axis of the other.
    const rank = Math.max(given.length, value.shape.length);
    const target = [...Array<number>(rank - given.length).fill(1), ...given];
    const lead = rank - value.shape.length;
    const own = value.kind === "feature" && value.batch !== null ? value.batch + lead : null;
    // A literal size stands for the batch where the file fixes it.
    if (own !== null && call.fixedBatch !== null && target[own] === call.fixedBatch * rowsOf(value))
      target[own] = batchTimes(rowsOf(value));
    const { sizes, batch } = splitBatch(call, target);
    if (own !== null && batch !== null && batch !== own) call.refuse("its shape has the batch on another axis than its input");
    const axis = own ?? batch;
    const rows = own === null ? (batch === null ? 1 : sizes[batch]!) : rowsOf(value);
    if (batch !== null && sizes[batch] !== rows) call.refuseBatch(`makes ${showBatch(sizes[batch]!)} of ${showBatch(rows)}`);
    const aligned = alongBatch(call, value, axis === null ? null : axis - lead, rows);
    const shape = broadcastShape(call, [aligned.shape, sizes]);
    const wide = expanded(call, aligned, shape, axis, rows);
    return axis !== null && wide.kind === "constant" ? feature(shape, axis, call.graph.constant(wide.data), wide.type) : wide;
  },
  Reshape: (call) => {
    const value = call.value(0);
    return reshape(call, value, call.integers(1), call.integer("allowzero", 0) !== 0);
  },
  Flatten: (call) => {
    const value = call.value(0);
    const rank = value.shape.length;
    const given = call.integer("axis", 1);
    const axis = given === rank ? rank : call.axis(given, rank);
    const shape = [sizeOf(value.shape.slice(0, axis)), sizeOf(value.shape.slice(axis))];
    if (value.kind === "constant" || value.batch === null) return reshaped(value, shape, null);
    const batch = value.batch < axis ? 0 : 1;
    if (sizeOf(value.shape.slice(batch === 0 ? 0 : axis, value.batch)) !== 1) call.refuseBatch("joins elements");
    return reshaped(value, shape, batch);
  },
  Squeeze: (call) => {
    const value = call.value(0);
    const rank = value.shape.length;
    const batch = value.kind === "feature" ? value.batch : null;
    const given = axesOf(call, 1);
    // No axes are all, as onnxruntime has it.
    const axes = given?.length
      ? call.axes(given, rank)
      : value.shape.flatMap((size, axis) => (size === 1 && (axis !== batch || call.fixedBatch === 1) ? [axis] : []));
    const stays = axes.find((axis) => value.shape[axis] !== 1);
    if (stays !== undefined) call.refuse(`axis ${stays} has ${value.shape[stays]} elements; expected 1`);
    if (batch !== null && axes.includes(batch)) call.refuseBatch("drops the axis");
    const shape = value.shape.filter((_, axis) => !axes.includes(axis));
    const before = axes.filter((axis) => axis < (batch ?? 0)).length;
    return reshaped(value, shape, batch === null ? null : batch - before);
  },
  Unsqueeze: (call) => {
    const value = call.value(0);
    const given = axesOf(call, 1) ?? call.refuse("it has no axes");
    const rank = value.shape.length + given.length;
    if (rank > 8) call.refuse(`it makes ${rank} dimensions; expected at most 8`);
    const axes = call.axes(given, rank);
    const kept = Array.from({ length: rank }, (_, axis) => axis).filter((axis) => !axes.includes(axis));
    const shape = Array<number>(rank).fill(1);
    kept.forEach((axis, i) => (shape[axis] = value.shape[i]!));
    const batch = value.kind === "feature" && value.batch !== null ? kept[value.batch]! : null;
    return reshaped(value, shape, batch);
  },
  Transpose: (call) => {
    const value = call.value(0);
    const rank = value.shape.length;
    const order = call.integersOf("perm") ?? Array.from({ length: rank }, (_, axis) => rank - 1 - axis);
    if (order.length !== rank) call.refuse(`perm is [${order.join(", ")}]; expected an order of ${rank} axes`);
    return transpose(call, value, call.axes(order, rank));
  },
  Slice: (call) => {
    const value = call.value(0);
    const rank = value.shape.length;
    const isOld = call.opset < 10;
    const starts = isOld ? (call.integersOf("starts") ?? []) : call.integers(1);
    const ends = isOld ? (call.integersOf("ends") ?? []) : call.integers(2);
    const given = isOld ? call.integersOf("axes") : call.has(3) ? call.integers(3) : null;
    const axes = call.axes(given ?? starts.map((_, i) => i), rank);
    const steps = call.has(4) ? call.integers(4) : starts.map(() => 1);
    if ([ends, axes, steps].some((list) => list.length !== starts.length))
      call.refuse("its starts, ends, axes and steps have different lengths");
    const chosen = value.shape.map((size) => range(call, 0, size, 1));
    axes.forEach((axis, i) => {
      if (value.kind === "feature" && axis === value.batch) {
        const rows = rowsOf(value);
        const end = timesOfBatch(ends[i]!);
        const reaches = end === null ? ends[i]! >= (call.fixedBatch === null ? 2 ** 31 - 1 : call.fixedBatch * rows) : end >= rows;
        const isAll = starts[i] === 0 && steps[i] === 1 && reaches;
        if (!isAll) call.refuseBatch("takes a part");
        return;
      }
      chosen[axis] = sliceOf(call, value.shape[axis]!, starts[i]!, ends[i]!, steps[i]!);
    });
    return take(call, value, chosen);
  },
  Split: (call) => {
    const value = call.value(0);
    const axis = call.axis(call.integer("axis", 0), value.shape.length);
    if (value.kind === "feature" && axis === value.batch) call.refuseBatch("splits");
    const size = value.shape[axis]!;
    const count = call.outputCount;
    const parts = call.opset < 18 ? count : call.integer("num_outputs", count);
    if (parts !== count) call.refuse(`num_outputs is ${parts}; expected ${count}, as many as it has outputs`);
    // Where nothing says how, the last part may be smaller than the others, in newer files alone.
    const each = Math.ceil(size / parts);
    const equal = Array.from({ length: count }, (_, i) => Math.max(0, Math.min(each, size - i * each)));
    const sizes = call.has(1) ? call.integers(1) : (call.integersOf("split") ?? equal);
    if (
      sizes.length !== count ||
      !sizes.every((part) => Number.isInteger(part) && part > 0) ||
      sizes.reduce((sum, part) => sum + part, 0) !== size
    )
      call.refuse(`it splits ${size} elements into [${sizes.join(", ")}]; expected ${count} parts that are together as many`);
    if (sizes === equal && call.opset < 18 && size % count !== 0) call.refuse(`it splits ${size} elements into ${count} equal parts`);
    let from = 0;
    return sizes.map((part) => {
      const chosen = value.shape.map((length, k) => (k === axis ? range(call, from, part, 1) : range(call, 0, length, 1)));
      from += part;
      return take(call, value, chosen);
    });
  },
  Gather: (call) => {
    const value = call.value(0);
    const axis = call.axis(call.integer("axis", 0), value.shape.length);
    if (value.kind === "feature" && axis === value.batch) call.refuseBatch("gathers");
    const given = call.value(1);
    if (given.kind === "feature") return lookUp(call, value, axis, given);
    const { data, shape: indexShape, type } = given;
    if (!isWhole(type)) call.refuse(`its indices are of the type ${type}; expected whole numbers`);
    const size = value.shape[axis]!;
    const indices = Array.from(data, (index) => {
      const counted = index < 0 ? index + size : index;
      return Number.isInteger(counted) && counted >= 0 && counted < size ? counted : call.refuse(`index ${index} of ${size} elements`);
    });
    const chosen = value.shape.map((length, k) => (k === axis ? indices : range(call, 0, length, 1)));
    const result = take(call, value, chosen);
    const shape = [...value.shape.slice(0, axis), ...indexShape, ...value.shape.slice(axis + 1)];
    const batch = result.kind === "feature" && result.batch !== null && result.batch > axis ? result.batch + indexShape.length - 1 : null;
    return reshaped(result, shape, batch ?? (result.kind === "feature" ? result.batch : null));
  },
  Tile: (call) => {
    const value = call.value(0);
    const repeats = call.integers(1);
    if (repeats.length !== value.shape.length)
      call.refuse(`it has ${repeats.length} repeats for ${value.shape.length} dimensions; expected one for each`);
    const own = value.kind === "feature" ? value.batch : null;
    // What is one for all points, repeated as often as there are points, is a row of each.
    const open = repeats.findIndex(
      (times, axis) => axis !== own && (Number.isNaN(times) || (times === call.fixedBatch && times !== 1 && own === null)),
    );
    const batch = own ?? (open < 0 ? null : open);
    if (batch !== null && (batch === own ? repeats[batch] !== 1 : value.shape[batch] !== 1)) call.refuseBatch("repeats");
    const times = repeats.map((count, axis) => (axis === batch ? 1 : count));
    if (!times.every((count) => Number.isSafeInteger(count) && count > 0))
      call.refuse(`its repeats are [${repeats.join(", ")}]; expected whole numbers above 0`);
    const chosen = value.shape.map((size, axis) => {
      const length = call.graph.budget.taken(size * times[axis]!);
      return Array.from({ length }, (_, c) => c % size);
    });
    const tiled = take(call, value, chosen);
    if (batch === own) return tiled;
    const node = tiled.kind === "feature" ? tiled.node : call.graph.constant(tiled.data);
    return feature(tiled.shape, batch, node, tiled.type);
  },
  Pad: (call) => {
    const value = call.value(0);
    const rank = value.shape.length;
    const isOld = call.opset < 11;
    const mode = call.text("mode", "constant");
    if (mode !== "constant") call.refuse(`its mode is ${mode}; expected constant`);
    const given = isOld ? (call.integersOf("pads") ?? []) : call.integers(1);
    const filling = isOld ? call.float("value", 0) : call.has(2) ? call.scalar(2) : 0;
    const axes = call.has(3) ? call.axes(call.integers(3), rank) : value.shape.map((_, axis) => axis);
    if (given.length !== 2 * axes.length || !given.every((count) => Number.isSafeInteger(count) && count >= 0))
      call.refuse(`its pads are [${given.join(", ")}]; expected ${2 * axes.length} whole numbers of at least 0`);
    const batch = value.kind === "feature" ? value.batch : null;
    return axes.reduce<Moved>((padded, axis, i) => {
      const [before, after] = [given[i]!, given[axes.length + i]!].map((count): Moved[] => {
        if (count === 0) return [];
        if (axis === batch) call.refuseBatch("adds elements");
        const filled = call.fold(padded.shape.with(axis, count), padded.type, () => filling);
        return [batch === null ? filled : feature(filled.shape, batch, call.graph.constant(filled.data), filled.type)];
      }) as [Moved[], Moved[]];
      return before.length + after.length === 0 ? padded : concatenate(call, [...before, padded, ...after], axis);
    }, value);
  },
  Concat: (call) => {
    const values = call.inputs.map((_, i) => call.value(i));
    const rank = values[0]?.shape.length ?? 0;
    const axis = call.axis(call.integer("axis", 0), rank);
    if (values.some((value) => value.shape.length !== rank)) call.refuse("its inputs have different numbers of dimensions");
    return concatenate(call, values, axis);
  },
};

/** Axes from an attribute, or from an input in newer files; null where neither is there. */
export function axesOf(call: Call, input: number): readonly number[] | null {
  return call.has(input) ? call.integers(input) : call.integersOf("axes");
}

/** A shape in which at most one size is the batch's, and how many rows of it each point has there. */
function splitBatch(call: Call, given: readonly number[]): { sizes: number[]; batch: number | null } {
  const batches = given.flatMap((size, axis) => (timesOfBatch(size) === null ? [] : [axis]));
  if (batches.length > 1) call.refuse("its shape has the size of the batch twice");
  if (given.length > 8 || given.some((size) => size < 0))
    call.refuse(`its shape is [${given.join(", ")}]; expected at most 8 whole numbers`);
  return { sizes: given.map((size) => timesOfBatch(size) ?? size), batch: batches[0] ?? null };
}

export function transpose(call: Call, value: Moved, axes: readonly number[]): Moved {
  const strides = stridesOf(value.shape);
  const shape = axes.map((axis) => value.shape[axis]!);
  const batch = value.kind === "feature" && value.batch !== null ? axes.indexOf(value.batch) : null;
  const isMoved = axes.filter((axis) => value.shape[axis] !== 1).some((axis, i, all) => i > 0 && all[i - 1]! > axis);
  if (!isMoved) return reshaped(value, shape, batch);
  return moved(
    call,
    value,
    shape,
    batch,
    sourcesOf(
      call,
      axes.map((axis) => range(call, 0, value.shape[axis]!, strides[axis]!)),
    ),
  );
}

function reshape(call: Call, value: Moved, target: readonly number[], allowZero: boolean): Moved {
  if (target.length > 8) call.refuse(`it makes ${target.length} dimensions; expected at most 8`);
  if (target.filter((size) => size === -1).length > 1) call.refuse(`its shape is [${target.join(", ")}]; expected at most one -1`);
  const batch = value.kind === "feature" ? value.batch : null;
  const total = sizeOf(value.shape);
  const before = batch === null ? 0 : sizeOf(value.shape.slice(0, batch));
  const after = batch === null ? 0 : sizeOf(value.shape.slice(batch));
  const copied = target.map((size, axis) => {
    if (size !== 0 || allowZero) return size;
    return axis === batch
      ? batchTimes(rowsOf(value))
      : (value.shape[axis] ?? call.refuse(`its shape is [${target.join(", ")}], and there is no axis ${axis} to copy`));
  });

  // The batch stands where as many elements lie before it as did, in a place that says so, or leaves the size open, or has the
  // size that the file fixes. What does not fit behind it are rows of each point.
  const rowsAt = (axis: number): number | null => {
    const size = copied[axis]!;
    const rest = copied.slice(axis + 1);
    const known = sizeOf(rest.filter((other) => other !== -1));
    const said = timesOfBatch(size) ?? (size === -1 ? after / known : size / (call.fixedBatch ?? NaN));
    const fits = rest.includes(-1) ? known > 0 && (after / said) % known === 0 : known * said === after;
    return sizeOf(copied.slice(0, axis)) === before && fits && said >= 1 && Number.isInteger(said) ? said : null;
  };
  const place = batch === null ? -1 : copied.findIndex((_, axis) => rowsAt(axis) !== null);
  if (batch !== null && place < 0)
    call.refuse(
      `it makes [${show(value)}] into [${target.map((size) => (timesOfBatch(size) === null ? size : showBatch(timesOfBatch(size)!))).join(", ")}], which moves elements from one point of the batch to another`,
    );
  const sizes = copied.map((size, axis) => (axis === place ? rowsAt(axis)! : size));
  const known = sizeOf(sizes.filter((size) => size !== -1));
  const shape = sizes.map((size) => (size === -1 ? total / known : size));
  if (!shape.every((size) => Number.isInteger(size) && size >= 0) || sizeOf(shape) !== total)
    call.refuse(`it makes [${show(value)}] into [${target.join(", ")}], which has another number of elements`);
  return reshaped(value, shape, place < 0 ? null : place);
}

function show(value: Moved): string {
  return value.shape.map((size, axis) => (value.kind === "feature" && axis === value.batch ? showBatch(size) : size)).join(", ");
}

/** The elements at these coordinates along each axis. */
function take(call: Call, value: Moved, chosen: readonly (readonly number[])[]): Moved {
  const strides = stridesOf(value.shape);
  const shape = chosen.map((axis) => axis.length);
  const batch = value.kind === "feature" ? value.batch : null;
  if (chosen.every((axis, k) => axis.length === value.shape[k] && axis.every((c, i) => c === i))) return value;
  if (shape.includes(0)) call.refuse(`it gives the shape [${shape.join(", ")}]; expected at least one element`);
  return moved(
    call,
    value,
    shape,
    batch,
    sourcesOf(
      call,
      chosen.map((axis, k) => axis.map((c) => c * strides[k]!)),
    ),
  );
}

/** Rows of a constant table by numbers that depend on the inputs, as of an embedding; those below 0 count from its end, and beyond its rows it is infinite. */
function lookUp(call: Call, table: Moved, axis: number, index: Feature): Feature {
  if (table.kind === "feature" || axis !== 0) call.refuse("it looks up along an axis other than a constant table's first; expected that");
  if (!isWhole(index.type)) call.refuse(`its indices are of the type ${index.type}; expected whole numbers`);
  const { graph } = call;
  const [rows, width] = [table.shape[0]!, sizeOf(table.shape.slice(1))];
  const numbers = numbersOf(call, table);
  const hits = placesOf(call, index.node, rows);
  const count = index.node.width;
  const data = new Float64Array(graph.budget.taken(width * rows));
  for (let k = 0; k < width; k++) for (let row = 0; row < rows; row++) data[k * rows + row] = numbers[row * width + k]!;
  const found = new Float64Array(graph.budget.taken(width * rows)).fill(1);
  const matrix = { rows: width, columns: rows };
  // log 1 is 0, and log 0 no number of a table.
  const beyond = graph.activation(graph.mapped(hits, dense({ ...matrix, data: found }, count)), "log");
  const looked = graph.mapped(hits, dense({ ...matrix, data }, count));
  return feature([...index.shape, ...table.shape.slice(1)], index.batch, graph.sum(looked, beyond), table.type);
}

function range(call: Call, from: number, length: number, step: number): number[] {
  call.graph.budget.take(length);
  return Array.from({ length }, (_, i) => from + i * step);
}

function sliceOf(call: Call, size: number, start: number, end: number, step: number): number[] {
  if (![start, end, step].every(Number.isInteger) || step === 0)
    call.refuse(`it slices from ${start} to ${end} by ${step}; expected whole numbers and a step other than 0`);
  const clamp = (at: number, low: number, high: number): number => Math.min(Math.max(at < 0 ? at + size : at, low), high);
  const from = step > 0 ? clamp(start, 0, size) : clamp(start, 0, size - 1);
  const to = step > 0 ? clamp(end, 0, size) : clamp(end, -1, size - 1);
  return range(call, from, Math.max(0, Math.ceil((to - from) / step)), step);
}

function concatenate(call: Call, values: readonly Moved[], axis: number): Moved {
  const features = values.filter((value) => value.kind === "feature");
  const batches = new Set(features.flatMap((value) => (value.batch === null ? [] : [value.batch])));
  if (batches.size > 1) call.refuse("its inputs have the batch on different axes, which couples the points of a batch");
  const [batch = null] = batches;
  if (axis === batch) call.refuseBatch("joins");
  const rows = commonRows(call, values);
  const aligned = values.map((value) => alongBatch(call, value, batch, rows));
  const first = aligned[0]!;
  const types = new Set(values.map((value) => value.type));
  if ([...types].some(isWhole) && types.size > 1) call.refuse(`its inputs are of the types ${[...types].join(" and ")}; expected one type`);
  const shape = first.shape.with(
    axis,
    aligned.reduce((sum, value) => sum + value.shape[axis]!, 0),
  );
  if (aligned.some((value) => value.shape.some((size, k) => k !== axis && size !== shape[k])))
    call.refuse(
      `its inputs have the shapes ${aligned.map((value) => `[${show(value)}]`).join(" and ")}, which do not join along axis ${axis}`,
    );

  const strides = stridesOf(shape);
  let from = 0;
  const places = aligned.map((value) => {
    const offsets = value.shape.map((size, k) => range(call, k === axis ? from * strides[k]! : 0, size, strides[k]!));
    from += value.shape[axis]!;
    return sourcesOf(call, offsets);
  });
  const total = call.graph.budget.taken(sizeOf(shape));
  const isFloat32 = aligned.every((value) => value.kind !== "constant" || value.data instanceof Float32Array);
  const data: Numbers = isFloat32 ? new Float32Array(total) : new Float64Array(total);
  aligned.forEach((value, i) => {
    if (value.kind === "constant") value.data.forEach((number, k) => (data[places[i]![k]!] = number));
  });
  const isComputed = values.some((value) => value.kind === "constant" && value.isComputed === true);
  if (features.length === 0) return { kind: "constant", shape, data, type: first.type, isComputed };
  const terms = aligned.flatMap((value, i): Term[] => {
    if (value.kind === "constant") return [];
    const indices = new Int32Array(call.graph.budget.taken(total)).fill(-1);
    places[i]!.forEach((place, k) => (indices[place] = k));
    return [{ node: value.node, map: { kind: "pick", columns: value.node.width, indices, factors: null } }];
  });
  return feature(shape, batch, call.graph.linear(terms, aligned.length > features.length ? data : null), first.type);
}
