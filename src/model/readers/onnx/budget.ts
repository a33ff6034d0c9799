import { ModelError } from "../../../errors.js";

/** More fields than any network's file has in its nodes, names and shapes: each takes far more memory than bytes of the file. */
const maximumFields = 2 ** 18;

/**
 * Counts the numbers that reading a file makes and looks at, so that a small file cannot ask for a large amount of memory or
 * work: a width or a shape costs its author a few bytes. What is freed again is counted all the same, since it took its time.
 * The limit, in numbers of 8 bytes, is 64 MiB and 32 times the file; a network that PyTorch exports needs 20 times its file at
 * most, and that where its weights are float16.
 */
export class Budget {
  private bytes: number;
  private left: number;
  private fields = 0;
  private limit: number;
  private readonly allowed = new Set<Uint8Array>();

  /** @param bytes the file's size */
  constructor(bytes: number) {
    this.bytes = bytes;
    this.limit = 2 ** 23 + 4 * bytes;
    this.left = this.limit;
  }

  take(numbers: number): void {
    this.left -= numbers;
    if (!(this.left >= 0))
      throw new ModelError(
        `onnx: the graph needs more than ${this.limit} numbers for its values and constants; expected less of a file of ${this.bytes} bytes`,
      );
  }

  /** Another file that belongs to the first, and counts as a part of it. */
  allow(file: Uint8Array): void {
    if (this.allowed.has(file)) return;
    this.allowed.add(file);
    this.bytes += file.length;
    this.limit += 4 * file.length;
    this.left += 4 * file.length;
  }

  /** Takes one field of a message that becomes an object or a text of its own. */
  takeField(): void {
    this.fields++;
    if (this.fields > maximumFields)
      throw new ModelError(`onnx: the file has more than ${maximumFields} nodes, names, attributes and shapes; expected fewer`);
  }

  /** Takes a length and gives it back, for an allocation. */
  taken(length: number): number {
    this.take(length);
    return length;
  }
}
