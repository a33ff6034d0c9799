/** Points of a disc of radius 1 with weights that add up to 1: a mean over the disc is their weighted sum. */
export interface DiscPoint {
  readonly x: number;
  readonly y: number;
  readonly weight: number;
}

/** Gauss and Legendre's rule in the square of the radius, which areas are even in, and the trapezoidal rule around. */
export function quadrature(radii: number, angles: number): readonly DiscPoint[] {
  return gaussLegendre(radii).flatMap(({ at, weight }, ring) =>
    Array.from({ length: angles }, (_, index) => {
      // Every other ring is turned by half a step.
      const angle = (2 * Math.PI * (index + (ring % 2) / 2)) / angles;
      const radius = Math.sqrt((1 + at) / 2);
      return { x: radius * Math.cos(angle), y: radius * Math.sin(angle), weight: weight / 2 / angles };
    }),
  );
}

/** Nodes between -1 and 1 and their weights, by Newton's method on Legendre's polynomial. */
function gaussLegendre(count: number): readonly { readonly at: number; readonly weight: number }[] {
  return Array.from({ length: count }, (_, index) => {
    let at = Math.cos((Math.PI * (index + 0.75)) / (count + 0.5));
    let slope = 1;
    for (let round = 0; round < 20; round++) {
      let [before, now] = [1, at];
      for (let k = 2; k <= count; k++) [before, now] = [now, ((2 * k - 1) * at * now - (k - 1) * before) / k];
      slope = (count * (at * now - before)) / (at * at - 1);
      at -= now / slope;
    }
    return { at, weight: 2 / ((1 - at * at) * slope * slope) };
  });
}
