import { parseActivation } from "../model/activation.js";
import type { Graph, Node, Term } from "./graph.js";
import { sourcesOf } from "./graph.js";
import { rowsOf } from "./matrices.js";
import {
  multiplyAddsOf,
  vectorsOf,
  type Elements,
  type FusedOutput,
  type FusedProgram,
  type Operation,
  type Vector,
} from "./operations.js";
import { scalesOf, type Instruction, type Rows, type Scale, type Tangents, type Target } from "./program.js";
import type { Route } from "./steps.js";
import type { Plan } from "./trace.js";
import { nameOfVariant, type FusedVariant } from "./variants.js";

/** Beyond these a point's vectors do not stay on the chip. */
const WIDEST = 128;
const MOST_STATES = 16;
const IDENTITY = parseActivation("identity");

/**
 * The operations of a plan whose point one invocation can carry: widths up to 128, states up to 16, tangents that differ
 * from point to point and end in a trace. Null for all others.
 */
function fuse(plan: Plan, route: Pick<Route, "to">): FusedProgram | null {
  if (plan.kind === "difference") return null;
  const { graph } = plan;
  if (graph.stateSize > MOST_STATES || graph.nodes.some(({ width }) => width > WIDEST)) return null;
  if (plan.kind === "trace" && !isFusible(plan.instructions, plan.tangents, plan.method)) return null;
  return new Lowering(plan, route).program();
}

function isFusible(instructions: readonly Instruction[], tangents: number, method: string): boolean {
  if (tangents > MOST_STATES || method === "coordinate" || method === "jvp") return false;
  const known = ({ kind }: Rows): boolean => kind === "matrix" || kind === "register";
  return instructions.every((instruction) => {
    if (!known(instruction.from.rows)) return false;
    if (instruction.kind === "contract") return known(instruction.rows);
    // What all points share is computed once in layers; here every point would compute it anew.
    return instruction.into.kind === "register" && !instruction.into.register.shared;
  });
}

/** Writes a plan's forward pass and tangents as operations. */
class Lowering {
  private readonly graph: Graph;
  private readonly operations: Operation[] = [];
  private readonly values = new Map<number, Vector>();
  private readonly derivatives = new Map<number, Vector>();
  private readonly deviations = new Map<number, Vector>();
  private readonly terms: Vector;

  constructor(
    private readonly plan: Exclude<Plan, { kind: "difference" }>,
    private readonly route: Pick<Route, "to">,
  ) {
    this.graph = plan.graph;
    this.terms = { name: "term", width: plan.kind === "trace" ? plan.tangents : 0 };
  }

  program(): FusedProgram {
    const { plan, graph, terms } = this;
    const wants = plan.outputs.includes("value");
    const needed = this.neededNodes(wants);
    for (const node of graph.nodes) if (needed.has(node.index)) this.node(node);
    if (wants) this.store("value", this.values.get(graph.output.index)!);
    const outputs: FusedOutput[] = wants ? ["value"] : [];
    if (plan.kind === "trace") {
      for (let column = 0; column < plan.tangents; column++) this.column(plan.instructions, column);
      const toHost: FusedOutput[] = [plan.diagonal ? "diagonal" : "divergence"];
      const asked = (["diagonal", "divergence"] as const).filter((output) => plan.outputs.includes(output));
      for (const what of this.route.to === "host" ? toHost : asked) {
        this.store(what, terms);
        outputs.push(what);
      }
    }
    const operations = asSoonAsPossible(this.operations);
    const multiplyAdds = operations.reduce((sum, operation) => sum + multiplyAddsOf(operation), 0);
    return { stateSize: graph.stateSize, contextSize: graph.contextSize, operations, terms, outputs, multiplyAdds };
  }

  private store(what: FusedOutput, from: Vector): void {
    this.operations.push({ kind: "store", what, from });
  }

  /** Nodes whose value or derivative somebody reads, and those that lead to them. */
  private neededNodes(wantsValue: boolean): Set<number> {
    const needed = new Set<number>(wantsValue ? [this.graph.output.index] : []);
    const scales = this.plan.kind === "trace" ? this.plan.instructions.flatMap((instruction) => scalesOf(instruction).flat()) : [];
    for (const factor of scales) if (factor.kind !== "constant") needed.add(factor.node);
    if (this.plan.kind === "trace")
      for (const instruction of this.plan.instructions) if (instruction.kind === "norm") needed.add(instruction.node);
    for (const factor of scales)
      if (factor.kind === "derivative") this.derivatives.set(factor.node, this.vector(`s${factor.node}_`, factor.node));
    for (const node of this.graph.nodes.toReversed()) if (needed.has(node.index)) for (const source of sourcesOf(node)) needed.add(source);
    return needed;
  }

  private vector(name: string, node: number): Vector {
    return { name, width: this.graph.nodes[node]!.width };
  }

  private node(node: Node): void {
    const { body, index, width } = node;
    const into = this.vector(`a${index}_`, index);
    this.values.set(index, into);
    if (body.kind === "state") this.operations.push({ kind: "load", from: "points", into });
    if (body.kind === "context") this.operations.push({ kind: "load", from: "context", into });
    if (body.kind === "norm") {
      const deviation = { name: `r${index}_`, width: 1 };
      this.deviations.set(index, deviation);
      this.operations.push({ ...body, kind: "norm", into, deviation, x: this.values.get(body.source)! });
    }
    if (body.kind === "sum") {
      const { bias, terms } = body;
      const isDense = (term: Term): term is Extract<Term, { kind: "dense" }> => term.kind === "dense";
      this.operations.push({
        kind: "sum",
        into,
        bias: bias ? rowsOf(`b${index}`, 1, width, () => Array.from(bias)) : null,
        added: terms.filter((term) => !isDense(term)).map((term) => this.elementsOf(term)),
        products: terms.filter(isDense).map(({ matrix, source }) => ({ matrix, x: [this.values.get(source)!] })),
        activation: node.activation ?? IDENTITY,
        derivative: this.derivatives.get(index) ?? null,
      });
    }
  }

  private elementsOf(term: Exclude<Term, { kind: "dense" }>): Elements {
    const x = this.values.get(term.source)!;
    if (term.kind === "product") return [x, this.values.get(term.by)!];
    return term.factors ? [x, { matrix: term.factors, row: 0 }] : [x];
  }

  /** One pass over the instructions, for the tangent of one column. */
  private column(instructions: readonly Instruction[], column: number): void {
    const registers = new Map<number, Vector>();
    const elements = ({ rows, scale }: Tangents): Elements => [...this.rows(rows, column, registers), ...this.scale(scale)];
    for (const instruction of instructions) {
      if (instruction.kind === "contract") {
        if (instruction.once && column > 0) continue;
        const { matrix } = instruction;
        this.operations.push({
          kind: "contract",
          term: column,
          width: instruction.width,
          factor: this.scale(instruction.endScale),
          by: [...this.rows(instruction.rows, column, registers), ...this.scale(instruction.scale)],
          product: matrix && { matrix, x: elements(instruction.from) },
          x: matrix ? [] : elements(instruction.from),
        });
        continue;
      }
      const { index, width } = (instruction.into as Extract<Target, { kind: "register" }>).register;
      const version = instruction.kind !== "norm" && instruction.adds ? registers.get(index) : undefined;
      const into: Vector = { name: `${version ? `${version.name}u` : `t${column}_${index}`}_`, width };
      registers.set(index, into);
      if (instruction.kind === "norm") {
        const { node, from } = instruction;
        const { body } = this.graph.nodes[node]!;
        const centered = body.kind === "norm" && body.centered;
        const value = this.values.get(node)!;
        this.operations.push({
          kind: "norm tangent",
          into,
          tangent: elements(from),
          value,
          deviation: this.deviations.get(node)!,
          centered,
        });
        continue;
      }
      const from = elements(instruction.from);
      this.operations.push({
        kind: "sum",
        into,
        bias: null,
        added: [...(version ? [[version]] : []), ...(instruction.kind === "blend" ? [from] : [])],
        products: instruction.kind === "carry" ? [{ matrix: instruction.matrix, x: from }] : [],
        activation: IDENTITY,
        derivative: null,
      });
    }
  }

  private rows(rows: Rows, column: number, registers: ReadonlyMap<number, Vector>): Elements {
    if (rows.kind === "register") return [registers.get(rows.register.index)!];
    if (rows.kind !== "matrix") throw new TypeError(`${rows.kind} are not fused`);
    return rows.matrix.name === "ones" ? [] : [{ matrix: rows.matrix, row: column }];
  }

  private scale(scale: Scale): Elements {
    return scale.map((factor) => {
      if (factor.kind === "constant") return { matrix: factor.row, row: 0 };
      return (factor.kind === "derivative" ? this.derivatives : this.values).get(factor.node)!;
    });
  }
}

/**
 * The operations with those of tangents moved up to where their inputs are known, so that few numbers wait at a time, and
 * contractions can be computed beside the layer that weighs them.
 */
function asSoonAsPossible(operations: readonly Operation[]): Operation[] {
  const ordered: Operation[] = [];
  const made = new Set<Vector>();
  const waiting = [...operations];
  while (waiting.length > 0) {
    const isTangent = (operation: Operation): boolean => vectorsOf(operation).made.some(({ name }) => name.startsWith("t"));
    const ready = (operation: Operation): boolean => vectorsOf(operation).read.every((vector) => made.has(vector));
    const next = Math.max(
      0,
      waiting.findIndex((operation) => isTangent(operation) && ready(operation)),
    );
    const [operation] = waiting.splice(next, 1);
    for (const vector of vectorsOf(operation!).made) made.add(vector);
    ordered.push(operation!);
  }
  return ordered;
}

/** A fused program as a variant runs it. */
export interface FusedForm {
  readonly program: FusedProgram;
  readonly variant: FusedVariant;
}

/** What is known of a plan: its program by the route of the results, and its forms. */
interface Fused {
  readonly programs: Map<Route["to"], FusedProgram | null>;
  readonly forms: Map<string, FusedForm>;
}

const fused = new WeakMap<Plan, Fused>();

/** The form of a plan in a fused variant; null where the plan is none that can be fused. */
export function fusedForm(plan: Plan, route: Pick<Route, "to">, variant: FusedVariant): FusedForm | null {
  let known = fused.get(plan);
  if (!known) fused.set(plan, (known = { programs: new Map(), forms: new Map() }));
  let program = known.programs.get(route.to);
  if (program === undefined) known.programs.set(route.to, (program = fuse(plan, route)));
  if (!program) return null;
  const key = `${route.to} ${nameOfVariant(variant)}`;
  let form = known.forms.get(key);
  if (!form) known.forms.set(key, (form = { program, variant }));
  return form;
}
