import type { VectorField } from "deldot";

/** Half of the side of the square that is shown. */
export const REACH = 3;

const SHADER = `
@group(0) @binding(0) var<storage, read> divergence: array<f32>;
@group(0) @binding(1) var pixels: texture_storage_2d<r32float, write>;

@compute @workgroup_size(8, 8)
fn fill(@builtin(global_invocation_id) id: vec3u) {
  let size = textureDimensions(pixels);
  if (any(id.xy >= size)) { return; }
  textureStore(pixels, id.xy, vec4f(divergence[id.y * size.x + id.x], 0.0, 0.0, 1.0));
}

@group(0) @binding(2) var shown: texture_2d<f32>;

@vertex
fn corner(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f {
  return vec4f(f32(i & 1u) * 4.0 - 1.0, f32(i >> 1u) * 4.0 - 1.0, 0.0, 1.0);
}

@group(0) @binding(3) var<uniform> target_size: vec2f;

@fragment
fn colour(@builtin(position) at: vec4f) -> @location(0) vec4f {
  let t = clamp(textureLoad(shown, vec2u(at.xy / target_size * vec2f(textureDimensions(shown))), 0).x / 5.0, -1.0, 1.0);
  let grey = vec3f(0.93);
  return vec4f(select(mix(grey, vec3f(0.55, 0.4, 1.0), -t), mix(grey, vec3f(1.0, 0.55, 0.1), t), t > 0.0), 1.0);
}
`;

export interface DivergenceTexture {
  /** r32float, [size, size]: ∇·f at the middle of each pixel, the row of the largest y first. */
  readonly texture: GPUTexture;
  /** Records the divergence, at the context that the buffer holds then, and its way into the texture. */
  fill(encoder: GPUCommandEncoder): void;
  /** Records a pass that draws the texture over all of a target: orange where f makes room, violet where it takes some. */
  draw(encoder: GPUCommandEncoder, target: GPUTexture): void;
}

/**
 * The divergence of a plane field over [-REACH, REACH]², in a texture of the app's own.
 * @param context a buffer with one context for all points, which the app may write whenever it likes.
 */
export async function divergenceTexture(
  device: GPUDevice,
  field: VectorField,
  context: GPUBuffer,
  size: number,
  format: GPUTextureFormat,
): Promise<DivergenceTexture> {
  const count = size * size;
  const { STORAGE, COPY_DST, UNIFORM } = GPUBufferUsage;
  const points = device.createBuffer({ label: "grid", size: 8 * count, usage: STORAGE | COPY_DST });
  const divergence = device.createBuffer({ label: "divergence", size: 4 * count, usage: STORAGE });
  const targetSize = device.createBuffer({ label: "size of the target", size: 8, usage: UNIFORM | COPY_DST });
  device.queue.writeBuffer(points, 0, gridOf(size));
  const { STORAGE_BINDING, TEXTURE_BINDING, COPY_SRC } = GPUTextureUsage;
  const texture = device.createTexture({
    label: "divergence",
    size: [size, size],
    format: "r32float",
    usage: STORAGE_BINDING | TEXTURE_BINDING | COPY_SRC,
  });

  const module = device.createShaderModule({ label: "divergence texture", code: SHADER });
  const filler = device.createComputePipeline({ layout: "auto", compute: { module } });
  // A float32 texture is loaded, not filtered.
  const { FRAGMENT } = GPUShaderStage;
  const layout = device.createBindGroupLayout({
    entries: [
      { binding: 2, visibility: FRAGMENT, texture: { sampleType: "unfilterable-float" } },
      { binding: 3, visibility: FRAGMENT, buffer: {} },
    ],
  });
  const painter = device.createRenderPipeline({
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    vertex: { module },
    fragment: { module, targets: [{ format }] },
  });
  const filling = device.createBindGroup({
    layout: filler.getBindGroupLayout(0),
    entries: [
      { binding: 0, resource: { buffer: divergence } },
      { binding: 1, resource: texture.createView() },
    ],
  });
  const painting = device.createBindGroup({
    layout,
    entries: [
      { binding: 2, resource: texture.createView() },
      { binding: 3, resource: { buffer: targetSize } },
    ],
  });
  await field.reserve(count, { outputs: ["divergence"] });

  return {
    texture,
    fill(encoder) {
      const pass = encoder.beginComputePass();
      field.encode(pass, { points, count, context: { buffer: context, stride: 0 }, divergence });
      pass.setPipeline(filler);
      pass.setBindGroup(0, filling);
      pass.dispatchWorkgroups(Math.ceil(size / 8), Math.ceil(size / 8));
      pass.end();
    },
    draw(encoder, target) {
      device.queue.writeBuffer(targetSize, 0, Float32Array.of(target.width, target.height));
      const pass = encoder.beginRenderPass({ colorAttachments: [{ view: target.createView(), loadOp: "clear", storeOp: "store" }] });
      pass.setPipeline(painter);
      pass.setBindGroup(0, painting);
      pass.draw(3);
      pass.end();
    },
  };
}

/** The middles of the pixels, [size², 2], from the largest y down. */
export function gridOf(size: number): Float32Array<ArrayBuffer> {
  const at = (pixel: number): number => REACH * ((2 * pixel + 1) / size - 1);
  return Float32Array.from({ length: 2 * size * size }, (_, i) => {
    const pixel = i >> 1;
    return i % 2 === 0 ? at(pixel % size) : -at(Math.floor(pixel / size));
  });
}
