/**
 * One line of the table: one peer, one way, one case, in a process of its own, so that a crash or a hang costs this line
 * alone. deldot is measured in the same process, in turns with the peer: whatever slows the machine slows both.
 */
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { offerWebgpu } from "./adapter.js";
import { openDeldot } from "./deldot.js";
import { cases, makeProblem } from "./networks.js";
import type { Call, Store } from "./peer.js";
import { peers } from "./peers.js";
import { judge, type Truth, type Verdict } from "./truth.js";

/** What a child is told. */
export interface Job {
  readonly peer: string;
  readonly way: string;
  readonly case: string;
  /** The file of the truth, as main.ts wrote it. */
  readonly truth: string;
  /** Where deldot keeps what it learnt. */
  readonly folder: string;
  /** Milliseconds, after which no more calls are measured. */
  readonly budget: number;
}

/** What a child says. */
export type Message =
  | { readonly kind: "first call"; readonly milliseconds: number }
  | { readonly kind: "failure"; readonly message: string }
  | ({ readonly kind: "report" } & Report);

/** What came of a line. Where the answer is wrong, or WebGPU complained, nothing was timed. */
export interface Report {
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

const LEAST_ROUNDS = 7;
const LEAST_MILLISECONDS = 2000;
/** Milliseconds. */
const LONG = 5000;
/** So that no call finds the machine busy with what another left behind: threads that spin, memory to free. */
const PAUSE = 10;

const job = JSON.parse(process.argv[2]!) as Job;
const peer = peers.find(({ name }) => name === job.peer)!;
const problem = makeProblem(cases.find(({ name }) => name === job.case)!);
const truth = await readTruth();

await measure().then(
  (report) => process.send!({ kind: "report", ...report } satisfies Message),
  (error: unknown) => process.send!({ kind: "failure", message: error instanceof Error ? error.message : String(error) } satisfies Message),
);

async function measure(): Promise<Report> {
  const store = fileStore(job.folder);
  const { adapters, errors } = offerWebgpu();
  const call = await peer.prepare(job.way, problem, store);
  const verdicts: Verdict[] = [];
  const times: number[] = [];
  const measurePeer = async (): Promise<void> => {
    const { answer, milliseconds } = await time(call);
    verdicts.push(judge(answer, truth));
    times.push(milliseconds);
  };
  await measurePeer();
  process.send!({ kind: "first call", milliseconds: times[0]! } satisfies Message);
  // The first call compiles, and a second may still settle; where one takes long, that no longer shows.
  if (times[0]! < LONG) await measurePeer();
  times.length = 0;
  const adapter = adapters[0] ?? null;
  const encodeTimes: number[] = [];
  const evaluateTimes: number[] = [];
  const report = (): Report => {
    const verdict = verdicts.find(({ wrong }) => wrong) ?? verdicts.reduce((worst, next) => (next.error > worst.error ? next : worst));
    return { times, encodeTimes, evaluateTimes, verdict, adapter, errors };
  };
  if (report().verdict.wrong || errors.length > 0) return report();

  const { encode, evaluate } = await openDeldot(problem, store, ["divergence"]);
  for (const warmUp of [encode, encode, evaluate, evaluate]) {
    const { wrong } = judge(await warmUp(), truth);
    if (wrong) throw new Error(`deldot's own answer is wrong: ${wrong}`);
  }

  const start = performance.now();
  for (let round = 1, elapsed = 0; elapsed < job.budget; round++) {
    await measurePeer();
    encodeTimes.push((await time(encode)).milliseconds);
    evaluateTimes.push((await time(evaluate)).milliseconds);
    elapsed = performance.now() - start;
    if (round >= LEAST_ROUNDS && elapsed >= LEAST_MILLISECONDS) break;
  }
  return report();
}

async function time(call: Call): Promise<{ answer: ArrayLike<number>; milliseconds: number }> {
  await new Promise((resolve) => setTimeout(resolve, PAUSE));
  const start = performance.now();
  const answer = await call();
  return { answer, milliseconds: performance.now() - start };
}

async function readTruth(): Promise<Truth> {
  const { buffer, byteOffset, byteLength } = await readFile(job.truth);
  const numbers = new Float64Array(buffer.slice(byteOffset, byteOffset + byteLength));
  return { divergence: numbers.subarray(1), scale: numbers[0]! };
}

/** deldot tunes itself once per case, not once per child. */
function fileStore(folder: string): Store {
  const file = (key: string): string => join(folder, createHash("sha256").update(key).digest("hex"));
  return {
    get: (key) => readFile(file(key), "utf8").catch(() => null),
    set: (key, value) => writeFile(file(key), value),
  };
}
