import type { Evaluation } from "./cases.js";

interface Row {
  evaluations: number;
  /** Whose result says that the kernels asked for ran. */
  asNamed: number;
  refused: number;
  failed: number;
  refusal: string | null;
}

/** How many evaluations fell on each family of kernels, and what came of them. */
export class Tally {
  /** Evaluations that gave numbers. */
  count = 0;
  failures = 0;
  private readonly rows = new Map<string, Row>();

  add(done: readonly Evaluation[]): void {
    for (const { kernels, ran, refused, failure } of done) {
      let row = this.rows.get(kernels);
      if (!row) this.rows.set(kernels, (row = { evaluations: 0, asNamed: 0, refused: 0, failed: 0, refusal: null }));
      if (refused === null) {
        row.evaluations++;
        this.count++;
      } else {
        row.refused++;
        row.refusal ??= refused;
      }
      if (ran === kernels) row.asNamed++;
      if (failure !== null) row.failed++;
    }
  }

  of(kernels: string): number {
    return this.rows.get(kernels)?.evaluations ?? 0;
  }

  table(): string {
    const heading = "| kernels | evaluations | said to have run as named | refused | wrong | first refusal |\n|---|---|---|---|---|---|";
    const lines = [...this.rows]
      .toSorted(([a], [b]) => a.localeCompare(b))
      .map(
        ([kernels, { evaluations, asNamed, refused, failed, refusal }]) =>
          `| ${kernels} | ${evaluations} | ${asNamed} | ${refused} | ${failed} | ${refusal ?? ""} |`,
      );
    return [heading, ...lines].join("\n");
  }
}
