/** The shelf: a card with a picture for each field, and the place for one's own. */
import { evaluateReference, type Network } from "deldot";
import { paintPixels } from "../engines/cpuEngine.js";
import { groups, loadShelf, shelf, viewOf, type ShelfField } from "../fields/shelf.js";
import { axesPlane, gridPoints, toPixel, type Plane, type View } from "../base/plane.js";
import { withContext } from "../base/quantity.js";
import { domainOf, type Stage } from "../stage.js";

const SIZE = { width: 48, height: 30 } as const;
/** Of the numbers of a picture: between them it goes from colour to colour. */
const GRID = { columns: 24, rows: 15 } as const;
/** A picture of a flow is of a time when it has a shape. */
const FLOW_TIME = 0.9;
/** Less than a frame lasts. */
const SLICE_MILLISECONDS = 8;

/** @param onFormula hears of one that was typed and is on the stage. */
export function bindShelf(
  root: HTMLElement,
  stage: Stage,
  attempt: (work: Promise<unknown>) => void,
  onFormula: (text: string) => void,
): void {
  for (const group of groups) {
    const title = document.createElement("h2");
    title.textContent = group;
    const cards = document.createElement("div");
    cards.className = group === "Basics" ? "group" : "group large";
    for (const [name, field] of Object.entries(shelf)) {
      if (field.group !== group) continue;
      const card = cardOf(name, field.title, () => attempt(stage.choose({ field: name })));
      card.title = field.about;
      cards.append(card);
    }
    root.append(title, cards);
  }
  const title = document.createElement("h2");
  title.textContent = "Yours";
  const own = document.createElement("div");
  own.className = "group large";
  own.innerHTML = `
    <form id="formula-form">
      <label class="unseen" for="formula">A field as a formula</label>
      <input id="formula" type="text" spellcheck="false" autocomplete="off" />
    </form>
    <label class="file" for="file"><span class="roomy">Drop a .onnx or .safetensors, or pick one; nothing</span
      ><span class="narrow">Pick a file; nothing</span> is uploaded
      <input id="file" type="file" accept=".onnx,.safetensors,.data,.npy,.csv,.tsv,.txt" multiple /></label>
    <div id="own" class="group large"></div>`;
  own.append(cardOf("random", "A random network", () => attempt(stage.choose({ field: "random" }))));
  root.append(title, own);
  const formula = own.querySelector<HTMLInputElement>("#formula")!;
  own.querySelector("form")!.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = formula.value;
    attempt(
      stage.choose({ field: "formula", formula: text }).then(() => {
        if (stage.state.field === "formula" && stage.state.formula === text) onFormula(text);
      }),
    );
  });
}

function cardOf(name: string, title: string, onClick: () => void): HTMLButtonElement {
  const card = document.createElement("button");
  card.type = "button";
  card.className = "card";
  card.dataset["field"] = name;
  card.setAttribute("aria-pressed", "false");
  const label = document.createElement("span");
  label.textContent = title;
  if (name in shelf) card.append(Object.assign(document.createElement("canvas"), SIZE));
  card.append(label);
  card.addEventListener("click", onClick);
  return card;
}

export function showShelf(root: HTMLElement, { state }: Stage): void {
  for (const card of root.querySelectorAll<HTMLElement>(".card[data-field]"))
    card.setAttribute("aria-pressed", String(card.dataset["field"] === state.field));
  const formula = root.querySelector<HTMLInputElement>("#formula")!;
  if (document.activeElement !== formula) formula.value = state.formula;
}

/** Which drawing is the last one asked for. */
let drawn = 0;

/** What a card shows: the numbers of its picture, row by row from the top. */
interface Pictured {
  readonly network: Network;
  readonly plane: Plane;
  readonly view: View;
  readonly values: readonly number[];
}
const pictured = new Map<string, Pictured>();

/** Draws the cards' pictures in float64, when the browser has nothing else to do, and for a short while at a time. */
export async function drawCards(root: HTMLElement, isDark: boolean): Promise<void> {
  const mine = ++drawn;
  for (const [name, field] of Object.entries(shelf)) {
    const canvas = root.querySelector<HTMLCanvasElement>(`[data-field="${name}"] canvas`)!;
    const known = pictured.get(name) ?? (await picture(field).catch(() => null));
    if (known) pictured.set(name, known);
    if (mine !== drawn) return;
    if (known) drawCard(canvas, field, known, isDark);
  }
}

async function picture(field: ShelfField): Promise<Pictured> {
  const network = await loadShelf(field);
  const d = network.stateSize;
  const { plane: choice, extent } = field;
  const plane = choice.kind === "axes" ? axesPlane(d, choice.i, choice.j, choice.rest) : axesPlane(d, 27, 28, []);
  const view = viewOf(extent, SIZE, { left: 0, top: 0, right: 0, bottom: 0 });
  const at = network.contextSize > 0 ? [FLOW_TIME, ...field.context.slice(1)] : [];
  const points = gridPoints(plane, view, GRID, SIZE.height / SIZE.width);
  const values: number[] = [];
  const step = GRID.columns * d;
  let begun = -Infinity;
  for (let row = 0; row < GRID.rows; row++) {
    if (performance.now() - begun > SLICE_MILLISECONDS) {
      await idle();
      begun = performance.now();
    }
    values.push(
      ...evaluateReference(network, points.subarray(row * step, (row + 1) * step), { ...withContext(at), outputs: ["divergence"] })
        .divergence!,
    );
  }
  return { network, plane, view, values };
}

function drawCard(canvas: HTMLCanvasElement, field: ShelfField, { network, plane, view, values }: Pictured, isDark: boolean): void {
  const palette = isDark ? "diverging-dark" : "diverging";
  // Where an error is shown, around the mean, which is near the truth.
  const mean = field.layers.includes("error") ? values.reduce((sum, value) => sum + value, 0) / values.length : 0;
  const { low, high, ...rest } = domainOf(
    values.map((value) => value - mean),
    null,
    null,
    palette,
  );
  const pixels = paintPixels(values, { width: GRID.columns, height: GRID.rows }, { low: low + mean, high: high + mean, ...rest });
  const context = canvas.getContext("2d")!;
  context.drawImage(pixels, 0, 0, SIZE.width, SIZE.height);
  if (field.group === "Basics") drawStrokes(context, network, plane, view, isDark);
}

/** Short pieces of paths: some of these fields have one colour. */
function drawStrokes(context: CanvasRenderingContext2D, network: Network, plane: Plane, view: View, isDark: boolean): void {
  const points = gridPoints(plane, view, { columns: 7, rows: 4 }, SIZE.height / SIZE.width);
  const value = evaluateReference(network, points, { outputs: ["value"] }).value!;
  context.strokeStyle = isDark ? "rgb(255 255 255 / 0.85)" : "rgb(20 18 30 / 0.8)";
  context.beginPath();
  for (let i = 0; i < points.length; i += 2) {
    const [x, y] = toPixel(view, SIZE, points[i]!, points[i + 1]!);
    const length = 2.6 / (Math.hypot(value[i]!, value[i + 1]!) || 1);
    context.moveTo(x - length * value[i]!, y + length * value[i + 1]!);
    context.lineTo(x + length * value[i]!, y - length * value[i + 1]!);
  }
  context.stroke();
}

function idle(): Promise<void> {
  return new Promise((resolve) => {
    if ("requestIdleCallback" in globalThis) requestIdleCallback(() => resolve(), { timeout: 50 });
    else setTimeout(resolve, 10);
  });
}
