import { capacityOf, scheduleChunk } from "../plan/schedule.js";
import type { Chunk, Route, ScheduleLimits } from "../plan/steps.js";
import type { Plan } from "../plan/trace.js";
import type { Variant } from "../plan/variants.js";
import { encodeSteps } from "./encode.js";
import { checked } from "./errors.js";
import { makeRoom, type Shared } from "./run.js";

/** A measurement shorter than this is repeated within one submission. */
const MEASURED_MILLISECONDS = 4;
/** The same for those that are close to the best, which are measured once more where they had less. */
const FINAL_MILLISECONDS = 16;
/** The plain kernels take about this long for a trial's points. */
const TRIAL_MILLISECONDS = 30;
/** Enough that each variant meets the machine at its best once: others' work halves what a software adapter has. */
const ROUNDS = 8;
/** Slower than the best by this factor after two runs: not measured further. */
const HOPELESS = 2.5;
/** Slower than the best by no more than this after the rounds: measured for longer, before one of them is chosen for good. */
const CLOSE = 1.3;

/** A variant in a race. */
export interface Runner {
  readonly variant: Variant;
  milliseconds: number;
  /** null where it failed. */
  chunk: Chunk | null;
}

/** Submissions of a long plan that are run in a trial. */
const MOST_SUBMISSIONS = 4;

/** Runs variants of a plan on points of its own, in turn with the field's calls and in their scratch, so within their budget. */
export class Race {
  private count: number;

  constructor(
    private readonly device: GPUDevice,
    private readonly plan: Plan,
    private readonly most: number,
    private readonly sharedContext: boolean,
    private readonly limits: Omit<ScheduleLimits, "multiplyAddsPerSubmit">,
    private readonly shared: Shared,
  ) {
    this.count = Math.min(most, 1024);
  }

  get points(): number {
    return this.count;
  }

  /** Prepares a compiled variant and runs it once: some drivers finish compiling then. */
  async add(variant: Variant): Promise<Runner> {
    const runner: Runner = { variant, milliseconds: Infinity, chunk: this.chunkOf(variant) };
    await this.time(runner, 1);
    return runner;
  }

  /** Takes as many points as the plain kernels compute in a short while. */
  async lengthen(plain: Runner): Promise<void> {
    for (let attempt = 0; attempt < 4 && this.count < this.most; attempt++) {
      const milliseconds = await this.time({ ...plain, chunk: this.chunkOf(plain.variant) }, 1);
      if (milliseconds > TRIAL_MILLISECONDS / 2) return;
      this.count = Math.min(this.most, Math.ceil(this.count * Math.min(8, TRIAL_MILLISECONDS / milliseconds)));
    }
  }

  /** The least time of each over some rounds, in turns, so that what else the machine does meets all of them. */
  async run(runners: readonly Runner[]): Promise<void> {
    const able = runners.filter(({ chunk }) => chunk);
    // The least capacity decides how many points all of them get.
    for (const { variant } of able) this.chunkOf(variant);
    for (const runner of able) {
      runner.chunk = this.chunkOf(runner.variant);
      runner.milliseconds = Math.min(await this.time(runner, 1), await this.time(runner, 1));
    }
    const hopeful = within(HOPELESS, able);
    await this.measure(hopeful, MEASURED_MILLISECONDS);
    const close = within(CLOSE, hopeful);
    const isShort = close.some(({ milliseconds }) => milliseconds < FINAL_MILLISECONDS);
    if (close.length > 1 && isShort) await this.measure(close, FINAL_MILLISECONDS);
  }

  /** The least time of each so far and over some rounds, in measurements of at least about so many milliseconds. */
  private async measure(runners: readonly Runner[], milliseconds: number): Promise<void> {
    const running = runners.map((runner) => ({
      runner,
      repeats: Math.min(64, Math.max(1, Math.ceil(milliseconds / runner.milliseconds))),
    }));
    for (let round = 0; round < ROUNDS; round++)
      for (const { runner, repeats } of running)
        runner.milliseconds = Math.min(runner.milliseconds, (await this.time(runner, repeats)) / repeats);
  }

  /** At most `count` points by a variant; fewer where its capacity is less, from then on for all. */
  private chunkOf(variant: Variant): Chunk {
    const limits = { ...this.limits, multiplyAddsPerSubmit: Math.max(2 ** 22, this.shared.pace.multiplyAddsPerSubmit * 4) };
    const route: Route = { to: "host", sharedContext: this.sharedContext };
    const capacity = capacityOf(this.plan, limits, route, variant);
    this.count = Math.min(this.count, capacity.points);
    return scheduleChunk(this.plan, 0, this.count, capacity, limits, route, variant);
  }

  /** Wall time in milliseconds of the chunk's first submissions, `repeats` times over. */
  private async time({ chunk }: Pick<Runner, "chunk">, repeats: number): Promise<number> {
    const { device, shared } = this;
    const { scratch, turns, watch, label, checkUsable } = shared;
    const endTurn = await watch.guard(turns.take());
    try {
      checkUsable();
      await makeRoom(chunk!, this.limits.memoryBudget, shared);
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
              const encoder = device.createCommandEncoder({ label: `${label} trial` });
              const pass = encoder.beginComputePass({ label: `${label} trial` });
              encodeSteps(pass, steps, { ...shared, outer: {} });
              pass.end();
              device.queue.submit([encoder.finish()]);
            }
        }),
      );
      await watch.guard(device.queue.onSubmittedWorkDone());
      return Math.max(0.001, performance.now() - begun);
    } finally {
      endTurn();
    }
  }
}

/** The best, and what is slower by no more than a factor. */
function within(factor: number, runners: readonly Runner[]): Runner[] {
  const best = Math.min(...runners.map(({ milliseconds }) => milliseconds));
  return runners.filter(({ milliseconds }) => milliseconds <= factor * best);
}

/** Numbers between -1 and 1: no activation is at rest there, none saturates. */
function wave(length: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length }, (_, index) => Math.sin(index));
}
