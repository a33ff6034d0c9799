import { activationWgsl, isIdentity, type Activation } from "../../../model/activation.js";
import { halves } from "../../../model/float16.js";
import type { PlannedMatrix } from "../../../plan/matrices.js";
import { isVector, type Elements, type FusedProgram, type Product, type Statement, type Vector } from "./statements.js";
import type { Floats, Halves } from "../../../typedArrays.js";

/** The text of a fused kernel, and what its buffer of weights holds, in vec4s; empty where it has none. */
interface FusedText {
  readonly text: string;
  readonly weights: Floats | Halves;
}

/** Points of an invocation. One or four took an H200 longer, and its compiler seconds. */
export const POINTS = 2;

/** Results of a product that are summed side by side in loops. */
const BLOCK = 8;

type Load = Extract<Statement, { kind: "load" }>;
type Sum = Extract<Statement, { kind: "sum" }>;
type Contract = Extract<Statement, { kind: "contract" }>;
type Norm = Extract<Statement, { kind: "norm" }>;
type NormTangent = Extract<Statement, { kind: "norm tangent" }>;

const COMPONENTS = ["x", "y", "z", "w"] as const;

/** A program as a kernel. Vectors are arrays and weights are read from a buffer: one text for all networks of a shape. */
export function textOf(program: FusedProgram, half: boolean): FusedText {
  const writer = new Writer(program, half);
  for (const statement of program.statements) writer.write(statement);
  return writer.finish();
}

class Writer {
  private readonly lines: string[] = [];
  /** Stores of each point, at the end. */
  private readonly stores: string[] = [];
  private readonly activations = new Map<string, string>();
  private names = 0;
  private readonly data: number[] = [];
  /** Where the rows of matrices begin, and whole ones. */
  private readonly rowPlaces = new Map<PlannedMatrix, Map<number, number>>();
  private readonly matrixPlaces = new Map<PlannedMatrix, number>();
  private readonly declared = new Set<string>();

  constructor(
    private readonly program: FusedProgram,
    private readonly half: boolean,
  ) {
    const { width } = program.terms;
    if (width > 0) this.lines.push(`var term: array<V, ${width}>;`);
  }

  write(statement: Statement): void {
    switch (statement.kind) {
      case "load":
        return this.load(statement);
      case "sum":
        return this.sum(statement);
      case "norm":
        return this.norm(statement);
      case "norm tangent":
        return this.normTangent(statement);
      case "contract":
        return this.contract(statement);
      case "store":
        return this.store(statement);
    }
  }

  private fresh(prefix: string): string {
    return `${prefix}${this.names++}`;
  }

  private named(prefix: string, expression: string): string {
    const name = this.fresh(prefix);
    this.lines.push(`let ${name} = ${expression};`);
    return name;
  }

  /** V of a number of each point. */
  private ofPoints(of: (point: number) => string): string {
    return `V(${each(of).join(", ")})`;
  }

  /** Room for whole blocks of results; what stands in the last block's padding is never read. */
  private declare({ name, width }: Vector): void {
    if (this.declared.has(name)) return;
    this.declared.add(name);
    const block = blockOf(width);
    this.lines.push(`var ${name}: array<V, ${block * Math.ceil(width / block)}>;`);
  }

  private loop(length: number, body: (index: string) => void): void {
    const index = this.fresh("k");
    this.lines.push(`for (var ${index} = 0u; ${index} < ${length}u; ${index}++) {`);
    body(index);
    this.lines.push("}");
  }

  /** Where numbers begin in the buffer, in vec4. */
  private place<K>(places: Map<K, number>, key: K, make: () => number[]): number {
    let place = places.get(key);
    if (place === undefined) {
      places.set(key, (place = this.data.length / 4));
      this.data.push(...make());
      while (this.data.length % 4 !== 0) this.data.push(0);
    }
    return place;
  }

  /** A row of a matrix, its end filled up with zeros. */
  private rowPlace(matrix: PlannedMatrix, row: number): number {
    const width = blockOf(matrix.columns) * Math.ceil(matrix.columns / blockOf(matrix.columns));
    let rows = this.rowPlaces.get(matrix);
    if (!rows) this.rowPlaces.set(matrix, (rows = new Map()));
    return this.place(rows, row, () =>
      Array.from({ length: width }, (_, column) => (column < matrix.columns ? numberOf(matrix, row, column) : 0)),
    );
  }

  /** Block by block of results: for each column the weights of the block, in whole vec4s. */
  private matrixPlace(matrix: PlannedMatrix): number {
    const block = blockOf(matrix.rows);
    const padded = 4 * Math.ceil(block / 4);
    return this.place(this.matrixPlaces, matrix, () => {
      const numbers: number[] = [];
      for (let first = 0; first < matrix.rows; first += block)
        for (let column = 0; column < matrix.columns; column++)
          for (let offset = 0; offset < padded; offset++)
            numbers.push(offset < block && first + offset < matrix.rows ? numberOf(matrix, first + offset, column) : 0);
      return numbers;
    });
  }

  private elements(elements: Elements, index: string): string {
    if (elements.length === 0) return "V(1.0)";
    return elements
      .map((element) => {
        if (isVector(element)) return `${element.name}[${index}]`;
        const at = `${this.rowPlace(element.matrix, element.row)}u + ${index} / 4u`;
        return `f32(weights[${at}][${index} % 4u])`;
      })
      .map((factor, position) => (position === 0 ? `V(${factor})` : factor))
      .join(" * ");
  }

  /** σ(z) and σ'(z) of all points, as two expressions. */
  private activate(activation: Activation, z: string): { value: string; slope: string } {
    const text = activationWgsl(activation);
    let name = this.activations.get(text);
    if (name === undefined) this.activations.set(text, (name = `activation_${this.activations.size}`));
    const results = each((point) => this.named("q", `${name}(${z}.${COMPONENTS[point]})`));
    return { value: this.ofPoints((point) => `${results[point]}.x`), slope: this.ofPoints((point) => `${results[point]}.y`) };
  }

  private load({ from, into }: Load): void {
    this.declare(into);
    const input = (index: string): string =>
      this.ofPoints((point) => `${from}[p.${from}_offset + point_${point} * p.${from}_stride + ${index}]`);
    this.loop(into.width, (index) => this.lines.push(`${into.name}[${index}] = ${input(index)};`));
  }

  /** The results of Σ W x block by block; `take` gets each result's index and the name that holds it. */
  private blocks(
    width: number,
    products: readonly Product[],
    start: (block: string, offset: number) => string,
    take: (result: string, name: string) => void,
  ): void {
    const block = blockOf(width);
    const inputs = products.map(({ x, matrix }) => {
      // What every block reads is multiplied out once.
      if (width <= block || x.length === 1) return x;
      const scaled: Vector = { name: this.fresh("x"), width: matrix.columns };
      this.declare(scaled);
      this.loop(scaled.width, (index) => this.lines.push(`${scaled.name}[${index}] = ${this.elements(x, index)};`));
      return [scaled];
    });
    const at = this.fresh("o");
    this.lines.push(`for (var ${at} = 0u; ${at} < ${Math.ceil(width / block)}u; ${at}++) {`);
    const names = Array.from({ length: block }, (_, offset) => {
      const name = this.fresh("z");
      this.lines.push(`var ${name} = ${start(at, offset)};`);
      return name;
    });
    products.forEach(({ matrix }, index) => {
      const quads = Math.ceil(block / 4);
      const place = this.matrixPlace(matrix);
      this.loop(matrix.columns, (column) => {
        const x = this.named("x", this.elements(inputs[index]!, column));
        const loaded = Array.from({ length: quads }, (_, quad) =>
          this.named("w", `vec4f(weights[${place}u + (${at} * ${matrix.columns}u + ${column}) * ${quads}u + ${quad}u])`),
        );
        names.forEach((name, offset) => this.lines.push(`${name} += ${loaded[offset >> 2]}.${COMPONENTS[offset & 3]} * ${x};`));
      });
    });
    names.forEach((name, offset) => take(`${at} * ${block}u + ${offset}u`, name));
    this.lines.push("}");
  }

  private sum({ into, slope, bias, added, products, activation }: Sum): void {
    this.declare(into);
    if (slope) this.declare(slope);
    const block = blockOf(into.width);
    // A row may end before the last block does; there it is the last number again, for results that nobody reads.
    const last = (index: string): string => (into.width % block === 0 ? index : `min(${index}, ${into.width - 1}u)`);
    const start = (at: string, offset: number): string => {
      const parts = added.map((elements) => this.elements(elements, `(${last(`${at} * ${block}u + ${offset}u`)})`));
      if (bias) {
        const quad = `${this.rowPlace(bias, 0)}u + ${at} * ${Math.ceil(block / 4)}u + ${offset >> 2}u`;
        parts.unshift(`V(f32(weights[${quad}].${COMPONENTS[offset & 3]}))`);
      }
      return parts.join(" + ") || "V(0.0)";
    };
    this.blocks(into.width, products, start, (result, name) => this.lines.push(`${into.name}[${result}] = ${name};`));
    if (isIdentity(activation)) return;
    // A loop of its own: within the blocks the text of the activation would stand there for every result of one.
    this.loop(into.width, (index) => {
      const activated = this.activate(activation, this.named("z", `${into.name}[${index}]`));
      this.lines.push(`${into.name}[${index}] = ${activated.value};`);
      if (slope) this.lines.push(`${slope.name}[${index}] = ${activated.slope};`);
    });
  }

  private contract({ product, x, by, factor, term, width }: Contract): void {
    const total = this.fresh("c");
    this.lines.push(`var ${total} = V(0.0);`);
    if (product) {
      const exact = width % blockOf(width) === 0;
      this.blocks(
        width,
        [product],
        () => "V(0.0)",
        (result, name) => {
          // A row's padding may hold anything but a number.
          const line = `${total} += ${name} * ${this.elements(by, `(${result})`)};`;
          this.lines.push(exact ? line : `if (${result} < ${width}u) {\n${line}\n}`);
        },
      );
    } else this.loop(width, (index) => this.lines.push(`${total} += ${this.elements(x, index)} * ${this.elements(by, index)};`));
    this.lines.push(`term[${term}] += ${factor.length > 0 ? `${this.elements(factor, `${term}u`)} * ` : ""}${total};`);
  }

  /** As shaders/norm.wgsl: once the least and the largest entry are known, r times the distance of each from the mean. */
  private norm({ into, inverseDeviation, x, centered, epsilon }: Norm): void {
    this.declare(into);
    this.declare(inverseDeviation);
    const root = literal(Math.sqrt(epsilon));
    const share = literal(1 / x.width);
    const entry = (index: string): string => `${x.name}[${index}]`;
    const [low, high] = [this.fresh("low"), this.fresh("high")];
    this.lines.push(`var ${low} = ${entry("0")};`, `var ${high} = ${entry("0")};`);
    this.loop(x.width, (index) => this.lines.push(`${low} = min(${low}, ${entry(index)});`, `${high} = max(${high}, ${entry(index)});`));
    const sum = (of: (index: string) => string): string => {
      const total = this.fresh("total");
      this.lines.push(`var ${total} = V(0.0);`);
      this.loop(x.width, (index) => this.lines.push(`${total} += ${of(index)};`));
      return total;
    };
    const scaleOf = (largest: string, least: string): string =>
      this.named(
        "scale",
        this.ofPoints((point) => `norm_scale(${largest}.${COMPONENTS[point]}, ${least})`),
      );
    let mean = this.named("mean", "V(0.0)");
    if (centered) {
      const scale = scaleOf(this.named("largest", `max(${high}, -${low})`), "0.0");
      const total = sum((index) => `${scale} * ${entry(index)} * ${share}`);
      mean = this.named("mean", `clamp(${total} / ${scale}, ${low}, ${high})`);
    }
    const scale = scaleOf(this.named("largest", `max(${high} - ${mean}, ${mean} - ${low})`), root);
    const apart = (index: string): string => `${scale} * (${entry(index)} - ${mean})`;
    // What rounding the mean has left.
    const rest = centered ? sum((index) => `${apart(index)} * ${share}`) : null;
    const distance = (index: string): string => (rest === null ? `(${apart(index)})` : `(${apart(index)} - ${rest})`);
    const variance = sum((index) => `${distance(index)} * ${distance(index)} * ${share}`);
    const both = each((point) =>
      this.named("r", `inverse_deviation_of(${variance}.${COMPONENTS[point]}, ${root}, ${scale}.${COMPONENTS[point]})`),
    );
    const scaled = this.named(
      "scaled",
      this.ofPoints((point) => `${both[point]}.x`),
    );
    this.lines.push(`${inverseDeviation.name}[0] = ${this.ofPoints((point) => `${both[point]}.y`)};`);
    this.loop(x.width, (index) => this.lines.push(`${into.name}[${index}] = ${scaled} * ${distance(index)};`));
  }

  private normTangent({ into, tangent, value, inverseDeviation, centered }: NormTangent): void {
    this.declare(into);
    const [mean, along] = [this.fresh("mean"), this.fresh("along")];
    const share = literal(1 / into.width);
    this.lines.push(`var ${mean} = V(0.0);`, `var ${along} = V(0.0);`);
    this.loop(into.width, (index) => {
      const moved = this.named("f", `${inverseDeviation.name}[0] * (${this.elements(tangent, index)})`);
      if (centered) this.lines.push(`${mean} += ${moved} * ${share};`);
      this.lines.push(`${along} += ${moved} * ${value.name}[${index}] * ${share};`, `${into.name}[${index}] = ${moved};`);
    });
    this.loop(into.width, (index) =>
      this.lines.push(`${into.name}[${index}] = ${into.name}[${index}] - ${mean} - ${value.name}[${index}] * ${along};`),
    );
  }

  private store({ from, what }: Extract<Statement, { kind: "store" }>): void {
    const names = Array.from({ length: from.width }, (_, index) => `${from.name}[${index}]`);
    const results = what === "divergence" ? [this.named("sum", names.join(" + ") || "V(0.0)")] : names;
    for (const point of points)
      results.forEach((name, index) =>
        this.stores.push(`${what}[p.${what}_offset + point_${point} * p.${what}_stride + ${index}u] = ${name}.${COMPONENTS[point]};`),
      );
  }

  finish(): FusedText {
    const { statements } = this.program;
    const loads = new Set(statements.flatMap((statement) => (statement.kind === "load" ? [statement.from] : [])));
    const stored = new Set(statements.flatMap((statement) => (statement.kind === "store" ? [statement.what] : [])));
    const padded = new Float32Array(4 * Math.ceil(this.data.length / 4));
    padded.set(this.data);
    const buffers = [
      ...[...loads].map((name) => `<storage, read> ${name}: array<f32>`),
      ...[...stored].map((name) => `<storage, read_write> ${name}: array<f32>`),
      ...(padded.length > 0 ? [`<storage, read> weights: array<${this.half ? "vec4h" : "vec4f"}, ${padded.length / 4}>`] : []),
    ];
    const functions = [...this.activations].map(([text, name]) => text.replace("fn activation(", `fn ${name}(`));
    const text = `// The ${[...stored].join(" and ")} of a plan, all layers of a point in one invocation, written from the plan's instructions.
// One invocation takes ${POINTS} consecutive points; V holds one number of each. Past the last point it computes that one
// again and writes the same numbers: a branch would cost some compilers two thirds of the speed of such long code.
// points [rows, d] and context [rows or 1, c] at their strides; value [rows, d]; divergence [rows]; diagonal [rows, K].
// weights: the numbers of matrices and biases in the order in which the text reads them.
// Needs: lib/dispatch.wgsl, lib/special.wgsl, lib/activations.wgsl, lib/norms.wgsl.

struct Parameters {
  rows: u32,
  points_offset: u32,
  points_stride: u32,
  context_offset: u32,
  context_stride: u32,
  value_offset: u32,
  value_stride: u32,
  divergence_offset: u32,
  divergence_stride: u32,
  diagonal_offset: u32,
  diagonal_stride: u32,
}

alias V = vec${POINTS}f;

@group(0) @binding(0) var<uniform> p: Parameters;
${buffers.map((buffer, index) => `@group(0) @binding(${index + 1}) var${buffer};`).join("\n")}

${functions.join("\n")}
@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
let i = invocation_index(id, workgroups);
${each((point) => `let point_${point} = min(i * ${POINTS}u + ${point}u, p.rows - 1u);`).join("\n")}
${this.lines.join("\n")}
${this.stores.join("\n")}
}
`;
    return { text, weights: this.half ? halves(padded, "a weight or a bias") : padded };
  }
}

/** Of an invocation. */
const points = Array.from({ length: POINTS }, (_, point) => point);

/** One text for each point. */
function each(of: (point: number) => string): string[] {
  return points.map(of);
}

/** How many results of a vector are summed side by side. */
function blockOf(width: number): number {
  return Math.min(width, BLOCK);
}

function numberOf(matrix: PlannedMatrix, row: number, column: number): number {
  return matrix.build().data[row * matrix.columns + column]!;
}

/** A float32 in WGSL. */
function literal(value: number): string {
  const text = String(Math.fround(value));
  return `${/[.e]/.test(text) ? text : `${text}.0`}f`;
}
