/** Lets the chunks of concurrent calls take turns: they share memory. */
export class Turns {
  private last: Promise<void> = Promise.resolve();

  /** Resolves when it is the caller's turn, to the function that ends it. */
  async take(): Promise<() => void> {
    const before = this.last;
    let end: () => void = () => undefined;
    this.last = new Promise<void>((resolve) => (end = resolve));
    await before;
    return end;
  }
}

/** How long the thread may be kept from all else, in milliseconds. */
export const SLICE_MILLISECONDS = 20;

/** Lets timers, signals and painting in between pieces of work that never wait for any of them. */
export class Breaks {
  private since = -Infinity;
  private turned: Promise<void> = Promise.resolve();

  /** Resolves when the event loop has turned, which it may have by itself, where the last break is longer ago than a slice. */
  async take(): Promise<void> {
    if (performance.now() - this.since < SLICE_MILLISECONDS) return;
    await this.turned;
    this.turned = new Promise((resolve) => setTimeout(() => resolve(), 0));
    this.since = performance.now();
  }
}
