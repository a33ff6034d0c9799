/** Computes in a worker, by onnxruntime-web or the float64 reference, and paints pixel by pixel. */
import type { EvaluateOptions, Network } from "deldot";
import { middleOf, pixelsOf, type Domain } from "../base/colour.js";
import type { Answer, CpuEvaluation, Request } from "./cpuWorker.js";
import { isSameLook, type Engine, type Ground, type Look, type Moved, type Painted, type Shot } from "./engine.js";
import { numbersOf, workOf } from "./ground.js";
import { Painter } from "./painter.js";
import { gridPoints, toPixel, type Size } from "../base/plane.js";
import { contextOf } from "../base/quantity.js";

const MOVING_MILLISECONDS = 60;
const RESTING_MILLISECONDS = 3000;
/** The points of one request take about this long: between two of them another picture may be asked for. */
const BATCH_MILLISECONDS = 100;
/** Until a picture has told more. */
const FIRST_MILLISECONDS_PER_POINT = 0.02;

/** The numbers of a picture, and where they are of. */
interface Shown {
  readonly values: Float64Array;
  readonly columns: number;
  readonly rows: number;
  readonly shot: Shot;
}

export class CpuEngine extends Painter implements Engine {
  /** What the last picture was computed by. */
  kind: "onnxruntime" | "reference" = "reference";
  readonly movingScale = 1;
  private threads = 1;
  /** Why nothing is answered any more. */
  private failure: Error | null = null;
  private readonly worker = new Worker(new URL("./cpuWorker.ts", import.meta.url), { type: "module" });
  private readonly waiting = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>();
  private readonly surface: CanvasRenderingContext2D;
  private network: Network | null = null;
  private truth: Network | null = null;
  private shown: Shown | null = null;
  /** The numbers as an image, by the look they have in it. */
  private image: { readonly of: Shown; readonly look: Look; readonly pixels: HTMLCanvasElement } | null = null;
  /** The numbers of the network and the truth that are evaluated, and of the last that were given. */
  private used = { field: 0, truth: 0 };
  private newest = 0;
  private asked = 0;

  /**
   * @param loads onnxruntime-web; otherwise float64 is what there is.
   * @param onLoaded hears that pictures are computed by it from now on.
   */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    loads: boolean,
    onLoaded: () => void,
  ) {
    super({ moving: MOVING_MILLISECONDS, first: MOVING_MILLISECONDS, resting: RESTING_MILLISECONDS });
    this.surface = canvas.getContext("2d", { willReadFrequently: true })!;
    this.worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
      if (data.kind === "loaded") {
        this.threads = data.threads;
        // A picture in float64 has no need to be finished.
        this.token++;
        this.pace.clear();
        return onLoaded();
      }
      const waiting = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.kind === "error") waiting?.reject(new Error(data.error));
      else waiting?.resolve(data);
    });
    this.worker.addEventListener("error", ({ message }) => {
      this.failure = new Error(`the worker failed: ${message}`);
      for (const { reject } of this.waiting.values()) reject(this.failure);
      this.waiting.clear();
    });
    if (loads) this.post({ kind: "load" });
  }

  get name(): string {
    if (this.kind === "reference") return "the CPU, in float64";
    return `the CPU, by onnxruntime-web on ${this.threads === 1 ? "one thread" : `${this.threads} threads`}`;
  }

  async setNetwork(network: Network, truth: Network | null): Promise<void> {
    const id = ++this.asked;
    const truthId = truth ? ++this.asked : id;
    this.newest = id;
    await Promise.all([this.ask({ kind: "network", id, network }), truth && this.ask({ kind: "network", id: truthId, network: truth })]);
    // Another was asked for meanwhile.
    if (id !== this.newest) return;
    this.token++;
    this.network = network;
    this.truth = truth;
    this.shown = null;
    this.used = { field: id, truth: truthId };
    this.pace.clear();
    this.post({ kind: "use", id });
  }

  evaluate(points: Float32Array, options: EvaluateOptions): Promise<CpuEvaluation> {
    return this.evaluateOf(this.used.field, points, options);
  }

  private async evaluateOf(of: number, points: Float32Array, options: EvaluateOptions): Promise<CpuEvaluation> {
    const answer = await this.ask({ kind: "evaluate", id: ++this.asked, of, points, options });
    const { numbers } = answer as Extract<Answer, { kind: "numbers" }>;
    if (of === this.used.field) this.kind = numbers.kernels === "reference" ? "reference" : "onnxruntime";
    return numbers;
  }

  async transport(points: Float32Array, options: Parameters<Engine["transport"]>[1]): Promise<Moved> {
    const answer = await this.ask({ kind: "transport", id: ++this.asked, of: this.used.field, points, options });
    const { moved, by } = answer as Extract<Answer, { kind: "moved" }>;
    this.kind = by;
    return moved;
  }

  async paint(shot: Shot, moving: boolean, onPainted: (painted: Painted) => void): Promise<void> {
    const token = ++this.token;
    this.show(shot.view, shot);
    if (!shot.ground) {
      this.shown = null;
      this.redraw();
      return onPainted({ columns: 0, rows: 0, milliseconds: 0, done: !moving });
    }
    const work = workOf(shot.ground, shot.context);
    if (!this.pace.has(work)) {
      // The first evaluation of an output makes a session for it, which says nothing of the time that others take.
      if (!(await this.compute(shot, { columns: 1, rows: 1 }, token))) return;
      const begun = performance.now();
      if (!(await this.compute(shot, { columns: 32, rows: 24 }, token))) return;
      this.pace.learn(work, 32 * 24, performance.now() - begun);
    }
    await this.refine(
      shot,
      moving,
      work,
      async (grid) => {
        const values = await this.compute(shot, grid, token);
        if (!values) return false;
        this.shown = { values, ...grid, shot };
        this.redraw();
        return true;
      },
      onPainted,
    );
  }

  private async compute(shot: Shot, grid: { columns: number; rows: number }, token: number): Promise<Float64Array | null> {
    const d = this.network!.stateSize;
    const points = gridPoints(shot.plane, shot.view, grid, shot.size.height / shot.size.width);
    const values = new Float64Array(grid.columns * grid.rows);
    const perPoint = this.pace.of(workOf(shot.ground!, shot.context)) ?? FIRST_MILLISECONDS_PER_POINT;
    const batch = Math.max(64, Math.floor(BATCH_MILLISECONDS / perPoint));
    for (let first = 0; first < values.length; first += batch) {
      const rows = points.slice(first * d, Math.min(values.length, first + batch) * d);
      // What fails for a picture that is no longer wanted, or a network that is gone, is no error.
      const numbers = await this.numbersAt(shot.ground!, rows, shot.context).catch((error: unknown) => {
        if (token === this.token) throw error;
      });
      if (!numbers || token !== this.token) return null;
      values.set(numbers, first);
    }
    return values;
  }

  numbersAt(ground: Ground, points: Float32Array, context: readonly number[]): Promise<Float64Array> {
    return numbersOf(ground, points, context, this.network!.stateSize, {
      evaluate: (rows, options) => this.evaluate(rows, options),
      evaluateTruth: (rows, options) => this.evaluateOf(this.used.truth, rows, { ...options, ...contextOf(this.truth!, context) }),
      transport: (rows, options) => this.transport(rows, options),
    });
  }

  /** The numbers there are, under the view that is shown. */
  protected redraw(): void {
    const { shown, look, surface, view } = this;
    const { width, height } = this.canvas;
    if (!look) return;
    surface.fillStyle = `rgb(${look.paper.join(" ")})`;
    surface.fillRect(0, 0, width, height);
    if (!shown) return;
    if (this.image?.of !== shown || !isSameLook(this.image.look, look)) this.image = { of: shown, look, pixels: imageOf(shown, look) };
    const { shot } = shown;
    // Where the view the numbers are of lies in the one that is shown.
    const perPixel = view.width / width;
    const [across, tall] = [shot.view.width / perPixel, (shot.view.width * shot.size.height) / shot.size.width / perPixel];
    const [x, y] = toPixel(view, { width, height }, shot.view.a, shot.view.b);
    surface.imageSmoothingEnabled = true;
    surface.drawImage(this.image.pixels, x - across / 2, y - tall / 2, across, tall);
  }

  snapshot(): HTMLCanvasElement {
    return this.canvas;
  }

  private ask(request: Extract<Request, { id: number }>): Promise<Answer> {
    if (this.failure) return Promise.reject(this.failure);
    const answer = new Promise<Answer>((resolve, reject) => this.waiting.set(request.id, { resolve, reject }));
    this.post(request);
    return answer;
  }

  private post(request: Request): void {
    this.worker.postMessage(request);
  }

  destroy(): void {
    this.token++;
    this.worker.terminate();
  }
}

/** The numbers of a picture in their colours, as large as it, with the contour of the scale's middle. */
function imageOf({ values, columns, rows, shot: { size } }: Shown, look: Look): HTMLCanvasElement {
  const small = paintPixels(values, { width: columns, height: rows }, look.domain, look);
  if (!look.contour) return small;
  const large = Object.assign(document.createElement("canvas"), size);
  const surface = large.getContext("2d", { willReadFrequently: true })!;
  surface.drawImage(small, 0, 0, size.width, size.height);
  const middle = middleOf(look.domain);
  const less = values.map((value) => value - middle);
  drawContour(surface, less, { columns, rows }, look, size);
  return large;
}

/** Numbers as a small image, a pixel each. */
export function paintPixels(
  values: ArrayLike<number>,
  { width, height }: Size,
  domain: Domain,
  look?: Pick<Look, "emphasis" | "paper">,
): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  // Else what it is drawn on would wait for all frames that a GPU in software still owes.
  canvas.getContext("2d", { willReadFrequently: true })!.putImageData(new ImageData(pixelsOf(values, domain, look), width, height), 0, 0);
  return canvas;
}

/** Where neighbours differ in sign, a short line between the crossings of each cell's edges: marching squares. */
function drawContour(
  surface: CanvasRenderingContext2D,
  values: Float64Array,
  { columns, rows }: { columns: number; rows: number },
  { ratio, paper }: Look,
  size: Size,
): void {
  const isDark = paper[0] + paper[1] + paper[2] < 1.5 * 255;
  surface.strokeStyle = isDark ? "rgb(235 235 235 / 0.8)" : "rgb(26 26 26 / 0.8)";
  surface.lineWidth = 1.5 * ratio;
  surface.beginPath();
  const [dx, dy] = [size.width / columns, size.height / rows];
  for (let row = 0; row + 1 < rows; row++)
    for (let column = 0; column + 1 < columns; column++) {
      const corner = (c: number, r: number): number => values[(row + r) * columns + column + c]!;
      const isPositive = corner(0, 0) > 0;
      if (isPositive === corner(1, 0) > 0 && isPositive === corner(1, 1) > 0 && isPositive === corner(0, 1) > 0) continue;
      const edges = [
        [0, 0, 1, 0],
        [1, 0, 1, 1],
        [0, 1, 1, 1],
        [0, 0, 0, 1],
      ] as const;
      const crossings = edges.flatMap(([c0, r0, c1, r1]) => {
        const [from, to] = [corner(c0, r0), corner(c1, r1)];
        if (from > 0 === to > 0) return [];
        const t = from / (from - to);
        return [[(column + 0.5 + c0 + t * (c1 - c0)) * dx, (row + 0.5 + r0 + t * (r1 - r0)) * dy] as const];
      });
      for (let index = 0; index + 1 < crossings.length; index += 2) {
        surface.moveTo(...crossings[index]!);
        surface.lineTo(...crossings[index + 1]!);
      }
    }
  surface.stroke();
}
