/** Computes and paints on a GPUDevice: the numbers of a picture go from `encode` to the render pass and never leave the GPU. */
import { Flow, VectorField, type EvaluateOptions, type Network, type Store } from "deldot";
import gridShader from "../../shaders/grid.wgsl?raw";
import pictureShader from "../../shaders/picture.wgsl?raw";
import { middleOf, tableOf } from "../base/colour.js";
import { type Engine, type Ground, type Moved, type Numbers, type Painted, type Shot } from "./engine.js";
import { backFrom } from "../base/density.js";
import { numbersOf, workOf } from "./ground.js";
import { stored } from "../base/page.js";
import { Painter } from "./painter.js";
import { contextOf, sourceOf, type Source } from "../base/quantity.js";

/** While things move, a picture may take this long; at rest, its finest level. */
const MOVING_MILLISECONDS = 30;
const RESTING_MILLISECONDS = 3500;
/** A submission is kept this short, so that other work has its turn. */
const SUBMISSION_MILLISECONDS = 120;
/** The numbers of a picture, of which two are kept, take no more. */
const MOST_BYTES = 2 ** 28;
const PICTURE_BYTES = 96;

/** What is remembered between visits: work per submission, and which kernels are the fastest here. */
const store: Store = stored;

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

/** A network with what it computes by. */
interface Held {
  readonly network: Network;
  readonly field: VectorField;
  /** Made when it is first asked for. */
  flow: Promise<Flow> | null;
}

/** The buffers of a picture: of numbers, and of what they are combined with. */
interface Buffers {
  numbers: GPUBuffer;
  others: GPUBuffer;
}

/** What is on the canvas. */
interface Shown {
  readonly buffers: Buffers;
  readonly shot: Shot;
  readonly columns: number;
  readonly rows: number;
}

export class GpuEngine extends Painter implements Engine {
  readonly kind = "webgpu";
  private readonly surface: GPUCanvasContext;
  private readonly gridPipeline: GPUComputePipeline;
  private readonly picturePipeline: GPURenderPipeline;
  private readonly gridUniform: GPUBuffer;
  private readonly pictureUniform: GPUBuffer;
  private readonly table: GPUBuffer;
  private tableOf: string = "";
  private context: GPUBuffer;
  private planeBuffer: GPUBuffer;
  private points: GPUBuffer | null = null;
  /** What is drawn, and what the next level is computed into. */
  private shown: Shown | null = null;
  private next: Buffers | null = null;
  private held: Held | null = null;
  private truth: VectorField | null = null;
  private asked = 0;
  private tuned = new Set<string>();

  constructor(
    readonly device: GPUDevice,
    private readonly canvas: HTMLCanvasElement,
    readonly name: string,
    /** Whether it computes in hardware, where a trial of kernels pays. */
    readonly isHardware: boolean,
  ) {
    super({ moving: MOVING_MILLISECONDS, first: 4 * MOVING_MILLISECONDS, resting: RESTING_MILLISECONDS });
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
    this.pictureUniform = buffer("picture", PICTURE_BYTES, UNIFORM);
    this.table = buffer("colours", 256 * 16, STORAGE);
    this.context = buffer("context", 16, STORAGE);
    this.planeBuffer = buffer("plane", 12, STORAGE);
  }

  /** In software, browsers take as long for a frame as it has pixels. */
  get movingScale(): number {
    return this.isHardware ? 1 : 0.25;
  }

  async setNetwork(network: Network, truth: Network | null): Promise<void> {
    const asked = ++this.asked;
    const made = await Promise.allSettled([
      VectorField.create(this.device, network, { store, label: "the page's field" }),
      truth && VectorField.create(this.device, truth, { store, label: "the page's truth" }),
    ]);
    const [field, truthField] = made.map((each) => (each.status === "fulfilled" ? each.value : null));
    const failed = made.find((each) => each.status === "rejected");
    // Another was asked for meanwhile, and may even be there.
    if (asked !== this.asked || failed) {
      field?.destroy();
      truthField?.destroy();
      if (failed && asked === this.asked) throw failed.reason;
      return;
    }
    this.token++;
    this.forget();
    this.held = { network, field: field!, flow: null };
    this.truth = truthField ?? null;
    this.planeBuffer.destroy();
    this.context.destroy();
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    this.planeBuffer = this.device.createBuffer({ label: "plane", size: 12 * network.stateSize, usage });
    this.context = this.device.createBuffer({ label: "context", size: 4 * Math.max(4, network.contextSize), usage });
    this.pace.clear();
    this.tuned = new Set();
  }

  /** Shows nothing; what was shown is computed into next. */
  private clear(): void {
    if (this.next) for (const buffer of Object.values(this.shown?.buffers ?? {}) as GPUBuffer[]) buffer.destroy();
    else this.next = this.shown?.buffers ?? null;
    this.shown = null;
  }

  /** Frees the field that was. */
  private forget(): void {
    this.clear();
    this.held?.field.destroy();
    void this.held?.flow?.then(
      (flow) => flow.destroy(),
      () => undefined,
    );
    this.truth?.destroy();
    this.held = this.truth = null;
  }

  evaluate(points: Float32Array, options: EvaluateOptions): Promise<Numbers> {
    return this.held!.field.evaluate(points, options);
  }

  numbersAt(ground: Ground, points: Float32Array, context: readonly number[]): Promise<Float64Array> {
    return numbersOf(ground, points, context, this.held!.network.stateSize, {
      evaluate: (rows, options) => this.evaluate(rows, options),
      evaluateTruth: (rows, options) => this.truth!.evaluate(rows, { ...options, ...contextOf(this.truth!.network, context) }),
      transport: (rows, options) => this.transport(rows, options),
    });
  }

  async transport(points: Float32Array, options: Parameters<Engine["transport"]>[1]): Promise<Moved> {
    return (await this.flow()).transport(points, options);
  }

  /** The first number of a context is time. */
  private flow(): Promise<Flow> {
    const { network } = this.held!;
    const options = { store, label: "the page's flow", timeColumn: network.contextSize > 0 ? 0 : null };
    return (this.held!.flow ??= Flow.create(this.device, network, options));
  }

  async paint(shot: Shot, moving: boolean, onPainted: (painted: Painted) => void): Promise<void> {
    const token = ++this.token;
    const { device } = this;
    this.show(shot.view, shot);
    const { ground } = shot;
    if (!ground) {
      this.clear();
      this.redraw();
      return onPainted({ columns: 0, rows: 0, milliseconds: 0, done: !moving });
    }
    const work = workOf(ground, shot.context);
    // A first evaluation compiles, which says nothing of the time that others take.
    if (!this.pace.has(work)) {
      if (!(await this.compute(shot, 8, 8, token, false))) return;
      const begun = performance.now();
      if (!(await this.compute(shot, 32, 24, token, false))) return;
      this.pace.learn(work, 32 * 24, performance.now() - begun);
    }
    // A finer level in many dimensions may be more than a buffer holds: the coarser one stays.
    const { stride, beside, output } = this.sourceFor(shot);
    const most = Math.min(device.limits.maxStorageBufferBindingSize, MOST_BYTES);
    await this.refine(
      shot,
      moving,
      work,
      ({ columns, rows }) => this.compute(shot, columns, rows, token, true),
      (painted) => {
        onPainted(painted);
        // A trial that fails is no error of the picture.
        if (painted.done && ground.kind === "quantity") void this.tune(output, painted.columns * painted.rows).catch(() => undefined);
      },
      ({ columns, rows }) => 4 * Math.max(stride, beside) * columns * rows <= most,
    );
  }

  /** Which output a picture is of, numbers of a point in it, and in what it is combined with. */
  private sourceFor({ ground }: Shot): Source & { readonly beside: number } {
    const d = this.held!.network.stateSize;
    if (ground!.kind === "quantity") return { ...sourceOf(ground!.quantity, d), beside: 0 };
    return { output: "divergence", stride: 1, component: 0, beside: ground!.kind === "error" ? 1 : d };
  }

  /** Once for each output of a field: the next pictures run what is the fastest here, and the next visit does from the start. */
  private async tune(output: Source["output"], count: number): Promise<void> {
    if (!this.isHardware || this.tuned.has(output)) return;
    this.tuned.add(output);
    await this.held!.field.tune(count, { outputs: [output] });
  }

  /** Computes the grid in submissions of bounded length; the last one draws it. Gives false where another picture is wanted. */
  private async compute(shot: Shot, columns: number, rows: number, token: number, draws: boolean): Promise<boolean> {
    const { device } = this;
    const { network, field } = this.held!;
    const d = network.stateSize;
    const ground = shot.ground!;
    const { output, stride, beside } = this.sourceFor(shot);
    const total = columns * rows;
    const perPoint = this.pace.of(workOf(ground, shot.context)) ?? 0.02;
    const most = Math.floor(device.limits.maxStorageBufferBindingSize / (4 * d));
    const band = Math.max(64, Math.min(total, most, Math.floor(SUBMISSION_MILLISECONDS / perPoint)));
    const flow = ground.kind === "density" ? await this.flow() : null;
    if (token !== this.token) return false;
    device.queue.writeBuffer(this.context, 0, Float32Array.from(shot.context));
    device.queue.writeBuffer(this.planeBuffer, 0, Float32Array.from([...shot.plane.origin, ...shot.plane.u, ...shot.plane.v]));
    for (let first = 0; first < total; first += band) {
      const count = Math.min(band, total - first);
      const errors = this.scoped(() => {
        const points = (this.points = this.room(this.points, "points", 4 * d * band));
        const { numbers, others } = (this.next = {
          numbers: this.room(this.next?.numbers ?? null, "numbers", 4 * stride * total),
          others: this.room(this.next?.others ?? null, "others", Math.max(16, 4 * beside * total)),
        });
        const encoder = device.createCommandEncoder({ label: "picture" });
        this.encodeGrid(encoder, points, { columns, rows, first, count, d }, shot);
        if (flow) {
          flow.encodeTransport(encoder, {
            ...backFrom(shot.context),
            points: { buffer: points },
            count,
            end: { buffer: others, offset: 4 * d * first },
            divergenceIntegral: { buffer: numbers, offset: 4 * first },
          });
        } else {
          const contextFor = ({ contextSize }: Network) => (contextSize > 0 ? { buffer: this.context, stride: 0 } : undefined);
          field.encode(encoder, {
            points: { buffer: points },
            count,
            context: contextFor(network),
            [output]: { buffer: numbers, offset: 4 * stride * first, stride },
          });
          if (ground.kind === "error")
            this.truth!.encode(encoder, {
              points: { buffer: points },
              count,
              context: contextFor(this.truth!.network),
              divergence: { buffer: others, offset: 4 * first },
            });
        }
        if (draws && first + count >= total) {
          const buffers = this.next;
          this.next = this.shown?.buffers ?? null;
          this.shown = { buffers, shot, columns, rows };
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

  /** A buffer that was refused would be refused for ever. */
  private forgetBuffers(): void {
    const all = [this.points, ...Object.values(this.next ?? {}), ...Object.values(this.shown?.buffers ?? {})] as (GPUBuffer | null)[];
    for (const buffer of all) buffer?.destroy();
    this.points = this.next = this.shown = null;
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
    { view, size }: Shot,
  ): void {
    const data = new DataView(new ArrayBuffer(48));
    const { columns, rows, first, count, d } = cells;
    [columns, rows, first, count, d].forEach((value, index) => data.setUint32(4 * index, value, true));
    const tall = (view.width * size.height) / size.width;
    [view.a, view.b, view.width, tall].forEach((value, index) => data.setFloat32(20 + 4 * index, value, true));
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
    const { shown, look, view } = this;
    const { width, height } = this.canvas;
    const target = this.surface.getCurrentTexture().createView();
    const [red, green, blue] = (look?.paper ?? [0, 0, 0]).map((c) => c / 255) as [number, number, number];
    const pass = encoder.beginRenderPass({
      label: "picture",
      colorAttachments: [{ view: target, loadOp: "clear", storeOp: "store", clearValue: [red, green, blue, 1] }],
    });
    if (shown && look) {
      const { shot, columns, rows, buffers } = shown;
      const { component, stride } = this.sourceFor(shot);
      const { palette, low, high } = look.domain;
      if (palette !== this.tableOf) {
        this.tableOf = palette;
        const colours = tableOf(palette).flatMap((colour) => [...colour.map((c) => c / 255), 1]);
        this.device.queue.writeBuffer(this.table, 0, Float32Array.from(colours));
      }
      const data = new DataView(new ArrayBuffer(PICTURE_BYTES));
      const floats = (at: number, values: number[]): void => values.forEach((value, i) => data.setFloat32(at + 4 * i, value, true));
      floats(0, [columns, rows]);
      data.setUint32(8, stride, true);
      data.setInt32(12, component, true);
      floats(16, [low, high]);
      data.setUint32(24, look.contour ? 1 : 0, true);
      data.setUint32(28, ["quantity", "error", "density"].indexOf(shot.ground!.kind), true);
      data.setUint32(32, shot.plane.origin.length, true);
      floats(36, [look.emphasis, width, height, 1.5 * look.ratio]);
      // Where the view that is shown lies in the one the numbers are of.
      const [tall, was] = [(view.width * height) / width, (shot.view.width * shot.size.height) / shot.size.width];
      const startX = 0.5 + (view.a - shot.view.a - view.width / 2) / shot.view.width;
      const startY = 0.5 - (view.b - shot.view.b + tall / 2) / was;
      floats(52, [startX, startY, view.width / shot.view.width, tall / was, red, green, blue, middleOf(look.domain)]);
      this.device.queue.writeBuffer(this.pictureUniform, 0, data);
      pass.setPipeline(this.picturePipeline);
      const resources = [this.pictureUniform, buffers.numbers, buffers.others, this.table].map((buffer) => ({ buffer }));
      pass.setBindGroup(0, this.bind(this.picturePipeline, resources));
      pass.draw(3);
    }
    pass.end();
  }

  protected redraw(): void {
    const encoder = this.device.createCommandEncoder({ label: "picture" });
    this.encodePicture(encoder);
    this.device.queue.submit([encoder.finish()]);
  }

  snapshot(): HTMLCanvasElement {
    this.redraw();
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
    this.forget();
    this.device.destroy();
  }
}
