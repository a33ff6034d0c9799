/** What the apps have in a browser: a device, the model's file and the points. */
export async function begin() {
  const adapter = await navigator.gpu.requestAdapter();
  const device = await adapter.requestDevice();
  const file = new Uint8Array(await (await fetch("/model.safetensors")).arrayBuffer());
  const points = await (await fetch("/points.json")).json();
  return { device, file, points };
}
