/** Computes in a worker, by onnxruntime-web or the float64 reference, and paints pixel by pixel. */
import type { EvaluateOptions, Network } from "deldot";
import { pixelsOf } from "./colour.js";
import { CpuParticles } from "./cpuParticles.js";
import type { Answer, CpuEvaluation, Request } from "./cpuWorker.js";
import { nextLevel, type Engine, type Painted, type Shot } from "./engine.js";
import { gridPoints, pointOn, type Size } from "./plane.js";
import { withContext } from "./probe.js";
import { pick, sourceOf } from "./quantity.js";

const MOVING_MILLISECONDS = 60;
const RESTING_MILLISECONDS = 3000;
/** The points of one request take about this long: between two of them another picture may be asked for. */
const BATCH_MILLISECONDS = 100;
/** Until a picture has told more. */
const FIRST_MILLISECONDS_PER_POINT = 0.02;

export class CpuEngine implements Engine {
  /** What the last picture was computed by. */
  kind: "onnxruntime" | "reference" = "reference";
  private threads = 1;
  private readonly worker = new Worker(new URL("./cpuWorker.ts", import.meta.url), { type: "module" });
  private readonly waiting = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>();
  private readonly surface: CanvasRenderingContext2D;
  /** The last picture without particles. */
  private readonly picture = document.createElement("canvas");
  private readonly particles: CpuParticles;
  private network: Network | null = null;
  /** The numbers of the network that is evaluated, and of the last that was given. */
  private used = 0;
  private newest = 0;
  private asked = 0;
  private token = 0;
  /** By output. */
  private readonly millisecondsPerPoint = new Map<string, number>();

  /**
   * @param loads onnxruntime-web; otherwise float64 is what there is.
   * @param onLoaded hears that pictures are computed by it from now on.
   */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    loads: boolean,
    onLoaded: () => void,
  ) {
    this.surface = canvas.getContext("2d", { willReadFrequently: true })!;
    this.particles = new CpuParticles(
      (points, context) => this.evaluate(points, withContext(context)),
      () => this.show(),
    );
    this.worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
      if (data.kind === "loaded") {
        this.threads = data.threads;
        // A picture in float64 has no need to be finished.
        this.token++;
        this.millisecondsPerPoint.clear();
        return onLoaded();
      }
      const waiting = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.kind === "error") waiting?.reject(new Error(data.error));
      else waiting?.resolve(data);
    });
    this.worker.addEventListener("error", ({ message }) => {
      for (const { reject } of this.waiting.values()) reject(new Error(`the worker failed: ${message}`));
      this.waiting.clear();
    });
    if (loads) this.post({ kind: "load" });
  }

  get name(): string {
    if (this.kind === "reference") return "the CPU, in float64";
    return `the CPU, by onnxruntime-web on ${this.threads === 1 ? "one thread" : `${this.threads} threads`}`;
  }

  async setNetwork(network: Network): Promise<void> {
    const id = ++this.asked;
    this.newest = id;
    await this.ask({ kind: "network", id, network });
    // Another was asked for meanwhile.
    if (id !== this.newest) return;
    this.token++;
    this.network = network;
    this.used = id;
    this.millisecondsPerPoint.clear();
    this.particles.forget();
    this.post({ kind: "use", id });
  }

  async evaluate(points: Float32Array, options: EvaluateOptions): Promise<CpuEvaluation> {
    const answer = await this.ask({ kind: "evaluate", id: ++this.asked, of: this.used, points, options });
    return (answer as Extract<Answer, { kind: "numbers" }>).numbers;
  }

  setParticles(on: boolean): void {
    this.particles.setRunning(on);
  }

  async paint(shot: Shot, moving: boolean, onPainted: (painted: Painted) => void): Promise<void> {
    const token = ++this.token;
    this.particles.moveTo(shot);
    const { width, height } = shot.panels[0]!;
    const { output } = sourceOf(shot.quantity, this.network!.stateSize);
    if (!this.millisecondsPerPoint.has(output)) {
      // The first evaluation of an output makes a session for it, which says nothing of the time that others take.
      if (!(await this.compute(shot, { columns: 1, rows: 1 }, token))) return;
      this.millisecondsPerPoint.set(output, FIRST_MILLISECONDS_PER_POINT);
    }
    let level: number | null = Infinity;
    for (;;) {
      const limit = moving || level === Infinity ? MOVING_MILLISECONDS : RESTING_MILLISECONDS;
      level = nextLevel(level, width * height, this.millisecondsPerPoint.get(output)!, limit);
      if (level === null) return;
      const grid = { columns: Math.max(2, Math.ceil(width / level)), rows: Math.max(2, Math.ceil(height / level)) };
      const begun = performance.now();
      const numbers = await this.compute(shot, grid, token);
      if (!numbers) return;
      this.draw(shot, grid, numbers);
      const milliseconds = performance.now() - begun;
      const perPoint = milliseconds / (grid.columns * grid.rows);
      this.millisecondsPerPoint.set(output, perPoint);
      const next = moving ? null : nextLevel(level, width * height, perPoint, RESTING_MILLISECONDS);
      onPainted({ ...grid, milliseconds, done: !moving && next === null });
      if (next === null) return;
    }
  }

  private async compute(shot: Shot, grid: { columns: number; rows: number }, token: number): Promise<Float64Array | null> {
    const { width, height } = shot.panels[0]!;
    const d = this.network!.stateSize;
    const source = sourceOf(shot.quantity, d);
    const points = gridPoints(shot.plane, shot.view, grid, height / width);
    const options = { outputs: [source.output], ...withContext(shot.context) };
    const numbers = new Float64Array(grid.columns * grid.rows);
    const perPoint = this.millisecondsPerPoint.get(source.output) ?? FIRST_MILLISECONDS_PER_POINT;
    const batch = Math.max(64, Math.floor(BATCH_MILLISECONDS / perPoint));
    for (let first = 0; first < numbers.length; first += batch) {
      const count = Math.min(batch, numbers.length - first);
      // What fails for a picture that is no longer wanted, or a network that is gone, is no error.
      const answer = await this.evaluate(points.slice(first * d, (first + count) * d), options).catch((error: unknown) => {
        if (token === this.token) throw error;
      });
      if (!answer || token !== this.token) return null;
      this.kind = answer.kernels === "reference" ? "reference" : "onnxruntime";
      for (let index = 0; index < count; index++) numbers[first + index] = pick(answer[source.output]!, source, index);
    }
    return numbers;
  }

  private draw(shot: Shot, { columns, rows }: { columns: number; rows: number }, numbers: Float64Array): void {
    const { plane, view, truth, panels } = shot;
    const tall = (view.width * panels[0]!.height) / panels[0]!.width;
    // As large as what it is shown on, and empty.
    [this.picture.width, this.picture.height] = [this.canvas.width, this.canvas.height];
    const surface = this.picture.getContext("2d", { willReadFrequently: true })!;
    for (const { panel, left, top, width, height } of panels) {
      const values = numbers.map((value, index) => {
        if (!truth || panel === "field") return value;
        const across = ((index % columns) + 0.5) / columns - 0.5;
        const down = (Math.floor(index / columns) + 0.5) / rows - 0.5;
        const x = pointOn(plane, view.a + across * view.width, view.b - down * tall)[0]!;
        const true_ = truth.constant + truth.square * x * x;
        return panel === "truth" ? true_ : value - true_;
      });
      const image = paintPixels(values, { width: columns, height: rows }, shot);
      surface.imageSmoothingEnabled = true;
      surface.drawImage(image, left, top, width, height);
      if (shot.contour) drawContour(surface, values, { columns, rows }, shot, { left, top, width, height });
    }
    this.show();
  }

  /** The last picture, with the particles where they are now. */
  private show(): void {
    this.surface.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.surface.drawImage(this.picture, 0, 0);
    this.particles.draw(this.surface);
  }

  snapshot(): HTMLCanvasElement {
    return this.canvas;
  }

  private ask(request: Extract<Request, { id: number }>): Promise<Answer> {
    const answer = new Promise<Answer>((resolve, reject) => this.waiting.set(request.id, { resolve, reject }));
    this.post(request);
    return answer;
  }

  private post(request: Request): void {
    this.worker.postMessage(request);
  }

  destroy(): void {
    this.token++;
    this.particles.setRunning(false);
    this.worker.terminate();
  }
}

/** Numbers as a small image, a pixel each. */
export function paintPixels(
  values: ArrayLike<number>,
  { width, height }: Size,
  { scale, palette }: Pick<Shot, "scale" | "palette">,
): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d")!.putImageData(new ImageData(pixelsOf(values, scale, palette), width, height), 0, 0);
  return canvas;
}

/** Where neighbours differ in sign, a short line between the crossings of each cell's edges: marching squares. */
function drawContour(
  surface: CanvasRenderingContext2D,
  values: Float64Array,
  { columns, rows }: { columns: number; rows: number },
  { ratio }: Shot,
  place: { left: number; top: number } & Size,
): void {
  surface.strokeStyle = "#1a1a1a";
  surface.lineWidth = 1.5 * ratio;
  surface.beginPath();
  const [dx, dy] = [place.width / columns, place.height / rows];
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
        return [[place.left + (column + 0.5 + c0 + t * (c1 - c0)) * dx, place.top + (row + 0.5 + r0 + t * (r1 - r0)) * dy] as const];
      });
      for (let index = 0; index + 1 < crossings.length; index += 2) {
        surface.moveTo(...crossings[index]!);
        surface.lineTo(...crossings[index + 1]!);
      }
    }
  surface.stroke();
}
