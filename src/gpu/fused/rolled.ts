import { isIdentity } from "../../model/activation.js";
import type { PlannedMatrix } from "../../plan/matrices.js";
import { vectorsOf, type Elements, type FusedProgram, type Operation, type Vector } from "../../plan/operations.js";
import { Unrolled, type Contraction, type NarrowSum } from "./unrolled.js";
import { COMPONENTS, numberOf, type Contract, type FusedText, type Sum } from "./writer.js";

/** A product of fewer inputs or results is unrolled: a loop over its results would be all loads and stores. */
const LEAST = 16;
/** But so many activations in a row take compilers longer than they save. */
const MOST_UNROLLED_RESULTS = 64;
/** A narrow sum grows in a variable for each result and goes through the loops: f, for the states that are fused. */
const MOST_NARROW = 16;
/** Bytes of a uniform block that every device binds. */
const BLOCK_BYTES = 65_536;

/** The weights of one round of a loop, in the order in which its text reads them. */
interface Loop {
  readonly rounds: number;
  readonly counter: string;
  /** A weight by the number of the round. */
  readonly weights: ((round: number) => number)[];
  /** Where the text of each load will stand among the lines. */
  readonly loads: { readonly name: string; readonly line: number }[];
}

/** Results of a product in a loop: names of a round's, and what they are. */
interface Round {
  readonly loop: Loop;
  /** How many results a round computes. */
  readonly results: number;
}

/**
 * Wide products are loops over their results, a few in a round, their inputs unrolled: the text is as long as a row of the
 * matrix, not as the matrix. Weights come from uniform blocks in the order in which a round reads them: each lane of a
 * subgroup loads one vec4 and hands its numbers around. What adds up the results of a loop, or weighs them, does so in the
 * same round; only what is read elsewhere is kept in an array.
 */
export class Rolled extends Unrolled {
  /** Vectors that are arrays; all others are variables of their own for each number. */
  private readonly arrays = new Set<Vector>();
  private readonly blocks: number[][] = [];

  constructor(
    program: FusedProgram,
    points: number,
    private readonly lanes: number,
  ) {
    super(program, points, MOST_NARROW);
  }

  protected override builtins(): string {
    return ", @builtin(subgroup_invocation_id) subgroup_lane: u32";
  }

  protected override weightsBindings(): string[] {
    return this.blocks.map((block, index) => `<uniform> weights_${index}: array<vec4f, ${block.length / 4}>`);
  }

  protected override packed(): FusedText["weights"] {
    return new Map(this.blocks.map((block, index) => [`weights${index}`, new Float32Array(block)]));
  }

  protected override element(vector: Vector, index: number): string {
    return this.arrays.has(vector) ? `${vector.name}[${index}u]` : super.element(vector, index);
  }

  protected override sum(operation: Sum): void {
    const { into, derivative, bias, added, activation, products } = operation;
    if (
      this.narrowSums.has(operation) ||
      !this.isWide(products.map(({ matrix }) => matrix)) ||
      !added.every((elements) => this.isIndexed(elements))
    )
      return super.sum(operation);
    const made = [into, ...(derivative ? [derivative] : [])];
    const sums = [...new Set(made.flatMap((vector) => this.narrow.get(vector) ?? []))];
    const contractions = made.flatMap((vector) => this.weighed.get(vector) ?? []).filter((contraction) => this.isReady(contraction, made));
    const isAddedTo = (sum: Sum): boolean => sum.added.flat().some((element) => made.includes(element as Vector));
    this.keep(made, operation, [
      ...sums.map((sum) => sum.operation).filter((sum) => !isAddedTo(sum)),
      ...contractions.map((contraction) => contraction.operation),
    ]);
    for (const sum of sums) this.beginNarrow(sum);
    for (const contraction of contractions) this.begin(contraction);
    const units = products.map((product) => this.unitsOf(product.x, product.matrix.columns));
    const contracted = contractions.map(({ operation: { product } }) => this.unitsOf(product!.x, product!.matrix.columns));

    const round = this.open(into.width);
    const { loop, results } = round;
    const names = this.results(results, (result) => {
      const parts = added.map((elements) => this.indexed(elements, round, result));
      if (bias || parts.length === 0)
        parts.unshift(`V(${bias ? this.weight(loop, (at) => numberOf(bias, 0, at * results + result)) : "0.0"})`);
      return parts.join(" + ");
    });
    products.forEach(({ matrix, x }, index) => this.multiply(round, matrix, x, units[index]!, names));
    const values = names.map((name) => {
      if (isIdentity(activation) && !derivative) return { value: name, derivative: null };
      const activated = this.activate(activation, name);
      return { value: this.named(activated.value), derivative: derivative && this.named(activated.derivative) };
    });
    const nameOf = (vector: Vector, result: number): string => (vector === into ? values[result]!.value : values[result]!.derivative!);
    for (const sum of sums) this.addRound(sum, made, round, nameOf);
    contractions.forEach((contraction, index) => this.contractRound(contraction, contracted[index]!, made, round, nameOf));
    for (const vector of made)
      if (this.arrays.has(vector))
        for (let result = 0; result < results; result++)
          this.lines.push(`${vector.name}[${this.at(round, result)}] = ${nameOf(vector, result)};`);
    this.close(loop);
    for (const vector of made) this.made.set(vector, vector.width);
  }

  protected override contract(operation: Contract): void {
    const { product, by, width } = operation;
    const contraction = this.contractionOf(operation);
    if (product && contraction.done.size === 0 && this.isWide([product.matrix]) && this.isIndexed(by)) {
      this.begin(contraction);
      const units = this.unitsOf(product.x, product.matrix.columns);
      const round = this.open(width);
      this.contractRound(contraction, units, [], round, () => "");
      this.close(round.loop);
    }
    // Adds what has been summed up; all results are done by now where there was a loop.
    super.contract(operation);
  }

  private isWide(matrices: readonly PlannedMatrix[]): boolean {
    return (
      matrices.length > 0 && matrices.every(({ rows, columns }) => rows >= LEAST && (columns >= LEAST || rows > MOST_UNROLLED_RESULTS))
    );
  }

  /** Whether a loop can read the elements by a number that it counts, `names` being made in its own round. */
  private isIndexed(elements: Elements, names: readonly Vector[] = []): boolean {
    return elements.every((element) => !("name" in element) || this.arrays.has(element) || names.includes(element));
  }

  /** Whether a contraction can be computed in the rounds that make the vectors. */
  private isReady({ operation: { product, by } }: Contraction, made: readonly Vector[]): boolean {
    const inputs = product!.x.filter((element): element is Vector => "name" in element);
    return this.isWide([product!.matrix]) && this.isIndexed(by, made) && inputs.every((input) => this.made.get(input) === input.width);
  }

  /** Declares arrays for the vectors that others than those of the same rounds read. */
  private keep(made: readonly Vector[], maker: Operation, readers: readonly Operation[]): void {
    for (const vector of made)
      if (this.program.operations.some((other) => other !== maker && !readers.includes(other) && vectorsOf(other).read.includes(vector))) {
        this.arrays.add(vector);
        this.lines.push(`var ${vector.name}: array<V, ${vector.width}>;`);
      }
  }

  private begin(contraction: Contraction): void {
    if (!contraction.begun) this.lines.push(`var ${contraction.sum} = V(0.0);`);
    contraction.begun = true;
  }

  /** The factors of a product's inputs that are no constants, by names that stand before the loop. */
  private unitsOf(x: Elements, columns: number): string[] {
    return Array.from({ length: columns }, (_, column) => this.named(this.product({ constant: 1, names: this.factors(x, column).names })));
  }

  private named(expression: string): string {
    if (/^\w+$/.test(expression)) return expression;
    const name = this.fresh("u");
    this.lines.push(`let ${name} = ${expression};`);
    return name;
  }

  private results(count: number, start: (result: number) => string): string[] {
    return Array.from({ length: count }, (_, result) => {
      const started = start(result);
      const name = this.fresh("z");
      this.lines.push(`var ${name} = ${started};`);
      return name;
    });
  }

  /** names += W x for the results of a round. */
  private multiply({ loop, results }: Round, matrix: PlannedMatrix, x: Elements, units: readonly string[], names: readonly string[]): void {
    units.forEach((unit, column) => {
      const { constant } = this.factors(x, column);
      names.forEach((name, result) => {
        const weight = this.weight(loop, (at) => constant * numberOf(matrix, at * results + result, column));
        this.lines.push(`${name} += ${weight} * ${unit};`);
      });
    });
  }

  /** Adds what a round has made to a narrow sum. */
  private addRound(
    { operation, names }: NarrowSum,
    made: readonly Vector[],
    { loop, results }: Round,
    nameOf: (vector: Vector, result: number) => string,
  ): void {
    for (const { matrix, x } of operation.products) {
      const vector = x[0] as Vector;
      if (!made.includes(vector)) continue;
      for (let result = 0; result < results; result++)
        names.forEach((name, row) => {
          const weight = this.weight(loop, (at) => numberOf(matrix, row, at * results + result));
          this.lines.push(`${name} += ${weight} * ${nameOf(vector, result)};`);
        });
    }
  }

  /** Computes the results of a contraction's product and adds them, weighed. */
  private contractRound(
    contraction: Contraction,
    units: readonly string[],
    made: readonly Vector[],
    round: Round,
    nameOf: (vector: Vector, result: number) => string,
  ): void {
    const { product, by, width } = contraction.operation;
    const names = this.results(round.results, () => "V(0.0)");
    this.multiply(round, product!.matrix, product!.x, units, names);
    names.forEach((name, result) => {
      const own = by.filter((element): element is Vector => "name" in element && made.includes(element));
      const others = by.filter((element) => !own.includes(element as Vector));
      const factors = [
        name,
        ...own.map((vector) => nameOf(vector, result)),
        ...(others.length > 0 ? [this.indexed(others, round, result)] : []),
      ];
      this.lines.push(`${contraction.sum} += ${factors.join(" * ")};`);
    });
    for (let result = 0; result < width; result++) contraction.done.add(result);
  }

  /** A product of elements at a result of the round. */
  private indexed(elements: Elements, round: Round, result: number): string {
    const { loop, results } = round;
    const vectors = elements.filter((element): element is Vector => "name" in element);
    const constants = elements.filter((element) => "matrix" in element);
    const factors = vectors.map(({ name }) => `${name}[${this.at(round, result)}]`);
    if (constants.length > 0 || vectors.length === 0) {
      const constant = (at: number): number =>
        constants.reduce((product, { matrix, row }) => product * numberOf(matrix, row, at * results + result), 1);
      factors.push(`V(${this.weight(loop, constant)})`);
    }
    return factors.join(" * ");
  }

  private at({ loop, results }: Round, result: number): string {
    return `${loop.counter} * ${results}u + ${result}u`;
  }

  /** Two results in a round where their number is even: more do not fit the registers of the adapters that gain from it. */
  private open(width: number): Round {
    const results = width % 2 === 0 ? 2 : 1;
    const loop: Loop = { rounds: width / results, counter: this.fresh("round"), weights: [], loads: [] };
    this.lines.push(`for (var ${loop.counter} = 0u; ${loop.counter} < ${loop.rounds}u; ${loop.counter}++) {`);
    return { loop, results };
  }

  /** A weight of the round: a number of a lane that has loaded it. */
  private weight(loop: Loop, weight: (round: number) => number): string {
    const place = loop.weights.length;
    loop.weights.push(weight);
    const perLoad = 4 * this.lanes;
    if (place % perLoad === 0) {
      loop.loads.push({ name: this.fresh("w"), line: this.lines.length });
      this.lines.push("");
    }
    const within = place % perLoad;
    return `subgroupBroadcast(${loop.loads.at(-1)!.name}.${COMPONENTS[within % 4]}, ${Math.floor(within / 4)}u)`;
  }

  /** Ends the loop; only now it is known how its weights lie in the blocks. */
  private close({ rounds, counter, weights, loads }: Loop): void {
    this.lines.push("}");
    const perLoad = 4 * this.lanes;
    for (let first = 0; first < loads.length;) {
      const block = this.blockFor(rounds * perLoad);
      const numbers = this.blocks[block]!;
      const room = Math.floor((BLOCK_BYTES / 4 - numbers.length) / (rounds * perLoad));
      const together = Math.min(room, loads.length - first);
      const begin = numbers.length / 4;
      for (let load = 0; load < together; load++)
        this.lines[loads[first + load]!.line] =
          `let ${loads[first + load]!.name} = weights_${block}[${begin + load * this.lanes}u + ${counter} * ${together * this.lanes}u + lane];`;
      for (let round = 0; round < rounds; round++)
        for (let place = first * perLoad; place < (first + together) * perLoad; place++) numbers.push(weights[place]?.(round) ?? 0);
      first += together;
    }
  }

  /** The block with room for so many numbers more. */
  private blockFor(numbers: number): number {
    const last = this.blocks.at(-1);
    if (!last || 4 * (last.length + numbers) > BLOCK_BYTES) this.blocks.push([]);
    return this.blocks.length - 1;
  }

  override finish(): FusedText {
    this.lines.unshift(`let lane = subgroup_lane % ${this.lanes}u;`);
    return super.finish();
  }
}
