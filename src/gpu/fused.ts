import { LimitError } from "../errors.js";
import { halves } from "./buffers.js";
import { activationWgsl, isIdentity, type Activation } from "../model/activation.js";
import type { FusedForm } from "../plan/fused.js";
import type { PlannedMatrix } from "../plan/matrices.js";
import type { Elements, FusedProgram, Operation, Product, Vector } from "../plan/operations.js";

/** The text of a fused kernel, and what its buffer of weights holds, in vec4s; null where they stand in the text. */
export interface FusedText {
  readonly text: string;
  readonly weights: Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | null;
}

type Load = Extract<Operation, { kind: "load" }>;
type Sum = Extract<Operation, { kind: "sum" }>;
type Contract = Extract<Operation, { kind: "contract" }>;

/** A plan in one kernel, unrolled where its weights are literals and in loops where they are in a buffer. */
export function fusedText({ program, variant: { weights, points, half = false } }: FusedForm): FusedText {
  const writer = weights === "literal" ? new Unrolled(program, points) : new Looped(program, points, weights, half);
  for (const operation of program.operations) writer.write(operation);
  return writer.finish();
}

/** Results of a product that are summed side by side where all is unrolled. */
const UNROLLED_RESULTS = 4;

const LANES = ["x", "y", "z", "w"] as const;

/** What both forms share: the interface of the kernel, its inputs and outputs, and the activations of all lanes. */
abstract class Writer {
  protected readonly lines: string[] = [];
  /** Stores of each lane, at the end. */
  private readonly stores: string[][];
  private readonly activations = new Map<string, string>();
  protected names = 0;

  constructor(
    protected readonly program: FusedProgram,
    protected readonly points: number,
  ) {
    this.stores = LANES.slice(0, points).map(() => []);
  }

  abstract write(operation: Operation): void;
  /** What an element of a vector is called. */
  protected abstract element(vector: Vector, index: number): string;
  protected abstract weightsBinding(): string | null;
  protected abstract packed(): FusedText["weights"];

  protected fresh(prefix: string): string {
    return `${prefix}${this.names++}`;
  }

  /** V of a number per lane. */
  protected lanes(of: (lane: number) => string): string {
    return this.points === 1
      ? of(0)
      : `V(${LANES.slice(0, this.points)
          .map((_, lane) => of(lane))
          .join(", ")})`;
  }

  protected lane(name: string, lane: number): string {
    return this.points === 1 ? name : `${name}.${LANES[lane]}`;
  }

  /** σ(z) and σ'(z) of all lanes, as two expressions. */
  protected activate(activation: Activation, z: string): { value: string; derivative: string } {
    if (isIdentity(activation)) return { value: z, derivative: "V(1.0)" };
    const text = activationWgsl(activation);
    let name = this.activations.get(text);
    if (name === undefined) this.activations.set(text, (name = `activation_${this.activations.size}`));
    const results = LANES.slice(0, this.points).map((_, lane) => {
      const result = this.fresh("q");
      this.lines.push(`let ${result} = ${name}(${this.lane(z, lane)});`);
      return result;
    });
    return { value: this.lanes((lane) => `${results[lane]}.x`), derivative: this.lanes((lane) => `${results[lane]}.y`) };
  }

  protected input({ from, first }: Load, index: string): string {
    const at = first > 0 ? `${first}u + ${index}` : index;
    return this.lanes((lane) => `${from}[p.${from}_offset + point_${lane} * p.${from}_stride + ${at}]`);
  }

  private output(what: string, name: string, index: string): void {
    this.stores.forEach((lines, lane) =>
      lines.push(`${what}[p.${what}_offset + point_${lane} * p.${what}_stride + ${index}] = ${this.lane(name, lane)};`),
    );
  }

  protected store({ from, what, first, added }: Extract<Operation, { kind: "store" }>): void {
    const names = Array.from({ length: from.width }, (_, index) => {
      const parts = [from, ...added].map((vector) => this.element(vector, index));
      return parts.length > 1 ? `(${parts.join(" + ")})` : parts[0]!;
    });
    if (what !== "divergence") return names.forEach((name, index) => this.output(what, name, `${first + index}u`));
    const sum = this.fresh("sum");
    this.lines.push(`let ${sum} = ${names.join(" + ") || "V(0.0)"};`);
    this.output(what, sum, "0u");
  }

  finish(): FusedText {
    const { operations } = this.program;
    const loads = new Set(operations.flatMap((operation) => (operation.kind === "load" ? [operation.from] : [])));
    const stored = new Set(operations.flatMap((operation) => (operation.kind === "store" ? [operation.what] : [])));
    const buffers = [
      ...[...loads].map((name) => `<storage, read> ${name}: array<f32>`),
      ...[...stored].map((name) => `<storage, read_write> ${name}: array<f32>`),
      this.weightsBinding(),
    ].filter((buffer) => buffer !== null);
    const functions = [...this.activations].map(([text, name]) => text.replace("fn activation(", `fn ${name}(`));
    const text = `// The ${[...stored].join(" and ")} of a plan, all layers of a point in one invocation, written from the plan's operations.
// One invocation takes ${this.points} consecutive points; V holds one number of each. Past the last point it computes that one
// again and writes the same numbers: a branch would cost some compilers two thirds of the speed of such long code.
// points [rows, d] and context [rows or 1, c] at their strides; value [rows, d]; divergence [rows]; diagonal [rows, K];
// partial [rows, parts - 1, d + K] what parts before the last leave for it.
// Needs: lib/dispatch.wgsl, lib/special.wgsl, lib/activations.wgsl.

struct Parameters {
  rows: u32,
  points_offset: u32,
  points_stride: u32,
  context_offset: u32,
  context_stride: u32,
  partial_offset: u32,
  partial_stride: u32,
  value_offset: u32,
  value_stride: u32,
  divergence_offset: u32,
  divergence_stride: u32,
  diagonal_offset: u32,
  diagonal_stride: u32,
}

alias V = ${this.points === 1 ? "f32" : `vec${this.points}f`};

@group(0) @binding(0) var<uniform> p: Parameters;
${buffers.map((buffer, index) => `@group(0) @binding(${index + 1}) var${buffer};`).join("\n")}

${functions.join("\n")}
@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
let i = invocation_index(id, workgroups);
${LANES.slice(0, this.points)
  .map((_, lane) => `let point_${lane} = min(i * ${this.points}u + ${lane}u, p.rows - 1u);`)
  .join("\n")}
${this.lines.join("\n")}
${this.stores.flat().join("\n")}
}
`;
    return { text, weights: this.packed() };
  }
}

/** A constant times vectors' elements. */
interface Factors {
  readonly constant: number;
  readonly names: readonly string[];
}

/** A sum of few results, and the variables that they grow in. */
interface NarrowSum {
  readonly operation: Sum;
  readonly names: readonly string[];
  begun: boolean;
}

/** A contraction in progress: the variable it grows in, and which results are in it. */
interface Contraction {
  readonly operation: Contract;
  readonly sum: string;
  readonly done: Set<number>;
  begun: boolean;
}

/** Sums of at most so many results grow while their inputs are computed. */
const MOST_NARROW = 8;

function append<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const values = map.get(key);
  if (values) values.push(value);
  else map.set(key, [value]);
}

function blocksOf(width: number): number[][] {
  const block = (first: number): number[] =>
    Array.from({ length: Math.min(UNROLLED_RESULTS, width - first) }, (_, offset) => first + offset);
  return Array.from({ length: Math.ceil(width / UNROLLED_RESULTS) }, (_, index) => block(index * UNROLLED_RESULTS));
}

/** Every number has a name and every weight is a literal: no loops, no branches, no arrays. */
class Unrolled extends Writer {
  /** Products that have a name already, by their text. */
  private readonly known = new Map<string, string>();
  private readonly terms = new Set<number>();
  /** How many elements of each vector have been computed. */
  private readonly made = new Map<Vector, number>();
  /** Sums of few results, by the vectors that they add up: each element is added as soon as it is there, and then done with. */
  private readonly narrow = new Map<Vector, NarrowSum[]>();
  private readonly narrowSums = new Map<Sum, NarrowSum>();
  /** Contractions, by the vector that weighs their results: results are computed beside its elements, and then done with. */
  private readonly weighed = new Map<Vector, Contraction[]>();
  private readonly contractions = new Map<Contract, Contraction>();

  constructor(program: FusedProgram, points: number) {
    super(program, points);
    for (const operation of program.operations) {
      if (operation.kind === "sum" && operation.into.width <= MOST_NARROW) this.noteNarrow(operation);
      if (operation.kind === "contract" && operation.product) this.noteWeighed(operation);
    }
  }

  private noteNarrow(operation: Sum): void {
    const inputs = operation.products.map(({ x }) => x);
    if (inputs.length === 0 || !inputs.every((x) => x.length === 1 && "name" in x[0]!)) return;
    const sum = { operation, names: Array.from({ length: operation.into.width }, () => this.fresh("y")), begun: false };
    this.narrowSums.set(operation, sum);
    for (const x of new Set(inputs.map(([input]) => input as Vector))) append(this.narrow, x, sum);
  }

  private noteWeighed(operation: Contract): void {
    const vectors = operation.by.filter((element): element is Vector => "name" in element);
    const contraction = this.contractionOf(operation);
    if (vectors.length === 1) append(this.weighed, vectors[0]!, contraction);
  }

  private contractionOf(operation: Contract): Contraction {
    let contraction = this.contractions.get(operation);
    if (!contraction) this.contractions.set(operation, (contraction = { operation, sum: this.fresh("c"), done: new Set(), begun: false }));
    return contraction;
  }

  protected override weightsBinding(): null {
    return null;
  }

  protected override packed(): null {
    return null;
  }

  override write(operation: Operation): void {
    switch (operation.kind) {
      case "load":
        for (let index = 0; index < operation.into.width; index++) this.define(operation.into, index, this.input(operation, `${index}u`));
        return;
      case "sum":
        return this.sum(operation);
      case "norm":
        return this.norm(operation);
      case "norm tangent":
        return this.normTangent(operation);
      case "contract":
        return this.contract(operation);
      case "store":
        return this.store(operation);
    }
  }

  protected override element(vector: Vector, index: number): string {
    return vector === this.program.terms ? this.term(index) : `${vector.name}${index}`;
  }

  private define(vector: Vector, index: number, expression: string): void {
    const name = `${vector.name}${index}`;
    this.lines.push(`let ${name} = ${expression};`);
    this.made.set(vector, (this.made.get(vector) ?? 0) + 1);
    for (const sum of this.narrow.get(vector) ?? []) this.addToNarrow(sum, vector, index, name);
  }

  private addToNarrow(sum: NarrowSum, vector: Vector, index: number, name: string): void {
    const { operation, names } = sum;
    this.beginNarrow(sum);
    for (const { matrix, x } of operation.products) {
      if (x[0] !== vector) continue;
      names.forEach((result, row) => {
        const weight = numberOf(matrix, row, index);
        if (weight !== 0) this.lines.push(`${result} += ${literal(weight)} * ${name};`);
      });
    }
  }

  private beginNarrow(sum: NarrowSum): void {
    if (sum.begun) return;
    sum.begun = true;
    const { bias } = sum.operation;
    sum.names.forEach((name, row) => this.lines.push(`var ${name} = V(${literal(bias ? numberOf(bias, 0, row) : 0)});`));
  }

  /** Results of contractions that are weighed by elements which have just been computed. */
  private contractBeside(vectors: readonly (Vector | null)[], results: readonly number[]): void {
    for (const vector of vectors)
      for (const contraction of (vector && this.weighed.get(vector)) ?? []) {
        const inputs = contraction.operation.product!.x.filter((element): element is Vector => "name" in element);
        if (inputs.every((input) => this.made.get(input) === input.width)) this.contractResults(contraction, results);
      }
  }

  private term(index: number): string {
    const name = `term${index}`;
    if (!this.terms.has(index)) {
      this.terms.add(index);
      this.lines.push(`var ${name} = V(0.0);`);
    }
    return name;
  }

  private factors(elements: Elements, index: number): Factors {
    let constant = 1;
    const names: string[] = [];
    for (const element of elements) {
      if ("name" in element) names.push(`${element.name}${index}`);
      else constant *= numberOf(element.matrix, element.row, index);
    }
    return { constant, names };
  }

  /** constant * names, the product of the names computed once. */
  private product({ constant, names }: Factors): string {
    if (names.length === 0) return `V(${literal(constant)})`;
    const key = names.join(" * ");
    let name = names.length === 1 ? key : this.known.get(key);
    if (name === undefined) {
      name = this.fresh("f");
      this.lines.push(`let ${name} = ${key};`);
      this.known.set(key, name);
    }
    return constant === 1 ? name : `${literal(constant)} * ${name}`;
  }

  /** Results of Σ W x, a few at a time, as names of variables. */
  private block(
    results: readonly number[],
    products: readonly Product[],
    start: (result: number) => string,
    take: (result: number, name: string) => void,
  ): void {
    const names = results.map((result) => {
      const started = start(result);
      const name = this.fresh("z");
      this.lines.push(`var ${name} = ${started};`);
      return name;
    });
    for (const { matrix, x } of products)
      for (let column = 0; column < matrix.columns; column++) {
        const { constant, names: factors } = this.factors(x, column);
        const weights = results.map((result) => constant * numberOf(matrix, result, column));
        if (weights.every((weight) => weight === 0)) continue;
        const unit = this.product({ constant: 1, names: factors });
        weights.forEach((weight, offset) => {
          if (weight !== 0) this.lines.push(`${names[offset]} += ${literal(weight)} * ${unit};`);
        });
      }
    results.forEach((result, offset) => take(result, names[offset]!));
  }

  private sum(operation: Sum): void {
    const { into, derivative, bias, added, activation, products } = operation;
    const take = (result: number, name: string): void => {
      const activated = this.activate(activation, name);
      this.define(into, result, activated.value);
      if (derivative) this.define(derivative, result, activated.derivative);
    };
    const narrow = this.narrowSums.get(operation);
    if (narrow) {
      this.beginNarrow(narrow);
      narrow.names.forEach((name, result) => {
        const parts = [name, ...added.map((elements) => this.product(this.factors(elements, result)))];
        take(result, parts.length > 1 ? `(${parts.join(" + ")})` : name);
      });
      return this.contractBeside([into, derivative], [...narrow.names.keys()]);
    }
    const start = (result: number): string => {
      const parts = added.map((elements) => this.product(this.factors(elements, result)));
      if (bias || parts.length === 0) parts.unshift(`V(${literal(bias ? numberOf(bias, 0, result) : 0)})`);
      return parts.join(" + ");
    };
    for (const results of blocksOf(into.width)) {
      this.block(results, products, start, take);
      this.contractBeside([into, derivative], results);
    }
  }

  private contract(operation: Contract): void {
    const { product, x, by, factor, term, width } = operation;
    const total = this.term(term);
    const contraction = this.contractionOf(operation);
    if (product) for (const results of blocksOf(width)) this.contractResults(contraction, results);
    else
      for (let result = 0; result < width; result++) {
        const { constant, names } = this.factors(x, result);
        this.weigh(contraction, by, result, names, constant);
      }
    const scaled = this.product(this.factors(factor, term));
    this.lines.push(`${total} += ${factor.length > 0 ? `${scaled} * ` : ""}${contraction.sum};`);
  }

  private contractResults(contraction: Contraction, results: readonly number[]): void {
    const left = results.filter((result) => !contraction.done.has(result));
    if (left.length === 0) return;
    for (const result of left) contraction.done.add(result);
    const { product, by } = contraction.operation;
    this.block(
      left,
      [product!],
      () => "V(0.0)",
      (result, name) => this.weigh(contraction, by, result, [name], 1),
    );
  }

  private weigh(contraction: Contraction, by: Elements, result: number, names: readonly string[], constant: number): void {
    if (!contraction.begun) this.lines.push(`var ${contraction.sum} = V(0.0);`);
    contraction.begun = true;
    const weight = this.factors(by, result);
    const all = { constant: constant * weight.constant, names: [...names, ...weight.names] };
    // A name of its own for every result would only be a name more.
    const expression = [...(all.constant === 1 && all.names.length > 0 ? [] : [literal(all.constant)]), ...all.names].join(" * ");
    if (all.constant !== 0) this.lines.push(`${contraction.sum} += ${expression};`);
  }

  private norm({ into, deviation, x, centered, epsilon }: Extract<Operation, { kind: "norm" }>): void {
    const names = Array.from({ length: x.width }, (_, index) => `${x.name}${index}`);
    const mean = this.fresh("mean");
    this.lines.push(`let ${mean} = ${centered ? `(${names.join(" + ")}) * ${literal(1 / x.width)}` : "V(0.0)"};`);
    const distances = names.map((name) => {
      const distance = this.fresh("f");
      this.lines.push(`let ${distance} = ${name} - ${mean};`);
      return distance;
    });
    const squares = distances.map((distance) => `${distance} * ${distance}`).join(" + ");
    this.define(deviation, 0, `inverseSqrt((${squares}) * ${literal(1 / x.width)} + ${literal(epsilon)})`);
    distances.forEach((distance, index) => this.define(into, index, `${deviation.name}0 * ${distance}`));
  }

  private normTangent({ into, tangent, value, deviation, centered }: Extract<Operation, { kind: "norm tangent" }>): void {
    const { width } = into;
    const moved = Array.from({ length: width }, (_, index) => {
      const expression = this.product(this.factors(tangent, index));
      const name = this.fresh("f");
      this.lines.push(`let ${name} = ${expression};`);
      return name;
    });
    const values = moved.map((_, index) => `${value.name}${index}`);
    const [mean, along] = [this.fresh("mean"), this.fresh("along")];
    this.lines.push(`let ${mean} = ${centered ? `(${moved.join(" + ")}) * ${literal(1 / width)}` : "V(0.0)"};`);
    this.lines.push(`let ${along} = (${moved.map((name, index) => `${name} * ${values[index]}`).join(" + ")}) * ${literal(1 / width)};`);
    const scale = `${deviation.name}0`;
    moved.forEach((name, index) => this.define(into, index, `${scale} * (${name} - ${mean} - ${values[index]} * ${along})`));
  }
}

/** Results of a product that are summed side by side in loops. */
const LOOPED_RESULTS = 8;

/** Vectors are arrays and weights are read from a buffer: one text for all networks of a shape. */
class Looped extends Writer {
  private readonly data: number[] = [];
  private readonly places = new Map<string, number>();
  private readonly declared = new Set<string>();

  constructor(
    program: FusedProgram,
    points: number,
    private readonly space: "uniform" | "storage",
    private readonly half: boolean,
  ) {
    super(program, points);
    const { width } = program.terms;
    if (width > 0) this.lines.push(`var term: array<V, ${width}>;`);
  }

  protected override weightsBinding(): string | null {
    if (this.data.length === 0) return null;
    const type = `weights: array<${this.half ? "vec4h" : "vec4f"}, ${Math.ceil(this.data.length / 4)}>`;
    return this.space === "uniform" ? `<uniform> ${type}` : `<storage, read> ${type}`;
  }

  protected override packed(): FusedText["weights"] {
    if (this.data.length === 0) return null;
    const padded = new Float32Array(4 * Math.ceil(this.data.length / 4));
    padded.set(this.data);
    return this.half ? halves(padded, "a matrix") : padded;
  }

  override write(operation: Operation): void {
    switch (operation.kind) {
      case "load":
        this.declare(operation.into);
        return this.each(operation.into.width, (index) => {
          this.lines.push(`${operation.into.name}[${index}] = ${this.input(operation, index)};`);
        });
      case "sum":
        return this.sum(operation);
      case "norm":
        return this.norm(operation);
      case "norm tangent":
        return this.normTangent(operation);
      case "contract":
        return this.contract(operation);
      case "store":
        return this.store(operation);
    }
  }

  protected override element({ name }: Vector, index: number): string {
    return `${name}[${index}]`;
  }

  /** Room for whole blocks of results; what stands in the last block's padding is never read. */
  private declare({ name, width }: Vector): void {
    if (this.declared.has(name)) return;
    this.declared.add(name);
    const block = blockOf(width);
    this.lines.push(`var ${name}: array<V, ${block * Math.ceil(width / block)}>;`);
  }

  private each(length: number, body: (index: string) => void): void {
    const index = this.fresh("k");
    this.lines.push(`for (var ${index} = 0u; ${index} < ${length}u; ${index}++) {`);
    body(index);
    this.lines.push("}");
  }

  /** Where numbers begin in the buffer, in vec4. */
  private place(key: string, make: () => number[]): number {
    let place = this.places.get(key);
    if (place === undefined) {
      this.places.set(key, (place = this.data.length / 4));
      this.data.push(...make());
      while (this.data.length % 4 !== 0) this.data.push(0);
    }
    return place;
  }

  /** A row of a matrix, its end filled up with zeros. */
  private rowPlace(matrix: PlannedMatrix, row: number): number {
    const width = blockOf(matrix.columns) * Math.ceil(matrix.columns / blockOf(matrix.columns));
    return this.place(`row ${row} of ${matrix.name} [${matrix.rows}, ${matrix.columns}]`, () =>
      Array.from({ length: width }, (_, column) => (column < matrix.columns ? numberOf(matrix, row, column) : 0)),
    );
  }

  /** Block by block of results: for each column the weights of the block, in whole vec4s. */
  private matrixPlace(matrix: PlannedMatrix): number {
    const block = blockOf(matrix.rows);
    const padded = 4 * Math.ceil(block / 4);
    return this.place(`${matrix.name} [${matrix.rows}, ${matrix.columns}]`, () => {
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
        if ("name" in element) return `${element.name}[${index}]`;
        const at = `${this.rowPlace(element.matrix, element.row)}u + ${index} / 4u`;
        return `f32(weights[${at}][${index} % 4u])`;
      })
      .map((factor, position) => (position === 0 ? `V(${factor})` : factor))
      .join(" * ");
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
      const scaled = { name: this.fresh("x"), width: matrix.columns };
      this.declare(scaled);
      this.each(scaled.width, (index) => this.lines.push(`${scaled.name}[${index}] = ${this.elements(x, index)};`));
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
      this.each(matrix.columns, (column) => {
        const x = this.fresh("x");
        this.lines.push(`let ${x} = ${this.elements(inputs[index]!, column)};`);
        const loaded = Array.from({ length: quads }, (_, quad) => {
          const weight = this.fresh("w");
          this.lines.push(`let ${weight} = vec4f(weights[${place}u + (${at} * ${matrix.columns}u + ${column}) * ${quads}u + ${quad}u]);`);
          return weight;
        });
        names.forEach((name, offset) => this.lines.push(`${name} += ${loaded[offset >> 2]}.${LANES[offset & 3]} * ${x};`));
      });
    });
    names.forEach((name, offset) => take(`${at} * ${block}u + ${offset}u`, name));
    this.lines.push("}");
  }

  private sum({ into, derivative, bias, added, products, activation }: Sum): void {
    this.declare(into);
    if (derivative) this.declare(derivative);
    const block = blockOf(into.width);
    // A row may end before the last block does; there it is the last number again, for results that nobody reads.
    const last = (index: string): string => (into.width % block === 0 ? index : `min(${index}, ${into.width - 1}u)`);
    const start = (at: string, offset: number): string => {
      const parts = added.map((elements) => this.elements(elements, `(${last(`${at} * ${block}u + ${offset}u`)})`));
      if (bias) {
        const quad = `${this.rowPlace(bias, 0)}u + ${at} * ${Math.ceil(block / 4)}u + ${offset >> 2}u`;
        parts.unshift(`V(f32(weights[${quad}].${LANES[offset & 3]}))`);
      }
      return parts.join(" + ") || "V(0.0)";
    };
    this.blocks(into.width, products, start, (result, name) => this.lines.push(`${into.name}[${result}] = ${name};`));
    if (isIdentity(activation)) return;
    // A loop of its own: within the blocks the text of the activation would stand there for every result of one.
    this.each(into.width, (index) => {
      const z = this.fresh("z");
      this.lines.push(`let ${z} = ${into.name}[${index}];`);
      const { value, derivative: slope } = this.activate(activation, z);
      this.lines.push(`${into.name}[${index}] = ${value};`);
      if (derivative) this.lines.push(`${derivative.name}[${index}] = ${slope};`);
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
    } else this.each(width, (index) => this.lines.push(`${total} += ${this.elements(x, index)} * ${this.elements(by, index)};`));
    this.lines.push(`term[${term}] += ${factor.length > 0 ? `${this.elements(factor, `${term}u`)} * ` : ""}${total};`);
  }

  private norm({ into, deviation, x, centered, epsilon }: Extract<Operation, { kind: "norm" }>): void {
    this.declare(into);
    this.declare(deviation);
    const [mean, variance] = [this.fresh("mean"), this.fresh("variance")];
    this.lines.push(`var ${mean} = V(0.0);`, `var ${variance} = V(0.0);`);
    if (centered) this.each(x.width, (index) => this.lines.push(`${mean} += ${x.name}[${index}] * ${literal(1 / x.width)};`));
    this.each(x.width, (index) => {
      const distance = this.fresh("f");
      this.lines.push(
        `let ${distance} = ${x.name}[${index}] - ${mean};`,
        `${variance} += ${distance} * ${distance} * ${literal(1 / x.width)};`,
      );
    });
    this.lines.push(`${deviation.name}[0] = inverseSqrt(${variance} + ${literal(epsilon)});`);
    this.each(x.width, (index) => this.lines.push(`${into.name}[${index}] = ${deviation.name}[0] * (${x.name}[${index}] - ${mean});`));
  }

  private normTangent({ into, tangent, value, deviation, centered }: Extract<Operation, { kind: "norm tangent" }>): void {
    this.declare(into);
    const [mean, along] = [this.fresh("mean"), this.fresh("along")];
    this.lines.push(`var ${mean} = V(0.0);`, `var ${along} = V(0.0);`);
    this.each(into.width, (index) => {
      const moved = this.fresh("f");
      this.lines.push(`let ${moved} = ${this.elements(tangent, index)};`);
      if (centered) this.lines.push(`${mean} += ${moved} * ${literal(1 / into.width)};`);
      this.lines.push(`${along} += ${moved} * ${value.name}[${index}] * ${literal(1 / into.width)};`, `${into.name}[${index}] = ${moved};`);
    });
    this.each(into.width, (index) =>
      this.lines.push(
        `${into.name}[${index}] = ${deviation.name}[0] * (${into.name}[${index}] - ${mean} - ${value.name}[${index}] * ${along});`,
      ),
    );
  }
}

/** How many results of a vector are summed side by side. */
function blockOf(width: number): number {
  return Math.min(width, LOOPED_RESULTS);
}

function numberOf(matrix: PlannedMatrix, row: number, column: number): number {
  return matrix.build().data[row * matrix.columns + column]!;
}

/** A float32 in WGSL. @throws LimitError where the number is none. */
function literal(value: number): string {
  const rounded = Math.fround(value);
  if (!Number.isFinite(rounded)) throw new LimitError(`the weight ${value} is no float32; expected at most 3.4e38`);
  const text = String(rounded);
  return `${/[.e]/.test(text) ? text : `${text}.0`}f`;
}
