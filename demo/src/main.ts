/** Starts the page: an engine, the stage and what is around it, and what happens when the GPU is lost. */
import { activationNames, DeviceLostError, explainPlan, type Network } from "deldot";
import { bindClock, drawTrack, showTime } from "./controls/clock.js";
import { codeFor, fileOf, type Code } from "./fields/code.js";
import { addRow, plotComparison } from "./tools/comparisonView.js";
import { bindChips, bindControls, openPanel, resetView, showControls } from "./controls/controls.js";
import { CpuEngine } from "./engines/cpuEngine.js";
import type { Engine } from "./engines/engine.js";
import { bindFiles } from "./controls/files.js";
import { listen } from "./controls/gestures.js";
import { openGpu } from "./engines/gpuEngine.js";
import { showHeadline } from "./controls/headline.js";
import { createInk } from "./tools/ink.js";
import { createLens } from "./tools/lens.js";
import { compare, type Compared } from "./tools/methods.js";
import { milliseconds, short } from "./base/numbers.js";
import { EDGE, type Margins } from "./layers/overlay.js";
import { createDraw } from "./tools/draw.js";
import { element, save, stored } from "./base/page.js";
import { createOwn } from "./controls/own.js";
import { createReader } from "./tools/reader.js";
import { nameFor, toCsv, toNpy, toPng, toWebm, toWeights } from "./controls/share.js";
import { bindShelf, drawCards, showShelf } from "./controls/shelfView.js";
import { createSplit, isDivergence } from "./tools/split.js";
import { bindSplit, showSplit } from "./tools/splitView.js";
import { domainOf, Stage } from "./stage.js";
import { bindStory } from "./controls/story.js";
import { fromHash, layers, type Link } from "./base/state.js";

const COMPARED_COLUMNS = 48;
/** A GPU that is lost more often than this is given up. */
const MOST_LOSSES = 3;
const START: Link = { field: "two-moons" };

/** `?engine=webgpu` computes on any adapter; `onnxruntime` and `reference` (float64) on the CPU: for tests and comparisons. */
const query = new URLSearchParams(location.search);
const wanted = query.get("engine");

let losses = 0;
let comparing: AbortController | null = null;
/** What the comparison has plotted. */
let plotted: readonly Compared[] = [];
/** The network that the comparison and the explanation are of. */
let seen: Network | undefined;
let canvas = element("canvas", HTMLCanvasElement);
const overlay = element("overlay", HTMLCanvasElement);
const [problem, trouble] = [element("problem", HTMLElement), element("trouble", HTMLElement)];
const [comparison, comparisonPlot] = [element("comparison", HTMLTableElement), element("comparison-plot", HTMLCanvasElement)];
const root = document.documentElement;
const shelfRoot = element("shelf", HTMLElement);

/** What the page's elements cover of the stage. */
function margins(): Margins {
  const { width, height } = overlay.getBoundingClientRect();
  const bounds = (id: string): DOMRect => element(id, HTMLElement).getBoundingClientRect();
  const [top, shelf, bottom] = [bounds("top"), bounds("shelf"), bounds("bottom")];
  const isBeside = shelf.width > 0 && shelf.height > height / 2;
  return { left: (isBeside ? shelf.right : 0) + EDGE, top: top.bottom + 8, right: Math.min(14, width), bottom: height - bottom.top + 8 };
}

const stage = new Stage(fromHash(location.hash) ?? START, canvas, element("motion", HTMLCanvasElement), overlay, margins, {
  onError: report,
  onChange: showAll,
  onTime: () => {
    showTime(stage);
    showHeadline(stage);
    updateTools();
  },
  onPainted: ({ columns, rows, milliseconds: time, done }, mass) => {
    showCards();
    const parts = [
      columns > 0 && `${stage.groundName} at ${columns} × ${rows} points in ${milliseconds(time)} on ${stage.engine!.name}`,
      mass !== null &&
        (Number.isFinite(mass) ? `mass in view ${short(mass, 4)}` : "what is in view cannot be summed on cells of this size"),
    ];
    // Not read out picture by picture as a film goes on.
    element("status", HTMLElement).setAttribute("aria-live", done && !stage.isPlaying ? "polite" : "off");
    element("status", HTMLElement).textContent = parts.filter(Boolean).join("; ");
    // Only now is its middle known.
    if (done && stage.state.scale !== null) showCode();
    if (mass !== null) element("status", HTMLElement).dataset["mass"] = String(mass);
  },
  onCloud: () => drawTrack(stage),
  draw: (context) => {
    draw.draw(context);
    reader.draw(context);
    lens.draw(context);
    ink.draw(context);
  },
  drawUnder: (context) => split.draw(context),
});
bindChips(stage, attempt);
const reader = createReader(stage, report);
const lens = createLens(stage, report);
const ink = createInk(stage, report);
const draw = createDraw(stage, overlay, attempt, (name, title) => own.keep(name, title));
const split = createSplit(stage, report, () => showSplit(stage, split));

let hasCards = false;
/** The shelf's pictures, once: what is on the stage comes first, and they need not wait for its finest. */
function showCards(): void {
  if (!hasCards) void drawCards(shelfRoot, stage.isDark);
  hasCards = true;
}

/** Shows what went wrong; a lost device mends itself. */
function report(error: unknown): void {
  if (error instanceof DeviceLostError) return;
  problem.textContent = (error as Error).message;
  trouble.hidden = false;
}

function attempt(work: Promise<unknown>): void {
  trouble.hidden = true;
  work.catch(report);
}

/** Says what happened, until it is closed. */
function tell(text: string): void {
  element("notice", HTMLElement).textContent = text;
  element("news", HTMLElement).hidden = false;
}

/** How to switch WebGPU on, in the browsers that have a switch. */
function adviceFor(agent: string): string {
  if (/Firefox/.test(agent)) return "In Firefox, set dom.webgpu.enabled to true on about:config, or take a version from 141 on Windows.";
  if (/Chrome|Edg/.test(agent))
    return "In Chrome and Edge, take a current version, switch hardware acceleration on in the settings, or WebGPU on about:flags.";
  if (/Safari/.test(agent)) return "In Safari, take version 26 or later, or switch WebGPU on among the feature flags of the settings.";
  return "Current versions of Chrome, Edge, Safari and Firefox have it.";
}

/** A canvas keeps the kind of its first context, so another engine gets another canvas. */
function freshCanvas(): HTMLCanvasElement {
  const fresh = canvas.cloneNode() as HTMLCanvasElement;
  for (const key of Object.keys(fresh.dataset)) delete fresh.dataset[key];
  canvas.replaceWith(fresh);
  return (canvas = fresh);
}

/** Brings all that depends on the state in line with it; what was begun for another field ends. */
function showAll(): void {
  showControls(stage, attempt);
  showShelf(shelfRoot, stage);
  own.show();
  showTime(stage);
  showHeadline(stage);
  showCode();
  showSplit(stage, split);
  showLens();
  updateTools();
  if (stage.loaded?.network === seen) return;
  seen = stage.loaded?.network;
  endComparison();
  explain();
}

const places: readonly (keyof Code)[] = ["browser", "node", "shell"];
let place: keyof Code = "browser";

/** What they say is of the field and the time that there are now. */
function updateTools(): void {
  split.update();
  lens.update();
  reader.update();
  reader.showPin();
}

function showCode(): void {
  const { loaded, state, plane } = stage;
  for (const each of places) element(`code-${each}`, HTMLButtonElement).setAttribute("aria-pressed", String(each === place));
  if (!loaded || element("share", HTMLElement).hidden) return;
  // On the command line a scale is around 0.
  const limit = isDivergence(stage) && stage.domain.low === -stage.domain.high ? state.scale : null;
  element("code", HTMLElement).textContent = codeFor(loaded.source, state, plane, limit)[place];
  element("save-weights", HTMLButtonElement).textContent = fileOf(loaded.source);
}

function explain(): void {
  const text = element("explain", HTMLElement);
  if (stage.loaded && text.closest("details")!.open) text.textContent = String(explainPlan(stage.loaded.network));
}

async function start(): Promise<void> {
  if (wanted === "onnxruntime" || wanted === "reference") return startCpu();
  stage.useCanvas(freshCanvas());
  let isOpen = false;
  try {
    const engine = await openGpu(canvas, wanted === "webgpu", (reason) => void recover(reason).catch(report));
    isOpen = true;
    if (losses > 0) tell("The GPU was lost and has been found again; the picture is as it was.");
    await startWith(engine);
  } catch (error) {
    if (error instanceof DeviceLostError) return;
    if (isOpen) return report(error);
    if (stored.get("deldot cpu") === null)
      tell(
        `Without a GPU (${(error as Error).message}) this page computes on the CPU: the same pictures, more slowly. ${adviceFor(navigator.userAgent)}`,
      );
    await startCpu();
  }
}

async function startCpu(): Promise<void> {
  stage.useCanvas(freshCanvas());
  await startWith(new CpuEngine(canvas, wanted !== "reference", () => void stage.refresh().catch(report)));
}

/** Has the stage compute by an engine; in place of a field that this refuses it shows the page's own beginning. */
async function startWith(engine: Engine): Promise<void> {
  const { choice } = stage;
  try {
    await stage.start(engine);
  } catch (error) {
    if (error instanceof DeviceLostError || stage.engine === engine) throw error;
    report(error);
    [stage.loaded, stage.engine] = [null, engine];
    // Where another is on its way, that is what it shows.
    if (stage.choice === choice) await stage.choose(START);
  }
}

async function recover(reason: string): Promise<void> {
  losses++;
  stage.stop();
  tell(`The GPU was lost (${reason}); starting it again.`);
  if (losses <= MOST_LOSSES) return start();
  tell("The GPU was lost again and again; the page now computes on the CPU.");
  await startCpu();
}

async function runComparison(): Promise<void> {
  if (!stage.loaded || !stage.engine) throw new Error("the field is still loading");
  endComparison();
  comparing = new AbortController();
  const { signal } = comparing;
  const all: Compared[] = [];
  /** The stage's, or where that shows something else, the first picture's. */
  let domain = isDivergence(stage) ? stage.domain : null;
  comparison.hidden = false;
  comparison.tBodies[0]!.replaceChildren();
  comparison.dataset["state"] = "running";
  const { engine } = stage;
  const { network } = stage.loaded;
  // Nothing else is computed meanwhile.
  stage.isPlaying = false;
  try {
    await stage.refresh();
    if (signal.aborted) return;
    if (stage.engine !== engine) throw new Error("the GPU was lost meanwhile; try again");
    const shot = { plane: stage.plane, view: stage.state.view, context: stage.state.context };
    await compare(engine, network, shot, COMPARED_COLUMNS, signal, (compared) => {
      all.push(compared);
      if (compared.picture) domain ??= domainOf(Array.from(compared.picture), null, null, stage.isDark ? "diverging-dark" : "diverging");
      addRow(comparison.tBodies[0]!, compared, COMPARED_COLUMNS, domain ?? stage.domain);
    });
  } catch (error) {
    if (signal.aborted) return;
    comparison.dataset["state"] = "failed";
    throw error;
  }
  plotted = all;
  showPlot();
  comparison.dataset["state"] = "done";
}

/** What is of another field, or of none to its end, is not shown. */
function endComparison(): void {
  comparing?.abort();
  plotted = [];
  comparison.hidden = true;
  delete comparison.dataset["state"];
  showPlot();
}

function showPlot(): void {
  comparisonPlot.hidden = plotted.length === 0;
  if (comparisonPlot.clientWidth > 0) plotComparison(comparisonPlot, plotted, getComputedStyle(root).getPropertyValue("--ink"));
}

function setTheme(theme: "dark" | "light"): void {
  root.dataset["theme"] = theme;
  stage.isDark = theme === "dark";
  void drawCards(shelfRoot, stage.isDark);
  drawTrack(stage);
  draw.show();
  showPlot();
  void stage.refresh().catch(report);
}

function toggleLens(): void {
  lens.isOn = !lens.isOn;
  showLens();
  // For keys alone.
  if (lens.isOn) lens.centre();
  stage.drawMoving();
}

/** Of a field in more dimensions it says nothing until there is another. */
function showLens(): void {
  const button = element("lens-toggle", HTMLButtonElement);
  const isFlat = stage.loaded?.network.stateSize === 2;
  button.disabled = !isFlat;
  button.setAttribute("aria-pressed", String(lens.isOn && isFlat));
  button.title = isFlat
    ? "What flows out of a circle is made inside it (L; sized by [ and ], the wheel with Shift, or a pinch around it)"
    : "For fields in two dimensions";
}

/** The stage hears keys after what is closed. */
function unpin(): void {
  stage.setPin(null);
  overlay.focus();
}

const onClick = (id: string, listener: () => void): void => element(id, HTMLButtonElement).addEventListener("click", listener);

bindShelf(shelfRoot, stage, attempt, (text) => own.keep(`formula ${text}`, text));
const own = createOwn(element("own", HTMLElement), stage, attempt);
bindControls(stage, attempt, [...activationNames]);
bindClock(stage, attempt);
bindFiles(
  stage,
  (name, bytes) => {
    if (!draw.take(name, bytes)) return false;
    if (!draw.isOn) element("draw-toggle", HTMLButtonElement).click();
    return true;
  },
  attempt,
  [...activationNames],
  (name) => own.keep(`file ${name}`, name),
);
bindSplit(stage, split);
bindStory(
  stage,
  (tool) => {
    if (lens.isOn !== (tool === "lens")) toggleLens();
    if (split.isOn !== (tool === "split")) element("split-toggle", HTMLButtonElement).click();
  },
  attempt,
);
onClick("compare", () => attempt(runComparison()));
onClick("lens-toggle", toggleLens);
onClick("unpin", unpin);
onClick("close-problem", () => {
  trouble.hidden = true;
  overlay.focus();
});
onClick("close-notice", () => {
  element("news", HTMLElement).hidden = true;
  overlay.focus();
  // That there is no GPU is no news at the next visit.
  if (losses === 0) stored.set("deldot cpu", "told");
});
// What is not shown is not kept up, and has no size to be drawn in.
addEventListener(
  "toggle",
  () => {
    showCode();
    showPlot();
    explain();
    reader.showPin();
  },
  true,
);
for (const each of places)
  onClick(`code-${each}`, () => {
    place = each;
    showCode();
  });
onClick("theme", () => {
  const theme = root.dataset["theme"] === "dark" ? "light" : "dark";
  stored.set("deldot theme", theme);
  setTheme(theme);
});
const formats = { png: toPng, webm: toWebm, csv: toCsv, npy: toNpy };
/** One at a time, since pictures and films have the stage's size and time to themselves; its button says meanwhile that it is made. */
async function saveAs(ending: string, make: (stage: Stage) => Promise<Blob>): Promise<void> {
  // Of what is shown now, and not of what is once it is made.
  const name = `${nameFor(stage)}.${ending}`;
  const buttons = Object.keys(formats).map((each) => element(`save-${each}`, HTMLButtonElement));
  const pressed = element(`save-${ending}`, HTMLButtonElement);
  const [label, hadFocus] = [pressed.textContent, document.activeElement === pressed];
  for (const button of buttons) button.disabled = true;
  pressed.textContent = ending === "webm" ? "Recording…" : "Saving…";
  try {
    save(await make(stage), name);
  } finally {
    pressed.textContent = label;
    for (const button of buttons) button.disabled = false;
    // Browsers take it from what is disabled.
    if (hadFocus && document.activeElement === document.body) pressed.focus();
  }
}
for (const [ending, make] of Object.entries(formats)) onClick(`save-${ending}`, () => attempt(saveAs(ending, make)));
onClick("save-weights", () => attempt((async () => save(toWeights(stage), fileOf(stage.loaded!.source)))()));
for (const [id, text] of [
  ["copy-link", () => stage.href()],
  ["copy-code", () => element("code", HTMLElement).textContent],
] as const)
  onClick(id, () => {
    const button = element(id, HTMLButtonElement);
    const label = id === "copy-link" ? "Copy link" : "Copy";
    attempt(
      Promise.resolve((navigator.clipboard as Clipboard | undefined)?.writeText(text()) ?? Promise.reject(new Error("no clipboard"))).then(
        () => void (button.textContent = "Copied"),
        () => void (button.textContent = id === "copy-link" ? "It is in the address bar" : "Select it"),
      ),
    );
    setTimeout(() => (button.textContent = label), 2000);
  });

listen(overlay, {
  get size() {
    return stage.size;
  },
  get view() {
    return stage.state.view;
  },
  isEmbedded: query.has("embed"),
  onView: (view, moving) => void stage.moveTo(view, moving).catch(report),
  isSized: (x, y) => lens.isAt(x, y),
  onSize: (factor) => lens.resize(factor),
  onPoint: (a, b, x, y) => {
    reader.point(a, b, x, y);
    lens.point(a, b);
  },
  onLeave: () => reader.leave(),
  onPin: (a, b) => {
    // A finger has no way to point but this.
    lens.point(a, b);
    stage.setPin([a, b]);
  },
  onUnpin: () => (stage.state.pin ? stage.setPin(null) : openPanel(null)),
  onReset: () => attempt(resetView(stage)),
  onMiddle: (a, b) => lens.point(a, b),
  onHold: (a, b) => ink.hold(a, b),
  onRelease: () => ink.release(),
});

addEventListener("keydown", (event) => {
  // On many keyboards [ and ] take Option, or AltGr, which may come as Ctrl with Alt.
  const isOther = event.metaKey || ((event.ctrlKey || event.altKey) && !(event.altKey && /^[[\]]$/.test(event.key)));
  // What asks something has the keys for itself.
  if (event.defaultPrevented || isOther || !(event.target instanceof HTMLElement) || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input:not([type=range]), select") && event.key !== "Escape") return;
  // A button's own.
  if (event.key === " " && event.target.closest("button, summary, pre, .scroll")) return;
  const layer = layers[Number(event.key) - 1];
  if (layer && stage.can(layer)) return attempt(stage.toggle(layer));
  const actions: Record<string, () => void> = {
    " ": () => stage.play(!stage.isPlaying),
    l: () => !element("lens-toggle", HTMLButtonElement).disabled && toggleLens(),
    s: () => element("split-toggle", HTMLButtonElement).click(),
    "[": () => lens.resize(0.8),
    "]": () => lens.resize(1.25),
    Escape: () => (element("ledger", HTMLElement).contains(document.activeElement) ? unpin() : openPanel(null)),
  };
  const action = actions[event.key.toLowerCase()] ?? actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

for (const event of ["pointerdown", "keydown", "wheel"])
  addEventListener(event, () => (element("hint", HTMLElement).hidden = true), { once: true });

// These are nobody's doing: they leave the message of what was.
let width = 0;
new ResizeObserver(([entry]) => {
  const now = entry!.contentRect.width;
  const wasThere = width > 0;
  width = now;
  if (wasThere) {
    drawTrack(stage);
    void stage.refresh().catch(report);
  }
}).observe(element("plot", HTMLElement));
/** As when a window goes to another screen, or the browser zooms. */
function watchRatio(): void {
  matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener(
    "change",
    () => {
      watchRatio();
      void stage.refresh().catch(report);
    },
    { once: true },
  );
}
watchRatio();
/** Between the bar, with what is said there, and the clock panels have their room. */
const [said, bottom] = [element("said", HTMLElement), element("bottom", HTMLElement)];
const watchRoom = new ResizeObserver(() => {
  root.style.setProperty("--top", `${said.getBoundingClientRect().bottom}px`);
  root.style.setProperty("--bottom", `${innerHeight - bottom.getBoundingClientRect().top}px`);
});
for (const part of [element("top", HTMLElement), said, bottom]) watchRoom.observe(part);
addEventListener("hashchange", ({ newURL }) => {
  // By now the page may have noted in the address what it showed before.
  const link = fromHash(new URL(newURL).hash);
  if (link) attempt(stage.choose(link));
});

const theme = query.get("theme") ?? stored.get("deldot theme");
root.dataset["theme"] = theme === "light" ? "light" : "dark";
stage.isDark = root.dataset["theme"] === "dark";
if (query.has("embed")) root.dataset["embed"] = "";
/** What the address names, or else the page's own beginning. */
async function begin(): Promise<void> {
  try {
    await stage.choose(fromHash(location.hash) ?? START);
  } catch (error) {
    report(error);
    await stage.choose(START);
  }
}
// Also where nothing came to be painted.
attempt(Promise.all([begin(), start()]).finally(showCards));
