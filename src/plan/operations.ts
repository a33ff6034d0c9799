import { isIdentity, type Activation } from "../model/activation.js";
import type { PlannedMatrix } from "./matrices.js";

/** Numbers of one point that live in a kernel, one after another. */
export interface Vector {
  readonly name: string;
  readonly width: number;
}

/** A product of vectors and constant rows, element by element; ones where there is no factor. */
export type Elements = readonly (Vector | { readonly matrix: PlannedMatrix; readonly row: number })[];

/** What a fused kernel does for a point, in order. */
export type Operation =
  /** The numbers of a row. */
  | { readonly kind: "load"; readonly from: "points" | "context"; readonly into: Vector }
  /** into_o = σ(bias_o + Σ added_o + Σ_j W[o,j] x_j), and σ' beside it where `derivative` is given. */
  | {
      readonly kind: "sum";
      readonly into: Vector;
      readonly bias: PlannedMatrix | null;
      readonly added: readonly Elements[];
      readonly products: readonly Product[];
      readonly activation: Activation;
      readonly derivative: Vector | null;
    }
  /** into = r (x - mean x), r = 1/√(mean((x - mean x)²) + ε); without the mean where it is not centered. */
  | {
      readonly kind: "norm";
      readonly into: Vector;
      readonly deviation: Vector;
      readonly x: Vector;
      readonly centered: boolean;
      readonly epsilon: number;
    }
  /** into = r (t - mean t - y mean(y ∘ t)). */
  | {
      readonly kind: "norm tangent";
      readonly into: Vector;
      readonly tangent: Elements;
      readonly value: Vector;
      readonly deviation: Vector;
      readonly centered: boolean;
    }
  /** terms[term] += factor[term] Σ_o by_o y_o, with y = W x, or x itself where there is no product. */
  | {
      readonly kind: "contract";
      readonly term: number;
      readonly width: number;
      readonly factor: Elements;
      readonly by: Elements;
      readonly product: Product | null;
      readonly x: Elements;
    }
  /** A vector into a row; of divergence the sum of its numbers. */
  | { readonly kind: "store"; readonly what: FusedOutput; readonly from: Vector };

export interface Product {
  readonly matrix: PlannedMatrix;
  readonly x: Elements;
}

/** f(x) [d]; Σ terms; the terms [K] themselves. */
export type FusedOutput = "value" | "divergence" | "diagonal";

/** A plan as one sequence of operations for a point. */
export interface FusedProgram {
  readonly stateSize: number;
  readonly contextSize: number;
  readonly operations: readonly Operation[];
  /** The terms of the trace; width 0 where there are none. */
  readonly terms: Vector;
  readonly outputs: readonly FusedOutput[];
  readonly multiplyAdds: number;
}

/** What an operation reads and what it makes, the terms apart. */
export function vectorsOf(operation: Operation): { read: Vector[]; made: Vector[] } {
  const inElements = (...lists: Elements[]): Vector[] => lists.flat().filter((element): element is Vector => "name" in element);
  switch (operation.kind) {
    case "load":
      return { read: [], made: [operation.into] };
    case "sum": {
      const { into, derivative, added, products } = operation;
      return { read: inElements(...added, ...products.map(({ x }) => x)), made: derivative ? [into, derivative] : [into] };
    }
    case "norm":
      return { read: [operation.x], made: [operation.into, operation.deviation] };
    case "norm tangent":
      return { read: [...inElements(operation.tangent), operation.value, operation.deviation], made: [operation.into] };
    case "contract":
      return { read: inElements(operation.by, operation.factor, operation.x, operation.product?.x ?? []), made: [] };
    case "store":
      return { read: [operation.from], made: [] };
  }
}

export function multiplyAddsOf(operation: Operation): number {
  switch (operation.kind) {
    case "sum": {
      const inner = operation.products.reduce((sum, { matrix }) => sum + matrix.columns, 0);
      return operation.into.width * (inner + operation.added.filter(({ length }) => length > 1).length);
    }
    case "contract":
      return operation.width * ((operation.product?.matrix.columns ?? 0) + (operation.by.length > 0 ? 1 : 0));
    case "norm":
    case "norm tangent":
      return 4 * operation.into.width;
    default:
      return 0;
  }
}

/** An unrolled activation is about as long as this many multiply-adds. */
export const ACTIVATION_SIZE = 30;

/** How long the unrolled operations of a program are, in multiply-adds. */
export function unrolledSize({ operations, multiplyAdds }: FusedProgram): number {
  const activated = (operation: Operation): number =>
    operation.kind === "sum" && !isIdentity(operation.activation) ? operation.into.width : 0;
  return multiplyAdds + ACTIVATION_SIZE * operations.reduce((sum, operation) => sum + activated(operation), 0);
}
