import {
  activationNames,
  mlp,
  type Activation,
  type LinearOperation,
  type Network,
  type Operand,
  type Operation,
  type Weight,
} from "deldot";
import { Draw } from "./draw.js";

/** "small" ones can be fused into one kernel that compiles soon; "wide" ones fill several tiles and blocks of a product. */
export type Size = "small" | "middle" | "wide";

/** Infinite or undefined somewhere: drawn for what is positive alone. */
const ofPositive = ["log", "sqrt", "reciprocal", "acosh", "power(1.5)", "power(0.5)", "power(-1.5)"];
/** Infinite or undefined somewhere: drawn for what is within -1 and 1 alone. */
const ofSmall = ["tan", "asin", "atanh"];
/** Whose slope is 0: drawn beside what they are functions of, since a network through them alone has no derivatives. */
const steps = ["floor", "ceil", "round", "trunc", "sign"];
const variants = ["leaky_relu(0.2)", "elu(0.5)", "celu(2)", "softplus(2, 20)", "clip(-0.5, 0.75)", "sin(3)", "power(3)"];
const special = [...ofPositive, ...ofSmall, ...steps];
const anywhere = [...activationNames.filter((name) => !special.includes(name)), ...variants];

/** The activations that networks are drawn with. Drivers compile kernels for each, so that many networks share a few. */
export interface Palette {
  readonly anywhere: readonly string[];
  readonly ofPositive: readonly string[];
  readonly ofSmall: readonly string[];
  readonly steps: readonly string[];
}

/** So many seeds in a row share a palette. */
const SEEDS_PER_PALETTE = 60;

export function paletteOf(seed: number): Palette {
  const draw = new Draw(-1 - Math.floor(seed / SEEDS_PER_PALETTE));
  const one = (names: readonly string[]): string[] => [draw.pick(names)];
  return { anywhere: ["tanh", ...one(anywhere), ...one(anywhere)], ofPositive: one(ofPositive), ofSmall: one(ofSmall), steps: one(steps) };
}

export const wholePalette: Palette = { anywhere, ofPositive, ofSmall, steps };

/** Whether f itself jumps, so that differences of f say nothing of its derivatives. */
export function hasSteps({ operations }: Network): boolean {
  return operations.some((operation) => operation.kind === "activation" && steps.includes(operation.activation.name));
}

/** Random chains and graphs; values stay about O(1) to O(10) where the state is O(1). */
export function drawNetwork(draw: Draw, size: Size, palette: Palette): Network {
  if (draw.chance(0.08)) return drawParticles(draw, size, palette);
  return draw.chance(0.55) ? drawChain(draw, size, palette) : drawGraph(draw, size, palette);
}

/** One chain for each of several particles, and sometimes a dense layer in which they meet. */
function drawParticles(draw: Draw, size: Size, palette: Palette): Network {
  const [times, each] = [draw.integer(2, size === "small" ? 3 : 6), draw.integer(1, 3)];
  const builder = new GraphBuilder(draw, size, times * each, 0, palette);
  const width = (): number => draw.integer(1, size === "wide" ? 24 : 10);
  let last: Operand = "state";
  for (let left = draw.integer(1, 3); left > 0; left--)
    last = builder.activation(draw.chance(0.85) ? builder.shared(times, width(), last) : builder.linear(times * width(), last));
  builder.shared(times, each, last);
  return { stateSize: builder.stateSize, contextSize: 0, operations: builder.operations };
}

function drawWidth(draw: Draw, size: Size): number {
  if (size === "wide" && draw.chance(0.4)) return draw.integer(64, 130);
  return draw.size(1, size === "small" ? 12 : 40);
}

function drawState(draw: Draw, size: Size): number {
  if (size === "wide" && draw.chance(0.15)) return draw.integer(17, 70);
  return draw.size(1, size === "small" ? 6 : 16);
}

/** One activation everywhere, mostly, as in practice; or another for each layer. */
function drawActivations(draw: Draw, count: number, { anywhere }: Palette): string[] {
  const one = draw.pick(anywhere);
  const same = draw.chance(0.6);
  return Array.from({ length: count }, () => (same ? one : draw.chance(0.15) ? "identity" : draw.pick(anywhere)));
}

function drawChain(draw: Draw, size: Size, palette: Palette): Network {
  const { anywhere } = palette;
  const d = drawState(draw, size);
  const c = draw.chance(0.4) ? draw.integer(1, 3) : 0;
  let widths = Array.from({ length: draw.integer(0, 4) }, () => drawWidth(draw, size));
  let names = drawActivations(draw, widths.length, palette);
  if (draw.chance(0.2)) {
    // A linear bottleneck: the layers on both of its sides may be merged.
    const wide = (): number => (size === "small" ? draw.integer(4, 12) : draw.integer(16, 40));
    widths = [wide(), draw.integer(1, size === "small" ? 4 : 12), wide()];
    names = [draw.pick(anywhere), "identity", draw.pick(anywhere)];
  }
  if (draw.chance(0.2)) names.push(draw.pick(anywhere));
  const all = [d + c, ...widths, d];
  const gain = draw.between(0.6, 1.6);
  const biased = draw.chance(0.8);
  const layers = all.slice(1).map((rows, index) => {
    const columns = all[index]!;
    const weight = { data: draw.numbers(rows * columns, gain * Math.sqrt(3 / columns)), shape: [rows, columns] };
    return { weight, bias: biased && draw.chance(0.9) ? draw.numbers(rows, 0.5) : null };
  });
  return mlp({ layers, activation: names, contextColumns: draw.pick(["first", "last"]) });
}

/** An activation by its name, which mlp alone reads. */
function activationOf(name: string): Activation {
  const [, operation] = mlp({ layers: [{ weight: [[1]] }], activation: [name] }).operations;
  if (operation?.kind !== "activation") throw new Error(`mlp made no activation of ${name}`);
  return operation.activation;
}

type Term = LinearOperation["terms"][number];

/** Adds operations one after another; any may read whatever was there before it. */
class GraphBuilder {
  readonly operations: Operation[] = [];
  private readonly widths: number[] = [];

  constructor(
    private readonly draw: Draw,
    private readonly size: Size,
    readonly stateSize: number,
    readonly contextSize: number,
    readonly palette: Palette,
  ) {}

  widthOf(operand: Operand): number {
    return operand === "state" ? this.stateSize : operand === "context" ? this.contextSize : this.widths[operand]!;
  }

  private get all(): Operand[] {
    return ["state", ...(this.contextSize > 0 ? (["context"] as const) : []), ...this.widths.keys()];
  }

  /** Recent results mostly, so that graphs grow deep and not wide alone. */
  any(): Operand {
    return this.draw.chance(0.6) ? this.draw.pick(this.all.slice(-3)) : this.draw.pick(this.all);
  }

  anyOfWidth(width: number): Operand | undefined {
    const same = this.all.filter((operand) => this.widthOf(operand) === width);
    return same.length > 0 ? this.draw.pick(same) : undefined;
  }

  width(): number {
    return drawWidth(this.draw, this.size);
  }

  add(operation: Operation, width: number): number {
    this.operations.push(operation);
    return this.widths.push(width) - 1;
  }

  private dense(rows: number, operand: Operand, gain: number): Term {
    const columns = this.widthOf(operand);
    return { operand, weight: { rows, columns, data: this.draw.numbers(rows * columns, gain * Math.sqrt(3 / columns)) } };
  }

  /** One matrix for each part of an operand, as particles share it: of all parts that it can be cut into, some. */
  parts(operand: Operand): number {
    const { draw } = this;
    const columns = this.widthOf(operand);
    const counts = Array.from({ length: columns }, (_, index) => index + 1).filter((count) => count > 1 && columns % count === 0);
    if (counts.length === 0) return this.linear(this.width(), operand);
    return this.shared(draw.pick(counts), draw.integer(1, 5), operand);
  }

  shared(times: number, rows: number, operand: Operand): number {
    const columns = this.widthOf(operand) / times;
    const data = this.draw.numbers(rows * columns, this.draw.between(0.6, 1.3) * Math.sqrt(3 / columns));
    const terms: Term[] = [{ operand, weight: { block: { rows, columns, data }, times } }];
    return this.add({ kind: "linear", terms, bias: this.draw.chance(0.7) ? this.draw.numbers(times * rows, 0.5) : null }, times * rows);
  }

  private diagonal(operand: Operand): Term {
    const width = this.widthOf(operand);
    const ones = this.draw.chance(0.5);
    return { operand, weight: { diagonal: ones ? new Float32Array(width).fill(1) : this.draw.numbers(width, 1.5) } };
  }

  /** W a + b, often with a second product or a skip. */
  linear(width: number, operand: Operand = this.any(), extra = 0.4): number {
    const { draw } = this;
    const terms: Term[] = [this.dense(width, operand, draw.between(0.6, 1.3))];
    if (draw.chance(extra / 2)) terms.push(this.dense(width, this.any(), 0.7));
    const skip = this.anyOfWidth(width);
    if (skip !== undefined && draw.chance(extra)) terms.push(this.diagonal(skip));
    if (draw.chance(0.2)) terms.reverse();
    return this.add({ kind: "linear", terms, bias: draw.chance(0.7) ? draw.numbers(width, 0.5) : null }, width);
  }

  activation(operand: Operand, name: string = this.draw.pick(this.palette.anywhere)): number {
    return this.add({ kind: "activation", operand, activation: activationOf(name) }, this.widthOf(operand));
  }

  product(a: Operand, b: Operand): number {
    return this.add({ kind: "product", operands: this.draw.chance(0.5) ? [a, b] : [b, a] }, this.widthOf(a));
  }

  sum(...operands: Operand[]): number {
    const width = this.widthOf(operands[0]!);
    return this.add({ kind: "linear", terms: operands.map((operand) => this.diagonal(operand)), bias: null }, width);
  }

  norm(operand: Operand): number {
    const { draw } = this;
    const epsilon = draw.pick([1e-5, 0.125, 1]);
    const normed = this.add({ kind: "norm", operand, centered: draw.chance(0.5), epsilon }, this.widthOf(operand));
    if (draw.chance(0.5)) return normed;
    const width = this.widthOf(normed);
    return this.add({ kind: "linear", terms: [this.diagonal(normed)], bias: draw.numbers(width, 0.5) }, width);
  }

  /** 1.5 + Σ w a², w > 0: what logarithms and roots take. */
  positive(width: number): number {
    const operand = this.any();
    const columns = this.widthOf(operand);
    const squared = this.product(operand, operand);
    const data = this.draw.numbers(width * columns, 1 / columns).map(Math.abs);
    const terms: Term[] = [{ operand: squared, weight: { rows: width, columns, data } }];
    return this.add({ kind: "linear", terms, bias: new Float32Array(width).fill(1.5) }, width);
  }

  /** 0.9 tanh a: what inverses of sines take. */
  small(width: number): number {
    const bounded = this.activation(this.linear(width), "tanh");
    const weight = { diagonal: new Float32Array(width).fill(0.9) };
    return this.add({ kind: "linear", terms: [{ operand: bounded, weight }], bias: null }, width);
  }
}

const blocks: readonly { readonly weight: number; readonly add: (builder: GraphBuilder, draw: Draw) => void }[] = [
  { weight: 5, add: (builder) => builder.activation(builder.linear(builder.width())) },
  {
    // A residual block.
    weight: 4,
    add: (builder) => {
      const input = builder.any();
      const inner = builder.activation(builder.linear(builder.width(), input, 0));
      builder.sum(input, builder.linear(builder.widthOf(input), inner, 0));
    },
  },
  {
    weight: 2,
    add: (builder) => {
      const a = builder.linear(builder.width());
      builder.product(a, builder.anyOfWidth(builder.widthOf(a))!);
    },
  },
  {
    // A gate, by the context where there is one.
    weight: 3,
    add: (builder, draw) => {
      const input = builder.any();
      const by = builder.contextSize > 0 && draw.chance(0.7) ? "context" : builder.any();
      builder.product(
        input,
        builder.activation(builder.linear(builder.widthOf(input), by, 0), draw.chance(0.5) ? "tanh" : draw.pick(builder.palette.anywhere)),
      );
    },
  },
  { weight: 3, add: (builder) => builder.norm(builder.linear(builder.width())) },
  { weight: 3, add: (builder) => builder.activation(builder.parts(builder.any())) },
  { weight: 1, add: (builder) => builder.activation(builder.any()) },
  { weight: 1, add: (builder) => builder.norm(builder.any()) },
  { weight: 1, add: (builder) => builder.sum(builder.any()) },
  { weight: 1, add: (builder, draw) => builder.activation(builder.positive(builder.width()), draw.pick(builder.palette.ofPositive)) },
  { weight: 1, add: (builder, draw) => builder.activation(builder.small(builder.width()), draw.pick(builder.palette.ofSmall)) },
  {
    // A coordinate wrapped around, as x - floor(x).
    weight: 1,
    add: (builder, draw) => {
      const input = builder.any();
      builder.sum(input, builder.activation(input, draw.pick(builder.palette.steps)));
    },
  },
  {
    // What depends on the context alone.
    weight: 2,
    add: (builder) => {
      if (builder.contextSize === 0) return;
      const inner = builder.activation(builder.linear(builder.width(), "context", 0), "tanh");
      builder.activation(builder.linear(builder.width(), inner, 0));
    },
  },
];

/** Residual blocks, gates, products, norms, diagonals and skips in any order; some of it is read by nobody. */
export function drawGraph(draw: Draw, size: Size, palette: Palette): Network {
  const contextSize = draw.chance(0.5) ? draw.integer(1, 3) : 0;
  const builder = new GraphBuilder(draw, size, drawState(draw, size), contextSize, palette);
  const { stateSize, operations } = builder;
  for (let left = draw.integer(1, size === "small" ? 4 : 7); left > 0; left--) draw.weighted(blocks).add(builder, draw);
  if (contextSize > 0 && draw.chance(0.04)) {
    builder.activation(builder.linear(stateSize, "context", 0), "tanh");
    return { stateSize, contextSize, operations };
  }
  const last = operations.length > 0 && draw.chance(0.8) ? operations.length - 1 : builder.any();
  const velocity = builder.linear(stateSize, last);
  const ending = draw.between(0, 1);
  if (ending < 0.15) builder.activation(velocity);
  else if (ending < 0.25) builder.product(velocity, builder.anyOfWidth(stateSize)!);
  else if (ending < 0.3) builder.norm(velocity);
  else if (ending < 0.4) builder.sum(velocity, "state");
  return { stateSize, contextSize, operations };
}

/** A network in one line, for messages. */
export function describeNetwork({ stateSize, contextSize, operations }: Network): string {
  const nameOf = (operand: Operand): string => (operand === "state" ? "x" : operand === "context" ? "c" : `#${operand}`);
  const parts = operations.map((operation) => {
    if (operation.kind === "activation") return `${operation.activation}(${nameOf(operation.operand)})`;
    if (operation.kind === "product") return operation.operands.map(nameOf).join("∘");
    if (operation.kind === "norm") return `${operation.centered ? "LayerNorm" : "RMSNorm"}(${nameOf(operation.operand)})`;
    const terms = operation.terms.map(({ operand, weight }) => `${describeWeight(weight)}${nameOf(operand)}`);
    return [...terms, ...(operation.bias ? ["b"] : [])].join("+");
  });
  return `d=${stateSize} c=${contextSize}: ${parts.map((part, index) => `#${index}=${part}`).join("; ")}`;
}

function describeWeight(weight: Weight): string {
  if ("block" in weight) return `${weight.times}x${describeWeight(weight.block)}`;
  return "diagonal" in weight ? "diag " : `[${weight.rows}x${weight.columns}]`;
}
