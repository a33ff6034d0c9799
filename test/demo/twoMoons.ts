/** Points of two moons; and, x0 and x1 in a line, into a file: `tsx test/demo/twoMoons.ts points.csv 10000`. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { normal } from "../fields.js";
import { random } from "../random.js";

const radius = 1.3;
const deviation = 0.1;

/** [count, 2], each on one of two half circles, which have an end within the other, and a normal step off it. */
export function twoMoons(count: number, seed = 1): Float64Array {
  const uniform = random(seed);
  const points = Array.from({ length: count }, () => {
    const angle = Math.PI * uniform();
    const [x, y] = uniform() < 0.5 ? [Math.cos(angle), Math.sin(angle)] : [1 - Math.cos(angle), 0.5 - Math.sin(angle)];
    return [x - 0.5, y - 0.25].map((each) => radius * each + deviation * normal(uniform));
  });
  return Float64Array.from(points.flat());
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [path, count] = process.argv.slice(2);
  if (path === undefined) throw new Error("twoMoons.ts is given no file; expected the name of a .csv and how many points");
  const points = twoMoons(Number(count));
  const lines = Array.from({ length: points.length / 2 }, (_, i) => `${points[2 * i]!.toFixed(6)},${points[2 * i + 1]!.toFixed(6)}\n`);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `x0,x1\n${lines.join("")}`);
}
