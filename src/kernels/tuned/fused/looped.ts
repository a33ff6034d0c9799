import { isIdentity } from "../../../model/activation.js";
import type { PlannedMatrix } from "../../../plan/matrices.js";
import { isVector, type Elements, type FusedProgram, type Product, type Vector } from "./statements.js";
import { halves } from "../../../model/float16.js";
import {
  COMPONENTS,
  literal,
  numberOf,
  Writer,
  type Contract,
  type FusedText,
  type Load,
  type Norm,
  type NormTangent,
  type Sum,
} from "./writer.js";

/** Results of a product that are summed side by side in loops. */
const LOOPED_RESULTS = 8;

/** Vectors are arrays and weights are read from a buffer: one text for all networks of a shape. */
export class Looped extends Writer {
  private readonly data: number[] = [];
  /** Where the rows of matrices begin, and whole ones. */
  private readonly rowPlaces = new Map<PlannedMatrix, Map<number, number>>();
  private readonly matrixPlaces = new Map<PlannedMatrix, number>();
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

  protected override weightsBindings(): string[] {
    if (this.data.length === 0) return [];
    const type = `weights: array<${this.half ? "vec4h" : "vec4f"}, ${Math.ceil(this.data.length / 4)}>`;
    return [this.space === "uniform" ? `<uniform> ${type}` : `<storage, read> ${type}`];
  }

  protected override packed(): FusedText["weights"] {
    if (this.data.length === 0) return new Map();
    const padded = new Float32Array(4 * Math.ceil(this.data.length / 4));
    padded.set(this.data);
    return new Map([["weights", this.half ? halves(padded, "a weight or a bias") : padded]]);
  }

  protected override load(statement: Load): void {
    this.declare(statement.into);
    this.each(statement.into.width, (index) => {
      this.lines.push(`${statement.into.name}[${index}] = ${this.input(statement, index)};`);
    });
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
      const scaled: Vector = { name: this.fresh("x"), width: matrix.columns, isTangent: false };
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
        names.forEach((name, offset) => this.lines.push(`${name} += ${loaded[offset >> 2]}.${COMPONENTS[offset & 3]} * ${x};`));
      });
    });
    names.forEach((name, offset) => take(`${at} * ${block}u + ${offset}u`, name));
    this.lines.push("}");
  }

  protected override sum({ into, slope, bias, added, products, activation }: Sum): void {
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
    this.each(into.width, (index) => {
      const z = this.fresh("z");
      this.lines.push(`let ${z} = ${into.name}[${index}];`);
      const activated = this.activate(activation, z);
      this.lines.push(`${into.name}[${index}] = ${activated.value};`);
      if (slope) this.lines.push(`${slope.name}[${index}] = ${activated.slope};`);
    });
  }

  protected override contract({ product, x, by, factor, term, width }: Contract): void {
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

  protected override norm(statement: Norm): void {
    const { into, inverseDeviation, x } = statement;
    this.declare(into);
    this.declare(inverseDeviation);
    const [low, high] = [this.fresh("low"), this.fresh("high")];
    this.lines.push(`var ${low} = ${x.name}[0];`, `var ${high} = ${x.name}[0];`);
    this.each(x.width, (index) =>
      this.lines.push(`${low} = min(${low}, ${x.name}[${index}]);`, `${high} = max(${high}, ${x.name}[${index}]);`),
    );
    const normalised = this.normOf(statement, [low, high], (of) => {
      const total = this.fresh("total");
      this.lines.push(`var ${total} = V(0.0);`);
      this.each(x.width, (index) => this.lines.push(`${total} += ${of(`${x.name}[${index}]`)};`));
      return total;
    });
    this.each(x.width, (index) => this.lines.push(`${into.name}[${index}] = ${normalised(`${x.name}[${index}]`)};`));
  }

  protected override keepInverseDeviation({ name }: Vector, expression: string): void {
    this.lines.push(`${name}[0] = ${expression};`);
  }

  protected override normTangent({ into, tangent, value, inverseDeviation, centered }: NormTangent): void {
    this.declare(into);
    const [mean, along] = [this.fresh("mean"), this.fresh("along")];
    this.lines.push(`var ${mean} = V(0.0);`, `var ${along} = V(0.0);`);
    this.each(into.width, (index) => {
      const moved = this.fresh("f");
      this.lines.push(`let ${moved} = ${inverseDeviation.name}[0] * (${this.elements(tangent, index)});`);
      if (centered) this.lines.push(`${mean} += ${moved} * ${literal(1 / into.width)};`);
      this.lines.push(`${along} += ${moved} * ${value.name}[${index}] * ${literal(1 / into.width)};`, `${into.name}[${index}] = ${moved};`);
    });
    this.each(into.width, (index) =>
      this.lines.push(`${into.name}[${index}] = ${into.name}[${index}] - ${mean} - ${value.name}[${index}] * ${along};`),
    );
  }
}

/** How many results of a vector are summed side by side. */
function blockOf(width: number): number {
  return Math.min(width, LOOPED_RESULTS);
}
