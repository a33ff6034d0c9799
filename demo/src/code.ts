/** The lines of TypeScript that compute what is on the page. */
import type { Plane, View } from "./plane.js";
import { sourceOf } from "./quantity.js";
import type { State } from "./state.js";

const GRID = 256;

export function codeFor(state: State, plane: Plane, view: View, file: string | null, isOnnx: boolean): string {
  const { output } = sourceOf(state.quantity, plane.origin.length);
  const row = (numbers: readonly number[]): string => `[${numbers.map((x) => Number(x.toPrecision(6))).join(", ")}]`;
  const number = (x: number): string => String(Number(x.toPrecision(6)));
  const reader = file === null ? "mlp" : isOnnx ? "parseOnnx" : "parseSafetensors";
  const { random } = state;
  const network =
    file === null
      ? `// A network of your own: PyTorch's weights [outputs, inputs], biases [outputs].
const layers = ${JSON.stringify([random.dimensions, ...Array<number>(random.depth).fill(random.width), random.dimensions])}.slice(1).map((outputs, i, all) => {
  const inputs = i === 0 ? ${random.dimensions} : all[i - 1];
  const draw = (count) => Float32Array.from({ length: count }, () => (${random.gain} * (2 * Math.random() - 1)) / Math.sqrt(inputs));
  return { weight: { data: draw(outputs * inputs), shape: [outputs, inputs] }, bias: draw(outputs) };
});
const network = mlp({ layers, activation: "${random.activation}" });`
      : `const network = ${reader}(new Uint8Array(await (await fetch("${file}")).arrayBuffer()));`;
  const context = state.context.length > 0 ? `context: ${row(state.context)}, ` : "";
  return `import { ${reader}, VectorField } from "deldot";

${network}
const adapter = await navigator.gpu.requestAdapter();
const device = await adapter.requestDevice();
const field = await VectorField.create(device, network);

// The plane x = origin + a u + b v, ${GRID} x ${GRID} points, rows from the top.
const origin = ${row(plane.origin)};
const u = ${row(plane.u)};
const v = ${row(plane.v)};
const [a, b, width] = [${number(view.a)}, ${number(view.b)}, ${number(view.width)}];
const points = new Float32Array(${GRID} * ${GRID} * ${plane.origin.length});
for (let i = 0; i < ${GRID} * ${GRID}; i++) {
  const along = a + (((i % ${GRID}) + 0.5) / ${GRID} - 0.5) * width;
  const up = b - ((Math.floor(i / ${GRID}) + 0.5) / ${GRID} - 0.5) * width;
  points.set(origin.map((x, k) => x + along * u[k] + up * v[k]), i * ${plane.origin.length});
}
const { ${output} } = await field.evaluate(points, { ${context}outputs: ["${output}"] });
console.log(${output}); // Float32Array${output === "divergence" ? ` [${GRID * GRID}]` : ` [${GRID * GRID}, ${plane.origin.length}]`}
`;
}
