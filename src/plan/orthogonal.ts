/**
 * Probes that are orthogonal to one another: rows of the Hadamard matrix of N = 2^n ≥ d columns, H[r][i] = (-1)^|r & i|, cut to d
 * columns and multiplied by one vector of random signs. All N of them together have the mean vᵀ J v = tr J, so that K of them are a
 * sample without replacement, whose variance is (N - K) / (N - 1) times that of K independent ones.
 *
 * Which rows: the k-th is r = a k, a product in the field of N elements, with a random a ≠ 0. Then r ^ s of two of them is uniform over all
 * that are not 0, which is as good for the variance as any choice at random.
 */
export interface Draws {
  /** How many probes of a point are orthogonal to one another before the next ones are drawn anew: N, or 1 where all are independent. */
  readonly population: number;
  /** An irreducible polynomial of degree n over the field of two elements, its coefficients as bits. */
  readonly polynomial: number;
}

/** By their degrees. */
const polynomials: number[] = [];

export function drawsOf(d: number, isOrthogonal: boolean): Draws {
  const degree = isOrthogonal ? 32 - Math.clz32(d - 1) : 0;
  return { population: 2 ** degree, polynomial: (polynomials[degree] ??= irreducible(degree)) };
}

/** How many probes of a point there are to draw from without replacement. */
export function populationOf(d: number, isOrthogonal: boolean): number {
  return isOrthogonal ? drawsOf(d, true).population : Infinity;
}

/** The product of two elements of the field: polynomials modulo an irreducible one. */
export function multiplyInField(a: number, b: number, { population, polynomial }: Draws): number {
  let product = 0;
  let power = a;
  for (let rest = b; rest > 0; rest >>>= 1) {
    if (rest & 1) product ^= power;
    power <<= 1;
    if (power >= population) power ^= polynomial;
  }
  return product;
}

/** Whether a whole number has an odd number of bits that are 1. */
export function isOdd(bits: number): boolean {
  let odd = false;
  for (let rest = bits; rest !== 0; rest &= rest - 1) odd = !odd;
  return odd;
}

/** The least polynomial of so high a degree that no polynomial of a lower one divides. */
function irreducible(degree: number): number {
  for (let candidate = 2 ** degree; ; candidate++) {
    let divides = false;
    for (let divisor = 2; divisor < 2 ** (Math.floor(degree / 2) + 1) && !divides; divisor++) divides = remainder(candidate, divisor) === 0;
    if (!divides) return candidate;
  }
}

function remainder(dividend: number, divisor: number): number {
  let rest = dividend;
  for (let shift = Math.clz32(divisor) - Math.clz32(rest); shift >= 0; shift = Math.clz32(divisor) - Math.clz32(rest))
    rest ^= divisor << shift;
  return rest;
}
