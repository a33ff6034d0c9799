/**
 * One line of the table: one peer, one way, one case. deldot is measured in the same process, in turns with the peer:
 * whatever slows the machine slows both.
 */
import { readFile } from "node:fs/promises";
import { offerWebgpu } from "./adapter.js";
import { openDeldot } from "./deldot.js";
import type { Kernels } from "./peer.js";
import { cases, makeProblem } from "./networks.js";
import type { Call } from "./peer.js";
import { peers } from "./peers.js";
import { readJob, work } from "./process.js";
import { judge, type Truth, type Verdict } from "./truth.js";

export interface LineJob {
  readonly peer: string;
  readonly way: string;
  readonly case: string;
  /** A file of float64: the truth's scale, and its divergences. */
  readonly truth: string;
  readonly kernels: Kernels;
}

/** Where the answer is wrong, or WebGPU complained, nothing was timed. */
export interface LineReport {
  /** Milliseconds of each call. */
  readonly times: readonly number[];
  /** deldot's, in turns with them. */
  readonly encodeTimes: readonly number[];
  readonly evaluateTimes: readonly number[];
  /** On the worst of all answers. */
  readonly verdict: Verdict;
  /** Where the peer ran; null where it does not say. */
  readonly adapter: string | null;
  /** WebGPU's complaints about the peer. */
  readonly errors: readonly string[];
}

const LEAST_ROUNDS = 5;
const LEAST_MILLISECONDS = 2000;
const MOST_MILLISECONDS = 20_000;
/** A first call compiles, and a second may still settle; in one this long, in milliseconds, that no longer shows. */
const LONG = 5000;
/** So that no call finds the machine busy with what another left behind: threads that spin, memory to free. */
const PAUSE = 10;

const job = readJob() as LineJob;

await work(async (tell): Promise<LineReport> => {
  const problem = makeProblem(cases.find(({ name }) => name === job.case)!);
  const truth = await readTruth(job.truth);
  const { adapters, errors } = offerWebgpu();
  const call = await peers.find(({ name }) => name === job.peer)!.prepare(job.way, problem, job.kernels);

  const verdicts: Verdict[] = [];
  const timePeer = async (): Promise<number> => {
    const { answer, milliseconds } = await time(call);
    verdicts.push(judge(answer, truth));
    return milliseconds;
  };
  tell("in the first call");
  const first = await timePeer();
  tell(`the first call took ${(first / 1000).toFixed(1)} s`);
  if (first < LONG) await timePeer();
  // From here on devices are opened for deldot too.
  const adapter = adapters[0] ?? null;

  const [times, encodeTimes, evaluateTimes]: [number[], number[], number[]] = [[], [], []];
  const report = (): LineReport => {
    const verdict = verdicts.find(({ wrong }) => wrong) ?? verdicts.reduce((worst, next) => (next.error > worst.error ? next : worst));
    return { times, encodeTimes, evaluateTimes, verdict, adapter, errors };
  };
  if (report().verdict.wrong || errors.length > 0) return report();

  const { encode, evaluate } = await openDeldot(problem, ["divergence"], job.kernels.divergence);
  for (const warmUp of [encode, encode, evaluate, evaluate]) {
    const { wrong } = judge(await warmUp(), truth);
    if (wrong) throw new Error(`deldot's own answer is wrong: ${wrong}`);
  }

  const start = performance.now();
  for (let round = 1, elapsed = 0; elapsed < MOST_MILLISECONDS; round++) {
    times.push(await timePeer());
    encodeTimes.push((await time(encode)).milliseconds);
    evaluateTimes.push((await time(evaluate)).milliseconds);
    elapsed = performance.now() - start;
    if (round >= LEAST_ROUNDS && elapsed >= LEAST_MILLISECONDS) break;
  }
  return report();
});

async function time(call: Call): Promise<{ answer: ArrayLike<number>; milliseconds: number }> {
  await new Promise((resolve) => setTimeout(resolve, PAUSE));
  const start = performance.now();
  const answer = await call();
  return { answer, milliseconds: performance.now() - start };
}

async function readTruth(file: string): Promise<Truth> {
  const { buffer, byteOffset, byteLength } = await readFile(file);
  const numbers = new Float64Array(buffer.slice(byteOffset, byteOffset + byteLength));
  return { divergence: numbers.subarray(1), scale: numbers[0]! };
}
