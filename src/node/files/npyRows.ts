/** Rows of a .npy file of any size, read where they lie: the array is never whole in memory. */
import { open, stat, type FileHandle } from "node:fs/promises";
import { extname } from "node:path";
import { DeldotError, InputError, quote } from "../../errors.js";
import { decodeNumbers, placeOf, readNpyHeader, type NpyHeader } from "./npy.js";
import { describeSystemError } from "./points.js";

/** As much of a file as is searched for its header. */
const mostHeader = 2 ** 20;

/** An open file. */
export class NpyRows {
  private constructor(
    readonly path: string,
    readonly header: NpyHeader,
    private readonly handle: FileHandle,
  ) {}

  /** @throws InputError that begins with the path, where it cannot be read or is no whole array of real numbers. */
  static async open(path: string): Promise<NpyRows> {
    if (extname(path).toLowerCase() !== ".npy")
      throw new InputError(`${path}: its extension is ${quote(extname(path))}; expected .npy, whose rows can be read by themselves`);
    let handle: FileHandle | undefined;
    try {
      const status = await stat(path);
      if (!status.isFile()) throw new InputError("it is not an ordinary file; expected one whose rows can be read by themselves");
      handle = await open(path, "r");
      const first = new Uint8Array(Math.min(status.size, mostHeader));
      await readFully(handle, first, 0);
      return new NpyRows(path, readNpyHeader(first, status.size), handle);
    } catch (error) {
      await handle?.close();
      throw refusal(path, error);
    }
  }

  /** The bytes of rows [from, from + count) of an array of `width` numbers a row, the last axis changing the fastest. */
  async bytes(from: number, count: number, width: number): Promise<Uint8Array> {
    const { size, dataStart, shape, fortranOrder } = this.header;
    const bytes = new Uint8Array(count * width * size);
    try {
      if (!fortranOrder || shape.length < 2) {
        await readFully(this.handle, bytes, dataStart + from * width * size);
        return bytes;
      }
      // Each column lies by itself.
      const rows = this.header.count / width;
      if (shape.length > 2 || shape[1] !== width)
        throw new InputError(
          "its first axis changes the fastest (fortran_order); expected C order where they are not [rows, numbers of a row]",
        );
      const column = new Uint8Array(count * size);
      for (let each = 0; each < width; each++) {
        await readFully(this.handle, column, dataStart + (each * rows + from) * size);
        for (let row = 0; row < count; row++)
          for (let byte = 0; byte < size; byte++) bytes[(row * width + each) * size + byte] = column[row * size + byte]!;
      }
      return bytes;
    } catch (error) {
      throw refusal(this.path, error);
    }
  }

  /** The numbers in such bytes, float32 as they are, everything else as float64. @param from their first row. */
  decode(bytes: Uint8Array, from: number, width: number): Float32Array | Float64Array {
    const { shape, descr } = this.header;
    const where = (index: number): string => placeOf(from * width + index, { shape, fortranOrder: false });
    try {
      return decodeNumbers(bytes, descr, where);
    } catch (error) {
      throw refusal(this.path, error);
    }
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

function refusal(path: string, error: unknown): unknown {
  if (error instanceof InputError) return new InputError(`${path}: ${error.message}`, { cause: error.cause });
  if (error instanceof DeldotError) return new DeldotError(`${path}: ${error.message}`);
  if (typeof (error as NodeJS.ErrnoException).code !== "string") return error;
  return new InputError(`${path}: ${describeSystemError(error)}; expected a file that can be read`, { cause: error });
}

async function readFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  const read = await readUpTo(handle, bytes, position);
  // Its size agreed with its header when it was opened.
  if (read < bytes.length)
    throw new DeldotError(`it ends ${bytes.length - read} bytes early; expected it to stay as it is while it is read`);
}

/** The system takes no more at a time than a signed whole number of 32 bits. */
const mostAtOnce = 2 ** 30;

/** Fills `bytes` from a place in a file. @returns how many there are before its end. */
export async function readUpTo(handle: FileHandle, bytes: Uint8Array, position: number): Promise<number> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesRead } = await handle.read(bytes, done, Math.min(mostAtOnce, bytes.length - done), position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}
