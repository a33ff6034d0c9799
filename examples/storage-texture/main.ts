/**
 * The divergence of a learned flow in a storage texture of the app's own, at a time that the app writes into a buffer: what deldot
 * computes goes from its buffer to the texture, and from there to the screen, and never leaves the GPU.
 */
import { parseSafetensors, VectorField } from "deldot";
import model from "../../demo/models/two-moons-flow.safetensors?url";
import { divergenceTexture } from "./divergenceTexture.js";

const SIZE = 256;
/** Of a way from noise to data. */
const SECONDS = 6;

const canvas = document.querySelector("canvas")!;
const status = document.querySelector("#status")!;

async function run(): Promise<void> {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("this example needs WebGPU, which this browser does not have or has switched off");
  const device = await adapter.requestDevice();
  const context = canvas.getContext("webgpu")!;
  const format = navigator.gpu.getPreferredCanvasFormat();
  context.configure({ device, format });

  const field = await VectorField.create(device, parseSafetensors(new Uint8Array(await (await fetch(model)).arrayBuffer())));
  const time = device.createBuffer({ label: "time", size: 4, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
  const picture = await divergenceTexture(device, field, time, SIZE, format);

  const frame = (milliseconds: number): void => {
    device.queue.writeBuffer(time, 0, Float32Array.of((milliseconds / 1000 / SECONDS) % 1));
    const encoder = device.createCommandEncoder();
    picture.fill(encoder);
    picture.draw(encoder, context.getCurrentTexture());
    device.queue.submit([encoder.finish()]);
    canvas.dataset["frames"] = String(Number(canvas.dataset["frames"] ?? 0) + 1);
    // A slow GPU sets the pace.
    void device.queue.onSubmittedWorkDone().then(() => requestAnimationFrame(frame));
  };
  requestAnimationFrame(frame);
}

run().catch((error: unknown) => (status.textContent = (error as Error).message));
