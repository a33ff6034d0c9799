import { ModelError, quote } from "../errors.js";
import {
  isIdentityWeight,
  operandsOf,
  widthOf,
  type LinearOperation,
  type Matrix,
  type Network,
  type NormOperation,
  type Numbers,
  type Operand,
  type Operation,
  type Place,
  type Tensor,
  type Weight,
} from "./network.js";
import { numbersOf, rowStrideOf, tensorsOf } from "./parameters.js";
import { Formulas, slopeOperation } from "./slopes.js";

/** A part of one of the potential's linear operations. */
type Part = Pick<Place, "operation" | "part">;

/** A part of ∂φ/∂(a value): weight · operand, or numbers that are the same at every point; and whose numbers they are, null for none's. */
type Share =
  | { readonly operand: Operand; readonly weight: Weight; readonly origin: Part | null }
  | { readonly numbers: Numbers; readonly origin: Part | null };

/**
 * The gradient f = ∇φ of a potential φ: R^d x R^c -> R by the state, as a field with the same state and context: its divergence is the
 * Laplacian Δφ, its Jacobian the Hessian of φ, and every method, engine, gradient, flow and export works on it as on any other. Reverse
 * mode (Griewank and Walther, Evaluating Derivatives, 2008, chapter 3) written out as operations of a network: f takes about twice the
 * multiply-adds of φ, and shares its parameters, names and all, so that what trains f trains φ.
 *
 * φ comes from `mlp`, `parseSafetensors` or `parseOnnx` with `potential: true`. What consists of straight pieces, relu and the like, has
 * steps for slopes, whose own slopes are 0: the Laplacian of a potential through relu alone is 0, as it is almost everywhere, without
 * what its kinks would add.
 *
 * @throws ModelError where the network gives anything but one number, or a slope is out of reach: of power, where the exponent less 1 is
 * none.
 */
export function gradientField(potential: Network): Network {
  const tensors = tensorsOf(potential);
  const width = potential.operations.length > 0 ? widthOf(potential, potential.operations.length - 1) : 0;
  if (width !== 1) throw new ModelError(`the network gives ${quote(width)} numbers; expected a potential, which gives one`);
  return new Reverse(potential, tensors).field();
}

/** Writes ∂φ/∂ each value that moves with the state, from the last one back. */
class Reverse {
  private readonly formulas: Formulas;
  private readonly tensors: readonly (Tensor & { readonly places: Place[] })[];
  private readonly shares = new Map<Operand, Share[]>([["state", []]]);
  private readonly moving = new Set<Operand>(["state"]);

  constructor(
    private readonly potential: Network,
    tensors: readonly Tensor[],
  ) {
    this.formulas = new Formulas(potential, [...potential.operations]);
    this.tensors = tensors.map((tensor) => ({ ...tensor, places: [...tensor.places] }));
    potential.operations.forEach((operation, index) => {
      if (operandsOf(operation).some((operand) => this.moving.has(operand))) this.moving.add(index);
    });
  }

  field(): Network {
    const { potential, formulas, tensors } = this;
    const { operations, stateSize, notes = [] } = potential;
    this.share(operations.length - 1, { numbers: Float64Array.of(1), origin: null });
    for (let index = operations.length - 1; index >= 0; index--) {
      const shares = this.shares.get(index);
      if (shares) this.pass(operations[index]!, index, shares);
    }
    this.sum(this.shares.get("state")!, stateSize);
    return { ...potential, operations: formulas.operations, tensors, notes: [...notes, NOTE] };
  }

  /** What an operation's result has, handed on to what it reads. */
  private pass(operation: Operation, index: number, shares: readonly Share[]): void {
    switch (operation.kind) {
      case "linear":
        return this.passLinear(operation, index, shares);
      case "activation": {
        const slope = slopeOperation(this.formulas, operation.activation, operation.operand);
        if (slope === "zero") return;
        for (const share of slope === "one" ? shares : [this.times(shares, slope)]) this.share(operation.operand, share);
        return;
      }
      case "product": {
        const [a, b] = operation.operands;
        if (this.moving.has(a)) this.share(a, this.times(shares, b));
        if (this.moving.has(b)) this.share(b, this.times(shares, a));
        return;
      }
      case "norm":
        return this.share(operation.operand, {
          operand: this.throughNorm(operation, index, this.operandOf(shares, index)),
          weight: ones(this.formulas.widthOf(index)),
          origin: null,
        });
    }
  }

  /** Wᵀ g of each term; of the last layer, whose g is 1, its one row. */
  private passLinear(operation: LinearOperation, index: number, shares: readonly Share[]): void {
    const [only] = shares;
    const isLast = shares.length === 1 && "numbers" in only! && only.origin === null;
    const given = isLast ? null : this.operandOf(shares, index);
    operation.terms.forEach(({ operand, weight }, part) => {
      const origin = { operation: index, part };
      if (given === null) this.share(operand, { numbers: numbersOf(operation, part).numbers, origin });
      else this.share(operand, { operand: given, weight: transposed(weight), origin });
    });
  }

  /** r (g - mean g - y mean(y ∘ g)) of y = r (x - μ), without the first mean where μ is 0. */
  private throughNorm({ operand: x, centered, epsilon }: NormOperation, y: number, g: Operand): number {
    const { formulas } = this;
    const width = formulas.widthOf(x);
    const fill = (rows: number, columns: number, value: number): Matrix => ({ rows, columns, data: new Float64Array(width).fill(value) });
    const linear = (...terms: LinearOperation["terms"]): number => formulas.push({ kind: "linear", terms, bias: null, isFixed: true });
    const mean = (operand: Operand): number => linear({ operand, weight: fill(1, width, 1 / width) });
    const own = (operand: Operand): LinearOperation["terms"][number] => ({ operand, weight: ones(width) });
    /** Less one number in every place. */
    const less = (operand: Operand): LinearOperation["terms"][number] => ({ operand, weight: fill(width, 1, -1) });
    const centred = centered ? linear(own(x), less(mean(x))) : x;
    const variance = formulas.affine(mean(formulas.call("square", centred)), 1, epsilon);
    const r = linear({ operand: formulas.call("reciprocal", formulas.call("sqrt", variance)), weight: fill(width, 1, 1) });
    const along = formulas.product(y, linear(less(mean(formulas.product(y, g)))));
    return formulas.product(r, linear(own(g), ...(centered ? [less(mean(g))] : []), own(along)));
  }

  private share(operand: Operand, share: Share): void {
    if (!this.moving.has(operand)) return;
    const before = this.shares.get(operand);
    if (before) before.push(share);
    else this.shares.set(operand, [share]);
  }

  /** g ∘ factor, g being the sum of shares: numbers are weights. */
  private times(shares: readonly Share[], factor: Operand): Share {
    const { formulas } = this;
    const [only] = shares;
    const width = formulas.widthOf(factor);
    if (shares.length === 1 && "numbers" in only!) return { operand: factor, weight: { diagonal: only.numbers }, origin: only.origin };
    return { operand: formulas.product(this.sumOf(shares, width), factor), weight: ones(width), origin: null };
  }

  private operandOf(shares: readonly Share[], index: number): Operand {
    return this.sumOf(shares, this.formulas.widthOf(index));
  }

  private sumOf(shares: readonly Share[], width: number): Operand {
    const [only] = shares;
    const isOperand = shares.length === 1 && "weight" in only! && isIdentityWeight(only.weight) && !this.isNamed(only.origin);
    return isOperand ? only.operand : this.sum(shares, width);
  }

  /** The sum of shares, an operation of its own. */
  private sum(shares: readonly Share[], width: number): number {
    const { formulas } = this;
    // The formula's constants have an operation of their own, which is fixed: beside what is named they would be taken for parameters.
    const constants = shares.filter((share) => !this.isNamed(share.origin) && !("weight" in share && isIdentityWeight(share.weight)));
    if (constants.length > 0 && shares.some(({ origin }) => this.isNamed(origin))) {
      const rest = shares.filter((share) => !constants.includes(share));
      return this.sum([...rest, { operand: this.sum(constants, width), weight: ones(width), origin: null }], width);
    }
    const [bias, ...others] = shares.filter((share) => "numbers" in share);
    const products = shares.filter((share) => "weight" in share);
    for (const other of others) products.push({ operand: this.sum([other], width), weight: ones(width), origin: null });
    const operation = formulas.push({
      kind: "linear",
      terms: products.map(({ operand, weight }) => ({ operand, weight })),
      bias: bias?.numbers ?? (products.length === 0 ? new Float64Array(width) : null),
      isFixed: !shares.some(({ origin }) => this.isNamed(origin)),
    });
    products.forEach(({ origin, weight }, part) => this.place(origin, { operation, part }, !("diagonal" in weight)));
    if (bias) this.place(bias.origin, { operation, part: "bias" }, false);
    return operation;
  }

  private isNamed(origin: Part | null): boolean {
    return origin !== null && this.tensors.some(({ places }) => places.some((place) => isSame(place, origin)));
  }

  /** The numbers of a part are those of another too: of a matrix transposed, or of its one row, or of a list as it is. */
  private place(origin: Part | null, to: Part, isMatrix: boolean): void {
    if (!origin) return;
    const { columns } = numbersOf(this.potential.operations[origin.operation] as LinearOperation, origin.part);
    for (const { places } of this.tensors)
      for (const place of places.filter((each) => isSame(each, origin))) {
        const rowStride = rowStrideOf(place, columns);
        const { columnStride } = place;
        const asList = { rowStride: 0, columnStride: columns === 1 ? rowStride : columnStride };
        places.push({ ...place, ...to, ...(isMatrix ? { rowStride: columnStride, columnStride: rowStride } : asList) });
      }
  }
}

const NOTE = "the field is the gradient of a potential, its divergence the Laplacian";

function isSame(a: Part, b: Part): boolean {
  return a.operation === b.operation && a.part === b.part;
}

function ones(width: number): Weight {
  return { diagonal: new Float64Array(width).fill(1) };
}

function transposed(weight: Weight): Weight {
  if ("diagonal" in weight) return weight;
  if ("block" in weight) return { ...weight, block: transposedMatrix(weight.block) };
  return transposedMatrix(weight);
}

function transposedMatrix({ rows, columns, data }: Matrix): Matrix {
  const turned = new (data.constructor as Float64ArrayConstructor)(data.length);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) turned[column * rows + row] = data[row * columns + column]!;
  return { rows: columns, columns: rows, data: turned };
}
