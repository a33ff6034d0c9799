/**
 * A circle at the cursor, and the divergence theorem in it: what flows out through its rim, ∮ f·n, is what is made inside, ∬ ∇·f.
 * Both over its area go to ∇·f as it gets smaller.
 */
import type { Engine } from "../engines/engine.js";
import { marksOf } from "../base/colour.js";
import { quadrature } from "./disc.js";
import { latest } from "./latest.js";
import { short } from "../base/numbers.js";
import { withinFree, type Margins } from "../layers/overlay.js";
import { pointOn, toPixel, type Plane, type Size } from "../base/plane.js";
import { withContext } from "../base/quantity.js";
import type { Stage } from "../stage.js";

/** The trapezoidal rule on a circle, and a product rule inside: exact but for float32 where f is smooth on their scale. */
const RIM = 192;
const [RADII, ANGLES] = [12, 40];
const SMALLEST = 8;
const LARGEST = 240;
/** Of a small lens, as much as two fingers can be put around. */
const REACH = 60;
/** Of its numbers, in CSS pixels. */
const BOX = { width: 270, height: 88 } as const;

export interface Balance {
  /** ∮ f·n over the rim. */
  readonly flux: number;
  /** ∬ ∇·f over the disc. */
  readonly made: number;
  readonly area: number;
}

/** In two dimensions. @throws what the engine throws. */
export async function balanceOf(
  engine: Engine,
  plane: Plane,
  context: readonly number[],
  [a, b]: readonly [number, number],
  radius: number,
): Promise<Balance> {
  const rim = Array.from({ length: RIM }, (_, i) => (2 * Math.PI * i) / RIM);
  const disc = quadrature(RADII, ANGLES);
  const points = Float32Array.from([
    ...rim.flatMap((angle) => pointOn(plane, a + radius * Math.cos(angle), b + radius * Math.sin(angle))),
    ...disc.flatMap(({ x, y }) => pointOn(plane, a + radius * x, b + radius * y)),
  ]);
  const { value, divergence } = await engine.evaluate(points, { outputs: ["value", "divergence"], ...withContext(context) });
  const sum = (axis: readonly number[], i: number): number => axis[0]! * value![2 * i]! + axis[1]! * value![2 * i + 1]!;
  const flux = rim.reduce((all, angle, i) => all + Math.cos(angle) * sum(plane.u, i) + Math.sin(angle) * sum(plane.v, i), 0);
  const area = Math.PI * radius ** 2;
  return {
    flux: (flux * 2 * Math.PI * radius) / RIM,
    made: disc.reduce((all, { weight }, i) => all + weight * divergence![RIM + i]!, 0) * area,
    area,
  };
}

/** Where its numbers stand: over the circle of a radius around (x, y), or where that is not free, under it. */
export function boxBeside([x, y]: readonly [number, number], radius: number, margins: Margins, size: Size): [number, number] {
  const over = y - radius - BOX.height - 14;
  return withinFree(margins, size, [x - BOX.width / 2, over >= margins.top ? over : y + radius + 14], BOX);
}

export interface Lens {
  isOn: boolean;
  /** In CSS pixels. */
  radius: number;
  point(a: number, b: number): void;
  /** Stays in the middle of the view until something points. */
  centre(): void;
  /** Whether it is on, and at a pixel of the stage. */
  isAt(x: number, y: number): boolean;
  resize(factor: number): void;
  /** Measures what is under it now. */
  update(): void;
  draw(context: CanvasRenderingContext2D): void;
}

export function createLens(stage: Stage, onError: (error: unknown) => void): Lens {
  let at: readonly [number, number] | null = null;
  const place = (): readonly [number, number] => at ?? [stage.state.view.a, stage.state.view.b];
  let balance: (Balance & { readonly at: readonly [number, number]; readonly radius: number; readonly of: Stage["loaded"] }) | null = null;
  const measure = latest(
    stage,
    async () => {
      const { engine, loaded, plane, state, size } = stage;
      if (!engine || loaded?.network.stateSize !== 2) return;
      const radius = (lens.radius * state.view.width) / size.width;
      const here = place();
      const found = await balanceOf(engine, plane, state.context, here, radius);
      if (stage.loaded !== loaded) return;
      balance = { ...found, at: here, radius, of: loaded };
      stage.drawMoving();
    },
    onError,
  );
  const lens: Lens = {
    isOn: false,
    radius: 70,
    point(a, b) {
      at = [a, b];
      if (lens.isOn) measure(undefined);
    },
    centre() {
      at = null;
      if (lens.isOn) measure(undefined);
    },
    isAt(x, y) {
      const [left, top] = toPixel(stage.state.view, stage.size, ...place());
      return lens.isOn && stage.loaded?.network.stateSize === 2 && Math.hypot(x - left, y - top) <= Math.max(REACH, lens.radius);
    },
    update() {
      if (lens.isOn) measure(undefined);
    },
    resize(factor) {
      lens.radius = Math.min(LARGEST, Math.max(SMALLEST, lens.radius * factor));
      if (lens.isOn) measure(undefined);
    },
    draw(context) {
      delete context.canvas.dataset["lens"];
      if (!lens.isOn || !balance || balance.of !== stage.loaded) return;
      // For whoever cannot read pixels.
      context.canvas.dataset["lens"] = JSON.stringify({ flux: balance.flux, made: balance.made, area: balance.area, at: balance.at });
      const { size, state } = stage;
      const { ink, glass, grows, shrinks } = marksOf(stage.isDark);
      const [x, y] = toPixel(state.view, size, ...balance.at);
      const radius = (balance.radius * size.width) / state.view.width;
      context.strokeStyle = ink;
      context.lineWidth = 2;
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.stroke();
      const { width, height } = BOX;
      const [left, top] = boxBeside([x, y], radius, stage.margins(), size);
      context.fillStyle = glass;
      context.beginPath();
      context.roundRect(left, top, width, height, 8);
      context.fill();
      const longest = Math.max(Math.abs(balance.flux), Math.abs(balance.made), 1e-30);
      context.font = "12px system-ui, sans-serif";
      context.textBaseline = "middle";
      for (const [row, name, value] of [
        [0, "out through the rim ∮ f·n", balance.flux],
        [1, "made inside ∬ ∇·f", balance.made],
      ] as const) {
        const line = top + 14 + row * 28;
        context.textAlign = "left";
        context.fillStyle = ink;
        context.fillText(name, left + 10, line);
        context.textAlign = "right";
        context.fillText(short(value, 4), left + width - 10, line);
        context.fillStyle = value < 0 ? shrinks : grows;
        context.fillRect(left + 10, line + 8, ((width - 20) * Math.abs(value)) / longest, 5);
      }
      context.textAlign = "left";
      context.fillStyle = ink;
      context.fillText(
        `over its area ${short(balance.flux / balance.area, 4)} and ${short(balance.made / balance.area, 4)}, towards ∇·f`,
        left + 10,
        top + 75,
      );
    },
  };
  return lens;
}
