/** The form beside the picture. */
import type { Activation, Network } from "deldot";
import type { App, Loaded } from "./app.js";
import { drawDigit } from "./digits.js";
import { shippedFields } from "./fields.js";
import { element, option, save, slider } from "./page.js";
import { subscript } from "./plane.js";
import { nameOf, quantitiesOf, type Quantity } from "./quantity.js";
import type { State } from "./state.js";

type Attempt = (work: Promise<unknown>) => void;

/** A play of the first context from 0 to 1 takes this long. */
const PLAY_MILLISECONDS = 6000;
const MOST_SLIDERS = 64;

export function bindControls(app: App, attempt: Attempt, activations: readonly Activation["name"][]): void {
  const select = (id: string): HTMLSelectElement => element(id, HTMLSelectElement);
  const input = (id: string): HTMLInputElement => element(id, HTMLInputElement);
  const onChange = (id: string, listener: () => void): void => element(id, HTMLElement).addEventListener("change", listener);
  const onClick = (id: string, listener: () => void): void => element(id, HTMLButtonElement).addEventListener("click", listener);

  select("field").append(
    ...Object.entries(shippedFields).map(([name, { title }]) => option(name, title)),
    option("random", "A random network"),
  );
  select("activation").append(...activations.map((name) => option(name, name)));
  onChange("field", () => attempt(app.choose(select("field").value)));
  for (const id of ["seed", "dimensions", "width", "depth", "gain", "activation"])
    onChange(id, () => {
      const number = (name: "seed" | "dimensions" | "width" | "depth" | "gain"): number => {
        const { value, min, max } = input(name);
        const given = Number(value) || 0;
        const bounded = Math.min(Number(max || Infinity), Math.max(Number(min), given));
        return name === "gain" ? bounded : Math.round(bounded);
      };
      const random = {
        seed: number("seed"),
        dimensions: number("dimensions"),
        width: number("width"),
        depth: number("depth"),
        gain: number("gain"),
        activation: select("activation").value,
      };
      attempt(app.change({ random }));
    });

  onChange("quantity", () => attempt(app.change({ quantity: select("quantity").value as Quantity, scale: null })));
  onChange("panels", () => attempt(app.change({ panels: select("panels").value as State["panels"], scale: null })));
  for (const id of ["contour", "arrows", "particles"] as const) onChange(id, () => attempt(app.change({ [id]: input(id).checked })));
  onChange("lock", () => attempt(app.change({ scale: input("lock").checked ? app.scale : null })));
  onClick("reset", () => {
    const view = shippedFields[app.state.field]?.view ?? { a: 0, b: 0, width: 6 };
    attempt(app.change({ view }));
  });

  onChange("plane-kind", () => {
    const kind = select("plane-kind").value;
    const plane = kind === "axes" ? ({ kind, i: 0, j: 1, rest: [] } as const) : ({ kind: kind as "random" | "digits", seed: 1 } as const);
    attempt(app.change({ plane, pin: null, scale: null }));
  });
  for (const id of ["axis-i", "axis-j"])
    onChange(id, () => {
      const { plane } = app.state;
      if (plane.kind !== "axes") return;
      let [i, j] = [Number(select("axis-i").value), Number(select("axis-j").value)];
      // The same for both: the other one takes what this one had.
      if (i === j) [i, j] = id === "axis-i" ? [i, plane.i] : [plane.j, j];
      attempt(app.change({ plane: { ...plane, i, j }, pin: null }));
    });
  onClick("redraw", () => {
    const { plane } = app.state;
    if (plane.kind !== "axes") attempt(app.change({ plane: { ...plane, seed: plane.seed + 1 }, pin: null, scale: null }));
  });

  const setTime = (t: number): void => attempt(app.change({ context: [t, ...app.state.context.slice(1)] }));
  input("t").addEventListener("input", () => setTime(Number(input("t").value)));
  let playing: number | null = null;
  const stop = (): void => {
    if (playing !== null) cancelAnimationFrame(playing);
    playing = null;
    const play = element("play", HTMLButtonElement);
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  onClick("play", () => {
    if (playing !== null) return stop();
    const play = element("play", HTMLButtonElement);
    play.textContent = "Stop";
    play.setAttribute("aria-pressed", "true");
    const { network } = app.loaded!;
    const from = app.state.context[0]! >= 0.999 ? 0 : app.state.context[0]!;
    const begun = performance.now() - from * PLAY_MILLISECONDS;
    const frame = async (): Promise<void> => {
      if (app.loaded?.network !== network) return stop();
      const t = Math.min(1, (performance.now() - begun) / PLAY_MILLISECONDS);
      await app.showContext([t, ...app.state.context.slice(1)], t < 1).catch((error: unknown) => {
        stop();
        throw error;
      });
      if (t >= 1) return stop();
      if (playing !== null) playing = requestAnimationFrame(() => attempt(frame()));
    };
    playing = requestAnimationFrame(() => attempt(frame()));
  });

  onClick("save-png", () => attempt(app.toPng().then((blob) => save(blob, "divergence.png"))));
  onClick("save-csv", () => attempt(app.toCsv().then((blob) => save(blob, "divergence.csv"))));
  onClick("save-npy", () => attempt(app.toNpy().then((blob) => save(blob, "divergence.npy"))));
  onClick("copy-link", () => {
    const button = element("copy-link", HTMLButtonElement);
    history.replaceState(null, "", app.link());
    // Without the right to the clipboard the link is still in the address bar.
    attempt(
      navigator.clipboard.writeText(app.link()).then(
        () => void (button.textContent = "Copied"),
        () => void (button.textContent = "It is in the address bar"),
      ),
    );
    setTimeout(() => (button.textContent = "Copy link"), 2000);
  });
}

/** Its name, and how it was read; the reader's options are questions here. */
function describeFile({ file, network: { notes = [] } }: Loaded): string {
  return [file ?? "", ...notes.map((note) => note.replace(/ \(options\.[^)]*\)/, ""))].join("; ");
}

/** What the controls were built for: they are built anew only where that changes, so that a slider keeps its focus. */
let builtFor = "";
let builtNetwork: Network | null = null;

/** Brings the form in line with the state. */
export function showState(app: App, attempt: Attempt): void {
  const { state, loaded } = app;
  if (!loaded) return;
  const { network } = loaded;
  const d = network.stateSize;
  const shipped = shippedFields[state.field];
  const select = (id: string): HTMLSelectElement => element(id, HTMLSelectElement);
  const input = (id: string): HTMLInputElement => element(id, HTMLInputElement);
  const hide = (id: string, hidden: boolean): void => void (element(id, HTMLElement).hidden = hidden);
  const text = (id: string, words: string): void => void (element(id, HTMLElement).textContent = words);

  if (state.field === "file" && !select("field").querySelector("[value=file]")) select("field").append(option("file", "Your file"));
  select("field").value = state.field;
  text(
    "about",
    shipped?.about ??
      (state.field === "random" ? "Weights uniform in ±gain/√inputs, as PyTorch draws them for a gain of 1." : describeFile(loaded)),
  );
  hide("random", state.field !== "random");
  for (const id of ["seed", "dimensions", "width", "depth", "gain"] as const) input(id).value = String(state.random[id]);
  select("activation").value = state.random.activation;

  const built = `${state.field} ${d} ${network.contextSize} ${JSON.stringify(state.plane.kind === "axes" ? [state.plane.i, state.plane.j] : state.plane)}`;
  if (built !== builtFor || network !== builtNetwork) {
    builtFor = built;
    builtNetwork = network;
    select("quantity").replaceChildren(...quantitiesOf(d).map((quantity) => option(quantity, nameOf(quantity))));
    buildPlane(app, attempt);
    buildContexts(app, attempt);
  }
  select("quantity").value = state.quantity;
  select("panels").value = state.panels;
  hide("panels-row", app.truth === null);
  text("truth", app.truth ? `The truth is ${app.truth.text}.` : "");
  input("contour").checked = state.contour;
  input("arrows").checked = state.arrows;
  input("particles").checked = state.particles;
  input("lock").checked = state.scale !== null;

  element("copy-link", HTMLButtonElement).disabled = state.field === "file";
  hide("time", network.contextSize === 0);
  if (network.contextSize > 0) {
    input("t").value = String(state.context[0]);
    text("t-value", state.context[0]!.toFixed(2));
  }
}

function buildPlane(app: App, attempt: Attempt): void {
  const { state, loaded } = app;
  const { stateSize: d, contextSize } = loaded!.network;
  const { plane } = state;
  const kinds = element("plane-kind", HTMLSelectElement);
  kinds.value = plane.kind;
  kinds.querySelector<HTMLOptionElement>("[value=digits]")!.hidden = d !== 64 || contextSize !== 1;
  element("plane", HTMLElement).hidden = d <= 2;
  element("axes", HTMLElement).hidden = plane.kind !== "axes";
  element("redraw", HTMLElement).hidden = plane.kind === "axes";
  for (const [id, axis] of [
    ["axis-i", plane.kind === "axes" ? plane.i : 0],
    ["axis-j", plane.kind === "axes" ? plane.j : 1],
  ] as const) {
    const select = element(id, HTMLSelectElement);
    select.replaceChildren(...Array.from({ length: d }, (_, k) => option(String(k), `x${subscript(k)}`)));
    select.value = String(axis);
  }
  element("digits", HTMLElement).replaceChildren(
    ...app.digits().map((pixels, index) => {
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
  for (let k = 0; k < Math.min(d, MOST_SLIDERS); k++) {
    if (k === plane.i || k === plane.j) continue;
    slider(rest, { id: `x-${k}`, name: `x${subscript(k)}`, value: plane.rest[k] ?? 0, low: -5, high: 5 }, (value) => {
      const now = app.state.plane;
      if (now.kind !== "axes") return;
      const numbers = Array.from({ length: d }, (_, index) => (index === k ? value : (now.rest[index] ?? 0)));
      attempt(app.change({ plane: { ...now, rest: numbers } }));
    });
  }
}

/** Sliders for what a context has beyond its first number, which has the large one. */
function buildContexts(app: App, attempt: Attempt): void {
  const contexts = element("contexts", HTMLElement);
  contexts.replaceChildren();
  const { contextSize } = app.loaded!.network;
  for (let k = 1; k < Math.min(contextSize, MOST_SLIDERS); k++)
    slider(contexts, { id: `c-${k}`, name: `c${subscript(k)}`, value: app.state.context[k]!, low: -2, high: 2 }, (value) => {
      attempt(app.change({ context: app.state.context.map((number, index) => (index === k ? value : number)) }));
    });
}
