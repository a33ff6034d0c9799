/**
 * What is remembered between runs, wherever the caller keeps it: a file, localStorage, a Map. It only makes later runs
 * start better: a store that throws, rejects, holds nonsense or does not answer is as good as an empty one, and no result waits
 * for set.
 */
export interface Store {
  /** What was set under the key, if anything. */
  get(key: string): string | null | undefined | Promise<string | null | undefined>;
  /** Keeps a short text under the key. */
  set(key: string, value: string): void | Promise<void>;
}

/** A store that takes longer is not asked again. */
const MOST_MILLISECONDS = 1_000;

/** The caller's store, where nothing that it does is waited for in vain. */
export class Memory {
  constructor(private store: Store | undefined) {}

  /** What is remembered; null where nothing is, the store fails or takes too long, or the signal is aborted. */
  async get(key: string, signal?: AbortSignal): Promise<string | null> {
    if (!this.store) return null;
    let give: (nothing: null) => void = () => undefined;
    const nothing = new Promise<null>((resolve) => (give = resolve));
    const late = setTimeout(() => {
      this.store = undefined;
      give(null);
    }, MOST_MILLISECONDS);
    const aborted = (): void => give(null);
    signal?.addEventListener("abort", aborted);
    if (signal?.aborted) aborted();
    try {
      // The promise also turns what get throws into a rejection.
      const asked = new Promise<string | null | undefined>((resolve) => resolve(this.store!.get(key)));
      const known = await Promise.race([asked.catch(() => null), nothing]);
      return typeof known === "string" ? known : null;
    } finally {
      clearTimeout(late);
      signal?.removeEventListener("abort", aborted);
    }
  }

  set(key: string, value: string): void {
    const { store } = this;
    if (store) new Promise((resolve) => resolve(store.set(key, value))).catch(() => undefined);
  }
}
