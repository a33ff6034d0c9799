/**
 * Draws random evaluations over all families of kernels and holds them to the float64 reference.
 *
 *   npm run fuzz:numbers -- --seed 1 --count 10000
 *
 * Seeds count up from the first; each is a network with some calls, until there are as many evaluations as asked for. A
 * failure names the seed that gives it alone: --seed 123 --count 1. --kernels "layers 8x16" draws one family alone, and its
 * seeds are others; --tuned is how often a small field is tuned first.
 */
import { parseArgs } from "node:util";
import { requestDevice } from "../../src/node/index.js";
import { runCase } from "./cases.js";
import { familiesOf } from "./families.js";
import { Tally } from "./tally.js";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    count: { type: "string", default: "1000" },
    tuned: { type: "string", default: "0.002" },
    kernels: { type: "string" },
  },
});
const [start, count, tuned] = [values.seed, values.count, values.tuned].map(Number) as [number, number, number];
if (!Number.isInteger(start) || !(count >= 1) || !(tuned >= 0))
  throw new Error(`--seed ${values.seed} --count ${values.count}: expected whole numbers`);

/** A device keeps every pipeline it has compiled. */
const CASES_PER_DEVICE = 60;
const PROGRESS_SECONDS = 20;

const tally = new Tally();
let seed = start;
let reported = performance.now();
while (tally.count < count) {
  const { device, description, dispose } = await requestDevice();
  if (seed === start) console.log(description);
  // What WebGPU reports here belongs to no call, and is still an error of the seed that runs.
  const stray: string[] = [];
  device.addEventListener("uncapturederror", ({ error }) => stray.push(error.message));
  const families = familiesOf(device).filter(({ kernels }) => values.kernels === undefined || kernels === values.kernels);
  if (families.length === 0)
    throw new Error(
      `--kernels "${values.kernels}": expected one of ${familiesOf(device)
        .map(({ kernels }) => `"${kernels}"`)
        .join(", ")}`,
    );
  for (let cases = 0; cases < CASES_PER_DEVICE && tally.count < count; cases++, seed++) {
    const done = await runCase(device, families, seed, { tuned, fused: 0.4 });
    for (const failure of [...done.flatMap((evaluation) => evaluation.failure ?? []), ...stray.splice(0)]) {
      tally.failures++;
      console.log(`seed ${seed}: ${failure}`);
    }
    tally.add(done);
    if (performance.now() - reported > 1000 * PROGRESS_SECONDS) {
      reported = performance.now();
      console.log(`... seed ${seed}, ${tally.count} evaluations, ${tally.failures} failures`);
    }
  }
  await dispose();
}
console.log(tally.table());
console.log(`${tally.count} evaluations of the seeds ${start} to ${seed - 1}, ${tally.failures} failures; --seed ${seed} goes on`);
process.exitCode = tally.failures > 0 ? 1 : 0;
