/** How a flow's density is integrated. */

/** Earlier than this a flow's density is the noise's. */
const LEAST_TIME = 1e-3;
const MOST_STEPS = 16;

/** From time t back to the noise, by rk4: 16 steps from the data err by some 1e-4 in log p. */
export function backFrom(context: readonly number[]) {
  const t = context[0] ?? 1;
  return {
    solver: "rk4",
    steps: Math.min(MOST_STEPS, Math.max(2, Math.ceil(MOST_STEPS * Math.abs(t)))),
    from: Math.max(LEAST_TIME, t),
    to: 0,
    condition: context.length > 1 ? context.slice(1) : undefined,
  } as const;
}
