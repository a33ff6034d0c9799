/** Expressions in a point's coordinates and the time, and the network that computes them. */
import { evaluateReference, mlp, type ActivationOperation, type Network, type Operand, type Operation } from "deldot";

/** Operations that wait for one another. A network takes 1000, and each of these may need a sum before it. */
const MOST_LEVELS = 300;

/** Why a text is no formula, in words for whoever typed it. */
export class FormulaError extends Error {
  override name = "FormulaError";

  /** @param index where in the text, in UTF-16 units. */
  constructor(
    message: string,
    readonly index: number,
  ) {
    super(message);
  }
}

/** A number at each point: a coordinate or the time at level 0, else what an activation, or a product of two, makes of others. */
interface Quantity {
  readonly id: number;
  /** null where it is a product. */
  readonly activation: string | null;
  readonly operands: readonly Expression[];
  readonly level: number;
}

/** constant + Σ factor · quantity, a row of a linear operation; no factor is 0. */
export interface Expression {
  readonly constant: number;
  readonly factors: ReadonlyMap<Quantity, number>;
}

export function constant(value: number): Expression {
  return { constant: value, factors: new Map() };
}

/** a + times b */
export function add(a: Expression, b: Expression, times = 1): Expression {
  const factors = new Map(a.factors);
  for (const [quantity, factor] of b.factors) {
    const sum = (factors.get(quantity) ?? 0) + times * factor;
    if (sum === 0) factors.delete(quantity);
    else factors.set(quantity, sum);
  }
  return { constant: a.constant + times * b.constant, factors };
}

export function scale(a: Expression, by: number): Expression {
  return add(constant(0), a, by);
}

function isConstant({ factors }: Expression): boolean {
  return factors.size === 0;
}

function once(quantity: Quantity): Expression {
  return { constant: 0, factors: new Map([[quantity, 1]]) };
}

/** A multiple of one quantity as both; otherwise null. */
function multipleOf({ constant, factors }: Expression): readonly [quantity: Quantity, factor: number] | null {
  const [only] = factors;
  return constant === 0 && factors.size === 1 ? only! : null;
}

function keyOf({ constant, factors }: Expression): string {
  return [constant, ...Array.from(factors, ([{ id }, factor]) => `${factor}*${id}`).sort()].join("+");
}

/** One activation of one number. */
function activated(activation: string): Network {
  return mlp({ layers: [{ weight: [[1]] }], activation: [activation] });
}

/** Makes expressions of expressions: constants of constants, and each quantity once, however often it is asked for. */
export class Expressions {
  /** Where in the text an error would be. */
  at = 0;
  readonly coordinates: readonly Expression[];
  private readonly quantities = new Map<string, Quantity>();
  private hasTime = false;

  constructor(private readonly stateSize: number) {
    this.coordinates = Array.from({ length: stateSize }, (_, i) => this.quantity(`coordinate ${i}`, []));
  }

  time(): Expression {
    this.hasTime = true;
    return this.quantity("time", []);
  }

  /** By the name of an activation of deldot's. */
  apply(activation: string, z: Expression): Expression {
    if (!isConstant(z)) return this.quantity(activation, [z]);
    return this.folded(evaluateReference(activated(activation), [z.constant]).value![0]!, `${activation}(${z.constant})`);
  }

  product(a: Expression, b: Expression): Expression {
    if (isConstant(a)) return scale(b, a.constant);
    if (isConstant(b)) return scale(a, b.constant);
    // Multiples make use of one product, x*(-y) of that of x*y.
    const [[p, times], [q, by]] = [multipleOf(a) ?? [null, 1], multipleOf(b) ?? [null, 1]];
    const [u, v] = [p ? once(p) : a, q ? once(q) : b];
    return scale(keyOf(u) === keyOf(v) ? this.apply("square", u) : this.quantity(null, [u, v]), times * by);
  }

  quotient(a: Expression, b: Expression): Expression {
    if (!isConstant(b)) return this.product(a, this.apply("reciprocal", b));
    if (b.constant === 0) throw new FormulaError("this divides by 0", this.at);
    const factors = Array.from(a.factors, ([quantity, factor]) => [quantity, factor / b.constant] as const);
    return { constant: a.constant / b.constant, factors: new Map(factors) };
  }

  power(a: Expression, b: Expression): Expression {
    const exponent = b.constant;
    if (isConstant(a) && isConstant(b)) return this.folded(a.constant ** exponent, `${a.constant}^${exponent}`);
    if (isConstant(a) && a.constant > 0) return this.apply("exp", scale(b, Math.log(a.constant)));
    if (!isConstant(b))
      throw new FormulaError("an exponent that varies stands on a positive number alone; write exp(y*log(x)) for x^y", this.at);
    if (exponent === 0) return constant(1);
    if (Math.abs(exponent) > 64 || Math.abs(exponent) < 1e-3)
      throw new FormulaError(`the exponent is ${exponent}; its size may be from 0.001 to 64`, this.at);
    // In this order a large x leaves x^-8 small, and not undefined.
    if (exponent < 0) return this.power(this.apply("reciprocal", a), constant(-exponent));
    if (exponent === 1) return a;
    if (exponent === 2) return this.product(a, a);
    return this.apply(exponent === 0.5 ? "sqrt" : `power(${exponent})`, a);
  }

  /** The larger of two; where they are equal, half of both. */
  larger(a: Expression, b: Expression): Expression {
    if (isConstant(b)) return this.apply(`clip(${b.constant})`, a);
    if (isConstant(a)) return this.larger(b, a);
    // 1 for a and 0 for b: unlike in b + relu(a - b), a small one beside a large one loses no digits.
    const share = add(constant(0.5), this.apply("sign", add(a, b, -1)), 0.5);
    return add(this.product(a, share), this.product(b, add(constant(1), share, -1)));
  }

  private folded(value: number, text: string): Expression {
    if (!Number.isFinite(value)) throw new FormulaError(`${text} is no finite number`, this.at);
    return constant(value);
  }

  private quantity(activation: string | null, operands: readonly Expression[]): Expression {
    const key = [activation, ...operands.map(keyOf).sort()].join(" ");
    let quantity = this.quantities.get(key);
    if (!quantity) {
      const level = Math.max(0, ...operands.flatMap(({ factors }) => Array.from(factors.keys(), (read) => read.level + 1)));
      if (level > MOST_LEVELS) throw new FormulaError("the formula is nested too deeply", this.at);
      quantity = { id: this.quantities.size, activation, operands, level };
      this.quantities.set(key, quantity);
    }
    return once(quantity);
  }

  /** The field of these components. What has the same level and activation is one operation on a vector, its operands one sum. */
  network(components: readonly Expression[]): Network {
    const operations: Operation[] = [];
    const places = new Map<Quantity, { readonly operand: Operand; readonly column: number }>();
    const widths = new Map<Operand, number>();
    const place = (operand: Operand, quantities: readonly Quantity[]): void => {
      widths.set(operand, quantities.length);
      quantities.forEach((quantity, column) => places.set(quantity, { operand, column }));
    };
    const sum = (rows: readonly Expression[]): number => {
      const parts = new Map<Operand, Float64Array>();
      for (const [row, { factors }] of rows.entries())
        for (const [quantity, factor] of factors) {
          const { operand, column } = places.get(quantity)!;
          const columns = widths.get(operand)!;
          if (!parts.has(operand)) parts.set(operand, new Float64Array(rows.length * columns));
          parts.get(operand)![row * columns + column] = factor;
        }
      const weights = Array.from(
        parts,
        ([operand, data]) => [operand, { rows: rows.length, columns: data.length / rows.length, data }] as const,
      );
      const terms = weights.map(([operand, weight]) => ({ operand, weight }));
      const bias = Float64Array.from(rows, (row) => row.constant);
      return operations.push({ kind: "linear", terms, bias: terms.length > 0 && bias.every((value) => value === 0) ? null : bias }) - 1;
    };
    /** What is there already, or a sum. */
    const vector = (rows: readonly Expression[]): Operand => {
      const found = rows.map((row) => multipleOf(row)).map((multiple) => (multiple?.[1] === 1 ? places.get(multiple[0])! : null));
      const operand = found[0]?.operand ?? "state";
      const isThere = rows.length === widths.get(operand) && found.every((each, row) => each?.operand === operand && each.column === row);
      return isThere ? operand : sum(rows);
    };

    const used = new Set<Quantity>();
    const use = ({ factors }: Expression): void => {
      for (const quantity of factors.keys()) {
        if (used.has(quantity)) continue;
        used.add(quantity);
        quantity.operands.forEach(use);
      }
    };
    components.forEach(use);
    place(
      "state",
      this.coordinates.map((each) => multipleOf(each)![0]),
    );
    if (this.hasTime) place("context", [multipleOf(this.time())![0]]);
    const groups = new Map<string, Quantity[]>();
    for (const quantity of [...used].filter(({ level }) => level > 0).sort((a, b) => a.level - b.level || a.id - b.id)) {
      const key = `${quantity.level} ${quantity.activation}`;
      groups.set(key, [...(groups.get(key) ?? []), quantity]);
    }
    for (const group of groups.values()) {
      const { activation, operands } = group[0]!;
      const [z, by] = operands.map((_, index) => vector(group.map((quantity) => quantity.operands[index]!)));
      if (activation === null) operations.push({ kind: "product", operands: [z!, by!] });
      else operations.push({ ...(activated(activation).operations.at(-1) as ActivationOperation), operand: z! });
      place(operations.length - 1, group);
    }
    sum(components);
    return { stateSize: this.stateSize, contextSize: this.hasTime ? 1 : 0, operations };
  }
}
