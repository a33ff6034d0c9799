import { capacityOf, scheduleChunk } from "../plan/schedule.js";
import type { Chunk, Route, ScheduleLimits } from "../plan/steps.js";
import type { Plan } from "../plan/trace.js";
import type { Variant } from "../plan/variants.js";
import { encodeSteps } from "./encode.js";
import { checked } from "./errors.js";
import { makeRoom, type Shared } from "./run.js";

/** A measurement shorter than this is repeated within one submission. */
const MEASURED_MILLISECONDS = 4;
/** The plain kernels take about this long for a trial's points. */
const TRIAL_MILLISECONDS = 30;
/** Enough that each variant meets the machine at its best once: others' work halves what a software adapter has. */
const ROUNDS = 8;
/** Slower than the best by this factor after two runs: not measured further. */
const HOPELESS = 2.5;

/** A variant in a race. */
export interface Runner {
  readonly variant: Variant;
  milliseconds: number;
  readonly chunk: Chunk | null;
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
    const running = able.map((runner) => ({ runner, chunk: this.chunkOf(runner.variant), repeats: 1 }));
    for (const entry of running) {
      const once = Math.min(await this.time(entry, 1), await this.time(entry, 1));
      entry.runner.milliseconds = once;
      entry.repeats = Math.min(64, Math.max(1, Math.ceil(MEASURED_MILLISECONDS / once)));
    }
    const best = Math.min(...running.map(({ runner }) => runner.milliseconds));
    const hopeful = running.filter(({ runner }) => runner.milliseconds <= HOPELESS * best);
    // Single short runs say little: those that stay in the race start anew.
    for (const { runner } of hopeful) runner.milliseconds = Infinity;
    for (let round = 0; round < ROUNDS; round++)
      for (const entry of hopeful)
        entry.runner.milliseconds = Math.min(entry.runner.milliseconds, (await this.time(entry, entry.repeats)) / entry.repeats);
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

/** Numbers between -1 and 1: no activation is at rest there, none saturates. */
function wave(length: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length }, (_, index) => Math.sin(index));
}
