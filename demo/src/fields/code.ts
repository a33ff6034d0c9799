/** What computes the picture on the page: for a browser, for Node, and on the command line. */
import { toSafetensors, type Network } from "deldot";
import { toOnnx } from "deldot/onnx";
import { backFrom } from "../base/density.js";
import type { Plane } from "../base/plane.js";
import { nameOf, sourceOf } from "../base/quantity.js";
import type { RandomNetwork, State } from "../base/state.js";

/** Where a field comes from: all that others need to read the same. */
export type FieldSource =
  /** `options` are what the file leaves open and was answered on the page. */
  | { readonly kind: "safetensors"; readonly file: string; readonly options: SafetensorsAnswers }
  /** `beside` are the files that were dropped with it, which may hold its weights. */
  | { readonly kind: "onnx"; readonly file: string; readonly beside: readonly string[] }
  | { readonly kind: "random"; readonly random: RandomNetwork }
  | { readonly kind: "formula"; readonly text: string }
  /** Learned on the page, from so many points if they are known. */
  | { readonly kind: "drawn"; readonly points: number | null };

export interface SafetensorsAnswers {
  readonly activation?: string;
  readonly contextColumns?: "last" | "first";
}

/** The first two are JavaScript, and TypeScript under strict, noUncheckedIndexedAccess and @webgpu/types; the last is for a POSIX shell. */
export interface Code {
  readonly browser: string;
  readonly node: string;
  readonly shell: string;
}

/** Points along each side of the picture. */
export const GRID = 256;

/** The file that the code reads. */
export function fileOf(source: FieldSource): string {
  if (source.kind === "formula") return "formula.onnx";
  if (source.kind === "drawn") return "drawn.safetensors";
  return source.kind === "random" ? `random-${source.random.seed}.safetensors` : source.file;
}

/** That file's bytes, for a network that has none, such as a random one. @throws ModelError where a network of layers is no chain of them. */
export function weightsOf(source: FieldSource, network: Network): Uint8Array {
  return source.kind === "formula" ? toOnnx(network, { outputs: ["value"] }) : toSafetensors(network);
}

/** @param limit the end of the colours' scale around 0, where one is kept for the divergence. */
export function codeFor(source: FieldSource, state: State, plane: Plane, limit: number | null): Code {
  const reading = readingOf(source);
  return {
    browser: browserCode(reading, state, plane),
    node: nodeCode(reading, state, plane),
    shell: shellCode(reading, state, plane, limit),
  };
}

/** How a source is read. */
interface Reading {
  /** What "deldot" exports for it. */
  readonly reader: string;
  /** An expression; `bytes` makes that of a file's bytes. */
  readonly network: (bytes: (file: string) => string) => string;
  /** The model and its options on the command line. */
  readonly words: readonly string[];
}

function readingOf(source: FieldSource): Reading {
  const file = fileOf(source);
  const word = shellWord(file);
  switch (source.kind) {
    case "drawn":
    case "random":
      return { reader: "parseSafetensors", network: (bytes) => `parseSafetensors(${bytes(file)})`, words: [word] };
    case "safetensors": {
      const { activation, contextColumns } = source.options;
      const answers = Object.entries({ activation, contextColumns }).filter(([, answer]) => answer !== undefined);
      const options = answers.length > 0 ? `, { ${answers.map(([name, answer]) => `${name}: ${JSON.stringify(answer)}`).join(", ")} }` : "";
      return {
        reader: "parseSafetensors",
        network: (bytes) => `parseSafetensors(${bytes(file)}${options})`,
        words: [
          word,
          ...(activation === undefined ? [] : ["--activation", shellWord(activation)]),
          ...(contextColumns === undefined ? [] : ["--context-columns", contextColumns]),
        ],
      };
    }
    case "formula":
      return { reader: "parseOnnx", network: (bytes) => `parseOnnx(${bytes(file)})`, words: [word] };
    case "onnx": {
      const { beside } = source;
      return {
        reader: "parseOnnx",
        network: (bytes) => {
          const entries = beside.map((name) => `[${JSON.stringify(name)}, ${bytes(name)}]`);
          return `parseOnnx(${bytes(file)}${entries.length > 0 ? `, { externalData: new Map([${entries.join(", ")}]) }` : ""})`;
        },
        // The command line finds the others beside the model.
        words: [word],
      };
    }
  }
}

/** Of a picture of the density, whose logarithm the code gives: its time, what else the context has, and a flow's last argument. */
function densityOf({ layers, context }: State) {
  if (!layers.includes("density")) return null;
  const [time, condition] = [number(backFrom(context).from), context.slice(1).map(number)];
  const options = [...(time === "1" ? [] : [`dataAt: ${time}`]), ...(condition.length > 0 ? ["timeColumn: 0"] : [])];
  return { time, condition, options: options.length > 0 ? `, { ${options.join(", ")} }` : "" };
}

function browserCode({ reader, network }: Reading, state: State, plane: Plane): string {
  const density = densityOf(state);
  return `import { ${density ? `Flow, ${reader}` : `${reader}, VectorField`} } from "deldot";

const network = ${network((file) => `new Uint8Array(await (await fetch(${JSON.stringify(encodeURIComponent(file))})).arrayBuffer())`)};
const adapter = await navigator.gpu.requestAdapter();
if (!adapter) throw new Error("WebGPU found no adapter");
const ${density ? "flow = await Flow" : "field = await VectorField"}.create(await adapter.requestDevice(), network${density?.options ?? ""});

${pointsCode(state, plane)}

${evaluationCode(state, plane)}
`;
}

function nodeCode({ reader, network }: Reading, state: State, plane: Plane): string {
  const density = densityOf(state);
  return `import { readFile } from "node:fs/promises";
import { ${density ? "FieldFlow, " : ""}${reader} } from "deldot";
import { createField } from "deldot/node";

const network = ${network((file) => `await readFile(${JSON.stringify(file)})`)};
const field = await createField(network); // on a GPU, else on what there is
${density ? `const flow = new FieldFlow(field${density.options});\n` : ""}
${pointsCode(state, plane)}

${evaluationCode(state, plane)}
await field.close();
`;
}

/** Lines that make `points`, [GRID * GRID, d]. */
function pointsCode({ view, plane: { kind } }: State, { origin, u, v }: Plane): string {
  const d = origin.length;
  // Of two coordinates, only they vary.
  const coordinates = origin.map((x, k) => (u[k] === 1 ? "along" : v[k] === 1 ? "up" : number(x)));
  const rows = origin.map((x, k) => `  { origin: ${number(x)}, u: ${number(u[k]!)}, v: ${number(v[k]!)} },`);
  const isAxes = kind === "axes";
  return `// ${GRID} x ${GRID} points around (a, b), row by row from the top${isAxes ? "" : ", on the plane x = origin + along u + up v"}.
const [a, b, width] = [${[view.a, view.b, view.width].map(number).join(", ")}];
${isAxes ? "" : `const plane = [\n${rows.join("\n")}\n];\n`}const points = new Float32Array(${GRID} * ${GRID} * ${d});
for (let index = 0; index < ${GRID} * ${GRID}; index++) {
  const along = a + (((index % ${GRID}) + 0.5) / ${GRID} - 0.5) * width;
  const up = b - ((Math.floor(index / ${GRID}) + 0.5) / ${GRID} - 0.5) * width;
  points.set(${isAxes ? `[${coordinates.join(", ")}]` : "plane.map(({ origin, u, v }) => origin + along * u + up * v)"}, ${d} * index);
}`;
}

/** Lines that print the picture, [GRID * GRID]. */
function evaluationCode(state: State, { origin: { length: d } }: Plane): string {
  const { quantity, context } = state;
  const density = densityOf(state);
  if (density) {
    const given = density.condition.length > 0 ? `, { condition: [${density.condition.join(", ")}] }` : "";
    return `const { logProb } = await flow.logProb(points${given});
console.log(logProb); // the density's logarithm at t = ${density.time}, [${GRID} * ${GRID}]`;
  }
  const { output, component } = sourceOf(quantity, d);
  const given = context.length > 0 ? `context: [${context.map(number).join(", ")}], ` : "";
  const evaluation = `const { ${output} } = await field.evaluate(points, { ${given}outputs: ["${output}"] });`;
  const comment = ` // ${nameOf(quantity)}, [${GRID} * ${GRID}]`;
  if (quantity === "divergence") return `${evaluation}\nconsole.log(divergence);${comment}`;
  const picture =
    component < 0
      ? `Float32Array.from({ length: ${GRID} * ${GRID} }, (_, index) => Math.hypot(...value.subarray(${d} * index, ${d} * index + ${d})))`
      : `${output}.filter((_, index) => index % ${d} === ${component})`;
  return `${evaluation}\nconst picture = ${picture};\nconsole.log(picture);${comment}`;
}

/** `deldot heatmap` where it draws the same; else numbers by `deldot eval`, at the same points. */
function shellCode({ words }: Reading, state: State, plane: Plane, limit: number | null): string {
  const { context, quantity, layers, contour } = state;
  const density = densityOf(state);
  if (density) {
    const time = density.time === "1" ? "" : ` --data-at ${density.time}`;
    const others = density.condition.length > 0 ? ` --time-column 0 --condition ${density.condition.join(",")}` : "";
    return heatmapCode(`${words.join(" ")} --quantity logprob${time}${others}`, "", state, plane);
  }
  const model = [...words, ...(context.length > 0 ? ["--context", context.map(number).join(",")] : [])].join(" ");
  const d = plane.origin.length;
  const looks = `${limit === null ? "" : ` --limit ${number(limit)}`}${layers.includes("arrows") ? " --arrows" : ""}${contour ? " --contour" : ""}`;
  if (state.plane.kind === "axes" && quantity === "divergence" && d > 1) return heatmapCode(model, looks, state, plane);
  const { output, component } = sourceOf(quantity, d);
  const file = output === "divergence" ? "picture.npy" : `picture.${output}.npy`;
  const numbers = `numpy.load("${file}")`;
  const picture =
    output === "divergence" ? numbers : component < 0 ? `numpy.linalg.norm(${numbers}, axis=1)` : `${numbers}[:, ${component}]`;
  return `# deldot heatmap draws the divergence over two coordinates. For any other picture, deldot eval gives its numbers at points of a file.
node -e '
${pointsCode(state, plane)}
require("node:fs").writeFileSync("points.json", JSON.stringify({ count: ${GRID} * ${GRID}, points: Array.from(points) }));
'
npx deldot eval ${model} --points points.json${output === "diagonal" ? " --diagonal" : ""} --out picture.npy
# ${nameOf(quantity)} in Python: ${picture}.reshape(${GRID}, ${GRID})
`;
}

function heatmapCode(model: string, looks: string, { view, plane }: State, { origin }: Plane): string {
  const { i, j } = plane as Extract<State["plane"], { kind: "axes" }>;
  const range = (middle: number): string => `${number(middle - view.width / 2)}:${number(middle + view.width / 2)}`;
  const place = origin.length > 2 ? ` --axes ${i},${j} --at ${origin.map(number).join(",")}` : ` --axes ${i},${j}`;
  return `npx deldot heatmap ${model}${place} \\
  --x ${range(view.a)} --y ${range(view.b)} --size ${GRID}${looks} --out heatmap.png
`;
}

/** More digits than float32 has, and few enough to leave out what arithmetic adds to 0.1 + 0.2. */
function number(x: number): string {
  return String(Number(x.toPrecision(12)));
}

/** A word of a shell's command that is no option. */
function shellWord(text: string): string {
  const path = text.startsWith("-") ? `./${text}` : text;
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", String.raw`'\''`)}'`;
}
