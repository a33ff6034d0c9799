import { InputError, quote } from "../errors.js";
import { adapterOf } from "../gpu/pace.js";
import type { Shared } from "../gpu/run.js";
import type { Memory } from "../gpu/store.js";
import { capabilitiesOf, HALF, type Capabilities } from "../kernels/capabilities.js";
import { kernelOf, PLAIN, PLAIN_HALF } from "../kernels/layers.js";
import type { Plan } from "../plan/plan.js";
import { productsOf } from "../plan/program.js";
import { runParametersOf } from "../plan/options.js";
import { capacityOf, scheduleChunk } from "../schedule/capacity.js";
import type { Kernel } from "../schedule/kernel.js";
import type { Route, Variant } from "../schedule/steps.js";
import { Measurement, type Measured } from "./measure.js";

/** How one variant of the kernels did. */
export interface TunedKernels {
  /** Its name, as VectorField.create takes it. */
  readonly kernels: string;
  /**
   * Wall time on the device, the least of some repetitions, of two where others were far ahead; Infinity where it failed or was
   * dropped, NaN where it is fixed and was not measured.
   */
  readonly milliseconds: number;
  /** Points that were measured. */
  readonly points: number;
  /** Whether it runs from now on. */
  readonly chosen: boolean;
  /** Whether its results differed from the plain kernels' by more than rounding: then it never runs. */
  readonly differs: boolean;
}

/** Device time that a plan has had before measuring other kernels pays. */
const WORTH_TUNING_MILLISECONDS = 1_000;
/** Device time that a plan will have by the plain kernels before it pays to let a call wait for that. */
const WORTH_WAITING_MILLISECONDS = 5_000;

/** What is known of one plan at about one number of points. */
interface Choice {
  variant: Variant;
  /** Milliseconds of the calls so far. */
  spent: number;
  /** Milliseconds of the plain kernels for a point, where they were timed. */
  plain: number | null;
  tuned: boolean;
  /** The tuning or the compilation in progress. */
  pending: Promise<unknown> | null;
  /** Names of variants whose results were wrong. */
  readonly dropped: Set<string>;
}

/** Chooses by measuring which kernels run a plan, and remembers it per adapter and shape. */
export class Tuner {
  private choices = new WeakMap<Plan, Map<number, Choice>>();
  /** Whether kernels may have copies of the weights. */
  private fuses = true;
  /** What a plan runs, by variant and by where the results go. */
  private readonly kernels = new WeakMap<Plan, Map<string, readonly Kernel[]>>();
  /** What runs before anything is known, and where nothing else can. */
  readonly plain: Variant;

  /** What runs plans that are not tuned for, such as gradients': the fixed one where it goes layer by layer, else the plain one. */
  readonly untuned: Variant;

  private constructor(
    private readonly device: GPUDevice,
    private readonly memory: Memory,
    /** The one variant to run; null: choose. */
    private readonly fixed: Variant | null,
    private readonly half: boolean,
  ) {
    this.plain = half ? PLAIN_HALF : PLAIN;
    this.untuned = fixed && !fixed.fuse ? fixed : this.plain;
  }

  /**
   * @param kernels the name of the one variant to run, or "auto".
   * @param half whether weights are kept in float16.
   * @throws InputError where there is no such variant, the device cannot run it, or has no float16.
   */
  static async for(device: GPUDevice, memory: Memory, kernels: string, half: boolean): Promise<Tuner> {
    if (typeof kernels !== "string") throw new InputError(`kernels is ${quote(kernels)}; expected "auto" or the name of a variant`);
    const capabilities = capabilitiesOf(device);
    const fixed = kernels === "auto" ? null : await variantOf(kernels, capabilities);
    if ((half || fixed?.tile.half) && !capabilities.hasFloat16)
      throw new InputError("float16 is asked for; the device was made without the feature shader-f16");
    if (half && fixed && !fixed.tile.half)
      throw new InputError(`kernels is ${quote(kernels)}; expected a name that ends in "${HALF.trim()}", as weights do`);
    return new Tuner(device, memory, fixed, half || (fixed?.tile.half ?? false));
  }

  /** From now on weights change: no kernels that keep copies of them. What else is the fastest is found, and remembered, anew. */
  layersOnly(): void {
    if (!this.fuses) return;
    this.fuses = false;
    this.choices = new WeakMap();
  }

  /** The variants whose kernels any plan may need, layer by layer. */
  layers(): Variant[] {
    return this.fixed && this.fixed !== this.plain && !this.fixed.fuse ? [this.plain, this.fixed] : [this.plain];
  }

  /**
   * What runs a call of `count` points now; only a fixed one may still have to be compiled. Where earlier calls have cost
   * more than tuning, that starts in the background: never after the last call of a program.
   */
  async pick(plan: Plan, count: number, sharedContext: boolean, shared: Shared, signal: AbortSignal | undefined): Promise<Variant> {
    if (this.fixed) return this.fixedFor(plan);
    const choice = await this.choiceFor(plan, count, shared, signal);
    if (!choice.tuned && !choice.pending && choice.spent > WORTH_TUNING_MILLISECONDS) {
      const tuning = this.measure(plan, count, choice, sharedContext, shared).catch(() => {
        // What runs now goes on; an error of the device meets the caller in a call of his own.
        choice.tuned = true;
      });
      choice.pending = tuning.finally(() => (choice.pending = null));
    }
    return choice.variant;
  }

  /**
   * What runs a plan `evaluations` times over at `count` points, while nothing else may run: where the plain kernels, which are timed first,
   * would take long for all of that, the others are measured before. @throws GpuError, DeviceLostError, LimitError; the signal's reason.
   */
  async pickFor(
    evaluations: number,
    plan: Plan,
    count: number,
    sharedContext: boolean,
    shared: Shared,
    signal: AbortSignal | undefined,
  ): Promise<Variant> {
    if (this.fixed) {
      await this.compile(plan, this.fixedFor(plan), shared);
      return this.fixedFor(plan);
    }
    const choice = await this.choiceFor(plan, count, shared, signal);
    await choice.pending;
    if (choice.tuned) return choice.variant;
    choice.plain ??= await new Measurement(plan, count, sharedContext, shared).begin(this.plain);
    if (choice.plain * count * evaluations > WORTH_WAITING_MILLISECONDS)
      await this.measure(plan, count, choice, sharedContext, shared, signal);
    return choice.variant;
  }

  /** As pick, at once, among what is compiled. */
  pickCompiled(plan: Plan, count: number, shared: Shared): Variant {
    const variant = this.fixed ? this.fixedFor(plan) : (this.choices.get(plan)?.get(bucketOf(count))?.variant ?? this.plain);
    if (variant === this.plain) return variant;
    return this.kernelsOf(plan, variant, "device", shared).every((kernel) => shared.pipelines.has(kernel)) ? variant : this.plain;
  }

  /** Compiles what is fixed for the plan, or remembered of an earlier run. */
  async prepare(plan: Plan, count: number, shared: Shared): Promise<void> {
    if (this.fixed) return this.compile(plan, this.fixedFor(plan), shared);
    const choice = await this.choiceFor(plan, count, shared, undefined);
    await choice.pending;
  }

  /** Notes what a call has cost. */
  spent(plan: Plan, count: number, milliseconds: number): void {
    const choice = this.choices.get(plan)?.get(bucketOf(count));
    if (choice) choice.spent += milliseconds;
  }

  /** Measures every variant now. @throws GpuError, DeviceLostError, LimitError. */
  async tune(plan: Plan, count: number, sharedContext: boolean, shared: Shared): Promise<readonly TunedKernels[]> {
    if (this.fixed) {
      const variant = this.fixedFor(plan);
      await this.compile(plan, variant, shared);
      return [{ kernels: variant.name, milliseconds: NaN, points: 0, chosen: true, differs: false }];
    }
    const choice = await this.choiceFor(plan, count, shared, undefined);
    await choice.pending;
    return this.measure(plan, count, choice, sharedContext, shared);
  }

  /** The fixed variant, or the plain one where it cannot carry the plan. */
  private fixedFor(plan: Plan): Variant {
    return this.canRun(this.fixed!, plan) ? this.fixed! : this.plain;
  }

  private async choiceFor(plan: Plan, count: number, shared: Shared, signal: AbortSignal | undefined): Promise<Choice> {
    let known = this.choices.get(plan);
    if (!known) this.choices.set(plan, (known = new Map()));
    const bucket = bucketOf(count);
    let choice = known.get(bucket);
    if (!choice) {
      known.set(bucket, (choice = { variant: this.plain, spent: 0, plain: null, tuned: false, pending: null, dropped: new Set() }));
      await this.recall(plan, bucket, choice, shared, signal);
      // Nothing was heard of the store then: the next call asks again.
      if (signal?.aborted) known.delete(bucket);
    }
    return choice;
  }

  /** Compiles what an earlier run has chosen, and switches to it then. */
  private async recall(plan: Plan, bucket: number, choice: Choice, shared: Shared, signal: AbortSignal | undefined): Promise<void> {
    const { chosen, dropped } = parseRemembered(await this.memory.get(this.keyOf(plan, bucket), signal));
    for (const name of dropped) choice.dropped.add(name);
    if (chosen === null) return;
    const variants = await this.variants(plan);
    const variant = variants.find(({ name }) => name === chosen && !choice.dropped.has(name));
    if (!variant) return;
    choice.tuned = true;
    const compiling = this.compile(plan, variant, shared).then(
      () => void (choice.variant = variant),
      () => undefined,
    );
    choice.pending = compiling.finally(() => (choice.pending = null));
  }

  private keyOf(plan: Plan, bucket: number): string {
    const way = `${this.half ? HALF : ""}${this.fuses ? "" : ", layers only"}`;
    return `deldot kernels, ${adapterOf(this.device)}, ${shapeOf(plan)} at ${4 ** bucket}${way}`;
  }

  /** What the device can run a plan by, plain first. */
  private async variants(plan: Plan): Promise<Variant[]> {
    const capabilities = capabilitiesOf(this.device);
    const { tunedVariants } = await loadTuned();
    const others = tunedVariants.flatMap(({ variant, isTried }) => (isTried(capabilities) ? [variant] : []));
    return [this.plain, ...others.filter((variant) => variant.tile.half === this.half && this.canRun(variant, plan))];
  }

  /** Whether a variant carries a plan through as its name says. */
  private canRun({ fuse, tile, plain }: Variant, plan: Plan): boolean {
    if (fuse) return this.fuses && fuse(plan, "host") !== null;
    // Where every matrix is block-diagonal, all tiles are the plain one.
    return tile === plain || productsOf(plan.instructions).some(({ blocks }) => blocks === null);
  }

  private kernelsOf(plan: Plan, variant: Variant, to: Route["to"], { limits }: Shared): readonly Kernel[] {
    const fused = variant.fuse?.(plan, to);
    if (fused) return [fused.kernel];
    let known = this.kernels.get(plan);
    if (!known) this.kernels.set(plan, (known = new Map()));
    let kernels = known.get(variant.name);
    if (!kernels) {
      const unbounded = { ...limits, multiplyAddsPerSubmit: Infinity };
      const route: Route = { to: "host", sharedContext: true };
      const capacity = capacityOf(plan, unbounded, route, variant);
      const { submissions } = scheduleChunk(plan, runParametersOf({}), 0, 1, capacity, unbounded, route, variant);
      known.set(variant.name, (kernels = [...new Set(submissions.flatMap(({ steps }) => steps.map(kernelOf)))]));
    }
    return kernels;
  }

  private async compile(plan: Plan, variant: Variant, shared: Shared): Promise<void> {
    const kernels = (["host", "device"] as const).flatMap((to) => this.kernelsOf(plan, variant, to, shared));
    await shared.watch.guard(Promise.all(kernels.map((kernel) => shared.pipelines.compile(kernel))));
  }

  private async measure(
    plan: Plan,
    count: number,
    choice: Choice,
    sharedContext: boolean,
    shared: Shared,
    signal?: AbortSignal,
  ): Promise<readonly TunedKernels[]> {
    const key = this.keyOf(plan, bucketOf(count));
    const variants = (await this.variants(plan)).filter(({ name }) => !choice.dropped.has(name));
    const measurement = new Measurement(plan, count, sharedContext, shared);
    choice.plain = await measurement.begin(this.plain);
    const measured: Measured[] = [await measurement.addPlain(this.plain)];
    for (const variant of variants.slice(1)) {
      signal?.throwIfAborted();
      try {
        const kernels = this.kernelsOf(plan, variant, "host", shared);
        await shared.watch.guard(Promise.all(kernels.map((kernel) => shared.pipelines.compile(kernel))));
        const added = await measurement.add(variant, this.plain);
        // One that keeps copies of weights which were replaced meanwhile says nothing.
        if (this.fuses || !variant.fuse) measured.push(added);
      } catch {
        // One that this device refuses is not chosen; a lost device ends the tuning.
        shared.checkUsable();
        measured.push({ variant, milliseconds: Infinity, chunk: null, differs: false });
      }
    }
    for (const { variant, differs } of measured) if (differs) choice.dropped.add(variant.name);
    await measurement.run(measured);
    const sorted = measured.toSorted((a, b) => a.milliseconds - b.milliseconds);
    const best = sorted[0]!.variant;
    await this.compile(plan, best, shared);
    choice.variant = best;
    choice.tuned = true;
    this.memory.set(key, JSON.stringify({ chosen: best.name, dropped: [...choice.dropped] }));
    return sorted.map(({ variant, milliseconds, differs }) => ({
      kernels: variant.name,
      milliseconds,
      points: measurement.points,
      chosen: variant === best,
      differs,
    }));
  }
}

/** The kernels beside the plain ones, loaded when they are first needed. */
const loadTuned = (): Promise<typeof import("../kernels/tuned/index.js")> => import("../kernels/tuned/index.js");

/** The variant of a name. @throws InputError where it is none, or the device cannot run it. */
async function variantOf(name: string, device: Capabilities): Promise<Variant> {
  const plain = [PLAIN, PLAIN_HALF].find((variant) => variant.name === name);
  if (plain) return plain;
  const { tunedVariants } = await loadTuned();
  const found = tunedVariants.find(({ variant }) => variant.name === name);
  if (!found) {
    const names = [PLAIN, ...tunedVariants.map(({ variant }) => variant)]
      .filter(({ tile }) => !tile.half)
      .map((variant) => `"${variant.name}"`);
    throw new InputError(
      `kernels is ${quote(name)}; expected "auto" or one of ${names.join(", ")}, with "${HALF.trim()}" behind it or not`,
    );
  }
  if (found.lanes > device.lanes)
    throw new InputError(`kernels is ${quote(name)}; the device's subgroups give at least ${device.lanes} lanes (0: no subgroups)`);
  return found.variant;
}

/** What a store holds of a plan, as far as it makes sense. */
function parseRemembered(text: string | null): { chosen: string | null; dropped: string[] } {
  try {
    const { chosen, dropped } = JSON.parse(text ?? "{}") as { chosen?: unknown; dropped?: unknown };
    return {
      chosen: typeof chosen === "string" ? chosen : null,
      dropped: Array.isArray(dropped) ? dropped.filter((name) => typeof name === "string") : [],
    };
  } catch {
    return { chosen: null, dropped: [] };
  }
}

/** Numbers of points that are treated alike: up to 1, 4, 16, ..., 65 536 and more. */
function bucketOf(count: number): number {
  return Math.min(8, Math.ceil(Math.log2(Math.max(1, count)) / 2));
}

/** A short text that is the same for networks and plans of the same shape, whatever their weights. */
function shapeOf(plan: Plan): string {
  const { graph, outputs, method, instructions } = plan;
  const tangents = plan.kind === "trace" ? plan.tangentsAtOnce : 0;
  // Matrices stand there by name and size: what computes them is no data.
  const text = JSON.stringify([graph.nodes, outputs, method, instructions, tangents]);
  let [a, b] = [0x811c9dc5, 0x01000193];
  for (let index = 0; index < text.length; index++) {
    // In the manner of FNV-1a, from two starts: with 64 bits two shapes hardly meet.
    a = Math.imul(a ^ text.charCodeAt(index), 0x01000193);
    b = Math.imul(b ^ text.charCodeAt(index), 0x01000193) ^ (a >>> 13);
  }
  const hex = (hash: number): string => (hash >>> 0).toString(16).padStart(8, "0");
  return `${method} ${hex(a)}${hex(b)}`;
}
