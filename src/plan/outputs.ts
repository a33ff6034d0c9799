/**
 * The ways to the trace tr J = tr( S_n W_n ... S_1 W_1 ), with S_l = diag σ_l'(z_l) and n = L + 1 layers: exact ones first,
 * then two that approximate it.
 *
 * - `tangent`: forward mode with all d basis vectors at once (Griewank and Walther, Evaluating Derivatives, 2008, chapter 3);
 *   the first layer's tangents are the columns of W_1, and the last product is needed on its diagonal alone.
 * - `cyclic`: tr(A B) = tr(B A), so the product may start at its narrowest layer, with constant neighbours merged; with two
 *   hidden layers it is s_2ᵀ M s_1, M = W_2 ∘ (W_1 W_3)ᵀ, where s_l is the diagonal of S_l.
 * - `jacobian`: J, and the sum of its diagonal.
 * - `coordinate`: d passes of forward mode, one basis vector each.
 * - `difference`: (f_i(x + h e_i) - f_i(x - h e_i)) / 2h, summed; its error is O(h²) beside rounding of O(ε / h).
 * - `hutchinson`: the mean of vᵀ J v over random signs v, an unbiased estimate of the trace (Hutchinson, Communications in
 *   Statistics: Simulation and Computation, 1989; for flows Grathwohl et al., FFJORD, 2019).
 */
export const methods = ["tangent", "cyclic", "jacobian", "coordinate", "difference", "hutchinson"] as const;
/** One of {@link methods}. */
export type Method = (typeof methods)[number];

/** Those that compute every term of the trace. */
export const EXACT: readonly Method[] = ["tangent", "cyclic", "jacobian", "coordinate"];

/** What an output is, and where it comes from. */
interface OutputRow {
  /** The shape of one point's, of a field on R^d. */
  readonly shape: (d: number) => readonly number[];
  /** Which of the numbers that a plan leaves behind it is made of: see `Read` in schedule/steps.ts. */
  readonly from: "value" | "terms" | "jacobian" | Kinematic;
  /** How: as they are; the terms of a point summed in float64; columns of J put into their places. */
  readonly by: "copy" | "sum" | "columns";
  /** The methods that give it. */
  readonly methods: readonly Method[];
  /** The d that it exists for; any where left out. */
  readonly sizes?: readonly number[];
}

/** What a kernel makes of the whole Jacobian of a point, in this order of its cases: see shaders/kinematics.wgsl. */
export const KINEMATICS = ["curl", "strain", "qCriterion"] as const;
export type Kinematic = (typeof KINEMATICS)[number];

/**
 * All outputs: f(x); ∇·f = Σ ∂f_i/∂x_i; the diagonal ∂f_i/∂x_i; J[i][j] = ∂f_i/∂x_j; ∇×f; S = (J + Jᵀ)/2; and ½(‖Ω‖² - ‖S‖²) with
 * Ω = (J - Jᵀ)/2 (Hunt, Wray and Moin, Eddies, streams, and convergence zones in turbulent flows, 1988).
 */
export const OUTPUTS: Readonly<Record<Output, OutputRow>> = {
  value: { shape: (d) => [d], from: "value", by: "copy", methods },
  divergence: { shape: () => [], from: "terms", by: "sum", methods },
  diagonal: { shape: (d) => [d], from: "terms", by: "copy", methods: ["tangent", "jacobian", "coordinate", "difference"] },
  jacobian: { shape: (d) => [d, d], from: "jacobian", by: "columns", methods: ["jacobian"] },
  curl: { shape: (d) => (d === 2 ? [] : [d]), from: "curl", by: "copy", methods: ["jacobian"], sizes: [2, 3] },
  strain: { shape: (d) => [d, d], from: "strain", by: "copy", methods: ["jacobian"] },
  qCriterion: { shape: () => [], from: "qCriterion", by: "copy", methods: ["jacobian"] },
};

/**
 * What an evaluation may give at each point: f(x), [d]; ∇·f = Σ ∂f_i/∂x_i, one number; the diagonal ∂f_i/∂x_i, [d];
 * J[i][j] = ∂f_i/∂x_j, [d, d]; the curl ∇×f, [3] for d = 3, for d = 2 the vorticity ∂f_1/∂x_0 - ∂f_0/∂x_1, one number; the strain
 * S = (J + Jᵀ)/2, [d, d]; and the Q criterion ½(‖Ω‖² - ‖S‖²) with Ω = (J - Jᵀ)/2, one number.
 */
export type Output = "value" | "divergence" | "diagonal" | "jacobian" | "curl" | "strain" | "qCriterion";
/** All of them. */
export const outputs: readonly Output[] = ["value", "divergence", "diagonal", "jacobian", "curl", "strain", "qCriterion"];

/** How many numbers of an output a point has. */
export function sizeOf(output: Output, d: number): number {
  return OUTPUTS[output].shape(d).reduce((product, n) => product * n, 1);
}

export function delivers(method: Method, output: Output): boolean {
  return OUTPUTS[output].methods.includes(method);
}

/** Whether a field on R^d has the output. */
export function exists(output: Output, d: number): boolean {
  return OUTPUTS[output].sizes?.includes(d) ?? true;
}

/** Those that are made of the whole Jacobian. */
export function kinematicsOf(wanted: readonly Output[]): Kinematic[] {
  return KINEMATICS.filter((output) => wanted.includes(output));
}
