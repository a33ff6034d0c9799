import type { Floats, Halves } from "../typedArrays.js";

/** A shader ready to be compiled. What it reads is told by its own text, so nothing is kept in step by hand. */
export interface Kernel {
  readonly label: string;
  readonly source: string;
  /** The members of its struct Parameters, all u32, in order; binding 0 is their uniform block. */
  readonly parameters: readonly string[];
  /** Its buffers, from binding 1 on. */
  readonly storage: readonly { readonly name: string; readonly access: "read" | "read_write" }[];
  /** What its buffer `weights` holds, where it has one of its own. */
  readonly weights?: Floats | Halves;
}
