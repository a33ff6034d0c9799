import { afterAll, beforeAll, expect, test } from "vitest";
import { divergenceTexture, gridOf } from "../examples/storage-texture/divergenceTexture.js";
import { evaluateReference, parseSafetensors, VectorField } from "../src/index.js";
import { readFile } from "node:fs/promises";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";

const size = 64;

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => void ({ device, close } = await openDevice()));
afterAll(() => close());

/** The bytes of a texture whose rows are whole multiples of 256 bytes. */
async function read(texture: GPUTexture): Promise<ArrayBuffer> {
  const bytes = 4 * size * size;
  const staging = device.createBuffer({ size: bytes, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.copyTextureToBuffer({ texture }, { buffer: staging, bytesPerRow: 4 * size }, [size, size]);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const copy = staging.getMappedRange().slice(0);
  staging.destroy();
  return copy;
}

test("the example's texture holds the divergence at the time in the buffer, and is drawn in its colours", async () => {
  device.pushErrorScope("validation");
  const network = parseSafetensors(await readFile(new URL("../demo/models/two-moons-flow.safetensors", import.meta.url)));
  const field = await VectorField.create(device, network);
  const time = device.createBuffer({ size: 4, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
  const target = device.createTexture({
    size: [size, size],
    format: "rgba8unorm",
    usage: GPUTextureUsage.RENDER_ATTACHMENT | GPUTextureUsage.COPY_SRC,
  });
  const picture = await divergenceTexture(device, field, time, size, "rgba8unorm");
  const seen = { orange: 0, violet: 0 };
  for (const t of [0.25, 0.9]) {
    device.queue.writeBuffer(time, 0, Float32Array.of(t));
    const encoder = device.createCommandEncoder();
    picture.fill(encoder);
    picture.draw(encoder, target);
    device.queue.submit([encoder.finish()]);
    const truth = evaluateReference(network, gridOf(size), { context: Math.fround(t), outputs: ["divergence", "diagonal"] });
    const [divergence, diagonal] = [truth.divergence!, truth.diagonal!];
    const scale = divergence.map((_, point) => Math.abs(diagonal[2 * point]!) + Math.abs(diagonal[2 * point + 1]!));
    expectClose(new Float32Array(await read(picture.texture)), divergence, scale, { label: `the texture at t = ${t}` });
    const colours = new Uint8Array(await read(target));
    divergence.forEach((x, pixel) => {
      const [red, , blue] = colours.subarray(4 * pixel);
      if (x > 0.5) seen.orange += Number(red! > blue!) || -Infinity;
      if (x < -0.5) seen.violet += Number(red! < blue!) || -Infinity;
    });
  }
  // None of another colour, and some of either.
  expect(Math.min(seen.orange, seen.violet)).toBeGreaterThan(20);
  expect(await device.popErrorScope()).toBeNull();
  field.destroy();
});
