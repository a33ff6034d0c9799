/** Starts the page: an engine, the controls, and what happens when the GPU is lost. */
import { activationNames, DeviceLostError, explainPlan, type Network } from "deldot";
import { App } from "./app.js";
import { addRow, plotComparison } from "./comparisonView.js";
import { bindControls, showState } from "./controls.js";
import { CpuEngine } from "./cpuEngine.js";
import { bindFiles } from "./files.js";
import { listen } from "./gestures.js";
import { openGpu } from "./gpuEngine.js";
import { compare, type Compared } from "./methods.js";
import { element } from "./page.js";
import { fromHash, initialState } from "./state.js";

const COMPARED_COLUMNS = 48;
/** A GPU that is lost more often than this is given up. */
const MOST_LOSSES = 3;

/** `?engine=webgpu` computes on any adapter; `onnxruntime` and `reference` (float64) on the CPU: for tests and comparisons. */
const wanted = new URLSearchParams(location.search).get("engine");

let losses = 0;
let comparing: AbortController | null = null;
/** The network that the comparison and the explanation are of. */
let seen: Network | undefined;
let canvas = element("canvas", HTMLCanvasElement);
const overlay = element("overlay", HTMLCanvasElement);
const problem = element("problem", HTMLElement);
const notice = element("notice", HTMLElement);

const app = new App(
  fromHash(location.hash) ?? initialState,
  canvas,
  overlay,
  {
    status: element("status", HTMLElement),
    probe: element("probe", HTMLElement),
    probeKind: element("probe-kind", HTMLElement),
    digit: element("digit", HTMLCanvasElement),
    code: element("code", HTMLElement),
  },
  { onError: report, onChange: showAll },
);

/** Shows what went wrong; a lost device mends itself. */
function report(error: unknown): void {
  if (error instanceof DeviceLostError) return;
  problem.textContent = (error as Error).message;
  problem.hidden = false;
}

function attempt(work: Promise<unknown>): void {
  problem.hidden = true;
  work.catch(report);
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
  showState(app, attempt);
  if (app.loaded?.network === seen) return;
  seen = app.loaded?.network;
  comparing?.abort();
  explain();
}

function explain(): void {
  const text = element("explain", HTMLElement);
  if (app.loaded && text.closest("details")!.open) text.textContent = String(explainPlan(app.loaded.network));
}

async function start(): Promise<void> {
  if (wanted === "onnxruntime" || wanted === "reference") return startCpu();
  app.useCanvas(freshCanvas());
  let isOpen = false;
  try {
    const engine = await openGpu(canvas, wanted === "webgpu", (reason) => void recover(reason).catch(report));
    isOpen = true;
    if (losses > 0) notice.textContent = "The GPU was lost and has been found again; the picture is as it was.";
    await app.start(engine);
  } catch (error) {
    if (error instanceof DeviceLostError) return;
    if (isOpen) return report(error);
    notice.hidden = false;
    notice.textContent = `Without a GPU (${(error as Error).message}) this page computes on the CPU: the same pictures, more slowly. ${adviceFor(navigator.userAgent)}`;
    await startCpu();
  }
}

async function startCpu(): Promise<void> {
  app.useCanvas(freshCanvas());
  await app.start(new CpuEngine(canvas, wanted !== "reference", () => void app.refresh().catch(report)));
}

async function recover(reason: string): Promise<void> {
  losses++;
  app.engine?.destroy();
  notice.hidden = false;
  notice.textContent = `The GPU was lost (${reason}); starting it again.`;
  app.engine = null;
  if (losses <= MOST_LOSSES) return start();
  notice.textContent = "The GPU was lost again and again; the page now computes on the CPU.";
  await startCpu();
}

async function runComparison(): Promise<void> {
  if (!app.loaded || !app.engine) throw new Error("the field is still loading");
  comparing?.abort();
  comparing = new AbortController();
  const { signal } = comparing;
  const [table, plot] = [element("comparison", HTMLTableElement), element("comparison-plot", HTMLCanvasElement)];
  const all: Compared[] = [];
  table.hidden = false;
  plot.hidden = true;
  table.tBodies[0]!.replaceChildren();
  table.dataset["state"] = "running";
  const { network } = app.loaded;
  const shot = { plane: app.plane, view: app.state.view, context: app.state.context };
  try {
    await compare(app.engine, network, shot, COMPARED_COLUMNS, signal, (compared) => {
      all.push(compared);
      addRow(table.tBodies[0]!, compared, COMPARED_COLUMNS, app.scale);
    });
  } catch (error) {
    if (signal.aborted) return;
    table.dataset["state"] = "failed";
    throw error;
  }
  plot.hidden = false;
  plotComparison(plot, all, getComputedStyle(document.documentElement).getPropertyValue("--ink"));
  table.dataset["state"] = "done";
}

bindControls(app, attempt, [...activationNames]);
bindFiles(app, attempt, [...activationNames]);
element("compare", HTMLButtonElement).addEventListener("click", () => attempt(runComparison()));
element("explain", HTMLElement).closest("details")!.addEventListener("toggle", explain);
listen(overlay, {
  get panels() {
    return app.layout.panels;
  },
  get view() {
    return app.state.view;
  },
  onView: (view, moving) => void app.moveTo(view, moving).catch(report),
  onPoint: (a, b) => app.point(a, b),
  onPin: (a, b) => app.setPin([a, b]),
  onUnpin: () => app.setPin(null),
  onReset: () => element("reset", HTMLButtonElement).click(),
});
// These are nobody's doing: they leave the message of what was.
new ResizeObserver(() => void app.refresh().catch(report)).observe(element("plot", HTMLElement));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => void app.refresh().catch(report));
addEventListener("hashchange", () => {
  const state = fromHash(location.hash);
  if (!state) return;
  attempt(app.choose(state.field, state));
});

attempt(Promise.all([app.choose(app.state.field, fromHash(location.hash) ?? undefined), start()]));
