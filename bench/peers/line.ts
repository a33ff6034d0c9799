/**
 * One line of the table: one peer, one way, one case. deldot is measured in the same process, in turns with the peer:
 * whatever slows the machine slows both.
 */
import { readFile } from "node:fs/promises";
import { deserialize } from "node:v8";
import { offerWebgpu } from "./adapter.js";
import type { Case } from "./networks.js";
import type { Answer, Call, Kernels, Peer } from "./peer.js";
import { readJob, work } from "./process.js";
import { quantile } from "./quantile.js";
import { tasks } from "./tasks.js";
import { judge, withoutValues, type Truth, type Verdict } from "./truth.js";

export interface LineJob {
  readonly task: string;
  readonly peer: string;
  readonly way: string;
  readonly case: Case;
  /** A file of it, serialized. */
  readonly truth: string;
  readonly kernels: Kernels;
}

/** Where the answer is wrong, or WebGPU complained, nothing was timed. */
export interface LineReport {
  /** Milliseconds of a call, or of a step of it, in each round. */
  readonly times: readonly number[];
  /** deldot's, in the same rounds: of each of the task's baselines. */
  readonly baselineTimes: readonly (readonly number[])[];
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
/** Milliseconds in which short calls are repeated; the first of them wakes threads and fills caches, and does not count. */
const BLOCK = 60;

const job = readJob() as LineJob;
const { steps = 1 } = job.case;

await work(async (tell): Promise<LineReport> => {
  const { makeProblem, peers, baselines, goesOn } = tasks.find(({ name }) => name === job.task)!;
  const problem = makeProblem(job.case);
  const truth = deserialize(await readFile(job.truth)) as Truth;
  const judgeWay = ({ ways }: Peer, way: string, answer: Answer, isFirst: boolean): Verdict => {
    const { tensor = null } = ways.find(({ name }) => name === way)!;
    const asked = truth.filter(({ name }) => tensor === null || name === tensor);
    return judge(answer, isFirst || !goesOn ? asked : asked.map(withoutValues));
  };
  const { adapters, errors } = offerWebgpu();
  const peer = peers.find(({ name }) => name === job.peer)!;
  const call = await peer.prepare(job.way, problem, job.kernels);

  const verdicts: Verdict[] = [];
  const timePeer = async (): Promise<number> => {
    const { answer, milliseconds } = await time(call);
    verdicts.push(judgeWay(peer, job.way, answer, false));
    return milliseconds;
  };
  tell("in the first call");
  const begun = performance.now();
  // What goes on has the truth's numbers in its first call alone.
  verdicts.push(judgeWay(peer, job.way, await call(), true));
  const first = performance.now() - begun;
  tell(`the first call took ${(first / 1000).toFixed(1)} s`);
  if (first < LONG) await timePeer();
  // From here on devices are opened for deldot too.
  const adapter = adapters[0] ?? null;

  const times: number[] = [];
  const baselineTimes: number[][] = baselines.map(() => []);
  const report = (): LineReport => {
    const verdict = verdicts.find(({ wrong }) => wrong) ?? verdicts.reduce((worst, next) => (next.error > worst.error ? next : worst));
    return { times, baselineTimes, verdict, adapter, errors };
  };
  if (report().verdict.wrong || errors.length > 0) return report();

  const baselineCalls: Call[] = [];
  for (const way of baselines) {
    const baseline = await peers[0]!.prepare(way, problem, job.kernels);
    for (let warmUp = 0; warmUp < 2; warmUp++) {
      const { wrong } = judgeWay(peers[0]!, way, await baseline(), warmUp === 0);
      if (wrong) throw new Error(`deldot's own answer is wrong: ${wrong}`);
    }
    baselineCalls.push(baseline);
  }

  const start = performance.now();
  for (let round = 1, elapsed = 0; elapsed < MOST_MILLISECONDS; round++) {
    times.push(await timePeer());
    for (const [index, baseline] of baselineCalls.entries()) baselineTimes[index]!.push((await time(baseline)).milliseconds);
    elapsed = performance.now() - start;
    if (round >= LEAST_ROUNDS && elapsed >= LEAST_MILLISECONDS) break;
  }
  return report();
});

/** Of one call: the median of a block of them where they are short. */
async function time(call: Call): Promise<{ answer: Answer; milliseconds: number }> {
  await new Promise((resolve) => setTimeout(resolve, PAUSE));
  const start = performance.now();
  const times: number[] = [];
  for (let begin = start; ;) {
    const answer = await call();
    const now = performance.now();
    times.push(now - begin);
    begin = now;
    if (now - start >= BLOCK) return { answer, milliseconds: quantile(times.slice(times.length > 1 ? 1 : 0), 0.5) / steps };
  }
}
