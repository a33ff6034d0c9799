import type { Memory } from "./store.js";

/** A submission should take about this long: far below any watchdog, long enough to hide its overhead. */
const TARGET_MILLISECONDS = 60;
/** Before anything is known: short even on a software adapter (some 10^8 multiply-adds per second). */
const FIRST_WORK = 2 ** 24;
const LEAST_WORK = 2 ** 20;
const MOST_WORK = 2 ** 36;

/**
 * How much work one submission may hold, learnt from how long earlier ones took on this adapter. What the store knows
 * from an earlier run is the start.
 */
export class Pace {
  multiplyAddsPerSubmit: number = FIRST_WORK;
  private lastEnd = 0;
  private remembered = "";

  private constructor(
    private readonly key: string,
    private readonly memory: Memory,
  ) {}

  static async for(device: GPUDevice, memory: Memory): Promise<Pace> {
    const pace = new Pace(`deldot multiply-adds per submit, ${adapterOf(device)}`, memory);
    const known = Number(await memory.get(pace.key));
    if (known >= LEAST_WORK && known <= MOST_WORK) pace.multiplyAddsPerSubmit = Math.round(known);
    pace.remembered = String(pace.multiplyAddsPerSubmit);
    return pace;
  }

  /** Starts the clock of a submission of this much work; the function it gives stops it. */
  begin(work: number): () => void {
    const begun = performance.now();
    return () => {
      const end = performance.now();
      // Submissions queue up behind one another: this one had the device from when the one before it ended.
      const milliseconds = Math.max(0.05, end - Math.max(begun, this.lastEnd));
      this.lastEnd = end;
      // A small piece of work says more about overhead than about the device.
      if (work < this.multiplyAddsPerSubmit / 2) return;
      const factor = Math.min(4, Math.max(0.25, TARGET_MILLISECONDS / milliseconds));
      this.multiplyAddsPerSubmit = Math.round(Math.min(MOST_WORK, Math.max(LEAST_WORK, this.multiplyAddsPerSubmit * factor)));
    };
  }

  /** Hands what was learnt to the store, where it is new. */
  remember(): void {
    const learnt = String(this.multiplyAddsPerSubmit);
    if (learnt === this.remembered) return;
    this.remembered = learnt;
    this.memory.set(this.key, learnt);
  }
}

/** The adapter of a device in the words that it has for itself. */
export function adapterOf(device: GPUDevice): string {
  const { vendor, architecture, device: model, description } = device.adapterInfo ?? {};
  return [vendor, architecture, model, description].join(" ");
}
