// A TypeGPU pipeline moves particles along a learned field; deldot evaluates field and divergence right in TypeGPU's buffers.
import { readFile } from "node:fs/promises";
import { parseSafetensors, VectorField } from "deldot";
import { requestDevice } from "deldot/node";
import tgpu from "typegpu";
import * as d from "typegpu/data";

const COUNT = 4096;
const STEPS = 50;

const { device, dispose } = await requestDevice(); // in a browser: the device of tgpu.init()
const root = tgpu.initFromDevice({ device });
const field = await VectorField.create(device, parseSafetensors(await readFile(process.argv[2])));

// vec3f lies in memory as four floats: the stride of its rows.
const start = Array.from({ length: COUNT }, (_, i) => d.vec3f(Math.sin(i), Math.cos(3 * i), Math.sin(7 * i)));
const points = root.createBuffer(d.arrayOf(d.vec3f, COUNT), start).$usage("storage");
const velocity = root.createBuffer(d.arrayOf(d.vec3f, COUNT)).$usage("storage");
const divergence = root.createBuffer(d.arrayOf(d.f32, COUNT)).$usage("storage");

const layout = tgpu.bindGroupLayout({
  points: { storage: d.arrayOf(d.vec3f), access: "mutable" },
  velocity: { storage: d.arrayOf(d.vec3f), access: "readonly" },
});
const move = tgpu
  .computeFn({ in: { id: d.builtin.globalInvocationId }, workgroupSize: [64] })(
    `{ layout.$.points[in.id.x] += 0.01 * layout.$.velocity[in.id.x]; }`,
  )
  .$uses({ layout });
const moving = root.createComputePipeline({ compute: move }).with(root.createBindGroup(layout, { points, velocity }));

await field.reserve(COUNT);
const rows = {
  points: { buffer: root.unwrap(points), stride: 4 },
  value: { buffer: root.unwrap(velocity), stride: 4 },
  divergence: { buffer: root.unwrap(divergence) },
};
for (let step = 0; step <= STEPS; step++) {
  const encoder = device.createCommandEncoder();
  field.encode(encoder, { ...rows, count: COUNT });
  if (step < STEPS) moving.with(encoder).dispatchWorkgroups(COUNT / 64);
  device.queue.submit([encoder.finish()]);
}

const [where, divergences] = await Promise.all([points.read(), divergence.read()]);
console.log(JSON.stringify({ points: where.map(({ x, y, z }) => [x, y, z]), divergence: divergences }));
field.destroy();
root.destroy();
await dispose();
