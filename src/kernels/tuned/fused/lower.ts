import { parseActivation } from "../../../model/activation.js";
import type { Term } from "../../../plan/graph.js";
import type { Plan, TracePlan, ValuePlan } from "../../../plan/plan.js";
import {
  forwardOf,
  multiplyAddsOf,
  rowsOf,
  tangentsOf,
  type ForwardInstruction,
  type Rows,
  type Scale,
  type TangentInstruction,
  type Tangents,
} from "../../../plan/program.js";
import type { FusedOutput, Route } from "../../../schedule/steps.js";
import type { Elements, FusedProgram, Statement, Vector } from "./statements.js";

/** Beyond these a point's vectors do not stay on the chip. */
const WIDEST = 128;
const MOST_STATES = 16;
const IDENTITY = parseActivation("identity");

/**
 * The statements of a plan whose point one invocation can carry: widths up to 128, states up to 16, tangents that differ
 * from point to point and end in a trace. Null for all others.
 */
export function lower(plan: Plan, to: Route["to"]): FusedProgram | null {
  if (plan.kind === "difference" || plan.kind === "gradient") return null;
  const { graph } = plan;
  if (graph.stateSize > MOST_STATES || graph.nodes.some(({ width }) => width > WIDEST)) return null;
  if (plan.kind === "trace" && !isFusible(plan)) return null;
  return new Lowering(plan, to).program();
}

function isFusible({ method, tangents, instructions }: TracePlan): boolean {
  if (tangents > MOST_STATES || method === "coordinate" || method === "jvp") return false;
  const known = ({ kind }: Rows): boolean => kind === "matrix" || kind === "register";
  return tangentsOf(instructions).every((instruction) => {
    if (!rowsOf(instruction).every(known)) return false;
    // What all points share is computed once in layers; here every point would compute it anew.
    return instruction.kind === "contract" || (instruction.into.kind === "register" && !instruction.into.register.shared);
  });
}

/** Writes a plan's instructions as statements. */
class Lowering {
  private readonly statements: Statement[] = [];
  private readonly values = new Map<number, Vector>();
  private readonly slopes = new Map<number, Vector>();
  private readonly inverseDeviations = new Map<number, Vector>();
  private readonly terms: Vector;
  private multiplyAdds = 0;

  constructor(
    private readonly plan: TracePlan | ValuePlan,
    private readonly to: Route["to"],
  ) {
    this.terms = { name: "term", width: plan.kind === "trace" ? plan.tangents : 0 };
  }

  program(): FusedProgram {
    const { plan, terms } = this;
    const outputs: FusedOutput[] = [];
    const store = (what: FusedOutput, from: Vector): void => {
      this.statements.push({ kind: "store", what, from });
      outputs.push(what);
    };
    for (const instruction of forwardOf(plan.instructions)) this.forward(instruction);
    if (plan.outputs.includes("value")) store("value", this.values.get(plan.graph.output.index)!);
    if (plan.kind === "trace") {
      const tangents = tangentsOf(plan.instructions);
      for (let column = 0; column < plan.tangents; column++) this.column(tangents, column);
      const toHost: FusedOutput[] = [plan.diagonal ? "diagonal" : "divergence"];
      const asked = (["diagonal", "divergence"] as const).filter((output) => plan.outputs.includes(output));
      for (const what of this.to === "host" ? toHost : asked) store(what, terms);
    }
    return { statements: this.statements, terms, outputs, multiplyAdds: this.multiplyAdds };
  }

  private forward(instruction: ForwardInstruction): void {
    this.multiplyAdds += multiplyAddsOf(instruction);
    const { index, width } = instruction.node;
    const into: Vector = { name: `a${index}_`, width };
    this.values.set(index, into);
    switch (instruction.kind) {
      case "load":
        this.statements.push({ kind: "load", from: instruction.from, into });
        return;
      case "norm": {
        const { source, centered, epsilon } = instruction;
        const inverseDeviation: Vector = { name: `r${index}_`, width: 1 };
        this.inverseDeviations.set(index, inverseDeviation);
        this.statements.push({ kind: "norm", into, inverseDeviation, x: this.values.get(source)!, centered, epsilon });
        return;
      }
      case "sum": {
        const { terms, bias, activation, keepsSlope } = instruction;
        const isDense = (term: Term): term is Extract<Term, { kind: "dense" }> => term.kind === "dense";
        const slope: Vector | null = keepsSlope ? { name: `s${index}_`, width } : null;
        if (slope) this.slopes.set(index, slope);
        this.statements.push({
          kind: "sum",
          into,
          bias,
          added: terms.filter((term) => !isDense(term)).map((term) => this.elementsOf(term)),
          products: terms.filter(isDense).map(({ matrix, source }) => ({ matrix, x: [this.values.get(source)!] })),
          activation: activation ?? IDENTITY,
          slope,
        });
      }
    }
  }

  private elementsOf(term: Exclude<Term, { kind: "dense" }>): Elements {
    const x = this.values.get(term.source)!;
    if (term.kind === "product") return [x, this.values.get(term.by)!];
    return term.factors ? [x, { matrix: term.factors, row: 0 }] : [x];
  }

  /** One pass over the instructions, for the tangent of one column. */
  private column(instructions: readonly TangentInstruction[], column: number): void {
    const registers = new Map<number, Vector>();
    const elements = ({ rows, scale }: Tangents): Elements => [...this.rows(rows, column, registers), ...this.scale(scale)];
    for (const instruction of instructions) {
      if (instruction.kind === "contract" && instruction.once && column > 0) continue;
      this.multiplyAdds += multiplyAddsOf(instruction);
      const from = elements(instruction.from);
      if (instruction.kind === "contract") {
        const { matrix, width, endScale } = instruction;
        this.statements.push({
          kind: "contract",
          term: column,
          width,
          factor: this.scale(endScale),
          by: [...this.rows(instruction.rows, column, registers), ...this.scale(instruction.scale)],
          product: matrix && { matrix, x: from },
          x: matrix ? [] : from,
        });
        continue;
      }
      if (instruction.into.kind !== "register") throw new TypeError(`a ${instruction.into.kind} is not fused`);
      const { index, width } = instruction.into.register;
      const version = instruction.kind !== "norm tangent" && instruction.adds ? registers.get(index) : undefined;
      const into: Vector = { name: `${version ? `${version.name}u` : `t${column}_${index}`}_`, width };
      registers.set(index, into);
      if (instruction.kind === "norm tangent") {
        const { node, centered } = instruction;
        const [value, inverseDeviation] = [this.values.get(node)!, this.inverseDeviations.get(node)!];
        this.statements.push({ kind: "norm tangent", into, tangent: from, value, inverseDeviation, centered });
        continue;
      }
      this.statements.push({
        kind: "sum",
        into,
        bias: null,
        added: [...(version ? [[version]] : []), ...(instruction.kind === "blend" ? [[...from, ...this.scale(instruction.endScale)]] : [])],
        products: instruction.kind === "carry" ? [{ matrix: instruction.matrix, x: from }] : [],
        activation: IDENTITY,
        slope: null,
      });
    }
  }

  private rows(rows: Rows, column: number, registers: ReadonlyMap<number, Vector>): Elements {
    if (rows.kind === "register") return [registers.get(rows.register.index)!];
    if (rows.kind !== "matrix") throw new TypeError(`${rows.kind} are not fused`);
    return rows.matrix.isOnes ? [] : [{ matrix: rows.matrix, row: column }];
  }

  private scale(scale: Scale): Elements {
    return scale.map((factor) => {
      if (factor.kind === "constant") return { matrix: factor.row, row: 0 };
      return (factor.kind === "slope" ? this.slopes : this.values).get(factor.node)!;
    });
  }
}
