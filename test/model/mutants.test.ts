/**
 * Mutants of model files: 300 of each kind here, `npm run fuzz` asks for 10^5. DELDOT_MUTANTS is how many, DELDOT_SEED the first
 * seed; a failure names the one that makes it again.
 */
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { DeldotError, evaluateReference, explainPlan, parseOnnx, parseSafetensors, type Network } from "../../src/index.js";
import { expectClose } from "../close.js";
import { random } from "../random.js";
import { mutatedOnnx, mutatedSafetensors, renamedOnnx } from "./mutants.js";

const count = Number(process.env["DELDOT_MUTANTS"] ?? 300);
const firstSeed = Number(process.env["DELDOT_SEED"] ?? 1);
const timeout = 60_000 + 100 * count;

/** Bytes and milliseconds of the processor that a file may take: a limit of the fuzzer, which runs alone, not of the tests. */
const isAlone = count > 1000;
const MOST_MILLISECONDS = 1000;
const MOST_BYTES = 300 * 2 ** 20;

function filesOf(ending: string): Uint8Array[] {
  return ["../vectors/", "../architectures/", "../cases/"].flatMap((folder) => {
    const at = new URL(folder, import.meta.url);
    return readdirSync(at, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(ending))
      .map((name) => readFileSync(new URL(name, at)));
  });
}

/** Reads mutants of the files: each is a network that can be planned, or an error of the package. Gives how many are networks. */
function readMutants(
  files: readonly Uint8Array[],
  mutant: (file: Uint8Array, uniform: () => number) => Uint8Array,
  read: (file: Uint8Array) => Network,
): number {
  let accepted = 0;
  for (let seed = firstSeed; seed < firstSeed + count; seed++) {
    const uniform = random(seed);
    const file = mutant(files[Math.floor(uniform() * files.length)]!, uniform);
    const [began, before] = [process.cpuUsage(), process.resourceUsage().maxRSS];
    try {
      explainPlan(read(file));
      accepted++;
    } catch (error) {
      if (!(error instanceof DeldotError)) throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
    }
    if (!isAlone) continue;
    const { user, system } = process.cpuUsage(began);
    const milliseconds = (user + system) / 1000;
    const bytes = 1024 * (process.resourceUsage().maxRSS - before);
    if (milliseconds > MOST_MILLISECONDS || bytes > MOST_BYTES) expect.fail(`seed ${seed} took ${milliseconds} ms and ${bytes} bytes`);
  }
  return accepted;
}

test("mutants of ONNX are networks or errors of the package", { timeout }, () => {
  const accepted = readMutants(filesOf(".onnx"), mutatedOnnx, parseOnnx);
  expect(accepted).toBeGreaterThan(count / 10);
  expect(accepted).toBeLessThan(count * 0.9);
});

test("mutants of safetensors are networks or errors of the package", { timeout }, () => {
  const accepted = readMutants(filesOf(".safetensors"), mutatedSafetensors, (file) => parseSafetensors(file, { activation: "tanh" }));
  expect(accepted).toBeGreaterThan(0);
  expect(accepted).toBeLessThan(count * 0.9);
});

/** Without an answer to what the file leaves open. */
function isReadAlone(file: Uint8Array): boolean {
  try {
    parseOnnx(file);
    return true;
  } catch {
    return false;
  }
}

test("other names and orders in ONNX make no other numbers", { timeout }, () => {
  const files = filesOf(".onnx").filter(isReadAlone);
  const rounds = Math.min(count, 2000);
  for (let seed = firstSeed; seed < firstSeed + rounds; seed++) {
    const uniform = random(seed);
    const file = files[Math.floor(uniform() * files.length)]!;
    const [original, renamed] = [parseOnnx(file), parseOnnx(renamedOnnx(file, uniform))];
    const points = Array.from({ length: original.stateSize }, () => uniform() - 0.5);
    const context = original.contextSize > 0 ? Array.from({ length: original.contextSize }, uniform) : null;
    const results = [original, renamed].map((network) => evaluateReference(network, points, { context }));
    for (const output of ["value", "divergence"] as const)
      expectClose(
        results[1]![output]!,
        results[0]![output]!,
        results[0]![output]!.map((number) => 1 + Math.abs(number)),
        { relative: 1e-10, absolute: 0, label: `seed ${seed}: ${output}` },
      );
  }
});
