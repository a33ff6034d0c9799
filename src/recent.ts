/** A bounded map: what was asked for least recently is forgotten first. */
export class Recent<K, V> {
  private readonly values = new Map<K, V>();

  /** @param forget what is done with a value that was forgotten. */
  constructor(
    private readonly most: number,
    private readonly forget: (value: V) => void = () => undefined,
  ) {}

  find(key: K): V | undefined {
    const value = this.values.get(key);
    if (value === undefined) return undefined;
    this.values.delete(key);
    this.values.set(key, value);
    return value;
  }

  /** What is known under the key, made where nothing is. */
  get(key: K, make: () => V): V {
    const known = this.find(key);
    if (known !== undefined) return known;
    const value = make();
    this.values.set(key, value);
    for (const [oldest, forgotten] of this.values) {
      if (this.values.size <= this.most) break;
      this.values.delete(oldest);
      this.forget(forgotten);
    }
    return value;
  }

  delete(key: K): void {
    this.values.delete(key);
  }

  clear(): void {
    for (const value of this.values.values()) this.forget(value);
    this.values.clear();
  }
}
