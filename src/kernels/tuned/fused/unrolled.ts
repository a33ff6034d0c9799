import { isVector, type Elements, type FusedProgram, type Product, type Vector } from "./statements.js";
import { literal, numberOf, Writer, type Contract, type Load, type Norm, type NormTangent, type Sum } from "./writer.js";

/** Results of a product that are summed side by side: the elements that they share stay near. */
const UNROLLED_RESULTS = 16;

/** A constant times vectors' elements. */
export interface Factors {
  readonly constant: number;
  readonly names: readonly string[];
}

/** A sum of few results, and the variables that they grow in. */
export interface NarrowSum {
  readonly statement: Sum;
  readonly names: readonly string[];
  begun: boolean;
}

/** A contraction in progress: the variable it grows in, and which results are in it. */
export interface Contraction {
  readonly statement: Contract;
  readonly sum: string;
  readonly done: Set<number>;
  begun: boolean;
}

/** Sums of at most so many results grow while their inputs are computed: f, for the states that are fused. */
const MOST_NARROW = 16;

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

/** What is too narrow for loops: every number has a name and every weight is a literal. */
export abstract class Unrolled extends Writer {
  /** Expressions that have a name already, by their text. */
  private readonly known = new Map<string, string>();
  private readonly terms = new Set<number>();
  /** How many elements of each vector have been computed. */
  protected readonly made: Map<Vector, number> = new Map();
  /** Sums of few results, by the vectors that they add up: each element is added as soon as it is there, and then done with. */
  protected readonly narrow: Map<Vector, NarrowSum[]> = new Map();
  protected readonly narrowSums: Map<Sum, NarrowSum> = new Map();
  /** Contractions, by the vector that weighs their results: results are computed beside its elements, and then done with. */
  protected readonly weighed: Map<Vector, Contraction[]> = new Map();
  private readonly contractions = new Map<Contract, Contraction>();

  constructor(program: FusedProgram, points: number) {
    super(program, points);
    for (const statement of program.statements) {
      if (statement.kind === "sum" && statement.into.width <= MOST_NARROW) this.noteNarrow(statement);
      if (statement.kind === "contract" && statement.product) this.noteWeighed(statement);
    }
  }

  private noteNarrow(statement: Sum): void {
    const inputs = statement.products.map(({ x }) => x);
    if (inputs.length === 0 || !inputs.every((x) => x.length === 1 && isVector(x[0]!))) return;
    const sum = { statement, names: Array.from({ length: statement.into.width }, () => this.fresh("y")), begun: false };
    this.narrowSums.set(statement, sum);
    for (const x of new Set(inputs.map(([input]) => input as Vector))) append(this.narrow, x, sum);
  }

  private noteWeighed(statement: Contract): void {
    const vectors = statement.by.filter(isVector);
    const contraction = this.contractionOf(statement);
    if (vectors.length === 1) append(this.weighed, vectors[0]!, contraction);
  }

  protected contractionOf(statement: Contract): Contraction {
    let contraction = this.contractions.get(statement);
    if (!contraction) this.contractions.set(statement, (contraction = { statement, sum: this.fresh("c"), done: new Set(), begun: false }));
    return contraction;
  }

  protected override load(statement: Load): void {
    for (let index = 0; index < statement.into.width; index++) this.define(statement.into, index, this.input(statement, `${index}u`));
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

  protected addToNarrow(sum: NarrowSum, vector: Vector, index: number, name: string): void {
    const { statement, names } = sum;
    this.beginNarrow(sum);
    for (const { matrix, x } of statement.products) {
      if (x[0] !== vector) continue;
      names.forEach((result, row) => {
        const weight = numberOf(matrix, row, index);
        if (weight !== 0) this.lines.push(`${result} += ${literal(weight)} * ${name};`);
      });
    }
  }

  protected beginNarrow(sum: NarrowSum): void {
    if (sum.begun) return;
    sum.begun = true;
    const { bias } = sum.statement;
    sum.names.forEach((name, row) => this.lines.push(`var ${name} = V(${literal(bias ? numberOf(bias, 0, row) : 0)});`));
  }

  /** Results of contractions that are weighed by elements which have just been computed. */
  protected contractBeside(vectors: readonly (Vector | null)[], results: readonly number[]): void {
    for (const vector of vectors)
      for (const contraction of (vector && this.weighed.get(vector)) ?? []) {
        const inputs = contraction.statement.product!.x.filter(isVector);
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

  protected factors(elements: Elements, index: number): Factors {
    let constant = 1;
    const names: string[] = [];
    for (const element of elements) {
      if (isVector(element)) names.push(this.element(element, index));
      else constant *= numberOf(element.matrix, element.row, index);
    }
    return { constant, names };
  }

  /** constant * names, the product of the names computed once. */
  protected product({ constant, names }: Factors): string {
    if (names.length === 0) return `V(${literal(constant)})`;
    const name = names.length === 1 ? names[0]! : this.once("f", names.join(" * "));
    return constant === 1 ? name : `${literal(constant)} * ${name}`;
  }

  protected begin(contraction: Contraction): void {
    if (!contraction.begun) this.lines.push(`var ${contraction.sum} = V(0.0);`);
    contraction.begun = true;
  }

  /** Variables that results grow in, from what each starts with. */
  protected results(count: number, start: (result: number) => string): string[] {
    return Array.from({ length: count }, (_, result) => {
      const started = start(result);
      const name = this.fresh("z");
      this.lines.push(`var ${name} = ${started};`);
      return name;
    });
  }

  /** Results of Σ W x, a few at a time, as names of variables. */
  private block(
    results: readonly number[],
    products: readonly Product[],
    start: (result: number) => string,
    take: (result: number, name: string) => void,
  ): void {
    const names = this.results(results.length, (index) => start(results[index]!));
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

  /** A name for what an expression gives, computed once. */
  protected once(prefix: string, expression: string): string {
    let name = this.known.get(expression);
    if (name === undefined) {
      name = this.fresh(prefix);
      this.lines.push(`let ${name} = ${expression};`);
      this.known.set(expression, name);
    }
    return name;
  }

  protected override sum(statement: Sum): void {
    const { into, slope, bias, added, activation, products } = statement;
    const take = (result: number, name: string): void => {
      const activated = this.activate(activation, name);
      this.define(into, result, activated.value);
      if (slope) this.define(slope, result, activated.slope);
    };
    const narrow = this.narrowSums.get(statement);
    if (narrow) {
      this.beginNarrow(narrow);
      narrow.names.forEach((name, result) => {
        const parts = [name, ...added.map((elements) => this.product(this.factors(elements, result)))];
        take(result, parts.length > 1 ? `(${parts.join(" + ")})` : name);
      });
      return this.contractBeside([into, slope], [...narrow.names.keys()]);
    }
    const start = (result: number): string => {
      const parts = added.map((elements) => this.product(this.factors(elements, result)));
      if (bias || parts.length === 0) parts.unshift(`V(${literal(bias ? numberOf(bias, 0, result) : 0)})`);
      return parts.join(" + ");
    };
    for (const results of blocksOf(into.width)) {
      this.block(results, products, start, take);
      this.contractBeside([into, slope], results);
    }
  }

  protected override contract(statement: Contract): void {
    const { product, x, by, factor, term, width } = statement;
    const total = this.term(term);
    const contraction = this.contractionOf(statement);
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
    const { product, by } = contraction.statement;
    this.block(
      left,
      [product!],
      () => "V(0.0)",
      (result, name) => this.weigh(contraction, by, result, [name], 1),
    );
  }

  private weigh(contraction: Contraction, by: Elements, result: number, names: readonly string[], constant: number): void {
    this.begin(contraction);
    const weight = this.factors(by, result);
    const all = { constant: constant * weight.constant, names: [...names, ...weight.names] };
    // A name of its own for every result would only be a name more.
    const expression = [...(all.constant === 1 && all.names.length > 0 ? [] : [literal(all.constant)]), ...all.names].join(" * ");
    if (all.constant !== 0) this.lines.push(`${contraction.sum} += ${expression};`);
  }

  protected override norm(statement: Norm): void {
    const { into, x } = statement;
    const names = Array.from({ length: x.width }, (_, index) => this.element(x, index));
    const [low, high] = (["min", "max"] as const).map((least) => {
      const name = this.fresh(least === "min" ? "low" : "high");
      this.lines.push(`let ${name} = ${names.reduce((sofar, entry) => `${least}(${sofar}, ${entry})`)};`);
      return name;
    }) as [string, string];
    const normalised = this.normOf(statement, [low, high], (of) => {
      const total = this.fresh("total");
      this.lines.push(`let ${total} = ${names.map(of).join(" + ")};`);
      return total;
    });
    names.forEach((name, index) => this.define(into, index, normalised(name)));
  }

  protected override keepInverseDeviation(vector: Vector, expression: string): void {
    this.define(vector, 0, expression);
  }

  protected override normTangent({ into, tangent, value, inverseDeviation, centered }: NormTangent): void {
    const { width } = into;
    const r = this.element(inverseDeviation, 0);
    const moved = Array.from({ length: width }, (_, index) => {
      const expression = this.product(this.factors(tangent, index));
      const name = this.fresh("f");
      this.lines.push(`let ${name} = ${r} * (${expression});`);
      return name;
    });
    const values = moved.map((_, index) => this.element(value, index));
    const [mean, along] = [this.fresh("mean"), this.fresh("along")];
    this.lines.push(`let ${mean} = ${centered ? `(${moved.join(" + ")}) * ${literal(1 / width)}` : "V(0.0)"};`);
    this.lines.push(`let ${along} = (${moved.map((name, index) => `${name} * ${values[index]}`).join(" + ")}) * ${literal(1 / width)};`);
    moved.forEach((name, index) => this.define(into, index, `${name} - ${mean} - ${values[index]} * ${along}`));
  }
}
