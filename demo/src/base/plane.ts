/** A plane through state space, and the part of it that is looked at. */

/** x = origin + a u + b v, with u and v of length 1 and perpendicular. [d] each. */
export interface Plane {
  readonly origin: readonly number[];
  readonly u: readonly number[];
  readonly v: readonly number[];
  /** What a and b are called on the axes. */
  readonly names: readonly [string, string];
}

/** The middle of the picture in (a, b), and the width of it. */
export interface View {
  readonly a: number;
  readonly b: number;
  readonly width: number;
}

/** A size in pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** The plane of two coordinates; the others stay as they are in `rest`. */
export function axesPlane(d: number, i: number, j: number, rest: readonly number[]): Plane {
  const unit = (axis: number): number[] => Array.from({ length: d }, (_, k) => (k === axis ? 1 : 0));
  const origin = Array.from({ length: d }, (_, k) => (k === i || k === j ? 0 : (rest[k] ?? 0)));
  return { origin, u: unit(i), v: unit(j), names: [`x${subscript(i)}`, `x${subscript(j)}`] };
}

/** The plane through three points: the first one is its origin, u leads to the second. */
export function planeThrough(points: readonly (readonly number[])[], names: readonly [string, string]): Plane {
  const [first, second, third] = points as [number[], number[], number[]];
  const { u, v } = orthonormal(minus(second, first), minus(third, first));
  return { origin: first, u, v, names };
}

/** A plane in a random direction through `origin`. */
export function randomPlane(origin: readonly number[], seed: number): Plane {
  const next = normals(seed);
  const draw = (): number[] => origin.map(() => next());
  return { origin, ...orthonormal(draw(), draw()), names: ["a", "b"] };
}

export function pointOn({ origin, u, v }: Plane, a: number, b: number): number[] {
  return origin.map((x, k) => x + a * u[k]! + b * v[k]!);
}

/** The coordinates on the plane of the point that is nearest to x. */
export function onPlane({ origin, u, v }: Plane, x: readonly number[]): [number, number] {
  const from = minus(x, origin);
  return [dot(from, u), dot(from, v)];
}

/** (a, b) of a place in a picture; y counts downwards, b upwards. */
export function atPixel(view: View, size: Size, x: number, y: number): [number, number] {
  const step = view.width / size.width;
  return [view.a + (x - size.width / 2) * step, view.b - (y - size.height / 2) * step];
}

export function toPixel(view: View, size: Size, a: number, b: number): [number, number] {
  const step = view.width / size.width;
  return [(a - view.a) / step + size.width / 2, (view.b - b) / step + size.height / 2];
}

/** The points [rows * columns, d] at the middles of a grid's cells, row by row from the top. */
export function gridPoints(plane: Plane, view: View, { columns, rows }: { columns: number; rows: number }, aspect: number): Float32Array {
  const { origin, u, v } = plane;
  const d = origin.length;
  const points = new Float32Array(columns * rows * d);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const a = view.a + ((column + 0.5) / columns - 0.5) * view.width;
      const b = view.b - ((row + 0.5) / rows - 0.5) * view.width * aspect;
      const at = (row * columns + column) * d;
      for (let k = 0; k < d; k++) points[at + k] = origin[k]! + a * u[k]! + b * v[k]!;
    }
  return points;
}

/** A generator of standard normal numbers: mulberry32 and the Box-Muller transform. */
export function normals(seed: number): () => number {
  const uniform = uniforms(seed);
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

export function uniforms(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function subscript(index: number): string {
  return String(index).replaceAll(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[Number(digit)]!);
}

function orthonormal(first: readonly number[], second: readonly number[]): { u: number[]; v: number[] } {
  const u = scaled(first, 1 / (Math.hypot(...first) || 1));
  const across = minus(second, scaled(u, dot(second, u)));
  return { u, v: scaled(across, 1 / (Math.hypot(...across) || 1)) };
}

const minus = (x: readonly number[], y: readonly number[]): number[] => x.map((value, k) => value - y[k]!);
const scaled = (x: readonly number[], factor: number): number[] => x.map((value) => value * factor);
const dot = (x: readonly number[], y: readonly number[]): number => x.reduce((sum, value, k) => sum + value * y[k]!, 0);
