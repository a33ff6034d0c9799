import { InputError, LimitError, quote } from "../errors.js";
import { fusing } from "../plan/fusing.js";
import { capacityOf, scheduleChunk } from "../plan/schedule.js";
import type { Route, ScheduleLimits } from "../plan/steps.js";
import type { Plan } from "../plan/trace.js";
import { halved, nameOfVariant, parseVariant, PLAIN, tileOf, type LayersVariant, type Variant } from "../plan/variants.js";
import type { Candidates } from "./candidates.js";
import { fusedKernelOf, kernelOf, loadWriters, type Kernel } from "./kernels.js";
import { adapterOf, type Store } from "./pace.js";
import type { Shared } from "./run.js";

/** How one variant did in a trial. */
export interface Trial {
  /** Its name, as VectorField.create takes it. */
  readonly kernels: string;
  /**
   * Wall time of the trial's points on the device, the least of some repetitions, of two where others were far ahead; Infinity
   * where it failed, NaN where it is fixed and was not tried.
   */
  readonly milliseconds: number;
  /** Points of the trial. */
  readonly points: number;
  /** Whether it runs from now on. */
  readonly chosen: boolean;
}

/** Device time that a plan has had before trying other kernels pays: cheap ones to compile, and unrolled ones. */
const WORTH_A_TRIAL_MILLISECONDS = 1_000;
const WORTH_UNROLLING_MILLISECONDS = 5_000;

/** What is known of one plan at about one number of points. */
interface Choice {
  variant: Variant;
  /** Milliseconds of the calls so far. */
  spent: number;
  tried: "nothing" | "loops" | "everything";
  /** The trial or the compilation in progress. */
  pending: Promise<unknown> | null;
}

/** Chooses by trial which kernels run a plan, and remembers it per adapter and shape. */
export class Trials {
  private readonly choices = new WeakMap<Plan, Map<number, Choice>>();
  /** What layers of a plan run, by the variant's name. */
  private readonly kernels = new WeakMap<Plan, Map<string, readonly Kernel[]>>();
  private readonly adapter: string;
  /** Lanes that every subgroup of the device has at least; 0 where it has no subgroups. */
  private readonly lanes: number;
  /** null before a fixed variant or a trial needs it. */
  private candidates: Candidates | null = null;
  /** What runs before anything is known, and where nothing else can. */
  readonly plain: LayersVariant;

  /**
   * @param fixed the one variant to run; null: choose.
   * @param half whether weights are kept in float16.
   * @throws InputError where the device cannot run the fixed one, or has no float16.
   */
  constructor(
    private readonly device: GPUDevice,
    private readonly store: Store | undefined,
    private readonly fixed: Variant | null,
    private readonly half: boolean,
    private readonly limits: () => Omit<ScheduleLimits, "multiplyAddsPerSubmit">,
    private readonly shared: () => Shared,
  ) {
    this.adapter = adapterOf(device);
    this.plain = { kind: "layers", tile: tileOf(fixed?.kind === "fused" ? fixed : half ? halved(PLAIN) : PLAIN) };
    const needsHalf = half || (fixed !== null && (fixed.kind === "fused" ? fixed : fixed.tile).half === true);
    if (needsHalf && !device.features.has("shader-f16"))
      throw new InputError("float16 is asked for; the device was made without the feature shader-f16");
    if (half && fixed && !nameOfVariant(fixed).endsWith("float16"))
      throw new InputError(`kernels is ${quote(nameOfVariant(fixed))}; expected a name that ends in "float16", as weights do`);
    this.lanes = device.features.has("subgroups") ? (device.adapterInfo.subgroupMinSize ?? 0) : 0;
    if (fixed && (fixed.kind === "fused" ? fixed : fixed.tile).lanes > this.lanes)
      throw new InputError(
        `kernels is ${quote(nameOfVariant(fixed))}; the device's subgroups give at least ${this.lanes} lanes (0: no subgroups)`,
      );
  }

  /** Loads what writes the kernels of the fixed variant, before all else is asked. */
  async load(): Promise<void> {
    if (this.fixed?.kind === "fused" || this.fixed?.tile.group || this.fixed?.tile.lanes) await this.loadCandidates();
  }

  private async loadCandidates(): Promise<Candidates> {
    const [module] = await Promise.all([import("./candidates.js"), loadWriters()]);
    return (this.candidates ??= new module.Candidates(this.device, this.adapter, this.lanes, this.half));
  }

  /**
   * What runs a call of `count` points now; only a fixed one may still have to be compiled. Where earlier calls have cost
   * more than a trial, one starts in the background: never after the last call of a program.
   * @throws LimitError where the fixed one cannot run the plan.
   */
  async pick(plan: Plan, count: number, sharedContext: boolean): Promise<Variant> {
    if (this.fixed) return this.fixedFor(plan);
    const choice = await this.choiceFor(plan, count);
    const unrolls = choice.spent > WORTH_UNROLLING_MILLISECONDS;
    const worthIt = choice.tried === "nothing" ? choice.spent > WORTH_A_TRIAL_MILLISECONDS : choice.tried === "loops" && unrolls;
    if (worthIt && !choice.pending) {
      const trial = this.tryAll(plan, count, choice, sharedContext, unrolls).catch(() => {
        // What runs now goes on; an error of the device meets the caller in a call of his own.
        choice.tried = "everything";
      });
      choice.pending = trial.finally(() => (choice.pending = null));
    }
    return choice.variant;
  }

  /** As pick, at once, among what is compiled. */
  pickCompiled(plan: Plan, count: number): Variant {
    const variant = this.fixed ? this.fixedFor(plan) : (this.choices.get(plan)?.get(bucketOf(count))?.variant ?? this.plain);
    return this.kernelsOf(plan, variant, "device").every((kernel) => this.shared().pipelines.has(kernel)) ? variant : this.plain;
  }

  /** Compiles what is fixed for the plan, or remembered of an earlier run. */
  async prepare(plan: Plan, count: number): Promise<void> {
    if (this.fixed) return this.compile(plan, this.fixedFor(plan), "host", "device");
    const choice = await this.choiceFor(plan, count);
    await choice.pending;
  }

  /** Notes what a call has cost. */
  spent(plan: Plan, count: number, milliseconds: number): void {
    const choice = this.choices.get(plan)?.get(bucketOf(count));
    if (choice) choice.spent += milliseconds;
  }

  /** Tries every variant now. @throws GpuError, DeviceLostError, LimitError. */
  async tune(plan: Plan, count: number, sharedContext: boolean): Promise<readonly Trial[]> {
    if (this.fixed) {
      const variant = this.fixedFor(plan);
      await this.compile(plan, variant, "host", "device");
      return [{ kernels: nameOfVariant(variant), milliseconds: NaN, points: 0, chosen: true }];
    }
    const choice = await this.choiceFor(plan, count);
    await choice.pending;
    return this.tryAll(plan, count, choice, sharedContext, true);
  }

  /** The fixed variant, or the plain one where the plan is none that can be fused. */
  private fixedFor(plan: Plan): Variant {
    const fixed = this.fixed!;
    if (fixed.kind === "layers") return fixed;
    if (!fusing()?.fusedForm(plan, { to: "host" }, fixed)) return this.plain;
    const refusal = this.candidates!.refusal(plan, fixed);
    if (refusal) throw new LimitError(`kernels is ${quote(nameOfVariant(fixed))}, but ${refusal}`);
    return fixed;
  }

  private async choiceFor(plan: Plan, count: number): Promise<Choice> {
    let known = this.choices.get(plan);
    if (!known) this.choices.set(plan, (known = new Map()));
    const bucket = bucketOf(count);
    let choice = known.get(bucket);
    if (!choice) {
      known.set(bucket, (choice = { variant: this.plain, spent: 0, tried: "nothing", pending: null }));
      await this.recall(plan, bucket, choice);
    }
    return choice;
  }

  /** Compiles what an earlier run has chosen, and switches to it then. */
  private async recall(plan: Plan, bucket: number, choice: Choice): Promise<void> {
    if (!this.store) return;
    try {
      const name = await this.store.get(this.keyOf(plan, bucket));
      if (!name) return;
      const candidates = await this.loadCandidates();
      const variant = candidates.of(plan, true).find((allowed) => nameOfVariant(allowed) === name);
      if (!variant) return;
      choice.tried = "everything";
      const compiling = this.compile(plan, variant, "host", "device").then(
        () => void (choice.variant = variant),
        () => undefined,
      );
      choice.pending = compiling.finally(() => (choice.pending = null));
    } catch {
      // A store that fails is as good as an empty one.
    }
  }

  private keyOf(plan: Plan, bucket: number): string {
    return `deldot kernels, ${this.adapter}, ${shapeOf(plan)} at ${4 ** bucket}${this.half ? " in float16" : ""}`;
  }

  /** What a variant runs where the results go to the host, or stay in the caller's buffers. */
  private kernelsOf(plan: Plan, variant: Variant, to: Route["to"]): readonly Kernel[] {
    if (variant.kind === "fused") {
      const form = fusing()?.fusedForm(plan, { to }, variant);
      if (form) return [fusedKernelOf(form)];
    }
    let known = this.kernels.get(plan);
    if (!known) this.kernels.set(plan, (known = new Map()));
    const name = nameOfVariant(variant);
    let kernels = known.get(name);
    if (!kernels) {
      const limits = { ...this.limits(), multiplyAddsPerSubmit: Infinity };
      const route: Route = { to: "host", sharedContext: true };
      const { submissions } = scheduleChunk(plan, 0, 1, capacityOf(plan, limits, route, variant), limits, route, variant);
      known.set(name, (kernels = [...new Set(submissions.flatMap(({ steps }) => steps.map((step) => kernelOf(step))))]));
    }
    return kernels;
  }

  private async compile(plan: Plan, variant: Variant, ...routes: readonly Route["to"][]): Promise<void> {
    const { pipelines, watch } = this.shared();
    const kernels = routes.flatMap((to) => this.kernelsOf(plan, variant, to));
    await watch.guard(Promise.all(kernels.map((kernel) => pipelines.compile(kernel))));
  }

  private async tryAll(plan: Plan, count: number, choice: Choice, sharedContext: boolean, unrolls: boolean): Promise<readonly Trial[]> {
    const [{ Race }, candidates] = await Promise.all([import("./race.js"), this.loadCandidates()]);
    const race = new Race(this.device, plan, count, sharedContext, this.limits(), this.shared());
    const plain = await race.add(this.plain);
    await race.lengthen(plain);
    const runners = [plain];
    for (const variant of candidates.of(plan, unrolls).slice(1)) {
      try {
        await this.compile(plan, variant, "host");
        runners.push(await race.add(variant));
      } catch {
        // One that this device refuses is no candidate; a lost device ends the trial.
        this.shared().checkUsable();
        runners.push({ variant, milliseconds: Infinity, chunk: null });
      }
    }
    await race.run(runners);
    const sorted = runners.toSorted((a, b) => a.milliseconds - b.milliseconds);
    const best = sorted[0]!;
    await this.compile(plan, best.variant, "device");
    choice.variant = best.variant;
    choice.tried = unrolls ? "everything" : "loops";
    if (unrolls) this.remember(this.keyOf(plan, bucketOf(count)), nameOfVariant(best.variant));
    return sorted.map(({ variant, milliseconds }) => ({
      kernels: nameOfVariant(variant),
      milliseconds,
      points: race.points,
      chosen: variant === best.variant,
    }));
  }

  private remember(key: string, name: string): void {
    if (!this.store) return;
    // The promise also turns what set throws into a rejection.
    new Promise((resolve) => resolve(this.store!.set(key, name))).catch(() => undefined);
  }
}

/** Reads the option `kernels`; null: choose. @throws InputError where the name is none. */
export function readKernels(kernels: string): Variant | null {
  if (typeof kernels !== "string") throw new InputError(`kernels is ${quote(kernels)}; expected "auto" or the name of a variant`);
  return kernels === "auto" ? null : parseVariant(kernels);
}

/** Numbers of points that are treated alike: up to 1, 4, 16, ..., 65 536 and more. */
function bucketOf(count: number): number {
  return Math.min(8, Math.ceil(Math.log2(Math.max(1, count)) / 2));
}

/** A short text that is the same for networks and plans of the same shape, whatever their weights. */
function shapeOf(plan: Plan): string {
  const { graph, outputs, method } = plan;
  const instructions = plan.kind === "trace" ? [plan.instructions, plan.tangentsAtOnce] : [];
  // Matrices stand there by name and size: what computes them is no data.
  const text = JSON.stringify([graph.nodes, outputs, method, instructions], (key, value: unknown) =>
    key === "bias" ? value !== null : value,
  );
  let [a, b] = [0x811c9dc5, 0x01000193];
  for (let index = 0; index < text.length; index++) {
    // In the manner of FNV-1a, from two starts: with 64 bits two shapes hardly meet.
    a = Math.imul(a ^ text.charCodeAt(index), 0x01000193);
    b = Math.imul(b ^ text.charCodeAt(index), 0x01000193) ^ (a >>> 13);
  }
  const hex = (hash: number): string => (hash >>> 0).toString(16).padStart(8, "0");
  return `${method} ${hex(a)}${hex(b)}`;
}
