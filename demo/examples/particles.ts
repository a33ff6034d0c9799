/**
 * A WebGPU app that had its own device, buffers and frame loop before deldot came in: each frame, encode() evaluates the field
 * at the particles, right in the app's buffers; a kernel of the app moves them; and its render pass colours them by the divergence.
 */
import { parseSafetensors, VectorField } from "deldot";
import model from "../models/van-der-pol.safetensors?url";

const COUNT = 4000;
const SHADER = `
struct Frame { dt: f32, seed: u32, aspect: f32 }
@group(0) @binding(0) var<uniform> frame: Frame;
@group(0) @binding(1) var<storage, read_write> points: array<vec2f>;
@group(0) @binding(2) var<storage, read> velocity: array<vec2f>;

fn random(n: u32) -> f32 {
  var x = n * 747796405u + 2891336453u;
  x = ((x >> ((x >> 28u) + 4u)) ^ x) * 277803737u;
  return f32(((x >> 22u) ^ x) >> 8u) / 16777216.0;
}

@compute @workgroup_size(64)
fn advance(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= arrayLength(&points)) { return; }
  var x = points[id.x] + frame.dt * velocity[id.x];
  // One in two hundred starts anew, so that the picture never runs dry.
  let n = id.x * 4u + frame.seed;
  if (random(n) < 0.005 || any(abs(x) > vec2f(5.0))) { x = 6.0 * vec2f(random(n + 1u), random(n + 2u)) - 3.0; }
  points[id.x] = x;
}

struct Dot { @builtin(position) at: vec4f, @location(0) colour: vec3f }
@group(0) @binding(3) var<storage, read> places: array<vec2f>;
@group(0) @binding(4) var<storage, read> divergence: array<f32>;

@vertex
fn corner(@builtin(vertex_index) vertex: u32, @builtin(instance_index) i: u32) -> Dot {
  let offset = 0.012 * (vec2f(f32(vertex & 1u), f32(vertex >> 1u)) - 0.5);
  let t = clamp(divergence[i] / 3.0, -1.0, 1.0);
  let colour = select(mix(vec3f(0.93), vec3f(0.55, 0.4, 1.0), -t), mix(vec3f(0.93), vec3f(1.0, 0.55, 0.1), t), t > 0.0);
  return Dot(vec4f((places[i] / 4.2 + offset) * vec2f(1.0 / frame.aspect, 1.0), 0.0, 1.0), colour);
}

@fragment
fn colour(dot: Dot) -> @location(0) vec4f { return vec4f(dot.colour, 1.0); }
`;

const canvas = document.querySelector("canvas")!;
const status = document.querySelector("#status")!;

async function run(): Promise<void> {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("this example needs WebGPU, which this browser does not have or has switched off");
  const device = await adapter.requestDevice();
  const context = canvas.getContext("webgpu")!;
  const format = navigator.gpu.getPreferredCanvasFormat();
  context.configure({ device, format });

  const network = parseSafetensors(new Uint8Array(await (await fetch(model)).arrayBuffer()));
  const field = await VectorField.create(device, network);

  // The app's own buffers: deldot reads and writes them where they are.
  const { STORAGE, COPY_DST, UNIFORM } = GPUBufferUsage;
  const buffer = (label: string, size: number, usage: number): GPUBuffer => device.createBuffer({ label, size, usage });
  const points = buffer("points", 8 * COUNT, STORAGE | COPY_DST);
  const velocity = buffer("velocity", 8 * COUNT, STORAGE);
  const divergence = buffer("divergence", 4 * COUNT, STORAGE);
  const uniform = buffer("frame", 16, UNIFORM | COPY_DST);
  device.queue.writeBuffer(
    points,
    0,
    Float32Array.from({ length: 2 * COUNT }, () => 6 * Math.random() - 3),
  );

  const module = device.createShaderModule({ label: "particles", code: SHADER });
  const mover = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "advance" } });
  const painter = device.createRenderPipeline({
    layout: "auto",
    vertex: { module },
    fragment: { module, targets: [{ format }] },
    primitive: { topology: "triangle-strip" },
  });
  const bind = (pipeline: GPUComputePipeline | GPURenderPipeline, buffers: Record<number, GPUBuffer>): GPUBindGroup =>
    device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: Object.entries(buffers).map(([binding, buffer]) => ({ binding: Number(binding), resource: { buffer } })),
    });
  const moving = bind(mover, { 0: uniform, 1: points, 2: velocity });
  const painting = bind(painter, { 0: uniform, 3: points, 4: divergence });

  await field.reserve(COUNT);
  let seed = 0;
  const frame = (): void => {
    canvas.width = canvas.clientWidth * devicePixelRatio;
    canvas.height = canvas.clientHeight * devicePixelRatio;
    const data = new DataView(new ArrayBuffer(16));
    data.setFloat32(0, 1 / 90, true);
    data.setUint32(4, (seed = (seed + 40_503) >>> 0), true);
    data.setFloat32(8, canvas.width / canvas.height, true);
    device.queue.writeBuffer(uniform, 0, data);

    const encoder = device.createCommandEncoder();
    field.encode(encoder, { points: { buffer: points }, count: COUNT, value: { buffer: velocity }, divergence: { buffer: divergence } });
    const compute = encoder.beginComputePass();
    compute.setPipeline(mover);
    compute.setBindGroup(0, moving);
    compute.dispatchWorkgroups(Math.ceil(COUNT / 64));
    compute.end();
    const view = context.getCurrentTexture().createView();
    const clearValue = [0.06, 0.06, 0.08, 1];
    const pass = encoder.beginRenderPass({ colorAttachments: [{ view, loadOp: "clear", storeOp: "store", clearValue }] });
    pass.setPipeline(painter);
    pass.setBindGroup(0, painting);
    pass.draw(4, COUNT);
    pass.end();
    device.queue.submit([encoder.finish()]);
    canvas.dataset["frames"] = String(Number(canvas.dataset["frames"] ?? 0) + 1);
    // A slow GPU sets the pace.
    void device.queue.onSubmittedWorkDone().then(() => requestAnimationFrame(frame));
  };
  frame();
}

run().catch((error: unknown) => (status.textContent = (error as Error).message));
