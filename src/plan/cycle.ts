import { CONTEXT, STATE, type Graph, type Node } from "./graph.js";
import { asRow, diagonalColumn, diagonalProduct, merge, ones, sums, transposed, type PlannedMatrix } from "./matrices.js";
import { isShared, slopeOf, type Scale, type TangentInstruction, type Tangents } from "./program.js";

/** A matrix of the cycle and what scales its result; where nothing does, it may be merged with the next. */
interface Link {
  readonly matrix: PlannedMatrix;
  readonly scale: Scale;
  /** s1, s2, ... from the state on, for people. */
  readonly label: string;
}

/** A part of the trace beside the cycle: Σ_i diagonal[i] scale_i, from a skip of the state to the velocity. */
interface Skip {
  /** [1, d] */
  readonly diagonal: PlannedMatrix;
  readonly scale: Scale;
}

/** One way around the cycle. */
export interface CyclicProgram {
  readonly description: string;
  /** K */
  readonly tangents: number;
  readonly instructions: readonly TangentInstruction[];
  /** Merged on the host, beside the network's own. */
  readonly matrices: readonly PlannedMatrix[];
}

/**
 * The trace is cyclic, tr(ABC) = tr(BCA): from every start of the cycle W_1 ... W_n, with the matrices between which
 * nothing scales merged or not. Empty where more than one path leads from the state to the velocity, skips of the state
 * itself apart.
 */
export function cyclicPrograms(graph: Graph, sharesContext: boolean | "never"): CyclicProgram[] {
  const path = readPath(graph);
  if (!path) return [];
  const { links, skips } = path;
  const cycles = [links];
  if (links.at(-1)!.scale.length === 0 && links.length > 1) cycles.push(mergeLinks(links, (index) => index === links.length - 1));
  if (links.slice(0, -1).some(({ scale }) => scale.length === 0)) cycles.push(mergeLinks(links, () => true));
  return cycles
    .flatMap((cycle) => programsOf(cycle, (tangents) => sharesContext !== "never" && isShared(tangents, graph, sharesContext)))
    .map((program) => ({ ...program, instructions: [...program.instructions, ...skips.map(addSkip)] }));
}

/** The one path from the velocity back to the state, as links from the state on. */
function readPath(graph: Graph): { links: Link[]; skips: Skip[] } | null {
  const links: Link[] = [];
  const skips: Skip[] = [];
  let node: Node = graph.output;
  let scale: Scale = slopeOf(node);
  while (node.index !== STATE) {
    if (node.body.kind !== "sum") return null;
    let moving = node.body.terms.filter(({ source }) => graph.nodes[source]!.moves);
    if (node === graph.output && moving.length > 1) {
      const direct = moving.filter((term) => term.source === STATE && (term.kind !== "product" || !graph.nodes[term.by]!.moves));
      moving = moving.filter((term) => !direct.includes(term));
      for (const term of direct) {
        const factor: Scale = term.kind === "product" ? [{ kind: "value", node: term.by }] : [];
        const diagonal =
          term.kind === "dense"
            ? asRow(diagonalColumn(term.matrix))
            : term.kind === "diagonal" && term.factors
              ? term.factors
              : ones(1, node.width);
        skips.push({ diagonal, scale: [...scale, ...factor] });
      }
    }
    const [term] = moving;
    if (moving.length !== 1 || !term) return null;
    if (term.kind === "product" && graph.nodes[term.by]!.moves) return null;
    if (term.kind === "dense") {
      links.unshift({ matrix: term.matrix, scale, label: "" });
      scale = [];
    } else if (term.kind === "product") scale = [...scale, { kind: "value", node: term.by }];
    else if (term.factors) scale = [...scale, { kind: "constant", row: term.factors }];
    node = graph.nodes[term.source]!;
    if (node.index === CONTEXT) return null;
    scale = [...scale, ...slopeOf(node)];
  }
  const last = links.at(-1);
  if (!last) return null;
  // What scales the state before the first matrix follows the last one around the cycle.
  links[links.length - 1] = { ...last, scale: [...last.scale, ...scale] };
  return { links: links.map((link, index) => ({ ...link, label: `s${index + 1}` })), skips };
}

/** Merges each link for which `chosen` holds, and after which nothing scales, into the one after it. */
function mergeLinks(links: readonly Link[], chosen: (index: number) => boolean): Link[] {
  const merged = links.map((link, index) => ({ ...link, open: link.scale.length === 0 && chosen(index) }));
  for (let index = 0; merged.length > 1 && index < merged.length;) {
    const link = merged[index]!;
    if (!link.open) {
      index++;
      continue;
    }
    const at = (index + 1) % merged.length;
    const next = merged[at]!;
    merged[at] = { ...next, matrix: merge(next.matrix, link.matrix) };
    merged.splice(index, 1);
  }
  return merged;
}

function programsOf(cycle: readonly Link[], shares: (tangents: Tangents) => boolean): CyclicProgram[] {
  if (cycle.length === 1) return [diagonalProgram(cycle[0]!)];
  if (cycle.length === 2) return [bilinearProgram(cycle[0]!, cycle[1]!)];
  const matrices = cycle.map(({ matrix }) => matrix).filter(({ isMerged }) => isMerged);
  return cycle.map((_, start) => {
    const rotated = [...cycle.slice(start), ...cycle.slice(0, start)];
    const [first, last] = [rotated[0]!, rotated.at(-1)!];
    let from: Tangents = {
      rows: { kind: "matrix", matrix: transposed(first.matrix) },
      scale: first.scale,
    };
    const middle = rotated.slice(1, -1);
    const instructions: TangentInstruction[] = [];
    for (const [index, { matrix, scale }] of middle.entries()) {
      // Where nothing scales at all, the merged cycle does the same on the host.
      const shared = shares(from) && (from.scale.length > 0 || from.rows.kind === "register");
      if (index === middle.length - 1 && !shared) {
        instructions.push(contraction(matrix, from, last.matrix, scale, last.scale));
        break;
      }
      const register = { index, width: matrix.rows, shared, per: "tangent" } as const;
      instructions.push({ kind: "carry", matrix, from, into: { kind: "register", register }, endScale: [], adds: false });
      from = { rows: { kind: "register", register }, scale };
      // A gate on the way, of a context that all points share, is folded once: only a dot product is left.
      if (index === middle.length - 1) instructions.push(contraction(null, from, last.matrix, [], last.scale));
    }
    const tangents = first.matrix.columns;
    const through = middle.filter(({ matrix }) => matrices.includes(matrix)).map(({ matrix }) => ` through ${matrix.name},`);
    const description = `${tangents} tangent${tangents === 1 ? "" : "s"} from the columns of ${first.matrix.name},${through.join("")} contracted with ${last.matrix.name}`;
    return { description, tangents, instructions, matrices };
  });
}

/** tr(D A) = Σ_i A[i,i] D_i, a constant where nothing scales. */
function diagonalProgram({ matrix, scale, label }: Link): CyclicProgram {
  const column = diagonalColumn(matrix);
  if (scale.length > 0) return dotProgram(asRow(column), scale, `the diagonal of ${matrix.name} times ${label}`);
  return dotProgram(sums(column, "all"), [], `a constant, the trace of ${matrix.name}`);
}

/** tr(D2 A2 D1 A1) = Σ_ki D2_k (A2 ∘ A1ᵀ)_ki D1_i. */
function bilinearProgram(first: Link, second: Link): CyclicProgram {
  const product = diagonalProduct(second.matrix, first.matrix);
  if (first.scale.length === 0 || second.scale.length === 0) {
    const [along, { scale, label }] = first.scale.length > 0 ? (["columns", first] as const) : (["rows", second] as const);
    if (scale.length === 0) return dotProgram(sums(product, "all"), [], `a constant, the sum of ${product.name}`);
    return dotProgram(sums(product, along), scale, `the sums of the ${along} of ${product.name} times ${label}`);
  }
  const from: Tangents = { rows: { kind: "matrix", matrix: ones(1, product.columns) }, scale: first.scale };
  return {
    description: `the bilinear form ${second.label}ᵀ M ${first.label} with M = ${product.name}`,
    tangents: 1,
    instructions: [contraction(product, from, ones(1, product.rows), second.scale, [])],
    matrices: [product],
  };
}

/** Σ_i row[i] s_i: no product is left. */
function dotProgram(row: PlannedMatrix, scale: Scale, description: string): CyclicProgram {
  const from: Tangents = { rows: { kind: "matrix", matrix: row }, scale: [] };
  return {
    description,
    tangents: 1,
    instructions: [contraction(null, from, ones(1, row.columns), scale, [])],
    matrices: [],
  };
}

function addSkip({ diagonal, scale }: Skip): TangentInstruction {
  const from: Tangents = { rows: { kind: "matrix", matrix: scale.length > 0 ? diagonal : sums(diagonal, "all") }, scale: [] };
  const width = scale.length > 0 ? diagonal.columns : 1;
  return { ...contraction(null, from, ones(1, width), scale, []), adds: true, once: true };
}

function contraction(
  matrix: PlannedMatrix | null,
  from: Tangents,
  rows: PlannedMatrix,
  scale: Scale,
  endScale: Scale,
): Extract<TangentInstruction, { kind: "contract" }> {
  return {
    kind: "contract",
    matrix,
    from,
    rows: { kind: "matrix", matrix: rows },
    width: rows.columns,
    scale,
    endScale,
    adds: false,
    once: false,
  };
}
