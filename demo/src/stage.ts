/** The stage: its state, what is asked of the engine when that changes, and what is drawn over the picture. */
import { evaluateReference, type Network } from "deldot";
import type { FieldSource } from "./fields/code.js";
import { isFlow, shareIn, traceCloud, type Cloud } from "./layers/cloud.js";
import { roundAbove, type Domain } from "./base/colour.js";
import { drawSamples as drawDigitSamples } from "./layers/digits.js";
import type { Engine, Ground, Painted, Shot } from "./engines/engine.js";
import { loadShelf, randomNetwork, shelfField, viewOf } from "./fields/shelf.js";
import { parseFormula } from "./fields/formula.js";
import { drawImages, traceImages, type Image } from "./layers/images.js";
import { drawMotion } from "./layers/motion.js";
import { drawOverlay, withinAxes, type Arrows, type Margins, type OverlayOptions } from "./layers/overlay.js";
import { axesPlane, gridPoints, onPlane, planeThrough, randomPlane, type Plane, type Size, type View } from "./base/plane.js";
import { contextOf, nameOf, quantitiesOf, withContext } from "./base/quantity.js";
import { fromFragment, toFragment } from "./training/weights.js";
import { grounds, initialState, layersOf, toHash, type Layer, type Link, type PlaneChoice, type State } from "./base/state.js";

/** A field that is on the stage. */
export interface Loaded {
  readonly network: Network;
  /** The field as it should be. */
  readonly truth: Network | null;
  readonly source: FieldSource;
  /** Under which it is kept on the shelf, if it is. */
  own?: string;
}

export interface StageHooks {
  readonly onError: (error: unknown) => void;
  /** Field, state or plane are others. */
  onChange(): void;
  /** Time went on, or stands. */
  onTime(): void;
  /** @param mass of a density, how much of it is in view: NaN where sums over cells cannot tell; null: not asked yet. */
  onPainted(painted: Painted, mass: number | null): void;
  /** There is another cloud. */
  onCloud(): void;
  /** Under and over what moves, in CSS pixels. */
  drawUnder(context: CanvasRenderingContext2D): void;
  draw(context: CanvasRenderingContext2D): void;
}

const ARROW_PIXELS = 46;
const SAMPLED = 18;
/** Of a flow, at which the scale is measured. */
const TIMES = [0.02, 0.3, 0.6, 0.85, 1] as const;
/** What is longer was no frame: the page was hidden. */
const LONGEST_FRAME = 500;
/** From noise to data, then a pause on the data. */
const PLAY_MILLISECONDS = 5000;
const PAUSE_MILLISECONDS = 1400;
/** A steady cloud's loop. */
const LOOP_MILLISECONDS = 5000;
/** A sum over cells is right where the density changes little from one to the next: then other cells give the same. */
const MASS_COLUMNS = [96, 125] as const;
/** Points at once: between two of them pictures have their turn. */
const MASS_BATCH = 512;
const HASH_MILLISECONDS = 300;
/** Of a cloud, in two or three dimensions and in many. */
const [POINTS, FEW_POINTS] = [1600, 200];
/** So many come at first, when nothing is known of what they cost: they may move. The others come after them, each time so many times more. */
const FIRST_POINTS = 64;
const FIRST_MILLISECONDS = 300;
const MORE = 4;

export class Stage {
  state: State;
  loaded: Loaded | null = null;
  engine: Engine | null = null;
  plane: Plane = axesPlane(2, 0, 1, []);
  size: Size = { width: 600, height: 400 };
  domain: Domain = { low: -1, high: 1, palette: "diverging-dark" };
  cloud: Cloud | null = null;
  isDark = true;
  isPlaying = false;
  loops = true;
  /** Device pixels of the canvases for each CSS pixel where they are others than the screen's. */
  exportRatio: number | null = null;
  emphasis: -1 | 0 | 1 = 0;
  /** Whether the view or the time of a flow changes from frame to frame. */
  private isOnItsWay = false;
  /** Of a steady cloud, in loops. */
  private loopTime = 0;
  private lastFrame: number | null = null;
  private pausedFor = 0;
  private frame: number | null = null;
  /** Three samples of a flow in 64 dimensions. */
  private samples: { network: Network; seed: number; points: number[][] } | null = null;
  private arrows: Arrows = [];
  /** The context they are of. */
  private arrowsAt: readonly number[] = [];
  private images: readonly Image[] = [];
  private cloudFor = "";
  /** What a point of a cloud takes of this field, in milliseconds; null: not known yet. */
  private cloudPace: number | null = null;
  /** Which cloud is traced. */
  private tracing = 0;
  /** What was painted last. */
  private last: Painted | null = null;
  /** A network that changes is in no address. */
  isTraining = false;
  /** What is held or carried needs frames as well. */
  carried = false;
  private measured = 0;
  private chosen = 0;
  /** How many fields there have been. */
  fieldCount = 0;
  private chasing: { again: boolean } | null = null;
  private hashTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    link: Link,
    private canvas: HTMLCanvasElement,
    private readonly motion: HTMLCanvasElement,
    private readonly overlay: HTMLCanvasElement,
    /** What the page's elements cover. */
    readonly margins: () => Margins,
    readonly hooks: StageHooks,
  ) {
    const { weights: _, ...said } = link;
    this.state = { ...initialState, ...said };
  }

  get ground(): Ground | null {
    const { layers, quantity } = this.state;
    if (layers.includes("error") && this.loaded?.truth) return { kind: "error" };
    if (layers.includes("density") && this.isFlow) return { kind: "density" };
    return layers.includes("div") ? { kind: "quantity", quantity } : null;
  }

  get groundName(): string {
    const { ground } = this;
    if (ground?.kind === "error") return "∇·f less the truth";
    if (ground?.kind === "density") return `density at t = ${this.state.context[0]!.toFixed(2)}`;
    return nameOf(this.state.quantity);
  }

  /** Device pixels of the canvases for each CSS pixel. */
  get ratio(): number {
    return this.exportRatio ?? devicePixelRatio;
  }

  /** Device pixels of the picture for each CSS pixel. */
  private get pictureRatio(): number {
    return this.ratio * (this.isOnItsWay && this.exportRatio === null ? (this.engine?.movingScale ?? 1) : 1);
  }

  get isFlow(): boolean {
    return this.loaded !== null && isFlow(this.loaded.network);
  }

  /** Which layers the field has something for. */
  can(layer: Layer): boolean {
    if (!this.loaded) return false;
    const { network, truth } = this.loaded;
    if (layer === "density") return isFlow(network) && network.stateSize === 2;
    if (layer === "error") return truth !== null;
    return layer !== "paths" || network.stateSize <= 3;
  }

  /** Of another engine: a canvas has one kind of context for good. */
  useCanvas(canvas: HTMLCanvasElement): void {
    this.canvas = canvas;
  }

  /** @throws what the engine throws; one that refuses the field does not become the stage's. */
  async start(engine: Engine): Promise<void> {
    // Asked for its first picture only once it has the field; meanwhile another may have been chosen.
    let loaded: Loaded | null = null;
    while (this.loaded && loaded !== this.loaded) {
      loaded = this.loaded;
      await engine.setNetwork(loaded.network, loaded.truth).catch((error: unknown) => {
        if (loaded === this.loaded) throw error;
      });
    }
    this.engine = engine;
    this.cloudFor = "";
    this.cloudPace = null;
    await this.refresh();
  }

  /** Ends its engine, and with it what is under way. */
  stop(): void {
    this.measured++;
    this.engine?.destroy();
    this.engine = null;
  }

  /** Takes a field that was dropped. */
  async useFile(loaded: Loaded): Promise<void> {
    await this.choose({ field: "file" }, undefined, loaded);
  }

  /** Another number as soon as another field is asked for. */
  get choice(): number {
    return this.chosen;
  }

  /**
   * Loads a field and goes to the view that suits it, or to what a link says of it.
   * @param own the name that it is kept under.
   * @param given the field itself, where there is no need to make it of the link, or no way.
   */
  async choose(link: Link, own?: string, given: Loaded | null = null): Promise<void> {
    const chosen = ++this.chosen;
    // A link's weights are the field, and no part of the state.
    const { weights: _, ...said } = link;
    const { field } = link;
    const known = shelfField(field);
    let loaded: Loaded;
    try {
      loaded = await this.load(link, given);
      if (own !== undefined) loaded.own = own;
      if (chosen !== this.chosen || !(await this.handOver(loaded, chosen))) return;
    } catch (error) {
      if (chosen !== this.chosen) return;
      // What is shown is still the field before.
      this.hooks.onChange();
      throw error;
    }
    const { stateSize: d, contextSize } = loaded.network;
    this.loaded = loaded;
    this.fieldCount++;
    this.measured++;
    this.cloudPace = null;
    this.resize();
    const extent = known?.extent ?? { a: 0, b: 0, across: 3, up: 3 };
    this.state = {
      ...this.state,
      truth: null,
      context: known?.context ?? Array.from({ length: contextSize }, (_, k) => (k === 0 ? 0 : 0.5)),
      layers: known?.layers ?? (loaded.truth ? ["samples", "error"] : ["div", "samples"]),
      quantity: "divergence",
      contour: true,
      plane: known?.plane ?? { kind: "axes", i: 0, j: 1, rest: Array<number>(d).fill(0) },
      view: viewOf(extent, this.size, this.margins()),
      scale: null,
      pin: null,
      ...said,
    };
    this.mend();
    this.emphasis = 0;
    // A link that says when stands there.
    this.isPlaying = !link.context?.length && !matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (!this.isPlaying && !link.context?.length && isFlow(loaded.network))
      this.state = {
        ...this.state,
        context: [1, ...this.state.context.slice(1)],
        layers: !link.layers && this.can("density") ? ["density", "samples"] : this.state.layers,
      };
    this.dropCloud();
    this.images = [];
    await this.refresh();
  }

  /** A network that has learned on takes the place of the one before, with all else as it is; false where another was chosen meanwhile. */
  async replace(network: Network, points: number): Promise<boolean> {
    const chosen = ++this.chosen;
    const loaded: Loaded = { network, truth: null, source: { kind: "drawn", points } };
    if (!(await this.handOver(loaded, chosen))) return false;
    const isFirst = this.state.field !== "drawn" || this.loaded?.network.contextSize !== network.contextSize;
    this.loaded = loaded;
    this.fieldCount++;
    if (isFirst) {
      const { view } = this.state;
      const layers: readonly Layer[] = isFlow(network) ? ["div", "samples"] : ["div", "samples", "arrows"];
      this.state = { ...initialState, field: "drawn", context: isFlow(network) ? [1] : [], layers, view, contour: false };
      this.dropCloud();
      this.cloudPace = null;
    }
    this.mend();
    this.cloudFor = "";
    await this.refresh();
    return chosen === this.chosen;
  }

  /** Gives the engine a network; false where another has been chosen meanwhile. */
  private async handOver({ network, truth }: Loaded, chosen: number): Promise<boolean> {
    for (;;) {
      const { engine } = this;
      try {
        await engine?.setNetwork(network, truth);
      } catch (error) {
        // The device was lost meanwhile: the next engine gets the network.
        if (engine === this.engine) throw error;
      }
      if (chosen !== this.chosen) return false;
      if (engine === this.engine) return true;
    }
  }

  private async load(
    { field, random = this.state.random, formula = this.state.formula, truth, weights }: Link,
    given: Loaded | null,
  ): Promise<Loaded> {
    const known = shelfField(field);
    const loaded =
      given ??
      (known
        ? {
            network: await loadShelf(known),
            source: known.source.kind === "file" ? ({ ...known.source, kind: "safetensors", options: {} } as const) : known.source,
          }
        : field === "formula"
          ? { network: parseFormula(formula), source: { kind: field, text: formula } as const }
          : field === "drawn" && weights
            ? { network: fromFragment(weights), source: { kind: field, points: null } as const }
            : field === "random"
              ? { network: randomNetwork(random), source: { kind: field, random } as const }
              : unknown(field));
    const text = truth ?? known?.truth ?? null;
    const parsed = text === null ? null : parseFormula(text);
    const { stateSize, contextSize } = loaded.network;
    if (parsed && parsed.stateSize !== stateSize)
      throw new Error(`the truth has ${parsed.stateSize} components; expected ${stateSize}, as many as the field has`);
    if (parsed && parsed.contextSize > contextSize) throw new Error("the truth depends on t; expected none, as the field has no time");
    return { ...loaded, truth: parsed };
  }

  /** What a link may ask of a field that does not have it. */
  private mend(): void {
    const { stateSize: d, contextSize } = this.loaded!.network;
    const { plane, quantity, context, layers } = this.state;
    // With two dimensions there is one plane, and no control to leave another.
    const isOutside = plane.kind === "axes" ? Math.max(plane.i, plane.j) >= Math.max(2, d) : d <= 2;
    const hasDigits = d === 64 && contextSize === 1;
    const kept: PlaneChoice = isOutside || (plane.kind === "digits" && !hasDigits) ? { kind: "axes", i: 0, j: 1, rest: [] } : plane;
    const possible = layers.filter((layer) => this.can(layer));
    this.state = {
      ...this.state,
      // Nothing of what was asked for would be an empty stage.
      layers: possible.length > 0 || layers.length === 0 ? possible : ["div"],
      plane: kept.kind === "axes" ? { ...kept, rest: Array.from({ length: d }, (_, k) => kept.rest[k] ?? 0) } : kept,
      quantity: quantitiesOf(d).includes(quantity) ? quantity : "divergence",
      context: Array.from({ length: contextSize }, (_, index) => {
        const number = context[index] ?? 0.5;
        // The clock goes from noise to data.
        return index === 0 ? Math.min(1, Math.max(0, number)) : number;
      }),
    };
  }

  /** Changes part of the state and all that follows from it. */
  async change(part: Partial<State>): Promise<void> {
    if (part.random && this.state.field === "random") return this.choose({ ...this.link(), ...part });
    // The same field beside another truth.
    if (part.truth !== undefined) return this.choose({ ...this.link(), ...part }, undefined, this.loaded);
    this.state = { ...this.state, ...part };
    if (this.loaded) this.mend();
    await this.refresh();
  }

  async toggle(layer: Layer): Promise<void> {
    const { layers } = this.state;
    const without = layers.filter((each) => each !== layer);
    // What lies over the colours leaves their scale.
    const scale = grounds.includes(layer) ? null : this.state.scale;
    await this.change({ layers: layers.includes(layer) ? without : layersOf([layer, ...without]), scale });
  }

  /** The plane, the scale, then the picture and what moves over it. */
  async refresh(): Promise<void> {
    if (!this.loaded) return;
    const plane = this.makePlane();
    if (JSON.stringify(plane) !== JSON.stringify(this.plane)) {
      // What is of another plane would stand in wrong places.
      this.plane = plane;
      this.dropCloud();
      this.images = [];
      this.arrows = [];
    }
    this.isOnItsWay = this.isMoving;
    this.resize();
    this.hooks.onChange();
    this.noteHash();
    if (!this.engine) return;
    const measured = ++this.measured;
    // What comes to rest is not overtaken by a picture of its way there, but owes what that would have shown.
    const isOwed = this.chasing?.again === true;
    if (this.chasing && !this.isMoving) this.chasing.again = false;
    try {
      await this.measure();
      if (measured !== this.measured) return;
      this.drawOver();
      // Something to see first: what moves over it takes longer.
      if (!this.cloud || isOwed) await this.paint(true);
      if (measured !== this.measured) return;
      await this.trace();
      if (measured !== this.measured) return;
      this.animate();
      if (this.isMoving) {
        // It goes on as long as the film does.
        void this.chase().catch(this.hooks.onError);
        return;
      }
      await this.paint(false);
      await this.weigh(measured);
    } catch (error) {
      // What failed for a field, a state or a device that is gone is nobody's error.
      if (measured === this.measured) throw error;
    }
  }

  /** Whether the picture itself changes from frame to frame. */
  private get isMoving(): boolean {
    return this.isPlaying && this.isFlow;
  }

  /** A view on its way: what there is under it at once, new numbers as they come, all else when it rests. */
  async moveTo(view: View, moving: boolean): Promise<void> {
    this.state = { ...this.state, view };
    this.setOff(moving);
    this.engine?.show(view);
    this.drawOver();
    this.drawMoving();
    if (!moving) return this.refresh();
    await this.chase();
  }

  /** The time of a flow. */
  async setTime(t: number, moving: boolean): Promise<void> {
    this.state = { ...this.state, context: [t, ...this.state.context.slice(1)] };
    this.hooks.onTime();
    this.setOff(moving);
    if (!moving) return this.refresh();
    this.drawMoving();
    await this.chase();
  }

  /** What was at rest and moves from now on may have fewer pixels. */
  private setOff(moving: boolean): void {
    if (!moving || this.isOnItsWay) return;
    this.isOnItsWay = true;
    this.resize();
  }

  /** One picture at a time: moves come faster than slow adapters paint. */
  private async chase(): Promise<void> {
    if (!this.engine || !this.loaded) return;
    if (this.chasing) {
      this.chasing.again = true;
      return;
    }
    const chasing: { again: boolean } = (this.chasing = { again: true });
    const { loaded, engine } = this;
    try {
      while (chasing.again) {
        chasing.again = false;
        await this.paint(true);
        await this.measureArrows();
        if (this.isMoving) await this.traceImages();
        this.drawOver();
      }
    } catch (error) {
      // What failed for a field or a device that is gone is nobody's error.
      if (loaded === this.loaded && engine === this.engine) throw error;
    } finally {
      this.chasing = null;
    }
  }

  play(on: boolean): void {
    if (on && this.isFlow && this.state.context[0]! >= 0.999) this.state = { ...this.state, context: [0, ...this.state.context.slice(1)] };
    this.isPlaying = on;
    this.pausedFor = 0;
    this.hooks.onTime();
    if (on) this.animate();
    else void this.refresh().catch(this.hooks.onError);
  }

  /** Frames go on as long as something moves. */
  animate(): void {
    if (this.frame !== null) return;
    this.lastFrame = null;
    const next = (now: number): void => {
      this.frame = null;
      const passed = this.lastFrame === null ? 0 : Math.min(LONGEST_FRAME, now - this.lastFrame);
      this.lastFrame = now;
      this.advance(passed);
      if (this.needsFrames) this.frame = requestAnimationFrame(next);
    };
    this.frame = requestAnimationFrame(next);
  }

  private get needsFrames(): boolean {
    if (this.carried) return true;
    const moves = this.state.layers.includes("samples") && this.cloud !== null;
    return this.isPlaying && this.engine !== null && (this.isFlow || moves);
  }

  private advance(milliseconds: number): void {
    if (this.isPlaying && this.isFlow && this.engine) {
      const t = this.state.context[0]!;
      this.pausedFor = t < 1 ? 0 : this.pausedFor + milliseconds;
      if (this.pausedFor > PAUSE_MILLISECONDS && !this.loops) return this.play(false);
      if (t < 1 || this.pausedFor > PAUSE_MILLISECONDS) {
        // Which draws what moves.
        void this.setTime(t < 1 ? Math.min(1, t + milliseconds / PLAY_MILLISECONDS) : 0, true).catch(this.hooks.onError);
        return;
      }
    } else if (this.isPlaying) this.loopTime = (this.loopTime + milliseconds / LOOP_MILLISECONDS) % 1;
    this.drawMoving();
  }

  /** A steady cloud at a share of its loop. */
  stepLoop(time: number): void {
    this.loopTime = time % 1;
    this.drawMoving();
  }

  setPin(pin: readonly [number, number] | null): void {
    if (!this.loaded) return;
    this.state = { ...this.state, pin };
    this.noteHash();
    this.drawOver();
    this.hooks.onChange();
  }

  /** Fades what shrinks (1) or what grows (-1). */
  emphasise(sign: -1 | 0 | 1): void {
    if (this.emphasis === sign) return;
    this.emphasis = sign;
    if (this.engine && this.loaded) this.engine.show(this.state.view, this.shot());
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
      this.samples = { network, seed, points: drawDigitSamples(network, 3, seed) };
    return this.samples.points;
  }

  resize(): void {
    const { clientWidth: width, clientHeight: height } = this.overlay;
    if (width === 0 || height === 0) return;
    this.size = { width, height };
    const fit = (canvas: HTMLCanvasElement, ratio: number): boolean => {
      const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (canvas.width === w && canvas.height === h) return false;
      [canvas.width, canvas.height] = [w, h];
      return true;
    };
    fit(this.motion, this.ratio);
    fit(this.overlay, this.ratio);
    // A canvas of another size is empty.
    if (fit(this.canvas, this.pictureRatio)) this.engine?.show({ ...this.state.view });
  }

  /** The colours' scale, the same at all times of a flow, and the arrows. */
  private async measure(): Promise<void> {
    const { ground } = this;
    const { truth } = this.loaded!;
    const { view, context, scale } = this.state;
    const aspect = this.size.height / this.size.width;
    const grid = { columns: SAMPLED, rows: Math.max(2, Math.round(SAMPLED * aspect)) };
    const points = gridPoints(this.plane, view, grid, aspect);
    await this.measureArrows();
    if (!ground) return;
    const diverging = this.isDark ? "diverging-dark" : "diverging";
    const times: readonly (readonly number[])[] = this.isFlow ? TIMES.map((t) => [t, ...context.slice(1)]) : [context];
    const all = await Promise.all(times.map((at) => this.engine!.numbersAt(ground, points, at)));
    const values = all.flatMap((numbers) => Array.from(numbers));
    if (ground.kind === "density") this.domain = { low: 0, high: scale ?? roundAbove(values, 0.99), palette: "sequential" };
    else if (ground.kind === "error") {
      const high = scale ?? roundAbove(values);
      this.domain = { low: -high, high, palette: diverging };
    } else if (ground.quantity === "magnitude") this.domain = { low: 0, high: scale ?? roundAbove(values), palette: "sequential" };
    else {
      const isDivergence = ground.quantity === "divergence";
      // A truth without time is the same at all of them.
      const ofTruth = truth && truth.contextSize > 0 ? times : [context];
      const truths = isDivergence && truth ? ofTruth.flatMap((at) => Array.from(divergenceAt(truth, points, at))) : null;
      this.domain = domainOf(values, truths, scale, diverging);
    }
  }

  /** What is coloured, or the quantity where nothing is, at points [B, d]. @throws what the engine throws. */
  numbersAt(points: Float32Array): Promise<Float64Array> {
    const { quantity, context } = this.state;
    return this.engine!.numbersAt(this.ground ?? { kind: "quantity", quantity }, points, context);
  }

  private async measureArrows(): Promise<void> {
    if (!this.state.layers.includes("arrows")) {
      this.arrows = [];
      return;
    }
    const { network } = this.loaded!;
    const d = network.stateSize;
    const { view, context } = this.state;
    const { width, height } = this.size;
    const grid = { columns: Math.max(4, Math.round(width / ARROW_PIXELS)), rows: Math.max(3, Math.round(height / ARROW_PIXELS)) };
    const points = gridPoints(this.plane, view, grid, height / width);
    const { plane, loaded } = this;
    const { value } = await this.engine!.evaluate(points, { outputs: ["value"], ...withContext(context) });
    if (loaded !== this.loaded || plane !== this.plane) return;
    this.arrowsAt = context;
    this.arrows = Array.from({ length: grid.columns * grid.rows }, (_, index) => {
      const x = Array.from(points.subarray(index * d, (index + 1) * d));
      const [a, b] = onPlane(plane, x);
      const sum = (axis: readonly number[]): number => axis.reduce((all, part, k) => all + part * value![index * d + k]!, 0);
      return [a, b, sum(plane.u), sum(plane.v)] as const;
    });
  }

  /** The cloud, where something shows it, and it is not there yet. */
  private async trace(): Promise<void> {
    const { network } = this.loaded!;
    const { layers, view, context } = this.state;
    await this.traceImages();
    const wants = isFlow(network) || layers.includes("samples") || layers.includes("paths");
    const setting = isFlow(network) ? [context.slice(1)] : [view, this.size];
    const key = JSON.stringify([this.chosen, this.plane, setting]);
    if (!wants || (key === this.cloudFor && this.cloud)) return;
    const { plane, size, chosen, engine } = this;
    const tracing = ++this.tracing;
    const most = network.stateSize > 8 ? FEW_POINTS : POINTS;
    /** null where another cloud is wanted. */
    const grow = async (known: Cloud | null, wanted: number): Promise<Cloud | null> => {
      const begun = performance.now();
      const cloud = await traceCloud(engine!, network, { plane, view, size, context }, Math.min(most, wanted), known);
      if (tracing !== this.tracing || chosen !== this.chosen || plane !== this.plane || engine !== this.engine) return null;
      this.cloudPace = (performance.now() - begun) / (cloud.count - (known?.count ?? 0));
      this.cloud = cloud;
      this.cloudFor = key;
      // For whoever cannot read pixels.
      this.motion.dataset["points"] = String(cloud.count);
      this.hooks.onCloud();
      return cloud;
    };
    const first = await grow(null, Math.max(FIRST_POINTS, Math.floor(FIRST_MILLISECONDS / (this.cloudPace ?? Infinity))));
    const growOn = async (): Promise<void> => {
      for (let cloud = first; cloud && cloud.count < most;) {
        cloud = await grow(cloud, MORE * cloud.count);
        if (cloud) this.drawMoving();
      }
    };
    void growOn().catch((error: unknown) => {
      // What failed for a field or a device that is gone is nobody's error.
      if (chosen === this.chosen && engine === this.engine) this.hooks.onError(error);
    });
  }

  private dropCloud(): void {
    this.cloud = null;
    delete this.motion.dataset["points"];
  }

  /** In 64 dimensions a sample is an image. */
  private async traceImages(): Promise<void> {
    const { network } = this.loaded!;
    const isImages = network.stateSize === 64 && network.contextSize === 1;
    if (!isImages || !this.state.layers.includes("samples")) {
      this.images = [];
      return;
    }
    const { plane, loaded } = this;
    const images = await traceImages(
      this.engine!,
      plane,
      this.state.view,
      this.size,
      withinAxes(this.overlayOptions()),
      this.state.context[0]!,
    );
    if (loaded === this.loaded && plane === this.plane) this.images = images;
  }

  private async paint(moving: boolean): Promise<void> {
    if (!this.engine || !this.loaded) return;
    this.resize();
    const shot = this.shot();
    const { engine } = this;
    await engine.paint(shot, moving, (painted) => engine === this.engine && this.tell(painted, shot));
  }

  /** Of a density at rest, how much of it is in view. */
  private async weigh(measured: number): Promise<void> {
    if (this.ground?.kind !== "density") return;
    const { view, context } = this.state;
    const aspect = this.size.height / this.size.width;
    // What plays or is dragged from now on is another density, or seen elsewhere.
    const isThere = (): boolean => measured === this.measured && view === this.state.view && context === this.state.context;
    const masses: number[] = [];
    for (const columns of MASS_COLUMNS) {
      const mass = await this.sumOver({ columns, rows: Math.round(columns * aspect) }, isThere);
      if (mass === null) return;
      masses.push(mass);
    }
    if (!this.last || !this.cloud) return;
    const share = shareIn(this.cloud, context[0]!, view, aspect);
    this.hooks.onPainted(this.last, isResolved(masses, share, this.cloud.count) ? masses[0]! : NaN);
  }

  /** The integral over the view by one number in the middle of each cell, some at a time; null where that is not there any more. */
  private async sumOver(grid: { readonly columns: number; readonly rows: number }, isThere: () => boolean): Promise<number | null> {
    const { view } = this.state;
    const aspect = this.size.height / this.size.width;
    const points = gridPoints(this.plane, view, grid, aspect);
    const d = this.plane.origin.length;
    let sum = 0;
    for (let first = 0; first < grid.columns * grid.rows; first += MASS_BATCH) {
      const numbers = await this.numbersAt(points.slice(first * d, (first + MASS_BATCH) * d));
      if (!isThere()) return null;
      sum = numbers.reduce((all, number) => all + number, sum);
    }
    return sum * (view.width / grid.columns) * ((view.width * aspect) / grid.rows);
  }

  shot(): Shot {
    const { view, context, contour } = this.state;
    const paper = paperOf();
    return {
      plane: this.plane,
      view,
      context,
      ground: this.ground,
      size: { width: this.canvas.width, height: this.canvas.height },
      contour: contour && this.domain.palette.startsWith("diverging"),
      domain: this.domain,
      paper,
      emphasis: this.emphasis,
      ratio: this.pictureRatio,
    };
  }

  private tell(painted: Painted, shot: Shot): void {
    if (!this.engine) return;
    this.last = painted;
    this.hooks.onPainted(painted, null);
    const { columns, rows, done } = painted;
    // For whoever reads pixels: what they stand for, and whether finer ones follow.
    Object.assign(this.canvas.dataset, {
      state: done ? "done" : "coarse",
      engine: this.engine.kind,
      domain: JSON.stringify(this.domain),
      ground: shot.ground?.kind ?? "none",
      columns: String(columns),
      rows: String(rows),
      plane: JSON.stringify(this.plane),
      view: JSON.stringify(shot.view),
      context: JSON.stringify(shot.context),
    });
    const { view } = shot;
    this.overlay.setAttribute(
      "aria-label",
      `Picture${this.ground ? ` of ${this.groundName} from ${this.domain.low} to ${this.domain.high}` : ""}, ${this.plane.names[0]} around ${view.a.toPrecision(3)}, ${this.plane.names[1]} around ${view.b.toPrecision(3)}, ${view.width.toPrecision(3)} wide`,
    );
  }

  drawOver(): void {
    const context = surfaceOf(this.overlay);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.overlay.dataset["arrows"] = JSON.stringify(this.arrowsAt);
    drawOverlay(context, this.overlayOptions());
  }

  overlayOptions(): OverlayOptions {
    const style = getComputedStyle(document.documentElement);
    return {
      size: this.size,
      margins: this.margins(),
      plane: this.plane,
      view: this.state.view,
      bar: this.ground && { domain: this.domain, name: this.groundName },
      arrows: this.arrows,
      pin: this.state.pin,
      ink: style.getPropertyValue("--ink"),
      paper: style.getPropertyValue("--paper"),
    };
  }

  /** What moves, where it is now. */
  drawMoving(context: CanvasRenderingContext2D = surfaceOf(this.motion)): void {
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    if (context.canvas === this.motion) context.clearRect(0, 0, this.size.width, this.size.height);
    const { layers, view } = this.state;
    const { cloud, size, isDark } = this;
    this.hooks.drawUnder(context);
    const [samples, paths] = [layers.includes("samples"), layers.includes("paths")];
    if (samples && this.images.length > 0) drawImages(context, this.images, view, size);
    else if (cloud && (samples || paths))
      drawMotion(context, { cloud, time: this.isFlow ? this.state.context[0]! : this.loopTime, view, size, samples, paths, isDark });
    this.hooks.draw(context);
  }

  /** What a link to the stage says. */
  link(): Link {
    const { context, ...others } = this.state;
    // What plays has no time of its own.
    const said = this.isMoving && context.length === 1 ? others : this.state;
    return this.state.field === "drawn" && this.loaded ? { ...said, weights: toFragment(this.loaded.network) } : said;
  }

  href(): string {
    return `${location.origin}${location.pathname}#${toHash(this.link())}`;
  }

  private noteHash(): void {
    clearTimeout(this.hashTimer);
    const { field } = this.state;
    const isNone = field === "file" || (field === "drawn" && this.isTraining);
    const note = (): void =>
      history.replaceState(null, "", `${location.pathname}${location.search}${isNone ? "" : `#${toHash(this.link())}`}`);
    // A file stays with whoever dropped it: the address names no other field meanwhile.
    if (isNone) note();
    else this.hashTimer = setTimeout(note, HASH_MILLISECONDS);
  }
}

/** Whether sums over cells agree with one another, and with the share of a cloud's points that are in view. */
export function isResolved(masses: readonly number[], share: number, count: number): boolean {
  const [mass, other] = masses as [number, number];
  // Four standard deviations of a share of so many points, and 2 % for those near the edge.
  const slack = 4 * Math.sqrt(Math.max(share * (1 - share), 1 / count) / count) + 0.02;
  return Math.abs(mass - other) <= 0.005 && Math.abs(mass - share) <= slack;
}

/** Drawn by the CPU: where there is no GPU, a browser that draws lines by one in software falls ever further behind. */
export function surfaceOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  return canvas.getContext("2d", { willReadFrequently: true })!;
}

function unknown(field: string): never {
  throw new Error(field === "file" ? "a file stays with whoever dropped it: drop it again" : `there is no field "${field}"`);
}

/** Of a truth, at points [B, d]. */
function divergenceAt(truth: Network, points: Float32Array, context: readonly number[]): Float64Array {
  return evaluateReference(truth, points, { ...contextOf(truth, context), outputs: ["divergence"] }).divergence!;
}

/** The page's background, in which what has no numbers is painted. */
function paperOf(): readonly [number, number, number] {
  const hex = getComputedStyle(document.documentElement).getPropertyValue("--paper").trim();
  const [r, g, b] = hex
    .slice(1)
    .match(/../g)!
    .map((part) => Number.parseInt(part, 16));
  return [r!, g!, b!];
}

/** Around the truth where that is one number; from the least to the largest where all have one sign and differ; else around 0. */
export function domainOf(
  values: readonly number[],
  truths: ArrayLike<number> | null,
  scale: number | null,
  diverging: Domain["palette"],
): Domain {
  const finite = values.filter((value) => Number.isFinite(value)).toSorted((a, b) => a - b);
  const truth = truths?.[0];
  const isConstant = truth !== undefined && Array.from(truths!).every((each) => Math.abs(each - truth) <= 1e-6 * Math.abs(truth));
  if (isConstant) {
    const half = scale ?? roundAbove(values.map((value) => value - truth));
    return { low: truth - half, high: truth + half, palette: diverging };
  }
  const [low, high] = [finite[Math.floor(0.02 * finite.length)] ?? -1, finite[Math.floor(0.98 * (finite.length - 1))] ?? 1];
  const largest = Math.max(Math.abs(low), Math.abs(high));
  const isOneSigned = finite.length > 0 && finite[0]! * finite.at(-1)! > 0 && high - low > 0.02 * largest;
  const night = diverging.endsWith("dark") ? "-dark" : "";
  if (isOneSigned && scale === null) return { low, high, palette: `${low > 0 ? "grows" : "shrinks"}${night}` };
  // A flat field keeps away from the end of the scale.
  const half = scale ?? roundAbove(high - low < 0.02 * largest ? values.map((value) => 1.5 * value) : values);
  return { low: -half, high: half, palette: diverging };
}
