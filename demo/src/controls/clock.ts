/** The clock of a flow: play, loop, and a track whose height is the samples' mean ∇·f. */
import { marksOf } from "../base/colour.js";
import { element, sharp } from "../base/page.js";
import type { Stage } from "../stage.js";

export function bindClock(stage: Stage, attempt: (work: Promise<unknown>) => void): void {
  const [play, loop] = [element("play", HTMLButtonElement), element("loop", HTMLButtonElement)];
  const slider = element("t", HTMLInputElement);
  slider.addEventListener("input", () => {
    stage.isPlaying = false;
    attempt(stage.setTime(Number(slider.value), true));
  });
  slider.addEventListener("change", () => attempt(stage.setTime(Number(slider.value), false)));
  play.addEventListener("click", () => stage.play(!stage.isPlaying));
  loop.addEventListener("click", () => {
    stage.loops = !stage.loops;
    loop.setAttribute("aria-pressed", String(stage.loops));
  });
}

/** Brings the clock in line with the time; without one there is Play alone. */
export function showTime(stage: Stage): void {
  const play = element("play", HTMLButtonElement);
  play.textContent = stage.isPlaying ? "❚❚" : "▶";
  play.setAttribute("aria-pressed", String(stage.isPlaying));
  for (const id of ["track-place", "t-value", "loop"]) element(id, HTMLElement).hidden = !stage.isFlow;
  if (!stage.isFlow) return;
  const t = stage.state.context[0]!;
  const slider = element("t", HTMLInputElement);
  if (document.activeElement !== slider || stage.isPlaying) slider.value = t.toFixed(2);
  element("t-value", HTMLElement).textContent = `t ${t.toFixed(2)}`;
}

/** Orange above the line where the samples' room grows on the average, purple below it where it shrinks. */
export function drawTrack({ cloud, isDark }: Stage): void {
  const canvas = element("track", HTMLCanvasElement);
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!cloud || cloud.kind !== "flow" || width === 0) return;
  const context = sharp(canvas);
  const { grows, shrinks } = marksOf(isDark);
  const means = cloud.mean.filter((mean) => Number.isFinite(mean));
  const [low, high] = [Math.min(0, ...means), Math.max(0, ...means)];
  const y = (mean: number): number => 4 + ((high - mean) / (high - low || 1)) * (height - 8);
  const shape = shapeOf(cloud.mean, width, y);
  for (const [colour, top, bottom] of [
    [grows, 0, y(0)],
    [shrinks, y(0), height],
  ] as const) {
    context.save();
    context.beginPath();
    context.rect(0, top, width, bottom - top);
    context.clip();
    context.globalAlpha = 0.75;
    context.fillStyle = colour;
    context.fill(shape);
    context.restore();
  }
}

/** The area between the means and 0. */
function shapeOf(means: Float64Array, width: number, y: (mean: number) => number): Path2D {
  const shape = new Path2D();
  shape.moveTo(0, y(0));
  means.forEach((mean, stop) => shape.lineTo((stop / (means.length - 1)) * width, y(Number.isFinite(mean) ? mean : 0)));
  shape.lineTo(width, y(0));
  return shape;
}
