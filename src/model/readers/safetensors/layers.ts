import { ModelError, quote } from "../../../errors.js";
import type { LinearLayer, Matrix, Numbers, Affine } from "../../network.js";
import { listed, orderLayers, type NamedLayer } from "./order.js";

/** A tensor of the file, whose numbers are decoded when something reads them. */
export interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** @throws ModelError where its type is not one of floating point. */
  readonly read: () => Numbers;
}

/** Of {@link SafetensorsOptions}, what says which tensors are the chain. */
export interface LayerOptions {
  readonly activation: string | readonly string[] | undefined;
  readonly layers: readonly string[] | undefined;
  readonly prefix: string | undefined;
  readonly ignore: readonly string[] | undefined;
}

/** What tensors of one module are to it, by the last parts of their names. */
const partPattern =
  /^(?:(.*?)[./])?(parametrizations\.weight\.(?:original[01]?|0\._[uv])|weight(?:_g|_u|_v|_orig)?|(?:bias|kernel)(?::0)?|vars\/[01]|running_mean|running_var)$/;
/** The same under other names; g, v and orig as the older weight_norm and spectral_norm have them. */
const synonyms: Readonly<Record<string, string>> = {
  original0: "g",
  original1: "v",
  original: "orig",
  "vars/0": "kernel",
  "vars/1": "bias",
};
/** What training counts beside a field. */
const counterPattern = /(?:^|[./])(?:n_averaged|num_batches_tracked|num_updates|steps?|epoch|initted)$/;

/** What nn.BatchNorm1d adds to the variance unless told otherwise. */
const batchNormEpsilon = 1e-5;

interface Module {
  readonly name: string;
  readonly parts: Map<string, Tensor>;
}

interface Linear extends Module, NamedLayer {
  /** The tensor that messages name. */
  readonly main: Tensor;
}

/** A PReLU or a BatchNorm: a module between linear layers. */
interface Between extends Module {
  readonly main: Tensor;
  readonly isNorm: boolean;
}

/**
 * The linear layers in order, with what stands between them as far as tensors show it, and sentences about the rest.
 *
 * @throws ModelError where a tensor has no part in such a chain, or the order of the layers is not told.
 */
export function readLayers(tensors: readonly Tensor[], options: LayerOptions): { layers: LinearLayer[]; notes: string[] } {
  const { kept, notes } = chooseTensors(tensors, options);
  const { linears, betweens } = findModules(kept);
  const order = options.layers ? orderAsGiven(linears, options.layers) : orderLayers(linears);
  const names = listed(
    order.map(({ name }) => name || "(no name)"),
    " -> ",
  );
  notes.unshift(
    `read as a chain of ${order.length} ${order.length === 1 ? "layer" : "layers"}: ${names}; a state_dict does not show skips or what stands between: export ONNX if there are any`,
  );
  const layers = order.map((linear): LayerParts => {
    const bias = linear.parts.get("bias");
    return {
      weight: readWeight(linear),
      weightName: `tensor ${quote(linear.main.name)}`,
      bias: bias?.read() ?? null,
      biasName: `tensor ${quote(bias?.name)}`,
      ...tensorNames(linear),
      before: [],
      after: [],
    };
  });
  placeBetween(order, betweens, layers, options.activation);
  if (betweens.some(({ isNorm }) => isNorm))
    notes.push(`a BatchNorm's epsilon is taken for ${batchNormEpsilon}, PyTorch's default, which a state_dict does not show`);
  return { layers, notes };
}

/** The tensors that training would change: none of a weight that is a function of others. */
function tensorNames({ parts, main }: Linear): Pick<LinearLayer, "tensors"> {
  const isTransposed = main === parts.get("kernel");
  if (!isTransposed && main !== parts.get("weight")) return {};
  const bias = parts.get("bias");
  return { tensors: { weight: { name: main.name, isTransposed }, ...(bias && { bias: { name: bias.name } }) } };
}

/** A layer while what follows it is put in place. */
type LayerParts = LinearLayer & { before: Affine[]; after: Affine[]; slopes?: Numbers };

/** Without what is outside the prefix, ignored on request, or a counter. */
function chooseTensors(all: readonly Tensor[], { prefix = "", ignore = [] }: LayerOptions): { kept: Tensor[]; notes: string[] } {
  const within = all.filter(({ name }) => name.startsWith(prefix));
  if (prefix !== "" && within.length === 0)
    fail(`prefix is ${quote(prefix)}; expected what tensors' names begin with, such as ${quote(all[0]?.name)}`);
  const isUnder = (name: string, parent: string): boolean =>
    name.startsWith(parent) && (name.length === parent.length || /[./]/.test(name[parent.length]!));
  for (const parent of ignore)
    if (!within.some(({ name }) => isUnder(name, parent))) fail(`ignore names ${quote(parent)}; expected the name of a tensor or module`);
  const left: Tensor[] = [];
  const kept: Tensor[] = [];
  for (const tensor of within) {
    const isCounter = counterPattern.test(tensor.name) && tensor.shape.every((n) => n === 1);
    (isCounter || ignore.some((parent) => isUnder(tensor.name, parent)) ? left : kept).push(tensor);
  }
  const notes: string[] = [];
  if (within.length < all.length)
    notes.push(`${all.length - within.length} tensors whose names do not begin with ${quote(prefix)} are left out`);
  if (left.length > 0) notes.push(`left out as no part of the field: ${listed(left.map(({ name }) => name))}`);
  return { kept, notes };
}

function findModules(tensors: readonly Tensor[]): { linears: Linear[]; betweens: Between[] } {
  const modules = new Map<string, Module>();
  const strays: Tensor[] = [];
  for (const tensor of tensors) {
    const [, name = "", part] = partPattern.exec(tensor.name) ?? [];
    if (part === undefined) {
      strays.push(tensor);
      continue;
    }
    const short = part.replaceAll(/^parametrizations\.weight\.(?:0\._)?|^weight_|:0$/g, "");
    const role = synonyms[short] ?? short;
    const module = modules.get(name) ?? { name, parts: new Map<string, Tensor>() };
    modules.set(name, module);
    const twin = module.parts.get(role);
    if (twin) fail(`tensors ${quote(twin.name)} and ${quote(tensor.name)} are the same part of a layer; expected one`);
    module.parts.set(role, tensor);
  }
  const linears: Linear[] = [];
  const betweens: Between[] = [];
  for (const module of modules.values()) {
    const { name, parts } = module;
    const bias = parts.get("bias");
    const roles = [...parts.keys()]
      .filter((role) => role !== "bias")
      .sort()
      .join();
    const main =
      parts.get("weight") ??
      parts.get("kernel") ??
      parts.get(roles === "g,v" ? "v" : "orig") ??
      parts.get("running_mean") ??
      [...parts.values()][0]!;
    const [rows = 0, columns] = main.shape;
    if (bias && bias.shape.length !== 1) strays.push(bias);
    else if (/^(weight|kernel|g,v|orig,u,v)$/.test(roles) && main.shape.length === 2)
      linears.push({ name, parts, main, shape: roles === "kernel" ? [columns!, rows] : [rows, columns!] });
    else if (roles === "weight" && main.shape.length === 1 && !bias) betweens.push({ name, parts, main, isNorm: false });
    else if (
      roles === (bias ? "running_mean,running_var,weight" : "running_mean,running_var") &&
      [...parts.values()].every(({ shape }) => shape.length === 1)
    )
      betweens.push({ name, parts, main, isNorm: true });
    else if (bias && roles === "")
      fail(`tensor ${quote(bias.name)} stands alone; expected ${quote(bias.name.replace(/bias(?=(?::0)?$)/, "weight"))} beside it`);
    else strays.push(...parts.values());
  }
  if (strays.length > 0) {
    const ignored = listed(strays.map(({ name }) => quote(name)));
    fail(
      `${describe(strays[0]!)} is not part of a chain of linear layers; where the field does without, expected ignore: [${ignored}], else a file in ONNX`,
    );
  }
  return { linears, betweens };
}

function orderAsGiven(linears: readonly Linear[], names: readonly string[]): Linear[] {
  const byName = new Map(linears.map((linear) => [linear.name, linear]));
  const all = listed(linears.map(({ name }) => quote(name)));
  const order = names.map((name) => {
    const linear = byName.get(name) ?? fail(`layers names ${quote(name)}, which is no layer or stands there twice; expected ${all}`);
    byName.delete(name);
    return linear;
  });
  const [missing] = byName.values();
  if (missing) fail(`layers leaves out ${quote(missing.name)}; expected all of ${all}`);
  return order;
}

/** The weight [outputs, inputs] that a layer multiplies by, out of what it is stored as. */
function readWeight({ parts, main, shape: [rows, columns] }: Linear): Matrix {
  const numbers = main.read();
  if (main === parts.get("kernel"))
    return { rows, columns, data: numbers.map((_, i) => numbers[(i % columns) * rows + Math.floor(i / columns)]!) };
  const [g, u, v] = ["g", "u", "v"].map((role) => parts.get(role));
  if (g) return { rows, columns, data: weightNorm(Float64Array.from(numbers), g, rows, columns) };
  if (u && v) {
    if (String(u.shape) !== String(rows) || String(v.shape) !== String(columns))
      fail(`${describe(u)} and ${describe(v)} are of no spectral_norm of ${describe(main)}; expected [${rows}] and [${columns}]`);
    const [left, right] = [u.read(), v.read()];
    const sigma = Float64Array.from(numbers).reduce((sum, w, i) => sum + left[Math.floor(i / columns)]! * w * right[i % columns]!, 0);
    return { rows, columns, data: Float64Array.from(numbers, (w) => w / sigma) };
  }
  return { rows, columns, data: numbers };
}

/** v g / |v|, the norms over what g has one number for: a row, a column, or all. */
function weightNorm(v: Float64Array, g: Tensor, rows: number, columns: number): Float64Array {
  const [of, by = 1] = g.shape.length === 2 ? g.shape : [g.shape[0] ?? 1];
  const isRows = of === rows && by === 1;
  if (!isRows && !(of === 1 && (by === columns || by === 1)))
    fail(`${describe(g)} is of no weight_norm of [${rows},${columns}]; expected [${rows},1], [1,${columns}] or [1]`);
  const gains = g.read();
  const groupOf = (i: number): number => (isRows ? Math.floor(i / columns) : by === columns ? i % columns : 0);
  const squares = new Float64Array(gains.length);
  v.forEach((x, i) => (squares[groupOf(i)]! += x * x));
  return v.map((x, i) => (x * gains[groupOf(i)]!) / Math.sqrt(squares[groupOf(i)]!));
}

/**
 * Puts PReLUs and BatchNorms where their numbers put them, among the modules whose names differ in the last number alone, as an
 * nn.Sequential has them. Numbers that no tensor has are those of activations, so a norm stands before the activation where none is
 * free between the layer and it, and after it where none is free between it and the next layer.
 */
function placeBetween(order: readonly Linear[], betweens: readonly Between[], layers: readonly LayerParts[], activation: unknown): void {
  const families = new Map<string, { number: number; module: Linear | Between }[]>();
  for (const module of [...order, ...betweens]) {
    const match = /(?<!\d)(\d+)(\D*)$/.exec(module.name);
    if (!match) {
      if ("isNorm" in module) unplaced(module, "its name has no number");
      continue;
    }
    const family = `${module.name.slice(0, match.index)}N${match[2]}`;
    const members = families.get(family) ?? [];
    families.set(family, members);
    members.push({ number: Number(match[1]), module });
  }
  const indices = new Map<Linear | Between, number>(order.map((linear, index) => [linear, index]));
  for (const members of families.values()) {
    members.sort((a, b) => a.number - b.number);
    for (let at = 0; at < members.length;) {
      // A linear layer, then what stands between it and the next one.
      const from = members[at]!;
      if ("isNorm" in from.module) unplaced(from.module, "no layer has a number below its own");
      const run: { number: number; module: Between }[] = [];
      for (at++; at < members.length; at++) {
        const { number, module } = members[at]!;
        if (!("isNorm" in module)) break;
        run.push({ number, module });
      }
      const index = indices.get(from.module)!;
      const to = members[at];
      if (to && run[0] && order[index + 1] !== to.module) unplaced(run[0].module, "the layers beside it do not follow one another");
      const free = to ? to.number - from.number - 1 - run.length : Infinity;
      const slopesAt = run.findIndex(({ module }) => !module.isNorm);
      const layer = layers[index]!;
      run.forEach(({ number, module }, i) => {
        const freeBefore = number - from.number - 1 - i;
        const freeAfter = free - freeBefore;
        if (!(freeBefore >= 0 && freeAfter >= 0)) unplaced(module, "its number stands twice");
        if (!module.isNorm) {
          if (i !== slopesAt) unplaced(module, "another PReLU follows the same layer");
          layer.slopes = readSlopes(module, activation, free);
          return;
        }
        const isBefore = slopesAt >= 0 ? i < slopesAt : freeBefore === 0;
        const isAfter = slopesAt >= 0 ? i > slopesAt : freeAfter === 0;
        if (isBefore === isAfter) unplaced(module, "its number does not show whether it stands before the activation or after");
        layer[isBefore ? "before" : "after"].push(readBatchNorm(module));
      });
    }
  }
}

/** The word alone, or as the name of several: a prelude is none. */
const preluPattern = /(?<![a-z])prelus?(?![a-z])/i;

/**
 * One slope, or one for each element, which an RMSNorm's gains look like; one number beside an activation may be a scale.
 *
 * @param free how many numbers without tensors stand between the layers, Infinity after the last one.
 */
function readSlopes(module: Between, activation: unknown, free: number): Numbers {
  const slopes = module.main.read();
  if ((slopes.length > 1 || free > 0) && !preluPattern.test(`${module.name},${String(activation)}`))
    unplaced(
      module,
      `it may be a PReLU, as activation: "prelu" says, or ${slopes.length > 1 ? "an RMSNorm" : "a scale beside an activation"}`,
    );
  return slopes;
}

function readBatchNorm({ parts, main }: Between): Affine {
  const [mean, variance, weight, bias] = ["running_mean", "running_var", "weight", "bias"].map((role) => parts.get(role)?.read());
  const lengths = [mean, variance, weight, bias].map((numbers) => numbers?.length ?? mean!.length);
  if (lengths.some((length) => length !== mean!.length))
    fail(`the BatchNorm of ${describe(main)} has tensors of ${lengths.join(", ")} numbers; expected one length`);
  const gain = Float64Array.from(variance!, (value, i) => (weight?.[i] ?? 1) / Math.sqrt(value + batchNormEpsilon));
  return { name: `the BatchNorm of ${describe(main)}`, gain, bias: gain.map((factor, i) => (bias?.[i] ?? 0) - mean![i]! * factor) };
}

function unplaced({ main }: Between, reason: string): never {
  fail(
    `${describe(main)} is not part of a chain of linear layers: ${reason}; expected numbers as an nn.Sequential gives (0 Linear, 1 BatchNorm, 2 activation, 3 Linear), else a file in ONNX`,
  );
}

function describe({ name, shape }: Tensor): string {
  return `tensor ${quote(name)} of shape [${listed(shape.map(String), ",")}]`;
}

function fail(message: string): never {
  throw new ModelError(`safetensors: ${message}`);
}
