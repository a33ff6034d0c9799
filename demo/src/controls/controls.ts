/** Chips, panels and the settings behind them. */
import type { Activation } from "deldot";
import { fileOf } from "../fields/code.js";
import { drawDigit } from "../layers/digits.js";
import { shelfField, viewOf } from "../fields/shelf.js";
import { element, option, slider } from "../base/page.js";
import { subscript } from "../base/plane.js";
import { nameOf, quantitiesOf, type Quantity } from "../base/quantity.js";
import type { Stage } from "../stage.js";
import { layers } from "../base/state.js";

type Attempt = (work: Promise<unknown>) => void;

/** Of more numbers than these, there is one slider for that which is chosen. */
const MOST_SLIDERS = 6;
const panels = {
  settings: "settings-toggle",
  "comparison-panel": "compare-toggle",
  share: "share-toggle",
  draw: "draw-toggle",
  story: "story-toggle",
} as const;

const select = (id: string): HTMLSelectElement => element(id, HTMLSelectElement);
const input = (id: string): HTMLInputElement => element(id, HTMLInputElement);

export function bindChips(stage: Stage, attempt: Attempt): void {
  for (const layer of layers) element(`layer-${layer}`, HTMLButtonElement).addEventListener("click", () => attempt(stage.toggle(layer)));
  for (const [panel, toggle] of Object.entries(panels))
    element(toggle, HTMLButtonElement).addEventListener("click", () => openPanel(element(panel, HTMLElement).hidden ? panel : null));
}

/** One panel at a time; those that open or close hear of it by the event "toggle". */
export function openPanel(id: string | null): void {
  for (const [name, toggle] of Object.entries(panels)) {
    const [panel, button] = [element(name, HTMLElement), element(toggle, HTMLButtonElement)];
    const isOpen = name === id;
    if (panel.hidden !== isOpen) continue;
    const hadFocus = panel.contains(document.activeElement);
    panel.hidden = !isOpen;
    button.setAttribute("aria-expanded", String(isOpen));
    // Whoever uses keys goes on from there.
    if (hadFocus) button.focus();
    panel.dispatchEvent(new Event("toggle"));
  }
}

export function bindControls(stage: Stage, attempt: Attempt, activations: readonly Activation["name"][]): void {
  const onChange = (id: string, listener: () => void): void => element(id, HTMLElement).addEventListener("change", listener);
  const onClick = (id: string, listener: () => void): void => element(id, HTMLButtonElement).addEventListener("click", listener);
  element("controls", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
  select("activation").append(...activations.map((name) => option(name, name)));
  for (const id of ["seed", "dimensions", "width", "depth", "gain", "activation"])
    onChange(id, () => {
      const number = (name: "seed" | "dimensions" | "width" | "depth" | "gain"): number => {
        const { value, min, max } = input(name);
        const bounded = Math.min(Number(max || Infinity), Math.max(Number(min), Number(value) || 0));
        return name === "gain" ? bounded : Math.round(bounded);
      };
      const random = {
        seed: number("seed"),
        dimensions: number("dimensions"),
        width: number("width"),
        depth: number("depth"),
        activation: select("activation").value,
        gain: number("gain"),
      };
      attempt(stage.change({ random }));
    });
  onChange("quantity", () => attempt(stage.change({ quantity: select("quantity").value as Quantity, scale: null })));
  onChange("contour", () => attempt(stage.change({ contour: input("contour").checked })));
  onChange("lock", () => {
    const { low, high, palette } = stage.domain;
    attempt(
      stage.change({
        scale: input("lock").checked
          ? palette.startsWith("diverging")
            ? (high - low) / 2
            : Math.max(Math.abs(low), Math.abs(high))
          : null,
      }),
    );
  });
  onChange("truth", () => attempt(stage.change({ truth: input("truth").value || null })));
  onClick("reset", () => attempt(resetView(stage)));

  onChange("plane-kind", () => {
    const kind = select("plane-kind").value;
    const plane = kind === "axes" ? ({ kind, i: 0, j: 1, rest: [] } as const) : ({ kind: kind as "random" | "digits", seed: 1 } as const);
    attempt(stage.change({ plane, pin: null, scale: null }));
  });
  for (const id of ["axis-i", "axis-j"])
    onChange(id, () => {
      const { plane } = stage.state;
      if (plane.kind !== "axes") return;
      let [i, j] = [Number(select("axis-i").value), Number(select("axis-j").value)];
      // The same for both: the other one takes what this one had.
      if (i === j) [i, j] = id === "axis-i" ? [i, plane.i] : [plane.j, j];
      attempt(stage.change({ plane: { ...plane, i, j }, pin: null }));
    });
  onClick("redraw", () => {
    const { plane } = stage.state;
    if (plane.kind !== "axes") attempt(stage.change({ plane: { ...plane, seed: plane.seed + 1 }, pin: null, scale: null }));
  });
}

export async function resetView(stage: Stage): Promise<void> {
  const extent = shelfField(stage.state.field)?.extent ?? { a: 0, b: 0, across: 3, up: 3 };
  await stage.change({ view: viewOf(extent, stage.size, stage.margins()) });
}

/** What the controls were built for: they are built anew only where that changes, so that a slider keeps its focus. */
let builtFor = "";

/** Brings chips and settings in line with the state. */
export function showControls(stage: Stage, attempt: Attempt): void {
  const { state, loaded } = stage;
  for (const layer of layers) {
    const chip = element(`layer-${layer}`, HTMLButtonElement);
    chip.setAttribute("aria-pressed", String(state.layers.includes(layer)));
    chip.disabled = !stage.can(layer);
    chip.title = layer === "error" && chip.disabled ? "For fields whose truth is known: type it in the settings" : "";
  }
  element("layer-div", HTMLButtonElement).querySelector("span")!.textContent = nameOf(state.quantity);
  if (!loaded) return;
  const { network } = loaded;
  const d = network.stateSize;
  const known = shelfField(state.field);
  const hide = (id: string, hidden: boolean): void => void (element(id, HTMLElement).hidden = hidden);
  element("about", HTMLElement).textContent =
    known?.about ??
    (state.field === "random"
      ? "Weights uniform in ±gain/√inputs, as PyTorch draws them for a gain of 1."
      : state.field === "formula"
        ? `f = (${state.formula})`
        : describeFile(loaded));
  hide("random", state.field !== "random");
  for (const id of ["seed", "dimensions", "width", "depth", "gain"] as const) input(id).value = String(state.random[id]);
  select("activation").value = state.random.activation;
  const { plane } = state;
  const built = `${stage.fieldCount} ${JSON.stringify(plane.kind === "axes" ? [plane.i, plane.j] : plane)}`;
  if (built !== builtFor) {
    builtFor = built;
    select("quantity").replaceChildren(...quantitiesOf(d).map((quantity) => option(quantity, nameOf(quantity))));
    buildPlane(stage, attempt);
    buildContexts(stage, attempt);
  }
  select("quantity").value = state.quantity;
  input("contour").checked = state.contour;
  input("lock").checked = state.scale !== null;
  // A scale of one sign has two ends to keep, and a link keeps one.
  input("lock").disabled = state.scale === null && /^(grows|shrinks)/.test(stage.domain.palette);
  if (document.activeElement !== input("truth")) input("truth").value = state.truth ?? known?.truth ?? "";
  element("copy-link", HTMLButtonElement).disabled = state.field === "file";
  element("save-weights", HTMLButtonElement).disabled = state.field === "file";
  // Until something was learned, or where another field is chosen, there is nothing of it on the stage.
  element("save-trained", HTMLButtonElement).disabled = state.field !== "drawn";
}

/** Its name, and how it was read; the reader's options are questions here. */
function describeFile({ source, network: { notes = [] } }: NonNullable<Stage["loaded"]>): string {
  return [fileOf(source), ...notes.map((note) => note.replace(/ \(options\.[^)]*\)/, ""))].join("; ");
}

function buildPlane(stage: Stage, attempt: Attempt): void {
  const { state, loaded } = stage;
  const { stateSize: d, contextSize } = loaded!.network;
  const { plane } = state;
  select("plane-kind").value = plane.kind;
  select("plane-kind").querySelector<HTMLOptionElement>("[value=digits]")!.hidden = d !== 64 || contextSize !== 1;
  element("plane", HTMLElement).hidden = d <= 2;
  element("axes", HTMLElement).hidden = plane.kind !== "axes";
  element("redraw", HTMLElement).hidden = plane.kind === "axes";
  for (const [id, axis] of [
    ["axis-i", plane.kind === "axes" ? plane.i : 0],
    ["axis-j", plane.kind === "axes" ? plane.j : 1],
  ] as const) {
    select(id).replaceChildren(...Array.from({ length: d }, (_, k) => option(String(k), `x${subscript(k)}`)));
    select(id).value = String(axis);
  }
  element("digits", HTMLElement).replaceChildren(
    ...stage.digits().map((pixels, index) => {
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `the ${["first", "second", "third"][index]} digit`);
      drawDigit(canvas, pixels);
      return canvas;
    }),
  );
  const rest = element("rest", HTMLElement);
  rest.replaceChildren();
  if (plane.kind !== "axes" || d === 2) return;
  const others = Array.from({ length: d }, (_, k) => k).filter((k) => k !== plane.i && k !== plane.j);
  const numberOf = (k: number): number => (stage.state.plane.kind === "axes" ? (stage.state.plane.rest[k] ?? 0) : 0);
  addSliders(rest, others, { letter: "x", end: 5, numberOf }, (k, value) => {
    const now = stage.state.plane;
    if (now.kind !== "axes") return;
    const numbers = Array.from({ length: d }, (_, index) => (index === k ? value : (now.rest[index] ?? 0)));
    attempt(stage.change({ plane: { ...now, rest: numbers } }));
  });
}

/** Sliders for what a context has beyond its first number, which is the clock's. */
function buildContexts(stage: Stage, attempt: Attempt): void {
  const contexts = element("contexts", HTMLElement);
  contexts.replaceChildren();
  const { contextSize } = stage.loaded!.network;
  const others = Array.from({ length: contextSize }, (_, k) => k).slice(1);
  addSliders(contexts, others, { letter: "c", end: 2, numberOf: (k) => stage.state.context[k]! }, (k, value) =>
    attempt(stage.change({ context: stage.state.context.map((number, index) => (index === k ? value : number)) })),
  );
}

/** A slider from -end to end for each number, or one for the number that is chosen among many. */
function addSliders(
  parent: HTMLElement,
  numbers: readonly number[],
  { letter, end, numberOf }: { letter: string; end: number; numberOf: (k: number) => number },
  onInput: (k: number, value: number) => void,
): void {
  const add = (k: number): void =>
    slider(parent, { id: `${letter}-${k}`, name: `${letter}${subscript(k)}`, value: numberOf(k), low: -end, high: end }, (value) =>
      onInput(k, value),
    );
  if (numbers.length <= MOST_SLIDERS) return numbers.forEach(add);
  const label = document.createElement("label");
  const which = document.createElement("select");
  label.htmlFor = which.id = `${letter}-which`;
  label.textContent = "Of";
  which.style.gridColumn = "span 2";
  which.append(...numbers.map((k) => option(String(k), `${letter}${subscript(k)}`)));
  const show = (): void => {
    parent.replaceChildren(label, which);
    add(Number(which.value));
  };
  which.addEventListener("change", () => {
    show();
    which.focus();
  });
  show();
}
