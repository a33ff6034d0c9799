/** Computes and paints on a GPUDevice: the numbers of a picture go from `encode` to the render pass and never leave the GPU. */
import { VectorField, type EvaluateOptions, type Network, type Store } from "deldot";
import gridShader from "../shaders/grid.wgsl?raw";
import pictureShader from "../shaders/picture.wgsl?raw";
import { tableOf } from "./colour.js";
import { nextLevel, type Engine, type Numbers, type Painted, type Shot } from "./engine.js";
import { Particles } from "./particles.js";
import { sourceOf } from "./quantity.js";

/** While things move, a picture may take this long; at rest, its finest level. */
const MOVING_MILLISECONDS = 30;
const RESTING_MILLISECONDS = 3500;
/** A submission is kept this short, so that other work has its turn. */
const SUBMISSION_MILLISECONDS = 120;
const PANELS = ["field", "truth", "difference"] as const;
/** The numbers of a picture, of which two are kept, take no more. */
const MOST_BYTES = 2 ** 28;
const PICTURE_BYTES = 72;
const PICTURE_STRIDE = 256;

/** What is remembered between visits: work per submission, and which kernels are the fastest here. */
const store: Store = {
  get: (key) => localStorage.getItem(key),
  set: (key, value) => localStorage.setItem(key, value),
};

/**
 * @param takesSoftware whether an adapter will do that computes on the CPU, where onnxruntime-web is faster.
 * @throws Error with a reason in words where the browser gives no device.
 */
export async function openGpu(canvas: HTMLCanvasElement, takesSoftware: boolean, onLost: (reason: string) => void): Promise<GpuEngine> {
  if (!(navigator.gpu as GPU | undefined)) throw new Error("this browser has no WebGPU");
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("this browser has WebGPU, but found no adapter");
  const { vendor, architecture, description } = adapter.info;
  const name = description || [vendor, architecture].filter((part) => part !== "").join(" ") || "a GPU";
  if (isSoftware(adapter.info) && !takesSoftware) throw new Error(`this browser has WebGPU, but in software: ${name}`);
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  const wanted: GPUFeatureName[] = ["subgroups"];
  const device = await adapter.requestDevice({
    label: "deldot page",
    requiredLimits: { maxBufferSize, maxStorageBufferBindingSize },
    requiredFeatures: wanted.filter((feature) => adapter.features.has(feature)),
  });
  void device.lost.then(({ reason, message }) => reason !== "destroyed" && onLost(message || "the GPU was lost"));
  return new GpuEngine(device, canvas, name, !isSoftware(adapter.info));
}

/** Software adapters take a minute and more to compile what a trial tries. */
function isSoftware(info: GPUAdapterInfo): boolean {
  return (
    info.isFallbackAdapter || /swiftshader|llvmpipe|warp|basic render/i.test(`${info.vendor} ${info.architecture} ${info.description}`)
  );
}

export class GpuEngine implements Engine {
  readonly kind = "webgpu";
  private readonly surface: GPUCanvasContext;
  private readonly gridPipeline: GPUComputePipeline;
  private readonly picturePipeline: GPURenderPipeline;
  private readonly gridUniform: GPUBuffer;
  private readonly pictureUniform: GPUBuffer;
  private readonly table: GPUBuffer;
  private context: GPUBuffer;
  private planeBuffer: GPUBuffer;
  private points: GPUBuffer | null = null;
  /** What is drawn, and what the next level is computed into. */
  private numbers: GPUBuffer | null = null;
  private nextNumbers: GPUBuffer | null = null;
  private field: VectorField | null = null;
  private network: Network | null = null;
  private readonly particles: Particles;
  /** What is on the canvas: redrawn as particles move. */
  private shown: { shot: Shot; columns: number; rows: number } | null = null;
  private token = 0;
  private asked = 0;
  /** Of f and the quantity, at the last level that took long enough to tell. */
  private millisecondsPerPoint = new Map<string, number>();
  private tuned = new Set<string>();

  constructor(
    readonly device: GPUDevice,
    private readonly canvas: HTMLCanvasElement,
    readonly name: string,
    /** Whether a trial of kernels pays, once a picture is done. */
    private readonly tunes: boolean,
  ) {
    this.surface = canvas.getContext("webgpu")!;
    const format = navigator.gpu.getPreferredCanvasFormat();
    this.surface.configure({ device, format, alphaMode: "premultiplied" });
    const module = (label: string, code: string): GPUShaderModule => device.createShaderModule({ label, code });
    this.gridPipeline = device.createComputePipeline({ label: "grid", layout: "auto", compute: { module: module("grid", gridShader) } });
    const picture = module("picture", pictureShader);
    this.picturePipeline = device.createRenderPipeline({
      label: "picture",
      layout: "auto",
      vertex: { module: picture },
      fragment: { module: picture, targets: [{ format }] },
    });
    const { COPY_DST, STORAGE, UNIFORM } = GPUBufferUsage;
    const buffer = (label: string, size: number, usage: number): GPUBuffer => device.createBuffer({ label, size, usage: usage | COPY_DST });
    this.gridUniform = buffer("grid", 48, UNIFORM);
    this.pictureUniform = buffer("picture", PICTURE_STRIDE * PANELS.length, UNIFORM);
    this.table = buffer("colours", 256 * 16, STORAGE);
    this.context = buffer("context", 16, STORAGE);
    this.planeBuffer = buffer("plane", 12, STORAGE);
    this.particles = new Particles(device, format);
  }

  async setNetwork(network: Network): Promise<void> {
    const asked = ++this.asked;
    const field = await VectorField.create(this.device, network, { store, label: "the page's field" });
    // Another was asked for meanwhile, and may even be there.
    if (asked !== this.asked) return field.destroy();
    this.token++;
    this.shown = null;
    this.field?.destroy();
    this.field = field;
    this.network = network;
    this.planeBuffer.destroy();
    this.context.destroy();
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    this.planeBuffer = this.device.createBuffer({ label: "plane", size: 12 * network.stateSize, usage });
    this.context = this.device.createBuffer({ label: "context", size: 4 * Math.max(4, network.contextSize), usage });
    this.millisecondsPerPoint = new Map();
    this.tuned = new Set();
    this.particles.setField(field, this.planeBuffer, this.context);
  }

  evaluate(points: Float32Array, options: EvaluateOptions): Promise<Numbers> {
    return this.field!.evaluate(points, options);
  }

  setParticles(on: boolean): void {
    this.particles.setRunning(on, () => this.redraw());
  }

  async paint(shot: Shot, moving: boolean, onPainted: (painted: Painted) => void): Promise<void> {
    const token = ++this.token;
    const { device } = this;
    this.device.queue.writeBuffer(this.context, 0, Float32Array.from(shot.context));
    this.device.queue.writeBuffer(this.planeBuffer, 0, Float32Array.from([...shot.plane.origin, ...shot.plane.u, ...shot.plane.v]));
    this.device.queue.writeBuffer(
      this.table,
      0,
      Float32Array.from(tableOf(shot.palette).flatMap(([r, g, b]) => [r / 255, g / 255, b / 255, 1])),
    );
    this.particles.moveTo(shot);
    const { width, height } = shot.panels[0]!;
    const kind = sourceOf(shot.quantity, this.network!.stateSize).output;
    let level: number | null = Infinity;
    let last: Painted | null = null;
    for (;;) {
      const limit = moving ? MOVING_MILLISECONDS : level === Infinity ? MOVING_MILLISECONDS * 4 : RESTING_MILLISECONDS;
      level = nextLevel(level, width * height, this.millisecondsPerPoint.get(kind) ?? 0.02, limit);
      if (level === null) return;
      const [columns, rows] = [Math.max(2, Math.ceil(width / level)), Math.max(2, Math.ceil(height / level))];
      // A finer level in many dimensions may be more than a buffer holds: the coarser one stays.
      const stride = sourceOf(shot.quantity, this.network!.stateSize).stride;
      const most = Math.min(device.limits.maxStorageBufferBindingSize, MOST_BYTES);
      if (last && 4 * stride * columns * rows > most) return onPainted({ ...last, done: !moving });
      const begun = performance.now();
      if (!(await this.compute(shot, columns, rows, token))) return;
      const milliseconds = performance.now() - begun;
      if (columns * rows >= 1024) this.millisecondsPerPoint.set(kind, milliseconds / (columns * rows));
      const next = moving ? null : nextLevel(level, width * height, milliseconds / (columns * rows), RESTING_MILLISECONDS);
      last = { columns, rows, milliseconds, done: !moving && next === null };
      onPainted(last);
      if (moving) return;
      if (next === null) {
        // A trial that fails is no error of the picture.
        void this.tune(kind, columns * rows).catch(() => undefined);
        return;
      }
    }
  }

  /** A buffer that was refused would be refused for ever. */
  private forgetBuffers(): void {
    for (const buffer of [this.points, this.numbers, this.nextNumbers]) buffer?.destroy();
    this.points = this.numbers = this.nextNumbers = null;
    this.shown = null;
  }

  /** Once for each output of a field: the next pictures run what is the fastest here, and the next visit does from the start. */
  private async tune(output: "value" | "divergence" | "diagonal", count: number): Promise<void> {
    if (!this.tunes || this.tuned.has(output)) return;
    this.tuned.add(output);
    const { field } = this;
    await field!.tune(count, { outputs: [output] });
    if (field === this.field) this.millisecondsPerPoint.delete(output);
  }

  /** Computes the grid in submissions of bounded length; the last one draws it. Gives false where another picture is wanted. */
  private async compute(shot: Shot, columns: number, rows: number, token: number): Promise<boolean> {
    const { device } = this;
    const d = this.network!.stateSize;
    const { output, stride } = sourceOf(shot.quantity, d);
    const total = columns * rows;
    const perPoint = this.millisecondsPerPoint.get(output) ?? 0.02;
    const most = Math.floor(device.limits.maxStorageBufferBindingSize / (4 * d));
    const band = Math.max(64, Math.min(total, most, Math.floor(SUBMISSION_MILLISECONDS / perPoint)));
    for (let first = 0; first < total; first += band) {
      const count = Math.min(band, total - first);
      const errors = this.scoped(() => {
        const points = (this.points = this.room(this.points, "points", 4 * d * band));
        const numbers = (this.nextNumbers = this.room(this.nextNumbers, "numbers", 4 * stride * total));
        const encoder = device.createCommandEncoder({ label: "picture" });
        this.encodeGrid(encoder, points, { columns, rows, first, count, d }, shot);
        this.field!.encode(encoder, {
          points: { buffer: points },
          count,
          context: this.network!.contextSize > 0 ? { buffer: this.context, stride: 0 } : undefined,
          [output]: { buffer: numbers, offset: 4 * stride * first, stride },
        });
        if (first + count >= total) {
          [this.numbers, this.nextNumbers] = [numbers, this.numbers];
          this.shown = { shot, columns, rows };
          this.encodePicture(encoder);
        }
        device.queue.submit([encoder.finish()]);
      });
      await device.queue.onSubmittedWorkDone();
      const problem = await errors;
      if (problem) {
        this.forgetBuffers();
        throw new Error(`the GPU refused the picture: ${problem.message}`);
      }
      if (token !== this.token) return false;
    }
    return true;
  }

  /** Does the work, and tells what the GPU refuses of it. */
  private scoped(work: () => void): Promise<GPUError | null> {
    this.device.pushErrorScope("validation");
    this.device.pushErrorScope("out-of-memory");
    let refused: Promise<GPUError | null>;
    try {
      work();
    } finally {
      // Popped at once, whatever the work throws; a lost device tells of itself.
      const pop = (): Promise<GPUError | null> => this.device.popErrorScope().catch(() => null);
      refused = Promise.all([pop(), pop()]).then(([memory, validation]) => memory ?? validation);
    }
    return refused;
  }

  private encodeGrid(
    encoder: GPUCommandEncoder,
    points: GPUBuffer,
    cells: { columns: number; rows: number; first: number; count: number; d: number },
    { view, panels }: Shot,
  ): void {
    const data = new DataView(new ArrayBuffer(48));
    const { columns, rows, first, count, d } = cells;
    [columns, rows, first, count, d].forEach((value, index) => data.setUint32(4 * index, value, true));
    const { width, height } = panels[0]!;
    [view.a, view.b, view.width, (view.width * height) / width].forEach((value, index) => data.setFloat32(20 + 4 * index, value, true));
    this.device.queue.writeBuffer(this.gridUniform, 0, data);
    const pass = encoder.beginComputePass({ label: "grid" });
    pass.setPipeline(this.gridPipeline);
    pass.setBindGroup(0, this.bind(this.gridPipeline, [{ buffer: this.gridUniform }, { buffer: this.planeBuffer }, { buffer: points }]));
    const groups = Math.ceil((count * d) / 64);
    const across = Math.min(groups, this.device.limits.maxComputeWorkgroupsPerDimension);
    pass.dispatchWorkgroups(across, Math.ceil(groups / across));
    pass.end();
  }

  private encodePicture(encoder: GPUCommandEncoder): void {
    const { shot, columns, rows } = this.shown!;
    const { stride, component } = sourceOf(shot.quantity, this.network!.stateSize);
    const { plane, view, truth, panels } = shot;
    shot.panels.forEach((place, index) => {
      const data = new DataView(new ArrayBuffer(PICTURE_BYTES));
      const floats = (at: number, values: number[]): void => values.forEach((value, i) => data.setFloat32(at + 4 * i, value, true));
      const tall = (view.width * panels[0]!.height) / panels[0]!.width;
      floats(0, [columns, rows]);
      data.setUint32(8, stride, true);
      data.setInt32(12, component, true);
      floats(16, [shot.scale]);
      data.setUint32(20, shot.palette === "diverging" ? 1 : 0, true);
      data.setUint32(24, shot.contour ? 1 : 0, true);
      data.setUint32(28, PANELS.indexOf(place.panel), true);
      const left = plane.origin[0]! + (view.a - view.width / 2) * plane.u[0]! + (view.b + tall / 2) * plane.v[0]!;
      floats(32, [truth?.constant ?? 0, truth?.square ?? 0, left, view.width * plane.u[0]!, -tall * plane.v[0]!]);
      floats(52, [place.left, place.top, place.width, place.height, 1.5 * shot.ratio]);
      this.device.queue.writeBuffer(this.pictureUniform, index * PICTURE_STRIDE, data);
    });
    const pass = encoder.beginRenderPass({
      label: "picture",
      colorAttachments: [
        { view: this.surface.getCurrentTexture().createView(), loadOp: "clear", storeOp: "store", clearValue: [0, 0, 0, 0] },
      ],
    });
    shot.panels.forEach(({ left, top, width, height }, index) => {
      const right = Math.min(left + width, this.canvas.width);
      const bottom = Math.min(top + height, this.canvas.height);
      // A canvas that has just become smaller.
      if (right <= left || bottom <= top) return;
      pass.setPipeline(this.picturePipeline);
      pass.setViewport(left, top, right - left, bottom - top, 0, 1);
      pass.setScissorRect(left, top, right - left, bottom - top);
      const uniform = { buffer: this.pictureUniform, offset: index * PICTURE_STRIDE, size: PICTURE_BYTES };
      pass.setBindGroup(0, this.bind(this.picturePipeline, [uniform, { buffer: this.numbers! }, { buffer: this.table }]));
      pass.draw(3);
      if (shot.panels[index]!.panel === "field") this.particles.draw(pass);
    });
    pass.end();
  }

  /** The picture as it is, with the particles where they are now. */
  private redraw(): void {
    if (!this.shown || !this.field) return;
    const encoder = this.device.createCommandEncoder({ label: "particles" });
    this.particles.step(encoder);
    this.encodePicture(encoder);
    this.device.queue.submit([encoder.finish()]);
  }

  snapshot(): HTMLCanvasElement {
    const encoder = this.device.createCommandEncoder({ label: "snapshot" });
    if (this.shown) this.encodePicture(encoder);
    this.device.queue.submit([encoder.finish()]);
    return this.canvas;
  }

  private bind(pipeline: GPUComputePipeline | GPURenderPipeline, buffers: readonly GPUBufferBinding[]): GPUBindGroup {
    const entries = buffers.map((resource, binding) => ({ binding, resource }));
    return this.device.createBindGroup({ label: pipeline.label, layout: pipeline.getBindGroupLayout(0), entries });
  }

  private room(buffer: GPUBuffer | null, label: string, size: number): GPUBuffer {
    if (buffer && buffer.size >= size) return buffer;
    buffer?.destroy();
    return this.device.createBuffer({ label, size: 16 * Math.ceil(size / 16), usage: GPUBufferUsage.STORAGE });
  }

  destroy(): void {
    this.token++;
    this.particles.setRunning(false, () => undefined);
    this.field?.destroy();
    this.device.destroy();
  }
}
