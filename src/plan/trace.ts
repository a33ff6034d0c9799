import { InputError, PlanError, quote } from "../errors.js";
import type { Matrix, Network } from "../model/network.js";
import { chainOf, type Chain } from "./chain.js";
import { diagonalProduct, lazily, merge, rowsOf, transposed, type PlannedMatrix } from "./matrices.js";

/**
 * tr J = tr( S_n W_n ... S_1 W_1 ), with S_l = diag σ_l'(z_l) and n = L + 1 layers. Every method below is a way to
 * evaluate it (or, for the last two, to approximate it).
 */
export const methods = ["tangent", "cyclic", "jacobian", "coordinate", "difference", "hutchinson"] as const;
export type Method = (typeof methods)[number];

export const outputs = ["value", "divergence", "diagonal", "jacobian"] as const;
export type Output = (typeof outputs)[number];

/** What a plan is asked for. */
export interface PlanOptions {
  /** Default: value and divergence. */
  readonly outputs?: readonly Output[] | undefined;
  /** Default "auto": the exact method with the fewest multiply-adds among those that deliver the outputs. */
  readonly method?: Method | "auto" | undefined;
  /** How many tangents of a point are carried at once, at most; default all. "coordinate" is always one. */
  readonly tangentsAtOnce?: number | undefined;
  /** hutchinson: probes per point, default 16. */
  readonly probes?: number | undefined;
  /** hutchinson: any 32-bit integer, default 0. The same seed gives the same probes on the GPU and in the reference. */
  readonly seed?: number | undefined;
  /** hutchinson: every point has probes of its own ("point", the default), or all share one set ("batch", cheaper). */
  readonly probesPer?: "point" | "batch" | undefined;
  /** difference: the step is this times max(1, |x_i|); default 2^-7, near the optimum ε^(1/3) of float32. */
  readonly step?: number | undefined;
}

/** Where the tangents of a point begin: rows of a matrix that all points share, Rademacher probes, or given ones (jvp). */
export type Seed = { readonly kind: "rows"; readonly rows: PlannedMatrix } | { readonly kind: "probes" } | { readonly kind: "given" };

/** t <- W (s ∘ t), with s = σ' of the layer named, or 1 where null. */
export interface Carry {
  readonly matrix: PlannedMatrix;
  readonly scale: number | null;
}

/** What becomes of the carried tangents t_k; e is σ' of the layer `endScale`, or 1 where null. */
export type End =
  /** term_k = e_k Σ_i rows[k,i] s_i t_k[i]; the probes' rows are the probes themselves, and `fold` maps them first. */
  | {
      readonly kind: "contract";
      readonly rows: PlannedMatrix | "probes";
      readonly fold: PlannedMatrix | null;
      readonly scale: number | null;
      readonly endScale: number | null;
    }
  /** J[i,k] = e_i t_k[i], whose diagonal is the terms. */
  | { readonly kind: "jacobian"; readonly endScale: number | null }
  /** e_i t[i], given back as it is (jvp). */
  | { readonly kind: "tangent"; readonly endScale: number | null };

/** The tangents of one point from seed to end. */
export interface TracePlan {
  readonly kind: "trace";
  readonly method: Method | "jvp";
  readonly seed: Seed;
  /** K, the tangents of one point. */
  readonly tangents: number;
  readonly tangentsAtOnce: number;
  readonly carries: readonly Carry[];
  readonly end: End;
  /** Whether term k is ∂f_k/∂x_k; otherwise only the sum of the terms means something. */
  readonly diagonal: boolean;
  readonly probes: { readonly per: "point" | "batch"; readonly seed: number } | null;
}

/** Central differences: (f_i(x + h e_i) - f_i(x - h e_i)) / 2h. */
export interface DifferencePlan {
  readonly kind: "difference";
  readonly method: "difference";
  readonly tangents: number;
  readonly tangentsAtOnce: number;
  readonly step: number;
}

/** f alone. */
export interface ValuePlan {
  readonly kind: "value";
  readonly method: "value";
}

export type Plan = (TracePlan | DifferencePlan | ValuePlan) & { readonly chain: Chain; readonly outputs: readonly Output[] };

/** One way to evaluate the trace and its price. */
export interface Candidate {
  readonly method: Method;
  /** In words: where the tangents start, what is merged. */
  readonly description: string;
  readonly exact: boolean;
  /** Multiply-adds per point, beside those of f. */
  readonly multiplyAdds: number;
  /** multiplyAdds over those of f alone. */
  readonly ratio: number;
  /** Bytes of intermediate results per point when all its tangents are carried at once. */
  readonly bytesPerPoint: number;
  /** Bytes of the matrices that this candidate needs beside the weights of f. */
  readonly matrixBytes: number;
  readonly delivers: readonly Output[];
}

interface Priced extends Candidate {
  readonly plan: TracePlan | DifferencePlan;
}

/** A matrix of the cycle and the layer whose σ' follows it (null: nothing does, so it may be merged with the next). */
interface Link {
  readonly matrix: PlannedMatrix;
  readonly scale: number | null;
}

const DELIVERS: Record<Method, readonly Output[]> = {
  tangent: ["value", "divergence", "diagonal"],
  cyclic: ["value", "divergence"],
  jacobian: ["value", "divergence", "diagonal", "jacobian"],
  coordinate: ["value", "divergence", "diagonal"],
  difference: ["value", "divergence", "diagonal"],
  hutchinson: ["value", "divergence"],
};

/** Multiply-adds of f at one point: Σ_l |W_l|, the context's columns included. */
export function forwardMultiplyAdds(network: Network): number {
  return chainOf(network).layers.reduce(
    (sum, { weight, contextWeight }) => sum + weight.rows * (weight.columns + (contextWeight?.columns ?? 0)),
    0,
  );
}

/**
 * Chooses the way to the outputs: the method named, or the exact one with the fewest multiply-adds (then the fewest bytes).
 * @throws PlanError where the method does not exist or cannot deliver; InputError for options out of range.
 */
export function makePlan(network: Network, options: PlanOptions = {}): Plan {
  const chain = chainOf(network);
  const { method, wanted } = readPlanOptions(options);
  if (!wanted.some((output) => output !== "value")) return { kind: "value", method: "value", chain, outputs: wanted };
  const best = choose(candidatesOf(network, options), method, wanted);
  return { ...best.plan, chain, outputs: wanted };
}

/** What is asked for, checked. @throws PlanError, InputError as {@link makePlan} does. */
export function readPlanOptions(options: PlanOptions): { method: Method | "auto"; wanted: readonly Output[] } {
  if (typeof options !== "object" || options === null) throw new InputError(`options is ${quote(options)}; expected an object`);
  const wanted = readOutputs(options.outputs);
  const method = options.method ?? "auto";
  if (method !== "auto" && !methods.includes(method))
    throw new PlanError(`method is ${quote(method)}; expected "auto" or one of ${methods.join(", ")}`);
  checkOptions(options);
  if (method !== "auto") checkDelivers(method, wanted);
  return { method, wanted };
}

/** The plan of field.jvp: J t for one given tangent per point. */
export function makeJvpPlan(network: Network): Plan {
  const chain = chainOf(network);
  const last = chain.layers.length - 1;
  return {
    kind: "trace",
    method: "jvp",
    seed: { kind: "given" },
    tangents: 1,
    tangentsAtOnce: 1,
    carries: carriesOf(chain, 0),
    end: { kind: "tangent", endScale: scaleOf(chain, last) },
    diagonal: false,
    probes: null,
    chain,
    outputs: [],
  };
}

function readOutputs(given: readonly Output[] | undefined): readonly Output[] {
  const wanted = given ?? ["value", "divergence"];
  if (!Array.isArray(wanted) || wanted.length === 0 || !wanted.every((output) => outputs.includes(output)))
    throw new PlanError(`outputs is ${quote(wanted)}; expected a list out of ${outputs.map((output) => `"${output}"`).join(", ")}`);
  return outputs.filter((output) => wanted.includes(output));
}

function checkDelivers(method: Method, wanted: readonly Output[]): void {
  const missing = wanted.find((output) => !DELIVERS[method].includes(output));
  if (missing === undefined) return;
  const able = methods.filter((other) => DELIVERS[other].includes(missing));
  throw new PlanError(`method "${method}" does not give the output "${missing}"; it is given by ${able.map((name) => `"${name}"`).join(", ")}`);
}

function checkOptions({ tangentsAtOnce, probes, seed, probesPer, step }: PlanOptions): void {
  const positive = (name: string, value: number | undefined): void => {
    if (value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= 2 ** 31))
      throw new InputError(`${name} is ${quote(value)}; expected a whole number from 1 to 2^31`);
  };
  positive("tangentsAtOnce", tangentsAtOnce);
  positive("probes", probes);
  if (seed !== undefined && !(Number.isInteger(seed) && seed >= -(2 ** 31) && seed < 2 ** 32))
    throw new InputError(`seed is ${quote(seed)}; expected a 32-bit integer`);
  if (probesPer !== undefined && probesPer !== "point" && probesPer !== "batch")
    throw new InputError(`probesPer is ${quote(probesPer)}; expected "point" or "batch"`);
  if (step !== undefined && !(step > 0 && step < 1)) throw new InputError(`step is ${quote(step)}; expected a number between 0 and 1`);
}

function choose(candidates: readonly Priced[], method: Method | "auto", wanted: readonly Output[]): Priced {
  const able = candidates.filter(
    (candidate) =>
      (method === "auto" ? candidate.exact : candidate.method === method) &&
      wanted.every((output) => candidate.delivers.includes(output)),
  );
  return able.reduce((best, candidate) =>
    candidate.multiplyAdds < best.multiplyAdds ||
    (candidate.multiplyAdds === best.multiplyAdds && candidate.bytesPerPoint < best.bytesPerPoint)
      ? candidate
      : best,
  );
}

/** Every candidate with its price; cyclic has one per start and merging. */
export function candidatesOf(network: Network, options: PlanOptions = {}): readonly Priced[] {
  const chain = chainOf(network);
  const forward = forwardMultiplyAdds(network);
  const price = (
    plan: TracePlan | DifferencePlan,
    description: string,
    multiplyAdds: number,
    matrices: readonly PlannedMatrix[] = [],
  ): Priced => ({
    method: plan.method as Method,
    description,
    exact: plan.method !== "difference" && plan.method !== "hutchinson",
    multiplyAdds,
    ratio: multiplyAdds / forward,
    bytesPerPoint: bytesPerPoint(chain, plan),
    matrixBytes: matrices.reduce((sum, { rows, columns }) => sum + 4 * rows * columns, 0),
    delivers: DELIVERS[plan.method as Method],
    plan,
  });
  return [
    ...tangentCandidate(chain, options, price),
    ...cyclicCandidates(chain, options, price),
    ...jacobianCandidates(chain, options, price),
    ...differenceCandidate(chain, options, forward, price),
    ...hutchinsonCandidate(chain, options, price),
  ];
}

type Price = (
  plan: TracePlan | DifferencePlan,
  description: string,
  multiplyAdds: number,
  matrices?: readonly PlannedMatrix[],
) => Priced;

function scaleOf(chain: Chain, layer: number): number | null {
  return chain.layers[layer]!.activation ? layer : null;
}

/** The products from layer `from` to the output: each scales its input by the σ' of the layer before. */
function carriesOf(chain: Chain, from: number, to: number = chain.layers.length): Carry[] {
  return chain.layers
    .slice(from, to)
    .map(({ weight }, offset) => ({
      matrix: lazily(`W${from + offset + 1}`, weight),
      scale: from + offset === 0 ? null : scaleOf(chain, from + offset - 1),
    }));
}

const size = ({ rows, columns }: { rows: number; columns: number }): number => rows * columns;
const total = (carries: readonly Carry[]): number => carries.reduce((sum, { matrix }) => sum + size(matrix), 0);

function tracePlan(plan: Partial<TracePlan> & Pick<TracePlan, "method" | "seed" | "tangents" | "carries" | "end">, options: PlanOptions): TracePlan {
  return {
    kind: "trace",
    tangentsAtOnce: Math.min(plan.tangents, options.tangentsAtOnce ?? plan.tangents),
    diagonal: false,
    probes: null,
    ...plan,
  };
}

/** diag_k = s_n[k] Σ_i W_n[k,i] s_(n-1)[i] t_k[i], with t_k from column k of W_1. */
function tangentCandidate(chain: Chain, options: PlanOptions, price: Price): Priced[] {
  const count = chain.layers.length;
  const first = chain.layers[0]!.weight;
  const last = chain.layers[count - 1]!.weight;
  const d = chain.stateSize;
  const endScale = scaleOf(chain, count - 1);
  const shared = { method: "tangent", tangents: d, diagonal: true } as const;
  if (count === 1) {
    const plan = tracePlan(
      {
        ...shared,
        seed: { kind: "rows", rows: rowsOf("diagonal of W1", d, 1, () => diagonalOf(first)) },
        carries: [],
        end: { kind: "contract", rows: ones(d, 1), fold: null, scale: null, endScale },
      },
      options,
    );
    return [price(plan, "the diagonal of W1", d)];
  }
  const carries = carriesOf(chain, 1, count - 1);
  const plan = tracePlan(
    {
      ...shared,
      seed: { kind: "rows", rows: transposed("columns of W1", first) },
      carries,
      end: { kind: "contract", rows: lazily(`W${count}`, last), fold: null, scale: scaleOf(chain, count - 2), endScale },
    },
    options,
  );
  return [price(plan, `${d} basis tangents from the columns of W1, contracted with W${count}`, d * (total(carries) + last.columns))];
}

/** The trace from every start of the cycle, with the matrices between which no σ' stands merged or not. */
function cyclicCandidates(chain: Chain, options: PlanOptions, price: Price): Priced[] {
  const links: Link[] = chain.layers.map(({ weight }, index) => ({
    matrix: lazily(`W${index + 1}`, weight),
    scale: scaleOf(chain, index),
  }));
  const variants = [links];
  if (links.at(-1)!.scale === null && links.length > 1) variants.push(mergeLinks(links, (index) => index === links.length - 1));
  if (links.slice(0, -1).some(({ scale }) => scale === null)) variants.push(mergeLinks(links, () => true));
  return variants.flatMap((cycle) => cycleCandidates(cycle, options, price));
}

/** Merges each link for which `chosen` holds, and after which no σ' stands, into the one after it. */
function mergeLinks(links: readonly Link[], chosen: (index: number) => boolean): Link[] {
  const merged = links.map((link, index) => ({ ...link, open: link.scale === null && chosen(index) }));
  for (let index = 0; merged.length > 1 && index < merged.length; ) {
    const link = merged[index]!;
    if (!link.open) {
      index++;
      continue;
    }
    const next = merged[(index + 1) % merged.length]!;
    const product = { matrix: merge(next.matrix, link.matrix), scale: next.scale, open: next.open };
    merged[(index + 1) % merged.length] = product;
    merged.splice(index, 1);
  }
  return merged;
}

function cycleCandidates(cycle: readonly Link[], options: PlanOptions, price: Price): Priced[] {
  const names = cycle.map(({ matrix }) => matrix.name);
  const mergedMatrices = cycle.map(({ matrix }) => matrix).filter(({ name }) => name.includes(" "));
  if (cycle.length === 1) {
    const { matrix, scale } = cycle[0]!;
    const width = scale === null ? 1 : matrix.rows;
    const diagonal = rowsOf(`diagonal of ${matrix.name}`, 1, width, () => {
      const values = diagonalOf(matrix.build());
      return scale === null ? [values.reduce((sum, value) => sum + value, 0)] : values;
    });
    return [dotCandidate(diagonal, scale, `the diagonal of ${matrix.name}`, options, price)];
  }
  if (cycle.length === 2) {
    // tr(D2 A2 D1 A1) = Σ_ki D2_k (A2 ∘ A1ᵀ)_ki D1_i
    const [first, second] = cycle as [Link, Link];
    const product = diagonalProduct(second.matrix, first.matrix);
    if (first.scale === null || second.scale === null) {
      const byRow = first.scale === null;
      const scale = byRow ? second.scale : first.scale;
      const width = scale === null ? 1 : byRow ? product.rows : product.columns;
      const sums = rowsOf(`sums of ${product.name}`, 1, width, () => sumsOf(product.build(), scale === null ? null : byRow ? "rows" : "columns"));
      return [dotCandidate(sums, scale, `the sums of ${product.name}`, options, price)];
    }
    const plan = tracePlan(
      {
        method: "cyclic",
        tangents: 1,
        seed: { kind: "rows", rows: ones(1, product.columns) },
        carries: [{ matrix: product, scale: first.scale }],
        end: { kind: "contract", rows: ones(1, product.rows), fold: null, scale: second.scale, endScale: null },
      },
      options,
    );
    return [price(plan, `the bilinear form s${second.scale + 1}ᵀ M s${first.scale + 1} with M = ${product.name}`, size(product), [product])];
  }
  return cycle.map((_, start) => {
    const rotated = [...cycle.slice(start), ...cycle.slice(0, start)];
    const first = rotated[0]!;
    const last = rotated.at(-1)!;
    const tangents = first.matrix.columns;
    const carries = rotated.slice(1, -1).map(({ matrix }, index) => ({ matrix, scale: rotated[index]!.scale }));
    const plan = tracePlan(
      {
        method: "cyclic",
        tangents,
        seed: { kind: "rows", rows: transposed(`columns of ${first.matrix.name}`, first.matrix) },
        carries,
        end: { kind: "contract", rows: last.matrix, fold: null, scale: rotated.at(-2)!.scale, endScale: last.scale },
      },
      options,
    );
    const multiplyAdds = tangents * (total(carries) + last.matrix.columns);
    const through = carries.filter(({ matrix }) => mergedMatrices.includes(matrix)).map(({ matrix }) => ` through ${matrix.name},`);
    const words = `${tangents} tangents from the columns of ${names[start]},${through.join("")} contracted with ${last.matrix.name}`;
    return price(plan, words, multiplyAdds, mergedMatrices);
  });
}

/** Σ_i rows[i] s_i: no product is left. */
function dotCandidate(rows: PlannedMatrix, scale: number | null, description: string, options: PlanOptions, price: Price): Priced {
  const plan = tracePlan(
    {
      method: "cyclic",
      tangents: 1,
      seed: { kind: "rows", rows },
      carries: [],
      end: { kind: "contract", rows: ones(1, rows.columns), fold: null, scale, endScale: null },
    },
    options,
  );
  return price(plan, scale === null ? `a constant, ${description}` : `${description} times s${scale + 1}`, rows.columns);
}

/** All of J, or one column of it at a time, and then its diagonal. */
function jacobianCandidates(chain: Chain, options: PlanOptions, price: Price): Priced[] {
  const count = chain.layers.length;
  const d = chain.stateSize;
  const single = count === 1;
  const first = chain.layers[0]!.weight;
  const plan = (method: Method): TracePlan =>
    tracePlan(
      {
        method,
        tangents: d,
        seed: { kind: "rows", rows: single ? identity(d) : transposed("columns of W1", first) },
        carries: carriesOf(chain, single ? 0 : 1),
        end: { kind: "jacobian", endScale: scaleOf(chain, count - 1) },
        diagonal: true,
      },
      method === "coordinate" ? { ...options, tangentsAtOnce: 1 } : options,
    );
  const jacobian = plan("jacobian");
  const multiplyAdds = d * total(jacobian.carries);
  return [
    price(jacobian, "the full Jacobian, its diagonal summed", multiplyAdds),
    price(plan("coordinate"), `${d} passes, one column of the Jacobian each`, multiplyAdds),
  ];
}

function differenceCandidate(chain: Chain, options: PlanOptions, forward: number, price: Price): Priced[] {
  const tangents = chain.stateSize;
  const plan: DifferencePlan = {
    kind: "difference",
    method: "difference",
    tangents,
    tangentsAtOnce: Math.min(tangents, options.tangentsAtOnce ?? tangents),
    step: options.step ?? 2 ** -7,
  };
  return [price(plan, `central differences, ${2 * tangents} evaluations of f; inexact`, 2 * tangents * forward)];
}

/** vᵀ J v for Rademacher probes v. Shared probes pass W_1 and the output's matrix once for all points. */
function hutchinsonCandidate(chain: Chain, options: PlanOptions, price: Price): Priced[] {
  const count = chain.layers.length;
  const d = chain.stateSize;
  const tangents = options.probes ?? 16;
  const per = options.probesPer ?? "point";
  const endScale = scaleOf(chain, count - 1);
  const last = chain.layers[count - 1]!.weight;
  // vᵀ W_n y = (W_nᵀ v)·y: worth it where all points share v, possible where no σ' stands behind W_n.
  const folds = per === "batch" && endScale === null && count > 1;
  const carries = carriesOf(chain, 0, folds ? count - 1 : count);
  const plan = tracePlan(
    {
      method: "hutchinson",
      tangents,
      seed: { kind: "probes" },
      carries,
      end: folds
        ? { kind: "contract", rows: "probes", fold: transposed(`W${count} transposed`, last), scale: scaleOf(chain, count - 2), endScale: null }
        : { kind: "contract", rows: "probes", fold: null, scale: endScale, endScale: null },
      probes: { per, seed: (options.seed ?? 0) >>> 0 },
    },
    options,
  );
  const perPoint = per === "batch" ? carries.slice(1) : carries;
  const contraction = folds ? last.columns : d;
  const words = `${tangents} random probe${tangents > 1 ? "s" : ""}${per === "batch" ? " shared by all points" : " per point"}; an estimate`;
  return [price(plan, words, tangents * (total(perPoint) + contraction))];
}

/** What a point occupies between the kernels: its input, two activations, the σ' of each layer, tangents, terms. */
function bytesPerPoint(chain: Chain, plan: TracePlan | DifferencePlan): number {
  const widths = chain.layers.map(({ weight }) => weight.rows);
  const widest = Math.max(...widths);
  const input = chain.stateSize + chain.contextSize;
  if (plan.kind === "difference") return 4 * (2 * plan.tangentsAtOnce * (input + 2 * widest + chain.stateSize) + chain.stateSize);
  const scales = chain.layers.reduce((sum, layer) => sum + (layer.activation ? layer.weight.rows : 0), 0);
  const contracts = plan.end.kind === "contract";
  const stored = plan.carries.slice(0, contracts ? -1 : undefined).map(({ matrix }) => matrix.rows);
  const tangents = plan.tangentsAtOnce * stored.slice(-2).reduce((sum, width) => sum + width, 0);
  const seeds = plan.seed.kind === "probes" && plan.probes?.per === "point" ? plan.tangentsAtOnce * chain.stateSize : 0;
  return 4 * (input + 2 * widest + scales + seeds + tangents + plan.tangents);
}

function ones(rows: number, columns: number): PlannedMatrix {
  return rowsOf("ones", rows, columns, () => new Array<number>(rows * columns).fill(1));
}

function identity(n: number): PlannedMatrix {
  return rowsOf("identity", n, n, () => Array.from({ length: n * n }, (_, index) => (index % (n + 1) === 0 ? 1 : 0)));
}

function diagonalOf({ rows, columns, data }: Matrix): number[] {
  return Array.from({ length: Math.min(rows, columns) }, (_, index) => data[index * columns + index]!);
}

/** Sums over a matrix: of each row, of each column, or of everything. */
function sumsOf({ rows, columns, data }: Matrix, along: "rows" | "columns" | null): number[] {
  const sums = new Array<number>(along === "rows" ? rows : along === "columns" ? columns : 1).fill(0);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      sums[along === "rows" ? row : along === "columns" ? column : 0]! += data[row * columns + column]!;
  return sums;
}
