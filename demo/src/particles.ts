/** Particles that the field carries, on the GPU from step to step. */
import type { VectorField } from "deldot";
import drawShader from "../shaders/particles.wgsl?raw";
import stepShader from "../shaders/particles_step.wgsl?raw";
import type { Shot } from "./engine.js";
import { pointOn, uniforms } from "./plane.js";

const COUNT = 2048;
/** Of the picture's width that a particle of typical speed crosses in a step. */
export const STRIDE = 0.003;
export const RADIUS_PIXELS = 2.2;

export class Particles {
  private readonly stepPipeline: GPUComputePipeline;
  private readonly drawPipeline: GPURenderPipeline;
  private readonly stepUniform: GPUBuffer;
  private readonly viewUniform: GPUBuffer;
  private readonly particles: GPUBuffer;
  private buffers: { points: GPUBuffer; value: GPUBuffer; divergence: GPUBuffer } | null = null;
  private field: VectorField | null = null;
  private plane: GPUBuffer | null = null;
  private context: GPUBuffer | null = null;
  private frame: number | null = null;
  private placedFor = "";
  /** Which loop of frames is the present one. */
  private run = 0;

  constructor(
    private readonly device: GPUDevice,
    format: GPUTextureFormat,
  ) {
    const module = (label: string, code: string): GPUShaderModule => device.createShaderModule({ label, code });
    const step = module("particles step", stepShader);
    this.stepPipeline = device.createComputePipeline({ label: "particles step", layout: "auto", compute: { module: step } });
    const draw = module("particles", drawShader);
    const blend = { srcFactor: "one", dstFactor: "one-minus-src-alpha" } as const;
    this.drawPipeline = device.createRenderPipeline({
      label: "particles",
      layout: "auto",
      vertex: { module: draw },
      fragment: { module: draw, targets: [{ format, blend: { color: blend, alpha: blend } }] },
    });
    const { UNIFORM, COPY_DST, STORAGE } = GPUBufferUsage;
    this.stepUniform = device.createBuffer({ label: "particles step", size: 32, usage: UNIFORM | COPY_DST });
    this.viewUniform = device.createBuffer({ label: "particles view", size: 32, usage: UNIFORM | COPY_DST });
    this.particles = device.createBuffer({ label: "particles", size: 16 * COUNT, usage: STORAGE | COPY_DST });
  }

  setField(field: VectorField, plane: GPUBuffer, context: GPUBuffer): void {
    const d = field.network.stateSize;
    for (const buffer of Object.values(this.buffers ?? {})) buffer.destroy();
    const make = (label: string, floats: number): GPUBuffer =>
      this.device.createBuffer({ label: `particles ${label}`, size: 4 * floats, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
    this.buffers = { points: make("points", COUNT * d), value: make("value", COUNT * d), divergence: make("divergence", COUNT) };
    this.field = field;
    this.plane = plane;
    this.context = context;
    this.placedFor = "";
  }

  setRunning(on: boolean, redraw: () => void): void {
    if (!on) {
      if (this.frame !== null) cancelAnimationFrame(this.frame);
      this.frame = null;
      return;
    }
    if (this.frame !== null) return;
    this.placedFor = "";
    const run = ++this.run;
    const next = (): void => {
      try {
        redraw();
      } catch {
        // A field or a device that is gone; whoever made it so goes on from there.
        this.frame = null;
        return;
      }
      // The next step is asked for once the GPU is through with this one: a slow adapter does not fall behind.
      void this.device.queue.onSubmittedWorkDone().then(() => {
        if (this.frame !== null && run === this.run) this.frame = requestAnimationFrame(next);
      });
    };
    this.frame = requestAnimationFrame(next);
  }

  get isRunning(): boolean {
    return this.frame !== null;
  }

  /** Tells where the picture is. Particles are strewn over it anew where the plane is another. */
  moveTo({ plane, view, panels, speed, ratio }: Shot): void {
    const { width, height } = panels[0]!;
    const tall = (view.width * height) / width;
    const d = plane.origin.length;
    const steps = new DataView(new ArrayBuffer(32));
    steps.setUint32(0, COUNT, true);
    steps.setUint32(4, d, true);
    [view.a, view.b, view.width, tall, (STRIDE * view.width) / speed].forEach((value, i) => steps.setFloat32(8 + 4 * i, value, true));
    this.device.queue.writeBuffer(this.stepUniform, 0, steps);
    const data = new DataView(new ArrayBuffer(32));
    data.setUint32(0, d, true);
    [view.a, view.b, view.width, tall, width, height, RADIUS_PIXELS * ratio].forEach((value, i) => data.setFloat32(4 + 4 * i, value, true));
    this.device.queue.writeBuffer(this.viewUniform, 0, data);
    const key = JSON.stringify([plane, view]);
    if (!this.isRunning || key === this.placedFor) return;
    this.placedFor = key;
    const next = uniforms(7);
    const placed = new Float32Array(COUNT * d);
    for (let i = 0; i < COUNT; i++) placed.set(pointOn(plane, view.a + (next() - 0.5) * view.width, view.b + (next() - 0.5) * tall), i * d);
    this.device.queue.writeBuffer(this.buffers!.points, 0, placed);
    const fresh = new Float32Array(4 * COUNT);
    const seeds = new Uint32Array(fresh.buffer);
    for (let i = 0; i < COUNT; i++) {
      fresh[4 * i + 1] = Math.floor(60 * next());
      fresh[4 * i + 2] = 60 + Math.floor(120 * next());
      seeds[4 * i + 3] = Math.floor(next() * 2 ** 30);
    }
    this.device.queue.writeBuffer(this.particles, 0, fresh);
  }

  step(encoder: GPUCommandEncoder): void {
    const { field, buffers } = this;
    if (!this.isRunning || !field || !buffers) return;
    const context = field.network.contextSize > 0 ? { buffer: this.context!, stride: 0 } : undefined;
    field.encode(encoder, {
      points: { buffer: buffers.points },
      count: COUNT,
      context,
      value: { buffer: buffers.value },
      divergence: { buffer: buffers.divergence },
    });
    const pass = encoder.beginComputePass({ label: "particles step" });
    pass.setPipeline(this.stepPipeline);
    const resources = [this.stepUniform, this.plane!, buffers.points, buffers.value, buffers.divergence, this.particles];
    pass.setBindGroup(0, this.bind(this.stepPipeline, resources));
    pass.dispatchWorkgroups(Math.ceil(COUNT / 64));
    pass.end();
  }

  draw(pass: GPURenderPassEncoder): void {
    if (!this.isRunning || !this.buffers || this.placedFor === "") return;
    pass.setPipeline(this.drawPipeline);
    pass.setBindGroup(0, this.bind(this.drawPipeline, [this.viewUniform, this.plane!, this.buffers.points, this.particles]));
    pass.draw(6 * COUNT);
  }

  private bind(pipeline: GPUComputePipeline | GPURenderPipeline, buffers: readonly GPUBuffer[]): GPUBindGroup {
    return this.device.createBindGroup({
      label: pipeline.label,
      layout: pipeline.getBindGroupLayout(0),
      entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
    });
  }
}
