/** The rank next to the wanted one, so that few times give one that was measured. */
export function quantile(times: readonly number[], rank: number): number {
  const sorted = times.toSorted((a, b) => a - b);
  return sorted[Math.round(rank * (sorted.length - 1))]!;
}
