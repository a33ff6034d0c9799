import { mulberry32 } from "./samples.js";

/**
 * Whether a function has this value very near `here` and jumps on the way there. The jump must stay while the way is halved again
 * and again: a steep slope does not, and a wrong value has no such neighbour.
 */
export function jumpsTo(
  value: number,
  reference: (x: Float64Array) => number,
  here: Float64Array,
  tolerance: number,
  seed: number,
): boolean {
  const reach = 1e-5;
  const directions = 32;
  const halvings = 24;
  const uniform = mulberry32(seed);
  const valueHere = reference(here);
  for (let direction = 0; direction < directions; direction++) {
    let near = here;
    let far = here.map((x) => x + reach * (1 + Math.abs(x)) * (2 * uniform() - 1));
    let [valueNear, valueFar] = [valueHere, reference(far)];
    if (!(Math.abs(value - valueFar) <= tolerance)) continue;
    for (let halving = 0; halving < halvings; halving++) {
      const middle = near.map((x, i) => (x + far[i]!) / 2);
      const valueMiddle = reference(middle);
      if (Math.abs(valueMiddle - valueNear) > Math.abs(valueFar - valueMiddle)) [far, valueFar] = [middle, valueMiddle];
      else [near, valueNear] = [middle, valueMiddle];
    }
    if (Math.abs(valueFar - valueNear) > tolerance / 2) return true;
  }
  return false;
}
