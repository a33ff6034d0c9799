import type { Activation } from "../model/activation.js";
import { sourcesOf, type Graph, type Node, type Term } from "./graph.js";
import { sizeOf, type PlannedMatrix } from "./matrices.js";

/** A vector of the forward pass, or a constant one [1, width], that scales tangents element by element. */
export type Factor =
  /** σ'(z) of a node. */
  | { readonly kind: "slope"; readonly node: number }
  | { readonly kind: "value"; readonly node: number }
  /** σ''(z) of a node. */
  | { readonly kind: "curvature"; readonly node: number }
  | { readonly kind: "constant"; readonly row: PlannedMatrix };

/** The product of its factors; 1 where there are none. */
export type Scale = readonly Factor[];

/**
 * Where the tangents of a pass lie: K rows that all points share, the probes, the given tangents, or a register; or one row for a
 * point: the value of a node, or ∂L/∂f.
 */
export type Rows =
  | { readonly kind: "matrix"; readonly matrix: PlannedMatrix }
  | { readonly kind: "probes"; readonly shared: boolean }
  | { readonly kind: "given" }
  | { readonly kind: "register"; readonly register: Register }
  | { readonly kind: "value"; readonly node: number }
  | { readonly kind: "value cotangent" };

/**
 * Tangents of one node, or their adjoints: [points, K, width], or [K, width] where all points share them; or one row for a point,
 * [points, width] or [width].
 */
export interface Register {
  readonly index: number;
  readonly width: number;
  readonly shared: boolean;
  readonly per: "tangent" | "point";
}

/** What a tangent is multiplied with as a whole: ∂L/∂(∇·f) of its point times a share, or its own number out of a register [points, K]. */
export type Weighting =
  | { readonly kind: "divergence cotangent"; readonly share: number }
  | { readonly kind: "register"; readonly register: Register };

/** scale ∘ rows. */
export interface Tangents {
  readonly rows: Rows;
  readonly scale: Scale;
}

/** Where a result goes: a register, the Jacobian, or the tangent that jvp gives back. */
export type Target =
  | { readonly kind: "register"; readonly register: Register }
  | { readonly kind: "jacobian" | "tangent"; readonly width: number };

/** What is done once for a point: the value of one node, out of those before it. */
export type ForwardInstruction =
  /** value = a row of the caller's. */
  | { readonly kind: "load"; readonly node: Node; readonly from: "points" | "context" }
  /** value = σ(Σ terms + bias), and σ' beside it where its slope is kept. */
  | {
      readonly kind: "sum";
      readonly node: Node;
      readonly terms: readonly Term[];
      readonly bias: PlannedMatrix | null;
      readonly activation: Activation | null;
      readonly keepsSlope: boolean;
      /** Whether σ'' is kept beside it too. */
      readonly keepsCurvature?: boolean;
    }
  /** value = r (x - mean x) with r = 1/√(mean((x - mean x)²) + ε), the inverse deviation, kept; no mean where it is not centered. */
  | { readonly kind: "norm"; readonly node: Node; readonly source: number; readonly centered: boolean; readonly epsilon: number };

/** What is done for every tangent of a point. */
export type TangentInstruction =
  /** into (+)= endScale ∘ W (scale ∘ rows) */
  | {
      readonly kind: "carry";
      readonly matrix: PlannedMatrix;
      readonly from: Tangents;
      readonly into: Target;
      readonly endScale: Scale;
      readonly adds: boolean;
    }
  /** into (+)= weighting endScale ∘ scale ∘ rows */
  | {
      readonly kind: "blend";
      readonly from: Tangents;
      readonly into: Target;
      readonly endScale: Scale;
      readonly adds: boolean;
      readonly weighting?: Weighting;
    }
  /** into = r (t - mean t - y mean(y ∘ t)), with y the value of a norm's node and r its inverse deviation; no mean t where it is not centered */
  | { readonly kind: "norm tangent"; readonly node: number; readonly centered: boolean; readonly from: Tangents; readonly into: Target }
  /** terms_k (+)= endScale_k Σ_i rows[k,i] scale_i (W (from))[i], the product left out where `matrix` is null */
  | {
      readonly kind: "contract";
      readonly matrix: PlannedMatrix | null;
      readonly from: Tangents;
      readonly rows: Rows;
      readonly width: number;
      readonly scale: Scale;
      readonly endScale: Scale;
      readonly adds: boolean;
      /** In the first pass only, as one column: a part of the trace that no tangent carries. */
      readonly once: boolean;
      /** Where the terms go in the place of the trace's own: a register [points, K], each times ∂L/∂(∇·f). */
      readonly into?: Register;
    };

/** What only gradients need, beside carries and blends by transposed matrices. */
export type AdjointInstruction =
  | TangentInstruction
  /** into (+)= endScale ∘ Σ_k weighting_k rows_k ∘ by_k */
  | {
      readonly kind: "fold";
      readonly rows: Rows;
      readonly by: Rows;
      readonly into: Register;
      readonly endScale: Scale;
      readonly adds: boolean;
      readonly weighting: Weighting | null;
    }
  /** sum += Σ left ⊗ (scale ∘ rows), over tangents and points; of a block-diagonal matrix the blocks alone */
  | {
      readonly kind: "outer";
      readonly matrix: PlannedMatrix;
      readonly sum: OuterSum;
      readonly left: Rows;
      readonly right: Tangents;
    }
  /** sum += Σ register over points, for each tangent */
  | { readonly kind: "row sum"; readonly sum: OuterSum; readonly register: Register }
  /** into = Σ register over points, one row for all */
  | { readonly kind: "point sum"; readonly register: Register; readonly into: Register }
  /**
   * What a norm's tangents y'_k = r (t_k - mean t_k - y mean(y ∘ t_k)) with the adjoints g_k give its value y and its inverse
   * deviation r: into (+)= -r Σ_k (mean(y ∘ t_k) g_k + mean(y ∘ g_k) t_k), and deviation (+)= -(r/n) Σ_k g_k · y'_k, a number that
   * times y is what the source takes by way of r, since ∂r/∂x = -r² y / n.
   */
  | {
      readonly kind: "norm fold";
      readonly node: number;
      readonly from: Tangents;
      readonly tangents: Rows;
      readonly adjoints: Rows;
      readonly into: Register;
      readonly deviation: Register;
      readonly adds: boolean;
      readonly addsDeviation: boolean;
    };

/** A sum over points, [rows, columns]: the gradient of a planned matrix. */
export interface OuterSum {
  readonly index: number;
  readonly matrix: PlannedMatrix;
  /** Floats of each of its rows as it is summed up, in whole vec4s. */
  readonly columns: number;
}

/** One step of a plan. Instructions stand in the order in which they are carried out, all forward ones first. */
export type Instruction = ForwardInstruction | TangentInstruction;

export function isForward(instruction: Instruction): instruction is ForwardInstruction {
  return instruction.kind === "load" || instruction.kind === "sum" || instruction.kind === "norm";
}

export function forwardOf(instructions: readonly Instruction[]): ForwardInstruction[] {
  return instructions.filter(isForward);
}

export function tangentsOf(instructions: readonly Instruction[]): TangentInstruction[] {
  return instructions.filter((instruction): instruction is TangentInstruction => !isForward(instruction));
}

/**
 * The forward pass that tangents need, and the velocity where it is asked for, before the tangents' own instructions: every
 * node whose value or slope somebody reads, and those that lead to one.
 */
export function withForward(graph: Graph, wantsValue: boolean, tangents: readonly TangentInstruction[]): Instruction[] {
  const { slopes, values } = readsOf(tangents);
  const needed = new Set([...slopes, ...values, ...(wantsValue ? [graph.output.index] : [])]);
  for (const node of graph.nodes.toReversed()) if (needed.has(node.index)) for (const source of sourcesOf(node)) needed.add(source);
  const forward = graph.nodes.filter(({ index }) => needed.has(index)).map((node) => forwardInstruction(node, slopes.has(node.index)));
  return [...forward, ...tangents];
}

export function forwardInstruction(node: Node, keepsSlope: boolean): ForwardInstruction {
  const { body, activation } = node;
  switch (body.kind) {
    case "state":
      return { kind: "load", node, from: "points" };
    case "context":
      return { kind: "load", node, from: "context" };
    case "norm":
      return { ...body, node };
    case "sum":
      return { ...body, node, activation, keepsSlope };
  }
}

/** The nodes whose slopes and whose values tangents read; of a norm the inverse deviation too. */
export function readsOf(tangents: readonly TangentInstruction[]): { slopes: Set<number>; values: Set<number> } {
  const slopes = new Set<number>();
  const values = new Set<number>();
  for (const instruction of tangents) {
    if (instruction.kind === "norm tangent") values.add(instruction.node);
    for (const factor of scalesOf(instruction).flat()) {
      if (factor.kind === "slope") slopes.add(factor.node);
      if (factor.kind === "value") values.add(factor.node);
    }
  }
  return { slopes, values };
}

/** What the activation of a node does to its tangents. */
export function slopeOf({ index, activation }: Node): Scale {
  return activation ? [{ kind: "slope", node: index }] : [];
}

/** Every scale that an instruction reads. */
export function scalesOf(instruction: TangentInstruction): Scale[] {
  switch (instruction.kind) {
    case "carry":
    case "blend":
      return [instruction.from.scale, instruction.endScale];
    case "norm tangent":
      return [instruction.from.scale];
    case "contract":
      return [instruction.from.scale, instruction.scale, instruction.endScale];
  }
}

/** The rows of tangents that an instruction reads. */
export function rowsOf(instruction: TangentInstruction): Rows[] {
  return instruction.kind === "contract" ? [instruction.from.rows, instruction.rows] : [instruction.from.rows];
}

/** Whether all points have these tangents in common. */
export function isShared({ rows, scale }: Tangents, graph: Graph, sharesContext: boolean): boolean {
  if (rows.kind === "given" || (rows.kind === "probes" && !rows.shared) || (rows.kind === "register" && !rows.register.shared))
    return false;
  return scale.every((factor) => factor.kind === "constant" || (sharesContext && !graph.nodes[factor.node]!.moves));
}

/** Multiply-adds of an instruction for one point, or for one tangent of one. Activations are left out. */
export function multiplyAddsOf(instruction: Instruction): number {
  switch (instruction.kind) {
    case "load":
      return 0;
    case "sum":
      return instruction.terms.reduce((total, term) => total + multiplyAddsOfTerm(term, instruction.node.width), 0);
    case "norm":
      return 4 * instruction.node.width;
    case "carry":
      return sizeOf(instruction.matrix);
    case "contract":
      // A product summed up as it is needs no multiplications for the sum.
      return (
        (instruction.matrix ? sizeOf(instruction.matrix) : 0) + (instruction.matrix && isOnes(instruction.rows) ? 0 : instruction.width)
      );
    case "blend":
      return widthOfTarget(instruction.into);
    case "norm tangent":
      return 4 * widthOfTarget(instruction.into);
  }
}

function multiplyAddsOfTerm(term: Term, width: number): number {
  if (term.kind === "dense") return sizeOf(term.matrix);
  return term.kind === "product" || term.factors ? width : 0;
}

export function widthOfTarget(into: Target): number {
  return into.kind === "register" ? into.register.width : into.width;
}

export function isOnes(rows: Rows): boolean {
  return rows.kind === "matrix" && rows.matrix.isOnes;
}

/** The matrices that instructions multiply by. */
export function productsOf(instructions: readonly Instruction[]): PlannedMatrix[] {
  return instructions.flatMap((instruction) => {
    if (instruction.kind === "sum") return instruction.terms.flatMap((term) => (term.kind === "dense" ? [term.matrix] : []));
    return "matrix" in instruction && instruction.matrix ? [instruction.matrix] : [];
  });
}
