/** What is taken away from the stage: pictures, a film, numbers, a link. */
import { fileOf, weightsOf } from "../fields/code.js";
import { shelfField } from "../fields/shelf.js";
import { csv, npy } from "../base/numbers.js";
import { drawOverlay, EDGE } from "../layers/overlay.js";
import { gridPoints } from "../base/plane.js";
import { surfaceOf, type Stage } from "../stage.js";

/** Exports have this many cells across; each of a density takes 64 evaluations. */
const EXPORT_COLUMNS = { reference: 128, density: 256, other: 512 } as const;
const FILM_MILLISECONDS = 4000;
/** A recorder tells of what it has so often, and has a picture once it has so many bytes; it is not waited for any longer than so. */
const PART_MILLISECONDS = 100;
const LEAST_BYTES = 64;
const STARTING_MILLISECONDS = 5000;
const TITLE_PIXELS = 44;

/** What is coloured; the quantity where nothing is. */
function whatOf({ ground, state }: Stage): string {
  return ground && ground.kind !== "quantity" ? ground.kind : state.quantity;
}

/** Such as "two-moons divergence t=0.90"; a field that is not on the shelf has the name of its file. */
export function nameFor(stage: Stage, field = fieldName(stage)): string {
  const { context } = stage.state;
  return [field, whatOf(stage), ...(context.length > 0 ? [`t=${context[0]!.toFixed(2)}`] : [])].join(" ");
}

function fieldName({ state, loaded }: Stage): string {
  return loaded && !shelfField(state.field) ? fileOf(loaded.source).replace(/\.[^.]+$/, "") : state.field;
}

/** The name, but a formula that was typed for itself. */
function titleFor(stage: Stage): string {
  const { field, formula } = stage.state;
  return `${nameFor(stage, field === "formula" ? `(${formula})` : undefined)}${stage.ground ? `, ${stage.groundName}` : ""}`;
}

/** Points and numbers of the view. */
async function exportNumbers(stage: Stage) {
  const { loaded, engine, state, plane, size } = stage;
  if (!loaded || !engine) throw new Error("the field is still loading");
  const columns = EXPORT_COLUMNS[engine.kind === "reference" ? "reference" : stage.ground?.kind === "density" ? "density" : "other"];
  const aspect = size.height / size.width;
  const grid = { columns, rows: Math.max(2, Math.round(columns * aspect)) };
  const points = gridPoints(plane, state.view, grid, aspect);
  const numbers = Float32Array.from(await stage.numbersAt(points));
  return { points, numbers, d: loaded.network.stateSize, what: whatOf(stage), ...grid };
}

export async function toCsv(stage: Stage): Promise<Blob> {
  const { points, numbers, d, what } = await exportNumbers(stage);
  const header = [...Array.from({ length: d }, (_, k) => `x${k}`), what];
  const rows = Array.from(numbers, (number, index) => [...points.subarray(index * d, (index + 1) * d), number]);
  // In pieces: a text of all rows in many dimensions may be longer than a string can be.
  return new Blob(csv(header, rows), { type: "text/csv" });
}

export async function toNpy(stage: Stage): Promise<Blob> {
  const { numbers, columns, rows } = await exportNumbers(stage);
  return new Blob([npy(numbers, [rows, columns])], { type: "application/octet-stream" });
}

/** The file that the code reads. */
export function toWeights({ loaded }: Stage): Blob {
  if (!loaded) throw new Error("the field is still loading");
  return new Blob([weightsOf(loaded.source, loaded.network) as Uint8Array<ArrayBuffer>], { type: "application/octet-stream" });
}

/** The stage as it is, on a canvas of `width` by `height` device pixels, under a title where there is room for one. */
function compose(stage: Stage, title: number): HTMLCanvasElement {
  const { engine, size, ratio } = stage;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(size.width * ratio), Math.round((size.height + title) * ratio)];
  const context = surfaceOf(canvas);
  const options = stage.overlayOptions();
  context.fillStyle = options.paper;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const layer = (draw: (on: CanvasRenderingContext2D) => void): void => {
    const over = document.createElement("canvas");
    [over.width, over.height] = [Math.round(size.width * ratio), Math.round(size.height * ratio)];
    draw(surfaceOf(over));
    context.drawImage(over, 0, Math.round(title * ratio));
  };
  // A WebGPU canvas holds its picture until the browser shows the next frame, so it is painted once more for this.
  context.drawImage(engine!.snapshot(), 0, Math.round(title * ratio), canvas.width, Math.round(size.height * ratio));
  layer((over) => {
    over.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawOverlay(over, { ...options, margins: { left: EDGE, top: EDGE, right: EDGE, bottom: EDGE } });
  });
  layer((over) => stage.drawMoving(over));
  if (title > 0) {
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.textBaseline = "middle";
    context.fillStyle = options.ink;
    context.font = "600 15px system-ui, sans-serif";
    context.fillText(titleFor(stage), 14, title / 2 - 7, size.width - 28);
    context.font = "11px system-ui, sans-serif";
    context.globalAlpha = 0.7;
    // A file's link is of use to nobody, and one with weights is too long.
    if (stage.state.field !== "file" && stage.state.field !== "drawn") context.fillText(stage.href(), 14, title / 2 + 11, size.width - 28);
  }
  return canvas;
}

/** The picture with its axes and bar at two pixels for each of the page's, under its name and link. */
export async function toPng(stage: Stage): Promise<Blob> {
  if (!stage.loaded || !stage.engine) throw new Error("the field is still loading");
  const { engine } = stage;
  const wasPlaying = stage.isPlaying;
  stage.play(false);
  try {
    stage.exportRatio = Math.max(2, devicePixelRatio);
    await stage.refresh();
    if (stage.engine !== engine) throw new Error("the GPU was lost meanwhile; try again");
    const canvas = compose(stage, TITLE_PIXELS);
    return await new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser made no PNG"))), "image/png"),
    );
  } finally {
    stage.exportRatio = null;
    stage.isPlaying = wasPlaying;
    // Its own picture again, which the file does not wait for.
    void stage.refresh().catch(stage.hooks.onError);
  }
}

/** Four seconds of the stage, from noise to data where there is time. @throws Error where the browser records no WebM. */
export async function toWebm(stage: Stage): Promise<Blob> {
  if (!stage.loaded || !stage.engine) throw new Error("the field is still loading");
  const type = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"].find((each) => MediaRecorder.isTypeSupported(each));
  if (!type) throw new Error("this browser records no WebM");
  const canvas = document.createElement("canvas");
  const first = compose(stage, 0);
  [canvas.width, canvas.height] = [first.width, first.height];
  const context = surfaceOf(canvas);
  const recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: type, videoBitsPerSecond: 6e6 });
  const parts: Blob[] = [];
  recorder.addEventListener("dataavailable", ({ data }) => parts.push(data));
  const ended = new Promise((resolve) => recorder.addEventListener("stop", resolve));
  const {
    isPlaying: wasPlaying,
    loaded,
    engine,
    state: { context: before },
  } = stage;
  stage.play(false);
  recorder.start(PART_MILLISECONDS);
  const started = performance.now();
  // A recorder may take a second to begin: what was shown before is not in its film.
  let begun: number | null = null;
  try {
    // All of its pixels, also where fewer are painted while things move.
    stage.exportRatio = devicePixelRatio;
    for (let passed = 0; passed < FILM_MILLISECONDS; passed = begun === null ? 0 : performance.now() - begun) {
      if (stage.loaded !== loaded || stage.engine !== engine) throw new Error("the field changed while it was filmed");
      if (stage.isFlow) await stage.setTime(Math.min(1, passed / (FILM_MILLISECONDS - 700)), true);
      else stage.stepLoop(passed / FILM_MILLISECONDS);
      context.drawImage(compose(stage, 0), 0, 0);
      await new Promise((resolve) => requestAnimationFrame(resolve));
      const hasBegun = parts.reduce((sum, { size }) => sum + size, 0) > LEAST_BYTES || performance.now() - started > STARTING_MILLISECONDS;
      if (hasBegun) begun ??= performance.now();
    }
  } finally {
    stage.exportRatio = null;
    recorder.stop();
  }
  await ended;
  stage.isPlaying = wasPlaying;
  void (stage.isFlow ? stage.setTime(before[0]!, false) : stage.refresh()).catch(stage.hooks.onError);
  return new Blob(parts, { type: "video/webm" });
}
