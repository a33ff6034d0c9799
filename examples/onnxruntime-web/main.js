// onnxruntime-web evaluates a field on WebGPU; deldot takes its device and its output where it lies, and gives the divergence there.
import { parseOnnx, VectorField } from "deldot";
import * as ort from "onnxruntime-web/webgpu";

const bytes = new Uint8Array(await (await fetch("model.onnx")).arrayBuffer());
const session = await ort.InferenceSession.create(bytes, { executionProviders: ["webgpu"], preferredOutputLocation: "gpu-buffer" });
const device = await ort.env.webgpu.device; // there once a session is
const network = parseOnnx(bytes);
const field = await VectorField.create(device, network);

const count = 1000;
const x = Float32Array.from({ length: count * network.stateSize }, (_, i) => Math.sin(i * i));
const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", x, [count, network.stateSize]) };
const { [session.outputNames[0]]: value } = await session.run(feeds);

const divergence = device.createBuffer({ size: 4 * count, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
const copy = device.createBuffer({ size: 4 * count, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
const encoder = device.createCommandEncoder();
field.encode(encoder, { points: { buffer: value.gpuBuffer }, count, divergence: { buffer: divergence } });
encoder.copyBufferToBuffer(divergence, copy);
device.queue.submit([encoder.finish()]);
value.dispose(); // its buffer is the session's again

await copy.mapAsync(GPUMapMode.READ);
console.log(JSON.stringify([...new Float32Array(copy.getMappedRange())]));
