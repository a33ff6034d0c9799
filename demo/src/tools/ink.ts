/** A drop of ink: a disc of points that the field carries; its area grows by the mean of exp ∫∇·f along their paths. */
import type { Network } from "deldot";
import { follow, isFlow } from "../layers/cloud.js";
import { marksOf } from "../base/colour.js";
import { quadrature } from "./disc.js";
import type { Engine } from "../engines/engine.js";
import { short } from "../base/numbers.js";
import { withinFree } from "../layers/overlay.js";
import { onPlane, pointOn, toPixel, type Plane } from "../base/plane.js";
import type { Stage } from "../stage.js";

const RIM = 160;
const [RADII, ANGLES] = [6, 20];
const STOPS = 49;
const RADIUS_PIXELS = 34;
const MILLISECONDS = 3200;

export interface Drop {
  /** Of the rim on the plane, [(a, b)] at each stop. */
  readonly rims: readonly (readonly (readonly [number, number])[])[];
  /** By what the area has grown, by the rim's polygon, at each stop; NaN where it is folded too finely for that. */
  readonly measured: readonly number[];
  /** The mean of exp ∫∇·f over the disc, at each stop. */
  readonly said: readonly number[];
}

/** In two dimensions. @throws what the engine throws. */
export async function traceDrop(
  engine: Engine,
  network: Network,
  plane: Plane,
  given: { at: readonly [number, number]; radius: number; from: number; to: number; context: readonly number[] },
): Promise<Drop> {
  const { at, radius } = given;
  const disc = quadrature(RADII, ANGLES);
  const rim = Array.from({ length: RIM }, (_, i) => [Math.cos((2 * Math.PI * i) / RIM), Math.sin((2 * Math.PI * i) / RIM)] as const);
  const start = Float32Array.from(
    [...rim, ...disc.map(({ x, y }) => [x, y] as const)].flatMap(([x, y]) => pointOn(plane, at[0] + radius * x, at[1] + radius * y)),
  );
  const way = await follow(engine, network, start, { ...given, stops: STOPS });
  const rims = way.points.map((points) => rim.map((_, i) => onPlane(plane, Array.from(points.subarray(2 * i, 2 * i + 2)))));
  // A rim that fewer corners change has more folds than corners, and does not unfold.
  let isResolved = true;
  const areas = rims.map((corners) => {
    const area = areaOf(corners);
    const byHalf = [0, 1].map((first) => areaOf(corners.filter((_, i) => i % 2 === first)));
    isResolved &&= byHalf.every((other) => Math.abs(other - area) <= 0.01 * area);
    return isResolved ? area : NaN;
  });
  return {
    rims,
    measured: areas.map((area) => area / areas[0]!),
    said: way.growth.map((growth) => disc.reduce((sum, { weight }, i) => sum + weight * Math.exp(growth[RIM + i]!), 0)),
  };
}

/** Of a polygon. */
function areaOf(corners: readonly (readonly [number, number])[]): number {
  const twice = corners.reduce((sum, [a, b], i) => {
    const [c, d] = corners[(i + 1) % corners.length]!;
    return sum + a * d - c * b;
  }, 0);
  return Math.abs(twice) / 2;
}

export interface Ink {
  hold(a: number, b: number): void;
  release(): void;
  draw(context: CanvasRenderingContext2D): void;
}

export function createInk(stage: Stage, onError: (error: unknown) => void): Ink {
  let held = 0;
  /** Where a field was pressed that has no room for ink. */
  let refused: readonly [number, number] | null = null;
  /** What played until it was pressed. */
  let paused: Stage["loaded"] = null;
  let drop: (Drop & { readonly begun: number; readonly of: Stage["loaded"] }) | null = null;
  /** Words under a pixel. */
  const label = (context: CanvasRenderingContext2D, [x, y]: readonly [number, number], text: string): void => {
    const { ink, glass } = marksOf(stage.isDark);
    context.font = "14px system-ui, sans-serif";
    const width = context.measureText(text).width + 20;
    const [left, top] = withinFree(stage.margins(), stage.size, [x - width / 2, y + 58], { width, height: 28 });
    context.fillStyle = glass;
    context.beginPath();
    context.roundRect(left, top, width, 28, 8);
    context.fill();
    context.fillStyle = ink;
    context.textBaseline = "middle";
    context.textAlign = "left";
    context.fillText(text, left + 10, top + 14);
  };
  const stopAt = (): number => Math.min(STOPS - 1, Math.floor(((performance.now() - drop!.begun) / MILLISECONDS) * (STOPS - 1)));
  return {
    hold(a, b) {
      const { engine, loaded, plane, state, size, cloud } = stage;
      if (!engine || !loaded) return;
      const id = ++held;
      if (loaded.network.stateSize !== 2) {
        refused = [a, b];
        return stage.drawMoving();
      }
      if (stage.isPlaying) paused = loaded;
      stage.play(false);
      const radius = (RADIUS_PIXELS * state.view.width) / size.width;
      const t = state.context[0] ?? 0;
      // At the end of a flow there is only the way back.
      const [from, to] = isFlow(loaded.network) ? [t, t > 0.9 ? 0 : 1] : [0, cloud?.times.at(-1) ?? 1];
      traceDrop(engine, loaded.network, plane, { at: [a, b], radius, from, to, context: state.context })
        .then((traced) => {
          if (id !== held || stage.loaded !== loaded) return;
          drop = { ...traced, begun: performance.now(), of: loaded };
          stage.carried = true;
          stage.animate();
        })
        .catch((error: unknown) => {
          if (stage.loaded === loaded && stage.engine === engine) onError(error);
        });
    },
    release() {
      held++;
      drop = refused = null;
      stage.carried = false;
      stage.drawMoving();
      if (paused && paused === stage.loaded) stage.play(true);
      paused = null;
      stage.hooks.onChange();
    },
    draw(context) {
      delete context.canvas.dataset["ink"];
      const { view } = stage.state;
      if (refused) label(context, toPixel(view, stage.size, ...refused), "ink is for fields in two dimensions");
      if (!drop || drop.of !== stage.loaded) return;
      const { size, isDark } = stage;
      const stop = stopAt();
      context.canvas.dataset["ink"] = JSON.stringify({ measured: drop.measured[stop], said: drop.said[stop] });
      const shape = outlineOf(drop.rims[stop]!.map(([a, b]) => toPixel(view, size, a, b)));
      context.fillStyle = isDark ? "rgb(255 255 255 / 0.55)" : "rgb(20 18 30 / 0.5)";
      context.fill(shape);
      context.strokeStyle = marksOf(isDark).ink;
      context.lineWidth = 1.5;
      context.stroke(shape);
      const middle = drop.rims[stop]!.reduce(([a, b], [c, d]) => [a + c / RIM, b + d / RIM] as const, [0, 0] as const);
      const area = drop.measured[stop]!;
      const text = `area ${Number.isFinite(area) ? `× ${short(area, 3)}` : "too fine to measure"}    exp ∫∇·f says × ${short(drop.said[stop]!, 3)}`;
      label(context, toPixel(view, size, ...middle), text);
    },
  };
}

function outlineOf(corners: readonly (readonly [number, number])[]): Path2D {
  const outline = new Path2D();
  for (const [x, y] of corners) outline.lineTo(x, y);
  outline.closePath();
  return outline;
}
