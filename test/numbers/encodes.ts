import type { BufferRows, EncodeOptions, Output, VectorField } from "deldot";
import { makeBuffer, readBuffer } from "../buffers.js";
import type { Results } from "./check.js";
import type { Draw } from "./draw.js";

export interface EncodeRequest {
  readonly outputs: readonly Output[];
  readonly method: NonNullable<EncodeOptions["method"]>;
  readonly options: Pick<EncodeOptions, "chunkSize" | "probes" | "seed" | "probesPer" | "orthogonal" | "step">;
  readonly count: number;
  /** [count, d] */
  readonly points: Float32Array;
  /** [count, c], or [c] where `contextPer` is "batch". */
  readonly context: Float32Array | null;
  readonly contextPer: "point" | "batch";
}

export interface EncodeAnswer {
  readonly results: Results;
  /** How rows lay in buffers, for messages. */
  readonly layout: string;
  /** What was written beside the rows of results, if anything. */
  readonly touched: string | null;
}

type Name = "points" | "context" | "value" | "divergence" | "diagonal";

interface Rows {
  readonly name: Name;
  readonly width: number;
  /** Rows from here on, `stride` floats apart. */
  readonly offset: number;
  readonly stride: number;
  readonly buffer: number;
  readonly data: Float32Array | null;
}

/** How rows of several names share buffers. */
const layouts = ["apart", "results in one buffer", "all in one buffer", "interleaved"] as const;

/** Encodes all requests into one command buffer, submits it and reads what they wrote. */
export async function submitEncodes(
  device: GPUDevice,
  draw: Draw,
  field: VectorField,
  requests: readonly EncodeRequest[],
): Promise<EncodeAnswer[]> {
  const made: GPUBuffer[] = [];
  try {
    const encoder = device.createCommandEncoder();
    const pass = draw.chance(0.5) ? encoder.beginComputePass() : null;
    const prepared = requests.map((request) => {
      const layout = draw.chance(0.5) ? "apart" : draw.pick(layouts);
      const placed = place(draw, field.network.stateSize, field.network.contextSize, request, layout);
      const contents = fill(placed, request.count);
      const buffers = contents.map((content) => makeBuffer(device, content));
      made.push(...buffers);
      const given = Object.fromEntries(placed.map((rows) => [rows.name, rowsOf(rows, buffers[rows.buffer]!)]));
      const literal = request.context && !("context" in given) ? { context: Array.from(request.context) } : {};
      field.encode(pass ?? encoder, {
        ...(given as { points: BufferRows }),
        ...literal,
        ...request.options,
        count: request.count,
        method: request.method,
      });
      return { request, layout, placed, contents, buffers };
    });
    pass?.end();
    device.queue.submit([encoder.finish()]);
    const answers: EncodeAnswer[] = [];
    for (const { request, layout, placed, contents, buffers } of prepared) {
      const after: Float32Array[] = [];
      for (const buffer of buffers) after.push(await readBuffer(device, buffer));
      const results: Results = {};
      for (const rows of placed) {
        if (rows.data) continue;
        const at = (index: number): number => rows.offset + Math.floor(index / rows.width) * rows.stride + (index % rows.width);
        const numbers = Float32Array.from({ length: request.count * rows.width }, (_, index) => after[rows.buffer]![at(index)]!);
        results[rows.name as "value" | "divergence" | "diagonal"] = numbers;
        // What is left then is what nobody may write.
        numbers.forEach((_, index) => (after[rows.buffer]![at(index)] = contents[rows.buffer]![at(index)]!));
      }
      const touched = after.flatMap((data, buffer) => {
        const at = data.findIndex((x, index) => x !== contents[buffer]![index]);
        return at < 0 ? [] : [`${contents[buffer]![at]} became ${data[at]} at float ${at} of buffer ${buffer}, where no result lies`];
      });
      const strides = placed.map(({ name, offset, stride, buffer }) => `${name} in ${buffer} at ${offset} by ${stride}`);
      answers.push({ results, layout: `${layout}: ${strides.join(", ")}`, touched: touched[0] ?? null });
    }
    return answers;
  } finally {
    for (const buffer of made) buffer.destroy();
  }
}

function rowsOf({ offset, stride, width }: Rows, buffer: GPUBuffer): BufferRows {
  return offset === 0 && stride === width ? buffer : { buffer, offset: 4 * offset, stride };
}

/** Where the rows of every name lie. A context for all points is a row in a buffer, or left out, to be given as numbers. */
function place(draw: Draw, d: number, c: number, request: EncodeRequest, layout: (typeof layouts)[number]): Rows[] {
  const names: { name: Name; width: number; data: Float32Array | null; single?: boolean }[] = [
    { name: "points", width: d, data: request.points },
  ];
  for (const output of request.outputs) names.push({ name: output as Name, width: output === "divergence" ? 1 : d, data: null });
  if (request.context && request.contextPer === "point") names.push({ name: "context", width: c, data: request.context });
  else if (request.context && draw.chance(0.5)) names.push({ name: "context", width: c, data: request.context, single: true });
  const gap = (): number => (draw.chance(0.5) ? 0 : draw.integer(0, 9));
  if (layout === "interleaved") {
    const record = names.reduce((sum, { width, single }) => sum + (single ? 0 : width), 0) + gap();
    let offset = gap();
    return names.map(({ name, width, data, single }) => {
      if (single) return { name, width, data, offset: gap(), stride: 0, buffer: 1 };
      offset += width;
      return { name, width, data, offset: offset - width, stride: record, buffer: 0 };
    });
  }
  const ends = new Map<number, number>();
  return names.map(({ name, width, data, single }, index) => {
    const isResult = data === null;
    const buffer = layout === "apart" ? index : layout === "all in one buffer" ? 0 : isResult ? names.length : index;
    const offset = (ends.get(buffer) ?? 0) + gap();
    const stride = single ? 0 : width + gap();
    ends.set(buffer, offset + (request.count - 1) * stride + width);
    return { name, width, data, offset, stride, buffer };
  });
}

/** What buffers hold before: the inputs, and 7s. */
function fill(placed: readonly Rows[], count: number): Float32Array[] {
  const contents = Array.from({ length: 1 + Math.max(...placed.map(({ buffer }) => buffer)) }, (_, buffer) => {
    const inside = placed.filter((rows) => rows.buffer === buffer);
    return new Float32Array(Math.max(4, ...inside.map(({ offset, stride, width }) => offset + (count - 1) * stride + width + 3))).fill(7);
  });
  for (const { data, offset, stride, width, buffer } of placed)
    data?.forEach((x, index) => (contents[buffer]![offset + Math.floor(index / width) * stride + (index % width)] = x));
  return contents;
}
