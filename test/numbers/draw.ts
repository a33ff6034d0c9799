import { random } from "../random.js";

/** Draws, the same for the same seed. */
export class Draw {
  private readonly uniform: () => number;

  constructor(seed: number) {
    this.uniform = random(seed);
  }

  /** Uniform in [from, to). */
  between(from: number, to: number): number {
    return from + (to - from) * this.uniform();
  }

  /** A whole number, `from` and `to` among them. */
  integer(from: number, to: number): number {
    return from + Math.floor(this.uniform() * (to - from + 1));
  }

  /** A whole number whose logarithm is about uniform: small ones are as likely as large ones. */
  size(from: number, to: number): number {
    return Math.min(to, Math.floor(Math.exp(this.between(Math.log(from), Math.log(to + 1)))));
  }

  chance(probability: number): boolean {
    return this.uniform() < probability;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.integer(0, list.length - 1)]!;
  }

  /** One of the list, as often as its weight says. */
  weighted<T extends { readonly weight: number }>(list: readonly T[]): T {
    let left = this.between(
      0,
      list.reduce((sum, { weight }) => sum + weight, 0),
    );
    return list.find(({ weight }) => (left -= weight) < 0) ?? list.at(-1)!;
  }

  /** Float32 numbers uniform in ±scale. */
  numbers(count: number, scale: number): Float32Array {
    return Float32Array.from({ length: count }, () => this.between(-scale, scale));
  }
}
