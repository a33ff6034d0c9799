/** Points of two moons, x0 and x1 in a line, into a file: `tsx test/demo/twoMoons.ts points.csv 10000`. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

const radius = 1.3;
const deviation = 0.1;

/** A small seeded generator of uniform numbers in [0, 1), mulberry32. */
let state = 1;
function uniform(): number {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

/** Box and Muller: 1 - uniform() is never 0. */
function normal(): number {
  return Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** On one of two half circles, each with an end within the other, and a normal step off it. */
function point(): string {
  const angle = Math.PI * uniform();
  const [x, y] = uniform() < 0.5 ? [Math.cos(angle), Math.sin(angle)] : [1 - Math.cos(angle), 0.5 - Math.sin(angle)];
  return [x - 0.5, y - 0.25].map((each) => (radius * each + deviation * normal()).toFixed(6)).join(",");
}

const [path, count] = process.argv.slice(2);
if (path === undefined) throw new Error("twoMoons.ts is given no file; expected the name of a .csv and how many points");
mkdirSync(dirname(path), { recursive: true });
writeFileSync(path, `x0,x1\n${Array.from({ length: Number(count) }, point).join("\n")}\n`);
