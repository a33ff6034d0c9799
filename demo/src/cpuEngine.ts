/** Computes by the float64 reference in a worker and paints pixel by pixel: the same pictures, coarser. */
import type { EvaluateOptions, Network } from "deldot";
import { colourOf } from "./colour.js";
import type { Answer, Request } from "./cpuWorker.js";
import { nextLevel, type Engine, type Numbers, type Painted, type Shot } from "./engine.js";
import { gridPoints, pointOn, type Size } from "./plane.js";
import { pick, sourceOf } from "./quantity.js";

const MOVING_MILLISECONDS = 60;
const RESTING_MILLISECONDS = 1500;
/** Points of one request: between two of them another picture may be asked for. */
const BATCH = 4096;

export class CpuEngine implements Engine {
  readonly kind = "cpu";
  readonly name = "the CPU, in float64";
  private readonly worker = new Worker(new URL("./cpuWorker.ts", import.meta.url), { type: "module" });
  private readonly waiting = new Map<number, { resolve: (numbers: Numbers) => void; reject: (error: Error) => void }>();
  private readonly surface: CanvasRenderingContext2D;
  private network: Network | null = null;
  private asked = 0;
  private token = 0;
  private millisecondsPerPoint = 0.02;

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.surface = canvas.getContext("2d")!;
    this.worker.addEventListener("message", ({ data: { id, numbers, error } }: MessageEvent<Answer>) => {
      const waiting = this.waiting.get(id);
      this.waiting.delete(id);
      if (error === undefined) waiting?.resolve(numbers as Numbers);
      else waiting?.reject(new Error(error));
    });
    this.worker.addEventListener("error", ({ message }) => {
      for (const { reject } of this.waiting.values()) reject(new Error(`the worker failed: ${message}`));
      this.waiting.clear();
    });
  }

  setNetwork(network: Network): Promise<void> {
    this.token++;
    this.network = network;
    this.millisecondsPerPoint = 0.02;
    this.post({ kind: "network", network });
    return Promise.resolve();
  }

  evaluate(points: Float32Array, options: EvaluateOptions): Promise<Numbers> {
    const id = this.asked++;
    const answer = new Promise<Numbers>((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.post({ kind: "evaluate", id, points, options });
    return answer;
  }

  setParticles(): void {
    // Each step would be a picture's work.
  }

  async paint(shot: Shot, moving: boolean, onPainted: (painted: Painted) => void): Promise<void> {
    const token = ++this.token;
    const { width, height } = shot.panels[0]!;
    let level: number | null = Infinity;
    for (;;) {
      const limit = moving || level === Infinity ? MOVING_MILLISECONDS : RESTING_MILLISECONDS;
      level = nextLevel(level, width * height, this.millisecondsPerPoint, limit);
      if (level === null) return;
      const grid = { columns: Math.max(2, Math.ceil(width / level)), rows: Math.max(2, Math.ceil(height / level)) };
      const begun = performance.now();
      const numbers = await this.compute(shot, grid, token);
      if (!numbers) return;
      this.draw(shot, grid, numbers);
      const milliseconds = performance.now() - begun;
      this.millisecondsPerPoint = milliseconds / (grid.columns * grid.rows);
      const next = moving ? null : nextLevel(level, width * height, this.millisecondsPerPoint, RESTING_MILLISECONDS);
      onPainted({ ...grid, milliseconds, done: !moving && next === null });
      if (next === null) return;
    }
  }

  private async compute(shot: Shot, grid: { columns: number; rows: number }, token: number): Promise<Float64Array | null> {
    const { width, height } = shot.panels[0]!;
    const d = this.network!.stateSize;
    const source = sourceOf(shot.quantity, d);
    const points = gridPoints(shot.plane, shot.view, grid, height / width);
    const numbers = new Float64Array(grid.columns * grid.rows);
    for (let first = 0; first < numbers.length; first += BATCH) {
      const count = Math.min(BATCH, numbers.length - first);
      const options = { outputs: [source.output], context: shot.context.length > 0 ? shot.context : null };
      const answer = await this.evaluate(points.slice(first * d, (first + count) * d), options);
      if (token !== this.token) return null;
      for (let index = 0; index < count; index++) numbers[first + index] = pick(answer[source.output]!, source, index);
    }
    return numbers;
  }

  private draw(shot: Shot, { columns, rows }: { columns: number; rows: number }, numbers: Float64Array): void {
    const { plane, view, truth, panels } = shot;
    const tall = (view.width * panels[0]!.height) / panels[0]!.width;
    this.surface.clearRect(0, 0, this.canvas.width, this.canvas.height);
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
      this.surface.imageSmoothingEnabled = true;
      this.surface.drawImage(image, left, top, width, height);
      if (shot.contour) this.contour(values, { columns, rows }, shot, { left, top, width, height });
    }
  }

  /** Where neighbours differ in sign, a short line between the crossings of each cell's edges: marching squares. */
  private contour(
    values: Float64Array,
    { columns, rows }: { columns: number; rows: number },
    { ratio }: Shot,
    place: { left: number; top: number } & Size,
  ): void {
    const { surface } = this;
    surface.strokeStyle = "#1a1a1a";
    surface.lineWidth = 1.5 * ratio;
    surface.beginPath();
    const [dx, dy] = [place.width / columns, place.height / rows];
    for (let row = 0; row + 1 < rows; row++)
      for (let column = 0; column + 1 < columns; column++) {
        const corner = (c: number, r: number): number => values[(row + r) * columns + column + c]!;
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

  snapshot(): HTMLCanvasElement {
    return this.canvas;
  }

  private post(request: Request): void {
    this.worker.postMessage(request);
  }

  destroy(): void {
    this.token++;
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
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(width, height);
  for (let index = 0; index < values.length; index++) image.data.set([...colourOf(values[index]!, scale, palette), 255], 4 * index);
  context.putImageData(image, 0, 0);
  return canvas;
}
