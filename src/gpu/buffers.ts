import { copyRows } from "../rows.js";
import { LimitError } from "../errors.js";
import { halves } from "../model/float16.js";
import { blockShape, isTrained, workOf, type PlannedMatrix } from "../plan/matrices.js";
import type { Binding, MatrixLayout } from "../schedule/steps.js";
import { bandOf, bandStart } from "../schedule/tile.js";
import type { Floats, Halves } from "../typedArrays.js";
import { asGpuError } from "./errors.js";

/** GPUBufferUsage's flags by their values in the specification; the global itself is absent in Node. */
export const USAGE = { MAP_READ: 0x1, COPY_SRC: 0x4, COPY_DST: 0x8, UNIFORM: 0x40, STORAGE: 0x80, INDIRECT: 0x100 } as const;

/**
 * A matrix [rows, columns] as kernels read it, in float32, padded with zeros to whole vec4s:
 * "rows" keeps each row together, [rows, ⌈columns/4⌉] of vec4;
 * "product" is the transpose with 4 rows a vec4, [4 inner, ⌈rows/4⌉] of vec4, so that W x reads vec4s of outputs: all columns
 * of W, or those of the blocks that these rows have (bandOf). "half product" is that in float16.
 */
export function layoutMatrix(matrix: PlannedMatrix, layout: MatrixLayout): Floats {
  const { rows, columns } = matrix;
  const width = 4 * Math.ceil((layout === "rows" ? columns : rows) / 4);
  if (layout === "rows") {
    const { data } = matrix.build();
    const padded = new Float32Array(rows * width);
    copyRows(rows, columns, { data: padded, at: 0, stride: width }, { data, at: 0, stride: columns });
    return padded;
  }
  const band = bandOf(matrix);
  const [height, inputs] = blockShape(matrix);
  const { data } = (matrix.blocks ?? matrix).build();
  const padded = new Float32Array(4 * band.inner * width);
  for (let row = 0; row < rows; row++) {
    const first = Math.floor(row / height) * inputs - 4 * bandStart(band, row - (row % 4));
    for (let column = 0; column < inputs; column++) padded[(first + column) * width + row] = data[row * inputs + column]!;
  }
  return padded;
}

function numbersOf(matrix: PlannedMatrix, layout: MatrixLayout): Floats | Halves {
  const numbers = layoutMatrix(matrix, layout);
  return layout === "half product" ? halves(numbers, matrix.name) : numbers;
}

/** The matrices of one network on one device, uploaded when first needed. */
export class Matrices {
  private readonly buffers = new Map<PlannedMatrix, Partial<Record<MatrixLayout, GPUBuffer>>>();
  private readonly packedBuffers = new Map<Float32Array | Uint16Array, GPUBuffer>();
  /** How often weights were replaced. */
  version = 0;
  /** How often buffers were: what names them is out of date then. */
  generation = 0;

  constructor(
    private readonly device: GPUDevice,
    private readonly label: string,
  ) {}

  get(matrix: PlannedMatrix, layout: MatrixLayout): GPUBuffer {
    let layouts = this.buffers.get(matrix);
    if (!layouts) this.buffers.set(matrix, (layouts = {}));
    let buffer = layouts[layout];
    if (!buffer) {
      const { maxStorageBufferBindingSize, maxBufferSize } = this.device.limits;
      const largest = Math.min(maxStorageBufferBindingSize, maxBufferSize);
      const width = layout === "rows" ? matrix.columns : matrix.rows;
      const bytes =
        (layout === "half product" ? 8 : 16) * Math.ceil(width / 4) * (layout === "rows" ? matrix.rows : 4 * bandOf(matrix).inner);
      if (bytes > largest)
        throw new LimitError(
          `the matrix ${matrix.name} [${matrix.rows}, ${matrix.columns}] takes ${bytes} bytes; the device allows ${largest} in one buffer`,
        );
      const label = `${this.label}: ${matrix.name} [${matrix.rows}, ${matrix.columns}] as ${layout}`;
      buffer = this.device.createBuffer({ label, size: bytes, usage: USAGE.STORAGE | USAGE.COPY_DST });
      this.device.queue.writeBuffer(buffer, 0, numbersOf(matrix, layout));
      layouts[layout] = buffer;
    }
    return buffer;
  }

  has(matrix: PlannedMatrix, layout: MatrixLayout): boolean {
    return this.buffers.get(matrix)?.[layout] !== undefined;
  }

  /** The numbers of a fused kernel. */
  packed(name: string, data: Floats | Halves): GPUBuffer {
    let buffer = this.packedBuffers.get(data);
    if (!buffer) {
      const label = `${this.label}: weights of ${name}`;
      buffer = this.device.createBuffer({ label, size: data.byteLength, usage: USAGE.STORAGE | USAGE.COPY_DST });
      this.device.queue.writeBuffer(buffer, 0, data);
      this.packedBuffers.set(data, buffer);
    }
    return buffer;
  }

  /** What depends on weights: what the device may compute of others there, and what the host has to write. */
  trained(): Record<"computable" | "others", Extract<Binding, { kind: "matrix" }>[]> {
    const all = [...this.buffers]
      .filter(([matrix]) => isTrained(matrix))
      .flatMap(([matrix, layouts]) =>
        (Object.keys(layouts) as MatrixLayout[]).map((layout) => ({ kind: "matrix", matrix, layout }) as const),
      );
    // Kernels that compute know nothing of bands, nor of float16.
    const isComputable = ({ matrix, layout }: (typeof all)[number]): boolean =>
      layout !== "half product" && matrix.blocks === null && workOf([matrix]) > 0;
    return { computable: all.filter(isComputable), others: all.filter((each) => !isComputable(each)) };
  }

  /** Writes numbers that were replaced, in place. */
  rewrite(wanted: readonly Extract<Binding, { kind: "matrix" }>[]): void {
    this.version++;
    // All are computed before one is written, since one may be too large for float16.
    const numbers = wanted.map(({ matrix, layout }) => numbersOf(matrix, layout));
    wanted.forEach(({ matrix, layout }, index) => this.device.queue.writeBuffer(this.get(matrix, layout), 0, numbers[index]!));
  }

  /** Uploads each anew when it is needed next; commands that name the old buffers keep them. */
  forget(): void {
    this.generation++;
    this.buffers.clear();
    this.packedBuffers.clear();
  }

  destroy(): void {
    const all = [...this.buffers.values()].flatMap((layouts) => Object.values(layouts));
    for (const buffer of [...all, ...this.packedBuffers.values()]) buffer.destroy();
    this.forget();
  }
}

/** Scratch buffers by name, which grow and do not shrink until they are destroyed. */
export class Scratch {
  private readonly buffers = new Map<string, GPUBuffer>();
  /** How often buffers were replaced. */
  generation = 0;
  /** Outgrown buffers that live on while commands name them; weakly, so that the garbage collector may free the others. */
  private retired: WeakRef<GPUBuffer>[] = [];

  /**
   * @param keepRetired whether a buffer that was outgrown must live on, since commands that are not yet submitted may
   * still name it (encode; the garbage collector frees it when no command does), or may be destroyed at once (evaluate,
   * which submits before it grows).
   */
  constructor(
    private readonly device: GPUDevice,
    private readonly label: string,
    private readonly keepRetired: boolean,
  ) {}

  /** The bytes of all buffers after reserve(). */
  bytesWith(sizes: ReadonlyMap<string, number>): number {
    let sum = 0;
    for (const [name, { size }] of this.buffers) sum += Math.max(size, sizes.get(name) ?? 0);
    for (const [name, bytes] of sizes) if (!this.buffers.has(name)) sum += bytes;
    return sum;
  }

  /** Whether reserve() has nothing to do. */
  has(sizes: ReadonlyMap<string, number>): boolean {
    return [...sizes].every(([name, bytes]) => (this.buffers.get(name)?.size ?? -1) >= bytes);
  }

  reserve(sizes: ReadonlyMap<string, number>): void {
    for (const [name, bytes] of sizes) {
      const old = this.buffers.get(name);
      if (old && old.size >= bytes) continue;
      if (old) this.retire(old);
      const size = old && this.keepRetired ? this.roomy(old.size, bytes) : bytes;
      const usage = USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST;
      this.buffers.set(name, this.device.createBuffer({ label: `${this.label}: ${name}`, size, usage }));
    }
  }

  /** Half as much again, so that a count which grows little by little leaves few outgrown buffers behind. */
  private roomy(old: number, needed: number): number {
    const { maxStorageBufferBindingSize, maxBufferSize } = this.device.limits;
    return Math.max(needed, Math.min(16 * Math.ceil((1.5 * old) / 16), maxStorageBufferBindingSize, maxBufferSize));
  }

  get(name: string): GPUBuffer {
    return this.buffers.get(name)!;
  }

  private retire(buffer: GPUBuffer): void {
    this.generation++;
    if (!this.keepRetired) return buffer.destroy();
    this.retired = [...this.retired.filter((reference) => reference.deref()), new WeakRef(buffer)];
  }

  /** Makes each anew when it is needed next. */
  forget(): void {
    for (const buffer of this.buffers.values()) this.retire(buffer);
    this.buffers.clear();
  }

  destroy(): void {
    for (const buffer of [...this.buffers.values(), ...this.retired.map((reference) => reference.deref())]) buffer?.destroy();
    this.generation++;
    this.buffers.clear();
    this.retired = [];
  }
}

/**
 * Small constant buffers, found by their content. One that was handed out is never written again, so that commands
 * recorded earlier, whenever they are submitted, see their own numbers; but for those that the device counts, which each recording writes anew before it reads them.
 */
export class Constants {
  private readonly buffers = new Map<string, GPUBuffer>();
  /** How often buffers were replaced, or destroyed. */
  generation = 0;
  private bytes = 0;
  /** All together, but for a larger one that is in use. */
  private static readonly BYTES_KEPT = 2 ** 20;

  /**
   * @param keepRetired whether the oldest are forgotten, not destroyed, when there are too many, since commands that are
   * not yet submitted may still name them (encode): the garbage collector frees them when no command does.
   */
  constructor(
    private readonly device: GPUDevice,
    private readonly label: string,
    private readonly keepRetired: boolean,
  ) {}

  get(name: string, data: Float32Array, usage: number): GPUBuffer {
    return this.rows(name, [new Uint32Array(data.buffer, data.byteOffset, data.length)], data.byteLength, usage);
  }

  /** Rows of words, `stride` bytes apart. @throws GpuError. */
  rows(name: string, rows: readonly ArrayLike<number>[], stride: number, usage: number): GPUBuffer {
    const key = `${name} ${usage} ${stride} ${rows.map((row) => Array.prototype.join.call(row)).join(" ")}`;
    let buffer = this.buffers.get(key);
    if (!buffer) {
      const size = 16 * Math.ceil((rows.length * stride) / 16);
      this.bytes += size;
      for (const [oldest, { size: freed }] of this.buffers) {
        if (this.bytes <= Constants.BYTES_KEPT) break;
        if (!this.keepRetired) {
          this.buffers.get(oldest)!.destroy();
          this.generation++;
        }
        this.buffers.delete(oldest);
        this.bytes -= freed;
      }
      buffer = this.make(`${this.label}: ${name}`, size, usage, rows, stride);
      this.buffers.set(key, buffer);
    }
    return buffer;
  }

  /** @throws GpuError where there is no memory to map, or on Deno where the device is lost. */
  private make(label: string, size: number, usage: number, rows: readonly ArrayLike<number>[], stride: number): GPUBuffer {
    try {
      const buffer = this.device.createBuffer({ label, size, usage, mappedAtCreation: true });
      const words = new Uint32Array(buffer.getMappedRange());
      rows.forEach((row, index) => words.set(row, (index * stride) / 4));
      buffer.unmap();
      return buffer;
    } catch (error) {
      throw asGpuError(label, error);
    }
  }

  forget(): void {
    if (!this.keepRetired) return this.destroy();
    this.generation++;
    this.buffers.clear();
    this.bytes = 0;
  }

  destroy(): void {
    for (const buffer of this.buffers.values()) buffer.destroy();
    this.generation++;
    this.buffers.clear();
    this.bytes = 0;
  }
}
