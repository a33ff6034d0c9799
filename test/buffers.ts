/** A storage buffer that can be read, filled with numbers, or with 7s. */
export function makeBuffer(device: GPUDevice, content: Float32Array | number, usage: number = GPUBufferUsage.STORAGE): GPUBuffer {
  const data = typeof content === "number" ? new Float32Array(content).fill(7) : Float32Array.from(content);
  const made = device.createBuffer({ size: data.byteLength, usage: usage | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
  // Deno 2.9 ends the process where nothing is written.
  if (data.length > 0) device.queue.writeBuffer(made, 0, data);
  return made;
}

/** What a buffer holds once all that was submitted is done. */
export async function readBuffer(device: GPUDevice, source: GPUBuffer): Promise<Float32Array> {
  const staging = device.createBuffer({ size: source.size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(source, 0, staging, 0, source.size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const data = new Float32Array(staging.getMappedRange()).slice();
  staging.destroy();
  return data;
}
