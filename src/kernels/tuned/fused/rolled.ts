import { isIdentity } from "../../../model/activation.js";
import type { PlannedMatrix } from "../../../plan/matrices.js";
import {
  isVector,
  vectorsOf,
  type Constants,
  type Elements,
  type FusedProgram,
  type Statement,
  type Product,
  type Vector,
} from "./statements.js";
import { Unrolled, type Contraction, type NarrowSum } from "./unrolled.js";
import { COMPONENTS, numberOf, type Contract, type FusedText, type Sum } from "./writer.js";

/** A product of fewer inputs or results is unrolled: a loop over its results would be all loads and stores. */
const LEAST = 16;
/** But so many activations in a row take compilers longer than they save. */
const MOST_UNROLLED_RESULTS = 64;
/** Multiply-adds of a round: the code of more would not stay in the instruction cache of a CPU (32 KiB). */
const LONGEST_ROUND = 1300;
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

/** One of the products of a round: W x for what is summed up in it. */
interface RoundProduct {
  readonly of: Sum | Contraction;
  readonly x: Elements;
  readonly columns: number;
  /** Names of the inputs, without their constants where no other product has the matrix. */
  readonly units: string[];
}

/** What is multiplied in the rounds of a loop: products by the same matrix side by side. */
class RoundProducts {
  readonly byMatrix = new Map<PlannedMatrix, RoundProduct[]>();
  /** Names of the sums of a round, by what they belong to. */
  readonly results = new Map<Sum | Contraction, readonly string[]>();

  add({ matrix, x }: Product, of: Sum | Contraction): void {
    const sharing = this.byMatrix.get(matrix) ?? [];
    sharing.push({ of, x, columns: matrix.columns, units: [] });
    this.byMatrix.set(matrix, sharing);
  }
}

/** A round of a loop. */
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
  /** Sums that were computed beside an earlier one. */
  private readonly finished = new Set<Sum>();

  constructor(
    program: FusedProgram,
    points: number,
    private readonly lanes: number,
  ) {
    super(program, points);
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

  /** Each element of an array is read once: a read is longer than a multiply-add. */
  protected override element(vector: Vector, index: number): string {
    return this.arrays.has(vector) ? this.once("e", `${vector.name}[${index}u]`) : super.element(vector, index);
  }

  protected override sum(statement: Sum): void {
    if (this.finished.has(statement)) return;
    if (!this.isRolled(statement)) return super.sum(statement);
    const sums = [statement, ...this.besides(statement)];
    const made = sums.flatMap(({ into, slope }) => (slope ? [into, slope] : [into]));
    const narrow = [...new Set(made.flatMap((vector) => this.narrow.get(vector) ?? []))];
    const contractions = made.flatMap((vector) => this.weighed.get(vector) ?? []).filter((contraction) => this.isReady(contraction, made));
    this.keep(made, sums, narrow, contractions);
    for (const sum of narrow) this.beginNarrow(sum);
    for (const contraction of contractions) this.begin(contraction);

    const products = new RoundProducts();
    for (const sum of sums) for (const product of sum.products) products.add(product, sum);
    for (const contraction of contractions) products.add(contraction.statement.product!, contraction);
    this.prepare(products);
    const round = this.open(statement.into.width, products);
    for (const sum of sums)
      products.results.set(
        sum,
        this.results(round.results, (result) => this.startOf(sum, round, result)),
      );
    for (const contraction of contractions)
      products.results.set(
        contraction,
        this.results(round.results, () => "V(0.0)"),
      );
    this.multiply(round, products);
    const names = new Map<Vector, readonly string[]>();
    for (const sum of sums) this.activateRound(sum, products.results.get(sum)!, names);
    for (const sum of narrow) this.addRound(sum, round, names);
    for (const contraction of contractions) this.weighRound(contraction, products.results.get(contraction)!, round, names);
    for (const vector of made)
      if (this.arrays.has(vector))
        names.get(vector)!.forEach((name, result) => this.lines.push(`${vector.name}[${this.at(round, result)}] = ${name};`));
    this.close(round.loop);
    for (const vector of made) this.made.set(vector, vector.width);
    for (const sum of sums) this.finished.add(sum);
  }

  protected override contract(statement: Contract): void {
    const { product, by, width } = statement;
    const contraction = this.contractionOf(statement);
    if (product && contraction.done.size === 0 && this.isWide([product.matrix]) && this.isIndexed(by)) {
      this.begin(contraction);
      const products = new RoundProducts();
      products.add(product, contraction);
      this.prepare(products);
      const round = this.open(width, products);
      const results = this.results(round.results, () => "V(0.0)");
      products.results.set(contraction, results);
      this.multiply(round, products);
      this.weighRound(contraction, results, round, new Map());
      this.close(round.loop);
    }
    // Adds what has been summed up; all results are done by now where there was a loop.
    super.contract(statement);
  }

  private isRolled(statement: Sum): boolean {
    return (
      !this.narrowSums.has(statement) &&
      this.isWide(statement.products.map(({ matrix }) => matrix)) &&
      statement.added.every((elements) => this.isIndexed(elements))
    );
  }

  /** Later sums by the same matrix whose inputs are there, tangents beside their values: they share each weight. */
  private besides({ products }: Sum): Sum[] {
    const matrices = new Set(products.map(({ matrix }) => matrix));
    const isThere = (elements: Elements): boolean =>
      elements.every((element) => !isVector(element) || this.made.get(element) === element.width);
    return this.program.statements.filter(
      (other): other is Sum =>
        other.kind === "sum" &&
        other.products !== products &&
        !this.finished.has(other) &&
        this.isRolled(other) &&
        other.products.every(({ matrix, x }) => matrices.has(matrix) && isThere(x)) &&
        other.added.every(isThere),
    );
  }

  private isWide(matrices: readonly PlannedMatrix[]): boolean {
    return (
      matrices.length > 0 && matrices.every(({ rows, columns }) => rows >= LEAST && (columns >= LEAST || rows > MOST_UNROLLED_RESULTS))
    );
  }

  /** Whether a loop can read the elements by a number that it counts, `names` being made in its own round. */
  private isIndexed(elements: Elements, names: readonly Vector[] = []): boolean {
    return elements.every((element) => !isVector(element) || this.arrays.has(element) || names.includes(element));
  }

  /** Whether a contraction can be computed in the rounds that make the vectors. */
  private isReady({ statement: { product, by } }: Contraction, made: readonly Vector[]): boolean {
    const inputs = product!.x.filter(isVector);
    return this.isWide([product!.matrix]) && this.isIndexed(by, made) && inputs.every((input) => this.made.get(input) === input.width);
  }

  /** Declares arrays for the vectors that others than those of the same rounds read. */
  private keep(made: readonly Vector[], makers: readonly Sum[], narrow: readonly NarrowSum[], contractions: readonly Contraction[]): void {
    const within = new Set<Statement>([...makers, ...contractions.map(({ statement }) => statement)]);
    for (const { statement } of narrow)
      if (!statement.added.flat().some((element) => made.includes(element as Vector))) within.add(statement);
    for (const vector of made)
      if (this.program.statements.some((other) => !within.has(other) && vectorsOf(other).read.includes(vector))) {
        this.arrays.add(vector);
        this.lines.push(`var ${vector.name}: array<V, ${vector.width}>;`);
      }
  }

  /** Names, before the loop, for what its products multiply: with its constants where several share the weights. */
  private prepare({ byMatrix }: RoundProducts): void {
    for (const sharing of byMatrix.values())
      for (const { x, columns, units } of sharing)
        for (let column = 0; column < columns; column++) {
          const { constant, names } = this.factors(x, column);
          units.push(this.named(this.product({ constant: sharing.length > 1 ? constant : 1, names })));
        }
  }

  private named(expression: string): string {
    if (/^\w+$/.test(expression)) return expression;
    const name = this.fresh("u");
    this.lines.push(`let ${name} = ${expression};`);
    return name;
  }

  /** bias + added of a result of the round. */
  private startOf({ bias, added }: Sum, round: Round, result: number): string {
    const parts = added.map((elements) => this.indexed(elements, round, result));
    if (bias) parts.unshift(`V(${this.weight(round.loop, (at) => numberOf(bias, 0, at * round.results + result))})`);
    return parts.join(" + ") || "V(0.0)";
  }

  /** Adds W x to the results of a round. */
  private multiply({ loop, results }: Round, products: RoundProducts): void {
    for (const [matrix, sharing] of products.byMatrix)
      for (let column = 0; column < matrix.columns; column++)
        for (let result = 0; result < results; result++) {
          const constant = sharing.length > 1 ? 1 : this.factors(sharing[0]!.x, column).constant;
          const weight = this.weight(loop, (at) => constant * numberOf(matrix, at * results + result, column));
          const name = sharing.length > 1 ? this.named(weight) : weight;
          for (const { of, units } of sharing) this.lines.push(`${products.results.get(of)![result]} += ${name} * ${units[column]};`);
        }
  }

  private activateRound({ into, slope, activation }: Sum, sums: readonly string[], names: Map<Vector, readonly string[]>): void {
    if (isIdentity(activation) && !slope) return void names.set(into, sums);
    const activated = sums.map((sum) => this.activate(activation, sum));
    names.set(
      into,
      activated.map(({ value }) => this.named(value)),
    );
    if (slope)
      names.set(
        slope,
        activated.map((both) => this.named(both.slope)),
      );
  }

  /** Adds what a round has made to a narrow sum. */
  private addRound({ statement, names }: NarrowSum, { loop, results }: Round, made: ReadonlyMap<Vector, readonly string[]>): void {
    for (const { matrix, x } of statement.products)
      made.get(x[0] as Vector)?.forEach((element, result) =>
        names.forEach((name, row) => {
          const weight = this.weight(loop, (at) => numberOf(matrix, row, at * results + result));
          this.lines.push(`${name} += ${weight} * ${element};`);
        }),
      );
  }

  /** Adds the results of a contraction's product, weighed. */
  private weighRound(contraction: Contraction, sums: readonly string[], round: Round, made: ReadonlyMap<Vector, readonly string[]>): void {
    const { by, width } = contraction.statement;
    const own = by.filter((element): element is Vector => made.has(element as Vector));
    const others = by.filter((element) => !own.includes(element as Vector));
    sums.forEach((sum, result) => {
      const factors = [sum, ...own.map((vector) => made.get(vector)![result]!)];
      if (others.length > 0) factors.push(this.indexed(others, round, result));
      this.lines.push(`${contraction.sum} += ${factors.join(" * ")};`);
    });
    for (let result = 0; result < width; result++) contraction.done.add(result);
  }

  /** A product of elements at a result of the round. */
  private indexed(elements: Elements, round: Round, result: number): string {
    const { loop, results } = round;
    const vectors = elements.filter(isVector);
    const constants = elements.filter((element): element is Constants => !isVector(element));
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

  /** Two results in a round where their number is even and the round does not get too long. */
  private open(width: number, { byMatrix }: RoundProducts): Round {
    const perResult = [...byMatrix].reduce((sum, [{ columns }, sharing]) => sum + columns * sharing.length, 0);
    const results = width % 2 === 0 && 2 * perResult * this.points <= LONGEST_ROUND ? 2 : 1;
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
