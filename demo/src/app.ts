/** The page: its state, what is asked of the engine when that changes, and what is drawn around the picture. */
import type { Network } from "deldot";
import { codeFor, type FieldSource } from "./code.js";
import { scaleFor, type Palette } from "./colour.js";
import { drawDigit, drawSamples } from "./digits.js";
import type { Engine, Painted, Shot } from "./engine.js";
import { loadShipped, randomNetwork, shippedFields, type Truth } from "./fields.js";
import { inPixels, layoutOf, type Layout } from "./layout.js";
import { csv, milliseconds, npy } from "./numbers.js";
import { drawOverlay, type Arrows } from "./overlay.js";
import { axesPlane, gridPoints, onPlane, planeThrough, pointOn, randomPlane, type Plane, type View } from "./plane.js";
import { outputsFor, showProbe, withContext } from "./probe.js";
import { nameOf, pick, quantitiesOf, sourceOf } from "./quantity.js";
import { toHash, type State } from "./state.js";

/** A field that is on the page. */
export interface Loaded {
  readonly network: Network;
  readonly truth: Truth | null;
  /** The name of its file; null for a random network. */
  readonly file: string | null;
  readonly source: FieldSource;
}

const ARROWS_ACROSS = 22;
/** Exports have this many cells across. */
const EXPORT_COLUMNS = 512;
const HASH_MILLISECONDS = 300;

export class App {
  state: State;
  loaded: Loaded | null = null;
  engine: Engine | null = null;
  plane: Plane = axesPlane(2, 0, 1, []);
  layout: Layout = layoutOf({ width: 600, height: 400 }, "field", false);
  /** The end of the colour bar, and a typical |f|. */
  scale = 1;
  private speed = 1;
  /** Three samples of a flow in 64 dimensions. */
  private samples: { network: Network; seed: number; points: number[][] } | null = null;
  private arrows: Arrows = [];
  private measured = 0;
  private chosen = 0;
  private isMoving = false;
  private movesAgain = false;
  private probed = 0;
  private pointing: readonly [number, number] | null = null;
  private isProbing = false;
  private hashTimer: ReturnType<typeof setTimeout> | undefined;
  private fileNetwork: Loaded | null = null;

  constructor(
    initial: State,
    private canvas: HTMLCanvasElement,
    private readonly overlay: HTMLCanvasElement,
    private readonly elements: {
      status: HTMLElement;
      probe: HTMLElement;
      probeKind: HTMLElement;
      digit: HTMLCanvasElement;
      code: HTMLElement;
    },
    /** Hears of every error and every change of the field or state. */
    private readonly hooks: { onError(error: unknown): void; onChange(): void },
  ) {
    this.state = initial;
  }

  get palette(): Palette {
    return this.state.quantity === "magnitude" ? "sequential" : "diverging";
  }

  /** The truth where it is known of what is shown. */
  get truth(): Truth | null {
    return this.state.quantity === "divergence" ? (this.loaded?.truth ?? null) : null;
  }

  /** Of another engine: a canvas has one kind of context for good. */
  useCanvas(canvas: HTMLCanvasElement): void {
    this.canvas = canvas;
  }

  async start(engine: Engine): Promise<void> {
    // Asked for its first picture only once it has the field; meanwhile another may have been chosen.
    let network: Network | undefined;
    while (this.loaded && network !== this.loaded.network) await engine.setNetwork((network = this.loaded.network));
    this.engine = engine;
    engine.setParticles(this.state.particles);
    await this.refresh();
  }

  /** Takes a field that was dropped. */
  async useFile(loaded: Loaded): Promise<void> {
    this.fileNetwork = loaded;
    await this.choose("file");
  }

  /** Loads a field and goes to the view that suits it, or to the state of a link. */
  async choose(field: string, given?: State): Promise<void> {
    const chosen = ++this.chosen;
    const shipped = shippedFields[field];
    let loaded: Loaded;
    try {
      loaded = await this.load(field, given?.random ?? this.state.random);
      if (chosen !== this.chosen || !(await this.handOver(loaded.network, chosen))) return;
    } catch (error) {
      if (chosen !== this.chosen) return;
      // What is shown is still the field before.
      this.hooks.onChange();
      throw error;
    }
    const d = loaded.network.stateSize;
    this.loaded = loaded;
    this.measured++;
    if (given) this.state = given;
    else
      this.state = {
        ...this.state,
        field,
        context: shipped?.context ?? Array<number>(loaded.network.contextSize).fill(0.5),
        quantity: "divergence",
        panels: "field",
        plane: shipped?.plane ?? { kind: "axes", i: 0, j: 1, rest: Array<number>(d).fill(0) },
        view: shipped?.view ?? { a: 0, b: 0, width: 6 },
        scale: null,
        pin: null,
      };
    this.mend();
    this.engine?.setParticles(this.state.particles);
    await this.refresh();
  }

  /** Gives the engine a network; false where another has been chosen meanwhile. */
  private async handOver(network: Network, chosen: number): Promise<boolean> {
    for (;;) {
      const { engine } = this;
      try {
        await engine?.setNetwork(network);
      } catch (error) {
        // The device was lost meanwhile: the next engine gets the network.
        if (engine === this.engine) throw error;
      }
      if (chosen !== this.chosen) return false;
      if (engine === this.engine) return true;
    }
  }

  private async load(field: string, random: State["random"]): Promise<Loaded> {
    const shipped = shippedFields[field];
    if (shipped) {
      const { truth, file } = shipped;
      return { network: await loadShipped(shipped), truth, file, source: { kind: "safetensors", file, options: {} } };
    }
    if (field === "file" && this.fileNetwork) return this.fileNetwork;
    return { network: randomNetwork(random), truth: null, file: null, source: { kind: "random", random } };
  }

  /** What a link may ask of a field that does not have it. */
  private mend(): void {
    const { stateSize: d, contextSize } = this.loaded!.network;
    const { plane, quantity, context } = this.state;
    // With two dimensions there is one plane, and no control to leave another.
    const isOutside = plane.kind === "axes" ? Math.max(plane.i, plane.j) >= Math.max(2, d) : d <= 2;
    const hasDigits = d === 64 && contextSize === 1;
    this.state = {
      ...this.state,
      plane: isOutside || (plane.kind === "digits" && !hasDigits) ? { kind: "axes", i: 0, j: 1, rest: [] } : plane,
      quantity: quantitiesOf(d).includes(quantity) ? quantity : "divergence",
      context: Array.from({ length: contextSize }, (_, index) => context[index] ?? 0.5),
    };
  }

  /** Changes part of the state and all that follows from it. */
  async change(part: Partial<State>): Promise<void> {
    if (part.random && this.state.field === "random") return this.choose("random", { ...this.state, ...part });
    this.state = { ...this.state, ...part };
    if ("particles" in part) this.engine?.setParticles(this.state.particles);
    await this.refresh();
  }

  /** The plane, the scale, then the picture. */
  async refresh(): Promise<void> {
    if (!this.loaded) return;
    this.plane = this.makePlane();
    this.hooks.onChange();
    this.noteHash();
    if (!this.engine) return;
    const measured = ++this.measured;
    try {
      await this.measure(measured);
      if (measured !== this.measured) return;
      await this.paint(false);
      await this.probe();
    } catch (error) {
      // What failed for a field, a state or a device that is gone is nobody's error.
      if (measured === this.measured) throw error;
    }
  }

  /** A view on its way: the picture at once, all else when it rests. */
  async moveTo(view: View, moving: boolean): Promise<void> {
    this.state = { ...this.state, view };
    if (!moving) return this.refresh();
    if (!this.loaded) return;
    this.drawOver();
    // One picture at a time: moves come faster than slow adapters paint.
    this.movesAgain = true;
    if (this.isMoving) return;
    this.isMoving = true;
    try {
      while (this.movesAgain) {
        this.movesAgain = false;
        await this.paint(true);
      }
    } finally {
      this.isMoving = false;
    }
  }

  /** A frame of a film through a context: the picture alone, until it stops. */
  async showContext(context: readonly number[], moving: boolean): Promise<void> {
    this.state = { ...this.state, context };
    if (!moving) return this.refresh();
    this.hooks.onChange();
    await this.paint(true);
  }

  setPin(pin: readonly [number, number] | null): void {
    if (!this.loaded) return;
    this.state = { ...this.state, pin };
    this.pointing = pin;
    this.noteHash();
    this.drawOver();
    void this.probe();
  }

  point(a: number, b: number): void {
    if (this.state.pin) return;
    this.pointing = [a, b];
    void this.probe();
  }

  private makePlane(): Plane {
    const { network } = this.loaded!;
    const { plane } = this.state;
    const d = network.stateSize;
    if (plane.kind === "axes") return axesPlane(d, plane.i, plane.j, plane.rest);
    if (plane.kind === "random") return randomPlane(Array<number>(d).fill(0), plane.seed);
    return planeThrough(this.digits(), ["towards the second digit", "towards the third digit"]);
  }

  /** The three digits of the plane through them; empty on another plane. */
  digits(): readonly (readonly number[])[] {
    const { plane } = this.state;
    if (plane.kind !== "digits") return [];
    const { network } = this.loaded!;
    const { seed } = plane;
    if (this.samples?.network !== network || this.samples.seed !== seed)
      this.samples = { network, seed, points: drawSamples(network, 3, seed) };
    return this.samples.points;
  }

  resize(): void {
    const { clientWidth: width, clientHeight: height } = this.overlay;
    if (width === 0 || height === 0) return;
    this.layout = layoutOf({ width, height }, this.state.panels, this.truth !== null);
    for (const canvas of [this.canvas, this.overlay]) {
      const [w, h] = [Math.round(width * devicePixelRatio), Math.round(height * devicePixelRatio)];
      if (canvas.width !== w) canvas.width = w;
      if (canvas.height !== h) canvas.height = h;
    }
  }

  /** The colour scale and the arrows, from f and its divergence at some hundreds of points. */
  private async measure(measured: number): Promise<void> {
    this.resize();
    const { network } = this.loaded!;
    const d = network.stateSize;
    const { panels } = this.layout;
    const { view, quantity } = this.state;
    const aspect = panels[0]!.height / panels[0]!.width;
    const source = sourceOf(quantity, d);
    const across = Math.min(ARROWS_ACROSS, Math.max(6, Math.floor(panels[0]!.width / 26)));
    const grid = { columns: across, rows: Math.max(2, Math.round(across * aspect)) };
    const points = gridPoints(this.plane, view, grid, aspect);
    const outputs = [...new Set(["value" as const, source.output])];
    const numbers = await this.engine!.evaluate(points, { outputs, ...withContext(this.state.context) });
    if (measured !== this.measured) return;
    const count = grid.columns * grid.rows;
    const values = Array.from({ length: count }, (_, index) => pick(numbers[source.output]!, source, index));
    const speeds = Array.from({ length: count }, (_, index) => pick(numbers.value!, { output: "value", stride: d, component: -1 }, index));
    this.speed = speeds.toSorted((a, b) => a - b)[Math.floor(count / 2)]! || 1;
    const shown = this.truth && this.state.panels === "difference" ? this.lessTruth(values, points, d) : values;
    this.scale = this.state.scale ?? scaleFor(shown);
    this.arrows = this.state.arrows
      ? Array.from({ length: count }, (_, index) => {
          const x = Array.from(points.subarray(index * d, (index + 1) * d));
          const f = x.map((_, k) => numbers.value![index * d + k]!);
          const [a, b] = onPlane(this.plane, x);
          const along = f.reduce((sum, value, k) => sum + value * this.plane.u[k]!, 0);
          const up = f.reduce((sum, value, k) => sum + value * this.plane.v[k]!, 0);
          return [a, b, along, up] as const;
        })
      : [];
  }

  private lessTruth(values: readonly number[], points: Float32Array, d: number): number[] {
    const { constant, square } = this.truth!;
    return values.map((value, index) => value - constant - square * points[index * d]! ** 2);
  }

  private async paint(moving: boolean): Promise<void> {
    if (!this.engine || !this.loaded) return;
    this.resize();
    this.drawOver();
    const shot = this.shot();
    const { engine } = this;
    await engine.paint(shot, moving, (painted) => engine === this.engine && this.tell(painted));
  }

  private shot(): Shot {
    const { view, context, quantity, contour } = this.state;
    return {
      plane: this.plane,
      view,
      context,
      quantity,
      panels: inPixels(this.layout.panels, devicePixelRatio),
      truth: this.truth,
      contour: contour && this.palette === "diverging",
      scale: this.scale,
      speed: this.speed,
      palette: this.palette,
      ratio: devicePixelRatio,
    };
  }

  private tell({ columns, rows, milliseconds: time, done }: Painted): void {
    if (!this.engine) return;
    this.elements.status.textContent = `${nameOf(this.state.quantity)} at ${columns} × ${rows} points in ${milliseconds(time)} on ${this.engine.name}`;
    // For whoever reads pixels: what they stand for, and whether finer ones follow.
    Object.assign(this.canvas.dataset, {
      state: done ? "done" : "coarse",
      engine: this.engine.kind,
      scale: String(this.scale),
      panels: JSON.stringify(this.layout.panels),
      columns: String(columns),
      rows: String(rows),
      plane: JSON.stringify(this.plane),
      view: JSON.stringify(this.state.view),
    });
    const { view } = this.state;
    this.overlay.setAttribute(
      "aria-label",
      `Heatmap of ${nameOf(this.state.quantity)} from ${-this.scale} to ${this.scale}, ${this.plane.names[0]} around ${view.a.toPrecision(3)}, ${this.plane.names[1]} around ${view.b.toPrecision(3)}, ${view.width.toPrecision(3)} wide`,
    );
  }

  private drawOver(): void {
    this.resize();
    const context = this.overlay.getContext("2d")!;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    drawOverlay(context, this.overlayOptions());
  }

  private overlayOptions() {
    const style = getComputedStyle(document.documentElement);
    return {
      layout: this.layout,
      plane: this.plane,
      view: this.state.view,
      scale: this.scale,
      palette: this.palette,
      name: nameOf(this.state.quantity),
      arrows: this.arrows,
      pin: this.state.pin,
      ink: style.getPropertyValue("--ink"),
      paper: style.getPropertyValue("--paper"),
    };
  }

  /** Shows the numbers under the cursor, or at the pin; while an answer is on its way, the last place asked for waits. */
  async probe(): Promise<void> {
    const { pin } = this.state;
    const at = pin ?? this.pointing;
    const { probe, probeKind, digit } = this.elements;
    probeKind.textContent = pin ? "that is pinned" : "under the cursor";
    if (!at || !this.engine || !this.loaded) return;
    this.probed++;
    if (this.isProbing) return;
    this.isProbing = true;
    const { network } = this.loaded;
    try {
      const asked = this.probed;
      const { context } = this.state;
      const x = Array.from(Float32Array.from(pointOn(this.plane, at[0], at[1])));
      const numbers = await this.engine.evaluate(Float32Array.from(x), { outputs: outputsFor(network), ...withContext(context) });
      if (this.loaded.network === network) {
        showProbe(probe, network, x, context, numbers, pin !== null);
        digit.hidden = network.stateSize !== 64;
        if (!digit.hidden) drawDigit(digit, x);
      }
      this.isProbing = false;
      if (asked !== this.probed) void this.probe();
    } catch (error) {
      this.isProbing = false;
      if (this.loaded?.network === network) this.hooks.onError(error);
    }
  }

  /** Points and numbers of the view, EXPORT_COLUMNS across. */
  private async exportNumbers(): Promise<{ points: Float32Array; numbers: Float32Array; columns: number; rows: number }> {
    if (!this.loaded || !this.engine) throw new Error("the field is still loading");
    const { panels } = this.layout;
    const aspect = panels[0]!.height / panels[0]!.width;
    const grid = { columns: EXPORT_COLUMNS, rows: Math.max(2, Math.round(EXPORT_COLUMNS * aspect)) };
    if (this.engine.kind === "reference") Object.assign(grid, { columns: 128, rows: Math.max(2, Math.round(128 * aspect)) });
    const source = sourceOf(this.state.quantity, this.loaded.network.stateSize);
    const points = gridPoints(this.plane, this.state.view, grid, aspect);
    const given = (await this.engine.evaluate(points, { outputs: [source.output], ...withContext(this.state.context) }))[source.output]!;
    const numbers = Float32Array.from({ length: grid.columns * grid.rows }, (_, index) => pick(given, source, index));
    return { points, numbers, ...grid };
  }

  async toCsv(): Promise<Blob> {
    const { quantity } = this.state;
    const d = this.loaded?.network.stateSize ?? 0;
    const { points, numbers } = await this.exportNumbers();
    const header = [...Array.from({ length: d }, (_, k) => `x${k}`), quantity];
    const rows = Array.from(numbers, (number, index) => [...points.subarray(index * d, (index + 1) * d), number]);
    // In pieces: a text of all rows in many dimensions may be longer than a string can be.
    return new Blob(csv(header, rows), { type: "text/csv" });
  }

  async toNpy(): Promise<Blob> {
    const { numbers, columns, rows } = await this.exportNumbers();
    return new Blob([npy(numbers, [rows, columns])], { type: "application/octet-stream" });
  }

  /** The picture with its axes and bar, on paper. */
  async toPng(): Promise<Blob> {
    if (!this.loaded || !this.engine) throw new Error("the field is still loading");
    await this.paint(false);
    const canvas = document.createElement("canvas");
    canvas.width = this.canvas.width;
    canvas.height = this.canvas.height;
    const context = canvas.getContext("2d")!;
    const options = this.overlayOptions();
    const drawing = document.createElement("canvas");
    drawing.width = canvas.width;
    drawing.height = canvas.height;
    const over = drawing.getContext("2d")!;
    over.scale(devicePixelRatio, devicePixelRatio);
    drawOverlay(over, options);
    context.fillStyle = options.paper;
    context.fillRect(0, 0, canvas.width, canvas.height);
    // A WebGPU canvas holds its picture until the browser shows the next frame, so it is painted once more for this.
    context.drawImage(this.engine.snapshot(), 0, 0);
    context.drawImage(drawing, 0, 0);
    return new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser made no PNG"))), "image/png"),
    );
  }

  link(): string {
    return `${location.origin}${location.pathname}#${toHash(this.state)}`;
  }

  private noteHash(): void {
    this.elements.code.textContent = codeFor(this.loaded!.source, this.state, this.plane).browser;
    clearTimeout(this.hashTimer);
    if (this.state.field !== "file")
      this.hashTimer = setTimeout(() => history.replaceState(null, "", `#${toHash(this.state)}`), HASH_MILLISECONDS);
  }
}
