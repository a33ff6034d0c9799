/** Numbers at the cursor, and the ledger of a pinned point. */
import { normalBase } from "deldot";
import { follow } from "../layers/cloud.js";
import { marksOf } from "../base/colour.js";
import { drawDigit } from "../layers/digits.js";
import { latest } from "./latest.js";
import { short } from "../base/numbers.js";
import { element, sharp } from "../base/page.js";
import { onPlane, pointOn, toPixel, type Plane } from "../base/plane.js";
import { outputsFor, showProbe, vector } from "./probe.js";
import { withContext } from "../base/quantity.js";
import type { Stage } from "../stage.js";
import type { State } from "../base/state.js";

const STOPS = 41;

export interface Reader {
  point(a: number, b: number, x: number, y: number): void;
  leave(): void;
  /** Reads anew what is under the cursor. */
  update(): void;
  /** Fills the ledger with the pinned point's numbers, or empties it. */
  showPin(): void;
  /** The pinned point's path from noise. */
  draw(context: CanvasRenderingContext2D): void;
}

export function createReader(stage: Stage, onError: (error: unknown) => void): Reader {
  const reader = element("reader", HTMLElement);
  const ledger = element("ledger", HTMLElement);
  let isOver = false;
  let here: readonly [number, number] = [0, 0];
  const read = latest(
    stage,
    async ([a, b]: readonly [number, number]) => {
      const { loaded, engine, plane, state } = stage;
      if (!loaded || !engine) return;
      const x = Float32Array.from(pointOn(plane, a, b));
      const { value, divergence } = await engine.evaluate(x, { outputs: ["value", "divergence"], ...withContext(state.context) });
      if (!isOver || stage.loaded !== loaded) return;
      reader.hidden = false;
      reader.dataset["divergence"] = String(divergence![0]);
      reader.textContent = `∇·f  ${short(divergence![0]!)}\n${loaded.network.stateSize <= 3 ? `x ${vector(x)}   f ${vector(value!)}` : `(${short(a, 3)}, ${short(b, 3)}) on the plane`}`;
    },
    onError,
  );

  /** Of the pinned point, on the plane, from the point back to the noise. */
  let path: { readonly places: readonly (readonly [number, number])[]; readonly pin: State["pin"]; readonly plane: Plane } | null = null;
  const showPath = (given: typeof path): void => {
    path = given;
    stage.drawMoving();
  };
  /** The pin that the ledger's place is for. */
  let placed: readonly [number, number] | null = null;
  /** To the side of the picture that the pin is not on. */
  const putAside = ([a, b]: readonly [number, number]): void => {
    const { size, state } = stage;
    const { left, right } = stage.margins();
    ledger.dataset["side"] = toPixel(state.view, size, a, b)[0] > (left + size.width - right) / 2 ? "left" : "right";
  };
  const fill = latest(
    stage,
    async () => {
      const { loaded, engine, plane, state } = stage;
      ledger.hidden = state.pin === null;
      if (!loaded || !engine || !state.pin) return;
      if (state.pin !== placed) putAside((placed = state.pin));
      const { network } = loaded;
      const { pin, context } = state;
      const x = Float32Array.from(pointOn(plane, pin[0], pin[1]));
      const numbers = await engine.evaluate(x, { outputs: outputsFor(network), ...withContext(context) });
      if (stage.loaded !== loaded || stage.state.pin !== pin) return;
      showProbe(element("probe", HTMLElement), network, Array.from(x), context, numbers);
      const digit = element("digit", HTMLCanvasElement);
      digit.hidden = network.stateSize !== 64;
      if (!digit.hidden) drawDigit(digit, Array.from(x));
      const isPath = stage.isFlow && context[0]! > 0.01;
      const [along, text] = [element("along", HTMLCanvasElement), element("along-text", HTMLElement)];
      along.hidden = text.hidden = !isPath;
      if (!isPath) {
        if (path) showPath(null);
        return;
      }
      const way = await follow(engine, network, x, { from: context[0]!, to: 0, stops: STOPS, context });
      if (stage.loaded !== loaded || stage.state.pin !== pin) return;
      showPath({ places: way.points.map((at) => onPlane(plane, Array.from(at))), pin, plane });
      // From the noise to the point: the way there, backwards.
      const area = -way.growth.at(-1)![0]!;
      const noise = normalBase(network.stateSize, 1).logProb(way.points.at(-1)!)[0]!;
      drawAlong(along, way.divergence.map((numbers) => numbers[0]!).toReversed(), stage.isDark);
      along.setAttribute("aria-label", `∇·f along the path from noise to the point; its area is ${short(area, 4)}`);
      text.dataset["logProb"] = String(noise - area);
      text.textContent = `∇·f along its path from noise; its area ${short(area, 4)} is what log p loses: log p = ${short(noise, 4)} ${area < 0 ? "+" : "−"} ${short(Math.abs(area), 4)} = ${short(noise - area, 4)}`;
    },
    onError,
  );

  return {
    point(a, b, x, y) {
      isOver = true;
      const { width, height } = stage.size;
      const [left, top] = [x + 250 > width ? x - 236 : x + 16, y + 70 > height ? y - 60 : y + 16];
      reader.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
      here = [a, b];
      read(here);
    },
    update() {
      if (isOver) read(here);
    },
    leave() {
      isOver = false;
      reader.hidden = true;
    },
    showPin: () => fill(undefined),
    draw(context) {
      const { size, state, plane } = stage;
      if (!path || path.pin !== state.pin || path.plane !== plane) return;
      const line = new Path2D();
      const places = path.places.map(([a, b]) => toPixel(state.view, size, a, b));
      for (const place of places) line.lineTo(...place);
      const { ink, glass } = marksOf(stage.isDark);
      context.lineJoin = "round";
      for (const [style, width] of [
        [glass, 5],
        [ink, 2],
      ] as const) {
        context.strokeStyle = style;
        context.lineWidth = width;
        context.stroke(line);
      }
      context.fillStyle = ink;
      context.beginPath();
      context.arc(...places.at(-1)!, 4, 0, 2 * Math.PI);
      context.fill();
    },
  };
}

/** ∇·f over time, its area filled. */
function drawAlong(canvas: HTMLCanvasElement, values: readonly number[], isDark: boolean): void {
  const { clientWidth: width, clientHeight: height } = canvas;
  const context = sharp(canvas);
  const { grows, shrinks } = marksOf(isDark);
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const y = (value: number): number => 6 + ((high - value) / (high - low || 1)) * (height - 12);
  const x = (index: number): number => (index / (values.length - 1)) * width;
  for (const sign of [1, -1]) {
    context.fillStyle = sign > 0 ? grows : shrinks;
    context.beginPath();
    context.moveTo(0, y(0));
    values.forEach((value, index) => context.lineTo(x(index), y(sign * Math.max(0, sign * value))));
    context.lineTo(width, y(0));
    context.fill();
  }
  context.strokeStyle = context.fillStyle = getComputedStyle(canvas).color;
  context.beginPath();
  context.moveTo(0, y(0));
  context.lineTo(width, y(0));
  context.stroke();
}
