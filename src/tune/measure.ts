import { encodeSteps } from "../gpu/encode.js";
import { checked } from "../gpu/errors.js";
import { Results } from "../results.js";
import { makeRoom, run, startAnew, type Shared } from "../gpu/run.js";
import type { Inputs } from "../inputs.js";
import { runParametersOf } from "../plan/options.js";
import type { Plan } from "../plan/plan.js";
import { capacityOf, scheduleChunk } from "../schedule/capacity.js";
import type { Capacity, Chunk, Route, ScheduleLimits, Variant } from "../schedule/steps.js";
import type { Floats } from "../typedArrays.js";

/** A measurement shorter than this is repeated within one submission. */
const MEASURED_MILLISECONDS = 4;
/** The same for those that are close to the best, which are measured once more where they had less. */
const FINAL_MILLISECONDS = 16;
/** The plain kernels take about this long for the points that are measured. */
const PLAIN_MILLISECONDS = 30;
/** Enough that each variant meets the machine at its best once: others' work halves what a software adapter has. */
const ROUNDS = 8;
/** Slower than the best by this factor after two runs: not measured further. */
const HOPELESS = 2.5;
/** Slower than the best by no more than this after the rounds: measured for longer, before one of them is chosen for good. */
const CLOSE = 1.3;
/** Submissions of a long plan that are measured. */
const MOST_SUBMISSIONS = 4;

/** Points whose results are compared: more than the rows of any tile's workgroup, and no multiple of one. */
const COMPARED_POINTS = 1021;
/** Multiply-adds that are spent on it. */
const MOST_COMPARED = 2 ** 28;
/** Rounding in another order moves results by far less, a wrong column or a stale number by far more. */
const TOLERANCE = 1e-3;

/** A variant and how long it takes. */
export interface Measured {
  readonly variant: Variant;
  milliseconds: number;
  /** null where it failed, or differs. */
  chunk: Chunk | null;
  readonly differs: boolean;
}

/** Results of the plan at the points compared, and by what magnitude each is held to another's. */
interface Outcome {
  readonly results: Results;
  /** Σ|terms| of each point, before they cancel. */
  readonly sizes: Float64Array;
}

/** Runs variants of a plan on points of its own, in turn with the field's calls and in their scratch, so within their budget. */
export class Measurement {
  private count: number;
  private expected: Outcome | null = null;
  /** When these were the weights: see {@link Matrices.version}. */
  private expectedOf = -1;

  constructor(
    private readonly plan: Plan,
    private readonly most: number,
    private readonly sharedContext: boolean,
    private readonly shared: Shared,
  ) {
    this.count = Math.min(most, 1024);
  }

  get points(): number {
    return this.count;
  }

  /** Takes as many points as the plain kernels compute in a short while. @returns their milliseconds for each. */
  async begin(plain: Variant): Promise<number> {
    await this.time({ chunk: this.chunkOf(plain) }, 1);
    for (let attempt = 0; ; attempt++) {
      const chunk = this.chunkOf(plain);
      // The least of three: a GPU that was idle is slow at first.
      const milliseconds = Math.min(await this.time({ chunk }, 1), await this.time({ chunk }, 1), await this.time({ chunk }, 1));
      const { count } = this;
      if (milliseconds > PLAIN_MILLISECONDS / 2 || count === this.most || attempt === 4) return milliseconds / count;
      this.count = Math.min(this.most, Math.ceil(count * Math.min(8, PLAIN_MILLISECONDS / milliseconds)));
    }
  }

  /** The plain kernels, which others are held to. */
  async addPlain(plain: Variant): Promise<Measured> {
    await this.shared.gate.pass(() => this.expect(plain));
    return { variant: plain, milliseconds: Infinity, chunk: this.chunkOf(plain), differs: false };
  }

  /** The plain results by the weights as they are. */
  private async expect(plain: Variant): Promise<Outcome> {
    const { version } = this.shared.matrices;
    if (!this.expected || version !== this.expectedOf) [this.expected, this.expectedOf] = [await this.evaluate(plain), version];
    return this.expected;
  }

  /** Compares a compiled variant's results with the plain ones, and runs it once: some drivers finish compiling then. */
  async add(variant: Variant, plain: Variant): Promise<Measured> {
    const differs = await this.shared.gate.pass(async () => {
      const expected = await this.expect(plain);
      await this.forgetResults();
      return !agree(this.plan, expected, await this.evaluate(variant));
    });
    const measured = { variant, milliseconds: Infinity, chunk: differs ? null : this.chunkOf(variant), differs };
    if (!differs) await this.time(measured, 1);
    return measured;
  }

  /** The least time of each over some rounds, in turns, so that what else the machine does meets all of them. */
  async run(all: readonly Measured[]): Promise<void> {
    const able = all.filter(({ chunk }) => chunk);
    // The least capacity decides how many points all of them get.
    for (const { variant } of able) this.chunkOf(variant);
    for (const measured of able) {
      measured.chunk = this.chunkOf(measured.variant);
      measured.milliseconds = Math.min(await this.time(measured, 1), await this.time(measured, 1));
    }
    const hopeful = within(HOPELESS, able);
    await this.repeat(hopeful, MEASURED_MILLISECONDS);
    const close = within(CLOSE, hopeful);
    const isShort = close.some(({ milliseconds }) => milliseconds < FINAL_MILLISECONDS);
    if (close.length > 1 && isShort) await this.repeat(close, FINAL_MILLISECONDS);
  }

  /** The least time of each so far and over some rounds, in measurements of at least about so many milliseconds. */
  private async repeat(all: readonly Measured[], milliseconds: number): Promise<void> {
    const running = all.map((measured) => ({
      measured,
      repeats: Math.min(64, Math.max(1, Math.ceil(milliseconds / measured.milliseconds))),
    }));
    for (let round = 0; round < ROUNDS; round++)
      for (const { measured, repeats } of running)
        measured.milliseconds = Math.min(measured.milliseconds, (await this.time(measured, repeats)) / repeats);
  }

  private limits(): ScheduleLimits {
    const { limits, pace } = this.shared;
    return { ...limits, multiplyAddsPerSubmit: Math.max(2 ** 22, pace.multiplyAddsPerSubmit * 4) };
  }

  private capacityOf(variant: Variant): { limits: ScheduleLimits; route: Route; capacity: Capacity } {
    const limits = this.limits();
    const route: Route = { to: "host", sharedContext: this.sharedContext };
    return { limits, route, capacity: capacityOf(this.plan, limits, route, variant) };
  }

  /** At most `count` points by a variant; fewer where its capacity is less, from then on for all. */
  private chunkOf(variant: Variant): Chunk {
    const { limits, route, capacity } = this.capacityOf(variant);
    this.count = Math.min(this.count, capacity.points);
    return scheduleChunk(this.plan, runParametersOf({}), 0, this.count, capacity, limits, route, variant);
  }

  /** The plan's results at points of its own, by the way of every evaluation. */
  private async evaluate(variant: Variant): Promise<Outcome> {
    const { stateSize, contextSize } = this.plan.graph;
    const count = this.expected?.sizes.length ?? this.comparedPoints(variant);
    const inputs: Inputs = {
      count,
      shape: [count],
      stateSize,
      contextSize,
      points: wave(count * stateSize),
      context: contextSize > 0 ? { data: wave(contextSize * (this.sharedContext ? 1 : count)), ...this.contexts() } : null,
      tangents: null,
      valueCotangent: null,
      divergenceCotangent: null,
      nonFinite: new Uint8Array(count),
    };
    const results = new Results(this.plan, count);
    const sizes = new Float64Array(count);
    await run({ plan: this.plan, parameters: runParametersOf({}), variant }, inputs, this.shared, {}, (read, first, rows, data) => {
      results.take(read, first, rows, data);
      if (read.what !== "terms") return;
      for (let index = 0; index < data.length; index++) sizes[first + Math.floor(index / read.width)]! += Math.abs(data[index]!);
    });
    return { results, sizes };
  }

  /** What a variant does not write shall not lie there from the one before, and be right: new buffers hold zeros. */
  private async forgetResults(): Promise<void> {
    const { turns, watch, readback, scratch } = this.shared;
    const endTurn = await watch.guard(turns.take());
    try {
      await watch.guard(readback.idle());
      scratch.destroy();
    } finally {
      endTurn();
    }
  }

  /** Fewer where one takes long. */
  private comparedPoints(plain: Variant): number {
    const { limits, route, capacity } = this.capacityOf(plain);
    const { submissions } = scheduleChunk(this.plan, runParametersOf({}), 0, 1, capacity, limits, route, plain);
    const work = submissions.flatMap(({ steps }) => steps).reduce((sum, { multiplyAdds }) => sum + multiplyAdds, 0);
    return Math.min(COMPARED_POINTS, Math.ceil(MOST_COMPARED / Math.max(1, work)));
  }

  private contexts(): { shared: boolean; runs: readonly number[] | null } {
    return { shared: this.sharedContext, runs: this.sharedContext ? [0] : null };
  }

  /** Wall time in milliseconds of the chunk's first submissions, `repeats` times over. */
  private async time({ chunk }: Pick<Measured, "chunk">, repeats: number): Promise<number> {
    const { shared } = this;
    const { device, scratch, turns, watch, label, checkUsable } = shared;
    const endTurn = await watch.guard(turns.take());
    let failed = true;
    try {
      checkUsable();
      await makeRoom(chunk!, shared);
      await watch.guard(
        checked(device, label, () => {
          scratch.reserve(chunk!.scratch);
          for (const name of ["points", "context", "tangents"]) {
            const bytes = chunk!.scratch.get(name);
            if (bytes !== undefined) device.queue.writeBuffer(scratch.get(name), 0, wave(bytes / 4));
          }
        }),
      );
      const submissions = chunk!.submissions.slice(0, MOST_SUBMISSIONS);
      await watch.guard(device.queue.onSubmittedWorkDone());
      const begun = performance.now();
      await watch.guard(
        checked(device, label, () => {
          for (let repeat = 0; repeat < repeats; repeat++)
            for (const { steps } of submissions) {
              const encoder = device.createCommandEncoder({ label: `${label} tuning` });
              const pass = encoder.beginComputePass({ label: `${label} tuning` });
              encodeSteps(pass, steps, { ...shared, outer: {} });
              pass.end();
              device.queue.submit([encoder.finish()]);
            }
        }),
      );
      await watch.guard(device.queue.onSubmittedWorkDone());
      failed = false;
      return Math.max(0.001, performance.now() - begun);
    } finally {
      endTurn();
      if (failed) await startAnew(shared);
    }
  }
}

/** Whether two outcomes are the same but for rounding: each number by the largest of its kind, a sum by what was summed. */
export function agree(plan: Plan, expected: Outcome, given: Outcome): boolean {
  return plan.outputs.every((output) => {
    const [a, b] = [expected.results.arrays[output]!, given.results.arrays[output]!];
    // Where nothing is finite there is nothing that could tell them apart.
    if (!a.some(Number.isFinite)) return a.length === 0;
    const bound = TOLERANCE * largest(output === "divergence" ? expected.sizes : a);
    return a.every((value, index) => {
      const other = b[index]!;
      return Number.isFinite(value) === Number.isFinite(other) && !(Math.abs(value - other) > bound);
    });
  });
}

function largest(numbers: Iterable<number>): number {
  let most = 0;
  for (const value of numbers) if (Number.isFinite(value)) most = Math.max(most, Math.abs(value));
  return most;
}

/** The best, and what is slower by no more than a factor. */
function within(factor: number, all: readonly Measured[]): Measured[] {
  const best = Math.min(...all.map(({ milliseconds }) => milliseconds));
  return all.filter(({ milliseconds }) => milliseconds <= factor * best);
}

/** Numbers between -1 and 1. */
function wave(length: number): Floats {
  const numbers = new Float32Array(length);
  for (let index = 0; index < length; index++) numbers[index] = Math.sin(index);
  return numbers;
}
