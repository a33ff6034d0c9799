/**
 * A scene of three.js' WebGPU renderer on the learned Lorenz system: deldot runs on the renderer's device and in its buffers,
 * the renderer's own compute pass moves the particles, and its sprites take their colours from the divergence.
 */
import { parseSafetensors, VectorField } from "deldot";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { clamp, float, Fn, hash, If, instancedArray, instanceIndex, length, mix, select, time, uint, vec3, vec4 } from "three/tsl";
import {
  PerspectiveCamera,
  Scene,
  Sprite,
  SpriteNodeMaterial,
  WebGPURenderer,
  type Node,
  type StorageInstancedBufferAttribute,
} from "three/webgpu";
import model from "../models/lorenz.safetensors?url";

const COUNT = 20_000;
const DT = 0.004;
/** The divergence of the system itself. */
const TRUTH = -(10 + 1 + 8 / 3);
/** Errors from here on have the full colour. */
const FULL = 0.5;

const status = document.querySelector("#status")!;

async function run(): Promise<void> {
  const canvas = document.querySelector("canvas")!;
  const renderer = new WebGPURenderer({ canvas, antialias: true });
  await renderer.init();
  const backend = renderer.backend as unknown as { device?: GPUDevice; get(attribute: object): { buffer: GPUBuffer } };
  const { device } = backend;
  if (!device) throw new Error("this example needs WebGPU, which this browser does not have or has switched off");

  const network = parseSafetensors(new Uint8Array(await (await fetch(model)).arrayBuffer()));
  const field = await VectorField.create(device, network);

  const positions = instancedArray(COUNT, "vec4");
  const velocities = instancedArray(COUNT, "vec4");
  const divergences = instancedArray(COUNT, "float");
  const scatter = (seed: Node<"uint">) => {
    const at = (salt: number) => hash(seed.add(uint(salt))).sub(0.5);
    return vec4(
      at(0).mul(4),
      at(COUNT).mul(5),
      at(2 * COUNT)
        .mul(4)
        .add(2.5),
      1,
    );
  };
  const start = Fn(() => {
    positions.element(instanceIndex).assign(scatter(instanceIndex));
    // Named once, so that the renderer makes their buffers.
    velocities.element(instanceIndex).assign(vec4(0));
    divergences.element(instanceIndex).assign(float(TRUTH));
  })().compute(COUNT);
  const move = Fn(() => {
    const position = positions.element(instanceIndex);
    const moved = position.xyz.add(velocities.element(instanceIndex).xyz.mul(DT)).toVar();
    const seed = instanceIndex.add(uint(time.mul(1000)));
    If(hash(seed).lessThan(0.002).or(length(moved).greaterThan(12)), () => {
      moved.assign(scatter(seed).xyz);
    });
    position.assign(vec4(moved, 1));
  })().compute(COUNT);
  await renderer.computeAsync(start);

  // The renderer's buffers, as they lie in memory.
  const bufferOf = (node: { value: unknown }): GPUBuffer => backend.get(node.value as StorageInstancedBufferAttribute).buffer;
  const points = { buffer: bufferOf(positions), stride: 4 };
  const value = { buffer: bufferOf(velocities), stride: 4 };
  const divergence = { buffer: bufferOf(divergences) };
  await field.reserve(COUNT);

  const material = new SpriteNodeMaterial({ depthWrite: false });
  material.positionNode = positions.toAttribute().xyz.sub(vec3(0, 0, 2.4));
  const error = clamp(divergences.toAttribute().sub(TRUTH).div(FULL), -1, 1);
  const [grown, shrunk] = [vec3(1, 0.5, 0.08), vec3(0.5, 0.35, 1)];
  material.colorNode = select(error.greaterThan(0), mix(vec3(0.85), grown, error), mix(vec3(0.85), shrunk, error.negate()));
  material.scaleNode = float(0.02);
  const particles = new Sprite(material);
  particles.count = COUNT;
  particles.frustumCulled = false;
  const scene = new Scene();
  scene.add(particles);
  const camera = new PerspectiveCamera(50, 1, 0.1, 100);
  camera.up.set(0, 0, 1);
  camera.position.set(4.5, -6.5, 2);
  const controls = new OrbitControls(camera, canvas);

  await renderer.setAnimationLoop(() => {
    const { clientWidth, clientHeight } = canvas;
    renderer.setPixelRatio(devicePixelRatio);
    renderer.setSize(clientWidth, clientHeight, false);
    camera.aspect = clientWidth / clientHeight;
    camera.updateProjectionMatrix();
    controls.update();
    const encoder = device.createCommandEncoder();
    field.encode(encoder, { points, count: COUNT, value, divergence });
    device.queue.submit([encoder.finish()]);
    void renderer.compute(move);
    renderer.render(scene, camera);
    canvas.dataset["frames"] = String(Number(canvas.dataset["frames"] ?? 0) + 1);
  });
}

run().catch((error: unknown) => (status.textContent = (error as Error).message));
