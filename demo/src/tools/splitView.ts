/** The divider on the stage, and what stands under its sides. */
import { element } from "../base/page.js";
import { isDivergence, type Estimator, type Split } from "./split.js";
import { layersOf } from "../base/state.js";
import type { Stage } from "../stage.js";

export function bindSplit(stage: Stage, split: Split): void {
  const [divider, panel] = [element("divider", HTMLElement), element("split", HTMLElement)];
  const move = (place: number): void => {
    const { left, right } = stage.margins();
    split.place = Math.min(1 - (right + 24) / stage.size.width, Math.max((left + 24) / stage.size.width, place));
    showSplit(stage, split);
    stage.drawMoving();
  };
  element("split-toggle", HTMLButtonElement).addEventListener("click", () => {
    split.isOn = !split.isOn;
    // Many fields open on something else.
    if (split.isOn && !isDivergence(stage))
      stage.change({ layers: layersOf(["div", ...stage.state.layers]), quantity: "divergence", scale: null }).catch(stage.hooks.onError);
    showSplit(stage, split);
    split.update();
    // The axes give way to the prices.
    stage.drawOver();
    stage.drawMoving();
  });
  divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
  divider.addEventListener("pointermove", (event) => {
    if (divider.hasPointerCapture(event.pointerId)) move(event.clientX / stage.size.width);
  });
  divider.addEventListener("keydown", ({ key }) => {
    const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[key];
    if (step) move(split.place + step);
  });
  panel.addEventListener("input", () => {
    split.estimator = element("estimator", HTMLSelectElement).value as Estimator;
    split.probes = Number(element("probes", HTMLInputElement).value);
    showSplit(stage, split);
    split.update();
  });
}

export function showSplit(stage: Stage, split: Split): void {
  const isShown = split.isOn && isDivergence(stage);
  element("split-toggle", HTMLButtonElement).setAttribute("aria-pressed", String(split.isOn));
  const divider = element("divider", HTMLElement);
  divider.hidden = element("split", HTMLElement).hidden = !isShown;
  divider.style.left = `${100 * split.place}%`;
  element("split", HTMLElement).style.setProperty("--divider", `${100 * split.place}vw`);
  divider.setAttribute("aria-valuenow", String(Math.round(100 * split.place)));
  element("probes", HTMLElement).hidden = split.estimator !== "hutchinson";
  element("exact-price", HTMLElement).textContent = split.prices[0];
  element("estimate-price", HTMLElement).textContent = split.prices[1];
}
