/** A cloud of points on its way along the field: where each is at some times, and how the volume around it has grown. */
import { normalBase, type Network } from "deldot";
import type { Engine } from "../engines/engine.js";
import { onPlane, pointOn, uniforms, type Plane, type Size, type View } from "../base/plane.js";
import { withContext } from "../base/quantity.js";

/** Between two stops a path is drawn straight. */
const STOPS = 25;
/** Of the picture's width, what a point of typical speed crosses before it starts anew. */
const STRETCH = 0.4;

const SEED = 11;
/** In the field's own time. */
const LONGEST = 1e6;

export interface Cloud {
  /** A flow's noise becoming data; or points all over the picture, each starting anew at its own time. */
  readonly kind: "flow" | "steady";
  readonly count: number;
  /** [stops]: from 0 to 1 for a flow; else from 0 on, in the field's own time. */
  readonly times: Float64Array;
  /** On the plane, [stops, count, 2]. */
  readonly places: Float32Array;
  /** ∫∇·f dt from the start, [stops, count]. */
  readonly growth: Float32Array;
  /** ∇·f, [stops, count]. */
  readonly divergence: Float32Array;
  /** The mean of ∇·f over the cloud, [stops]. */
  readonly mean: Float64Array;
  /** When in its loop a steady point starts, [count], from 0 to 1. */
  readonly phases: Float32Array;
}

export interface CloudSetting {
  readonly plane: Plane;
  readonly view: View;
  readonly size: Size;
  readonly context: readonly number[];
}

/** Whether points go from noise at time 0 to data at time 1. */
export function isFlow({ contextSize }: Network): boolean {
  return contextSize > 0;
}

/** Points on their way. */
export interface Way {
  /** [stops] */
  readonly times: Float64Array;
  /** [B, d] at each stop. */
  readonly points: readonly Float32Array[];
  /** ∇·f there, [B] at each stop. */
  readonly divergence: readonly ArrayLike<number>[];
  /** ∫∇·f dt from the first stop, [B] at each stop, by the trapezoidal rule. */
  readonly growth: readonly Float64Array[];
}

/** Follows points [B, d] from one time to another. @throws what the engine throws. */
export async function follow(
  engine: Engine,
  { stateSize: d, contextSize }: Network,
  start: Float32Array,
  { from, to, stops, context }: { from: number; to: number; stops: number; context: readonly number[] },
): Promise<Way> {
  const count = start.length / d;
  const times = Float64Array.from({ length: stops }, (_, stop) => from + (stop / (stops - 1)) * (to - from));
  const { points: end, path } = await engine.transport(start, {
    solver: "rk4",
    steps: 1,
    from,
    to,
    times: times.subarray(1, stops - 1),
    condition: context.length > 1 ? context.slice(1) : undefined,
  });
  const points = Array.from({ length: stops }, (_, stop) => {
    if (stop === 0) return start;
    return Float32Array.from(stop === stops - 1 ? end : path!.subarray((stop - 1) * count * d, stop * count * d));
  });
  // At once: pictures that are asked for meanwhile come between two requests.
  const divergence = await Promise.all(
    points.map(async (rows, stop) => {
      const at = contextSize > 0 ? [times[stop]!, ...context.slice(1)] : [];
      return (await engine.evaluate(rows, { outputs: ["divergence"], ...withContext(at) })).divergence!;
    }),
  );
  const growth: Float64Array[] = [];
  for (let stop = 0; stop < stops; stop++) {
    const [before, now, last] = [divergence[stop - 1], divergence[stop]!, growth[stop - 1]];
    const step = stop > 0 ? times[stop]! - times[stop - 1]! : 0;
    growth.push(Float64Array.from({ length: count }, (_, i) => (stop === 0 ? 0 : last![i]! + ((before![i]! + now[i]!) / 2) * step)));
  }
  return { times, points, divergence, growth };
}

/**
 * A cloud of `count` points.
 * @param known the first of them, of the same field and setting, which are not followed again.
 * @throws what the engine throws.
 */
export async function traceCloud(
  engine: Engine,
  network: Network,
  setting: CloudSetting,
  count: number,
  known: Cloud | null = null,
): Promise<Cloud> {
  const d = network.stateSize;
  const all = isFlow(network) ? normalBase(d, 1).sample(count, SEED) : strewn(setting, count, d);
  const start = all.subarray((known?.count ?? 0) * d);
  const to = known?.times.at(-1) ?? (isFlow(network) ? 1 : await crossingTime(engine, setting, d));
  const way = await follow(engine, network, start, { from: 0, to, stops: STOPS, context: setting.context });
  const places = way.points.flatMap((rows) =>
    Array.from({ length: rows.length / d }, (_, i) => onPlane(setting.plane, Array.from(rows.subarray(i * d, (i + 1) * d)))).flat(),
  );
  const divergence = joined(known?.divergence, way.divergence.map((numbers) => Array.from(numbers)).flat());
  const next = uniforms(3);
  return {
    kind: isFlow(network) ? "flow" : "steady",
    count,
    times: way.times,
    places: joined(known?.places, places),
    growth: joined(known?.growth, way.growth.map((numbers) => Array.from(numbers)).flat()),
    divergence,
    mean: Float64Array.from({ length: STOPS }, (_, stop) => {
      const finite = divergence.subarray(stop * count, (stop + 1) * count).filter((x) => Number.isFinite(x));
      return finite.reduce((sum, x) => sum + x, 0) / finite.length;
    }),
    phases: Float32Array.from({ length: count }, () => next()),
  };
}

/** At each stop, the numbers that are known, then those that came. */
function joined(known: Float32Array = new Float32Array(), came: readonly number[]): Float32Array {
  const [before, after] = [known.length / STOPS, came.length / STOPS];
  const all = new Float32Array(known.length + came.length);
  for (let stop = 0; stop < STOPS; stop++) {
    all.set(known.subarray(stop * before, (stop + 1) * before), stop * (before + after));
    all.set(came.slice(stop * after, (stop + 1) * after), stop * (before + after) + before);
  }
  return all;
}

/** All over the picture and some way beyond, [count, d]. */
function strewn({ plane, view, size }: CloudSetting, count: number, d: number): Float32Array {
  const next = uniforms(7);
  const tall = (view.width * size.height) / size.width;
  const points = new Float32Array(count * d);
  for (let i = 0; i < count; i++)
    points.set(pointOn(plane, view.a + 1.2 * (next() - 0.5) * view.width, view.b + 1.2 * (next() - 0.5) * tall), i * d);
  return points;
}

/** How long a point of typical speed is on its way. */
async function crossingTime(engine: Engine, setting: CloudSetting, d: number): Promise<number> {
  const { view } = setting;
  const { value } = await engine.evaluate(strewn(setting, 200, d), { outputs: ["value"], context: null });
  const speeds = Array.from({ length: value!.length / d }, (_, i) => Math.hypot(...value!.subarray(i * d, (i + 1) * d)));
  const typical = speeds.filter((speed) => speed > 0).toSorted((a, b) => a - b);
  const median = typical[Math.floor(typical.length / 2)];
  // Where nearly nothing moves, no time is long enough.
  return median ? Math.min(LONGEST, (STRETCH * view.width) / median) : 1;
}

/** Where point `i` is, (a, b), and how it has grown, at a share of its way from 0 to 1. */
export function placeAt({ count, times, places, growth }: Cloud, i: number, share: number): readonly [number, number, number] {
  const at = Math.min(1, Math.max(0, share)) * (times.length - 1);
  const stop = Math.min(times.length - 2, Math.floor(at));
  const part = at - stop;
  const [from, to] = [stop * count + i, (stop + 1) * count + i];
  const between = (numbers: Float32Array, a: number, b: number): number => numbers[a]! + part * (numbers[b]! - numbers[a]!);
  return [between(places, 2 * from, 2 * to), between(places, 2 * from + 1, 2 * to + 1), between(growth, from, to)];
}

/** The share of its way that point `i` has gone at a time: a flow's from 0 to 1, or any time of a loop that lasts 1. */
export function shareOf({ kind, phases }: Cloud, i: number, time: number): number {
  return kind === "flow" ? time : (time + phases[i]!) % 1;
}

/** The share of the points of a flow's cloud that are in view at a time. */
export function shareIn(cloud: Cloud, time: number, view: View, aspect: number): number {
  let inside = 0;
  for (let i = 0; i < cloud.count; i++) {
    const [a, b] = placeAt(cloud, i, time);
    if (Math.abs(a - view.a) < view.width / 2 && Math.abs(b - view.b) < (view.width * aspect) / 2) inside++;
  }
  return inside / cloud.count;
}
