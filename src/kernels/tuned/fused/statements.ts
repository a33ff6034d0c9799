import type { Activation } from "../../../model/activation.js";
import type { PlannedMatrix } from "../../../plan/matrices.js";
import type { FusedOutput } from "../../../schedule/steps.js";

/** Numbers of one point that live in a kernel, one after another. */
export interface Vector {
  readonly name: string;
  readonly width: number;
}

/** A row of constants. */
export interface Constants {
  readonly matrix: PlannedMatrix;
  readonly row: number;
}

/** A product of vectors and constant rows, element by element; ones where there is no factor. */
export type Elements = readonly (Vector | Constants)[];

export function isVector(element: Vector | Constants): element is Vector {
  return "name" in element;
}

/** What a fused kernel does for a point, in order: the plan's instructions, those of tangents once for each tangent. */
export type Statement =
  /** The numbers of a row. */
  | { readonly kind: "load"; readonly from: "points" | "context"; readonly into: Vector }
  /** into_o = σ(bias_o + Σ added_o + Σ_j W[o,j] x_j), and σ' beside it where `slope` is given. */
  | {
      readonly kind: "sum";
      readonly into: Vector;
      readonly bias: PlannedMatrix | null;
      readonly added: readonly Elements[];
      readonly products: readonly Product[];
      readonly activation: Activation;
      readonly slope: Vector | null;
    }
  /** into = r (x - mean x), r = 1/√(mean((x - mean x)²) + ε); without the mean where it is not centered. */
  | {
      readonly kind: "norm";
      readonly into: Vector;
      readonly inverseDeviation: Vector;
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
      readonly inverseDeviation: Vector;
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

/** A plan as one sequence of statements for a point. */
export interface FusedProgram {
  readonly statements: readonly Statement[];
  /** The terms of the trace; width 0 where there are none. */
  readonly terms: Vector;
  readonly outputs: readonly FusedOutput[];
  readonly multiplyAdds: number;
}
