/** Starts the page: an engine, the controls, and what happens when the GPU is lost. */
import { activationNames, DeviceLostError, explainPlan } from "deldot";
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

let losses = 0;
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
  { onError: report, onChange: () => showState(app) },
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

async function start(): Promise<void> {
  app.useCanvas(freshCanvas());
  try {
    const engine = await openGpu(canvas, (reason) => void recover(reason));
    if (losses > 0) notice.textContent = "The GPU was lost and has been found again; the picture is as it was.";
    canvas.dataset["engine"] = "webgpu";
    await app.start(engine);
  } catch (error) {
    if (error instanceof DeviceLostError) return;
    if (app.engine?.kind === "webgpu") return report(error);
    notice.hidden = false;
    notice.textContent = `Without WebGPU (${(error as Error).message}) this page computes on the CPU: the same numbers, in coarser pictures and without particles. ${adviceFor(navigator.userAgent)}`;
    app.useCanvas(freshCanvas());
    canvas.dataset["engine"] = "cpu";
    await app.start(new CpuEngine(canvas));
  }
}

async function recover(reason: string): Promise<void> {
  losses++;
  notice.hidden = false;
  notice.textContent = `The GPU was lost (${reason}); starting it again.`;
  app.engine = null;
  if (losses <= MOST_LOSSES) return start();
  notice.textContent = "The GPU was lost again and again; the page now computes on the CPU.";
  app.useCanvas(freshCanvas());
  canvas.dataset["engine"] = "cpu";
  await app.start(new CpuEngine(canvas));
}

let comparing: AbortController | null = null;
async function runComparison(): Promise<void> {
  comparing?.abort();
  comparing = new AbortController();
  const { signal } = comparing;
  const [table, plot] = [element("comparison", HTMLTableElement), element("comparison-plot", HTMLCanvasElement)];
  const all: Compared[] = [];
  table.hidden = false;
  plot.hidden = true;
  table.tBodies[0]!.replaceChildren();
  table.dataset["state"] = "running";
  const { network } = app.loaded!;
  const shot = { plane: app.plane, view: app.state.view, context: app.state.context };
  await compare(app.engine!, network, shot, COMPARED_COLUMNS, signal, (compared) => {
    all.push(compared);
    addRow(table.tBodies[0]!, compared, COMPARED_COLUMNS, app.scale);
  });
  plot.hidden = false;
  plotComparison(plot, all, getComputedStyle(document.documentElement).getPropertyValue("--ink"));
  table.dataset["state"] = "done";
}

bindControls(app, attempt, [...activationNames]);
bindFiles(app, attempt, [...activationNames]);
element("compare", HTMLButtonElement).addEventListener("click", () =>
  attempt(
    runComparison().catch((error: unknown) => {
      if (!comparing?.signal.aborted) throw error;
    }),
  ),
);
element("explain", HTMLElement)
  .closest("details")!
  .addEventListener("toggle", () => {
    if (app.loaded) element("explain", HTMLElement).textContent = String(explainPlan(app.loaded.network));
  });
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
new ResizeObserver(() => attempt(app.refresh())).observe(element("plot", HTMLElement));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => attempt(app.refresh()));
addEventListener("hashchange", () => {
  const state = fromHash(location.hash);
  if (!state) return;
  app.state = state;
  attempt(app.choose(state.field, true));
});

attempt(
  Promise.all([app.choose(app.state.field in { file: 1 } ? "two-moons-flow" : app.state.field, fromHash(location.hash) !== null), start()]),
);
