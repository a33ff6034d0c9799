import { fail } from "./decode.js";

/**
 * Counts the numbers that reading a file makes and looks at, so that a small file cannot ask for a large amount of memory or
 * work: a width or a shape costs its author a few bytes. Files of trained networks need half a number for each of their bytes.
 */
export class Budget {
  private readonly bytes: number;
  private left: number;
  private readonly limit: number;

  /** @param bytes the file's size */
  constructor(bytes: number) {
    this.bytes = bytes;
    this.limit = 2 ** 20 + 2 * bytes;
    this.left = this.limit;
  }

  take(numbers: number): void {
    this.left -= numbers;
    if (!(this.left >= 0))
      fail(`the graph needs more than ${this.limit} numbers for its constants; expected less of a file of ${this.bytes} bytes`);
  }

  /** Takes a length and gives it back, for an allocation. */
  taken(length: number): number {
    this.take(length);
    return length;
  }
}
